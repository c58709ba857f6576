// tests/soak/soak.c: eight processes work on one instance for as long as asked, and are killed and stopped all the
// time.
//
//   make soak SECONDS=60
//
// Each worker allocates over all pools, fills what it gets with a pattern, passes tokens to the others, acquires
// theirs, clones, releases, waits for chunks, closes and opens again, and verifies each payload whenever it gets and
// before it gives. Now and then it adds a pool, retires one, reconfigures the instance, or looks at it as an observer
// does. It publishes and subscribes to a few topics, too: each message carries its number, so that a reliable
// subscriber sees that none is missing, and any other that what is missing is told as lost or skipped. The conductor
// (this process) sends SIGKILL and SIGSTOP to them at random and starts the killed ones again. Every few seconds it
// asks for quiet: each worker stops where it is, reads all messages that there are, compares them with what publishers,
// also dead ones, say that they have published, and tells what it and its rings hold; and the books are compared: no
// dead client is left in the tables, what is used is what is held, what is cached can be by the threads that there are,
// every other chunk of the live pools can be had exactly once; the counters of allocations and releases say the same,
// but for one at most for each worker that was killed. Half of the workers have a second thread, which ends all the
// time, now and then without releasing, and another one goes on with what it held. At the end, when all have closed,
// nothing is cached or retiring any more. The last line is `N passed, N failed`.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
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

// Of topics: what the instance has; what a thread has at most.
enum { TOPICS = 6, PUBLISHERS = 18, SUBSCRIBERS = 30, RING_CELLS = 8, OWN_PUBLISHERS = 2, OWN_SUBSCRIBERS = 3,
       SOURCES = 1024, TOLD = HOLDS + PUBLISHERS * (RING_CELLS + SUBSCRIBERS) };

// In each round of quiet: nothing is published any more; all is read; all is told.
enum { WORKING = 0, STOPPING = 1, READING = 2, TELLING = 3, QUIET_PHASES = 4 };

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
    uint32_t index[TOLD];
} told;

// What a publisher, by its serial, has published; one that was killed perhaps one message more.
typedef struct ledger_entry {
    _Atomic uint64_t published;
    _Atomic uint32_t serial;
    uint32_t topic;
} ledger_entry;
enum { LEDGER = 1 << 21 };
static ledger_entry *ledger;

