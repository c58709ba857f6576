// tests/cache_test.c: chunks that a thread keeps for itself: what they cost, who sees them, who gets them, and what
// becomes of them when their thread or process ends, however it ends.
#include "harness/chunks.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(TEST_ASAN) && !defined(TEST_TSAN)
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#endif

enum { TOTAL = 100, CACHE = 8, PAUSE = 64 };

static zcp_pool_stats stats_of(zcp_manager *manager) {
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.used + stats.free + stats.cached, stats.total);
    return stats;
}

#define CHECK_FIGURES(manager, used_, cached_)                                                                         \
    do {                                                                                                               \
        zcp_pool_stats stats_ = stats_of(manager);                                                                     \
        CHECK_EQ(stats_.used, (used_));                                                                                \
        CHECK_EQ(stats_.cached, (cached_));                                                                            \
    } while (0)

// Allocates so many and releases them: as many as may be are then on this thread's stack.
static void use(zcp_manager *manager, int count) {
    zcp_chunk chunks[128];
    CHECK(count <= 128);
    for (int i = 0; i < count; i++) {
        chunks[i] = allocate(manager, 64);
        pattern_write(&chunks[i], (uint64_t)i);
    }
    for (int i = 0; i < count; i++) {
        pattern_check(&chunks[i], (uint64_t)i);
        zcp_chunk_release(&chunks[i]);
    }
}

// Takes chunks until there are none; returns how many, each another one.
static uint32_t take_all(zcp_manager *manager, zcp_chunk *chunks, uint32_t at_most) {
    uint32_t n = 0;
    zcp_status status = ZCP_OK;
    for (; n <= at_most && (status = zcp_chunk_allocate(manager, 64, &chunks[n])) == ZCP_OK; n++)
        pattern_write(&chunks[n], n);
    CHECK_STATUS(status, ZCP_ERR_EXHAUSTED);
    for (uint32_t i = 0; i < n; i++)
        pattern_check(&chunks[i], i);
    qsort(chunks, n, sizeof *chunks, inside_by_index);
    for (uint32_t i = 1; i < n; i++)
        CHECK(chunks[i - 1].index != chunks[i].index);
    return n;
}

