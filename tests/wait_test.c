// tests/wait_test.c: who waits for a chunk gets the next one, whoever frees it and however; nobody else pays for that.
#include "harness/pools.h"

#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { SIZE = 64, LONG_MS = 30000 };
#define MS UINT64_C(1000000)

static uint64_t waits_of(zcp_manager *manager) {
    uint64_t sum = 0;
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++)
        sum += pool_stats(manager, p).waits;
    return sum;
}

// Until so many waits have come to the point where they sleep.
static void await_sleepers(zcp_manager *manager, uint64_t waits) {
    for (int i = 0; waits_of(manager) < waits; i++) {
        CHECK_MSG(i < 20000, "%llu wait, %llu should", (unsigned long long)waits_of(manager),
                  (unsigned long long)waits);
        test_sleep(1);
    }
    test_sleep(2);
}

// ---------------------------------------------------------------------------------------------------------------------
// Whoever frees a chunk wakes

typedef enum { QUICK, CHECKED, MARKED, CACHING, CACHED_ELSEWHERE, BORROWER_LAST, NO_NUMBER, LARGER_POOL, EQUAL_POOL,
               CLOSING, KILLED_AND_RECOVERED, KILLED, KILLED_BORROWER, KINDS } kind;

static const char *const kinds[] = {"quick", "checked", "marked", "caching", "cached elsewhere", "borrower last",
                                    "thread without a number", "larger pool",
                                    "equal pool", "closing", "killed and recovered", "killed", "killed borrower"};

typedef struct crowd { zcp_manager *manager; zcp_chunk chunk; _Atomic uint32_t parked, go; uint64_t released; } crowd;

static void *park(void *argument) {
    crowd *self = argument;
    zcp_chunk none;
    CHECK_STATUS(zcp_chunk_allocate(self->manager, SIZE, &none), ZCP_ERR_EXHAUSTED);
    test_signal(&self->parked);
    test_await(&self->go, 1);
    return NULL;
}

static void *release_without_a_number(void *argument) {
    crowd *self = argument;
    zcp_chunk none;
    CHECK_STATUS(zcp_chunk_allocate(self->manager, SIZE, &none), ZCP_ERR_EXHAUSTED);
    CHECK_EQ(inside_thread_number(), 0);
    self->released = test_now();
    zcp_chunk_release(&self->chunk);
    return NULL;
}

// Returns how long it took until the waiter was done; the crowd's own end is not in it.
static uint64_t release_in_a_crowd(zcp_manager *manager, zcp_chunk chunk, peer *waiter, uint32_t done) {
    enum { MANY = 63 };
    pthread_t threads[MANY];
    crowd self = {.manager = manager, .chunk = chunk};
    for (int i = 0; i < MANY; i++)
        threads[i] = test_thread(park, &self);
    test_await(&self.parked, MANY);
    test_thread_join(test_thread(release_without_a_number, &self));
    test_await(&waiter->done, done);
    uint64_t took = test_now() - self.released;
    test_signal(&self.go);
    for (int i = 0; i < MANY; i++)
        test_thread_join(threads[i]);
    return took;
}

// Nanoseconds from the release until the waiter has the chunk.
static uint64_t wake_by(kind how) {
    zcp_config config = {0};
    bool caches = how == CACHING || how == CACHED_ELSEWHERE;
    CHECK_OK(zcp_config_add(&config,
                            &(zcp_pool_config){.chunk_size = SIZE, .chunk_count = 1, .cache_chunks = caches ? 2 : 0}));
    if (how == LARGER_POOL || how == EQUAL_POOL)
        CHECK_OK(zcp_config_add_pool(&config, how == LARGER_POOL ? 4096 : SIZE, 1));
    zcp_manager *manager = create_named(test_instance(), &config, how == CHECKED ? ZCP_CHECKED : 0), *look = attach();
    zcp_chunk chunk = {0}, seen = {0}, best = {0};
    peer *waiter = peer_begin(how == LARGER_POOL ? ZCP_FALLBACK : 0), *holder = NULL;
    if (how == LARGER_POOL || how == EQUAL_POOL)
        best = allocate(manager, SIZE);                            // stays in use
    if (how == CLOSING || how >= KILLED_AND_RECOVERED || how == CACHED_ELSEWHERE) {
        holder = peer_begin(0);
        TELL_OK(holder, how == CACHED_ELSEWHERE ? PEER_PAIR : PEER_ALLOCATE, SIZE, 0);
    } else {
        chunk = allocate(manager, how == LARGER_POOL ? 4096 : SIZE);
        if (how == MARKED || how == BORROWER_LAST)
            seen = acquire(look, token_of(&chunk));
        zcp_chunk_release(how == MARKED ? &seen : how == BORROWER_LAST ? &chunk : NULL);
    }
    if (how == KILLED_BORROWER) {
        peer *owner = holder;
        holder = peer_begin(0);
        TELL_OK(holder, PEER_ACQUIRE, owner->token, 0);
        peer_end(owner);
    }
    uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, LONG_MS);
    if (how != CACHED_ELSEWHERE)                                   // by an idle thread: the waiter has it at once
        await_sleepers(look, 1);
    uint64_t released = test_now(), took = 0;
    switch (how) {
    case NO_NUMBER: took = release_in_a_crowd(manager, chunk, waiter, done); break;
    case BORROWER_LAST: zcp_chunk_release(&seen); break;
    case CACHED_ELSEWHERE: break;
    case CLOSING: peer_end(holder); break;
    case KILLED_AND_RECOVERED:
    case KILLED:
    case KILLED_BORROWER:
        test_kill(holder->pid);
        released = test_now();
        if (how == KILLED_AND_RECOVERED)
            CHECK_OK(zcp_manager_recover(look, NULL));
        break;
    default: zcp_chunk_release(&chunk);
    }
    test_await(&waiter->done, done);
    if (how != NO_NUMBER)
        took = test_now() - released;
    CHECK_MSG(waiter->status == ZCP_OK, "%s: %s", kinds[how], waiter->message);
    CHECK_EQ(used(look), best.manager != NULL ? 2 : 1);
    zcp_chunk_release(&best);
    if (how == CACHED_ELSEWHERE)
        peer_end(holder);
    peer_end(waiter);
    zcp_manager_close(look);
    finish(manager);
    return took;
}

