// bench/plot.h: the figures as SVG: each on a panel of its own, so that it can be read on light pages and on dark ones.
#ifndef ZEROCP_BENCH_PLOT_H
#define ZEROCP_BENCH_PLOT_H

#include "record.h"

bool plots_write(const record_table *table, const char *directory);   // tells on stderr what is wrong

#endif
