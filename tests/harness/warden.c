// tests/harness/warden.c: the warden, a process that runs one test and sees that nothing of it survives.
//
// It is the subreaper of all that the test forks, so that its descendants are exactly the test's processes, whatever
// sessions, groups and namespaces they moved to. It has one thread, holds the watchdog, and dies with the runner.
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_OUTPUT = 64 << 20,
    GRACE_AFTER_FAILURE_MS = 2000,
    SHOWN_PROCESSES = 32,
    SHOWN_THREADS = 16,
    DEBUGGED_PROCESSES = 6,
};

#define SHM_DIRECTORY "/dev/shm"

// ---------------------------------------------------------------------------------------------------------------------
// Looking at processes

typedef struct process {
    pid_t pid, parent;
    char state;
    unsigned flags;
    char name[20];
    bool ours;
} process;

typedef struct process_list {
    process *items;
    size_t count, room;
} process_list;

// Reads a small file of /proc as text without its final newline; "" if it cannot be read.
static void read_text(const char *path, char *text, size_t bytes) {
    ssize_t got = -1;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        got = read(file, text, bytes - 1);
        close(file);
    }
    text[got < 0 ? 0 : got] = 0;
    text[strcspn(text, "\n")] = 0;
}

static bool read_process(pid_t pid, process *item) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    read_text(path, text, sizeof text);
    const char *name = strchr(text, '('), *after = strrchr(text, ')');
    int parent;
    if (name == NULL || after == NULL)
        return false;
    *item = (process){.pid = pid};
    snprintf(item->name, sizeof item->name, "%.*s", (int)(after - name - 1), name + 1);
    if (sscanf(after + 1, " %c %d %*d %*d %*d %*d %u", &item->state, &parent, &item->flags) != 3)
        return false;
    item->parent = parent;
    return true;
}

static void append(process_list *list, const process *item) {
    if (list->count == list->room) {
        list->room = list->room * 2 + 64;
        list->items = realloc(list->items, list->room * sizeof *list->items);
        if (list->items == NULL)
            abort();
    }
    list->items[list->count++] = *item;
}

static process_list all_processes(void) {
    process_list list = {0};
    DIR *directory = opendir("/proc");
    if (directory == NULL)
        return list;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        process item;
        int pid = atoi(entry->d_name);
        if (pid > 0 && read_process(pid, &item))
            append(&list, &item);
    }
    closedir(directory);
    return list;
}

static bool is_ours(const process_list *list, pid_t pid) {
    if (pid == getpid())
        return true;
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].pid == pid)
            return list->items[i].ours;
    return false;
}

// Marks descendants until a round finds no more: /proc lists processes by pid, not parents before children.
static process_list descendants(void) {
    process_list all = all_processes(), found = {0};
    bool more = true;
    while (more) {
        more = false;
        for (size_t i = 0; i < all.count; i++) {
            process *item = &all.items[i];
            if (!item->ours && is_ours(&all, item->parent))
                more = item->ours = true;
        }
    }
    for (size_t i = 0; i < all.count; i++)
        if (all.items[i].ours)
            append(&found, &all.items[i]);
    free(all.items);
    return found;
}

static bool is_being_killed(pid_t pid) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return true;
    bool found = false;
    uint64_t pending;
    while (!found && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "SigPnd: %" SCNx64, &pending) == 1 || sscanf(line, "ShdPnd: %" SCNx64, &pending) == 1)
            found = (pending >> (SIGKILL - 1) & 1) != 0;
    fclose(file);
    return found;
}

static bool is_alive(const process *item) {
    enum { KERNEL_PF_EXITING = 4 };
    return item->state != 'Z' && item->state != 'X' && (item->flags & KERNEL_PF_EXITING) == 0 &&
           !is_being_killed(item->pid);
}

// ---------------------------------------------------------------------------------------------------------------------
// Ending processes

