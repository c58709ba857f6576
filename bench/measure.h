// bench/measure.h: points (what is measured, and what came of it), the processes that work at the same time, and
// rounds. A suite makes its pools, says its points, starts its crew, and runs them all in turn, again and again (a
// round), so that what disturbs the machine disturbs all of them alike.
#ifndef ZEROCP_BENCH_MEASURE_H
#define ZEROCP_BENCH_MEASURE_H

#include "contender.h"
#include "kit.h"

typedef enum point_kind {
    POINT_ALONE,                                                   // this process: count operations
    // a second one at the same time: the same, or the other half (peer)
    POINT_TWO,
    // so many workers until time is up: wall time by all operations
    POINT_PROCESSES,
    POINT_THREADS,
    // this process publishes (loop), so many others subscribe (peer)
    POINT_TOPIC,
    POINT_ONCE,                                                    // measures itself
} point_kind;

enum { P50, P99, P999, MOST, QUANTILES };

typedef struct point {
    const char *name, *system, *state, *what;                      // state "": none
    point_kind kind;
    int workers;                                                   // all processes; POINT_ALONE, POINT_TWO: nothing
    uint32_t chunks;
    uint64_t bytes;
    void *pool;
    const contender *by;                                           // whose pool it is, where threads have to join
    void (*loop)(void *pool, uint64_t count);
    void (*peer)(void *pool, uint64_t count);
    void (*call)(void *pool, uint64_t count);                      // POINT_TOPIC: so that all find each other
    void (*answer)(void *pool, uint64_t count);
    double (*once)(void *pool);                                    // ns
    // 0: the default. block: least operations between looks at stop
    uint64_t slice, block, window;
    bool latency;                                                  // the loop fills the histogram
    bool there_and_back;                                           // the time of a message is half of what it takes
    int every;                                                     // 0, 1: each round
    uint64_t fixed;                                                // operations per round; 0: as many as fit a slice
    uint64_t count;                                                // operations per round; 0: not run
    uint64_t sent, received;                                       // POINT_TOPIC: messages, in all rounds
    histogram *all;                                                // POINT_TOPIC, latency: of all rounds
    figures ns, rmws, quantiles[QUANTILES], instructions, cycles;
} point;

// How a suite is run. The caller's options.
typedef struct measure_options {
    int rounds;
    uint64_t slice;                                                // ns, aimed at for one loop
    bool (*selected)(const char *name, const char *system);
} measure_options;

extern bench_host host;

void measure_begin(const measure_options *given);
// A pool that is joined by the crew, checked and destroyed with the suite; NULL if the contender cannot serve that.
void *pool_add(const contender *by, uint32_t chunks, uint32_t bytes);
point *point_add(const point *given);                              // NULL if it is not selected
bool selected_at_all(const char *name, const char *system);
// What each process of the crew does besides joining the pools, and when it leaves. Not pinned: it pins itself. NULL:
// nothing.
void crew_hooks(void (*join)(int worker), void (*leave)(int worker));
void crew_start(int workers);
void point_call(point *p);                                         // POINT_TOPIC: all find each other
void rounds_run(int rounds);
void crew_end(void);
void pools_check(const char *when);                                // conservation, of all pools of the suite
// tells the points to the records, and destroys the pools
void suite_end(void);
double ns_per_tick(void);
double clock_step_ns(void);                                        // of the clock for single operations
bool counters_there(void);

#endif
