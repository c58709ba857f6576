// tests/death_test.c: processes killed while they hold chunks, work on them, or sweep; what comes back, and exactly so.
#include "harness/chunks.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// A victim: takes what it is told to take, says so, and waits to be killed

enum { PLENTY = 8 };

typedef struct orders {
    _Atomic uint32_t holding, go_on, done;
    uint32_t slot;
    int owns, shares, clones, borrows;                             // how many; it tells the tokens of those it shares
    uint64_t tokens[PLENTY];                                       // of the shared ones
    uint64_t to_borrow[PLENTY];
    bool borrows_own;
} orders;

static orders *new_orders(void) {
    return test_shared(sizeof(orders));
}

static void hold(void *argument) {
    orders *told = argument;
    zcp_manager *manager = attach();
    zcp_chunk owned[PLENTY], borrowed[PLENTY], cloned[PLENTY][2], own[PLENTY];
    told->slot = slot_of(manager);
    for (int i = 0; i < told->owns; i++) {
        owned[i] = allocate(manager, 64);
        pattern_write(&owned[i], (uint64_t)i);
        if (i < told->shares)
            told->tokens[i] = token_of(&owned[i]);
        if (i < told->clones)
            cloned[i][0] = zcp_chunk_clone(&owned[i]);
        if (i < told->shares && told->borrows_own)
            own[i] = acquire(manager, told->tokens[i]);
    }
    for (int i = 0; i < told->borrows; i++) {
        borrowed[i] = acquire(manager, told->to_borrow[i]);
        if (i < told->clones)
            cloned[i][1] = zcp_chunk_clone(&borrowed[i]);
    }
    test_signal(&told->holding);
    test_await(&told->go_on, 1);
    for (int i = 0; i < told->owns; i++) {
        pattern_check(&owned[i], (uint64_t)i);
        if (i < told->clones)
            zcp_chunk_release(&cloned[i][0]);
        if (i < told->shares && told->borrows_own)
            zcp_chunk_release(&own[i]);
        zcp_chunk_release(&owned[i]);
    }
    for (int i = 0; i < told->borrows; i++) {
        if (i < told->clones)
            zcp_chunk_release(&cloned[i][1]);
        zcp_chunk_release(&borrowed[i]);
    }
    zcp_manager_close(manager);
    test_signal(&told->done);
}

static pid_t spawn_holder(orders *told) {
    pid_t pid = test_spawn(hold, told);
    test_await(&told->holding, 1);
    return pid;
}

TEST(death_of_an_owner) {
    for (int shares = 0; shares <= 4; shares += 2) {
        zcp_manager *manager = create(64, 6);
        orders *told = new_orders();
        told->owns = 4, told->shares = shares;
        pid_t victim = spawn_holder(told);
        CHECK_EQ(used(manager), 4);
        CHECK_RECOVERS(manager, 0, 0);
        test_kill(victim);
        CHECK_RECOVERS(manager, 1, 4);
        CHECK_EQ(used(manager), 0);
        for (int i = 0; i < shares; i++)
            CHECK_ACQUIRE_FAILS(manager, told->tokens[i], ZCP_ERR_STALE);
        CHECK_RECOVERS(manager, 0, 0);
        finish(manager);
    }
}

