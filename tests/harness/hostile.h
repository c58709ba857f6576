// tests/harness/hostile.h: a copy of the library for one file, in a world that is against it. Include it first, once.
//
//   - Each mapping stands between two pages that nobody may touch, so an access just outside of it is a SIGSEGV.
//   - Each call of the system can be made to fail: hostile.nth, .error, .ever_after; hostile.calls counts them.
//   - Mappings and accesses are counted: hostile.files, .anonymous, hostile_accesses.
//   - A peer can be played that is always just ahead: hostile.peer. Every compare-and-swap on [hostile.first,
//     hostile.last) then finds the word changed since the load before it, and every pop finds the bit taken and given
//     back at once. It is the fastest scribbler that there can be, so it shows whether a retry loop has a bound.
//
// The rest of the program keeps its own copy of the library (ZEROCP_STATIC), so test.h's CHECK_OK does not know this
// copy's zcp_last_message; what is here needs nothing of test.h, and a finding ends the process with abort().
#ifndef ZEROCP_TEST_HOSTILE_H
#define ZEROCP_TEST_HOSTILE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define HOSTILE_UNUSED __attribute__((unused))

enum { HOSTILE_TRACED = 512, HOSTILE_ANONYMOUS = 1 << 16 };

typedef enum { HOSTILE_NO_PEER, HOSTILE_CAS, HOSTILE_POP, HOSTILE_REFILL } hostile_peer;

static struct {
    _Atomic int files, anonymous;                                  // mappings that stand
    _Atomic uintptr_t private[HOSTILE_ANONYMOUS];                  // where the anonymous ones do: see hostile_note
    int nth, error;                                                // that call fails (from 1; 0: none), with that errno
    bool ever_after;                                               // and all later ones of the same function
    bool tracing;
    _Atomic int calls;                                             // made since it was set to 0
    const char *failed;                                            // the function that was made to fail
    const char *without;                                           // a function that never works
    const char *trace[HOSTILE_TRACED];                             // which functions, in their order, when .tracing
    hostile_peer peer;
    _Atomic uint32_t *ticking;                                     // a word that counts up at each access
    const char *first, *last;                                      // what the peer writes to
    const char *list_first[16], *list_last[16];                    // of that the lists
    int lists;
    uint64_t until;                                                // after so many accesses it calls `then`; 0: never
    void (*then)(void);
    void (*after_pread)(void *bytes, size_t count);                // NULL: nothing
} hostile HOSTILE_UNUSED;

// ---------------------------------------------------------------------------------------------------------------------
// Accesses to memory

static _Thread_local uint64_t hostile_accesses HOSTILE_UNUSED;
static _Thread_local uint64_t hostile_limit HOSTILE_UNUSED;        // of accesses in one call; 0: none

HOSTILE_UNUSED static void hostile_access(void) {
    if (hostile.ticking != NULL)
        atomic_fetch_add_explicit(hostile.ticking, 1, memory_order_relaxed);
    if (hostile.until != 0 && --hostile.until == 0)
        hostile.then();
    if (++hostile_accesses == hostile_limit) {
        fprintf(stderr, "hostile: a call made %llu accesses: a loop without an end\n",
                (unsigned long long)hostile_limit);
        abort();
    }
}

HOSTILE_UNUSED static bool hostile_owns(const volatile void *word) {
    const volatile char *at = word;
    return hostile.peer != HOSTILE_NO_PEER && at >= hostile.first && at < hostile.last;
}

HOSTILE_UNUSED static bool hostile_in_list(const volatile void *word) {
    const volatile char *at = word;
    bool inside = false;
    for (int i = 0; i < hostile.lists; i++)
        inside = inside || (at >= hostile.list_first[i] && at < hostile.list_last[i]);
    return inside;
}

// Before a CAS. HOSTILE_CAS and HOSTILE_REFILL, a record: another ticket for a chunk that is held, another generation
// for one that is free, so that all that the caller looked at still stands, and its CAS fails all the same.
// HOSTILE_POP, a leaf of a list: another index came or went.
HOSTILE_UNUSED static void hostile_disturb(volatile void *word) {
    if (!hostile_owns(word) || hostile_in_list(word) != (hostile.peer == HOSTILE_POP))
        return;
    volatile _Atomic uint64_t *state = word;
    uint64_t s = atomic_load(state);
    if (hostile.peer == HOSTILE_POP)
        s ^= 2;
    else if ((uint32_t)s == 0)
        s = (s >> 32 == UINT32_MAX ? 1 : (s >> 32) + 1) << 32;
    else                                                           // not back to 0, which says that no token was made
        s ^= (s & 0x1fffff) == 1 || (s & 0x1fffff) == 2 ? 3 : 1;
    atomic_store(state, s);
}