static void give_all(zcp_chunk *chunks, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        zcp_chunk_release(&chunks[i]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Another process, told step by step what to do

typedef struct helper {
    void (*act)(struct helper *self, zcp_manager *manager, uint32_t what);
    _Atomic uint32_t order, done;
    uint32_t what;
    uint64_t token;
    pid_t pid;
} helper;

enum { CLOSE = 0, USE, ALLOCATE, RELEASE, PAIR, TOKEN };

static void serve(void *argument) {
    helper *self = argument;
    zcp_manager *manager = attach();
    test_signal(&self->done);
    for (uint32_t n = 1;; n++) {
        test_await(&self->order, n);
        uint32_t what = self->what;
        if (what == CLOSE)
            break;
        self->act(self, manager, what);
        test_signal(&self->done);
    }
    zcp_manager_close(manager);
}

static helper *helper_begin(void (*act)(helper *, zcp_manager *, uint32_t)) {
    helper *self = test_shared(sizeof *self);
    self->act = act;
    self->pid = test_spawn(serve, self);
    test_await(&self->done, 1);
    return self;
}

static void tell(helper *self, uint32_t what) {
    self->what = what;
    uint32_t order = test_signal(&self->order);
    if (what == CLOSE)
        test_join(self->pid);
    else
        test_await(&self->done, order + 1);
}

static void act_simply(helper *self, zcp_manager *manager, uint32_t what) {
    static zcp_chunk held[128];
    static int count;
    (void)self;
    switch (what) {
    case USE: use(manager, 2 * CACHE); break;
    case ALLOCATE: held[count++] = allocate(manager, 64); break;
    case RELEASE: zcp_chunk_release(&held[--count]); break;
    case PAIR: held[count] = allocate(manager, 64); zcp_chunk_release(&held[count]); break;
    case TOKEN: held[count] = allocate(manager, 64); self->token = token_of(&held[count++]); break;
    default: CHECK(false);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Figures

TEST(cache_figures_are_exact) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
    zcp_chunk chunks[TOTAL];
    char text[200];
    CHECK_FIGURES(manager, 0, 0);
    CHECK_EQ(stats_of(manager).cache_chunks, CACHE);
    for (int i = 0; i < TOTAL; i++) {
        chunks[i] = allocate(manager, 64);
        CHECK_FIGURES(peer, (uint64_t)i + 1, 0);
    }
    for (int i = 0; i < TOTAL; i++) {
        zcp_chunk_release(&chunks[i]);
        uint64_t cached = i + 1 < CACHE ? (uint64_t)i + 1 : CACHE;
        CHECK_FIGURES(manager, TOTAL - 1 - (uint64_t)i, cached);
        CHECK_FIGURES(peer, TOTAL - 1 - (uint64_t)i, cached);
    }
    zcp_manager_format(manager, text, sizeof text);
    CHECK_STR(text, "Pool 0: chunk_size=64, total=100, used=0, free=92, cached=8\n");
    for (int i = 0; i < 2 * CACHE; i++) {
        chunks[i] = allocate(manager, 64);
        CHECK_FIGURES(peer, (uint64_t)i + 1, i < CACHE ? CACHE - 1 - (uint64_t)i : 0);
    }
    give_all(chunks, 2 * CACHE);
    zcp_manager_close(peer);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Somebody needs them

TEST(cache_yields_at_the_next_release) {
    zcp_manager *manager = create_cached(TOTAL, CACHE);
    zcp_chunk chunks[TOTAL + 1];
    helper *cacher = helper_begin(act_simply);
    for (int round = 0; round < 3; round++) {
        tell(cacher, USE);
        CHECK_FIGURES(manager, 0, CACHE);
        tell(cacher, ALLOCATE);
        inside_want(manager, 0);
        CHECK_FIGURES(manager, 1, CACHE - 1);
        tell(cacher, RELEASE);
        CHECK_FIGURES(manager, 0, 0);
        CHECK_EQ(take_all(manager, chunks, TOTAL), TOTAL);
        give_all(chunks, TOTAL);
        use(manager, PAUSE);
        zcp_manager_close(manager);                                // nothing of this process's own
        manager = attach();
        for (int i = 0; i < PAUSE; i++) {
            tell(cacher, PAIR);
            CHECK_FIGURES(manager, 0, 0);
        }
        tell(cacher, PAIR);
        CHECK_FIGURES(manager, 0, 1);
        tell(cacher, USE);
        CHECK_FIGURES(manager, 0, CACHE);
    }
    tell(cacher, CLOSE);
    finish(manager);
}

TEST(cache_yields_at_the_next_allocate) {
    zcp_manager *manager = create_cached(TOTAL, CACHE);
    zcp_chunk chunks[TOTAL + 1];
    helper *cacher = helper_begin(act_simply);
    tell(cacher, USE);
    inside_want(manager, 0);
    CHECK_FIGURES(manager, 0, CACHE);
    tell(cacher, ALLOCATE);
    CHECK_FIGURES(manager, 1, 0);
    uint32_t n = take_all(manager, chunks, TOTAL);
    CHECK_EQ(n, TOTAL - 1);
    tell(cacher, RELEASE);                                         // and sees that somebody was exhausted again
    for (int i = 0; i < PAUSE; i++) {
        CHECK_FIGURES(manager, n, 0);
        tell(cacher, PAIR);
    }
    CHECK_FIGURES(manager, n, 0);
    tell(cacher, PAIR);
    CHECK_FIGURES(manager, n, 1);
    give_all(chunks, n);
    tell(cacher, CLOSE);
    finish(manager);
}

// After the release that yields, so many are uncached, then all is as before: also where the thread cached nothing at
// that time, be it that it was exhausted itself or that it held all it had.
TEST(cache_goes_on_after_its_own_thread_was_exhausted) {
    zcp_manager *manager = create_cached(TOTAL, CACHE);
    zcp_chunk chunks[TOTAL + 1];
    use(manager, CACHE);
    CHECK_FIGURES(manager, 0, CACHE);
    for (int round = 0; round < 3; round++) {
        CHECK_EQ(take_all(manager, chunks, TOTAL), TOTAL);
        give_all(chunks, 1 + PAUSE);
        CHECK_FIGURES(manager, TOTAL - 1 - PAUSE, 0);
        give_all(chunks + 1 + PAUSE, 1);
        CHECK_FIGURES(manager, TOTAL - 2 - PAUSE, 1);
        give_all(chunks + 2 + PAUSE, TOTAL - 2 - PAUSE);
        CHECK_FIGURES(manager, 0, CACHE);
    }
    finish(manager);
}

TEST(cache_goes_on_after_another_was_exhausted_while_it_was_empty) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
    zcp_chunk chunks[TOTAL + 1], mine[CACHE];
    for (int i = 0; i < CACHE; i++)
        mine[i] = allocate(manager, 64);
    CHECK_FIGURES(manager, CACHE, 0);
    give_all(chunks, take_all(peer, chunks, TOTAL));
    zcp_manager_close(peer);
    give_all(mine, CACHE);
    CHECK(!inside_releases_quickly(manager, 0));                   // which would not count the pause down
    use(manager, 1 + PAUSE - CACHE);
    CHECK_FIGURES(manager, 0, 0);
    use(manager, 1);
    CHECK_FIGURES(manager, 0, 1);
    CHECK(inside_releases_quickly(manager, 0));
    use(manager, CACHE);
    CHECK_FIGURES(manager, 0, CACHE);
    finish(manager);
}

// Threads that do nothing, of this process or another one: what they cache is had by whoever needs it, without their
// help, and they go on as if they had been asked for it.
TEST(cache_of_idle_threads_is_had_by_whoever_needs_it) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
    zcp_chunk chunks[TOTAL + 1];
    helper *cacher = helper_begin(act_simply);
    for (int round = 0; round < 3; round++) {
        tell(cacher, USE);
        use(peer, CACHE);                                          // this thread's own, as another client
        CHECK_FIGURES(manager, 0, round == 0 ? 2 * CACHE : CACHE); // which was wanted lately
        CHECK_EQ(take_all(manager, chunks, TOTAL), TOTAL);
        CHECK(strstr(zcp_last_message(), "cached") == NULL);
        CHECK_FIGURES(manager, TOTAL, 0);
        zcp_pool_stats stats = stats_of(peer);
        CHECK_EQ(stats.allocations - stats.releases, TOTAL);
        give_all(chunks, TOTAL);
        for (int i = 0; i <= PAUSE; i++)
            tell(cacher, PAIR);
        zcp_manager_close(manager);
        manager = attach();
    }
    zcp_manager_close(peer);
    tell(cacher, CLOSE);
    finish(manager);
}

// A thread that is about to take from its cache keeps it, however long it stands there; then it sees that it is wanted.
static struct {
    zcp_manager *manager;
    _Atomic uint32_t standing, go;
    zcp_chunk chunk;
} taker;

static void stand(void) {
    test_signal(&taker.standing);
    test_await(&taker.go, 1);
}

static void *take_and_stand(void *manager) {
    use(manager, 2 * CACHE);
    test_at_step("beginning", 1, TEST_CALL, stand);
    taker.chunk = allocate(manager, 64);
    return NULL;
}

static pthread_t begin_taking(zcp_manager *manager) {
    atomic_store(&taker.standing, 0);
    atomic_store(&taker.go, 0);
    pthread_t thread = test_thread(take_and_stand, manager);
    test_await(&taker.standing, 1);
    return thread;
}

TEST(cache_of_a_thread_that_is_about_to_take_from_it_stays) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
    zcp_chunk chunks[TOTAL + 1];
    pthread_t thread = begin_taking(manager);
    uint32_t n = take_all(peer, chunks, TOTAL);
    CHECK_EQ(n, TOTAL - CACHE);
    CHECK_FIGURES(peer, n, CACHE);
    test_signal(&taker.go);
    test_thread_join(thread);                                      // its end gives back what it still cached
    CHECK_FIGURES(peer, n + 1, 0);
    for (; n < TOTAL - 1; n++)
        chunks[n] = allocate(peer, 64);
    for (uint32_t i = 0; i < n; i++)
        CHECK(chunks[i].index != taker.chunk.index);
    give_all(chunks, n);
    zcp_chunk_release(&taker.chunk);
    zcp_manager_close(peer);
    finish(manager);
}

// The other way round: who takes from its cache stands before it does so, and it is the thread that goes on.
static void pair_of_the_cacher(void) {
    zcp_chunk first = allocate(taker.manager, 64), second = allocate(taker.manager, 64);
    pattern_write(&first, 1);
    pattern_write(&second, 2);
    pattern_check(&first, 1);
    zcp_chunk_release(&first);
    taker.chunk = second;
}

TEST(cache_of_a_thread_that_goes_on_while_somebody_takes_from_it) {
    static const char *const names[] = {"reclaiming", "freed"};
    for (int i = 0; i < 2; i++) {
        zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
        zcp_chunk chunks[TOTAL + 1];
        taker.manager = manager;
        use(manager, CACHE);
        for (uint32_t n = 0; n < TOTAL - CACHE; n++)
            chunks[n] = allocate(peer, 64);
        CHECK_FIGURES(peer, TOTAL - CACHE, CACHE);
        test_at_step(names[i], 1, TEST_CALL, pair_of_the_cacher);
        uint32_t n = TOTAL - CACHE + take_all(peer, chunks + TOTAL - CACHE, CACHE);
        test_steps_clear();
        CHECK_EQ(n, TOTAL - 1);
        CHECK_FIGURES(peer, TOTAL, 0);
        pattern_check(&taker.chunk, 2);
        for (uint32_t k = 0; k < n; k++)
            CHECK(chunks[k].index != taker.chunk.index);
        zcp_chunk_release(&taker.chunk);
        give_all(chunks, n);
        zcp_manager_close(peer);
        finish(manager);
    }
}

// Who cannot be told by a barrier that somebody takes from its cache has none.
TEST(cache_needs_membarrier) {
    zcp_manager *manager = create_cached(TOTAL, CACHE);
    int had = inside_set_barriers(-1);
    use(manager, 2 * CACHE);
    CHECK_FIGURES(manager, 0, 0);
    inside_set_barriers(had);
    finish(manager);
}

TEST(cache_is_named_in_the_message_of_exhaustion) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
    zcp_chunk chunks[TOTAL + 1];
    pthread_t thread = begin_taking(peer);
    uint32_t n = take_all(manager, chunks, TOTAL);
    CHECK_STR(zcp_last_message() + strlen(test_instance()),
              ": 64 bytes: all 100 chunks of 64 bytes are in use, or (8 of them) cached by a thread");
    test_signal(&taker.go);
    test_thread_join(thread);
    zcp_chunk_release(&taker.chunk);
    give_all(chunks, n);
    zcp_manager_close(peer);
    zcp_manager_close(manager);
    manager = attach();
    CHECK_EQ(take_all(manager, chunks, TOTAL), TOTAL);
    CHECK(strstr(zcp_last_message(), "cached") == NULL);
    give_all(chunks, TOTAL);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Ends: of a thread, of a client, of a process

typedef struct threads {
    zcp_manager *manager;
    _Atomic uint32_t ready, go;
} threads;

static void *cache_and_wait(void *argument) {
    threads *shared = argument;
    use(shared->manager, 2 * CACHE);
    test_signal(&shared->ready);
    test_await(&shared->go, 1);
    return NULL;
}

static void idle_and_end(bool needed) {
    enum { THREADS = 5 };
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
    threads shared = {.manager = manager};
    pthread_t all[THREADS];
    zcp_chunk chunks[TOTAL + 1];
    for (uint32_t i = 0; i < THREADS; i++) {
        all[i] = test_thread(cache_and_wait, &shared);
        test_await(&shared.ready, i + 1);
        CHECK_FIGURES(peer, 0, (i + 1) * CACHE);
    }
    uint32_t n = needed ? take_all(peer, chunks, TOTAL) : 0;
    CHECK_EQ(n, needed ? TOTAL : 0);
    test_signal(&shared.go);
    for (int i = 0; i < THREADS; i++)
        test_thread_join(all[i]);
    CHECK_FIGURES(peer, n, 0);
    CHECK_EQ(inside_hint_count(peer, 0), TOTAL - n);
    give_all(chunks, n);
    zcp_manager_close(peer);
    finish(manager);
}

TEST(cache_of_threads_that_idle_is_bounded_and_goes_with_them) {
    idle_and_end(false);
}

TEST(cache_of_threads_that_idle_and_end_after_it_was_taken) {
    idle_and_end(true);
}

TEST(cache_goes_with_close) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach(), *other = attach();
    zcp_chunk chunks[TOTAL + 1];
    use(peer, CACHE);
    use(other, CACHE);
    zcp_chunk held = allocate(other, 64);
    CHECK_FIGURES(manager, 1, 2 * CACHE - 1);
    zcp_manager_close(peer);
    CHECK_FIGURES(manager, 1, CACHE - 1);
    zcp_chunk_release(&held);
    zcp_manager_close(other);
    CHECK_FIGURES(manager, 0, 0);
    CHECK_EQ(inside_hint_count(manager, 0), TOTAL);
    CHECK_EQ(take_all(manager, chunks, TOTAL), TOTAL);
    give_all(chunks, TOTAL);
    finish(manager);
}

