// bench/cases.h: what is measured. A case does `count` operations in this process (loop), and with procs == 2 in a second
// one at the same time: the same loop, or the other half of the work (peer). What takes long measures itself (once).
#ifndef ZEROCP_BENCH_CASES_H
#define ZEROCP_BENCH_CASES_H

#include "library.h"

#include "kit.h"

#include <pthread.h>
#include <sys/statvfs.h>

enum { CHUNKS = 4096, CHUNK_BYTES = 256, FULL_CHUNKS = 1024, RECOVER_CHUNKS = 100000, RECOVER_HELD = 1000 };
enum { RING = 256, WINDOW = 64 };                                  // messages in the ring, and at most on their way
static const uint64_t large_bytes = UINT64_C(1) << 30;

typedef struct bench_case {
    const char *name, *what;
    int procs;
    void (*loop)(uint64_t count);
    void (*peer)(uint64_t count);
    double (*once)(void);                                          // ns; NULL for a loop
} bench_case;

// ---------------------------------------------------------------------------------------------------------------------
// What both processes share. A line for each word that one of them writes.

typedef struct line { _Alignas(64) _Atomic uint64_t word; } line;

typedef struct locked_pool {                                       // the control: a free list behind a mutex
    _Alignas(64) pthread_mutex_t mutex;
    uint32_t top, items[CHUNKS];
    _Alignas(64) unsigned char chunks[CHUNKS][CHUNK_BYTES];
} locked_pool;

typedef struct shared_state {
    line arrived, stop, ball, head, tail, bad, phase;
    _Alignas(64) uint64_t ring[RING];
    _Alignas(64) unsigned char slots[RING][CHUNK_BYTES];
    locked_pool locked;
    _Alignas(64) unsigned char list[32768];
} shared_state;

static shared_state *shared;
static bool is_peer;
static zcp_manager *manager;                                       // this process's client of the main instance
static zcp_manager *full_manager, *recover_manager;
static zcp_chunk held, full_held[FULL_CHUNKS];
static zcp_mpmc_list list;

static zcp_config config_of(uint64_t chunk_size, uint32_t chunk_count) {
    zcp_config config = {0};
    MUST_OK(zcp_config_add_pool(&config, chunk_size, chunk_count));
    return config;
}

static zcp_manager *open_instance(bench_name name, zcp_shm_mode mode, const zcp_config *config) {
    zcp_manager *opened;
    MUST_OK(zcp_manager_open(&opened, &(zcp_manager_desc){.name = name_of(name), .mode = mode, .config = config, .client_name = "bench"}));
    return opened;
}

// ---------------------------------------------------------------------------------------------------------------------
// Yardsticks

static void rmw_loop(uint64_t count) {
    static line mine;
    for (uint64_t i = 0; i < count; i++)
        atomic_fetch_add_explicit(&mine.word, 1, memory_order_relaxed);
}

static void write_lines(void *data) {                              // the work on each chunk: its first and its last line
    volatile uint64_t *words = hide(data);
    words[0] = 1;
    words[CHUNK_BYTES / 8 - 1] = 2;
}

static void malloc_loop(uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        void *data = hide(malloc(CHUNK_BYTES));
        write_lines(data);
        free(data);
    }
}

static void locked_setup(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    MUST(pthread_mutex_init(&shared->locked.mutex, &attributes) == 0);
    for (uint32_t i = 0; i < CHUNKS; i++)
        shared->locked.items[i] = i;
    shared->locked.top = CHUNKS;
}

static void locked_loop(uint64_t count) {
    locked_pool *pool = hide(&shared->locked);
    for (uint64_t i = 0; i < count; i++) {
        pthread_mutex_lock(&pool->mutex);
        uint32_t index = pool->items[--pool->top];
        pthread_mutex_unlock(&pool->mutex);
        write_lines(pool->chunks[index]);
        pthread_mutex_lock(&pool->mutex);
        pool->items[pool->top++] = index;
        pthread_mutex_unlock(&pool->mutex);
    }
}

