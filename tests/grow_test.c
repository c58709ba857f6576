// tests/grow_test.c: pools come and go while everybody works: who sees that and when, what it takes of names, memory
// and mappings, and what is left when whoever adds or retires is killed or stopped in the middle of it.
#include "harness/pools.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

enum { UNIT = 65536 };                                             // pools begin at multiples of it in both files

// Field by field: what lies between the fields may be anything.
static int by_pool(const void *a, const void *b) {
    const zcp_pool_config *x = a, *y = b;
    const uint64_t all[][2] = {{x->chunk_size, y->chunk_size},
                               {x->chunk_count, y->chunk_count},
                               {x->alignment, y->alignment},
                               {x->cache_chunks, y->cache_chunks}};
    for (int i = 0; i < 4; i++)
        if (all[i][0] != all[i][1])
            return all[i][0] < all[i][1] ? -1 : 1;
    return 0;
}

static bool same_config(const zcp_config *a, const zcp_config *b) {
    bool same = a->pools.size == b->pools.size;
    for (uint32_t i = 0; same && i < a->pools.size; i++)
        same = by_pool(&a->pools.items[i], &b->pools.items[i]) == 0;
    return same;
}

static bool same_figures(zcp_manager *a, zcp_manager *b) {
    zcp_config first, second;
    char mine[8192], yours[8192];
    CHECK_OK(zcp_manager_get_config(a, &first));
    CHECK_OK(zcp_manager_get_config(b, &second));
    zcp_manager_format(a, mine, sizeof mine);
    zcp_manager_format(b, yours, sizeof yours);
    CHECK_STR(mine, yours);
    CHECK_EQ(zcp_manager_pool_end(a), zcp_manager_pool_end(b));
    return same_config(&first, &second);
}

// Allocates in that pool and gives back, whatever pool of that size serves first.
static void use_pool(zcp_manager *manager, uint32_t pool) {
    zcp_pool_stats stats = pool_stats(manager, pool);
    zcp_chunk chunks[256];
    uint32_t n = 0;
    bool found = false;
    CHECK_EQ(stats.state, ZCP_POOL_LIVE);
    for (; n < 256 && !found; n++) {
        chunks[n] = allocate(manager, stats.chunk_size);
        pattern_write(&chunks[n], n);
        found = inside_pool_of(&chunks[n]) == pool;
    }
    CHECK(found);
    while (n-- > 0) {
        pattern_check(&chunks[n], n);
        zcp_chunk_release(&chunks[n]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Added pools are used at once, by everybody

typedef struct crew {
    _Atomic uint32_t ready, phase, seen[8];                        // seen: the phase in which each has done its rounds
    uint32_t best[4];                                              // by phase: the pool that fits best
    _Atomic uint64_t rounds;
} crew;

static const uint32_t crew_flags[] = {0, ZCP_FALLBACK, ZCP_CHECKED, 0};
enum { CREW = sizeof crew_flags / sizeof crew_flags[0], PHASES = 3, WORK = 1000 };
// of the pool that is the best for WORK bytes, by phase
static const uint64_t crew_sizes[PHASES + 1] = {4096, 3000, 2000, 1000};

typedef struct member { crew *crew; uint32_t number; } member;

// Works without a pause. What it begins to allocate after a pool has been added comes from that pool.
static void member_works(void *argument) {
    member *self = argument;
    crew *all = self->crew;
    zcp_manager *manager = attach_named(test_instance(), crew_flags[self->number]);
    zcp_chunk chunks[40] = {{0}};
    test_signal(&all->ready);
    for (uint32_t round = 0;; round++) {
        uint32_t phase = atomic_load(&all->phase), at = (uint32_t)test_random_below(40);
        if (phase > PHASES)
            break;
        if (self->number == 3 && round % 40 == 0)                  // all at once: between these it only allocates
            for (uint32_t i = 0; i < 40; i++)
                zcp_chunk_release(&chunks[i]);
        if (self->number == 3)
            at = round % 40;
        zcp_chunk_release(&chunks[at]);
        chunks[at] = allocate(manager, WORK);
        uint64_t token = token_of(&chunks[at]);
        pattern_write(&chunks[at], token);
        if (inside_pool_of(&chunks[at]) != all->best[phase])
            CHECK_MSG(atomic_load(&all->phase) != phase || zcp_chunk_capacity(&chunks[at]) < crew_sizes[phase],
                      "member %u in phase %u: pool %u, expected %u", self->number, phase, inside_pool_of(&chunks[at]),
                      all->best[phase]);
        zcp_chunk again = acquire(manager, token);
        pattern_check(&again, token);
        zcp_chunk_release(&again);
        if (round % 100 == 99)
            atomic_store(&all->seen[self->number], phase);
        atomic_fetch_add(&all->rounds, 1);
    }
    for (uint32_t i = 0; i < 40; i++)
        zcp_chunk_release(&chunks[i]);
    zcp_manager_close(manager);
}

TEST(grow_is_used_at_once_by_all_who_work) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, 64, 50));
    CHECK_OK(zcp_config_add(&config,
                            &(zcp_pool_config){.chunk_size = crew_sizes[0], .chunk_count = 400, .cache_chunks = 8}));
    zcp_manager *manager = create_named(test_instance(), &config, 0),
                *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA);
    zcp_manager *observer = attach_named(test_instance(), ZCP_OBSERVE);
    crew *all = test_shared(sizeof *all);
    member *members = test_shared(CREW * sizeof *members);
    pid_t pids[CREW];
    all->best[0] = 1;
    for (uint32_t i = 0; i < CREW; i++) {
        members[i] = (member){all, i};
        pids[i] = test_spawn(member_works, &members[i]);
    }
    test_await(&all->ready, CREW);
    for (uint32_t phase = 1; phase <= PHASES; phase++) {
        test_sleep(20);
        CHECK_OK(zcp_manager_add_pool(
            manager,
            &(zcp_pool_config){.chunk_size = crew_sizes[phase], .chunk_count = 400, .cache_chunks = phase == 2 ? 8 : 0},
            &all->best[phase]));
        CHECK_EQ(all->best[phase], phase + 1);
        atomic_store(&all->phase, phase);
        CHECK_EQ(pool_state(observer, phase + 1), ZCP_POOL_LIVE);
        zcp_chunk chunk = allocate(manager, WORK);
        CHECK_EQ(inside_pool_of(&chunk), phase + 1);
        pattern_write(&chunk, phase);
        zcp_chunk seen = acquire(reader, token_of(&chunk));
        pattern_check(&seen, phase);
        zcp_chunk_release(&chunk);
        pattern_check(&seen, phase);
        zcp_chunk_release(&seen);
        for (uint32_t i = 0; i < CREW; i++)
            for (int wait = 0; atomic_load(&all->seen[i]) < phase; wait++) {
                CHECK_MSG(wait < 20000, "member %u stands still", i);
                test_sleep(1);
            }
    }
    atomic_store(&all->phase, PHASES + 1);
    for (uint32_t i = 0; i < CREW; i++)
        test_join(pids[i]);
    zcp_manager_close(observer);
    zcp_manager_close(reader);
    finish(manager);
}

// One after the other, so that each thing which a client may be doing when a pool is added is met for sure.
static void grow_meanwhile(uint32_t flags, uint32_t cache_chunks) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add(&config,
                            &(zcp_pool_config){.chunk_size = 4096, .chunk_count = 50, .cache_chunks = cache_chunks}));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    peer *warm = peer_begin(flags), *holds = peer_begin(flags), *fresh = peer_begin(flags), *failed = peer_begin(flags);
    for (int i = 0; i < 3; i++)
        TELL_OK(warm, PEER_PAIR, WORK, 0);
    TELL_OK(holds, PEER_ALLOCATE, WORK, 0);
    TELL_OK(holds, PEER_ALLOCATE, WORK, 0);
    CHECK_STATUS(tell(failed, PEER_ALLOCATE, 5000, 0), ZCP_ERR_TOO_LARGE);
    uint32_t better = add_pool(manager, 1000, 50), larger = add_pool(manager, 5000, 50);
    TELL_OK(warm, PEER_PAIR, WORK, 0);
    CHECK_EQ(warm->pool, better);
    TELL_OK(holds, PEER_RELEASE, 1, 0);                            // with a release first
    TELL_OK(holds, PEER_ALLOCATE, WORK, 0);
    CHECK_EQ(holds->pool, better);
    TELL_OK(holds, PEER_RELEASE, 0, 0);
    TELL_OK(holds, PEER_PAIR, WORK, 0);
    CHECK_EQ(holds->pool, better);
    TELL_OK(fresh, PEER_PAIR, WORK, 0);
    CHECK_EQ(fresh->pool, better);
    TELL_OK(failed, PEER_PAIR, 5000, 0);
    CHECK_EQ(failed->pool, larger);
    TELL_OK(holds, PEER_RELEASE, 2, 0);
    peer *all[] = {warm, holds, fresh, failed};
    for (int i = 0; i < 4; i++)
        peer_end(all[i]);
    finish(manager);
}

TEST(grow_is_used_by_the_next_call) { grow_meanwhile(0, 0); }
TEST(grow_is_used_by_the_next_call_beside_a_cache) { grow_meanwhile(0, 8); }
TEST(grow_is_used_by_the_next_call_with_fallback) { grow_meanwhile(ZCP_FALLBACK, 0); }
TEST(grow_is_used_by_the_next_call_if_checked) { grow_meanwhile(ZCP_CHECKED, 8); }

// A token may arrive before its receiver knows that the pool is there, in either direction.
TEST(grow_tokens_of_pools_that_were_not_met) {
    zcp_manager *manager = create(64, 10);
    static const uint32_t flags[] = {0, ZCP_READ_ONLY_DATA, ZCP_CHECKED, ZCP_FALLBACK};
    peer *peers[4];
    for (int i = 0; i < 4; i++)
        peers[i] = peer_begin(flags[i]);
    uint32_t pool = add_pool(manager, 1000, 10);
    zcp_chunk chunk = allocate(manager, 1000);
    pattern_write(&chunk, peer_pattern(&chunk));
    for (int i = 0; i < 4; i++) {
        TELL_OK(peers[i], PEER_ACQUIRE, token_of(&chunk), 0);
        CHECK_EQ(peers[i]->pool, pool);
    }
    CHECK_EQ(zcp_chunk_use_count(&chunk), 5);
    zcp_chunk_release(&chunk);
    CHECK_EQ(used_in(manager, pool), 1);
    for (int i = 0; i < 4; i++) {
        TELL_OK(peers[i], PEER_CHECK, 0, 0);
        TELL_OK(peers[i], PEER_RELEASE, 0, 0);
    }
    CHECK_EQ(used_in(manager, pool), 0);
    TELL_OK(peers[0], PEER_ADD, 2000, 10);                         // by another one
    TELL_OK(peers[0], PEER_ALLOCATE, 2000, 0);
    CHECK_EQ(peers[0]->pool, 2);
    chunk = acquire(manager, peers[0]->token);
    pattern_check(&chunk, peer_pattern(&chunk));
    for (int i = 1; i < 4; i++)
        TELL_OK(peers[i], PEER_ACQUIRE, peers[0]->token, 0);
    zcp_chunk_release(&chunk);
    for (int i = 0; i < 4; i++)
        peer_end(peers[i]);
    CHECK_ACQUIRE_FAILS(manager, peers[0]->token, ZCP_ERR_STALE);
    CHECK_ACQUIRE_FAILS(manager, UINT64_C(1) << 32 | 3u << 27, ZCP_ERR_INVALID_TOKEN);
    CHECK_ACQUIRE_FAILS(manager, UINT64_C(1) << 32 | 2u << 27 | 10, ZCP_ERR_INVALID_TOKEN);
    finish(manager);
}

// A chunk in each of two added pools leads to the other one by a relative pointer, in every process.
typedef struct linked { zcp_relptr next; uint64_t value; } linked;
typedef struct chain { uint64_t tokens[3]; uint16_t segments[3]; _Atomic uint32_t ready, go; } chain;

static void follow(void *argument) {
    chain *self = argument;
    zcp_manager *manager = attach();
    test_signal(&self->ready);
    test_await(&self->go, 1);
    zcp_chunk chunks[3];
    for (int i = 2; i >= 0; i--)
        chunks[i] = acquire(manager, self->tokens[i]);
    const linked *at = zcp_chunk_data(&chunks[0]);
    for (int i = 0; i < 3; i++) {
        CHECK(at != NULL && (const void *)at == zcp_chunk_data(&chunks[i]));
        CHECK_EQ(at->value, 100 + (uint64_t)i);
        CHECK_EQ(zcp_relptr_segment(zcp_relptr_of(zcp_manager_registry(manager), at)), self->segments[i]);
        at = ZCP_RELPTR_GET(linked, zcp_manager_registry(manager), at->next);
    }
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&chunks[i]);
    zcp_manager_close(manager);
}

