// tests/harness/scribble.h: garbage that adds up, as a peer writes it that knows the layout: a slot with a right check
// word, a new serial and files that are long enough, states with plausible generations and all special low words, an
// epoch that runs. One table of kinds: garbage_test.c writes it beside live clients, the fuzzer between their calls.
// Include it behind hostile.h. What the creation laid out the writer tells, and it is not read: there may be garbage,
// too.
#ifndef ZEROCP_TEST_SCRIBBLE_H
#define ZEROCP_TEST_SCRIBBLE_H

#include "hostile.h"

typedef struct scribble_target {
    zcp_priv_header *header;                                       // of a mapping of the whole segment, for writing
    const zcp_priv_geometry *geometry;                             // of the creation
    uint64_t (*random)(void *source, unsigned bytes);
    void *source;
} scribble_target;

// Behind what the creation takes up there is room for forged pools, several of which may lie in one place.
enum { SCRIBBLE_PLACES = 8, SCRIBBLE_PLACE = 1 << 16, SCRIBBLE_ALIGNED = 1 << 16 };

HOSTILE_UNUSED static uint64_t scribble_first_place(uint64_t bytes) {
    return (bytes + SCRIBBLE_ALIGNED - 1) / SCRIBBLE_ALIGNED * SCRIBBLE_ALIGNED;
}

// How long a file has to be, of which the creation takes so many bytes.
HOSTILE_UNUSED static off_t scribble_end(uint64_t bytes) {
    return (off_t)(scribble_first_place(bytes) + SCRIBBLE_PLACES * SCRIBBLE_PLACE);
}

HOSTILE_UNUSED static uint64_t scribble_below(const scribble_target *s, uint64_t limit) {
    return s->random(s->source, limit > 256 ? 8 : 1) % limit;
}

// ---------------------------------------------------------------------------------------------------------------------
// Pools that come and go

HOSTILE_UNUSED static uint32_t scribble_serial(const scribble_target *s) {
    uint32_t highest = 1;
    for (int i = 0; i < ZCP_MAX_LIVE_POOLS; i++)
        if ((uint32_t)(s->header->pools[i].state >> 32) > highest)
            highest = (uint32_t)(s->header->pools[i].state >> 32);
    return highest == UINT32_MAX ? 2 : highest + 1;
}

HOSTILE_UNUSED static uint64_t scribble_place(const scribble_target *s, uint64_t bytes) {
    return scribble_first_place(bytes) + scribble_below(s, SCRIBBLE_PLACES) * SCRIBBLE_PLACE;
}

// Another pool gets the number. odd: one of its words is anything.
HOSTILE_UNUSED static void scribble_slot(const scribble_target *s, uint32_t number, uint32_t serial, bool odd) {
    static const uint64_t sizes[] = {64, 100, 300, 1000, 2000, 4000};
    zcp_priv_pool_slot *slot = &s->header->pools[number];
    zcp_priv_geometry geometry;
    zcp_priv_added added;
    added.config = (zcp_pool_config){.chunk_size = sizes[scribble_below(s, 6)], .alignment = 64,
                                     .chunk_count = 1 + (uint32_t)scribble_below(s, 8),
                                     .cache_chunks = (uint32_t)scribble_below(s, 4)};
    added.management_offset = scribble_place(s, s->geometry->management_bytes);
    added.data_offset = scribble_place(s, s->geometry->chunk_bytes);
    added.segment = ZCP_SEGMENT_CHUNK + 1 + (uint32_t)scribble_below(s, UINT16_MAX - ZCP_SEGMENT_CHUNK);
    if (!odd && scribble_below(s, 2) && zcp_priv_added_geometry(s->geometry, &added.config, &geometry) == ZCP_OK)
        zcp_priv_format_pool(zcp_priv_object_at(s->header, added.management_offset), &geometry.pools[0],
                             s->geometry->record_bytes, serial);
    switch (odd ? scribble_below(s, 7) : 7) {
    case 0: added.config.chunk_size = s->random(s->source, 8); break;
    case 1: added.config.chunk_count = (uint32_t)s->random(s->source, 4); break;
    case 2: added.config.alignment = (uint32_t)s->random(s->source, 4); break;
    case 3: added.config.cache_chunks = (uint32_t)s->random(s->source, 4); break;
    case 4: added.management_offset = s->random(s->source, scribble_below(s, 2) ? 8 : 2); break;
    case 5: added.data_offset = s->random(s->source, scribble_below(s, 2) ? 8 : 2); break;
    case 6: added.segment = (uint32_t)s->random(s->source, scribble_below(s, 2) ? 4 : 1); break;
    }
    slot->chunk_size = added.config.chunk_size;
    slot->chunk_count = added.config.chunk_count;
    slot->alignment = added.config.alignment;
    slot->cache_chunks = added.config.cache_chunks;
    slot->management_offset = added.management_offset;
    slot->data_offset = added.data_offset;
    slot->segment = added.segment;
    slot->check = zcp_priv_added_check(&added, serial);
    slot->state = zcp_priv_pool_state(serial, ZCP_PRIV_POOL_LIVE);
}

