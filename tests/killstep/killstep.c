// tests/killstep/killstep.c: runs one operation in a child under ptrace, and kills or stops it after every instruction
// that changed the segments, the files or the locks, after a sample of the others, and within every system call. What
// the survivors find then has to be exact. `make killstep`; `build/killstep/killstep --help`.
//
//   main      no client of anything; forks a worker per operation, and that its stages
//   stage     the survivor and the peer are two clients of this process, which hold chunks all the time; it is the
//             tracer. It has a fresh world for its point; where it is looked at chunks, not at names, it goes on with
//             the same instance to hundreds of points: after each of them that has to be as good as new, and what fails
//             is tried once more in a fresh one. With --full the stages of names, too, go on, with new instances;
//             --fresh forbids both
//   victim    runs prepare() at full speed, operate() up to the point, and, if it was only stopped, finish()
//   dead      up to two clients that are killed before the victim starts (or, `late`, when it is about to operate)
//   second    in chains: one more client, which recovers after the victim's death and is killed or stopped on the way
//
// All stages are forks of one process, so an instruction has the same address in each of them. The points are found
// once by single steps: the segments are compared after each, and each system call counts as a change. From the list of
// all steps follows the cheapest way to each of them: breakpoints at addresses that are not passed before, and single
// steps where there is none; in a loop within a loop that is a few stops instead of thousands. Each stop's address is
// compared, so who takes another path (a pid of fewer digits) is noticed. A stop costs some 10 us, four times that if
// it wakes another processor: so a worker and all its stages keep to one.
#include "../harness/inside.h"
#include "../harness/test.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    // bytes of the chunks of the two pools, and of those that come and go
    SMALL = 64, LARGE = 256, EXTRA = 4096, OTHER = 128,
    SMALLS = 10, LARGES = 4, EXTRAS = 3, OTHERS = 12,              // their numbers; ten make two leaves of the list
    MAX_CHUNKS = SMALLS + LARGES + EXTRAS + OTHERS,
    CLIENTS = 8,
    // two borrow words; the first client of the second one
    WIDE_CLIENTS = 128, FIRST_IN_SECOND = 64,
    // chunks that each thread may cache of each pool, if cached
    CACHED = 4,
    MAX_HELD = 32,
    MAX_STEPS = 200000,
    // more than any segment here has; added pools begin at multiples of 65536
    SEGMENT_BYTES = 3 * 65536 + 8192,
    // who waits for a chunk has it after that; 100 ms if nobody wakes him, and he is let run
    WAKE_MS = 1000,
    // no call takes longer; a wait that should not be takes 5 s
    BOUND_MS = 2000,
    // of those who meet a stopped creator; the short one is too short for a busy machine, so who meets nobody tries
    // once more
    SHORT_TIMEOUT_MS = 1,
    LONG_TIMEOUT_MS = 500,
    PATIENT_MS = 60000,                                            // of the victim, which may stand for long
    VDSO_BYTES = 16384,
    LOOKS_APART_US = 1000,                                         // EXHAUSTED is told without another look
    TRIES = 6,                                                     // to reach a point
    LEFT = 8,
};

typedef struct point {
    // of the instruction after which it is killed; 0: before the first one
    uint64_t address;
    uint32_t step;
    bool change, syscall;
} point;

// All steps of an operation. Step 0 is where it begins; step n, where it stands after n instructions.
typedef struct way {
    uint64_t at;                                                   // the instruction that comes next
    // the step from which one stop leads here; microseconds in all
    uint32_t from, cost;
    bool single;                                                   // by a single step, not by a breakpoint
} way;

typedef struct trace {
    uint32_t steps, points, changes, syscalls, writes;             // writes: changes of the files
    bool overflow;
    point list[MAX_STEPS];
    way ways[MAX_STEPS];
} trace;

typedef struct board {                                             // shared by all processes of one worker
    uint32_t slow, slow_limit;                                     // calls that waited for the 5 s of destroy
    // TIMEOUT told beside a stopped creator; without a pid; with another's
    uint32_t timeouts, unnamed, misnamed;
    // the victim took another path than when it was discovered, and so at each try; the first such step
    bool missed;
    uint32_t not_reached, missed_step;
    uint64_t slowest_ns, longest_wait_ns;
    char slowest[64];
    _Atomic uint64_t token, dead_tokens[2];                        // from the victim or a dead client to the others
    _Atomic uint32_t phase;
    uint32_t at, rounds; // of all points and variants, the one that the stage is at; those it had before
    bool current; // what the victim opens must not have been destroyed meanwhile
    uint64_t left[LEFT]; // what the victim holds after its operation; 0: nothing
    char failure[1024];
    trace victim, second;                                          // their steps
} board;

typedef struct held {
    zcp_chunk chunk;
    uint64_t token;
    // something of the operation's; else the survivor's own
    bool shared;
} held;

typedef enum mode { KILL, CALL, STOP, CHAIN, MODES, DISCOVER = MODES, DISCOVER_SECOND } mode;
static const char *const mode_names[] = {"kill", "call", "stop", "chain", "discover", "discover-second"};

typedef struct world {
    const struct operation *operation;
    char name[64];
    mode mode;
    unsigned variant;
    zcp_manager *survivor, *peer;                                  // of the stage
    // holds the locks of slots that nobody is to get, if wide
    int fillers;
    held held[MAX_HELD];
    uint32_t helds;
    uint64_t old_token;
    uint32_t lost;                                                 // free chunks without a hint, besides one at most
    bool added;                                                    // the pool of EXTRA was there from the beginning
    uint32_t number;                                               // of the pool that was added
    // a client that waits for a chunk, and goes when it had one
    pid_t waiter;
    pid_t dead[2], victim, second;
    uint32_t deads, died;                                          // died: of themselves
    zcp_manager *mine;                                             // of the victim
    zcp_chunk a, b, c, before;                                     // before: a copy of a handle that it has released
    zcp_shm shm;
    zcp_publisher *publisher;                                      // of the victim, like the next two
    zcp_subscriber *subscriber;
    zcp_message message;
    zcp_status status;
} world;

typedef enum kind { CHUNKS, NAMES, OBJECT } kind;                  // what is looked at afterwards

typedef struct operation {
    const char *name;
    kind kind;
    void (*set)(world *w);                                         // in the stage: the world
    void (*prepare)(world *w);                                     // in the victim
    void (*begin)(world *w);                                       // in the stage, when the victim is about to operate
    void (*operate)(world *w);                                     // in the victim, step by step
    // in the victim, after a stop: what came out, and back to nothing
    void (*finish)(world *w);
    // chunks that the victim, and whom it sweeps, may hold while it is stopped
    unsigned extra;
    bool late;                                                     // the dead die when the victim is about to operate
    bool sweeps;                                                   // has chains
    bool wide;                                                     // more than 64 client slots
    // threads cache chunks, those of the survivor and the peer, too
    bool cached;
    // pools that there may be, one set after the other; none: the two of the creation
    unsigned sets[5];
    // those that there have to be after a recovery; 0: of any of the sets
    unsigned ends;
    bool grows;                                                    // others who want to add a pool wait for it
    bool looks;                                                    // changes nothing at all
    bool waits;                                                    // sleeps until a chunk is released
} operation;

// The kinds of pools that there can be. A set of them has bit k if a pool like kinds[k] is live.
static const struct {
    uint64_t size;
    uint32_t count;
} kinds[] = {{SMALL, SMALLS}, {LARGE, LARGES}, {EXTRA, EXTRAS}, {OTHER, OTHERS}};
enum { KINDS = sizeof kinds / sizeof kinds[0], S = 1, L = 2, X = 4, O = 8 };

static board *shared;
static bool full, fresh;
static uint32_t samples = 32, most_changes;                          // most_changes: 0: all

// ---------------------------------------------------------------------------------------------------------------------
// Failing: the first message of a run is kept; its process ends. In tests/killstep_test.c the runner does that.

#ifndef KILLSTEP_IN_TESTS
// a step of the library at which this process kills itself
static const char *die_at;

void test_step(const char *where) {
    if (die_at && strcmp(die_at, where) == 0) kill(getpid(), SIGKILL);
}

#define DIE_AT(where) (die_at = (where))

void test_at(const char *file, int line) { (void)file, (void)line; }

static _Noreturn void fail_at(const char *file, int line, const char *text) {
    const char *name = strrchr(file, '/');
    if (!shared->failure[0])
        snprintf(shared->failure, sizeof shared->failure, "%s:%d: %s", name ? name + 1 : file, line, text);
    _exit(1);
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fail_at(file, line, text);
}

_Noreturn void test_fail_with(const char *file, int line, const char *condition, const char *format, ...) {
    char text[512];
    va_list arguments;
    int n = snprintf(text, sizeof text, "%s: ", condition);
    va_start(arguments, format);
    if (n >= 0 && (size_t)n < sizeof text) vsnprintf(text + n, sizeof text - (size_t)n, format, arguments);
    va_end(arguments);
    fail_at(file, line, text);
}

void test_check_eq(const char *file, int line, const char *what, test_integer actual, test_integer expected) {
    if (actual.bits == expected.bits && actual.negative == expected.negative) return;
    test_fail(file, line, "%s: %lld, not %lld", what, (long long)actual.bits, (long long)expected.bits);
}

void test_check_str(const char *file, int line, const char *what, const char *actual, const char *expected) {
    if (strcmp(actual, expected) != 0) test_fail(file, line, "%s: \"%s\", not \"%s\"", what, actual, expected);
}

void test_check_status(const char *file, int line, const char *what, zcp_status actual, zcp_status expected) {
    if (actual != expected)
        test_fail(file, line, "%s: %s, not %s (%s)", what, zcp_status_name(actual), zcp_status_name(expected),
                  zcp_last_message());
}
#else
#define DIE_AT(where) test_at_step((where), 1, TEST_KILL, NULL)
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Bounds: BOUNDED(call) is the call's status, and the call came back in time.

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t call_began;

static void call_begins(void) { call_began = now_ns(); }
static zcp_status call_ends(const char *what, unsigned bound_ms, zcp_status status) {
    uint64_t took = now_ns() - call_began;
    if (took > shared->slowest_ns && bound_ms == BOUND_MS) {
        shared->slowest_ns = took;
        snprintf(shared->slowest, sizeof shared->slowest, "%s", what);
    }
    CHECK_MSG(took < bound_ms * UINT64_C(1000000), "%s took %.1f ms", what, (double)took / 1e6);
    return status;
}

#define BOUNDED_MS(call, ms) (call_begins(), call_ends(#call, (ms), (call)))
#define BOUNDED(call) BOUNDED_MS(call, BOUND_MS)
#define BOUNDED_VOID(call) ((void)BOUNDED(((call), ZCP_OK)))

// ---------------------------------------------------------------------------------------------------------------------
// Payloads: every chunk is filled with what its generation and index say, so every holder knows what must be in it.

static uint64_t name_of(const zcp_chunk *chunk) { return (uint64_t)chunk->generation << 32 | chunk->index; }

static void fill(const zcp_chunk *chunk) {
    uint64_t *words = chunk->data, capacity = zcp_chunk_capacity(chunk);
    CHECK(capacity != 0);
    for (uint64_t i = 0; i < capacity / 8; i++) words[i] = name_of(chunk) + i;
}

static void verify(const zcp_chunk *chunk) {
    const uint64_t *words = zcp_chunk_data(chunk);
    CHECK_MSG(words != NULL, "chunk %08x is not held any more", chunk->index);
    for (uint64_t i = 0; i < zcp_chunk_capacity(chunk) / 8; i++)
        CHECK_MSG(words[i] == name_of(chunk) + i, "chunk %08x: word %d of the payload was changed", chunk->index,
                  (int)i);
}

// ---------------------------------------------------------------------------------------------------------------------
// The stage's clients and what they hold

static uint32_t clients_of(const world *w) { return w->operation->wide ? WIDE_CLIENTS : CLIENTS; }

static zcp_status open_as(const world *w, zcp_shm_mode how, uint32_t timeout_ms, zcp_manager **manager) {
    zcp_config config = {.publishers = 2, .subscribers = 3, .ring_cells = 2}; // small tables: all of them is compared
    bool creates = how != ZCP_SHM_OPEN_EXISTING;
    CHECK_OK(zcp_config_add_pool(&config, SMALL, SMALLS));
    CHECK_OK(zcp_config_add_pool(&config, LARGE, LARGES));
    for (uint32_t pool = 0; pool < 2 && w->operation->cached; pool++) config.pools.items[pool].cache_chunks = CACHED;
    zcp_manager_desc desc = {.name = w->name, .mode = how, .client_name = "killstep", .timeout_ms = timeout_ms};
    desc.config = creates ? &config : NULL;
    desc.max_clients = creates ? clients_of(w) : 0;
    return zcp_manager_open(manager, &desc);
}

// pools that may be there
static unsigned some_set(const operation *o) {
    return o->sets[0] ? o->sets[0] | o->sets[1] | o->sets[2] | o->sets[3] : S | L;
}

static unsigned each_set(const operation *o) {                     // pools that are there in any case
    unsigned common = o->sets[0] ? o->sets[0] : S | L;
    for (unsigned i = 1; o->sets[i]; i++) common &= o->sets[i];
    return common;
}

static unsigned kind_of(uint64_t size) {
    unsigned k = 0;
    while (k < KINDS && kinds[k].size != size) k++;
    CHECK_MSG(k < KINDS, "a pool of %llu bytes", (unsigned long long)size);
    return k;
}

// The pools that are live, as that client sees it: one of the sets that there may be, and never a part of one.
static unsigned pools_of(const world *w, zcp_manager *manager) {
    zcp_config config;
    unsigned set = 0;
    CHECK_OK(BOUNDED(zcp_manager_get_config(manager, &config)));
    for (uint32_t i = 0; i < config.pools.size; i++) {
        const zcp_pool_config *pool = &config.pools.items[i];
        unsigned k = kind_of(pool->chunk_size);
        CHECK_EQ(pool->chunk_count, kinds[k].count);
        CHECK_EQ(pool->cache_chunks, w->operation->cached ? CACHED : 0);
        CHECK_MSG(!(set >> k & 1), "two pools of %llu bytes", (unsigned long long)pool->chunk_size);
        set |= 1u << k;
    }
    bool allowed = w->operation->sets[0] == 0 && set == (S | L);
    for (unsigned i = 0; w->operation->sets[i]; i++) allowed = allowed || set == w->operation->sets[i];
    CHECK_MSG(allowed, "the set of pools is %x", set);
    return set;
}

static zcp_pool_config config_of(const world *w, unsigned k) {
    return (zcp_pool_config){kinds[k].size, kinds[k].count, 0, w->operation->cached ? CACHED : 0};
}

static held *hold(world *w, zcp_chunk chunk, bool is_shared) {
    CHECK(w->helds < MAX_HELD);
    w->held[w->helds] = (held){chunk, name_of(&chunk), is_shared};
    return &w->held[w->helds++];
}

static held *hold_new(world *w, zcp_manager *manager, uint64_t size, bool is_shared) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(manager, size, &chunk));
    fill(&chunk);
    return hold(w, chunk, is_shared);
}

static void hold_acquired(world *w, zcp_manager *manager, uint64_t token) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_acquire(manager, token, &chunk));
    verify(&chunk);
    hold(w, chunk, true);
}

static uint64_t token_of(const held *h) {
    uint64_t token = zcp_chunk_token(&h->chunk);
    CHECK(token != 0);
    return token;
}

static void verify_held(const world *w) {
    for (uint32_t i = 0; i < w->helds; i++) verify(&w->held[i].chunk);
}

static bool holds(const world *w, uint64_t token) {
    for (uint32_t i = 0; i < w->helds; i++)
        if (w->held[i].token == token) return true;
    return false;
}

static uint32_t held_chunks(const world *w) {                      // each counted once
    uint32_t chunks = 0;
    for (uint32_t i = 0; i < w->helds; i++) {
        bool again = false;
        for (uint32_t j = 0; j < i; j++) again = again || w->held[j].token == w->held[i].token;
        chunks += !again;
    }
    return chunks;
}

// Chunks that can be had of a set of pools.
static uint32_t obtainable(const world *w, unsigned set) {
    uint32_t chunks = 0;
    for (unsigned k = 0; k < KINDS; k++)
        if (set >> k & 1) chunks += kinds[k].count;
    for (uint32_t i = 0; i < w->helds; i++) {
        bool again = false;
        for (uint32_t j = 0; j < i; j++) again = again || w->held[j].token == w->held[i].token;
        chunks -= !again && set >> kind_of(zcp_chunk_capacity(&w->held[i].chunk)) & 1;
    }
    return chunks;
}

static void let_go(world *w, bool only_shared) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w->helds; i++)
        if (only_shared && !w->held[i].shared) w->held[kept++] = w->held[i];
        else BOUNDED_VOID(zcp_chunk_release(&w->held[i].chunk));
    w->helds = kept;
}

static bool take(const world *w, zcp_manager *manager, uint64_t size, zcp_chunk *chunks, uint32_t *n) {
    zcp_chunk *chunk = &chunks[*n];
    CHECK(*n <= MAX_CHUNKS);
    zcp_status status = BOUNDED(zcp_chunk_allocate(manager, size, chunk));
    if (status == ZCP_ERR_EXHAUSTED || (status == ZCP_ERR_TOO_LARGE && !(each_set(w->operation) >> kind_of(size) & 1)))
        return false;
    CHECK_OK(status);
    for (uint32_t i = 0; i < *n; i++)
        CHECK_MSG(chunks[i].index != chunk->index, "chunk %08x was given out twice", chunk->index);
    for (uint32_t i = 0; i < w->helds; i++)
        CHECK_MSG(w->held[i].chunk.index != chunk->index, "chunk %08x was given out while it was held", chunk->index);
    fill(chunk);
    ++*n;
    return true;
}

// Somebody was exhausted; so what these cache of the two pools is everybody's afterwards.
static void ask_others(const world *w, const zcp_manager *manager) {
    zcp_manager *others[] = {w->survivor, w->peer};
    for (unsigned i = 0; i < 2 * KINDS; i++) {
        zcp_chunk chunk;
        if (some_set(w->operation) >> i / 2 & 1 && others[i % 2] != manager
            && BOUNDED(zcp_chunk_allocate(others[i % 2], kinds[i / 2].size, &chunk)) == ZCP_OK)
            BOUNDED_VOID(zcp_chunk_release(&chunk));
    }
}