TEST(grow_relative_pointers_lead_into_added_pools) {
    zcp_manager *manager = create(64, 10);
    chain *self = test_shared(sizeof *self);
    pid_t before = test_spawn(follow, self), after;
    test_await(&self->ready, 1);
    add_pool(manager, 100, 10);
    add_pool(manager, 200, 10);
    const zcp_registry *registry = zcp_manager_registry(manager);
    static const uint64_t sizes[] = {64, 100, 200};
    zcp_chunk chunks[3];
    for (int i = 0; i < 3; i++) {
        chunks[i] = allocate(manager, sizes[i]);
        CHECK_EQ(inside_pool_of(&chunks[i]), i);
        self->tokens[i] = token_of(&chunks[i]);
        self->segments[i] = zcp_relptr_segment(zcp_relptr_of(registry, chunks[i].data));
        CHECK(self->segments[i] >= ZCP_SEGMENT_CHUNK && (i == 0 || self->segments[i] > self->segments[i - 1]));
    }
    for (int i = 0; i < 3; i++)
        *(linked *)chunks[i].data = (linked){zcp_relptr_of(registry, chunks[(i + 1) % 3].data), 100 + (uint64_t)i};
    test_signal(&self->go);
    after = test_spawn(follow, self);
    test_join(before);
    test_join(after);
    zcp_relptr gone = zcp_relptr_of(registry, chunks[2].data);
    CHECK_OK(zcp_manager_retire_pool(manager, 2));
    // as long as somebody holds a chunk
    CHECK(ZCP_RELPTR_GET(linked, zcp_manager_registry(manager), gone) == chunks[2].data);
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&chunks[i]);
    CHECK(ZCP_RELPTR_GET(linked, zcp_manager_registry(manager), gone) == NULL);
    CHECK_EQ(add_pool(manager, 300, 10), 2);                       // the same number, but another segment
    zcp_chunk chunk = allocate(manager, 300);
    CHECK(zcp_relptr_segment(zcp_relptr_of(zcp_manager_registry(manager), chunk.data)) > self->segments[2]);
    CHECK(ZCP_RELPTR_GET(linked, zcp_manager_registry(manager), gone) == NULL);
    zcp_chunk_release(&chunk);
    finish(manager);
}

enum { SEGMENTS = 65533 };                                         // ids that added pools have in turn

static uint16_t segment_of(zcp_manager *manager, const zcp_chunk *chunk) {
    return zcp_relptr_segment(zcp_relptr_of(zcp_manager_registry(manager), zcp_chunk_data(chunk)));
}

// So many pools have come and gone that the ids begin again: those of pools that are there are left out.
TEST(grow_gives_each_living_pool_an_id_of_its_own) {
    zcp_manager *manager = create(64, 10), *adder = attach();
    zcp_chunk chunks[4], seen;
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_EQ(add_pool(manager, 100 + i, 4), 1 + i);
        chunks[i] = allocate(manager, 100 + i);
    }
    uint16_t first = segment_of(manager, &chunks[0]);
    zcp_relptr pointer = zcp_relptr_of(zcp_manager_registry(manager), chunks[0].data);
    uint64_t token = token_of(&chunks[0]);
    CHECK_OK(zcp_manager_retire_pool(manager, 2));                 // its chunk is held, so it has its id on
    inside_let_segments_run(manager, SEGMENTS - 3);
    CHECK_EQ(add_pool(adder, 200, 4), 4);
    chunks[3] = allocate(adder, 200);
    zcp_manager *fresh = attach();
    seen = acquire(fresh, token);
    CHECK_EQ(segment_of(fresh, &seen), first);
    CHECK(zcp_relptr_get(zcp_manager_registry(fresh), pointer, 100) == seen.data);
    zcp_chunk_release(&seen);
    zcp_manager *all[] = {manager, adder, fresh};
    for (int m = 0; m < 3; m++) {
        seen = acquire(all[m], token_of(&chunks[3]));
        CHECK_EQ(segment_of(all[m], &seen), first + 3);
        zcp_chunk_release(&seen);
    }
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    zcp_manager_close(fresh);
    zcp_manager_close(adder);
    finish(manager);
}

// A client that has not looked meanwhile still has a pool that is gone under the id of a new one, which it meets first.
TEST(grow_gives_an_id_again_that_an_old_client_still_has) {
    zcp_manager *manager = create(64, 10), *old = attach();
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(add_pool(manager, 100 + i, 4), 1 + i);
    CHECK_EQ(zcp_manager_pool_end(old), 3);
    zcp_chunk chunk = allocate(old, 101);
    uint16_t last = segment_of(old, &chunk);
    zcp_chunk_release(&chunk);
    CHECK_EQ(zcp_manager_pool_end(old), 3);
    CHECK_OK(zcp_manager_retire_pool(manager, 1));
    CHECK_OK(zcp_manager_retire_pool(manager, 2));
    inside_let_segments_run(manager, SEGMENTS - 1);
    CHECK_EQ(add_pool(manager, 200, 4), 1);
    chunk = allocate(manager, 200);
    CHECK_EQ(segment_of(manager, &chunk), last);
    zcp_chunk seen = acquire(old, token_of(&chunk));
    CHECK_EQ(segment_of(old, &seen), last);
    zcp_chunk_release(&seen);
    zcp_chunk_release(&chunk);
    zcp_manager_close(old);
    finish(manager);
}

static peer *leaver;

static void last_one_leaves(void) {
    TELL_OK(leaver, PEER_RELEASE, 0, 0);
}

// A pool goes while another one is just being added, which gets its number: nothing of it is left in the registry.
TEST(grow_into_the_number_of_a_pool_that_goes_meanwhile) {
    test_need("MADV_REMOVE");
    zcp_manager *manager = create(64, 10);
    CHECK_EQ(add_pool(manager, 1000, 4), 1);
    zcp_chunk chunk = allocate(manager, 1000);
    pattern_write(&chunk, peer_pattern(&chunk));
    zcp_relptr pointer = zcp_relptr_of(zcp_manager_registry(manager), chunk.data);
    CHECK(zcp_relptr_get(zcp_manager_registry(manager), pointer, 1000) == chunk.data);
    leaver = peer_begin(0);
    TELL_OK(leaver, PEER_ACQUIRE, token_of(&chunk), 0);
    CHECK_OK(zcp_manager_retire_pool(manager, 1));
    zcp_chunk_release(&chunk);
    test_at_step("growth_measured", 1, TEST_CALL, last_one_leaves);
    CHECK_EQ(add_pool(manager, 1000, 4), 1);
    CHECK(zcp_relptr_get(zcp_manager_registry(manager), pointer, 1000) == NULL);
    use_pool(manager, 1);
    peer_end(leaver);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Limits, and what stays

TEST(grow_up_to_32_pools) {
    zcp_manager *manager = create(64, 10), *old = attach();
    peer *other = peer_begin(0);
    uint32_t number;
    zcp_chunk chunks[ZCP_MAX_LIVE_POOLS];
    for (uint32_t p = 1; p < ZCP_MAX_LIVE_POOLS; p++)
        CHECK_EQ(add_pool(manager, 64 + 32 * p, 3), p);
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        chunks[p] = allocate(p % 2 ? manager : old, 64 + 32 * p);
        CHECK_EQ(inside_pool_of(&chunks[p]), p);
        pattern_write(&chunks[p], peer_pattern(&chunks[p]));
        TELL_OK(other, PEER_ACQUIRE, token_of(&chunks[p]), 0);
    }
    CHECK_EQ(zcp_manager_pool_end(old), ZCP_MAX_LIVE_POOLS);
    zcp_config first;
    CHECK_OK(zcp_manager_get_config(old, &first));                 // the first ones
    CHECK(first.pools.size == ZCP_MAX_POOLS
          && first.pools.items[ZCP_MAX_POOLS - 1].chunk_size == 64 + 32 * (ZCP_MAX_POOLS - 1));
    number = 77;
    CHECK_STATUS(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 10, .chunk_count = 1}, &number),
                 ZCP_ERR_FULL);
    CHECK_EQ(number, 77);
    CHECK_STATUS(tell(other, PEER_ADD, 10, 1), ZCP_ERR_FULL);
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        TELL_OK(other, PEER_CHECK, p, 0);
        zcp_chunk_release(&chunks[p]);
        CHECK_EQ(used_in(old, p), 1);
    }
    CHECK_OK(zcp_manager_retire_pool(old, 17));
    // it still has a chunk in use
    CHECK_STATUS(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 10, .chunk_count = 1}, NULL),
                 ZCP_ERR_FULL);
    TELL_OK(other, PEER_RELEASE, 17, 0);
    CHECK_EQ(pool_state(manager, 17), ZCP_POOL_NONE);
    CHECK_EQ(add_pool(manager, 10, 1), 17);
    CHECK_STATUS(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 10, .chunk_count = 1}, NULL),
                 ZCP_ERR_FULL);
    use_pool(old, 17);
    TELL_OK(other, PEER_PAIR, 10, 0);
    CHECK_EQ(other->pool, 17);
    peer_end(other);
    zcp_manager_close(old);
    finish(manager);
}

// Before a pool is refused for want of a number, those whose last holder is dead go.
TEST(grow_takes_the_number_back_that_a_dead_one_holds) {
    test_need("MADV_REMOVE");
    for (int reconfigures = 0; reconfigures < 2; reconfigures++) {
        zcp_manager *manager = create(64, 10);
        peer *holder = peer_begin(0);
        for (uint32_t p = 1; p < ZCP_MAX_LIVE_POOLS; p++)
            CHECK_EQ(add_pool(manager, 64 + 32 * p, 3), p);
        TELL_OK(holder, PEER_ALLOCATE, 64 + 32 * 17, 0);
        CHECK_OK(zcp_manager_retire_pool(manager, 17));
        zcp_pool_config pool = {.chunk_size = 10, .chunk_count = 1};
        CHECK_STATUS(zcp_manager_add_pool(manager, &pool, NULL), ZCP_ERR_FULL);
        test_kill(holder->pid);
        CHECK_STATUS(zcp_manager_retire_pool(manager, 99), ZCP_ERR_INVALID_ARGUMENT);
        char message[300];
        snprintf(message, sizeof message, "%s", zcp_last_message());
        zcp_config config = one_pool(10, 1);
        if (reconfigures)
            CHECK_OK(zcp_manager_reconfigure(manager, &config));
        else
            CHECK_OK(zcp_manager_add_pool(manager, &pool, NULL));
        CHECK_STR(zcp_last_message(), message);                    // nothing has failed since
        CHECK_EQ(pool_stats(manager, 17).chunk_size, 10);
        CHECK_RECOVERS(manager, 0, 0);
        finish(manager);
    }
}

TEST(grow_by_pools_of_any_alignment) {
    zcp_manager *manager = create(64, 10);
    peer *other = peer_begin(0);
    for (uint32_t alignment = 0; alignment <= 4096; alignment = alignment == 0 ? 1 : alignment * 2) {
        uint32_t number, real = alignment ? alignment : ZCP_DEFAULT_ALIGNMENT;
        zcp_pool_config pool = {.chunk_size = 1000, .chunk_count = 7, .alignment = alignment};
        zcp_chunk chunks[7];
        CHECK_OK(zcp_manager_add_pool(manager, &pool, &number));
        zcp_pool_stats stats = pool_stats(manager, number);
        CHECK(stats.alignment == real && stats.stride % real == 0 && stats.stride >= 1000 && stats.total == 7
              && stats.chunk_size == 1000);
        for (int i = 0; i < 7; i++) {
            chunks[i] = allocate(manager, 1000);
            CHECK_EQ((uintptr_t)chunks[i].data % real, 0);
            pattern_write(&chunks[i], peer_pattern(&chunks[i]));
        }
        for (uint32_t i = 0; i < 7; i++) {
            TELL_OK(other, PEER_ACQUIRE, token_of(&chunks[i]), 0);
            zcp_chunk_release(&chunks[i]);
            TELL_OK(other, PEER_CHECK, i, 0);
        }
        for (uint32_t i = 0; i < 7; i++)
            TELL_OK(other, PEER_RELEASE, i, 0);
        other->count = 0;
        CHECK_OK(zcp_manager_retire_pool(manager, number));
        CHECK_EQ(pool_state(manager, number), ZCP_POOL_NONE);
    }
    peer_end(other);
    finish(manager);
}