// At once; if nobody recovers the killed one, when the sleeper looks again, each 0.1 s. The best of some tries, because
// the machine may be busy.
TEST(wait_is_ended_by_each_kind_of_release) {
    for (int how = 0; how < KINDS; how++) {
        uint64_t best = UINT64_MAX;
        bool by_itself = how == KILLED || how == KILLED_BORROWER;
        for (int i = 0; i < 100 && best > (by_itself ? 150 : 50) * MS; i++) {
            uint64_t took = wake_by((kind)how);
            CHECK_MSG(took < 10000 * MS, "%s: %llu ms", kinds[how], (unsigned long long)(took / MS));
            best = took < best ? took : best;
        }
        CHECK_MSG(best <= (by_itself ? 150 : 50) * MS, "%s: %llu ms at best", kinds[how],
                  (unsigned long long)(best / MS));
    }
}

TEST(wait_of_several_is_ended_one_by_one) {
    enum { WAITERS = 4 };
    zcp_manager *manager = create(SIZE, WAITERS);
    zcp_chunk chunks[WAITERS];
    peer *waiters[WAITERS];
    uint32_t done[WAITERS];
    for (int round = 0; round < 3; round++) {
        uint64_t slept = waits_of(manager), best = UINT64_MAX;
        for (int i = 0; i < WAITERS; i++) {
            chunks[i] = allocate(manager, SIZE);
            if (round == 0)
                waiters[i] = peer_begin(i % 2 ? ZCP_CHECKED : 0);
        }
        for (int i = 0; i < WAITERS; i++)
            done[i] = tell_to_begin(waiters[i], PEER_WAIT, SIZE, LONG_MS);
        await_sleepers(manager, slept + WAITERS);
        for (int i = 0; i < WAITERS; i++) {
            uint64_t began = test_now();
            zcp_chunk_release(&chunks[i]);
            for (int ended = 0; ended <= i;) {
                ended = 0;
                for (int w = 0; w < WAITERS; w++)
                    ended += atomic_load(&waiters[w]->done) == done[w];
                CHECK(ended <= i + 1);
                CHECK(test_now() - began < 10000 * MS);
                if (ended <= i)
                    test_sleep(1);
            }
            best = test_now() - began < best ? test_now() - began : best;
        }
        CHECK_MSG(best < 50 * MS, "%llu ms at best", (unsigned long long)(best / MS));
        for (int i = 0; i < WAITERS; i++) {
            CHECK_MSG(waiters[i]->status == ZCP_OK, "%s", waiters[i]->message);
            TELL_OK(waiters[i], PEER_RELEASE, 0, 0);
            waiters[i]->count = 0;
        }
    }
    for (int i = 0; i < WAITERS; i++)
        peer_end(waiters[i]);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// No wake-up is lost. A chunk goes to and fro; who has given it away takes no part until the other one has it. Who is
// not woken sleeps for 0.1 s, which shows; a busy machine may be as slow now and then.

enum { SLOW_MS = 90, BUCKETS = 64 };

typedef struct relay {
    uint32_t flags;
    int rounds;
    _Atomic uint32_t ready, turns, slow;
    _Atomic uint32_t times[BUCKETS];                               // how many waits took 2^b ns
    _Atomic uint64_t holder;
} relay;

typedef struct runner { relay *relay; uint32_t me; bool marks; } runner;

static void note_time(relay *self, uint64_t took) {
    int bucket = 0;
    CHECK_MSG(took < 20000 * MS, "%llu ms", (unsigned long long)(took / MS));
    while (took >> bucket > 1)
        bucket++;
    atomic_fetch_add(&self->times[bucket], 1);
    if (took > SLOW_MS * MS)
        atomic_fetch_add(&self->slow, 1);
}

static uint64_t median_time(relay *self, uint32_t of) {
    uint32_t sum = 0;
    for (int b = 0; b < BUCKETS; b++)
        if ((sum += atomic_load(&self->times[b])) * 2 >= of)
            return UINT64_C(2) << b;
    return UINT64_MAX;
}

static void run_relay(void *argument) {
    runner *self = argument;
    relay *all = self->relay;
    zcp_manager *manager = attach_named(test_instance(), all->flags);
    test_meet(&all->ready, 2);
    for (uint32_t turn = self->me; turn < (uint32_t)all->rounds; turn += 2) {
        zcp_chunk chunk;
        test_await(&all->turns, turn);                             // the other one has it
        uint64_t began = test_now();
        CHECK_OK(zcp_chunk_allocate_wait(manager, SIZE, LONG_MS, &chunk));
        note_time(all, test_now() - began);
        CHECK_EQ(atomic_exchange(&all->holder, self->me + 1), 0);
        pattern_write(&chunk, turn);
        if (self->marks)
            token_of(&chunk);
        test_signal(&all->turns);
        for (uint64_t until = test_now() + test_random_below(UINT64_C(1) << (10 + test_random_below(9)));
             test_now() < until;) {
            // up to 0.26 ms: the other one is anywhere between its look and its sleep
        }
        pattern_check(&chunk, turn);
        atomic_store(&all->holder, 0);
        zcp_chunk_release(&chunk);
    }
    test_meet(&all->ready, 2);
    zcp_manager_close(manager);
}

static void run_relay_by_two(zcp_manager *manager, uint32_t flags, bool marks) {
    relay *all = test_shared(sizeof *all);
    all->flags = flags;
    all->rounds = ROUNDS(8000);
    pid_t pids[2];
    for (uint32_t i = 0; i < 2; i++) {
        runner *self = test_shared(sizeof *self);
        *self = (runner){all, i, marks};
        pids[i] = test_spawn(run_relay, self);
    }
    for (int i = 0; i < 2; i++)
        test_join(pids[i]);
    CHECK_EQ(all->turns, all->rounds);
    test_note("%u of %d waits took more than %d ms, half of them less than %llu us, %llu slept", all->slow, all->rounds,
              SLOW_MS, (unsigned long long)(median_time(all, (uint32_t)all->rounds) / 1000),
              (unsigned long long)waits_of(manager));
    CHECK(median_time(all, (uint32_t)all->rounds) < 10 * MS);
    CHECK_MSG(all->slow <= 3 + (uint32_t)all->rounds / 1000, "%u waits took more than %d ms", all->slow, SLOW_MS);
}

// Where one of the two hardly ever runs beside the other, few of them sleep: then once more.
static void relay_by_two(uint32_t flags, uint32_t cache_chunks, bool marks) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config,
                            &(zcp_pool_config){.chunk_size = SIZE, .chunk_count = 1, .cache_chunks = cache_chunks}));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    for (int i = 0; i < 30 && waits_of(manager) < 20; i++)
        run_relay_by_two(manager, flags, marks);
    CHECK(waits_of(manager) >= 20);
    finish(manager);
}

