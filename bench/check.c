// bench/check.c: see check.h.
//
// Noise: half of what lies between the quartiles of a row is how far its rounds stray; that of both runs is added. A
// row is slower if its median grew by more than that and more than the least, and its lower quartile lies above the
// other's upper one, so that neither a wild run nor a hair's breadth raises an alarm. A latency strays at least by a
// step of the clock.
#include "check.h"

#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum verdict { SAME, SLOWER, FASTER, UNJUDGED } verdict;

typedef struct comparison {
    const record *older, *newer;
    double ratio, noise;
    verdict verdict;
} comparison;

static double spread_of(const record *r) {
    return r->median > 0 ? (r->q3 - r->q1) / 2 / r->median : 0;
}

static bool is_latency(const record *r) {
    return r->metric[0] == 'p';
}

// The largest of all latencies is one event, and few rounds have no quartiles to speak of; no verdict rests on them,
// nor on how many messages were sent.
static bool is_judged(const record *r) {
    enum { FEW = 5 };
    bool timed = strcmp(r->metric, "time") == 0 || is_latency(r);
    return !(timed && r->rounds < FEW) && strcmp(r->metric, "max") != 0 && strcmp(r->metric, "sent") != 0
           && strcmp(r->metric, "received") != 0 && strcmp(r->name, "rmw") != 0
           && strcmp(r->system, "clock") != 0 && strcmp(r->name, "transfer") != 0;
}

// How many of the older one's ns (or of its atomic operations) the newer one's are counted in.
static double scale_of(const record *older, const record *newer, bool in_rmws) {
    bool times = in_rmws && older->rmws > 0 && newer->rmws > 0;
    return times ? (newer->rmws / newer->median) / (older->rmws / older->median) : 1;
}

static comparison compare(const record *older, const record *newer, double least, double clock_step, bool in_rmws) {
    comparison c = {older, newer, 0, spread_of(older) + spread_of(newer), UNJUDGED};
    double scale = scale_of(older, newer, in_rmws);
    if (older->median <= 0 || newer->median <= 0) {                // instructions and locked ones may be none
        c.ratio = newer->median <= older->median ? 1 : 2;
        c.verdict = newer->median > older->median ? SLOWER : newer->median < older->median ? FASTER : SAME;
        return c;
    }
    c.ratio = scale * newer->median / older->median;
    if (is_latency(older))
        c.noise += clock_step / older->median;
    double limit = 1 + (c.noise > least ? c.noise : least);
    if (is_judged(older) && is_judged(newer))
        c.verdict = c.ratio > limit && scale * newer->q1 > older->q3       ? SLOWER
                    : c.ratio < 1 / limit && scale * newer->q3 < older->q1 ? FASTER
                                                                           : SAME;
    return c;
}

static const record *partner_of(const record_table *table, const record *r) {
    for (int i = 0; i < table->count; i++)
        if (record_same_key(&table->rows[i], r))
            return &table->rows[i];
    return NULL;
}

static void print_row(const comparison *c) {
    static const char *const words[] = {"", "SLOWER", "faster", "(not judged)"};
    const record *r = c->older;
    char key[128];
    snprintf(key, sizeof key, "%s/%s %s %llu x %llu B %s%s%s", r->name, r->system, r->workers,
             (unsigned long long)r->chunks, (unsigned long long)r->bytes, r->state, r->state[0] ? " " : "", r->metric);
    printf("%-72s %12.5g %12.5g %-3s %8.3f %7.1f%%  %s\n", key, r->median, c->newer->median, r->unit, c->ratio,
           100 * c->noise, words[c->verdict]);
}

static void print_fact(const record_table *older, const record_table *newer, const char *key) {
    const char *a = record_fact_of(older, key), *b = record_fact_of(newer, key);
    if ((a || b) && (!a || !b || strcmp(a, b) != 0))
        printf("# %s differs: %s | %s\n", key, a ? a : "?", b ? b : "?");
}

static int check_tables(const record_table *older, const record_table *newer, double least, bool in_rmws) {
    static const char *const facts[] = {"cpu", "kernel", "compiler", "compiled", "placement"};
    int count[4] = {0, 0, 0, 0}, rows = 0;
    const char *step = record_fact_of(older, "clock_step_ns");
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
        print_fact(older, newer, facts[i]);
    printf("%-72s %12s %12s     %8s %8s\n", "what", "older", "newer", "ratio", "noise");
    for (int i = 0; i < older->count; i++) {
        const record *partner = partner_of(newer, &older->rows[i]);
        if (!partner)
            continue;
        comparison c = compare(&older->rows[i], partner, least, step ? strtod(step, NULL) : 0, in_rmws);
        print_row(&c);
        count[c.verdict]++;
        rows++;
    }
    printf("rows=%d slower=%d faster=%d only_in_older=%d only_in_newer=%d unit=%s\n", rows, count[SLOWER],
           count[FASTER], older->count - rows, newer->count - rows, in_rmws ? "rmws" : "ns");
    if (rows == 0)
        fputs("bench: the two files have no row in common\n", stderr);
    return rows == 0 ? 2 : count[SLOWER] ? 1 : 0;
}

int check_files(const char *older_path, const char *newer_path, double least, bool in_rmws) {
    record_table older, newer;
    int status = 2;
    if (record_read(&older, older_path)) {
        if (record_read(&newer, newer_path))
            status = check_tables(&older, &newer, least, in_rmws);
        record_free(&newer);
    }
    record_free(&older);
    return status;
}
