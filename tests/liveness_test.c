// tests/liveness_test.c: alive is who can still touch the memory, and nobody else. Children of every kind
// of fork, descriptors closed by the application, threads that still run, handles that outlive their manager.
#include "harness/chunks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

// ---------------------------------------------------------------------------------------------------------------------
// Children of every kind

typedef enum { BY_FORK, BY_FORK_WITHOUT_HANDLERS, BY_CLONE, BY_SPAWN, BY_VFORK, KINDS } kind;

static const char *const kind_names[] = {"fork", "_Fork", "clone", "posix_spawn", "vfork"};

__attribute__((weak)) pid_t _Fork(void);

// TSan's runtime does not survive a fork that bypasses it, once the child calls into it.
static bool can_work_in(kind how) {
#if defined(TEST_TSAN)
    return how == BY_FORK;
#else
    return how == BY_FORK || how == BY_CLONE || (how == BY_FORK_WITHOUT_HANDLERS && _Fork != NULL);
#endif
}

// fork, _Fork or clone: 0 in the child.
static pid_t fork_by(kind how) {
    if (how == BY_FORK)
        return fork();
    if (how == BY_FORK_WITHOUT_HANDLERS && _Fork != NULL)
        return _Fork();
#if defined(__s390x__)
    return (pid_t)syscall(SYS_clone, NULL, SIGCHLD, NULL, NULL, NULL);      // the stack comes first there
#else
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
#endif
}

// Stops itself first, so that one can wait for it to run: exec lets go of the old memory only on its way back to user
// mode, later than vfork returns in the parent, and later than /proc shows the new program.
TEST_PROGRAM(liveness_idle, argument) {
    (void)argument;
    raise(SIGSTOP);
    for (;;)
        pause();
}

static pid_t spawn_idle(void) {
    char **argv = test_exec_argv("liveness_idle", "");
    pid_t pid;
    CHECK_EQ(posix_spawn(&pid, argv[0], NULL, NULL, argv, environ), 0);
    return pid;
}

static pid_t vfork_idle(void) {
    char **argv = test_exec_argv("liveness_idle", "");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    pid_t pid = vfork();                                           // back here only when it has exec'd
#pragma GCC diagnostic pop
    if (pid == 0) {
        execve(argv[0], argv, environ);
        _exit(1);
    }
    return pid;
}

// A child that lives on and does nothing. Without exec it makes system calls only, and so works in any process.
static pid_t idle_child(kind how) {
    if (how == BY_SPAWN || how == BY_VFORK) {
        pid_t program = how == BY_SPAWN ? spawn_idle() : vfork_idle();
        test_await_stop(program);
        test_resume(program);
        return program;
    }
    pid_t pid = fork_by(how);
    while (pid == 0)
        syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
    return pid;
}

// The descriptors of this process that lead to the test's segments; returns how many.
static int own_descriptors(int *found, int at_most) {
    char link[64], target[512];
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        snprintf(link, sizeof link, "/proc/self/fd/%.16s", entry->d_name);
        ssize_t length = readlink(link, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        if (strstr(target, test_instance()) != NULL && count < at_most)
            found[count++] = atoi(entry->d_name);
    }
    closedir(directory);
    return count;
}

// ---------------------------------------------------------------------------------------------------------------------
// A parent that dies while its child lives

typedef struct family {
    kind how;
    bool leaks;                                                    // the child inherits a dup of each descriptor
    const char *where;                                             // the step at which the child is born, and it dies
    _Atomic uint32_t ready;
    _Atomic pid_t child;
    bool opens;                                                    // and the rest happens there
} family;

static family *mine;

static void have_child(void) {
    if (mine->leaks) {
        int found[16], count = own_descriptors(found, 16);
        CHECK(count > 0);
        for (int i = 0; i < count; i++)
            CHECK(dup(found[i]) >= 0);
    }
    pid_t child = idle_child(mine->how);
    CHECK(child > 0);
    atomic_store(&mine->child, child);
}

static void hold_and_have_child(void *argument) {
    mine = argument;
    zcp_manager *manager = attach();
    zcp_chunk a = allocate(manager, 64), b = allocate(manager, 64), c = acquire(manager, token_of(&b));
    CHECK(a.data != NULL && c.data == b.data);
    have_child();
    test_signal(&mine->ready);
    for (;;)
        pause();
}

