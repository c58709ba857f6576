// tests/sibling_test.c: one thread looks at its handle, and between any two of its accesses to memory a sibling
// acquires the same chunk and releases what it got. The first thread's handle then counts elsewhere (in `borrowed`, no
// longer in `owned`), but it is held all the time, and every look at it has to say so. Or the sibling has a clone, and
// makes the first token of it.
#define ZEROCP_STATIC
#define ZEROCP_IMPLEMENTATION
static void between_accesses(void);
#define ZEROCP_ACCESS() between_accesses()
#include "zerocp.h"

#include "harness/test.h"

static zcp_manager *manager;
static uint64_t token;
static int accesses, at;                                           // the sibling comes before that access; 0: never
static bool came;
static zcp_chunk twin, seen;                                       // the sibling's; a token is made of twin
static void (*acts)(void);                                         // what it does; NULL: as between_accesses

// The sibling, played by the same thread at a moment when it is between two accesses: the memory cannot tell.
static void between_accesses(void) {
    zcp_chunk chunk;
    if (at == 0 || came || ++accesses != at)
        return;
    came = true;
    if (acts != NULL)
        acts();
    else if (twin.manager != NULL) {
        CHECK_EQ(zcp_chunk_token(&twin), token);
        CHECK_EQ(zcp_chunk_acquire(manager, token, &seen), ZCP_OK);
        zcp_chunk_release(&twin);
    } else if (zcp_chunk_acquire(manager, token, &chunk) == ZCP_OK)
        zcp_chunk_release(&chunk);
}

typedef enum { IS_VALID, DATA, SIZE, CAPACITY, USE_COUNT, TOKEN, CLONE, OF_ADDRESS, RELEASE, LOOKS } look;

static bool sees_it(look what, zcp_chunk *chunk) {
    zcp_pool_stats stats;
    zcp_chunk copy;
    bool is_held = false;
    switch (what) {
    case IS_VALID: return zcp_chunk_is_valid(chunk);
    case DATA: return zcp_chunk_data(chunk) == chunk->data;
    case SIZE: return zcp_chunk_size(chunk) == 50;
    case CAPACITY: return zcp_chunk_capacity(chunk) == 64;
    case USE_COUNT: return zcp_chunk_use_count(chunk) >= 1;
    case TOKEN: return zcp_chunk_token(chunk) == token;
    case CLONE:
        copy = zcp_chunk_clone(chunk);
        is_held = copy.manager != NULL;
        zcp_chunk_release(&copy);
        return is_held;
    case OF_ADDRESS:
        is_held = zcp_chunk_of(manager, (char *)chunk->data + 49, &copy) == ZCP_OK
            && copy.data == chunk->data && copy.index == chunk->index && copy.generation == chunk->generation;
        zcp_chunk_release(&copy);
        return is_held;
    case RELEASE:
        zcp_chunk_release(chunk);
        return zcp_manager_pool_stats(manager, 0, &stats) == ZCP_OK && stats.used == 0;
    case LOOKS: break;
    }
    return false;
}

TEST(sibling_comes_between_any_two_accesses_of_a_look) {
    zcp_config config = {0};
    zcp_config_add_pool(&config, 64, 4);
    CHECK_EQ(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}), ZCP_OK);
    for (look what = IS_VALID; what < LOOKS; what++)
        for (int before = 1; before == 1 || came; before++) {
            zcp_chunk chunk;
            CHECK_EQ(zcp_chunk_allocate(manager, 50, &chunk), ZCP_OK);
            token = zcp_chunk_token(&chunk);
            came = false;
            accesses = 0;
            at = before;
            bool is_seen = sees_it(what, &chunk);
            at = 0;
            CHECK_MSG(is_seen, "look %d, the sibling came before access %d", (int)what, before);
            zcp_chunk_release(&chunk);
        }
    zcp_manager_close(manager);
    CHECK_EQ(zcp_manager_destroy(test_instance()), ZCP_OK);
}