TEST(wait_loses_no_wake_up) { relay_by_two(0, 0, false); }
TEST(wait_loses_no_wake_up_of_chunks_with_tokens) { relay_by_two(0, 0, true); }
TEST(wait_loses_no_wake_up_if_checked) { relay_by_two(ZCP_CHECKED, 0, false); }

// A caching thread gives back what it has cached with its next call only: here it makes one.
TEST(wait_loses_no_wake_up_beside_caches) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = SIZE, .chunk_count = 4, .cache_chunks = 4}));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    peer *waiter = peer_begin(0);
    uint32_t slow = 0;
    int rounds = ROUNDS(3000);
    for (int round = 0; round < rounds; round++) {
        zcp_chunk chunks[4];
        for (int i = 0; i < 4; i++)
            chunks[i] = allocate_in_the_end(manager, SIZE);
        uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, LONG_MS);
        for (uint64_t until = test_now() + test_random_below(60000); test_now() < until;) {
        }
        uint64_t began = test_now();
        zcp_chunk_release(&chunks[0]);
        zcp_chunk_release(&chunks[1]);
        zcp_chunk_release(&chunks[2]);
        // if all were cached before it could be known that somebody waits
        for (int i = 0; atomic_load(&waiter->done) != done; i++) {
            if (i > 1000)
                test_sleep(1);
            if (i > 1000 && zcp_chunk_allocate(manager, SIZE, &chunks[0]) == ZCP_OK)
                zcp_chunk_release(&chunks[0]);
        }
        slow += test_now() - began > SLOW_MS * MS;
        CHECK_MSG(waiter->status == ZCP_OK, "%s", waiter->message);
        TELL_OK(waiter, PEER_RELEASE, 0, 0);
        waiter->count = 0;
        zcp_chunk_release(&chunks[3]);
    }
    CHECK_MSG(slow <= 3 + (uint32_t)rounds / 1000, "%u waits took more than %d ms", slow, SLOW_MS);
    peer_end(waiter);
    finish(manager);
}

// Several wait for one chunk: whoever frees it wakes one at least. Between two that have it there is never a pause as
// long as a sleep.
typedef struct queue { _Atomic uint32_t ready, taken, slow; _Atomic uint64_t freed, holder; uint32_t rounds; } queue;

static void take_turns(void *argument) {
    queue *all = argument;
    zcp_manager *manager = attach();
    test_meet(&all->ready, 4);
    while (atomic_load(&all->taken) < all->rounds) {
        zcp_chunk chunk;
        CHECK_OK(zcp_chunk_allocate_wait(manager, SIZE, LONG_MS, &chunk));
        uint64_t pause = test_now() - atomic_load(&all->freed);
        if (pause > SLOW_MS * MS && atomic_load(&all->taken) > 0)
            atomic_fetch_add(&all->slow, 1);
        CHECK_EQ(atomic_exchange(&all->holder, 1), 0);
        pattern_write(&chunk, pause);
        for (uint64_t until = test_now() + test_random_below(20000); test_now() < until;) {
        }
        pattern_check(&chunk, pause);
        atomic_fetch_add(&all->taken, 1);
        atomic_store(&all->holder, 0);
        atomic_store(&all->freed, test_now());
        zcp_chunk_release(&chunk);
        if (test_random_below(4) == 0)
            sched_yield();
    }
    zcp_manager_close(manager);
}

