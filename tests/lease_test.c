// tests/lease_test.c: hints on loan to a thread hide no chunk from anybody, whatever becomes of the thread: it works,
// sleeps, is stopped, is killed, ends, forks, closes. Whoever is exhausted has had every chunk that was free.
#include "harness/chunks.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 5000 };

// Takes every chunk that a size can have: as many as expected, each another one, and gives them back.
typedef zcp_status allocate_function(zcp_manager *manager, uint64_t size, zcp_chunk *chunk);

static void check_obtains_by(allocate_function *obtain, zcp_manager *manager, uint64_t size, uint32_t expected) {
    zcp_chunk *chunks = calloc((size_t)expected + 1, sizeof *chunks);
    CHECK(chunks != NULL);
    for (uint32_t i = 0; i < expected; i++) {
        CHECK_OK(obtain(manager, size, &chunks[i]));
        pattern_write(&chunks[i], i);
    }
    CHECK_STATUS(obtain(manager, size, &chunks[expected]), ZCP_ERR_EXHAUSTED);
    for (uint32_t i = 0; i < expected; i++)
        pattern_check(&chunks[i], i);
    qsort(chunks, expected, sizeof *chunks, inside_by_index);
    for (uint32_t i = 1; i < expected; i++)
        CHECK_MSG(chunks[i - 1].index != chunks[i].index, "chunk %08x was given out twice", chunks[i].index);
    for (uint32_t i = 0; i < expected; i++)
        zcp_chunk_release(&chunks[i]);
    free(chunks);
}

static zcp_status allocate_again_and_again(zcp_manager *manager, uint64_t size, zcp_chunk *chunk) {
    zcp_status status = zcp_chunk_allocate(manager, size, chunk);
    for (int i = 0; status == ZCP_ERR_EXHAUSTED && i < 20; i++) {  // the dead are looked for now and then
        test_sleep(1);
        status = zcp_chunk_allocate(manager, size, chunk);
    }
    return status;
}

static void check_obtains(zcp_manager *manager, uint64_t size, uint32_t expected) {
    check_obtains_by(allocate_again_and_again, manager, size, expected);
}

static void check_obtains_hinted(zcp_manager *manager, uint64_t size, uint32_t expected) {
    check_obtains_by(inside_allocate_hinted, manager, size, expected);
}

static uint32_t free_in(zcp_manager *manager) {
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    return (uint32_t)stats.free;
}

// A hint for each free chunk, and for leases only those who live.
static void check_hints(zcp_manager *manager) {
    CHECK_EQ(inside_hint_count(manager, 0), free_in(manager));
}

static void touch(zcp_manager *manager) {
    zcp_chunk chunk = allocate(manager, 64);
    pattern_write(&chunk, chunk.index);
    zcp_chunk_release(&chunk);
}

// ---------------------------------------------------------------------------------------------------------------------
// One who has a leaf on loan

typedef struct lessee {
    int keeps;                                                     // chunks that it holds meanwhile
    _Atomic uint32_t ready, go;
} lessee;

static void borrow_a_leaf(void *argument) {
    lessee *self = argument;
    zcp_manager *manager = attach();
    zcp_chunk held[8];
    for (int i = 0; i < self->keeps; i++)
        held[i] = allocate(manager, 64);
    touch(manager);
    CHECK(inside_leases_held(manager, 0) > 0);
    test_signal(&self->ready);
    test_await(&self->go, 1);
    for (int i = 0; i < self->keeps; i++)
        zcp_chunk_release(&held[i]);
    touch(manager);
    zcp_manager_close(manager);
}

static pid_t lessee_begin(lessee **self, int keeps) {
    *self = test_shared(sizeof **self);
    (*self)->keeps = keeps;
    pid_t pid = test_spawn(borrow_a_leaf, *self);
    test_await(&(*self)->ready, 1);
    return pid;
}

static void lessee_end(lessee *self, pid_t pid) {
    test_signal(&self->go);
    test_join(pid);
}

// Leaves of 8 to 64, a last leaf that is not full, more leaves than leases.
static const uint32_t capacities[] = {1,   2,   7,   8,   9,   15,  16,   17,   63,   64,   65,   100,  127,  128, 129,
                                      255, 256, 257, 511, 512, 513, 1000, 1023, 1024, 1025, 4095, 4096, 4097, MOST};