static void check_child_does_not_prolong(kind how, bool leaks) {
    zcp_manager *manager = create(64, 4);
    zcp_client_info info;
    family *shared = test_shared(sizeof *shared);
    shared->how = how;
    shared->leaks = leaks;
    pid_t parent = test_spawn(hold_and_have_child, shared);
    test_await(&shared->ready, 1);
    CHECK_RECOVERS(manager, 0, 0);                                 // the child has not taken the lock away either
    CHECK_EQ(used(manager), 2);
    test_kill(parent);
    CHECK(kill(shared->child, 0) == 0);
    CHECK_OK(zcp_manager_client_info(manager, slot_of(manager) == 0 ? 1 : 0, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_DEAD);
    zcp_recovery report = recover(manager);
    CHECK_MSG(report.dead_clients == 1 && report.chunks_reclaimed == 2, "%s: %u dead, %llu chunks", kind_names[how],
              report.dead_clients, (unsigned long long)report.chunks_reclaimed);
    CHECK(kill(shared->child, 0) == 0);
    test_kill(shared->child);
    CHECK_RECOVERS(manager, 0, 0);
    finish(manager);
}

TEST(liveness_a_living_child_of_any_kind_does_not_prolong_its_parent) {
    test_need("MADV_DONTFORK");
    for (kind how = BY_FORK; how < KINDS; how++) {
        check_child_does_not_prolong(how, false);
        check_child_does_not_prolong(how, true);
    }
}

TEST_PROGRAM(liveness_look_at_descriptors, argument) {
    int found[16];
    (void)argument;
    CHECK_EQ(own_descriptors(found, 16), 0);
}

TEST(liveness_descriptors_do_not_cross_exec) {
    int found[16];
    zcp_manager *manager = create(64, 4), *peer = attach();
    CHECK(own_descriptors(found, 16) > 0);
    test_join(test_exec("liveness_look_at_descriptors", NULL));
    zcp_manager_close(peer);
    zcp_manager_close(manager);
    CHECK_EQ(own_descriptors(found, 16), 0);                       // nor do they stay after close
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// A child that dies, execs or is killed takes nothing from its parent.
TEST(liveness_a_dying_child_of_any_kind_does_not_shorten_its_parent) {
    zcp_manager *manager = create(64, 4), *peer = attach();
    zcp_chunk chunk = allocate(manager, 64);
    pattern_write(&chunk, 3);
    for (kind how = BY_FORK; how < KINDS; how++) {
        pid_t child = idle_child(how);
        test_kill(child);
        CHECK_RECOVERS(peer, 0, 0);
        child = test_exec("liveness_idle", NULL);
        test_kill(child);
        CHECK_RECOVERS(peer, 0, 0);
        CHECK_RECOVERS(manager, 0, 0);
    }
    pattern_check(&chunk, 3);
    zcp_chunk_release(&chunk);
    zcp_manager_close(peer);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// ... while it creates, attaches, sweeps, recovers

static void have_child_and_die(void) {
    have_child();
    for (;;)
        kill(getpid(), SIGKILL);
}

static void open_and_die(void *argument) {
    mine = argument;
    zcp_config config = one_pool(64, 4);
    zcp_manager *manager;
    test_at_step(mine->where, 1, TEST_CALL, have_child_and_die);
    (void)zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config});
    test_fail(__FILE__, __LINE__, "nobody came by \"%s\"", mine->where);
}

static void check_opens_at_once(family *shared) {
    zcp_config config = one_pool(64, 4);
    zcp_manager *manager;
    uint64_t began = test_now();
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config,
                                                            .timeout_ms = 3000}));
    CHECK_MSG(test_now() - began < 3000000000, "%s at %s", kind_names[shared->how], shared->where);
    CHECK(kill(shared->child, 0) == 0);
    CHECK_RECOVERS(manager, 0, 0);
    CHECK_EQ(used(manager), 0);
    finish(manager);
    test_kill(shared->child);
}

