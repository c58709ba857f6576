// tests/number_test.c: a pool's number is a place in the header, which garbage may give to another pool at any moment.
// Whatever a thread keeps of the one is then not used for the other.
#define ZEROCP_STATIC
#define ZEROCP_IMPLEMENTATION
static void between_accesses(void);
#define ZEROCP_ACCESS() between_accesses()
#include "zerocp.h"

#include "harness/test.h"

enum { SMALL = 64, LARGE = 4096, COUNT = 64, TAG = 0xfeed };

static zcp_manager *manager;
static int accesses, at;                                           // the number changes before that access; 0: never
static bool came;

// Pool 0 has SMALL chunks, pool 1 LARGE ones.
static void begin(uint32_t cache_chunks) {
    zcp_config config = {0};
    zcp_pool_config small = {SMALL, COUNT, 0, cache_chunks}, large = {LARGE, COUNT, 0, cache_chunks};
    uint32_t number = UINT32_MAX;
    CHECK_EQ(zcp_config_add(&config, &small), ZCP_OK);
    CHECK_EQ(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}), ZCP_OK);
    CHECK_EQ(zcp_manager_add_pool(manager, &large, &number), ZCP_OK);
    CHECK_EQ(number, 1);
    // the thread gets a lease, and this becomes its recent pool
    for (int i = 0; i < 3; i++) {
        zcp_chunk chunk;
        CHECK_EQ(zcp_chunk_allocate(manager, SMALL, &chunk), ZCP_OK);
        zcp_chunk_release(&chunk);
    }
}

static void end(void) {
    zcp_manager_close(manager);
    CHECK_EQ(zcp_manager_destroy(test_instance()), ZCP_OK);
}

// A peer's garbage: number 0 is another pool's, with the chunks of pool 1. `wanted` is not raised.
static void give_the_number_away(void) {
    zcp_priv_pool_slot *from = &manager->header->pools[1], *to = &manager->header->pools[0];
    zcp_priv_added added;
    uint32_t serial = (uint32_t)(from->state >> 32);
    CHECK(zcp_priv_added_read(from, serial, &added));
    memcpy((void *)to, (void *)from, sizeof *to);
    to->check = zcp_priv_added_check(&added, serial + 7);
    to->state = zcp_priv_pool_state(serial + 7, ZCP_PRIV_POOL_LIVE);
    manager->header->signals.epoch++;
    CHECK_EQ(zcp_manager_pool_end(manager), 2);                  // a sibling looks: now the client knows
    CHECK_EQ(zcp_priv_view_pool(&manager->view, 0)->chunk_size, LARGE);
}

// A sibling and the peer, played by the same thread between two of its accesses.
static void between_accesses(void) {
    if (at == 0 || came || ++accesses != at)
        return;
    came = true;
    give_the_number_away();
}

TEST(number_of_another_pool_gives_no_chunk_of_the_first) {
    for (uint32_t cache = 0; cache <= 4; cache += 4) {
        begin(cache);
        give_the_number_away();
        for (int i = 0; i < 3; i++) {
            zcp_chunk chunk;
            CHECK_EQ(zcp_chunk_allocate(manager, LARGE, &chunk), ZCP_OK);
            const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, chunk.index >> ZCP_PRIV_POOL_SHIFT);
            size_t offset = (size_t)((unsigned char *)chunk.data - pool->data);
            CHECK_MSG(offset <= LARGE * (COUNT - 1), "%d bytes at %p, but its pool is at %p", LARGE, chunk.data,
                      (void *)pool->data);
            memset(chunk.data, i, LARGE);
            zcp_chunk_release(&chunk);
        }
        end();
    }
}

// Between any two accesses of an allocation: the tag is written to the record of the chunk that was allocated, or to
// none.
TEST(number_of_another_pool_gets_no_tag) {
    for (at = 1, came = true; came; at++) {
        zcp_chunk chunk;
        int before = at;
        at = 0;
        begin(0);
        came = false;
        accesses = 0;
        at = before;
        CHECK_EQ(zcp_chunk_allocate_tagged(manager, SMALL, TAG, &chunk), ZCP_OK);
        at = 0;
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, 1);
        for (uint32_t i = 0; i < COUNT; i++)
            CHECK_MSG(zcp_priv_record_at(pool, i)->note >> 32 != TAG,
                      "chunk %u of another pool has the tag; before access %d", i, before);
        end();
        at = before;
    }
}
