// bench/cost.h: what an operation costs in instructions, and how many of them are locked.
#ifndef ZEROCP_BENCH_COST_H
#define ZEROCP_BENCH_COST_H

#include "suites.h"

void suite_cost(const suite_options *options);

#endif
