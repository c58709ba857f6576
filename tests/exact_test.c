// tests/exact_test.c: nobody is told EXHAUSTED, or TIMEOUT, beside a chunk that is free; and what it costs to be told.
#include "harness/pools.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIZE = 64, WORKERS = 4 };
#define MS UINT64_C(1000000)

// ---------------------------------------------------------------------------------------------------------------------
// Pools of exactly the right size: as many chunks as all workers hold. Again and again each of them releases one and
// allocates one. By count there is always one for whoever asks, be it what another one has released.

typedef enum { QUICK, CHECKED, MARKED, BORROWED, WAITING, KINDS } kind;
static const char *const kinds[] = {"quick", "checked", "with tokens", "last released by a borrower", "allocate_wait"};

typedef struct exact {
    zcp_manager *manager;
    kind how;
    // each goes on in the middle of what another one does
    bool yields;
    uint32_t each, rounds;
    _Atomic uint32_t ready;
} exact;

static zcp_status obtain(exact *self, zcp_manager *manager, zcp_chunk *chunk) {
    return self->how == WAITING ? zcp_chunk_allocate_wait(manager, SIZE, 1, chunk)
                                : zcp_chunk_allocate(manager, SIZE, chunk);
}

static void give_and_take(exact *self, zcp_manager *manager, zcp_manager *borrower) {
    zcp_chunk *held = calloc(self->each, sizeof *held);
    CHECK(held != NULL);
    for (uint32_t i = 0; i < self->each; i++)
        held[i] = allocate(manager, SIZE);
    test_meet(&self->ready, WORKERS);
    for (uint32_t round = 0; round < self->rounds; round++) {
        uint32_t k = (uint32_t)test_random_below(self->each);
        zcp_chunk seen = {0};
        if (self->how == MARKED)
            token_of(&held[k]);
        if (self->how == BORROWED)
            seen = acquire(borrower, token_of(&held[k]));
        zcp_chunk_release(&held[k]);
        zcp_chunk_release(&seen);
        zcp_status status = obtain(self, manager, &held[k]);
        CHECK_MSG(status == ZCP_OK, "%s, %u each, round %u: %s", kinds[self->how], self->each, round,
                  zcp_last_message());
    }
    for (uint32_t i = 0; i < self->each; i++)
        zcp_chunk_release(&held[i]);
    free(held);
}

static void *work_in_a_thread(void *argument) {
    exact *self = argument;
    give_and_take(self, self->manager, self->manager);
    return NULL;
}

static void yield(void) {
    test_steps_clear();
    sched_yield();
    test_at_step(NULL, 1 + (int)test_random_below(10), TEST_CALL, yield);
}

static void work_in_a_process(void *argument) {
    exact *self = argument;
    zcp_manager *manager = attach_named(test_instance(), self->how == CHECKED ? ZCP_CHECKED : 0), *borrower = attach();
    if (self->yields)
        yield();
    give_and_take(self, manager, borrower);
    test_steps_clear();
    zcp_manager_close(borrower);
    zcp_manager_close(manager);
}

static void check_exact(bool processes, bool yields, uint32_t each, int rounds) {
    for (int how = 0; how < KINDS; how++) {
        zcp_config config = one_pool(SIZE, WORKERS * each);
        zcp_manager *manager = create_named(test_instance(), &config, how == CHECKED ? ZCP_CHECKED : 0);
        exact *self = test_shared(sizeof *self);
        self->manager = manager;
        self->how = (kind)how;
        self->yields = yields;
        self->each = each;
        self->rounds = (uint32_t)(ROUNDS(rounds) / (how == QUICK ? 1 : 4));
        pthread_t threads[WORKERS];
        pid_t pids[WORKERS];
        for (int i = 0; i < WORKERS; i++)
            if (processes)
                pids[i] = test_spawn(work_in_a_process, self);
            else
                threads[i] = test_thread(work_in_a_thread, self);
        for (int i = 0; i < WORKERS; i++)
            if (processes)
                test_join(pids[i]);
            else
                test_thread_join(threads[i]);
        zcp_pool_stats stats = pool_stats(manager, 0);
        CHECK_EQ(stats.failures, 0);
        CHECK_EQ(stats.disturbed, 0);
        finish(manager);
    }
}

