// bench/ours.h: zerocp as a contender, and what suites need of its pools besides.
#ifndef ZEROCP_BENCH_OURS_H
#define ZEROCP_BENCH_OURS_H

#include "zerocp.h"

#include "contender.h"
#include "kit.h"

extern const contender ours, ours_cached;                          // ours_cached: each thread has a cache

zcp_manager *ours_manager(void *pool);                             // this process's
const char *ours_name(void *pool);
void ours_begin(const bench_host *given);
zcp_manager *open_instance(const char *name, zcp_shm_mode mode, const zcp_config *config, uint32_t max_clients);
zcp_config config_of(uint64_t chunk_size, uint32_t chunk_count);

#endif
