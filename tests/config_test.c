// tests/config_test.c: the vector, and the configuration of an instance.
#include "zerocp.h"
#include "harness/inside.h"
#include "harness/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// Vector

typedef struct point {
    int x, y;
} point;

typedef ZCP_VECTOR(point, 3) points;
typedef ZCP_VECTOR(uint8_t, 1) one_byte;

TEST(vector_is_pushed_to_up_to_its_capacity) {
    points v = {0};
    CHECK_EQ(ZCP_VECTOR_SIZE(&v), 0);
    CHECK_EQ(ZCP_VECTOR_CAPACITY(&v), 3);
    CHECK(ZCP_VECTOR_AT(&v, 0) == NULL);
    for (int i = 0; i < 3; i++) {
        CHECK(ZCP_VECTOR_PUSH(&v, (point){i, 10 * i}));
        CHECK_EQ(ZCP_VECTOR_SIZE(&v), i + 1);
        CHECK(ZCP_VECTOR_AT(&v, i) == &v.items[i]);
        CHECK(ZCP_VECTOR_AT(&v, i + 1) == NULL);
    }
    points before = v;
    CHECK(!ZCP_VECTOR_PUSH(&v, (point){7, 7}));
    CHECK(memcmp(&v, &before, sizeof v) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(ZCP_VECTOR_AT(&v, i)->x == i && ZCP_VECTOR_AT(&v, i)->y == 10 * i);
    ZCP_VECTOR_AT(&v, 1)->y = 4;
    CHECK_EQ(v.items[1].y, 4);
    ZCP_VECTOR_CLEAR(&v);
    CHECK_EQ(ZCP_VECTOR_SIZE(&v), 0);
    CHECK(ZCP_VECTOR_AT(&v, 0) == NULL);
    CHECK(ZCP_VECTOR_PUSH(&v, (point){1, 1}));
}

TEST(vector_at_out_of_range_is_null) {
    points v = {0};
    CHECK(ZCP_VECTOR_PUSH(&v, (point){1, 2}));
    uint64_t far[] = {1, 3, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX};                 // not cut to 32 bits
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++)
        CHECK(ZCP_VECTOR_AT(&v, far[i]) == NULL);
    for (int i = -3; i < 0; i++)
        CHECK(ZCP_VECTOR_AT(&v, i) == NULL);
}

TEST(vector_with_a_garbage_size_leads_nowhere_else) {
    points v = {0};
    v.size = UINT32_MAX;
    CHECK(!ZCP_VECTOR_PUSH(&v, (point){1, 2}));
    CHECK(ZCP_VECTOR_AT(&v, 2) == &v.items[2]);
    CHECK(ZCP_VECTOR_AT(&v, 3) == NULL);
    one_byte small = {0};
    CHECK(ZCP_VECTOR_PUSH(&small, 200) && !ZCP_VECTOR_PUSH(&small, 201));
    CHECK_EQ(*ZCP_VECTOR_AT(&small, 0), 200);
}

static void push_in_child(void *argument) {
    points *v = argument;
    CHECK(ZCP_VECTOR_PUSH(v, (point){5, 6}));
}

TEST(vector_may_lie_in_shared_memory) {
    points *v = test_shared(sizeof *v), copy;
    test_join(test_spawn(push_in_child, v));
    CHECK_EQ(ZCP_VECTOR_SIZE(v), 1);
    memcpy(&copy, v, sizeof copy);                                 // no pointer in it: a copy is as good
    CHECK(ZCP_VECTOR_AT(&copy, 0)->x == 5 && ZCP_VECTOR_AT(&copy, 0)->y == 6);
}

// ---------------------------------------------------------------------------------------------------------------------
// Adding pools

#define CHECK_NOT_ADDED(config, call, status)                                                                          \
    do {                                                                                                               \
        zcp_config before = (config);                                                                                  \
        CHECK_STATUS(call, status);                                                                                    \
        CHECK(zcp_last_message()[0] != 0);                                                                             \
        CHECK_EQ(zcp_last_errno(), 0);                                                                                 \
        CHECK(memcmp(&before, &(config), sizeof before) == 0);                                                         \
    } while (0)

TEST(config_takes_16_pools) {
    zcp_config config = {0};
    for (uint32_t i = 0; i < ZCP_MAX_POOLS; i++)
        CHECK_OK(zcp_config_add_pool(&config, 16 + i, 1));
    CHECK_EQ(config.pools.size, 16);
    CHECK_NOT_ADDED(config, zcp_config_add_pool(&config, 16, 1), ZCP_ERR_FULL);
    CHECK_NOT_ADDED(config, zcp_config_add_pool(&config, 0, 1), ZCP_ERR_INVALID_SIZE);
}

