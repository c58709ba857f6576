// tests/garbage_test.c: what happens when somebody else wrote what the library reads. Each attempt ends with a status,
// in bounded time, inside of its mappings (which stand between guard pages here), and leaves nothing open.
#include "harness/hostile.h"

#include "harness/scribble.h"
#include "harness/test.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#if defined(TEST_ASAN) || defined(TEST_TSAN)
enum { SLOWER = 10 };
#else
enum { SLOWER = 1 };
#endif

#define LIMIT_ACCESSES (UINT64_C(1) << 26)                         // of one call
#define LIMIT_CPU (UINT64_C(2000000000) * SLOWER)
#define LIMIT_WALL (UINT64_C(20000000000) * SLOWER)

// ---------------------------------------------------------------------------------------------------------------------
// Calls that have to end

typedef struct call_begin {
    uint64_t cpu, wall;
} call_begin;

static call_begin begin_call(void) {
    hostile_accesses = 0;
    hostile_limit = LIMIT_ACCESSES;
    return (call_begin){test_cpu_now(), test_now()};
}

static void end_call(call_begin begin, const char *what, int line) {
    hostile_limit = 0;
    uint64_t cpu = test_cpu_now() - begin.cpu, wall = test_now() - begin.wall;
    if (cpu > LIMIT_CPU || wall > LIMIT_WALL)
        test_fail(__FILE__, line, "%s took %llu ms of CPU, %llu ms in all", what, (unsigned long long)cpu / 1000000,
                  (unsigned long long)wall / 1000000);
}

