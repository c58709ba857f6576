// tests/limits_test.c: where something ends. Client slots, pools, sizes, chunks, descriptors; and what the flags of a
// manager promise. Every limit is reached, told by its own status, and passed again once there is room.
#include "harness/filter.h"
#include "harness/inside.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Helpers

static const zcp_config two_pools = {.pools = {.size = 2, .items = {{64, 8, 0, 0}, {1024, 4, 0, 0}}}};

static bool segment_there(const char *which, struct stat *status) {
    char path[512];
    snprintf(path, sizeof path, "/dev/shm/%s_memory_%s", test_instance(), which);
    return lstat(path, status) == 0;
}

static bool instance_there(void) {
    struct stat status;
    return segment_there("management", &status) || segment_there("chunk", &status);
}

static zcp_status open_with(zcp_manager **manager, zcp_manager_desc desc) {
    desc.name = test_instance();
    zcp_status status = zcp_manager_open(manager, &desc);
    CHECK_EQ(*manager != NULL, status == ZCP_OK);
    return status;
}

static zcp_manager *open_of(const zcp_config *config, uint32_t flags) {
    zcp_manager *manager;
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = config, .flags = flags}));
    return manager;
}

static zcp_manager_info info_of(const zcp_manager *manager) {
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    return info;
}

static zcp_pool_stats stats_of(const zcp_manager *manager, uint32_t pool) {
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, pool, &stats));
    CHECK_EQ(stats.used + stats.free, stats.total);
    return stats;
}

// For an instance that nobody uses any more.
static void balance_and_destroy(void) {
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    CHECK(!instance_there());
}

static zcp_chunk allocated(zcp_manager *manager, uint64_t size) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(manager, size, &chunk));
    CHECK(chunk.data != NULL && zcp_chunk_is_valid(&chunk));
    CHECK_EQ(zcp_chunk_size(&chunk), size);
    return chunk;
}

static void check_refused(zcp_manager *manager, uint64_t size, zcp_status expected) {
    zcp_chunk chunk;
    memset(&chunk, 0xee, sizeof chunk);
    CHECK_STATUS(zcp_chunk_allocate(manager, size, &chunk), expected);
    CHECK(chunk.manager == NULL && chunk.data == NULL && chunk.index == 0 && chunk.generation == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients

static void hold_and_wait(void *argument) {
    zcp_manager *manager;
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
    zcp_chunk chunk = allocated(manager, 64);
    memset(chunk.data, 0x5a, 64);
    test_signal(argument);
    for (;;)
        pause();
}

// A minute's timeout, and none of it is spent: there is nobody to wait for.
static void check_full(uint32_t clients) {
    char words[64];
    zcp_manager *manager;
    snprintf(words, sizeof words, "all %u client slots", clients);
    for (int mode = ZCP_SHM_OPEN_OR_CREATE; mode <= ZCP_SHM_OPEN_EXISTING; mode++) {
        uint64_t start = test_now();
        zcp_manager_desc desc = {.mode = (zcp_shm_mode)mode, .config = &two_pools, .timeout_ms = 60000};
        CHECK_STATUS(open_with(&manager, desc), ZCP_ERR_CLIENTS_FULL);
        CHECK(test_now() - start < UINT64_C(30000000000));
        CHECK_HAS(zcp_last_message(), words);
    }
}

// A slot is freed by a close, or by a death, with what its client held.
static void change_hands(zcp_manager **manager, bool by_death, uint32_t clients) {
    _Atomic uint32_t *here = test_shared(sizeof *here);
    uint32_t slot = info_of(*manager).slot;
    zcp_manager_close(*manager);
    if (by_death) {
        pid_t pid = test_spawn(hold_and_wait, here);
        test_await(here, 1);
        check_full(clients);
        test_kill(pid);
    }
    CHECK_OK(open_with(manager, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
    CHECK_EQ(info_of(*manager).slot, slot);
    CHECK_EQ(stats_of(*manager, 0).used, 0);
    check_full(clients);
}

static void fill_slots(uint32_t clients) {
    zcp_manager **managers = calloc(clients, sizeof *managers);
    CHECK(managers != NULL);
    for (uint32_t i = 0; i < clients; i++) {
        CHECK_OK(open_with(&managers[i], (zcp_manager_desc){.config = &two_pools, .max_clients = clients}));
        CHECK_EQ(info_of(managers[i]).max_clients, clients);
        for (uint32_t k = 0; k < i; k++)
            CHECK(info_of(managers[k]).slot != info_of(managers[i]).slot);
    }
    check_full(clients);
    for (int i = 0; i < 12; i++)
        change_hands(&managers[test_random_below(clients)], i % 2 == 0, clients);
    books_check_by(managers[clients - 1], 0);
    for (uint32_t i = 0; i < clients; i++)
        zcp_manager_close(managers[i]);
    free(managers);
    balance_and_destroy();
}

TEST(limits_clients_full) {
    fill_slots(1);
    fill_slots(2);
    fill_slots(64);
    fill_slots(65);
}

enum { CREWS = 4, CREW = ZCP_MAX_CLIENTS / CREWS };

typedef struct crew {
    _Atomic uint32_t here, leave;
    _Atomic uint32_t seen[ZCP_MAX_CLIENTS];                        // by slot: how many clients have it
} crew;

static void run_crew(void *argument) {
    crew *all = argument;
    zcp_manager **managers = calloc(CREW, sizeof *managers);
    CHECK(managers != NULL);
    for (uint32_t i = 0; i < CREW; i++) {
        CHECK_OK(open_with(&managers[i], (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
        all->seen[info_of(managers[i]).slot]++;
    }
    test_signal(&all->here);
    test_await(&all->leave, 1);
    for (uint32_t i = 0; i < CREW; i++)
        zcp_manager_close(managers[i]);
    free(managers);
}

TEST_WITH(limits_clients_full_at_the_most, .seconds = 120) {
    crew *all = test_shared(sizeof *all);
    pid_t pids[CREWS];
    zcp_manager *manager;
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .max_clients = ZCP_MAX_CLIENTS}));
    zcp_manager_close(manager);
    for (int i = 0; i < CREWS; i++)
        pids[i] = test_spawn(run_crew, all);
    test_await(&all->here, CREWS);
    for (uint32_t slot = 0; slot < ZCP_MAX_CLIENTS; slot++)
        CHECK_EQ(all->seen[slot], 1);
    check_full(ZCP_MAX_CLIENTS);
    test_kill(pids[0]);                                            // a quarter dies at once
    manager = open_of(&two_pools, 0);
    for (uint32_t slot = 0; slot < ZCP_MAX_CLIENTS; slot += 31) {
        zcp_client_info info;
        CHECK_OK(zcp_manager_client_info(manager, slot, &info));
        CHECK_EQ(info.state == ZCP_CLIENT_FREE, info.pid == 0);
        CHECK(info.state != ZCP_CLIENT_DEAD && (pid_t)info.pid != pids[0]);
    }
    books_check_by(manager, 0);
    zcp_manager_close(manager);
    test_signal(&all->leave);
    for (int i = 1; i < CREWS; i++)
        test_join(pids[i]);
    balance_and_destroy();
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .max_clients = ZCP_MAX_CLIENTS + 1}),
                 ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .max_clients = UINT32_MAX}),
                 ZCP_ERR_INVALID_ARGUMENT);
    CHECK(!instance_there());
}

