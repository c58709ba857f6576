// tests/harness/pools.h: what the tests of pools that come and go, of waiting and of watching share: other processes
// told step by step what to do, and what the files and mappings of an instance take.
#ifndef ZEROCP_TEST_POOLS_H
#define ZEROCP_TEST_POOLS_H

#include "chunks.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// Pools

static inline zcp_pool_stats pool_stats(zcp_manager *manager, uint32_t pool) {
    zcp_pool_stats stats;
    CHECK_OK(zcp_manager_pool_stats(manager, pool, &stats));
    CHECK_EQ(stats.used + stats.free + stats.cached, stats.total);
    return stats;
}

static inline uint32_t add_pool(zcp_manager *manager, uint64_t chunk_size, uint32_t chunk_count) {
    uint32_t pool = UINT32_MAX;
    CHECK_OK(
        zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = chunk_size, .chunk_count = chunk_count}, &pool));
    CHECK(pool < ZCP_MAX_LIVE_POOLS);
    return pool;
}

// Of the pool, for this client; NONE also where it knows of no such number.
static inline zcp_pool_state pool_state(zcp_manager *manager, uint32_t pool) {
    return pool < zcp_manager_pool_end(manager) ? pool_stats(manager, pool).state : ZCP_POOL_NONE;
}

// ---------------------------------------------------------------------------------------------------------------------
// Files and mappings

typedef enum { MANAGEMENT, CHUNKS, LOCKS } segment_kind;

static inline void segment_path(const char *instance, segment_kind kind, char path[320]) {
    static const char *const suffixes[] = {"_memory_management", "_memory_chunk", "_memory_locks"};
    snprintf(path, 320, "/dev/shm/%s%s", instance, suffixes[kind]);
}

static inline struct stat segment_stat(const char *instance, segment_kind kind) {
    char path[320];
    struct stat status;
    segment_path(instance, kind, path);
    CHECK(stat(path, &status) == 0);
    return status;
}

// Bytes of memory that it has.
static inline uint64_t segment_memory(const char *instance, segment_kind kind) {
    return (uint64_t)segment_stat(instance, kind).st_blocks * 512;
}

// Mappings of this process: all, or those whose line holds the text.
static inline int count_mappings(const char *text) {
    char line[1024];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        count += text == NULL || strstr(line, text) != NULL;
    fclose(maps);
    return count;
}

static inline int count_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        char path[64], target[8];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        count += readlink(path, target, sizeof target) >= 0;
    }
    return count;
}

// ---------------------------------------------------------------------------------------------------------------------
// Another process, told step by step what to do

typedef enum {
    PEER_CLOSE,
    // value: size, tag: tag. Holds the chunk, with its token as the pattern
    PEER_ALLOCATE,
    // value: token. Holds the chunk, after a look at the pattern
    PEER_ACQUIRE,
    PEER_RELEASE,                                                  // value: which one of those that it got, from 0
    PEER_PAIR,                                                     // value: size. Allocates and releases
    PEER_WAIT,                                                     // value: size, limit: ms. Holds the chunk
    PEER_CHECK,                                                    // value: which one: still what it was
    PEER_ADD,                                                      // value: size, limit: count
    PEER_RETIRE,                                                   // value: pool
    PEER_RECOVER,
    PEER_STATE,                                                    // value: pool. Answers with its state in `index`
    PEER_CLONE                                                     // value: which one. Holds one more
} peer_order;

enum { PEER_CHUNKS = 128 };

typedef struct peer {
    const char *instance;
    uint32_t flags;
    void (*begin)(struct peer *self);                              // in the process, before it attaches; NULL: nothing
    _Atomic uint32_t order, done;
    peer_order what;
    uint64_t value;
    uint32_t limit, tag;
    zcp_status status;                                             // the answer, and below
    uint64_t token, nanoseconds;
    uint32_t pool, index, slot;
    char message[300];
    pid_t pid;
    zcp_chunk held[PEER_CHUNKS];                                   // its own
    uint32_t count;
} peer;

static inline void peer_keep(peer *self, const zcp_chunk *chunk) {
    CHECK(self->count < PEER_CHUNKS);
    self->held[self->count++] = *chunk;
    self->token = zcp_chunk_token(chunk);
    CHECK(self->token != 0);
    self->pool = inside_pool_of(chunk);
    self->index = inside_index_in_pool(chunk);
}