#define BOUNDED(call)                                                                                                  \
    do {                                                                                                               \
        call_begin begin_ = begin_call();                                                                              \
        call;                                                                                                          \
        end_call(begin_, #call, __LINE__);                                                                             \
    } while (0)

// A status that exists and, if it is an error, says something.
static void check_told(zcp_status status) {
    CHECK_MSG((unsigned)status < ZCP_STATUS_COUNT, "status %d", (int)status);
    CHECK(status == ZCP_OK || zcp_last_message()[0] != 0);
}

#define CHECK_IS(actual, expected)                                                                                     \
    do {                                                                                                               \
        zcp_status actual_ = (actual), expected_ = (expected);                                                         \
        CHECK_MSG(actual_ == expected_, "is %s, expected %s: %s", zcp_status_name(actual_),                            \
                  zcp_status_name(expected_), zcp_last_message());                                                     \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// Every operation on a manager whose segments may hold anything

enum { SMALL_CLIENTS = 4, SMALL_POOLS = 2 };                       // 4 more clients for who scribbles beside live ones

// or garbage may say so: a handle's pool may be another one by now
static bool pools_change;

// or that somebody publishes
static bool topics_change;

// What is checked whatever was written; garbage_consistent_* check one of these each, to see that each is found.
typedef enum { ALL_CHECKS, ROOM, FIGURES, MAPPINGS } check;
static check only;

static bool checks(check what) {
    return only == ALL_CHECKS || only == what;
}

// The whole of what was asked lies in one chunk of one pool of the instance. false: it does not, and nobody asks.
static bool check_inside(const zcp_chunk *chunk, uint64_t bytes) {
    bool inside = scribble_has_room(chunk, bytes);
    CHECK_MSG(inside || !checks(ROOM), "%llu bytes at %p are not within one chunk", (unsigned long long)bytes,
              chunk->data);
    return inside;
}

// Atomic, because with garbage in the records two threads may be given one chunk, and that is no race of the library.
static void touch(void *data, uint64_t bytes) {
    _Atomic unsigned char *at = data;
    for (uint64_t i = 0; i < bytes; i = i + 61 < bytes || i == bytes - 1 ? i + 61 : bytes - 1)
        atomic_store_explicit(&at[i], (unsigned char)i, memory_order_relaxed);
}

static void exercise_handle(zcp_manager *manager, zcp_chunk *chunk, uint64_t asked) {
    zcp_chunk clone = {0}, borrowed = {0};
    zcp_status status;
    uint64_t capacity, size, uses, token;
    void *data;
    BOUNDED(capacity = zcp_chunk_capacity(chunk));
    BOUNDED(size = zcp_chunk_size(chunk));
    CHECK(size <= 4096 && capacity <= 4096);
    CHECK_MSG(capacity == 0 || capacity >= asked || pools_change, "%llu bytes for %llu", (unsigned long long)capacity,
              (unsigned long long)asked);
    if (capacity == 0 || pools_change)                             // of the pool that has its number now
        capacity = asked;
    if (check_inside(chunk, capacity))
        touch(chunk->data, capacity);
    BOUNDED(data = zcp_chunk_data(chunk));
    CHECK(data == NULL || data == chunk->data || pools_change);
    BOUNDED(clone = zcp_chunk_clone(chunk));
    BOUNDED(token = zcp_chunk_token(chunk));
    BOUNDED(status = zcp_chunk_acquire(manager, token, &borrowed));
    check_told(status);
    CHECK((status == ZCP_OK) == (borrowed.manager != NULL));
    if (status == ZCP_OK)
        check_inside(&borrowed, 1);
    BOUNDED(uses = zcp_chunk_use_count(chunk));                    // any figure
    (void)uses;
    BOUNDED((void)zcp_chunk_is_valid(chunk));
    BOUNDED(zcp_chunk_release(&clone));
    BOUNDED(zcp_chunk_release(&borrowed));
    CHECK(clone.manager == NULL && borrowed.manager == NULL);
}

static void exercise_tokens(zcp_manager *manager) {
    for (int i = 0; i < 4; i++) {
        zcp_chunk chunk;
        zcp_status status;
        uint64_t token =
            i < 2 ? test_random() : (test_random() % 4 + 1) << 32 | test_random() % 5 << 27 | test_random() % 8;
        BOUNDED(status = zcp_chunk_acquire(manager, token, &chunk));
        check_told(status);
        if (status == ZCP_OK) {
            check_inside(&chunk, pools_change ? 1 : zcp_chunk_size(&chunk));
            BOUNDED(zcp_chunk_release(&chunk));
        }
    }
}

// Whatever the records and counters hold, each figure is one that a pool can have, and together they make sense.
static void check_figures(const zcp_pool_stats *stats, uint32_t pool) {
    CHECK_MSG(scribble_are_figures(stats) || !checks(FIGURES),
              "pool %u: used %llu, free %llu, cached %llu, total %llu, peak %llu, allocations %llu, releases %llu",
              pool,
              (unsigned long long)stats->used, (unsigned long long)stats->free, (unsigned long long)stats->cached,
              (unsigned long long)stats->total, (unsigned long long)stats->peak_used,
              (unsigned long long)stats->allocations, (unsigned long long)stats->releases);
}

static void check_mappings(void) {
    CHECK_MSG(scribble_leaves_mappings() || !checks(MAPPINGS), "%d mappings of files and %d others stand; most: %d",
              hostile.files, hostile.anonymous, SCRIBBLE_MAPPINGS);
}

static void exercise_figures(zcp_manager *manager, uint32_t pools) {
    for (uint32_t p = 0; p < pools; p++) {
        zcp_pool_stats stats;
        zcp_status status;
        BOUNDED(status = zcp_manager_pool_stats(manager, p, &stats));
        CHECK(status == ZCP_OK);
        check_figures(&stats, p);
    }
}

static void exercise_watching(const zcp_manager_info *info, zcp_manager *manager) {
    char text[120 * ZCP_MAX_LIVE_POOLS];
    zcp_client_info client;
    zcp_recovery report;
    zcp_status status;
    exercise_figures(manager, info->pool_end);
    for (uint32_t slot = 0; slot <= info->max_clients; slot++) {
        BOUNDED(status = zcp_manager_client_info(manager, slot, &client));
        check_told(status);
        CHECK(memchr(client.name, 0, sizeof client.name) != NULL);
    }
    BOUNDED(zcp_manager_format(manager, text, sizeof text));
    CHECK_MSG(scribble_is_print(text) || !checks(FIGURES), "%s", text);
    BOUNDED(status = zcp_manager_check(manager));
    check_told(status);
    BOUNDED(status = zcp_manager_recover(manager, &report));
    check_told(status);
    check_mappings();
}

static bool check_entry(const zcp_census_entry *entry, void *user) {
    CHECK(entry->pool < ZCP_MAX_LIVE_POOLS && entry->size <= entry->capacity && entry->capacity <= 4096);
    CHECK(entry->owner < SMALL_CLIENTS + 4 || entry->owner == ZCP_NO_CLIENT);
    CHECK(entry->borrowers <= SMALL_CLIENTS + 4 && entry->borrower_mask[0] >> (SMALL_CLIENTS + 4) == 0);
    return ++*(uint32_t *)user < 10000;
}

// Waits, looks and, if they change, adds and retires pools.
static void exercise_pools(zcp_manager *manager) {
    static const zcp_pool_config choice[] = {{200, 6, 0, 2}, {3000, 2, 0, 0}, {100, 4, 256, 0}};
    zcp_status status;
    zcp_chunk chunk;
    zcp_client_stats client;
    zcp_config config;
    uint32_t entries = 0, number, dice = pools_change ? (uint32_t)test_random_below(16) : 16;
    BOUNDED(status = zcp_manager_get_config(manager, &config));
    CHECK(status == ZCP_OK && config.pools.size <= ZCP_MAX_POOLS);
    if (dice < 3)
        BOUNDED(status = zcp_manager_add_pool(manager, &choice[dice], &number));
    else if (dice < 5)
        BOUNDED(status = zcp_manager_retire_pool(manager, (uint32_t)test_random_below(8)));
    else if (dice == 5 && config.pools.size > 0)
        BOUNDED(status = zcp_manager_reconfigure(manager, &config));
    check_told(status);
    BOUNDED(status = zcp_chunk_allocate_wait(manager, 150, (uint32_t)test_random_below(2), &chunk));
    check_told(status);
    if (status == ZCP_OK && check_inside(&chunk, 150))
        touch(chunk.data, 150);
    BOUNDED(zcp_chunk_release(&chunk));
    BOUNDED(status = zcp_chunk_allocate_tagged(manager, 60, 7, &chunk));
    check_told(status);
    BOUNDED((void)zcp_chunk_tag(&chunk));
    void *address = chunk.data;
    zcp_chunk again;
    BOUNDED(status = zcp_chunk_set_tag(&chunk, 8));
    check_told(status);
    BOUNDED(status = zcp_chunk_of(manager, address, &again));
    check_told(status);
    BOUNDED(zcp_chunk_release(&again));
    BOUNDED(zcp_chunk_release(&chunk));
    BOUNDED(status = zcp_chunk_allocate_with(manager, &(zcp_chunk_desc){60, 9, 0}, &chunk));
    check_told(status);
    BOUNDED(zcp_chunk_release(&chunk));
    BOUNDED(status = zcp_manager_census(manager, check_entry, &entries));
    CHECK_IS(status, ZCP_OK);
    BOUNDED(status = zcp_manager_client_stats(manager, (uint32_t)test_random_below(6), &client));
    check_told(status);
}

// Of garbage_live: the scribbler beside live clients. Where it writes to leases only, what is held is nobody else's.
typedef enum {
    SCRIBBLE_ALL, SCRIBBLE_BEHIND_HEADER, SCRIBBLE_RECORDS, SCRIBBLE_PLAUSIBLE, SCRIBBLE_LEASES, SCRIBBLE_POOLS,
    SCRIBBLE_CONSISTENT,                                           // see scribble.h
    SCRIBBLES
} scribble;

static struct live {
    _Atomic uint32_t stop, words, calls, refused;
    scribble kind;
    _Atomic uint32_t held[2][16];                                  // by pool and index
} *live;

static void mark_held(const zcp_chunk *chunk, uint32_t held) {
    if (live == NULL || live->kind != SCRIBBLE_LEASES || chunk->manager == NULL)
        return;
    uint32_t pool = chunk->index >> ZCP_PRIV_POOL_SHIFT, i = chunk->index & (ZCP_MAX_CHUNKS - 1);
    CHECK(pool < 2 && i < 16);
    CHECK_MSG(atomic_exchange(&live->held[pool][i], held) != held, "chunk %08x was given out twice", chunk->index);
}

// Allocates and releases, and looks now and then, as a program does.
static void exercise_pairs(zcp_manager *manager) {
    static const uint64_t sizes[] = {60, 100, 300, 1000, 2000, 4000};
    for (int i = 0; i < 48; i++) {
        zcp_chunk chunk;
        zcp_status status;
        uint64_t size = sizes[test_random_below(6)];
        if (i % 6 == 0)
            BOUNDED((void)zcp_manager_pool_end(manager));
        BOUNDED(status = zcp_chunk_allocate(manager, size, &chunk));
        check_told(status);
        if (status == ZCP_OK && check_inside(&chunk, size))
            touch(chunk.data, size);
        BOUNDED(zcp_chunk_release(&chunk));
    }
}

static bool check_endpoint(const zcp_topic_entry *entry, void *user) {
    const zcp_manager *manager = user;
    CHECK_MSG(scribble_is_endpoint(entry, &manager->geometry) || !checks(FIGURES),
              "client %u, depth %u, keep %u, messages %llu, unread %llu, lost %llu, held %llu", entry->client,
              entry->depth, entry->keep, (unsigned long long)entry->messages, (unsigned long long)entry->unread,
              (unsigned long long)entry->lost, (unsigned long long)entry->held);
    return true;
}

static void exercise_message(zcp_subscriber *subscriber, uint32_t timeout_ms) {
    zcp_message message;
    zcp_chunk kept;
    zcp_status status;
    const zcp_manager *manager = subscriber->manager;
    BOUNDED(status = zcp_subscriber_receive(subscriber, timeout_ms, &message));
    check_told(status);
    if (status != ZCP_OK)
        return;
    CHECK_MSG(scribble_is_message(manager, &message) || !checks(ROOM), "%llu bytes at %p of client %u",
              (unsigned long long)message.size, message.data, message.publisher);
    const volatile unsigned char *bytes = message.data;
    for (uint64_t i = 0; i < message.size; i += 61)
        (void)bytes[i];
    if (message.size != 0)
        (void)bytes[message.size - 1];
    if (test_random_below(4) != 0)
        return;
    BOUNDED(status = zcp_subscriber_keep(subscriber, &kept));
    check_told(status);
    if (status == ZCP_OK)
        check_inside(&kept, 1);
    BOUNDED(zcp_chunk_release(&kept));
}

static void exercise_publishing(zcp_publisher *publisher, uint32_t messages) {
    zcp_delivery delivery;
    zcp_chunk chunk;
    zcp_status status;
    for (uint32_t i = 0; i < messages; i++) {
        BOUNDED(status = zcp_publisher_loan(publisher, 60, &chunk));
        check_told(status);
        if (status == ZCP_OK && check_inside(&chunk, 60))
            touch(chunk.data, 60);
        if (status == ZCP_OK)
            BOUNDED(status = zcp_publisher_publish(publisher, &chunk, &delivery));
        check_told(status);
        CHECK(status != ZCP_OK || (chunk.manager == NULL && delivery.overtaken <= delivery.subscribers));
        BOUNDED(zcp_chunk_release(&chunk));
    }
    BOUNDED(status = zcp_publisher_notify(publisher, &delivery));
    check_told(status);
}

// Comes, publishes, receives, and goes, or leaves that to close.
static void exercise_topics(zcp_manager *manager) {
    enum { COUNT = 2 };
    static const char *const topics[] = {"one", "other"};
    zcp_publisher *publisher;
    zcp_subscriber *subscribers[COUNT];
    zcp_status status;
    uint32_t ready, count = 0, dice = (uint32_t)test_random();
    zcp_publisher_desc desc = {.topic = topics[dice & 1], .depth = dice >> 1 & 3, .timeout_ms = dice >> 3 & 1,
                               .never_waits = (dice & 0x70) == 0, .exclusive = (dice & 0x380) == 0};
    desc.keep = dice >> 10 & 1 & desc.depth;
    for (uint32_t i = 0; i < COUNT; i++) {
        zcp_subscriber_desc wanted = {.topic = topics[dice >> (11 + i) & 1], .reliable = dice >> (13 + i) & 1,
                                      .history = dice >> 15 & 3};
        wanted.latest = !wanted.reliable && (dice >> (17 + i) & 1);
        BOUNDED(status = zcp_subscriber_open(manager, &wanted, &subscribers[count]));
        check_told(status);
        CHECK((status == ZCP_OK) == (subscribers[count] != NULL));
        count += status == ZCP_OK;
    }
    BOUNDED(status = zcp_publisher_open(manager, &desc, &publisher));
    check_told(status);
    CHECK((status == ZCP_OK) == (publisher != NULL));
    if (count > 0 && (dice >> 19 & 7) == 0)
        BOUNDED((void)zcp_subscriber_descriptor(subscribers[0]));
    for (uint32_t round = 0; round < (live != NULL ? 8 : 2); round++) {
        if (publisher != NULL)
            exercise_publishing(publisher, 3);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t n = 0; n < 4; n++)
                exercise_message(subscribers[i], live != NULL && round == 0 && n == 3 ? dice >> 23 & 1 : 0);
        if (count > 0)
            BOUNDED(status = zcp_subscribers_wait(subscribers, count, 0, &ready));
        CHECK(count == 0 || status != ZCP_OK || ready < count);
    }
    BOUNDED(status = zcp_manager_topics(manager, check_endpoint, manager));
    check_told(status);
    for (uint32_t i = 0; i < count; i++)
        if (live != NULL || i == 0)
            BOUNDED(zcp_subscriber_close(subscribers[i]));
    if (live != NULL || (dice >> 24 & 1))
        BOUNDED(zcp_publisher_close(publisher));
}

static void exercise(zcp_manager *manager) {
    static const uint64_t sizes[] = {1, 100, 101, 1000, 100, 1, 4000, 0, 64};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    zcp_chunk held[COUNT];
    zcp_manager_info info;
    zcp_status status;
    BOUNDED(status = zcp_manager_get_info(manager, &info));
    CHECK_IS(status, ZCP_OK);
    for (int i = 0; i < COUNT; i++) {
        BOUNDED(status = zcp_chunk_allocate(manager, sizes[i], &held[i]));
        check_told(status);
        CHECK((status == ZCP_OK) == (held[i].manager != NULL));
        CHECK(status != ZCP_OK || held[i].generation != 0);        // an all-zero record is nobody's
        mark_held(&held[i], 1);
        if (status == ZCP_OK)
            exercise_handle(manager, &held[i], sizes[i]);
    }
    exercise_tokens(manager);
    exercise_watching(&info, manager);
    exercise_pools(manager);
    if (live != NULL || topics_change || test_random_below(16) == 0)
        exercise_topics(manager);
    if (live != NULL && live->kind == SCRIBBLE_CONSISTENT)
        exercise_pairs(manager);
    CHECK(zcp_relptr_get(zcp_manager_registry(manager), zcp_relptr_make(ZCP_SEGMENT_CHUNK, info.chunk_bytes), 1)
          == NULL);
    // one is left to close, unless there is much to do before
    for (int i = 0; i < COUNT - (live == NULL); i++) {
        mark_held(&held[i], 0);
        BOUNDED(zcp_chunk_release(&held[i]));
    }
}

// Every chunk can be had, once: hints may be garbage, but not the records.
static void check_obtains_all(const char *name) {
    static const struct { uint64_t size; uint32_t count; } pools[] = {{100, 10}, {1000, 5}};
    zcp_manager *manager;
    zcp_chunk chunks[16];
    zcp_status status;
    CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING}), ZCP_OK);
    for (int p = 0; p < 2; p++) {
        uint32_t n = 0;
        for (; n < 16; n++) {
            BOUNDED(status = zcp_chunk_allocate(manager, pools[p].size, &chunks[n]));
            if (status != ZCP_OK)
                break;
            for (uint32_t i = 0; i < n; i++)
                CHECK_MSG(chunks[i].index != chunks[n].index, "chunk %08x was given out twice", chunks[n].index);
        }
        CHECK_MSG(n == pools[p].count && status == ZCP_ERR_EXHAUSTED, "%u of %u chunks: %s", n, pools[p].count,
                  zcp_last_message());
        for (uint32_t i = 0; i < n; i++)
            BOUNDED(zcp_chunk_release(&chunks[i]));
    }
    BOUNDED(zcp_manager_close(manager));
}

// ---------------------------------------------------------------------------------------------------------------------
// Attempts

typedef struct path {
    char text[320];
} path;

static path path_of(const char *name, const char *suffix) {
    path p;
    snprintf(p.text, sizeof p.text, "/dev/shm/%s%s", name, suffix);
    return p;
}

static path management_path(const char *name) { return path_of(name, "_memory_management"); }
static path chunk_path(const char *name) { return path_of(name, "_memory_chunk"); }

static void remove_both(const char *name) {
    path paths[] = {management_path(name), chunk_path(name)};
    for (int i = 0; i < 2; i++)
        if (unlink(paths[i].text) != 0 && errno != ENOENT)
            CHECK_MSG(rmdir(paths[i].text) == 0, "%s: %s", paths[i].text, strerror(errno));
}

static zcp_config small_config(void) {
    zcp_config config = {.publishers = 3, .subscribers = 4, .ring_cells = 4};
    CHECK_IS(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 100, .chunk_count = 10, .cache_chunks = 3}),
             ZCP_OK);
    CHECK_IS(zcp_config_add_pool(&config, 1000, 5), ZCP_OK);
    return config;
}

static uint64_t attempts, accepted;

