// tests/harness/impl.c: the one file of the test program that has the implementation, with its steps led to test_step;
// and what inside.h tells of it.
void test_step(const char *where);
#define ZEROCP_STEP(name) test_step(name)
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h"

#include "inside.h"
#include "test.h"

// Is there a hint of a chunk, in the list or on loan?
static bool hinted(const zcp_priv_pool *pool, uint32_t index) {
    uint32_t leaf = index >> pool->list.leaf_shift;
    uint64_t bit = UINT64_C(1) << (index & ((1u << pool->list.leaf_shift) - 1)),
             hints = zcp_priv_load_acquire(zcp_priv_list_leaf(&pool->list, leaf));
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++)
        if (zcp_priv_load_acquire(&pool->leases->items[k].leaf) == leaf)
            hints |= zcp_priv_load_acquire(&pool->leases->items[k].loan);
    return hints & bit;
}

uint32_t inside_hint_count(zcp_manager *manager, uint32_t pool) {
    const zcp_priv_pool *p = zcp_priv_view_pool(&manager->view, pool);
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->count; i++)
        count += hinted(p, i) && zcp_priv_is_free(inside_state_word(manager, pool, i));
    return count;
}

uint32_t inside_pool_of(const zcp_chunk *chunk) { return chunk->index >> ZCP_PRIV_POOL_SHIFT; }
uint32_t inside_index_in_pool(const zcp_chunk *chunk) { return chunk->index & (ZCP_MAX_CHUNKS - 1); }
uint64_t inside_state_word(zcp_manager *manager, uint32_t pool, uint32_t index) {
    return zcp_priv_load_acquire(&zcp_priv_record_at(zcp_priv_view_pool(&manager->view, pool), index)->state);
}

uint64_t inside_borrow_word(zcp_manager *manager, uint32_t pool, uint32_t index, uint32_t word) {
    return zcp_priv_load_acquire(&zcp_priv_record_at(zcp_priv_view_pool(&manager->view, pool), index)->borrow[0]
                                 + word);
}

bool inside_drop_hint(zcp_manager *manager, uint32_t pool, uint32_t index) {
    const zcp_priv_pool *p = zcp_priv_view_pool(&manager->view, pool);
    uint32_t leaf = index >> p->list.leaf_shift;
    uint64_t bit = UINT64_C(1) << (index & ((1u << p->list.leaf_shift) - 1));
    bool was = hinted(p, index);
    zcp_priv_and_acq_rel(zcp_priv_list_leaf(&p->list, leaf), ~bit);
    for (uint32_t k = 0; k < zcp_priv_lease_count(p->list.leaves); k++)
        if (zcp_priv_load_acquire(&p->leases->items[k].leaf) == leaf)
            zcp_priv_and_acq_rel(&p->leases->items[k].loan, ~bit);
    return was;
}

bool inside_drop_leaf_hint(zcp_manager *manager, uint32_t pool, uint32_t index) {
    const zcp_mpmc_list *list = &zcp_priv_view_pool(&manager->view, pool)->list;
    uint64_t bit = zcp_priv_leaf_bit(index >> list->leaf_shift);
    return zcp_priv_and_acq_rel(zcp_priv_list_summary(list, index >> list->leaf_shift), ~bit) & bit;
}

zcp_status inside_allocate_hinted(zcp_manager *manager, uint64_t size, zcp_chunk *chunk) {
    const zcp_priv_table *table = zcp_priv_view_table(&manager->view);
    uint32_t first = zcp_priv_table_fit(table, size);
    zcp_priv_place place;
    *chunk = zcp_priv_no_chunk;
    CHECK(table->order[first] != ZCP_PRIV_NO_POOL);
    if (zcp_priv_thread == 0) zcp_priv_thread_begin();
    if (!zcp_priv_take_hinted(manager, table, first, &place)) return ZCP_ERR_EXHAUSTED;
    zcp_priv_claimed(chunk, manager, &place, size);
    return ZCP_OK;
}

