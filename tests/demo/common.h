// common.h: what the demo's server and client agree on (the pools, and the list that travels between them), and how
// both report what goes wrong. The figures stand in the DEMO_ constants and are compared with what the library says.
#ifndef DEMO_COMMON_H
#define DEMO_COMMON_H

#include "zerocp.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEMO_NAME "zerocp_demo"

enum { DEMO_POOLS = 4, DEMO_CHUNKS = 3, DEMO_TEXT_BYTES = 4096 };

static const zcp_pool_config demo_pools[DEMO_POOLS] = {
    {.chunk_size = 256, .chunk_count = 100},
    {.chunk_size = 1024, .chunk_count = 50},
    {.chunk_size = 4096, .chunk_count = 20},
    {.chunk_size = 16384, .chunk_count = 10},
};

// What the server allocates, and the number of chunks that are then in use in each pool.
static const uint64_t demo_server_sizes[DEMO_CHUNKS] = {200, 800, 3000};
static const uint64_t demo_used_by_nobody[DEMO_POOLS] = {0, 0, 0, 0};
static const uint64_t demo_used_by_server[DEMO_POOLS] = {1, 1, 1, 0};

// ---------------------------------------------------------------------------------------------------------------------
// Reports. Both return false, so that `return fail(...)` ends a step.

__attribute__((format(printf, 1, 2))) static inline bool fail(const char *format, ...) {
    va_list arguments;
    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return false;
}

// For a zerocp call that has just failed on this thread: its status, and what only the moment knew.
static inline bool fail_status(const char *call, zcp_status status) {
    return fail("%s: %s: %s", call, zcp_status_name(status), zcp_last_message());
}

// ---------------------------------------------------------------------------------------------------------------------
// Time