static zcp_status attempt_with(const char *name, zcp_shm_mode mode, uint32_t flags) {
    zcp_manager *manager = NULL;
    zcp_config config = small_config();
    zcp_status status;
    zcp_manager_desc desc = {.name = name, .mode = mode, .flags = flags, .timeout_ms = 40, .client_name = "attempt"};
    if (mode != ZCP_SHM_OPEN_EXISTING) {
        desc.config = &config;
        desc.max_clients = SMALL_CLIENTS;
    }
    attempts++;
    BOUNDED(status = zcp_manager_open(&manager, &desc));
    check_told(status);
    CHECK((status == ZCP_OK) == (manager != NULL));
    if (status == ZCP_OK) {
        accepted++;
        exercise(manager);
        BOUNDED(zcp_manager_close(manager));
    }
    return status;
}

static zcp_status attempt(const char *name, zcp_shm_mode mode) {
    return attempt_with(name, mode, 0);
}

// The garbage was removed: everything is as if it had never been.
static void check_fresh(const char *name) {
    remove_both(name);
    CHECK_IS(attempt(name, ZCP_SHM_OPEN_EXISTING), ZCP_ERR_NOT_FOUND);
    CHECK_IS(attempt(name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
    CHECK_IS(attempt(name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    CHECK(access(management_path(name).text, F_OK) != 0 && access(chunk_path(name).text, F_OK) != 0);
}

static hostile_holdings before;

// After this the process's own lasting mappings (a manager for its next life, the page of locks) stand.
static void warm_up(const char *name) {
    zcp_log_set_level(ZCP_LOG_OFF);
    check_fresh(name);
    before = hostile_holds();
}

static void check_no_leak(void) {
    hostile_holdings now = hostile_holds();
    CHECK_MSG(hostile_same(&before, &now),
              "descriptors %d -> %d, files %d -> %d, anonymous %d -> %d, shm mappings %d -> %d", before.descriptors,
              now.descriptors, before.files, now.files, before.anonymous, now.anonymous, before.shm_mappings,
              now.shm_mappings);
}

// ---------------------------------------------------------------------------------------------------------------------
// A valid instance whose bytes are changed

typedef struct victim {
    const char *name;
    int management;                                                // a descriptor of ours
    // has a pool that was added, 2, and one that retires, 3
    bool grown;
    size_t bytes;
    unsigned char image[3 << 16];
} victim;

// The image is taken while its client lives, with the last chunk of the retiring pool.
static void victim_grow(zcp_manager *manager) {
    static const zcp_pool_config added = {200, 6, 0, 2}, retiring = {3000, 2, 0, 0};
    zcp_chunk chunk;
    uint32_t number;
    CHECK_IS(zcp_manager_add_pool(manager, &added, &number), ZCP_OK);
    CHECK_EQ(number, 2);
    CHECK_IS(zcp_manager_add_pool(manager, &retiring, &number), ZCP_OK);
    CHECK_IS(zcp_chunk_allocate(manager, 3000, &chunk), ZCP_OK);
    CHECK_IS(zcp_manager_retire_pool(manager, number), ZCP_OK);
}

static void victim_make(victim *v, const char *name) {
    zcp_manager *manager;
    zcp_config config = small_config();
    struct stat status;
    if (v->name != NULL)
        close(v->management);
    remove_both(name);
    v->name = name;
    CHECK_IS(
        zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .config = &config, .max_clients = SMALL_CLIENTS}),
        ZCP_OK);
    if (v->grown)
        victim_grow(manager);
    else
        zcp_manager_close(manager);
    v->management = open(management_path(name).text, O_RDWR | O_CLOEXEC);
    CHECK(v->management >= 0 && fstat(v->management, &status) == 0 && (size_t)status.st_size <= sizeof v->image);
    v->bytes = (size_t)status.st_size;
    CHECK_EQ(pread(v->management, v->image, v->bytes, 0), v->bytes);
    if (v->grown)
        zcp_manager_close(manager);
}

static bool victim_stands(const victim *v) {
    struct stat named, ours;
    return stat(management_path(v->name).text, &named) == 0 && fstat(v->management, &ours) == 0
           && named.st_ino == ours.st_ino && access(chunk_path(v->name).text, F_OK) == 0;
}

static void victim_restore(victim *v) {
    if (victim_stands(v)) {
        CHECK(ftruncate(v->management, (off_t)v->bytes) == 0);
        CHECK_EQ(pwrite(v->management, v->image, v->bytes, 0), v->bytes);
    } else {
        victim_make(v, v->name);
    }
}

static void victim_end(victim *v) {
    close(v->management);
    check_fresh(v->name);
    check_no_leak();
}

// What the library has to say to a header of which one word was changed.
static zcp_status expected_status(const zcp_priv_header *is, const zcp_priv_header *good, zcp_shm_mode mode) {
    bool creates = mode != ZCP_SHM_OPEN_EXISTING;
    if (is->magic != good->magic)
        return ZCP_ERR_NOT_ZEROCP;
    if (is->state == ZCP_PRIV_BUILDING || is->state == ZCP_PRIV_RETIRED)
        return creates ? ZCP_OK : ZCP_ERR_NOT_FOUND;
    if (mode == ZCP_SHM_PURGE_AND_CREATE)
        return ZCP_OK;
    if (is->state != ZCP_PRIV_READY)
        return ZCP_ERR_CORRUPT;
    zcp_status header = ZCP_OK;
    if (is->byte_order != good->byte_order)
        header = ZCP_ERR_LAYOUT;
    else if (is->layout_version != good->layout_version)
        header = ZCP_ERR_VERSION;
    else if (is->signature != good->signature)
        header = ZCP_ERR_LAYOUT;
    else if (is->instance_id == 0 || memcmp(&is->geometry, &good->geometry, sizeof is->geometry) != 0)
        header = ZCP_ERR_CORRUPT;
    bool broken = is->chunk_device != good->chunk_device || is->chunk_inode != good->chunk_inode ||
                  is->lock_device != good->lock_device || is->lock_inode != good->lock_inode;
    if (header == ZCP_OK && broken)
        return creates ? ZCP_OK : ZCP_ERR_NOT_FOUND;
    return mode == ZCP_SHM_CREATE_EXCLUSIVE && header != ZCP_OK ? ZCP_ERR_EXISTS : header;       // nobody has it open
}

// These words say which pools there are, the rest follows from them. Where a change of one happens to lead to the same
// rest (a chunk size that is rounded up to the same stride), the header still adds up, and all stays inside.
static bool is_configuration(size_t at) {
    size_t first = offsetof(zcp_priv_header, geometry.pools), in_pool = (at - first) % sizeof(zcp_priv_pool_geometry);
    if (at == offsetof(zcp_priv_header, geometry.publishers) || at == offsetof(zcp_priv_header, geometry.ring_cells))
        return true;                                               // the tables of topics are padded
    return at >= first
           && (in_pool == offsetof(zcp_priv_pool_geometry, chunk_size)
               || in_pool == offsetof(zcp_priv_pool_geometry, chunk_count)
               || in_pool == offsetof(zcp_priv_pool_geometry, cache_chunks));
}

static void try_change(victim *v, size_t at, const void *bytes, size_t count, zcp_shm_mode mode) {
    zcp_priv_header is, good;
    unsigned char changed[sizeof v->image];
    memcpy(changed, v->image, v->bytes);
    memcpy(changed + at, bytes, count);
    memcpy((void *)&is, changed, sizeof is);
    memcpy((void *)&good, v->image, sizeof good);
    CHECK_EQ(pwrite(v->management, bytes, count, (off_t)at), count);
    zcp_status expected = expected_status(&is, &good, mode), status = attempt(v->name, mode);
    for (int i = 0; i < 5 && status == ZCP_ERR_TIMEOUT; i++)       // on a busy machine, between its looks
        status = attempt(v->name, mode);
    bool refused = expected == ZCP_ERR_CORRUPT || expected == ZCP_ERR_EXISTS;
    bool other_pools = refused && is_configuration(at) && (status == ZCP_OK || status == ZCP_ERR_CONFIG_MISMATCH);
    // Who asks for pools cannot be told whether they are there, if a slot says that a pool is live and does not add up.
    bool of_slots = mode == ZCP_SHM_OPEN_OR_CREATE && at + count > offsetof(zcp_priv_header, pools);
    bool right = status == expected || other_pools || (of_slots && status == ZCP_ERR_CORRUPT);
    CHECK_MSG(right, "mode %d, %zu bytes at %zu: is %s, expected %s: %s", (int)mode, count, at, zcp_status_name(status),
              zcp_status_name(expected), zcp_last_message());
    victim_restore(v);
    if (attempts % 64 == 0) {
        int management = v->management;                            // it is ours, and no leak
        hostile_holdings now = hostile_holds();
        CHECK(management >= 0 && now.descriptors == before.descriptors + 1 && now.files == before.files &&
              now.shm_mappings == before.shm_mappings && now.anonymous == before.anonymous);
    }
}

enum { CHANGES = 68 };                                             // 0, all ones, +1, -1, each of 64 bits

static uint64_t changed_word(uint64_t word, int change) {
    switch (change) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return word + 1;
    case 3: return word - 1;
    default: return word ^ UINT64_C(1) << (change - 4);
    }
}

TEST_WITH(garbage_in_each_word_of_the_header, .seconds = 120) {
    static victim v;
    warm_up(test_instance());
    victim_make(&v, test_instance());
    const size_t sampled = offsetof(zcp_priv_header, pools[3]),
                 last = offsetof(zcp_priv_header, pools[ZCP_MAX_LIVE_POOLS - 1]);
    for (size_t at = 0; at < sizeof(zcp_priv_header); at += 8)
        for (int change = 0; change < CHANGES; change++) {
            uint64_t word, new;
            if (at >= sampled && at < last && test_random_below(32) != 0)
                continue;                                          // slots of pools that are not there are all the same
            if (at >= 64 && change >= 4 && test_random_below(4) != 0)
                continue;                                          // of most words each run flips a quarter of the bits
            memcpy(&word, v.image + at, 8);
            new = changed_word(word, change);
            if (new == word)
                continue;
            try_change(&v, at, &new, 8, ZCP_SHM_OPEN_EXISTING);
            if (at < 64 || test_random_below(16) == 0)
                try_change(&v, at, &new, 8, (zcp_shm_mode)test_random_below(4));
        }
    test_note("%llu attempts, %llu accepted", (unsigned long long)attempts, (unsigned long long)accepted);
    victim_end(&v);
}

TEST(garbage_in_each_byte_of_the_header) {
    static victim v;
    warm_up(test_instance());
    victim_make(&v, test_instance());
    for (size_t at = 0; at < 64; at++)
        for (int change = 0; change < 12; change++) {
            uint8_t byte = v.image[at], new = (uint8_t)changed_word(byte, change);
            if (new == byte)
                continue;
            for (int mode = 0; mode < 4; mode++)
                if (mode == ZCP_SHM_OPEN_EXISTING || change < 4)
                    try_change(&v, at, &new, 1, (zcp_shm_mode)mode);
        }
    victim_end(&v);
}

// Slots, lists and records: attaching does not look at them, and everything has to work on them or say no.
TEST_WITH(garbage_in_each_word_of_slots_lists_and_records, .seconds = 120) {
    static victim v;
    warm_up(test_instance());
    victim_make(&v, test_instance());
    const zcp_priv_geometry *geometry = &((const zcp_priv_header *)(const void *)v.image)->geometry;
    for (size_t at = 4096; at < v.bytes; at += 8)
        for (int change = (int)test_random_below(2); change < 6; change += 2) {
            uint64_t word, new;
            topics_change = at >= geometry->topics_offset && at < geometry->pools[0].list_offset;
            if (topics_change && test_random_below(16) != 0)
                continue;                                          // entries, cursors and cells are all the same
            memcpy(&word, v.image + at, 8);
            new = changed_word(word, change < 4 ? change : 4 + (int)test_random_below(64));
            try_change(&v, at, &new, 8, ZCP_SHM_OPEN_EXISTING);
        }
    topics_change = false;
    victim_end(&v);
}

// Wanted, holders, leaves and loans: hints, so whatever they say, no chunk is lost or given out twice. Changed while
// nobody is there, and under a client that has leases and caches.
TEST_WITH(garbage_in_each_word_of_the_leases, .seconds = 120) {
    static victim v;
    warm_up(test_instance());
    victim_make(&v, test_instance());
    const zcp_priv_geometry *geometry = &((const zcp_priv_header *)(const void *)v.image)->geometry;
    for (uint32_t p = 0; p < SMALL_POOLS; p++)
        for (uint64_t at = geometry->pools[p].leases_offset; at < geometry->pools[p].records_offset; at += 8)
            for (int change = 0; change < 12; change++) {
                uint64_t values[] = {0, UINT64_MAX, test_random(), test_random_below(3),
                                     test_random_below(3) << 32 | test_random_below(5), UINT64_C(0xff)};
                uint64_t value = values[change % 6];
                zcp_manager *manager = NULL;
                if (change >= 6) {
                    CHECK_IS(
                        zcp_manager_open(&manager, &(zcp_manager_desc){.name = v.name, .mode = ZCP_SHM_OPEN_EXISTING}),
                        ZCP_OK);
                    exercise(manager);
                }
                CHECK_EQ(pwrite(v.management, &value, 8, (off_t)at), 8);
                if (manager != NULL)
                    exercise(manager);
                CHECK_IS(attempt(v.name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
                if (manager != NULL)
                    exercise(manager);
                BOUNDED(zcp_manager_close(manager));
                check_obtains_all(v.name);
                victim_restore(&v);
            }
    victim_end(&v);
}

// What the header says of pools that come and go, changed while nobody is there, and under a client that knows them;
// and what the change does to those who then add, retire and use pools.
TEST_WITH(garbage_in_each_word_about_pools, .seconds = 120) {
    static victim v = {.grown = true};
    warm_up(test_instance());
    victim_make(&v, test_instance());
    pools_change = true;
    const size_t first = offsetof(zcp_priv_header, signals), skipped = offsetof(zcp_priv_header, pools[5]),
                 last = offsetof(zcp_priv_header, pools[ZCP_MAX_LIVE_POOLS - 1]);
    const size_t end = offsetof(zcp_priv_header, lock_device);
    for (size_t at = first; at < end; at = at + 8 == skipped ? last : at + 8)
        for (int change = (int)test_random_below(2); change < 2 * 10; change += 2) {
            uint64_t word, new;
            uint32_t epoch = (uint32_t)test_random();
            zcp_manager *manager = NULL;
            memcpy(&word, v.image + at, 8);
            new = change / 2 < 4   ? changed_word(word, change / 2)
                  : change / 2 < 8 ? changed_word(word, 4 + (int)test_random_below(64))
                                   : test_random();
            if (at >= offsetof(zcp_priv_header, pools) && (at - first) % 64 == 0 && change / 2 >= 6)
                new = test_random_below(4) << 32 | test_random_below(5);          // a serial and a phase
            if (change % 2) {
                CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = v.name, .mode = ZCP_SHM_OPEN_EXISTING}),
                         ZCP_OK);
                exercise(manager);
            }
            CHECK_EQ(pwrite(v.management, &new, 8, (off_t)at), 8);
            CHECK_EQ(pwrite(v.management, &epoch, 4, (off_t)first), 4);            // so that it is looked at
            if (manager != NULL)
                exercise(manager);
            CHECK_IS(attempt(v.name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
            CHECK_IS(attempt_with(v.name, ZCP_SHM_OPEN_EXISTING, ZCP_READ_ONLY_DATA), ZCP_OK);
            if (manager != NULL)
                exercise(manager);
            BOUNDED(zcp_manager_close(manager));
            victim_restore(&v);
        }
    pools_change = false;
    victim_end(&v);
}

// Where the pools end that were added, and where one lies, are garbage: who adds another one must not cut off what
// others have mapped.
TEST(garbage_about_where_pools_end) {
    static victim v = {.grown = true};
    warm_up(test_instance());
    victim_make(&v, test_instance());
    pools_change = true;
    for (int how = 0; how < 2; how++) {
        static const zcp_pool_config far = {2900, 4, 0, 0}, another = {100, 4, 0, 0};
        zcp_manager *manager;
        zcp_chunk chunk;
        zcp_status status;
        uint32_t number;
        uint64_t ends[] = {4096 * 4, 4096 * 2}, word = how ? test_random() : UINT64_C(1) << 32;
        CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = v.name, .mode = ZCP_SHM_OPEN_EXISTING}),
                 ZCP_OK);
        CHECK_IS(zcp_manager_add_pool(manager, &far, &number), ZCP_OK);
        CHECK_IS(zcp_chunk_allocate(manager, 2900, &chunk), ZCP_OK);
        CHECK_EQ(pwrite(v.management, ends, sizeof ends, (off_t)offsetof(zcp_priv_header, signals.management_end)),
                 sizeof ends);
        for (uint32_t i = 2; i <= number || i <= 3; i++)           // a serial and no phase, or a check that is wrong
            CHECK_EQ(
                pwrite(v.management, &word, 8,
                       (off_t)(offsetof(zcp_priv_header, pools[i]) + (how ? offsetof(zcp_priv_pool_slot, check) : 0))),
                8);
        BOUNDED(status = zcp_manager_add_pool(manager, &another, NULL));
        check_told(status);
        touch(chunk.data, 2900);
        exercise(manager);
        BOUNDED(zcp_chunk_release(&chunk));
        BOUNDED(zcp_manager_close(manager));
        victim_restore(&v);
    }
    pools_change = false;
    victim_end(&v);
}