TEST(wait_of_several_loses_no_wake_up) {
    zcp_manager *manager = create(SIZE, 1);
    queue *all = test_shared(sizeof *all);
    pid_t pids[4];
    all->rounds = (uint32_t)ROUNDS(20000);
    for (int i = 0; i < 4; i++)
        pids[i] = test_spawn(take_turns, all);
    for (int i = 0; i < 4; i++)
        test_join(pids[i]);
    test_note("%u of %u pauses took more than %d ms", all->slow, all->rounds, SLOW_MS);
    CHECK_MSG(all->slow <= 3 + all->rounds / 1000, "%u pauses took more than %d ms", all->slow, SLOW_MS);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// How long

TEST(wait_ends_when_its_time_is_over) {
    zcp_manager *manager = create(SIZE, 1);
    zcp_chunk chunk = allocate(manager, SIZE), none;
    static const uint32_t times[] = {1, 10, 60, 100, 130, 250};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        uint64_t best = UINT64_MAX;
        for (int try = 0; try < 10 && best > (times[i] + 40) * MS; try++) {
            uint64_t began = test_now();
            none = scribbled();
            CHECK_STATUS(zcp_chunk_allocate_wait(manager, SIZE, times[i], &none), ZCP_ERR_TIMEOUT);
            uint64_t took = test_now() - began;
            CHECK(is_empty(&none));
            CHECK_MSG(took >= times[i] * MS && took < (times[i] + 5000) * MS, "%u ms: %llu us", times[i],
                      (unsigned long long)(took / 1000));
            best = took < best ? took : best;
        }
        CHECK_MSG(best <= (times[i] + 40) * MS, "%u ms: %llu ms at best", times[i], (unsigned long long)(best / MS));
        CHECK(strstr(zcp_last_message(), "64 bytes") != NULL);
    }
    uint64_t slept = waits_of(manager), began = test_now();
    for (int i = 0; i < 100; i++) {
        none = scribbled();
        CHECK_STATUS(zcp_chunk_allocate_wait(manager, SIZE, 0, &none), ZCP_ERR_EXHAUSTED);
        CHECK(is_empty(&none));
    }
    CHECK(test_now() - began < 2000 * MS);
    CHECK_EQ(waits_of(manager), slept);
    peer *waiter = peer_begin(0);
    uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, UINT32_MAX);
    await_sleepers(manager, slept + 1);
    test_sleep(320);                                               // longer than some of its sleeps
    CHECK(atomic_load(&waiter->done) != done);
    zcp_chunk_release(&chunk);
    test_await(&waiter->done, done);
    CHECK_MSG(waiter->status == ZCP_OK, "%s", waiter->message);
    peer_end(waiter);
    began = test_now();
    CHECK_OK(zcp_chunk_allocate_wait(manager, SIZE, LONG_MS, &chunk));        // one is there: no wait
    CHECK_EQ(waits_of(manager), slept + 1);
    pattern_write(&chunk, 1);
    zcp_chunk_release(&chunk);
    finish(manager);
}

TEST(wait_for_what_will_never_be_is_refused_at_once) {
    zcp_manager *manager = create(SIZE, 1), *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA),
                *observer = attach_named(test_instance(), ZCP_OBSERVE), *closed = attach();
    zcp_chunk held = allocate(manager, SIZE);
    zcp_manager_close(closed);
    const struct { zcp_manager *manager; uint64_t size; zcp_status status;
    } cases[] = {{manager, SIZE + 1, ZCP_ERR_TOO_LARGE}, {manager, UINT64_MAX, ZCP_ERR_TOO_LARGE},
                 {manager, 0, ZCP_ERR_INVALID_SIZE},     {reader, SIZE, ZCP_ERR_READ_ONLY},
                 {observer, SIZE, ZCP_ERR_READ_ONLY},    {closed, SIZE, ZCP_ERR_CLOSED},
                 {NULL, SIZE, ZCP_ERR_INVALID_ARGUMENT}};
    uint64_t began = test_now();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        zcp_chunk none = scribbled();
        CHECK_STATUS(zcp_chunk_allocate_wait(cases[i].manager, cases[i].size, i % 2 ? UINT32_MAX : LONG_MS, &none),
                     cases[i].status);
        CHECK(is_empty(&none));
    }
    CHECK_STATUS(zcp_chunk_allocate_wait(manager, SIZE, LONG_MS, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(test_now() - began < 5000 * MS);
    CHECK_EQ(waits_of(manager), 0);
    zcp_chunk_release(&held);
    zcp_manager_close(observer);
    zcp_manager_close(reader);
    finish(manager);
}

static void do_nothing(int signal_number) {
    (void)signal_number;
}

static void interrupt_often(peer *self) {
    struct sigaction action = {.sa_handler = do_nothing};          // without SA_RESTART
    struct itimerval timer = {{0, 3000}, {0, 3000}};
    (void)self;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

TEST(wait_goes_on_after_signals) {
    zcp_manager *manager = create(SIZE, 1);
    zcp_chunk chunk = allocate(manager, SIZE);
    peer *waiter = peer_start(0, interrupt_often);
    test_await(&waiter->done, 1);
    zcp_status status = tell(waiter, PEER_WAIT, SIZE, 200);
    CHECK_STATUS(status, ZCP_ERR_TIMEOUT);
    CHECK(waiter->nanoseconds >= 200 * MS);
    uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, LONG_MS);
    await_sleepers(manager, 2);
    test_sleep(20);
    CHECK(atomic_load(&waiter->done) != done);
    zcp_chunk_release(&chunk);
    test_await(&waiter->done, done);
    CHECK_MSG(waiter->status == ZCP_OK, "%s", waiter->message);
    peer_end(waiter);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Several pools

TEST(wait_for_any_pool_that_serves) {
    // which pool gets a free chunk: of another size or the same, and that of the waiter or not
    for (int how = 0; how < 4; how++) {
        zcp_config config = one_pool(SIZE, 1);
        CHECK_OK(zcp_config_add_pool(&config, how < 2 ? 4096 : SIZE, 1));
        zcp_manager *manager = create_named(test_instance(), &config, ZCP_FALLBACK);
        zcp_chunk chunks[2];
        for (int i = 0; i < 2; i++)
            chunks[i] = allocate(manager, SIZE);
        CHECK_EQ(inside_pool_of(&chunks[0]), 0);
        peer *waiter = peer_begin(how < 2 ? ZCP_FALLBACK : 0), *strict = peer_begin(0);
        uint32_t strict_done = how < 2 ? tell_to_begin(strict, PEER_WAIT, SIZE, LONG_MS) : 0;
        uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, LONG_MS);
        await_sleepers(manager, how < 2 ? 2 : 1);
        uint64_t began = test_now();
        zcp_chunk_release(&chunks[how % 2]);
        if (how == 0) {                                            // either may have it
            while (atomic_load(&waiter->done) != done && atomic_load(&strict->done) != strict_done
                   && test_now() - began < 10000 * MS)
                test_sleep(1);
            zcp_chunk_release(&chunks[1]);
            if (atomic_load(&waiter->done) == done)                // the other one only takes what fits
                TELL_OK(waiter, PEER_RELEASE, 0, 0);
        }
        test_await(&waiter->done, done);
        CHECK_MSG(waiter->status == ZCP_OK, "%s", waiter->message);
        if (how > 0)
            CHECK_EQ(waiter->pool, how % 2);
        if (how == 1) {
            test_sleep(120);
            CHECK(atomic_load(&strict->done) != strict_done);
            zcp_chunk_release(&chunks[0]);
        }
        if (how < 2) {
            test_await(&strict->done, strict_done);
            CHECK_MSG(strict->status == ZCP_OK, "%s", strict->message);
            CHECK_EQ(strict->pool, 0);
        }
        if (how >= 2)
            zcp_chunk_release(&chunks[1 - how % 2]);
        peer_end(waiter);
        peer_end(strict);
        finish(manager);
    }
}

TEST(wait_ends_with_a_chunk_of_a_pool_that_is_added) {
    zcp_manager *manager = create(4096, 1);
    zcp_chunk chunk = allocate(manager, SIZE);
    peer *waiters[] = {peer_begin(0), peer_begin(ZCP_FALLBACK), peer_begin(ZCP_CHECKED)};
    uint32_t done[3];
    for (int i = 0; i < 3; i++)
        done[i] = tell_to_begin(waiters[i], PEER_WAIT, SIZE, LONG_MS);
    await_sleepers(manager, 3);
    uint64_t began = test_now();
    uint32_t pool = add_pool(manager, SIZE, 10);
    for (int i = 0; i < 3; i++) {
        test_await(&waiters[i]->done, done[i]);
        CHECK_MSG(waiters[i]->status == ZCP_OK, "%s", waiters[i]->message);
        CHECK_EQ(waiters[i]->pool, pool);
        peer_end(waiters[i]);
    }
    CHECK(test_now() - began < 5000 * MS);
    zcp_chunk_release(&chunk);
    finish(manager);
}

TEST(wait_in_an_instance_that_is_destroyed) {
    zcp_manager *manager = create(SIZE, 1);
    zcp_chunk chunk = allocate(manager, SIZE);
    peer *waiter = peer_begin(0);
    uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, LONG_MS);
    await_sleepers(manager, 1);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    zcp_chunk_release(&chunk);
    test_await(&waiter->done, done);
    CHECK_MSG(waiter->status == ZCP_OK, "%s", waiter->message);
    peer_end(waiter);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(manager);
}