TEST(config_keeps_order_and_duplicates) {
    static const uint64_t sizes[] = {4096, 16, 256, 16, 1, 16, 4096};
    zcp_config config = {0};
    for (uint32_t i = 0; i < 7; i++)
        CHECK_OK(zcp_config_add_pool(&config, sizes[i], 3 + i));
    zcp_config before = config;
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    CHECK(memcmp(&config, &before, sizeof config) == 0);
    CHECK_EQ(zcp_manager_pool_end(manager), 7);
    for (uint32_t i = 0; i < 7; i++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(manager, i, &stats));
        CHECK_EQ(stats.chunk_size, sizes[i]);
        CHECK_EQ(stats.total, 3 + i);
        CHECK_EQ(stats.alignment, ZCP_DEFAULT_ALIGNMENT);
    }
    zcp_chunk chunks[18], none;
    for (int i = 0; i < 4 + 6 + 8; i++)                            // all three pools of that size serve, in their order
        CHECK_OK(zcp_chunk_allocate(manager, 16, &chunks[i]));
    CHECK_STATUS(zcp_chunk_allocate(manager, 16, &none), ZCP_ERR_EXHAUSTED);
    CHECK_EQ(inside_pool_of(&chunks[0]), 1);
    CHECK_EQ(inside_pool_of(&chunks[4]), 3);
    CHECK_EQ(inside_pool_of(&chunks[10]), 5);
    for (int i = 0; i < 18; i++)
        zcp_chunk_release(&chunks[i]);
    zcp_manager_close(manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(config_add_refuses) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 64, 10));
    CHECK_STATUS(zcp_config_add_pool(NULL, 64, 10), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_config_add(NULL, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 10, .alignment = 0}),
                 ZCP_ERR_INVALID_ARGUMENT);
    CHECK_NOT_ADDED(config, zcp_config_add(&config, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_NOT_ADDED(config, zcp_config_add_pool(&config, 0, 10), ZCP_ERR_INVALID_SIZE);
    CHECK_NOT_ADDED(config, zcp_config_add_pool(&config, 64, 0), ZCP_ERR_INVALID_SIZE);
    CHECK_NOT_ADDED(config, zcp_config_add_pool(&config, 64, ZCP_MAX_CHUNKS + 1), ZCP_ERR_INVALID_SIZE);
    CHECK_NOT_ADDED(config, zcp_config_add_pool(&config, 64, UINT32_MAX), ZCP_ERR_INVALID_SIZE);
    CHECK_NOT_ADDED(config, zcp_config_add(&config, &(zcp_pool_config){0}), ZCP_ERR_INVALID_SIZE);
    CHECK_OK(zcp_config_add_pool(&config, 1, ZCP_MAX_CHUNKS));
    CHECK_OK(zcp_config_add_pool(&config, 1, 1));
}

TEST(config_refuses_alignments_that_are_none) {
    static const uint32_t bad[] = {3, 5, 6, 7, 12, 24, 63, 65, 96, 4095, 4097, 0x80000001, UINT32_MAX};
    zcp_config config = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_NOT_ADDED(
            config,
            zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 1, .alignment = bad[i]}),
            ZCP_ERR_INVALID_ALIGNMENT);
    CHECK_NOT_ADDED(config,
                    zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 1,
                                                               .alignment = 2 * ZCP_MAX_ALIGNMENT}),
                    ZCP_ERR_INVALID_ALIGNMENT);
}