// Pools have changed, it says, in a way that cannot be learned: who waits for a chunk looks at that when it looks for
// dead clients, says it once, and sleeps meanwhile.
static unsigned changes_told;

static void count_changes_told(zcp_log_level level, const char *message, void *user) {
    (void)level, (void)user;
    changes_told += strstr(message, "an added pool cannot be used here") != NULL;
}

TEST(garbage_about_pools_lets_waiters_sleep) {
    static victim v = {.grown = true};
    enum { ROUND_MS = 100, ROUNDS = 3 };
    warm_up(test_instance());
    victim_make(&v, test_instance());
    uint32_t epoch;
    zcp_manager *manager;
    zcp_chunk chunk;
    CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = v.name, .mode = ZCP_SHM_OPEN_EXISTING}), ZCP_OK);
    while (zcp_chunk_allocate(manager, 200, &chunk) == ZCP_OK) {}
    off_t slot = (off_t)offsetof(zcp_priv_header, pools[zcp_manager_pool_end(manager)]);
    const uint64_t forged = UINT64_C(1000) << 32 | ZCP_PRIV_POOL_LIVE;           // and no check that goes with it
    CHECK_EQ(pwrite(v.management, &forged, 8, slot), 8);
    CHECK_EQ(pread(v.management, &epoch, 4, (off_t)offsetof(zcp_priv_header, signals)), 4);
    epoch++;
    CHECK_EQ(pwrite(v.management, &epoch, 4, (off_t)offsetof(zcp_priv_header, signals)), 4);
    zcp_log_set_callback(count_changes_told, NULL);
    zcp_log_set_level(ZCP_LOG_WARNING);
    changes_told = 0;
    hostile_accesses = 0;
    uint64_t began = test_now();
    CHECK_IS(zcp_chunk_allocate_wait(manager, 200, ROUND_MS * ROUNDS, &chunk), ZCP_ERR_TIMEOUT);
    uint64_t rounds = (test_now() - began) / (ROUND_MS * 1000000u) + 2;
    uint64_t accesses = hostile_accesses;
    zcp_log_set_level(ZCP_LOG_OFF);
    zcp_log_set_callback(NULL, NULL);
    CHECK_EQ(changes_told, 1);
    CHECK_MSG(accesses <= 4000 * rounds, "%llu accesses in %llu rounds", (unsigned long long)accesses,
              (unsigned long long)rounds);
    BOUNDED(zcp_manager_close(manager));
    victim_restore(&v);
    victim_end(&v);
}

// A header that says that a pool has gone, and another one has its number and its place, under a thread that has its
// hints on loan.
TEST(garbage_that_replaces_a_pool) {
    static victim v = {.grown = true};
    warm_up(test_instance());
    victim_make(&v, test_instance());
    for (int handles = 0; handles < 2; handles++) {
        zcp_manager *manager;
        zcp_chunk chunk, held = {0};
        zcp_priv_added added;
        CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = v.name, .mode = ZCP_SHM_OPEN_EXISTING}),
                 ZCP_OK);
        zcp_priv_pool_slot *slot = &manager->header->pools[2];
        CHECK_IS(zcp_chunk_allocate(manager, 200, &chunk), ZCP_OK);
        zcp_chunk_release(&chunk);
        if (handles)
            CHECK_IS(zcp_chunk_allocate(manager, 200, &held), ZCP_OK);
        uint32_t serial = (uint32_t)(slot->state >> 32);
        CHECK(zcp_priv_added_read(slot, serial, &added));
        slot->check = zcp_priv_added_check(&added, serial + 7);
        slot->state = zcp_priv_pool_state(serial + 7, ZCP_PRIV_POOL_LIVE);
        manager->header->signals.epoch++;
        CHECK(zcp_manager_pool_end(manager) > 2);                // it knows now
        for (int i = 0; i < 12; i++) {
            zcp_status status;
            BOUNDED(status = zcp_chunk_allocate(manager, 200, &chunk));
            check_told(status);
            if (status == ZCP_OK)
                touch(chunk.data, 200);
        }
        if (handles)
            touch(held.data, 200);
        BOUNDED(zcp_manager_close(manager));
        victim_restore(&v);
    }
    victim_end(&v);
}

