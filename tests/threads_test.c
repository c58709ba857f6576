// tests/threads_test.c: many threads, on one manager and on several clients of one segment. Under ThreadSanitizer too:
// payloads are written and read by plain accesses, so that a chunk which two hold as theirs is a race. Tokens go from
// thread to thread by release and acquire, because TSan does not know the fences that do it otherwise.
#include "harness/chunks.h"

#include <sched.h>

enum { SLOTS = 8, HOLD = 3 };

typedef struct market {
    _Atomic uint64_t slots[SLOTS];                                 // tokens on their way from any thread to any
    _Atomic uint64_t verified, stale, exhausted;
    _Atomic uint32_t barrier;
} market;

typedef struct trader {
    market *shared;
    zcp_manager *manager;
    int steps;
    bool dies;                                                     // keeps what it holds at the end
    uint64_t size;
} trader;

static void offer(trader *self, zcp_chunk *chunk) {
    zcp_status status = zcp_chunk_allocate(self->manager, 1 + test_random_below(self->size), chunk);
    CHECK(status == ZCP_OK || status == ZCP_ERR_EXHAUSTED);
    if (status != ZCP_OK) {
        atomic_fetch_add_explicit(&self->shared->exhausted, 1, memory_order_relaxed);
        return;
    }
    uint64_t token = token_of(chunk);
    pattern_write(chunk, token);
    if (test_random_below(4) != 0)
        atomic_store_explicit(&self->shared->slots[test_random_below(SLOTS)], token, memory_order_release);
}

static void accept(trader *self, zcp_chunk *chunk) {
    uint64_t token = atomic_load_explicit(&self->shared->slots[test_random_below(SLOTS)], memory_order_acquire);
    if (token == 0)
        return;
    zcp_status status = zcp_chunk_acquire(self->manager, token, chunk);
    CHECK(status == ZCP_OK || status == ZCP_ERR_STALE);
    atomic_fetch_add_explicit(status == ZCP_OK ? &self->shared->verified : &self->shared->stale, 1,
                              memory_order_relaxed);
    if (status == ZCP_OK)
        check_tokened(chunk);
}

static void *trade(void *argument) {
    trader *self = argument;
    zcp_chunk held[HOLD] = {{0}};
    for (int i = 0; i < self->steps; i++) {
        zcp_chunk *mine = &held[test_random_below(HOLD)], *other = &held[test_random_below(HOLD)];
        uint64_t choice = test_random_below(5);
        if (zcp_chunk_is_valid(mine))
            check_tokened(mine);
        zcp_chunk_release(mine);
        if (choice < 2)
            offer(self, mine);
        else if (choice < 4)
            accept(self, mine);
        else if (other != mine)
            *mine = zcp_chunk_clone(other);
    }
    for (int i = 0; i < HOLD && !self->dies; i++)
        zcp_chunk_release(&held[i]);
    return NULL;
}

static void check_traded(const market *shared) {
    test_note("%llu verified, %llu stale, %llu exhausted", (unsigned long long)shared->verified,
              (unsigned long long)shared->stale, (unsigned long long)shared->exhausted);
    CHECK(shared->verified > 0 && shared->stale > 0);
}

static void trade_on_one_manager(uint32_t flags, uint32_t chunks, uint32_t cache_chunks) {
    enum { THREADS = 4 };
    zcp_config config = cached_pool(chunks, cache_chunks);
    zcp_manager *manager = create_named(test_instance(), &config, flags);
    market shared = {0};
    trader all[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        all[i] = (trader){&shared, manager, ROUNDS(200000), false, 64};
        threads[i] = test_thread(trade, &all[i]);
    }
    for (int i = 0; i < THREADS; i++)
        test_thread_join(threads[i]);
    check_traded(&shared);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

TEST_WITH(threads_trade_on_one_manager, .weight = 2) {
    trade_on_one_manager(0, 10, 0);                                   // fewer than they could hold
}

TEST_WITH(threads_trade_on_one_checked_manager, .weight = 2) {
    trade_on_one_manager(ZCP_CHECKED, 10, 0);
}

TEST_WITH(threads_trade_on_plenty, .weight = 2) {
    trade_on_one_manager(0, 200, 0);
}

TEST_WITH(threads_trade_out_of_caches, .weight = 2) {
    trade_on_one_manager(0, 200, 8);
}

TEST_WITH(threads_trade_out_of_checked_caches, .weight = 2) {
    trade_on_one_manager(ZCP_CHECKED, 200, 8);
}

TEST_WITH(threads_trade_where_caches_are_wanted, .weight = 2) {
    trade_on_one_manager(0, 10, 4);
}

static void check_nothing_is_cached(zcp_manager *manager) {
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(manager, p, &stats));
        CHECK_EQ(stats.cached, 0);
        CHECK_EQ(stats.free, stats.total);
        CHECK_EQ(inside_hint_count(manager, p), stats.total);
    }
}

