// tests/version_test.c: the change of versions. What each released layout version left behind (tests/recorded.h) is
// refused by this one with a message that names both, untouched, and makes way when it is told to; what this version
// left behind works. And no layout changes without its version.
#include "harness/inside.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct recorded_word {
    uint32_t at;
    uint64_t word;                                                 // in little-endian order
} recorded_word;

typedef struct recording {
    uint32_t version;
    const char *subject;                                           // for people
    size_t management_bytes, chunk_bytes;
    const recorded_word *words;                                    // those that are not 0
    size_t count;
} recording;

#define RECORDED(version, subject, management_bytes, chunk_bytes, ...)                                                 \
    {version, subject, management_bytes, chunk_bytes, (const recorded_word[]){__VA_ARGS__},                            \
     sizeof((const recorded_word[]){__VA_ARGS__}) / sizeof(recorded_word)},
static const recording recordings[] = {
#include "recorded.h"
};
#undef RECORDED
enum { RECORDINGS = sizeof recordings / sizeof recordings[0] };

// The signature of each layout version, of those to come, too: one line when ZCP_PRIV_LAYOUT_VERSION is raised, and
// never another figure in a line that was released.
static const uint64_t signatures[] = {
    [1] = UINT64_C(0xc7f072c557fa53c9),
    [2] = UINT64_C(0xa289ed2cf3d00fa7),
    [3] = UINT64_C(0x2bfbdd59537d80f3),
    [4] = UINT64_C(0xe458f7233257dd31),
    [5] = UINT64_C(0x4b8ba0b0e2441805),
    [6] = UINT64_C(0x127f21cab790ea6a),
};
enum { SIGNATURES = sizeof signatures / sizeof signatures[0] };

// The words of the header that are the same in every layout version, and their bytes; see its byte map in zerocp.h.
enum { MAGIC_AT = 0, BYTE_ORDER_AT = 8, LOCKER_AT = 12, STATE_AT = 16, VERSION_AT = 20, SIGNATURE_AT = 24,
       INSTANCE_AT = 32, FIXED_BYTES = 40 };
static const struct {
    size_t at, bytes;
} fixed[] = {{MAGIC_AT, 8},   {BYTE_ORDER_AT, 4}, {LOCKER_AT, 4},  {STATE_AT, 4},
             {VERSION_AT, 4}, {SIGNATURE_AT, 8},  {INSTANCE_AT, 8}};
enum { STATE_RETIRED = 2 };

// The recordings were made on little-endian machines.
static const bool foreign_order = __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__;

static const zcp_config recorded_pools = {
    .pools = {.size = 2, .items = {{.chunk_size = 64, .chunk_count = 8}, {.chunk_size = 1000, .chunk_count = 20}}}};

// ---------------------------------------------------------------------------------------------------------------------
// An instance made of a recording

typedef struct file {
    char path[300];
    // open from the beginning on, also when the name is gone
    int fd;
    struct stat status;
    size_t size;
    unsigned char *bytes;                                          // as they were written
} file;

typedef struct relic {
    file management, chunks;
} relic;

static void file_make(file *f, const char *suffix, size_t size) {
    snprintf(f->path, sizeof f->path, "/dev/shm/%s_memory_%s", test_instance(), suffix);
    f->fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK_MSG(f->fd >= 0 && ftruncate(f->fd, (off_t)size) == 0, "%s: %s", f->path, strerror(errno));
    f->size = size;
    f->bytes = calloc(1, size + 1);
    CHECK(f->bytes != NULL);
}

static void file_fill(file *f) {
    CHECK_EQ(pwrite(f->fd, f->bytes, f->size, 0), (ssize_t)f->size);
    CHECK_EQ(fstat(f->fd, &f->status), 0);
}

