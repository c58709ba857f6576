// tests/soak/soak.c: eight processes work on one instance for as long as asked, and are killed and stopped all the
// time.
//
//   make soak SECONDS=60
//
// Each worker allocates over all pools, fills what it gets with a pattern, passes tokens to the others, acquires
// theirs, clones, releases, waits for chunks, closes and opens again, and verifies each payload whenever it gets and
// before it gives. Now and then it adds a pool, retires one, reconfigures the instance, or looks at it as an observer
// does. The conductor (this process) sends SIGKILL and SIGSTOP to them at random and starts the killed ones again.
// Every few seconds it asks for quiet: each worker stops where it is and tells what it holds, and the books are
// compared: what is used is what is held, what is cached can be by the threads that there are, every other chunk of the
// live pools can be had exactly once; the counters of allocations and releases say the same, but for one at most for
// each worker that was killed. Half of the workers have a second thread, which ends all the time, now and then without
// releasing, and another one goes on with what it held. At the end, when all have closed, nothing is cached or retiring
// any more. The last line is `N passed, N failed`.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 8, THREADS = 2, CACHE = 8, HOLDS = 24, MAIL = 16, MAX_CLIENTS = 40, SHOWN_ERRORS = 20 };

#define WAIT_LIMIT UINT64_C(1000000000)
// who adds a pool waits for one who is stopped while it does
#define ADD_LIMIT UINT64_C(5000000000)
#define QUIET_EVERY UINT64_C(2500000000)
// at first, so that the counters are compared exactly
#define NO_KILLS UINT64_C(3000000000)

// The pools of the creation, and those that come and go besides; a size is that of one kind only.
static const zcp_pool_config pools[] = {{64, 250, 0, 0},     {256, 120, 0, CACHE}, {1000, 60, 0, 0},
                                        {4096, 30, 0, 0},    {60000, 9, 0, 0},     {128, 100, 0, 0},
                                        {512, 40, 0, CACHE}, {2000, 20, 256, 0},   {30000, 6, 4096, 0}};
enum { POOLS = 5, KINDS = sizeof pools / sizeof pools[0], MAX_CHUNKS = ZCP_MAX_LIVE_POOLS * 250 };

// What a thread holds, as it tells it when asked for quiet.
typedef struct told {
    _Atomic uint32_t epoch;                                        // of the quiet that it keeps
    uint32_t count;
    uint32_t index[HOLDS];
} told;

static struct board {
    _Atomic uint32_t quiet;                                        // odd: keep quiet
    _Atomic uint32_t end;
    _Atomic uint32_t stops[WORKERS];                               // odd: stopped, or about to be, or hardly continued
    _Atomic uint64_t mail[WORKERS][MAIL];
    told told[WORKERS][THREADS];
    _Atomic uint64_t operations, allocated, exhausted, acquired, stale, opened, verified;
    _Atomic uint64_t sweeps, reclaimed, longest;                   // longest: wait in a call, ns
    _Atomic uint64_t threads;                                      // that have ended
    _Atomic uint64_t added, retired, reconfigured, waited, observed;
    _Atomic uint64_t status_errors, payload_errors, hold_errors, wait_errors;
} *board;

static char name[64];
static uint64_t seed;

// ---------------------------------------------------------------------------------------------------------------------
// Helpers

static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static _Thread_local uint64_t random_state;

static uint64_t below(uint64_t limit) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % limit;
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_us(uint64_t us) {
    nanosleep(&(struct timespec){.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000}, NULL);
}

