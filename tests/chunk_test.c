// tests/chunk_test.c: allocation, handles and tokens: what each call does, and what it refuses.
#include "harness/chunks.h"

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

enum { MANY = 64 };

// ---------------------------------------------------------------------------------------------------------------------
// Statuses

TEST(chunk_allocate_tells_why_not) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 512, 2));
    CHECK_OK(zcp_config_add_pool(&config, 128, 1));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    CHECK_ALLOCATE_FAILS(NULL, 1, ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_chunk_allocate(manager, 1, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_ALLOCATE_FAILS(manager, 0, ZCP_ERR_INVALID_SIZE);
    CHECK_ALLOCATE_FAILS(manager, 513, ZCP_ERR_TOO_LARGE);
    CHECK_HAS(zcp_last_message(), "513");
    CHECK_HAS(zcp_last_message(), "512");
    CHECK_ALLOCATE_FAILS(manager, UINT64_MAX, ZCP_ERR_TOO_LARGE);
    zcp_chunk chunk = allocate(manager, 128);
    CHECK_ALLOCATE_FAILS(manager, 1, ZCP_ERR_EXHAUSTED);
    CHECK_HAS(zcp_last_message(), "128");
    CHECK_EQ(used(manager), 1);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    CHECK_ALLOCATE_FAILS(manager, 1, ZCP_ERR_CLOSED);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(chunk_read_only_client_acquires_and_cannot_allocate) {
    zcp_manager *manager = create(256, 4), *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA);
    uint64_t token;
    zcp_chunk chunk = allocate_with_pattern(manager, 200, &token);
    CHECK_ALLOCATE_FAILS(reader, 1, ZCP_ERR_READ_ONLY);
    CHECK_ALLOCATE_FAILS(reader, 0, ZCP_ERR_READ_ONLY);
    zcp_chunk seen = acquire(reader, token), again = zcp_chunk_clone(&seen);
    pattern_check(&seen, token);
    CHECK_EQ(zcp_chunk_size(&seen), 200);
    CHECK_EQ(zcp_chunk_token(&again), token);
    zcp_chunk_release(&chunk);
    pattern_check(&again, token);
    zcp_chunk_release(&seen);
    CHECK_EQ(used(manager), 1);
    zcp_chunk_release(&again);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(reader);
    finish(manager);
}

TEST(chunk_acquire_tells_why_not) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 64, 3));
    CHECK_OK(zcp_config_add_pool(&config, 128, 5));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_chunk chunk = allocate(manager, 128);
    uint64_t token = token_of(&chunk), generation = token >> 32 << 32;
    CHECK_EQ(inside_pool_of(&chunk), 1);
    CHECK_ACQUIRE_FAILS(NULL, token, ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_chunk_acquire(manager, token, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_ACQUIRE_FAILS(manager, 0, ZCP_ERR_INVALID_TOKEN);
    CHECK_ACQUIRE_FAILS(manager, UINT64_MAX, ZCP_ERR_INVALID_TOKEN);
    CHECK_ACQUIRE_FAILS(manager, (uint32_t)token, ZCP_ERR_INVALID_TOKEN);                       // generation 0
    CHECK_ACQUIRE_FAILS(manager, generation | 3, ZCP_ERR_INVALID_TOKEN);                        // pool 0 has 0 .. 2
    CHECK_ACQUIRE_FAILS(manager, generation | 1u << 27 | 5, ZCP_ERR_INVALID_TOKEN);             // pool 1 has 0 .. 4
    CHECK_ACQUIRE_FAILS(manager, generation | 2u << 27, ZCP_ERR_INVALID_TOKEN);                 // there is no pool 2
    CHECK_ACQUIRE_FAILS(manager, generation | 31u << 27, ZCP_ERR_INVALID_TOKEN);
    CHECK_ACQUIRE_FAILS(manager, token + (UINT64_C(1) << 32), ZCP_ERR_STALE);
    CHECK_ACQUIRE_FAILS(manager, token - (UINT64_C(1) << 32), ZCP_ERR_STALE);
    for (uint32_t i = 0; i < 3; i++)                               // made up: the right generation of a free chunk
        CHECK_ACQUIRE_FAILS(manager, inside_state_word(manager, 0, i) >> 32 << 32 | i, ZCP_ERR_STALE);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
    zcp_chunk same = acquire(manager, token);
    CHECK(same.data == chunk.data && same.index == chunk.index && same.generation == chunk.generation);
    CHECK(same.manager == manager);
    zcp_chunk_release(&same);
    zcp_chunk_release(&chunk);
    CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_STALE);
    zcp_manager_close(manager);
    CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_CLOSED);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

static void check_holds_nothing(zcp_chunk chunk) {
    zcp_chunk copy = chunk, cloned = zcp_chunk_clone(&chunk);
    CHECK(!zcp_chunk_is_valid(&chunk));
    CHECK(zcp_chunk_data(&chunk) == NULL);
    CHECK_EQ(zcp_chunk_size(&chunk), 0);
    CHECK_EQ(zcp_chunk_capacity(&chunk), 0);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 0);
    CHECK_EQ(zcp_chunk_token(&chunk), 0);
    CHECK(is_empty(&cloned));
    zcp_chunk_release(&copy);
    CHECK(is_empty(&copy));
}

