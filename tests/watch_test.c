// tests/watch_test.c: what can be seen of an instance is right, and who only looks changes nothing.
#include "harness/pools.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { SMALL = 64, LARGE = 4096, COUNT = 40, CACHE = 4 };

// ---------------------------------------------------------------------------------------------------------------------
// Counters

typedef struct work {
    int threads, rounds;
    _Atomic uint32_t ready, go, done, end;
    _Atomic uint64_t allocations[2], failures[2], held[2];
} work;

typedef struct worker { work *work; zcp_manager *manager; zcp_chunk held[8]; int number; } worker;

static void *work_and_count(void *argument) {
    worker *self = argument;
    work *all = self->work;
    uint64_t allocations[2] = {0, 0}, failures[2] = {0, 0};
    for (int round = 0; round < all->rounds; round++) {
        zcp_chunk *at = &self->held[test_random_below(8)];
        int large = (int)test_random_below(2);
        zcp_chunk_release(at);
        zcp_status status = zcp_chunk_allocate(self->manager, large ? LARGE : SMALL, at);
        CHECK(status == ZCP_OK || status == ZCP_ERR_EXHAUSTED);
        (status == ZCP_OK ? allocations : failures)[large]++;
        if (status == ZCP_OK && test_random_below(2)) {
            zcp_chunk again = acquire(self->manager, token_of(at));     // freed as a borrower's, sometimes
            zcp_chunk_release(test_random_below(2) ? at : &again);
            if (at->manager == NULL)
                *at = again;
        }
    }
    for (int i = 4; i < 8; i++)
        zcp_chunk_release(&self->held[i]);
    for (int i = 0; i < 4; i++)
        if (self->held[i].manager != NULL)
            atomic_fetch_add(&all->held[inside_pool_of(&self->held[i])], 1);
    for (int p = 0; p < 2; p++) {
        atomic_fetch_add(&all->allocations[p], allocations[p]);
        atomic_fetch_add(&all->failures[p], failures[p]);
    }
    test_signal(&all->done);
    test_await(&all->end, 1);
    return NULL;
}

static void work_in_threads(void *argument) {
    work *all = argument;
    enum { MOST = 70 };
    worker *workers = calloc(MOST, sizeof *workers);
    pthread_t threads[MOST];
    zcp_manager *manager = attach();
    CHECK(workers != NULL && all->threads <= MOST);
    for (int i = 0; i < all->threads; i++) {
        workers[i] = (worker){.work = all, .manager = manager, .number = i};
        threads[i] = test_thread(work_and_count, &workers[i]);
    }
    for (int i = 0; i < all->threads; i++)
        test_thread_join(threads[i]);
    test_await(&all->end, 2);                                      // holds what the threads hold, until it is killed
    pause();
}

// By all who look, to the last one; also if there are more threads than numbers, or than leases. When one of two
// processes is killed, what it held counts as released.
static void count_exactly(int threads, int rounds) {
    zcp_config config = one_pool(SMALL, COUNT);
    CHECK_OK(
        zcp_config_add(&config, &(zcp_pool_config){.chunk_size = LARGE, .chunk_count = COUNT, .cache_chunks = CACHE}));
    zcp_manager *manager = create_named(test_instance(), &config, 0),
                *observer = attach_named(test_instance(), ZCP_OBSERVE);
    work *all = test_shared(sizeof *all);
    pid_t pids[2];
    all->threads = threads;
    all->rounds = rounds;
    for (int i = 0; i < 2; i++)
        pids[i] = test_spawn(work_in_threads, all);
    for (uint64_t before = 0; atomic_load(&all->done) < (uint32_t)(2 * threads);) {
        zcp_pool_stats stats = pool_stats(observer, 0);            // while they work
        CHECK(stats.allocations >= before && stats.peak_used <= COUNT && stats.releases <= stats.allocations
              && stats.peak_used >= stats.used);
        before = stats.allocations;
        test_sleep(1);
    }
    for (int killed = 0; killed < 3; killed++) {
        for (uint32_t p = 0; p < 2; p++) {
            zcp_pool_stats stats = pool_stats(manager, p), seen = pool_stats(observer, p);
            CHECK(memcmp(&stats, &seen, sizeof stats) == 0);
            CHECK_EQ(stats.allocations, all->allocations[p]);
            CHECK(killed == 1 || stats.used == (killed == 2 ? 0 : all->held[p]));
            CHECK_EQ(stats.releases, stats.allocations - stats.used);
            CHECK_EQ(stats.failures, all->failures[p]);
            CHECK_EQ(stats.waits, 0);
            CHECK(stats.peak_used >= stats.used && stats.peak_used <= COUNT);
        }
        if (killed == 0) {
            test_signal(&all->end);                                // the threads end
            test_signal(&all->end);
        }
        if (killed < 2) {
            test_kill(pids[killed]);
            CHECK_OK(zcp_manager_recover(manager, NULL));
        }
    }
    zcp_manager_close(observer);
    finish(manager);
}