// Takes every chunk of the set of pools, each of them once, and fills it. If there should be more, then once more after
// a while: EXHAUSTED may be what a look of the point before found, or others cache what is left; and who happens to
// cache again just then does so once.
static uint32_t drain_set(world *w, zcp_manager *manager, zcp_chunk *chunks, unsigned set, uint32_t expected) {
    uint32_t n = 0;
    for (unsigned i = 0; i == 0 || (i < 4 && n < expected); i++) {
        if (i > 0) usleep(2 * i * LOOKS_APART_US);
        if (i > 0 && w->operation->cached) ask_others(w, manager);
        for (unsigned k = 0; k < KINDS; k++)
            while (set >> k & 1 && take(w, manager, kinds[k].size, chunks, &n)) {}
    }
    verify_held(w);
    for (uint32_t i = 0; i < n; i++) verify(&chunks[i]);
    return n;
}

static uint32_t drain_all(world *w, zcp_manager *manager, zcp_chunk *chunks) {
    unsigned set = pools_of(w, manager);
    uint32_t most = obtainable(w, set), n = drain_set(w, manager, chunks, set, most);
    CHECK_EQ(n, most);
    return n;
}

static void release_all(zcp_chunk *chunks, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        verify(&chunks[i]);
        BOUNDED_VOID(zcp_chunk_release(&chunks[i]));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Files and locks

static const char *const suffixes[] = {"", "_memory_management", "_memory_chunk", "_memory_locks"};
enum { PLAIN, MANAGEMENT, CHUNK, LOCKS, SUFFIXES };

static int open_file(const world *w, unsigned which) {
    char name[96];
    snprintf(name, sizeof name, "/%s%s", w->name, suffixes[which]);
    return shm_open(name, O_RDWR | O_CLOEXEC, 0);
}

static bool is_there(const world *w, unsigned which) {
    int fd = open_file(w, which);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static void remove_names(const char *name) {
    char path[96];
    for (unsigned i = 0; i < SUFFIXES; i++) {
        snprintf(path, sizeof path, "/%s%s", name, suffixes[i]);
        shm_unlink(path);
    }
}

static bool byte_is_locked(int fd, off_t byte) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    CHECK(fcntl(fd, F_OFD_GETLK, &lock) == 0);
    return lock.l_type != F_UNLCK;
}

#define CREATION_BYTE ((off_t)1 << 30)                             // as in zerocp_shm.h; the slots' bytes follow
#define SLOTS_BYTE (CREATION_BYTE + 1)

static bool creation_is_locked(const world *w, unsigned which) {
    int fd = open_file(w, which);
    bool locked = fd >= 0 && byte_is_locked(fd, CREATION_BYTE);
    if (fd >= 0) close(fd);
    return locked;
}

// Waits until no more locks than those of the living are held on one file. The kernel drops a lock when the memory is
// gone, and somebody who looks into /proc may keep that alive for a moment.
static void await_locks_on(const world *w, unsigned which, uint32_t living) {
    int fd = open_file(w, which);
    uint32_t taken = 0;
    for (uint64_t began = now_ns(); fd >= 0 && now_ns() - began < UINT64_C(2000000000); usleep(500)) {
        taken = byte_is_locked(fd, CREATION_BYTE);
        for (off_t i = 0; i < CLIENTS; i++)
            taken += byte_is_locked(fd, SLOTS_BYTE + (i > 0 && w->operation->wide ? FIRST_IN_SECOND - 1 + i : i));
        if (taken <= living) break;
    }
    if (fd >= 0) close(fd);
    CHECK_MSG(taken <= living, "%s: %u locks are held, %u clients are alive", suffixes[which], taken, living);
}

// MANAGEMENT: of an instance, whose clients have a lock on the lock object, and one on the management file for
// observers.
static void await_locks(const world *w, unsigned which, uint32_t living) {
    await_locks_on(w, which, living);
    if (which == MANAGEMENT) await_locks_on(w, LOCKS, living);
}

// ---------------------------------------------------------------------------------------------------------------------
// Other processes

static void await_other(unsigned round) {                          // it is on the same processor
    if (round < 200) sched_yield();
    else usleep(50);
}

static void await_phase(uint32_t phase) {
    for (unsigned i = 0; atomic_load(&shared->phase) < phase; i++) await_other(i);
}

static uint64_t await_token(void) {
    for (unsigned i = 0; atomic_load(&shared->token) == 0; i++) await_other(i);
    return atomic_load(&shared->token);
}

static void die_with_parent(pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(2);
}

// A client that does what `run` says, reaches that phase, and waits to be killed.
static void add_dead(world *w, void (*run)(world *w), uint32_t phase) {
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        die_with_parent(parent);
        run(w);
        atomic_store(&shared->phase, phase);
        for (;;) pause();
    }
    w->dead[w->deads++] = pid;
}

static void kill_dead(world *w) {
    for (uint32_t i = 0; i < w->deads; i++) {
        kill(w->dead[i], SIGKILL);
        waitpid(w->dead[i], NULL, 0);
    }
}

// Runs something in a child that kills itself at a step of the library; false: it did not come there.
static bool die_in(world *w, const char *step, void (*run)(world *w)) {
    int status;
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        die_with_parent(parent);
        DIE_AT(step);
        run(w);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status);
}

// ---------------------------------------------------------------------------------------------------------------------
// Tracing

// The victim stops by itself when it has prepared everything and when it is through.
#if defined(__x86_64__)
#define TRAP "int3"
#elif defined(__aarch64__)
#define TRAP "brk #0"
#endif
#ifdef TRAP
void killstep_begin(void);
void killstep_end(void);
__asm__(".pushsection .text\n"
        ".globl killstep_begin\n.type killstep_begin, %function\nkillstep_begin: " TRAP
        "\n ret\n.size killstep_begin, . - killstep_begin\n"
        ".globl killstep_end\n.type killstep_end, %function\nkillstep_end: " TRAP
        "\n ret\n.size killstep_end, . - killstep_end\n"
        ".popsection\n");
#else
static void killstep_begin(void) {}
static void killstep_end(void) {}
#endif
#define BEGIN ((uint64_t)(uintptr_t)&killstep_begin)
#define END   ((uint64_t)(uintptr_t)&killstep_end)

#if defined(__x86_64__)
enum { BREAK_BYTES = 1, BREAK_BACK = 1 };
static const uint8_t break_code[] = {0xcc};
static uint64_t get_pc(pid_t pid) {
    return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, (void *)offsetof(struct user_regs_struct, rip), NULL);
}

static void set_pc(pid_t pid, uint64_t pc) {
    ptrace(PTRACE_POKEUSER, pid, (void *)offsetof(struct user_regs_struct, rip), (void *)pc);
}

static bool is_syscall(uint64_t code) { return (code & 0xffff) == 0x050f; }
#elif defined(__aarch64__)
// to be built with -march=armv8.1-a: a step breaks ldxr/stxr pairs
enum { BREAK_BYTES = 4, BREAK_BACK = 0 };
static const uint8_t break_code[] = {0x00, 0x00, 0x20, 0xd4};
static uint64_t get_pc(pid_t pid) {
    struct user_regs_struct regs;
    struct iovec all = {&regs, sizeof regs};
    ptrace(PTRACE_GETREGSET, pid, (void *)1, &all);
    return regs.pc;
}

static void set_pc(pid_t pid, uint64_t pc) {
    struct user_regs_struct regs;
    struct iovec all = {&regs, sizeof regs};
    ptrace(PTRACE_GETREGSET, pid, (void *)1, &all);
    regs.pc = pc;
    ptrace(PTRACE_SETREGSET, pid, (void *)1, &all);
}

static bool is_syscall(uint64_t code) { return (uint32_t)code == 0xd4000001; }
#else
#define KILLSTEP_NOT_HERE
enum { BREAK_BYTES = 1, BREAK_BACK = 0 };
static const uint8_t break_code[] = {0};
static uint64_t get_pc(pid_t pid) { return (uint64_t)pid; }
static void set_pc(pid_t pid, uint64_t pc) { (void)pid, (void)pc; }
static bool is_syscall(uint64_t code) { return code == 0; }
#endif

static uint64_t peek(pid_t pid, uint64_t address) {
    return (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)address, NULL);
}

static uint64_t set_break(pid_t pid, uint64_t address) {           // returns what was there
    uint64_t code = peek(pid, address), with = code;
    memcpy(&with, break_code, BREAK_BYTES);
    CHECK(ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)with) == 0);
    return code;
}

static void clear_break(pid_t pid, uint64_t address, uint64_t code) {
    CHECK(ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)code) == 0);
}

// Does it sleep in the kernel? Not for a moment only.
static bool is_asleep(pid_t pid) {
    char path[40], text[256];
    unsigned looks = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    for (; looks < 3; looks++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        text[n > 0 ? n : 0] = 0;
        const char *name_end = strrchr(text, ')');
        if (!name_end || strncmp(name_end, ") S", 3) != 0) break;
        usleep(100);
    }
    return looks == 3;
}

// A victim that waits for a chunk sleeps until somebody releases one: as soon as it does, the stage releases one of
// these, or else the last of the chunks that it shares.
static struct { world *w; zcp_chunk *chunks; uint32_t *count; } waking;

static void release_for_sleeper(void) {
    world *w = waking.w;
    if (waking.count && *waking.count > 0) {
        zcp_chunk_release(&waking.chunks[--*waking.count]);
        return;
    }
    for (uint32_t i = w->helds; i-- > 0;)
        if (w->held[i].shared) {
            zcp_chunk_release(&w->held[i].chunk);
            w->held[i] = w->held[--w->helds];
            return;
        }
}

static pid_t wait_awake(pid_t pid, int *status) {
    pid_t changed;
    if (!waking.w || pid != waking.w->victim) return waitpid(pid, status, 0);
    for (unsigned round = 0; (changed = waitpid(pid, status, WNOHANG)) == 0; round++) {
        sched_yield();
        if (round % 50 == 49 && is_asleep(pid)) release_for_sleeper();
    }
    return changed;
}

// Lets it go on until it stops; everything but the trap of a step or a break is an error.
static void await_trap(pid_t pid) {
    int status;
    CHECK(wait_awake(pid, &status) == pid);
    CHECK_MSG(!WIFEXITED(status), "the victim ended with %d", WEXITSTATUS(status));
    CHECK_MSG(!WIFSIGNALED(status), "the victim died of signal %d", WTERMSIG(status));
    CHECK_MSG(WSTOPSIG(status) == SIGTRAP, "the victim got signal %d", WSTOPSIG(status));
}

static void resume(pid_t pid, bool step) {
    CHECK(ptrace(step ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, NULL, NULL) == 0);
    await_trap(pid);
}

static bool is_at_end(uint64_t pc) { return pc == END || pc == END + BREAK_BACK; }     // before its trap, or in it
// Runs it until it is about to execute that instruction, or is at the end.
static void run_to(pid_t pid, uint64_t address) {
    uint64_t code = set_break(pid, address);
    resume(pid, false);
    uint64_t pc = get_pc(pid);
    clear_break(pid, address, code);
    CHECK_MSG(pc == address + BREAK_BACK || is_at_end(pc), "trap at %llx", (unsigned long long)pc);
    set_pc(pid, pc - BREAK_BACK);
}

// A traced child, which stands behind killstep_begin's trap. Its stack is always aligned in the same way, for memcmp
// looks at that.
__attribute__((noinline)) static pid_t start_traced(world *w, void (*run)(world *w)) {
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        die_with_parent(parent);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(2);
        volatile char *below = __builtin_alloca(64 + ((uintptr_t)__builtin_frame_address(0) & 4095));
        *below = 0;
        run(w);
        _exit(0);
    }
    await_trap(pid);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_EXITKILL) == 0);
    CHECK(get_pc(pid) == BEGIN + BREAK_BACK);
    set_pc(pid, BEGIN + BREAK_BYTES);
    return pid;
}

static void kill_traced(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status) && !WIFEXITED(status)) {}
}

static bool add_left(const zcp_census_entry *entry, void *user)    // what stands in a ring, or is read
{
    uint32_t *slot = user;
    bool holds_it = entry->owner == *slot || entry->borrower_mask[*slot / 64] >> *slot % 64 & 1;
    for (unsigned i = 3; holds_it && i < LEFT; i++)
        if (shared->left[i] == 0) {
            shared->left[i] = ((uint64_t)entry->pool << 27 | entry->index) + 1;
            break;
        }
    return true;
}

static void complete(world *w) {
    zcp_manager_info info;
    for (unsigned i = 3; i < LEFT; i++) shared->left[i] = 0;
    if (w->publisher && zcp_manager_get_info(w->mine, &info) == ZCP_OK)
        CHECK_OK(zcp_manager_census(w->mine, add_left, &info.slot));
    shared->left[0] = w->a.manager ? w->a.index + UINT64_C(1) : 0;
    shared->left[1] = w->b.manager ? w->b.index + UINT64_C(1) : 0;
    shared->left[2] = w->c.manager ? w->c.index + UINT64_C(1) : 0;
    killstep_end();
    if (w->operation->finish) w->operation->finish(w);
}

static void run_victim(world *w) {
    if (w->operation->prepare) w->operation->prepare(w);
    killstep_begin();
    w->operation->operate(w);
    complete(w);
}

// ---------------------------------------------------------------------------------------------------------------------
// Looking for changes: the contents of all files that the names led to so far.

typedef struct watched { int fd; dev_t device; ino_t inode; size_t bytes; unsigned char last[SEGMENT_BYTES]; } watched;
static watched watched_files[12];
static unsigned watched_count;

static void watch_names(const world *w) {
    for (unsigned i = 0; i < SUFFIXES; i++) {
        struct stat status;
        bool known = watched_count == sizeof watched_files / sizeof watched_files[0];
        int fd = open_file(w, i);
        if (fd < 0) continue;
        CHECK(fstat(fd, &status) == 0);
        for (unsigned f = 0; f < watched_count; f++)
            known = known || (watched_files[f].device == status.st_dev && watched_files[f].inode == status.st_ino);
        if (known) {
            close(fd);
            continue;
        }
        watched *file = &watched_files[watched_count++];
        file->fd = fd;
        file->device = status.st_dev;
        file->inode = status.st_ino;
        file->bytes = 0;
    }
}

static bool have_changed(void) {
    static unsigned char now[SEGMENT_BYTES];
    bool changed = false;
    for (unsigned f = 0; f < watched_count; f++) {
        watched *file = &watched_files[f];
        ssize_t n = pread(file->fd, now, sizeof now, 0);
        CHECK(n >= 0);
        if ((size_t)n == file->bytes && memcmp(now, file->last, (size_t)n) == 0) continue;
        memcpy(file->last, now, (size_t)n);
        file->bytes = (size_t)n;
        changed = true;
    }
    return changed;
}

// At which step each instruction was come to last: an open hash table.
typedef struct visit { uint64_t address; uint32_t step; } visit;
enum { VISITS = 1 << 16 };

static uint32_t visited(visit *table, uint64_t address, uint32_t step) {  // the step before, plus 1; 0: it was not yet
    uint64_t at = address * UINT64_C(0x9e3779b97f4a7c15) >> 48;
    while (table[at % VISITS].address != 0 && table[at % VISITS].address != address) at++;
    uint32_t before = table[at % VISITS].step;
    table[at % VISITS] = (visit){address, step + 1};
    return before;
}

// The cheapest way to each step: one single step more than to the step before it; or a breakpoint, from any step since
// its instruction was passed last. `best` are the steps that no later one beats, cheaper and cheaper the earlier.
static void find_ways(trace *t) {
    enum { STEP_US = 21, BREAK_US = 15 };
    visit *table = calloc(VISITS, sizeof *table);
    uint32_t *best = malloc((t->steps + 1) * sizeof *best), bests = 0;
    CHECK(table && best);
    for (uint32_t step = 0; step <= t->steps; step++) {
        way *to = &t->ways[step];
        uint32_t since = visited(table, to->at, step), low = 0, high = bests;
        if (step > 0) *to = (way){to->at, step - 1, t->ways[step - 1].cost + STEP_US, true};
        while (low < high) {                                       // the first one that is late enough
            uint32_t middle = (low + high) / 2;
            if (best[middle] < since) low = middle + 1;
            else high = middle;
        }
        if (low < bests && t->ways[best[low]].cost + BREAK_US < to->cost)
            *to = (way){to->at, best[low], t->ways[best[low]].cost + BREAK_US, false};
        while (bests > 0 && t->ways[best[bests - 1]].cost >= to->cost) bests--;
        best[bests++] = step;
    }
    free(table);
    free(best);
}

// Of the points found, keeps the changes, or as many of them as are to be tried, and a sample of the others. Which ones
// differs from run to run.
static void thin_out(trace *t) {
    uint32_t kept = 0, others = 0, changes = 0;
    uint32_t every = samples ? (t->points - t->changes) / samples + 1 : 0;
    uint32_t each = most_changes ? (t->changes + most_changes - 1) / most_changes : 1, first = (uint32_t)getpid();
    for (uint32_t i = 0; i < t->points; i++) {
        bool sampled = t->list[i].change ? ++changes % each == first % each : every && ++others % every == every / 2;
        if (full || sampled) t->list[kept++] = t->list[i];
    }
    t->points = kept;
}

static void keep_changes(trace *t) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->points; i++)
        if (t->list[i].change) t->list[kept++] = t->list[i];
    t->points = kept;
}

// The kernel's page for reading the clock: if that ticks meanwhile, it is read again, as often as not when this is done
// step by step. Such a turn, which starts with the step `since` at the earliest, cannot be reached later, and is
// forgotten.
static bool is_in_vdso(uint64_t pc) { return pc - getauxval(AT_SYSINFO_EHDR) < VDSO_BYTES; }
static void forget_turn(trace *t, uint32_t since, uint64_t pc) {
    uint32_t step = since;
    while (step < t->steps && t->ways[step].at != pc) step++;
    t->steps = step;
    while (t->list[t->points - 1].step > step) t->points--;
}

// Steps through the whole operation. A repeated instruction (rep movs) is stepped turn by turn: its first and last
// turns are points.
static void discover(const world *w, pid_t pid, trace *t) {
    uint64_t last = 0, pc;
    uint32_t vdso_since = 0;
    bool turns = false;
    watch_names(w);
    have_changed();
    t->steps = t->changes = t->syscalls = t->writes = 0;
    t->points = 1;
    t->list[0] = (point){0, 0, true, false};
    for (; !is_at_end(pc = get_pc(pid)) && !t->overflow; last = pc) {
        bool syscall = is_syscall(peek(pid, pc));
        if (is_in_vdso(pc)) forget_turn(t, vdso_since, pc);
        else vdso_since = t->steps + 1;
        resume(pid, true);
        if (syscall) watch_names(w);
        bool write = have_changed(), change = write || syscall, again = pc == last && !syscall;
        t->writes += write;
        if (turns && !again) t->list[t->points - 1].change = true;
        turns = change && again;
        t->ways[t->steps++].at = pc;
        if (!again || change) t->list[t->points++] = (point){pc, t->steps, change && !turns, syscall};
        t->syscalls += syscall;
        t->overflow = t->steps + 1 == MAX_STEPS;
    }
    t->ways[t->steps].at = END;
    for (uint32_t i = 0; i < t->points; i++) t->changes += t->list[i].change;
    find_ways(t);
}