static inline uint64_t peer_pattern(const zcp_chunk *chunk) {
    return (uint64_t)chunk->generation << 32 | chunk->index;
}

static inline void peer_obey(peer *self, zcp_manager *manager) {
    zcp_chunk chunk;
    uint64_t began = test_now();
    self->status = ZCP_OK;
    switch (self->what) {
    case PEER_ALLOCATE:
        self->status = zcp_chunk_allocate_tagged(manager, self->value, self->tag, &chunk);
        break;
    case PEER_WAIT:
        self->status = zcp_chunk_allocate_wait(manager, self->value, self->limit, &chunk);
        break;
    case PEER_ACQUIRE:
        self->status = zcp_chunk_acquire(manager, self->value, &chunk);
        break;
    case PEER_PAIR:
        self->status = zcp_chunk_allocate(manager, self->value, &chunk);
        if (self->status == ZCP_OK) {
            self->pool = inside_pool_of(&chunk);
            pattern_write(&chunk, 1);
            zcp_chunk_release(&chunk);
        }
        break;
    case PEER_RELEASE: zcp_chunk_release(&self->held[self->value]); break;
    case PEER_CHECK: pattern_check(&self->held[self->value], peer_pattern(&self->held[self->value])); break;
    case PEER_CLONE:
        chunk = zcp_chunk_clone(&self->held[self->value]);
        CHECK(zcp_chunk_is_valid(&chunk));
        peer_keep(self, &chunk);
        break;
    case PEER_ADD:
        self->status = zcp_manager_add_pool(
            manager, &(zcp_pool_config){.chunk_size = self->value, .chunk_count = self->limit}, &self->pool);
        break;
    case PEER_RETIRE: self->status = zcp_manager_retire_pool(manager, (uint32_t)self->value); break;
    case PEER_RECOVER: self->status = zcp_manager_recover(manager, NULL); break;
    case PEER_STATE: self->index = (uint32_t)pool_state(manager, (uint32_t)self->value); break;
    case PEER_CLOSE: break;
    }
    self->nanoseconds = test_now() - began;
    snprintf(self->message, sizeof self->message, "%s", self->status == ZCP_OK ? "" : zcp_last_message());
    if (self->status == ZCP_OK
        && (self->what == PEER_ALLOCATE || self->what == PEER_WAIT || self->what == PEER_ACQUIRE)) {
        if (self->what == PEER_ACQUIRE)
            pattern_check(&chunk, peer_pattern(&chunk));
        else
            pattern_write(&chunk, peer_pattern(&chunk));
        peer_keep(self, &chunk);
    }
}

static inline void peer_serve(void *argument) {
    peer *self = argument;
    if (self->begin != NULL)
        self->begin(self);
    zcp_manager *manager = attach_named(self->instance, self->flags);
    self->slot = slot_of(manager);
    test_signal(&self->done);
    for (uint32_t n = 1;; n++) {
        test_await(&self->order, n);
        if (self->what == PEER_CLOSE)
            break;
        peer_obey(self, manager);
        test_signal(&self->done);
    }
    zcp_manager_close(manager);
}

static inline peer *peer_start(uint32_t flags, void (*begin)(peer *)) {
    peer *self = test_shared(sizeof *self);
    self->instance = test_instance();
    self->flags = flags;
    self->begin = begin;
    self->pid = test_spawn(peer_serve, self);
    return self;
}

static inline peer *peer_begin(uint32_t flags) {
    peer *self = peer_start(flags, NULL);
    test_await(&self->done, 1);
    return self;
}

// Begins something; returns what `done` reaches when it has ended.
static inline uint32_t tell_to_begin(peer *self, peer_order what, uint64_t value, uint32_t limit) {
    self->what = what;
    self->value = value;
    self->limit = limit;
    return test_signal(&self->order) + 1;
}

static inline zcp_status tell(peer *self, peer_order what, uint64_t value, uint32_t limit) {
    test_await(&self->done, tell_to_begin(self, what, value, limit));
    return self->status;
}

static inline void peer_end(peer *self) {
    tell_to_begin(self, PEER_CLOSE, 0, 0);
    test_join(self->pid);
}

#define TELL_OK(peer_, what, value, limit)                                                                             \
    do {                                                                                                               \
        zcp_status status_ = tell((peer_), (what), (value), (limit));                                                  \
        CHECK_MSG(status_ == ZCP_OK, "%s: %s", zcp_status_name(status_), (peer_)->message);                            \
    } while (0)

#endif
