// tests/handle_test.c: handles that are not got by allocate or acquire alone: from an address, with a tag, several at
// once, and no more of them than a client may hold.
#include "harness/chunks.h"

#include <sys/wait.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// Tags

TEST(handle_tag_can_be_set) {
    zcp_manager *manager = create(64, 4), *other = attach();
    zcp_chunk chunk = allocate(manager, 10), clone = zcp_chunk_clone(&chunk), theirs = acquire(other, token_of(&chunk));
    CHECK_EQ(zcp_chunk_tag(&chunk), 0);
    CHECK_OK(zcp_chunk_set_tag(&chunk, 0xfeedface));
    CHECK_EQ(zcp_chunk_tag(&clone), 0xfeedface);
    CHECK_EQ(zcp_chunk_tag(&theirs), 0xfeedface);
    CHECK_OK(zcp_chunk_set_tag(&theirs, UINT32_MAX));              // whoever holds it may
    CHECK_EQ(zcp_chunk_tag(&chunk), UINT32_MAX);
    CHECK_EQ(zcp_chunk_size(&chunk), 10);
    CHECK_OK(zcp_chunk_set_tag(&chunk, 0));
    CHECK_EQ(zcp_chunk_tag(&theirs), 0);
    zcp_chunk_release(&theirs);
    zcp_chunk_release(&clone);
    zcp_chunk_release(&chunk);
    zcp_manager_close(other);
    finish(manager);
}

typedef struct noted { uint32_t count, tag; uint64_t age; } noted;

static bool note_entry(const zcp_census_entry *entry, void *user) {
    noted *is = user;
    *is = (noted){is->count + 1, entry->tag, entry->age};
    return true;
}

TEST(handle_tag_leaves_the_age_alone) {
    zcp_manager *manager = create(64, 8);
    noted before = {0, 0, 0}, after = before;
    zcp_chunk chunk = {0};
    for (int i = 0; i < 8; i++) {                                  // it is the third one, and five come after it
        zcp_chunk more = allocate(manager, 10);
        if (i == 2)
            chunk = more;
        else
            zcp_chunk_release(&more);
    }
    CHECK_OK(zcp_manager_census(manager, note_entry, &before));
    CHECK_OK(zcp_chunk_set_tag(&chunk, 7));
    CHECK_OK(zcp_manager_census(manager, note_entry, &after));
    CHECK_EQ(before.age, 5);
    CHECK_EQ(after.age, 5);
    CHECK_EQ(before.tag, 0);
    CHECK_EQ(after.tag, 7);
    CHECK_EQ(after.count, 1);
    zcp_chunk_release(&chunk);
    chunk = allocate(manager, 10);
    CHECK_EQ(zcp_chunk_tag(&chunk), 0);                            // the next use has none
    zcp_chunk_release(&chunk);
    finish(manager);
}

TEST(handle_tag_tells_why_not) {
    zcp_manager *manager = create(64, 4), *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA);
    zcp_chunk chunk = allocate(manager, 10), copy = chunk, read = acquire(reader, token_of(&chunk)), none = {0};
    CHECK_STATUS(zcp_chunk_set_tag(NULL, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_chunk_set_tag(&none, 1), ZCP_ERR_STALE);
    CHECK_STATUS(zcp_chunk_set_tag(&read, 1), ZCP_ERR_READ_ONLY);
    CHECK_EQ(zcp_chunk_tag(&chunk), 0);
    zcp_chunk_release(&read);
    zcp_chunk_release(&chunk);
    chunk = allocate(manager, 10);
    copy.index = chunk.index;
    CHECK_STATUS(zcp_chunk_set_tag(&copy, 1), ZCP_ERR_STALE);
    CHECK_HAS(zcp_last_message(), "set_tag");
    CHECK_EQ(zcp_chunk_tag(&chunk), 0);
    copy = chunk;
    zcp_manager_close(reader);
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_chunk_set_tag(&copy, 1), ZCP_ERR_CLOSED);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// Allocate with a description

static void *release_later(void *chunk) {
    test_sleep(50);
    zcp_chunk_release(chunk);
    return NULL;
}

