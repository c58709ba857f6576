// inspect_look.h: how the tool looks at an instance. Snapshots come from the public functions; which kind of file
// stands behind a name, also one that cannot be attached to, and whether records, hints and files agree, takes what
// zerocp.h has inside. Everything here is done with files opened for reading and with the observer's read-only mapping.
#ifndef INSPECT_LOOK_H
#define INSPECT_LOOK_H

#include "zerocp.h"

#include "inspect_report.h"

// ---------------------------------------------------------------------------------------------------------------------
// Snapshots

typedef struct client_table {
    zcp_client_stats items[ZCP_MAX_CLIENTS];
    bool drains[ZCP_MAX_CLIENTS];                                  // it has ended, and messages of its are unread
    uint32_t count, alive, dead, draining;                         // dead: without those that drain
} client_table;

// An instance at one moment.
typedef struct snapshot {
    zcp_manager_info info;
    uint64_t wall_ns, ns;                                          // since 1970; monotonic
    uint32_t pool_count;
    zcp_pool_stats pools[ZCP_MAX_LIVE_POOLS];
    uint64_t bytes, used_bytes;                                    // of chunks
    client_table clients;
} snapshot;

static zcp_status take_clients(const zcp_manager *manager, uint32_t slots, client_table *clients) {
    zcp_status status = ZCP_OK;
    *clients = (client_table){.count = slots};
    for (uint32_t slot = 0; slot < slots && status == ZCP_OK; slot++) {
        status = zcp_manager_client_stats(manager, slot, &clients->items[slot]);
        bool dead = clients->items[slot].state == ZCP_CLIENT_DEAD;
        clients->drains[slot] =
            dead && zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, slot)->state) == ZCP_PRIV_SLOT_DRAINING;
        clients->alive += clients->items[slot].state == ZCP_CLIENT_ALIVE;
        clients->dead += dead && !clients->drains[slot];
        clients->draining += clients->drains[slot];
    }
    return status;
}

static zcp_status take_snapshot(const zcp_manager *manager, snapshot *s) {
    zcp_status status = zcp_manager_get_info(manager, &s->info);
    s->wall_ns = wall_clock_ns();
    s->ns = zcp_priv_now_ns();
    s->pool_count = zcp_manager_pool_end(manager);
    s->bytes = s->used_bytes = 0;
    for (uint32_t p = 0; p < s->pool_count && status == ZCP_OK; p++) {
        status = zcp_manager_pool_stats(manager, p, &s->pools[p]);
        s->bytes += s->pools[p].total * s->pools[p].stride;
        s->used_bytes += s->pools[p].used * s->pools[p].stride;
    }
    return status == ZCP_OK ? take_clients(manager, s->info.max_clients, &s->clients) : status;
}

// ---------------------------------------------------------------------------------------------------------------------
// Files

typedef enum file_state {
    FILE_ABSENT, FILE_READY, FILE_CREATING, FILE_HALF_MADE, FILE_RETIRED, FILE_OTHER_VERSION, FILE_OTHER_LAYOUT,
    FILE_FOREIGN, FILE_CORRUPT,
    FILE_UNREADABLE, FILE_NO_MANAGEMENT, FILE_NO_CHUNKS, FILE_NO_LOCKS, FILE_LOCKS_ONLY
} file_state;

static const struct { const char *name, *meaning; } file_states[] = {
    [FILE_ABSENT] = {"absent", "there is no file of that name"},
    [FILE_READY] = {"ready", ""},
    [FILE_CREATING] = {"being created", "its creator is at work"},
    [FILE_HALF_MADE] = {"half-made", "its creator was killed; whoever creates it next finishes it"},
    [FILE_RETIRED] = {"destroyed", "whoever destroyed it was killed before its names were removed"},
    [FILE_OTHER_VERSION] = {"other version", "made by a zerocp of another layout version"},
    [FILE_OTHER_LAYOUT] = {"other layout", "made by a zerocp with other limits, or on another kind of machine"},
    [FILE_FOREIGN] = {"foreign", "not made by zerocp"},
    [FILE_CORRUPT] = {"corrupt", "its header holds what zerocp never writes"},
    [FILE_UNREADABLE] = {"unreadable", ""},
    [FILE_NO_MANAGEMENT] = {"chunks only", "a chunk segment without its management segment"},
    [FILE_NO_CHUNKS] = {"no chunks", "its chunk segment was removed or replaced by hand: nobody can attach any more"},
    [FILE_NO_LOCKS] = {"no locks", "its lock object was removed or replaced by hand: nobody can attach any more"},
    [FILE_LOCKS_ONLY] = {"lock only", "a lock object without its segments: whoever made or removed them was killed"},
};