TEST(liveness_of_a_creator_that_was_killed_with_a_child_alive) {
    test_need("MADV_DONTFORK");
    static const char *const names[] = {"management_created", "creation_locked", "started", "management_sized",
                                        "chunk_created", "chunk_sized", "formatted", "slot_locked", "joined"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (kind how = BY_FORK; how < KINDS; how++) {
            family *shared = test_shared(sizeof *shared);
            shared->how = how;
            shared->where = names[i];
            test_join_signal(test_spawn(open_and_die, shared), SIGKILL);
            check_opens_at_once(shared);
        }
}

TEST(liveness_of_one_who_was_killed_attaching_with_a_child_alive) {
    test_need("MADV_DONTFORK");
    static const char *const names[] = {"slot_locked", "joined"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (kind how = BY_FORK; how < KINDS; how++) {
            zcp_manager *manager = create(64, 4);
            family *shared = test_shared(sizeof *shared);
            shared->how = how;
            shared->where = names[i];
            test_join_signal(test_spawn(open_and_die, shared), SIGKILL);
            CHECK_RECOVERS(manager, i, 0);                         // in use only once it has joined
            zcp_manager_close(manager);
            check_opens_at_once(shared);
        }
}

typedef struct dead_with_chunks {
    family family;
    _Atomic uint32_t ready, go;
} dead_with_chunks;

static void hold_two(void *argument) {
    _Atomic uint32_t *ready = argument;
    zcp_manager *manager = attach();
    zcp_chunk a = allocate(manager, 64), b = allocate(manager, 64);
    CHECK(token_of(&a) != token_of(&b));
    test_signal(ready);
    for (;;)
        pause();
}

static void sweep_and_die(void *argument) {
    dead_with_chunks *shared = argument;
    mine = &shared->family;
    zcp_manager *manager = NULL;
    if (!mine->opens)
        manager = attach();
    test_signal(&shared->ready);
    test_await(&shared->go, 1);
    test_at_step(mine->where, 2, TEST_CALL, have_child_and_die);
    if (strcmp(mine->where, "sweeping") == 0 || strcmp(mine->where, "swept") == 0)
        test_steps_clear(), test_at_step(mine->where, 1, TEST_CALL, have_child_and_die);
    if (mine->opens)
        (void)attach();
    else
        (void)recover(manager);
    test_fail(__FILE__, __LINE__, "nobody came by \"%s\"", mine->where);
}

static void check_killed_sweeper(kind how, const char *where, bool opens) {
    zcp_manager *manager = create(64, 4);
    dead_with_chunks *shared = test_shared(sizeof *shared);
    _Atomic uint32_t *holding = test_shared(sizeof *holding);
    shared->family.how = how;
    shared->family.where = where;
    shared->family.opens = opens;
    pid_t victim = test_spawn(hold_two, holding);
    test_await(holding, 1);
    pid_t sweeper = test_spawn(sweep_and_die, shared);
    test_await(&shared->ready, 1);
    test_kill(victim);
    test_signal(&shared->go);
    test_join_signal(sweeper, SIGKILL);
    CHECK(kill(shared->family.child, 0) == 0);
    uint64_t before = used(manager);
    zcp_recovery report = recover(manager);                        // an opener may sweep the slot that it takes itself
    CHECK(report.dead_clients == 2 || (opens && report.dead_clients == 1));
    CHECK_EQ(report.chunks_reclaimed, before);
    CHECK_EQ(used(manager), 0);
    test_kill(shared->family.child);
    CHECK_RECOVERS(manager, 0, 0);
    finish(manager);
}

TEST(liveness_of_a_sweeper_that_was_killed_with_a_child_alive) {
    test_need("MADV_DONTFORK");
    static const char *const names[] = {"sweeping", "sweep_disowned", "freed", "swept"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (kind how = BY_FORK; how < KINDS; how++) {
            check_killed_sweeper(how, names[i], false);
            check_killed_sweeper(how, names[i], true);
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// What a forked child may do: open the instance itself

typedef struct inherited {
    zcp_manager *manager;
    zcp_chunk chunk;
    uint64_t token;
} inherited;

static void check_refused_here(inherited *all) {
    zcp_manager *manager = all->manager;
    zcp_manager_info info;
    zcp_client_info client;
    zcp_pool_stats stats;
    zcp_recovery report;
    zcp_chunk chunk = scribbled(), copy = all->chunk;
    char text[256];
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_FORKED);
    CHECK_ACQUIRE_FAILS(manager, all->token, ZCP_ERR_FORKED);
    CHECK_STATUS(zcp_manager_recover(manager, &report), ZCP_ERR_FORKED);
    CHECK_STATUS(zcp_manager_pool_stats(manager, 0, &stats), ZCP_ERR_FORKED);
    CHECK_STATUS(zcp_manager_get_info(manager, &info), ZCP_ERR_FORKED);
    CHECK_STATUS(zcp_manager_client_info(manager, 0, &client), ZCP_ERR_FORKED);
    CHECK_STATUS(zcp_manager_check(manager), ZCP_ERR_FORKED);
    CHECK_EQ(zcp_manager_pool_end(manager), 0);
    CHECK(zcp_manager_registry(manager) == NULL);
    CHECK(zcp_manager_find(test_instance()) != manager);
    CHECK(zcp_manager_format(manager, text, sizeof text) > 0 && strstr(text, "Pool") == NULL);
    CHECK(!zcp_chunk_is_valid(&copy) && zcp_chunk_data(&copy) == NULL && zcp_chunk_token(&copy) == 0);
    CHECK(zcp_chunk_size(&copy) == 0 && zcp_chunk_capacity(&copy) == 0 && zcp_chunk_use_count(&copy) == 0);
    chunk = zcp_chunk_clone(&copy);
    CHECK(is_empty(&chunk));
    zcp_chunk_release(&copy);
    CHECK(is_empty(&copy));
    zcp_manager_close(manager);
    zcp_manager_close(manager);
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_FORKED);
}

static void check_opens_itself(inherited *all) {
    zcp_manager *manager = attach();
    CHECK(zcp_manager_find(test_instance()) == manager);
    zcp_chunk theirs = acquire(manager, all->token), own = allocate(manager, 64);
    pattern_check(&theirs, all->token);
    CHECK_EQ(zcp_chunk_use_count(&theirs), 3);                     // two clients of the parent hold it
    pattern_write(&own, 5);
    pattern_check(&own, 5);
    CHECK_RECOVERS(manager, 0, 0);
    zcp_chunk_release(&theirs);
    zcp_chunk_release(&own);
    check_refused_here(all);                                       // the inherited one still is
    zcp_manager_close(manager);
}

static void child_of_a_client(inherited *all, bool opens) {
    CHECK(zcp_manager_find(test_instance()) == NULL);
    check_refused_here(all);
    if (opens)
        check_opens_itself(all);
    _exit(0);
}

static void check_refused_and_harmless(kind first, kind last) {
    for (kind how = first; how <= last; how++) {
        zcp_manager *manager = create(64, 4), *peer = attach();
        inherited all = {.manager = manager};
        all.chunk = allocate_with_pattern(manager, 64, &all.token);
        zcp_chunk seen = acquire(peer, all.token);
        for (int opens = 0; opens < 2 && can_work_in(how); opens++) {
            pid_t child = fork_by(how);
            if (child == 0)
                child_of_a_client(&all, opens == 1);
            test_join(child);
            CHECK_RECOVERS(peer, 0, 0);
            CHECK_EQ(used(manager), 1);
            CHECK_EQ(zcp_chunk_use_count(&all.chunk), 2);
            CHECK_EQ(zcp_chunk_token(&all.chunk), all.token);
            pattern_check(&all.chunk, all.token);
        }
        zcp_chunk more = allocate(manager, 64);
        zcp_chunk_release(&more);
        zcp_chunk_release(&seen);
        zcp_chunk_release(&all.chunk);
        zcp_manager_close(peer);
        finish(manager);
    }
}

TEST(liveness_a_forked_child_is_refused_and_harms_nothing) {
    check_refused_and_harmless(BY_FORK, BY_FORK);
}

TEST(liveness_a_child_forked_without_handlers_is_refused_and_harms_nothing) {
    test_need("MADV_WIPEONFORK");
    check_refused_and_harmless(BY_FORK_WITHOUT_HANDLERS, BY_CLONE);
}

// A child that opened the instance itself, and dies: its chunks come back, its parent's stay.
static void open_in_child(void *argument) {
    inherited *all = argument;
    zcp_manager *manager = attach();
    zcp_chunk own = allocate(manager, 64), theirs = acquire(manager, all->token);
    CHECK(own.data != theirs.data);
    kill(getpid(), SIGKILL);
}

TEST(liveness_a_child_that_opened_itself_dies_for_itself) {
    zcp_manager *manager = create(64, 4);
    inherited all = {.manager = manager};
    all.chunk = allocate_with_pattern(manager, 64, &all.token);
    test_join_signal(test_spawn(open_in_child, &all), SIGKILL);
    CHECK_EQ(used(manager), 2);
    CHECK_RECOVERS(manager, 1, 1);
    CHECK_EQ(zcp_chunk_use_count(&all.chunk), 1);
    pattern_check(&all.chunk, all.token);
    zcp_chunk_release(&all.chunk);
    finish(manager);
}

static void touch(volatile unsigned char *address) {
    signal(SIGSEGV, SIG_DFL);
    *address = *address;
    _exit(0);
}

TEST(liveness_a_forked_child_that_touches_the_memory_faults) {
    test_need("MADV_DONTFORK");
    zcp_manager *manager = create(64, 4);
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    zcp_chunk chunk = allocate(manager, 64);
    volatile unsigned char *const addresses[] = {chunk.data, info.chunk_base, info.management_base,
                                                 (unsigned char *)info.management_base + info.management_bytes - 1,
                                                 (unsigned char *)info.chunk_base + info.chunk_bytes - 1};
    for (kind how = BY_FORK; how <= BY_CLONE; how++)
        for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
#if defined(TEST_TSAN)
            if (how != BY_FORK)
                continue;
#endif
            pid_t child = fork_by(how);
            if (child == 0)
                touch(addresses[i]);
            test_join_signal(child, SIGSEGV);
        }
    zcp_chunk_release(&chunk);
    finish(manager);
}

// Forks beside threads that open, recover and close all the time: no child keeps a lock, none hangs.
typedef struct busy {
    _Atomic uint32_t end, done;
} busy;

static void *open_and_close(void *argument) {
    busy *shared = argument;
    while (atomic_load(&shared->end) == 0) {
        zcp_manager *manager = attach();
        (void)recover(manager);
        zcp_manager_close(manager);
    }
    return NULL;
}

static void open_once_and_idle(zcp_manager *inherited_manager, busy *shared) {
    CHECK_ALLOCATE_FAILS(inherited_manager, 64, ZCP_ERR_FORKED);
    zcp_manager_close(attach());                                   // the process's mutex is free here
    test_signal(&shared->done);
    for (;;)
        pause();
}

TEST(liveness_forks_beside_threads_that_open_and_close) {
    test_need("MADV_DONTFORK");
    enum { CLIENTS = 64, CHILDREN = 50 };
    zcp_manager *manager = create(64, 4), *others[CLIENTS];
    busy *shared = test_shared(sizeof *shared);
    pthread_t threads[2] = {test_thread(open_and_close, shared), test_thread(open_and_close, shared)};
    pid_t children[CHILDREN];
    int count = ROUNDS(CHILDREN);
    for (int i = 0; i < count; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0)
            open_once_and_idle(manager, shared);
    }
    test_await(&shared->done, (uint32_t)count);
    atomic_store(&shared->end, 1);
    test_thread_join(threads[0]);
    test_thread_join(threads[1]);
    CHECK_RECOVERS(manager, 0, 0);
    for (int i = 1; i < CLIENTS; i++)                              // so no child holds a slot
        others[i] = attach();
    for (int i = 1; i < CLIENTS; i++)
        zcp_manager_close(others[i]);
    for (int i = 0; i < count; i++)
        test_kill(children[i]);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Ends of every kind

typedef struct ending {
    _Atomic uint32_t holding, go;
    int how;
} ending;

enum { BY_EXIT, BY_EXEC, BY_ABORT, BY_LAST_THREAD, ENDINGS };

static void *outlive_main_thread(void *argument) {
    ending *shared = argument;
    test_await(&shared->go, 2);
    kill(getpid(), SIGKILL);
    return NULL;
}

static void end_without_closing(void *argument) {
    ending *shared = argument;
    zcp_manager *manager = attach();
    zcp_chunk a = allocate(manager, 64), b = acquire(manager, token_of(&a));
    CHECK(a.data == b.data);
    if (shared->how == BY_LAST_THREAD)
        (void)test_thread(outlive_main_thread, shared);
    test_signal(&shared->holding);
    test_await(&shared->go, 1);
    if (shared->how == BY_EXIT)
        _exit(0);
    if (shared->how == BY_ABORT) {
        signal(SIGTERM, SIG_DFL);
        raise(SIGTERM);
    }
    if (shared->how == BY_LAST_THREAD)
        syscall(SYS_exit, 0);                                      // of the main thread alone
    char **argv = test_exec_argv("liveness_idle", "");
    execve(argv[0], argv, environ);
}

static bool main_thread_ended(pid_t pid) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0 && read(file, text, sizeof text - 1) > 0);
    close(file);
    return strstr(text, ") Z") != NULL;
}