TEST(handle_described_is_tagged_and_waited_for) {
    zcp_manager *manager = create(64, 1);
    zcp_pool_stats stats;
    zcp_chunk chunk, last = scribbled();
    CHECK_OK(zcp_chunk_allocate_with(manager, &(zcp_chunk_desc){33, 5, 0}, &last));
    CHECK_EQ(zcp_chunk_size(&last), 33);
    CHECK_EQ(zcp_chunk_tag(&last), 5);
    pthread_t thread = test_thread(release_later, &last);
    CHECK_OK(zcp_chunk_allocate_with(manager, &(zcp_chunk_desc){.size = 44, .tag = 6, .timeout_ms = UINT32_MAX},
                                     &chunk));
    test_thread_join(thread);
    CHECK_EQ(zcp_chunk_size(&chunk), 44);
    CHECK_EQ(zcp_chunk_tag(&chunk), 6);
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.failures, 0);
    zcp_chunk_release(&chunk);
    CHECK_OK(zcp_chunk_allocate_with(manager, &(zcp_chunk_desc){.size = 64}, &chunk));
    CHECK_EQ(zcp_chunk_tag(&chunk), 0);
    zcp_chunk_release(&chunk);
    finish(manager);
}

#define CHECK_DESCRIBED_FAILS(manager, desc, expected)                                                                 \
    do {                                                                                                               \
        zcp_chunk chunk_ = scribbled();                                                                                \
        CHECK_STATUS(zcp_chunk_allocate_with((manager), (desc), &chunk_), (expected));                                 \
        CHECK(is_empty(&chunk_));                                                                                      \
    } while (0)

TEST(handle_described_tells_why_not) {
    zcp_manager *manager = create(64, 1);
    zcp_chunk_desc at_once = {64, 1, 0}, soon = {64, 1, 10};
    zcp_pool_stats stats;
    CHECK_DESCRIBED_FAILS(manager, NULL, ZCP_ERR_INVALID_ARGUMENT);
    CHECK_DESCRIBED_FAILS(NULL, &at_once, ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_chunk_allocate_with(manager, &at_once, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_chunk_allocate_with(manager, NULL, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_DESCRIBED_FAILS(manager, &(zcp_chunk_desc){.tag = 1}, ZCP_ERR_INVALID_SIZE);
    CHECK_DESCRIBED_FAILS(manager, &(zcp_chunk_desc){.size = 65}, ZCP_ERR_TOO_LARGE);
    CHECK_DESCRIBED_FAILS(manager, (&(zcp_chunk_desc){65, 0, 10}), ZCP_ERR_TOO_LARGE);
    zcp_chunk chunk = allocate(manager, 1);
    CHECK_DESCRIBED_FAILS(manager, &at_once, ZCP_ERR_EXHAUSTED);
    CHECK_DESCRIBED_FAILS(manager, &soon, ZCP_ERR_TIMEOUT);
    CHECK_EQ(zcp_chunk_tag(&chunk), 0);
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.failures, 2);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    CHECK_DESCRIBED_FAILS(manager, &at_once, ZCP_ERR_CLOSED);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// From an address

static zcp_chunk chunk_of(zcp_manager *manager, const void *address) {
    zcp_chunk chunk = scribbled();
    CHECK_OK(zcp_chunk_of(manager, address, &chunk));
    return chunk;
}

#define CHECK_OF_FAILS(manager, address, expected)                                                                     \
    do {                                                                                                               \
        zcp_chunk chunk_ = scribbled();                                                                                \
        CHECK_STATUS(zcp_chunk_of((manager), (address), &chunk_), (expected));                                         \
        CHECK(is_empty(&chunk_));                                                                                      \
    } while (0)

static bool same_chunk(const zcp_chunk *a, const zcp_chunk *b) {
    return a->manager == b->manager && a->data == b->data && a->index == b->index && a->generation == b->generation;
}

// Chunks of sizes that are no multiple of the alignment, in pools that do and do not follow each other.
static zcp_manager *create_three_pools(void) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 100, 3));
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 5, .cache_chunks = 4}));
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 5000, .chunk_count = 2, .alignment = 4096}));
    return create_named(test_instance(), &config, 0);
}

