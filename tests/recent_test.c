// tests/recent_test.c: a thread finds what it used last in a few steps (>>recent); whatever has changed since, it finds
// the same as by the tables.
#include "harness/chunks.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

// Sizes on both sides of each pool's end, one after the other in every order.
TEST(recent_sizes_come_from_the_pool_that_fits) {
    static const uint64_t pools[] = {64, 256, 256, 4096};
    static const uint64_t sizes[] = {1, 63, 64, 65, 255, 256, 257, 4095, 4096};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    for (uint32_t cached = 0; cached < 2; cached++) {
        zcp_config config = {0};
        for (size_t p = 0; p < sizeof pools / sizeof pools[0]; p++)
            CHECK_OK(zcp_config_add(
                &config,
                &(zcp_pool_config){.chunk_size = pools[p], .chunk_count = 100, .cache_chunks = cached ? 8 : 0}));
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        for (int round = 0; round < 3; round++)
            for (int one = 0; one < SIZES; one++)
                for (int other = 0; other < SIZES; other++) {
                    const uint64_t pair[] = {sizes[one], sizes[other]};
                    zcp_chunk chunks[2], wrong = scribbled();
                    for (int i = 0; i < 2; i++) {
                        uint64_t fits = pair[i] <= 64 ? 64 : pair[i] <= 256 ? 256 : 4096;
                        chunks[i] = allocate(manager, pair[i]);
                        CHECK_EQ(zcp_chunk_capacity(&chunks[i]), fits);
                        CHECK_EQ(zcp_chunk_size(&chunks[i]), pair[i]);
                        memset(chunks[i].data, i, (size_t)fits);
                    }
                    CHECK_STATUS(zcp_chunk_allocate(manager, 4097, &wrong), ZCP_ERR_TOO_LARGE);
                    CHECK(is_empty(&wrong));
                    if (round == 1)
                        zcp_chunk_release(&chunks[1]);
                    CHECK_STATUS(zcp_chunk_allocate(manager, 0, &wrong), ZCP_ERR_INVALID_SIZE);
                    CHECK_STATUS(zcp_chunk_allocate(manager, UINT64_MAX, &wrong), ZCP_ERR_TOO_LARGE);
                    zcp_chunk_release(&chunks[0]);
                    zcp_chunk_release(&chunks[1]);
                }
        CHECK_EQ(used(manager), 0);
        finish(manager);
    }
}

// Chunks of two pools that are alike in all but the pool: each goes back to its own, whichever was the last.
TEST(recent_pool_is_not_every_chunk_s) {
    for (uint32_t cached = 0; cached < 2; cached++)
        for (int order = 0; order < 2; order++) {
            zcp_config config = {0};
            for (uint64_t size = 64; size <= 128; size *= 2)
                CHECK_OK(zcp_config_add(
                    &config,
                    &(zcp_pool_config){.chunk_size = size, .chunk_count = 64, .cache_chunks = cached ? 8 : 0}));
            zcp_manager *manager = create_named(test_instance(), &config, 0);
            for (uint32_t i = 0; i < 64; i++)                      // generations begin anywhere
                for (uint32_t pool = 0; pool < 2; pool++)
                    inside_set_state_word(manager, pool, i, UINT64_C(7) << 32);
            for (int round = 0; round < 3; round++) {
                zcp_chunk chunks[2] = {allocate(manager, 64), allocate(manager, 128)};
                CHECK_EQ(inside_index_in_pool(&chunks[0]), inside_index_in_pool(&chunks[1]));
                CHECK_EQ(chunks[0].generation, chunks[1].generation);
                zcp_chunk_release(&chunks[order]);
                CHECK_EQ(used_in(manager, 0), order);
                CHECK_EQ(used_in(manager, 1), 1 - order);
                zcp_chunk_release(&chunks[1 - order]);
                CHECK_EQ(used(manager), 0);
            }
            finish(manager);
        }
}

// Two instances in turn, whose managers come to lie where closed ones lay: a chunk is always of the one that was asked.
TEST(recent_manager_is_the_one_that_is_asked) {
    zcp_config config = one_pool(64, 16);
    char other_name[300];
    snprintf(other_name, sizeof other_name, "%s-other", test_instance());
    for (int round = 0; round < 20; round++) {
        zcp_manager *one = create_named(test_instance(), &config, 0), *other = create_named(other_name, &config, 0);
        for (int i = 0; i < 4; i++) {
            zcp_manager *const asked = i % 2 ? other : one, *const idle = i % 2 ? one : other;
            zcp_chunk chunk = allocate(asked, 64), second = allocate(asked, 64);
            memset(chunk.data, i, 64);
            CHECK(chunk.manager == asked);
            CHECK_EQ(used(asked), 2);
            CHECK_EQ(used(idle), 0);
            zcp_chunk_release(&second);
            // the last one is another's when the first is released
            zcp_chunk between = allocate(idle, 64);
            zcp_chunk_release(&chunk);
            CHECK_EQ(used(asked), 0);
            CHECK_EQ(used(idle), 1);
            zcp_chunk_release(&between);
        }
        zcp_chunk late = allocate(one, 64), wrong = scribbled();
        zcp_chunk copy = late;
        zcp_chunk_release(&late);
        finish(one);
        CHECK_STATUS(zcp_chunk_allocate(one, 64, &wrong), ZCP_ERR_CLOSED);
        CHECK(is_empty(&wrong));
        zcp_chunk_release(&copy);                                  // of a closed manager: ignored
        CHECK_EQ(used(other), 0);
        zcp_manager_close(other);
        CHECK_OK(zcp_manager_destroy(other_name));
    }
}