TEST(chunk_empty_and_made_up_handles_hold_nothing) {
    zcp_manager *manager = create(64, 3);
    zcp_chunk held = allocate(manager, 64), moved = zcp_chunk_move(NULL);
    CHECK(is_empty(&moved));
    moved = zcp_chunk_clone(NULL);
    CHECK(is_empty(&moved));
    zcp_chunk_release(NULL);
    CHECK(!zcp_chunk_is_valid(NULL) && zcp_chunk_data(NULL) == NULL && zcp_chunk_token(NULL) == 0);
    CHECK(zcp_chunk_size(NULL) == 0 && zcp_chunk_capacity(NULL) == 0 && zcp_chunk_use_count(NULL) == 0);
    uint32_t other = (held.index + 1) % 3, state = (uint32_t)(inside_state_word(manager, 0, other) >> 32);
    check_holds_nothing((zcp_chunk){0});
    check_holds_nothing((zcp_chunk){.manager = manager});
    check_holds_nothing((zcp_chunk){NULL, held.data, held.index, held.generation});
    check_holds_nothing((zcp_chunk){manager, held.data, held.index, 0});
    check_holds_nothing((zcp_chunk){manager, held.data, held.index, held.generation + 1});
    check_holds_nothing((zcp_chunk){manager, held.data, held.index, held.generation - 1});
    check_holds_nothing((zcp_chunk){manager, held.data, 3, held.generation});
    check_holds_nothing((zcp_chunk){manager, held.data, 1u << 27, held.generation});
    check_holds_nothing((zcp_chunk){manager, held.data, UINT32_MAX, held.generation});
    check_holds_nothing((zcp_chunk){manager, held.data, other, state});       // a free one, rightly named
    CHECK_EQ(zcp_chunk_use_count(&held), 1);
    CHECK_EQ(used(manager), 1);
    zcp_chunk_release(&held);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Which pool serves

static void check_smallest_fit(const uint64_t sizes[4]) {
    static const uint64_t asked[] = {1, 63, 64, 65, 100, 128, 129, 200, 256, 257, 1000, 1024};
    static const uint64_t served[] = {64, 64, 64, 128, 128, 128, 256, 256, 256, 1024, 1024, 1024};
    zcp_config config = {0};
    for (int i = 0; i < 4; i++)
        CHECK_OK(zcp_config_add_pool(&config, sizes[i], 2));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        zcp_chunk chunk = allocate(manager, asked[i]);
        CHECK_EQ(zcp_chunk_capacity(&chunk), served[i]);
        CHECK_EQ(zcp_chunk_size(&chunk), asked[i]);
        CHECK_EQ(sizes[inside_pool_of(&chunk)], served[i]);
        CHECK_EQ(used_in(manager, inside_pool_of(&chunk)), 1);
        CHECK_EQ(used(manager), 1);
        zcp_chunk_release(&chunk);
    }
    CHECK_ALLOCATE_FAILS(manager, 1025, ZCP_ERR_TOO_LARGE);
    for (int i = 0; i < 4; i++) {                                  // full: larger pools do not serve unasked
        zcp_chunk a = allocate(manager, sizes[i]), b = allocate(manager, sizes[i]);
        CHECK_ALLOCATE_FAILS(manager, sizes[i], ZCP_ERR_EXHAUSTED);
        zcp_chunk_release(&a);
        zcp_chunk_release(&b);
    }
    finish(manager);
}

TEST(chunk_smallest_fit_in_any_order_of_configuration) {
    static const uint64_t sizes[] = {64, 128, 256, 1024};
    for (int order = 0; order < 256; order++) {
        int at[4] = {order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6};
        if ((1 << at[0] | 1 << at[1] | 1 << at[2] | 1 << at[3]) == 15)
            check_smallest_fit((uint64_t[]){sizes[at[0]], sizes[at[1]], sizes[at[2]], sizes[at[3]]});
    }
}

TEST(chunk_pools_of_one_size_serve_together) {
    static const uint32_t expected[] = {0, 0, 2, 4, 4, 4};
    zcp_config config = {0};
    zcp_chunk chunks[6];
    CHECK_OK(zcp_config_add_pool(&config, 128, 2));
    CHECK_OK(zcp_config_add_pool(&config, 64, 1));
    CHECK_OK(zcp_config_add_pool(&config, 128, 1));
    CHECK_OK(zcp_config_add_pool(&config, 256, 1));
    CHECK_OK(zcp_config_add_pool(&config, 128, 3));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    for (int i = 0; i < 6; i++) {                                  // in the order of the configuration
        chunks[i] = allocate(manager, 65);
        CHECK_EQ(inside_pool_of(&chunks[i]), expected[i]);
        CHECK_EQ(zcp_chunk_capacity(&chunks[i]), 128);
        pattern_write(&chunks[i], (uint64_t)i);
    }
    CHECK_ALLOCATE_FAILS(manager, 65, ZCP_ERR_EXHAUSTED);
    CHECK_EQ(used_in(manager, 1) + used_in(manager, 3), 0);
    for (int i = 0; i < 6; i++) {
        pattern_check(&chunks[i], (uint64_t)i);
        zcp_chunk_release(&chunks[i]);
    }
    finish(manager);
}

TEST(chunk_fallback_serves_from_larger_pools_only_if_asked) {
    static const uint64_t expected[] = {64, 128, 128, 256};
    zcp_config config = {0};
    zcp_chunk chunks[4];
    CHECK_OK(zcp_config_add_pool(&config, 256, 1));
    CHECK_OK(zcp_config_add_pool(&config, 32, 1));
    CHECK_OK(zcp_config_add_pool(&config, 64, 1));
    CHECK_OK(zcp_config_add_pool(&config, 128, 2));
    zcp_manager *strict = create_named(test_instance(), &config, 0);
    zcp_manager *manager = attach_named(test_instance(), ZCP_FALLBACK);
    for (int i = 0; i < 4; i++) {
        chunks[i] = allocate(manager, 50);
        CHECK_EQ(zcp_chunk_capacity(&chunks[i]), expected[i]);
        CHECK_EQ(zcp_chunk_size(&chunks[i]), 50);
        CHECK_ALLOCATE_FAILS(strict, 50, ZCP_ERR_EXHAUSTED);
    }
    CHECK_ALLOCATE_FAILS(manager, 50, ZCP_ERR_EXHAUSTED);          // a smaller one never serves
    CHECK_EQ(used_in(manager, 1), 0);
    CHECK_ALLOCATE_FAILS(manager, 257, ZCP_ERR_TOO_LARGE);
    zcp_chunk_release(&chunks[2]);                                 // one of 128: no longer exhausted
    chunks[2] = allocate_in_the_end(manager, 64);
    CHECK_EQ(zcp_chunk_capacity(&chunks[2]), 128);
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    zcp_chunk best = allocate(manager, 50);                        // and the best fit goes first again
    CHECK_EQ(zcp_chunk_capacity(&best), 64);
    zcp_chunk_release(&best);
    zcp_manager_close(strict);
    finish(manager);
}