TEST(handle_of_each_address_in_a_chunk) {
    zcp_manager *manager = create_three_pools();
    static const uint64_t sizes[] = {100, 100, 100, 64, 64, 64, 64, 64, 5000, 5000};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    zcp_chunk chunks[COUNT];
    for (int i = 0; i < COUNT; i++)
        chunks[i] = allocate(manager, sizes[i]);
    for (int i = 0; i < COUNT; i++) {
        const char *data = chunks[i].data;
        const uint64_t offsets[] = {0, 1, sizes[i] / 2, sizes[i] - 1};
        for (int k = 0; k < 4; k++) {
            zcp_chunk again = chunk_of(manager, data + offsets[k]);
            CHECK(same_chunk(&again, &chunks[i]));
            CHECK_EQ(zcp_chunk_use_count(&chunks[i]), 2);
            zcp_chunk_release(&again);
            CHECK_EQ(zcp_chunk_use_count(&chunks[i]), 1);
        }
        if (sizes[i] % 64)
            CHECK_OF_FAILS(manager, data + sizes[i], ZCP_ERR_NOT_FOUND);       // between two chunks
    }
    // The handle that is left holds the chunk alone.
    zcp_chunk again = chunk_of(manager, chunks[0].data);
    zcp_chunk_release(&chunks[0]);
    CHECK(zcp_chunk_is_valid(&again));
    CHECK_EQ(used_in(manager, 0), 3);
    zcp_chunk_release(&again);
    CHECK_EQ(used_in(manager, 0), 2);
    for (int i = 1; i < COUNT; i++)
        zcp_chunk_release(&chunks[i]);
    finish(manager);
}

TEST(handle_of_an_address_tells_why_not) {
    zcp_manager *manager = create_three_pools(), *other = attach(), *observer = attach_named(test_instance(),
                                                                                            ZCP_OBSERVE);
    zcp_manager_info info;
    char elsewhere;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    zcp_chunk chunk = allocate(manager, 60), theirs = allocate(other, 60);
    uint32_t none = (chunk.index & 7) == 4 ? 3 : 4;
    while (none == (theirs.index & 7) || none == (chunk.index & 7)) none--;
    const char *data = chunk.data, *first = data - (chunk.index & 7) * (ptrdiff_t)64;
    CHECK_OF_FAILS(NULL, data, ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_chunk_of(manager, data, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_OF_FAILS(manager, NULL, ZCP_ERR_NOT_FOUND);
    CHECK_OF_FAILS(manager, &elsewhere, ZCP_ERR_NOT_FOUND);
    CHECK_OF_FAILS(manager, (char *)info.chunk_base + info.chunk_bytes, ZCP_ERR_NOT_FOUND);
    CHECK_OF_FAILS(manager, (char *)info.chunk_base - 1, ZCP_ERR_NOT_FOUND);
    CHECK_OF_FAILS(manager, info.management_base, ZCP_ERR_NOT_FOUND);
    CHECK_OF_FAILS(manager, theirs.data, ZCP_ERR_NOT_FOUND);       // where the other one has it mapped
    CHECK_OF_FAILS(observer, data, ZCP_ERR_READ_ONLY);
    CHECK_OF_FAILS(manager, first + none * 64, ZCP_ERR_STALE);     // free
    CHECK_OF_FAILS(manager, first + (theirs.index & 7) * 64, ZCP_ERR_STALE);  // held by another client
    CHECK_HAS(zcp_last_message(), "zcp_subscriber_keep");
    zcp_chunk_release(&chunk);                                     // into the cache
    CHECK_OF_FAILS(manager, data, ZCP_ERR_STALE);
    zcp_chunk_release(&theirs);
    zcp_manager_close(observer);
    zcp_manager_close(other);
    zcp_manager_close(manager);
    CHECK_OF_FAILS(manager, data, ZCP_ERR_CLOSED);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(handle_of_an_address_that_was_acquired) {
    zcp_manager *manager = create(64, 4), *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA);
    zcp_chunk chunk = allocate(manager, 64), seen = acquire(reader, token_of(&chunk));
    zcp_chunk again = chunk_of(reader, (char *)seen.data + 63);
    CHECK(same_chunk(&again, &seen));
    zcp_chunk_release(&seen);
    zcp_chunk_release(&chunk);                                     // the handle from the address is the last one
    CHECK_EQ(used(manager), 1);
    CHECK_EQ(zcp_chunk_use_count(&again), 1);
    CHECK_OF_FAILS(manager, (void *)0x1000, ZCP_ERR_NOT_FOUND);
    zcp_chunk_release(&again);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(reader);
    finish(manager);
}

TEST(handle_of_an_address_in_an_added_pool) {
    zcp_manager *manager = create(64, 4), *other = attach();
    uint32_t pool;
    CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 1000, .chunk_count = 3}, &pool));
    zcp_chunk chunk = allocate(manager, 1000), theirs = acquire(other, token_of(&chunk));
    zcp_chunk again = chunk_of(manager, (char *)chunk.data + 999), seen = chunk_of(other, (char *)theirs.data + 5);
    CHECK(same_chunk(&again, &chunk) && same_chunk(&seen, &theirs));
    CHECK_OK(zcp_manager_retire_pool(manager, pool));              // what is held of it still is
    zcp_chunk third = chunk_of(manager, chunk.data);
    const void *data = chunk.data;
    zcp_chunk_release(&third);
    zcp_chunk_release(&again);
    zcp_chunk_release(&seen);
    zcp_chunk_release(&theirs);
    zcp_chunk_release(&chunk);
    zcp_chunk none = scribbled();
    zcp_status status = zcp_chunk_of(manager, data, &none);        // it goes now or a little later
    CHECK(is_empty(&none) && (status == ZCP_ERR_STALE || status == ZCP_ERR_NOT_FOUND));
    zcp_manager_close(other);
    finish(manager);
}

