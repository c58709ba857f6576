// tests/shm_test.c: shared-memory segments.
#include "zerocp_shm.h"
#include "harness/filter.h"
#include "harness/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STRANGER = 54321, STRANGERS_GROUP = 54322 };                // a user and a group that nobody is

// ---------------------------------------------------------------------------------------------------------------------
// What lies in /dev/shm

static const char *path_of(const char *name) {
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "/dev/shm/%s", name);
    return path;
}

static bool there(const char *name, struct stat *status) {
    if (lstat(path_of(name), status) == 0)
        return true;
    CHECK_EQ(errno, ENOENT);
    return false;
}

static void check_gone(const char *name) {
    struct stat status;
    CHECK_MSG(!there(name, &status), "%s is there", name);
}

static void make_file(const char *name, size_t bytes, mode_t mode) {
    int file = open(path_of(name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK_MSG(file >= 0, "%s: %s", path_of(name), strerror(errno));
    for (size_t i = 0; i < bytes; i++)
        CHECK(write(file, "x", 1) == 1);
    CHECK(fchmod(file, mode) == 0);
    close(file);
}

static bool all_bytes_are(const zcp_shm *shm, char value) {
    const char *bytes = shm->base;
    for (uint64_t i = 0; i < shm->bytes; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

static void check_zero(const zcp_shm *shm) {
    static const zcp_shm zero;
    CHECK(memcmp(shm, &zero, sizeof zero) == 0);
}

enum { SOME_ERROR = -1 };                                          // where libcs differ

// A call that has to fail: the status, an empty *shm, a message, and the system's errno (0: not the system's fault).
#define CHECK_REFUSED(desc, status, error) check_refused(__FILE__, __LINE__, &(desc), (status), (error))

static void check_refused(const char *file, int line, const zcp_shm_desc *desc, zcp_status status, int error) {
    zcp_shm shm;
    memset(&shm, 0x5a, sizeof shm);
    test_check_status(file, line, "zcp_shm_open", zcp_shm_open(&shm, desc), status);
    bool as_expected = error == SOME_ERROR ? zcp_last_errno() != 0 : zcp_last_errno() == error;
    if (!as_expected || zcp_last_message()[0] == 0)
        test_fail(file, line, "errno %d, expected %d; message \"%s\"", zcp_last_errno(), error, zcp_last_message());
    check_zero(&shm);
}

static int open_descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

// The calling child becomes a user who owns nothing.
static void become_stranger(void) {
    CHECK(setgroups(0, NULL) == 0);
    CHECK(setresgid(STRANGERS_GROUP, STRANGERS_GROUP, STRANGERS_GROUP) == 0);
    CHECK(setresuid(STRANGER, STRANGER, STRANGER) == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Each mode against whatever may stand at the name

typedef enum { ABSENT, PRESENT, FOREIGN, SMALL, HALF_MADE, DIRECTORY, FIFO, DANGLING, LINK, SOCKET, KINDS } kind;
static const char *const kind_names[] = {"absent",    "present", "foreign",  "small", "half-made",
                                         "directory", "FIFO",    "dangling", "link",  "socket"};
enum { BYTES = 8192 };

static void put_socket(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int here = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);                    // the path is too long for one
    int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(here >= 0 && file >= 0);
    CHECK(strlen(name) < sizeof address.sun_path);
    memcpy(address.sun_path, name, strlen(name) + 1);
    int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(before >= 0 && fchdir(here) == 0);
    CHECK(bind(file, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(fchdir(before) == 0);
    close(before);
    close(file);
    close(here);
}

static void put(kind what, const char *name, const char *other) {
    switch (what) {
    case PRESENT: make_file(name, BYTES, 0640); break;
    case FOREIGN:
        make_file(name, BYTES, 0666);
        CHECK(chown(path_of(name), STRANGER, STRANGERS_GROUP) == 0);
        break;
    case SMALL: make_file(name, 100, 0600); break;
    case HALF_MADE: make_file(name, 0, 0644); break;
    case DIRECTORY: CHECK(mkdir(path_of(name), 0700) == 0); break;
    case FIFO: CHECK(mkfifo(path_of(name), 0600) == 0); break;
    case DANGLING: CHECK(symlink(path_of(other), path_of(name)) == 0); break;
    case LINK:
        make_file(other, BYTES, 0600);
        CHECK(symlink(path_of(other), path_of(name)) == 0);
        break;
    case SOCKET: put_socket(name); break;
    case ABSENT: case KINDS: break;
    }
}

static const struct {
    zcp_status status;
    int error;
} expected[KINDS][4] = {                                           // by kind and mode, in the order of zcp_shm_mode
    [ABSENT] = {{ZCP_OK, 0}, {ZCP_ERR_NOT_FOUND, ENOENT}, {ZCP_OK, 0}, {ZCP_OK, 0}},
    [PRESENT] = {{ZCP_OK, 0}, {ZCP_OK, 0}, {ZCP_ERR_EXISTS, EEXIST}, {ZCP_OK, 0}},
    [SMALL] = {{ZCP_ERR_INVALID_SIZE, 0}, {ZCP_ERR_INVALID_SIZE, 0}, {ZCP_ERR_EXISTS, EEXIST}, {ZCP_OK, 0}},
    [HALF_MADE] = {{ZCP_OK, 0}, {ZCP_ERR_NOT_FOUND, 0}, {ZCP_OK, 0}, {ZCP_OK, 0}},
#define ALL_MODES(status, error) {{status, error}, {status, error}, {status, error}, {status, error}}
    // Root is the caller, who removes anybody's.
    [FOREIGN] = {{ZCP_ERR_WRONG_OWNER, 0}, {ZCP_ERR_WRONG_OWNER, 0}, {ZCP_ERR_WRONG_OWNER, 0}, {ZCP_OK, 0}},
    [DIRECTORY] = ALL_MODES(ZCP_ERR_WRONG_TYPE, SOME_ERROR),
    [FIFO] = ALL_MODES(ZCP_ERR_WRONG_TYPE, 0),
    [DANGLING] = ALL_MODES(ZCP_ERR_WRONG_TYPE, ELOOP),
    [LINK] = ALL_MODES(ZCP_ERR_WRONG_TYPE, ELOOP),
    [SOCKET] = ALL_MODES(ZCP_ERR_WRONG_TYPE, ENXIO),
};

static void remove_kind(const char *name, const char *other) {
    remove(path_of(name));
    remove(path_of(other));
    check_gone(name);
    check_gone(other);
}

static void check_opened(kind what, zcp_shm_mode mode, zcp_shm *shm, const struct stat *before) {
    bool made = what != PRESENT || mode == ZCP_SHM_PURGE_AND_CREATE;
    bool same_file = what == HALF_MADE || (what == PRESENT && !made);
    struct stat after;
    CHECK(there(test_instance(), &after));
    CHECK_EQ(shm->created, made);
    CHECK_EQ(shm->bytes, BYTES);
    CHECK_EQ(after.st_size, BYTES);
    CHECK_EQ(after.st_mode, (unsigned)(S_IFREG | (made ? 0600 : 0640)));
    CHECK_EQ(after.st_uid, geteuid());
    CHECK_EQ(shm->inode, after.st_ino);
    CHECK_EQ(shm->device, after.st_dev);
    if (what != ABSENT)
        CHECK_EQ(after.st_ino == before->st_ino, same_file);
    CHECK(all_bytes_are(shm, made ? 0 : 'x'));
    memset(shm->base, 'y', BYTES);
    zcp_shm_close(shm);
    check_zero(shm);
}

static void check_mode(kind what, zcp_shm_mode mode) {
    const char *name = test_instance(), *other = test_instance_n(1);
    struct stat before = {0}, after;
    zcp_shm shm;
    zcp_shm_desc desc = {.name = name, .bytes = BYTES, .mode = mode};
    put(what, name, other);
    if (what != ABSENT)
        CHECK(there(name, &before));
    if (expected[what][mode].status == ZCP_OK) {
        CHECK_OK(zcp_shm_open(&shm, &desc));
        check_opened(what, mode, &shm, &before);
    } else {
        CHECK_REFUSED(desc, expected[what][mode].status, expected[what][mode].error);
        CHECK_EQ(there(name, &after), what != ABSENT);             // as it was
        if (what != ABSENT)
            CHECK(after.st_ino == before.st_ino && after.st_size == before.st_size && after.st_mode == before.st_mode);
        if (what == DANGLING)
            check_gone(other);                                     // nothing was created through the link
    }
    remove_kind(name, other);
}

TEST(shm_modes_against_what_is_there) {
    int descriptors = open_descriptors();
    for (kind what = ABSENT; what < KINDS; what++)
        for (int mode = 0; mode < 4; mode++) {
            if (what == FOREIGN && geteuid() != 0) {
                test_note("foreign files: left out, because that needs root");
                continue;
            }
            test_note("%s, mode %d", kind_names[what], mode);
            check_mode(what, (zcp_shm_mode)mode);
        }
    CHECK_EQ(open_descriptors(), descriptors);                     // failed or not, no descriptor stays
}

TEST(shm_read_only_never_creates) {
    const char *name = test_instance();
    zcp_shm_desc desc = {.name = name, .bytes = 100, .flags = ZCP_SHM_READ_ONLY};
    for (desc.mode = ZCP_SHM_OPEN_OR_CREATE; desc.mode <= ZCP_SHM_OPEN_EXISTING; desc.mode++) {
        CHECK_REFUSED(desc, ZCP_ERR_NOT_FOUND, ENOENT);
        make_file(name, 0, 0600);
        CHECK_REFUSED(desc, ZCP_ERR_NOT_FOUND, 0);                 // half-made
        remove_kind(name, name);
        CHECK(mkdir(path_of(name), 0700) == 0);
        CHECK_REFUSED(desc, ZCP_ERR_WRONG_TYPE, 0);                // can be opened for reading, and is no file
        remove_kind(name, name);
    }
    for (desc.mode = ZCP_SHM_CREATE_EXCLUSIVE; desc.mode <= ZCP_SHM_PURGE_AND_CREATE; desc.mode++)
        CHECK_REFUSED(desc, ZCP_ERR_INVALID_FLAGS, 0);
    check_gone(name);
}

TEST(shm_unlink_against_what_is_there) {
    const char *name = test_instance(), *other = test_instance_n(1);
    for (kind what = ABSENT; what < KINDS; what++) {
        struct stat status;
        if (what == FOREIGN && geteuid() != 0)
            continue;
        put(what, name, other);
        zcp_status result = zcp_shm_unlink(name);
        int error = zcp_last_errno();
        CHECK_STATUS(result, what == ABSENT ? ZCP_ERR_NOT_FOUND : what == DIRECTORY ? ZCP_ERR_WRONG_TYPE : ZCP_OK);
        if (result != ZCP_OK)
            CHECK_EQ(error, what == ABSENT ? ENOENT : EISDIR);
        CHECK_EQ(there(name, &status), what == DIRECTORY);
        CHECK_EQ(there(other, &status), what == LINK);             // the link goes, not what it leads to
        remove_kind(name, other);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Sizes, memory, names

TEST(shm_size_is_exactly_what_was_asked_for) {
    static const uint64_t sizes[] = {1, 100, 4095, 4096, 4097, 65536 + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        zcp_shm shm, part;
        struct stat status;
        CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = sizes[i]}));
        CHECK(there(test_instance(), &status));
        CHECK_EQ(status.st_size, sizes[i]);
        CHECK_EQ(shm.bytes, sizes[i]);
        CHECK((uint64_t)status.st_blocks * 512 >= sizes[i]);       // the pages are there
        CHECK(all_bytes_are(&shm, 0));
        for (uint64_t bytes = 0; bytes <= 1; bytes++) {            // "as many as there are", and fewer
            zcp_shm_desc desc = {.name = test_instance(), .bytes = bytes, .mode = ZCP_SHM_OPEN_EXISTING};
            CHECK_OK(zcp_shm_open(&part, &desc));
            CHECK_EQ(part.bytes, sizes[i]);
            CHECK_EQ(part.created, 0);
            zcp_shm_close(&part);
        }
        zcp_shm_desc more = {.name = test_instance(), .bytes = sizes[i] + 1, .mode = ZCP_SHM_OPEN_EXISTING};
        CHECK_REFUSED(more, ZCP_ERR_INVALID_SIZE, 0);
        zcp_shm_close(&shm);
        CHECK_OK(zcp_shm_unlink(test_instance()));
    }
}

TEST(shm_opens_share_memory_and_unlink_keeps_it) {
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 4096};
    zcp_shm first, second, fresh;
    CHECK_OK(zcp_shm_open(&first, &desc));
    CHECK_OK(zcp_shm_open(&second, &desc));
    CHECK_EQ(first.created, 1);
    CHECK_EQ(second.created, 0);
    CHECK_EQ(first.inode, second.inode);
    strcpy(first.base, "shared");
    CHECK_STR((char *)second.base, "shared");
    CHECK_OK(zcp_shm_unlink(desc.name));
    CHECK_STATUS(zcp_shm_unlink(desc.name), ZCP_ERR_NOT_FOUND);
    strcpy((char *)second.base + 7, "still");
    CHECK_STR((char *)first.base + 7, "still");
    CHECK_OK(zcp_shm_open(&fresh, &desc));                         // another object, while the old one lives on
    CHECK_EQ(fresh.created, 1);
    CHECK(fresh.inode != first.inode);
    CHECK(all_bytes_are(&fresh, 0));
    strcpy(fresh.base, "new");
    CHECK_STR((char *)first.base, "shared");
    zcp_shm_close(&first);
    zcp_shm_close(&second);
    zcp_shm_close(&fresh);
    CHECK_OK(zcp_shm_unlink(desc.name));
}

TEST(shm_purge_leaves_the_old_one_to_those_who_have_it) {
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 4096};
    zcp_shm old, fresh;
    CHECK_OK(zcp_shm_open(&old, &desc));
    memset(old.base, 'o', 4096);
    desc.mode = ZCP_SHM_PURGE_AND_CREATE;
    desc.bytes = 12288;
    CHECK_OK(zcp_shm_open(&fresh, &desc));
    CHECK(fresh.created == 1 && fresh.bytes == 12288 && fresh.inode != old.inode);
    CHECK(all_bytes_are(&fresh, 0));
    memset(fresh.base, 'n', 12288);
    CHECK(all_bytes_are(&old, 'o'));
    zcp_shm_close(&old);
    zcp_shm_close(&fresh);
    CHECK_OK(zcp_shm_unlink(desc.name));
}

TEST(shm_close_twice_does_nothing) {
    zcp_shm shm, other, zero = {0};
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 4096};
    CHECK_OK(zcp_shm_open(&shm, &desc));
    void *base = shm.base;
    zcp_shm_close(&shm);
    check_zero(&shm);
    CHECK_OK(zcp_shm_open(&other, &desc));                         // may well be mapped where the first one was
    zcp_shm_close(&shm);
    zcp_shm_close(&shm);
    zcp_shm_close(&zero);
    zcp_shm_close(NULL);
    if (other.base == base)
        test_note("at the same address");
    CHECK(all_bytes_are(&other, 0));                               // and is not unmapped by that
    zcp_shm_close(&other);
    CHECK_OK(zcp_shm_unlink(desc.name));
}

TEST(shm_names) {
    char longest[255], too_long[256], with_slash[300];
    snprintf(longest, sizeof longest, "%s-", test_instance());
    for (size_t i = strlen(longest); i < 254; i++)
        memcpy(longest + i, "n", 2);
    snprintf(too_long, sizeof too_long, "%sn", longest);
    snprintf(with_slash, sizeof with_slash, "/%s", test_instance());
    CHECK_EQ(strlen(longest), 254);
    const char *const bad[] = {NULL,   "",     "/",    "//",     "//x",    ".",     "..",   "/.",     "/..",
                               "a/b",  "a/",   "../x", "x\ny",   "x\ty",   "x\x1f", "\x7f", "x\x01y", too_long};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (int mode = 0; mode < 4; mode++) {
            zcp_shm_desc desc = {.name = bad[i], .bytes = 1, .mode = (zcp_shm_mode)mode};
            CHECK_REFUSED(desc, ZCP_ERR_INVALID_NAME, 0);
        }
        CHECK_STATUS(zcp_shm_unlink(bad[i]), ZCP_ERR_INVALID_NAME);
        CHECK(zcp_last_message()[0] != 0);
    }
    char strange[4][300];
    static const char *const suffixes[] = {" with spaces", "...", "-\xc3\xa4\xe2\x82\xac", "~*?[]\\:"};
    for (int i = 0; i < 4; i++)
        snprintf(strange[i], sizeof strange[i], "%s%s", test_instance(), suffixes[i]);
    const char *const good[] = {longest, with_slash, test_instance(), strange[0], strange[1], strange[2], strange[3]};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        zcp_shm shm;
        struct stat status;
        CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = good[i], .bytes = 1, .mode = ZCP_SHM_CREATE_EXCLUSIVE}));
        CHECK(there(good[i] + (good[i][0] == '/'), &status));      // the slash makes no difference
        zcp_shm_close(&shm);
        CHECK_OK(zcp_shm_unlink(good[i]));
        check_gone(good[i] + (good[i][0] == '/'));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Permissions, owner, group

