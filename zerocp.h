/* zerocp.h - zerocp 1.0 - MIT - zero-copy chunk pools in shared memory that survive kill -9 (floor 3 of 3)

   Do this in exactly one C file, before you include it:
       #define ZEROCP_IMPLEMENTATION
       #include "zerocp.h"
   Everywhere else just include it. It needs zerocp_shm.h and zerocp_relptr.h beside it, Linux, and a C11 compiler.

   QUICK START (a program that compiles as it stands) >>quickstart
    #define ZEROCP_IMPLEMENTATION
    #include "zerocp.h"
    #include <stdio.h>
    #include <string.h>

    int main(void) {
        // 1. Say which pools you want, and open the instance: the first process creates it, the others attach.
        zcp_config config = {0};
        zcp_config_add_pool(&config, 256, 100);                        // 100 chunks of 256 bytes
        zcp_config_add_pool(&config, 4096, 20);
        zcp_manager *manager;
        if (zcp_manager_open(&manager, &(zcp_manager_desc){.name = "quickstart", .config = &config}) != ZCP_OK) {
            fprintf(stderr, "%s\n", zcp_last_message());
            return 1;
        }
        // 2. Allocate a chunk, write into it, make a token: 64 bits that any transport can carry to another process.
        zcp_chunk chunk;
        if (zcp_chunk_allocate(manager, 200, &chunk) != ZCP_OK) return 1;
        strcpy((char *)chunk.data, "hello");
        uint64_t token = zcp_chunk_token(&chunk);
        // 3. The receiver (here the same process) acquires it, reads it in place, and acknowledges.
        zcp_chunk received;
        if (zcp_chunk_acquire(manager, token, &received) != ZCP_OK) return 1;
        printf("%s, use count %d\n", (const char *)zcp_chunk_data(&received), (int)zcp_chunk_use_count(&received));
        zcp_chunk_release(&received);
        // 4. The sender holds on until the acknowledgement has come, and lets go. The last holder frees the chunk.
        zcp_chunk_release(&chunk);
        zcp_manager_print(manager, stdout);
        // 5. Close detaches. The instance stays for the others until somebody destroys it.
        zcp_manager_close(manager);
        zcp_manager_destroy("quickstart");
        return 0;
    }
   <<quickstart

   THE MODEL
     An instance is a set of pools that all processes share which open its name. It consists of three objects in shared
     memory: the management segment (/<name>_memory_management), the chunk segment (/<name>_memory_chunk), and an empty
     object whose locks say which clients live (/<name>_memory_locks); only a process that may write the management
     segment can open it.
     Each chunk has a record in the management segment, and the record alone says who holds the chunk: its owner (the
     client that allocated it), its borrowers (clients that acquired its token), and its generation. The free list, and
     the part of it that a thread has on loan, are only hints where to look.
     When a process dies, however it dies, the kernel drops the lock on its client slot; whichever client comes by next
     takes back what it held. Nothing needs to be done for the dead. There is no daemon, no heartbeat and no time-out.

   CACHES
     With zcp_pool_config.cache_chunks, each thread keeps up to so many of the chunks that it releases for its own next
     allocations; allocate and release then take no locked instruction at all. Other threads cannot see cached chunks.
     An allocate elsewhere that finds nothing takes the caches of threads that are not allocating at that moment, and
     makes every thread give back its cache with its next allocate or release in that pool, and cache nothing for 64
     releases. So only a thread that is stopped inside an allocate keeps up to cache_chunks chunks: size the pool for
     that. Cached chunks also come back when the thread ends, when the manager is closed, when the process dies, and
     those of a retired pool with the next zcp_manager_recover. zcp_pool_stats.cached counts them. All processes have to
     agree on cache_chunks, as on the rest of the configuration.

   GROWTH
     zcp_manager_add_pool, retire_pool and reconfigure change the pools while everybody works. The two segments get
     longer; each client maps what is new when it first meets it. A retired pool gives out nothing more, and its chunks'
     memory goes back to the system with its last chunk; its addresses, and its part of the management segment (some 35
     bytes per chunk with up to 64 clients, some 160 with 1,024), stay taken.

   TOPICS
     A publisher gives chunks to a topic, a name within the instance, instead of sending tokens by an IPC of its own;
     every subscriber of that name reads the messages in place, in order: zcp_publisher_open, _loan, _publish;
     zcp_subscriber_open, _receive. A publisher's last `depth` messages stay readable. A subscriber that is slower loses
     the older ones, unless it is reliable: then the publisher waits for it. What a killed publisher has published still
     arrives: its client slot stays taken until it is read.

   ZEROCP DOES NOT
     - send tokens: use a topic, or whatever IPC you have;
     - protect payloads from concurrent writers: agree on who writes;
     - enlarge a pool: add another one;
     - cross machines;
     - defend against a peer that truncates the files (SIGBUS).

   CAVEATS (symptom: reason, and what to do)
     - ZCP_ERR_STALE on acquire: the sender let go before the receiver had acquired. A token holds nothing: keep the
       handle until the receiver acknowledges.
     - ZCP_ERR_FORKED: a manager does not cross fork; its memory is not even mapped in the child (touching a payload
       there faults). Open the instance again in the child.
     - A forked child that does not exec keeps three descriptors of each open manager, and so the files' memory after
       they are removed. They hold no lock, with one exception: a process that can open no files any more (setuid,
       chroot, no descriptor left, a seccomp filter) locks by them while it sweeps a dead client or adds a pool. If it
       is killed at that moment, the slot stays unswept, or the instance locked for adding and destroying, until such
       a child execs or ends.
     - ZCP_ERR_EXHAUSTED right after a kill: a dead client is swept once the kernel has torn down its memory; while a
       core dump is being written the client still counts as alive. The dead are looked for at most once per
       millisecond (or once per ten times what that took).
     - zcp_manager_recover finds nothing right after a dead peer's socket or pipe has ended: the kernel closes
       descriptors a moment before it drops the lock. Wait with waitpid or a pidfd, or try again a little later.
     - A vfork or CLONE_VM child shares the memory: its parent's death is seen once the child has exec'd or ended. A
       raw fork (_Fork, clone) at the moment when another thread takes a lock keeps that lock until the child execs or
       ends.
     - A client that is stopped (SIGSTOP, debugger) keeps what it holds and delays nobody, with two exceptions. One
       that is stopped while it creates, destroys, or adds a pool lets others who do that run into ZCP_ERR_TIMEOUT
       (while it replaces an instance that nobody has open, also those who open it). One that is stopped while it
       sweeps a dead client keeps that slot unswept.
     - A topic stands still: a reliable subscriber is alive and does not read. That is what reliable means; open the
       publisher with never_waits if nobody may hold it up.
     - Device DMA or io_uring may still write into a dead client's chunk after it was given to somebody else.
     - ZCP_ERR_NO_SPACE: /dev/shm is full (containers have 64 MiB unless told otherwise). Memory is reserved at
       creation, so there is no SIGBUS later; but a memory controller may still kill, and whoever may write the files
       can truncate them.
     - The instance vanished: somebody removed the names by hand, or systemd's RemoveIPC did at logout. Clients go on
       with what they have mapped; zcp_manager_check says ZCP_ERR_REPLACED; close and open again.
     - Pids in messages are those of the writer's PID namespace. Nothing but messages uses them.
     - A thread without a number (the 64th and later threads of a process) or without a lease caches nothing and pays
       up to four more locked instructions; so does a thread in destructors of pthread keys that run after zerocp's. A
       pool has one lease per 8 chunks up to 128 chunks, 16 to 32 up to 2,048 chunks, and 64 from 4,096 chunks on.
       Where membarrier(2) is forbidden nobody caches.
     - A library that contains this code may be unloaded, but not while a thread that has used it ends. Close its
       managers before, or their memory and locks stay. Each thread that allocates takes one pthread key's value.
     - Two copies of the implementation in one process (two libraries, say) work, but do not know of each other's
       managers (zcp_manager_find, fork handling). Have one copy, or ZEROCP_STATIC.
     - Nothing here is async-signal-safe, and a thread must not be cancelled (pthread_cancel) inside a call. glibc
       before 2.34 needs -lrt -pthread.

   CONFIGURATION
     ZEROCP_IMPLEMENTATION  emit the implementation here            in exactly one file (with ZEROCP_STATIC: in each)
     ZEROCP_STATIC          all functions are static                in each file that includes a zerocp header
     ZEROCP_API             linkage of public functions             the same everywhere; default: extern
     ZEROCP_ASSERT(c)       internal assertions                     implementing file; default: assert(c)
     ZEROCP_LOG(level, ...) where log lines go                      implementing file; default: zcp_log, if on
     ZEROCP_LOG_LEVEL       log level 0-4, if nothing else sets it  implementing file; default: 1 (errors)
                            The environment variable ZEROCP_LOG_LEVEL (a name or a number) overrides it, and
                            zcp_log_set_level overrides both
     ZEROCP_THREAD_LOCAL, _CAS, _ACCESS, _STEP, _COUNT, _COUNT_FREED, _LIGHT_BARRIER, _HEAVY_BARRIER, _WAIT_FOR_SIBLING
                            what tests and models put in place of a primitive: see where each is defined

   CONTENTS (search for the tag)
     zerocp_relptr.h, what needs no system call
       >>api-status   Status codes: one per cause
       >>api-log      Log: works before any object exists
       >>api-relptr   Relative pointers, and the registry that resolves them
       >>api-vector   Vector: up to N elements, embedded
       >>api-list     List: a lock-free set of free indices
       >>atomics      Each access to a shared word names its memory order
       >>status       Texts of the status codes, and the last failure of each thread
       >>log          Lines for people
       >>arithmetic   Sums, bits and addresses
       >>relptr       Relative pointers
       >>registry     Where this process has mapped which segment
       >>list         The set of free indices: lock-free, any number of processes
     zerocp_shm.h, what the kernel gives
       >>api-shm      An object of shared memory
       >>clock        Time, and bounded waits
       >>process      What a process keeps, and a forked child must not
       >>descriptors  Opening files, never as descriptor 0, 1 or 2
       >>names        Names of objects and of clients
       >>files        Opening, creating, reserving, mapping and removing an object, step by step
       >>locks        A lock is a mapping
       >>barriers     Barriers between processes, and the futex
       >>shm          The public calls on one object
     zerocp.h, the interface
       >>api-config   Configuration: which pools an instance has
       >>api-manager  Manager: one attachment of this process to an instance
       >>api-pools    Pools that come and go while everybody works
       >>api-watch    Statistics, clients, census, print
       >>api-chunk    Chunk: a handle of this process
       >>api-topic    Topics: publish to a name, read in place
     zerocp.h, the implementation (a table at the head of a section lists its memory orders: `// F3` at the end of a
     line of code is the label of that access; `// step name` marks a line that the model checker's mutants change)
       >>layout       All that other processes see
       >>record       The truth about one chunk: who holds it, in which generation
       >>hints        Leases, loans, caches and counters: where a thread looks first
       >>view         The pools as one client sees them: private pointers and numbers, no system calls
       >>recall       A recall: what threads keep comes back to everybody
       >>manager      An attachment: its states, and whether a call may use it
       >>thread       A thread's number and its most recent pool
       >>meet         A client learns which pools have come and gone
       >>pools        The life of a pool: adding, retiring, reconfiguring
       >>sweep        Taking back what dead clients held
       >>hold         Handles of one chunk in this process: clone, token, acquire, accessors
       >>allocate     The ladder to a chunk
       >>wait         Sleeping until a chunk is free
       >>release      Giving a handle back
       >>create       Making an instance, and taking it apart
       >>attach       Joining an instance
       >>open         Opening, closing and destroying: one attempt after the other until one is final
       >>watch        Statistics, census, information, print
       >>topics       Topics: their tables, and how the dead are taken out of them
       >>publish      Publishing: the ring of a publisher, and who may still read it
       >>receive      Receiving in place, and waiting for messages
       >>cpp          C++: the same in namespace zerocp, with owners that clean up

   Licence: MIT, at the end of zerocp_relptr.h. */

#include "zerocp_shm.h"

#ifndef ZEROCP_H
#define ZEROCP_H
#include <stdio.h>
#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------------------------------
// >>api-config  Configuration: which pools an instance has
// ---------------------------------------------------------------------------------------------------------------------
// Plain data; not thread-safe.

#define ZCP_MAX_POOLS 16                         // in a configuration
#define ZCP_MAX_LIVE_POOLS 32                    // in an instance at once, added and retiring pools included
#define ZCP_MAX_CLIENTS 1024                     // of an instance at once
#define ZCP_MAX_CHUNKS (UINT32_C(1) << 27)       // in one pool
#define ZCP_MAX_CACHE_CHUNKS 64                  // in one thread's cache of one pool
#define ZCP_DEFAULT_CLIENTS 64
#define ZCP_DEFAULT_ALIGNMENT 64
#define ZCP_MAX_ALIGNMENT (UINT32_C(1) << 30)    // bytes
#define ZCP_NO_CLIENT UINT32_MAX                 // no client, where a client's slot is expected
#define ZCP_MAX_TOPIC_BYTES 64                   // of the name of a topic, the final 0 included
#define ZCP_MAX_PUBLISHERS 1024                  // of an instance at once, like the next
#define ZCP_MAX_SUBSCRIBERS 1024
#define ZCP_MAX_RING_CELLS 65536                 // messages of one publisher
#define ZCP_DEFAULT_PUBLISHERS 16
#define ZCP_DEFAULT_SUBSCRIBERS 32
#define ZCP_DEFAULT_RING_CELLS 64

typedef struct zcp_pool_config {
    uint64_t chunk_size;            // bytes of payload, 1 or more
    uint32_t chunk_count;           // 1 to ZCP_MAX_CHUNKS
    uint32_t alignment;             // of each chunk, bytes: a power of two up to ZCP_MAX_ALIGNMENT; 0 = 64
    uint32_t cache_chunks;          // free chunks that each thread may keep, up to ZCP_MAX_CACHE_CHUNKS
} zcp_pool_config;

typedef ZCP_VECTOR(zcp_pool_config, ZCP_MAX_POOLS) zcp_pool_vector;

// All zero is the empty configuration. Pools may come in any order, and sizes may repeat.
typedef struct zcp_config {
    zcp_pool_vector pools;
    uint32_t publishers;            // of all topics at once, up to ZCP_MAX_PUBLISHERS; 0 = 16
    uint32_t subscribers;           // of all topics at once, up to ZCP_MAX_SUBSCRIBERS; 0 = 32
    uint32_t ring_cells;            // messages that each publisher may have unread, up to ZCP_MAX_RING_CELLS; 0 = 64
} zcp_config;

// Adds a pool with the default alignment and without caches. Otherwise as zcp_config_add.
ZEROCP_API zcp_status zcp_config_add_pool(zcp_config *config, uint64_t chunk_size, uint32_t chunk_count);

// Adds a pool. After a failure the configuration is as before.
// Errors:
//   INVALID_ARGUMENT   config or pool is NULL
//   INVALID_SIZE       chunk_size or chunk_count is 0, chunk_count or cache_chunks is above its limit
//   INVALID_ALIGNMENT  alignment is not a power of two up to ZCP_MAX_ALIGNMENT
//   OVERFLOW           the configuration would need more than 2^48 bytes
//   FULL               ZCP_MAX_POOLS pools are there
ZEROCP_API zcp_status zcp_config_add(zcp_config *config, const zcp_pool_config *pool);

// Bytes of the management segment (with the tables of topics), of the chunk segment, and of both, for up to max_clients
// clients (0 = 64). Returns 0 for a NULL or invalid configuration, on overflow, and for max_clients above
// ZCP_MAX_CLIENTS; zcp_last_message says which.
ZEROCP_API uint64_t zcp_config_management_bytes(const zcp_config *config, uint32_t max_clients);
ZEROCP_API uint64_t zcp_config_chunk_bytes(const zcp_config *config, uint32_t max_clients);
ZEROCP_API uint64_t zcp_config_total_bytes(const zcp_config *config, uint32_t max_clients);

// ---------------------------------------------------------------------------------------------------------------------
// >>api-manager  Manager: one attachment of this process to an instance
// ---------------------------------------------------------------------------------------------------------------------

typedef struct zcp_manager zcp_manager;

// Flags of zcp_manager_desc; besides these ZCP_SHM_PREFAULT, _LOCK, _ANY_OWNER, _NO_RESERVE, _NO_DUMP and _GROUP.

// When the best-fitting pools are exhausted, allocate takes a chunk from a pool of larger chunks.
#define ZCP_FALLBACK        (UINT32_C(1) << 16)
// Maps the chunk segment read-only: this client acquires and reads, and cannot overwrite a payload by mistake.
#define ZCP_READ_ONLY_DATA  (UINT32_C(1) << 17)
// Waits up to timeout_ms until somebody creates the instance.
#define ZCP_WAIT            (UINT32_C(1) << 18)
// Refuses a double release even when two threads release the same handle at the same moment; without the flag that may
// give a chunk out twice. Costs two locked instructions for each chunk, and one for the first token of a chunk.
#define ZCP_CHECKED         (UINT32_C(1) << 19)
// Only looks: takes no client slot, changes nothing, reclaims nothing, maps no payload, never creates. Needs only read
// permission. Every call that would change something returns READ_ONLY.
#define ZCP_OBSERVE         (UINT32_C(1) << 20)

typedef struct zcp_manager_desc {
    const char       *name;         // up to 236 bytes, no slash but a leading one; NULL = "zerocp"
    zcp_shm_mode      mode;
    // Needed to create. If the instance exists, these have to be its live pools, in any order; NULL accepts what is
    // there.
    const zcp_config *config;
    uint32_t          max_clients;  // to create: 1 to 1024, 0 = 64; if the instance exists: equal, or 0
    uint32_t          permissions;  // of created objects: 0600 and any more up to 0777, whatever the umask; 0 = 0600
    uint32_t          flags;        // see above
    // For people: up to 31 bytes, no slash, no control character (others see '?' for a byte that is not UTF-8).
    // NULL = the thread's name, with '_' for such characters.
    const char       *client_name;
    uint32_t          timeout_ms;   // limit on all waiting in zcp_manager_open; 0 = 5000
    uint32_t          group;        // with ZCP_SHM_GROUP: the group's number
    // Of the created chunk segment, like `permissions`; 0 = the same. With permissions 0660 and data_permissions 0640
    // the group's members may only read payloads: they open with ZCP_READ_ONLY_DATA. Added pools lie in the same
    // object.
    uint32_t          data_permissions;
    // Chunks that this client may hold at once, as zcp_client_stats counts them, but each only once; 0 = any number.
    // Allocate, acquire and keep then return LIMIT, so that a client which never releases does not take whole pools. A
    // publisher's ring counts, but for messages that all have read; a message that is read in place does not. Exact for
    // one thread; each other thread that is within such a call at that moment, or releases a handle of a chunk that
    // this one acquires, may exceed it by one. Allocate and release take longer with a limit: they use the thread's
    // caches and loans by the slower ways.
    uint32_t          max_chunks;
} zcp_manager_desc;

// Opens the instance, and creates it if the mode says so; exactly one process initialises it. Each open makes a client
// of its own, also the second one in a process. It also reclaims what dead clients hold. All clients but observers need
// write permission on the management segment.
//
// An instance that does not suit the call and that nobody has open is replaced, so that a service which was killed and
// starts again with other pools comes up by itself:
// - ZCP_SHM_OPEN_OR_CREATE with a configuration replaces an instance with other live pools or another max_clients;
// - ZCP_SHM_CREATE_EXCLUSIVE replaces any instance.
// Nobody can join it meanwhile. If somebody has it open, the call fails with CONFIG_MISMATCH or EXISTS, and the message
// names one of them; observers and dead clients do not count. Calls that never create (ZCP_SHM_OPEN_EXISTING,
// ZCP_READ_ONLY_DATA, ZCP_OBSERVE, no configuration) replace nothing. An instance of another layout version, or with a
// corrupt header, is not replaced: ZCP_SHM_PURGE_AND_CREATE or zcp_manager_destroy removes it.
//
// After a failure *manager is NULL and nothing is left that this call began to create. Thread-safe.
// Errors:
//   INVALID_ARGUMENT   an argument is NULL; mode, max_clients or permissions out of range; the configuration is empty,
//                      or missing with ZCP_SHM_PURGE_AND_CREATE or ZCP_SHM_CREATE_EXCLUSIVE
//   INVALID_NAME       the instance's or the client's name
//   INVALID_SIZE, INVALID_ALIGNMENT, OVERFLOW   a pool of the configuration
//   INVALID_FLAGS      an unknown flag, or flags that do not go with the mode
//   EXISTS             ZCP_SHM_CREATE_EXCLUSIVE, and somebody has the instance open
//   NOT_FOUND          there is no instance, and this call may not create one
//   PERMISSION         the system refuses access; or this user may only read chunks, and ZCP_READ_ONLY_DATA is missing
//   WRONG_OWNER        an object belongs to another user, and ZCP_SHM_ANY_OWNER is missing
//   WRONG_TYPE         a name leads to something other than a regular file
//   NO_SPACE           /dev/shm is full; the message tells needed and free bytes
//   NO_MEMORY, MAPPING, SYSTEM
//   TIMEOUT            another process was creating, destroying or changing it all the time; with ZCP_WAIT: nobody
//                      created it
//   NOT_ZEROCP         the management object is not zerocp's
//   VERSION, LAYOUT    another layout version; the same version from another build or byte order
//   CORRUPT            the header holds garbage
//   CONFIG_MISMATCH    other live pools or another max_clients, and somebody has the instance open
//   CLIENTS_FULL       all client slots are taken
ZEROCP_API zcp_status zcp_manager_open(zcp_manager **manager, const zcp_manager_desc *desc);

// Detaches: gives back the chunks that are still held (the log warns about them) and unmaps everything. The instance
// stays. Later calls on the manager or its handles fail with ZCP_ERR_CLOSED or do nothing. A later zcp_manager_open of
// this process reuses the object; if handles were left, only after 64 more managers were closed with handles left. A
// forgotten handle is then refused as not held, unless the new manager holds that very use of the chunk, or generations
// collide (1 in 2^32). A call that overlaps the close of its manager is the caller's error. NULL, a closed or an
// inherited manager: does nothing.
ZEROCP_API void zcp_manager_close(zcp_manager *manager);

// Retires the instance of that name (NULL = "zerocp") and removes its names; clients go on with what they have mapped.
// Root destroys any user's instance. After a failure the call can be repeated. Thread-safe.
// Errors:
//   INVALID_NAME
//   NOT_FOUND          none of its names is there
//   NOT_ZEROCP         the management object is not zerocp's; nothing has changed: zcp_shm_unlink removes it
//   LAYOUT             it was written by a machine of the other byte order; nothing has changed
//   PERMISSION, WRONG_OWNER   it belongs to another user; nothing has changed
//   WRONG_TYPE         a name leads to something other than a regular file
//   TIMEOUT            for 5 s another process was creating, destroying or changing it
//   NO_MEMORY, MAPPING, SYSTEM
ZEROCP_API zcp_status zcp_manager_destroy(const char *name);

// The same with flags: 0, or ZCP_SHM_ANY_OWNER to destroy another user's instance without being root, where the system
// allows that (in /dev/shm this normally takes the capability CAP_FOWNER). Thread-safe.
// Errors: those of zcp_manager_destroy, and INVALID_FLAGS (another flag).
ZEROCP_API zcp_status zcp_manager_destroy_with(const char *name, uint32_t flags);

// Destroys the instance that this manager has open, and no other: not one that has taken its name since. The manager
// stays open; close it as ever. After a failure the call can be repeated. Thread-safe.
// Errors:
//   INVALID_ARGUMENT   manager is NULL
//   FORKED, CLOSED     the manager cannot be used
//   READ_ONLY          it was opened with ZCP_OBSERVE
//   REPLACED           the instance was destroyed, or its name is gone or leads to another instance
//   PERMISSION, WRONG_OWNER   it belongs to another user, and this one may not remove it; nothing has changed
//   TIMEOUT            for 5 s another process was creating, destroying or changing it
//   WRONG_TYPE, NO_MEMORY, MAPPING, SYSTEM
ZEROCP_API zcp_status zcp_manager_destroy_this(zcp_manager *manager);

typedef struct zcp_recovery {
    uint32_t dead_clients;          // whose slots were reclaimed
    uint64_t chunks_reclaimed;      // which became free by that
} zcp_recovery;

// Takes back what dead clients hold, and what idle threads cache of retiring pools. There is normally no need to call
// it: opening, and an allocate that finds no free chunk, do the same. It may run beside live traffic and beside itself,
// and be killed at any point. Works also where the process can open nothing any more (setuid, chroot, RLIMIT_NOFILE,
// seccomp). report may be NULL; it counts dead clients, and after a failure what was done until then. Thread-safe.
// Errors:
//   INVALID_ARGUMENT   manager is NULL
//   FORKED, CLOSED     the manager cannot be used
//   READ_ONLY          it was opened with ZCP_OBSERVE
//   SYSTEM             the objects cannot be opened any more, and the kept descriptors are closed
//   CORRUPT            records hold garbage; everything else was reclaimed
//   NO_MEMORY, MAPPING
ZEROCP_API zcp_status zcp_manager_recover(zcp_manager *manager, zcp_recovery *report);

// OK: the name still leads to this instance. Thread-safe.
// Errors:
//   REPLACED           it was destroyed, purged or removed by hand: go on, or close and open again
//   INVALID_ARGUMENT, FORKED, CLOSED
//   PERMISSION         cannot tell: this process may not open the name any more
//   SYSTEM             cannot tell: it sees another /dev/shm, or none (chroot, mount), or has no descriptor left
ZEROCP_API zcp_status zcp_manager_check(zcp_manager *manager);

// This process's manager of that name (NULL = "zerocp") that was opened first and is still open, not counting those
// with ZCP_OBSERVE; NULL if there is none. Thread-safe.
ZEROCP_API zcp_manager *zcp_manager_find(const char *name);

#define ZCP_SEGMENT_MANAGEMENT 1
#define ZCP_SEGMENT_CHUNK      2
// The manager's registry for relative pointers. It contains both segments (with ZCP_OBSERVE the first one), and one
// segment for each added pool; the ids are the same in every client. An added pool's id is above ZCP_SEGMENT_CHUNK, and
// is not used again before 65,000 more pools were added. All ids in this registry are zerocp's: add no segment of your
// own. NULL if the manager is not open. Thread-safe.
ZEROCP_API zcp_registry *zcp_manager_registry(zcp_manager *manager);

// ---------------------------------------------------------------------------------------------------------------------
// >>api-pools  Pools that come and go while everybody works
// ---------------------------------------------------------------------------------------------------------------------

// Adds a pool. All clients use it from their next call on. Its chunks lie in a registry segment of their own. *index
// (may be NULL) becomes its number. After a failure, and if the process is killed within the call, the instance is as
// before. Thread-safe.
// Limits: ZCP_MAX_LIVE_POOLS at once; 2^48 bytes and 2^32 pools in an instance's life. A process can map 16,000 added
// pools, over all managers that it has open: each stays mapped until its manager is closed, and takes up to three of
// the 65,530 mappings that Linux allows a process. Beyond that, close the manager and open it again. A client that
// cannot map a pool tries again when it needs it, but spends at most a tenth of its time on that; until then acquire of
// that pool's tokens fails with MAPPING, and so does an allocate that no other pool can serve; the message says why.
// Errors:
//   INVALID_ARGUMENT   an argument is NULL
//   INVALID_SIZE, INVALID_ALIGNMENT, OVERFLOW   as zcp_config_add
//   FULL               ZCP_MAX_LIVE_POOLS pools are there
//   FORKED, CLOSED     the manager cannot be used
//   READ_ONLY          it was opened with ZCP_OBSERVE or ZCP_READ_ONLY_DATA
//   REPLACED           the instance was destroyed, or its name is gone or leads elsewhere (if this process cannot check
//                      the name any more, the call goes on)
//   TIMEOUT            for 5 s another process was creating, destroying or changing the instance
//   NO_SPACE           /dev/shm is full
//   CORRUPT            the header holds garbage
//   NO_MEMORY, MAPPING, PERMISSION, SYSTEM
ZEROCP_API zcp_status zcp_manager_add_pool(zcp_manager *manager, const zcp_pool_config *pool, uint32_t *index);

// Retires a pool: nothing more is allocated from it. When its last chunk is released, the memory of its chunks goes
// back to the system, and its number may be given to another pool; its part of the management segment stays until the
// instance is destroyed. Clients that hold its chunks are not disturbed. Its cached chunks come back like any others,
// and those of idle threads with anybody's next zcp_manager_recover. If the process is killed within the call, the pool
// is as before or retired. Thread-safe.
// Errors:
//   INVALID_ARGUMENT   manager is NULL, or pool is not below ZCP_MAX_LIVE_POOLS
//   NOT_FOUND          there is no pool of that number, or it is retiring already
//   FORKED, CLOSED     the manager cannot be used
//   READ_ONLY          it was opened with ZCP_OBSERVE or ZCP_READ_ONLY_DATA
//   NO_MEMORY, MAPPING, SYSTEM, CORRUPT   the pool was added, and this process cannot map it
ZEROCP_API zcp_status zcp_manager_retire_pool(zcp_manager *manager, uint32_t pool);

// Adds and retires pools until the live pools are those of config, in any order; pools that are right already stay.
// After a failure the pools that it added are retired again, and nothing else has changed. Two such calls come one
// after the other. Thread-safe.
// Errors: those of zcp_manager_add_pool and zcp_manager_retire_pool; INVALID_ARGUMENT also for an empty configuration.
ZEROCP_API zcp_status zcp_manager_reconfigure(zcp_manager *manager, const zcp_config *config);

// The live pools by their numbers, up to ZCP_MAX_POOLS of them. Thread-safe.
// Errors: INVALID_ARGUMENT, FORKED, CLOSED; *config is then empty.
ZEROCP_API zcp_status zcp_manager_get_config(const zcp_manager *manager, zcp_config *config);

// ---------------------------------------------------------------------------------------------------------------------
// >>api-watch  Statistics, clients, census, print
// ---------------------------------------------------------------------------------------------------------------------
// Counting is always on, and free for a thread with a lease, which has its own cache line (>>hints). Only the last
// borrower's release pays one atomic add.

typedef enum zcp_pool_state {
    ZCP_POOL_NONE = 0,              // there is no pool of that number, or no longer
    ZCP_POOL_LIVE,
    ZCP_POOL_RETIRING               // nothing is allocated from it; it goes when its last chunk is released
} zcp_pool_state;

typedef struct zcp_pool_stats {
    uint64_t chunk_size;            // bytes, as configured
    uint64_t total, used, free;     // chunks, by their records: used + free + cached == total. The free chunks of a
                                    // retiring pool cannot be allocated
    uint64_t stride;                // bytes from one chunk to the next
    uint32_t alignment;             // bytes
    uint32_t cache_chunks;          // as configured
    uint64_t cached;                // chunks that nobody uses, in the cache of some thread
    zcp_pool_state state;           // NONE: all else is 0
    uint64_t peak_used;             // most chunks in use at once: exact for one thread, else a lower bound
    uint64_t allocations, releases; // since the pool was made; allocations - releases == used
    uint64_t failures;              // calls that returned EXHAUSTED or TIMEOUT
    uint64_t waits;                 // calls of zcp_chunk_allocate_wait that slept
    uint64_t disturbed;             // of these, how many may have missed a free chunk
} zcp_pool_stats;

// Counts the records of a pool. Pools have the numbers 0 to zcp_manager_pool_end - 1, at first in the order of the
// configuration. The counts of chunks are exact when nobody allocates or releases. A process that is killed inside a
// call may leave allocations and releases off by one; in a bulk, and while it reclaims, by several. Costs one load per
// chunk. Thread-safe.
// Errors: INVALID_ARGUMENT (also: pool out of range), FORKED, CLOSED; *stats is then zero.
ZEROCP_API zcp_status zcp_manager_pool_stats(const zcp_manager *manager, uint32_t pool, zcp_pool_stats *stats);

// One more than the highest number that a pool has or had; some numbers below it may have no pool any more. 0 for NULL,
// a closed or an inherited manager. Thread-safe.
ZEROCP_API uint32_t zcp_manager_pool_end(const zcp_manager *manager);

typedef struct zcp_manager_info {
    char     name[256];
    char     management_name[256], chunk_name[256];     // as in /dev/shm, with a slash in front
    uint64_t management_bytes, chunk_bytes;             // as created, without pools that were added
    void    *management_base, *chunk_base;
    uint64_t instance_id;           // random, never 0
    uint32_t max_clients;
    uint32_t slot;                  // this client's number, from 0; ZCP_NO_CLIENT with ZCP_OBSERVE
    uint32_t pool_end;              // as zcp_manager_pool_end
    uint32_t flags;                 // as given
} zcp_manager_info;

// Errors: INVALID_ARGUMENT, FORKED, CLOSED; *info is then zero. Thread-safe.
ZEROCP_API zcp_status zcp_manager_get_info(const zcp_manager *manager, zcp_manager_info *info);

typedef enum zcp_client_state {
    ZCP_CLIENT_FREE = 0,            // nobody has the slot
    ZCP_CLIENT_ALIVE,               // or it has died and is being reclaimed at this moment
    // It ended without closing, and nobody has begun to reclaim what it held; or messages that it published are unread.
    ZCP_CLIENT_DEAD
} zcp_client_state;

typedef struct zcp_client_info {
    zcp_client_state state;
    uint32_t pid;                   // in its own PID namespace
    uint64_t start;                 // when it attached, nanoseconds since 1970
    char     name[32];              // UTF-8 without slash and control characters, whatever the client has written
} zcp_client_info;

// The client in a slot. All but the state is for people. Thread-safe.
// A process that may only read the management segment can take the lock that an observer (ZCP_OBSERVE) tests: a living
// client then looks dead to observers, and to nobody else. It cannot make a dead client look alive.
// Errors: INVALID_ARGUMENT (also: slot not below max_clients), FORKED, CLOSED, SYSTEM; *info is then zero.
ZEROCP_API zcp_status zcp_manager_client_info(const zcp_manager *manager, uint32_t slot, zcp_client_info *info);

typedef struct zcp_client_stats {
    zcp_client_state state;         // as in zcp_client_info, like the next three
    uint32_t pid;
    uint64_t start;
    char     name[32];
    uint64_t owned, borrowed;       // chunks that it holds as owner, as borrower (both, if it acquired its own token)
    uint64_t bytes;                 // capacity of all that it holds
    uint64_t cached;                // chunks in its threads' caches
} zcp_client_stats;

// What a client holds, by the records. Costs two loads per chunk. Thread-safe.
// Errors: as zcp_manager_client_info.
ZEROCP_API zcp_status zcp_manager_client_stats(const zcp_manager *manager, uint32_t slot, zcp_client_stats *stats);

// A chunk that somebody holds.
typedef struct zcp_census_entry {
    uint32_t pool, index;           // index: within the pool
    uint32_t generation;
    uint32_t tag;                   // as given at allocation; 0: none
    uint64_t size, capacity;        // bytes asked for; bytes that the pool's chunks have
    uint32_t owner;                 // a client's slot; ZCP_NO_CLIENT: the owner has let go, or died
    uint32_t borrowers;             // clients that hold it as a borrower
    uint64_t borrower_mask[ZCP_MAX_CLIENTS / 64];   // bit c % 64 of word c / 64: client c
    // How many chunks the counter that counted this allocation (its thread's) has counted since, modulo 2^32.
    uint64_t age;
    uint64_t token;                 // 0: its owner has made none, so nobody else can acquire it
} zcp_census_entry;

typedef bool zcp_census_function(const zcp_census_entry *entry, void *user);    // false: stop. It may call zerocp

// Calls function for each chunk that somebody holds, pool by pool. An entry describes one use of its chunk, but not one
// moment; size, tag and age of a chunk that has just been allocated may still be those of its last use. Thread-safe.
// Errors: INVALID_ARGUMENT, FORKED, CLOSED.
ZEROCP_API zcp_status zcp_manager_census(const zcp_manager *manager, zcp_census_function *function, void *user);

// Writes one line per pool: "Pool 0: chunk_size=256, total=100, used=1, free=99", then ", cached=2" where threads may
// cache, and ", retiring". For a manager that is not open: one line that says so. Thread-safe.
ZEROCP_API void zcp_manager_print(const zcp_manager *manager, FILE *out);

// The same text, as snprintf writes it: at most bytes, the final 0 included. Returns the length of the whole text.
// Thread-safe.
ZEROCP_API size_t zcp_manager_format(const zcp_manager *manager, char *text, size_t bytes);

// ---------------------------------------------------------------------------------------------------------------------
// >>api-chunk  Chunk: a handle of this process
// ---------------------------------------------------------------------------------------------------------------------
// All zero is the empty handle. zerocp counts handles per chunk and process. Copying the struct therefore makes no
// second handle (zcp_chunk_clone does), and zerocp cannot tell a copy from its original: releasing both releases one
// handle too many. A process can have 2^32 - 2 handles of one chunk as its owner, and as many as a borrower. All calls
// are thread-safe on one manager; one handle object must not be used by two threads at once. Only these make system
// calls: a thread's first allocate; allocate, before it returns EXHAUSTED; acquire, while another thread of this
// process acquires or releases the same chunk; allocate and release, while somebody waits for a chunk; and any call
// after pools have come or gone.

typedef struct zcp_chunk {
    zcp_manager *manager;
    void        *data;              // the payload, in this process
    uint32_t     index;             // of the chunk in the instance
    uint32_t     generation;        // of the chunk when it was allocated
} zcp_chunk;

// Allocates a chunk from the pool with the smallest chunk size that fits (with ZCP_FALLBACK from a larger one when that
// is exhausted). Its content is what the last user left. The handle is overwritten, not released; after a failure it is
// empty. Thread-safe.
// Errors:
//   INVALID_ARGUMENT   an argument is NULL
//   INVALID_SIZE       size is 0
//   TOO_LARGE          no pool has chunks of that size
//   EXHAUSTED          no chunk that fits is free; see below
//   LIMIT              this client holds zcp_manager_desc.max_chunks of them
//   MAPPING            only an added pool could serve, and this process cannot map it
//   FORKED, CLOSED     the manager cannot be used
//   READ_ONLY          it was opened with ZCP_OBSERVE or ZCP_READ_ONLY_DATA
// EXHAUSTED means: a scan of all chunks that fit found none free, and no release was finished since that scan began. So
// a chunk that fits and is free from the beginning of the call to its end is found. The answer may rest on a scan that
// is up to 1 s old, but never once a release was finished after that scan. Not counted as free are cached chunks (the
// message tells how many), those of a dead client that was not reclaimed yet, and those of unfinished calls: if a
// thread is stopped inside a release, its chunk may stay hidden until the next scan: 1 ms or ten times what a scan
// takes, whichever is longer, and at most 1 s. A scan during which chunks come and go proves nothing, so it is
// repeated, for 10 ms and at least 3 times. If no repeat gets a chunk, the call returns EXHAUSTED although one may have
// been free; the message says so, and zcp_pool_stats.disturbed counts it.
ZEROCP_API zcp_status zcp_chunk_allocate(zcp_manager *manager, uint64_t size, zcp_chunk *chunk);

// The same with a tag: 32 bits of yours (who, what for) that zcp_chunk_tag and zcp_manager_census show; 0: none.
ZEROCP_API zcp_status zcp_chunk_allocate_tagged(zcp_manager *manager, uint64_t size, uint32_t tag, zcp_chunk *chunk);

// As zcp_chunk_allocate, but sleeps up to timeout_ms (UINT32_MAX: for ever) until a chunk that fits is free. A chunk
// that comes back because its holder died is seen within 0.1 s. A release wakes every client that waits for the pool,
// with one system call each; there is no order among them. Before it sleeps, the thread gives back what it caches of
// any pool.
// Errors: as zcp_chunk_allocate; TIMEOUT instead of EXHAUSTED, with the same meaning for its last scan (but EXHAUSTED
// with timeout_ms 0).
ZEROCP_API zcp_status zcp_chunk_allocate_wait(zcp_manager *manager, uint64_t size, uint32_t timeout_ms,
                                              zcp_chunk *chunk);

typedef struct zcp_chunk_desc {
    uint64_t size;                  // bytes, 1 or more
    uint32_t tag;                   // as zcp_chunk_allocate_tagged; 0: none
    uint32_t timeout_ms;            // as zcp_chunk_allocate_wait; 0: does not wait
} zcp_chunk_desc;

// Allocates with a tag, and waits if it has to. Thread-safe. The handle is overwritten, not released; after a failure
// it is empty.
// Errors: as zcp_chunk_allocate_wait, with timeout_ms 0 as zcp_chunk_allocate; INVALID_ARGUMENT also for desc NULL.
ZEROCP_API zcp_status zcp_chunk_allocate_with(zcp_manager *manager, const zcp_chunk_desc *desc, zcp_chunk *chunk);

// Allocates `count` chunks of that size: all of them, or none. From 16 chunks on, this call and zcp_chunk_release_bulk
// together take less time than as many single calls: about a third less where the thread caches chunks, 8 % elsewhere.
// The handles are overwritten, not released; after a failure all are empty. Thread-safe. count 0: does nothing.
// Errors: those of zcp_chunk_allocate, of which EXHAUSTED means that fewer than `count` were to be had, and LIMIT that
// this client may not hold as many; INVALID_ARGUMENT also for chunks NULL.
ZEROCP_API zcp_status zcp_chunk_allocate_bulk(zcp_manager *manager, uint64_t size, zcp_chunk *chunks, uint32_t count);

// Gives `count` handles back, as zcp_chunk_release does with each of them; they may be of several managers and pools,
// and chunks may be NULL. Thread-safe.
// Who waits for a chunk may learn of the first one only when the last one is released.
ZEROCP_API void zcp_chunk_release_bulk(zcp_chunk *chunks, uint32_t count);

// Returns one more handle of the same chunk, to be released on its own. Empty if the source is empty, released or not
// held: zcp_last_message says which.
ZEROCP_API zcp_chunk zcp_chunk_clone(const zcp_chunk *chunk);

// Makes one more handle, to be released on its own, from an address anywhere in the payload of a chunk that this
// process holds: for who keeps pointers instead of handles. Thread-safe, as long as the process holds the chunk until
// the call returns (if its last handle is released meanwhile, the new one may hold nothing). Costs a comparison for
// each pool of the instance. The handle is overwritten, not released; after a failure it is empty.
// Errors:
//   INVALID_ARGUMENT   manager or chunk is NULL
//   NOT_FOUND          the address lies in no chunk as this manager has them mapped, or behind a chunk's capacity
//   STALE              this process has no handle of that chunk. A topic's message that is read in place has none:
//                      zcp_subscriber_keep makes one
//   FORKED, CLOSED     the manager cannot be used
//   READ_ONLY          it was opened with ZCP_OBSERVE
ZEROCP_API zcp_status zcp_chunk_of(zcp_manager *manager, const void *address, zcp_chunk *chunk);

// Returns the handle itself; the source becomes empty.
ZEROCP_API zcp_chunk zcp_chunk_move(zcp_chunk *chunk);

// Gives the handle back; it becomes empty. The last handle of the last process frees the chunk. NULL, an empty handle,
// or one of a closed manager: does nothing. A handle that is not held (a copy of it was released) changes nothing:
// zcp_last_message says so, and the log as an error, at most once a second per manager, with how many were left out.
ZEROCP_API void zcp_chunk_release(zcp_chunk *chunk);

// A handle is valid if its manager is open and this process holds the chunk in the handle's generation.
ZEROCP_API bool zcp_chunk_is_valid(const zcp_chunk *chunk);

// The payload; NULL unless valid. chunk->data is the same without the check.
ZEROCP_API void *zcp_chunk_data(const zcp_chunk *chunk);

// Bytes asked for at allocation, the same in every process; 0 unless valid.
ZEROCP_API uint64_t zcp_chunk_size(const zcp_chunk *chunk);

// Bytes that the pool's chunks have; 0 unless valid.
ZEROCP_API uint64_t zcp_chunk_capacity(const zcp_chunk *chunk);

// The tag given at allocation or by zcp_chunk_set_tag, the same in every process; 0 unless valid and given.
ZEROCP_API uint32_t zcp_chunk_tag(const zcp_chunk *chunk);

// Sets the size that zcp_chunk_size returns from now on, 1 to the capacity: for a chunk that was asked for larger than
// what was written. A reader at this moment sees the old size or the new one.
// Errors:
//   INVALID_ARGUMENT   chunk is NULL
//   INVALID_SIZE       size is 0 or above the capacity
//   STALE              the handle holds nothing
//   READ_ONLY          the manager was opened with ZCP_READ_ONLY_DATA
//   FORKED, CLOSED     the manager cannot be used
ZEROCP_API zcp_status zcp_chunk_set_size(zcp_chunk *chunk, uint64_t size);

// Sets the tag that zcp_chunk_tag returns and zcp_manager_census shows from now on; 0: none. Whoever holds the chunk
// may: of two who do it at once, one tag stays. A message of a topic has the tag that its chunk has when it is
// received.
// Errors:
//   INVALID_ARGUMENT   chunk is NULL
//   STALE              the handle holds nothing
//   READ_ONLY          the manager was opened with ZCP_READ_ONLY_DATA
//   FORKED, CLOSED     the manager cannot be used
// After a failure the tag is as before.
ZEROCP_API zcp_status zcp_chunk_set_tag(zcp_chunk *chunk, uint32_t tag);

// The number of this client's handles, plus one for each other client that holds the chunk (however many handles it
// has); 0 unless valid. Exact when nobody acquires or releases it.
ZEROCP_API uint64_t zcp_chunk_use_count(const zcp_chunk *chunk);

// 64 bits, never 0, that name this chunk and generation in every process; 0 unless valid. A token does not hold the
// chunk: keep the handle until the receiver has acquired. A dead sender's token works until its chunks are reclaimed.
// After 2^32 - 1 more uses of the chunk an old token may match again.
ZEROCP_API uint64_t zcp_chunk_token(const zcp_chunk *chunk);

// Makes a handle for the chunk that a token names. The handle is overwritten, not released; after a failure it is
// empty.
// Errors:
//   INVALID_ARGUMENT   an argument is NULL
//   INVALID_TOKEN      the token names no chunk of this instance
//   STALE              nobody holds the chunk any more, or zcp_chunk_token never returned this token
//   LIMIT              this client holds zcp_manager_desc.max_chunks of them, and not this one
//   CORRUPT            the chunk's record holds garbage
//   FORKED, CLOSED     the manager cannot be used
//   READ_ONLY          it was opened with ZCP_OBSERVE
//   MAPPING, NO_MEMORY, SYSTEM   the chunk's pool was added, and this process cannot map it
ZEROCP_API zcp_status zcp_chunk_acquire(zcp_manager *manager, uint64_t token, zcp_chunk *chunk);

// ZCP_SCOPED zcp_chunk c = {0}; is released when it leaves its scope.
#if defined(__GNUC__)
#define ZCP_SCOPED __attribute__((cleanup(zcp_chunk_release)))
#endif

// ---------------------------------------------------------------------------------------------------------------------
// >>api-topic  Topics: publish to a name, read in place
// ---------------------------------------------------------------------------------------------------------------------
// A publisher gives chunks to a name, and every subscriber of that name reads them in place. A topic exists as long as
// somebody publishes or subscribes to it. Messages of one publisher come in order. Whoever is killed, at whatever
// instruction: no chunk is lost, and what a publisher has published still arrives.
// One object is used by one thread at a time, different objects by different threads. Objects belong to their manager:
// closing it closes them, and in a forked child their calls fail with FORKED. A closed object answers CLOSED until its
// manager, or a later one, uses the object again.
// A program needs this many chunks: for each publisher its depth, one that is being written, and one per subscriber;
// and what subscribers keep.

typedef struct zcp_publisher zcp_publisher;
typedef struct zcp_subscriber zcp_subscriber;

typedef struct zcp_publisher_desc {
    const char *topic;              // 1 to ZCP_MAX_TOPIC_BYTES - 1 bytes, no control character
    // Messages that slow and late subscribers still find, up to ring_cells; 0 = 8, or ring_cells if that is less.
    uint32_t depth;
    uint32_t keep;                  // of these, so many stay for later subscribers, also when all others have read them
    uint32_t timeout_ms;         // how long publish waits for reliable subscribers; 0: not at all, UINT32_MAX: for ever
    bool     exclusive;             // nobody else may publish to the topic while this one lives
    bool     never_waits;           // reliable subscribers are refused: nobody can hold up this topic
} zcp_publisher_desc;

// Errors:
//   INVALID_ARGUMENT  (NULL)
//   INVALID_NAME      the topic is empty, too long, or has a control character
//   INVALID_SIZE      depth above the instance's ring_cells, keep above depth
//   EXISTS            exclusive, and somebody publishes to the topic; somebody does so exclusively; never_waits, and
//                     there is a reliable subscriber
//   FULL              the instance has zcp_config.publishers of them
//   TIMEOUT           5 s: the process that the message names is just opening one, and is stopped
//   READ_ONLY         the manager was opened with ZCP_READ_ONLY_DATA or ZCP_OBSERVE
//   FORKED, CLOSED, NO_MEMORY, SYSTEM
// After a failure *publisher is NULL. Thread-safe.
ZEROCP_API zcp_status zcp_publisher_open(zcp_manager *manager, const zcp_publisher_desc *desc,
                                         zcp_publisher **publisher);

// What was published and not read still arrives. NULL, closed, inherited: nothing.
ZEROCP_API void zcp_publisher_close(zcp_publisher *publisher);

// zcp_chunk_allocate, after taking back what everybody has read. Errors: as zcp_chunk_allocate.
ZEROCP_API zcp_status zcp_publisher_loan(zcp_publisher *publisher, uint64_t size, zcp_chunk *chunk);

typedef struct zcp_delivery {
    uint64_t number;                // of the message, from 1
    uint32_t subscribers;           // that there are
    uint32_t overtaken;             // subscribers that had not read what this message displaced
} zcp_delivery;

// Gives the chunk to all subscribers; the handle was taken over, and is empty. What was written before is seen by
// whoever receives it. delivery may be NULL. No system call while nobody sleeps. After a failure nothing is published,
// and the handle is still the caller's. Errors:
//   INVALID_ARGUMENT  (NULL, or a chunk of another manager)
//   STALE             the handle holds nothing
//   TIMEOUT           a reliable subscriber was not done in time; the message names its pid
//   INTERRUPTED       by zcp_manager_interrupt, while it waited
//   FORKED, CLOSED
ZEROCP_API zcp_status zcp_publisher_publish(zcp_publisher *publisher, zcp_chunk *chunk, zcp_delivery *delivery);

// An event: a message without a chunk, of size 0, whose data is NULL. Errors: as publish.
ZEROCP_API zcp_status zcp_publisher_notify(zcp_publisher *publisher, zcp_delivery *delivery);

typedef struct zcp_subscriber_desc {
    const char *topic;
    // Publishers wait for this one: nothing that comes after it was opened is overwritten before it has read it. Of
    // what was there before (history), some may be.
    bool     reliable;
    bool     latest;        // receive skips to the newest message (those before are told as skipped); not with reliable
    uint32_t history;          // begin with up to so many messages that are there of each publisher; 0: only what comes
    uint32_t spin_us;               // receive polls so long before it sleeps
} zcp_subscriber_desc;

// Messages of a publisher that comes later are received from its first one on. Errors:
//   INVALID_ARGUMENT  (NULL); reliable together with latest, or where somebody publishes who never waits
//   INVALID_NAME, FULL (zcp_config.subscribers), TIMEOUT: as zcp_publisher_open
//   READ_ONLY         the manager was opened with ZCP_OBSERVE
//   FORKED, CLOSED, NO_MEMORY, SYSTEM
// After a failure *subscriber is NULL. Thread-safe.
ZEROCP_API zcp_status zcp_subscriber_open(zcp_manager *manager, const zcp_subscriber_desc *desc,
                                          zcp_subscriber **subscriber);

// Ends the message that it reads. NULL, closed, inherited: nothing.
ZEROCP_API void zcp_subscriber_close(zcp_subscriber *subscriber);

typedef struct zcp_message {
    const void *data;               // in place, until the next receive, done or close; NULL: an event
    uint64_t size;                  // bytes
    uint64_t number;                // of that publisher's messages, from 1
    uint64_t lost;                  // so many were overwritten since the one before
    uint64_t skipped;               // so many were passed over since then, with `latest`
    uint64_t source;                // which publisher: a number that is never used again
    uint32_t publisher;             // its client's slot
    uint32_t tag;                   // the chunk's
} zcp_message;

// Ends the message before, and waits up to timeout_ms (UINT32_MAX: for ever) for the next one. Errors:
//   INVALID_ARGUMENT  (NULL)
//   EMPTY             nothing is there, with timeout_ms 0
//   TIMEOUT           nothing came in time
//   INTERRUPTED       by zcp_manager_interrupt, while it waited
//   MAPPING, NO_MEMORY, SYSTEM, CORRUPT  the message's chunk cannot be reached; it is told once, and counts as lost
//   FORKED, CLOSED
// *message is then zero.
ZEROCP_API zcp_status zcp_subscriber_receive(zcp_subscriber *subscriber, uint32_t timeout_ms, zcp_message *message);

// Ends the message without receiving the next.
ZEROCP_API void zcp_subscriber_done(zcp_subscriber *subscriber);

// A handle of its own for the message that was received: for longer, or to pass on. Errors: INVALID_ARGUMENT (NULL),
// EMPTY (no message is being read, or it is an event), LIMIT (as zcp_chunk_acquire), CORRUPT, FORKED, CLOSED; the
// handle is then empty.
ZEROCP_API zcp_status zcp_subscriber_keep(zcp_subscriber *subscriber, zcp_chunk *chunk);

// Waits until one of them has a message; *ready becomes its index. All are of one manager. Nothing is received, and no
// message ends. Errors: INVALID_ARGUMENT (NULL, 0 of them, or of several managers), EMPTY, TIMEOUT, INTERRUPTED,
// FORKED, CLOSED.
ZEROCP_API zcp_status zcp_subscribers_wait(zcp_subscriber *const *subscribers, uint32_t count, uint32_t timeout_ms,
                                           uint32_t *ready);

// A descriptor for poll, epoll, libuv, asyncio: readable when there may be a message. Then receive, with timeout_ms 0,
// until EMPTY: that arms it again. It is the subscriber's, which closes it. -1: zcp_last_message tells why.
ZEROCP_API int zcp_subscriber_descriptor(zcp_subscriber *subscriber);

// on: all who wait in this manager, for chunks too, and who will, are told INTERRUPTED, until it is taken back (on
// false). Errors: INVALID_ARGUMENT, FORKED, CLOSED. Thread-safe and async-signal-safe.
ZEROCP_API zcp_status zcp_manager_interrupt(zcp_manager *manager, bool on);

typedef struct zcp_topic_entry {    // a publisher or a subscriber
    char     topic[ZCP_MAX_TOPIC_BYTES];        // UTF-8 without control characters
    bool     publisher, reliable;
    bool     ended;                 // its process has closed it or died; it stays until all is read
    bool     latest;                // of a subscriber, as `reliable`
    uint32_t client;                // its slot; ZCP_NO_CLIENT: its entry is garbage
    uint32_t depth, keep;           // of a publisher
    uint64_t source;                // of a publisher: as in its messages; of a subscriber: another such number
    uint64_t messages;              // published; or read, of the publishers that are still there
    uint64_t unread;                // of a publisher: in its ring, and not read by all; of a subscriber: not read by it
    uint64_t lost;                  // by subscribers; or by this one
    uint64_t held;                  // chunks that are in the publisher's ring
    // Of a publisher: the client of a reliable subscriber without which it can publish nothing more; ZCP_NO_CLIENT:
    // nobody holds it up.
    uint32_t waits_for;
    bool     exclusive, never_waits;            // of a publisher
} zcp_topic_entry;

typedef bool zcp_topic_function(const zcp_topic_entry *entry, void *user);       // false: no more. It may call zerocp

// Calls function for each publisher and each subscriber. Figures for people, exact when quiet. Errors:
// INVALID_ARGUMENT, FORKED, CLOSED. Thread-safe.
ZEROCP_API zcp_status zcp_manager_topics(const zcp_manager *manager, zcp_topic_function *function, void *user);

#ifdef __cplusplus
}
#endif
#endif // ZEROCP_H

#if defined(ZEROCP_IMPLEMENTATION) && !defined(ZEROCP_IMPLEMENTED) && !defined(ZCP_PRIV_REFUSED)
#define ZEROCP_IMPLEMENTED

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

// ---------------------------------------------------------------------------------------------------------------------
// >>layout  All that other processes see
// ---------------------------------------------------------------------------------------------------------------------
// One function computes where everything lies, from the configuration; an attaching process computes it again from the
// configuration in the header and compares. So no offset or count is taken from shared memory, except those of added
// pools, which a checksum and the files' sizes confirm.
//
// Management segment:
//       0  header    zcp_priv_header; its bytes 0 to 39 are the same in every layout version
//    4096  slots     max_clients x 128 bytes: zcp_priv_slot
//       .  per pool  list (>>list in zerocp_relptr.h), leases, records; each aligned to 64
//       .            behind management_bytes: the same of each pool that was added later
// Chunk segment: the chunks of each pool, then those of added pools. Lock object: empty; its locks say who lives.
//
// The creator writes everything before state becomes READY; after that only `state` (RETIRED), `locker_pid` and what is
// about pools that come and go change.

// Counts up by one whenever a process of this version and one of the last release could not work on one instance: a
// change of a shared struct, of an offset or size that geometry_compute gives, of the meaning of a bit or word, of who
// may write it when, of a lock byte, or of a limit that lies in the segment. Not for a change in private memory or in
// the code alone. Bytes 0 to 39 of the header, the locks and the values of the state word never change, so that each
// version can recognise and retire every other one. Also add a line to tests/version_test.c and run `make record`. The
// signature finds a forgotten change of structs and limits, the recording one of the geometry or of what words mean.
#define ZCP_PRIV_LAYOUT_VERSION 6u
#define ZCP_PRIV_MAGIC UINT64_C(0x3130504f52455a00)             // "\0ZEROP01", little-endian
#define ZCP_PRIV_BYTE_ORDER UINT32_C(0x01020304)
#define ZCP_PRIV_PAGE 4096u                     // unit of the segments' sizes, whatever the system's page size

// Where everything lies; no padding, because it is compared as bytes.
typedef struct zcp_priv_pool_geometry {
    uint64_t chunk_size, stride, data_offset;   // bytes; data_offset in the chunk segment
    uint64_t list_offset, leases_offset, records_offset;        // in the management segment
    uint32_t chunk_count, alignment, cache_chunks, unused;
} zcp_priv_pool_geometry;

typedef struct zcp_priv_geometry {
    uint64_t management_bytes, chunk_bytes, slots_offset;
    uint32_t max_clients, pool_count, words, record_bytes;      // words: of borrow bits per record
    uint64_t topics_offset;                     // in the management segment: the tables of topics (>>topics)
    uint32_t publishers, subscribers, ring_cells, unused;
    zcp_priv_pool_geometry pools[ZCP_MAX_POOLS];
} zcp_priv_geometry;

_Static_assert(sizeof(zcp_priv_pool_geometry) == 64 && sizeof(zcp_priv_geometry) == 64 + 64 * ZCP_MAX_POOLS,
               "no padding: compared as bytes");

// What changes when pools come and go. slept: a bit for each client that has slept since it attached, which spares a
// waker the walk along all slots.
typedef struct zcp_priv_signals {
    _Atomic uint32_t epoch;                     // counts up with each pool that comes or goes
    uint32_t unused_first;
    _Atomic uint64_t management_end, chunk_end; // up to where the two segments are used, bytes; written under the
                                                // creation lock, like the next two
    _Atomic uint32_t adding;                    // not 0: an adder may have reserved memory behind those ends
    _Atomic uint32_t segments;                  // counts up with each id of the registry that a pool gets
    _Atomic uint32_t topics_epoch;              // counts up when an endpoint comes, ends or goes (>>topics)
    _Atomic uint32_t topics_locker;             // the pid of who opened one last; for messages
    uint64_t unused[3];
    _Atomic uint64_t slept[ZCP_MAX_CLIENTS / 64];
} zcp_priv_signals;

// A pool number: which pool has it, if any. The serial is never used again. An adder writes everything but the phase,
// under the creation lock, while the phase is NONE or GONE. `check` is a checksum of the words before it, which finds
// words that change while they are read, and garbage.
enum { ZCP_PRIV_POOL_NONE = 0, ZCP_PRIV_POOL_LIVE = 1, ZCP_PRIV_POOL_RETIRING = 2, ZCP_PRIV_POOL_GONE = 3 };

typedef struct zcp_priv_pool_slot {
    _Atomic uint64_t state;                     // serial:32 | phase:32; from NONE to LIVE, RETIRING, GONE
    // From here on only of added pools: the geometry describes those of the creation. segment: the registry's id.
    _Atomic uint64_t chunk_size;
    _Atomic uint32_t chunk_count, alignment, cache_chunks, segment;
    _Atomic uint64_t management_offset, data_offset, check;
    uint64_t unused;
} zcp_priv_pool_slot;

_Static_assert(sizeof(zcp_priv_signals) == 192 && sizeof(zcp_priv_pool_slot) == 64, "layout of the header's end");

enum { ZCP_PRIV_BUILDING = 0, ZCP_PRIV_READY = 1, ZCP_PRIV_RETIRED = 2 };      // the state word never goes back

typedef struct zcp_priv_header {
    uint64_t magic;                             // 0: written first, with the next two
    uint32_t byte_order;                        // 8
    _Atomic uint32_t locker_pid;                // 12: who took the creation lock last; for messages
    _Atomic uint32_t state;                     // 16: BUILDING, READY, RETIRED
    uint32_t layout_version;                    // 20
    uint64_t signature;                         // 24
    uint64_t instance_id;                       // 32: random, never 0
    uint64_t chunk_device, chunk_inode;         // 40: the identity of the chunk segment
    uint64_t unused[1];
    zcp_priv_geometry geometry;                 // 64: as created
    zcp_priv_signals signals;
    zcp_priv_pool_slot pools[ZCP_MAX_LIVE_POOLS];
    uint64_t lock_device, lock_inode;           // the identity of the lock object
} zcp_priv_header;

_Static_assert(offsetof(zcp_priv_header, state) == 16 && offsetof(zcp_priv_header, geometry) == 64
                   && offsetof(zcp_priv_header, signals) % 64 == 0 && sizeof(zcp_priv_header) <= ZCP_PRIV_PAGE,
               "layout of the header");

// A client's slot. Whoever holds the slot's lock writes it; wakers write wakes and woken. Anyone reads it, for
// messages; recovery looks at state before it takes the lock, and again after. sleeps, wakes and woken go on counting
// when the slot changes hands.
enum { ZCP_PRIV_SLOT_CLEAN = 0, ZCP_PRIV_SLOT_IN_USE = 1, ZCP_PRIV_SLOT_SWEEPING = 2,
       ZCP_PRIV_SLOT_DRAINING = 3 };            // swept, but for messages that are unread (>>topics)

typedef struct zcp_priv_slot {
    _Atomic uint32_t state, pid;                // IN_USE is stored before the first claim, CLEAN after the last push
    _Atomic uint64_t start;                     // nanoseconds since 1970
    _Atomic uint64_t name[4];                   // 32 bytes, 0-terminated
    _Atomic uint64_t sleeps;                    // count:32 | for what:32; counts up before a thread sleeps (>>wait)
    _Atomic uint32_t wakes, woken;              // all its threads' futex; the count up to which they were woken
    uint64_t unused[8];
} zcp_priv_slot;

_Static_assert(sizeof(zcp_priv_slot) == 128, "layout of a slot");

// The tables of topics (>>topics), behind the client slots; each begins at a multiple of 64 bytes:
//    publishers   publishers x 192 bytes
//    subscribers  subscribers x 128 bytes
//    cursors      publishers x subscribers x 64 bytes: a row for each publisher
//    rings        publishers x ring_cells x 16 bytes; each ring is padded to 64
// A publisher. Writer: its client; its sweeper; and of attention, whoever subscribes, sleeps or leaves. The lower half
// of state is 0 if the entry is free.
typedef struct zcp_priv_topic_publisher {
    _Atomic uint64_t state;                     // serial:32 | phase:16 | client + 1:16
    _Atomic uint32_t attention;                 // counts up: somebody has come, goes to sleep, or has left
    _Atomic uint32_t waits;                     // not 0: it may wait until something is read
    _Atomic uint32_t depth, keep, flags;
    uint32_t unused[9];
    _Atomic uint64_t topic[8];                  // 64 bytes, 0-terminated
    _Atomic uint64_t count;                     // of messages, for who comes later and for people
    uint64_t unused_too[7];
} zcp_priv_topic_publisher;

// A subscriber. Writer: its client; its sweeper; and of armed, who tells the descriptor that there is something.
typedef struct zcp_priv_topic_subscriber {
    _Atomic uint64_t state;                     // as above
    _Atomic uint32_t flags;
    _Atomic uint32_t armed;                     // 1: the descriptor is to be told
    _Atomic uint64_t socket;                    // whose name is made of this; 0: there is no descriptor
    uint64_t unused[5];
    _Atomic uint64_t topic[8];
} zcp_priv_topic_subscriber;

// How far a subscriber has come with a publisher's messages. Writer: the subscriber, and its sweeper.
typedef struct zcp_priv_cursor {
    _Atomic uint64_t serial;                    // of the publisher that this is about; 0: of none
    _Atomic uint64_t head;                      // number of the next message, from 0
    _Atomic uint64_t claim;                     // token of the chunk that is read in place; 0: none
    _Atomic uint64_t lost;                      // messages that were overwritten before they were read
    uint64_t unused[4];
} zcp_priv_cursor;

// A message of a ring. Writer: the publisher, and its sweeper.
typedef struct zcp_priv_cell {
    _Atomic uint64_t token;                     // of the chunk
    _Atomic uint64_t last;                      // lap:32 | size:32, or a code; 0: nothing was ever here
} zcp_priv_cell;

_Static_assert(sizeof(zcp_priv_topic_publisher) == 192 && sizeof(zcp_priv_topic_subscriber) == 128
               && sizeof(zcp_priv_cursor) == 64 && sizeof(zcp_priv_cell) == 16, "layout of the tables of topics");

// Of the lock object, behind the others: who opens a publisher or subscriber holds it.
enum { ZCP_PRIV_LOCK_TOPICS = ZCP_PRIV_LOCK_SLOTS + ZCP_MAX_CLIENTS + 1 };

// What the threads of all clients write for one pool, besides its list and records (>>hints):
//             0  recalls:4             counts up whenever threads are to look up from their work (>>recall)
//             4  waiting:4 woken:4     differ: somebody may sleep until a chunk of this pool is freed (>>wait)
//            12  retiring:4            1: nothing is to be had from this pool any more
//            64  counters of the threads without a lease
//           128  leases, 64 bytes each, one per leaf but at most 64: holder:4 leaf:4 loan:8 allocated:8 freed:8 begun:8
//                holder = client + 1, 0: nobody; loan: hints of that leaf; begun: above allocated while the holder
//                takes a chunk from its cache
// Only the thread that holds the lease writes what follows holder, and the sweep of a dead holder writes leaf and loan.
// The thread reads its own loan here, too, so it checks what the loan names.
#define ZCP_PRIV_MAX_LEASES 64u

typedef struct zcp_priv_lease {
    _Atomic uint32_t holder, leaf;
    _Atomic uint64_t loan, allocated, freed, begun;
    uint64_t unused[3];
} zcp_priv_lease;

typedef struct zcp_priv_leases {
    _Atomic uint32_t recalls, waiting, woken, retiring;
    uint32_t unused[12];
    _Atomic uint64_t allocated, freed, failures, waits, peak;
    _Atomic uint64_t returned, disturbed;       // returned: see >>hints
    uint64_t unused_too[1];
    zcp_priv_lease items[];
} zcp_priv_leases;

_Static_assert(sizeof(zcp_priv_lease) == 64 && sizeof(zcp_priv_leases) == 128, "layout of the leases");

// The record of one chunk (>>record):
//            0  state   generation:32 | owner:11 | ticket:21
//                       owner = client + 1, 0: none; the highest one stands for: retired, never to be had again
//                       ticket 0, owned: no token of this generation was ever made, so nobody may borrow it
//                       ticket 1: a token was made, and nobody has borrowed it; from 2 on: each borrow raises it
//                       the highest 64 tickets: cached by the thread that holds the lease of that number (>>hints)
//                       free: owner and ticket are 0
//            8  size    lease:16 | bytes asked for:48, by the claimer; lease: its number + 1, or 0; at most capacity
//           16  note    tag:32 | birth:32, for people; birth: how many chunks had been allocated before, by the counter
//                       of that lease, or by the pool's own
//           24  borrow  ceil(max_clients / 64) words: bit c: client c holds it as a borrower, or is about to try
//           padded to a multiple of 32
typedef struct zcp_priv_record { _Atomic uint64_t state, size, note, borrow[]; } zcp_priv_record;

_Static_assert(sizeof(zcp_priv_record) == 24 && offsetof(zcp_priv_record, borrow) == 24, "layout of a record");

#define ZCP_PRIV_GENERATION(s) ((uint32_t)((s) >> 32))
#define ZCP_PRIV_OWNER(s)      ((uint32_t)((s) >> 21) & 0x7ff)
#define ZCP_PRIV_TICKET(s)     ((uint32_t)(s) & 0x1fffff)
#define ZCP_PRIV_SIZE(word)    ((word) & ZCP_RELPTR_MAX_OFFSET)
#define ZCP_PRIV_TOKEN_TICKET  1u
#define ZCP_PRIV_CACHED_TICKET 0x1fffc0u        // of lease 0
#define ZCP_PRIV_RETIRED_OWNER 0x7ffu
#define ZCP_PRIV_POOL_SHIFT    27               // index of a chunk in the instance = pool << 27 | index in the pool

_Static_assert(ZCP_PRIV_CACHED_TICKET + ZCP_PRIV_MAX_LEASES == 1u << 21, "a ticket for each lease");
_Static_assert(ZCP_MAX_CHUNKS == UINT32_C(1) << ZCP_PRIV_POOL_SHIFT && ZCP_MAX_POOLS <= 32 && ZCP_MAX_LIVE_POOLS <= 32,
               "an index has 32 bits, and a word a bit per pool");

ZCP_PRIV uint32_t zcp_priv_lease_count(uint32_t leaves) {
    return leaves < ZCP_PRIV_MAX_LEASES ? leaves : ZCP_PRIV_MAX_LEASES;
}

ZCP_PRIV uint64_t zcp_priv_pool_state(uint32_t serial, uint32_t phase) { return (uint64_t)serial << 32 | phase; }

// A figure that differs whenever a shared struct or limit differs.
ZCP_PRIV uint64_t zcp_priv_signature(void) {
    static const uint32_t facts[] = {
        sizeof(zcp_priv_header),
        sizeof(zcp_priv_geometry),
        sizeof(zcp_priv_pool_geometry),
        sizeof(zcp_priv_slot),
        sizeof(zcp_priv_record),
        sizeof(zcp_priv_list_header),
        sizeof(zcp_priv_leaf),
        sizeof(zcp_priv_leases),
        sizeof(zcp_priv_lease),
        offsetof(zcp_priv_lease, loan),
        offsetof(zcp_priv_header, instance_id),
        offsetof(zcp_priv_header, chunk_device),
        offsetof(zcp_priv_geometry, max_clients),
        offsetof(zcp_priv_pool_geometry, chunk_count),
        offsetof(zcp_priv_slot, name),
        offsetof(zcp_priv_record, borrow),
        sizeof(zcp_priv_signals),
        sizeof(zcp_priv_pool_slot),
        offsetof(zcp_priv_lease, freed),
        offsetof(zcp_priv_slot, sleeps),
        offsetof(zcp_priv_signals, slept),
        offsetof(zcp_priv_leases, peak),
        ZCP_MAX_LIVE_POOLS,
        ZCP_MAX_POOLS,
        ZCP_MAX_CLIENTS,
        ZCP_MAX_CHUNKS,
        ZCP_PRIV_PAGE,
        ZCP_PRIV_LOCK_CREATION,
        ZCP_PRIV_LOCK_SLOTS,
        offsetof(zcp_priv_header, lock_device),
        sizeof(zcp_priv_topic_publisher),
        sizeof(zcp_priv_topic_subscriber),
        sizeof(zcp_priv_cursor),
        sizeof(zcp_priv_cell),
        offsetof(zcp_priv_geometry, topics_offset),
        offsetof(zcp_priv_signals, topics_epoch),
        offsetof(zcp_priv_topic_publisher, topic),
        offsetof(zcp_priv_topic_subscriber, topic),
        offsetof(zcp_priv_cursor, claim),
        ZCP_MAX_TOPIC_BYTES,
        ZCP_PRIV_LOCK_TOPICS,
    };
    uint64_t signature = ZCP_PRIV_LAYOUT_VERSION;
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) signature = zcp_priv_mix(signature ^ facts[i]);
    return signature;
}

ZCP_PRIV_SETUP uint32_t zcp_priv_page_size(void) {
    long page = sysconf(_SC_PAGESIZE);
    return page > 0 ? (uint32_t)page : ZCP_PRIV_PAGE;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_pool_check(const zcp_pool_config *pool) {
    if (pool->chunk_size == 0 || pool->chunk_count == 0 || pool->chunk_count > ZCP_MAX_CHUNKS)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0,
                             "a pool of %u chunks of %llu bytes: 1 to %u chunks of 1 byte or more", pool->chunk_count,
                             (unsigned long long)pool->chunk_size, ZCP_MAX_CHUNKS);
    if ((pool->alignment & (pool->alignment - 1)) != 0 || pool->alignment > ZCP_MAX_ALIGNMENT)
        return zcp_priv_fail(ZCP_ERR_INVALID_ALIGNMENT, 0, "alignment %u: a power of two up to %u, or 0 for %u",
                             pool->alignment, ZCP_MAX_ALIGNMENT, ZCP_DEFAULT_ALIGNMENT);
    if (pool->cache_chunks > ZCP_MAX_CACHE_CHUNKS)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "cache_chunks %u: up to %u for each thread", pool->cache_chunks,
                             ZCP_MAX_CACHE_CHUNKS);
    return ZCP_OK;
}

// Up to the records; those begin half a page further on if the leases fill one, so that the first ones are not a page
// from the first leases (>>view tells why).
ZCP_PRIV_SETUP uint64_t zcp_priv_leases_bytes(uint32_t chunk_count) {
    uint32_t shift, leases = zcp_priv_lease_count(zcp_priv_list_leaves(chunk_count, &shift));
    return sizeof(zcp_priv_leases) + leases * sizeof(zcp_priv_lease) + (leases == ZCP_PRIV_MAX_LEASES ? 2048 : 0);
}

// Appends one pool to the geometry; false on overflow.
ZCP_PRIV_SETUP bool zcp_priv_geometry_add(zcp_priv_geometry *geometry, const zcp_pool_config *config) {
    zcp_priv_pool_geometry *pool = &geometry->pools[geometry->pool_count++];
    uint64_t bytes;
    memset(pool, 0, sizeof *pool);
    pool->chunk_size = config->chunk_size;
    pool->chunk_count = config->chunk_count;
    pool->alignment = config->alignment ? config->alignment : ZCP_DEFAULT_ALIGNMENT;
    pool->cache_chunks = config->cache_chunks;
    return zcp_priv_round_up(pool->chunk_size, pool->alignment, &pool->stride)
           && zcp_priv_round_up(geometry->chunk_bytes, pool->alignment > 64 ? pool->alignment : 64, &pool->data_offset)
           && zcp_priv_multiply(pool->stride, pool->chunk_count, &bytes)
           && zcp_priv_add(pool->data_offset, bytes, &geometry->chunk_bytes)
           && zcp_priv_round_up(geometry->management_bytes, 64, &pool->list_offset)
           && zcp_priv_add(pool->list_offset, zcp_mpmc_list_bytes(pool->chunk_count), &pool->leases_offset)
           && zcp_priv_add(pool->leases_offset, zcp_priv_leases_bytes(pool->chunk_count), &pool->records_offset)
           && zcp_priv_add(pool->records_offset, (uint64_t)pool->chunk_count * geometry->record_bytes,
                           &geometry->management_bytes);
}

// Rounds up what the pools take; OVERFLOW if they did not fit, or one of the files would have more than `most` bytes.
ZCP_PRIV_COLD zcp_status zcp_priv_geometry_end(zcp_priv_geometry *geometry, bool fits, uint64_t most) {
    if (fits && zcp_priv_round_up(geometry->management_bytes, ZCP_PRIV_PAGE, &geometry->management_bytes)
        && zcp_priv_round_up(geometry->chunk_bytes, ZCP_PRIV_PAGE, &geometry->chunk_bytes)
        && geometry->management_bytes <= most && geometry->chunk_bytes <= most) return ZCP_OK;
    return zcp_priv_fail(ZCP_ERR_OVERFLOW, 0, "the pools need more than 2^48 bytes");
}

// Bytes of one ring.
ZCP_PRIV uint64_t zcp_priv_ring_bytes(const zcp_priv_geometry *geometry) {
    return ((uint64_t)geometry->ring_cells * sizeof(zcp_priv_cell) + 63) / 64 * 64;
}

// Puts the tables of topics behind what there is. They take whole pages, so that the pools begin where they would
// without them (>>view tells why). Errors: INVALID_SIZE.
ZCP_PRIV_SETUP zcp_status zcp_priv_geometry_topics(zcp_priv_geometry *geometry, const zcp_config *config) {
    geometry->publishers = config->publishers ? config->publishers : ZCP_DEFAULT_PUBLISHERS;
    geometry->subscribers = config->subscribers ? config->subscribers : ZCP_DEFAULT_SUBSCRIBERS;
    geometry->ring_cells = config->ring_cells ? config->ring_cells : ZCP_DEFAULT_RING_CELLS;
    if (geometry->publishers > ZCP_MAX_PUBLISHERS || geometry->subscribers > ZCP_MAX_SUBSCRIBERS
        || geometry->ring_cells > ZCP_MAX_RING_CELLS)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "%u publishers, %u subscribers, %u ring_cells: up to %u, %u, %u",
                             geometry->publishers, geometry->subscribers, geometry->ring_cells, ZCP_MAX_PUBLISHERS,
                             ZCP_MAX_SUBSCRIBERS, ZCP_MAX_RING_CELLS);
    geometry->topics_offset = geometry->management_bytes;
    uint64_t bytes = (uint64_t)geometry->publishers * sizeof(zcp_priv_topic_publisher)
        + (uint64_t)geometry->subscribers * sizeof(zcp_priv_topic_subscriber)
        + (uint64_t)geometry->publishers * geometry->subscribers * sizeof(zcp_priv_cursor)
        + geometry->publishers * zcp_priv_ring_bytes(geometry);
    geometry->management_bytes += (bytes + ZCP_PRIV_PAGE - 1) / ZCP_PRIV_PAGE * ZCP_PRIV_PAGE;
    return ZCP_OK;
}

// Errors: INVALID_ARGUMENT (max_clients, number of pools), those of a pool, INVALID_SIZE (of topics), OVERFLOW.
ZCP_PRIV_SETUP zcp_status zcp_priv_geometry_compute(zcp_priv_geometry *geometry, const zcp_config *config,
                                                    uint32_t max_clients) {
    memset(geometry, 0, sizeof *geometry);
    if (max_clients > ZCP_MAX_CLIENTS)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "max_clients %u: up to %u", max_clients, ZCP_MAX_CLIENTS);
    if (config->pools.size > ZCP_MAX_POOLS)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "%u pools: up to %u", config->pools.size, ZCP_MAX_POOLS);
    geometry->max_clients = max_clients ? max_clients : ZCP_DEFAULT_CLIENTS;
    geometry->words = (geometry->max_clients + 63) / 64;
    geometry->record_bytes = (24 + 8 * geometry->words + 31) / 32 * 32;
    geometry->slots_offset = ZCP_PRIV_PAGE;
    geometry->management_bytes = ZCP_PRIV_PAGE + geometry->max_clients * sizeof(zcp_priv_slot);
    zcp_status topics = zcp_priv_geometry_topics(geometry, config);
    if (topics != ZCP_OK) return topics;
    bool fits = true;
    for (uint32_t p = 0; p < config->pools.size && fits; p++) {
        zcp_status status = zcp_priv_pool_check(&config->pools.items[p]);
        if (status != ZCP_OK) return status;
        fits = zcp_priv_geometry_add(geometry, &config->pools.items[p]);
    }
    return zcp_priv_geometry_end(geometry, fits, ZCP_RELPTR_MAX_OFFSET + 1);
}

// The configuration that a geometry was computed from (alignment 0 comes back as 64). The geometry may be garbage: so
// may the result, but it is safe.
ZCP_PRIV_SETUP void zcp_priv_geometry_config(const zcp_priv_geometry *geometry, zcp_config *config) {
    memset(config, 0, sizeof *config);
    for (uint32_t p = 0; p < geometry->pool_count && p < ZCP_MAX_POOLS; p++) {
        const zcp_priv_pool_geometry *pool = &geometry->pools[p];
        config->pools.items[config->pools.size++] =
            (zcp_pool_config){pool->chunk_size, pool->chunk_count, pool->alignment, pool->cache_chunks};
    }
    config->publishers = geometry->publishers;
    config->subscribers = geometry->subscribers;
    config->ring_cells = geometry->ring_cells;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_config_add(zcp_config *config, const zcp_pool_config *pool) {
    if (!config || !pool) return zcp_priv_fail_plain(ZCP_ERR_INVALID_ARGUMENT);
    zcp_status status = zcp_priv_pool_check(pool);
    if (status != ZCP_OK) return status;
    zcp_config larger = *config;
    zcp_priv_geometry geometry;
    if (!ZCP_VECTOR_PUSH(&larger.pools, *pool))
        return zcp_priv_fail(ZCP_ERR_FULL, 0, "there are %u pools already", config->pools.size);
    status = zcp_priv_geometry_compute(&geometry, &larger, ZCP_MAX_CLIENTS);
    if (status == ZCP_OK) *config = larger;
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_config_add_pool(zcp_config *config, uint64_t chunk_size,
                                                         uint32_t chunk_count) {
    zcp_pool_config pool = {chunk_size, chunk_count, 0, 0};
    return zcp_config_add(config, &pool);
}

// Bytes of the segments that are asked for; 0: config is NULL or cannot be had.
ZCP_PRIV_COLD uint64_t zcp_priv_config_bytes(const zcp_config *config, uint32_t max_clients, bool management,
                                             bool chunk) {
    zcp_priv_geometry geometry;
    if (!config) zcp_priv_fail_plain(ZCP_ERR_INVALID_ARGUMENT);
    if (!config || zcp_priv_geometry_compute(&geometry, config, max_clients) != ZCP_OK) return 0;
    return (management ? geometry.management_bytes : 0) + (chunk ? geometry.chunk_bytes : 0);
}

ZCP_PRIV_SMALL ZEROCP_API uint64_t zcp_config_management_bytes(const zcp_config *config, uint32_t max_clients) {
    return zcp_priv_config_bytes(config, max_clients, true, false);
}

ZCP_PRIV_SMALL ZEROCP_API uint64_t zcp_config_chunk_bytes(const zcp_config *config, uint32_t max_clients) {
    return zcp_priv_config_bytes(config, max_clients, false, true);
}

ZCP_PRIV_SMALL ZEROCP_API uint64_t zcp_config_total_bytes(const zcp_config *config, uint32_t max_clients) {
    return zcp_priv_config_bytes(config, max_clients, true, true);
}

ZCP_PRIV_INLINE bool zcp_priv_same_pool(const zcp_pool_config *a, const zcp_pool_config *b) {
    uint32_t a_alignment = a->alignment ? a->alignment : ZCP_DEFAULT_ALIGNMENT,
             b_alignment = b->alignment ? b->alignment : ZCP_DEFAULT_ALIGNMENT;
    return a->chunk_size == b->chunk_size && a->chunk_count == b->chunk_count && a_alignment == b_alignment
           && a->cache_chunks == b->cache_chunks;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>record  The truth about one chunk: who holds it, in which generation
// ---------------------------------------------------------------------------------------------------------------------
// This code is checked with GenMC as it stands (tests/model).
//
// Every change of holder is one atomic step that names the client, so a killed process never leaves a chunk that nobody
// can account for.
//
// Invariant: the state becomes free only by a CAS (or, of ticket 0, a store) of a thread that has seen no other holder
// since the ticket was last raised. Whoever names a chunk whose ticket is 0 (by guessing, or from the record) cannot
// come to hold it. What would break without the ticket: a reaper sees no borrow bit; a borrower sets its bit and takes
// the chunk; the reaper frees it. Every borrow raises the ticket, so the reaper's CAS fails. The bit is set before, so
// whoever sees the ticket sees the bit.
//
// Of two holders that leave at once, each clears its own mark and then looks for the other's; at least one must see
// that the other is gone. Hence seq_cst on S1 (return, retract and sweep clear the bit), on S2 and S5 (owner and sweep
// leave) and on S3 and S4 (reap loads state and bits).
//
// Labels  word      order    partner      what breaks without it
//   S1    borrow    seq_cst  S2 - S5 L2   of two who leave at once neither sees the other gone: the chunk is lost
//   S3    state     seq_cst  S1 S2 S5 B1  as S1: reap sees the owner still there
//   S4    borrow    seq_cst  S1 S2 S5 B0  as S1: reap sees a borrower still there
//   S5    state     seq_cst  S1 S3 S4     as S1, where a sweep takes the dead owner out
//   F1    state     release  C1 C2 C4     the next claimer writes while a former holder reads; here reap frees
//   F5    state     release  C1 C2 C4     as F1, here a sweep frees
//   C1    state     acq_rel  F1 - F6 U6   acquire: the claimer writes while a former holder reads; release: as U6
//   B0    borrow    relaxed  L2 S4        by B1: who sees the ticket does not see the bit
//   B1    state     release  L1 S3        who sees the ticket does not see the bit: freed while held
//   L2    borrow    acquire  S1 B0        the owner frees while a borrower that has left reads
//   U1    freed     release  U3 U4        a scan misses what was freed and counted before; in the common counters

// Counts of this process's handles of one chunk; private memory.
typedef struct zcp_priv_counts {
    _Atomic uint64_t owned;         // generation:32 | handles as its owner:32
    // Handles as a borrower: 0, n, or CHANGING while a thread changes the record's borrow bit.
    _Atomic uint32_t borrowed;
    _Atomic uint32_t counted;       // 1: it is one of the manager's `held`, or is about to be
} zcp_priv_counts;

#define ZCP_PRIV_CHANGING UINT32_MAX

// One pool as a client sees it. All of it is private, and constant except for the list's cursor, retired, asked and
// announced.
typedef struct zcp_priv_pool {
    unsigned char *records;         // in the management segment
    zcp_priv_counts *counts;        // private
    unsigned char *data;            // in the chunk segment
    uint64_t chunk_size, stride;    // bytes
    uint32_t record_bytes, words, count, alignment, cache_chunks;
    zcp_priv_leases *leases;        // in the management segment, like the next two
    zcp_mpmc_list list;
    zcp_priv_pool_slot *slot; // which tells whether the pool is live; NULL, as signals: a pool that stays for ever
    zcp_priv_signals *signals;
    zcp_manager *manager;           // whose view this is of; NULL as slot
    zcp_priv_slot *slots;           // the clients', so many as there may be; NULL as slot
    uint32_t clients;
    uint32_t number, serial;        // in the instance; serial: different for each pool that the instance ever had
    _Atomic uint32_t retired;       // private: the first so many chunks are retired
    _Atomic uint32_t asked;         // 1: this client, which does not punch, has asked the others to
    bool punches, announced;         // can give the memory of its chunks back to the system; has announced that
} zcp_priv_pool;

// One answer to each question. GARBAGE is an answer to the first three: the record holds what zerocp did not write.
typedef enum zcp_priv_freeing { ZCP_PRIV_STILL_HELD = 0, ZCP_PRIV_FREED } zcp_priv_freeing;
typedef enum zcp_priv_holding { ZCP_PRIV_NOT_HELD = 0, ZCP_PRIV_HELD } zcp_priv_holding;
typedef enum zcp_priv_releasing { ZCP_PRIV_NOT_RELEASED = 0, ZCP_PRIV_RELEASED } zcp_priv_releasing;
#define ZCP_PRIV_GARBAGE 2
typedef enum zcp_priv_dropping { ZCP_PRIV_OTHERS_LEFT = 0, ZCP_PRIV_LAST, ZCP_PRIV_NOT_OWNED } zcp_priv_dropping;
typedef enum zcp_priv_scanning { ZCP_PRIV_NONE_FREE = 0, ZCP_PRIV_CLAIMED, ZCP_PRIV_DISTURBED } zcp_priv_scanning;

#ifndef ZEROCP_COUNT
// Relaxed, all of them: figures for people.
#define ZEROCP_COUNT(counter, n) ((void)zcp_priv_add_relaxed(counter, n))
#endif

// Pairs with U3 and U4.
#ifndef ZEROCP_COUNT_FREED
#define ZEROCP_COUNT_FREED(counter, n) ((void)zcp_priv_add_release(counter, n))                     // U1
#endif

ZCP_PRIV uint64_t zcp_priv_state(uint32_t generation, uint32_t owner, uint32_t ticket) {
    return (uint64_t)generation << 32 | (uint64_t)owner << 21 | ticket;
}

// Of the state of a chunk that it owns and nobody ever borrowed.
ZCP_PRIV uint32_t zcp_priv_owned_bits(uint32_t client) { return (client + 1) << 21; }
ZCP_PRIV bool zcp_priv_is_free(uint64_t s) { return (uint32_t)s == 0; }

// These four exclude each other, and one of them is true of each state, garbage too.
ZCP_PRIV bool zcp_priv_is_retired(uint64_t s) { return ZCP_PRIV_OWNER(s) == ZCP_PRIV_RETIRED_OWNER; }

ZCP_PRIV bool zcp_priv_is_cached(uint64_t s) {
    return ZCP_PRIV_TICKET(s) >= ZCP_PRIV_CACHED_TICKET && !zcp_priv_is_retired(s);
}

ZCP_PRIV bool zcp_priv_is_held(uint64_t s) {
    return !zcp_priv_is_free(s) && !zcp_priv_is_cached(s) && !zcp_priv_is_retired(s);
}

// Held, and a token of it was made. What is free or retired has ticket 0, too.
ZCP_PRIV bool zcp_priv_is_shared(uint64_t s) {
    return ZCP_PRIV_TICKET(s) - 1 < ZCP_PRIV_CACHED_TICKET - 1;                                     // step shared
}

ZCP_PRIV bool zcp_priv_never_borrowed(uint64_t s) {
    return (ZCP_PRIV_TICKET(s) & ~ZCP_PRIV_TOKEN_TICKET) == 0;                                    // step never-borrowed
}

// s, of which a token was made, with that owner and the next ticket, which is 2 or more.
ZCP_PRIV uint64_t zcp_priv_with_ticket(uint64_t s, uint32_t owner) {
    uint32_t ticket = ZCP_PRIV_TICKET(s) + 1;                                                       // step ticket
    if (ticket >= ZCP_PRIV_CACHED_TICKET) ticket = ZCP_PRIV_TOKEN_TICKET + 1;
    return zcp_priv_state(ZCP_PRIV_GENERATION(s), owner, ticket);
}

// Skips 0, too.
ZCP_PRIV uint32_t zcp_priv_next_generation(uint32_t generation) {
    return generation == UINT32_MAX ? 1 : generation + 1;                                         // step new-generation
}

// Of the state of a chunk that a client's thread with that lease caches.
ZCP_PRIV uint32_t zcp_priv_cached_bits(uint32_t client, uint32_t lease) {
    return zcp_priv_owned_bits(client) | (ZCP_PRIV_CACHED_TICKET + lease);
}

// The cached state after it.
ZCP_PRIV uint64_t zcp_priv_cached(uint32_t generation, uint64_t kept_low) {
    return zcp_priv_state(zcp_priv_next_generation(generation), 0, 0) | kept_low;                   // step cached
}

// The free state after it.
ZCP_PRIV uint64_t zcp_priv_freed(uint32_t generation) {
    return zcp_priv_state(zcp_priv_next_generation(generation), 0, 0);
}

ZCP_PRIV zcp_priv_record *zcp_priv_record_at(const zcp_priv_pool *pool, uint32_t i) {
    return zcp_priv_object_at(pool->records, (uint64_t)i * pool->record_bytes);
}

ZCP_PRIV _Atomic uint64_t *zcp_priv_borrow_word(zcp_priv_record *record, uint32_t client) {
    return &record->borrow[0] + client / 64;
}

ZCP_PRIV uint64_t zcp_priv_borrow_bit(uint32_t client) { return UINT64_C(1) << client % 64; }

// Frees the chunk if nobody holds it; its hint is the caller's to give. FREED: this call freed it.
ZCP_PRIV zcp_priv_freeing zcp_priv_reap_record(zcp_priv_pool *pool, uint32_t i) {
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {                                    // step reap-rounds
        // With S1, S2, S5; also after a failed CAS, whose own look has no order.
        uint64_t s = zcp_priv_load_seq_cst(&record->state);                                         // S3
        if (zcp_priv_is_free(s) || ZCP_PRIV_OWNER(s)) return ZCP_PRIV_STILL_HELD;
        for (uint32_t w = 0; w < pool->words; w++)
            // With S1.
            if (zcp_priv_load_seq_cst(&record->borrow[0] + w)) return ZCP_PRIV_STILL_HELD;          // S4
        ZEROCP_STEP("reaping");
        // Passes on what was acquired by S3 and S4; pairs with C1.
        if (zcp_priv_cas_release(&record->state, &s, zcp_priv_freed(ZCP_PRIV_GENERATION(s)))) {     // F1
            ZEROCP_STEP("freed");
            return ZCP_PRIV_FREED;
        }
    }
    return ZCP_PRIV_GARBAGE;
}

// And gives the hint, and counts it.
ZCP_PRIV zcp_priv_freeing zcp_priv_reap(zcp_priv_pool *pool, uint32_t i) {
    zcp_priv_freeing outcome = zcp_priv_reap_record(pool, i);
    if (outcome != ZCP_PRIV_FREED) return outcome;
    zcp_priv_list_push(&pool->list, i);
    ZEROCP_COUNT_FREED(&pool->leases->freed, 1);
    return outcome;
}

// Does it look free? 0: an all-zero record, which nobody wrote.
ZCP_PRIV_INLINE bool zcp_priv_may_claim(zcp_priv_record *record) {
    // A look; C1 decides.
    uint64_t s = zcp_priv_load_relaxed(&record->state);
    return zcp_priv_is_free(s) && s != 0;
}

// Makes a client the owner of a free chunk; owned_bits: the low word of its state then. false: the hint was stale.
ZCP_PRIV_INLINE bool zcp_priv_claim(zcp_priv_record *record, uint32_t owned_bits, uint32_t *generation) {
    // A look; C1 decides.
    uint64_t s = zcp_priv_load_relaxed(&record->state);
    *generation = ZCP_PRIV_GENERATION(s);
    // 0: an all-zero record, which nobody wrote.
    return zcp_priv_is_free(s) && *generation != 0
        // Pairs with F1 - F6 U6.
        && zcp_priv_cas_acq_rel(&record->state, &s, s | owned_bits);                                // C1
}

ZCP_PRIV void zcp_priv_clear(zcp_priv_pool *pool, uint32_t i, uint32_t client) {
    zcp_priv_and_seq_cst(zcp_priv_borrow_word(zcp_priv_record_at(pool, i), client),                 // S1
                         ~zcp_priv_borrow_bit(client));
    ZEROCP_STEP("cleared");
}

// Clears the client's borrow bit and looks whether it was the last mark.
ZCP_PRIV_INLINE zcp_priv_freeing zcp_priv_give_back(zcp_priv_pool *pool, uint32_t i, uint32_t client) {
    zcp_priv_clear(pool, i, client);
    return zcp_priv_reap(pool, i);
}

// Makes the client a borrower of a chunk that somebody holds in that generation, and of which a token was made.
// NOT_HELD: stale, or no token was made.
ZCP_PRIV_INLINE zcp_priv_holding zcp_priv_borrow(zcp_priv_pool *pool, uint32_t i, uint32_t client,
                                                 uint32_t generation) {
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    // Relaxed: travels with B1's release.
    zcp_priv_or_relaxed(zcp_priv_borrow_word(record, client), zcp_priv_borrow_bit(client));         // B0
    ZEROCP_STEP("announced");
    zcp_priv_holding outcome = ZCP_PRIV_GARBAGE;
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {
        // A look; B1 decides.
        uint64_t s = zcp_priv_load_relaxed(&record->state);
        if (ZCP_PRIV_GENERATION(s) != generation || !zcp_priv_is_shared(s)) {                       // step held
            outcome = ZCP_PRIV_NOT_HELD;
            break;
        }
        // Who sees the ticket (L1, S3) sees the bit.
        if (zcp_priv_cas_release(&record->state, &s, zcp_priv_with_ticket(s, ZCP_PRIV_OWNER(s))))   // B1
            return ZCP_PRIV_HELD;                                                                   // step borrowed
    }
    zcp_priv_give_back(pool, i, client);                                                            // step retracted
    return outcome;
}

ZCP_PRIV bool zcp_priv_no_borrower(zcp_priv_pool *pool, zcp_priv_record *record) {
    for (uint32_t w = 0; w < pool->words; w++)
        // Pairs with S1: that borrower's use of the payload is over.
        if (zcp_priv_load_acquire(&record->borrow[0] + w)) return false;                            // L2
    return true;
}

// Takes back what a dead client (or one that closes) holds of one chunk. Idempotent; may be run by several at once and
// be killed half-way. The clear is always a read-modify-write, also where the bit looks right already, as the protocol
// was proven; where the dead one's lock is a join, GenMC finds nothing that depends on it. FREED: it became free.
ZCP_PRIV zcp_priv_freeing zcp_priv_sweep_chunk(zcp_priv_pool *pool, uint32_t i, uint32_t dead) {
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    bool freed = false;
    uint32_t round = 0;
    for (; round < ZCP_PRIV_ROUNDS; round++) {
        // Relaxed: the dead one's lock was taken, which orders its writes before.
        uint64_t s = zcp_priv_load_relaxed(&record->state);
        if (ZCP_PRIV_OWNER(s) != dead + 1) break;
        // Nobody has borrowed this generation: no other holder, as in owner_release.
        if (zcp_priv_never_borrowed(s) || zcp_priv_is_cached(s)) {                              // step sweep-unborrowed
            // pairs with C1
            freed = zcp_priv_cas_release(&record->state, &s, zcp_priv_freed(ZCP_PRIV_GENERATION(s)));  // F5
            if (freed) { ZEROCP_STEP("freed"); break; }
        } else if (zcp_priv_cas_seq_cst(&record->state, &s, zcp_priv_with_ticket(s, 0))) break;     // S5
    }
    ZEROCP_STEP("sweep_disowned");
    // By S1: somebody may have come and gone since, so the look follows in any case.
    zcp_priv_clear(pool, i, dead);                                                                  // step sweep-clear
    zcp_priv_freeing outcome = zcp_priv_reap_record(pool, i);                                       // step sweep-reap
    if (round == ZCP_PRIV_ROUNDS) return ZCP_PRIV_GARBAGE;
    return freed && outcome == ZCP_PRIV_STILL_HELD ? ZCP_PRIV_FREED : outcome;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>hints  Leases, loans, caches and counters: where a thread looks first
// ---------------------------------------------------------------------------------------------------------------------
// A thread takes the hints of a whole leaf of the list on loan, by a lease, and then allocates and releases chunks of
// that leaf without touching the list: each is one read-modify-write, the claim. Only hints are on loan: a thread that
// finds nothing in the list claims what the loans name.
//
// Invariant of loans: the hint of a free chunk is at each instant in its leaf or in a loan, except for a moment with a
// thread that is about to claim the chunk or has just freed it, and while a sweep works on its leaf (if that sweep is
// killed, the next one pushes the hint; if it is stopped, the scan before EXHAUSTED finds the chunk). A loan is written
// before its bits are taken out of the leaf, and the bits are back in the leaf before the loan is cleared. So a chunk
// that is free all the time is found by looking at the leaves, the loans, and the leaves again; unless it moves between
// leaves and loans meanwhile, which the scan covers.
//
// Caches: where the configuration allows it, a thread with a lease keeps chunks that it released on a private stack;
// allocate and release are then plain stores. A cached chunk belongs to its client and has the next generation already,
// so every sweep of that client frees it, and no earlier token or handle leads to it. Taken off the stack, `owned` is
// set first, then the state.
//
// Whoever needs chunks may take them from the cache of a thread that is not about to take one itself
// (zcp_priv_pool_reclaim): it notes the states, raises `recalls`, passes a heavy barrier, and looks at the lease. The
// thread says in its lease that it begins to take, passes a light barrier, and looks at `recalls`. So either the first
// sees that the thread has begun, and leaves it alone; or the thread sees the recall, and gives everything back before
// it takes any. A thread that is stopped after it has begun keeps its stack; nobody waits for it.
//
// Invariant of caches: a chunk on a stack is (g, its client, cached by its lease), and `owned` is 0; or somebody else
// has freed it, by a CAS from exactly that state, which never comes again. What the thread does with it is such a CAS,
// too, except for the stores after it has begun. So `recalls`, `holder`, `begun` and `allocated` of a pool with caches
// are no hints: garbage there, as in a record, may give a cached chunk out twice.
//
// Counters: a thread with a lease counts in its own cache line, all others in the pool's. allocated - freed are in use,
// give or take one for each process that was killed at that instant. The peak is checked when a thread uses more chunks
// than before (or at growing intervals, if others free what it allocates); so it is exact while one thread uses the
// pool, and a lower bound otherwise.
//
// A thread counts a chunk as freed only after its state and hint are written, and a claim publishes what the claimer
// counted before. So whoever sums up `freed` before and after a scan of all records, and finds the same sum, knows that
// no release was finished meanwhile, and sees what was freed before. `returned` counts chunks that become available
// without being freed once more: those out of a cache, and those whose hint a sweep gives.
//
// Labels  word      order    partner      what breaks without it
//   F4    state     release  C1 C2 C4     as F1, here a cache is flushed
//   E0    holder    acquire  E3 E6        the next lessee's loan is overwritten by the previous one's
//   E1    loan      release  E4           the loan is read with the previous leaf, or its chunks are not seen free
//   E2    leaf      acq_rel  P0 Q2 E8     acquire: as P0; release: who sees the leaf empty does not see the loan
//   E3    holder    release  E0           as E0
//   E5    loan      release  E4           who sees a dead client's loan empty does not see its hints in the list
//   E6    holder    release  E0           as E0, after a sweep
//   U2    freed     release  U5           as U1, in a lease's counters
//   U3    freed     acquire  U1           as U1
//   U4    returned  acquire  U1           as U1, of what comes out of a cache
//   U5    freed     acquire  U2           as U2
//   Y1    begun     relaxed  Y4           what the thread is taking another one takes: given out twice
//   Y2    (barrier) light    Y8           as Y1
//   W0    recalls   acquire  W1           (not needed: K0 acquires, too) who sees a recall keeps what retires
//   W6    recalls   acquire  W1           (not needed: as W0) as W0, where a thread begins

// What one thread keeps of one pool; private. All zero: nothing yet, so that the quick ways see a pool without chunks.
typedef struct zcp_priv_local {
    // Copies of the pool's, for the quick ways, of which 64 bits each save instructions there.
    _Alignas(64) unsigned char *records;
    zcp_priv_counts *counts;
    unsigned char *data;
    uint64_t stride, record_bytes, count;
    uint64_t owned_bits;                  // low word of the state of this client's chunks that were never borrowed
    // So many chunks may take the fast release: `count`, or none: without a lease, while its cache pauses, and if
    // `no_fast_path`.
    uint64_t fast_limit;
    _Atomic uint32_t *recalls;      // the pool's
    zcp_priv_lease *lease;          // NULL: none
    uint64_t lease_bits;                  // upper part of the size word: which lease
    uint64_t first, width;          // the loan is of the indices first .. first + width - 1
    uint32_t cached, cache_limit;          // chunks on the stack; as many may be
    uint32_t recalls_seen;          // recalls as it was
    int32_t peak_check_at;          // allocated - freed by this thread; above that it checks for a new peak
    uint16_t cache_pause;                 // releases until chunks are cached again
    uint16_t lease_retry;                 // times until it tries again to get a lease
    uint32_t peak_interval;             // so much higher than now `peak_check_at` gets after a look that found no peak
    zcp_priv_pool *pool;            // which this is about; NULL: none yet
    uint64_t cached_bits;           // low word of the state of chunks in its cache; it has a lease then
    bool no_fast_path;              // with ZCP_CHECKED, and where this process's light barriers are fences (>>pools)
    uint64_t stack[ZCP_MAX_CACHE_CHUNKS]; // generation << 32 | index in the instance, of the chunks that it caches
} zcp_priv_local;

ZCP_PRIV bool zcp_priv_recalled(const zcp_priv_local *local) {
    // Relaxed: local_answer_recall acquires.
    return zcp_priv_load_relaxed(local->recalls) != local->recalls_seen;
}

// Counts chunks that were freed; the counter has one writer.
ZCP_PRIV_INLINE void zcp_priv_bump(_Atomic uint64_t *counter, uint32_t n) {
    // Pairs with U5.
    zcp_priv_store_release(counter, zcp_priv_load_relaxed(counter) + n);                            // U2
}

// Counts up whenever a chunk of the pool comes to be had by all.
ZCP_PRIV uint64_t zcp_priv_freed_sum(const zcp_priv_pool *pool) {
    // Pairs with U1.
    uint64_t sum = zcp_priv_load_acquire(&pool->leases->freed);                                     // U3
    // Pairs with U1.
    sum += zcp_priv_load_acquire(&pool->leases->returned);                                          // U4
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++)
        // Pairs with U2.
        sum += zcp_priv_load_acquire(&pool->leases->items[k].freed);                                // U5
    return sum;
}

// What a counter says, but no more than two years of one event a nanosecond: so that no sum of a pool's counters has
// more than 63 bits, whatever somebody wrote there.
ZCP_PRIV uint64_t zcp_priv_counted(const _Atomic uint64_t *counter) {
    uint64_t n = zcp_priv_load_relaxed(counter);
    return n < UINT64_C(1) << 56 ? n : UINT64_C(1) << 56;
}

ZCP_PRIV uint64_t zcp_priv_allocated(const zcp_priv_pool *pool, uint64_t *freed) {
    uint64_t allocated = zcp_priv_counted(&pool->leases->allocated);
    *freed = zcp_priv_counted(&pool->leases->freed);
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++) {
        *freed += zcp_priv_counted(&pool->leases->items[k].freed);
        allocated += zcp_priv_counted(&pool->leases->items[k].allocated);
    }
    return allocated;
}

// Notes a peak; false: it is none.
ZCP_PRIV bool zcp_priv_raise_peak(zcp_priv_pool *pool, uint64_t used) {
    uint64_t peak = zcp_priv_load_relaxed(&pool->leases->peak);
    if (used > pool->count) used = pool->count;
    for (uint32_t round = 0; used > peak && round < ZCP_PRIV_ROUNDS; round++)
        if (zcp_priv_cas_relaxed(&pool->leases->peak, &peak, used)) return true;
    return false;
}

// By the counters of this thread's lease; below 0 where others freed less than it did.
ZCP_PRIV_INLINE int32_t zcp_priv_in_use(const zcp_priv_local *local) {
    return (int32_t)(uint32_t)(zcp_priv_load_relaxed(&local->lease->allocated)
                               - zcp_priv_load_relaxed(&local->lease->freed));
}

// Always ZCP_OK.
ZCP_PRIV_COLD zcp_status zcp_priv_check_peak(zcp_priv_pool *pool, zcp_priv_local *local) {
    uint64_t freed, allocated = zcp_priv_allocated(pool, &freed);
    bool higher = zcp_priv_raise_peak(pool, allocated > freed ? allocated - freed : 0);
    if (!local) return ZCP_OK;
    local->peak_interval = higher ? 0 : local->peak_interval < 128 ? local->peak_interval * 2 + 1 : 255;
    local->peak_check_at = (int32_t)((uint32_t)zcp_priv_in_use(local) + local->peak_interval);
    return ZCP_OK;
}

// For whoever may have no lease in that pool.
ZCP_PRIV void zcp_priv_count_freed_by(zcp_priv_pool *pool, zcp_priv_local *local) {
    if (local->lease && local->pool == pool) zcp_priv_bump(&local->lease->freed, 1);
    else ZEROCP_COUNT_FREED(&pool->leases->freed, 1);
}

// Sets fast_limit anew, after what it depends on has changed.
ZCP_PRIV void zcp_priv_local_set_fast_limit(zcp_priv_local *local) {
    local->fast_limit = local->no_fast_path || !local->lease || local->cache_pause ? 0 : local->count;
}

#define ZCP_PRIV_LEASE_RETRY 1024

// Gets a lease for the thread, if there is one.
ZCP_PRIV_SETUP void zcp_priv_lease_get(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t client) {
    uint32_t count = zcp_priv_lease_count(pool->list.leaves);
    for (uint32_t k = 0; k < count; k++) {
        zcp_priv_lease *lease = &pool->leases->items[(client + k) % count];
        uint32_t nobody = 0;
        if (zcp_priv_load_relaxed(&lease->holder) != 0
            // Pairs with E3.
            || !zcp_priv_cas_acquire(&lease->holder, &nobody, client + 1)) continue;                // E0
        ZEROCP_STEP("leased");
        // Nothing is cached yet.
        zcp_priv_store_relaxed(&lease->begun, zcp_priv_load_relaxed(&lease->allocated));
        local->lease = lease;
        local->cached_bits = zcp_priv_cached_bits(client, (client + k) % count);
        local->lease_bits = (uint64_t)((client + k) % count + 1) << 48;
        local->peak_check_at = zcp_priv_in_use(local);
        return;
    }
    local->lease_retry = ZCP_PRIV_LEASE_RETRY;
}

ZCP_PRIV void zcp_priv_loan_show(zcp_priv_local *local, uint64_t loan) {
    // Pairs with E4: with its leaf, and the free states of its chunks.
    zcp_priv_store_release(&local->lease->loan, loan);                                              // E1
}

// Relaxed: only this thread writes it; but garbage may name chunks that do not exist.
ZCP_PRIV_INLINE uint64_t zcp_priv_loan_seen(const zcp_priv_local *local) {
    return zcp_priv_load_relaxed(&local->lease->loan);
}

// Puts the hints of a leaf on loan; the loan is empty, or garbage. false: there are none.
ZCP_PRIV_NOINLINE bool zcp_priv_loan_take(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t leaf) {
    _Atomic uint64_t *word = zcp_priv_list_leaf(&pool->list, leaf);
    // A look; E2 decides.
    uint64_t loan, bits = zcp_priv_load_relaxed(word);
    if (bits == 0) return false;
    local->first = leaf << pool->list.leaf_shift;
    local->width = pool->list.capacity - local->first < 1u << pool->list.leaf_shift ? pool->list.capacity - local->first
                                                                                    : 1u << pool->list.leaf_shift;
    // Relaxed: E1 carries it.
    zcp_priv_store_relaxed(&local->lease->leaf, leaf);
    for (uint32_t round = 0; bits != 0 && round < ZCP_PRIV_ROUNDS; round++) {
        loan = bits & zcp_priv_leaf_mask(&pool->list, leaf);
        // No hint is ever in neither.
        zcp_priv_loan_show(local, loan);                                                            // step shown
        ZEROCP_STEP("loan_shown");
        // Pairs with P0 as Q0 does; release: who sees it empty sees the loan.
        if (zcp_priv_cas_acq_rel(word, &bits, 0))                                                   // E2
            return loan != 0;                                                                       // step taken
        bits = zcp_priv_load_relaxed(word);
    }
    zcp_priv_loan_show(local, 0);
    return false;
}

// An index out of the loan, which is refilled if empty, at first from the same leaf. false: no hint in the list.
ZCP_PRIV bool zcp_priv_loan_pop(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t *i) {
    uint32_t leaf = local->width ? (uint32_t)local->first >> pool->list.leaf_shift
                                 // Relaxed: a hint.
                                 : zcp_priv_load_relaxed(&pool->list.cursor);
    uint64_t loan = zcp_priv_loan_seen(local);
    if (leaf >= pool->list.leaves) leaf = 0;
    // Garbage, and so is all above it.
    if (loan != 0 && ZCP_PRIV_UNLIKELY(local->first + zcp_priv_lowest_bit(loan) >= pool->count)) loan = 0;
    if (loan == 0 && !zcp_priv_loan_take(pool, local, leaf)) {
        zcp_priv_walk walk = {leaf, 0, 0, 0};
        bool taken = false;
        while (!taken && zcp_priv_list_next(&pool->list, &walk, &leaf)) taken = zcp_priv_loan_take(pool, local, leaf);
        if (!taken) return false;
    }
    loan = zcp_priv_loan_seen(local);
    if (ZCP_PRIV_UNLIKELY(loan == 0)) return false;
    *i = (uint32_t)local->first + zcp_priv_lowest_bit(loan);
    zcp_priv_loan_show(local, loan & (loan - 1));
    return ZCP_PRIV_LIKELY(*i < pool->count);
}

// Gives loan and lease back.
ZCP_PRIV void zcp_priv_lease_end(zcp_priv_pool *pool, zcp_priv_local *local) {
    if (!local->lease) return;
    uint64_t loan = zcp_priv_loan_seen(local);
    // First, so that at no instant a hint is in neither.
    if (loan) zcp_priv_leaf_put(&pool->list, (uint32_t)local->first >> pool->list.leaf_shift, loan);  // step returned
    ZEROCP_STEP("loan_returned");
    zcp_priv_loan_show(local, 0);                                                                   // step cleared
    // Pairs with E0: its last write.
    zcp_priv_store_release(&local->lease->holder, 0u);                                              // E3
    local->lease = NULL;
    local->width = 0;
    zcp_priv_local_set_fast_limit(local);
}

// After its chunks: their hints are in the list.
ZCP_PRIV void zcp_priv_leases_sweep(zcp_priv_pool *pool, uint32_t dead) {
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++) {
        zcp_priv_lease *lease = &pool->leases->items[k];
        // Relaxed: ordered by the lock.
        if (zcp_priv_load_relaxed(&lease->holder) != dead + 1) continue;
        // Who sees it sees the hints of the sweep.
        zcp_priv_store_release(&lease->loan, 0);                                                    // E5
        ZEROCP_STEP("sweep_loan_cleared");
        // As E3.
        zcp_priv_store_release(&lease->holder, 0u);                                                 // E6
    }
}

// The hint of a chunk that this thread has freed. false: it is not of the leaf on loan.
ZCP_PRIV_INLINE bool zcp_priv_loan_put(zcp_priv_local *local, uint64_t i) {
    uint64_t at = i - local->first;
    ZEROCP_STEP("freed");
    if (ZCP_PRIV_UNLIKELY(at >= local->width)) return false;
    zcp_priv_loan_show(local, zcp_priv_loan_seen(local) | UINT64_C(1) << (at & 63));
    return true;
}

ZCP_PRIV_INLINE void zcp_priv_hint(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t i) {
    if (!zcp_priv_loan_put(local, i)) zcp_priv_list_push(&pool->list, i);
}

ZCP_PRIV_INLINE bool zcp_priv_cache_keeps(const zcp_priv_local *local) {
    return local->cached < local->cache_limit && !zcp_priv_recalled(local);
}

// Puts a chunk on the stack: name is its generation << 32 | its index in the instance.
ZCP_PRIV_INLINE void zcp_priv_cache_put(zcp_priv_local *local, uint32_t cached, uint64_t id) {
    ZEROCP_STEP("cached");
    local->stack[cached] = id;
    local->cached = cached + 1;
}

// Takes it off: cached is not 0.
ZCP_PRIV_INLINE uint64_t zcp_priv_cache_top(zcp_priv_local *local, uint32_t cached) {
    uint64_t id = local->stack[cached - 1];
    local->cached = cached - 1;
    return id;
}

// Says that this thread begins to take so many from its stack; until it has counted them nobody else takes from there.
// false: it does not begin, as somebody may be taking; it has to answer the recall, or to flush, first.
ZCP_PRIV_INLINE bool zcp_priv_cache_begin(zcp_priv_local *local, zcp_priv_lease *lease, uint32_t count) {
    uint64_t allocated = zcp_priv_load_relaxed(&lease->allocated);
    // Pairs with Y4, by the barriers.
    zcp_priv_store_relaxed(&lease->begun, allocated + count);                                       // Y1
    ZEROCP_STEP("beginning");
    // Pairs with Y8.
    ZEROCP_LIGHT_BARRIER();                                                                         // Y2
    if (ZCP_PRIV_LIKELY(!zcp_priv_recalled(local))) return true;                                    // step begin-look
    zcp_priv_store_relaxed(&lease->begun, allocated);
    return false;
}

ZCP_PRIV uint64_t zcp_priv_chunk_id(const zcp_priv_pool *pool, uint32_t i, uint32_t generation) {
    return (uint64_t)generation << 32 | pool->number << ZCP_PRIV_POOL_SHIFT | i;
}

// Gives all that the thread caches to everybody; what somebody has taken from there already is gone.
ZCP_PRIV_COLD void zcp_priv_cache_flush(zcp_priv_pool *pool, zcp_priv_local *local) {
    uint32_t cached = local->cached;
    while (local->cached) {
        uint64_t id = zcp_priv_cache_top(local, local->cached), free = zcp_priv_state((uint32_t)(id >> 32), 0, 0);
        uint64_t kept = free | local->cached_bits;
        uint32_t i = (uint32_t)id & (ZCP_MAX_CHUNKS - 1);
        _Atomic uint64_t *state = &zcp_priv_record_at(pool, i)->state;
        // Pairs with C1.
        if (zcp_priv_cas_release(state, &kept, free)) zcp_priv_hint(pool, local, i);                // F4
    }
    if (cached) ZEROCP_COUNT_FREED(&pool->leases->returned, cached);                                // step flush-counts
}

// Answers a recall: somebody may need chunks, so it flushes, and caches nothing for a while. Whoever calls
// this looks after that whether somebody waits (>>pools), because nobody will remind this thread again.
ZCP_PRIV_SETUP void zcp_priv_local_answer_recall(zcp_priv_pool *pool, zcp_priv_local *local) {
    // Pairs with W1: who sees it sees why.
    local->recalls_seen = zcp_priv_load_acquire(local->recalls);                                    // W0
    if (pool->cache_chunks == 0) return;
    zcp_priv_cache_flush(pool, local);
    local->cache_limit = 0;
    // The 65th release from here caches again.
    local->cache_pause = 65;
    zcp_priv_local_set_fast_limit(local);
}

// Begin, or one release less to wait.
ZCP_PRIV_COLD void zcp_priv_cache_resume(zcp_priv_pool *pool, zcp_priv_local *local) {
    // From a thread without a lease, or with fences for light barriers, nobody could take. relaxed: set at open
    bool may = local->lease && zcp_priv_load_relaxed(&zcp_priv_barriers) >= 0;
    if ((local->cache_pause == 0 || --local->cache_pause == 0) && may
        // Relaxed: after W0, or it answers later.
        && !zcp_priv_load_relaxed(&pool->leases->retiring))
        local->cache_limit = pool->cache_chunks;
    zcp_priv_local_set_fast_limit(local);
}

ZCP_PRIV_INLINE zcp_priv_record *zcp_priv_local_record(const zcp_priv_local *local, uint64_t i) {
    return zcp_priv_object_at(local->records, i * local->record_bytes);
}

// Makes ready what the thread keeps of the pool. Whoever calls this looks after that whether somebody waits, as for
// attend.
ZCP_PRIV_COLD void zcp_priv_local_begin(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t client,
                                        bool no_fast_path) {
    if (!local->lease && (local->lease_retry == 0 || --local->lease_retry == 0))
        zcp_priv_lease_get(pool, local, client);
    local->no_fast_path = no_fast_path;
    if (local->count == 0) {
        local->records = pool->records;
        local->counts = pool->counts;
        local->data = pool->data;
        local->stride = pool->stride;
        local->record_bytes = pool->record_bytes;
        local->owned_bits = zcp_priv_owned_bits(client);
        local->recalls = &pool->leases->recalls;
        // As W0.
        local->recalls_seen = zcp_priv_load_acquire(local->recalls);                                // W6
        local->pool = pool;
        local->count = pool->count;
    }
    // Each time, as it may have got its lease just now.
    if (pool->cache_chunks && local->cache_limit == 0 && local->cache_pause == 0) zcp_priv_cache_resume(pool, local);
    zcp_priv_local_set_fast_limit(local);
}

// Gives back what the thread keeps of the pool.
ZCP_PRIV void zcp_priv_local_end(zcp_priv_pool *pool, zcp_priv_local *local) {
    zcp_priv_cache_flush(pool, local);
    zcp_priv_lease_end(pool, local);
    memset(local, 0, sizeof *local);
}

// ---------------------------------------------------------------------------------------------------------------------
// >>view  The pools as one client sees them: private pointers and numbers, no system calls
// ---------------------------------------------------------------------------------------------------------------------
//
// Labels  word      order    partner      what breaks without it
//   V0    pools     acquire  V1 V6        a sibling follows the pointer before the pool is filled in
//   V4    table     acquire  V5           a sibling reads the table before it is filled in

// What stays of a client's chunks when it is swept, because messages in them are unread (>>topics).
typedef struct zcp_priv_tables zcp_priv_tables;

typedef struct zcp_priv_unread {
    const zcp_priv_tables *tables;
    uint32_t client, publishers;    // publishers: of that client
    uint64_t kept;                  // chunks that stay
} zcp_priv_unread;

// What the threads of one process keep, by their number; number 0 stands for threads without one, and stays zero.
typedef struct zcp_priv_lane { zcp_priv_local pools[32]; } zcp_priv_lane;      // as many as an index can name
#define ZCP_PRIV_NO_POOL 0xffu

// Which pools serve which sizes. Private, and never changed once a view points to it, so that sibling threads may be
// reading it.
typedef struct zcp_priv_table {
    // Chunk size - 1 of the pools that can be allocated from, in that order; then UINT64_MAX.
    uint64_t last[ZCP_MAX_LIVE_POOLS + 1];
    uint32_t order[ZCP_MAX_LIVE_POOLS + 1];     // those pools by chunk size, equal ones by their numbers; then NO_POOL
    uint32_t count;
    // The same pools themselves: their numbers may have become other pools' since.
    zcp_priv_pool *pools[ZCP_MAX_LIVE_POOLS];
} zcp_priv_table;

typedef struct zcp_priv_view {
    _Atomic(const zcp_priv_table *) table;
    uint32_t client, flags;
    _Atomic uint32_t pool_end;                  // one more than the highest number of a pool that was there
    _Atomic uint32_t epoch;                     // of the pools, as far as it was seen
    zcp_priv_signals *signals;                  // NULL: pools neither come nor go
    zcp_priv_lane *lanes;                       // private, ZCP_PRIV_LANES of them
    // NULL: none, or not known here. What one pointed to stays as long as the view.
    _Atomic(zcp_priv_pool *) pools[ZCP_MAX_LIVE_POOLS];
    zcp_priv_pool own[ZCP_MAX_POOLS];           // those of the creation, and the first table
    zcp_priv_table first;
} zcp_priv_view;

// A client's private memory, which begins a page: the lanes, then its counts. A load that follows a store to another
// page, but to the same place in it, waits for that store (4 KiB aliasing: Intel's and AMD's optimization manuals): a
// pair of allocate and release took a tenth longer. So what the first thread needs of the first chunks of the first
// pool lies apart: leases from 0x100 on, counts at 0x480, the lane at 0xb00, the chunks' data at 0, records not where
// the leases are.
#define ZCP_PRIV_LANES_OFFSET  ((0xb00u - sizeof(zcp_priv_lane)) % 4096)       // the first thread is number 1
#define ZCP_PRIV_COUNTS_OFFSET \
    ((ZCP_PRIV_LANES_OFFSET + ZCP_PRIV_LANES * sizeof(zcp_priv_lane) + 4095) / 4096 * 4096 + 0x480)
typedef struct zcp_priv_place { zcp_priv_pool *pool; uint32_t i, generation; } zcp_priv_place;      // of a chunk

// Or gone already.
ZCP_PRIV bool zcp_priv_pool_is_retiring(const zcp_priv_pool *pool) {
    // Relaxed: nothing of it is given out anyway.
    uint64_t state = pool->slot ? zcp_priv_load_relaxed(&pool->slot->state) : 0;
    // One of the two.
    return state - zcp_priv_pool_state(pool->serial, ZCP_PRIV_POOL_RETIRING)
           <= ZCP_PRIV_POOL_GONE - ZCP_PRIV_POOL_RETIRING;
}

ZCP_PRIV_INLINE zcp_priv_pool *zcp_priv_view_pool(const zcp_priv_view *view, uint32_t pool) {
    // Pairs with V1.
    return zcp_priv_load_acquire(&view->pools[pool]);                                               // V0
}

ZCP_PRIV_INLINE const zcp_priv_table *zcp_priv_view_table(const zcp_priv_view *view) {
    // Pairs with V5.
    return zcp_priv_load_acquire(&view->table);                                                     // V4
}

// Makes the table of the pools that can be allocated from.
ZCP_PRIV_SETUP void zcp_priv_table_make(zcp_priv_table *table, const zcp_priv_view *view) {
    uint32_t count = 0;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS && !(view->flags & (ZCP_READ_ONLY_DATA | ZCP_OBSERVE)); p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(view, p);
        if (!pool || !pool->data || zcp_priv_pool_is_retiring(pool)) continue;
        // Insertion by size, stable.
        uint32_t at = count++;
        for (; at > 0 && table->last[at - 1] > pool->chunk_size - 1; at--) {
            table->last[at] = table->last[at - 1];
            table->order[at] = table->order[at - 1];
            table->pools[at] = table->pools[at - 1];
        }
        table->last[at] = pool->chunk_size - 1;
        table->order[at] = p;
        table->pools[at] = pool;
    }
    table->last[count] = UINT64_MAX;
    table->order[count] = ZCP_PRIV_NO_POOL;
    table->count = count;
}

ZCP_PRIV_INLINE zcp_priv_local *zcp_priv_view_local(const zcp_priv_view *view, uint32_t pool) {
    return &view->lanes[zcp_priv_thread].pools[pool];
}

ZCP_PRIV uint64_t zcp_priv_geometry_chunks(const zcp_priv_geometry *geometry) {
    uint64_t chunks = 0;
    for (uint32_t p = 0; p < geometry->pool_count; p++) chunks += geometry->pools[p].chunk_count;
    return chunks;
}

ZCP_PRIV uint64_t zcp_priv_private_bytes(const zcp_priv_geometry *geometry) {
    return ZCP_PRIV_COUNTS_OFFSET + zcp_priv_geometry_chunks(geometry) * sizeof(zcp_priv_counts);
}

// Writes list and records of a fresh pool; everything is free. The memory is zero, and nobody else uses it yet.
// Generations start anywhere, by the salt: tokens of earlier lives are stale.
ZCP_PRIV void zcp_priv_format_pool(void *management, const zcp_priv_pool_geometry *pool, uint32_t record_bytes,
                                   uint64_t salt) {
    zcp_mpmc_list list;
    zcp_mpmc_list_create(&list, zcp_priv_object_at(management, pool->list_offset),
                         zcp_mpmc_list_bytes(pool->chunk_count), pool->chunk_count, true);
    for (uint32_t i = 0; i < pool->chunk_count; i++) {
        uint32_t generation = (uint32_t)(zcp_priv_mix(salt ^ i) >> 32);
        zcp_priv_record *record = zcp_priv_object_at(management, pool->records_offset + (uint64_t)i * record_bytes);
        // Relaxed: the release of READY or LIVE carries it.
        zcp_priv_store_relaxed(&record->state, zcp_priv_state(generation ? generation : 1, 0, 0));
    }
}

ZCP_PRIV_SETUP void zcp_priv_format_pools(void *management, const zcp_priv_geometry *geometry, uint64_t instance_id) {
    for (uint32_t p = 0; p < geometry->pool_count; p++)
        zcp_priv_format_pool(management, &geometry->pools[p], geometry->record_bytes,
                             instance_id ^ (uint64_t)p << ZCP_PRIV_POOL_SHIFT);
}

// A pool as a client sees it; offsets are from management and chunks.
ZCP_PRIV_COLD void zcp_priv_pool_make(zcp_priv_pool *pool, const zcp_priv_pool_geometry *from,
                                      const zcp_priv_geometry *geometry, void *management, void *chunks,
                                      uint32_t client) {
    memset((void *)pool, 0, sizeof *pool);
    pool->records = zcp_priv_object_at(management, from->records_offset);
    pool->data = chunks ? zcp_priv_object_at(chunks, from->data_offset) : NULL;
    pool->chunk_size = from->chunk_size;
    pool->stride = from->stride;
    pool->record_bytes = geometry->record_bytes;
    pool->words = geometry->words;
    pool->count = from->chunk_count;
    pool->alignment = from->alignment;
    pool->cache_chunks = from->cache_chunks;
    pool->leases = zcp_priv_object_at(management, from->leases_offset);
    pool->clients = geometry->max_clients;
    zcp_priv_list_view(&pool->list, zcp_priv_object_at(management, from->list_offset), from->chunk_count);
    // Clients start far apart.
    uint32_t start = (uint32_t)((uint64_t)pool->list.leaves * client / geometry->max_clients) % pool->list.leaves;
    // Relaxed: nobody else has the pool yet.
    zcp_priv_store_relaxed(&pool->list.cursor, start);
}

// A client's view of an instance whose geometry was checked. private_memory: zcp_priv_private_bytes, all zero.
ZCP_PRIV_SETUP void zcp_priv_view_make(zcp_priv_view *view, const zcp_priv_geometry *geometry, void *management,
                                       void *chunks, void *private_memory, uint32_t client, uint32_t flags) {
    memset((void *)view, 0, sizeof *view);
    view->client = client;
    view->flags = flags;
    view->lanes = zcp_priv_object_at(private_memory, ZCP_PRIV_LANES_OFFSET);
    zcp_priv_counts *counts = zcp_priv_object_at(private_memory, ZCP_PRIV_COUNTS_OFFSET);
    for (uint32_t p = 0; p < geometry->pool_count && p < ZCP_MAX_POOLS; p++) {
        zcp_priv_pool *pool = &view->own[p];
        zcp_priv_pool_make(pool, &geometry->pools[p], geometry, management, chunks, client);
        pool->counts = counts;
        pool->number = p;
        pool->serial = 1;
        counts += pool->count;
        // Relaxed, all: nobody else has the view yet.
        zcp_priv_store_relaxed(&view->pools[p], pool);
    }
    zcp_priv_store_relaxed(&view->pool_end, geometry->pool_count);
    zcp_priv_table_make(&view->first, view);
    zcp_priv_store_relaxed(&view->table, &view->first);
}

// The first place in the order whose chunks are large enough; the one of NO_POOL: none, or size is 0.
ZCP_PRIV_INLINE uint32_t zcp_priv_table_fit(const zcp_priv_table *table, uint64_t size) {
    uint32_t at = 0;
    while (table->last[at] < size - 1) at++;
    return at;
}

// The pool at that place, if it may serve what fits best at `first`; else NULL, and so for all later places.
ZCP_PRIV zcp_priv_pool *zcp_priv_view_serving(const zcp_priv_view *view, const zcp_priv_table *table, uint32_t first,
                                              uint32_t at) {
    return at < table->count && (table->last[at] == table->last[first] || (view->flags & ZCP_FALLBACK))
               ? table->pools[at]
               : NULL;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>recall  A recall: what threads keep comes back to everybody
// ---------------------------------------------------------------------------------------------------------------------
// A word in each pool, `recalls`, counts up when each thread shall look up from its work: somebody found no chunk, or
// waits, or the pools have changed. A thread that sees it gives back what it caches, and lets go of retiring pools. A
// thread that frees a chunk looks at `recalls` afterwards, and whoever wants chunks raises it before looking for free
// ones; the barriers (>>barriers in zerocp_shm.h) make one of the two see the other.
//
// Labels  word      order    partner      what breaks without it
//   C3    state     acq_rel  C4           (not needed: C4 has acquired from the same store)
//   C4    state     acquire  F1 - F6 C3   the memory goes back while a former holder reads
//   Y4    begun     relaxed  Y1           as Y1
//   Y5    allocated acquire  Y3           as Y3
//   Y6    state     release  Y0 Y7 F2     (not needed: a part of their release sequences) as F4, for C1 and C2
//   Y8    (barrier) heavy    Y2           as Y1
//   W1    recalls   release  W0 W6        as W0
//   W3    wakes     release  W4           (not needed: as W2) a waiter misses what was freed before the wake
//   W5    waiting   acquire  W2           as W2
//   W8    sleeps    acquire  W7           as W7
//   X1    retired   acquire  X2           the memory goes back while a holder reads, whose end a sibling saw
//   X2    retired   release  X1           as X1
//   A2    (barrier) light    A4 A5        as A1, after any other free
//   A6    (fence)   seq_cst  A6           of two who free the last two chunks neither sees both: it stays
//   K0    (fence)   seq_cst  K1 K2        a thread in a new pool is not told, and misses what retires: it keeps chunks

// Asks those who may give the memory back to do it, once (>>meet). Not under the process's mutex.
ZCP_PRIV_SETUP void zcp_priv_pool_ask(zcp_priv_pool *pool);

// Every thread of every process is to look up from its work in that pool.
ZCP_PRIV void zcp_priv_pool_recall(zcp_priv_pool *pool) {
    // Pairs with W0, W6.
    zcp_priv_add_release(&pool->leases->recalls, 1);                                                // W1
}

// Takes back what threads cache of the pool that are not about to take it themselves, the calling one included. What
// became free has its hint, but nobody is told. Returns how many that were.
ZCP_PRIV_SETUP uint32_t zcp_priv_pool_reclaim(zcp_priv_pool *pool) {
    struct { uint64_t state; uint32_t i; } seen[64];
    uint32_t freed = 0, count = 0;
    for (uint32_t i = 0; i < pool->count || count != 0; count = 0) {
        for (; i < pool->count && count < sizeof seen / sizeof seen[0]; i++) {                      // step reclaim-sees
            // Before W1; Y6 decides.
            uint64_t s = zcp_priv_load_relaxed(&zcp_priv_record_at(pool, i)->state);
            if (!zcp_priv_is_cached(s)) continue;
            seen[count].state = s;
            seen[count++].i = i;
        }
        if (count == 0) break;
        // Who answers the recall after that gives back what was seen.
        zcp_priv_pool_recall(pool);                                                                // step reclaim-wants
        ZEROCP_STEP("reclaiming");
        // Pairs with Y2.
        if (!ZEROCP_HEAVY_BARRIER()) break;                                                         // Y8
        while (count > 0) {
            uint64_t s = seen[--count].state;
            uint32_t k = ZCP_PRIV_TICKET(s) - ZCP_PRIV_CACHED_TICKET;
            // Garbage.
            if (k >= zcp_priv_lease_count(pool->list.leaves)) continue;
            zcp_priv_lease *lease = &pool->leases->items[k];
            // Pairs with Y1, by the barriers.
            uint64_t begun = zcp_priv_load_relaxed(&lease->begun);                                  // Y4
            // Pairs with Y3.
            if ((int64_t)(begun - zcp_priv_load_acquire(&lease->allocated)) > 0) continue;          // Y5
            _Atomic uint64_t *state = &zcp_priv_record_at(pool, seen[count].i)->state;
            uint64_t free = zcp_priv_state(ZCP_PRIV_GENERATION(s), 0, 0);
            // Release, as F4; a part of the release sequence of Y0, Y7 or F2. It fails if the thread was first.
            if (!zcp_priv_cas_release(state, &s, free)) continue;                                   // Y6
            ZEROCP_STEP("freed");
            zcp_priv_list_push(&pool->list, seen[count].i);
            ZEROCP_COUNT_FREED(&pool->leases->returned, 1);
            freed++;
        }
    }
    return freed;
}

ZCP_PRIV bool zcp_priv_somebody_waits(const zcp_priv_pool *pool) {
    // Relaxed: the barrier before; a woken that is too old wakes in vain.
    return zcp_priv_load_relaxed(&pool->leases->waiting) != zcp_priv_load_relaxed(&pool->leases->woken);
}

// Wakes a client's threads if one of them may sleep for that; all of them, because they sleep on one word: each looks
// again, and says anew that it sleeps. `woken` comes last: if this one is killed or stopped, the next one wakes.
ZCP_PRIV_COLD void zcp_priv_wake_client(zcp_priv_slot *slot, uint32_t what) {
    // Pairs with W7: after its W4.
    uint64_t sleeps = zcp_priv_load_acquire(&slot->sleeps);                                         // W8
    uint32_t count = (uint32_t)(sleeps >> 32);
    // Relaxed: only to save wakes.
    if (count == zcp_priv_load_relaxed(&slot->woken) || !(sleeps & what)) return;
    // Pairs with W4: what was freed is seen.
    zcp_priv_add_release(&slot->wakes, 1);                                                          // W3
    ZEROCP_STEP("waking");
    (void)zcp_priv_futex(&slot->wakes, ZCP_PRIV_FUTEX_WAKE, INT32_MAX, NULL, UINT32_MAX);
    // Relaxed: only to save wakes.
    zcp_priv_store_relaxed(&slot->woken, count);                                                    // step woken
}

// Wakes all clients that wait for this pool: all, because one alone might be killed just then. Here, too, `woken` comes
// last.
ZCP_PRIV_COLD void zcp_priv_wake(zcp_priv_pool *pool) {
    // Pairs with W2: with the slot of who waits.
    uint32_t waiting = zcp_priv_load_acquire(&pool->leases->waiting);                               // W5
    if (!pool->signals) return;
    for (uint32_t w = 0; w < pool->words; w++) {
        // Relaxed: after W5.
        uint64_t slept = zcp_priv_load_relaxed(&pool->signals->slept[w]);
        for (; slept != 0; slept &= slept - 1) {
            uint32_t client = w * 64 + zcp_priv_lowest_bit(slept);
            if (client < pool->clients) zcp_priv_wake_client(&pool->slots[client], UINT32_C(1) << pool->number);
        }
    }
    // Relaxed: only to save wakes.
    zcp_priv_store_relaxed(&pool->leases->woken, waiting);                                          // step pool-woken
}

// All chunks are retired: their memory goes back to the system. Idempotent; may be done by several at once.
ZCP_PRIV_SETUP void zcp_priv_pool_empty(zcp_priv_pool *pool) {
    uint64_t retiring = zcp_priv_pool_state(pool->serial, ZCP_PRIV_POOL_RETIRING);
    uintptr_t page = zcp_priv_page_size(), begin = ((uintptr_t)pool->data + page - 1) & ~(page - 1),
              end = (uintptr_t)pool->data + (uintptr_t)(pool->stride * pool->count);
    // Nothing else lies in the last page of an added pool.
    if (pool->serial > 1) end += page - 1;
    end &= ~(page - 1);
    if (!pool->slot || zcp_priv_load_relaxed(&pool->slot->state) != retiring) return;
    // A read-only mapping cannot.
    if (!pool->punches) {
        zcp_priv_pool_ask(pool);
        return;
    }
    if (begin < end) {
        // What is locked is not punched.
        (void)munlock((void *)begin, end - begin);
        if (madvise((void *)begin, end - begin, MADV_REMOVE) != 0) return;
    }
    ZEROCP_STEP("punched");
    if (zcp_priv_cas_acq_rel(&pool->slot->state, &retiring, zcp_priv_pool_state(pool->serial, ZCP_PRIV_POOL_GONE)))
        // Pairs with V2.
        zcp_priv_add_release(&pool->signals->epoch, 1);
}

// Claims what is free of a retiring pool, from where this process has got to. true: all of it is retired.
ZCP_PRIV_COLD bool zcp_priv_pool_claim(zcp_priv_pool *pool) {
    // Between what this one freed and its look: of two who free the last two chunks, one sees both.
    atomic_thread_fence(memory_order_seq_cst);                                                      // A6
    // Pairs with X2: passes on what siblings acquired, who may set it back.
    uint32_t i = zcp_priv_load_acquire(&pool->retired);                                             // X1
    // Each is claimed once: only garbage takes more.
    uint64_t tries = 0, most = (uint64_t)pool->count + ZCP_PRIV_ROUNDS;
    while (i < pool->count && tries < most) {
        _Atomic uint64_t *state = &zcp_priv_record_at(pool, i)->state;
        // As C1, also if another one claimed it.
        uint64_t s = zcp_priv_load_acquire(state);                                                  // C4
        if (zcp_priv_is_retired(s)) { i++; continue; }
        if (!zcp_priv_is_free(s)) break;
        // As C1; release: passes on what was acquired.
        (void)zcp_priv_cas_acq_rel(state, &s, s | (uint64_t)ZCP_PRIV_RETIRED_OWNER << 21);          // C3
        tries++;
    }
    // Pairs with X1.
    zcp_priv_store_release(&pool->retired, i);                                                      // X2
    ZEROCP_STEP("retired");
    return i == pool->count;
}

// The same, and gives its memory back if nothing else is left.
ZCP_PRIV_COLD void zcp_priv_pool_retire(zcp_priv_pool *pool) {
    if (zcp_priv_pool_claim(pool)) zcp_priv_pool_empty(pool);
}

// After something became free: wakes who waits for it; what is retiring is not had again.
ZCP_PRIV void zcp_priv_after_free(zcp_priv_pool *pool) {
    // Pairs with A4, A5.
    zcp_priv_light_barrier();                                                                       // A2
    if (ZCP_PRIV_UNLIKELY(zcp_priv_somebody_waits(pool))) zcp_priv_wake(pool);
    // Relaxed: the barrier before.
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_relaxed(&pool->leases->retiring) != 0)
        && zcp_priv_pool_is_retiring(pool)) zcp_priv_pool_retire(pool);
}

// What the calling thread keeps of a pool is given back if it is of an earlier pool of that number.
ZCP_PRIV_INLINE void zcp_priv_local_switch_pool(zcp_priv_local *local, zcp_priv_pool *pool) {
    if (ZCP_PRIV_UNLIKELY(local->pool != NULL && local->pool != pool)) {
        zcp_priv_pool *before = local->pool;
        zcp_priv_local_end(before, local);
        zcp_priv_after_free(before);
    }
}

// What the calling thread keeps of pools that give out nothing more becomes everybody's: no allocation leads it there
// again. And what is left to do for such pools is done: who has begun it may have been killed, or may not give memory
// back. Not under the process's mutex.
ZCP_PRIV_SETUP void zcp_priv_view_leave_retiring(zcp_priv_view *view) {
    // Between what was learned of pools, and the look which of them retire. Pairs with K1, K2.
    atomic_thread_fence(memory_order_seq_cst);                                                      // K0
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS && zcp_priv_thread; p++) {
        zcp_priv_local *local = zcp_priv_view_local(view, p);
        zcp_priv_pool *pool = local->pool;
        if (!pool || !zcp_priv_pool_is_retiring(pool)) continue;                                   // step retiring-left
        zcp_priv_local_end(pool, local);
        zcp_priv_after_free(pool);
    }
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(view, p);
        if (pool && zcp_priv_pool_is_retiring(pool)) zcp_priv_pool_retire(pool);
    }
}

// What the calling thread caches, of any pool, becomes everybody's. For who is about to sleep.
ZCP_PRIV_SETUP void zcp_priv_view_flush_caches(zcp_priv_view *view) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS && zcp_priv_thread; p++) {
        zcp_priv_local *local = zcp_priv_view_local(view, p);
        zcp_priv_pool *pool = local->pool;
        if (!pool || local->cached == 0) continue;
        zcp_priv_cache_flush(pool, local);
        zcp_priv_after_free(pool);
    }
}

// Every thread of every process is to look up from its work in any pool.
ZCP_PRIV_SETUP void zcp_priv_view_recall_all(zcp_priv_view *view) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(view, p);
        if (!pool) continue;
        zcp_priv_pool_recall(pool);
        // Who sleeps, too.
        if (zcp_priv_somebody_waits(pool)) zcp_priv_wake(pool);
    }
}

// After any chunks became free.
ZCP_PRIV void zcp_priv_view_after_free(zcp_priv_view *view) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(view, p);
        if (pool) zcp_priv_after_free(pool);
    }
}

// What a thread keeps of this client's pools becomes everybody's.
ZCP_PRIV_SETUP void zcp_priv_view_leave(zcp_priv_view *view, uint32_t thread) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_local *local = &view->lanes[thread].pools[p];
        zcp_priv_pool *pool = local->pool;
        if (!pool) continue;
        zcp_priv_local_end(pool, local);
        zcp_priv_after_free(pool);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// >>manager  An attachment: its states, and whether a call may use it
// ---------------------------------------------------------------------------------------------------------------------

// See >>topics, >>publish and >>receive, at the end.
typedef struct zcp_priv_topics zcp_priv_topics;

ZCP_PRIV_SETUP void zcp_priv_topics_sweep_begin(zcp_manager *manager, const zcp_priv_tables *tables,
                                                zcp_priv_unread *unread,
                                                uint32_t client, bool reliable_only, bool untold);

ZCP_PRIV_SETUP bool zcp_priv_topics_sweep_end(zcp_manager *manager, const zcp_priv_tables *tables,
                                              const zcp_priv_unread *unread);
ZCP_PRIV_SETUP bool zcp_priv_topics_drainable(const zcp_manager *manager, uint32_t client);
ZCP_PRIV_SETUP void zcp_priv_topics_leave(zcp_manager *manager);
ZCP_PRIV_SETUP void zcp_priv_topics_close(zcp_manager *manager);
ZCP_PRIV_SETUP void zcp_priv_rings_collect(zcp_manager *manager, bool only_ended);
ZCP_PRIV_SETUP void zcp_priv_rings_announce(zcp_manager *manager);
ZCP_PRIV_SETUP uint64_t zcp_priv_rings_handles(const zcp_manager *manager);

ZCP_PRIV uint64_t zcp_priv_view_sweep_topics(zcp_manager *manager, uint32_t client, bool reliable_only, bool untold,
                                             bool known, bool *garbage, bool *drains);

// The client's name, which anybody may have written, as it may be shown.
ZCP_PRIV_SETUP void zcp_priv_slot_name(const zcp_priv_slot *slot, char name[32]) {
    uint64_t words[4];
    // Relaxed: for people.
    for (int i = 0; i < 4; i++) words[i] = zcp_priv_load_relaxed(&slot->name[i]);
    memcpy(name, words, 31);
    name[31] = 0;
    zcp_priv_text_clean(name, '/');
}

// The last look at a pool and those that serve with it. Sibling threads share it. until: no dead are looked for before
// that, ns; freed: freed_sum at the last look that was not disturbed, plus what tells which pools those were.
typedef struct zcp_priv_last_scan { _Atomic uint32_t busy, cached; _Atomic uint64_t until, freed; } zcp_priv_last_scan;

// Why a pool that was added cannot be used here. Written under the process's mutex, under which `why` is read, too.
typedef struct zcp_priv_unmet {
    _Atomic uint32_t status;                    // ZCP_OK: it can
    zcp_priv_failure why;
} zcp_priv_unmet;

enum {
    ZCP_PRIV_OPEN = 0x4f50454e,
    ZCP_PRIV_CLOSED = 0x434c4f53,
    ZCP_PRIV_OPENING = 0x42555359,
    ZCP_PRIV_CLOSING = 0x454e4453
};

struct zcp_manager {
    zcp_priv_wiped wiped;                       // a forked child finds all of this zero: state 0
    _Atomic uint32_t state;                     // 0: forked; OPENING, OPEN, CLOSING, CLOSED
    uint32_t outstanding;                       // 1: handles were left at close: it is used again late
    zcp_manager *older;                         // in the process's list, under its mutex, like the two numbers
    zcp_manager *itself;                        // for calls that take a const one, but may have to renew it
    uint64_t opened, closed;                    // counted per process
    _Atomic uintptr_t live;                     // while OPEN, and without max_chunks: opened; else 0
    zcp_priv_view view;
    zcp_priv_last_scan scans[ZCP_MAX_LIVE_POOLS];  // by the number of the first pool that serves
    // When the log may tell again of a release of what is not held, in ns; how many it has left out since.
    _Atomic uint64_t release_logged_until;
    _Atomic uint32_t releases_unlogged;
    zcp_registry registry;
    zcp_priv_geometry geometry;                 // private, checked copy
    zcp_priv_header *header;                    // = management.base
    zcp_priv_lock slot_lock;                    // of the lock object: the client lives as long as this is held
    zcp_priv_lock management;                   // the mapping of the management segment, and what observers see
    void *chunks, *private_memory;              // the mapping of the chunk segment; lanes and counts (>>view)
    size_t private_bytes;
    zcp_priv_file file, chunk_file, locks;      // to be opened again, or used as they are where that cannot be done
    _Atomic uint32_t creating, sweeping;        // 1: a thread holds the creation byte, or a slot's, by locks.fd
    _Atomic uint32_t opening;                   // the same of the topics' byte
    _Atomic uint32_t interrupted;               // 1: nobody waits in this manager
    _Atomic(struct zcp_priv_topics *) topics;   // its publishers and subscribers; NULL: it never had any
    _Atomic bool unswept;                       // the last recovery failed
    zcp_priv_failure why_unswept;               // and why; under the process's mutex
    struct zcp_priv_grown *grown;               // what was mapped since; under the process's mutex, as the next two
    uint32_t grown_count;
    uint64_t grown_bytes;
    zcp_priv_unmet unmet[ZCP_MAX_LIVE_POOLS];   // by number
    _Atomic uint64_t meet_again;                // when what is unmet is tried again, in ns; 0: all is met
    uint64_t instance_id;
    char name[ZCP_PRIV_PATH_BYTES];
    uint32_t max_chunks;                        // 0: any number
    _Atomic uint32_t held;                      // chunks that are `counted`, with max_chunks
};

// What a client maps for a pool that was added, or needs for a new table; it stays until close.
typedef struct zcp_priv_grown {
    struct zcp_priv_grown *next;
    size_t bytes, management_bytes, data_bytes; // bytes: of this, with the counts
    void *management, *data;
    uint64_t management_end, data_end;          // of these in their files
    uint16_t segment;                           // of data in the registry; 0: none
    bool tabled;                                // table is in use, or was, for ever
    zcp_priv_pool pool;
    zcp_priv_table table;
    zcp_priv_counts counts[];                   // of the pool's chunks
} zcp_priv_grown;

static _Atomic uint64_t zcp_priv_serial;        // numbers opens and closes of this process

ZCP_PRIV_COLD zcp_priv_slot *zcp_priv_slot_at(const zcp_manager *manager, uint32_t slot) {
    return zcp_priv_object_at(manager->management.base, manager->geometry.slots_offset + slot * sizeof(zcp_priv_slot));
}

ZCP_PRIV_COLD zcp_status zcp_priv_fail_null(const char *what) {
    return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "the %s is NULL", what);
}

ZCP_PRIV_COLD zcp_status zcp_priv_why_unusable(const zcp_manager *manager) {
    if (!manager) return zcp_priv_fail_null("manager");
    return zcp_priv_fail_plain(zcp_priv_load_relaxed(&manager->state) == 0 ? ZCP_ERR_FORKED : ZCP_ERR_CLOSED);
}

ZCP_PRIV_INLINE bool zcp_priv_usable(const zcp_manager *manager) {
    // Relaxed: calls that overlap open or close are the caller's error.
    return manager && zcp_priv_load_relaxed(&manager->state) == ZCP_PRIV_OPEN;
}

// Clears the place for what a look at it tells, and says whether it may be used.
ZCP_PRIV_COLD zcp_status zcp_priv_may_read(const zcp_manager *manager, const char *what, void *place, size_t bytes) {
    if (!place) return zcp_priv_fail_null(what);
    memset(place, 0, bytes);
    return zcp_priv_usable(manager) ? ZCP_OK : zcp_priv_why_unusable(manager);
}

// May it be used, and for more than looking?
ZCP_PRIV_SETUP zcp_status zcp_priv_may_change(const zcp_manager *manager) {
    if (!zcp_priv_usable(manager)) return zcp_priv_why_unusable(manager);
    if (manager->view.flags & ZCP_OBSERVE)
        return zcp_priv_fail(ZCP_ERR_READ_ONLY, 0, "%s: this client attached with ZCP_OBSERVE", manager->name);
    return ZCP_OK;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_may_grow(const zcp_manager *manager) {
    if (!(manager->view.flags & ZCP_READ_ONLY_DATA)) return ZCP_OK;
    return zcp_priv_fail(ZCP_ERR_READ_ONLY, 0, "%s: this client attached with ZCP_READ_ONLY_DATA", manager->name);
}

// The last so many managers that were closed while handles of them were left are not used again.
#define ZCP_PRIV_LATE_MANAGERS 64u

// A place for one more manager, where none ever was: in a forked child the parent's managers stay what they are. NULL:
// no memory.
ZCP_PRIV_SETUP zcp_manager *zcp_priv_manager_place(zcp_priv_process *process) {
    static zcp_manager room[2 * ZCP_PRIV_LATE_MANAGERS];
    // Under the process's mutex.
    static size_t next, end;
    if (end == 0) zcp_priv_wiped_among(room, sizeof room[0], sizeof room / sizeof room[0], &next, &end);
    return (zcp_manager *)zcp_priv_wiped_new(process, next < end ? &room[next++] : NULL, sizeof room[0]);
}

// Takes a closed manager for reuse, else adds a fresh one to the list; its state is OPENING. NULL: no memory.
ZCP_PRIV_SETUP zcp_manager *zcp_priv_manager_new(void) {
    zcp_priv_process *process = zcp_priv_process_lock();
    if (!process) return NULL;
    // Those that were closed first, without and with handles left.
    zcp_manager *best = NULL, *late = NULL;
    uint32_t lates = 0;
    for (zcp_manager *m = (zcp_manager *)process->managers; m; m = m->older) {
        if (zcp_priv_load_relaxed(&m->state) != ZCP_PRIV_CLOSED) continue;
        zcp_manager **first = m->outstanding ? &late : &best;
        if (!*first || m->closed < (*first)->closed) *first = m;
        lates += m->outstanding;
    }
    if (!best && lates > ZCP_PRIV_LATE_MANAGERS) best = late;
    if (!best && (best = zcp_priv_manager_place(process)) != NULL) {
        best->older = (zcp_manager *)process->managers;
        process->managers = best;
    }
    if (best) {
        memset((char *)best + offsetof(zcp_manager, opened), 0, sizeof *best - offsetof(zcp_manager, opened));
        best->itself = best;
        // 1 is nobody's (>>thread).
        best->opened = zcp_priv_add_relaxed(&zcp_priv_serial, 1) + 2;
        best->file.fd = best->chunk_file.fd = best->locks.fd = -1;
        zcp_priv_store_relaxed(&best->state, (uint32_t)ZCP_PRIV_OPENING);
    }
    zcp_priv_process_unlock(process);
    return best;
}

// Frees what a manager has mapped; the object stays, closed, for late handles.
ZCP_PRIV_SETUP void zcp_priv_manager_end(zcp_manager *manager, bool outstanding) {
    if (manager->chunks) munmap(manager->chunks, (size_t)manager->geometry.chunk_bytes);
    if (manager->private_memory) munmap(manager->private_memory, manager->private_bytes);
    for (zcp_priv_grown *g = manager->grown, *next; g; g = next) {
        next = g->next;
        if (g->segment) zcp_registry_remove(&manager->registry, g->segment);
        if (g->data) munmap(g->data, g->data_bytes);
        if (g->management) munmap(g->management, g->management_bytes);
        munmap(g, g->bytes);
    }
    zcp_priv_lock_drop(&manager->management);
    // Last: nothing of it can be touched any more.
    zcp_priv_lock_drop(&manager->slot_lock);
    zcp_priv_process *process = zcp_priv_process_lock();
    manager->grown = NULL;
    manager->grown_count = 0;
    manager->grown_bytes = 0;
    zcp_priv_file_forget(&manager->file);
    zcp_priv_file_forget(&manager->chunk_file);
    zcp_priv_file_forget(&manager->locks);
    manager->chunks = manager->private_memory = manager->header = NULL;
    manager->outstanding = outstanding;
    zcp_priv_topics_leave(manager);
    manager->closed = zcp_priv_add_relaxed(&zcp_priv_serial, 1);
    zcp_priv_store_relaxed(&manager->state, (uint32_t)ZCP_PRIV_CLOSED);
    zcp_priv_process_unlock(process);
}

// ---------------------------------------------------------------------------------------------------------------------
// >>thread  A thread's number and its most recent pool
// ---------------------------------------------------------------------------------------------------------------------
// A thread gets a number when it first needs one, and gives it back when it ends, with all that it keeps of any
// manager: by the destructor of a pthread key. After that (in destructors of other keys) it works without a number, and
// keeps nothing. A thread that needs a number for the first time in the last round of destructors keeps it when it
// ends; the next thread that finds no number or no lease takes such numbers back, and so do recovery, the scan before
// EXHAUSTED, and the statistics.
//
// The most recent pool is the one that the thread allocated from last, for which manager and which sizes: that pool and
// its chunks are found in a few steps, anything else by the tables.
//
// Invariant of the recent pool: the table that it was taken from is not older than recalls_seen of that pool; so a
// thread that sees `recalls` unchanged sees that this still holds. Whoever may set recalls_seen forgets the recent
// pool, and so does a thread that gives its number back.
//
// Labels  word      order    partner      what breaks without it
//   N0    threads   acquire  N1 N2        the next thread of that number finds things half given back
//   N1    threads   release  N0           as N0
//   N2    threads   release  N0           nothing: nothing was kept

typedef struct zcp_priv_recent {
    uintptr_t live;                 // of the manager; 1: of none, so the rest is not looked at
    uint64_t least, span;           // sizes of least .. least + span
    zcp_priv_local *local;          // what this thread keeps of the pool
    uint64_t base;                  // index of the pool's first chunk in the instance
} zcp_priv_recent;

static ZEROCP_THREAD_LOCAL zcp_priv_recent zcp_priv_last = {1, 0, 0, NULL, 0};
ZCP_PRIV_INLINE void zcp_priv_forget(void) { if (zcp_priv_last.live != 1) zcp_priv_last.live = 1; }
static pthread_once_t zcp_priv_thread_once = PTHREAD_ONCE_INIT;
static pthread_key_t zcp_priv_thread_key;
enum { ZCP_PRIV_KEY_NONE, ZCP_PRIV_KEY_MADE, ZCP_PRIV_KEY_GONE };

// Of the key. Whoever uses the key looks at this under key_mutex.
static _Atomic int zcp_priv_key_state;

// This thread's thread_end has come.
static ZEROCP_THREAD_LOCAL bool zcp_priv_thread_ended;

// What a thread keeps becomes everybody's, and its number free. Under the process's mutex, as close changes a manager's
// state: so the two never free the same chunk.
ZCP_PRIV_SETUP void zcp_priv_thread_leave(zcp_priv_process *process, uint32_t thread) {
    for (zcp_manager *m = (zcp_manager *)process->managers; m; m = m->older)
        // acquire: pairs with open's release
        if (zcp_priv_load_acquire(&m->state) == ZCP_PRIV_OPEN) zcp_priv_view_leave(&m->view, thread);
    // relaxed: looked at under the mutex. Before N1, since the next thread of the number stores its own.
    zcp_priv_store_relaxed(&process->tids[thread], 0u);
    // Pairs with N0.
    zcp_priv_and_release(&zcp_priv_threads, ~(UINT64_C(1) << thread));                              // N1
}

// The destructor of the key: called when a thread ends, with its number.
ZCP_PRIV_SETUP void zcp_priv_thread_end(void *number) {
    zcp_priv_process *process = zcp_priv_process_lock();
    // A later destructor of this thread may use chunks.
    zcp_priv_thread = 0;
    zcp_priv_thread_ended = true;
    zcp_priv_forget();
    if (process) zcp_priv_thread_leave(process, (uint32_t)(uintptr_t)number);
    zcp_priv_process_unlock(process);
}

// Does the kernel answer with that error if a lock of that owner is wanted?
ZCP_PRIV_SETUP bool zcp_priv_owner_is(uint32_t tid, int error) {
    enum { TRYLOCK_PI_PRIVATE = 8 | 128 };
    _Atomic uint32_t word = tid;
    return zcp_priv_futex(&word, TRYLOCK_PI_PRIVATE, 0, NULL, 0) != 0 && errno == error;
}

// Has this thread of the process ended? tgkill tells it a moment after somebody has joined the thread; of the owner of
// a lock the kernel tells it before.
ZCP_PRIV_SETUP bool zcp_priv_thread_is_gone(uint32_t tid, bool knows_owners) {
    if (syscall(SYS_tgkill, getpid(), tid, 0) != 0 && errno == ESRCH) return true;
    return knows_owners && zcp_priv_owner_is(tid, ESRCH);
}

// Takes back what threads kept that have ended without thread_end. true: there were such. Waits for a sibling that
// opens or closes, but not if `hurry`.
ZCP_PRIV_SETUP bool zcp_priv_threads_collect(bool hurry) {
    bool found = false;
    zcp_priv_process *process = zcp_priv_process_get();
    // Relaxed: a look.
    uint64_t others = zcp_priv_load_relaxed(&zcp_priv_threads);
    others &= ~(UINT64_C(1) << zcp_priv_thread | 1);
    if (others == 0 || !process) return false;
    if (!hurry) pthread_mutex_lock(&process->mutex);
    else if (pthread_mutex_trylock(&process->mutex) != 0) return false;
    uint32_t own = (uint32_t)syscall(SYS_gettid);
    // The caller is known if the kernel can tell. An emulator may get the bytes of the word in the wrong order.
    bool knows_owners = zcp_priv_owner_is(own, EDEADLK);
    for (; others; others &= others - 1) {
        uint32_t thread = zcp_priv_lowest_bit(others);
        // relaxed: if it is not 0, it stays, since thread_end of that thread needs the mutex
        uint32_t tid = zcp_priv_load_relaxed(&process->tids[thread]);
        // With the caller's own tid, that of another number is a thread before it, that is gone.
        if (tid == 0 || (tid != own && !zcp_priv_thread_is_gone(tid, knows_owners))) continue;
        // All that it wrote happened before: the kernel says that it is gone, as it says it of a dead client.
        zcp_priv_thread_leave(process, thread);
        found = true;
    }
    zcp_priv_process_unlock(process);
    return found;
}

ZCP_PRIV_SETUP void zcp_priv_process_begin(void) {
    int none = ZCP_PRIV_KEY_NONE;
    zcp_priv_process_unlock(zcp_priv_process_lock());
    bool made = pthread_key_create(&zcp_priv_thread_key, zcp_priv_thread_end) == 0;
    // release: with the key; pairs with the acquire in expect_end. It fails once thread_key_drop has come.
    if (made && !zcp_priv_cas_release(&zcp_priv_key_state, &none, ZCP_PRIV_KEY_MADE))
        pthread_key_delete(zcp_priv_thread_key);
    zcp_priv_barriers_register();
}

#if defined(__GNUC__)
// A library that holds this code may be unloaded before its threads end; and when a process ends, somebody else may get
// the key. Threads that begin from here on work without a number.
__attribute__((destructor)) ZCP_PRIV void zcp_priv_thread_key_drop(void) {
    zcp_priv_process *process = zcp_priv_process_get();
    // acquire: pairs with process_begin's release; release is not needed
    int state = zcp_priv_exchange_acq_rel(&zcp_priv_key_state, ZCP_PRIV_KEY_GONE);
    if (state != ZCP_PRIV_KEY_MADE || !process) return;
    // Whoever has seen it made is done with it.
    pthread_mutex_lock(&process->key_mutex);
    pthread_key_delete(zcp_priv_thread_key);
    pthread_mutex_unlock(&process->key_mutex);
}
#endif

// Sees to it that thread_end comes for that number. false: it does not.
ZCP_PRIV_SETUP bool zcp_priv_thread_expect_end(zcp_priv_process *process, uint32_t thread) {
    pthread_mutex_lock(&process->key_mutex);
    // acquire: pairs with process_begin's release
    bool set = zcp_priv_load_acquire(&zcp_priv_key_state) == ZCP_PRIV_KEY_MADE
        && pthread_setspecific(zcp_priv_thread_key, (void *)(uintptr_t)thread) == 0;
    pthread_mutex_unlock(&process->key_mutex);
    return set;
}

// What the kernel calls this thread, as far as it was asked for before. In a forked child the page's pid is another one
// or 0, so what the parent's thread was called does not count there.
typedef struct zcp_priv_self { uint32_t pid, tid; } zcp_priv_self;

static ZEROCP_THREAD_LOCAL zcp_priv_self zcp_priv_self_known;

// Asks, so that the first allocate of a thread that opens makes no system call for it.
ZCP_PRIV_SETUP void zcp_priv_self_ask(void) {
    zcp_priv_process *process = zcp_priv_process_get();
    uint32_t pid = (uint32_t)getpid();
    // Relaxed: all store the same.
    if (process) zcp_priv_store_relaxed(&process->pid, pid);
    zcp_priv_self_known = (zcp_priv_self){pid, (uint32_t)syscall(SYS_gettid)};
}

ZCP_PRIV_SETUP uint32_t zcp_priv_self_tid(const zcp_priv_process *process) {
    // Relaxed: it never becomes another one.
    uint32_t pid = zcp_priv_load_relaxed(&process->pid);
    return pid != 0 && pid == zcp_priv_self_known.pid ? zcp_priv_self_known.tid : (uint32_t)syscall(SYS_gettid);
}

// Gives the calling thread a number, unless 63 others have one, or it is at its end: then it works without.
ZCP_PRIV_SETUP void zcp_priv_thread_begin(void) {
    zcp_priv_process *process = zcp_priv_process_get();
    // A look; N0 decides.
    uint64_t taken = zcp_priv_load_relaxed(&zcp_priv_threads);
    if (zcp_priv_thread_ended || !process) return;
    // relaxed: expect_end looks again
    if (zcp_priv_load_relaxed(&zcp_priv_key_state) != ZCP_PRIV_KEY_MADE) return;
    if (taken == UINT64_MAX && zcp_priv_threads_collect(true)) taken = zcp_priv_load_relaxed(&zcp_priv_threads);
    while (taken != UINT64_MAX) {
        uint32_t thread = zcp_priv_lowest_bit(~taken);
        if (!zcp_priv_cas_acquire(&zcp_priv_threads, &taken, taken | UINT64_C(1) << thread)) continue;  // N0
        if (zcp_priv_thread_expect_end(process, thread)) {
            zcp_priv_thread = thread;
            // relaxed: whoever collects finds it, or leaves the number alone
            zcp_priv_store_relaxed(&process->tids[thread], zcp_priv_self_tid(process));
        // As N1.
        } else zcp_priv_and_release(&zcp_priv_threads, ~(UINT64_C(1) << thread));                   // N2
        return;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// >>meet  A client learns which pools have come and gone
// ---------------------------------------------------------------------------------------------------------------------
// Each pool has a number below ZCP_MAX_LIVE_POOLS and a serial of its own. The header's slot of the number tells which
// pool has it, and its phase: NONE, LIVE, RETIRING, GONE (>>pools draws it). The parts of an added pool lie behind what
// the two files had before; each client maps them when it first meets the pool. The epoch counts up with each change;
// whoever looks for a pool in vain, allocates by the slow path, or looks at the instance, compares it.
//
// All of this happens under the process's mutex; nothing is logged under it, because whoever receives the line may call
// zerocp.
//
// A client that may only read the chunks cannot give their pages back: it asks, as a retirer tells, and the next client
// that works, looks or waits does it. Both raise `recalls` of all pools, also of those that others add at that moment:
// a thread that begins in a pool then looks which pools retire. Whoever tells first makes a pool RETIRING (whoever asks
// finds it empty), then looks at all numbers. By the fences K0 to K2 the thread sees what retires, or the other one
// knows of its pool.
//
// Labels  word      order    partner      what breaks without it
//   V1    pools     release  V0           as V0
//   V2    epoch     acquire  each add     a change that was counted is not seen, and not looked for again
//   V3    state     acquire  V7           what a slot says of its pool is older than LIVE
//   V5    table     release  V4           as V4
//   V6    pools     release  V0           nothing: NULL shows nothing
//   V8    slot      acquire  V9           what a slot says of a later pool is taken for garbage
//   A5    (barrier) heavy    A1 A2 A3     as A1, for who retires a pool
//   K1    (fence)   seq_cst  K0           as K0, for who announces that a pool retires
//   K2    (fence)   seq_cst  K0           as K0, for who asks for an empty pool's memory to be given back

// What a slot says of an added pool.
typedef struct zcp_priv_added {
    zcp_pool_config config;
    uint64_t management_offset, data_offset;
    uint32_t segment;
} zcp_priv_added;

ZCP_PRIV_SETUP uint64_t zcp_priv_added_check(const zcp_priv_added *added, uint32_t serial) {
    const uint64_t words[] = {
        added->config.chunk_size, added->config.chunk_count, added->config.alignment, added->config.cache_chunks,
        added->management_offset, added->data_offset,        added->segment};
    uint64_t check = serial;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) check = zcp_priv_mix(check ^ words[i]);
    return check;
}

// false: it is just being written, or garbage.
ZCP_PRIV_SETUP bool zcp_priv_added_read(zcp_priv_pool_slot *slot, uint32_t serial, zcp_priv_added *added) {
    // Relaxed, all: after LIVE was acquired; check tells.
    added->config.chunk_size = zcp_priv_load_relaxed(&slot->chunk_size);
    added->config.chunk_count = zcp_priv_load_relaxed(&slot->chunk_count);
    added->config.alignment = zcp_priv_load_relaxed(&slot->alignment);
    added->config.cache_chunks = zcp_priv_load_relaxed(&slot->cache_chunks);
    added->segment = zcp_priv_load_relaxed(&slot->segment);
    added->management_offset = zcp_priv_load_relaxed(&slot->management_offset);
    added->data_offset = zcp_priv_load_relaxed(&slot->data_offset);
    return zcp_priv_load_relaxed(&slot->check) == zcp_priv_added_check(added, serial)
        && added->segment > ZCP_SEGMENT_CHUNK && added->segment <= UINT16_MAX;
}

// The layout of an added pool, from 0 on in each file, and how much that takes. Errors: those of a pool, OVERFLOW.
ZCP_PRIV_SETUP zcp_status zcp_priv_added_geometry(const zcp_priv_geometry *instance, const zcp_pool_config *config,
                                                  zcp_priv_geometry *geometry) {
    memset(geometry, 0, sizeof *geometry);
    geometry->record_bytes = instance->record_bytes;
    zcp_status status = zcp_priv_pool_check(config);
    return status != ZCP_OK
               ? status
               : zcp_priv_geometry_end(geometry, zcp_priv_geometry_add(geometry, config), ZCP_RELPTR_MAX_OFFSET);
}

// Maps a part of one of the two files that lies behind what was mapped at first; children do not get it.
ZCP_PRIV_SETUP zcp_status zcp_priv_map_part(const zcp_manager *manager, const zcp_priv_file *file, uint64_t from,
                                            uint64_t bytes, uint32_t alignment, void **base) {
    int fd;
    bool kept;
    struct stat now;
    const char *path = file->path.text;
    uint32_t flags = file->flags | manager->file.flags | zcp_priv_lowest_bit(alignment) << ZCP_PRIV_SHM_ALIGNED;
    zcp_status status = zcp_priv_file_reach(file, &fd, &kept);
    if (status != ZCP_OK) return status;
    if (fstat(fd, &now) != 0) status = zcp_priv_fail_system("fstat", path);
    else if (from % zcp_priv_page_size() != 0 || from > INT64_MAX || bytes > INT64_MAX - from
             || from + bytes > (uint64_t)now.st_size)
        status = zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: an added pool is said to lie at %llu, %llu bytes, of %lld",
                               path, (unsigned long long)from, (unsigned long long)bytes, (long long)now.st_size);
    if (status == ZCP_OK) status = zcp_priv_file_map_within(fd, path, from, bytes, flags, base);
    zcp_priv_file_leave(fd, kept);
    return status;
}

// What this process may map for pools that come and go, all its managers together: each takes up to three mappings
// until its manager is closed, and Linux allows a process 65,530 unless it is told otherwise. The rest is the
// application's.
#ifndef ZCP_PRIV_MAX_GROWN
#define ZCP_PRIV_MAX_GROWN 16000u
#endif
#define ZCP_PRIV_MAX_GROWN_BYTES (sizeof(void *) == 8 ? UINT64_C(1) << 46 : UINT64_C(1) << 31)

ZCP_PRIV_SETUP zcp_status zcp_priv_may_map(const zcp_manager *manager, uint64_t bytes) {
    uint64_t count = 0, sum = 0, most = ZCP_PRIV_MAX_GROWN_BYTES;
    const zcp_priv_process *process = zcp_priv_process_get();
    for (const zcp_manager *m = process ? process->managers : NULL; m; m = m->older) {
        count += m->grown_count;
        sum += m->grown_bytes;
    }
    if (count < ZCP_PRIV_MAX_GROWN && bytes <= most && sum <= most - bytes) return ZCP_OK;
    return zcp_priv_fail(ZCP_ERR_MAPPING, ENOMEM, "%s: close the manager and open it again: this process has mapped "
                         "%llu pools that came and went, with %llu bytes; %llu more are too much (%u, %llu bytes)",
                         manager->name, (unsigned long long)count, (unsigned long long)sum, (unsigned long long)bytes,
                         ZCP_PRIV_MAX_GROWN, (unsigned long long)most);
}

// A place for what a pool that was added takes, or for a table. Under the process's mutex.
ZCP_PRIV_SETUP zcp_status zcp_priv_grown_new(zcp_manager *manager, size_t more, uint64_t mapped,
                                             zcp_priv_grown **grown) {
    zcp_priv_grown *g;
    zcp_status status = zcp_priv_may_map(manager, sizeof *g + more + mapped);
    if (status != ZCP_OK) return status;
    g = zcp_priv_anonymous(sizeof *g + more, MADV_DONTFORK);
    if (!g) return zcp_priv_fail_memory(manager->name, "a pool that was added");
    g->bytes = sizeof *g + more;
    g->next = manager->grown;
    manager->grown = g;
    manager->grown_count++;
    manager->grown_bytes += g->bytes + mapped;
    *grown = g;
    return ZCP_OK;
}

// Undoes the last one.
ZCP_PRIV_SETUP void zcp_priv_grown_drop(zcp_manager *manager, uint64_t mapped) {
    zcp_priv_grown *g = manager->grown;
    manager->grown = g->next;
    manager->grown_count--;
    manager->grown_bytes -= g->bytes + mapped;
    munmap(g, g->bytes);
}

// The pool is gone. All of it stays mapped until close, though there are no pages behind its chunks any more: a sibling
// may be just looking there, or about to punch, or the header may lie.
ZCP_PRIV_COLD void zcp_priv_pool_part(zcp_manager *manager, zcp_priv_pool *pool) {
    // Shows nothing.
    zcp_priv_store_release(&manager->view.pools[pool->number], (zcp_priv_pool *)NULL);              // V6
    for (zcp_priv_grown *g = manager->grown; g; g = g->next) {
        if (pool != &g->pool || !g->segment) continue;
        zcp_registry_remove(&manager->registry, g->segment);
        g->segment = 0;
    }
}

// Puts an added pool's chunks into the registry. A pool that is there with the same id is gone, else the adder would
// have chosen another one; or the header lies: then that pool keeps its id.
ZCP_PRIV_SETUP void zcp_priv_segment_enter(zcp_manager *manager, zcp_priv_grown *g, uint16_t segment) {
    for (zcp_priv_grown *known = manager->grown; known; known = known->next) {
        if (known->segment != segment) continue;
        // Relaxed: V3 came before.
        uint64_t state = zcp_priv_load_relaxed(&known->pool.slot->state);
        bool gone = state >> 32 != known->pool.serial || (uint32_t)state == ZCP_PRIV_POOL_GONE;
        if (gone) zcp_priv_pool_part(manager, &known->pool);
    }
    if (zcp_registry_add(&manager->registry, segment, g->data, g->data_bytes) == ZCP_OK) g->segment = segment;
}

// Maps an added pool. Its chunks stay unmapped if the client only looks, or if that cannot be done, and *failure is
// why: then nothing of it can be had here, but dead clients' chunks can be taken back all the same. failure NULL: that
// is a failure, too. Under the process's mutex, under which nothing is logged.
ZCP_PRIV_SETUP zcp_status zcp_priv_pool_meet(zcp_manager *manager, uint32_t number, uint32_t serial,
                                             zcp_priv_failure *failure) {
    zcp_priv_view *view = &manager->view;
    zcp_priv_pool_slot *slot = &manager->header->pools[number];
    zcp_priv_added added;
    zcp_priv_geometry geometry;
    bool observes = view->flags & ZCP_OBSERVE, read_only = view->flags & ZCP_READ_ONLY_DATA;
    if (!zcp_priv_added_read(slot, serial, &added)
        || zcp_priv_added_geometry(&manager->geometry, &added.config, &geometry) != ZCP_OK
        || added.management_offset < manager->geometry.management_bytes
        || added.data_offset < manager->geometry.chunk_bytes)
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: what its header says of pool %u does not add up", manager->name,
                             number);
    zcp_priv_pool *before = zcp_priv_view_pool(view, number);
    // Went since the last look.
    if (before && before->serial != serial) zcp_priv_pool_part(manager, before);
    size_t counts = (size_t)added.config.chunk_count * sizeof(zcp_priv_counts);
    // Each below 2^49.
    uint64_t mapped = geometry.management_bytes + geometry.chunk_bytes;
    zcp_priv_grown *g;
    zcp_status status = zcp_priv_grown_new(manager, counts, mapped, &g);
    if (status != ZCP_OK) return status;
    g->management_bytes = (size_t)geometry.management_bytes;
    g->data_bytes = (size_t)geometry.chunk_bytes;
    g->management_end = added.management_offset + geometry.management_bytes;
    g->data_end = added.data_offset + geometry.chunk_bytes;
    status = zcp_priv_map_part(manager, &manager->file, added.management_offset, geometry.management_bytes, 1,
                               &g->management);
    bool necessary = status != ZCP_OK || !failure;
    if (status == ZCP_OK && !observes)
        status = zcp_priv_map_part(manager, &manager->chunk_file, added.data_offset, geometry.chunk_bytes,
                                   geometry.pools[0].alignment, &g->data);
    if (status != ZCP_OK && necessary) {
        if (g->management) munmap(g->management, g->management_bytes);
        zcp_priv_grown_drop(manager, mapped);
        return status;
    }
    if (status != ZCP_OK) *failure = zcp_priv_failure_save(status);
    if (g->data) zcp_priv_segment_enter(manager, g, (uint16_t)added.segment);
    zcp_priv_pool_make(&g->pool, &geometry.pools[0], &manager->geometry, g->management, g->data,
                       observes ? 0 : view->client);
    g->pool.counts = g->counts;
    g->pool.number = number;
    g->pool.serial = serial;
    g->pool.slot = slot;
    g->pool.signals = view->signals;
    g->pool.manager = manager;
    g->pool.slots = zcp_priv_slot_at(manager, 0);
    g->pool.punches = g->data && !read_only;
    // Pairs with V0.
    zcp_priv_store_release(&view->pools[number], &g->pool);                                         // V1
    return ZCP_OK;
}

// Handles that this process has of a pool's chunks.
ZCP_PRIV_SETUP uint64_t zcp_priv_pool_handles(const zcp_priv_pool *pool) {
    uint64_t left = 0;
    for (uint32_t i = 0; i < pool->count; i++) {
        // Relaxed, both: a figure.
        uint32_t borrowed = zcp_priv_load_relaxed(&pool->counts[i].borrowed);
        left += (uint32_t)zcp_priv_load_relaxed(&pool->counts[i].owned)
                + (uint64_t)(borrowed == ZCP_PRIV_CHANGING ? 1 : borrowed);
    }
    return left;
}

// Marks the pools that are RETIRING, of which this client has not told so yet: their retirer may have been killed
// before it could tell, or look. false: there is none. Under the process's mutex, like the next two.
ZCP_PRIV_SETUP bool zcp_priv_view_find_retiring(zcp_priv_view *view) {
    bool marked = false;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(view, p);
        if (!pool || pool->announced || !zcp_priv_pool_is_retiring(pool)) continue;
        // Relaxed: W1 carries it.
        zcp_priv_store_relaxed(&pool->leases->retiring, 1u);
        marked = pool->announced = true;
    }
    return marked;
}

// Tells everybody that pools are RETIRING. All numbers were looked at since: no pool where a thread works is missed.
ZCP_PRIV_SETUP void zcp_priv_view_announce_retiring(zcp_priv_view *view) {
    // Who works elsewhere may keep chunks of them.
    zcp_priv_view_recall_all(view);
    ZEROCP_STEP("retire_told");
    // Who does not see that they are retiring has freed before this. Pairs with A1, A2, A3.
    ZEROCP_HEAVY_BARRIER();                                                                         // A5
}

// Claims what is free of all pools that retire, and gives the memory of the empty ones back. true: this client may not
// do that for one, and has not asked the others to yet.
ZCP_PRIV_SETUP bool zcp_priv_view_empty_retiring(zcp_priv_view *view) {
    bool asks = false;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(view, p);
        if (!pool || !zcp_priv_pool_is_retiring(pool) || !zcp_priv_pool_claim(pool)) continue;
        if (pool->punches) zcp_priv_pool_empty(pool);
        // Relaxed, both: written under the mutex.
        else if (zcp_priv_load_relaxed(&pool->asked) == 0) {
            zcp_priv_store_relaxed(&pool->asked, 1u);
            asks = true;
        }
    }
    return asks;
}

// Learns what goes with a slot's state. The other words of the slot may be a later pool's: whoever calls this looks
// whether the state has changed.
ZCP_PRIV_SETUP zcp_status zcp_priv_catch_up_slot(zcp_manager *manager, uint32_t number, uint64_t state,
                                            zcp_priv_failure *failure) {
    zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, number);
    uint32_t serial = (uint32_t)(state >> 32), phase = (uint32_t)state;
    zcp_priv_added added;
    bool there = phase == ZCP_PRIV_POOL_LIVE || phase == ZCP_PRIV_POOL_RETIRING, gone = phase == ZCP_PRIV_POOL_GONE;
    zcp_status status = ZCP_OK;
    // Garbage changes nothing.
    if (pool
        && (gone ? serial >= pool->serial
                 : there && serial > pool->serial
                       && zcp_priv_added_read(&manager->header->pools[number], serial, &added))) {
        zcp_priv_pool_part(manager, pool);
        pool = NULL;
    }
    if (there && !pool) status = zcp_priv_pool_meet(manager, number, serial, failure);
    else if (there && pool->serial == serial && !pool->data && !(manager->view.flags & ZCP_OBSERVE)) {
        // Its chunks could not be mapped: once more, into a new place, as siblings may be looking at this one.
        zcp_status again = zcp_priv_pool_meet(manager, number, serial, NULL);
        if (again != ZCP_OK) *failure = zcp_priv_failure_save(again);
    }
    // Relaxed: a figure.
    if ((there || gone) && zcp_priv_load_relaxed(&manager->view.pool_end) <= number)
        zcp_priv_store_relaxed(&manager->view.pool_end, number + 1);
    return status;
}

// At what changes meanwhile: each change is a call of a peer's, or garbage.
#define ZCP_PRIV_SLOT_READS 64u

// Learns which pool has the number. What has changed meanwhile is looked at again: CORRUPT is what stays garbage.
ZCP_PRIV_SETUP zcp_status zcp_priv_catch_up_number(zcp_manager *manager, uint32_t number, zcp_priv_failure *failure) {
    _Atomic uint64_t *word = &manager->header->pools[number].state;
    // Pairs with V7.
    uint64_t state = zcp_priv_load_acquire(word), seen;                                             // V3
    zcp_status status;
    uint32_t look = 0;
    do {
        seen = state;
        failure->status = ZCP_OK;
        status = zcp_priv_catch_up_slot(manager, number, seen, failure);
        // Who has read words of a later pool sees another state now. Pairs with V9.
        atomic_thread_fence(memory_order_acquire);                                                  // V8
        // As V3.
        state = zcp_priv_load_acquire(word);
    } while (state != seen && ++look < ZCP_PRIV_SLOT_READS);
    return status;
}

// Notes why a pool cannot be used here, or that it can; true: that is news.
ZCP_PRIV_SETUP bool zcp_priv_remember_unmet(zcp_priv_unmet *unmet, const zcp_priv_failure *failure) {
    if (failure->status == ZCP_OK && zcp_priv_load_relaxed(&unmet->status) == ZCP_OK) return false;
    bool other = zcp_priv_load_relaxed(&unmet->status) == ZCP_OK || strcmp(unmet->why.message, failure->message) != 0;
    unmet->why = *failure;
    // Relaxed: the rest is read under the mutex.
    zcp_priv_store_relaxed(&unmet->status, (uint32_t)failure->status);
    return failure->status != ZCP_OK && other;
}

// Fails because a pool cannot be used here, with that status (OK: with its own), and tells why.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_unmet(const zcp_manager *manager, uint32_t number, zcp_status status,
                                             const char *what) {
    zcp_priv_process *process = zcp_priv_process_lock();
    const zcp_priv_unmet *unmet = &manager->unmet[number];
    if (status == ZCP_OK) status = unmet->why.status;
    status = zcp_priv_fail(status, unmet->why.error, "%spool %u was added, and cannot be used here: %s", what, number,
                           unmet->why.message);
    zcp_priv_process_unlock(process);
    return status;
}

// The lowest number of a pool that cannot be used here, and may have chunks of that size; ZCP_MAX_LIVE_POOLS: none.
ZCP_PRIV_COLD uint32_t zcp_priv_unmet_first(const zcp_manager *manager, uint64_t size) {
    // Relaxed: a look.
    uint32_t p = zcp_priv_load_relaxed(&manager->meet_again) == 0 ? ZCP_MAX_LIVE_POOLS : 0;
    for (; p < ZCP_MAX_LIVE_POOLS; p++) {
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        // Relaxed: a look.
        if (zcp_priv_load_relaxed(&manager->unmet[p].status) == ZCP_OK) continue;
        if (!pool || (pool->chunk_size >= size && !zcp_priv_pool_is_retiring(pool))) break;
    }
    return p;
}

// Looks at all numbers. A pool that is met while others retire is told of that: perhaps it could not be met before.
// *news: a failure that was not noted before.
ZCP_PRIV_SETUP zcp_status zcp_priv_catch_up_all(zcp_manager *manager, zcp_priv_failure *news) {
    zcp_status status = ZCP_OK;
    zcp_priv_pool *met[ZCP_MAX_LIVE_POOLS];
    uint32_t count = 0;
    bool retires = false;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        const zcp_priv_pool *before = zcp_priv_view_pool(&manager->view, p);
        zcp_priv_failure failure = {ZCP_OK, 0, ""};
        zcp_status one = zcp_priv_catch_up_number(manager, p, &failure);
        if (one != ZCP_OK) failure = zcp_priv_failure_save(status = one);
        if (zcp_priv_remember_unmet(&manager->unmet[p], &failure)) *news = failure;
        zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        if (pool && pool != before) met[count++] = pool;
        retires = retires || (pool && zcp_priv_pool_is_retiring(pool));
    }
    while (retires && count > 0 && !(manager->view.flags & ZCP_OBSERVE)) zcp_priv_pool_recall(met[--count]);
    return status;
}

// Does what there is to do for pools that retire, under the process's mutex. Errors: those of catch_up_all.
ZCP_PRIV_SETUP zcp_status zcp_priv_catch_up_retiring(zcp_manager *manager, zcp_priv_failure *news, zcp_status known) {
    zcp_priv_view *view = &manager->view;
    if (zcp_priv_view_find_retiring(view)) {
        // Pairs with K0.
        atomic_thread_fence(memory_order_seq_cst);                                                  // K1
        known = zcp_priv_catch_up_all(manager, news);
        zcp_priv_view_announce_retiring(view);
    }
    if (zcp_priv_view_empty_retiring(view)) {
        ZEROCP_STEP("retire_asks");
        // Pairs with V2.
        zcp_priv_add_release(&view->signals->epoch, 1);
        // Pairs with K0.
        atomic_thread_fence(memory_order_seq_cst);                                                  // K2
        known = zcp_priv_catch_up_all(manager, news);
        zcp_priv_view_recall_all(view);
    }
    return known;
}

// A copy of a table that stays: one that is there already, or in the place that goes with a pool, or a new one. NULL:
// no memory.
ZCP_PRIV_SETUP const zcp_priv_table *zcp_priv_table_keep(zcp_manager *manager, const zcp_priv_table *table) {
    zcp_priv_grown *unused = NULL;
    uint32_t looks = 0;
    if (memcmp(table, &manager->view.first, sizeof *table) == 0) return &manager->view.first;
    for (zcp_priv_grown *g = manager->grown; g && looks < 64; g = g->next, looks++) {
        if (memcmp(table, &g->table, sizeof *table) == 0) return &g->table;
        if (!g->tabled) unused = g;
    }
    if (!unused && zcp_priv_grown_new(manager, 0, 0, &unused) != ZCP_OK) return NULL;
    unused->tabled = true;
    unused->table = *table;
    return &unused->table;
}

// Errors, if what a client may hold of some pool cannot be learned: NO_MEMORY, MAPPING, SYSTEM, CORRUPT. All else was
// learned. What cannot be used here is noted in `unmet`, and tried again when it is needed, a tenth of the time at
// most.
ZCP_PRIV_COLD zcp_status zcp_priv_catch_up(zcp_manager *manager) {
    zcp_priv_view *view = &manager->view;
    zcp_priv_table table;
    zcp_priv_failure news = {ZCP_OK, 0, ""};
    uint64_t began = zcp_priv_now_ns();
    bool unmet = false;
    // One thread at a time, and no fork within.
    zcp_priv_process *process = zcp_priv_process_lock();
    if (!process) return zcp_priv_fail_memory(manager->name, "the process's page");
    // Pairs with each change's release.
    uint32_t epoch = zcp_priv_load_acquire(&view->signals->epoch);                                  // V2
    zcp_status status = zcp_priv_catch_up_all(manager, &news);
    if (!(view->flags & ZCP_OBSERVE)) status = zcp_priv_catch_up_retiring(manager, &news, status);
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++)
        // Relaxed: under the mutex.
        unmet = unmet || zcp_priv_load_relaxed(&manager->unmet[p].status) != ZCP_OK;
    memset(&table, 0, sizeof table);
    zcp_priv_table_make(&table, view);
    if (memcmp(&table, zcp_priv_view_table(view), sizeof table) != 0) {
        const zcp_priv_table *kept = zcp_priv_table_keep(manager, &table);
        // Pairs with V4.
        if (kept) zcp_priv_store_release(&view->table, kept);                                       // V5
        else unmet = true;
    }
    // Relaxed, both: whether to come here again.
    zcp_priv_store_relaxed(&view->epoch, epoch);
    uint64_t ended = zcp_priv_now_ns(), rest = 10 * (ended - began);
    // It may have been stopped meanwhile.
    if (rest > 1000000000) rest = 1000000000;
    zcp_priv_store_relaxed(&manager->meet_again, unmet ? ended + rest : 0);
    zcp_priv_process_unlock(process);
    if (news.status != ZCP_OK)
        ZEROCP_LOG(ZCP_LOG_WARNING, "%s: an added pool cannot be used here: %s", manager->name, news.message);
    return status;
}

ZCP_PRIV_SETUP void zcp_priv_pool_ask(zcp_priv_pool *pool) {
    // Relaxed: at worst it asks in vain. That the pool is empty, catch_up finds out.
    if (zcp_priv_load_relaxed(&pool->asked) == 0) (void)zcp_priv_catch_up(pool->manager);
}

// Is it time to try again what could not be met?
ZCP_PRIV_SETUP bool zcp_priv_meets_again(const zcp_manager *manager) {
    // Relaxed: a look.
    uint64_t at = zcp_priv_load_relaxed(&manager->meet_again);
    return at != 0 && zcp_priv_now_ns() >= at;
}

ZCP_PRIV_INLINE bool zcp_priv_pools_changed(const zcp_manager *manager) {
    const zcp_priv_view *view = &manager->view;
    // Relaxed: a look.
    return view->signals && zcp_priv_load_relaxed(&view->signals->epoch) != zcp_priv_load_relaxed(&view->epoch);
}

// For whoever looks at the pools. A failure is told by what cannot be found then.
ZCP_PRIV_SETUP zcp_status zcp_priv_catch_up_if_changed(const zcp_manager *manager) {
    return zcp_priv_pools_changed(manager) || zcp_priv_meets_again(manager) ? zcp_priv_catch_up(manager->itself)
                                                                            : ZCP_OK;
}

// The same, for a call that does not fail by it.
ZCP_PRIV_SETUP void zcp_priv_catch_up_quietly(const zcp_manager *manager) {
    if (!zcp_priv_pools_changed(manager) && !zcp_priv_meets_again(manager)) return;
    bool outermost = zcp_priv_call_begin();
    (void)zcp_priv_catch_up_if_changed(manager);
    zcp_priv_call_end(outermost, ZCP_OK);
}

// ---------------------------------------------------------------------------------------------------------------------
// >>pools  The life of a pool: adding, retiring, reconfiguring
// ---------------------------------------------------------------------------------------------------------------------
//   NONE --add--> LIVE --retire--> RETIRING --last chunk released--> GONE --add--> LIVE (another pool of that number)
//
// Pools are added by one client at a time, under the creation lock: the files are made longer, the pool is written
// behind what they had, and its slot becomes LIVE by one store. An adder that is killed before that leaves a longer
// file; the next recovery or adder gives its pages back, and an adder writes there. One that is killed after it may not
// have raised the epoch, which the sweep of the dead client does. Retiring takes no lock.
//
// A retiring pool gives out nothing more: what is free is claimed for an owner that is nobody, by the retirer and then
// by whoever frees its chunks, so the records alone say when it is empty. Then the pages of its chunks go back to the
// system, and its number is free. Its place in the files is never used again: a thread that was stopped while it worked
// on an old pool finds its records retired, and harms nothing.
//
// Labels  word      order    partner      what breaks without it
//   V7    state     release  V3           as V3
//   V9    slot      release  V8           as V8
//   A7    (barrier) heavy    A4           a waiter misses the added pool, and who added it misses the waiter

// Defined in >>sweep.
ZCP_PRIV_SETUP zcp_status zcp_priv_recover(zcp_manager *manager, zcp_recovery *report);

// One call.
typedef struct zcp_priv_growth {
    zcp_manager *manager;
    // The creation byte of the lock object. The management file's, which is for other versions, can be spared: they add
    // nothing.
    zcp_priv_hold hold;
    int management_fd, chunk_fd;
    bool management_kept, chunk_kept;           // those descriptors are the manager's
    uint64_t management_end, chunk_end;         // where the next pool may begin
    uint32_t serial;                            // the highest
} zcp_priv_growth;

// Pools begin at multiples of this in both files, whatever the system's page size.
#define ZCP_PRIV_GROWTH_UNIT 65536u

// Ends of what pools have used, and the highest serial. The ends stand in the header, but whoever was killed may not
// have got to write them; and what this client knows of itself is not given up, whatever the header says.
ZCP_PRIV_SETUP zcp_status zcp_priv_growth_measure(zcp_priv_growth *g) {
    const zcp_manager *manager = g->manager;
    zcp_priv_header *header = manager->header;
    zcp_priv_added added;
    zcp_priv_geometry geometry;
    g->serial = 1;
    // Relaxed, all: under the lock.
    g->management_end = zcp_priv_load_relaxed(&header->signals.management_end);
    g->chunk_end = zcp_priv_load_relaxed(&header->signals.chunk_end);
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        uint64_t state = zcp_priv_load_relaxed(&header->pools[p].state);
        uint32_t serial = (uint32_t)(state >> 32);
        if (serial > g->serial) g->serial = serial;
        if (serial < 2 || (uint32_t)state == ZCP_PRIV_POOL_NONE
            || !zcp_priv_added_read(&header->pools[p], serial, &added))
            continue;
        if (zcp_priv_added_geometry(&manager->geometry, &added.config, &geometry) != ZCP_OK) continue;
        if (added.management_offset + geometry.management_bytes > g->management_end)
            g->management_end = added.management_offset + geometry.management_bytes;
        if (added.data_offset + geometry.chunk_bytes > g->chunk_end)
            g->chunk_end = added.data_offset + geometry.chunk_bytes;
    }
    zcp_priv_process *process = zcp_priv_process_lock();
    for (const zcp_priv_grown *known = manager->grown; known; known = known->next) {
        if (known->management_end > g->management_end) g->management_end = known->management_end;
        if (known->data_end > g->chunk_end) g->chunk_end = known->data_end;
    }
    zcp_priv_process_unlock(process);
    if (g->management_end < manager->geometry.management_bytes || g->chunk_end < manager->geometry.chunk_bytes
        || g->serial == UINT32_MAX || g->management_end > ZCP_RELPTR_MAX_OFFSET + 1
        || g->chunk_end > ZCP_RELPTR_MAX_OFFSET + 1
        || !zcp_priv_round_up(g->management_end, ZCP_PRIV_GROWTH_UNIT, &g->management_end)
        || !zcp_priv_round_up(g->chunk_end, ZCP_PRIV_GROWTH_UNIT, &g->chunk_end))
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: what its header says of its pools does not add up",
                             manager->name);
    return ZCP_OK;
}

ZCP_PRIV_SETUP void zcp_priv_growth_end(zcp_priv_growth *g) {
    zcp_priv_file_leave(g->management_fd, g->management_kept);
    zcp_priv_file_leave(g->chunk_fd, g->chunk_kept);
    zcp_priv_hold_drop(&g->hold);
}

ZCP_PRIV_SETUP void zcp_priv_growth_clear(zcp_priv_growth *g, zcp_manager *manager) {
    memset((void *)g, 0, sizeof *g);
    g->manager = manager;
    g->management_fd = g->chunk_fd = -1;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_growth_open(zcp_priv_growth *g) {
    zcp_priv_file chunks = g->manager->chunk_file;
    // A reader trims, too, if the file lets it.
    chunks.flags &= ~(uint32_t)ZCP_SHM_READ_ONLY;
    zcp_status status = zcp_priv_file_reach(&g->manager->file, &g->management_fd, &g->management_kept);
    return status != ZCP_OK ? status : zcp_priv_file_reach(&chunks, &g->chunk_fd, &g->chunk_kept);
}

// Is the instance still there? Where that cannot be told, it is.
ZCP_PRIV_SETUP zcp_status zcp_priv_growth_check(const zcp_manager *manager) {
    bool same;
    // Pairs with the release in dismantle.
    if (zcp_priv_load_acquire(&manager->header->state) != ZCP_PRIV_READY)
        return zcp_priv_fail(ZCP_ERR_REPLACED, 0, "%s: this instance was destroyed", manager->name);
    if (zcp_priv_file_is(&manager->chunk_file, &same) != ZCP_OK || same) return ZCP_OK;
    return zcp_priv_fail(ZCP_ERR_REPLACED, 0, "%s: %s is gone or leads to another instance", manager->name,
                         manager->chunk_file.path.text);
}

// Takes the creation lock of an instance that is still there. After a failure nothing is held.
ZCP_PRIV_SETUP zcp_status zcp_priv_growth_begin(zcp_priv_growth *g, zcp_manager *manager) {
    zcp_priv_wait wait = zcp_priv_wait_begin(ZCP_SHM_DEFAULT_TIMEOUT_MS);
    zcp_priv_growth_clear(g, manager);
    zcp_status status = zcp_priv_hold_wait(&manager->locks, &manager->creating, &wait, &g->hold);
    // Relaxed: for messages.
    uint32_t locker = zcp_priv_load_relaxed(&manager->header->locker_pid);
    if (status == ZCP_ERR_TIMEOUT) return zcp_priv_fail_locked(manager->name, locker, ZCP_SHM_DEFAULT_TIMEOUT_MS);
    if (status != ZCP_OK) return status;
    // Relaxed: for messages.
    zcp_priv_store_relaxed(&manager->header->locker_pid, (uint32_t)getpid());
    ZEROCP_STEP("growth_locked");
    status = zcp_priv_growth_check(manager);
    // Who needs a pool looks whether it is known.
    if (status == ZCP_OK) (void)zcp_priv_catch_up(manager);
    if (status == ZCP_OK) status = zcp_priv_growth_open(g);
    if (status != ZCP_OK) zcp_priv_growth_end(g);
    return status;
}

// The next id of the registry that no living or retiring pool has. All ids come in turn, so that for long a relative
// pointer into a pool that is gone leads nowhere. Tries one more than there are pools at most.
ZCP_PRIV_SETUP uint32_t zcp_priv_segment_choose(zcp_priv_header *header) {
    zcp_priv_added added;
    // Relaxed, all: it is locked.
    for (uint32_t turn = zcp_priv_load_relaxed(&header->signals.segments);; turn++) {
        uint32_t segment = ZCP_SEGMENT_CHUNK + 1 + turn % (UINT16_MAX - ZCP_SEGMENT_CHUNK), p = 0;
        for (; p < ZCP_MAX_LIVE_POOLS; p++) {
            uint64_t state = zcp_priv_load_relaxed(&header->pools[p].state);
            uint32_t serial = (uint32_t)(state >> 32), phase = (uint32_t)state;
            if (phase == ZCP_PRIV_POOL_NONE || phase == ZCP_PRIV_POOL_GONE) continue;
            if (zcp_priv_added_read(&header->pools[p], serial, &added) && added.segment == segment) break;
        }
        if (p < ZCP_MAX_LIVE_POOLS) continue;
        zcp_priv_store_relaxed(&header->signals.segments, turn + 1);
        return segment;
    }
}

// Gives back all pages from there on, also those that somebody reserved behind the end and was killed. The file stays
// as long as it is: should the header lie, others may have it mapped.
ZCP_PRIV_SETUP zcp_status zcp_priv_file_punch(int fd, const char *path, uint64_t from) {
#ifdef FALLOC_FL_PUNCH_HOLE
    uint64_t end = sizeof(off_t) == 8 ? ZCP_RELPTR_MAX_OFFSET + 1 : INT32_MAX;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(end - from)) != 0
        && errno != EOPNOTSUPP && errno != ENOSYS) return zcp_priv_fail_system("fallocate", path);
#else
    (void)fd, (void)path, (void)from;
#endif
    // A libc or a file system without it reserves nothing behind the end, and who adds writes all of it anew.
    return ZCP_OK;
}

// Gives back all that both files have behind what pools use, of whoever was killed while adding, or could not go on.
ZCP_PRIV_SETUP zcp_status zcp_priv_growth_punch(zcp_priv_growth *g) {
    zcp_manager *manager = g->manager;
    zcp_status status = zcp_priv_file_punch(g->management_fd, manager->file.path.text, g->management_end);
    if (status == ZCP_OK) status = zcp_priv_file_punch(g->chunk_fd, manager->chunk_file.path.text, g->chunk_end);
    // Relaxed: under the lock.
    if (status == ZCP_OK) zcp_priv_store_relaxed(&manager->header->signals.adding, 0u);
    return status;
}

// The same after the death of an adder. If somebody has the lock, it is left to him or to the next recovery: nobody
// waits. Leaves the calling thread's message alone.
ZCP_PRIV_SETUP void zcp_priv_growth_trim(zcp_manager *manager) {
    zcp_priv_growth g;
    zcp_priv_failure before = zcp_priv_failure_save(ZCP_OK);
    bool taken = true;
    zcp_priv_growth_clear(&g, manager);
    const zcp_priv_file *locks = &manager->locks;
    zcp_status status = zcp_priv_hold_take(locks, &manager->creating, ZCP_PRIV_LOCK_CREATION, &g.hold, &taken);
    if (status == ZCP_OK && !taken) {
        // Relaxed: for messages.
        zcp_priv_store_relaxed(&manager->header->locker_pid, (uint32_t)getpid());
        ZEROCP_STEP("trim_locked");
        status = zcp_priv_growth_open(&g);
        if (status == ZCP_OK) status = zcp_priv_growth_check(manager);
        if (status == ZCP_OK) status = zcp_priv_growth_measure(&g);
        if (status == ZCP_OK) status = zcp_priv_growth_punch(&g);
        ZEROCP_STEP("trimmed");
        zcp_priv_growth_end(&g);
    }
    if (status != ZCP_OK)
        ZEROCP_LOG(ZCP_LOG_WARNING, "%s: what a killed adder had reserved: %s", manager->name, zcp_last_message());
    (void)zcp_priv_failure_again(&before);
}

ZCP_PRIV_SETUP zcp_status zcp_priv_growth_write(zcp_priv_growth *g, uint32_t number, const zcp_pool_config *config,
                                                const zcp_priv_geometry *geometry) {
    zcp_manager *manager = g->manager;
    zcp_priv_pool_slot *slot = &manager->header->pools[number];
    void *base;
    uint32_t serial = g->serial + 1;
    zcp_status status = zcp_priv_file_map_alone(g->management_fd, manager->file.path.text, g->management_end,
                                                geometry->management_bytes, 0, &base);
    if (status != ZCP_OK) return status;
    // A killed adder's, if it was not punched.
    memset(base, 0, (size_t)geometry->management_bytes);
    zcp_priv_format_pool(base, &geometry->pools[0], geometry->record_bytes,
                         zcp_priv_mix(manager->instance_id + serial));
    munmap(base, (size_t)geometry->management_bytes);
    zcp_priv_added added = {*config, g->management_end, g->chunk_end, zcp_priv_segment_choose(manager->header)};
    // Relaxed, all: LIVE carries them. First, since the slot may have been the only one.
    zcp_priv_store_relaxed(&manager->header->signals.management_end, g->management_end);
    // To say up to where the files are used.
    zcp_priv_store_relaxed(&manager->header->signals.chunk_end, g->chunk_end);
    // Who reads one of these words sees afterwards that the state is NONE or GONE, as this one has. Pairs with V8.
    atomic_thread_fence(memory_order_release);                                                      // V9
    zcp_priv_store_relaxed(&slot->chunk_size, config->chunk_size);
    zcp_priv_store_relaxed(&slot->chunk_count, config->chunk_count);
    zcp_priv_store_relaxed(&slot->alignment, config->alignment);
    zcp_priv_store_relaxed(&slot->cache_chunks, config->cache_chunks);
    zcp_priv_store_relaxed(&slot->segment, added.segment);
    zcp_priv_store_relaxed(&slot->management_offset, added.management_offset);
    zcp_priv_store_relaxed(&slot->data_offset, added.data_offset);
    zcp_priv_store_relaxed(&slot->check, zcp_priv_added_check(&added, serial));
    ZEROCP_STEP("pool_written");
    // As in catch_up.
    zcp_priv_process *process = zcp_priv_process_lock();
    // Before anybody else can, so that a failure leaves nothing.
    status = process ? zcp_priv_pool_meet(manager, number, serial, NULL) : ZCP_ERR_NO_MEMORY;
    zcp_priv_process_unlock(process);
    if (status != ZCP_OK) return status;
    // Pairs with V3.
    zcp_priv_store_release(&slot->state, zcp_priv_pool_state(serial, ZCP_PRIV_POOL_LIVE));          // V7
    ZEROCP_STEP("pool_live");
    zcp_priv_store_relaxed(&manager->header->signals.management_end, g->management_end + geometry->management_bytes);
    zcp_priv_store_relaxed(&manager->header->signals.chunk_end, g->chunk_end + geometry->chunk_bytes);
    zcp_priv_store_relaxed(&manager->header->signals.adding, 0u);
    // Pairs with V2.
    zcp_priv_add_release(&manager->header->signals.epoch, 1);
    ZEROCP_STEP("pool_told");
    // Pairs with A4: one sees the other.
    ZEROCP_HEAVY_BARRIER();                                                                         // A7
    zcp_priv_view_recall_all(&manager->view);
    return ZCP_OK;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_pool_add_once(zcp_priv_growth *g, const zcp_pool_config *asked, uint32_t *number) {
    zcp_manager *manager = g->manager;
    zcp_priv_geometry geometry;
    zcp_pool_config config = *asked;
    if (config.alignment == 0) config.alignment = ZCP_DEFAULT_ALIGNMENT;
    zcp_status status = zcp_priv_added_geometry(&manager->geometry, &config, &geometry);
    if (status == ZCP_OK) status = zcp_priv_growth_measure(g);
    ZEROCP_STEP("growth_measured");
    for (*number = 0; *number < ZCP_MAX_LIVE_POOLS; ++*number) {
        // Relaxed: under the lock.
        uint32_t phase = (uint32_t)zcp_priv_load_relaxed(&manager->header->pools[*number].state);
        if (phase == ZCP_PRIV_POOL_NONE || phase == ZCP_PRIV_POOL_GONE) break;
    }
    if (status == ZCP_OK && *number == ZCP_MAX_LIVE_POOLS)
        status = zcp_priv_fail(ZCP_ERR_FULL, 0, "%s has %u pools; retire one", manager->name, ZCP_MAX_LIVE_POOLS);
    if (status == ZCP_OK
        && (g->management_end > ZCP_RELPTR_MAX_OFFSET - geometry.management_bytes
            || g->chunk_end > ZCP_RELPTR_MAX_OFFSET - geometry.chunk_bytes))
        status = zcp_priv_fail(ZCP_ERR_OVERFLOW, 0, "%s: its files would need more than 2^48 bytes", manager->name);
    if (status != ZCP_OK) return status;
    // What is left in one, the other may need.
    status = zcp_priv_growth_punch(g);
    if (status != ZCP_OK) return status;
    // Relaxed: for who finds this process dead.
    zcp_priv_store_relaxed(&manager->header->signals.adding, 1u);
    // The management segment always is: it is written at once.
    uint32_t reserve = manager->view.flags & ~ZCP_SHM_NO_RESERVE;
    uint64_t end = g->management_end + geometry.management_bytes;
    status = zcp_priv_file_reserve(g->management_fd, manager->file.path.text, g->management_end, end, reserve);
    ZEROCP_STEP("management_extended");
    end = g->chunk_end + geometry.chunk_bytes;
    if (status == ZCP_OK)
        status = zcp_priv_file_reserve(g->chunk_fd, manager->chunk_file.path.text, g->chunk_end, end,
                                       manager->view.flags);
    ZEROCP_STEP("chunk_extended");
    if (status == ZCP_OK) status = zcp_priv_growth_write(g, *number, &config, &geometry);
    // What fails of others is no failure here.
    if (status == ZCP_OK) (void)zcp_priv_catch_up(manager);
    if (status == ZCP_OK) return ZCP_OK;
    zcp_priv_failure failure = zcp_priv_failure_save(status);
    (void)zcp_priv_growth_punch(g);
    return zcp_priv_failure_again(&failure);
}

// Adds a pool. Where memory or a number is missing, it recovers and tries once more, as allocate does before EXHAUSTED:
// with what the dead hold, retired pools may go.
ZCP_PRIV_SETUP zcp_status zcp_priv_pool_add(zcp_priv_growth *g, const zcp_pool_config *asked, uint32_t *number) {
    zcp_manager *manager = g->manager;
    zcp_recovery report = {0, 0};
    zcp_priv_failure before = zcp_priv_failure_save(ZCP_OK);
    zcp_status status = zcp_priv_pool_add_once(g, asked, number);
    if (status != ZCP_ERR_NO_SPACE && status != ZCP_ERR_FULL) return status;
    if (zcp_priv_recover(manager, &report) != ZCP_OK)
        ZEROCP_LOG(ZCP_LOG_WARNING, "%s: recovery before a pool is added: %s", manager->name, zcp_last_message());
    status = zcp_priv_pool_add_once(g, asked, number);
    return status == ZCP_OK ? zcp_priv_failure_again(&before) : status;
}

// Makes a live pool RETIRING; retire_end has to follow.
ZCP_PRIV_SETUP zcp_status zcp_priv_pool_retire_begin(zcp_manager *manager, uint32_t number) {
    zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, number);
    uint64_t live = pool ? zcp_priv_pool_state(pool->serial, ZCP_PRIV_POOL_LIVE) : 0;
    if (!pool && zcp_priv_load_relaxed(&manager->unmet[number].status) != ZCP_OK)
        // Relaxed: a look.
        return zcp_priv_fail_unmet(manager, number, ZCP_OK, "");
    ZEROCP_STEP("pool_found");
    if (!pool
        || !zcp_priv_cas_acq_rel(&manager->header->pools[number].state, &live,
                                 zcp_priv_pool_state(pool->serial, ZCP_PRIV_POOL_RETIRING)))
        return zcp_priv_fail(ZCP_ERR_NOT_FOUND, 0, "%s has no live pool %u", manager->name, number);
    ZEROCP_STEP("pool_retiring");
    // Pairs with V2.
    zcp_priv_add_release(&manager->header->signals.epoch, 1);
    return ZCP_OK;
}

// Tells everybody of pools that were made RETIRING, lets go of what this thread keeps of them, and parts with those
// that are gone by that. Errors: those of catch_up.
ZCP_PRIV_SETUP zcp_status zcp_priv_pool_retire_end(zcp_manager *manager) {
    zcp_status status = zcp_priv_catch_up(manager);
    zcp_priv_view_leave_retiring(&manager->view);
    return status == ZCP_OK && zcp_priv_pools_changed(manager) ? zcp_priv_catch_up(manager) : status;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_manager_add_pool(zcp_manager *manager, const zcp_pool_config *pool,
                                                    uint32_t *index) {
    zcp_priv_growth g;
    uint32_t number;
    if (!pool) return zcp_priv_fail_null("pool's configuration");
    zcp_status status = zcp_priv_may_change(manager);
    if (status == ZCP_OK) status = zcp_priv_may_grow(manager);
    if (status == ZCP_OK) status = zcp_priv_growth_begin(&g, manager);
    if (status != ZCP_OK) return status;
    status = zcp_priv_pool_add(&g, pool, &number);
    zcp_priv_growth_end(&g);
    if (status != ZCP_OK) return status;
    if (index) *index = number;
    ZEROCP_LOG(ZCP_LOG_INFO, "%s: pool %u added: chunk_size=%llu, count=%u", manager->name, number,
               (unsigned long long)pool->chunk_size, pool->chunk_count);
    return ZCP_OK;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_add_pool(zcp_manager *manager, const zcp_pool_config *pool,
                                                          uint32_t *index) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_manager_add_pool(manager, pool, index));
}

ZCP_PRIV_SETUP zcp_status zcp_priv_manager_retire_pool(zcp_manager *manager, uint32_t pool) {
    zcp_status status = zcp_priv_may_change(manager);
    if (status == ZCP_OK) status = zcp_priv_may_grow(manager);
    if (status == ZCP_OK && pool >= ZCP_MAX_LIVE_POOLS)
        status =
            zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "pool %u: numbers go up to %u", pool, ZCP_MAX_LIVE_POOLS - 1);
    if (status != ZCP_OK) return status;
    zcp_priv_catch_up_if_changed(manager);
    status = zcp_priv_pool_retire_begin(manager, pool);
    if (status != ZCP_OK) return status;
    if (zcp_priv_pool_retire_end(manager) != ZCP_OK)
        ZEROCP_LOG(ZCP_LOG_WARNING, "%s: the pools have changed: %s", manager->name, zcp_last_message());
    ZEROCP_LOG(ZCP_LOG_INFO, "%s: pool %u retired", manager->name, pool);
    return ZCP_OK;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_retire_pool(zcp_manager *manager, uint32_t pool) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_manager_retire_pool(manager, pool));
}

ZCP_PRIV_SETUP zcp_pool_config zcp_priv_config_of(const zcp_priv_pool *pool) {
    return (zcp_pool_config){ pool->chunk_size, pool->count, pool->alignment, pool->cache_chunks };
}

// The live pool that is as configured and is not in `but`. ZCP_MAX_LIVE_POOLS: none.
ZCP_PRIV_SETUP uint32_t zcp_priv_pool_find(const zcp_manager *manager, const zcp_pool_config *config, uint32_t but) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        if (!pool || (but >> p & 1) || zcp_priv_pool_is_retiring(pool)) continue;
        zcp_pool_config is = zcp_priv_config_of(pool);
        if (zcp_priv_same_pool(&is, config)) return p;
    }
    return ZCP_MAX_LIVE_POOLS;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_reconfigure(zcp_priv_growth *g, const zcp_config *config) {
    zcp_manager *manager = g->manager;
    // Bits: pool numbers.
    uint32_t keeps = 0, added = 0;
    zcp_status status = ZCP_OK;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++)
        if (!zcp_priv_view_pool(&manager->view, p) && zcp_priv_load_relaxed(&manager->unmet[p].status) != ZCP_OK)
            // It may be one that is to stay. Relaxed: a look.
            return zcp_priv_fail_unmet(manager, p, ZCP_OK, "");
    for (uint32_t c = 0; c < config->pools.size && status == ZCP_OK; c++) {
        uint32_t number = zcp_priv_pool_find(manager, &config->pools.items[c], keeps);
        if (number == ZCP_MAX_LIVE_POOLS) {
            status = zcp_priv_pool_add(g, &config->pools.items[c], &number);
            if (status == ZCP_OK) added |= UINT32_C(1) << number;
        }
        if (status == ZCP_OK) keeps |= UINT32_C(1) << number;
    }
    uint32_t goes = status == ZCP_OK ? ~keeps : added;
    zcp_priv_failure failure = zcp_priv_failure_save(status);
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++)
        // Those that are no live pools are none.
        if (goes >> p & 1) (void)zcp_priv_pool_retire_begin(manager, p);
    // What is done is done, whatever cannot be learned.
    (void)zcp_priv_pool_retire_end(manager);
    return status == ZCP_OK ? ZCP_OK : zcp_priv_failure_again(&failure);
}

ZCP_PRIV_SETUP zcp_status zcp_priv_manager_reconfigure(zcp_manager *manager, const zcp_config *config) {
    zcp_priv_growth g;
    zcp_priv_geometry geometry;
    if (!config) return zcp_priv_fail_null("configuration");
    zcp_status status = zcp_priv_may_change(manager);
    if (status == ZCP_OK) status = zcp_priv_may_grow(manager);
    if (status == ZCP_OK && config->pools.size == 0)
        status = zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "%s: no pool is configured", manager->name);
    if (status == ZCP_OK) status = zcp_priv_geometry_compute(&geometry, config, manager->geometry.max_clients);
    if (status == ZCP_OK) status = zcp_priv_growth_begin(&g, manager);
    if (status != ZCP_OK) return status;
    status = zcp_priv_reconfigure(&g, config);
    zcp_priv_growth_end(&g);
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_reconfigure(zcp_manager *manager, const zcp_config *config) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_manager_reconfigure(manager, config));
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_get_config(const zcp_manager *manager, zcp_config *config) {
    zcp_status status = zcp_priv_may_read(manager, "place for the configuration", config, sizeof *config);
    if (status != ZCP_OK) return status;
    zcp_priv_catch_up_quietly(manager);
    config->publishers = manager->geometry.publishers;
    config->subscribers = manager->geometry.subscribers;
    config->ring_cells = manager->geometry.ring_cells;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        if (!pool || zcp_priv_pool_is_retiring(pool)) continue;
        zcp_pool_config one = zcp_priv_config_of(pool);
        if (!ZCP_VECTOR_PUSH(&config->pools, one)) break;
    }
    return ZCP_OK;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>sweep  Taking back what dead clients held
// ---------------------------------------------------------------------------------------------------------------------

ZCP_PRIV bool zcp_priv_unread_has(zcp_priv_unread *unread, const zcp_priv_pool *pool, uint32_t i);

// Sweeps the chunks of one leaf, then gives the hints of all that are free, by one read-modify-write; always, also of
// those that this sweep did not free. Killed before that, it has left the slot not clean: the next sweep gives them.
// Returns how many became free.
ZCP_PRIV uint64_t zcp_priv_sweep_leaf(zcp_priv_pool *pool, uint32_t leaf, uint32_t dead, zcp_priv_unread *unread,
                                      bool *garbage) {
    uint64_t freed = 0, cached = 0, hints = 0;
    uint32_t first = leaf << pool->list.leaf_shift, width = 1u << pool->list.leaf_shift;
    if (width > pool->count - first) width = pool->count - first;
    for (uint32_t k = 0; k < width; k++) {
#if defined(__GNUC__)
        // The locked steps keep the processor from looking ahead.
        if (pool->words > 2 && k + 8 < pool->count - first)
            __builtin_prefetch(zcp_priv_record_at(pool, first + k + 8), 1);
#endif
        // Relaxed: for a figure.
        uint64_t s = zcp_priv_load_relaxed(&zcp_priv_record_at(pool, first + k)->state);
        if (unread && zcp_priv_unread_has(unread, pool, first + k)) continue;
        zcp_priv_freeing outcome = zcp_priv_sweep_chunk(pool, first + k, dead);
        if (outcome == ZCP_PRIV_FREED) freed++, cached += zcp_priv_is_cached(s) && ZCP_PRIV_OWNER(s) == dead + 1;
        if (outcome == ZCP_PRIV_GARBAGE) *garbage = true;
        // Relaxed: a hint for a free chunk may be repeated, and for a taken one is harmless.
        if (zcp_priv_is_free(zcp_priv_load_relaxed(&zcp_priv_record_at(pool, first + k)->state)))   // step sweep-hint
            hints |= UINT64_C(1) << k;
    }
    ZEROCP_STEP("leaf_swept");
    if (hints) zcp_priv_leaf_put(&pool->list, leaf, hints);                                         // step sweep-hints
    zcp_priv_leaf_mend(&pool->list, first + width - 1);                                             // step mended
    // Cached ones were counted when they came into the cache.
    if (freed > cached) ZEROCP_COUNT_FREED(&pool->leases->freed, freed - cached);                   // step sweep-counts
    // Also for what the dead one freed and did not count.
    if (hints) ZEROCP_COUNT_FREED(&pool->leases->returned, 1);                                     // step sweep-returns
    return freed;
}

// Takes back what a client holds in one pool; returns how many chunks became free, and sets *garbage if there is some.
ZCP_PRIV uint64_t zcp_priv_sweep_pool(zcp_priv_pool *pool, uint32_t dead, zcp_priv_unread *unread, bool *garbage) {
    uint64_t freed = 0;
    for (uint32_t leaf = 0; leaf < pool->list.leaves; leaf++)
        freed += zcp_priv_sweep_leaf(pool, leaf, dead, unread, garbage);
    zcp_priv_leases_sweep(pool, dead);
    return freed;
}

ZCP_PRIV_INLINE uint64_t zcp_priv_view_sweep(zcp_priv_view *view, uint32_t dead, zcp_priv_unread *unread,
                                             bool *garbage) {
    uint64_t freed = 0;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(view, p);
        if (pool) freed += zcp_priv_sweep_pool(pool, dead, unread, garbage);
    }
    return freed;
}

// Sweeps one slot whose lock the caller holds. Errors: those of catch_up; then what is known was swept, and the slot is
// not clean.
// reliable_only: of its unread messages only those stay that reliable subscribers have not read.
ZCP_PRIV_SETUP zcp_status zcp_priv_slot_sweep(zcp_manager *manager, uint32_t slot, uint64_t *freed, bool *garbage,
                                              bool reliable_only) {
    zcp_priv_slot *at = zcp_priv_slot_at(manager, slot);
    // It sweeps itself.
    bool closing = zcp_priv_load_relaxed(&manager->state) == ZCP_PRIV_CLOSING;
    // So that all that a dead one may hold is known.
    zcp_status known = closing ? ZCP_OK : zcp_priv_catch_up(manager);
    // Relaxed: ordered by the lock.
    bool untold = !closing && zcp_priv_load_relaxed(&at->state) != ZCP_PRIV_SLOT_DRAINING;
    // Relaxed: for joiners to wait a moment.
    zcp_priv_store_relaxed(&at->state, (uint32_t)ZCP_PRIV_SLOT_SWEEPING);
    ZEROCP_STEP("sweeping");
    bool drains;
    *freed = zcp_priv_view_sweep_topics(manager, slot, reliable_only, untold, known == ZCP_OK, garbage, &drains);
    ZEROCP_STEP("swept");
    // The dead one may not have got to say that it had changed the pools.
    if (!closing && manager->view.signals) {
        // Pairs with V2.
        zcp_priv_add_release(&manager->view.signals->epoch, 1);
        zcp_priv_view_recall_all(&manager->view);
    }
    uint32_t next = drains ? ZCP_PRIV_SLOT_DRAINING : ZCP_PRIV_SLOT_CLEAN;
    // After the last push; if a pool is not known, somebody has to sweep again.
    if (known == ZCP_OK) zcp_priv_store_release(&at->state, next);
    zcp_priv_view_after_free(&manager->view);
    return known;
}

// Sweeps a slot whose lock the caller holds, and whose client is dead, if it is not clean.
ZCP_PRIV_SETUP zcp_status zcp_priv_slot_clean(zcp_manager *manager, uint32_t slot, zcp_recovery *report, bool *garbage,
                                              bool reliable_only) {
    uint64_t freed = 0;
    // Relaxed: ordered by the lock.
    uint32_t was = zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, slot)->state);
    if (was == ZCP_PRIV_SLOT_CLEAN) return ZCP_OK;
    zcp_status status = zcp_priv_slot_sweep(manager, slot, &freed, garbage, reliable_only);
    report->chunks_reclaimed += freed;
    // It was told then.
    if (was == ZCP_PRIV_SLOT_DRAINING) return status;
    ZEROCP_LOG(ZCP_LOG_INFO, "%s: swept dead client %u (pid %u): %llu chunks reclaimed", manager->name, slot,
               zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, slot)->pid), (unsigned long long)freed);
    report->dead_clients++;
    return status;
}

// Does a client hold the slot's lock, or who sweeps it? fd: of the lock object.
ZCP_PRIV_SETUP zcp_status zcp_priv_slot_test(const zcp_manager *manager, int fd, uint32_t slot, bool *taken) {
    return zcp_priv_lock_test(fd, manager->locks.path.text, ZCP_PRIV_LOCK_SLOTS + (off_t)slot, 1, F_WRLCK, taken);
}

#define ZCP_PRIV_DRAIN_ROUNDS 4u

// The same of a slot whose client may live.
ZCP_PRIV_SETUP zcp_status zcp_priv_slot_recover(zcp_manager *manager, uint32_t slot, zcp_recovery *report,
                                                bool *garbage, bool reliable_only) {
    _Atomic uint32_t *state = &zcp_priv_slot_at(manager, slot)->state;
    off_t byte = ZCP_PRIV_LOCK_SLOTS + (off_t)slot;
    for (uint32_t round = 0; round < ZCP_PRIV_DRAIN_ROUNDS; round++) {
        zcp_priv_hold hold;
        bool taken;
        zcp_status status = zcp_priv_hold_take(&manager->locks, &manager->sweeping, byte, &hold, &taken);
        if (status != ZCP_OK || taken) return status;
        status = zcp_priv_slot_clean(manager, slot, report, garbage, reliable_only);
        zcp_priv_hold_drop(&hold);
        // Who has read to the end meanwhile has found the lock taken.
        bool drains = zcp_priv_load_acquire(state) == ZCP_PRIV_SLOT_DRAINING;
        if (status != ZCP_OK || !drains || !zcp_priv_topics_drainable(manager, slot)) return status;
    }
    return ZCP_OK;
}

// What keeps a dead client's chunks from coming back.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_sweep(const zcp_manager *manager, uint32_t slot, zcp_status status) {
    zcp_priv_failure failure = zcp_priv_failure_save(status);
    // Relaxed: for messages.
    uint32_t pid = zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, slot)->pid);
    return zcp_priv_fail(status, failure.error, "client %u (pid %u), if it is dead, was not swept: %s", slot, pid,
                         // Which names the instance.
                         failure.message);
}

// Remembers how the last recovery ended, for whoever is told that there is no chunk.
ZCP_PRIV_COLD void zcp_priv_remember_recovery(zcp_manager *manager, zcp_status status) {
    zcp_priv_process *process = zcp_priv_process_lock();
    manager->why_unswept = zcp_priv_failure_save(status);
    // Relaxed: the mutex orders the rest.
    zcp_priv_store_relaxed(&manager->unswept, status != ZCP_OK);
    zcp_priv_process_unlock(process);
}

// What stands at the end of a message about a chunk that is not to be had: "" if the last recovery went well.
typedef struct zcp_priv_unswept { char text[ZCP_PRIV_MESSAGE_BYTES]; } zcp_priv_unswept;

ZCP_PRIV_COLD zcp_priv_unswept zcp_priv_explain_recovery(const zcp_manager *manager) {
    zcp_priv_unswept text = {""};
    if (!zcp_priv_load_relaxed(&manager->unswept)) return text;
    zcp_priv_process *process = zcp_priv_process_lock();
    if (manager->why_unswept.status != ZCP_OK)
        snprintf(text.text, sizeof text.text, "; but %.300s", manager->why_unswept.message);
    zcp_priv_process_unlock(process);
    return text;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_recover(zcp_manager *manager, zcp_recovery *report) {
    bool garbage = false;
    // A sweep that needs an unknown pool says so.
    zcp_status worst = ZCP_OK;
    int fd = -1;
    bool kept = true;
    (void)zcp_priv_threads_collect(false);
    zcp_priv_catch_up_if_changed(manager);
    zcp_priv_rings_collect(manager, true);
    // In the second round those who drain: the dead of the first one may have been who kept their messages.
    for (uint32_t at = 0; at < 2 * manager->geometry.max_clients; at++) {
        bool taken = true;
        uint32_t slot = at % manager->geometry.max_clients;
        // A look.
        uint32_t state = zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, slot)->state);
        if (slot == manager->view.client || state == ZCP_PRIV_SLOT_CLEAN) continue;
        bool drains = state == ZCP_PRIV_SLOT_DRAINING;
        if (at == slot ? drains : !drains || !zcp_priv_topics_drainable(manager, slot)) continue;
        zcp_status status = fd < 0 ? zcp_priv_file_reach_locks(&manager->locks, &fd, &kept) : ZCP_OK;
        if (status == ZCP_OK) status = zcp_priv_slot_test(manager, fd, slot, &taken);
        ZEROCP_STEP("tested");
        if (status == ZCP_OK && !taken) status = zcp_priv_slot_recover(manager, slot, report, &garbage, false);
        if (status != ZCP_OK) worst = zcp_priv_fail_sweep(manager, slot, status);
        if (fd < 0) break;
    }
    zcp_priv_file_leave(fd, kept);
    // After the dead: idle threads keep the rest.
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        if (!pool || !pool->cache_chunks || !zcp_priv_pool_is_retiring(pool)) continue;
        if (zcp_priv_pool_reclaim(pool) != 0) zcp_priv_after_free(pool);
    }
    // A retirer may have been killed, too, or an adder. Relaxed: a look.
    zcp_priv_view_leave_retiring(&manager->view);
    if (zcp_priv_load_relaxed(&manager->header->signals.adding) != 0) zcp_priv_growth_trim(manager);
    if (worst == ZCP_OK && garbage)
        worst =
            zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: chunk records hold garbage; the others were swept", manager->name);
    zcp_priv_remember_recovery(manager, worst);
    return worst;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_recover(zcp_manager *manager, zcp_recovery *report) {
    zcp_recovery ignored;
    if (!report) report = &ignored;
    *report = (zcp_recovery){0, 0};
    bool outermost = zcp_priv_call_begin();
    zcp_status status = zcp_priv_may_change(manager);
    return zcp_priv_call_end(outermost, status == ZCP_OK ? zcp_priv_recover(manager, report) : status);
}

// ---------------------------------------------------------------------------------------------------------------------
// >>hold  Handles of one chunk in this process: clone, token, acquire, accessors
// ---------------------------------------------------------------------------------------------------------------------
// A handle does not know whether it counts in `owned` or in `borrowed`; handles of one chunk and generation are
// interchangeable.
//
// Invariants: owned > 0 only while this client is the record's owner; borrowed > 0 only while its borrow bit is set and
// the record is not free; so a count of this process pins the generation. `owned` falls to 0 before the state becomes
// free, or it would overwrite a sibling's new claim. The ticket is raised from 0 before a token leaves; from then on
// `owned` goes down by CAS only.
//
// Labels  word      order    partner      what breaks without it
//   O5    owned     acquire  D1 D5        as O3, in clone
//   O6    owned     acquire  D1 D5        as O3, in holds
//   O7    owned     acquire  D1 D5        the token's store hits a sibling's, or names no chunk that is held
//   O8    owned     acquire  D1 D5        as O3, from an address
//   D2    borrowed  release  J3           the chunk goes back while a sibling reads
//   D3    borrowed  release  J1 J2 J4     (not needed: S1 and the claim of CHANGING order it) as D4
//   D4    borrowed  release  J1 J2 J4     a sibling compares with a generation of before the borrow
//   J1    borrowed  acquire  D3 D4        as D4
//   J2    borrowed  acquire  D3 D4        (not needed: the record orders itself)
//   J3    borrowed  acquire  D2           as D2
//   J4    borrowed  acquire  D3 D4        as D4, from an address
//   T1    (fence)   release  T2           who acquires a token does not see the payload
//   T2    (fence)   acquire  T1           as T1

// For speed only: the compiler neither merges nor moves loads and stores across it. It orders nothing between threads.
#define ZCP_PRIV_KEEP_STORES_APART() atomic_signal_fence(memory_order_seq_cst)
static const zcp_chunk zcp_priv_no_chunk;
ZCP_PRIV uint64_t zcp_priv_owned(uint32_t generation, uint32_t handles) { return (uint64_t)generation << 32 | handles; }

// Handles of that generation in a value of `owned`.
ZCP_PRIV uint32_t zcp_priv_owned_handles(uint64_t owned, uint32_t generation) {
    return owned >> 32 == generation ? (uint32_t)owned : 0;
}

ZCP_PRIV zcp_priv_counts *zcp_priv_counts_at(const zcp_priv_pool *pool, uint32_t i) { return &pool->counts[i]; }

ZCP_PRIV uint32_t zcp_priv_generation_now(const zcp_priv_pool *pool, uint32_t i) {
    // Relaxed: a count pins it.
    return ZCP_PRIV_GENERATION(zcp_priv_load_relaxed(&zcp_priv_record_at(pool, i)->state));
}

// One handle less in borrowed; the last one gives the chunk back. NOT_RELEASED: there was none.
ZCP_PRIV zcp_priv_releasing zcp_priv_drop_borrowed(zcp_priv_pool *pool, uint32_t i, uint32_t client) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    // lock-free: fails only beside a sibling's success.
    for (;;) {
        // A look; the CAS decides.
        uint32_t n = zcp_priv_load_relaxed(&counts->borrowed);
        if (n == 0 || n == ZCP_PRIV_CHANGING) return ZCP_PRIV_NOT_RELEASED;
        // D2: my use of the payload is over. J3 pairs with it: so is my siblings'.
        if (n > 1 && zcp_priv_cas_release(&counts->borrowed, &n, n - 1)) return ZCP_PRIV_RELEASED;  // D2
        if (n == 1 && zcp_priv_cas_acquire(&counts->borrowed, &n, ZCP_PRIV_CHANGING)) break;        // J3
    }
    zcp_priv_freeing outcome = zcp_priv_give_back(pool, i, client);
    // Pairs with J1, J2; S1 alone would do.
    zcp_priv_store_release(&counts->borrowed, 0u);                                                  // D3
    return outcome == ZCP_PRIV_GARBAGE ? ZCP_PRIV_GARBAGE : ZCP_PRIV_RELEASED;
}

// Counts one handle more, of a chunk that the caller holds. false: it is not held, or counts are used up.
ZCP_PRIV bool zcp_priv_clone(zcp_priv_pool *pool, uint32_t i, uint32_t generation) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    // As O3.
    for (uint64_t s; zcp_priv_owned_handles(s = zcp_priv_load_acquire(&counts->owned), generation) != 0;) {  // O5
        if ((uint32_t)s >= ZCP_PRIV_CHANGING - 1) return false;
        // Relaxed: the caller's own hold orders everything.
        if (zcp_priv_cas_relaxed(&counts->owned, &s, s + 1)) return true;
    }
    while (zcp_priv_generation_now(pool, i) == generation) {
        // Relaxed, and the CAS too: the caller's own hold orders everything.
        uint32_t n = zcp_priv_load_relaxed(&counts->borrowed);
        if (n == 0 || n >= ZCP_PRIV_CHANGING - 1) return false;
        if (zcp_priv_cas_relaxed(&counts->borrowed, &n, n + 1)) return true;
    }
    return false;
}

// The same of a chunk that this process holds in whatever generation.
ZCP_PRIV bool zcp_priv_clone_any(zcp_priv_pool *pool, uint32_t i, uint32_t *generation) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    // As O3.
    for (uint64_t s; (uint32_t)(s = zcp_priv_load_acquire(&counts->owned)) != 0;) {                 // O8
        if ((uint32_t)s >= ZCP_PRIV_CHANGING - 1) return false;
        *generation = (uint32_t)(s >> 32);
        // Relaxed: the hold that the caller knows of orders everything.
        if (zcp_priv_cas_relaxed(&counts->owned, &s, s + 1)) return true;
    }
    for (uint32_t n; (n = zcp_priv_load_relaxed(&counts->borrowed)) != 0 && n < ZCP_PRIV_CHANGING - 1;) {
        // As J1: count first, look at the generation then.
        if (!zcp_priv_cas_acquire(&counts->borrowed, &n, n + 1)) continue;                          // J4
        *generation = zcp_priv_generation_now(pool, i);
        return true;
    }
    return false;
}

// Does a handle of that generation count in borrowed?
ZCP_PRIV_INLINE bool zcp_priv_borrows(const zcp_priv_pool *pool, uint32_t i, uint32_t generation) {
    uint32_t borrowed = zcp_priv_load_relaxed(&zcp_priv_counts_at(pool, i)->borrowed);
    return borrowed != 0 && borrowed != ZCP_PRIV_CHANGING && zcp_priv_generation_now(pool, i) == generation;
}

// Does this process hold that generation? owned first: a sibling's release may move the caller's hold from owned to
// borrowed, never back.
ZCP_PRIV bool zcp_priv_holds(const zcp_priv_pool *pool, uint32_t i, uint32_t generation) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    // Pairs with D1: who sees 0 sees the hold in borrowed.
    if (zcp_priv_owned_handles(zcp_priv_load_acquire(&counts->owned), generation) != 0) return true;  // O6
    return zcp_priv_borrows(pool, i, generation);
}

// Says in the record that a token is made of a chunk that this process holds. NOT_HELD: it does not hold that
// generation. If the handle is the only one, and there is no token yet, a store will do: nobody else makes a token or
// releases, and nobody may borrow. checked: a CAS in any case.
ZCP_PRIV_INLINE zcp_priv_holding zcp_priv_record_token(zcp_priv_pool *pool, uint32_t i, uint32_t client,
                                                     uint32_t generation, bool checked) {
    // Pairs with D1, and first: I see of which tokens siblings told; who sees 0 sees the hold in borrowed.
    uint64_t owned = zcp_priv_load_acquire(&zcp_priv_counts_at(pool, i)->owned) - zcp_priv_owned(generation, 0);  // O7
    if (owned - 1 >= ZCP_PRIV_CHANGING)                                                           // step token-of-owned
        return zcp_priv_borrows(pool, i, generation) ? ZCP_PRIV_HELD : ZCP_PRIV_NOT_HELD;
    _Atomic uint64_t *state = &zcp_priv_record_at(pool, i)->state;
    uint64_t no_token = zcp_priv_state(generation, client + 1, 0);
    // relaxed, all: T1 carries it; the handle's count pins the generation. If the CAS fails, a sibling has told.
    if (zcp_priv_load_relaxed(state) != no_token) return ZCP_PRIV_HELD;                             // step token-looked
    if (owned == 1 && !checked)                                                                     // step first-token
        zcp_priv_store_relaxed(state, no_token | ZCP_PRIV_TOKEN_TICKET);
    else (void)zcp_priv_cas_relaxed(state, &no_token, no_token | ZCP_PRIV_TOKEN_TICKET);
    return ZCP_PRIV_HELD;
}

// Waits for a sibling thread that changes the borrow bit: a few spins, then sleeps, so that a real-time thread cannot
// starve the one it waits for.
ZCP_PRIV void zcp_priv_wait_for_sibling(uint32_t round) {
    if (round >= 64) zcp_priv_sleep_us(round < 1000 ? 50 : 500);
#if defined(__x86_64__) || defined(__i386__)
    else __builtin_ia32_pause();
#endif
}

#ifndef ZEROCP_WAIT_FOR_SIBLING
#define ZEROCP_WAIT_FOR_SIBLING(round) zcp_priv_wait_for_sibling(round)
#endif

// One handle of a chunk by its token; always as a borrower, also in the owner's process. NOT_HELD: stale.
ZCP_PRIV_INLINE zcp_priv_holding zcp_priv_acquire(zcp_priv_pool *pool, uint32_t i, uint32_t client,
                                                  uint32_t generation) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    // A CAS fails only beside a sibling's success; CHANGING ends with a sibling's step.
    for (uint32_t round = 0;; round++) {
        // A look; the CAS decides.
        uint32_t n = zcp_priv_load_relaxed(&counts->borrowed);
        if (n == ZCP_PRIV_CHANGING) { ZEROCP_WAIT_FOR_SIBLING(round); continue; }
        // Four thousand million handles.
        if (n == ZCP_PRIV_CHANGING - 1) return ZCP_PRIV_GARBAGE;
        if (n == 0) {
            // Pairs with D3; not needed: the record orders itself.
            if (!zcp_priv_cas_acquire(&counts->borrowed, &n, ZCP_PRIV_CHANGING)) continue;          // J2
            ZEROCP_STEP("changing");
            zcp_priv_holding outcome = zcp_priv_borrow(pool, i, client, generation);
            // As D3.
            zcp_priv_store_release(&counts->borrowed, outcome == ZCP_PRIV_HELD ? 1u : 0u);          // D4
            return outcome;
        }
        // J1 pairs with D3 and D4: the generation compared next is not older than the hold. Count first, compare then:
        // the count pins the generation.
        if (!zcp_priv_cas_acquire(&counts->borrowed, &n, n + 1)) continue;                          // J1
        if (zcp_priv_generation_now(pool, i) == generation) return ZCP_PRIV_HELD;                   // step compared
        zcp_priv_drop_borrowed(pool, i, client);
        return ZCP_PRIV_NOT_HELD;
    }
}

// Handles of this client, and other clients that hold it.
ZCP_PRIV uint64_t zcp_priv_use_count(zcp_priv_pool *pool, uint32_t i, uint32_t client) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    // Acquire, and first: as in holds.
    uint64_t count = (uint32_t)zcp_priv_load_acquire(&counts->owned);
    // Relaxed, the rest: a figure for people, exact when quiet.
    uint32_t borrowed = zcp_priv_load_relaxed(&counts->borrowed);
    count += borrowed == ZCP_PRIV_CHANGING ? 0 : borrowed;
    uint32_t owner = ZCP_PRIV_OWNER(zcp_priv_load_relaxed(&record->state));
    for (uint32_t w = 0; w < pool->words; w++) {
        uint64_t others = zcp_priv_load_relaxed(&record->borrow[0] + w);
        if (owner != 0 && (owner - 1) / 64 == w) others |= zcp_priv_borrow_bit(owner - 1);
        if (client / 64 == w) others &= ~zcp_priv_borrow_bit(client);
        count += zcp_priv_count_bits(others);
    }
    return count;
}

// With max_chunks: a chunk is counted before it is acquired, and after it was allocated; and no longer when a release,
// or an acquire in vain, has left no handle of it. Whoever ends the count looks again after that, since a sibling may
// have come to hold the chunk.
ZCP_PRIV bool zcp_priv_counts_none(zcp_priv_counts *counts) {
    // Acquire, and first: as in holds.
    return (uint32_t)zcp_priv_load_acquire(&counts->owned) == 0 && zcp_priv_load_relaxed(&counts->borrowed) == 0;
}

ZCP_PRIV_SETUP void zcp_priv_held_begins(zcp_manager *manager, zcp_priv_counts *counts) {
    // acq_rel: one after the other with held_ends. Relaxed: a count.
    if (manager->max_chunks && zcp_priv_exchange_acq_rel(&counts->counted, 1u) == 0)
        zcp_priv_add_relaxed(&manager->held, 1u);
}

ZCP_PRIV_SETUP void zcp_priv_held_ends(zcp_manager *manager, zcp_priv_counts *counts) {
    if (!manager->max_chunks || !zcp_priv_counts_none(counts)
        || zcp_priv_exchange_acq_rel(&counts->counted, 0u) == 0) return;
    zcp_priv_add_relaxed(&manager->held, UINT32_MAX);
    if (!zcp_priv_counts_none(counts)) zcp_priv_held_begins(manager, counts);
}

ZCP_PRIV_SETUP bool zcp_priv_holds_most(const zcp_manager *manager) {
    // Relaxed: a figure.
    return manager->max_chunks && zcp_priv_load_relaxed(&manager->held) >= manager->max_chunks;
}

// May this client hold one chunk more? First takes back messages that all have read. counts: that chunk's, if it is
// known and is to be counted.
ZCP_PRIV_COLD zcp_status zcp_priv_admit(zcp_manager *manager, zcp_priv_counts *counts) {
    // Relaxed: a figure.
    if (counts && zcp_priv_load_relaxed(&counts->counted)) return ZCP_OK;
    if (zcp_priv_holds_most(manager)) zcp_priv_rings_collect(manager, false);
    if (zcp_priv_holds_most(manager))
        return zcp_priv_fail(ZCP_ERR_LIMIT, 0, "%s: this client holds %u chunks, all that its max_chunks allows",
                             manager->name, manager->max_chunks);
    if (counts) zcp_priv_held_begins(manager, counts);
    return ZCP_OK;
}

// In three stores of 8 bytes: with one of 16 for the first two, or two of 4 for the last, a pair of allocate and
// release takes up to an eighth longer (measured on Zen 4). name: generation << 32 | index.
ZCP_PRIV_INLINE void zcp_priv_handle_set(zcp_chunk *chunk, zcp_manager *manager, void *data, uint64_t id) {
    chunk->manager = manager;
    ZCP_PRIV_KEEP_STORES_APART();
    chunk->data = data;
    ZCP_PRIV_KEEP_STORES_APART();
    chunk->index = (uint32_t)id;
    chunk->generation = (uint32_t)(id >> 32);
}

ZCP_PRIV void zcp_priv_handle(zcp_chunk *chunk, zcp_manager *manager, const zcp_priv_place *place) {
    const zcp_priv_pool *pool = place->pool;
    zcp_priv_handle_set(chunk, manager, pool->data + (uint64_t)place->i * pool->stride,
                        zcp_priv_chunk_id(pool, place->i, place->generation));
}

// Where an index leads; false: it leads nowhere in this instance.
ZCP_PRIV_INLINE bool zcp_priv_place_of(const zcp_manager *manager, uint32_t index, uint32_t generation,
                                       zcp_priv_place *place) {
    *place = (zcp_priv_place){zcp_priv_view_pool(&manager->view, index >> ZCP_PRIV_POOL_SHIFT),
                              index & (ZCP_MAX_CHUNKS - 1), generation};
    return place->pool != NULL && place->i < place->pool->count && place->pool->data != NULL && generation != 0;
}

// The pool of a handle of an open manager; NULL for any other handle.
ZCP_PRIV_INLINE zcp_priv_pool *zcp_priv_pool_of(const zcp_chunk *chunk, zcp_priv_place *place) {
    if (ZCP_PRIV_UNLIKELY(!chunk || !zcp_priv_usable(chunk->manager)
                          || !zcp_priv_place_of(chunk->manager, chunk->index, chunk->generation, place)))
        return NULL;
    return place->pool;
}

// The same, and the handle is held.
ZCP_PRIV zcp_priv_pool *zcp_priv_held_pool(const zcp_chunk *chunk, zcp_priv_place *place) {
    zcp_priv_pool *pool = zcp_priv_pool_of(chunk, place);
    return pool && zcp_priv_holds(pool, place->i, place->generation) ? pool : NULL;
}

ZCP_PRIV_WHOLE ZEROCP_API zcp_chunk zcp_chunk_clone(const zcp_chunk *chunk) {
    zcp_priv_place place;
    if (!chunk || !chunk->manager) return zcp_priv_no_chunk;
    zcp_priv_pool *pool = zcp_priv_pool_of(chunk, &place);
    if (!pool && !zcp_priv_usable(chunk->manager)) { zcp_priv_why_unusable(chunk->manager); return zcp_priv_no_chunk; }
    if (!pool || !zcp_priv_clone(pool, place.i, place.generation)) {
        zcp_priv_fail(ZCP_ERR_STALE, 0, "%s: clone of a handle that is not held (chunk %08x, generation %u)",
                      chunk->manager->name, chunk->index, chunk->generation);
        return zcp_priv_no_chunk;
    }
    return *chunk;
}

// The chunk in whose payload the address lies, as this client has it mapped. false: in none.
ZCP_PRIV_SETUP bool zcp_priv_place_at(const zcp_manager *manager, const void *address, zcp_priv_place *place) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        uint64_t at = pool ? (uintptr_t)address - (uintptr_t)pool->data : 0;
        if (!pool || !pool->data || at >= pool->stride * pool->count) continue;
        place->pool = pool;
        place->i = (uint32_t)(at / pool->stride);
        return at % pool->stride < pool->chunk_size;
    }
    return false;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_chunk_of(zcp_manager *manager, const void *address, zcp_chunk *chunk) {
    zcp_priv_place place;
    if (!chunk) return zcp_priv_fail_null("place for the handle");
    *chunk = zcp_priv_no_chunk;
    zcp_status status = zcp_priv_may_change(manager);
    if (status != ZCP_OK) return status;
    if (!zcp_priv_place_at(manager, address, &place))
        return zcp_priv_fail(ZCP_ERR_NOT_FOUND, 0, "%s: the address %p lies in no chunk", manager->name, address);
    if (!zcp_priv_clone_any(place.pool, place.i, &place.generation))
        return zcp_priv_fail(ZCP_ERR_STALE, 0, "%s: the address %p lies in chunk %08x, of which this process has no "
                             "handle (a message that is read in place has none: zcp_subscriber_keep makes one)",
                             manager->name, address, place.pool->number << ZCP_PRIV_POOL_SHIFT | place.i);
    zcp_priv_handle(chunk, manager, &place);
    return ZCP_OK;
}

ZEROCP_API zcp_chunk zcp_chunk_move(zcp_chunk *chunk) {
    zcp_chunk moved = chunk ? *chunk : zcp_priv_no_chunk;
    if (chunk) *chunk = zcp_priv_no_chunk;
    return moved;
}

ZEROCP_API bool zcp_chunk_is_valid(const zcp_chunk *chunk) {
    zcp_priv_place place;
    return zcp_priv_held_pool(chunk, &place) != NULL;
}

ZEROCP_API void *zcp_chunk_data(const zcp_chunk *chunk) {
    zcp_priv_place place;
    zcp_priv_pool *pool = zcp_priv_held_pool(chunk, &place);
    return pool ? pool->data + (uint64_t)place.i * pool->stride : NULL;
}

ZEROCP_API uint64_t zcp_chunk_size(const zcp_chunk *chunk) {
    zcp_priv_place place;
    zcp_priv_pool *pool = zcp_priv_held_pool(chunk, &place);
    if (!pool) return 0;
    // Relaxed: the token's fence carried it; may be garbage.
    uint64_t size = ZCP_PRIV_SIZE(zcp_priv_load_relaxed(&zcp_priv_record_at(pool, place.i)->size));
    return size < pool->chunk_size ? size : pool->chunk_size;
}

ZEROCP_API uint64_t zcp_chunk_capacity(const zcp_chunk *chunk) {
    zcp_priv_place place;
    zcp_priv_pool *pool = zcp_priv_held_pool(chunk, &place);
    return pool ? pool->chunk_size : 0;
}

// Why a call cannot be made with that handle.
ZCP_PRIV_COLD zcp_status zcp_priv_why_not_held(const zcp_chunk *chunk, const char *call) {
    if (!chunk) return zcp_priv_fail_null("chunk");
    if (chunk->manager && !zcp_priv_usable(chunk->manager)) return zcp_priv_why_unusable(chunk->manager);
    return zcp_priv_fail(ZCP_ERR_STALE, 0, "%s of a handle that is not held (chunk %08x, generation %u)", call,
                         chunk->index, chunk->generation);
}

ZEROCP_API zcp_status zcp_chunk_set_size(zcp_chunk *chunk, uint64_t size) {
    zcp_priv_place place;
    zcp_priv_pool *pool = zcp_priv_held_pool(chunk, &place);
    if (!pool) return zcp_priv_why_not_held(chunk, "set_size");
    zcp_status status = zcp_priv_may_grow(chunk->manager);
    if (status != ZCP_OK) return status;
    if (size == 0 || size > pool->chunk_size)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "%s: size %llu of a chunk that has %llu bytes",
                             chunk->manager->name,
                             (unsigned long long)size, (unsigned long long)pool->chunk_size);
    _Atomic uint64_t *word = &zcp_priv_record_at(pool, place.i)->size;
    uint64_t lease = zcp_priv_load_relaxed(word) & ~ZCP_RELPTR_MAX_OFFSET;
    zcp_priv_store_relaxed(word, lease | size);                                // relaxed, both: as in describe
    return ZCP_OK;
}

ZCP_PRIV_INLINE void zcp_priv_note_tag(const zcp_priv_place *place, uint32_t tag) {
    _Atomic uint64_t *note = &zcp_priv_record_at(place->pool, place->i)->note;
    // Relaxed, both: as in describe.
    zcp_priv_store_relaxed(note, (uint64_t)tag << 32 | (uint32_t)zcp_priv_load_relaxed(note));
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_chunk_set_tag(zcp_chunk *chunk, uint32_t tag) {
    zcp_priv_place place;
    if (!zcp_priv_held_pool(chunk, &place)) return zcp_priv_why_not_held(chunk, "set_tag");
    zcp_status status = zcp_priv_may_grow(chunk->manager);
    if (status == ZCP_OK) zcp_priv_note_tag(&place, tag);
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API uint32_t zcp_chunk_tag(const zcp_chunk *chunk) {
    zcp_priv_place place;
    zcp_priv_pool *pool = zcp_priv_held_pool(chunk, &place);
    // Relaxed: as its size.
    return pool ? (uint32_t)(zcp_priv_load_relaxed(&zcp_priv_record_at(pool, place.i)->note) >> 32) : 0;
}

ZEROCP_API uint64_t zcp_chunk_use_count(const zcp_chunk *chunk) {
    zcp_priv_place place;
    zcp_priv_pool *pool = zcp_priv_held_pool(chunk, &place);
    return pool ? zcp_priv_use_count(pool, place.i, chunk->manager->view.client) : 0;
}

ZEROCP_API uint64_t zcp_chunk_token(const zcp_chunk *chunk) {
    zcp_priv_place place;
    zcp_priv_pool *pool = zcp_priv_pool_of(chunk, &place);
    if (!pool) return 0;
    const zcp_priv_view *view = &chunk->manager->view;
    bool checked = view->flags & ZCP_CHECKED;
    if (zcp_priv_record_token(pool, place.i, view->client, place.generation, checked) == ZCP_PRIV_NOT_HELD) return 0;
    // Ticket, size and payload travel with the token. Pairs with T2.
    atomic_thread_fence(memory_order_release);                                                      // T1
    return (uint64_t)place.generation << 32 | chunk->index;
}

// Has the number another pool than this client knows or can use? Whoever added that may not have raised the epoch yet.
// What could not be met is tried again from time to time.
ZCP_PRIV_SETUP bool zcp_priv_pool_unmet(const zcp_manager *manager, uint32_t number) {
    const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, number);
    // As V3.
    uint64_t state = manager->view.signals ? zcp_priv_load_acquire(&manager->header->pools[number].state) : 0;
    if (zcp_priv_pools_changed(manager)) return true;
    if (state == 0 || (uint32_t)state == ZCP_PRIV_POOL_GONE) return false;
    if (pool && pool->serial == state >> 32 && pool->data) return false;
    // Relaxed: a look.
    bool met = zcp_priv_load_relaxed(&manager->unmet[number].status) == ZCP_OK;
    return met || zcp_priv_meets_again(manager);
}

// HELD: *place is held. Else NOT_HELD: nobody holds that generation; GARBAGE; or *known is false: there is no such
// chunk.
ZCP_PRIV_INLINE zcp_priv_holding zcp_priv_acquire_once(zcp_manager *manager, uint64_t token, zcp_priv_place *place,
                                                       bool *known) {
    *known = zcp_priv_place_of(manager, (uint32_t)token, (uint32_t)(token >> 32), place);
    if (ZCP_PRIV_UNLIKELY(!*known)) return ZCP_PRIV_NOT_HELD;
    // Pairs with T1.
    atomic_thread_fence(memory_order_acquire);                                                      // T2
    return zcp_priv_acquire(place->pool, place->i, manager->view.client, place->generation);
}

// Before an acquire by a manager that is not open, or has max_chunks.
ZCP_PRIV_COLD zcp_status zcp_priv_acquire_admit(zcp_manager *manager, uint64_t token) {
    zcp_priv_place place;
    if (!zcp_priv_usable(manager)) return zcp_priv_why_unusable(manager);
    return zcp_priv_place_of(manager, (uint32_t)token, (uint32_t)(token >> 32), &place)
               ? zcp_priv_admit(manager, zcp_priv_counts_at(place.pool, place.i)) : ZCP_OK;
}

// A token of no chunk that somebody holds (pool NULL: of none that is known). OK: once more, because this client had
// missed a change of pools.
ZCP_PRIV_COLD zcp_status zcp_priv_acquire_missed(zcp_manager *manager, uint64_t token, zcp_priv_pool *pool, bool again,
                                                 zcp_chunk *chunk) {
    uint32_t number = (uint32_t)token >> ZCP_PRIV_POOL_SHIFT;
    bool known = pool != NULL;
    *chunk = zcp_priv_no_chunk;
    // This client may have been the last one to leave.
    if (known) zcp_priv_after_free(pool);                                                           // step left
    if (known) zcp_priv_held_ends(manager, zcp_priv_counts_at(pool, (uint32_t)token & (ZCP_MAX_CHUNKS - 1)));
    if (!again) {
        zcp_status status = zcp_priv_may_change(manager);
        if (status != ZCP_OK) return status;
        if (zcp_priv_pool_unmet(manager, number)) {
            bool outermost = zcp_priv_call_begin();
            // only this pool has to be met.
            (void)zcp_priv_catch_up(manager);
            return zcp_priv_call_end(outermost, zcp_priv_acquire_admit(manager, token));
        }
    }
    pool = zcp_priv_view_pool(&manager->view, number);
    // Relaxed: a look.
    if (zcp_priv_load_relaxed(&manager->unmet[number].status) != ZCP_OK)
        return zcp_priv_fail_unmet(manager, number, pool ? ZCP_ERR_MAPPING : ZCP_OK, "");
    // A pool that is gone.
    bool was = !pool && token >> 32 != 0 && manager->view.signals
        // Relaxed: a figure.
        && zcp_priv_load_relaxed(&manager->header->pools[number].state) != 0;
    return known || was ? zcp_priv_fail(ZCP_ERR_STALE, 0,
                                        "%s: token %016llx: the chunk is no longer held, or its "
                                        "owner has made no token of it",
                                        manager->name, (unsigned long long)token)
                        : zcp_priv_fail(ZCP_ERR_INVALID_TOKEN, 0, "%s: token %016llx names no chunk of this instance",
                                        manager->name, (unsigned long long)token);
}

ZCP_PRIV_WHOLE ZEROCP_API zcp_status zcp_chunk_acquire(zcp_manager *manager, uint64_t token, zcp_chunk *chunk) {
    zcp_priv_place place;
    bool known;
    if (ZCP_PRIV_UNLIKELY(!chunk))
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "the place for the handle is NULL");
    // Relaxed: as in usable.
    if (ZCP_PRIV_UNLIKELY(!manager || zcp_priv_load_relaxed(&manager->live) == 0)) {
        *chunk = zcp_priv_no_chunk;
        zcp_status status = zcp_priv_acquire_admit(manager, token);
        if (status != ZCP_OK) return status;
    }
    for (bool again = false;; again = true) {
        zcp_priv_holding outcome = zcp_priv_acquire_once(manager, token, &place, &known);
        if (ZCP_PRIV_LIKELY(outcome == ZCP_PRIV_HELD)) {
            zcp_priv_handle(chunk, manager, &place);
            return ZCP_OK;
        }
        if (outcome == ZCP_PRIV_GARBAGE) {
            *chunk = zcp_priv_no_chunk;
            return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: token %016llx: the chunk's record holds garbage",
                                 manager->name, (unsigned long long)token);
        }
        zcp_status status = zcp_priv_acquire_missed(manager, token, known ? place.pool : NULL, again, chunk);
        if (status != ZCP_OK) return status;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// >>allocate  The ladder to a chunk
// ---------------------------------------------------------------------------------------------------------------------
//   1  cached      off this thread's stack                        no locked instruction     zcp_chunk_allocate
//   2  on loan     a hint of this thread's loan, then the claim   one                       zcp_priv_allocate_from_loan
//   3  listed      another leaf's hints become the loan           two or three              zcp_priv_allocate_from_list
//   4  elsewhere   other pools that serve, others' loans          some                      zcp_priv_take_hinted
//   5  scan        recovers the dead, then looks at every record  system calls              zcp_priv_take_after_scan
//
// Each rung falls to the next when it finds nothing. Allocate and release are bound by how many loads and stores they
// make: hence functions of their own for whatever needs more registers, called at the end only, so that nothing has to
// be saved.
//
// Labels  word      order    partner      what breaks without it
//   C2    state     acq_rel  F1 - F6 U6   as C1, by a loan
//   E4    loan      acquire  E1 E5 E7     as E1
//   E7    loan      release  E4           as E1
//   E8    (fence)   acquire  E2 Q1        a chunk that is free all the time is in neither leaf nor loan
//   Y3    allocated release  Y5           who sees that the thread is done does not see what it has taken
//   U6    (fence)   acquire  C1 C2        a scan sees a claim, not what the claimer freed before: EXHAUSTED in vain

// Claims a chunk that a hint names. false: the hint was stale.
ZCP_PRIV bool zcp_priv_get(zcp_priv_pool *pool, uint32_t i, uint32_t client, uint32_t *generation) {
    ZEROCP_STEP("popped");
    if (!zcp_priv_claim(zcp_priv_record_at(pool, i), zcp_priv_owned_bits(client), generation)) return false;
    ZEROCP_STEP("claimed");
    // Relaxed: whoever else reads it got a handle or token from here.
    zcp_priv_store_relaxed(&zcp_priv_counts_at(pool, i)->owned, zcp_priv_owned(*generation, 1));
    return true;
}

ZCP_PRIV_INLINE void zcp_priv_describe(zcp_priv_record *record, uint64_t size, uint64_t mark, uint64_t allocated) {
    // Relaxed, both: the token's fence carries them.
    zcp_priv_store_relaxed(&record->size, size | mark);
    // No tag yet.
    zcp_priv_store_relaxed(&record->note, (uint32_t)allocated);
}

// Some are taken off the stack.
ZCP_PRIV_INLINE void zcp_priv_count_uncached(zcp_priv_lease *lease, uint64_t allocated) {
    // Pairs with Y5.
    zcp_priv_store_release(&lease->allocated, allocated);                                           // Y3
}

// Describes a chunk and counts it; by a thread with a lease. true: that may be a new peak. lent: it is not from the
// stack.
ZCP_PRIV_INLINE bool zcp_priv_describe_leased(const zcp_priv_local *local, zcp_priv_lease *lease,
                                              zcp_priv_record *record, uint64_t size, bool lent) {
    uint64_t allocated = zcp_priv_load_relaxed(&lease->allocated), freed = zcp_priv_load_relaxed(&lease->freed);
    zcp_priv_describe(record, size, local->lease_bits, allocated);
    if (lent) zcp_priv_store_relaxed(&lease->allocated, allocated + 1);
    else zcp_priv_count_uncached(lease, allocated + 1);
    return (int32_t)(uint32_t)(allocated - freed) >= local->peak_check_at;
}

// The same, for whoever may have no lease in that pool.
ZCP_PRIV void zcp_priv_describe_by(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t i, uint64_t size) {
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    if (local->lease && local->pool == pool) {
        if (zcp_priv_describe_leased(local, local->lease, record, size, false)) zcp_priv_check_peak(pool, local);
        return;
    }
    zcp_priv_describe(record, size, 0, zcp_priv_load_relaxed(&pool->leases->allocated));
    ZEROCP_COUNT(&pool->leases->allocated, 1);
    // A look at more is too much for each.
    if (zcp_priv_lease_count(pool->list.leaves) <= 16) zcp_priv_check_peak(pool, NULL);
}

// Takes a chunk whose hint was on loan, as get would do it; *held: its state before. false: the hint was stale, or
// garbage.
ZCP_PRIV_INLINE bool zcp_priv_claim_loaned(zcp_priv_local *local, uint64_t i, uint64_t *held,
                                           zcp_priv_record **taken) {
    // Garbage.
    if (ZCP_PRIV_UNLIKELY(i >= local->count)) return false;
    zcp_priv_record *record = zcp_priv_local_record(local, i);
    // A look; C2 decides.
    uint64_t s = zcp_priv_load_relaxed(&record->state);
    if (ZCP_PRIV_UNLIKELY(!zcp_priv_is_free(s) || s == 0
                          // As C1.
                          || !zcp_priv_cas_acq_rel(&record->state, &s, s | local->owned_bits))) return false;  // C2
    ZEROCP_STEP("claimed");
    // Relaxed: as in get.
    zcp_priv_store_relaxed(&local->counts[i].owned, s | 1);
    *held = s;
    *taken = record;
    return true;
}

// Takes hints out of the loan; `left` stays.
ZCP_PRIV_INLINE void zcp_priv_loan_leave(zcp_priv_lease *lease, uint64_t left) {
    // As E1.
    zcp_priv_store_release(&lease->loan, left);                                                     // E7
    ZEROCP_STEP("popped");
}

// A chunk whose hint is on loan to this thread, which has a lease. false: none, or the hint was stale.
ZCP_PRIV_INLINE bool zcp_priv_take_loan(zcp_priv_local *local, uint64_t *i, uint64_t *held, zcp_priv_record **taken) {
    uint64_t loan = zcp_priv_loan_seen(local);
    if (ZCP_PRIV_UNLIKELY(loan == 0)) return false;
    *i = local->first + zcp_priv_lowest_bit(loan);
    zcp_priv_loan_leave(local->lease, loan & (loan - 1));
    return zcp_priv_claim_loaned(local, *i, held, taken);
}

// Makes a chunk that this thread had cached one that is in use.
ZCP_PRIV_INLINE zcp_priv_record *zcp_priv_uncache(zcp_priv_local *local, uint64_t i, uint64_t id) {
    uint64_t owned = id >> 32 << 32 | 1;
    // Relaxed: as in get.
    zcp_priv_store_relaxed(&local->counts[i].owned, owned);
    zcp_priv_record *record = zcp_priv_local_record(local, i);
    // Relaxed: the token's fence carries it.
    zcp_priv_store_relaxed(&record->state, owned - 1 + local->owned_bits);
    ZEROCP_STEP("uncached");
    return record;
}

// A chunk through the hints in the list, into a loan if the thread has a lease.
ZCP_PRIV bool zcp_priv_take_listed(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t client, uint32_t *i,
                                   uint32_t *generation) {
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {
        if (!(local->lease ? zcp_priv_loan_pop(pool, local, i) : zcp_priv_list_pop_hinted(&pool->list, i)))
            return false;
        // Else the hint was stale: the next.
        if (zcp_priv_get(pool, *i, client, generation)) return true;
    }
    return false;
}

// A chunk that is on loan to anybody.
ZCP_PRIV_NOINLINE bool zcp_priv_take_loaned(zcp_priv_pool *pool, uint32_t client, uint32_t *i, uint32_t *generation) {
    // Pairs with E2 and Q1: a leaf was empty or without hint, so its loan is seen.
    atomic_thread_fence(memory_order_acquire);                                                      // E8
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++) {
        // Pairs with E1, E5, E7.
        uint64_t loan = zcp_priv_load_acquire(&pool->leases->items[k].loan);                        // E4
        if (loan == 0) continue;
        // After E4; a newer one's chunks are no worse.
        uint32_t leaf = zcp_priv_load_relaxed(&pool->leases->items[k].leaf);
        for (; loan != 0 && leaf < pool->list.leaves; loan &= loan - 1) {
            *i = (leaf << pool->list.leaf_shift) + zcp_priv_lowest_bit(loan);
            if (*i < pool->count && zcp_priv_get(pool, *i, client, generation)) return true;
        }
    }
    return false;
}

// A chunk by any hint. false: none in the list, nor on loan, nor in the list again.
ZCP_PRIV_NOINLINE bool zcp_priv_take(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t client, uint32_t *i,
                                     uint32_t *generation) {
    // If it is not to take, it gives back, and so finds what it had itself.
    if (local->cached && !zcp_priv_cache_begin(local, local->lease, 1)) zcp_priv_cache_flush(pool, local);
    // A pool that serves for another one.
    if (local->cached) {
        uint64_t id = zcp_priv_cache_top(local, local->cached);
        *i = (uint32_t)id & (ZCP_MAX_CHUNKS - 1);
        *generation = (uint32_t)(id >> 32);
        zcp_priv_uncache(local, *i, id);
        return true;
    }
    return zcp_priv_take_listed(pool, local, client, i, generation) || zcp_priv_take_loaned(pool, client, i, generation)
        || zcp_priv_take_listed(pool, local, client, i, generation);
}

// A chunk of the pools that serve, by the records: hints may go to and fro between the list and the loans. *again: a
// record was free at each look at it, but always taken by others.
ZCP_PRIV bool zcp_priv_view_take_anywhere(zcp_priv_view *view, const zcp_priv_table *table, uint32_t first,
                                          zcp_priv_place *place, bool *again) {
    zcp_priv_pool *pool;
    *again = false;
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++) {
        place->pool = pool;
        for (place->i = 0; place->i < pool->count; place->i++) {                                    // step look-at-all
            uint32_t tries = 0;
            ZEROCP_STEP("record");
            while (zcp_priv_may_claim(zcp_priv_record_at(pool, place->i)) && tries++ < 4)
                if (zcp_priv_get(pool, place->i, view->client, &place->generation)) return true;
            if (tries > 4) *again = true;
        }
    }
    return false;
}

// Counts up whenever a chunk of the pools that serve comes to be had by all.
ZCP_PRIV uint64_t zcp_priv_view_freed_sum(const zcp_priv_view *view, const zcp_priv_table *table, uint32_t first) {
    uint64_t sum = 0;
    zcp_priv_pool *pool;
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++)
        sum += zcp_priv_freed_sum(pool);
    return sum;
}

// Have the pools that serve so many chunks at most?
ZCP_PRIV bool zcp_priv_view_is_small(const zcp_priv_view *view, const zcp_priv_table *table, uint32_t first,
                                     uint64_t most) {
    uint64_t chunks = 0;
    zcp_priv_pool *pool;
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++)
        chunks += pool->count;
    return chunks <= most;
}

// One look at every record of the pools that serve; *freed: their freed_sum before it, and then after it. CLAIMED:
// *place is claimed. NONE_FREE: no chunk was free all the while, and no release was finished meanwhile: what is free
// now is so by one that is not finished. DISTURBED: chunks came and went, and nothing is known.
ZCP_PRIV zcp_priv_scanning zcp_priv_scan_once(zcp_priv_view *view, const zcp_priv_table *table, uint32_t first,
                                                  zcp_priv_place *place, uint64_t *freed) {
    uint64_t before = *freed;
    bool again;
    if (zcp_priv_view_take_anywhere(view, table, first, place, &again)) return ZCP_PRIV_CLAIMED;
    ZEROCP_STEP("looked");
    // Who was seen to have claimed a chunk has counted what it freed before. Pairs with C1 C2.
    atomic_thread_fence(memory_order_acquire);                                                      // U6
    *freed = zcp_priv_view_freed_sum(view, table, first);
    return *freed == before && !again ? ZCP_PRIV_NONE_FREE : ZCP_PRIV_DISTURBED;
}

// Tells the threads that cache chunks of the pools that serve that somebody needs them.
ZCP_PRIV void zcp_priv_view_recall(zcp_priv_view *view, const zcp_priv_table *table, uint32_t first) {
    zcp_priv_pool *pool;
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++)
        if (pool->cache_chunks) zcp_priv_pool_recall(pool);
}

// Looks at every record of the pools that serve: what nobody holds becomes free, what is free gets its hint. So neither
// one who was stopped between freeing and pushing nor a lost hint hides a chunk. What idle threads cache becomes free,
// too. Returns how many are cached still.
ZCP_PRIV uint32_t zcp_priv_scan_and_mend(zcp_priv_view *view, const zcp_priv_table *table, uint32_t first) {
    uint32_t cached = 0;
    zcp_priv_pool *pool;
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++) {
        bool freed = false;
        uint32_t used = 0, kept = 0;
        for (uint32_t i = 0; i < pool->count; i++) {
            if (zcp_priv_reap(pool, i) == ZCP_PRIV_FREED) freed = true;
            // Relaxed: for a hint and a figure.
            uint64_t s = zcp_priv_load_relaxed(&zcp_priv_record_at(pool, i)->state);
            if (zcp_priv_is_free(s)) zcp_mpmc_list_push(&pool->list, i);
            kept += zcp_priv_is_cached(s);
            used += zcp_priv_is_held(s);
            zcp_priv_leaf_mend(&pool->list, i);
        }
        zcp_priv_raise_peak(pool, used);
        if (kept && pool->cache_chunks) {
            uint32_t taken = zcp_priv_pool_reclaim(pool);
            kept -= taken < kept ? taken : kept;
            freed = freed || taken != 0;
        }
        cached += kept;
        if (freed) zcp_priv_after_free(pool);
    }
    return cached;
}

// Learns which pools have come and gone, and lets go of those that went. After W0: a thread that has seen the recall is
// not reminded.
ZCP_PRIV_SETUP void zcp_priv_answer_pool_changes(zcp_manager *manager, zcp_priv_pool *pool) {
    zcp_priv_catch_up_quietly(manager);
    zcp_priv_view_leave_retiring(&manager->view);
    zcp_priv_after_free(pool);
}

// A thread has seen a recall.
ZCP_PRIV_COLD void zcp_priv_answer_recall(zcp_manager *manager, zcp_priv_local *local) {
    zcp_priv_pool *pool = local->pool;
    zcp_priv_forget();
    zcp_priv_local_answer_recall(pool, local);
    zcp_priv_answer_pool_changes(manager, pool);                                                    // step attend-looks
}

// Makes ready what the calling thread keeps of a pool. false: the pool gives out nothing more.
ZCP_PRIV bool zcp_priv_ready(zcp_manager *manager, zcp_priv_pool *pool, zcp_priv_local *local) {
    zcp_priv_view *view = &manager->view;
    // The quick ways have no fence.
    bool fresh = local->pool == NULL,
         no_fast_path = (view->flags & ZCP_CHECKED) || zcp_priv_load_relaxed(&zcp_priv_barriers) < 0;
    if (zcp_priv_thread) {
        zcp_priv_local_begin(pool, local, view->client, no_fast_path);
        // There was no lease: but threads that have ended may keep some.
        if (ZCP_PRIV_UNLIKELY(local->lease_retry == ZCP_PRIV_LEASE_RETRY) && zcp_priv_threads_collect(true)) {
            local->lease_retry = 0;
            zcp_priv_local_begin(pool, local, view->client, no_fast_path);
        }
        if (fresh) zcp_priv_answer_pool_changes(manager, pool);
        else if (zcp_priv_recalled(local)) zcp_priv_answer_recall(manager, local);
    }
    // Looked at after W0: who sees it live here will be told.
    return !zcp_priv_pool_is_retiring(pool);                                                        // step live
}

// A chunk of the pools that serve, by the hints.
ZCP_PRIV bool zcp_priv_take_hinted(zcp_manager *manager, const zcp_priv_table *table, uint32_t first,
                                   zcp_priv_place *place) {
    zcp_priv_view *view = &manager->view;
    zcp_priv_pool *pool;
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++) {
        zcp_priv_local *local = zcp_priv_view_local(view, pool->number);
        zcp_priv_local_switch_pool(local, pool);
        place->pool = pool;
        if (zcp_priv_ready(manager, pool, local)
            && zcp_priv_take(pool, local, view->client, &place->i, &place->generation))
            return true;
    }
    return false;
}

#define ZCP_PRIV_SCAN_NS 10000000u              // for so long looks that were disturbed are repeated,
#define ZCP_PRIV_SCANS 3u                       // but so often at least;
#define ZCP_PRIV_SCANS_AT_ONCE 64u              // after so many it pauses before each: garbage may count up for ever
#define ZCP_PRIV_SMALL_POOL 256u                // so many records are looked at in less time than a call may take

// Looks at every record until a look was not disturbed, for a bounded time from `began` on. true: *place is claimed.
// Else *disturbed: after so many looks nothing is known; 0: there is none.
ZCP_PRIV_COLD bool zcp_priv_take_by_scan(zcp_manager *manager, const zcp_priv_table *table, uint32_t first,
                                         uint64_t began, zcp_priv_place *place, uint32_t *disturbed) {
    zcp_priv_view *view = &manager->view;
    uint64_t freed = zcp_priv_view_freed_sum(view, table, first);
    for (*disturbed = 1;; ++*disturbed) {
        zcp_priv_scanning outcome = zcp_priv_scan_once(view, table, first, place, &freed);
        if (outcome == ZCP_PRIV_CLAIMED) return true;
        if (outcome == ZCP_PRIV_NONE_FREE) break;
        if (*disturbed >= ZCP_PRIV_SCANS && zcp_priv_now_ns() - began >= ZCP_PRIV_SCAN_NS) return false;
        if (*disturbed >= ZCP_PRIV_SCANS_AT_ONCE) zcp_priv_sleep_us(100);
    }
    *disturbed = 0;
    freed += zcp_priv_mix((uintptr_t)table);
    // Relaxed: it stands for itself.
    zcp_priv_store_relaxed(&manager->scans[table->order[first]].freed, freed);
    return false;
}

// Does the last look that was not disturbed still hold? It does if no release was finished since. In small pools it is
// made again all the same, for the sake of releases that were not.
ZCP_PRIV_COLD bool zcp_priv_scan_still_holds(const zcp_manager *manager, const zcp_priv_table *table, uint32_t first) {
    const zcp_priv_view *view = &manager->view;
    if (zcp_priv_view_is_small(view, table, first, ZCP_PRIV_SMALL_POOL)) return false;
    // Relaxed: as its store.
    uint64_t freed = zcp_priv_load_relaxed(&manager->scans[table->order[first]].freed);
    return freed == zcp_priv_view_freed_sum(view, table, first) + zcp_priv_mix((uintptr_t)table);
}

// Nothing in the hints: looks at every record, unless the last look still holds, for a while. Then one thread recovers
// before it looks. As take_by_scan.
ZCP_PRIV_COLD bool zcp_priv_take_after_scan(zcp_manager *manager, const zcp_priv_table *table, uint32_t first,
                                            zcp_priv_place *place, uint32_t *disturbed) {
    zcp_priv_last_scan *looked = &manager->scans[table->order[first]];
    uint64_t began = zcp_priv_now_ns(), ended = began;
    uint32_t idle = 0;
    zcp_recovery report = {0, 0};
    *disturbed = 0;
    zcp_priv_rings_collect(manager, false);
    zcp_priv_view_recall(&manager->view, table, first);
    // Relaxed: it limits how often.
    bool rests = began < zcp_priv_load_relaxed(&looked->until);
    if (rests && zcp_priv_scan_still_holds(manager, table, first)) return false;
    bool recovers = !rests && zcp_priv_cas_acquire(&looked->busy, &idle, 1u);
    if (recovers) {
        if (zcp_priv_recover(manager, &report) != ZCP_OK)
            ZEROCP_LOG(ZCP_LOG_WARNING, "%s: recovery before exhaustion: %s", manager->name, zcp_last_message());
        zcp_priv_store_relaxed(&looked->cached, zcp_priv_scan_and_mend(&manager->view, table, first));
        ended = zcp_priv_now_ns();
    }
    bool got = zcp_priv_take_by_scan(manager, table, first, ended, place, disturbed);
    if (!recovers) return got;
    if (!got) {
        uint64_t rest = 10 * (ended - began);
        if (rest < 1000000) rest = 1000000;
        // It may have been stopped meanwhile.
        if (rest > 1000000000) rest = 1000000000;
        zcp_priv_store_relaxed(&looked->until, ended + rest);
    }
    // Pairs with the CAS: one after the other.
    zcp_priv_store_release(&looked->busy, 0u);
    return got;
}

// What a message says of looks that were disturbed.
ZCP_PRIV_COLD const char *zcp_priv_explain_disturbed(char text[64], uint32_t disturbed) {
    text[0] = 0;
    if (disturbed) snprintf(text, 64, "; chunks came and went during %u looks", disturbed);
    return text;
}

ZCP_PRIV_COLD zcp_status zcp_priv_why_no_chunk(zcp_manager *manager, const zcp_priv_table *table, uint64_t size,
                                               uint32_t disturbed) {
    const zcp_priv_view *view = &manager->view;
    zcp_status status = zcp_priv_may_grow(manager);
    if (status == ZCP_OK) status = zcp_priv_may_change(manager);
    if (status != ZCP_OK) return status;
    if (size == 0) return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "%s: a chunk of 0 bytes", manager->name);
    uint32_t unmet = zcp_priv_unmet_first(manager, size);
    if (unmet < ZCP_MAX_LIVE_POOLS && (table->count == 0 || size > table->last[table->count - 1] + 1))
        return zcp_priv_fail_unmet(manager, unmet, ZCP_ERR_MAPPING, "no other pool has chunks that large; ");
    if (table->count == 0)
        return zcp_priv_fail(ZCP_ERR_TOO_LARGE, 0, "%s: %llu bytes; all its pools are retired", manager->name,
                             (unsigned long long)size);
    uint64_t largest = table->last[table->count - 1] + 1;
    if (size > largest)
        return zcp_priv_fail(ZCP_ERR_TOO_LARGE, 0, "%s: %llu bytes; the largest chunks have %llu", manager->name,
                             (unsigned long long)size, (unsigned long long)largest);
    zcp_priv_pool *pool = table->pools[zcp_priv_table_fit(table, size)];
    // Relaxed: a figure.
    uint32_t cached = zcp_priv_load_relaxed(&manager->scans[pool->number].cached);
    char kept[64] = "", looks[64];
    if (cached) snprintf(kept, sizeof kept, ", or (%u of them) cached by a thread", cached);
    if (unmet < ZCP_MAX_LIVE_POOLS)
        return zcp_priv_fail_unmet(manager, unmet, ZCP_ERR_EXHAUSTED, "no chunk is free; ");
    return zcp_priv_fail(ZCP_ERR_EXHAUSTED, 0, "%s: %llu bytes: all %u chunks of %llu bytes%s are in use%s%s%s",
                         manager->name, (unsigned long long)size, pool->count, (unsigned long long)pool->chunk_size,
                         view->flags & ZCP_FALLBACK ? " and all larger ones" : "", kept,
                         zcp_priv_explain_disturbed(looks, disturbed), zcp_priv_explain_recovery(manager).text);
}

// The handle of a chunk that was claimed.
ZCP_PRIV void zcp_priv_claimed(zcp_chunk *chunk, zcp_manager *manager, const zcp_priv_place *place, uint64_t size) {
    zcp_priv_describe_by(place->pool, zcp_priv_view_local(&manager->view, place->pool->number), place->i, size);
    zcp_priv_held_begins(manager, zcp_priv_counts_at(place->pool, place->i));
    zcp_priv_handle(chunk, manager, place);
}

ZCP_PRIV_COLD void zcp_priv_count_failure(zcp_priv_pool *pool, uint32_t disturbed) {
    ZEROCP_COUNT(&pool->leases->failures, 1);
    if (disturbed) ZEROCP_COUNT(&pool->leases->disturbed, 1);
}

// All that the hints of the pool that fits best cannot serve: other pools, the look, and the reasons why not. counts:
// as a failure, if it finds none.
ZCP_PRIV_COLD zcp_status zcp_priv_allocate_and_scan(zcp_manager *manager, uint64_t size, zcp_chunk *chunk,
                                                    bool counts) {
    zcp_priv_place place;
    if (!chunk) return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "the place for the handle is NULL");
    *chunk = zcp_priv_no_chunk;
    if (!zcp_priv_usable(manager)) return zcp_priv_why_unusable(manager);
    zcp_status status = zcp_priv_admit(manager, NULL);
    if (status != ZCP_OK) return status;
    if (zcp_priv_thread == 0) zcp_priv_thread_begin();
    zcp_priv_forget();
    const zcp_priv_table *table;
    uint32_t first, round = 0, disturbed = 0;
    do {
        zcp_priv_catch_up_if_changed(manager);
        table = zcp_priv_view_table(&manager->view);
        first = zcp_priv_table_fit(table, size);
        if (table->order[first] != ZCP_PRIV_NO_POOL
            && (zcp_priv_take_hinted(manager, table, first, &place)
                || zcp_priv_take_after_scan(manager, table, first, &place, &disturbed))) {
            zcp_priv_claimed(chunk, manager, &place, size);
            return ZCP_OK;
        }
        // Once more, if pools have come or gone meanwhile.
    } while (++round < 16 && (table != zcp_priv_view_table(&manager->view) || zcp_priv_pools_changed(manager)));
    status = zcp_priv_why_no_chunk(manager, table, size, disturbed);
    if (counts && status == ZCP_ERR_EXHAUSTED) zcp_priv_count_failure(table->pools[first], disturbed);
    return status;
}

ZCP_PRIV_COLD zcp_status zcp_priv_allocate_slow(zcp_manager *manager, uint64_t size, zcp_chunk *chunk) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_allocate_and_scan(manager, size, chunk, true));
}

// The next hint is not one on loan to this thread, or was stale. The list's hints will do, unless pools have come or
// gone: it is here that a busy thread sees it, if whoever changed them was stopped or killed before the recall.
ZCP_PRIV_NOINLINE zcp_status zcp_priv_allocate_from_list(zcp_manager *manager, uint64_t size, zcp_chunk *chunk,
                                                      zcp_priv_local *local) {
    zcp_priv_pool *pool = local->pool;
    zcp_priv_place place;
    if (ZCP_PRIV_UNLIKELY(zcp_priv_pools_changed(manager) || zcp_priv_pool_is_retiring(pool)
                          || !zcp_priv_take_listed(pool, local, manager->view.client, &place.i, &place.generation)))
        return zcp_priv_allocate_slow(manager, size, chunk);
    place.pool = pool;
    zcp_priv_describe_by(pool, local, place.i, size);
    zcp_priv_handle(chunk, manager, &place);
    return ZCP_OK;
}

// Makes the pool that fits the recent one. false: there is none, or this thread keeps nothing of it, or nothing is to
// be allocated, or each chunk is to be counted.
ZCP_PRIV_NOINLINE bool zcp_priv_recent_set(zcp_manager *manager, uint64_t size) {
    // Relaxed: as in usable.
    if (ZCP_PRIV_UNLIKELY(!manager || zcp_priv_load_relaxed(&manager->live) == 0)) return false;
    const zcp_priv_table *table = zcp_priv_view_table(&manager->view);
    uint32_t at = zcp_priv_table_fit(table, size), pool = table->order[at];
    if (ZCP_PRIV_UNLIKELY(pool == ZCP_PRIV_NO_POOL)) return false;
    zcp_priv_local *local = zcp_priv_view_local(&manager->view, pool);
    // NULL, or earlier of that number.
    if (ZCP_PRIV_UNLIKELY(local->pool != table->pools[at])) return false;
    // Last: a size less one.
    uint64_t least = at == 0 ? 1 : table->last[at - 1] + 2;
    zcp_priv_last = (zcp_priv_recent){ zcp_priv_load_relaxed(&manager->live), least, table->last[at] + 1 - least,
                                       local, pool << ZCP_PRIV_POOL_SHIFT };
    return true;
}

// Allocate and release are bound by how many instructions, loads and stores they are: hence functions of their own for
// what needs more registers than a call may use up, and calls of those at the end only, so that nothing is to be saved.
ZCP_PRIV_NOINLINE zcp_status zcp_priv_allocate_from_loan(zcp_manager *manager, uint64_t size, zcp_chunk *chunk,
                                                    zcp_priv_local *local) {
    uint64_t i, held;
    zcp_priv_record *record;
    if (ZCP_PRIV_UNLIKELY(!zcp_priv_take_loan(local, &i, &held, &record)))
        return zcp_priv_allocate_from_list(manager, size, chunk, local);
    zcp_priv_handle_set(chunk, manager, local->data + i * local->stride, held | zcp_priv_last.base | i);
    if (ZCP_PRIV_LIKELY(!zcp_priv_describe_leased(local, local->lease, record, size, true))) return ZCP_OK;
    return zcp_priv_check_peak(local->pool, local);
}

// Another pool than the last one, or none. Once that is the recent one, the size fits: it comes here again only if the
// manager is closed meanwhile.
ZCP_PRIV_NOINLINE zcp_status zcp_priv_allocate_in_other_pool(zcp_manager *manager, uint64_t size, zcp_chunk *chunk) {
    return chunk && zcp_priv_recent_set(manager, size) ? zcp_chunk_allocate(manager, size, chunk)
                                                       : zcp_priv_allocate_slow(manager, size, chunk);
}

ZEROCP_API zcp_status zcp_chunk_allocate(zcp_manager *manager, uint64_t size, zcp_chunk *chunk) {
    const zcp_priv_recent *last = &zcp_priv_last;
    // Relaxed: as in usable.
    if (ZCP_PRIV_UNLIKELY(!chunk || !manager || zcp_priv_load_relaxed(&manager->live) != last->live
                          || size - last->least > last->span))
        return zcp_priv_allocate_in_other_pool(manager, size, chunk);
    zcp_priv_local *local = last->local;
    zcp_priv_lease *lease = local->lease;
    if (ZCP_PRIV_UNLIKELY(!lease)) return zcp_priv_allocate_slow(manager, size, chunk);
    uint32_t cached = local->cached;
    if (cached == 0 && ZCP_PRIV_LIKELY(!zcp_priv_recalled(local)))
        return zcp_priv_allocate_from_loan(manager, size, chunk, local);
    if (cached == 0 || ZCP_PRIV_UNLIKELY(!zcp_priv_cache_begin(local, lease, 1)))
        // Which answers the recall.
        return zcp_priv_allocate_slow(manager, size, chunk);
    uint64_t id = zcp_priv_cache_top(local, cached), i = id & (ZCP_MAX_CHUNKS - 1);
    // First, as the caller looks at it at once: 6 % (measured on Zen 4).
    zcp_priv_handle_set(chunk, manager, local->data + i * local->stride, id);
    ZCP_PRIV_KEEP_STORES_APART();
    zcp_priv_record *record = zcp_priv_uncache(local, i, id);
    if (ZCP_PRIV_LIKELY(!zcp_priv_describe_leased(local, lease, record, size, false))) return ZCP_OK;
    return zcp_priv_check_peak(local->pool, local);
}

// Up to `count` chunks the ways of zcp_chunk_allocate that need no look elsewhere. Returns how many; 0 also if a recall
// is to be answered.
ZCP_PRIV_NOINLINE uint32_t zcp_priv_allocate_several(zcp_manager *manager, uint64_t size, zcp_chunk *chunks,
                                                     uint32_t count) {
    const zcp_priv_recent *last = &zcp_priv_last;
    // Relaxed: as in usable.
    if (!manager || zcp_priv_load_relaxed(&manager->live) != last->live || size - last->least > last->span) return 0;
    zcp_priv_local *local = last->local;
    zcp_priv_lease *lease = local->lease;
    if (!lease || zcp_priv_recalled(local)) return 0;
    uint32_t n = 0, cached = local->cached < count ? local->cached : count;
    if (cached && !zcp_priv_cache_begin(local, lease, cached)) return 0;
    uint64_t allocated = zcp_priv_load_relaxed(&lease->allocated), loan = 0, base = last->base, first = local->first,
             mark = local->lease_bits;
    if (cached < count) {
        // All that are wanted at once: until they are claimed, a scan finds them.
        uint64_t left = loan = zcp_priv_loan_seen(local);
        for (uint32_t k = cached; k < count && left; k++) left &= left - 1;
        if (loan) zcp_priv_loan_leave(lease, left);
        loan &= ~left;
    }
    while (n < count) {
        zcp_priv_record *record;
        uint64_t id, i;
        if (n < cached) {
            id = zcp_priv_cache_top(local, local->cached);
            i = id & (ZCP_MAX_CHUNKS - 1);
            record = zcp_priv_uncache(local, i, id);
        } else {
            if (loan == 0) break;
            i = first + zcp_priv_lowest_bit(loan);
            loan &= loan - 1;
            if (!zcp_priv_claim_loaned(local, i, &id, &record)) continue;
            id |= base | i;
        }
        zcp_priv_handle_set(&chunks[n++], manager, local->data + i * local->stride, id);
        zcp_priv_describe(record, size, mark, allocated++);
    }
    if (n) zcp_priv_count_uncached(lease, allocated);
    if (zcp_priv_in_use(local) > local->peak_check_at) zcp_priv_check_peak(local->pool, local);
    return n;
}

// Gives back what bulk has, and empties the rest.
ZCP_PRIV_SETUP zcp_status zcp_priv_bulk_fail(zcp_chunk *chunks, uint32_t count, uint32_t done, zcp_status status) {
    zcp_priv_failure failure = zcp_priv_failure_save(status);
    zcp_chunk_release_bulk(chunks, done);
    for (uint32_t n = done; n < count; n++) chunks[n] = zcp_priv_no_chunk;
    return zcp_priv_failure_again(&failure);
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_chunk_allocate_bulk(zcp_manager *manager, uint64_t size, zcp_chunk *chunks,
                                                             uint32_t count) {
    if (!chunks && count) return zcp_priv_fail_null("place for the handles");
    for (uint32_t n = 0; n < count;) {
        n += zcp_priv_allocate_several(manager, size, chunks + n, count - n);
        if (n == count) break;
        zcp_status status = zcp_chunk_allocate(manager, size, &chunks[n]);
        if (status != ZCP_OK) return zcp_priv_bulk_fail(chunks, count, n, status);
        n++;
    }
    return ZCP_OK;
}

ZEROCP_API zcp_status zcp_chunk_allocate_tagged(zcp_manager *manager, uint64_t size, uint32_t tag, zcp_chunk *chunk) {
    zcp_priv_place place;
    zcp_status status = zcp_chunk_allocate(manager, size, chunk);
    // By what is held, not by the number alone: garbage may have led that to another pool by now.
    if (status == ZCP_OK && zcp_priv_held_pool(chunk, &place)) zcp_priv_note_tag(&place, tag);
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>wait  Sleeping until a chunk is free
// ---------------------------------------------------------------------------------------------------------------------
// A thread sleeps on its client's futex, for whatever it waits. In each round the thread begins, says what it sleeps
// for (in its client's slot, then in each pool that serves, where it also raises `recalls`), gives back what it caches,
// passes the heavy barrier, looks, and sleeps. A thread that frees a chunk looks at `recalls` or at `waiting` after
// that, so one of the two sees the other. Whatever else may end a wait (an interrupt, say) has to be stored before its
// maker passes a heavy barrier and wakes the client; the waiter looks at it behind its own barrier, with the rest.
// - A sleeper looks again each ZCP_PRIV_WAIT_MS, because nobody wakes it when a process dies; so garbage in these words
//   costs no more than that.
// - A sleeper that is killed costs the next release in that pool one wake in vain, nothing else.
// - A sleeper keeps no chunk that it does not use, of any pool. Nor does a thread that need not sleep keep what a
//   sleeper wants who gave it the chunk: so no two threads wait for what the other one caches.
// - A thread that is woken again and again in vain rests before it sleeps: a peer that counts up these words, or the
//   epoch, for ever keeps nobody awake.
//
// The threads of a client share its futex, and are woken together. `sleeps` tells what those of them sleep for that
// were not woken; one bit of it may stand for several things.
//
// Labels  word      order    partner           what breaks without it
//   W2    waiting   release  W5                (not needed: who does not see W7 by it sees it by the barriers)
//   W4    wakes     acquire  W3                as W3
//   W7    sleeps    release  W8                (not needed: W4 comes before, and a branch on sleeps before W3)
//   A4    (barrier) heavy    A1 - A3 A7 I5 T3  as A1, for a waiter

#define ZCP_PRIV_WAIT_MS 100u
#define ZCP_PRIV_WAIT_ROUNDS 64u                 // in vain, since it last slept without being woken; then it rests
#define ZCP_PRIV_WAIT_CHANGES 8u                // of these, without a sleep because pools come and go

typedef struct zcp_priv_sleep {
    zcp_manager *manager;
    zcp_priv_slot *slot;            // its client's
    uint64_t deadline, recover_at;  // ns; UINT64_MAX: never
    uint64_t began;                 // this round, ns
    uint32_t wakes;                 // as it was when this round began
    uint32_t looks;
    bool last, recovers;            // this round: no sleep follows it; it looks for the dead, too
} zcp_priv_sleep;

// Begins a round: what is told from here on ends the sleep, or keeps it from beginning.
ZCP_PRIV_SETUP void zcp_priv_sleep_begin(zcp_priv_sleep *sleep) {
    zcp_recovery report = {0, 0};
    sleep->began = zcp_priv_now_ns();
    sleep->last = sleep->began >= sleep->deadline;
    // However often it is woken in vain.
    sleep->recovers = sleep->last || sleep->began >= sleep->recover_at;
    if (sleep->recovers) zcp_priv_recover(sleep->manager, &report);
    // Pairs with W3; before W7.
    sleep->wakes = zcp_priv_load_acquire(&sleep->slot->wakes);                                      // W4
}

// Says in the client's slot what a thread of it sleeps for. What all were woken for already is left out.
ZCP_PRIV_SETUP void zcp_priv_sleep_announce(zcp_priv_slot *slot, zcp_priv_signals *signals, uint32_t client,
                                            uint32_t what) {
    _Atomic uint64_t *slept = &signals->slept[client / 64];
    // A look; W7 decides.
    uint64_t sleeps = zcp_priv_load_relaxed(&slot->sleeps), next;
    for (uint32_t round = 0; round < ZCP_PRIV_WAIT_ROUNDS; round++) {
        uint32_t count = (uint32_t)(sleeps >> 32);
        next = (uint64_t)(count + 1) << 32 | what;
        // Relaxed: who is woken up to there was so by W3 before.
        if (count != zcp_priv_load_relaxed(&slot->woken)) next |= (uint32_t)sleeps;                 // step still-sleep
        // Pairs with W8.
        if (zcp_priv_cas_release(&slot->sleeps, &sleeps, next)) break;                              // W7
    }
    // Relaxed, both: W2 carries it.
    if (zcp_priv_load_relaxed(slept) & zcp_priv_borrow_bit(client)) return;
    zcp_priv_or_relaxed(slept, zcp_priv_borrow_bit(client));
}

// Says in a pool that somebody waits; after sleep_announce.
ZCP_PRIV_SETUP void zcp_priv_wait_announce(zcp_priv_pool *pool) {
    // Carries W7; before W1.
    zcp_priv_add_release(&pool->leases->waiting, 1);                                                // W2
    zcp_priv_pool_recall(pool);                                                                     // step want
    ZEROCP_STEP("waiting");
}

// After all is announced: who tells something from here on sees that, or this thread sees what was told.
ZCP_PRIV_SETUP void zcp_priv_sleep_look(zcp_priv_sleep *sleep) {
    // Only now: who gets it looks what is recalled.
    zcp_priv_view_flush_caches(&sleep->manager->view);
    // Pairs with A1, A2, A3, A7, I5, T3.
    ZEROCP_HEAVY_BARRIER();                                                                         // A4
    // Who sleeps keeps nothing of what retires.
    zcp_priv_view_leave_retiring(&sleep->manager->view);
}

// Ends a round that found nothing: sleeps until something is told, or until it is time to look for the dead again.
// again: it need not sleep, as there may be more to be found.
ZCP_PRIV_SETUP void zcp_priv_sleep_end(zcp_priv_sleep *sleep, bool again) {
    uint64_t now = zcp_priv_now_ns();
    // However long it took.
    if (sleep->recovers) sleep->recover_at = now + ZCP_PRIV_WAIT_MS * UINT64_C(1000000);
    uint64_t until = sleep->recover_at < sleep->deadline ? sleep->recover_at : sleep->deadline;
    if (++sleep->looks >= ZCP_PRIV_WAIT_ROUNDS) {
        uint64_t rest = 1000000 + 10 * (now - sleep->began), most = until > now ? until - now : 0;
        // Up to ZCP_PRIV_WAIT_MS.
        zcp_priv_sleep_us((uint32_t)((rest < most ? rest : most) / 1000));
    } else if (again && sleep->looks <= ZCP_PRIV_WAIT_CHANGES) return;
    struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    if (zcp_priv_futex(&sleep->slot->wakes, ZCP_PRIV_FUTEX_WAIT, sleep->wakes, &t, UINT32_MAX) == 0) return;
    if (errno == ETIMEDOUT) sleep->looks = 0;
    // Refused here: look now and then.
    else if (errno != EAGAIN && errno != EINTR) zcp_priv_sleep_us(1000);
}

// One round of a wait for a chunk: true with a chunk. *fits: the pool that fits best; NULL: none does any more. *again:
// as for sleep_end; *disturbed: as of take_by_scan.
ZCP_PRIV_SETUP bool zcp_priv_wait_round(zcp_priv_sleep *sleep, uint64_t size, zcp_priv_place *place,
                                        zcp_priv_pool **fits, bool *again, uint32_t *disturbed) {
    zcp_manager *manager = sleep->manager;
    zcp_priv_view *view = &manager->view;
    zcp_priv_pool *pool;
    uint32_t what = 0;
    zcp_priv_sleep_begin(sleep);
    zcp_priv_catch_up_if_changed(manager);
    const zcp_priv_table *table = zcp_priv_view_table(view);
    uint32_t first = zcp_priv_table_fit(table, size);
    *fits = zcp_priv_view_serving(view, table, first, first);
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++)
        what |= UINT32_C(1) << pool->number;
    zcp_priv_sleep_announce(sleep->slot, view->signals, view->client, what);                        // step said
    for (uint32_t at = first; (pool = zcp_priv_view_serving(view, table, first, at)) != NULL; at++)
        zcp_priv_wait_announce(pool);
    zcp_priv_rings_announce(manager);
    zcp_priv_sleep_look(sleep);
    zcp_priv_rings_collect(manager, false);
    // One may have come that fits.
    *again = !*fits || zcp_priv_pools_changed(manager);
    *disturbed = 0;
    if (!*fits) return false;
    if (sleep->recovers) zcp_priv_scan_and_mend(view, table, first);
    if (sleep->last) return zcp_priv_take_by_scan(manager, table, first, zcp_priv_now_ns(), place, disturbed);
    // Who frees it again wakes this one.
    bool taken_by_others;
    // By the records alone: by hints it would answer its own recall, and wake itself.
    return zcp_priv_view_take_anywhere(view, table, first, place, &taken_by_others);
}

// The calling thread gives back what it caches of any pool, if others want it.
ZCP_PRIV_SETUP void zcp_priv_answer_all_recalls(zcp_manager *manager) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS && zcp_priv_thread; p++) {
        zcp_priv_local *local = zcp_priv_view_local(&manager->view, p);
        if (local->pool && local->cached && zcp_priv_recalled(local)) zcp_priv_answer_recall(manager, local);
    }
}

ZCP_PRIV_COLD zcp_status zcp_priv_allocate_wait(zcp_manager *manager, uint64_t size, uint32_t timeout_ms,
                                                zcp_chunk *chunk) {
    zcp_status status = zcp_priv_allocate_and_scan(manager, size, chunk, timeout_ms == 0);
    // It may be of one who waits for those.
    if (status == ZCP_OK) zcp_priv_answer_all_recalls(manager);
    if (status != ZCP_ERR_EXHAUSTED || timeout_ms == 0 || !manager->view.signals) return status;
    zcp_priv_slot *slot = zcp_priv_slot_at(manager, manager->view.client);
    zcp_priv_sleep sleep = {manager, slot, UINT64_MAX, 0, 0, 0, 0, false, false};
    if (timeout_ms != UINT32_MAX) sleep.deadline = zcp_priv_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (bool counted = false;;) {
        zcp_priv_place place;
        zcp_priv_pool *fits;
        bool again;
        uint32_t disturbed;
        char looks[64];
        if (zcp_priv_wait_round(&sleep, size, &place, &fits, &again, &disturbed)) {
            zcp_priv_claimed(chunk, manager, &place, size);
            return ZCP_OK;
        }
        if (!fits && (status = zcp_priv_allocate_and_scan(manager, size, chunk, false)) != ZCP_ERR_EXHAUSTED)
            return status;
        // Relaxed: the barrier comes before.
        if (zcp_priv_load_relaxed(&manager->interrupted))
            return zcp_priv_fail(ZCP_ERR_INTERRUPTED, 0, "%s: zcp_manager_interrupt ended all waiting", manager->name);
        if (sleep.last) {
            if (fits) zcp_priv_count_failure(fits, disturbed);
            return zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: no chunk for %llu bytes within %u ms%s%s", manager->name,
                                 (unsigned long long)size, timeout_ms, zcp_priv_explain_disturbed(looks, disturbed),
                                 zcp_priv_explain_recovery(manager).text);
        }
        if (!counted && !again) {
            ZEROCP_COUNT(&fits->leases->waits, 1);
            counted = true;
        }
        zcp_priv_sleep_end(&sleep, again);
    }
}

ZEROCP_API zcp_status zcp_chunk_allocate_wait(zcp_manager *manager, uint64_t size, uint32_t timeout_ms,
                                              zcp_chunk *chunk) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_allocate_wait(manager, size, timeout_ms, chunk));
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_chunk_allocate_with(zcp_manager *manager, const zcp_chunk_desc *desc,
                                                             zcp_chunk *chunk) {
    zcp_priv_place place;
    if (!desc) {
        if (chunk) *chunk = zcp_priv_no_chunk;
        return zcp_priv_fail_null("description of the chunk");
    }
    zcp_status status = desc->timeout_ms ? zcp_chunk_allocate_wait(manager, desc->size, desc->timeout_ms, chunk)
                                         : zcp_chunk_allocate(manager, desc->size, chunk);
    // As allocate_tagged.
    if (status == ZCP_OK && desc->tag && zcp_priv_held_pool(chunk, &place)) zcp_priv_note_tag(&place, desc->tag);
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>release  Giving a handle back
// ---------------------------------------------------------------------------------------------------------------------
//   handle                        others that hold it  what happens                      function
//   the only one, no token made   nobody can           freed by a store, or cached       release_fast, free_unshared
//   one of several of the owner   -                    a count goes down                 release_one
//   the owner's last              no borrower          freed by a CAS, or cached         owner_release
//   the owner's last              borrowers            the owner leaves the record       owner_release
//   one of several of a borrower  -                    a count goes down                 drop_borrowed
//   a borrower's last             -                    the bit goes; the last one frees  drop_borrowed
//   not held                      -                    nothing; message and log say      report_release
//
// Labels  word      order    partner      what breaks without it
//   S2    state     seq_cst  S1 S3 S4     as S1, where the owner leaves
//   F2    state     release  C1 C2 C4 Y6  as F1, here the owner frees beside tokens
//   F3    state     release  C1 C2 C4     as F1, of what was never shared; also owned = 0 hits a later claim
//   F6    state     release  C1 C2 C4     as F3, into a loan
//   L1    state     acquire  B1           the bits are older than the ticket: freed while held
//   Y0    state     release  Y6           who takes the chunk writes while a former holder reads
//   Y7    state     release  Y6           as Y0, in the slower release
//   O1    owned     acquire  D1 D5        frees as never shared what a sibling has made a token of, or still reads
//   O2    owned     acquire  D1 D5        as O1, in the fast release
//   O3    owned     acquire  D1 D5        sees no owner's handle, but not the borrowed one that is left: refused
//   O4    owned     acquire  D1 D5        as O3, where a release decides which count is its own
//   D1    owned     release  O1 - O8      as O1 and O3
//   D5    owned     release  O1 - O8      as D1
//   A1    (barrier) light    A4 A5        who frees misses the waiter or RETIRING, and they miss what is free
//   A3    (barrier) light    A4 A5        as A1, after a slower release

// The owner lets go of a chunk of which a token may exist. RELEASED: done; NOT_RELEASED: it is not the owner of that
// generation.
ZCP_PRIV zcp_priv_releasing zcp_priv_owner_release(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t i,
                                                 uint32_t client, uint32_t generation) {
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    bool keeps = zcp_priv_cache_keeps(local);
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {                                    // step owner-rounds
        // Pairs with B1; before the bits are read.
        uint64_t s = zcp_priv_load_acquire(&record->state);                                         // L1
        if (ZCP_PRIV_GENERATION(s) != generation || ZCP_PRIV_OWNER(s) != client + 1) return ZCP_PRIV_NOT_RELEASED;
        if (zcp_priv_never_borrowed(s) || zcp_priv_no_borrower(pool, record)) {                     // step unborrowed
            uint64_t next = keeps ? zcp_priv_cached(generation, local->cached_bits) : zcp_priv_freed(generation);
            // Pairs with C1 Y6.
            if (zcp_priv_cas_release(&record->state, &s, next)) {                                   // F2
                if (keeps)
                    zcp_priv_cache_put(local, local->cached,
                                       zcp_priv_chunk_id(pool, i, zcp_priv_next_generation(generation)));  // step kept
                else zcp_priv_hint(pool, local, i);
                zcp_priv_count_freed_by(pool, local);
                return ZCP_PRIV_RELEASED;
            }
        } else if (zcp_priv_cas_seq_cst(&record->state, &s, zcp_priv_with_ticket(s, 0))) {          // S2
            ZEROCP_STEP("disowned");
            return zcp_priv_reap(pool, i) == ZCP_PRIV_GARBAGE ? ZCP_PRIV_GARBAGE : ZCP_PRIV_RELEASED;
        }
    }
    return ZCP_PRIV_GARBAGE;
}

// May a token exist, or another handle? If not, nobody else can hold the chunk or come to hold it.
ZCP_PRIV bool zcp_priv_never_shared(const zcp_priv_pool *pool, uint32_t i, uint32_t client, uint32_t generation) {
    // Pairs with D1, and first: I see the tokens that siblings have made, and their use of the payload as over.
    bool only = zcp_priv_load_acquire(&zcp_priv_counts_at(pool, i)->owned) == zcp_priv_owned(generation, 1);  // O1
    uint64_t no_token = zcp_priv_state(generation, client + 1, 0);
    // Relaxed: the ticket is carried by D1 or by the token's fence; the handle's count pins the generation.
    bool has_token = zcp_priv_load_relaxed(&zcp_priv_record_at(pool, i)->state) != no_token;        // step no-token-yet
    return only && !has_token;
}

// One handle less in owned. LAST: it was the last; OTHERS_LEFT: others are left; NOT_OWNED: none is of that generation,
// so the handle counts in borrowed, or is none.
ZCP_PRIV zcp_priv_dropping zcp_priv_drop_owned(zcp_priv_counts *counts, uint32_t generation) {
    // O3 pairs with D1: who sees 0 sees the hold in borrowed; D1: marks and payload use are done. Lock-free: fails only
    // beside a sibling's success.
    for (uint64_t s; zcp_priv_owned_handles(s = zcp_priv_load_acquire(&counts->owned), generation) != 0;)  // O3
        if (zcp_priv_cas_release(&counts->owned, &s, s - 1))                                        // D1
            return (uint32_t)s == 1 ? ZCP_PRIV_LAST : ZCP_PRIV_OTHERS_LEFT;
    return ZCP_PRIV_NOT_OWNED;
}

// One handle less in owned, if there are several: then nothing is freed. Else nothing is done: 1, or 0 of that
// generation.
ZCP_PRIV_INLINE uint32_t zcp_priv_release_one(zcp_priv_pool *pool, uint32_t i, uint32_t generation) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    // As O3.
    uint64_t s = zcp_priv_load_acquire(&counts->owned);                                             // O4
    uint32_t handles = zcp_priv_owned_handles(s, generation);
    // As D1.
    return handles <= 1 || zcp_priv_cas_release(&counts->owned, &s, s - 1) ? handles : 1;           // D5
}

// Frees a chunk that was never shared: the thread keeps it, or its hint, or lists it.
ZCP_PRIV_INLINE void zcp_priv_free_unshared(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t i,
                                            uint32_t generation) {
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    // Relaxed: F3 carries it to the next claimer.
    zcp_priv_store_relaxed(&zcp_priv_counts_at(pool, i)->owned, 0);                                 // step unowned
    ZEROCP_STEP("unowned");
    if (zcp_priv_cache_keeps(local)) {
        // This thread's use of the payload is over, and owned is 0. Pairs with Y6.
        zcp_priv_store_release(&record->state, zcp_priv_cached(generation, local->cached_bits));    // Y7
        zcp_priv_cache_put(local, local->cached,
                           zcp_priv_chunk_id(pool, i, zcp_priv_next_generation(generation)));      // step kept-unshared
    } else {
        // Pairs with C1.
        zcp_priv_store_release(&record->state, zcp_priv_freed(generation));                         // F3
        zcp_priv_hint(pool, local, i);
    }
    zcp_priv_count_freed_by(pool, local);                                                           // step counted
}

// As never_shared and free_unshared, in the few steps of a thread that has a lease and all at hand; i is below
// local->fast_limit. Whoever calls this looks for a recall after that, and answers it: what was cached here although it
// is recalled goes on to everybody.
typedef enum zcp_priv_fast_release {
    ZCP_PRIV_NOT_FAST,           // nothing was done
    ZCP_PRIV_DONE_FAST,
    ZCP_PRIV_OUTSIDE_LOAN        // free, but not of the leaf on loan: zcp_priv_free_outside_loan does the rest
} zcp_priv_fast_release;

// Ends this thread's hold, if it is the only one there is or can be; the state is the caller's to store. 0: nothing was
// done; else the next generation << 32.
ZCP_PRIV_INLINE uint64_t zcp_priv_unhold(zcp_priv_local *local, uint64_t i, uint64_t id, zcp_priv_record **record) {
    zcp_priv_counts *counts = &local->counts[i];
    uint64_t held = id >> 32 << 32;
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_acquire(&counts->owned) - held != 1)) return 0;             // O2
    *record = zcp_priv_local_record(local, i);
    uint64_t owned_bits = local->owned_bits;
    bool has_token = zcp_priv_load_relaxed(&(*record)->state) - held != owned_bits;                 // step quick-state
    if (ZCP_PRIV_UNLIKELY(has_token)) return 0;
    uint64_t next = held + (UINT64_C(1) << 32);                                                  // step next-generation
    // The last generation.
    if (ZCP_PRIV_UNLIKELY(next == 0)) return 0;
    // All as in free_unshared.
    zcp_priv_store_relaxed(&counts->owned, 0);                                                      // step unowned-loan
    ZEROCP_STEP("unowned");
    return next;
}

ZCP_PRIV_INLINE void zcp_priv_cache_unheld(zcp_priv_local *local, uint32_t cached, uint64_t id,
                                           zcp_priv_record *record, uint64_t next) {
    // Pairs with Y6.
    zcp_priv_store_release(&record->state, next | local->cached_bits);                              // Y0
    zcp_priv_cache_put(local, cached, id + (UINT64_C(1) << 32));                                    // step kept-loan
}

ZCP_PRIV_INLINE void zcp_priv_free_unheld(zcp_priv_record *record, uint64_t next) {
    // Pairs with C1.
    zcp_priv_store_release(&record->state, next);                                                   // F6
}

ZCP_PRIV_INLINE zcp_priv_fast_release zcp_priv_release_fast(zcp_priv_local *local, uint64_t i, uint64_t id) {
    zcp_priv_record *record;
    uint64_t next = zcp_priv_unhold(local, i, id, &record);
    if (ZCP_PRIV_UNLIKELY(next == 0)) return ZCP_PRIV_NOT_FAST;
    uint32_t cached = local->cached;
    if (cached < local->cache_limit) zcp_priv_cache_unheld(local, cached, id, record, next);
    else {
        zcp_priv_free_unheld(record, next);
        if (!zcp_priv_loan_put(local, i)) return ZCP_PRIV_OUTSIDE_LOAN;
    }
    zcp_priv_bump(&local->lease->freed, 1);                                                         // step counted-loan
    return ZCP_PRIV_DONE_FAST;
}

// The hint of a chunk of another leaf, and the count.
ZCP_PRIV_INLINE void zcp_priv_free_outside_loan(zcp_priv_local *local, uint64_t i) {
    zcp_priv_list_push(&local->pool->list, (uint32_t)i);
    zcp_priv_bump(&local->lease->freed, 1);
}

// Gives back a handle that is not counted in owned. NOT_RELEASED: it is not held; nothing changed.
ZCP_PRIV_INLINE zcp_priv_releasing zcp_priv_release_borrowed(zcp_priv_pool *pool, uint32_t i, uint32_t client,
                                                           uint32_t generation) {
    return zcp_priv_generation_now(pool, i) == generation ? zcp_priv_drop_borrowed(pool, i, client)
                                                          : ZCP_PRIV_NOT_RELEASED;
}

// Gives back a handle that was the only one counted in owned. NOT_RELEASED: it is not held; nothing changed. checked:
// the steps that free are CAS.
ZCP_PRIV_INLINE zcp_priv_releasing zcp_priv_release_owned(zcp_priv_pool *pool, zcp_priv_local *local, uint32_t i,
                                                        uint32_t client, uint32_t generation, bool checked) {
    zcp_priv_counts *counts = zcp_priv_counts_at(pool, i);
    if (local->cache_pause) zcp_priv_cache_resume(pool, local);
    if (!checked && zcp_priv_never_shared(pool, i, client, generation)) {
        zcp_priv_free_unshared(pool, local, i, generation);
        return ZCP_PRIV_RELEASED;
    }
    switch (zcp_priv_drop_owned(counts, generation)) {
    case ZCP_PRIV_OTHERS_LEFT: return ZCP_PRIV_RELEASED;
    case ZCP_PRIV_LAST:
        return zcp_priv_owner_release(pool, local, i, client, generation) == ZCP_PRIV_RELEASED ? ZCP_PRIV_RELEASED
                                                                                          : ZCP_PRIV_GARBAGE;
    default:           return zcp_priv_release_borrowed(pool, i, client, generation);
    }
}

// After a release that may have freed a chunk.
ZCP_PRIV_INLINE void zcp_priv_after_release(zcp_manager *manager, zcp_priv_pool *pool, zcp_priv_local *local) {
    // Pairs with A4, A5.
    zcp_priv_light_barrier();                                                                       // A3
    if (local->pool != pool) zcp_priv_after_free(pool);
    // Else nobody has begun to wait since this thread last looked.
    else if (ZCP_PRIV_UNLIKELY(zcp_priv_recalled(local))) zcp_priv_answer_recall(manager, local);
}

// Tells of a release of what is not held, or is garbage: the last message each time, the log once a second, since a
// loop that goes wrong repeats it.
ZCP_PRIV_COLD void zcp_priv_report_release(zcp_manager *manager, uint32_t index, uint32_t generation,
                                         zcp_priv_releasing outcome) {
    // relaxed, all three words: they limit how often, nothing else
    uint64_t now = zcp_priv_now_ns(), again_at = zcp_priv_load_relaxed(&manager->release_logged_until);
    if (outcome == ZCP_PRIV_GARBAGE)
        zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: release of chunk %08x: its record holds garbage", manager->name, index);
    else
        zcp_priv_fail(ZCP_ERR_STALE, 0, "%s: release of a handle that is not held (chunk %08x, generation %u): "
                      "ignored; find where a copy of it was released before", manager->name, index, generation);
    if (now < again_at
        || !zcp_priv_cas_relaxed(&manager->release_logged_until, &again_at, now + UINT64_C(1000000000))) {
        zcp_priv_add_relaxed(&manager->releases_unlogged, 1);
        return;
    }
    uint32_t more = zcp_priv_exchange_acq_rel(&manager->releases_unlogged, 0u);
    char since[48] = "";
    if (more) snprintf(since, sizeof since, " (and %u more since the last line)", more);
    ZEROCP_LOG(ZCP_LOG_ERROR, "%s%s", zcp_last_message(), since);
}

// These three are functions of their own, so that each needs few registers.
ZCP_PRIV_NOINLINE void zcp_priv_release_as_owner(zcp_manager *manager, zcp_priv_pool *pool, uint32_t i,
                                                 uint32_t generation, zcp_priv_local *local) {
    zcp_priv_view *view = &manager->view;
    zcp_priv_local_switch_pool(local, pool);
    zcp_priv_releasing outcome =
        zcp_priv_release_owned(pool, local, i, view->client, generation, view->flags & ZCP_CHECKED);
    zcp_priv_after_release(manager, pool, local);
    if (ZCP_PRIV_UNLIKELY(outcome != ZCP_PRIV_RELEASED))
        zcp_priv_report_release(manager, pool->number << ZCP_PRIV_POOL_SHIFT | i, generation, outcome);
}

ZCP_PRIV_NOINLINE void zcp_priv_release_as_borrower(zcp_manager *manager, zcp_priv_pool *pool, uint32_t i,
                                                    uint32_t generation, zcp_priv_local *local) {
    zcp_priv_releasing outcome = zcp_priv_release_borrowed(pool, i, manager->view.client, generation);
    zcp_priv_after_release(manager, pool, local);
    if (ZCP_PRIV_UNLIKELY(outcome != ZCP_PRIV_RELEASED))
        zcp_priv_report_release(manager, pool->number << ZCP_PRIV_POOL_SHIFT | i, generation, outcome);
}

ZCP_PRIV_NOINLINE void zcp_priv_release_slow(zcp_manager *manager, uint64_t id, zcp_priv_local *local) {
    uint32_t index = (uint32_t)id, generation = (uint32_t)(id >> 32);
    zcp_priv_place place;
    if (!zcp_priv_place_of(manager, index, generation, &place)) {
        zcp_priv_report_release(manager, index, generation, ZCP_PRIV_NOT_RELEASED);
        return;
    }
    switch (zcp_priv_release_one(place.pool, place.i, generation)) {
    case 0:  zcp_priv_release_as_borrower(manager, place.pool, place.i, generation, local); break;
    case 1:  zcp_priv_release_as_owner(manager, place.pool, place.i, generation, local); break;
    // Nothing is freed, so nobody needs to know; but what is recalled is given back.
    default:
        if (ZCP_PRIV_UNLIKELY(local->pool == place.pool && zcp_priv_recalled(local)))
            zcp_priv_answer_recall(manager, local);
    }
}

// After a quick release.
ZCP_PRIV_INLINE void zcp_priv_after_fast_release(zcp_manager *manager, zcp_priv_local *local) {
    // Pairs with A4, A5.
    ZEROCP_LIGHT_BARRIER();                                                                         // A1
    if (ZCP_PRIV_UNLIKELY(zcp_priv_recalled(local))) zcp_priv_answer_recall(manager, local);
}

ZCP_PRIV_NOINLINE void zcp_priv_release_outside_loan(zcp_manager *manager, uint64_t i, zcp_priv_local *local) {
    zcp_priv_free_outside_loan(local, i);
    zcp_priv_after_fast_release(manager, local);
}

// Of a manager that is not open, or has max_chunks.
ZCP_PRIV_COLD void zcp_priv_release_counted(zcp_manager *manager, uint64_t id) {
    zcp_priv_place place;
    if (!zcp_priv_usable(manager)) return;
    zcp_priv_release_slow(manager, id, zcp_priv_view_local(&manager->view, (uint32_t)id >> ZCP_PRIV_POOL_SHIFT));
    if (zcp_priv_place_of(manager, (uint32_t)id, (uint32_t)(id >> 32), &place))
        zcp_priv_held_ends(manager, zcp_priv_counts_at(place.pool, place.i));
}

// A chunk of another pool than the last one, or one that may not take the fast path.
ZCP_PRIV_NOINLINE void zcp_priv_release_in_other_pool(zcp_manager *manager, uint64_t id) {
    // Relaxed: as in usable.
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_relaxed(&manager->live) == 0)) {
        zcp_priv_release_counted(manager, id);
        return;
    }
    zcp_priv_local *local = zcp_priv_view_local(&manager->view, (uint32_t)id >> ZCP_PRIV_POOL_SHIFT);
    uint64_t i = id & (ZCP_MAX_CHUNKS - 1);
    switch (i < local->fast_limit ? zcp_priv_release_fast(local, i, id) : ZCP_PRIV_NOT_FAST) {
    case ZCP_PRIV_NOT_FAST:     zcp_priv_release_slow(manager, id, local); break;
    case ZCP_PRIV_OUTSIDE_LOAN: zcp_priv_release_outside_loan(manager, i, local); break;
    default:                       zcp_priv_after_fast_release(manager, local);
    }
}

ZCP_PRIV_WHOLE ZEROCP_API void zcp_chunk_release(zcp_chunk *chunk) {
    const zcp_priv_recent *last = &zcp_priv_last;
    if (!chunk) return;
    zcp_manager *manager = chunk->manager;
    uint64_t id = (uint64_t)chunk->generation << 32 | chunk->index;
    zcp_priv_local *local = last->local;
    uint64_t i = (uint32_t)id - last->base;
    // The loads before the stores: 5 % of a cached pair (measured on Zen 4).
    ZCP_PRIV_KEEP_STORES_APART();
    zcp_priv_handle_set(chunk, NULL, NULL, 0);
    if (!manager) return;
    // Relaxed: as in usable.
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_relaxed(&manager->live) != last->live || i >= local->fast_limit)) {
        zcp_priv_release_in_other_pool(manager, id);
        return;
    }
    zcp_priv_fast_release how = zcp_priv_release_fast(local, i, id);
    if (ZCP_PRIV_UNLIKELY(how == ZCP_PRIV_NOT_FAST)) zcp_priv_release_slow(manager, id, local);
    else if (ZCP_PRIV_UNLIKELY(how == ZCP_PRIV_OUTSIDE_LOAN)) zcp_priv_release_outside_loan(manager, i, local);
    else zcp_priv_after_fast_release(manager, local);
}

// Releases the quick way what it can from the beginning on; returns how many.
ZCP_PRIV_NOINLINE uint32_t zcp_priv_release_several(zcp_chunk *chunks, uint32_t count) {
    const zcp_priv_recent *last = &zcp_priv_last;
    zcp_manager *manager = chunks->manager;
    zcp_priv_local *local = last->local;
    uint32_t n = 0;
    // Relaxed: as in usable.
    if (!manager || zcp_priv_load_relaxed(&manager->live) != last->live) return 0;
    uint64_t loan = 0, base = last->base, first = local->first, width = local->width, limit = local->fast_limit;
    for (zcp_chunk *chunk = chunks; n < count && chunk->manager == manager; n++, chunk++) {
        uint64_t id = (uint64_t)chunk->generation << 32 | chunk->index, i = (uint32_t)id - base, next;
        uint32_t cached = local->cached;
        zcp_priv_record *record;
        bool keeps = cached < local->cache_limit;
        if (i >= limit || (!keeps && i - first >= width)
            || (next = zcp_priv_unhold(local, i, id, &record)) == 0) break;
        if (keeps) zcp_priv_cache_unheld(local, cached, id, record, next);
        else {
            zcp_priv_free_unheld(record, next);
            ZEROCP_STEP("freed");
            loan |= UINT64_C(1) << ((i - first) & 63);
        }
        zcp_priv_handle_set(chunk, NULL, NULL, 0);
    }
    if (n == 0) return 0;
    if (loan) zcp_priv_loan_show(local, zcp_priv_loan_seen(local) | loan);
    zcp_priv_bump(&local->lease->freed, n);
    zcp_priv_after_fast_release(manager, local);
    return n;
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_chunk_release_bulk(zcp_chunk *chunks, uint32_t count) {
    for (uint32_t n = 0; chunks && n < count;) {
        n += zcp_priv_release_several(chunks + n, count - n);
        if (n < count) zcp_chunk_release(&chunks[n++]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// >>create  Making an instance, and taking it apart
// ---------------------------------------------------------------------------------------------------------------------
// Exactly one process initialises, whoever is killed. The header's state word is the truth: 0, READY, RETIRED, never
// back. All changes of names and of that word happen under two creation locks, after checks that both names still lead
// to what is locked. The lock object's comes first, and keeps processes of this version apart. Only a process that may
// write the management file can open the lock object: a lock needs no more than read permission, so a reader could
// otherwise shut everybody out. The management file's lock comes second, for other versions; with readers it is shared.
// A process that finds no lock object makes one; the last name that goes is its own.
//
// A builder may truncate, so the file is inspected with pread, and mapped only once it is READY, which is final.

#define ZCP_PRIV_TORN 4u                        // so often slots that do not add up are read again

typedef enum zcp_priv_kind {
    ZCP_PRIV_KIND_FOREIGN,
    ZCP_PRIV_KIND_HALF_MADE,
    ZCP_PRIV_KIND_READY,
    ZCP_PRIV_KIND_RETIRED,
    ZCP_PRIV_KIND_GARBAGE
} zcp_priv_kind;

// Behind the slots' bytes: the creator's, from before READY is stored until it has a slot, so that nobody replaces what
// it has just made. Who replaces an instance holds all of them by one lock, so nobody joins meanwhile.
enum { ZCP_PRIV_LOCK_CREATOR = ZCP_PRIV_LOCK_SLOTS + ZCP_MAX_CLIENTS, ZCP_PRIV_LOCK_ALL = ZCP_MAX_CLIENTS + 1 };
_Static_assert((int)ZCP_PRIV_LOCK_TOPICS == (int)ZCP_PRIV_LOCK_SLOTS + (int)ZCP_PRIV_LOCK_ALL,
               "a lock byte of its own");

// What comes after an attempt to open or to destroy.
typedef enum zcp_priv_next {
    ZCP_PRIV_DONE = 0,
    ZCP_PRIV_RETRY,                             // start over: what it worked on has changed meanwhile
    ZCP_PRIV_ATTACH,                            // start over at once: it has built the instance
    ZCP_PRIV_PASS,                              // start over at once: the slot is a draining client's
    ZCP_PRIV_REMOVED,                           // it has removed the instance: done, or to open, start over
    ZCP_PRIV_WAIT_FOR_CREATOR,                  // start over: nobody has created the instance yet
    ZCP_PRIV_WAIT_FOR_REPLACER                  // start over: somebody is replacing the instance
} zcp_priv_next;

// Everything that one call of open or destroy works with.
typedef struct zcp_priv_opening {
    bool creates;                               // may create
    zcp_priv_next next;                         // what comes after this attempt, if it has not failed
    bool removes;                               // removes what is there, whatever it is, and so need not trust it
    uint64_t passed[ZCP_MAX_CLIENTS / 64];      // slots of draining clients, which are passed over
    uint32_t torn;                              // attempts that have found a pool's slot being written, or garbage
    bool fresh;                                 // this attempt has created the management file, empty
    zcp_priv_kind kind;                         // of the management file when it was last looked at
    zcp_manager_desc desc;                      // defaults filled in
    zcp_priv_file file;                         // the management file of this attempt
    zcp_priv_path chunk_path;
    zcp_priv_file locks;                        // the lock object of this attempt
    zcp_priv_hold guard;                        // its creation byte, until the attempt ends at the latest
    uint64_t made_device, made_inode;           // the lock object that this call has made
    uint64_t built_device, built_inode;         // the management file that this call has built
    zcp_priv_lock creator;                      // of that file: ZCP_PRIV_LOCK_CREATOR, until this call has joined
    const zcp_manager *only;                    // to destroy only the instance that it has open; NULL: any
    zcp_priv_wait wait;
    struct stat status;                         // of the management file
    zcp_config config;
    zcp_priv_geometry geometry;                 // of config
    zcp_priv_header header;                     // as it was when last looked at
} zcp_priv_opening;

ZCP_PRIV_INLINE ssize_t zcp_priv_read_header(zcp_priv_opening *o) {
    ssize_t n;
    memset((void *)&o->header, 0, sizeof o->header);
    do n = pread(o->file.fd, (void *)&o->header, sizeof o->header, 0); while (n < 0 && errno == EINTR);
    return n;
}

// Reads the header and tells what the file is. The kernel copies in no particular order: what goes with READY is read
// after READY was seen.
ZCP_PRIV_SETUP zcp_status zcp_priv_inspect(zcp_priv_opening *o) {
    ssize_t n = zcp_priv_read_header(o);
    if (n > 0 && zcp_priv_load_relaxed(&o->header.state) == ZCP_PRIV_READY) {
        // Pairs with READY's release in build_contents.
        atomic_thread_fence(memory_order_acquire);
        n = zcp_priv_read_header(o);
    }
    // Relaxed: of a private copy.
    bool changes = zcp_priv_load_relaxed(&o->header.signals.epoch) != 0;
    // until two agree on them.
    for (uint32_t look = 0; changes && n > 0 && look < ZCP_PRIV_SLOT_READS; look++) {
        zcp_priv_pool_slot before[ZCP_MAX_LIVE_POOLS];
        memcpy(before, o->header.pools, sizeof before);
        n = zcp_priv_read_header(o);
        if (memcmp(before, o->header.pools, sizeof before) == 0) break;
    }
    if (n < 0 || fstat(o->file.fd, &o->status) != 0) return zcp_priv_fail_system("pread", o->file.path.text);
    // A private copy.
    uint32_t state = zcp_priv_load_relaxed(&o->header.state);
    o->kind = ZCP_PRIV_KIND_FOREIGN;
    if (n == 0) o->kind = ZCP_PRIV_KIND_HALF_MADE;
    else if (n < 16 || o->header.magic != ZCP_PRIV_MAGIC) {}
    else if (state == ZCP_PRIV_BUILDING) o->kind = ZCP_PRIV_KIND_HALF_MADE;
    else if (state == ZCP_PRIV_READY) o->kind = ZCP_PRIV_KIND_READY;
    else o->kind = state == ZCP_PRIV_RETIRED ? ZCP_PRIV_KIND_RETIRED : ZCP_PRIV_KIND_GARBAGE;
    return ZCP_OK;
}

ZCP_PRIV_COLD zcp_status zcp_priv_fail_foreign(const zcp_priv_opening *o) {
    uint64_t swapped = 0;
    for (uint32_t i = 0; i < 8; i++) swapped = swapped << 8 | (o->header.magic >> 8 * i & 0xff);
    if (swapped == ZCP_PRIV_MAGIC)
        return zcp_priv_fail(ZCP_ERR_LAYOUT, 0, "%s was written by a machine of the other byte order",
                             o->file.path.text);
    return zcp_priv_fail(ZCP_ERR_NOT_ZEROCP, 0, "%s (%lld bytes) was not written by zerocp", o->file.path.text,
                         (long long)o->status.st_size);
}

// The first bytes of a file that is ours; one write.
ZCP_PRIV_SETUP zcp_status zcp_priv_write_start(zcp_priv_opening *o) {
    struct {
        uint64_t magic;
        uint32_t byte_order, pid;
    } start = {ZCP_PRIV_MAGIC, ZCP_PRIV_BYTE_ORDER, (uint32_t)getpid()};
    ssize_t n;
    do n = pwrite(o->file.fd, &start, sizeof start, 0); while (n < 0 && errno == EINTR);
    if (n >= 0 && n < (ssize_t)sizeof start) errno = ENOSPC;
    return n == (ssize_t)sizeof start ? ZCP_OK : zcp_priv_fail_system("pwrite", o->file.path.text);
}

// Tells those who wait for the creation lock who has it. A file that is not ours is not written to, nor is one touched
// that a stranger may be truncating.
ZCP_PRIV_SETUP zcp_status zcp_priv_write_pid(zcp_priv_opening *o, const zcp_priv_lock *lock) {
    if (o->kind == ZCP_PRIV_KIND_FOREIGN || zcp_priv_is_stranger(&o->status, o->desc.flags)) return ZCP_OK;
    // With no room for it, building tells; no SIGXFSZ.
    if (o->status.st_size == 0)
        return zcp_priv_file_may_grow(o->file.fd, o->file.path.text, 0, sizeof o->header, 0, o->desc.flags) == ZCP_OK
                   ? zcp_priv_write_start(o)
                   : ZCP_OK;
    // Through the lock's page, which is the header's and has 16 bytes at least: a pwrite behind RLIMIT_FSIZE would be a
    // SIGXFSZ.
    zcp_priv_store_relaxed(&((zcp_priv_header *)lock->base)->locker_pid, (uint32_t)getpid());
    return ZCP_OK;
}

// What those get on the lock object who may write the management file, class by class; nobody else may open it.
ZCP_PRIV_SETUP uint32_t zcp_priv_writers(uint32_t permissions) { return (permissions & 0222) * 3; }

// Opens the lock object that has the name, and makes it if there is none.
ZCP_PRIV_SETUP zcp_status zcp_priv_locks_open(zcp_priv_opening *o) {
    int fd;
    struct stat is;
    zcp_priv_path path = o->locks.path;
    uint32_t accepts = o->removes ? o->desc.flags | ZCP_SHM_ANY_OWNER : o->desc.flags;
    zcp_status status;
    zcp_priv_file_forget(&o->locks);
    // PERMISSION: perhaps it is not granted yet.
    do {
        status = zcp_priv_file_open(path.text, O_RDWR, accepts, &fd, &is);
    } while (status == ZCP_ERR_PERMISSION && o->kind == ZCP_PRIV_KIND_HALF_MADE && zcp_priv_wait_more(&o->wait));
    if (status == ZCP_ERR_NOT_FOUND) {
        uint32_t permissions = zcp_priv_writers(o->desc.permissions);
        status = zcp_priv_file_create(path.text, permissions, o->desc.group, o->desc.flags, &fd, &is);
        ZEROCP_STEP("locks_created");
        if (status == ZCP_ERR_EXISTS) { o->next = ZCP_PRIV_RETRY; return ZCP_OK; }
        if (status == ZCP_OK) { o->made_device = (uint64_t)is.st_dev; o->made_inode = (uint64_t)is.st_ino; }
    }
    if (status == ZCP_OK) zcp_priv_file_remember(&o->locks, fd, &path, ZCP_PRIV_SHM_NO_ACCESS, &is);
    return status;
}

ZCP_PRIV_SETUP void zcp_priv_creation_unlock(zcp_priv_opening *o, zcp_priv_lock *lock) {
    zcp_priv_lock_drop(lock);
    zcp_priv_hold_drop(&o->guard);
}

// The creation locks of the lock object and of the management file; notes our pid for those who wait.
ZCP_PRIV_SETUP zcp_status zcp_priv_creation_lock(zcp_priv_opening *o, zcp_priv_lock *lock) {
    bool same = false;
    zcp_status status = zcp_priv_locks_open(o);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) return status;
    status = zcp_priv_hold_wait(&o->locks, NULL, &o->wait, &o->guard);
    ZEROCP_STEP("locks_locked");
    if (status == ZCP_OK) status = zcp_priv_lock_creation(&o->file, true, &o->wait, lock);
    if (status == ZCP_ERR_TIMEOUT)
        return zcp_priv_fail_locked(o->file.path.text,
                                    zcp_priv_inspect(o) == ZCP_OK ? zcp_priv_load_relaxed(&o->header.locker_pid) : 0,
                                    o->desc.timeout_ms);
    if (status != ZCP_OK) return status;
    status = zcp_priv_inspect(o);
    // At once, also where a name leads elsewhere.
    if (status == ZCP_OK) status = zcp_priv_write_pid(o, lock);
    ZEROCP_STEP("creation_locked");
    if (status == ZCP_OK) status = zcp_priv_file_is(&o->locks, &same);
    if (status == ZCP_OK && same) status = zcp_priv_file_is(&o->file, &same);
    if (status == ZCP_OK && !same) o->next = ZCP_PRIV_RETRY;
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) zcp_priv_lock_drop(lock);
    return status;
}

// The chunk segment may not be written: tells the flag for those who may read it. Else the message stays.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_read_only(const zcp_priv_opening *o) {
    struct stat status;
    int fd;
    zcp_priv_failure failure = zcp_priv_failure_save(ZCP_ERR_PERMISSION);
    if (zcp_priv_file_open(o->chunk_path.text, O_RDONLY, o->desc.flags, &fd, &status) != ZCP_OK)
        return zcp_priv_failure_again(&failure);
    zcp_priv_close_fd(fd);
    return zcp_priv_fail(ZCP_ERR_PERMISSION, failure.error, "%s: this user may only read it: open with "
                         "ZCP_READ_ONLY_DATA (it belongs to user %lu, permissions 0%o)", o->chunk_path.text,
                         (unsigned long)status.st_uid, (unsigned)status.st_mode & 0777);
}

// Opens the lock object, which the header names. *broken: its name is missing or leads to another file.
ZCP_PRIV_SETUP zcp_status zcp_priv_locks_find(zcp_priv_opening *o, bool *broken) {
    int fd;
    struct stat is;
    zcp_priv_path path = o->locks.path;
    zcp_priv_file_forget(&o->locks);
    zcp_status status = zcp_priv_file_open(path.text, O_RDWR, o->desc.flags, &fd, &is);
    *broken = status == ZCP_ERR_NOT_FOUND;
    if (status != ZCP_OK) return *broken ? ZCP_OK : status;
    *broken = (uint64_t)is.st_dev != o->header.lock_device || (uint64_t)is.st_ino != o->header.lock_inode;
    if (*broken) zcp_priv_close_fd(fd);
    else zcp_priv_file_remember(&o->locks, fd, &path, ZCP_PRIV_SHM_NO_ACCESS, &is);
    return ZCP_OK;
}

// Does somebody hold a slot by the lock object that is open?
ZCP_PRIV_SETUP zcp_status zcp_priv_locks_test(const zcp_priv_opening *o, bool *taken) {
    return zcp_priv_lock_test(o->locks.fd, o->locks.path.text, ZCP_PRIV_LOCK_SLOTS, ZCP_MAX_CLIENTS, F_WRLCK, taken);
}

// Is the lock object that is open the one that the header names?
ZCP_PRIV_SETUP bool zcp_priv_locks_are(const zcp_priv_opening *o) {
    return o->locks.device == o->header.lock_device && o->locks.inode == o->header.lock_inode;
}

// Opens the chunk segment that the header names. *broken: its name is missing or leads to another file.
ZCP_PRIV_SETUP zcp_status zcp_priv_chunk_open(const zcp_priv_opening *o, int *fd, bool *broken) {
    struct stat status;
    int access = o->desc.flags & ZCP_READ_ONLY_DATA ? O_RDONLY : O_RDWR;
    zcp_status result = zcp_priv_file_open(o->chunk_path.text, access, o->desc.flags, fd, &status);
    if (result == ZCP_ERR_PERMISSION && access == O_RDWR) result = zcp_priv_fail_read_only(o);
    *broken = result == ZCP_ERR_NOT_FOUND;
    if (result == ZCP_OK
        && ((uint64_t)status.st_dev != o->header.chunk_device || (uint64_t)status.st_ino != o->header.chunk_inode))
        *broken = true;
    if (result == ZCP_OK && !*broken && (uint64_t)status.st_size < o->header.geometry.chunk_bytes)
        result = zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s has %lld bytes, its header says %llu", o->chunk_path.text,
                               (long long)status.st_size, (unsigned long long)o->header.geometry.chunk_bytes);
    if (*fd >= 0 && (*broken || result != ZCP_OK)) { zcp_priv_close_fd(*fd); *fd = -1; }
    return *broken ? ZCP_OK : result;
}

// Retires the instance whose creation lock that is, removes its names, and drops the lock: start over. Idempotent.
ZCP_PRIV_SETUP zcp_status zcp_priv_retire(zcp_priv_opening *o, zcp_priv_lock *lock) {
    uint32_t retired = ZCP_PRIV_RETIRED;
    zcp_status status;
    // Nothing is retired that cannot be removed.
    if (o->kind == ZCP_PRIV_KIND_FOREIGN) status = zcp_priv_fail_foreign(o);
    else status = zcp_priv_may_remove(o->file.fd, o->file.path.text, &o->status, o->desc.flags);
    if (status == ZCP_OK && o->kind != ZCP_PRIV_KIND_HALF_MADE) {
        if ((uint64_t)o->status.st_size < sizeof(zcp_priv_header)) {}
        // A stranger may be truncating it: a call is no SIGBUS then.
        else if (zcp_priv_is_stranger(&o->status, o->desc.flags))
            (void)!pwrite(o->file.fd, &retired, sizeof retired, offsetof(zcp_priv_header, state));
        // The lock's page is the header's. Pairs with the acquire in join.
        else zcp_priv_store_release(&((zcp_priv_header *)lock->base)->state, retired);
        ZEROCP_STEP("retired");
    }
    if (status == ZCP_OK) status = zcp_priv_unlink_if_there(o->chunk_path.text);
    ZEROCP_STEP("chunk_unlinked");
    if (status == ZCP_OK) status = zcp_priv_unlink_if_there(o->file.path.text);
    ZEROCP_STEP("management_unlinked");
    // Last: it keeps others out.
    if (status == ZCP_OK) status = zcp_priv_unlink_if_there(o->locks.path.text);
    ZEROCP_STEP("locks_unlinked");
    zcp_priv_creation_unlock(o, lock);
    if (status == ZCP_OK) ZEROCP_LOG(ZCP_LOG_INFO, "%s: removed", o->desc.name);
    o->next = status == ZCP_OK ? ZCP_PRIV_REMOVED : ZCP_PRIV_DONE;
    return status;
}

// Retires and removes what the management name leads to. only_broken: only if it is retired, or its chunk segment or
// lock object is missing or foreign; else, or if somebody has done it meanwhile: start over. Idempotent: killed
// anywhere, it can be done again.
ZCP_PRIV_SETUP zcp_status zcp_priv_dismantle(zcp_priv_opening *o, bool only_broken) {
    zcp_priv_lock lock;
    zcp_status status = zcp_priv_creation_lock(o, &lock);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) return status;
    if (only_broken) {
        bool broken = o->kind == ZCP_PRIV_KIND_RETIRED;
        int fd = -1;
        if (o->kind == ZCP_PRIV_KIND_READY) status = zcp_priv_chunk_open(o, &fd, &broken);
        if (o->kind == ZCP_PRIV_KIND_READY && !zcp_priv_locks_are(o)) broken = true;
        zcp_priv_close_fd(fd);
        if (status != ZCP_OK || !broken) {
            o->next = status == ZCP_OK ? ZCP_PRIV_RETRY : ZCP_PRIV_DONE;
            zcp_priv_creation_unlock(o, &lock);
            return status;
        }
    }
    return zcp_priv_retire(o, &lock);
}

// Opens what has that name and stands alone, if this call may remove it.
ZCP_PRIV_SETUP zcp_status zcp_priv_inspect_leftover(const zcp_priv_opening *o, const char *path, int *fd,
                                             struct stat *status) {
    uint32_t flags = o->desc.flags;
    zcp_status result = zcp_priv_file_open(path, O_RDONLY, flags | ZCP_SHM_ANY_OWNER, fd, status);
    if (result != ZCP_OK) return result;
    result = zcp_priv_may_remove(*fd, path, status, flags);
    // Root, who has not asked for that.
    if (result == ZCP_OK && !o->removes && zcp_priv_is_stranger(status, flags))
        result = zcp_priv_fail(ZCP_ERR_WRONG_OWNER, 0, "%s belongs to user %lu; zcp_manager_destroy removes it, and so "
                               "does a call with ZCP_SHM_ANY_OWNER", path, (unsigned long)status->st_uid);
    if (result != ZCP_OK) { zcp_priv_close_fd(*fd); *fd = -1; }
    return result;
}

// Creates the chunk segment anew; what has its name goes, if it is a file of ours.
ZCP_PRIV_SETUP zcp_status zcp_priv_build_chunks(zcp_priv_opening *o, int *fd, struct stat *status) {
    const char *path = o->chunk_path.text;
    uint32_t permissions = o->desc.data_permissions ? o->desc.data_permissions : o->desc.permissions;
    zcp_status result = zcp_priv_inspect_leftover(o, path, fd, status);
    if (result == ZCP_OK) {
        zcp_priv_close_fd(*fd);
        *fd = -1;
        result = zcp_priv_unlink_if_there(path);
    } else if (result == ZCP_ERR_NOT_FOUND) result = ZCP_OK;
    if (result == ZCP_OK) result = zcp_priv_file_create(path, permissions, o->desc.group, o->desc.flags, fd, status);
    if (result != ZCP_OK) return result;
    ZEROCP_STEP("chunk_created");
    result = zcp_priv_file_reserve(*fd, path, 0, o->geometry.chunk_bytes, o->desc.flags);
    if (result != ZCP_OK) shm_unlink(path);
    return result;
}

// Writes header, lists and records into the sized management file; READY last.
ZCP_PRIV_SETUP zcp_status zcp_priv_build_contents(zcp_priv_opening *o, const struct stat *chunk) {
    void *base;
    uint64_t instance_id = 0;
    const char *path = o->file.path.text;
    zcp_status status = zcp_priv_file_map_alone(o->file.fd, path, 0, o->geometry.management_bytes, 0, &base);
    if (status != ZCP_OK) return status;
    while (instance_id == 0)
        if (getrandom(&instance_id, sizeof instance_id, 0) != (ssize_t)sizeof instance_id)
            instance_id = zcp_priv_mix(zcp_priv_now_ns() ^ (uint64_t)getpid() << 32);
    zcp_priv_header *header = (zcp_priv_header *)base;
    header->layout_version = ZCP_PRIV_LAYOUT_VERSION;
    header->signature = zcp_priv_signature();
    header->instance_id = instance_id;
    header->chunk_device = (uint64_t)chunk->st_dev;
    header->chunk_inode = (uint64_t)chunk->st_ino;
    header->lock_device = o->locks.device;
    header->lock_inode = o->locks.inode;
    header->geometry = o->geometry;
    for (uint32_t p = 0; p < o->geometry.pool_count; p++)
        // Relaxed, all: READY's release carries it.
        zcp_priv_store_relaxed(&header->pools[p].state, zcp_priv_pool_state(1, ZCP_PRIV_POOL_LIVE));
    zcp_priv_store_relaxed(&header->signals.management_end, o->geometry.management_bytes);
    zcp_priv_store_relaxed(&header->signals.chunk_end, o->geometry.chunk_bytes);
    zcp_priv_format_pools(base, &o->geometry, instance_id);
    ZEROCP_STEP("formatted");
    // Pairs with the acquires in look and join.
    zcp_priv_store_release(&header->state, (uint32_t)ZCP_PRIV_READY);
    munmap(base, (size_t)o->geometry.management_bytes);
    return ZCP_OK;
}

// A half-made instance has no clients. Whoever holds a slot's lock has seen it READY: then the state word is garbage,
// and to truncate the file would take it away from them. Only those count who locked it for writing. The lock object
// may be an earlier instance's whose other names were removed by hand, with clients still: then it loses its name, and
// `next` says to start over.
ZCP_PRIV_SETUP zcp_status zcp_priv_check_no_clients(zcp_priv_opening *o) {
    bool taken, here;
    const char *path = o->file.path.text;
    zcp_status status = zcp_priv_locks_test(o, &taken);
    if (status == ZCP_OK)
        status = zcp_priv_lock_test(o->file.fd, path, ZCP_PRIV_LOCK_SLOTS, ZCP_MAX_CLIENTS, F_RDLCK, &here);
    if (status != ZCP_OK || (!taken && !here)) return status;
    if (here || zcp_priv_locks_are(o))
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: its state word says half-made, but it has clients", path);
    o->next = ZCP_PRIV_RETRY;
    return zcp_priv_unlink_if_there(o->locks.path.text);
}

// Makes an instance of a management file that is empty, or half-made by one who was killed.
ZCP_PRIV_SETUP zcp_status zcp_priv_build(zcp_priv_opening *o) {
    zcp_priv_lock lock;
    struct stat chunk;
    int fd = -1;
    const char *path = o->file.path.text;
    zcp_status status = zcp_priv_creation_lock(o, &lock);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) return status;
    // Somebody else was first.
    if (o->kind != ZCP_PRIV_KIND_HALF_MADE) {
        o->next = ZCP_PRIV_RETRY;
        zcp_priv_creation_unlock(o, &lock);
        return ZCP_OK;
    }
    status = zcp_priv_check_no_clients(o);
    // What this user may not remove it may not finish either.
    if (status == ZCP_OK && o->next == ZCP_PRIV_DONE && !o->fresh)
        status = zcp_priv_may_remove(o->file.fd, path, &o->status, o->desc.flags);
    zcp_priv_lock_drop(&o->creator);
    bool taken = false;
    if (status == ZCP_OK && o->next == ZCP_PRIV_DONE)
        status = zcp_priv_lock_one(&o->locks, ZCP_PRIV_LOCK_CREATOR, false, &o->creator, &taken);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) {
        zcp_priv_creation_unlock(o, &lock);
        return status;
    }
    int error = zcp_priv_truncate(o->file.fd, 0);
    if (error) { errno = error; status = zcp_priv_fail_system("ftruncate", path); }
    // The management segment always is: it is written at once.
    uint32_t reserve = o->desc.flags & ~ZCP_SHM_NO_RESERVE;
    uint64_t others = o->desc.flags & ZCP_SHM_NO_RESERVE ? 0 : o->geometry.chunk_bytes;
    if (status == ZCP_OK)
        status = zcp_priv_file_may_grow(o->file.fd, path, 0, o->geometry.management_bytes, others, reserve);
    if (status == ZCP_OK) status = zcp_priv_write_start(o);
    ZEROCP_STEP("started");
    if (status == ZCP_OK)
        status = zcp_priv_file_grant(o->file.fd, path, o->desc.permissions, o->desc.group, o->desc.flags);
    uint32_t writers = zcp_priv_writers(o->desc.permissions);
    if (status == ZCP_OK)
        status = zcp_priv_file_grant(o->locks.fd, o->locks.path.text, writers, o->desc.group, o->desc.flags);
    if (status == ZCP_OK) status = zcp_priv_file_reserve(o->file.fd, path, 0, o->geometry.management_bytes, reserve);
    ZEROCP_STEP("management_sized");
    if (status == ZCP_OK) status = zcp_priv_build_chunks(o, &fd, &chunk);
    ZEROCP_STEP("chunk_sized");
    if (status == ZCP_OK && (status = zcp_priv_build_contents(o, &chunk)) != ZCP_OK) shm_unlink(o->chunk_path.text);
    zcp_priv_close_fd(fd);
    if (status != ZCP_OK) {
        shm_unlink(path);
        shm_unlink(o->locks.path.text);
    } else { o->built_device = o->file.device; o->built_inode = o->file.inode; }
    zcp_priv_creation_unlock(o, &lock);
    ZEROCP_STEP("built");
    // Now attach, as everybody does.
    o->next = status == ZCP_OK ? ZCP_PRIV_ATTACH : ZCP_PRIV_DONE;
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>attach  Joining an instance
// ---------------------------------------------------------------------------------------------------------------------
// It takes no creation lock: READY is final, so a process that is stopped while it attaches blocks nobody.

// Against what this copy of zerocp would write.
ZCP_PRIV_SETUP zcp_status zcp_priv_check_header(const zcp_priv_opening *o) {
    const zcp_priv_header *h = &o->header;
    const char *path = o->file.path.text;
    zcp_config config;
    zcp_priv_geometry geometry;
    if (h->byte_order != ZCP_PRIV_BYTE_ORDER)
        return zcp_priv_fail(ZCP_ERR_LAYOUT, 0, "%s: byte order %08x, this process has %08x", path, h->byte_order,
                             ZCP_PRIV_BYTE_ORDER);
    if (h->layout_version != ZCP_PRIV_LAYOUT_VERSION)
        return zcp_priv_fail(ZCP_ERR_VERSION, 0, "%s has layout version %u, this process uses version %u", path,
                             h->layout_version, ZCP_PRIV_LAYOUT_VERSION);
    if (h->signature != zcp_priv_signature())
        return zcp_priv_fail(ZCP_ERR_LAYOUT, 0,
                             "%s: layout signature %016llx, this process has %016llx (both version %u)", path,
                             (unsigned long long)h->signature, (unsigned long long)zcp_priv_signature(),
                             ZCP_PRIV_LAYOUT_VERSION);
    zcp_priv_geometry_config(&h->geometry, &config);
    if (h->instance_id == 0) return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: its instance id is 0", path);
    if (zcp_priv_geometry_compute(&geometry, &config, h->geometry.max_clients) != ZCP_OK
        || memcmp(&geometry, &h->geometry, sizeof geometry) != 0)
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: the geometry in its header does not add up", path);
    // More: of pools that were added.
    if ((uint64_t)o->status.st_size < geometry.management_bytes)
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s has %lld bytes, its header says %llu", path,
                             (long long)o->status.st_size, (unsigned long long)geometry.management_bytes);
    return ZCP_OK;
}

// One of the pools that the header says are live.
typedef struct zcp_priv_live { uint32_t number; zcp_pool_config config; bool matched; } zcp_priv_live;

// Reads the live pools; *count tells how many. false: a slot is just being written, or garbage.
ZCP_PRIV_SETUP bool zcp_priv_live_read(zcp_priv_opening *o, zcp_priv_live live[ZCP_MAX_LIVE_POOLS], uint32_t *count) {
    zcp_config created;
    *count = 0;
    zcp_priv_geometry_config(&o->header.geometry, &created);
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        // Relaxed: of a private copy.
        uint64_t state = zcp_priv_load_relaxed(&o->header.pools[p].state);
        zcp_priv_added added;
        zcp_priv_live *is = &live[*count];
        if ((uint32_t)state != ZCP_PRIV_POOL_LIVE) continue;
        *is = (zcp_priv_live){p, {0, 0, 0, 0}, false};
        if (state >> 32 != 1) {
            if (!zcp_priv_added_read(&o->header.pools[p], (uint32_t)(state >> 32), &added)) return false;
            is->config = added.config;
        } else if (p < created.pools.size) is->config = created.pools.items[p];
        else return false;
        ++*count;
    }
    return true;
}

// The pool that differs, and the one that was asked for and is not there.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_pool(const zcp_priv_opening *o, const zcp_priv_live *pool,
                                            const zcp_pool_config *asked) {
    const zcp_pool_config *is = &pool->config;
    uint32_t alignment = asked->alignment ? asked->alignment : ZCP_DEFAULT_ALIGNMENT;
    zcp_pool_config same = *asked;
    same.cache_chunks = is->cache_chunks;
    if (zcp_priv_same_pool(is, &same))
        return zcp_priv_fail(ZCP_ERR_CONFIG_MISMATCH, 0, "%s exists, in its pool %u a thread may cache %u chunks, "
                             "asked for: %u", o->desc.name, pool->number, is->cache_chunks, asked->cache_chunks);
    return zcp_priv_fail(ZCP_ERR_CONFIG_MISMATCH, 0, "%s exists, its pool %u with %u chunks of %llu bytes (alignment "
                         "%u), asked for: %u of %llu (%u)", o->desc.name, pool->number, is->chunk_count,
                         (unsigned long long)is->chunk_size, is->alignment, asked->chunk_count,
                         (unsigned long long)asked->chunk_size, alignment);
}

// Are the live pools those that the caller wants, in whatever order? What the instance was created with does not count.
ZCP_PRIV_COLD zcp_status zcp_priv_check_config(zcp_priv_opening *o) {
    zcp_priv_live live[ZCP_MAX_LIVE_POOLS];
    const zcp_pool_config *missing = NULL;
    const char *name = o->desc.name;
    uint32_t count, clients = o->header.geometry.max_clients, asked = o->config.pools.size;
    if (o->desc.max_clients != 0 && o->desc.max_clients != clients)
        return zcp_priv_fail(ZCP_ERR_CONFIG_MISMATCH, 0, "%s exists for %u clients, %u were asked for", name, clients,
                             o->desc.max_clients);
    if (!o->desc.config) return ZCP_OK;
    const zcp_priv_geometry *is = &o->header.geometry, *wanted = &o->geometry;
    if (is->publishers != wanted->publishers || is->subscribers != wanted->subscribers
        || is->ring_cells != wanted->ring_cells)
        return zcp_priv_fail(ZCP_ERR_CONFIG_MISMATCH, 0, "%s exists with publishers %u, subscribers %u, ring_cells %u, "
                             "asked for: %u, %u, %u", name, is->publishers, is->subscribers, is->ring_cells,
                             wanted->publishers, wanted->subscribers, wanted->ring_cells);
    if (!zcp_priv_live_read(o, live, &count)) {
        // A pool may have come while this was read.
        o->next = o->torn++ < ZCP_PRIV_TORN ? ZCP_PRIV_RETRY : ZCP_PRIV_DONE;
        if (o->next != ZCP_PRIV_DONE) return ZCP_OK;
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: what its header says of its pools does not add up", name);
    }
    if (count != asked)
        return zcp_priv_fail(ZCP_ERR_CONFIG_MISMATCH, 0, "%s exists with %u pools, %u were asked for", name, count,
                             asked);
    for (uint32_t c = 0; c < asked; c++) {
        uint32_t p = 0;
        while (p < count && (live[p].matched || !zcp_priv_same_pool(&live[p].config, &o->config.pools.items[c]))) p++;
        if (p < count) live[p].matched = true;
        else if (!missing) missing = &o->config.pools.items[c];
    }
    // As many as asked for, so one is not wanted.
    for (uint32_t p = 0; missing && p < count; p++)
        if (!live[p].matched) return zcp_priv_fail_pool(o, &live[p], missing);
    return ZCP_OK;
}

// Finds somebody who has the instance open, by the slot; ZCP_MAX_CLIENTS stands for its creator, who has no slot yet,
// and -1 for nobody. Who replaces it does not count.
ZCP_PRIV_SETUP zcp_status zcp_priv_client_find(const zcp_priv_opening *o, int64_t *client) {
    int64_t length;
    zcp_status status = zcp_priv_lock_find(o->locks.fd, o->locks.path.text, ZCP_PRIV_LOCK_SLOTS, ZCP_PRIV_LOCK_ALL,
                                           F_WRLCK, client, &length);
    if (length > 1) *client = -1;
    return status;
}

// Tries to lock out everybody who could open the instance; *taken: somebody has it open.
ZCP_PRIV_SETUP zcp_status zcp_priv_clients_bar(const zcp_priv_opening *o, zcp_priv_lock *lock, bool *taken) {
    int64_t which;
    zcp_status status = zcp_priv_lock_range(&o->locks, ZCP_PRIV_LOCK_SLOTS, ZCP_PRIV_LOCK_ALL, lock, &which);
    *taken = which < 0;
    return status;
}

// Is somebody just replacing the instance?
ZCP_PRIV_SETUP zcp_status zcp_priv_clients_barred(const zcp_priv_opening *o, bool *barred) {
    int64_t which, length;
    zcp_status status = zcp_priv_lock_find(o->locks.fd, o->locks.path.text, ZCP_PRIV_LOCK_SLOTS, ZCP_PRIV_LOCK_ALL,
                                           F_WRLCK, &which, &length);
    *barred = length > 1;
    return status;
}

// Adds to why the instance was refused who has it open.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_used(const zcp_priv_opening *o, const zcp_priv_failure *why, int64_t client) {
    zcp_priv_slot slot;
    char name[32] = "";
    ssize_t n = 0;
    off_t at = (off_t)(o->header.geometry.slots_offset + (uint64_t)client * sizeof slot);
    if (client < o->header.geometry.max_clients)
        do n = pread(o->file.fd, (void *)&slot, sizeof slot, at); while (n < 0 && errno == EINTR);
    // Relaxed, both: of a private copy.
    if (n != (ssize_t)sizeof slot || zcp_priv_load_relaxed(&slot.state) != ZCP_PRIV_SLOT_IN_USE)
        return zcp_priv_fail(why->status, why->error, "%.270s; somebody is just opening or closing it", why->message);
    zcp_priv_slot_name(&slot, name);
    return zcp_priv_fail(why->status, why->error, "%.270s; client %u (pid %u, \"%s\") has it open", why->message,
                         (unsigned)client, zcp_priv_load_relaxed(&slot.pid), name);
}

// Is it an instance of ours that does not suit this call? Of any other one, and of garbage, it is not known who has it
// open.
ZCP_PRIV_SETUP bool zcp_priv_is_replaceable(zcp_priv_opening *o) {
    if (!o->creates || o->kind != ZCP_PRIV_KIND_READY || zcp_priv_check_header(o) != ZCP_OK) return false;
    return o->desc.mode == ZCP_SHM_CREATE_EXCLUSIVE || zcp_priv_check_config(o) == ZCP_ERR_CONFIG_MISMATCH;
}

// The instance does not suit this call, and `refused` and the message say why. If nobody has it open it is replaced:
// start over. Who has locked all slots while nobody held one keeps everybody out until the names are gone; whoever gets
// a slot then finds it RETIRED. Somebody who has it open is looked for before the creation lock is taken, so that a
// client which was stopped with that lock delays no answer.
ZCP_PRIV_SETUP zcp_status zcp_priv_replace(zcp_priv_opening *o, zcp_status refused) {
    zcp_priv_failure why = zcp_priv_failure_save(refused);
    zcp_priv_lock creation, slots;
    int64_t client = -1;
    bool taken = false, broken = false;
    zcp_status status = zcp_priv_locks_find(o, &broken);
    if (status == ZCP_OK && broken) return zcp_priv_dismantle(o, true);
    if (status == ZCP_OK) status = zcp_priv_client_find(o, &client);
    if (status != ZCP_OK) return status;
    if (client >= 0) return zcp_priv_fail_used(o, &why, client);
    if (!zcp_priv_can_remove(o->file.fd, &o->status))
        return zcp_priv_fail(refused, why.error, "%.270s; nobody has it open, but only user %lu or root can replace it",
                             why.message, (unsigned long)o->status.st_uid);
    status = zcp_priv_creation_lock(o, &creation);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) return status;
    status = zcp_priv_clients_bar(o, &slots, &taken);
    ZEROCP_STEP("clients_barred");
    // Nobody changes it any more.
    if (status == ZCP_OK && !taken) status = zcp_priv_inspect(o);
    if (status == ZCP_OK) {
        bool changed = taken || !zcp_priv_locks_are(o) || !zcp_priv_is_replaceable(o);
        o->next = changed ? ZCP_PRIV_RETRY : ZCP_PRIV_DONE;
    }
    if (status == ZCP_OK && o->next == ZCP_PRIV_DONE) status = zcp_priv_retire(o, &creation);
    zcp_priv_creation_unlock(o, &creation);
    zcp_priv_lock_drop(&slots);
    return status;
}

// Maps the chunk segment; children do not get it.
ZCP_PRIV_SETUP zcp_status zcp_priv_chunk_map(zcp_priv_opening *o, zcp_manager *manager, int fd) {
    uint32_t flags = o->desc.flags & (ZCP_SHM_PREFAULT | ZCP_SHM_LOCK | ZCP_SHM_NO_DUMP);
    if (o->desc.flags & ZCP_READ_ONLY_DATA) flags |= ZCP_SHM_READ_ONLY;
    uint32_t largest = 1;
    for (uint32_t p = 0; p < manager->geometry.pool_count; p++)
        if (manager->geometry.pools[p].alignment > largest) largest = manager->geometry.pools[p].alignment;
    flags |= zcp_priv_lowest_bit(largest) << ZCP_PRIV_SHM_ALIGNED;
    return zcp_priv_file_map_alone(fd, o->chunk_path.text, 0, manager->geometry.chunk_bytes, flags, &manager->chunks);
}

// Private words, one set per chunk, and the lanes; zero, and not in children.
ZCP_PRIV_SETUP zcp_status zcp_priv_private_map(zcp_manager *manager) {
    uint64_t bytes = zcp_priv_private_bytes(&manager->geometry);
    char what[80];
    manager->private_bytes = (size_t)bytes;
    errno = ENOMEM;
    // So that no fork falls within.
    zcp_priv_process *process = zcp_priv_process_lock();
    manager->private_memory = bytes > SIZE_MAX ? NULL : zcp_priv_anonymous((size_t)bytes, MADV_DONTFORK);
    zcp_priv_process_unlock(process);
    if (manager->private_memory) return ZCP_OK;
    snprintf(what, sizeof what, "threads and handle counts (%llu bytes)", (unsigned long long)bytes);
    return zcp_priv_fail_memory(manager->name, what);
}

// A look at the slots: gives clean ones, as hints, if there are any. *in_motion: one is not in use; if nobody could
// take it, a sweeper, a joiner or a leaver is at work, and one may become free.
ZCP_PRIV_SETUP zcp_status zcp_priv_scan_slots(const zcp_priv_opening *o, uint64_t clean[ZCP_MAX_CLIENTS / 64],
                                              bool *in_motion) {
    zcp_priv_slot some[32];
    bool found = false;
    uint32_t count = o->header.geometry.max_clients, part = sizeof some / sizeof some[0];
    memset(clean, 0, ZCP_MAX_CLIENTS / 8);
    *in_motion = false;
    for (uint32_t first = 0; first < count && !found; first += part) {
        if (part > count - first) part = count - first;
        off_t at = (off_t)(o->header.geometry.slots_offset + first * sizeof some[0]);
        ssize_t n;
        do n = pread(o->file.fd, (void *)some, part * sizeof some[0], at); while (n < 0 && errno == EINTR);
        if (n < 0) return zcp_priv_fail_system("pread", o->file.path.text);
        part = (uint32_t)n / (uint32_t)sizeof some[0];
        if (part == 0) break;
        for (uint32_t k = 0; k < part; k++) {
            // Of a private copy.
            uint32_t state = zcp_priv_load_relaxed(&some[k].state), slot = first + k;
            if (state != ZCP_PRIV_SLOT_IN_USE && state != ZCP_PRIV_SLOT_DRAINING) *in_motion = true;
            if (state != ZCP_PRIV_SLOT_CLEAN) continue;
            clean[slot / 64] |= UINT64_C(1) << slot % 64;
            found = true;
        }
    }
    return ZCP_OK;
}

// Takes a client slot, a clean one if there is one: the lock on its byte of the lock object, held by a mapping. Starts
// over if somebody is just replacing the instance.
ZCP_PRIV_SETUP zcp_status zcp_priv_slot_lock(zcp_priv_opening *o, zcp_manager *manager, uint32_t *client) {
    uint64_t clean[ZCP_MAX_CLIENTS / 64];
    bool in_motion;
    zcp_status status = zcp_priv_scan_slots(o, clean, &in_motion);
    for (uint32_t looks = 0; status == ZCP_OK;) {
        int64_t which;
        status = zcp_priv_lock_take(&manager->locks, ZCP_PRIV_LOCK_SLOTS, manager->geometry.max_clients, 1, clean,
                                    o->passed, 1,
                                    &manager->slot_lock, &which);
        if (status != ZCP_OK) return status;
        if (which >= 0) { *client = (uint32_t)which; return ZCP_OK; }
        bool barred;
        status = zcp_priv_clients_barred(o, &barred);
        o->next = barred ? ZCP_PRIV_WAIT_FOR_REPLACER : ZCP_PRIV_DONE;
        if (status != ZCP_OK || barred) return status;
        status = zcp_priv_scan_slots(o, clean, &in_motion);
        // Twice, with a pause: a sweeper may just have taken a lock.
        if (!in_motion) looks++;
        if (status == ZCP_OK && (looks == 2 || !zcp_priv_wait_more(&o->wait)))
            return zcp_priv_fail(ZCP_ERR_CLIENTS_FULL, 0, "%s: all %u client slots are taken", manager->name,
                                 manager->geometry.max_clients);
    }
    return status;
}

// Maps the management segment, and locks the slot's byte there, too: those who may only read cannot open the lock
// object. A reader can keep that lock from us by one of its own; then observers take this client for dead, and nobody
// else does.
ZCP_PRIV_SETUP zcp_status zcp_priv_management_map(zcp_manager *manager, uint32_t client) {
    int fd;
    bool taken = false;
    off_t byte = ZCP_PRIV_LOCK_SLOTS + (off_t)client;
    zcp_status locked = ZCP_OK;
    zcp_priv_process *process = zcp_priv_process_lock();
    if (!process) return zcp_priv_fail_memory(manager->name, "the process's page");
    size_t bytes = (size_t)manager->geometry.management_bytes;
    zcp_status status = zcp_priv_lock_map(&manager->file, bytes, &manager->management, &fd);
    if (status == ZCP_OK) {
        locked = zcp_priv_lock_bytes(fd, manager->file.path.text, byte, 1, F_WRLCK, &taken);
        zcp_priv_close_fd(fd);
    }
    zcp_priv_process_unlock(process);
    if (taken || locked != ZCP_OK)
        ZEROCP_LOG(ZCP_LOG_WARNING, "%s: those who attach with ZCP_OBSERVE take client %u for dead: %s", manager->name,
                   client, taken ? "somebody who may only read holds a lock on its slot" : zcp_last_message());
    return status;
}

// Names the slot's client for people, and marks it in use: before the first claim.
ZCP_PRIV_SETUP void zcp_priv_slot_occupy(zcp_manager *manager, const char *name) {
    zcp_priv_slot *slot = zcp_priv_slot_at(manager, manager->view.client);
    struct timespec now;
    uint64_t words[4] = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    memcpy(words, name, strlen(name));
    zcp_priv_and_release(&manager->header->signals.slept[manager->view.client / 64],
                         // It has not slept; for others to see in time.
                         ~zcp_priv_borrow_bit(manager->view.client));
    // Relaxed, all three: for messages.
    for (int i = 0; i < 4; i++) zcp_priv_store_relaxed(&slot->name[i], words[i]);
    zcp_priv_store_relaxed(&slot->pid, (uint32_t)getpid());
    zcp_priv_store_relaxed(&slot->start, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    // Readers: whoever takes the lock after us.
    zcp_priv_store_release(&slot->state, (uint32_t)ZCP_PRIV_SLOT_IN_USE);
    // Before the first claim.
    atomic_thread_fence(memory_order_seq_cst);
}

// Connects the view to the header's word on pools that come and go, which may have begun.
ZCP_PRIV_SETUP void zcp_priv_view_join(zcp_manager *manager) {
    zcp_priv_view *view = &manager->view;
    for (uint32_t p = 0; p < manager->geometry.pool_count; p++) {
        view->own[p].slot = &manager->header->pools[p];
        view->own[p].signals = &manager->header->signals;
        view->own[p].manager = manager;
        view->own[p].slots = zcp_priv_slot_at(manager, 0);
        view->own[p].punches = !(view->flags & (ZCP_READ_ONLY_DATA | ZCP_OBSERVE));
    }
    view->signals = &manager->header->signals;
    zcp_priv_catch_up_if_changed(manager);
}

// Joins: slot, sweep of what a dead predecessor left in it, view.
ZCP_PRIV_SETUP zcp_status zcp_priv_join(zcp_priv_opening *o, zcp_manager *manager) {
    uint32_t client = 0;
    bool garbage = false;
    zcp_recovery report = {0, 0};
    zcp_status status = zcp_priv_slot_lock(o, manager, &client);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) return status;
    ZEROCP_STEP("slot_locked");
    status = zcp_priv_management_map(manager, client);
    if (status != ZCP_OK) return status;
    manager->header = (zcp_priv_header *)manager->management.base;
    zcp_priv_view_make(&manager->view, &manager->geometry, manager->header, manager->chunks, manager->private_memory,
                       client, o->desc.flags);
    // Pairs with READY's release: contents; and with RETIRED's.
    uint32_t state = zcp_priv_load_acquire(&manager->header->state);
    zcp_priv_view_join(manager);
    status = zcp_priv_slot_clean(manager, client, &report, &garbage, true);
    if (status != ZCP_OK) return status;
    if (zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, client)->state) == ZCP_PRIV_SLOT_DRAINING) {
        // It is passed over.
        o->passed[client / 64] |= zcp_priv_borrow_bit(client);
        o->next = ZCP_PRIV_PASS;
        return ZCP_OK;
    }
    if (garbage) ZEROCP_LOG(ZCP_LOG_ERROR, "%s: chunk records hold garbage", manager->name);
    zcp_priv_slot_occupy(manager, o->desc.client_name);
    ZEROCP_STEP("joined");
    bool same = false;
    status = zcp_priv_file_is(&manager->file, &same);
    if (status == ZCP_OK && same) status = zcp_priv_file_is(&manager->locks, &same);
    if (status == ZCP_OK
        && (!same || state != ZCP_PRIV_READY || zcp_priv_load_acquire(&manager->header->state) != ZCP_PRIV_READY))
        o->next = ZCP_PRIV_RETRY;
    // Nothing was claimed.
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE)
        zcp_priv_store_release(&zcp_priv_slot_at(manager, client)->state, (uint32_t)ZCP_PRIV_SLOT_CLEAN);
    return status;
}

// Maps the management segment to look at it only.
ZCP_PRIV_SETUP zcp_status zcp_priv_observe(zcp_priv_opening *o, zcp_manager *manager) {
    zcp_priv_lock *mapping = &manager->management;
    uint64_t bytes = manager->geometry.management_bytes;
    zcp_status status = zcp_priv_file_map_alone(o->file.fd, o->file.path.text, 0, bytes, manager->file.flags,
                                                &mapping->base);
    if (status != ZCP_OK) return status;
    mapping->bytes = (size_t)bytes;
    manager->header = (zcp_priv_header *)mapping->base;
    zcp_priv_view_make(&manager->view, &manager->geometry, manager->header, NULL, manager->private_memory, 0,
                       o->desc.flags);
    manager->view.client = ZCP_NO_CLIENT;
    zcp_priv_view_join(manager);
    return ZCP_OK;
}

// Attaches to the READY instance that was looked at.
ZCP_PRIV_SETUP zcp_status zcp_priv_attach(zcp_priv_opening *o, zcp_manager **result) {
    int fd = -1;
    bool broken = false, observes = o->desc.flags & ZCP_OBSERVE;
    zcp_status status = zcp_priv_check_header(o);
    if (status == ZCP_OK) status = zcp_priv_check_config(o);
    if (status == ZCP_ERR_CONFIG_MISMATCH && o->creates) return zcp_priv_replace(o, status);
    if (status == ZCP_OK && o->next != ZCP_PRIV_DONE) return status;
    if (status == ZCP_OK && !observes) status = zcp_priv_locks_find(o, &broken);
    if (status == ZCP_OK && !observes && !broken) status = zcp_priv_chunk_open(o, &fd, &broken);
    if (status == ZCP_OK && broken) return zcp_priv_dismantle(o, true);
    if (status != ZCP_OK) return status;
    zcp_manager *manager = zcp_priv_manager_new();
    if (!manager) {
        zcp_priv_close_fd(fd);
        return zcp_priv_fail_memory(o->desc.name, "a manager");
    }
    snprintf(manager->name, sizeof manager->name, "%s", o->desc.name);
    manager->geometry = o->header.geometry;
    manager->instance_id = o->header.instance_id;
    manager->file = o->file;
    manager->locks = o->locks;
    // The directory.
    manager->chunk_file = o->file;
    manager->chunk_file.path = o->chunk_path;
    manager->chunk_file.device = o->header.chunk_device;
    manager->chunk_file.inode = o->header.chunk_inode;
    manager->chunk_file.fd = fd;
    manager->file.flags = o->desc.flags & (ZCP_SHM_PREFAULT | ZCP_SHM_LOCK | ZCP_SHM_NO_DUMP);
    manager->chunk_file.flags = manager->file.flags;
    if (o->desc.flags & ZCP_READ_ONLY_DATA) manager->chunk_file.flags |= ZCP_SHM_READ_ONLY;
    if (observes) manager->file.flags |= ZCP_SHM_READ_ONLY;
    else status = zcp_priv_chunk_map(o, manager, fd);
    if (status == ZCP_OK) status = zcp_priv_private_map(manager);
    if (status == ZCP_OK) status = observes ? zcp_priv_observe(o, manager) : zcp_priv_join(o, manager);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) {
        // Still the opening's.
        manager->file.fd = manager->locks.fd = -1;
        zcp_priv_manager_end(manager, false);
        return status;
    }
    // The manager's now.
    o->file.fd = o->locks.fd = -1;
    *result = manager;
    return ZCP_OK;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>open  Opening, closing and destroying: one attempt after the other until one is final
// ---------------------------------------------------------------------------------------------------------------------

#define ZCP_PRIV_MANAGER_FLAGS \
    (ZCP_FALLBACK | ZCP_READ_ONLY_DATA | ZCP_WAIT | ZCP_CHECKED | ZCP_OBSERVE | ZCP_SHM_PREFAULT | ZCP_SHM_LOCK \
     | ZCP_SHM_ANY_OWNER | ZCP_SHM_NO_RESERVE | ZCP_SHM_NO_DUMP | ZCP_SHM_GROUP)
#define ZCP_PRIV_DEFAULT_NAME "zerocp"
#define ZCP_PRIV_MANAGEMENT_SUFFIX "_memory_management"
#define ZCP_PRIV_CHUNK_SUFFIX "_memory_chunk"
#define ZCP_PRIV_LOCKS_SUFFIX "_memory_locks"

ZCP_PRIV_SETUP zcp_status zcp_priv_resolve_name(zcp_priv_opening *o) {
    o->desc.name = o->desc.name ? zcp_priv_name_plain(o->desc.name) : ZCP_PRIV_DEFAULT_NAME;
    zcp_status status = zcp_priv_path_make(&o->file.path, o->desc.name, ZCP_PRIV_MANAGEMENT_SUFFIX);
    if (status == ZCP_OK) status = zcp_priv_path_make(&o->chunk_path, o->desc.name, ZCP_PRIV_CHUNK_SUFFIX);
    if (status == ZCP_OK) status = zcp_priv_path_make(&o->locks.path, o->desc.name, ZCP_PRIV_LOCKS_SUFFIX);
    return status;
}

// Fills in the defaults and checks everything that can be checked without the system.
ZCP_PRIV_SETUP zcp_status zcp_priv_resolve(zcp_priv_opening *o, char client_name[32]) {
    static const zcp_priv_flag opening[] = {
        { ZCP_READ_ONLY_DATA, "ZCP_READ_ONLY_DATA" },
        { ZCP_OBSERVE, "ZCP_OBSERVE" },
        { ZCP_WAIT, "ZCP_WAIT" },
        { 0, NULL }
    };
    zcp_manager_desc *desc = &o->desc;
    zcp_status status = zcp_priv_resolve_name(o);
    if (status == ZCP_OK) status = zcp_priv_check_mode(desc->mode, desc->flags, ZCP_PRIV_MANAGER_FLAGS, opening);
    if (status != ZCP_OK) return status;
    if (desc->permissions == 0) desc->permissions = ZCP_SHM_DEFAULT_PERMISSIONS;
    if (desc->permissions > 0777 || (desc->permissions & 0600) != 0600)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "permissions 0%o: up to 0777, with 0600 in it",
                             desc->permissions);
    if (desc->data_permissions != 0 && (desc->data_permissions > 0777 || (desc->data_permissions & 0600) != 0600))
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "data_permissions 0%o: up to 0777, with 0600 in it",
                             desc->data_permissions);
    if (desc->timeout_ms == 0) desc->timeout_ms = ZCP_SHM_DEFAULT_TIMEOUT_MS;
    if (desc->max_clients > ZCP_MAX_CLIENTS)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "max_clients %u: up to %u", desc->max_clients,
                             ZCP_MAX_CLIENTS);
    bool valid = !desc->client_name || !*desc->client_name || zcp_priv_name_valid(desc->client_name, 31);
    if (desc->client_name) snprintf(client_name, 32, "%s", desc->client_name);
    else if (prctl(PR_GET_NAME, client_name, 0, 0, 0) != 0) client_name[0] = 0;
    if (!valid || !desc->client_name) zcp_priv_text_clean(client_name, valid ? '/' : 0);
    if (!valid)
        return zcp_priv_fail(ZCP_ERR_INVALID_NAME, 0, "client name \"%s\": up to 31 bytes, no slash, no control "
                             "character", client_name);
    desc->client_name = client_name;
    if (!desc->config) {
        if (zcp_priv_always_creates(desc->mode))
            return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "%s: to create it takes a configuration", desc->name);
        return ZCP_OK;
    }
    o->config = *desc->config;
    desc->config = &o->config;
    if (o->config.pools.size == 0)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "%s: no pool is configured", desc->name);
    o->creates = desc->mode != ZCP_SHM_OPEN_EXISTING && !(desc->flags & (ZCP_READ_ONLY_DATA | ZCP_OBSERVE));
    o->removes = desc->mode == ZCP_SHM_PURGE_AND_CREATE;
    return zcp_priv_geometry_compute(&o->geometry, &o->config, desc->max_clients);
}

// Nothing is there and this call may not create: says so, or with ZCP_WAIT starts over.
ZCP_PRIV_SETUP zcp_status zcp_priv_not_found(zcp_priv_opening *o, const char *what) {
    o->next = o->desc.flags & ZCP_WAIT ? ZCP_PRIV_WAIT_FOR_CREATOR : ZCP_PRIV_DONE;
    if (o->next != ZCP_PRIV_DONE) return ZCP_OK;
    return zcp_priv_fail(ZCP_ERR_NOT_FOUND, ENOENT, "%s: %s %s%s", o->desc.name, o->file.path.text, what,
                         o->desc.mode == ZCP_SHM_OPEN_OR_CREATE && !o->desc.config
                             ? "; to create it takes a configuration"
                             : "");
}

// Opens, or creates empty, the management file.
ZCP_PRIV_SETUP zcp_status zcp_priv_open_file(zcp_priv_opening *o) {
    int fd;
    zcp_priv_path path = o->file.path;
    uint32_t accepts = o->removes ? o->desc.flags | ZCP_SHM_ANY_OWNER : o->desc.flags;
    int access = o->desc.flags & ZCP_OBSERVE ? O_RDONLY : O_RDWR;
    zcp_status status = zcp_priv_file_open(path.text, access, accepts, &fd, &o->status);
    if (status == ZCP_ERR_NOT_FOUND) {
        if (!o->creates) return zcp_priv_not_found(o, "is not there");
        status = zcp_priv_file_create(path.text, o->desc.permissions, o->desc.group, o->desc.flags, &fd, &o->status);
        ZEROCP_STEP("management_created");
        o->fresh = status == ZCP_OK;
        if (status == ZCP_ERR_EXISTS) { o->next = ZCP_PRIV_RETRY; return ZCP_OK; }
    }
    if (status == ZCP_OK) zcp_priv_file_remember(&o->file, fd, &path, 0, &o->status);
    return status;
}

// Removes the lock object that this call has made, unless somebody has come to use it. Who begins to at this moment
// finds the name gone when it joins, and starts over.
ZCP_PRIV_SETUP void zcp_priv_locks_withdraw(const zcp_priv_opening *o) {
    zcp_priv_header header;
    bool same, taken = o->locks.inode != o->made_inode || o->locks.device != o->made_device;
    const char *path = o->locks.path.text;
    if (!taken && !o->guard.lock.base
        && zcp_priv_lock_test(o->locks.fd, path, ZCP_PRIV_LOCK_CREATION, 1, F_WRLCK, &taken) != ZCP_OK) return;
    if (taken || zcp_priv_file_is(&o->locks, &same) != ZCP_OK || !same) return;
    int fd = zcp_priv_open_high(ZCP_PRIV_BY_SHM_OPEN, o->file.path.text, O_RDONLY | ZCP_PRIV_CAREFULLY, 0);
    if (fd < 0 && errno != ENOENT) return;
    memset((void *)&header, 0, sizeof header);
    bool unread = fd >= 0 && pread(fd, (void *)&header, sizeof header, 0) < 0;
    zcp_priv_close_fd(fd);
    if (unread || (header.lock_inode == o->made_inode && header.lock_device == o->made_device)) return;
    shm_unlink(path);
}

// Ends an attempt: the file that it created, empty but for the start of a header, does not stay when it fails before it
// has the lock (with TIMEOUT somebody else has taken it over).
ZCP_PRIV_SETUP void zcp_priv_attempt_end(zcp_priv_opening *o, zcp_status status) {
    if (o->fresh && status != ZCP_OK && status != ZCP_ERR_TIMEOUT)
        zcp_priv_file_withdraw(o->file.fd, o->file.path.text, 16);
    if (status != ZCP_OK && o->locks.fd >= 0) zcp_priv_locks_withdraw(o);
    o->fresh = false;
    zcp_priv_hold_drop(&o->guard);
    zcp_priv_file_forget(&o->file);
    zcp_priv_file_forget(&o->locks);
}

// Removes what another user has at the management name, if this one may: that is not looked into.
ZCP_PRIV_SETUP zcp_status zcp_priv_remove_stranger(zcp_priv_opening *o) {
    zcp_status status = zcp_priv_may_remove(o->file.fd, o->file.path.text, &o->status, o->desc.flags);
    return status == ZCP_OK ? zcp_priv_dismantle(o, false) : status;
}

// One attempt: *result is set, or the status tells why not, or `next` says to start over.
ZCP_PRIV_SETUP zcp_status zcp_priv_open_once(zcp_priv_opening *o, zcp_manager **result) {
    zcp_status status = zcp_priv_open_file(o);
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) return status;
    if (o->removes && zcp_priv_is_stranger(&o->status, o->desc.flags)) return zcp_priv_remove_stranger(o);
    if ((status = zcp_priv_inspect(o)) != ZCP_OK) return status;
    bool mine = o->built_inode == o->file.inode && o->built_device == o->file.device;
    switch (o->kind) {
    case ZCP_PRIV_KIND_FOREIGN: return zcp_priv_fail_foreign(o);
    case ZCP_PRIV_KIND_RETIRED:
        return o->desc.flags & ZCP_OBSERVE ? zcp_priv_not_found(o, "was destroyed") : zcp_priv_dismantle(o, true);
    case ZCP_PRIV_KIND_HALF_MADE: return o->creates ? zcp_priv_build(o) : zcp_priv_not_found(o, "is half-made");
    case ZCP_PRIV_KIND_GARBAGE:
        if (o->desc.mode != ZCP_SHM_PURGE_AND_CREATE)
            return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: the state word in its header is garbage", o->file.path.text);
        break;
    case ZCP_PRIV_KIND_READY: break;
    }
    if (o->desc.mode == ZCP_SHM_PURGE_AND_CREATE && !mine) return zcp_priv_dismantle(o, false);
    if (o->desc.mode == ZCP_SHM_CREATE_EXCLUSIVE && !mine) {
        int fd = -1;
        bool broken = false;
        if (zcp_priv_check_header(o) == ZCP_OK && zcp_priv_locks_find(o, &broken) == ZCP_OK && !broken)
            (void)zcp_priv_chunk_open(o, &fd, &broken);
        zcp_priv_close_fd(fd);
        if (broken) return zcp_priv_dismantle(o, true);
        bool replaceable = zcp_priv_is_replaceable(o);
        status = zcp_priv_fail(ZCP_ERR_EXISTS, EEXIST, "%s exists", o->desc.name);
        return replaceable ? zcp_priv_replace(o, status) : status;
    }
    return zcp_priv_attach(o, result);
}

// Removes the instance that this call has built and could not attach to, unless somebody else has. Who joins meanwhile
// looks at the state once more.
ZCP_PRIV_SETUP void zcp_priv_unbuild(zcp_priv_opening *o) {
    bool joined = true, broken;
    o->creates = false;
    o->next = ZCP_PRIV_DONE;
    o->desc.flags &= ~ZCP_WAIT;
    if (zcp_priv_open_file(o) != ZCP_OK) return;
    if (o->file.inode == o->built_inode && o->file.device == o->built_device && zcp_priv_inspect(o) == ZCP_OK
        && zcp_priv_locks_find(o, &broken) == ZCP_OK && !broken
        && zcp_priv_locks_test(o, &joined) == ZCP_OK && !joined) (void)zcp_priv_dismantle(o, false);
    zcp_priv_attempt_end(o, ZCP_OK);
}

ZCP_PRIV_COLD zcp_status zcp_priv_fail_replaced(const zcp_priv_opening *o) {
    return zcp_priv_fail(ZCP_ERR_REPLACED, 0, "%s: %s is gone or leads to another instance", o->desc.name,
                         o->file.path.text);
}

// One attempt to destroy; o->next says REMOVED after success.
ZCP_PRIV_SETUP zcp_status zcp_priv_destroy_once(zcp_priv_opening *o) {
    int fd;
    struct stat chunk;
    bool same = true;
    o->creates = false;
    const zcp_priv_file *only = o->only ? &o->only->file : NULL;
    zcp_status status = only ? zcp_priv_file_is(only, &same) : ZCP_OK;
    ZEROCP_STEP("destroying");
    if (status == ZCP_OK && same) status = zcp_priv_open_file(o);
    if (status == ZCP_OK && same && only) same = o->file.device == only->device && o->file.inode == only->inode;
    if (!same || (only && status == ZCP_ERR_NOT_FOUND)) {
        // Who was killed while it destroyed this instance may have left the last name: then that is finished.
        status = zcp_priv_file_is(&o->only->locks, &same);
        if (status == ZCP_OK && !same) return zcp_priv_fail_replaced(o);
        if (status == ZCP_OK) status = ZCP_ERR_NOT_FOUND;
    }
    // What is left goes under a fresh one's lock.
    if (status == ZCP_ERR_NOT_FOUND) {
        status = zcp_priv_inspect_leftover(o, o->chunk_path.text, &fd, &chunk);
        if (status == ZCP_ERR_NOT_FOUND) status = zcp_priv_inspect_leftover(o, o->locks.path.text, &fd, &chunk);
        if (status == ZCP_ERR_NOT_FOUND)
            return zcp_priv_fail(ZCP_ERR_NOT_FOUND, ENOENT, "%s: %s, %s and %s are not there", o->desc.name,
                                 o->file.path.text, o->chunk_path.text, o->locks.path.text);
        if (status != ZCP_OK) return status;
        close(fd);
        o->creates = true;
        status = zcp_priv_open_file(o);
        if (status == ZCP_OK && only && !o->fresh) return zcp_priv_fail_replaced(o);
    }
    if (status != ZCP_OK || o->next != ZCP_PRIV_DONE) return status;
    if (zcp_priv_is_stranger(&o->status, o->desc.flags)) return zcp_priv_remove_stranger(o);
    if ((status = zcp_priv_inspect(o)) != ZCP_OK) return status;
    return o->kind == ZCP_PRIV_KIND_FOREIGN ? zcp_priv_fail_foreign(o) : zcp_priv_dismantle(o, false);
}

// An attempt has to be repeated, but the time is over.
ZCP_PRIV_COLD zcp_status zcp_priv_fail_attempts(const zcp_priv_opening *o) {
    // Relaxed: of a private copy.
    uint32_t locker = zcp_priv_load_relaxed(&o->header.locker_pid);
    if (o->next == ZCP_PRIV_WAIT_FOR_CREATOR)
        return zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: nobody created it within %u ms", o->desc.name,
                             o->desc.timeout_ms);
    if (o->next == ZCP_PRIV_WAIT_FOR_REPLACER)
        return zcp_priv_fail_locked(o->file.path.text, locker, o->desc.timeout_ms);
    return zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: others kept replacing it for %u ms", o->desc.name,
                         o->desc.timeout_ms);
}

// Attempts to open until one is final, within the time.
ZCP_PRIV_COLD zcp_status zcp_priv_open_loop(zcp_priv_opening *o, zcp_manager **result) {
    o->wait = zcp_priv_wait_begin(o->desc.timeout_ms);
    for (;;) {
        o->next = ZCP_PRIV_DONE;
        zcp_status status = zcp_priv_open_once(o, result);
        zcp_priv_attempt_end(o, status);
        if (status != ZCP_OK || o->next == ZCP_PRIV_DONE) return status;
        if (o->next == ZCP_PRIV_ATTACH || o->next == ZCP_PRIV_PASS) continue;
        if (!zcp_priv_wait_more(&o->wait)) return zcp_priv_fail_attempts(o);
    }
}

// The same, to destroy.
ZCP_PRIV_COLD zcp_status zcp_priv_destroy_loop(zcp_priv_opening *o) {
    o->wait = zcp_priv_wait_begin(o->desc.timeout_ms);
    for (;;) {
        o->next = ZCP_PRIV_DONE;
        zcp_status status = zcp_priv_destroy_once(o);
        zcp_priv_attempt_end(o, status);
        if (status != ZCP_OK || o->next == ZCP_PRIV_DONE || o->next == ZCP_PRIV_REMOVED) return status;
        if (!zcp_priv_wait_more(&o->wait)) return zcp_priv_fail_attempts(o);
    }
}

ZCP_PRIV_SETUP void zcp_priv_log_segment(const zcp_manager *m, const zcp_priv_path *path, uint64_t bytes,
                                         const void *base, int id) {
    // Here and below: ZEROCP_LOG may be defined to nothing.
    (void)m, (void)path, (void)bytes, (void)base, (void)id;
    ZEROCP_LOG(ZCP_LOG_INFO, "%s: segment created: %s, %llu bytes, base %p, id %d, instance %016llx", m->name,
               path->text, (unsigned long long)bytes, base, id, (unsigned long long)m->instance_id);
}

ZCP_PRIV_SETUP void zcp_priv_log_built(const zcp_priv_opening *o, const zcp_manager *m) {
    ZEROCP_LOG(ZCP_LOG_INFO,
               "%s: sizes computed: management segment %llu bytes, chunk segment %llu bytes, up to %u clients", m->name,
               (unsigned long long)m->geometry.management_bytes, (unsigned long long)m->geometry.chunk_bytes,
               m->geometry.max_clients);
    zcp_priv_log_segment(m, &o->file.path, m->geometry.management_bytes, m->management.base, ZCP_SEGMENT_MANAGEMENT);
    zcp_priv_log_segment(m, &o->chunk_path, m->geometry.chunk_bytes, m->chunks, ZCP_SEGMENT_CHUNK);
    for (uint32_t p = 0; p < m->geometry.pool_count; p++) {
        const zcp_priv_pool_geometry *pool = &m->geometry.pools[p];
        (void)pool;
        ZEROCP_LOG(
            ZCP_LOG_INFO,
            "%s: pool %u: chunk_size=%llu, count=%u, alignment=%u, chunks at %llu, list at %llu, records at %llu",
            m->name, p, (unsigned long long)pool->chunk_size, pool->chunk_count, pool->alignment,
            (unsigned long long)pool->data_offset, (unsigned long long)pool->list_offset,
            (unsigned long long)pool->records_offset);
    }
}

ZCP_PRIV_SETUP zcp_status zcp_priv_manager_open(zcp_manager **manager, const zcp_manager_desc *desc) {
    zcp_priv_opening o;
    char client_name[32];
    if (!manager) return zcp_priv_fail_null("place for the manager");
    *manager = NULL;
    if (!desc) return zcp_priv_fail_null("descriptor");
    memset((void *)&o, 0, sizeof o);
    o.desc = *desc;
    o.file.fd = o.locks.fd = -1;
    zcp_status status = zcp_priv_resolve(&o, client_name);
    if (status != ZCP_OK) return status;
    // Here, so that no allocate makes a system call for it.
    pthread_once(&zcp_priv_thread_once, zcp_priv_process_begin);
    zcp_manager *m = NULL;
    status = zcp_priv_open_loop(&o, &m);
    zcp_priv_lock_drop(&o.creator);
    if (status != ZCP_OK && o.built_inode != 0) {
        zcp_priv_failure failure = zcp_priv_failure_save(status);
        zcp_priv_unbuild(&o);
        return zcp_priv_failure_again(&failure);
    }
    if (status != ZCP_OK) return status;
    zcp_registry_add(&m->registry, ZCP_SEGMENT_MANAGEMENT, m->management.base, m->geometry.management_bytes);
    if (m->chunks) zcp_registry_add(&m->registry, ZCP_SEGMENT_CHUNK, m->chunks, m->geometry.chunk_bytes);
    if (o.built_inode == m->file.inode && o.built_device == m->file.device) zcp_priv_log_built(&o, m);
    ZEROCP_LOG(ZCP_LOG_INFO, "%s: attached as client %u (\"%s\"): management segment at %p, chunk segment at %p",
               m->name, m->view.client, client_name, m->management.base, m->chunks);
    zcp_recovery report = {0, 0};
    if (!(m->view.flags & ZCP_OBSERVE) && zcp_priv_recover(m, &report) != ZCP_OK)
        ZEROCP_LOG(ZCP_LOG_WARNING, "%s: recovery on attach: %s", m->name, zcp_last_message());
    zcp_priv_self_ask();
    m->max_chunks = desc->max_chunks;
    // Relaxed: OPEN's release carries it.
    zcp_priv_store_relaxed(&m->live, m->max_chunks ? 0 : (uintptr_t)m->opened);
    // Pairs with the acquire in find.
    zcp_priv_store_release(&m->state, (uint32_t)ZCP_PRIV_OPEN);
    *manager = m;
    return ZCP_OK;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_open(zcp_manager **manager, const zcp_manager_desc *desc) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_manager_open(manager, desc));
}

// Handles that this process still has.
ZCP_PRIV_SETUP uint64_t zcp_priv_handles_left(const zcp_manager *manager) {
    uint64_t left = 0;
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        if (pool && pool->counts) left += zcp_priv_pool_handles(pool);
    }
    return left;
}

ZCP_PRIV_SETUP void zcp_priv_manager_close(zcp_manager *manager) {
    bool garbage = false;
    uint32_t open = ZCP_PRIV_OPEN;
    if (!zcp_priv_usable(manager)) return;
    // So that no thread's end falls into this.
    zcp_priv_process *process = zcp_priv_process_lock();
    // Neither usable nor to be used again yet.
    bool closes = zcp_priv_cas_relaxed(&manager->state, &open, (uint32_t)ZCP_PRIV_CLOSING);
    // Relaxed: calls that overlap this one are the caller's error.
    if (closes) zcp_priv_store_relaxed(&manager->live, (uintptr_t)0);
    zcp_priv_process_unlock(process);
    if (!closes) return;
    uint64_t left = zcp_priv_handles_left(manager) - zcp_priv_rings_handles(manager);
    zcp_priv_topics_close(manager);
    if (left)
        ZEROCP_LOG(ZCP_LOG_WARNING, "%s: closed with %llu handles not released; their chunks are given back",
                   manager->name, (unsigned long long)left);
    ZEROCP_STEP("closing");
    uint64_t freed = 0;
    if (!(manager->view.flags & ZCP_OBSERVE)) {
        zcp_priv_slot_sweep(manager, manager->view.client, &freed, &garbage, false);
        if (garbage) ZEROCP_LOG(ZCP_LOG_ERROR, "%s: chunk records hold garbage", manager->name);
        ZEROCP_LOG(ZCP_LOG_INFO, "%s: client %u left, %llu chunks given back", manager->name, manager->view.client,
                   (unsigned long long)freed);
    }
    // Relaxed: a figure.
    uint32_t unlogged = zcp_priv_load_relaxed(&manager->releases_unlogged);
    if (unlogged)
        ZEROCP_LOG(ZCP_LOG_ERROR, "%s: closed; since the last line %u more releases of handles that are not held came",
                   manager->name, unlogged);
    zcp_registry_remove(&manager->registry, ZCP_SEGMENT_MANAGEMENT);
    zcp_registry_remove(&manager->registry, ZCP_SEGMENT_CHUNK);
    zcp_priv_manager_end(manager, left != 0);
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_manager_close(zcp_manager *manager) {
    bool outermost = zcp_priv_call_begin();
    zcp_priv_manager_close(manager);
    zcp_priv_call_end(outermost, ZCP_OK);
}

// only: that instance and no other; NULL: whichever has the name.
ZCP_PRIV_SETUP zcp_status zcp_priv_destroy(const char *name, uint32_t flags, const zcp_manager *only) {
    zcp_priv_opening o;
    memset((void *)&o, 0, sizeof o);
    o.desc.name = name;
    o.desc.mode = ZCP_SHM_OPEN_EXISTING;
    o.desc.permissions = ZCP_SHM_DEFAULT_PERMISSIONS;
    o.desc.flags = flags;
    o.desc.timeout_ms = ZCP_SHM_DEFAULT_TIMEOUT_MS;
    o.file.fd = o.locks.fd = -1;
    o.removes = true;
    o.only = only;
    bool outermost = zcp_priv_call_begin();
    zcp_status status = zcp_priv_resolve_name(&o);
    return zcp_priv_call_end(outermost, status == ZCP_OK ? zcp_priv_destroy_loop(&o) : status);
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_destroy(const char *name) { return zcp_priv_destroy(name, 0, NULL); }

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_destroy_with(const char *name, uint32_t flags) {
    uint32_t unknown = flags & ~ZCP_SHM_ANY_OWNER;
    if (unknown) return zcp_priv_fail(ZCP_ERR_INVALID_FLAGS, 0, "unknown bits 0x%x in the flags", unknown);
    return zcp_priv_destroy(name, flags, NULL);
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_destroy_this(zcp_manager *manager) {
    zcp_status status = zcp_priv_may_change(manager);
    if (status != ZCP_OK) return status;
    return zcp_priv_destroy(manager->name, manager->view.flags & ZCP_SHM_ANY_OWNER, manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// >>watch  Statistics, census, information, print
// ---------------------------------------------------------------------------------------------------------------------

ZCP_PRIV_SMALL ZEROCP_API uint32_t zcp_manager_pool_end(const zcp_manager *manager) {
    if (!zcp_priv_usable(manager)) return 0;
    zcp_priv_catch_up_quietly(manager);
    // Relaxed: a figure.
    return zcp_priv_load_relaxed(&manager->view.pool_end);
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_pool_stats(const zcp_manager *manager, uint32_t pool,
                                                            zcp_pool_stats *stats) {
    zcp_status status = zcp_priv_may_read(manager, "place for the statistics", stats, sizeof *stats);
    if (status != ZCP_OK) return status;
    uint32_t pools = zcp_manager_pool_end(manager);
    if (pool >= pools)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "pool %u: %s has %u", pool, manager->name, pools);
    (void)zcp_priv_threads_collect(false);
    zcp_priv_pool *p = zcp_priv_view_pool(&manager->view, pool);
    if (!p) return ZCP_OK;
    zcp_priv_leases *leases = p->leases;
    uint64_t free_chunks = 0, cached = 0, freed;
    for (uint32_t i = 0; i < p->count; i++) {
        // Relaxed, here and below: figures.
        uint64_t s = zcp_priv_load_relaxed(&zcp_priv_record_at(p, i)->state);
        free_chunks += zcp_priv_is_free(s) || zcp_priv_is_retired(s);
        cached += zcp_priv_is_cached(s);
    }
    stats->chunk_size = p->chunk_size;
    stats->total = p->count;
    stats->used = p->count - free_chunks - cached;
    stats->free = free_chunks;
    stats->stride = p->stride;
    stats->alignment = p->alignment;
    stats->cache_chunks = p->cache_chunks;
    stats->cached = cached;
    stats->state = zcp_priv_pool_is_retiring(p) ? ZCP_POOL_RETIRING : ZCP_POOL_LIVE;
    stats->peak_used = zcp_priv_load_relaxed(&leases->peak);
    stats->allocations = zcp_priv_allocated(p, &freed);
    stats->failures = zcp_priv_counted(&leases->failures);
    stats->waits = zcp_priv_counted(&leases->waits);
    stats->disturbed = zcp_priv_counted(&leases->disturbed);
    // Somebody was killed between claiming and counting.
    if (stats->allocations < stats->used) stats->allocations = stats->used;
    stats->releases = stats->allocations - stats->used;
    if (stats->peak_used > stats->total) stats->peak_used = stats->total;
    if (stats->peak_used < stats->used) stats->peak_used = stats->used;
    return ZCP_OK;
}

// Of each chunk of an instance.
typedef bool zcp_priv_record_function(const zcp_priv_pool *pool, uint32_t i, uint64_t state, void *user); // false: stop

ZCP_PRIV_SETUP void zcp_priv_each_held(const zcp_manager *manager, zcp_priv_record_function *function, void *user) {
    zcp_priv_catch_up_quietly(manager);
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++) {
        const zcp_priv_pool *pool = zcp_priv_view_pool(&manager->view, p);
        for (uint32_t i = 0; pool && i < pool->count; i++) {
            // Acquire: what is said of it belongs to it, but for what changes meanwhile.
            uint64_t s = zcp_priv_load_acquire(&zcp_priv_record_at(pool, i)->state);
            if (!zcp_priv_is_free(s) && !zcp_priv_is_retired(s) && !function(pool, i, s, user)) return;
        }
    }
}

typedef struct zcp_priv_client_count { zcp_client_stats *stats; uint32_t slot; } zcp_priv_client_count;

ZCP_PRIV_SETUP bool zcp_priv_count_client(const zcp_priv_pool *pool, uint32_t i, uint64_t state, void *user) {
    const zcp_priv_client_count *count = (const zcp_priv_client_count *)user;
    bool owns = ZCP_PRIV_OWNER(state) == count->slot + 1;
    // Relaxed: figures.
    bool borrows = zcp_priv_load_relaxed(zcp_priv_borrow_word(zcp_priv_record_at(pool, i), count->slot))
                   & zcp_priv_borrow_bit(count->slot);
    if (zcp_priv_is_cached(state)) { count->stats->cached += owns; return true; }
    count->stats->owned += owns;
    count->stats->borrowed += borrows;
    if (owns || borrows) count->stats->bytes += pool->chunk_size;
    return true;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_client_stats(const zcp_manager *manager, uint32_t slot,
                                                              zcp_client_stats *stats) {
    zcp_client_info info;
    zcp_status status = zcp_priv_may_read(manager, "place for the statistics", stats, sizeof *stats);
    if (status == ZCP_OK) status = zcp_manager_client_info(manager, slot, &info);
    if (status != ZCP_OK) return status;
    stats->state = info.state;
    stats->pid = info.pid;
    stats->start = info.start;
    memcpy(stats->name, info.name, sizeof stats->name);
    (void)zcp_priv_threads_collect(false);
    zcp_priv_client_count count = {stats, slot};
    zcp_priv_each_held(manager, zcp_priv_count_client, &count);
    return ZCP_OK;
}

typedef struct zcp_priv_census { zcp_census_function *function; void *user; uint32_t max_clients; } zcp_priv_census;

ZCP_PRIV_SETUP bool zcp_priv_census_entry(const zcp_priv_pool *pool, uint32_t i, uint64_t state, void *user) {
    const zcp_priv_census *census = (const zcp_priv_census *)user;
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    zcp_census_entry entry;
    memset(&entry, 0, sizeof entry);
    if (zcp_priv_is_cached(state)) return true;
    uint64_t size = zcp_priv_load_relaxed(&record->size), note = zcp_priv_load_relaxed(&record->note),
             now = zcp_priv_load_relaxed(&pool->leases->allocated);
    uint32_t lease = (uint32_t)(size >> 48), owner = ZCP_PRIV_OWNER(state);
    if (lease != 0 && lease <= zcp_priv_lease_count(pool->list.leaves))
        now = zcp_priv_load_relaxed(&pool->leases->items[lease - 1].allocated);
    entry.pool = pool->number;
    entry.index = i;
    entry.generation = ZCP_PRIV_GENERATION(state);
    entry.tag = (uint32_t)(note >> 32);
    entry.size = ZCP_PRIV_SIZE(size) < pool->chunk_size ? ZCP_PRIV_SIZE(size) : pool->chunk_size;
    entry.capacity = pool->chunk_size;
    // Garbage names nobody.
    entry.owner = owner != 0 && owner <= census->max_clients ? owner - 1 : ZCP_NO_CLIENT;
    for (uint32_t w = 0; w < pool->words; w++) {
        // from this word's first one on.
        uint32_t clients = census->max_clients - 64 * w;
        entry.borrower_mask[w] = zcp_priv_load_relaxed(&record->borrow[0] + w);
        if (clients < 64) entry.borrower_mask[w] &= zcp_priv_borrow_bit(clients) - 1;
        entry.borrowers += zcp_priv_count_bits(entry.borrower_mask[w]);
    }
    entry.age = (uint32_t)((uint32_t)now - (uint32_t)note - 1);
    // Released meanwhile.
    if (zcp_priv_load_acquire(&record->state) >> 32 != state >> 32) return true;
    if (ZCP_PRIV_TICKET(state) != 0) entry.token = zcp_priv_chunk_id(pool, i, entry.generation);
    return census->function(&entry, census->user);
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_census(const zcp_manager *manager, zcp_census_function *function,
                                                        void *user) {
    if (!function) return zcp_priv_fail_null("function");
    if (!zcp_priv_usable(manager)) return zcp_priv_why_unusable(manager);
    zcp_priv_census census = {function, user, manager->geometry.max_clients};
    zcp_priv_each_held(manager, zcp_priv_census_entry, &census);
    return ZCP_OK;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_get_info(const zcp_manager *manager, zcp_manager_info *info) {
    zcp_status status = zcp_priv_may_read(manager, "place for the information", info, sizeof *info);
    if (status != ZCP_OK) return status;
    memcpy(info->name, manager->name, sizeof manager->name);
    memcpy(info->management_name, manager->file.path.text, sizeof manager->file.path.text);
    memcpy(info->chunk_name, manager->chunk_file.path.text, sizeof info->chunk_name);
    info->management_bytes = manager->geometry.management_bytes;
    info->chunk_bytes = manager->geometry.chunk_bytes;
    info->management_base = manager->management.base;
    info->chunk_base = manager->chunks;
    info->instance_id = manager->instance_id;
    info->max_clients = manager->geometry.max_clients;
    info->slot = manager->view.client;
    info->pool_end = zcp_manager_pool_end(manager);
    info->flags = manager->view.flags;
    return ZCP_OK;
}

// Does somebody hold the slot's lock?
ZCP_PRIV_SETUP zcp_status zcp_priv_slot_alive(const zcp_manager *manager, uint32_t slot, bool *alive) {
    int fd;
    bool kept, observes = manager->view.flags & ZCP_OBSERVE;
    const zcp_priv_file *file = observes ? &manager->file : &manager->locks;
    // Its own lock it cannot ask for.
    *alive = slot == manager->view.client;
    if (*alive) return ZCP_OK;
    zcp_status status = zcp_priv_file_reach_locks(file, &fd, &kept);
    if (status != ZCP_OK) return status;
    off_t byte = ZCP_PRIV_LOCK_SLOTS + (off_t)slot;
    if (observes) status = zcp_priv_lock_test(fd, file->path.text, byte, 1, F_RDLCK, alive);
    else status = zcp_priv_slot_test(manager, fd, slot, alive);
    zcp_priv_file_leave(fd, kept);
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_client_info(const zcp_manager *manager, uint32_t slot,
                                                             zcp_client_info *info) {
    bool alive;
    zcp_status status = zcp_priv_may_read(manager, "place for the information", info, sizeof *info);
    if (status != ZCP_OK) return status;
    if (slot >= manager->geometry.max_clients)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "slot %u: %s has %u", slot, manager->name,
                             manager->geometry.max_clients);
    const zcp_priv_slot *at = zcp_priv_slot_at(manager, slot);
    // Relaxed, all: for people.
    if (zcp_priv_load_relaxed(&at->state) == ZCP_PRIV_SLOT_CLEAN) return ZCP_OK;
    status = zcp_priv_slot_alive(manager, slot, &alive);
    if (status != ZCP_OK) return status;
    info->state = alive ? ZCP_CLIENT_ALIVE : ZCP_CLIENT_DEAD;
    info->pid = zcp_priv_load_relaxed(&at->pid);
    info->start = zcp_priv_load_relaxed(&at->start);
    zcp_priv_slot_name(at, info->name);
    return ZCP_OK;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_check(zcp_manager *manager) {
    bool same;
    if (!zcp_priv_usable(manager)) return zcp_priv_why_unusable(manager);
    // Pairs with the release in dismantle.
    if (zcp_priv_load_acquire(&manager->header->state) != ZCP_PRIV_READY)
        return zcp_priv_fail(ZCP_ERR_REPLACED, 0, "%s: this instance was destroyed", manager->name);
    zcp_status status = zcp_priv_file_is(&manager->file, &same);
    if (status == ZCP_OK && !same)
        return zcp_priv_fail(ZCP_ERR_REPLACED, 0, "%s: %s is gone or leads to another instance", manager->name,
                             manager->file.path.text);
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_manager *zcp_manager_find(const char *name) {
    zcp_manager *first = NULL;
    name = name ? zcp_priv_name_plain(name) : ZCP_PRIV_DEFAULT_NAME;
    zcp_priv_process *process = zcp_priv_process_lock();
    for (zcp_manager *m = process ? (zcp_manager *)process->managers : NULL; m; m = m->older)
        // Pairs with open's release.
        if (zcp_priv_load_acquire(&m->state) == ZCP_PRIV_OPEN && !(m->view.flags & ZCP_OBSERVE)
            && strcmp(m->name, name) == 0 && (!first || m->opened < first->opened))
            first = m;
    zcp_priv_process_unlock(process);
    return first;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_registry *zcp_manager_registry(zcp_manager *manager) {
    if (!zcp_priv_usable(manager)) return NULL;
    zcp_priv_catch_up_quietly(manager);
    return &manager->registry;
}

// The line of one pool; returns its length.
ZCP_PRIV_SETUP int zcp_priv_pool_line(const zcp_manager *manager, uint32_t pool, char *text, size_t bytes) {
    zcp_pool_stats stats;
    bool outermost = zcp_priv_call_begin();
    int failed = 0;
    if (zcp_manager_pool_stats(manager, pool, &stats) != ZCP_OK)
        failed = snprintf(text, bytes, "%s\n", zcp_last_message());
    // The line tells it.
    zcp_priv_call_end(outermost, ZCP_OK);
    if (failed) return failed;
    char cached[40] = "";
    if (stats.state == ZCP_POOL_NONE) return 0;
    if (stats.cache_chunks) snprintf(cached, sizeof cached, ", cached=%llu", (unsigned long long)stats.cached);
    return snprintf(text, bytes, "Pool %u: chunk_size=%llu, total=%llu, used=%llu, free=%llu%s%s\n", pool,
                    (unsigned long long)stats.chunk_size, (unsigned long long)stats.total,
                    (unsigned long long)stats.used, (unsigned long long)stats.free, cached,
                    stats.state == ZCP_POOL_RETIRING ? ", retiring" : "");
}

ZCP_PRIV_SMALL ZEROCP_API size_t zcp_manager_format(const zcp_manager *manager, char *text, size_t bytes) {
    size_t length = 0;
    uint32_t pools = zcp_manager_pool_end(manager);
    // Not open: one line that says so.
    for (uint32_t p = 0; p < pools || (p == 0 && !zcp_priv_usable(manager)); p++) {
        char line[256];
        int n = zcp_priv_pool_line(manager, p, line, sizeof line);
        for (int i = 0; i < n && i < (int)sizeof line - 1; i++, length++)
            if (text && length + 1 < bytes) text[length] = line[i];
    }
    if (text && bytes) text[length < bytes ? length : bytes - 1] = 0;
    return length;
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_manager_print(const zcp_manager *manager, FILE *out) {
    char text[256 * ZCP_MAX_LIVE_POOLS];
    if (!out) return;
    zcp_manager_format(manager, text, sizeof text);
    fputs(text, out);
}

// ---------------------------------------------------------------------------------------------------------------------
// >>topics  Topics: their tables, and how the dead are taken out of them
// ---------------------------------------------------------------------------------------------------------------------
// The tables of topics, who is in them, and how the dead are taken out (byte maps: >>layout). An entry is free if the
// lower half of its state is 0; its serial is what its opener has counted topics_epoch up to, so it is never used
// again, and the lower of two is the older one. Entries are opened under a lock byte of their own, closed by their
// client, and taken out by whoever sweeps that client.
//
// Who has subscribed counts, not who has a cursor: a cursor that is not of the publisher's serial counts as at the
// publisher's first message. A subscriber that is younger than a publisher makes its cursor when it opens, and says so
// by attention; one that is older makes it when it meets the publisher.
//
// A client that has ended leaves its messages to those who have not read them: its publishers are ENDED, the chunks of
// unread messages and those that are read in place stay its own, and its slot is DRAINING: its lock is free, and nobody
// gets it. Whoever has read to the end sweeps once more. Who needs the slot or an entry does so, too, and then only
// reliable subscribers and claims count.
//
// Invariant: a chunk of a client that has ended is swept only if it stands in no cell that somebody is to read, and
// then, after a fence, in no claim (>>receive tells the other side).
//
// Labels  word      order    partner      what breaks without it
//   Z2    epoch     release  Z3           who sees the epoch does not see what has changed
//   Z4    attention release  G4           who sees attention sees neither the subscriber nor the sleeper
//   Z5    state     release  Z0           who sees the entry free or ended does not see its last cursors and cells
//   Z7    serial    acquire  Z6           a head is read that belongs to an earlier publisher
//   Z8    (fence)   seq_cst  I1           the sweep misses a claim, whose reader has not seen GONE
//   T3    (barrier) light    A4           who leaves misses the publisher that waits, and the publisher that he leaves
//   G6    head      acquire  I4           as G5, where the head alone says that the message was read
//   G7    claim     acquire  I3           as G5, in a sweep

enum { ZCP_PRIV_TOPIC_OPENING = 1, ZCP_PRIV_TOPIC_OPEN = 2, ZCP_PRIV_TOPIC_ENDED = 3 };

// Flags of entries.
enum { ZCP_PRIV_EXCLUSIVE = 1, ZCP_PRIV_NEVER_WAITS = 2, ZCP_PRIV_RELIABLE = 4, ZCP_PRIV_LATEST = 8 };

// Sizes that are codes: the message is gone; and its size and tag stand in the chunk's record.
#define ZCP_PRIV_CELL_GONE UINT32_MAX
#define ZCP_PRIV_CELL_LOOK (UINT32_MAX - 1)

// Of what a thread sleeps for (>>wait); pool 31 shares it.
#define ZCP_PRIV_TOPIC_SLEEP (UINT32_C(1) << 31)
#define ZCP_PRIV_DEFAULT_DEPTH 8u

static uint64_t zcp_priv_topic_state(uint32_t serial, uint32_t phase, uint32_t client) {
    return (uint64_t)serial << 32 | phase << 16 | (client + 1);
}

static uint32_t zcp_priv_topic_phase(uint64_t state) {
    return (uint32_t)(state >> 16) & 0xffff;
}

static bool zcp_priv_topic_is_free(uint64_t state) {
    return (uint32_t)state == 0;
}

// Is the entry that client's?
static bool zcp_priv_topic_is_of(uint64_t state, uint32_t client) {
    return (state & 0xffff) == client + 1;
}

// Do both tell of the same publisher or subscriber, in whatever phase?
static bool zcp_priv_topic_is_same(uint64_t a, uint64_t b) {
    return ((a ^ b) & ~UINT64_C(0xffff0000)) == 0;
}

// Where the tables lie.
struct zcp_priv_tables {
    zcp_priv_topic_publisher *publishers;
    zcp_priv_topic_subscriber *subscribers;
    zcp_priv_cursor *cursors;
    unsigned char *rings;
    uint64_t ring_bytes;
    uint32_t publisher_count, subscriber_count, ring_cells;
};

static zcp_priv_tables zcp_priv_tables_of(const zcp_manager *manager) {
    const zcp_priv_geometry *geometry = &manager->geometry;
    zcp_priv_tables tables;
    tables.publisher_count = geometry->publishers;
    tables.subscriber_count = geometry->subscribers;
    tables.ring_cells = geometry->ring_cells;
    tables.ring_bytes = zcp_priv_ring_bytes(geometry);
    tables.publishers = zcp_priv_object_at(manager->management.base, geometry->topics_offset);
    uint64_t publishers = tables.publisher_count * sizeof(zcp_priv_topic_publisher);
    uint64_t subscribers = tables.subscriber_count * sizeof(zcp_priv_topic_subscriber);
    tables.subscribers = zcp_priv_object_at(tables.publishers, publishers);
    tables.cursors = zcp_priv_object_at(tables.subscribers, subscribers);
    tables.rings = zcp_priv_object_at(tables.cursors, (uint64_t)tables.publisher_count * tables.subscriber_count
                                      * sizeof(zcp_priv_cursor));
    return tables;
}

// The cursors of a publisher, by subscriber.
static zcp_priv_cursor *zcp_priv_cursor_row(const zcp_priv_tables *tables, uint32_t publisher) {
    return tables->cursors + (uint64_t)publisher * tables->subscriber_count;
}

static zcp_priv_cell *zcp_priv_ring_at(const zcp_priv_tables *tables, uint32_t publisher) {
    return zcp_priv_object_at(tables->rings, publisher * tables->ring_bytes);
}

// The depth that a publisher's entry tells, 0 if that is garbage.
static uint32_t zcp_priv_depth_of(const zcp_priv_tables *tables, const zcp_priv_topic_publisher *entry) {
    uint32_t depth = zcp_priv_load_relaxed(&entry->depth);                     // relaxed: after Z0
    return depth <= tables->ring_cells ? depth : 0;
}

// A topic's name, padded with 0.
typedef struct zcp_priv_topic { uint64_t words[ZCP_MAX_TOPIC_BYTES / 8]; } zcp_priv_topic;

static zcp_priv_topic zcp_priv_topic_read(const _Atomic uint64_t words[8]) {
    zcp_priv_topic topic;
    for (int i = 0; i < ZCP_MAX_TOPIC_BYTES / 8; i++)
        topic.words[i] = zcp_priv_load_relaxed(&words[i]);                     // relaxed: after Z0
    return topic;
}

static bool zcp_priv_topic_equal(const zcp_priv_topic *topic, const _Atomic uint64_t words[8]) {
    for (int i = 0; i < ZCP_MAX_TOPIC_BYTES / 8; i++)
        if (topic->words[i] != zcp_priv_load_relaxed(&words[i]))               // relaxed: after Z0
            return false;
    return true;
}

static void zcp_priv_topic_write(const zcp_priv_topic *topic, _Atomic uint64_t words[8]) {
    for (int i = 0; i < ZCP_MAX_TOPIC_BYTES / 8; i++)
        zcp_priv_store_relaxed(&words[i], topic->words[i]);                    // relaxed: Z1 carries it
}

// A topic's name as it may be shown, whoever has written it.
ZCP_PRIV_SETUP void zcp_priv_topic_text(const zcp_priv_topic *topic, char text[ZCP_MAX_TOPIC_BYTES]) {
    memcpy(text, topic->words, ZCP_MAX_TOPIC_BYTES - 1);
    text[ZCP_MAX_TOPIC_BYTES - 1] = 0;
    zcp_priv_text_clean(text, 0);
}

ZCP_PRIV_SETUP zcp_status zcp_priv_topic_make(zcp_priv_topic *topic, const char *text) {
    char shown[ZCP_MAX_TOPIC_BYTES];
    size_t bytes = 0;
    if (!text)
        return zcp_priv_fail_null("topic");
    memset(topic, 0, sizeof *topic);
    while (bytes < ZCP_MAX_TOPIC_BYTES && (unsigned char)text[bytes] >= 0x20 && text[bytes] != 0x7f)
        bytes++;
    if (bytes == 0 || bytes == ZCP_MAX_TOPIC_BYTES || text[bytes] != 0) {
        snprintf(shown, sizeof shown, "%s", text);
        zcp_priv_text_clean(shown, 0);
        return zcp_priv_fail(ZCP_ERR_INVALID_NAME, 0, "topic \"%s\": 1 to %d bytes, no control character", shown,
                             ZCP_MAX_TOPIC_BYTES - 1);
    }
    memcpy(topic->words, text, bytes);
    return ZCP_OK;
}

// Counts the epoch up, after something has changed; returns what it has come to.
static uint32_t zcp_priv_topics_changed(zcp_manager *manager) {
    return zcp_priv_add_release(&manager->header->signals.topics_epoch, 1) + 1;                     // Z2
}

// The abstract name of a descriptor's socket.
ZCP_PRIV_SETUP void zcp_priv_socket_name(struct sockaddr_un *address, socklen_t *bytes, uint64_t number) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int n = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "zerocp-%016llx", (unsigned long long)number);
    *bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

// Tells a descriptor of another process that there is something: a datagram to its socket, whatever comes of it.
ZCP_PRIV_SETUP void zcp_priv_socket_tell(uint64_t number) {
    struct sockaddr_un address;
    socklen_t bytes;
    int saved = errno;
    zcp_priv_high high;
    zcp_priv_process *process = number == 0 ? NULL : zcp_priv_high_begin(&high);
    if (process) {
        zcp_priv_socket_name(&address, &bytes, number);
        int fd = zcp_priv_descriptor_high(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (fd >= 0)
            (void)!sendto(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, bytes);
        zcp_priv_close_fd(fd);
        zcp_priv_high_end(process, &high);
    }
    errno = saved;
}

// Wakes a subscriber's client if it sleeps, and tells its descriptor if that is armed.
static void zcp_priv_subscriber_wake(zcp_manager *manager, zcp_priv_topic_subscriber *entry, uint32_t client) {
    if (client < manager->geometry.max_clients)
        zcp_priv_wake_client(zcp_priv_slot_at(manager, client), ZCP_PRIV_TOPIC_SLEEP);
    // Relaxed: a look, after the barrier; the exchange decides who tells it.
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_relaxed(&entry->armed) != 0)
        && zcp_priv_exchange_acq_rel(&entry->armed, 0u) != 0)
        zcp_priv_socket_tell(zcp_priv_load_relaxed(&entry->socket));
}

// Wakes all who subscribe to a topic.
ZCP_PRIV_SETUP void zcp_priv_topic_wake(zcp_manager *manager, const zcp_priv_topic *topic) {
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    for (uint32_t s = 0; s < tables.subscriber_count; s++) {
        zcp_priv_topic_subscriber *entry = &tables.subscribers[s];
        uint64_t state = zcp_priv_load_acquire(&entry->state);                 // as Z0
        if (!zcp_priv_topic_is_free(state) && zcp_priv_topic_equal(topic, entry->topic))
            zcp_priv_subscriber_wake(manager, entry, (uint32_t)(state & 0xffff) - 1);
    }
}

// A publisher is to look who is there and who sleeps; if it waits itself, it wakes.
static void zcp_priv_publisher_attend(zcp_manager *manager, zcp_priv_topic_publisher *entry, bool wakes) {
    zcp_priv_add_release(&entry->attention, 1);                                                     // Z4
    if (!wakes)
        return;
    zcp_priv_light_barrier();                                                                       // T3
    uint64_t state = zcp_priv_load_relaxed(&entry->state);                 // relaxed: whom it wakes in vain looks again
    uint32_t client = (uint32_t)(state & 0xffff) - 1;
    if (zcp_priv_load_relaxed(&entry->waits) != 0 && client < manager->geometry.max_clients)
        zcp_priv_wake_client(zcp_priv_slot_at(manager, client), ZCP_PRIV_TOPIC_SLEEP);
}

// The same of all publishers of a topic; NULL: of any.
ZCP_PRIV_SETUP void zcp_priv_topic_attend(zcp_manager *manager, const zcp_priv_topic *topic, bool wakes) {
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    for (uint32_t p = 0; p < tables.publisher_count; p++) {
        zcp_priv_topic_publisher *entry = &tables.publishers[p];
        uint64_t state = zcp_priv_load_acquire(&entry->state);                 // as Z0
        if (!zcp_priv_topic_is_free(state) && (!topic || zcp_priv_topic_equal(topic, entry->topic)))
            zcp_priv_publisher_attend(manager, entry, wakes);
    }
}

// Number of the next message that a subscriber reads of a publisher, whose serial that is, as anybody sees it.
static uint64_t zcp_priv_head_read(const zcp_priv_cursor *cursor, uint64_t serial) {
    if (zcp_priv_load_acquire(&cursor->serial) != serial)                                           // Z7
        return 0;
    return zcp_priv_load_acquire(&cursor->head);                                                    // G6
}

// The lap of a message: it is never 0, because an empty cell is all zero.
static uint32_t zcp_priv_lap_of(uint64_t number, uint32_t depth) {
    return (uint32_t)(number / depth % UINT32_MAX) + 1;
}

static uint32_t zcp_priv_lap_next(uint32_t lap) {
    return lap == UINT32_MAX ? 1 : lap + 1;
}

// So many laps the first is ahead of the second; below 0: behind.
static int32_t zcp_priv_laps_ahead(uint32_t lap, uint32_t of) {
    int32_t ahead = (int32_t)(lap - of);
    if (ahead > 0 && lap < of)
        ahead--;
    if (ahead < 0 && lap > of)
        ahead++;
    return ahead;
}

// Has somebody whose next message is `head` still to read what the cell shows?
static bool zcp_priv_cell_is_unread(uint32_t cell, uint64_t last, uint32_t depth, uint64_t head) {
    int32_t ahead = zcp_priv_laps_ahead((uint32_t)(last >> 32), zcp_priv_lap_of(head, depth));
    return ahead > 0 || (ahead == 0 && cell >= head % depth);
}

static bool zcp_priv_cell_shows(uint64_t last) {
    return last >> 32 != 0 && (uint32_t)last != ZCP_PRIV_CELL_GONE;
}

// Has any subscriber of the publisher still to read what its cell shows? depth: as the caller has read and checked it,
// and over 0. reliable_only: the others do not count.
ZCP_PRIV_SETUP bool zcp_priv_cell_is_wanted(const zcp_priv_tables *tables, uint32_t publisher, uint32_t depth,
                                            uint32_t cell, uint64_t last, bool reliable_only) {
    const zcp_priv_topic_publisher *entry = &tables->publishers[publisher];
    // The count comes after its message: it may be one behind. Relaxed, both: in a sweep the slot's lock orders what a
    // dead client wrote, else they are figures.
    uint64_t serial = zcp_priv_load_relaxed(&entry->state) >> 32, count = zcp_priv_load_relaxed(&entry->count);
    zcp_priv_topic topic = zcp_priv_topic_read(entry->topic);
    for (uint32_t s = 0; s < tables->subscriber_count; s++) {
        const zcp_priv_topic_subscriber *subscriber = &tables->subscribers[s];
        uint64_t state = zcp_priv_load_acquire(&subscriber->state);            // as Z0
        if (zcp_priv_topic_is_free(state) || !zcp_priv_topic_equal(&topic, subscriber->topic))
            continue;
        // Relaxed: after Z0.
        if (reliable_only && !(zcp_priv_load_relaxed(&subscriber->flags) & ZCP_PRIV_RELIABLE))
            continue;
        uint64_t head = zcp_priv_head_read(&zcp_priv_cursor_row(tables, publisher)[s], serial);
        if (head > count + 1)                                                  // garbage counts as read
            continue;
        if (zcp_priv_cell_is_unread(cell, last, depth, head))
            return true;
    }
    return false;
}

// Is the chunk being read in place, out of that publisher's ring?
ZCP_PRIV_SETUP bool zcp_priv_row_claims(const zcp_priv_tables *tables, uint32_t publisher, uint64_t token) {
    const zcp_priv_cursor *row = zcp_priv_cursor_row(tables, publisher);
    for (uint32_t s = 0; s < tables->subscriber_count; s++)
        if (zcp_priv_load_acquire(&row[s].claim) == token)                                          // G7
            return true;
    return false;
}

// Does a cell of that publisher show the chunk?
ZCP_PRIV_SETUP bool zcp_priv_ring_shows(const zcp_priv_tables *tables, uint32_t publisher, uint64_t token) {
    const zcp_priv_cell *ring = zcp_priv_ring_at(tables, publisher);
    uint32_t depth = zcp_priv_depth_of(tables, &tables->publishers[publisher]);
    for (uint32_t cell = 0; cell < depth; cell++)                             // relaxed: its client's death came before
        if (zcp_priv_cell_shows(zcp_priv_load_relaxed(&ring[cell].last))
            && zcp_priv_load_relaxed(&ring[cell].token) == token)
            return true;
    return false;
}

// Is what a client that has ended holds of that chunk to stay?
ZCP_PRIV bool zcp_priv_unread_has(zcp_priv_unread *unread, const zcp_priv_pool *pool, uint32_t i) {
    if (!unread || unread->publishers == 0)
        return false;
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    uint64_t state = zcp_priv_load_relaxed(&record->state);                    // relaxed, both: its death came before
    uint64_t borrowers = zcp_priv_load_relaxed(zcp_priv_borrow_word(record, unread->client));
    bool borrows = borrowers & zcp_priv_borrow_bit(unread->client);
    if (ZCP_PRIV_OWNER(state) != unread->client + 1 && !borrows)
        return false;
    uint64_t token = zcp_priv_chunk_id(pool, i, ZCP_PRIV_GENERATION(state));
    const zcp_priv_tables *tables = unread->tables;
    for (uint32_t p = 0; p < tables->publisher_count; p++) {
        // Relaxed: the slot's lock is held, under which nobody else writes the dead client's entries.
        if (!zcp_priv_topic_is_of(zcp_priv_load_relaxed(&tables->publishers[p].state), unread->client))
            continue;
        if (!zcp_priv_ring_shows(tables, p, token) && !zcp_priv_row_claims(tables, p, token))
            continue;
        unread->kept++;
        return true;
    }
    return false;
}

// Takes a client's subscribers out. true: there were some.
ZCP_PRIV_SETUP bool zcp_priv_subscribers_end(const zcp_priv_tables *tables, uint32_t client) {
    bool found = false;
    for (uint32_t s = 0; s < tables->subscriber_count; s++) {
        zcp_priv_topic_subscriber *entry = &tables->subscribers[s];
        if (!zcp_priv_topic_is_of(zcp_priv_load_acquire(&entry->state), client))                    // as Z0
            continue;
        for (uint32_t p = 0; p < tables->publisher_count; p++) {
            zcp_priv_cursor *cursor = &zcp_priv_cursor_row(tables, p)[s];
            zcp_priv_store_relaxed(&cursor->serial, UINT64_C(0));              // relaxed: Z5 carries it
            zcp_priv_store_release(&cursor->claim, UINT64_C(0));               // as I3
        }
        ZEROCP_STEP("cursors_cleared");
        zcp_priv_store_relaxed(&entry->armed, 0u);                             // relaxed, both: Z5 carries them
        zcp_priv_store_relaxed(&entry->socket, UINT64_C(0));
        zcp_priv_store_release(&entry->state, UINT64_C(0));                                         // Z5
        found = true;
    }
    return found;
}

// Makes a publisher of a client ENDED that has ended. One that was just being opened has published nothing.
ZCP_PRIV_SETUP void zcp_priv_publisher_end(const zcp_priv_tables *tables, uint32_t publisher, uint64_t state) {
    zcp_priv_topic_publisher *entry = &tables->publishers[publisher];
    zcp_priv_cell *ring = zcp_priv_ring_at(tables, publisher);
    if (zcp_priv_topic_phase(state) != ZCP_PRIV_TOPIC_OPEN)
        for (uint32_t cell = 0; cell < tables->ring_cells; cell++)
            zcp_priv_store_relaxed(&ring[cell].last, UINT64_C(0));             // relaxed: Z5 carries it
    state = zcp_priv_topic_state((uint32_t)(state >> 32), ZCP_PRIV_TOPIC_ENDED, (uint32_t)(state & 0xffff) - 1);
    zcp_priv_store_release(&entry->state, state);                              // as Z5
}

// Makes GONE what nobody is to read of a publisher that has ended.
ZCP_PRIV_SETUP void zcp_priv_publisher_drain(const zcp_priv_tables *tables, uint32_t publisher, bool reliable_only) {
    zcp_priv_cell *ring = zcp_priv_ring_at(tables, publisher);
    uint32_t depth = zcp_priv_depth_of(tables, &tables->publishers[publisher]);
    for (uint32_t cell = 0; cell < depth; cell++) {
        uint64_t last = zcp_priv_load_relaxed(&ring[cell].last);               // relaxed, both: Z8 follows
        if (!zcp_priv_cell_shows(last) || zcp_priv_cell_is_wanted(tables, publisher, depth, cell, last, reliable_only))
            continue;
        zcp_priv_store_relaxed(&ring[cell].last, last | ZCP_PRIV_CELL_GONE);
        ZEROCP_STEP("cell_drained");
    }
}

// Before a client's chunks are swept: what of them is to stay. untold: it may have changed its entries, or whoever
// swept it before, and then been killed.
ZCP_PRIV_SETUP void zcp_priv_topics_sweep_begin(zcp_manager *manager, const zcp_priv_tables *tables,
                                                zcp_priv_unread *unread,
                                                uint32_t client, bool reliable_only, bool untold) {
    *unread = (zcp_priv_unread){tables, client, 0, 0};
    bool left = zcp_priv_subscribers_end(tables, client), ended = false;
    for (uint32_t p = 0; p < tables->publisher_count; p++) {
        uint64_t state = zcp_priv_load_acquire(&tables->publishers[p].state);  // as Z0
        if (!zcp_priv_topic_is_of(state, client))
            continue;
        unread->publishers++;
        if (zcp_priv_topic_phase(state) == ZCP_PRIV_TOPIC_ENDED)
            continue;
        zcp_priv_publisher_end(tables, p, state);
        ended = true;
    }
    ZEROCP_STEP("entries_ended");
    if (left || ended || untold)
        (void)zcp_priv_topics_changed(manager);
    if (left || untold)
        zcp_priv_topic_attend(manager, NULL, true);
    ZEROCP_STEP("topics_ended");
    if (unread->publishers == 0)
        return;
    for (uint32_t p = 0; p < tables->publisher_count; p++)                     // relaxed: after the acquire above
        if (zcp_priv_topic_is_of(zcp_priv_load_relaxed(&tables->publishers[p].state), client))
            zcp_priv_publisher_drain(tables, p, reliable_only);
    // Who claims from here on finds the cell GONE; who has claimed before is seen.
    atomic_thread_fence(memory_order_seq_cst);                                                      // Z8
}

// Does a ring show any message, of an event, too?
ZCP_PRIV_SETUP bool zcp_priv_ring_shows_any(const zcp_priv_tables *tables, uint32_t publisher) {
    const zcp_priv_cell *ring = zcp_priv_ring_at(tables, publisher);
    uint32_t depth = zcp_priv_depth_of(tables, &tables->publishers[publisher]);
    for (uint32_t cell = 0; cell < depth; cell++)
        if (zcp_priv_cell_shows(zcp_priv_load_relaxed(&ring[cell].last)))      // relaxed: under the slot's lock
            return true;
    return false;
}

// After its chunks were swept: frees its entries if nothing stays. true: it is draining.
ZCP_PRIV_SETUP bool zcp_priv_topics_sweep_end(zcp_manager *manager, const zcp_priv_tables *tables,
                                              const zcp_priv_unread *unread) {
    bool drains = unread->kept != 0;
    // Relaxed, all: the slot's lock is held, under which nobody else writes the dead client's entries.
    for (uint32_t p = 0; unread->publishers != 0 && !drains && p < tables->publisher_count; p++)
        if (zcp_priv_topic_is_of(zcp_priv_load_relaxed(&tables->publishers[p].state), unread->client))
            drains = zcp_priv_ring_shows_any(tables, p);
    for (uint32_t p = 0; unread->publishers != 0 && p < tables->publisher_count; p++) {
        zcp_priv_topic_publisher *entry = &tables->publishers[p];
        if (!zcp_priv_topic_is_of(zcp_priv_load_relaxed(&entry->state), unread->client))
            continue;
        zcp_priv_topic topic = zcp_priv_topic_read(entry->topic);
        if (!drains)
            zcp_priv_store_release(&entry->state, UINT64_C(0));                // as Z5
        ZEROCP_STEP("publisher_swept");
        zcp_priv_topic_wake(manager, &topic);
    }
    if (unread->publishers != 0 && !drains)
        (void)zcp_priv_topics_changed(manager);
    return drains;
}

// Sweeps what a client holds, but for unread messages. untold: as for sweep_begin. known: all pools are known here; if
// not, chunks of unread messages may be in others. *drains: some are left.
ZCP_PRIV uint64_t zcp_priv_view_sweep_topics(zcp_manager *manager, uint32_t client, bool reliable_only, bool untold,
                                             bool known, bool *garbage, bool *drains) {
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    zcp_priv_unread unread;
    zcp_priv_topics_sweep_begin(manager, &tables, &unread, client, reliable_only, untold);
    uint64_t freed = zcp_priv_view_sweep(&manager->view, client, &unread, garbage);
    if (!known)
        unread.kept++;
    *drains = zcp_priv_topics_sweep_end(manager, &tables, &unread);
    return freed;
}

// May a sweep of a draining client free anything now?
ZCP_PRIV_SETUP bool zcp_priv_topics_drainable(const zcp_manager *manager, uint32_t client) {
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    bool shows = false;
    for (uint32_t p = 0; p < tables.publisher_count; p++) {
        const zcp_priv_cell *ring = zcp_priv_ring_at(&tables, p);
        if (!zcp_priv_topic_is_of(zcp_priv_load_acquire(&tables.publishers[p].state), client)) // as Z0
            continue;
        uint32_t depth = zcp_priv_depth_of(&tables, &tables.publishers[p]);
        for (uint32_t cell = 0; cell < depth; cell++) {
            // Relaxed: a look; the sweep that follows decides.
            uint64_t last = zcp_priv_load_relaxed(&ring[cell].last);
            if (!zcp_priv_cell_shows(last))
                continue;
            if (!zcp_priv_cell_is_wanted(&tables, p, depth, cell, last, false))
                return true;
            shows = true;
        }
    }
    return !shows;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>publish  Publishing: the ring of a publisher, and who may still read it
// ---------------------------------------------------------------------------------------------------------------------
// A publisher's ring, and its object in this process, which holds every message that stands in the ring: the handles
// are in private books, from which it works alone. Nobody counts anything for a message.
//
// A cell is freed in these steps: it becomes GONE; a fence; a look at attention, and if that has changed, who is there;
// a look at all claims. What is claimed is put aside until it is not; anything else is released. So a chunk that
// somebody reads is not released, whoever that is and whenever he came (>>receive tells the other side). Heads are only
// for the flow: cells that all have read are freed many at once, so that the fence is paid once for them.
//
// The publisher's thread does not lock its object. Another one that wants what is in the books (because there is no
// chunk left, or to drain an object that was closed) says so in `taker`, passes the heavy barrier, and lets be if
// `busy`.
//
// Labels  word      order    partner      what breaks without it
//   Z1    state     release  Z0           who sees the entry open does not see its topic, depth and ring
//   Z3    epoch     acquire  Z2           what changed before the epoch did is not seen
//   G0    last      relaxed  G1           by the fence: as G1
//   G1    (fence)   seq_cst  G0 I1        the chunk is released while it is claimed
//   G2    last      release  I0 I2        who sees the message does not see its payload
//   G3    (barrier) light    I6 T4        a sleeper misses the message, and the publisher the sleeper
//   G4    attention acquire  Z4           a subscriber that has come is not looked for: its claim is missed
//   G5    claim     acquire  I3 T5        the chunk is written while a reader that has done with it still reads
//   G8    busy      acquire  G9           the taker works with books that are half written
//   G9    busy      release  G8           as G8
//   I7    taker     acquire  I8           the publisher works with books that the taker has half written
//   I8    taker     release  I7           as I7
//   Z9    (barrier) light    I9           both work with the books
//   I9    (barrier) heavy    Z9           as Z9

// An object is closed for ever, or until a later open uses it again; 0 in a forked child. Its `state` is stored with
// release when the object is ready, or done with, and loaded with acquire by other threads that find it in the
// manager's `topics` (which is acquired for its sizes); the object's own thread loads both relaxed.
enum { ZCP_PRIV_OBJECT_CLOSED = 1, ZCP_PRIV_OBJECT_OPEN = 2, ZCP_PRIV_OBJECT_ENDED = 3 };

// A subscriber as a publisher knows it.
typedef struct zcp_priv_reader {
    zcp_priv_topic_subscriber *entry;
    zcp_priv_cursor *cursor;
    uint64_t state;                 // of its entry, when it was learned
    uint32_t client;
    bool reliable;
} zcp_priv_reader;

struct zcp_publisher {
    _Atomic uint32_t state;         // of the object
    _Atomic uint32_t busy, taker;
    uint32_t index;                 // of its entry
    zcp_manager *manager;
    zcp_priv_topic_publisher *entry;
    zcp_priv_cell *ring;
    uint64_t serial;
    uint64_t next, tail;            // numbers of the message to come, and of the oldest one in the ring
    uint32_t next_cell, next_lap, tail_cell, tail_lap;
    uint32_t depth, keep, timeout_ms, flags;
    uint32_t attention;             // as it was when it looked who sleeps
    uint32_t epoch;                 // as it was when it learned who is there
    uint32_t readers, asides;
    uint64_t test_at;               // ns; before, nobody is tested whether he lives
    bool knows;                     // has learned who is there
    uint64_t *book;                 // names of the chunks in the ring, by cell; 0: an event
    uint64_t *aside;                // of those that are gone from there, and read
    uint64_t *claims;               // room for a look
    zcp_priv_reader *reader;
    zcp_priv_topic topic;
};

typedef struct zcp_priv_source zcp_priv_source;

struct zcp_subscriber {
    _Atomic uint32_t state;         // of the object
    uint32_t index;                 // of its entry
    zcp_manager *manager;
    zcp_priv_topic_subscriber *entry;
    uint32_t epoch;                 // as it was when it learned who publishes
    uint32_t sources, turn, ended;  // turn: whose message comes next; ended: of the sources, so many are
    uint32_t spin_us;
    bool reliable, latest, reading;
    zcp_priv_cursor *reading_cursor;            // what is being read: of which publisher, which number comes after it
    zcp_priv_topic_publisher *reading_entry;
    uint64_t reading_serial, reading_head, reading_token;
    uint64_t sweep_at;              // ns; before, no publisher that has ended is swept
    uint64_t recover_at;            // ns; before, no sleep recovers
    int epoll, socket, timer;       // -1: none
    zcp_priv_source *source;
    zcp_priv_topic topic;
};

// What one subscriber knows of a publisher.
struct zcp_priv_source {
    zcp_priv_topic_publisher *entry;
    zcp_priv_cursor *cursor;
    zcp_priv_cell *ring;
    uint64_t state;                 // of the entry, when it was learned
    uint64_t head;                  // number of the next message
    uint64_t from;                  // what is older is not lost
    uint64_t lost, skipped;         // since the last message
    uint32_t depth, cell, lap;
    bool ended;
};

// The objects of a manager, one for each entry that there can be. The pages stay, because late pointers may lead there;
// a later manager of an instance with tables of the same size uses them again. A forked child finds them zero.
struct zcp_priv_topics {
    zcp_priv_wiped wiped;
    zcp_priv_topics *next;          // in the list of those that nobody uses
    uint32_t publishers, subscribers, ring_cells;
    _Atomic uint32_t ended;         // objects of publishers that were closed, and drain
    uint64_t publisher_bytes, subscriber_bytes;
};

static zcp_priv_topics *zcp_priv_topics_unused;                                // under the process's mutex

static uint64_t zcp_priv_topics_round(uint64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static zcp_publisher *zcp_priv_publisher_at(zcp_priv_topics *topics, uint32_t p) {
    return zcp_priv_object_at(topics, zcp_priv_topics_round(sizeof *topics) + p * topics->publisher_bytes);
}

static zcp_subscriber *zcp_priv_subscriber_at(zcp_priv_topics *topics, uint32_t s) {
    uint64_t publishers = topics->publishers * topics->publisher_bytes;
    uint64_t first = zcp_priv_topics_round(sizeof *topics) + publishers;
    return zcp_priv_object_at(topics, first + s * topics->subscriber_bytes);
}

// Pages for the objects of a manager. NULL: no memory. Under the process's mutex.
ZCP_PRIV_SETUP zcp_priv_topics *zcp_priv_topics_new(zcp_priv_process *process, const zcp_priv_geometry *geometry) {
    for (zcp_priv_topics **at = &zcp_priv_topics_unused; *at; at = &(*at)->next) {
        zcp_priv_topics *unused = *at;
        if (unused->publishers != geometry->publishers || unused->subscribers != geometry->subscribers
            || unused->ring_cells != geometry->ring_cells)
            continue;
        *at = unused->next;
        return unused;
    }
    uint64_t publisher_bytes = sizeof(zcp_publisher) + geometry->ring_cells * sizeof(uint64_t)
        + geometry->subscribers * (2 * sizeof(uint64_t) + sizeof(zcp_priv_reader));
    uint64_t subscriber_bytes = sizeof(zcp_subscriber) + geometry->publishers * sizeof(zcp_priv_source);
    publisher_bytes = zcp_priv_topics_round(publisher_bytes);
    subscriber_bytes = zcp_priv_topics_round(subscriber_bytes);
    uint64_t bytes = zcp_priv_topics_round(sizeof(zcp_priv_topics)) + geometry->publishers * publisher_bytes
        + geometry->subscribers * subscriber_bytes;
    zcp_priv_topics *topics = bytes > SIZE_MAX ? NULL : zcp_priv_wiped_new(process, NULL, (size_t)bytes);
    if (!topics)
        return NULL;
    topics->publishers = geometry->publishers;
    topics->subscribers = geometry->subscribers;
    topics->ring_cells = geometry->ring_cells;
    topics->publisher_bytes = publisher_bytes;
    topics->subscriber_bytes = subscriber_bytes;
    return topics;
}

// The manager's objects; makes them when they are first needed.
ZCP_PRIV_SETUP zcp_status zcp_priv_topics_need(zcp_manager *manager) {
    zcp_priv_process *process = zcp_priv_process_lock();
    zcp_priv_topics *topics = zcp_priv_load_relaxed(&manager->topics);         // relaxed: under the mutex
    if (process && !topics) {
        topics = zcp_priv_topics_new(process, &manager->geometry);
        zcp_priv_store_release(&manager->topics, topics);
    }
    zcp_priv_process_unlock(process);
    return topics ? ZCP_OK : zcp_priv_fail_memory(manager->name, "publishers and subscribers");
}

ZCP_PRIV_COLD zcp_status zcp_priv_object_unusable(const zcp_manager *manager, uint32_t state) {
    if (state == 0)
        return zcp_priv_fail(ZCP_ERR_FORKED, 0, "this publisher or subscriber belongs to the parent process");
    if (state == ZCP_PRIV_OBJECT_OPEN && !zcp_priv_usable(manager))
        return zcp_priv_why_unusable(manager);
    return zcp_priv_fail(ZCP_ERR_CLOSED, 0, "this publisher or subscriber is closed");
}

// May the publisher be used?
static zcp_status zcp_priv_publisher_check(const zcp_publisher *p) {
    if (ZCP_PRIV_UNLIKELY(!p))
        return zcp_priv_fail_null("publisher");
    uint32_t state = zcp_priv_load_relaxed(&p->state);       // relaxed: calls that overlap close are the caller's error
    if (ZCP_PRIV_LIKELY(state == ZCP_PRIV_OBJECT_OPEN && zcp_priv_usable(p->manager)))
        return ZCP_OK;
    return zcp_priv_object_unusable(p->manager, state);
}

// The publisher's thread begins to work with the books.
ZCP_PRIV_INLINE void zcp_priv_books_enter(zcp_publisher *p) {
    for (uint32_t round = 0;; round++) {
        zcp_priv_store_relaxed(&p->busy, 1u);                                  // relaxed: Z9 follows
        zcp_priv_light_barrier();                                                                   // Z9
        if (ZCP_PRIV_LIKELY(zcp_priv_load_acquire(&p->taker) == 0))                                 // I7
            return;
        zcp_priv_store_release(&p->busy, 0u);                                  // as G9
        ZEROCP_WAIT_FOR_SIBLING(round);
    }
}

ZCP_PRIV_INLINE void zcp_priv_books_leave(zcp_publisher *p) {
    zcp_priv_store_release(&p->busy, 0u);                                                           // G9
}

// Another thread wants to work with them. false: somebody does.
ZCP_PRIV_SETUP bool zcp_priv_books_take(zcp_publisher *p) {
    uint32_t nobody = 0;
    if (!zcp_priv_cas_acquire(&p->taker, &nobody, 1u))                         // pairs with I8, of another taker
        return false;
    ZEROCP_HEAVY_BARRIER();                                                                         // I9
    if (zcp_priv_load_acquire(&p->busy) == 0)                                                       // G8
        return true;
    zcp_priv_store_release(&p->taker, 0u);                                     // as I8
    return false;
}

static void zcp_priv_books_give(zcp_publisher *p) {
    zcp_priv_store_release(&p->taker, 0u);                                                          // I8
}

// Learns who subscribes, if somebody has come or gone since.
static void zcp_priv_readers_learn(zcp_publisher *p) {
    uint32_t epoch = zcp_priv_load_acquire(&p->manager->header->signals.topics_epoch);              // Z3
    if (p->knows && epoch == p->epoch)
        return;
    zcp_priv_tables tables = zcp_priv_tables_of(p->manager);
    zcp_priv_cursor *row = zcp_priv_cursor_row(&tables, p->index);
    p->readers = 0;
    for (uint32_t s = 0; s < tables.subscriber_count; s++) {
        zcp_priv_topic_subscriber *entry = &tables.subscribers[s];
        uint64_t state = zcp_priv_load_acquire(&entry->state);                 // as Z0
        // Relaxed: after Z0.
        uint32_t client = (uint32_t)(state & 0xffff) - 1, flags = zcp_priv_load_relaxed(&entry->flags);
        if (zcp_priv_topic_is_free(state) || !zcp_priv_topic_equal(&p->topic, entry->topic)
            || client >= p->manager->geometry.max_clients)
            continue;
        bool reliable = (flags & ZCP_PRIV_RELIABLE) && !(p->flags & ZCP_PRIV_NEVER_WAITS);
        p->reader[p->readers++] = (zcp_priv_reader){entry, &row[s], state, client, reliable};
    }
    p->epoch = epoch;
    p->knows = true;
}

// Number of the next message that a reader reads; what it cannot be counts as read. It is gone: UINT64_MAX.
static uint64_t zcp_priv_reader_head(const zcp_publisher *p, const zcp_priv_reader *reader) {
    uint64_t head = zcp_priv_head_read(reader->cursor, p->serial);
    // As Z0.
    if (head == 0 && !zcp_priv_topic_is_same(zcp_priv_load_acquire(&reader->entry->state), reader->state))
        return UINT64_MAX;
    return head <= p->next ? head : UINT64_MAX;
}

// The oldest message that somebody has still to read, not above `next`.
static uint64_t zcp_priv_readers_past(const zcp_publisher *p) {
    uint64_t least = p->next;
    for (uint32_t r = 0; r < p->readers; r++) {
        uint64_t head = zcp_priv_reader_head(p, &p->reader[r]);
        if (head < least)
            least = head;
    }
    return least;
}

static void zcp_priv_name_release(zcp_manager *manager, uint64_t name) {
    zcp_chunk chunk = {manager, NULL, (uint32_t)name, (uint32_t)(name >> 32)};
    zcp_chunk_release(&chunk);
}

static bool zcp_priv_names_have(const uint64_t *names, uint32_t count, uint64_t name) {
    for (uint32_t k = 0; k < count; k++)
        if (names[k] == name)
            return true;
    return false;
}

// Looks at all claims, and releases what was put aside and is read no more.
static void zcp_priv_claims_look(zcp_publisher *p) {
    for (uint32_t r = 0; r < p->readers; r++)
        p->claims[r] = zcp_priv_load_acquire(&p->reader[r].cursor->claim);                          // G5
    for (uint32_t k = 0; k < p->asides;) {
        uint64_t name = p->aside[k];
        if (zcp_priv_names_have(p->claims, p->readers, name)) {
            k++;
            continue;
        }
        p->aside[k] = p->aside[--p->asides];
        zcp_priv_name_release(p->manager, name);
    }
}

// Lets go of a message whose cell is free, after the look at all claims. One that is aside already is held by that.
static void zcp_priv_message_drop(zcp_publisher *p, uint64_t name) {
    if (name == 0)
        return;
    bool aside = zcp_priv_names_have(p->aside, p->asides, name);
    if (!aside && p->asides < p->manager->geometry.subscribers && zcp_priv_names_have(p->claims, p->readers, name))
        p->aside[p->asides++] = name;
    else
        zcp_priv_name_release(p->manager, name);
}

// Frees the oldest cells.
static void zcp_priv_cells_free(zcp_publisher *p, uint64_t count) {
    uint32_t cell = p->tail_cell, lap = p->tail_lap;
    for (uint64_t k = 0; k < count; k++) {
        zcp_priv_store_relaxed(&p->ring[cell].last, (uint64_t)lap << 32 | ZCP_PRIV_CELL_GONE);      // G0
        if (++cell == p->depth) {
            cell = 0;
            lap = zcp_priv_lap_next(lap);
        }
    }
    ZEROCP_STEP("cells_gone");
    atomic_thread_fence(memory_order_seq_cst);                                                      // G1
    // Relaxed: whose claim counts here has passed I1 before, and what he did before that is seen.
    if (zcp_priv_load_relaxed(&p->entry->attention) != p->attention)
        zcp_priv_readers_learn(p);
    zcp_priv_claims_look(p);
    for (uint64_t k = 0; k < count; k++) {
        uint64_t name = p->book[p->tail_cell];
        p->book[p->tail_cell] = 0;
        p->tail++;
        if (++p->tail_cell == p->depth) {
            p->tail_cell = 0;
            p->tail_lap = zcp_priv_lap_next(p->tail_lap);
        }
        zcp_priv_message_drop(p, name);
        ZEROCP_STEP("cell_freed");
    }
}

// Frees what all have read, but for what is to be kept. Returns how many cells that were.
static uint64_t zcp_priv_ring_collect(zcp_publisher *p) {
    zcp_priv_readers_learn(p);
    uint64_t past = zcp_priv_readers_past(p), there = p->next - p->tail, count = past > p->tail ? past - p->tail : 0;
    if (there <= p->keep)
        count = 0;
    else if (count > there - p->keep)
        count = there - p->keep;
    if (count != 0)
        zcp_priv_cells_free(p, count);
    else if (p->asides != 0)
        zcp_priv_claims_look(p);
    return count;
}

// The publisher was closed: frees what all have read. true: nothing is left, and the object is closed; who has called
// gives the books back and then frees the entry, with which a later publisher gets the object.
ZCP_PRIV_SETUP bool zcp_priv_publisher_finish(zcp_publisher *p) {
    p->keep = 0;
    (void)zcp_priv_ring_collect(p);
    if (p->next != p->tail || p->asides != 0)
        return false;
    ZEROCP_STEP("publisher_drained");
    zcp_priv_store_release(&p->state, (uint32_t)ZCP_PRIV_OBJECT_CLOSED);
    return true;
}

ZCP_PRIV_SETUP void zcp_priv_publisher_free(zcp_publisher *p) {
    zcp_manager *manager = p->manager;
    zcp_priv_store_release(&p->entry->state, UINT64_C(0));                     // as Z5
    (void)zcp_priv_topics_changed(manager);
    // Relaxed: it only says whether to look here again.
    zcp_priv_add_relaxed(&zcp_priv_load_relaxed(&manager->topics)->ended, UINT32_MAX);
}

// Takes back what this manager's rings hold and all have read. only_ended: of objects that were closed.
ZCP_PRIV_SETUP void zcp_priv_rings_collect(zcp_manager *manager, bool only_ended) {
    zcp_priv_topics *topics = zcp_priv_load_acquire(&manager->topics);         // with its sizes
    if (!topics || (only_ended && zcp_priv_load_relaxed(&topics->ended) == 0))              // relaxed: a look
        return;
    for (uint32_t k = 0; k < topics->publishers; k++) {
        zcp_publisher *p = zcp_priv_publisher_at(topics, k);
        uint32_t state = zcp_priv_load_acquire(&p->state);
        if (state != ZCP_PRIV_OBJECT_ENDED && (only_ended || state != ZCP_PRIV_OBJECT_OPEN))
            continue;
        if (!zcp_priv_books_take(p))
            continue;
        state = zcp_priv_load_acquire(&p->state);                              // it may have gone meanwhile
        bool finished = state == ZCP_PRIV_OBJECT_ENDED && zcp_priv_publisher_finish(p);
        if (state == ZCP_PRIV_OBJECT_OPEN)
            (void)zcp_priv_ring_collect(p);
        zcp_priv_books_give(p);
        if (finished)
            zcp_priv_publisher_free(p);
    }
}

// Each call about topics goes on to drain what was closed before.
static void zcp_priv_topics_drain(zcp_manager *manager) {
    zcp_priv_topics *topics = zcp_priv_load_acquire(&manager->topics);
    if (ZCP_PRIV_UNLIKELY(topics && zcp_priv_load_relaxed(&topics->ended) != 0))               // relaxed: a look
        zcp_priv_rings_collect(manager, true);
}

// Who reads is to wake this client, which is about to sleep until a chunk is free.
ZCP_PRIV_SETUP void zcp_priv_rings_announce(zcp_manager *manager) {
    zcp_priv_topics *topics = zcp_priv_load_acquire(&manager->topics);
    for (uint32_t k = 0; topics && k < topics->publishers; k++) {
        zcp_publisher *p = zcp_priv_publisher_at(topics, k);
        uint32_t state = zcp_priv_load_acquire(&p->state);
        if (state != ZCP_PRIV_OBJECT_OPEN && state != ZCP_PRIV_OBJECT_ENDED)
            continue;
        zcp_priv_store_relaxed(&p->entry->waits, 1u);                          // relaxed: the heavy barrier follows
    }
}

// Handles that the books of this manager hold.
ZCP_PRIV_SETUP uint64_t zcp_priv_rings_handles(const zcp_manager *manager) {
    zcp_priv_topics *topics = zcp_priv_load_acquire(&manager->topics);
    uint64_t handles = 0;
    for (uint32_t k = 0; topics && k < topics->publishers; k++) {
        const zcp_publisher *p = zcp_priv_publisher_at(topics, k);
        if (zcp_priv_load_acquire(&p->state) < ZCP_PRIV_OBJECT_OPEN)
            continue;
        handles += p->asides;
        for (uint32_t cell = 0; cell < p->depth; cell++)
            handles += p->book[cell] != 0;
    }
    return handles;
}

// Takes the lock of whoever opens a publisher or subscriber.
ZCP_PRIV_SETUP zcp_status zcp_priv_topics_lock(zcp_manager *manager, zcp_priv_hold *hold) {
    zcp_priv_wait wait = zcp_priv_wait_begin(ZCP_SHM_DEFAULT_TIMEOUT_MS);
    _Atomic uint32_t *locker = &manager->header->signals.topics_locker;
    for (;;) {
        bool taken;
        zcp_status status = zcp_priv_hold_take(&manager->locks, &manager->opening, ZCP_PRIV_LOCK_TOPICS, hold, &taken);
        if (status != ZCP_OK)
            return status;
        if (!taken)
            break;
        if (!zcp_priv_wait_more(&wait))
            return zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: process %u is opening a publisher or subscriber "
                                 "and was not done within %u ms; if stopped, continue or kill it", manager->name,
                                 zcp_priv_load_relaxed(locker),                // relaxed: for messages
                                 ZCP_SHM_DEFAULT_TIMEOUT_MS);
    }
    zcp_priv_store_relaxed(locker, (uint32_t)getpid());                        // relaxed: for messages
    ZEROCP_STEP("topics_locked");
    return ZCP_OK;
}

// A free entry of the publishers or subscribers; UINT32_MAX: there is none. Not one whose object is in use here: a
// subscriber's close goes on after its entry is free.
ZCP_PRIV_SETUP uint32_t zcp_priv_entry_find(zcp_manager *manager, const zcp_priv_tables *tables, bool publisher) {
    zcp_priv_topics *topics = zcp_priv_load_relaxed(&manager->topics);         // relaxed: this call has made or seen it
    uint32_t count = publisher ? tables->publisher_count : tables->subscriber_count;
    for (uint32_t k = 0; k < count; k++) {
        const _Atomic uint64_t *state = publisher ? &tables->publishers[k].state : &tables->subscribers[k].state;
        const _Atomic uint32_t *object = publisher ? &zcp_priv_publisher_at(topics, k)->state
                                                   : &zcp_priv_subscriber_at(topics, k)->state;
        if (zcp_priv_topic_is_free(zcp_priv_load_acquire(state))               // as Z0: who had it is done with it
            && zcp_priv_load_acquire(object) <= ZCP_PRIV_OBJECT_CLOSED)        // and so is the thread that closed it
            return k;
    }
    return UINT32_MAX;
}

ZCP_PRIV_SETUP void zcp_priv_recover_draining(zcp_manager *manager);           // >>receive

// The same; drains and recovers before it says that there is none.
ZCP_PRIV_SETUP zcp_status zcp_priv_entry_need(zcp_manager *manager, const zcp_priv_tables *tables, bool publisher,
                                              uint32_t *index) {
    zcp_recovery report = {0, 0};
    for (uint32_t step = 0; (*index = zcp_priv_entry_find(manager, tables, publisher)) == UINT32_MAX; step++) {
        if (step == 0)
            zcp_priv_rings_collect(manager, true);
        else if (step == 1)
            (void)zcp_priv_recover(manager, &report);
        else if (step == 2 && publisher)
            zcp_priv_recover_draining(manager);
        else
            return zcp_priv_fail(ZCP_ERR_FULL, 0, "%s has %u %s (zcp_config.%s, set when it is created)%s",
                                 manager->name,
                                 publisher ? tables->publisher_count : tables->subscriber_count,
                                 publisher ? "publishers" : "subscribers", publisher ? "publishers" : "subscribers",
                                 zcp_priv_explain_recovery(manager).text);
    }
    return ZCP_OK;
}

// Is there a publisher of the topic that is OPEN, and has one of those flags (0: any)?
ZCP_PRIV_SETUP bool zcp_priv_topic_published(const zcp_priv_tables *tables, const zcp_priv_topic *topic, uint32_t flags,
                                             uint32_t *client) {
    for (uint32_t p = 0; p < tables->publisher_count; p++) {
        const zcp_priv_topic_publisher *entry = &tables->publishers[p];
        uint64_t state = zcp_priv_load_acquire(&entry->state);                 // as Z0
        uint32_t phase = zcp_priv_topic_phase(state);
        if (zcp_priv_topic_is_free(state) || phase == ZCP_PRIV_TOPIC_ENDED
            || !zcp_priv_topic_equal(topic, entry->topic))
            continue;
        *client = (uint32_t)(state & 0xffff) - 1;
        if (flags == 0 || (zcp_priv_load_relaxed(&entry->flags) & flags))      // relaxed: after Z0
            return true;
    }
    return false;
}

// Is there a reliable subscriber of the topic?
ZCP_PRIV_SETUP bool zcp_priv_topic_relied(const zcp_priv_tables *tables, const zcp_priv_topic *topic,
                                          uint32_t *client) {
    for (uint32_t s = 0; s < tables->subscriber_count; s++) {
        const zcp_priv_topic_subscriber *entry = &tables->subscribers[s];
        uint64_t state = zcp_priv_load_acquire(&entry->state);                 // as Z0
        if (zcp_priv_topic_is_free(state) || !zcp_priv_topic_equal(topic, entry->topic))
            continue;
        *client = (uint32_t)(state & 0xffff) - 1;
        if (zcp_priv_load_relaxed(&entry->flags) & ZCP_PRIV_RELIABLE)          // relaxed: after Z0
            return true;
    }
    return false;
}

// May a publisher with these flags come? The dead are taken out first.
ZCP_PRIV_SETUP zcp_status zcp_priv_publisher_may(zcp_manager *manager, const zcp_priv_tables *tables,
                                                 const zcp_priv_topic *topic, uint32_t flags) {
    zcp_recovery report = {0, 0};
    uint32_t client = 0;
    char text[ZCP_MAX_TOPIC_BYTES];
    zcp_priv_topic_text(topic, text);
    // Who has died is read before who comes now.
    if (zcp_priv_topic_published(tables, topic, 0, &client))
        (void)zcp_priv_recover(manager, &report);
    uint32_t others = flags & ZCP_PRIV_EXCLUSIVE ? 0 : ZCP_PRIV_EXCLUSIVE;
    if (zcp_priv_topic_published(tables, topic, others, &client))
        return zcp_priv_fail(ZCP_ERR_EXISTS, 0, "%s: client %u publishes to \"%s\"%s", manager->name, client, text,
                             others ? ", exclusively" : "");
    if ((flags & ZCP_PRIV_NEVER_WAITS) && zcp_priv_topic_relied(tables, topic, &client))
        (void)zcp_priv_recover(manager, &report);
    if ((flags & ZCP_PRIV_NEVER_WAITS) && zcp_priv_topic_relied(tables, topic, &client))
        return zcp_priv_fail(ZCP_ERR_EXISTS, 0, "%s: client %u subscribes to \"%s\" reliably", manager->name, client,
                             text);
    return ZCP_OK;
}

// Makes the object of an entry that this call has got.
ZCP_PRIV_SETUP zcp_publisher *zcp_priv_publisher_make(zcp_manager *manager, const zcp_priv_tables *tables,
                                                      uint32_t index,
                                                      const zcp_publisher_desc *desc, uint32_t depth, uint32_t flags) {
    zcp_publisher *p = zcp_priv_publisher_at(zcp_priv_load_relaxed(&manager->topics), index);
    uint64_t *words = zcp_priv_object_at(p, sizeof *p);
    p->index = index;
    p->manager = manager;
    p->entry = &tables->publishers[index];
    p->ring = zcp_priv_ring_at(tables, index);
    p->next = p->tail = 0;
    p->next_cell = p->tail_cell = 0;
    p->next_lap = p->tail_lap = 1;
    p->depth = depth;
    p->keep = desc->keep;
    p->timeout_ms = desc->timeout_ms;
    p->flags = flags;
    p->readers = p->asides = 0;
    p->test_at = 0;
    p->knows = false;
    p->book = words;
    p->aside = words + tables->ring_cells;
    p->claims = p->aside + tables->subscriber_count;
    p->reader = zcp_priv_object_at(p->claims, tables->subscriber_count * sizeof *p->claims);
    memset(p->book, 0, tables->ring_cells * sizeof *p->book);
    return p;
}

// Fills an entry in, empties its ring, and opens it.
ZCP_PRIV_SETUP void zcp_priv_publisher_begin(zcp_publisher *p, const zcp_priv_tables *tables) {
    zcp_manager *manager = p->manager;
    zcp_priv_topic_publisher *entry = p->entry;
    uint32_t serial = zcp_priv_topics_changed(manager), client = manager->view.client;
    if (serial == 0)
        serial = zcp_priv_topics_changed(manager);
    p->serial = serial;
    zcp_priv_store_release(&entry->state, zcp_priv_topic_state(serial, ZCP_PRIV_TOPIC_OPENING, client));      // as Z1
    ZEROCP_STEP("publisher_opening");
    zcp_priv_topic_write(&p->topic, entry->topic);
    zcp_priv_store_relaxed(&entry->depth, p->depth);                           // relaxed, all: Z1 carries them
    zcp_priv_store_relaxed(&entry->keep, p->keep);
    zcp_priv_store_relaxed(&entry->flags, p->flags);
    zcp_priv_store_relaxed(&entry->waits, 0u);
    zcp_priv_store_relaxed(&entry->count, UINT64_C(0));
    for (uint32_t cell = 0; cell < tables->ring_cells; cell++) {
        zcp_priv_store_relaxed(&p->ring[cell].last, UINT64_C(0));
        zcp_priv_store_relaxed(&p->ring[cell].token, UINT64_C(0));
    }
    p->attention = zcp_priv_load_relaxed(&entry->attention) - 1;              // so that it looks with its first message
    ZEROCP_STEP("publisher_written");
    zcp_priv_store_release(&entry->state, zcp_priv_topic_state(serial, ZCP_PRIV_TOPIC_OPEN, client));  // Z1
    ZEROCP_STEP("publisher_open");
    (void)zcp_priv_topics_changed(manager);                           // who saw the first one may not have seen it open
}

ZCP_PRIV_SETUP zcp_status zcp_priv_publisher_open(zcp_manager *manager, const zcp_publisher_desc *desc,
                                                  zcp_publisher **publisher) {
    zcp_priv_topic topic;
    zcp_priv_hold hold;
    uint32_t index;
    if (!publisher)
        return zcp_priv_fail_null("place for the publisher");
    *publisher = NULL;
    if (!desc)
        return zcp_priv_fail_null("descriptor");
    zcp_status status = zcp_priv_may_change(manager);
    if (status == ZCP_OK)
        status = zcp_priv_may_grow(manager);
    if (status == ZCP_OK)
        status = zcp_priv_topic_make(&topic, desc->topic);
    if (status != ZCP_OK)
        return status;
    uint32_t most = manager->geometry.ring_cells, depth = desc->depth;
    if (depth == 0)
        depth = most < ZCP_PRIV_DEFAULT_DEPTH ? most : ZCP_PRIV_DEFAULT_DEPTH;
    if (depth > most || desc->keep > depth)
        return zcp_priv_fail(ZCP_ERR_INVALID_SIZE, 0, "depth %u, keep %u: depth is up to zcp_config.ring_cells "
                             "(%u), and keep up to depth", depth, desc->keep, most);
    uint32_t flags = (desc->exclusive ? ZCP_PRIV_EXCLUSIVE : 0) | (desc->never_waits ? ZCP_PRIV_NEVER_WAITS : 0);
    status = zcp_priv_topics_need(manager);
    if (status == ZCP_OK)
        status = zcp_priv_topics_lock(manager, &hold);
    if (status != ZCP_OK)
        return status;
    zcp_priv_topics_drain(manager);
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    status = zcp_priv_publisher_may(manager, &tables, &topic, flags);
    if (status == ZCP_OK)
        status = zcp_priv_entry_need(manager, &tables, true, &index);
    if (status == ZCP_OK) {
        zcp_publisher *p = zcp_priv_publisher_make(manager, &tables, index, desc, depth, flags);
        p->topic = topic;
        zcp_priv_publisher_begin(p, &tables);
        zcp_priv_store_release(&p->state, (uint32_t)ZCP_PRIV_OBJECT_OPEN);
        *publisher = p;
    }
    zcp_priv_hold_drop(&hold);
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_publisher_open(zcp_manager *manager, const zcp_publisher_desc *desc,
                                                        zcp_publisher **publisher) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_publisher_open(manager, desc, publisher));
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_publisher_close(zcp_publisher *publisher) {
    zcp_publisher *p = publisher;
    if (!p || zcp_priv_load_relaxed(&p->state) != ZCP_PRIV_OBJECT_OPEN || !zcp_priv_usable(p->manager))
        return;
    bool outermost = zcp_priv_call_begin();
    zcp_priv_books_enter(p);
    zcp_priv_store_release(&p->entry->state, zcp_priv_topic_state((uint32_t)p->serial, ZCP_PRIV_TOPIC_ENDED,
                                                                  p->manager->view.client));    // as Z5
    (void)zcp_priv_topics_changed(p->manager);
    ZEROCP_STEP("publisher_closed");
    // Relaxed: it only says whether to look here again.
    zcp_priv_add_relaxed(&zcp_priv_load_relaxed(&p->manager->topics)->ended, 1u);
    zcp_priv_store_release(&p->state, (uint32_t)ZCP_PRIV_OBJECT_ENDED);
    zcp_manager *manager = p->manager;
    bool finished = zcp_priv_publisher_finish(p);
    zcp_priv_books_leave(p);
    if (finished)
        zcp_priv_publisher_free(p);
    zcp_priv_topics_drain(manager);
    zcp_priv_call_end(outermost, ZCP_OK);
}

// Takes a dead client's subscribers out, so that nobody waits for them; not too often. true: it was dead.
ZCP_PRIV_COLD bool zcp_priv_reader_test(zcp_publisher *p, uint32_t client) {
    zcp_manager *manager = p->manager;
    zcp_recovery report = {0, 0};
    uint64_t began = zcp_priv_now_ns();
    bool alive = true, garbage = false;
    if (began < p->test_at)
        return false;
    zcp_status status = zcp_priv_slot_alive(manager, client, &alive);
    if (status == ZCP_OK && !alive)
        status = zcp_priv_slot_recover(manager, client, &report, &garbage, false);
    uint64_t ended = zcp_priv_now_ns(), rest = 10 * (ended - began);
    if (rest < 1000000)
        rest = 1000000;
    p->test_at = ended + (rest > 1000000000 ? 1000000000 : rest);
    return status == ZCP_OK && !alive;
}

// A reliable subscriber that has not read the oldest message; NULL: there is none.
static const zcp_priv_reader *zcp_priv_reader_late(const zcp_publisher *p) {
    for (uint32_t r = 0; r < p->readers; r++)
        if (p->reader[r].reliable && zcp_priv_reader_head(p, &p->reader[r]) <= p->tail)
            return &p->reader[r];
    return NULL;
}

// Frees at least one cell, if no reliable subscriber is late. *overtaken: who had not read what was in there.
static bool zcp_priv_room_make(zcp_publisher *p, uint32_t *overtaken) {
    if (zcp_priv_ring_collect(p) != 0)
        return true;
    if (zcp_priv_reader_late(p))
        return false;
    for (uint32_t r = 0; r < p->readers; r++)
        *overtaken += zcp_priv_reader_head(p, &p->reader[r]) <= p->tail;
    zcp_priv_cells_free(p, 1);
    return true;
}

ZCP_PRIV_COLD zcp_status zcp_priv_fail_interrupted(const zcp_manager *manager) {
    return zcp_priv_fail(ZCP_ERR_INTERRUPTED, 0, "%s: zcp_manager_interrupt ended all waiting", manager->name);
}

static bool zcp_priv_interrupted(const zcp_manager *manager) {
    return zcp_priv_load_relaxed(&manager->interrupted) != 0;                  // relaxed: the barrier comes before
}

ZCP_PRIV_COLD zcp_status zcp_priv_fail_late(const zcp_publisher *p) {
    const zcp_priv_reader *late = zcp_priv_reader_late(p);
    uint32_t client = late ? late->client : p->manager->view.client;
    char text[ZCP_MAX_TOPIC_BYTES];
    zcp_priv_topic_text(&p->topic, text);
    // Relaxed, of the pid: for the message.
    return zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: \"%s\": client %u (pid %u), a reliable subscriber, has not "
                         "read message %llu within %u ms", p->manager->name, text, client,
                         zcp_priv_load_relaxed(&zcp_priv_slot_at(p->manager, client)->pid),
                         (unsigned long long)p->tail + 1, p->timeout_ms);
}

// The ring is full: makes room, and waits for reliable subscribers if it may.
ZCP_PRIV_COLD zcp_status zcp_priv_room_need(zcp_publisher *p, uint32_t *overtaken) {
    zcp_manager *manager = p->manager;
    zcp_priv_slot *slot = zcp_priv_slot_at(manager, manager->view.client);
    uint64_t now = zcp_priv_now_ns();
    zcp_priv_sleep sleep = { manager, slot, UINT64_MAX, now + ZCP_PRIV_WAIT_MS * UINT64_C(1000000), 0, 0, 0, false,
                             false };
    if (p->timeout_ms != UINT32_MAX)
        sleep.deadline = now + p->timeout_ms * UINT64_C(1000000);
    zcp_status status = ZCP_OK;
    for (bool made = false; !made && status == ZCP_OK;) {
        const zcp_priv_reader *late = zcp_priv_reader_late(p);
        if (late && zcp_priv_reader_test(p, late->client) && (made = zcp_priv_room_make(p, overtaken)))
            break;
        if (p->timeout_ms == 0) {
            made = zcp_priv_room_make(p, overtaken);
            status = made ? ZCP_OK : zcp_priv_fail_late(p);
            break;
        }
        zcp_priv_sleep_begin(&sleep);
        zcp_priv_sleep_announce(slot, manager->view.signals, manager->view.client, ZCP_PRIV_TOPIC_SLEEP);
        zcp_priv_store_relaxed(&p->entry->waits, 1u);                          // relaxed: the barrier follows
        ZEROCP_STEP("publisher_waits");
        zcp_priv_sleep_look(&sleep);
        made = zcp_priv_room_make(p, overtaken);
        if (made)
            break;
        if (zcp_priv_interrupted(manager))
            status = zcp_priv_fail_interrupted(manager);
        else if (sleep.last)
            status = zcp_priv_fail_late(p);
        else
            zcp_priv_sleep_end(&sleep, false);
    }
    zcp_priv_store_relaxed(&p->entry->waits, 0u);                              // relaxed: at worst it is woken in vain
    return status;
}

// Somebody has come, gone, or gone to sleep.
ZCP_PRIV_NOINLINE void zcp_priv_publisher_look(zcp_publisher *p) {
    p->attention = zcp_priv_load_acquire(&p->entry->attention);                                     // G4
    zcp_priv_readers_learn(p);
    for (uint32_t r = 0; r < p->readers; r++)
        zcp_priv_subscriber_wake(p->manager, p->reader[r].entry, p->reader[r].client);
}

// Shows a message, for which there is room; name: of its chunk.
ZCP_PRIV_INLINE void zcp_priv_message_show(zcp_publisher *p, uint64_t name, uint32_t size) {
    zcp_priv_cell *cell = &p->ring[p->next_cell];
    p->book[p->next_cell] = name;
    zcp_priv_store_relaxed(&cell->token, name);                                // relaxed: G2 carries it
    ZEROCP_STEP("token_written");
    zcp_priv_store_release(&cell->last, (uint64_t)p->next_lap << 32 | size);                        // G2
    ZEROCP_STEP("published");
    p->next++;
    if (++p->next_cell == p->depth) {
        p->next_cell = 0;
        p->next_lap = zcp_priv_lap_next(p->next_lap);
    }
    zcp_priv_store_relaxed(&p->entry->count, p->next);                         // relaxed: for who comes later
    zcp_priv_light_barrier();                                                                       // G3
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_relaxed(&p->entry->attention) != p->attention))         // relaxed: a look
        zcp_priv_publisher_look(p);
}

// What a cell says of a chunk's size.
static uint32_t zcp_priv_cell_size(zcp_priv_record *record, const zcp_priv_pool *pool) {
    uint64_t size = ZCP_PRIV_SIZE(zcp_priv_load_relaxed(&record->size));     // relaxed, both: the handle came with them
    bool tagged = zcp_priv_load_relaxed(&record->note) >> 32 != 0;
    if (size > pool->chunk_size)
        size = pool->chunk_size;
    return tagged || size == 0 || size >= ZCP_PRIV_CELL_LOOK ? ZCP_PRIV_CELL_LOOK : (uint32_t)size;
}

ZCP_PRIV_INLINE zcp_status zcp_priv_publish(zcp_publisher *p, uint64_t name, uint32_t size, zcp_delivery *delivery) {
    uint32_t overtaken = 0;
    zcp_status status = ZCP_OK;
    zcp_priv_books_enter(p);
    if (p->next - p->tail == p->depth)
        zcp_priv_topics_drain(p->manager);
    if (ZCP_PRIV_UNLIKELY(p->next - p->tail == p->depth) && !zcp_priv_room_make(p, &overtaken)) {
        bool outermost = zcp_priv_call_begin();
        status = zcp_priv_call_end(outermost, zcp_priv_room_need(p, &overtaken));
    }
    if (ZCP_PRIV_LIKELY(status == ZCP_OK)) {
        zcp_priv_message_show(p, name, size);
        if (delivery)
            *delivery = (zcp_delivery){p->next, p->readers, overtaken};
    }
    zcp_priv_books_leave(p);
    return status;
}

ZEROCP_API zcp_status zcp_publisher_loan(zcp_publisher *publisher, uint64_t size, zcp_chunk *chunk) {
    zcp_publisher *p = publisher;
    if (chunk)
        *chunk = zcp_priv_no_chunk;
    zcp_status status = zcp_priv_publisher_check(p);
    if (ZCP_PRIV_UNLIKELY(status != ZCP_OK))
        return status;
    // The next publish would do so, too; but so the chunk that is loaned is one that was just read.
    zcp_priv_books_enter(p);
    if (p->next - p->tail == p->depth)
        (void)zcp_priv_ring_collect(p);
    zcp_priv_books_leave(p);
    return zcp_chunk_allocate(p->manager, size, chunk);
}

ZEROCP_API zcp_status zcp_publisher_publish(zcp_publisher *publisher, zcp_chunk *chunk, zcp_delivery *delivery) {
    zcp_priv_place place;
    zcp_publisher *p = publisher;
    if (delivery)
        *delivery = (zcp_delivery){0, 0, 0};
    zcp_status status = zcp_priv_publisher_check(p);
    if (ZCP_PRIV_UNLIKELY(status != ZCP_OK))
        return status;
    if (ZCP_PRIV_UNLIKELY(!chunk))
        return zcp_priv_fail_null("chunk");
    if (ZCP_PRIV_UNLIKELY(chunk->manager && chunk->manager != p->manager))
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "%s: the chunk is another manager's", p->manager->name);
    if (ZCP_PRIV_UNLIKELY(!zcp_priv_held_pool(chunk, &place)))
        return zcp_priv_fail(ZCP_ERR_STALE, 0, "%s: publish of a handle that is not held (chunk %08x, generation %u)",
                             p->manager->name, chunk->index, chunk->generation);
    uint32_t size = zcp_priv_cell_size(zcp_priv_record_at(place.pool, place.i), place.pool);
    uint64_t name = (uint64_t)chunk->generation << 32 | chunk->index;
    status = zcp_priv_publish(p, name, size, delivery);
    if (ZCP_PRIV_LIKELY(status == ZCP_OK))
        zcp_priv_handle_set(chunk, NULL, NULL, 0);
    return status;
}

ZEROCP_API zcp_status zcp_publisher_notify(zcp_publisher *publisher, zcp_delivery *delivery) {
    if (delivery)
        *delivery = (zcp_delivery){0, 0, 0};
    zcp_status status = zcp_priv_publisher_check(publisher);
    return status == ZCP_OK ? zcp_priv_publish(publisher, 0, 0, delivery) : status;
}

// ---------------------------------------------------------------------------------------------------------------------
// >>receive  Receiving in place, and waiting for messages
// ---------------------------------------------------------------------------------------------------------------------
// A subscriber reads a cell in these steps: `last`; the token; its claim := token; a fence; `last` once more, then the
// publisher's state. Are both as before, the chunk is not released until the claim is gone: whoever freed the cell has
// made it GONE before his fence, so he sees the claim, or this one sees that it is GONE (>>publish). The state tells
// whether the entry is still the same publisher's, whose laps would begin anew.
//
// The next cell may show the next message, or that it is GONE, or a later one: then it was overtaken.
//
// Labels  word      order    partner      what breaks without it
//   Z0    state     acquire  Z1 Z5        what an entry says is older than its state
//   T4    (barrier) heavy    G3           the publisher overtakes a reliable subscriber of which it does not know
//   Z6    serial    release  Z7           who sees the cursor's serial does not see its head
//   I0    last      acquire  G2           the payload is older than the message
//   I1    (fence)   seq_cst  G1 Z8        the claim is not seen by who releases the chunk
//   I2    last      acquire  G2           the state is looked at before the cell
//   T5    claim     release  G5           as I3, of who had the entry of the subscriber before
//   I3    claim     release  G5 G7        the chunk is written while this one still reads
//   I4    head      release  G6           as I3, where the head alone says that the message was read
//   I5    (barrier) light    A4           a publisher that waits misses the head, and this one the publisher
//   I6    (barrier) heavy    G3           who sleeps misses the message, and the publisher the sleeper

static zcp_status zcp_priv_subscriber_check(const zcp_subscriber *s) {
    if (ZCP_PRIV_UNLIKELY(!s))
        return zcp_priv_fail_null("subscriber");
    uint32_t state = zcp_priv_load_relaxed(&s->state);       // relaxed: calls that overlap close are the caller's error
    if (ZCP_PRIV_LIKELY(state == ZCP_PRIV_OBJECT_OPEN && zcp_priv_usable(s->manager)))
        return ZCP_OK;
    return zcp_priv_object_unusable(s->manager, state);
}

// Sweeps the draining clients, counting reliable subscribers and claims alone: for who finds no entry.
ZCP_PRIV_SETUP void zcp_priv_recover_draining(zcp_manager *manager) {
    zcp_recovery report = {0, 0};
    bool garbage = false;
    for (uint32_t slot = 0; slot < manager->geometry.max_clients; slot++)
        if (zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, slot)->state) == ZCP_PRIV_SLOT_DRAINING)       // a look
            (void)zcp_priv_slot_recover(manager, slot, &report, &garbage, true);
}

// Puts a source where its serial belongs: the older one first. Is there no place, because entries change hands at this
// moment, it is learned the next time.
ZCP_PRIV_SETUP void zcp_priv_source_add(zcp_subscriber *s, const zcp_priv_source *source) {
    if (s->sources == s->manager->geometry.publishers) {
        s->epoch--;
        return;
    }
    uint32_t at = s->sources++;
    for (; at > 0 && s->source[at - 1].state >> 32 > source->state >> 32; at--)
        s->source[at] = s->source[at - 1];
    s->source[at] = *source;
}

// A publisher's messages from `head` on; those before `from` do not count as lost, until one has been read. Writes the
// cursor.
ZCP_PRIV_SETUP void zcp_priv_source_begin(zcp_subscriber *s, const zcp_priv_tables *tables, uint32_t publisher,
                                          uint64_t state, uint64_t head, uint64_t from) {
    zcp_priv_topic_publisher *entry = &tables->publishers[publisher];
    zcp_priv_cursor *cursor = &zcp_priv_cursor_row(tables, publisher)[s->index];
    uint32_t depth = zcp_priv_depth_of(tables, entry), client = (uint32_t)(state & 0xffff) - 1;
    if (depth == 0 || client >= s->manager->geometry.max_clients)
        return;                                                                // garbage: nothing comes from there
    zcp_priv_source source = { entry, cursor, zcp_priv_ring_at(tables, publisher), state, head, from, 0, 0, depth,
                               (uint32_t)(head % depth), zcp_priv_lap_of(head, depth),
                               zcp_priv_topic_phase(state) == ZCP_PRIV_TOPIC_ENDED };
    zcp_priv_store_release(&cursor->claim, UINT64_C(0));                       // as T5
    zcp_priv_store_relaxed(&cursor->head, head);                               // relaxed, both: Z6 carries them
    zcp_priv_store_relaxed(&cursor->lost, UINT64_C(0));
    ZEROCP_STEP("cursor_written");
    zcp_priv_store_release(&cursor->serial, state >> 32);                                           // Z6
    zcp_priv_source_add(s, &source);
}

// The source of that publisher; NULL: it is not known.
ZCP_PRIV_SETUP zcp_priv_source *zcp_priv_source_find(zcp_subscriber *s, const zcp_priv_topic_publisher *entry,
                                                     uint64_t state) {
    for (uint32_t k = 0; k < s->sources; k++)
        if (s->source[k].entry == entry && zcp_priv_topic_is_same(s->source[k].state, state))
            return &s->source[k];
    return NULL;
}

// Forgets the publishers that are gone, and counts those that have ended.
ZCP_PRIV_SETUP void zcp_priv_sources_tidy(zcp_subscriber *s) {
    uint32_t left = 0;
    s->ended = 0;
    for (uint32_t k = 0; k < s->sources; k++) {
        zcp_priv_source source = s->source[k];
        uint64_t state = zcp_priv_load_acquire(&source.entry->state);      // as Z0: it has ended after its last message
        if (!zcp_priv_topic_is_same(state, source.state))
            continue;
        source.ended = zcp_priv_topic_phase(state) == ZCP_PRIV_TOPIC_ENDED;
        s->ended += source.ended;
        s->source[left++] = source;
    }
    s->sources = left;
    s->turn = 0;
}

// Learns who publishes, after the epoch has changed.
ZCP_PRIV_NOINLINE void zcp_priv_sources_learn(zcp_subscriber *s) {
    zcp_priv_tables tables = zcp_priv_tables_of(s->manager);
    s->epoch = zcp_priv_load_acquire(&s->manager->header->signals.topics_epoch);                // as Z3
    zcp_priv_sources_tidy(s);
    for (uint32_t p = 0; p < tables.publisher_count; p++) {
        zcp_priv_topic_publisher *entry = &tables.publishers[p];
        uint64_t state = zcp_priv_load_acquire(&entry->state);                                      // Z0
        uint32_t phase = zcp_priv_topic_phase(state);
        if (zcp_priv_topic_is_free(state) || (phase != ZCP_PRIV_TOPIC_OPEN && phase != ZCP_PRIV_TOPIC_ENDED)
            || !zcp_priv_topic_equal(&s->topic, entry->topic) || zcp_priv_source_find(s, entry, state))
            continue;
        zcp_priv_source_begin(s, &tables, p, state, 0, 0);
        s->ended += phase == ZCP_PRIV_TOPIC_ENDED;
    }
}

// Goes on by that many messages without reading them.
static void zcp_priv_source_skip(zcp_priv_source *q, uint64_t count, bool lost) {
    uint64_t was = q->head;
    q->head += count;
    if (count == 1) {
        if (++q->cell == q->depth) {
            q->cell = 0;
            q->lap = zcp_priv_lap_next(q->lap);
        }
    } else {
        q->cell = (uint32_t)(q->head % q->depth);
        q->lap = zcp_priv_lap_of(q->head, q->depth);
    }
    if (!lost)
        return;
    uint64_t missed = q->head <= q->from ? 0 : was >= q->from ? count : q->head - q->from;
    q->lost += missed;
    // Relaxed: a figure, which this subscriber alone writes.
    if (missed != 0)
        zcp_priv_store_relaxed(&q->cursor->lost, zcp_priv_load_relaxed(&q->cursor->lost) + missed);
    zcp_priv_store_release(&q->cursor->head, q->head);                         // as I4
}

// Is the next message there? *last: what its cell says then. Goes past what is lost.
static bool zcp_priv_source_look(zcp_priv_source *q, uint64_t *last) {
    for (uint32_t step = 0; step <= 2 * q->depth; step++) {                    // more is garbage
        *last = zcp_priv_load_acquire(&q->ring[q->cell].last);                                      // I0
        uint32_t lap = (uint32_t)(*last >> 32);
        if (ZCP_PRIV_LIKELY(lap == q->lap)) {
            if (ZCP_PRIV_LIKELY((uint32_t)*last != ZCP_PRIV_CELL_GONE))
                return true;
            zcp_priv_source_skip(q, 1, true);
            continue;
        }
        int32_t ahead = lap == 0 ? 0 : zcp_priv_laps_ahead(lap, q->lap);
        if (ahead <= 0)
            return false;
        // All that are a whole ring before that one are gone.
        zcp_priv_source_skip(q, (uint64_t)(uint32_t)(ahead - 1) * q->depth + 1, true);
    }
    return false;
}

// With `latest`: goes on to the newest message that is there.
static void zcp_priv_source_hurry(zcp_priv_source *q, uint64_t *last) {
    for (uint32_t step = 0; step < q->depth; step++) {
        uint32_t cell = q->cell + 1, lap = q->lap;
        if (cell == q->depth) {
            cell = 0;
            lap = zcp_priv_lap_next(lap);
        }
        uint64_t next = zcp_priv_load_acquire(&q->ring[cell].last);            // as I0
        if (next >> 32 != lap || (uint32_t)next == ZCP_PRIV_CELL_GONE)
            return;
        zcp_priv_source_skip(q, 1, false);
        q->skipped++;
        *last = next;
    }
}

// Claims the next message of a publisher. *token: its chunk; 0: an event. false: none is there.
static bool zcp_priv_source_claim(zcp_subscriber *s, zcp_priv_source *q, uint64_t *token, uint32_t *size) {
    uint64_t last;
    for (uint32_t round = 0; round < ZCP_PRIV_ROUNDS; round++) {
        if (!zcp_priv_source_look(q, &last))
            return false;
        if (ZCP_PRIV_UNLIKELY(s->latest))
            zcp_priv_source_hurry(q, &last);
        *size = (uint32_t)last;
        *token = *size == 0 ? 0 : zcp_priv_load_relaxed(&q->ring[q->cell].token);               // relaxed: I2 tells
        ZEROCP_STEP("token_read");
        zcp_priv_store_release(&q->cursor->claim, *token);                     // relaxed would do: I1 follows
        ZEROCP_STEP("claimed_message");
        // Who has freed the cell sees the claim, or this one sees what he wrote.
        atomic_thread_fence(memory_order_seq_cst);                                                  // I1
        bool same = zcp_priv_load_acquire(&q->ring[q->cell].last) == last;                          // I2
        uint64_t state = zcp_priv_load_acquire(&q->entry->state);              // as Z0
        if (ZCP_PRIV_LIKELY(same && zcp_priv_topic_is_same(state, q->state)))
            return true;
        zcp_priv_store_release(&q->cursor->claim, UINT64_C(0));                // as I3
        if (!zcp_priv_topic_is_same(state, q->state))
            return false;
    }
    return false;
}

ZEROCP_API void zcp_subscriber_done(zcp_subscriber *subscriber) {
    zcp_subscriber *s = subscriber;
    if (!s || !s->reading || zcp_priv_subscriber_check(s) != ZCP_OK)
        return;
    s->reading = false;
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_relaxed(&s->reading_cursor->serial) != s->reading_serial))
        return;                                                        // relaxed: this subscriber writes it, or garbage
    if (s->reading_token != 0)
        zcp_priv_store_release(&s->reading_cursor->claim, UINT64_C(0));                             // I3
    ZEROCP_STEP("unclaimed");
    zcp_priv_store_release(&s->reading_cursor->head, s->reading_head);                              // I4
    ZEROCP_STEP("read");
    zcp_priv_light_barrier();                                                                       // I5
    zcp_priv_topic_publisher *entry = s->reading_entry;
    if (ZCP_PRIV_LIKELY(zcp_priv_load_relaxed(&entry->waits) == 0))            // relaxed: a look
        return;
    uint32_t client = (uint32_t)(zcp_priv_load_relaxed(&entry->state) & 0xffff) - 1;
    if (client < s->manager->geometry.max_clients)
        zcp_priv_wake_client(zcp_priv_slot_at(s->manager, client), UINT32_MAX);
}

// What a token leads to in this process. Errors: those of learning about its pool, CORRUPT.
ZCP_PRIV_COLD zcp_status zcp_priv_message_reach(zcp_manager *manager, uint64_t token, zcp_priv_place *place) {
    uint32_t number = (uint32_t)token >> ZCP_PRIV_POOL_SHIFT;
    (void)zcp_priv_catch_up(manager);
    if (zcp_priv_place_of(manager, (uint32_t)token, (uint32_t)(token >> 32), place))
        return ZCP_OK;
    if (zcp_priv_load_relaxed(&manager->unmet[number].status) != ZCP_OK)       // relaxed: a look
        return zcp_priv_fail_unmet(manager, number, ZCP_OK, "");
    return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: a message names chunk %016llx, which does not exist", manager->name,
                         (unsigned long long)token);
}

// Fills in what was claimed.
static zcp_status zcp_priv_message_fill(zcp_subscriber *s, zcp_priv_source *q, uint64_t token, uint32_t size,
                                        zcp_message *message) {
    zcp_priv_place place;
    zcp_manager *manager = s->manager;
    s->reading = true;
    s->reading_cursor = q->cursor;
    s->reading_entry = q->entry;
    s->reading_serial = q->state >> 32;
    s->reading_head = q->head + 1;
    s->reading_token = token;
    message->number = q->head + 1;
    message->source = q->state >> 32;
    message->publisher = (uint32_t)(q->state & 0xffff) - 1;
    zcp_priv_source_skip(q, 1, false);
    if (size != 0) {
        if (ZCP_PRIV_UNLIKELY(!zcp_priv_place_of(manager, (uint32_t)token, (uint32_t)(token >> 32), &place))) {
            zcp_status status = zcp_priv_message_reach(manager, token, &place);
            if (status != ZCP_OK) {
                q->lost++;
                zcp_subscriber_done(s);
                memset(message, 0, sizeof *message);
                return status;
            }
        }
        message->data = place.pool->data + (uint64_t)place.i * place.pool->stride;
        message->size = size;
        if (ZCP_PRIV_UNLIKELY(size == ZCP_PRIV_CELL_LOOK)) {
            zcp_priv_record *record = zcp_priv_record_at(place.pool, place.i);
            message->size = ZCP_PRIV_SIZE(zcp_priv_load_relaxed(&record->size));        // relaxed, both: I0 came before
            message->tag = (uint32_t)(zcp_priv_load_relaxed(&record->note) >> 32);
        }
        if (ZCP_PRIV_UNLIKELY(message->size > place.pool->chunk_size))
            message->size = place.pool->chunk_size;
    }
    message->lost = q->lost;
    message->skipped = q->skipped;
    q->lost = q->skipped = 0;
    q->from = 0;                                                               // from now on each that is gone counts
    return ZCP_OK;
}

// Whose message comes next: of those that have ended first, since their successors come after them.
static zcp_priv_source *zcp_priv_source_next(zcp_subscriber *s, uint64_t *token, uint32_t *size) {
    for (uint32_t k = 0; s->ended != 0 && k < s->sources; k++)
        if (s->source[k].ended && zcp_priv_source_claim(s, &s->source[k], token, size))
            return &s->source[k];
    for (uint32_t k = 0; k < s->sources; k++) {
        uint32_t at = s->turn < s->sources ? s->turn : 0;
        s->turn = at + 1;
        if (!s->source[at].ended && zcp_priv_source_claim(s, &s->source[at], token, size))
            return &s->source[at];
    }
    return NULL;
}

// One look for a message. EMPTY, without a text: none is there.
static zcp_status zcp_priv_receive_once(zcp_subscriber *s, zcp_message *message) {
    uint64_t token;
    uint32_t size;
    // Relaxed: a look; learn acquires.
    if (ZCP_PRIV_UNLIKELY(zcp_priv_load_relaxed(&s->manager->header->signals.topics_epoch) != s->epoch))
        zcp_priv_sources_learn(s);
    zcp_priv_source *q = zcp_priv_source_next(s, &token, &size);
    return q ? zcp_priv_message_fill(s, q, token, size, message) : ZCP_ERR_EMPTY;
}

// Is a message there? Claims nothing.
ZCP_PRIV_SETUP bool zcp_priv_receive_would(zcp_subscriber *s) {
    uint64_t last;
    if (zcp_priv_load_relaxed(&s->manager->header->signals.topics_epoch) != s->epoch)           // relaxed: a look
        zcp_priv_sources_learn(s);
    for (uint32_t k = 0; k < s->sources; k++)
        if (zcp_priv_source_look(&s->source[k], &last))
            return true;
    return false;
}

// Nothing is there: who has ended was read to the end, and may be swept.
ZCP_PRIV_COLD void zcp_priv_sources_sweep(zcp_subscriber *s) {
    zcp_manager *manager = s->manager;
    zcp_recovery report = {0, 0};
    bool garbage = false;
    uint64_t now = zcp_priv_now_ns();
    if (now < s->sweep_at)
        return;
    bool outermost = zcp_priv_call_begin();
    zcp_priv_rings_collect(manager, true);
    for (uint32_t k = 0; k < s->sources; k++) {
        uint32_t client = (uint32_t)(s->source[k].state & 0xffff) - 1;
        if (s->source[k].ended && client < manager->geometry.max_clients && client != manager->view.client
            && zcp_priv_topics_drainable(manager, client))
            (void)zcp_priv_slot_recover(manager, client, &report, &garbage, false);
    }
    zcp_priv_call_end(outermost, ZCP_OK);
    uint64_t ended = zcp_priv_now_ns();
    s->sweep_at = ended + 1000000 + 10 * (ended - now);
}

// A round of a wait: all publishers of these topics are to look who sleeps.
ZCP_PRIV_SETUP void zcp_priv_receive_announce(zcp_priv_sleep *sleep, zcp_subscriber *const *subscribers,
                                              uint32_t count) {
    zcp_manager *manager = sleep->manager;
    zcp_priv_sleep_announce(sleep->slot, manager->view.signals, manager->view.client, ZCP_PRIV_TOPIC_SLEEP);
    ZEROCP_STEP("sleep_announced");
    for (uint32_t k = 0; k < count; k++)
        for (uint32_t q = 0; q < subscribers[k]->sources; q++)
            zcp_priv_publisher_attend(manager, subscribers[k]->source[q].entry, false);
    zcp_priv_view_flush_caches(&manager->view);
    ZEROCP_HEAVY_BARRIER();                                                                         // I6
    zcp_priv_view_leave_retiring(&manager->view);
    ZEROCP_STEP("sleep_looks");
}

// Polls for some time. OK: `ready` says so.
static zcp_status zcp_priv_receive_spin(zcp_subscriber *s, zcp_message *message) {
    uint64_t until = zcp_priv_now_ns() + s->spin_us * UINT64_C(1000);
    zcp_status status;
    do {
        for (uint32_t k = 0; k < 64; k++)
            if ((status = zcp_priv_receive_once(s, message)) != ZCP_ERR_EMPTY)
                return status;
    } while (zcp_priv_now_ns() < until && !zcp_priv_interrupted(s->manager));
    return ZCP_ERR_EMPTY;
}

ZCP_PRIV_SETUP zcp_priv_sleep zcp_priv_receive_sleep(zcp_subscriber *s, uint32_t timeout_ms) {
    zcp_manager *manager = s->manager;
    uint64_t now = zcp_priv_now_ns();
    if (s->recover_at < now)
        s->recover_at = now + ZCP_PRIV_WAIT_MS * UINT64_C(1000000);
    zcp_priv_sleep sleep = { manager, zcp_priv_slot_at(manager, manager->view.client), UINT64_MAX, s->recover_at, 0, 0,
                             0,
                             false, false };
    if (timeout_ms != UINT32_MAX)
        sleep.deadline = now + timeout_ms * UINT64_C(1000000);
    return sleep;
}

// Waits for a message of any of several subscribers. message NULL: *ready becomes the index of one that has one.
ZCP_PRIV_COLD zcp_status zcp_priv_receive_wait(zcp_subscriber *const *subscribers, uint32_t count, uint32_t timeout_ms,
                                               zcp_message *message, uint32_t *ready) {
    zcp_manager *manager = subscribers[0]->manager;
    zcp_priv_sleep sleep = zcp_priv_receive_sleep(subscribers[0], timeout_ms);
    for (;;) {
        if (zcp_priv_interrupted(manager))
            return zcp_priv_fail_interrupted(manager);
        zcp_priv_sleep_begin(&sleep);
        zcp_priv_receive_announce(&sleep, subscribers, count);
        bool met = false;
        for (uint32_t k = 0; k < count; k++) {
            uint32_t epoch = subscribers[k]->epoch;
            zcp_status status = message ? zcp_priv_receive_once(subscribers[k], message)
                : zcp_priv_receive_would(subscribers[k]) ? ZCP_OK : ZCP_ERR_EMPTY;
            *ready = k;
            if (status != ZCP_ERR_EMPTY)
                return status;
            met |= subscribers[k]->epoch != epoch;
            if (subscribers[k]->ended != 0)
                zcp_priv_sources_sweep(subscribers[k]);
        }
        if (zcp_priv_interrupted(manager))
            return zcp_priv_fail_interrupted(manager);
        if (sleep.last)
            return zcp_priv_fail(ZCP_ERR_TIMEOUT, 0, "%s: no message within %u ms", manager->name, timeout_ms);
        // A publisher that was met by that look has not been told who sleeps.
        zcp_priv_sleep_end(&sleep, met);
        subscribers[0]->recover_at = sleep.recover_at;
    }
}

// Empties and arms the descriptor; true: a message has come meanwhile, and it is not armed.
ZCP_PRIV_COLD bool zcp_priv_descriptor_arm(zcp_subscriber *s) {
    char bytes[8];
    struct itimerspec off = {{0, 0}, {0, 0}}, on = {{ 0, 0}, { 1, 0 } };
    // Anybody may send to it: what is left beyond that many makes the descriptor readable again.
    for (int k = 0; k < 64 && recv(s->socket, bytes, sizeof bytes, MSG_DONTWAIT) > 0; k++) {}
    (void)timerfd_settime(s->timer, 0, &on, NULL);                             // which ends that it is readable
    zcp_priv_store_release(&s->entry->armed, 1u);                              // release: with the socket's number
    ZEROCP_STEP("descriptor_armed");
    bool would = false;
    uint32_t epoch = s->epoch - 1;
    // Once more if a publisher was met by the look, which has not been told.
    for (uint32_t round = 0; !would && s->epoch != epoch && round < ZCP_PRIV_WAIT_CHANGES; round++) {
        epoch = s->epoch;
        for (uint32_t q = 0; q < s->sources; q++)
            zcp_priv_publisher_attend(s->manager, s->source[q].entry, false);
        ZEROCP_HEAVY_BARRIER();                                                // as I6
        would = zcp_priv_receive_would(s);
    }
    if (!would)
        return false;
    zcp_priv_store_relaxed(&s->entry->armed, 0u);                              // relaxed: a datagram more does no harm
    (void)timerfd_settime(s->timer, 0, &off, NULL);
    return true;
}

ZCP_PRIV_COLD zcp_status zcp_priv_receive_slow(zcp_subscriber *s, uint32_t timeout_ms, zcp_message *message) {
    uint32_t ready;
    zcp_status status = ZCP_ERR_EMPTY;
    ZEROCP_STEP("found_nothing");
    if (s->spin_us != 0 && timeout_ms != 0)
        status = zcp_priv_receive_spin(s, message);
    if (status == ZCP_ERR_EMPTY && timeout_ms != 0)
        return zcp_priv_receive_wait(&s, 1, timeout_ms, message, &ready);
    if (status != ZCP_ERR_EMPTY)
        return status;
    zcp_priv_topics_drain(s->manager);
    if (s->ended != 0)
        zcp_priv_sources_sweep(s);
    if (s->epoll >= 0 && zcp_priv_descriptor_arm(s))
        status = zcp_priv_receive_once(s, message);
    return status == ZCP_ERR_EMPTY ? zcp_priv_fail_plain(ZCP_ERR_EMPTY) : status;
}

ZEROCP_API zcp_status zcp_subscriber_receive(zcp_subscriber *subscriber, uint32_t timeout_ms, zcp_message *message) {
    zcp_subscriber *s = subscriber;
    if (ZCP_PRIV_UNLIKELY(!message))
        return zcp_priv_fail_null("place for the message");
    memset(message, 0, sizeof *message);
    zcp_status status = zcp_priv_subscriber_check(s);
    if (ZCP_PRIV_UNLIKELY(status != ZCP_OK))
        return status;
    zcp_subscriber_done(s);
    status = zcp_priv_receive_once(s, message);
    if (ZCP_PRIV_LIKELY(status != ZCP_ERR_EMPTY))
        return status;
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_receive_slow(s, timeout_ms, message));
}

ZCP_PRIV_SETUP zcp_status zcp_priv_subscribers_wait(zcp_subscriber *const *subscribers, uint32_t count,
                                                    uint32_t timeout_ms,
                                                    uint32_t *ready) {
    if (!ready)
        return zcp_priv_fail_null("place for the index");
    *ready = 0;
    if (!subscribers || count == 0)
        return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "there are no subscribers to wait for");
    for (uint32_t k = 0; k < count; k++) {
        zcp_status status = zcp_priv_subscriber_check(subscribers[k]);
        if (status != ZCP_OK)
            return status;
        if (subscribers[k]->manager != subscribers[0]->manager)
            return zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "the subscribers are of several managers");
    }
    for (uint32_t k = 0; k < count; k++) {
        *ready = k;
        if (zcp_priv_receive_would(subscribers[k]))
            return ZCP_OK;
        if (subscribers[k]->ended != 0)
            zcp_priv_sources_sweep(subscribers[k]);
    }
    zcp_status status = ZCP_ERR_EMPTY;
    status = timeout_ms == 0 ? zcp_priv_fail_plain(status)
        : zcp_priv_receive_wait(subscribers, count, timeout_ms, NULL, ready);
    if (status != ZCP_OK)
        *ready = 0;
    return status;
}

ZEROCP_API zcp_status zcp_subscribers_wait(zcp_subscriber *const *subscribers, uint32_t count, uint32_t timeout_ms,
                                           uint32_t *ready) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_subscribers_wait(subscribers, count, timeout_ms, ready));
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_interrupt(zcp_manager *manager, bool on) {
    int saved = errno;
    // No message, which might be written just then.
    if (!manager)
        return ZCP_ERR_INVALID_ARGUMENT;
    if (!zcp_priv_usable(manager))
        // Relaxed: for the status.
        return zcp_priv_load_relaxed(&manager->state) == 0 ? ZCP_ERR_FORKED : ZCP_ERR_CLOSED;
    zcp_priv_store_relaxed(&manager->interrupted, on ? 1u : 0u);               // relaxed: the barrier carries it
    if (on && !(manager->view.flags & ZCP_OBSERVE)) {
        zcp_priv_slot *slot = zcp_priv_slot_at(manager, manager->view.client);
        ZEROCP_HEAVY_BARRIER();                                                // as A7
        zcp_priv_add_release(&slot->wakes, 1);                                 // as W3
        (void)zcp_priv_futex(&slot->wakes, ZCP_PRIV_FUTEX_WAKE, INT32_MAX, NULL, UINT32_MAX);
    }
    errno = saved;
    return ZCP_OK;
}

ZCP_PRIV_SETUP zcp_status zcp_priv_subscriber_keep(zcp_subscriber *s, zcp_chunk *chunk) {
    zcp_priv_place place;
    if (!chunk)
        return zcp_priv_fail_null("place for the handle");
    *chunk = zcp_priv_no_chunk;
    zcp_status status = zcp_priv_subscriber_check(s);
    if (status != ZCP_OK)
        return status;
    zcp_manager *manager = s->manager;
    if (!s->reading || s->reading_token == 0)
        return zcp_priv_fail(ZCP_ERR_EMPTY, 0, "%s: %s", manager->name,
                             s->reading ? "an event has no chunk" : "no message is being read");
    uint64_t token = s->reading_token;
    if (!zcp_priv_place_of(manager, (uint32_t)token, (uint32_t)(token >> 32), &place))
        status = zcp_priv_message_reach(manager, token, &place);
    if (status != ZCP_OK)
        return status;
    // As if its owner had made a token: nobody releases the chunk while the claim stands, so nobody stores to its
    // state.
    _Atomic uint64_t *state = &zcp_priv_record_at(place.pool, place.i)->state;
    uint64_t now = zcp_priv_load_relaxed(state);                               // relaxed, both: the claim pins it
    if (ZCP_PRIV_GENERATION(now) == place.generation && ZCP_PRIV_OWNER(now) != 0 && ZCP_PRIV_TICKET(now) == 0
        && !zcp_priv_is_retired(now))
        (void)zcp_priv_cas_relaxed(state, &now, now | ZCP_PRIV_TOKEN_TICKET);
    ZEROCP_STEP("keeping");
    zcp_priv_counts *counts = zcp_priv_counts_at(place.pool, place.i);
    status = zcp_priv_admit(manager, counts);
    if (status != ZCP_OK)
        return status;
    if (zcp_priv_acquire(place.pool, place.i, manager->view.client, place.generation) != ZCP_PRIV_HELD) {
        zcp_priv_held_ends(manager, counts);
        return zcp_priv_fail(ZCP_ERR_CORRUPT, 0, "%s: the message's chunk %016llx is held by nobody", manager->name,
                             (unsigned long long)token);
    }
    zcp_priv_handle(chunk, manager, &place);
    return ZCP_OK;
}

ZEROCP_API zcp_status zcp_subscriber_keep(zcp_subscriber *subscriber, zcp_chunk *chunk) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_subscriber_keep(subscriber, chunk));
}

ZCP_PRIV_SETUP zcp_subscriber *zcp_priv_subscriber_make(zcp_manager *manager, const zcp_priv_tables *tables,
                                                        uint32_t index,
                                                        const zcp_subscriber_desc *desc) {
    zcp_subscriber *s = zcp_priv_subscriber_at(zcp_priv_load_relaxed(&manager->topics), index);
    s->index = index;
    s->manager = manager;
    s->entry = &tables->subscribers[index];
    s->sources = s->turn = s->ended = 0;
    s->spin_us = desc->spin_us;
    s->reliable = desc->reliable;
    s->latest = desc->latest;
    s->reading = false;
    s->sweep_at = s->recover_at = 0;
    s->epoll = s->socket = s->timer = -1;
    s->source = zcp_priv_object_at(s, sizeof *s);
    return s;
}

// Fills an entry in, makes the cursors of the publishers that there are, and opens it.
ZCP_PRIV_SETUP void zcp_priv_subscriber_begin(zcp_subscriber *s, const zcp_priv_tables *tables, uint32_t history) {
    zcp_manager *manager = s->manager;
    zcp_priv_topic_subscriber *entry = s->entry;
    uint32_t serial = zcp_priv_topics_changed(manager), client = manager->view.client;
    if (serial == 0)
        serial = zcp_priv_topics_changed(manager);
    for (uint32_t p = 0; p < tables->publisher_count; p++) {
        zcp_priv_cursor *cursor = &zcp_priv_cursor_row(tables, p)[s->index];
        zcp_priv_store_relaxed(&cursor->serial, UINT64_C(0));                  // relaxed: Z1 carries it
        // Who had the entry before has told that it reads no more, and this store is what a publisher may see of that.
        zcp_priv_store_release(&cursor->claim, UINT64_C(0));                                        // T5
    }
    zcp_priv_topic_write(&s->topic, entry->topic);                             // relaxed, all: Z1 carries them
    zcp_priv_store_relaxed(&entry->flags, (s->reliable ? ZCP_PRIV_RELIABLE : 0u) | (s->latest ? ZCP_PRIV_LATEST : 0u));
    zcp_priv_store_relaxed(&entry->armed, 0u);
    zcp_priv_store_relaxed(&entry->socket, UINT64_C(0));
    ZEROCP_STEP("subscriber_written");
    zcp_priv_store_release(&entry->state, zcp_priv_topic_state(serial, ZCP_PRIV_TOPIC_OPENING, client));      // as Z1
    s->epoch = zcp_priv_topics_changed(manager);
    ZEROCP_STEP("subscriber_opening");
    for (uint32_t p = 0; p < tables->publisher_count; p++) {
        zcp_priv_topic_publisher *publisher = &tables->publishers[p];
        uint64_t state = zcp_priv_load_acquire(&publisher->state);             // as Z0
        uint32_t phase = zcp_priv_topic_phase(state);
        if (zcp_priv_topic_is_free(state) || (phase != ZCP_PRIV_TOPIC_OPEN && phase != ZCP_PRIV_TOPIC_ENDED)
            || !zcp_priv_topic_equal(&s->topic, publisher->topic))
            continue;
        // Relaxed: T4 lets it be counted again.
        uint64_t count = zcp_priv_load_relaxed(&publisher->count), depth = zcp_priv_depth_of(tables, publisher);
        uint64_t back = history < depth ? history : depth;
        zcp_priv_source_begin(s, tables, p, state, count - (back < count ? back : count), count);
        s->ended += phase == ZCP_PRIV_TOPIC_ENDED;
    }
    zcp_priv_topic_attend(manager, &s->topic, false);
    zcp_priv_store_release(&entry->state, zcp_priv_topic_state(serial, ZCP_PRIV_TOPIC_OPEN, client));         // as Z1
    // A publisher that shows more than is counted from here on knows of this one before it frees a cell.
    ZEROCP_HEAVY_BARRIER();                                                                         // T4
    bool passes = false;
    for (uint32_t k = 0; k < s->sources; k++) {
        zcp_priv_source *q = &s->source[k];
        // Relaxed: after the barrier.
        q->from = zcp_priv_load_relaxed(&q->entry->count);                                          // step counts-again
        if (history != 0 || q->from <= q->head)
            continue;
        zcp_priv_source_skip(q, q->from - q->head, false);
        zcp_priv_store_release(&q->cursor->head, q->head);                     // as I4
        passes = true;
    }
    if (passes)                                                                // a publisher may wait for these
        zcp_priv_topic_attend(manager, &s->topic, true);
    ZEROCP_STEP("subscriber_open");
}

ZCP_PRIV_SETUP zcp_status zcp_priv_subscriber_open(zcp_manager *manager, const zcp_subscriber_desc *desc,
                                                   zcp_subscriber **subscriber) {
    zcp_priv_topic topic;
    zcp_priv_hold hold;
    uint32_t index, client;
    if (!subscriber)
        return zcp_priv_fail_null("place for the subscriber");
    *subscriber = NULL;
    if (!desc)
        return zcp_priv_fail_null("descriptor");
    zcp_status status = zcp_priv_may_change(manager);
    if (status == ZCP_OK)
        status = zcp_priv_topic_make(&topic, desc->topic);
    if (status == ZCP_OK && desc->reliable && desc->latest)
        status = zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "%s: reliable and latest exclude each other",
                               manager->name);
    if (status == ZCP_OK)
        status = zcp_priv_topics_need(manager);
    if (status == ZCP_OK)
        status = zcp_priv_topics_lock(manager, &hold);
    if (status != ZCP_OK)
        return status;
    zcp_priv_topics_drain(manager);
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    if (desc->reliable && zcp_priv_topic_published(&tables, &topic, ZCP_PRIV_NEVER_WAITS, &client)) {
        zcp_recovery report = {0, 0};
        (void)zcp_priv_recover(manager, &report);                              // it may be dead
        if (zcp_priv_topic_published(&tables, &topic, ZCP_PRIV_NEVER_WAITS, &client))
            status = zcp_priv_fail(ZCP_ERR_INVALID_ARGUMENT, 0, "%s: client %u publishes to \"%s\", and never waits "
                                   "for reliable subscribers", manager->name, client, desc->topic);
    }
    if (status == ZCP_OK)
        status = zcp_priv_entry_need(manager, &tables, false, &index);
    if (status == ZCP_OK) {
        zcp_subscriber *s = zcp_priv_subscriber_make(manager, &tables, index, desc);
        s->topic = topic;
        zcp_priv_subscriber_begin(s, &tables, desc->history);
        zcp_priv_store_release(&s->state, (uint32_t)ZCP_PRIV_OBJECT_OPEN);
        *subscriber = s;
    }
    zcp_priv_hold_drop(&hold);
    return status;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_subscriber_open(zcp_manager *manager, const zcp_subscriber_desc *desc,
                                                         zcp_subscriber **subscriber) {
    bool outermost = zcp_priv_call_begin();
    return zcp_priv_call_end(outermost, zcp_priv_subscriber_open(manager, desc, subscriber));
}

ZCP_PRIV_SETUP void zcp_priv_subscriber_descriptors_close(zcp_subscriber *s) {
    zcp_priv_close_fd(s->epoll);
    zcp_priv_close_fd(s->socket);
    zcp_priv_close_fd(s->timer);
    s->epoll = s->socket = s->timer = -1;
}

ZCP_PRIV_SMALL ZEROCP_API void zcp_subscriber_close(zcp_subscriber *subscriber) {
    zcp_subscriber *s = subscriber;
    if (!s || zcp_priv_load_relaxed(&s->state) != ZCP_PRIV_OBJECT_OPEN || !zcp_priv_usable(s->manager))
        return;
    zcp_manager *manager = s->manager;
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    bool outermost = zcp_priv_call_begin();
    zcp_subscriber_done(s);
    for (uint32_t p = 0; p < tables.publisher_count; p++) {
        zcp_priv_cursor *cursor = &zcp_priv_cursor_row(&tables, p)[s->index];
        zcp_priv_store_relaxed(&cursor->serial, UINT64_C(0));                  // relaxed: Z5 carries it
        zcp_priv_store_release(&cursor->claim, UINT64_C(0));                   // as I3
    }
    zcp_priv_store_relaxed(&s->entry->armed, 0u);                              // relaxed, both: Z5 carries them
    zcp_priv_store_relaxed(&s->entry->socket, UINT64_C(0));
    ZEROCP_STEP("subscriber_leaves");
    zcp_priv_store_release(&s->entry->state, UINT64_C(0));                     // as Z5
    (void)zcp_priv_topics_changed(manager);
    zcp_priv_topic_attend(manager, &s->topic, true);
    ZEROCP_STEP("subscriber_left");
    // Those it had not read to the end may go now.
    for (uint32_t k = 0; k < s->sources; k++) {
        // Relaxed: a look; the sweep decides.
        uint32_t phase = zcp_priv_topic_phase(zcp_priv_load_relaxed(&s->source[k].entry->state));
        s->source[k].ended = phase == ZCP_PRIV_TOPIC_ENDED;
    }
    s->sweep_at = 0;
    zcp_priv_sources_sweep(s);
    zcp_priv_topics_drain(manager);
    zcp_priv_subscriber_descriptors_close(s);
    zcp_priv_store_release(&s->state, (uint32_t)ZCP_PRIV_OBJECT_CLOSED);       // last: a later open uses the object
    zcp_priv_call_end(outermost, ZCP_OK);
}

// The manager is being closed, and with it what belongs to it. Its chunks and entries are swept with its slot.
ZCP_PRIV_SETUP void zcp_priv_topics_close(zcp_manager *manager) {
    zcp_priv_topics *topics = zcp_priv_load_acquire(&manager->topics);
    if (!topics)
        return;
    // Relaxed, all: no call may overlap the manager's close.
    for (uint32_t k = 0; k < topics->publishers; k++) {
        zcp_publisher *p = zcp_priv_publisher_at(topics, k);
        if (zcp_priv_load_relaxed(&p->state) >= ZCP_PRIV_OBJECT_OPEN)
            zcp_priv_store_relaxed(&p->state, (uint32_t)ZCP_PRIV_OBJECT_CLOSED);
    }
    for (uint32_t k = 0; k < topics->subscribers; k++) {
        zcp_subscriber *s = zcp_priv_subscriber_at(topics, k);
        if (zcp_priv_load_relaxed(&s->state) != ZCP_PRIV_OBJECT_OPEN)
            continue;
        zcp_priv_store_relaxed(&s->state, (uint32_t)ZCP_PRIV_OBJECT_CLOSED);
        zcp_priv_subscriber_descriptors_close(s);
    }
    zcp_priv_store_relaxed(&topics->ended, 0u);
}

// The objects are for a later manager. Under the process's mutex.
ZCP_PRIV_SETUP void zcp_priv_topics_leave(zcp_manager *manager) {
    zcp_priv_topics *topics = zcp_priv_load_relaxed(&manager->topics);         // relaxed, both: under the mutex
    if (!topics)
        return;
    topics->next = zcp_priv_topics_unused;
    zcp_priv_topics_unused = topics;
    zcp_priv_store_relaxed(&manager->topics, (zcp_priv_topics *)NULL);
}

// Binds a datagram socket under a name that nobody else has.
ZCP_PRIV_SETUP int zcp_priv_socket_open(uint64_t *number) {
    struct sockaddr_un address;
    socklen_t bytes;
    int fd = zcp_priv_descriptor_high(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    for (uint32_t tries = 0; fd >= 0 && tries < 16; tries++) {
        if (getrandom(number, sizeof *number, 0) != (ssize_t)sizeof *number || *number == 0)
            *number = zcp_priv_mix(zcp_priv_now_ns() + tries) | 1;
        zcp_priv_socket_name(&address, &bytes, *number);
        if (bind(fd, (struct sockaddr *)&address, bytes) == 0)
            return fd;
        if (errno != EADDRINUSE)
            break;
    }
    zcp_priv_close_fd(fd);
    return -1;
}

ZCP_PRIV_SETUP bool zcp_priv_descriptor_open(zcp_subscriber *s, uint64_t *number) {
    struct epoll_event event;
    // It is readable at once: so the first look arms it.
    struct itimerspec at_once = {{0, 0}, {0, 1}};
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    s->socket = zcp_priv_socket_open(number);
    if (s->socket >= 0)
        s->timer = zcp_priv_descriptor_high(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (s->timer >= 0)
        s->epoll = zcp_priv_descriptor_high(epoll_create1(EPOLL_CLOEXEC));
    return s->epoll >= 0 && epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->socket, &event) == 0
        && epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->timer, &event) == 0
        && timerfd_settime(s->timer, 0, &at_once, NULL) == 0;
}

ZCP_PRIV_SMALL ZEROCP_API int zcp_subscriber_descriptor(zcp_subscriber *subscriber) {
    zcp_subscriber *s = subscriber;
    uint64_t number = 0;
    if (zcp_priv_subscriber_check(s) != ZCP_OK)
        return -1;
    if (s->epoll >= 0)
        return s->epoll;
    zcp_priv_high high;
    zcp_priv_process *process = zcp_priv_high_begin(&high);
    bool made = process && zcp_priv_descriptor_open(s, &number);
    if (process)
        zcp_priv_high_end(process, &high);
    if (!made)
        (void)zcp_priv_fail_call(ZCP_ERR_SYSTEM, "socket, timerfd or epoll", s->manager->name);
    if (!made)
        zcp_priv_subscriber_descriptors_close(s);
    else
        zcp_priv_store_relaxed(&s->entry->socket, number);                     // relaxed: armed carries it
    return s->epoll;
}

// A count that somebody else has written, or a sum of such, as far as it can be one.
static uint64_t zcp_priv_topic_figure(uint64_t count) {
    return count <= INT64_MAX ? count : INT64_MAX;
}

// Adds what a subscriber has lost of a publisher: no more than it has come past.
static void zcp_priv_lost_add(const zcp_priv_cursor *cursor, uint64_t head, zcp_topic_entry *entry) {
    uint64_t lost = zcp_priv_load_relaxed(&cursor->lost);                      // relaxed: a figure
    entry->lost = zcp_priv_topic_figure(entry->lost + (lost < head ? lost : head));
}

// What all who subscribe have not read of a publisher, have lost, and what is in its ring.
ZCP_PRIV_SETUP void zcp_priv_publisher_watch(const zcp_priv_tables *tables, uint32_t publisher,
                                             zcp_topic_entry *entry) {
    const zcp_priv_cell *ring = zcp_priv_ring_at(tables, publisher);
    const zcp_priv_cursor *row = zcp_priv_cursor_row(tables, publisher);
    uint32_t depth = entry->depth;                                             // as it was told: it may change
    for (uint32_t cell = 0; cell < depth; cell++) {
        uint64_t last = zcp_priv_load_relaxed(&ring[cell].last);               // relaxed, all: figures
        if (!zcp_priv_cell_shows(last))
            continue;
        entry->held += (uint32_t)last != 0;
        entry->unread += zcp_priv_cell_is_wanted(tables, publisher, depth, cell, last, false);
    }
    for (uint32_t s = 0; s < tables->subscriber_count; s++) {
        uint64_t head = zcp_priv_head_read(&row[s], entry->source);
        zcp_priv_lost_add(&row[s], head < entry->messages ? head : entry->messages, entry);
    }
}

// What a subscriber has read, lost, and not read yet.
ZCP_PRIV_SETUP void zcp_priv_subscriber_watch(const zcp_priv_tables *tables, uint32_t s, const zcp_priv_topic *topic,
                                              zcp_topic_entry *entry) {
    for (uint32_t p = 0; p < tables->publisher_count; p++) {
        const zcp_priv_topic_publisher *publisher = &tables->publishers[p];
        const zcp_priv_cursor *cursor = &zcp_priv_cursor_row(tables, p)[s];
        uint64_t state = zcp_priv_load_acquire(&publisher->state);             // as Z0
        if (zcp_priv_topic_is_free(state) || !zcp_priv_topic_equal(topic, publisher->topic))
            continue;
        // Relaxed: a figure.
        uint64_t count = zcp_priv_topic_figure(zcp_priv_load_relaxed(&publisher->count));
        uint64_t head = zcp_priv_head_read(cursor, state >> 32);
        if (head > count)                                                      // garbage, or just published
            head = count;
        entry->messages = zcp_priv_topic_figure(entry->messages + head);
        entry->unread = zcp_priv_topic_figure(entry->unread + count - head);
        zcp_priv_lost_add(cursor, head, entry);
    }
}

// What is common to both. false: the entry is free.
ZCP_PRIV_SETUP bool zcp_priv_topic_watch(const zcp_manager *manager, uint64_t state, const zcp_priv_topic *topic,
                                         zcp_topic_entry *entry) {
    uint32_t client = (uint32_t)(state & 0xffff) - 1;
    memset(entry, 0, sizeof *entry);
    if (zcp_priv_topic_is_free(state))
        return false;
    zcp_priv_topic_text(topic, entry->topic);
    entry->source = state >> 32;
    entry->client = client < manager->geometry.max_clients ? client : ZCP_NO_CLIENT;
    entry->waits_for = ZCP_NO_CLIENT;
    entry->ended = zcp_priv_topic_phase(state) == ZCP_PRIV_TOPIC_ENDED;
    return true;
}

// Whom a publisher, whose entry has been read, waits for when it goes on.
ZCP_PRIV_SETUP uint32_t zcp_priv_publisher_waits_for(const zcp_manager *manager, uint32_t publisher,
                                                     const zcp_priv_topic *topic, const zcp_topic_entry *entry) {
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    for (uint32_t s = 0; !entry->ended && entry->depth != 0 && s < tables.subscriber_count; s++) {
        const zcp_priv_topic_subscriber *subscriber = &tables.subscribers[s];
        uint64_t state = zcp_priv_load_acquire(&subscriber->state);            // as Z0
        uint32_t client = (uint32_t)(state & 0xffff) - 1;
        bool reliable = zcp_priv_load_relaxed(&subscriber->flags) & ZCP_PRIV_RELIABLE;     // relaxed: a figure
        if (client >= manager->geometry.max_clients || !reliable || !zcp_priv_topic_equal(topic, subscriber->topic))
            continue;
        uint64_t head = zcp_priv_head_read(&zcp_priv_cursor_row(&tables, publisher)[s], entry->source);
        if (head <= entry->messages && entry->messages - head >= entry->depth)
            return client;
    }
    return ZCP_NO_CLIENT;
}

ZCP_PRIV_SMALL ZEROCP_API zcp_status zcp_manager_topics(const zcp_manager *manager, zcp_topic_function *function,
                                                        void *user) {
    zcp_topic_entry entry;
    if (!function)
        return zcp_priv_fail_null("function");
    if (!zcp_priv_usable(manager))
        return zcp_priv_why_unusable(manager);
    zcp_priv_topics_drain(manager->itself);
    zcp_priv_tables tables = zcp_priv_tables_of(manager);
    for (uint32_t p = 0; p < tables.publisher_count; p++) {
        const zcp_priv_topic_publisher *is = &tables.publishers[p];
        uint64_t state = zcp_priv_load_acquire(&is->state);                    // as Z0
        zcp_priv_topic topic = zcp_priv_topic_read(is->topic);
        if (!zcp_priv_topic_watch(manager, state, &topic, &entry))
            continue;
        entry.publisher = true;
        entry.depth = zcp_priv_depth_of(&tables, is);
        uint32_t keep = zcp_priv_load_relaxed(&is->keep);                      // relaxed, both: figures
        entry.keep = keep < entry.depth ? keep : entry.depth;
        entry.messages = zcp_priv_topic_figure(zcp_priv_load_relaxed(&is->count));
        uint32_t flags = zcp_priv_load_relaxed(&is->flags);                    // relaxed: figures
        entry.exclusive = flags & ZCP_PRIV_EXCLUSIVE;
        entry.never_waits = flags & ZCP_PRIV_NEVER_WAITS;
        entry.waits_for = zcp_priv_publisher_waits_for(manager, p, &topic, &entry);
        zcp_priv_publisher_watch(&tables, p, &entry);
        if (!function(&entry, user))
            return ZCP_OK;
    }
    for (uint32_t s = 0; s < tables.subscriber_count; s++) {
        const zcp_priv_topic_subscriber *is = &tables.subscribers[s];
        uint64_t state = zcp_priv_load_acquire(&is->state);                    // as Z0
        zcp_priv_topic topic = zcp_priv_topic_read(is->topic);
        if (!zcp_priv_topic_watch(manager, state, &topic, &entry))
            continue;
        uint32_t flags = zcp_priv_load_relaxed(&is->flags);                    // relaxed: figures
        entry.reliable = flags & ZCP_PRIV_RELIABLE;
        entry.latest = flags & ZCP_PRIV_LATEST;
        zcp_priv_subscriber_watch(&tables, s, &topic, &entry);
        if (!function(&entry, user))
            return ZCP_OK;
    }
    return ZCP_OK;
}

#endif // ZEROCP_IMPLEMENTED
#if defined(__cplusplus) && __cplusplus >= 201103L && !defined(ZEROCP_STATIC) && !defined(ZEROCP_CPP)
#define ZEROCP_CPP

// ---------------------------------------------------------------------------------------------------------------------
// >>cpp  C++: the same in namespace zerocp, with owners that clean up
// ---------------------------------------------------------------------------------------------------------------------
// C++11, header-only; the implementation stays a C file, to which this is linked. Not with ZEROCP_STATIC: C++ cannot
// contain the implementation, so it needs one that others can link to.
// A member function is the C function of its name: see there what it does, how it fails and what is thread-safe; here
// stands only what is new. An object is to threads what a handle is: several may use it at once if none changes it.
// Nothing throws but value_or_throw (which does not exist with -fno-exceptions), your own code where it is called from
// here (census), and std::string in format. In a forked child every object is as empty.
#include <exception>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>

#if __cplusplus >= 201703L
#define ZCP_PRIV_NODISCARD [[nodiscard]]
#else
#define ZCP_PRIV_NODISCARD
#endif
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define ZCP_PRIV_EXCEPTIONS
#define ZCP_PRIV_TRY try
#define ZCP_PRIV_CATCH_ALL catch (...)
#else
#define ZCP_PRIV_TRY if (true)
#define ZCP_PRIV_CATCH_ALL else
#endif

namespace zerocp {

// A zcp_status that has its functions with it. Neither true nor false: ask ok(), or compare.
class status {
public:
    constexpr status(zcp_status code = ZCP_OK) noexcept : code_(code) {}
    constexpr zcp_status code() const noexcept { return code_; }
    constexpr bool ok() const noexcept { return code_ == ZCP_OK; }
    const char *name() const noexcept { return zcp_status_name(code_); }
    // For any moment; zcp_last_message() tells more right after the call.
    const char *message() const noexcept { return zcp_status_message(code_); }
    friend constexpr bool operator==(status a, status b) noexcept { return a.code_ == b.code_; }
    friend constexpr bool operator!=(status a, status b) noexcept { return a.code_ != b.code_; }
private:
    zcp_status code_;
};

#ifdef ZCP_PRIV_EXCEPTIONS
// What value_or_throw throws. what() is the status's name and, from the moment of the throw, zcp_last_message().
class error : public std::exception {
public:
    explicit error(status code) noexcept : status_(code)
    {
        const char *last = zcp_last_message();
        ::snprintf(text_, sizeof text_, "%s: %s", code.name(), *last ? last : code.message());
    }
    status code() const noexcept { return status_; }
    const char *what() const noexcept override { return text_; }
private:
    status status_;
    char   text_[448];
};
#endif

// What a call returns: true and a value, or false and the status that says why. result<void> has no value.
template <class T> class result;
template <> class ZCP_PRIV_NODISCARD result<void> {
public:
    result(status code = ZCP_OK) noexcept : status_(code) {}
    result(zcp_status code) noexcept : status_(code) {}
    explicit operator bool() const noexcept { return status_.ok(); }
    // OK if it is true.
    status error() const noexcept { return status_; }
#ifdef ZCP_PRIV_EXCEPTIONS
    void value_or_throw() const { if (!status_.ok()) throw zerocp::error(status_); }
#endif
private:
    status status_;
};

// The value of a failed one is an empty T, whose calls fail in their turn: reading it is defined, and never throws.
template <class T> class ZCP_PRIV_NODISCARD result : public result<void> {
public:
    result(T value) noexcept(std::is_nothrow_move_constructible<T>::value) : value_(std::move(value)) {}
    result(status failure) noexcept(std::is_nothrow_default_constructible<T>::value)
        : result<void>(failure), value_() {}
    // Not taken for a number.
    result(zcp_status failure) noexcept(std::is_nothrow_default_constructible<T>::value)
        : result<void>(failure), value_() {}
    result(zcp_status code, T value) noexcept(std::is_nothrow_move_constructible<T>::value)
        : result<void>(code), value_(std::move(value)) {}
    T &value() & noexcept { return value_; }
    const T &value() const & noexcept { return value_; }
    T &&value() && noexcept { return std::move(value_); }
    T &operator*() & noexcept { return value_; }
    const T &operator*() const & noexcept { return value_; }
    T &&operator*() && noexcept { return std::move(value_); }
    T *operator->() noexcept { return &value_; }
    const T *operator->() const noexcept { return &value_; }
    template <class U> T value_or(U &&other) const & { return *this ? value_ : static_cast<T>(std::forward<U>(other)); }
    template <class U> T value_or(U &&other) && {
        return *this ? std::move(value_) : static_cast<T>(std::forward<U>(other));
    }
#ifdef ZCP_PRIV_EXCEPTIONS
    T &value_or_throw() & { result<void>::value_or_throw(); return value_; }
    const T &value_or_throw() const & { result<void>::value_or_throw(); return value_; }
    T value_or_throw() && { result<void>::value_or_throw(); return std::move(value_); }
#endif
private:
    T value_;
};

class manager;
class publisher;
class subscriber;

// A handle that counts by itself: a copy is a clone, a move leaves the source empty, the destructor releases. To const
// it is what a pointer is: the handle does not change, the payload may. It may outlive its manager: then it is like an
// empty one.
class shared_chunk {
public:
    shared_chunk() noexcept : chunk_() {}
    // Adopts: counts nothing, and leaves the handle empty.
    explicit shared_chunk(zcp_chunk &chunk) noexcept : chunk_(chunk) { chunk = zcp_chunk(); }
    explicit shared_chunk(zcp_chunk &&chunk) noexcept : shared_chunk(chunk) {}
    shared_chunk(const shared_chunk &other) noexcept
        : chunk_(other.chunk_.manager ? zcp_chunk_clone(&other.chunk_) : zcp_chunk()) {}
    shared_chunk(shared_chunk &&other) noexcept : chunk_(other.chunk_) { other.chunk_ = zcp_chunk(); }
    // By value: copies or moves, also itself.
    shared_chunk &operator=(shared_chunk other) noexcept { swap(other); return *this; }
    ~shared_chunk() { if (chunk_.manager) zcp_chunk_release(&chunk_); }
    static result<shared_chunk> acquire(manager &from, uint64_t token) noexcept;

    void reset() noexcept { shared_chunk().swap(*this); }
    // All of them become empty.
    static void release_bulk(shared_chunk *chunks, uint32_t count) noexcept {
        for (uint32_t done = 0, some; chunks && done < count; done += some) {
            zcp_chunk block[32];
            some = count - done < 32 ? count - done : 32;
            for (uint32_t i = 0; i < some; i++) block[i] = chunks[done + i].detach();
            zcp_chunk_release_bulk(block, some);
        }
    }
    void swap(shared_chunk &other) noexcept { std::swap(chunk_, other.chunk_); }
    friend void swap(shared_chunk &a, shared_chunk &b) noexcept { a.swap(b); }
    // The caller releases it.
    ZCP_PRIV_NODISCARD zcp_chunk detach() noexcept { zcp_chunk chunk = chunk_; chunk_ = zcp_chunk(); return chunk; }
    // For C functions; remains this object's.
    const zcp_chunk &handle() const noexcept { return chunk_; }

    explicit operator bool() const noexcept { return zcp_chunk_is_valid(&chunk_); }
    void *get() const noexcept { return zcp_chunk_data(&chunk_); }
    uint64_t size() const noexcept { return zcp_chunk_size(&chunk_); }
    uint64_t capacity() const noexcept { return zcp_chunk_capacity(&chunk_); }
    uint64_t use_count() const noexcept { return zcp_chunk_use_count(&chunk_); }
    uint64_t token() const noexcept { return zcp_chunk_token(&chunk_); }
    uint32_t tag() const noexcept { return zcp_chunk_tag(&chunk_); }
    result<void> set_size(uint64_t size) noexcept { return zcp_chunk_set_size(&chunk_, size); }
    result<void> set_tag(uint32_t tag) noexcept { return zcp_chunk_set_tag(&chunk_, tag); }

    // The payload as Ts, as many as fit into size(). NULL, and 0: nothing is held, not even one fits, or the chunk is
    // not aligned for T. A T is never constructed or destroyed in there, and other processes see it elsewhere: no
    // pointers in it, no virtual functions.
    template <class T = unsigned char> T *data() const noexcept
    {
        static_assert(std::is_trivially_destructible<T>::value && !std::is_polymorphic<T>::value
                          && !std::is_pointer<T>::value,
                      "zerocp: T cannot be shared between processes");
        void *address = get();
        return size() >= sizeof(T) && reinterpret_cast<uintptr_t>(address) % alignof(T) == 0 ? static_cast<T *>(address)
                                                                                             : nullptr;
    }
    template <class T = unsigned char> uint64_t count() const noexcept { return data<T>() ? size() / sizeof(T) : 0; }
    // The bytes, for loops, algorithms and C++20's std::span.
    unsigned char *begin() const noexcept { return data(); }
    unsigned char *end() const noexcept { return data() + count(); }

    // Are they handles of the same use of the same chunk, by the same manager? Empty ones are equal. To compare between
    // managers, compare tokens.
    friend bool operator==(const shared_chunk &a, const shared_chunk &b) noexcept
    {
        return a.chunk_.manager == b.chunk_.manager && a.chunk_.index == b.chunk_.index
               && a.chunk_.generation == b.chunk_.generation;
    }
    friend bool operator!=(const shared_chunk &a, const shared_chunk &b) noexcept { return !(a == b); }
private:
    zcp_chunk chunk_;
};

struct pool_config : zcp_pool_config {
    pool_config(uint64_t bytes, uint32_t chunks, uint32_t aligned = 0, uint32_t cached = 0) noexcept : zcp_pool_config()
    {
        chunk_size = bytes;
        chunk_count = chunks;
        alignment = aligned;
        cache_chunks = cached;
    }
};

// zerocp::config pools = {{256, 100}, {4096, 20}}; The first pool that is refused is remembered: open and reconfigure
// then fail with its status.
class config {
public:
    config() noexcept : config_(), status_() {}
    config(std::initializer_list<pool_config> pools) noexcept : config() {
        for (const pool_config &pool : pools) add(pool);
    }
    config &add(const pool_config &pool) noexcept {
        if (status_.ok()) status_ = zcp_config_add(&config_, &pool);
        return *this;
    }
    // Of the tables of topics; 0: the default.
    config &topics(uint32_t publishers, uint32_t subscribers = 0, uint32_t ring_cells = 0) noexcept {
        config_.publishers = publishers;
        config_.subscribers = subscribers;
        config_.ring_cells = ring_cells;
        return *this;
    }
    status error() const noexcept { return status_; }
    const zcp_config *get() const noexcept { return &config_; }
private:
    zcp_config config_;
    status     status_;
};

// The only owner of an attachment: moves, does not copy, and closes in its destructor.
class manager {
public:
    manager() noexcept : manager_(nullptr) {}
    explicit manager(zcp_manager *adopted) noexcept : manager_(adopted) {}
    manager(manager &&other) noexcept : manager_(other.detach()) {}
    manager &operator=(manager &&other) noexcept { manager moved(std::move(other)); moved.swap(*this); return *this; }
    manager(const manager &) = delete;
    manager &operator=(const manager &) = delete;
    ~manager() { close(); }
    void close() noexcept { zcp_manager_close(detach()); }
    void swap(manager &other) noexcept { std::swap(manager_, other.manager_); }
    friend void swap(manager &a, manager &b) noexcept { a.swap(b); }
    explicit operator bool() const noexcept { return manager_ != nullptr; }
    // For C functions; remains this object's.
    zcp_manager *get() const noexcept { return manager_; }
    // The caller closes it.
    ZCP_PRIV_NODISCARD zcp_manager *detach() noexcept { zcp_manager *was = manager_; manager_ = nullptr; return was; }

    static result<manager> open(const zcp_manager_desc &desc) noexcept
    {
        zcp_manager *opened = nullptr;
        zcp_status code = zcp_manager_open(&opened, &desc);
        return result<manager>(code, manager(opened));
    }
    // Creates it, if it is not there.
    static result<manager> open(const char *name, const config &pools, uint32_t flags = 0) noexcept
    {
        zcp_manager_desc desc = zcp_manager_desc();
        desc.name = name;
        desc.config = pools.get();
        desc.flags = flags;
        return pools.error().ok() ? open(desc) : result<manager>(pools.error());
    }
    static result<manager> open_existing(const char *name, uint32_t flags = 0) noexcept
    {
        zcp_manager_desc desc = zcp_manager_desc();
        desc.name = name;
        desc.mode = ZCP_SHM_OPEN_EXISTING;
        desc.flags = flags;
        return open(desc);
    }
    static result<void> destroy(const char *name) noexcept { return zcp_manager_destroy(name); }
    static result<void> destroy_with(const char *name, uint32_t flags) noexcept
    {
        return zcp_manager_destroy_with(name, flags);
    }
    result<void> destroy_this() noexcept { return zcp_manager_destroy_this(manager_); }

    result<shared_chunk> allocate(uint64_t size) noexcept {
        return filled<shared_chunk, zcp_chunk>(zcp_chunk_allocate, manager_, size);
    }
    result<shared_chunk> allocate_wait(uint64_t size, uint32_t timeout_ms) noexcept {
        return filled<shared_chunk, zcp_chunk>(zcp_chunk_allocate_wait, manager_, size, timeout_ms);
    }
    result<shared_chunk> allocate_tagged(uint64_t size, uint32_t tag) noexcept {
        return filled<shared_chunk, zcp_chunk>(zcp_chunk_allocate_tagged, manager_, size, tag);
    }
    result<shared_chunk> allocate_with(const zcp_chunk_desc &desc) noexcept {
        return filled<shared_chunk, zcp_chunk>(zcp_chunk_allocate_with, manager_, &desc);
    }
    // What the objects held before is released; after a failure all are empty.
    result<void> allocate_bulk(uint64_t size, shared_chunk *chunks, uint32_t count) noexcept {
        zcp_status code = ZCP_OK;
        if (!chunks) return zcp_chunk_allocate_bulk(manager_, size, NULL, count);
        shared_chunk::release_bulk(chunks, count);
        for (uint32_t done = 0, some; code == ZCP_OK && done < count; done += some) {
            zcp_chunk block[32];
            some = count - done < 32 ? count - done : 32;
            code = zcp_chunk_allocate_bulk(manager_, size, block, some);
            for (uint32_t i = 0; code == ZCP_OK && i < some; i++) chunks[done + i] = shared_chunk(block[i]);
        }
        if (code != ZCP_OK) shared_chunk::release_bulk(chunks, count);
        return code;
    }
    result<shared_chunk> chunk_of(const void *address) noexcept {
        return filled<shared_chunk, zcp_chunk>(zcp_chunk_of, manager_, address);
    }
    result<shared_chunk> acquire(uint64_t token) noexcept {
        return filled<shared_chunk, zcp_chunk>(zcp_chunk_acquire, manager_, token);
    }

    // Its number.
    result<uint32_t> add_pool(const pool_config &pool) noexcept {
        return filled<uint32_t>(zcp_manager_add_pool, manager_, &pool);
    }
    result<void> retire_pool(uint32_t pool) noexcept { return zcp_manager_retire_pool(manager_, pool); }
    result<void> reconfigure(const config &pools) noexcept {
        return pools.error().ok() ? zcp_manager_reconfigure(manager_, pools.get()) : pools.error().code();
    }
    result<zcp_config> get_config() const noexcept { return filled<zcp_config>(zcp_manager_get_config, manager_); }

    result<publisher> publish_to(const zcp_publisher_desc &desc) noexcept;
    result<publisher> publish_to(const char *topic, uint32_t depth = 0) noexcept;
    result<subscriber> subscribe_to(const zcp_subscriber_desc &desc) noexcept;
    result<subscriber> subscribe_to(const char *topic, bool reliable = false) noexcept;
    result<void> interrupt(bool on) noexcept { return zcp_manager_interrupt(manager_, on); }
    // Calls function(const zcp_topic_entry &), as census does.
    template <class F> result<void> topics(F &&function) const
    {
        topics_call<typename std::remove_reference<F>::type> call = {function, nullptr};
        zcp_status code = zcp_manager_topics(manager_, call.pass, &call);
        if (call.thrown) std::rethrow_exception(call.thrown);
        return code;
    }

    result<void> check() noexcept { return zcp_manager_check(manager_); }
    // A failed one has a value, too.
    result<zcp_recovery> recover() noexcept { return filled<zcp_recovery>(zcp_manager_recover, manager_); }
    result<zcp_manager_info> get_info() const noexcept {
        return filled<zcp_manager_info>(zcp_manager_get_info, manager_);
    }
    uint32_t pool_end() const noexcept { return zcp_manager_pool_end(manager_); }
    result<zcp_pool_stats> pool_stats(uint32_t pool) const noexcept {
        return filled<zcp_pool_stats>(zcp_manager_pool_stats, manager_, pool);
    }
    result<zcp_client_stats> client_stats(uint32_t slot) const noexcept {
        return filled<zcp_client_stats>(zcp_manager_client_stats, manager_, slot);
    }
    // Calls function(const zcp_census_entry &), any callable, until it returns false. What it throws ends the census,
    // and comes out of here.
    template <class F> result<void> census(F &&function) const
    {
        census_call<typename std::remove_reference<F>::type> call = {function, nullptr};
        zcp_status code = zcp_manager_census(manager_, call.pass, &call);
        if (call.thrown) std::rethrow_exception(call.thrown);
        return code;
    }
    std::string format() const
    {
        std::string text;
        size_t length = zcp_manager_format(manager_, nullptr, 0);
        do {
            // With the final 0.
            text.resize(length + 1);
            length = zcp_manager_format(manager_, &text[0], text.size());
        // It has grown meanwhile.
        } while (length >= text.size());
        text.resize(length);
        return text;
    }
private:
    // What a C function leaves in its last argument, as an R: empty if it failed.
    template <class R, class T = R, class F, class... A> static result<R> filled(F function, A... arguments) noexcept
    {
        T value = T();
        zcp_status code = function(arguments..., &value);
        return result<R>(code, R(std::move(value)));
    }
    // No exception may pass through C: it is carried around.
    template <class F> struct census_call {
        F &function;
        std::exception_ptr thrown;
        static bool pass(const zcp_census_entry *entry, void *user) noexcept
        {
            census_call *call = static_cast<census_call *>(user);
            ZCP_PRIV_TRY { return call->function(*entry); }
            ZCP_PRIV_CATCH_ALL { call->thrown = std::current_exception(); return false; }
        }
    };
    template <class F> struct topics_call {
        F &function;
        std::exception_ptr thrown;
        static bool pass(const zcp_topic_entry *entry, void *user) noexcept
        {
            topics_call *call = static_cast<topics_call *>(user);
            ZCP_PRIV_TRY { return call->function(*entry); }
            ZCP_PRIV_CATCH_ALL { call->thrown = std::current_exception(); return false; }
        }
    };
    zcp_manager *manager_;
};

inline result<shared_chunk> shared_chunk::acquire(manager &from, uint64_t token) noexcept {
    return from.acquire(token);
}

// Publishes to a topic: moves, does not copy, and closes in its destructor. It dies with its manager.
class publisher {
public:
    publisher() noexcept : publisher_(nullptr) {}
    explicit publisher(zcp_publisher *adopted) noexcept : publisher_(adopted) {}
    publisher(publisher &&other) noexcept : publisher_(other.detach()) {}
    publisher &operator=(publisher &&other) noexcept {
        publisher moved(std::move(other));
        moved.swap(*this);
        return *this;
    }
    publisher(const publisher &) = delete;
    publisher &operator=(const publisher &) = delete;
    ~publisher() { close(); }
    void close() noexcept { zcp_publisher_close(detach()); }
    void swap(publisher &other) noexcept { std::swap(publisher_, other.publisher_); }
    friend void swap(publisher &a, publisher &b) noexcept { a.swap(b); }
    explicit operator bool() const noexcept { return publisher_ != nullptr; }
    zcp_publisher *get() const noexcept { return publisher_; }
    ZCP_PRIV_NODISCARD zcp_publisher *detach() noexcept {
        zcp_publisher *was = publisher_;
        publisher_ = nullptr;
        return was;
    }

    result<shared_chunk> loan(uint64_t size) noexcept {
        zcp_chunk chunk = zcp_chunk();
        zcp_status code = zcp_publisher_loan(publisher_, size, &chunk);
        return result<shared_chunk>(code, shared_chunk(chunk));
    }
    // Takes the chunk; if that fails, it stays the caller's.
    result<zcp_delivery> publish(shared_chunk &chunk) noexcept {
        zcp_delivery delivery = zcp_delivery();
        zcp_chunk handle = chunk.detach();
        zcp_status code = zcp_publisher_publish(publisher_, &handle, &delivery);
        shared_chunk left(handle);
        left.swap(chunk);
        return result<zcp_delivery>(code, delivery);
    }
    result<zcp_delivery> publish(shared_chunk &&chunk) noexcept { return publish(chunk); }
    result<zcp_delivery> notify() noexcept {
        zcp_delivery delivery = zcp_delivery();
        zcp_status code = zcp_publisher_notify(publisher_, &delivery);
        return result<zcp_delivery>(code, delivery);
    }
private:
    zcp_publisher *publisher_;
};

// A message that was received: good until the subscriber receives the next one.
class message : public zcp_message {
public:
    message() noexcept : zcp_message() {}
    // What lies so many bytes behind the beginning, as a T; NULL: it does not fit into size, or is not aligned for T.
    template <class T = unsigned char> const T *data(uint64_t offset = 0) const noexcept {
        static_assert(std::is_trivially_destructible<T>::value && !std::is_polymorphic<T>::value
                      && !std::is_pointer<T>::value,
                      "zerocp: T cannot be shared between processes");
        const unsigned char *at = static_cast<const unsigned char *>(zcp_message::data);
        bool fits = at && offset <= size && size - offset >= sizeof(T);
        return fits && reinterpret_cast<uintptr_t>(at + offset) % alignof(T) == 0
            ? static_cast<const T *>(static_cast<const void *>(at + offset)) : nullptr;
    }
    template <class T = unsigned char> uint64_t count() const noexcept { return data<T>() ? size / sizeof(T) : 0; }
    const unsigned char *begin() const noexcept { return data(); }
    const unsigned char *end() const noexcept { return data() + count(); }
    bool is_event() const noexcept { return zcp_message::data == nullptr; }
};

// Receives what is published to a topic. for (const zerocp::message &m : subscriber) ... waits for each message, and
// ends when receive fails; then error() tells why.
class subscriber {
public:
    subscriber() noexcept : subscriber_(nullptr), error_() {}
    explicit subscriber(zcp_subscriber *adopted) noexcept : subscriber_(adopted), error_() {}
    subscriber(subscriber &&other) noexcept : subscriber_(other.detach()), error_(other.error_) {}
    subscriber &operator=(subscriber &&other) noexcept {
        subscriber moved(std::move(other));
        moved.swap(*this);
        return *this;
    }
    subscriber(const subscriber &) = delete;
    subscriber &operator=(const subscriber &) = delete;
    ~subscriber() { close(); }
    void close() noexcept { zcp_subscriber_close(detach()); }
    void swap(subscriber &other) noexcept {
        std::swap(subscriber_, other.subscriber_);
        std::swap(error_, other.error_);
    }
    friend void swap(subscriber &a, subscriber &b) noexcept { a.swap(b); }
    explicit operator bool() const noexcept { return subscriber_ != nullptr; }
    zcp_subscriber *get() const noexcept { return subscriber_; }
    ZCP_PRIV_NODISCARD zcp_subscriber *detach() noexcept {
        zcp_subscriber *was = subscriber_;
        subscriber_ = nullptr;
        return was;
    }

    result<message> receive(uint32_t timeout_ms = UINT32_MAX) noexcept {
        message received;
        zcp_status code = zcp_subscriber_receive(subscriber_, timeout_ms, &received);
        return result<message>(code, received);
    }
    void done() noexcept { zcp_subscriber_done(subscriber_); }
    result<shared_chunk> keep() noexcept {
        zcp_chunk chunk = zcp_chunk();
        zcp_status code = zcp_subscriber_keep(subscriber_, &chunk);
        return result<shared_chunk>(code, shared_chunk(chunk));
    }
    int descriptor() noexcept { return zcp_subscriber_descriptor(subscriber_); }

    class iterator {
    public:
        explicit iterator(subscriber *from) noexcept : from_(from), message_() { next(); }
        const message &operator*() const noexcept { return message_; }
        const message *operator->() const noexcept { return &message_; }
        iterator &operator++() noexcept { next(); return *this; }
        friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.from_ == b.from_; }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return !(a == b); }
    private:
        void next() noexcept {
            if (!from_) return;
            from_->error_ = zcp_subscriber_receive(from_->subscriber_, UINT32_MAX, &message_);
            if (!from_->error_.ok()) from_ = nullptr;
        }
        subscriber *from_;
        message     message_;
    };
    iterator begin() noexcept { return iterator(this); }
    iterator end() noexcept { return iterator(nullptr); }
    status error() const noexcept { return error_; }               // why the last loop ended
private:
    zcp_subscriber *subscriber_;
    status          error_;
};

inline result<publisher> manager::publish_to(const zcp_publisher_desc &desc) noexcept {
    zcp_publisher *opened = nullptr;
    zcp_status code = zcp_publisher_open(manager_, &desc, &opened);
    return result<publisher>(code, publisher(opened));
}

inline result<publisher> manager::publish_to(const char *topic, uint32_t depth) noexcept {
    zcp_publisher_desc desc = zcp_publisher_desc();
    desc.topic = topic;
    desc.depth = depth;
    return publish_to(desc);
}

inline result<subscriber> manager::subscribe_to(const zcp_subscriber_desc &desc) noexcept {
    zcp_subscriber *opened = nullptr;
    zcp_status code = zcp_subscriber_open(manager_, &desc, &opened);
    return result<subscriber>(code, subscriber(opened));
}

inline result<subscriber> manager::subscribe_to(const char *topic, bool reliable) noexcept {
    zcp_subscriber_desc desc = zcp_subscriber_desc();
    desc.topic = topic;
    desc.reliable = reliable;
    return subscribe_to(desc);
}

// Namespace zerocp.
}
#endif

// SPDX-License-Identifier: MIT; the text stands at the end of zerocp_relptr.h