TEST(handle_of_a_message_needs_keep) {
    zcp_manager *manager = create(64, 6), *other = attach();
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
    zcp_message message;
    zcp_chunk kept, chunk = allocate(manager, 64);
    CHECK_OK(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = "t", .depth = 2}, &publisher));
    CHECK_OK(zcp_subscriber_open(other, &(zcp_subscriber_desc){.topic = "t"}, &subscriber));
    CHECK_OK(zcp_chunk_set_tag(&chunk, 0x70c));
    CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
    CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
    CHECK_EQ(message.tag, 0x70c);
    CHECK_OF_FAILS(other, message.data, ZCP_ERR_STALE);
    CHECK_OK(zcp_subscriber_keep(subscriber, &kept));
    zcp_chunk again = chunk_of(other, (const char *)message.data + 1);
    CHECK(same_chunk(&again, &kept));
    zcp_chunk_release(&again);
    zcp_chunk_release(&kept);
    CHECK_OF_FAILS(other, message.data, ZCP_ERR_STALE);
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    zcp_manager_close(other);
    finish(manager);
}

TEST(handle_of_an_address_in_a_forked_child) {
    zcp_manager *manager = create(64, 4);
    zcp_chunk chunk = allocate(manager, 64);
    pid_t child = fork();
    if (child == 0) {
        zcp_chunk copy = chunk;
        CHECK_OF_FAILS(manager, chunk.data, ZCP_ERR_FORKED);
        CHECK_STATUS(zcp_chunk_set_tag(&copy, 1), ZCP_ERR_FORKED);
        CHECK_DESCRIBED_FAILS(manager, (&(zcp_chunk_desc){64, 1, 0}), ZCP_ERR_FORKED);
        _exit(0);
    }
    test_join(child);
    zcp_chunk_release(&chunk);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Several at once

enum { BULK = 200 };

static zcp_manager *create_for_bulk(uint32_t chunk_count, uint32_t cache_chunks) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 64, .chunk_count = chunk_count,
                                                        .cache_chunks = cache_chunks}));
    CHECK_OK(zcp_config_add_pool(&config, 500, 4));
    return create_named(test_instance(), &config, 0);
}

// Allocates and releases so many, in several ways, and checks that they are different ones and counted.
static void check_bulk(zcp_manager *manager, uint32_t count) {
    static zcp_chunk chunks[BULK];
    zcp_pool_stats before, stats;
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &before));
    for (uint32_t i = 0; i < count; i++)
        chunks[i] = scribbled();
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 30, chunks, count));
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(zcp_chunk_size(&chunks[i]), 30);
        CHECK_EQ(zcp_chunk_use_count(&chunks[i]), 1);
        pattern_write(&chunks[i], i);
    }
    for (uint32_t i = 0; i < count; i++)
        pattern_check(&chunks[i], i);
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.used, before.used + count);
    CHECK_EQ(stats.allocations, before.allocations + count);
    CHECK_EQ(stats.peak_used, before.peak_used > stats.used ? before.peak_used : stats.used);
    zcp_chunk_release_bulk(chunks, count);
    for (uint32_t i = 0; i < count; i++)
        CHECK(is_empty(&chunks[i]));
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.used, before.used);
    CHECK_EQ(inside_hint_count(manager, 0), stats.free);
    CHECK_EQ(stats.releases, before.releases + count);
}