TEST(chunk_payloads_are_aligned_disjoint_and_inside) {
    zcp_config config = {0};
    zcp_chunk chunks[12];
    zcp_manager_info info;
    static const zcp_pool_config pools[] = {{24, 4, 8, 0}, {100, 4, 0, 0}, {5000, 4, 4096, 0}};
    for (int i = 0; i < 3; i++)
        CHECK_OK(zcp_config_add(&config, &pools[i]));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    CHECK_OK(zcp_manager_get_info(manager, &info));
    for (int i = 0; i < 12; i++) {
        chunks[i] = allocate(manager, pools[i / 4].chunk_size);
        uint32_t alignment = pools[i / 4].alignment == 0 ? 64 : pools[i / 4].alignment;
        uintptr_t from_base = (uintptr_t)chunks[i].data - (uintptr_t)info.chunk_base;
        CHECK_EQ((uintptr_t)chunks[i].data % alignment, 0);
        CHECK(from_base + zcp_chunk_capacity(&chunks[i]) <= info.chunk_bytes);
        CHECK_EQ(zcp_chunk_capacity(&chunks[i]), pools[i / 4].chunk_size);
        memset(chunks[i].data, i, (size_t)pools[i / 4].chunk_size);
    }
    for (int i = 0; i < 12; i++) {
        for (uint64_t b = 0; b < zcp_chunk_capacity(&chunks[i]); b++)
            CHECK_EQ(((unsigned char *)chunks[i].data)[b], i);
        zcp_chunk_release(&chunks[i]);
    }
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles in one process

TEST(chunk_clone_counts_and_copies_of_copies_outlive_the_first) {
    zcp_manager *manager = create(256, 2);
    zcp_chunk handles[MANY];
    handles[0] = allocate(manager, 100);
    pattern_write(&handles[0], 7);
    for (int i = 1; i < MANY; i++) {                               // each a clone of any of the earlier ones
        handles[i] = zcp_chunk_clone(&handles[test_random_below((uint64_t)i)]);
        CHECK(zcp_chunk_is_valid(&handles[i]) && handles[i].data == handles[0].data);
        CHECK_EQ(zcp_chunk_use_count(&handles[0]), i + 1);
    }
    for (int left = MANY; left > 1; left--) {                      // in any order
        int i = (int)test_random_below((uint64_t)left);
        zcp_chunk_release(&handles[i]);
        CHECK(is_empty(&handles[i]));
        handles[i] = zcp_chunk_move(&handles[left - 1]);
        CHECK_EQ(zcp_chunk_use_count(&handles[0]), left - 1);
        CHECK_EQ(used(manager), 1);
        pattern_check(&handles[0], 7);
    }
    zcp_chunk_release(&handles[0]);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

TEST(chunk_move_empties_its_source) {
    zcp_manager *manager = create(256, 1);
    zcp_chunk a = allocate(manager, 100), before = a, b = zcp_chunk_move(&a);
    CHECK(is_empty(&a));
    CHECK(memcmp(&b, &before, sizeof b) == 0);
    CHECK_EQ(zcp_chunk_use_count(&b), 1);
    zcp_chunk_release(&a);
    CHECK_EQ(used(manager), 1);
    a = zcp_chunk_move(&a);
    CHECK(is_empty(&a));
    zcp_chunk_release(&b);
    zcp_chunk_release(&b);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

static int leave_early(zcp_manager *manager, int where) {
    ZCP_SCOPED zcp_chunk never = {0};
    ZCP_SCOPED zcp_chunk first = allocate(manager, 10);
    if (where == 0)
        return (int)used(manager);
    for (int i = 0; i < 3; i++) {
        ZCP_SCOPED zcp_chunk second = zcp_chunk_clone(&first), third = allocate(manager, 10);
        CHECK_EQ(zcp_chunk_use_count(&second), 2);
        if (where == 1)
            continue;
        if (where == 2)
            break;
        zcp_chunk_release(&third);
        CHECK_EQ(used(manager), 1);
    }
    CHECK_EQ(zcp_chunk_use_count(&first), 1);
    CHECK(is_empty(&never));
    return (int)used(manager);
}

TEST(chunk_scoped_handles_are_released_on_every_way_out) {
    zcp_manager *manager = create(64, 2);
    for (int where = 0; where < 4; where++) {
        CHECK_EQ(leave_early(manager, where), 1);
        CHECK_EQ(used(manager), 0);
    }
    finish(manager);
}

TEST(chunk_owner_that_borrows_its_own_counts_each_handle) {
    zcp_manager *manager = create(256, 2);
    uint64_t token;
    zcp_chunk owned = allocate_with_pattern(manager, 256, &token), borrowed = acquire(manager, token);
    CHECK_EQ(zcp_chunk_use_count(&owned), 2);
    zcp_chunk second = acquire(manager, token), cloned = zcp_chunk_clone(&borrowed);
    CHECK_EQ(zcp_chunk_use_count(&borrowed), 4);
    zcp_chunk_release(&owned);
    zcp_chunk_release(&second);
    CHECK_EQ(zcp_chunk_use_count(&cloned), 2);
    pattern_check(&cloned, token);
    CHECK_EQ(zcp_chunk_token(&borrowed), token);
    second = acquire(manager, token);
    zcp_chunk_release(&borrowed);
    zcp_chunk_release(&cloned);
    CHECK_EQ(used(manager), 1);
    pattern_check(&second, token);
    zcp_chunk_release(&second);
    CHECK_EQ(used(manager), 0);
    CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_STALE);
    finish(manager);
}

static void check_refused_after_release(zcp_manager *manager, zcp_chunk *chunk) {
    zcp_chunk copy = *chunk;
    zcp_chunk_release(chunk);
    check_holds_nothing(copy);
    zcp_chunk next[2] = {allocate_in_the_end(manager, 64), allocate_in_the_end(manager, 64)};
    check_holds_nothing(copy);                                     // one of the two is the chunk of the copy
    CHECK(next[0].index == copy.index || next[1].index == copy.index);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(zcp_chunk_use_count(&next[i]), 1);
        zcp_chunk_release(&next[i]);
    }
    CHECK_EQ(used(manager), 0);
}

TEST(chunk_released_handles_are_refused) {
    for (uint32_t flags = 0; flags <= ZCP_CHECKED; flags += ZCP_CHECKED) {
        zcp_config config = one_pool(64, 2);
        zcp_manager *manager = create_named(test_instance(), &config, flags), *peer = attach();
        zcp_chunk chunk = allocate(manager, 64);                   // released as one that was never shared
        check_refused_after_release(manager, &chunk);
        chunk = allocate(manager, 64);
        (void)token_of(&chunk);                                    // ... as one of which a token was made
        check_refused_after_release(manager, &chunk);
        chunk = allocate(manager, 64);
        zcp_chunk other = acquire(peer, token_of(&chunk)), copy = other;
        zcp_chunk_release(&other);                                 // ... as a borrower, while the owner stays
        check_holds_nothing(copy);
        CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
        other = acquire(peer, token_of(&chunk));                   // ... as an owner, while the borrower stays
        copy = chunk;
        zcp_chunk_release(&chunk);
        check_holds_nothing(copy);
        CHECK_EQ(zcp_chunk_use_count(&other), 1);
        check_refused_after_release(peer, &other);                 // ... as the last borrower
        zcp_manager_close(peer);
        finish(manager);
    }
}

// The same chunk again, now borrowed from another client: the copy is of an older life, and takes nothing from it.
TEST(chunk_released_handles_are_refused_beside_a_borrowed_next_life) {
    zcp_manager *manager = create(64, 1), *peer = attach();
    zcp_chunk old = allocate(peer, 64), copy = old;
    zcp_chunk_release(&old);
    zcp_chunk chunk = allocate_in_the_end(manager, 64), seen = acquire(peer, token_of(&chunk));
    CHECK_EQ(chunk.index, copy.index);
    check_holds_nothing(copy);
    CHECK(zcp_chunk_is_valid(&seen));
    CHECK_EQ(zcp_chunk_use_count(&chunk), 2);
    zcp_chunk_release(&chunk);
    check_holds_nothing(copy);
    CHECK_EQ(zcp_chunk_use_count(&seen), 1);
    zcp_chunk_release(&seen);
    zcp_manager_close(peer);
    finish(manager);
}

// A token that nobody made leads nowhere, though the numbers in it are right: the owner counts on being alone. Once it
// was made it leads to the chunk.
TEST(chunk_tokens_that_nobody_made_are_refused) {
    for (uint32_t flags = 0; flags <= ZCP_CHECKED; flags += ZCP_CHECKED) {
        zcp_config config = one_pool(64, 1);
        zcp_manager *manager = create_named(test_instance(), &config, flags), *peer = attach();
        for (int clones = 0; clones < 2; clones++) {
            zcp_chunk chunk = allocate(manager, 64), clone = {0};
            uint64_t guess = (uint64_t)chunk.generation << 32 | chunk.index;
            if (clones)
                clone = zcp_chunk_clone(&chunk);
            CHECK_ACQUIRE_FAILS(peer, guess, ZCP_ERR_STALE);
            CHECK(strstr(zcp_last_message(), "its owner has made no token") != NULL);
            CHECK_ACQUIRE_FAILS(manager, guess, ZCP_ERR_STALE);
            CHECK_EQ(inside_state_word(manager, 0, 0) & 0x1fffff, 0);
            CHECK_EQ(inside_borrow_word(manager, 0, 0, 0), 0);
            for (int i = 0; i < 2; i++) {                          // only the first one changes something
                CHECK_EQ(token_of(clones ? &clone : &chunk), guess);
                CHECK_EQ(inside_state_word(manager, 0, 0) & 0x1fffff, 1);
            }
            zcp_chunk seen = acquire(peer, guess);
            uint64_t shared = inside_state_word(manager, 0, 0);
            CHECK_EQ(token_of(&seen), guess);                      // a borrower's: as good
            CHECK_EQ(inside_state_word(manager, 0, 0), shared);
            zcp_chunk_release(&chunk);
            zcp_chunk_release(&clone);
            CHECK_EQ(used(manager), 1);
            zcp_chunk_release(&seen);
            CHECK_EQ(used(manager), 0);
        }
        zcp_manager_close(peer);
        finish(manager);
    }
}

// The owner of a chunk that has no token stands in its release, between its last look and the store that frees:
// nothing that a peer can know of the chunk leads it there, the census included.
static struct {
    zcp_manager *peer;
    uint64_t guess;
    uint32_t calls, entries;
} intruder;

static bool acquire_of_census(const zcp_census_entry *entry, void *unused) {
    zcp_chunk chunk;
    (void)unused;
    CHECK_EQ(entry->token, 0);
    CHECK(zcp_chunk_acquire(intruder.peer, entry->token, &chunk) == ZCP_ERR_INVALID_TOKEN);
    intruder.entries++;
    return true;
}

static void intrude(void) {
    intruder.calls++;
    CHECK_OK(zcp_manager_census(intruder.peer, acquire_of_census, NULL));
    CHECK_ACQUIRE_FAILS(intruder.peer, intruder.guess, ZCP_ERR_STALE);
}

TEST(chunk_being_released_is_not_acquired_by_a_token_that_nobody_made) {
    enum { CHUNKS = 40 };                                          // of several leaves: to the loan, and to the list
    for (uint32_t cache = 0; cache <= 4; cache += 4) {
        zcp_config config = {0};
        zcp_chunk chunks[CHUNKS];
        CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){64, 100, 0, cache}));
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        intruder.peer = attach();
        for (int i = 0; i < CHUNKS; i++)
            chunks[i] = allocate(manager, 64);
        for (uint32_t i = 0; i < CHUNKS; i++) {
            intruder.guess = (uint64_t)chunks[i].generation << 32 | chunks[i].index;
            intruder.calls = intruder.entries = 0;
            test_at_step("unowned", 1, TEST_CALL, intrude);
            zcp_chunk_release(&chunks[i]);
            test_steps_clear();
            CHECK_EQ(intruder.calls, 1);
            CHECK_EQ(intruder.entries, CHUNKS - i);                // it is not free yet
        }
        zcp_manager_close(intruder.peer);
        finish(manager);
    }
}

