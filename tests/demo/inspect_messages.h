// inspect_messages.h: the commands that show and send bytes: echo and publish, which take part in a topic as clients,
// and dump, which only looks at a chunk.
//
// Payloads belong to other processes, which may write them at any moment: each is copied once, and the copy is shown.
#ifndef INSPECT_MESSAGES_H
#define INSPECT_MESSAGES_H

#include "inspect_chunks.h"
#include "inspect_pools.h"
#include "inspect_tool.h"
#include "inspect_topics.h"
#include "inspect_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

enum { SHOWN_BYTES = 256, DUMP_LINE = 16, DUMP_BLOCK = 64 << 10 };

// ---------------------------------------------------------------------------------------------------------------------
// Bytes as hex and text

typedef struct payload {
    unsigned char *at;                                             // behind the last one is room for a 0
    size_t count, room;
} payload;

static void payload_grow(payload *b, size_t room) {
    if (room < b->room)
        return;
    b->room = room < DUMP_BLOCK ? DUMP_BLOCK : 2 * room;
    unsigned char *more = realloc(b->at, b->room);
    if (more == NULL)
        report_out_of_memory();
    b->at = more;
}

static void payload_copy(payload *b, const void *from, size_t count) {
    payload_grow(b, count + 1);
    if (count > 0)
        memcpy(b->at, from, count);
    b->count = count;
    b->at[count] = 0;
}

static void write_hex_line(FILE *out, const payload *b, size_t from) {
    fprintf(out, "%08zx ", from);
    for (size_t i = from; i < from + DUMP_LINE; i++)
        if (i < b->count)
            fprintf(out, "%s%02x", i == from + DUMP_LINE / 2 ? "  " : " ", b->at[i]);
        else
            fputs(i == from + DUMP_LINE / 2 ? "    " : "   ", out);
    fputs("  |", out);
    for (size_t i = from; i < from + DUMP_LINE && i < b->count; i++)
        fputc(b->at[i] >= 0x20 && b->at[i] < 0x7f ? b->at[i] : '.', out);
    fputs("|\n", out);
}

// What is shown of a payload of that size.
static void report_payload(report *r, const payload *b, uint64_t size) {
    if (r->format == REPORT_JSON) {
        report_field(r, "shown", NULL, v_number(b->count));
        json_key(r, "hex");
        fputc('"', r->out);
        for (size_t i = 0; i < b->count; i++)
            fprintf(r->out, "%02x", b->at[i]);
        fputc('"', r->out);
        json_key(r, "text");
        write_json_bytes(r->out, b->at, b->count);
        return;
    }
    for (size_t from = 0; from < b->count; from += DUMP_LINE)
        write_hex_line(r->out, b, from);
    if (b->count < size)
        report_line(r, DIM, "%" PRIu64 " more bytes: --bytes=N shows more, --raw all", size - b->count);
}

static uint64_t shown_of(const tool *t, uint64_t size) {
    uint64_t most = given(t, OPTION_BYTES) ? t->bytes : SHOWN_BYTES;
    return given(t, OPTION_RAW) || size < most ? size : most;
}

// As they are, at once. false: nobody reads any more, or it cannot be written.
static bool write_raw(tool *t, const unsigned char *at, size_t count) {
    if (t->write_error == 0 && (fwrite(at, 1, count, stdout) < count || fflush(stdout) != 0))
        t->write_error = errno;
    return t->write_error == 0;
}

