/* zerocp_relptr.h - zerocp 1.0 - MIT - status codes and relative pointers for shared memory (floor 1 of 3)

   Do this in exactly one C file, before you include it:
       #define ZEROCP_IMPLEMENTATION
       #include "zerocp_relptr.h"
   Everywhere else just include it. It stands alone; zerocp_shm.h and zerocp.h include it.

   QUICK START
     1. zcp_registry registry = {0};                                          an empty table, private to this process
     2. zcp_registry_add(&registry, 7, base, bytes);                          "here, segment 7 is mapped at base"
     3. zcp_relptr p = zcp_relptr_of(&registry, address);                     may be stored in shared memory or sent
     4. struct node *n = ZCP_RELPTR_GET(struct node, &registry, p);           NULL unless all of *n lies in segment 7

   A native pointer means nothing in another process, because each maps a segment at an address of its own. A relative
   pointer names a segment and a byte offset instead, and each process resolves it against its own registry. What is
   resolved may be garbage written by somebody else: the result then is NULL, never an address outside the segment.

   CONFIGURATION
     ZEROCP_IMPLEMENTATION    emit the implementation here           in exactly one file (with ZEROCP_STATIC: in each)
     ZEROCP_STATIC            all functions are static               in each file that includes a zerocp header
     ZEROCP_API               linkage of public functions            everywhere the same; default: extern
     ZEROCP_THREAD_LOCAL      storage of the last message            implementing file; default: _Thread_local
     ZEROCP_ASSERT(c)         internal assertions                    implementing file; default: assert(c)
     ZEROCP_CAS, ZEROCP_ACCESS  for checkers: the compare-and-swap, and a hook before each atomic access   the same

   Licence: at the end of this file. */

// No libc header seen so far.
#if defined(ZEROCP_IMPLEMENTATION) && !defined(_FEATURES_H) && !defined(_SYS_CDEFS_H_)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif
#endif

#ifndef ZEROCP_RELPTR_H
#define ZEROCP_RELPTR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(ZCP_IMPLEMENTATION) || defined(ZEROCP_IMPL) || defined(ZEROCP_IMPLEMENT) || defined(ZERO_CP_IMPLEMENTATION)
#error "zerocp: the macro is spelt ZEROCP_IMPLEMENTATION"
#endif
#if defined(ZCP_STATIC) || defined(ZCP_API) || defined(ZCP_ASSERT)
#error "zerocp: configuration macros begin with ZEROCP_: ZEROCP_STATIC, ZEROCP_API, ZEROCP_ASSERT"
#endif

#ifndef ZEROCP_API
#ifdef ZEROCP_STATIC
#if defined(__GNUC__)
#define ZEROCP_API static __attribute__((unused))
#else
#define ZEROCP_API static
#endif
#else
#define ZEROCP_API extern
#endif
#endif

#if defined(__GNUC__)
#define ZCP_PRIV_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define ZCP_PRIV_PRINTF(text, first)
#endif
#ifdef __cplusplus
#define ZCP_PRIV_ALIGNOF(T) alignof(T)
#else
#define ZCP_PRIV_ALIGNOF(T) _Alignof(T)
#endif

// Declares a word of a public struct that zerocp accesses atomically; T has 4 or 8 bytes. In C it is an atomic T. C++,
// and C without atomics, have no such type: there it is a T of the same size and alignment. While it is in use only
// zerocp reads or writes it.
#if defined(__cplusplus)
#define ZCP_ATOMIC(T) alignas(sizeof(T)) T
#elif defined(__STDC_NO_ATOMICS__)
#define ZCP_ATOMIC(T) _Alignas(sizeof(T)) T
#else
#define ZCP_ATOMIC(T) _Atomic(T)
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------------------------------
// >>api-status  Status codes: one per cause
// ---------------------------------------------------------------------------------------------------------------------

// X(code, what happened, what to do)
#define ZCP_STATUS_TABLE(X)                                                                                            \
    X(ZCP_OK, "success", "nothing to do")                                                                              \
    X(ZCP_ERR_INVALID_ARGUMENT, "an argument is NULL, out of range or does not go with the others",                    \
      "see the function's comment")                                                                                    \
    X(ZCP_ERR_INVALID_NAME, "the name is empty, too long, or has a slash or a control character",                      \
      "use a plain file name such as \"camera\"")                                                                      \
    X(ZCP_ERR_INVALID_SIZE, "a size or count is 0 or above its limit, or an existing object is too small",             \
      "keep to the limits in the function's comment, or remove the old object")                                        \
    X(ZCP_ERR_INVALID_ALIGNMENT, "the alignment is not a power of two up to 1 GiB",                                    \
      "use such a one, or 0 for the default")                                                                          \
    X(ZCP_ERR_INVALID_FLAGS, "an unknown flag bit, or flags that exclude each other or the mode",                      \
      "pass only flags that this function's comment names")                                                            \
    X(ZCP_ERR_INVALID_TOKEN, "the token names no chunk that this instance could have",                                 \
      "pass zcp_chunk_token's 64 bits unchanged, to a client of the same instance")                                    \
    X(ZCP_ERR_OVERFLOW, "the sizes come to more than 2^48 bytes", "ask for fewer or smaller chunks")                   \
    X(ZCP_ERR_FULL, "the vector, registry, table or set of pools is full", "remove an element first")                  \
    X(ZCP_ERR_EXISTS, "the object exists already", "open it, or remove it first")                                      \
    X(ZCP_ERR_NOT_FOUND, "there is no such object", "create it first, or correct the name")                            \
    X(ZCP_ERR_PERMISSION, "the system refuses access",                                                                 \
      "run as the owner, or have the creator grant permissions or a group")                                            \
    X(ZCP_ERR_WRONG_OWNER, "the object belongs to another user, neither the caller nor root",                          \
      "use another name, or the any-owner flag if you trust that user")                                                \
    X(ZCP_ERR_WRONG_TYPE, "the name leads to no regular file", "remove what stands there, or use another name")        \
    X(ZCP_ERR_NO_SPACE, "shared memory is full",                                                                       \
      "ask for less, remove unused objects, or enlarge /dev/shm (containers: --shm-size)")                             \
    X(ZCP_ERR_NO_MEMORY, "private memory could not be allocated or locked",                                            \
      "free memory, or raise the limit (ulimit -v, ulimit -l)")                                                        \
    X(ZCP_ERR_MAPPING, "the object could not be mapped", "check the address space left (32-bit process, ulimit -v)")   \
    X(ZCP_ERR_SYSTEM, "a system call failed", "zcp_last_errno() and zcp_last_message() tell which and why")            \
    X(ZCP_ERR_TIMEOUT, "the time ran out: a lock was held, nobody created the instance, no chunk came free",           \
      "look at the process that the message names, or allow more time")                                                \
    X(ZCP_ERR_NOT_ZEROCP, "the name leads to a file that zerocp did not write",                                        \
      "use another name, or remove the file with zcp_shm_unlink")                                                      \
    X(ZCP_ERR_VERSION, "the instance has another layout version",                                                      \
      "let all processes use the same version of zerocp, or destroy the instance")                                     \
    X(ZCP_ERR_LAYOUT, "the instance has this layout version but another layout or byte order",                         \
      "let all processes use the same copy of zerocp")                                                                 \
    X(ZCP_ERR_CORRUPT, "shared memory holds values that zerocp did not write",                                         \
      "find who scribbles, then destroy or purge the instance")                                                        \
    X(ZCP_ERR_CONFIG_MISMATCH, "the instance exists with another configuration",                                       \
      "open it without one, make them equal, or close the clients that have it open")                                  \
    X(ZCP_ERR_CLIENTS_FULL, "all client slots of the instance are taken",                                              \
      "close a client, or create it with a larger max_clients")                                                        \
    X(ZCP_ERR_TOO_LARGE, "no pool has chunks of that size", "ask for less, or add a pool of larger chunks")            \
    X(ZCP_ERR_EXHAUSTED, "no free chunk is left in the pools that fit",                                                \
      "release chunks, configure more, or try again later")                                                            \
    X(ZCP_ERR_STALE, "the chunk that the token or handle names is no longer held",                                     \
      "the sender has to hold on until the receiver has acquired")                                                     \
    X(ZCP_ERR_READ_ONLY, "this client attached only to read", "open without ZCP_READ_ONLY_DATA and ZCP_OBSERVE")       \
    X(ZCP_ERR_FORKED, "the manager belongs to the parent process", "open the instance again in the child")             \
    X(ZCP_ERR_CLOSED, "the manager is closed", "open the instance again")                                              \
    X(ZCP_ERR_REPLACED, "the instance's name is gone or leads to a newer instance", "close this one and open again")   \
    X(ZCP_ERR_EMPTY, "no message is there", "try again later, or wait with a timeout")                                 \
    X(ZCP_ERR_INTERRUPTED, "zcp_manager_interrupt ends all waiting in this manager",                                   \
      "end what waits, or take the interrupt back")                                                                    \
    X(ZCP_ERR_LIMIT, "this client holds as many chunks as it may",                                                     \
      "find what does not release, or open with a larger max_chunks")