// An id that no pool can have is refused; one that another pool has leaves that pool its own.
TEST(garbage_in_the_id_of_a_pool) {
    static victim v = {.grown = true};
    warm_up(test_instance());
    victim_make(&v, test_instance());
    zcp_manager *manager, *fresh;
    zcp_priv_added added;
    zcp_chunk chunk, other;
    uint32_t number = 0;
    CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = v.name, .mode = ZCP_SHM_OPEN_EXISTING}), ZCP_OK);
    CHECK_IS(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 300, .chunk_count = 4}, &number), ZCP_OK);
    CHECK_EQ(number, 3);
    zcp_priv_pool_slot *slot = &manager->header->pools[3];
    uint32_t serial = (uint32_t)(slot->state >> 32), taken = manager->header->pools[2].segment;
    CHECK(zcp_priv_added_read(slot, serial, &added) && added.segment > taken);
    const uint32_t ids[] = {0, 1, ZCP_SEGMENT_CHUNK, 65536, 65536 + added.segment, UINT32_MAX, taken};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        added.segment = ids[i];
        slot->segment = ids[i];
        slot->check = zcp_priv_added_check(&added, serial);
        CHECK_IS(zcp_manager_open(&fresh, &(zcp_manager_desc){.name = v.name, .mode = ZCP_SHM_OPEN_EXISTING}), ZCP_OK);
        const zcp_registry *registry = zcp_manager_registry(fresh);
        CHECK_IS(zcp_chunk_allocate(fresh, 200, &chunk), ZCP_OK);
        CHECK_EQ(zcp_relptr_segment(zcp_relptr_of(registry, chunk.data)), taken);
        if (ids[i] == taken) {
            CHECK_IS(zcp_chunk_allocate(fresh, 300, &other), ZCP_OK);
            CHECK_EQ(zcp_relptr_segment(zcp_relptr_of(registry, other.data)), 0);
            zcp_chunk_release(&other);
        } else {
            CHECK(zcp_priv_view_pool(&fresh->view, 3) == NULL);
        }
        zcp_chunk_release(&chunk);
        BOUNDED(zcp_manager_close(fresh));
    }
    zcp_manager_close(manager);
    victim_restore(&v);
    victim_end(&v);
}

// All of them at once, with values of several kinds.
TEST_WITH(garbage_in_all_words, .seconds = 120) {
    static victim v;
    warm_up(test_instance());
    victim_make(&v, test_instance());
    for (int round = 0; round < 300; round++) {
        size_t first =
            round % 3 == 0 ? sizeof(zcp_priv_header) : 4096 + SMALL_CLIENTS * sizeof(zcp_priv_slot) * (round % 3 == 1);
        uint64_t kind = test_random_below(4), dense = test_random_below(3);
        for (size_t at = first; at < v.bytes; at += 8) {
            uint64_t values[] = {test_random(), 0, UINT64_MAX,
                                 test_random_below(4) << 32 | test_random_below(6) << 21 | test_random_below(3)};
            if (dense == 0 || test_random_below(4) < dense)
                CHECK_EQ(pwrite(v.management, &values[kind], 8, (off_t)at), 8);
        }
        CHECK_IS(attempt(v.name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
        victim_restore(&v);
    }
    victim_end(&v);
}

TEST(garbage_of_another_byte_order_or_version) {
    static victim v;
    warm_up(test_instance());
    victim_make(&v, test_instance());
    zcp_priv_header header;
    memcpy((void *)&header, v.image, sizeof header);
    unsigned char other[sizeof header];
    memcpy(other, v.image, sizeof other);
    static const struct {
        size_t at, bytes;
    } fields[] = {{0, 8}, {8, 4}, {12, 4}, {16, 4}, {20, 4}, {24, 8}, {32, 8}, {40, 8}, {48, 8}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        test_swap_bytes(other + fields[i].at, fields[i].bytes);
    CHECK_EQ(pwrite(v.management, other, sizeof other, 0), sizeof other);
    for (int mode = 0; mode < 4; mode++)
        CHECK_IS(attempt(v.name, (zcp_shm_mode)mode), ZCP_ERR_LAYOUT);
    CHECK_IS(zcp_manager_destroy(v.name), ZCP_ERR_LAYOUT);
    CHECK_MSG(strstr(zcp_last_message(), "byte order") != NULL, "%s", zcp_last_message());
    victim_restore(&v);
    char own[32];
    snprintf(own, sizeof own, "version %u", header.layout_version);
    header.layout_version = 77;
    CHECK_EQ(pwrite(v.management, (void *)&header, sizeof header, 0), sizeof header);
    CHECK_IS(attempt(v.name, ZCP_SHM_OPEN_OR_CREATE), ZCP_ERR_VERSION);
    CHECK_MSG(strstr(zcp_last_message(), "version 77,") != NULL && strstr(zcp_last_message(), own) != NULL, "%s",
              zcp_last_message());
    CHECK_IS(zcp_manager_destroy(v.name), ZCP_OK);                 // the first words are the same in every version
    victim_end(&v);
}

// ---------------------------------------------------------------------------------------------------------------------
// Files of the wrong size

static void write_file(const char *at, const void *bytes, size_t count) {
    int fd = open(at, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, count) == (ssize_t)count);
    close(fd);
}

static void check_file(const char *at, const void *bytes, size_t count) {
    unsigned char is[4096];
    int fd = open(at, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && pread(fd, is, sizeof is, 0) == (ssize_t)count && memcmp(is, bytes, count) == 0);
    close(fd);
}

// The beginning of a valid segment, of each length.
TEST_WITH(garbage_of_each_size_up_to_a_page, .seconds = 120) {
    static victim v;
    warm_up(test_instance());
    victim_make(&v, test_instance());
    // small numbers
    const size_t with_state = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 17 : 20, with_version = with_state + 4;
    for (size_t bytes = 0; bytes <= 4096; bytes++) {
        write_file(management_path(v.name).text, v.image, bytes);
        zcp_status expected = bytes == 0             ? ZCP_ERR_NOT_FOUND
                              : bytes < 16           ? ZCP_ERR_NOT_ZEROCP
                              : bytes < with_state   ? ZCP_ERR_NOT_FOUND
                              : bytes < with_version ? ZCP_ERR_VERSION
                              : bytes < 32           ? ZCP_ERR_LAYOUT
                                                     : ZCP_ERR_CORRUPT;
        zcp_status status = attempt(v.name, ZCP_SHM_OPEN_EXISTING);
        if (bytes >= 32 && bytes < 64)
            CHECK_MSG(status == ZCP_ERR_CORRUPT || status == ZCP_ERR_NOT_FOUND, "%zu bytes: %s", bytes,
                      zcp_status_name(status));
        else if (bytes >= with_version && bytes < 32)
            CHECK_MSG(status == ZCP_ERR_LAYOUT || status == ZCP_ERR_CORRUPT, "%zu bytes: %s", bytes,
                      zcp_status_name(status));
        else
            CHECK_MSG(status == expected, "%zu bytes: is %s, expected %s", bytes, zcp_status_name(status),
                      zcp_status_name(expected));
    }
    victim_end(&v);
}

TEST(garbage_that_is_not_ours_is_left_alone) {
    static const size_t sizes[] = {1, 7, 8, 15, 16, 17, 63, 64, 1087, 1088, 4095, 4096};
    unsigned char bytes[4096];
    const char *name = test_instance();
    warm_up(name);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int fill = 0; fill < 3; fill++) {
            for (size_t i = 0; i < sizeof bytes; i++)
                bytes[i] = fill == 0 ? 0 : fill == 1 ? 0xff : (unsigned char)test_random();
            remove_both(name);
            write_file(management_path(name).text, bytes, sizes[s]);
            for (int mode = 0; mode < 4; mode++)
                CHECK_IS(attempt(name, (zcp_shm_mode)mode), ZCP_ERR_NOT_ZEROCP);
            CHECK_IS(attempt_with(name, ZCP_SHM_OPEN_EXISTING, ZCP_READ_ONLY_DATA), ZCP_ERR_NOT_ZEROCP);
            CHECK_IS(zcp_manager_destroy(name), ZCP_ERR_NOT_ZEROCP);
            check_file(management_path(name).text, bytes, sizes[s]);
        }
    check_fresh(name);
    remove_both(name);
    write_file(management_path(name).text, "", 0);                      // a killed creator's: taken over, or removed
    CHECK_IS(attempt(name, ZCP_SHM_OPEN_EXISTING), ZCP_ERR_NOT_FOUND);
    CHECK_IS(attempt(name, ZCP_SHM_CREATE_EXCLUSIVE), ZCP_OK);
    remove_both(name);
    write_file(management_path(name).text, "", 0);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    check_fresh(name);
    check_no_leak();
}

static void resize(const char *at, off_t bytes) {
    CHECK_MSG(truncate(at, bytes) == 0, "%s: %s", at, strerror(errno));
}

TEST(garbage_truncated_at_each_page) {
    static victim v;
    const char *name = test_instance();
    struct stat status;
    warm_up(name);
    victim_make(&v, name);
    CHECK(stat(chunk_path(name).text, &status) == 0);
    off_t chunk_bytes = status.st_size, management_bytes = (off_t)v.bytes;
    CHECK(chunk_bytes >= 2 * 4096 && management_bytes >= 2 * 4096);
    for (int mode = 0; mode < 3; mode++) {
        bool replaces = mode == ZCP_SHM_CREATE_EXCLUSIVE;          // nobody has it open, says its header, if whole
        zcp_status refused = replaces ? ZCP_ERR_EXISTS : ZCP_ERR_CORRUPT;
        for (off_t bytes = 4096; bytes <= management_bytes + 4096; bytes += 4096) {
            resize(management_path(name).text, bytes);
            zcp_status expected = bytes >= management_bytes ? ZCP_OK : refused;
            CHECK_IS(attempt(name, (zcp_shm_mode)mode), expected);
            victim_make(&v, name);
        }
        for (off_t bytes = 0; bytes <= chunk_bytes + 4096; bytes += 4096) {
            resize(chunk_path(name).text, bytes);
            zcp_status expected = replaces || bytes >= chunk_bytes ? ZCP_OK : refused;
            CHECK_IS(attempt(name, (zcp_shm_mode)mode), expected);
            resize(chunk_path(name).text, chunk_bytes);
        }
    }
    resize(management_path(name).text, 4096);
    CHECK_IS(attempt(name, ZCP_SHM_PURGE_AND_CREATE), ZCP_OK);
    resize(management_path(name).text, 16);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    victim_end(&v);
}

// ---------------------------------------------------------------------------------------------------------------------
// Segments that belong elsewhere, and what is no file

static void exchange(const char *a, const char *b) {
    enum { KERNEL_RENAME_EXCHANGE = 2 };                           // not every C library has renameat2
    CHECK_MSG(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, KERNEL_RENAME_EXCHANGE) == 0, "%s", strerror(errno));
}

