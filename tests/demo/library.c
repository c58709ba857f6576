// library.c: what make compiles into libzerocp.so and libzerocp.a: the implementation of the three headers, and beside
// it what other languages need. Three things: a table of sizes, offsets and constants, so that nobody copies a struct
// by hand; zeros at the addresses of chunks in a forked child, so that an array of a language that cannot forget it
// reads something there; and calls that a language cannot make in steps, because something may happen between them.
//
// What it exports beside the functions of the headers:
//
//   const char *zcp_library_row(uint32_t row, uint64_t *offset, uint64_t *bytes, char *kind)
//       A row of the table, from 0 on; NULL after the last. The result is a name, and kind says of what:
//           {   a struct, "zcp_chunk": its size in bytes; offset is its alignment
//           =   a constant, "ZCP_WAIT": offset is its value, and bytes is 0
//       else a field of a struct, "zcp_chunk.data": its offset and size in bytes, and what it is:
//           u   an unsigned number, also an enumeration; in more bytes than 8: several of 8 bytes
//           b   a bool
//           s   a pointer to a text that ends with 0
//           c   a text that ends with 0, in the struct itself
//           p   another pointer
//           r   a struct, or several
//   bool zcp_library_zero_in_child(void *address, uint64_t bytes)
//       In each child that fork makes from now on, these bytes (and the rest of their pages) are zeros of its own,
//       where zerocp would leave nothing mapped. false: no memory. As often as it was called, zcp_library_forget takes
//       it back. Thread-safe.
//   void zcp_library_forget(void *address, uint64_t bytes)
//   zcp_status zcp_library_receive(zcp_subscriber *subscriber, uint32_t timeout_ms, zcp_message *message,
//                                  zcp_chunk *chunk)
//       zcp_subscriber_receive, _keep and _done: from then on only the handle holds the message. That of an event is
//       empty. After a failure both are zero.
//   zcp_status zcp_library_publish(zcp_publisher *publisher, const zcp_chunk *chunk, zcp_delivery *delivery)
//       zcp_publisher_publish of a clone: the handle stays the caller's, so arrays of the chunk stay good.
//   zcp_status zcp_library_topics(const zcp_manager *manager, zcp_topic_entry *entries, uint32_t room, uint32_t *count)
//   zcp_status zcp_library_census(const zcp_manager *manager, zcp_census_entry *entries, uint32_t room,
//                                 uint32_t *count)
//       What zcp_manager_topics and _census show, as far as there is room; count: how many there are.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000                               // Linux 4.17; an older one takes it as a wish
#endif

const char *zcp_library_row(uint32_t row, uint64_t *offset, uint64_t *bytes, char *kind);
bool zcp_library_zero_in_child(void *address, uint64_t bytes);
void zcp_library_forget(void *address, uint64_t bytes);
zcp_status zcp_library_receive(zcp_subscriber *subscriber, uint32_t timeout_ms, zcp_message *message, zcp_chunk *chunk);
zcp_status zcp_library_publish(zcp_publisher *publisher, const zcp_chunk *chunk, zcp_delivery *delivery);
zcp_status zcp_library_topics(const zcp_manager *manager, zcp_topic_entry *entries, uint32_t room, uint32_t *count);
zcp_status zcp_library_census(const zcp_manager *manager, zcp_census_entry *entries, uint32_t room, uint32_t *count);

// ---------------------------------------------------------------------------------------------------------------------
// The table

typedef struct library_row {
    const char *name;
    uint64_t offset, bytes;
    char kind;
} library_row;

// An array is here what it is in an expression: a pointer to its first item. So its size tells it from a pointer.
#define KIND(field)                                                                                                    \
    _Generic((field), uint16_t: 'u', uint32_t: 'u', uint64_t: 'u', bool: 'b', int: 'u', uint64_t *: 'u',               \
             const char *: 's', char *: 'c', void *: 'p', zcp_manager *: 'p', const zcp_config *: 'p',                 \
             const void *: 'p', default: 'r')