static unsigned char *file_now(const file *f) {                    // its bytes; to be freed
    struct stat now;
    CHECK_EQ(fstat(f->fd, &now), 0);
    CHECK_EQ(now.st_size, f->size);
    unsigned char *bytes = malloc(f->size);
    CHECK(bytes != NULL && pread(f->fd, bytes, f->size, 0) == (ssize_t)f->size);
    return bytes;
}

static void check_untouched(const file *f) {
    struct stat now;
    CHECK_MSG(lstat(f->path, &now) == 0 && now.st_ino == f->status.st_ino, "%s is not the file that it was", f->path);
    CHECK(now.st_mode == f->status.st_mode);
    unsigned char *bytes = file_now(f);
    CHECK_MSG(memcmp(bytes, f->bytes, f->size) == 0, "%s was written to", f->path);
    free(bytes);
}

static bool is_gone(const file *f) {
    struct stat now;
    return lstat(f->path, &now) != 0 && errno == ENOENT;
}

static void file_forget(file *f) {
    close(f->fd);
    free(f->bytes);
}

static void put_word(unsigned char *at, uint64_t word) {           // little-endian, whatever this machine is
    for (int i = 0; i < 8; i++)
        at[i] = (unsigned char)(word >> 8 * i);
}

static relic relic_make(const recording *r) {
    relic made;
    file_make(&made.management, "management", r->management_bytes);
    file_make(&made.chunks, "chunk", r->chunk_bytes);
    for (size_t i = 0; i < r->count; i++) {
        CHECK(r->words[i].at % 8 == 0 && r->words[i].at + 8 <= r->management_bytes);
        put_word(made.management.bytes + r->words[i].at, r->words[i].word);
    }
    memset(made.chunks.bytes, 0xa5, r->chunk_bytes);
    file_fill(&made.chunks);
    file_fill(&made.management);
    return made;
}

static void relic_forget(relic *made) {
    file_forget(&made->management);
    file_forget(&made->chunks);
}

static void relic_remove(relic *made) {
    unlink(made->management.path);
    unlink(made->chunks.path);
    relic_forget(made);
}