// A thread stands in the middle of its end, with half of its cache given back, and another one closes: close waits for
// it. Else the thread would go on with chunks that close has given to everybody, and somebody else holds by then.
static struct {
    _Atomic uint32_t ready, go, ending, closed;
    pthread_t thread;
    zcp_manager *peer;
    zcp_chunk chunks[TOTAL + 1];
} end;

static void wait_in_the_end(void) {
    test_signal(&end.ending);
    for (int i = 0; i < 200 && atomic_load(&end.closed) == 0; i++)
        test_sleep(1);                                             // in vain: close cannot end before this
}

static void *cache_and_end_slowly(void *manager) {
    use(manager, CACHE);
    test_at_step("freed", CACHE / 2, TEST_CALL, wait_in_the_end);
    return NULL;
}

TEST(cache_of_a_thread_in_the_middle_of_its_end_when_another_closes) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
    zcp_chunk chunks[TOTAL + 1];
    pthread_t thread = test_thread(cache_and_end_slowly, manager);
    test_await(&end.ending, 1);
    zcp_manager_close(manager);
    CHECK_FIGURES(peer, 0, 0);
    CHECK_EQ(take_all(peer, chunks, TOTAL), TOTAL);
    test_signal(&end.closed);
    test_thread_join(thread);
    CHECK_FIGURES(peer, TOTAL, 0);
    for (uint32_t i = 0; i < TOTAL; i++)
        CHECK(zcp_chunk_is_valid(&chunks[i]));
    give_all(chunks, TOTAL);
    finish(peer);
}