typedef enum zcp_status {
#define ZCP_PRIV_CODE(code, what, todo) code,
    ZCP_STATUS_TABLE(ZCP_PRIV_CODE)
#undef ZCP_PRIV_CODE
    ZCP_STATUS_COUNT
} zcp_status;

// The code's name ("ZCP_ERR_FULL"); "ZCP_ERR_UNKNOWN" for a number that is none. Never NULL, static. Thread-safe.
ZEROCP_API const char *zcp_status_name(zcp_status status);

// What happened and what to do about it, one line. Never NULL, static. Thread-safe.
ZEROCP_API const char *zcp_status_message(zcp_status status);

// Details of this thread's last failed call: bytes needed and free, both versions, a name, a pid. A call that succeeds
// leaves it alone, whatever failed within it. Set by a call that returns an error status, and by one whose comment
// mentions zcp_last_message (zcp_chunk_clone, zcp_chunk_release, zcp_config_..._bytes); other calls that return 0, NULL
// or false leave no message here. "" if no call has failed. Never NULL; valid in this thread, until its next failed
// call.
ZEROCP_API const char *zcp_last_message(void);

// The errno of that failure; 0 if no system call was its cause. Valid as long as the message.
ZEROCP_API int zcp_last_errno(void);

// ---------------------------------------------------------------------------------------------------------------------
// >>api-log  Log: works before any object exists
// ---------------------------------------------------------------------------------------------------------------------

typedef enum zcp_log_level {
    ZCP_LOG_OFF = 0,
    ZCP_LOG_ERROR,
    ZCP_LOG_WARNING,
    ZCP_LOG_INFO,
    ZCP_LOG_DEBUG
} zcp_log_level;

typedef void zcp_log_function(zcp_log_level level, const char *line, void *user);      // line: no newline at its end

// The level in force; setting it overrides ZEROCP_LOG_LEVEL. At ZCP_LOG_INFO the log tells of each segment created,
// each attach and leave, each dead client whose chunks were reclaimed, and each pool added or retired. Thread-safe.
ZEROCP_API void zcp_log_set_level(zcp_log_level level);
ZEROCP_API zcp_log_level zcp_log_get_level(void);

// Sets the function that receives log lines instead of stderr; NULL: stderr again. zerocp calls it in the thread that
// logs, within a zerocp call. It may call zerocp; failures of its own calls are forgotten when it returns. Thread-safe,
// but a line that is logged meanwhile may be passed to the old function with the new user pointer, or the reverse.
ZEROCP_API void zcp_log_set_callback(zcp_log_function *function, void *user);

// Writes a line, as printf, whatever the level: ZEROCP_LOG asks the level first. Thread-safe.
ZCP_PRIV_PRINTF(2, 3) ZEROCP_API void zcp_log(zcp_log_level level, const char *format, ...);
#ifndef ZEROCP_LOG
#define ZEROCP_LOG(level, ...) do { if ((level) <= zcp_log_get_level()) zcp_log((level), __VA_ARGS__); } while (0)
#endif

// ---------------------------------------------------------------------------------------------------------------------
// >>api-relptr  Relative pointers, and the registry that resolves them
// ---------------------------------------------------------------------------------------------------------------------
// The functions on relative pointers alone are pure: thread-safe, and they never fail.

#define ZCP_RELPTR_MAX_OFFSET ((UINT64_C(1) << 48) - 1)
typedef struct zcp_relptr { uint64_t bits; } zcp_relptr;      // segment:16 | offset:48; all zero is null

// Null if segment is 0 or offset (bytes, whatever the pointed-to type) exceeds ZCP_RELPTR_MAX_OFFSET.
ZEROCP_API zcp_relptr zcp_relptr_make(uint16_t segment, uint64_t offset);
ZEROCP_API bool       zcp_relptr_is_null(zcp_relptr pointer);
ZEROCP_API bool       zcp_relptr_equal(zcp_relptr a, zcp_relptr b);
ZEROCP_API uint16_t   zcp_relptr_segment(zcp_relptr pointer);  // 0 for null
ZEROCP_API uint64_t   zcp_relptr_offset(zcp_relptr pointer);   // bytes from the segment's start; 0 for null

// The registry: where this process has mapped which segment. All zero is empty. Never put it into shared memory.
#define ZCP_REGISTRY_CAPACITY 64
typedef struct zcp_registry_entry { ZCP_ATOMIC(uint64_t) tag, base, bytes; } zcp_registry_entry;
typedef struct zcp_registry { zcp_registry_entry entries[ZCP_REGISTRY_CAPACITY]; } zcp_registry;

// Announces that segment (1 to 65535) is mapped at base with that many bytes (1 to 2^48). After a failure the registry
// is as before. Thread-safe, also beside resolution.
// Errors:
//   INVALID_ARGUMENT   registry or base is NULL, or segment is 0
//   INVALID_SIZE       bytes is 0 or above 2^48, or reaches beyond the address space
//   EXISTS             that segment is in the registry, or another thread is adding it at this moment
//   FULL               ZCP_REGISTRY_CAPACITY segments are in it
ZEROCP_API zcp_status zcp_registry_add(zcp_registry *registry, uint16_t segment, void *base, uint64_t bytes);

// Takes a segment out; call it before unmapping. Addresses already resolved are not invalidated: make sure that nobody
// uses them any more. Thread-safe beside the resolution of other segments. Errors: INVALID_ARGUMENT, NOT_FOUND.
ZEROCP_API zcp_status zcp_registry_remove(zcp_registry *registry, uint16_t segment);

// A registry for the whole process (one per copy of the implementation). Never NULL. Thread-safe.
ZEROCP_API zcp_registry *zcp_registry_default(void);

// The relative pointer to an address, by a registered segment that contains it (if several overlap: by one of them);
// null if none does. Thread-safe.
ZEROCP_API zcp_relptr zcp_relptr_of(const zcp_registry *registry, const void *address);

// The address; NULL unless the byte at pointer and all of [pointer, pointer + bytes) lie inside the segment. NULL also
// for a null pointer, an unknown segment, a NULL registry. Thread-safe, lock-free.
ZEROCP_API void *zcp_relptr_get(const zcp_registry *registry, zcp_relptr pointer, uint64_t bytes);

