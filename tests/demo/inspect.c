// inspect.c: the tool, built by `make tools` as build/zerocp. It shows the instances of this machine and what is in
// them, checks them, and clears up what was left over. See `zerocp --help`.
//
// Where it only looks it is an observer (ZCP_OBSERVE): it maps the management segment read-only, takes no client slot,
// locks nothing, and sweeps nothing. Only `recover`, `grow`, `retire`, `publish` and `echo` attach as clients, only
// `create` makes an instance, and only `remove` removes one.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "inspect_chunks.h"
#include "inspect_look.h"
#include "inspect_messages.h"
#include "inspect_pools.h"
#include "inspect_report.h"
#include "inspect_tool.h"
#include "inspect_topics.h"
#include "inspect_watch.h"
#include "streams.h"

#include <ctype.h>
#include <dirent.h>
#include <getopt.h>
#include <sys/wait.h>

#define SHM_DIRECTORY "/dev/shm"

#ifndef ZEROCP_VERSION                                             // make tells it, from the header's first line
#define ZEROCP_VERSION "of an unknown version"
#endif

// ---------------------------------------------------------------------------------------------------------------------
// show, clients

static int run_show(tool *t) {
    report *r = &t->report;
    const snapshot *s = &t->now;
    file_look files = look_at_files(t->name);
    int status = look(t);
    if (status != 0)
        return status;
    report_counts(r, s);
    report_field(r, "max_clients", NULL, v_number(s->info.max_clients));
    report_field(r, "instance_id", "Identity", v_hex(s->info.instance_id));
    report_field(r, "memory_bytes", "Memory", v_bytes(memory_of(&files)));
    report_field(r, "management_bytes", "  management", v_bytes((uint64_t)files.management.st_size));
    report_field(r, "chunk_bytes", "  chunks", v_bytes(s->bytes));
    report_field(r, "used_bytes", "  in use", v_bytes(s->used_bytes));
    report_gap(r);
    report_pools(r, s, NULL);
    report_holders(r, t->manager, s, is_exhausted);
    if (s->clients.alive + s->clients.dead + s->clients.draining > 0)
        report_gap(r);
    report_clients(r, &s->clients);
    zcp_status drains = report_drains(r, t->manager, &s->clients);
    return drains == ZCP_OK ? 0 : fail_status(t, drains);
}