#define STRUCT(type) {#type, _Alignof(type), sizeof(type), '{'},
#define MEMBER(type, field) (((type *)0)->field)
#define FIELD(type, field)                                                                                             \
    {#type "." #field, offsetof(type, field), sizeof MEMBER(type, field), KIND(MEMBER(type, field))},
#define CONSTANT(constant) {#constant, (uint64_t)(constant), 0, '='},
#define STATUS(code, what, todo) CONSTANT(code)

static const library_row library_rows[] = {
    ZCP_STATUS_TABLE(STATUS) CONSTANT(ZCP_STATUS_COUNT)

    STRUCT(zcp_relptr)
    FIELD(zcp_relptr, bits)
    STRUCT(zcp_registry_entry)
    FIELD(zcp_registry_entry, tag) FIELD(zcp_registry_entry, base) FIELD(zcp_registry_entry, bytes)
    STRUCT(zcp_registry)
    FIELD(zcp_registry, entries)
    CONSTANT(ZCP_RELPTR_MAX_OFFSET) CONSTANT(ZCP_REGISTRY_CAPACITY)

    CONSTANT(ZCP_SHM_OPEN_OR_CREATE) CONSTANT(ZCP_SHM_OPEN_EXISTING)
    CONSTANT(ZCP_SHM_CREATE_EXCLUSIVE) CONSTANT(ZCP_SHM_PURGE_AND_CREATE)
    CONSTANT(ZCP_SHM_READ_ONLY) CONSTANT(ZCP_SHM_PREFAULT) CONSTANT(ZCP_SHM_LOCK) CONSTANT(ZCP_SHM_ANY_OWNER)
    CONSTANT(ZCP_SHM_NO_RESERVE) CONSTANT(ZCP_SHM_NO_DUMP) CONSTANT(ZCP_SHM_GROUP)
    CONSTANT(ZCP_SHM_DEFAULT_PERMISSIONS) CONSTANT(ZCP_SHM_DEFAULT_TIMEOUT_MS)
    STRUCT(zcp_shm_desc)
    FIELD(zcp_shm_desc, name) FIELD(zcp_shm_desc, bytes) FIELD(zcp_shm_desc, mode) FIELD(zcp_shm_desc, permissions)
    FIELD(zcp_shm_desc, group) FIELD(zcp_shm_desc, flags) FIELD(zcp_shm_desc, timeout_ms)
    STRUCT(zcp_shm)
    FIELD(zcp_shm, base) FIELD(zcp_shm, bytes) FIELD(zcp_shm, device) FIELD(zcp_shm, inode) FIELD(zcp_shm, created)
    FIELD(zcp_shm, flags)

    CONSTANT(ZCP_MAX_POOLS) CONSTANT(ZCP_MAX_LIVE_POOLS) CONSTANT(ZCP_MAX_CLIENTS) CONSTANT(ZCP_MAX_CHUNKS)
    CONSTANT(ZCP_MAX_ALIGNMENT)
    CONSTANT(ZCP_DEFAULT_CLIENTS) CONSTANT(ZCP_DEFAULT_ALIGNMENT) CONSTANT(ZCP_NO_CLIENT) CONSTANT(ZCP_MAX_CACHE_CHUNKS)
    STRUCT(zcp_pool_config)
    FIELD(zcp_pool_config, chunk_size) FIELD(zcp_pool_config, chunk_count) FIELD(zcp_pool_config, alignment)
    FIELD(zcp_pool_config, cache_chunks)
    STRUCT(zcp_pool_vector)
    FIELD(zcp_pool_vector, size) FIELD(zcp_pool_vector, items)
    STRUCT(zcp_config)
    FIELD(zcp_config, pools) FIELD(zcp_config, publishers) FIELD(zcp_config, subscribers) FIELD(zcp_config, ring_cells)
    CONSTANT(ZCP_MAX_PUBLISHERS) CONSTANT(ZCP_MAX_SUBSCRIBERS) CONSTANT(ZCP_MAX_RING_CELLS)
    CONSTANT(ZCP_DEFAULT_PUBLISHERS) CONSTANT(ZCP_DEFAULT_SUBSCRIBERS) CONSTANT(ZCP_DEFAULT_RING_CELLS)
    CONSTANT(ZCP_MPMC_LIST_MAX_CAPACITY)
    STRUCT(zcp_mpmc_list)
    FIELD(zcp_mpmc_list, memory) FIELD(zcp_mpmc_list, capacity) FIELD(zcp_mpmc_list, cursor)
    FIELD(zcp_mpmc_list, leaves) FIELD(zcp_mpmc_list, leaf_shift) FIELD(zcp_mpmc_list, first_leaf)

    CONSTANT(ZCP_FALLBACK) CONSTANT(ZCP_READ_ONLY_DATA) CONSTANT(ZCP_WAIT) CONSTANT(ZCP_CHECKED) CONSTANT(ZCP_OBSERVE)
    STRUCT(zcp_manager_desc)
    FIELD(zcp_manager_desc, name) FIELD(zcp_manager_desc, mode) FIELD(zcp_manager_desc, config)
    FIELD(zcp_manager_desc, max_clients) FIELD(zcp_manager_desc, permissions) FIELD(zcp_manager_desc, flags)
    FIELD(zcp_manager_desc, client_name) FIELD(zcp_manager_desc, timeout_ms) FIELD(zcp_manager_desc, group)
    FIELD(zcp_manager_desc, data_permissions) FIELD(zcp_manager_desc, max_chunks)
    STRUCT(zcp_recovery)
    FIELD(zcp_recovery, dead_clients) FIELD(zcp_recovery, chunks_reclaimed)
    CONSTANT(ZCP_POOL_NONE) CONSTANT(ZCP_POOL_LIVE) CONSTANT(ZCP_POOL_RETIRING)
    STRUCT(zcp_pool_stats)
    FIELD(zcp_pool_stats, chunk_size) FIELD(zcp_pool_stats, total) FIELD(zcp_pool_stats, used)
    FIELD(zcp_pool_stats, free) FIELD(zcp_pool_stats, stride) FIELD(zcp_pool_stats, alignment)
    FIELD(zcp_pool_stats, cache_chunks)
    FIELD(zcp_pool_stats, cached) FIELD(zcp_pool_stats, state) FIELD(zcp_pool_stats, peak_used)
    FIELD(zcp_pool_stats, allocations) FIELD(zcp_pool_stats, releases) FIELD(zcp_pool_stats, failures)
    FIELD(zcp_pool_stats, waits) FIELD(zcp_pool_stats, disturbed)
    STRUCT(zcp_manager_info)
    FIELD(zcp_manager_info, name) FIELD(zcp_manager_info, management_name) FIELD(zcp_manager_info, chunk_name)
    FIELD(zcp_manager_info, management_bytes) FIELD(zcp_manager_info, chunk_bytes)
    FIELD(zcp_manager_info, management_base) FIELD(zcp_manager_info, chunk_base) FIELD(zcp_manager_info, instance_id)
    FIELD(zcp_manager_info, max_clients) FIELD(zcp_manager_info, slot) FIELD(zcp_manager_info, pool_end)
    FIELD(zcp_manager_info, flags)
    CONSTANT(ZCP_CLIENT_FREE) CONSTANT(ZCP_CLIENT_ALIVE) CONSTANT(ZCP_CLIENT_DEAD)
    STRUCT(zcp_client_info)
    FIELD(zcp_client_info, state) FIELD(zcp_client_info, pid) FIELD(zcp_client_info, start) FIELD(zcp_client_info, name)
    STRUCT(zcp_client_stats)
    FIELD(zcp_client_stats, state) FIELD(zcp_client_stats, pid) FIELD(zcp_client_stats, start)
    FIELD(zcp_client_stats, name) FIELD(zcp_client_stats, owned) FIELD(zcp_client_stats, borrowed)
    FIELD(zcp_client_stats, bytes)
    FIELD(zcp_client_stats, cached)
    STRUCT(zcp_census_entry)
    FIELD(zcp_census_entry, pool) FIELD(zcp_census_entry, index) FIELD(zcp_census_entry, generation)
    FIELD(zcp_census_entry, tag) FIELD(zcp_census_entry, size) FIELD(zcp_census_entry, capacity)
    FIELD(zcp_census_entry, owner) FIELD(zcp_census_entry, borrowers) FIELD(zcp_census_entry, borrower_mask)
    FIELD(zcp_census_entry, age) FIELD(zcp_census_entry, token)
    CONSTANT(ZCP_SEGMENT_MANAGEMENT) CONSTANT(ZCP_SEGMENT_CHUNK)
    STRUCT(zcp_chunk_desc)
    FIELD(zcp_chunk_desc, size) FIELD(zcp_chunk_desc, tag) FIELD(zcp_chunk_desc, timeout_ms)
    STRUCT(zcp_chunk)
    FIELD(zcp_chunk, manager) FIELD(zcp_chunk, data) FIELD(zcp_chunk, index) FIELD(zcp_chunk, generation)

    CONSTANT(ZCP_MAX_TOPIC_BYTES)
    STRUCT(zcp_publisher_desc)
    FIELD(zcp_publisher_desc, topic) FIELD(zcp_publisher_desc, depth) FIELD(zcp_publisher_desc, keep)
    FIELD(zcp_publisher_desc, timeout_ms) FIELD(zcp_publisher_desc, exclusive) FIELD(zcp_publisher_desc, never_waits)
    STRUCT(zcp_delivery)
    FIELD(zcp_delivery, number) FIELD(zcp_delivery, subscribers) FIELD(zcp_delivery, overtaken)
    STRUCT(zcp_subscriber_desc)
    FIELD(zcp_subscriber_desc, topic) FIELD(zcp_subscriber_desc, reliable) FIELD(zcp_subscriber_desc, latest)
    FIELD(zcp_subscriber_desc, history) FIELD(zcp_subscriber_desc, spin_us)
    STRUCT(zcp_message)
    FIELD(zcp_message, data) FIELD(zcp_message, size) FIELD(zcp_message, number) FIELD(zcp_message, lost)
    FIELD(zcp_message, skipped) FIELD(zcp_message, source) FIELD(zcp_message, publisher) FIELD(zcp_message, tag)
    STRUCT(zcp_topic_entry)
    FIELD(zcp_topic_entry, topic) FIELD(zcp_topic_entry, publisher) FIELD(zcp_topic_entry, reliable)
    FIELD(zcp_topic_entry, ended) FIELD(zcp_topic_entry, client) FIELD(zcp_topic_entry, depth)
    FIELD(zcp_topic_entry, keep) FIELD(zcp_topic_entry, source) FIELD(zcp_topic_entry, messages)
    FIELD(zcp_topic_entry, unread) FIELD(zcp_topic_entry, lost) FIELD(zcp_topic_entry, held)
    FIELD(zcp_topic_entry, latest) FIELD(zcp_topic_entry, exclusive) FIELD(zcp_topic_entry, never_waits)
    FIELD(zcp_topic_entry, waits_for)

    CONSTANT(ZCP_LOG_OFF) CONSTANT(ZCP_LOG_ERROR) CONSTANT(ZCP_LOG_WARNING)
    CONSTANT(ZCP_LOG_INFO) CONSTANT(ZCP_LOG_DEBUG)
};

const char *zcp_library_row(uint32_t row, uint64_t *offset, uint64_t *bytes, char *kind) {
    if (row >= sizeof library_rows / sizeof library_rows[0])
        return NULL;
    *offset = library_rows[row].offset;
    *bytes = library_rows[row].bytes;
    *kind = library_rows[row].kind;
    return library_rows[row].name;
}

// ---------------------------------------------------------------------------------------------------------------------
// Zeros in a forked child. This runs before anything else of the child could map something there: as a handler of
// pthread_atfork, not as one of the language.

typedef struct child_zeros {
    struct child_zeros *next;                                      // by address
    uintptr_t begin, end;
} child_zeros;

static pthread_mutex_t child_zeros_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t child_zeros_once = PTHREAD_ONCE_INIT;
static child_zeros *child_zeros_first;
static bool child_zeros_handled;

static void child_zeros_lock(void) {
    pthread_mutex_lock(&child_zeros_mutex);
}

static void child_zeros_unlock(void) {
    pthread_mutex_unlock(&child_zeros_mutex);
}

// Maps zeros over [begin, end), of which nothing is mapped. If something is, an array would show other memory: rather
// die.
static void child_zeros_map(uintptr_t begin, uintptr_t end) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    void *wanted = (void *)begin;
    if (mmap(wanted, end - begin, PROT_READ | PROT_WRITE, flags, -1, 0) != wanted) {
        static const char message[] = "libzerocp: the addresses of a chunk are taken in a forked child\n";
        if (write(STDERR_FILENO, message, sizeof message - 1) < 0)
            abort();
        abort();
    }
}

