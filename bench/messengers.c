// bench/messengers.c: see messengers.h.
#include "messengers.h"

#include "kit.h"
#include "ours.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WAIT_MS = 20 };

static bench_host *host;

// ---------------------------------------------------------------------------------------------------------------------
// zerocp: a topic of an instance of its own. Its subscribers are reliable, and the publisher, which has a CPU of its
// own, does not wait in publish: it tries again.

typedef struct topic_channel {
    channel_spec spec;
    const char *name;
    zcp_manager *manager;                                          // this process's client
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
    zcp_chunk chunk;                                               // loaned
} topic_channel;

static void *topic_new(const channel_spec *spec, uint32_t chunks, uint32_t cache) {
    char word[24];
    zcp_config config = {.ring_cells = (uint32_t)spec->window};
    zcp_pool_config pool = {.chunk_size = spec->bytes, .chunk_count = chunks, .cache_chunks = cache};
    topic_channel *channel = calloc(1, sizeof *channel);
    MUST(channel != NULL);
    MUST_OK(zcp_config_add(&config, &pool));
    snprintf(word, sizeof word, "topic%u", spec->number);
    channel->spec = *spec;
    channel->name = name_new(word);
    zcp_manager_close(open_instance(channel->name, ZCP_SHM_CREATE_EXCLUSIVE, &config, 0));
    return channel;
}

// As many as the ring, the publisher and its subscribers may hold; of small ones some more.
static void *topic_create(const channel_spec *spec) {
    uint32_t least = (uint32_t)spec->window + (uint32_t)spec->subscribers + 2;
    return topic_new(spec, spec->bytes < 65536 ? 256 : least, 0);
}

static void *topic_create_cached(const channel_spec *spec) {
    return spec->bytes < 65536 ? topic_new(spec, 1024, 64) : NULL;
}

static void topic_join(void *memory, int role) {
    topic_channel *channel = memory;
    channel->manager = open_instance(channel->name, ZCP_SHM_OPEN_EXISTING, NULL, 0);
    if (role == 0)
        MUST_OK(zcp_publisher_open(
            channel->manager, &(zcp_publisher_desc){.topic = "bench", .depth = (uint32_t)channel->spec.window},
            &channel->publisher));
    else
        MUST_OK(zcp_subscriber_open(channel->manager, &(zcp_subscriber_desc){.topic = "bench", .reliable = true},
                                    &channel->subscriber));
}

// The publisher leaves last, when all have read: then no chunk may be held.
static void topic_leave(void *memory, int role) {
    topic_channel *channel = memory;
    zcp_pool_stats stats;
    if (role == 0) {
        zcp_chunk_release(&channel->chunk);
        zcp_publisher_close(channel->publisher);
        MUST_OK(zcp_manager_pool_stats(channel->manager, 0, &stats));
        if (stats.used != 0)
            die("zerocp, %s: %llu chunks of a topic did not come back", channel->name, (unsigned long long)stats.used);
    }
    zcp_manager_close(channel->manager);
}

static void topic_destroy(void *memory) {
    topic_channel *channel = memory;
    MUST_OK(zcp_manager_destroy(channel->name));
    free(channel);
}

static inline size_t topic_bytes(const topic_channel *channel) { return channel->spec.bytes; }

static inline void *topic_loan(topic_channel *channel) {
    if (!channel->chunk.data && zcp_publisher_loan(channel->publisher, channel->spec.bytes, &channel->chunk) != ZCP_OK)
        die("loan: %s", zcp_last_message());
    return channel->chunk.data;
}

static inline bool topic_send(topic_channel *channel) {
    zcp_status status = zcp_publisher_publish(channel->publisher, &channel->chunk, NULL);
    if (status != ZCP_OK && status != ZCP_ERR_TIMEOUT)
        die("publish: %s", zcp_last_message());
    return status == ZCP_OK;
}

static inline const void *topic_receive(topic_channel *channel, uint32_t timeout_ms) {
    zcp_message message;
    zcp_status status = zcp_subscriber_receive(channel->subscriber, timeout_ms, &message);
    if (status != ZCP_OK && status != ZCP_ERR_EMPTY && status != ZCP_ERR_TIMEOUT)
        die("receive: %s", zcp_last_message());
    return message.data;
}

