// inspect_tool.h: what all commands of the tool share: what the command line has said, how failures are told, how an
// instance is opened to be looked at, and the tables of pools and clients.
#ifndef INSPECT_TOOL_H
#define INSPECT_TOOL_H

#include "zerocp.h"

#include "inspect_look.h"
#include "inspect_report.h"

#include <errno.h>
#include <signal.h>

enum { EXIT_FOUND = 1, EXIT_USAGE = 2 };                           // 0: all is well

// ---------------------------------------------------------------------------------------------------------------------
// What the command line says

typedef enum option_id {
    OPTION_JSON, OPTION_COLOR, OPTION_HELP, OPTION_VERSION,        // these four go with every command
    OPTION_POOL, OPTION_CLIENT, OPTION_TAG, OPTION_OLDER, OPTION_INTERVAL, OPTION_COUNT, OPTION_FOLLOW, OPTION_CSV,
    OPTION_FORCE, OPTION_HISTORY, OPTION_BYTES, OPTION_RAW, OPTION_DEPTH, OPTION_MAX_CLIENTS, OPTION_PUBLISHERS,
    OPTION_SUBSCRIBERS, OPTION_RING_CELLS,
    OPTIONS
} option_id;

#define BIT(option) (1u << (option))

enum { MAX_POOL_OPTIONS = 64 };

typedef struct tool tool;

typedef struct command {
    const char *name;
    bool takes_name;                                               // of an instance
    const char *argument;                                          // what it takes behind the name; NULL: nothing
    unsigned options;
    int (*run)(tool *t);                                           // returns the exit status
    const char *summary, *help;
} command;

struct tool {
    const command *command;
    const char *name;                                              // of the instance
    const char *argument;                                          // behind the name: a topic, a pool, a token
    uint64_t argument_number;                                      // what a pool or a token says
    unsigned given;                                                // options, as bits
    bool color_always, color_never;
    const char *pools[MAX_POOL_OPTIONS];                           // each --pool, as it was given
    uint32_t pool_options;
    zcp_config config;                                             // these, and the sizes of the tables of topics
    uint64_t pool, client, tag, older, count, history, bytes, depth, max_clients, publishers, subscribers, ring_cells;
    unsigned interval_ms;
    report report;
    zcp_manager *manager;                                          // the observer; NULL: none
    snapshot now, before;
    uint64_t replaced;                                             // so often since it is watched
    sigset_t unblocked;
    int write_error;                                               // errno of the first write to stdout that failed
};

static bool given(const tool *t, option_id option) {
    return t->given & BIT(option);
}

// ---------------------------------------------------------------------------------------------------------------------
// Messages

// What a reader of stdout is to get goes there whole. false: it cannot be written.
static bool deliver(tool *t) {
    report_end(&t->report);
    if (t->write_error == 0
        && (fwrite(t->report.text, 1, t->report.bytes, stdout) < t->report.bytes || fflush(stdout) != 0))
        t->write_error = errno;
    return t->write_error == 0;
}

// Tells something on stderr, safely whatever a name holds.
__attribute__((format(printf, 2, 3))) static void complain(const char *advice, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fputs("zerocp: ", stderr);
    write_safe(stderr, text, false);
    fputs("\n", stderr);
    if (advice != NULL)
        fprintf(stderr, "        %s\n", advice);
}

// Tells what is wrong on stderr, and where JSON is wanted in it too.
__attribute__((format(printf, 4, 5))) static int fail(tool *t, zcp_status status, const char *advice,
                                                      const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    complain(advice, "%s", text);
    report_drop(&t->report);
    if (t->report.format == REPORT_JSON) {
        report_begin(&t->report);
        report_field(&t->report, "error", NULL, v_text(status == ZCP_OK ? "failed" : zcp_status_name(status)));
        report_field(&t->report, "message", NULL, v_text(text));
        report_field(&t->report, "advice", NULL, advice != NULL ? v_text(advice) : v_none());
        deliver(t);
    }
    return EXIT_FOUND;
}