// The other way round: close has begun, and the thread that ends leaves everything to it.
static void *cache_and_end(void *manager) {
    use(manager, CACHE);
    test_signal(&end.ready);
    test_await(&end.go, 1);
    return NULL;
}

static void take_what_is_free_and_let_it_end(void) {
    zcp_pool_stats stats = stats_of(end.peer);
    for (uint64_t i = 0; i < stats.free; i++)
        end.chunks[i] = allocate(end.peer, 64);
    test_signal(&end.go);
    test_thread_join(end.thread);
}

TEST(cache_of_a_thread_that_ends_in_the_middle_of_a_close) {
    static const char *const names[] = {"closing", "sweeping", "swept"};
    for (int i = 0; i < 3; i++) {
        zcp_manager *manager = create_cached(TOTAL, CACHE), *peer = attach();
        zcp_chunk chunks[TOTAL + 1];
        end.peer = peer;
        atomic_store(&end.ready, 0);
        atomic_store(&end.go, 0);
        end.thread = test_thread(cache_and_end, manager);
        test_await(&end.ready, 1);
        test_at_step(names[i], 1, TEST_CALL, take_what_is_free_and_let_it_end);
        zcp_manager_close(manager);
        CHECK(atomic_load(&end.go) == 1);
        bool swept = i == 2;
        CHECK_FIGURES(peer, swept ? TOTAL : TOTAL - CACHE, 0);
        give_all(end.chunks, swept ? TOTAL : TOTAL - CACHE);
        zcp_manager_close(peer);
        peer = attach();
        CHECK_EQ(inside_hint_count(peer, 0), TOTAL);
        CHECK_EQ(inside_leases_held(peer, 0), 0);
        CHECK_EQ(take_all(peer, chunks, TOTAL), TOTAL);
        give_all(chunks, TOTAL);
        finish(peer);
    }
}