// Brings it to a point; shared->missed: to another one, or to the end.
static void reach(pid_t pid, const trace *t, const point *p) {
    static uint32_t path[MAX_STEPS];
    uint32_t stops = 0;
    for (uint32_t step = p->step; step != 0; step = t->ways[step].from) path[stops++] = step;
    while (stops > 0) {
        const way *to = &t->ways[path[--stops]];
        if (to->single) resume(pid, true);
        else run_to(pid, to->at);
        if (get_pc(pid) == to->at) continue;
        shared->missed = true;
        return;
    }
}

// Brings it into a system call: an even number is the entry, where nothing is done yet; an odd one the exit, where it
// is done and the victim does not know. Death is noticed in the kernel there, so a call that it has entered is not
// made.
static void reach_call(pid_t pid, uint32_t number) {
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)) == 0);
    for (uint32_t i = 0; i <= number && !shared->missed; i++) {
        int status;
        CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0);
        CHECK(wait_awake(pid, &status) == pid && WIFSTOPPED(status));
        shared->missed = WSTOPSIG(status) != (SIGTRAP | 0x80);     // the end
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What has to hold: an instance with survivors

// Nobody is left but those who live: two clients of this process, and `more`.
static void verify_slots(world *w, uint32_t more) {
    uint32_t alive = 0;
    for (uint32_t slot = 0; slot < clients_of(w); slot++) {
        zcp_client_info info;
        CHECK_OK(BOUNDED(zcp_manager_client_info(w->survivor, slot, &info)));
        CHECK_MSG(info.state != ZCP_CLIENT_DEAD, "slot %u (pid %u) was not swept", slot, info.pid);
        alive += info.state == ZCP_CLIENT_ALIVE;
    }
    CHECK_EQ(alive, 2 + more);
}

static uint32_t cached_of(zcp_manager *manager, uint32_t pool) {
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, pool, &stats));
    return (uint32_t)stats.cached;
}

// Neither the survivor nor the peer caches anything, nor will for the next fifty releases: whoever is exhausted and
// then releases caches nothing for 64 releases, if he has not begun to wait before. Only what they cannot get hold of,
// because the other one caches it, needs a second turn.
static void empty_caches(world *w) {
    for (unsigned i = 0; i < 4 * KINDS && w->operation->cached; i++) {
        zcp_manager *manager = i / KINDS % 2 ? w->peer : w->survivor;
        uint64_t size = kinds[i % KINDS].size;
        zcp_chunk chunks[MAX_CHUNKS + 1];
        uint32_t n = 0;
        if (!(some_set(w->operation) >> i % KINDS & 1)) continue;
        for (unsigned turn = 0; turn < 66 && zcp_chunk_allocate(manager, size, &chunks[0]) == ZCP_OK; turn++)
            zcp_chunk_release(&chunks[0]);
        while (zcp_chunk_allocate(manager, size, &chunks[n]) == ZCP_OK) CHECK(++n <= MAX_CHUNKS);
        while (n > 0) zcp_chunk_release(&chunks[--n]);
    }
    // nor does anybody else: those who did are dead
    for (uint32_t pool = 0; pool < zcp_manager_pool_end(w->survivor); pool++) CHECK_EQ(cached_of(w->survivor, pool), 0);
}

static void check_books(world *w, zcp_manager *manager) {
    empty_caches(w);
    books_check_by(manager, held_chunks(w));
}

// Nothing is left of pools that were retired, as nobody has any of their chunks, nor of what a dead adder had reserved.
static void verify_gone(const world *w, unsigned set) {
    struct stat status;
    for (uint32_t pool = 0; pool < zcp_manager_pool_end(w->survivor); pool++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(w->survivor, pool, &stats));
        CHECK_MSG(stats.state != ZCP_POOL_RETIRING, "pool %u of %llu bytes is still retiring, nobody holds any of it",
                  pool, (unsigned long long)stats.chunk_size);
    }
    int fd = w->operation->sets[0] ? open_file(w, CHUNK) : -1;
    if (fd < 0) return;
    CHECK(fstat(fd, &status) == 0);
    close(fd);
    long long most = 2 * 4096 + (set & X ? EXTRAS * EXTRA : 0) + (set & O ? 4096 : 0);
    CHECK_MSG(status.st_blocks * 512 <= most, "the chunk segment still has %lld blocks", (long long)status.st_blocks);
}

// Nobody holds that chunk any more, or its pool has gone.
static void verify_stale(const world *w, uint64_t token) {
    zcp_chunk chunk;
    CHECK_STATUS(BOUNDED(zcp_chunk_acquire(w->peer, token, &chunk)), ZCP_ERR_STALE);
}

static void verify_exact(world *w) {
    zcp_chunk chunks[MAX_CHUNKS + 1];
    uint64_t token = atomic_load(&shared->token);
    zcp_manager *newcomer;
    verify_slots(w, 0);
    if (token != 0 && !holds(w, token)) verify_stale(w, token);
    unsigned set = pools_of(w, w->survivor);
    if (w->operation->ends) CHECK_EQ(set, w->operation->ends);
    CHECK_EQ(pools_of(w, w->peer), set);
    uint32_t n = drain_all(w, w->survivor, chunks);
    if (token != 0 && !holds(w, token)) verify_stale(w, token);
    release_all(chunks, n);
    check_books(w, w->survivor);
    CHECK_OK(BOUNDED(open_as(w, ZCP_SHM_OPEN_EXISTING, 0, &newcomer)));
    CHECK_EQ(pools_of(w, newcomer), set);
    check_books(w, newcomer);
    verify_slots(w, 1);
    for (uint32_t i = 0; i < w->helds; i++) {
        CHECK_OK(BOUNDED(zcp_chunk_acquire(newcomer, token_of(&w->held[i]), &chunks[0])));
        verify(&chunks[0]);
        BOUNDED_VOID(zcp_chunk_release(&chunks[0]));
    }
    BOUNDED_VOID(zcp_manager_close(newcomer));
    verify_held(w);
    let_go(w, false);
    check_books(w, w->peer);
    verify_gone(w, set);
}

static void end_world(world *w) {
    if (w->survivor) {
        BOUNDED_VOID(zcp_manager_close(w->peer));
        // nobody but the survivor's thread is left to hold a lease
        for (uint32_t pool = 0; pool < zcp_manager_pool_end(w->survivor); pool++)
            CHECK_MSG(inside_leases_held(w->survivor, pool) <= 1, "pool %u: %u leases are held", pool,
                      inside_leases_held(w->survivor, pool));
        BOUNDED_VOID(zcp_manager_close(w->survivor));
        w->survivor = w->peer = NULL;
        if (w->operation->wide) close(w->fillers);
    }
    CHECK_OK(BOUNDED(zcp_manager_destroy(w->name)));
    CHECK(!is_there(w, MANAGEMENT));
    CHECK(!is_there(w, CHUNK));
    CHECK(!is_there(w, LOCKS));
}

// No more free chunks than those lack their hint (the list may name more than are free): none after a sweep; one beside
// somebody who stands still, who took it and has not claimed the chunk yet, or freed that and has not given it yet; or
// who sweeps, and gives the hints of a leaf at once.
static void verify_hints(world *w, uint32_t lacking) {
    for (uint32_t pool = 0; pool < zcp_manager_pool_end(w->survivor); pool++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(w->survivor, pool, &stats));
        CHECK_EQ(stats.used + stats.free + stats.cached, stats.total);
        if (stats.state != ZCP_POOL_LIVE) continue;                // nothing is to be had of it, whatever the hints say
        CHECK_MSG(inside_hint_count(w->survivor, pool) + lacking >= stats.free, "pool %u: %u hints, %u chunks are free",
                  pool, inside_hint_count(w->survivor, pool), (unsigned)stats.free);
    }
}

static void verify_chunks_dead(world *w) {
    zcp_manager *newcomer;
    zcp_chunk chunks[MAX_CHUNKS + 1];
    zcp_recovery report;
    verify_held(w);
    switch (w->variant) {
    case 0: break;
    // a newcomer comes first, perhaps into the dead one's slot
    case 1:
        CHECK_OK(BOUNDED(open_as(w, ZCP_SHM_OPEN_EXISTING, 0, &newcomer)));
        verify_slots(w, 1);
        CHECK_EQ(pools_of(w, newcomer), pools_of(w, w->peer));
        check_books(w, newcomer);
        BOUNDED_VOID(zcp_manager_close(newcomer));
        break;
    case 2: {                                                      // exhaustion finds the dead
        uint32_t n = drain_all(w, w->survivor, chunks);            // the peer may have made a look just now
        release_all(chunks, n);
        break;
    }
    case 3: let_go(w, true); break;                                // what was shared is released before anybody sweeps
    // the same, and they go on as if nothing had happened
    case 4:
        if (BOUNDED(zcp_chunk_allocate(w->peer, SMALL, &chunks[0])) == ZCP_OK) zcp_chunk_release(&chunks[0]);
        let_go(w, true);
        if (BOUNDED(zcp_chunk_allocate(w->survivor, LARGE, &chunks[0])) == ZCP_OK) zcp_chunk_release(&chunks[0]);
        break;
    }
    CHECK_OK(BOUNDED(zcp_manager_recover(w->survivor, &report)));
    CHECK_OK(BOUNDED(zcp_manager_recover(w->survivor, &report)));
    CHECK_EQ(report.dead_clients, 0);
    verify_hints(w, w->lost);                                      // who finds a chunk without its hint needs none
    verify_exact(w);
}

static int slot_of(world *w, pid_t pid) {                          // of a living client; -1: it has none
    for (uint32_t slot = 0; slot < clients_of(w); slot++) {
        zcp_client_info info;
        if (zcp_manager_client_info(w->survivor, slot, &info) == ZCP_OK && info.state == ZCP_CLIENT_ALIVE
            && info.pid == (uint32_t)pid)
            return (int)slot;
    }
    return -1;
}

// A token of a chunk just works, also where the receiver does not know the pool yet.
static void verify_token(const world *w, const zcp_chunk *chunk) {
    zcp_chunk received;
    uint64_t token = zcp_chunk_token(chunk);
    zcp_manager *others[] = {w->survivor, w->peer};
    for (unsigned i = 0; i < 2; i++) {
        CHECK_OK(BOUNDED(zcp_chunk_acquire(others[i], token, &received)));
        verify(&received);
        BOUNDED_VOID(zcp_chunk_release(&received));
    }
}

// Who adds a pool beside one who stands while it adds one waits for its five seconds, and is told which process that
// is.
static void verify_adders(world *w) {
    char pid[32];
    uint32_t number;
    zcp_pool_config pool = config_of(w, 3);
    if (!w->operation->grows || !creation_is_locked(w, LOCKS) || shared->slow++ >= shared->slow_limit) return;
    CHECK_STATUS(BOUNDED_MS(zcp_manager_add_pool(w->peer, &pool, &number), 5000 + BOUND_MS), ZCP_ERR_TIMEOUT);
    snprintf(pid, sizeof pid, "process %d ", (int)w->victim);
    shared->timeouts++;
    if (strstr(zcp_last_message(), "process 0 ")) shared->unnamed++;
    else if (!strstr(zcp_last_message(), pid)) shared->misnamed++;
}

// Everything that others do goes on beside one who stands still.
static void verify_others(world *w, zcp_manager *manager) {
    zcp_chunk chunk;
    unsigned some = some_set(w->operation), each = each_set(w->operation);
    for (unsigned k = 0; k < KINDS; k++) {
        if (!(some >> k & 1)) continue;
        zcp_status status = BOUNDED(zcp_chunk_allocate(manager, kinds[k].size, &chunk));
        if (status == ZCP_ERR_EXHAUSTED || (status == ZCP_ERR_TOO_LARGE && !(each >> k & 1))) continue;
        CHECK_OK(status);
        fill(&chunk);
        verify(&chunk);
        if (some != each) verify_token(w, &chunk);
        BOUNDED_VOID(zcp_chunk_release(&chunk));
    }
    for (uint32_t i = 0; i < w->helds; i++) {
        CHECK_OK(BOUNDED(zcp_chunk_acquire(manager, token_of(&w->held[i]), &chunk)));
        verify(&chunk);
        BOUNDED_VOID(zcp_chunk_release(&chunk));
    }
}

static void run_to_end(const world *w) {
    if (!is_at_end(get_pc(w->victim))) resume(w->victim, false);
    CHECK(is_at_end(get_pc(w->victim)));
}

// The same beside a client that has taken chunks: a victim that waits gets one of them.
static void run_beside(const world *w, zcp_chunk *chunks, uint32_t *n) {
    waking.chunks = chunks;
    waking.count = n;
    run_to_end(w);
    waking.count = NULL;
}

// The client that waits for a chunk has it, in time, and has gone.
static void await_waiter(world *w) {
    int status;
    uint64_t began = now_ns();
    if (w->waiter == 0) return;
    CHECK(waitpid(w->waiter, &status, 0) == w->waiter);
    w->waiter = 0;
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the waiter came to status %x", (unsigned)status);
    uint64_t took = now_ns() - began;
    if (took > shared->longest_wait_ns) shared->longest_wait_ns = took;
    CHECK_MSG(took < WAKE_MS * UINT64_C(1000000), "the waiter had its chunk after %.1f ms", (double)took / 1e6);
}

static void await_end(world *w) {
    int status;
    if (w->victim == 0) return;
    run_to_end(w);
    set_pc(w->victim, END + BREAK_BYTES);
    CHECK(ptrace(PTRACE_CONT, w->victim, NULL, NULL) == 0);
    CHECK(waitpid(w->victim, &status, 0) == w->victim);
    CHECK_MSG(WIFEXITED(status), "the victim, going on, came to status %x", (unsigned)status);
    CHECK_MSG(WEXITSTATUS(status) == 0, "the victim, going on, ended with %d", WEXITSTATUS(status));
}

static uint32_t drain_beside(world *w, zcp_manager *manager, zcp_chunk *chunks) {
    unsigned some = some_set(w->operation), each = each_set(w->operation);
    uint32_t most = obtainable(w, some), least = obtainable(w, each) - w->operation->extra,
             n = drain_set(w, manager, chunks, some, least);
    CHECK_MSG(n <= most && n >= least, "%u chunks obtained beside the stopped one, %d to %u expected", n, (int)least,
              most);
    return n;
}

// The victim is through, but still there, and nobody is within a call: each chunk that is used is held by somebody, and
// no free one lacks its hint.
static void verify_quiet(world *w) {
    uint32_t used = held_chunks(w);
    verify_hints(w, w->lost);                                      // who finds a chunk without its hint needs none
    for (unsigned i = 0; i < LEFT; i++) {
        bool again = shared->left[i] == 0;
        for (unsigned j = 0; j < i; j++) again = again || shared->left[j] == shared->left[i];
        for (uint32_t j = 0; j < w->helds; j++)
            again = again || w->held[j].chunk.index + UINT64_C(1) == shared->left[i];
        used += !again;
    }
    for (uint32_t pool = 0; pool < zcp_manager_pool_end(w->survivor); pool++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(w->survivor, pool, &stats));
        CHECK_MSG(stats.state != ZCP_POOL_RETIRING || stats.used + stats.cached > 0,
                  "pool %u is still retiring, nobody holds any of it", pool);
        used -= (uint32_t)stats.used;
    }
    CHECK_MSG(used == 0, "%d chunks too many are used", -(int)used);
    if (w->operation->cached && shared->token != 0) verify_stale(w, atomic_load(&shared->token));
}

static void verify_chunks_stopped(world *w) {
    zcp_manager *newcomer;
    zcp_chunk chunks[MAX_CHUNKS + 1];
    zcp_recovery report;
    uint32_t n, most;
    int slot = slot_of(w, w->victim);
    verify_hints(w, w->lost + (w->operation->sweeps && w->operation->extra > 1 ? w->operation->extra : 1));
    verify_held(w);
    verify_others(w, w->peer);
    CHECK_OK(BOUNDED(zcp_manager_recover(w->survivor, &report)));
    CHECK_MSG(report.dead_clients <= w->deads + w->died, "%u clients were swept", report.dead_clients);
    CHECK_OK(BOUNDED(open_as(w, ZCP_SHM_OPEN_EXISTING, 0, &newcomer)));
    verify_others(w, newcomer);
    verify_adders(w);
    if (slot >= 0) CHECK_MSG(slot_of(w, w->victim) == slot, "the stopped one's slot %d was taken away", slot);
    switch (w->variant) {
    case 0:
        n = drain_beside(w, newcomer, chunks);
        release_all(chunks, n);
        break;
    case 1:                                                        // the others keep everything until it is through
        n = drain_beside(w, newcomer, chunks);
        run_beside(w, chunks, &n);
        release_all(chunks, n);
        break;
    case 2: let_go(w, true); break;                                // what was shared is released under it
    case 3:                                                        // and allocated by others
        let_go(w, true);
        n = drain_set(w, newcomer, chunks, some_set(w->operation), 0);
        run_beside(w, chunks, &n);
        release_all(chunks, n);
        break;
    // all but the last hints are used up, without the look before EXHAUSTED
    case 4:
        n = inside_hint_count(w->survivor, 0);
        for (most = 0; most + 2 < n; most++) CHECK_OK(BOUNDED(zcp_chunk_allocate(newcomer, SMALL, &chunks[most])));
        while (most > 0) zcp_chunk_release(&chunks[--most]);
        break;
    case 5:                                                        // it is killed after all
        kill_traced(w->victim);
        w->victim = 0;
        break;
    }
    if (w->victim) {
        run_to_end(w);
        await_waiter(w);
        verify_quiet(w);
    }
    await_waiter(w);
    BOUNDED_VOID(zcp_manager_close(newcomer));
    await_end(w);
    await_locks(w, MANAGEMENT, 2);
    CHECK_OK(BOUNDED(zcp_manager_recover(w->peer, NULL)));
    verify_exact(w);
}

// ---------------------------------------------------------------------------------------------------------------------
// What has to hold: names