TEST(chunk_never_acquired_handles_are_refused) {
    zcp_manager *manager = create(64, 2), *peer = attach(), *third = attach();
    zcp_chunk chunk = allocate(manager, 64), borrowed = acquire(third, token_of(&chunk));
    check_holds_nothing((zcp_chunk){peer, NULL, chunk.index, chunk.generation});
    CHECK_EQ(zcp_chunk_use_count(&chunk), 2);
    CHECK_EQ(zcp_chunk_use_count(&borrowed), 2);
    zcp_chunk_release(&chunk);
    check_holds_nothing((zcp_chunk){peer, NULL, borrowed.index, borrowed.generation});
    check_holds_nothing((zcp_chunk){manager, NULL, borrowed.index, borrowed.generation});
    CHECK_EQ(zcp_chunk_use_count(&borrowed), 1);
    zcp_chunk_release(&borrowed);
    zcp_manager_close(third);
    zcp_manager_close(peer);
    finish(manager);
}

// Was it refused? Then the last message tells of this generation, which no other round has.
static bool release_is_refused(zcp_chunk *chunk) {
    char before[512];
    snprintf(before, sizeof before, "%s", zcp_last_message());
    zcp_chunk_release(chunk);
    return strcmp(before, zcp_last_message()) != 0 && strstr(zcp_last_message(), "not held") != NULL;
}

typedef struct racer {
    zcp_chunk *copy;
    _Atomic uint32_t *barrier;
    int rounds;
    bool refused;
} racer;

static void *release_copies(void *argument) {
    racer *self = argument;
    for (int i = 0; i < self->rounds; i++) {
        test_spin_meet(self->barrier, 2);
        self->refused = release_is_refused(self->copy);
        test_spin_meet(self->barrier, 2);
    }
    return NULL;
}

// Of two threads that release copies of one handle at the same moment exactly one has its way.
TEST(chunk_double_release_that_races_itself_is_refused) {
    zcp_config config = one_pool(64, 2);
    zcp_manager *manager = create_named(test_instance(), &config, ZCP_CHECKED), *peer = attach();
    zcp_chunk copy;
    _Atomic uint32_t barrier = 0;
    racer self = {&copy, &barrier, ROUNDS(6000), false};
    zcp_log_set_level(ZCP_LOG_OFF);
    pthread_t thread = test_thread(release_copies, &self);
    for (int i = 0; i < self.rounds; i++) {
        zcp_chunk chunk = allocate(manager, 64), borrowed = {0};
        if (i % 3 == 1)
            borrowed = acquire(peer, token_of(&chunk));
        copy = i % 3 == 2 ? acquire(manager, token_of(&chunk)) : chunk;     // 2: no copy, so both are right
        test_spin_meet(&barrier, 2);
        bool refused = release_is_refused(&chunk);
        test_spin_meet(&barrier, 2);
        CHECK(is_empty(&copy) && is_empty(&chunk));
        if (i % 3 == 1)
            CHECK_EQ(zcp_chunk_use_count(&borrowed), 1);
        zcp_chunk_release(&borrowed);
        CHECK_EQ(used(manager), 0);
        CHECK_EQ((int)refused + (int)self.refused, i % 3 == 2 ? 0 : 1);
    }
    test_thread_join(thread);
    zcp_manager_close(peer);
    finish(manager);
}

