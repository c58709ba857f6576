// tests/hidden_test.c: no chunk is hidden by one who is stopped in the middle of a step, or by a lost hint: the others
// obtain every chunk that nobody holds, and once the stopped one goes on, everything ends exactly.
#include "harness/chunks.h"

#include <signal.h>
#include <sys/wait.h>

enum { POOL = 8 };

// ---------------------------------------------------------------------------------------------------------------------
// One who stops at a step

typedef struct stopped {
    const char *where;
    int nth;
    void (*act)(struct stopped *self, zcp_manager *manager);       // stops in there
    _Atomic uint32_t holding, go;
    uint64_t token, given;                                         // token: its own chunk's; given: of the test's chunk
    zcp_status expected;                                           // of the call that it was stopped in
} stopped;

static void stop_at(stopped *self) {
    test_at_step(self->where, self->nth == 0 ? 1 : self->nth, TEST_STOP, NULL);
}

static void say_and_wait(stopped *self) {
    test_signal(&self->holding);
    test_await(&self->go, 1);
}

static void release_never_shared(stopped *self, zcp_manager *manager) {
    zcp_chunk chunk = allocate(manager, 64);
    say_and_wait(self);
    stop_at(self);
    zcp_chunk_release(&chunk);
}

static void release_marked(stopped *self, zcp_manager *manager) {
    zcp_chunk chunk = allocate(manager, 64);
    self->token = token_of(&chunk);
    say_and_wait(self);
    stop_at(self);
    zcp_chunk_release(&chunk);
}

static void release_borrowed(stopped *self, zcp_manager *manager) {
    zcp_chunk chunk = acquire(manager, self->given);
    say_and_wait(self);
    stop_at(self);
    zcp_chunk_release(&chunk);
}

static void allocate_one(stopped *self, zcp_manager *manager) {
    zcp_chunk chunk;
    say_and_wait(self);
    stop_at(self);
    CHECK_STATUS(zcp_chunk_allocate(manager, 64, &chunk), self->expected);
    zcp_chunk_release(&chunk);
}

static void acquire_one(stopped *self, zcp_manager *manager) {
    zcp_chunk chunk;
    say_and_wait(self);
    stop_at(self);
    CHECK_STATUS(zcp_chunk_acquire(manager, self->given, &chunk), self->expected);
    if (self->expected == ZCP_OK)
        pattern_check(&chunk, self->given);
    zcp_chunk_release(&chunk);
}

static void close_with_chunks(stopped *self, zcp_manager *manager) {
    zcp_chunk a = allocate(manager, 64), b = acquire(manager, self->given);
    CHECK(a.data != b.data);
    // what nobody has borrowed is freed without that step
    if (strcmp(self->where, "reaping") == 0) {
        zcp_chunk c = acquire(manager, token_of(&a));
        zcp_chunk_release(&c);
    }
    say_and_wait(self);
    stop_at(self);
    zcp_manager_close(manager);
}

static void run_and_stop(void *argument) {
    stopped *self = argument;
    zcp_manager *manager = attach();
    self->act(self, manager);
    zcp_manager_close(manager);
}

static pid_t begin(stopped *self) {
    pid_t pid = test_spawn(run_and_stop, self);
    test_await(&self->holding, 1);
    return pid;
}

static void until_stopped(stopped *self, pid_t pid) {
    test_signal(&self->go);
    test_await_stop(pid);
}

// Obtains so many chunks of which none is held by anybody else, and not one more.
static void obtain(zcp_manager *manager, zcp_chunk *chunks, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        chunks[i] = allocate_in_the_end(manager, 64);
        pattern_write(&chunks[i], i);
        for (uint64_t j = 0; j < i; j++)
            CHECK(chunks[i].data != chunks[j].data);
    }
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
}

static void give_back(zcp_chunk *chunks, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        pattern_check(&chunks[i], i);
        zcp_chunk_release(&chunks[i]);
    }
}

// Stopped there it holds nothing: the test obtains all chunks but what it holds itself. Then it goes on, while the test
// still has them all.
static void check_hides_nothing(zcp_manager *manager, stopped *self, pid_t pid, uint64_t free_now) {
    zcp_chunk chunks[POOL];
    until_stopped(self, pid);
    obtain(manager, chunks, free_now);
    test_resume(pid);
    test_join(pid);
    give_back(chunks, free_now);
}

static stopped *new_stopped(void (*act)(stopped *, zcp_manager *), const char *where) {
    stopped *self = test_shared(sizeof *self);
    self->act = act;
    self->where = where;
    return self;
}

