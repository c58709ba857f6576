// bench/targets.h: what zerocp sets itself, and whether this run met it.
#ifndef ZEROCP_BENCH_TARGETS_H
#define ZEROCP_BENCH_TARGETS_H

#include "record.h"

void targets_print(FILE *out, const record_table *table);

#endif