typedef struct script {
    int nth;
    const char *where;
} script;

#if !defined(TEST_TSAN)
static void *play_in_a_thread(void *manager) {
    use(manager, 5);
    return NULL;
}
#endif

static void play(void *argument) {
    script *told = argument;
    zcp_manager *manager = attach(), *peer = attach();
    test_at_step(told->where, told->nth, TEST_KILL, NULL);
    use(manager, 5);
    zcp_chunk marked = allocate(manager, 64), shared = allocate(manager, 64), more[8];
    uint64_t token = token_of(&marked);
    zcp_chunk borrowed = acquire(peer, token_of(&shared));
    zcp_chunk_release(&marked);
    zcp_chunk_release(&shared);
    zcp_chunk_release(&borrowed);
    CHECK_ACQUIRE_FAILS(peer, token, ZCP_ERR_STALE);
// which does not know that the kernel wipes the mutex in a child
#if !defined(TEST_TSAN)
    test_thread_join(test_thread(play_in_a_thread, manager));
#endif
    uint32_t n = 0;
    while (n < 8 && zcp_chunk_allocate(peer, 64, &more[n]) == ZCP_OK)
        n++;
    give_all(more, n);
    zcp_chunk again = allocate(manager, 64);
    zcp_chunk_release(&again);
    zcp_manager_close(manager);
    zcp_manager_close(peer);
    test_steps_clear();
}

TEST(cache_killed_at_each_step_loses_nothing) {
    enum { SMALL = 12 };
    zcp_manager *manager = create_cached(SMALL, 4);
    script *told = test_shared(sizeof *told);
    int kills = 0;
    zcp_chunk kept = allocate(manager, 64), chunks[SMALL + 1];
    for (told->nth = 1; test_join_killed(test_spawn(play, told)); told->nth++, kills++) {
        zcp_pool_stats before = stats_of(manager);
        zcp_recovery report = recover(manager);
        CHECK_EQ(report.chunks_reclaimed, before.used - 1 + before.cached);
        CHECK_FIGURES(manager, 1, 0);
        CHECK_EQ(inside_hint_count(manager, 0), SMALL - 1);
        CHECK_EQ(inside_leases_held(manager, 0), 1);
        CHECK_EQ(take_all(manager, chunks, SMALL), SMALL - 1);
        give_all(chunks, SMALL - 1);
        zcp_manager_close(manager);                                // so that nothing is cached here
        manager = attach();
        kept = allocate(manager, 64);
    }
    CHECK_MSG(kills > 50, "only %d steps", kills);
    zcp_chunk_release(&kept);
    finish(manager);
}

static void killed_at(void *argument) {
    const script *told = argument;
    zcp_manager *manager = attach();
    test_at_step(told->where, told->nth, TEST_KILL, NULL);
    use(manager, CACHE);
    use(manager, CACHE + 1);
}

TEST(cache_killed_at_each_named_step) {
    static const struct { const char *where; int nth; uint64_t used, cached;
    } cases[] = {{"unowned", 1, CACHE, 0},    {"cached", 1, CACHE - 1, 1},   {"unowned", CACHE, 1, CACHE - 1},
                 {"cached", CACHE, 0, CACHE}, {"uncached", 1, 1, CACHE - 1}, {"uncached", CACHE, CACHE, 0},
                 {"freed", 1, 0, CACHE}};
    zcp_manager *manager = create_cached(TOTAL, CACHE);
    script *told = test_shared(sizeof *told);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        *told = (script){cases[i].nth, cases[i].where};
        test_join_signal(test_spawn(killed_at, told), SIGKILL);
        CHECK_FIGURES(manager, cases[i].used, cases[i].cached);
        CHECK_RECOVERS(manager, 1, cases[i].used + cases[i].cached);
        CHECK_FIGURES(manager, 0, 0);
        CHECK_EQ(inside_hint_count(manager, 0), TOTAL);
    }
    finish(manager);
}

static void look_in_a_child(void *inherited) {
    zcp_chunk chunk;
    CHECK_STATUS(zcp_chunk_allocate(inherited, 64, &chunk), ZCP_ERR_FORKED);
    zcp_manager_close(inherited);
    zcp_manager *manager = attach();
    zcp_chunk chunks[TOTAL + 1];
    CHECK_FIGURES(manager, 0, CACHE);
    for (uint32_t n = 0; n < TOTAL - CACHE; n++)
        chunks[n] = allocate(manager, 64);
    CHECK_FIGURES(manager, TOTAL - CACHE, CACHE);
    give_all(chunks, TOTAL - CACHE);
    zcp_manager_close(manager);
}

