// tests/status_test.c: the status table, the last message and errno, and the log.
#include "zerocp.h"
#include "harness/inside.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// The table

TEST(status_table_tells_each_cause_apart) {
    CHECK_EQ(ZCP_OK, 0);
    CHECK_STR(zcp_status_name(ZCP_OK), "ZCP_OK");
    for (int a = 0; a < ZCP_STATUS_COUNT; a++) {
        const char *name = zcp_status_name((zcp_status)a), *message = zcp_status_message((zcp_status)a);
        const char *colon = strstr(message, ": ");
        CHECK_MSG(a == 0 || strncmp(name, "ZCP_ERR_", 8) == 0, "%s", name);
        CHECK_MSG(colon != NULL && colon - message > 5 && strlen(colon) > 10, "%s: %s", name, message);
        CHECK_MSG(strchr(message, '\n') == NULL, "%s: more than a line", name);
        for (int b = 0; b < a; b++) {
            CHECK_MSG(strcmp(name, zcp_status_name((zcp_status)b)) != 0, "%s twice", name);
            CHECK_MSG(strcmp(message, zcp_status_message((zcp_status)b)) != 0, "message of %s twice", name);
            CHECK_MSG(strcmp(colon, strstr(zcp_status_message((zcp_status)b), ": ")) != 0 || a == 0,
                      "%s and %s give the same advice", name, zcp_status_name((zcp_status)b));
        }
    }
}

TEST(status_names_are_the_codes) {
#define CHECK_NAME(code, what, todo) CHECK_STR(zcp_status_name(code), #code);
    ZCP_STATUS_TABLE(CHECK_NAME)
    static const char *const promised[] = {                        // by the design
        "INVALID_ARGUMENT", "INVALID_NAME", "INVALID_SIZE", "INVALID_ALIGNMENT", "INVALID_FLAGS", "INVALID_TOKEN",
        "OVERFLOW", "FULL", "EXISTS", "NOT_FOUND", "PERMISSION", "WRONG_OWNER", "NO_SPACE", "NO_MEMORY", "MAPPING",
        "SYSTEM", "TIMEOUT", "NOT_ZEROCP", "VERSION", "LAYOUT", "CORRUPT", "CONFIG_MISMATCH", "CLIENTS_FULL",
        "TOO_LARGE", "EXHAUSTED", "STALE", "READ_ONLY", "FORKED", "CLOSED", "REPLACED", "EMPTY", "INTERRUPTED",
        "LIMIT"};
    for (size_t i = 0; i < sizeof promised / sizeof promised[0]; i++) {
        bool found = false;
        for (int code = 1; code < ZCP_STATUS_COUNT; code++)
            found |= strcmp(zcp_status_name((zcp_status)code) + 8, promised[i]) == 0;
        CHECK_MSG(found, "no ZCP_ERR_%s", promised[i]);
    }
}

TEST(status_numbers_that_are_none) {
    static const int numbers[] = {ZCP_STATUS_COUNT, ZCP_STATUS_COUNT + 1, 1000, -1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        CHECK_STR(zcp_status_name((zcp_status)numbers[i]), "ZCP_ERR_UNKNOWN");
        CHECK(strlen(zcp_status_message((zcp_status)numbers[i])) > 10);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The last failure

TEST(last_failure_is_told_until_the_next_one) {
    zcp_shm shm;
    zcp_mpmc_list list;
    char first[512];
    CHECK_STR(zcp_last_message(), "");                             // none yet
    CHECK_EQ(zcp_last_errno(), 0);
    errno = 4711;
    CHECK_STATUS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING}),
                 ZCP_ERR_NOT_FOUND);
    CHECK_EQ(zcp_last_errno(), ENOENT);
    CHECK(strstr(zcp_last_message(), test_instance()) != NULL);
    snprintf(first, sizeof first, "%s", zcp_last_message());
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 1}));  // a success in between
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
    CHECK_STR(zcp_last_message(), first);
    CHECK_EQ(zcp_last_errno(), ENOENT);
    CHECK_STATUS(zcp_mpmc_list_attach(&list, NULL, 0), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(strcmp(zcp_last_message(), first) != 0);
    CHECK_EQ(zcp_last_errno(), 0);                                 // this time the system was not the cause
}

TEST(last_message_holds_the_longest_names) {
    zcp_shm shm;
    char name[256] = "";
    for (int i = 0; i < 254; i++)
        name[i] = 'n';
    CHECK_STATUS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING}), ZCP_ERR_NOT_FOUND);
    CHECK(strstr(zcp_last_message(), name) != NULL);
    CHECK(strstr(zcp_last_message(), strerror(ENOENT)) != NULL);
}