uint32_t inside_wait_rounds(zcp_manager *manager, uint32_t pool) {
    return zcp_priv_load_relaxed(&zcp_priv_view_pool(&manager->view, pool)->leases->waiting);
}

void inside_count_epoch_up(zcp_manager *manager) { zcp_priv_add_release(&manager->header->signals.epoch, 1); }
void inside_wake(zcp_manager *manager, uint32_t slot) {
    _Atomic uint32_t *wakes = &zcp_priv_slot_at(manager, slot)->wakes;
    zcp_priv_add_release(wakes, 1);
    (void)zcp_priv_futex(wakes, ZCP_PRIV_FUTEX_WAKE, INT32_MAX, NULL, UINT32_MAX);
}

void inside_scribble_sleeps(zcp_manager *manager, uint32_t slot, uint64_t seed) {
    zcp_priv_slot *at = zcp_priv_slot_at(manager, slot);
    zcp_priv_store_relaxed(&at->sleeps, zcp_priv_mix(seed));
    zcp_priv_store_relaxed(&at->wakes, (uint32_t)zcp_priv_mix(seed + 1));
    zcp_priv_store_relaxed(&at->woken, (uint32_t)zcp_priv_mix(seed + 2));
    zcp_priv_signals *signals = &manager->header->signals;
    for (uint32_t w = 0; w < ZCP_MAX_CLIENTS / 64; w++)
        zcp_priv_store_relaxed(&signals->slept[w], zcp_priv_mix(seed + 3 + w));
}

void inside_want(zcp_manager *manager, uint32_t pool) {
    zcp_priv_pool_recall(zcp_priv_view_pool(&manager->view, pool));
}

int inside_set_barriers(int barriers) { return atomic_exchange(&zcp_priv_barriers, barriers); }
void inside_set_state_word(zcp_manager *manager, uint32_t pool, uint32_t index, uint64_t word) {
    zcp_priv_store_release(&zcp_priv_record_at(zcp_priv_view_pool(&manager->view, pool), index)->state, word);
}

uint32_t inside_leases_held(zcp_manager *manager, uint32_t pool) {
    const zcp_priv_pool *p = zcp_priv_view_pool(&manager->view, pool);
    uint32_t count = 0;
    for (uint32_t k = 0; p && k < zcp_priv_lease_count(p->list.leaves); k++)
        count += zcp_priv_load_acquire(&p->leases->items[k].holder) != 0;
    return count;
}

uint32_t inside_loaned_count(zcp_manager *manager, uint32_t pool) {
    const zcp_priv_pool *p = zcp_priv_view_pool(&manager->view, pool);
    uint32_t count = 0;
    for (uint32_t k = 0; k < zcp_priv_lease_count(p->list.leaves); k++)
        count += zcp_priv_count_bits(zcp_priv_load_acquire(&p->leases->items[k].loan));
    return count;
}

void inside_set_loans(zcp_manager *manager, uint32_t pool, uint64_t loan) {
    const zcp_priv_pool *p = zcp_priv_view_pool(&manager->view, pool);
    for (uint32_t k = 0; k < zcp_priv_lease_count(p->list.leaves); k++)
        if (zcp_priv_load_relaxed(&p->leases->items[k].holder) != 0)
            zcp_priv_store_relaxed(&p->leases->items[k].loan, loan);
}

uint64_t inside_release_told(zcp_manager *manager, uint64_t next) {
    uint64_t was = zcp_priv_load_relaxed(&manager->release_logged_until);
    zcp_priv_store_relaxed(&manager->release_logged_until, next);
    return was;
}

uint32_t inside_thread_number(void) { return zcp_priv_thread; }
bool inside_releases_quickly(zcp_manager *manager, uint32_t pool) {
    return zcp_priv_view_local(&manager->view, pool)->fast_limit != 0;
}