typedef struct file_look {
    file_state state;
    char detail[384];                                              // besides the meaning of the state
    bool has_management, has_chunks, has_locks;
    struct stat management, chunks, locks;
    uint32_t locker_pid, layout_version;
    uint32_t alive;                                                // client slots that somebody has locked
} file_look;

// What they take of the machine's memory.
static uint64_t memory_of(const file_look *look) {
    return ((uint64_t)look->management.st_blocks + (uint64_t)look->chunks.st_blocks) * 512;
}

// How many bytes of a range somebody has locked for writing: each client has one. Who may only read cannot. Who has
// more of them is no client: it is replacing the instance, and keeps everybody out meanwhile.
static uint32_t locked_bytes(int fd, off_t first, off_t count) {
    struct flock range = zcp_priv_lock_of(first);
    range.l_type = F_RDLCK;
    range.l_len = count;
    if (fd < 0 || count <= 0 || fcntl(fd, ZCP_PRIV_OFD_GETLK, &range) != 0)
        return 0;
    if (range.l_type == F_UNLCK || range.l_len != 1)
        return 0;
    off_t begin = range.l_start, end = begin + 1;
    return locked_bytes(fd, first, begin - first) + 1 + locked_bytes(fd, end, first + count - end);
}

static bool is_chunk_segment_of(const zcp_priv_header *header, const file_look *look) {
    return look->has_chunks && (uint64_t)look->chunks.st_dev == header->chunk_device
           && (uint64_t)look->chunks.st_ino == header->chunk_inode;
}

static bool is_lock_object_of(const zcp_priv_header *header, const file_look *look) {
    return look->has_locks && (uint64_t)look->locks.st_dev == header->lock_device &&
           (uint64_t)look->locks.st_ino == header->lock_inode;
}

static file_state header_state(bool creating, const zcp_priv_header *header, ssize_t bytes, file_look *look) {
    uint32_t state = zcp_priv_load_relaxed(&header->state);        // of a private copy
    if (bytes == 0 || (bytes >= 16 && header->magic == ZCP_PRIV_MAGIC && state == ZCP_PRIV_BUILDING))
        return creating ? FILE_CREATING : FILE_HALF_MADE;
    if (bytes < 16 || header->magic != ZCP_PRIV_MAGIC)
        return FILE_FOREIGN;
    if (state == ZCP_PRIV_RETIRED)
        return FILE_RETIRED;
    if (header->byte_order == ZCP_PRIV_BYTE_ORDER && header->layout_version != ZCP_PRIV_LAYOUT_VERSION) {
        snprintf(look->detail, sizeof look->detail, "layout version %u, this tool has %u", header->layout_version,
                 ZCP_PRIV_LAYOUT_VERSION);
        return FILE_OTHER_VERSION;
    }
    if (header->byte_order != ZCP_PRIV_BYTE_ORDER || header->signature != zcp_priv_signature())
        return FILE_OTHER_LAYOUT;
    if (!is_chunk_segment_of(header, look))
        return FILE_NO_CHUNKS;
    return is_lock_object_of(header, look) ? FILE_READY : FILE_NO_LOCKS;
}

// What stands behind the management segment's path. -1: nothing can be read.
static int management_open(const char *path, file_look *look) {
    int fd = shm_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    look->has_management = fd >= 0 || errno != ENOENT;
    look->state = look->has_management ? FILE_UNREADABLE : FILE_ABSENT;
    if (fd < 0 && look->has_management)
        snprintf(look->detail, sizeof look->detail, "%s", strerror(errno));
    if (fd >= 0 && (fstat(fd, &look->management) != 0 || !S_ISREG(look->management.st_mode))) {
        look->state = FILE_FOREIGN;
        snprintf(look->detail, sizeof look->detail, "it is no regular file");
        close(fd);
        fd = -1;
    }
    return fd;
}

