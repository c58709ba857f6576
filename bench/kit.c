// bench/kit.c: see kit.h.
#include "kit.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void die(const char *format, ...) {
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

// ---------------------------------------------------------------------------------------------------------------------
// Names

enum { MAX_NAMES = 256, MAX_HELPERS = 128 };

static struct {
    char name[64], paths[4][128];
} names[MAX_NAMES];
static volatile int name_count;
static pid_t main_pid;
static volatile pid_t helpers[MAX_HELPERS];                        // processes to be ended before the names go

void names_begin(void) {
    main_pid = getpid();
}

const char *name_new(const char *word) {
    char name[sizeof names[0].name];
    int at = name_count;
    snprintf(name, sizeof name, "zcp-bench-%d-%s", (int)main_pid, word);
    for (int i = 0; i < at; i++)
        if (strcmp(names[i].name, name) == 0)
            return names[i].name;
    MUST(at < MAX_NAMES);
    snprintf(names[at].name, sizeof names[at].name, "%s", name);
    snprintf(names[at].paths[0], sizeof names[at].paths[0], "/dev/shm/%s_memory_management", name);
    snprintf(names[at].paths[1], sizeof names[at].paths[1], "/dev/shm/%s_memory_chunk", name);
    snprintf(names[at].paths[2], sizeof names[at].paths[2], "/dev/shm/%s_memory_locks", name);
    snprintf(names[at].paths[3], sizeof names[at].paths[3], "/dev/shm/%s", name);
    name_count = at + 1;
    return names[at].name;
}

const char *name_path(const char *name) {
    for (int i = 0; i < name_count; i++)
        if (strcmp(names[i].name, name) == 0)
            return names[i].paths[3];
    die("%s is not a name of this bench", name);
}

// Only of the main process: a forked helper has nothing to clean.
void clean_up(void) {
    if (getpid() != main_pid)
        return;
    for (int i = 0; i < MAX_HELPERS; i++)
        if (helpers[i] > 0) {
            kill(helpers[i], SIGKILL);
            waitpid(helpers[i], NULL, 0);
            helpers[i] = 0;
        }
    for (int i = 0; i < name_count; i++)
        for (int j = 0; j < 4; j++)
            unlink(names[i].paths[j]);
}

static void on_signal(int number) {
    clean_up();
    _exit(128 + number);
}

void clean_up_on_signals(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction action = {.sa_handler = on_signal};
        sigfillset(&action.sa_mask);
        sigaction(numbers[i], &action, NULL);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes

void helper_note(pid_t pid) {
    size_t at = 0;
    while (helpers[at] != 0)
        MUST(++at < MAX_HELPERS);
    helpers[at] = pid;
}

static void helper_forget(pid_t pid) {
    for (int i = 0; i < MAX_HELPERS; i++)
        if (helpers[i] == pid)
            helpers[i] = 0;
}

pid_t helper_fork(void) {
    sigset_t all, old;
    fflush(stdout);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);                            // no signal before the parent has noted its pid
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_IGN);
        if (getppid() != main_pid)
            _exit(1);
    } else {
        helper_note(pid);
    }
    sigprocmask(SIG_SETMASK, &old, NULL);
    return pid;
}

static int helper_reap(pid_t pid, int number) {
    sigset_t all, old;
    int status;
    if (number)
        kill(pid, number);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    MUST(waitpid(pid, &status, 0) == pid);
    helper_forget(pid);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return status;
}

void helper_kill(pid_t pid) {
    helper_reap(pid, SIGKILL);
}

void helper_wait(pid_t pid) {
    int status = helper_reap(pid, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        die("a process of the bench ended with status %d", status);
}

void *shared_memory(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(memory != MAP_FAILED);
    return memory;
}

void shared_memory_free(void *memory, size_t bytes) {
    MUST(munmap(memory, bytes) == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// CPUs

int cpus[2] = {-1, -1};
int all_cpus[MAX_CPUS], cpu_count;

bool cpu_allowed(int cpu) {
    for (int i = 0; i < cpu_count; i++)
        if (all_cpus[i] == cpu)
            return true;
    return false;
}

void cpus_find(void) {
    cpu_set_t set;
    MUST(sched_getaffinity(0, sizeof set, &set) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && cpu_count < MAX_CPUS; cpu++)
        if (CPU_ISSET((size_t)cpu, &set))
            all_cpus[cpu_count++] = cpu;
}

void cpu_pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    MUST(sched_setaffinity(0, sizeof set, &set) == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Figures

void figures_add(figures *f, double value) {
    if (!f->values)
        MUST((f->values = calloc(MAX_ROUNDS, sizeof f->values[0])) != NULL);
    MUST(f->count < MAX_ROUNDS);
    f->values[f->count++] = value;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int count, double part) {
    double at = part * (count - 1);
    int below = (int)at;
    return below + 1 < count ? sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]) : sorted[below];
}

summary summarise(const figures *f) {
    double sorted[MAX_ROUNDS];
    if (f->count == 0)
        return (summary){0, 0, 0};
    memcpy(sorted, f->values, (size_t)f->count * sizeof sorted[0]);
    qsort(sorted, (size_t)f->count, sizeof sorted[0], by_value);
    return (summary){quantile(sorted, f->count, 0.25), quantile(sorted, f->count, 0.5),
                     quantile(sorted, f->count, 0.75)};
}