TEST(handle_bulk_gives_as_many_as_asked_for) {
    static const uint32_t counts[] = {0, 1, 2, 15, 16, 17, 64, 65, 130, BULK};
    for (uint32_t cache = 0; cache <= 64; cache += 16) {
        zcp_manager *manager = create_for_bulk(BULK, cache);
        for (int round = 0; round < 3; round++)
            for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
                check_bulk(manager, counts[i]);
        finish(manager);
    }
}

TEST(handle_bulk_gives_all_or_none) {
    for (uint32_t cache = 0; cache <= 8; cache += 8) {
        zcp_manager *manager = create_for_bulk(20, cache);
        zcp_chunk chunks[21], kept[3];
        zcp_pool_stats stats;
        for (int round = 0; round < 3; round++) {
            CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, kept, 3));
            for (int i = 0; i < 21; i++)
                chunks[i] = scribbled();
            CHECK_STATUS(zcp_chunk_allocate_bulk(manager, 64, chunks, 18), ZCP_ERR_EXHAUSTED);
            CHECK_HAS(zcp_last_message(), "all 20 chunks");
            for (int i = 0; i < 18; i++)
                CHECK(is_empty(&chunks[i]));
            CHECK(!is_empty(&chunks[18]));                         // was not touched
            CHECK_EQ(used(manager), 3);
            CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
            CHECK_EQ(stats.failures, round + 1);
            CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 17));
            CHECK_EQ(used(manager), 20);
            zcp_chunk_release_bulk(chunks, 17);
            zcp_chunk_release_bulk(kept, 3);
        }
        finish(manager);
    }
}

TEST(handle_bulk_tells_why_not) {
    zcp_manager *manager = create_for_bulk(20, 0), *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA);
    zcp_chunk chunks[2] = {scribbled(), scribbled()};
    CHECK_STATUS(zcp_chunk_allocate_bulk(manager, 1, NULL, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 1, NULL, 0));
    CHECK_STATUS(zcp_chunk_allocate_bulk(NULL, 1, chunks, 2), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(is_empty(&chunks[0]) && is_empty(&chunks[1]));
    CHECK_STATUS(zcp_chunk_allocate_bulk(manager, 0, chunks, 2), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_chunk_allocate_bulk(manager, 501, chunks, 2), ZCP_ERR_TOO_LARGE);
    CHECK_STATUS(zcp_chunk_allocate_bulk(reader, 1, chunks, 2), ZCP_ERR_READ_ONLY);
    zcp_chunk_release_bulk(NULL, 5);
    zcp_chunk_release_bulk(chunks, 0);
    zcp_manager_close(reader);
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_chunk_allocate_bulk(manager, 1, chunks, 2), ZCP_ERR_CLOSED);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(handle_bulk_releases_whatever_there_is) {
    zcp_manager *manager = create_for_bulk(100, 0), *other = attach();
    zcp_chunk chunks[8];
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 8));
    zcp_chunk copy = chunks[5], large = allocate(manager, 500), kept = zcp_chunk_clone(&chunks[0]);
    zcp_chunk borrowed = acquire(other, token_of(&chunks[1]));
    zcp_chunk mixed[] = {chunks[0], borrowed, chunks[1], {0}, chunks[2], large, chunks[3], chunks[4], chunks[5], copy,
                         chunks[6], chunks[7]};
    zcp_chunk_release_bulk(mixed, sizeof mixed / sizeof mixed[0]);
    for (size_t i = 0; i < sizeof mixed / sizeof mixed[0]; i++)
        CHECK(is_empty(&mixed[i]));
    CHECK_HAS(zcp_last_message(), "not held");                     // the copy
    CHECK_EQ(used(manager), 1);
    CHECK(zcp_chunk_is_valid(&kept));
    zcp_chunk_release(&kept);
    zcp_manager_close(other);
    finish(manager);
}