// One bounce = there and back; so a count of n crosses 2 n times. Reported per crossing.
static void bounce(uint64_t count, uint64_t odd) {
    for (uint64_t i = 0; i < count; i++) {
        while (atomic_load_explicit(&shared->ball.word, memory_order_acquire) % 2 != odd)
            spin();
        atomic_fetch_add_explicit(&shared->ball.word, 1, memory_order_release);
    }
}
static void bounce_loop(uint64_t count) {
    bounce(count / 2, 0);
    while (atomic_load_explicit(&shared->ball.word, memory_order_acquire) % 2 != 0)
        spin();
}
static void bounce_peer(uint64_t count) {
    bounce(count / 2, 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Chunks

static void pair_loop(uint64_t count) {
    zcp_chunk chunk;
    for (uint64_t i = 0; i < count; i++) {
        if (zcp_chunk_allocate(manager, CHUNK_BYTES, &chunk) != ZCP_OK)
            die("allocate: %s", zcp_last_message());
        write_lines(chunk.data);
        zcp_chunk_release(&chunk);
    }
}

// A burst of 32 and then their release, so that nothing is tuned to a pair alone. Counted per pair.
static void burst_loop(uint64_t count) {
    zcp_chunk chunks[32];
    for (uint64_t i = 0; i < count; i += 32) {
        for (int j = 0; j < 32; j++) {
            if (zcp_chunk_allocate(manager, CHUNK_BYTES, &chunks[j]) != ZCP_OK)
                die("allocate: %s", zcp_last_message());
            write_lines(chunks[j].data);
        }
        for (int j = 0; j < 32; j++)
            zcp_chunk_release(&chunks[j]);
    }
}

static void clone_loop(uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        zcp_chunk clone = zcp_chunk_clone(&held);
        if (!clone.manager)
            die("clone: %s", zcp_last_message());
        zcp_chunk_release(&clone);
    }
}

static void acquire_loop(uint64_t count) {
    uint64_t token = zcp_chunk_token(&held);
    for (uint64_t i = 0; i < count; i++) {
        zcp_chunk chunk;
        if (zcp_chunk_acquire(manager, token, &chunk) != ZCP_OK)
            die("acquire: %s", zcp_last_message());
        zcp_chunk_release(&chunk);
    }
}

static void exhausted_loop(uint64_t count) {
    zcp_chunk chunk;
    for (uint64_t i = 0; i < count; i++)
        if (zcp_chunk_allocate(full_manager, 64, &chunk) != ZCP_ERR_EXHAUSTED)
            die("allocate from an exhausted pool: %s", zcp_last_message());
}

static void list_setup(void) {
    uint64_t bytes = zcp_mpmc_list_bytes(CHUNKS);
    MUST(bytes != 0 && bytes <= sizeof shared->list);
    MUST_OK(zcp_mpmc_list_create(&list, shared->list, bytes, CHUNKS, true));
}

static void list_loop(uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint32_t index;
        if (!zcp_mpmc_list_pop(&list, &index) || !zcp_mpmc_list_push(&list, index))
            die("the list lost an index");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Hand-off. Tokens go through a ring with one sender and one receiver; the receiver's index is the acknowledgement, and
// the sender keeps its handle until that has passed it.

static void fill(void *data, uint64_t value) {
    uint64_t *words = hide(data);
    for (int i = 0; i < CHUNK_BYTES / 8; i++)
        words[i] = value + (uint64_t)i;
    hide(data);
}

static void verify(void *data, uint64_t value) {
    const uint64_t *words = hide(data);
    uint64_t wrong = 0;
    for (int i = 0; i < CHUNK_BYTES / 8; i++)
        wrong |= words[i] ^ (value + (uint64_t)i);
    if (wrong)
        atomic_store(&shared->bad.word, 1);
}

static uint64_t await_index(line *at, uint64_t index) {            // until it is index or more
    uint64_t seen;
    while ((seen = atomic_load_explicit(&at->word, memory_order_acquire)) < index)
        spin();
    return seen;
}

static void handoff_loop(uint64_t count) {
    static zcp_chunk sent[RING];
    uint64_t first = atomic_load(&shared->head.word), released = first, seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        zcp_chunk *chunk = &sent[i % RING];
        if (i - released >= WINDOW)
            seen = await_index(&shared->tail, i - WINDOW + 1);
        for (; released < seen; released++)
            zcp_chunk_release(&sent[released % RING]);
        if (zcp_chunk_allocate(manager, CHUNK_BYTES, chunk) != ZCP_OK)
            die("allocate: %s", zcp_last_message());
        fill(chunk->data, i);
        shared->ring[i % RING] = zcp_chunk_token(chunk);
        atomic_store_explicit(&shared->head.word, i + 1, memory_order_release);
    }
    await_index(&shared->tail, first + count);
    for (; released < first + count; released++)
        zcp_chunk_release(&sent[released % RING]);
}

static void handoff_peer(uint64_t count) {
    uint64_t first = atomic_load(&shared->tail.word), seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        zcp_chunk chunk;
        if (i >= seen)
            seen = await_index(&shared->head, i + 1);
        if (zcp_chunk_acquire(manager, shared->ring[i % RING], &chunk) != ZCP_OK)
            die("acquire: %s", zcp_last_message());
        verify(chunk.data, i);
        zcp_chunk_release(&chunk);
        atomic_store_explicit(&shared->tail.word, i + 1, memory_order_release);
    }
}