// After a CAS. HOSTILE_REFILL: what was taken from a list is in it again.
HOSTILE_UNUSED static bool hostile_after(volatile void *word, bool done) {
    volatile _Atomic uint64_t *leaf = word;
    if (done && hostile_owns(word) && hostile_in_list(word) && hostile.peer == HOSTILE_REFILL)
        atomic_fetch_or(leaf, 1);
    return done;
}

// The same for a fetch_and, which always succeeds: with HOSTILE_POP the bit was gone already.
HOSTILE_UNUSED static uint64_t hostile_and(_Atomic uint64_t *word, uint64_t bits, memory_order order) {
    uint64_t old = atomic_fetch_and_explicit(word, bits, order);
    if (!hostile_owns(word) || hostile.peer == HOSTILE_CAS)
        return old;
    atomic_fetch_or(word, old);
    return hostile.peer == HOSTILE_POP ? old & bits : old;
}

// ---------------------------------------------------------------------------------------------------------------------
// The system

HOSTILE_UNUSED static bool hostile_fails(const char *function) {
    int number = atomic_fetch_add(&hostile.calls, 1) + 1;
    if (hostile.tracing && number <= HOSTILE_TRACED)
        hostile.trace[number - 1] = function;
    if (hostile.without != NULL && strcmp(hostile.without, function) == 0) {
        errno = ENOSYS;
        return true;
    }
    bool fails = number == hostile.nth;
    if (hostile.ever_after && hostile.nth > 0 && number > hostile.nth)
        fails = strcmp(hostile.failed, function) == 0;
    if (!fails)
        return false;
    hostile.failed = function;
    errno = hostile.error;
    return true;
}

// The anonymous mappings that stand, by a hash of their address: from there on, up to the first 0; 1: one went.
HOSTILE_UNUSED static size_t hostile_place(uintptr_t at, size_t nth) {
    return ((size_t)((at >> 12) * UINT64_C(0x9e3779b97f4a7c15) >> 40) + nth) % HOSTILE_ANONYMOUS;
}

HOSTILE_UNUSED static void hostile_note(const void *memory) {
    for (size_t i = 0; i < HOSTILE_ANONYMOUS; i++) {
        _Atomic uintptr_t *place = &hostile.private[hostile_place((uintptr_t)memory, i)];
        uintptr_t seen = atomic_load(place);
        if (seen <= 1 && atomic_compare_exchange_strong(place, &seen, (uintptr_t)memory))
            return;
    }
    fprintf(stderr, "hostile: more than %d anonymous mappings\n", HOSTILE_ANONYMOUS);
    abort();
}

// false: no such one stands.
HOSTILE_UNUSED static bool hostile_forget(const void *memory) {
    for (size_t i = 0; i < HOSTILE_ANONYMOUS; i++) {
        _Atomic uintptr_t *place = &hostile.private[hostile_place((uintptr_t)memory, i)];
        uintptr_t seen = atomic_load(place);
        if (seen == 0)
            return false;
        if (seen == (uintptr_t)memory)
            return atomic_compare_exchange_strong(place, &seen, 1);
    }
    return false;
}

HOSTILE_UNUSED static void *hostile_mmap(void *where, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (hostile_fails("mmap"))
        return MAP_FAILED;
    // in the place of one of ours, which keeps its guards
    if (flags & MAP_FIXED)
        return mmap(where, bytes, protection, flags, fd, offset);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    char *guard = inner < bytes || inner + 2 * page < inner
                      ? MAP_FAILED
                      : mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (guard == MAP_FAILED) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *memory = mmap(guard + page, bytes, protection, flags | MAP_FIXED, fd, offset);
    if (memory == MAP_FAILED) {
        int error = errno;
        munmap(guard, inner + 2 * page);
        errno = error;
        return MAP_FAILED;
    }
    atomic_fetch_add(fd < 0 ? &hostile.anonymous : &hostile.files, 1);
    if (fd < 0)
        hostile_note(memory);
    return memory;
}