// Who needs the chunks that a thread caches gets them, whatever it does in bulk.
TEST(handle_bulk_answers_recalls) {
    zcp_manager *manager = create_for_bulk(128, 16);
    zcp_chunk chunks[32];
    zcp_pool_stats stats;
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 32));
    zcp_chunk_release_bulk(chunks, 32);
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.cached, 16);
    inside_want(manager, 0);
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 4));
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.cached, 0);
    zcp_chunk_release_bulk(chunks, 4);
    for (int i = 0; i < 80; i++)
        check_bulk(manager, 1);
    check_bulk(manager, 16);
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.cached, 16);
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 8));
    inside_want(manager, 0);
    zcp_chunk_release_bulk(chunks, 8);
    CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
    CHECK_EQ(stats.cached, 0);
    finish(manager);
}

TEST(handle_bulk_takes_nothing_from_a_pool_that_retires) {
    zcp_manager *manager = create_for_bulk(20, 0), *other = attach();
    zcp_chunk chunks[3];
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 3));
    zcp_chunk_release_bulk(chunks, 3);
    CHECK_OK(zcp_manager_retire_pool(other, 0));
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 3));
    for (int i = 0; i < 3; i++)
        CHECK_EQ(inside_pool_of(&chunks[i]), 1);
    zcp_chunk_release_bulk(chunks, 3);
    zcp_manager_close(other);
    finish(manager);
}

// A process that is killed anywhere in a bulk leaves nothing behind.
static void bulk_until_killed(void *step) {
    zcp_manager *manager = attach();
    zcp_chunk chunks[6];
    for (int i = 0; i < 2; i++) {                                  // first from the loan, then from the cache
        if (i == 1)
            test_step_any_kill((int)(uintptr_t)step);
        CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 6));
        zcp_chunk_release_bulk(chunks, 6);
    }
    test_steps_clear();
    zcp_manager_close(manager);
}

TEST_WITH(handle_bulk_killed_at_each_step, .seconds = 180) {
    for (uint32_t cache = 0; cache <= 4; cache += 4) {
        zcp_manager *manager = create_for_bulk(16, cache);
        bool killed = true;
        for (uintptr_t step = 1; killed; step++) {
            killed = test_join_killed(test_spawn(bulk_until_killed, (void *)step));
            recover(manager);
            CHECK_EQ(used(manager), 0);
            books_check_by(manager, 0);
        }
        finish(manager);
    }
}

static _Atomic(uint32_t) bulk_arrived;

static void *work_in_bulk(void *shared) {
    zcp_manager *manager = shared;
    zcp_chunk chunks[12];
    test_spin_meet(&bulk_arrived, 3);
    for (uint32_t round = 0; round < ROUNDS(3000); round++) {
        uint32_t count = 1 + round % 12;
        zcp_status status = zcp_chunk_allocate_bulk(manager, 64, chunks, count);
        CHECK(status == ZCP_OK || status == ZCP_ERR_EXHAUSTED);
        if (status != ZCP_OK)
            continue;
        for (uint32_t i = 0; i < count; i++)
            pattern_write(&chunks[i], (uintptr_t)chunks + round + i);
        for (uint32_t i = 0; i < count; i++)
            pattern_check(&chunks[i], (uintptr_t)chunks + round + i);
        zcp_chunk_release_bulk(chunks, count);
    }
    return NULL;
}

TEST(handle_bulk_among_threads) {
    zcp_manager *manager = create_for_bulk(30, 4);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        threads[i] = test_thread(work_in_bulk, manager);
    for (int i = 0; i < 3; i++)
        test_thread_join(threads[i]);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// No more than a client may hold

static zcp_manager *attach_limited(uint32_t max_chunks) {
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING,
                                                            .max_chunks = max_chunks}));
    return manager;
}

// It holds `held` of `most` chunks: it gets the others, and no more.
static void check_room(zcp_manager *manager, uint32_t held, uint32_t most) {
    zcp_chunk chunks[16];
    for (uint32_t i = held; i < most; i++)
        chunks[i] = allocate(manager, 64);
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_LIMIT);
    for (uint32_t i = held; i < most; i++)
        zcp_chunk_release(&chunks[i]);
}