static void *fail_otherwise(void *argument) {
    _Atomic uint32_t *turn = argument;
    zcp_mpmc_list list;
    test_await(turn, 1);
    CHECK_STR(zcp_last_message(), "");                             // another thread's failure is not mine
    CHECK_EQ(zcp_last_errno(), 0);
    CHECK_STATUS(zcp_mpmc_list_attach(&list, NULL, 0), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(zcp_last_message()[0] != 0);
    test_signal(turn);
    return NULL;
}

TEST(last_failure_is_the_threads_own) {
    static _Atomic uint32_t turn;
    pthread_t thread = test_thread(fail_otherwise, &turn);
    CHECK_STATUS(zcp_shm_unlink(test_instance()), ZCP_ERR_NOT_FOUND);
    test_signal(&turn);
    test_await(&turn, 2);
    CHECK_EQ(zcp_last_errno(), ENOENT);
    CHECK(strstr(zcp_last_message(), test_instance()) != NULL);
    test_thread_join(thread);
}

// ---------------------------------------------------------------------------------------------------------------------
// What fails within a call that succeeds is not told

static void fail_with_marker(void) {
    CHECK_STATUS(zcp_shm_unlink("(marker)/"), ZCP_ERR_INVALID_NAME);
}

static void must_be_marker(const char *after) {
    CHECK_MSG(strstr(zcp_last_message(), "(marker)") != NULL, "after %s: %s", after, zcp_last_message());
    CHECK_EQ(zcp_last_errno(), 0);
}

// A call that succeeds although something within it fails: a name that is not there yet, or any more.
#define MUST_LEAVE_IT_ALONE(call)                                                                                      \
    do {                                                                                                               \
        fail_with_marker();                                                                                            \
        CHECK_OK(call);                                                                                                \
        must_be_marker(#call);                                                                                         \
    } while (0)

static void die_with_the_only_chunk(void *argument) {
    zcp_manager *manager;
    zcp_chunk chunk;
    (void)argument;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING}));
    CHECK_OK(zcp_chunk_allocate(manager, 1, &chunk));
    for (;;)
        kill(getpid(), SIGKILL);
}

TEST(last_failure_is_left_alone_by_calls_that_succeed) {
    zcp_shm shm;
    zcp_manager *manager, *observer;
    zcp_chunk chunk, other;
    zcp_pool_stats stats;
    zcp_config config = {0}, larger = {0};
    const char *name = test_instance();
    CHECK_OK(zcp_config_add_pool(&config, 64, 1));
    CHECK_OK(zcp_config_add_pool(&larger, 64, 2));
    zcp_manager_desc desc = {.name = name, .config = &config};
    MUST_LEAVE_IT_ALONE(zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .bytes = 1}));
    zcp_shm_close(&shm);
    MUST_LEAVE_IT_ALONE(
        zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .bytes = 1, .mode = ZCP_SHM_PURGE_AND_CREATE}));
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(name));
    MUST_LEAVE_IT_ALONE(zcp_manager_open(&manager, &desc));
    MUST_LEAVE_IT_ALONE(zcp_manager_open(&observer, &(zcp_manager_desc){.name = name, .flags = ZCP_OBSERVE}));
    fail_with_marker();
    zcp_manager_close(observer);                                   // which has no chunk segment to forget
    must_be_marker("close");
    CHECK_OK(zcp_chunk_allocate(manager, 64, &chunk));
    zcp_chunk_release(&chunk);
    must_be_marker("allocate and release");
    test_join_signal(test_spawn(die_with_the_only_chunk, NULL), SIGKILL);
    MUST_LEAVE_IT_ALONE(zcp_chunk_allocate_wait(manager, 64, 20000, &chunk));
    MUST_LEAVE_IT_ALONE(zcp_manager_reconfigure(manager, &larger));
    MUST_LEAVE_IT_ALONE(zcp_chunk_allocate(manager, 64, &other));
    MUST_LEAVE_IT_ALONE(zcp_manager_pool_stats(manager, 0, &stats));
    zcp_chunk_release(&chunk);
    zcp_chunk_release(&other);
    must_be_marker("releases");
    MUST_LEAVE_IT_ALONE(zcp_manager_recover(manager, NULL));
    zcp_manager_close(manager);
    char text[300];
    CHECK(zcp_manager_format(manager, text, sizeof text) > 0);
    must_be_marker("a line that tells of the failure itself");
    desc.mode = ZCP_SHM_PURGE_AND_CREATE;
    MUST_LEAVE_IT_ALONE(zcp_manager_open(&manager, &desc));
    zcp_manager_close(manager);
    snprintf(text, sizeof text, "%s_memory_management", name);
    CHECK_OK(zcp_shm_unlink(text));
    MUST_LEAVE_IT_ALONE(zcp_manager_destroy(name));                // only the chunk segment is left
    CHECK_STATUS(zcp_manager_destroy(name), ZCP_ERR_NOT_FOUND);
    CHECK(strstr(zcp_last_message(), name) != NULL);
}