// One that is there, more often than not.
HOSTILE_UNUSED static uint32_t scribble_number(const scribble_target *s) {
    return (uint32_t)scribble_below(s, scribble_below(s, 4) ? s->geometry->pool_count + 2 : ZCP_MAX_LIVE_POOLS);
}

HOSTILE_UNUSED static void scribble_pool(const scribble_target *s) {
    scribble_slot(s, scribble_number(s), scribble_serial(s), false);
    s->header->signals.epoch++;
}

HOSTILE_UNUSED static void scribble_odd_pool(const scribble_target *s) {
    scribble_slot(s, scribble_number(s), scribble_serial(s), true);
    s->header->signals.epoch++;
}

HOSTILE_UNUSED static void scribble_all_pools(const scribble_target *s) {
    uint32_t serial = scribble_serial(s);
    for (uint32_t i = 0; i < ZCP_MAX_LIVE_POOLS; i++)
        scribble_slot(s, i, serial + i, false);
    s->header->signals.epoch++;
}

// Those above a few go, so that the rest is what is worked with.
HOSTILE_UNUSED static void scribble_few_pools(const scribble_target *s) {
    for (uint32_t i = s->geometry->pool_count + (uint32_t)scribble_below(s, 3); i < ZCP_MAX_LIVE_POOLS; i++)
        s->header->pools[i].state = (s->header->pools[i].state & ~UINT64_C(0xffffffff)) | ZCP_PRIV_POOL_GONE;
    s->header->signals.epoch++;
}

HOSTILE_UNUSED static void scribble_phase(const scribble_target *s) {
    zcp_priv_pool_slot *slot = &s->header->pools[scribble_number(s)];
    static const uint32_t phases[] = {ZCP_PRIV_POOL_LIVE, ZCP_PRIV_POOL_LIVE,     ZCP_PRIV_POOL_LIVE,
                                      ZCP_PRIV_POOL_GONE, ZCP_PRIV_POOL_RETIRING, ZCP_PRIV_POOL_NONE, 4};
    slot->state = (slot->state & ~UINT64_C(0xffffffff)) | phases[scribble_below(s, 7)];
    s->header->signals.epoch++;
}

HOSTILE_UNUSED static void scribble_epoch(const scribble_target *s) {
    s->header->signals.epoch += 1 + (uint32_t)scribble_below(s, 3);
}

// ---------------------------------------------------------------------------------------------------------------------
// Chunks and leases

typedef struct scribble_part {                                     // of the management segment: that of one pool
    void *base;
    zcp_priv_pool_geometry pool;
} scribble_part;

HOSTILE_UNUSED static bool scribble_is_there(const scribble_target *s, uint32_t number) {
    uint32_t phase = (uint32_t)s->header->pools[number].state;
    return phase == ZCP_PRIV_POOL_LIVE || phase == ZCP_PRIV_POOL_RETIRING;
}

// Of a pool of the creation, or of the forged one that has a number now.
HOSTILE_UNUSED static scribble_part scribble_any(const scribble_target *s) {
    uint32_t number = scribble_number(s), own = (uint32_t)scribble_below(s, s->geometry->pool_count);
    for (int i = 0; i < 8 && !scribble_is_there(s, number); i++)
        number = scribble_number(s);
    zcp_priv_pool_slot *slot = &s->header->pools[number];
    uint64_t first = scribble_first_place(s->geometry->management_bytes);
    zcp_priv_geometry geometry;
    zcp_priv_added added;
    if (!zcp_priv_added_read(slot, (uint32_t)(slot->state >> 32), &added) || added.management_offset < first ||
        zcp_priv_added_geometry(s->geometry, &added.config, &geometry) != ZCP_OK ||
        geometry.management_bytes > SCRIBBLE_PLACE ||
        added.management_offset - first > (SCRIBBLE_PLACES - 1) * SCRIBBLE_PLACE)
        return (scribble_part){s->header, s->geometry->pools[own]};
    return (scribble_part){zcp_priv_object_at(s->header, added.management_offset), geometry.pools[0]};
}

