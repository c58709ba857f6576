// tests/confined_test.c: a process that gives up rights after it has opened an instance still does all that it did: it
// gets back what the dead held, maps what was added, adds, and tells who lives. It then locks by what it kept open.
#include "harness/chunks.h"

#include "harness/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COUNT = 8, SMALL = 100, LARGE = 5000, LARGEST = 20000 };

// ---------------------------------------------------------------------------------------------------------------------
// Rights given up

enum { SETUID = 1, CHROOT = 2, NOFILE = 4, SECCOMP = 8, ALL = 15 };

static const int ways[] = {SETUID, CHROOT, NOFILE, SECCOMP, ALL};

static void limit_descriptors(rlim_t limit) {
    struct rlimit now;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &now), 0);
    now.rlim_cur = limit;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &now), 0);
}

static void confine(int way) {
    char directory[] = "/tmp/zerocp-confined-XXXXXX";
    if (way & CHROOT) {
        CHECK(mkdtemp(directory) != NULL && chdir(directory) == 0 && rmdir(directory) == 0);       // nothing is in it
        CHECK_EQ(chroot("."), 0);
    }
    if (way & SETUID) {
        CHECK_EQ(setgroups(0, NULL), 0);
        CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
    }
    if (way & NOFILE)
        limit_descriptors(0);
    if (!(way & SECCOMP))
        return;
    filter_call(SYS_openat, -1, 0, SECCOMP_RET_ERRNO | EPERM);
#ifdef SYS_open
    filter_call(SYS_open, -1, 0, SECCOMP_RET_ERRNO | EPERM);
#endif
}

static void need_root(void) {
    test_need_root();
    filter_need();
}

// ---------------------------------------------------------------------------------------------------------------------
// What a confined client still does

typedef struct survivor {
    int way;
    bool by_thread;                                                // works in a thread that did not open
    uint32_t flags;
    _Atomic uint32_t ready, go;
    uint64_t token;                                                // of a chunk of the added pool
} survivor;

static zcp_manager *confined;
static survivor *self;

static void die_holding(void *argument) {
    zcp_manager *manager = attach();
    (void)argument;
    for (int i = 0; i < COUNT; i++)
        (void)allocate(manager, SMALL);
    raise(SIGKILL);
}

static void check_tells_the_truth(void) {
    static const zcp_status expected[] = {[SETUID] = ZCP_ERR_PERMISSION, [CHROOT] = ZCP_ERR_SYSTEM,
                                          [NOFILE] = ZCP_ERR_SYSTEM, [SECCOMP] = ZCP_ERR_PERMISSION};
    zcp_status status = zcp_manager_check(confined);
    if (self->way == ALL)                                          // whichever of them comes first
        CHECK(status == ZCP_ERR_SYSTEM || status == ZCP_ERR_PERMISSION);
    else
        CHECK_STATUS(status, expected[self->way]);
    CHECK_MSG(strstr(zcp_last_message(), "closed") == NULL, "%s", zcp_last_message());
    if (self->way == CHROOT)
        CHECK_MSG(strstr(zcp_last_message(), "chroot") != NULL, "%s", zcp_last_message());
}

static void *work_confined(void *argument) {
    (void)argument;
    zcp_client_stats stats;
    zcp_chunk chunk = allocate(confined, SMALL), large, waited;    // from a client that died with all of them
    CHECK_OK(zcp_chunk_allocate_wait(confined, SMALL, 1000, &waited));
    zcp_chunk_release(&waited);
    zcp_chunk_release(&chunk);
    CHECK_RECOVERS(confined, 0, 0);
    large = allocate(confined, LARGE);                             // of the pool that was added
    zcp_chunk_release(&large);
    chunk = acquire(confined, self->token);
    zcp_chunk_release(&chunk);
    CHECK_OK(zcp_manager_client_stats(confined, 0, &stats));
    CHECK_EQ(stats.state, ZCP_CLIENT_ALIVE);
    CHECK_OK(zcp_manager_client_stats(confined, 2, &stats));
    CHECK_EQ(stats.state, ZCP_CLIENT_FREE);
    check_tells_the_truth();
    uint32_t number;
    CHECK_OK(zcp_manager_add_pool(confined, &(zcp_pool_config){.chunk_size = LARGEST, .chunk_count = 2}, &number));
    large = allocate(confined, LARGEST);
    zcp_chunk_release(&large);
    return NULL;
}