TEST(liveness_ends_with_the_address_space) {
    for (int how = 0; how < ENDINGS; how++) {
        zcp_manager *manager = create(64, 4);
        ending *shared = test_shared(sizeof *shared);
        shared->how = how;
        pid_t client = test_spawn(end_without_closing, shared);
        test_await(&shared->holding, 1);
        CHECK_RECOVERS(manager, 0, 0);
        test_signal(&shared->go);
        if (how == BY_EXIT)
            test_join(client);
        if (how == BY_ABORT)
            test_join_signal(client, SIGTERM);
        if (how == BY_EXEC)
            test_await_stop(client);
        if (how == BY_LAST_THREAD) {
            while (!main_thread_ended(client))
                test_sleep(1);
            CHECK_RECOVERS(manager, 0, 0);                         // a thread still runs there
            CHECK_EQ(used(manager), 1);
            test_signal(&shared->go);
            test_join_signal(client, SIGKILL);
        }
        CHECK_RECOVERS(manager, 1, 1);
        if (how == BY_EXEC)
            test_kill(client);
        finish(manager);
    }
}

// Threads at work while their process is killed: none of them does anything after the death was seen.
_Noreturn static void allocate_and_release(zcp_manager *manager) {
    for (uint64_t i = test_random();; i++) {
        zcp_chunk chunk;
        if (zcp_chunk_allocate(manager, 64, &chunk) != ZCP_OK)
            continue;
        pattern_write(&chunk, i);
        zcp_chunk again = acquire(manager, token_of(&chunk));
        zcp_chunk_release(&chunk);
        pattern_check(&again, i);
        zcp_chunk_release(&again);
    }
}