typedef struct sleeper { zcp_manager *manager; zcp_chunk chunk; zcp_status status; } sleeper;

static void *wait_in_a_thread(void *argument) {
    sleeper *self = argument;
    self->status = zcp_chunk_allocate_wait(self->manager, SIZE, LONG_MS, &self->chunk);
    return NULL;
}

TEST(wait_in_several_threads_of_one_client) {
    enum { THREADS = 4 };
    zcp_manager *manager = create(SIZE, THREADS);
    zcp_chunk chunks[THREADS];
    sleeper sleepers[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        chunks[i] = allocate(manager, SIZE);
    for (int i = 0; i < THREADS; i++) {
        sleepers[i] = (sleeper){.manager = manager};
        threads[i] = test_thread(wait_in_a_thread, &sleepers[i]);
    }
    await_sleepers(manager, THREADS);
    for (int i = 0; i < THREADS; i++)
        zcp_chunk_release(&chunks[i]);
    for (int i = 0; i < THREADS; i++) {
        test_thread_join(threads[i]);
        CHECK_STATUS(sleepers[i].status, ZCP_OK);
        pattern_write(&sleepers[i].chunk, (uint64_t)i);
    }
    CHECK_EQ(used(manager), THREADS);
    for (int i = 0; i < THREADS; i++) {
        pattern_check(&sleepers[i].chunk, (uint64_t)i);
        zcp_chunk_release(&sleepers[i].chunk);
    }
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Who sleeps keeps nothing

static zcp_manager *create_two_pools_with_caches(void) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = SIZE, .chunk_count = 1, .cache_chunks = 2}));
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 4096, .chunk_count = 1, .cache_chunks = 2}));
    return create_named(test_instance(), &config, 0);
}

// What an idle thread caches is had at once. Who sleeps has given back what it cached, of another pool, too.
TEST(wait_for_what_another_thread_caches) {
    zcp_manager *manager = create_two_pools_with_caches();
    peer *first = peer_begin(0), *second = peer_begin(0);
    TELL_OK(second, PEER_PAIR, 4096, 0);
    CHECK_EQ(pool_stats(manager, 1).cached, 1);
    TELL_OK(first, PEER_WAIT, 4096, 3000);
    TELL_OK(first, PEER_RELEASE, 0, 0);
    TELL_OK(first, PEER_PAIR, SIZE, 0);
    CHECK_EQ(pool_stats(manager, 0).cached, 1);
    zcp_chunk held = allocate(manager, 4096);
    uint32_t done = tell_to_begin(first, PEER_WAIT, 4096, 3000);
    await_sleepers(manager, 1);
    CHECK_EQ(pool_stats(manager, 0).cached, 0);
    zcp_chunk_release(&held);
    test_await(&first->done, done);
    CHECK_MSG(first->status == ZCP_OK, "%s", first->message);
    peer_end(first);
    peer_end(second);
    finish(manager);
}

