// bench/summary.h: the figures that most people look for, as tables for the README.
#ifndef ZEROCP_BENCH_SUMMARY_H
#define ZEROCP_BENCH_SUMMARY_H

#include "record.h"

bool summary_write(const record_table *table, const char *directory);   // summary.md there

#endif
