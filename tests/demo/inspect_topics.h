// inspect_topics.h: the commands that look at topics, topics and hz, and what show and check tell of clients that
// have ended while messages of theirs are unread.
#ifndef INSPECT_TOPICS_H
#define INSPECT_TOPICS_H

#include "inspect_tool.h"
#include "inspect_watch.h"

// ---------------------------------------------------------------------------------------------------------------------
// Publishers and subscribers at one moment

typedef struct topic_table {
    zcp_topic_entry *items;
    size_t count, room;
    uint64_t ns;                                                   // when it was taken; monotonic
} topic_table;

static bool topic_add(const zcp_topic_entry *entry, void *user) {
    topic_table *topics = user;
    if (topics->count == topics->room) {
        topics->room = topics->room ? 2 * topics->room : 64;
        zcp_topic_entry *more = realloc(topics->items, topics->room * sizeof *more);
        if (more == NULL)
            report_out_of_memory();
        topics->items = more;
    }
    topics->items[topics->count++] = *entry;
    return true;
}

static int compare_topics(const void *left, const void *right) {
    const zcp_topic_entry *a = left, *b = right;
    int order = strcmp(a->topic, b->topic);
    if (order == 0 && a->publisher != b->publisher)
        order = a->publisher ? -1 : 1;
    return order ? order : (a->source > b->source) - (a->source < b->source);
}

