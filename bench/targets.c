// bench/targets.c: see targets.h.
#include "targets.h"

#include <stdlib.h>
#include <string.h>

typedef struct place {
    const char *name, *system, *workers, *metric;
    uint64_t chunks, bytes;
} place;

// A figure, or its ratio to another one of the same run, and what it may be at most.
typedef struct target {
    const char *what;
    place of, by;                                                  // by.name NULL: the figure itself
    // most 0: nothing is aimed at; unit: what the figure is divided by; 0: 1
    double most, unit;
    bool rmws;
} target;

#define TIME(name, system, workers) {name, system, workers, "time", 0, 0}
#define COST(name, system, metric) {name, system, "1", metric, 0, 0}
#define TOPIC(name, system, metric, bytes) {name, system, "2p", metric, 0, bytes}

static const target targets[] = {
    {.what = "allocate + release: locked instructions", .of = COST("cost_pair", "zerocp", "locked"), .most = 1},
    {.what = "allocate + release, in RMWs", .of = TIME("pair", "zerocp", "1"), .most = 3.2, .rmws = true},
    {.what = "allocate + release by malloc + free", .of = TIME("pair", "zerocp", "1"),
     .by = TIME("pair", "malloc", "1"), .most = 2},
    {.what = "two processes on one pool by one alone", .of = TIME("pair", "zerocp", "2p"),
     .by = TIME("pair", "zerocp", "1"), .most = 1.15},
    {.what = "the same of malloc + free, which share nothing: what two CPUs cost each other here",
     .of = TIME("pair", "malloc", "2p"), .by = TIME("pair", "malloc", "1")},
    {.what = "two processes by one alone, in bursts", .of = TIME("burst", "zerocp", "2p"),
     .by = TIME("burst", "zerocp", "1"), .most = 1.15},
    {.what = "beside a stopped client by alone", .of = TIME("stopped", "zerocp", "1"),
     .by = TIME("pair", "zerocp", "1"), .most = 1.1},
    {.what = "exhaustion told, ns", .of = TIME("exhausted", "zerocp", "1"), .most = 1000},
    {.what = "cached: locked instructions", .of = COST("cost_pair", "zerocp-cached", "locked"), .most = 0.1},
    {.what = "cached by malloc + free", .of = TIME("pair", "zerocp-cached", "1"), .by = TIME("pair", "malloc", "1"),
     .most = 0.7},
    {.what = "cached: two processes by one alone", .of = TIME("pair", "zerocp-cached", "2p"),
     .by = TIME("pair", "zerocp-cached", "1"), .most = 1.05},
    {.what = "hand-off of 256 B by iceoryx's", .of = TIME("handoff", "zerocp", "2p"),
     .by = TIME("handoff", "iceoryx", "2p"), .most = 1},
    {.what = "hand-off of 256 B by the counting stack's", .of = TIME("handoff", "zerocp", "2p"),
     .by = TIME("handoff", "stack", "2p"), .most = 1},
    {.what = "hand-off of 256 B, ns (holds where a line takes 50 ns or less to the other CPU)",
     .of = TIME("handoff", "zerocp", "2p"), .most = 70},
    {.what = "hand-off of 256 B, cached, ns (as above)", .of = TIME("handoff", "zerocp-cached", "2p"), .most = 50},
    {.what = "clone: locked instructions", .of = COST("cost_clone", "zerocp", "locked"), .most = 1},
    {.what = "release of a clone: locked instructions", .of = COST("cost_release_clone", "zerocp", "locked"),
     .most = 1},
    {.what = "publish: locked instructions", .of = COST("cost_publish", "zerocp-cached", "locked"), .most = 0.1},
    {.what = "receive: locked instructions", .of = COST("cost_receive", "zerocp-cached", "locked"), .most = 1},
    {.what = "topic, 256 B by static slots", .of = TOPIC("topic", "zerocp", "time", 256),
     .by = TOPIC("topic", "slots", "time", 256), .most = 1.45},
    {.what = "the same, cached", .of = TOPIC("topic", "zerocp-cached", "time", 256),
     .by = TOPIC("topic", "slots", "time", 256), .most = 1.45},
    {.what = "topic, 256 B one way by static slots", .of = TOPIC("topic_ping", "zerocp", "time", 256),
     .by = TOPIC("topic_ping", "slots", "time", 256), .most = 1.5},
    {.what = "the same, cached", .of = TOPIC("topic_ping", "zerocp-cached", "time", 256),
     .by = TOPIC("topic_ping", "slots", "time", 256), .most = 1.5},
    {.what = "topic, 8 B, ns (holds where a line takes 35 ns or less to the other CPU)",
     .of = TOPIC("topic", "zerocp", "time", 8), .most = 32},
    {.what = "the same, cached", .of = TOPIC("topic", "zerocp-cached", "time", 8), .most = 32},
    {.what = "topic, a subscriber that sleeps by a bare futex, p50", .of = TOPIC("topic_wake", "zerocp", "p50", 256),
     .by = TOPIC("topic_wake", "futex", "p50", 256), .most = 1.2},
    {.what = "recover 1,000 chunks of 1 M, ms", .of = {"recover_1000", "zerocp", "1", "time", 1000000, 0}, .most = 20,
     .unit = 1e6},
    {.what = "the same, instance for 1,024 clients, ms", .of = TIME("recover_1000_of_1024", "zerocp", "1"), .most = 20,
     .unit = 1e6},
    {.what = "recover 1 M chunks of 1 M, ms", .of = TIME("recover_all", "zerocp", "1"), .most = 20, .unit = 1e6},
    {.what = "attach, instance for 1,024 clients, ms", .of = TIME("attach_1024", "zerocp", "1"), .most = 2,
     .unit = 1e6},
    {.what = "the same, 1,022 others attached, ms", .of = TIME("attach_1024_taken", "zerocp", "1"), .most = 2,
     .unit = 1e6},
    {.what = "256 at once, one free in each thousand of 1 M, by bursts of 1,000 nearly full",
     .of = TIME("state_burst256", "zerocp", "1"),
     .by = {"state_burst", "zerocp", "1", "time", 1000, 0}, .most = 1.3},
    {.what = "16 processes by 2, wall time per operation", .of = TIME("crowd", "zerocp", "16p"),
     .by = TIME("crowd", "zerocp", "2p"), .most = 1.5},
    {.what = "16 threads by 2, wall time per operation", .of = TIME("crowd", "zerocp", "16t"),
     .by = TIME("crowd", "zerocp", "2t"), .most = 1.5},
    {.what = "create 1 GiB by posix_fallocate of as many bytes", .of = TIME("create_1g", "zerocp", "1"),
     .by = TIME("fallocate_1g", "kernel", "1"), .most = 1.2},
    {.what = "management per chunk, pool of 1,024, bytes",
     .of = {"management_per_chunk", "zerocp", "1", "memory", 1024, 0}, .most = 40},
    {.what = "management per chunk, pool of 1 M, bytes",
     .of = {"management_per_chunk", "zerocp", "1", "memory", 1000000, 0}, .most = 40},
};