static int run_clients(tool *t) {
    int status = look(t);
    if (status != 0)
        return status;
    report_field(&t->report, "name", NULL, v_text(t->now.info.name));
    report_field(&t->report, "max_clients", NULL, v_number(t->now.info.max_clients));
    report_clients(&t->report, &t->now.clients);
    if (t->now.clients.alive + t->now.clients.dead + t->now.clients.draining == 0)
        report_line(&t->report, DIM, "nobody has it open");
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// list

static int compare_names(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

// The instances' names: those of all three kinds of objects, each once.
static char **instance_names(size_t *count) {
    static const char *const suffixes[] = {ZCP_PRIV_MANAGEMENT_SUFFIX, ZCP_PRIV_CHUNK_SUFFIX, ZCP_PRIV_LOCKS_SUFFIX};
    size_t room = 0, kept = 0;
    char **names = NULL;
    DIR *directory = opendir(SHM_DIRECTORY);
    *count = 0;
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        for (int i = 0; i < 3; i++) {
            size_t length = strlen(entry->d_name), suffix = strlen(suffixes[i]);
            if (length <= suffix || strcmp(entry->d_name + length - suffix, suffixes[i]) != 0)
                continue;
            if (*count == room && (names = realloc(names, (room = room ? 2 * room : 64) * sizeof *names)) == NULL)
                report_out_of_memory();
            if ((names[(*count)++] = strndup(entry->d_name, length - suffix)) == NULL)
                report_out_of_memory();
        }
    if (directory == NULL)
        return NULL;
    closedir(directory);
    if (names == NULL)
        return calloc(1, sizeof *names);
    qsort(names, *count, sizeof *names, compare_names);
    for (size_t i = 0; i < *count; i++) {
        if (kept > 0 && strcmp(names[kept - 1], names[i]) == 0)
            free(names[i]);
        else
            names[kept++] = names[i];
    }
    *count = kept;
    return names;
}

typedef struct listed {
    file_look files;
    bool good;                                                     // it could be looked into; else the rest is 0
    uint32_t alive, dead;
    uint64_t pools, used;                                          // used: chunks
} listed;

static listed look_into(tool *t, const char *name) {
    listed l = {.files = look_at_files(name)};
    const snapshot *s = &t->now;
    zcp_status status = ZCP_OK;
    t->name = name;
    l.alive = l.files.alive;
    if (l.files.state != FILE_READY)
        return l;
    status = observe(t);
    if (status == ZCP_OK)
        status = take_snapshot(t->manager, &t->now);
    l.good = status == ZCP_OK;
    if (!l.good) {
        l.files.state = status == ZCP_ERR_PERMISSION  ? FILE_UNREADABLE
                        : status == ZCP_ERR_NOT_FOUND ? FILE_ABSENT
                                                      : FILE_CORRUPT;
        snprintf(l.files.detail, sizeof l.files.detail, "%s", zcp_last_message());
        return l;
    }
    l.alive = s->clients.alive;
    l.dead = s->clients.dead;
    for (uint32_t p = 0; p < s->pool_count; p++) {
        l.used += s->pools[p].used;
        l.pools += s->pools[p].state != ZCP_POOL_NONE;
    }
    return l;
}

// In a process of its own: whoever truncates a file while it is read ends that one, and not the list.
static listed look_into_safely(tool *t, const char *name) {
    int ends[2];
    listed l = {.files = {.state = FILE_CORRUPT, .detail = "a segment became shorter while it was read"}};
    if (pipe2(ends, O_CLOEXEC) != 0)
        return l;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bool quiet = freopen("/dev/null", "w", stderr) != NULL;    // the row tells
        if (quiet)
            l = look_into(t, name);
        _exit(!quiet || write(ends[1], &l, sizeof l) != (ssize_t)sizeof l);
    }
    close(ends[1]);
    listed found;
    if (pid > 0 && read(ends[0], &found, sizeof found) == (ssize_t)sizeof found)
        l = found;
    close(ends[0]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    return l;
}

static uid_t owner_of(const file_look *look) {
    if (look->has_management)
        return look->management.st_uid;
    return look->has_chunks ? look->chunks.st_uid : look->locks.st_uid;
}

static void list_one(tool *t, const char *name) {
    listed l = look_into_safely(t, name);
    const char *state = !l.good ? file_states[l.files.state].name : l.alive ? "alive" : "left over";
    report_color color = !l.good ? RED : l.alive ? GREEN : YELLOW;
    const char *remark = l.files.detail[0] ? l.files.detail : file_states[l.files.state].meaning;
    if (l.files.state != FILE_ABSENT)                              // it was removed meanwhile
        TABLE_ROW(&t->report, v_text(name), v_colored(state, color), v_number(l.alive),
                  l.good ? v_alarm(l.dead, RED) : v_none(), l.good ? v_number(l.pools) : v_none(),
                  l.good ? v_number(l.used) : v_none(), v_bytes(memory_of(&l.files)), v_number(owner_of(&l.files)),
                  v_text(remark));
}

static int run_list(tool *t) {
    static const column columns[] = {
        {"name", "NAME", ~0u},           {"state", "STATE", ~0u}, {"clients_alive", "CLIENTS", ~0u},
        {"clients_dead", "DEAD", ~0u},   {"pools", "POOLS", ~0u}, {"chunks_used", "USED", ~0u},
        {"memory_bytes", "MEMORY", ~0u}, {"uid", "UID", ~0u},     {"remark", "REMARK", ~0u},
    };
    size_t count;
    char **names = instance_names(&count);
    if (names == NULL)
        return fail(t, ZCP_ERR_SYSTEM, "zerocp needs it for its segments", "%s: %s", SHM_DIRECTORY, strerror(errno));
    TABLE_BEGIN(&t->report, "instances", columns);
    for (size_t i = 0; i < count; i++) {
        list_one(t, names[i]);
        free(names[i]);
    }
    table_end(&t->report);
    if (count == 0)
        report_line(&t->report, DIM, "no instances on this machine");
    free(names);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// check

static int run_check(tool *t) {
    static const column columns[] = {{"level", "LEVEL", ~0u}, {"where", "WHERE", ~0u}, {"what", "WHAT", ~0u}};
    static const report_color colors[] = {RED, YELLOW, DIM};
    report *r = &t->report;
    findings f = {0};
    file_look files = look_at_files(t->name);
    zcp_status status = observe(t);
    if (status == ZCP_ERR_NOT_FOUND && files.state == FILE_ABSENT)
        return fail_status(t, status);
    if (status == ZCP_OK)
        status = take_snapshot(t->manager, &t->now);
    if (status == ZCP_OK) {
        check_instance(t->manager, &files, &t->now, &f);
        check_topics(t->manager, &t->now.clients, &f);
        check_holders(t->manager, &t->now, &f);
    } else {
        const char *meaning = file_states[files.state].meaning;
        find(&f, FINDING_ERROR, "files", "%s: %s%s%s%s", zcp_status_name(status), zcp_last_message(),
             meaning[0] ? " (" : "", meaning, meaning[0] ? ")" : "");
    }
    bool healthy = f.levels[FINDING_ERROR] + f.levels[FINDING_WARNING] == 0;
    report_field(r, "name", NULL, v_text(t->name));
    report_field(r, "healthy", NULL, v_flag(healthy));
    for (int level = 0; level < FINDING_LEVELS; level++) {
        static const char *const keys[] = {"errors", "warnings", "notes"};
        report_field(r, keys[level], NULL, v_number(f.levels[level]));
    }
    TABLE_BEGIN(r, "findings", columns);
    for (size_t i = 0; i < f.count; i++)
        TABLE_ROW(r, v_colored(finding_levels[f.items[i].level], colors[f.items[i].level]), v_text(f.items[i].where),
                  v_text(f.items[i].what));
    table_end(r);
    report_line(r, healthy ? GREEN : RED, "%s: %u error%s, %u warning%s, %u note%s",
                healthy ? "healthy" : "not healthy", f.levels[FINDING_ERROR], plural(f.levels[FINDING_ERROR]),
                f.levels[FINDING_WARNING], plural(f.levels[FINDING_WARNING]), f.levels[FINDING_NOTE],
                plural(f.levels[FINDING_NOTE]));
    free(f.items);
    return healthy ? 0 : EXIT_FOUND;
}

// ---------------------------------------------------------------------------------------------------------------------
// recover, remove

static bool held_by_dead_only(const tool *t, const zcp_census_entry *e) {
    bool dead = state_of(&t->now.clients, e->owner) == ZCP_CLIENT_DEAD;
    for (uint32_t slot = 0; slot < t->now.clients.count; slot++)
        if (has_slot(e->borrower_mask, slot)) {
            if (state_of(&t->now.clients, slot) != ZCP_CLIENT_DEAD)
                return false;
            dead = true;
        }
    return dead && (e->owner == ZCP_NO_CLIENT || state_of(&t->now.clients, e->owner) == ZCP_CLIENT_DEAD);
}

// One use of one chunk: not by its token, since it may have none.
static int compare_uses(const void *left, const void *right) {
    const zcp_census_entry *l = left, *r = right;
    int order = compare_numbers(l->generation, r->generation);
    return order != 0 ? order : compare_numbers((uint64_t)l->pool << 32 | l->index, (uint64_t)r->pool << 32 | r->index);
}

// Of the chunks that only dead clients held, those that are held no more.
static uint64_t count_reclaimed(const tool *t, const census *before, census *after) {
    uint64_t count = 0;
    if (after->count > 0)
        qsort(after->items, after->count, sizeof *after->items, compare_uses);
    for (size_t i = 0; i < before->count; i++)
        if (held_by_dead_only(t, &before->items[i]))
            count += after->count == 0 || bsearch(&before->items[i], after->items, after->count, sizeof *after->items,
                                                  compare_uses) == NULL;
    return count;
}

// Attaching sweeps all dead clients already, so what came back is seen by looking before and after it. *left: dead ones
// that are not swept still. 0, or the exit status.
static int sweep(tool *t, uint64_t *reclaimed, uint32_t *left) {
    static client_table clients;
    census before = {0}, after = {0};
    zcp_manager *client;
    zcp_status status = zcp_manager_census(t->manager, census_add, &before);
    int failed = status == ZCP_OK ? attach(t, "zerocp recover", 0, &client) : 0;
    if (failed)
        return failed;
    if (status == ZCP_OK) {
        status = zcp_manager_recover(client, NULL);
        failed = status != ZCP_OK ? fail_status(t, status) : 0;
        zcp_manager_close(client);
        if (failed)
            return failed;
        status = zcp_manager_census(t->manager, census_add, &after);
    }
    if (status == ZCP_OK)
        status = take_clients(t->manager, t->now.info.max_clients, &clients);
    if (status != ZCP_OK)
        return fail_status(t, status);
    *reclaimed = count_reclaimed(t, &before, &after);
    *left = clients.dead;
    free(before.items);
    free(after.items);
    return 0;
}

static int run_recover(tool *t) {
    report *r = &t->report;
    client_table *dead = &t->now.clients;
    uint64_t reclaimed = 0;
    uint32_t left = 0;
    int status = look(t);
    if (status == 0)
        status = refuse_to_attach(t);
    if (status == 0 && dead->dead > 0)
        status = sweep(t, &reclaimed, &left);
    if (status != 0)
        return status;
    for (uint32_t slot = 0; slot < dead->count; slot++)            // those alive are not shown
        if (dead->items[slot].state == ZCP_CLIENT_ALIVE)
            dead->items[slot].state = ZCP_CLIENT_FREE;
    report_field(r, "name", NULL, v_text(t->now.info.name));
    report_field(r, "dead_clients", NULL, v_number(dead->dead));
    report_field(r, "not_swept", NULL, v_number(left));
    report_field(r, "chunks_reclaimed", NULL, v_number(reclaimed));
    report_clients(r, dead);
    if (dead->dead == 0)
        report_line(r, GREEN, "nothing to recover: no client is dead");
    else
        report_line(r, left ? RED : GREEN, "swept %u of %u dead client%s: %" PRIu64 " chunk%s came back",
                    dead->dead - left, dead->dead, plural(dead->dead), reclaimed, plural(reclaimed));
    return left ? EXIT_FOUND : 0;
}

// Who has it open, by pid, as far as this tool can tell: of another layout version it knows only how many there are.
static void name_the_living(tool *t, char *who, size_t bytes) {
    size_t length = 0;
    who[0] = 0;
    if (observe(t) != ZCP_OK || take_snapshot(t->manager, &t->now) != ZCP_OK)
        return;
    for (uint32_t slot = 0; slot < t->now.clients.count && length + 1 < bytes; slot++)
        if (t->now.clients.items[slot].state == ZCP_CLIENT_ALIVE)
            length += (size_t)snprintf(who + length, bytes - length, "%s%u", length ? ", " : ": pid ",
                                       t->now.clients.items[slot].pid);
}

static int run_remove(tool *t) {
    report *r = &t->report;
    file_look files = look_at_files(t->name);
    if (files.state == FILE_CREATING && !given(t, OPTION_FORCE))
        return fail(t, ZCP_OK, "let it end, or remove what it has made with --force", "%s: process %u is creating it",
                    t->name, files.locker_pid);
    if (files.alive > 0 && !given(t, OPTION_FORCE)) {
        char who[200];
        name_the_living(t, who, sizeof who);
        return fail(
            t, ZCP_OK,
            "stop them first, or remove it all the same with --force: they then go on with what they have mapped",
            "%s: %u %s it open%s", t->name, files.alive, files.alive == 1 ? "client has" : "clients have", who);
    }
    zcp_status status = zcp_manager_destroy_with(t->name, ZCP_SHM_ANY_OWNER);          // it was named: whoever owns it
    if (status != ZCP_OK)
        return fail_status(t, status);
    report_field(r, "name", NULL, v_text(t->name));
    report_field(r, "removed", NULL, v_flag(true));
    report_field(r, "clients_alive", NULL, v_number(files.alive));
    report_field(r, NULL, "Removed", v_text(t->name));
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Commands and options

static const struct {
    const char *name;
    char letter;
    const char *argument, *expected, *help;
} option_table[OPTIONS] = {
    [OPTION_JSON] = {"json", 'j', NULL, NULL, "one JSON object per line, on stdout"},
    [OPTION_COLOR] = {"color", 'c', "WHEN", "auto, always or never",
                      "auto (on a terminal, unless NO_COLOR is set), always or never"},
    [OPTION_HELP] = {"help", 'h', NULL, NULL, "print this, and end"},
    [OPTION_VERSION] = {"version", 'V', NULL, NULL, "print the version of zerocp and of its layout, and end"},
    [OPTION_POOL] = {"pool", 'p', "POOL", "a pool number",
                     "census: only chunks of the pool of that number; create and grow: a pool\n"
                     "                            to make, SIZExCOUNT[:align=N][:cache=N]; any number of them"},
    [OPTION_CLIENT] = {"client", 's', "ID", "a client's slot number",
                       "only chunks that the client of that slot owns or borrows"},
    [OPTION_TAG] = {"tag", 't', "T", "a number of 32 bits", "only chunks with that tag (decimal, or 0x...)"},
    [OPTION_OLDER] = {"older", 'o', "N", "a number of 32 bits",
                      "old: its allocator has allocated N more from that pool (default: 4 times its chunks)"},
    [OPTION_INTERVAL] = {"interval", 'i', "SECONDS", "seconds from 0.001 to 86400",
                         "time between two looks (default: 1)"},
    [OPTION_COUNT] = {"count", 'n', "N", "a number from 1 on", "end after N looks; echo: after N messages"},
    [OPTION_FOLLOW] = {"follow", 'f', NULL, NULL, "when the instance is destroyed, wait for the next one of its name"},
    [OPTION_CSV] = {"csv", 0, NULL, NULL, "as CSV with a heading (the default)"},
    [OPTION_FORCE] = {"force", 0, NULL, NULL, "also if clients have it open; they go on with what they have mapped"},
    [OPTION_HISTORY] = {"history", 0, "N", "a number of 32 bits", "begin with up to N messages that are there already"},
    [OPTION_BYTES] = {"bytes", 'b', "N", "a number from 1 on",
                      "publish: N bytes of the input are a message; else: show up to N bytes (default: 256)"},
    [OPTION_RAW] = {"raw", 0, NULL, NULL, "all bytes as they are, and nothing else"},
    [OPTION_DEPTH] = {"depth", 0, "N", "a number from 1 to 65536",
                      "messages that slow subscribers still find (default: 8)"},
    [OPTION_MAX_CLIENTS] = {"max-clients", 0, "N", "a number from 1 to 1024", "clients at once (default: 64)"},
    [OPTION_PUBLISHERS] = {"publishers", 0, "N", "a number from 1 to 1024", "publishers at once (default: 16)"},
    [OPTION_SUBSCRIBERS] = {"subscribers", 0, "N", "a number from 1 to 1024", "subscribers at once (default: 32)"},
    [OPTION_RING_CELLS] = {"ring-cells", 0, "N", "a number from 1 to 65536",
                           "messages of each publisher that can be unread (default: 64)"},
};

#define OPTIONS_OF_ALL (BIT(OPTION_JSON) | BIT(OPTION_COLOR) | BIT(OPTION_HELP) | BIT(OPTION_VERSION))
#define OPTIONS_OF_LOOKS (BIT(OPTION_INTERVAL) | BIT(OPTION_COUNT))
#define OPTIONS_OF_TABLES                                                                                              \
    (BIT(OPTION_MAX_CLIENTS) | BIT(OPTION_PUBLISHERS) | BIT(OPTION_SUBSCRIBERS) | BIT(OPTION_RING_CELLS))

static const command commands[] = {
    {"list", false, NULL, 0, run_list, "List the instances of this machine, alive or left over",
     "STATE is alive (a client has it open), left over (nobody has), or why nobody can attach to it.\n"
     "USED counts chunks, MEMORY what its files take of /dev/shm.\n"},
    {"show", true, NULL, 0, run_show, "Show its pools, memory and clients",
     "ALLOCATIONS, RELEASES, FAILED (nothing was free) and WAITS count since the pool was made. Of a pool that is\n"
     "exhausted it names the client that holds most, and of a client that drains those who have to read.\n"},
    {"watch", true, NULL, OPTIONS_OF_LOOKS | BIT(OPTION_FOLLOW), run_watch, "Show the same again and again, with rates",
     "On a terminal each frame overwrites the last; elsewhere they follow one another. Ctrl-C ends it, with status 0.\n"
     "If the instance is replaced, it goes on with the new one; if it is destroyed, it ends with status 1.\n"},
    {"clients", true, NULL, 0, run_clients, "Show who has it open, and what they hold",
     "A dead client ended without closing, and nobody has swept it yet: see recover. A draining one has ended while\n"
     "messages of it are unread: see show, which tells who has to read them.\n"},
    {"topics", true, NULL, BIT(OPTION_INTERVAL), run_topics, "Show who publishes and subscribes to what",
     "Looks twice, for the rates. UNREAD: messages that a subscriber has not read, or not all of a publisher's.\n"
     "CHUNKS: that stand in a publisher's ring. HOW: as it was opened; ended: its client has closed it or died, and "
     "what is\nunread can still be read. REMARK: a reliable subscriber that has not read the oldest message of a full "
     "ring holds up\nthe publisher.\n"},
    {"hz", true, "TOPIC", OPTIONS_OF_LOOKS, run_hz, "Show how often, and how regularly, messages come",
     "Looks at the publishers' counters some thousand times a second, and reports once per --interval, over all "
     "publishers\nof the topic. Ctrl-C ends it, with status 0.\n"},
    {"echo", true, "TOPIC", BIT(OPTION_COUNT) | BIT(OPTION_HISTORY) | BIT(OPTION_BYTES) | BIT(OPTION_RAW), run_echo,
     "Show the messages of a topic as they come, as hex and text",
     "Attaches as a client that only reads payloads, and subscribes so that nobody waits for it: it may lose messages, "
     "and\nsays how many. With --json an object per message. Ctrl-C ends it, with status 0.\n"},
    {"publish", true, "TOPIC", BIT(OPTION_BYTES) | BIT(OPTION_DEPTH), run_publish,
     "Publish standard input to a topic: a line is a message",
     "The end of a line does not belong to it; an empty line is an event, a message without bytes. Attaches as a "
     "client,\nand waits for reliable subscribers and for chunks. What is unread when it ends can still be read.\n"},
    {"census", true, NULL, BIT(OPTION_POOL) | BIT(OPTION_CLIENT) | BIT(OPTION_TAG), run_census,
     "Show every chunk that somebody holds",
     "OWNER and BORROWERS are client slots; AGE counts what its allocator has allocated from that pool since.\n"},
    {"dump", true, "TOKEN", BIT(OPTION_BYTES) | BIT(OPTION_RAW), run_dump, "Show what is in a chunk, as hex and text",
     "TOKEN names it, as zerocp census shows it; POOL:INDEX does, too, for a chunk without a token. The chunk is not "
     "held\nmeanwhile: if it was released while it was read, that is said, and the status is 1. Its holders may write "
     "it all the\ntime.\n"},
    {"leaks", true, NULL, BIT(OPTION_OLDER), run_leaks, "Show chunks that look leaked, by tag and owner",
     "KIND is dead (held by dead clients alone: recover brings them back), old (see --older), lost (held by nobody),\n"
     "read (as old, but a living client that is not its owner has acquired it) or ownerless (its owner has let go or\n"
     "died, living borrowers still have it: usual where chunks are handed on), or unread (a message of a client that\n"
     "has ended, which its subscribers have to read).\n"
     "The status is 1 if any but read, ownerless and unread ones are found.\n"},
    {"check", true, NULL, 0, run_check, "Check all that can be seen from outside",
     "Checks files, header, records, hints, leases, clients and topics. Errors are what zerocp never writes, warnings\n"
     "what somebody should do something about, notes the rest. The status is 1 if there are errors or warnings.\n"},
    {"suggest", true, NULL, OPTIONS_OF_LOOKS, run_suggest, "Suggest a configuration that would suit it better",
     "From the peaks and failures of the pools, and the sizes asked for by the chunks held: run it under load, with "
     "--count.\nThe line is for create and grow: zerocp create NAME --pool LINE\n"
     "Where far more calls failed than got a chunk, somebody polls: that does not tell how many are "
     "missing.\n"},
    {"record", true, NULL, OPTIONS_OF_LOOKS | BIT(OPTION_CSV) | BIT(OPTION_FOLLOW), run_record,
     "Record samples of all pools as CSV, for plotting",
     "A row per pool and look: time, chunks, counters, rates, clients. Ctrl-C ends it, with status 0.\n"},
    {"create", true, NULL, BIT(OPTION_POOL) | OPTIONS_OF_TABLES, run_create, "Create an instance with pools as given",
     "The pools as zerocp suggest prints them: zerocp create NAME --pool 6220800x13:align=4096 --pool 256x100\n"
     "It stays, also while nobody has it open, until zerocp remove NAME. A program that opens it and brings its own\n"
     "configuration must bring the same one; if nobody has the instance open, it is replaced else.\n"},
    {"grow", true, NULL, BIT(OPTION_POOL), run_grow, "Add pools while everybody works",
     "All of them, or none. Attaches as a client for a moment.\n"},
    {"retire", true, "POOL", 0, run_retire, "Retire a pool: it gives out nothing more, and goes with its last chunk",
     "POOL is its number: see zerocp show. Attaches as a client for a moment.\n"},
    {"recover", true, NULL, 0, run_recover, "Take back what dead clients hold",
     "Attaches as a client for a moment. It is not needed in general: opening and exhaustion do the same.\n"},
    {"remove", true, NULL, BIT(OPTION_FORCE), run_remove, "Destroy it: its names go, its memory with its last client",
     "Refuses, with status 1, while a client has it open.\n"},
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_options(unsigned which) {
    for (int i = 0; i < OPTIONS; i++) {
        char letter[8] = "    ", name[32];
        if (!(which & BIT(i)))
            continue;
        if (option_table[i].letter)
            snprintf(letter, sizeof letter, "-%c, ", option_table[i].letter);
        snprintf(name, sizeof name, "--%s%s%s", option_table[i].name, option_table[i].argument ? "=" : "",
                 option_table[i].argument ? option_table[i].argument : "");
        printf("  %s%-20s  %s\n", letter, name, option_table[i].help);
    }
}

static const char exit_statuses[] =
    "Exit status: 0 all is well; 1 something was found, or it failed; 2 the command line is wrong.\n";

static void print_help(const command *c) {
    if (c != NULL) {
        printf("Usage: zerocp %s%s%s%s [OPTION]...\n%s.\n\n%s\n", c->name, c->takes_name ? " NAME" : "",
               c->argument != NULL ? " " : "", c->argument != NULL ? c->argument : "", c->summary, c->help);
        print_options(c->options | OPTIONS_OF_ALL);
        printf("\n%s", exit_statuses);
        return;
    }
    printf("Usage: zerocp COMMAND [NAME] [OPTION]...\n"
           "Looks at instances of zerocp, checks, makes and changes them. NAME is an instance's name.\n\n");
    for (int i = 0; i < COMMANDS; i++) {
        char arguments[32];
        snprintf(arguments, sizeof arguments, "%s %s", commands[i].takes_name ? "NAME" : "",
                 commands[i].argument != NULL ? commands[i].argument : "");
        printf("  %-8s %-11s %s\n", commands[i].name, arguments, commands[i].summary);
    }
    printf("\n");
    print_options(OPTIONS_OF_ALL);
    printf("\nThe options of a command: zerocp COMMAND --help\n"
           "create, grow, retire, remove, recover, publish and echo take part, or change something. All others only "
           "look:\nthey map the instance read-only, take no client slot, and sweep nothing.\n"
           "%s",
           exit_statuses);
}

// ---------------------------------------------------------------------------------------------------------------------
// The command line

// A whole number up to a limit; in hexadecimal after 0x.
static bool parse_number(const char *text, uint64_t most, uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    return text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0 && *number <= most;
}

static bool parse_positive(const char *text, uint64_t most, uint64_t *number) {
    return parse_number(text, most, number) && *number > 0;
}

// 16 digits, as zerocp prints a token (0x may stand in front); or POOL:INDEX, of a chunk whatever use it is in: then
// the generation is 0, which no chunk has.
static bool parse_token(const char *text, uint64_t *token) {
    const char *at = text;
    uint64_t pool, index;
    char *end;
    if (take_digits(&at, ZCP_MAX_LIVE_POOLS - 1, &pool) && take_word(&at, ":")
        && take_digits(&at, ZCP_MAX_CHUNKS - 1, &index)) {
        *token = pool << ZCP_PRIV_POOL_SHIFT | index;
        return *at == 0;
    }
    *token = strtoull(text, &end, 16);
    return isxdigit((unsigned char)text[0]) && strlen(text) <= 18 && *end == 0 && *token >> 32 != 0;
}

static bool parse_seconds(const char *text, unsigned *milliseconds) {
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != 0 || !(seconds >= 0.001 && seconds <= 86400))
        return false;
    *milliseconds = (unsigned)(seconds * 1000 + 0.5);
    return true;
}

// Takes one option; false: its argument is none.
static bool take_option(tool *t, option_id option, const char *argument) {
    t->given |= BIT(option);
    switch (option) {
    case OPTION_JSON: t->report.format = REPORT_JSON; return true;
    case OPTION_COLOR:
        t->color_always = strcmp(argument, "always") == 0;
        t->color_never = strcmp(argument, "never") == 0;
        return t->color_always || t->color_never || strcmp(argument, "auto") == 0;
    case OPTION_POOL:                                              // what it means, the command tells (settle_pool)
        t->pools[t->pool_options < MAX_POOL_OPTIONS ? t->pool_options : MAX_POOL_OPTIONS - 1] = argument;
        t->pool_options++;
        return true;
    case OPTION_CLIENT: return parse_number(argument, ZCP_MAX_CLIENTS - 1, &t->client);
    case OPTION_TAG: return parse_number(argument, UINT32_MAX, &t->tag);
    case OPTION_OLDER: return parse_number(argument, UINT32_MAX, &t->older);
    case OPTION_INTERVAL: return parse_seconds(argument, &t->interval_ms);
    case OPTION_COUNT: return parse_positive(argument, UINT64_MAX, &t->count);
    case OPTION_HISTORY: return parse_number(argument, UINT32_MAX, &t->history);
    case OPTION_BYTES: return parse_positive(argument, UINT64_MAX, &t->bytes);
    case OPTION_DEPTH: return parse_positive(argument, ZCP_MAX_RING_CELLS, &t->depth);
    case OPTION_MAX_CLIENTS: return parse_positive(argument, ZCP_MAX_CLIENTS, &t->max_clients);
    case OPTION_PUBLISHERS: return parse_positive(argument, ZCP_MAX_PUBLISHERS, &t->publishers);
    case OPTION_SUBSCRIBERS: return parse_positive(argument, ZCP_MAX_SUBSCRIBERS, &t->subscribers);
    case OPTION_RING_CELLS: return parse_positive(argument, ZCP_MAX_RING_CELLS, &t->ring_cells);
    default: return true;
    }
}

// Whether --pool is a number depends on the command. 0, or the exit status.
static int settle_pool(tool *t) {
    if (t->pool_options > MAX_POOL_OPTIONS)
        return fail_usage(t, "--pool is given more than %d times", MAX_POOL_OPTIONS);
    for (uint32_t i = 0; i < t->pool_options && t->command->run == run_census; i++)
        if (!parse_number(t->pools[i], ZCP_MAX_LIVE_POOLS - 1, &t->pool))
            return fail_usage(t, "--pool=%s: expected is %s", t->pools[i], option_table[OPTION_POOL].expected);
    return 0;
}

static bool parse_pool_number(const char *text, uint64_t *number) {
    return parse_number(text, ZCP_MAX_LIVE_POOLS - 1, number);
}

// What stands behind the name; NULL: nothing. 0, or the exit status.
static int settle_argument(tool *t, const char *text) {
    static const struct {
        const char *name, *what, *shown_by;
        bool (*parse)(const char *text, uint64_t *number);
    } kinds[] = {
        {"TOPIC", "a topic", "topics", NULL},
        {"POOL", "a pool's number", "show", parse_pool_number},
        {"TOKEN", "a chunk's token, or POOL:INDEX", "census", parse_token},
    };
    t->argument = text;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(t->command->argument, kinds[i].name) != 0)
            continue;
        if (text == NULL)
            return fail_usage(t, "%s: %s is missing behind the instance; zerocp %s shows them", t->command->name,
                              kinds[i].what, kinds[i].shown_by);
        if (kinds[i].parse != NULL && !kinds[i].parse(text, &t->argument_number))
            return fail_usage(t, "%s: expected is %s; zerocp %s shows them", text, kinds[i].what, kinds[i].shown_by);
    }
    return 0;
}

// Finds the command and the name among the options. 0, or the exit status.
static int parse(tool *t, int argc, char **argv) {
    struct option longs[OPTIONS + 1] = {{0}};
    char shorts[3 * OPTIONS + 2] = ":";                            // a missing argument is told apart
    for (int i = 0; i < OPTIONS; i++) {
        size_t length = strlen(shorts);
        longs[i] = (struct option){option_table[i].name, option_table[i].argument ? required_argument : no_argument,
                                   NULL, 256 + i};
        if (option_table[i].letter)
            snprintf(shorts + length, sizeof shorts - length, "%c%s", option_table[i].letter,
                     option_table[i].argument ? ":" : "");
    }
    opterr = 0;
    for (int found; (found = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        int option = found - 256;
        for (int i = 0; i < OPTIONS && found < 256; i++)
            if (option_table[i].letter == found)
                option = i;
        if (found == '?' || found == ':')
            return fail_usage(t,
                              found == '?' ? "%s: there is no such option, or it takes no argument"
                                           : "%s: its argument is missing",
                              argv[optind - 1]);
        if (!take_option(t, (option_id)option, optarg))
            return fail_usage(t, "--%s=%s: expected is %s", option_table[option].name, optarg,
                              option_table[option].expected);
    }
    if (optind < argc && strcmp(argv[optind], "help") == 0) {
        t->given |= BIT(OPTION_HELP);
        optind++;
    }
    for (int i = 0; i < COMMANDS && optind < argc; i++)
        if (strcmp(argv[optind], commands[i].name) == 0)
            t->command = &commands[i];
    if (given(t, OPTION_HELP) || given(t, OPTION_VERSION))
        return 0;
    if (optind == argc)
        return fail_usage(t, "a command is missing");
    if (t->command == NULL)
        return fail_usage(t, "%s: there is no such command", argv[optind]);
    for (int i = 0; i < OPTIONS; i++)
        if (given(t, (option_id)i) && !((t->command->options | OPTIONS_OF_ALL) & BIT(i)))
            return fail_usage(t, "%s does not take --%s", t->command->name, option_table[i].name);
    if (given(t, OPTION_CSV) && given(t, OPTION_JSON))
        return fail_usage(t, "--csv and --json do not go together");
    if (given(t, OPTION_RAW) && given(t, OPTION_JSON))
        return fail_usage(t, "--raw and --json do not go together");
    int arguments = argc - optind - 1, taken = t->command->takes_name + (t->command->argument != NULL);
    if (t->command->takes_name && arguments == 0)
        return fail_usage(t, "%s: the name of an instance is missing; zerocp list shows them", t->command->name);
    if (arguments > taken)
        return fail_usage(t, "%s: one argument too many", argv[optind + 1 + taken]);
    if (t->command->takes_name)
        t->name = zcp_priv_name_plain(argv[optind + 1]);           // a leading slash is ignored, as by open
    int wrong = settle_pool(t);
    return wrong == 0 && t->command->argument != NULL ? settle_argument(t, arguments > 1 ? argv[optind + 2] : NULL)
                                                      : wrong;
}

// What zerocp logs (errors, unless ZEROCP_LOG_LEVEL says otherwise) holds names, too.
static void on_log(zcp_log_level level, const char *line, void *user) {
    (void)level;
    (void)user;
    fputs("zerocp: ", stderr);
    write_safe(stderr, line, false);
    fputs("\n", stderr);
}

static bool wants_color(const tool *t) {
    const char *refused = getenv("NO_COLOR"), *terminal = getenv("TERM");
    if (t->color_always || t->color_never)
        return t->color_always;
    return isatty(STDOUT_FILENO) && (refused == NULL || *refused == 0)
           && (terminal == NULL || strcmp(terminal, "dumb") != 0);
}

int main(int argc, char **argv) {
    static tool t = {.interval_ms = 1000, .report = {.view = VIEW_SHOW}};
    open_standard_streams();
    setvbuf(stderr, NULL, _IOLBF, 0);                              // so that a line is written at once
    signal(SIGPIPE, SIG_IGN);                                      // who reads our output may end; that is no failure
    signal(SIGBUS, on_sigbus);
    zcp_log_set_callback(on_log, NULL);
    int status = parse(&t, argc, argv);
    if (status != 0)
        return status;
    t.report.colored = t.report.format == REPORT_TEXT && wants_color(&t);
    if (given(&t, OPTION_HELP)) {
        print_help(t.command);
    } else if (given(&t, OPTION_VERSION)) {
        printf("zerocp %s (layout version %u, signature %016" PRIx64 ")\n", ZEROCP_VERSION, ZCP_PRIV_LAYOUT_VERSION,
               zcp_priv_signature());
    } else {
        report_begin(&t.report);
        status = t.command->run(&t);
        if (t.report.out != NULL)
            deliver(&t);
    }
    zcp_manager_close(t.manager);
    if (fflush(stdout) != 0 && t.write_error == 0)
        t.write_error = errno;
    if (t.write_error == 0 || t.write_error == EPIPE)
        return status;
    fprintf(stderr, "zerocp: stdout: %s\n", strerror(t.write_error));
    return status ? status : EXIT_FOUND;
}
