// tests/locks_test.c: who may only read the management segment can lock it for reading, and shuts nobody out by that.
// Who lives, creates, adds or destroys is told by locks on another object, which only those can open who may write.
#include "harness/pools.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 64, COUNT = 16 };
enum { CREATION = 1 << 30, LOCKED = 2000 };                        // lock bytes, as in zerocp_shm.h, and some more

static const char *path_to(const char *kind) {
    static char path[320];
    snprintf(path, sizeof path, "/dev/shm/%s_memory_%s", test_instance(), kind);
    return path;
}

// As the reader: all that can be locked, one byte after the other, so that what others hold is no obstacle.
static int read_lock_all(void) {
    int fd = open(path_to("management"), O_RDONLY | O_CLOEXEC);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
    CHECK_MSG(fd >= 0, "%s", strerror(errno));
    for (off_t byte = 0; byte < LOCKED; byte++) {
        lock.l_start = CREATION + byte;
        CHECK(fcntl(fd, F_OFD_SETLK, &lock) == 0 || errno == EAGAIN);
    }
    return fd;
}

static zcp_client_state state_of(zcp_manager *manager, uint32_t slot) {
    zcp_client_info info;
    CHECK_OK(zcp_manager_client_info(manager, slot, &info));
    return info.state;
}

static zcp_manager *create_readable(void) {
    zcp_config config = one_pool(SIZE, COUNT);
    zcp_manager *manager;
    zcp_manager_desc desc = {.name = test_instance(), .config = &config, .permissions = 0644, .timeout_ms = 1000};
    CHECK_OK(zcp_manager_open(&manager, &desc));
    return manager;
}

typedef struct victim { _Atomic uint32_t ready; } victim;

static void hold_until_killed(void *argument) {
    victim *v = argument;
    zcp_manager *manager = attach();
    for (int i = 0; i < COUNT / 2; i++)
        (void)allocate(manager, SIZE);
    test_signal(&v->ready);
    for (;;)
        pause();
}

static pid_t begin_victim(void) {
    victim *v = test_shared(sizeof *v);
    pid_t pid = test_spawn(hold_until_killed, v);
    test_await(&v->ready, 1);
    return pid;
}

// ---------------------------------------------------------------------------------------------------------------------
// A reader's locks

TEST(locks_of_a_reader_shut_nobody_out) {
    zcp_manager *manager = create_readable(), *observer = attach_named(test_instance(), ZCP_OBSERVE);
    pid_t before = begin_victim();
    int reader = read_lock_all();
    CHECK_EQ(state_of(observer, 1), ZCP_CLIENT_ALIVE);             // it had its lock first
    test_kill(before);
    int again = read_lock_all();                                   // now the dead one's as well
    CHECK_EQ(state_of(observer, 1), ZCP_CLIENT_DEAD);              // a reader's lock makes nobody look alive
    CHECK_EQ(state_of(manager, 1), ZCP_CLIENT_DEAD);
    CHECK_RECOVERS(manager, 1, COUNT / 2);
    pid_t after = begin_victim();
    CHECK_EQ(state_of(manager, 1), ZCP_CLIENT_ALIVE);              // only observers are deceived
    CHECK_RECOVERS(manager, 0, 0);
    CHECK_EQ(add_pool(manager, 1000, 4), 1);
    zcp_config other = one_pool(SIZE, 2 * COUNT);
    CHECK_OK(zcp_manager_reconfigure(manager, &other));
    test_kill(after);
    CHECK_RECOVERS(manager, 1, COUNT / 2);
    zcp_manager_close(observer);
    finish(manager);                                               // destroys it
    close(again);
    close(reader);
}

// A new instance in the place of one that a reader has locked, and creation where there is nothing yet.
TEST(locks_of_a_reader_keep_nobody_from_replacing) {
    zcp_config config = one_pool(SIZE, COUNT);
    zcp_manager *manager = create_readable();
    int reader = read_lock_all();
    zcp_manager_close(manager);
    zcp_manager_desc desc = {.name = test_instance(), .config = &config, .permissions = 0644, .timeout_ms = 1000};
    desc.mode = ZCP_SHM_PURGE_AND_CREATE;
    CHECK_OK(zcp_manager_open(&manager, &desc));
    int next = read_lock_all();
    zcp_manager_close(manager);
    config = one_pool(SIZE, COUNT + 1);                            // nobody has it open: replaced
    desc.mode = ZCP_SHM_OPEN_OR_CREATE;
    CHECK_OK(zcp_manager_open(&manager, &desc));
    finish(manager);
    close(next);
    close(reader);
}