// 2^21 borrows of one generation: the ticket passes 0, which would make a chunk without owner look free.
static void borrow_until_the_ticket_wraps(zcp_manager *manager, uint64_t token) {
    for (int i = 0; i < ROUNDS((1 << 21) + 10); i++) {
        zcp_chunk again;
        CHECK(zcp_chunk_acquire(manager, token, &again) == ZCP_OK);
        zcp_chunk_release(&again);
    }
}

TEST(chunk_ticket_wraps) {
    zcp_manager *manager = create(64, 1), *peer = attach();
    uint64_t token;
    zcp_chunk chunk = allocate_with_pattern(manager, 64, &token), seen = acquire(peer, token);
    borrow_until_the_ticket_wraps(manager, token);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 2);
    zcp_chunk_release(&chunk);
    borrow_until_the_ticket_wraps(manager, token);                 // now the peer alone holds it, as a borrower
    CHECK_EQ(used(manager), 1);
    CHECK_EQ(zcp_chunk_use_count(&seen), 1);
    pattern_check(&seen, token);
    zcp_chunk_release(&seen);
    zcp_manager_close(peer);
    finish(manager);
}

// The ticket after the highest one is not of those that say that nobody has borrowed.
TEST(chunk_ticket_after_the_highest_tells_of_borrowers) {
    for (uint64_t ticket = 2; ticket < 0x1fffff; ticket = ticket == 2 ? 0x1fff00 : ticket + 1) {
        zcp_manager *manager = create(64, 1), *peer = attach();
        uint64_t token;
        zcp_chunk chunk = allocate_with_pattern(manager, 64, &token);
        uint64_t state = inside_state_word(manager, 0, 0);
        inside_set_state_word(manager, 0, 0, (state & ~UINT64_C(0x1fffff)) | ticket);
        zcp_chunk seen;
        if (zcp_chunk_acquire(peer, token, &seen) != ZCP_OK) {     // that and higher ones are no tickets of borrowers
            CHECK(ticket > 0x1fff00);
            inside_set_state_word(manager, 0, 0, state);
            ticket = 0x1ffffe;
            zcp_chunk_release(&chunk);
        } else {
            CHECK((inside_state_word(manager, 0, 0) & 0x1fffff) >= 2);
            zcp_chunk_release(&chunk);
            CHECK_EQ(used(manager), 1);
            pattern_check(&seen, token);
            zcp_chunk_release(&seen);
        }
        CHECK_EQ(used(manager), 0);
        zcp_manager_close(peer);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Several clients of one process

TEST(chunk_two_clients_of_one_process_are_two_holders) {
    zcp_manager *a = create(256, 3), *b = attach();
    CHECK(a != b);
    CHECK(slot_of(a) != slot_of(b));
    uint64_t token;
    zcp_chunk chunk = allocate_with_pattern(a, 99, &token), other = acquire(b, token);
    CHECK(chunk.data != other.data);
    pattern_check(&other, token);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 2);
    CHECK_EQ(zcp_chunk_use_count(&other), 2);
    zcp_chunk third = zcp_chunk_clone(&other);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 2);                      // other clients count once
    CHECK_EQ(zcp_chunk_use_count(&other), 3);
    zcp_chunk late = chunk;
    zcp_manager_close(a);                                          // gives back what it holds, and nothing of b
    check_holds_nothing(late);
    pattern_check(&other, token);
    CHECK_EQ(zcp_chunk_use_count(&other), 2);
    CHECK_EQ(used(b), 1);
    zcp_chunk_release(&third);
    zcp_chunk_release(&other);
    finish(b);
}

TEST(chunk_tokens_of_another_instance_are_stale) {
    zcp_config config = one_pool(64, MANY);
    zcp_manager *a = create_named(test_instance_n(1), &config, 0), *b = create_named(test_instance_n(2), &config, 0);
    zcp_chunk in_a[MANY], in_b[MANY];
    for (int i = 0; i < MANY; i++) {
        in_a[i] = allocate(a, 64);
        in_b[i] = allocate(b, 64);
    }
    for (int i = 0; i < MANY; i++) {                               // every index is held in both
        CHECK_ACQUIRE_FAILS(b, token_of(&in_a[i]), ZCP_ERR_STALE);
        CHECK_ACQUIRE_FAILS(a, token_of(&in_b[i]), ZCP_ERR_STALE);
        check_holds_nothing((zcp_chunk){b, in_a[i].data, in_a[i].index, in_a[i].generation});
    }
    for (int i = 0; i < MANY; i++) {
        CHECK(zcp_chunk_use_count(&in_a[i]) == 1 && zcp_chunk_use_count(&in_b[i]) == 1);
        zcp_chunk_release(&in_a[i]);
        zcp_chunk_release(&in_b[i]);
    }
    zcp_manager_close(a);
    zcp_manager_close(b);
    for (int n = 1; n <= 2; n++) {
        books_check(test_instance_n(n), 0);
        CHECK_OK(zcp_manager_destroy(test_instance_n(n)));
    }
}

TEST(chunk_tokens_of_an_earlier_life_of_the_name_are_stale) {
    zcp_config config = one_pool(64, MANY);
    zcp_chunk chunks[MANY];
    uint64_t tokens[MANY], twice = 0;
    zcp_manager *old = create_named(test_instance(), &config, 0);
    for (int i = 0; i < MANY; i++) {
        chunks[i] = allocate(old, 64);
        tokens[chunks[i].index] = token_of(&chunks[i]);
    }
    CHECK_OK(zcp_manager_destroy(test_instance()));
    zcp_manager *now = create_named(test_instance(), &config, 0);
    for (int i = 0; i < MANY; i++)
        CHECK_ACQUIRE_FAILS(now, tokens[i], ZCP_ERR_STALE);        // nothing is held here
    for (int i = 0; i < MANY; i++) {
        zcp_chunk chunk = allocate(now, 64);
        twice += token_of(&chunk) == tokens[chunk.index];
        CHECK_ACQUIRE_FAILS(now, tokens[chunk.index], ZCP_ERR_STALE);
    }
    CHECK_EQ(twice, 0);
    for (int i = 0; i < MANY; i++) {                               // the old life goes on for who has it mapped
        zcp_chunk again = acquire(old, tokens[i]);
        zcp_chunk_release(&again);
        zcp_chunk_release(&chunks[i]);
    }
    books_check_by(old, 0);
    zcp_manager_close(old);
    finish(now);
}