enum { CAPACITIES = sizeof capacities / sizeof capacities[0] };

TEST(lease_of_one_who_idles_hides_nothing_at_any_capacity) {
    for (int c = 0; c < CAPACITIES; c++) {
        zcp_manager *manager = create(64, capacities[c]);
        lessee *self;
        int keeps = capacities[c] > 3 ? 3 : 0;
        pid_t pid = lessee_begin(&self, keeps);
        CHECK_EQ(inside_leases_held(manager, 0), 1);
        check_obtains(manager, 64, capacities[c] - (uint32_t)keeps);
        check_obtains(manager, 64, capacities[c] - (uint32_t)keeps);
        check_hints(manager);
        lessee_end(self, pid);
        check_obtains(manager, 64, capacities[c]);
        finish(manager);
    }
}

TEST(lease_of_one_who_is_stopped_or_dead_hides_nothing) {
    zcp_manager *manager = create(64, 100);
    lessee *self;
    pid_t pid = lessee_begin(&self, 2);
    test_stop(pid);
    check_obtains(manager, 64, 98);
    CHECK_RECOVERS(manager, 0, 0);
    test_resume(pid);
    lessee_end(self, pid);
    pid = lessee_begin(&self, 2);
    test_kill(pid);
    check_obtains(manager, 64, 100);                               // swept before exhaustion
    check_hints(manager);
    pid = lessee_begin(&self, 2);
    CHECK_EQ(inside_leases_held(manager, 0), 2);
    test_kill(pid);
    CHECK_RECOVERS(manager, 1, 2);
    CHECK_EQ(inside_leases_held(manager, 0), 1);
    check_hints(manager);
    check_obtains(manager, 64, 100);
    finish(manager);
}

