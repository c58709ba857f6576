// bench/merit.c: every contender at the same work, alone and with a second process; and zerocp's other operations.
#include "measure.h"
#include "ours.h"
#include "suites.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNKS = 4096, BYTES = 256, FULL_CHUNKS = 1024 };

// ---------------------------------------------------------------------------------------------------------------------
// Yardsticks

static void rmw_loop(void *pool, uint64_t count) {
    static line mine;
    (void)pool;
    for (uint64_t i = 0; i < count; i++)
        __atomic_fetch_add(&mine.word, 1, __ATOMIC_RELAXED);
}

void rmw_add(void) {
    point_add(&(point){.name = "rmw",
                       .system = "cpu",
                       .what = "one uncontended atomic read-modify-write: the unit",
                       .loop = rmw_loop});
}

static void nothing_timed(void *pool, uint64_t count) {
    (void)pool;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t began = ticks();
        histogram_add(host.latencies, ticks() - began);
    }
}

// One bounce = there and back; so a count of n crosses 2 n times. Reported per crossing.
static void bounce(uint64_t count, uint64_t odd) {
    for (uint64_t i = 0; i < count; i++) {
        for (unsigned tries = 0; get_acquire(&host.shared->ball) % 2 != odd;)
            spin_long(&tries);
        __atomic_fetch_add(&host.shared->ball.word, 1, __ATOMIC_RELEASE);
    }
}

static void bounce_loop(void *pool, uint64_t count) {
    (void)pool;
    bounce(count / 2, 0);
    for (unsigned tries = 0; get_acquire(&host.shared->ball) % 2 != 0;)
        spin_long(&tries);
}