static void pause_ms(long milliseconds) {
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

// False once there is no child any more.
static bool reap(void) {
    pid_t pid;
    do
        pid = waitpid(-1, NULL, WNOHANG | __WALL);
    while (pid > 0);
    return pid == 0;
}

bool test_kill_descendants(void) {
    for (int round = 0; round < 1000; round++) {
        if (!reap())
            return true;
        process_list list = descendants();
        for (size_t i = 0; i < list.count; i++)
            kill(list.items[i].pid, SIGKILL);
        free(list.items);
        pause_ms(round < 20 ? 1 : 10);
    }
    return !reap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Files in /dev/shm whose names contain the test's prefix: removed; their names are appended to the text.

static void add_name(char *names, size_t bytes, const char *name) {
    size_t used = strlen(names);
    snprintf(names + used, bytes - used, " %s", name);
}

static void remove_files(const char *prefix, char *names, size_t bytes) {
    names[0] = 0;
    DIR *directory = opendir(SHM_DIRECTORY);
    if (directory == NULL)
        return;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (strstr(entry->d_name, prefix) == NULL)
            continue;
        add_name(names, bytes, entry->d_name);
        if (unlinkat(dirfd(directory), entry->d_name, 0) != 0)
            unlinkat(dirfd(directory), entry->d_name, AT_REMOVEDIR);
    }
    closedir(directory);
}

// ---------------------------------------------------------------------------------------------------------------------
// Where a hanging test stands

static void show_thread(int output, const char *task, const char *thread) {
    char path[400], wchan[64], call[200];
    process item = {0};
    snprintf(path, sizeof path, "%s/%s/wchan", task, thread);
    read_text(path, wchan, sizeof wchan);
    snprintf(path, sizeof path, "%s/%s/syscall", task, thread);
    read_text(path, call, sizeof call);
    read_process(atoi(thread), &item);
    dprintf(output, "      thread %s: state %c, wchan %s, syscall %s\n", thread, item.state == 0 ? '?' : item.state,
            wchan[0] == 0 ? "-" : wchan, call[0] == 0 ? "-" : call);
}

static void show_threads(int output, pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *directory = opendir(path);
    if (directory == NULL)
        return;
    int shown = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        if (entry->d_name[0] != '.' && shown++ < SHOWN_THREADS)
            show_thread(output, path, entry->d_name);
    closedir(directory);
}

static void show_process(const test_job *job, const test_block *block, const process *item) {
    char place[256];
    test_place_text(block, item->pid, place, sizeof place);
    dprintf(job->output, "    pid %d (%s), state %c, child of %d, last passed %s\n", (int)item->pid, item->name,
            item->state, (int)item->parent, place[0] == 0 ? "unknown" : place);
    if (item->state != 'Z')
        show_threads(job->output, item->pid);
}

static void exec_debugger(int output, pid_t pid) {
    char number[16];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    snprintf(number, sizeof number, "%d", (int)pid);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    execlp("gdb", "gdb", "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-p", number, "-ex",
           "thread apply all bt 16", (char *)NULL);
    _exit(127);                                                    // gdb is not installed
}

static void debug(int output, pid_t pid) {
    pid_t debugger = fork();
    if (debugger == 0)
        exec_debugger(output, pid);
    for (int tenths = 0; debugger > 0 && waitpid(debugger, NULL, WNOHANG) == 0; tenths++) {
        if (tenths == 150)
            kill(debugger, SIGKILL);
        pause_ms(100);
    }
}

static void show_where_it_hangs(const test_job *job, const test_block *block) {
    process_list list = descendants();
    dprintf(job->output, "  processes of %s:\n", job->test->name);
    for (size_t i = 0; i < list.count && i < SHOWN_PROCESSES; i++)
        show_process(job, block, &list.items[i]);
    if (list.count > SHOWN_PROCESSES)
        dprintf(job->output, "    and %zu more\n", list.count - SHOWN_PROCESSES);
    for (size_t i = 0; i < list.count && i < DEBUGGED_PROCESSES && job->debugger; i++)
        if (list.items[i].state != 'Z')
            debug(job->output, list.items[i].pid);
    free(list.items);
}

// ---------------------------------------------------------------------------------------------------------------------
// The test's process

static void close_inherited(void) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
        return;
#endif
    for (int file = 3; file < 4096; file++)
        close(file);
}

