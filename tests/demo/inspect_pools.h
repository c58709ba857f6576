// inspect_pools.h: the commands that make and change pools, create, grow and retire, and who holds most of a pool that
// is exhausted. A line of pools is what suggest prints: SIZExCOUNT[:align=N][:cache=N], and more of them behind commas.
#ifndef INSPECT_POOLS_H
#define INSPECT_POOLS_H

#include "inspect_tool.h"

// ---------------------------------------------------------------------------------------------------------------------
// Lines of pools

#define POOL_FORM "SIZExCOUNT[:align=N][:cache=N], as zerocp suggest prints it"

// Digits up to a limit, of which there has to be one; passes them.
static bool take_digits(const char **at, uint64_t most, uint64_t *number) {
    const char *from = *at;
    *number = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        uint64_t digit = (uint64_t)(**at - '0');
        if (*number > (most - digit) / 10)
            return false;
        *number = *number * 10 + digit;
    }
    return *at > from;
}

static bool take_word(const char **at, const char *word) {
    size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

// One pool up to a comma or the end, which is passed; false: it is none.
static bool take_pool(const char **at, zcp_pool_config *pool) {
    uint64_t size, count, number;
    if (!take_digits(at, UINT64_MAX, &size) || !take_word(at, "x") || !take_digits(at, UINT32_MAX, &count))
        return false;
    *pool = (zcp_pool_config){.chunk_size = size, .chunk_count = (uint32_t)count};
    while (**at == ':') {
        uint32_t *field = take_word(at, ":align=")   ? &pool->alignment
                          : take_word(at, ":cache=") ? &pool->cache_chunks
                                                     : NULL;
        if (field == NULL || !take_digits(at, UINT32_MAX, &number))
            return false;
        *field = (uint32_t)number;
    }
    return **at == 0 || (take_word(at, ",") && **at != 0);
}

// Takes the pools of all --pool into t->config. 0, or the exit status.
static int take_pools(tool *t) {
    for (uint32_t i = 0; i < t->pool_options; i++) {
        const char *at = t->pools[i];
        do {
            zcp_pool_config pool;
            if (!take_pool(&at, &pool))
                return fail_usage(t, "--pool=%s: expected is %s", t->pools[i], POOL_FORM);
            if (zcp_config_add(&t->config, &pool) != ZCP_OK)
                return fail_usage(t, "--pool=%s: %s", t->pools[i], zcp_last_message());
        } while (*at != 0);
    }
    if (t->pool_options == 0)
        return fail_usage(t, "%s: no pool is given; say which with --pool=%s", t->command->name, POOL_FORM);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Who holds most of a pool

typedef struct holdings {
    uint32_t chunks[ZCP_MAX_LIVE_POOLS][ZCP_MAX_CLIENTS];          // that each client holds of each pool
} holdings;

static bool note_holders(const zcp_census_entry *entry, void *user) {
    holdings *h = user;
    if (entry->pool >= ZCP_MAX_LIVE_POOLS)
        return true;
    if (entry->owner < ZCP_MAX_CLIENTS)
        h->chunks[entry->pool][entry->owner]++;
    for (uint32_t slot = 0; slot < ZCP_MAX_CLIENTS && entry->borrowers > 0; slot++)
        h->chunks[entry->pool][slot] += slot != entry->owner && (entry->borrower_mask[slot / 64] >> slot % 64 & 1);
    return true;
}

// ZCP_NO_CLIENT: nobody holds anything of it.
static uint32_t worst_holder(const holdings *h, uint32_t pool) {
    uint32_t worst = ZCP_NO_CLIENT;
    for (uint32_t slot = 0; slot < ZCP_MAX_CLIENTS; slot++)
        if (h->chunks[pool][slot] > (worst == ZCP_NO_CLIENT ? 0 : h->chunks[pool][worst]))
            worst = slot;
    return worst;
}

static bool is_exhausted(const zcp_pool_stats *pool) {
    return pool->state == ZCP_POOL_LIVE && pool->free + pool->cached == 0;
}

static bool is_retiring(const zcp_pool_stats *pool) {
    return pool->state == ZCP_POOL_RETIRING;
}

static bool is_held(const zcp_pool_stats *pool) {
    return pool->state != ZCP_POOL_NONE && pool->used > 0;
}

// Not one of its chunks was free at some time.
static bool was_exhausted(const zcp_pool_stats *pool) {
    return is_exhausted(pool) || (is_held(pool) && pool->failures + pool->waits > 0);
}

// Looks who holds what, if any pool is to be told of. NULL: none is.
static const holdings *look_at_holders(const zcp_manager *manager, const snapshot *s,
                                       bool (*is_told)(const zcp_pool_stats *pool)) {
    static holdings held;
    bool told = false;
    for (uint32_t p = 0; p < s->pool_count; p++)
        told |= is_told(&s->pools[p]);
    memset(&held, 0, sizeof held);
    return told && zcp_manager_census(manager, note_holders, &held) == ZCP_OK ? &held : NULL;
}

// Who holds most of each such pool; a gap in front of it, if there is any.
static void report_holders(report *r, const zcp_manager *manager, const snapshot *s,
                           bool (*is_told)(const zcp_pool_stats *pool)) {
    static const column columns[] = {
        {"pool", "POOL", ~0u},  {"chunk_size", "SIZE", ~0u}, {"total", "TOTAL", ~0u}, {"chunks", "HELD", ~0u},
        {"client", "BY", ~0u}, {"pid", "PID", ~0u},         {"name", "NAME", ~0u},
    };
    const holdings *held = look_at_holders(manager, s, is_told);
    if (held != NULL)
        report_gap(r);
    TABLE_BEGIN(r, "most_held", columns);
    for (uint32_t p = 0; held != NULL && p < s->pool_count; p++) {
        uint32_t worst = worst_holder(held, p);
        if (!is_told(&s->pools[p]) || worst >= s->clients.count)
            continue;
        const zcp_client_stats *c = &s->clients.items[worst];
        TABLE_ROW(r, v_number(p), v_number(s->pools[p].chunk_size), v_number(s->pools[p].total),
                  v_number(held->chunks[p][worst]), v_number(worst), v_number(c->pid), v_text(c->name));
    }
    table_end(r);
}

static void check_holders(const zcp_manager *manager, const snapshot *s, findings *f) {
    const holdings *held = look_at_holders(manager, s, is_exhausted);
    for (uint32_t p = 0; held != NULL && p < s->pool_count; p++) {
        uint32_t worst = worst_holder(held, p);
        char where[40];
        if (!is_exhausted(&s->pools[p]) || worst >= s->clients.count)
            continue;
        snprintf(where, sizeof where, "pool %u", p);
        find(f, FINDING_NOTE, where,
             "all of its %" PRIu64 " chunks are in use; client %u (\"%s\", pid %u) holds most, %u; see zerocp suggest",
             s->pools[p].total, worst, s->clients.items[worst].name, s->clients.items[worst].pid,
             held->chunks[p][worst]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// create, grow, retire

// The pools as they are now. 0, or the exit status.
static int report_result(tool *t) {
    int status = look(t);
    if (status != 0)
        return status;
    report_field(&t->report, "name", "Instance", v_text(t->now.info.name));
    report_field(&t->report, "max_clients", NULL, v_number(t->now.info.max_clients));
    report_field(&t->report, "chunk_bytes", "Chunks", v_bytes(t->now.bytes));
    report_gap(&t->report);
    report_pools(&t->report, &t->now, NULL);
    return 0;
}

// Nothing is replaced: what is there may be somebody's, also if nobody has it open.
static int refuse_to_replace(tool *t) {
    zcp_priv_path path;
    zcp_status named = zcp_priv_path_make(&path, t->name, ZCP_PRIV_MANAGEMENT_SUFFIX);
    if (named != ZCP_OK)
        return fail_status(t, named);
    file_look files = look_at_files(t->name);
    switch (files.state) {
    case FILE_ABSENT: case FILE_HALF_MADE: case FILE_RETIRED: case FILE_LOCKS_ONLY: case FILE_NO_MANAGEMENT: return 0;
    case FILE_READY:
        return fail(t, ZCP_ERR_EXISTS, "add pools to it with: zerocp grow; or remove it first with: zerocp remove",
                    "%s: there is such an instance, and %u client%s it open", t->name, files.alive,
                    files.alive == 1 ? " has" : "s have");
    default:
        return fail(t, ZCP_ERR_EXISTS, "see zerocp list; remove it first with: zerocp remove",
                    "%s: the name is taken: %s%s%s", t->name, file_states[files.state].name,
                    files.detail[0] ? ", " : "", files.detail);
    }
}

static int run_create(tool *t) {
    zcp_manager *made;
    int refused = take_pools(t);
    if (refused == 0)
        refused = refuse_to_replace(t);
    if (refused != 0)
        return refused;
    t->config.publishers = (uint32_t)t->publishers;
    t->config.subscribers = (uint32_t)t->subscribers;
    t->config.ring_cells = (uint32_t)t->ring_cells;
    zcp_status status = zcp_manager_open(&made, &(zcp_manager_desc){.name = t->name,
                                                                    .mode = ZCP_SHM_CREATE_EXCLUSIVE,
                                                                    .config = &t->config,
                                                                    .max_clients = (uint32_t)t->max_clients,
                                                                    .client_name = "zerocp create"});
    if (status != ZCP_OK)
        return fail_status(t, status);
    zcp_manager_close(made);                                       // the instance needs nobody to stay
    int failed = report_result(t);
    if (failed != 0)
        return failed;
    report_gap(&t->report);
    report_line(&t->report, DIM, "it stays, also while nobody has it open, until: zerocp remove");
    return 0;
}

// All of them, or none: what was added before one failed is retired again.
static zcp_status add_pools(zcp_manager *client, const zcp_config *config, char *why, size_t bytes) {
    uint32_t added[ZCP_MAX_POOLS], count = 0;
    zcp_status status = ZCP_OK;
    for (; count < ZCP_VECTOR_SIZE(&config->pools) && status == ZCP_OK; count += status == ZCP_OK)
        status = zcp_manager_add_pool(client, ZCP_VECTOR_AT(&config->pools, count), &added[count]);
    snprintf(why, bytes, "%s", zcp_last_message());
    while (status != ZCP_OK && count > 0)
        (void)zcp_manager_retire_pool(client, added[--count]);
    return status;
}

static int run_grow(tool *t) {
    zcp_manager *client;
    char why[512];
    int refused = take_pools(t);
    if (refused == 0)
        refused = attach(t, "zerocp grow", 0, &client);
    if (refused != 0)
        return refused;
    zcp_status status = add_pools(client, &t->config, why, sizeof why);
    zcp_manager_close(client);
    if (status == ZCP_ERR_FULL)
        return fail(t, status, "retire one first with: zerocp retire; zerocp show has their numbers", "%s", why);
    if (status == ZCP_ERR_NO_SPACE)
        return fail(t, status, "free some: see df -h /dev/shm, and zerocp list; or add fewer chunks", "%s", why);
    return status == ZCP_OK ? report_result(t) : fail(t, status, NULL, "%s", why);
}

static int run_retire(tool *t) {
    report *r = &t->report;
    zcp_manager *client;
    uint64_t live = 0;
    uint32_t pool = (uint32_t)t->argument_number;
    int refused = attach(t, "zerocp retire", 0, &client);
    if (refused != 0)
        return refused;
    zcp_status status = zcp_manager_retire_pool(client, pool);
    int failed = status == ZCP_OK ? 0
                 : status == ZCP_ERR_NOT_FOUND
                     ? fail(t, status, "see which pools there are with: zerocp show", "%s", zcp_last_message())
                     : fail_status(t, status);
    zcp_manager_close(client);
    if (failed == 0)
        failed = report_result(t);
    if (failed != 0)
        return failed;
    const zcp_pool_stats *is = pool < t->now.pool_count ? &t->now.pools[pool] : NULL;
    bool retiring = is != NULL && is->state == ZCP_POOL_RETIRING;
    report_field(r, "pool", NULL, v_number(pool));
    report_field(r, "retiring", NULL, v_flag(retiring));
    report_holders(r, t->manager, &t->now, is_retiring);
    report_gap(r);
    if (retiring)
        report_line(r, PLAIN, "pool %u gives out nothing more; it goes with the last of its %" PRIu64 " chunk%s", pool,
                    is->used, plural(is->used));
    else
        report_line(r, PLAIN, "pool %u is gone", pool);
    for (uint32_t p = 0; p < t->now.pool_count; p++)
        live += t->now.pools[p].state == ZCP_POOL_LIVE;
    if (live == 0)
        report_line(r, YELLOW, "no pool is left to allocate from: add one with: zerocp grow");
    return 0;
}

#endif
