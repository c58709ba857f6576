// bench/suites.h: what is measured, in groups that each run their rounds.
#ifndef ZEROCP_BENCH_SUITES_H
#define ZEROCP_BENCH_SUITES_H

#include "contender.h"

#include <stdbool.h>

typedef struct suite_options {
    int rounds;
    bool quick;
    const contender *const *contenders;                            // all that are there; ends with NULL
} suite_options;

// one and two processes, and zerocp's other operations
void suite_merit(const suite_options *options);
void suite_workers(const suite_options *options);                  // the curve over processes and threads
// the curve over chunk counts, and over states of the list
void suite_chunks(const suite_options *options);
// the curve over payloads, beside pipe, socket and memcpy
void suite_payload(const suite_options *options);
// messages from one process to others, beside other ways to carry them
void suite_topics(const suite_options *options);
void suite_instances(const suite_options *options);                // create, attach, recover

void rmw_add(void);                                                // the unit; the first point of each suite

#endif