static bool is_ready(const world *w) {
    uint32_t word = 0;
    int fd = open_file(w, MANAGEMENT);
    if (fd >= 0 && pread(fd, &word, sizeof word, 16) < 0) word = 0;
    if (fd >= 0) close(fd);
    return word == 1 && is_there(w, CHUNK) && is_there(w, LOCKS);
}

// What has its size has its pages.
static void verify_reserved(const world *w, unsigned which) {
    struct stat status;
    int fd = open_file(w, which);
    if (fd < 0) return;
    CHECK(fstat(fd, &status) == 0);
    close(fd);
    CHECK_MSG((uint64_t)status.st_blocks * 512 >= (uint64_t)status.st_size, "%s: %lld bytes, but %lld blocks",
              suffixes[which], (long long)status.st_size, (long long)status.st_blocks);
}

// One of the five calls that look at names, and what it may say; TIMEOUT is the caller's affair.
static zcp_status call_names(world *w, uint32_t timeout_ms, unsigned bound_ms, zcp_manager **manager) {
    zcp_status status;
    *manager = NULL;
    switch (w->variant) {
    case 0:
        status = BOUNDED_MS(open_as(w, ZCP_SHM_OPEN_EXISTING, timeout_ms, manager), bound_ms);
        return status == ZCP_ERR_NOT_FOUND ? ZCP_OK : status;
    case 1: return BOUNDED_MS(open_as(w, ZCP_SHM_OPEN_OR_CREATE, timeout_ms, manager), bound_ms);
    case 2:                                                        // EXISTS is said of something that can be used
        status = BOUNDED_MS(open_as(w, ZCP_SHM_CREATE_EXCLUSIVE, timeout_ms, manager), bound_ms);
        if (status == ZCP_ERR_EXISTS)
            status = BOUNDED_MS(open_as(w, ZCP_SHM_OPEN_EXISTING, timeout_ms, manager), bound_ms);
        return status;
    case 3: return BOUNDED_MS(open_as(w, ZCP_SHM_PURGE_AND_CREATE, timeout_ms, manager), bound_ms);
    default:
        status = BOUNDED_MS(zcp_manager_destroy(w->name), bound_ms);
        CHECK(status == ZCP_ERR_TIMEOUT || !is_there(w, MANAGEMENT));
        CHECK(status == ZCP_ERR_TIMEOUT || !is_there(w, CHUNK));
        CHECK(status == ZCP_ERR_TIMEOUT || !is_there(w, LOCKS));
        return status == ZCP_ERR_NOT_FOUND ? ZCP_OK : status;
    }
}

// Writes into every chunk of an instance that nobody else uses.
static void fill_all(zcp_manager *manager) {
    zcp_chunk chunks[MAX_CHUNKS + 1];
    uint32_t n = 0;
    for (unsigned pool = 0; pool < 2; pool++)
        while (zcp_chunk_allocate(manager, pool ? LARGE : SMALL, &chunks[n]) == ZCP_OK) fill(&chunks[n++]);
    CHECK_EQ(n, SMALLS + LARGES);
    while (n > 0) zcp_chunk_release(&chunks[--n]);
}

static void verify_names_dead(world *w) {
    zcp_manager *newcomer;
    zcp_manager_info is, was;
    CHECK_OK(call_names(w, 0, BOUND_MS, &newcomer));
    if (!newcomer) CHECK_OK(BOUNDED(open_as(w, ZCP_SHM_OPEN_OR_CREATE, 0, &newcomer)));
    CHECK_OK(zcp_manager_get_info(newcomer, &is));
    verify_reserved(w, MANAGEMENT);
    verify_reserved(w, CHUNK);
    if (w->survivor) {                                             // the old instance goes on, with or without its name
        CHECK_OK(zcp_manager_get_info(w->survivor, &was));
        bool same = is.instance_id == was.instance_id;
        CHECK_STATUS(BOUNDED(zcp_manager_check(w->survivor)), same ? ZCP_OK : ZCP_ERR_REPLACED);
        verify_held(w);
        CHECK_OK(BOUNDED(zcp_manager_recover(w->survivor, NULL)));
        books_check_by(w->survivor, held_chunks(w));
        books_check_by(newcomer, same ? held_chunks(w) : 0);
        if (!same) fill_all(newcomer);
        verify_held(w);
        let_go(w, false);
        books_check_by(w->peer, 0);
    } else {
        books_check_by(newcomer, 0);
    }
    BOUNDED_VOID(zcp_manager_close(newcomer));
    end_world(w);
}

static void do_destroy(world *w) { w->status = zcp_manager_destroy(w->name); }
static void do_open_existing(world *w) { w->status = open_as(w, ZCP_SHM_OPEN_EXISTING, PATIENT_MS, &w->mine); }
static void run_destroy(world *w) { (void)zcp_manager_destroy(w->name); }
static void verify_names_stopped(world *w) {
    char pid[32];
    zcp_manager *newcomer = NULL;
    bool locked = creation_is_locked(w, LOCKS) || creation_is_locked(w, MANAGEMENT), ready = is_ready(w);
    // destroy waits for its five seconds: not at every point
    bool slow = w->variant == 4 && locked;
    // it was destroyed before the last look
    shared->current = w->operation->operate == do_open_existing && slot_of(w, w->victim) < 0;
    // by the victim, so what is made now is not its affair
    bool removed = w->survivor && !is_there(w, MANAGEMENT);
    snprintf(pid, sizeof pid, "process %d ", (int)w->victim);
    if (w->variant == 5) {                                         // somebody else dies in the middle of a destruction
        if (!locked) die_in(w, "chunk_unlinked", run_destroy);
    } else if (!slow || shared->slow++ < shared->slow_limit) {
        zcp_status status = call_names(w, SHORT_TIMEOUT_MS, slow ? 5000 + BOUND_MS : BOUND_MS, &newcomer);
        if (status == ZCP_ERR_TIMEOUT && !locked) status = call_names(w, LONG_TIMEOUT_MS, BOUND_MS, &newcomer);
        if (status == ZCP_ERR_TIMEOUT) {
            CHECK_MSG(locked, "TIMEOUT beside one who holds no lock: %s", zcp_last_message());
            CHECK_MSG(!ready || w->variant > 2, "TIMEOUT, but it is ready: %s", zcp_last_message());
            shared->timeouts++;
            if (strstr(zcp_last_message(), "process 0 ")) shared->unnamed++;        // it has not come to write its pid
            else if (!strstr(zcp_last_message(), pid)) shared->misnamed++;
        } else {
            CHECK_OK(status);
        }
    }
    if (w->survivor) {
        verify_held(w);
        CHECK_OK(BOUNDED(zcp_manager_recover(w->survivor, NULL)));
        verify_others(w, w->peer);
    }
    await_end(w);
    if (newcomer && removed && w->operation->operate == do_destroy) {
        CHECK_OK(zcp_manager_check(newcomer));
        CHECK(is_there(w, CHUNK));
        CHECK(is_there(w, LOCKS));
    }
    if (newcomer) BOUNDED_VOID(zcp_manager_close(newcomer));
    w->variant = 1;
    verify_names_dead(w);
}

// ---------------------------------------------------------------------------------------------------------------------
// What has to hold: a plain shared-memory object

enum { OBJECT_BYTES = 8192 };

static zcp_status open_object(const world *w, zcp_shm_mode how, uint32_t timeout_ms, zcp_shm *shm) {
    return zcp_shm_open(shm,
                        &(zcp_shm_desc){.name = w->name, .bytes = OBJECT_BYTES, .mode = how, .timeout_ms = timeout_ms});
}

static zcp_status call_object(const world *w, uint32_t timeout_ms, zcp_shm *shm) {
    static const zcp_shm_mode modes[] = {ZCP_SHM_OPEN_EXISTING, ZCP_SHM_OPEN_OR_CREATE, ZCP_SHM_CREATE_EXCLUSIVE,
                                         ZCP_SHM_PURGE_AND_CREATE};
    unsigned which = w->variant;
    *shm = (zcp_shm){0};
    zcp_status status =
        which < 4 ? BOUNDED(open_object(w, modes[which], timeout_ms, shm)) : BOUNDED(zcp_shm_unlink(w->name));
    if ((which == 0 || which == 4) && status == ZCP_ERR_NOT_FOUND) return ZCP_OK;
    return which == 2 && status == ZCP_ERR_EXISTS ? ZCP_OK : status;
}

static void verify_object_dead(world *w) {
    zcp_shm shm;
    verify_reserved(w, PLAIN);
    CHECK_OK(call_object(w, 0, &shm));
    zcp_shm_close(&shm);
    CHECK_OK(BOUNDED(open_object(w, ZCP_SHM_OPEN_OR_CREATE, 0, &shm)));
    CHECK_EQ(shm.bytes, OBJECT_BYTES);
    for (unsigned i = 0; i < OBJECT_BYTES; i++) CHECK_EQ(((unsigned char *)shm.base)[i], 0);
    memset(shm.base, 1, OBJECT_BYTES);
    zcp_shm_close(&shm);
    CHECK_OK(BOUNDED(zcp_shm_unlink(w->name)));
    CHECK(!is_there(w, PLAIN));
}

static void verify_object_stopped(world *w) {
    zcp_shm shm;
    bool locked = creation_is_locked(w, PLAIN);
    zcp_status status = call_object(w, SHORT_TIMEOUT_MS, &shm);
    if (status == ZCP_ERR_TIMEOUT && !locked) status = call_object(w, LONG_TIMEOUT_MS, &shm);
    if (status == ZCP_ERR_TIMEOUT) {
        CHECK_MSG(locked, "TIMEOUT beside one who holds no lock: %s", zcp_last_message());
        shared->timeouts++;
        shared->unnamed++;                                         // a plain object has no place for a pid
    } else {
        CHECK_OK(status);
    }
    if (shm.base) memset(shm.base, 1, OBJECT_BYTES);               // what somebody has got is not cut off under him
    await_end(w);
    for (unsigned i = 0; shm.base && i < OBJECT_BYTES; i++) CHECK_EQ(((unsigned char *)shm.base)[i], 1);
    if (shm.base) memset(shm.base, 0, OBJECT_BYTES);
    zcp_shm_close(&shm);
    w->variant = 1;
    verify_object_dead(w);
}

// ---------------------------------------------------------------------------------------------------------------------
// Worlds

static void set_nothing(world *w) { (void)w; }
// Not the instance of the point before. Exhaustion is told without a look if the last one was less than a millisecond
// ago, and some worlds and some ways to go on need a look.
static void set_afresh(world *w) {
    if (w->survivor) end_world(w);
}

static void fill_first_word(world *w) {                            // but for the survivor, who is in it
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = SLOTS_BYTE + 1;
    lock.l_len = FIRST_IN_SECOND - 1;
    w->fillers = open_file(w, LOCKS);
    CHECK(w->fillers >= 0 && fcntl(w->fillers, F_OFD_SETLK, &lock) == 0);
}

static void set_instance(world *w) {
    zcp_manager_info info;
    if (!w->survivor) {                                            // else it is that of the point before
        CHECK_OK(open_as(w, ZCP_SHM_OPEN_OR_CREATE, 0, &w->survivor));
        if (w->operation->wide) fill_first_word(w);
        CHECK_OK(open_as(w, ZCP_SHM_OPEN_EXISTING, 0, &w->peer));
        CHECK_OK(zcp_manager_get_info(w->peer, &info));
        CHECK_EQ(info.slot, w->operation->wide ? FIRST_IN_SECOND : 1);
    }
    hold_new(w, w->survivor, 40, false);
    token_of(hold_new(w, w->survivor, 200, false));
}

static void set_shared(world *w) {                                 // the peer owns a chunk whose token goes about
    set_instance(w);
    atomic_store(&shared->token, token_of(hold_new(w, w->peer, SMALL, true)));
}

static void set_shared_by_first(world *w) {                        // the survivor owns it, the peer borrows it
    set_instance(w);
    atomic_store(&shared->token, token_of(hold_new(w, w->survivor, SMALL, true)));
    hold_acquired(w, w->peer, atomic_load(&shared->token));
}

static void set_shared_twice(world *w) {
    set_shared(w);
    hold_acquired(w, w->survivor, atomic_load(&shared->token));
}

static void take_small(world *w, uint32_t leave) {                 // the peer takes all small chunks but some
    zcp_chunk chunks[SMALLS + 1];
    uint32_t n = 0;
    while (zcp_chunk_allocate(w->peer, SMALL, &chunks[n]) == ZCP_OK) fill(&chunks[n++]);
    CHECK(leave <= n);
    while (leave--) zcp_chunk_release(&chunks[--n]);
    for (uint32_t i = 0; i < n; i++) hold(w, chunks[i], true);
}

static void set_last(world *w) {
    set_instance(w);
    take_small(w, 1);
}

static void set_exhausted(world *w) {
    set_instance(w);
    take_small(w, 0);
}

static void find_small_list(const world *w, zcp_mpmc_list *list) {
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(w->survivor, &info));
    for (uint64_t at = 4096; at < info.management_bytes; at += 64)
        if (zcp_mpmc_list_attach(list, (char *)info.management_base + at, info.management_bytes - at) == ZCP_OK) break;
    CHECK_EQ(zcp_mpmc_list_capacity(list), SMALLS);
}

static void set_stale_hints(world *w) {                            // one chunk is free, the list names all of them
    zcp_mpmc_list list;
    set_last(w);
    find_small_list(w, &list);
    for (uint32_t i = 0; i < SMALLS; i++) zcp_mpmc_list_push(&list, i);
}

static void set_lost_hints(world *w) {  // three chunks are free, neither the list nor a loan names one
    set_afresh(w);
    set_instance(w);
    take_small(w, 3);
    for (uint32_t i = 0; i < SMALLS; i++) {                        // each knows its own loans
        inside_drop_hint(w->survivor, 0, i);
        inside_drop_hint(w->peer, 0, i);
    }
    CHECK_EQ(inside_hint_count(w->survivor, 0), 0);
    w->lost = 3;
}

// Two leaves, two leases. The survivor has a loan of what it does not hold of the first leaf; the victim's is of the
// second one, of two chunks. So the instance is a new one each time: in that of the point before the peer has the
// second lease.
static void set_lease_left(world *w) {
    set_afresh(w);
    set_instance(w);
    CHECK_EQ(inside_leases_held(w->survivor, 0), 1);
}

static void touch(zcp_manager *manager, uint64_t size) {           // leaves it a loan, if there is a lease
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(manager, size, &chunk));
    zcp_chunk_release(&chunk);
}

static void set_all_on_loan(world *w) {  // to the survivor and the peer; the victim gets no lease
    zcp_mpmc_list list;
    set_lease_left(w);
    touch(w->peer, SMALL);
    find_small_list(w, &list);
    CHECK_EQ(zcp_mpmc_list_count(&list), 0);
    CHECK_EQ(inside_leases_held(w->survivor, 0), 2);
}

static void set_freed_token(world *w) {
    zcp_chunk chunk;
    set_instance(w);
    CHECK_OK(zcp_chunk_allocate(w->peer, SMALL, &chunk));
    w->old_token = zcp_chunk_token(&chunk);
    zcp_chunk_release(&chunk);
}

static void set_reallocated(world *w) {  // old_token's chunk has become another one, whose token goes about
    set_freed_token(w);
    take_small(w, 0);
    for (uint32_t i = 0; i < w->helds; i++)
        if (w->held[i].shared && w->held[i].chunk.index == (uint32_t)w->old_token)
            atomic_store(&shared->token, token_of(&w->held[i]));
    CHECK(atomic_load(&shared->token) != 0);
}

// Dead clients. The first one holds a chunk alone, one that the survivor borrows, one that only the second one borrows,
// and borrows one.
static zcp_manager *join(const world *w) {
    zcp_manager *manager;
    CHECK_OK(open_as(w, ZCP_SHM_OPEN_EXISTING, 0, &manager));
    return manager;
}

static void run_first_dead(world *w) {
    zcp_chunk chunk;
    zcp_manager *manager = join(w);
    CHECK_OK(zcp_chunk_allocate(manager, SMALL, &chunk));
    for (unsigned i = 0; i < 2; i++) {
        CHECK_OK(zcp_chunk_allocate(manager, SMALL, &chunk));
        fill(&chunk);
        atomic_store(&shared->dead_tokens[i], zcp_chunk_token(&chunk));
    }
    CHECK_OK(zcp_chunk_acquire(manager, w->held[1].token, &chunk));
}

static void run_second_dead(world *w) {
    zcp_chunk chunk;
    zcp_manager *manager = join(w);
    for (unsigned i = 0; i < 2; i++) CHECK_OK(zcp_chunk_acquire(manager, atomic_load(&shared->dead_tokens[i]), &chunk));
    CHECK_OK(zcp_chunk_allocate(manager, LARGE, &chunk));
}

static void set_one_dead(world *w) {
    set_instance(w);
    add_dead(w, run_first_dead, 1);
    await_phase(1);
    hold_acquired(w, w->survivor, atomic_load(&shared->dead_tokens[0]));
}

static void cache(zcp_manager *manager, uint64_t size, uint32_t n) {
    zcp_chunk chunks[CACHED];
    uint32_t pool = kind_of(size), before = cached_of(manager, pool);
    for (uint32_t i = 0; i < n; i++) CHECK_OK(zcp_chunk_allocate(manager, size, &chunks[i]));
    for (uint32_t i = 0; i < n; i++) zcp_chunk_release(&chunks[i]);
    CHECK_EQ(cached_of(manager, pool), before + n);
}

static void set_beside_cacher(world *w) {  // the peer caches all that nobody holds; nobody was exhausted yet
    set_lease_left(w);
    cache(w->peer, SMALL, 2);
    for (unsigned i = 0; i < SMALLS - 3; i++) hold_new(w, w->survivor, SMALL, true);
}

static void run_dead_cacher(world *w) {
    zcp_chunk chunk;
    zcp_manager *manager = join(w);
    CHECK_OK(zcp_chunk_allocate(manager, SMALL, &chunk));
    cache(manager, SMALL, 2);
}

static void set_dead_cacher(world *w) {
    set_lease_left(w);
    add_dead(w, run_dead_cacher, 1);
    await_phase(1);
}

static void run_dead_lessee(world *w) {  // has one chunk of its leaf; the hint of the other one is on loan to it
    zcp_chunk chunk;
    zcp_manager *manager = join(w);
    CHECK_OK(zcp_chunk_allocate(manager, SMALL, &chunk));
    touch(manager, SMALL);
    touch(manager, LARGE);                                         // without a lease: the survivor has that pool's
}

