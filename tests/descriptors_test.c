// tests/descriptors_test.c: what the library opens is never descriptor 0, 1 or 2 while it can be read or written, and
// what it maps is never there for a child that is forked meanwhile. It has a copy of the library of its own, in which
// each open, mmap and madvise is looked at while the call that made it is still under way.
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>

static int watched_open(const char *path, int flags);
static int watched_shm_open(const char *name, int flags, mode_t mode);
static void *watched_mmap(void *where, size_t bytes, int protection, int flags, int fd, off_t offset);
static int watched_madvise(void *memory, size_t bytes, int advice);

#define ZEROCP_STATIC
#define ZEROCP_IMPLEMENTATION
#define open(path, flags) watched_open(path, flags)
#define shm_open(name, flags, mode) watched_shm_open(name, flags, mode)
#define mmap(where, bytes, protection, flags, fd, offset) watched_mmap(where, bytes, protection, flags, fd, offset)
#define madvise(memory, bytes, advice) watched_madvise(memory, bytes, advice)
#include "zerocp.h"
#undef open
#undef shm_open
#undef mmap
#undef madvise

#include "harness/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNKS = 20, LOW = 3 };

#define CHECK_IS(actual, expected)                                                                                     \
    do {                                                                                                               \
        zcp_status actual_ = (actual);                                                                                 \
        CHECK_MSG(actual_ == (expected), "%s, %s", zcp_status_name(actual_), zcp_last_message());                      \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// What is looked at

static _Atomic int opened, low_and_open, fillers, opening_at_once;
static _Atomic int mapped, unguarded, advised_late;
static _Atomic(void *) mapped_last;
static void (*within_open)(void);                                  // called in each open of an object

static int look_at(int fd) {
    opened++;
    if (fd < 0 || fd >= LOW)
        return fd;
    if (fcntl(fd, F_GETFL) & ZCP_PRIV_O_PATH)                      // can be neither read nor written
        fillers++;
    else
        low_and_open++;
    return fd;
}

static int watched_open(const char *path, int flags) {
    return look_at(open(path, flags));
}

static int watched_shm_open(const char *name, int flags, mode_t mode) {
    if (within_open != NULL)
        within_open();
    return look_at(shm_open(name, flags, mode));
}

// A fork by pthread_atfork's rules waits for this mutex.
static bool fork_is_held_off(void) {
    zcp_priv_process *process = zcp_priv_process_get();
    if (process == NULL)
        return false;
    if (pthread_mutex_trylock(&process->mutex) != 0)
        return true;
    pthread_mutex_unlock(&process->mutex);
    return false;
}

static void *watched_mmap(void *where, size_t bytes, int protection, int flags, int fd, off_t offset) {
    void *memory = mmap(where, bytes, protection, flags, fd, offset);
    if (fd < 0 || memory == MAP_FAILED)
        return memory;
    mapped++;
    unguarded += !fork_is_held_off();
    mapped_last = memory;
    return memory;
}

static int watched_madvise(void *memory, size_t bytes, int advice) {
    if (advice == MADV_DONTFORK && memory == mapped_last) {
        advised_late += !fork_is_held_off();
        mapped_last = NULL;
    }
    return madvise(memory, bytes, advice);
}

// ---------------------------------------------------------------------------------------------------------------------
// All that opens or maps something

static zcp_config config(void) {
    zcp_config pools = {0};
    CHECK_IS(zcp_config_add_pool(&pools, 100, CHUNKS), ZCP_OK);
    return pools;
}

static void die_holding(void *name) {
    zcp_manager *manager;
    zcp_chunk chunk;
    CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING}), ZCP_OK);
    for (int i = 0; i < CHUNKS; i++)
        CHECK_IS(zcp_chunk_allocate(manager, 100, &chunk), ZCP_OK);
    raise(SIGKILL);
}

