// inspect_chunks.h: the commands that look at each chunk that somebody holds: census, leaks and suggest.
#ifndef INSPECT_CHUNKS_H
#define INSPECT_CHUNKS_H

#include "inspect_pools.h"
#include "inspect_suggest.h"
#include "inspect_tool.h"
#include "inspect_watch.h"

enum { MAX_SIZES_SEEN = 1 << 22 };

// ---------------------------------------------------------------------------------------------------------------------
// census, leaks

typedef struct census {
    zcp_census_entry *items;
    size_t count, room;
} census;

static bool census_add(const zcp_census_entry *entry, void *user) {
    census *c = user;
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 256;
        zcp_census_entry *more = realloc(c->items, c->room * sizeof *more);
        if (more == NULL)
            report_out_of_memory();
        c->items = more;
    }
    c->items[c->count++] = *entry;
    return true;
}

static bool has_slot(const uint64_t words[16], uint32_t slot) {
    return slot < ZCP_MAX_CLIENTS && (words[slot / 64] >> slot % 64 & 1);
}

static value token_or_none(uint64_t token) {
    return token != 0 ? v_hex(token) : v_none();
}

static value slot_or_none(uint32_t slot) {
    return slot == ZCP_NO_CLIENT ? v_none() : v_number(slot);
}

// Small tags are numbers to people, others patterns. As text, because it stands in a table.
static const char *tag_text(uint32_t tag, char text[16]) {
    snprintf(text, 16, tag < 0x10000 ? "%u" : "0x%08x", tag);
    return text;
}

static int run_census(tool *t) {
    static const column columns[] = {
        {"pool", "POOL", ~0u}, {"index", "INDEX", ~0u}, {"generation", NULL, 0}, {"token", "TOKEN", ~0u},
        {"size", "SIZE", ~0u}, {"capacity", "OF", ~0u}, {"owner", "OWNER", ~0u}, {"borrowers", "BORROWERS", ~0u},
        {"tag", NULL, 0},      {NULL, "TAG", ~0u},      {"age", "AGE", ~0u},
    };
    report *r = &t->report;
    census held = {0};
    uint64_t shown = 0, bytes = 0;
    int status = look(t);
    if (status == 0 && zcp_manager_census(t->manager, census_add, &held) != ZCP_OK)
        status = fail_status(t, ZCP_ERR_SYSTEM);
    if (status != 0)
        return status;
    report_field(r, "name", NULL, v_text(t->now.info.name));
    TABLE_BEGIN(r, "chunks", columns);
    for (size_t i = 0; i < held.count; i++) {
        const zcp_census_entry *e = &held.items[i];
        char tag[16];
        if ((given(t, OPTION_POOL) && e->pool != t->pool) || (given(t, OPTION_TAG) && e->tag != t->tag) ||
            (given(t, OPTION_CLIENT) && e->owner != t->client && !has_slot(e->borrower_mask, (uint32_t)t->client)))
            continue;
        TABLE_ROW(r, v_number(e->pool), v_number(e->index), v_number(e->generation), token_or_none(e->token),
                  v_number(e->size), v_number(e->capacity), slot_or_none(e->owner), v_slots(e->borrower_mask),
                  v_number(e->tag), v_text(tag_text(e->tag, tag)), v_number(e->age));
        shown++;
        bytes += e->capacity;
    }
    table_end(r);
    report_field(r, "count", NULL, v_number(shown));
    report_field(r, "bytes", NULL, v_bytes(bytes));
    report_line(r, DIM, "%" PRIu64 " chunk%s held, %" PRIu64 " bytes", shown, plural(shown), bytes);
    free(held.items);
    return 0;
}

typedef enum leak_kind { LEAK_NONE, LEAK_LOST, LEAK_DEAD, LEAK_OLD, LEAK_READ, LEAK_OWNERLESS, LEAK_UNREAD } leak_kind;

static const char *const leak_names[] = {"", "lost", "dead", "old", "read", "ownerless", "unread"};

static bool is_suspect(leak_kind kind) {
    return kind == LEAK_LOST || kind == LEAK_DEAD || kind == LEAK_OLD;
}

typedef struct leak {
    leak_kind kind;
    zcp_census_entry first;                                        // of the group, the oldest
    uint64_t count, bytes;
} leak;

static zcp_client_state state_of(const client_table *clients, uint32_t slot) {
    return slot < clients->count ? clients->items[slot].state : ZCP_CLIENT_FREE;
}

