// bench/controls.h: see controls.c.
#ifndef ZEROCP_BENCH_CONTROLS_H
#define ZEROCP_BENCH_CONTROLS_H

#include "contender.h"

const contender *const *controls(const bench_host *host);          // ends with NULL

#endif