static void create_and_die(void *argument) {
    test_step_any_kill(*(int *)argument);
    zcp_manager *manager = create_readable();
    test_steps_clear();
    zcp_manager_close(manager);
}

TEST(locks_of_a_reader_on_what_a_killed_creator_left) {
    bool killed = true;
    int step = 1, locked = 0;
    for (; killed; step++) {
        int reader = -1;
        killed = test_join_killed(test_spawn(create_and_die, &step));
        if (access(path_to("management"), F_OK) == 0) {
            reader = read_lock_all();
            locked++;
        }
        finish(create_readable());
        close(reader);
    }
    test_note("%d steps, %d times locked", step, locked);
    CHECK(locked > 8);
}

// ---------------------------------------------------------------------------------------------------------------------
// The lock object

static void become_nobody(void) {
    CHECK_EQ(setgroups(0, NULL), 0);
    CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
}

static void look_as_nobody(void *argument) {
    (void)argument;
    become_nobody();
    CHECK(open(path_to("locks"), O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
    zcp_manager *observer;
    CHECK_OK(zcp_manager_open(&observer, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING,
                                                             .flags = ZCP_OBSERVE | ZCP_SHM_ANY_OWNER}));
    CHECK_EQ(state_of(observer, 0), ZCP_CLIENT_ALIVE);
    CHECK_EQ(state_of(observer, 1), ZCP_CLIENT_DEAD);
    zcp_manager_close(observer);
}

TEST(locks_tell_observers_of_another_user_who_lives) {
    if (geteuid() != 0)
        test_skip("needs root");
    zcp_manager *manager = create_readable();
    test_kill(begin_victim());
    test_join(test_spawn(look_as_nobody, NULL));
    CHECK_RECOVERS(manager, 1, COUNT / 2);
    finish(manager);
}

TEST(locks_are_open_to_those_who_may_write) {
    static const struct { uint32_t management, locks; } rights[] = {
        {0600, 0600}, {0644, 0600}, {0640, 0600}, {0660, 0660}, {0664, 0660}, {0666, 0666}, {0606, 0606}, {0777, 0666},
        {0620, 0660},
    };
    zcp_config config = one_pool(SIZE, COUNT);
    mode_t mask = umask(077);
    for (size_t i = 0; i < sizeof rights / sizeof rights[0]; i++) {
        zcp_manager *manager;
        struct stat status;
        CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config,
                                                                .permissions = rights[i].management}));
        CHECK_EQ(stat(path_to("locks"), &status), 0);
        CHECK_EQ(status.st_mode & 07777, rights[i].locks);
        CHECK_EQ(status.st_size, 0);
        finish(manager);
    }
    umask(mask);
}

// Its other names were removed by hand, and it has clients: the next instance does not share its locks.
TEST(locks_of_an_instance_without_a_name_are_its_own) {
    zcp_config config = one_pool(SIZE, COUNT);
    zcp_manager *old = create(SIZE, COUNT), *new;
    pid_t of_the_old = begin_victim();
    CHECK(unlink(path_to("management")) == 0 && unlink(path_to("chunk")) == 0);
    CHECK_OK(zcp_manager_open(&new, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    CHECK_EQ(slot_of(new), 0);                                     // as old's
    pid_t of_the_new = begin_victim();
    test_kill(of_the_new);
    CHECK_EQ(state_of(new, 1), ZCP_CLIENT_DEAD);                   // whoever lives in the other one's slot 1
    CHECK_RECOVERS(new, 1, COUNT / 2);
    of_the_new = begin_victim();
    test_kill(of_the_old);
    CHECK_RECOVERS(old, 1, COUNT / 2);
    test_kill(of_the_new);
    CHECK_RECOVERS(new, 1, COUNT / 2);
    books_check_by(old, 0);
    zcp_manager_close(old);
    finish(new);
}