static struct board {
    _Atomic uint32_t quiet;                                        // of phases; all but WORKING: keep quiet
    _Atomic uint32_t end;
    _Atomic uint32_t stops[WORKERS];                               // odd: stopped, or about to be, or hardly continued
    _Atomic uint64_t mail[WORKERS][MAIL];
    told told[WORKERS][THREADS];
    _Atomic uint64_t operations, allocated, exhausted, acquired, stale, opened, verified;
    _Atomic uint64_t sweeps, reclaimed, longest;                   // longest: wait in a call, ns
    _Atomic uint64_t threads;                                      // that have ended
    _Atomic uint64_t added, retired, reconfigured, waited, observed;
    _Atomic uint64_t published, received, events, lost, skipped, kept, relayed, timeouts, endpoints, full;
    _Atomic uint64_t relied, inherited;                            // messages counted one by one; of dead publishers
    _Atomic uint64_t status_errors, payload_errors, hold_errors, wait_errors, message_errors;
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

// Words 2 and 3, if there are, tell which message this was first, and its tag.
enum { STAMPED = 4 * 8 };

static void fill(zcp_chunk *chunk, uint64_t size, uint64_t stamp, uint32_t tag) {
    uint64_t *word = chunk->data, words = size / 8, id = identity(chunk);
    word[0] = id;
    word[1] = size;
    if (size >= STAMPED) {
        word[2] = stamp;
        word[3] = tag;
    }
    for (uint64_t i = 4; i < words; i += step_of(words))
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
    for (uint64_t i = 4; i < words; i += step_of(words))
        if (word[i] != mix(id ^ size << 48 ^ i)) {
            complain(&board->payload_errors, "%s: chunk %016" PRIx64 ": word %" PRIu64 " was overwritten", when, id, i);
            return;
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// A worker

typedef struct sender {
    zcp_publisher *publisher;                                      // NULL: none
    uint32_t topic;
    uint64_t published;
} sender;

typedef struct heard {                                             // of one publisher
    uint64_t source, last, from;                                   // from: how many there were before
    bool begun;                                                    // one was read: from then on the numbers add up
} heard;

typedef struct listener {
    zcp_subscriber *subscriber;                                    // NULL: none
    uint32_t topic;
    uint32_t serial, floor;                                        // of later serials nothing was compared yet
    bool reliable, latest;
    int descriptor;
    zcp_message message;                                           // that is being read
    uint32_t count;
    heard heard[SOURCES];
} listener;

typedef struct thread {
    int worker, number;
    zcp_manager *manager;
    uint64_t random;
    uint32_t count;
    zcp_chunk held[HOLDS];
    sender senders[OWN_PUBLISHERS];
    listener listeners[OWN_SUBSCRIBERS];
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
        fill(&chunk, size, 0, 0);
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

// ---------------------------------------------------------------------------------------------------------------------
// Topics. The first is for anybody; one has a publisher at a time, one refuses reliable subscribers, in one messages
// stay for later ones, and in the last are chunks that came in by another.

enum { EXCLUSIVE = 1, NEVER_WAITS = 2, KEEPS = 3, RELAYS = TOPICS - 1 };

static const char *topic_name(uint32_t topic) {
    static const char *const names[TOPICS] = {"any", "exclusive", "never waits", "keeps", "another", "relays"};
    return names[topic];
}

static ledger_entry *ledger_of(uint64_t source) {
    return &ledger[source % LEDGER];
}

static void message_error(const listener *l, const char *what, uint64_t source, uint64_t is, uint64_t expected) {
    complain(&board->message_errors,
             "\"%s\", %s subscriber %u: %s: is %" PRIu64 ", expected %" PRIu64 " (publisher %" PRIu64 ")",
             topic_name(l->topic), l->reliable ? "reliable" : l->latest ? "latest" : "plain", l->serial, what, is,
             expected, source);
}

// The message that is read in place is as its publisher has written it.
static void verify_message(const listener *l, const char *when) {
    const zcp_message *m = &l->message;
    const uint64_t *word = m->data;
    if (l->subscriber == NULL || word == NULL)
        return;
    uint64_t words = m->size / 8;
    add(&board->verified, 1);
    if (m->size < STAMPED || word[0] != l->subscriber->reading_token || word[1] != m->size || word[3] != m->tag) {
        complain(&board->payload_errors,
                 "%s, message %" PRIu64 ": chunk %016" PRIx64 " of %" PRIu64 " bytes, tag %u, says %016" PRIx64
                 ", %" PRIu64 ", %" PRIu64,
                 when, m->number, l->subscriber->reading_token, m->size, m->tag, word[0], word[1], word[3]);
        return;
    }
    bool own = word[2] == (m->source << 32 | (uint32_t)m->number);
    if (own != (l->topic != RELAYS))
        complain(&board->payload_errors, "%s: message %" PRIu64 " of %" PRIu64 " says %016" PRIx64, when, m->number,
                 m->source, word[2]);
    for (uint64_t i = 4; i < words; i += step_of(words))
        if (word[i] != mix(word[0] ^ word[1] << 48 ^ i)) {
            complain(&board->payload_errors, "%s: message %" PRIu64 ": word %" PRIu64 " was overwritten", when,
                     m->number, i);
            return;
        }
}

static void forget_topics(thread *t) {
    for (int i = 0; i < OWN_PUBLISHERS; i++)
        t->senders[i].publisher = NULL;
    for (int i = 0; i < OWN_SUBSCRIBERS; i++)
        t->listeners[i].subscriber = NULL;
}

static void open_publisher(thread *t, sender *p) {
    zcp_status status;
    uint32_t topic = (uint32_t)below(TOPICS), depth = (uint32_t)below(RING_CELLS + 1);
    zcp_publisher_desc desc = {.topic = topic_name(topic), .depth = depth, .exclusive = topic == EXCLUSIVE,
                               .never_waits = topic == NEVER_WAITS, .timeout_ms = (uint32_t)(below(3) * below(12))};
    if (topic == KEEPS)
        desc.keep = (uint32_t)below(depth + 1);
    wait_limit = ADD_LIMIT;
    WATCHED(t->worker, status = zcp_publisher_open(t->manager, &desc, &p->publisher));
    wait_limit = WAIT_LIMIT;
    if (status == ZCP_ERR_FULL)
        add(&board->full, 1);
    else if (status != ZCP_OK && (status != ZCP_ERR_EXISTS || (topic != EXCLUSIVE && topic != NEVER_WAITS)))
        complain(&board->status_errors, "publisher_open: %s: %s", zcp_status_name(status), zcp_last_message());
    if (status != ZCP_OK)
        return;
    ledger_entry *entry = ledger_of(p->publisher->serial);
    p->topic = entry->topic = topic;
    p->published = 0;
    atomic_store(&entry->published, 0);
    atomic_store(&entry->serial, (uint32_t)p->publisher->serial);
    add(&board->endpoints, 1);
}

static void open_subscriber(thread *t, listener *l) {
    zcp_status status;
    uint64_t kind = below(6);
    l->topic = (uint32_t)below(TOPICS);
    // One that is refused as long as the publisher is there, and keeps it away as long as it is there itself.
    l->reliable = kind < 3 && (l->topic != NEVER_WAITS || below(64) == 0);
    l->latest = kind == 3;
    zcp_subscriber_desc desc = {.topic = topic_name(l->topic), .reliable = l->reliable, .latest = l->latest,
                                .history = (uint32_t)(below(2) * below(RING_CELLS + 1)),
                                .spin_us = (uint32_t)(below(2) * below(100))};
    wait_limit = ADD_LIMIT;
    WATCHED(t->worker, status = zcp_subscriber_open(t->manager, &desc, &l->subscriber));
    wait_limit = WAIT_LIMIT;
    if (status == ZCP_ERR_FULL)
        add(&board->full, 1);
    else if (status != ZCP_OK && (status != ZCP_ERR_INVALID_ARGUMENT || l->topic != NEVER_WAITS || !l->reliable))
        complain(&board->status_errors, "subscriber_open: %s: %s", zcp_status_name(status), zcp_last_message());
    if (status != ZCP_OK)
        return;
    l->serial = l->floor = (uint32_t)(atomic_load(&l->subscriber->entry->state) >> 32);
    l->descriptor = below(4) == 0 ? zcp_subscriber_descriptor(l->subscriber) : -1;
    l->message = (zcp_message){0};
    // Where it begins with those who are there; any other begins with its first message.
    l->count = l->subscriber->sources;
    for (uint32_t k = 0; k < l->count; k++) {
        const zcp_priv_source *source = &l->subscriber->source[k];
        l->heard[k] = (heard){source->state >> 32, source->head, source->from, false};
    }
    add(&board->endpoints, 1);
}

static heard *heard_of(listener *l, uint64_t source) {
    for (uint32_t k = 0; k < l->count; k++)
        if (l->heard[k].source == source)
            return &l->heard[k];
    if (l->count == SOURCES)
        return NULL;
    l->heard[l->count] = (heard){source, 0, 0, false};
    return &l->heard[l->count++];
}

// Each message comes once, in order, and what is missing was told.
static void count_message(listener *l) {
    const zcp_message *m = &l->message;
    const ledger_entry *entry = ledger_of(m->source);
    heard *h = heard_of(l, m->source);
    uint64_t missing = m->lost + m->skipped;
    add(&board->received, 1);
    add(&board->lost, m->lost);
    add(&board->skipped, m->skipped);
    add(&board->relied, l->reliable);
    add(&board->events, m->data == NULL);
    if (h == NULL)
        return;
    if (m->number <= h->last || m->number - h->last - 1 < missing)
        message_error(l, "a number, which is not above those before", m->source, m->number, h->last + 1 + missing);
    else if ((h->begun || h->last >= h->from) && m->number - h->last - 1 != missing)
        message_error(l, "messages missing", m->source, m->number - h->last - 1, missing);
    // What it finds of the time before it came, it need not find whole.
    uint64_t at_most = h->last >= h->from ? h->last + 1 : h->from + 1;
    if (l->reliable && ((missing != 0 && h->last >= h->from) || m->number > at_most))
        message_error(l, "the number", m->source, m->number, at_most);
    if (!l->latest && m->skipped != 0)
        message_error(l, "skipped", m->source, m->skipped, 0);
    // It is told after the message was published.
    if (atomic_load(&entry->serial) == m->source && m->number > atomic_load(&entry->published) + 1)
        message_error(l, "a number, above what was published", m->source, m->number, atomic_load(&entry->published));
    add(&board->inherited, zcp_priv_topic_phase(l->subscriber->reading_entry->state) == ZCP_PRIV_TOPIC_ENDED);
    h->last = m->number;
    h->begun = true;
}

static bool receive(thread *t, listener *l, uint32_t timeout_ms) {
    zcp_status status;
    verify_message(l, "before the next message");
    WATCHED(t->worker, status = zcp_subscriber_receive(l->subscriber, timeout_ms, &l->message));
    if (status == ZCP_OK) {
        count_message(l);
        verify_message(l, "a message");
    } else if (status != (timeout_ms == 0 ? ZCP_ERR_EMPTY : ZCP_ERR_TIMEOUT)) {
        complain(&board->status_errors, "receive: %s: %s", zcp_status_name(status), zcp_last_message());
    }
    return status == ZCP_OK;
}

// Has what was published of one source arrived? What its publisher notes comes after the message.
static void compare_source(listener *l, uint64_t source) {
    const ledger_entry *entry = ledger_of(source);
    uint64_t published = atomic_load(&entry->published), last = 0;
    if (atomic_load(&entry->serial) != source || entry->topic != l->topic)
        return;
    for (uint32_t k = 0; k < l->count; k++)
        if (l->heard[k].source == source)
            // what was there before it came may have gone
            last = l->heard[k].last > l->heard[k].from ? l->heard[k].last : l->heard[k].from;
    if (last < published)
        message_error(l, "the last message read of all that was published", source, last, published);
}

// Nobody publishes any more: a reliable subscriber gets to the end of all, also of those who have ended.
static void read_all(thread *t) {
    for (int i = 0; i < OWN_SUBSCRIBERS; i++) {
        listener *l = &t->listeners[i];
        if (l->subscriber == NULL)
            continue;
        while (receive(t, l, 0)) {}
        uint32_t epoch = atomic_load(&t->manager->header->signals.topics_epoch), left = 0;
        for (uint32_t k = 0; l->reliable && k < l->count; k++)
            if (l->heard[k].source <= l->floor)
                compare_source(l, l->heard[k].source);
        for (uint32_t source = l->floor + 1; l->reliable && source <= epoch; source++)
            compare_source(l, source);
        l->floor = epoch;
        // Of those who are gone nothing comes any more.
        for (uint32_t k = 0; k < l->count; k++)
            for (uint32_t q = 0; q < l->subscriber->sources; q++)
                if (l->subscriber->source[q].state >> 32 == l->heard[k].source) {
                    l->heard[left++] = l->heard[k];
                    break;
                }
        l->count = left;
    }
}

// After all was read: what the rings of this process hold.
static void tell_rings(zcp_manager *manager, told *tell) {
    zcp_priv_topics *topics = atomic_load(&manager->topics);
    zcp_priv_rings_collect(manager, false);
    for (uint32_t k = 0; topics != NULL && k < topics->publishers; k++) {
        const zcp_publisher *p = zcp_priv_publisher_at(topics, k);
        uint32_t state = atomic_load(&p->state);
        if (state == ZCP_PRIV_OBJECT_ENDED || (state == ZCP_PRIV_OBJECT_OPEN && p->asides != 0))
            complain(&board->message_errors, "all is read, but a publisher %s", state == ZCP_PRIV_OBJECT_ENDED
                         ? "that was closed is still there" : "has put chunks aside");
        if (state < ZCP_PRIV_OBJECT_OPEN)
            continue;
        if (p->next - p->tail > p->keep)
            complain(&board->message_errors, "all is read, and a ring holds %" PRIu64 " messages, but keeps %u",
                     p->next - p->tail, p->keep);
        for (uint32_t cell = 0; cell < p->depth; cell++)
            if (p->book[cell] != 0)
                tell->index[tell->count++] = (uint32_t)p->book[cell];
        for (uint32_t a = 0; a < p->asides; a++)
            tell->index[tell->count++] = (uint32_t)p->aside[a];
    }
}

// A chunk for a message: a new one, or for the topic that relays one that is held, or another handle of that.
static bool find_chunk(thread *t, sender *p, zcp_chunk *chunk) {
    zcp_status status;
    if (p->topic == RELAYS) {
        uint32_t which = t->count == 0 ? 0 : (uint32_t)below(t->count);
        if (t->count == 0 || zcp_chunk_size(&t->held[which]) < STAMPED)
            return false;
        *chunk = t->held[which];
        verify(chunk, "before it is published");
        if (below(2) == 0)
            WATCHED(t->worker, *chunk = zcp_chunk_clone(&t->held[which]));
        else
            t->held[which] = t->held[--t->count];
        add(&board->relayed, 1);
        return true;
    }
    uint64_t size = STAMPED + below(pools[below(KINDS)].chunk_size - STAMPED + 1);
    uint32_t tag = below(8) == 0 ? (uint32_t)below(1000) : 0;
    if (tag != 0)
        WATCHED(t->worker, status = zcp_chunk_allocate_tagged(t->manager, size, tag, chunk));
    else
        WATCHED(t->worker, status = zcp_publisher_loan(p->publisher, size, chunk));
    if (status == ZCP_OK)
        fill(chunk, size, p->publisher->serial << 32 | (uint32_t)(p->published + 1), tag);
    else if (status != ZCP_ERR_EXHAUSTED && status != ZCP_ERR_TOO_LARGE)
        complain(&board->status_errors, "loan: %s: %s", zcp_status_name(status), zcp_last_message());
    else if (t->count > 0)
        let_go(t, (uint32_t)below(t->count));
    return status == ZCP_OK;
}

static void publish(thread *t, sender *p) {
    zcp_chunk chunk = {0};
    zcp_delivery delivery;
    zcp_status status;
    bool event = below(16) == 0;
    if (!event && !find_chunk(t, p, &chunk))
        return;
    if (event)
        WATCHED(t->worker, status = zcp_publisher_notify(p->publisher, &delivery));
    else
        WATCHED(t->worker, status = zcp_publisher_publish(p->publisher, &chunk, &delivery));
    if (status == ZCP_OK) {
        p->published++;
        atomic_store(&ledger_of(p->publisher->serial)->published, p->published);
        add(&board->published, 1);
        if (delivery.number != p->published || chunk.manager != NULL || delivery.subscribers > SUBSCRIBERS)
            complain(&board->message_errors, "publish: number %" PRIu64 ", expected %" PRIu64 "; subscribers %u",
                     delivery.number, p->published, delivery.subscribers);
        return;
    }
    if (status != ZCP_ERR_TIMEOUT || p->topic == NEVER_WAITS)
        complain(&board->status_errors, "publish: %s: %s", zcp_status_name(status), zcp_last_message());
    add(&board->timeouts, 1);
    if (!event) {
        verify(&chunk, "after publish has timed out");
        WATCHED(t->worker, zcp_chunk_release(&chunk));
    }
}

static void keep(thread *t, listener *l) {
    zcp_chunk chunk;
    zcp_status status;
    WATCHED(t->worker, status = zcp_subscriber_keep(l->subscriber, &chunk));
    if (status != (l->message.data == NULL ? ZCP_ERR_EMPTY : ZCP_OK)) {
        complain(&board->hold_errors, "keep: %s: %s", zcp_status_name(status), zcp_last_message());
    } else if (status == ZCP_OK) {
        add(&board->kept, 1);
        verify(&chunk, "after keep");
        t->held[t->count++] = chunk;
    }
}

static void wait_for_messages(thread *t) {
    zcp_subscriber *all[OWN_SUBSCRIBERS];
    zcp_status status;
    uint32_t count = 0, ready;
    for (int i = 0; i < OWN_SUBSCRIBERS; i++) {
        listener *l = &t->listeners[i];
        if (l->subscriber != NULL && l->descriptor >= 0)
            while (receive(t, l, 0)) {}
        if (l->subscriber != NULL && l->descriptor >= 0
            && poll(&(struct pollfd){.fd = l->descriptor, .events = POLLIN}, 1, (int)below(5)) == 1)
            (void)receive(t, l, 0);
        if (l->subscriber != NULL)
            all[count++] = l->subscriber;
    }
    if (count == 0)
        return;
    WATCHED(t->worker, status = zcp_subscribers_wait(all, count, 1 + (uint32_t)below(10), &ready));
    if (status != ZCP_ERR_TIMEOUT && (status != ZCP_OK || ready >= count))
        complain(&board->status_errors, "subscribers_wait: %s: %s", zcp_status_name(status), zcp_last_message());
}

static void act_as_publisher(thread *t) {
    sender *p = &t->senders[below(OWN_PUBLISHERS)];
    if (p->publisher == NULL) {
        if (below(64) == 0)
            open_publisher(t, p);
    } else if (below(300) == 0) {
        WATCHED(t->worker, zcp_publisher_close(p->publisher));
        p->publisher = NULL;
    } else {
        publish(t, p);
    }
}

static void act_on_topics(thread *t) {
    listener *l = &t->listeners[below(OWN_SUBSCRIBERS)];
    uint64_t dice = below(1000);
    if (dice < 400) {
        act_as_publisher(t);
    } else if (l->subscriber == NULL) {
        if (below(16) == 0)
            open_subscriber(t, l);
    } else if (dice < 403) {
        verify_message(l, "before it is closed");
        WATCHED(t->worker, zcp_subscriber_close(l->subscriber));
        l->subscriber = NULL;
    } else if (dice < 440 && t->count < HOLDS) {
        keep(t, l);
    } else if (dice < 450) {
        verify_message(l, "before done");
        WATCHED(t->worker, zcp_subscriber_done(l->subscriber));
        l->message = (zcp_message){0};
    } else if (dice < 455) {
        wait_for_messages(t);
    } else {
        (void)receive(t, l, dice < 460 ? 1 + (uint32_t)below(20) : 0);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// All of it

// With or without releasing first: closing gives back what is left.
static void open_again(thread *t) {
    while (t->count > 0 && below(4) != 0)
        let_go(t, t->count - 1);
    if (t->count > 0)
        verify(&t->held[0], "before close");
    for (int i = 0; i < OWN_SUBSCRIBERS; i++)
        verify_message(&t->listeners[i], "before close");
    WATCHED(t->worker, zcp_manager_close(t->manager));
    forget_topics(t);
    t->count = 0;
    t->manager = open_instance(t->worker);
}

static void tell(thread *t) {
    told *tell = &board->told[t->worker][t->number];
    tell->count = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        verify(&t->held[i], "at a quiet moment");
        tell->index[tell->count++] = t->held[i].index;
    }
    if (t->number == 0 && t->manager != NULL)
        tell_rings(t->manager, tell);
}

static void keep_quiet(thread *t) {
    told *tells = &board->told[t->worker][t->number];
    for (uint32_t epoch; (epoch = atomic_load(&board->quiet)) % QUIET_PHASES != WORKING;) {
        if (epoch % QUIET_PHASES == READING)
            read_all(t);
        if (epoch % QUIET_PHASES == TELLING)
            tell(t);
        atomic_store(&tells->epoch, epoch);
        while (atomic_load(&board->quiet) == epoch)
            sleep_us(500);
    }
}

static void act(thread *t, bool alone) {
    uint64_t dice = below(1000);
    if (below(3) == 0) {
        act_on_topics(t);
        return;
    }
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
        if (atomic_load(&board->quiet) % QUIET_PHASES != WORKING)
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

// All has been read: no endpoint of the dead, and none that has ended, is there.
static bool check_endpoint(const zcp_topic_entry *entry, void *user) {
    zcp_client_info info;
    zcp_status status = zcp_manager_client_info(user, entry->client, &info);
    if (entry->ended || entry->unread != 0)
        book_error(entry->ended ? "an ended endpoint; unread" : "unread messages", entry->unread, 0);
    if (status != ZCP_OK || info.state != ZCP_CLIENT_ALIVE)
        book_error("an endpoint of a client that is not alive; client", entry->client, 0);
    if (entry->held > entry->depth)
        book_error("chunks in a ring, at most its depth", entry->held, entry->depth);
    return true;
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
    status = zcp_manager_topics(manager, check_endpoint, manager);
    if (status != ZCP_OK)
        book_error("the status of looking at topics", (uint64_t)status, ZCP_OK);
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
    static uint32_t held[WORKERS * THREADS * TOLD + MAX_CHUNKS + 1];
    for (int w = 0; w < WORKERS; w++)
        if (workers[w].continue_at != 0)
            go_on(w);
    bool quiet = true;
    for (uint32_t phase = STOPPING; quiet && phase <= TELLING; phase++) {
        uint32_t epoch = atomic_fetch_add(&board->quiet, 1) + 1;
        uint64_t deadline = now() + 20 * UINT64_C(1000000000);
        while (!(quiet = all_quiet(epoch)) && now() < deadline) {
            look_after();
            sleep_us(500);
        }
        if (!quiet)
            book_error("not quiet within 20 s; workers; phase", phase, WORKERS);
    }
    if (quiet)
        compare_books(held, all_that_is_told(held), WORKERS + WORKERS / 2);
    quiet_checks++;
    atomic_store(&board->quiet, (atomic_load(&board->quiet) / QUIET_PHASES + 1) * QUIET_PHASES);
}

// ---------------------------------------------------------------------------------------------------------------------

static uint64_t errors(void) {
    return board->status_errors + board->payload_errors + board->hold_errors + board->wait_errors
           + board->message_errors + book_errors + deaths_by_themselves;
}

static void progress(uint64_t second) {
    static uint64_t before;
    uint64_t operations = board->operations;
    printf("%4" PRIu64 " s: operations %" PRIu64 " (+%" PRIu64 "), allocated %" PRIu64 ", acquired %" PRIu64
           ", stale %" PRIu64 ", exhausted %" PRIu64 ", kills %" PRIu64 ", stops %" PRIu64 ", sweeps %" PRIu64
           ", chunks reclaimed %" PRIu64 ", quiet checks %" PRIu64 ", pools added %" PRIu64 ", retired %" PRIu64
           ", reconfigured %" PRIu64 ", waits %" PRIu64 ", observed %" PRIu64
           ", published %" PRIu64 ", received %" PRIu64 " (%" PRIu64 " reliably, %" PRIu64 " of the dead)"
           ", lost %" PRIu64 ", skipped %" PRIu64 ", kept %" PRIu64 ", relayed %" PRIu64 ", publish timed out %" PRIu64
           ", publishers and subscribers %" PRIu64 ", tables full %" PRIu64 ", longest wait %" PRIu64
           " ms, errors %" PRIu64 "\n",
           second, operations, operations - before, board->allocated, board->acquired, board->stale, board->exhausted,
           kills, stops_made, board->sweeps, board->reclaimed, quiet_checks, board->added, board->retired,
           board->reconfigured, board->waited, board->observed, board->published,
           board->received, board->relied, board->inherited, board->lost, board->skipped, board->kept, board->relayed,
           board->timeouts, board->endpoints, board->full, board->longest / 1000000, errors());
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
    zcp_config config = {.publishers = PUBLISHERS, .subscribers = SUBSCRIBERS, .ring_cells = RING_CELLS};
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
    ledger = mmap(NULL, LEDGER * sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                  0);
    if (board == MAP_FAILED || ledger == MAP_FAILED) {
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
    judge(board->message_errors == 0, "no message is missing that was not told as lost; received", board->received);
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
    judge(seconds < 5 || (board->relied > 0 && board->lost > 0 && board->skipped > 0 && board->kept > 0
                          && board->relayed > 0 && board->events > 0),
          "messages came reliably, or were lost or skipped, kept and published again; reliably", board->relied);
    judge(seconds < 10 || board->inherited > 0, "messages of publishers that were killed arrived; of them",
          board->inherited);
    judge(board->threads > 0, "threads ended and others began; threads", board->threads);
    judge(board->sweeps > 0 || kills == 0, "the killed were swept; sweeps", board->sweeps);
    judge(destroyed == ZCP_OK && zcp_shm_unlink(name) == ZCP_ERR_NOT_FOUND, "destroyed; chunks reclaimed",
          board->reclaimed);
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
