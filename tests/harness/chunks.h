// tests/harness/chunks.h: what the tests of chunks, deaths and threads share: clients, patterned payloads, exact
// counts.
#ifndef ZEROCP_TEST_CHUNKS_H
#define ZEROCP_TEST_CHUNKS_H

#include "inside.h"
#include "test.h"
#include "zerocp.h"

#include <string.h>

// The sanitizers are slower: fewer rounds then.
#if defined(TEST_TSAN)
#define ROUNDS(n) ((n) / 10 + 1)
#elif defined(TEST_ASAN)
#define ROUNDS(n) ((n) / 4 + 1)
#else
#define ROUNDS(n) (n)
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Clients

static inline zcp_config one_pool(uint64_t chunk_size, uint32_t chunk_count) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, chunk_size, chunk_count));
    return config;
}

static inline zcp_manager *create_named(const char *name, const zcp_config *config, uint32_t flags) {
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_CREATE_EXCLUSIVE,
                                                            .config = config, .flags = flags}));
    return manager;
}

static inline zcp_manager *attach_named(const char *name, uint32_t flags) {
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING,
                                                            .flags = flags}));
    return manager;
}

// The test's instance, of one pool.
static inline zcp_manager *create(uint64_t chunk_size, uint32_t chunk_count) {
    zcp_config config = one_pool(chunk_size, chunk_count);
    return create_named(test_instance(), &config, 0);
}

// One pool of 64 bytes, of which each thread may cache some chunks.
static inline zcp_config cached_pool(uint32_t chunk_count, uint32_t cache_chunks) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = chunk_count,
                                                        .cache_chunks = cache_chunks}));
    return config;
}

static inline zcp_manager *create_cached(uint32_t chunk_count, uint32_t cache_chunks) {
    zcp_config config = cached_pool(chunk_count, cache_chunks);
    return create_named(test_instance(), &config, 0);
}

static inline zcp_manager *attach(void) {
    return attach_named(test_instance(), 0);
}

// Nobody holds anything any more: checks the books and removes the test's instance.
static inline void finish(zcp_manager *manager) {
    zcp_manager_close(manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

static inline uint32_t slot_of(zcp_manager *manager) {
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    return info.slot;
}

static inline uint64_t used_in(zcp_manager *manager, uint32_t pool) {
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, pool, &stats));
    CHECK_EQ(stats.used + stats.free + stats.cached, stats.total);
    return stats.used;
}

static inline uint64_t used(zcp_manager *manager) {
    uint64_t sum = 0;
    for (uint32_t pool = 0; pool < zcp_manager_pool_end(manager); pool++)
        sum += used_in(manager, pool);
    return sum;
}

static inline zcp_recovery recover(zcp_manager *manager) {
    zcp_recovery report;
    CHECK_OK(zcp_manager_recover(manager, &report));
    return report;
}

// Recovers, and checks that exactly so many clients were dead and so many chunks came back by that.
#define CHECK_RECOVERS(manager, dead, chunks)                                                                          \
    do {                                                                                                               \
        zcp_recovery report_ = recover(manager);                                                                       \
        CHECK_EQ(report_.dead_clients, (dead));                                                                        \
        CHECK_EQ(report_.chunks_reclaimed, (chunks));                                                                  \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// Handles

static inline zcp_chunk allocate(zcp_manager *manager, uint64_t size) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(manager, size, &chunk));
    return chunk;
}

// The dead are looked for each 1 ms at most, or ten times what that took: asks again.
static inline zcp_chunk allocate_in_the_end(zcp_manager *manager, uint64_t size) {
    zcp_chunk chunk;
    zcp_status status = zcp_chunk_allocate(manager, size, &chunk);
    for (int i = 0; status == ZCP_ERR_EXHAUSTED && i < 2000; i++) {
        test_sleep(1);
        status = zcp_chunk_allocate(manager, size, &chunk);
    }
    CHECK_OK(status);
    return chunk;
}

static inline zcp_chunk acquire(zcp_manager *manager, uint64_t token) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_acquire(manager, token, &chunk));
    return chunk;
}

static inline uint64_t token_of(const zcp_chunk *chunk) {
    uint64_t token = zcp_chunk_token(chunk);
    CHECK(token != 0);
    return token;
}

static inline bool is_empty(const zcp_chunk *chunk) {
    return chunk->manager == NULL && chunk->data == NULL && chunk->index == 0 && chunk->generation == 0;
}

// What a call that fails has to overwrite.
static inline zcp_chunk scribbled(void) {
    zcp_chunk chunk;
    memset(&chunk, 0xa5, sizeof chunk);
    return chunk;
}

#define CHECK_ACQUIRE_FAILS(manager, token, expected)                                                                  \
    do {                                                                                                               \
        zcp_chunk chunk_ = scribbled();                                                                                \
        CHECK_STATUS(zcp_chunk_acquire((manager), (token), &chunk_), (expected));                                      \
        CHECK(is_empty(&chunk_));                                                                                      \
    } while (0)

#define CHECK_ALLOCATE_FAILS(manager, size, expected)                                                                  \
    do {                                                                                                               \
        zcp_chunk chunk_ = scribbled();                                                                                \
        CHECK_STATUS(zcp_chunk_allocate((manager), (size), &chunk_), (expected));                                      \
        CHECK(is_empty(&chunk_));                                                                                      \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// Payload: the pattern of a seed over the whole capacity, by plain writes and reads, so that TSan sees a chunk that was
// given out twice. Each word differs, so a chunk that is at the wrong place or half overwritten is seen, too.

static inline uint64_t pattern_word(uint64_t seed, uint64_t i) {
    uint64_t x = (seed + i) * 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

static inline void pattern_write(const zcp_chunk *chunk, uint64_t seed) {
    uint64_t *words = chunk->data, n = zcp_chunk_capacity(chunk) / sizeof *words;
    CHECK(n > 0);
    for (uint64_t i = 0; i < n; i++)
        words[i] = pattern_word(seed, i);
}

static inline void pattern_check(const zcp_chunk *chunk, uint64_t seed) {
    const uint64_t *words = zcp_chunk_data(chunk);
    uint64_t n = zcp_chunk_capacity(chunk) / sizeof *words;
    CHECK(words != NULL && words == chunk->data && n > 0);
    for (uint64_t i = 0; i < n; i++)
        CHECK_MSG(words[i] == pattern_word(seed, i), "word %llu of chunk %08x is not of seed %llx",
                  (unsigned long long)i, chunk->index, (unsigned long long)seed);
}

// Where the token's own value is its chunk's pattern, written by whoever allocated it, before anybody sees the token.
static inline void check_tokened(const zcp_chunk *chunk) {
    pattern_check(chunk, (uint64_t)chunk->generation << 32 | chunk->index);
}

// An allocated chunk whose payload tells its own token; `token` may be NULL.
static inline zcp_chunk allocate_with_pattern(zcp_manager *manager, uint64_t size, uint64_t *token) {
    zcp_chunk chunk = allocate(manager, size);
    uint64_t t = token_of(&chunk);
    pattern_write(&chunk, t);
    if (token != NULL)
        *token = t;
    return chunk;
}

#endif