// For a zerocp call that has just failed: what only the moment knew, and what to do.
static int fail_status(tool *t, zcp_status status) {
    const char *message = zcp_status_message(status), *advice = strstr(message, ": ");
    if (status == ZCP_ERR_NOT_FOUND)
        return fail(t, status, "see which instances there are with: zerocp list", "%s", zcp_last_message());
    if (status == ZCP_ERR_NOT_ZEROCP)
        return fail(t, status, "it is left alone; if it is yours, remove it with rm", "%s", zcp_last_message());
    return fail(t, status, advice != NULL ? advice + 2 : NULL, "%s", zcp_last_message());
}

__attribute__((format(printf, 2, 3))) static int fail_usage(const tool *t, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fputs("zerocp: ", stderr);
    write_safe(stderr, text, false);
    fprintf(stderr, "\nTry: zerocp %s%s--help\n", t->command != NULL ? t->command->name : "",
            t->command != NULL ? " " : "");
    return EXIT_USAGE;
}

// The files can be truncated by whoever may write them; that is no reason to die without a word.
static void on_sigbus(int signal_number) {
    static const char text[] = "zerocp: a segment became shorter while it was read: somebody has truncated its file\n";
    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {}
    _exit(EXIT_FOUND);
}

// ---------------------------------------------------------------------------------------------------------------------
// Looking at an instance

static zcp_status observe(tool *t) {
    return zcp_manager_open(
        &t->manager,
        &(zcp_manager_desc){.name = t->name, .mode = ZCP_SHM_OPEN_EXISTING, .flags = ZCP_OBSERVE | ZCP_SHM_ANY_OWNER});
}

// Opens the instance as an observer and looks at it. Anything but 0 is the exit status: it has been told why.
static int look(tool *t) {
    zcp_status status = observe(t);
    if (status == ZCP_OK)
        status = take_snapshot(t->manager, &t->now);
    return status == ZCP_OK ? 0 : fail_status(t, status);
}

// Who attached where a segment is missing would clear the rest away. 0, or the exit status.
static int refuse_to_attach(tool *t) {
    file_state state = look_at_files(t->name).state;
    if (state != FILE_NO_CHUNKS && state != FILE_NO_LOCKS)
        return 0;
    return fail(t, ZCP_ERR_CORRUPT, "no client can attach; remove it with: zerocp remove", "%s: %s", t->name,
                file_states[state].meaning);
}

// Attaches as a client, in contrast to all that only looks. 0, or the exit status: it has been told why.
static int attach(tool *t, const char *client_name, uint32_t flags, zcp_manager **client) {
    int refused = refuse_to_attach(t);
    if (refused != 0)
        return refused;
    zcp_status status = zcp_manager_open(client, &(zcp_manager_desc){.name = t->name,
                                                                     .mode = ZCP_SHM_OPEN_EXISTING,
                                                                     .flags = flags | ZCP_SHM_ANY_OWNER,
                                                                     .client_name = client_name});
    return status == ZCP_OK ? 0 : fail_status(t, status);
}

// ---------------------------------------------------------------------------------------------------------------------
// Parts of reports

enum { VIEW_SHOW = 1, VIEW_WATCH = 2 };

static const column pool_columns[] = {
    {"pool", "POOL", VIEW_SHOW | VIEW_WATCH},
    {"state", "STATE", VIEW_SHOW},
    {"chunk_size", "SIZE", VIEW_SHOW | VIEW_WATCH},
    {"alignment", "ALIGN", VIEW_SHOW},
    {"cache_chunks", "CACHE", VIEW_SHOW},
    {"total", "TOTAL", VIEW_SHOW | VIEW_WATCH},
    {"used", "USED", VIEW_SHOW | VIEW_WATCH},
    {"cached", "CACHED", VIEW_SHOW | VIEW_WATCH},
    {"free", "FREE", VIEW_SHOW | VIEW_WATCH},
    {"share_used", "USE", VIEW_WATCH},
    {"peak_used", "PEAK", VIEW_SHOW | VIEW_WATCH},
    {"allocations", "ALLOCATIONS", VIEW_SHOW},
    {"releases", "RELEASES", VIEW_SHOW},
    {"failures", "FAILED", VIEW_SHOW | VIEW_WATCH},
    {"waits", "WAITS", VIEW_SHOW | VIEW_WATCH},
    {"disturbed", "DISTURBED", 0},
    {"allocations_per_second", "ALLOC/S", VIEW_WATCH},
    {"releases_per_second", "RELEASE/S", VIEW_WATCH},
    {"bytes", "MEMORY", VIEW_SHOW},
};