static void survive(void *argument) {
    self = argument;
    confined = attach();
    confine(self->way);
    test_signal(&self->ready);
    test_await(&self->go, 1);
    if (self->by_thread)
        test_thread_join(test_thread(work_confined, NULL));
    else
        work_confined(NULL);
    zcp_manager_close(confined);
}

TEST(confined_client_does_all_that_it_did) {
    need_root();
    for (size_t i = 0; i < 2 * sizeof ways / sizeof ways[0]; i++) {
        survivor *s = test_shared(sizeof *s);
        zcp_manager *manager = create(SMALL, COUNT);
        s->way = ways[i / 2];
        s->by_thread = i % 2;
        test_note("way %d%s", s->way, s->by_thread ? ", by another thread" : "");
        pid_t pid = test_spawn(survive, s);
        test_await(&s->ready, 1);
        test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
        CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = LARGE, .chunk_count = 3}, NULL));
        zcp_chunk kept = allocate(manager, LARGE), large;
        s->token = token_of(&kept);
        test_signal(&s->go);
        test_join(pid);
        large = allocate(manager, LARGEST);                        // what the confined one has added is everybody's
        zcp_chunk_release(&large);
        zcp_chunk_release(&kept);
        finish(manager);
    }
}

// Who may not write the payloads, and who only looks.
static void look_confined(void *argument) {
    self = argument;
    zcp_client_info client;
    confined = attach_named(test_instance(), self->flags);
    confine(self->way);
    test_signal(&self->ready);
    test_await(&self->go, 1);
    if (self->flags & ZCP_READ_ONLY_DATA) {
        zcp_chunk chunk = acquire(confined, self->token);
        pattern_check(&chunk, self->token);
        zcp_chunk_release(&chunk);
    } else {
        CHECK_OK(zcp_manager_client_info(confined, 1, &client));
        CHECK_EQ(client.state, ZCP_CLIENT_DEAD);
        CHECK_EQ(used_in(confined, 1), 1);
    }
    CHECK_OK(zcp_manager_client_info(confined, 0, &client));
    CHECK_EQ(client.state, ZCP_CLIENT_ALIVE);
    zcp_manager_close(confined);
}

TEST(confined_readers_and_observers_see_what_is_there) {
    need_root();
    static const uint32_t kinds[] = {ZCP_READ_ONLY_DATA, ZCP_OBSERVE};
    for (size_t i = 0; i < 2 * sizeof ways / sizeof ways[0]; i++) {
        survivor *s = test_shared(sizeof *s);
        zcp_manager *manager = create(SMALL, COUNT);
        s->way = ways[i / 2];
        s->flags = kinds[i % 2];
        pid_t pid = test_spawn(look_confined, s);
        test_await(&s->ready, 1);
        if (s->flags & ZCP_OBSERVE)
            test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
        CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = LARGE, .chunk_count = 3}, NULL));
        zcp_chunk kept = allocate_with_pattern(manager, LARGE, &s->token);
        test_signal(&s->go);
        test_join(pid);
        zcp_chunk_release(&kept);
        CHECK_RECOVERS(manager, s->flags & ZCP_OBSERVE ? 1 : 0, s->flags & ZCP_OBSERVE ? COUNT : 0);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What cannot be done is told

// As an application does that closes all descriptors it does not know.
static void close_objects(void) {
    for (int fd = 3; fd < 256; fd++) {
        char link[64], target[512] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, target, sizeof target - 1) > 0 && strncmp(target, "/dev/shm/", 9) == 0)
            close(fd);
    }
}

TEST(confined_without_anything_left_says_why) {
    static const char *const told[] = {"all 8 chunks", "; but client 1 (pid ", "was not swept",
                                       "_memory_locks cannot be opened again", "the application has closed it",
                                       "by its name"};
    zcp_manager *manager = create(SMALL, COUNT);
    zcp_chunk chunk;
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
    close_objects();
    limit_descriptors(0);
    CHECK_STATUS(zcp_chunk_allocate(manager, SMALL, &chunk), ZCP_ERR_EXHAUSTED);
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++)
        CHECK_MSG(strstr(zcp_last_message(), told[i]) != NULL, "%s", zcp_last_message());
    CHECK_MSG(strstr(zcp_last_message(), strerror(EMFILE)) != NULL, "%s", zcp_last_message());
    CHECK_STATUS(zcp_manager_recover(manager, NULL), ZCP_ERR_SYSTEM);
    limit_descriptors(limit.rlim_cur);
    for (int i = 0; i < COUNT; i++)
        (void)allocate_in_the_end(manager, SMALL);
    CHECK_STATUS(zcp_chunk_allocate(manager, SMALL, &chunk), ZCP_ERR_EXHAUSTED);
    CHECK_MSG(strstr(zcp_last_message(), "swept") == NULL, "%s", zcp_last_message());
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Locks on what was kept open