// Generations of threads: more of them than there are numbers, some of which end while the others trade, each with a
// cache.
static void *trade_in_short_lives(void *argument) {
    trader self = *(trader *)argument;
    self.steps = 50 + (int)test_random_below(200);
    return trade(&self);
}

static void *live_often(void *argument) {
    trader *self = argument;
    for (int i = 0; i < self->steps; i++)
        test_thread_join(test_thread(trade_in_short_lives, self));
    return NULL;
}

TEST_WITH(threads_that_end_give_up_their_caches, .weight = 2) {
    enum { LINES = 6, CHUNKS = 60, CACHE = 8 };
    zcp_config config = cached_pool(CHUNKS, CACHE);
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    market shared = {0};
    trader all = {&shared, manager, ROUNDS(300), false, 64};
    pthread_t lines[LINES];
    zcp_chunk chunks[CHUNKS];
    for (int i = 0; i < LINES; i++)
        lines[i] = test_thread(live_often, &all);
    for (int i = 0; i < LINES; i++)
        test_thread_join(lines[i]);
    check_nothing_is_cached(manager);
    CHECK_EQ(inside_leases_held(manager, 0), 0);
    for (int i = 0; i < CHUNKS; i++)
        chunks[i] = allocate(manager, 64);
    for (int i = 0; i < CHUNKS; i++)
        zcp_chunk_release(&chunks[i]);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients as views of one plain segment

static inside_plain *plain_pools(uint32_t clients) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 64, 9));
    CHECK_OK(zcp_config_add_pool(&config, 128, 5));
    return inside_plain_new(&config, clients, 0);
}

// The first pool is cached, so its threads have to yield all the time; the second one is plain.
static inside_plain *cached_pools(uint32_t clients) {
    zcp_config config = cached_pool(24, 4);
    CHECK_OK(zcp_config_add_pool(&config, 128, 5));
    return inside_plain_new(&config, clients, 0);
}

static void trade_between_clients(inside_plain *(*make)(uint32_t)) {
    enum { CLIENTS = 3, THREADS = 6 };
    inside_plain *plain = make(CLIENTS);
    market shared = {0};
    trader all[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        all[i] = (trader){&shared, inside_plain_client(plain, (uint32_t)i % CLIENTS), ROUNDS(120000), false, 128};
        threads[i] = test_thread(trade, &all[i]);
    }
    for (int i = 0; i < THREADS; i++)
        test_thread_join(threads[i]);
    check_traded(&shared);
    for (uint32_t c = 0; c < CLIENTS; c++)
        CHECK_EQ(used(inside_plain_client(plain, c)), 0);
    inside_plain_leave(plain);
    check_nothing_is_cached(inside_plain_client(plain, 0));
    books_check_by(inside_plain_client(plain, 0), 0);
    inside_plain_free(plain);
}

TEST_WITH(threads_trade_between_clients, .weight = 2) {
    trade_between_clients(plain_pools);
}

TEST_WITH(threads_trade_between_clients_that_cache, .weight = 2) {
    trade_between_clients(cached_pools);
}

typedef struct sweeper {
    inside_plain *plain;
    uint32_t as, dead;
} sweeper;

static void *sweep(void *argument) {
    sweeper *self = argument;
    inside_plain_sweep(self->plain, self->as, self->dead);
    return NULL;
}

// Clients die one after the other, holding what they hold; others sweep them, two at once, while the rest goes on.
static void trade_and_die(inside_plain *(*make)(uint32_t), uint64_t size, int steps) {
    enum { LIVING = 2, DYING = 4, CLIENTS = LIVING + DYING };
    inside_plain *plain = make(CLIENTS);
    market shared = {0};
    trader all[CLIENTS];
    pthread_t living[LIVING], dying[2], sweeping[2];
    for (uint32_t c = 0; c < CLIENTS; c++)
        all[c] = (trader){&shared, inside_plain_client(plain, c), c < LIVING ? steps : steps / 4, c >= LIVING, size};
    for (int i = 0; i < LIVING; i++)
        living[i] = test_thread(trade, &all[i]);
    for (uint32_t dead = LIVING; dead < CLIENTS; dead++) {
        for (int i = 0; i < 2; i++)
            dying[i] = test_thread(trade, &all[dead]);
        for (int i = 0; i < 2; i++)
            test_thread_join(dying[i]);
        sweeper sweepers[2] = {{plain, 0, dead}, {plain, 1, dead}};
        for (int i = 0; i < 2; i++)
            sweeping[i] = test_thread(sweep, &sweepers[i]);
        for (int i = 0; i < 2; i++)
            test_thread_join(sweeping[i]);
    }
    for (int i = 0; i < LIVING; i++)
        test_thread_join(living[i]);
    check_traded(&shared);
    inside_plain_leave(plain);
    check_nothing_is_cached(inside_plain_client(plain, 0));
    books_check_by(inside_plain_client(plain, 1), 0);
    inside_plain_free(plain);
}