// The dead leave no lease behind: after more of them than there are leases, one is left for the next.
TEST(lease_of_the_dead_is_free_again) {
    zcp_manager *manager = create(64, 16);
    lessee *self;
    for (int i = 0; i < 10; i++) {
        pid_t pid = lessee_begin(&self, 1);
        CHECK_EQ(inside_leases_held(manager, 0), 1);
        test_kill(pid);
        CHECK_RECOVERS(manager, 1, 1);
        CHECK_EQ(inside_leases_held(manager, 0), 0);
        CHECK_EQ(inside_loaned_count(manager, 0), 0);
        check_hints(manager);
    }
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Stopped and killed at each step

typedef struct stepper {
    const char *where;
    int nth;
    _Atomic uint32_t ready, go;
} stepper;

static void *allocate_in_a_thread(void *manager) {
    touch(manager);
    return NULL;
}

static void step_through(void *argument) {
    stepper *self = argument;
    zcp_manager *manager = attach();
    test_signal(&self->ready);
    test_await(&self->go, 1);
    zcp_chunk a, b;
    zcp_status status[2] = {zcp_chunk_allocate(manager, 64, &a), zcp_chunk_allocate(manager, 64, &b)};
    for (int i = 0; i < 2; i++)
        CHECK(status[i] == ZCP_OK || status[i] == ZCP_ERR_EXHAUSTED);
    zcp_chunk_release(&a);
    zcp_chunk_release(&b);
    zcp_manager_close(manager);
}

static void end_a_thread(void *argument) {
    stepper *self = argument;
    zcp_manager *manager = attach();
    test_signal(&self->ready);
    test_await(&self->go, 1);
    test_at_step("loan_returned", 1, self->nth ? TEST_KILL : TEST_STOP, NULL);
    test_thread_join(test_thread(allocate_in_a_thread, manager));
    touch(manager);
    zcp_manager_close(manager);
}

static void step_and_stop(void *argument) {
    stepper *self = argument;
    test_at_step(self->where, 1, TEST_STOP, NULL);
    step_through(self);
}

static void step_and_die(void *argument) {
    stepper *self = argument;
    test_at_step(self->where, 1, TEST_KILL, NULL);
    step_through(self);
}

static stepper *stepper_begin(const char *where, void (*function)(void *), pid_t *pid) {
    stepper *self = test_shared(sizeof *self);
    self->where = where;
    *pid = test_spawn(function, self);
    test_await(&self->ready, 1);
    test_signal(&self->go);
    return self;
}

// What it holds when it is stopped there, and of how many chunks there is no hint then.
static const struct { const char *where; uint32_t holds, unhinted; } steps[] = {
    {"leased", 0, 0}, {"loan_shown", 0, 0}, {"popped", 0, 1}, {"claimed", 1, 1}, {"unowned", 2, 2}, {"freed", 1, 2}};
enum { STEPS = sizeof steps / sizeof steps[0] };

TEST(lease_stopped_at_each_step_hides_nothing) {
    for (int capacity = 9; capacity <= 1000; capacity += 991)
        for (int s = 0; s < STEPS; s++) {
            zcp_manager *manager = create(64, (uint32_t)capacity);
            pid_t pid;
            stepper_begin(steps[s].where, step_and_stop, &pid);
            test_await_stop(pid);
            check_obtains_hinted(manager, 64, (uint32_t)capacity - steps[s].unhinted);
            check_obtains(manager, 64, (uint32_t)capacity - steps[s].holds);
            check_obtains(manager, 64, (uint32_t)capacity - steps[s].holds);
            test_resume(pid);
            test_join(pid);
            check_obtains(manager, 64, (uint32_t)capacity);
            finish(manager);
        }
}

TEST(lease_killed_at_each_step_loses_nothing) {
    zcp_manager *manager = create(64, 100);
    for (int by_exhaustion = 0; by_exhaustion < 2; by_exhaustion++)
        for (int s = 0; s < STEPS; s++) {
            pid_t pid;
            stepper_begin(steps[s].where, step_and_die, &pid);
            test_join_signal(pid, SIGKILL);
            if (by_exhaustion)
                check_obtains(manager, 64, 100);
            else
                CHECK_RECOVERS(manager, 1, steps[s].holds);
            CHECK_EQ(inside_leases_held(manager, 0), by_exhaustion);
            check_hints(manager);
            check_obtains(manager, 64, 100);
            zcp_manager_close(manager);
            manager = attach();
        }
    finish(manager);
}

TEST(lease_stopped_or_killed_while_a_thread_ends_hides_nothing) {
#if defined(TEST_TSAN)
    test_skip("TSan does not know that the kernel wipes the mutex in a child");
#endif
    for (int dies = 0; dies < 2; dies++) {
        zcp_manager *manager = create(64, 100);
        stepper *self = test_shared(sizeof *self);
        self->nth = dies;
        pid_t pid = test_spawn(end_a_thread, self);
        test_await(&self->ready, 1);
        test_signal(&self->go);
        if (dies) {
            test_join_signal(pid, SIGKILL);
            CHECK_RECOVERS(manager, 1, 0);
        } else {
            test_await_stop(pid);
            check_obtains_hinted(manager, 64, 100);
            check_obtains(manager, 64, 100);
            test_resume(pid);
            test_join(pid);
        }
        CHECK_EQ(inside_leases_held(manager, 0), dies ? 0 : 1);    // the test's own
        check_obtains(manager, 64, 100);
        check_hints(manager);
        finish(manager);
    }
}

// A sweeper is stopped in the middle of the dead one's leases: all that they named is in the list by then.
static void sweep_and_stop(void *unused) {
    (void)unused;
    test_at_step("sweep_loan_cleared", 1, TEST_STOP, NULL);
    zcp_manager_close(attach());
}

TEST(lease_sweep_stopped_half_way_hides_nothing) {
    zcp_manager *manager = create(64, 100);
    lessee *self;
    pid_t pid = lessee_begin(&self, 2);
    test_kill(pid);
    pid = test_spawn(sweep_and_stop, NULL);
    test_await_stop(pid);
    check_obtains_hinted(manager, 64, 100);
    test_resume(pid);
    test_join(pid);
    check_hints(manager);
    finish(manager);
}

// A sweeper is killed in the middle of the dead one's leases: the next one does it again.
static void sweep_and_die(void *unused) {
    (void)unused;
    test_at_step("sweep_loan_cleared", 1, TEST_KILL, NULL);
    attach();
}

TEST(lease_sweep_killed_half_way_is_done_again) {
    zcp_manager *manager = create(64, 100);
    lessee *self;
    for (int by_exhaustion = 0; by_exhaustion < 2; by_exhaustion++) {
        pid_t pid = lessee_begin(&self, 2);
        test_kill(pid);
        pid = test_spawn(sweep_and_die, NULL);
        test_join_signal(pid, SIGKILL);
        if (by_exhaustion)
            check_obtains(manager, 64, 100);
        else
            CHECK_OK(zcp_manager_recover(manager, NULL));
        CHECK_EQ(inside_leases_held(manager, 0), by_exhaustion);
        CHECK_EQ(used(manager), 0);
        check_hints(manager);
        check_obtains(manager, 64, 100);
        zcp_manager_close(manager);
        manager = attach();
    }
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads

typedef struct crowd {
    zcp_manager *manager;
    _Atomic uint32_t meeting, numbered, leave;
    uint32_t parties;
    int rounds;
} crowd;

static void *work_in_a_crowd(void *argument) {
    crowd *shared = argument;
    for (int i = 0; i < shared->rounds; i++)
        touch(shared->manager);
    zcp_chunk chunk = allocate(shared->manager, 64);
    pattern_write(&chunk, chunk.index);
    if (inside_thread_number() != 0)
        atomic_fetch_add(&shared->numbered, 1);
    test_meet(&shared->meeting, shared->parties);                  // all are there at once
    pattern_check(&chunk, chunk.index);
    zcp_chunk_release(&chunk);
    test_await(&shared->leave, 1);
    touch(shared->manager);
    return NULL;
}

// More threads than leases and than numbers; those that end give both back, for the next ones.
TEST(lease_for_more_threads_than_there_are) {
    enum { THREADS = 70 };
    static const uint32_t counts[] = {71, 1024, 4200};
    for (int c = 0; c < 3; c++) {
        zcp_manager *manager = create(64, counts[c]);
        uint32_t leases = c == 0 ? 9 : c == 1 ? 16 : 63;
        for (int round = 0; round < 2; round++) {
            crowd shared = {.manager = manager, .parties = THREADS + 1, .rounds = ROUNDS(200)};
            pthread_t threads[THREADS];
            CHECK_EQ(inside_thread_count(), round == 0 && c == 0 ? 0 : 1);
            for (int i = 0; i < THREADS; i++)
                threads[i] = test_thread(work_in_a_crowd, &shared);
            test_meet(&shared.meeting, THREADS + 1);
            CHECK_EQ(shared.numbered, round == 0 && c == 0 ? 63 : 62);
            CHECK_EQ(inside_thread_count(), 63);
            // in the second round with the test's own
            CHECK_EQ(inside_leases_held(manager, 0), c == 2 && round == 0 ? leases - 1 : leases);
            while (used(manager) != 0)
                test_sleep(1);
            check_obtains(manager, 64, counts[c]);                 // all are idle now, with their loans
            test_signal(&shared.leave);
            for (int i = 0; i < THREADS; i++)
                test_thread_join(threads[i]);
            // the test's own, if there was one left for it
            CHECK_EQ(inside_thread_count(), round == 0 && c == 0 ? 0 : 1);
            CHECK(inside_leases_held(manager, 0) <= 1);
            check_hints(manager);
            check_obtains(manager, 64, counts[c]);
        }
        finish(manager);
    }
}

TEST(lease_ends_with_its_thread) {
    zcp_manager *manager = create(64, 100), *peer = attach();
    for (int i = 0; i < 200; i++) {
        test_thread_join(test_thread(allocate_in_a_thread, manager));
        CHECK_EQ(inside_leases_held(peer, 0), 0);
        CHECK_EQ(inside_loaned_count(peer, 0), 0);
        CHECK_EQ(inside_hint_count(peer, 0), 100);
        CHECK_EQ(inside_thread_count(), 0);
    }
    zcp_manager_close(peer);
    finish(manager);
}

// A thread may keep something of many managers; all of it comes back, and closed ones are left alone.
TEST(lease_ends_with_its_thread_in_each_manager) {
    enum { INSTANCES = 3 };
    zcp_manager *managers[INSTANCES][2];
    zcp_config config = one_pool(64, 20);
    for (int i = 0; i < INSTANCES; i++) {
        managers[i][0] = create_named(test_instance_n(i), &config, 0);
        managers[i][1] = attach_named(test_instance_n(i), 0);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < INSTANCES; i++)
            test_thread_join(test_thread(allocate_in_a_thread, managers[i][round % 2]));
        for (int i = 0; i < INSTANCES; i++) {
            CHECK_EQ(inside_leases_held(managers[i][0], 0), round < 2 ? round : 2);        // this thread's, of before
            check_obtains(managers[i][round % 2], 64, 20);
        }
    }
    for (int i = 0; i < INSTANCES; i++) {
        touch(managers[i][0]);
        touch(managers[i][1]);
        CHECK_EQ(inside_leases_held(managers[i][0], 0), 2);
        check_obtains(managers[i][0], 64, 20);
        check_obtains(managers[i][1], 64, 20);
        zcp_manager_close(managers[i][0]);
        CHECK_EQ(inside_leases_held(managers[i][1], 0), 1);
        check_obtains(managers[i][1], 64, 20);
        zcp_manager_close(managers[i][1]);
        books_check(test_instance_n(i), 0);
        CHECK_OK(zcp_manager_destroy(test_instance_n(i)));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Close and fork

TEST(lease_is_given_back_by_close) {
    zcp_manager *manager = create(64, 100), *peer = attach(), *third = attach();
    touch(peer);
    touch(third);
    CHECK_EQ(inside_leases_held(manager, 0), 2);
    zcp_chunk held = allocate(peer, 64);
    CHECK_EQ(used(manager), 1);
    zcp_manager_close(peer);
    CHECK_EQ(inside_leases_held(manager, 0), 1);
    CHECK_EQ(used(manager), 0);
    check_hints(manager);
    zcp_chunk_release(&held);
    zcp_manager_close(third);
    CHECK_EQ(inside_leases_held(manager, 0), 0);
    CHECK_EQ(inside_loaned_count(manager, 0), 0);
    check_obtains(manager, 64, 100);
    finish(manager);
}

typedef struct race {
    zcp_manager *manager;
    _Atomic uint32_t meeting;
} race;

static void *touch_and_end(void *argument) {
    race *shared = argument;
    zcp_chunk chunks[4];
    for (int i = 0; i < 4; i++)
        chunks[i] = allocate(shared->manager, i % 2 ? 64 : 128);   // of the second pool, cached
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    test_meet(&shared->meeting, 4);
    return NULL;
}

// A thread that ends gives back what it keeps, or close does; never both, never neither.
TEST(lease_of_threads_that_end_while_another_closes) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 100}));
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 128, .chunk_count = 50, .cache_chunks = 4}));
    zcp_manager *watcher = create_named(test_instance(), &config, 0);
    int rounds = ROUNDS(400);
    for (int i = 0; i < rounds; i++) {
        race shared = {.manager = attach()};
        pthread_t threads[3];
        for (int t = 0; t < 3; t++)
            threads[t] = test_thread(touch_and_end, &shared);
        test_meet(&shared.meeting, 4);
        zcp_manager_close(shared.manager);
        CHECK_EQ(used(watcher), 0);
        CHECK_EQ(inside_leases_held(watcher, 0) + inside_leases_held(watcher, 1), 0);
        CHECK_EQ(inside_hint_count(watcher, 0) + inside_hint_count(watcher, 1), 150);
        for (int t = 0; t < 3; t++)
            test_thread_join(threads[t]);
        CHECK_EQ(inside_hint_count(watcher, 0) + inside_hint_count(watcher, 1), 150);
        CHECK_EQ(inside_thread_count(), 0);
    }
    finish(watcher);
}