// Every chunk lies where it was promised, with all its bytes to itself.
static void check_alignment(uint32_t alignment, uint64_t size) {
    zcp_config config = {0};
    zcp_manager *manager;
    zcp_chunk chunks[6];
    zcp_pool_stats stats;
    uint32_t effective = alignment == 0 ? 64 : alignment;
    // the next begins after it
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 1, .chunk_count = 1, .alignment = 1}));
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = size, .chunk_count = 6, .alignment = alignment}));
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    CHECK_OK(zcp_manager_pool_stats(manager, 1, &stats));
    CHECK_EQ(stats.alignment, effective);
    CHECK_EQ(stats.stride, (size + effective - 1) / effective * effective);
    for (int i = 0; i < 6; i++) {
        CHECK_OK(zcp_chunk_allocate(manager, size, &chunks[i]));
        CHECK_EQ((uintptr_t)chunks[i].data % effective, 0);
        CHECK_EQ(zcp_chunk_capacity(&chunks[i]), size);
        memset(chunks[i].data, 'a' + i, (size_t)size);
    }
    for (int i = 0; i < 6; i++) {
        for (uint64_t k = 0; k < size; k++)
            CHECK(((char *)chunks[i].data)[k] == 'a' + i);
        zcp_chunk_release(&chunks[i]);
    }
    zcp_manager_close(manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(config_aligns_chunks_to_each_power_of_two) {
    static const uint64_t sizes[] = {1, 100, 128};
    uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        check_alignment(0, sizes[i]);
        for (uint32_t alignment = 1; alignment <= page; alignment *= 2)
            check_alignment(alignment, sizes[i]);
        check_alignment(2 * page, sizes[i]);
        check_alignment(64 * page, sizes[i]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Overflow. A configuration is plain data: what zcp_config_add refuses, somebody may have filled in by hand.

static void check_overflow(const zcp_pool_config *pools, uint32_t count) {
    zcp_config by_hand = {0}, added = {0};
    zcp_status status = ZCP_OK;
    for (uint32_t i = 0; i < count; i++) {
        CHECK(ZCP_VECTOR_PUSH(&by_hand.pools, pools[i]));
        if (status == ZCP_OK && (status = zcp_config_add(&added, &pools[i])) != ZCP_OK) {
            CHECK_STATUS(status, ZCP_ERR_OVERFLOW);
            CHECK_EQ(added.pools.size, i);
        }
    }
    CHECK_STATUS(status, ZCP_ERR_OVERFLOW);
    CHECK_EQ(zcp_config_chunk_bytes(&by_hand, 0), 0);
    CHECK_EQ(zcp_config_management_bytes(&by_hand, 0), 0);
    CHECK_EQ(zcp_config_total_bytes(&by_hand, 0), 0);
    for (int mode = 0; mode < 4; mode++) {
        zcp_manager *manager = (zcp_manager *)&by_hand;
        zcp_manager_desc desc = {.name = test_instance(), .mode = (zcp_shm_mode)mode, .config = &by_hand};
        CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_OVERFLOW);
        CHECK(manager == NULL);
        CHECK(zcp_last_message()[0] != 0);
    }
}

#define CHECK_OVERFLOW(...)                                                                                            \
    do {                                                                                                               \
        zcp_pool_config pools[] = {__VA_ARGS__};                                                                       \
        test_at(__FILE__, __LINE__);                                                                                   \
        check_overflow(pools, sizeof pools / sizeof pools[0]);                                                         \
    } while (0)

TEST(config_overflow_is_noticed_in_every_product_and_sum) {
    const uint64_t two_48 = UINT64_C(1) << 48;
    // size rounded up to the alignment
    CHECK_OVERFLOW({UINT64_MAX, 1, 0, 0});
    CHECK_OVERFLOW({UINT64_MAX - 62, 1, 0, 0});
    CHECK_OVERFLOW({UINT64_MAX - 4094, 1, 4096, 0});
    CHECK_OVERFLOW({UINT64_MAX, 1, 1, 0});
    // stride times count: to exactly 0, to little, to much
    CHECK_OVERFLOW({UINT64_C(1) << 59, 32, 0, 0});
    CHECK_OVERFLOW({UINT64_C(1) << 37, ZCP_MAX_CHUNKS, 0, 0});
    CHECK_OVERFLOW({(UINT64_C(1) << 37) + 64, ZCP_MAX_CHUNKS, 0, 0});
    CHECK_OVERFLOW({UINT64_C(0x5555555555555580), 3, 0, 0});
    CHECK_OVERFLOW({UINT64_MAX / 2, 2, 1, 0});
    // pool after pool, in a size that 64 bits do not hold
    CHECK_OVERFLOW({UINT64_C(1) << 63, 1, 0, 0}, {UINT64_C(1) << 63, 1, 0, 0});
    CHECK_OVERFLOW({UINT64_MAX - 127, 1, 64, 0}, {256, 1, 64, 0});
    CHECK_OVERFLOW({64, 1, 0, 0}, {UINT64_MAX - 127, 1, 64, 0});
    CHECK_OVERFLOW({UINT64_MAX - 63, 1, 1, 0}, {1, 1, 4096, 0});         // the next pool's beginning
    CHECK_OVERFLOW({UINT64_MAX - 63, 1, 64, 0});                      // the whole, rounded up to pages
    // more than an offset can tell
    CHECK_OVERFLOW({two_48 + 1, 1, 1, 0});
    CHECK_OVERFLOW({two_48 / 2, 1, 0, 0}, {two_48 / 2, 1, 0, 0}, {1, 1, 0, 0});
    CHECK_OVERFLOW({two_48 / ZCP_MAX_CHUNKS, ZCP_MAX_CHUNKS, 0, 0}, {1, 1, 0, 0});
}

TEST(config_goes_up_to_the_limit) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, UINT64_C(1) << 47, 1));
    CHECK_OK(zcp_config_add_pool(&config, UINT64_C(1) << 46, 1));
    CHECK_EQ(zcp_config_chunk_bytes(&config, 0), UINT64_C(3) << 46);
    CHECK_NOT_ADDED(config, zcp_config_add_pool(&config, (UINT64_C(1) << 46) + 1, 1), ZCP_ERR_OVERFLOW);
    memset(&config, 0, sizeof config);
    for (int i = 0; i < ZCP_MAX_POOLS; i++)                        // as many chunks as there can be at all
        CHECK_OK(zcp_config_add(&config,
                                &(zcp_pool_config){.chunk_size = 1, .chunk_count = ZCP_MAX_CHUNKS, .alignment = 1}));
    CHECK_EQ(zcp_config_chunk_bytes(&config, 0), (uint64_t)ZCP_MAX_CHUNKS * ZCP_MAX_POOLS);
    CHECK(zcp_config_management_bytes(&config, ZCP_MAX_CLIENTS) > zcp_config_management_bytes(&config, 1));
}