TEST(cache_stays_the_parent_s_through_a_fork) {
    zcp_manager *manager = create_cached(TOTAL, CACHE);
    zcp_chunk chunks[CACHE];
    use(manager, CACHE);
    test_join(test_spawn(look_in_a_child, manager));
    CHECK_FIGURES(manager, 0, CACHE);
    for (int i = 0; i < CACHE; i++)
        chunks[i] = allocate(manager, 64);
    CHECK_FIGURES(manager, CACHE, 0);
    give_all(chunks, CACHE);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// What leads to a cached chunk: nothing

static void check_leads_nowhere(zcp_manager *manager, zcp_manager *peer, const zcp_chunk *stale, uint64_t token) {
    uint64_t word = inside_state_word(manager, 0, inside_index_in_pool(stale));
    zcp_pool_stats before = stats_of(manager), after;
    zcp_chunk copy = *stale, clone = zcp_chunk_clone(&copy);
    CHECK(is_empty(&clone));
    CHECK(!zcp_chunk_is_valid(&copy) && zcp_chunk_data(&copy) == NULL && zcp_chunk_token(&copy) == 0);
    CHECK(zcp_chunk_size(&copy) == 0 && zcp_chunk_capacity(&copy) == 0 && zcp_chunk_use_count(&copy) == 0);
    if (token != 0)
        CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_STALE);
    if (token != 0)
        CHECK_ACQUIRE_FAILS(peer, token, ZCP_ERR_STALE);
    zcp_chunk_release(&copy);                                      // refused, and told in the log
    CHECK(is_empty(&copy));
    CHECK_EQ(inside_state_word(manager, 0, inside_index_in_pool(stale)), word);
    CHECK_EQ(inside_borrow_word(manager, 0, inside_index_in_pool(stale), 0), 0);
    after = stats_of(manager);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
}

static void stale_and_cached(uint32_t flags) {
    zcp_config config = cached_pool(1, 1);
    zcp_manager *manager = create_named(test_instance(), &config, flags), *peer = attach_named(test_instance(), flags);
    zcp_log_set_level(ZCP_LOG_OFF);
    for (int marks = 0; marks < 4; marks++) {
        zcp_chunk chunk = allocate(manager, 64), stale = chunk, other = {0};
        uint64_t token = marks ? token_of(&chunk) : 0;
        if (marks == 2)
            other = acquire(peer, token);
        if (marks == 3)
            other = acquire(manager, token);
        zcp_chunk_release(&other);
        uint64_t made_up = (uint64_t)(stale.generation + 1) << 32 | stale.index;
        zcp_chunk next = stale;
        next.generation++;
        zcp_chunk_release(&chunk);
        // the last handle counted as a borrower's: that frees for all
        CHECK_FIGURES(manager, 0, marks == 3 ? 0 : 1);
        check_leads_nowhere(manager, peer, &stale, (uint64_t)stale.generation << 32 | stale.index);
        check_leads_nowhere(manager, peer, &next, made_up);        // not even the generation that it has now
        check_leads_nowhere(peer, manager, &(zcp_chunk){peer, NULL, next.index, next.generation}, made_up);
        chunk = allocate(manager, 64);                             // out of the cache
        CHECK_EQ(chunk.generation, stale.generation + 1);
        pattern_write(&chunk, 7);
        check_leads_nowhere(manager, peer, &stale, (uint64_t)stale.generation << 32 | stale.index);
        CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
        pattern_check(&chunk, 7);
        zcp_chunk_release(&chunk);
        CHECK_FIGURES(manager, 0, 1);
        check_leads_nowhere(manager, peer, &stale, (uint64_t)stale.generation << 32 | stale.index);
    }
    zcp_manager_close(peer);
    finish(manager);
}

TEST(cache_is_led_to_by_no_stale_token_or_handle) {
    stale_and_cached(0);
}

TEST(cache_is_led_to_by_no_stale_token_or_handle_if_checked) {
    stale_and_cached(ZCP_CHECKED);
}

// A borrower is there when the owner lets go: not cached but freed by the last one, and for all.
TEST(cache_has_no_chunk_that_somebody_borrows) {
    for (int own = 0; own < 2; own++) {
        zcp_manager *manager = create_cached(2, 2), *peer = attach();
        zcp_chunk chunk = allocate(manager, 64), seen = acquire(own ? manager : peer, token_of(&chunk));
        pattern_write(&chunk, 3);
        zcp_chunk_release(&chunk);
        CHECK_FIGURES(manager, 1, 0);
        zcp_chunk rest = allocate(manager, 64);
        CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
        pattern_check(&seen, 3);
        zcp_chunk_release(&seen);
        CHECK_FIGURES(peer, 1, 0);
        seen = allocate(peer, 64);
        zcp_chunk_release(&seen);
        zcp_chunk_release(&rest);
        zcp_manager_close(peer);
        finish(manager);
    }
}