// What 200 rounds leave is the pools' parts of the management segment, in the file and in the address space of those
// who met them.
TEST(grow_and_retire_200_times_leaves_little) {
    test_need("MADV_REMOVE");
    enum { TIMES = 200, WARM_UP = 8 };
    zcp_manager *manager = create(64, 10), *old = attach();
    peer *other = peer_begin(0);
    zcp_pool_config pool = {.chunk_size = 3000, .chunk_count = 100};
    uint64_t memory[2] = {0, 0};
    int descriptors = 0, mappings = 0, chunk_mappings = 0;
    for (int i = 0; i < TIMES + WARM_UP; i++) {
        uint32_t number;
        if (i == WARM_UP) {
            memory[MANAGEMENT] = segment_memory(test_instance(), MANAGEMENT);
            memory[CHUNKS] = segment_memory(test_instance(), CHUNKS);
            descriptors = count_descriptors();
            mappings = count_mappings(NULL);
            chunk_mappings = count_mappings("_memory_chunk");
        }
        CHECK_OK(zcp_manager_add_pool(i % 2 ? manager : old, &pool, &number));
        CHECK_EQ(number, 1);
        use_pool(manager, 1);
        use_pool(old, 1);
        TELL_OK(other, PEER_PAIR, 3000, 0);
        CHECK_EQ(other->pool, 1);
        CHECK_OK(zcp_manager_retire_pool(i % 3 ? manager : old, 1));
        CHECK_EQ(pool_state(manager, 1), ZCP_POOL_NONE);
        CHECK_EQ(pool_state(old, 1), ZCP_POOL_NONE);
        CHECK_STATUS(tell(other, PEER_PAIR, 3000, 0), ZCP_ERR_TOO_LARGE);
    }
    zcp_config only = {0};
    CHECK_OK(zcp_config_add_pool(&only, 3000, 100));
    uint64_t part = zcp_config_management_bytes(&only, 0) - 4096;  // without the header
    test_note("management %llu KiB more, chunks %lld, mappings %d -> %d",
              (unsigned long long)((segment_memory(test_instance(), MANAGEMENT) - memory[MANAGEMENT]) / 1024),
              (long long)(segment_memory(test_instance(), CHUNKS) - memory[CHUNKS]), mappings, count_mappings(NULL));
    CHECK_EQ(segment_memory(test_instance(), CHUNKS), memory[CHUNKS]);
    CHECK(segment_memory(test_instance(), MANAGEMENT) <= memory[MANAGEMENT] + TIMES * part);
    CHECK_EQ(count_descriptors(), descriptors);
    CHECK_EQ(count_mappings("_memory_chunk"), chunk_mappings + 2 * TIMES);     // they stay until close
#if !defined(TEST_TSAN)                                            // which has mappings of its own
#ifndef TEST_TSAN                                                  // which maps as much again for itself
    CHECK(count_mappings(NULL) <= mappings + 2 * 3 * TIMES);
#endif
#endif
    peer_end(other);
    zcp_manager_close(old);
    zcp_manager *fresh = attach();
    CHECK(count_mappings("_memory_chunk") <= chunk_mappings + TIMES);
    CHECK(same_figures(manager, fresh));
    zcp_manager_close(fresh);
    mappings = count_mappings(NULL);
    finish(manager);
    CHECK_EQ(count_mappings("_memory_"), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Refusals

static void check_refusal(zcp_manager *adder, zcp_manager *manager, zcp_manager *other, const zcp_pool_config *pool,
                          zcp_status expected) {
    uint32_t number = 77;
    uint64_t memory[] = {segment_memory(test_instance(), MANAGEMENT), segment_memory(test_instance(), CHUNKS)};
    CHECK_STATUS(zcp_manager_add_pool(adder, pool, &number), expected);
    CHECK_EQ(number, 77);
    CHECK(zcp_last_message()[0] != 0);
    CHECK_EQ(segment_memory(test_instance(), MANAGEMENT), memory[MANAGEMENT]);
    CHECK_EQ(segment_memory(test_instance(), CHUNKS), memory[CHUNKS]);
    CHECK(same_figures(manager, other));
    use_pool(manager, 0);
    use_pool(other, 0);
}

TEST(grow_refuses_what_is_no_pool) {
    zcp_manager *manager = create(64, 10), *other = attach();
    zcp_manager *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA),
                *observer = attach_named(test_instance(), ZCP_OBSERVE);
    static const struct { zcp_pool_config pool; zcp_status status; } bad[] = {
        {{0, 10, 0, 0}, ZCP_ERR_INVALID_SIZE},
        {{64, 0, 0, 0}, ZCP_ERR_INVALID_SIZE},
        {{64, ZCP_MAX_CHUNKS + 1, 0, 0}, ZCP_ERR_INVALID_SIZE},
        {{64, 10, 0, ZCP_MAX_CACHE_CHUNKS + 1}, ZCP_ERR_INVALID_SIZE},
        {{64, 10, 48, 0}, ZCP_ERR_INVALID_ALIGNMENT},
        {{64, 10, UINT32_C(1) << 31, 0}, ZCP_ERR_INVALID_ALIGNMENT},
        {{UINT64_MAX, 1, 0, 0}, ZCP_ERR_OVERFLOW},
        {{UINT64_MAX / 2, 2, 0, 0}, ZCP_ERR_OVERFLOW},
        {{UINT64_C(1) << 40, 1024, 0, 0}, ZCP_ERR_OVERFLOW},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        check_refusal(manager, manager, other, &bad[i].pool, bad[i].status);
    check_refusal(manager, manager, other, NULL, ZCP_ERR_INVALID_ARGUMENT);
    zcp_pool_config good = {.chunk_size = 64, .chunk_count = 10};
    check_refusal(reader, manager, other, &good, ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_add_pool(observer, &good, NULL), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_add_pool(NULL, &good, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(same_figures(manager, observer));
    zcp_manager_close(observer);
    zcp_manager_close(reader);
    zcp_manager_close(other);
    CHECK_STATUS(zcp_manager_add_pool(other, &good, NULL), ZCP_ERR_CLOSED);
    CHECK_STATUS(zcp_manager_retire_pool(other, 0), ZCP_ERR_CLOSED);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Not enough room

static uint64_t free_pages(void) {
    struct statvfs now;
    CHECK(statvfs("/dev/shm", &now) == 0);
    return (uint64_t)now.f_bfree * now.f_bsize / 4096;
}

// Memory that a pool takes of each segment.
typedef struct part { uint64_t management, chunks; } part;

static part part_of(uint64_t chunk_size, uint32_t chunk_count) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, chunk_size, chunk_count));
    zcp_manager *manager = create_named(test_instance_n(9), &config, 0);
    part before = {segment_memory(test_instance_n(9), MANAGEMENT), segment_memory(test_instance_n(9), CHUNKS)};
    CHECK_EQ(add_pool(manager, chunk_size, chunk_count), 1);
    part after = {segment_memory(test_instance_n(9), MANAGEMENT), segment_memory(test_instance_n(9), CHUNKS)};
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance_n(9)));
    return (part){after.management - before.management, after.chunks - before.chunks};
}

static void add_without_room(void *argument) {
    (void)argument;
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m,mode=1777") == 0);
    part more = part_of(3000, 20);
    uint64_t needed = (more.management + more.chunks) / 4096;
    CHECK(more.management >= 4096 && more.chunks >= 60000);
    zcp_manager *manager = create(64, 10), *other = attach();
    int filler = open("/dev/shm/filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(filler >= 0);
    for (uint64_t there = 0; there <= needed; there++) {
        CHECK(ftruncate(filler, 0) == 0);
        CHECK(posix_fallocate(filler, 0, (off_t)((free_pages() - there) * 4096)) == 0);
        CHECK_EQ(free_pages(), there);
        zcp_pool_config pool = {.chunk_size = 3000, .chunk_count = 20};
        if (there < needed) {
            check_refusal(there % 2 ? manager : other, manager, other, &pool, ZCP_ERR_NO_SPACE);
            CHECK_EQ(free_pages(), there);
        } else {
            CHECK_EQ(add_pool(manager, 3000, 20), 1);
            CHECK_EQ(free_pages(), 0);
            use_pool(other, 1);                                    // no SIGBUS where there is nothing left
        }
    }
    zcp_manager_close(other);
    finish(manager);
}

// So many pages are left.
static void leave_pages(int filler, uint64_t pages) {
    CHECK(ftruncate(filler, 0) == 0);
    CHECK(posix_fallocate(filler, 0, (off_t)((free_pages() - pages) * 4096)) == 0);
    CHECK_EQ(free_pages(), pages);
}

static void add_and_die(void *argument) {
    zcp_manager *manager = attach();
    test_at_step(argument, 1, TEST_KILL, NULL);
    zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 3000, .chunk_count = 20}, NULL);
}

// What is missing is there, with the dead: chunks of a retired pool, or what an adder had reserved.
static void add_with_the_room_of_the_dead(void *argument) {
    (void)argument;
    CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m,mode=1777") == 0);
    part more = part_of(3000, 20);
    int filler = open("/dev/shm/filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(filler >= 0);
    static const char *const steps[] = {"management_extended", "chunk_extended", "pool_written"};
    for (int reconfigures = 0; reconfigures < 2; reconfigures++)
        for (int how = 0; how < 4; how++) {
            zcp_pool_config pool = {.chunk_size = 3000, .chunk_count = 20};
            if (how == 1)                                          // its records take more than the dead one's
                pool = (zcp_pool_config){.chunk_size = 32, .chunk_count = 300};
            zcp_config config = one_pool(64, 10);
            CHECK_OK(zcp_config_add(&config, &pool));
            CHECK(ftruncate(filler, 0) == 0);
            zcp_manager *manager = create(64, 10);
            if (how < 3) {
                uint64_t before = free_pages();
                leave_pages(filler, (more.management + more.chunks) / 4096);
                test_join_signal(test_spawn(add_and_die, (void *)(uintptr_t)steps[how]), SIGKILL);
                CHECK(free_pages() < (more.management + more.chunks) / 4096 && before > free_pages());
            } else {
                peer *holder = peer_begin(0);
                CHECK_EQ(add_pool(manager, 3000, 20), 1);
                TELL_OK(holder, PEER_ALLOCATE, 3000, 0);
                CHECK_OK(zcp_manager_retire_pool(manager, 1));
                leave_pages(filler, more.management / 4096);
                CHECK_STATUS(zcp_manager_add_pool(manager, &pool, NULL), ZCP_ERR_NO_SPACE);
                test_kill(holder->pid);
            }
            if (reconfigures)
                CHECK_OK(zcp_manager_reconfigure(manager, &config));
            else
                CHECK_OK(zcp_manager_add_pool(manager, &pool, NULL));
            CHECK(how == 1 || free_pages() == 0);
            CHECK_EQ(zcp_manager_pool_end(manager), 2);
            use_pool(manager, 1);
            finish(manager);
        }
}

static void add_beyond_the_limit(void *argument) {
    (void)argument;
    zcp_config small = one_pool(64, 10);
    small.publishers = small.subscribers = small.ring_cells = 1;   // so that the chunks are what is limited
    zcp_manager *manager = create_named(test_instance(), &small, 0), *other = attach();
    zcp_pool_config pool = {.chunk_size = 3000, .chunk_count = 20};
    uint64_t memory = segment_memory(test_instance(), MANAGEMENT),
             chunk_bytes = (uint64_t)segment_stat(test_instance(), CHUNKS).st_size;
    for (rlim_t limit = 0; limit <= UNIT + 60160; limit += limit < UNIT ? UNIT / 4 : 4096) {
        CHECK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, RLIM_INFINITY}) == 0);
        check_refusal(manager, manager, other, &pool, ZCP_ERR_NO_SPACE);
        CHECK_EQ((uint64_t)segment_stat(test_instance(), CHUNKS).st_size, chunk_bytes);
    }
    // it may have become longer, but there is nothing in it
    CHECK_EQ(segment_memory(test_instance(), MANAGEMENT), memory);
    CHECK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){UNIT + 61440, RLIM_INFINITY}) == 0);
    CHECK_EQ(add_pool(manager, 3000, 20), 1);
    use_pool(other, 1);
    zcp_manager_close(other);
    finish(manager);
}

static void need_mounts(void) {
    pid_t probe = fork();
    if (probe == 0)
        _exit(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 ? 0 : 1);
    if (test_wait(probe) != 0)
        test_skip("cannot mount a small /dev/shm");
}

TEST(grow_without_room_leaves_all_as_it_was) {
    need_mounts();
    test_join(test_spawn(add_without_room, NULL));
}

TEST(grow_takes_the_room_back_that_the_dead_have) {
    test_need("MADV_REMOVE");
    need_mounts();
    test_join(test_spawn(add_with_the_room_of_the_dead, NULL));
}

TEST(grow_beyond_the_limit_of_a_file_leaves_all_as_it_was) {
    test_join(test_spawn(add_beyond_the_limit, NULL));
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed or stopped while adding

static const struct { const char *where; bool added; } steps_of_adding[] = {
    {"growth_locked", false}, {"management_extended", false}, {"chunk_extended", false},
    {"pool_written", false},  {"pool_live", true},            {"pool_told", true}};
enum { STEPS_OF_ADDING = sizeof steps_of_adding / sizeof steps_of_adding[0] };

typedef struct adder {
    const char *instance, *where;
    test_action action;
    zcp_status status;
    uint32_t pool;
    _Atomic uint32_t done;
    uint64_t took;
    char message[300];
} adder;

static void add_large(void *argument) {
    adder *self = argument;
    zcp_manager *manager = attach_named(self->instance, 0);
    if (self->where != NULL)
        test_at_step(self->where, 1, self->action, NULL);
    uint64_t began = test_now();
    self->status =
        zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 9000, .chunk_count = 50}, &self->pool);
    self->took = test_now() - began;
    snprintf(self->message, sizeof self->message, "%s", self->status == ZCP_OK ? "" : zcp_last_message());
    test_signal(&self->done);
    zcp_manager_close(manager);
}