TEST(chunk_tokens_are_stale_once_the_chunk_is_gone) {
    zcp_manager *manager = create(64, 1), *peer = attach();
    uint64_t old = 0;
    for (int i = 0; i < 100; i++) {                                // always the same chunk
        zcp_chunk chunk = allocate_in_the_end(manager, 64);
        CHECK_EQ(inside_index_in_pool(&chunk), 0);
        uint64_t token = token_of(&chunk);
        CHECK(token != old);
        if (old != 0)
            CHECK_ACQUIRE_FAILS(peer, old, ZCP_ERR_STALE);         // re-allocated
        zcp_chunk other = acquire(peer, token);
        zcp_chunk_release(&chunk);
        chunk = acquire(manager, token);                           // not gone: the peer holds it
        zcp_chunk_release(&other);
        zcp_chunk_release(&chunk);
        CHECK_ACQUIRE_FAILS(peer, token, ZCP_ERR_STALE);           // released
        CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_STALE);
        CHECK_EQ(used(manager), 0);
        old = token;
    }
    zcp_manager_close(peer);
    finish(manager);
}

TEST(chunk_garbage_tokens_change_nothing) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 64, 40));
    CHECK_OK(zcp_config_add_pool(&config, 128, 5));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    uint64_t token;
    zcp_chunk held = allocate_with_pattern(manager, 64, &token);
    for (int i = 0; i < 200000; i++) {
        uint64_t garbage = test_random();
        if (i % 4 == 1)
            garbage &= UINT64_C(0xffffffff0800003f);               // an index that may exist, any generation
        if (i % 4 == 2)
            garbage = token ^ UINT64_C(1) << (garbage & 63);       // a right one with a wrong bit
        zcp_chunk chunk = scribbled();
        zcp_status status = zcp_chunk_acquire(manager, garbage, &chunk);
        uint32_t pool = (uint32_t)garbage >> 27, index = (uint32_t)garbage & ((1u << 27) - 1);
        bool named = garbage >> 32 != 0 && (pool == 0 ? index < 40 : pool == 1 && index < 5);
        CHECK_STATUS(status, garbage == token ? ZCP_OK : named ? ZCP_ERR_STALE : ZCP_ERR_INVALID_TOKEN);
        zcp_chunk_release(&chunk);
    }
    pattern_check(&held, token);
    CHECK_EQ(zcp_chunk_use_count(&held), 1);
    books_check(test_instance(), 1);
    zcp_chunk_release(&held);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Several processes

typedef struct hand_over {
    _Atomic uint32_t sent, acquired, may_release, released;
    uint64_t token;
} hand_over;

static void use_count_reader(void *argument) {
    hand_over *shared = argument;
    zcp_manager *manager = attach();
    test_await(&shared->sent, 1);
    zcp_chunk chunk = acquire(manager, shared->token), cloned = zcp_chunk_clone(&chunk);
    CHECK_EQ(zcp_chunk_size(&chunk), 77);
    CHECK_EQ(zcp_chunk_capacity(&chunk), 256);
    pattern_check(&chunk, shared->token);
    test_signal(&shared->acquired);
    test_await(&shared->may_release, 1);
    zcp_chunk_release(&chunk);
    pattern_check(&cloned, shared->token);
    zcp_chunk_release(&cloned);
    test_signal(&shared->released);
    zcp_manager_close(manager);
}

TEST(chunk_use_count_over_three_processes) {
    hand_over *shared[2] = {test_shared(sizeof *shared[0]), test_shared(sizeof *shared[0])};
    zcp_manager *manager = create(256, 4);
    uint64_t token;
    zcp_chunk chunk = allocate_with_pattern(manager, 77, &token);
    pid_t readers[2];
    for (int i = 0; i < 2; i++) {
        shared[i]->token = token;
        readers[i] = test_spawn(use_count_reader, shared[i]);
    }
    CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
    test_signal(&shared[0]->sent);
    test_await(&shared[0]->acquired, 1);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 2);                      // two handles there, one holder
    test_signal(&shared[1]->sent);
    test_await(&shared[1]->acquired, 1);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 3);
    zcp_chunk cloned = zcp_chunk_clone(&chunk);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 4);
    test_signal(&shared[0]->may_release);
    test_await(&shared[0]->released, 1);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 3);
    zcp_chunk_release(&chunk);
    zcp_chunk_release(&cloned);                                    // the owner leaves first
    CHECK_EQ(used(manager), 1);
    chunk = acquire(manager, token);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 2);
    test_signal(&shared[1]->may_release);
    test_await(&shared[1]->released, 1);
    CHECK_EQ(zcp_chunk_use_count(&chunk), 1);
    pattern_check(&chunk, token);
    zcp_chunk_release(&chunk);
    CHECK_EQ(used(manager), 0);
    test_join(readers[0]);
    test_join(readers[1]);
    finish(manager);
}

// Over pipes: each message is a token, each acknowledgement a byte; the sender keeps its handle until it has come.
typedef struct pipes {
    int to_peer[2], to_me[2];
} pipes;

static void write_all(int file, const void *bytes, size_t n) {
    CHECK_EQ(write(file, bytes, n), (ssize_t)n);
}

static void read_all(int file, void *bytes, size_t n) {
    CHECK_EQ(read(file, bytes, n), (ssize_t)n);
}

static void send_chunk(int file, int acknowledged, zcp_chunk *chunk) {
    char byte;
    uint64_t token = token_of(chunk);
    write_all(file, &token, sizeof token);
    read_all(acknowledged, &byte, 1);
    zcp_chunk_release(chunk);
}

static zcp_chunk receive_chunk(zcp_manager *manager, int file, int acknowledge) {
    uint64_t token;
    read_all(file, &token, sizeof token);
    zcp_chunk chunk = acquire(manager, token);
    write_all(acknowledge, "a", 1);
    return chunk;
}

enum { EXCHANGES = 500 };

// A program of its own: other addresses, nothing inherited but the two pipe ends.
TEST_PROGRAM(chunk_echo, argument) {
    int from, to;
    CHECK_EQ(sscanf(argument, "%d %d", &from, &to), 2);
    zcp_manager *manager = attach();
    for (uint64_t i = 0; i < EXCHANGES; i++) {
        zcp_chunk chunk = receive_chunk(manager, from, to);
        CHECK_EQ(zcp_chunk_size(&chunk), 1 + i % 1024);
        pattern_check(&chunk, i);
        if (i % 2 == 0)
            pattern_write(&chunk, ~i);                             // the same chunk back, rewritten
        else {
            zcp_chunk_release(&chunk);                             // or another one
            chunk = allocate_in_the_end(manager, 1 + i % 1024);
            pattern_write(&chunk, ~i);
        }
        send_chunk(to, from, &chunk);
    }
    zcp_manager_close(manager);
}