TEST(watch_counts_exactly) { count_exactly(3, ROUNDS(20000)); }
TEST(watch_counts_exactly_with_more_threads_than_numbers) { count_exactly(70, ROUNDS(400)); }

TEST(watch_peak_of_one_thread_is_exact) {
    for (uint32_t cache = 0; cache <= CACHE; cache += CACHE)
        for (uint32_t flags = 0; flags <= ZCP_CHECKED; flags += ZCP_CHECKED) {
            zcp_config config = {0};
            CHECK_OK(zcp_config_add(
                &config, &(zcp_pool_config){.chunk_size = SMALL, .chunk_count = 300, .cache_chunks = cache}));
            zcp_manager *manager = create_named(test_instance(), &config, flags);
            zcp_chunk chunks[300];
            uint32_t n = 0, peak = 0;
            for (int round = 0; round < 3000; round++) {
                uint32_t next = (uint32_t)test_random_below(round < 1000 ? 20 : round < 2000 ? 100 : 300);
                for (int pairs = 0; pairs < 3 && n < 300; pairs++) {      // not all of them go higher
                    zcp_chunk chunk = allocate(manager, SMALL);
                    zcp_chunk_release(&chunk);
                    peak = n + 1 > peak ? n + 1 : peak;
                }
                while (n < next)
                    chunks[n++] = allocate(manager, SMALL);
                peak = n > peak ? n : peak;
                while (n > next)
                    zcp_chunk_release(&chunks[--n]);
                if (round % 10 == 0) {
                    zcp_pool_stats stats = pool_stats(manager, 0);
                    CHECK_EQ(stats.peak_used, peak);
                    CHECK_EQ(stats.used, n);
                    CHECK_EQ(stats.releases, stats.allocations - n);
                }
            }
            CHECK(peak > 290);
            while (n > 0)
                zcp_chunk_release(&chunks[--n]);
            CHECK_EQ(pool_stats(manager, 0).peak_used, peak);
            finish(manager);
        }
}

TEST(watch_failures_and_waits) {
    zcp_config config = one_pool(SMALL, 2);
    CHECK_OK(zcp_config_add_pool(&config, LARGE, 2));
    zcp_manager *manager = create_named(test_instance(), &config, ZCP_FALLBACK);
    zcp_chunk chunks[4], none;
    for (int i = 0; i < 4; i++)
        chunks[i] = allocate(manager, SMALL);                      // fallen back: no failure
    CHECK_EQ(pool_stats(manager, 0).failures + pool_stats(manager, 1).failures, 0);
    for (uint64_t i = 1; i <= 5; i++) {
        CHECK_ALLOCATE_FAILS(manager, SMALL, ZCP_ERR_EXHAUSTED);
        CHECK_ALLOCATE_FAILS(manager, LARGE + 1, ZCP_ERR_TOO_LARGE);
        CHECK_ALLOCATE_FAILS(manager, 0, ZCP_ERR_INVALID_SIZE);
        CHECK_EQ(pool_stats(manager, 0).failures, i);              // of the pool that would have fitted best
        CHECK_EQ(pool_stats(manager, 1).failures, 0);
    }
    CHECK_ALLOCATE_FAILS(manager, SMALL + 1, ZCP_ERR_EXHAUSTED);
    CHECK_EQ(pool_stats(manager, 1).failures, 1);
    CHECK_STATUS(zcp_chunk_allocate_wait(manager, SMALL, 0, &none), ZCP_ERR_EXHAUSTED);
    CHECK_EQ(pool_stats(manager, 0).failures, 6);
    CHECK_EQ(pool_stats(manager, 0).waits, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK_STATUS(zcp_chunk_allocate_wait(manager, SMALL, 120, &none), ZCP_ERR_TIMEOUT);        // which sleeps twice
        CHECK_EQ(pool_stats(manager, 0).failures, 6 + i);
        CHECK_EQ(pool_stats(manager, 0).waits, i);
    }
    CHECK_STATUS(zcp_chunk_allocate_wait(manager, LARGE, 5, &none), ZCP_ERR_TIMEOUT);
    CHECK_EQ(pool_stats(manager, 1).waits, 1);
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    CHECK_OK(zcp_chunk_allocate_wait(manager, SMALL, 1000, &none));
    CHECK_EQ(pool_stats(manager, 0).waits, 3);
    zcp_chunk_release(&none);
    finish(manager);
}