// Among a thousand clients an opening tries few slots, and yet finds the only dead one and the only free one. Told by
// its system calls, each of which makes the kernel walk through the locks of all others.
typedef struct newcomer {
    uint32_t lock_tries, lock_tests;                               // of the slots' locks
    _Atomic uint32_t slot;
} newcomer;

static void join_traced(void *argument) {
    newcomer *told = argument;
    zcp_manager *manager;
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    raise(SIGSTOP);
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
    told->slot = info_of(manager).slot;
    _exit(0);                                                      // leaves a dead slot behind
}

static newcomer join_and_count(void) {
    struct syscall_info {                                          // what linux/ptrace.h has, at an entry
        uint8_t op, unused[3];
        uint32_t machine;
        uint64_t instruction, stack, number, arguments[6], reserved;
    } info;
    const int get_syscall_info = 0x420e;
    newcomer *told = test_shared(sizeof *told);
    int status;
    pid_t pid = test_spawn(join_traced, told);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD) == 0);
    for (;;) {
        CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status))
            break;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            continue;
        if (ptrace(get_syscall_info, pid, (void *)sizeof info, &info) <= 0) {
            test_kill(pid);
            test_skip("this kernel does not tell what a system call is about");
        }
        if (info.op != 1 || info.number != FILTER_FCNTL)
            continue;
        told->lock_tries += info.arguments[1] == F_OFD_SETLK;
        told->lock_tests += info.arguments[1] == F_OFD_GETLK;
    }
    CHECK_EQ(status, 0);
    return *told;
}

static void run_member(void *argument) {
    crew *all = argument;
    zcp_manager *manager;
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
    zcp_chunk chunk = allocated(manager, 64);
    memset(chunk.data, 0x5a, 64);
    all->seen[info_of(manager).slot]++;
    test_signal(&all->here);
    test_await(&all->leave, 1);
    zcp_manager_close(manager);
}

static uint32_t slot_of_member(const crew *member) {
    for (uint32_t slot = 0; slot < ZCP_MAX_CLIENTS; slot++)
        if (member->seen[slot])
            return slot;
    CHECK(false);
    return 0;
}

static void check_one_dead(zcp_manager *manager) {
    zcp_recovery report;
    CHECK_OK(zcp_manager_recover(manager, &report));
    CHECK_EQ(report.dead_clients, 1);
}

TEST_WITH(limits_opening_among_a_thousand, .seconds = 120) {
    crew *all = test_shared(sizeof *all), *victim = test_shared(sizeof *victim), *leaver = test_shared(sizeof *leaver);
    zcp_manager *manager;
    zcp_client_info info;
    pid_t pids[CREWS - 1], dying = 0, leaving = 0;
    test_need("ptrace");
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .max_clients = 3 * CREW + 4}));
    for (uint32_t i = 0; i < CREWS - 1; i++) {                     // the two stand in the midst
        pids[i] = test_spawn(run_crew, all);
        test_await(&all->here, i + 1);
        if (i == 0)
            dying = test_spawn(run_member, victim);
        if (i == 1)
            leaving = test_spawn(run_member, leaver);
        test_await(&victim->here, 1);
        test_await(&leaver->here, i >= 1);
    }
    CHECK_EQ(stats_of(manager, 0).used, 2);
    test_kill(dying);
    newcomer first = join_and_count();                             // the last slot is free, and one other is dead
    CHECK_EQ(first.slot, 3 * CREW + 3);
    CHECK_EQ(stats_of(manager, 0).used, 1);
    CHECK_OK(zcp_manager_client_info(manager, slot_of_member(victim), &info));
    CHECK_EQ(info.state, ZCP_CLIENT_FREE);
    CHECK_MSG(first.lock_tries <= 4 && first.lock_tests <= 3 * CREW + 4, "%u tries, %u tests", first.lock_tries,
              first.lock_tests);

    // the slot that was swept is free, and one other is dead
    newcomer second = join_and_count();
    CHECK_EQ(second.slot, slot_of_member(victim));
    CHECK_OK(zcp_manager_client_info(manager, first.slot, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_FREE);
    CHECK_MSG(second.lock_tries <= 4 && second.lock_tests <= 3 * CREW + 4, "%u tries, %u tests", second.lock_tries,
              second.lock_tests);

    test_signal(&leaver->leave);
    test_join(leaving);
    check_one_dead(manager);
    for (int i = 0; i < 3; i++)
        CHECK(join_and_count().lock_tries <= 4);
    check_one_dead(manager);
    for (uint32_t slot = 0; slot < ZCP_MAX_CLIENTS; slot++)
        if (all->seen[slot]) {                                     // none of the living was taken for dead
            CHECK_OK(zcp_manager_client_info(manager, slot, &info));
            CHECK_EQ(info.state, ZCP_CLIENT_ALIVE);
        }
    test_signal(&all->leave);
    for (int i = 0; i < CREWS - 1; i++)
        test_join(pids[i]);
    zcp_manager_close(manager);
    balance_and_destroy();
}

static void stop_while_sweeping(void *unused) {
    (void)unused;
    zcp_manager *manager;
    test_at_step("sweeping", 1, TEST_STOP, NULL);
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
    zcp_manager_close(manager);
}

