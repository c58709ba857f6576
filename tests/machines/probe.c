// tests/machines/probe.c: what an emulated kernel gives of that which zerocp builds on. Prints a line `lacks NAME` for each that is missing.
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static char path[64];

static bool lock(int fd)
{
    struct flock byte = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1 << 30, .l_len = 1 };
    return fcntl(fd, F_OFD_SETLK, &byte) == 0;
}
static bool child_says_yes(pid_t pid)
{
    int status = 0;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
static bool locks_exclude(void)
{
    int a = open(path, O_RDWR), b = open(path, O_RDWR);
    bool good = lock(a) && !lock(b);
    close(a);
    good = good && lock(b);
    close(b);
    return good;
}
static bool locks_live_in_mappings(void)
{
    int a = open(path, O_RDWR), b = open(path, O_RDWR);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
    bool good = page != MAP_FAILED && lock(a);
    close(a);
    good = good && !lock(b);
    munmap(page, 4096);
    good = good && lock(b);
    close(b);
    return good;
}
static bool locks_die_with_the_process(void)
{
    int ready[2], b = open(path, O_RDWR);
    char c;
    if (pipe(ready) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) {
        int a = open(path, O_RDWR);
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
        if (page == MAP_FAILED || !lock(a)) _exit(1);
        close(a);
        if (write(ready[1], "x", 1) != 1) _exit(1);
        pause();
    }
    close(ready[1]);
    bool good = read(ready[0], &c, 1) == 1 && !lock(b);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    good = good && lock(b);
    close(ready[0]);
    close(b);
    return good;
}
static bool dontfork(void)
{
    int out[2], fd = open(path, O_RDWR);
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED || pipe(out) != 0 || madvise(page, 4096, MADV_DONTFORK) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) _exit(write(out[1], page, 1) == 1);
    bool good = child_says_yes(pid);
    munmap(page, 4096);
    close(out[0]);
    close(out[1]);
    return good;
}
static bool wipeonfork(void)
{
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return false;
    page[0] = 1;
    if (madvise(page, 4096, MADV_WIPEONFORK) != 0) return false;
    pid_t pid = fork();
    if (pid == 0) _exit(page[0] != 0);
    return child_says_yes(pid);
}
// Two processes count in one word: an emulator that makes no atomic instructions for a process with one thread loses some.
static bool atomics_between_processes(void)
{
    enum { TIMES = 200000 };
    int fd = open(path, O_RDWR);
    _Atomic unsigned *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if ((void *)words == MAP_FAILED) return false;
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
    bool good = child_says_yes(pid) && atomic_load(&words[0]) == 2 * TIMES;
    munmap((void *)words, 4096);
    return good;
}
static bool can_ptrace(void)
{
    pid_t pid = fork();
    if (pid == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0);
    return child_says_yes(pid);
}

int main(void)
{
    static const struct { const char *name; bool (*probe)(void); } probes[] = {
        { "OFD-locks", locks_exclude }, { "OFD-locks-in-mappings", locks_live_in_mappings }, { "OFD-locks-ended-by-SIGKILL", locks_die_with_the_process },
        { "atomics-between-processes", atomics_between_processes }, { "MADV_DONTFORK", dontfork }, { "MADV_WIPEONFORK", wipeonfork }, { "ptrace", can_ptrace },
    };
    snprintf(path, sizeof path, "/dev/shm/zcp-machines-probe-%d", (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0) return 1;
    alarm(60);
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++)
        if (!probes[i].probe()) printf("lacks %s\n", probes[i].name);
    close(fd);
    unlink(path);
    puts("probed");
    return 0;
}