static void use_all(zcp_manager *manager, uint64_t size) {
    zcp_chunk chunks[CHUNKS];
    for (int i = 0; i < CHUNKS; i++) {
        CHECK_IS(zcp_chunk_allocate(manager, size, &chunks[i]), ZCP_OK);
        memset(chunks[i].data, i, (size_t)size);
    }
    for (int i = 0; i < CHUNKS; i++)
        zcp_chunk_release(&chunks[i]);
}

static void open_and_map_everything(void) {
    const char *name = test_instance();
    zcp_config pools = config();
    zcp_manager *manager, *second, *observer;
    zcp_client_info client;
    zcp_recovery report;
    zcp_shm shm;
    uint32_t number;
    CHECK_IS(zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .config = &pools}), ZCP_OK);
    CHECK_IS(zcp_manager_open(&second, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING}), ZCP_OK);
    zcp_manager_desc look = {.name = name, .mode = ZCP_SHM_OPEN_EXISTING, .flags = ZCP_OBSERVE};
    CHECK_IS(zcp_manager_open(&observer, &look), ZCP_OK);
    zcp_pool_config added = {.chunk_size = 1000, .chunk_count = CHUNKS};
    CHECK_IS(zcp_manager_add_pool(manager, &added, &number), ZCP_OK);
    test_join_signal(test_spawn(die_holding, (void *)(uintptr_t)name), SIGKILL);
    CHECK_IS(zcp_manager_client_info(observer, 2, &client), ZCP_OK);
    CHECK_IS(zcp_manager_recover(manager, &report), ZCP_OK);
    CHECK_EQ(report.dead_clients, 1);
    use_all(second, 100);
    use_all(second, 1000);
    CHECK_IS(zcp_manager_check(manager), ZCP_OK);
    zcp_manager_close(observer);
    zcp_manager_close(second);
    zcp_manager_close(manager);
    CHECK_IS(zcp_manager_destroy(name), ZCP_OK);
    CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .bytes = 4096}), ZCP_OK);
    zcp_shm_close(&shm);
    CHECK_IS(zcp_shm_unlink(name), ZCP_OK);
}

// ---------------------------------------------------------------------------------------------------------------------
// Descriptors 0, 1 and 2

static int standard_bits(void) {
    int bits = 0;
    for (int fd = 0; fd < LOW; fd++)
        bits |= (fcntl(fd, F_GETFD) >= 0) << fd;
    return bits;
}

// Those of the bits; a failure that is told after speak_again is told aloud.
static int silent_output;

static void close_standard(int bits) {
    silent_output = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    for (int fd = 0; fd < LOW; fd++)
        if (bits >> fd & 1)
            close(fd);
}

static void speak_again(void) {
    dup2(silent_output, STDOUT_FILENO);
    dup2(silent_output, STDERR_FILENO);
}

static void work_without(void *argument) {
    int closed = *(int *)argument;
    close_standard(closed);
    open_and_map_everything();
    int left = standard_bits();
    speak_again();
    CHECK_EQ(left, ~closed & 7);
    CHECK_MSG(low_and_open == 0, "closed: %d: %d of %d that were opened were 0, 1 or 2", closed, low_and_open, opened);
    CHECK_EQ(fillers > 0, closed != 0);
    CHECK(opened > 20);
}

TEST(descriptors_below_three_are_not_taken) {
    for (int closed = 0; closed < 8; closed++)
        test_join(test_spawn(work_without, &closed));
}

// One thread prints all the time to a standard output that is closed.
static _Atomic bool done;

static void *print_to_nowhere(void *argument) {
    static const char text[] = "a line that nobody reads, and that may land nowhere\n";
    (void)argument;
    while (!done)
        (void)!syscall(SYS_write, STDOUT_FILENO, text, sizeof text);       // as TSan would see a race on the number
    return NULL;
}

static void print_meanwhile(void *argument) {
    (void)argument;
    close_standard(1 << STDOUT_FILENO);
    pthread_t printer = test_thread(print_to_nowhere, NULL);
    for (int i = 0; i < 20; i++)
        open_and_map_everything();                                 // which verifies what it has opened
    done = true;
    test_thread_join(printer);
    speak_again();
    CHECK_EQ(low_and_open, 0);
}

