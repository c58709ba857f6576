// tests/harness/test.h: what a test of zerocp can use.
//
//   #include "test.h"
//
//   TEST(pool_counts_its_chunks) {
//       zcp_manager *manager;
//       CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
//       CHECK_EQ(zcp_manager_pool_end(manager), 1);
//       ...
//   }
//
// Put it into any tests/*.c: everything there is linked into build/tests/run. The runner forks each test into a
// session of its own. A test passes if it returns, no process of it failed a CHECK, no process of it is left, and no
// file in /dev/shm carries its prefix. Its output is shown only if it fails.
#ifndef ZEROCP_TEST_H
#define ZEROCP_TEST_H

#include "zerocp_relptr.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// TEST_ASAN or TEST_TSAN where the tests are built with a sanitizer (make sanitize).
#if defined(__has_feature)
#define TEST_HAS_FEATURE(feature) __has_feature(feature)
#else
#define TEST_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || TEST_HAS_FEATURE(thread_sanitizer)
#define TEST_TSAN
#elif defined(__SANITIZE_ADDRESS__) || TEST_HAS_FEATURE(address_sanitizer)
#define TEST_ASAN
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Tests

typedef struct test_case {
    const char *name;
    const char *file;
    int line;
    void (*run)(void);
    int seconds;                                                   // watchdog, 0: 60 s; see also --timeout-scale
    // of the --jobs places, 0: 1; TEST_ALONE: all of them
    int weight;
    bool program;
    void (*run_program)(const char *argument);
    struct test_case *next;
} test_case;

enum { TEST_ALONE = 1000000 };

void test_register(test_case *test);

// A name that begins with `_` is hidden: not listed, and run only if a filter names it in full.
#define TEST(test_name) TEST_WITH(test_name, .weight = 1)

// TEST_WITH(slow_one, .seconds = 120, .weight = 2) { ... }
#define TEST_WITH(test_name, ...)                                                                                      \
    static void test_run_##test_name(void);                                                                            \
    __attribute__((constructor)) static void test_register_##test_name(void) {                                         \
        static test_case test = {.name = #test_name, .file = __FILE__, .line = __LINE__,                               \
                                 .run = test_run_##test_name, __VA_ARGS__};                                            \
        test_register(&test);                                                                                          \
    }                                                                                                                  \
    static void test_run_##test_name(void)

// TEST_PROGRAM(reader, argument) { ... }: not a test, but a main() which a test starts with exec, so at other addresses
// and with nothing inherited: see test_exec. All of this header works in it; `argument` is a const char *.
#define TEST_PROGRAM(test_name, argument_name)                                                                         \
    static void test_run_##test_name(const char *argument_name);                                                       \
    __attribute__((constructor)) static void test_register_##test_name(void) {                                         \
        static test_case test = {.name = #test_name, .file = __FILE__, .line = __LINE__,                               \
                                 .program = true, .run_program = test_run_##test_name};                                \
        test_register(&test);                                                                                          \
    }                                                                                                                  \
    static void test_run_##test_name(const char *argument_name)

// Ends the test as skipped. Only from the test's own process, not from a child.
_Noreturn void test_skip(const char *reason);

// Skips the test if this machine, or the emulator that makes it, lacks what a probe of tests/machines/probe.h is named
// for.
void test_need(const char *what);

// Skips the test if it does not run as root.
void test_need_root(void);

// ---------------------------------------------------------------------------------------------------------------------
// Checks. One that does not hold prints what, where and in which process, and ends that process with exit code 1; the
// test has then failed, whatever the other processes do, and is ended within two seconds.

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        if (!(condition))                                                                                              \
            test_fail(__FILE__, __LINE__, "CHECK(%s)", #condition);                                                    \
    } while (0)

// With a message, as printf: CHECK_MSG(used == 0, "round %d: %u used", round, used);
#define CHECK_MSG(condition, ...)                                                                                      \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        if (!(condition))                                                                                              \
            test_fail_with(__FILE__, __LINE__, #condition, __VA_ARGS__);                                               \
    } while (0)