TEST(grow_killed_at_each_step_leaves_the_old_or_the_new) {
    part small = part_of(500, 50), large = part_of(9000, 50);
    CHECK(large.chunks > 4 * small.chunks);
    for (int twice = 0; twice < 2; twice++)
        for (int s = 0; s < STEPS_OF_ADDING; s++) {
            zcp_manager *manager = create(64, 10), *other = attach();
            peer *working = peer_begin(0);
            part before = {segment_memory(test_instance(), MANAGEMENT), segment_memory(test_instance(), CHUNKS)};
            uint32_t added = steps_of_adding[s].added ? 1 + (uint32_t)twice : 0;
            for (int i = 0; i <= twice; i++) {
                adder *dies = test_shared(sizeof *dies);
                *dies = (adder){.instance = test_instance(), .where = steps_of_adding[s].where, .action = TEST_KILL};
                test_join_signal(test_spawn(add_large, dies), SIGKILL);
            }
            TELL_OK(working, PEER_PAIR, 64, 0);
            if (s % 2)                                             // else whoever adds next finds it all
                CHECK_RECOVERS(manager, 1, 0);                     // the first one was swept by the second
            uint32_t pool = add_pool(manager, 500, 50);
            CHECK_EQ(pool, 1 + added);
            CHECK_EQ(segment_memory(test_instance(), MANAGEMENT),
                     before.management + small.management + added * large.management);
            CHECK_EQ(segment_memory(test_instance(), CHUNKS), before.chunks + small.chunks + added * large.chunks);
            for (uint32_t p = 0; p <= pool; p++) {
                use_pool(manager, p);
                use_pool(other, p);
                TELL_OK(working, PEER_PAIR, p == 0 ? 64 : p == pool ? 500 : 9000, 0);
            }
            if (!added)
                CHECK_STATUS(tell(working, PEER_PAIR, 9000, 0), ZCP_ERR_TOO_LARGE);
            CHECK_OK(zcp_manager_recover(manager, NULL));
            CHECK(same_figures(manager, other));
            peer_end(working);
            zcp_manager_close(other);
            finish(manager);
        }
}

static void trim_and_die(void *argument) {
    test_at_step(argument, 1, TEST_KILL, NULL);
    attach();                                                      // which recovers
}

// What a killed adder had reserved comes back with the next recovery, whatever leads to that, also if who recovers is
// killed in the middle of it.
TEST(grow_killed_at_each_step_keeps_no_memory) {
    enum { RECOVERED, OPENED, OPENED_BY_A_READER, EXHAUSTED, DIED_LOCKED, DIED_TRIMMED, ANOTHER_ADDS, WAYS };
    part large = part_of(9000, 50);
    for (int how = 0; how < WAYS; how++)
        for (int s = 0; s < STEPS_OF_ADDING; s++) {
            zcp_manager *manager = create(64, 10);
            part before = {segment_memory(test_instance(), MANAGEMENT), segment_memory(test_instance(), CHUNKS)};
            uint64_t added = steps_of_adding[s].added;
            zcp_chunk all[10] = {{0}}, none;
            adder *dies = test_shared(sizeof *dies), *lives = test_shared(sizeof *lives);
            const char *where = steps_of_adding[s].where;
            *dies = (adder){.instance = test_instance(), .where = where, .action = TEST_KILL};
            test_join_signal(test_spawn(add_large, dies), SIGKILL);
            switch (how) {
            case OPENED: zcp_manager_close(attach()); break;
            case OPENED_BY_A_READER: zcp_manager_close(attach_named(test_instance(), ZCP_READ_ONLY_DATA)); break;
            case EXHAUSTED:
                for (int i = 0; i < 10; i++)
                    all[i] = allocate(manager, 64);
                CHECK_STATUS(zcp_chunk_allocate(manager, 64, &none), ZCP_ERR_EXHAUSTED);
                break;
            case DIED_LOCKED:
            case DIED_TRIMMED:
                if (strcmp(where, "growth_locked") == 0 || strcmp(where, "pool_told") == 0)
                    break;                                         // there is nothing to be trimmed
                test_join_signal(test_spawn(trim_and_die, how == DIED_LOCKED ? "trim_locked" : "trimmed"), SIGKILL);
                CHECK_OK(zcp_manager_recover(manager, NULL));
                break;
            case ANOTHER_ADDS:                                     // it is stopped, has the lock, and does it itself
                *lives = (adder){.instance = test_instance(), .where = "growth_locked", .action = TEST_STOP};
                pid_t pid = test_spawn(add_large, lives);
                test_await_stop(pid);
                CHECK_OK(zcp_manager_recover(manager, NULL));
                test_resume(pid);
                test_join(pid);
                CHECK_STATUS(lives->status, ZCP_OK);
                added++;
                break;
            default: CHECK_RECOVERS(manager, 1, 0);
            }
            part after = {segment_memory(test_instance(), MANAGEMENT), segment_memory(test_instance(), CHUNKS)};
            bool right = after.management == before.management + added * large.management;
            CHECK_MSG(right && after.chunks == before.chunks + added * large.chunks,
                      "way %d, killed at %s: %llu and %llu bytes, before %llu and %llu", how, where,
                      (unsigned long long)after.management, (unsigned long long)after.chunks,
                      (unsigned long long)before.management, (unsigned long long)before.chunks);
            for (int i = 0; i < 10; i++)
                zcp_chunk_release(&all[i]);
            CHECK_EQ(add_pool(manager, 500, 50), 1 + added);
            for (uint32_t p = 0; p <= 1 + added; p++)
                use_pool(manager, p);
            finish(manager);
        }
}

TEST_WITH(grow_stopped_at_each_step_delays_nobody_but_adders, .seconds = 90) {
    adder *stopped = test_shared(STEPS_OF_ADDING * sizeof *stopped),
          *second = test_shared(STEPS_OF_ADDING * sizeof *second);
    pid_t stopped_pids[STEPS_OF_ADDING], second_pids[STEPS_OF_ADDING];
    zcp_manager *managers[STEPS_OF_ADDING];
    zcp_config config = one_pool(64, 10);
    for (int s = 0; s < STEPS_OF_ADDING; s++) {
        const char *instance = test_instance_n(s);
        managers[s] = create_named(instance, &config, 0);
        stopped[s] = (adder){.instance = instance, .where = steps_of_adding[s].where, .action = TEST_STOP};
        stopped_pids[s] = test_spawn(add_large, &stopped[s]);
        test_await_stop(stopped_pids[s]);
        second[s] = (adder){.instance = instance};
        second_pids[s] = test_spawn(add_large, &second[s]);
    }
    for (int s = 0; s < STEPS_OF_ADDING; s++) {
        uint64_t began = test_now();
        zcp_manager *manager = managers[s], *observer = attach_named(test_instance_n(s), ZCP_OBSERVE),
                    *joins = attach_named(test_instance_n(s), 0);
        for (int i = 0; i < 1000; i++) {
            zcp_chunk chunk = allocate(manager, 64), seen = acquire(joins, token_of(&chunk));
            zcp_chunk_release(&chunk);
            zcp_chunk_release(&seen);
        }
        CHECK_EQ(used(observer), 0);
        CHECK_OK(zcp_manager_recover(joins, NULL));
        CHECK_OK(zcp_manager_check(joins));
        zcp_chunk chunk;
        zcp_status status = zcp_chunk_allocate(joins, 9000, &chunk);
        if (strcmp(steps_of_adding[s].where, "pool_live") != 0)    // there it is the one or the other
            CHECK_STATUS(status, steps_of_adding[s].added ? ZCP_OK : ZCP_ERR_TOO_LARGE);
        zcp_chunk_release(&chunk);
        zcp_manager_close(joins);
        zcp_manager_close(observer);
        CHECK_MSG(test_now() - began < UINT64_C(3000000000), "at %s: %llu ms", steps_of_adding[s].where,
                  (unsigned long long)((test_now() - began) / 1000000));
    }
    for (int s = 0; s < STEPS_OF_ADDING; s++) {
        char pid[32];
        test_await(&second[s].done, 1);
        test_join(second_pids[s]);
        snprintf(pid, sizeof pid, "process %d ", (int)stopped_pids[s]);
        CHECK_STATUS(second[s].status, ZCP_ERR_TIMEOUT);
        CHECK_MSG(strstr(second[s].message, pid) != NULL, "%s", second[s].message);
        CHECK_MSG(second[s].took > UINT64_C(4500000000) && second[s].took < UINT64_C(9000000000), "%llu ms",
                  (unsigned long long)(second[s].took / 1000000));
        test_resume(stopped_pids[s]);
        test_join(stopped_pids[s]);
        CHECK_STATUS(stopped[s].status, ZCP_OK);
        CHECK_EQ(stopped[s].pool, 1);
        CHECK_EQ(add_pool(managers[s], 500, 50), 2);
        for (uint32_t p = 0; p < 3; p++)
            use_pool(managers[s], p);
        zcp_manager_close(managers[s]);
        books_check(test_instance_n(s), 0);
        CHECK_OK(zcp_manager_destroy(test_instance_n(s)));
    }
}

// The adder is killed before it could say that there is a new pool. Who finds it nevertheless may send a token to who
// does not.
TEST(grow_killed_before_it_is_told_and_a_token) {
    zcp_manager *manager = create(64, 10), *old = attach();
    CHECK_EQ(add_pool(manager, 500, 10), 1);                       // so that whoever attaches looks at all numbers
    use_pool(old, 1);
    adder *dies = test_shared(sizeof *dies);
    *dies = (adder){.instance = test_instance(), .where = "pool_live", .action = TEST_STOP};
    pid_t pid = test_spawn(add_large, dies);
    test_await_stop(pid);
    zcp_manager *fresh = attach();
    zcp_chunk chunk = allocate(fresh, 9000), seen = acquire(old, token_of(&chunk));
    CHECK_EQ(inside_pool_of(&seen), 2);
    zcp_chunk_release(&chunk);
    zcp_chunk_release(&seen);
    CHECK_ACQUIRE_FAILS(old, UINT64_C(1) << 32 | 3u << 27, ZCP_ERR_INVALID_TOKEN);
    test_kill(pid);
    CHECK_RECOVERS(old, 1, 0);
    use_pool(manager, 2);
    zcp_manager_close(fresh);
    zcp_manager_close(old);
    finish(manager);
}

TEST(grow_by_two_at_once) {
    zcp_manager *manager = create(64, 10);
    peer *adders[] = {peer_begin(0), peer_begin(0)};
    for (int round = 0; round < ROUNDS(20); round++) {
        uint64_t numbers = 1;
        for (uint32_t i = 0; i < 15; i++) {
            uint32_t done[2];
            for (uint32_t a = 0; a < 2; a++)
                done[a] = tell_to_begin(adders[a], PEER_ADD, 100 + 100 * a + i, 1 + i);
            for (int a = 0; a < 2; a++) {
                test_await(&adders[a]->done, done[a]);
                CHECK_MSG(adders[a]->status == ZCP_OK, "%s", adders[a]->message);
                CHECK((numbers >> adders[a]->pool & 1) == 0);
                numbers |= UINT64_C(1) << adders[a]->pool;
            }
        }
        CHECK_EQ(numbers, (UINT64_C(1) << 31) - 1);
        for (uint32_t i = 0; i < 15; i++)
            for (uint32_t a = 0; a < 2; a++) {
                zcp_chunk chunk = allocate(manager, 100 + 100 * a + i);
                CHECK_EQ(zcp_chunk_capacity(&chunk), 100 + 100 * a + i);
                CHECK_EQ(pool_stats(manager, inside_pool_of(&chunk)).total, 1 + i);
                pattern_write(&chunk, peer_pattern(&chunk));
                TELL_OK(adders[a], PEER_ACQUIRE, token_of(&chunk), 0);
                TELL_OK(adders[a], PEER_RELEASE, adders[a]->count - 1, 0);
                adders[a]->count--;
                zcp_chunk_release(&chunk);
            }
        for (uint32_t i = 0; i < 15; i++) {
            uint32_t done[2];
            for (uint32_t a = 0; a < 2; a++)
                done[a] = tell_to_begin(adders[a], PEER_RETIRE, 1 + 2 * i + a, 0);
            for (int a = 0; a < 2; a++) {
                test_await(&adders[a]->done, done[a]);
                CHECK_MSG(adders[a]->status == ZCP_OK, "%s", adders[a]->message);
                CHECK_EQ(pool_state(manager, 1 + 2 * i + (uint32_t)a), ZCP_POOL_NONE);
            }
        }
    }
    peer_end(adders[0]);
    peer_end(adders[1]);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Beside other things that happen to an instance

TEST(grow_of_a_destroyed_instance_is_refused) {
    enum { DESTROYED, PURGED, REMOVED_BY_HAND, WAYS };
    for (int how = 0; how < WAYS; how++) {
        zcp_config config = one_pool(64, 10);
        zcp_manager *manager = create_named(test_instance(), &config, 0), *other = attach(), *next = NULL;
        peer *late = peer_begin(0);
        CHECK_EQ(add_pool(manager, 500, 10), 1);
        zcp_chunk chunk = allocate(manager, 500);
        pattern_write(&chunk, peer_pattern(&chunk));
        CHECK_EQ(pool_state(other, 1), ZCP_POOL_LIVE);
        if (how == DESTROYED)
            CHECK_OK(zcp_manager_destroy(test_instance()));
        if (how == REMOVED_BY_HAND)
            for (int kind = 0; kind < 2; kind++) {
                char path[320];
                segment_path(test_instance(), (segment_kind)kind, path);
                CHECK(unlink(path) == 0);
            }
        if (how != DESTROYED)                                      // another one has the name
            CHECK_OK(zcp_manager_open(
                &next,
                &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_PURGE_AND_CREATE, .config = &config}));
        uint32_t number = 77;
        CHECK_STATUS(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 700, .chunk_count = 10}, &number),
                     ZCP_ERR_REPLACED);
        CHECK_EQ(number, 77);
        CHECK_STATUS(tell(late, PEER_ADD, 700, 10), ZCP_ERR_REPLACED);
        CHECK_STATUS(zcp_manager_reconfigure(manager, &config), ZCP_ERR_REPLACED);
        for (uint32_t p = 0; p < 2; p++) {
            use_pool(manager, p);
            use_pool(other, p);
        }
        TELL_OK(late, PEER_PAIR, 64, 0);
        TELL_OK(late, PEER_ACQUIRE, token_of(&chunk), 0);          // what it has kept open leads it to the pool
        TELL_OK(late, PEER_PAIR, 500, 0);
        TELL_OK(late, PEER_RELEASE, 0, 0);
        pattern_check(&chunk, peer_pattern(&chunk));
        CHECK_OK(zcp_manager_retire_pool(other, 1));
        pattern_check(&chunk, peer_pattern(&chunk));
        zcp_chunk_release(&chunk);
        CHECK_EQ(pool_state(manager, 1), ZCP_POOL_NONE);
        peer_end(late);
        zcp_manager_close(other);
        zcp_manager_close(manager);
        if (next != NULL)
            finish(next);
    }
}

