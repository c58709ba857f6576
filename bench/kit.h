// bench/kit.h: what a bench needs: time, CPUs, figures, names in /dev/shm that never stay, and a second process.
#ifndef ZEROCP_BENCH_KIT_H
#define ZEROCP_BENCH_KIT_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// The compiler must not know what a pointer leads to, nor drop what was written there.

static inline void *hide(void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static inline void spin(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// ---------------------------------------------------------------------------------------------------------------------
// Names. All that the bench ever creates in /dev/shm is listed here, and removed however it ends (but for SIGKILL).

typedef enum { NAME_MAIN, NAME_FULL, NAME_RECOVER, NAME_SMALL, NAME_LARGE, NAME_RAW, NAMES } bench_name;

static char name_texts[NAMES][32];
static char name_paths[NAMES][3][256];
static pid_t main_pid;
static volatile pid_t helpers[8];                                  // processes to be ended before the names go

static void name_all(void) {
    static const char *const words[NAMES] = {"main", "full", "recover", "small", "large", "raw"};
    main_pid = getpid();
    for (int i = 0; i < NAMES; i++) {
        snprintf(name_texts[i], sizeof name_texts[i], "zcp-bench-%d-%s", (int)main_pid, words[i]);
        snprintf(name_paths[i][0], sizeof name_paths[i][0], "/dev/shm/%s_memory_management", name_texts[i]);
        snprintf(name_paths[i][1], sizeof name_paths[i][1], "/dev/shm/%s_memory_chunk", name_texts[i]);
        snprintf(name_paths[i][2], sizeof name_paths[i][2], "/dev/shm/%s", name_texts[i]);
    }
}

static const char *name_of(bench_name name) {
    return name_texts[name];
}

// Async-signal-safe. Only of the main process: a forked helper has nothing to clean.
static void clean_up(void) {
    if (getpid() != main_pid)
        return;
    for (size_t i = 0; i < sizeof helpers / sizeof helpers[0]; i++)
        if (helpers[i] > 0) {
            kill(helpers[i], SIGKILL);
            waitpid(helpers[i], NULL, 0);
            helpers[i] = 0;
        }
    for (int i = 0; i < NAMES; i++)
        for (int j = 0; j < 3; j++)
            unlink(name_paths[i][j]);
}

static void on_signal(int number) {
    clean_up();
    _exit(128 + number);
}

static void clean_up_on_signals(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction action = {.sa_handler = on_signal};
        sigfillset(&action.sa_mask);
        sigaction(numbers[i], &action, NULL);
    }
}

__attribute__((format(printf, 1, 2))) _Noreturn static void die(const char *format, ...) {
    va_list arguments;
    fflush(stdout);
    fputs("bench: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    clean_up();
    _exit(1);
}

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            die("%s:%d: %s (errno: %s)", __FILE__, __LINE__, #condition, strerror(errno));                             \
    } while (0)

#define MUST_OK(call)                                                                                                  \
    do {                                                                                                               \
        zcp_status must_status = (call);                                                                               \
        if (must_status != ZCP_OK)                                                                                     \
            die("%s:%d: %s: %s: %s", __FILE__, __LINE__, #call, zcp_status_name(must_status), zcp_last_message());     \
    } while (0)

// Forks a process that ends with its parent and dies quietly of Ctrl-C. 0 in the child.
static pid_t helper_fork(void) {
    sigset_t all, old;
    size_t at = 0;
    fflush(stdout);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);                            // no signal before the parent has noted its pid
    while (helpers[at] != 0)
        MUST(++at < sizeof helpers / sizeof helpers[0]);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_IGN);
        if (getppid() != main_pid)
            _exit(1);
    } else {
        helpers[at] = pid;
    }
    sigprocmask(SIG_SETMASK, &old, NULL);
    return pid;
}

// Ends a helper for good: when this returns the kernel has taken its memory down.
static void helper_kill(pid_t pid) {
    sigset_t all, old;
    sigfillset(&all);
    kill(pid, SIGKILL);
    sigprocmask(SIG_BLOCK, &all, &old);
    waitpid(pid, NULL, 0);
    for (size_t i = 0; i < sizeof helpers / sizeof helpers[0]; i++)
        if (helpers[i] == pid)
            helpers[i] = 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void *shared_memory(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    MUST(memory != MAP_FAILED);
    return memory;
}

// ---------------------------------------------------------------------------------------------------------------------
// CPUs

static int cpus[2] = {-1, -1};                                     // of this process and of the peer; -1: there is none

static bool cpu_allowed(int cpu) {
    cpu_set_t set;
    return cpu >= 0 && cpu < CPU_SETSIZE && sched_getaffinity(0, sizeof set, &set) == 0 && CPU_ISSET((size_t)cpu, &set);
}

// The first two that this process may use, unless the caller has chosen.
static void cpus_choose(void) {
    for (int cpu = 0; cpu < CPU_SETSIZE && cpus[1] < 0; cpu++)
        if (cpu_allowed(cpu))
            cpus[cpus[0] < 0 ? 0 : 1] = cpu;
}

static void cpu_pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    MUST(sched_setaffinity(0, sizeof set, &set) == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Figures

enum { MAX_ROUNDS = 1000 };

typedef struct figures {
    double values[MAX_ROUNDS];
    int count;
} figures;

typedef struct summary {
    double q1, median, q3;
} summary;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int count, double part) {
    double at = part * (count - 1);
    int below = (int)at;
    return below + 1 < count ? sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]) : sorted[below];
}

static summary summarise(const figures *f) {
    double sorted[MAX_ROUNDS];
    if (f->count == 0)
        return (summary){0, 0, 0};
    memcpy(sorted, f->values, (size_t)f->count * sizeof sorted[0]);
    qsort(sorted, (size_t)f->count, sizeof sorted[0], by_value);
    return (summary){quantile(sorted, f->count, 0.25), quantile(sorted, f->count, 0.5), quantile(sorted, f->count, 0.75)};
}

#endif