// The same, and NULL unless the address is a multiple of alignment (a power of two).
ZEROCP_API void *zcp_relptr_get_aligned(const zcp_registry *registry, zcp_relptr pointer, uint64_t bytes,
                                        uint64_t alignment);

// T *, checked for sizeof(T) and alignment: NULL if any check fails.
#define ZCP_RELPTR_GET(T, registry, pointer) \
    ((T *)zcp_relptr_get_aligned((registry), (pointer), sizeof(T), ZCP_PRIV_ALIGNOF(T)))

// ---------------------------------------------------------------------------------------------------------------------
// >>api-vector  Vector: up to N elements, embedded
// ---------------------------------------------------------------------------------------------------------------------
// No heap, no pointer: it may lie in shared memory. v is a pointer to it, and is evaluated more than once. Not
// thread-safe.

#define ZCP_VECTOR(T, N) struct { uint32_t size; T items[N]; }            // to be typedef'd; all zero is empty
#define ZCP_VECTOR_CAPACITY(v) ((uint32_t)(sizeof (v)->items / sizeof (v)->items[0]))
#define ZCP_VECTOR_SIZE(v)     ((v)->size)
#define ZCP_VECTOR_CLEAR(v)    ((void)((v)->size = 0))

// Appends a value; false, and nothing changed, when it is full.
#define ZCP_VECTOR_PUSH(v, ...) \
    ((v)->size < ZCP_VECTOR_CAPACITY(v) ? ((v)->items[(v)->size++] = (__VA_ARGS__), true) : false)

// A pointer to element i; NULL when i is out of range.
#define ZCP_VECTOR_AT(v, i) \
    ((uint64_t)(i) < (v)->size && (uint64_t)(i) < ZCP_VECTOR_CAPACITY(v) ? &(v)->items[i] : NULL)

// ---------------------------------------------------------------------------------------------------------------------
// >>api-list  List: a lock-free set of free indices
// ---------------------------------------------------------------------------------------------------------------------
// The indices are 0 to capacity - 1. Any number of processes share the memory, each through a view of its own. It is
// not a linked list: an index is in it if and only if its bit is set, so a process that dies between two steps tears
// nothing, and there is no ABA problem. All calls but create and attach are lock-free, and thread-safe on one view and
// beside other views.

#define ZCP_MPMC_LIST_MAX_CAPACITY (UINT32_C(1) << 31)

typedef struct zcp_mpmc_list {
    void    *memory;
    uint32_t capacity;
    ZCP_ATOMIC(uint32_t) cursor;    // the leaf where this view looks first; a hint, any value will do
    uint32_t leaves, leaf_shift;    // a leaf has up to 2^leaf_shift indices
    void    *first_leaf;            // in memory
} zcp_mpmc_list;

// Bytes that a list of that capacity takes; 0 if capacity is 0 or above ZCP_MPMC_LIST_MAX_CAPACITY.
ZEROCP_API uint64_t zcp_mpmc_list_bytes(uint32_t capacity);

// Makes a list in memory (aligned to 8 bytes, better to 64), empty or with every index in it. Nobody else may use the
// memory yet. After a failure the view is all zero. Errors: INVALID_ARGUMENT (NULL), INVALID_ALIGNMENT, INVALID_SIZE
// (capacity out of range, or too few bytes).
ZEROCP_API zcp_status zcp_mpmc_list_create(zcp_mpmc_list *list, void *memory, uint64_t bytes, uint32_t capacity,
                                           bool full);

// Makes a view of a list that exists. Errors: as create, and NOT_ZEROCP (there is no list), CORRUPT (a list that does
// not fit into bytes).
ZEROCP_API zcp_status zcp_mpmc_list_attach(zcp_mpmc_list *list, void *memory, uint64_t bytes);

// Puts an index in. false: it is out of range, or was in the list already, which is harmless.
ZEROCP_API bool zcp_mpmc_list_push(zcp_mpmc_list *list, uint32_t index);

// Takes an index out. false: no index stayed in the list from the beginning of the call to its end.
ZEROCP_API bool zcp_mpmc_list_pop(zcp_mpmc_list *list, uint32_t *index);
ZEROCP_API uint32_t zcp_mpmc_list_count(const zcp_mpmc_list *list);        // exact when nobody pushes or pops
ZEROCP_API uint32_t zcp_mpmc_list_capacity(const zcp_mpmc_list *list);     // 0 for NULL or a zero view

#ifdef __cplusplus
}
#endif
#endif // ZEROCP_RELPTR_H

// What cannot be compiled is refused with this one error, on all floors.
#if defined(ZEROCP_IMPLEMENTATION) && !defined(ZCP_PRIV_REFUSED)
#ifdef __cplusplus
#define ZCP_PRIV_REFUSED
#error "zerocp: the implementation is C11; put it into a .c file (the declarations work in C++)"
#elif !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE) && !defined(_BSD_SOURCE)
#define ZCP_PRIV_REFUSED
#error "zerocp: in the implementing file include zerocp first, or define _GNU_SOURCE"
#endif
#endif

#if defined(ZEROCP_IMPLEMENTATION) && !defined(ZEROCP_RELPTR_IMPLEMENTED) && !defined(ZCP_PRIV_REFUSED)
#define ZEROCP_RELPTR_IMPLEMENTED

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Older clangs judge a plain long long on i386, which has 4-byte alignment there; an _Atomic one has 8, and cmpxchg8b.
#if defined(__clang__) && defined(__i386__) && defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_8)
#define ZCP_PRIV_LLONG_LOCK_FREE (_Alignof(_Atomic uint64_t) == 8 ? 2 : 0)
#else
#define ZCP_PRIV_LLONG_LOCK_FREE ATOMIC_LLONG_LOCK_FREE
#endif
_Static_assert(ZCP_PRIV_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "zerocp needs lock-free 32- and 64-bit atomics");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4,
               "atomics are shared between processes as plain words");
_Static_assert(_Alignof(_Atomic uint64_t) == 8 && _Alignof(_Atomic uint32_t) == 4, "ZCP_ATOMIC means the same in C++");
#ifndef ZEROCP_ASSERT
#include <assert.h>
#define ZEROCP_ASSERT(condition) assert(condition)
#endif
#ifndef ZEROCP_THREAD_LOCAL
#define ZEROCP_THREAD_LOCAL _Thread_local
#endif

// Private functions are static; not every floor and option uses all of them.
#if defined(__GNUC__)
#define ZCP_PRIV static __attribute__((unused))
#define ZCP_PRIV_COLD static __attribute__((unused, cold, noinline))

// What is not called often: small rather than fast.
#define ZCP_PRIV_SETUP static __attribute__((unused)) ZCP_PRIV_SMALL
#if defined(__clang__)
#define ZCP_PRIV_SMALL __attribute__((minsize))
#else
#define ZCP_PRIV_SMALL __attribute__((cold))
#endif
#define ZCP_PRIV_INLINE static inline __attribute__((unused, always_inline))
#define ZCP_PRIV_NOINLINE static __attribute__((unused, noinline))

// A public function that is called from within, too: or GCC would split it, which costs each caller a jump.
#define ZCP_PRIV_WHOLE __attribute__((noinline))
#define ZCP_PRIV_LIKELY(c)   __builtin_expect(!!(c), 1)
#define ZCP_PRIV_UNLIKELY(c) __builtin_expect(!!(c), 0)
#else
#define ZCP_PRIV static
#define ZCP_PRIV_COLD static
#define ZCP_PRIV_SETUP static
#define ZCP_PRIV_SMALL
#define ZCP_PRIV_INLINE static inline
#define ZCP_PRIV_NOINLINE static
#define ZCP_PRIV_WHOLE
#define ZCP_PRIV_LIKELY(c)   (c)
#define ZCP_PRIV_UNLIKELY(c) (c)
#endif

