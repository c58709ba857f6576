// tests/machines/probe.h: what a kernel, or an emulator that stands before it, gives of that which zerocp or its tests
// build on.
#ifndef ZEROCP_MACHINES_PROBE_H
#define ZEROCP_MACHINES_PROBE_H

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

// of a file with one page, to be made and removed by the caller
static char probe_path[256];

static bool probe_lock(int fd) {
    struct flock byte = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1 << 30, .l_len = 1 };
    return fcntl(fd, F_OFD_SETLK, &byte) == 0;
}

static bool probe_child_says_yes(pid_t pid) {
    int status = 0;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool locks_exclude(void) {
    int a = open(probe_path, O_RDWR), b = open(probe_path, O_RDWR);
    bool good = probe_lock(a) && !probe_lock(b);
    close(a);
    good = good && probe_lock(b);
    close(b);
    return good;
}

static bool locks_live_in_mappings(void) {
    int a = open(probe_path, O_RDWR), b = open(probe_path, O_RDWR);
    void *page = mmap(NULL, 4096, PROT_NONE, MAP_SHARED, a, 0);
    bool good = page != MAP_FAILED && probe_lock(a);
    close(a);
    good = good && !probe_lock(b);
    munmap(page, 4096);
    good = good && probe_lock(b);
    close(b);
    return good;
}

static bool locks_die_with_the_process(void) {
    int ready[2], b = open(probe_path, O_RDWR);
    char c;
    if (pipe(ready) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) {
        int a = open(probe_path, O_RDWR);
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
        if (page == MAP_FAILED || !probe_lock(a)) _exit(1);
        close(a);
        if (write(ready[1], "x", 1) != 1) _exit(1);
        pause();
    }
    close(ready[1]);
    bool good = read(ready[0], &c, 1) == 1 && !probe_lock(b);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    good = good && probe_lock(b);
    close(ready[0]);
    close(b);
    return good;
}

static bool dontfork(void) {
    int out[2], fd = open(probe_path, O_RDWR);
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED || pipe(out) != 0 || madvise(page, 4096, MADV_DONTFORK) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) _exit(write(out[1], page, 1) == 1);
    bool good = probe_child_says_yes(pid);
    munmap(page, 4096);
    close(out[0]);
    close(out[1]);
    return good;
}

static bool wipeonfork(void) {
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return false;
    page[0] = 1;
    if (madvise(page, 4096, MADV_WIPEONFORK) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) _exit(page[0] != 0);
    return probe_child_says_yes(pid);
}

// Two processes count in one word: an emulator that makes no atomic instructions for a process with one thread loses
// some.
static bool atomics_between_processes(void) {
    enum { TIMES = 200000 };
    int fd = open(probe_path, O_RDWR);
    _Atomic unsigned *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (words == MAP_FAILED) return false;
    atomic_store(&words[0], 0);
    atomic_store(&words[1], 0);
    pid_t pid = fork();
    atomic_fetch_add(&words[1], 1);
    while (atomic_load(&words[1]) < 2) {}
    for (int i = 0; i < TIMES; i++) {
        unsigned seen = atomic_load(&words[0]);
        while (!atomic_compare_exchange_strong(&words[0], &seen, seen + 1)) {}
    }
    if (pid == 0) _exit(0);
    bool good = probe_child_says_yes(pid) && atomic_load(&words[0]) == 2 * TIMES;
    munmap(words, 4096);
    return good;
}

static bool can_ptrace(void) {
    pid_t pid = fork();
    if (pid == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0);
    return probe_child_says_yes(pid);
}

static bool subreaper(void) {
    pid_t pid = fork();
    if (pid == 0) _exit(prctl(PR_SET_CHILD_SUBREAPER, 1) != 0);
    return probe_child_says_yes(pid);
}

static bool limits_of_the_address_space(void) {
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit little = { 1 << 20, 1 << 20 };
        _exit(setrlimit(RLIMIT_AS, &little) != 0
              || mmap(NULL, 1 << 21, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    }
    return probe_child_says_yes(pid);
}

static bool populate(void) {
    enum { BYTES = 1 << 16 };
    unsigned char present[BYTES / 4096];
    int all = 1;
    void *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED || mincore(memory, BYTES, present) != 0) return false;
    for (size_t i = 0; i < BYTES / (size_t)sysconf(_SC_PAGESIZE); i++) all &= present[i];
    munmap(memory, BYTES);
    return all != 0;
}

// An emulator may lose count of its processors where a thread forks that was not the last to come, and end or hang in
// the child.
static pthread_barrier_t all_have_come;
static void *come_and_go(void *nothing) { return nothing; }
static bool child_says_yes_within(pid_t pid, int milliseconds) {
    int status = 1 << 8;                                           // should waitpid fail
    for (; waitpid(pid, &status, WNOHANG) == 0; milliseconds--) {
        if (milliseconds == 0) kill(pid, SIGKILL);
        usleep(1000);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void *fork_and_make_threads(void *good) {
    pthread_barrier_wait(&all_have_come);
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t threads[8];
        close(STDOUT_FILENO);                                      // for what the emulator says of it
        close(STDERR_FILENO);
        for (int i = 0; i < 8; i++)
            if (pthread_create(&threads[i], NULL, come_and_go, NULL) != 0) _exit(1);
        for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
        _exit(0);
    }
    *(bool *)good = child_says_yes_within(pid, 5000);
    return NULL;
}

static bool threads_of_forked_children(void) {
    enum { FORKERS = 3 };
    pthread_t threads[FORKERS];
    bool good[FORKERS] = { false, false, false };
    if (pthread_barrier_init(&all_have_come, NULL, FORKERS) != 0) return false;
    for (int i = 0; i < FORKERS; i++)
        if (pthread_create(&threads[i], NULL, fork_and_make_threads, &good[i]) != 0) return false;
    for (int i = 0; i < FORKERS; i++) pthread_join(threads[i], NULL);
    return good[0] && good[1] && good[2];
}

// Does it give back the pages behind a mapping?
static bool remove_pages(void) {
    struct stat now;
    int fd = open(probe_path, O_RDWR);
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return false;
    page[0] = 1;
#ifdef MADV_REMOVE
    bool good = madvise(page, 4096, MADV_REMOVE) == 0 && page[0] == 0;
#else
    bool good = false;
#endif
    good = good && fstat(fd, &now) == 0;
    close(fd);
    munmap(page, 4096);
    return good;
}

static const struct { const char *name; bool (*works)(void); } probes[] = {
    { "OFD-locks", locks_exclude }, { "OFD-locks-in-mappings", locks_live_in_mappings },
    { "OFD-locks-ended-by-SIGKILL", locks_die_with_the_process },
    { "atomics-between-processes", atomics_between_processes }, { "MADV_DONTFORK", dontfork },
    { "MADV_WIPEONFORK", wipeonfork }, { "ptrace", can_ptrace },
    { "PR_SET_CHILD_SUBREAPER", subreaper }, { "RLIMIT_AS", limits_of_the_address_space }, { "MAP_POPULATE", populate },
    { "threads-of-forked-children", threads_of_forked_children }, { "MADV_REMOVE", remove_pages },
};

#endif