TEST(exact_pool_of_threads_is_never_exhausted) { check_exact(false, false, 16, 400000); }
TEST(exact_pool_of_processes_is_never_exhausted) { check_exact(true, false, 16, 400000); }
TEST(exact_pool_of_one_chunk_each_is_never_exhausted) { check_exact(true, true, 1, 15000); }
TEST(exact_pool_whatever_the_order_is_never_exhausted) { check_exact(true, true, 3, 15000); }
TEST(exact_pool_that_is_large_is_never_exhausted) { check_exact(false, false, 256, 400000); }

// ---------------------------------------------------------------------------------------------------------------------
// Each way to free a chunk is seen, by who looks meanwhile and by who has looked a moment ago, though there is no hint

typedef enum { BY_OWNER, BY_OWNER_CHECKED, BY_OWNER_MARKED, BY_BORROWER, OUT_OF_A_CACHE, BY_CLOSE, BY_SWEEP, WAYS } way;
static const char *const ways[] = {"owner", "owner, checked", "owner, marked", "borrower", "cache", "close", "sweep"};

enum { LARGE = 1000 };                                             // more chunks than are looked at each time
static zcp_chunk chunks[LARGE];

typedef struct freer {
    way how;
    zcp_manager *manager, *third;
    zcp_chunk chunk, extra;                                        // extra: stays in use
    peer *doomed;
    uint32_t index, held;                                          // of which chunk, and how many this one has
    bool freed;
} freer;
static freer frees;

static void freer_begin(way how) {
    frees = (freer){.how = how, .third = attach(), .held = 1 + (how == OUT_OF_A_CACHE)};
    frees.manager = attach_named(test_instance(), how == BY_OWNER_CHECKED ? ZCP_CHECKED : 0);
    if (how == OUT_OF_A_CACHE)
        frees.extra = allocate(frees.manager, SIZE);
    if (how == BY_SWEEP) {
        frees.doomed = peer_begin(0);
        TELL_OK(frees.doomed, PEER_ALLOCATE, SIZE, 0);
        frees.index = frees.doomed->index;
        return;
    }
    frees.chunk = allocate(frees.manager, SIZE);
    frees.index = inside_index_in_pool(&frees.chunk);
    if (how == BY_OWNER_MARKED || how == BY_BORROWER) {
        zcp_chunk seen = acquire(frees.third, token_of(&frees.chunk));
        zcp_chunk_release(how == BY_BORROWER ? &frees.chunk : &seen);
        frees.chunk = how == BY_BORROWER ? seen : frees.chunk;
    }
    if (how == OUT_OF_A_CACHE || how == BY_CLOSE)
        zcp_chunk_release(&frees.chunk);                           // and it is cached
}

static void freer_free(void) {
    zcp_chunk clone = {0};
    switch (frees.how) {
    case OUT_OF_A_CACHE:                                           // frees nothing, but looks what is wanted
        clone = zcp_chunk_clone(&frees.extra);
        zcp_chunk_release(&clone);
        break;
    case BY_CLOSE: zcp_manager_close(frees.manager); break;
    case BY_SWEEP:
        test_kill(frees.doomed->pid);
        CHECK_RECOVERS(frees.third, 1, 1);
        break;
    default: zcp_chunk_release(&frees.chunk);
    }
    inside_drop_hint(frees.third, 0, frees.index);
    frees.freed = true;
}

static void freer_end(void) {
    zcp_chunk_release(&frees.extra);
    zcp_manager_close(frees.how == BY_CLOSE ? NULL : frees.manager);
    zcp_manager_close(frees.third);
}