static void check_permissions(mode_t mask, uint32_t permissions, bool half_made) {
    zcp_shm shm;
    struct stat status;
    if (half_made)
        make_file(test_instance(), 0, 0606);                       // what a killed creator left: also exact
    mode_t before = umask(mask);
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 1, .permissions = permissions};
    CHECK_OK(zcp_shm_open(&shm, &desc));
    umask(before);
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_mode & 07777, permissions == 0 ? 0600 : permissions);
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

TEST(shm_permissions_are_exact_whatever_the_umask) {
    static const uint32_t permissions[] = {0, 0600, 0640, 0644, 0660, 0666, 0777};
    static const mode_t masks[] = {0, 022, 077, 0777};
    for (size_t m = 0; m < sizeof masks / sizeof masks[0]; m++)
        for (size_t p = 0; p < sizeof permissions / sizeof permissions[0]; p++) {
            check_permissions(masks[m], permissions[p], false);
            check_permissions(masks[m], permissions[p], true);
        }
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 1, .permissions = 01777};
    CHECK_REFUSED(desc, ZCP_ERR_INVALID_ARGUMENT, 0);
    check_gone(test_instance());
}

// What exists keeps its permissions, whatever an opener asks for.
TEST(shm_opening_changes_no_permissions) {
    zcp_shm shm;
    struct stat status;
    make_file(test_instance(), 64, 0640);
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 64, .permissions = 0777}));
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_mode & 07777, 0640);
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