static void bounce_peer(void *pool, uint64_t count) {
    (void)pool;
    bounce(count / 2, 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// zerocp's other operations

static zcp_chunk held, full_held[FULL_CHUNKS];

static void clone_loop(void *pool, uint64_t count) {
    (void)pool;
    for (uint64_t i = 0; i < count; i++) {
        zcp_chunk clone = zcp_chunk_clone(&held);
        if (!clone.manager)
            die("clone: %s", zcp_last_message());
        zcp_chunk_release(&clone);
    }
}

static void acquire_loop(void *pool, uint64_t count) {
    uint64_t token = zcp_chunk_token(&held);
    for (uint64_t i = 0; i < count; i++) {
        zcp_chunk chunk;
        if (zcp_chunk_acquire(ours_manager(pool), token, &chunk) != ZCP_OK)
            die("acquire: %s", zcp_last_message());
        zcp_chunk_release(&chunk);
    }
}

static void exhausted_loop(void *pool, uint64_t count) {
    zcp_chunk chunk;
    for (uint64_t i = 0; i < count; i++)
        if (zcp_chunk_allocate(ours_manager(pool), 64, &chunk) != ZCP_ERR_EXHAUSTED)
            die("allocate from an exhausted pool: %s", zcp_last_message());
}

// ---------------------------------------------------------------------------------------------------------------------
// The list alone: indices, no payload. The second process has a view of its own, and begins in the middle.

static zcp_mpmc_list view;

static void *list_create(uint32_t chunks, uint32_t bytes) {
    uint64_t needed = zcp_mpmc_list_bytes(chunks);
    void *memory = shared_memory(needed);
    (void)bytes;
    MUST_OK(zcp_mpmc_list_create(&view, memory, needed, chunks, true));
    return memory;
}

static void list_join(void *memory, int worker) {
    if (worker > 0) {
        MUST_OK(zcp_mpmc_list_attach(&view, memory, zcp_mpmc_list_bytes(CHUNKS)));
        view.cursor = view.leaves / 2;
    }
}

static void list_destroy(void *memory) {
    shared_memory_free(memory, zcp_mpmc_list_bytes(CHUNKS));
}

static void list_check(void *memory) {
    (void)memory;
    if (zcp_mpmc_list_count(&view) != CHUNKS)
        die("the list has %u of %d indices", zcp_mpmc_list_count(&view), CHUNKS);
}

static void list_loop(void *memory, uint64_t count) {
    (void)memory;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t index;
        if (!zcp_mpmc_list_pop(&view, &index) || !zcp_mpmc_list_push(&view, index))
            die("the list lost an index");
    }
}

static const contender list_contender = {
    .name = "zerocp", .create = list_create, .join = list_join, .destroy = list_destroy, .check = list_check,
};

// ---------------------------------------------------------------------------------------------------------------------
// A client that stands still. It holds some chunks and allocates and releases without end; before each measurement it
// may run for a moment and is then stopped wherever it is.

static pid_t stopped_pid;

static void await_stopped(void) {
    int status;
    MUST(waitpid(stopped_pid, &status, WUNTRACED) == stopped_pid);
    if (!WIFSTOPPED(status))
        die("the client that is to be stopped has ended");
}

static void stopped_setup(void *pool) {
    if ((stopped_pid = helper_fork()) == 0) {
        zcp_chunk chunks[16];
        cpu_pin(cpus[1]);
        ours.join(pool, 1);
        for (int i = 0; i < 16; i++)
            MUST_OK(zcp_chunk_allocate(ours_manager(pool), BYTES, &chunks[i]));
        raise(SIGSTOP);
        for (;;)
            ours.pair(pool, 1 << 20);
    }
    await_stopped();
}

static double stopped_once(void *pool) {
    enum { COUNT = 40000 };
    kill(stopped_pid, SIGCONT);
    usleep(500);
    kill(stopped_pid, SIGSTOP);
    await_stopped();
    uint64_t began = now_ns();
    ours.pair(pool, COUNT);
    return (double)(now_ns() - began) / COUNT;
}

// ---------------------------------------------------------------------------------------------------------------------

typedef void loop_function(void *pool, uint64_t count);

static void add_loop(point at, const char *name, loop_function *loop, loop_function *peer) {
    at.name = name;
    at.loop = loop;
    at.peer = peer;
    point_add(&at);
}

// What needs many operations in a row, and so has longer slices in fewer rounds.
static void add_long(point at, const char *name, loop_function *loop, loop_function *peer, bool latency) {
    at.slice = 4000000;
    at.every = 8;
    at.latency = latency;
    add_loop(at, name, loop, peer);
}

static void add_common(const contender *by) {
    void *pool = pool_add(by, CHUNKS, BYTES);
    point alone = {.system = by->name, .what = by->what, .pool = pool, .by = by, .chunks = CHUNKS, .bytes = BYTES},
          two = alone;
    two.kind = POINT_TWO;
    if (pool && by->pair) {
        add_loop(alone, "pair", by->pair, NULL);
        add_loop(two, "pair", by->pair, NULL);
        add_loop(alone, "burst", by->burst, NULL);
        add_loop(two, "burst", by->burst, NULL);
        add_long(alone, "live", by->live, NULL, false);
        add_long(alone, "pair_latency", by->pair_timed, NULL, true);
        add_long(two, "pair_latency", by->pair_timed, NULL, true);
    }
    if (pool && by->send) {
        add_loop(two, "handoff", by->send, by->receive);
        add_long(two, "handoff_latency", by->send_timed, by->receive, true);
    }
}

static void add_own(void *pool, void *full) {
    point at = {.system = "zerocp", .pool = pool, .by = &ours, .chunks = CHUNKS, .bytes = BYTES}, other = at;
    add_loop(at, "clone", clone_loop, NULL);
    add_loop(at, "acquire", acquire_loop, NULL);
    other.pool = full, other.chunks = FULL_CHUNKS, other.bytes = 64;
    add_loop(other, "exhausted", exhausted_loop, NULL);
    at.kind = POINT_ONCE, at.once = stopped_once;
    if (cpus[1] >= 0)
        add_loop(at, "stopped", NULL, NULL);
    other.pool = pool_add(&list_contender, CHUNKS, 0), other.by = &list_contender, other.chunks = CHUNKS,
    other.bytes = 0;
    add_loop(other, "list", list_loop, NULL);
    other.kind = POINT_TWO;
    add_loop(other, "list", list_loop, NULL);
}

void suite_merit(const suite_options *options) {
    void *pool, *full;
    rmw_add();
    point_add(&(point){.name = "pair_latency", .system = "clock", .loop = nothing_timed, .latency = true,
                       .slice = 4000000, .every = 8});
    point_add(
        &(point){.name = "transfer", .system = "cpu", .kind = POINT_TWO, .loop = bounce_loop, .peer = bounce_peer});
    for (int i = 0; options->contenders[i]; i++)
        add_common(options->contenders[i]);
    MUST((pool = pool_add(&ours, CHUNKS, BYTES)) != NULL && (full = pool_add(&ours, FULL_CHUNKS, 64)) != NULL);
    add_own(pool, full);
    pools_check("before");
    if (cpus[1] >= 0) {
        // before the crew: it must not inherit the crew's pipes
        stopped_setup(pool);
        crew_start(1);
    }
    MUST_OK(zcp_chunk_allocate(ours_manager(pool), BYTES, &held));
    for (int i = 0; i < FULL_CHUNKS; i++)
        MUST_OK(zcp_chunk_allocate(ours_manager(full), 64, &full_held[i]));
    rounds_run(options->rounds);
    zcp_chunk_release(&held);
    for (int i = 0; i < FULL_CHUNKS; i++)
        zcp_chunk_release(&full_held[i]);
    crew_end();
    if (stopped_pid) {
        zcp_recovery report;
        helper_kill(stopped_pid);
        stopped_pid = 0;
        MUST_OK(zcp_manager_recover(ours_manager(pool), &report));
        MUST(report.dead_clients == 1);
    }
    pools_check("after");
    suite_end();
}