TEST(descriptors_a_thread_prints_while_others_are_opened) {
    test_join(test_spawn(print_meanwhile, NULL));
}

// Nobody counts on what another thread is about to close: one opens at a time.
static _Atomic int most_at_once;

static void open_alone(void) {
    int now = ++opening_at_once;
    if (now > most_at_once)
        most_at_once = now;
    sched_yield();
    opening_at_once--;
}

static void *open_and_close(void *argument) {
    char name[200];
    snprintf(name, sizeof name, "%s", test_instance_n(*(int *)argument));
    for (int i = 0; i < 50; i++) {
        zcp_shm shm;
        CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = name, .bytes = 4096}), ZCP_OK);
        zcp_shm_close(&shm);
        CHECK_IS(zcp_shm_unlink(name), ZCP_OK);
    }
    return NULL;
}

static void open_by_threads(void *argument) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int numbers[THREADS];
    (void)argument;
    close_standard(3);
    within_open = open_alone;
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        threads[i] = test_thread(open_and_close, &numbers[i]);
    }
    for (int i = 0; i < THREADS; i++)
        test_thread_join(threads[i]);
    int left = standard_bits();
    speak_again();
    CHECK_EQ(most_at_once, 1);
    CHECK_EQ(low_and_open, 0);
    CHECK_EQ(left, 4);
}

TEST(descriptors_one_thread_opens_at_a_time) {
    test_join(test_spawn(open_by_threads, NULL));
}

// The application opens a standard output of its own just then: it stays.
static int of_the_application;

static void give_an_output(void) {
    dup2(of_the_application, STDOUT_FILENO);
}

static void open_while_given(void *argument) {
    struct stat given, is;
    zcp_shm shm;
    (void)argument;
    of_the_application = open("/dev/null", O_WRONLY | O_CLOEXEC);
    close_standard(1 << STDOUT_FILENO);
    within_open = give_an_output;
    CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 4096}), ZCP_OK);
    zcp_shm_close(&shm);
    CHECK_IS(zcp_shm_unlink(test_instance()), ZCP_OK);
    bool stays = fstat(of_the_application, &given) == 0 && fstat(STDOUT_FILENO, &is) == 0;
    stays = stays && given.st_ino == is.st_ino && given.st_dev == is.st_dev;
    speak_again();
    CHECK_MSG(stays, "the application's standard output was closed");
    CHECK_EQ(low_and_open, 0);
}

TEST(descriptors_that_the_application_opens_meanwhile_stay) {
    test_join(test_spawn(open_while_given, NULL));
}

// It closes its standard output just then, and the object gets that number: it does not keep it.
static void take_the_output(void) {
    close(STDOUT_FILENO);
}

static void open_while_taken(void *argument) {
    zcp_shm shm;
    (void)argument;
    within_open = take_the_output;
    CHECK_IS(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = 4096}), ZCP_OK);
    int left = standard_bits();
    dup2(STDERR_FILENO, STDOUT_FILENO);
    CHECK_EQ(left, 5);
    zcp_shm_close(&shm);
    CHECK_IS(zcp_shm_unlink(test_instance()), ZCP_OK);
}

TEST(descriptors_that_the_application_closes_meanwhile_stay_closed) {
    test_join(test_spawn(open_while_taken, NULL));
}

// ---------------------------------------------------------------------------------------------------------------------
// Forks

// Each file is mapped, and kept out of children, while no fork can come; but for zcp_shm_open's, which children get.
static void map_everything(void *argument) {
    (void)argument;
    open_and_map_everything();
    CHECK(mapped > 10);
    CHECK_MSG(unguarded == 1, "%d of %d mappings were made while a fork could come", unguarded, mapped);
    CHECK_EQ(advised_late, 0);
}

TEST(descriptors_no_fork_falls_into_a_mapping) {
    test_join(test_spawn(map_everything, NULL));
}