// The same thread, the same manager: after a change of pools by this client or another one, the next call sees it.
TEST(recent_pool_is_left_for_one_that_fits_better) {
    for (uint32_t cached = 0; cached < 2; cached++) {
        zcp_config config = {0};
        uint32_t added;
        CHECK_OK(zcp_config_add(
            &config, &(zcp_pool_config){.chunk_size = 4096, .chunk_count = 64, .cache_chunks = cached ? 8 : 0}));
        zcp_manager *manager = create_named(test_instance(), &config, 0), *peer = attach();
        for (int round = 0; round < 10; round++) {
            zcp_manager *const by = round % 2 ? peer : manager;
            zcp_chunk chunk = allocate(manager, 100);
            CHECK_EQ(zcp_chunk_capacity(&chunk), 4096);
            if (round % 4 < 2)
                zcp_chunk_release(&chunk);
            CHECK_OK(zcp_manager_add_pool(
                by, &(zcp_pool_config){.chunk_size = 128, .chunk_count = 64, .cache_chunks = cached ? 8 : 0}, &added));
            zcp_chunk_release(&chunk);                             // which is where this thread may see it first
            for (int i = 0; i < 3; i++) {
                chunk = allocate(manager, 100);
                CHECK_EQ(zcp_chunk_capacity(&chunk), 128);
                if (i < 2)
                    zcp_chunk_release(&chunk);
            }
            CHECK_OK(zcp_manager_retire_pool(by, added));
            if (round % 4 < 2)
                zcp_chunk_release(&chunk);
            for (int i = 0; i < 3; i++) {
                zcp_chunk next = allocate(manager, 100);
                CHECK_EQ(zcp_chunk_capacity(&next), 4096);
                zcp_chunk_release(&next);
            }
            zcp_chunk_release(&chunk);
        }
        zcp_manager_close(peer);
        finish(manager);
    }
}

// Somebody else has changed the pools before this thread's first call: that one finds the pool that fits, and those
// after it do so in a few steps.
TEST(recent_pool_is_right_after_a_call_that_learned_of_it) {
    zcp_manager *manager = create(4096, 64), *peer = attach();
    CHECK_OK(
        zcp_manager_add_pool(peer, &(zcp_pool_config){.chunk_size = 128, .chunk_count = 64, .cache_chunks = 0}, NULL));
    for (int i = 0; i < 4; i++) {
        zcp_chunk chunk = allocate(manager, 100);
        CHECK_EQ(zcp_chunk_capacity(&chunk), 128);
        zcp_chunk_release(&chunk);
    }
    CHECK_EQ(inside_recent_chunk_size(manager), 128);
    CHECK_EQ(inside_recent_chunk_size(peer), 0);
    zcp_manager_close(peer);
    finish(manager);
}

// A number that goes to one pool after the other, each of another size.
TEST(recent_pool_is_not_the_next_one_of_its_number) {
    zcp_manager *manager = create(64, 8);
    for (uint32_t round = 0; round < 20; round++) {
        uint64_t size = 128 + 64 * (round % 3);
        uint32_t number;
        CHECK_OK(zcp_manager_add_pool(
            manager,
            &(zcp_pool_config){.chunk_size = size, .chunk_count = 8 + round % 5, .cache_chunks = round % 2 ? 4 : 0},
            &number));
        CHECK_EQ(number, 1);
        zcp_chunk chunk = allocate(manager, 128), copy = chunk;
        CHECK_EQ(zcp_chunk_capacity(&chunk), size);
        memset(chunk.data, (int)round, (size_t)size);
        zcp_chunk_release(&chunk);
        CHECK_OK(zcp_manager_retire_pool(manager, number));
        zcp_chunk_release(&copy);                                  // of a pool that is gone: ignored
        chunk = scribbled();
        CHECK_STATUS(zcp_chunk_allocate(manager, 128, &chunk), ZCP_ERR_TOO_LARGE);
    }
    finish(manager);
}

typedef struct helper {
    zcp_manager *manager;
    pthread_barrier_t barrier;
} helper;