// Chunks may share a page, and be in the list more than once.
static void child_zeros_begin(void) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), done = 0;
    while (child_zeros_first != NULL) {
        child_zeros *first = child_zeros_first;
        uintptr_t begin = first->begin & ~(page - 1), end = (first->end + page - 1) & ~(page - 1);
        if (begin < done)
            begin = done;
        if (begin < end)
            child_zeros_map(begin, end);
        done = end > done ? end : done;
        child_zeros_first = first->next;
        free(first);
    }
    child_zeros_unlock();
}

static void child_zeros_register(void) {
    child_zeros_handled = pthread_atfork(child_zeros_lock, child_zeros_unlock, child_zeros_begin) == 0;
}

bool zcp_library_zero_in_child(void *address, uint64_t bytes) {
    child_zeros *added = malloc(sizeof *added), **at = &child_zeros_first;
    pthread_once(&child_zeros_once, child_zeros_register);
    if (added == NULL || !child_zeros_handled) {
        free(added);
        return false;
    }
    *added = (child_zeros){.begin = (uintptr_t)address, .end = (uintptr_t)address + (uintptr_t)bytes};
    child_zeros_lock();
    while (*at != NULL && (*at)->begin < added->begin)
        at = &(*at)->next;
    added->next = *at;
    *at = added;
    child_zeros_unlock();
    return true;
}

