/* zerocp_shm.h - zerocp 1.0 - MIT - shared-memory objects with their pages reserved at creation (floor 2 of 3)

   Do this in exactly one C file, before you include it:
       #define ZEROCP_IMPLEMENTATION
       #include "zerocp_shm.h"
   Everywhere else just include it. It includes zerocp_relptr.h and nothing else of zerocp.

   QUICK START
     1. zcp_shm_desc desc = { .name = "frames", .bytes = 1 << 20 };           opened if it exists, else created
     2. zcp_shm shm;  if (zcp_shm_open(&shm, &desc) != ZCP_OK) puts(zcp_last_message());
     3. shm.base, shm.bytes                                                   yours to share
     4. zcp_shm_close(&shm);                                                  unmaps; the object stays
     5. zcp_shm_unlink("frames");                                             removes the name

   CAVEATS
     - A process that may write the object can also truncate it: touching what is gone raises SIGBUS. Give write
       permission to friends only.
     - ZCP_SHM_NO_RESERVE: touching a page when /dev/shm is full raises SIGBUS. Without it, "full" is ZCP_ERR_NO_SPACE
       at creation.
     - A mapping is inherited by fork like any other; only the locks and the mappings of zerocp.h are not.
     - A process that may read the object may lock it, too: while the object is half-made, such a reader can keep
       others from finishing it (TIMEOUT). Instances of zerocp.h do not have this weakness.
     - No file is opened as descriptor 0, 1 or 2. If one of these is closed, zerocp occupies its number with a
       descriptor that can be neither read nor written while it opens a file.
     - Nothing here is async-signal-safe, and a thread must not be cancelled (pthread_cancel) inside a call. glibc
       before 2.34 needs -lrt -pthread.

   CONFIGURATION: that of zerocp_relptr.h, and
     ZEROCP_STEP(name)        called between the steps of a protocol (for tests)   implementing file; default: nothing

   The table of contents stands in zerocp.h. */

#include "zerocp_relptr.h"

#ifndef ZEROCP_SHM_H
#define ZEROCP_SHM_H
#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------------------------------
// >>api-shm  An object of shared memory
// ---------------------------------------------------------------------------------------------------------------------

typedef enum zcp_shm_mode {
    ZCP_SHM_OPEN_OR_CREATE = 0,     // open what is there, create what is not
    ZCP_SHM_OPEN_EXISTING,          // NOT_FOUND if it is not there
    ZCP_SHM_CREATE_EXCLUSIVE,       // EXISTS if it is there; takes over what a killed creator left half-made
    // Removes what is there and creates anew; whoever has the old one mapped keeps it. Root removes any user's.
    ZCP_SHM_PURGE_AND_CREATE
} zcp_shm_mode;

// The flags of zcp_shm_desc and zcp_manager_desc have different bits; each function refuses bits that it does not know.

// Maps without write access, and never creates. Only with ZCP_SHM_OPEN_EXISTING and ZCP_SHM_OPEN_OR_CREATE.
#define ZCP_SHM_READ_ONLY   (UINT32_C(1) << 0)
#define ZCP_SHM_PREFAULT    (UINT32_C(1) << 1)   // fills the page tables now, so that no first touch faults later
#define ZCP_SHM_LOCK        (UINT32_C(1) << 2)   // mlock: never swapped out

// Accepts an object of any user. /dev/shm is world-writable: that user may be a stranger.
#define ZCP_SHM_ANY_OWNER   (UINT32_C(1) << 3)

// Does not reserve pages at creation: faster, but touching a page when /dev/shm is full raises SIGBUS.
#define ZCP_SHM_NO_RESERVE  (UINT32_C(1) << 4)
#define ZCP_SHM_NO_DUMP     (UINT32_C(1) << 5)   // leaves the mapping out of core dumps
#define ZCP_SHM_GROUP       (UINT32_C(1) << 6)   // uses the field `group`

#define ZCP_SHM_DEFAULT_PERMISSIONS 0600u
#define ZCP_SHM_DEFAULT_TIMEOUT_MS 5000u

typedef struct zcp_shm_desc {
    // A file name of up to 254 bytes, no slash (one in front is ignored), no control character, not "." or "..".
    const char  *name;
    uint64_t     bytes;         // to create: 1 or more; to open: how many the object must have at least, 0 = any
    zcp_shm_mode mode;
    uint32_t     permissions;   // of a created object: up to 0777, exact whatever the umask; 0 = 0600
    uint32_t     group;         // of a created object, with ZCP_SHM_GROUP: the group's number
    uint32_t     flags;         // ZCP_SHM_...
    uint32_t     timeout_ms;    // how long to wait for a creator at work; 0 = 5000
} zcp_shm_desc;

typedef struct zcp_shm {
    void    *base;              // NULL if not open
    uint64_t bytes;             // of the whole object, which may be larger than asked for
    uint64_t device, inode;     // its identity: names may come to lead elsewhere
    uint32_t created;           // 1 if this call created it: its bytes are zero
    uint32_t flags;             // as in the descriptor
} zcp_shm;

// Opens or creates the object and maps all of it; between processes, too, exactly one creates it. After a failure *shm
// is all zero, and an object that this call began to create is gone. Thread-safe.
// Errors:
//   INVALID_ARGUMENT   an argument is NULL; mode or permissions out of range
//   INVALID_NAME
//   INVALID_SIZE       bytes is 0 to create, or above 2^63 - 1; or the existing object is smaller
//   INVALID_FLAGS      an unknown flag, or one that does not go with the mode
//   EXISTS             ZCP_SHM_CREATE_EXCLUSIVE, and there is one
//   NOT_FOUND          there is none, or it is half-made, and this call may not create
//   PERMISSION         the system refuses access
//   WRONG_OWNER        it belongs to another user, and ZCP_SHM_ANY_OWNER is missing
//   WRONG_TYPE         the name leads to something other than a regular file
//   NO_SPACE           shared memory is full; the message tells needed and free bytes
//   NO_MEMORY          the limit on locked memory (ZCP_SHM_LOCK, or mlockall)
//   TIMEOUT            another process was creating it all the time
//   MAPPING, SYSTEM
ZEROCP_API zcp_status zcp_shm_open(zcp_shm *shm, const zcp_shm_desc *desc);

// Unmaps; the object and its name stay. *shm becomes zero: closing again, or a zero zcp_shm, or NULL, does nothing.
ZEROCP_API void zcp_shm_close(zcp_shm *shm);

// Removes the name; mappings stay valid. Thread-safe. Errors: INVALID_NAME, NOT_FOUND, PERMISSION, WRONG_TYPE (a
// directory), SYSTEM.
ZEROCP_API zcp_status zcp_shm_unlink(const char *name);

#ifdef __cplusplus
}
#endif
#endif // ZEROCP_SHM_H

#if defined(ZEROCP_IMPLEMENTATION) && !defined(ZEROCP_SHM_IMPLEMENTED) && !defined(ZCP_PRIV_REFUSED)
#define ZEROCP_SHM_IMPLEMENTED

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifndef ZEROCP_STEP
#define ZEROCP_STEP(name) ((void)0)
#endif

// Linux's numbers, the same on every architecture; some libc headers show them under _GNU_SOURCE only.
#ifdef F_OFD_GETLK
#define ZCP_PRIV_OFD_GETLK F_OFD_GETLK
#define ZCP_PRIV_OFD_SETLK F_OFD_SETLK
#else
#define ZCP_PRIV_OFD_GETLK 36
#define ZCP_PRIV_OFD_SETLK 37
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifdef O_PATH
#define ZCP_PRIV_O_PATH O_PATH
#elif defined(__O_PATH)
#define ZCP_PRIV_O_PATH __O_PATH
#else
#define ZCP_PRIV_O_PATH 010000000
#endif

// ThreadSanitizer does not see that a forked child finds a mutex unlocked that its parent had locked: it is told.
#if defined(__SANITIZE_THREAD__)
#define ZCP_PRIV_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ZCP_PRIV_TSAN
#endif
#endif
#ifdef ZCP_PRIV_TSAN
#include <sanitizer/tsan_interface.h>
#define ZCP_PRIV_UNLOCKED(mutex) (__tsan_mutex_pre_unlock(mutex, 0), __tsan_mutex_post_unlock(mutex, 0))
#else
#define ZCP_PRIV_UNLOCKED(mutex) ((void)0)
#endif

// ---------------------------------------------------------------------------------------------------------------------
// >>clock  Time, and bounded waits
// ---------------------------------------------------------------------------------------------------------------------

ZCP_PRIV_SETUP uint64_t zcp_priv_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