static const record *at_place(const record_table *table, const place *p) {
    return record_find(table, p->name, p->system, p->workers, p->metric, p->chunks, p->bytes);
}

static void print_target(FILE *out, const char *what, double value, double most) {
    if (most > 0)
        fprintf(out, "| %s | %.2f | %g | %s |\n", what, value, most, value <= most * 1.0005 ? "yes" : "**no**");
    else
        fprintf(out, "| %s | %.2f | | |\n", what, value);
}

// A million chunks by a thousand, whichever of them are free.
static void print_states(FILE *out, const record_table *table) {
    for (int i = 0; i < table->count; i++)
        for (int j = 0; j < table->count; j++) {
            const record *small = &table->rows[i], *large = &table->rows[j];
            char what[96];
            if (strncmp(small->name, "state_", 6) != 0 || small->chunks != 1000 || large->chunks != 1000000
                || strcmp(small->name, large->name) != 0 || strcmp(small->state, large->state) != 0)
                continue;
            snprintf(what, sizeof what, "1,000,000 chunks by 1,000, %s, %s", small->state,
                     strcmp(small->name, "state_pair") == 0 ? "pairs" : "bursts");
            print_target(out, what, large->median / small->median, 1.3);
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// Topics

// What the publisher pays for a message with eight subscribers, beside one.
static void print_subscribers(FILE *out, const record_table *table, const char *system) {
    const record *one = record_find(table, "topic_publish", system, "2p", "time", 0, 256),
                 *eight = record_find(table, "topic_publish", system, "9p", "time", 0, 256);
    char what[96];
    snprintf(what, sizeof what, "%s, publish 256 B: each further subscriber, ns", system);
    if (one && eight)
        print_target(out, what, (eight->median - one->median) / 7, 10);
}

static bool is_peer(const char *system) {
    static const char *const others[] = {"zerocp", "zerocp-cached", "slots", "futex", "tokens"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(system, others[i]) == 0)
            return false;
    return true;
}

// zerocp by the fastest peer, in each row. With more processes than CPUs nothing is aimed at.
static void print_peers(FILE *out, const record_table *table) {
    const char *text = record_fact_of(table, "cpus");
    int usable = 0;
    if (!text || sscanf(text, "%*d on line, %d for", &usable) != 1)
        usable = 2;
    for (int i = 0; i < table->count; i++) {
        const record *ours = &table->rows[i], *best = NULL;
        char what[128];
        bool waking = strcmp(ours->name, "topic_wake") == 0;
        if (strncmp(ours->name, "topic", 5) != 0 || strcmp(ours->system, "zerocp") != 0
            || strcmp(ours->metric, waking ? "p50" : "time") != 0)
            continue;
        for (int j = 0; j < table->count; j++) {
            const record *r = &table->rows[j];
            if (is_peer(r->system) && strcmp(r->name, ours->name) == 0 && strcmp(r->workers, ours->workers) == 0
                && strcmp(r->metric, ours->metric) == 0 && r->bytes == ours->bytes
                && (!best || r->median < best->median))
                best = r;
        }
        if (!best)
            continue;
        snprintf(what, sizeof what, "%s, %llu B, %s, by the fastest peer: %s", ours->name,
                 (unsigned long long)ours->bytes, ours->workers, best->system);
        print_target(out, what, ours->median / best->median, strtol(ours->workers, NULL, 10) > usable ? 0 : 1);
    }
}

void targets_print(FILE *out, const record_table *table) {
    fputs("\n| target | measured | at most | met |\n| --- | --- | --- | --- |\n", out);
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        const target *t = &targets[i];
        const record *of = at_place(table, &t->of), *by = t->by.name ? at_place(table, &t->by) : NULL;
        if (of && (by || !t->by.name))
            print_target(out, t->what,
                         (t->rmws ? of->rmws : of->median) / (by ? by->median : t->unit > 0 ? t->unit : 1), t->most);
    }
    print_states(out, table);
    print_subscribers(out, table, "zerocp");
    print_subscribers(out, table, "zerocp-cached");
    print_peers(out, table);
}