static void fail_in_the_log(zcp_log_level level, const char *line, void *user) {
    (void)level, (void)line, (void)user;
    CHECK_STATUS(zcp_shm_unlink("/"), ZCP_ERR_INVALID_NAME);
    CHECK(strstr(zcp_last_message(), "no slash") != NULL);
}

// Not even by those that the application makes where it gets the lines of the log.
TEST(last_failure_is_left_alone_by_who_gets_the_log) {
    zcp_manager *manager;
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 64, 1));
    zcp_log_set_callback(fail_in_the_log, NULL);
    zcp_log_set_level(ZCP_LOG_DEBUG);
    MUST_LEAVE_IT_ALONE(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    zcp_manager_close(manager);
    must_be_marker("close");
    MUST_LEAVE_IT_ALONE(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// The log

typedef struct lines {
    char text[16384];
    unsigned count, levels[5];
} lines;

static void collect(zcp_log_level level, const char *line, void *user) {
    lines *all = user;
    size_t used = strlen(all->text);
    CHECK(level >= ZCP_LOG_ERROR && level <= ZCP_LOG_DEBUG);
    CHECK(strchr(line, '\n') == NULL && line[0] != 0);
    snprintf(all->text + used, sizeof all->text - used, "%s\n", line);
    all->count++;
    all->levels[level]++;
}

static zcp_manager *open_two_pools(void) {
    zcp_config config = {0};
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 256, 10));
    CHECK_OK(zcp_config_add_pool(&config, 1000, 5));
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    return manager;
}

static void hold_one_and_die(void *argument) {
    zcp_manager *manager = open_two_pools();
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(manager, 1, &chunk));
    kill(getpid(), SIGKILL);
    (void)argument;
}

TEST(log_tells_each_step_at_info) {
    static lines all;
    char expected[512];
    zcp_manager_info info;
    zcp_recovery report;
    zcp_log_set_callback(collect, &all);
    zcp_log_set_level(ZCP_LOG_INFO);
    zcp_manager *manager = open_two_pools();
    CHECK_OK(zcp_manager_get_info(manager, &info));
    CHECK_HAS(all.text, "sizes computed");
    snprintf(expected, sizeof expected, "management segment %llu bytes", (unsigned long long)info.management_bytes);
    CHECK_HAS(all.text, expected);
    snprintf(expected, sizeof expected, "chunk segment %llu bytes", (unsigned long long)info.chunk_bytes);
    CHECK_HAS(all.text, expected);
    snprintf(expected, sizeof expected, "segment created: %s, %llu bytes, base 0x", info.management_name,
             (unsigned long long)info.management_bytes);
    CHECK_HAS(all.text, expected);
    CHECK_HAS(all.text, ", id 1");
    snprintf(expected, sizeof expected, "segment created: %s, %llu bytes", info.chunk_name,
             (unsigned long long)info.chunk_bytes);
    CHECK_HAS(all.text, expected);
    CHECK_HAS(all.text, ", id 2");
    CHECK_HAS(all.text, "pool 0: chunk_size=256, count=10");
    CHECK_HAS(all.text, "pool 1: chunk_size=1000, count=5");
    CHECK_HAS(all.text, "attached as client 0");
    snprintf(expected, sizeof expected, "management segment at %p, chunk segment at %p", info.management_base,
             info.chunk_base);
    CHECK_HAS(all.text, expected);
    CHECK_EQ(all.count, all.levels[ZCP_LOG_INFO]);

    memset(&all, 0, sizeof all);
    test_join_signal(test_spawn(hold_one_and_die, NULL), SIGKILL);
    CHECK_OK(zcp_manager_recover(manager, &report));
    CHECK_HAS(all.text, "swept dead client 1");
    CHECK_HAS(all.text, "1 chunks reclaimed");

    memset(&all, 0, sizeof all);
    zcp_manager_close(manager);
    CHECK_HAS(all.text, "client 0 left");
    books_check(test_instance(), 0);
    CHECK(strstr(all.text, "segment created") == NULL);
    memset(&all, 0, sizeof all);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    CHECK_HAS(all.text, "removed");
}