TEST(grow_and_retire_look_the_same_to_old_and_new_clients) {
    zcp_config config = {0}, read;
    CHECK_OK(zcp_config_add_pool(&config, 64, 10));
    CHECK_OK(zcp_config_add_pool(&config, 640, 10));
    zcp_manager *manager = create_named(test_instance(), &config, 0), *old = attach(),
                *watching = attach_named(test_instance(), ZCP_OBSERVE);
    CHECK_EQ(add_pool(manager, 1000, 5), 2);
    CHECK_EQ(add_pool(manager, 2000, 6), 3);
    CHECK_EQ(add_pool(manager, 3000, 7), 4);
    CHECK_OK(zcp_manager_retire_pool(manager, 0));                 // one of the creation
    CHECK_OK(zcp_manager_retire_pool(manager, 4));
    zcp_chunk kept = allocate(manager, 1000);
    CHECK_OK(zcp_manager_retire_pool(manager, 2));
    zcp_manager *fresh = attach(), *looking = attach_named(test_instance(), ZCP_OBSERVE);
    CHECK(same_figures(manager, old) && same_figures(old, fresh) && same_figures(fresh, looking)
          && same_figures(looking, watching));
    CHECK_EQ(zcp_manager_pool_end(fresh), 5);
    static const zcp_pool_state states[] = {ZCP_POOL_NONE, ZCP_POOL_LIVE, ZCP_POOL_RETIRING, ZCP_POOL_LIVE,
                                            ZCP_POOL_NONE};
    zcp_pool_stats nothing = {0};
    for (uint32_t p = 0; p < 5; p++) {
        zcp_pool_stats stats = pool_stats(fresh, p);
        CHECK_EQ(stats.state, states[p]);
        CHECK(states[p] != ZCP_POOL_NONE || memcmp(&stats, &nothing, sizeof stats) == 0);
    }
    CHECK_OK(zcp_manager_get_config(fresh, &read));
    CHECK_EQ(read.pools.size, 2);
    CHECK(read.pools.items[0].chunk_size == 640 && read.pools.items[0].chunk_count == 10
          && read.pools.items[0].alignment == ZCP_DEFAULT_ALIGNMENT);
    CHECK(read.pools.items[1].chunk_size == 2000 && read.pools.items[1].chunk_count == 6);
    char text[1000];
    static const char *const expected = "Pool 1: chunk_size=640, total=10, used=0, free=10\n"
                                        "Pool 2: chunk_size=1000, total=5, used=1, free=4, retiring\n"
                                        "Pool 3: chunk_size=2000, total=6, used=0, free=6\n";
    CHECK_EQ(zcp_manager_format(fresh, text, sizeof text), strlen(expected));
    CHECK_STR(text, expected);
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out != NULL);
    zcp_manager_print(looking, out);
    fclose(out);
    CHECK_STR(text, expected);
    CHECK_EQ(zcp_manager_format(fresh, NULL, 0), strlen(expected));
    CHECK_OK(zcp_manager_get_config(manager, &config));
    zcp_chunk_release(&kept);
    zcp_manager_close(looking);
    zcp_manager_close(watching);
    zcp_manager_close(fresh);
    zcp_manager_close(old);
    zcp_manager_close(manager);
    manager = attach();                                            // nobody was there meanwhile
    CHECK_EQ(pool_state(manager, 1), ZCP_POOL_LIVE);
    CHECK_EQ(pool_state(manager, 2), ZCP_POOL_NONE);
    use_pool(manager, 1);
    use_pool(manager, 3);
    CHECK_EQ(add_pool(manager, 5000, 5), 0);
    use_pool(manager, 0);
    finish(manager);
}

// A number of the creation that was given to an added pool, which is gone, or is just being added.
TEST(grow_and_retire_a_number_of_the_creation) {
    zcp_config config = one_pool(64, 10);
    CHECK_OK(zcp_config_add_pool(&config, 640, 10));
    zcp_manager *manager = create_named(test_instance(), &config, 0), *old = attach();
    CHECK_OK(zcp_manager_retire_pool(manager, 0));
    for (int half = 0; half < 2; half++) {
        if (half) {
            adder *dies = test_shared(sizeof *dies);
            *dies = (adder){.instance = test_instance(), .where = "pool_written", .action = TEST_KILL};
            test_join_signal(test_spawn(add_large, dies), SIGKILL);
        } else {
            CHECK_EQ(add_pool(manager, 100, 10), 0);
            CHECK_OK(zcp_manager_retire_pool(manager, 0));
        }
        zcp_manager *fresh = attach();
        CHECK_EQ(pool_state(fresh, 0), ZCP_POOL_NONE);
        CHECK(same_figures(manager, fresh) && same_figures(fresh, old));
        zcp_chunk chunk = allocate(fresh, 64);
        CHECK_EQ(inside_pool_of(&chunk), 1);
        zcp_chunk_release(&chunk);
        zcp_manager_close(fresh);
    }
    zcp_manager_close(old);
    finish(manager);
}

typedef struct inherited { zcp_manager *manager; zcp_chunk chunk; } inherited;

static void use_after_fork(void *argument) {
    inherited *self = argument;
    CHECK_STATUS(zcp_manager_add_pool(self->manager, &(zcp_pool_config){.chunk_size = 10, .chunk_count = 1}, NULL),
                 ZCP_ERR_FORKED);
    CHECK_STATUS(zcp_manager_retire_pool(self->manager, 1), ZCP_ERR_FORKED);
    zcp_config config;
    CHECK_STATUS(zcp_manager_get_config(self->manager, &config), ZCP_ERR_FORKED);
    CHECK_STATUS(zcp_manager_reconfigure(self->manager, &config), ZCP_ERR_FORKED);
    zcp_chunk none;
    CHECK_STATUS(zcp_chunk_allocate_wait(self->manager, 10, 1000, &none), ZCP_ERR_FORKED);
    CHECK(!zcp_chunk_is_valid(&self->chunk) && zcp_chunk_data(&self->chunk) == NULL);
    zcp_chunk_release(&self->chunk);
    CHECK_EQ(count_mappings("_memory_"), 0);                       // nothing of the added pools either
    zcp_manager *again = attach();
    CHECK_EQ(used_in(again, 1), 1);
    use_pool(again, 1);
    zcp_manager_close(again);
}

