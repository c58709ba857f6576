// bench/machine.h: what is measured on. Chooses the two CPUs, and says all that a reader needs to judge the figures.
#ifndef ZEROCP_BENCH_MACHINE_H
#define ZEROCP_BENCH_MACHINE_H

void machine_tell(void);
void machine_tell_load(const char *key);

#endif
