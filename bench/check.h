// bench/check.h: compares two runs.
#ifndef ZEROCP_BENCH_CHECK_H
#define ZEROCP_BENCH_CHECK_H

#include <stdbool.h>

// Prints each row of both files with its ratio, and what got slower by more than noise. 0: nothing did; 1: something
// did; 2: they cannot be compared. in_rmws: by the cost of an atomic read-modify-write in each run, for two machines.
int check_files(const char *older, const char *newer, double least, bool in_rmws);

#endif
