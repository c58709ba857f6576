// bench/payload.c: the hand-off of messages of 64 B to 8 MiB by zerocp, and by what else there is: a copy into shared
// memory and out of it, a pipe, a socket. In the state "whole" all of a message is written by the sender and read by
// the receiver; in "ends" only its first and its last word, so that what remains is the price of the transport.
#include "measure.h"
#include "ours.h"
#include "suites.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct channel {
    size_t bytes;
    bool whole;
    void *chunks;                                                  // zerocp's pool
    unsigned char *slots;                                          // in shared memory
    // private: where a message is made, and where it is read
    unsigned char *mine;
    // of a pipe or a socket: the receiver's, the sender's
    int ends[2];
} channel;

static void produce(const channel *c, void *data, uint64_t value) {
    if (c->whole) {
        fill(data, c->bytes, value);
    } else {
        uint64_t *words = hide(data);
        words[0] = words[c->bytes / 8 - 1] = value;
        hide(data);
    }
}

static void consume(const channel *c, void *data, uint64_t value) {
    const uint64_t *words = hide(data);
    bool good = c->whole ? is_filled(data, c->bytes, value) : words[0] == value && words[c->bytes / 8 - 1] == value;
    if (!good)
        __atomic_store_n(&host.shared->bad.word, 1, __ATOMIC_RELAXED);
}

// ---------------------------------------------------------------------------------------------------------------------
// zerocp: made in place, read in place.

static void chunks_send(void *memory, uint64_t count) {
    static zcp_chunk sent[RING];
    const channel *c = memory;
    shared_state *shared = host.shared;
    zcp_manager *manager = ours_manager(c->chunks);
    uint64_t first = get_relaxed(&shared->head), released = first, seen = first;
    for (uint64_t i = first; i <= first + count; i++) {
        if (i == first + count)
            seen = await_index(&shared->tail, i);
        else if (i - released >= host.window)
            seen = await_index(&shared->tail, i - host.window + 1);
        for (; released < seen; released++)
            zcp_chunk_release(&sent[released % RING]);
        if (i == first + count)
            break;
        zcp_chunk *chunk = &sent[i % RING];
        if (zcp_chunk_allocate(manager, c->bytes, chunk) != ZCP_OK)
            die("allocate: %s", zcp_last_message());
        produce(c, chunk->data, i);
        shared->ring[i % RING] = zcp_chunk_token(chunk);
        set_release(&shared->head, i + 1);
    }
}

static void chunks_receive(void *memory, uint64_t count) {
    const channel *c = memory;
    shared_state *shared = host.shared;
    uint64_t first = get_relaxed(&shared->tail), seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        zcp_chunk chunk;
        if (i >= seen)
            seen = await_index(&shared->head, i + 1);
        if (zcp_chunk_acquire(ours_manager(c->chunks), shared->ring[i % RING], &chunk) != ZCP_OK)
            die("acquire: %s", zcp_last_message());
        consume(c, chunk.data, i);
        zcp_chunk_release(&chunk);
        set_release(&shared->tail, i + 1);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A copy into a slot of a ring, and a copy out of it.

static void copy_send(void *memory, uint64_t count) {
    const channel *c = memory;
    shared_state *shared = host.shared;
    uint64_t first = get_relaxed(&shared->head), seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        produce(c, c->mine, i);
        if (i - seen >= host.window)
            seen = await_index(&shared->tail, i - host.window + 1);
        memcpy(hide(c->slots + i % host.window * c->bytes), c->mine, c->bytes);
        set_release(&shared->head, i + 1);
    }
    await_index(&shared->tail, first + count);
}

