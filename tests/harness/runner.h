// tests/harness/runner.h: what runner.c (options, schedule, report), warden.c (one test from start to end) and test.c
// (inside the test's processes) have in common.
#ifndef ZEROCP_TEST_RUNNER_H
#define ZEROCP_TEST_RUNNER_H

#include "test.h"

// Where a process is: the source line that it passed last. Slots are taken by pid modulo their number; a collision
// costs a line of a report and no more. The file is its name's distance from an anchor in the same program, so that a
// process that was exec'd at other addresses is understood too.
enum { TEST_PLACES = 4096 };

typedef struct test_place {
    _Atomic uint32_t pid;
    // distance of the file's name:32 | line:32, 0: unknown
    _Atomic uint64_t at;
} test_place;

// What the processes of one test share with its warden.
typedef struct test_block {
    _Atomic uint32_t failed;                                       // checks that failed, in whichever process
    _Atomic uint32_t skipped;
    // the test's function has returned, in its own process
    _Atomic uint32_t returned;
    char reason[128];                                              // of skipping
    test_place places[TEST_PLACES];
} test_block;

// ---------------------------------------------------------------------------------------------------------------------
// test.c

typedef struct test_context {
    const char *prefix;                                            // of every name in /dev/shm
    const char *block_path;                                        // where an exec'd program finds the block
    uint64_t seed;
} test_context;

test_case *test_first(void);                                       // all that are registered, by file and line

void test_enter(const test_case *test, test_block *block, const test_context *context);
int test_enter_program(const char *name, const char *argument);    // the exit code
_Noreturn void test_leave(void);

// The line that the process passed last, as "file:line", or "" if it is not known.
void test_place_text(const test_block *block, pid_t pid, char *text, size_t bytes);

const char *test_signal_name(int number);                          // "SIGKILL"

enum { TEST_EXIT_FAILED = 1, TEST_EXIT_SKIPPED = 77 };

// ---------------------------------------------------------------------------------------------------------------------
// warden.c

typedef enum { TEST_PENDING, TEST_PASSED, TEST_FAILED, TEST_SKIPPED } test_outcome;

// Written by the warden, in memory that it shares with the runner.
typedef struct test_report {
    test_outcome outcome;
    uint64_t nanoseconds;
    char why[512];
} test_report;

typedef struct test_job {
    const test_case *test;
    pid_t runner;
    uint64_t seed;
    char prefix[96];
    double timeout_scale;
    bool debugger;                                                 // ask gdb where a hanging process is
    int output;                                                    // descriptor of what the test printed
    test_report *report;
} test_job;

// Runs the test and never returns: the process that calls this becomes its warden.
_Noreturn void test_warden(const test_job *job);

// Kills every descendant of the calling process, which must be a subreaper, and reaps them; false if some would not go.
bool test_kill_descendants(void);

#endif