static void add(_Atomic uint64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

__attribute__((format(printf, 2, 3))) static void complain(_Atomic uint64_t *counter, const char *format, ...) {
    char text[600];
    va_list arguments;
    if (atomic_fetch_add(counter, 1) >= SHOWN_ERRORS)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(STDOUT_FILENO, "pid %d: %s\n", (int)getpid(), text);
}

// Sweeps happen inside of other calls too; the library's log tells of each.
static void on_log(zcp_log_level level, const char *line, void *user) {
    unsigned long long reclaimed;
    const char *colon = strrchr(line, ':');
    (void)user;
    if (level == ZCP_LOG_ERROR)
        complain(&board->status_errors, "log: %s", line);
    if (strstr(line, "swept dead client") == NULL || colon == NULL || sscanf(colon, ": %llu", &reclaimed) != 1)
        return;
    add(&board->sweeps, 1);
    add(&board->reclaimed, reclaimed);
}

// ---------------------------------------------------------------------------------------------------------------------
// Waits: no call may take above a second, apart from the time when its process was stopped or had no processor

typedef struct watch {
    uint64_t began;
    uint32_t stops;
} watch;

static _Thread_local uint64_t wait_limit = WAIT_LIMIT;

static _Thread_local uint64_t delay_read, delay_then;              // of the run queue, and when it was read last

static uint64_t run_delay(void) {
    unsigned long long ran = 0, delayed = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu %llu", &ran, &delayed) != 2)
        delayed = 0;
    fclose(file);
    return delayed;
}

static watch watch_begin(int worker) {
    watch w = {now(), atomic_load(&board->stops[worker])};
    if (w.began - delay_then > 200000000) {
        delay_read = run_delay();
        delay_then = w.began;
    }
    return w;
}

static void watch_end(watch w, int worker, const char *what) {
    uint64_t took = now() - w.began;
    add(&board->operations, 1);
    if (took < 20000000 || w.stops % 2 != 0 || atomic_load(&board->stops[worker]) != w.stops)
        return;
    uint64_t delayed = run_delay() - delay_read, waited = took > delayed ? took - delayed : 0;
    uint64_t longest = atomic_load(&board->longest);
    while (waited > longest && wait_limit == WAIT_LIMIT
           && !atomic_compare_exchange_weak(&board->longest, &longest, waited))
        continue;
    if (waited > wait_limit)
        complain(&board->wait_errors, "%s took %" PRIu64 " ms, %" PRIu64 " of them in the run queue", what,
                 took / 1000000, delayed / 1000000);
}

#define WATCHED(worker, call)                                                                                          \
    do {                                                                                                               \
        watch watch_ = watch_begin(worker);                                                                            \
        call;                                                                                                          \
        watch_end(watch_, worker, #call);                                                                              \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// Payloads: which chunk this is, in which generation, and words that follow from both and the size

static uint64_t identity(const zcp_chunk *chunk) {
    return (uint64_t)chunk->generation << 32 | chunk->index;
}

// All words of a small payload, some of a large one; the same ones whenever it is looked at.
static uint64_t step_of(uint64_t words) {
    return words <= 128 ? 1 : words / 61;
}

static void fill(zcp_chunk *chunk, uint64_t size) {
    uint64_t *word = chunk->data, words = size / 8, id = identity(chunk);
    word[0] = id;
    word[1] = size;
    for (uint64_t i = 2; i < words; i += step_of(words))
        word[i] = mix(id ^ size << 48 ^ i);
}

static void verify(const zcp_chunk *chunk, const char *when) {
    const uint64_t *word = chunk->data;
    uint64_t id = identity(chunk), size = zcp_chunk_size(chunk), words = size / 8;
    add(&board->verified, 1);
    if (!zcp_chunk_is_valid(chunk)) {
        complain(&board->hold_errors, "%s: chunk %016" PRIx64 " is not held any more", when, id);
        return;
    }
    if (size < 16 || word[0] != id || word[1] != size) {
        complain(&board->payload_errors,
                 "%s: chunk %016" PRIx64 " of %" PRIu64 " bytes says %016" PRIx64 " and %" PRIu64, when, id, size,
                 word[0], word[1]);
        return;
    }
    for (uint64_t i = 2; i < words; i += step_of(words))
        if (word[i] != mix(id ^ size << 48 ^ i)) {
            complain(&board->payload_errors, "%s: chunk %016" PRIx64 ": word %" PRIu64 " was overwritten", when, id, i);
            return;
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// A worker

typedef struct thread {
    int worker, number;
    zcp_manager *manager;
    uint64_t random;
    uint32_t count;
    zcp_chunk held[HOLDS];
} thread;

static zcp_manager *open_instance(int worker) {
    zcp_manager *manager = NULL;
    zcp_status status;
    WATCHED(worker,
            status = zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING}));
    if (status != ZCP_OK)
        complain(&board->status_errors, "open: %s: %s", zcp_status_name(status), zcp_last_message());
    else
        add(&board->opened, 1);
    return manager;
}

static void let_go(thread *t, uint32_t i) {
    verify(&t->held[i], "before release");
    WATCHED(t->worker, zcp_chunk_release(&t->held[i]));
    t->held[i] = t->held[--t->count];
}

static void allocate(thread *t) {
    zcp_status status;
    zcp_chunk chunk;
    uint64_t largest = pools[below(KINDS)].chunk_size, size = 16 + below(largest - 15);
    uint32_t patience = below(64) == 0 ? 1 + (uint32_t)below(20) : 0;
    if (patience > 0)
        WATCHED(t->worker, status = zcp_chunk_allocate_wait(t->manager, size, patience, &chunk));
    else
        WATCHED(t->worker, status = zcp_chunk_allocate(t->manager, size, &chunk));
    add(&board->waited, patience > 0);
    if (status == (patience > 0 ? ZCP_ERR_TIMEOUT : ZCP_ERR_EXHAUSTED)) {
        add(&board->exhausted, 1);
        if (t->count > 0)
            let_go(t, (uint32_t)below(t->count));
    } else if (status == ZCP_ERR_TOO_LARGE) {                      // the pools that are large enough have been retired
        add(&board->exhausted, 1);
    } else if (status != ZCP_OK)
        complain(&board->status_errors, "allocate: %s: %s", zcp_status_name(status), zcp_last_message());
    else {
        add(&board->allocated, 1);
        fill(&chunk, size);
        t->held[t->count++] = chunk;
    }
}

static void pass_on(thread *t) {
    if (t->count == 0)
        return;
    const zcp_chunk *chunk = &t->held[below(t->count)];
    uint64_t token;
    WATCHED(t->worker, token = zcp_chunk_token(chunk));
    if (token != identity(chunk))
        complain(&board->hold_errors, "token of %016" PRIx64 " is %016" PRIx64, identity(chunk), token);
    atomic_exchange_explicit(&board->mail[below(WORKERS)][below(MAIL)], token, memory_order_relaxed);
}

static void take_mail(thread *t) {
    _Atomic uint64_t *letter = &board->mail[t->worker][below(MAIL)];
    uint64_t token = below(4) == 0 ? atomic_load(letter) : atomic_exchange_explicit(letter, 0, memory_order_relaxed);
    zcp_chunk chunk;
    zcp_status status;
    if (token == 0)
        return;
    WATCHED(t->worker, status = zcp_chunk_acquire(t->manager, token, &chunk));
    // the latter: another pool has the number, of fewer chunks
    if (status == ZCP_ERR_STALE || status == ZCP_ERR_INVALID_TOKEN)
        add(&board->stale, 1);
    else if (status != ZCP_OK)
        complain(&board->status_errors, "acquire: %s: %s", zcp_status_name(status), zcp_last_message());
    else {
        add(&board->acquired, 1);
        if (identity(&chunk) != token)
            complain(&board->hold_errors, "token %016" PRIx64 " gave %016" PRIx64, token, identity(&chunk));
        verify(&chunk, "after acquire");
        t->held[t->count++] = chunk;
    }
}

static void clone_one(thread *t) {
    if (t->count == 0)
        return;
    zcp_chunk clone = {0};
    const zcp_chunk *from = &t->held[below(t->count)];
    WATCHED(t->worker, clone = zcp_chunk_clone(from));
    if (clone.manager == NULL)
        complain(&board->hold_errors, "clone of %016" PRIx64 ": %s", identity(from), zcp_last_message());
    else
        t->held[t->count++] = clone;
}

static void recover(thread *t) {
    zcp_status status;
    WATCHED(t->worker, status = zcp_manager_recover(t->manager, NULL));
    if (status != ZCP_OK)
        complain(&board->status_errors, "recover: %s: %s", zcp_status_name(status), zcp_last_message());
}

static void add_pool(thread *t) {
    zcp_status status;
    uint32_t number = ZCP_MAX_LIVE_POOLS;
    const zcp_pool_config *pool = &pools[below(KINDS)];
    WATCHED(t->worker, status = zcp_manager_add_pool(t->manager, pool, &number));
    if (status == ZCP_OK && number < ZCP_MAX_LIVE_POOLS)
        add(&board->added, 1);
    else if (status != ZCP_ERR_FULL)
        complain(&board->status_errors, "add_pool: %s: %s", zcp_status_name(status), zcp_last_message());
}

static void retire_pool(thread *t) {
    zcp_status status;
    uint32_t number = (uint32_t)below(zcp_manager_pool_end(t->manager));
    WATCHED(t->worker, status = zcp_manager_retire_pool(t->manager, number));
    if (status == ZCP_OK)
        add(&board->retired, 1);
    else if (status != ZCP_ERR_NOT_FOUND)
        complain(&board->status_errors, "retire_pool: %s: %s", zcp_status_name(status), zcp_last_message());
}

// Most pools of the creation, and some of the others.
static void reconfigure(thread *t) {
    zcp_status status;
    zcp_config config = {0};
    for (int k = 0; k < KINDS; k++)
        if (k == 0 || below(8) < (k < POOLS ? 7 : 3))
            zcp_config_add(&config, &pools[k]);
    WATCHED(t->worker, status = zcp_manager_reconfigure(t->manager, &config));
    if (status == ZCP_OK)
        add(&board->reconfigured, 1);
    else if (status != ZCP_ERR_FULL)
        complain(&board->status_errors, "reconfigure: %s: %s", zcp_status_name(status), zcp_last_message());
}

static void change_pools(thread *t) {
    uint64_t dice = below(8);
    wait_limit = ADD_LIMIT;
    dice < 3 ? add_pool(t) : dice < 5 ? retire_pool(t) : reconfigure(t);
    wait_limit = WAIT_LIMIT;
}

static bool check_entry(const zcp_census_entry *entry, void *user) {
    uint64_t *errors = user;
    bool known = false;
    for (int k = 0; k < KINDS; k++)
        known = known || pools[k].chunk_size == entry->capacity;
    *errors += !known || entry->pool >= ZCP_MAX_LIVE_POOLS || entry->size > entry->capacity
               || (entry->owner == ZCP_NO_CLIENT && entry->borrowers > MAX_CLIENTS);
    return true;
}

static void observe(thread *t) {
    zcp_manager *manager = NULL;
    zcp_status status;
    uint64_t errors = 0;
    WATCHED(t->worker,
            status = zcp_manager_open(
                &manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING, .flags = ZCP_OBSERVE}));
    for (uint32_t p = 0; status == ZCP_OK && p < zcp_manager_pool_end(manager); p++) {
        zcp_pool_stats stats;
        WATCHED(t->worker, status = zcp_manager_pool_stats(manager, p, &stats));
        if (stats.used + stats.free + stats.cached != stats.total || stats.peak_used > stats.total)
            complain(&board->status_errors,
                     "pool %u as observed: used %" PRIu64 ", free %" PRIu64 ", cached %" PRIu64 ", total %" PRIu64
                     ", peak %" PRIu64,
                     p, stats.used, stats.free, stats.cached, stats.total, stats.peak_used);
    }
    if (status == ZCP_OK)
        WATCHED(t->worker, status = zcp_manager_census(manager, check_entry, &errors));
    zcp_client_stats client;
    if (status == ZCP_OK)
        WATCHED(t->worker, status = zcp_manager_client_stats(manager, (uint32_t)below(MAX_CLIENTS), &client));
    if (status != ZCP_OK || errors != 0)
        complain(&board->status_errors, "observe: %s: %s; %" PRIu64 " wrong entries", zcp_status_name(status),
                 zcp_last_message(), errors);
    WATCHED(t->worker, zcp_manager_close(manager));
    add(&board->observed, 1);
}

// With or without releasing first: closing gives back what is left.
static void open_again(thread *t) {
    while (t->count > 0 && below(4) != 0)
        let_go(t, t->count - 1);
    if (t->count > 0)
        verify(&t->held[0], "before close");
    WATCHED(t->worker, zcp_manager_close(t->manager));
    t->count = 0;
    t->manager = open_instance(t->worker);
}

static void keep_quiet(thread *t) {
    told *tell = &board->told[t->worker][t->number];
    uint32_t epoch = atomic_load(&board->quiet);
    tell->count = t->count;
    for (uint32_t i = 0; i < t->count; i++) {
        verify(&t->held[i], "at a quiet moment");
        tell->index[i] = t->held[i].index;
    }
    atomic_store(&tell->epoch, epoch);
    while (atomic_load(&board->quiet) == epoch)
        sleep_us(500);
}

static void act(thread *t, bool alone) {
    uint64_t dice = below(1000);
    if (t->count == HOLDS || (t->count > 0 && dice < 330))
        let_go(t, (uint32_t)below(t->count));
    else if (dice < 620)
        allocate(t);
    else if (dice < 780)
        pass_on(t);
    else if (dice < 930)
        take_mail(t);
    else if (dice < 996)
        clone_one(t);
    else if (dice < 999)
        recover(t);
    else if (alone)
        open_again(t);
}

// Until the end, or for so many rounds.
static void work(thread *t, uint64_t rounds) {
    bool alone = t->worker % 2 == 0;
    for (uint64_t round = 0; round < rounds && atomic_load(&board->end) == 0 && t->manager != NULL; round++) {
        if (atomic_load(&board->quiet) % 2 != 0)
            keep_quiet(t);
        for (int i = 0; i < 64 && t->manager != NULL; i++)
            act(t, alone);
        if (t->manager != NULL && below(2000) == 0)
            change_pools(t);
        if (t->manager != NULL && below(300) == 0)
            observe(t);
        if (below(16) == 0)
            // so that the others get a turn in the middle of ours
            sleep_us(below(2000));
    }
}

static void release_all(thread *t) {
    while (t->count > 0 && t->manager != NULL)
        let_go(t, t->count - 1);
}

// One thread of many, which come one after the other.
static void *work_a_while(void *argument) {
    thread *t = argument;
    random_state = mix(t->random++) | 1;
    work(t, below(60));
    if (below(2) == 0)
        // so that something is cached; else it leaves what it holds to the next
        release_all(t);
    add(&board->threads, 1);
    return NULL;
}

static void *work_beside(void *argument) {
    thread *t = argument;
    pthread_t one;
    t->random = seed ^ (uint64_t)getpid() << 20 ^ 77;
    while (atomic_load(&board->end) == 0) {
        if (pthread_create(&one, NULL, work_a_while, t) != 0)
            _exit(1);
        pthread_join(one, NULL);
    }
    release_all(t);
    return NULL;
}

_Noreturn static void be_worker(int worker, uint64_t incarnation, pid_t conductor) {
    static thread threads[THREADS];
    pthread_t beside;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != conductor)
        _exit(1);
    signal(SIGINT, SIG_IGN);
    if (nice(5) == -1) {}                                          // so that the conductor gets its turn
    random_state = mix(seed ^ (uint64_t)worker << 56 ^ incarnation) | 1;
    threads[0] = (thread){.worker = worker, .manager = open_instance(worker)};
    threads[1] = (thread){.worker = worker, .number = 1, .manager = threads[0].manager};
    bool two = worker % 2 != 0 && threads[0].manager != NULL;
    if (two && pthread_create(&beside, NULL, work_beside, &threads[1]) != 0)
        _exit(1);
    work(&threads[0], UINT64_MAX);
    release_all(&threads[0]);
    if (two)
        pthread_join(beside, NULL);
    zcp_manager_close(threads[0].manager);
    _exit(0);
}

// ---------------------------------------------------------------------------------------------------------------------
// The conductor

static struct {
    pid_t pid;
    uint64_t incarnation, continue_at;                             // 0: it is not stopped
} workers[WORKERS];

static uint64_t kills, stops_made, quiet_checks, deaths_by_themselves, book_errors, most_cached, most_pools,
    largest_drift;
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static void start(int w) {
    pid_t conductor = getpid();
    if (atomic_load(&board->stops[w]) % 2 != 0)                    // it was killed while it was stopped
        atomic_fetch_add(&board->stops[w], 1);
    for (int t = 0; t < THREADS; t++)
        atomic_store(&board->told[w][t].epoch, 0);
    workers[w].incarnation++;
    workers[w].continue_at = 0;
    fflush(stdout);
    workers[w].pid = fork();
    if (workers[w].pid == 0)
        be_worker(w, workers[w].incarnation, conductor);
    if (workers[w].pid < 0) {
        perror("fork");
        exit(2);
    }
}

static void go_on(int w) {
    kill(workers[w].pid, SIGCONT);
    atomic_fetch_add(&board->stops[w], 1);
    workers[w].continue_at = 0;
}

static void kill_one(int w) {
    kill(workers[w].pid, SIGKILL);
    waitpid(workers[w].pid, NULL, 0);
    kills++;
    start(w);
}

static void stop_one(int w) {
    if (workers[w].continue_at != 0)
        return;
    atomic_fetch_add(&board->stops[w], 1);
    kill(workers[w].pid, SIGSTOP);
    workers[w].continue_at = now() + 1000000 * (1 + below(below(8) == 0 ? 900 : 60));
    stops_made++;
}

static void look_after(void) {
    int status;
    for (int w = 0; w < WORKERS; w++) {
        if (workers[w].continue_at != 0 && now() >= workers[w].continue_at)
            go_on(w);
        if (waitpid(workers[w].pid, &status, WNOHANG) == workers[w].pid) {
            printf("worker %d ended by itself, status 0x%x\n", w, (unsigned)status);
            deaths_by_themselves++;
            start(w);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Books

static void book_error(const char *what, uint64_t is, uint64_t expected) {
    printf("books: %s: is %" PRIu64 ", expected %" PRIu64 "\n", what, is, expected);
    book_errors++;
}

static bool all_quiet(uint32_t epoch) {
    for (int w = 0; w < WORKERS; w++)
        for (int t = 0; t <= w % 2; t++)
            if (atomic_load(&board->told[w][t].epoch) != epoch)
                return false;
    return true;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t distinct(uint32_t *items, uint32_t count) {
    uint32_t n = 0;
    qsort(items, count, sizeof *items, by_value);
    for (uint32_t i = 0; i < count; i++)
        if (i == 0 || items[i] != items[n - 1])
            items[n++] = items[i];
    return n;
}

static uint32_t all_that_is_told(uint32_t *items) {
    uint32_t count = 0;
    for (int w = 0; w < WORKERS; w++)
        for (int t = 0; t <= w % 2; t++)
            for (uint32_t i = 0; i < board->told[w][t].count; i++)
                items[count++] = board->told[w][t].index[i];
    return distinct(items, count);
}

// Is there a hint of the chunk, in the list or on loan?
static bool hinted(const zcp_priv_pool *pool, uint32_t i) {
    uint32_t leaf = i >> pool->list.leaf_shift;
    uint64_t hints = atomic_load(zcp_priv_list_leaf(&pool->list, leaf));
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++)
        if (atomic_load(&pool->leases->items[k].leaf) == leaf)
            hints |= atomic_load(&pool->leases->items[k].loan);
    return hints >> (i & ((1u << pool->list.leaf_shift) - 1)) & 1;
}

// What the counters of a pool say is in use, and what the records say: the same, but for one for each who was killed.
static void compare_counters(const zcp_priv_pool *pool, const zcp_pool_stats *stats) {
    uint64_t freed, allocated = zcp_priv_allocated(pool, &freed), drift = allocated - freed - stats->used;
    if (drift >> 63 != 0)
        drift = 0 - drift;
    if (drift > largest_drift)
        largest_drift = drift;
    if (drift > kills)
        book_error("allocations less releases of a pool", allocated - freed, stats->used);
}

typedef struct figures {
    uint64_t used, cached, free, obtainable, caching, pools;       // free, obtainable, caching: of live pools
} figures;

// By the records, of all pools; of each cached one some may be kept by each of `cachers` threads.
static figures count_pools(zcp_manager *manager, uint32_t cachers, bool first) {
    figures sum = {0};
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        zcp_pool_stats stats;
        zcp_manager_pool_stats(manager, p, &stats);
        if (stats.state == ZCP_POOL_NONE)
            continue;
        if (stats.used + stats.free + stats.cached != stats.total)
            book_error("used, free and cached of a pool", stats.used + stats.free + stats.cached, stats.total);
        if (first && stats.cached > (uint64_t)cachers * stats.cache_chunks)
            book_error("cached chunks of a pool, at most", stats.cached, (uint64_t)cachers * stats.cache_chunks);
        if (cachers == 0 && stats.state == ZCP_POOL_RETIRING)
            book_error("pools that retire though nobody has any of them; number", p, 0);
        if (first)
            compare_counters(pool, &stats);
        sum.used += stats.used;
        sum.cached += stats.cached;
        sum.pools++;
        if (stats.state == ZCP_POOL_LIVE) {
            sum.free += stats.free;
            sum.obtainable += stats.free + stats.cached;           // also what idle threads keep
            sum.caching += stats.cache_chunks != 0;
        }
    }
    return sum;
}

// Nobody else works: used == held, what is neither used nor retiring can be had exactly once, and goes back.
static void compare_books(uint32_t *held, uint32_t held_count, uint32_t cachers) {
    static zcp_chunk got[MAX_CHUNKS + 1];
    uint64_t free_hinted = 0;
    uint32_t count = 0;
    zcp_manager *manager = NULL;
    zcp_status status = zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING});
    if (status == ZCP_OK)
        status = zcp_manager_recover(manager, NULL);
    if (status != ZCP_OK) {
        printf("books: %s: %s\n", zcp_status_name(status), zcp_last_message());
        book_errors++;
        return;
    }
    for (uint32_t slot = 0; slot < MAX_CLIENTS; slot++) {
        zcp_client_info info;
        status = zcp_manager_client_info(manager, slot, &info);
        if (status != ZCP_OK || info.state == ZCP_CLIENT_DEAD)
            book_error("client slots of dead clients after recovery; slot", slot, 0);
    }
    figures is = count_pools(manager, cachers, true);
    if (is.cached > most_cached)
        most_cached = is.cached;
    if (is.pools > most_pools)
        most_pools = is.pools;
    if (is.used != held_count)
        book_error("chunks used, and chunks held by somebody", is.used, held_count);
    for (int k = 0; k < KINDS; k++) {
        while (count < MAX_CHUNKS && (status = zcp_chunk_allocate(manager, pools[k].chunk_size, &got[count])) == ZCP_OK)
            held[held_count + count] = got[count].index, count++;
        if (status != ZCP_ERR_EXHAUSTED && status != ZCP_ERR_TOO_LARGE)
            book_error("the status when all is had", (uint64_t)status, ZCP_ERR_EXHAUSTED);
    }
    if (count != is.obtainable)
        book_error("chunks that could be had", count, is.obtainable);
    if (distinct(held, held_count + count) != held_count + count)
        book_error("different chunks among those held and those had", distinct(held, held_count + count),
                   held_count + count);
    for (uint32_t i = 0; i < count; i++)
        zcp_chunk_release(&got[i]);
    figures now = count_pools(manager, cachers, false);            // with what this thread keeps
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        for (uint32_t i = 0; pool != NULL && !zcp_priv_pool_is_retiring(pool) && i < pool->count; i++)
            free_hinted += zcp_priv_is_free(atomic_load(&zcp_priv_record_at(pool, i)->state)) && hinted(pool, i);
    }
    if (now.obtainable != is.obtainable)
        book_error("chunks that could be had again", now.obtainable, is.obtainable);
    if (now.cached > is.caching * CACHE || free_hinted != now.free)
        book_error("free chunks of which there is a hint", free_hinted, now.free);
    zcp_manager_close(manager);
}