static void open_in_a_child(void *inherited) {
    zcp_chunk chunk;
    CHECK_STATUS(zcp_chunk_allocate(inherited, 64, &chunk), ZCP_ERR_FORKED);
    zcp_manager *manager = attach();
    CHECK_EQ(inside_leases_held(manager, 0), 1);                   // the parent's
    check_obtains(manager, 64, 97);
    CHECK_EQ(inside_leases_held(manager, 0), 2);
    zcp_manager_close(manager);
}

TEST(lease_stays_the_parent_s_through_a_fork) {
    zcp_manager *manager = create(64, 100);
    zcp_chunk held[3];
    for (int i = 0; i < 3; i++)
        held[i] = allocate(manager, 64);
    for (int round = 0; round < 3; round++) {
        touch(manager);
        uint32_t loaned = inside_loaned_count(manager, 0);
        CHECK(loaned > 0);
        test_join(test_spawn(open_in_a_child, manager));
        CHECK_EQ(inside_leases_held(manager, 0), 1);
        check_hints(manager);
        check_obtains(manager, 64, 97);
    }
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&held[i]);
    finish(manager);
}

static void *fork_from_here(void *argument) {
    crowd *shared = argument;
    touch(shared->manager);
    test_meet(&shared->meeting, 4);
    pid_t pid = fork();
    // only this thread is here, and its number is its own
    if (pid == 0) {
        CHECK_EQ(inside_thread_count(), 1);
        CHECK(inside_thread_number() != 0);
        crowd mine = {.manager = attach(), .parties = 9, .rounds = 20};
        pthread_t threads[8];
        for (int i = 0; i < 8; i++)
            threads[i] = test_thread(work_in_a_crowd, &mine);
        test_meet(&mine.meeting, 9);
        CHECK_EQ(mine.numbered, 8);
        CHECK_EQ(inside_thread_count(), 9);
        test_signal(&mine.leave);
        for (int i = 0; i < 8; i++)
            test_thread_join(threads[i]);
        CHECK_EQ(inside_thread_count(), 1);
        zcp_manager_close(mine.manager);
        _exit(0);
    }
    test_join(pid);
    test_meet(&shared->meeting, 4);
    touch(shared->manager);
    return NULL;
}