// What a living client has acquired is in use, however old it is, and whatever has become of its owner.
static leak_kind judge_chunk(const tool *t, const zcp_census_entry *e) {
    const client_table *clients = &t->now.clients;
    bool owned = state_of(clients, e->owner) == ZCP_CLIENT_ALIVE, read = false;
    bool dead = state_of(clients, e->owner) == ZCP_CLIENT_DEAD;
    bool unread = e->owner < clients->count && clients->drains[e->owner];
    for (uint32_t slot = 0; slot < clients->count; slot++)
        if (has_slot(e->borrower_mask, slot)) {
            unread |= clients->drains[slot];
            read |= slot != e->owner && state_of(clients, slot) == ZCP_CLIENT_ALIVE;
            dead |= state_of(clients, slot) == ZCP_CLIENT_DEAD;
        }
    uint64_t total = e->pool < t->now.pool_count ? t->now.pools[e->pool].total : 0;
    bool old = e->age >= (given(t, OPTION_OLDER) ? t->older : 4 * total);
    if (read)
        return !owned ? LEAK_OWNERLESS : old ? LEAK_READ : LEAK_NONE;
    if (!owned && unread)
        return LEAK_UNREAD;
    if (!owned)
        return dead ? LEAK_DEAD : LEAK_LOST;
    return old ? LEAK_OLD : LEAK_NONE;
}

static int compare_numbers(uint64_t a, uint64_t b) { return (a > b) - (a < b); }

static int compare_leaks_by_group(const void *left, const void *right) {
    const leak *a = left, *b = right;
    int order = compare_numbers(a->kind, b->kind);
    if (order == 0)
        order = compare_numbers(a->first.tag, b->first.tag);
    if (order == 0)
        order = compare_numbers(a->first.owner, b->first.owner);
    return order ? order : compare_numbers(a->first.pool, b->first.pool);
}

static int compare_leaks_by_bytes(const void *left, const void *right) {
    const leak *a = left, *b = right;
    int order = compare_numbers(b->bytes, a->bytes);
    return order ? order : compare_leaks_by_group(left, right);
}

// Of the chunks that are held, those that look leaked, one entry per kind, tag, owner and pool, the largest first.
static size_t find_leaks(const tool *t, const census *held, leak *leaks) {
    size_t count = 0, groups = 0;
    for (size_t i = 0; i < held->count; i++) {
        leak_kind kind = judge_chunk(t, &held->items[i]);
        if (kind != LEAK_NONE)
            leaks[count++] = (leak){kind, held->items[i], 1, held->items[i].capacity};
    }
    qsort(leaks, count, sizeof *leaks, compare_leaks_by_group);
    for (size_t i = 0; i < count; i++) {
        leak *group = groups ? &leaks[groups - 1] : NULL;
        if (group == NULL || compare_leaks_by_group(group, &leaks[i]) != 0) {
            leaks[groups++] = leaks[i];
            continue;
        }
        if (leaks[i].first.age > group->first.age)
            group->first = leaks[i].first;
        group->count++;
        group->bytes += leaks[i].bytes;
    }
    qsort(leaks, groups, sizeof *leaks, compare_leaks_by_bytes);
    return groups;
}