// By topic, publishers first, the older ones first.
static zcp_status take_topics(const zcp_manager *manager, topic_table *topics) {
    *topics = (topic_table){.ns = zcp_priv_now_ns()};
    zcp_status status = zcp_manager_topics(manager, topic_add, topics);
    if (topics->count > 0)
        qsort(topics->items, topics->count, sizeof *topics->items, compare_topics);
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// Clients that drain: who has to read what they have left

typedef struct drain {
    uint32_t client;
    char topic[ZCP_MAX_TOPIC_BYTES];
    uint64_t unread;                                               // messages
    uint64_t readers[ZCP_MAX_CLIENTS / 64];                        // clients that have not read them all, as bits
} drain;

typedef struct drain_table {
    drain *items;
    size_t count;
} drain_table;

// The clients that have not read all messages of a publisher, which has this source.
static void find_readers(const zcp_manager *manager, uint64_t source, uint64_t readers[ZCP_MAX_CLIENTS / 64]) {
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    for (uint32_t p = 0; p < tables.publisher_count; p++) {
        const zcp_priv_topic_publisher *publisher = &tables.publishers[p];
        uint64_t state = zcp_priv_load_acquire(&publisher->state);
        if (zcp_priv_topic_is_free(state) || state >> 32 != source)
            continue;
        zcp_priv_topic topic = zcp_priv_topic_read(publisher->topic);
        for (uint32_t s = 0; s < tables.subscriber_count; s++) {
            const zcp_priv_topic_subscriber *subscriber = &tables.subscribers[s];
            uint32_t client = (uint32_t)(zcp_priv_load_acquire(&subscriber->state) & 0xffff) - 1;
            if (client < ZCP_MAX_CLIENTS && zcp_priv_topic_equal(&topic, subscriber->topic)
                && zcp_priv_head_read(&zcp_priv_cursor_row(&tables, p)[s], source)
                       < zcp_priv_load_relaxed(&publisher->count))
                readers[client / 64] |= UINT64_C(1) << client % 64;
        }
    }
}

static void take_drains(const zcp_manager *manager, const client_table *clients, const topic_table *topics,
                        drain_table *drains) {
    *drains = (drain_table){.items = calloc(topics->count + 1, sizeof *drains->items)};
    if (drains->items == NULL)
        report_out_of_memory();
    for (size_t i = 0; i < topics->count; i++) {
        const zcp_topic_entry *e = &topics->items[i];
        if (!e->publisher || !e->ended || e->client >= clients->count || !clients->drains[e->client])
            continue;
        drain *at = &drains->items[drains->count++];
        at->client = e->client;
        at->unread = e->unread;
        memcpy(at->topic, e->topic, sizeof at->topic);
        find_readers(manager, e->source, at->readers);
    }
}

// Nobody has to do anything about them but read. A gap in front, if there are any.
static zcp_status report_drains(report *r, const zcp_manager *manager, const client_table *clients) {
    static const column columns[] = {
        {"client", "DRAINS", ~0u},  {"pid", "PID", ~0u},       {"name", "NAME", ~0u}, {"topic", "TOPIC", ~0u},
        {"unread", "UNREAD", ~0u}, {"readers", "CLIENTS THAT HAVE TO READ", ~0u},
    };
    topic_table topics;
    drain_table drains;
    zcp_status status = take_topics(manager, &topics);
    take_drains(manager, clients, &topics, &drains);
    if (drains.count > 0)
        report_gap(r);
    TABLE_BEGIN(r, "draining", columns);
    for (size_t i = 0; i < drains.count; i++) {
        const drain *d = &drains.items[i];
        const zcp_client_stats *c = &clients->items[d->client];
        TABLE_ROW(r, v_number(d->client), v_number(c->pid), v_text(c->name), v_text(d->topic), v_number(d->unread),
                  v_slots(d->readers));
    }
    table_end(r);
    free(topics.items);
    free(drains.items);
    return status;
}

// "client 2 ("view", pid 77), client 3 (...) and 2 more"; the names are the library's clean ones.
static void name_readers(const client_table *clients, const uint64_t readers[ZCP_MAX_CLIENTS / 64], char *text,
                         size_t bytes) {
    uint32_t named = 0, more = 0;
    size_t length = 0;
    text[0] = 0;
    for (uint32_t slot = 0; slot < clients->count; slot++) {
        const zcp_client_stats *c = &clients->items[slot];
        if (!(readers[slot / 64] >> slot % 64 & 1))
            continue;
        if (named == 3 || length >= bytes)
            more++;
        else
            length += (size_t)snprintf(text + length, bytes - length, "%sclient %u (\"%s\", pid %u%s)",
                                       named++ ? ", " : "", slot, c->name, c->pid,
                                       c->state == ZCP_CLIENT_DEAD ? ", dead itself" : "");
    }
    if (more > 0 && length < bytes)
        snprintf(text + length, bytes - length, " and %u more", more);
}

static void check_drains(const zcp_manager *manager, const client_table *clients, const topic_table *topics,
                         findings *f) {
    drain_table drains;
    take_drains(manager, clients, topics, &drains);
    for (size_t i = 0; i < drains.count; i++) {
        const drain *d = &drains.items[i];
        const zcp_client_stats *c = &clients->items[d->client];
        char where[40], readers[240];
        snprintf(where, sizeof where, "client %u", d->client);
        name_readers(clients, d->readers, readers, sizeof readers);
        if (readers[0] != 0)
            find(f, FINDING_NOTE, where,
                 "\"%s\" (pid %u) has ended; %" PRIu64 " of its messages on \"%s\" %s unread: %s must read them, or "
                 "close; until then its slot and their chunks stay taken",
                 c->name, c->pid, d->unread, d->topic, d->unread == 1 ? "is" : "are", readers);
        else
            find(f, FINDING_NOTE, where,
                 "\"%s\" (pid %u) has ended, and all of its messages on \"%s\" were received; its slot stays taken "
                 "while one is read in place, and until somebody opens the instance or: zerocp recover",
                 c->name, c->pid, d->topic);
    }
    free(drains.items);
}

static void check_topics(const zcp_manager *manager, const client_table *clients, findings *f) {
    topic_table topics;
    if (take_topics(manager, &topics) != ZCP_OK)
        find(f, FINDING_ERROR, "topics", "%s", zcp_last_message());
    for (size_t i = 0; i < topics.count; i++) {
        const zcp_topic_entry *e = &topics.items[i];
        char where[40];
        snprintf(where, sizeof where, "client %u", e->client);
        if (e->client >= clients->count)
            find(f, FINDING_ERROR, "topics", "%s of \"%s\" names a client that there is not: its entry was overwritten",
                 e->publisher ? "a publisher" : "a subscriber", e->topic);
        else if (e->publisher && e->waits_for < clients->count)
            find(f, FINDING_NOTE, where,
                 "\"%s\" (pid %u) can publish nothing more on \"%s\" before client %u (\"%s\", pid %u), which "
                 "subscribes reliably, has read",
                 clients->items[e->client].name, clients->items[e->client].pid, e->topic, e->waits_for,
                 clients->items[e->waits_for].name, clients->items[e->waits_for].pid);
    }
    check_drains(manager, clients, &topics, f);
    free(topics.items);
}

// ---------------------------------------------------------------------------------------------------------------------
// topics

static const topic_table no_topics;

// As it was at the look before; NULL: it was not there.
static const zcp_topic_entry *topic_before(const topic_table *before, const zcp_topic_entry *entry) {
    for (size_t i = 0; i < before->count; i++)
        if (before->items[i].source == entry->source && before->items[i].publisher == entry->publisher)
            return &before->items[i];
    return NULL;
}

// For people: how it was opened, and that it has ended.
static void describe_topic(const zcp_topic_entry *e, char *text, size_t bytes) {
    snprintf(text, bytes, "%s%s%s%s%s", e->ended ? "ended " : "", e->reliable ? "reliable " : "",
             e->latest ? "latest " : "", e->exclusive ? "exclusive " : "", e->never_waits ? "never waits " : "");
    size_t length = strlen(text);
    if (length > 0)
        text[length - 1] = 0;
}

// The clients whose publishers this subscriber holds up, as bits. true: there is one.
static bool find_held_up(const topic_table *topics, const zcp_topic_entry *e, uint64_t held[ZCP_MAX_CLIENTS / 64]) {
    bool found = false;
    for (size_t i = 0; i < topics->count && e->reliable; i++) {
        const zcp_topic_entry *other = &topics->items[i];
        if (!other->publisher || other->waits_for != e->client || other->client >= ZCP_MAX_CLIENTS
            || strcmp(other->topic, e->topic) != 0)
            continue;
        held[other->client / 64] |= UINT64_C(1) << other->client % 64;
        found = true;
    }
    return found;
}

static void report_topic(report *r, const client_table *clients, const topic_table *topics, const zcp_topic_entry *e,
                         const zcp_topic_entry *was, uint64_t ns) {
    static const zcp_client_stats nobody;
    const zcp_client_stats *c = e->client < clients->count ? &clients->items[e->client] : &nobody;
    uint64_t held[ZCP_MAX_CLIENTS / 64] = {0};
    bool holds = find_held_up(topics, e, held), waits = e->waits_for != ZCP_NO_CLIENT;
    char how[64], remark[64] = "", *whom = value_text(&(value){.kind = VALUE_SLOTS, .words = held});
    describe_topic(e, how, sizeof how);
    if (waits)
        snprintf(remark, sizeof remark, "held up by client %u", e->waits_for);
    else if (holds)
        snprintf(remark, sizeof remark, "holds up client %s", whom);
    free(whom);
    TABLE_ROW(r, v_text(e->topic), v_text(e->publisher ? "publisher" : "subscriber"),
              e->client == ZCP_NO_CLIENT ? v_none() : v_number(e->client), v_number(c->pid), v_text(c->name),
              v_text(how), v_flag(e->reliable), v_flag(e->latest), v_flag(e->exclusive), v_flag(e->never_waits),
              v_flag(e->ended), v_number(e->messages),
              was != NULL ? rate_of(e->messages, was->messages, ns) : v_none(), v_number(e->unread),
              v_alarm(e->lost, YELLOW), e->publisher ? v_number(e->depth) : v_none(),
              e->publisher ? v_number(e->keep) : v_none(), e->publisher ? v_number(e->held) : v_none(),
              v_hex(e->source), waits ? v_number(e->waits_for) : v_none(), v_slots(held),
              v_colored(remark, waits || holds ? RED : PLAIN));
}

static void report_topics(report *r, const client_table *clients, const topic_table *topics,
                          const topic_table *before) {
    static const column columns[] = {
        {"topic", "TOPIC", ~0u},       {"role", "ROLE", ~0u},        {"client", "CLIENT", ~0u},
        {"pid", "PID", ~0u},           {"name", "NAME", ~0u},        {NULL, "HOW", ~0u},
        {"reliable", NULL, 0},         {"latest", NULL, 0},          {"exclusive", NULL, 0},
        {"never_waits", NULL, 0},      {"ended", NULL, 0},           {"messages", "MESSAGES", ~0u},
        {"per_second", "PER S", ~0u},  {"unread", "UNREAD", ~0u},    {"lost", "LOST", ~0u},
        {"depth", "DEPTH", ~0u},       {"keep", "KEEP", ~0u},        {"chunks_held", "CHUNKS", ~0u},
        {"source", NULL, 0},           {"waits_for", NULL, 0},       {"holds_up", NULL, 0},
        {NULL, "REMARK", ~0u},
    };
    TABLE_BEGIN(r, "topics", columns);
    for (size_t i = 0; i < topics->count; i++)
        report_topic(r, clients, topics, &topics->items[i], topic_before(before, &topics->items[i]),
                     topics->ns - before->ns);
    table_end(r);
}

static int run_topics(tool *t) {
    topic_table before, topics = no_topics;
    int status = look(t);
    if (status != 0)
        return status;
    catch_signals(t);
    zcp_status taken = take_topics(t->manager, &before);
    if (taken == ZCP_OK && before.count > 0)
        (void)wait_until(t, before.ns + (uint64_t)t->interval_ms * 1000000);
    if (taken == ZCP_OK)
        taken = take_snapshot(t->manager, &t->now);
    if (taken == ZCP_OK)
        taken = take_topics(t->manager, &topics);
    if (taken != ZCP_OK)
        return fail_status(t, taken);
    report_field(&t->report, "name", NULL, v_text(t->now.info.name));
    report_field(&t->report, "watched_seconds", NULL, v_real((double)(topics.ns - before.ns) / 1e9));
    report_topics(&t->report, &t->now.clients, &topics, &before);
    if (topics.count == 0)
        report_line(&t->report, DIM, "nobody publishes or subscribes to any topic");
    free(before.items);
    free(topics.items);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// hz

enum { HZ_LOOK_US = 100 };

// How many messages the publishers of one topic have published: of each as the look before has seen it.
typedef struct topic_counts {
    uint64_t serial[ZCP_MAX_PUBLISHERS], count[ZCP_MAX_PUBLISHERS];
    uint32_t publishers, subscribers;
} topic_counts;

// Returns how many messages came since the last look. first: there was none.
static uint64_t count_messages(const zcp_manager *manager, const zcp_priv_topic *topic, bool first, topic_counts *c) {
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    uint64_t more = 0;
    c->publishers = c->subscribers = 0;
    for (uint32_t p = 0; p < tables.publisher_count; p++) {
        const zcp_priv_topic_publisher *publisher = &tables.publishers[p];
        uint64_t state = zcp_priv_load_acquire(&publisher->state);
        if (zcp_priv_topic_is_free(state) || !zcp_priv_topic_equal(topic, publisher->topic))
            continue;
        uint64_t count = zcp_priv_load_relaxed(&publisher->count);
        if (c->serial[p] != state >> 32)
            c->count[p] = first ? count : 0;                       // it has begun since
        more += count > c->count[p] ? count - c->count[p] : 0;
        c->serial[p] = state >> 32;
        c->count[p] = count;
        c->publishers += zcp_priv_topic_phase(state) == ZCP_PRIV_TOPIC_OPEN;
    }
    for (uint32_t s = 0; s < tables.subscriber_count; s++)
        c->subscribers += !zcp_priv_topic_is_free(zcp_priv_load_acquire(&tables.subscribers[s].state))
                          && zcp_priv_topic_equal(topic, tables.subscribers[s].topic);
    return more;
}

// The times between messages, in ns, as far as looking tells them.
typedef struct intervals {
    uint64_t messages, together, looks;                            // together: messages that one look found at once
    double count, mean, squares, least, most;                      // squares: of deviations, the sum
    uint64_t began;
} intervals;

// `times` intervals of that length (D. H. D. West's update of mean and variance).
static void note_interval(intervals *i, double ns, double times) {
    double off = ns - i->mean;
    i->least = i->count == 0 || ns < i->least ? ns : i->least;
    i->most = ns > i->most ? ns : i->most;
    i->mean += off * times / (i->count + times);
    i->squares += off * off * i->count * times / (i->count + times);
    i->count += times;
}

// Looks until the deadline. *last: when the last message came; 0: not known. false: a signal has come.
static bool watch_topic(tool *t, const zcp_priv_topic *topic, topic_counts *counts, uint64_t deadline, uint64_t *last,
                        intervals *i) {
    bool going = true;
    *i = (intervals){.began = zcp_priv_now_ns()};
    do {
        going = wait_until(t, zcp_priv_now_ns() + HZ_LOOK_US * 1000);
        uint64_t more = count_messages(t->manager, topic, false, counts), now = zcp_priv_now_ns();
        i->looks++;
        i->messages += more;
        i->together += more > 1 ? more : 0;
        if (more > 0 && *last != 0)
            note_interval(i, (double)(now - *last) / (double)more, (double)more);
        if (more > 0)
            *last = now;
    } while (going && zcp_priv_now_ns() < deadline);
    return going;
}

// By Newton's steps, so that the tool needs no library for it.
static double square_root(double square) {
    double root = square > 1 ? square : 1;
    for (double next; (next = (root + square / root) / 2) < root;)
        root = next;
    return root;
}

static value v_ms(const intervals *i, double ns) {
    return i->count > 0 ? v_real(ns / 1e6) : v_none();
}

static bool report_hz(tool *t, const topic_counts *counts, const intervals *i) {
    report *r = &t->report;
    double seconds = (double)(zcp_priv_now_ns() - i->began) / 1e9, look_ms = seconds * 1000 / (double)i->looks;
    double deviation = i->count > 0 ? square_root(i->squares / i->count) : 0;
    char shown[160];
    report_begin(r);
    report_field(r, "time", NULL, v_time(wall_clock_ns()));
    report_field(r, "name", NULL, v_text(t->now.info.name));
    report_field(r, "topic", "Topic", v_text(t->argument));
    report_field(r, "publishers", "Publishers", v_number(counts->publishers));
    report_field(r, "subscribers", "Subscribers", v_number(counts->subscribers));
    report_field(r, "messages", "Messages", v_number(i->messages));
    report_field(r, "seconds", NULL, v_real(seconds));
    report_field(r, "per_second", "Per second", v_real((double)i->messages / seconds));
    report_field(r, "intervals", NULL, v_number((uint64_t)i->count));
    report_field(r, "interval_min_ms", NULL, v_ms(i, i->least));
    report_field(r, "interval_mean_ms", NULL, v_ms(i, i->mean));
    report_field(r, "interval_max_ms", NULL, v_ms(i, i->most));
    report_field(r, "interval_deviation_ms", NULL, v_ms(i, deviation));
    report_field(r, "together", NULL, v_number(i->together));
    report_field(r, "looks", NULL, v_number(i->looks));
    report_field(r, "look_ms", NULL, v_real(look_ms));
    if (i->count > 0)
        snprintf(shown, sizeof shown, "min %.3f ms, mean %.3f ms, max %.3f ms, deviation %.3f ms", i->least / 1e6,
                 i->mean / 1e6, i->most / 1e6, deviation / 1e6);
    else
        snprintf(shown, sizeof shown, "fewer than two messages");
    report_field(r, NULL, "Interval", v_text(shown));
    snprintf(shown, sizeof shown, "one each %.3f ms%s", look_ms,
             i->together > 0 ? "; messages that came between two of them count with their mean interval" : "");
    report_field(r, NULL, "Looks", v_text(shown));
    report_gap(r);
    return deliver(t);
}

static int run_hz(tool *t) {
    static topic_counts counts;
    zcp_priv_topic topic;
    intervals found;
    uint64_t last = 0;
    int status = look(t);
    if (status != 0)
        return status;
    zcp_status named = zcp_priv_topic_make(&topic, t->argument);
    if (named != ZCP_OK)
        return fail_status(t, named);
    (void)count_messages(t->manager, &topic, true, &counts);
    if (counts.publishers == 0)
        return fail(t, ZCP_ERR_NOT_FOUND, "see which topics there are with: zerocp topics",
                    "%s: nobody publishes to \"%s\"", t->now.info.name, t->argument);
    catch_signals(t);
    for (uint64_t shown = 0;;) {
        uint64_t deadline = zcp_priv_now_ns() + (uint64_t)t->interval_ms * 1000000;
        bool going = watch_topic(t, &topic, &counts, deadline, &last, &found);
        if (!report_hz(t, &counts, &found) || !going || ++shown == t->count)
            return 0;
        zcp_status same = zcp_manager_check(t->manager);
        if (same != ZCP_OK)
            return fail_status(t, same);
    }
}

#endif