HOSTILE_UNUSED static int hostile_munmap(void *memory, size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    atomic_fetch_sub(hostile_forget(memory) ? &hostile.anonymous : &hostile.files, 1);
    return munmap((char *)memory - page, inner + 2 * page);
}

HOSTILE_UNUSED static int hostile_shm_open(const char *name, int flags, mode_t mode) {
    return hostile_fails(flags & O_CREAT ? "shm_open(O_CREAT)" : "shm_open") ? -1 : shm_open(name, flags, mode);
}

HOSTILE_UNUSED static int hostile_shm_unlink(const char *name) {
    return hostile_fails("shm_unlink") ? -1 : shm_unlink(name);
}

HOSTILE_UNUSED static int hostile_open(const char *path, int flags) {
    return hostile_fails("open") ? -1 : open(path, flags);
}

HOSTILE_UNUSED static int hostile_close(int fd) {                  // the kernel closes, whatever it then reports
    bool fails = hostile_fails("close");
    int error = errno, result = close(fd);
    errno = fails ? error : errno;
    return fails ? -1 : result;
}

HOSTILE_UNUSED static int hostile_fstat(int fd, struct stat *status) {
    return hostile_fails("fstat") ? -1 : fstat(fd, status);
}

HOSTILE_UNUSED static int hostile_fstatvfs(int fd, struct statvfs *space) {
    return hostile_fails("fstatvfs") ? -1 : fstatvfs(fd, space);
}

HOSTILE_UNUSED static int hostile_fallocate(int fd, int mode, off_t from, off_t bytes) {
    return hostile_fails("fallocate") ? -1 : fallocate(fd, mode, from, bytes);
}

HOSTILE_UNUSED static int hostile_posix_fallocate(int fd, off_t from, off_t bytes) {
    return hostile_fails("posix_fallocate") ? errno : posix_fallocate(fd, from, bytes);
}

HOSTILE_UNUSED static int hostile_ftruncate(int fd, off_t bytes) {
    return hostile_fails("ftruncate") ? -1 : ftruncate(fd, bytes);
}

HOSTILE_UNUSED static int hostile_fchmod(int fd, mode_t mode) {
    return hostile_fails("fchmod") ? -1 : fchmod(fd, mode);
}

HOSTILE_UNUSED static int hostile_fchown(int fd, uid_t user, gid_t group) {
    return hostile_fails("fchown") ? -1 : fchown(fd, user, group);
}

// What is wiped in children stays until the process ends: a manager's object, the page of locks. It counts as no leak.
HOSTILE_UNUSED static int hostile_madvise(void *memory, size_t bytes, int advice) {
    if (advice == MADV_WIPEONFORK && hostile_forget(memory))
        atomic_fetch_sub(&hostile.anonymous, 1);
    return hostile_fails("madvise") ? -1 : madvise(memory, bytes, advice);
}

HOSTILE_UNUSED static int hostile_mlock(const void *memory, size_t bytes) {
    return hostile_fails("mlock") ? -1 : mlock(memory, bytes);
}

HOSTILE_UNUSED static int hostile_fcntl(int fd, int command, uintptr_t argument) {
    bool asks = command == F_GETFD || command == F_GETFL;          // what cannot fail of a descriptor that is open
    return !asks && hostile_fails("fcntl") ? -1 : fcntl(fd, command, argument);
}

HOSTILE_UNUSED static ssize_t hostile_pread(int fd, void *bytes, size_t count, off_t at) {
    ssize_t n = hostile_fails("pread") ? -1 : pread(fd, bytes, count, at);
    if (n > 0 && hostile.after_pread != NULL)
        hostile.after_pread(bytes, (size_t)n);
    return n;
}

HOSTILE_UNUSED static ssize_t hostile_pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return hostile_fails("pwrite") ? -1 : pwrite(fd, bytes, count, at);
}

HOSTILE_UNUSED static ssize_t hostile_getrandom(void *bytes, size_t count, unsigned flags) {
    return hostile_fails("getrandom") ? -1 : getrandom(bytes, count, flags);
}

HOSTILE_UNUSED static int hostile_getrlimit(int which, struct rlimit *limit) {
    if (hostile_fails("getrlimit"))
        return -1;
    return which == (int)RLIMIT_MEMLOCK ? getrlimit(RLIMIT_MEMLOCK, limit) : getrlimit(RLIMIT_FSIZE, limit);
}