static int run_leaks(tool *t) {
    static const column columns[] = {
        {"kind", "KIND", ~0u}, {"tag", NULL, 0}, {NULL, "TAG", ~0u}, {"owner", "OWNER", ~0u}, {"client", "CLIENT", ~0u},
        {"pool", "POOL", ~0u},
        {"chunks", "CHUNKS", ~0u}, {"bytes", "BYTES", ~0u}, {"oldest_age", "OLDEST", ~0u},
        {"oldest_token", "OLDEST TOKEN", ~0u},
    };
    report *r = &t->report;
    census held = {0};
    uint64_t suspects = 0, bytes = 0;
    int status = look(t);
    if (status == 0 && zcp_manager_census(t->manager, census_add, &held) != ZCP_OK)
        status = fail_status(t, ZCP_ERR_SYSTEM);
    if (status != 0)
        return status;
    leak *leaks = calloc(held.count + 1, sizeof *leaks);
    if (leaks == NULL)
        report_out_of_memory();
    size_t groups = find_leaks(t, &held, leaks);
    report_field(r, "name", NULL, v_text(t->now.info.name));
    TABLE_BEGIN(r, "leaks", columns);
    for (size_t i = 0; i < groups; i++) {
        const leak *l = &leaks[i];
        const zcp_client_stats *owner =
            l->first.owner < t->now.clients.count ? &t->now.clients.items[l->first.owner] : NULL;
        char tag[16];
        report_color color = is_suspect(l->kind) ? RED : DIM;
        TABLE_ROW(r, v_colored(leak_names[l->kind], color), v_number(l->first.tag), v_text(tag_text(l->first.tag, tag)),
                  slot_or_none(l->first.owner), owner != NULL ? v_text(owner->name) : v_none(), v_number(l->first.pool),
                  v_number(l->count), v_bytes(l->bytes), v_number(l->first.age), token_or_none(l->first.token));
        suspects += is_suspect(l->kind) ? l->count : 0;
        bytes += is_suspect(l->kind) ? l->bytes : 0;
    }
    table_end(r);
    report_field(r, "suspects", NULL, v_number(suspects));
    report_field(r, "suspect_bytes", NULL, v_bytes(bytes));
    report_field(r, "held", NULL, v_number(held.count));
    report_line(r, suspects ? RED : GREEN, "%" PRIu64 " of %zu held chunk%s look%s leaked", suspects, held.count,
                plural(held.count), suspects == 1 ? "s" : "");
    free(leaks);
    free(held.items);
    return suspects ? EXIT_FOUND : 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// suggest

static bool note_size(const zcp_census_entry *entry, void *user) {
    asked_sizes *seen = user;
    if (seen->count == seen->room) {
        seen->room = seen->room ? 2 * seen->room : 1024;
        asked *more = realloc(seen->items, seen->room * sizeof *more);
        if (more == NULL)
            report_out_of_memory();
        seen->items = more;
    }
    seen->items[seen->count++] = (asked){entry->pool, entry->size};
    return seen->count < MAX_SIZES_SEEN;
}

// As many looks as --count says, so that more of what comes and goes is seen. t->before is the first one. 0, or the
// exit status.
static int see_sizes(tool *t, asked_sizes *seen, uint64_t *looks_made) {
    int status = look(t);
    catch_signals(t);
    t->before = t->now;
    for (uint64_t looks = 1; status == 0; looks++) {
        *looks_made = looks;
        zcp_status done = zcp_manager_census(t->manager, note_size, seen);
        if (done == ZCP_OK)
            done = take_snapshot(t->manager, &t->now);
        if (done != ZCP_OK)
            status = fail_status(t, done);
        if (looks >= (given(t, OPTION_COUNT) ? t->count : 1) || seen->count >= MAX_SIZES_SEEN
            || !wait_until(t, zcp_priv_now_ns() + (uint64_t)t->interval_ms * 1000000))
            break;
    }
    return status;
}

static char *config_line(const suggestions *s) {
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        report_out_of_memory();
    for (uint32_t i = 0; i < s->count; i++) {
        const zcp_pool_config *c = &s->items[i].config;
        fprintf(out, "%s%" PRIu64 "x%u", i ? "," : "", c->chunk_size, c->chunk_count);
        if (c->alignment != ZCP_DEFAULT_ALIGNMENT)
            fprintf(out, ":align=%u", c->alignment);
        if (c->cache_chunks != 0)
            fprintf(out, ":cache=%u", c->cache_chunks);
    }
    if (fclose(out) != 0)
        report_out_of_memory();
    return text;
}

static void report_c_lines(report *r, const suggestions *s) {
    report_line(r, PLAIN, "zcp_config config = {0};");
    for (uint32_t i = 0; i < s->count; i++) {
        const zcp_pool_config *c = &s->items[i].config;
        if (c->alignment == ZCP_DEFAULT_ALIGNMENT && c->cache_chunks == 0)
            report_line(r, PLAIN, "zcp_config_add_pool(&config, %" PRIu64 ", %u);", c->chunk_size, c->chunk_count);
        else
            report_line(r, PLAIN,
                        "zcp_config_add(&config, &(zcp_pool_config){.chunk_size = %" PRIu64
                        ", .chunk_count = %u, .alignment = %u, .cache_chunks = %u});",
                        c->chunk_size, c->chunk_count, c->alignment, c->cache_chunks);
    }
}

static int run_suggest(tool *t) {
    static const column columns[] = {
        {"chunk_size", "SIZE", ~0u},    {"chunk_count", "COUNT", ~0u}, {"alignment", "ALIGN", ~0u},
        {"cache_chunks", "CACHE", ~0u}, {"pool", "FROM POOL", ~0u},    {"why", "WHY", ~0u},
    };
    static suggestions s;
    report *r = &t->report;
    asked_sizes seen = {0};
    uint64_t looks = 0;
    char watched[80];
    int status = see_sizes(t, &seen, &looks);
    if (status != 0)
        return status;
    suggest(t->now.pools, t->before.pools, t->now.pool_count, &seen, &s);
    char *line = config_line(&s);
    double seconds = looks > 1 ? (double)(t->now.ns - t->before.ns) / 1e9 : 0;
    if (looks > 1)
        snprintf(watched, sizeof watched, "%.2f s, %" PRIu64 " looks", seconds, looks);
    else
        snprintf(watched, sizeof watched, "one look only: take more under load, with --count");
    report_field(r, "name", NULL, v_text(t->now.info.name));
    report_field(r, "watched_seconds", NULL, v_real(seconds));
    report_field(r, "looks", NULL, v_number(looks));
    report_field(r, NULL, "Watched", v_text(watched));
    report_field(r, "sizes_seen", "Sizes seen", v_number(seen.count));
    report_field(r, "bytes_now", "Memory now", v_bytes(s.bytes_now));
    report_field(r, "bytes", "Suggested", v_bytes(s.bytes));
    report_gap(r);
    TABLE_BEGIN(r, "pools", columns);
    for (uint32_t i = 0; i < s.count; i++) {
        const suggestion *at = &s.items[i];
        TABLE_ROW(r, v_number(at->config.chunk_size), v_number(at->config.chunk_count), v_number(at->config.alignment),
                  v_number(at->config.cache_chunks), v_number(at->pool), v_text(at->why));
    }
    table_end(r);
    report_holders(r, t->manager, &t->now, was_exhausted);
    report_gap(r);
    report_field(r, "config", "Config line", v_text(line));
    report_gap(r);
    report_c_lines(r, &s);
    free(line);
    free(seen.items);
    return 0;
}

#endif