TEST(wait_of_two_for_what_each_other_caches) {
    zcp_manager *manager = create_two_pools_with_caches();
    for (int round = 0; round < 20; round++) {
        peer *peers[] = {peer_begin(0), peer_begin(0)};
        uint32_t done[2];
        for (int i = 0; i < 2; i++)
            TELL_OK(peers[i], PEER_PAIR, i ? 4096 : SIZE, 0);
        for (int i = 0; i < 2; i++)
            done[i] = tell_to_begin(peers[i], PEER_WAIT, i ? SIZE : 4096, 3000);
        for (int i = 0; i < 2; i++) {
            test_await(&peers[i]->done, done[i]);
            CHECK_MSG(peers[i]->status == ZCP_OK, "%s", peers[i]->message);
        }
        for (int i = 0; i < 2; i++)
            peer_end(peers[i]);
    }
    finish(manager);
}

TEST(wait_keeps_no_pool_that_retires) {
    for (int asleep = 0; asleep < 2; asleep++) {                   // the pool retires before, or meanwhile
        zcp_manager *manager = create_two_pools_with_caches();
        zcp_chunk chunk = allocate(manager, SIZE);
        peer *waiter = peer_begin(0);
        TELL_OK(waiter, PEER_PAIR, 4096, 0);
        CHECK_EQ(pool_stats(manager, 1).cached, 1);
        if (!asleep)
            CHECK_OK(zcp_manager_retire_pool(manager, 1));
        uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, LONG_MS);
        await_sleepers(manager, 1);
        if (asleep)
            CHECK_OK(zcp_manager_retire_pool(manager, 1));
        CHECK_EQ(pool_state(manager, 1), ZCP_POOL_NONE);           // its memory has gone back
        zcp_chunk_release(&chunk);
        test_await(&waiter->done, done);
        CHECK_MSG(waiter->status == ZCP_OK, "%s", waiter->message);
        peer_end(waiter);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// One futex for all threads of a client

static void *wait_for_4096_in_a_thread(void *argument) {
    sleeper *self = argument;
    self->status = zcp_chunk_allocate_wait(self->manager, 4096, LONG_MS, &self->chunk);
    return NULL;
}

// The first release wakes both threads, though it frees nothing for the second one; the second release wakes that one
// all the same.
static uint64_t wake_one_after_the_other(void) {
    zcp_config config = one_pool(SIZE, 1);
    CHECK_OK(zcp_config_add_pool(&config, 4096, 1));
    zcp_manager *manager = create_named(test_instance(), &config, 0), *look = attach();
    zcp_chunk small = allocate(look, SIZE), large = allocate(look, 4096);
    sleeper one = {.manager = manager}, other = {.manager = manager};
    pthread_t first = test_thread(wait_in_a_thread, &one);
    await_sleepers(look, 1);
    pthread_t second = test_thread(wait_for_4096_in_a_thread, &other);
    await_sleepers(look, 2);
    zcp_chunk_release(&small);
    test_thread_join(first);
    CHECK_STATUS(one.status, ZCP_OK);
    test_sleep(1);
    uint64_t began = test_now();
    zcp_chunk_release(&large);
    test_thread_join(second);
    uint64_t took = test_now() - began;
    CHECK_STATUS(other.status, ZCP_OK);
    zcp_chunk_release(&one.chunk);
    zcp_chunk_release(&other.chunk);
    zcp_manager_close(look);
    finish(manager);
    return took;
}

TEST(wait_of_two_threads_for_different_pools) {
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 20 && best > 50 * MS; i++) {
        uint64_t took = wake_one_after_the_other();
        best = took < best ? took : best;
    }
    CHECK_MSG(best <= 50 * MS, "%llu ms at best", (unsigned long long)(best / MS));
}

// Whoever wakes stands still, or is killed, just before it does: the next one who frees a chunk of that pool wakes.
typedef struct waker { bool dies; _Atomic uint32_t ready, go; } waker;

