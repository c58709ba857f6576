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
    POINT_ONCE,                                                    // measures itself
} point_kind;

enum { P50, P99, P999, MOST, QUANTILES };

typedef struct point {
    const char *name, *system, *state, *what;                      // state "": none
    point_kind kind;
    int workers;                                                   // for the last two kinds but one
    uint32_t chunks;
    uint64_t bytes;
    void *pool;
    const contender *by;                                           // whose pool it is, where threads have to join
    void (*loop)(void *pool, uint64_t count);
    void (*peer)(void *pool, uint64_t count);
    double (*once)(void *pool);                                    // ns
    // 0: the default. block: least operations between looks at stop
    uint64_t slice, block, window;
    bool latency;                                                  // the loop fills the histogram
    int every;                                                     // 0, 1: each round
    uint64_t count;                                                // operations per round; 0: not run
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
void crew_start(int workers);
void rounds_run(int rounds);
void crew_end(void);
void pools_check(const char *when);                                // conservation, of all pools of the suite
// tells the points to the records, and destroys the pools
void suite_end(void);
double ns_per_tick(void);
double clock_step_ns(void);                                        // of the clock for single operations
bool counters_there(void);

#endif
