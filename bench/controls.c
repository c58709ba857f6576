// bench/controls.c: what is easy to judge: malloc, a free list behind a mutex, a linked stack with a tag, static slots.
#include "controls.h"

#include "kit.h"

#include <pthread.h>
#include <stdlib.h>

static const bench_host *host;

// ---------------------------------------------------------------------------------------------------------------------
// malloc: private memory, so there is no hand-off, and two processes do not meet.

typedef struct malloc_pool {
    uint32_t bytes;
} malloc_pool;

static void *malloc_create(uint32_t chunks, uint32_t bytes) {
    malloc_pool *pool = malloc(sizeof *pool);
    (void)chunks;
    MUST(pool != NULL);
    pool->bytes = bytes;
    return pool;
}

static uint32_t malloc_bytes(void *pool) {
    return ((const malloc_pool *)pool)->bytes;
}

static inline void *malloc_allocate(void *pool, void **chunk) {
    return *chunk = hide(malloc(malloc_bytes(pool)));
}

static inline void malloc_release(void *pool, void **chunk) {
    (void)pool;
    free(hide(*chunk));
}

#define LOOP(x) malloc_##x
#define handle void *
#define malloc_host host
#include "loops.h"
static const contender malloc_contender = {
    "malloc", "glibc's malloc + free: private memory of one process", malloc_create, NULL, NULL, free, NULL, LOOP_TABLE,
    true, true,
};
#undef LOOP
#undef handle

// ---------------------------------------------------------------------------------------------------------------------
// The control: a free list behind a process-shared mutex.

typedef struct mutex_pool {
    pthread_mutex_t mutex __attribute__((aligned(128)));
    uint32_t top, chunks, bytes;
    size_t size;
    unsigned char *payload;
    uint32_t items[];
} mutex_pool;

static void *mutex_create(uint32_t chunks, uint32_t bytes) {
    pthread_mutexattr_t attributes;
    size_t head = (sizeof(mutex_pool) + chunks * sizeof(uint32_t) + 4095) / 4096 * 4096,
           size = head + (size_t)chunks * bytes;
    mutex_pool *pool = shared_memory(size);
    pool->size = size;
    pool->payload = (unsigned char *)pool + head;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    MUST(pthread_mutex_init(&pool->mutex, &attributes) == 0);
    for (uint32_t i = 0; i < chunks; i++)
        pool->items[i] = chunks - 1 - i;
    pool->top = pool->chunks = chunks;
    pool->bytes = bytes;
    return pool;
}

static void mutex_destroy(void *memory) {
    mutex_pool *pool = memory;
    shared_memory_free(pool, pool->size);
}

static void mutex_check(void *memory) {
    const mutex_pool *pool = memory;
    if (pool->top != pool->chunks)
        die("mutex: %u of %u chunks are free", pool->top, pool->chunks);
}

static uint32_t mutex_bytes(void *memory) {
    return ((const mutex_pool *)memory)->bytes;
}

static inline void *mutex_allocate(void *memory, uint32_t *chunk) {
    mutex_pool *pool = hide(memory);
    pthread_mutex_lock(&pool->mutex);
    bool any = pool->top != 0;
    if (any)
        *chunk = pool->items[--pool->top];
    pthread_mutex_unlock(&pool->mutex);
    if (!any)
        die("mutex: no chunk is free");
    return pool->payload + (size_t)*chunk * pool->bytes;
}

static inline void mutex_release(void *memory, uint32_t *chunk) {
    mutex_pool *pool = hide(memory);
    pthread_mutex_lock(&pool->mutex);
    pool->items[pool->top++] = *chunk;
    pthread_mutex_unlock(&pool->mutex);
}

// One handle goes from hand to hand: the receiver releases.
static inline uint64_t mutex_give(void *memory, const uint32_t *chunk) {
    (void)memory;
    return *chunk;
}

static inline void mutex_given(void *memory, const uint32_t *chunk) {
    (void)memory, (void)chunk;
}

static inline void *mutex_take(void *memory, uint64_t message, uint32_t *chunk) {
    mutex_pool *pool = hide(memory);
    *chunk = (uint32_t)message;
    return pool->payload + (size_t)*chunk * pool->bytes;
}

static inline void mutex_taken(void *memory, uint32_t *chunk) {
    mutex_release(memory, chunk);
}

#define LOOP(x) mutex_##x
#define LOOP_HANDS_OFF
#define handle uint32_t
#define mutex_host host
#include "loops.h"
static const contender mutex_contender = {
    "mutex", "control: free list behind a mutex in shared memory", mutex_create, NULL, NULL, mutex_destroy, mutex_check,
    LOOP_TABLE, true, true,
};
#undef LOOP
#undef handle

// ---------------------------------------------------------------------------------------------------------------------
// A linked stack (Treiber's): its head is an index and a tag that counts, against ABA; each chunk has a count of
// holders. Who dies between two steps loses the chunk for good: that is the price of its three locked instructions.

typedef struct stack_record {
    uint32_t next, holders;
} stack_record;

typedef struct stack_pool {
    line head;                                                     // tag:32 index:32; index 2^32-1 is none
    uint32_t chunks, bytes;
    size_t size;
    unsigned char *payload;
    stack_record records[] __attribute__((aligned(128)));
} stack_pool;

static inline uint64_t stack_head(uint64_t before, uint32_t index) {
    return ((before >> 32) + 1) << 32 | index;
}