static void *run_thread(void *argument) {
    allocate_and_release(argument);
}

static void run_threads(void *argument) {
    _Atomic uint32_t *ready = argument;
    zcp_manager *manager = attach();
    for (int i = 0; i < 3; i++)
        (void)test_thread(run_thread, manager);
    test_signal(ready);
    allocate_and_release(manager);
}

TEST(liveness_of_a_process_killed_with_its_threads_running) {
    zcp_manager *manager = create(64, 6);
    for (int round = 0; round < ROUNDS(60); round++) {
        zcp_chunk chunks[6];
        _Atomic uint32_t *ready = test_shared(sizeof *ready);
        pid_t client = test_spawn(run_threads, ready);
        test_await(ready, 1);
        test_sleep((unsigned)test_random_below(4));
        test_kill(client);
        CHECK_EQ(recover(manager).dead_clients, 1);
        CHECK_EQ(used(manager), 0);
        for (uint64_t i = 0; i < 6; i++) {
            chunks[i] = allocate_in_the_end(manager, 64);
            pattern_write(&chunks[i], i);
        }
        test_sleep(1);
        for (uint64_t i = 0; i < 6; i++) {                         // nobody writes into them any more
            pattern_check(&chunks[i], i);
            zcp_chunk_release(&chunks[i]);
        }
    }
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Descriptors closed by the application, and their numbers used again

static void close_all_descriptors(void) {
    int found[16];
    CHECK_EQ(syscall(SYS_close_range, 3u, ~0u, 0u), 0);
    CHECK_EQ(own_descriptors(found, 16), 0);
}

typedef struct closer {
    _Atomic uint32_t closed, done, go[3];
    uint32_t slot;
    bool reuses;
} closer;

// The application's own files, on the numbers that the library had.
typedef struct own_files {
    int count, fds[64];
    struct stat status[64];
} own_files;

static void open_own_files(own_files *files) {
    files->count = 40;
    for (int i = 0; i < files->count; i++) {
        files->fds[i] = memfd_create("application", 0);
        CHECK(files->fds[i] >= 0 && fstat(files->fds[i], &files->status[i]) == 0);
    }
}

static void check_own_files(const own_files *files) {
    for (int i = 0; i < files->count; i++) {
        struct stat now;
        CHECK_MSG(fstat(files->fds[i], &now) == 0, "descriptor %d is gone", files->fds[i]);
        CHECK(now.st_ino == files->status[i].st_ino && now.st_dev == files->status[i].st_dev);
    }
}

static void live_without_descriptors(void *argument) {
    closer *shared = argument;
    own_files files = {.count = 0};
    zcp_client_info info;
    zcp_manager *manager = attach();
    zcp_chunk chunk = allocate(manager, 64);
    pattern_write(&chunk, 9);
    shared->slot = slot_of(manager);
    close_all_descriptors();
    if (shared->reuses)
        open_own_files(&files);
    test_signal(&shared->closed);
    test_await(&shared->go[0], 1);
    pattern_check(&chunk, 9);
    CHECK_OK(zcp_manager_check(manager));
    CHECK_OK(zcp_manager_client_info(manager, shared->slot == 0 ? 1 : 0, &info));
    CHECK_EQ(info.state, ZCP_CLIENT_ALIVE);
    test_signal(&shared->done);                                    // now a client of the test has died
    test_await(&shared->go[1], 1);
    CHECK_RECOVERS(manager, 1, 2);
    check_own_files(&files);
    zcp_chunk more[3];
    for (int i = 0; i < 3; i++)                                    // exhaustion's look works, too
        more[i] = allocate_in_the_end(manager, 64);
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&more[i]);
    zcp_manager_close(attach());
    check_own_files(&files);
    pattern_check(&chunk, 9);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
    check_own_files(&files);
}

