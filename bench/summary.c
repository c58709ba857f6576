// bench/summary.c: see summary.h.
#include "summary.h"

#include "targets.h"

#include <errno.h>
#include <string.h>

typedef struct column {
    const char *title, *name, *workers, *metric;
} column;

static const char *figure(const record *r, char text[32]) {
    if (!r)
        return "";
    double v = r->median;
    if (strcmp(r->unit, "ns") != 0)
        snprintf(text, 32, v < 9.95 && v != (double)(int)v ? "%.1f" : "%.0f", v);
    else if (v < 9999.5)
        snprintf(text, 32, v < 99.95 ? "%.1f ns" : "%.0f ns", v);
    else if (v < 9999.5e3)
        snprintf(text, 32, "%.0f us", v / 1e3);
    else
        snprintf(text, 32, "%.1f ms", v / 1e6);
    return text;
}

// ---------------------------------------------------------------------------------------------------------------------
// A row for each system

static bool is_first(const record_table *table, int at, const char *name) {
    for (int i = 0; i < at; i++)
        if (strcmp(table->rows[i].name, name) == 0 && strcmp(table->rows[i].system, table->rows[at].system) == 0)
            return false;
    return strcmp(table->rows[at].name, name) == 0;
}

static void systems_row(FILE *out, const record_table *table, const char *system, const column *columns, int count) {
    char text[32];
    fprintf(out, "| %s |", system);
    for (int i = 0; i < count; i++)
        fprintf(out, " %s |",
                figure(record_find(table, columns[i].name, system, columns[i].workers, columns[i].metric, 0, 0), text));
    fputc('\n', out);
}

static void systems_write(FILE *out, const record_table *table) {
    static const column columns[] = {
        {"alone", "pair", "1", "time"},
        {"two processes", "pair", "2p", "time"},
        {"bursts of 32", "burst", "1", "time"},
        {"live set of 1,000", "live", "1", "time"},
        {"p50, alone", "pair_latency", "1", "p50"},
        {"p99.9, alone", "pair_latency", "1", "p99.9"},
        {"hand-off", "handoff", "2p", "time"},
        {"hand-off and back: p50", "handoff_latency", "2p", "p50"},
        {"p99.9", "handoff_latency", "2p", "p99.9"},
        {"instructions", "cost_pair", "1", "instructions"},
        {"locked", "cost_pair", "1", "locked"},
    };
    enum { COLUMNS = sizeof columns / sizeof columns[0] };
    fputs("| 256 B |", out);
    for (int i = 0; i < COLUMNS; i++)
        fprintf(out, " %s |", columns[i].title);
    fputs("\n|", out);
    for (int i = 0; i <= COLUMNS; i++)
        fputs(" --- |", out);
    fputc('\n', out);
    for (int i = 0; i < table->count; i++)
        if (is_first(table, i, "pair")
            || (is_first(table, i, "handoff") && strcmp(table->rows[i].system, "slots") == 0))
            systems_row(out, table, table->rows[i].system, columns, COLUMNS);
}

// ---------------------------------------------------------------------------------------------------------------------
// zerocp's other operations, a row each

static const struct {
    const char *what, *name, *workers;
    uint64_t chunks;
} operations[] = {
    {"one uncontended atomic read-modify-write (RMW)", "rmw", "1", 0},
    {"a cache line to the other CPU", "transfer", "2p", 0},
    {"clone + release of the clone", "clone", "1", 0},
    {"acquire by token + release, in the owner's process", "acquire", "1", 0},
    {"allocate + release beside a client that was stopped anywhere", "stopped", "1", 0},
    {"allocate that is told `ZCP_ERR_EXHAUSTED`", "exhausted", "1", 0},
    {"attach to an instance for 64 clients, and close", "attach_64", "1", 0},
    {"the same, 62 others attached", "attach_64_taken", "1", 0},
    {"attach to an instance for 1,024 clients, and close", "attach_1024", "1", 0},
    {"the same, 1,022 others attached", "attach_1024_taken", "1", 0},
    {"recover 1,000 chunks of a killed client, of 100,000", "recover_1000", "1", 100000},
    {"recover 1,000 chunks of a killed client, of 1,000,000", "recover_1000", "1", 1000000},
    {"the same, instance for 1,024 clients", "recover_1000_of_1024", "1", 1000000},
    {"recover 1,000,000 chunks of a killed client, of as many", "recover_all", "1", 1000000},
    {"create + close + destroy, 100 chunks of 256 B", "create", "1", 0},
    {"create 1 GiB", "create_1g", "1", 0},
    {"posix_fallocate of as many bytes", "fallocate_1g", "1", 0},
};