TEST(chunk_tokens_go_over_and_back) {
    pipes p;
    char argument[64];
    CHECK(pipe(p.to_peer) == 0 && pipe(p.to_me) == 0);
    snprintf(argument, sizeof argument, "%d %d", p.to_peer[0], p.to_me[1]);
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 1024, 2));
    CHECK_OK(zcp_config_add_pool(&config, 256, 2));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    pid_t peer = test_exec("chunk_echo", argument);
    for (uint64_t i = 0; i < EXCHANGES; i++) {
        zcp_chunk chunk = allocate_in_the_end(manager, 1 + i % 1024);
        pattern_write(&chunk, i);
        send_chunk(p.to_peer[1], p.to_me[0], &chunk);
        chunk = receive_chunk(manager, p.to_me[0], p.to_peer[1]);
        CHECK_EQ(zcp_chunk_size(&chunk), 1 + i % 1024);
        pattern_check(&chunk, ~i);
        zcp_chunk_release(&chunk);
    }
    test_join(peer);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

// Over shared memory: three processes pass chunks on in a ring; each verifies what it gets, and writes it anew.
typedef struct ring {
    struct {
        _Atomic uint32_t full, taken;
        uint64_t token, seed;
    } slots[3];
    _Atomic uint32_t place;
} ring;

static zcp_chunk take_in(zcp_manager *manager, ring *shared, uint32_t me, uint32_t round) {
    test_await(&shared->slots[me].full, round);
    zcp_chunk chunk = acquire(manager, shared->slots[me].token);
    pattern_check(&chunk, shared->slots[me].seed);
    test_signal(&shared->slots[me].taken);
    return chunk;
}

enum { RING_ROUNDS = 400 };

static void pass_on(void *argument) {
    ring *shared = argument;
    zcp_manager *manager = attach();
    uint32_t me = atomic_fetch_add(&shared->place, 1), next = (me + 1) % 3;
    zcp_chunk out = allocate(manager, 500);
    for (uint32_t i = 1; i <= RING_ROUNDS; i++) {
        uint64_t seed = test_random();
        pattern_write(&out, seed);
        shared->slots[next].token = token_of(&out);
        shared->slots[next].seed = seed;
        test_signal(&shared->slots[next].full);
        zcp_chunk in = take_in(manager, shared, me, i);
        test_await(&shared->slots[next].taken, i);                 // acknowledged: only now let go
        zcp_chunk_release(&out);
        out = in;
        while (zcp_chunk_use_count(&out) != 1)                     // until its sender has let go: then it is mine alone
            sched_yield();
    }
    zcp_chunk_release(&out);
    zcp_manager_close(manager);
}

