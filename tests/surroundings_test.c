// tests/surroundings_test.c: when the system says no. Full file systems, limits, each system call failing in turn,
// other users, namespaces: the error is told, nothing is left open or half-made, and the next attempt works.
#include "harness/hostile.h"

#include "harness/test.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

#define CHECK_IS(actual, expected)                                                                                     \
    do {                                                                                                               \
        zcp_status actual_ = (actual), expected_ = (expected);                                                         \
        CHECK_MSG(actual_ == expected_, "is %s, expected %s: %s", zcp_status_name(actual_),                            \
                  zcp_status_name(expected_), zcp_last_message());                                                     \
    } while (0)

enum { CLIENTS = 4 };

// Short where something fails for good, which is waited for; long where all has to go well, on however slow a machine.
enum { IN_VAIN_MS = 8, IN_THE_END_MS = 5000 };
static unsigned timeout_ms = IN_THE_END_MS;

static zcp_config small_config(void) {
    zcp_config config = {0};
    CHECK_IS(zcp_config_add_pool(&config, 100, 20), ZCP_OK);
    CHECK_IS(zcp_config_add_pool(&config, 3000, 10), ZCP_OK);
    return config;
}

static zcp_status open_as(zcp_manager **manager, const char *name, zcp_shm_mode mode, uint32_t permissions,
                          uint32_t flags, uint32_t group) {
    zcp_config config = small_config();
    zcp_manager_desc desc = {.name = name, .mode = mode, .permissions = permissions, .flags = flags, .group = group,
                             .timeout_ms = timeout_ms};
    if (mode != ZCP_SHM_OPEN_EXISTING) {
        desc.config = &config;
        desc.max_clients = CLIENTS;
    }
    zcp_status status = zcp_manager_open(manager, &desc);
    CHECK((status == ZCP_OK) == (*manager != NULL));
    CHECK(status == ZCP_OK || zcp_last_message()[0] != 0);
    return status;
}

static zcp_status open_mode(zcp_manager **manager, const char *name, zcp_shm_mode mode) {
    return open_as(manager, name, mode, 0, 0, 0);
}

// All chunks, each written from its first to its last byte.
static void use_all_of(zcp_manager *manager) {
    static const struct { uint64_t size; int count; } sizes[] = {{100, 20}, {3000, 10}};
    zcp_chunk chunks[32];
    int n = 0;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < sizes[p].count; i++, n++) {
            CHECK_IS(zcp_chunk_allocate(manager, sizes[p].size, &chunks[n]), ZCP_OK);
            memset(chunks[n].data, n, (size_t)sizes[p].size);
        }
    zcp_chunk none;
    CHECK_IS(zcp_chunk_allocate(manager, 100, &none), ZCP_ERR_EXHAUSTED);
    while (n-- > 0)
        zcp_chunk_release(&chunks[n]);
}

static bool is_there(const char *name, const char *suffix) {
    char path[320];
    snprintf(path, sizeof path, "/dev/shm/%s%s", name, suffix);
    return access(path, F_OK) == 0;
}

static bool has_management(const char *name) { return is_there(name, "_memory_management"); }
static bool has_chunks(const char *name) { return is_there(name, "_memory_chunk"); }
static bool has_locks(const char *name) { return is_there(name, "_memory_locks"); }

static void remove_both(const char *name) {
    char path[320];
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", name);
    unlink(path);
    snprintf(path, sizeof path, "/dev/shm/%s_memory_chunk", name);
    unlink(path);
    snprintf(path, sizeof path, "/dev/shm/%s_memory_locks", name);
    unlink(path);
}

static void check_same(const hostile_holdings *before, const char *what) {
    hostile_holdings now = hostile_holds();
    CHECK_MSG(hostile_same(before, &now),
              "%s: descriptors %d -> %d, files %d -> %d, anonymous %d -> %d, shm mappings %d -> %d", what,
              before->descriptors, now.descriptors, before->files, now.files, before->anonymous, now.anonymous,
              before->shm_mappings, now.shm_mappings);
}

// The test's own process may not move to other users, limits or namespaces: a child does.
static void in_child(void (*function)(const char *), const char *name) {
    test_join(test_spawn_named(function, name));
}

// ---------------------------------------------------------------------------------------------------------------------
// Each system call fails, one after the other

static const char *subject;                                        // the instance
static zcp_manager *subject_manager;
static zcp_shm subject_shm;
static int warnings;

static void count_warning(zcp_log_level level, const char *line, void *user) {
    (void)line;
    (void)user;
    if (level <= ZCP_LOG_WARNING)
        warnings++;
}

