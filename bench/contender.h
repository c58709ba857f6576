// bench/contender.h: what is measured against each other, as C sees it and C++ too: each contender is a table of loops
// over a pool of its own. All loops are compiled from loops.h, so that each does the same work.
#ifndef ZEROCP_BENCH_CONTENDER_H
#define ZEROCP_BENCH_CONTENDER_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#include <x86intrin.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------------------------------
// The compiler must not know what a pointer leads to, nor drop what was written there.

static inline void *hide(void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static inline void spin(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

// A clock for single operations: what it counts is a tick; ns_per_tick is found at the start. Nothing before it is
// delayed to after it, and nothing after it begins before.
static inline uint64_t ticks(void) {
#if defined(__SSE2__)
    unsigned core;
    uint64_t t = __rdtscp(&core);
    _mm_lfence();
    return t;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
#endif
}

// ---------------------------------------------------------------------------------------------------------------------
// Latencies: exact below 64 ticks, then in steps of at most 1/32.

enum { HISTOGRAM_STEPS = 64, HISTOGRAM_CELLS = 32 * 48 };

typedef struct histogram {
    uint64_t count, most;
    uint32_t cells[HISTOGRAM_CELLS];
} histogram;

static inline unsigned histogram_cell(uint64_t value) {
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned octave = 63U - (unsigned)__builtin_clzll(value);      // 6 or more
    unsigned cell = 32 * (octave - 4) + (unsigned)(value >> (octave - 5) & 31);
    return cell < HISTOGRAM_CELLS ? cell : HISTOGRAM_CELLS - 1;
}

static inline void histogram_add(histogram *h, uint64_t value) {
    h->cells[histogram_cell(value)]++;
    h->count++;
    if (value > h->most)
        h->most = value;
}

// ---------------------------------------------------------------------------------------------------------------------
// What the processes share. Two cache lines for each word that one of them writes: some CPUs fetch lines in pairs.

typedef struct line {
    uint64_t word;
    unsigned char rest[120];
} __attribute__((aligned(128))) line;

enum { RING = 256, SLOT_BYTES = 256, MOST_SUBSCRIBERS = 8 };

typedef struct shared_state {
    line arrived, go, stop, ball, head, tail, bad, phase;
    line seen[MOST_SUBSCRIBERS];                                   // by each subscriber
    uint64_t ring[RING] __attribute__((aligned(128)));
    unsigned char slots[RING][SLOT_BYTES] __attribute__((aligned(128)));
} shared_state;

static inline uint64_t get_acquire(const line *at) {
    return __atomic_load_n(&at->word, __ATOMIC_ACQUIRE);
}

static inline uint64_t get_relaxed(const line *at) {
    return __atomic_load_n(&at->word, __ATOMIC_RELAXED);
}

static inline void set_release(line *at, uint64_t value) {
    __atomic_store_n(&at->word, value, __ATOMIC_RELEASE);
}

// Who waits for another process spins; but on a busy machine the other one may not be on its CPU, and then the rest of
// the time slice is better saved for the moment when it is.
static inline void spin_long(unsigned *tries) {
    if (++*tries % 4096 == 0)
        sched_yield();
    else
        spin();
}

static inline uint64_t await_index(const line *at, uint64_t index) {   // until it is index or more
    uint64_t seen;
    for (unsigned tries = 0; (seen = get_acquire(at)) < index;)
        spin_long(&tries);
    return seen;
}

// The work on a chunk that is only allocated and released: its first and its last line.
static inline void write_lines(void *data, size_t bytes) {
    volatile uint64_t *words = (volatile uint64_t *)hide(data);
    words[0] = 1;
    words[bytes / 8 - 1] = 2;
}

// The work on a message: all of it is written, and all of it is read and compared.
static inline void fill(void *data, size_t bytes, uint64_t value) {
    uint64_t *words = (uint64_t *)hide(data);
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = value + i;
    hide(data);
}

static inline bool is_filled(void *data, size_t bytes, uint64_t value) {
    const uint64_t *words = (const uint64_t *)hide(data);
    uint64_t wrong = 0;
    for (size_t i = 0; i < bytes / 8; i++)
        wrong |= words[i] ^ (value + i);
    return wrong == 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Contenders. A pool is made in the first process before the others are forked. Each process, and each thread that
// works, joins it and leaves it again; worker is 0 in the first process, else from 1.

typedef struct bench_host {                                        // what a contender may use of the bench
    shared_state *shared;
    void *(*shared_memory)(size_t bytes);
    void (*die)(const char *format, ...);
    histogram *latencies;                                          // of this process
    uint64_t window;                                               // messages that may be on their way
    // For topics (messenger.h).
    const char *(*name)(const char *word);                         // of an object of shared memory, never left behind
    pid_t (*fork)(void);                                           // a process that ends with the bench
    void (*wait)(pid_t pid);                                       // until it has ended
    histogram *arrivals;                                           // of all processes
    double ns_per_tick;
    int worker, subscribers;                                       // which one this is; how many there are
    bool crowded;                                                  // there are more processes than CPUs
    uint64_t first;                                                // number of the slice's first message
    uint64_t received, spent;                                      // messages; ticks, where not all time counts
} bench_host;

typedef struct contender {
    const char *name, *what;
    void *(*create)(uint32_t chunks, uint32_t bytes);              // NULL: cannot serve that
    void (*join)(void *pool, int worker);                          // each of these may be NULL: nothing to do
    void (*leave)(void *pool, int worker);
    void (*destroy)(void *pool);
    // all chunks are free; dies if not. NULL: cannot tell
    void (*check)(void *pool);
    void (*pair)(void *pool, uint64_t count);
    void (*pair_timed)(void *pool, uint64_t count);
    void (*burst)(void *pool, uint64_t count);
    void (*live)(void *pool, uint64_t count);
    void (*send)(void *pool, uint64_t count);                      // NULL, also below: has no hand-off
    void (*send_timed)(void *pool, uint64_t count);
    void (*receive)(void *pool, uint64_t count);
    bool threads;                                                  // several threads of a process may use it
    // more workers than CPUs may: who is preempted stalls nobody for long
    bool crowds;
} contender;

// What a peer's object gives: NULL if it was made for another version of this file.
enum { BENCH_ABI = 3 };
typedef const contender *const *bench_peer_function(const bench_host *host, int abi);   // ends with NULL

#ifdef __cplusplus
}
#endif
#endif