HOSTILE_UNUSED static int hostile_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    return hostile_fails("pthread_atfork") ? errno : pthread_atfork(prepare, parent, child);
}

// ---------------------------------------------------------------------------------------------------------------------
// The library

#define ZEROCP_STATIC
#define ZEROCP_IMPLEMENTATION
#define ZEROCP_ACCESS() hostile_access()
#define ZCP_PRIV_MAX_GROWN 5000u                                     // each mapping is three here, with its guards
#define ZEROCP_CAS(word, seen, next, order)                                                                            \
    (hostile_disturb(word),                                                                                            \
     hostile_after(word, atomic_compare_exchange_strong_explicit(word, seen, next, order, memory_order_relaxed)))

#define mmap(where, bytes, protection, flags, fd, offset) hostile_mmap(where, bytes, protection, flags, fd, offset)
#define munmap(memory, bytes) hostile_munmap(memory, bytes)
#define shm_open(name, flags, mode) hostile_shm_open(name, flags, mode)
#define shm_unlink(name) hostile_shm_unlink(name)
#define open(path, flags) hostile_open(path, flags)
#define close(fd) hostile_close(fd)
#define fstat(fd, status) hostile_fstat(fd, status)
#define fstatvfs(fd, space) hostile_fstatvfs(fd, space)
#define fallocate(fd, mode, from, bytes) hostile_fallocate(fd, mode, from, bytes)
#define posix_fallocate(fd, from, bytes) hostile_posix_fallocate(fd, from, bytes)
#define ftruncate(fd, bytes) hostile_ftruncate(fd, bytes)
#define fchmod(fd, mode) hostile_fchmod(fd, mode)
#define fchown(fd, user, group) hostile_fchown(fd, user, group)
#define madvise(memory, bytes, advice) hostile_madvise(memory, bytes, advice)
#define mlock(memory, bytes) hostile_mlock(memory, bytes)
#define fcntl(fd, command, argument) hostile_fcntl(fd, command, (uintptr_t)(argument))
#define pread(fd, bytes, count, at) hostile_pread(fd, bytes, count, at)
#define pwrite(fd, bytes, count, at) hostile_pwrite(fd, bytes, count, at)
#define getrandom(bytes, count, flags) hostile_getrandom(bytes, count, flags)
#define getrlimit(which, limit) hostile_getrlimit((int)(which), limit)
#define pthread_atfork(prepare, parent, child) hostile_atfork(prepare, parent, child)

#include "zerocp_relptr.h"
#undef zcp_priv_and_acquire
#define zcp_priv_and_acquire(word, bits) (hostile_access(), hostile_and(word, bits, memory_order_acquire))
#include "zerocp.h"

#undef mmap
#undef munmap
#undef shm_open
#undef shm_unlink
#undef open
#undef close
#undef fstat
#undef fstatvfs
#undef fallocate
#undef posix_fallocate
#undef ftruncate
#undef fchmod
#undef fchown
#undef madvise
#undef mlock
#undef fcntl
#undef pread
#undef pwrite
#undef getrandom
#undef getrlimit
#undef pthread_atfork

// ---------------------------------------------------------------------------------------------------------------------
// What this process has open: to be compared before and after

typedef struct hostile_holdings {
    int descriptors, files, anonymous, shm_mappings;
} hostile_holdings;

HOSTILE_UNUSED static int hostile_count_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

// Lines of /proc/self/maps that name a file of /dev/shm, also a removed one.
HOSTILE_UNUSED static int hostile_count_shm_mappings(void) {
    static const char wanted[] = "/dev/shm/";
    char text[4096];
    int count = 0;
    size_t matched = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && (n = read(fd, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < n; i++) {
            matched = text[i] == wanted[matched] ? matched + 1 : text[i] == wanted[0];
            if (matched == sizeof wanted - 1) {
                count++;
                matched = 0;
            }
        }
    if (fd >= 0)
        close(fd);
    return count;
}

HOSTILE_UNUSED static hostile_holdings hostile_holds(void) {
    return (hostile_holdings){hostile_count_descriptors(), hostile.files, hostile.anonymous,
                              hostile_count_shm_mappings()};
}

HOSTILE_UNUSED static bool hostile_same(const hostile_holdings *before, const hostile_holdings *after) {
    return before->descriptors == after->descriptors && before->files == after->files &&
           before->shm_mappings == after->shm_mappings && before->anonymous == after->anonymous;
}

#endif