static void stand_still_waking(void *argument) {
    waker *self = argument;
    zcp_manager *manager = attach();
    zcp_chunk chunk = allocate(manager, SIZE);
    token_of(&chunk);
    test_signal(&self->ready);
    test_await(&self->go, 1);
    test_at_step("waking", 1, self->dies ? TEST_KILL : TEST_STOP, NULL);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

static uint64_t wake_after_one_that_stands_still(bool dies) {
    zcp_manager *manager = create(SIZE, 3);
    waker *self = test_shared(sizeof *self);
    self->dies = dies;
    pid_t pid = test_spawn(stand_still_waking, self);
    test_await(&self->ready, 1);
    zcp_chunk chunks[2] = {allocate(manager, SIZE), allocate(manager, SIZE)};
    peer *waiters[2] = {peer_begin(0), peer_begin(0)};
    uint32_t done[2];
    for (int i = 0; i < 2; i++) {
        done[i] = tell_to_begin(waiters[i], PEER_WAIT, SIZE, LONG_MS);
        await_sleepers(manager, 1 + (uint64_t)i);
    }
    test_signal(&self->go);
    dies ? test_join_signal(pid, SIGKILL) : test_await_stop(pid);
    uint64_t began = test_now();
    zcp_chunk_release(&chunks[0]);                                 // two are free now, for two who sleep
    for (int i = 0; i < 2; i++) {
        test_await(&waiters[i]->done, done[i]);
        CHECK_MSG(waiters[i]->status == ZCP_OK, "%s", waiters[i]->message);
    }
    uint64_t took = test_now() - began;
    if (!dies) {
        test_resume(pid);
        test_join(pid);
    }
    zcp_chunk_release(&chunks[1]);
    for (int i = 0; i < 2; i++)
        peer_end(waiters[i]);
    finish(manager);
    return took;
}

TEST(wait_is_ended_by_the_next_one_if_a_waker_stands_still) {
    for (int dies = 0; dies < 2; dies++) {
        uint64_t best = UINT64_MAX;
        for (int i = 0; i < 20 && best > 50 * MS; i++) {
            uint64_t took = wake_after_one_that_stands_still(dies);
            best = took < best ? took : best;
        }
        CHECK_MSG(best <= 50 * MS, "%s: %llu ms at best", dies ? "killed" : "stopped", (unsigned long long)(best / MS));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Garbage in the words that waiters use

TEST(wait_beside_garbage_in_its_words_ends) {
    for (int round = 0; round < 10; round++) {
        zcp_manager *manager = create(SIZE, 1);
        zcp_chunk chunk = allocate(manager, SIZE);
        peer *waiter = peer_begin(0);
        uint32_t done = tell_to_begin(waiter, PEER_WAIT, SIZE, LONG_MS);
        await_sleepers(manager, 1);
        for (uint32_t slot = 0; slot < 4; slot++)
            inside_scribble_sleeps(manager, slot, test_random());
        zcp_chunk_release(&chunk);
        uint64_t began = test_now();
        test_await(&waiter->done, done);
        CHECK_MSG(waiter->status == ZCP_OK && test_now() - began < 10000 * MS, "%s", waiter->message);
        TELL_OK(waiter, PEER_RELEASE, 0, 0);
        waiter->count = 0;
        TELL_OK(waiter, PEER_PAIR, SIZE, 0);
        peer_end(waiter);
        finish(manager);
    }
}

// In each round, just before the look, something counts up, as garbage may: a waiter looks some times, then it sleeps
// all the same.
static struct { zcp_manager *manager; bool wakes; } shaker;

static void shake(void) {
    test_steps_clear();
    test_at_step("waiting", 1, TEST_CALL, shake);
    shaker.wakes ? inside_wake(shaker.manager, slot_of(shaker.manager)) : inside_count_epoch_up(shaker.manager);
}

TEST(wait_sleeps_though_something_counts_up_for_ever) {
    enum { FOR_MS = 300, LOOKS = 64, CHANGES = 8 };                // CHANGES: again after each 0.1 s without a wake
    for (int wakes = 0; wakes < 2; wakes++) {
        zcp_manager *manager = create(SIZE, 1);
        zcp_chunk chunk = allocate(manager, SIZE), none;
        uint64_t began = test_now();
        shaker.manager = manager;
        shaker.wakes = wakes;
        test_at_step("waiting", 1, TEST_CALL, shake);
        CHECK_STATUS(zcp_chunk_allocate_wait(manager, SIZE, FOR_MS, &none), ZCP_ERR_TIMEOUT);
        test_steps_clear();
        uint64_t ms = (test_now() - began) / MS, most = wakes ? LOOKS + ms + 2 : (CHANGES + 1) * (ms / 100 + 2);
        uint32_t looks = inside_wait_rounds(manager, 0);
        CHECK_MSG(looks <= most, "%s: %u looks in %llu ms", wakes ? "wakes" : "epoch", looks, (unsigned long long)ms);
        CHECK(looks >= (wakes ? LOOKS : CHANGES));
        zcp_chunk_release(&chunk);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What it costs those who free

enum { PAIRS = 300 };

#if !defined(TEST_ASAN) && !defined(TEST_TSAN)
typedef struct price { uint32_t flags; bool marks; _Atomic uint32_t ready, go, counting, calls; } price;

static void pay(void *argument) {
    price *self = argument;
    zcp_manager *manager = attach_named(test_instance(), self->flags);
    zcp_chunk chunk = allocate(manager, SIZE), held[3];
    zcp_chunk_release(&chunk);
    test_signal(&self->ready);
    test_await(&self->go, 1);
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    raise(SIGSTOP);
    atomic_store(&self->counting, 1);
    for (int i = 0; i < PAIRS; i++) {
        for (int k = 0; k < 3; k++)
            if (zcp_chunk_allocate(manager, SIZE, &held[k]) != ZCP_OK
                || (self->marks && zcp_chunk_token(&held[k]) == 0))
                _exit(5);
        for (int k = 0; k < 3; k++)
            zcp_chunk_release(&held[k]);
    }
    atomic_store(&self->counting, 0);
    zcp_manager_close(manager);
}

// System calls that a process makes which allocates and releases; `meanwhile` happens when it is warm.
static uint32_t calls_of_work(uint32_t flags, bool marks, void (*meanwhile)(zcp_manager *), zcp_manager *manager) {
    price *self = test_shared(sizeof *self);
    int status;
    *self = (price){.flags = flags, .marks = marks};
    pid_t pid = test_spawn(pay, self);
    test_await(&self->ready, 1);
    if (meanwhile != NULL)
        meanwhile(manager);
    test_signal(&self->go);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFSTOPPED(status))
        test_skip("no process may be traced here");
    bool inside = false;
    while (WIFSTOPPED(status)) {
        if (WSTOPSIG(status) == SIGTRAP) {
            inside = !inside;
            if (inside && atomic_load(&self->counting))
                atomic_fetch_add(&self->calls, 1);
        }
        CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return self->calls;
}

// A chunk is freed just when the waiter has looked for the last time, but does not sleep yet: it is held at the system
// call by which it would.
typedef struct drowsy { uint32_t flags; uint64_t woke; } drowsy;

static void fall_asleep(void *argument) {
    drowsy *self = argument;
    zcp_manager *manager = attach_named(test_instance(), self->flags);
    zcp_chunk chunk;
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    raise(SIGSTOP);
    CHECK_OK(zcp_chunk_allocate_wait(manager, SIZE, LONG_MS, &chunk));
    self->woke = test_now();
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

static uint64_t free_before_sleep(uint32_t flags, bool marks) {
    zcp_manager *manager = create(SIZE, 1), *look = attach();
    zcp_chunk chunk = allocate(manager, SIZE);
    drowsy *self = test_shared(sizeof *self);
    uint64_t freed = 0;
    int status;
    if (marks)
        token_of(&chunk);
    self->flags = flags;
    pid_t pid = test_spawn(fall_asleep, self);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFSTOPPED(status))
        test_skip("no process may be traced here");
    while (WIFSTOPPED(status)) {
        if (freed == 0 && waits_of(look) == 1) {                   // which it counts just before
            freed = test_now();
            zcp_chunk_release(&chunk);
        }
        CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && freed != 0);
    zcp_manager_close(look);
    finish(manager);
    return self->woke - freed;
}

static void check_drowsy(void) {
    for (int way = 0; way < 4; way++) {
        uint64_t best = UINT64_MAX;
        for (int i = 0; i < 20 && best > 50 * MS; i++) {
            uint64_t took = free_before_sleep(way % 2 ? ZCP_CHECKED : 0, way / 2);
            best = took < best ? took : best;
        }
        CHECK_MSG(best <= 50 * MS, "%llu ms at best", (unsigned long long)(best / MS));
    }
}

static peer *disturber;

// Somebody waits in vain, until the worker is warm; then it is no more, or stands still.
static void take_all_and_let_wait(zcp_manager *manager, zcp_chunk chunks[8]) {
    uint64_t slept = waits_of(manager);
    for (int i = 0; i < 8; i++)
        chunks[i] = allocate(manager, SIZE);
    tell_to_begin(disturber, PEER_WAIT, SIZE, UINT32_MAX);
    await_sleepers(manager, slept + 1);
}

static void release_all(zcp_chunk chunks[8]) {
    for (int i = 0; i < 8; i++)
        zcp_chunk_release(&chunks[i]);
}

static void wait_and_be_stopped(zcp_manager *manager) {
    zcp_chunk chunks[8];
    take_all_and_let_wait(manager, chunks);
    test_stop(disturber->pid);
    release_all(chunks);                                           // the one wake is made here
}

static void wait_and_be_killed(zcp_manager *manager) {
    wait_and_be_stopped(manager);
    test_kill(disturber->pid);
    CHECK_OK(zcp_manager_recover(manager, NULL));
}

static void wait_and_be_killed_asleep(zcp_manager *manager) {
    zcp_chunk chunks[8];
    take_all_and_let_wait(manager, chunks);
    test_kill(disturber->pid);
    // not this process's way to release, which may be quick
    zcp_manager *other = attach();
    zcp_manager_close(other);
    release_all(chunks);
}

static void check_price(void (*meanwhile)(zcp_manager *), uint32_t at_most) {
    for (uint32_t caches = 0; caches < 2; caches++)
        for (int marks = 0; marks < 2; marks++)
            for (uint32_t flags = 0; flags <= ZCP_CHECKED; flags += ZCP_CHECKED) {
                zcp_config config = {0};
                CHECK_OK(zcp_config_add(&config,
                                        &(zcp_pool_config){.chunk_size = SIZE, .chunk_count = 8, .cache_chunks = 0}));
                CHECK_OK(zcp_config_add(
                    &config, &(zcp_pool_config){.chunk_size = 4096, .chunk_count = 8, .cache_chunks = caches ? 4 : 0}));
                zcp_manager *manager = create_named(test_instance(), &config, 0);
                disturber = meanwhile != NULL ? peer_begin(0) : NULL;
                uint32_t calls = calls_of_work(flags, marks, meanwhile, manager);
                CHECK_MSG(calls <= at_most, "caches %u, marks %d, flags %x: %u system calls", caches, marks, flags,
                          calls);
                if (meanwhile == wait_and_be_stopped) {
                    test_resume(disturber->pid);
                    for (int i = 0; disturber->count == 0 && i < 20000; i++)
                        test_sleep(1);
                    CHECK_MSG(disturber->status == ZCP_OK, "%s", disturber->message);
                    peer_end(disturber);
                }
                CHECK_OK(zcp_manager_recover(manager, NULL));
                finish(manager);
            }
}
#else
static void wait_and_be_killed(zcp_manager *manager) { (void)manager; }
static void wait_and_be_stopped(zcp_manager *manager) { (void)manager; }
static void wait_and_be_killed_asleep(zcp_manager *manager) { (void)manager; }
static void check_drowsy(void) {
    test_skip("a system call is held without a sanitizer");
}

static void check_price(void (*meanwhile)(zcp_manager *), uint32_t at_most) {
    (void)meanwhile;
    (void)at_most;
    test_skip("system calls are counted without a sanitizer");
}
#endif

TEST(wait_that_is_about_to_sleep_does_not) { test_need("ptrace"); check_drowsy(); }
TEST(wait_costs_nobody_a_system_call_who_frees_while_nobody_waits) { test_need("ptrace"); check_price(NULL, 0); }
TEST(wait_that_is_killed_costs_one_wake_in_vain) { test_need("ptrace"); check_price(wait_and_be_killed, 1); }
TEST(wait_that_is_killed_asleep_costs_one_wake_in_vain) {
    test_need("ptrace");
    check_price(wait_and_be_killed_asleep, 1);
}

TEST(wait_that_is_stopped_costs_one_wake_in_vain) { test_need("ptrace"); check_price(wait_and_be_stopped, 1); }