TEST_WITH(threads_sweep_dead_clients_while_others_trade, .weight = 2) {
    for (int round = 0; round < 6; round++)
        trade_and_die(plain_pools, 128, ROUNDS(60000));
}

TEST_WITH(threads_sweep_dead_clients_that_cached, .weight = 2) {
    for (int round = 0; round < 6; round++)
        trade_and_die(cached_pools, 128, ROUNDS(60000));
}

// Hints may be repeated: here for each free chunk all the time, so that several claim the same one.
typedef struct claimer {
    zcp_manager *manager;
    int rounds;
    _Atomic uint32_t *left;
} claimer;

static void *claim(void *argument) {
    claimer *self = argument;
    for (int i = 0; i < self->rounds; i++) {
        zcp_chunk chunk;
        if (zcp_chunk_allocate(self->manager, 64, &chunk) != ZCP_OK)
            continue;
        uint64_t seed = test_random();
        pattern_write(&chunk, seed);
        pattern_check(&chunk, seed);
        zcp_chunk_release(&chunk);
    }
    atomic_fetch_sub(self->left, 1);
    return NULL;
}

TEST_WITH(threads_claim_beside_repeated_hints, .weight = 2) {
    enum { CLAIMERS = 3 };
    zcp_config config = one_pool(64, 2);
    inside_plain *plain = inside_plain_new(&config, CLAIMERS + 2, 0);
    _Atomic uint32_t left = CLAIMERS;
    claimer all[CLAIMERS];
    pthread_t threads[CLAIMERS];
    for (uint32_t i = 0; i < CLAIMERS; i++) {
        all[i] = (claimer){inside_plain_client(plain, i), ROUNDS(300000), &left};
        threads[i] = test_thread(claim, &all[i]);
    }
    while (atomic_load(&left) > 0)
        inside_plain_sweep(plain, CLAIMERS, CLAIMERS + 1);
    for (int i = 0; i < CLAIMERS; i++)
        test_thread_join(threads[i]);
    books_check_by(inside_plain_client(plain, CLAIMERS), 0);
    inside_plain_free(plain);
}

// ---------------------------------------------------------------------------------------------------------------------
// The last holders leave at the same moment

typedef struct leaver {
    zcp_manager *manager;
    market *shared;
    zcp_chunk handle;                                              // to be released
    uint64_t token;                                                // or to be acquired first, if not 0
    uint32_t parties;
    int rounds;
    uint64_t got, missed;
} leaver;

static void leave_once(leaver *self) {
    if (self->token != 0) {
        zcp_status status = zcp_chunk_acquire(self->manager, self->token, &self->handle);
        CHECK(status == ZCP_OK || status == ZCP_ERR_STALE);
        *(status == ZCP_OK ? &self->got : &self->missed) += 1;
    }
    if (zcp_chunk_is_valid(&self->handle))
        check_tokened(&self->handle);
    zcp_chunk_release(&self->handle);
}

static void *leave(void *argument) {
    leaver *self = argument;
    for (int i = 0; i < self->rounds; i++) {
        test_spin_meet(&self->shared->barrier, self->parties);
        leave_once(self);
        test_spin_meet(&self->shared->barrier, self->parties);
    }
    return NULL;
}