HOSTILE_UNUSED static zcp_priv_record *scribble_record(const scribble_target *s) {
    scribble_part part = scribble_any(s);
    uint64_t index = scribble_below(s, part.pool.chunk_count);
    return zcp_priv_object_at(part.base, part.pool.records_offset + index * s->geometry->record_bytes);
}

HOSTILE_UNUSED static uint32_t scribble_client(const scribble_target *s) {
    return (uint32_t)scribble_below(s, s->geometry->max_clients);
}

// Owners that are none or special, tickets that are first, last or special, in each combination.
HOSTILE_UNUSED static void scribble_states(const scribble_target *s) {
    for (uint64_t n = 1 + scribble_below(s, 4); n > 0; n--) {
        zcp_priv_record *record = scribble_record(s);
        const uint32_t owners[] = {0, scribble_client(s) + 1, s->geometry->max_clients + 1, 0x7fe, 0x7ff};
        const uint32_t tickets[] = {0, 1, 2, 0x1fffff, 0x1fffff - (uint32_t)scribble_below(s, 72)};
        uint32_t generation = ZCP_PRIV_GENERATION(record->state) + (uint32_t)scribble_below(s, 3);
        record->state = zcp_priv_state(generation, owners[scribble_below(s, 5)], tickets[scribble_below(s, 5)]);
    }
}

HOSTILE_UNUSED static void scribble_borrower(const scribble_target *s) {
    uint32_t client = scribble_client(s);
    *zcp_priv_borrow_word(scribble_record(s), client) ^= zcp_priv_borrow_bit(client);
}

HOSTILE_UNUSED static void scribble_description(const scribble_target *s) {
    zcp_priv_record *record = scribble_record(s);
    record->size = s->random(s->source, 8);
    record->note = s->random(s->source, 8);
}

HOSTILE_UNUSED static zcp_priv_leases *scribble_leases(const scribble_target *s, uint32_t *leaves, uint32_t *shift) {
    scribble_part part = scribble_any(s);
    *leaves = zcp_priv_list_leaves(part.pool.chunk_count, shift);
    return zcp_priv_object_at(part.base, part.pool.leases_offset);
}

// A counter that is far off, or one too high or too low.
HOSTILE_UNUSED static void scribble_counter(const scribble_target *s) {
    uint32_t leaves, shift;
    zcp_priv_leases *leases = scribble_leases(s, &leaves, &shift);
    zcp_priv_lease *lease = &leases->items[scribble_below(s, zcp_priv_lease_count(leaves))];
    _Atomic uint64_t *counters[] = {&leases->allocated, &leases->freed, &leases->peak, &leases->failures,
                                    &leases->waits, &lease->allocated, &lease->freed};
    _Atomic uint64_t *counter = counters[scribble_below(s, 7)];
    uint64_t now = *counter;
    const uint64_t values[] = {0, UINT64_MAX, now + 1, now - 1, s->random(s->source, 8)};
    *counter = values[scribble_below(s, 5)];
}

// Somebody wants chunks, or waits, or the pool retires, it says.
HOSTILE_UNUSED static void scribble_wish(const scribble_target *s) {
    uint32_t leaves, shift;
    zcp_priv_leases *leases = scribble_leases(s, &leaves, &shift);
    switch (scribble_below(s, 4)) {
    case 0: leases->recalls++; break;
    case 1: leases->waiting++; break;
    case 2: leases->woken++; break;
    default: leases->retiring = (uint32_t)scribble_below(s, 3);
    }
}