static void *change_pools(void *argument) {
    helper *self = argument;
    for (int round = 0; round < 10; round++) {
        uint32_t added;
        pthread_barrier_wait(&self->barrier);
        CHECK_OK(zcp_manager_add_pool(
            self->manager, &(zcp_pool_config){.chunk_size = 128, .chunk_count = 8, .cache_chunks = 0}, &added));
        pthread_barrier_wait(&self->barrier);
        pthread_barrier_wait(&self->barrier);
        CHECK_OK(zcp_manager_retire_pool(self->manager, added));
        pthread_barrier_wait(&self->barrier);
    }
    return NULL;
}

// What a sibling thread has changed is seen by the next call, too.
TEST(recent_pool_is_left_when_a_sibling_changes_pools) {
    helper self = {.manager = create(4096, 64)};
    CHECK(pthread_barrier_init(&self.barrier, NULL, 2) == 0);
    pthread_t sibling = test_thread(change_pools, &self);
    for (int round = 0; round < 10; round++) {
        zcp_chunk chunk = allocate(self.manager, 100);
        CHECK_EQ(zcp_chunk_capacity(&chunk), 4096);
        zcp_chunk_release(&chunk);
        pthread_barrier_wait(&self.barrier);
        pthread_barrier_wait(&self.barrier);
        chunk = allocate(self.manager, 100);
        CHECK_EQ(zcp_chunk_capacity(&chunk), 128);
        zcp_chunk_release(&chunk);
        pthread_barrier_wait(&self.barrier);
        pthread_barrier_wait(&self.barrier);
    }
    test_thread_join(sibling);
    CHECK(pthread_barrier_destroy(&self.barrier) == 0);
    finish(self.manager);
}

static void use_after_fork(void *argument) {
    zcp_manager *manager = argument, *own;
    zcp_chunk chunk = scribbled();
    CHECK_STATUS(zcp_chunk_allocate(manager, 64, &chunk), ZCP_ERR_FORKED);
    CHECK(is_empty(&chunk));
    own = attach();
    chunk = allocate(own, 64);
    CHECK(chunk.manager == own);
    CHECK_EQ(used(own), 2);
    zcp_chunk_release(&chunk);
    CHECK_STATUS(zcp_chunk_allocate(manager, 64, &chunk), ZCP_ERR_FORKED);
    zcp_manager_close(own);
}

TEST(recent_manager_of_the_parent_is_not_the_child_s) {
    zcp_manager *manager = create(64, 16);
    zcp_chunk chunk = allocate(manager, 64), other = allocate(manager, 64);
    zcp_chunk_release(&other);
    test_join(test_spawn(use_after_fork, manager));
    CHECK_EQ(used(manager), 1);
    zcp_chunk_release(&chunk);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls after zerocp has taken back what a thread kept: its number may be another one's by then.

static zcp_manager *used_late;
static pthread_key_t late_key;
static uint32_t late_calls;

// It gets the number that has just become free, and uses the same pool.
static void *take_the_number(void *argument) {
    pthread_barrier_t *barrier = argument;
    zcp_chunk chunk = allocate(used_late, 64);
    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    zcp_chunk_release(&chunk);
    return NULL;
}

static void use_late(void *again) {
    // before zerocp's turn: once more after it
    if (inside_thread_number() != 0 && again == (void *)&late_calls) {
        CHECK(pthread_setspecific(late_key, &late_key) == 0);
        return;
    }
    pthread_barrier_t barrier;
    CHECK_EQ(inside_thread_number(), 0);
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    pthread_t heir = test_thread(take_the_number, &barrier);
    pthread_barrier_wait(&barrier);
    CHECK_EQ(inside_recent_chunk_size(used_late), 0);
    zcp_chunk chunk = allocate(used_late, 64), other = allocate(used_late, 64);
    zcp_chunk_release(&chunk);
    zcp_chunk_release(&other);
    pthread_barrier_wait(&barrier);
    test_thread_join(heir);
    CHECK(pthread_barrier_destroy(&barrier) == 0);
    late_calls++;
}

static void *use_and_end(void *argument) {
    (void)argument;
    CHECK(pthread_setspecific(late_key, &late_calls) == 0);
    zcp_chunk chunk = allocate(used_late, 64);
    zcp_chunk_release(&chunk);
    CHECK_EQ(inside_recent_chunk_size(used_late), 0);              // the first call is a slow one, which forgets
    chunk = allocate(used_late, 64);
    zcp_chunk_release(&chunk);
    CHECK_EQ(inside_recent_chunk_size(used_late), 64);
    return NULL;
}

TEST(recent_pool_is_forgotten_when_the_thread_ends) {
    used_late = create(64, 64);
    CHECK(pthread_key_create(&late_key, use_late) == 0);
    for (uint32_t i = 0; i < 10; i++) {
        test_thread_join(test_thread(use_and_end, NULL));
        CHECK_EQ(late_calls, i + 1);
        CHECK_EQ(inside_thread_count(), 0);
        CHECK_EQ(inside_leases_held(used_late, 0), 0);
        CHECK_EQ(inside_hint_count(used_late, 0), 64);
    }
    CHECK(pthread_key_delete(late_key) == 0);
    finish(used_late);
}
