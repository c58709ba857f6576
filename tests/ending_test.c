// tests/ending_test.c: what a thread, a manager and a process leave when they end: destructors of pthread keys that use
// zerocp in any round, keys that are somebody else's by then, handles that are older than the last managers with such.
#include "harness/chunks.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NUMBERS = 63, CHUNKS = 256, CACHE = 2 };

// TSan ends a thread in the last round, in a destructor of its own, which comes before all that is called here; and
// zerocp's comes a round after the one in which it is first needed.
#if defined(TEST_TSAN)
enum { LAST_ROUND = PTHREAD_DESTRUCTOR_ITERATIONS - 2 };
#else
enum { LAST_ROUND = PTHREAD_DESTRUCTOR_ITERATIONS };
#endif

static uint64_t cached(zcp_manager *manager) {
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    return stats.cached;
}

static void use(zcp_manager *manager) {
    zcp_chunk chunk = allocate(manager, 64);
    zcp_chunk_release(&chunk);
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads that use zerocp in the destructor of a key of their own, in the round that they say

typedef struct ending {
    zcp_manager *manager;
    pthread_key_t key;
    int round, rounds;                                             // to use it in; that have come
    bool uses_before;
    pid_t tid;
} ending;

static ending all;                                                 // threads come one after the other

static void destroy(void *argument) {
    ending *self = argument;
    if (++self->rounds < self->round) {
        CHECK(pthread_setspecific(self->key, self) == 0);
        return;
    }
    use(self->manager);
    use(self->manager);
}

static void *begin_and_end(void *argument) {
    ending *self = argument;
    self->tid = (pid_t)syscall(SYS_gettid);
    self->rounds = 0;
    CHECK(pthread_setspecific(self->key, self) == 0);
    if (self->uses_before)
        use(self->manager);
    return NULL;
}

static bool thread_is_there(pid_t tid) {
    return syscall(SYS_tgkill, getpid(), tid, 0) == 0 || errno != ESRCH;
}

// A thread is joined a moment before the kernel has removed it, and not each machine can tell it apart until then.
static void end_one(void) {
    test_thread_join(test_thread(begin_and_end, &all));
    CHECK_EQ(all.rounds, all.round);
    while (thread_is_there(all.tid))
        sched_yield();
}

static void prepare(zcp_manager *manager, int round, bool uses_before) {
    all = (ending){.manager = manager, .round = round, .uses_before = uses_before};
    CHECK(pthread_key_create(&all.key, destroy) == 0);
}

TEST(ending_threads_leave_nothing_whatever_their_last_destructors_do) {
    for (int round = 1; round <= LAST_ROUND; round++)
        for (int uses_before = 0; uses_before < 2; uses_before++) {
            zcp_manager *manager = create_cached(CHUNKS, CACHE);
            prepare(manager, round, uses_before);
            for (int i = 0; i < NUMBERS + 7; i++)
                end_one();
            CHECK_MSG(cached(manager) == 0, "round %d: %llu", round, (unsigned long long)cached(manager));
            CHECK_EQ(inside_thread_count(), inside_thread_number() != 0);
            CHECK_EQ(inside_leases_held(manager, 0), 0);
            CHECK_EQ(inside_hint_count(manager, 0), CHUNKS);
            CHECK(pthread_key_delete(all.key) == 0);
            finish(manager);
        }
}

// As many as there are numbers end in their last round, before anybody looks.
static zcp_manager *leave_all_numbers(uint32_t chunk_count) {
    if (LAST_ROUND < PTHREAD_DESTRUCTOR_ITERATIONS)
        test_skip("no destructor of this test can run in the last round");
    zcp_manager *manager = create_cached(chunk_count, CACHE);
    prepare(manager, LAST_ROUND, false);
    for (int i = 0; i < NUMBERS; i++)
        end_one();
    return manager;
}

static void *take_a_number(void *argument) {
    use(argument);
    CHECK(inside_thread_number() != 0);
    return NULL;
}

TEST(ending_numbers_are_taken_back_by_who_finds_none) {
    zcp_manager *manager = leave_all_numbers(64 * 64);             // so that each finds a lease
    CHECK_EQ(inside_thread_count(), NUMBERS);
    test_thread_join(test_thread(take_a_number, manager));
    CHECK_EQ(inside_thread_count(), 0);
    CHECK_EQ(cached(manager), 0);
    finish(manager);
}

TEST(ending_caches_are_taken_back_before_exhaustion) {
    zcp_manager *manager = leave_all_numbers(NUMBERS);
    zcp_chunk chunks[NUMBERS];
    for (int i = 0; i < NUMBERS; i++)
        chunks[i] = allocate_in_the_end(manager, 64);
    for (int i = 0; i < NUMBERS; i++)
        zcp_chunk_release(&chunks[i]);
    finish(manager);
}

TEST(ending_caches_are_taken_back_by_recovery) {
    zcp_manager *manager = leave_all_numbers(CHUNKS);
    CHECK_RECOVERS(manager, 0, 0);
    CHECK_EQ(inside_thread_count(), 0);
    CHECK_EQ(inside_leases_held(manager, 0), 0);
    finish(manager);
}

// A pool of one leaf has one lease.
TEST(ending_lease_is_taken_back_by_who_finds_none) {
    if (LAST_ROUND < PTHREAD_DESTRUCTOR_ITERATIONS)
        test_skip("no destructor of this test can run in the last round");
    zcp_manager *manager = create_cached(4, 0);
    prepare(manager, LAST_ROUND, false);
    end_one();
    CHECK_EQ(inside_leases_held(manager, 0), 1);
    CHECK_EQ(inside_thread_count(), 1);
    use(manager);
    use(manager);
    CHECK_EQ(inside_thread_count(), 1);                            // now this thread's
    CHECK(inside_releases_quickly(manager, 0));
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Who lives keeps its number, whoever looks

typedef struct keeper {
    zcp_manager *manager;
    _Atomic uint32_t kept, end;
} keeper;

static void *keep(void *argument) {
    keeper *self = argument;
    use(self->manager);
    uint32_t number = inside_thread_number();
    CHECK(number != 0);
    test_signal(&self->kept);
    test_await(&self->end, 1);
    CHECK_EQ(inside_thread_number(), number);
    use(self->manager);
    return NULL;
}

static void check_the_living_keep(zcp_manager *manager) {
    keeper self = {.manager = manager};
    pthread_t thread = test_thread(keep, &self);
    test_await(&self.kept, 1);
    uint32_t numbers = inside_thread_count();
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(cached(manager), numbers);                        // each has one
        CHECK_RECOVERS(manager, 0, 0);
        CHECK_EQ(inside_thread_count(), numbers);
    }
    test_signal(&self.end);
    test_thread_join(thread);
    CHECK_EQ(cached(manager), numbers - 1);
}

#if !defined(TEST_TSAN)                                            // which takes what is wiped in a child for locked
static void keep_in_a_child(void *argument) {
    uint32_t number = inside_thread_number();                      // the parent's
    CHECK(number != 0);
    zcp_manager *manager = attach();
    use(manager);
    CHECK_EQ(inside_thread_number(), number);
    check_the_living_keep(manager);
    zcp_manager_close(manager);
    (void)argument;
}
#endif

TEST(ending_looks_take_nothing_from_the_living) {
    zcp_manager *manager = create_cached(CHUNKS, CACHE);
    check_the_living_keep(manager);
    CHECK_EQ(inside_thread_count(), 0);
    use(manager);
    check_the_living_keep(manager);
    zcp_manager_close(manager);
#if !defined(TEST_TSAN)
    test_join(test_spawn(keep_in_a_child, NULL));
#endif
    finish(attach());
}

// ---------------------------------------------------------------------------------------------------------------------
// A process that exits. What runs after zerocp's destructor finds its key's number free; threads and handles still
// work.

enum { KEYS = 8 };

static zcp_manager *at_exit;                                       // NULL: this process does not end by exit
static zcp_chunk late_handle;
static void *given;

static void destroy_other(void *value) {
    given = value;
}

static void *use_at_exit(void *argument) {
    use(at_exit);
    CHECK_EQ(inside_thread_number(), 0);
    return argument;
}

__attribute__((destructor(101))) static void run_last(void) {      // after those without a priority
    pthread_key_t keys[KEYS];
    if (at_exit == NULL)
        return;
    for (int i = 0; i < KEYS; i++)
        CHECK(pthread_key_create(&keys[i], destroy_other) == 0);
    test_thread_join(test_thread(use_at_exit, NULL));
    CHECK_MSG(given == NULL, "a key's destructor was given %p, which nobody stored for it", given);
    CHECK(!zcp_chunk_is_valid(&late_handle));
    zcp_chunk_release(&late_handle);
    zcp_manager *again = attach();
    use(again);
    zcp_manager_close(again);
    zcp_manager_close(at_exit);
    _exit(0);
}

static void exit_with_a_manager(void *argument) {
    (void)argument;
    zcp_manager *before = attach();
    late_handle = allocate(before, 64);
    zcp_manager_close(before);
    at_exit = attach();
    exit(1);                                                       // run_last ends it
}

TEST(ending_process_sets_no_key_of_somebody_else_s) {
    zcp_manager *manager = create(64, 8);
    test_join(test_spawn(exit_with_a_manager, NULL));
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Managers that are closed while handles of them are left: 64 keep their objects, older ones' are used again

enum { LATE = 64, LIVES = 3 * LATE };

static int different(zcp_manager *const *managers, int count) {
    int found = 0;
    for (int i = 0; i < count; i++) {
        int j = 0;
        while (managers[j] != managers[i])
            j++;
        found += j == i;
    }
    return found;
}

static void check_refused(zcp_chunk chunk) {
    zcp_chunk cloned = zcp_chunk_clone(&chunk);
    CHECK(is_empty(&cloned) && !zcp_chunk_is_valid(&chunk) && zcp_chunk_data(&chunk) == NULL);
    CHECK(zcp_chunk_token(&chunk) == 0 && zcp_chunk_size(&chunk) == 0 && zcp_chunk_use_count(&chunk) == 0);
    zcp_chunk_release(&chunk);
}

TEST(ending_managers_with_handles_left_are_used_again_after_64_others) {
    zcp_manager *keeper_of_all = create(64, 2), *managers[LIVES];
    zcp_chunk left[LIVES];
    zcp_log_set_level(ZCP_LOG_OFF);
    for (int life = 0; life < LIVES; life++) {
        managers[life] = attach();
        zcp_chunk held[2] = {allocate(managers[life], 64), allocate(managers[life], 64)};
        for (int i = 0; i < life; i++)
            check_refused(left[i]);                                // also while the same chunks are held
        for (int i = life > LATE ? life - LATE : 0; i < life; i++)
            CHECK_MSG(managers[i] != managers[life], "life %d has the object of %d", life, i);
        CHECK(zcp_chunk_use_count(&held[0]) == 1 && zcp_chunk_use_count(&held[1]) == 1);
        left[life] = held[life % 2];
        zcp_chunk_release(&held[1 - life % 2]);
        zcp_manager_close(managers[life]);
        CHECK_EQ(used(keeper_of_all), 0);
    }
    CHECK_EQ(different(managers, LIVES), LATE + 1);
    zcp_manager *plain = attach();                                 // one without is used again before those
    zcp_manager_close(plain);
    zcp_manager *next = attach();
    CHECK(next == plain);
    zcp_manager_close(next);
    finish(keeper_of_all);
}