// Integers of any two types (compared by value: -1 is not UINT32_MAX), bools, enumerators, _Atomic ones loaded first.
#define CHECK_EQ(actual, expected)                                                                                     \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        test_check_eq(__FILE__, __LINE__, #actual " == " #expected, TEST_INTEGER(actual), TEST_INTEGER(expected));     \
    } while (0)

// The text has that part somewhere.
#define CHECK_HAS(text, part)                                                                                          \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        test_check_has(__FILE__, __LINE__, (text), (part));                                                            \
    } while (0)

#define CHECK_STR(actual, expected)                                                                                    \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        test_check_str(__FILE__, __LINE__, #actual " == " #expected, (actual), (expected));                            \
    } while (0)

// On failure with zcp_last_message() and zcp_last_errno() of that moment.
#define CHECK_STATUS(actual, expected)                                                                                 \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        test_check_status(__FILE__, __LINE__, #actual, (actual), (expected));                                          \
    } while (0)

#define CHECK_OK(actual) CHECK_STATUS(actual, ZCP_OK)

// Into the test's output, which is shown if it fails (or with --verbose).
__attribute__((format(printf, 1, 2))) void test_note(const char *format, ...);

// ---------------------------------------------------------------------------------------------------------------------
// Names, memory, random numbers, time

// Instance names of this test in this run, the same in all its processes; the prefix is what the runner looks for in
// /dev/shm afterwards. test_instance_n(n) gives further ones, one for each n.
const char *test_instance(void);
const char *test_instance_n(int n);

// How often the text has that part.
int test_count_of(const char *text, const char *part);

// Zeroed memory that the processes forked later share. Never unmapped: it goes with the process.
void *test_shared(size_t bytes);

// The seed is the runner's (--seed, printed when a test fails) mixed with the test's name. Each process made by
// test_spawn, and each thread, in the order of first use, gets a sequence of its own.
uint64_t test_random(void);
uint64_t test_random_below(uint64_t limit);

// The other way round, as a machine of the other byte order has it.
void test_swap_bytes(unsigned char *at, size_t bytes);

uint64_t test_now(void);                                           // monotonic, ns
uint64_t test_cpu_now(void);                                       // what this thread has used of the CPU, ns
void test_sleep(unsigned milliseconds);

// ---------------------------------------------------------------------------------------------------------------------
// Processes

// Forks; the child runs function(argument) and ends with _exit(0).
pid_t test_spawn(void (*function)(void *argument), void *argument);
// The same for a function that needs to know a name only.
pid_t test_spawn_named(void (*function)(const char *name), const char *name);

// The calling process, which is root, becomes that user, in the group of the same number and one more (0: no more).
void test_become(uid_t user, gid_t group);

// Starts a TEST_PROGRAM by fork and exec. test_exec_argv is for those who start it otherwise (posix_spawn, vfork):
// argv[0] is the path to execute. It is good until the next call; the environment has to be passed on. test_self is
// that path: /proc/self/exe, or TEST_SELF of the environment where that is no program that the kernel can start (an
// emulator's).
char *test_self(void);
pid_t test_exec(const char *program, const char *argument);
char **test_exec_argv(const char *program, const char *argument);

// Wait for a child to end. test_join: it must end with 0. test_join_signal: it must die of that signal (a child that is
// to die of SIGSEGV calls signal(SIGSEGV, SIG_DFL) first, because the sanitizers handle it). test_join_killed: true if
// it died of SIGKILL, false if it ended with 0, and nothing else is accepted. test_wait: the status as of waitpid.
#define test_join(pid) test_join_at(__FILE__, __LINE__, (pid))
#define test_join_signal(pid, signal_number) test_join_signal_at(__FILE__, __LINE__, (pid), (signal_number))
#define test_join_killed(pid) test_join_killed_at(__FILE__, __LINE__, (pid))
int test_wait(pid_t pid);

// SIGKILL, and back only when it is gone: a child is reaped, anybody else is waited for.
#define test_kill(pid) test_kill_at(__FILE__, __LINE__, (pid))