TEST(chunk_ring_of_three_processes) {
    ring *shared = test_shared(sizeof *shared);
    zcp_manager *manager = create(512, 3);
    pid_t pids[3];
    for (int i = 0; i < 3; i++)
        pids[i] = test_spawn(pass_on, shared);
    for (int i = 0; i < 3; i++)
        test_join(pids[i]);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

// The segments lie elsewhere in the other program; the same relative pointers lead to the same bytes.
TEST_PROGRAM(chunk_resolver, argument) {
    zcp_manager *manager = attach();
    zcp_manager_info info;
    unsigned long long token, data, record;
    void *their_base;
    CHECK_EQ(sscanf(argument, "%llx %llx %llx %p", &token, &data, &record, &their_base), 4);
    CHECK_OK(zcp_manager_get_info(manager, &info));
    zcp_registry *registry = zcp_manager_registry(manager);
    zcp_chunk chunk = acquire(manager, token);
    zcp_relptr here = zcp_relptr_of(registry, chunk.data);
    CHECK_EQ(here.bits, data);
    CHECK(zcp_relptr_get(registry, (zcp_relptr){data}, zcp_chunk_capacity(&chunk)) == chunk.data);
    CHECK_EQ(zcp_relptr_segment((zcp_relptr){data}), ZCP_SEGMENT_CHUNK);
    CHECK_EQ(zcp_relptr_segment((zcp_relptr){record}), ZCP_SEGMENT_MANAGEMENT);
    void *recorded = zcp_relptr_get(registry, (zcp_relptr){record}, 64);
    CHECK(recorded == (char *)info.management_base + zcp_relptr_offset((zcp_relptr){record}));
    CHECK_EQ(zcp_relptr_of(registry, recorded).bits, record);
    CHECK(zcp_relptr_is_null(zcp_relptr_of(registry, &token)));
    CHECK(zcp_relptr_get(registry, zcp_relptr_make(ZCP_SEGMENT_CHUNK, info.chunk_bytes - 8), 8) != NULL);
    CHECK(zcp_relptr_get(registry, zcp_relptr_make(ZCP_SEGMENT_CHUNK, info.chunk_bytes - 8), 9) == NULL);
    CHECK(zcp_relptr_get(registry, zcp_relptr_make(3, 0), 1) == NULL);
    pattern_check(&chunk, token);
    if (their_base == info.chunk_base)
        test_note("the segment lies at the same address in both processes");
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    CHECK(zcp_manager_registry(manager) == NULL);
}

TEST(chunk_addresses_resolve_alike_in_two_processes) {
    char argument[128];
    zcp_manager *manager = create(256, 5);
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    zcp_chunk padding = allocate(manager, 256);
    uint64_t token;
    zcp_chunk chunk = allocate_with_pattern(manager, 256, &token);
    zcp_registry *registry = zcp_manager_registry(manager);
    zcp_relptr data = zcp_relptr_of(registry, chunk.data);
    zcp_relptr record = zcp_relptr_of(registry, (char *)info.management_base + 4096);
    CHECK_EQ(zcp_relptr_offset(data), (uintptr_t)chunk.data - (uintptr_t)info.chunk_base);
    snprintf(argument, sizeof argument, "%llx %llx %llx %p", (unsigned long long)token, (unsigned long long)data.bits,
             (unsigned long long)record.bits, info.chunk_base);
    test_join(test_exec("chunk_resolver", argument));
    zcp_manager *second = attach();                                // and at other addresses in this very process
    zcp_chunk other = acquire(second, token);
    CHECK(other.data != chunk.data);
    CHECK(zcp_relptr_equal(zcp_relptr_of(zcp_manager_registry(second), other.data), data));
    CHECK(zcp_relptr_is_null(zcp_relptr_of(registry, other.data)));
    zcp_chunk_release(&other);
    zcp_manager_close(second);
    zcp_chunk_release(&chunk);
    zcp_chunk_release(&padding);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Figures and texts

static const char *printed(const zcp_manager *manager) {
    static char text[2048];
    FILE *file = tmpfile();
    CHECK(file != NULL);
    zcp_manager_print(manager, file);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return text;
}

TEST(chunk_states_print_as_the_original_did) {
    static const char fresh[] = "Pool 0: chunk_size=256, total=100, used=0, free=100\n"
                                "Pool 1: chunk_size=1024, total=50, used=0, free=50\n"
                                "Pool 2: chunk_size=4096, total=20, used=0, free=20\n"
                                "Pool 3: chunk_size=16384, total=10, used=0, free=10\n";
    static const char later[] = "Pool 0: chunk_size=256, total=100, used=1, free=99\n"
                                "Pool 1: chunk_size=1024, total=50, used=1, free=49\n"
                                "Pool 2: chunk_size=4096, total=20, used=1, free=19\n"
                                "Pool 3: chunk_size=16384, total=10, used=0, free=10\n";
    static const uint64_t sizes[] = {256, 1024, 4096, 16384};
    static const uint32_t counts[] = {100, 50, 20, 10};
    zcp_config config = {0};
    zcp_chunk chunks[3];
    char text[512];
    for (int i = 0; i < 4; i++)
        CHECK_OK(zcp_config_add_pool(&config, sizes[i], counts[i]));
    zcp_manager *manager = create_named(test_instance(), &config, 0), *peer = attach();
    CHECK_STR(printed(manager), fresh);
    chunks[0] = allocate(manager, 200);
    chunks[1] = allocate(peer, 800);
    chunks[2] = allocate(manager, 3000);
    zcp_chunk again = acquire(peer, token_of(&chunks[0])), cloned = zcp_chunk_clone(&again);       // one chunk still
    CHECK_STR(printed(manager), later);
    CHECK_STR(printed(peer), later);
    for (size_t bytes = 0; bytes <= sizeof later + 2; bytes++) {   // as snprintf
        memset(text, 'x', sizeof text);
        CHECK_EQ(zcp_manager_format(manager, text, bytes), sizeof later - 1);
        size_t length = bytes == 0 ? 0 : bytes < sizeof later ? bytes - 1 : sizeof later - 1;
        CHECK(memcmp(text, later, length) == 0);
        CHECK(bytes == 0 || text[length] == 0);
        for (size_t i = bytes == 0 ? 0 : length + 1; i < sizeof text; i++)
            CHECK(text[i] == 'x');
    }
    CHECK_EQ(zcp_manager_format(manager, NULL, 0), sizeof later - 1);
    CHECK_EQ(zcp_manager_format(manager, NULL, 100), sizeof later - 1);
    zcp_manager_print(manager, NULL);
    zcp_chunk_release(&cloned);
    zcp_chunk_release(&again);
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&chunks[i]);
    CHECK_STR(printed(peer), fresh);
    zcp_manager_close(peer);
    CHECK(strchr(printed(peer), '\n') == printed(peer) + strlen(printed(peer)) - 1);      // one line that says so
    CHECK(strstr(printed(peer), "Pool") == NULL && strstr(printed(NULL), "NULL") != NULL);
    size_t length = zcp_manager_format(NULL, text, sizeof text);
    CHECK_EQ(length, strlen(text));
    finish(manager);
}

TEST(chunk_pool_stats_statuses) {
    zcp_config config = {0};
    zcp_pool_stats stats;
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 100, .chunk_count = 7, .alignment = 256}));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_chunk chunk = allocate(manager, 1);
    CHECK_EQ(zcp_manager_pool_end(manager), 1);
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK(stats.chunk_size == 100 && stats.total == 7 && stats.used == 1 && stats.free == 6);
    CHECK(stats.stride == 256 && stats.alignment == 256);
    CHECK_STATUS(zcp_manager_pool_stats(manager, 1, &stats), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(stats.chunk_size == 0 && stats.total == 0 && stats.used == 0 && stats.free == 0);
    CHECK_STATUS(zcp_manager_pool_stats(manager, UINT32_MAX, &stats), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_pool_stats(manager, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_pool_stats(NULL, 0, &stats), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_EQ(zcp_manager_pool_end(NULL), 0);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_manager_pool_stats(manager, 0, &stats), ZCP_ERR_CLOSED);
    CHECK_EQ(zcp_manager_pool_end(manager), 0);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(chunk_find_gives_the_oldest_open_manager) {
    zcp_config config = one_pool(64, 2);
    CHECK(zcp_manager_find(test_instance()) == NULL);
    zcp_manager *first = create(64, 2), *second = attach(), *third = attach();
    zcp_manager *other = create_named(test_instance_n(1), &config, 0);
    CHECK(zcp_manager_find(test_instance()) == first);
    CHECK(zcp_manager_find(test_instance_n(1)) == other);
    CHECK(zcp_manager_find(test_instance_n(2)) == NULL);
    zcp_manager_close(first);
    CHECK(zcp_manager_find(test_instance()) == second);
    first = attach();                                              // perhaps the same object; the youngest now
    CHECK(zcp_manager_find(test_instance()) == second);
    zcp_manager_close(second);
    CHECK(zcp_manager_find(test_instance()) == third);
    zcp_manager_close(third);
    CHECK(zcp_manager_find(test_instance()) == first);
    zcp_manager_close(other);
    CHECK(zcp_manager_find(test_instance_n(1)) == NULL);
    books_check(test_instance_n(1), 0);
    CHECK_OK(zcp_manager_destroy(test_instance_n(1)));
    finish(first);
    CHECK(zcp_manager_find(test_instance()) == NULL);
}

// In a /dev/shm of its own, for others may use the default name at the same time.
static void use_default_name(void *argument) {
    _Atomic uint32_t *possible = argument;
    if (unshare(getuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0
        || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0
        || mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=4m") != 0)
        return;
    atomic_store(possible, 1);
    zcp_config config = one_pool(64, 2);
    zcp_manager_info info;
    CHECK(zcp_manager_find(NULL) == NULL);
    zcp_manager *manager = create_named(NULL, &config, 0);
    CHECK_OK(zcp_manager_get_info(manager, &info));
    CHECK_STR(info.management_name, "/zerocp_memory_management");
    CHECK_STR(info.chunk_name, "/zerocp_memory_chunk");
    CHECK(access("/dev/shm/zerocp_memory_management", F_OK) == 0 && access("/dev/shm/zerocp_memory_chunk", F_OK) == 0);
    CHECK(zcp_manager_find(NULL) == manager && zcp_manager_find("zerocp") == manager);
    zcp_manager_close(manager);
    CHECK(zcp_manager_find(NULL) == NULL);
    books_check(NULL, 0);
    CHECK_OK(zcp_manager_destroy(NULL));
    CHECK(access("/dev/shm/zerocp_memory_management", F_OK) != 0 && access("/dev/shm/zerocp_memory_chunk", F_OK) != 0);
}

TEST(chunk_default_name_is_zerocp) {
    _Atomic uint32_t *possible = test_shared(sizeof *possible);
    test_join(test_spawn(use_default_name, possible));
    if (atomic_load(possible) == 0)
        test_skip("no mount namespace of its own is to be had here");
}