TEST(shm_group_is_given_with_the_flag_only) {
    test_need_root();
    zcp_shm shm;
    struct stat status;
    for (int half_made = 0; half_made < 2; half_made++) {
        zcp_shm_desc desc = {.name = test_instance(), .bytes = 1, .permissions = 0660, .group = STRANGERS_GROUP};
        for (desc.flags = 0; desc.flags <= ZCP_SHM_GROUP; desc.flags += ZCP_SHM_GROUP) {
            if (half_made)
                make_file(test_instance(), 0, 0600);
            CHECK_OK(zcp_shm_open(&shm, &desc));
            CHECK(there(test_instance(), &status));
            CHECK_EQ(status.st_gid, desc.flags ? (gid_t)STRANGERS_GROUP : getegid());
            CHECK_EQ(status.st_mode & 07777, 0660);
            zcp_shm_close(&shm);
            CHECK_OK(zcp_shm_unlink(test_instance()));
        }
    }
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 1, .flags = ZCP_SHM_GROUP}));
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_gid, 0);                                    // 0 is a group
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

static void stranger_meets_roots_files(void *argument) {
    (void)argument;
    become_stranger();
    zcp_shm shm;
    zcp_shm_desc closed = {.name = test_instance_n(0), .bytes = 64};
    for (int mode = 0; mode < 4; mode++) {
        closed.mode = (zcp_shm_mode)mode;
        CHECK_REFUSED(closed, ZCP_ERR_PERMISSION, EACCES);         // 0600
    }
    CHECK_STATUS(zcp_shm_unlink(test_instance_n(0)), ZCP_ERR_PERMISSION);
    CHECK(zcp_last_errno() == EACCES || zcp_last_errno() == EPERM);

    zcp_shm_desc readable = {.name = test_instance_n(1), .bytes = 64};
    CHECK_REFUSED(readable, ZCP_ERR_PERMISSION, EACCES);           // 0644, and it wants to write
    readable.flags = ZCP_SHM_READ_ONLY;
    CHECK_OK(zcp_shm_open(&shm, &readable));                       // root's: accepted
    CHECK(all_bytes_are(&shm, 'x'));
    zcp_shm_close(&shm);

    zcp_shm_desc shared = {.name = test_instance_n(2), .bytes = 64};
    CHECK_OK(zcp_shm_open(&shm, &shared));                         // 0666
    memset(shm.base, 'z', 64);
    zcp_shm_close(&shm);
    shared.mode = ZCP_SHM_PURGE_AND_CREATE;                        // the directory is sticky: only the owner removes
    zcp_status status = zcp_shm_open(&shm, &shared);
    CHECK_STATUS(status, ZCP_ERR_PERMISSION);
    CHECK(zcp_last_errno() == EACCES || zcp_last_errno() == EPERM);

    zcp_shm_desc grouped = {.name = test_instance_n(3), .bytes = 64, .flags = ZCP_SHM_GROUP, .group = STRANGER};
    CHECK_REFUSED(grouped, ZCP_ERR_PERMISSION, EPERM);             // not in that group
    check_gone(test_instance_n(3));                                // and nothing half-made stays

    zcp_shm_desc foreign = {.name = test_instance_n(4), .bytes = 64};
    CHECK_REFUSED(foreign, ZCP_ERR_WRONG_OWNER, 0);                // a third user's, 0666
    foreign.flags = ZCP_SHM_ANY_OWNER;
    CHECK_OK(zcp_shm_open(&shm, &foreign));
    zcp_shm_close(&shm);
}