// At the end of their range generations go on with 1, on the quick ways too.
TEST(cache_and_loan_at_the_last_generation) {
    for (uint32_t cache = 0; cache < 2; cache++)
        for (uint32_t flags = 0; flags <= ZCP_CHECKED; flags += ZCP_CHECKED)
            for (int marked = 0; marked < 2; marked++) {
                zcp_config config = cached_pool(1, cache);
                zcp_manager *manager = create_named(test_instance(), &config, flags);
                zcp_log_set_level(ZCP_LOG_OFF);
                for (uint32_t first = UINT32_MAX - 2; first != 0; first++) {
                    inside_set_state_word(manager, 0, 0, (uint64_t)first << 32);
                    for (uint32_t i = 0, expected = first; i < 5;
                         i++, expected = expected == UINT32_MAX ? 1 : expected + 1) {
                        zcp_chunk chunk = allocate(manager, 64), stale = chunk;
                        CHECK_EQ(chunk.generation, expected);
                        uint64_t token = marked ? token_of(&chunk) : 0;
                        pattern_write(&chunk, i);
                        zcp_chunk_release(&chunk);
                        CHECK_FIGURES(manager, 0, cache);
                        CHECK_EQ(inside_state_word(manager, 0, 0) >> 32, expected == UINT32_MAX ? 1 : expected + 1);
                        zcp_chunk_release(&stale);
                        if (token)
                            CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_STALE);
                        CHECK_FIGURES(manager, 0, cache);
                    }
                    zcp_manager_close(manager);
                    manager = attach_named(test_instance(), flags);
                }
                finish(manager);
            }
}

// ---------------------------------------------------------------------------------------------------------------------
// What it costs: a child allocates and releases, and its parent steps it through every instruction.

enum { WARM = 200, PAIRS = 6, HELD = 4 };

#if defined(__x86_64__) && !defined(TEST_ASAN) && !defined(TEST_TSAN)
typedef struct cost {
    uint32_t cache, held;                                          // chunks that are held at a time
    _Atomic uint32_t counting, done;
    uint64_t instructions, locked, calls;
} cost;

static void work_by_steps(void *argument) {
    cost *self = argument;
    zcp_manager *manager = attach();
    zcp_chunk chunks[HELD];
    for (uint32_t round = 0; round < WARM + PAIRS; round++) {
        if (round == WARM) {
            CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
            raise(SIGSTOP);
            atomic_store(&self->counting, 1);
        }
        for (uint32_t i = 0; i < self->held; i++)
            if (zcp_chunk_allocate(manager, 64, &chunks[i]) != ZCP_OK)
                _exit(5);
        for (uint32_t i = 0; i < self->held; i++)
            zcp_chunk_release(&chunks[i]);
    }
    atomic_store(&self->counting, 0);
    atomic_store(&self->done, 1);
    zcp_manager_close(manager);
}

static bool is_locked(const unsigned char *code) {
    static const unsigned char prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x3e, 0x64, 0x65, 0x26, 0x36};
    bool locked = false;
    for (; *code == 0xf0 || memchr(prefixes, *code, sizeof prefixes) != NULL; code++)
        locked = locked || *code == 0xf0;
    if ((*code & 0xf0) == 0x40)
        code++;                                                    // REX
    return locked || ((code[0] == 0x86 || code[0] == 0x87) && code[1] < 0xc0);     // an exchange with memory
}

static bool may_trace(void) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        raise(SIGSTOP);
        _exit(0);
    }
    bool may = waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0
               && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status);
    if (may) {
        test_kill(pid);
        return true;
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return false;
}

static void count_steps(cost *self) {
    int status;
    pid_t pid = test_spawn(work_by_steps, self);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    while (WIFSTOPPED(status) && !atomic_load(&self->done)) {
        if (atomic_load(&self->counting)) {                        // forked from here: its code is at the same place
            const unsigned char *code =
                (const unsigned char *)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), NULL);
            self->instructions++;
            self->locked += is_locked(code);
            self->calls += code[0] == 0x0f && code[1] == 0x05;     // syscall
        }
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid);
    }
    CHECK(WIFSTOPPED(status) && ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
    test_join(pid);
}

static void check_cost(uint32_t cache, uint32_t held, uint64_t locked) {
    zcp_manager *manager = create_cached(TOTAL, cache);
    cost *self = test_shared(sizeof *self);
    if (!may_trace())
        test_skip("no process may be single-stepped here");
    self->cache = cache, self->held = held;
    count_steps(self);
    uint64_t pairs = (uint64_t)PAIRS * held;
    test_note("cache %u, %u held: %llu instructions for each pair", cache, held,
              (unsigned long long)(self->instructions / pairs));
    CHECK_EQ(self->locked, locked * pairs + 1);                    // and the store that ends the counting
    CHECK_EQ(self->calls, 0);
    CHECK(self->instructions > 20 * pairs);
    finish(manager);
}
#else
static void check_cost(uint32_t cache, uint32_t held, uint64_t locked) {
    (void)cache, (void)held, (void)locked;
    test_skip("locked instructions are counted on x86-64, and without a sanitizer");
}
#endif

TEST(cache_costs_no_locked_instruction) {
    check_cost(CACHE, 1, 0);
    check_cost(CACHE, HELD, 0);
}

