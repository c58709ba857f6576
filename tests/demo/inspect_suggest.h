// inspect_suggest.h: from what was seen of an instance, a configuration that would suit it better.
//
// How many chunks a pool needs is told by its peak, if nobody was refused or had to wait; else by more than it has:
// unless far more calls failed than chunks were given out. In a shortage each call that fails is work that was not
// done; where so many fail, somebody asks again and again for the same chunk, and they do not tell how many are
// missing. Which sizes it needs is told by the sizes asked for by the chunks that are held: where many of them would
// fit into much smaller chunks, a second pool is worth it. The size of each pool stays, because what was not seen may
// still be asked for.
#ifndef INSPECT_SUGGEST_H
#define INSPECT_SUGGEST_H

#include "zerocp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SUGGEST_LEAST_SIZES = 4, SUGGEST_LEAST_BYTES = 4096, SUGGEST_POLLS = 16 };

// The sizes asked for by the chunks that were seen, of all pools.
typedef struct asked { uint32_t pool; uint64_t size; } asked;
typedef struct asked_sizes {
    asked *items;
    size_t count, room;
} asked_sizes;

typedef struct suggestion {
    uint32_t pool;                                                 // from which it comes
    zcp_pool_config config;
    char why[120];
} suggestion;

typedef struct suggestions {
    suggestion items[2 * ZCP_MAX_LIVE_POOLS];
    uint32_t count;
    uint64_t bytes, bytes_now;
} suggestions;

static uint64_t round_to(uint64_t size, uint64_t unit) {
    return (size + unit - 1) / unit * unit;
}

static int compare_asked(const void *left, const void *right) {
    const asked *a = left, *b = right;
    if (a->pool != b->pool)
        return a->pool < b->pool ? -1 : 1;
    return (a->size > b->size) - (a->size < b->size);
}

// How many chunks the pool needs, and why. was: the same pool when the watching began.
static uint64_t suggest_count(const zcp_pool_stats *is, const zcp_pool_stats *was, char *why, size_t bytes) {
    uint64_t peak = (is->peak_used > is->used ? is->peak_used : is->used) + is->cached;
    uint64_t failed = is->failures - was->failures, given_out = is->allocations - was->allocations;
    if (failed == 0) {                                             // nothing while it was watched: since it was made
        failed = is->failures;
        given_out = is->allocations;
    }
    if (failed > SUGGEST_POLLS * (given_out + 1) && is->waits == 0) {
        snprintf(why, bytes, "polled at the limit: %" PRIu64 " calls failed while %" PRIu64 " got a chunk; "
                 "see zcp_chunk_allocate_wait", failed, given_out);
        return is->total;
    }
    if (is->failures + is->waits > 0) {
        snprintf(why, bytes, "all %" PRIu64 " were in use: %" PRIu64 " calls failed, %" PRIu64 " waited", is->total,
                 is->failures, is->waits);
        return is->total + is->total / 2 + 1;
    }
    if (peak == 0) {
        snprintf(why, bytes, "never used; one is left for what may come");
        return 1;
    }
    snprintf(why, bytes, "peak %" PRIu64 " of %" PRIu64 "; a quarter more is left", peak, is->total);
    return peak + peak / 4 + 1;
}

static void suggest_add(suggestions *out, uint32_t pool, const zcp_pool_stats *is, uint64_t size, uint64_t count,
                        const char *why) {
    if (count > ZCP_MAX_CHUNKS)
        count = ZCP_MAX_CHUNKS;
    for (uint32_t i = 0; i < out->count; i++)                      // two pools of one kind are better one
        if (out->items[i].config.chunk_size == size && out->items[i].config.alignment == is->alignment
            && out->items[i].config.cache_chunks == is->cache_chunks
            && out->items[i].config.chunk_count + count <= ZCP_MAX_CHUNKS) {
            out->items[i].config.chunk_count += (uint32_t)count;
            return;
        }
    suggestion *at = &out->items[out->count++];
    *at = (suggestion){pool, {size, (uint32_t)count, is->alignment, is->cache_chunks}, ""};
    snprintf(at->why, sizeof at->why, "%s", why);
}

// One pool, or that pool and one for smaller sizes, whichever takes clearly less memory.
static void suggest_pool(suggestions *out, uint32_t pool, const zcp_pool_stats *is, const zcp_pool_stats *was,
                         const asked *sizes, size_t seen, bool may_split) {
    char why[120];
    uint64_t need = suggest_count(is, was, why, sizeof why);
    uint64_t unit = is->alignment ? is->alignment : ZCP_DEFAULT_ALIGNMENT;
    uint64_t best = need * is->stride, least = best, split = 0, below = 0;
    for (size_t i = 0; i < seen && may_split && seen >= SUGGEST_LEAST_SIZES; i++) {
        uint64_t size = round_to(sizes[i].size, unit), fitting = i + 1;
        if ((i + 1 < seen && round_to(sizes[i + 1].size, unit) == size) || size >= is->chunk_size)
            continue;
        uint64_t small = (need * fitting + seen - 1) / seen, large = need - small > 0 ? need - small : 1;
        if (small * size + large * is->stride < least) {
            least = small * size + large * is->stride;
            split = size;
            below = fitting;
        }
    }
    if (split == 0 || best - least < SUGGEST_LEAST_BYTES || best - least < best / 5) {
        suggest_add(out, pool, is, is->chunk_size, need, why);
        return;
    }
    char part[160];
    uint64_t small = (need * below + seen - 1) / seen;
    snprintf(part, sizeof part, "%zu of the %zu seen asked for no more than that", (size_t)below, seen);
    suggest_add(out, pool, is, split, small, part);
    suggest_add(out, pool, is, is->chunk_size, need - small > 0 ? need - small : 1,
                below == seen ? "none seen asked for so much; one is left for what may come" : why);
}

// before: when the watching began. sizes: sorted here.
static void suggest(const zcp_pool_stats *pools, const zcp_pool_stats *before, uint32_t pool_count, asked_sizes *seen,
                    suggestions *out) {
    uint32_t live = 0;
    size_t at = 0;
    *out = (suggestions){.count = 0};
    if (seen->count > 0)
        qsort(seen->items, seen->count, sizeof *seen->items, compare_asked);
    for (uint32_t p = 0; p < pool_count; p++)
        live += pools[p].state == ZCP_POOL_LIVE;
    for (uint32_t p = 0, left = live; p < pool_count; p++) {
        size_t first = at;
        while (at < seen->count && seen->items[at].pool == p)
            at++;
        if (pools[p].state != ZCP_POOL_LIVE)
            continue;
        static const zcp_pool_stats nothing;
        bool same = before[p].state == ZCP_POOL_LIVE && before[p].failures <= pools[p].failures &&
                    before[p].allocations <= pools[p].allocations;         // else the number was another pool's
        suggest_pool(out, p, &pools[p], same ? &before[p] : &nothing, seen->items + first, at - first,
                     out->count + left < ZCP_MAX_POOLS);
        out->bytes_now += pools[p].total * pools[p].stride;
        left--;
    }
    for (uint32_t i = 0; i < out->count; i++) {
        const zcp_pool_config *c = &out->items[i].config;
        out->bytes += round_to(c->chunk_size, c->alignment ? c->alignment : ZCP_DEFAULT_ALIGNMENT) * c->chunk_count;
    }
}

#endif
