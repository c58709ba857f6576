// bench/peers/boost.cpp: Boost.Interprocess: a managed segment behind its mutex, and its node allocators, with and
// without a cache per process. All over anonymous shared memory that the workers inherit, so that no name is left.
#include "../contender.h"

#include <boost/interprocess/allocators/cached_node_allocator.hpp>
#include <boost/interprocess/allocators/node_allocator.hpp>
#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <new>

namespace bi = boost::interprocess;

static const bench_host *host;

namespace {

// As managed_shared_memory is: best fit, under a process-shared mutex.
using segment = bi::basic_managed_external_buffer<char, bi::rbtree_best_fit<bi::mutex_family>, bi::iset_index>;

struct chunk_type {
    unsigned char payload[SLOT_BYTES] __attribute__((aligned(16)));
};

using node_type = bi::node_allocator<chunk_type, segment::segment_manager>;
using cached_type = bi::cached_node_allocator<chunk_type, segment::segment_manager>;

struct pool_base {
    segment *memory;
    uint32_t bytes;
    size_t free_before;
};

pool_base base_create(uint32_t chunks, uint32_t bytes) {
    size_t size = (static_cast<size_t>(bytes) + 32) * chunks * 5 / 4 + (1u << 20);
    void *memory = host->shared_memory(size);
    pool_base base = {new segment(bi::create_only, memory, size), bytes, 0};
    base.free_before = base.memory->get_free_memory();
    return base;
}

void check_free(const char *name, const pool_base &base) {
    if (base.memory->get_free_memory() != base.free_before)
        host->die("%s: %zu of %zu bytes are free", name, static_cast<size_t>(base.memory->get_free_memory()),
                  base.free_before);
}

// A message is the distance from the start of the segment.
uint64_t message_of(const pool_base &base, void *payload) {
    return static_cast<uint64_t>(static_cast<char *>(payload) - static_cast<char *>(base.memory->get_address()));
}

void *payload_of(const pool_base &base, uint64_t message) {
    return static_cast<char *>(base.memory->get_address()) + message;
}

// ---------------------------------------------------------------------------------------------------------------------

void *managed_create(uint32_t chunks, uint32_t bytes) {
    return new pool_base(base_create(chunks, bytes));
}

void managed_check(void *pool) {
    check_free("boost-managed", *static_cast<pool_base *>(pool));
}

uint32_t managed_bytes(void *pool) {
    return static_cast<pool_base *>(pool)->bytes;
}

inline void *managed_allocate(void *pool, void **chunk) {
    pool_base *p = static_cast<pool_base *>(hide(pool));
    return *chunk = p->memory->allocate(p->bytes);
}

inline void managed_release(void *pool, void **chunk) {
    static_cast<pool_base *>(hide(pool))->memory->deallocate(*chunk);
}

inline uint64_t managed_give(void *pool, void **chunk) {
    return message_of(*static_cast<pool_base *>(pool), *chunk);
}

inline void managed_given(void *, void **) {}
inline void *managed_take(void *pool, uint64_t message, void **chunk) {
    return *chunk = payload_of(*static_cast<pool_base *>(pool), message);
}

inline void managed_taken(void *pool, void **chunk) {
    managed_release(pool, chunk);
}

// ---------------------------------------------------------------------------------------------------------------------

template <class allocator> struct node_pool : pool_base {
    // of this process; the nodes' pool lies in the segment
    allocator *nodes;
};

template <class allocator> void *nodes_create(uint32_t chunks, uint32_t bytes) {
    if (bytes != SLOT_BYTES)
        return NULL;
    node_pool<allocator> *pool = new node_pool<allocator>();
    static_cast<pool_base &>(*pool) = base_create(chunks, bytes);
    pool->nodes = new allocator(pool->memory->get_segment_manager());
    return pool;
}

// The last allocator gives the pool of nodes back to the segment; then as much is free as there was. (An allocator is
// ended and made again because deallocate_cache of 1.74 leaves its chain as it was, and so frees all twice.)
template <class allocator> void nodes_check(const char *name, void *memory) {
    node_pool<allocator> *pool = static_cast<node_pool<allocator> *>(memory);
    delete pool->nodes;
    check_free(name, *pool);
    pool->nodes = new allocator(pool->memory->get_segment_manager());
}

template <class allocator> inline void *nodes_allocate(void *memory, void **chunk) {
    node_pool<allocator> *pool = static_cast<node_pool<allocator> *>(hide(memory));
    return *chunk = pool->nodes->allocate_one().get();
}

template <class allocator> inline void nodes_release(void *memory, void **chunk) {
    node_pool<allocator> *pool = static_cast<node_pool<allocator> *>(hide(memory));
    pool->nodes->deallocate_one(typename allocator::pointer(static_cast<chunk_type *>(*chunk)));
}

void *node_create(uint32_t chunks, uint32_t bytes) { return nodes_create<node_type>(chunks, bytes); }
void node_check(void *pool) { nodes_check<node_type>("boost-node", pool); }
uint32_t node_bytes(void *) { return SLOT_BYTES; }
inline void *node_allocate(void *pool, void **chunk) { return nodes_allocate<node_type>(pool, chunk); }
inline void node_release(void *pool, void **chunk) { nodes_release<node_type>(pool, chunk); }
inline uint64_t node_give(void *pool, void **chunk) {
    return message_of(*static_cast<node_pool<node_type> *>(pool), *chunk);
}

inline void node_given(void *, void **) {}
inline void *node_take(void *pool, uint64_t message, void **chunk) {
    return *chunk = payload_of(*static_cast<node_pool<node_type> *>(pool), message);
}

inline void node_taken(void *pool, void **chunk) { node_release(pool, chunk); }

void *cached_create(uint32_t chunks, uint32_t bytes) { return nodes_create<cached_type>(chunks, bytes); }
void cached_check(void *pool) { nodes_check<cached_type>("boost-cached", pool); }
void cached_join(void *memory, int worker) {                       // a cache of its own
    node_pool<cached_type> *pool = static_cast<node_pool<cached_type> *>(memory);
    if (worker > 0)
        pool->nodes = new cached_type(pool->memory->get_segment_manager());
}

void cached_leave(void *memory, int worker) {
    if (worker > 0)
        delete static_cast<node_pool<cached_type> *>(memory)->nodes;
}

uint32_t cached_bytes(void *) { return SLOT_BYTES; }
inline void *cached_allocate(void *pool, void **chunk) { return nodes_allocate<cached_type>(pool, chunk); }
inline void cached_release(void *pool, void **chunk) { nodes_release<cached_type>(pool, chunk); }
inline uint64_t cached_give(void *pool, void **chunk) {
    return message_of(*static_cast<node_pool<cached_type> *>(pool), *chunk);
}

inline void cached_given(void *, void **) {}
inline void *cached_take(void *pool, uint64_t message, void **chunk) {
    return *chunk = payload_of(*static_cast<node_pool<cached_type> *>(pool), message);
}

inline void cached_taken(void *pool, void **chunk) { cached_release(pool, chunk); }

#define handle void *
#define managed_host host
#define node_host host
#define cached_host host

#define LOOP(x) managed_##x
#define LOOP_HANDS_OFF
#include "../loops.h"
const contender managed_contender = {
    "boost-managed", "Boost.Interprocess, managed segment: best fit behind a mutex", managed_create, NULL, NULL, NULL,
    managed_check, LOOP_TABLE, true, true,
};
#undef LOOP

#define LOOP(x) node_##x
#define LOOP_HANDS_OFF
#include "../loops.h"
const contender node_contender = {
    "boost-node", "Boost.Interprocess, node_allocator: shared pool of nodes behind a mutex", node_create, NULL, NULL,
    NULL, node_check, LOOP_TABLE, true, true,
};
#undef LOOP

// Its cache is guarded by nothing: the documentation wants one allocator object per thread.
#define LOOP(x) cached_##x
#define LOOP_HANDS_OFF
#include "../loops.h"
const contender cached_contender = {
    "boost-cached", "Boost.Interprocess, cached_node_allocator: 64 nodes cached per process",
    cached_create,  cached_join,
    cached_leave,   NULL,
    cached_check,   LOOP_TABLE,
    false,          true,
};
#undef LOOP

} // namespace

extern "C" const contender *const *bench_peer(const bench_host *given, int abi);
extern "C" const contender *const *bench_peer(const bench_host *given, int abi) {
    static const contender *const all[] = {&managed_contender, &node_contender, &cached_contender, NULL};
    host = given;
    return abi == BENCH_ABI ? all : NULL;
}