static void make_instance(void) {
    zcp_manager *manager;
    remove_both(subject);
    CHECK_IS(open_mode(&manager, subject, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
    zcp_manager_close(manager);
}

static void die_holding(void *argument) {
    zcp_manager *manager;
    zcp_chunk chunk;
    (void)argument;
    CHECK_IS(open_mode(&manager, subject, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
    for (int i = 0; i < 3; i++)
        CHECK_IS(zcp_chunk_allocate(manager, 100, &chunk), ZCP_OK);
    raise(SIGKILL);
}

static void make_with_dead_client(void) {
    make_instance();
    test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
}

static void make_opened(void) {
    make_instance();
    CHECK_IS(open_mode(&subject_manager, subject, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
}

static void make_opened_with_dead_client(void) {
    make_opened();
    test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
}

static void make_orphaned_chunks(void) {
    make_instance();
    char path[320];
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", subject);
    CHECK(unlink(path) == 0);
}

static void make_half_made(void) {
    make_instance();
    char path[320];
    uint32_t building = 0;
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", subject);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, &building, 4, 16) == 4);
    close(fd);
}

static void make_without_chunks(void) {
    char path[320];
    make_instance();
    snprintf(path, sizeof path, "/dev/shm/%s_memory_chunk", subject);
    CHECK(unlink(path) == 0);
}

static void make_nothing(void) { remove_both(subject); }
static void make_shm(void) {
    zcp_shm shm;
    zcp_shm_unlink(subject);
    CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = subject, .bytes = 9000}), ZCP_OK);
    zcp_shm_close(&shm);
}

static void make_no_shm(void) { zcp_shm_unlink(subject); }

static zcp_status run_create(void) { return open_mode(&subject_manager, subject, ZCP_SHM_OPEN_OR_CREATE); }
static zcp_status run_create_for_group(void) {
    return open_as(&subject_manager, subject, ZCP_SHM_CREATE_EXCLUSIVE, 0660,
                   ZCP_SHM_GROUP | ZCP_SHM_LOCK | ZCP_SHM_NO_DUMP, (uint32_t)getegid());
}

static zcp_status run_attach(void) { return open_mode(&subject_manager, subject, ZCP_SHM_OPEN_EXISTING); }
static zcp_status run_purge(void) { return open_mode(&subject_manager, subject, ZCP_SHM_PURGE_AND_CREATE); }
static zcp_status run_recover(void) { return zcp_manager_recover(subject_manager, NULL); }
static zcp_status run_check(void) { return zcp_manager_check(subject_manager); }
static zcp_status run_client_info(void) {
    zcp_client_info info;
    zcp_status status = ZCP_OK;
    for (uint32_t slot = 0; slot < CLIENTS && status == ZCP_OK; slot++)
        status = zcp_manager_client_info(subject_manager, slot, &info);
    return status;
}

static zcp_status run_exhaust(void) {                              // with the recovery that precedes EXHAUSTED
    zcp_chunk chunks[21];
    int n = 0;
    while (n < 21 && zcp_chunk_allocate(subject_manager, 100, &chunks[n]) == ZCP_OK)
        n++;
    while (n-- > 0)
        zcp_chunk_release(&chunks[n]);
    return ZCP_OK;
}

static zcp_status run_close(void) {
    zcp_manager_close(subject_manager);
    subject_manager = NULL;
    return ZCP_OK;
}

static zcp_status run_destroy(void) { return zcp_manager_destroy(subject); }
static zcp_status run_shm_open(void) {
    return zcp_shm_open(&subject_shm, &(zcp_shm_desc){.name = subject, .bytes = 9000, .timeout_ms = timeout_ms});
}

static zcp_status run_shm_purge(void) {
    return zcp_shm_open(&subject_shm, &(zcp_shm_desc){.name = subject,
                                                      .bytes = 9000,
                                                      .mode = ZCP_SHM_PURGE_AND_CREATE,
                                                      .permissions = 0640,
                                                      .group = (uint32_t)getegid(),
                                                      .flags = ZCP_SHM_GROUP | ZCP_SHM_PREFAULT,
                                                      .timeout_ms = timeout_ms});
}

static zcp_status run_shm_unlink(void) { return zcp_shm_unlink(subject); }

typedef enum { WAS_NOTHING, WAS_INSTANCE, WAS_OPENED, WAS_SOMETHING, WAS_SHM, WAS_NO_SHM } situation;

typedef struct operation {
    const char *name;
    void (*prepare)(void);
    zcp_status (*run)(void);
    situation was;
    bool gone;                                                     // afterwards there is nothing to run it on again
} operation;

static const operation operations[] = {
    {"create", make_nothing, run_create, WAS_NOTHING, false},
    {"create for a group, locked", make_nothing, run_create_for_group, WAS_NOTHING, false},
    {"create over what is half-made", make_half_made, run_create, WAS_SOMETHING, false},
    {"create where the chunk segment is missing", make_without_chunks, run_create, WAS_SOMETHING, false},
    {"attach", make_instance, run_attach, WAS_INSTANCE, false},
    {"attach, with a dead client", make_with_dead_client, run_attach, WAS_INSTANCE, false},
    {"purge", make_with_dead_client, run_purge, WAS_SOMETHING, false},
    {"recover", make_opened_with_dead_client, run_recover, WAS_OPENED, false},
    {"exhaust", make_opened_with_dead_client, run_exhaust, WAS_OPENED, false},
    {"check", make_opened, run_check, WAS_OPENED, false},
    {"client_info", make_opened_with_dead_client, run_client_info, WAS_OPENED, false},
    {"close", make_opened_with_dead_client, run_close, WAS_OPENED, true},
    {"destroy", make_instance, run_destroy, WAS_SOMETHING, true},
    {"destroy a chunk segment alone", make_orphaned_chunks, run_destroy, WAS_SOMETHING, true},
    {"shm_open, creating", make_no_shm, run_shm_open, WAS_NO_SHM, false},
    {"shm_open, existing", make_shm, run_shm_open, WAS_SHM, false},
    {"shm_open, purging", make_shm, run_shm_purge, WAS_SHM, false},
    {"shm_unlink", make_shm, run_shm_unlink, WAS_SHM, true},
};

// What each function may answer, up to a 0. EINTR is tried once only, and has to be overcome.
static const struct { const char *function; int errors[5]; } possible[] = {
    {"shm_open", {EMFILE, ENFILE, ENOMEM, EACCES}}, {"shm_open(O_CREAT)", {EMFILE, ENOSPC, EACCES, EEXIST}},
    {"open", {EMFILE, ENOMEM, ENOENT}}, {"close", {EIO, EINTR}}, {"fstat", {EIO}}, {"fstatvfs", {ENOSYS}},
    {"fallocate", {ENOSPC, EINTR, EOPNOTSUPP, EIO}}, {"posix_fallocate", {ENOSPC}}, {"ftruncate", {EIO, EINTR}},
    {"fchmod", {EPERM}}, {"fchown", {EPERM}}, {"mmap", {ENOMEM, EAGAIN}}, {"madvise", {EINVAL}},
    {"mlock", {ENOMEM, EPERM}},
    {"fcntl", {ENOLCK, EINVAL, EAGAIN}}, {"pread", {EIO, EINTR}}, {"pwrite", {ENOSPC, EINTR}}, {"getrandom", {ENOSYS}},
    {"getrlimit", {EINVAL}}, {"shm_unlink", {EACCES, ENOENT}}, {"pthread_atfork", {ENOMEM}},
};

static const char *trial;                                          // for messages

static bool is_sweep(const char *name) {
    static const char *const sweeps[] = {"attach, with a dead client", "recover", "exhaust"};
    for (size_t i = 0; i < sizeof sweeps / sizeof sweeps[0]; i++)
        if (strncmp(name, sweeps[i], strlen(sweeps[i])) == 0)
            return true;
    return false;
}

// With these the call may go on and be as good as ever: they advise, ask what may be asked in another way, or end what
// the kernel has ended all the same.
static bool may_be_overcome(const char *function, int error) {
    static const char *const harmless[] = {"close", "fstatvfs", "madvise", "getrandom", "getrlimit", "pthread_atfork"};
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        if (strcmp(function, harmless[i]) == 0)
            return true;
    if (strcmp(function, "ftruncate") == 0 && strncmp(trial, "shm_open", 8) == 0)    // of a file that was empty anyway
        return true;
    static const char *const kept[] = {"mmap", "fcntl", "shm_open"};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)      // a sweep then locks what was kept open; use_all_of
        if (strcmp(function, kept[i]) == 0 && is_sweep(trial))     // tells whether all is there in the end
            return true;
    bool attaches = strncmp(trial, "attach", 6) == 0 || strncmp(trial, "shm_", 4) == 0;
    if (strcmp(function, "shm_open") == 0 && error == EACCES && !attaches)
        return true;                                               // a lock object may be about to be granted
    // by name instead
    return error == EINTR || error == EOPNOTSUPP || error == EEXIST || (strcmp(function, "open") == 0)
           || (strcmp(function, "shm_unlink") == 0 && error == ENOENT)
           || (strcmp(function, "fcntl") == 0 && error == EAGAIN);
}

// What a failed creation has to take away again: also what it made before it could take the creation lock (an empty
// file), and what it could not attach to (a whole instance); but not where the system refuses the lock for good.
static void check_after_failure(const operation *op, bool ever_after) {
    if (op->was == WAS_NOTHING && !ever_after)
        CHECK_MSG(!has_management(subject) && !has_chunks(subject), "%s: left management %d, chunks %d", trial,
                  has_management(subject), has_chunks(subject));
    if (op->was == WAS_NOTHING && !ever_after)
        CHECK_MSG(!has_locks(subject), "%s: left its lock object", trial);
    if (op->was == WAS_NOTHING)                                    // never half an instance
        CHECK_MSG(!has_chunks(subject) || has_management(subject), "%s: left a chunk segment", trial);
    if (op->was == WAS_NO_SHM && !ever_after)
        CHECK_MSG(!is_there(subject, ""), "%s: left the object", trial);
    if (op->was == WAS_INSTANCE || op->was == WAS_OPENED)
        CHECK_MSG(has_management(subject) && has_chunks(subject), "%s: a name has gone", trial);
}

static void close_all(void) {
    zcp_manager_close(subject_manager);
    subject_manager = NULL;
    zcp_shm_close(&subject_shm);
}

static bool is_fstat(void) { return hostile.failed != NULL && strcmp(hostile.failed, "fstat") == 0; }

// True while there is a call of that number to fail.
static bool try_one(const operation *op, int nth, int error, bool ever_after) {
    char text[200];
    trial = op->name;
    op->prepare();
    hostile_holdings with = hostile_holds();
    warnings = 0;
    hostile.error = error;
    hostile.ever_after = ever_after;
    hostile.failed = NULL;
    hostile.calls = 0;
    hostile.nth = nth;
    timeout_ms = ever_after ? IN_VAIN_MS : IN_THE_END_MS;
    zcp_status status = op->run();
    timeout_ms = IN_THE_END_MS;
    hostile.nth = 0;
    int calls = hostile.calls;
    if (calls < nth) {
        close_all();
        return false;
    }
    snprintf(text, sizeof text, "%s: call %d, %s, fails%s with %s", op->name, nth, hostile.failed,
             ever_after ? " from then on" : "", strerror(error));
    trial = text;
    bool told = status != ZCP_OK || warnings > 0 || may_be_overcome(hostile.failed, error) || is_fstat()
                || strcmp(op->name, "close") == 0;
    CHECK_MSG(told, "%s: not told", trial);
    if (error == EINTR && !ever_after)
        CHECK_MSG(status == ZCP_OK, "%s: %s", trial, zcp_last_message());
    if (status != ZCP_OK) {
        CHECK_MSG(zcp_last_message()[0] != 0 && (op->was == WAS_OPENED || subject_manager == NULL), "%s", trial);
        check_after_failure(op, ever_after);
        // a descriptor that cannot be looked at may be another's
        if (op->was != WAS_OPENED && !is_fstat())
            check_same(&with, trial);
    }
    if (op->was == WAS_OPENED && subject_manager != NULL && !is_fstat())
        check_same(&with, trial);
    if (status != ZCP_OK || !op->gone) {                           // the next attempt works, and all is there
        if (status != ZCP_OK || op->was == WAS_OPENED) {
            zcp_status again = op->run();
            bool gone = op->gone && again == ZCP_ERR_NOT_FOUND;
            bool left = again == ZCP_ERR_EXISTS && op->run == run_create_for_group && ever_after;
            if (left)
                again = run_attach();
            CHECK_MSG(again == ZCP_OK || gone, "%s: then %s: %s", trial, zcp_status_name(again), zcp_last_message());
        }
        if (op->was == WAS_OPENED && subject_manager != NULL)
            CHECK_MSG(zcp_manager_recover(subject_manager, NULL) == ZCP_OK, "%s", trial);
        if (subject_manager != NULL)
            use_all_of(subject_manager);
        if (subject_shm.base != NULL)
            memset(subject_shm.base, 1, (size_t)subject_shm.bytes);
    }
    close_all();
    return true;
}

// Which functions the operation calls, in their order.
static int trace_calls(const operation *op) {
    op->prepare();
    hostile.tracing = true;
    hostile.calls = 0;
    (void)op->run();
    hostile.tracing = false;
    int calls = hostile.calls;
    close_all();
    CHECK(calls <= HOSTILE_TRACED);
    return calls;
}

static const int *errors_of(const char *function) {
    for (size_t f = 0; f < sizeof possible / sizeof possible[0]; f++)
        if (strcmp(possible[f].function, function) == 0)
            return possible[f].errors;
    CHECK_MSG(false, "%s is in no table", function);
    return NULL;
}

static void try_all(const operation *op, int *trials) {
    const char *functions[HOSTILE_TRACED];
    int calls = trace_calls(op);
    memcpy(functions, hostile.trace, sizeof functions);
    for (int nth = 1; nth <= calls; nth++)
        for (const int *error = errors_of(functions[nth - 1]); *error != 0; error++)
            for (int after = 0; after < 2; after++)
                if (after == 0
                    || (*error != EINTR && *error != EEXIST && *error != ENOENT
                        && !(*error == EAGAIN && op->run == run_destroy)))
                    if (test_random_below(2) == 0)                 // each run half of them
                        *trials += try_one(op, nth, *error, after);
}

TEST_WITH(surroundings_each_system_call_fails_and_nothing_is_left, .seconds = 120) {
    int trials = 0;
    subject = test_instance();
    zcp_log_set_callback(count_warning, NULL);
    zcp_log_set_level(ZCP_LOG_WARNING);
    make_instance();                                               // so that what stays in a process stays already
    CHECK_IS(run_attach(), ZCP_OK);
    close_all();
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        int before = trials;
        try_all(&operations[i], &trials);
        test_note("%s: %d failures", operations[i].name, trials - before);
    }
    remove_both(subject);
    zcp_shm_unlink(subject);
    test_note("%d failures injected", trials);
}

// Also the calls that a process makes once: the page of locks, the handlers of fork.
static void fail_in_a_fresh_process(void *argument) {
    int nth = *(int *)argument;
    hostile.nth = nth;
    hostile.error = ENOMEM;
    zcp_status status = run_create();
    hostile.nth = 0;
    trial = "first use";
    CHECK(status != ZCP_OK || hostile.failed == NULL || may_be_overcome(hostile.failed, ENOMEM)
          || strcmp(hostile.failed, "mmap") != 0);
    if (status != ZCP_OK)
        CHECK_IS(run_create(), ZCP_OK);
    use_all_of(subject_manager);
    close_all();
}

TEST(surroundings_each_system_call_fails_at_first_use) {
    subject = test_instance();
    for (int nth = 1; nth < 40; nth++) {
        remove_both(subject);
        test_join(test_spawn(fail_in_a_fresh_process, &nth));
    }
    remove_both(subject);
}

// ---------------------------------------------------------------------------------------------------------------------
// Limits

// A macro, because the type of a resource's name differs between compilers and C libraries.
#define LIMIT(which, value)                                                                                            \
    do {                                                                                                               \
        struct rlimit limit_;                                                                                          \
        CHECK(getrlimit(which, &limit_) == 0);                                                                         \
        limit_.rlim_cur = (rlim_t)(value);                                                                             \
        CHECK_MSG(setrlimit(which, &limit_) == 0, "%s", strerror(errno));                                              \
    } while (0)

static void few_descriptors(const char *name) {
    zcp_manager *manager;
    int refused = 0, used = hostile_count_descriptors();
    CHECK_IS(open_mode(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
    zcp_manager_close(manager);
    CHECK_EQ(hostile_count_descriptors(), used);
    for (int mode = ZCP_SHM_OPEN_OR_CREATE; mode <= ZCP_SHM_PURGE_AND_CREATE; mode++)
        for (int free_ones = 0; free_ones < 8; free_ones++) {
            if (mode == ZCP_SHM_CREATE_EXCLUSIVE)
                remove_both(name);
            LIMIT(RLIMIT_NOFILE, (rlim_t)(used + free_ones));
            zcp_status status = open_mode(&manager, name, (zcp_shm_mode)mode), destroyed = ZCP_OK;
            int error = zcp_last_errno();
            if (status == ZCP_OK) {
                LIMIT(RLIMIT_NOFILE, (rlim_t)used);                // nothing that is opened may be needed to go on
                use_all_of(manager);
            } else {
                CHECK_IS(status, ZCP_ERR_SYSTEM);
                CHECK_EQ(error, EMFILE);
                refused++;
                destroyed = free_ones == 0 ? zcp_manager_destroy(name) : ZCP_OK;
                CHECK(free_ones > 0 || mode == ZCP_SHM_CREATE_EXCLUSIVE || destroyed == ZCP_ERR_SYSTEM);
            }
            zcp_manager_close(manager);
            LIMIT(RLIMIT_NOFILE, 1024);
            CHECK_EQ(hostile_count_descriptors(), used);
            if (mode == ZCP_SHM_CREATE_EXCLUSIVE)
                remove_both(name);
            CHECK_IS(open_mode(&manager, name, ZCP_SHM_OPEN_OR_CREATE), ZCP_OK);
            use_all_of(manager);
            zcp_manager_close(manager);
        }
    CHECK(refused >= 4);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
}

TEST(surroundings_few_descriptors) {
    in_child(few_descriptors, test_instance());
}

#if !defined(TEST_ASAN) && !defined(TEST_TSAN)                     // whose shadow memory is beyond any limit
static uint64_t address_space(void) {
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file != NULL && fscanf(file, "%llu", &pages) == 1);
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void little_address_space(const char *name) {
    zcp_manager *manager;
    int refused = 0, served = 0;
    CHECK_IS(open_mode(&manager, name, ZCP_SHM_OPEN_OR_CREATE), ZCP_OK);      // what stays in a process stays already
    zcp_manager_close(manager);
    hostile_holdings before = hostile_holds();
    for (int mode = ZCP_SHM_OPEN_OR_CREATE; mode <= ZCP_SHM_PURGE_AND_CREATE; mode++)
        for (uint64_t pages = 0; pages < 560; pages += 8) {
            if (mode == ZCP_SHM_CREATE_EXCLUSIVE)
                remove_both(name);
            LIMIT(RLIMIT_AS, address_space() + pages * 4096);
            zcp_status status = open_mode(&manager, name, (zcp_shm_mode)mode);
            if (status == ZCP_OK) {
                served++;
                use_all_of(manager);
            } else {
                refused++;
                CHECK_MSG(status == ZCP_ERR_MAPPING || status == ZCP_ERR_NO_MEMORY, "%s: %s", zcp_status_name(status),
                          zcp_last_message());
                CHECK_EQ(zcp_last_errno(), ENOMEM);
            }
            zcp_manager_close(manager);
            LIMIT(RLIMIT_AS, RLIM_INFINITY);
            check_same(&before, "address space");
            CHECK_IS(open_mode(&manager, name, ZCP_SHM_OPEN_OR_CREATE), ZCP_OK);
            use_all_of(manager);
            zcp_manager_close(manager);
        }
    CHECK(refused > 20 && served > 20);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
}

TEST(surroundings_little_address_space) {
    test_need("RLIMIT_AS");
    in_child(little_address_space, test_instance());
}
#endif

// A file size limit, which holds for each segment by itself: told, and never a SIGXFSZ. What exists can be opened, used
// and closed whatever the limit.
static void small_files(const char *name) {
    zcp_config config = small_config();
    uint64_t management = zcp_config_management_bytes(&config, CLIENTS),
             chunks = zcp_config_chunk_bytes(&config, CLIENTS);
    uint64_t most = management > chunks ? management : chunks, sum = management + chunks;
    const uint64_t limits[] = {0,          1,          15,     16,   4095,    4096, management - 1,
                               management, chunks - 1, chunks, most, sum - 1, sum};
    zcp_manager *manager;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        LIMIT(RLIMIT_FSIZE, limits[i]);
        zcp_status status = open_mode(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE);
        if (limits[i] < most)
            CHECK_IS(status, ZCP_ERR_NO_SPACE);
        else
            CHECK_IS(status, ZCP_OK);
        zcp_manager_close(manager);
        CHECK(status == ZCP_OK || (!has_management(name) && !has_chunks(name)));
        LIMIT(RLIMIT_FSIZE, RLIM_INFINITY);
        remove_both(name);
        CHECK_IS(open_mode(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
        zcp_manager_close(manager);
        LIMIT(RLIMIT_FSIZE, limits[i]);
        CHECK_IS(open_mode(&manager, name, ZCP_SHM_OPEN_OR_CREATE), ZCP_OK);
        use_all_of(manager);
        zcp_manager_close(manager);
        CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
        LIMIT(RLIMIT_FSIZE, RLIM_INFINITY);
        remove_both(name);
    }
}

TEST(surroundings_small_files) {
    in_child(small_files, test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// A full /dev/shm: a small file system of its own, in a mount namespace of its own

static bool own_mounts(void) {
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void mount_shm(const char *options) {
    CHECK_MSG(mount("tmpfs", "/dev/shm", "tmpfs", 0, options) == 0, "%s: %s", options, strerror(errno));
}

static int entries_of_shm(void) {
    int count = 0;
    DIR *directory = opendir("/dev/shm");
    CHECK(directory != NULL);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

// Creates, and uses every byte if that worked; returns the status.
static zcp_status create_and_use(const char *name, zcp_shm_mode mode) {
    zcp_manager *manager;
    zcp_status status = open_mode(&manager, name, mode);
    if (status == ZCP_OK) {
        use_all_of(manager);
        zcp_manager_close(manager);
    }
    return status;
}

static void full_file_system(const char *name) {
    zcp_config config = small_config();
    uint64_t pages = zcp_config_total_bytes(&config, CLIENTS) / 4096;
    hostile_holdings before = {0};
    int refused = 0;
    CHECK(own_mounts());
    for (uint64_t i = 2; i < 2 * (pages + 4); i++) {
        uint64_t there = i / 2;
        char options[64];
        // the look beforehand spares work; the reservation decides
        hostile.without = i % 2 ? "fstatvfs" : NULL;
        snprintf(options, sizeof options, "nr_blocks=%llu,mode=1777", (unsigned long long)there);
        mount_shm(options);
        zcp_status status = create_and_use(name, ZCP_SHM_OPEN_OR_CREATE);
        if (i == 2) {                                              // from here on what stays in a process stays already
            CHECK_IS(status, ZCP_ERR_NO_SPACE);
            before = hostile_holds();
        }
        CHECK_IS(status, there < pages ? ZCP_ERR_NO_SPACE : ZCP_OK);
        if (status != ZCP_OK) {
            refused++;
            CHECK_MSG(strstr(zcp_last_message(), "free") != NULL, "%s", zcp_last_message());
            CHECK_EQ(entries_of_shm(), 0);
            if (i > 2)
                check_same(&before, "full");
            zcp_shm shm;
            CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .bytes = (there + 1) * 4096}), ZCP_ERR_NO_SPACE);
            CHECK_EQ(entries_of_shm(), 0);
        }
        CHECK(umount("/dev/shm") == 0);
    }
    hostile.without = NULL;
    CHECK_EQ((uint64_t)refused, 2 * (pages - 1));
    for (int inodes = 2; inodes <= 5; inodes++) {                  // the root directory takes one
        char options[64];
        snprintf(options, sizeof options, "size=4m,nr_inodes=%d,mode=1777", inodes);
        mount_shm(options);
        zcp_status status = create_and_use(name, ZCP_SHM_CREATE_EXCLUSIVE);
        CHECK_IS(status, inodes < 4 ? ZCP_ERR_NO_SPACE : ZCP_OK);
        CHECK(status == ZCP_OK || entries_of_shm() == 0);
        CHECK(umount("/dev/shm") == 0);
    }
    mount_shm("size=1m,mode=1777");                                // full, until somebody makes room
    int fd = open("/dev/shm/filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && posix_fallocate(fd, 0, (1 << 20) - 8192) == 0);
    for (int mode = 0; mode < 4; mode++)
        CHECK_IS(create_and_use(name, (zcp_shm_mode)mode),
                 mode == ZCP_SHM_OPEN_EXISTING ? ZCP_ERR_NOT_FOUND : ZCP_ERR_NO_SPACE);
    CHECK_EQ(entries_of_shm(), 1);
    CHECK(ftruncate(fd, 0) == 0);
    CHECK_IS(create_and_use(name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
    zcp_manager *manager;
    CHECK_IS(open_mode(&manager, name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
    CHECK(posix_fallocate(fd, 0, 1 << 20) == ENOSPC);              // full again, beside an instance
    use_all_of(manager);                                           // no SIGBUS: its pages are its own
    CHECK_IS(zcp_manager_recover(manager, NULL), ZCP_OK);
    zcp_manager_close(manager);
    CHECK_IS(create_and_use(name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
    close(fd);
}

static void need_root(void) {
    test_need_root();
    pid_t child = fork();
    if (child == 0)
        _exit(own_mounts() ? 0 : 1);
    if (test_wait(child) != 0)
        test_skip("needs the right to make namespaces");
}

TEST(surroundings_full_file_system) {
    need_root();
    in_child(full_file_system, test_instance());
}

// A file system without fallocate, as tmpfs is one in a kernel without CONFIG_SHMEM: what can be created there can
// grow, also over what a killed adder has left, which cannot be punched out.
static void grow_without_fallocate(const char *name) {
    static const char garbage[] = "what somebody has left behind";
    zcp_pool_config added = {.chunk_size = 1000, .chunk_count = 20};
    zcp_manager *manager;
    char path[320];
    CHECK(own_mounts() && mount("shm", "/dev/shm", "ramfs", 0, "") == 0);
    zcp_status status = open_mode(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE);
#ifndef __GLIBC__
    if (status != ZCP_OK)                                          // a libc that does not do without fallocate
        return;
#endif
    CHECK_IS(status, ZCP_OK);
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat before;
    CHECK(fd >= 0 && fstat(fd, &before) == 0);
    for (off_t at = before.st_size; at < before.st_size + (256 << 10); at += (off_t)sizeof garbage)
        CHECK_EQ(pwrite(fd, garbage, sizeof garbage, at), sizeof garbage);
    close(fd);
    for (int i = 0; i < 2; i++) {
        zcp_pool_stats stats;
        uint32_t number = 0;
        CHECK_IS(zcp_manager_add_pool(manager, &added, &number), ZCP_OK);
        CHECK_IS(zcp_manager_pool_stats(manager, number, &stats), ZCP_OK);
        CHECK(stats.free == 20 && stats.allocations == 0 && stats.peak_used == 0);
        CHECK(stats.failures == 0 && stats.waits == 0);
    }
    zcp_chunk chunks[40];
    for (int i = 0; i < 40; i++)
        CHECK_IS(zcp_chunk_allocate(manager, 1000, &chunks[i]), ZCP_OK);
    for (int i = 0; i < 40; i++)
        zcp_chunk_release(&chunks[i]);
    use_all_of(manager);
    zcp_manager_close(manager);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
}

TEST(surroundings_without_fallocate_grow) {
    need_root();
    in_child(grow_without_fallocate, test_instance());
}

// Somebody fills and frees the file system all the time: each attempt fails cleanly or gives an instance that is whole.
static void contended_file_system(const char *name) {
    int served = 0;
    CHECK(own_mounts());
    mount_shm("size=512k,mode=1777");
    pid_t filler = fork();
    CHECK(filler >= 0);
    if (filler == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int fd = open("/dev/shm/filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);; usleep(100)) {
            for (off_t bytes = 65536; bytes <= 512 << 10; bytes += 16384)
                if (posix_fallocate(fd, 0, bytes) != 0)
                    break;
            if (ftruncate(fd, 0) != 0)
                _exit(1);
        }
    }
    for (uint64_t end = test_now() + 300000000; test_now() < end;) {
        zcp_status status = create_and_use(name, ZCP_SHM_CREATE_EXCLUSIVE);
        CHECK_MSG(status == ZCP_OK || status == ZCP_ERR_NO_SPACE, "%s: %s", zcp_status_name(status),
                  zcp_last_message());
        CHECK_EQ(has_management(name) + has_chunks(name), status == ZCP_OK ? 2 : 0);
        served += status == ZCP_OK;
        remove_both(name);
    }
    test_kill(filler);
    test_note("%d served", served);
}

TEST(surroundings_contended_file_system) {
    need_root();
    in_child(contended_file_system, test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// Namespaces

static struct meeting {
    _Atomic uint32_t ready, done;
    _Atomic uint64_t token;
    uint32_t slot, pid;
} *meeting;

typedef enum { PIDS, CONTAINER, WITHOUT_PROC, WORLDS } world;

static void enter_world(world where) {
    if (where == PIDS)
        return;
    CHECK(own_mounts());
    if (where == CONTAINER) {
        CHECK(unshare(CLONE_NEWIPC) == 0);
        CHECK(mount("/dev/shm", "/dev/shm", NULL, MS_BIND, NULL) == 0);       // as `docker run -v /dev/shm:/dev/shm`
        CHECK_MSG(mount("proc", "/proc", "proc", 0, NULL) == 0, "%s", strerror(errno));
    } else
        CHECK(mount("tmpfs", "/proc", "tmpfs", 0, "size=64k") == 0);
}

static world chosen;

// The first process of a new PID namespace; holds chunks and is killed.
static void client_elsewhere(const char *name) {
    zcp_manager *manager;
    zcp_manager_info info;
    zcp_chunk borrowed, own[3];
    CHECK_EQ(getpid(), 1);
    enter_world(chosen);
    CHECK_IS(open_mode(&manager, name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
    CHECK_IS(zcp_manager_get_info(manager, &info), ZCP_OK);
    CHECK_IS(zcp_manager_recover(manager, NULL), ZCP_OK);
    CHECK_IS(zcp_manager_check(manager), ZCP_OK);
    CHECK_IS(zcp_chunk_acquire(manager, atomic_load(&meeting->token), &borrowed), ZCP_OK);
    CHECK_STR(borrowed.data, "across");
    for (int i = 0; i < 3; i++)
        CHECK_IS(zcp_chunk_allocate(manager, 100, &own[i]), ZCP_OK);
    meeting->slot = info.slot;
    meeting->pid = (uint32_t)getpid();
    test_signal(&meeting->ready);
    for (;;)
        pause();
}

static void into_new_pid_namespace(const char *name) {
    CHECK_MSG(unshare(CLONE_NEWPID) == 0, "%s", strerror(errno));
    pid_t first = fork();
    CHECK(first >= 0);
    if (first == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        client_elsewhere(name);
    }
    test_await(&meeting->done, 1);
    test_kill(first);
}

TEST(surroundings_other_namespaces) {
    need_root();
    const char *name = test_instance();
    for (world where = PIDS; where < WORLDS; where++) {
        zcp_manager *manager;
        zcp_chunk chunk;
        zcp_client_info client;
        zcp_recovery report;
        meeting = test_shared(sizeof *meeting);
        chosen = where;
        CHECK_IS(open_mode(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
        CHECK_IS(zcp_chunk_allocate(manager, 100, &chunk), ZCP_OK);
        strcpy(chunk.data, "across");
        atomic_store(&meeting->token, zcp_chunk_token(&chunk));
        pid_t outer = test_spawn_named(into_new_pid_namespace, name);
        test_await(&meeting->ready, 1);
        CHECK_EQ(zcp_chunk_use_count(&chunk), 2);
        CHECK_IS(zcp_manager_client_info(manager, meeting->slot, &client), ZCP_OK);
        CHECK_EQ(client.state, ZCP_CLIENT_ALIVE);                  // though there is no such pid, or another one, here
        CHECK_EQ(client.pid, meeting->pid);
        CHECK_IS(zcp_manager_recover(manager, &report), ZCP_OK);
        CHECK_EQ(report.dead_clients, 0);
        test_signal(&meeting->done);
        test_join(outer);
        CHECK_IS(zcp_manager_recover(manager, &report), ZCP_OK);
        CHECK_EQ(report.dead_clients, 1);
        CHECK_EQ(report.chunks_reclaimed, 3);
        CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
        zcp_chunk_release(&chunk);
        use_all_of(manager);
        zcp_manager_close(manager);
        CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    }
}

// Without /proc a descriptor cannot be opened again by its number; after an unlink not by name either. Then what was
// kept has to do.
static void nameless_without_proc(const char *name) {
    zcp_manager *manager;
    enter_world(WITHOUT_PROC);
    CHECK_IS(open_mode(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        zcp_manager *other;
        zcp_chunk chunk;
        CHECK_IS(open_mode(&other, name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
        CHECK_IS(zcp_chunk_allocate(other, 100, &chunk), ZCP_OK);
        raise(SIGKILL);
    }
    test_join_signal(child, SIGKILL);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    CHECK_IS(zcp_manager_check(manager), ZCP_ERR_REPLACED);
    zcp_chunk chunks[20], none;
    for (int i = 0; i < 20; i++)
        CHECK_IS(zcp_chunk_allocate(manager, 100, &chunks[i]), ZCP_OK);
    CHECK_IS(zcp_chunk_allocate(manager, 100, &none), ZCP_ERR_EXHAUSTED);
    zcp_manager_close(manager);
}

TEST(surroundings_without_proc_and_name) {
    need_root();
    in_child(nameless_without_proc, test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// Users

enum { ALICE = 64101, BOB = 64102, CAROL = 64103, FRIENDS = 64200 };

typedef struct visit {
    const char *name;
    uid_t user;
    bool friend;
    uint32_t flags;
    zcp_status expected, destroyed;
} visit;

static void visitor(void *argument) {
    const visit *v = argument;
    zcp_manager *manager;
    zcp_chunk chunk;
    test_become(v->user, v->friend ? FRIENDS : 0);
    CHECK_IS(open_as(&manager, v->name, ZCP_SHM_OPEN_OR_CREATE, 0, v->flags, 0), v->expected);
    CHECK_IS(zcp_manager_destroy(v->name), v->destroyed);
    if (manager == NULL)
        return;
    CHECK_IS(zcp_chunk_allocate(manager, 100, &chunk), ZCP_OK);
    CHECK_IS(zcp_chunk_acquire(manager, atomic_load(&meeting->token), &chunk), ZCP_OK);
    CHECK_STR(chunk.data, "to friends");
    CHECK_IS(zcp_manager_recover(manager, NULL), ZCP_OK);
    raise(SIGKILL);
}

static void visit_as(const char *name, uid_t user, bool friend, uint32_t flags, zcp_status expected,
                     zcp_status destroyed) {
    visit v = {name, user, friend, flags, expected, destroyed};
    pid_t pid = test_spawn(visitor, &v);
    if (expected == ZCP_OK)
        test_join_signal(pid, SIGKILL);
    else
        test_join(pid);
}

// Keeps an instance open as Alice until it is told to end.
static void alice(const char *name) {
    bool shared = meeting->slot;
    zcp_manager *manager;
    zcp_chunk chunk;
    test_become(ALICE, FRIENDS);
    CHECK_IS(open_as(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE, shared ? 0660 : 0, shared ? ZCP_SHM_GROUP : 0, FRIENDS),
             ZCP_OK);
    CHECK_IS(zcp_chunk_allocate(manager, 3000, &chunk), ZCP_OK);
    strcpy(chunk.data, "to friends");
    atomic_store(&meeting->token, zcp_chunk_token(&chunk));
    test_signal(&meeting->ready);
    test_await(&meeting->done, 1);
    zcp_recovery report;
    CHECK_IS(zcp_manager_recover(manager, &report), ZCP_OK);
    CHECK_EQ(report.dead_clients, shared ? 1 : 0);                 // a dead friend's slot can be swept by her
    CHECK_EQ(report.chunks_reclaimed, shared ? 1 : 0);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
    zcp_chunk_release(&chunk);
    use_all_of(manager);
    zcp_manager_close(manager);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
}

TEST(surroundings_other_users) {
    need_root();
    const char *name = test_instance();
    for (uint32_t shared = 0; shared < 2; shared++) {
        meeting = test_shared(sizeof *meeting);
        meeting->slot = shared;
        pid_t owner = test_spawn_named(alice, name);
        test_await(&meeting->ready, 1);
        visit_as(name, BOB, false, 0, ZCP_ERR_PERMISSION, ZCP_ERR_PERMISSION);
        visit_as(name, BOB, false, ZCP_SHM_ANY_OWNER, ZCP_ERR_PERMISSION, ZCP_ERR_PERMISSION);
        visit_as(name, CAROL, true, 0, shared ? ZCP_ERR_WRONG_OWNER : ZCP_ERR_PERMISSION,
                 shared ? ZCP_ERR_WRONG_OWNER : ZCP_ERR_PERMISSION);
        visit_as(name, CAROL, true, ZCP_SHM_ANY_OWNER, shared ? ZCP_OK : ZCP_ERR_PERMISSION,
                 shared ? ZCP_ERR_WRONG_OWNER : ZCP_ERR_PERMISSION);
        // root may open what it is not meant for, but is told whose it is
        zcp_manager *manager;
        CHECK_IS(open_mode(&manager, name, ZCP_SHM_OPEN_EXISTING), ZCP_ERR_WRONG_OWNER);
        CHECK(has_management(name) && has_chunks(name));
        test_signal(&meeting->done);
        test_join(owner);
        CHECK(!has_management(name) && !has_chunks(name));
    }
}

static void squat(const char *name) {
    char path[320];
    test_become(BOB, 0);
    snprintf(path, sizeof path, "/dev/shm/%s", name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    CHECK(fd >= 0 && fchmod(fd, 0666) == 0);
    close(fd);
}

static void meet_squatter(const char *name) {
    zcp_manager *manager;
    if (meeting->slot != 0)
        test_become(ALICE, 0);
    for (int mode = 0; mode < 4; mode++) {
        zcp_status expected = meeting->pid && mode == ZCP_SHM_OPEN_EXISTING ? ZCP_ERR_NOT_FOUND : ZCP_ERR_WRONG_OWNER;
        if (meeting->slot == 0 && mode == ZCP_SHM_PURGE_AND_CREATE)
            continue;                                              // root removes it
        CHECK_IS(open_mode(&manager, name, (zcp_shm_mode)mode), expected);
        CHECK_EQ(has_management(name) + has_chunks(name), 1);      // the squatter's, and nothing half-made beside it
    }
    if (meeting->slot != 0)
        CHECK_IS(zcp_manager_destroy(name), ZCP_ERR_WRONG_OWNER);
}

// The names are taken by somebody else: refused, for root and for users, and left alone.
TEST(surroundings_squatted_names) {
    need_root();
    static const char *const suffixes[] = {"_memory_management", "_memory_chunk"};
    const char *name = test_instance();
    meeting = test_shared(sizeof *meeting);
    for (uint32_t i = 0; i < 2; i++) {
        char full[300], path[320];
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        snprintf(path, sizeof path, "/dev/shm/%s", full);
        in_child(squat, full);
        meeting->pid = i;
        for (meeting->slot = 0; meeting->slot < 2; meeting->slot++)
            in_child(meet_squatter, name);
        struct stat status;
        CHECK(stat(path, &status) == 0 && status.st_size == 0 && status.st_uid == BOB);
        zcp_shm shm;
        CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = full, .bytes = 4096}), ZCP_ERR_WRONG_OWNER);
        CHECK_IS(zcp_manager_destroy(name), ZCP_OK);               // we are root
        CHECK(stat(path, &status) != 0);
        CHECK_IS(create_and_use(name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
        CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    }
}

TEST(surroundings_permissions_whatever_the_umask) {
    static const mode_t umasks[] = {0, 022, 077, 0777};
    static const uint32_t permissions[] = {0, 0600, 0640, 0660, 0666, 0777};
    const char *name = test_instance();
    for (size_t u = 0; u < sizeof umasks / sizeof umasks[0]; u++)
        for (size_t p = 0; p < sizeof permissions / sizeof permissions[0]; p++) {
            zcp_manager *manager;
            mode_t old = umask(umasks[u]);
            CHECK_IS(open_as(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE, permissions[p], 0, 0), ZCP_OK);
            umask(old);
            for (int i = 0; i < 2; i++) {
                char path[320];
                struct stat status;
                snprintf(path, sizeof path, "/dev/shm/%s%s", name, i ? "_memory_chunk" : "_memory_management");
                CHECK(stat(path, &status) == 0);
                CHECK_EQ(status.st_mode & 07777, permissions[p] ? permissions[p] : 0600);
            }
            zcp_manager_close(manager);
            CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
        }
}