// ---------------------------------------------------------------------------------------------------------------------
// >>atomics  Each access to a shared word names its memory order
// ---------------------------------------------------------------------------------------------------------------------
// The compare-and-swap is one macro, so that a model checker can be told about its failure order: always relaxed;
// whoever needs more loads again.

#ifndef ZEROCP_CAS
#define ZEROCP_CAS(word, seen, next, order) \
    atomic_compare_exchange_strong_explicit(word, seen, next, order, memory_order_relaxed)
#endif

#ifndef ZEROCP_ACCESS
#define ZEROCP_ACCESS() ((void)0)
#endif
#define zcp_priv_load_relaxed(word) \
    (ZEROCP_ACCESS(), atomic_load_explicit(word, memory_order_relaxed))
#define zcp_priv_load_acquire(word) \
    (ZEROCP_ACCESS(), atomic_load_explicit(word, memory_order_acquire))
#define zcp_priv_load_seq_cst(word) \
    (ZEROCP_ACCESS(), atomic_load_explicit(word, memory_order_seq_cst))
#define zcp_priv_store_relaxed(word, value) \
    (ZEROCP_ACCESS(), atomic_store_explicit(word, value, memory_order_relaxed))
#define zcp_priv_store_release(word, value) \
    (ZEROCP_ACCESS(), atomic_store_explicit(word, value, memory_order_release))
#define zcp_priv_or_relaxed(word, bits) \
    (ZEROCP_ACCESS(), atomic_fetch_or_explicit(word, bits, memory_order_relaxed))
#define zcp_priv_or_release(word, bits) \
    (ZEROCP_ACCESS(), atomic_fetch_or_explicit(word, bits, memory_order_release))
#define zcp_priv_and_release(word, bits) \
    (ZEROCP_ACCESS(), atomic_fetch_and_explicit(word, bits, memory_order_release))
#define zcp_priv_and_acq_rel(word, bits) \
    (ZEROCP_ACCESS(), atomic_fetch_and_explicit(word, bits, memory_order_acq_rel))
#define zcp_priv_and_seq_cst(word, bits) \
    (ZEROCP_ACCESS(), atomic_fetch_and_explicit(word, bits, memory_order_seq_cst))
#define zcp_priv_add_relaxed(word, value) \
    (ZEROCP_ACCESS(), atomic_fetch_add_explicit(word, value, memory_order_relaxed))
#define zcp_priv_add_release(word, value) \
    (ZEROCP_ACCESS(), atomic_fetch_add_explicit(word, value, memory_order_release))
#define zcp_priv_exchange_acq_rel(word, value) \
    (ZEROCP_ACCESS(), atomic_exchange_explicit(word, value, memory_order_acq_rel))
#define zcp_priv_cas_relaxed(word, seen, next) \
    (ZEROCP_ACCESS(), ZEROCP_CAS(word, seen, next, memory_order_relaxed))
#define zcp_priv_cas_acquire(word, seen, next) \
    (ZEROCP_ACCESS(), ZEROCP_CAS(word, seen, next, memory_order_acquire))
#define zcp_priv_cas_acq_rel(word, seen, next) \
    (ZEROCP_ACCESS(), ZEROCP_CAS(word, seen, next, memory_order_acq_rel))
#define zcp_priv_cas_release(word, seen, next) \
    (ZEROCP_ACCESS(), ZEROCP_CAS(word, seen, next, memory_order_release))
#define zcp_priv_cas_seq_cst(word, seen, next) \
    (ZEROCP_ACCESS(), ZEROCP_CAS(word, seen, next, memory_order_seq_cst))

// Every retry loop on words that others write ends after so many rounds: only garbage takes that many.
#define ZCP_PRIV_ROUNDS (1u << 16)

// ---------------------------------------------------------------------------------------------------------------------
// >>status  Texts of the status codes, and the last failure of each thread
// ---------------------------------------------------------------------------------------------------------------------

static const struct { const char *name, *message; } zcp_priv_status_texts[] = {
#define ZCP_PRIV_TEXT(code, what, todo) { #code, what ": " todo },
    ZCP_STATUS_TABLE(ZCP_PRIV_TEXT)
#undef ZCP_PRIV_TEXT
};

#define ZCP_PRIV_MESSAGE_BYTES 384

// The last failure, and a place for those within the call that runs now: whether they are told is known at its end.
typedef struct zcp_priv_failures {
    struct { int error; char message[ZCP_PRIV_MESSAGE_BYTES]; } kept[2];
    uint32_t last, before;          // which of them is told; which was, when the outermost call began
    bool within;                    // between call_begin and call_end
} zcp_priv_failures;

static ZEROCP_THREAD_LOCAL zcp_priv_failures zcp_priv_last_failures;

ZEROCP_API const char *zcp_status_name(zcp_status status) {
    return (unsigned)status < ZCP_STATUS_COUNT ? zcp_priv_status_texts[status].name : "ZCP_ERR_UNKNOWN";
}

ZEROCP_API const char *zcp_status_message(zcp_status status) {
    return (unsigned)status < ZCP_STATUS_COUNT ? zcp_priv_status_texts[status].message
                                               : "no status code has this number: pass what a zerocp function returned";
}

ZEROCP_API const char *zcp_last_message(void) {
    return zcp_priv_last_failures.kept[zcp_priv_last_failures.last].message;
}

ZEROCP_API int zcp_last_errno(void) { return zcp_priv_last_failures.kept[zcp_priv_last_failures.last].error; }

// Around a public call within which something may fail although it succeeds. true: it is the outermost one.
ZCP_PRIV_COLD bool zcp_priv_call_begin(void) {
    if (zcp_priv_last_failures.within) return false;
    zcp_priv_last_failures.within = true;
    zcp_priv_last_failures.before = zcp_priv_last_failures.last;
    return true;
}

// A call that succeeds leaves the last failure as it was before it. Returns status.
ZCP_PRIV_COLD zcp_status zcp_priv_call_end(bool outermost, zcp_status status) {
    if (!outermost) return status;
    zcp_priv_last_failures.within = false;
    if (status == ZCP_OK) zcp_priv_last_failures.last = zcp_priv_last_failures.before;
    return status;
}

// Records the cause of a failure for zcp_last_message and zcp_last_errno; returns status. Does not touch errno.
ZCP_PRIV_PRINTF(3, 4)
ZCP_PRIV_COLD zcp_status zcp_priv_fail(zcp_status status, int error, const char *format, ...) {
    zcp_priv_failures *told = &zcp_priv_last_failures;
    va_list arguments;
    if (told->within) told->last = 1 - told->before;
    va_start(arguments, format);
    vsnprintf(told->kept[told->last].message, sizeof told->kept[0].message, format, arguments);
    va_end(arguments);
    told->kept[told->last].error = error;
    return status;
}

// A failure, to be told after what cleans up behind it.
typedef struct zcp_priv_failure {
    zcp_status status;
    int error;
    char message[ZCP_PRIV_MESSAGE_BYTES];
} zcp_priv_failure;

ZCP_PRIV_COLD zcp_priv_failure zcp_priv_failure_save(zcp_status status) {
    zcp_priv_failure failure = {status, zcp_last_errno(), ""};
    memcpy(failure.message, zcp_last_message(), sizeof failure.message);
    return failure;
}

ZCP_PRIV_COLD zcp_status zcp_priv_failure_again(const zcp_priv_failure *failure) {
    return zcp_priv_fail(failure->status, failure->error, "%s", failure->message);
}

// For a cause that its status tells completely.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_plain(zcp_status status) {
    return zcp_priv_fail(status, 0, "%s", zcp_status_message(status));
}