TEST(lease_through_a_fork_of_many_threads) {
#if defined(TEST_TSAN)
    test_skip("TSan does not know that the kernel wipes the mutex in the child");
#endif
    test_need("threads-of-forked-children");
    zcp_manager *manager = create(64, 200);
    crowd shared = {.manager = manager};
    pthread_t threads[3];
    touch(manager);
    for (int i = 0; i < 3; i++)
        threads[i] = test_thread(fork_from_here, &shared);
    test_meet(&shared.meeting, 4);
    CHECK_EQ(inside_thread_count(), 4);
    test_meet(&shared.meeting, 4);
    for (int i = 0; i < 3; i++)
        test_thread_join(threads[i]);
    CHECK_EQ(inside_thread_count(), 1);
    CHECK_EQ(inside_leases_held(manager, 0), 1);
    check_hints(manager);
    check_obtains(manager, 64, 200);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Many at once

typedef struct party {
    _Atomic uint32_t meeting, end;
    _Atomic uint64_t got[8];
    uint32_t parties, chunks;
} party;

static void take_and_tell(party *shared, zcp_manager *manager, int number) {
    zcp_chunk chunks[300];
    uint32_t n = 0;
    // in whatever order they come by: together they get them all
    for (;; n++) {
        zcp_status status = zcp_chunk_allocate(manager, 64, &chunks[n]);
        if (status == ZCP_ERR_EXHAUSTED)
            break;
        CHECK_OK(status);
        CHECK(n < shared->chunks);
        pattern_write(&chunks[n], (uint64_t)number << 32 | n);
    }
    atomic_store(&shared->got[number], n);
    test_meet(&shared->meeting, shared->parties);
    for (uint32_t i = 0; i < n; i++) {
        pattern_check(&chunks[i], (uint64_t)number << 32 | i);
        zcp_chunk_release(&chunks[i]);
    }
}

static void be_in_the_party(void *argument) {
    party *shared = argument;
    zcp_manager *manager = attach();
    zcp_chunk held[16] = {{0}};
    int number = (int)test_signal(&shared->end) - 1;
    for (int round = 0; round < ROUNDS(60); round++) {
        for (int i = 0; i < 2000; i++) {
            zcp_chunk *one = &held[test_random_below(16)];
            if (one->manager) {
                pattern_check(one, one->index);
                zcp_chunk_release(one);
            } else if (zcp_chunk_allocate(manager, 64, one) == ZCP_OK)
                pattern_write(one, one->index);
        }
        for (int i = 0; i < 16; i++)
            zcp_chunk_release(&held[i]);
        test_meet(&shared->meeting, shared->parties);
        take_and_tell(shared, manager, number);
        test_meet(&shared->meeting, shared->parties);
        test_meet(&shared->meeting, shared->parties);              // the test looks meanwhile
    }
    zcp_manager_close(manager);
}

TEST_WITH(lease_of_many_processes_hides_nothing, .weight = 2) {
    enum { PROCESSES = 4 };
    static const uint32_t counts[] = {20, 61, 256};
    for (int c = 0; c < 3; c++) {
        zcp_manager *manager = create(64, counts[c]);
        party *shared = test_shared(sizeof *shared);
        pid_t pids[PROCESSES];
        shared->parties = PROCESSES + 1;
        shared->chunks = counts[c];
        for (int i = 0; i < PROCESSES; i++)
            pids[i] = test_spawn(be_in_the_party, shared);
        for (int round = 0; round < ROUNDS(60); round++) {
            test_meet(&shared->meeting, shared->parties);
            test_meet(&shared->meeting, shared->parties);
            uint64_t sum = 0;
            for (int i = 0; i < PROCESSES; i++)
                sum += shared->got[i];
            CHECK_EQ(sum, counts[c]);
            test_meet(&shared->meeting, shared->parties);
            check_hints(manager);
            test_meet(&shared->meeting, shared->parties);
        }
        for (int i = 0; i < PROCESSES; i++)
            test_join(pids[i]);
        check_obtains(manager, 64, counts[c]);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Who has a lease releases quickly, but not in a manager that checks: that there is a quick way shows in nothing but
// the time.

static void *is_slow(void *manager) {
    zcp_chunk chunk = allocate(manager, 64);
    CHECK(!inside_releases_quickly(manager, 0));
    zcp_chunk_release(&chunk);
    return NULL;
}

TEST(lease_makes_releases_quick) {
    zcp_config config = one_pool(64, 8);                           // one leaf, so one lease
    for (int checked = 0; checked < 2; checked++) {
        zcp_manager *manager = create_named(test_instance(), &config, checked ? ZCP_CHECKED : 0);
        touch(manager);
        CHECK_EQ(inside_leases_held(manager, 0), 1);
        CHECK_EQ(inside_releases_quickly(manager, 0), !checked);
        test_thread_join(test_thread(is_slow, manager));           // there is no lease for a second thread
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A thread reads its own loan where others may write: what they wrote leads to no record that is not the pool's, and
// costs no chunk.

static void loan_of_garbage(bool slowly) {
    enum { CHUNKS = 100, BEHIND = 32, LAST_LEAF = 4 };
    zcp_config config = one_pool(64, CHUNKS);
    zcp_chunk chunks[CHUNKS + 1];
    uint64_t before[BEHIND];
    // what lies behind the first pool's records is this one's
    CHECK_OK(zcp_config_add_pool(&config, 4096, 200));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    // leaves of 8: the loan is of the last one, which is short
    uint32_t held = CHUNKS - LAST_LEAF + 1;
    for (uint32_t i = 0; i < held; i++)
        chunks[i] = allocate(manager, 64);
    CHECK_EQ(inside_index_in_pool(&chunks[held - 1]), CHUNKS - LAST_LEAF);
    for (uint32_t i = 0; i < BEHIND; i++) {                        // as if they were free chunks
        before[i] = inside_state_word(manager, 0, CHUNKS + i);
        inside_set_state_word(manager, 0, CHUNKS + i, UINT64_C(7) << 32);
    }
    inside_set_loans(manager, 0, UINT64_MAX);
    if (slowly)
        CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 128, .chunk_count = 8}, NULL));
    while (held < CHUNKS)
        chunks[held++] = allocate_in_the_end(manager, 64);
    inside_set_loans(manager, 0, UINT64_MAX << LAST_LEAF);         // nothing but garbage
    CHECK_STATUS(zcp_chunk_allocate(manager, 64, &chunks[CHUNKS]), ZCP_ERR_EXHAUSTED);
    for (int i = 0; i < 32; i += 8) {                              // what comes to the list is found by its hint
        zcp_chunk_release(&chunks[i]);
        inside_set_loans(manager, 0, UINT64_MAX << LAST_LEAF);
        CHECK_OK(inside_allocate_hinted(manager, 64, &chunks[i]));
    }
    for (uint32_t i = 0; i < BEHIND; i++) {
        CHECK_EQ(inside_state_word(manager, 0, CHUNKS + i), UINT64_C(7) << 32);
        inside_set_state_word(manager, 0, CHUNKS + i, before[i]);
    }
    for (uint32_t i = 0; i < CHUNKS; i++)
        zcp_chunk_release(&chunks[i]);
    check_obtains(manager, 64, CHUNKS);
    finish(manager);
}

TEST(lease_whose_loan_is_garbage) {
    loan_of_garbage(false);
}

TEST(lease_whose_loan_is_garbage_slowly) {
    loan_of_garbage(true);
}

// The state that is one less than the chunk's generation: whoever may not release quickly leaves it alone, as any other
// garbage.
static void release_into_garbage(zcp_manager *manager) {
    zcp_chunk chunk = allocate(manager, 64);
    uint32_t index = inside_index_in_pool(&chunk);
    uint64_t garbage = ((uint64_t)chunk.generation << 32) - 1, next = ((uint64_t)chunk.generation + 1) << 32;
    CHECK(!inside_releases_quickly(manager, 0));
    inside_set_state_word(manager, 0, index, garbage);
    zcp_chunk_release(&chunk);
    CHECK_EQ(inside_state_word(manager, 0, index), garbage);
    inside_set_state_word(manager, 0, index, next);
}

static void *release_into_garbage_without_lease(void *argument) {
    zcp_manager *manager = argument;
    CHECK_EQ(inside_leases_held(manager, 0), 1);                   // there is no other
    release_into_garbage(manager);
    return NULL;
}

static void check_garbage_is_left(uint32_t cache_chunks, uint32_t flags) {
    zcp_config config = {0};
    zcp_chunk chunks[8];
    pthread_t thread;
    zcp_pool_config pool = {.chunk_size = 64, .chunk_count = 8, .cache_chunks = cache_chunks};      // one leaf
    CHECK_OK(zcp_config_add(&config, &pool));
    zcp_manager *manager = create_named(test_instance(), &config, flags);
    touch(manager);
    if (flags & ZCP_CHECKED) {
        release_into_garbage(manager);
    } else {
        CHECK_EQ(pthread_create(&thread, NULL, release_into_garbage_without_lease, manager), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    // this thread pauses when it has seen that somebody was exhausted
    if (cache_chunks) {
        for (int i = 0; i < 8; i++)
            chunks[i] = allocate_in_the_end(manager, 64);
        CHECK_STATUS(zcp_chunk_allocate(manager, 64, &(zcp_chunk){0}), ZCP_ERR_EXHAUSTED);
        for (int i = 0; i < 8; i++)
            zcp_chunk_release(&chunks[i]);
        release_into_garbage(manager);
    }
    check_obtains(manager, 64, 8);
    finish(manager);
}

TEST(lease_garbage_is_left_alone_by_whoever_may_not_release_quickly) {
    zcp_log_set_level(ZCP_LOG_OFF);
    for (uint32_t cache_chunks = 0; cache_chunks <= 4; cache_chunks += 4) {
        check_garbage_is_left(cache_chunks, 0);
        check_garbage_is_left(cache_chunks, ZCP_CHECKED);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What a thread touches of a chunk of the first pool lies at five places of a page, not at one: loads do not take
// stores to another page for theirs

TEST(lease_lane_and_first_records_lie_apart) {
    static const uint32_t counts[] = {64, 1000, 4096, 6000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        zcp_config config = {0};
        uintptr_t places[INSIDE_PLACES];
        CHECK_OK(zcp_config_add_pool(&config, 256, counts[i]));
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        zcp_chunk chunk = allocate(manager, 256);
        CHECK_EQ(inside_index_in_pool(&chunk), 0);
        inside_places(manager, &chunk, places);
        for (int a = 0; a < INSIDE_PLACES; a++)
            for (int b = a + 1; b < INSIDE_PLACES; b++) {
                uintptr_t apart = (places[a] - places[b]) % 4096;
                CHECK_MSG(apart >= 64 && apart <= 4096 - 64, "of %u chunks: places %d and %d: %#zx and %#zx", counts[i],
                          a, b, (size_t)places[a], (size_t)places[b]);
            }
        zcp_chunk_release(&chunk);
        finish(manager);
    }
}