ZCP_PRIV_SETUP void zcp_priv_sleep_us(uint32_t us) {
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

// A bounded wait: 100 us at first, longer and longer, up to 5 ms a time.
typedef struct zcp_priv_wait { uint64_t deadline; uint32_t us; } zcp_priv_wait;

ZCP_PRIV_SETUP zcp_priv_wait zcp_priv_wait_begin(uint32_t timeout_ms) {
    return (zcp_priv_wait){ zcp_priv_now_ns() + (uint64_t)timeout_ms * 1000000u, 100 };
}

// false: the time is over.
ZCP_PRIV_SETUP bool zcp_priv_wait_more(zcp_priv_wait *wait) {
    if (zcp_priv_now_ns() >= wait->deadline) return false;
    zcp_priv_sleep_us(wait->us);
    if (wait->us < 5000) wait->us *= 2;
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>process  What a process keeps, and a forked child must not
// ---------------------------------------------------------------------------------------------------------------------
// It lies in pages that a forked child finds zeroed: the kernel does that (MADV_WIPEONFORK), for every kind of fork;
// where the kernel cannot, the handler of pthread_atfork does. The first page holds the mutex under which locks are
// taken, so no fork falls between the opening and the closing of a lock's descriptor.
//
// These pages stay until the process ends, because threads may work on while it ends, and late handles lead there. So
// they lie in zeroed data of the program or library that holds this code, as long as there is room: dlclose takes them
// away with the library, exit does not.
//
// Invariant: in a forked child all of it is as in a fresh process.

// At the start of each such area.
typedef struct zcp_priv_wiped { struct zcp_priv_wiped *next; size_t bytes; } zcp_priv_wiped;

// Threads that keep something for themselves have a number below 64; 0: none. Which are taken, 0 always.
#define ZCP_PRIV_LANES 64u

typedef struct zcp_priv_process {
    zcp_priv_wiped head;                // all areas; the list is changed under the mutex
    pthread_mutex_t mutex;              // all zero is PTHREAD_MUTEX_INITIALIZER on Linux (glibc, musl)
    pthread_mutex_t opening;            // one thread at a time opens files (>>descriptors); taken after `mutex`
    pthread_mutex_t key_mutex;          // of the threads' key (>>thread in zerocp.h): held for a moment, taken last
    void *managers;                     // the list of zerocp.h, newest first
    _Atomic uint32_t tids[ZCP_PRIV_LANES];      // by a thread's number, the kernel's; 0: nobody has it, or not known
    _Atomic uint32_t pid;               // of this process; 0: nobody has asked yet
} zcp_priv_process;

static _Atomic(zcp_priv_process *) zcp_priv_process_page;      // set once, then constant

// So many that one of them lies in a page in which nothing else lies, whatever a page's size.
static zcp_priv_process zcp_priv_process_room[2 * 65536 / sizeof(zcp_priv_process) + 1];
static ZEROCP_THREAD_LOCAL uint32_t zcp_priv_thread;
static _Atomic uint64_t zcp_priv_threads = 1;

// Private zeroed pages; NULL: no memory.
ZCP_PRIV_SETUP void *zcp_priv_anonymous(size_t bytes, int advice) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    // WIPEONFORK is refused by old kernels: then the handler below stands in.
    (void)madvise(p, bytes, advice);
    return p;
}

// Has a forked child find zeroed what lies in whole pages of an array of `count` objects. Of those, gives the first one
// and the end; if these are equal there is none.
ZCP_PRIV_SETUP void zcp_priv_wiped_among(void *objects, size_t bytes, size_t count, size_t *first, size_t *end) {
    long page_size = sysconf(_SC_PAGESIZE);
    uintptr_t page = page_size > 0 ? (uintptr_t)page_size : 65536, base = (uintptr_t)objects;
    uintptr_t begin = (base + page - 1) & ~(page - 1), stop = (base + bytes * count) & ~(page - 1);
    *first = *end = 0;
    if (begin >= stop) return;
    *first = (begin - base + bytes - 1) / bytes;
    *end = (stop - base) / bytes;
    if (*end < *first) *end = *first;
    // Refused: as for anonymous.
    (void)madvise((char *)objects + (begin - base), stop - begin, MADV_WIPEONFORK);
}

// The process's first page; the same one for all who call this. NULL: no memory.
ZCP_PRIV_SETUP zcp_priv_process *zcp_priv_process_new(void) {
    size_t first, end, count = sizeof zcp_priv_process_room / sizeof zcp_priv_process_room[0];
    zcp_priv_wiped_among(zcp_priv_process_room, sizeof zcp_priv_process_room[0], count, &first, &end);
    if (first < end) return &zcp_priv_process_room[first];
    return (zcp_priv_process *)zcp_priv_anonymous(sizeof(zcp_priv_process), MADV_WIPEONFORK);
}

ZCP_PRIV_INLINE zcp_priv_process *zcp_priv_process_get(void) { return zcp_priv_load_acquire(&zcp_priv_process_page); }

// The handlers may be registered more than once: what this thread's first prepare handler has locked is locked and
// unlocked once.
static ZEROCP_THREAD_LOCAL zcp_priv_process *zcp_priv_forking;

ZCP_PRIV_SETUP void zcp_priv_fork_prepare(void) {
    if (zcp_priv_forking || (zcp_priv_forking = zcp_priv_process_get()) == NULL) return;
    pthread_mutex_lock(&zcp_priv_forking->mutex);
    pthread_mutex_lock(&zcp_priv_forking->opening);
    // Where the kernel does not wipe: what the child has to, also in a child of a child.
    zcp_priv_forking->head.bytes = sizeof *zcp_priv_forking;
}

ZCP_PRIV_SETUP void zcp_priv_fork_parent(void) {
    if (zcp_priv_forking) {
        pthread_mutex_unlock(&zcp_priv_forking->opening);
        pthread_mutex_unlock(&zcp_priv_forking->mutex);
    }
    zcp_priv_forking = NULL;
}

ZCP_PRIV_SETUP void zcp_priv_fork_child(void) {
    zcp_priv_process *process = zcp_priv_process_get();
    if (zcp_priv_forking) {
        ZCP_PRIV_UNLOCKED(&process->opening);
        ZCP_PRIV_UNLOCKED(&process->mutex);
    }
    zcp_priv_forking = NULL;
    // The other threads are gone; after another kind of fork their numbers stay taken.
    zcp_priv_store_relaxed(&zcp_priv_threads, UINT64_C(1) << zcp_priv_thread | 1);
    for (zcp_priv_wiped *area = process ? &process->head : NULL, *next; area; area = next) {
        // NULL at once where the kernel has wiped.
        next = area->next;
        memset((void *)area, 0, area->bytes);
    }
}

// The first page; makes it if there is none. The fork handlers are there before it is. NULL: no memory (see errno).
ZCP_PRIV_SETUP zcp_priv_process *zcp_priv_process_made(void) {
    // Acquire, pairs with the release of the CAS.
    zcp_priv_process *process = zcp_priv_process_get();
    if (!process) {
        errno = ENOMEM;
        if (pthread_atfork(zcp_priv_fork_prepare, zcp_priv_fork_parent, zcp_priv_fork_child) != 0) return NULL;
        zcp_priv_process *fresh = zcp_priv_process_new();
        if (!fresh) return NULL;
        // Else another thread was first.
        (void)zcp_priv_cas_release(&zcp_priv_process_page, &process, fresh);
        process = zcp_priv_process_get();
    }
    return process;
}

// Takes the process's mutex. NULL: no memory.
ZCP_PRIV_SETUP zcp_priv_process *zcp_priv_process_lock(void) {
    zcp_priv_process *process = zcp_priv_process_made();
    if (process) pthread_mutex_lock(&process->mutex);
    return process;
}

// NULL: there was none to lock.
ZCP_PRIV_COLD void zcp_priv_process_unlock(zcp_priv_process *process) {
    if (process) pthread_mutex_unlock(&process->mutex);
}

// An area that a forked child finds zeroed, and that stays: `area`, which is zero and in such pages, or if that is NULL
// pages that are mapped for it. Under the process's mutex. NULL: no memory.
ZCP_PRIV_SETUP void *zcp_priv_wiped_new(zcp_priv_process *process, void *area, size_t bytes) {
    ZEROCP_ASSERT(bytes >= sizeof(zcp_priv_wiped));
    zcp_priv_wiped *wiped = (zcp_priv_wiped *)(area ? area : zcp_priv_anonymous(bytes, MADV_WIPEONFORK));
    if (!wiped) return NULL;
    wiped->bytes = bytes;
    wiped->next = process->head.next;
    process->head.next = wiped;
    return wiped;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>descriptors  Opening files, never as descriptor 0, 1 or 2
// ---------------------------------------------------------------------------------------------------------------------
// A program whose standard output is closed, or a sibling thread of it, would otherwise print into shared memory. The
// kernel gives out the lowest free number; so the free ones of the three are first taken by descriptors of "/" that can
// be neither read nor written (O_PATH): whoever uses one gets EBADF, as for a closed one. They are closed right after.
// One thread opens at a time, or it might count on a number that another one is about to close; and no fork falls in
// between. Every descriptor is made here, or between high_begin and high_end.

enum { ZCP_PRIV_FIRST_FD = 3 };

// Takes the numbers below ZCP_PRIV_FIRST_FD that are free; false: that cannot be done, errno tells why.
ZCP_PRIV_SETUP bool zcp_priv_low_take(int fillers[ZCP_PRIV_FIRST_FD], int *count) {
    *count = 0;
    for (int low = 0; low < ZCP_PRIV_FIRST_FD; low++) {
        if (fcntl(low, F_GETFD, 0) >= 0) continue;
        int fd = open("/", ZCP_PRIV_O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) return false;
        if (fd < ZCP_PRIV_FIRST_FD) fillers[(*count)++] = fd;
        // The application has just taken that number itself.
        else close(fd);
    }
    return true;
}

// Closes them, but for those in whose place the application has put something else meanwhile.
ZCP_PRIV_SETUP void zcp_priv_low_drop(const int fillers[ZCP_PRIV_FIRST_FD], int count) {
    for (int i = 0; i < count; i++) {
        int state = fcntl(fillers[i], F_GETFL, 0);
        if (state >= 0 && (state & ZCP_PRIV_O_PATH)) close(fillers[i]);
    }
}

// The numbers that are taken meanwhile.
typedef struct zcp_priv_high { int fillers[ZCP_PRIV_FIRST_FD], count; } zcp_priv_high;

// Keeps what is opened until high_end from being one of those. NULL: that cannot be done, errno tells why.
ZCP_PRIV_SETUP zcp_priv_process *zcp_priv_high_begin(zcp_priv_high *high) {
    zcp_priv_process *process = zcp_priv_process_made();
    if (!process) return NULL;
    pthread_mutex_lock(&process->opening);
    if (zcp_priv_low_take(high->fillers, &high->count)) return process;
    int error = errno;
    zcp_priv_low_drop(high->fillers, high->count);
    pthread_mutex_unlock(&process->opening);
    errno = error;
    return NULL;
}

ZCP_PRIV_SETUP void zcp_priv_high_end(zcp_priv_process *process, const zcp_priv_high *high) {
    int error = errno;
    zcp_priv_low_drop(high->fillers, high->count);
    pthread_mutex_unlock(&process->opening);
    errno = error;
}

// What was opened meanwhile: the application may have closed one of the three at this very moment. -1: as was given, or
// there is no other number; errno tells.
ZCP_PRIV_SETUP int zcp_priv_descriptor_high(int fd) {
    if (fd < 0 || fd >= ZCP_PRIV_FIRST_FD) return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, ZCP_PRIV_FIRST_FD), error = errno;
    close(fd);
    errno = error;
    return high;
}

#define ZCP_PRIV_CAREFULLY (O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)       // whatever has the name
typedef enum zcp_priv_opener { ZCP_PRIV_BY_OPEN, ZCP_PRIV_BY_SHM_OPEN } zcp_priv_opener;

ZCP_PRIV_SETUP int zcp_priv_open_high(zcp_priv_opener opener, const char *path, int flags, mode_t mode) {
    zcp_priv_high high;
    zcp_priv_process *process = zcp_priv_high_begin(&high);
    if (!process) return -1;
    int fd = opener == ZCP_PRIV_BY_OPEN ? open(path, flags) : shm_open(path, flags, mode);
    fd = zcp_priv_descriptor_high(fd);
    zcp_priv_high_end(process, &high);
    return fd;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>names  Names of objects and of clients
// ---------------------------------------------------------------------------------------------------------------------

#define ZCP_PRIV_SHM_DIRECTORY "/dev/shm"  // where shm_open looks, on Linux with any libc
#define ZCP_PRIV_PATH_BYTES 256           // '/', a name of up to 254 bytes, and the end
typedef struct zcp_priv_path { char text[ZCP_PRIV_PATH_BYTES]; } zcp_priv_path;

ZCP_PRIV_SETUP bool zcp_priv_name_valid(const char *name, size_t longest) {
    size_t n = strlen(name);
    if (n == 0 || n > longest || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f) return false;
    return true;
}

// Bytes of the character of UTF-8 that the text begins with; 0: none. Nothing behind the final 0 is read.
ZCP_PRIV_SETUP uint32_t zcp_priv_utf8_bytes(const unsigned char *text) {
    uint32_t first = text[0];
    uint32_t bytes = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    uint32_t least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint32_t most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (bytes > 1 && (text[1] < least || text[1] > most)) return 0;
    for (uint32_t i = 2; i < bytes; i++)
        if ((text[i] & 0xc0) != 0x80) return 0;
    return bytes;
}

// Makes a text that anybody may have written one that can be shown: '_' for control characters and the refused one (0:
// none), '?' for a byte that is no UTF-8.
ZCP_PRIV_SETUP void zcp_priv_text_clean(char *text, char refused) {
    for (unsigned char *at = (unsigned char *)text; *at; ) {
        uint32_t bytes = zcp_priv_utf8_bytes(at);
        bool control = *at < 0x20 || *at == 0x7f || (*at == 0xc2 && bytes == 2 && at[1] < 0xa0);
        if (bytes == 0) *at = '?';
        else if (control || *at == (unsigned char)refused) memset(at, '_', bytes);
        at += bytes ? bytes : 1;
    }
}

// A leading slash says no more than that it is a name of shared memory.
ZCP_PRIV_SETUP const char *zcp_priv_name_plain(const char *name) { return name && name[0] == '/' ? name + 1 : name; }

// name + suffix as shm_open wants it.
ZCP_PRIV_SETUP zcp_status zcp_priv_path_make(zcp_priv_path *path, const char *name, const char *suffix) {
    if (!name || !zcp_priv_name_valid(name, sizeof path->text - 2 - strlen(suffix))) {
        char shown[64];
        snprintf(shown, sizeof shown, "%s", name ? name : "(null)");
        zcp_priv_text_clean(shown, 0);
        return zcp_priv_fail(ZCP_ERR_INVALID_NAME, 0, "name \"%s\": 1 to %zu bytes, no slash but a leading one, no "
                             "control character, not . or ..", shown, sizeof path->text - 2 - strlen(suffix));
    }
    snprintf(path->text, sizeof path->text, "/%s%s", name, suffix);
    return ZCP_OK;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>files  Opening, creating, reserving, mapping and removing an object, step by step
// ---------------------------------------------------------------------------------------------------------------------

// Errno tells why.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_call(zcp_status status, const char *call, const char *path) {
    int error = errno;
    return zcp_priv_fail(status, error, "%s: %s: %s", path, call, strerror(error));
}

// Errno -> status.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_system(const char *call, const char *path) {
    zcp_status status = ZCP_ERR_SYSTEM;
    switch (errno) {
    case EEXIST: status = ZCP_ERR_EXISTS; break;
    case ENOENT: status = ZCP_ERR_NOT_FOUND; break;
    case EACCES: case EPERM: case EROFS: status = ZCP_ERR_PERMISSION; break;
    case EISDIR: case ELOOP: case ENXIO: case ENODEV: status = ZCP_ERR_WRONG_TYPE; break;
    // Glibc says so of a directory.
    case EINVAL: status = strcmp(call, "shm_open") == 0 ? ZCP_ERR_WRONG_TYPE : ZCP_ERR_SYSTEM; break;
    case ENAMETOOLONG: status = ZCP_ERR_INVALID_NAME; break;
    case ENOSPC: case EDQUOT: status = ZCP_ERR_NO_SPACE; break;
    case ENOMEM: status = ZCP_ERR_NO_MEMORY; break;
    default: break;
    }
    return zcp_priv_fail_call(status, call, path);
}

// What stands at the end of a message when memory would have to be locked and the limit forbids it. After
// mlockall(MCL_FUTURE) mmap says EAGAIN then.
typedef struct zcp_priv_limit { char text[96]; } zcp_priv_limit;

ZCP_PRIV_COLD zcp_priv_limit zcp_priv_lock_limit(void) {
    struct rlimit limit;
    zcp_priv_limit told;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) limit.rlim_cur = 0;
    snprintf(told.text, sizeof told.text, "; mlock's limit (ulimit -l, RLIMIT_MEMLOCK) is %llu bytes for the process",
             (unsigned long long)limit.rlim_cur);
    return told;
}

