// bench/ours.c: see ours.h.
#include "ours.h"

#include <stdio.h>
#include <stdlib.h>

static const bench_host *host;

typedef struct our_pool {
    zcp_manager *manager;                                          // this process's client
    const char *name;
    uint32_t chunks, bytes;
} our_pool;

void ours_begin(const bench_host *given) {
    host = given;
}

zcp_manager *ours_manager(void *pool) {
    return ((const our_pool *)pool)->manager;
}

const char *ours_name(void *pool) {
    return ((const our_pool *)pool)->name;
}

zcp_config config_of(uint64_t chunk_size, uint32_t chunk_count) {
    zcp_config config = {0};
    MUST_OK(zcp_config_add_pool(&config, chunk_size, chunk_count));
    return config;
}

zcp_manager *open_instance(const char *name, zcp_shm_mode mode, const zcp_config *config, uint32_t max_clients) {
    zcp_manager *opened;
    MUST_OK(zcp_manager_open(
        &opened,
        &(zcp_manager_desc){
            .name = name, .mode = mode, .config = config, .max_clients = max_clients, .client_name = "bench"}));
    return opened;
}

// ---------------------------------------------------------------------------------------------------------------------
// A pool is an instance of its own.

static void *our_create(uint32_t chunks, uint32_t bytes, uint32_t cache) {
    static int created;
    char word[16];
    zcp_config config = {0};
    zcp_pool_config pool_config = {.chunk_size = bytes, .chunk_count = chunks, .cache_chunks = cache};
    our_pool *pool = malloc(sizeof *pool);
    MUST(pool != NULL);
    MUST_OK(zcp_config_add(&config, &pool_config));
    snprintf(word, sizeof word, "pool%d", created++ % 64);
    *pool = (our_pool){NULL, name_new(word), chunks, bytes};
    pool->manager = open_instance(pool->name, ZCP_SHM_CREATE_EXCLUSIVE, &config, 0);
    return pool;
}

static void *ours_create(uint32_t chunks, uint32_t bytes) {
    return our_create(chunks, bytes, 0);
}

// With so few chunks that the caches of 16 could hold them all there is nothing to compare.
static void *cached_create(uint32_t chunks, uint32_t bytes) {
    enum { CACHE = 64 };
    return chunks >= 16 * 2 * CACHE ? our_create(chunks, bytes, CACHE) : NULL;
}

static void ours_join(void *memory, int worker) {
    our_pool *pool = memory;
    if (worker > 0)
        pool->manager = open_instance(pool->name, ZCP_SHM_OPEN_EXISTING, NULL, 0);
}

static void ours_leave(void *memory, int worker) {
    our_pool *pool = memory;
    if (worker > 0)
        zcp_manager_close(pool->manager);
}

static void ours_destroy(void *memory) {
    our_pool *pool = memory;
    zcp_manager_close(pool->manager);
    MUST_OK(zcp_manager_destroy(pool->name));
    free(pool);
}

// All chunks are free by their records, and allocating everything gives each once, and no more than there are.
static void ours_check(void *memory) {
    const our_pool *pool = memory;
    zcp_pool_stats before, after;
    zcp_chunk *chunks = calloc(pool->chunks, sizeof *chunks), one_more;
    bool *seen = calloc(pool->chunks, sizeof *seen);
    MUST(chunks != NULL && seen != NULL);
    MUST_OK(zcp_manager_pool_stats(pool->manager, 0, &before));
    if (before.used != 0)
        die("zerocp, %s: %llu of %u chunks are used", pool->name, (unsigned long long)before.used, pool->chunks);
    for (uint32_t i = 0; i < pool->chunks; i++) {
        MUST_OK(zcp_chunk_allocate(pool->manager, pool->bytes, &chunks[i]));
        uint32_t index = chunks[i].index % ZCP_MAX_CHUNKS;
        if (index >= pool->chunks || seen[index])
            die("zerocp, %s: chunk %u was given out twice", pool->name, index);
        seen[index] = true;
    }
    if (zcp_chunk_allocate(pool->manager, pool->bytes, &one_more) != ZCP_ERR_EXHAUSTED)
        die("zerocp, %s: more chunks than there are", pool->name);
    for (uint32_t i = 0; i < pool->chunks; i++)
        zcp_chunk_release(&chunks[i]);
    MUST_OK(zcp_manager_pool_stats(pool->manager, 0, &after));
    if (after.used != 0)
        die("zerocp, %s: %llu of %u chunks did not come back", pool->name, (unsigned long long)after.used,
            pool->chunks);
    free(chunks);
    free(seen);
}

// ---------------------------------------------------------------------------------------------------------------------
// The steps of the loops. A token holds nothing: the sender keeps its handle until the receiver is done.

static uint32_t ours_bytes(void *pool) {
    return ((const our_pool *)pool)->bytes;
}

static inline void *ours_allocate(void *pool, zcp_chunk *chunk) {
    if (zcp_chunk_allocate(ours_manager(pool), ours_bytes(pool), chunk) != ZCP_OK)
        die("allocate: %s", zcp_last_message());
    return chunk->data;
}

static inline void ours_release(void *pool, zcp_chunk *chunk) {
    (void)pool;
    zcp_chunk_release(chunk);
}

static inline uint64_t ours_give(void *pool, const zcp_chunk *chunk) {
    (void)pool;
    return zcp_chunk_token(chunk);
}

static inline void ours_given(void *pool, zcp_chunk *chunk) {
    (void)pool;
    zcp_chunk_release(chunk);
}

static inline void *ours_take(void *pool, uint64_t message, zcp_chunk *chunk) {
    if (zcp_chunk_acquire(ours_manager(pool), message, chunk) != ZCP_OK)
        die("acquire: %s", zcp_last_message());
    return chunk->data;
}

static inline void ours_taken(void *pool, zcp_chunk *chunk) {
    (void)pool;
    zcp_chunk_release(chunk);
}

#define LOOP(x) ours_##x
#define LOOP_HANDS_OFF
#define handle zcp_chunk
#define ours_host host
#include "loops.h"

const contender ours = {
    "zerocp", "zerocp", ours_create, ours_join, ours_leave, ours_destroy, ours_check, LOOP_TABLE, true, true,
};
const contender ours_cached = {
    "zerocp-cached", "zerocp with cache_chunks = 64", cached_create, ours_join, ours_leave, ours_destroy, ours_check,
    LOOP_TABLE, true, true,
};