static inline void stack_push(stack_pool *pool, uint32_t index) {
    uint64_t head = get_relaxed(&pool->head);
    do
        __atomic_store_n(&pool->records[index].next, (uint32_t)head, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&pool->head.word, &head, stack_head(head, index), true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
}

static inline uint32_t stack_pop(stack_pool *pool) {
    uint64_t head = get_acquire(&pool->head);
    uint32_t next;
    do {
        if ((uint32_t)head == UINT32_MAX)
            die("stack: no chunk is free");
        next = __atomic_load_n(&pool->records[(uint32_t)head].next, __ATOMIC_RELAXED);
    } while (!__atomic_compare_exchange_n(&pool->head.word, &head, stack_head(head, next), true, __ATOMIC_ACQUIRE,
                                          __ATOMIC_ACQUIRE));
    return (uint32_t)head;
}

static void *stack_create(uint32_t chunks, uint32_t bytes) {
    size_t head = (sizeof(stack_pool) + chunks * sizeof(stack_record) + 4095) / 4096 * 4096,
           size = head + (size_t)chunks * bytes;
    stack_pool *pool = shared_memory(size);
    pool->chunks = chunks;
    pool->bytes = bytes;
    pool->size = size;
    pool->payload = (unsigned char *)pool + head;
    pool->head.word = UINT32_MAX;
    for (uint32_t i = chunks; i-- > 0;)
        stack_push(pool, i);
    return pool;
}

static void stack_destroy(void *memory) {
    stack_pool *pool = memory;
    shared_memory_free(pool, pool->size);
}

static void stack_check(void *memory) {
    const stack_pool *pool = memory;
    uint32_t free_chunks = 0;
    for (uint32_t at = (uint32_t)pool->head.word; at != UINT32_MAX && free_chunks <= pool->chunks;
         at = pool->records[at].next)
        free_chunks += pool->records[at].holders == 0;
    if (free_chunks != pool->chunks)
        die("stack: %u of %u chunks are free", free_chunks, pool->chunks);
}

static uint32_t stack_bytes(void *memory) {
    return ((const stack_pool *)memory)->bytes;
}

static inline void *stack_allocate(void *memory, uint32_t *chunk) {
    stack_pool *pool = hide(memory);
    *chunk = stack_pop(pool);
    __atomic_store_n(&pool->records[*chunk].holders, 1, __ATOMIC_RELAXED);
    return pool->payload + (size_t)*chunk * pool->bytes;
}

static inline void stack_release(void *memory, const uint32_t *chunk) {
    stack_pool *pool = hide(memory);
    if (__atomic_fetch_sub(&pool->records[*chunk].holders, 1, __ATOMIC_ACQ_REL) == 1)
        stack_push(pool, *chunk);
}

static inline uint64_t stack_give(void *memory, const uint32_t *chunk) {
    (void)memory;
    return *chunk;
}

static inline void stack_given(void *memory, const uint32_t *chunk) {
    (void)memory, (void)chunk;
}

static inline void *stack_take(void *memory, uint64_t message, uint32_t *chunk) {
    stack_pool *pool = hide(memory);
    *chunk = (uint32_t)message;
    return pool->payload + (size_t)*chunk * pool->bytes;
}

static inline void stack_taken(void *memory, const uint32_t *chunk) {
    stack_release(memory, chunk);
}

#define LOOP(x) stack_##x
#define LOOP_HANDS_OFF
#define handle uint32_t
#define stack_host host
#include "loops.h"
static const contender stack_contender = {
    "stack", "linked stack with a tag and a count per chunk, not crash-safe", stack_create, NULL, NULL, stack_destroy,
    stack_check, LOOP_TABLE, true, true,
};
#undef LOOP
#undef handle

// ---------------------------------------------------------------------------------------------------------------------
// The limit of a hand-off: the same bytes through the same ring in slots that nobody allocates or counts.

static uint64_t slots_next;

static void *slots_create(uint32_t chunks, uint32_t bytes) {
    (void)chunks;
    return bytes == SLOT_BYTES ? host->shared->slots : NULL;
}

static uint32_t slots_bytes(void *pool) {
    (void)pool;
    return SLOT_BYTES;
}

static inline void *slots_allocate(void *pool, uint32_t *chunk) {
    (void)pool;
    *chunk = (uint32_t)(slots_next++ % RING);
    return host->shared->slots[*chunk];
}

static inline uint64_t slots_give(void *pool, const uint32_t *chunk) {
    (void)pool;
    return *chunk;
}

static inline void slots_given(void *pool, const uint32_t *chunk) {
    (void)pool, (void)chunk;
}

static inline void *slots_take(void *pool, uint64_t message, uint32_t *chunk) {
    (void)pool;
    *chunk = (uint32_t)message;
    return host->shared->slots[message % RING];
}

static inline void slots_taken(void *pool, uint32_t *chunk) {
    (void)pool, (void)chunk;
}

#define LOOP(x) slots_##x
#define LOOP_ONLY_HANDS_OFF
#define handle uint32_t
#define slots_host host
#include "loops.h"
static const contender slots_contender = {
    "slots", "the limit: static slots, nothing allocated or counted", slots_create, NULL, NULL, NULL, NULL, LOOP_TABLE,
    true, true,
};

const contender *const *controls(const bench_host *given) {
    static const contender *const all[] = {&malloc_contender, &mutex_contender, &stack_contender, &slots_contender,
                                           NULL};
    host = given;
    return all;
}