void zcp_library_forget(void *address, uint64_t bytes) {
    uintptr_t begin = (uintptr_t)address, end = begin + (uintptr_t)bytes;
    child_zeros *found, **at = &child_zeros_first;
    child_zeros_lock();
    while (*at != NULL && ((*at)->begin != begin || (*at)->end != end))
        at = &(*at)->next;
    found = *at;
    if (found != NULL)
        *at = found->next;
    child_zeros_unlock();
    free(found);
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls in one

zcp_status zcp_library_receive(zcp_subscriber *subscriber, uint32_t timeout_ms, zcp_message *message,
                               zcp_chunk *chunk) {
    *chunk = (zcp_chunk){0};
    zcp_status status = zcp_subscriber_receive(subscriber, timeout_ms, message);
    if (status != ZCP_OK)
        return status;
    if (message->data != NULL)
        status = zcp_subscriber_keep(subscriber, chunk);
    zcp_subscriber_done(subscriber);
    if (status != ZCP_OK)
        *message = (zcp_message){0};
    return status;
}

zcp_status zcp_library_publish(zcp_publisher *publisher, const zcp_chunk *chunk, zcp_delivery *delivery) {
    zcp_chunk clone = zcp_chunk_clone(chunk);
    zcp_status status = zcp_publisher_publish(publisher, &clone, delivery);
    if (status != ZCP_OK && clone.manager != NULL)
        zcp_chunk_release(&clone);
    return status;
}

typedef struct library_list {
    void *entries;
    uint32_t room, count;
} library_list;

static bool library_list_topic(const zcp_topic_entry *entry, void *user) {
    library_list *list = user;
    if (list->count < list->room)
        ((zcp_topic_entry *)list->entries)[list->count] = *entry;
    list->count++;
    return true;
}

static bool library_list_chunk(const zcp_census_entry *entry, void *user) {
    library_list *list = user;
    if (list->count < list->room)
        ((zcp_census_entry *)list->entries)[list->count] = *entry;
    list->count++;
    return true;
}

zcp_status zcp_library_topics(const zcp_manager *manager, zcp_topic_entry *entries, uint32_t room, uint32_t *count) {
    library_list list = {entries, room, 0};
    zcp_status status = zcp_manager_topics(manager, library_list_topic, &list);
    *count = list.count;
    return status;
}

zcp_status zcp_library_census(const zcp_manager *manager, zcp_census_entry *entries, uint32_t room, uint32_t *count) {
    library_list list = {entries, room, 0};
    zcp_status status = zcp_manager_census(manager, library_list_chunk, &list);
    *count = list.count;
    return status;
}