TEST(liveness_of_a_client_whose_descriptors_were_closed) {
    for (int reuses = 0; reuses < 2; reuses++) {
        zcp_manager *manager = create(64, 4);
        closer *shared = test_shared(sizeof *shared);
        _Atomic uint32_t *holding = test_shared(sizeof *holding);
        zcp_client_info info;
        shared->reuses = reuses == 1;
        pid_t client = test_spawn(live_without_descriptors, shared);
        test_await(&shared->closed, 1);
        CHECK_RECOVERS(manager, 0, 0);
        CHECK_OK(zcp_manager_client_info(manager, shared->slot, &info));
        CHECK_EQ(info.state, ZCP_CLIENT_ALIVE);
        CHECK_EQ(used(manager), 1);
        zcp_manager_close(attach());
        test_signal(&shared->go[0]);
        test_await(&shared->done, 1);
        pid_t victim = test_spawn(hold_two, holding);
        test_await(holding, 1);
        test_kill(victim);
        test_signal(&shared->go[1]);
        test_join(client);
        CHECK_EQ(used(manager), 0);
        finish(manager);
    }
}

// With the descriptor lost and the name gone, nobody can be declared dead; allocation still looks at the records.
static void live_without_descriptors_and_name(void *argument) {
    closer *shared = argument;
    zcp_chunk chunks[4];
    zcp_recovery report;
    zcp_client_info info;
    own_files files;
    zcp_manager *manager = attach();
    close_all_descriptors();
    open_own_files(&files);
    test_signal(&shared->closed);
    test_await(&shared->go[0], 1);
    CHECK_STATUS(zcp_manager_recover(manager, &report), ZCP_ERR_SYSTEM);
    CHECK(report.dead_clients == 0 && report.chunks_reclaimed == 0);
    CHECK_STATUS(zcp_manager_client_info(manager, slot_of(manager) == 0 ? 1 : 0, &info), ZCP_ERR_SYSTEM);
    CHECK_STATUS(zcp_manager_check(manager), ZCP_ERR_REPLACED);
    for (uint32_t i = 0; i < 4; i++)
        CHECK(inside_drop_hint(manager, 0, i));
    for (int i = 0; i < 4; i++)
        chunks[i] = allocate_in_the_end(manager, 64);
    CHECK_ALLOCATE_FAILS(manager, 64, ZCP_ERR_EXHAUSTED);
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(manager);
    check_own_files(&files);
}