// Two siblings make the first token of a chunk at once, and one of them acquires it: neither is lost.
TEST(sibling_makes_the_first_token_between_any_two_accesses) {
    zcp_config config = {0};
    zcp_pool_stats stats;
    zcp_config_add_pool(&config, 64, 4);
    CHECK_EQ(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}), ZCP_OK);
    for (int before = 1; before == 1 || came; before++) {
        zcp_chunk chunk;
        CHECK_EQ(zcp_chunk_allocate(manager, 50, &chunk), ZCP_OK);
        twin = zcp_chunk_clone(&chunk);
        seen = (zcp_chunk){0};
        token = (uint64_t)chunk.generation << 32 | chunk.index;
        came = false;
        accesses = 0;
        at = before;
        CHECK_EQ(zcp_chunk_token(&chunk), token);
        at = 0;
        zcp_chunk_release(&twin);
        zcp_chunk_release(&chunk);
        CHECK_MSG(zcp_chunk_is_valid(&seen) == came, "the sibling's chunk was freed; it came before access %d", before);
        zcp_chunk_release(&seen);
        CHECK_EQ(zcp_manager_pool_stats(manager, 0, &stats), ZCP_OK);
        CHECK_EQ(stats.used, 0);
    }
    zcp_manager_close(manager);
    CHECK_EQ(zcp_manager_destroy(test_instance()), ZCP_OK);
}

// The sibling may hold the chunk, let go of it and hold another use of it, while a thread that holds nothing asks for a
// handle of an address in it. It gets one of some use that is held, or none; and no count is left behind.
static zcp_manager *owner;
static zcp_chunk owned, sibling;

static void sibling_takes_the_next_use(void) {
    zcp_chunk_release(&sibling);
    zcp_chunk_release(&owned);
    if (zcp_chunk_allocate(owner, 50, &owned) != ZCP_OK)           // the new handle holds it already
        return;
    token = zcp_chunk_token(&owned);
    CHECK_EQ(zcp_chunk_acquire(manager, token, &sibling), ZCP_OK);
}

TEST(sibling_comes_while_a_handle_is_made_of_an_address) {
    zcp_config config = {0};
    zcp_config_add_pool(&config, 64, 1);
    zcp_manager_desc desc = {.name = test_instance(), .config = &config};
    CHECK_EQ(zcp_manager_open(&manager, &desc), ZCP_OK);
    CHECK_EQ(zcp_manager_open(&owner, &desc), ZCP_OK);
    for (int before = 1; before == 1 || came; before++) {
        zcp_pool_stats stats;
        zcp_chunk chunk;
        CHECK_EQ(zcp_chunk_allocate(owner, 50, &owned), ZCP_OK);
        token = zcp_chunk_token(&owned);
        CHECK_EQ(zcp_chunk_acquire(manager, token, &sibling), ZCP_OK);
        const void *address = sibling.data;
        came = false;
        accesses = 0;
        acts = sibling_takes_the_next_use;
        at = before;
        zcp_status status = zcp_chunk_of(manager, address, &chunk);
        at = 0;
        acts = NULL;
        CHECK(status == ZCP_OK || status == ZCP_ERR_STALE);
        CHECK_EQ(zcp_chunk_is_valid(&chunk), status == ZCP_OK);
        zcp_chunk_release(&sibling);
        zcp_chunk_release(&owned);
        CHECK_EQ(zcp_chunk_is_valid(&chunk), status == ZCP_OK);
        zcp_chunk_release(&chunk);
        CHECK_EQ(zcp_manager_pool_stats(manager, 0, &stats), ZCP_OK);
        CHECK_MSG(stats.used == 0, "a count is left; the sibling came before access %d", before);
    }
    zcp_manager_close(owner);
    zcp_manager_close(manager);
    CHECK_EQ(zcp_manager_destroy(test_instance()), ZCP_OK);
}