static void be_quiet_and_compare(void) {
    static uint32_t held[WORKERS * THREADS * HOLDS + MAX_CHUNKS + 1];
    for (int w = 0; w < WORKERS; w++)
        if (workers[w].continue_at != 0)
            go_on(w);
    uint32_t epoch = atomic_fetch_add(&board->quiet, 1) + 1;
    uint64_t deadline = now() + 20 * UINT64_C(1000000000);
    while (!all_quiet(epoch) && now() < deadline) {
        look_after();
        sleep_us(500);
    }
    if (all_quiet(epoch))
        compare_books(held, all_that_is_told(held), WORKERS + WORKERS / 2);
    else
        book_error("not quiet within 20 s; workers", 0, WORKERS);
    quiet_checks++;
    atomic_fetch_add(&board->quiet, 1);
}

// ---------------------------------------------------------------------------------------------------------------------

static uint64_t errors(void) {
    return board->status_errors + board->payload_errors + board->hold_errors + board->wait_errors + book_errors
           + deaths_by_themselves;
}

static void progress(uint64_t second) {
    static uint64_t before;
    uint64_t operations = board->operations;
    printf("%4" PRIu64 " s: operations %" PRIu64 " (+%" PRIu64 "), allocated %" PRIu64 ", acquired %" PRIu64
           ", stale %" PRIu64 ", exhausted %" PRIu64 ", kills %" PRIu64 ", stops %" PRIu64 ", sweeps %" PRIu64
           ", chunks reclaimed %" PRIu64 ", quiet checks %" PRIu64 ", pools added %" PRIu64 ", retired %" PRIu64
           ", reconfigured %" PRIu64 ", waits %" PRIu64 ", observed %" PRIu64 ", longest wait %" PRIu64
           " ms, errors %" PRIu64 "\n",
           second, operations, operations - before, board->allocated, board->acquired, board->stale, board->exhausted,
           kills, stops_made, board->sweeps, board->reclaimed, quiet_checks, board->added, board->retired,
           board->reconfigured, board->waited, board->observed, board->longest / 1000000, errors());
    fflush(stdout);
    before = operations;
}