TEST(shm_permission_and_owner_as_another_user) {
    test_need_root();
    struct stat status;
    make_file(test_instance_n(0), 64, 0600);
    make_file(test_instance_n(1), 64, 0644);
    make_file(test_instance_n(2), 64, 0666);
    make_file(test_instance_n(4), 64, 0666);
    CHECK(chown(path_of(test_instance_n(4)), STRANGER + 1, STRANGERS_GROUP) == 0);
    test_join(test_spawn(stranger_meets_roots_files, NULL));
    for (int i = 0; i <= 4; i++) {
        CHECK_EQ(there(test_instance_n(i), &status), i != 3);
        if (i != 3)
            CHECK_OK(zcp_shm_unlink(test_instance_n(i)));
    }
}

// A creator may give away less than it needs itself: its own mapping is there already.
static void create_unwritable(void *argument) {
    const uint32_t *permissions = argument;
    if (geteuid() == 0)                                            // for root the permissions would not count
        become_stranger();
    zcp_shm shm;
    struct stat status;
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 4096, .permissions = *permissions};
    CHECK_OK(zcp_shm_open(&shm, &desc));
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_mode & 07777, *permissions);
    memset(shm.base, 'w', 4096);
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

TEST(shm_creates_what_it_could_not_open) {
    static uint32_t permissions[] = {0400, 0444, 0040};
    for (size_t i = 0; i < sizeof permissions / sizeof permissions[0]; i++)
        test_join(test_spawn(create_unwritable, &permissions[i]));
}

// ---------------------------------------------------------------------------------------------------------------------
// Flags

// What /proc/self/smaps says of the mapping at base: the line that begins with the key, or "".
static const char *smaps(const void *base, const char *key) {
    static char line[512];
    char start[32];
    bool inside = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    CHECK(file != NULL);
    snprintf(start, sizeof start, "%lx-", (unsigned long)(uintptr_t)base);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, start, strlen(start)) == 0)
            inside = true;
        if (inside && strncmp(line, key, strlen(key)) == 0)
            break;
        line[0] = 0;
    }
    fclose(file);
    return line;
}

static bool has_vm_flag(const void *base, const char *flag) {
    char spaced[8];
    snprintf(spaced, sizeof spaced, " %s ", flag);
    return strstr(smaps(base, "VmFlags:"), spaced) != NULL;
}

static long kilobytes(const void *base, const char *key) {
    return atol(smaps(base, key) + strlen(key));
}

static zcp_shm open_with(uint32_t flags) {
    zcp_shm shm;
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 65536, .flags = flags}));
    CHECK_EQ(shm.flags, flags);
    return shm;
}