void inside_places(const zcp_manager *manager, const zcp_chunk *chunk, uintptr_t places[INSIDE_PLACES]) {
    const zcp_priv_local *local = zcp_priv_view_local(&manager->view, inside_pool_of(chunk));
    uint32_t i = inside_index_in_pool(chunk);
    CHECK(local->lease != NULL);
    places[INSIDE_LANE] = (uintptr_t)local;
    places[INSIDE_LEASE] = (uintptr_t)local->lease;
    places[INSIDE_RECORD] = (uintptr_t)zcp_priv_record_at(local->pool, i);
    places[INSIDE_COUNTS] = (uintptr_t)zcp_priv_counts_at(local->pool, i);
    places[INSIDE_DATA] = (uintptr_t)chunk->data;
}

uint64_t inside_recent_chunk_size(const zcp_manager *manager) {
    return manager->live == zcp_priv_last.live && zcp_priv_last.local->pool ? zcp_priv_last.local->pool->chunk_size : 0;
}

uint32_t inside_thread_count(void) { return zcp_priv_count_bits(zcp_priv_load_acquire(&zcp_priv_threads)) - 1; }
void inside_let_segments_run(zcp_manager *manager, uint32_t count) {
    zcp_priv_add_relaxed(&manager->header->signals.segments, count);
}

size_t inside_header_bytes(void) { return sizeof(zcp_priv_header); }
uint32_t inside_layout_version(void) { return ZCP_PRIV_LAYOUT_VERSION; }
uint64_t inside_signature(void) { return zcp_priv_signature(); }
void inside_name_lock_file(void *management, uint64_t device, uint64_t inode) {
    zcp_priv_header *header = management;
    header->lock_device = device;
    header->lock_inode = inode;
}

void inside_name_chunk_file(void *management, uint64_t device, uint64_t inode) {
    zcp_priv_header *header = management;
    header->chunk_device = device;
    header->chunk_inode = inode;
}

// ---------------------------------------------------------------------------------------------------------------------
// Books

typedef struct figures { uint64_t used, free, total; } figures;

static figures figures_of(zcp_manager *manager) {
    figures sum = { 0, 0, 0 };
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(manager, p, &stats));
        CHECK_EQ(stats.used + stats.free + stats.cached, stats.total);
        sum.used += stats.used;
        sum.free += stats.state == ZCP_POOL_LIVE ? stats.free : 0;  // what is retiring is not to be had
        sum.total += stats.total;
    }
    return sum;
}

int inside_by_index(const void *a, const void *b) {
    uint32_t x = ((const zcp_chunk *)a)->index, y = ((const zcp_chunk *)b)->index;
    return (x > y) - (x < y);
}

// Allocates every chunk of that size and releases it again; the public way.
static uint64_t drain(zcp_manager *manager, uint64_t size, uint64_t at_most) {
    zcp_chunk *chunks = malloc((size_t)(at_most + 1) * sizeof *chunks);
    uint64_t n = 0;
    CHECK(chunks != NULL);
    for (; n <= at_most; n++) {
        zcp_status status = zcp_chunk_allocate(manager, size, &chunks[n]);
        if (status == ZCP_ERR_EXHAUSTED) break;
        CHECK_OK(status);
        CHECK(chunks[n].data != NULL);
    }
    qsort(chunks, (size_t)n, sizeof *chunks, inside_by_index);
    for (uint64_t i = 1; i < n; i++)
        CHECK_MSG(chunks[i - 1].index != chunks[i].index, "chunk %08x was given out twice", chunks[i].index);
    for (uint64_t i = 0; i < n; i++) zcp_chunk_release(&chunks[i]);
    free(chunks);
    return n;
}

void books_check_by(zcp_manager *manager, uint64_t held) {
    figures before = figures_of(manager);
    CHECK_EQ(before.used, held);
    uint64_t obtained = 0;
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        zcp_pool_stats stats, other;
        CHECK_OK(zcp_manager_pool_stats(manager, p, &stats));
        bool first = stats.state == ZCP_POOL_LIVE;                  // nothing more is to be had of one that retires
        for (uint32_t q = 0; q < p; q++) {                          // pools of one size are drained together
            CHECK_OK(zcp_manager_pool_stats(manager, q, &other));
            if (other.chunk_size == stats.chunk_size && other.state == ZCP_POOL_LIVE) first = false;
        }
        if (first && stats.state == ZCP_POOL_LIVE) obtained += drain(manager, stats.chunk_size, before.total);
    }
    CHECK_EQ(obtained, before.free);
    figures after = figures_of(manager);
    CHECK_EQ(after.used, held);
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(manager, p, &stats));
        if (stats.state == ZCP_POOL_LIVE) CHECK_EQ(inside_hint_count(manager, p), stats.free);
    }
}