static void use_output(int output) {
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    close_inherited();
}

// A shell's background job ignores some, and what it starts inherits that.
static void reset_signals(void) {
    static const int ignored[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD};
    sigset_t none;
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void run_test(const test_job *job, test_block *block, int block_file, pid_t warden) {
    char block_path[64];
    snprintf(block_path, sizeof block_path, "/proc/%d/fd/%d", (int)warden, block_file);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != warden)
        _exit(TEST_EXIT_FAILED);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});                // a dump would delay each death that is tested
    reset_signals();
    use_output(job->output);
    test_enter(job->test, block, &(test_context){job->prefix, block_path, job->seed});
    job->test->run();
    test_leave();
}

// ---------------------------------------------------------------------------------------------------------------------
// Waiting for it

typedef enum { WATCH_ENDED, WATCH_HUNG, WATCH_FAILED_EARLIER, WATCH_TOO_MUCH_OUTPUT, WATCH_INTERRUPTED } watch_result;

static uint64_t milliseconds(void) {
    return test_now() / 1000000;
}

static bool has_too_much_output(int output) {
    struct stat status;
    return fstat(output, &status) == 0 && status.st_size > MAX_OUTPUT;
}

// Orphans are reaped too as they come, so that pids do not run out.
static bool has_ended(pid_t test, int *status) {
    for (;;) {
        int any;
        pid_t pid = waitpid(-1, &any, WNOHANG | __WALL);
        if (pid <= 0)
            return false;
        if (pid == test) {
            *status = any;
            return true;
        }
    }
}

static uint64_t deadline_of(const test_job *job) {
    double seconds = (job->test->seconds == 0 ? 60 : job->test->seconds) * job->timeout_scale;
    return milliseconds() + (uint64_t)(seconds * 1000);
}

static watch_result watch(const test_job *job, const test_block *block, pid_t test, int *status) {
    static const struct timespec a_while = {.tv_nsec = 50000000};
    uint64_t deadline = deadline_of(job), failure_seen = 0;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    while (!has_ended(test, status)) {
        if (sigtimedwait(&signals, NULL, &a_while) == SIGTERM)
            return WATCH_INTERRUPTED;
        uint64_t now = milliseconds();
        if (failure_seen == 0 && atomic_load_explicit(&block->failed, memory_order_relaxed) != 0)
            failure_seen = now;
        if (failure_seen != 0 && now - failure_seen > GRACE_AFTER_FAILURE_MS)
            return WATCH_FAILED_EARLIER;
        if (now > deadline)
            return WATCH_HUNG;
        if (has_too_much_output(job->output))
            return WATCH_TOO_MUCH_OUTPUT;
    }
    return WATCH_ENDED;
}

// ---------------------------------------------------------------------------------------------------------------------
// Judging it