// A slot that is neither clean nor in use may become free: that is waited for, within the time that was given.
TEST(limits_slot_being_swept_is_waited_for) {
    _Atomic uint32_t *here = test_shared(sizeof *here);
    zcp_manager *manager, *other;
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .max_clients = 2}));
    pid_t victim = test_spawn(hold_and_wait, here);
    test_await(here, 1);
    test_kill(victim);
    pid_t sweeper = test_spawn(stop_while_sweeping, NULL);
    test_await_stop(sweeper);
    uint64_t start = test_now();
    CHECK_STATUS(open_with(&other, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING, .timeout_ms = 50}),
                 ZCP_ERR_CLIENTS_FULL);
    CHECK(test_now() - start >= UINT64_C(50000000) && test_now() - start < UINT64_C(4000000000));
    zcp_chunk chunk = allocated(manager, 64);                      // the stopped sweeper is in nobody's way
    zcp_chunk_release(&chunk);
    test_resume(sweeper);
    test_join(sweeper);
    CHECK_OK(open_with(&other, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
    zcp_manager_close(other);
    zcp_manager_close(manager);
    balance_and_destroy();
}

static void join_and_wait(void *argument) {
    _Atomic uint32_t *words = argument;                            // here, leave
    zcp_manager *manager;
    zcp_manager_desc desc = {.mode = ZCP_SHM_OPEN_EXISTING, .client_name = "a name that has thirty-one byte"};
    CHECK_OK(open_with(&manager, desc));
    test_signal(&words[0]);
    test_await(&words[1], 1);
    zcp_manager_close(manager);
    test_signal(&words[0]);
    for (;;)
        pause();
}

static zcp_client_info client_of(const zcp_manager *manager, uint32_t slot) {
    zcp_client_info info;
    CHECK_OK(zcp_manager_client_info(manager, slot, &info));
    return info;
}

static uint64_t wall_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// How many slots have that state and pid; one that is not free is complete.
static int count_clients(const zcp_manager *manager, zcp_client_state state, pid_t pid, uint64_t since,
                         const char *name) {
    int count = 0;
    for (uint32_t slot = 0; slot < info_of(manager).max_clients; slot++) {
        zcp_client_info info = client_of(manager, slot);
        if (info.state != state || (pid_t)info.pid != pid)
            continue;
        CHECK(state == ZCP_CLIENT_FREE ? info.start == 0 : info.start >= since && info.start <= wall_clock());
        CHECK_STR(info.name, name);
        count++;
    }
    return count;
}

TEST(limits_client_info_of_every_slot) {
    _Atomic uint32_t *words = test_shared(2 * sizeof *words);
    uint64_t since = wall_clock();
    char thread_name[16];
    zcp_manager *manager;
    zcp_client_info info;
    CHECK_EQ(prctl(PR_GET_NAME, thread_name), 0);
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .max_clients = 70, .client_name = "anna"}));
    uint32_t own = info_of(manager).slot;
    pid_t leaver = test_spawn(join_and_wait, words);
    test_await(&words[0], 1);
    pid_t victim = test_spawn(hold_and_wait, words);
    test_await(&words[0], 2);
    test_kill(victim);
    CHECK_EQ(count_clients(manager, ZCP_CLIENT_ALIVE, getpid(), since, "anna"), 1);
    CHECK_EQ(client_of(manager, own).pid, getpid());
    CHECK_EQ(count_clients(manager, ZCP_CLIENT_ALIVE, leaver, since, "a name that has thirty-one byte"), 1);
    CHECK_EQ(count_clients(manager, ZCP_CLIENT_DEAD, victim, since, thread_name), 1);
    CHECK_EQ(count_clients(manager, ZCP_CLIENT_FREE, 0, 0, ""), 67);
    test_signal(&words[1]);
    test_await(&words[0], 3);
    CHECK_EQ(count_clients(manager, ZCP_CLIENT_FREE, 0, 0, ""), 68);                  // one has left,
    CHECK_OK(zcp_manager_recover(manager, NULL));
    CHECK_EQ(count_clients(manager, ZCP_CLIENT_FREE, 0, 0, ""), 69);                  // and one is swept
    memset(&info, 0xee, sizeof info);
    CHECK_STATUS(zcp_manager_client_info(manager, 70, &info), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(info.state == ZCP_CLIENT_FREE && info.pid == 0 && info.name[0] == 0);
    CHECK_STATUS(zcp_manager_client_info(manager, UINT32_MAX, &info), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_client_info(manager, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_client_info(NULL, 0, &info), ZCP_ERR_INVALID_ARGUMENT);
    test_kill(leaver);
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_manager_client_info(manager, 0, &info), ZCP_ERR_CLOSED);
    balance_and_destroy();
}

TEST(limits_client_names) {
    static const char *const refused[] = {"a name that has thirty-two bytes", "a/b", "a\nb", ".", ".."};
    zcp_manager *manager;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .client_name = refused[i]}),
                     ZCP_ERR_INVALID_NAME);
        CHECK(!instance_there());
    }
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .client_name = ""}));
    CHECK_STR(client_of(manager, info_of(manager).slot).name, "");
    zcp_manager_close(manager);
    balance_and_destroy();
}

// A thread may be called anything; others are told a name that can be shown.
TEST(limits_client_names_of_threads) {
    static const struct { const char *thread, *told; } names[] = {
        {"plain", "plain"}, {"a\nb", "a_b"}, {"\033[31mred", "_[31mred"}, {"caf\xe9", "caf?"},
        {"kworker/0:1", "kworker_0:1"}, {"", ""}, {" ", " "}, {"\x7f", "_"}, {"caf\xc3\xa9", "caf\xc3\xa9"},
        {"\xc2\x9b" "1m", "__1m"}, {"\xc3", "?"},
        {"\xe2\x82", "??"}, {"\xe0\x80\xaf", "???"}, {"\xed\xa0\x80", "???"}, {"\xf4\x90\x80\x80", "????"},
        {"\xf0\x9f\x99\x82", "\xf0\x9f\x99\x82"}, {"\xff\xc0\x80", "???"}};
    zcp_manager *manager;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_EQ(prctl(PR_SET_NAME, names[i].thread), 0);
        CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools}));
        CHECK_STR(client_of(manager, info_of(manager).slot).name, names[i].told);
        zcp_manager_info info = info_of(manager);
        size_t length = strlen(names[i].thread);                   // a long one is nowhere in the segment by chance
        const void *raw = memmem(info.management_base, (size_t)info.management_bytes, names[i].thread, length);
        CHECK_EQ(length > 4 && raw == NULL, length > 4 && strcmp(names[i].thread, names[i].told) != 0);
        zcp_manager_close(manager);
    }
    balance_and_destroy();
}