TEST(handle_limit_of_allocations) {
    for (uint32_t cache = 0; cache <= 8; cache += 8) {
        zcp_manager *other = create_for_bulk(40, cache), *manager = attach_limited(3);
        zcp_pool_stats stats;
        zcp_chunk chunks[4];
        for (int round = 0; round < 20; round++)
            check_room(manager, 0, 3);
        CHECK_HAS(zcp_last_message(), "holds 3 chunks");
        chunks[0] = allocate(manager, 64);
        zcp_chunk clone = zcp_chunk_clone(&chunks[0]), again = chunk_of(manager, chunks[0].data);
        check_room(manager, 1, 3);                                 // a second handle is no second chunk
        zcp_chunk_release(&chunks[0]);
        zcp_chunk_release(&again);
        check_room(manager, 1, 3);
        CHECK_STATUS(zcp_chunk_allocate_bulk(manager, 64, chunks, 3), ZCP_ERR_LIMIT);
        CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 2));
        CHECK_STATUS(zcp_chunk_allocate_wait(manager, 64, UINT32_MAX, &chunks[2]), ZCP_ERR_LIMIT);   // at once
        CHECK_DESCRIBED_FAILS(manager, (&(zcp_chunk_desc){64, 1, 0}), ZCP_ERR_LIMIT);
        zcp_chunk_release_bulk(chunks, 2);
        zcp_chunk_release(&clone);
        check_room(manager, 0, 3);
        CHECK_OK(zcp_chunk_allocate_wait(manager, 64, 1000, &clone));
        check_room(manager, 1, 3);
        CHECK_OK(zcp_manager_pool_stats(manager, 0, &stats));
        CHECK_EQ(stats.failures, 0);
        zcp_chunk copy = clone;
        zcp_chunk_release(&clone);
        zcp_chunk_release(&copy);                                  // is not held
        check_room(manager, 0, 3);
        zcp_manager_close(manager);
        manager = attach_limited(0);                               // the same object, now without a limit
        CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 4));
        zcp_chunk_release_bulk(chunks, 4);
        zcp_manager_close(manager);
        finish(other);
    }
}

TEST(handle_limit_of_acquired_chunks) {
    zcp_manager *manager = create_for_bulk(20, 0), *reader = attach_limited(2);
    zcp_chunk chunks[4], seen[3];
    uint64_t tokens[4];
    CHECK_OK(zcp_chunk_allocate_bulk(manager, 64, chunks, 4));
    for (int i = 0; i < 4; i++)
        tokens[i] = token_of(&chunks[i]);
    zcp_chunk_release(&chunks[3]);
    for (int round = 0; round < 5; round++) {
        seen[0] = acquire(reader, tokens[0]);
        for (int i = 0; i < 5; i++)
            CHECK_ACQUIRE_FAILS(reader, tokens[3], ZCP_ERR_STALE); // takes no room
        seen[1] = acquire(reader, tokens[1]);
        CHECK_ACQUIRE_FAILS(reader, tokens[2], ZCP_ERR_LIMIT);
        CHECK_ACQUIRE_FAILS(reader, 0, ZCP_ERR_INVALID_TOKEN);
        CHECK_ALLOCATE_FAILS(reader, 64, ZCP_ERR_LIMIT);
        seen[2] = acquire(reader, tokens[0]);                      // which it holds
        zcp_chunk_release(&seen[0]);
        CHECK_ACQUIRE_FAILS(reader, tokens[2], ZCP_ERR_LIMIT);
        zcp_chunk_release(&seen[2]);
        seen[2] = acquire(reader, tokens[2]);
        zcp_chunk_release(&seen[2]);
        zcp_chunk_release(&seen[1]);
    }
    zcp_chunk own = allocate(reader, 64), same = acquire(reader, token_of(&own));   // one chunk, as owner and borrower
    check_room(reader, 1, 2);
    zcp_chunk_release(&own);
    check_room(reader, 1, 2);
    zcp_chunk_release(&same);
    check_room(reader, 0, 2);
    zcp_chunk_release_bulk(chunks, 3);
    zcp_manager_close(reader);
    CHECK_ACQUIRE_FAILS(reader, tokens[0], ZCP_ERR_CLOSED);
    finish(manager);
}