TEST(garbage_of_swapped_segments) {
    static victim v, w;
    const char *name = test_instance_n(1), *other = test_instance_n(2);
    warm_up(name);
    victim_make(&v, name);
    exchange(management_path(name).text, chunk_path(name).text);
    for (int mode = 0; mode < 4; mode++)
        CHECK_IS(attempt(name, (zcp_shm_mode)mode), ZCP_ERR_NOT_ZEROCP);
    exchange(management_path(name).text, chunk_path(name).text);
    CHECK_IS(attempt(name, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
    victim_make(&w, other);
    // a chunk segment of another instance: broken, so removed
    exchange(chunk_path(name).text, chunk_path(other).text);
    CHECK_IS(attempt(name, ZCP_SHM_OPEN_EXISTING), ZCP_ERR_NOT_FOUND);
    CHECK_IS(attempt(other, ZCP_SHM_OPEN_OR_CREATE), ZCP_OK);
    victim_make(&v, name);
    victim_make(&w, other);
    exchange(management_path(name).text, management_path(other).text);
    CHECK_IS(attempt(name, ZCP_SHM_OPEN_OR_CREATE), ZCP_OK);
    CHECK_IS(attempt(other, ZCP_SHM_OPEN_EXISTING), ZCP_ERR_NOT_FOUND);
    close(w.management);
    remove_both(other);
    victim_end(&v);
}

typedef enum { A_FIFO, A_DIRECTORY, A_FULL_DIRECTORY, A_DANGLING_LINK, A_LINK, A_LOOP, A_SOCKET, A_DEVICE,
               STRANGERS } stranger;

static void place(stranger what, const char *at, const char *target) {
    int result = -1;
    if (what == A_FIFO)
        result = mkfifo(at, 0600);
    else if (what == A_DIRECTORY || what == A_FULL_DIRECTORY)
        result = mkdir(at, 0700);
    else if (what == A_DANGLING_LINK)
        result = symlink("/dev/shm/no-such-file-anywhere", at);
    else if (what == A_LINK)
        result = symlink(target, at);
    else if (what == A_LOOP)
        result = symlink(at, at);
    else if (what == A_DEVICE)
        result = mknod(at, S_IFCHR | 0600, makedev(1, 5));
    else if (what == A_SOCKET) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0 && strlen(at) < sizeof address.sun_path);
        memcpy(address.sun_path, at, strlen(at));
        result = bind(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
    }
    if (what == A_FULL_DIRECTORY && result == 0) {
        char inner[400];
        snprintf(inner, sizeof inner, "%s/full", at);
        result = mkdir(inner, 0700);
    }
    CHECK_MSG(result == 0 || (what == A_DEVICE && errno == EPERM), "%d at %s: %s", (int)what, at, strerror(errno));
}

static void displace(const char *at) {
    char inner[400];
    snprintf(inner, sizeof inner, "%s/full", at);
    rmdir(inner);
    if (unlink(at) != 0)
        rmdir(at);
    CHECK(access(at, F_OK) != 0);
}

static bool is_refused(zcp_status status) {
    // the latter for a device where there are none
    return status == ZCP_ERR_WRONG_TYPE || status == ZCP_ERR_PERMISSION ||
           // what glibc's shm_open makes of a directory (EINVAL)
           status == ZCP_ERR_INVALID_NAME;
}

TEST(garbage_that_is_no_file) {
    static victim v;
    const char *name = test_instance_n(1), *whole = test_instance_n(2);
    warm_up(name);
    victim_make(&v, whole);
    for (int what = 0; what < STRANGERS; what++)
        for (int at_chunk = 0; at_chunk < 2; at_chunk++) {
            path at = at_chunk ? chunk_path(name) : management_path(name);
            path target = at_chunk ? chunk_path(whole) : management_path(whole);
            remove_both(name);
            place((stranger)what, at.text, target.text);
            if (access(at.text, F_OK) != 0 && errno == ENOENT && what == A_DEVICE)
                continue;                                          // no right to make one
            for (int mode = 0; mode < 4; mode++) {
                zcp_status status = attempt(name, (zcp_shm_mode)mode);
                bool untouched = at_chunk && mode == ZCP_SHM_OPEN_EXISTING;
                CHECK_MSG(untouched ? status == ZCP_ERR_NOT_FOUND : is_refused(status), "%d, mode %d: %s", what, mode,
                          zcp_last_message());
                // nothing half-made is left beside it
                CHECK(!at_chunk || access(management_path(name).text, F_OK) != 0);
            }
            CHECK_MSG(is_refused(zcp_manager_destroy(name)), "%d: %s", what, zcp_last_message());
            displace(at.text);
            check_fresh(name);
        }
    for (int what = 0; what < STRANGERS; what++) {                 // in the place of a segment that was there
        CHECK_IS(attempt(whole, ZCP_SHM_OPEN_EXISTING), ZCP_OK);
        for (int at_chunk = 0; at_chunk < 2; at_chunk++) {
            path at = at_chunk ? chunk_path(whole) : management_path(whole), away = path_of(name, "-away");
            zcp_manager *manager;
            CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = whole}), ZCP_OK);
            CHECK(rename(at.text, away.text) == 0);
            place((stranger)what, at.text, away.text);
            if (access(at.text, F_OK) == 0 || errno != ENOENT || what != A_DEVICE) {
                zcp_status status = zcp_manager_check(manager);
                CHECK_MSG(at_chunk ? status == ZCP_OK : status == ZCP_ERR_REPLACED || status == ZCP_ERR_PERMISSION,
                          "%d: %s", what, zcp_last_message());
                CHECK_MSG(is_refused(attempt(whole, ZCP_SHM_OPEN_EXISTING)), "%d: %s", what, zcp_last_message());
                CHECK(zcp_manager_recover(manager, NULL) == ZCP_OK);
                displace(at.text);
            }
            CHECK(rename(away.text, at.text) == 0);
            exercise(manager);
            zcp_manager_close(manager);
        }
    }
    victim_end(&v);
}

TEST(garbage_that_is_no_file_for_a_segment_alone) {
    const char *name = test_instance();
    path at = path_of(name, "");
    warm_up(name);
    for (int what = 0; what < STRANGERS; what++) {
        place((stranger)what, at.text, "/etc/passwd");
        if (access(at.text, F_OK) != 0 && errno == ENOENT && what == A_DEVICE)
            continue;
        for (int mode = 0; mode < 4; mode++)
            for (uint32_t flags = 0; flags < 2; flags++) {
                zcp_shm shm;
                zcp_status status;
                bool creates = mode == ZCP_SHM_CREATE_EXCLUSIVE || mode == ZCP_SHM_PURGE_AND_CREATE;
                zcp_shm_desc desc = {
                    .name = name, .bytes = 4096, .mode = (zcp_shm_mode)mode, .flags = flags, .timeout_ms = 40};
                BOUNDED(status = zcp_shm_open(&shm, &desc));
                CHECK_MSG(flags && creates ? status == ZCP_ERR_INVALID_FLAGS : is_refused(status), "%d: %s", what,
                          zcp_last_message());
                CHECK(shm.base == NULL);
            }
        displace(at.text);
        zcp_shm shm;
        CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .bytes = 4096}), ZCP_OK);
        memset(shm.base, 1, 4096);
        zcp_shm_close(&shm);
        CHECK_IS(zcp_shm_unlink(name), ZCP_OK);
    }
    check_no_leak();
}

// ---------------------------------------------------------------------------------------------------------------------
// A peer that is always just ahead: every retry loop has a bound, and says so

typedef struct chased {
    zcp_manager *manager;
    zcp_chunk owned, marked, borrowed;
} chased;

static void die_holding(const char *name) {
    zcp_manager *manager;
    zcp_chunk chunk;
    CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = name}), ZCP_OK);
    for (int i = 0; i < 3; i++)
        CHECK_IS(zcp_chunk_allocate(manager, 100, &chunk), ZCP_OK);
    raise(SIGKILL);
}

static void chase(zcp_manager *manager, hostile_peer peer) {
    zcp_manager_info info;
    CHECK_IS(zcp_manager_get_info(manager, &info), ZCP_OK);
    hostile.first = (char *)info.management_base + 4096;
    hostile.last = (char *)info.management_base + info.management_bytes;
    hostile.lists = (int)info.pool_end;
    for (uint32_t p = 0; p < info.pool_end; p++) {
        const zcp_priv_pool_geometry *pool = &manager->geometry.pools[p];
        hostile.list_first[p] = (char *)info.management_base + pool->list_offset;
        hostile.list_last[p] = (char *)info.management_base + pool->records_offset;
    }
    hostile.peer = peer;
}

TEST(garbage_faster_than_any_loop) {
    const char *name = test_instance();
    zcp_config config = small_config();
    warm_up(name);
    for (hostile_peer peer = HOSTILE_CAS; peer <= HOSTILE_REFILL; peer++) {
        zcp_manager *manager;
        zcp_status status;
        zcp_chunk owned, marked, borrowed, fresh;
        CHECK_IS(zcp_manager_open(&manager,
                                  &(zcp_manager_desc){.name = name, .config = &config, .max_clients = SMALL_CLIENTS}),
                 ZCP_OK);
        pid_t dead = test_spawn_named(die_holding, name);
        test_join_signal(dead, SIGKILL);
        CHECK_IS(zcp_chunk_allocate(manager, 100, &owned), ZCP_OK);
        CHECK_IS(zcp_chunk_allocate(manager, 1000, &marked), ZCP_OK);
        uint64_t token = zcp_chunk_token(&marked);
        CHECK(token != 0);
        // by one who was killed before its reap
        zcp_priv_record *abandoned = zcp_priv_record_at(zcp_priv_view_pool(&manager->view, 1), 4);
        abandoned->state = zcp_priv_state(ZCP_PRIV_GENERATION(abandoned->state), 0, 3);
        chase(manager, peer);
        BOUNDED(status = zcp_chunk_acquire(manager, token, &borrowed));
        CHECK_IS(status, peer == HOSTILE_POP ? ZCP_OK : ZCP_ERR_CORRUPT);
        BOUNDED(status = zcp_chunk_allocate(manager, 1000, &fresh));
        check_told(status);
        bool on_loan = peer == HOSTILE_POP && status == ZCP_OK;       // it empties the list; what is on loan stays
        CHECK_MSG(status == ZCP_ERR_EXHAUSTED || status == ZCP_ERR_CORRUPT || on_loan, "peer %d: %s", (int)peer,
                  zcp_status_name(status));
        BOUNDED(zcp_chunk_release(&fresh));
        BOUNDED(status = zcp_manager_recover(manager, NULL));
        check_told(status);
        BOUNDED(zcp_chunk_release(&borrowed));
        BOUNDED(zcp_chunk_release(&marked));
        BOUNDED(zcp_chunk_release(&owned));
        zcp_priv_pool *retires = zcp_priv_view_pool(&manager->view, 1);
        zcp_priv_record_at(retires, 0)->state = zcp_priv_state(5, 0, 0);               // what is to be claimed first
        BOUNDED(status = zcp_manager_retire_pool(manager, 1));
        CHECK_IS(status, ZCP_OK);
        BOUNDED(zcp_manager_close(manager));
        hostile.peer = HOSTILE_NO_PEER;
        check_no_leak();
        check_fresh(name);
    }
}