// Errno is EAGAIN or ENOMEM.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_memory(const char *name, const char *what) {
    int error = errno == EAGAIN ? EAGAIN : ENOMEM;
    return zcp_priv_fail(ZCP_ERR_NO_MEMORY, error, "%s: no private memory for %s%s", name, what,
                         error == EAGAIN ? zcp_priv_lock_limit().text : "");
}

// Keeps errno; -1: nothing is open.
ZCP_PRIV_SETUP void zcp_priv_close_fd(int fd) {
    int error = errno;
    if (fd >= 0) close(fd);
    errno = error;
}

// Does a file belong neither to the caller nor to root, and was that not allowed?
ZCP_PRIV_SETUP bool zcp_priv_is_stranger(const struct stat *file, uint32_t flags) {
    return !(flags & ZCP_SHM_ANY_OWNER) && file->st_uid != geteuid() && file->st_uid != 0;
}

// shm_open has failed: tells whose the object is and who may open it, if that is why.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_open(const char *path) {
    struct stat file;
    char place[sizeof ZCP_PRIV_SHM_DIRECTORY + ZCP_PRIV_PATH_BYTES];
    int error = errno;
    snprintf(place, sizeof place, "%s%s", ZCP_PRIV_SHM_DIRECTORY, path);
    bool refused = error == EACCES && lstat(place, &file) == 0 && S_ISREG(file.st_mode);
    errno = error;
    if (!refused) return zcp_priv_fail_system("shm_open", path);
    return zcp_priv_fail(ZCP_ERR_PERMISSION, error, "%s: shm_open: %s: it belongs to user %lu, group %lu, permissions "
                         "0%o; run as that user or as root, or have them grant more", path, strerror(error),
                         (unsigned long)file.st_uid, (unsigned long)file.st_gid, (unsigned)file.st_mode & 0777);
}

