// tests/surroundings_test.c: when the system says no. Full file systems, limits, each system call failing in turn, other
// users, namespaces: the error is told, nothing is left open or half-made, and the next attempt works.
#include "hostile.h"

#include "test.h"

#include <dirent.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

#define CHECK_IS(actual, expected)                                                                                     \
    do {                                                                                                               \
        zcp_status actual_ = (actual), expected_ = (expected);                                                         \
        CHECK_MSG(actual_ == expected_, "is %s, expected %s: %s", zcp_status_name(actual_), zcp_status_name(expected_), \
                  zcp_last_message());                                                                                 \
    } while (0)

enum { CLIENTS = 4, TIMEOUT_MS = 8 };

static zcp_config small_config(void) {
    zcp_config config = {0};
    CHECK_IS(zcp_config_add_pool(&config, 100, 20), ZCP_OK);
    CHECK_IS(zcp_config_add_pool(&config, 3000, 10), ZCP_OK);
    return config;
}

static zcp_status open_as(zcp_manager **manager, const char *name, zcp_shm_mode mode, uint32_t permissions, uint32_t flags, uint32_t group) {
    zcp_config config = small_config();
    zcp_manager_desc desc = {.name = name, .mode = mode, .permissions = permissions, .flags = flags, .group = group, .timeout_ms = TIMEOUT_MS};
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
            memset(chunks[n].data, n, sizes[p].size);
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

static void remove_both(const char *name) {
    char path[320];
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", name);
    unlink(path);
    snprintf(path, sizeof path, "/dev/shm/%s_memory_chunk", name);
    unlink(path);
}

static void check_same(const hostile_holdings *before, const char *what) {
    hostile_holdings now = hostile_holds();
    CHECK_MSG(hostile_same(before, &now), "%s: descriptors %d -> %d, files %d -> %d, anonymous %d -> %d, shm mappings %d -> %d", what,
              before->descriptors, now.descriptors, before->files, now.files, before->anonymous, now.anonymous,
              before->shm_mappings, now.shm_mappings);
}

// The test's own process may not move to other users, limits or namespaces: a child does.
HOSTILE_UNUSED static void in_child(void (*function)(void *), const char *name) {
    test_join(test_spawn(function, (void *)(uintptr_t)name));
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
    return open_as(&subject_manager, subject, ZCP_SHM_CREATE_EXCLUSIVE, 0660, ZCP_SHM_GROUP | ZCP_SHM_LOCK | ZCP_SHM_NO_DUMP, (uint32_t)getegid());
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
static zcp_status run_shm_open(void) { return zcp_shm_open(&subject_shm, &(zcp_shm_desc){.name = subject, .bytes = 9000, .timeout_ms = TIMEOUT_MS}); }
static zcp_status run_shm_purge(void) {
    return zcp_shm_open(&subject_shm, &(zcp_shm_desc){.name = subject, .bytes = 9000, .mode = ZCP_SHM_PURGE_AND_CREATE, .permissions = 0640,
                                                      .group = (uint32_t)getegid(), .flags = ZCP_SHM_GROUP | ZCP_SHM_PREFAULT, .timeout_ms = TIMEOUT_MS});
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
    {"fchmod", {EPERM}}, {"fchown", {EPERM}}, {"mmap", {ENOMEM, EAGAIN}}, {"madvise", {EINVAL}}, {"mlock", {ENOMEM, EPERM}},
    {"fcntl", {ENOLCK, EINVAL, EAGAIN}}, {"pread", {EIO, EINTR}}, {"pwrite", {ENOSPC, EINTR}}, {"getrandom", {ENOSYS}},
    {"getrlimit", {EINVAL}}, {"shm_unlink", {EACCES, ENOENT}}, {"pthread_atfork", {ENOMEM}},
};

static const char *trial;                                          // for messages

// With these the call may go on and be as good as ever: they advise, ask what may be asked in another way, or end what
// the kernel has ended all the same.
static bool may_be_overcome(const char *function, int error) {
    static const char *const harmless[] = {"close", "fstatvfs", "madvise", "getrandom", "getrlimit", "pthread_atfork"};
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        if (strcmp(function, harmless[i]) == 0)
            return true;
    if (strcmp(function, "ftruncate") == 0 && strncmp(trial, "shm_open", 8) == 0)    // of a file that was empty anyway
        return true;
    return error == EINTR || error == EOPNOTSUPP || error == EEXIST || (strcmp(function, "open") == 0) ||      // by name instead
           (strcmp(function, "shm_unlink") == 0 && error == ENOENT) || (strcmp(function, "fcntl") == 0 && error == EAGAIN);
}

// What a failed creation has to take away again. With `strict` also what it made before it could take the creation lock (an
// empty file) and what it could not attach to (a whole instance); but not where the system refuses the lock for good.
static bool strict;

static void check_after_failure(const operation *op, bool ever_after) {
    if (op->was == WAS_NOTHING && strict && !ever_after)
        CHECK_MSG(!has_management(subject) && !has_chunks(subject), "%s: left management %d, chunks %d", trial, has_management(subject), has_chunks(subject));
    if (op->was == WAS_NOTHING)                                    // never half an instance
        CHECK_MSG(!has_chunks(subject) || has_management(subject), "%s: left a chunk segment", trial);
    if (op->was == WAS_NO_SHM && strict && !ever_after)
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
    zcp_status status = op->run();
    hostile.nth = 0;
    int calls = hostile.calls;
    if (calls < nth) {
        close_all();
        return false;
    }
    snprintf(text, sizeof text, "%s: call %d, %s, fails%s with %s", op->name, nth, hostile.failed, ever_after ? " from then on" : "", strerrorname_np(error));
    trial = text;
    bool told = status != ZCP_OK || warnings > 0 || may_be_overcome(hostile.failed, error) || is_fstat() || strcmp(op->name, "close") == 0;
    CHECK_MSG(told, "%s: not told", trial);
    if (error == EINTR && !ever_after)
        CHECK_MSG(status == ZCP_OK, "%s: %s", trial, zcp_last_message());
    if (status != ZCP_OK) {
        CHECK_MSG(zcp_last_message()[0] != 0 && (op->was == WAS_OPENED || subject_manager == NULL), "%s", trial);
        check_after_failure(op, ever_after);
        if (op->was != WAS_OPENED && !is_fstat())                  // a descriptor that cannot be looked at may be another's
            check_same(&with, trial);
    }
    if (op->was == WAS_OPENED && subject_manager != NULL && !is_fstat())
        check_same(&with, trial);
    if (status != ZCP_OK || !op->gone) {                           // the next attempt works, and all is there
        if (status != ZCP_OK || op->was == WAS_OPENED) {
            zcp_status again = op->run();
            bool gone = op->gone && again == ZCP_ERR_NOT_FOUND;
            bool left = again == ZCP_ERR_EXISTS && op->run == run_create_for_group && (!strict || ever_after);
            if (left)
                again = run_attach();
            CHECK_MSG(again == ZCP_OK || gone, "%s: then %s: %s", trial, zcp_status_name(again), zcp_last_message());
        }
        if (op->was == WAS_OPENED && subject_manager != NULL)
            CHECK_MSG(zcp_manager_recover(subject_manager, NULL) == ZCP_OK, "%s", trial);
        if (subject_manager != NULL)
            use_all_of(subject_manager);
        if (subject_shm.base != NULL)
            memset(subject_shm.base, 1, subject_shm.bytes);
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
                if (after == 0 || (*error != EINTR && *error != EEXIST && *error != ENOENT))
                    *trials += try_one(op, nth, *error, after);
}

static void let_each_call_fail(void) {
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

TEST_WITH(surroundings_each_system_call_fails, .seconds = 120) {
    let_each_call_fail();
}

TEST_WITH(_surroundings_each_system_call_fails_and_nothing_is_left, .seconds = 120) {
    strict = true;
    let_each_call_fail();
}