// ---------------------------------------------------------------------------------------------------------------------
// The size functions tell what lies in /dev/shm

static uint64_t file_bytes(const char *name_of_object) {
    struct stat status;
    char path[512];
    snprintf(path, sizeof path, "/dev/shm%s", name_of_object);
    CHECK_MSG(stat(path, &status) == 0, "%s", path);
    CHECK((uint64_t)status.st_blocks * 512 >= (uint64_t)status.st_size);               // and all of it is reserved
    return (uint64_t)status.st_size;
}

static void check_sizes(const zcp_config *config, uint32_t max_clients) {
    zcp_manager *manager;
    zcp_manager_info info;
    zcp_manager_desc desc = {.name = test_instance(), .config = config, .max_clients = max_clients};
    CHECK_OK(zcp_manager_open(&manager, &desc));
    CHECK_OK(zcp_manager_get_info(manager, &info));
    CHECK_EQ(info.max_clients, max_clients == 0 ? ZCP_DEFAULT_CLIENTS : max_clients);
    CHECK_EQ(info.management_bytes, zcp_config_management_bytes(config, max_clients));
    CHECK_EQ(info.chunk_bytes, zcp_config_chunk_bytes(config, max_clients));
    CHECK_EQ(info.management_bytes + info.chunk_bytes, zcp_config_total_bytes(config, max_clients));
    CHECK_EQ(file_bytes(info.management_name), info.management_bytes);
    CHECK_EQ(file_bytes(info.chunk_name), info.chunk_bytes);
    books_check_by(manager, 0);
    if (info.max_clients > 1) {
        books_check(test_instance(), 0);
    } else {
        zcp_manager *other = manager;
        CHECK_STATUS(zcp_manager_open(&other, &desc), ZCP_ERR_CLIENTS_FULL);
        CHECK(other == NULL);
    }
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(config_sizes_are_those_of_the_files) {
    static const uint32_t clients[] = {0, 1, 2, 63, 64, 65, 128, 129, 1023, 1024};
    zcp_config small = {0}, mixed = {0};
    CHECK_OK(zcp_config_add_pool(&small, 1, 1));
    CHECK_OK(zcp_config_add_pool(&mixed, 100, 130));
    CHECK_OK(zcp_config_add(&mixed, &(zcp_pool_config){.chunk_size = 5000, .chunk_count = 7, .alignment = 4096}));
    CHECK_OK(zcp_config_add(&mixed, &(zcp_pool_config){.chunk_size = 33, .chunk_count = 65, .alignment = 1}));
    for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++) {
        check_sizes(&small, clients[i]);
        check_sizes(&mixed, clients[i]);
    }
    CHECK_EQ(zcp_config_total_bytes(&mixed, 0), zcp_config_total_bytes(&mixed, 64));
    CHECK(zcp_config_management_bytes(&mixed, 129) > zcp_config_management_bytes(&mixed, 64));
    CHECK_EQ(zcp_config_chunk_bytes(&mixed, 1), zcp_config_chunk_bytes(&mixed, 1024));
}