// Has a signal come? It is let through here.
static bool is_stopped(const tool *t) {
    ppoll(NULL, 0, &(struct timespec){0, 0}, &t->unblocked);
    return stop != 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// echo

static bool show_message(tool *t, const zcp_message *m, const payload *b) {
    report *r = &t->report;
    char text[16];
    if (given(t, OPTION_RAW)) {
        if (m->lost > 0)
            complain(NULL, "%" PRIu64 " message%s lost before message %" PRIu64, m->lost,
                     m->lost == 1 ? " was" : "s were", m->number);
        return write_raw(t, b->at, b->count);
    }
    report_begin(r);
    report_field(r, "number", NULL, v_number(m->number));
    report_field(r, "client", NULL, v_number(m->publisher));
    report_field(r, "source", NULL, v_hex(m->source));
    report_field(r, "size", NULL, v_number(m->size));
    report_field(r, "tag", NULL, v_number(m->tag));
    report_field(r, "lost", NULL, v_number(m->lost));
    report_field(r, "event", NULL, v_flag(m->data == NULL));
    if (m->data != NULL)
        report_line(r, BOLD, "message %" PRIu64 " of client %u: %" PRIu64 " bytes", m->number, m->publisher, m->size);
    else
        report_line(r, BOLD, "message %" PRIu64 " of client %u: an event, without bytes", m->number, m->publisher);
    if (m->tag != 0)
        report_line(r, PLAIN, "tag %s", tag_text(m->tag, text));
    if (m->lost > 0)
        report_line(r, YELLOW, "%" PRIu64 " message%s lost before it", m->lost, m->lost == 1 ? " was" : "s were");
    report_payload(r, b, m->size);
    return deliver(t);
}

static bool is_published(const zcp_manager *client, const char *topic) {
    topic_table topics;
    bool found = false;
    if (take_topics(client, &topics) != ZCP_OK)
        return true;
    for (size_t i = 0; i < topics.count; i++)
        found |= topics.items[i].publisher && strcmp(topics.items[i].topic, topic) == 0;
    free(topics.items);
    return found;
}

// Shows what comes, until --count of them were shown, a signal comes, nobody reads any more, or the instance is gone.
static int echo(tool *t, zcp_manager *client, zcp_subscriber *subscriber) {
    struct pollfd watched = {.fd = zcp_subscriber_descriptor(subscriber), .events = POLLIN};
    payload copy = {0};
    if (watched.fd < 0)
        return fail_status(t, ZCP_ERR_SYSTEM);
    for (uint64_t shown = 0; shown < t->count || !given(t, OPTION_COUNT);) {
        zcp_message m;
        zcp_status status = zcp_subscriber_receive(subscriber, 0, &m);
        if (status == ZCP_OK) {
            payload_copy(&copy, m.data, (size_t)shown_of(t, m.size));
            zcp_subscriber_done(subscriber);                       // whoever reads our output may be slow
            if (!show_message(t, &m, &copy) || is_stopped(t))
                break;
            shown++;
            continue;
        }
        if (status != ZCP_ERR_EMPTY && zcp_manager_check(client) == ZCP_OK) {
            complain(NULL, "a message is lost: %s", zcp_last_message());
            continue;
        }
        if (zcp_manager_check(client) == ZCP_ERR_REPLACED)
            return fail_status(t, ZCP_ERR_REPLACED);
        if (ppoll(&watched, 1, &(struct timespec){.tv_sec = 1}, &t->unblocked), stop)
            break;
    }
    free(copy.at);
    return 0;
}

static int run_echo(tool *t) {
    zcp_manager *client;
    zcp_subscriber *subscriber;
    int status = attach(t, "zerocp echo", ZCP_READ_ONLY_DATA, &client);
    if (status != 0)
        return status;
    report_drop(&t->report);
    catch_signals(t);
    zcp_status opened = zcp_subscriber_open(
        client, &(zcp_subscriber_desc){.topic = t->argument, .history = (uint32_t)t->history}, &subscriber);
    if (opened == ZCP_OK) {
        complain(is_published(client, t->argument) ? NULL : "nobody publishes to it yet; zerocp topics shows who does",
                 "subscribes to \"%s\" as a client that only reads; it is not waited for: what comes faster than it "
                 "reads is lost", t->argument);
        status = echo(t, client, subscriber);
    } else {
        status = fail_status(t, opened);
    }
    zcp_manager_close(client);
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// publish

enum { LOAN_PAUSE_MS = 5, PUBLISH_LOOK_MS = 100 };

typedef struct input {
    unsigned char buffer[DUMP_BLOCK];
    size_t at, end;
    bool ended;
    int error;                                                     // errno, if it cannot be read
} input;

typedef enum taking { TAKEN, TAKEN_NOTHING, TAKEN_TOO_LONG, TAKING_STOPPED } taking;

// Of the publisher, for the end of it.
typedef struct sent { uint64_t messages, events, bytes, overtaken; uint32_t subscribers; } sent;

// Waits for more of standard input, and takes it. false: a signal has come.
static bool input_fill(tool *t, input *in) {
    struct pollfd watched = {.fd = STDIN_FILENO, .events = POLLIN};
    while (ppoll(&watched, 1, NULL, &t->unblocked) < 0 && errno == EINTR)
        if (stop)
            return false;
    ssize_t count = read(STDIN_FILENO, in->buffer, sizeof in->buffer);
    in->error = count < 0 ? errno : 0;
    in->ended = count <= 0;
    in->at = 0;
    in->end = count > 0 ? (size_t)count : 0;
    return !stop;
}

// The next message: a line without its end, or --bytes of them; the last one may be shorter.
static taking input_take(tool *t, input *in, uint64_t most, payload *message) {
    bool lines = !given(t, OPTION_BYTES), begun = false;
    message->count = 0;
    while (lines || message->count < t->bytes) {
        if (in->at == in->end && !in->ended && !input_fill(t, in))
            return TAKING_STOPPED;
        if (in->ended)
            break;
        unsigned char byte = in->buffer[in->at++];
        begun = true;
        if (lines && byte == '\n')
            return TAKEN;
        if (message->count == most)
            return TAKEN_TOO_LONG;
        payload_grow(message, message->count + 1);
        message->at[message->count++] = byte;
    }
    return begun ? TAKEN : TAKEN_NOTHING;
}

static uint64_t largest_chunk(const zcp_manager *client) {
    uint64_t largest = 0;
    for (uint32_t p = 0; p < zcp_manager_pool_end(client); p++) {
        zcp_pool_stats pool;
        if (zcp_manager_pool_stats(client, p, &pool) == ZCP_OK && pool.state == ZCP_POOL_LIVE
            && pool.chunk_size > largest)
            largest = pool.chunk_size;
    }
    return largest;
}

static int fail_too_long(tool *t, uint64_t number, uint64_t most) {
    return fail(t, ZCP_ERR_TOO_LARGE,
                "cut the input with --bytes, or add a pool of larger chunks with: zerocp grow",
                "message %" PRIu64 " has more than %" PRIu64 " bytes, which is what the largest chunks have", number,
                most);
}

// All chunks that fit are in use: who holds them?
static void complain_of_exhaustion(tool *t, zcp_manager *client) {
    char why[400], who[200] = "";
    snprintf(why, sizeof why, "%s", zcp_last_message());
    const holdings *held = take_snapshot(client, &t->now) == ZCP_OK ? look_at_holders(client, &t->now, is_exhausted)
                                                                     : NULL;
    for (uint32_t p = 0; held != NULL && p < t->now.pool_count && who[0] == 0; p++) {
        uint32_t worst = worst_holder(held, p);
        if (is_exhausted(&t->now.pools[p]) && worst < t->now.clients.count)
            snprintf(who, sizeof who, "; client %u (\"%s\", pid %u) holds most of pool %u, %u of %" PRIu64, worst,
                     t->now.clients.items[worst].name, t->now.clients.items[worst].pid, p, held->chunks[p][worst],
                     t->now.pools[p].total);
    }
    complain("it goes on when one is free; zerocp grow adds a pool, a smaller --depth takes fewer",
             "waits for a chunk: %s%s", why, who);
}

// A chunk with the message in it. false with *status 0: a signal has come.
static bool loan(tool *t, zcp_manager *client, zcp_publisher *publisher, const payload *message, zcp_chunk *chunk,
                 int *status) {
    static bool told;
    zcp_status loaned;
    while ((loaned = zcp_publisher_loan(publisher, message->count, chunk)) == ZCP_ERR_EXHAUSTED) {
        if (!told)
            complain_of_exhaustion(t, client);
        told = true;
        if (!wait_until(t, zcp_priv_now_ns() + LOAN_PAUSE_MS * 1000000))
            return false;
    }
    if (loaned == ZCP_OK)
        memcpy(chunk->data, message->at, message->count);
    else
        *status = fail_status(t, loaned);
    return loaned == ZCP_OK;
}

// Publishes one message, and waits for reliable subscribers as long as it takes; says so once. The same result.
static bool send_message(tool *t, zcp_manager *client, zcp_publisher *publisher, const payload *message, sent *s,
                         int *status) {
    static bool told;
    zcp_chunk chunk = {0};
    zcp_delivery delivery;
    zcp_status published;
    if (message->count > 0 && !loan(t, client, publisher, message, &chunk, status))
        return false;
    while ((published = message->count > 0 ? zcp_publisher_publish(publisher, &chunk, &delivery)
                                           : zcp_publisher_notify(publisher, &delivery)) == ZCP_ERR_TIMEOUT) {
        if (!told)
            complain("it goes on when that one reads; zerocp topics shows who holds up whom", "waits: %s",
                     zcp_last_message());
        told = true;
        if (is_stopped(t))
            break;
    }
    if (published != ZCP_OK && published != ZCP_ERR_TIMEOUT)
        *status = fail_status(t, published);
    zcp_chunk_release(&chunk);                                     // after a failure it is still ours
    if (published != ZCP_OK)
        return false;
    s->messages++;
    s->events += message->count == 0;
    s->bytes += message->count;
    s->overtaken += delivery.overtaken;
    s->subscribers = delivery.subscribers;
    return true;
}

// Publishes until the input ends. 0, or the exit status.
static int publish(tool *t, zcp_manager *client, zcp_publisher *publisher, sent *s) {
    static input in;
    payload message = {0};
    uint64_t most = largest_chunk(client);
    int status = 0;
    if (given(t, OPTION_BYTES) && t->bytes > most)
        return fail_too_long(t, 1, most);
    for (bool going = true; going && status == 0;) {
        taking taken = input_take(t, &in, most, &message);
        if (in.error != 0)
            return fail(t, ZCP_OK, NULL, "stdin: %s", strerror(in.error));
        if (zcp_manager_check(client) == ZCP_ERR_REPLACED)
            return fail_status(t, ZCP_ERR_REPLACED);
        if (taken == TAKEN_TOO_LONG)
            return fail_too_long(t, s->messages + 1, most);
        going = taken == TAKEN && send_message(t, client, publisher, &message, s, &status);
    }
    free(message.at);
    return status;
}

static void report_sent(tool *t, zcp_manager *client, const sent *s) {
    report *r = &t->report;
    topic_table topics;
    uint64_t unread = 0;
    zcp_manager_info info = {.slot = ZCP_NO_CLIENT};
    (void)zcp_manager_get_info(client, &info);
    (void)take_topics(client, &topics);
    for (size_t i = 0; i < topics.count; i++)
        if (topics.items[i].publisher && topics.items[i].client == info.slot)
            unread += topics.items[i].unread;
    free(topics.items);
    report_field(r, "name", NULL, v_text(t->name));
    report_field(r, "topic", NULL, v_text(t->argument));
    report_field(r, "messages", "Messages", v_number(s->messages));
    report_field(r, "events", NULL, v_number(s->events));
    report_field(r, "bytes", "Bytes", v_number(s->bytes));
    report_field(r, "subscribers", "Subscribers", v_number(s->subscribers));
    report_field(r, "overtaken", s->overtaken ? "Overtaken" : NULL, v_alarm(s->overtaken, YELLOW));
    report_field(r, "unread", unread ? "Unread" : NULL, v_number(unread));
}

static int run_publish(tool *t) {
    zcp_manager *client;
    zcp_publisher *publisher;
    sent s = {0};
    int status = attach(t, "zerocp publish", 0, &client);
    if (status != 0)
        return status;
    catch_signals(t);
    zcp_status opened = zcp_publisher_open(
        client, &(zcp_publisher_desc){.topic = t->argument, .depth = (uint32_t)t->depth, .timeout_ms = PUBLISH_LOOK_MS},
        &publisher);
    status = opened == ZCP_OK ? publish(t, client, publisher, &s) : fail_status(t, opened);
    if (status == 0)
        report_sent(t, client, &s);
    zcp_manager_close(client);                                     // what is unread stays for its subscribers
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// dump

// A chunk as its token names it, and where its payload lies.
typedef struct dumped {
    const zcp_priv_pool *pool;
    uint32_t number, index, generation;
    uint64_t size, offset;                                         // bytes asked for; in the chunk segment
    uint32_t tag, owner;
} dumped;

static bool is_still_held(const dumped *d) {
    uint64_t state = zcp_priv_load_acquire(&zcp_priv_record_at(d->pool, d->index)->state);
    return zcp_priv_is_held(state) && ZCP_PRIV_GENERATION(state) == d->generation;
}

// Where the pool's chunks lie in the chunk segment. false: what the header says of it is garbage.
static bool find_data(const zcp_manager *manager, const zcp_priv_pool *pool, uint32_t number, uint64_t *offset) {
    zcp_priv_added added;
    if (pool == &manager->view.own[number % ZCP_MAX_POOLS]) {
        *offset = manager->geometry.pools[number].data_offset;
        return true;
    }
    if (!zcp_priv_added_read(&manager->header->pools[number], pool->serial, &added))
        return false;
    *offset = added.data_offset;
    return true;
}

// What the token names. 0, or the exit status.
static int find_chunk(tool *t, dumped *d) {
    uint64_t token = t->argument_number, base = 0;
    *d = (dumped){.number = (uint32_t)token >> ZCP_PRIV_POOL_SHIFT,
                  .index = (uint32_t)token & (ZCP_MAX_CHUNKS - 1),
                  .generation = (uint32_t)(token >> 32)};
    d->pool = pool_inside(t->manager, d->number);
    if (d->pool == NULL || d->index >= d->pool->count)
        return fail(t, ZCP_ERR_INVALID_TOKEN, "see which tokens there are with: zerocp census",
                    "%s names no chunk of %s", t->argument, t->name);
    zcp_priv_record *record = zcp_priv_record_at(d->pool, d->index);
    if (d->generation == 0)
        d->generation = ZCP_PRIV_GENERATION(zcp_priv_load_acquire(&record->state));
    uint64_t size = ZCP_PRIV_SIZE(zcp_priv_load_relaxed(&record->size));
    uint32_t owner = ZCP_PRIV_OWNER(zcp_priv_load_relaxed(&record->state));
    d->size = size < d->pool->chunk_size ? size : d->pool->chunk_size;
    d->tag = (uint32_t)(zcp_priv_load_relaxed(&record->note) >> 32);
    d->owner = owner != 0 && owner <= t->now.clients.count ? owner - 1 : ZCP_NO_CLIENT;
    if (!is_still_held(d))
        return fail(t, ZCP_ERR_STALE, "see which chunks somebody holds with: zerocp census",
                    "nobody holds the chunk of %s, or not any more", t->argument);
    if (!find_data(t->manager, d->pool, d->number, &base))
        return fail(t, ZCP_ERR_CORRUPT, "see what is wrong with: zerocp check", "what the header says of pool %u does "
                    "not add up", d->number);
    d->offset = base + d->index * d->pool->stride;
    return 0;
}

// The chunk segment that belongs to the instance, to be read. -1: it has been told why not.
static int open_chunks(tool *t) {
    struct stat found;
    zcp_manager_info info;
    if (zcp_manager_get_info(t->manager, &info) != ZCP_OK)
        return fail_status(t, ZCP_ERR_CLOSED), -1;
    int fd = shm_open(info.chunk_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return fail(t, errno == EACCES ? ZCP_ERR_PERMISSION : ZCP_ERR_SYSTEM, "it takes permission to read payloads",
                    "%s: %s", info.chunk_name, strerror(errno)), -1;
    if (fstat(fd, &found) == 0 && (uint64_t)found.st_dev == t->manager->header->chunk_device
        && (uint64_t)found.st_ino == t->manager->header->chunk_inode)
        return fd;
    close(fd);
    return fail(t, ZCP_ERR_REPLACED, "look again", "%s: the instance was destroyed or replaced", t->name), -1;
}

// Reads that many bytes from there on. 0, or the exit status.
static int read_payload(tool *t, int fd, uint64_t offset, size_t count, payload *b) {
    payload_grow(b, count + 1);
    for (b->count = 0; b->count < count;) {
        ssize_t got = pread(fd, b->at + b->count, count - b->count, (off_t)(offset + b->count));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fail(t, ZCP_ERR_CORRUPT, "see what is wrong with: zerocp check", "the chunk segment ends before "
                        "the chunk does: %s", got < 0 ? strerror(errno) : "somebody has truncated it");
        b->count += (size_t)got;
    }
    b->at[count] = 0;
    return 0;
}

static int dump_raw(tool *t, int fd, const dumped *d, payload *block) {
    int status = 0;
    report_drop(&t->report);
    for (uint64_t done = 0; done < d->size && status == 0; done += block->count) {
        uint64_t left = d->size - done;
        status = read_payload(t, fd, d->offset + done, left < DUMP_BLOCK ? (size_t)left : DUMP_BLOCK, block);
        if (status == 0 && !write_raw(t, block->at, block->count))
            break;
    }
    return status;
}

static int dump_shown(tool *t, int fd, const dumped *d, payload *shown) {
    report *r = &t->report;
    int status = read_payload(t, fd, d->offset, (size_t)shown_of(t, d->size), shown);
    if (status != 0)
        return status;
    report_field(r, "name", NULL, v_text(t->now.info.name));
    report_field(r, "pool", "Pool", v_number(d->number));
    report_field(r, "index", "Index", v_number(d->index));
    report_field(r, "generation", NULL, v_number(d->generation));
    report_field(r, "owner", "Owner", slot_or_none(d->owner));
    report_field(r, "size", "Size", v_number(d->size));
    report_field(r, "capacity", "Of", v_number(d->pool->chunk_size));
    report_field(r, "tag", d->tag ? "Tag" : NULL, v_number(d->tag));
    report_field(r, "changed", NULL, v_flag(!is_still_held(d)));
    report_payload(r, shown, d->size);
    return deliver(t) ? 0 : EXIT_FOUND;
}

static int run_dump(tool *t) {
    payload copy = {0};
    dumped d;
    int status = look(t);
    if (status == 0)
        status = find_chunk(t, &d);
    int fd = status == 0 ? open_chunks(t) : -1;
    if (fd < 0)
        return EXIT_FOUND;
    status = (given(t, OPTION_RAW) ? dump_raw : dump_shown)(t, fd, &d, &copy);
    if (status == 0 && !is_still_held(&d)) {
        complain("what was printed may be of several uses of the chunk",
                 "the chunk was released while it was read, and maybe given out again");
        status = EXIT_FOUND;
    }
    free(copy.at);
    close(fd);
    return status;
}

#endif