static void fail(const test_job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fail(const test_job *job, const char *format, ...) {
    va_list arguments;
    job->report->outcome = TEST_FAILED;
    va_start(arguments, format);
    vsnprintf(job->report->why, sizeof job->report->why, format, arguments);
    va_end(arguments);
}

static void judge_hung(const test_job *job, const test_block *block) {
    double seconds = (job->test->seconds == 0 ? 60 : job->test->seconds) * job->timeout_scale;
    fail(job, "watchdog: still running after %g s", seconds);
    show_where_it_hangs(job, block);
}

static void judge_exit(const test_job *job, const test_block *block, pid_t test, int status) {
    char place[256];
    test_place_text(block, test, place, sizeof place);
    if (WIFSIGNALED(status))
        fail(job, "killed by %s after %s", test_signal_name(WTERMSIG(status)), place);
    else if (WEXITSTATUS(status) == TEST_EXIT_SKIPPED && atomic_load(&block->skipped) != 0)
        job->report->outcome = TEST_SKIPPED;
    else if (atomic_load(&block->failed) != 0)
        fail(job, "a check failed");
    else if (WEXITSTATUS(status) != 0 || atomic_load(&block->returned) == 0)
        fail(job, "ended with exit code %d after %s", WEXITSTATUS(status), place);
    else
        job->report->outcome = TEST_PASSED;
    if (job->report->outcome == TEST_SKIPPED)
        snprintf(job->report->why, sizeof job->report->why, "%s", block->reason);
}

static void judge_watch(const test_job *job, const test_block *block, watch_result result) {
    switch (result) {
    case WATCH_HUNG:
        judge_hung(job, block);
        break;
    case WATCH_FAILED_EARLIER:
        fail(job, "a check failed, and the test did not end by itself");
        break;
    case WATCH_TOO_MUCH_OUTPUT:
        fail(job, "printed more than %d MiB", MAX_OUTPUT >> 20);
        break;
    case WATCH_INTERRUPTED:
        fail(job, "interrupted");
        break;
    case WATCH_ENDED:
        break;
    }
}

static size_t show_left_processes(const test_job *job, const test_block *block) {
    process_list list = descendants();
    size_t alive = 0;
    for (size_t i = 0; i < list.count; i++)
        if (is_alive(&list.items[i])) {
            if (alive++ == 0)
                dprintf(job->output, "  left processes:\n");
            show_process(job, block, &list.items[i]);
        }
    free(list.items);
    return alive;
}

static bool has_living_descendant(void) {
    process_list list = descendants();
    bool found = false;
    for (size_t i = 0; i < list.count && !found; i++)
        found = is_alive(&list.items[i]);
    free(list.items);
    return found;
}

// What a test killed last may still be on its way out, between its signal and the mark that it exits: hence three
// looks.
static void judge_left_processes(const test_job *job, const test_block *block) {
    for (int look = 0; look < 3; look++) {
        if (!reap() || !has_living_descendant())
            return;
        pause_ms(5);
    }
    size_t alive = show_left_processes(job, block);
    if (alive > 0)
        fail(job, "left processes: %zu", alive);
}

static void judge_left_files(const test_job *job) {
    char names[400];
    bool passed = job->report->outcome == TEST_PASSED || job->report->outcome == TEST_SKIPPED;
    remove_files(job->prefix, names, sizeof names);
    if (passed && names[0] != 0)
        fail(job, "left behind:%s", names);
}

// ---------------------------------------------------------------------------------------------------------------------

static test_block *make_block(int *file) {
    *file = memfd_create("test block", MFD_CLOEXEC);
    if (*file < 0 || ftruncate(*file, sizeof(test_block)) != 0)
        return NULL;
    void *memory = mmap(NULL, sizeof(test_block), PROT_READ | PROT_WRITE, MAP_SHARED, *file, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void become_warden(pid_t runner) {
    setsid();                                                      // out of the reach of the terminal's signals
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != runner)
        _exit(TEST_EXIT_FAILED);
}

static void oversee(const test_job *job, test_block *block, pid_t test) {
    int status = 0;
    watch_result result = watch(job, block, test, &status);
    judge_watch(job, block, result);
    if (result == WATCH_ENDED)
        judge_exit(job, block, test, status);
    if (job->report->outcome == TEST_PASSED || job->report->outcome == TEST_SKIPPED)
        judge_left_processes(job, block);
    if (!test_kill_descendants())
        fail(job, "some of its processes cannot be killed");
    judge_left_files(job);
}

_Noreturn void test_warden(const test_job *job) {
    char ignored[400];
    int block_file;
    pid_t warden = getpid();
    become_warden(job->runner);
    test_block *block = make_block(&block_file);
    if (block == NULL) {
        fail(job, "no memory for the test: %s", strerror(errno));
        _exit(0);
    }
    remove_files(job->prefix, ignored, sizeof ignored);            // of an earlier run with the same pid
    uint64_t start = test_now();
    pid_t test = fork();
    if (test == 0)
        run_test(job, block, block_file, warden);
    if (test < 0)
        fail(job, "fork: %s", strerror(errno));
    else
        oversee(job, block, test);
    job->report->nanoseconds = test_now() - start;
    _exit(0);
}