static uint64_t word_of(const recording *r, uint32_t at) {
    for (size_t i = 0; i < r->count; i++)
        if (r->words[i].at == at)
            return r->words[i].word;
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// The layout changes with its version, and each version is recorded

TEST(version_signature_stands_for_one_version) {
    uint32_t version = inside_layout_version();
    unsigned long long signature = inside_signature();
    CHECK_MSG(version < SIGNATURES,
              "layout version %u is new: write [%u] = UINT64_C(0x%016llx) into version_test.c, and run make record",
              version, version, signature);
    CHECK_MSG(version + 1 == SIGNATURES, "the layout version is %u, and version_test.c knows %d", version,
              SIGNATURES - 1);
    CHECK_MSG(signatures[version] == signature,
              "the layout's signature was %016llx in version %u and is %016llx now: raise ZCP_PRIV_LAYOUT_VERSION",
              (unsigned long long)signatures[version], version, signature);
    for (uint32_t a = 1; a < SIGNATURES; a++)
        for (uint32_t b = 0; b < a; b++)
            CHECK(signatures[a] != signatures[b]);
}

// In their order, without a gap, and each is what it says.
TEST(version_each_is_recorded) {
    for (uint32_t version = 1; version < SIGNATURES; version++) {
        CHECK_MSG(version <= RECORDINGS, "layout version %u is not in tests/recorded.h: make record", version);
        const recording *r = &recordings[version - 1];
        CHECK_EQ(r->version, version);
        CHECK_EQ(word_of(r, MAGIC_AT), UINT64_C(0x3130504f52455a00));
        CHECK_EQ((uint32_t)word_of(r, BYTE_ORDER_AT), 0x01020304);
        CHECK_EQ(word_of(r, STATE_AT), (uint64_t)version << 32 | 1);       // and READY
        CHECK_EQ(word_of(r, SIGNATURE_AT), signatures[version]);
        CHECK(word_of(r, INSTANCE_AT) != 0);
    }
    CHECK_EQ(RECORDINGS, SIGNATURES - 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Refused, and left as it was

static zcp_status attempt(zcp_shm_mode mode, const zcp_config *config, uint32_t flags) {
    zcp_manager *manager;
    zcp_status status = zcp_manager_open(
        &manager, &(zcp_manager_desc){.name = test_instance(), .mode = mode, .config = config, .flags = flags});
    CHECK_EQ(manager != NULL, status == ZCP_OK);
    return status;
}

static void check_refused(zcp_shm_mode mode, const zcp_config *config, uint32_t flags, zcp_status expected,
                          const char *is, const char *wanted) {
    CHECK_STATUS(attempt(mode, config, flags), expected);
    CHECK_MSG(strstr(zcp_last_message(), is) != NULL && strstr(zcp_last_message(), wanted) != NULL,
              "\"%s\" is to say \"%s\" and \"%s\"", zcp_last_message(), is, wanted);
    CHECK(strstr(zcp_last_message(), test_instance()) != NULL);
}

static void check_refused_by_all(zcp_status expected, const char *is, const char *wanted) {
    static const uint32_t flags[] = {0, ZCP_READ_ONLY_DATA, ZCP_WAIT, ZCP_FALLBACK | ZCP_CHECKED};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        check_refused(ZCP_SHM_OPEN_EXISTING, NULL, flags[i], expected, is, wanted);
        check_refused(ZCP_SHM_OPEN_EXISTING, &recorded_pools, flags[i], expected, is, wanted);
        check_refused(ZCP_SHM_OPEN_OR_CREATE, NULL, flags[i], expected, is, wanted);
        check_refused(ZCP_SHM_OPEN_OR_CREATE, &recorded_pools, flags[i], expected, is, wanted);
    }
}

static void need_recorded_order(void) {
    if (foreign_order)
        test_skip("this machine has another byte order than those that the recordings were made on");
}

TEST(version_older_is_refused) {
    need_recorded_order();
    for (int i = 0; i < RECORDINGS && recordings[i].version < inside_layout_version(); i++) {
        relic made = relic_make(&recordings[i]);
        char is[64], wanted[64];
        snprintf(is, sizeof is, "has layout version %u,", recordings[i].version);
        snprintf(wanted, sizeof wanted, "uses version %u", inside_layout_version());
        check_refused_by_all(ZCP_ERR_VERSION, is, wanted);
        CHECK_STATUS(attempt(ZCP_SHM_CREATE_EXCLUSIVE, &recorded_pools, 0), ZCP_ERR_EXISTS);
        check_untouched(&made.management);
        check_untouched(&made.chunks);
        relic_remove(&made);
    }
}

// A machine of the other byte order writes each field the other way round. (Behind the fixed words not each field has
// 64 bits; but nobody reads on.) It is no instance to this machine: it is not even purged or destroyed.
TEST(version_of_the_other_byte_order_is_refused) {
    for (int i = 0; i < RECORDINGS; i++) {
        relic made = relic_make(&recordings[i]);
        unsigned char *bytes = made.management.bytes;
        for (size_t f = 0; f < sizeof fixed / sizeof fixed[0] && !foreign_order; f++)
            test_swap_bytes(bytes + fixed[f].at, fixed[f].bytes);
        for (size_t at = FIXED_BYTES; at < made.management.size && !foreign_order; at += 8)
            test_swap_bytes(bytes + at, 8);
        file_fill(&made.management);
        check_refused_by_all(ZCP_ERR_LAYOUT, "written by a machine of the other byte order", "");
        check_refused(ZCP_SHM_CREATE_EXCLUSIVE, &recorded_pools, 0, ZCP_ERR_LAYOUT, "other byte order", "");
        check_refused(ZCP_SHM_PURGE_AND_CREATE, &recorded_pools, 0, ZCP_ERR_LAYOUT, "other byte order", "");
        CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_LAYOUT);
        check_untouched(&made.management);
        check_untouched(&made.chunks);
        CHECK_OK(zcp_shm_unlink(strrchr(made.management.path, '/') + 1));
        CHECK_OK(zcp_shm_unlink(strrchr(made.chunks.path, '/') + 1));
        relic_forget(&made);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Making way: the names go, and who still has it mapped sees RETIRED and keeps all else

static void check_retired(const relic *made) {
    uint32_t state;
    unsigned char *now = file_now(&made->management);
    memcpy(&state, now + STATE_AT, sizeof state);
    CHECK_EQ(state, STATE_RETIRED);
    memcpy(now + STATE_AT, made->management.bytes + STATE_AT, sizeof state);
    memcpy(now + LOCKER_AT, made->management.bytes + LOCKER_AT, sizeof state);
    CHECK_MSG(memcmp(now, made->management.bytes, made->management.size) == 0,
              "more was written to than the state and the locker");
    free(now);
    now = file_now(&made->chunks);
    CHECK_MSG(memcmp(now, made->chunks.bytes, made->chunks.size) == 0, "the payloads were written to");
    free(now);
}

TEST(version_each_is_destroyed) {
    need_recorded_order();
    for (int i = 0; i < RECORDINGS; i++) {
        relic made = relic_make(&recordings[i]);
        CHECK_OK(zcp_manager_destroy(test_instance()));
        CHECK(is_gone(&made.management) && is_gone(&made.chunks));
        check_retired(&made);
        CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_NOT_FOUND);
        relic_forget(&made);
    }
}

TEST(version_each_is_purged) {
    need_recorded_order();
    for (int i = 0; i < RECORDINGS; i++) {
        zcp_manager *manager;
        relic made = relic_make(&recordings[i]);
        CHECK_OK(zcp_manager_open(
            &manager,
            &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_PURGE_AND_CREATE, .config = &recorded_pools}));
        check_retired(&made);
        CHECK_OK(zcp_manager_check(manager));
        zcp_manager_close(manager);
        books_check(test_instance(), 0);
        CHECK_OK(zcp_manager_destroy(test_instance()));
        relic_forget(&made);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The present version reads what it wrote. This also finds a change of what the figures mean, which the signature does
// not see.

TEST(version_present_recording_works) {
    need_recorded_order();
    for (int i = 0; i < RECORDINGS; i++) {
        zcp_manager *manager;
        zcp_client_info dead;
        if (recordings[i].version != inside_layout_version())
            continue;
        relic made = relic_make(&recordings[i]);
        inside_name_chunk_file(made.management.bytes, (uint64_t)made.chunks.status.st_dev,
                               (uint64_t)made.chunks.status.st_ino);
        file locks;
        file_make(&locks, "locks", 0);
        file_fill(&locks);
        inside_name_lock_file(made.management.bytes, (uint64_t)locks.status.st_dev, (uint64_t)locks.status.st_ino);
        file_forget(&locks);
        file_fill(&made.management);
        CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                                .mode = ZCP_SHM_OPEN_EXISTING,
                                                                .config = &recorded_pools,
                                                                .max_clients = 3,
                                                                .client_name = "heir"}));
        CHECK_OK(zcp_manager_client_info(manager, 0, &dead));
        // the killed client's slot was the first, and it was swept on the way
        CHECK_EQ(dead.state, ZCP_CLIENT_FREE);
        for (uint32_t pool = 0; pool < 2; pool++) {
            zcp_pool_stats stats;
            CHECK_OK(zcp_manager_pool_stats(manager, pool, &stats));
            CHECK_EQ(stats.chunk_size, recorded_pools.pools.items[pool].chunk_size);
            CHECK_EQ(stats.total, recorded_pools.pools.items[pool].chunk_count);
            CHECK_EQ(stats.used, 0);
        }
        zcp_manager_close(manager);
        books_check(test_instance(), 0);
        CHECK_OK(zcp_manager_destroy(test_instance()));
        relic_forget(&made);
    }
}