TEST(shm_flags_do_what_they_say) {
    test_need("MAP_POPULATE");
    struct stat status;
    zcp_shm plain = open_with(0);
    CHECK_EQ(plain.created, 1);
    CHECK_EQ(kilobytes(plain.base, "Rss:"), 0);
    CHECK(has_vm_flag(plain.base, "wr") && !has_vm_flag(plain.base, "dd") && !has_vm_flag(plain.base, "lo"));
    zcp_shm prefault = open_with(ZCP_SHM_PREFAULT);
    CHECK_EQ(kilobytes(prefault.base, "Rss:"), 64);
    zcp_shm no_dump = open_with(ZCP_SHM_NO_DUMP);
    CHECK(has_vm_flag(no_dump.base, "dd"));
    zcp_shm read_only = open_with(ZCP_SHM_READ_ONLY);
    CHECK(!has_vm_flag(read_only.base, "wr") && !has_vm_flag(read_only.base, "mw"));
    CHECK(mprotect(read_only.base, 4096, PROT_READ | PROT_WRITE) != 0);                 // nor can it be made writable
    zcp_shm any = open_with(ZCP_SHM_ANY_OWNER);
#if !defined(TEST_ASAN) && !defined(TEST_TSAN)                     // they turn mlock into nothing
    zcp_shm lock = open_with(ZCP_SHM_LOCK);
    CHECK(has_vm_flag(lock.base, "lo"));
    CHECK_EQ(kilobytes(lock.base, "Rss:"), 64);
    zcp_shm_close(&lock);
#endif
    zcp_shm_close(&plain);
    zcp_shm_close(&prefault);
    zcp_shm_close(&no_dump);
    zcp_shm_close(&read_only);
    zcp_shm_close(&any);
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_blocks, 128);                               // reserved
    CHECK_OK(zcp_shm_unlink(test_instance()));
    zcp_shm sparse = open_with(ZCP_SHM_NO_RESERVE);
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_blocks, 0);
    CHECK_EQ(status.st_size, 65536);
    zcp_shm_close(&sparse);
    CHECK_OK(zcp_shm_unlink(test_instance()));
    for (int bit = 7; bit < 32; bit++) {
        char words[40];
        zcp_shm_desc unknown = {.name = test_instance(), .bytes = 1, .flags = UINT32_C(1) << bit | ZCP_SHM_PREFAULT};
        CHECK_REFUSED(unknown, ZCP_ERR_INVALID_FLAGS, 0);
        snprintf(words, sizeof words, "unknown bits 0x%x ", UINT32_C(1) << bit);
        CHECK_MSG(strncmp(zcp_last_message(), words, strlen(words)) == 0, "%s", zcp_last_message());
    }
    check_gone(test_instance());
}

static void write_to_read_only(void *argument) {
    zcp_shm shm = open_with(ZCP_SHM_READ_ONLY);
    CHECK(((char *)shm.base)[100] == 'p');
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    ((volatile char *)shm.base)[100] = 'c';
    (void)argument;
}

TEST(shm_write_to_read_only_faults_only_there) {
    zcp_shm shm = open_with(0);
    memset(shm.base, 'p', (size_t)shm.bytes);
    test_join_signal(test_spawn(write_to_read_only, NULL), SIGSEGV);
    CHECK(all_bytes_are(&shm, 'p'));
    memset(shm.base, 'q', (size_t)shm.bytes);
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

static void lock_without_permission(void *argument) {
    (void)argument;
    CHECK(setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){8192, 8192}) == 0);
    become_stranger();
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 1 << 20, .flags = ZCP_SHM_LOCK};
    CHECK_REFUSED(desc, ZCP_ERR_NO_MEMORY, ENOMEM);
    check_gone(test_instance());                                   // what was created for it goes again
    CHECK(strstr(zcp_last_message(), "ulimit -l") != NULL);
}

TEST(shm_lock_over_the_limit) {
#if defined(TEST_ASAN) || defined(TEST_TSAN)
    test_skip("sanitizers turn mlock into nothing");
#endif
    test_need_root();
    test_join(test_spawn(lock_without_permission, NULL));
}

// ---------------------------------------------------------------------------------------------------------------------
// Space

static void check_number_in(const char *text, uint64_t number) {
    char digits[32];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    CHECK_MSG(strstr(text, digits) != NULL, "no %s in \"%s\"", digits, text);
}

// To be told in advance: a library that began to reserve would fill the machine's memory, so that is forbidden here.
static void ask_for_too_much(void *argument) {
    struct statvfs space;
    CHECK(statvfs("/dev/shm", &space) == 0);
    uint64_t bytes = ((uint64_t)space.f_blocks + 1) * space.f_frsize;                   // more than there can ever be
    filter_call(SYS_fallocate, -1, 0, SECCOMP_RET_KILL_PROCESS);
    for (int mode = 0; mode < 4; mode++) {
        if (mode == ZCP_SHM_OPEN_EXISTING)
            continue;
        zcp_shm_desc desc = {.name = test_instance(), .bytes = bytes, .mode = (zcp_shm_mode)mode};
        CHECK_REFUSED(desc, ZCP_ERR_NO_SPACE, ENOSPC);
        check_number_in(zcp_last_message(), bytes);
        CHECK(strstr(zcp_last_message(), "free") != NULL);
        check_gone(test_instance());
        make_file(test_instance(), 0, 0600);                       // nor does what another one began stay half-made
        CHECK_REFUSED(desc, ZCP_ERR_NO_SPACE, ENOSPC);
        check_gone(test_instance());
    }
    zcp_shm_desc huge = {.name = test_instance(), .bytes = INT64_MAX};
    CHECK_REFUSED(huge, ZCP_ERR_NO_SPACE, ENOSPC);
    check_gone(test_instance());
    (void)argument;
}

TEST(shm_no_space_tells_needed_and_free) {
    struct statvfs space;
    filter_need();
    CHECK(statvfs("/dev/shm", &space) == 0);
    if (space.f_blocks == 0)
        test_skip("/dev/shm has no limit");
    test_join(test_spawn(ask_for_too_much, NULL));
}

TEST(shm_sizes_that_no_file_has) {
    static const uint64_t sizes[] = {0, (uint64_t)INT64_MAX + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int mode = 0; mode < 4; mode++) {
            zcp_shm_desc desc = {.name = test_instance(), .bytes = sizes[i], .mode = (zcp_shm_mode)mode};
            bool any_size = sizes[i] == 0 && mode == ZCP_SHM_OPEN_EXISTING;
            CHECK_REFUSED(desc, any_size ? ZCP_ERR_NOT_FOUND : ZCP_ERR_INVALID_SIZE, any_size ? ENOENT : 0);
        }
    check_gone(test_instance());
}

// A /dev/shm of its own for the calling child and nobody else.
static void mount_small(const char *options) {
    CHECK(unshare(CLONE_NEWNS) == 0);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("tmpfs", "/dev/shm", "tmpfs", 0, options) == 0);
}

static void touch_too_much(void *argument) {
    const zcp_shm *shm = argument;
    signal(SIGBUS, SIG_DFL);
    memset(shm->base, 1, (size_t)shm->bytes);
}