// What another client has scribbled over its name is cleaned where it is told: with the client, and in messages.
TEST(limits_client_names_that_were_scribbled) {
    static const char scribbled[32] = "\033]0;x\007/\n\xff no zero at the end: 01";
    static const char *const told = "_]0;x___? no zero at the end: 0", found[] = "a name to be found";
    static char bytes[64 << 10];
    zcp_manager *manager, *other;
    zcp_config larger = two_pools;
    char path[300];
    CHECK_OK(zcp_config_add_pool(&larger, 5000, 1));
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .client_name = found}));
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", test_instance());
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t count = pread(fd, bytes, sizeof bytes, 0);
    char *at = count > 0 ? memmem(bytes, (size_t)count, found, strlen(found)) : NULL;
    CHECK(at != NULL && pwrite(fd, scribbled, sizeof scribbled, at - bytes) == sizeof scribbled);
    close(fd);
    zcp_client_stats stats;
    CHECK_STR(client_of(manager, 0).name, told);
    CHECK_OK(zcp_manager_client_stats(manager, 0, &stats));
    CHECK_STR(stats.name, told);
    CHECK_STATUS(open_with(&other, (zcp_manager_desc){.config = &larger}), ZCP_ERR_CONFIG_MISMATCH);
    CHECK_HAS(zcp_last_message(), told);
    zcp_manager_close(manager);
    balance_and_destroy();
}

// A name that is refused is shown so that it does no harm.
TEST(limits_names_are_told_safely) {
    zcp_manager *manager;
    zcp_manager_desc desc = {.config = &two_pools, .name = "\033]0;a/b\xff"};
    CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_INVALID_NAME);
    CHECK_HAS(zcp_last_message(), "\"_]0;a/b?\"");
    desc.name = test_instance();
    desc.client_name = "\033]0;a/b\xff";
    CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_INVALID_NAME);
    CHECK_HAS(zcp_last_message(), "\"_]0;a/b?\"");
    CHECK(!instance_there());
}

// ---------------------------------------------------------------------------------------------------------------------
// Pools

enum { MOST_CHUNKS = ZCP_MAX_POOLS * 8 };

static size_t allocate_all(zcp_manager *manager, zcp_chunk chunks[MOST_CHUNKS]) {
    size_t count = 0;
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        zcp_pool_stats stats = stats_of(manager, p);
        for (uint64_t i = 0; i < stats.total; i++, count++) {
            CHECK(count < MOST_CHUNKS);
            chunks[count] = allocated(manager, stats.chunk_size);
            zcp_pool_stats from = stats_of(manager, inside_pool_of(&chunks[count]));
            CHECK_EQ(from.chunk_size, stats.chunk_size);
            CHECK_EQ((uintptr_t)chunks[count].data % from.alignment, 0);
        }
    }
    return count;
}

// Every chunk of every pool at once, each filled with a byte of its own, and compared when all are written.
static void check_no_overlap(zcp_manager *manager) {
    zcp_chunk chunks[MOST_CHUNKS];
    zcp_manager_info info = info_of(manager);
    size_t count = allocate_all(manager, chunks);
    for (size_t i = 0; i < count; i++)
        memset(chunks[i].data, (int)i + 1, (size_t)zcp_chunk_capacity(&chunks[i]));
    for (size_t i = 0; i < count; i++) {
        const unsigned char *bytes = chunks[i].data, *base = info.chunk_base;
        uint64_t size = zcp_chunk_capacity(&chunks[i]);
        CHECK(bytes >= base && bytes + size <= base + info.chunk_bytes);
        for (uint64_t k = 0; k < size; k++)
            CHECK_EQ(bytes[k], (unsigned char)(i + 1));
    }
    for (size_t i = 0; i < count; i++)
        zcp_chunk_release(&chunks[i]);
}

static void check_layout(zcp_manager *manager, const zcp_config *config) {
    CHECK_EQ(zcp_manager_pool_end(manager), config->pools.size);
    for (uint32_t p = 0; p < config->pools.size; p++) {
        zcp_pool_stats stats = stats_of(manager, p);
        CHECK_EQ(stats.chunk_size, config->pools.items[p].chunk_size);
        CHECK_EQ(stats.total, config->pools.items[p].chunk_count);
        CHECK_EQ(stats.alignment, config->pools.items[p].alignment);
        CHECK_EQ(stats.free, stats.total);
        CHECK(stats.stride % stats.alignment == 0 && stats.stride >= stats.chunk_size
              && stats.stride < stats.chunk_size + stats.alignment);
    }
    CHECK_EQ(info_of(manager).management_bytes, zcp_config_management_bytes(config, 0));
    CHECK_EQ(info_of(manager).chunk_bytes, zcp_config_chunk_bytes(config, 0));
}

TEST(limits_pools_full) {
    zcp_config config = {0};
    // sizes up and down, some twice, alignments up to a page
    for (uint32_t p = 0; p < ZCP_MAX_POOLS; p++)
        CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 1 + (p * 37) % 11 * 100,
                                                            .chunk_count = 1 + p % 7,
                                                            .alignment = UINT32_C(1) << p % 13}));
    zcp_config before = config;
    CHECK_STATUS(zcp_config_add_pool(&config, 64, 1), ZCP_ERR_FULL);
    CHECK(memcmp(&before, &config, sizeof config) == 0);
    zcp_manager *manager = open_of(&config, 0);
    check_layout(manager, &config);
    check_no_overlap(manager);
    zcp_manager_close(manager);
    balance_and_destroy();
    // none, and a vector that was written beyond its end
    static const uint32_t sizes[] = {0, ZCP_MAX_POOLS + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        config.pools.size = sizes[i];
        CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &config}), ZCP_ERR_INVALID_ARGUMENT);
        CHECK(!instance_there());
    }
}

TEST(limits_alignment_of_every_pool) {
    uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
    for (uint32_t first = 1; first <= page; first *= 2) {          // with an awkward neighbour in front of each
        zcp_config config = {0};
        for (uint32_t alignment = first; alignment <= page && config.pools.size + 2 <= ZCP_MAX_POOLS; alignment *= 2) {
            CHECK_OK(zcp_config_add(
                &config, &(zcp_pool_config){.chunk_size = alignment + 1, .chunk_count = 3, .alignment = alignment}));
            CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 7, .chunk_count = 1, .alignment = 1}));
        }
        zcp_manager *manager = open_of(&config, 0);
        check_layout(manager, &config);
        check_no_overlap(manager);
        zcp_manager_close(manager);
        balance_and_destroy();
    }
    const uint32_t refused[] = {3, 65, 127, 2 * page + 1, 2 * ZCP_MAX_ALIGNMENT, UINT32_MAX};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        zcp_config config = {.pools = {.size = 1, .items = {{64, 1, refused[i], 0}}}};
        zcp_manager *manager;
        CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &config}), ZCP_ERR_INVALID_ALIGNMENT);
        CHECK(!instance_there());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Sizes

static void check_size_refused(uint64_t size, uint32_t count, zcp_status expected) {
    zcp_config config = {.pools = {.size = 1, .items = {{size, count, 0, 0}}}}, empty = {0};
    zcp_manager *manager;
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &config}), expected);
    CHECK(!instance_there());
    if (expected == ZCP_ERR_NO_SPACE)
        return;
    CHECK_STATUS(zcp_config_add_pool(&empty, size, count), expected);
    CHECK_EQ(empty.pools.size, 0);
    CHECK_EQ(zcp_config_total_bytes(&config, 0), 0);
}

