// tests/harness/test.c: the functions of test.h, as they run inside the processes of a test.
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// State of this process

static test_case *cases;

static struct {
    test_block *block;
    const char *prefix;
    const char *name;
    pid_t test_pid;                                                // the test's own process
    uint64_t seed;                                                 // of this process
    _Atomic uint64_t threads_seeded;
    _Atomic uint64_t spawned;
} here;

// This process's place. It lives in a page that the kernel wipes in a forked child, by whatever kind of fork, so that
// the child finds NULL and takes a place of its own, without asking for its pid at each CHECK.
static test_place *_Atomic *place_page;

// ---------------------------------------------------------------------------------------------------------------------
// Registration

static bool comes_before(const test_case *a, const test_case *b) {
    int files = strcmp(a->file, b->file);
    return files != 0 ? files < 0 : a->line < b->line;
}

void test_register(test_case *test) {
    test_case **at = &cases;
    while (*at != NULL && comes_before(*at, test))
        at = &(*at)->next;
    test->next = *at;
    *at = test;
}

test_case *test_first(void) {
    return cases;
}

// ---------------------------------------------------------------------------------------------------------------------
// Output: one write for each message, so that those of several processes do not mix within a line

static void write_out(const char *text, size_t bytes) {
    while (bytes > 0) {
        ssize_t written = write(STDOUT_FILENO, text, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        text += written;
        bytes -= (size_t)written;
    }
}

// Never waits for a lock of stdout that a thread holds which is stopped, or was not copied by a fork.
static void flush_stdout(void) {
    if (ftrylockfile(stdout) != 0)
        return;
    fflush(stdout);
    funlockfile(stdout);
}

__attribute__((format(printf, 1, 0))) static void write_message(const char *format, va_list arguments) {
    char text[4096];
    int length = vsnprintf(text, sizeof text - 1, format, arguments);
    size_t bytes = length < 0 ? 0 : (size_t)length;
    if (bytes > sizeof text - 2)
        bytes = sizeof text - 2;
    text[bytes] = '\n';
    flush_stdout();
    write_out(text, bytes + 1);
}

void test_note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_message(format, arguments);
    va_end(arguments);
}

// ---------------------------------------------------------------------------------------------------------------------
// Where this process is

static const char anchor[] = "anchor";

static test_place *own_place(void) {
    if (place_page == NULL || here.block == NULL)
        return NULL;
    test_place *place = atomic_load_explicit(place_page, memory_order_relaxed);   // relaxed: any thread stores the same
    if (place == NULL) {
        uint32_t pid = (uint32_t)getpid();
        place = &here.block->places[pid % TEST_PLACES];
        atomic_store_explicit(&place->at, 0, memory_order_relaxed);
        atomic_store_explicit(&place->pid, pid, memory_order_relaxed);
        atomic_store_explicit(place_page, place, memory_order_relaxed);
    }
    return place;
}

void test_at(const char *file, int line) {
    test_place *place = own_place();
    if (place == NULL)
        return;
    uint32_t distance = (uint32_t)((uintptr_t)file - (uintptr_t)anchor);
    uint64_t at = (uint64_t)distance << 32 | (uint32_t)line;
    atomic_store_explicit(&place->at, at, memory_order_relaxed);   // relaxed: one word, for people to read
}

void test_place_text(const test_block *block, pid_t pid, char *text, size_t bytes) {
    const test_place *place = &block->places[(uint32_t)pid % TEST_PLACES];
    uint64_t at = atomic_load_explicit(&place->at, memory_order_relaxed);
    text[0] = 0;
    if (at == 0 || atomic_load_explicit(&place->pid, memory_order_relaxed) != (uint32_t)pid)
        return;
    intptr_t distance = (int32_t)(uint32_t)(at >> 32);
    const char *file = (const char *)((uintptr_t)anchor + (uintptr_t)distance);
    snprintf(text, bytes, "%s:%" PRIu32, file, (uint32_t)at);
}

// ---------------------------------------------------------------------------------------------------------------------
// Failing and skipping

_Noreturn static void fail_now(void) {
    if (here.block != NULL)
        atomic_fetch_add_explicit(&here.block->failed, 1, memory_order_relaxed);   // relaxed: a count
    flush_stdout();
    _exit(TEST_EXIT_FAILED);
}