static void conduct(uint64_t seconds) {
    uint64_t began = now(), end = began + seconds * 1000000000, next_line = began + 1000000000,
             next_quiet = began + QUIET_EVERY;
    while (now() < end && !interrupted) {
        int w = (int)below(WORKERS);
        uint64_t dice = below(100);
        if (dice < 35 && now() - began > NO_KILLS)
            kill_one(w);
        else if (dice < 65)
            stop_one(w);
        look_after();
        if (now() >= next_quiet) {
            be_quiet_and_compare();
            next_quiet = now() + QUIET_EVERY;
        }
        if (now() >= next_line) {
            progress((now() - began) / 1000000000);
            next_line += 1000000000;
        }
        sleep_us(1000 + below(20000));
    }
    be_quiet_and_compare();
    progress((now() - began) / 1000000000);
}

static void end_workers(void) {
    atomic_store(&board->end, 1);
    uint64_t deadline = now() + 20 * UINT64_C(1000000000);
    for (int w = 0; w < WORKERS; w++) {
        int status = -1;
        if (workers[w].continue_at != 0)
            go_on(w);
        while (waitpid(workers[w].pid, &status, WNOHANG) == 0 && now() < deadline)
            sleep_us(1000);
        if (status != 0) {
            printf("worker %d ended with status 0x%x\n", w, (unsigned)status);
            deaths_by_themselves++;
            kill(workers[w].pid, SIGKILL);
            waitpid(workers[w].pid, NULL, 0);
        }
    }
}