static inline uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline void sleep_ms(unsigned milliseconds) {
    struct timespec rest = {.tv_sec = (time_t)(milliseconds / 1000), .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
}

// An option's argument: seconds, with decimals if need be.
static inline bool parse_seconds(const char *option, const char *text, double least, unsigned *milliseconds) {
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != 0 || !(seconds >= least && seconds <= 86400))
        return fail("--%s %s: a number of seconds from %g to 86400 is expected", option, text, least);
    *milliseconds = (unsigned)(seconds * 1000 + 0.5);
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// Pool states

// Reads the pools back from the library: is exactly that much in use?
static inline bool pools_have(const zcp_manager *manager, const uint64_t used[DEMO_POOLS]) {
    for (uint32_t i = 0; i < DEMO_POOLS; i++) {
        zcp_pool_stats stats;
        if (zcp_manager_pool_stats(manager, i, &stats) != ZCP_OK || stats.used != used[i] ||
            stats.free != stats.total - stats.used)
            return false;
    }
    return zcp_manager_pool_end(manager) == DEMO_POOLS;
}

// Prints the state as the library tells it. With `used`, checks each figure of what was printed; NULL: others are at
// work, and the figures change.
static inline bool show_state(const zcp_manager *manager, const char *title, const uint64_t *used) {
    char text[DEMO_TEXT_BYTES], expected[DEMO_TEXT_BYTES];
    zcp_manager_format(manager, text, sizeof text);                // zcp_manager_print(manager, stdout) prints the same
    printf("%s:\n%s", title, text);
    size_t length = 0;
    for (uint32_t i = 0; i < DEMO_POOLS && used != NULL; i++) {
        const zcp_pool_config *pool = &demo_pools[i];
        int more = snprintf(expected + length, sizeof expected - length,
                            "Pool %" PRIu32 ": chunk_size=%" PRIu64 ", total=%" PRIu32 ", used=%" PRIu64
                            ", free=%" PRIu64 "\n",
                            i, pool->chunk_size, pool->chunk_count, used[i], pool->chunk_count - used[i]);
        length += (size_t)more;
    }
    if (used != NULL && strcmp(text, expected) != 0)
        return fail(
            "the state above is not the expected one, which is:\n%s(does another client hold chunks of this instance?)",
            expected);
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// Chunks

static inline bool use_count_is(const zcp_chunk *chunk, const char *when, uint64_t expected) {
    uint64_t count = zcp_chunk_use_count(chunk);
    printf("Use count %s: %" PRIu64 "\n", when, count);
    return count == expected || fail("the use count is %" PRIu64 ", expected: %" PRIu64, count, expected);
}

// Allocates and says what was obtained: the smallest chunk that fits.
static inline bool allocate(zcp_manager *manager, uint64_t size, zcp_chunk *chunk) {
    zcp_status status = zcp_chunk_allocate(manager, size, chunk);
    if (status != ZCP_OK)
        return fail_status("zcp_chunk_allocate", status);
    uint64_t capacity = zcp_chunk_capacity(chunk), expected = 0;
    printf("Allocated %" PRIu64 " bytes: a chunk of %" PRIu64 " bytes\n", zcp_chunk_size(chunk), capacity);
    for (uint32_t i = 0; i < DEMO_POOLS && expected < size; i++)
        expected = demo_pools[i].chunk_size;
    return (zcp_chunk_size(chunk) == size && capacity == expected) ||
           fail("expected: %" PRIu64 " bytes in a chunk of %" PRIu64 " bytes", size, expected);
}

// ---------------------------------------------------------------------------------------------------------------------
// The list in the chunk that travels. Each process has the chunk at an address of its own, so the links are relative
// pointers. Only fixed-width integers and zcp_relptr lie in shared memory.

enum { LIST_NODES = 5 };

typedef struct list_node {
    zcp_relptr next;                                               // null: the last one
    int64_t value;
} list_node;

typedef struct list {
    zcp_relptr first;
    uint64_t count;
    list_node nodes[LIST_NODES];
} list;

// Builds 1, 2, 3, ... with the nodes linked against their order in memory.
static inline bool list_build(zcp_manager *manager, zcp_chunk *chunk) {
    const zcp_registry *registry = zcp_manager_registry(manager);
    list *built = zcp_chunk_data(chunk);
    if (built == NULL || zcp_chunk_size(chunk) < sizeof *built)
        return fail("the chunk for the list is not held, or too small");
    built->first = zcp_relptr_make(0, 0);
    built->count = LIST_NODES;
    for (int i = 0; i < LIST_NODES; i++) {
        built->nodes[i].value = LIST_NODES - i;
        built->nodes[i].next = built->first;
        built->first = zcp_relptr_of(registry, &built->nodes[i]);
    }
    return true;
}

// Follows the links, prints the values, checks that they are `unit` times 1, 2, 3, ..., and multiplies each by `factor`
// where it stands. What another process wrote is not trusted: a link that leads out of the segments comes back as NULL,
// and the length is bounded, in case the links form a ring.
static inline bool list_walk(zcp_manager *manager, zcp_chunk *chunk, int64_t unit, int64_t factor) {
    const zcp_registry *registry = zcp_manager_registry(manager);
    list *received = zcp_chunk_data(chunk);
    int64_t count = 0;
    bool as_expected = true;
    if (received == NULL || zcp_chunk_size(chunk) < sizeof *received)
        return fail("the chunk with the list is not held, or too small");
    printf("List of %" PRIu64 " nodes:", received->count);
    for (zcp_relptr link = received->first; !zcp_relptr_is_null(link) && count <= LIST_NODES; count++) {
        list_node *node = ZCP_RELPTR_GET(list_node, registry, link);
        if (node == NULL) {
            printf("\n");
            return fail("a link leads out of the shared memory: segment %u, offset %" PRIu64, zcp_relptr_segment(link),
                        zcp_relptr_offset(link));
        }
        printf(" %" PRId64, node->value);
        as_expected = as_expected && node->value == unit * (count + 1);
        if (as_expected)
            node->value *= factor;
        link = node->next;
    }
    printf("\n");
    return (as_expected && count == LIST_NODES && received->count == LIST_NODES) ||
           fail("the list is not the expected one: %d nodes, %" PRId64 " times 1, 2, 3, ...", LIST_NODES, unit);
}

#endif
