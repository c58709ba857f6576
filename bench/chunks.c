// bench/chunks.c: the curve over chunk counts, and what zerocp costs in pools of which few chunks are free, wherever
// they are. Each state is one of an instance of its own, made before the rounds; the loops leave it as it is.
#include "measure.h"
#include "ours.h"
#include "suites.h"

#include <stdio.h>
#include <stdlib.h>

enum { BYTES = 256, STATE_BYTES = 64, SMALL = 1000, LARGE = 1000000 };

static void add_counts(const contender *by, bool quick) {
    static const uint32_t counts[] = {128, 1000, 4096, 10000, 100000, 1000000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (quick && counts[i] != SMALL && counts[i] != LARGE)
            continue;
        point at = {.name = "count", .system = by->name, .by = by, .loop = by->pair, .chunks = counts[i],
                    .bytes = BYTES, .every = 2};
        if (!selected_at_all(at.name, at.system) || !(at.pool = pool_add(by, counts[i], BYTES)))
            continue;
        point_add(&at);
        at.kind = POINT_TWO;
        point_add(&at);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// States. held[i] is chunk i's handle where it is held.

typedef enum state { NEARLY_FULL, HALF_FULL, NEARLY_EMPTY, FRAGMENTED, STATES } state;
static const char *const state_names[STATES] = {"nearly-full", "half-full", "nearly-empty", "fragmented"};

typedef struct state_pool {
    zcp_manager *manager;
    const char *name;
    uint32_t chunks;
    zcp_chunk *held;
} state_pool;

// The list nearly full: 1 in 100 is held; half full: each second one, in blocks of 500; nearly empty: 16 at the end are
// free; fragmented: one free in each thousand.
static bool is_free(state which, uint32_t index, uint32_t chunks) {
    switch (which) {
    case NEARLY_FULL: return index % 100 != 0;
    case HALF_FULL: return index / 500 % 2 != 0;
    case NEARLY_EMPTY: return index + 16 >= chunks;
    default: return index % 1000 == 500;
    }
}

static void *state_create(state which, uint32_t chunks) {
    char word[32];
    zcp_config config = config_of(STATE_BYTES, chunks);
    state_pool *pool = malloc(sizeof *pool);
    MUST(pool != NULL);
    snprintf(word, sizeof word, "%s-%u", state_names[which], chunks);
    *pool = (state_pool){NULL, name_new(word), chunks, calloc(chunks, sizeof *pool->held)};
    MUST(pool->held != NULL);
    pool->manager = open_instance(pool->name, ZCP_SHM_CREATE_EXCLUSIVE, &config, 0);
    for (uint32_t i = 0; i < chunks; i++) {
        zcp_chunk chunk;
        MUST_OK(zcp_chunk_allocate(pool->manager, STATE_BYTES, &chunk));
        pool->held[chunk.index % ZCP_MAX_CHUNKS] = chunk;
    }
    for (uint32_t i = 0; i < chunks; i++)
        if (is_free(which, i, chunks))
            zcp_chunk_release(&pool->held[i]);
    return pool;
}

static void state_destroy(void *memory) {
    state_pool *pool = memory;
    zcp_pool_stats stats;
    for (uint32_t i = 0; i < pool->chunks; i++)
        zcp_chunk_release(&pool->held[i]);
    MUST_OK(zcp_manager_pool_stats(pool->manager, 0, &stats));
    if (stats.used != 0)
        die("zerocp, %s: %llu of %u chunks did not come back", pool->name, (unsigned long long)stats.used,
            pool->chunks);
    zcp_manager_close(pool->manager);
    MUST_OK(zcp_manager_destroy(pool->name));
    free(pool->held);
    free(pool);
}

static void *nearly_full_create(uint32_t chunks, uint32_t bytes) {
    return (void)bytes, state_create(NEARLY_FULL, chunks);
}

static void *half_full_create(uint32_t chunks, uint32_t bytes) { return (void)bytes, state_create(HALF_FULL, chunks); }
static void *nearly_empty_create(uint32_t chunks, uint32_t bytes) {
    return (void)bytes, state_create(NEARLY_EMPTY, chunks);
}

static void *fragmented_create(uint32_t chunks, uint32_t bytes) {
    return (void)bytes, state_create(FRAGMENTED, chunks);
}

static const contender state_contenders[STATES] = {
    {.name = "zerocp", .create = nearly_full_create, .destroy = state_destroy},
    {.name = "zerocp", .create = half_full_create, .destroy = state_destroy},
    {.name = "zerocp", .create = nearly_empty_create, .destroy = state_destroy},
    {.name = "zerocp", .create = fragmented_create, .destroy = state_destroy},
};

// How many a loop may hold at once: less than are free in the smaller pool of that state.
static uint32_t state_room(state which) {
    return which == FRAGMENTED ? 1 : which == NEARLY_EMPTY ? 16 : 32;
}

static void state_bursts(void *memory, uint64_t count, uint32_t length) {
    const state_pool *pool = memory;
    zcp_chunk chunks[256];
    for (uint64_t i = 0; i < count; i += length) {
        for (uint32_t j = 0; j < length; j++) {
            if (zcp_chunk_allocate(pool->manager, STATE_BYTES, &chunks[j]) != ZCP_OK)
                die("allocate: %s", zcp_last_message());
            write_lines(chunks[j].data, STATE_BYTES);
        }
        for (uint32_t j = 0; j < length; j++)
            zcp_chunk_release(&chunks[j]);
    }
}

static void state_pairs(void *pool, uint64_t count) { state_bursts(pool, count, 1); }
static void state_bursts_16(void *pool, uint64_t count) { state_bursts(pool, count, 16); }
static void state_bursts_32(void *pool, uint64_t count) { state_bursts(pool, count, 32); }
static void state_bursts_256(void *pool, uint64_t count) { state_bursts(pool, count, 256); }

static void add_state(state which, uint32_t chunks) {
    point at = {.name = "state_pair", .system = "zerocp", .state = state_names[which], .chunks = chunks,
                .bytes = STATE_BYTES, .loop = state_pairs, .every = 2};
    if (!selected_at_all("state_pair", "zerocp") && !selected_at_all("state_burst", "zerocp"))
        return;
    at.pool = pool_add(&state_contenders[which], chunks, STATE_BYTES);
    point_add(&at);
    at.name = "state_burst";
    at.loop = state_room(which) == 16 ? state_bursts_16 : state_bursts_32;
    if (state_room(which) > 1)
        point_add(&at);
    at.name = "state_burst256";                                    // each lies a thousand chunks from the next
    at.loop = state_bursts_256;
    if (which == FRAGMENTED && chunks == LARGE)
        point_add(&at);
}

void suite_chunks(const suite_options *options) {
    rmw_add();
    for (int i = 0; options->contenders[i]; i++)
        if (options->contenders[i]->pair && strcmp(options->contenders[i]->name, "malloc") != 0)
            add_counts(options->contenders[i], options->quick);
    for (int which = 0; which < STATES; which++) {
        add_state((state)which, SMALL);
        add_state((state)which, LARGE);
    }
    pools_check("before");
    if (cpus[1] >= 0)
        crew_start(1);
    rounds_run(options->rounds);
    crew_end();
    pools_check("after");
    suite_end();
}