// Does the system let this process remove that file? In a sticky directory it asks for what fchmod asks for, so that is
// tried, with the permissions that the file has already.
ZCP_PRIV_SETUP bool zcp_priv_can_remove(int fd, const struct stat *file) {
    struct stat directory;
    if (file->st_uid == geteuid() || fchmod(fd, file->st_mode & 07777) == 0) return true;
    if (stat(ZCP_PRIV_SHM_DIRECTORY, &directory) != 0 || access(ZCP_PRIV_SHM_DIRECTORY, W_OK) != 0) return false;
    return !(directory.st_mode & S_ISVTX) || directory.st_uid == geteuid();
}

// May this call remove that file? Root may remove anybody's, another user a stranger's only with ZCP_SHM_ANY_OWNER, and
// each only what the system lets it.
ZCP_PRIV_SETUP zcp_status zcp_priv_may_remove(int fd, const char *path, const struct stat *file, uint32_t flags) {
    bool can = zcp_priv_can_remove(fd, file), stranger = geteuid() != 0 && zcp_priv_is_stranger(file, flags);
    if (can && !stranger) return ZCP_OK;
    return zcp_priv_fail(stranger ? ZCP_ERR_WRONG_OWNER : ZCP_ERR_PERMISSION, stranger ? 0 : EPERM,
                         "%s belongs to user %lu: %s", path, (unsigned long)file->st_uid,
                         can ? "only a call with ZCP_SHM_ANY_OWNER removes it (zcp_manager_destroy_with takes that)"
                             : "they or root can remove it");
}

// Opens what is there. Refuses what is no regular file and, without ZCP_SHM_ANY_OWNER, what belongs neither to the
// caller nor to root.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_open(const char *path, int access, uint32_t flags, int *fd,
                                             struct stat *status) {
    *fd = zcp_priv_open_high(ZCP_PRIV_BY_SHM_OPEN, path, access | ZCP_PRIV_CAREFULLY, 0);
    if (*fd < 0) return zcp_priv_fail_open(path);
    zcp_status result = ZCP_OK;
    if (fstat(*fd, status) != 0) result = zcp_priv_fail_system("fstat", path);
    else if (!S_ISREG(status->st_mode)) result = zcp_priv_fail(ZCP_ERR_WRONG_TYPE, 0, "%s is not a regular file", path);
    else if (zcp_priv_is_stranger(status, flags))
        result = zcp_priv_fail(ZCP_ERR_WRONG_OWNER, 0, "%s belongs to user %lu; without ZCP_SHM_ANY_OWNER only objects "
                               "of user %lu and root are accepted", path, (unsigned long)status->st_uid,
                               (unsigned long)geteuid());
    if (result != ZCP_OK) { zcp_priv_close_fd(*fd); *fd = -1; }
    return result;
}

// Sets the permissions to exactly these, and the group.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_grant(int fd, const char *path, uint32_t permissions, uint32_t group,
                                              uint32_t flags) {
    if ((flags & ZCP_SHM_GROUP) && fchown(fd, (uid_t)-1, (gid_t)group) != 0)
        return zcp_priv_fail_system("fchown", path);
    if (fchmod(fd, (mode_t)permissions) != 0) return zcp_priv_fail_system("fchmod", path);
    return ZCP_OK;
}

// Creates an empty object; EXISTS if there is one.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_create(const char *path, uint32_t permissions, uint32_t group, uint32_t flags,
                                               int *fd, struct stat *status) {
    *fd = zcp_priv_open_high(ZCP_PRIV_BY_SHM_OPEN, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                             (mode_t)(permissions & 0600));
    if (*fd < 0) return zcp_priv_fail_system("shm_open", path);
    zcp_status result = zcp_priv_file_grant(*fd, path, permissions, group, flags);
    if (result == ZCP_OK && fstat(*fd, status) != 0) result = zcp_priv_fail_system("fstat", path);
    if (result != ZCP_OK) {
        shm_unlink(path);
        zcp_priv_close_fd(*fd);
        *fd = -1;
    }
    return result;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_file_unlink(const char *path) {
    return shm_unlink(path) == 0 ? ZCP_OK : zcp_priv_fail_system("shm_unlink", path);
}

// Removes the name of an object that this call has made and could not finish, unless it has more than `most` bytes; if
// it has lost its name already, somebody else may have taken that. Without the creation lock: should another process be
// finishing the object at this very moment, it finds its name gone, and starts over.
ZCP_PRIV_SETUP void zcp_priv_file_withdraw(int fd, const char *path, uint64_t most) {
    struct stat now;
    if (fstat(fd, &now) == 0 && now.st_nlink == 1 && (uint64_t)now.st_size <= most) shm_unlink(path);
}

// Reserves pages for bytes behind the end of the file; the size is set afterwards, so it is 0 until everything is there
// (where fallocate is known). In slices, because older kernels undo the whole call when a signal comes: a slice that
// was interrupted is tried again at half the length, so that it ends beside any timer. 0 or an errno.
ZCP_PRIV_SETUP int zcp_priv_reserve_slice(int fd, uint64_t from, uint64_t bytes) {
#ifdef FALLOC_FL_KEEP_SIZE
    int error = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)bytes) == 0 ? 0 : errno;
    if (error != EOPNOTSUPP && error != ENOSYS) return error;
#endif
    // A file system without the former: the size grows on the way.
    return posix_fallocate(fd, (off_t)from, (off_t)bytes);
}

// 0 or an errno.
ZCP_PRIV_SETUP int zcp_priv_reserve_pages(int fd, uint64_t from, uint64_t to) {
    uint64_t slice = UINT64_C(16) << 20;
    for (uint64_t done = from; done < to; ) {
        uint64_t part = to - done < slice ? to - done : slice;
        int error = zcp_priv_reserve_slice(fd, done, part);
        if (error == 0) done += part;
        else if (error != EINTR) return error;
        else if (slice > 65536) slice /= 2;
    }
    return 0;
}

ZCP_PRIV_COLD zcp_status zcp_priv_fail_space(int fd, const char *path, uint64_t bytes, int error) {
    struct statvfs space;
    unsigned long long available = fstatvfs(fd, &space) == 0 ? (unsigned long long)space.f_bavail * space.f_frsize : 0;
    return zcp_priv_fail(ZCP_ERR_NO_SPACE, error, "%s: needs %llu bytes, %llu are free in shared memory (%s)",
                         path, (unsigned long long)bytes, available, strerror(error));
}

// What can be known to fail beforehand: nothing is filled up in vain, and no SIGXFSZ ends the process. from: what is
// there already; others: what is wanted beside it.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_may_grow(int fd, const char *path, uint64_t from, uint64_t bytes,
                                                 uint64_t others, uint32_t flags) {
    struct rlimit limit;
    struct statvfs space;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && bytes > limit.rlim_cur)
        return zcp_priv_fail(ZCP_ERR_NO_SPACE, EFBIG, "%s: needs %llu bytes, the file size limit (ulimit -f) is %llu",
                             path, (unsigned long long)bytes, (unsigned long long)limit.rlim_cur);
    if (bytes > INT64_MAX || (off_t)bytes < 0 || (uint64_t)(off_t)bytes != bytes)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, EFBIG, "%s: %llu bytes are more than a file can have", path,
                             (unsigned long long)bytes);
    // 0: a file system without a limit.
    if (!(flags & ZCP_SHM_NO_RESERVE) && fstatvfs(fd, &space) == 0 && space.f_blocks != 0
        && (bytes - from + others) / space.f_frsize > space.f_bavail)
        return zcp_priv_fail_space(fd, path, bytes - from + others, ENOSPC);
    return ZCP_OK;
}

// 0 or an errno.
ZCP_PRIV_INLINE int zcp_priv_truncate(int fd, uint64_t bytes) {
    int error;
    do error = ftruncate(fd, (off_t)bytes) == 0 ? 0 : errno; while (error == EINTR);
    return error;
}