static zcp_manager *create_with_caches(way how, uint32_t count) {
    zcp_config config = {0};
    zcp_pool_config pool = {SIZE, count, 0, how == OUT_OF_A_CACHE || how == BY_CLOSE ? 4 : 0};
    CHECK_OK(zcp_config_add(&config, &pool));
    return create_named(test_instance(), &config, 0);
}

// It is freed, and its hint is gone, when the look has just passed its record. With a wait it is the last look.
static void check_freed_during_the_look(way how, bool waits) {
    enum { COUNT = 8 };
    zcp_manager *manager = create_with_caches(how, COUNT);
    zcp_chunk got;
    freer_begin(how);
    for (uint32_t i = 0; i < COUNT - frees.held; i++)
        chunks[i] = allocate(manager, SIZE);
    test_at_step("record", waits ? 3 * COUNT : COUNT, TEST_CALL, freer_free);        // 3: the last look
    zcp_status status;
    do
        status = waits ? zcp_chunk_allocate_wait(manager, SIZE, 1, &got) : zcp_chunk_allocate(manager, SIZE, &got);
    while (status != ZCP_OK && !frees.freed);                      // a slow one may look once less
    test_steps_clear();
    CHECK_MSG(status == ZCP_OK, "%s: %s", ways[how], zcp_last_message());
    CHECK_EQ(inside_index_in_pool(&got), frees.index);
    zcp_chunk_release(&got);
    for (uint32_t i = 0; i < COUNT - frees.held; i++)
        zcp_chunk_release(&chunks[i]);
    freer_end();
    finish(manager);
}

TEST(exact_release_during_the_look_is_seen) {
    for (int how = 0; how < WAYS; how++) {
        check_freed_during_the_look((way)how, false);
        check_freed_during_the_look((way)how, true);
    }
}

TEST(exact_release_since_the_last_look_is_seen) {
    for (int how = 0; how < WAYS; how++) {
        if (how == OUT_OF_A_CACHE || how == BY_CLOSE)
            continue;                                              // what an idle thread caches is had at once
        zcp_manager *manager = create_with_caches((way)how, LARGE);
        zcp_chunk got;
        freer_begin((way)how);
        for (uint32_t i = 0; i < LARGE - frees.held; i++)
            chunks[i] = allocate(manager, SIZE);
        CHECK_ALLOCATE_FAILS(manager, SIZE, ZCP_ERR_EXHAUSTED);
        freer_free();
        zcp_status status = zcp_chunk_allocate(manager, SIZE, &got);
        CHECK_MSG(status == ZCP_OK, "%s: %s", ways[how], zcp_last_message());
        zcp_chunk_release(&got);
        for (uint32_t i = 0; i < LARGE - frees.held; i++)
            zcp_chunk_release(&chunks[i]);
        freer_end();
        finish(manager);
    }
}

// Who stands still between freeing a chunk and counting that hides the chunk from no look. In a large pool looks rest:
// there it is seen a moment later.
typedef struct stander { _Atomic uint32_t ready, go; } stander;