// An owner's handle, a borrowed one beside it in the same process, another client's, and one who comes late with the
// token: all at once, and afterwards the chunk is free, once.
TEST_WITH(threads_last_holders_leave_at_once, .weight = 2) {
    enum { PARTIES = 4 };
    inside_plain *plain = plain_pools(3);
    market shared = {0};
    int rounds = ROUNDS(20000);
    leaver all[PARTIES];
    pthread_t threads[PARTIES];
    for (uint32_t i = 0; i < PARTIES; i++)
        all[i] = (leaver){.manager = inside_plain_client(plain, i / 2), .shared = &shared, .parties = PARTIES + 1,
                          .rounds = rounds};
    for (int i = 0; i < PARTIES; i++)
        threads[i] = test_thread(leave, &all[i]);
    for (int round = 0; round < rounds; round++) {
        all[0].handle = allocate(all[0].manager, 64);
        uint64_t token = token_of(&all[0].handle);
        pattern_write(&all[0].handle, token);
        if (round % 3 != 0)
            all[1].handle = acquire(all[1].manager, token);
        if (round % 2 != 0)
            all[2].handle = acquire(all[2].manager, token);
        all[3].token = token;
        test_spin_meet(&shared.barrier, PARTIES + 1);
        test_spin_meet(&shared.barrier, PARTIES + 1);
        CHECK_EQ(used(all[0].manager), 0);
        CHECK_EQ(inside_hint_count(all[0].manager, 0), 9);
    }
    for (int i = 0; i < PARTIES; i++)
        test_thread_join(threads[i]);
    test_note("%llu acquired, %llu stale", (unsigned long long)all[3].got, (unsigned long long)all[3].missed);
    CHECK_EQ(all[3].got + all[3].missed, rounds);
    books_check_by(all[0].manager, 0);
    inside_plain_free(plain);
}

// ---------------------------------------------------------------------------------------------------------------------
// Acquire and release of one held chunk: 0, CHANGING, n and back all the time. It never is stale.

static void *come_and_go(void *argument) {
    leaver *self = argument;
    for (int i = 0; i < self->rounds; i++) {
        zcp_chunk a = acquire(self->manager, self->token), b = {0};
        check_tokened(&a);
        if (i % 3 == 0)
            b = zcp_chunk_clone(&a);
        if (i % 3 == 1)
            b = acquire(self->manager, self->token);
        zcp_chunk_release(&a);
        CHECK(i % 3 == 2 || zcp_chunk_is_valid(&b));
        zcp_chunk_release(&b);
    }
    return NULL;
}