// Makes the file `bytes` long, or leaves it longer, with pages for all from `from` on.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_reserve(int fd, const char *path, uint64_t from, uint64_t bytes,
                                                uint32_t flags) {
    zcp_status status = zcp_priv_file_may_grow(fd, path, from, bytes, 0, flags);
    if (status != ZCP_OK) return status;
    const char *call = "fallocate";
    struct stat now;
    int error = flags & ZCP_SHM_NO_RESERVE ? 0 : zcp_priv_reserve_pages(fd, from, bytes);
    if (!error && (fstat(fd, &now) != 0 || (uint64_t)now.st_size < bytes)) {
        call = "ftruncate";
        error = zcp_priv_truncate(fd, bytes);
    }
    if (!error) return ZCP_OK;
    if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM)
        return zcp_priv_fail_space(fd, path, bytes - from, error);
    errno = error;
    return zcp_priv_fail_system(call, path);
}

#define ZCP_PRIV_SHM_NO_ACCESS (UINT32_C(1) << 31)             // a mapping that nobody touches: it only holds a lock

// In the flags of a mapping: where it begins is a multiple of 1 << (flags >> ALIGNED & 31), if that is above a page.
#define ZCP_PRIV_SHM_ALIGNED 24

// mmap to such an address.
ZCP_PRIV_SETUP void *zcp_priv_map_aligned(size_t bytes, int protection, int how, int fd, uint64_t from, size_t unit) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (unit <= page) return mmap(NULL, bytes, protection, how, fd, (off_t)from);
    size_t whole = (bytes + page - 1) & ~(page - 1), most = SIZE_MAX - unit;
    // Room for it at any address, of which the rest is given back.
    errno = ENOMEM;
    char *room = whole < bytes || whole > most ? (char *)MAP_FAILED
        : (char *)mmap(NULL, whole + unit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return MAP_FAILED;
    size_t before = (size_t)-(uintptr_t)room & (unit - 1);
    void *base = mmap(room + before, bytes, protection, how | MAP_FIXED, fd, (off_t)from);
    int error = errno;
    if (before) munmap(room, before);
    munmap(room + before + whole, unit - before);
    if (base == MAP_FAILED) munmap(room + before, whole);
    errno = error;
    return base;
}

// Maps bytes of the object, from an offset that is a multiple of the page size, with the flags' effects.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_map(int fd, const char *path, uint64_t from, uint64_t bytes, uint32_t flags,
                                            void **base) {
    if (bytes > SIZE_MAX || (off_t)from < 0 || (uint64_t)(off_t)from != from)
        return zcp_priv_fail(ZCP_ERR_MAPPING, ENOMEM, "%s: %llu bytes do not fit this process's address space", path,
                             (unsigned long long)bytes);
    int protection = flags & ZCP_SHM_READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE;
    if (flags & ZCP_PRIV_SHM_NO_ACCESS) protection = PROT_NONE;
    int how = MAP_SHARED;
#ifdef MAP_POPULATE
    if (flags & ZCP_SHM_PREFAULT) how |= MAP_POPULATE;
#endif
    size_t unit = (size_t)1 << (flags >> ZCP_PRIV_SHM_ALIGNED & 31);
    *base = zcp_priv_map_aligned((size_t)bytes, protection, how, fd, from, unit);
    if (*base == MAP_FAILED) {
        int error = errno;
        *base = NULL;
        return zcp_priv_fail(error == EAGAIN ? ZCP_ERR_NO_MEMORY : ZCP_ERR_MAPPING, error,
                             "%s: mmap of %llu bytes: %s%s", path, (unsigned long long)bytes, strerror(error),
                             error == EAGAIN ? zcp_priv_lock_limit().text : "");
    }
#ifdef MADV_DONTDUMP
    if (flags & ZCP_SHM_NO_DUMP) (void)madvise(*base, (size_t)bytes, MADV_DONTDUMP);
#endif
    if ((flags & ZCP_SHM_LOCK) && mlock(*base, (size_t)bytes) != 0) {
        int error = errno;
        munmap(*base, (size_t)bytes);
        *base = NULL;
        return zcp_priv_fail(error == EPERM ? ZCP_ERR_PERMISSION : ZCP_ERR_NO_MEMORY, error,
                             "%s: mlock of %llu bytes: %s%s", path, (unsigned long long)bytes, strerror(error),
                             zcp_priv_lock_limit().text);
    }
    return ZCP_OK;
}

// The same, and children do not get it. Under the process's mutex, so that no fork falls between the two calls.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_map_within(int fd, const char *path, uint64_t from, uint64_t bytes,
                                                      uint32_t flags, void **base) {
    zcp_status status = zcp_priv_file_map(fd, path, from, bytes, flags, base);
    if (status == ZCP_OK) (void)madvise(*base, (size_t)bytes, MADV_DONTFORK);
    return status;
}

// The same, for who does not hold the mutex.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_map_alone(int fd, const char *path, uint64_t from, uint64_t bytes,
                                                     uint32_t flags, void **base) {
    zcp_priv_process *process = zcp_priv_process_lock();
    if (!process) return zcp_priv_fail_memory(path, "the process's page");
    zcp_status status = zcp_priv_file_map_within(fd, path, from, bytes, flags, base);
    zcp_priv_process_unlock(process);
    return status;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_unlink_if_there(const char *path) {
    zcp_status status = zcp_priv_file_unlink(path);
    return status == ZCP_ERR_NOT_FOUND ? ZCP_OK : status;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>locks  A lock is a mapping
// ---------------------------------------------------------------------------------------------------------------------
// An open-file-description lock on one byte lives as long as some descriptor or mapping refers to the description on
// which it was taken. So: open the file on a description of its own, map it, keep the mapping out of children, take the
// lock, close the descriptor. From then on the lock lives exactly as long as this address space can touch the memory:
// exec, exit and SIGKILL end it; closefrom, dup and fork neither drop nor prolong it. Source: fcntl(2); tried on a
// kernel.
//
// Labels  word      order    partner      what breaks without it
//   H0    busy      acquire  H1 H2        a sibling sweeps with half of the previous sweep's results
//   H1    busy      release  H0           nothing was held
//   H2    busy      release  H0           as H0

// Bytes below 2^31; they may lie within the contents: locks are advisory.
enum { ZCP_PRIV_LOCK_CREATION = 1 << 30, ZCP_PRIV_LOCK_SLOTS = (1 << 30) + 1 };

// An object known by identity, to be opened again.
typedef struct zcp_priv_file {
    int fd;                                  // -1: none. The application may have closed it: compared before use
    uint32_t flags;                          // for its mappings; with ZCP_SHM_READ_ONLY it is opened so, too
    uint64_t device, inode;
    uint64_t directory_device, directory_inode;        // of /dev/shm, in which it had its name
    zcp_priv_path path;
} zcp_priv_file;

typedef struct zcp_priv_lock { void *base; size_t bytes; } zcp_priv_lock;     // base NULL: not held

ZCP_PRIV_SETUP bool zcp_priv_fd_is(int fd, uint64_t device, uint64_t inode) {
    struct stat status;
    return fd >= 0 && fstat(fd, &status) == 0 && (uint64_t)status.st_dev == device && (uint64_t)status.st_ino == inode;
}

// Is the descriptor still there?
ZCP_PRIV_SETUP bool zcp_priv_file_kept(const zcp_priv_file *file) {
    return zcp_priv_fd_is(file->fd, file->device, file->inode);
}

// Where names lead from; 0, 0: nowhere.
ZCP_PRIV_SETUP void zcp_priv_directory(uint64_t *device, uint64_t *inode) {
    struct stat status;
    bool there = stat("/dev/shm", &status) == 0;
    *device = there ? (uint64_t)status.st_dev : 0;
    *inode = there ? (uint64_t)status.st_ino : 0;
}

ZCP_PRIV_SETUP void zcp_priv_file_remember(zcp_priv_file *file, int fd, const zcp_priv_path *path, uint32_t flags,
                                       const struct stat *status) {
    *file = (zcp_priv_file){fd, flags, (uint64_t)status->st_dev, (uint64_t)status->st_ino, 0, 0, *path};
    zcp_priv_directory(&file->directory_device, &file->directory_inode);
}

// Does the name still lead to the object? SYSTEM: that cannot be told, since /dev/shm is another one than it was.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_is(const zcp_priv_file *file, bool *same) {
    const char *path = file->path.text;
    uint64_t device, inode;
    struct stat kept;
    int fd = zcp_priv_open_high(ZCP_PRIV_BY_SHM_OPEN, path, O_RDONLY | ZCP_PRIV_CAREFULLY, 0);
    int error = fd < 0 ? errno : 0;
    *same = zcp_priv_fd_is(fd, file->device, file->inode);
    zcp_priv_close_fd(fd);
    if (*same || (zcp_priv_file_kept(file) && fstat(file->fd, &kept) == 0 && kept.st_nlink == 0)) return ZCP_OK;
    errno = error;
    if (error != 0 && error != ENOENT && error != ELOOP && error != ENXIO)
        return zcp_priv_fail_system("shm_open", path);
    zcp_priv_directory(&device, &inode);
    if (device == file->directory_device && inode == file->directory_inode) return ZCP_OK;
    return zcp_priv_fail(ZCP_ERR_SYSTEM, error, "%s: what this process now sees as /dev/shm is not what it was "
                         "(chroot, or a mount): whether the name still leads to the object cannot be told", path);
}

ZCP_PRIV_SETUP void zcp_priv_file_forget(zcp_priv_file *file) {
    if (zcp_priv_file_kept(file)) close(file->fd);
    file->fd = -1;
}

// Opens the object again, on a description of its own: through the descriptor (works after an unlink), else by name.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_reopen(const zcp_priv_file *file, int *fd) {
    char link[40];
    const char *path = file->path.text, *by_descriptor = "the application has closed it", *by_name;
    int access = file->flags & ZCP_SHM_READ_ONLY ? O_RDONLY : O_RDWR;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file->fd);
    *fd = -1;
    if (zcp_priv_file_kept(file)) {
        *fd = zcp_priv_open_high(ZCP_PRIV_BY_OPEN, link, access | O_CLOEXEC, 0);
        by_descriptor = strerror(errno);
    }
    if (*fd < 0) *fd = zcp_priv_open_high(ZCP_PRIV_BY_SHM_OPEN, path, access | ZCP_PRIV_CAREFULLY, 0);
    int error = *fd < 0 ? errno : ENOENT;
    if (zcp_priv_fd_is(*fd, file->device, file->inode)) return ZCP_OK;
    by_name = *fd < 0 ? strerror(error) : "it leads elsewhere";
    zcp_priv_close_fd(*fd);
    *fd = -1;
    return zcp_priv_fail(ZCP_ERR_SYSTEM, error, "%s cannot be opened again: by descriptor %d: %s; by its name: %s",
                         path, file->fd, by_descriptor, by_name);
}