// A configuration that is valid and larger than any shared memory is refused before a page of it is touched.
TEST(limits_largest_sizes) {
    const uint64_t most = UINT64_C(1) << 48;
    check_size_refused(0, 1, ZCP_ERR_INVALID_SIZE);
    check_size_refused(64, 0, ZCP_ERR_INVALID_SIZE);
    check_size_refused(64, ZCP_MAX_CHUNKS + 1, ZCP_ERR_INVALID_SIZE);
    check_size_refused(64, UINT32_MAX, ZCP_ERR_INVALID_SIZE);
    check_size_refused(UINT64_MAX, 1, ZCP_ERR_OVERFLOW);
    check_size_refused(UINT64_MAX - 63, 1, ZCP_ERR_OVERFLOW);
    check_size_refused(UINT64_MAX / 2, 2, ZCP_ERR_OVERFLOW);
    check_size_refused(UINT64_C(1) << 58, 64, ZCP_ERR_OVERFLOW);   // the product is 2^64
    check_size_refused(UINT64_C(1) << 37, ZCP_MAX_CHUNKS, ZCP_ERR_OVERFLOW);
    check_size_refused(most + 1, 1, ZCP_ERR_OVERFLOW);
    check_size_refused(most, 1, ZCP_ERR_NO_SPACE);
    CHECK_HAS(zcp_last_message(), "needs 28147497");                                  // 2^48 and the management segment
    CHECK_HAS(zcp_last_message(), "are free in shared memory");
    check_size_refused(most / 2, 1, ZCP_ERR_NO_SPACE);
    check_size_refused(UINT64_C(1) << 43, 16, ZCP_ERR_NO_SPACE);
    zcp_config two = {.pools = {.size = 2, .items = {{most / 2, 1, 0, 0}, {most / 2 + 1, 1, 0, 0}}}};
    zcp_manager *manager;
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &two}), ZCP_ERR_OVERFLOW);
    CHECK_EQ(zcp_config_chunk_bytes(&two, 0), 0);
    two.pools.items[1].chunk_size = most / 2;
    CHECK_EQ(zcp_config_chunk_bytes(&two, 0), most);
    CHECK(!instance_there());
}

static long resident_pages(void) {
    long all, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &all, &resident) == 2);
    fclose(file);
    return resident;
}

// The largest power of two that this process can map so many times, for next to nothing: an emulator keeps books of
// each page.
static uint64_t mappable(uint64_t most, unsigned times) {
    uint64_t found = 0;
    long before = resident_pages();
    for (uint64_t bytes = 1 << 20; bytes <= most && bytes <= SIZE_MAX / times && resident_pages() - before < 1000;
         bytes *= 2) {
        void *memory = mmap(NULL, (size_t)bytes * times, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            break;
        munmap(memory, (size_t)bytes * times);
        found = bytes;
    }
    CHECK(found > 0);
    return found;
}

// A large range of offsets, without the pages: first and last bytes of the chunks of a sparse segment.
TEST(limits_sparse_segment) {
    uint64_t size = mappable(UINT64_C(1) << (SANITIZED ? 30 : 40), 6);    // two chunks, twice, and room
    test_note("chunks of %llu MiB", (unsigned long long)size >> 20);
    zcp_config config = {.pools = {.size = 2, .items = {{size, 2, 4096, 0}, {64, 2, 0, 0}}}};
    zcp_manager *manager = open_of(&config, ZCP_SHM_NO_RESERVE), *other = open_of(NULL, 0);
    zcp_chunk chunks[2] = {allocated(manager, size), allocated(manager, size - 1)}, received;
    for (int i = 0; i < 2; i++) {
        unsigned char *bytes = zcp_chunk_data(&chunks[i]);
        bytes[0] = (unsigned char)(1 + i);
        bytes[size - 1] = (unsigned char)(3 + i);
    }
    zcp_relptr last = zcp_relptr_of(zcp_manager_registry(manager), (char *)chunks[1].data + size - 1);
    CHECK_OK(zcp_chunk_acquire(other, zcp_chunk_token(&chunks[1]), &received));
    CHECK_EQ(((unsigned char *)received.data)[0], 2);
    CHECK_EQ(((unsigned char *)received.data)[size - 1], 4);
    CHECK(zcp_relptr_get(zcp_manager_registry(other), last, 1) == (char *)received.data + size - 1);
    CHECK_EQ(zcp_chunk_size(&received), size - 1);
    check_refused(manager, size, ZCP_ERR_EXHAUSTED);
    check_refused(manager, size + 1, ZCP_ERR_TOO_LARGE);
    zcp_chunk_release(&received);
    zcp_chunk_release(&chunks[0]);
    zcp_chunk_release(&chunks[1]);
    zcp_manager_close(other);
    zcp_manager_close(manager);
    balance_and_destroy();
}

static const zcp_config sixteen_pages = {.pools = {.size = 1, .items = {{4096, 16, 0, 0}}},
                                         .publishers = 1, .subscribers = 1, .ring_cells = 1};

typedef struct file_limit {
    rlim_t bytes;
    zcp_status expected;
} file_limit;

static void create_below_file_limit(void *argument) {
    const file_limit *limit = argument;
    struct rlimit soft = {.rlim_cur = limit->bytes, .rlim_max = RLIM_INFINITY};
    zcp_manager *manager;
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &soft), 0);
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &sixteen_pages}), limit->expected);
    if (manager == NULL) {
        CHECK_EQ(zcp_last_errno(), EFBIG);
        CHECK_HAS(zcp_last_message(), "ulimit -f");
        CHECK(!instance_there());
    }
    zcp_manager_close(manager);
}

static void file_limited(rlim_t bytes, zcp_status expected) {
    file_limit limit = {bytes, expected};
    test_join(test_spawn(create_below_file_limit, &limit));
    if (expected == ZCP_OK)
        balance_and_destroy();
    CHECK(!instance_there());
}

TEST(limits_file_size) {
    file_limited(16, ZCP_ERR_NO_SPACE);
    file_limited(4096, ZCP_ERR_NO_SPACE);
    file_limited(65535, ZCP_ERR_NO_SPACE);
    // the limit is each file's, not that of both together
    file_limited(65536, ZCP_OK);
    file_limited(1 << 20, ZCP_OK);
}

static void limit_files(void) {
    struct rlimit soft = {.rlim_cur = 1024, .rlim_max = RLIM_INFINITY};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &soft), 0);
}