// Each state is of one kind, also one that means two things at once, and no counter makes a figure that cannot be.
TEST(garbage_in_states_and_counters) {
    static const uint32_t owners[] = {0, 1, SMALL_CLIENTS, SMALL_CLIENTS + 1, ZCP_MAX_CLIENTS, ZCP_MAX_CLIENTS + 1,
                                      ZCP_PRIV_RETIRED_OWNER - 1, ZCP_PRIV_RETIRED_OWNER};
    static const uint32_t tickets[] = {0, 1, ZCP_PRIV_CACHED_TICKET - 1, ZCP_PRIV_CACHED_TICKET};
    const char *name = test_instance();
    zcp_config config = small_config();
    zcp_manager *manager;
    zcp_client_stats client;
    warm_up(name);
    zcp_manager_desc desc = {.name = name, .config = &config, .max_clients = SMALL_CLIENTS};
    CHECK_IS(zcp_manager_open(&manager, &desc), ZCP_OK);
    zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, 0);
    for (uint32_t lease = 0; lease <= zcp_priv_lease_count(pool->list.leaves); lease++) {
        zcp_priv_leases *all = pool->leases;
        bool apart = lease < zcp_priv_lease_count(pool->list.leaves);
        atomic_store(apart ? &all->items[lease].allocated : &all->allocated, UINT64_MAX - lease % 2);
        atomic_store(apart ? &all->items[lease].freed : &all->freed, lease % 3);
    }
    pool->leases->failures = pool->leases->waits = pool->leases->peak = UINT64_MAX;
    for (size_t o = 0; o < sizeof owners / sizeof owners[0]; o++)
        for (size_t t = 0; t < sizeof tickets / sizeof tickets[0]; t++) {
            uint32_t entries = 0;
            zcp_pool_stats stats;
            for (uint32_t i = 0; i < pool->count; i++) {
                zcp_priv_record_at(pool, i)->state = zcp_priv_state(7, owners[o], tickets[t]);
                zcp_priv_record_at(pool, i)->borrow[0] = UINT64_MAX;
            }
            CHECK_IS(zcp_manager_pool_stats(manager, 0, &stats), ZCP_OK);
            check_figures(&stats, 0);
            CHECK(stats.used == stats.total || stats.free == stats.total || stats.cached == stats.total);
            CHECK_IS(zcp_manager_census(manager, check_entry, &entries), ZCP_OK);
            CHECK_EQ(entries, stats.used);
            CHECK_IS(zcp_manager_client_stats(manager, 0, &client), ZCP_OK);
            CHECK(client.owned <= pool->count && client.borrowed <= pool->count && client.cached <= pool->count);
        }
    BOUNDED(zcp_manager_close(manager));
    check_no_leak();
    check_fresh(name);
}

// Pools seem to have come or gone at each look.
TEST(garbage_in_the_epoch_at_each_access) {
    const char *name = test_instance();
    zcp_config config = small_config();
    zcp_manager *manager;
    zcp_status status;
    zcp_chunk chunk;
    warm_up(name);
    CHECK_IS(
        zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .config = &config, .max_clients = SMALL_CLIENTS}),
        ZCP_OK);
    hostile.ticking = &manager->header->signals.epoch;
    for (uint32_t pool = 0; pool < ZCP_MAX_LIVE_POOLS; pool++) {
        BOUNDED(status =
                    zcp_chunk_acquire(manager, UINT64_C(1) << 32 | (uint64_t)pool << ZCP_PRIV_POOL_SHIFT | 3, &chunk));
        CHECK_MSG(status == ZCP_ERR_INVALID_TOKEN || status == ZCP_ERR_STALE, "%s", zcp_status_name(status));
    }
    exercise(manager);
    hostile.ticking = NULL;
    BOUNDED(zcp_manager_close(manager));
    check_fresh(name);
    check_no_leak();
}

// Who waits sleeps, whichever word of those that tell of news counts up all the time.
static uint64_t accesses_of_wait(zcp_manager *manager) {
    enum { WAIT_MS = 25 };
    zcp_chunk chunk;
    call_begin begin = begin_call();
    CHECK_IS(zcp_chunk_allocate_wait(manager, 100, WAIT_MS, &chunk), ZCP_ERR_TIMEOUT);
    uint64_t accesses = hostile_accesses;
    end_call(begin, "zcp_chunk_allocate_wait", __LINE__);
    return accesses;
}

TEST(garbage_that_counts_up_lets_waiters_sleep) {
    const char *name = test_instance();
    zcp_config config = small_config();
    zcp_manager *manager;
    zcp_chunk chunks[10];
    zcp_manager_desc desc = {.name = name, .config = &config, .max_clients = SMALL_CLIENTS};
    warm_up(name);
    CHECK_IS(zcp_manager_open(&manager, &desc), ZCP_OK);
    for (int i = 0; i < 10; i++)
        CHECK_IS(zcp_chunk_allocate(manager, 100, &chunks[i]), ZCP_OK);
    const struct { const char *what; void *at; size_t bytes; } parts[] = {
        {"the signals", &manager->header->signals, sizeof(zcp_priv_signals)},
        {"this client's slot", zcp_priv_slot_at(manager, manager->view.client), sizeof(zcp_priv_slot)},
        {"the pool's leases", zcp_priv_view_pool(&manager->view, 0)->leases, sizeof(zcp_priv_leases)},
    };
    uint64_t undisturbed = accesses_of_wait(manager);
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++)
        for (size_t at = 0; at < parts[p].bytes; at += 4) {
            _Atomic uint32_t *word = zcp_priv_object_at(parts[p].at, at);
            uint32_t was = *word;
            hostile.ticking = word;
            uint64_t accesses = accesses_of_wait(manager);
            hostile.ticking = NULL;
            *word = was;
            CHECK_MSG(accesses <= 128 * undisturbed, "byte %zu of %s counts up: %llu accesses, undisturbed %llu", at,
                      parts[p].what, (unsigned long long)accesses, (unsigned long long)undisturbed);
        }
    for (int i = 0; i < 10; i++)
        zcp_chunk_release(&chunks[i]);
    BOUNDED(zcp_manager_close(manager));
    check_fresh(name);
    check_no_leak();
}

// The same of who waits for a message, and of who waits for a reliable subscriber.
static uint64_t accesses_of_topics(zcp_publisher *publisher, zcp_subscriber *subscriber) {
    enum { WAIT_MS = 6 };
    zcp_message message;
    call_begin begin = begin_call();
    // unless it says that there is a message, or that nobody waits for it
    check_told(zcp_subscriber_receive(subscriber, WAIT_MS, &message));
    check_told(zcp_publisher_notify(publisher, NULL));
    uint64_t accesses = hostile_accesses;
    end_call(begin, "waits about topics", __LINE__);
    return accesses;
}

TEST(garbage_that_counts_up_lets_topics_sleep) {
    const char *name = test_instance();
    zcp_config config = small_config();
    zcp_manager *manager;
    zcp_publisher *publisher;
    zcp_subscriber *late, *subscriber;
    zcp_manager_desc desc = {.name = name, .config = &config, .max_clients = SMALL_CLIENTS};
    warm_up(name);
    CHECK_IS(zcp_manager_open(&manager, &desc), ZCP_OK);
    CHECK_IS(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = "a", .reliable = true}, &late), ZCP_OK);
    CHECK_IS(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = "b"}, &subscriber), ZCP_OK);
    CHECK_IS(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = "a", .depth = 1, .timeout_ms = 6}, &publisher),
             ZCP_OK);
    CHECK_IS(zcp_publisher_notify(publisher, NULL), ZCP_OK);
    const zcp_priv_geometry *geometry = &manager->geometry;
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    const struct { const char *what; void *at; size_t bytes; } parts[] = {
        {"the signals", &manager->header->signals, sizeof(zcp_priv_signals)},
        {"this client's slot", zcp_priv_slot_at(manager, manager->view.client), sizeof(zcp_priv_slot)},
        {"the publisher", tables.publishers, sizeof *tables.publishers},
        {"the subscribers", tables.subscribers, 2 * sizeof *tables.subscribers},
        {"the cursor", tables.cursors, sizeof *tables.cursors},
        {"the ring", tables.rings, geometry->ring_cells * sizeof(zcp_priv_cell)},
    };
    uint64_t undisturbed = accesses_of_topics(publisher, subscriber);
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++)
        for (size_t at = 0; at < parts[p].bytes; at += 4) {
            _Atomic uint32_t *word = zcp_priv_object_at(parts[p].at, at);
            uint32_t was = *word;
            hostile.ticking = word;
            uint64_t accesses = accesses_of_topics(publisher, subscriber);
            hostile.ticking = NULL;
            *word = was;
            CHECK_MSG(accesses <= 128 * undisturbed, "byte %zu of %s counts up: %llu accesses, undisturbed %llu", at,
                      parts[p].what, (unsigned long long)accesses, (unsigned long long)undisturbed);
        }
    BOUNDED(zcp_manager_close(manager));
    check_fresh(name);
    check_no_leak();
}

// With a recovery that cannot get on: CORRUPT, and the next one, undisturbed, finds everything.
TEST(garbage_that_holds_up_a_sweep) {
    const char *name = test_instance();
    zcp_config config = small_config();
    zcp_manager *manager;
    zcp_status status;
    zcp_recovery report;
    warm_up(name);
    CHECK_IS(
        zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .config = &config, .max_clients = SMALL_CLIENTS}),
        ZCP_OK);
    test_join_signal(test_spawn_named(die_holding, name), SIGKILL);
    chase(manager, HOSTILE_CAS);
    BOUNDED(status = zcp_manager_recover(manager, &report));
    CHECK_IS(status, ZCP_ERR_CORRUPT);
    hostile.peer = HOSTILE_NO_PEER;
    zcp_manager_close(manager);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    check_no_leak();
}

// ---------------------------------------------------------------------------------------------------------------------
// A scribbler beside live clients

enum { LIVE_MS = 450, LIVE_CLIENTS = 2, LIVE_SLOTS = SMALL_CLIENTS + 4 };
enum { ROUNDS = 800, LATE_MS = 10000 };                            // of the clients, where one thing is to be found

static uint64_t scribbled_value(void) {
    switch (test_random_below(live->kind == SCRIBBLE_PLAUSIBLE ? 2 : 8)) {
    case 0: return (test_random_below(3) + 1) << 32 | test_random_below(12) << 21 | test_random_below(4);
    case 1: return test_random_below(3);
    case 2: return UINT64_MAX;
    case 3: return 0;
    default: return test_random();
    }
}

static uint64_t scribbler_random(void *source, unsigned bytes) {
    (void)source;
    return test_random() >> (64 - 8 * bytes);
}

static zcp_priv_geometry live_geometry(void) {
    zcp_priv_geometry geometry;
    zcp_config config = small_config();
    CHECK_IS(zcp_priv_geometry_compute(&geometry, &config, LIVE_SLOTS), ZCP_OK);
    return geometry;
}