TEST(handle_limit_in_an_added_pool) {
    zcp_manager *manager = create(64, 4), *reader = attach_limited(1);
    CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 1000, .chunk_count = 3}, NULL));
    zcp_chunk a = allocate(manager, 1000), b = allocate(manager, 1000);
    zcp_chunk seen = acquire(reader, token_of(&a));                // by which it learns of the pool
    CHECK_ACQUIRE_FAILS(reader, token_of(&b), ZCP_ERR_LIMIT);
    zcp_chunk_release(&seen);
    seen = acquire(reader, token_of(&b));
    zcp_chunk_release(&seen);
    zcp_chunk_release(&a);
    zcp_chunk_release(&b);
    zcp_manager_close(reader);
    finish(manager);
}

TEST(handle_limit_of_topics) {
    zcp_manager *manager = create(64, 8), *reader = attach_limited(1), *writer = attach_limited(3);
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
    zcp_message message;
    zcp_chunk kept, second = scribbled();
    CHECK_OK(zcp_publisher_open(writer, &(zcp_publisher_desc){.topic = "t", .depth = 2}, &publisher));
    CHECK_OK(zcp_subscriber_open(reader, &(zcp_subscriber_desc){.topic = "t"}, &subscriber));
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < 2; i++) {
            zcp_chunk chunk;
            CHECK_OK(zcp_publisher_loan(publisher, 64, &chunk));
            CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
            CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));      // which takes no room
            if (i == 0)
                CHECK_OK(zcp_subscriber_keep(subscriber, &kept));
            else {
                CHECK_STATUS(zcp_subscriber_keep(subscriber, &second), ZCP_ERR_LIMIT);
                CHECK(is_empty(&second));
                zcp_chunk_release(&kept);
            }
        }
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    check_room(reader, 0, 1);
    zcp_manager_close(reader);
    zcp_manager_close(writer);
    finish(manager);
}

// Of the messages in a ring only those count that somebody has still to read.
TEST(handle_limit_leaves_out_what_was_read) {
    zcp_manager *manager = create(64, 8), *writer = attach_limited(2);
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
    zcp_message message;
    zcp_chunk chunk;
    CHECK_OK(zcp_publisher_open(writer, &(zcp_publisher_desc){.topic = "t", .depth = 8}, &publisher));
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = "t"}, &subscriber));
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 2; i++) {
            CHECK_OK(zcp_publisher_loan(publisher, 64, &chunk));
            CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
        }
        CHECK_STATUS(zcp_publisher_loan(publisher, 64, &chunk), ZCP_ERR_LIMIT);
        for (int i = 0; i < 2; i++)
            CHECK_OK(zcp_subscriber_receive(subscriber, 0, &message));
        zcp_subscriber_done(subscriber);
    }
    check_room(writer, 0, 2);
    zcp_manager_close(writer);
    finish(manager);
}

static uint64_t limit_tokens[3];

static void *work_within_limit(void *shared) {
    zcp_manager *manager = shared;
    test_spin_meet(&bulk_arrived, 3);
    for (uint32_t round = 0; round < ROUNDS(3000); round++) {
        zcp_chunk own = {0}, seen = {0};
        zcp_status status = zcp_chunk_allocate(manager, 64, &own);
        CHECK(status == ZCP_OK || status == ZCP_ERR_LIMIT);
        status = zcp_chunk_acquire(manager, limit_tokens[round % 3], &seen);
        CHECK(status == ZCP_OK || status == ZCP_ERR_LIMIT);
        zcp_chunk again = zcp_chunk_clone(&seen);
        zcp_chunk_release(&seen);
        zcp_chunk_release(&own);
        zcp_chunk_release(&again);
    }
    return NULL;
}

TEST(handle_limit_does_not_drift_among_threads) {
    zcp_manager *other = create_for_bulk(60, 4), *manager = attach_limited(4);
    zcp_chunk chunks[3];
    pthread_t threads[3];
    CHECK_OK(zcp_chunk_allocate_bulk(other, 64, chunks, 3));
    for (int i = 0; i < 3; i++)
        limit_tokens[i] = token_of(&chunks[i]);
    for (int i = 0; i < 3; i++)
        threads[i] = test_thread(work_within_limit, manager);
    for (int i = 0; i < 3; i++)
        test_thread_join(threads[i]);
    check_room(manager, 0, 4);
    zcp_chunk_release_bulk(chunks, 3);
    zcp_manager_close(manager);
    finish(other);
}