static void create_until_limited(void *argument) {
    zcp_manager *manager;
    test_at_step(argument, 1, TEST_CALL, limit_files);
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &sixteen_pages}), ZCP_ERR_NO_SPACE);
    CHECK(!instance_there());
}

// The room that was there at the first look is gone when it is needed.
TEST(limits_room_gone_in_the_midst_of_creation) {
    static char steps[][24] = {"creation_locked", "started", "management_sized", "chunk_created"};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        test_join(test_spawn(create_until_limited, steps[i]));
        zcp_manager_close(open_of(&sixteen_pages, 0));
        balance_and_destroy();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Descriptors

static int descriptors(void) {
    int count = 0;
    for (int i = 0; i < 256; i++)
        count += fcntl(i, F_GETFD) >= 0;
    return count;
}

// Exits with 0 if it could open, with 2 if it was refused as it should be. Nothing may be left behind either way.
static void open_with_few_descriptors(void *argument) {
    int room = *(int *)argument, before = descriptors(), lowest = dup(STDOUT_FILENO);
    bool exists = instance_there();
    struct rlimit limit;
    zcp_manager *manager;
    close(lowest);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)(lowest + room);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    zcp_status status = open_with(&manager, (zcp_manager_desc){.config = &two_pools});
    CHECK_MSG(status == ZCP_OK || (status == ZCP_ERR_SYSTEM && zcp_last_errno() == EMFILE), "%s: %s",
              zcp_status_name(status), zcp_last_message());
    CHECK_EQ(descriptors(), before + (status == ZCP_OK ? 3 : 0));
    zcp_manager_close(manager);
    CHECK_EQ(descriptors(), before);
    CHECK_MSG(exists || status == ZCP_OK || !instance_there(), "something is left of what could not be created: %s",
              zcp_last_message());
    _exit(status == ZCP_OK ? 0 : 2);
}

static bool opens_with_descriptors(int room) {
    int status = test_wait(test_spawn(open_with_few_descriptors, &room));
    CHECK(status == 0 || status == 2 << 8);
    return status == 0;
}

TEST(limits_descriptors_for_attaching) {
    bool opened = false;
    zcp_manager *manager = open_of(&two_pools, 0);
    for (int room = 0; room < 8; room++) {
        bool opens = opens_with_descriptors(room);
        CHECK(opens || !opened);                                   // more of them never does harm
        opened = opens;
        CHECK_OK(zcp_manager_check(manager));
        books_check(test_instance(), 0);
    }
    CHECK(opened);
    zcp_manager_close(manager);
    balance_and_destroy();
}

TEST(limits_descriptors_for_creating) {
    bool opened = false;
    for (int room = 0; room < 8; room++) {
        bool opens = opens_with_descriptors(room);
        CHECK(opens || !opened);
        opened = opens;
        zcp_manager_close(open_of(&two_pools, 0));                 // nobody else is bothered
        balance_and_destroy();
    }
    CHECK(opened);
}

// ---------------------------------------------------------------------------------------------------------------------
// Exhaustion

// The dead were looked for a moment ago: asks again.
static zcp_chunk allocated_in_the_end(zcp_manager *manager, uint64_t size) {
    zcp_chunk chunk;
    zcp_status status;
    while ((status = zcp_chunk_allocate(manager, size, &chunk)) == ZCP_ERR_EXHAUSTED)
        test_sleep(1);
    CHECK_OK(status);
    return chunk;
}

static void exhaust_once(zcp_manager *manager) {
    zcp_chunk chunks[8], large;
    for (int i = 0; i < 8; i++)
        chunks[i] = allocated(manager, 1 + test_random_below(64));
    for (int i = 0; i < 3; i++)
        check_refused(manager, 64, ZCP_ERR_EXHAUSTED);
    CHECK_EQ(stats_of(manager, 0).free, 0);
    // without ZCP_FALLBACK the larger ones are for larger sizes
    CHECK_EQ(stats_of(manager, 1).used, 0);
    large = allocated(manager, 65);
    zcp_chunk_release(&large);
    size_t at = (size_t)test_random_below(8);
    uint32_t index = chunks[at].index;
    zcp_chunk_release(&chunks[at]);
    chunks[at] = allocated(manager, 64);                           // at once: its hint is there
    CHECK_EQ(chunks[at].index, index);
    check_refused(manager, 64, ZCP_ERR_EXHAUSTED);
    for (int i = 0; i < 8; i++)
        zcp_chunk_release(&chunks[i]);
}

TEST(limits_exhaustion_and_its_end) {
    zcp_manager *manager = open_of(&two_pools, 0);
    for (int round = 0; round < 20; round++)
        exhaust_once(manager);
    check_refused(manager, 0, ZCP_ERR_INVALID_SIZE);
    check_refused(manager, 1025, ZCP_ERR_TOO_LARGE);
    check_refused(manager, UINT64_MAX, ZCP_ERR_TOO_LARGE);
    check_refused(NULL, 64, ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_chunk_allocate(manager, 64, NULL), ZCP_ERR_INVALID_ARGUMENT);
    zcp_manager_close(manager);
    check_refused(manager, 64, ZCP_ERR_CLOSED);
    balance_and_destroy();
}

static void hold_everything(void *argument) {
    zcp_manager *manager = open_of(NULL, 0);
    for (int i = 0; i < 8; i++)
        allocated(manager, 64);
    test_signal(argument);
    for (;;)
        pause();
}

TEST(limits_exhaustion_ends_with_a_death) {
    zcp_manager *manager = open_of(&two_pools, 0);
    zcp_chunk chunks[8];
    for (int round = 0; round < 10; round++) {
        _Atomic uint32_t *here = test_shared(sizeof *here);
        pid_t pid = test_spawn(hold_everything, here);
        test_await(here, 1);
        check_refused(manager, 1, ZCP_ERR_EXHAUSTED);
        test_stop(pid);                                            // stopped is not dead
        test_sleep(2);
        check_refused(manager, 1, ZCP_ERR_EXHAUSTED);
        test_kill(pid);
        for (int i = 0; i < 8; i++)
            chunks[i] = allocated_in_the_end(manager, 64);
        for (int i = 0; i < 8; i++)
            zcp_chunk_release(&chunks[i]);
    }
    zcp_manager_close(manager);
    balance_and_destroy();
}