// ---------------------------------------------------------------------------------------------------------------------
// >>log  Lines for people
// ---------------------------------------------------------------------------------------------------------------------

#ifndef ZEROCP_LOG_LEVEL
#define ZEROCP_LOG_LEVEL 1
#endif

static _Atomic int zcp_priv_log_level = -1; // -1: nobody has set it, and the environment was not read yet
static _Atomic(zcp_log_function *) zcp_priv_log_callback;
static _Atomic(void *) zcp_priv_log_user;
static const char *const zcp_priv_log_names[] = {"off", "error", "warning", "info", "debug"};

ZCP_PRIV_SETUP int zcp_priv_log_level_from_environment(void) {
    const char *text = getenv("ZEROCP_LOG_LEVEL");
    if (text && text[0] >= '0' && text[0] <= '4' && text[1] == 0) return text[0] - '0';
    for (int i = ZCP_LOG_OFF; text && i <= ZCP_LOG_DEBUG; i++)
        if (strcmp(text, zcp_priv_log_names[i]) == 0) return i;
    return ZEROCP_LOG_LEVEL;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_log_level zcp_log_get_level(void) {
    // Relaxed, here and below: it stands for nothing else.
    int level = zcp_priv_load_relaxed(&zcp_priv_log_level);
    if (level < 0) {
        int unset = -1;
        level = zcp_priv_log_level_from_environment();
        if (!zcp_priv_cas_relaxed(&zcp_priv_log_level, &unset, level))
            level = zcp_priv_load_relaxed(&zcp_priv_log_level);
    }
    return (zcp_log_level)level;
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_log_set_level(zcp_log_level level) {
    zcp_priv_store_relaxed(&zcp_priv_log_level, (unsigned)level > ZCP_LOG_DEBUG ? ZCP_LOG_DEBUG : (int)level);
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_log_set_callback(zcp_log_function *function, void *user) {
    zcp_priv_store_relaxed(&zcp_priv_log_user, user);
    // Carries user; pairs with the acquire in zcp_log.
    zcp_priv_store_release(&zcp_priv_log_callback, function);
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_log(zcp_log_level level, const char *format, ...) {
    char line[512];
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    zcp_log_function *function = zcp_priv_load_acquire(&zcp_priv_log_callback);
    if (function) {
        // Calls made there are calls of their own, and change nothing of this one.
        zcp_priv_failures told = zcp_priv_last_failures;
        zcp_priv_last_failures.within = false;
        function(level, line, zcp_priv_load_relaxed(&zcp_priv_log_user));
        zcp_priv_last_failures = told;
    } else {
        if ((unsigned)level > ZCP_LOG_DEBUG) level = ZCP_LOG_DEBUG;
        fprintf(stderr, "zerocp %s: %s\n", zcp_priv_log_names[level], line);
    }
    errno = saved;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>arithmetic  Sums, bits and addresses
// ---------------------------------------------------------------------------------------------------------------------
// Arithmetic on sizes returns false on overflow.

ZCP_PRIV bool zcp_priv_add(uint64_t a, uint64_t b, uint64_t *sum) { *sum = a + b; return *sum >= a; }

ZCP_PRIV bool zcp_priv_multiply(uint64_t a, uint64_t b, uint64_t *product) {
    *product = a * b;
    return a == 0 || b <= UINT64_MAX / a;
}

// Unit: a power of two.
ZCP_PRIV bool zcp_priv_round_up(uint64_t a, uint64_t unit, uint64_t *rounded) {
    bool fits = zcp_priv_add(a, unit - 1, rounded);
    *rounded &= ~(unit - 1);
    return fits;
}

// splitmix64's finaliser (Steele, Lea, Flood 2014).
ZCP_PRIV_SETUP uint64_t zcp_priv_mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

// Word != 0.
ZCP_PRIV uint32_t zcp_priv_lowest_bit(uint64_t word) {
#if defined(__GNUC__)
    return (uint32_t)__builtin_ctzll(word);
#else
    uint32_t n = 0;
    for (; !(word & 1); word >>= 1) n++;
    return n;
#endif
}

ZCP_PRIV uint32_t zcp_priv_count_bits(uint64_t word) {
#if defined(__GNUC__)
    return (uint32_t)__builtin_popcountll(word);
#else
    uint32_t n = 0;
    for (; word; word &= word - 1) n++;
    return n;
#endif
}

// The object that lies so many bytes behind the beginning of a segment or of other memory. It has the type of the
// pointer that this is assigned to, and the alignment of the offset, which the geometry chose for it.
ZCP_PRIV_INLINE void *zcp_priv_object_at(void *memory, uint64_t offset) { return (unsigned char *)memory + offset; }

// ---------------------------------------------------------------------------------------------------------------------
// >>relptr  Relative pointers
// ---------------------------------------------------------------------------------------------------------------------

ZEROCP_API zcp_relptr zcp_relptr_make(uint16_t segment, uint64_t offset) {
    zcp_relptr pointer = {0};
    if (segment != 0 && offset <= ZCP_RELPTR_MAX_OFFSET) pointer.bits = (uint64_t)segment << 48 | offset;
    return pointer;
}

ZEROCP_API bool zcp_relptr_is_null(zcp_relptr pointer) { return pointer.bits == 0; }
ZEROCP_API bool zcp_relptr_equal(zcp_relptr a, zcp_relptr b) { return a.bits == b.bits; }
ZEROCP_API uint16_t zcp_relptr_segment(zcp_relptr pointer) { return (uint16_t)(pointer.bits >> 48); }
ZEROCP_API uint64_t zcp_relptr_offset(zcp_relptr pointer) { return pointer.bits & ZCP_RELPTR_MAX_OFFSET; }

// ---------------------------------------------------------------------------------------------------------------------
// >>registry  Where this process has mapped which segment
// ---------------------------------------------------------------------------------------------------------------------
// 64 entries, tag = version:46 | phase:2 | segment:16.
//
// Invariant: the version grows with every change of an entry, so a reader that finds the same tag before and after has
// read one state (a sequence lock without the lock). A writer first claims a free entry, then looks for the same
// segment elsewhere; two that claim at once both step back and try again, so a segment is published at most once.
//
// Labels  word      order    partner      what breaks without it
//   R0    tag       acquire  R3           the words of an entry are older than its tag
//   R1    base      acquire  R2           the tag is looked at again too early: half of two states is taken for one
//   R2    base      release  R1           who reads the new base finds the tag of before again
//   R3    tag       release  R0           who sees the tag does not see base and size

enum { ZCP_PRIV_ENTRY_FREE = 0, ZCP_PRIV_ENTRY_CLAIMED = 1, ZCP_PRIV_ENTRY_PUBLISHED = 2 };

// The i-th in the probe order.
ZCP_PRIV const zcp_registry_entry *zcp_priv_entry_at(const zcp_registry *registry, uint32_t i) {
    return &registry->entries[i % ZCP_REGISTRY_CAPACITY];
}

ZCP_PRIV uint32_t zcp_priv_tag_phase(uint64_t tag) { return (uint32_t)(tag >> 16) & 3; }

ZCP_PRIV uint64_t zcp_priv_tag_next(uint64_t tag, uint32_t phase, uint16_t segment) {
    return ((tag >> 18) + 1) << 18 | (uint64_t)phase << 16 | segment;
}

// Reads an entry as of one moment; false if it is not published or changes all the time.
ZCP_PRIV bool zcp_priv_entry_read(const zcp_registry_entry *entry, uint16_t *segment, uint64_t *base, uint64_t *bytes) {
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {
        // Pairs with the publishing store R3.
        uint64_t tag = zcp_priv_load_acquire(&entry->tag);                                          // R0
        if (zcp_priv_tag_phase(tag) != ZCP_PRIV_ENTRY_PUBLISHED) return false;
        // Pairs with R2: who reads a newer base.
        *base = zcp_priv_load_acquire(&entry->base);                                                // R1
        // Or size sees a newer tag below.
        *bytes = zcp_priv_load_acquire(&entry->bytes);
        *segment = (uint16_t)tag;
        // Relaxed: ordered after R1 by its acquire.
        if (zcp_priv_load_relaxed(&entry->tag) == tag) return true;
    }
    return false;
}

ZCP_PRIV bool zcp_priv_registry_find(const zcp_registry *registry, uint16_t segment, uint64_t *base, uint64_t *bytes) {
    for (uint32_t i = 0; i < ZCP_REGISTRY_CAPACITY; i++) {
        const zcp_registry_entry *entry = zcp_priv_entry_at(registry, segment + i);
        // A glance; the read decides.
        if ((uint16_t)zcp_priv_load_relaxed(&entry->tag) != segment) continue;
        uint16_t found;
        if (zcp_priv_entry_read(entry, &found, base, bytes) && found == segment) return true;
    }
    return false;
}

// Another entry than mine with that segment: its phase, else FREE. seq_cst with the claim: of two claimers one sees the
// other.
ZCP_PRIV_SETUP uint32_t zcp_priv_registry_rival(const zcp_registry *registry, uint16_t segment,
                                                const zcp_registry_entry *mine) {
    uint32_t phase = ZCP_PRIV_ENTRY_FREE;
    for (uint32_t i = 0; i < ZCP_REGISTRY_CAPACITY; i++) {
        const zcp_registry_entry *entry = zcp_priv_entry_at(registry, i);
        uint64_t tag = zcp_priv_load_seq_cst(&entry->tag);
        if (entry != mine && (uint16_t)tag == segment && zcp_priv_tag_phase(tag) > phase)
            phase = zcp_priv_tag_phase(tag);
    }
    return phase;
}

// NULL: full.
ZCP_PRIV_SETUP zcp_registry_entry *zcp_priv_registry_claim(zcp_registry *registry, uint16_t segment, uint64_t *tag) {
    for (uint32_t i = 0; i < ZCP_REGISTRY_CAPACITY; i++) {
        zcp_registry_entry *entry = &registry->entries[(segment + i) % ZCP_REGISTRY_CAPACITY];
        // The CAS checks it.
        uint64_t seen = zcp_priv_load_relaxed(&entry->tag);
        if (zcp_priv_tag_phase(seen) != ZCP_PRIV_ENTRY_FREE) continue;
        *tag = zcp_priv_tag_next(seen, ZCP_PRIV_ENTRY_CLAIMED, segment);
        // See the rival above.
        if (zcp_priv_cas_seq_cst(&entry->tag, &seen, *tag)) return entry;
    }
    return NULL;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_registry_add(zcp_registry *registry, uint16_t segment, void *base,
                                                      uint64_t bytes) {
    uint64_t start = (uint64_t)(uintptr_t)base;
    if (!registry || segment == 0 || !base) return zcp_priv_fail_plain(ZCP_ERR_INVALID_ARGUMENT);
    if (bytes == 0 || bytes > ZCP_RELPTR_MAX_OFFSET + 1 || bytes - 1 > UINTPTR_MAX - start)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "segment %u: %llu bytes; 1 to 2^48, within the address space",
                             segment, (unsigned long long)bytes);
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {
        uint32_t rival = zcp_priv_registry_rival(registry, segment, NULL);
        if (rival == ZCP_PRIV_ENTRY_PUBLISHED) break;
        uint64_t tag;
        zcp_registry_entry *entry = zcp_priv_registry_claim(registry, segment, &tag);
        if (!entry)
            return zcp_priv_fail(ZCP_ERR_FULL, 0, "segment %u: all %d places are taken", segment,
                                 ZCP_REGISTRY_CAPACITY);
        rival = zcp_priv_registry_rival(registry, segment, entry);
        if (rival != ZCP_PRIV_ENTRY_FREE) {
            zcp_priv_store_release(&entry->tag, zcp_priv_tag_next(tag, ZCP_PRIV_ENTRY_FREE, 0));
            continue;
        }
        // Pairs with R1: carries the claim.
        zcp_priv_store_release(&entry->base, start);                                                // R2
        zcp_priv_store_release(&entry->bytes, bytes);
        // pairs with R0
        zcp_priv_store_release(&entry->tag, zcp_priv_tag_next(tag, ZCP_PRIV_ENTRY_PUBLISHED, segment));  // R3
        return ZCP_OK;
    }
    return zcp_priv_fail(ZCP_ERR_EXISTS, 0, "segment %u is registered", segment);
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_registry_remove(zcp_registry *registry, uint16_t segment) {
    if (!registry || segment == 0) return zcp_priv_fail_plain(ZCP_ERR_INVALID_ARGUMENT);
    for (uint32_t i = 0; i < ZCP_REGISTRY_CAPACITY; i++) {
        zcp_registry_entry *entry = &registry->entries[(segment + i) % ZCP_REGISTRY_CAPACITY];
        // The CAS checks it.
        uint64_t tag = zcp_priv_load_relaxed(&entry->tag);
        if ((uint16_t)tag != segment || zcp_priv_tag_phase(tag) != ZCP_PRIV_ENTRY_PUBLISHED) continue;
        if (zcp_priv_cas_release(&entry->tag, &tag, zcp_priv_tag_next(tag, ZCP_PRIV_ENTRY_FREE, 0))) return ZCP_OK;
    }
    return zcp_priv_fail(ZCP_ERR_NOT_FOUND, 0, "segment %u is not registered", segment);
}

ZEROCP_API zcp_registry *zcp_registry_default(void) {
    static zcp_registry registry;
    return &registry;
}

ZEROCP_API zcp_relptr zcp_relptr_of(const zcp_registry *registry, const void *address) {
    uint64_t a = (uint64_t)(uintptr_t)address;
    for (uint32_t i = 0; registry && i < ZCP_REGISTRY_CAPACITY; i++) {
        uint16_t segment;
        uint64_t base, bytes;
        if (zcp_priv_entry_read(zcp_priv_entry_at(registry, i), &segment, &base, &bytes) && a >= base
            && a - base < bytes)
            return zcp_relptr_make(segment, a - base);
    }
    return zcp_relptr_make(0, 0);
}

ZEROCP_API void *zcp_relptr_get(const zcp_registry *registry, zcp_relptr pointer, uint64_t bytes) {
    uint64_t base, size, offset = zcp_relptr_offset(pointer);
    uint16_t segment = zcp_relptr_segment(pointer);
    if (!registry || segment == 0 || !zcp_priv_registry_find(registry, segment, &base, &size)) return NULL;
    if (offset >= size || bytes > size - offset) return NULL;
    return (void *)(uintptr_t)(base + offset);
}

ZEROCP_API void *zcp_relptr_get_aligned(const zcp_registry *registry, zcp_relptr pointer, uint64_t bytes,
                                        uint64_t alignment) {
    void *address = zcp_relptr_get(registry, pointer, bytes);
    return alignment != 0 && ((uintptr_t)address & (alignment - 1)) == 0 ? address : NULL;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>list  The set of free indices: lock-free, any number of processes
// ---------------------------------------------------------------------------------------------------------------------
// Byte map:   0  header   magic:8 capacity:4, and for people leaf_shift:4 leaves:4; written by create, then constant
//            64  summary  a 64-bit word per 64 leaves: a bit per leaf, set if the leaf may be non-empty; padded to 64
//             .  leaves   64 bytes each, so that clients in different leaves share no cache line: bits:8, unused:56
//
// Invariant: an index is in the list if and only if its bit in its leaf is set; one read-modify-write on the leaf
// decides. Summary bits are hints: a thread that finds a leaf empty clears its bit and looks again; a thread that fills
// an empty leaf sets it. Both are read-modify-writes of one word, so the later one sees what the earlier one did; a
// hint stays wrong only if its writer was killed in between, and pop repairs that.
//
// Labels  word      order    partner      what breaks without it
//   P0    leaf      release  Q0 E2        who pops an index claims its chunk before its last use is over
//   P1    summary   release  Q1 Q3        who takes a hint back misses the bit that it stood for: lost
//   Q0    leaf      acquire  P0           as P0
//   Q1    summary   acq_rel  P1 Q3 E8     acquire: as P1; release: who sees no hint does not see the loan
//   Q2    leaf      acquire  E2           who takes a hint back because of a loan does not pass the loan on
//   Q3    summary   acquire  P1 Q1        nothing as long as E8 is there: each is the other's spare

#define ZCP_PRIV_LIST_MAGIC UINT64_C(0x315453494c50435a)       // "ZCPLIST1"

typedef struct zcp_priv_list_header {
    _Atomic uint64_t magic;
    _Atomic uint32_t capacity;
    uint32_t leaf_shift, leaves, unused[11];
    _Atomic uint64_t summary[];
} zcp_priv_list_header;

typedef struct zcp_priv_leaf { _Atomic uint64_t bits; uint64_t unused[7]; } zcp_priv_leaf;
_Static_assert(sizeof(zcp_priv_list_header) == 64 && sizeof(zcp_priv_leaf) == 64, "layout of the list");

// A round along the hints: from the leaf `start` to the end, then from the beginning up to it.
typedef struct zcp_priv_walk { uint32_t start, words_begun, word; uint64_t hints; } zcp_priv_walk;

// Leaves of 64, but of down to 8 so that a small list has 16 of them.
ZCP_PRIV_COLD uint32_t zcp_priv_list_leaves(uint32_t capacity, uint32_t *shift) {
    *shift = 6;
    while (*shift > 3 && (capacity >> *shift) < 16) --*shift;
    return (uint32_t)(((uint64_t)capacity + (UINT64_C(1) << *shift) - 1) >> *shift);
}

ZCP_PRIV uint64_t zcp_priv_list_summary_bytes(uint32_t leaves) { return ((uint64_t)leaves + 511) / 512 * 64; }

ZCP_PRIV _Atomic uint64_t *zcp_priv_list_summary(const zcp_mpmc_list *list, uint32_t leaf) {
    zcp_priv_list_header *header = list->memory;
    return &header->summary[leaf / 64];
}

ZCP_PRIV _Atomic uint64_t *zcp_priv_list_leaf(const zcp_mpmc_list *list, uint32_t leaf) {
    zcp_priv_leaf *leaves = list->first_leaf;
    return &leaves[leaf].bits;
}

// Of the indices that exist.
ZCP_PRIV uint64_t zcp_priv_leaf_mask(const zcp_mpmc_list *list, uint32_t leaf) {
    uint32_t width = 1u << list->leaf_shift, left = list->capacity - (leaf << list->leaf_shift);
    if (left < width) width = left;
    return width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
}

// In its summary word.
ZCP_PRIV uint64_t zcp_priv_leaf_bit(uint32_t leaf) { return UINT64_C(1) << leaf % 64; }

ZCP_PRIV_SMALL ZEROCP_API uint64_t zcp_mpmc_list_bytes(uint32_t capacity) {
    uint32_t shift, leaves = zcp_priv_list_leaves(capacity, &shift);
    if (capacity == 0 || capacity > ZCP_MPMC_LIST_MAX_CAPACITY) return 0;
    return sizeof(zcp_priv_list_header) + zcp_priv_list_summary_bytes(leaves)
           + (uint64_t)leaves * sizeof(zcp_priv_leaf);
}

ZCP_PRIV_SETUP zcp_status zcp_priv_list_view(zcp_mpmc_list *list, void *memory, uint32_t capacity) {
    uint32_t shift, leaves = zcp_priv_list_leaves(capacity, &shift);
    void *first_leaf = zcp_priv_object_at(memory, sizeof(zcp_priv_list_header) + zcp_priv_list_summary_bytes(leaves));
    *list = (zcp_mpmc_list){memory, capacity, 0, leaves, shift, first_leaf};
    return ZCP_OK;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_list_arguments(zcp_mpmc_list *list, const void *memory) {
    if (!list) return zcp_priv_fail_plain(ZCP_ERR_INVALID_ARGUMENT);
    *list = (zcp_mpmc_list){NULL, 0, 0, 0, 0, NULL};
    if (!memory) return zcp_priv_fail_plain(ZCP_ERR_INVALID_ARGUMENT);
    if ((uintptr_t)memory % 8)
        return zcp_priv_fail(ZCP_ERR_INVALID_ALIGNMENT, 0, "a list needs memory aligned to 8 bytes");
    return ZCP_OK;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_mpmc_list_create(zcp_mpmc_list *list, void *memory, uint64_t bytes,
                                                          uint32_t capacity, bool full) {
    zcp_status status = zcp_priv_list_arguments(list, memory);
    if (status != ZCP_OK) return status;
    if (zcp_mpmc_list_bytes(capacity) == 0 || bytes < zcp_mpmc_list_bytes(capacity))
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "a list of %u indices (1 to %u) needs %llu bytes, %llu are there",
                             capacity, ZCP_MPMC_LIST_MAX_CAPACITY, (unsigned long long)zcp_mpmc_list_bytes(capacity),
                             (unsigned long long)bytes);
    zcp_priv_list_view(list, memory, capacity);
    zcp_priv_list_header *header = (zcp_priv_list_header *)memory;
    // Relaxed: nobody else uses the memory yet.
    zcp_priv_store_relaxed(&header->magic, 0);
    // Relaxed: the magic carries it.
    zcp_priv_store_relaxed(&header->capacity, capacity);
    header->leaf_shift = list->leaf_shift;
    header->leaves = list->leaves;
    for (uint32_t leaf = 0; leaf < list->leaves; leaf++) {
        if (leaf % 64 == 0) {
            uint32_t left = list->leaves - leaf;
            zcp_priv_store_relaxed(zcp_priv_list_summary(list, leaf), !full       ? 0
                                                                      : left < 64 ? (UINT64_C(1) << left) - 1
                                                                                  : UINT64_MAX);
        }
        zcp_priv_store_relaxed(zcp_priv_list_leaf(list, leaf), full ? zcp_priv_leaf_mask(list, leaf) : 0);
    }
    // Pairs with the acquire in attach.
    zcp_priv_store_release(&header->magic, ZCP_PRIV_LIST_MAGIC);
    return ZCP_OK;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_mpmc_list_attach(zcp_mpmc_list *list, void *memory, uint64_t bytes) {
    zcp_status status = zcp_priv_list_arguments(list, memory);
    if (status != ZCP_OK) return status;
    zcp_priv_list_header *header = (zcp_priv_list_header *)memory;
    if (bytes < sizeof *header)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "%llu bytes hold no list", (unsigned long long)bytes);
    if (zcp_priv_load_acquire(&header->magic) != ZCP_PRIV_LIST_MAGIC)
        return zcp_priv_fail(ZCP_ERR_NOT_ZEROCP, 0, "no list is in this memory");
    // Read once: it may change under us. Relaxed: after the magic.
    uint32_t capacity = zcp_priv_load_relaxed(&header->capacity);
    uint64_t needed = zcp_mpmc_list_bytes(capacity);
    if (needed == 0 || needed > bytes)
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "a list of %u indices (1 to %u) needs %llu bytes, %llu are there",
                             capacity, ZCP_MPMC_LIST_MAX_CAPACITY, (unsigned long long)needed,
                             (unsigned long long)bytes);
    return zcp_priv_list_view(list, memory, capacity);
}

// Puts hints into a leaf; returns which were there.
ZCP_PRIV_INLINE uint64_t zcp_priv_leaf_put(zcp_mpmc_list *list, uint32_t leaf, uint64_t bits) {
    // P0, release: publishes the free state of the chunk; pairs with Q0. Always the write, also if the bit looks set:
    // to skip it would lose the index to a pop at the same moment.
    uint64_t old = zcp_priv_or_release(zcp_priv_list_leaf(list, leaf), bits);                       // P0
    // P1, release: whoever clears this hint after us (Q1, acquire) sees our bits when it looks at the leaf again.
    if (old == 0) zcp_priv_or_release(zcp_priv_list_summary(list, leaf), zcp_priv_leaf_bit(leaf));  // P1
    return old;
}

// Index < capacity.
ZCP_PRIV_INLINE bool zcp_priv_list_push(zcp_mpmc_list *list, uint32_t index) {
    uint64_t bit = UINT64_C(1) << (index & ((1u << list->leaf_shift) - 1));
    return !(zcp_priv_leaf_put(list, index >> list->leaf_shift, bit) & bit);
}

ZEROCP_API bool zcp_mpmc_list_push(zcp_mpmc_list *list, uint32_t index) {
    return list && index < list->capacity && zcp_priv_list_push(list, index);
}

// Takes an index out of one leaf; false: none is in it.
ZCP_PRIV_INLINE bool zcp_priv_leaf_pop(zcp_mpmc_list *list, uint32_t leaf, uint32_t *index) {
    _Atomic uint64_t *word = zcp_priv_list_leaf(list, leaf);
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {
        // A look; Q0 decides.
        uint64_t bits = zcp_priv_load_relaxed(word);
        if (bits == 0) return false;
        uint32_t place = zcp_priv_lowest_bit(bits);
        // Pairs with P0.
        if (!zcp_priv_cas_acquire(word, &bits, bits & (bits - 1))) continue;                        // Q0
        *index = (leaf << list->leaf_shift) + place;
        // Garbage: no index has that bit, and now it is gone.
        if (ZCP_PRIV_UNLIKELY(place >> list->leaf_shift || *index >= list->capacity)) continue;
        // Relaxed: a hint of this process.
        if (zcp_priv_load_relaxed(&list->cursor) != leaf) zcp_priv_store_relaxed(&list->cursor, leaf);
        return true;
    }
    return false;
}

// Is something in a leaf that its hint calls non-empty? Corrects the hint.
ZCP_PRIV bool zcp_priv_leaf_is_hinted_well(zcp_mpmc_list *list, uint32_t leaf) {
    _Atomic uint64_t *summary = zcp_priv_list_summary(list, leaf);
    // Pairs with E2, for whoever sees Q1; else Q0 decides.
    if (zcp_priv_load_acquire(zcp_priv_list_leaf(list, leaf)) != 0) return true;                    // Q2
    // Pairs with P1; release: who sees no hint sees the loan that emptied the leaf.
    zcp_priv_and_acq_rel(summary, ~zcp_priv_leaf_bit(leaf));                                        // Q1
    // After Q1's acquire.
    if (zcp_priv_load_relaxed(zcp_priv_list_leaf(list, leaf)) == 0) return false;
    // As P1.
    zcp_priv_or_release(summary, zcp_priv_leaf_bit(leaf));
    return true;
}

// Sets the hint of the leaf that index is the last one of: somebody may have been killed between P0 and P1. For those
// who look at everything.
ZCP_PRIV void zcp_priv_leaf_mend(zcp_mpmc_list *list, uint32_t index) {
    uint32_t leaf = index >> list->leaf_shift;
    if (index + 1 != list->capacity && (index + 1) >> list->leaf_shift == leaf) return;
    // As P1.
    if (zcp_priv_load_relaxed(zcp_priv_list_leaf(list, leaf)) != 0)
        zcp_priv_or_release(zcp_priv_list_summary(list, leaf), zcp_priv_leaf_bit(leaf));
}

// The next leaf in which something is; false: the round is over.
ZCP_PRIV_NOINLINE bool zcp_priv_list_next(zcp_mpmc_list *list, zcp_priv_walk *walk, uint32_t *leaf) {
    uint32_t words = (list->leaves + 63) / 64;
    for (;;) {
        for (; walk->hints == 0; walk->words_begun++) {
            // The first word twice: from the start on, then up to it.
            if (walk->words_begun > words) return false;
            walk->word = (walk->start / 64 + walk->words_begun) % words;
            // Pairs with P1 and Q1; not needed: Q1 acquires before a hint is called wrong, and take_loaned has E8.
            walk->hints = zcp_priv_load_acquire(zcp_priv_list_summary(list, walk->word * 64));      // Q3
            if (walk->words_begun == 0) walk->hints &= UINT64_MAX << walk->start % 64;
        }
        *leaf = walk->word * 64 + zcp_priv_lowest_bit(walk->hints);
        walk->hints &= walk->hints - 1;
        if (*leaf < list->leaves && zcp_priv_leaf_is_hinted_well(list, *leaf)) return true;
    }
}

// Follows the hints only: fast also when nothing is there.
ZCP_PRIV bool zcp_priv_list_pop_hinted(zcp_mpmc_list *list, uint32_t *index) {
    zcp_priv_walk walk = {zcp_priv_load_relaxed(&list->cursor), 0, 0, 0};
    if (ZCP_PRIV_UNLIKELY(walk.start >= list->leaves)) walk.start = 0;
    // First the leaf used last: warm chunks are reused first.
    uint32_t leaf = walk.start;
    do {
        if (zcp_priv_leaf_pop(list, leaf, index)) return true;
    } while (zcp_priv_list_next(list, &walk, &leaf));
    return false;
}

ZEROCP_API bool zcp_mpmc_list_pop(zcp_mpmc_list *list, uint32_t *index) {
    if (!list || !index || list->leaves == 0) return false;
    if (zcp_priv_list_pop_hinted(list, index)) return true;
    for (uint32_t leaf = 0; leaf < list->leaves; leaf++)
        // Its hint was lost: somebody was killed between P0 and P1.
        if (zcp_priv_leaf_pop(list, leaf, index)) {
            // As P1.
            zcp_priv_or_release(zcp_priv_list_summary(list, leaf), zcp_priv_leaf_bit(leaf));
            return true;
        }
    return false;
}

ZCP_PRIV_SMALL ZEROCP_API uint32_t zcp_mpmc_list_count(const zcp_mpmc_list *list) {
    uint32_t count = 0;
    for (uint32_t leaf = 0; list && leaf < list->leaves; leaf++)
        count +=
            zcp_priv_count_bits(zcp_priv_load_relaxed(zcp_priv_list_leaf(list, leaf)) & zcp_priv_leaf_mask(list, leaf));
    return count;
}

ZEROCP_API uint32_t zcp_mpmc_list_capacity(const zcp_mpmc_list *list) { return list ? list->capacity : 0; }

#endif // ZEROCP_RELPTR_IMPLEMENTED

// SPDX-License-Identifier: MIT Copyright (c) 2026 the zerocp authors
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
// documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
// rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
// permit persons to whom the Software is furnished to do so, subject to the following conditions: The above copyright
// notice and this permission notice shall be included in all copies or substantial portions of the Software. THE
// SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
// WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
// COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
// OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