_Noreturn void test_fail(const char *file, int line, const char *format, ...) {
    char what[3500];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    test_note("%s:%d: failed in pid %d: %s", file, line, (int)getpid(), what);
    fail_now();
}

_Noreturn void test_fail_with(const char *file, int line, const char *condition, const char *format, ...) {
    char what[3000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    test_fail(file, line, "CHECK(%s): %s", condition, what);
}

_Noreturn void test_skip(const char *reason) {
    if (getpid() != here.test_pid)
        test_fail(__FILE__, __LINE__, "test_skip(\"%s\") in a child: only the test itself can skip", reason);
    snprintf(here.block->reason, sizeof here.block->reason, "%s", reason);
    atomic_store_explicit(&here.block->skipped, 1, memory_order_release);   // the reason goes with it
    flush_stdout();
    _exit(TEST_EXIT_SKIPPED);
}

// Ends this process once the test has failed elsewhere, so that nobody waits for a peer that will not come.
static void give_up_if_failed(const char *file, int line) {
    if (here.block == NULL || atomic_load_explicit(&here.block->failed, memory_order_relaxed) == 0)
        return;
    test_note("%s:%d: pid %d gives up: another process of this test has failed", file, line, (int)getpid());
    _exit(TEST_EXIT_FAILED);
}

// ---------------------------------------------------------------------------------------------------------------------
// Checks

static const char *integer_text(test_integer value, char text[48]) {
    if (value.negative)
        snprintf(text, 48, "%" PRId64, (int64_t)value.bits);
    else if (value.bits < 10000)
        snprintf(text, 48, "%" PRIu64, value.bits);
    else
        snprintf(text, 48, "%" PRIu64 " (0x%" PRIx64 ")", value.bits, value.bits);
    return text;
}

void test_check_eq(const char *file, int line, const char *what, test_integer actual, test_integer expected) {
    if (actual.bits == expected.bits && actual.negative == expected.negative)
        return;
    char is[48], wanted[48];
    test_fail(file, line, "%s: is %s, expected %s", what, integer_text(actual, is), integer_text(expected, wanted));
}

void test_check_has(const char *file, int line, const char *text, const char *part) {
    if (strstr(text, part) == NULL)
        test_fail(file, line, "no \"%s\" in: %s", part, text);
}

void test_check_str(const char *file, int line, const char *what, const char *actual, const char *expected) {
    if (actual == expected || (actual != NULL && expected != NULL && strcmp(actual, expected) == 0))
        return;
    const char *quote_is = actual == NULL ? "" : "\"", *quote_wanted = expected == NULL ? "" : "\"";
    test_fail(file, line, "%s: is %s%s%s, expected %s%s%s", what, quote_is, actual == NULL ? "NULL" : actual, quote_is,
              quote_wanted, expected == NULL ? "NULL" : expected, quote_wanted);
}

void test_check_status(const char *file, int line, const char *what, zcp_status actual, zcp_status expected) {
    if (actual == expected)
        return;
    const char *message = zcp_last_message();
    int system_error = zcp_last_errno();
    test_fail(file, line, "%s: is %s, expected %s; message: %s; errno %d%s%s", what, zcp_status_name(actual),
              zcp_status_name(expected), message == NULL || message[0] == 0 ? "none" : message, system_error,
              system_error == 0 ? "" : " ", system_error == 0 ? "" : strerror(system_error));
}

// ---------------------------------------------------------------------------------------------------------------------
// Names, memory, random numbers, time

const char *test_instance(void) {
    static _Thread_local char name[128];
    snprintf(name, sizeof name, "%s%.48s", here.prefix, here.name);
    return name;
}

const char *test_instance_n(int n) {
    static _Thread_local char names[16][128];                      // so that several can be used in one expression
    static _Thread_local unsigned next;
    char *name = names[next++ % 16];
    snprintf(name, sizeof names[0], "%s%.40s-%d", here.prefix, here.name, n);
    return name;
}

static void *map_shared(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void *test_shared(size_t bytes) {
    void *memory = map_shared(bytes);
    CHECK_MSG(memory != NULL, "mmap of %zu bytes: %s", bytes, strerror(errno));
    return memory;
}

static uint64_t mix(uint64_t value) {                              // splitmix64's finaliser
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static _Thread_local uint64_t random_state;                        // 0: this thread has not drawn yet

uint64_t test_random(void) {
    if (random_state == 0)
        random_state = mix(here.seed + atomic_fetch_add_explicit(&here.threads_seeded, 1, memory_order_relaxed)) | 1;
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

uint64_t test_random_below(uint64_t limit) {
    CHECK(limit > 0);
    return (test_random() >> 11) % limit;
}

void test_swap_bytes(unsigned char *at, size_t bytes) {
    for (size_t i = 0; i < bytes / 2; i++) {
        unsigned char byte = at[i];
        at[i] = at[bytes - 1 - i];
        at[bytes - 1 - i] = byte;
    }
}

static void reseed(uint64_t seed) {
    here.seed = mix(seed);
    random_state = 0;
    atomic_store_explicit(&here.threads_seeded, 0, memory_order_relaxed);
    atomic_store_explicit(&here.spawned, 0, memory_order_relaxed);
}

int test_count_of(const char *text, const char *part) {
    int count = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part))
        count++;
    return count;
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t test_now(void) {
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t test_cpu_now(void) {
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void test_sleep(unsigned milliseconds) {
    struct timespec left = {.tv_sec = (time_t)(milliseconds / 1000), .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes

pid_t test_spawn(void (*function)(void *argument), void *argument) {
    flush_stdout();
    uint64_t number = atomic_fetch_add_explicit(&here.spawned, 1, memory_order_relaxed) + 1;
    pid_t pid = fork();
    CHECK_MSG(pid >= 0, "fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    // for the watchdog's debugger, where Yama restricts it
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    reseed(here.seed + (number << 32));
    function(argument);
    flush_stdout();
    _exit(0);
}

typedef struct named {
    void (*function)(const char *name);
    const char *name;
} named;

static void call_named(void *argument) {
    const named *call = argument;
    call->function(call->name);
}

pid_t test_spawn_named(void (*function)(const char *name), const char *name) {
    named call = {function, name};
    return test_spawn(call_named, &call);
}

void test_become(uid_t user, gid_t group) {
    CHECK(setgroups(group != 0 ? 1 : 0, &group) == 0 && setresgid(user, user, user) == 0);
    CHECK(setresuid(user, user, user) == 0);
}

char *test_self(void) {
    static char path[] = "/proc/self/exe";
    char *otherwise = getenv("TEST_SELF");
    return otherwise == NULL ? path : otherwise;
}

char **test_exec_argv(const char *program, const char *argument) {
    static char option[128], text[4096];
    static char *argv[] = {NULL, option, text, NULL};
    argv[0] = test_self();
    snprintf(option, sizeof option, "--program=%s", program);
    snprintf(text, sizeof text, "%s", argument == NULL ? "" : argument);
    return argv;
}

pid_t test_exec(const char *program, const char *argument) {
    char **argv = test_exec_argv(program, argument);
    flush_stdout();
    pid_t pid = fork();
    CHECK_MSG(pid >= 0, "fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    execv(argv[0], argv);
    test_fail(__FILE__, __LINE__, "exec of %s: %s", argv[0], strerror(errno));
}

static int wait_for(pid_t pid, int options, const char *file, int line) {
    int status = 0;
    pid_t got;
    do
        got = waitpid(pid, &status, options | __WALL);             // also what raw clone made without an exit signal
    while (got < 0 && errno == EINTR);
    if (got != pid)
        test_fail(file, line, "waitpid(%d): %s", (int)pid, strerror(errno));
    return status;
}

int test_wait(pid_t pid) {
    return wait_for(pid, 0, __FILE__, __LINE__);
}

// Not every C library has sigabbrev_np.
const char *test_signal_name(int number) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGABRT, "SIGABRT"}, {SIGALRM, "SIGALRM"}, {SIGBUS, "SIGBUS"},   {SIGCONT, "SIGCONT"},
                 {SIGFPE, "SIGFPE"},   {SIGHUP, "SIGHUP"},   {SIGILL, "SIGILL"},   {SIGINT, "SIGINT"},
                 {SIGKILL, "SIGKILL"}, {SIGPIPE, "SIGPIPE"}, {SIGQUIT, "SIGQUIT"}, {SIGSEGV, "SIGSEGV"},
                 {SIGSTOP, "SIGSTOP"}, {SIGSYS, "SIGSYS"},   {SIGTERM, "SIGTERM"}, {SIGTRAP, "SIGTRAP"},
                 {SIGTSTP, "SIGTSTP"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}, {SIGXFSZ, "SIGXFSZ"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == number)
            return names[i].name;
    static _Thread_local char other[24];
    snprintf(other, sizeof other, "signal %d", number);
    return other;
}

static const char *status_text(int status, char text[64]) {
    if (WIFEXITED(status))
        snprintf(text, 64, "ended with %d", WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        snprintf(text, 64, "was killed by %s", test_signal_name(WTERMSIG(status)));
    else if (WIFSTOPPED(status))
        snprintf(text, 64, "was stopped by %s", test_signal_name(WSTOPSIG(status)));
    else
        snprintf(text, 64, "has status 0x%x", (unsigned)status);
    return text;
}

static int join(const char *file, int line, pid_t pid) {
    test_at(file, line);
    return wait_for(pid, 0, file, line);
}

void test_join_at(const char *file, int line, pid_t pid) {
    int status = join(file, line, pid);
    char text[64];
    if (status != 0)
        test_fail(file, line, "child %d %s, expected to end with 0", (int)pid, status_text(status, text));
}

void test_join_signal_at(const char *file, int line, pid_t pid, int signal_number) {
    int status = join(file, line, pid);
    char text[64];
    if (!WIFSIGNALED(status) || WTERMSIG(status) != signal_number)
        test_fail(file, line, "child %d %s, expected to be killed by %s", (int)pid, status_text(status, text),
                  test_signal_name(signal_number));
}

bool test_join_killed_at(const char *file, int line, pid_t pid) {
    int status = join(file, line, pid);
    char text[64];
    if (status == 0)
        return false;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        test_fail(file, line, "child %d %s, expected to end with 0 or to be killed by SIGKILL", (int)pid,
                  status_text(status, text));
    return true;
}

// A letter of /proc/<pid>/task/<tid>/stat, or 0 if there is no such process.
static char thread_state(const char *directory, const char *thread) {
    char path[128], text[512];
    snprintf(path, sizeof path, "%s/%s/stat", directory, thread);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t bytes = read(file, text, sizeof text - 1);
    close(file);
    text[bytes < 0 ? 0 : bytes] = 0;
    const char *after_name = strrchr(text, ')');
    return after_name == NULL || after_name[1] == 0 ? 0 : after_name[2];
}

static char process_state(pid_t pid) {
    char number[16];
    snprintf(number, sizeof number, "%d", (int)pid);
    return thread_state("/proc", number);
}

static bool is_child(pid_t pid) {
    siginfo_t info;
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0;
}

static void send_signal(const char *file, int line, pid_t pid, int signal_number) {
    test_at(file, line);
    if (pid <= 0 || kill(pid, signal_number) != 0)
        test_fail(file, line, "kill(%d, %s): %s", (int)pid, test_signal_name(signal_number), strerror(errno));
}

void test_kill_at(const char *file, int line, pid_t pid) {
    send_signal(file, line, pid, SIGKILL);
    if (is_child(pid)) {
        wait_for(pid, 0, file, line);
        return;
    }
    for (char state = process_state(pid); state != 0 && state != 'Z' && state != 'X'; state = process_state(pid))
        test_sleep(1);
}

static bool all_threads_stopped(pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *directory = opendir(path);
    if (directory == NULL)
        return false;
    bool stopped = true;
    for (struct dirent *entry = readdir(directory); entry != NULL && stopped; entry = readdir(directory)) {
        char state = entry->d_name[0] == '.' ? 0 : thread_state(path, entry->d_name);
        stopped = state == 0 || strchr("TtZX", state) != NULL;
    }
    closedir(directory);
    return stopped;
}

void test_await_stop_at(const char *file, int line, pid_t pid) {
    test_at(file, line);
    if (is_child(pid)) {
        int status = wait_for(pid, WUNTRACED, file, line);
        char text[64];
        if (!WIFSTOPPED(status))
            test_fail(file, line, "child %d %s, expected to stop", (int)pid, status_text(status, text));
        return;
    }
    while (!all_threads_stopped(pid)) {
        if (process_state(pid) == 0)
            test_fail(file, line, "process %d is gone, expected to stop", (int)pid);
        test_sleep(1);
    }
}

void test_stop_at(const char *file, int line, pid_t pid) {
    send_signal(file, line, pid, SIGSTOP);
    test_await_stop_at(file, line, pid);
}

void test_resume_at(const char *file, int line, pid_t pid) {
    send_signal(file, line, pid, SIGCONT);
}

pthread_t test_thread(void *(*function)(void *argument), void *argument) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, function, argument);
    CHECK_MSG(error == 0, "pthread_create: %s", strerror(error));
    return thread;
}

void *test_thread_join(pthread_t thread) {
    void *result = NULL;
    int error = pthread_join(thread, &result);
    CHECK_MSG(error == 0, "pthread_join: %s", strerror(error));
    return result;
}

// ---------------------------------------------------------------------------------------------------------------------
// Between processes

static void futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *timeout) {
    syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

uint32_t test_signal(_Atomic uint32_t *word) {
    uint32_t value = atomic_fetch_add_explicit(word, 1, memory_order_acq_rel) + 1;   // pairs with test_await's load
    futex(word, FUTEX_WAKE, INT32_MAX, NULL);
    return value;
}

void test_await_at(const char *file, int line, _Atomic uint32_t *word, uint32_t value) {
    static const struct timespec a_while = {.tv_nsec = 100000000};
    test_at(file, line);
    for (;;) {
        uint32_t now = atomic_load_explicit(word, memory_order_acquire);   // pairs with test_signal's addition
        if ((int32_t)(now - value) >= 0)
            return;
        give_up_if_failed(file, line);
        futex(word, FUTEX_WAIT, now, &a_while);
    }
}

void test_spin_meet(_Atomic uint32_t *word, uint32_t parties) {
    uint32_t wanted = test_meeting(atomic_fetch_add(word, 1) + 1, parties);
    while ((int32_t)(atomic_load(word) - wanted) < 0)
        sched_yield();
}

// ---------------------------------------------------------------------------------------------------------------------
// Steps

typedef struct armed_step {
    const char *where;                                             // NULL: any
    test_action action;
    void (*function)(void);
    pid_t pid;                                                     // a forked child inherits the table, not the arming
    _Atomic int left;                                              // until it happens; 0 and below: it has happened
} armed_step;

static armed_step armed[16];
static _Atomic unsigned armed_count;
static _Thread_local uint64_t passed;

void test_at_step(const char *where, int nth, test_action action, void (*function)(void)) {
    unsigned count = atomic_load_explicit(&armed_count, memory_order_relaxed);   // relaxed: only this thread arms
    CHECK(nth > 0 && (action != TEST_CALL || function != NULL));
    CHECK(count < sizeof armed / sizeof armed[0]);
    armed[count].where = where;
    armed[count].action = action;
    armed[count].function = function;
    armed[count].pid = getpid();
    atomic_store_explicit(&armed[count].left, nth, memory_order_relaxed);
    atomic_store_explicit(&armed_count, count + 1, memory_order_release);        // pairs with test_step's load
}

void test_step_any_kill(int n) {
    test_at_step(NULL, n, TEST_KILL, NULL);
}

void test_steps_clear(void) {
    atomic_store_explicit(&armed_count, 0, memory_order_release);
}

uint64_t test_steps_passed(void) {
    return passed;
}

// By tgkill, so that a stop hits this thread before the next instruction, and without glibc's idea of the thread's id,
// which is its parent's in a child that raw clone made.
static void signal_self(int signal_number) {
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal_number);
}

static void act(const armed_step *step) {
    switch (step->action) {
    case TEST_STOP:
        signal_self(SIGSTOP);
        break;
    case TEST_KILL:
        for (;;)
            signal_self(SIGKILL);
    case TEST_CALL:
        step->function();
        break;
    }
}

static void reach(armed_step *step, const char *where) {
    if (step->where != NULL && strcmp(step->where, where) != 0)
        return;
    if (step->pid != getpid() || atomic_load_explicit(&step->left, memory_order_relaxed) <= 0)
        return;
    if (atomic_fetch_sub_explicit(&step->left, 1, memory_order_relaxed) == 1)    // of several threads only one sees 1
        act(step);
}

void test_step(const char *where) {
    passed++;
    unsigned count = atomic_load_explicit(&armed_count, memory_order_acquire);   // pairs with test_at_step's store
    for (unsigned i = 0; i < count; i++)
        reach(&armed[i], where);
}

// ---------------------------------------------------------------------------------------------------------------------
// Beginning and end of a test's process

static void make_place_page(void) {
    size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return;
    (void)madvise(page, bytes, MADV_WIPEONFORK);                   // refused: children then report under our pid
    place_page = page;
}

static uint64_t hash(const char *text) {
    uint64_t value = 0xcbf29ce484222325u;
    for (; *text != 0; text++)
        value = (value ^ (uint8_t)*text) * 0x100000001b3u;
    return value;
}

// A sanitizer's finding is the test's failure in whichever process it is made, also where nobody looks at its exit
// code. UBSan, a library of its own with GCC, calls the second function by its name.
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));
void __ubsan_on_report(void);

static void note_finding(void) {
    if (here.block != NULL)
        atomic_fetch_add_explicit(&here.block->failed, 1, memory_order_relaxed);
}

void __ubsan_on_report(void) {
    note_finding();
}

static void enter(const char *name, test_block *block, const char *prefix, uint64_t seed) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    here.name = name;
    here.block = block;
    here.prefix = prefix;
    make_place_page();
    reseed(seed + hash(name));
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(note_finding);
}

static void tell_programs(const test_case *test, const test_context *context) {
    char seed[32];
    snprintf(seed, sizeof seed, "%" PRIu64, context->seed);
    setenv("TEST_NAME", test->name, 1);
    setenv("TEST_PREFIX", context->prefix, 1);
    setenv("TEST_BLOCK", context->block_path, 1);
    setenv("TEST_SEED", seed, 1);
}

void test_enter(const test_case *test, test_block *block, const test_context *context) {
    here.test_pid = getpid();
    tell_programs(test, context);
    enter(test->name, block, context->prefix, context->seed);
    test_at(test->file, test->line);
}

static test_block *map_block(const char *path) {
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return map_shared(sizeof(test_block));                     // then its failures show in its exit code alone
    void *memory = mmap(NULL, sizeof(test_block), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return memory == MAP_FAILED ? map_shared(sizeof(test_block)) : memory;
}

static const test_case *find_program(const char *name) {
    const test_case *test = cases;
    while (test != NULL && !(test->program && strcmp(test->name, name) == 0))
        test = test->next;
    return test;
}

static const char *from_environment(const char *variable) {
    const char *value = getenv(variable);
    return value == NULL ? "" : value;
}

int test_enter_program(const char *name, const char *argument) {
    const test_case *program = find_program(name);
    if (program == NULL) {
        fprintf(stderr, "no TEST_PROGRAM(%s)\n", name);
        return 2;
    }
    uint64_t seed = strtoull(from_environment("TEST_SEED"), NULL, 10) + hash(name) + hash(argument);
    enter(from_environment("TEST_NAME"), map_block(from_environment("TEST_BLOCK")), from_environment("TEST_PREFIX"),
          seed);
    test_at(program->file, program->line);
    program->run_program(argument);
    flush_stdout();
    return 0;
}

// With the leak check that the sanitizer would make at exit(), which a test does not reach.
__attribute__((weak)) void __lsan_do_leak_check(void);

_Noreturn void test_leave(void) {
    if (getpid() != here.test_pid)
        test_fail(__FILE__, __LINE__, "a forked child returned from the test's function; it has to _exit");
    flush_stdout();
    atomic_store_explicit(&here.block->returned, 1, memory_order_release);
    if (__lsan_do_leak_check != NULL)
        __lsan_do_leak_check();
    _exit(0);
}