static void set_dead_lessee(world *w) {
    set_lease_left(w);
    add_dead(w, run_dead_lessee, 1);
    await_phase(1);
    CHECK_EQ(inside_leases_held(w->survivor, 0), 2);
}

static void set_two_dead(world *w) {
    set_one_dead(w);
    add_dead(w, run_second_dead, 2);
    await_phase(2);
}

static void set_exhausted_dead(world *w) {                         // the dead have the last chunks
    set_two_dead(w);
    take_small(w, 0);
}

static void run_dead_owner(world *w) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(join(w), SMALL, &chunk));
    fill(&chunk);
    atomic_store(&shared->token, zcp_chunk_token(&chunk));
}

static void set_dead_owner(world *w) {
    set_instance(w);
    add_dead(w, run_dead_owner, 1);
    await_phase(1);
}

static void run_dead_borrower(world *w) {
    zcp_chunk chunk;
    zcp_manager *manager = join(w);
    CHECK_OK(zcp_chunk_acquire(manager, await_token(), &chunk));
}

static void set_dead_borrower(world *w) {                          // its chunk comes from the victim
    set_instance(w);
    add_dead(w, run_dead_borrower, 1);
}

// Pools that come and go. Each of these worlds is a new instance, as numbers and places in the files are not as before
// when a pool has gone.
static uint32_t add(const world *w, zcp_manager *manager, unsigned k) {
    uint32_t number = UINT32_MAX;
    zcp_pool_config pool = config_of(w, k);
    CHECK_OK(zcp_manager_add_pool(manager, &pool, &number));
    return number;
}

static void set_two(world *w) {
    set_afresh(w);
    set_instance(w);
}

static void set_three(world *w) {                                  // a pool of EXTRA was added, and all know it
    set_two(w);
    w->number = add(w, w->survivor, 2);
    w->added = true;
    CHECK_EQ(w->number, 2);
    if (w->operation->cached) CHECK_EQ(zcp_manager_pool_end(w->peer), 3);
    else touch(w->peer, EXTRA);
}

static void set_three_held(world *w) {
    set_three(w);
    hold_new(w, w->survivor, EXTRA, true);
    atomic_store(&shared->token, token_of(hold_new(w, w->peer, EXTRA, true)));
    hold_acquired(w, w->survivor, atomic_load(&shared->token));
}

static void set_three_cached(world *w) {                           // by the peer, which has the only lease
    set_three(w);
    cache(w->peer, EXTRA, 2);
}

static void set_number_again(world *w) {  // the number was another pool's, whose end the peer has not seen
    set_three(w);
    CHECK_OK(zcp_manager_retire_pool(w->survivor, w->number));
}

static void run_add(world *w) {
    zcp_pool_config pool = config_of(w, 2);
    (void)zcp_manager_add_pool(join(w), &pool, NULL);
}

static void run_retire(world *w) { (void)zcp_manager_retire_pool(join(w), 2); }
static void set_tail(world *w) {  // behind the files' parts in use lies what a dead adder left
    set_two(w);
    CHECK(die_in(w, "pool_written", run_add));
}

static void set_extra_shared(world *w) {  // the peer owns a chunk of EXTRA whose token goes about
    set_three(w);
    atomic_store(&shared->token, token_of(hold_new(w, w->peer, EXTRA, true)));
}

static void run_dead_extra(world *w) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(join(w), EXTRA, &chunk));
}

static void set_dead_extra(world *w) {  // a dead client has the last chunk of a retiring pool
    set_three(w);
    add_dead(w, run_dead_extra, 1);
    await_phase(1);
    CHECK_OK(zcp_manager_retire_pool(w->survivor, w->number));
}

static void run_create(world *w) {
    zcp_manager *manager;
    (void)open_as(w, ZCP_SHM_OPEN_OR_CREATE, 0, &manager);
}

static void set_half_made(world *w) { CHECK(die_in(w, "formatted", run_create)); }
static void set_retired(world *w) {
    set_instance(w);
    CHECK(die_in(w, "retired", run_destroy));
}

static void set_management_removed(world *w) {                     // by hand, while it is in use
    char name[96];
    set_instance(w);
    snprintf(name, sizeof name, "/%s%s", w->name, suffixes[MANAGEMENT]);
    CHECK(shm_unlink(name) == 0);
}

static void set_chunk_alone(world *w) {
    char name[96];
    zcp_shm shm;
    snprintf(name, sizeof name, "%s%s", w->name, suffixes[CHUNK]);
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .bytes = 4096}));
    zcp_shm_close(&shm);
}

static void set_object(world *w) {
    zcp_shm shm;
    CHECK_OK(open_object(w, ZCP_SHM_OPEN_OR_CREATE, 0, &shm));
    zcp_shm_close(&shm);
}

// ---------------------------------------------------------------------------------------------------------------------
// Preparations of the victim, and what the stage does when the victim is about to operate

static void prepare_join(world *w) { w->mine = join(w); }
static void prepare_join_fallback(world *w) {
    CHECK_OK(zcp_manager_open(
        &w->mine, &(zcp_manager_desc){.name = w->name, .mode = ZCP_SHM_OPEN_EXISTING, .flags = ZCP_FALLBACK}));
}

static void prepare_own(world *w) {                                // owns a chunk of which there is no token
    prepare_join(w);
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->a));
    fill(&w->a);
}

static void prepare_loan(world *w) {
    prepare_join(w);
    touch(w->mine, SMALL);
}

static void prepare_loan_used_up(world *w) {                       // has all chunks of the leaf that it took on loan
    prepare_join(w);
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->b));
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->c));
    CHECK_EQ(inside_loaned_count(w->mine, 0), SMALLS - 3);         // the survivor's
    fill(&w->b);
    fill(&w->c);
}

static void prepare_own_elsewhere(world *w) {                      // and one of the survivor's leaf
    prepare_loan_used_up(w);
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->a));
    fill(&w->a);
}

static void prepare_cache(world *w) {
    prepare_join(w);
    cache(w->mine, SMALL, 2);
}

// The victim's only thread will end; this comes after what the library does then, because its key is a newer one.
static void end_of_thread(void *of) {
    world *w = of;
    complete(w);
    _exit(0);
}

static void *end_at_once(void *nothing) {
    pthread_exit(nothing);
}

static void prepare_end(world *w) {
    pthread_key_t key;
    pthread_t thread;
    // so that nothing is to be loaded later
    CHECK(pthread_create(&thread, NULL, end_at_once, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(pthread_key_create(&key, end_of_thread) == 0 && pthread_setspecific(key, w) == 0);
}

static void prepare_end_loan(world *w) {
    prepare_loan(w);
    prepare_end(w);
}

static void prepare_end_cache(world *w) {
    prepare_cache(w);
    prepare_end(w);
}

static void prepare_own_and_cache(world *w) {
    prepare_own(w);
    w->before = w->a;
    cache(w->mine, SMALL, 2);
}

static void prepare_own_and_full_cache(world *w) {
    prepare_own(w);
    w->before = w->a;
    cache(w->mine, SMALL, CACHED);
}

static void prepare_cached(world *w) {                             // the one that it had
    prepare_own(w);
    w->before = w->a;
    zcp_chunk_release(&w->a);
    CHECK_EQ(cached_of(w->mine, 0), 1);
}

static void prepare_own_shared(world *w) {
    prepare_own(w);
    atomic_store(&shared->token, zcp_chunk_token(&w->a));
}

static void prepare_own_marked(world *w) {
    prepare_own_shared(w);
    w->before = w->a;
}

static void prepare_cached_marked(world *w) {
    prepare_own_marked(w);
    zcp_chunk_release(&w->a);
    CHECK_EQ(cached_of(w->mine, 0), 1);
}

static void prepare_own_clone(world *w) {
    prepare_own(w);
    w->b = zcp_chunk_clone(&w->a);
}

static void prepare_own_acquired(world *w) {                       // owner and borrower at once
    prepare_own_shared(w);
    CHECK_OK(zcp_chunk_acquire(w->mine, atomic_load(&shared->token), &w->b));
}

static void prepare_borrow(world *w) {
    prepare_join(w);
    CHECK_OK(zcp_chunk_acquire(w->mine, await_token(), &w->a));
    verify(&w->a);
}

static void prepare_borrow_twice(world *w) {
    prepare_borrow(w);
    CHECK_OK(zcp_chunk_acquire(w->mine, await_token(), &w->b));
}

static void prepare_hold_many(world *w) {  // one alone, one that the peer will borrow, one borrowed
    prepare_join(w);
    CHECK_OK(zcp_chunk_allocate(w->mine, LARGE, &w->a));
    CHECK_OK(zcp_chunk_acquire(w->mine, w->held[1].token, &w->b));
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->c));
    fill(&w->c);
    atomic_store(&shared->token, zcp_chunk_token(&w->c));
}

// Topics. The victim publishes and subscribes; what it leaves nobody is to read, so all of it comes back.
static const char topic[] = "topic";

static zcp_publisher *publisher_of(zcp_manager *manager, uint32_t depth) {
    zcp_publisher *publisher;
    CHECK_OK(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = topic, .depth = depth}, &publisher));
    return publisher;
}

static void publish_new(zcp_manager *manager, zcp_publisher *publisher) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(manager, SMALL, &chunk));
    fill(&chunk);
    CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
}

// The next message, whose payload has to be right.
static void receive_one(world *w) {
    zcp_chunk kept;
    CHECK_OK(zcp_subscriber_receive(w->subscriber, 0, &w->message));
    CHECK_OK(zcp_subscriber_keep(w->subscriber, &kept));
    verify(&kept);
    zcp_chunk_release(&kept);
}

static void prepare_publisher(world *w) {
    prepare_join(w);
    w->publisher = publisher_of(w->mine, 1);
}

static void prepare_topic(world *w)                                // both, and a chunk to be published
{
    prepare_publisher(w);
    CHECK_OK(zcp_subscriber_open(w->mine, &(zcp_subscriber_desc){.topic = topic}, &w->subscriber));
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->a));
    fill(&w->a);
}

static void prepare_message(world *w)                              // one message that is unread
{
    prepare_publisher(w);
    CHECK_OK(zcp_subscriber_open(w->mine, &(zcp_subscriber_desc){.topic = topic}, &w->subscriber));
    publish_new(w->mine, w->publisher);
}

static void prepare_read(world *w)                                 // in hand
{
    prepare_message(w);
    receive_one(w);
}

static void prepare_displace(world *w)                             // the ring is full of what is read
{
    prepare_topic(w);
    publish_new(w->mine, w->publisher);
    receive_one(w);
    zcp_subscriber_done(w->subscriber);
}

static void prepare_put_aside(world *w)                            // ... of what is being read
{
    prepare_topic(w);
    publish_new(w->mine, w->publisher);
    receive_one(w);
}

static void prepare_overtake(world *w)                             // ... of what is unread
{
    prepare_topic(w);
    publish_new(w->mine, w->publisher);
}

static void prepare_three(world *w)                                // one has it in hand, one has read it, one is late
{
    zcp_subscriber *others[2];
    prepare_topic(w);
    for (int i = 0; i < 2; i++)
        CHECK_OK(zcp_subscriber_open(w->mine, &(zcp_subscriber_desc){.topic = topic}, &others[i]));
    publish_new(w->mine, w->publisher);
    receive_one(w);
    CHECK_OK(zcp_subscriber_receive(others[0], 0, &(zcp_message){0}));
    zcp_subscriber_done(others[0]);
}

static void run_dead_subscriber(world *w) {
    zcp_subscriber *subscriber;
    CHECK_OK(zcp_subscriber_open(join(w), &(zcp_subscriber_desc){.topic = topic, .reliable = true}, &subscriber));
}

static void set_dead_subscriber(world *w)                          // for whom publishers wait, until they find it dead
{
    set_instance(w);
    add_dead(w, run_dead_subscriber, 1);
    await_phase(1);
}

static void prepare_full(world *w)                                 // the ring is full, and somebody late
{
    prepare_publisher(w);
    publish_new(w->mine, w->publisher);
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->a));
    fill(&w->a);
}

static void run_dead_publisher(world *w) {
    zcp_manager *manager = join(w);
    zcp_publisher *publisher = publisher_of(manager, 2);
    zcp_subscriber *subscriber;
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = topic, .reliable = true}, &subscriber));
    publish_new(manager, publisher);
    publish_new(manager, publisher);
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &(zcp_message){0}));
}

static void set_dead_publisher(world *w)                           // with a message in hand, and one that is unread
{
    set_instance(w);
    add_dead(w, run_dead_publisher, 1);
    await_phase(1);
}

static void do_publisher_open(world *w) {
    w->status = zcp_publisher_open(w->mine, &(zcp_publisher_desc){.topic = topic, .depth = 2}, &w->publisher);
}

static void do_subscriber_open(world *w) {
    w->status = zcp_subscriber_open(w->mine, &(zcp_subscriber_desc){.topic = topic, .history = 1}, &w->subscriber);
}

static void do_publisher_close(world *w) { zcp_publisher_close(w->publisher); }
static void do_subscriber_close(world *w) { zcp_subscriber_close(w->subscriber); }
static void do_loan(world *w) { w->status = zcp_publisher_loan(w->publisher, SMALL, &w->b); }
static void do_publish(world *w) { w->status = zcp_publisher_publish(w->publisher, &w->a, NULL); }
static void do_receive(world *w) { w->status = zcp_subscriber_receive(w->subscriber, 0, &w->message); }
static void do_keep(world *w) { w->status = zcp_subscriber_keep(w->subscriber, &w->b); }
static void do_done(world *w) { zcp_subscriber_done(w->subscriber); }
static void leave(world *w);
static void finish_topic(world *w)                                 // whatever has come can be read, and all works on
{
    CHECK_OK(w->status);
    if (w->b.manager && w->operation->operate == do_keep) verify(&w->b);
    zcp_subscriber_done(w->subscriber);
    if (w->subscriber && w->publisher) {
        while (zcp_subscriber_receive(w->subscriber, 0, &w->message) == ZCP_OK) {}
        publish_new(w->mine, w->publisher);
        receive_one(w);
    }
    leave(w);
}

static void finish_topic_closed(world *w) { leave(w); }
// While it stood others may have taken all that was left.
static void finish_loan(world *w) {
    if (w->status != ZCP_ERR_EXHAUSTED || (w->variant != 1 && w->variant != 3)) CHECK_OK(w->status);
    leave(w);
}

static void prepare_object(world *w) { CHECK_OK(open_object(w, ZCP_SHM_OPEN_EXISTING, 0, &w->shm)); }

static void prepare_own_extra(world *w) {
    prepare_join(w);
    CHECK_OK(zcp_chunk_allocate(w->mine, EXTRA, &w->a));
    fill(&w->a);
}

static void prepare_touch_extra(world *w) {
    prepare_join(w);
    touch(w->mine, EXTRA);
}

static void prepare_own_cached_extra(world *w) {
    prepare_own_extra(w);
    cache(w->mine, EXTRA, 1);
}

static void begin_retire(world *w) { CHECK_OK(zcp_manager_retire_pool(w->survivor, w->number)); }
static void begin_retire_and_leave(world *w) {                     // only the victim has a chunk of it
    begin_retire(w);
    let_go(w, true);
}

static void begin_add(world *w) { CHECK_EQ(add(w, w->survivor, 2), 2); }
static void begin_add_and_send(world *w) {
    CHECK_EQ(add(w, w->peer, 2), 2);
    atomic_store(&shared->token, token_of(hold_new(w, w->peer, EXTRA, true)));
}

static void begin_death(world *w, const char *step, void (*run)(world *w)) {
    CHECK(die_in(w, step, run));
    w->died = 1;
}

static void begin_adder_dies(world *w) { begin_death(w, "pool_live", run_add); }
static void begin_adder_dies_early(world *w) { begin_death(w, "chunk_extended", run_add); }
static void begin_retirer_dies(world *w) { begin_death(w, "pool_retiring", run_retire); }
static void begin_retirer_dies_later(world *w) { begin_death(w, "retire_told", run_retire); }
// A client that waits for a chunk; it sleeps when this returns.
static void run_waiter(world *w) {
    zcp_chunk chunk;
    zcp_manager *manager = join(w);
    atomic_store(&shared->phase, 1);
    CHECK_OK(zcp_chunk_allocate_wait(manager, SMALL, UINT32_MAX, &chunk));
    fill(&chunk);
    verify(&chunk);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

static void begin_waiter(world *w) {
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        die_with_parent(parent);
        run_waiter(w);
        _exit(0);
    }
    w->waiter = pid;
    await_phase(1);
    for (unsigned i = 0; !is_asleep(pid); i++) await_other(i);
}

static void begin_peer_borrows(world *w) { hold_acquired(w, w->peer, await_token()); }
static void begin_two_borrow(world *w) {
    hold_acquired(w, w->peer, await_token());
    hold_acquired(w, w->survivor, await_token());
}

// two hints of the first leaf come into the list, and leave the survivor's loan
static void begin_peer_lists(world *w) {
    zcp_chunk chunks[SMALLS];
    uint32_t n = 0;
    for (; n < 2; n++) CHECK_OK(zcp_chunk_allocate(w->peer, SMALL, &chunks[n]));     // it has no lease
    while (inside_loaned_count(w->survivor, 0) > 0) CHECK_OK(zcp_chunk_allocate(w->survivor, SMALL, &chunks[n++]));
    while (n > 0) zcp_chunk_release(&chunks[--n]);
    CHECK_EQ(inside_loaned_count(w->survivor, 0), SMALLS - 5);
    CHECK_EQ(inside_hint_count(w->survivor, 0), SMALLS - 3);
}

static void begin_peer_exhausted(world *w) { take_small(w, 0); }
static void begin_peer_wants(world *w) { inside_want(w->peer, 0); }
static void begin_all_leave(world *w) { let_go(w, true); }
static void leave_shared(world *w, zcp_manager *manager) {
    for (uint32_t i = 0; i < w->helds; i++)
        if (w->held[i].shared && w->held[i].chunk.manager == manager) {
            zcp_chunk_release(&w->held[i].chunk);
            w->held[i] = w->held[--w->helds];
            return;
        }
}

static void begin_peer_leaves(world *w) { leave_shared(w, w->peer); }             // the survivor goes on borrowing
static void begin_survivor_leaves(world *w) { leave_shared(w, w->survivor); }     // the peer does
static void begin_peer_came_and_left(world *w) {
    begin_two_borrow(w);
    begin_peer_leaves(w);
}