// The limit: the same bytes through the same ring in slots that nobody allocates or counts.
static void slots_loop(uint64_t count) {
    uint64_t first = atomic_load(&shared->head.word), seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        if (i - seen >= WINDOW)
            seen = await_index(&shared->tail, i - WINDOW + 1);
        fill(shared->slots[i % RING], i);
        shared->ring[i % RING] = i;
        atomic_store_explicit(&shared->head.word, i + 1, memory_order_release);
    }
    await_index(&shared->tail, first + count);
}

static void slots_peer(uint64_t count) {
    uint64_t first = atomic_load(&shared->tail.word), seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        if (i >= seen)
            seen = await_index(&shared->head, i + 1);
        verify(shared->slots[i % RING], shared->ring[i % RING]);
        atomic_store_explicit(&shared->tail.word, i + 1, memory_order_release);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A client that stands still. It holds some chunks and allocates and releases without end; before each measurement it may
// run for a moment and is then stopped wherever it is.

static pid_t stopped_pid;

static void await_stopped(void) {
    int status;
    MUST(waitpid(stopped_pid, &status, WUNTRACED) == stopped_pid);
    if (!WIFSTOPPED(status))
        die("the client that is to be stopped has ended");
}

static void stopped_setup(void) {
    if ((stopped_pid = helper_fork()) == 0) {
        zcp_chunk chunks[16];
        cpu_pin(cpus[1]);
        zcp_manager *mine = open_instance(NAME_MAIN, ZCP_SHM_OPEN_EXISTING, NULL);
        for (int i = 0; i < 16; i++)
            MUST_OK(zcp_chunk_allocate(mine, CHUNK_BYTES, &chunks[i]));
        raise(SIGSTOP);
        manager = mine;
        for (;;)
            pair_loop(1 << 20);
    }
    await_stopped();
}

static double stopped_once(void) {
    enum { COUNT = 40000 };
    kill(stopped_pid, SIGCONT);
    usleep(500);
    kill(stopped_pid, SIGSTOP);
    await_stopped();
    uint64_t began = now_ns();
    pair_loop(COUNT);
    return (double)(now_ns() - began) / COUNT;
}

// ---------------------------------------------------------------------------------------------------------------------
// Instances

static void attach_loop(uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        zcp_manager_close(open_instance(NAME_MAIN, ZCP_SHM_OPEN_EXISTING, NULL));
}

static void create_loop(uint64_t count) {
    zcp_config config = config_of(256, 100);
    for (uint64_t i = 0; i < count; i++) {
        zcp_manager_close(open_instance(NAME_SMALL, ZCP_SHM_CREATE_EXCLUSIVE, &config));
        MUST_OK(zcp_manager_destroy(name_of(NAME_SMALL)));
    }
}

static bool large_fits(void) {
    struct statvfs shm;
    unsigned long long available = 0;
    char text[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(text, sizeof text, file))
        if (sscanf(text, "MemAvailable: %llu", &available) == 1)
            break;
    if (file)
        fclose(file);
    return statvfs("/dev/shm", &shm) == 0 && (uint64_t)shm.f_bavail * shm.f_frsize >= 3 * large_bytes
        && available * 1024 >= 3 * large_bytes;
}

static zcp_config large_config(void) {
    return config_of(UINT64_C(1) << 20, (uint32_t)(large_bytes >> 20));
}

static double create_large_once(void) {
    zcp_config config = large_config();
    uint64_t began = now_ns();
    zcp_manager *opened = open_instance(NAME_LARGE, ZCP_SHM_CREATE_EXCLUSIVE, &config);
    double ns = (double)(now_ns() - began);
    zcp_manager_close(opened);
    MUST_OK(zcp_manager_destroy(name_of(NAME_LARGE)));
    return ns;
}

static double fallocate_large_once(void) {
    zcp_config config = large_config();
    uint64_t began = now_ns();
    int fd = open(name_paths[NAME_RAW][2], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    MUST(fd >= 0);
    MUST((errno = posix_fallocate(fd, 0, (off_t)zcp_config_total_bytes(&config, 0))) == 0);
    double ns = (double)(now_ns() - began);
    MUST(unlink(name_paths[NAME_RAW][2]) == 0);
    close(fd);
    return ns;
}

static double recover_once(void) {
    zcp_recovery report;
    uint64_t chunks = 0;
    double ns = 0;
    pid_t victim = helper_fork();
    if (victim == 0) {
        zcp_chunk chunk;
        zcp_manager *mine = open_instance(NAME_RECOVER, ZCP_SHM_OPEN_EXISTING, NULL);
        for (int i = 0; i < RECOVER_HELD; i++)
            MUST_OK(zcp_chunk_allocate(mine, 64, &chunk));
        raise(SIGSTOP);
        _exit(1);
    }
    int status;
    MUST(waitpid(victim, &status, WUNTRACED) == victim && WIFSTOPPED(status));
    helper_kill(victim);
    uint64_t began = now_ns();
    MUST_OK(zcp_manager_recover(recover_manager, &report));
    ns = (double)(now_ns() - began);
    chunks = report.chunks_reclaimed;
    if (report.dead_clients != 1 || chunks != RECOVER_HELD)
        die("recovery took back %llu chunks of %u dead clients; %d of 1 were expected", (unsigned long long)chunks, report.dead_clients, RECOVER_HELD);
    return ns;
}

// ---------------------------------------------------------------------------------------------------------------------
// The list of all cases, in the order in which each round runs them.

static const bench_case cases[] = {
    {"rmw", "one uncontended read-modify-write: the unit of the column RMWs", 1, rmw_loop, NULL, NULL},
    {"malloc", "malloc + free, private memory", 1, malloc_loop, NULL, NULL},
    {"mutex", "control: free list behind a mutex, in shared memory", 1, locked_loop, NULL, NULL},
    {"mutex", "control, two processes", 2, locked_loop, NULL, NULL},
    {"pair", "allocate + release", 1, pair_loop, NULL, NULL},
    {"pair", "allocate + release, two processes on one pool", 2, pair_loop, NULL, NULL},
    {"stopped", "allocate + release beside a client that was stopped anywhere", 1, NULL, NULL, stopped_once},
    {"burst", "allocate + release, 32 allocations and then 32 releases", 1, burst_loop, NULL, NULL},
    {"burst", "the same, two processes on one pool", 2, burst_loop, NULL, NULL},
    {"clone", "clone + release of the clone", 1, clone_loop, NULL, NULL},
    {"acquire", "acquire by token + release, in the owner's process", 1, acquire_loop, NULL, NULL},
    {"list", "list: pop + push", 1, list_loop, NULL, NULL},
    {"list", "list: pop + push, two processes", 2, list_loop, NULL, NULL},
    {"exhausted", "allocate that is told EXHAUSTED", 1, exhausted_loop, NULL, NULL},
    {"transfer", "a cache line to the other CPU", 2, bounce_loop, bounce_peer, NULL},
    {"slots", "256 B to another process, static slots: the limit", 2, slots_loop, slots_peer, NULL},
    {"handoff", "256 B to another process, chunk and token", 2, handoff_loop, handoff_peer, NULL},
    {"attach", "open an existing instance + close", 1, attach_loop, NULL, NULL},
    {"create", "create + close + destroy, 100 chunks of 256 B", 1, create_loop, NULL, NULL},
    {"recover", "recover: 1,000 chunks of a killed client, of 100,000", 1, NULL, NULL, recover_once},
    {"fallocate_1g", "posix_fallocate of as many bytes as create_1g takes", 1, NULL, NULL, fallocate_large_once},
    {"create_1g", "create 1,024 chunks of 1 MiB", 1, NULL, NULL, create_large_once},
};
enum { CASES = sizeof cases / sizeof cases[0] };

#endif