TEST(log_warns_of_what_is_not_released) {
    static lines all;
    zcp_chunk chunk, copy;
    zcp_log_set_callback(collect, &all);
    zcp_log_set_level(ZCP_LOG_WARNING);
    zcp_manager *manager = open_two_pools();
    CHECK_EQ(all.count, 0);
    CHECK_OK(zcp_chunk_allocate(manager, 1, &chunk));
    copy = chunk;
    zcp_chunk_release(&chunk);
    CHECK_EQ(all.count, 0);
    zcp_chunk_release(&copy);
    CHECK_HAS(all.text, "not held");
    CHECK_EQ(all.levels[ZCP_LOG_ERROR], 1);
    CHECK_OK(zcp_chunk_allocate(manager, 1, &chunk));
    zcp_manager_close(manager);
    CHECK_HAS(all.text, "1 handles not released");
    CHECK_EQ(all.count, 2);
    CHECK_EQ(all.levels[ZCP_LOG_WARNING], 1);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

static void release_again(zcp_chunk copy, int times) {
    for (int i = 0; i < times; i++) {
        zcp_chunk one = copy;
        fail_with_marker();
        zcp_chunk_release(&one);
        CHECK(one.manager == NULL);
        CHECK(strstr(zcp_last_message(), "not held") != NULL);
    }
}

// One line a second for each manager, and how many it leaves out; the last message tells of each.
TEST(log_tells_double_releases_once_a_second) {
    static lines all;
    zcp_manager *managers[2] = {open_two_pools(), NULL};
    zcp_chunk chunk, copies[2];
    CHECK_OK(zcp_manager_open(&managers[1], &(zcp_manager_desc){.name = test_instance()}));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(zcp_chunk_allocate(managers[i], 1, &chunk));
        copies[i] = chunk;
        zcp_chunk_release(&chunk);
    }
    zcp_log_set_callback(collect, &all);
    zcp_log_set_level(ZCP_LOG_ERROR);
    uint64_t before = test_now();
    release_again(copies[0], 1);
    CHECK_EQ(all.levels[ZCP_LOG_ERROR], 1);
    uint64_t next = inside_release_told(managers[0], UINT64_MAX);  // as if this second did not end
    CHECK(next >= before + 1000000000 && next <= test_now() + 1000000000);
    release_again(copies[0], 41);
    CHECK_EQ(all.count, 1);
    release_again(copies[1], 1);                                   // another manager's second
    CHECK_EQ(all.count, 2);
    (void)inside_release_told(managers[0], 0);                     // as if it had ended
    release_again(copies[0], 1);
    CHECK_EQ(all.count, 3);
    CHECK_HAS(all.text, "not held");
    CHECK_HAS(all.text, "(and 41 more since the last line)\n");
    (void)inside_release_told(managers[0], UINT64_MAX);
    release_again((zcp_chunk){managers[0], NULL, UINT32_MAX, 5}, 2);            // of no chunk at all
    CHECK_EQ(all.count, 3);
    for (int i = 0; i < 2; i++)
        zcp_manager_close(managers[i]);
    CHECK_HAS(all.text, "since the last line 2 more releases");
    CHECK_EQ(all.levels[ZCP_LOG_ERROR], 4);
    CHECK_EQ(all.count, 4);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

static void log_each_level(void) {
    ZEROCP_LOG(ZCP_LOG_ERROR, "an %s", "error");
    ZEROCP_LOG(ZCP_LOG_WARNING, "a %s", "warning");
    ZEROCP_LOG(ZCP_LOG_INFO, "an %s", "info");
    ZEROCP_LOG(ZCP_LOG_DEBUG, "a %s", "debug");
}

TEST(log_level_says_what_is_told) {
    static lines all;
    zcp_log_set_callback(collect, &all);
    for (int level = ZCP_LOG_OFF; level <= ZCP_LOG_DEBUG; level++) {
        memset(&all, 0, sizeof all);
        zcp_log_set_level((zcp_log_level)level);
        CHECK_EQ(zcp_log_get_level(), level);
        log_each_level();
        CHECK_EQ(all.count, level);
        for (int l = 1; l <= ZCP_LOG_DEBUG; l++)
            CHECK_EQ(all.levels[l], l <= level);
    }
    CHECK_HAS(all.text, "an error\na warning\nan info\na debug\n");
    zcp_log_set_level((zcp_log_level)77);
    CHECK_EQ(zcp_log_get_level(), ZCP_LOG_DEBUG);
}

TEST(log_keeps_errno_and_cuts_long_lines) {
    static lines all;
    static char long_text[2000];
    memset(long_text, 'l', sizeof long_text - 1);
    zcp_log_set_callback(collect, &all);
    errno = 4711;
    zcp_log(ZCP_LOG_ERROR, "%s", long_text);
    CHECK_EQ(errno, 4711);
    CHECK(strlen(all.text) > 100 && strlen(all.text) < sizeof long_text);
}

// ---------------------------------------------------------------------------------------------------------------------
// On stderr, and by the environment: in a program that begins anew

TEST_PROGRAM(log_user, argument) {
    if (strcmp(argument, "set") == 0)
        zcp_log_set_level(ZCP_LOG_WARNING);
    log_each_level();
    static lines all;
    zcp_log_set_callback(collect, &all);
    zcp_log(ZCP_LOG_ERROR, "to the callback");
    zcp_log_set_callback(NULL, NULL);
    zcp_log(ZCP_LOG_ERROR, "to stderr again");
    CHECK_STR(all.text, "to the callback\n");
}

// What the program writes to stderr, with that in its environment (NULL: nothing).
static const char *stderr_of(const char *level, const char *argument) {
    static char text[4096];
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    char **argv = test_exec_argv("log_user", argument);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        if (level == NULL)
            unsetenv("ZEROCP_LOG_LEVEL");
        else
            setenv("ZEROCP_LOG_LEVEL", level, 1);
        execv(argv[0], argv);
        _exit(127);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got = 1; got > 0; used += (size_t)got) {
        got = read(ends[0], text + used, sizeof text - 1 - used);
        CHECK(got >= 0);
    }
    text[used] = 0;
    close(ends[0]);
    test_join(pid);
    return text;
}