// SIGSTOP, and back only when all its threads stand; test_await_stop waits for one that stops itself (test_at_step).
#define test_stop(pid) test_stop_at(__FILE__, __LINE__, (pid))
#define test_await_stop(pid) test_await_stop_at(__FILE__, __LINE__, (pid))
#define test_resume(pid) test_resume_at(__FILE__, __LINE__, (pid))

pthread_t test_thread(void *(*function)(void *argument), void *argument);
void *test_thread_join(pthread_t thread);

// ---------------------------------------------------------------------------------------------------------------------
// Between processes: a word in test_shared memory, zero at first. test_signal adds one and wakes; returns the new
// value. test_await waits until the word has reached the value. test_meet waits until `parties` have come, again and
// again. Release and acquire: what was written before a signal is seen after the await. All end early if the test has
// failed.

uint32_t test_signal(_Atomic uint32_t *word);
#define test_await(word, value) test_await_at(__FILE__, __LINE__, (word), (value))
#define test_meet(word, parties) test_await((word), test_meeting(test_signal(word), (parties)))

// As test_meet, but without a system call of its own or a look at the test: all go on at nearly the same moment.
void test_spin_meet(_Atomic uint32_t *word, uint32_t parties);

// ---------------------------------------------------------------------------------------------------------------------
// Steps: the implementation calls test_step("name") at each point of its protocols.

typedef enum { TEST_STOP, TEST_KILL, TEST_CALL } test_action;

// When this process reaches the step for the nth time from now on (1: the next time), it stops itself with SIGSTOP,
// kills itself with SIGKILL, or calls the function. `where` NULL: any step. Up to 16 at once; for this process only,
// not for its forked children.
void test_at_step(const char *where, int nth, test_action action, void (*function)(void));
void test_step_any_kill(int n);                                    // SIGKILL at the nth step, whatever its name
void test_steps_clear(void);
uint64_t test_steps_passed(void);                                  // by this thread so far, always counted

void test_step(const char *where);

// ---------------------------------------------------------------------------------------------------------------------
// Behind the macros

typedef struct test_integer {
    uint64_t bits;
    bool negative;
} test_integer;

static inline test_integer test_signed(int64_t value) {
    return (test_integer){(uint64_t)value, value < 0};
}

static inline test_integer test_unsigned(uint64_t value) {
    return (test_integer){value, false};
}

#define TEST_INTEGER(value)                                                                                            \
    (_Generic((value), char: test_signed, signed char: test_signed, short: test_signed, int: test_signed,              \
              long: test_signed, long long: test_signed, default: test_unsigned)(value))

static inline uint32_t test_meeting(uint32_t arrival, uint32_t parties) {
    return (arrival + parties - 1) / parties * parties;
}

void test_at(const char *file, int line);
__attribute__((format(printf, 3, 4))) _Noreturn void test_fail(const char *file, int line, const char *format, ...);
__attribute__((format(printf, 4, 5))) _Noreturn void test_fail_with(const char *file, int line, const char *condition,
                                                                    const char *format, ...);
void test_check_has(const char *file, int line, const char *text, const char *part);
void test_check_eq(const char *file, int line, const char *what, test_integer actual, test_integer expected);
void test_check_str(const char *file, int line, const char *what, const char *actual, const char *expected);
void test_check_status(const char *file, int line, const char *what, zcp_status actual, zcp_status expected);
void test_join_at(const char *file, int line, pid_t pid);
void test_join_signal_at(const char *file, int line, pid_t pid, int signal_number);
bool test_join_killed_at(const char *file, int line, pid_t pid);
void test_kill_at(const char *file, int line, pid_t pid);
void test_stop_at(const char *file, int line, pid_t pid);
void test_await_stop_at(const char *file, int line, pid_t pid);
void test_resume_at(const char *file, int line, pid_t pid);
void test_await_at(const char *file, int line, _Atomic uint32_t *word, uint32_t value);

#endif