void books_check(const char *instance, uint64_t held) {
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(
        &manager, &(zcp_manager_desc){.name = instance, .mode = ZCP_SHM_OPEN_EXISTING, .client_name = "books"}));
    CHECK_OK(zcp_manager_recover(manager, NULL));
    books_check_by(manager, held);
    zcp_manager_close(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients as views of plain memory

struct inside_plain {
    zcp_priv_geometry geometry;
    void *management, *chunks;
    uint32_t clients;
    _Atomic bool swept[ZCP_MAX_CLIENTS];
    zcp_manager *managers[];
};

static void *plain_memory(uint64_t bytes) {
    void *memory = aligned_alloc(4096, (size_t)(bytes + 4095) / 4096 * 4096);
    CHECK(memory != NULL);
    memset(memory, 0, (size_t)(bytes + 4095) / 4096 * 4096);
    return memory;
}

inside_plain *inside_plain_new(const zcp_config *config, uint32_t clients, uint32_t flags) {
    inside_plain *plain = calloc(1, sizeof *plain + clients * sizeof plain->managers[0]);
    CHECK(plain != NULL);
    CHECK_OK(zcp_priv_geometry_compute(&plain->geometry, config, 0));
    CHECK(clients <= plain->geometry.max_clients);
    plain->clients = clients;
    plain->management = plain_memory(plain->geometry.management_bytes);
    plain->chunks = plain_memory(plain->geometry.chunk_bytes);
    zcp_priv_format_pools(plain->management, &plain->geometry, 0x5eed);
    for (uint32_t c = 0; c < clients; c++) {
        zcp_manager *manager = plain->managers[c] = plain_memory(sizeof *manager);
        manager->geometry = plain->geometry;
        manager->management = (zcp_priv_lock){ plain->management, (size_t)plain->geometry.management_bytes };
        manager->header = plain->management;
        manager->chunks = plain->chunks;
        manager->private_memory = plain_memory(zcp_priv_private_bytes(&plain->geometry));
        manager->file.fd = -1;
        snprintf(manager->name, sizeof manager->name, "plain-%u", c);
        zcp_priv_view_make(&manager->view, &manager->geometry, plain->management, plain->chunks,
                           manager->private_memory, c, flags);
        manager->opened = zcp_priv_add_relaxed(&zcp_priv_serial, 1) + 2;
        zcp_priv_store_relaxed(&manager->live, (uintptr_t)manager->opened);
        zcp_priv_store_release(&manager->state, (uint32_t)ZCP_PRIV_OPEN);
    }
    return plain;
}

zcp_manager *inside_plain_client(inside_plain *plain, uint32_t client) { return plain->managers[client]; }
void inside_plain_leave(inside_plain *plain) {
    for (uint32_t c = 0; c < plain->clients; c++)
        for (uint32_t thread = 1; thread < ZCP_PRIV_LANES; thread++)
            if (!plain->swept[c]) zcp_priv_view_leave(&plain->managers[c]->view, thread);
}

void inside_plain_sweep(inside_plain *plain, uint32_t sweeper, uint32_t dead) {
    bool garbage = false;
    plain->swept[dead] = true;
    zcp_priv_view_sweep(&plain->managers[sweeper]->view, dead, NULL, &garbage);
    CHECK(!garbage);
}

void inside_plain_free(inside_plain *plain) {
    for (uint32_t c = 0; c < plain->clients; c++) {
        free(plain->managers[c]->private_memory);
        free(plain->managers[c]);
    }
    free(plain->management);
    free(plain->chunks);
    free(plain);
}