static void fill_small(void *argument) {
    (void)argument;
    mount_small("size=1m");
    zcp_shm shm, sparse;
    struct stat status;
    zcp_shm_desc desc = {.name = test_instance_n(0), .bytes = (1 << 20) + 1};
    CHECK_REFUSED(desc, ZCP_ERR_NO_SPACE, ENOSPC);
    check_number_in(zcp_last_message(), (1 << 20) + 1);
    check_number_in(zcp_last_message(), 1 << 20);
    check_gone(test_instance_n(0));
    desc.bytes = 1 << 20;
    CHECK_OK(zcp_shm_open(&shm, &desc));                           // to the last byte
    memset(shm.base, 1, 1 << 20);                                  // and no SIGBUS
    zcp_shm_desc next = {.name = test_instance_n(1), .bytes = 1};
    CHECK_REFUSED(next, ZCP_ERR_NO_SPACE, ENOSPC);
    CHECK(!there(test_instance_n(1), &status));
    next.bytes = 2 << 20;
    next.flags = ZCP_SHM_NO_RESERVE;                               // accepts the SIGBUS, and gets it
    CHECK_OK(zcp_shm_open(&sparse, &next));
    test_join_signal(test_spawn(touch_too_much, &sparse), SIGBUS);
    zcp_shm_close(&sparse);
    zcp_shm_close(&shm);
}

static void run_out_of_inodes(void *argument) {
    (void)argument;
    mount_small("size=1m,nr_inodes=2");                            // the directory, and one file
    zcp_shm shm;
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance_n(0), .bytes = 1}));
    zcp_shm_desc next = {.name = test_instance_n(1), .bytes = 1};
    CHECK_REFUSED(next, ZCP_ERR_NO_SPACE, ENOSPC);
    zcp_shm_close(&shm);
}

TEST(shm_really_full) {
    pid_t probe = fork();
    if (probe == 0)
        _exit(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 ? 0 : 1);
    if (test_wait(probe) != 0)
        test_skip("cannot mount a small /dev/shm");
    test_join(test_spawn(fill_small, NULL));
    test_join(test_spawn(run_out_of_inodes, NULL));
}

static void limit_file_size(void *argument) {
    (void)argument;
    zcp_shm shm;
    signal(SIGXFSZ, SIG_DFL);
    CHECK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20}) == 0);
    for (uint32_t flags = 0; flags <= ZCP_SHM_NO_RESERVE; flags += ZCP_SHM_NO_RESERVE) {
        zcp_shm_desc desc = {.name = test_instance(), .bytes = (1 << 20) + 1, .flags = flags};
        CHECK_REFUSED(desc, ZCP_ERR_NO_SPACE, EFBIG);
        check_number_in(zcp_last_message(), 1 << 20);
        check_gone(test_instance());
        desc.bytes = 1 << 20;
        CHECK_OK(zcp_shm_open(&shm, &desc));
        zcp_shm_close(&shm);
        CHECK_OK(zcp_shm_unlink(test_instance()));
    }
}

TEST(shm_file_size_limit_is_an_error_not_a_signal) {
    test_join(test_spawn(limit_file_size, NULL));
}

// ---------------------------------------------------------------------------------------------------------------------
// Signals and failing system calls

static _Atomic unsigned alarms;

static void count_alarm(int signal_number) {
    (void)signal_number;
    atomic_fetch_add(&alarms, 1);
}

TEST(shm_reserves_under_a_timer) {
    struct sigaction action = {.sa_handler = count_alarm};         // no SA_RESTART
    struct itimerval every = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    zcp_shm shm;
    struct stat status;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
    zcp_status result = zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 80 << 20});
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK_OK(result);
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_size, 80 << 20);
    CHECK_EQ(status.st_blocks, (80 << 20) / 512);
    test_note("%u signals", atomic_load(&alarms));
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

typedef struct fault {
    const char *what;
    long call;
    int argument;
    uint32_t value;
    int error;
    zcp_status status;
    uint32_t flags;
} fault;

static const fault faults[] = {
    {"fchmod", SYS_fchmod, -1, 0, EPERM, ZCP_ERR_PERMISSION, 0},
    {"fchmod", SYS_fchmod, -1, 0, EIO, ZCP_ERR_SYSTEM, 0},
    {"fallocate", SYS_fallocate, -1, 0, ENOSPC, ZCP_ERR_NO_SPACE, 0},
    {"fallocate", SYS_fallocate, -1, 0, EDQUOT, ZCP_ERR_NO_SPACE, 0},
    {"fallocate", SYS_fallocate, -1, 0, EIO, ZCP_ERR_SYSTEM, 0},
    {"ftruncate", FILTER_FTRUNCATE, 1, BYTES, EIO, ZCP_ERR_SYSTEM, 0},
    {"ftruncate", FILTER_FTRUNCATE, 1, BYTES, EFBIG, ZCP_ERR_NO_SPACE, ZCP_SHM_NO_RESERVE},
    {"mmap of the object", FILTER_MMAP, 1, BYTES, ENOMEM, ZCP_ERR_MAPPING, 0},
    {"mmap of the object", FILTER_MMAP, 1, BYTES, ENODEV, ZCP_ERR_MAPPING, 0},
    {"mmap of the lock's page", FILTER_MMAP, 3, MAP_SHARED, ENOMEM, ZCP_ERR_MAPPING, 0},
    {"locking", FILTER_FCNTL, 1, F_OFD_SETLK, ENOLCK, ZCP_ERR_SYSTEM, 0},
};

static void fail_one(void *argument) {
    const fault *one = argument;
    zcp_shm_desc desc = {.name = test_instance(), .bytes = BYTES, .flags = one->flags};
    filter_call(one->call, one->argument, one->value, SECCOMP_RET_ERRNO | (uint32_t)one->error);
    test_note("%s: %s", one->what, strerror(one->error));
    CHECK_REFUSED(desc, one->status, one->error);
    check_gone(test_instance());                                   // nothing half-made stays
}

TEST(shm_every_failing_call_has_its_status_and_leaves_nothing) {
    filter_need();
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        fault copy = faults[i];
        test_join(test_spawn(fail_one, &copy));
    }
}

// Some C libraries' posix_fallocate writes where the file system has no fallocate: glibc's after EOPNOTSUPP, musl's
// never.
static bool library_reserves(void) {
    make_file(test_instance_n(1), 0, 0600);
    int file = open(path_of(test_instance_n(1)), O_RDWR | O_CLOEXEC);
    CHECK(file >= 0);
    int error = posix_fallocate(file, 0, BYTES);
    close(file);
    CHECK_OK(zcp_shm_unlink(test_instance_n(1)));
    return error == 0;
}

