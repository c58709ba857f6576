// bench/summary.h: the figures that most people look for, as tables for bench/README.md.
#ifndef ZEROCP_BENCH_SUMMARY_H
#define ZEROCP_BENCH_SUMMARY_H

#include "record.h"

void summary_print(FILE *out, const record_table *table);
bool summary_write(const record_table *table, const char *directory);   // summary.md there

#endif