TEST(liveness_of_a_client_without_descriptor_and_name) {
    for (int replaced = 0; replaced < 2; replaced++) {
        zcp_manager *manager = create(64, 4), *now = NULL;
        closer *shared = test_shared(sizeof *shared);
        pid_t client = test_spawn(live_without_descriptors_and_name, shared);
        test_await(&shared->closed, 1);
        CHECK_OK(zcp_manager_destroy(test_instance()));
        if (replaced)
            now = create(64, 4);                                   // the name leads elsewhere
        CHECK_RECOVERS(manager, 0, 0);                             // here the descriptor is still there
        test_signal(&shared->go[0]);
        test_join(client);
        CHECK_RECOVERS(manager, 0, 0);
        books_check_by(manager, 0);
        zcp_manager_close(manager);
        if (replaced)
            finish(now);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles that outlive their manager

static void check_is_late(zcp_chunk chunk) {
    zcp_chunk copy = chunk, cloned = zcp_chunk_clone(&chunk);
    CHECK(is_empty(&cloned));
    CHECK(zcp_chunk_data(&chunk) == NULL && !zcp_chunk_is_valid(&chunk) && zcp_chunk_token(&chunk) == 0);
    CHECK(zcp_chunk_size(&chunk) == 0 && zcp_chunk_capacity(&chunk) == 0 && zcp_chunk_use_count(&chunk) == 0);
    zcp_chunk_release(&copy);
    CHECK(is_empty(&copy));
}

TEST(liveness_handles_released_after_close_do_nothing) {
    zcp_manager *manager = create(64, 4), *peer = attach();
    zcp_chunk owned = allocate(manager, 64), cloned = zcp_chunk_clone(&owned), theirs = allocate(peer, 64);
    zcp_chunk seen = acquire(peer, token_of(&owned)), borrowed = acquire(manager, token_of(&theirs));
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_manager_check(manager), ZCP_ERR_CLOSED);
    CHECK_EQ(used(peer), 2);
    CHECK_EQ(zcp_chunk_use_count(&theirs), 1);
    for (int i = 0; i < 2; i++) {
        check_is_late(owned);
        check_is_late(cloned);
        check_is_late(borrowed);
        zcp_manager_close(manager);
    }
    CHECK_EQ(used(peer), 2);
    CHECK_EQ(zcp_chunk_use_count(&seen), 1);
    zcp_chunk_release(&seen);
    zcp_chunk_release(&theirs);
    finish(peer);
}

// Lives of one manager object follow each other; handles left over from each never touch the next.
TEST(liveness_handles_released_after_the_object_is_used_again_do_nothing) {
    enum { LIVES = 30 };
    zcp_manager *keeper = create(64, 2), *managers[LIVES];
    zcp_chunk left[LIVES];
    for (int life = 0; life < LIVES; life++) {
        zcp_manager *manager = managers[life] = attach();
        for (int i = 0; i < life; i++)
            check_is_late(left[i]);
        zcp_chunk a = allocate(manager, 64), b = allocate(manager, 64);
        for (int i = 0; i < life; i++)                             // also while the same chunks are held
            check_is_late(left[i]);
        CHECK(zcp_chunk_use_count(&a) == 1 && zcp_chunk_use_count(&b) == 1);
        left[life] = a;
        zcp_chunk_release(&b);
        if (life % 3 == 0)
            zcp_chunk_release(&a);                                 // nothing outstanding: the object may be used again
        zcp_manager_close(manager);
        CHECK_EQ(used(keeper), 0);
    }
    for (int i = 0; i < LIVES; i++)                                // and one with handles outstanding never is
        for (int j = i + 1; j < LIVES && i % 3 != 0; j++)
            CHECK(managers[i] != managers[j]);
    finish(keeper);
}

TEST(liveness_closed_managers_are_used_again) {
    zcp_manager *keeper = create(64, 2), *seen[8];
    int different = 0;
    for (int i = 0; i < 200; i++) {
        zcp_manager *manager = attach();
        int at = 0;
        while (at < different && seen[at] != manager)
            at++;
        CHECK_MSG(at < 8, "no object is used again");
        if (at == different)
            seen[different++] = manager;
        zcp_manager_close(manager);
    }
    finish(keeper);
}