// A descriptor to map the object by, or to change it: of a fresh description, else the one that was kept (*kept).
ZCP_PRIV_SETUP zcp_status zcp_priv_file_reach(const zcp_priv_file *file, int *fd, bool *kept) {
    zcp_status status = zcp_priv_file_reopen(file, fd);
    *kept = status != ZCP_OK && zcp_priv_file_kept(file);
    if (*kept) *fd = file->fd;
    return *kept ? ZCP_OK : status;
}

// The other way round, to look at locks only: the one that was kept, else a fresh one.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_reach_locks(const zcp_priv_file *file, int *fd, bool *kept) {
    *kept = zcp_priv_file_kept(file);
    *fd = file->fd;
    return *kept ? ZCP_OK : zcp_priv_file_reopen(file, fd);
}

// What the last two gave.
ZCP_PRIV_SETUP void zcp_priv_file_leave(int fd, bool kept) {
    if (!kept) zcp_priv_close_fd(fd);
}

ZCP_PRIV_COLD struct flock zcp_priv_lock_of(off_t byte) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    return lock;
}

// Tries to lock `length` bytes, all or none: *taken tells whether somebody else has one of them. type: F_WRLCK;
// F_RDLCK, which others may share.
ZCP_PRIV_SETUP zcp_status zcp_priv_lock_bytes(int fd, const char *path, off_t byte, uint32_t length, short type,
                                              bool *taken) {
    struct flock lock = zcp_priv_lock_of(byte);
    lock.l_type = type;
    lock.l_len = (off_t)length;
    *taken = false;
    if (fcntl(fd, ZCP_PRIV_OFD_SETLK, &lock) == 0) return ZCP_OK;
    if (errno == EAGAIN || errno == EACCES) { *taken = true; return ZCP_OK; }
    return zcp_priv_fail_call(ZCP_ERR_SYSTEM, "fcntl(F_OFD_SETLK)", path);
}

// Opens the file on a description of its own and maps it, for a lock. Under the process's mutex, until fd is closed.
ZCP_PRIV_SETUP zcp_status zcp_priv_lock_map(const zcp_priv_file *file, size_t bytes, zcp_priv_lock *lock, int *fd) {
    *lock = (zcp_priv_lock){NULL, 0};
    zcp_status status = zcp_priv_file_reopen(file, fd);
    if (status != ZCP_OK) return status;
    status = zcp_priv_file_map_within(*fd, file->path.text, 0, bytes, file->flags & ~ZCP_SHM_READ_ONLY, &lock->base);
    if (status == ZCP_OK) lock->bytes = bytes;
    else zcp_priv_close_fd(*fd);
    return status;
}

ZCP_PRIV_SETUP void zcp_priv_lock_drop(zcp_priv_lock *lock) {
    if (lock->base) munmap(lock->base, lock->bytes);
    *lock = (zcp_priv_lock){NULL, 0};
}

// Maps bytes of the file and locks `length` bytes, as one, from one of [first, first + count) on, the first where they
// are free; those whose bit in `early` is set (may be NULL) are tried before the others, since the kernel's search for
// each grows with the locks that others hold; those in `never` (may be NULL) are not. *which tells which (-1: all are
// taken, and nothing is held). Nobody forks in between, and a seq_cst fence follows: the death of the last holder
// happened before.
ZCP_PRIV_SETUP zcp_status zcp_priv_lock_take(const zcp_priv_file *file, off_t first, uint32_t count, uint32_t length,
                                             const uint64_t *early, const uint64_t *never, size_t bytes,
                                             zcp_priv_lock *lock, int64_t *which) {
    int fd;
    *which = -1;
    *lock = (zcp_priv_lock){NULL, 0};
    zcp_priv_process *process = zcp_priv_process_lock();
    if (!process) return zcp_priv_fail_memory(file->path.text, "the process's page");
    zcp_status status = zcp_priv_lock_map(file, bytes, lock, &fd);
    if (status == ZCP_OK) {
        bool taken = true;
        for (uint32_t k = early ? 0 : count; k < 2 * count && taken && status == ZCP_OK; k++) {
            uint32_t i = k % count;
            if (early && (early[i / 64] >> i % 64 & 1) != (k < count)) continue;
            if (never && (never[i / 64] >> i % 64 & 1)) continue;
            status = zcp_priv_lock_bytes(fd, file->path.text, first + (off_t)i, length, F_WRLCK, &taken);
            if (status == ZCP_OK && !taken) *which = i;
        }
        zcp_priv_close_fd(fd);
    }
    zcp_priv_process_unlock(process);
    if (*which < 0) zcp_priv_lock_drop(lock);
    atomic_thread_fence(memory_order_seq_cst);
    return status;
}

// Finds a lock that somebody else holds on one of `count` bytes from that on: *which is its first byte, counted from
// there (-1: there is none), *length the number of its bytes. type: F_WRLCK, any lock counts; F_RDLCK, only those taken
// for writing, which who may only read the file cannot take. What fd's own description holds is not seen.
ZCP_PRIV_SETUP zcp_status zcp_priv_lock_find(int fd, const char *path, off_t byte, uint32_t count, short type,
                                             int64_t *which, int64_t *length) {
    struct flock lock = zcp_priv_lock_of(byte);
    lock.l_type = type;
    lock.l_len = (off_t)count;
    *which = *length = -1;
    if (fcntl(fd, ZCP_PRIV_OFD_GETLK, &lock) != 0)
        return zcp_priv_fail_call(ZCP_ERR_SYSTEM, "fcntl(F_OFD_GETLK)", path);
    if (lock.l_type == F_UNLCK) return ZCP_OK;
    *which = lock.l_start > byte ? (int64_t)(lock.l_start - byte) : 0;
    // 0: up to the end, whatever that is.
    *length = lock.l_len ? (int64_t)lock.l_len : INT64_MAX;
    return ZCP_OK;
}

// Does somebody else hold one of `count` bytes from that on? fd, type: as above.
ZCP_PRIV_SETUP zcp_status zcp_priv_lock_test(int fd, const char *path, off_t byte, uint32_t count, short type,
                                             bool *taken) {
    int64_t which, length;
    zcp_status status = zcp_priv_lock_find(fd, path, byte, count, type, &which, &length);
    *taken = which >= 0;
    return status;
}

// Tries to lock `length` bytes as one, by a mapping of one page that is neither populated nor locked into memory.
ZCP_PRIV_COLD zcp_status zcp_priv_lock_range(const zcp_priv_file *file, off_t byte, uint32_t length,
                                             zcp_priv_lock *lock, int64_t *which) {
    zcp_priv_file plain = *file;
    plain.flags &= ZCP_PRIV_SHM_NO_ACCESS;
    return zcp_priv_lock_take(&plain, byte, 1, length, NULL, NULL, 1, lock, which);
}