TEST(limits_fallback) {
    zcp_config config = {.pools = {.size = 4, .items = {{512, 2, 0, 0}, {64, 2, 0, 0}, {128, 2, 0, 0}, {64, 1, 0, 0}}}};
    static const uint64_t served_by[] = {64, 64, 64, 128, 128, 512, 512};
    zcp_manager *manager = open_of(&config, ZCP_FALLBACK), *strict = open_of(&config, 0);
    zcp_chunk chunks[7];
    for (size_t i = 0; i < 7; i++) {
        if (i >= 3)
            check_refused(strict, 64, ZCP_ERR_EXHAUSTED);          // the flag is the client's, not the instance's
        chunks[i] = allocated(manager, 33);
        CHECK_EQ(zcp_chunk_capacity(&chunks[i]), served_by[i]);
    }
    check_refused(manager, 1, ZCP_ERR_EXHAUSTED);
    check_refused(manager, 512, ZCP_ERR_EXHAUSTED);
    check_refused(manager, 513, ZCP_ERR_TOO_LARGE);
    zcp_chunk_release(&chunks[0]);
    check_refused(manager, 65, ZCP_ERR_EXHAUSTED);                 // smaller ones never serve
    chunks[0] = allocated(manager, 64);
    CHECK_EQ(zcp_chunk_capacity(&chunks[0]), 64);
    for (size_t i = 0; i < 7; i++)
        zcp_chunk_release(&chunks[i]);
    zcp_manager_close(strict);
    zcp_manager_close(manager);
    balance_and_destroy();
}

// ---------------------------------------------------------------------------------------------------------------------
// Read-only data

typedef struct reading {
    _Atomic uint32_t here, go, done;
    uint64_t token;
} reading;

static void scribble(void *argument) {
    const reading *r = argument;
    zcp_manager *manager = open_of(NULL, ZCP_READ_ONLY_DATA);
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_acquire(manager, r->token, &chunk));
    CHECK_STR(chunk.data, "to be read");
    signal(SIGSEGV, SIG_DFL);
    *(volatile char *)chunk.data = 'T';
    CHECK_MSG(false, "the write did not fault");
}

static void only_read(void *argument) {
    reading *r = argument;
    zcp_manager *manager = open_of(&two_pools, ZCP_READ_ONLY_DATA);
    zcp_recovery report;
    zcp_chunk chunk, clone;
    CHECK_EQ(info_of(manager).flags & ZCP_READ_ONLY_DATA, ZCP_READ_ONLY_DATA);
    for (uint64_t size = 64; size <= 1024; size += 64)
        check_refused(manager, size, ZCP_ERR_READ_ONLY);
    CHECK_OK(zcp_chunk_acquire(manager, r->token, &chunk));
    clone = zcp_chunk_clone(&chunk);
    CHECK_STR(zcp_chunk_data(&clone), "to be read");
    CHECK_EQ(zcp_chunk_use_count(&chunk), 3);
    CHECK_EQ(zcp_chunk_token(&chunk), r->token);
    zcp_chunk_release(&chunk);
    test_signal(&r->here);
    test_await(&r->go, 1);                                         // a client is dead now
    CHECK_OK(zcp_manager_recover(manager, &report));
    CHECK_EQ(report.dead_clients, 1);
    CHECK_EQ(report.chunks_reclaimed, 1);
    CHECK_EQ(stats_of(manager, 0).used, 1);
    zcp_chunk_release(&clone);
    zcp_manager_close(manager);
}

TEST(limits_read_only_data) {
    reading *r = test_shared(sizeof *r);
    zcp_manager *manager = open_of(&two_pools, 0);
    zcp_chunk chunk = allocated(manager, 64);
    strcpy(chunk.data, "to be read");
    r->token = zcp_chunk_token(&chunk);
    test_join_signal(test_spawn(scribble, r), SIGSEGV);
    CHECK_STR(chunk.data, "to be read");
    CHECK_OK(zcp_manager_recover(manager, NULL));                  // the scribbler's death is like any other
    CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
    pid_t victim = test_spawn(hold_and_wait, &r->here), reader;
    test_await(&r->here, 1);
    reader = test_spawn(only_read, r);
    test_await(&r->here, 2);
    CHECK_EQ(stats_of(manager, 0).used, 2);
    test_kill(victim);
    test_signal(&r->go);
    test_join(reader);
    CHECK_EQ(stats_of(manager, 0).used, 1);
    *(char *)chunk.data = 'T';                                     // here it is written, as ever
    CHECK_STR(chunk.data, "To be read");
    books_check(test_instance(), 1);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    balance_and_destroy();
}

// ---------------------------------------------------------------------------------------------------------------------
// Flags: their effects as the kernel tells them

// Has the mapping that begins there that flag of smaps: two letters, see proc(5)?
static bool mapping_has(const void *base, const char *flag) {
    char line[1024] = "", start[32], wanted[16];
    bool inside = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    CHECK(file != NULL);
    snprintf(start, sizeof start, "%lx-", (unsigned long)(uintptr_t)base);
    snprintf(wanted, sizeof wanted, " %s ", flag);
    while (fgets(line, sizeof line, file) != NULL && !(inside && strncmp(line, "VmFlags:", 8) == 0))
        inside = inside || strncmp(line, start, strlen(start)) == 0;
    fclose(file);
    CHECK_MSG(inside, "no mapping begins at %p", base);
    return strstr(line, wanted) != NULL;
}

// Bytes of the range that are in this process's page tables.
static uint64_t bytes_present(const void *base, uint64_t bytes) {
    uint64_t present = 0, entry, page = (uint64_t)sysconf(_SC_PAGESIZE);
    int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0);
    for (uint64_t at = (uint64_t)(uintptr_t)base; at < (uint64_t)(uintptr_t)base + bytes; at += page) {
        CHECK_EQ(pread(file, &entry, sizeof entry, (off_t)(at / page * sizeof entry)), (ssize_t)sizeof entry);
        present += entry >> 63;
    }
    close(file);
    return present * page;
}

typedef struct effects {
    bool prefault, lock, no_dump, sparse;
} effects;

static void check_effects(zcp_manager *manager, effects is) {
    zcp_manager_info info = info_of(manager);
    struct stat status;
    CHECK(segment_there("chunk", &status));
    CHECK(mapping_has(info.chunk_base, "dc") && mapping_has(info.management_base, "dc"));     // never in a forked child
    CHECK_EQ(mapping_has(info.chunk_base, "lo"), is.lock);
    CHECK_EQ(mapping_has(info.management_base, "lo"), is.lock);
    CHECK_EQ(mapping_has(info.chunk_base, "dd"), is.no_dump);
    CHECK_EQ(mapping_has(info.management_base, "dd"), is.no_dump);
    CHECK_EQ(bytes_present(info.chunk_base, info.chunk_bytes), is.prefault ? info.chunk_bytes : 0);
    if (is.prefault)
        CHECK_EQ(bytes_present(info.management_base, info.management_bytes), info.management_bytes);
    CHECK_EQ((uint64_t)status.st_blocks * 512, is.sparse ? 0 : info.chunk_bytes);
}