TEST(lease_costs_one_locked_instruction) {
    check_cost(0, 1, 1);
    check_cost(0, HELD, 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Configuration

TEST(cache_larger_than_may_be_is_refused) {
    zcp_config config = {0}, before;
    zcp_manager *manager;
    zcp_pool_config pool = {.chunk_size = 64, .chunk_count = TOTAL, .cache_chunks = 64};
    CHECK_OK(zcp_config_add(&config, &pool));
    before = config;
    for (uint32_t cache = 65; cache != 0; cache = cache < 67 ? cache + 1 : cache == 67 ? UINT32_MAX : 0) {
        pool.cache_chunks = cache;
        CHECK_STATUS(zcp_config_add(&config, &pool), ZCP_ERR_INVALID_SIZE);
        CHECK(memcmp(&config, &before, sizeof config) == 0);
        zcp_config wrong = config;
        wrong.pools.items[0].cache_chunks = cache;
        CHECK_STATUS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &wrong}),
                     ZCP_ERR_INVALID_SIZE);
        CHECK(manager == NULL && zcp_config_total_bytes(&wrong, 0) == 0);
    }
    manager = create_named(test_instance(), &config, 0);
    use(manager, 80);
    CHECK_FIGURES(manager, 0, 64);
    finish(manager);
}

TEST(cache_of_another_size_is_a_mismatch) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *other;
    for (uint32_t cache = CACHE - 1; cache <= CACHE + 1; cache++) {
        zcp_config config = cached_pool(TOTAL, cache);
        CHECK_STATUS(zcp_manager_open(&other, &(zcp_manager_desc){.name = test_instance(), .config = &config}),
                     cache == CACHE ? ZCP_OK : ZCP_ERR_CONFIG_MISMATCH);
        CHECK(cache == CACHE || strstr(zcp_last_message(), "cache") != NULL);
        zcp_manager_close(other);
    }
    finish(manager);
}

// A client that only reads takes part with tokens, and caches nothing.
TEST(cache_beside_a_client_that_only_reads) {
    zcp_manager *manager = create_cached(TOTAL, CACHE), *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA);
    use(manager, CACHE);
    CHECK_ALLOCATE_FAILS(reader, 64, ZCP_ERR_READ_ONLY);
    for (int reader_last = 0; reader_last < 2; reader_last++) {
        uint64_t token;
        zcp_chunk chunk = allocate_with_pattern(manager, 64, &token), seen = acquire(reader, token);
        CHECK_FIGURES(reader, 1, CACHE - 1);
        pattern_check(&seen, token);
        zcp_chunk_release(reader_last ? &chunk : &seen);
        CHECK_FIGURES(reader, 1, CACHE - 1);
        zcp_chunk_release(reader_last ? &seen : &chunk);
        CHECK_FIGURES(reader, 0, reader_last ? CACHE - 1 : CACHE);
        use(manager, CACHE);
        CHECK_FIGURES(reader, 0, CACHE);
    }
    zcp_manager_close(reader);
    finish(manager);
}

// Each release in that pool is one that gives back what its thread has cached, also one that frees nothing.
TEST(cache_is_given_back_at_the_release_of_one_of_several_handles) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 8, .cache_chunks = 4}));
    zcp_manager *manager = create_named(test_instance(), &config, 0), *peer = attach();
    zcp_chunk held = allocate(manager, 64), cached = allocate(manager, 64), copy = zcp_chunk_clone(&held);
    zcp_pool_stats stats;
    zcp_chunk_release(&cached);
    inside_want(peer, 0);
    CHECK_OK(zcp_manager_pool_stats(peer, 0, &stats));
    CHECK_EQ(stats.cached, 1);
    zcp_chunk_release(&copy);
    CHECK(zcp_chunk_is_valid(&held));
    CHECK_OK(zcp_manager_pool_stats(peer, 0, &stats));
    CHECK_EQ(stats.cached, 0);
    CHECK_EQ(stats.free, 7);
    zcp_chunk_release(&held);
    zcp_manager_close(peer);
    finish(manager);
}

// Once a token was made, somebody may acquire between the last look and a store that frees: so no such store is come
// to, into the cache, to a loan or to the list.
static uint32_t stores;

static void count_store(void) {
    stores++;
}

TEST(cache_takes_nothing_by_a_store_after_a_token) {
    for (uint32_t cache = 0; cache <= CACHE; cache += CACHE)
        for (int marked = 0; marked < 2; marked++) {
            // more than one leaf, so both the loan and the list take some back
            enum { SEVERAL = 40 };
            zcp_chunk chunks[SEVERAL];
            zcp_manager *manager = create_cached(TOTAL, cache);
            for (int i = 0; i < SEVERAL; i++) {
                chunks[i] = allocate(manager, 64);
                if (marked)
                    CHECK(zcp_chunk_token(&chunks[i]) != 0);
            }
            for (int i = 0; i < SEVERAL; i++) {
                stores = 0;
                test_at_step("unowned", 1, TEST_CALL, count_store);
                zcp_chunk_release(&chunks[i]);
                test_steps_clear();
                CHECK_EQ(stores, !marked);
            }
            finish(manager);
        }
}