// The same of one byte; *taken: somebody else has it. shares: a lock that only readers hold is no obstacle, it is
// shared with them, and keeps writers out.
ZCP_PRIV_COLD zcp_status zcp_priv_lock_one(const zcp_priv_file *file, off_t byte, bool shares, zcp_priv_lock *lock,
                                           bool *taken) {
    zcp_priv_file plain = *file;
    int fd;
    *taken = false;
    *lock = (zcp_priv_lock){NULL, 0};
    plain.flags &= ZCP_PRIV_SHM_NO_ACCESS;
    zcp_priv_process *process = zcp_priv_process_lock();
    if (!process) return zcp_priv_fail_memory(file->path.text, "the process's page");
    zcp_status status = zcp_priv_lock_map(&plain, 1, lock, &fd);
    if (status == ZCP_OK) {
        status = zcp_priv_lock_bytes(fd, file->path.text, byte, 1, F_WRLCK, taken);
        if (*taken && shares) status = zcp_priv_lock_bytes(fd, file->path.text, byte, 1, F_RDLCK, taken);
        zcp_priv_close_fd(fd);
    }
    zcp_priv_process_unlock(process);
    if (status != ZCP_OK || *taken) zcp_priv_lock_drop(lock);
    atomic_thread_fence(memory_order_seq_cst);
    return status;
}

// The creation lock, with a bounded wait: TIMEOUT when the time is over. The page mapped for it is touched by zerocp.h
// only, and only where the file has those bytes.
ZCP_PRIV_SETUP zcp_status zcp_priv_lock_creation(const zcp_priv_file *file, bool shares, zcp_priv_wait *wait,
                                                 zcp_priv_lock *lock) {
    for (;;) {
        bool taken;
        zcp_status status = zcp_priv_lock_one(file, ZCP_PRIV_LOCK_CREATION, shares, lock, &taken);
        if (status != ZCP_OK || !taken) return status;
        if (!zcp_priv_wait_more(wait))
            return zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: another process holds the creation lock", file->path.text);
    }
}

// One byte of a file, held by a lock, or by the kept descriptor where no fresh description can be had: no right is
// left, no descriptor, or no call to open one. The latter does not keep siblings apart, so *busy says that one holds
// such a byte. A forked child has that description, too: should this process be killed before the drop, the byte stays
// locked until the child executes a program or ends.
typedef struct zcp_priv_hold {
    zcp_priv_lock lock;
    const zcp_priv_file *kept;               // NULL: not held by the kept descriptor
    _Atomic uint32_t *busy;
    off_t byte;
} zcp_priv_hold;

// Tries that; *taken: somebody else has it, and nothing is held. busy: 0 at first; NULL: by a lock only.
ZCP_PRIV_SETUP zcp_status zcp_priv_hold_take(const zcp_priv_file *file, _Atomic uint32_t *busy, off_t byte,
                                             zcp_priv_hold *hold, bool *taken) {
    uint32_t idle = 0;
    *hold = (zcp_priv_hold){{NULL, 0}, NULL, busy, byte};
    zcp_status status = zcp_priv_lock_one(file, byte, false, &hold->lock, taken);
    if (status == ZCP_OK || !busy || !zcp_priv_file_kept(file)) return status;
    // Pairs with H1, H2.
    *taken = !zcp_priv_cas_acquire(busy, &idle, 1u);                                                // H0
    if (*taken) return ZCP_OK;
    status = zcp_priv_lock_bytes(file->fd, file->path.text, byte, 1, F_WRLCK, taken);
    if (status == ZCP_OK && !*taken) hold->kept = file;
    // Pairs with H0.
    else zcp_priv_store_release(busy, 0u);                                                          // H1
    // As zcp_priv_lock_take.
    atomic_thread_fence(memory_order_seq_cst);
    return status;
}

ZCP_PRIV_SETUP void zcp_priv_hold_drop(zcp_priv_hold *hold) {
    zcp_priv_lock_drop(&hold->lock);
    if (!hold->kept) return;
    struct flock lock = zcp_priv_lock_of(hold->byte);
    lock.l_type = F_UNLCK;
    if (zcp_priv_file_kept(hold->kept)) (void)fcntl(hold->kept->fd, ZCP_PRIV_OFD_SETLK, &lock);
    // Pairs with H0: what was swept is seen.
    zcp_priv_store_release(hold->busy, 0u);                                                         // H2
    hold->kept = NULL;
}

// The creation lock did not come: names who has it.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_locked(const char *name, uint32_t pid, uint32_t timeout_ms) {
    char who[64] = "a process that has not yet told its pid";
    if (pid != 0) snprintf(who, sizeof who, "process %u", pid);
    return zcp_priv_fail(
        ZCP_ERR_TIMEOUT, 0,
        "%s: %s is creating, destroying or changing it and was not done within %u ms; if stopped, continue or kill it",
        name, who, timeout_ms);
}

// A byte of a lock object, with a bounded wait.
ZCP_PRIV_SETUP zcp_status zcp_priv_hold_wait(const zcp_priv_file *file, _Atomic uint32_t *busy, zcp_priv_wait *wait,
                                             zcp_priv_hold *hold) {
    for (;;) {
        bool taken;
        zcp_status status = zcp_priv_hold_take(file, busy, ZCP_PRIV_LOCK_CREATION, hold, &taken);
        if (status != ZCP_OK || !taken) return status;
        // The caller tells.
        if (!zcp_priv_wait_more(wait)) return ZCP_ERR_TIMEOUT;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// >>barriers  Barriers between processes, and the futex
// ---------------------------------------------------------------------------------------------------------------------
// Two threads each write one word and read the other's, and one of them must see the other's write. Where one side is
// frequent and the other rare, the frequent one passes a light barrier (which only keeps the compiler from reordering)
// and the rare one a heavy barrier (membarrier(2): every thread of every registered process passes a full fence).
// Source: Dice, Huang and Yang, "Asymmetric Dekker synchronization", 2001.

#ifndef ZEROCP_LIGHT_BARRIER
#define ZEROCP_LIGHT_BARRIER() atomic_signal_fence(memory_order_seq_cst)
#define ZEROCP_HEAVY_BARRIER() zcp_priv_heavy_barrier()        // false: it cannot be had
#endif

// This process: 0 has not registered yet, 1 has (and so have its children by fork), -1 cannot: its light barriers are
// fences.
static _Atomic int zcp_priv_barriers;
enum { ZCP_PRIV_BARRIER_GLOBAL = 1, ZCP_PRIV_BARRIER_EXPEDITED = 2, ZCP_PRIV_BARRIER_REGISTER = 4 };     // membarrier's
enum { ZCP_PRIV_FUTEX_WAIT = 9, ZCP_PRIV_FUTEX_WAKE = 10 };              // FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET

ZCP_PRIV_SETUP int zcp_priv_membarrier(int command) {
#ifdef SYS_membarrier
    return (int)syscall(SYS_membarrier, command, 0, 0);
#else
    (void)command;
    return -1;
#endif
}

ZCP_PRIV_SETUP void zcp_priv_barriers_register(void) {
    zcp_priv_store_relaxed(&zcp_priv_barriers, zcp_priv_membarrier(ZCP_PRIV_BARRIER_REGISTER) == 0 ? 1 : -1);
}

// Every thread of every process that has registered passes a full barrier; and this one. false: only this one.
ZCP_PRIV_COLD bool zcp_priv_heavy_barrier(void) {
    atomic_thread_fence(memory_order_seq_cst);
    // No kernel has neither; where both are forbidden a waiter may be woken 0.1 s late, and idle threads keep what they
    // cache.
    return zcp_priv_membarrier(ZCP_PRIV_BARRIER_EXPEDITED) == 0 || zcp_priv_membarrier(ZCP_PRIV_BARRIER_GLOBAL) == 0;
}

ZCP_PRIV_INLINE void zcp_priv_light_barrier(void) {
    // Relaxed: set at the first open.
    if (zcp_priv_load_relaxed(&zcp_priv_barriers) < 0) atomic_thread_fence(memory_order_seq_cst);
    else ZEROCP_LIGHT_BARRIER();
}

// futex(2) on a word that processes share; timeout NULL: for ever; else until that time of CLOCK_MONOTONIC.
ZCP_PRIV int zcp_priv_futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *until,
                            uint32_t bits) {
#if defined(SYS_futex_time64) && !defined(__LP64__) && !defined(_LP64)
    if (sizeof(time_t) > sizeof(long)) return (int)syscall(SYS_futex_time64, word, operation, value, until, NULL, bits);
#endif
    return (int)syscall(SYS_futex, word, operation, value, until, NULL, bits);
}

// ---------------------------------------------------------------------------------------------------------------------
// >>shm  The public calls on one object
// ---------------------------------------------------------------------------------------------------------------------

#define ZCP_PRIV_SHM_FLAGS \
    (ZCP_SHM_READ_ONLY | ZCP_SHM_PREFAULT | ZCP_SHM_LOCK | ZCP_SHM_ANY_OWNER | ZCP_SHM_NO_RESERVE | ZCP_SHM_NO_DUMP \
     | ZCP_SHM_GROUP)

ZCP_PRIV_SETUP bool zcp_priv_always_creates(zcp_shm_mode mode) {
    return mode == ZCP_SHM_CREATE_EXCLUSIVE || mode == ZCP_SHM_PURGE_AND_CREATE;
}

// A flag, by its name, for messages.
typedef struct zcp_priv_flag { uint32_t bit; const char *name; } zcp_priv_flag;

// Is that a mode, are these bits known, and none of them one that only opens (`opening`, up to one without a name) in a
// mode that always creates?
ZCP_PRIV_COLD zcp_status zcp_priv_check_mode(zcp_shm_mode mode, uint32_t flags, uint32_t known,
                                             const zcp_priv_flag *opening) {
    if ((unsigned)mode > ZCP_SHM_PURGE_AND_CREATE)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "mode %u is no zcp_shm_mode", (unsigned)mode);
    if (flags & ~known)
        return zcp_priv_fail(ZCP_ERR_INVALID_FLAGS, 0, "unknown bits 0x%x in the flags%s", flags & ~known,
                             flags & ~known & ZCP_SHM_READ_ONLY ? " (a manager takes ZCP_READ_ONLY_DATA)" : "");
    for (; zcp_priv_always_creates(mode) && opening->name; opening++)
        if (flags & opening->bit)
            return zcp_priv_fail(ZCP_ERR_INVALID_FLAGS, 0, "%s: not with a mode that always creates", opening->name);
    return ZCP_OK;
}