static void free_and_stand_still(void *argument) {
    stander *self = argument;
    zcp_manager *manager = attach();
    zcp_chunk chunk = allocate(manager, SIZE);
    test_signal(&self->ready);
    test_await(&self->go, 1);
    test_at_step("freed", 1, TEST_STOP, NULL);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

TEST(exact_release_that_stands_still_half_way_hides_nothing_for_long) {
    for (uint32_t count = 10; count <= LARGE; count += LARGE - 10) {
        zcp_manager *manager = create(SIZE, count);
        stander *self = test_shared(sizeof *self);
        pid_t pid = test_spawn(free_and_stand_still, self);
        test_await(&self->ready, 1);
        for (uint32_t i = 0; i < count - 1; i++)
            chunks[i] = allocate(manager, SIZE);
        CHECK_ALLOCATE_FAILS(manager, SIZE, ZCP_ERR_EXHAUSTED);
        test_signal(&self->go);
        test_await_stop(pid);
        chunks[count - 1] = count <= 256 ? allocate(manager, SIZE) : allocate_in_the_end(manager, SIZE);
        CHECK_ALLOCATE_FAILS(manager, SIZE, ZCP_ERR_EXHAUSTED);
        test_resume(pid);
        test_join(pid);
        for (uint32_t i = 0; i < count; i++)
            zcp_chunk_release(&chunks[i]);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Each look is disturbed: a chunk is released and allocated again before it is over

static struct { zcp_manager *manager; zcp_chunk chunk; uint32_t looks; } hasty;

static void disturb(void) {
    test_steps_clear();
    hasty.looks++;
    zcp_chunk_release(&hasty.chunk);
    hasty.chunk = allocate(hasty.manager, SIZE);
    test_at_step("looked", 1, TEST_CALL, disturb);
}

TEST(exact_looks_that_are_disturbed_end_and_are_told) {
    for (int waits = 0; waits < 2; waits++) {
        zcp_manager *manager = create(SIZE, 2);
        zcp_chunk chunk = allocate(manager, SIZE), none;
        char said[64];
        hasty.manager = attach();
        hasty.chunk = allocate(hasty.manager, SIZE);
        hasty.looks = 0;
        uint64_t began = test_now();
        test_at_step("looked", 1, TEST_CALL, disturb);
        zcp_status status = waits ? zcp_chunk_allocate_wait(manager, SIZE, 1, &none)
                                  : zcp_chunk_allocate(manager, SIZE, &none);
        test_steps_clear();
        uint64_t took = test_now() - began;
        CHECK_STATUS(status, waits ? ZCP_ERR_TIMEOUT : ZCP_ERR_EXHAUSTED);
        if (!waits) {
            snprintf(said, sizeof said, "chunks came and went during %u looks", hasty.looks);
            CHECK_MSG(strstr(zcp_last_message(), said) != NULL, "%s; %u looks", zcp_last_message(), hasty.looks);
        }
        CHECK(strstr(zcp_last_message(), "chunks came and went during ") != NULL);
        CHECK(hasty.looks >= 3 && took >= 10 * MS && took < 20000 * MS);
        CHECK_EQ(pool_stats(manager, 0).failures, 1);
        CHECK_EQ(pool_stats(manager, 0).disturbed, 1);
        CHECK_ALLOCATE_FAILS(manager, SIZE, ZCP_ERR_EXHAUSTED);    // nothing disturbs this one
        CHECK(strstr(zcp_last_message(), "came and went") == NULL);
        CHECK_EQ(pool_stats(manager, 0).failures, 2);
        CHECK_EQ(pool_stats(manager, 0).disturbed, 1);
        zcp_chunk_release(&chunk);
        zcp_chunk_release(&hasty.chunk);
        zcp_manager_close(hasty.manager);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What it costs

static uint32_t looks;

static void count_look(void) {
    test_steps_clear();
    looks++;
    test_at_step("looked", 1, TEST_CALL, count_look);
}

// Nothing is released meanwhile: the last look still holds, for 1 ms, or ten times what it took.
TEST(exact_loop_on_an_exhausted_pool_looks_seldom) {
    enum { CALLS = 20000 };
    zcp_manager *manager = create(SIZE, LARGE);
    for (int i = 0; i < LARGE; i++)
        chunks[i] = allocate(manager, SIZE);
    uint64_t began = test_now();
    looks = 0;
    test_at_step("looked", 1, TEST_CALL, count_look);
    for (int i = 0; i < CALLS; i++)
        CHECK_ALLOCATE_FAILS(manager, SIZE, ZCP_ERR_EXHAUSTED);
    test_steps_clear();
    uint64_t ms = (test_now() - began) / MS;
    CHECK_MSG(looks >= 1 && looks <= ms + 2, "%u looks in %d calls, %llu ms", looks, CALLS, (unsigned long long)ms);
    for (int i = 0; i < LARGE; i++)
        zcp_chunk_release(&chunks[i]);
    finish(manager);
}