static inline const void *topic_poll(topic_channel *channel) { return topic_receive(channel, 0); }
static inline const void *topic_wait(topic_channel *channel) { return topic_receive(channel, WAIT_MS); }
static inline void topic_done(topic_channel *channel) { zcp_subscriber_done(channel->subscriber); }

#define LOOP(x) topic_##x
#define channel_type topic_channel
#define topic_host host
#define topic_name "zerocp"
#include "topic_loops.h"
static const messenger topic_messenger = {
    "zerocp", "a topic, reliable subscribers", topic_create, topic_join, topic_leave, topic_destroy, LOOP_TABLE};
static const messenger cached_messenger = {
    "zerocp-cached", "the same, cache_chunks = 64", topic_create_cached, topic_join, topic_leave, topic_destroy,
    LOOP_TABLE};
#undef LOOP
#undef channel_type

// ---------------------------------------------------------------------------------------------------------------------
// What users write without topics: a ring of words in shared memory, and an index of each subscriber, which is its
// acknowledgement. Who sleeps does so on the head, and is woken after each message.

typedef struct ring_shared {
    line head, tails[MOST_SUBSCRIBERS];
    uint64_t words[RING] __attribute__((aligned(128)));
    unsigned char slots[] __attribute__((aligned(4096)));
} ring_shared;

typedef struct ring_channel {
    channel_spec spec;
    ring_shared *shared;
    size_t shared_bytes;
    int role;
    uint64_t next, released, seen;                                 // this process's
    void *chunks;                                                  // zerocp's pool, of the kind with tokens
    zcp_chunk sent[RING], taken;
} ring_channel;

static ring_channel *ring_new(const channel_spec *spec, bool slots) {
    ring_channel *channel = calloc(1, sizeof *channel);
    MUST(channel != NULL && spec->window <= RING);
    channel->spec = *spec;
    channel->shared_bytes = sizeof *channel->shared + (slots ? spec->bytes * (size_t)spec->window : 0);
    channel->shared = shared_memory(channel->shared_bytes);
    return channel;
}

static void ring_join(void *memory, int role) {
    ring_channel *channel = memory;
    channel->role = role;
}

static void ring_destroy(void *memory) {
    ring_channel *channel = memory;
    shared_memory_free(channel->shared, channel->shared_bytes);
    free(channel);
}

static uint64_t ring_read_by_all(const ring_channel *channel) {
    uint64_t least = UINT64_MAX;
    for (int k = 0; k < channel->spec.subscribers; k++) {
        uint64_t tail = get_acquire(&channel->shared->tails[k]);
        least = tail < least ? tail : least;
    }
    return least;
}

// Is there room for one message more? The indices of the subscribers are looked at only if there is none.
static inline bool ring_room(ring_channel *channel) {
    if (channel->next - channel->seen < channel->spec.window)
        return true;
    channel->seen = ring_read_by_all(channel);
    return channel->next - channel->seen < channel->spec.window;
}