static _Atomic uint32_t *stopped, *resumed;

static void wait_within(void) {
    test_signal(stopped);
    test_await(resumed, 1);
}

static void *recover_confined(void *argument) {
    (void)argument;
    CHECK_RECOVERS(confined, 1, COUNT);
    return NULL;
}

// A sweep by the kept descriptor keeps out siblings, whom the kernel does not tell apart, and everybody else.
static void sweep_by_two_threads(void *argument) {
    self = argument;
    stopped = &self->ready;
    resumed = &self->go;
    confined = attach();
    test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
    confine(NOFILE);
    test_at_step("sweeping", 1, TEST_CALL, wait_within);
    pthread_t sweeper = test_thread(recover_confined, NULL);
    test_await(stopped, 1);
    CHECK_RECOVERS(confined, 0, 0);
    test_signal(stopped);                                          // 2: another process may try
    test_thread_join(sweeper);
    test_signal(stopped);                                          // 3: and take the slot
    test_await(resumed, 2);
    zcp_manager_close(confined);
}

TEST(confined_sweep_is_one_thread_s_at_a_time) {
    survivor *s = test_shared(sizeof *s);
    zcp_manager *manager = create(SMALL, COUNT);
    pid_t pid = test_spawn(sweep_by_two_threads, s);
    test_await(&s->ready, 2);
    CHECK_RECOVERS(manager, 0, 0);
    test_signal(&s->go);
    test_await(&s->ready, 3);
    zcp_manager *next = attach();
    CHECK_EQ(slot_of(next), 2);                                    // the dead one's
    zcp_manager_close(next);
    test_signal(&s->go);
    test_join(pid);
    CHECK_RECOVERS(manager, 0, 0);
    finish(manager);
}

// The same of two that add: they come one after the other.
static void *add_confined(void *argument) {
    CHECK_OK(zcp_manager_add_pool(confined, &(zcp_pool_config){.chunk_size = LARGE, .chunk_count = 2}, argument));
    return NULL;
}

static void add_by_two_threads(void *argument) {
    uint32_t numbers[2];
    pthread_t threads[2];
    (void)argument;
    confined = attach();
    confine(NOFILE);
    for (int i = 0; i < 2; i++)
        threads[i] = test_thread(add_confined, &numbers[i]);
    for (int i = 0; i < 2; i++)
        test_thread_join(threads[i]);
    CHECK(numbers[0] + numbers[1] == 3 && numbers[0] != 0 && numbers[1] != 0);
    zcp_manager_close(confined);
}

TEST(confined_threads_add_one_after_the_other) {
    zcp_manager *manager = create(SMALL, COUNT);
    test_join(test_spawn(add_by_two_threads, NULL));
    CHECK_EQ(zcp_manager_pool_end(manager), 3);
    finish(manager);
}

// Killed within such a sweep, it leaves the slot locked as long as a child lives that was forked meanwhile: as told.
static void fork_and_die(void) {
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    self->token = (uint64_t)child;
    raise(SIGKILL);
}

static void die_in_a_sweep(void *argument) {
    self = argument;
    confined = attach();
    test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
    confine(NOFILE);
    test_at_step("sweeping", 1, TEST_CALL, fork_and_die);
    (void)zcp_manager_recover(confined, NULL);
}

TEST(confined_sweeper_killed_leaves_it_to_its_child_s_end) {
    test_need("PR_SET_CHILD_SUBREAPER");
    survivor *s = test_shared(sizeof *s);
    zcp_manager *manager = create(SMALL, COUNT);
    test_join_signal(test_spawn(die_in_a_sweep, s), SIGKILL);
    CHECK_RECOVERS(manager, 1, 0);                                 // the sweeper itself
    CHECK_EQ(used(manager), COUNT);
    test_kill((pid_t)s->token);
    // a sanitizer's process goes a moment later
    for (int round = 0; round < 1000 && used(manager) != 0; round++) {
        CHECK_OK(zcp_manager_recover(manager, NULL));
        test_sleep(5);
    }
    CHECK_EQ(used(manager), 0);
    finish(manager);
}