TEST(grow_and_fork) {
    test_need("MADV_DONTFORK");
    zcp_manager *manager = create(64, 10);
    CHECK_EQ(add_pool(manager, 500, 10), 1);
    inherited self = {manager, allocate(manager, 500)};
    pattern_write(&self.chunk, 5);
    test_join(test_spawn(use_after_fork, &self));
    pattern_check(&self.chunk, 5);
    zcp_chunk_release(&self.chunk);
    use_pool(manager, 1);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// A pool that retires gives out nothing more

typedef struct hammer {
    // retired: that round's pool and all before have been
    _Atomic uint32_t ready, retired, stop;
    _Atomic uint64_t from_small;                                   // allocations out of pools that came and went
} hammer;

typedef struct hammerer { hammer *shared; uint32_t flags; zcp_manager *manager; } hammerer;

enum { SMALLEST = 64, HAMMER_ROUNDS = 40, LARGEST = SMALLEST + HAMMER_ROUNDS + 8, HELD = 8 };

static void *hammer_on(void *argument) {
    hammerer *self = argument;
    zcp_chunk held[HELD] = {{0}};
    uint64_t patterns[HELD] = {0};
    for (uint64_t n = 1; atomic_load(&self->shared->stop) == 0; n++) {
        uint32_t at = (uint32_t)test_random_below(HELD), retired = atomic_load(&self->shared->retired);
        if (held[at].manager != NULL)
            pattern_check(&held[at], patterns[at]);
        zcp_chunk_release(&held[at]);
        held[at] = allocate(self->manager, SMALLEST);
        pattern_write(&held[at], patterns[at] = n);
        uint64_t capacity = zcp_chunk_capacity(&held[at]);
        CHECK_MSG(capacity > SMALLEST + retired, "a chunk of round %llu, when round %u was retired",
                  (unsigned long long)capacity - SMALLEST, retired);
        if (capacity < LARGEST)
            atomic_fetch_add(&self->shared->from_small, 1);
    }
    for (int i = 0; i < HELD; i++)
        zcp_chunk_release(&held[i]);
    return NULL;
}

static void hammer_in_two_threads(void *argument) {
    hammerer *self = argument;
    self->manager = attach_named(test_instance(), self->flags);
    test_signal(&self->shared->ready);
    pthread_t thread = test_thread(hammer_on, self);
    hammer_on(self);
    test_thread_join(thread);
    zcp_manager_close(self->manager);
}

TEST(retire_gives_out_nothing_more) {
#if defined(TEST_TSAN)
    test_skip("TSan does not know that the kernel wipes the mutex in a child");
#endif
#if defined(TEST_TSAN)
    test_skip("TSan does not know that the kernel wipes the mutex in a child");
#endif
    zcp_manager *manager = create(LARGEST, 100);
    hammer *shared = test_shared(sizeof *shared);
    hammerer *all = test_shared(3 * sizeof *all);
    static const uint32_t flags[] = {0, ZCP_FALLBACK, ZCP_CHECKED};
    pid_t pids[3];
    for (int i = 0; i < 3; i++) {
        all[i] = (hammerer){shared, flags[i], NULL};
        pids[i] = test_spawn(hammer_in_two_threads, &all[i]);
    }
    test_await(&shared->ready, 3);
    uint32_t rounds = (uint32_t)ROUNDS(HAMMER_ROUNDS - 1);
    for (uint32_t round = 1; round <= rounds; round++) {
        zcp_pool_config pool = {.chunk_size = SMALLEST + round, .chunk_count = 100, .cache_chunks = round % 2 ? 0 : 4};
        uint32_t number;
        uint64_t before = atomic_load(&shared->from_small);
        CHECK_OK(zcp_manager_add_pool(manager, &pool, &number));
        for (int wait = 0; atomic_load(&shared->from_small) < before + 200; wait++) {
            CHECK_MSG(wait < 20000, "round %u: nobody uses pool %u", round, number);
            test_sleep(1);
        }
        CHECK_OK(zcp_manager_retire_pool(manager, number));
        atomic_store(&shared->retired, round);
        // nobody holds on to it for long
        for (int wait = 0; pool_state(manager, number) != ZCP_POOL_NONE; wait++) {
            CHECK_MSG(wait < 5000, "round %u: pool %u stays: %llu used, %llu cached", round, number,
                      (unsigned long long)pool_stats(manager, number).used,
                      (unsigned long long)pool_stats(manager, number).cached);
            test_sleep(1);
        }
    }
    atomic_store(&shared->stop, 1);
    for (int i = 0; i < 3; i++)
        test_join(pids[i]);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// What is held of it stays until it is released; then the memory goes back, whoever was the last

typedef enum { OWNER, OWNER_AFTER_A_CLONE, BORROWER, CLOSING_OWNER, KILLED_OWNER, KILLED_BORROWER, READER } last_one;

static const char *const last_ones[] = {"the owner", "the owner's clone", "a borrower", "an owner that closes",
                                        "an owner that is killed", "a borrower that is killed", "a reader"};

// The pool lies between two others, or was added.
static void retire_until(last_one last, bool added, uint32_t flags) {
    enum { SIZE = 5000, COUNT = 100 };
    zcp_config config = one_pool(64, 10);
    if (!added)
        CHECK_OK(zcp_config_add_pool(&config, SIZE, COUNT));
    CHECK_OK(zcp_config_add_pool(&config, 65, 10));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    uint64_t without = segment_memory(test_instance(), CHUNKS), slack = 0;
    uint32_t pool = 1;
    if (added) {
        pool = add_pool(manager, SIZE, COUNT);
    } else {
        without -= pool_stats(manager, 1).stride * COUNT;
        slack = 2 * 4096;
    }
    peer *owner = peer_begin(flags), *borrower = peer_begin(last == READER ? ZCP_READ_ONLY_DATA : flags),
         *late = peer_begin(0);
    TELL_OK(owner, PEER_ALLOCATE, SIZE, 0);
    uint64_t token = owner->token;
    TELL_OK(borrower, PEER_ACQUIRE, token, 0);
    CHECK_OK(zcp_manager_retire_pool(manager, pool));
    CHECK_EQ(pool_state(manager, pool), ZCP_POOL_RETIRING);
    CHECK_EQ(used_in(manager, pool), 1);
    CHECK_ALLOCATE_FAILS(manager, SIZE, ZCP_ERR_TOO_LARGE);
    CHECK_STATUS(tell(owner, PEER_PAIR, SIZE, 0), ZCP_ERR_TOO_LARGE);
    CHECK_STATUS(zcp_manager_retire_pool(manager, pool), ZCP_ERR_NOT_FOUND);
    CHECK(segment_memory(test_instance(), CHUNKS) > without + SIZE * (COUNT - 4));
    TELL_OK(late, PEER_ACQUIRE, token, 0);                         // goes on as ever for what is held
    TELL_OK(owner, PEER_CHECK, 0, 0);
    TELL_OK(borrower, PEER_CHECK, 0, 0);
    TELL_OK(late, PEER_RELEASE, 0, 0);
    zcp_chunk seen = acquire(manager, token), again = zcp_chunk_clone(&seen);
    CHECK_EQ(zcp_chunk_use_count(&seen), 4);
    pattern_check(&again, peer_pattern(&again));
    zcp_chunk_release(&seen);
    zcp_chunk_release(&again);
    if (last == OWNER_AFTER_A_CLONE) {
        TELL_OK(owner, PEER_CLONE, 0, 0);
        TELL_OK(owner, PEER_RELEASE, 0, 0);
    }
    bool borrower_lasts = last == BORROWER || last == KILLED_BORROWER || last == READER;
    TELL_OK(borrower_lasts ? owner : borrower, PEER_RELEASE, 0, 0);
    CHECK_EQ(used_in(manager, pool), 1);
    TELL_OK(borrower_lasts ? borrower : owner, PEER_CHECK, last == OWNER_AFTER_A_CLONE ? 1 : 0, 0);
    if (last == CLOSING_OWNER)
        peer_end(owner);
    else if (last == KILLED_OWNER || last == KILLED_BORROWER)
        test_kill(last == KILLED_OWNER ? owner->pid : borrower->pid);
    else
        TELL_OK(borrower_lasts ? borrower : owner, PEER_RELEASE, last == OWNER_AFTER_A_CLONE ? 1 : 0, 0);
    if (last == KILLED_OWNER || last == KILLED_BORROWER)
        CHECK_RECOVERS(manager, 1, 1);
    if (last == READER)
        // it cannot give memory back, so whoever comes by does
        CHECK_RECOVERS(manager, 0, 0);
    CHECK_MSG(pool_state(manager, pool) == ZCP_POOL_NONE, "the last one was %s", last_ones[last]);
    uint64_t left = segment_memory(test_instance(), CHUNKS);
    CHECK_MSG(left <= without + slack, "the last one was %s: %llu bytes are left, %llu expected", last_ones[last],
              (unsigned long long)left, (unsigned long long)without);
    CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_STALE);
    CHECK_EQ(add_pool(manager, 6000, 10), pool);
    CHECK_ACQUIRE_FAILS(manager, token, ZCP_ERR_STALE);
    use_pool(manager, 0);
    use_pool(manager, pool);
    if (last != CLOSING_OWNER && last != KILLED_OWNER)
        peer_end(owner);
    if (last != KILLED_BORROWER)
        peer_end(borrower);
    peer_end(late);
    finish(manager);
}

TEST(retire_keeps_what_is_held_and_gives_the_memory_back) {
    test_need("MADV_REMOVE");
    for (int last = OWNER; last <= READER; last++)
        for (int added = 0; added < 2; added++)
            retire_until((last_one)last, added, 0);
}

TEST(retire_keeps_what_is_held_by_those_who_check) {
    test_need("MADV_REMOVE");
    for (int last = OWNER; last <= READER; last++)
        retire_until((last_one)last, true, ZCP_CHECKED);
}

// Who has locked it into memory keeps nothing either.
TEST(retire_what_is_locked_into_memory) {
    test_need("MADV_REMOVE");
    zcp_config config = one_pool(64, 10);
    zcp_manager *manager;
    zcp_status status = zcp_manager_open(
        &manager, &(zcp_manager_desc){.name = test_instance(), .config = &config, .flags = ZCP_SHM_LOCK});
    if (status == ZCP_ERR_PERMISSION || status == ZCP_ERR_NO_MEMORY)
        test_skip("no memory may be locked here");
    CHECK_OK(status);
    for (int by_locked = 0; by_locked < 2; by_locked++) {
        uint64_t without = segment_memory(test_instance(), CHUNKS);
        peer *locked = peer_begin(ZCP_SHM_LOCK | ZCP_SHM_PREFAULT), *plain = peer_begin(0);
        uint32_t pool = add_pool(manager, 5000, 20);
        TELL_OK(locked, PEER_PAIR, 5000, 0);
        TELL_OK(plain, PEER_PAIR, 5000, 0);
        TELL_OK(by_locked ? locked : plain, PEER_RETIRE, pool, 0);
        CHECK_EQ(pool_state(manager, pool), ZCP_POOL_NONE);
        CHECK_EQ(segment_memory(test_instance(), CHUNKS), without);
        peer_end(locked);
        peer_end(plain);
    }
    finish(manager);
}

typedef struct cacher { zcp_manager *manager; _Atomic uint32_t cached, go; } cacher;

static void *cache_until_told(void *argument) {
    cacher *self = argument;
    zcp_chunk chunk = allocate(self->manager, 5000);
    zcp_chunk_release(&chunk);
    test_signal(&self->cached);
    test_await(&self->go, 1);
    return NULL;
}

// What lies in a thread's cache is its until it comes back: with the next chunk that it allocates, when it ends, or
// when somebody recovers.
TEST(retire_and_what_is_cached) {
    test_need("MADV_REMOVE");
    for (int how = 0; how < 7; how++) {
        zcp_config config = one_pool(64, 10);
        CHECK_OK(
            zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 5000, .chunk_count = 100, .cache_chunks = 4}));
        CHECK_OK(zcp_config_add_pool(&config, 10000, 10));
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        uint64_t with = segment_memory(test_instance(), CHUNKS);
        peer *caches = NULL;
        cacher self = {.manager = manager};
        pthread_t thread = {0};
        if (how == 4 || how == 5) {
            thread = test_thread(cache_until_told, &self);
            test_await(&self.cached, 1);
        } else {
            caches = peer_begin(0);
            TELL_OK(caches, PEER_PAIR, 5000, 0);
            TELL_OK(caches, PEER_PAIR, 64, 0);
        }
        CHECK_EQ(pool_stats(manager, 1).cached, 1);
        CHECK_OK(zcp_manager_retire_pool(manager, 1));
        CHECK_EQ(pool_state(manager, 1), ZCP_POOL_RETIRING);
        switch (how) {
        case 0:
            TELL_OK(caches, PEER_PAIR, 5000, 0);                   // of the next larger ones
            CHECK_EQ(caches->pool, 2);
            break;
        case 1: TELL_OK(caches, PEER_PAIR, 64, 0); break;          // of a pool which that does not concern
        case 2: peer_end(caches); break;
        case 3:
            test_kill(caches->pid);
            CHECK_RECOVERS(manager, 1, 1);
            break;
        case 4:
            test_signal(&self.go);
            test_thread_join(thread);
            break;
        default: CHECK_RECOVERS(manager, 0, 0);                    // nobody has died: the thread does nothing
        }
        CHECK_MSG(pool_state(manager, 1) == ZCP_POOL_NONE, "way %d: %llu are cached", how,
                  (unsigned long long)pool_stats(manager, 1).cached);
        CHECK(segment_memory(test_instance(), CHUNKS) <= with - 5000 * 100 + 2 * 4096);
        if (how == 5) {
            test_signal(&self.go);
            test_thread_join(thread);
        }
        if (how == 6)
            TELL_OK(caches, PEER_PAIR, 5000, 0);                   // it goes on, with the next larger ones
        if (how < 2 || how == 6)
            peer_end(caches);
        finish(manager);
    }
}

// As an observer sees it, who changes nothing by that.
static void await_gone(zcp_manager *observer, uint32_t pool) {
    for (int wait = 0; pool_state(observer, pool) != ZCP_POOL_NONE; wait++) {
        zcp_pool_stats stats = pool_stats(observer, pool);
        CHECK_MSG(wait < 5000, "pool %u stays: %u used, %u cached", pool, (unsigned)stats.used, (unsigned)stats.cached);
        test_sleep(1);
    }
}

static zcp_config two_pools(uint32_t cache_chunks) {
    zcp_config config = one_pool(64, 10);
    zcp_pool_config second = {.chunk_size = 5000, .chunk_count = 100, .cache_chunks = cache_chunks};
    CHECK_OK(zcp_config_add(&config, &second));
    return config;
}

TEST(retire_gives_back_what_its_own_thread_caches) {
    test_need("MADV_REMOVE");
    for (int reconfigures = 0; reconfigures < 2; reconfigures++) {
        zcp_config config = two_pools(4), other = one_pool(64, 10);
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        zcp_manager *observer = attach_named(test_instance(), ZCP_OBSERVE);
        uint64_t with = segment_memory(test_instance(), CHUNKS);
        zcp_chunk chunk = allocate(manager, 5000);
        zcp_chunk_release(&chunk);
        CHECK_EQ(pool_stats(observer, 1).cached, 1);
        CHECK_OK(reconfigures ? zcp_manager_reconfigure(manager, &other) : zcp_manager_retire_pool(manager, 1));
        CHECK_EQ(pool_state(observer, 1), ZCP_POOL_NONE);
        CHECK(segment_memory(test_instance(), CHUNKS) <= with - 5000 * 100 + 2 * 4096);
        zcp_manager_close(observer);
        finish(manager);
    }
}

// It waits in one pool, and has cached chunks of the one that is retired.
TEST(retire_and_what_a_sleeper_caches) {
    test_need("MADV_REMOVE");
    zcp_config config = two_pools(4);
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_manager *observer = attach_named(test_instance(), ZCP_OBSERVE);
    peer *sleeper = peer_begin(0);
    zcp_chunk all[10];
    for (int i = 0; i < 10; i++)
        all[i] = allocate(manager, 64);
    TELL_OK(sleeper, PEER_PAIR, 5000, 0);
    uint32_t done = tell_to_begin(sleeper, PEER_WAIT, 64, 30000);
    for (int wait = 0; pool_stats(observer, 0).waits == 0; wait++) {
        CHECK(wait < 20000);
        test_sleep(1);
    }
    CHECK_OK(zcp_manager_retire_pool(manager, 1));
    await_gone(observer, 1);
    CHECK_EQ(atomic_load(&sleeper->done), done - 1);               // it waits on
    for (int i = 0; i < 10; i++)
        zcp_chunk_release(&all[i]);
    test_await(&sleeper->done, done);
    CHECK_STATUS(sleeper->status, ZCP_OK);
    peer_end(sleeper);
    zcp_manager_close(observer);
    finish(manager);
}

static void kill_at_asking(peer *self) {
    (void)self;
    test_at_step("retire_asks", 1, TEST_KILL, NULL);
}

// The last one may only read, so it cannot give the memory back. The next writer that comes by in any way does, or who
// finds the reader killed before it could ask.
TEST(retire_and_a_reader_is_the_last) {
    test_need("MADV_REMOVE");
    enum { WORKS, WORKS_IN_A_NEW_POOL, LOOKS, WAITS, JOINS, READER_IS_KILLED, WAYS };
    for (int how = 0; how < WAYS; how++) {
        zcp_config config = two_pools(0);
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        zcp_manager *observer = attach_named(test_instance(), ZCP_OBSERVE);
        uint64_t with = segment_memory(test_instance(), CHUNKS);
        peer *reader = peer_start(ZCP_READ_ONLY_DATA, how == READER_IS_KILLED ? kill_at_asking : NULL);
        peer *writer = peer_begin(0);
        test_await(&reader->done, 1);
        zcp_chunk chunk = allocate(manager, 5000), all[10] = {{0}};
        pattern_write(&chunk, peer_pattern(&chunk));
        TELL_OK(reader, PEER_ACQUIRE, token_of(&chunk), 0);
        CHECK_OK(zcp_manager_retire_pool(manager, 1));
        zcp_chunk_release(&chunk);
        if (how == WORKS_IN_A_NEW_POOL) {                          // which the reader does not know
            add_pool(manager, 32, 10);
            with = segment_memory(test_instance(), CHUNKS);
        }
        for (int i = 0; i < 3; i++)
            TELL_OK(writer, PEER_PAIR, 32, 0);
        uint32_t done = 0;
        if (how == WAITS) {
            for (int i = 0; i < 10; i++)
                all[i] = allocate(manager, 64);
            done = tell_to_begin(writer, PEER_WAIT, 64, 30000);
            for (int wait = 0; pool_stats(observer, 0).waits == 0; wait++) {
                CHECK(wait < 20000);
                test_sleep(1);
            }
        }
        if (how == READER_IS_KILLED) {
            tell_to_begin(reader, PEER_RELEASE, 0, 0);
            test_join_signal(reader->pid, SIGKILL);
        } else {
            TELL_OK(reader, PEER_RELEASE, 0, 0);
        }
        if (how != WAITS) {                                        // nobody who may has come by
            CHECK_EQ(pool_state(observer, 1), ZCP_POOL_RETIRING);
            CHECK_EQ(segment_memory(test_instance(), CHUNKS), with);
        }
        switch (how) {
        case WORKS:
        case WORKS_IN_A_NEW_POOL: TELL_OK(writer, PEER_PAIR, 32, 0); break;
        case LOOKS: TELL_OK(writer, PEER_STATE, 1, 0); break;
        case WAITS: await_gone(observer, 1); break;
        case JOINS: zcp_manager_close(attach()); break;
        default: CHECK_RECOVERS(manager, 1, 0);
        }
        CHECK_MSG(pool_state(observer, 1) == ZCP_POOL_NONE, "way %d", how);
        CHECK(segment_memory(test_instance(), CHUNKS) <= with - 5000 * 100 + 2 * 4096);
        for (int i = 0; i < 10; i++)
            zcp_chunk_release(&all[i]);
        if (how == WAITS)
            test_await(&writer->done, done);
        if (how != READER_IS_KILLED)
            peer_end(reader);
        peer_end(writer);
        zcp_manager_close(observer);
        finish(manager);
    }
}