static void check_flags(uint32_t flags, effects are) {
    for (int attach = 0; attach < 2; attach++) {                   // for who creates, and for who attaches
        zcp_manager *first = attach ? open_of(&sixteen_pages, flags & ZCP_SHM_NO_RESERVE) : NULL;
        zcp_manager *manager = open_of(&sixteen_pages, flags);
        CHECK_EQ(info_of(manager).flags, flags);
        check_effects(manager, are);
        zcp_manager_close(first);
        zcp_manager_close(manager);
        balance_and_destroy();
    }
}

TEST(limits_flags_do_what_they_say) {
    test_need("MADV_DONTFORK");
    test_need("MAP_POPULATE");
    check_flags(0, (effects){.lock = false});
    check_flags(ZCP_SHM_PREFAULT, (effects){.prefault = true});
    check_flags(ZCP_SHM_NO_DUMP, (effects){.no_dump = true});
    check_flags(ZCP_SHM_NO_RESERVE, (effects){.sparse = true});
    check_flags(ZCP_SHM_ANY_OWNER | ZCP_CHECKED | ZCP_FALLBACK | ZCP_WAIT, (effects){.lock = false});
    if (SANITIZED)                                                 // the sanitizers make nothing of mlock
        return;
    check_flags(ZCP_SHM_LOCK, (effects){.lock = true, .prefault = true});
    check_flags(ZCP_SHM_LOCK | ZCP_SHM_PREFAULT | ZCP_SHM_NO_DUMP,
                (effects){.lock = true, .prefault = true, .no_dump = true});
}

TEST(limits_unknown_flags_are_refused) {
    const uint32_t known = ZCP_FALLBACK | ZCP_READ_ONLY_DATA | ZCP_WAIT | ZCP_CHECKED | ZCP_OBSERVE | ZCP_SHM_PREFAULT
                           | ZCP_SHM_LOCK | ZCP_SHM_ANY_OWNER | ZCP_SHM_NO_RESERVE | ZCP_SHM_NO_DUMP | ZCP_SHM_GROUP;
    char words[32];
    zcp_manager *manager;
    for (uint32_t flag = 1; flag != 0; flag <<= 1)
        for (int mode = ZCP_SHM_OPEN_OR_CREATE; mode <= ZCP_SHM_PURGE_AND_CREATE && !(flag & known); mode++) {
            zcp_manager_desc desc = {.mode = (zcp_shm_mode)mode, .config = &two_pools, .flags = flag | ZCP_FALLBACK};
            CHECK_STATUS(open_with(&manager, desc), ZCP_ERR_INVALID_FLAGS);
            snprintf(words, sizeof words, "unknown bits 0x%x in", flag);   // and none that is known
            CHECK_MSG(strncmp(zcp_last_message(), words, strlen(words)) == 0, "%s", zcp_last_message());
        }
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.mode = (zcp_shm_mode)4, .config = &two_pools}),
                 ZCP_ERR_INVALID_ARGUMENT);
    CHECK(!instance_there());
}

// More than may be locked: told as such, and the slot is free again. An instance that exists is not harmed by it.
static void lock_too_much(void *unused) {
    struct rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};
    zcp_manager *manager;
    (void)unused;
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && setgid(4321) == 0 && setuid(4321) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .flags = ZCP_SHM_LOCK}),
                     ZCP_ERR_NO_MEMORY);
        CHECK_HAS(zcp_last_message(), "ulimit -l");
    }
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.mode = ZCP_SHM_OPEN_EXISTING}));
    zcp_manager_close(manager);
    zcp_manager_desc fresh = {.name = test_instance_n(1), .config = &two_pools, .flags = ZCP_SHM_LOCK};
    CHECK_STATUS(zcp_manager_open(&manager, &fresh), ZCP_ERR_NO_MEMORY);
    CHECK_HAS(zcp_last_message(), "ulimit -l");
    CHECK_STATUS(zcp_manager_destroy(fresh.name), ZCP_ERR_NOT_FOUND);       // nothing is left of what it had created
}

// A program that has called mlockall: each mapping is to be locked, the private ones as well.
static void open_locked(void *argument) {
    rlim_t bytes = *(rlim_t *)argument;
    zcp_config config = {.pools = {.size = 1, .items = {{65536, 32, 0, 0}}}};
    zcp_pool_config added = {.chunk_size = 65536, .chunk_count = 16};
    zcp_manager *manager;
    char limit[32];
    bool enough = bytes >= 8 << 20;
    snprintf(limit, sizeof limit, "%llu bytes", (unsigned long long)bytes);
    CHECK(setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){bytes, bytes}) == 0 && setgid(4321) == 0 && setuid(4321) == 0);
    CHECK_EQ(mlockall(MCL_FUTURE), 0);
    CHECK_STATUS(open_with(&manager, (zcp_manager_desc){.config = &config}), enough ? ZCP_OK : ZCP_ERR_NO_MEMORY);
    if (enough) {
        zcp_status status = ZCP_OK;
        for (int i = 0; i < ZCP_MAX_LIVE_POOLS - 2 && status == ZCP_OK; i++)
            status = zcp_manager_add_pool(manager, &added, NULL);  // up to the limit
        CHECK_STATUS(status, ZCP_ERR_NO_MEMORY);
    }
    CHECK_HAS(zcp_last_message(), "ulimit -l");
    CHECK_HAS(zcp_last_message(), limit);
    zcp_manager_close(manager);
    CHECK_EQ(instance_there(), enough);
    if (enough)
        CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(limits_locked_memory_of_the_whole_program) {
    test_need("RLIMIT_AS");                                        // an emulator that has no limits of its own
    if (geteuid() != 0 || SANITIZED)
        test_skip("to be a user whose locked memory is limited takes root, and no sanitizer");
    rlim_t sizes[] = {128 << 10, 1 << 20, 3 << 20, 8 << 20};       // of 2 MiB for chunks, and 1.4 for private words
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        test_join(test_spawn(open_locked, &sizes[i]));
}

TEST(limits_locked_memory) {
    zcp_manager *manager;
    if (geteuid() != 0 || SANITIZED)
        test_skip("to be a user whose locked memory is limited takes root, and no sanitizer");
    CHECK_OK(open_with(&manager, (zcp_manager_desc){.config = &two_pools, .max_clients = 1, .permissions = 0666}));
    zcp_manager_close(manager);
    test_join(test_spawn(lock_too_much, NULL));
    balance_and_destroy();
}