static const char *pool_state_name(zcp_pool_state state) {
    return state == ZCP_POOL_LIVE ? "live" : state == ZCP_POOL_RETIRING ? "retiring" : "none";
}

// Per second; none without an earlier figure, and where another pool has got the number meanwhile.
static value rate_of(uint64_t now, uint64_t before, uint64_t ns) {
    return ns > 0 && now >= before ? v_real((double)(now - before) * 1e9 / (double)ns) : v_none();
}

static void report_pools(report *r, const snapshot *now, const snapshot *before) {
    uint64_t ns = before != NULL ? now->ns - before->ns : 0;
    TABLE_BEGIN(r, "pools", pool_columns);
    for (uint32_t p = 0; p < now->pool_count; p++) {
        static const zcp_pool_stats nothing;
        const zcp_pool_stats *is = &now->pools[p],
                             *was = ns > 0 && p < before->pool_count ? &before->pools[p] : &nothing;
        if (is->state == ZCP_POOL_NONE)
            continue;
        TABLE_ROW(r, v_number(p), v_colored(pool_state_name(is->state), is->state == ZCP_POOL_LIVE ? PLAIN : YELLOW),
                  v_number(is->chunk_size), v_number(is->alignment), v_number(is->cache_chunks), v_number(is->total),
                  v_number(is->used), v_number(is->cached), v_number(is->free), v_share(is->used, is->total),
                  v_number(is->peak_used), v_number(is->allocations), v_number(is->releases),
                  v_alarm(is->failures, RED), v_alarm(is->waits, YELLOW), v_number(is->disturbed),
                  rate_of(is->allocations, was->allocations, ns), rate_of(is->releases, was->releases, ns),
                  v_bytes(is->total * is->stride));
    }
    table_end(r);
}

static const column client_columns[] = {
    {"slot", "SLOT", ~0u},         {"state", "STATE", ~0u}, {"pid", "PID", ~0u},
    {"name", "NAME", ~0u},         {"start", "UP", ~0u},    {"owned", "OWNED", ~0u},
    {"borrowed", "BORROWED", ~0u}, {"bytes", "BYTES", ~0u}, {"cached", "CACHED", ~0u},
};

static void report_clients(report *r, const client_table *clients) {
    TABLE_BEGIN(r, "clients", client_columns);
    for (uint32_t slot = 0; slot < clients->count; slot++) {
        const zcp_client_stats *c = &clients->items[slot];
        value state = c->state == ZCP_CLIENT_ALIVE ? v_colored("alive", GREEN)
                      : clients->drains[slot]      ? v_colored("draining", YELLOW)
                                                   : v_colored("dead", RED);
        if (c->state != ZCP_CLIENT_FREE)
            TABLE_ROW(r, v_number(slot), state, v_number(c->pid), v_text(c->name), v_time(c->start),
                      v_number(c->owned), v_number(c->borrowed), v_bytes(c->bytes), v_number(c->cached));
    }
    table_end(r);
}

static void report_counts(report *r, const snapshot *s) {
    char alive[32];
    snprintf(alive, sizeof alive, "%u of %u", s->clients.alive, s->info.max_clients);
    report_field(r, "name", "Instance", (value){.kind = VALUE_TEXT, .text = s->info.name, .color = BOLD});
    report_field(r, "state", "State", s->clients.alive ? v_colored("alive", GREEN) : v_colored("left over", YELLOW));
    report_field(r, "clients_alive", NULL, v_number(s->clients.alive));
    report_field(r, NULL, "Clients", v_text(alive));
    report_field(r, "clients_dead", s->clients.dead ? "Dead clients" : NULL, v_alarm(s->clients.dead, RED));
    report_field(r, "clients_draining", s->clients.draining ? "Draining" : NULL, v_number(s->clients.draining));
}

static void report_gap(report *r) {
    report_line(r, PLAIN, "%s", "");
}

#endif