// A wait that ends well is no failure, whatever pool the chunk comes from.
TEST(watch_waits_that_end_well) {
    enum { FROM_THE_BEST, FROM_A_LARGER, FROM_AN_ADDED, WAYS };
    for (int way = 0; way < WAYS; way++) {
        zcp_config config = one_pool(SMALL + 1, 1);
        CHECK_OK(zcp_config_add_pool(&config, LARGE, 1));
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        zcp_chunk chunks[] = {allocate(manager, SMALL), allocate(manager, LARGE)};
        peer *waiter = peer_begin(ZCP_FALLBACK);
        uint32_t done = tell_to_begin(waiter, PEER_WAIT, SMALL, 30000);
        for (int i = 0; pool_stats(manager, 0).waits == 0; i++) {
            CHECK(i < 20000);
            test_sleep(1);
        }
        if (way == FROM_AN_ADDED)
            add_pool(manager, SMALL, 1);
        else
            zcp_chunk_release(&chunks[way == FROM_A_LARGER]);
        test_await(&waiter->done, done);
        CHECK_MSG(waiter->status == ZCP_OK, "%s", waiter->message);
        CHECK_EQ(waiter->pool, way);
        for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
            CHECK_EQ(pool_stats(manager, p).failures, 0);
            CHECK_EQ(pool_stats(manager, p).waits, p == 0);        // of the pool that fitted best
        }
        peer_end(waiter);
        for (int i = 0; i < 2; i++)
            zcp_chunk_release(&chunks[i]);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients

static zcp_client_stats client_stats(zcp_manager *manager, uint32_t slot) {
    zcp_client_stats stats;
    zcp_client_info info;
    CHECK_OK(zcp_manager_client_stats(manager, slot, &stats));
    CHECK_OK(zcp_manager_client_info(manager, slot, &info));
    CHECK(stats.state == info.state && stats.pid == info.pid && stats.start == info.start);
    CHECK_STR(stats.name, info.name);
    return stats;
}

#define CHECK_CLIENT(slot_, owned_, borrowed_, bytes_, cached_)                                                        \
    do {                                                                                                               \
        zcp_manager *both_[] = {manager, observer};                                                                    \
        for (int w_ = 0; w_ < 2; w_++) {                                                                               \
            zcp_client_stats stats_ = client_stats(both_[w_], (slot_));                                                \
            CHECK_EQ(stats_.owned, (owned_));                                                                          \
            CHECK_EQ(stats_.borrowed, (borrowed_));                                                                    \
            CHECK_EQ(stats_.bytes, (bytes_));                                                                          \
            CHECK_EQ(stats_.cached, (cached_));                                                                        \
        }                                                                                                              \
    } while (0)

TEST(watch_clients_and_what_they_hold) {
    zcp_config config = one_pool(SMALL, COUNT);
    CHECK_OK(
        zcp_config_add(&config, &(zcp_pool_config){.chunk_size = LARGE, .chunk_count = COUNT, .cache_chunks = CACHE}));
    zcp_manager *manager, *observer;
    CHECK_OK(zcp_manager_open(
        &manager,
        &(zcp_manager_desc){.name = test_instance(), .config = &config, .max_clients = 4, .client_name = "the first"}));
    observer = attach_named(test_instance(), ZCP_OBSERVE);
    peer *other = peer_begin(0);
    zcp_client_stats stats = client_stats(observer, other->slot);
    CHECK_EQ(stats.state, ZCP_CLIENT_ALIVE);
    CHECK_EQ(stats.pid, other->pid);
    CHECK_STR(client_stats(observer, slot_of(manager)).name, "the first");
    CHECK_EQ(client_stats(observer, slot_of(manager)).pid, getpid());
    CHECK_CLIENT(other->slot, 0, 0, 0, 0);
    TELL_OK(other, PEER_ALLOCATE, SMALL, 0);
    TELL_OK(other, PEER_ALLOCATE, 100, 0);
    CHECK_CLIENT(other->slot, 2, 0, SMALL + LARGE, 0);
    zcp_chunk seen = acquire(manager, other->token);
    CHECK_CLIENT(slot_of(manager), 0, 1, LARGE, 0);
    TELL_OK(other, PEER_ACQUIRE, other->token, 0);                 // its own: once in the bytes
    TELL_OK(other, PEER_CLONE, 1, 0);
    CHECK_CLIENT(other->slot, 2, 1, SMALL + LARGE, 0);
    for (uint64_t i = 1; i < 4; i++)
        TELL_OK(other, PEER_RELEASE, i, 0);
    CHECK_CLIENT(other->slot, 1, 0, SMALL, 0);
    CHECK_CLIENT(slot_of(manager), 0, 1, LARGE, 0);                // whose owner has let go
    zcp_chunk_release(&seen);
    for (int i = 0; i < 2; i++)
        TELL_OK(other, PEER_PAIR, LARGE, 0);
    CHECK_CLIENT(other->slot, 1, 0, SMALL, 1);
    TELL_OK(other, PEER_ADD, 1000, 10);
    TELL_OK(other, PEER_ALLOCATE, 1000, 0);
    CHECK_CLIENT(other->slot, 2, 0, SMALL + 1000, 1);
    CHECK_OK(zcp_manager_retire_pool(manager, 2));
    CHECK_CLIENT(other->slot, 2, 0, SMALL + 1000, 1);
    test_kill(other->pid);
    CHECK_EQ(client_stats(observer, other->slot).state, ZCP_CLIENT_DEAD);
    CHECK_CLIENT(other->slot, 2, 0, SMALL + 1000, 1);
    CHECK_OK(zcp_manager_recover(manager, NULL));
    CHECK_EQ(client_stats(observer, other->slot).state, ZCP_CLIENT_FREE);
    CHECK_CLIENT(other->slot, 0, 0, 0, 0);
    zcp_client_stats scribble;
    CHECK_STATUS(zcp_manager_client_stats(manager, 4, &scribble), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_client_stats(observer, ZCP_NO_CLIENT, &scribble), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_client_stats(NULL, 0, &scribble), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_client_stats(manager, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    zcp_manager_close(observer);
    memset(&scribble, 0xa5, sizeof scribble);
    CHECK_STATUS(zcp_manager_client_stats(observer, 0, &scribble), ZCP_ERR_CLOSED);
    CHECK(scribble.owned == 0 && scribble.bytes == 0 && scribble.name[0] == 0);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Census

typedef struct list { zcp_census_entry entries[200]; uint32_t count, stop_after; } list;

static bool note_entry(const zcp_census_entry *entry, void *user) {
    list *self = user;
    CHECK(self->count < 200);
    self->entries[self->count++] = *entry;
    return self->count != self->stop_after;
}

static list census_of(zcp_manager *manager, uint32_t stop_after) {
    list all = {.stop_after = stop_after};
    CHECK_OK(zcp_manager_census(manager, note_entry, &all));
    return all;
}

static const zcp_census_entry *entry_of(const list *all, uint32_t pool, uint32_t index) {
    for (uint32_t i = 0; i < all->count; i++)
        if (all->entries[i].pool == pool && all->entries[i].index == index)
            return &all->entries[i];
    CHECK_MSG(false, "chunk %u of pool %u is not in the census", index, pool);
    return NULL;
}

static bool borrows(const zcp_census_entry *entry, uint32_t slot) {
    return entry->borrower_mask[slot / 64] >> slot % 64 & 1;
}

TEST(watch_census_tells_each_chunk_that_is_held) {
    enum { CLIENTS = 70 };
    zcp_config config = one_pool(SMALL, COUNT);
    CHECK_OK(
        zcp_config_add(&config, &(zcp_pool_config){.chunk_size = LARGE, .chunk_count = COUNT, .cache_chunks = CACHE}));
    zcp_manager *manager, *observer, *clients[CLIENTS];
    CHECK_OK(zcp_manager_open(&manager,
                              &(zcp_manager_desc){.name = test_instance(), .config = &config, .max_clients = 130}));
    observer = attach_named(test_instance(), ZCP_OBSERVE);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = attach();
    CHECK_EQ(census_of(observer, 0).count, 0);
    zcp_chunk cached = allocate(manager, LARGE), a, b, seen[CLIENTS], own;
    zcp_chunk_release(&cached);
    CHECK_EQ(pool_stats(observer, 1).cached, 1);
    CHECK_EQ(census_of(observer, 0).count, 0);                     // nobody uses it
    CHECK_OK(zcp_chunk_allocate_tagged(manager, 17, 0xfeedf00d, &a));
    CHECK_OK(zcp_chunk_allocate_tagged(clients[65], 1000, UINT32_MAX, &b));
    CHECK_EQ(zcp_chunk_tag(&a), 0xfeedf00d);
    list early = census_of(observer, 0);
    CHECK_EQ(entry_of(&early, 0, inside_index_in_pool(&a))->token, 0);     // none was made
    for (int i = 0; i < CLIENTS; i++) {
        seen[i] = acquire(clients[i], token_of(&a));
        CHECK_EQ(zcp_chunk_tag(&seen[i]), 0xfeedf00d);
    }
    own = acquire(clients[65], token_of(&b));
    pattern_write(&a, 1);
    for (int who = 0; who < 2; who++) {
        list all = census_of(who ? observer : manager, 0);
        CHECK_EQ(all.count, 2);
        const zcp_census_entry *first = entry_of(&all, 0, inside_index_in_pool(&a)),
                               *second = entry_of(&all, 1, inside_index_in_pool(&b));
        CHECK(first == &all.entries[0]);                           // pool by pool
        CHECK(first->generation == a.generation && first->tag == 0xfeedf00d && first->size == 17
              && first->capacity == SMALL);
        CHECK_EQ(first->owner, slot_of(manager));
        CHECK_EQ(first->borrowers, CLIENTS);
        CHECK_EQ(first->token, token_of(&a));
        CHECK(second->tag == UINT32_MAX && second->size == 1000 && second->capacity == LARGE
              && second->owner == slot_of(clients[65]) && second->borrowers == 1);
        CHECK(borrows(second, slot_of(clients[65])) && !borrows(second, slot_of(manager))
              && !borrows(first, slot_of(manager)));
        for (int i = 0; i < CLIENTS; i++)
            CHECK(borrows(first, slot_of(clients[i])));
        zcp_chunk by_token = acquire(clients[0], first->token);
        pattern_check(&by_token, 1);
        zcp_chunk_release(&by_token);
    }
    zcp_chunk_release(&a);                                         // the owner lets go, the others stay
    zcp_chunk_release(&own);
    for (int i = 0; i < CLIENTS; i++)
        if (i != 66)
            zcp_chunk_release(&seen[i]);
    list all = census_of(observer, 0);
    CHECK_EQ(all.count, 2);
    CHECK(all.entries[0].owner == ZCP_NO_CLIENT && all.entries[0].borrowers == 1
          && borrows(&all.entries[0], slot_of(clients[66])) && all.entries[0].tag == 0xfeedf00d);
    zcp_chunk_release(&seen[66]);
    zcp_chunk_release(&b);
    CHECK_EQ(census_of(observer, 0).count, 0);
    // a tag is of one allocation, not of the chunk; cached ones too
    for (int i = 0; i < 20; i++) {
        zcp_chunk plain = allocate(manager, i % 2 ? SMALL : LARGE), tagged;
        CHECK_OK(zcp_chunk_allocate_tagged(manager, i % 2 ? SMALL : LARGE, 7, &tagged));
        CHECK(zcp_chunk_tag(&plain) == 0 && zcp_chunk_tag(&tagged) == 7);
        CHECK_EQ(
            entry_of(&(list[]){census_of(observer, 0)}[0], inside_pool_of(&tagged), inside_index_in_pool(&tagged))->tag,
            7);
        zcp_chunk copy = tagged;
        zcp_chunk_release(&tagged);
        CHECK(zcp_chunk_tag(&copy) == 0 && zcp_chunk_tag(&tagged) == 0 && zcp_chunk_tag(NULL) == 0);
        tagged = allocate(manager, i % 2 ? SMALL : LARGE);         // the same chunk
        CHECK(tagged.index == copy.index && zcp_chunk_tag(&tagged) == 0);
        zcp_chunk_release(&tagged);
        zcp_chunk_release(&plain);
    }
    for (int i = 0; i < CLIENTS; i++)
        zcp_manager_close(clients[i]);
    zcp_manager_close(observer);
    finish(manager);
}

TEST(watch_census_tells_ages) {
    for (uint32_t cache = 0; cache <= CACHE; cache += CACHE) {
        zcp_config config = {0};
        CHECK_OK(zcp_config_add(&config,
                                &(zcp_pool_config){.chunk_size = SMALL, .chunk_count = COUNT, .cache_chunks = cache}));
        CHECK_OK(zcp_config_add_pool(&config, LARGE, COUNT));
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        zcp_chunk warm = allocate(manager, SMALL);
        zcp_chunk_release(&warm);
        zcp_chunk old = allocate(manager, SMALL), elsewhere;
        for (uint64_t i = 0; i < 100; i++) {
            list all = census_of(manager, 0);
            CHECK_EQ(all.count, 1);
            CHECK_EQ(all.entries[0].age, i);
            zcp_chunk young = allocate(manager, SMALL);
            all = census_of(manager, 0);
            CHECK_EQ(entry_of(&all, 0, inside_index_in_pool(&young))->age, 0);
            CHECK_EQ(entry_of(&all, 0, inside_index_in_pool(&old))->age, i + 1);
            zcp_chunk_release(&young);
            elsewhere = allocate(manager, LARGE);                  // not of that pool
            zcp_chunk_release(&elsewhere);
        }
        zcp_chunk_release(&old);
        finish(manager);
    }
}

typedef struct nested { zcp_manager *manager; uint32_t calls; } nested;

static bool call_within(const zcp_census_entry *entry, void *user) {
    nested *self = user;
    zcp_chunk found = acquire(self->manager, entry->token), fresh = allocate(self->manager, LARGE);
    CHECK_EQ(zcp_chunk_size(&found), entry->size);
    pattern_check(&found, entry->token);
    CHECK_EQ(pool_stats(self->manager, 1).used, 1);
    CHECK(census_of(self->manager, 3).count == 3);
    zcp_chunk_release(&fresh);
    zcp_chunk_release(&found);
    if (self->calls++ == 2) {
        uint32_t pool = add_pool(self->manager, 100, 10);          // pools come and go under it
        CHECK_OK(zcp_manager_retire_pool(self->manager, pool));
    }
    return true;
}

static zcp_chunk to_release[COUNT];

static bool release_within(const zcp_census_entry *entry, void *user) {
    nested *self = user;
    self->calls++;
    for (int i = 0; i < COUNT; i++)                                // the next one in line is no longer there
        if (inside_index_in_pool(&to_release[i]) == entry->index + 1)
            zcp_chunk_release(&to_release[i]);
    return true;
}

TEST(watch_census_may_be_left_and_called_from) {
    zcp_config config = one_pool(SMALL, COUNT);
    CHECK_OK(zcp_config_add_pool(&config, LARGE, COUNT));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    nested self = {manager, 0};
    for (int i = 0; i < COUNT; i++)
        to_release[i] = allocate_with_pattern(manager, SMALL, NULL);
    for (uint32_t stop = 1; stop <= COUNT; stop += 13)
        CHECK_EQ(census_of(manager, stop).count, stop);
    CHECK_OK(zcp_manager_census(manager, call_within, &self));
    CHECK_EQ(self.calls, COUNT);
    CHECK_OK(zcp_manager_retire_pool(manager, 0));                 // what is held of a pool that retires is in it, too
    CHECK_EQ(census_of(manager, 0).count, COUNT);
    self.calls = 0;
    CHECK_OK(zcp_manager_census(manager, release_within, &self));
    CHECK_EQ(self.calls, COUNT / 2);
    CHECK_EQ(used(manager), COUNT / 2);
    CHECK_STATUS(zcp_manager_census(manager, NULL, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_census(NULL, call_within, NULL), ZCP_ERR_INVALID_ARGUMENT);
    for (int i = 0; i < COUNT; i++)
        zcp_chunk_release(&to_release[i]);
    CHECK_EQ(pool_state(manager, 0), ZCP_POOL_NONE);
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_manager_census(manager, call_within, NULL), ZCP_ERR_CLOSED);
    finish(attach());
}

// ---------------------------------------------------------------------------------------------------------------------
// Who only looks

typedef struct copy { void *bytes[2]; size_t size[2]; } copy;

static copy copy_of_both(void) {
    copy all;
    for (int kind = 0; kind < 2; kind++) {
        char path[320];
        all.size[kind] = (size_t)segment_stat(test_instance(), (segment_kind)kind).st_size;
        segment_path(test_instance(), (segment_kind)kind, path);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        all.bytes[kind] = malloc(all.size[kind]);
        CHECK(fd >= 0 && all.bytes[kind] != NULL
              && read(fd, all.bytes[kind], all.size[kind]) == (ssize_t)all.size[kind]);
        close(fd);
    }
    return all;
}

static void check_unchanged(copy *before) {
    copy now = copy_of_both();
    for (int kind = 0; kind < 2; kind++) {
        CHECK_EQ(now.size[kind], before->size[kind]);
        CHECK_MSG(memcmp(now.bytes[kind], before->bytes[kind], now.size[kind]) == 0, "the %s segment was written to",
                  kind == MANAGEMENT ? "management" : "chunk");
        free(now.bytes[kind]);
        free(before->bytes[kind]);
    }
}

// All that an observer may do, and all that it may not.
static void look_at_all(zcp_manager *observer) {
    zcp_config config;
    zcp_manager_info info;
    zcp_recovery report;
    zcp_chunk none = scribbled();
    char text[4000];
    CHECK_OK(zcp_manager_get_info(observer, &info));
    CHECK_EQ(info.slot, ZCP_NO_CLIENT);
    CHECK(info.flags & ZCP_OBSERVE);
    CHECK(info.chunk_base == NULL && info.management_base != NULL);
    CHECK_OK(zcp_manager_get_config(observer, &config));
    CHECK(zcp_manager_format(observer, text, sizeof text) > 0);
    list all = census_of(observer, 0);
    for (uint32_t slot = 0; slot < info.max_clients; slot++)
        client_stats(observer, slot);
    for (uint32_t p = 0; p < zcp_manager_pool_end(observer); p++)
        pool_stats(observer, p);
    CHECK_STATUS(zcp_chunk_allocate(observer, 1, &none), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_chunk_allocate_tagged(observer, 1, 1, &none), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_chunk_allocate_wait(observer, 1, 10000, &none), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_chunk_allocate(observer, UINT64_MAX, &none), ZCP_ERR_READ_ONLY);
    CHECK(is_empty(&none));
    for (uint32_t i = 0; i < all.count; i++)
        CHECK_ACQUIRE_FAILS(observer, all.entries[i].token, ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_recover(observer, &report), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_add_pool(observer, &(zcp_pool_config){.chunk_size = 1, .chunk_count = 1}, NULL),
                 ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_retire_pool(observer, 0), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_reconfigure(observer, &config), ZCP_ERR_READ_ONLY);
}

static void look_by_itself(void *argument) {
    zcp_manager *observer = attach_named(test_instance(), ZCP_OBSERVE | *(uint32_t *)argument);
    CHECK(zcp_manager_find(test_instance()) == NULL);
    CHECK_EQ(count_mappings("_memory_chunk"), 0);
    // what this test's processes share, and nothing else, can be written to
    CHECK_EQ(count_mappings("rw-s"), count_mappings("rw-s 00000000 00:01 "));
    look_at_all(observer);
    CHECK_OK(zcp_manager_check(observer));
    zcp_manager_close(observer);
    CHECK_EQ(count_mappings("_memory_"), 0);
}

// With all slots taken, a dead client that nobody has swept, a pool that was added, one that retires, chunks held,
// borrowed and cached.
TEST(watch_observer_changes_nothing) {
    test_need("MADV_DONTFORK");
    zcp_config config = one_pool(SMALL, COUNT);
    CHECK_OK(
        zcp_config_add(&config, &(zcp_pool_config){.chunk_size = LARGE, .chunk_count = COUNT, .cache_chunks = CACHE}));
    zcp_manager *manager, *other;
    CHECK_OK(
        zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config, .max_clients = 3}));
    other = attach();
    peer *dead = peer_begin(0);
    add_pool(manager, 1000, 10);
    add_pool(manager, 2000, 10);
    zcp_chunk chunks[] = {allocate(manager, SMALL), allocate(manager, LARGE), allocate(other, 1000),
                          allocate(manager, 2000)};
    pattern_write(&chunks[2], peer_pattern(&chunks[2]));
    zcp_chunk seen = acquire(other, token_of(&chunks[0])), cached = allocate(other, LARGE);
    zcp_chunk_release(&cached);
    CHECK_OK(zcp_manager_retire_pool(manager, 3));
    TELL_OK(dead, PEER_ALLOCATE, SMALL, 0);
    TELL_OK(dead, PEER_ACQUIRE, token_of(&chunks[2]), 0);
    zcp_manager *full;
    CHECK_STATUS(zcp_manager_open(&full, &(zcp_manager_desc){.name = test_instance()}), ZCP_ERR_CLIENTS_FULL);
    test_kill(dead->pid);
    copy before = copy_of_both();
    static uint32_t more[] = {
        0, ZCP_FALLBACK, ZCP_CHECKED, ZCP_READ_ONLY_DATA, ZCP_WAIT, ZCP_SHM_PREFAULT | ZCP_SHM_NO_DUMP};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        test_join(test_spawn(look_by_itself, &more[i]));
    zcp_manager *observers[3];
    for (int i = 0; i < 3; i++) {
        observers[i] = attach_named(test_instance(), ZCP_OBSERVE);
        look_at_all(observers[i]);
    }
    CHECK(zcp_manager_find(test_instance()) == manager);
    CHECK_EQ(client_stats(observers[0], dead->slot).state, ZCP_CLIENT_DEAD);
    CHECK_EQ(used(observers[0]), 5);
    check_unchanged(&before);
    for (uint32_t p = 0; p < 4; p++) {                             // the same figures
        zcp_pool_stats a = pool_stats(manager, p), b = pool_stats(observers[1], p);
        CHECK(memcmp(&a, &b, sizeof a) == 0);
    }
    list mine = census_of(manager, 0), yours = census_of(observers[2], 0);
    CHECK_EQ(mine.count, 5);
    CHECK_EQ(yours.count, 5);
    CHECK(memcmp(mine.entries, yours.entries, 5 * sizeof mine.entries[0]) == 0);
    for (int i = 0; i < 2; i++)
        zcp_manager_close(observers[i]);
    zcp_chunk_release(&seen);
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    CHECK_EQ(pool_state(observers[2], 3), ZCP_POOL_NONE);
    CHECK_OK(zcp_manager_recover(manager, NULL));
    CHECK_EQ(used(observers[2]), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));                // it goes on with what there is
    look_at_all(observers[2]);
    CHECK_STATUS(zcp_manager_check(observers[2]), ZCP_ERR_REPLACED);
    chunks[0] = allocate(other, SMALL);
    CHECK_EQ(used(observers[2]), 1);
    zcp_chunk_release(&chunks[0]);
    zcp_manager_close(other);
    zcp_manager_close(manager);
    look_at_all(observers[2]);
    zcp_manager_close(observers[2]);
    CHECK_STATUS(
        zcp_manager_open(&full, &(zcp_manager_desc){.name = test_instance(), .config = &config, .flags = ZCP_OBSERVE}),
        ZCP_ERR_NOT_FOUND);
    for (int mode = ZCP_SHM_CREATE_EXCLUSIVE; mode <= ZCP_SHM_PURGE_AND_CREATE; mode++)
        if (mode != ZCP_SHM_OPEN_EXISTING)
            CHECK_STATUS(zcp_manager_open(&full, &(zcp_manager_desc){.name = test_instance(),
                                                                     .mode = (zcp_shm_mode)mode,
                                                                     .config = &config,
                                                                     .flags = ZCP_OBSERVE}),
                         ZCP_ERR_INVALID_FLAGS);
}

static void observe_a_forked_one(void *argument) {
    CHECK_STATUS(zcp_manager_census(argument, note_entry, NULL), ZCP_ERR_FORKED);
    CHECK_EQ(zcp_manager_pool_end(argument), 0);
    CHECK_EQ(count_mappings("_memory_"), 0);
}

TEST(watch_observer_does_not_cross_fork) {
    test_need("MADV_DONTFORK");
    zcp_manager *manager = create(SMALL, COUNT), *observer = attach_named(test_instance(), ZCP_OBSERVE);
    add_pool(manager, 1000, 10);
    CHECK_EQ(pool_state(observer, 1), ZCP_POOL_LIVE);
    test_join(test_spawn(observe_a_forked_one, observer));
    CHECK_EQ(used(observer), 0);
    zcp_manager_close(observer);
    finish(manager);
}

// It sees what those who work do, at once, and they do not see it.
TEST(watch_observer_beside_those_who_work) {
    zcp_manager *manager = create(SMALL, COUNT), *observer = attach_named(test_instance(), ZCP_OBSERVE);
    peer *other = peer_begin(0);
    for (uint32_t i = 0; i < 20; i++) {
        TELL_OK(other, PEER_ALLOCATE, SMALL, 0);
        CHECK_EQ(used(observer), 1);
        TELL_OK(other, PEER_RELEASE, i, 0);
        CHECK_EQ(used(observer), 0);
        TELL_OK(other, PEER_ADD, 100 + i, 10);
        CHECK_EQ(pool_state(observer, other->pool), ZCP_POOL_LIVE);
        CHECK_EQ(pool_stats(observer, other->pool).chunk_size, 100 + i);
        TELL_OK(other, PEER_RETIRE, other->pool, 0);
        CHECK_EQ(pool_state(observer, other->pool), ZCP_POOL_NONE);
    }
    uint32_t clients = 0;
    for (uint32_t slot = 0; slot < ZCP_DEFAULT_CLIENTS; slot++)
        clients += client_stats(manager, slot).state != ZCP_CLIENT_FREE;
    CHECK_EQ(clients, 2);
    CHECK_STATUS(tell(other, PEER_RECOVER, 0, 0), ZCP_OK);
    peer_end(other);
    zcp_manager_close(observer);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Files that may only be read

enum { OWNER = 64311, GUEST = 64312, STRANGER = 64313, STAFF = 64320 };

typedef struct visit { uid_t user; bool staff; zcp_status attaches, observes; _Atomic uint32_t ready, go; } visit;

static void own_it(void *argument) {
    visit *self = argument;
    zcp_config config = one_pool(SMALL, COUNT);
    zcp_manager *manager;
    test_become(OWNER, STAFF);
    CHECK_OK(zcp_manager_open(
        &manager,
        &(zcp_manager_desc){
            .name = test_instance(), .config = &config, .permissions = 0640, .group = STAFF, .flags = ZCP_SHM_GROUP}));
    add_pool(manager, 1000, 10);
    zcp_chunk chunk = allocate(manager, 1000);
    test_signal(&self->ready);
    test_await(&self->go, 1);
    zcp_chunk_release(&chunk);
    finish(manager);
}

static void visit_it(void *argument) {
    const visit *self = argument;
    zcp_manager *manager;
    test_become(self->user, self->staff ? STAFF : 0);
    CHECK_STATUS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                                .mode = ZCP_SHM_OPEN_EXISTING,
                                                                .flags = ZCP_SHM_ANY_OWNER}),
                 self->attaches);
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                                .mode = ZCP_SHM_OPEN_EXISTING,
                                                                .flags = ZCP_OBSERVE | ZCP_SHM_ANY_OWNER}),
                 self->observes);
    if (manager == NULL)
        return;
    look_at_all(manager);
    CHECK_EQ(used(manager), 1);
    CHECK_EQ(census_of(manager, 0).entries[0].capacity, 1000);
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
    if (self->user != OWNER)
        CHECK_STATUS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                                    .mode = ZCP_SHM_OPEN_EXISTING,
                                                                    .flags = ZCP_OBSERVE}),
                     ZCP_ERR_WRONG_OWNER);
}

TEST(watch_observer_needs_to_read_only) {
    if (getuid() != 0)
        test_skip("only root can become other users");
    visit *visits = test_shared(4 * sizeof *visits);
    visits[1] = (visit){.user = GUEST, .staff = true, .attaches = ZCP_ERR_PERMISSION, .observes = ZCP_OK};
    visits[2] =
        (visit){.user = STRANGER, .staff = false, .attaches = ZCP_ERR_PERMISSION, .observes = ZCP_ERR_PERMISSION};
    visits[3] = (visit){.user = OWNER, .staff = true, .attaches = ZCP_OK, .observes = ZCP_OK};
    pid_t owner = test_spawn(own_it, &visits[0]);
    test_await(&visits[0].ready, 1);
    for (int i = 1; i < 4; i++)
        test_join(test_spawn(visit_it, &visits[i]));
    test_signal(&visits[0].go);
    test_join(owner);
}