static void operations_write(FILE *out, const record_table *table) {
    char text[32];
    fputs("\n| operation | time | in RMWs |\n| --- | --- | --- |\n", out);
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        const record *r =
            record_find(table, operations[i].name, NULL, operations[i].workers, "time", operations[i].chunks, 0);
        if (r)
            fprintf(out, "| %s | %s | %.*f |\n", operations[i].what, figure(r, text), r->rmws < 100 ? 1 : 0, r->rmws);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// zerocp at size

static void states_write(FILE *out, const record_table *table) {
    char text[2][32];
    fputs("\n| which chunks are free | 1,000 chunks | 1,000,000 chunks | ratio |\n| --- | --- | --- | --- |\n", out);
    for (int i = 0; i < table->count; i++) {
        const record *small = &table->rows[i];
        if (strncmp(small->name, "state_", 6) != 0 || small->chunks != 1000)
            continue;
        for (int j = 0; j < table->count; j++) {
            const record *large = &table->rows[j];
            if (large->chunks == 1000000 && strcmp(large->name, small->name) == 0
                && strcmp(large->state, small->state) == 0)
                fprintf(out, "| %s, %s | %s | %s | %.2f |\n", small->state,
                        strcmp(small->name, "state_pair") == 0 ? "pairs" : "bursts", figure(small, text[0]),
                        figure(large, text[1]), large->median / small->median);
        }
    }
}

static void crowds_write(FILE *out, const record_table *table) {
    static const char *const workers[] = {"1", "2p", "4p", "8p", "16p", "1t", "2t", "4t", "8t", "16t"};
    enum { WORKERS = sizeof workers / sizeof workers[0] };
    fputs("\n| million pairs per second, all together |", out);
    for (int i = 0; i < WORKERS; i++)
        fprintf(out, " %s |", workers[i]);
    fputs("\n|", out);
    for (int i = 0; i <= WORKERS; i++)
        fputs(" --- |", out);
    fputc('\n', out);
    for (int i = 0; i < table->count; i++)
        if (is_first(table, i, "crowd")) {
            fprintf(out, "| %s |", table->rows[i].system);
            for (int j = 0; j < WORKERS; j++) {
                const record *r = record_find(table, "crowd", table->rows[i].system, workers[j], "time", 0, 0);
                if (r)
                    fprintf(out, " %.1f", 1000 / r->median);
                fputs(" |", out);
            }
            fputc('\n', out);
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// Topics: a row for each system

static bool is_first_topic(const record_table *table, int at) {
    for (int i = 0; i < at; i++)
        if (strncmp(table->rows[i].name, "topic", 5) == 0
            && strcmp(table->rows[i].system, table->rows[at].system) == 0)
            return false;
    return strncmp(table->rows[at].name, "topic", 5) == 0;
}

typedef struct topic_column {
    const char *title, *name, *workers, *metric;
    uint64_t bytes;
} topic_column;

static void topic_table(FILE *out, const record_table *table, const char *title, const topic_column *columns,
                        int count) {
    char text[32];
    bool any = false;
    for (int i = 0; i < count; i++)
        any = any || record_find(table, columns[i].name, NULL, columns[i].workers, columns[i].metric, 0,
                                 columns[i].bytes);
    if (!any)
        return;
    fprintf(out, "\n| %s |", title);
    for (int i = 0; i < count; i++)
        fprintf(out, " %s |", columns[i].title);
    fputs("\n|", out);
    for (int i = 0; i <= count; i++)
        fputs(" --- |", out);
    fputc('\n', out);
    for (int i = 0; i < table->count; i++) {
        if (!is_first_topic(table, i))
            continue;
        fprintf(out, "| %s |", table->rows[i].system);
        for (int j = 0; j < count; j++)
            fprintf(out, " %s |",
                    figure(record_find(table, columns[j].name, table->rows[i].system, columns[j].workers,
                                       columns[j].metric, 0, columns[j].bytes),
                           text));
        fputc('\n', out);
    }
}

// The rows of which messages were lost.
static void losses_write(FILE *out, const record_table *table) {
    bool any = false;
    for (int i = 0; i + 1 < table->count; i++) {
        const record *sent = &table->rows[i], *received = sent + 1;
        if (strncmp(sent->name, "topic", 5) != 0 || strcmp(sent->metric, "sent") != 0
            || strcmp(received->metric, "received") != 0 || received->median >= sent->median)
            continue;
        if (!any)
            fputs("\n| messages were lost | sent | received |\n| --- | --- | --- |\n", out);
        any = true;
        fprintf(out, "| %s, %s, %llu B, %s | %.0f | %.0f |\n", sent->system, sent->name,
                (unsigned long long)sent->bytes, sent->workers, sent->median, received->median);
    }
}

static void topics_write(FILE *out, const record_table *table) {
    static const topic_column flow[] = {
        {"8 B", "topic", "2p", "time", 8},           {"64 B", "topic", "2p", "time", 64},
        {"256 B", "topic", "2p", "time", 256},       {"4 KiB", "topic", "2p", "time", 4096},
        {"64 KiB", "topic", "2p", "time", 65536},    {"1 MiB", "topic", "2p", "time", 1 << 20},
        {"8 MiB", "topic", "2p", "time", 8 << 20},
    };
    static const topic_column way[] = {
        {"8 B", "topic_ping", "2p", "time", 8},        {"64 B", "topic_ping", "2p", "time", 64},
        {"256 B", "topic_ping", "2p", "time", 256},    {"4 KiB", "topic_ping", "2p", "time", 4096},
        {"64 KiB", "topic_ping", "2p", "time", 65536}, {"1 MiB", "topic_ping", "2p", "time", 1 << 20},
        {"8 MiB", "topic_ping", "2p", "time", 8 << 20},
    };
    static const topic_column fan[] = {
        {"1 to 1", "topic", "2p", "time", 256},
        {"to 2", "topic", "3p", "time", 256},
        {"to 4", "topic", "5p", "time", 256},
        {"to 8", "topic", "9p", "time", 256},
        {"the publisher pays, 1 to 1", "topic_publish", "2p", "time", 256},
        {"to 2", "topic_publish", "3p", "time", 256},
        {"to 4", "topic_publish", "5p", "time", 256},
        {"to 8", "topic_publish", "9p", "time", 256},
    };
    static const topic_column wake[] = {
        {"p50", "topic_wake", "2p", "p50", 256},
        {"p99", "topic_wake", "2p", "p99", 256},
        {"p99.9", "topic_wake", "2p", "p99.9", 256},
    };
    topic_table(out, table, "topic, 1 to 1, a message", flow, sizeof flow / sizeof flow[0]);
    topic_table(out, table, "one way", way, sizeof way / sizeof way[0]);
    topic_table(out, table, "256 B, a message", fan, sizeof fan / sizeof fan[0]);
    topic_table(out, table, "256 B, to a subscriber that sleeps", wake, sizeof wake / sizeof wake[0]);
    losses_write(out, table);
}

static bool has(const record_table *table, const char *name) {
    return record_find(table, name, NULL, NULL, NULL, 0, 0) != NULL;
}

void summary_print(FILE *out, const record_table *table) {
    fputc('\n', out);
    if (has(table, "pair") || has(table, "handoff"))
        systems_write(out, table);
    operations_write(out, table);
    if (has(table, "state_pair") || has(table, "state_burst"))
        states_write(out, table);
    if (has(table, "crowd"))
        crowds_write(out, table);
    if (has(table, "topic") || has(table, "topic_ping") || has(table, "topic_wake"))
        topics_write(out, table);
    targets_print(out, table);
}

bool summary_write(const record_table *table, const char *directory) {
    char path[512];
    snprintf(path, sizeof path, "%s/summary.md", directory);
    FILE *out = fopen(path, "w");
    if (!out) {
        fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
        return false;
    }
    for (int i = 0; i < table->fact_count; i++)
        fprintf(out, "    %s\n", table->facts[i]);
    summary_print(out, table);
    bool good = !ferror(out);
    return fclose(out) == 0 && good;
}
