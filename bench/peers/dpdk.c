// bench/peers/dpdk.c: DPDK's mempool over its default ring, without a cache and with one of 256 per lcore. It gives raw
// pointers; a process that dies with some of them loses them. By its documentation nobody who uses the ring may be
// preempted, because the others spin until he is done: so there are never more workers than CPUs. Its memory is the
// environment's, without huge pages, and the workers inherit it; each takes the number of an lcore of its own, because
// caches are found by that.
#include "../contender.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mempool.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const bench_host *host;

typedef struct dpdk_pool {
    struct rte_mempool *mempool;
    uint32_t bytes;
} dpdk_pool;

static void *dpdk_create(uint32_t chunks, uint32_t bytes, uint32_t cache) {
    static int created;
    char name[32];
    dpdk_pool *pool = malloc(sizeof *pool);
    snprintf(name, sizeof name, "bench%d", created++);
    if (!pool)
        return NULL;
    pool->bytes = bytes;
    pool->mempool = rte_mempool_create(name, chunks, bytes, cache, 0, NULL, NULL, NULL, NULL, SOCKET_ID_ANY, 0);
    if (!pool->mempool) {
        free(pool);
        return NULL;
    }
    return pool;
}

static void dpdk_destroy(void *memory) {
    dpdk_pool *pool = memory;
    rte_mempool_free(pool->mempool);
    free(pool);
}

// Threads are told by negative numbers.
static void dpdk_join(void *memory, int worker) {
    (void)memory;
    RTE_PER_LCORE(_lcore_id) = (unsigned)abs(worker);
}

static void dpdk_leave(void *memory, int worker) {
    const dpdk_pool *pool = memory;
    (void)worker;
    struct rte_mempool_cache *cache = rte_mempool_default_cache(pool->mempool, rte_lcore_id());
    if (cache)
        rte_mempool_cache_flush(cache, pool->mempool);
}

static void dpdk_check(void *memory) {
    const dpdk_pool *pool = memory;
    unsigned available = rte_mempool_avail_count(pool->mempool);
    if (available != pool->mempool->size)
        host->die("dpdk: %u of %u chunks are free", available, pool->mempool->size);
}

static uint32_t dpdk_bytes(void *pool) {
    return ((const dpdk_pool *)pool)->bytes;
}

static inline void *dpdk_allocate(void *memory, void **chunk) {
    dpdk_pool *pool = hide(memory);
    if (rte_mempool_get(pool->mempool, chunk) != 0)
        host->die("dpdk: no chunk is free");
    return *chunk;
}

static inline void dpdk_release(void *memory, void **chunk) {
    dpdk_pool *pool = hide(memory);
    rte_mempool_put(pool->mempool, *chunk);
}

static inline uint64_t dpdk_give(void *pool, void **chunk) {
    (void)pool;
    return (uint64_t)(uintptr_t)*chunk;
}

static inline void dpdk_given(void *pool, void **chunk) {
    (void)pool, (void)chunk;
}

static inline void *dpdk_take(void *pool, uint64_t message, void **chunk) {
    (void)pool;
    return *chunk = (void *)(uintptr_t)message;
}

static inline void dpdk_taken(void *pool, void **chunk) {
    dpdk_release(pool, chunk);
}

static void *plain_create(uint32_t chunks, uint32_t bytes) {
    return dpdk_create(chunks, bytes, 0);
}

// DPDK wants two thirds of a pool for no cache; of a small pool nothing would be left for others.
static void *cached_create(uint32_t chunks, uint32_t bytes) {
    enum { CACHE = 256 };
    return chunks >= 8 * CACHE ? dpdk_create(chunks, bytes, CACHE) : NULL;
}

#define LOOP(x) dpdk_##x
#define LOOP_HANDS_OFF
#define handle void *
#define dpdk_host host
#include "../loops.h"

static const contender plain = {
    "dpdk", "DPDK mempool without a cache: raw pointers, not crash-safe", plain_create, dpdk_join, dpdk_leave,
    dpdk_destroy, dpdk_check, LOOP_TABLE, true, false,
};
static const contender cached = {
    "dpdk-cached", "DPDK mempool with a cache of 256 per lcore: raw pointers, not crash-safe", cached_create, dpdk_join,
    dpdk_leave, dpdk_destroy, dpdk_check, LOOP_TABLE, true, false,
};

// The environment talks, pins the caller and changes handlers; the bench wants none of that.
static bool environment_start(void) {
    static char words[][32] = {"bench",    "--no-huge", "--no-shconf", "--no-pci", "--no-telemetry",
                               "--lcores", "0",         "-m",          "2048",     "--log-level=error"};
    enum { WORDS = sizeof words / sizeof words[0] };
    static char *arguments[WORDS + 1];
    cpu_set_t set;
    char cpu[16];
    for (int i = 0; i < WORDS; i++)
        arguments[i] = words[i];
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return false;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET((size_t)i, &set)) {
            snprintf(cpu, sizeof cpu, "0@%d", i);
            arguments[6] = cpu;
            break;
        }
    bool good = rte_eal_init(WORDS, arguments) >= 0;
    sched_setaffinity(0, sizeof set, &set);
    return good;
}

const contender *const *bench_peer(const bench_host *given, int abi);
const contender *const *bench_peer(const bench_host *given, int abi) {
    static const contender *const all[] = {&plain, &cached, NULL};
    host = given;
    return abi == BENCH_ABI && environment_start() ? all : NULL;
}