// Looks at the files of an instance without attaching to it, whatever they are. The lock object may be closed to the
// caller: then only at what it is.
static file_look look_at_files(const char *name) {
    file_look look = {.state = FILE_ABSENT};
    zcp_priv_path path;
    zcp_priv_header header;
    int locks = -1;
    if (zcp_priv_path_make(&path, name, ZCP_PRIV_CHUNK_SUFFIX) == ZCP_OK) {
        int fd = shm_open(path.text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
        look.has_chunks = fd >= 0 || errno != ENOENT;
        if (fd >= 0) {
            (void)fstat(fd, &look.chunks);
            close(fd);
        }
    }
    if (zcp_priv_path_make(&path, name, ZCP_PRIV_LOCKS_SUFFIX) == ZCP_OK) {
        char file[sizeof "/dev/shm" + sizeof path.text];
        snprintf(file, sizeof file, "/dev/shm%s", path.text);
        look.has_locks = lstat(file, &look.locks) == 0;
        locks = shm_open(path.text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    }
    if (zcp_priv_path_make(&path, name, ZCP_PRIV_MANAGEMENT_SUFFIX) != ZCP_OK) {
        look.state = FILE_FOREIGN;
        snprintf(look.detail, sizeof look.detail, "no instance can have such a name");
        return look;
    }
    int fd = management_open(path.text, &look);
    bool creating = locked_bytes(fd, ZCP_PRIV_LOCK_CREATION, 1) || locked_bytes(locks, ZCP_PRIV_LOCK_CREATION, 1);
    uint32_t alive = locked_bytes(locks, ZCP_PRIV_LOCK_SLOTS, ZCP_MAX_CLIENTS);
    if (locks >= 0)
        close(locks);
    if (look.state == FILE_ABSENT && (look.has_chunks || look.has_locks))
        look.state = look.has_chunks ? FILE_NO_MANAGEMENT : FILE_LOCKS_ONLY;
    if (fd < 0)
        return look;
    memset((void *)&header, 0, sizeof header);
    ssize_t bytes = pread(fd, (void *)&header, sizeof header, 0);
    look.state = bytes < 0 ? FILE_UNREADABLE : header_state(creating, &header, bytes, &look);
    look.locker_pid = zcp_priv_load_relaxed(&header.locker_pid);
    look.layout_version = header.layout_version;
    if (look.state != FILE_FOREIGN)
        look.alive = locked_bytes(fd, ZCP_PRIV_LOCK_SLOTS, ZCP_MAX_CLIENTS);
    if (look.state == FILE_READY && alive > look.alive)
        look.alive = alive;                                        // a reader keeps some from the other locks
    close(fd);
    return look;
}

// ---------------------------------------------------------------------------------------------------------------------
// Findings

typedef enum finding_level { FINDING_ERROR, FINDING_WARNING, FINDING_NOTE, FINDING_LEVELS } finding_level;

static const char *const finding_levels[] = {"error", "warning", "note"};

typedef struct finding {
    finding_level level;
    char where[40], what[640];
} finding;

typedef struct findings {
    finding *items;
    size_t count, room;
    uint32_t levels[FINDING_LEVELS];
} findings;

__attribute__((format(printf, 4, 5))) static void find(findings *f, finding_level level, const char *where,
                                                       const char *format, ...) {
    va_list arguments;
    if (f->count == f->room) {
        f->room = f->room ? 2 * f->room : 16;
        finding *more = realloc(f->items, f->room * sizeof *more);
        if (more == NULL)
            report_out_of_memory();
        f->items = more;
    }
    finding *at = &f->items[f->count++];
    f->levels[at->level = level]++;
    snprintf(at->where, sizeof at->where, "%s", where);
    va_start(arguments, format);
    vsnprintf(at->what, sizeof at->what, format, arguments);
    va_end(arguments);
}

// ---------------------------------------------------------------------------------------------------------------------
// Chunks. A live instance changes while it is looked at, so a suspicion counts only if three looks at one chunk, some
// time apart, find it in the same state. Who is stopped in the middle of a call can still look like one that was
// killed.

typedef enum chunk_fault {
    FAULT_NONE, FAULT_GENERATION, FAULT_OWNER, FAULT_BORROWER, FAULT_SIZE, FAULT_CACHED, FAULT_LOST, FAULT_MARKED,
    FAULT_NO_HINT, CHUNK_FAULTS
} chunk_fault;

static const struct { finding_level level; const char *what;
} chunk_faults[] = {
    [FAULT_GENERATION] = {FINDING_ERROR, "generation 0, which no chunk has: its record was overwritten, and it will "
                                         "never be allocated"},
    [FAULT_OWNER] = {FINDING_ERROR, "its owner is a client number that there is not: its record was overwritten"},
    [FAULT_BORROWER] = {FINDING_ERROR, "a borrower is a client number that there is not: its record was overwritten"},
    [FAULT_SIZE] = {FINDING_ERROR, "more bytes were asked for than it has, or by nobody: its record was overwritten"},
    [FAULT_CACHED] = {FINDING_ERROR, "cached, in a pool without caches: its record was overwritten"},
    [FAULT_LOST] = {FINDING_ERROR, "held by nobody: nothing will ever give it back"},
    [FAULT_MARKED] = {FINDING_ERROR, "marked as borrowed by a client that is gone and was swept"},
    [FAULT_NO_HINT] = {FINDING_NOTE, "free, without a hint that it is: found only when all else is in use"},
};

enum { CHECK_LOOKS = 3, CHECK_PAUSE_MS = 20, CHECK_SUSPECTS = 1 << 16 };

typedef struct suspect {
    uint32_t pool, index;
    chunk_fault fault;
    uint64_t state;
} suspect;

// The hints of a leaf, in the list or on loan.
static uint64_t hints_of_leaf(const zcp_priv_pool *pool, uint32_t leaf) {
    uint64_t hints = zcp_priv_load_acquire(zcp_priv_list_leaf(&pool->list, leaf));
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++)
        if (zcp_priv_load_acquire(&pool->leases->items[k].leaf) == leaf)
            hints |= zcp_priv_load_acquire(&pool->leases->items[k].loan);
    // again: it may have come back from a loan
    return hints | zcp_priv_load_acquire(zcp_priv_list_leaf(&pool->list, leaf));
}

// Which borrowers a chunk has: of none, of living or dead clients (whose sweep is yet to come), and of slots that
// nobody has.
typedef struct borrowers { bool held, stray, impossible; } borrowers;

static borrowers borrowers_of(const zcp_priv_pool *pool, zcp_priv_record *record, const client_table *clients) {
    borrowers b = {false, false, false};
    for (uint32_t w = 0; w < pool->words; w++)
        for (uint64_t bits = zcp_priv_load_acquire(&record->borrow[0] + w); bits != 0; bits &= bits - 1) {
            uint32_t slot = w * 64 + zcp_priv_lowest_bit(bits);
            bool known = slot < clients->count, there = known && clients->items[slot].state != ZCP_CLIENT_FREE;
            b.impossible |= !known;
            b.stray |= known && !there;
            b.held |= there;
        }
    return b;
}

static bool has_hint(const zcp_priv_pool *pool, uint32_t i, uint64_t hints) {
    return hints >> (i & ((1u << pool->list.leaf_shift) - 1)) & 1;
}

static chunk_fault judge_record(const zcp_priv_pool *pool, uint32_t i, uint64_t hints, const client_table *clients,
                                uint64_t *state) {
    zcp_priv_record *record = zcp_priv_record_at(pool, i);
    uint64_t s = *state = zcp_priv_load_acquire(&record->state), size = zcp_priv_load_relaxed(&record->size);
    uint32_t owner = ZCP_PRIV_OWNER(s);
    borrowers b = borrowers_of(pool, record, clients);
    if (ZCP_PRIV_GENERATION(s) == 0)
        return FAULT_GENERATION;
    if (b.impossible)
        return FAULT_BORROWER;
    if (zcp_priv_is_free(s))
        return b.stray ? FAULT_MARKED : has_hint(pool, i, hints) ? FAULT_NONE : FAULT_NO_HINT;
    if (zcp_priv_is_retired(s) && zcp_priv_pool_is_retiring(pool))
        return FAULT_NONE;
    if (owner > clients->count)
        return FAULT_OWNER;
    if (zcp_priv_is_cached(s) && pool->cache_chunks == 0)
        return FAULT_CACHED;
    if (!zcp_priv_is_cached(s)
        && (ZCP_PRIV_SIZE(size) > pool->chunk_size || size >> 48 > zcp_priv_lease_count(pool->list.leaves)))
        return FAULT_SIZE;
    bool owned = owner != 0 && clients->items[owner - 1].state != ZCP_CLIENT_FREE;
    if (!owned && (owner != 0 || !b.held))
        return FAULT_LOST;
    return b.stray ? FAULT_MARKED : FAULT_NONE;
}

// NULL: there is none of that number (any more).
static const zcp_priv_pool *pool_inside(const zcp_manager *manager, uint32_t pool) {
    return zcp_priv_view_pool(&manager->view, pool);
}

// The first look, at all chunks. Returns how many are suspect; at most CHECK_SUSPECTS are noted.
static size_t first_look(const zcp_manager *manager, const snapshot *s, suspect *suspects) {
    size_t count = 0;
    for (uint32_t p = 0; p < s->pool_count; p++) {
        const zcp_priv_pool *pool = pool_inside(manager, p);
        uint64_t hints = 0, state;
        for (uint32_t i = 0; pool != NULL && i < pool->count; i++) {
            if ((i & ((1u << pool->list.leaf_shift) - 1)) == 0)
                hints = hints_of_leaf(pool, i >> pool->list.leaf_shift);
            chunk_fault fault = judge_record(pool, i, hints, &s->clients, &state);
            if (fault != FAULT_NONE && count < CHECK_SUSPECTS)
                suspects[count++] = (suspect){p, i, fault, state};
        }
    }
    return count;
}

// A later look, at those: keeps the ones that are as they were.
static size_t next_look(const zcp_manager *manager, const snapshot *s, suspect *suspects, size_t count) {
    size_t kept = 0;
    for (size_t k = 0; k < count; k++) {
        const zcp_priv_pool *pool = pool_inside(manager, suspects[k].pool);
        uint32_t i = suspects[k].index;
        uint64_t state;
        if (pool != NULL && i < pool->count
            && judge_record(pool, i, hints_of_leaf(pool, i >> pool->list.leaf_shift), &s->clients, &state)
                   == suspects[k].fault
            && state == suspects[k].state)
            suspects[kept++] = suspects[k];
    }
    return kept;
}

// One finding per pool and fault, which names the first few chunks.
static void find_faults(const suspect *suspects, size_t count, findings *f) {
    for (uint32_t p = 0; p < ZCP_MAX_LIVE_POOLS; p++)
        for (chunk_fault fault = FAULT_NONE; fault < CHUNK_FAULTS; fault++) {
            char where[40], which[64] = "";
            uint32_t found = 0;
            for (size_t k = 0; k < count; k++) {
                size_t length = strlen(which);
                if (suspects[k].pool == p && suspects[k].fault == fault && found++ < 4)
                    snprintf(which + length, sizeof which - length, "%s%u", length ? ", " : "", suspects[k].index);
            }
            snprintf(where, sizeof where, "pool %u", p);
            if (found > 0)
                find(f, chunk_faults[fault].level, where, "%u %s (%s%s): %s", found, found == 1 ? "chunk" : "chunks",
                     which, found > 4 ? ", ..." : "", chunk_faults[fault].what);
        }
}

static void check_chunks(const zcp_manager *manager, snapshot *s, findings *f) {
    suspect *suspects = calloc(CHECK_SUSPECTS, sizeof *suspects);
    if (suspects == NULL)
        report_out_of_memory();
    size_t count = first_look(manager, s, suspects);
    for (int look = 1; look < CHECK_LOOKS && count > 0; look++) {
        zcp_priv_sleep_us(CHECK_PAUSE_MS * 1000);
        if (take_clients(manager, s->info.max_clients, &s->clients) == ZCP_OK)
            count = next_look(manager, s, suspects, count);
    }
    find_faults(suspects, count, f);
    free(suspects);
}

// ---------------------------------------------------------------------------------------------------------------------
// Lists, leases, slots, files

static void check_list(const zcp_priv_pool *pool, const char *where, findings *f) {
    zcp_priv_list_header *header = pool->list.memory;
    uint64_t strays = 0;
    if (zcp_priv_load_acquire(&header->magic) != ZCP_PRIV_LIST_MAGIC ||
        zcp_priv_load_relaxed(&header->capacity) != pool->count || header->leaf_shift != pool->list.leaf_shift ||
        header->leaves != pool->list.leaves)
        find(f, FINDING_ERROR, where, "the head of its free list was overwritten");
    for (uint32_t leaf = 0; leaf < pool->list.leaves; leaf++)
        strays += zcp_priv_count_bits(zcp_priv_load_acquire(zcp_priv_list_leaf(&pool->list, leaf))
                                      & ~zcp_priv_leaf_mask(&pool->list, leaf));
    if (strays > 0)
        find(f, FINDING_WARNING, where,
             "its free list has %" PRIu64
             " hint%s of chunks that do not exist: it was overwritten; they are dropped when met",
             strays, plural(strays));
}

// How many leases hold what no lease can; how many are of slots that nobody has.
static void count_leases(const zcp_priv_pool *pool, const client_table *clients, uint32_t *garbage, uint32_t *stray) {
    *garbage = *stray = 0;
    for (uint32_t k = 0; k < zcp_priv_lease_count(pool->list.leaves); k++) {
        zcp_priv_lease *lease = &pool->leases->items[k];
        uint32_t holder = zcp_priv_load_acquire(&lease->holder);
        bool possible = holder <= clients->count && zcp_priv_load_acquire(&lease->leaf) < pool->list.leaves;
        *garbage += !possible;
        *stray += possible && holder != 0 && clients->items[holder - 1].state == ZCP_CLIENT_FREE;
    }
}

static void check_leases(const zcp_manager *manager, const zcp_priv_pool *pool, const char *where,
                         client_table *clients, findings *f) {
    uint32_t garbage, stray;
    count_leases(pool, clients, &garbage, &stray);
    for (int look = 1; look < CHECK_LOOKS && stray > 0; look++) {  // somebody may just have come
        zcp_priv_sleep_us(CHECK_PAUSE_MS * 1000);
        if (take_clients(manager, clients->count, clients) == ZCP_OK)
            count_leases(pool, clients, &garbage, &stray);
    }
    if (garbage > 0)
        find(f, FINDING_ERROR, where, "%u lease%s overwritten", garbage, garbage == 1 ? " was" : "s were");
    if (stray > 0)
        find(f, FINDING_WARNING, where, "%u lease%s of clients that are gone: nobody else can have them", stray,
             plural(stray));
}

static void check_clients(const zcp_manager *manager, const char *name, const client_table *clients, findings *f) {
    for (uint32_t slot = 0; slot < clients->count; slot++) {
        const zcp_client_stats *c = &clients->items[slot];
        char where[40];
        snprintf(where, sizeof where, "client %u", slot);
        if (zcp_priv_load_relaxed(&zcp_priv_slot_at(manager, slot)->state) > ZCP_PRIV_SLOT_DRAINING)
            find(f, FINDING_ERROR, where, "the state of its slot is none that zerocp writes: it was overwritten");
        if (c->state != ZCP_CLIENT_DEAD || clients->drains[slot])
            continue;
        if (c->owned + c->borrowed + c->cached == 0)
            find(f, FINDING_NOTE, where, "\"%s\" (pid %u) is dead, and holds no chunk: it needs no care",
                 c->name, c->pid);
        else
            find(f, FINDING_WARNING, where,
                 "\"%s\" (pid %u) is dead and not swept yet: %" PRIu64 " chunks owned, %" PRIu64 " borrowed, %" PRIu64
                 " cached; the next who opens the instance sweeps it, or: zerocp recover %s",
                 c->name, c->pid, c->owned, c->borrowed, c->cached, name);
    }
}

static void check_files(const file_look *look, findings *f) {
    if (look->state == FILE_NO_CHUNKS || look->state == FILE_NO_LOCKS)
        find(f, FINDING_ERROR, "files", "%s", file_states[look->state].meaning);
    if (look->has_management && (look->management.st_mode & S_IWOTH))
        find(f, FINDING_WARNING, "files", "every user may write the management segment (mode %04o), and truncate it",
             (unsigned)look->management.st_mode & 07777);
    if (look->has_management && look->has_chunks && look->management.st_uid != look->chunks.st_uid)
        find(f, FINDING_WARNING, "files", "the segments belong to different users, %u and %u",
             (unsigned)look->management.st_uid, (unsigned)look->chunks.st_uid);
}

// Everything that can be seen from outside.
static void check_instance(const zcp_manager *manager, const file_look *look, snapshot *s, findings *f) {
    check_files(look, f);
    if (zcp_priv_catch_up_if_changed(manager) != ZCP_OK)
        find(f, FINDING_ERROR, "pools", "%s", zcp_last_message());
    check_chunks(manager, s, f);                                   // takes its time, and the clients anew
    check_clients(manager, s->info.name, &s->clients, f);
    for (uint32_t p = 0; p < s->pool_count; p++) {
        const zcp_priv_pool *pool = pool_inside(manager, p);
        char where[40];
        snprintf(where, sizeof where, "pool %u", p);
        if (pool == NULL)
            continue;
        check_list(pool, where, f);
        check_leases(manager, pool, where, &s->clients, f);
        if (s->pools[p].failures > 0)
            find(f, FINDING_NOTE, where, "%" PRIu64 " call%s found all of its chunks in use; see zerocp suggest",
                 s->pools[p].failures, plural(s->pools[p].failures));
    }
}

#endif