// The descriptor with its defaults filled in, and checked.
ZCP_PRIV_COLD zcp_status zcp_priv_shm_resolve(zcp_shm_desc *desc) {
    if (desc->permissions > 0777)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "permissions 0%o: up to 0777 are possible",
                             desc->permissions);
    static const zcp_priv_flag opening[] = {{ZCP_SHM_READ_ONLY, "ZCP_SHM_READ_ONLY"}, {0, NULL}};
    zcp_status status = zcp_priv_check_mode(desc->mode, desc->flags, ZCP_PRIV_SHM_FLAGS, opening);
    if (status != ZCP_OK) return status;
    if (desc->bytes > INT64_MAX
        || (desc->bytes == 0 && desc->mode != ZCP_SHM_OPEN_EXISTING && !(desc->flags & ZCP_SHM_READ_ONLY)))
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "%llu bytes: 1 to 2^63 - 1", (unsigned long long)desc->bytes);
    if (desc->permissions == 0) desc->permissions = ZCP_SHM_DEFAULT_PERMISSIONS;
    if (desc->timeout_ms == 0) desc->timeout_ms = ZCP_SHM_DEFAULT_TIMEOUT_MS;
    return ZCP_OK;
}

// Gives an empty object its pages, under the creation lock; *mine tells whether it was this call. Removes the name if
// that fails.
ZCP_PRIV_SETUP zcp_status zcp_priv_shm_finish(int fd, const zcp_priv_file *file, const zcp_shm_desc *desc,
                                              zcp_priv_wait *wait, bool *mine) {
    zcp_priv_lock lock;
    struct stat now;
    bool same = false;
    *mine = false;
    zcp_status status = zcp_priv_lock_creation(file, false, wait, &lock);
    if (status != ZCP_OK) return status;
    ZEROCP_STEP("shm_locked");
    status = zcp_priv_file_is(file, &same);
    if (status == ZCP_OK && same && fstat(fd, &now) == 0 && now.st_size == 0) {
        status = zcp_priv_file_grant(fd, file->path.text, desc->permissions, desc->group, desc->flags);
        // A killed creator may have reserved pages behind the end.
        (void)zcp_priv_truncate(fd, 0);
        if (status == ZCP_OK) status = zcp_priv_file_reserve(fd, file->path.text, 0, desc->bytes, desc->flags);
        if (status == ZCP_OK) *mine = true;
        else shm_unlink(file->path.text);
    }
    zcp_priv_lock_drop(&lock);
    return status;
}

// One try. *again: start over, the object has changed meanwhile.
ZCP_PRIV_SETUP zcp_status zcp_priv_shm_attempt(zcp_shm *shm, const zcp_shm_desc *desc, const zcp_priv_path *path,
                                               zcp_priv_wait *wait, bool *again) {
    int fd;
    struct stat now;
    zcp_priv_file file;
    bool read_only = desc->flags & ZCP_SHM_READ_ONLY, creates = desc->mode != ZCP_SHM_OPEN_EXISTING && !read_only,
         mine = false, fresh = false;
    bool purges = desc->mode == ZCP_SHM_PURGE_AND_CREATE;
    // What goes is not trusted.
    uint32_t accepts = purges ? desc->flags | ZCP_SHM_ANY_OWNER : desc->flags;
    zcp_status status = zcp_priv_file_open(path->text, read_only ? O_RDONLY : O_RDWR, accepts, &fd, &now);
    if (status == ZCP_ERR_NOT_FOUND && creates) {
        // Exact once it is finished.
        status = zcp_priv_file_create(path->text, desc->permissions | 0600, desc->group, desc->flags, &fd, &now);
        fresh = status == ZCP_OK;
        *again = status == ZCP_ERR_EXISTS;
    }
    if (status != ZCP_OK) return status;
    if (now.st_size == 0 && !zcp_priv_is_stranger(&now, desc->flags)) {
        zcp_priv_file_remember(&file, fd, path, 0, &now);
        if (!creates)
            status = zcp_priv_fail(ZCP_ERR_NOT_FOUND, 0, "%s is half-made, and this call may not create", path->text);
        else if ((status = zcp_priv_shm_finish(fd, &file, desc, wait, &mine)) == ZCP_OK) *again = !mine;
        if (mine && fstat(fd, &now) != 0) status = zcp_priv_fail_system("fstat", path->text);
        if (fresh && status != ZCP_OK && status != ZCP_ERR_TIMEOUT) zcp_priv_file_withdraw(fd, path->text, 0);
    } else if (desc->mode == ZCP_SHM_CREATE_EXCLUSIVE) {
        status = zcp_priv_fail(ZCP_ERR_EXISTS, EEXIST, "%s exists", path->text);
    } else if (purges) {
        status = zcp_priv_may_remove(fd, path->text, &now, desc->flags);
        if (status == ZCP_OK) status = zcp_priv_file_unlink(path->text);
        *again = status == ZCP_OK || status == ZCP_ERR_NOT_FOUND;
    } else if ((uint64_t)now.st_size < desc->bytes) {
        status = zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "%s has %llu bytes, %llu were asked for", path->text,
                               (unsigned long long)now.st_size, (unsigned long long)desc->bytes);
    }
    if (status == ZCP_OK && !*again) {
        shm->bytes = (uint64_t)now.st_size;
        shm->device = (uint64_t)now.st_dev;
        shm->inode = (uint64_t)now.st_ino;
        shm->created = mine;
        shm->flags = desc->flags;
        status = zcp_priv_file_map(fd, path->text, 0, shm->bytes, desc->flags, &shm->base);
    }
    if (status != ZCP_OK && mine) zcp_priv_file_withdraw(fd, path->text, UINT64_MAX);
    zcp_priv_close_fd(fd);
    return status;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_shm_open(zcp_shm *shm, const zcp_shm_desc *desc) {
    if (!shm || !desc) return zcp_priv_fail_plain(ZCP_ERR_INVALID_ARGUMENT);
    zcp_shm_desc full = *desc;
    zcp_priv_path path;
    memset(shm, 0, sizeof *shm);
    zcp_status status = zcp_priv_path_make(&path, zcp_priv_name_plain(full.name), "");
    if (status == ZCP_OK) status = zcp_priv_shm_resolve(&full);
    if (status != ZCP_OK) return status;
    zcp_priv_wait wait = zcp_priv_wait_begin(full.timeout_ms);
    for (bool again = true; again; ) {
        again = false;
        status = zcp_priv_shm_attempt(shm, &full, &path, &wait, &again);
        if (again && !zcp_priv_wait_more(&wait)) {
            status = zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: others keep replacing it", path.text);
            again = false;
        }
    }
    if (status != ZCP_OK) memset(shm, 0, sizeof *shm);
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_shm_open(zcp_shm *shm, const zcp_shm_desc *desc) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_shm_open(shm, desc));
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_shm_close(zcp_shm *shm) {
    if (!shm) return;
    if (shm->base) munmap(shm->base, (size_t)shm->bytes);
    memset(shm, 0, sizeof *shm);
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_shm_unlink(const char *name) {
    zcp_priv_path path;
    zcp_status status = zcp_priv_path_make(&path, zcp_priv_name_plain(name), "");
    return status == ZCP_OK ? zcp_priv_file_unlink(path.text) : status;
}

#endif // ZEROCP_SHM_IMPLEMENTED

// SPDX-License-Identifier: MIT; the text stands at the end of zerocp_relptr.h