TEST(retire_the_last_pool) {
    zcp_manager *manager = create(64, 10);
    peer *other = peer_begin(0);
    zcp_config config;
    TELL_OK(other, PEER_ALLOCATE, 64, 0);
    CHECK_OK(zcp_manager_retire_pool(manager, 0));
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_TOO_LARGE);
    CHECK(strstr(zcp_last_message(), "retired") != NULL);
    CHECK_STATUS(tell(other, PEER_WAIT, 64, 10000), ZCP_ERR_TOO_LARGE);
    CHECK_OK(zcp_manager_get_config(manager, &config));
    CHECK_EQ(config.pools.size, 0);
    zcp_manager *fresh = attach();
    CHECK_ALLOCATE_FAILS(fresh, 64, ZCP_ERR_TOO_LARGE);
    zcp_chunk seen = acquire(fresh, other->token);
    pattern_check(&seen, peer_pattern(&seen));
    TELL_OK(other, PEER_RELEASE, 0, 0);
    zcp_chunk_release(&seen);
    CHECK_EQ(pool_state(fresh, 0), ZCP_POOL_NONE);
    CHECK(segment_memory(test_instance(), CHUNKS) <= 4096);
    zcp_manager_close(fresh);
    fresh = attach();
    CHECK_ALLOCATE_FAILS(fresh, 64, ZCP_ERR_TOO_LARGE);
    CHECK_EQ(add_pool(fresh, 64, 10), 0);
    use_pool(manager, 0);
    TELL_OK(other, PEER_PAIR, 64, 0);
    zcp_manager_close(fresh);
    peer_end(other);
    finish(manager);
}

TEST(retire_refuses_what_is_no_live_pool) {
    zcp_manager *manager = create(64, 10), *observer = attach_named(test_instance(), ZCP_OBSERVE), *other = attach();
    zcp_chunk chunk = allocate(manager, 64);
    CHECK_STATUS(zcp_manager_retire_pool(manager, 1), ZCP_ERR_NOT_FOUND);
    CHECK_STATUS(zcp_manager_retire_pool(manager, ZCP_MAX_LIVE_POOLS - 1), ZCP_ERR_NOT_FOUND);
    CHECK_STATUS(zcp_manager_retire_pool(manager, ZCP_MAX_LIVE_POOLS), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_retire_pool(manager, UINT32_MAX), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_retire_pool(NULL, 0), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_retire_pool(observer, 0), ZCP_ERR_READ_ONLY);
    CHECK_EQ(pool_state(other, 0), ZCP_POOL_LIVE);
    CHECK_OK(zcp_manager_retire_pool(manager, 0));
    CHECK_STATUS(zcp_manager_retire_pool(manager, 0), ZCP_ERR_NOT_FOUND);
    CHECK_STATUS(zcp_manager_retire_pool(other, 0), ZCP_ERR_NOT_FOUND);
    zcp_chunk_release(&chunk);
    CHECK_STATUS(zcp_manager_retire_pool(other, 0), ZCP_ERR_NOT_FOUND);
    zcp_manager_close(other);
    zcp_manager_close(observer);
    finish(manager);
}

// Those who wait for a chunk of it learn that there will be none: they get one of the next larger pool, or the reason
// why not.
TEST(retire_while_others_wait) {
    for (int larger = 0; larger < 2; larger++) {
        zcp_config config = one_pool(64, 2);
        if (larger)
            CHECK_OK(zcp_config_add_pool(&config, 100, 10));
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        zcp_chunk chunks[] = {allocate(manager, 64), allocate(manager, 64)};
        peer *waiters[3];
        uint32_t done[3];
        for (int i = 0; i < 3; i++) {
            waiters[i] = peer_begin(0);
            done[i] = tell_to_begin(waiters[i], PEER_WAIT, 64, 20000);
        }
        for (int wait = 0; pool_stats(manager, 0).waits < 3; wait++) {
            CHECK(wait < 20000);
            test_sleep(1);
        }
        uint64_t began = test_now();
        CHECK_OK(zcp_manager_retire_pool(manager, 0));
        zcp_chunk_release(&chunks[0]);                             // nobody gets it any more
        for (int i = 0; i < 3; i++) {
            test_await(&waiters[i]->done, done[i]);
            CHECK_STATUS(waiters[i]->status, larger ? ZCP_OK : ZCP_ERR_TOO_LARGE);
            CHECK(!larger || waiters[i]->pool == 1);
        }
        CHECK_MSG(test_now() - began < UINT64_C(2000000000), "%llu ms",
                  (unsigned long long)((test_now() - began) / 1000000));
        CHECK_EQ(used_in(manager, 0), 1);
        zcp_chunk_release(&chunks[1]);
        CHECK_EQ(pool_state(manager, 0), ZCP_POOL_NONE);
        for (int i = 0; i < 3; i++)
            peer_end(waiters[i]);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed or stopped while retiring

static const char *const steps_of_retiring[] = {"pool_retiring", "retire_told", "retired", "punched"};
enum { STEPS_OF_RETIRING = sizeof steps_of_retiring / sizeof steps_of_retiring[0] };

typedef struct retirer { const char *where; test_action action; zcp_status status; } retirer;

static void retire_one(void *argument) {
    retirer *self = argument;
    zcp_manager *manager = attach();
    test_at_step(self->where, 1, self->action, NULL);
    self->status = zcp_manager_retire_pool(manager, 1);
    zcp_manager_close(manager);
}

// With `held` somebody holds a chunk of it, which it then comes to know as retiring; the step "punched" is not reached
// then.
TEST(retire_killed_at_each_step) {
    test_need("MADV_REMOVE");
    for (int held = 0; held < 2; held++)
        for (int s = 0; s < STEPS_OF_RETIRING - held; s++) {
            zcp_config config = one_pool(64, 10);
            zcp_manager *manager = create_named(test_instance(), &config, 0);
            uint64_t without = segment_memory(test_instance(), CHUNKS);
            CHECK_EQ(add_pool(manager, 5000, 100), 1);
            peer *holder = peer_begin(0);
            TELL_OK(holder, PEER_PAIR, 5000, 0);
            if (held)
                TELL_OK(holder, PEER_ALLOCATE, 5000, 0);
            retirer *dies = test_shared(sizeof *dies);
            *dies = (retirer){.where = steps_of_retiring[s], .action = TEST_KILL};
            test_join_signal(test_spawn(retire_one, dies), SIGKILL);
            CHECK_RECOVERS(manager, 1, 0);
            CHECK_ALLOCATE_FAILS(manager, 5000, ZCP_ERR_TOO_LARGE);
            CHECK_STATUS(tell(holder, PEER_PAIR, 5000, 0), ZCP_ERR_TOO_LARGE);
            CHECK_STATUS(zcp_manager_retire_pool(manager, 1), ZCP_ERR_NOT_FOUND);
            if (held) {
                CHECK_EQ(pool_state(manager, 1), ZCP_POOL_RETIRING);
                TELL_OK(holder, PEER_CHECK, 0, 0);
                TELL_OK(holder, PEER_RELEASE, 0, 0);
            } else {
                CHECK_RECOVERS(manager, 0, 0);
            }
            CHECK_MSG(pool_state(manager, 1) == ZCP_POOL_NONE, "killed at %s", steps_of_retiring[s]);
            CHECK_EQ(segment_memory(test_instance(), CHUNKS), without);
            CHECK_EQ(add_pool(manager, 700, 10), 1);
            use_pool(manager, 1);
            TELL_OK(holder, PEER_PAIR, 700, 0);
            peer_end(holder);
            finish(manager);
        }
}

// Another one adds a pool between the retirer's look at the pools and its word to all of them, and from then on works
// in that pool alone; what it caches of the retired one comes back all the same, also if the retirer dies on the way
// and somebody recovers.
static void retire_one_slowly(void *argument) {
    retirer *self = argument;
    zcp_manager *manager = attach();
    test_at_step("pool_found", 1, TEST_STOP, NULL);
    if (self->where != NULL)
        test_at_step(self->where, 1, TEST_KILL, NULL);
    CHECK_OK(zcp_manager_retire_pool(manager, 1));
    zcp_manager_close(manager);
}

TEST(retire_tells_those_in_pools_that_came_meanwhile) {
    test_need("MADV_REMOVE");
    static const char *const deaths[] = {NULL, "pool_retiring", "retire_told", "retired"};
    for (int d = 0; d < 4; d++) {
        zcp_config config = two_pools(4);
        zcp_manager *manager = create_named(test_instance(), &config, 0);
        zcp_manager *observer = attach_named(test_instance(), ZCP_OBSERVE);
        peer *works = peer_begin(0);
        retirer *slow = test_shared(sizeof *slow);
        *slow = (retirer){.where = deaths[d]};
        TELL_OK(works, PEER_PAIR, 5000, 0);                        // one is in its cache
        pid_t pid = test_spawn(retire_one_slowly, slow);
        test_await_stop(pid);
        TELL_OK(works, PEER_ADD, 100, 10);
        for (int i = 0; i < 3; i++)
            TELL_OK(works, PEER_PAIR, 100, 0);
        CHECK_EQ(works->pool, 2);
        test_resume(pid);
        if (deaths[d] == NULL) {
            test_join(pid);
        } else {
            test_join_signal(pid, SIGKILL);
            CHECK_RECOVERS(manager, 1, 0);
        }
        // Who recovers takes what an idle thread caches; else it is the thread itself that is told.
        CHECK_EQ(pool_state(observer, 1), deaths[d] == NULL ? ZCP_POOL_RETIRING : ZCP_POOL_NONE);
        TELL_OK(works, PEER_PAIR, 100, 0);
        const char *death = deaths[d] ? deaths[d] : "no step";
        CHECK_MSG(pool_state(observer, 1) == ZCP_POOL_NONE, "the retirer was killed at %s", death);
        peer_end(works);
        zcp_manager_close(observer);
        finish(manager);
    }
}

static void add_small(void *argument) {
    (void)argument;
    zcp_manager *manager = attach();
    test_at_step("pool_told", 1, TEST_KILL, NULL);
    zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 1100}, NULL);
}

// The capacity of the last of more chunks than a loan has.
static uint64_t capacity_in_the_end(zcp_manager *manager) {
    enum { MORE = 200 };
    zcp_chunk chunks[MORE];
    for (int i = 0; i < MORE; i++)
        chunks[i] = allocate(manager, 64);
    uint64_t capacity = zcp_chunk_capacity(&chunks[MORE - 1]);
    for (int i = 0; i < MORE; i++)
        zcp_chunk_release(&chunks[i]);
    return capacity;
}

// Whoever changes the pools raises `wanted` last. If it dies before that and nobody looks for the dead, a thread that
// only allocates and releases sees it with its next loan.
TEST(grow_killed_before_it_is_told_is_seen_by_who_works) {
    zcp_manager *manager = create(128, 1100);
    CHECK_EQ(capacity_in_the_end(manager), 128);
    test_join_signal(test_spawn(add_small, NULL), SIGKILL);
    CHECK_EQ(capacity_in_the_end(manager), 64);
    CHECK_RECOVERS(manager, 1, 0);
    finish(manager);
}

TEST(retire_killed_before_it_is_told_is_seen_by_who_works) {
    zcp_manager *manager = create(128, 1100);
    retirer *dies = test_shared(sizeof *dies);
    *dies = (retirer){.where = "pool_retiring", .action = TEST_KILL};
    CHECK_EQ(add_pool(manager, 64, 1100), 1);
    CHECK_EQ(capacity_in_the_end(manager), 64);
    test_join_signal(test_spawn(retire_one, dies), SIGKILL);
    CHECK_EQ(capacity_in_the_end(manager), 128);
    CHECK_OK(zcp_manager_recover(manager, NULL));
    finish(manager);
}