static void begin_borrower_has_come(world *w) {
    (void)w;
    await_phase(1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Operations

static void do_open(world *w) { w->status = open_as(w, ZCP_SHM_OPEN_OR_CREATE, PATIENT_MS, &w->mine); }
static void do_open_exclusive(world *w) { w->status = open_as(w, ZCP_SHM_CREATE_EXCLUSIVE, PATIENT_MS, &w->mine); }
static void do_open_purge(world *w) { w->status = open_as(w, ZCP_SHM_PURGE_AND_CREATE, PATIENT_MS, &w->mine); }
static void do_close(world *w) {
    zcp_manager_close(w->mine);
    w->a = w->b = w->c = (zcp_chunk){0};                           // nothing is left of them
}

static void do_recover(world *w) { w->status = zcp_manager_recover(w->mine, NULL); }
static void do_allocate(world *w) { w->status = zcp_chunk_allocate(w->mine, SMALL, &w->a); }
static void do_write(world *w) {
    volatile uint64_t *words = w->a.data;
    for (unsigned i = 0; i < SMALL / 8; i++) words[i] = ~words[i];
}

static void do_token(world *w) { atomic_store(&shared->token, zcp_chunk_token(&w->a)); }
static void do_clone(world *w) { w->b = zcp_chunk_clone(&w->a); }
static void do_acquire(world *w) { w->status = zcp_chunk_acquire(w->mine, atomic_load(&shared->token), &w->b); }
static void do_acquire_old(world *w) { w->status = zcp_chunk_acquire(w->mine, w->old_token, &w->b); }
static void do_release(world *w) { zcp_chunk_release(&w->a); }
static void do_token_and_release(world *w) {
    do_token(w);
    do_release(w);
}

static void do_release_both(world *w) {
    zcp_chunk_release(&w->a);
    zcp_chunk_release(&w->b);
}

static void do_add(world *w) {
    zcp_pool_config pool = config_of(w, 2);
    w->status = zcp_manager_add_pool(w->mine, &pool, &w->number);
}

static void do_add_other(world *w) {
    zcp_pool_config pool = config_of(w, 3);
    w->status = zcp_manager_add_pool(w->mine, &pool, &w->number);
}

static void do_retire(world *w) { w->status = zcp_manager_retire_pool(w->mine, 2); }
static void do_reconfigure(world *w) {
    zcp_config config = {0};
    for (unsigned k = 0; k < KINDS; k++) {
        zcp_pool_config pool = config_of(w, k);
        if (k != 1) CHECK_OK(zcp_config_add(&config, &pool));
    }
    w->status = zcp_manager_reconfigure(w->mine, &config);
}

static void do_allocate_extra(world *w) { w->status = zcp_chunk_allocate(w->mine, EXTRA, &w->a); }
static void do_allocate_tagged(world *w) { w->status = zcp_chunk_allocate_tagged(w->mine, SMALL, 0x7a67, &w->a); }
static void do_wait(world *w) { w->status = zcp_chunk_allocate_wait(w->mine, SMALL, UINT32_MAX, &w->a); }
static bool count_entry(const zcp_census_entry *entry, void *user) {
    *(uint64_t *)user += entry->capacity;
    return true;
}

static void do_observe(world *w) {
    zcp_pool_stats stats;
    zcp_client_stats client;
    uint64_t bytes = 0;
    w->status = zcp_manager_open(
        &w->mine, &(zcp_manager_desc){.name = w->name, .mode = ZCP_SHM_OPEN_EXISTING, .flags = ZCP_OBSERVE});
    if (w->status != ZCP_OK) return;
    for (uint32_t pool = 0; pool < zcp_manager_pool_end(w->mine) && w->status == ZCP_OK; pool++)
        w->status = zcp_manager_pool_stats(w->mine, pool, &stats);
    for (uint32_t slot = 0; slot < 2 && w->status == ZCP_OK; slot++)
        w->status = zcp_manager_client_stats(w->mine, slot, &client);
    if (w->status == ZCP_OK) w->status = zcp_manager_census(w->mine, count_entry, &bytes);
    zcp_manager_close(w->mine);
}

static void do_end_thread(world *w) {
    (void)w;
    pthread_exit(NULL);                                            // the process goes on in end_of_thread
}

static void do_shm_open(world *w) { w->status = open_object(w, ZCP_SHM_OPEN_OR_CREATE, 0, &w->shm); }
static void do_shm_purge(world *w) { w->status = open_object(w, ZCP_SHM_PURGE_AND_CREATE, 0, &w->shm); }
static void do_shm_close(world *w) { zcp_shm_close(&w->shm); }
static void do_shm_unlink(world *w) { w->status = zcp_shm_unlink(w->name); }

// After a stop. Where the others took what was left, or let go of what was shared, two answers are right.
static void leave(world *w) {
    zcp_chunk_release(&w->a);
    zcp_chunk_release(&w->b);
    zcp_chunk_release(&w->c);
    zcp_manager_close(w->mine);
}

static void finish_leave(world *w) {
    CHECK_OK(w->status);
    if (w->a.manager) verify(&w->a);
    if (w->b.manager) verify(&w->b);
    leave(w);
}

static void finish_allocate(world *w) {
    if (w->status != ZCP_ERR_EXHAUSTED || (w->variant != 1 && w->variant != 3)) {
        CHECK_OK(w->status);
        fill(&w->a);
        verify(&w->a);
    }
    leave(w);
}

static void finish_added(world *w) {                               // it can be used at once
    CHECK_OK(w->status);
    CHECK_EQ(w->number, 2);
    finish_leave(w);
}

static void finish_tagged(world *w) {
    if (w->status == ZCP_OK) CHECK_EQ(zcp_chunk_tag(&w->a), 0x7a67);
    finish_allocate(w);
}

static void finish_too_large(world *w) {
    CHECK_STATUS(w->status, ZCP_ERR_TOO_LARGE);
    leave(w);
}

static void finish_observe(world *w) { CHECK_OK(w->status); }
static void finish_waited(world *w) {
    CHECK_OK(w->status);
    fill(&w->a);
    finish_leave(w);
}

static void finish_exhausted(world *w) {
    if (w->status != ZCP_ERR_EXHAUSTED) {
        CHECK_OK(w->status);
        CHECK_EQ(w->variant, 2);
    }
    leave(w);
}

static void finish_cached(world *w) {  // what it released is no more, whatever became of the chunk
    CHECK(!zcp_chunk_is_valid(&w->before));
    finish_leave(w);
}

static void finish_allocate_cached(world *w) {
    CHECK(!zcp_chunk_is_valid(&w->before));
    finish_allocate(w);
}

static void finish_end_thread(world *w) {                          // nothing is left of it
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(w->mine, &info));
    for (uint32_t i = 0; i < SMALLS + LARGES; i++) {
        uint64_t state = inside_state_word(w->mine, i < SMALLS ? 0 : 1, i < SMALLS ? i : i - SMALLS);
        CHECK_MSG((state >> 21 & 0x7ff) != info.slot + 1, "chunk %u is still its own", i);
    }
    leave(w);
}

static void finish_beside_cacher(world *w) {                       // who gets what the peer gives back is open
    if (w->status != ZCP_ERR_EXHAUSTED) {
        CHECK_OK(w->status);
        fill(&w->a);
        verify(&w->a);
    }
    leave(w);
}

static void finish_write(world *w) {
    const uint64_t *words = zcp_chunk_data(&w->a);
    CHECK(words != NULL);
    for (unsigned i = 0; i < SMALL / 8; i++) CHECK_EQ(words[i], ~(name_of(&w->a) + i));
    leave(w);
}

static void finish_acquire(world *w) {
    if (w->status != ZCP_ERR_STALE || (w->variant != 2 && w->variant != 3)) {
        CHECK_OK(w->status);
        verify(&w->b);
    }
    leave(w);
}

static void finish_acquire_dead(world *w) {                        // its owner is swept meanwhile
    if (w->status != ZCP_ERR_STALE) finish_acquire(w);
    else leave(w);
}

static void finish_acquire_old(world *w) {
    CHECK_STATUS(w->status, ZCP_ERR_STALE);
    if (w->a.manager) verify(&w->a);
    leave(w);
}

static void finish_open(world *w) {
    CHECK_OK(w->status);
    if (shared->current) {
        CHECK_OK(zcp_manager_check(w->mine));
        CHECK(is_there(w, CHUNK));
    }
    CHECK_OK(zcp_chunk_allocate(w->mine, SMALL, &w->a));
    fill(&w->a);
    verify(&w->a);
    leave(w);
}

static void finish_open_exclusive(world *w) {
    if (w->status != ZCP_ERR_EXISTS) finish_open(w);
}

static void finish_open_existing(world *w) {
    if (w->status != ZCP_ERR_NOT_FOUND || w->variant < 3) finish_open(w);
}

static void finish_destroy(world *w) {
    if (w->status != ZCP_ERR_NOT_FOUND) CHECK_OK(w->status);
}

static void finish_shm(world *w) {
    if (w->status != ZCP_ERR_NOT_FOUND) CHECK_OK(w->status);
    zcp_shm_close(&w->shm);
}

static const operation operations[] = {
    {"open-fresh", NAMES, .set = set_nothing, .operate = do_open, .finish = finish_open},
    {"open-exclusive", NAMES, .set = set_nothing, .operate = do_open_exclusive, .finish = finish_open_exclusive},
    {"open-half-made", NAMES, .set = set_half_made, .operate = do_open, .finish = finish_open},
    {"open-retired", NAMES, .set = set_retired, .operate = do_open, .finish = finish_open},
    {"open-chunk-alone", NAMES, .set = set_chunk_alone, .operate = do_open, .finish = finish_open},
    {"open-management-removed", NAMES, .set = set_management_removed, .operate = do_open, .finish = finish_open},
    {"open-purge", NAMES, .set = set_instance, .operate = do_open_purge, .finish = finish_open},
    {"open-existing-names", NAMES, .set = set_instance, .operate = do_open_existing, .finish = finish_open_existing},
    {"destroy", NAMES, .set = set_instance, .operate = do_destroy, .finish = finish_destroy},
    {"destroy-retired", NAMES, .set = set_retired, .operate = do_destroy, .finish = finish_destroy},
    {"destroy-chunk-alone", NAMES, .set = set_chunk_alone, .operate = do_destroy, .finish = finish_destroy},
    {"open-existing", CHUNKS, .set = set_instance, .operate = do_open_existing, .finish = finish_open},
    {"join-dead", CHUNKS, .set = set_two_dead, .operate = do_open_existing, .finish = finish_open, .extra = 4,
     .sweeps = true},
    {"allocate-full", CHUNKS, .set = set_instance, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1},
    {"allocate-last", CHUNKS, .set = set_last, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1},
    {"allocate-exhausted", CHUNKS, .set = set_exhausted, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_exhausted},
    {"allocate-stale-hints", CHUNKS, .set = set_stale_hints, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1},
    {"allocate-lost-hints", CHUNKS, .set = set_lost_hints, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1},
    {"allocate-fallback", CHUNKS, .set = set_exhausted, .prepare = prepare_join_fallback, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1},
    {"allocate-recovers", CHUNKS, .set = set_exhausted_dead, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 4, .late = true, .sweeps = true},
    {"write", CHUNKS, .set = set_instance, .prepare = prepare_own, .operate = do_write, .finish = finish_write,
     .extra = 1},
    {"token", CHUNKS, .set = set_instance, .prepare = prepare_own, .operate = do_token, .finish = finish_leave,
     .extra = 1},
    {"token-of-clone", CHUNKS, .set = set_instance, .prepare = prepare_own_clone, .operate = do_token,
     .finish = finish_leave, .extra = 1},
    {"token-and-release", CHUNKS, .set = set_instance, .prepare = prepare_own, .operate = do_token_and_release,
     .finish = finish_leave, .extra = 1},
    {"clone", CHUNKS, .set = set_instance, .prepare = prepare_own, .operate = do_clone, .finish = finish_leave,
     .extra = 1},
    {"clone-borrowed", CHUNKS, .set = set_shared, .prepare = prepare_borrow, .operate = do_clone,
     .finish = finish_leave},
    {"acquire-first", CHUNKS, .set = set_shared, .prepare = prepare_join, .operate = do_acquire,
     .finish = finish_acquire},
    {"acquire-second", CHUNKS, .set = set_shared, .prepare = prepare_borrow, .operate = do_acquire,
     .finish = finish_leave},
    {"acquire-own", CHUNKS, .set = set_instance, .prepare = prepare_own_shared, .operate = do_acquire,
     .finish = finish_leave, .extra = 1},
    {"acquire-dead-owner", CHUNKS, .set = set_dead_owner, .prepare = prepare_join, .operate = do_acquire,
     .finish = finish_acquire_dead, .extra = 1, .late = true},
    {"acquire-free", CHUNKS, .set = set_freed_token, .prepare = prepare_join, .operate = do_acquire_old,
     .finish = finish_acquire_old},
    {"acquire-reallocated", CHUNKS, .set = set_reallocated, .prepare = prepare_join, .operate = do_acquire_old,
     .finish = finish_acquire_old},
    {"acquire-stale-beside-own", CHUNKS, .set = set_reallocated, .prepare = prepare_borrow, .operate = do_acquire_old,
     .finish = finish_acquire_old},
    {"release-alone", CHUNKS, .set = set_instance, .prepare = prepare_own, .operate = do_release,
     .finish = finish_leave, .extra = 1},
    {"release-alone-token", CHUNKS, .set = set_instance, .prepare = prepare_own_shared, .operate = do_release,
     .finish = finish_leave, .extra = 1},
    {"release-clone", CHUNKS, .set = set_instance, .prepare = prepare_own_clone, .operate = do_release,
     .finish = finish_leave, .extra = 1},
    {"release-owner-borrower", CHUNKS, .set = set_instance, .prepare = prepare_own_shared, .begin = begin_peer_borrows,
     .operate = do_release, .finish = finish_leave},
    {"release-owner-borrowers", CHUNKS, .set = set_instance, .prepare = prepare_own_shared, .begin = begin_two_borrow,
     .operate = do_release, .finish = finish_leave},
    {"release-owner-dead-borrower", CHUNKS, .set = set_dead_borrower, .prepare = prepare_own_shared,
     .begin = begin_borrower_has_come, .operate = do_release, .finish = finish_leave, .extra = 1, .late = true},
    {"release-owner-own-borrow", CHUNKS, .set = set_instance, .prepare = prepare_own_acquired,
     .operate = do_release_both, .finish = finish_leave, .extra = 1},
    {"release-borrower-owner", CHUNKS, .set = set_shared, .prepare = prepare_borrow, .operate = do_release,
     .finish = finish_leave},
    {"release-borrower-others", CHUNKS, .set = set_shared_twice, .prepare = prepare_borrow, .begin = begin_peer_leaves,
     .operate = do_release, .finish = finish_leave},
    {"release-borrower-twice", CHUNKS, .set = set_shared, .prepare = prepare_borrow_twice, .begin = begin_all_leave,
     .operate = do_release_both, .finish = finish_leave, .extra = 1},
    {"release-last-borrower", CHUNKS, .set = set_shared, .prepare = prepare_borrow, .begin = begin_all_leave,
     .operate = do_release, .finish = finish_leave, .extra = 1},
    {"release-after-owner-died", CHUNKS, .set = set_dead_owner, .prepare = prepare_borrow, .operate = do_release,
     .finish = finish_leave, .extra = 1, .late = true},
    {"recover-none", CHUNKS, .set = set_instance, .prepare = prepare_join, .operate = do_recover,
     .finish = finish_leave},
    {"recover-one", CHUNKS, .set = set_one_dead, .prepare = prepare_join, .operate = do_recover, .finish = finish_leave,
     .extra = 2, .late = true, .sweeps = true},
    {"recover-two", CHUNKS, .set = set_two_dead, .prepare = prepare_join, .operate = do_recover, .finish = finish_leave,
     .extra = 4, .late = true, .sweeps = true},
    {"close-empty", CHUNKS, .set = set_instance, .prepare = prepare_join, .operate = do_close},
    {"close-held", CHUNKS, .set = set_instance, .prepare = prepare_hold_many, .begin = begin_peer_borrows,
     .operate = do_close, .extra = 1, .sweeps = true},

    // Loans of the hints of a leaf.
    {"allocate-loan", CHUNKS, .set = set_lease_left, .prepare = prepare_loan, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1},
    {"allocate-next-leaf", CHUNKS, .set = set_lease_left, .prepare = prepare_loan_used_up, .begin = begin_peer_lists,
     .operate = do_allocate, .finish = finish_allocate, .extra = 3},
    {"allocate-from-loans", CHUNKS, .set = set_all_on_loan, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1},
    {"release-loan", CHUNKS, .set = set_lease_left, .prepare = prepare_own, .operate = do_release,
     .finish = finish_leave, .extra = 1},
    {"release-elsewhere", CHUNKS, .set = set_lease_left, .prepare = prepare_own_elsewhere, .operate = do_release,
     .finish = finish_leave, .extra = 3},
    {"close-loan", CHUNKS, .set = set_lease_left, .prepare = prepare_loan, .operate = do_close, .sweeps = true},
    {"end-thread-loan", CHUNKS, .set = set_lease_left, .prepare = prepare_end_loan, .operate = do_end_thread,
     .finish = finish_end_thread},
    {"recover-lessee", CHUNKS, .set = set_dead_lessee, .prepare = prepare_join, .operate = do_recover,
     .finish = finish_leave, .extra = 1, .late = true, .sweeps = true},

    // Chunks that threads keep for themselves.
    {"allocate-cached", CHUNKS, .set = set_lease_left, .prepare = prepare_cached, .operate = do_allocate,
     .finish = finish_allocate_cached, .extra = 1, .cached = true},
    {"allocate-cached-token", CHUNKS, .set = set_lease_left, .prepare = prepare_cached_marked, .operate = do_allocate,
     .finish = finish_allocate_cached, .extra = 1, .cached = true},
    {"allocate-beside-cacher", CHUNKS, .set = set_beside_cacher, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_beside_cacher, .extra = 1, .cached = true},
    {"release-cached", CHUNKS, .set = set_lease_left, .prepare = prepare_own_and_cache, .operate = do_release,
     .finish = finish_cached, .extra = 3, .cached = true},
    {"release-cached-token", CHUNKS, .set = set_lease_left, .prepare = prepare_own_marked, .operate = do_release,
     .finish = finish_cached, .extra = 1, .cached = true},
    {"release-cached-full", CHUNKS, .set = set_lease_left, .prepare = prepare_own_and_full_cache, .operate = do_release,
     .finish = finish_cached, .extra = CACHED + 1, .cached = true},
    {"yield-at-allocate", CHUNKS, .set = set_lease_left, .prepare = prepare_cache, .begin = begin_peer_wants,
     .operate = do_allocate, .finish = finish_allocate, .extra = 3, .cached = true},
    {"yield-at-release", CHUNKS, .set = set_lease_left, .prepare = prepare_own_and_cache, .begin = begin_peer_wants,
     .operate = do_release, .finish = finish_cached, .extra = 3, .cached = true},
    {"yield-taken", CHUNKS, .set = set_lease_left, .prepare = prepare_own_and_cache, .begin = begin_peer_exhausted,
     .operate = do_release, .finish = finish_cached, .extra = 1, .cached = true},
    {"close-cached", CHUNKS, .set = set_lease_left, .prepare = prepare_cache, .operate = do_close, .extra = 3,
     .sweeps = true, .cached = true},
    {"end-thread-cached", CHUNKS, .set = set_lease_left, .prepare = prepare_end_cache, .operate = do_end_thread,
     .finish = finish_end_thread, .extra = 3, .cached = true},
    {"recover-cacher", CHUNKS, .set = set_dead_cacher, .prepare = prepare_join, .operate = do_recover,
     .finish = finish_leave, .extra = 4, .late = true, .sweeps = true, .cached = true},

    // Pools that come and go.
    {"add-pool", CHUNKS, .set = set_two, .prepare = prepare_join, .operate = do_add, .finish = finish_added,
     .sets = {S | L, S | L | X}, .grows = true},
    {"add-pool-number-again", CHUNKS, .set = set_number_again, .prepare = prepare_join, .operate = do_add_other,
     .finish = finish_added, .sets = {S | L, S | L | O}},
    {"add-pool-over-tail", CHUNKS, .set = set_tail, .prepare = prepare_join, .operate = do_add, .finish = finish_added,
     .sets = {S | L, S | L | X}},
    {"retire-pool", CHUNKS, .set = set_three, .prepare = prepare_join, .operate = do_retire, .finish = finish_leave,
     .sets = {S | L | X, S | L}},
    {"retire-pool-held", CHUNKS, .set = set_three_held, .prepare = prepare_join, .operate = do_retire,
     .finish = finish_leave, .sets = {S | L | X, S | L}},
    {"retire-pool-cached", CHUNKS, .set = set_three_cached, .prepare = prepare_join, .operate = do_retire,
     .finish = finish_leave, .sets = {S | L | X, S | L}, .cached = true},
    {"recover-idle-cache", CHUNKS, .set = set_three_cached, .prepare = prepare_join, .begin = begin_retire,
     .operate = do_recover, .finish = finish_leave, .sets = {S | L}, .cached = true},
    {"reconfigure", CHUNKS, .set = set_two, .prepare = prepare_join, .operate = do_reconfigure, .finish = finish_leave,
     .sets = {S | L, S | L | X, S | L | X | O, S | X | O}, .grows = true},
    {"release-ends-pool", CHUNKS, .set = set_three, .prepare = prepare_own_extra, .begin = begin_retire,
     .operate = do_release, .finish = finish_leave, .sets = {S | L}},
    {"release-borrower-ends-pool", CHUNKS, .set = set_extra_shared, .prepare = prepare_borrow,
     .begin = begin_retire_and_leave, .operate = do_release, .finish = finish_leave, .sets = {S | L}},
    {"release-cached-ends-pool", CHUNKS, .set = set_three, .prepare = prepare_own_cached_extra, .begin = begin_retire,
     .operate = do_release, .finish = finish_leave, .sets = {S | L}, .cached = true},
    {"recover-ends-pool", CHUNKS, .set = set_dead_extra, .prepare = prepare_join, .operate = do_recover,
     .finish = finish_leave, .late = true, .sweeps = true, .sets = {S | L}},
    {"recover-adder", CHUNKS, .set = set_two, .prepare = prepare_join, .begin = begin_adder_dies, .operate = do_recover,
     .finish = finish_leave, .sweeps = true, .sets = {S | L, S | L | X}, .ends = S | L | X},
    {"recover-tail", CHUNKS, .set = set_two, .prepare = prepare_join, .begin = begin_adder_dies_early,
     .operate = do_recover, .finish = finish_leave, .sweeps = true, .sets = {S | L}, .grows = true},
    {"recover-retirer", CHUNKS, .set = set_three, .prepare = prepare_join, .begin = begin_retirer_dies,
     .operate = do_recover, .finish = finish_leave, .sweeps = true, .sets = {S | L}},
    {"recover-retirer-later", CHUNKS, .set = set_three_held, .prepare = prepare_join, .begin = begin_retirer_dies_later,
     .operate = do_recover, .finish = finish_leave, .sweeps = true, .sets = {S | L}},
    {"join-dead-adder", CHUNKS, .set = set_two, .begin = begin_adder_dies, .operate = do_open_existing,
     .finish = finish_open, .extra = 1, .sweeps = true, .sets = {S | L, S | L | X}, .ends = S | L | X},
    {"renew-allocate", CHUNKS, .set = set_two, .prepare = prepare_join, .begin = begin_add,
     .operate = do_allocate_extra, .finish = finish_allocate, .extra = 1, .sets = {S | L | X}},
    {"renew-acquire", CHUNKS, .set = set_two, .prepare = prepare_join, .begin = begin_add_and_send,
     .operate = do_acquire, .finish = finish_acquire, .sets = {S | L | X}},
    {"renew-retired", CHUNKS, .set = set_three, .prepare = prepare_touch_extra, .begin = begin_retire,
     .operate = do_allocate_extra, .finish = finish_too_large, .sets = {S | L}},

    // Topics.
    {"publisher-open", CHUNKS, .set = set_instance, .prepare = prepare_join, .operate = do_publisher_open,
     .finish = finish_topic},
    {"publisher-close", CHUNKS, .set = set_instance, .prepare = prepare_read, .operate = do_publisher_close,
     .finish = finish_topic_closed, .extra = 1},
    {"subscriber-open", CHUNKS, .set = set_instance, .prepare = prepare_publisher, .operate = do_subscriber_open,
     .finish = finish_topic, .extra = 1},
    {"subscriber-close", CHUNKS, .set = set_instance, .prepare = prepare_read, .operate = do_subscriber_close,
     .finish = finish_topic_closed, .extra = 1},
    {"loan", CHUNKS, .set = set_instance, .prepare = prepare_displace, .operate = do_loan, .finish = finish_loan,
     .extra = 3},
    {"publish", CHUNKS, .set = set_instance, .prepare = prepare_topic, .operate = do_publish, .finish = finish_topic,
     .extra = 1},
    {"publish-displaces", CHUNKS, .set = set_instance, .prepare = prepare_displace, .operate = do_publish,
     .finish = finish_topic, .extra = 2},
    {"publish-puts-aside", CHUNKS, .set = set_instance, .prepare = prepare_put_aside, .operate = do_publish,
     .finish = finish_topic, .extra = 2},
    {"publish-overtakes", CHUNKS, .set = set_instance, .prepare = prepare_overtake, .operate = do_publish,
     .finish = finish_topic, .extra = 2},
    {"publish-to-three", CHUNKS, .set = set_instance, .prepare = prepare_three, .operate = do_publish,
     .finish = finish_topic, .extra = 2},
    {"publish-past-dead", CHUNKS, .set = set_dead_subscriber, .prepare = prepare_full, .operate = do_publish,
     .finish = finish_topic, .extra = 2, .late = true, .sweeps = true},
    {"receive", CHUNKS, .set = set_instance, .prepare = prepare_message, .operate = do_receive, .finish = finish_topic,
     .extra = 1},
    {"keep", CHUNKS, .set = set_instance, .prepare = prepare_read, .operate = do_keep, .finish = finish_topic,
     .extra = 1},
    {"done", CHUNKS, .set = set_instance, .prepare = prepare_read, .operate = do_done, .finish = finish_topic,
     .extra = 1},
    {"close-topics", CHUNKS, .set = set_instance, .prepare = prepare_put_aside, .operate = do_close, .extra = 2,
     .sweeps = true},
    {"recover-publisher", CHUNKS, .set = set_dead_publisher, .prepare = prepare_join, .operate = do_recover,
     .finish = finish_leave, .extra = 2, .late = true, .sweeps = true},

    // Waiting for a chunk, looking, tags.
    {"wait", CHUNKS, .set = set_exhausted, .prepare = prepare_join, .operate = do_wait, .finish = finish_waited,
     .extra = 1, .waits = true},
    {"release-wakes", CHUNKS, .set = set_last, .prepare = prepare_own, .begin = begin_waiter, .operate = do_release,
     .finish = finish_leave, .extra = 2},
    {"observe", CHUNKS, .set = set_shared, .operate = do_observe, .finish = finish_observe, .looks = true},
    {"allocate-tagged", CHUNKS, .set = set_instance, .prepare = prepare_join, .operate = do_allocate_tagged,
     .finish = finish_tagged, .extra = 1},

    {"shm-open-fresh", OBJECT, .set = set_nothing, .operate = do_shm_open, .finish = finish_shm},
    {"shm-open-existing", OBJECT, .set = set_object, .operate = do_shm_open, .finish = finish_shm},
    {"shm-purge", OBJECT, .set = set_object, .operate = do_shm_purge, .finish = finish_shm},
    {"shm-close", OBJECT, .set = set_object, .prepare = prepare_object, .operate = do_shm_close},
    {"shm-unlink", OBJECT, .set = set_object, .operate = do_shm_unlink, .finish = finish_shm},

    // Where a record has two borrow words: the survivor is in the first one, all others in the second.
    {"wide-join-dead", CHUNKS, .set = set_two_dead, .operate = do_open_existing, .finish = finish_open, .extra = 4,
     .sweeps = true, .wide = true},
    {"wide-allocate-full", CHUNKS, .set = set_instance, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 1, .wide = true},
    {"wide-allocate-exhausted", CHUNKS, .set = set_exhausted, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_exhausted, .wide = true},
    {"wide-allocate-recovers", CHUNKS, .set = set_exhausted_dead, .prepare = prepare_join, .operate = do_allocate,
     .finish = finish_allocate, .extra = 4, .late = true, .sweeps = true, .wide = true},
    {"wide-acquire-first", CHUNKS, .set = set_shared, .prepare = prepare_join, .operate = do_acquire,
     .finish = finish_acquire, .wide = true},
    {"wide-acquire-own", CHUNKS, .set = set_instance, .prepare = prepare_own_shared, .operate = do_acquire,
     .finish = finish_leave, .extra = 1, .wide = true},
    {"wide-acquire-dead-owner", CHUNKS, .set = set_dead_owner, .prepare = prepare_join, .operate = do_acquire,
     .finish = finish_acquire_dead, .extra = 1, .late = true, .wide = true},
    {"wide-release-alone-token", CHUNKS, .set = set_instance, .prepare = prepare_own_shared, .operate = do_release,
     .finish = finish_leave, .extra = 1, .wide = true},
    {"wide-release-owner-second", CHUNKS, .set = set_instance, .prepare = prepare_own_shared,
     .begin = begin_peer_borrows, .operate = do_release, .finish = finish_leave, .wide = true},
    {"wide-release-owner-first", CHUNKS, .set = set_instance, .prepare = prepare_own_shared,
     .begin = begin_peer_came_and_left, .operate = do_release, .finish = finish_leave, .wide = true},
    {"wide-release-borrower-second", CHUNKS, .set = set_shared_by_first, .prepare = prepare_borrow,
     .begin = begin_survivor_leaves, .operate = do_release, .finish = finish_leave, .wide = true},
    {"wide-release-owner-borrowers", CHUNKS, .set = set_instance, .prepare = prepare_own_shared,
     .begin = begin_two_borrow, .operate = do_release, .finish = finish_leave, .wide = true},
    {"wide-release-owner-dead-borrower", CHUNKS, .set = set_dead_borrower, .prepare = prepare_own_shared,
     .begin = begin_borrower_has_come, .operate = do_release, .finish = finish_leave, .extra = 1, .late = true,
     .wide = true},
    {"wide-release-borrower-owner", CHUNKS, .set = set_shared, .prepare = prepare_borrow, .operate = do_release,
     .finish = finish_leave, .wide = true},
    {"wide-release-borrower-others", CHUNKS, .set = set_shared_twice, .prepare = prepare_borrow,
     .begin = begin_peer_leaves, .operate = do_release, .finish = finish_leave, .wide = true},
    {"wide-release-last-borrower", CHUNKS, .set = set_shared, .prepare = prepare_borrow, .begin = begin_all_leave,
     .operate = do_release, .finish = finish_leave, .extra = 1, .wide = true},
    {"wide-release-after-owner-died", CHUNKS, .set = set_dead_owner, .prepare = prepare_borrow, .operate = do_release,
     .finish = finish_leave, .extra = 1, .late = true, .wide = true},
    {"wide-recover-two", CHUNKS, .set = set_two_dead, .prepare = prepare_join, .operate = do_recover,
     .finish = finish_leave, .extra = 4, .late = true, .sweeps = true, .wide = true},
    {"wide-close-held", CHUNKS, .set = set_instance, .prepare = prepare_hold_many, .begin = begin_peer_borrows,
     .operate = do_close, .extra = 1, .sweeps = true, .wide = true},
};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };

// ---------------------------------------------------------------------------------------------------------------------
// One point

static void run_second(world *w) {
    w->mine = join(w);
    killstep_begin();
    (void)zcp_manager_recover(w->mine, NULL);
    killstep_end();
}

static uint32_t some_number(uint32_t seed, uint32_t below) {
    return (uint32_t)(seed * UINT64_C(0x9e3779b97f4a7c15) >> 40) % below;
}

// The victim is dead, and the second one sweeps: after one of its changes it dies, too, or stands while others sweep.
static void chain(world *w, uint32_t number) {
    zcp_manager *newcomer;
    kill_traced(w->victim);
    await_locks(w, MANAGEMENT, 3);
    if (w->mode == DISCOVER_SECOND) {
        discover(w, w->second, &shared->second);
        kill_traced(w->second);
        return;
    }
    reach(w->second, &shared->second,
          &shared->second.list[some_number(number * 2 + w->variant, shared->second.points)]);
    if (w->variant == 1) {
        verify_held(w);
        verify_others(w, w->peer);
        CHECK_OK(BOUNDED(zcp_manager_recover(w->survivor, NULL)));
        CHECK_OK(BOUNDED(open_as(w, ZCP_SHM_OPEN_EXISTING, 0, &newcomer)));
        verify_others(w, newcomer);
        BOUNDED_VOID(zcp_manager_close(newcomer));
    }
    kill_traced(w->second);
    await_locks(w, MANAGEMENT, 2);
    verify_chunks_dead(w);
}

static void verify_killed(world *w) {
    kill_traced(w->victim);
    await_waiter(w);
    await_locks(w, w->operation->kind == OBJECT ? PLAIN : MANAGEMENT, w->survivor ? 2 : 0);
    if (w->operation->kind == CHUNKS) verify_chunks_dead(w);
    else if (w->operation->kind == NAMES) verify_names_dead(w);
    else verify_object_dead(w);
}

static void verify_stopped(world *w) {
    if (w->operation->kind == CHUNKS) verify_chunks_stopped(w);
    else if (w->operation->kind == NAMES) verify_names_stopped(w);
    else verify_object_stopped(w);
}

static void run_round(world *w, mode m, unsigned variant, uint32_t number) {
    bool chained = m == CHAIN || m == DISCOVER_SECOND;
    const operation *o = w->operation;
    world next = {.operation = o, .mode = m, .variant = variant};
    if (m >= MODES || ((m == KILL || m == CALL) && variant == 2)) set_afresh(w);
    memcpy(next.name, w->name, sizeof next.name);
    next.survivor = w->survivor;
    next.peer = w->peer;
    next.fillers = w->fillers;
    *w = next;
    atomic_store(&shared->token, 0);
    atomic_store(&shared->phase, 0);
    shared->current = shared->missed = false;
    waking.count = NULL;
    alarm(120);                                                   // a busy machine steps 5,000 instructions a second
    o->set(w);
    if (chained) w->second = start_traced(w, run_second);
    if (!o->late) kill_dead(w);
    if (w->survivor && !o->late) await_locks(w, MANAGEMENT, chained ? 3 : 2);
    w->victim = start_traced(w, run_victim);
    waking.w = o->waits ? w : NULL;
    if (o->begin) o->begin(w);
    if (o->late) kill_dead(w);
    if (w->survivor && o->late) await_locks(w, MANAGEMENT, chained ? 4 : 3);
    if (m == DISCOVER) {
        discover(w, w->victim, &shared->victim);
        kill_traced(w->victim);
        CHECK_MSG(!o->looks || shared->victim.writes == 0, "%u changes by one who only looks", shared->victim.writes);
        return;
    }
    if (m == CALL) reach_call(w->victim, number);
    else reach(w->victim, &shared->victim, &shared->victim.list[number]);
    if (m == KILL || m == CALL) verify_killed(w);
    else if (m == STOP) verify_stopped(w);
    else chain(w, number);
}

// ---------------------------------------------------------------------------------------------------------------------
// Stages

typedef struct options {
    const char *filters[128];                                      // more than there are operations
    unsigned filter_count, jobs;
    bool modes[MODES], list, all_ways;
    int variant;                                                   // -1: all
    int64_t point;                                                 // -1: all
    uint32_t chains;
} options;

// The ways to go on afterwards, each tried at each change, and the samples. With --full the instructions that changed
// nothing have them in turn: between two changes the segments are the same, so all are tried there.
static unsigned variants(const operation *o, mode m) { return m == CHAIN ? 2 : m == STOP && o->kind != OBJECT ? 6 : 5; }

static uint32_t points_of(const trace *t, mode m) { return m == CALL ? 2 * t->syscalls : t->points; }

static bool is_chosen(const operation *o, const options *opt, mode m, uint32_t number, unsigned variant) {
    bool in_turn = m == CALL ? !full : m != CHAIN && full && !opt->all_ways && !shared->victim.list[number].change;
    if (opt->variant >= 0 ? variant != (unsigned)opt->variant : in_turn && variant != number % variants(o, m))
        return false;
    if (opt->point >= 0) return number == opt->point;
    return m != CHAIN || full || opt->chains == 0 || number % (shared->victim.points / opt->chains + 1) == 0;
}

// Names are looked at by processes that opened nothing before, unless that would take hours.
static uint32_t rounds_of(const operation *o) { return !fresh && (full || o->kind == CHUNKS) ? 250 : 1; }