static void reserve_otherwise(void *argument) {
    int error = *(int *)argument;
    zcp_shm shm;
    struct stat status;
    filter_call(SYS_fallocate, -1, 0, SECCOMP_RET_ERRNO | (uint32_t)error);
    zcp_status result = zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = BYTES + 1});
    if (!library_reserves()) {
        CHECK_STATUS(result, ZCP_ERR_SYSTEM);
        CHECK_EQ(zcp_last_errno(), error);
        return;
    }
    CHECK_OK(result);
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_size, BYTES + 1);
    CHECK((uint64_t)status.st_blocks * 512 >= BYTES + 1);
    CHECK(all_bytes_are(&shm, 0));
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

TEST(shm_reserves_without_fallocate) {
    filter_need();
    test_join(test_spawn(reserve_otherwise, &(int){EOPNOTSUPP}));
    test_join(test_spawn(reserve_otherwise, &(int){ENOSYS}));
    check_gone(test_instance());
}

// A supervisor answers the first calls with EINTR and lets the later ones through.
typedef struct interrupted {
    int listener;
    _Atomic unsigned calls;
    pthread_t thread;
} interrupted;

// C libraries differ on ioctl's second type
static int ask_filter(int listener, unsigned long request, void *argument) {
    return (int)syscall(SYS_ioctl, listener, request, argument);
}

static void *answer_with_eintr(void *argument) {
    interrupted *one = argument;
    struct seccomp_notif_sizes sizes;
    CHECK(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0);
    struct seccomp_notif *request = calloc(1, sizes.seccomp_notif + sizeof *request);
    struct seccomp_notif_resp *answer = calloc(1, sizes.seccomp_notif_resp + sizeof *answer);
    CHECK(request != NULL && answer != NULL);
    for (;;) {
        memset(request, 0, sizes.seccomp_notif);
        if (ask_filter(one->listener, SECCOMP_IOCTL_NOTIF_RECV, request) != 0)
            continue;
        bool refuse = one->calls++ < 3;
        memset(answer, 0, sizes.seccomp_notif_resp);
        answer->id = request->id;
        answer->error = refuse ? -EINTR : 0;
        answer->flags = refuse ? 0 : (uint32_t)SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ask_filter(one->listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
    }
    return NULL;
}

static void interrupt_call(long call, interrupted *one) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    one->calls = 0;
    one->listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (one->listener < 0)
        test_note("no supervisor: %s", strerror(errno));
    else
        one->thread = test_thread(answer_with_eintr, one);
}

static void open_interrupted(void *argument) {
    static interrupted one;
    zcp_shm shm;
    struct stat status;
    interrupt_call(*(const long *)argument, &one);
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 40 << 20}));
    CHECK(there(test_instance(), &status));
    CHECK_EQ(status.st_size, 40 << 20);
    CHECK_EQ(status.st_blocks, (40 << 20) / 512);
    CHECK(one.listener < 0 || one.calls > 3);
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

TEST(shm_tries_again_after_eintr) {
    filter_need();
    static const long calls[] = {SYS_fallocate, FILTER_FTRUNCATE};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        long call = calls[i];
        test_join(test_spawn(open_interrupted, &call));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Half-made objects, killed creators

TEST(shm_next_opener_finishes_a_half_made_object) {
    zcp_shm shm;
    struct stat status;
    for (int mode = 0; mode < 4; mode++) {
        make_file(test_instance(), 0, 0606);
        int file = open(path_of(test_instance()), O_RDWR | O_CLOEXEC);
        CHECK(file >= 0 && write(file, "leftover", 8) == 8 && ftruncate(file, 0) == 0);
        CHECK(fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0);                   // pages reserved behind the end
        close(file);
        zcp_shm_desc desc = {.name = test_instance(), .bytes = 4096, .mode = (zcp_shm_mode)mode};
        if (mode == ZCP_SHM_OPEN_EXISTING) {
            CHECK_REFUSED(desc, ZCP_ERR_NOT_FOUND, 0);
        } else {
            CHECK_OK(zcp_shm_open(&shm, &desc));
            CHECK_EQ(shm.created, 1);
            CHECK(all_bytes_are(&shm, 0));
            zcp_shm_close(&shm);
            CHECK(there(test_instance(), &status));
            CHECK_EQ(status.st_size, 4096);
            CHECK_EQ(status.st_blocks, 8);                         // the dead creator's pages are given back
            CHECK_EQ(status.st_mode & 07777, 0600);
        }
        CHECK_OK(zcp_shm_unlink(test_instance()));
    }
}

typedef struct killing {
    zcp_shm_mode mode;
    int step;                                                      // 0: not at a step
    long call;                                                     // 0: not at a system call
    int argument;
    uint32_t value;
} killing;

static void die_while_opening(void *argument) {
    const killing *how = argument;
    zcp_shm shm;
    signal(SIGSYS, SIG_DFL);
    if (how->step != 0)
        test_step_any_kill(how->step);
    if (how->call != 0)
        filter_call(how->call, how->argument, how->value, SECCOMP_RET_KILL_PROCESS);
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = BYTES, .mode = how->mode}));
}

// After the death: one more opener gets a sound object at once, whatever was left.
static void check_sound_after(void) {
    zcp_shm shm;
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = BYTES, .timeout_ms = 1000}));
    CHECK_EQ(shm.bytes, BYTES);
    CHECK(all_bytes_are(&shm, 0));
    memset(shm.base, 'k', BYTES);
    zcp_shm_close(&shm);
}

TEST(shm_creator_killed_at_each_step) {
    static const zcp_shm_mode modes[] = {ZCP_SHM_OPEN_OR_CREATE, ZCP_SHM_CREATE_EXCLUSIVE, ZCP_SHM_PURGE_AND_CREATE};
    for (size_t m = 0; m < sizeof modes / sizeof modes[0]; m++) {
        killing how = {.mode = modes[m], .step = 1};
        while (test_join_killed(test_spawn(die_while_opening, &how))) {
            check_sound_after();
            if (how.mode != ZCP_SHM_PURGE_AND_CREATE || how.step % 2 == 0)              // purging: also what is there
                CHECK_OK(zcp_shm_unlink(test_instance()));
            how.step++;
        }
        CHECK(how.step > 1);
        CHECK_OK(zcp_shm_unlink(test_instance()));
    }
}