TEST(hidden_between_freeing_and_pushing) {
    static void (*const acts[])(stopped *, zcp_manager *) = {release_never_shared, release_marked};
    for (int i = 0; i < 2; i++) {
        zcp_manager *manager = create(64, POOL);
        stopped *self = new_stopped(acts[i], "freed");
        check_hides_nothing(manager, self, begin(self), POOL);
        finish(manager);
    }
}

TEST(hidden_between_freeing_and_pushing_by_the_last_borrower) {
    static const char *const names[] = {"cleared", "reaping", "freed"};
    for (int i = 0; i < 3; i++) {
        zcp_manager *manager = create(64, POOL);
        stopped *self = new_stopped(release_borrowed, names[i]);
        zcp_chunk chunk = allocate_with_pattern(manager, 64, &self->given);
        pid_t pid = begin(self);
        zcp_chunk_release(&chunk);
        CHECK_EQ(used(manager), 1);
        check_hides_nothing(manager, self, pid, POOL);
        finish(manager);
    }
}

// The owner has left and the borrower's mark is gone; whoever of the two stands still, nobody holds the chunk.
TEST(hidden_between_disowning_and_reaping) {
    static const char *const names[] = {NULL, "cleared", "reaping"};
    for (int i = 0; i < 3; i++) {
        zcp_manager *manager = create(64, POOL);
        zcp_chunk chunks[POOL];
        stopped *owner = new_stopped(release_marked, "disowned"), *borrower = new_stopped(release_borrowed, names[i]);
        pid_t owner_pid = begin(owner), borrower_pid = 0;
        borrower->given = owner->token;
        zcp_chunk chunk = {0};
        if (i > 0)
            borrower_pid = begin(borrower);
        else
            chunk = acquire(manager, owner->token);
        until_stopped(owner, owner_pid);
        zcp_chunk_release(&chunk);
        if (i > 0)
            until_stopped(borrower, borrower_pid);
        obtain(manager, chunks, POOL);
        test_resume(owner_pid);
        test_join(owner_pid);
        if (i > 0) {
            test_resume(borrower_pid);
            test_join(borrower_pid);
        }
        give_back(chunks, POOL);
        finish(manager);
    }
}

TEST(hidden_between_popping_and_claiming) {
    zcp_manager *manager = create(64, POOL);
    stopped *self = new_stopped(allocate_one, "popped");
    self->expected = ZCP_ERR_EXHAUSTED;                            // by then the test has them all
    check_hides_nothing(manager, self, begin(self), POOL);
    finish(manager);
}

TEST(hidden_by_nobody_who_only_sweeps) {
    static const char *const names[] = {"reaping", "freed", "leaf_swept", "swept"};
    for (int i = 0; i < 4; i++) {
        zcp_manager *manager = create(64, POOL);
        zcp_chunk chunks[POOL];
        stopped *closing = new_stopped(close_with_chunks, names[i]);
        zcp_chunk given = allocate_with_pattern(manager, 64, &closing->given);
        pid_t pid = begin(closing);
        until_stopped(closing, pid);
        obtain(manager, chunks, POOL - 1);
        pattern_check(&given, closing->given);
        zcp_chunk_release(&given);
        test_resume(pid);
        test_join(pid);
        give_back(chunks, POOL - 1);
        finish(manager);
    }
}