static const char *const told[] = {"zerocp error: an error\n", "zerocp warning: a warning\n", "zerocp info: an info\n",
                                   "zerocp debug: a debug\n"};

static void check_told(const char *level, const char *argument, int expected) {
    char wanted[512] = "";
    for (int i = 0; i < expected; i++)
        strcat(wanted, told[i]);
    strcat(wanted, "zerocp error: to stderr again\n");
    CHECK_STR(stderr_of(level, argument), wanted);
}

TEST(log_goes_to_stderr_errors_only_unless_told) {
    check_told(NULL, "", 1);
}

TEST(log_level_of_the_environment) {
    static const struct {
        const char *text;
        int level;
    } known[] = {{"0", 0},   {"1", 1},     {"2", 2},       {"3", 3},    {"4", 4},     {"off", 0},
                 {"error", 1}, {"warning", 2}, {"info", 3},  {"debug", 4},
                 {"", 1},    {"5", 1},     {"-1", 1},      {"33", 1},   {"loud", 1},  {"INFOS", 1}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        check_told(known[i].text, "", known[i].level);
}

TEST(log_level_set_goes_before_the_environment) {
    check_told("debug", "set", 2);
    check_told("0", "set", 2);
    check_told(NULL, "set", 2);
}

static void *log_from_a_thread(void *argument) {
    (void)argument;
    for (int i = 0; i < 500; i++) {
        ZEROCP_LOG(ZCP_LOG_INFO, "line %d", i);
        zcp_log_set_level(i % 2 ? ZCP_LOG_ERROR : ZCP_LOG_INFO);
    }
    return NULL;
}

static void count_line(zcp_log_level level, const char *line, void *user) {
    _Atomic uint32_t *count = user;
    CHECK_EQ(level, ZCP_LOG_INFO);
    CHECK(strncmp(line, "line ", 5) == 0);
    atomic_fetch_add(count, 1);
}

TEST(log_from_several_threads) {
    static _Atomic uint32_t count;
    pthread_t threads[3];
    zcp_log_set_callback(count_line, &count);
    zcp_log_set_level(ZCP_LOG_INFO);
    for (int i = 0; i < 3; i++)
        threads[i] = test_thread(log_from_a_thread, NULL);
    for (int i = 0; i < 3; i++)
        test_thread_join(threads[i]);
    CHECK(count > 0 && count <= 1500);
}