TEST(retire_stopped_at_each_step_delays_nobody) {
    test_need("MADV_REMOVE");
    for (int s = 0; s < STEPS_OF_RETIRING; s++) {
        zcp_manager *manager = create(64, 10);
        uint64_t without = segment_memory(test_instance(), CHUNKS);
        CHECK_EQ(add_pool(manager, 5000, 100), 1);
        retirer *stops = test_shared(sizeof *stops);
        *stops = (retirer){.where = steps_of_retiring[s], .action = TEST_STOP};
        pid_t pid = test_spawn(retire_one, stops);
        test_await_stop(pid);
        uint64_t began = test_now();
        zcp_manager *fresh = attach();
        use_pool(manager, 0);
        use_pool(fresh, 0);
        CHECK_STATUS(zcp_manager_retire_pool(fresh, 1), ZCP_ERR_NOT_FOUND);
        uint32_t next = add_pool(fresh, 4000, 10);
        use_pool(manager, next);
        CHECK_MSG(test_now() - began < UINT64_C(3000000000), "at %s: %llu ms", steps_of_retiring[s],
                  (unsigned long long)((test_now() - began) / 1000000));
        CHECK_ALLOCATE_FAILS(manager, 5000, ZCP_ERR_TOO_LARGE);
        CHECK_OK(zcp_manager_retire_pool(manager, next));
        test_resume(pid);
        test_join(pid);
        CHECK_STATUS(stops->status, ZCP_OK);
        CHECK_EQ(pool_state(fresh, 1), ZCP_POOL_NONE);
        CHECK_EQ(segment_memory(test_instance(), CHUNKS), without);
        zcp_manager_close(fresh);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Another configuration, while it runs

static zcp_config config_of(const zcp_pool_config *pools, uint32_t count) {
    zcp_config config = {0};
    for (uint32_t i = 0; i < count; i++)
        CHECK_OK(zcp_config_add(&config, &pools[i]));
    return config;
}

// Are the live pools those of the configuration, in whatever order?
static bool is_configured(zcp_manager *manager, const zcp_config *config) {
    zcp_config is, wanted = *config;
    CHECK_OK(zcp_manager_get_config(manager, &is));
    for (uint32_t i = 0; i < wanted.pools.size; i++)
        if (wanted.pools.items[i].alignment == 0)
            wanted.pools.items[i].alignment = ZCP_DEFAULT_ALIGNMENT;
    qsort(is.pools.items, is.pools.size, sizeof is.pools.items[0], by_pool);
    qsort(wanted.pools.items, wanted.pools.size, sizeof wanted.pools.items[0], by_pool);
    return same_config(&is, &wanted);
}

static const zcp_pool_config hot_pools[] = {{64, 10, 0, 0}, {200, 20, 128, 0}, {1000, 5, 0, 4}, {3000, 5, 0, 0}};

TEST(reconfigure_changes_what_differs_and_nothing_else) {
    enum { A, B, C, D };
    // stay: bits of hot_pools that are not made anew
    static const struct { uint32_t size, pools[5], stay;
    } changes[] = {{2, {A, B}, 3}, {2, {B, A}, 3},       {3, {C, A, B}, 3},       {4, {D, C, B, A}, 7}, {2, {D, A}, 9},
                   {1, {C}, 0},    {3, {C, C, C}, 4},    {5, {C, C, A, C, C}, 4}, {3, {C, A, C}, 5},    {1, {A}, 1},
                   {2, {B, C}, 0}, {4, {A, B, A, B}, 2}, {2, {B, A}, 3}};
    zcp_config config = config_of(hot_pools, 2);
    zcp_manager *manager = create_named(test_instance(), &config, 0), *other = attach();
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        zcp_pool_config wanted[5];
        uint64_t tokens[4] = {0};
        zcp_chunk chunks[4] = {{0}};
        for (uint32_t p = 0; p < changes[i].size; p++)
            wanted[p] = hot_pools[changes[i].pools[p]];
        config = config_of(wanted, changes[i].size);
        for (uint32_t p = 0; p < 4; p++)                           // a chunk of each pool is held throughout
            if (zcp_chunk_allocate(other, hot_pools[p].chunk_size, &chunks[p]) == ZCP_OK) {
                tokens[p] = token_of(&chunks[p]);
                pattern_write(&chunks[p], p);
            }
        uint64_t memory = segment_memory(test_instance(), CHUNKS);
        CHECK_OK(zcp_manager_reconfigure(i % 2 ? manager : other, &config));
        CHECK(is_configured(manager, &config) && is_configured(other, &config));
        CHECK(i > 1 || segment_memory(test_instance(), CHUNKS) == memory);
        for (uint32_t p = 0; p < 4; p++) {
            if (chunks[p].manager == NULL)
                continue;
            uint32_t pool = inside_pool_of(&chunks[p]);
            zcp_chunk seen = acquire(manager, tokens[p]);
            if (changes[i].stay >> p & 1)
                CHECK_EQ(pool_state(manager, pool), ZCP_POOL_LIVE);
            pattern_check(&seen, p);
            zcp_chunk_release(&chunks[p]);
            pattern_check(&seen, p);
            zcp_chunk_release(&seen);
        }
        for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++)
            if (pool_state(manager, p) == ZCP_POOL_LIVE)
                use_pool(p % 2 ? manager : other, p);
    }
    zcp_manager_close(other);
    finish(manager);
}

TEST(reconfigure_that_fails_changes_nothing) {
    test_need("MADV_REMOVE");
    zcp_config config = config_of(hot_pools, 3), wrong = config, before, after, many = {0}, none = {0};
    zcp_manager *manager = create_named(test_instance(), &config, 0),
                *observer = attach_named(test_instance(), ZCP_OBSERVE);
    zcp_manager *reader = attach_named(test_instance(), ZCP_READ_ONLY_DATA);
    for (uint32_t i = 0; i < 14; i++)
        add_pool(manager, 5000 + i, 1);
    CHECK_OK(zcp_manager_get_config(manager, &before));
    CHECK_STATUS(zcp_manager_reconfigure(manager, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_reconfigure(manager, &none), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_manager_reconfigure(observer, &config), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_reconfigure(reader, &config), ZCP_ERR_READ_ONLY);
    wrong.pools.items[2].chunk_size = 0;
    CHECK_STATUS(zcp_manager_reconfigure(manager, &wrong), ZCP_ERR_INVALID_SIZE);
    wrong.pools.items[2] = (zcp_pool_config){64, 10, 3, 0};
    CHECK_STATUS(zcp_manager_reconfigure(manager, &wrong), ZCP_ERR_INVALID_ALIGNMENT);
    wrong.pools.items[2] = (zcp_pool_config){UINT64_C(1) << 40, 1024, 0, 0};
    CHECK_STATUS(zcp_manager_reconfigure(manager, &wrong), ZCP_ERR_OVERFLOW);
    for (uint32_t i = 0; i < 16; i++)                              // 17 are there, 33 there would be for a moment
        CHECK_OK(zcp_config_add_pool(&many, 100 + i, 10));
    uint64_t memory = segment_memory(test_instance(), CHUNKS);
    CHECK_STATUS(zcp_manager_reconfigure(manager, &many), ZCP_ERR_FULL);
    CHECK_OK(zcp_manager_get_config(manager, &after));
    CHECK(same_config(&before, &after));
    CHECK_EQ(segment_memory(test_instance(), CHUNKS), memory);
    for (uint32_t p = 0; p < 32; p++)
        CHECK_EQ(pool_state(observer, p), p < 17 ? ZCP_POOL_LIVE : ZCP_POOL_NONE);
    many.pools.size--;
    CHECK_OK(zcp_manager_reconfigure(manager, &many));
    CHECK(is_configured(manager, &many));
    CHECK(is_configured(observer, &many));
    zcp_manager_close(reader);
    zcp_manager_close(observer);
    finish(manager);
}

// Whoever opens it may ask for what it is now, in whatever order, and not for what it was created with.
TEST(reconfigure_and_what_an_opener_asks_for) {
    zcp_config created = config_of(hot_pools, 2), now = config_of(hot_pools + 1, 3), wrong = now;
    zcp_config turned = {0}, turned_created = {0};
    zcp_manager *manager = create_named(test_instance(), &created, 0), *other;
    for (uint32_t i = 3; i-- > 0;)
        CHECK_OK(zcp_config_add(&turned, &now.pools.items[i]));
    wrong.pools.items[1].chunk_count++;
    for (uint32_t i = 2; i-- > 0;)
        CHECK_OK(zcp_config_add(&turned_created, &created.pools.items[i]));
    const struct { const zcp_config *config; bool changed; } cases[] = {
        {&created, false}, {&turned_created, false}, {&now, true}, {&turned, true}};
    for (int changed = 0; changed < 2; changed++) {
        for (int i = 0; i < 4; i++)
            for (uint32_t flags = 0; flags <= ZCP_OBSERVE; flags += ZCP_OBSERVE) {
                zcp_status status = zcp_manager_open(
                    &other, &(zcp_manager_desc){.name = test_instance(), .config = cases[i].config, .flags = flags});
                CHECK_STATUS(status, cases[i].changed == changed ? ZCP_OK : ZCP_ERR_CONFIG_MISMATCH);
                if (other != NULL)
                    CHECK(same_figures(manager, other));
                zcp_manager_close(other);
            }
        CHECK_STATUS(zcp_manager_open(&other, &(zcp_manager_desc){.name = test_instance(), .config = &wrong}),
                     ZCP_ERR_CONFIG_MISMATCH);
        now.pools.size--;
        CHECK_STATUS(zcp_manager_open(&other, &(zcp_manager_desc){.name = test_instance(), .config = &now}),
                     ZCP_ERR_CONFIG_MISMATCH);
        now.pools.size++;
        CHECK_OK(zcp_manager_reconfigure(manager, &now));
    }
    finish(manager);
}

// Two change it to and fro while two others work.
typedef struct changer { zcp_config config; _Atomic uint32_t *ended; } changer;

static void change_often(void *argument) {
    changer *self = argument;
    zcp_manager *manager = attach();
    for (int i = 0; i < ROUNDS(60); i++)
        CHECK_OK(zcp_manager_reconfigure(manager, &self->config));
    zcp_manager_close(manager);
    test_signal(self->ended);
}

static void work_meanwhile(void *argument) {
    changer *self = argument;
    zcp_manager *manager = attach();
    while (atomic_load(self->ended) < 2) {
        uint64_t size = 1 + test_random_below(200);
        zcp_chunk chunk = allocate(manager, size);                 // one of the pools for it is always there
        pattern_write(&chunk, size);
        zcp_chunk again = acquire(manager, token_of(&chunk));
        pattern_check(&again, size);
        zcp_chunk_release(&chunk);
        zcp_chunk_release(&again);
    }
    zcp_manager_close(manager);
}

TEST(reconfigure_by_two_at_once) {
    zcp_config config = config_of(hot_pools, 2);
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    changer *changers = test_shared(2 * sizeof *changers);
    _Atomic uint32_t *ended = test_shared(sizeof *ended);
    pid_t pids[4];
    changers[0].config = config_of(hot_pools + 1, 3);
    changers[1].config = config_of(hot_pools, 3);
    for (int i = 0; i < 4; i++) {
        changers[i % 2].ended = ended;
        pids[i] = test_spawn(i < 2 ? work_meanwhile : change_often, &changers[i % 2]);
    }
    for (int i = 0; i < 4; i++)
        test_join(pids[i]);
    CHECK(is_configured(manager, &changers[0].config) || is_configured(manager, &changers[1].config));
    CHECK_OK(zcp_manager_reconfigure(manager, &config));
    CHECK(is_configured(manager, &config));
    finish(manager);
}

typedef struct dying { zcp_config config; int nth; } dying;

static void change_and_die(void *argument) {
    dying *self = argument;
    zcp_manager *manager = attach();
    test_step_any_kill(self->nth);
    CHECK_OK(zcp_manager_reconfigure(manager, &self->config));
    test_steps_clear();
    zcp_manager_close(manager);
}

// Killed at each step: something between the old and the new is there, and another one can make it what it should be.
TEST(reconfigure_killed_at_each_step) {
    test_need("MADV_REMOVE");
    zcp_config from = config_of(hot_pools, 2);
    dying *self = test_shared(sizeof *self);
    self->config = config_of(hot_pools + 1, 3);
    zcp_manager *manager = create_named(test_instance(), &from, 0);
    part before = {0};
    int killed = 0;
    for (self->nth = 1; test_join_killed(test_spawn(change_and_die, self)); self->nth++) {
        killed++;
        CHECK_OK(zcp_manager_recover(manager, NULL));
        zcp_config is;
        CHECK_OK(zcp_manager_get_config(manager, &is));
        CHECK(is.pools.size >= 2 && is.pools.size <= 4);
        CHECK_OK(zcp_manager_reconfigure(manager, &self->config));
        CHECK(is_configured(manager, &self->config));
        CHECK_OK(zcp_manager_reconfigure(manager, &from));
        CHECK(is_configured(manager, &from));
        CHECK_OK(zcp_manager_recover(manager, NULL));
        for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
            CHECK(pool_state(manager, p) != ZCP_POOL_RETIRING);
            if (pool_state(manager, p) == ZCP_POOL_LIVE)
                use_pool(manager, p);
        }
        if (killed == 1)                                           // from here on none is of the creation
            before.chunks = segment_memory(test_instance(), CHUNKS);
        CHECK(segment_memory(test_instance(), CHUNKS) <= before.chunks + 4096);
    }
    CHECK(killed > 12);
    CHECK(is_configured(manager, &self->config));
    finish(manager);
}