// What the stopped one does hold stays its own, and is there when it goes on.
TEST(hidden_is_only_what_the_stopped_one_holds) {
    static const struct {
        void (*act)(stopped *, zcp_manager *);
        const char *where;
    } cases[] = {{allocate_one, "claimed"}, {release_never_shared, "unowned"}};
    for (int i = 0; i < 2; i++) {
        zcp_manager *manager = create(64, POOL);
        stopped *self = new_stopped(cases[i].act, cases[i].where);
        check_hides_nothing(manager, self, begin(self), POOL - 1);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// One who stops while it acquires

// The owner lets go meanwhile: the chunk is free, and given out again; the late one is told so.
TEST(hidden_never_by_an_acquire_of_what_its_owner_frees) {
    static const char *const names[] = {"changing", "announced"};
    for (int i = 0; i < 2; i++) {
        zcp_manager *manager = create(64, POOL);
        stopped *self = new_stopped(acquire_one, names[i]);
        zcp_chunk chunk = allocate_with_pattern(manager, 64, &self->given), chunks[POOL];
        self->expected = ZCP_ERR_STALE;
        pid_t pid = begin(self);
        until_stopped(self, pid);
        zcp_chunk_release(&chunk);
        obtain(manager, chunks, POOL);
        test_resume(pid);
        test_join(pid);
        give_back(chunks, POOL);
        finish(manager);
    }
}

// As before, but the new holder has made a token when the late one retracts: its chunk must not be freed by that.
TEST(hidden_acquire_retracts_without_harm_to_the_next_life) {
    zcp_manager *manager = create(64, 1), *peer = attach();
    stopped *self = new_stopped(acquire_one, "announced");
    zcp_chunk chunk = allocate_with_pattern(manager, 64, &self->given);
    uint64_t token;
    self->expected = ZCP_ERR_STALE;
    pid_t pid = begin(self);
    until_stopped(self, pid);
    zcp_chunk_release(&chunk);
    chunk = allocate_with_pattern(manager, 64, &token);
    zcp_chunk seen = acquire(peer, token);
    zcp_chunk_release(&chunk);                                     // now a borrower alone holds it
    test_resume(pid);
    test_join(pid);
    CHECK_EQ(used(manager), 1);
    pattern_check(&seen, token);
    CHECK_EQ(zcp_chunk_use_count(&seen), 1);
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
    zcp_chunk_release(&seen);
    zcp_manager_close(peer);
    finish(manager);
}

// Somebody holds it all the time, or the announcement keeps it: then the late one gets it, and its payload.
TEST(hidden_acquire_ends_well_if_its_chunk_stayed) {
    for (int owner_leaves = 0; owner_leaves < 2; owner_leaves++) {
        zcp_manager *manager = create(64, POOL), *peer = attach();
        stopped *self = new_stopped(acquire_one, "announced");
        zcp_chunk chunk = allocate_with_pattern(manager, 64, &self->given), chunks[POOL];
        zcp_chunk seen = acquire(peer, self->given);
        pid_t pid = begin(self);
        until_stopped(self, pid);
        if (owner_leaves) {
            zcp_chunk_release(&chunk);
            zcp_chunk_release(&seen);
        }
        obtain(manager, chunks, POOL - 1);
        test_resume(pid);
        test_join(pid);
        give_back(chunks, POOL - 1);
        zcp_chunk_release(&chunk);
        zcp_chunk_release(&seen);
        zcp_manager_close(peer);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// One who stops while it reaps

// Between the reaper's look and its CAS somebody borrows the chunk: its ticket makes the CAS fail.
TEST(hidden_reaper_does_not_free_what_was_borrowed_meanwhile) {
    for (int comes_and_goes = 0; comes_and_goes < 2; comes_and_goes++) {
        zcp_manager *manager = create(64, 2), *peer = attach();
        stopped *self = new_stopped(release_borrowed, "reaping");
        zcp_chunk chunk = allocate_with_pattern(manager, 64, &self->given);
        pid_t pid = begin(self);
        zcp_chunk_release(&chunk);
        until_stopped(self, pid);
        zcp_chunk seen = acquire(peer, self->given);               // held by nobody, but not freed yet
        if (comes_and_goes) {                                      // a second one, then the first leaves
            zcp_chunk other = acquire(manager, self->given);
            zcp_chunk_release(&seen);
            seen = other;
        }
        test_resume(pid);
        test_join(pid);
        CHECK_EQ(used(manager), 1);
        CHECK_EQ(zcp_chunk_use_count(&seen), 1);
        zcp_chunk rest = allocate(manager, 64);
        CHECK(rest.index != seen.index);
        CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
        pattern_check(&seen, self->given);
        zcp_chunk_release(&rest);
        zcp_chunk_release(&seen);
        zcp_manager_close(peer);
        finish(manager);
    }
}

// Another one reaps it, it is given out again, shared, and its owner leaves: the old reaper's CAS is of an older life.
TEST(hidden_reaper_does_not_free_the_next_life) {
    zcp_manager *manager = create(64, 1), *peer = attach();
    stopped *self = new_stopped(release_borrowed, "reaping");
    zcp_chunk chunk = allocate_with_pattern(manager, 64, &self->given);
    uint64_t token;
    pid_t pid = begin(self);
    zcp_chunk_release(&chunk);
    until_stopped(self, pid);
    chunk = allocate_in_the_end(manager, 64);
    token = token_of(&chunk);
    pattern_write(&chunk, token);
    zcp_chunk seen = acquire(peer, token);
    zcp_chunk_release(&chunk);
    test_resume(pid);
    test_join(pid);
    CHECK_EQ(zcp_chunk_use_count(&seen), 1);
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
    pattern_check(&seen, token);
    zcp_chunk_release(&seen);
    zcp_manager_close(peer);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// At any step of anything

static void act_through_all(stopped *self, zcp_manager *manager) {
    say_and_wait(self);
    stop_at(self);
    zcp_chunk a = allocate(manager, 64), b = zcp_chunk_clone(&a);
    pattern_write(&a, 1);
    zcp_chunk lasting = acquire(manager, self->given), own = acquire(manager, token_of(&a));
    zcp_chunk_release(&b);
    zcp_chunk_release(&a);
    pattern_check(&own, 1);
    zcp_chunk_release(&own);
    zcp_chunk_release(&lasting);
    (void)recover(manager);
    zcp_chunk c = allocate(manager, 64);
    zcp_chunk_release(&c);
    zcp_manager_close(manager);
    test_steps_clear();
}

TEST(hidden_stopped_at_any_step_delays_nobody) {
    zcp_manager *manager = create(64, POOL);
    uint64_t token;
    zcp_chunk lasting = allocate_with_pattern(manager, 64, &token), chunks[POOL];
    int stops = 0;
    for (bool reached = true; reached; stops += reached) {
        stopped *self = new_stopped(act_through_all, NULL);
        int status;
        self->given = token;
        self->nth = stops + 1;
        pid_t pid = begin(self);
        test_signal(&self->go);
        CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
        reached = WIFSTOPPED(status);
        uint64_t free_now = POOL - 1;
        if (reached) {
            CHECK_EQ(recover(manager).dead_clients, 0);
            chunks[0] = acquire(manager, token);                   // all goes on beside it
            zcp_chunk_release(&chunks[0]);
            free_now -= used(manager) > 1 ? 1 : 0;                 // it may hold one
            for (uint64_t i = 0; i < free_now; i++)
                chunks[i] = allocate_in_the_end(manager, 64);
            for (uint64_t i = 0; i < free_now; i++)
                zcp_chunk_release(&chunks[i]);
            test_resume(pid);
            test_join(pid);
        } else
            CHECK_EQ(status, 0);
        CHECK_EQ(used(manager), 1);
        pattern_check(&lasting, token);
        books_check(test_instance(), 1);
    }
    CHECK_MSG(stops > 20, "only %d steps", stops);
    zcp_chunk_release(&lasting);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Lost hints, and exhaustion

TEST(hidden_chunks_without_hints_are_found) {
    zcp_config config = {0};
    zcp_chunk chunks[32];
    CHECK_OK(zcp_config_add_pool(&config, 64, 5));
    CHECK_OK(zcp_config_add_pool(&config, 128, 20));
    CHECK_OK(zcp_config_add_pool(&config, 64, 7));
    zcp_manager *strict = create_named(test_instance(), &config, 0);
    zcp_manager *fallback = attach_named(test_instance(), ZCP_FALLBACK);
    for (int all = 0; all < 2; all++)
        for (int with_fallback = 0; with_fallback < 2; with_fallback++) {
            zcp_manager *manager = with_fallback ? fallback : strict;
            uint64_t count = with_fallback ? 32 : 12;
            for (uint32_t pool = 0; pool < 3; pool += with_fallback ? 1 : 2)       // those that serve
                for (uint32_t i = 0; i < (uint32_t[]){5, 20, 7}[pool]; i++)
                    CHECK(!(all || test_random_below(2) == 0) || inside_drop_hint(manager, pool, i));
            for (uint64_t i = 0; i < count; i++) {
                chunks[i] = allocate_in_the_end(manager, 64);
                pattern_write(&chunks[i], i);
            }
            CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
            for (uint64_t i = 0; i < count; i++) {
                pattern_check(&chunks[i], i);
                zcp_chunk_release(&chunks[i]);
            }
            books_check_by(strict, 0);
        }
    zcp_manager_close(fallback);
    finish(strict);
}

// Frees two chunks as their last borrower, and is stopped or killed when they are listed but the hint of their leaf is
// not there yet.
static void stop_before_the_leaf_is_hinted(void *argument) {
    stopped *self = argument;
    zcp_manager *manager = attach();
    zcp_chunk a = acquire(manager, self->given), b = acquire(manager, self->token);
    uint32_t index = inside_index_in_pool(&a);
    say_and_wait(self);
    zcp_chunk_release(&a);
    zcp_chunk_release(&b);
    CHECK(inside_drop_leaf_hint(manager, 0, index));
    raise(self->nth);
}

// Whoever sweeps the dead one, or looks at all the records, makes the leaf be found by everybody, at once: also by
// those who make no look themselves because one was made a moment ago.
TEST(hidden_leaf_without_hint_is_found_after_a_sweep_or_look) {
    enum { COUNT = 100, LOST = 43 };                               // leaves of 8; nobody's own
    for (int by_look = 0; by_look < 2; by_look++) {
        zcp_manager *manager = create(64, COUNT), *peer = attach();
        stopped *self = test_shared(sizeof *self);
        zcp_chunk chunks[COUNT], lost[2];
        for (int i = 0; i < COUNT; i++) {
            zcp_chunk chunk = allocate(manager, 64);
            chunks[inside_index_in_pool(&chunk)] = chunk;
        }
        self->given = token_of(&chunks[LOST]);
        self->token = token_of(&chunks[LOST + 1]);
        self->nth = by_look ? SIGSTOP : SIGKILL;
        pid_t pid = test_spawn(stop_before_the_leaf_is_hinted, self);
        test_await(&self->holding, 1);
        zcp_chunk_release(&chunks[LOST]);
        zcp_chunk_release(&chunks[LOST + 1]);
        test_signal(&self->go);
        by_look ? test_await_stop(pid) : test_join_signal(pid, SIGKILL);
        CHECK_EQ(used(manager), COUNT - 2);
        CHECK_STATUS(inside_allocate_hinted(manager, 64, &lost[0]), ZCP_ERR_EXHAUSTED);        // lost indeed
        CHECK_STATUS(inside_allocate_hinted(peer, 64, &lost[0]), ZCP_ERR_EXHAUSTED);
        if (!by_look)
            CHECK_RECOVERS(manager, 1, 0);
        lost[0] = allocate(manager, 64);
        lost[1] = allocate(peer, 64);
        CHECK(lost[0].index != lost[1].index);
        CHECK_ALLOCATE_FAILS(peer, 64, ZCP_ERR_EXHAUSTED);
        if (by_look) {
            test_kill(pid);
            CHECK_RECOVERS(manager, 1, 0);
        }
        for (int i = 0; i < COUNT; i++)
            zcp_chunk_release(&chunks[i]);
        zcp_chunk_release(&lost[0]);
        zcp_chunk_release(&lost[1]);
        zcp_manager_close(peer);
        finish(manager);
    }
}

static void release_when_told(void *argument) {
    stopped *self = argument;
    zcp_manager *manager = attach();
    zcp_chunk chunk = allocate(manager, 64);
    say_and_wait(self);
    zcp_chunk_release(&chunk);
    test_signal(&self->holding);
    test_await(&self->go, 2);
    zcp_manager_close(manager);
}

// Exhaustion ends with the next release, whatever was told a moment ago.
TEST(hidden_is_no_chunk_that_is_released_after_exhaustion) {
    zcp_manager *manager = create(64, 3);
    stopped *self = test_shared(sizeof *self);
    zcp_chunk chunks[3];
    pid_t pid = test_spawn(release_when_told, self);
    test_await(&self->holding, 1);
    chunks[0] = allocate(manager, 64);
    chunks[1] = allocate(manager, 64);
    for (int i = 0; i < 100; i++)
        CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
    test_signal(&self->go);
    test_await(&self->holding, 2);
    chunks[2] = allocate(manager, 64);                             // at once
    for (int i = 0; i < 3; i++) {
        CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
        zcp_chunk_release(&chunks[i]);
        chunks[i] = allocate(manager, 64);                         // also what was released here
    }
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&chunks[i]);
    test_signal(&self->go);
    test_join(pid);
    finish(manager);
}

// A look costs at least a pass over the records; most calls must make none. In CPU time, so other load does not count.
TEST(hidden_exhaustion_in_a_loop_stays_cheap) {
    enum { COUNT = 50000, CALLS = 5000 };
    zcp_manager *manager = create(64, COUNT);
    zcp_chunk *chunks = test_shared(COUNT * sizeof *chunks), extra;
    for (int i = 0; i < COUNT; i++)
        chunks[i] = allocate(manager, 64);
    uint64_t began = test_cpu_now();
    for (int i = 0; i < CALLS / 20; i++)
        CHECK_EQ(used(manager), COUNT);
    uint64_t passes = test_cpu_now() - began;                           // a twentieth of a pass for each call to come
    began = test_cpu_now();
    for (int i = 0; i < CALLS; i++)
        CHECK(zcp_chunk_allocate(manager, 64, &extra) == ZCP_ERR_EXHAUSTED);
    uint64_t calls = test_cpu_now() - began;
    test_note("%d calls: %llu us; %d passes: %llu us", CALLS, (unsigned long long)calls / 1000, CALLS / 20,
              (unsigned long long)passes / 1000);
    CHECK(calls < passes);
    for (int i = 0; i < COUNT; i++)
        zcp_chunk_release(&chunks[i]);
    finish(manager);
}