// A lease that is somebody's, with a leaf that is there or the first that is not, and hints of chunks that may not be.
HOSTILE_UNUSED static void scribble_loan(const scribble_target *s) {
    uint32_t leaves, shift;
    zcp_priv_leases *leases = scribble_leases(s, &leaves, &shift);
    zcp_priv_lease *lease = &leases->items[scribble_below(s, zcp_priv_lease_count(leaves))];
    if (scribble_below(s, 2))
        lease->holder = (uint32_t)scribble_below(s, s->geometry->max_clients + 2);
    lease->leaf = (uint32_t)scribble_below(s, leaves + 1);
    lease->loan = s->random(s->source, scribble_below(s, 2) ? 8 : 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Topics

typedef struct scribble_tables {
    zcp_priv_topic_publisher *publisher;                           // one of them, its cursors and its ring
    zcp_priv_cursor *cursors;
    zcp_priv_cell *ring;
    zcp_priv_topic_subscriber *subscribers;
    uint32_t subscriber_count, cells;
} scribble_tables;

HOSTILE_UNUSED static scribble_tables scribble_topics(const scribble_target *s) {
    const zcp_priv_geometry *geometry = s->geometry;
    uint64_t which = scribble_below(s, geometry->publishers), publishers = geometry->publishers;
    unsigned char *at = zcp_priv_object_at(s->header, geometry->topics_offset);
    scribble_tables tables = {.subscriber_count = geometry->subscribers, .cells = geometry->ring_cells};
    tables.publisher = (zcp_priv_topic_publisher *)(void *)at + which;
    at += publishers * sizeof *tables.publisher;
    tables.subscribers = (void *)at;
    at += geometry->subscribers * sizeof *tables.subscribers;
    tables.cursors = (zcp_priv_cursor *)(void *)at + which * geometry->subscribers;
    at += publishers * geometry->subscribers * sizeof *tables.cursors;
    tables.ring = (void *)(at + which * zcp_priv_ring_bytes(geometry));
    return tables;
}

// Of a chunk that there is, in the generation that it has, more often than not.
HOSTILE_UNUSED static uint64_t scribble_token(const scribble_target *s) {
    uint32_t pool = (uint32_t)scribble_below(s, s->geometry->pool_count);
    const zcp_priv_pool_geometry *geometry = &s->geometry->pools[pool];
    uint64_t i = scribble_below(s, geometry->chunk_count);
    zcp_priv_record *record =
        zcp_priv_object_at(s->header, geometry->records_offset + i * s->geometry->record_bytes);
    uint64_t token = (record->state >> 32) << 32 | pool << ZCP_PRIV_POOL_SHIFT | i;
    switch (scribble_below(s, 8)) {
    case 0: return 0;
    case 1: return token ^ UINT64_C(1) << 32;
    case 2: return s->random(s->source, 8);
    default: return token;
    }
}

// Near to what it is, or far off.
HOSTILE_UNUSED static uint64_t scribble_number_near(const scribble_target *s, uint64_t is) {
    const uint64_t values[] = {0, is + 1, is - 1, is + s->geometry->ring_cells, is - s->geometry->ring_cells,
                               UINT64_MAX, INT64_MAX, s->random(s->source, 8)};
    return values[scribble_below(s, 8)];
}

// Another phase, another client or another serial.
HOSTILE_UNUSED static uint64_t scribble_topic_state(const scribble_target *s, uint64_t is, uint64_t other) {
    uint64_t serial = is >> 32, low = (uint32_t)is;
    const uint64_t serials[] = {serial, serial, serial + 1, serial - 1, other >> 32, s->header->signals.topics_epoch,
                                s->header->signals.topics_epoch + 1, 0};
    const uint64_t clients[] = {low & 0xffff, low & 0xffff, scribble_client(s) + 1, s->geometry->max_clients + 1, 0,
                                0xffff};
    uint64_t phase = scribble_below(s, 5);
    return serials[scribble_below(s, 8)] << 32 | phase << 16 | clients[scribble_below(s, 6)];
}

HOSTILE_UNUSED static void scribble_publisher(const scribble_target *s) {
    scribble_tables t = scribble_topics(s), other = scribble_topics(s);
    const uint32_t depths[] = {0, 1, t.cells, t.cells + 1, UINT32_MAX, (uint32_t)scribble_below(s, t.cells + 1)};
    switch (scribble_below(s, 6)) {
    case 0: case 1: t.publisher->state = scribble_topic_state(s, t.publisher->state, other.publisher->state); break;
    case 2: t.publisher->depth = depths[scribble_below(s, 6)]; break;
    case 3: t.publisher->keep = depths[scribble_below(s, 6)]; break;
    case 4: t.publisher->count = scribble_number_near(s, t.publisher->count); break;
    default:
        t.publisher->flags ^= (uint32_t)s->random(s->source, 1);
        t.publisher->waits = (uint32_t)scribble_below(s, 2);
    }
}

HOSTILE_UNUSED static void scribble_subscriber(const scribble_target *s) {
    scribble_tables t = scribble_topics(s);
    zcp_priv_topic_subscriber *subscriber = &t.subscribers[scribble_below(s, t.subscriber_count)];
    zcp_priv_topic_subscriber *other = &t.subscribers[scribble_below(s, t.subscriber_count)];
    switch (scribble_below(s, 4)) {
    case 0: case 1: subscriber->state = scribble_topic_state(s, subscriber->state, other->state); break;
    case 2: subscriber->flags ^= (uint32_t)s->random(s->source, 1); break;
    default:
        subscriber->armed = (uint32_t)scribble_below(s, 3);
        subscriber->socket = scribble_below(s, 2) ? other->socket : s->random(s->source, 8);
    }
}

// A publisher or subscriber gets the topic of another, or one that is nobody's.
HOSTILE_UNUSED static void scribble_topic(const scribble_target *s) {
    scribble_tables t = scribble_topics(s), other = scribble_topics(s);
    uint64_t which = scribble_below(s, t.subscriber_count);
    _Atomic uint64_t *to = scribble_below(s, 2) ? t.publisher->topic : t.subscribers[which].topic;
    uint64_t nobodys = s->random(s->source, 8);
    for (int i = 0; i < 8; i++)
        to[i] = nobodys % 4 == 0 ? nobodys : other.publisher->topic[i];
}

// A message: of a chunk that there is, a lap away, of a size that is one or a code.
HOSTILE_UNUSED static void scribble_cell(const scribble_target *s) {
    scribble_tables t = scribble_topics(s);
    zcp_priv_cell *cell = &t.ring[scribble_below(s, t.cells)];
    const uint32_t sizes[] = {0, 1, 60, 100, 1000, ZCP_PRIV_CELL_GONE, ZCP_PRIV_CELL_LOOK,
                              (uint32_t)s->random(s->source, 4)};
    uint32_t lap = (uint32_t)(cell->last >> 32);
    const uint32_t laps[] = {lap, lap, lap + 1, lap + 2, lap - 1, 0, UINT32_MAX, (uint32_t)s->random(s->source, 4)};
    if (scribble_below(s, 2))
        cell->token = scribble_token(s);
    cell->last = (uint64_t)laps[scribble_below(s, 8)] << 32 | sizes[scribble_below(s, 8)];
}

// Another head within the ring or beyond, a claim of a chunk that there is, a serial that is some publisher's.
HOSTILE_UNUSED static void scribble_cursor(const scribble_target *s) {
    scribble_tables t = scribble_topics(s), other = scribble_topics(s);
    zcp_priv_cursor *cursor = &t.cursors[scribble_below(s, t.subscriber_count)];
    switch (scribble_below(s, 4)) {
    case 0: cursor->serial = scribble_below(s, 2) ? other.publisher->state >> 32 : t.publisher->state >> 32; break;
    case 1: cursor->head = scribble_number_near(s, scribble_below(s, 2) ? cursor->head : t.publisher->count); break;
    case 2: cursor->claim = scribble_token(s); break;
    default: cursor->lost = scribble_number_near(s, cursor->lost);
    }
}

// Somebody has come, or gone, or sleeps, it says, or was woken.
HOSTILE_UNUSED static void scribble_news(const scribble_target *s) {
    scribble_tables t = scribble_topics(s);
    uint64_t offset = s->geometry->slots_offset + scribble_client(s) * sizeof(zcp_priv_slot);
    zcp_priv_slot *slot = zcp_priv_object_at(s->header, offset);
    switch (scribble_below(s, 5)) {
    case 0: s->header->signals.topics_epoch += 1; break;
    case 1: t.publisher->attention += (uint32_t)scribble_below(s, 3) - 1; break;
    case 2: slot->sleeps += UINT64_C(1) << 32 | ZCP_PRIV_TOPIC_SLEEP; break;
    case 3: slot->wakes++; break;
    default: slot->woken = slot->wakes + (uint32_t)scribble_below(s, 3) - 1;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// All of it

typedef struct scribble_kind {
    const char *name;
    void (*write)(const scribble_target *s);
} scribble_kind;

static const scribble_kind scribble_kinds[] HOSTILE_UNUSED = {
    {"a pool that adds up", scribble_pool},       {"a pool that nearly does", scribble_odd_pool},
    {"32 pools that add up", scribble_all_pools}, {"pools that are gone", scribble_few_pools},
    {"a phase", scribble_phase},                  {"an epoch that runs", scribble_epoch},
    {"states", scribble_states},                  {"a borrower", scribble_borrower},
    {"a description", scribble_description},      {"a counter", scribble_counter},
    {"a wish", scribble_wish},                    {"a loan", scribble_loan},
    {"a publisher", scribble_publisher},          {"a subscriber", scribble_subscriber},
    {"a topic", scribble_topic},                  {"a cell", scribble_cell},
    {"a cursor", scribble_cursor},                {"news", scribble_news},
};
enum { SCRIBBLE_KINDS = sizeof scribble_kinds / sizeof scribble_kinds[0] };

// ---------------------------------------------------------------------------------------------------------------------
// What must hold whatever was written

// The pool in whose memory a chunk lies, which need not be the one that has its number by now. NULL: in no pool's.
HOSTILE_UNUSED static const zcp_priv_pool *scribble_pool_of(const zcp_chunk *chunk) {
    const zcp_manager *manager = chunk->manager;
    const zcp_priv_pool *found = NULL;
    zcp_priv_process *process = zcp_priv_process_lock();
    for (uint32_t p = 0; p < manager->geometry.pool_count; p++) {
        const zcp_priv_pool *pool = &manager->view.own[p];
        if ((uintptr_t)chunk->data - (uintptr_t)pool->data < pool->stride * pool->count)
            found = pool;
    }
    for (const zcp_priv_grown *g = manager->grown; g != NULL; g = g->next)
        if (g->pool.data != NULL && (uintptr_t)chunk->data - (uintptr_t)g->pool.data < g->pool.stride * g->pool.count)
            found = &g->pool;
    zcp_priv_process_unlock(process);
    return found;
}

// Is it a whole chunk of one pool, and as large as asked?
HOSTILE_UNUSED static bool scribble_has_room(const zcp_chunk *chunk, uint64_t bytes) {
    const zcp_priv_pool *pool = scribble_pool_of(chunk);
    uintptr_t at = (uintptr_t)chunk->data;
    return pool != NULL && (at - (uintptr_t)pool->data) % pool->stride == 0 && bytes <= pool->chunk_size;
}

HOSTILE_UNUSED static bool scribble_are_figures(const zcp_pool_stats *stats) {
    return stats->used <= stats->total && stats->free <= stats->total && stats->cached <= stats->total &&
           stats->used + stats->free + stats->cached == stats->total && stats->peak_used <= stats->total &&
           stats->used <= stats->peak_used && stats->releases <= stats->allocations &&
           stats->allocations - stats->releases == stats->used && stats->allocations <= INT64_MAX &&
           stats->failures <= INT64_MAX && stats->waits <= INT64_MAX;
}

// What a message shows lies in one chunk.
HOSTILE_UNUSED static bool scribble_is_message(const zcp_manager *manager, const zcp_message *message) {
    zcp_chunk chunk = {(zcp_manager *)(uintptr_t)manager, (void *)(uintptr_t)message->data, 0, 0};
    return message->publisher < manager->geometry.max_clients
           && (message->data == NULL ? message->size == 0 : scribble_has_room(&chunk, message->size));
}

// An instance that was created with so many clients and cells.
HOSTILE_UNUSED static bool scribble_is_endpoint(const zcp_topic_entry *entry, const zcp_priv_geometry *geometry) {
    bool own = entry->client < geometry->max_clients || entry->client == ZCP_NO_CLIENT;
    if (!own || memchr(entry->topic, 0, sizeof entry->topic) == NULL || entry->messages > INT64_MAX
        || entry->lost > INT64_MAX || entry->unread > INT64_MAX || entry->keep > entry->depth)
        return false;
    return !entry->publisher
           || (entry->depth <= geometry->ring_cells && entry->held <= entry->depth && entry->unread <= entry->depth);
}

// The same of what print shows, as far as the lines are whole.
HOSTILE_UNUSED static bool scribble_is_print(const char *text) {
    for (const char *end; (end = strchr(text, '\n')) != NULL; text = end + 1) {
        unsigned long long total, used, unused;
        const char *at = strstr(text, "total=");
        if (at != NULL && at < end && (sscanf(at, "total=%llu, used=%llu, free=%llu", &total, &used, &unused) != 3 ||
                                       used > total || unused > total))
            return false;
    }
    return true;
}

// So many of the library's mappings may stand in a process that has one manager: a quarter of what the kernel allows
// (vm.max_map_count), and here each has a guard besides.
enum { SCRIBBLE_MAPPINGS = 65530 / 4 };

HOSTILE_UNUSED static bool scribble_leaves_mappings(void) {
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED)
        munmap(page, 4096);
    return page != MAP_FAILED && hostile.files + hostile.anonymous <= SCRIBBLE_MAPPINGS;
}

#endif