// Room for forged pools, before anybody adds one: who makes a file longer must not make it shorter under somebody else.
// No file grows beyond what the scribbler writes to. A client that adds a pool where a scribbled word says that the
// file ends would make it gigabytes long, and a description of a pool of so many chunks true, at which no call ends
// soon.
static void limit_files(uint64_t bytes) {
    rlim_t most = (rlim_t)scribble_end(bytes) + (1 << 20);
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){most, most}), 0);
}

static void make_room(const char *name) {
    zcp_priv_geometry geometry = live_geometry();
    limit_files(geometry.management_bytes > geometry.chunk_bytes ? geometry.management_bytes : geometry.chunk_bytes);
    CHECK_EQ(truncate(management_path(name).text, scribble_end(geometry.management_bytes)), 0);
    CHECK_EQ(truncate(chunk_path(name).text, scribble_end(geometry.chunk_bytes)), 0);
}

static void consistent_scribbler(const char *name) {
    zcp_priv_geometry geometry = live_geometry();
    int fd = open(management_path(name).text, O_RDWR | O_CLOEXEC);
    size_t bytes = (size_t)scribble_end(geometry.management_bytes);
    void *header = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(fd >= 0 && header != MAP_FAILED);
    scribble_target target = {.header = header, .geometry = &geometry, .random = scribbler_random};
    while (atomic_load(&live->stop) == 0) {
        uint64_t half = test_random();                             // of the kinds: one may undo what another did
        for (uint64_t bursts = 1 + test_random_below(64); bursts > 0 && atomic_load(&live->stop) == 0; bursts--) {
            for (int i = 0; i < 16; i++) {
                uint64_t kind = test_random_below(SCRIBBLE_KINDS);
                if (half >> kind & 1)
                    scribble_kinds[kind].write(&target);
            }
            atomic_fetch_add_explicit(&live->words, 8, memory_order_relaxed);
            test_sleep(1);                                         // or hardly anything that is written would be seen
        }
    }
}

// Who may take from a cache is told by these words of its pool's leases, as the record tells who holds a chunk: garbage
// there gives a cached chunk out twice. All else there are hints; in a pool without caches everything is.
static bool tells_who_takes(uint32_t pool, size_t at) {
    size_t first = offsetof(zcp_priv_leases, items), in_lease = (at - first) % sizeof(zcp_priv_lease);
    if (small_config().pools.items[pool].cache_chunks == 0)
        return false;
    if (at < first)
        return at == offsetof(zcp_priv_leases, recalls);
    return in_lease == offsetof(zcp_priv_lease, holder) || in_lease == offsetof(zcp_priv_lease, allocated)
           || in_lease == offsetof(zcp_priv_lease, begun);
}

static void scribbler(const char *name) {
    int fd = open(management_path(name).text, O_RDWR | O_CLOEXEC);
    struct stat status;
    CHECK(fd >= 0 && fstat(fd, &status) == 0);
    size_t words = (size_t)status.st_size / 8;
    void *memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    const zcp_priv_header *header = memory;
    const zcp_priv_pool_geometry *pools = header->geometry.pools;
    _Atomic uint64_t *at = memory;
    size_t first = live->kind == SCRIBBLE_ALL             ? 0
                   : live->kind == SCRIBBLE_BEHIND_HEADER ? 512
                                                          : 512 + SMALL_CLIENTS * 16;
    size_t leases[SMALL_POOLS], count[SMALL_POOLS];
    for (int p = 0; p < SMALL_POOLS; p++) {
        leases[p] = (size_t)pools[p].leases_offset / 8;
        count[p] = (size_t)pools[p].records_offset / 8 - leases[p];
    }
    while (atomic_load(&live->stop) == 0)
        for (int i = 0; i < 1000; i++) {
            if (live->kind == SCRIBBLE_POOLS && i % 16 == 0)
                test_sleep(1);                                     // or hardly anything that is written would stand
            size_t word = first + (size_t)test_random_below(words - first);
            if (live->kind == SCRIBBLE_POOLS)
                word = offsetof(zcp_priv_header, signals) / 8 + (size_t)test_random_below(8 + 6 * 8);
            else if (live->kind == SCRIBBLE_LEASES)
                do
                    word = (size_t)test_random_below(count[i % SMALL_POOLS]);
                while (tells_who_takes((uint32_t)i % SMALL_POOLS, word * 8));
            if (live->kind == SCRIBBLE_LEASES)
                word += leases[i % SMALL_POOLS];
            atomic_store_explicit(&at[word], scribbled_value(), memory_order_relaxed);
            atomic_fetch_add_explicit(&live->words, 1, memory_order_relaxed);
        }
}

static void *live_thread(void *argument) {
    while (atomic_load(&live->stop) == 0)
        exercise(argument);
    return NULL;
}

// Opens existing ones only: who may create would, where the state word says half-made, truncate the file of the others.
static zcp_status live_open(const char *name, zcp_manager **manager) {
    zcp_status status;
    BOUNDED(status = zcp_manager_open(
                manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING, .timeout_ms = 20}));
    check_told(status);
    return status;
}

static void live_client(const char *name) {
    zcp_manager *manager = NULL, *again = NULL;
    hostile_holdings inherited = hostile_holds();                  // counted, though no mapping of it is here
    for (int i = 0; i < 100 && manager == NULL && live->kind != SCRIBBLE_ALL; i++)
        live_open(name, &manager);
    if (manager == NULL) {                                         // the header did not live long enough
        atomic_fetch_add(&live->refused, 1);
        live_open(name, &manager);
    }
    hostile_holdings with_one = hostile_holds();
    while (manager != NULL && atomic_load(&live->stop) == 0) {
        exercise(manager);
        atomic_fetch_add(&live->calls, 1);
        if (live->kind == SCRIBBLE_CONSISTENT) {                   // one manager, and a new one before looks take long
            if (hostile.files > 1000) {
                BOUNDED(zcp_manager_close(manager));
                manager = NULL;
                live_open(name, &manager);
            }
            continue;
        }
        if (live_open(name, &again) == ZCP_OK) {
            exercise(again);
            BOUNDED(zcp_manager_close(again));
        } else
            atomic_fetch_add(&live->refused, 1);
    }
    hostile_holdings now = hostile_holds();
    // what pools take that came and went is given back at close
    CHECK(pools_change || hostile_same(&with_one, &now));
    BOUNDED(zcp_manager_close(manager));
    now = hostile_holds();
    CHECK(hostile_same(&inherited, &now));
}

static void live_beside(const char *name, scribble kind) {
    zcp_config config = small_config();
    zcp_manager *manager;
    pid_t clients[LIVE_CLIENTS];
    int others = only == MAPPINGS ? 0 : LIVE_CLIENTS;              // what is mapped is counted for one alone
    zcp_manager_desc desc = {.name = name, .config = &config, .max_clients = LIVE_SLOTS};
    CHECK_IS(zcp_manager_open(&manager, &desc), ZCP_OK);
    if (kind == SCRIBBLE_CONSISTENT)
        make_room(name);
    live->kind = kind;
    pools_change = kind != SCRIBBLE_LEASES;
    atomic_store(&live->stop, 0);
    for (int i = 0; i < others; i++)
        clients[i] = test_spawn_named(live_client, name);
    test_sleep(kind == SCRIBBLE_ALL ? 30 : 5);
    pid_t writer = test_spawn_named(kind == SCRIBBLE_CONSISTENT ? consistent_scribbler : scribbler, name);
    pthread_t thread = {0};
    if (others > 0)
        thread = test_thread(live_thread, manager);                // and two threads on one manager
    bool alone = only == ROOM || only == FIGURES;
    uint64_t until = test_now() + LIVE_MS * UINT64_C(1000000), late = until + (alone ? LATE_MS * UINT64_C(1000000) : 0);
    for (int most = 0, now; test_now() < until || (alone && atomic_load(&live->calls) < ROUNDS && test_now() < late);
         most = now > most ? now : most) {
        exercise(manager);
        now = hostile.files + hostile.anonymous;
        if (only == MAPPINGS && now > most)                        // as long as it maps, it has not come to its limit
            until = test_now() + 2 * LIVE_MS * UINT64_C(1000000);
    }
    atomic_store(&live->stop, 1);
    if (others > 0)
        test_thread_join(thread);
    for (int i = 0; i < others; i++)
        test_join(clients[i]);
    test_join(writer);
    BOUNDED(zcp_manager_close(manager));
    if (kind == SCRIBBLE_LEASES)
        check_obtains_all(name);
    live->kind = SCRIBBLE_ALL;
    pools_change = false;
    check_fresh(name);
    check_no_leak();
    test_note("kind %d: %u words scribbled, %u rounds, %u opens refused", (int)kind, atomic_exchange(&live->words, 0),
              atomic_exchange(&live->calls, 0), atomic_exchange(&live->refused, 0));
}

TEST_WITH(garbage_live, .seconds = 120, .weight = 2) {
    live = test_shared(sizeof *live);
    warm_up(test_instance());
    for (int kind = 0; kind < SCRIBBLES; kind++)
        live_beside(test_instance(), (scribble)kind);
}

// Each of these is to be found by the same scribbler, by random writes of all its kinds.
static void live_beside_consistent(check what) {
    only = what;
    live = test_shared(sizeof *live);
    warm_up(test_instance());
    live_beside(test_instance(), SCRIBBLE_CONSISTENT);
}

TEST_WITH(garbage_consistent_gives_no_chunk_smaller_than_asked, .seconds = 120, .weight = 2) {
    live_beside_consistent(ROOM);
}

TEST_WITH(garbage_consistent_shows_no_figure_above_the_total, .seconds = 120, .weight = 2) {
    live_beside_consistent(FIGURES);
}

TEST_WITH(garbage_consistent_leaves_mappings_to_the_application, .seconds = 120, .weight = 2) {
    live_beside_consistent(MAPPINGS);
}

// The word that says READY becomes 0 under a live client. Somebody who may create must not take the file for half-made
// and truncate it: a client is there, so it is garbage.
static void create_beside(const char *name) {
    zcp_log_set_level(ZCP_LOG_OFF);
    CHECK_IS(attempt(name, ZCP_SHM_OPEN_OR_CREATE), ZCP_ERR_CORRUPT);
}

TEST(garbage_in_the_state_word_of_a_live_instance) {
    const char *name = test_instance();
    zcp_config config = small_config();
    zcp_manager *manager;
    zcp_chunk chunk;
    CHECK_IS(
        zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .config = &config, .max_clients = SMALL_CLIENTS}),
        ZCP_OK);
    CHECK_IS(zcp_chunk_allocate(manager, 100, &chunk), ZCP_OK);
    zcp_priv_store_release(&manager->header->state, (uint32_t)ZCP_PRIV_BUILDING);
    test_join(test_spawn_named(create_beside, name));
    CHECK(zcp_chunk_is_valid(&chunk));
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
}