static int passed, failed;

static void judge(bool good, const char *what, uint64_t figure) {
    printf("%s %s (%" PRIu64 ")\n", good ? "ok  " : "FAIL", what, figure);
    *(good ? &passed : &failed) += 1;
}

static void create(void) {
    zcp_config config = {0};
    zcp_manager *manager;
    for (int p = 0; p < POOLS; p++)
        zcp_config_add(&config, &pools[p]);
    zcp_status status = zcp_manager_open(
        &manager, &(zcp_manager_desc){
                      .name = name, .mode = ZCP_SHM_CREATE_EXCLUSIVE, .config = &config, .max_clients = MAX_CLIENTS});
    if (status != ZCP_OK) {
        printf("%s: %s\n", zcp_status_name(status), zcp_last_message());
        exit(2);
    }
    zcp_manager_close(manager);
}

int main(int argc, char **argv) {
    uint64_t seconds = 60;
    seed = now() ^ (uint64_t)getpid() << 32;
    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "--seconds=%" SCNu64, &seconds) != 1 && sscanf(argv[i], "--seed=%" SCNu64, &seed) != 1) {
            printf("usage: %s [--seconds=60] [--seed=N]\n", argv[0]);
            return strcmp(argv[i], "--help") == 0 ? 0 : 2;
        }
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    snprintf(name, sizeof name, "zcp-soak-%d", (int)getpid());
    printf("soak: %" PRIu64 " s, seed %" PRIu64 ", %d workers (half of them with a second thread, ever another one), "
                                                "pools of %d kinds that come and go, two of them cached\n",
           seconds, seed, (int)WORKERS, (int)KINDS);
    random_state = mix(seed) | 1;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    zcp_log_set_callback(on_log, NULL);
    zcp_log_set_level(ZCP_LOG_INFO);
    create();
    for (int w = 0; w < WORKERS; w++)
        start(w);
    conduct(seconds);
    end_workers();
    static uint32_t nothing[MAX_CHUNKS + 1];
    compare_books(nothing, 0, 0);
    zcp_status destroyed = zcp_manager_destroy(name);

    judge(board->status_errors == 0, "every call gave a status that it may give; operations", board->operations);
    judge(board->payload_errors == 0, "no payload changed under a holder; verified", board->verified);
    judge(board->hold_errors == 0, "nobody lost a hold; acquired", board->acquired);
    judge(board->wait_errors == 0, "no call waited above a second; longest, ms", board->longest / 1000000);
    judge(book_errors == 0, "no chunk lost or doubled; quiet moments", quiet_checks);
    judge(deaths_by_themselves == 0, "no worker died of itself; kills", kills);
    judge(most_cached > 0 || quiet_checks < 4, "chunks were cached; most at a quiet moment", most_cached);
    judge(largest_drift <= kills, "the counters say what the books say; largest difference", largest_drift);
    judge(seconds < 5 || (board->added > 0 && board->retired > 0 && board->reconfigured > 0),
          "pools came and went; added", board->added);
    judge(seconds < 5 || most_pools > POOLS, "there were more pools than at the beginning; most at a quiet moment",
          most_pools);
    judge(seconds < 5 || (board->waited > 0 && board->observed > 0),
          "chunks were waited for, and all was looked at; waits", board->waited);
    judge(board->threads > 0, "threads ended and others began; threads", board->threads);
    judge(board->sweeps > 0 || kills == 0, "the killed were swept; sweeps", board->sweeps);
    judge(destroyed == ZCP_OK && zcp_shm_unlink(name) == ZCP_ERR_NOT_FOUND, "destroyed; chunks reclaimed",
          board->reclaimed);
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