TEST_WITH(threads_come_and_go_at_one_chunk, .weight = 2) {
    enum { THREADS = 5 };
    inside_plain *plain = plain_pools(2);
    leaver all[THREADS];
    pthread_t threads[THREADS];
    uint64_t token;
    zcp_manager *owner = inside_plain_client(plain, 0);
    zcp_chunk chunk = allocate_with_pattern(owner, 64, &token);
    for (int i = 0; i < THREADS; i++) {                            // three in the owner's process, two in another
        all[i] = (leaver){.manager = i < 3 ? owner : inside_plain_client(plain, 1), .token = token,
                          .rounds = ROUNDS(100000)};
        threads[i] = test_thread(come_and_go, &all[i]);
    }
    for (int i = 0; i < THREADS; i++)
        test_thread_join(threads[i]);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
    check_tokened(&chunk);
    zcp_chunk_release(&chunk);
    books_check_by(owner, 0);
    inside_plain_free(plain);
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles handed from thread to thread: one allocates, another releases

typedef struct belt {
    zcp_manager *manager;
    struct {
        _Atomic uint32_t full;
        zcp_chunk chunk;
    } places[4];
    int rounds;
} belt;

static void *consume(void *argument) {
    belt *shared = argument;
    for (int i = 0; i < shared->rounds; i++) {
        _Atomic uint32_t *full = &shared->places[i % 4].full;
        while (atomic_load_explicit(full, memory_order_acquire) == 0)
            sched_yield();
        zcp_chunk chunk = zcp_chunk_move(&shared->places[i % 4].chunk);
        atomic_store_explicit(full, 0, memory_order_release);
        pattern_check(&chunk, (uint64_t)i);
        zcp_chunk_release(&chunk);
    }
    return NULL;
}

static zcp_chunk allocate_or_yield(zcp_manager *manager) {
    zcp_chunk chunk;
    zcp_status status = zcp_chunk_allocate(manager, 64, &chunk);
    while (status == ZCP_ERR_EXHAUSTED) {
        sched_yield();
        status = zcp_chunk_allocate(manager, 64, &chunk);
    }
    CHECK_OK(status);
    return chunk;
}

TEST_WITH(threads_release_what_others_allocated, .weight = 2) {
    zcp_manager *manager = create(64, 5);
    belt shared = {.manager = manager, .rounds = ROUNDS(100000)};
    pthread_t thread = test_thread(consume, &shared);
    for (int i = 0; i < shared.rounds; i++) {
        _Atomic uint32_t *full = &shared.places[i % 4].full;
        zcp_chunk chunk = allocate_or_yield(manager);
        pattern_write(&chunk, (uint64_t)i);
        zcp_chunk kept = {0};
        if (i % 3 == 1)                                            // both have a handle, either goes last
            kept = zcp_chunk_clone(&chunk);
        if (i % 3 == 2)
            (void)token_of(&chunk);
        while (atomic_load_explicit(full, memory_order_acquire) != 0)
            sched_yield();
        shared.places[i % 4].chunk = chunk;
        atomic_store_explicit(full, 1, memory_order_release);
        zcp_chunk_release(&kept);
    }
    test_thread_join(thread);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

static void *leave_second(void *argument) {
    leaver *self = argument;
    for (int i = 0; i < self->rounds; i++) {
        test_spin_meet(&self->shared->barrier, 2);
        check_tokened(&self->handle);
        zcp_chunk_release(&self->handle);
        test_spin_meet(&self->shared->barrier, 2);
    }
    return NULL;
}

// Two handles of one chunk in two threads: whoever goes last frees it, after the other one's use of the payload.
TEST_WITH(threads_two_owned_handles_leave_at_once, .weight = 2) {
    zcp_manager *manager = create(64, 2);
    market shared = {0};
    leaver self = {.manager = manager, .shared = &shared, .rounds = ROUNDS(40000)};
    pthread_t thread = test_thread(leave_second, &self);
    for (int i = 0; i < self.rounds; i++) {
        zcp_chunk chunk = allocate(manager, 64);
        pattern_write(&chunk, (uint64_t)chunk.generation << 32 | chunk.index);
        if (i % 2 == 0)
            (void)token_of(&chunk);
        self.handle = zcp_chunk_clone(&chunk);
        test_spin_meet(&shared.barrier, 2);
        check_tokened(&chunk);
        zcp_chunk_release(&chunk);
        test_spin_meet(&shared.barrier, 2);
        CHECK_EQ(used(manager), 0);
        CHECK_EQ(inside_hint_count(manager, 0), 2);
    }
    test_thread_join(thread);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads that open, use and close clients of their own

static void *visit(void *argument) {
    int rounds = *(int *)argument;
    for (int i = 0; i < rounds; i++) {
        zcp_manager *manager = attach();
        zcp_chunk chunk = allocate_or_yield(manager);
        uint64_t token = token_of(&chunk);
        pattern_write(&chunk, token);
        zcp_chunk again = acquire(manager, token);
        check_tokened(&again);
        if (i % 2 == 0)
            zcp_chunk_release(&again);                             // else close takes it back
        zcp_chunk_release(&chunk);
        CHECK(zcp_manager_find(test_instance()) != NULL);
        zcp_manager_close(manager);
    }
    return NULL;
}

TEST_WITH(threads_open_use_and_close, .weight = 2) {
    zcp_manager *manager = create(64, 3);
    int rounds = ROUNDS(300);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = test_thread(visit, &rounds);
    for (int i = 0; i < 4; i++)
        test_thread_join(threads[i]);
    CHECK_EQ(used(manager), 0);
    CHECK_RECOVERS(manager, 0, 0);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// A handle is valid as long as it is held, also while a sibling's release changes the count in which it stands

typedef struct sibling {
    zcp_manager *manager;
    _Atomic uint64_t token;
    _Atomic uint32_t begun, done;
    int rounds;
} sibling;

static void *come_and_take_the_owned_count(void *argument) {
    sibling *self = argument;
    for (int i = 0; i < self->rounds; i++) {
        while (atomic_load(&self->begun) != (uint32_t)i + 1)
            sched_yield();
        zcp_chunk chunk = acquire(self->manager, atomic_load(&self->token));
        zcp_chunk_release(&chunk);                                 // counts down the owner's handles first
        atomic_store(&self->done, (uint32_t)i + 1);
    }
    return NULL;
}

TEST_WITH(threads_a_held_handle_is_valid_at_every_moment, .weight = 2) {
    zcp_manager *manager = create(64, 2);
    sibling self = {.manager = manager, .rounds = ROUNDS(30000)};
    pthread_t thread = test_thread(come_and_take_the_owned_count, &self);
    uint64_t calls = 0;
    for (int i = 0; i < self.rounds; i++) {
        zcp_chunk chunk = allocate(manager, 64);
        atomic_store(&self.token, token_of(&chunk));
        atomic_store(&self.begun, (uint32_t)i + 1);
        for (; atomic_load(&self.done) != (uint32_t)i + 1; calls++) {
            CHECK_MSG(zcp_chunk_is_valid(&chunk), "round %d, call %llu", i, (unsigned long long)calls);
            CHECK(zcp_chunk_data(&chunk) == chunk.data && zcp_chunk_token(&chunk) != 0);
            if (calls % 64 == 0)
                sched_yield();
        }
        zcp_chunk_release(&chunk);
    }
    test_thread_join(thread);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}