static inline bool ring_send_word(ring_channel *channel, uint64_t word) {
    ring_shared *shared = channel->shared;
    shared->words[channel->next % RING] = word;
    set_release(&shared->head, ++channel->next);
    if (channel->spec.sleeps)
        syscall(SYS_futex, &shared->head.word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    return true;
}

// true: the word of the next message is there.
static inline bool ring_poll_word(ring_channel *channel, uint64_t *word) {
    if (channel->next == channel->seen && (channel->seen = get_acquire(&channel->shared->head)) == channel->next)
        return false;
    *word = channel->shared->words[channel->next % RING];
    return true;
}

static inline bool ring_wait_word(ring_channel *channel, uint64_t *word) {
    struct timespec limit = {0, WAIT_MS * 1000000};
    if (ring_poll_word(channel, word))
        return true;
    // the low half of the head, on machines of little-endian byte order
    syscall(SYS_futex, &channel->shared->head.word, FUTEX_WAIT, (uint32_t)channel->next, &limit, NULL, 0);
    return ring_poll_word(channel, word);
}

static inline void ring_done_word(ring_channel *channel) {
    set_release(&channel->shared->tails[channel->role - 1], ++channel->next);
}

// ---------------------------------------------------------------------------------------------------------------------
// Static slots: the limit. Nothing is allocated or counted.

static void *slots_create(const channel_spec *spec) {
    return spec->sleeps ? NULL : ring_new(spec, true);
}

static inline unsigned char *slots_at(ring_channel *channel, uint64_t number) {
    return channel->shared->slots + number % channel->spec.window * channel->spec.bytes;
}

static inline size_t slots_bytes(const ring_channel *channel) { return channel->spec.bytes; }
static inline void *slots_loan(ring_channel *channel) {
    return ring_room(channel) ? slots_at(channel, channel->next) : NULL;
}

static inline bool slots_send(ring_channel *channel) { return ring_send_word(channel, channel->next); }
static inline const void *slots_poll(ring_channel *channel) {
    uint64_t word;
    return ring_poll_word(channel, &word) ? slots_at(channel, word) : NULL;
}

static inline const void *slots_wait(ring_channel *channel) {
    uint64_t word;
    return ring_wait_word(channel, &word) ? slots_at(channel, word) : NULL;
}

static inline void slots_done(ring_channel *channel) { ring_done_word(channel); }

#define LOOP(x) slots_##x
#define channel_type ring_channel
#define slots_host host
#define slots_name "slots"
#include "topic_loops.h"
static const messenger slots_messenger = {
    "slots", "the limit: a ring of static slots, nothing allocated or counted", slots_create, ring_join, NULL,
    ring_destroy, LOOP_TABLE};

// The limit of waking: the same, and a futex.
static void *futex_create(const channel_spec *spec) {
    return spec->sleeps ? ring_new(spec, true) : NULL;
}

static const messenger futex_messenger = {
    "futex", "the limit of waking: a static slot and a bare futex", futex_create, ring_join, NULL, ring_destroy,
    LOOP_TABLE};
#undef LOOP

// ---------------------------------------------------------------------------------------------------------------------
// Tokens of zerocp's chunks through that ring, as a user would write it without topics.

static void *tokens_create(const channel_spec *spec) {
    uint32_t least = (uint32_t)spec->window + 2;
    ring_channel *channel = ring_new(spec, false);
    channel->chunks = ours.create(spec->bytes < 65536 ? 256 : least, (uint32_t)spec->bytes);
    return channel;
}

static void tokens_join(void *memory, int role) {
    ring_channel *channel = memory;
    ring_join(channel, role);
    ours.join(channel->chunks, host->worker);
}

static void tokens_leave(void *memory, int role) {
    ring_channel *channel = memory;
    for (; role == 0 && channel->released < channel->next; channel->released++)
        zcp_chunk_release(&channel->sent[channel->released % RING]);
    ours.leave(channel->chunks, host->worker);
}

static void tokens_destroy(void *memory) {
    ring_channel *channel = memory;
    ours.check(channel->chunks);
    ours.destroy(channel->chunks);
    ring_destroy(channel);
}

static inline size_t tokens_bytes(const ring_channel *channel) { return channel->spec.bytes; }
static inline void *tokens_loan(ring_channel *channel) {
    zcp_chunk *chunk = &channel->sent[channel->next % RING];
    if (!ring_room(channel))
        return NULL;
    for (; channel->released < channel->seen; channel->released++)
        zcp_chunk_release(&channel->sent[channel->released % RING]);
    if (!chunk->data && zcp_chunk_allocate(ours_manager(channel->chunks), channel->spec.bytes, chunk) != ZCP_OK)
        die("allocate: %s", zcp_last_message());
    return chunk->data;
}

static inline bool tokens_send(ring_channel *channel) {
    return ring_send_word(channel, zcp_chunk_token(&channel->sent[channel->next % RING]));
}

static inline const void *tokens_take(ring_channel *channel, uint64_t token) {
    if (zcp_chunk_acquire(ours_manager(channel->chunks), token, &channel->taken) != ZCP_OK)
        die("acquire: %s", zcp_last_message());
    return channel->taken.data;
}

static inline const void *tokens_poll(ring_channel *channel) {
    uint64_t token;
    return ring_poll_word(channel, &token) ? tokens_take(channel, token) : NULL;
}

static inline const void *tokens_wait(ring_channel *channel) {
    uint64_t token;
    return ring_wait_word(channel, &token) ? tokens_take(channel, token) : NULL;
}

static inline void tokens_done(ring_channel *channel) {
    zcp_chunk_release(&channel->taken);
    ring_done_word(channel);
}

#define LOOP(x) tokens_##x
#define tokens_host host
#define tokens_name "tokens"
#include "topic_loops.h"
static const messenger tokens_messenger = {
    "tokens", "tokens of chunks through a ring of one's own, acknowledged", tokens_create, tokens_join,
    tokens_leave, tokens_destroy, LOOP_TABLE};
#undef LOOP
#undef channel_type

// ---------------------------------------------------------------------------------------------------------------------
// A pipe or a socket to each subscriber: the kernel copies, and waits.

typedef struct kernel_channel {
    channel_spec spec;
    int ends[MOST_SUBSCRIBERS][2];                                 // for reading, for writing
    int role;
    unsigned char *mine;                                           // private: where a message is made or read
} kernel_channel;

static kernel_channel *kernel_new(const channel_spec *spec) {
    kernel_channel *channel = calloc(1, sizeof *channel);
    MUST(channel != NULL && posix_memalign((void **)&channel->mine, 4096, spec->bytes) == 0);
    memset(channel->mine, 0, spec->bytes);
    channel->spec = *spec;
    return channel;
}

static void kernel_destroy(void *memory) {
    kernel_channel *channel = memory;
    for (int k = 0; k < channel->spec.subscribers; k++) {
        close(channel->ends[k][0]);
        close(channel->ends[k][1]);
    }
    free(channel->mine);
    free(channel);
}

static void *pipe_create(const channel_spec *spec) {
    kernel_channel *channel = kernel_new(spec);
    for (int k = 0; k < spec->subscribers; k++) {
        MUST(pipe(channel->ends[k]) == 0);
        (void)fcntl(channel->ends[k][1], F_SETPIPE_SZ, 1 << 20);   // as far as the kernel lets us
    }
    return channel;
}

// NULL: the kernel takes no packet of that size.
static void *packets_create(const channel_spec *spec) {
    kernel_channel *channel = kernel_new(spec);
    int bytes = spec->bytes < (1 << 19) ? 1 << 20 : (int)(2 * spec->bytes + 65536);
    bool fits = true;
    for (int k = 0; k < spec->subscribers; k++) {
        MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel->ends[k]) == 0);
        if (setsockopt(channel->ends[k][1], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0)
            setsockopt(channel->ends[k][1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
        fits = fits && send(channel->ends[k][1], channel->mine, spec->bytes, MSG_DONTWAIT) == (ssize_t)spec->bytes
               && recv(channel->ends[k][0], channel->mine, spec->bytes, MSG_DONTWAIT) == (ssize_t)spec->bytes;
    }
    if (fits)
        return channel;
    kernel_destroy(channel);
    return NULL;
}

static void kernel_join(void *memory, int role) {
    kernel_channel *channel = memory;
    channel->role = role;
}

static inline size_t kernel_bytes(const kernel_channel *channel) { return channel->spec.bytes; }
static inline void *kernel_loan(kernel_channel *channel) { return channel->mine; }

static inline bool kernel_send(kernel_channel *channel) {
    for (int k = 0; k < channel->spec.subscribers; k++)
        for (size_t done = 0; done < channel->spec.bytes;) {
            ssize_t n = write(channel->ends[k][1], channel->mine + done, channel->spec.bytes - done);
            MUST(n > 0);
            done += (size_t)n;
        }
    return true;
}

static const void *kernel_wait(kernel_channel *channel) {
    for (size_t done = 0; done < channel->spec.bytes;) {
        ssize_t n = read(channel->ends[channel->role - 1][0], channel->mine + done, channel->spec.bytes - done);
        MUST(n > 0);
        done += (size_t)n;
    }
    return channel->mine;
}

static inline void kernel_done(kernel_channel *channel) { (void)channel; }

#define LOOP(x) kernel_##x
#define LOOP_SLEEPS
#define LOOP_BLOCKS
#define channel_type kernel_channel
#define kernel_host host
#define kernel_name "pipe or socket"
#include "topic_loops.h"
static const messenger packets_messenger = {
    "seqpacket", "a Unix socket of packets to each subscriber", packets_create, kernel_join, NULL,
    kernel_destroy, LOOP_TABLE};
static const messenger pipe_messenger = {
    "pipe", "a pipe to each subscriber", pipe_create, kernel_join, NULL, kernel_destroy, LOOP_TABLE};

const messenger *const *messengers(bench_host *given) {
    static const messenger *const all[] = {&topic_messenger,  &cached_messenger,  &slots_messenger, &futex_messenger,
                                           &tokens_messenger, &packets_messenger, &pipe_messenger,  NULL};
    host = given;
    return all;
}