// A stage in a process of its own, which the worker waits for; true: all is as it has to be.
static bool end_stage(pid_t pid, const char *name, bool leaves) {
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return false;
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!good || leaves) remove_names(name);
    if (!good && !shared->failure[0] && WIFSIGNALED(status))
        snprintf(shared->failure, sizeof shared->failure,
                 WTERMSIG(status) == SIGALRM ? "it hangs (%d)" : "the survivor died of signal %d", WTERMSIG(status));
    return good;
}

static pid_t start_stage(world *w, const operation *o, const char *name) {
    shared->failure[0] = 0;
    shared->rounds = 0;
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) return pid;
    die_with_parent(parent);
    signal(SIGALRM, SIG_DFL);
    *w = (world){.operation = o};
    snprintf(w->name, sizeof w->name, "%s", name);
    // The first rounds of a process take other ways through its heap than the later ones.
    for (unsigned i = 0; rounds_of(o) > 1 && i < 2; i++) run_round(w, KILL, i, 0);
    return 0;
}

// From shared->at on, at most so many rounds.
static bool run_stage(const operation *o, const options *opt, mode m, uint32_t end, uint32_t rounds, const char *name) {
    static world w;
    pid_t pid = start_stage(&w, o, name);
    if (pid == 0) {
        unsigned ways = m < MODES ? variants(o, m) : 1;
        for (; shared->at < end && shared->rounds < rounds; shared->at++) {
            if (m < MODES && !is_chosen(o, opt, m, shared->at / ways, shared->at % ways)) continue;
            for (unsigned i = 0; i < TRIES; i++) {
                // a loan more or less: as it was when the steps were found
                if (i % 2 == 1) set_afresh(&w);
                run_round(&w, m, shared->at % ways, shared->at / ways);
                if (!shared->missed) break;
            }
            if (shared->missed && shared->not_reached++ == 0)
                shared->missed_step = m == CALL ? 0 : shared->victim.list[shared->at / ways].step;
            shared->rounds++;
        }
        if (w.survivor && m < MODES) end_world(&w);
        _exit(0);
    }
    return end_stage(pid, name, m >= MODES);
}

// ---------------------------------------------------------------------------------------------------------------------
// All points of an operation

typedef struct result { uint32_t passed, failed; } result;

static uint64_t program_base;
static int note_base(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size, (void)data;
    program_base = info->dlpi_addr;
    return 1;                                                      // the first one is the program itself
}

// Function, file and line of each inlined frame, as far as addr2line can tell.
static void describe(uint64_t address, char *text, size_t bytes) {
    Dl_info library, program;
    char command[160], line[256];
    size_t n = 0;
    text[0] = 0;
    if (dladdr((void *)(uintptr_t)address, &library) && dladdr((void *)(uintptr_t)&describe, &program)
        && library.dli_fbase != program.dli_fbase) {
        snprintf(text, bytes, "%s in %s", library.dli_sname ? library.dli_sname : "?",
                 library.dli_fname ? library.dli_fname : "?");
        return;
    }
    snprintf(command, sizeof command, "addr2line -f -i -s -e /proc/%d/exe 0x%llx 2> /dev/null", (int)getpid(),
             (unsigned long long)(address - program_base));
    FILE *pipe = popen(command, "r");
    while (pipe && n + 1 < bytes && fgets(line, sizeof line, pipe)) {
        line[strcspn(line, " \n")] = 0;
        n += (size_t)snprintf(text + n, bytes - n, "%s%s", n ? " " : "", line);
    }
    if (pipe) pclose(pipe);
}

static const point *find_call(const trace *t, uint32_t number) {
    const point *p = t->list;
    for (uint32_t i = 0; i < t->points; i++)
        if (t->list[i].syscall && number-- == 0) p = &t->list[i];
    return p;
}

static void report_failure(const operation *o, mode m, unsigned variant, uint32_t number, const char *remark) {
    char where[400] = "before the first step", failure[sizeof shared->failure];
    const point *p = m == CALL ? find_call(&shared->victim, number / 2) : &shared->victim.list[number];
    memcpy(failure, shared->failure, sizeof failure);
    dl_iterate_phdr(note_base, NULL);
    if (m == CALL) snprintf(where, sizeof where, "%s of that call", number % 2 ? "exit" : "entry");
    else if (m >= DISCOVER) snprintf(where, sizeof where, "looking for the points");
    else if (p->address) describe(p->address, where, sizeof where);
    printf("FAILED %s --%s --variant=%u --point=%u: step %u (%s) at %llx, %s: %s%s\n", o->name, mode_names[m], variant,
           number, p->step,
           p->syscall  ? "a system call"
           : p->change ? "a change"
                       : "no change",
           (unsigned long long)(p->address ? p->address - program_base : 0), where, failure, remark);
    fflush(stdout);
}

// Of those that it may use, the one where it is just now; the scheduler may choose another one the next time.
static void keep_to_one_processor(void) {
    static cpu_set_t all;
    cpu_set_t one;
    if (CPU_COUNT(&all) == 0 && sched_getaffinity(0, sizeof all, &all) != 0) return;
    (void)sched_setaffinity(0, sizeof all, &all);
    sched_yield();
    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    (void)sched_setaffinity(0, sizeof one, &one);
}

// The points from `at` to `end`; those of one stage after the other.
static void run_part(const operation *o, const options *opt, mode m, const char *name, uint32_t at, uint32_t end,
                     result *sum) {
    unsigned ways = variants(o, m);
    uint32_t rounds = rounds_of(o);
    while (at < end) {
        shared->at = at;
        if (at / ways % 250 == 0 || rounds > 1) keep_to_one_processor();
        bool good = run_stage(o, opt, m, end, rounds, name);
        sum->passed += shared->rounds;
        at = shared->at;
        if (good) continue;
        const char *remark = "";
        if (shared->rounds > 0) {
            char failure[sizeof shared->failure];
            memcpy(failure, shared->failure, sizeof failure);
            remark = run_stage(o, opt, m, at + 1, 1, name) ? " (but not in a world that nobody used before)"
                                                           : " (and again in a fresh world)";
            memcpy(shared->failure, failure, sizeof failure);
        }
        if (sum->failed++ < 4) report_failure(o, m, at % ways, at / ways, remark);
        at++;
    }
}

static bool run_discovery(const operation *o, const options *opt, mode m, uint32_t number, const char *name) {
    shared->at = number;
    return run_stage(o, opt, m, number + 1, 1, name);
}

static result run_points(const operation *o, const options *opt, mode m, const char *name) {
    const trace *t = &shared->victim;
    result sum = {0, 0};
    unsigned ways = variants(o, m);
    if (m != CHAIN) run_part(o, opt, m, name, 0, points_of(t, m) * ways, &sum);
    for (uint32_t from = 0, to = 0; m == CHAIN && from < t->points; from = to) {
        bool chosen = is_chosen(o, opt, m, from, 0) || is_chosen(o, opt, m, from, 1);
        for (to = from + 1; to < t->points && !t->list[to].change; to++)
            chosen = chosen || is_chosen(o, opt, m, to, 0) || is_chosen(o, opt, m, to, 1);
        if (!chosen) continue;
        if (run_discovery(o, opt, DISCOVER_SECOND, from, name)) {       // until the next change it finds the same
            keep_changes(&shared->second);
            run_part(o, opt, m, name, from * ways, to * ways, &sum);
        } else {
            sum.failed++;
            report_failure(o, DISCOVER_SECOND, 0, from, "");
        }
    }
    if (sum.failed > 4) printf("FAILED %s --%s: %u in all\n", o->name, mode_names[m], sum.failed);
    return sum;
}

static uint64_t cpu_ns(void) {                                     // of the worker and all that it waited for
    struct rusage own, children;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    const struct timeval all[] = {own.ru_utime, own.ru_stime, children.ru_utime, children.ru_stime};
    uint64_t ns = 0;
    for (int i = 0; i < 4; i++) ns += (uint64_t)all[i].tv_sec * 1000000000u + (uint64_t)all[i].tv_usec * 1000u;
    return ns;
}

static result run_operation(const operation *o, const options *opt, const char *name) {
    result sum = {0, 0}, of[MODES] = {{0, 0}};
    uint64_t began = now_ns(), cpu = cpu_ns();
    memset((void *)shared, 0, offsetof(board, victim));
    shared->slow_limit = full ? 3 : 1;
    keep_to_one_processor();
    if (!run_discovery(o, opt, DISCOVER, 0, name)) {
        report_failure(o, DISCOVER, 0, 0, "");
        return (result){0, 1};
    }
    thin_out(&shared->victim);
    for (mode m = KILL; m <= CHAIN; m++)
        if (opt->modes[m] && (m != CHAIN || o->sweeps)) {
            of[m] = run_points(o, opt, m, name);
            sum.passed += of[m].passed;
            sum.failed += of[m].failed;
        }
    char more[240] = "";
    if (shared->longest_wait_ns)
        snprintf(more, sizeof more, ", the waiter had its chunk after %.0f ms at most",
                 (double)shared->longest_wait_ns / 1e6);
    if (shared->timeouts)
        snprintf(more + strlen(more), sizeof more - strlen(more), ", %u TIMEOUT (%u without a pid, %u with another's)",
                 shared->timeouts, shared->unnamed, shared->misnamed);
    if (shared->not_reached)
        snprintf(more + strlen(more), sizeof more - strlen(more), ", %u not reached from step %u on",
                 shared->not_reached, shared->missed_step);
    if (shared->victim.overflow) sum.failed++;
    printf("%-28s %6u steps, %4u points (%u changes, %u calls); %5u killed, %4u in calls, %5u stopped, %3u chained: %u "
           "failed; %.1f s (CPU %.1f), slowest call %.0f ms%s%s\n",
           o->name, shared->victim.steps, shared->victim.points, shared->victim.changes, shared->victim.syscalls,
           of[KILL].passed + of[KILL].failed, of[CALL].passed + of[CALL].failed, of[STOP].passed + of[STOP].failed,
           of[CHAIN].passed + of[CHAIN].failed, sum.failed, (double)(now_ns() - began) / 1e9,
           (double)(cpu_ns() - cpu) / 1e9, (double)shared->slowest_ns / 1e6, more,
           shared->victim.overflow ? ", TOO MANY STEPS" : "");
    fflush(stdout);
    return sum;
}

static bool map_board(void) {
    void *memory = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared = memory;
    return memory != MAP_FAILED;
}

// May a process be single-stepped here?
static bool may_trace(void) {
#ifdef KILLSTEP_NOT_HERE
    return false;
#else
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(1);
        kill(getpid(), SIGSTOP);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) return false;
    bool steps = ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid
                 && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return steps;
#endif
}

#ifndef KILLSTEP_IN_TESTS
// ---------------------------------------------------------------------------------------------------------------------
// Leaving nothing. All processes of a run hold the lock of its file, zcp-killstep-<pid>-run; the cleaner waits for it,
// in a session of its own. So whoever is killed or interrupted, what the run left is removed when its last process is
// gone; and if the cleaner is killed, too, by the next run.
#define RUNS "zcp-killstep-"
#define RUN_SUFFIX "-run"

static bool has_suffix(const char *text, const char *suffix) {
    return strlen(text) >= strlen(suffix) && strcmp(text + strlen(text) - strlen(suffix), suffix) == 0;
}

// Calls it for every name of that prefix.
static void for_names(const char *prefix, void (*call)(const char *name)) {
    DIR *directory = opendir("/dev/shm");
    if (directory == NULL) return;
    for (const struct dirent *entry = readdir(directory); entry; entry = readdir(directory))
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0) call(entry->d_name);
    closedir(directory);
}

static void remove_name(const char *name) {
    if (!has_suffix(name, RUN_SUFFIX)) shm_unlink(name);
}

static void remove_run(const char *run) {                          // the caller has its lock
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%.*s-", (int)(strlen(run) - strlen(RUN_SUFFIX)), run);
    for_names(prefix, remove_name);
    shm_unlink(run);
}

static void sweep_run(const char *name) {
    int fd = has_suffix(name, RUN_SUFFIX) ? shm_open(name, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        printf("killstep: removes what %s left\n", name);
        remove_run(name);
    }
    close(fd);
}

static int lock_run(const char *run) {
    for (unsigned i = 0; i < 100; i++) {
        struct stat status;
        int fd = shm_open(run, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) return -1;
        if (flock(fd, LOCK_EX) == 0 && fstat(fd, &status) == 0 && status.st_nlink > 0) return fd;
        close(fd);                                                 // somebody took it for the rest of a dead run
    }
    return -1;
}

static pid_t start_cleaner(const char *run, int lock) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid != 0) return pid;
    close(lock);
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    int fd = shm_open(run, O_RDWR | O_CLOEXEC, 0);
    if (fd >= 0 && flock(fd, LOCK_EX) == 0) remove_run(run);
    _exit(0);
}

static int usage(void) {
    printf("killstep [OPTIONS] [OPERATION...]\n"
           "  OPERATION         its name, or the beginning of names followed by *; none: all\n"
           "  --full            after every single instruction, not only after those that changed something\n"
           "  --fresh           each in a world and a process of its own\n"
           "  --samples=N       of the instructions that changed nothing (32)\n"
           "  --changes=N       of those that changed something at most N, others in each run (0: all)\n"
           "  --chains=N        points per operation after which the sweeper is killed, too (8; 0: all)\n"
           "  --all-ways        with --full: every way to go on afterwards at each of them; else, where nothing "
           "changed, one in turn\n"
           "  --kill --call --stop --chain   only these: killed at a step, in a system call, stopped, killed or "
           "stopped while it sweeps the killed\n"
           "  --variant=N --point=N   only this one\n"
           "  --jobs=N          operations at once (2)\n"
           "  --list            list the operations\n");
    return 2;
}

static bool wanted(const options *opt, const char *name) {
    for (unsigned i = 0; i < opt->filter_count; i++) {
        const char *filter = opt->filters[i];
        size_t n = strlen(filter);
        if (strcmp(filter, name) == 0 || (n > 0 && filter[n - 1] == '*' && strncmp(filter, name, n - 1) == 0))
            return true;
    }
    return opt->filter_count == 0;
}

static bool parse(options *opt, int argc, char **argv) {
    *opt = (options){.jobs = 2, .variant = -1, .point = -1, .chains = 8};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *value = strchr(a, '=');
        unsigned long number = value ? strtoul(value + 1, NULL, 10) : 0;
        if (strcmp(a, "--full") == 0) full = true;
        else if (strcmp(a, "--fresh") == 0) fresh = true;
        else if (strncmp(a, "--samples=", 10) == 0) samples = (uint32_t)number;
        else if (strncmp(a, "--changes=", 10) == 0) most_changes = (uint32_t)number;
        else if (strncmp(a, "--chains=", 9) == 0) opt->chains = (uint32_t)number;
        else if (strcmp(a, "--kill") == 0) opt->modes[KILL] = true;
        else if (strcmp(a, "--stop") == 0) opt->modes[STOP] = true;
        else if (strcmp(a, "--chain") == 0) opt->modes[CHAIN] = true;
        else if (strcmp(a, "--call") == 0) opt->modes[CALL] = true;
        else if (strcmp(a, "--all-ways") == 0) opt->all_ways = true;
        else if (strncmp(a, "--variant=", 10) == 0) opt->variant = (int)number;
        else if (strncmp(a, "--point=", 8) == 0) opt->point = (int64_t)number;
        else if (strncmp(a, "--jobs=", 7) == 0) opt->jobs = number ? (unsigned)number : 1;
        else if (strcmp(a, "--list") == 0) opt->list = true;
        else if (a[0] != '-' && opt->filter_count < sizeof opt->filters / sizeof opt->filters[0])
            opt->filters[opt->filter_count++] = a;
        else return false;
    }
    bool some = false;
    for (mode m = KILL; m < MODES; m++) some = some || opt->modes[m];
    for (mode m = KILL; m < MODES; m++) opt->modes[m] = opt->modes[m] || !some;
    return true;
}

static pid_t start_worker(const options *opt, unsigned which, result *sum) {
    char name[64];
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) return pid;
    die_with_parent(parent);
    if (!map_board()) _exit(2);
    snprintf(name, sizeof name, RUNS "%d-%02u", (int)parent, which);
    *sum = run_operation(&operations[which], opt, name);
    _exit(0);
}

static unsigned count_workers(const pid_t *workers) {
    unsigned n = 0;
    for (unsigned i = 0; i < OPERATIONS; i++) n += workers[i] > 0;
    return n;
}

static void await_worker(pid_t *workers) {
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    for (unsigned i = 0; i < OPERATIONS && pid > 0; i++)
        if (workers[i] == pid) workers[i] = 0;
}

static unsigned run_all(const options *opt, result *sum) {         // the number of operations chosen
    static pid_t workers[OPERATIONS];
    unsigned chosen = 0;
    result *sums = mmap(NULL, sizeof *sums * OPERATIONS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sums == MAP_FAILED) return 0;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        if (!wanted(opt, operations[i].name)) continue;
        chosen++;
        while (count_workers(workers) >= opt->jobs) await_worker(workers);
        sums[i].failed = 1;                                        // until it says otherwise
        workers[i] = start_worker(opt, i, &sums[i]);
    }
    while (count_workers(workers) > 0) await_worker(workers);
    for (unsigned i = 0; i < OPERATIONS; i++) {
        sum->passed += sums[i].passed;
        sum->failed += sums[i].failed;
    }
    munmap(sums, sizeof *sums * OPERATIONS);
    return chosen;
}

int main(int argc, char **argv) {
    options opt;
    if (!parse(&opt, argc, argv)) return usage();
    for (unsigned i = 0; opt.list && i < OPERATIONS; i++) printf("%s\n", operations[i].name);
    if (opt.list) return 0;
    if (!may_trace()) {
        printf("killstep: no process may be single-stepped here: skipped\n0 passed, 0 failed\n");
        return 0;
    }
    for_names(RUNS, sweep_run);
    char run[64];
    snprintf(run, sizeof run, RUNS "%d" RUN_SUFFIX, (int)getpid());
    int lock = lock_run(run);
    pid_t cleaner = lock < 0 ? -1 : start_cleaner(run, lock);
    result sum = {0, 0};
    if (cleaner < 0) return 2;
    unsigned chosen = run_all(&opt, &sum);
    close(lock);
    waitpid(cleaner, NULL, 0);
    if (chosen == 0) printf("killstep: no operation of that name; --list lists them\n");
    printf("%u passed, %u failed\n", sum.passed, sum.failed);
    return sum.failed || chosen == 0 ? 1 : 0;
}
#endif