static void copy_receive(void *memory, uint64_t count) {
    const channel *c = memory;
    shared_state *shared = host.shared;
    uint64_t first = get_relaxed(&shared->tail), seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        if (i >= seen)
            seen = await_index(&shared->head, i + 1);
        memcpy(hide(c->mine), c->slots + i % host.window * c->bytes, c->bytes);
        set_release(&shared->tail, i + 1);
        consume(c, c->mine, i);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A pipe or a socket: the kernel copies, and waits.

static void stream_send(void *memory, uint64_t count) {
    const channel *c = memory;
    uint64_t first = get_relaxed(&host.shared->head);
    for (uint64_t i = first; i < first + count; i++) {
        produce(c, c->mine, i);
        for (size_t done = 0; done < c->bytes;) {
            ssize_t n = write(c->ends[1], c->mine + done, c->bytes - done);
            MUST(n > 0);
            done += (size_t)n;
        }
    }
    set_release(&host.shared->head, first + count);
    await_index(&host.shared->tail, first + count);
}

static void stream_receive(void *memory, uint64_t count) {
    const channel *c = memory;
    uint64_t first = get_relaxed(&host.shared->tail);
    for (uint64_t i = first; i < first + count; i++) {
        for (size_t done = 0; done < c->bytes;) {
            ssize_t n = read(c->ends[0], c->mine + done, c->bytes - done);
            MUST(n > 0);
            done += (size_t)n;
        }
        consume(c, c->mine, i);
    }
    set_release(&host.shared->tail, first + count);
}

// ---------------------------------------------------------------------------------------------------------------------

static channel *channels[128];
static int channel_count;

static channel *channel_new(size_t bytes, bool whole) {
    MUST(channel_count < (int)(sizeof channels / sizeof channels[0]));
    channel *c = calloc(1, sizeof *c);
    MUST(c != NULL && posix_memalign((void **)&c->mine, 4096, bytes) == 0);
    memset(c->mine, 0, bytes);
    c->bytes = bytes;
    c->whole = whole;
    c->ends[0] = c->ends[1] = -1;
    return channels[channel_count++] = c;
}

static void channel_free(channel *c, uint64_t window) {
    if (c->slots)
        shared_memory_free(c->slots, c->bytes * window);
    for (int i = 0; i < 2; i++)
        if (c->ends[i] >= 0)
            close(c->ends[i]);
    free(c->mine);
    free(c);
}

// Few enough messages on their way that 16 MiB hold them all, but two at least.
static uint64_t window_of(size_t bytes) {
    uint64_t fit = (UINT64_C(16) << 20) / bytes;
    return fit > 64 ? 64 : fit < 2 ? 2 : fit;
}

static void ends_widen(const channel *c, bool is_pipe) {           // as far as the kernel lets us
    int bytes = 1 << 20;
    if (is_pipe) {
        (void)fcntl(c->ends[1], F_SETPIPE_SZ, bytes);
    } else {
        setsockopt(c->ends[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
        setsockopt(c->ends[0], SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
}

static void add_size(size_t bytes, bool whole, void *chunks) {
    uint64_t window = window_of(bytes);
    point at = {.name = "payload", .state = whole ? "whole" : "ends", .kind = POINT_TWO, .bytes = bytes,
                .window = window,
                .block = bytes < 65536 ? 64 : 1, .slice = bytes < 65536 ? 2000000 : 20000000};
    channel *ours_channel = channel_new(bytes, whole), *copy = channel_new(bytes, whole),
            *tube = channel_new(bytes, whole), *socket = channel_new(bytes, whole);
    ours_channel->chunks = chunks;
    at.system = "zerocp", at.pool = ours_channel, at.loop = chunks_send, at.peer = chunks_receive;
    point_add(&at);
    copy->slots = shared_memory(bytes * window);
    at.system = "memcpy", at.pool = copy, at.loop = copy_send, at.peer = copy_receive;
    point_add(&at);
    MUST(pipe(tube->ends) == 0);
    ends_widen(tube, true);
    at.system = "pipe", at.pool = tube, at.loop = stream_send, at.peer = stream_receive;
    point_add(&at);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, socket->ends) == 0);
    ends_widen(socket, false);
    at.system = "socket", at.pool = socket;
    point_add(&at);
}

void suite_payload(const suite_options *options) {
    static const size_t sizes[] = {64, 256, 1024, 4096, 16384, 65536, 262144, 1 << 20, 8 << 20};
    if (cpus[1] < 0) {
        printf("skipped=payload what=\"one CPU\"\n");
        return;
    }
    rmw_add();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *chunks = pool_add(&ours, sizes[i] < 65536 ? 256 : (uint32_t)window_of(sizes[i]) + 2, (uint32_t)sizes[i]);
        if (options->quick && i % 3 != 1)
            continue;
        add_size(sizes[i], true, chunks);
        add_size(sizes[i], false, chunks);
    }
    pools_check("before");
    crew_start(1);
    rounds_run(options->rounds);
    crew_end();
    pools_check("after");
    suite_end();
    while (channel_count > 0) {
        channel_count--;
        channel_free(channels[channel_count], window_of(channels[channel_count]->bytes));
    }
}