TEST(death_of_an_owner_whose_chunks_others_borrow) {
    zcp_manager *manager = create(64, 6);
    orders *told = new_orders();
    told->owns = 4, told->shares = 4, told->clones = 2;
    pid_t victim = spawn_holder(told);
    zcp_chunk a = acquire(manager, told->tokens[0]), b = acquire(manager, told->tokens[3]);
    CHECK_EQ(zcp_chunk_use_count(&a), 2);
    test_kill(victim);
    CHECK_RECOVERS(manager, 1, 2);
    CHECK_EQ(used(manager), 2);
    CHECK_EQ(zcp_chunk_use_count(&a), 1);
    pattern_check(&a, 0);
    pattern_check(&b, 3);
    zcp_chunk c = acquire(manager, told->tokens[3]);               // still held, so not stale
    CHECK_ACQUIRE_FAILS(manager, told->tokens[1], ZCP_ERR_STALE);
    books_check(test_instance(), 2);
    zcp_chunk_release(&a);
    zcp_chunk_release(&b);
    CHECK_EQ(used(manager), 1);
    pattern_check(&c, 3);
    zcp_chunk_release(&c);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

TEST(death_of_a_borrower) {
    zcp_manager *manager = create(64, 6);
    orders *told = new_orders();
    zcp_chunk kept = allocate_with_pattern(manager, 64, &told->to_borrow[0]);
    zcp_chunk dropped = allocate(manager, 64);
    told->to_borrow[1] = token_of(&dropped);
    told->borrows = 2, told->clones = 1;
    pid_t victim = spawn_holder(told);
    zcp_chunk_release(&dropped);                                   // the victim is its last holder
    CHECK_EQ(used(manager), 2);
    CHECK_EQ(zcp_chunk_use_count(&kept), 2);
    test_kill(victim);
    CHECK_RECOVERS(manager, 1, 1);
    CHECK_EQ(used(manager), 1);
    CHECK_EQ(zcp_chunk_use_count(&kept), 1);
    pattern_check(&kept, told->to_borrow[0]);
    CHECK_ACQUIRE_FAILS(manager, told->to_borrow[1], ZCP_ERR_STALE);
    zcp_chunk_release(&kept);
    finish(manager);
}

// Owns, borrows what others own, borrows what it owns itself, and has clones of each.
TEST(death_of_an_owner_and_borrower_with_clones) {
    zcp_manager *manager = create(64, 12);
    orders *told = new_orders();
    zcp_chunk kept = allocate_with_pattern(manager, 64, &told->to_borrow[0]);
    zcp_chunk dropped = allocate(manager, 64);
    told->to_borrow[1] = token_of(&dropped);
    told->owns = 4, told->shares = 3, told->clones = 2, told->borrows = 2, told->borrows_own = true;
    pid_t victim = spawn_holder(told);
    zcp_chunk_release(&dropped);
    zcp_chunk seen = acquire(manager, told->tokens[1]);
    CHECK_EQ(used(manager), 6);
    test_kill(victim);
    CHECK_RECOVERS(manager, 1, 4);                                 // three of its own, and what was dropped
    CHECK_EQ(used(manager), 2);
    pattern_check(&seen, 1);
    pattern_check(&kept, told->to_borrow[0]);
    CHECK(zcp_chunk_use_count(&seen) == 1 && zcp_chunk_use_count(&kept) == 1);
    books_check(test_instance(), 2);
    zcp_chunk_release(&seen);
    zcp_chunk_release(&kept);
    finish(manager);
}

TEST(death_report_adds_up_over_several_dead) {
    zcp_manager *manager = create(64, 32), *peer = attach();
    zcp_recovery report = {77, 77};
    orders *told[4];
    pid_t victims[4];
    CHECK_STATUS(zcp_manager_recover(NULL, &report), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(report.dead_clients == 0 && report.chunks_reclaimed == 0);
    for (int i = 0; i < 4; i++) {
        told[i] = new_orders();
        told[i]->owns = i + 1, told[i]->shares = 1;
        if (i > 0)
            told[i]->borrows = 1, told[i]->to_borrow[0] = told[0]->tokens[0];
        victims[i] = spawn_holder(told[i]);
    }
    CHECK_EQ(used(manager), 10);
    for (int i = 0; i < 3; i++)
        test_kill(victims[i]);
    CHECK_RECOVERS(manager, 3, 5);                                 // the fourth borrows the first one's chunk
    CHECK_RECOVERS(peer, 0, 0);
    zcp_chunk seen = acquire(peer, told[0]->tokens[0]);
    CHECK_EQ(zcp_chunk_use_count(&seen), 2);
    zcp_chunk_release(&seen);
    test_kill(victims[3]);
    CHECK_OK(zcp_manager_recover(peer, NULL));
    CHECK_EQ(used(manager), 0);
    CHECK_RECOVERS(manager, 0, 0);
    zcp_manager_close(peer);
    CHECK_STATUS(zcp_manager_recover(peer, &report), ZCP_ERR_CLOSED);
    finish(manager);
}

// Opening sweeps the dead, not only the one whose slot it takes; and so does exhaustion. Nobody has to call recover.
static void kill_two_holders(zcp_manager *manager, int shares) {
    pid_t victims[2];
    for (int i = 0; i < 2; i++) {
        orders *told = new_orders();
        told->owns = 2, told->shares = shares;
        victims[i] = spawn_holder(told);
    }
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
    for (int i = 0; i < 2; i++)
        kill(victims[i], SIGKILL);
    for (int i = 0; i < 2; i++)
        test_join_signal(victims[i], SIGKILL);
    CHECK_EQ(used(manager), 4);
}

TEST(death_is_swept_by_an_opening_and_before_exhaustion) {
    zcp_manager *manager = create(64, 4);
    for (int shares = 0; shares < 3; shares++)
        for (int by_opening = 0; by_opening < 2; by_opening++) {
            zcp_chunk chunks[4];
            kill_two_holders(manager, shares);
            if (by_opening) {
                zcp_manager_close(attach());
                CHECK_EQ(used(manager), 0);
            }
            for (int n = 0; n < 4; n++)
                chunks[n] = allocate_in_the_end(manager, 64);
            for (int n = 0; n < 4; n++)
                zcp_chunk_release(&chunks[n]);
        }
    finish(manager);
}

TEST(death_frees_the_slot) {
    zcp_config config = one_pool(64, 8);
    zcp_manager *manager, *late;
    zcp_client_info info;
    orders *told[3];
    pid_t victims[3];
    zcp_manager_desc desc = {.name = test_instance(), .config = &config, .max_clients = 4, .timeout_ms = 50};
    CHECK_OK(zcp_manager_open(&manager, &desc));
    for (int i = 0; i < 3; i++) {
        told[i] = new_orders();
        told[i]->owns = 2;
        victims[i] = spawn_holder(told[i]);
    }
    CHECK_STATUS(zcp_manager_open(&late, &desc), ZCP_ERR_CLIENTS_FULL);
    CHECK(late == NULL);
    test_kill(victims[1]);
    CHECK_OK(zcp_manager_client_info(manager, told[1]->slot, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_DEAD);
    CHECK_EQ(info.pid, victims[1]);
    CHECK_OK(zcp_manager_open(&late, &desc));
    CHECK_EQ(slot_of(late), told[1]->slot);
    CHECK_EQ(used(manager), 4);
    CHECK_STATUS(zcp_manager_open(&late, &desc), ZCP_ERR_CLIENTS_FULL);
    test_kill(victims[0]);
    test_kill(victims[2]);
    CHECK_RECOVERS(manager, 2, 4);
    CHECK_OK(zcp_manager_client_info(manager, told[0]->slot, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_FREE);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Stopped is not dead

TEST(death_is_not_what_a_stopped_client_has) {
    zcp_manager *manager = create(64, 6);
    orders *told = new_orders();
    zcp_client_info info;
    uint64_t token;
    zcp_chunk kept = allocate_with_pattern(manager, 64, &token), rest[3], extra;
    told->to_borrow[0] = token;
    told->owns = 2, told->shares = 1, told->clones = 1, told->borrows = 1;
    pid_t client = spawn_holder(told);
    test_stop(client);
    CHECK_RECOVERS(manager, 0, 0);
    CHECK_OK(zcp_manager_client_info(manager, told->slot, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_ALIVE);
    zcp_chunk seen = acquire(manager, told->tokens[0]);
    for (int i = 0; i < 3; i++) {
        rest[i] = allocate(manager, 64);
        memset(rest[i].data, 0xff, 64);
    }
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
    for (int i = 0; i < 20; i++) {                                 // however often somebody looks
        test_sleep(2);
        CHECK(zcp_chunk_allocate(manager, 64, &extra) == ZCP_ERR_EXHAUSTED);
        zcp_manager_close(attach());
    }
    CHECK_EQ(used(manager), 6);
    pattern_check(&seen, 0);
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&rest[i]);
    zcp_chunk_release(&kept);                                      // the stopped one is its last holder
    CHECK_EQ(used(manager), 3);
    books_check(test_instance(), 3);
    kept = acquire(manager, token);
    pattern_check(&kept, token);
    zcp_chunk_release(&kept);
    zcp_chunk_release(&seen);
    test_resume(client);
    test_signal(&told->go_on);
    test_await(&told->done, 1);
    test_join(client);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

TEST(death_of_a_stopped_client_is_a_death) {
    zcp_manager *manager = create(64, 6);
    orders *told = new_orders();
    told->owns = 3, told->shares = 1;
    pid_t client = spawn_holder(told);
    test_stop(client);
    CHECK_RECOVERS(manager, 0, 0);
    test_kill(client);
    CHECK_RECOVERS(manager, 1, 3);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed at each step

typedef struct script {
    uint64_t lasting;                                              // token of a chunk that the test holds throughout
    const char *where;                                             // NULL: any step
    int nth;
} script;

// Goes through every way of taking and leaving a chunk.
static void play(zcp_manager *manager, zcp_manager *peer, script *told) {
    zcp_chunk never_shared = allocate(manager, 64);
    pattern_write(&never_shared, 1);
    zcp_chunk shared = allocate(manager, 64), cloned = zcp_chunk_clone(&shared);
    zcp_chunk lasting = acquire(manager, told->lasting), again = acquire(manager, told->lasting);
    zcp_chunk by_peer = acquire(peer, token_of(&shared)), by_me = acquire(manager, token_of(&shared));
    zcp_chunk_release(&cloned);
    zcp_chunk_release(&shared);                                    // disowned: peer and I borrow it
    zcp_chunk_release(&by_peer);
    zcp_chunk_release(&by_me);                                     // the last one: reaped
    zcp_chunk_release(&again);
    zcp_chunk_release(&lasting);
    zcp_chunk marked = allocate(manager, 64);
    uint64_t token = token_of(&marked), stale = token + (UINT64_C(1) << 32);
    zcp_chunk refused;
    CHECK_STATUS(zcp_chunk_acquire(manager, stale, &refused), ZCP_ERR_STALE);
    zcp_chunk_release(&marked);                                    // freed by the CAS of an owner
    zcp_chunk_release(&never_shared);                              // freed by the plain store
}

static void play_until_killed(void *argument) {
    script *told = argument;
    zcp_manager *manager = attach(), *peer = attach();
    test_at_step(told->where, told->nth, TEST_KILL, NULL);
    play(manager, peer, told);
    zcp_manager_close(manager);
    zcp_manager_close(peer);
    test_steps_clear();
}

// Whatever the victim left: recovery takes back what the records call used and the test does not hold.
static void check_after_death(zcp_manager *manager, uint32_t dead, zcp_chunk *kept, uint64_t token) {
    uint64_t before = used(manager);
    zcp_recovery report = recover(manager);
    CHECK_EQ(report.dead_clients, dead);
    CHECK_EQ(report.chunks_reclaimed, before - 1);
    CHECK_EQ(used(manager), 1);
    CHECK_EQ(zcp_chunk_use_count(kept), 1);
    pattern_check(kept, token);
    CHECK_EQ(inside_hint_count(manager, 0), 5);                    // the hints are all back, too
    CHECK_RECOVERS(manager, 0, 0);
    books_check(test_instance(), 1);
}

TEST(death_at_each_step_of_allocate_acquire_and_release) {
    zcp_manager *manager = create(64, 6);
    script *told = test_shared(sizeof *told);
    int kills = 0;
    zcp_chunk kept = allocate_with_pattern(manager, 64, &told->lasting);
    for (told->nth = 1;; told->nth++) {
        pid_t victim = test_spawn(play_until_killed, told);
        if (!test_join_killed(victim))
            break;
        kills++;
        uint64_t before = used(manager);
        zcp_recovery report = recover(manager);
        CHECK_MSG(report.dead_clients == 2 || (report.dead_clients == 1 && report.chunks_reclaimed == 0),
                  "step %d: %u dead, %llu chunks", told->nth, report.dead_clients,
                  (unsigned long long)report.chunks_reclaimed);
        CHECK_EQ(report.chunks_reclaimed, before - 1);
        check_after_death(manager, 0, &kept, told->lasting);
    }
    CHECK_MSG(kills > 30, "only %d steps", kills);
    check_after_death(manager, 0, &kept, told->lasting);
    zcp_chunk_release(&kept);
    finish(manager);
}

// The same by name: none of them has gone, and at each the victim really died.
TEST(death_at_each_named_step) {
    static const char *const names[] = {"popped",  "claimed", "changing", "announced", "unowned", "freed",
                                        "disowned", "cleared", "reaping",  "closing",   "sweeping", "sweep_disowned",
                                        "leaf_swept", "swept"};
    zcp_manager *manager = create(64, 6);
    script *told = test_shared(sizeof *told);
    zcp_chunk kept = allocate_with_pattern(manager, 64, &told->lasting);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        told->where = names[i];
        told->nth = 1;
        pid_t victim = test_spawn(play_until_killed, told);
        CHECK_MSG(test_join_killed(victim), "nobody comes by \"%s\"", names[i]);
        check_after_death(manager, 2, &kept, told->lasting);
    }
    zcp_chunk_release(&kept);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed at a thousand random moments

enum { WORKERS = 4, SLOTS = 6, HOLD = 4, LASTING = 5, POOL = 24 };

typedef struct market {
    _Atomic uint64_t slots[SLOTS];                                 // tokens on their way from any to any
    _Atomic uint32_t survivor_ready, survivor_may_go;
    _Atomic uint64_t verified, stale, survivor_rounds;
    uint64_t lasting[LASTING];
    uint64_t survivors[LASTING];
} market;

static bool obtain(market *shared, zcp_manager *manager, zcp_chunk *chunk) {
    uint64_t choice = test_random_below(4), token;
    if (choice == 0) {
        if (zcp_chunk_allocate(manager, 1 + test_random_below(64), chunk) != ZCP_OK)
            return false;
        token = token_of(chunk);
        pattern_write(chunk, token);
        atomic_store_explicit(&shared->slots[test_random_below(SLOTS)], token, memory_order_release);
        return true;
    }
    token = atomic_load_explicit(&shared->slots[test_random_below(SLOTS)], memory_order_acquire);
    if (choice == 1)
        token = shared->lasting[test_random_below(LASTING)];
    if (token == 0)
        return false;
    zcp_status status = zcp_chunk_acquire(manager, token, chunk);
    CHECK_MSG(status == ZCP_OK || (status == ZCP_ERR_STALE && choice != 1), "%s: %s", zcp_status_name(status),
              zcp_last_message());
    if (status != ZCP_OK) {
        atomic_fetch_add_explicit(&shared->stale, 1, memory_order_relaxed);
        return false;
    }
    check_tokened(chunk);
    atomic_fetch_add_explicit(&shared->verified, 1, memory_order_relaxed);
    return true;
}

static void work(market *shared, zcp_manager *manager, zcp_chunk held[HOLD], uint64_t steps) {
    for (uint64_t i = 0; i < steps; i++) {
        zcp_chunk *mine = &held[test_random_below(HOLD)], *other = &held[test_random_below(HOLD)];
        if (zcp_chunk_is_valid(mine))
            check_tokened(mine);
        zcp_chunk_release(mine);
        if (test_random_below(4) == 0 && other != mine)
            *mine = zcp_chunk_clone(other);
        else
            obtain(shared, manager, mine);
    }
}

static void worker(void *argument) {
    market *shared = argument;
    zcp_chunk held[HOLD] = {{0}};
    if (test_random_below(3) == 0)                                 // at some step, attaching included
        test_step_any_kill(1 + (int)test_random_below(400));
    zcp_manager *manager = attach();
    for (;;)
        work(shared, manager, held, 1000);
}

// Is never killed: all the time holds chunks that must stay as they are.
static void survivor(void *argument) {
    market *shared = argument;
    zcp_chunk mine[LASTING], theirs[LASTING], held[HOLD] = {{0}};
    zcp_manager *manager = attach();
    for (int i = 0; i < LASTING; i++) {
        mine[i] = allocate_with_pattern(manager, 64, &shared->survivors[i]);
        theirs[i] = acquire(manager, shared->lasting[i]);
    }
    test_signal(&shared->survivor_ready);
    while (atomic_load(&shared->survivor_may_go) == 0) {
        for (int i = 0; i < LASTING; i++) {
            pattern_check(&mine[i], shared->survivors[i]);
            pattern_check(&theirs[i], shared->lasting[i]);
        }
        work(shared, manager, held, 20);
        atomic_fetch_add(&shared->survivor_rounds, 1);
        test_sleep(1);
    }
    for (int i = 0; i < HOLD; i++)
        zcp_chunk_release(&held[i]);
    for (int i = 0; i < LASTING; i++) {
        zcp_chunk_release(&mine[i]);
        zcp_chunk_release(&theirs[i]);
    }
    zcp_manager_close(manager);
}

TEST_WITH(death_a_thousand_times, .seconds = 120) {
    market *shared = test_shared(sizeof *shared);
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 64, POOL));
    zcp_manager *manager = create_named(test_instance(), &config, ZCP_CHECKED);
    zcp_chunk lasting[LASTING];
    for (int i = 0; i < LASTING; i++)
        lasting[i] = allocate_with_pattern(manager, 64, &shared->lasting[i]);
    pid_t steady = test_spawn(survivor, shared), workers[WORKERS];
    test_await(&shared->survivor_ready, 1);
    for (int i = 0; i < WORKERS; i++)
        workers[i] = test_spawn(worker, shared);
    for (int kills = 0; kills < ROUNDS(1000); kills++) {
        int i = (int)test_random_below(WORKERS);
        struct timespec a_moment = {.tv_nsec = (long)test_random_below(1500000)};
        nanosleep(&a_moment, NULL);
        test_kill(workers[i]);
        workers[i] = test_spawn(worker, shared);
        if (kills % 4 == 0)                                        // else an opening or an exhaustion does it
            (void)recover(manager);
    }
    for (int i = 0; i < WORKERS; i++)
        test_kill(workers[i]);
    atomic_store(&shared->survivor_may_go, 1);
    test_join(steady);
    (void)recover(manager);
    CHECK_EQ(used(manager), LASTING);
    for (int i = 0; i < LASTING; i++) {
        pattern_check(&lasting[i], shared->lasting[i]);
        CHECK_EQ(zcp_chunk_use_count(&lasting[i]), 1);
    }
    books_check(test_instance(), LASTING);
    for (int i = 0; i < LASTING; i++)
        zcp_chunk_release(&lasting[i]);
    test_note("%llu payloads verified, %llu tokens stale, survivor's rounds %llu", (unsigned long long)shared->verified,
              (unsigned long long)shared->stale, (unsigned long long)shared->survivor_rounds);
    CHECK(shared->verified > 0 && shared->stale > 0 && shared->survivor_rounds > 0);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Sweepers die, too

typedef struct sweep_orders {
    _Atomic uint32_t ready, go;
    int nth;
    const char *where;
    bool by_opening;
    zcp_recovery report;
} sweep_orders;

static void sweep_until_killed(void *argument) {
    sweep_orders *told = argument;
    if (told->by_opening)
        test_at_step(told->where, told->nth, TEST_KILL, NULL);
    zcp_manager *manager = attach();
    test_signal(&told->ready);
    test_await(&told->go, 1);
    test_at_step(told->where, told->nth, TEST_KILL, NULL);
    told->report = recover(manager);
    test_steps_clear();
    zcp_manager_close(manager);
}

// A victim that owned, borrowed and dropped; the sweeper is killed at each step in turn; a third one sweeps both.
static void check_deaths_of_sweepers(bool by_opening, int steps_expected) {
    zcp_manager *manager = create(64, 6);
    int kills = 0;
    uint64_t token;
    zcp_chunk kept = allocate_with_pattern(manager, 64, &token);
    for (int nth = 1;; nth++) {
        orders *told = new_orders();
        sweep_orders *sweeping = test_shared(sizeof *sweeping);
        zcp_chunk dropped = allocate_in_the_end(manager, 64);
        told->to_borrow[0] = token;
        told->to_borrow[1] = token_of(&dropped);
        told->owns = 2, told->shares = 1, told->clones = 1, told->borrows = 2;
        sweeping->nth = nth;
        sweeping->by_opening = by_opening;
        pid_t sweeper = 0, victim = spawn_holder(told);
        zcp_chunk_release(&dropped);
        if (!by_opening) {                                         // it attaches before there is something to sweep
            sweeper = test_spawn(sweep_until_killed, sweeping);
            test_await(&sweeping->ready, 1);
        }
        CHECK_EQ(used(manager), 4);
        test_kill(victim);
        if (by_opening)
            sweeper = test_spawn(sweep_until_killed, sweeping);
        test_signal(&sweeping->go);
        bool killed = test_join_killed(sweeper);
        if (killed) {
            kills++;
            uint64_t before = used(manager);
            zcp_recovery report = recover(manager);
            CHECK(report.dead_clients == 1 || report.dead_clients == 2);
            CHECK(by_opening || report.dead_clients == 2);
            CHECK_EQ(report.chunks_reclaimed, before - 1);
        }
        CHECK_EQ(used(manager), 1);
        CHECK_EQ(zcp_chunk_use_count(&kept), 1);
        pattern_check(&kept, token);
        CHECK_RECOVERS(manager, 0, 0);
        books_check(test_instance(), 1);
        if (!killed)
            break;
    }
    CHECK_MSG(kills >= steps_expected, "only %d steps", kills);
    zcp_chunk_release(&kept);
    finish(manager);
}

TEST(death_of_a_sweeper_at_each_step_is_swept_by_a_third) {
    check_deaths_of_sweepers(false, 15);
}

TEST(death_of_one_who_sweeps_while_it_opens) {
    check_deaths_of_sweepers(true, 15);
}

static void sweep_at_once(void *argument) {
    sweep_orders *told = argument;
    zcp_manager *manager = attach();
    test_signal(&told->ready);
    test_await(&told->go, 1);
    told->report = recover(manager);
    test_signal(&told->ready);
    // a close sweeps too, and would reap without reporting what the other one reports
    test_await(&told->go, 2);
    zcp_manager_close(manager);
}

TEST(death_is_reported_once_by_two_sweepers_at_once) {
    zcp_manager *manager = create(64, 24);
    uint32_t both = 0;
    for (int round = 0; round < ROUNDS(40); round++) {
        sweep_orders *sweeping[2];
        pid_t sweepers[2], victims[4];
        for (int i = 0; i < 2; i++) {
            sweeping[i] = test_shared(sizeof *sweeping[i]);
            sweepers[i] = test_spawn(sweep_at_once, sweeping[i]);
            test_await(&sweeping[i]->ready, 1);
        }
        for (int i = 0; i < 4; i++) {
            orders *told = new_orders();
            told->owns = 4, told->shares = 2, told->borrows_own = true;
            victims[i] = spawn_holder(told);
        }
        for (int i = 0; i < 4; i++)
            kill(victims[i], SIGKILL);
        for (int i = 0; i < 4; i++)
            test_join_signal(victims[i], SIGKILL);
        CHECK_EQ(used(manager), 16);
        test_signal(&sweeping[0]->go);
        test_signal(&sweeping[1]->go);
        for (int i = 0; i < 2; i++)
            test_await(&sweeping[i]->ready, 2);
        for (int i = 0; i < 2; i++)
            test_signal(&sweeping[i]->go);
        test_join(sweepers[0]);
        test_join(sweepers[1]);
        const zcp_recovery *a = &sweeping[0]->report, *b = &sweeping[1]->report;
        CHECK_EQ(a->dead_clients + b->dead_clients, 4);
        CHECK_EQ(a->chunks_reclaimed + b->chunks_reclaimed, 16);
        CHECK_EQ(used(manager), 0);
        both += a->dead_clients != 0 && b->dead_clients != 0;
    }
    test_note("both had something to sweep in %u rounds", both);
    finish(manager);
}

static void sweep_and_stop(void *argument) {
    sweep_orders *told = argument;
    zcp_manager *manager = attach();
    test_signal(&told->ready);
    test_await(&told->go, 1);
    test_at_step(told->where, told->nth, TEST_STOP, NULL);
    told->report = recover(manager);
    zcp_manager_close(manager);
}

// A stopped sweeper keeps the dead one's slot, and delays nobody; killed, it leaves it to the next.
static void check_stopped_sweeper(const char *where, int nth, bool is_killed) {
    zcp_manager *manager = create(64, 8);
    orders *told = new_orders(), *other = new_orders();
    sweep_orders *sweeping = test_shared(sizeof *sweeping);
    told->owns = 3, told->shares = 1;
    other->owns = 2;
    sweeping->where = where, sweeping->nth = nth;
    pid_t sweeper = test_spawn(sweep_and_stop, sweeping);
    test_await(&sweeping->ready, 1);
    pid_t victim = spawn_holder(told);
    // so that the sweep frees one by a look at its borrowers, the others straight away
    zcp_chunk borrowed = acquire(manager, told->tokens[0]);
    zcp_chunk_release(&borrowed);
    test_kill(victim);
    test_signal(&sweeping->go);
    test_await_stop(sweeper);
    pid_t second = spawn_holder(other);                            // opens and sweeps, and is not kept from it
    test_kill(second);
    zcp_recovery report = recover(manager);                        // perhaps with the chunk that the sweeper stands at
    CHECK_EQ(report.dead_clients, 1);
    CHECK(report.chunks_reclaimed == 2 || report.chunks_reclaimed == 3);
    CHECK_RECOVERS(manager, 0, 0);
    zcp_chunk chunk = allocate_in_the_end(manager, 64);
    CHECK(used(manager) <= 4);
    zcp_chunk_release(&chunk);
    uint64_t left = used(manager);
    if (is_killed) {
        test_kill(sweeper);
        CHECK_RECOVERS(manager, 2, left);
    } else {
        test_resume(sweeper);
        test_join(sweeper);
        CHECK_EQ(sweeping->report.dead_clients, 1);
        CHECK_EQ(sweeping->report.chunks_reclaimed + report.chunks_reclaimed, 5);
    }
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

TEST(death_and_a_stopped_sweeper) {
    static const char *const names[] = {"sweeping", "sweep_disowned", "cleared", "reaping",
                                        "freed",    "leaf_swept",     "swept"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        check_stopped_sweeper(names[i], 1, false);
        check_stopped_sweeper(names[i], 1, true);
    }
}