TEST(config_sizes_of_what_cannot_be) {
    static const uint32_t clients[] = {1025, 65536, UINT32_MAX};
    zcp_config config = {0}, garbage;
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++) {
        CHECK_EQ(zcp_config_management_bytes(&config, clients[i]), 0);
        CHECK_EQ(zcp_config_chunk_bytes(&config, clients[i]), 0);
        CHECK_EQ(zcp_config_total_bytes(&config, clients[i]), 0);
        zcp_manager_desc desc = {.name = test_instance(), .config = &config, .max_clients = clients[i]};
        CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_INVALID_ARGUMENT);
        CHECK(manager == NULL);
    }
    CHECK_EQ(zcp_config_management_bytes(NULL, 0), 0);
    CHECK_EQ(zcp_config_chunk_bytes(NULL, 0), 0);
    CHECK_EQ(zcp_config_total_bytes(NULL, 0), 0);
    for (int i = 0; i < 3; i++) {                                  // a size beyond the items, and items that are none
        memset(&garbage, 0xff, sizeof garbage);
        garbage.pools.size = i == 0 ? 17 : i == 1 ? UINT32_MAX : 3;
        CHECK_EQ(zcp_config_total_bytes(&garbage, 0), 0);
        zcp_manager_desc desc = {.name = test_instance(), .config = &garbage};
        CHECK_STATUS(zcp_manager_open(&manager, &desc), i < 2 ? ZCP_ERR_INVALID_ARGUMENT : ZCP_ERR_INVALID_SIZE);
        CHECK_STATUS(zcp_config_add_pool(&garbage, 1, 1), i < 2 ? ZCP_ERR_FULL : ZCP_ERR_INVALID_SIZE);
    }
}

static long pages_mapped(void) {
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm != NULL && fscanf(statm, "%ld", &pages) == 1);
    fclose(statm);
    return pages;
}

// Beyond a page the mapping begins where the pool of the largest alignment needs it; in each client, also of a pool
// that is added, and nothing of the room for that is left mapped.
TEST(config_aligns_beyond_a_page) {
    enum { LARGE = 2 << 20 };
    zcp_config config = {0};
    zcp_manager *manager, *other;
    zcp_chunk chunk, seen, added, theirs;
    CHECK_OK(zcp_config_add_pool(&config, 100, 3));
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 5000, .chunk_count = 2, .alignment = LARGE}));
    zcp_manager_desc desc = {.name = test_instance(), .config = &config};
    CHECK_OK(zcp_manager_open(&manager, &desc));
    CHECK_OK(zcp_manager_open(&other, &desc));
    CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 9000, .chunk_count = 2,
                                                              .alignment = 2 * LARGE}, NULL));
    CHECK_OK(zcp_chunk_allocate(manager, 5000, &chunk));
    CHECK_OK(zcp_chunk_allocate(manager, 9000, &added));
    CHECK_OK(zcp_chunk_acquire(other, zcp_chunk_token(&chunk), &seen));
    CHECK_OK(zcp_chunk_acquire(other, zcp_chunk_token(&added), &theirs));
    CHECK_EQ((uintptr_t)chunk.data % LARGE, 0);
    CHECK_EQ((uintptr_t)seen.data % LARGE, 0);
    CHECK_EQ((uintptr_t)added.data % (2 * LARGE), 0);
    CHECK_EQ((uintptr_t)theirs.data % (2 * LARGE), 0);
    memset(chunk.data, 'c', 5000);
    memset(added.data, 'a', 9000);
    CHECK(((char *)seen.data)[4999] == 'c' && ((char *)theirs.data)[8999] == 'a');
    zcp_chunk_release(&chunk);
    zcp_chunk_release(&seen);
    zcp_chunk_release(&added);
    zcp_chunk_release(&theirs);
    zcp_manager_close(other);
    zcp_manager_close(manager);
    long before = pages_mapped();
    for (int round = 0; round < 50; round++) {
        CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance()}));
        zcp_manager_close(manager);
    }
    CHECK(pages_mapped() - before < 50 * (LARGE / sysconf(_SC_PAGESIZE)));
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}