TEST(shm_creator_killed_at_each_system_call) {
    filter_need();
    static const struct {
        long call;
        int argument;
        uint32_t value;
    } calls[] = {{SYS_fchmod, -1, 0},    {FILTER_MMAP, 3, MAP_SHARED}, {SYS_madvise, 2, MADV_DONTFORK},
                 {FILTER_FCNTL, 1, F_OFD_SETLK}, {FILTER_FTRUNCATE, 1, 0}, {SYS_fallocate, -1, 0},
                 {FILTER_FTRUNCATE, 1, BYTES}, {FILTER_MMAP, 1, BYTES}};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        killing how = {.call = calls[i].call, .argument = calls[i].argument, .value = calls[i].value};
        test_join_signal(test_spawn(die_while_opening, &how), SIGSYS);
        check_sound_after();
        CHECK_OK(zcp_shm_unlink(test_instance()));
    }
}

static void stop_in_the_lock(void *argument) {
    zcp_shm shm;
    test_at_step("shm_locked", 1, TEST_STOP, NULL);
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = BYTES}));
    CHECK_EQ(shm.created, 1);
    (void)argument;
}

TEST(shm_waits_for_a_stopped_creator_and_no_longer_than_asked) {
    zcp_shm shm;
    pid_t pid = test_spawn(stop_in_the_lock, NULL);
    test_await_stop(pid);
    zcp_shm_desc desc = {.name = test_instance(), .bytes = BYTES, .timeout_ms = 30};
    CHECK_REFUSED(desc, ZCP_ERR_TIMEOUT, 0);
    desc.mode = ZCP_SHM_CREATE_EXCLUSIVE;
    CHECK_REFUSED(desc, ZCP_ERR_TIMEOUT, 0);
    desc.mode = ZCP_SHM_OPEN_EXISTING;
    CHECK_REFUSED(desc, ZCP_ERR_NOT_FOUND, 0);                     // that one needs not wait
    test_resume(pid);
    test_join(pid);
    CHECK_OK(zcp_shm_open(&shm, &desc));
    CHECK_EQ(shm.created, 0);
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}

// The lock dies with its holder, also if a child lives on that was forked meanwhile.
static void fork_in_the_lock(void) {
    if (fork() == 0)
        for (;;)
            pause();
    kill(getpid(), SIGKILL);
}

static void die_and_leave_a_child(void *argument) {
    zcp_shm shm;
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    test_at_step("shm_locked", 1, TEST_CALL, fork_in_the_lock);
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = BYTES}));
    (void)argument;
}

TEST(shm_lock_does_not_live_on_in_a_child) {
    test_need("PR_SET_CHILD_SUBREAPER");
    test_need("MADV_DONTFORK");
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    CHECK(test_join_killed(test_spawn(die_and_leave_a_child, NULL)));
    check_sound_after();
    CHECK_OK(zcp_shm_unlink(test_instance()));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "re");
    int orphan;
    CHECK(file != NULL && fscanf(file, "%d", &orphan) == 1);
    fclose(file);
    test_kill(orphan);
}

// ---------------------------------------------------------------------------------------------------------------------
// At once

enum { OPENERS = 6, OPEN_ROUNDS = 25 };

typedef struct together {
    _Atomic uint32_t begin, end;
    zcp_shm_mode mode;
    _Atomic uint32_t created[OPEN_ROUNDS], opened[OPEN_ROUNDS], number;
} together;

static void open_together(void *argument) {
    together *all = argument;
    uint32_t me = atomic_fetch_add(&all->number, 1);
    for (int round = 0; round < OPEN_ROUNDS; round++) {
        zcp_shm shm;
        zcp_shm_desc desc = {.name = test_instance_n(round), .bytes = 64 << 10, .mode = all->mode};
        test_meet(&all->begin, OPENERS);
        zcp_status status = zcp_shm_open(&shm, &desc);
        _Atomic uint32_t *words = shm.base;
        if (status == ZCP_OK) {
            CHECK_EQ(shm.bytes, 64 << 10);
            atomic_fetch_add(&all->created[round], shm.created);
            atomic_fetch_add(&all->opened[round], 1);
            words[me] = me + 1;
        } else {
            CHECK_STATUS(status, ZCP_ERR_EXISTS);
            CHECK_EQ(all->mode, ZCP_SHM_CREATE_EXCLUSIVE);
        }
        test_meet(&all->end, OPENERS);
        if (all->mode == ZCP_SHM_OPEN_OR_CREATE)                   // all have the same object
            for (uint32_t i = 0; i < OPENERS; i++)
                CHECK_EQ(words[i], i + 1);
        if (status == ZCP_OK)
            zcp_shm_close(&shm);
    }
}

static void check_together(zcp_shm_mode mode) {
    together *all = test_shared(sizeof *all);
    pid_t pids[OPENERS];
    all->mode = mode;
    for (int i = 0; i < OPENERS; i++)
        pids[i] = test_spawn(open_together, all);
    for (int i = 0; i < OPENERS; i++)
        test_join(pids[i]);
    for (int round = 0; round < OPEN_ROUNDS; round++) {
        CHECK_EQ(all->created[round], mode == ZCP_SHM_PURGE_AND_CREATE ? OPENERS : 1);
        CHECK_EQ(all->opened[round], mode == ZCP_SHM_CREATE_EXCLUSIVE ? 1 : OPENERS);
        CHECK_OK(zcp_shm_unlink(test_instance_n(round)));
    }
}

TEST(shm_exactly_one_of_several_openers_creates) {
    check_together(ZCP_SHM_OPEN_OR_CREATE);
}

TEST(shm_exactly_one_exclusive_creator) {
    check_together(ZCP_SHM_CREATE_EXCLUSIVE);
}

TEST(shm_each_purger_creates) {
    check_together(ZCP_SHM_PURGE_AND_CREATE);
}

static void *open_in_thread(void *argument) {
    _Atomic uint32_t *words = argument;                            // begin, created
    zcp_shm shm;
    test_meet(&words[0], 4);
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 64 << 10}));
    atomic_fetch_add(&words[1], shm.created);
    zcp_shm_close(&shm);
    return NULL;
}

TEST(shm_exactly_one_of_several_threads_creates) {
    for (int round = 0; round < 20; round++) {
        _Atomic uint32_t words[2] = {0, 0};
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            threads[i] = test_thread(open_in_thread, words);
        for (int i = 0; i < 4; i++)
            test_thread_join(threads[i]);
        CHECK_EQ(words[1], 1);
        CHECK_OK(zcp_shm_unlink(test_instance()));
    }
}
