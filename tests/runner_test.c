// tests/runner_test.c: the runner and the helpers of test.h are themselves tested here. What must be reported as failed
// is a hidden test, run by a runner inside a test, whose report is then read.
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// A runner inside a test

typedef struct nested {
    pid_t pid;
    int output;
    int status;
    char text[256 << 10];
} nested;

static char *exec_self(char **argv) {
    argv[0] = test_self();
    execv(argv[0], argv);
    return argv[0];
}

static void nested_start(nested *run, const char *filter, const char *option) {
    int ends[2];
    char filtered[512];
    snprintf(filtered, sizeof filtered, "--filter=%s", filter);
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    run->output = ends[0];
    run->pid = fork();
    CHECK(run->pid >= 0);
    if (run->pid == 0) {
        char no_gdb[] = "--no-gdb", jobs[] = "--jobs=4", last[64];
        snprintf(last, sizeof last, "%s", option == NULL ? "--repeat=1" : option);
        dup2(ends[1], STDOUT_FILENO);
        test_fail(__FILE__, __LINE__, "exec of %s", exec_self((char *[]){NULL, no_gdb, jobs, filtered, last, NULL}));
    }
    close(ends[1]);
}

static void nested_finish(nested *run) {
    size_t used = 0;
    for (ssize_t got = 1; got > 0; used += (size_t)got) {
        CHECK(used < sizeof run->text - 1);
        got = read(run->output, run->text + used, sizeof run->text - 1 - used);
        CHECK(got >= 0);
    }
    run->text[used] = 0;
    close(run->output);
    run->status = test_wait(run->pid);
    fputs(run->text, stdout);
}

// The report, and the exit code in *code if that is not NULL. Static, because it is large.
static const char *report_of(const char *filter, const char *option, int *code) {
    static nested run;
    nested_start(&run, filter, option);
    nested_finish(&run);
    CHECK(WIFEXITED(run.status));
    if (code != NULL)
        *code = WEXITSTATUS(run.status);
    return run.text;
}

static void check_lacks(const char *text, const char *unwanted) {
    CHECK_MSG(strstr(text, unwanted) == NULL, "\"%s\" in the report", unwanted);
}

static void check_last_line(const char *text, const char *wanted) {
    size_t bytes = strlen(text), wanted_bytes = strlen(wanted);
    CHECK(bytes > wanted_bytes + 2 && text[bytes - 1] == '\n' && text[bytes - wanted_bytes - 2] == '\n');
    CHECK(strncmp(text + bytes - wanted_bytes - 1, wanted, wanted_bytes) == 0);
}

static void check_reported(const char *test, const char *wanted) {
    int code;
    const char *report = report_of(test, NULL, &code);
    CHECK_HAS(report, wanted);
    CHECK_HAS(report, "FAIL");
    check_last_line(report, "0 passed, 1 failed");
    CHECK_EQ(code, 1);
}

// A number that a failed test has printed after a word.
static int number_after(const char *report, const char *word) {
    const char *found = strstr(report, word);
    CHECK_MSG(found != NULL, "no \"%s\" in the report", word);
    return atoi(found + strlen(word));
}

static bool exists(pid_t pid) {
    return kill(pid, 0) == 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Checks that do not hold

TEST(_fails_check) {
    int one = 1;
    CHECK(one == 2);
}

TEST(_fails_check_msg) {
    CHECK_MSG(test_now() == 0, "round %d", 7);
}

TEST(_fails_check_eq) {
    CHECK_EQ(-1, UINT64_MAX);
}

TEST(_fails_check_str) {
    CHECK_STR("left", "right");
}

TEST(_fails_check_null) {
    CHECK_STR(NULL, "right");
}

TEST(_fails_check_ok) {
    CHECK_OK(ZCP_ERR_STALE);
}

TEST(_fails_check_status) {
    zcp_relptr nothing = {0};
    CHECK(zcp_relptr_is_null(nothing));
    CHECK_STATUS(zcp_registry_remove(zcp_registry_default(), 9), ZCP_ERR_FULL);
}

TEST(runner_reports_each_kind_of_check) {
    check_reported("_fails_check", "CHECK(one == 2)");
    check_reported("_fails_check_msg", "round 7");
    check_reported("_fails_check_eq", "is -1, expected 18446744073709551615 (0xffffffffffffffff)");
    check_reported("_fails_check_str", "is \"left\", expected \"right\"");
    check_reported("_fails_check_null", "is NULL, expected \"right\"");
    check_reported("_fails_check_ok", "is ZCP_ERR_STALE, expected ZCP_OK");
    check_reported("_fails_check_status", "is ZCP_ERR_NOT_FOUND, expected ZCP_ERR_FULL; message: ");
    check_reported("_fails_check", "tests/runner_test.c:");
}

TEST(checks_compare_by_value) {
    _Atomic uint32_t word = 5;
    CHECK_EQ(word, 5);
    CHECK_EQ(true, 1u);
    CHECK_EQ(ZCP_OK, 0);
    CHECK_EQ((char)3, 3L);
    CHECK_EQ((signed char)-3, -3L);
    CHECK_EQ(UINT64_MAX, UINT64_MAX);
    CHECK_EQ(INT64_MIN, INT64_MIN);
    CHECK_STR("same", "same");
    CHECK_STR(NULL, NULL);
    CHECK_OK(ZCP_OK);
}

static void fail_in_child(void *word) {
    (void)word;
    CHECK_EQ(1, 2);
}

TEST(_fails_in_child) {
    test_join(test_spawn(fail_in_child, NULL));
}

// The child fails, the test does not look, and returns well after.
TEST(_fails_in_child_unseen) {
    pid_t child = test_spawn(fail_in_child, NULL);
    test_wait(child);
}

TEST(_waits_for_child_that_failed) {
    static _Atomic uint32_t *word;
    word = test_shared(sizeof *word);
    test_spawn(fail_in_child, NULL);
    test_await(word, 1);
}

// Deaf to the failure of its child: the warden has to end it.
TEST(_sleeps_after_child_failed) {
    test_spawn(fail_in_child, NULL);
    for (;;)
        test_sleep(1000);
}

static void *fail_in_thread(void *argument) {
    CHECK(argument != NULL);
    return NULL;
}

TEST(_fails_in_thread) {
    test_thread_join(test_thread(fail_in_thread, NULL));
}

TEST_PROGRAM(failing_program, argument) {
    CHECK_STR(argument, "something else");
}

TEST(_fails_in_program) {
    test_wait(test_exec("failing_program", "this"));
}

TEST_WITH(runner_reports_failures_in_children, .seconds = 60) {
    check_reported("_fails_in_child", "1 == 2: is 1, expected 2");
    check_reported("_fails_in_child_unseen", "a check failed");
    check_reported("_waits_for_child_that_failed", "gives up: another process of this test has failed");
    check_reported("_sleeps_after_child_failed", "did not end by itself");
    check_reported("_fails_in_thread", "CHECK(argument != NULL)");
    check_reported("_fails_in_program", "is \"this\", expected \"something else\"");
}

// ---------------------------------------------------------------------------------------------------------------------
// Ends that are no good ends

TEST(_crashes) {
    signal(SIGSEGV, SIG_DFL);                                      // the sanitizers handle it
    raise(SIGSEGV);
}

TEST(_exits) {
    _exit(0);
}

TEST(_exits_with_3) {
    _exit(3);
}

TEST(_child_returns) {
    pid_t pid = fork();
    if (pid > 0)
        test_wait(pid);
}

TEST(_prints_without_end) {
    static char line[1 << 20];
    memset(line, 'x', sizeof line - 1);
    for (;;)
        test_note("%.4000s", line);
}

TEST(runner_reports_other_ends) {
    check_reported("_crashes", "killed by SIGSEGV");
    check_reported("_exits", "ended with exit code 0");
    check_reported("_exits_with_3", "ended with exit code 3");
    check_reported("_child_returns", "a forked child returned");
    check_reported("_prints_without_end", "printed more than 64 MiB");
}

// ---------------------------------------------------------------------------------------------------------------------
// Findings of the sanitizers, in a child whose exit code nobody looks at

#if defined(TEST_ASAN)
static void use_freed(void *unused) {
    char *volatile memory = malloc(4);                             // volatile: the compiler is to see nothing
    (void)unused;
    free(memory);
    *(volatile char *)memory = 1;
}

TEST(_uses_freed_unseen) {
    test_wait(test_spawn(use_freed, NULL));
}

TEST(_shifts_too_far_unseen) {
    volatile int bits = 99;
    pid_t child = fork();
    if (child == 0)
        _exit(1 << bits);
    test_wait(child);
}

// Many, because a copy of the last pointer may be lying about.
TEST(_leaks) {
    for (size_t i = 1; i < 100; i++) {
        void *volatile memory = malloc(i);
        memory = NULL;
        (void)memory;
    }
}

TEST(runner_reports_sanitizer) {
    check_reported("_uses_freed_unseen", "heap-use-after-free");
    check_reported("_shifts_too_far_unseen", "shift exponent 99");
    check_reported("_leaks", "detected memory leaks");
}
#elif defined(TEST_TSAN)
static int raced;

static void *race(void *unused) {
    for (int i = 0; i < 1000; i++)
        raced++;
    return unused;
}

static void race_in_threads(void *unused) {
    pthread_t other = test_thread(race, unused);
    race(unused);
    test_thread_join(other);
}

TEST(_races_unseen) {
    test_wait(test_spawn(race_in_threads, NULL));
}

TEST(runner_reports_sanitizer) {
    check_reported("_races_unseen", "data race");
}
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Processes and files that are left

static void sleep_for_ever(void *unused) {
    (void)unused;
    for (;;)
        test_sleep(1000);
}

static void sleep_in_another_session(void *argument) {
    _Atomic pid_t *pid_word = argument;
    setsid();
    if (fork() == 0) {
        *pid_word = getpid();
        raise(SIGSTOP);
        sleep_for_ever(NULL);
    }
}

// An orphan that has left session and group, and is stopped: nothing but its descent shows whose it is.
static pid_t spawn_hidden_orphan(void) {
    _Atomic pid_t *word = test_shared(sizeof *word);
    test_join(test_spawn(sleep_in_another_session, word));
    while (*word == 0)
        test_sleep(1);
    test_note("orphan %d", (int)*word);
    return *word;
}

static void leave_file(const char *name) {
    int file = shm_open(name, O_CREAT | O_RDWR, 0600);
    CHECK(file >= 0);
    close(file);
}

TEST(_leaves_process) {
    test_spawn(sleep_for_ever, NULL);
}

TEST(_leaves_orphan) {
    spawn_hidden_orphan();
}

TEST(_leaves_killed_process) {
    pid_t child = test_spawn(sleep_for_ever, NULL);
    kill(child, SIGKILL);
}

TEST(runner_reports_left_processes) {
    test_need("PR_SET_CHILD_SUBREAPER");
    check_reported("_leaves_process", "left processes: 1");
    const char *report = report_of("_leaves_orphan", NULL, NULL);
    CHECK_HAS(report, "left processes: 1");
    CHECK(!exists(number_after(report, "orphan ")));
    check_last_line(report_of("_leaves_killed_process", "--repeat=50", NULL), "50 passed, 0 failed");
}

TEST(_leaves_file) {
    leave_file(test_instance());
    leave_file(test_instance_n(3));
}

TEST(_leaves_file_and_fails) {
    leave_file(test_instance());
    CHECK(test_instance() == NULL);
}

static void check_no_file(const char *report) {
    char left[300];
    const char *name = strstr(report, "zcpt-");
    CHECK(name != NULL);
    snprintf(left, sizeof left, "/dev/shm/%.*s", (int)strcspn(name, " \n"), name);
    CHECK_MSG(access(left, F_OK) != 0, "%s is still there", left);
}

// (Where a nested runner forgets to remove a file, this test is reported too: its prefix is part of that file's name.)
TEST(runner_reports_left_files) {
    check_reported("_leaves_file", "left behind: ");
    check_reported("_leaves_file", "_leaves_file-3");
    check_no_file(report_of("_leaves_file", NULL, NULL));
    check_reported("_leaves_file_and_fails", "a check failed");
}

// ---------------------------------------------------------------------------------------------------------------------
// Hanging, and interruption

TEST_WITH(_hangs, .seconds = 1) {
    leave_file(test_instance());
    spawn_hidden_orphan();
    sleep_for_ever(NULL);
}

static void *await_nothing(void *word) {
    test_await(word, 1);
    return NULL;
}

TEST_WITH(_hangs_in_threads, .seconds = 1) {
    static _Atomic uint32_t word;
    test_thread(await_nothing, &word);
    await_nothing(&word);
}

TEST_WITH(_stops, .seconds = 1) {
    raise(SIGSTOP);
}

TEST_WITH(runner_reports_hanging, .seconds = 90) {
    test_need("MADV_WIPEONFORK");
    int code;
    const char *report = report_of("_hangs", "--timeout-scale=0.4", &code);
    CHECK_HAS(report, "watchdog: still running after");
    CHECK_HAS(report, "last passed tests/runner_test.c:");
    CHECK_HAS(report, "wchan ");
    CHECK_HAS(report, "state T");
    check_last_line(report, "0 passed, 1 failed");
    CHECK_EQ(code, 1);
    CHECK(!exists(number_after(report, "orphan ")));
    report = report_of("_hangs_in_threads", "--timeout-scale=0.4", NULL);
    CHECK_MSG(strstr(strstr(report, "thread ") + 1, "thread ") != NULL, "two threads are expected in the report");
    CHECK_HAS(report_of("_stops", "--timeout-scale=0.4", NULL), "state T");
}

// Waits for the file that _hangs makes. Its name ends in -_hangs, whatever the pids before.
static bool a_file_is_there(void) {
    char command[300];
    snprintf(command, sizeof command, "ls /dev/shm | grep -q '^%s.*-_hangs$'", getenv("TEST_PREFIX"));
    int status = system(command);                                  // NOLINT: our own words
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void await_file(bool there) {
    for (uint64_t start = test_now(); a_file_is_there() != there; test_sleep(10))
        CHECK_MSG(test_now() - start < UINT64_C(20000000000), there ? "no file came" : "the file stays");
}

static nested interrupted;

static void interrupt_with(int signal_number) {
    nested_start(&interrupted, "_hangs", "--timeout-scale=100");
    await_file(true);
    CHECK(kill(interrupted.pid, signal_number) == 0);
    nested_finish(&interrupted);
    await_file(false);
}

TEST(runner_cleans_up_when_interrupted) {
    interrupt_with(SIGINT);
    CHECK(WIFEXITED(interrupted.status));
    CHECK_EQ(WEXITSTATUS(interrupted.status), 128 + SIGINT);
    CHECK_HAS(interrupted.text, "interrupted");
    check_last_line(interrupted.text, "0 passed, 1 failed");
    interrupt_with(SIGTERM);
    CHECK_EQ(WEXITSTATUS(interrupted.status), 128 + SIGTERM);
}

// Nobody is left to report, but the wardens see their runner die, and end everything. They become our children then.
TEST(runner_killed_leaves_nothing) {
    test_need("PR_SET_CHILD_SUBREAPER");
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    interrupt_with(SIGKILL);
    CHECK(WIFSIGNALED(interrupted.status));
    while (wait(NULL) > 0)
        continue;
}

// ---------------------------------------------------------------------------------------------------------------------
// Counting, choosing, the schedule

TEST(_passes) {
    test_note("quiet words");
}

TEST(_skips) {
    test_skip("no such thing here");
}

static void skip_in_child(void *unused) {
    (void)unused;
    test_skip("in a child");
}

TEST(_finds_signals_as_they_are_by_default) {
    static const int signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction action;
        CHECK(sigaction(signals[i], NULL, &action) == 0);
        CHECK_MSG(action.sa_handler == SIG_DFL, "signal %d", signals[i]);
    }
}

TEST(runner_in_the_background_lets_tests_be_interrupted) {
    int code;
    signal(SIGINT, SIG_IGN);                                       // as a shell does for what it starts with &
    signal(SIGQUIT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);                                       // as nohup does
    report_of("_finds_signals_as_they_are_by_default", NULL, &code);
    CHECK_EQ(code, 0);
}

TEST(_skips_in_child) {
    test_wait(test_spawn(skip_in_child, NULL));
}

TEST(runner_counts_skipped) {
    int code;
    const char *report = report_of("_skips,_passes", NULL, &code);
    CHECK_HAS(report, "_skips: no such thing here");
    check_last_line(report, "1 passed, 0 failed, 1 skipped");
    CHECK_EQ(code, 0);
    check_last_line(report_of("_skips", NULL, &code), "0 passed, 0 failed, 1 skipped");
    CHECK_EQ(code, 1);
    check_reported("_skips_in_child", "only the test itself can skip");
}

TEST(runner_shows_output_if_asked) {
    check_lacks(report_of("_passes", NULL, NULL), "quiet words");
    CHECK_HAS(report_of("_passes", "--verbose", NULL), "quiet words");
}

TEST(runner_chooses_by_filter) {
    int code;
    check_last_line(report_of("no_such_test_at_all", NULL, &code), "0 passed, 0 failed");
    CHECK_EQ(code, 1);
    const char *list = report_of("runner_chooses_by_filter,checks_*_value", "--list", &code);
    CHECK_STR(list, "checks_compare_by_value\nrunner_chooses_by_filter\n");
    CHECK_EQ(code, 0);
    check_lacks(report_of("passes,_pass", "--list", NULL), "_passes");
    CHECK_STR(report_of("_passes", "--list", NULL), "_passes\n");
    check_lacks(report_of("", "--list", NULL), "\n_");
    CHECK_STR(report_of("runner_chooses_by_filter,-runner_*,checks_*_value", "--list", NULL),
              "checks_compare_by_value\n");
    check_lacks(report_of("-runner_*", "--list", NULL), "runner_");
    check_lacks(report_of("-runner_*", "--list", NULL), "\n_");
    CHECK_HAS(report_of("-runner_*", "--list", NULL), "checks_compare_by_value\n");
    check_last_line(report_of("_passes", "--repeat=7", NULL), "7 passed, 0 failed");
}

TEST(_draws) {
    CHECK_MSG(test_random() == 0, "drawn %llu", (unsigned long long)test_random());
}

TEST(runner_seeds_random_numbers) {
    char first[64];
    const char *report = report_of("_draws", "--seed=1", NULL);
    CHECK_HAS(report, "--seed=1 ");
    snprintf(first, sizeof first, "%.30s", strstr(report, "drawn "));
    CHECK_HAS(report_of("_draws", "--seed=1", NULL), first);
    check_lacks(report_of("_draws", "--seed=2", NULL), first);
}

// The outer test says under which name they find each other.
static const char *meeting_path(const char *name) {
    static char path[300];
    CHECK(getenv("MEETING") != NULL);
    snprintf(path, sizeof path, "/%s%s", getenv("MEETING"), name);
    return path;
}

static int open_meeting(const char *name, int flags) {
    return shm_open(meeting_path(name), flags, 0600);
}

static void close_meeting(const char *name) {
    shm_unlink(meeting_path(name));
}

static void meet(const char *mine, const char *other) {
    close(open_meeting(mine, O_CREAT | O_RDWR));
    int file;
    while ((file = open_meeting(other, O_RDWR)) < 0)
        test_sleep(5);
    close(file);
}

TEST_WITH(_meets_first, .seconds = 20) {
    meet("first", "second");
}

TEST_WITH(_meets_second, .seconds = 20) {
    meet("second", "first");
}

TEST_WITH(_is_alone, .weight = TEST_ALONE) {
    int file = open_meeting("alone", O_CREAT | O_EXCL | O_RDWR);
    CHECK(file >= 0);
    close(file);
    test_sleep(30);
    close_meeting("alone");
}

TEST(runner_runs_side_by_side) {
    setenv("MEETING", test_instance(), 1);
    check_last_line(report_of("_meets_first,_meets_second", NULL, NULL), "2 passed, 0 failed");
    close_meeting("first");
    close_meeting("second");
    check_last_line(report_of("_is_alone", "--repeat=5", NULL), "5 passed, 0 failed");
}

// ---------------------------------------------------------------------------------------------------------------------
// The helpers

TEST_PROGRAM(prints_its_instance, path) {
    CHECK_STR(test_instance(), path);
}

static void check_instance(void *name) {
    CHECK_STR(test_instance(), (const char *)name);
}

TEST(helpers_name_instances) {
    char name[128];
    snprintf(name, sizeof name, "%s", test_instance());
    CHECK_HAS(name, "helpers_name_instances");
    CHECK(strcmp(test_instance_n(1), test_instance_n(2)) != 0);
    CHECK_STR(test_instance_n(1), test_instance_n(1));
    test_join(test_spawn(check_instance, name));
    test_join(test_exec("prints_its_instance", name));
}

static void draw(void *numbers) {
    *(uint64_t *)numbers = test_random();
}

static void *draw_in_thread(void *numbers) {
    draw(numbers);
    return NULL;
}

TEST(helpers_draw_different_numbers) {
    uint64_t *numbers = test_shared(5 * sizeof *numbers);
    draw(&numbers[0]);
    test_thread_join(test_thread(draw_in_thread, &numbers[1]));
    test_thread_join(test_thread(draw_in_thread, &numbers[2]));
    test_join(test_spawn(draw, &numbers[3]));
    test_join(test_spawn(draw, &numbers[4]));
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < i; j++)
            CHECK(numbers[i] != numbers[j]);
    for (int i = 0; i < 1000; i++)
        CHECK(test_random_below(3) < 3);
}

typedef struct exchange {
    _Atomic uint32_t ping, pong, meeting;
    uint64_t value;                                                // plain: handed over by the words
} exchange;

static void answer(void *memory) {
    exchange *shared = memory;
    for (uint32_t i = 1; i <= 1000; i++) {
        test_await(&shared->ping, i);
        shared->value++;
        test_signal(&shared->pong);
    }
    test_meet(&shared->meeting, 2);
    test_meet(&shared->meeting, 2);
}

TEST(helpers_pass_words_between_processes) {
    exchange *shared = test_shared(sizeof *shared);
    pid_t child = test_spawn(answer, shared);
    for (uint32_t i = 1; i <= 1000; i++) {
        shared->value++;
        test_signal(&shared->ping);
        test_await(&shared->pong, i);
    }
    CHECK_EQ(shared->value, 2000);
    test_meet(&shared->meeting, 2);
    test_meet(&shared->meeting, 2);
    CHECK_EQ(shared->meeting, 4);
    test_join(child);
}

static void raise_signal(void *number) {
    signal(*(int *)number, SIG_DFL);
    raise(*(int *)number);
}

static void end_with_3(void *unused) {
    (void)unused;
    _exit(3);
}

static int kill_signal = SIGKILL, segv_signal = SIGSEGV;

TEST(helpers_join_the_killed) {
    int none = 0;
    test_join_signal(test_spawn(raise_signal, &segv_signal), SIGSEGV);
    CHECK(test_join_killed(test_spawn(raise_signal, &kill_signal)));
    CHECK(!test_join_killed(test_spawn(raise_signal, &none)));
    CHECK(WIFSIGNALED(test_wait(test_spawn(raise_signal, &segv_signal))));
}

TEST(_joins_3) {
    test_join(test_spawn(end_with_3, NULL));
}

TEST(_joins_killed) {
    test_join(test_spawn(raise_signal, &kill_signal));
}

TEST(_joins_segv_as_killed) {
    test_join_killed(test_spawn(raise_signal, &segv_signal));
}

TEST(_joins_killed_as_segv) {
    test_join_signal(test_spawn(raise_signal, &kill_signal), SIGSEGV);
}

TEST(_awaits_stop_of_killed) {
    test_await_stop(test_spawn(raise_signal, &kill_signal));
}

TEST(helpers_report_unexpected_ends) {
    check_reported("_joins_3", "ended with 3, expected to end with 0");
    check_reported("_joins_killed", "was killed by SIGKILL, expected to end with 0");
    check_reported("_joins_segv_as_killed", "was killed by SIGSEGV, expected");
    check_reported("_joins_killed_as_segv", "was killed by SIGKILL, expected to be killed by SIGSEGV");
    check_reported("_awaits_stop_of_killed", "was killed by SIGKILL, expected to stop");
}

static void count_up(void *argument) {
    _Atomic uint64_t *word = argument;
    for (;;) {
        atomic_fetch_add(word, 1);
        test_sleep(0);
    }
}

static bool counts(_Atomic uint64_t *word) {
    uint64_t before = atomic_load(word);
    test_sleep(30);
    return atomic_load(word) != before;
}

static char state_of(pid_t pid) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
    fclose(file);
    return state;
}

static void check_stop_and_kill(pid_t pid, _Atomic uint64_t *word) {
    while (atomic_load(word) == 0)
        test_sleep(1);
    for (int round = 0; round < 100; round++) {
        test_stop(pid);
        CHECK_EQ(state_of(pid), 'T');
        test_resume(pid);
    }
    test_stop(pid);
    CHECK(!counts(word));
    test_resume(pid);
    while (!counts(word))
        test_sleep(1);
    test_kill(pid);
    CHECK(!counts(word));
}

static void spawn_counter(void *memory) {
    _Atomic uint64_t *words = memory;
    words[1] = (uint64_t)test_spawn(count_up, &words[0]);
}

TEST(helpers_stop_and_kill_children) {
    _Atomic uint64_t *word = test_shared(sizeof *word);
    check_stop_and_kill(test_spawn(count_up, word), word);
}

TEST(helpers_stop_and_kill_strangers) {
    _Atomic uint64_t *words = test_shared(2 * sizeof *words);
    test_join(test_spawn(spawn_counter, words));
    check_stop_and_kill((pid_t)words[1], &words[0]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Steps

static int called;

static void count_call(void) {
    called++;
}

TEST(steps_call) {
    uint64_t before = test_steps_passed();
    test_at_step("push", 2, TEST_CALL, count_call);
    test_step("push");
    test_step("pop");
    CHECK_EQ(called, 0);
    test_step("push");
    CHECK_EQ(called, 1);
    test_step("push");
    CHECK_EQ(called, 1);
    CHECK_EQ(test_steps_passed() - before, 4);
    test_at_step(NULL, 1, TEST_CALL, count_call);
    test_steps_clear();
    test_step("push");
    CHECK_EQ(called, 1);
}

static void pass_steps(void *word) {
    for (int i = 0; i < 3; i++) {
        test_step("push");
        test_signal(word);
    }
}

static void stop_at_second(void *word) {
    test_at_step("push", 2, TEST_STOP, NULL);
    pass_steps(word);
}

static void die_at_third(void *word) {
    test_step_any_kill(3);
    pass_steps(word);
}

TEST(steps_stop) {
    _Atomic uint32_t *word = test_shared(sizeof *word);
    pid_t child = test_spawn(stop_at_second, word);
    test_await_stop(child);
    CHECK_EQ(*word, 1);
    test_resume(child);
    test_join(child);
    CHECK_EQ(*word, 3);
}

TEST(steps_kill) {
    _Atomic uint32_t *word = test_shared(sizeof *word);
    test_join_signal(test_spawn(die_at_third, word), SIGKILL);
    CHECK_EQ(*word, 2);
}

// Armed here means here: not in a child, however it was forked.
TEST(steps_are_not_inherited) {
    _Atomic uint32_t *word = test_shared(sizeof *word);
    test_step_any_kill(1);
    test_join(test_spawn(pass_steps, word));
    CHECK_EQ(*word, 3);
}

enum { STEPPING_THREADS = 4, STEPS_EACH = 1000 };

static _Atomic int calls_of_threads;

static void count_call_of_thread(void) {
    atomic_fetch_add(&calls_of_threads, 1);
}

static void *step_often(void *argument) {
    for (int i = 0; i < STEPS_EACH; i++)
        test_step("push");
    CHECK_EQ(test_steps_passed(), STEPS_EACH);
    return argument;
}

TEST(steps_of_threads_are_counted_together) {
    pthread_t threads[STEPPING_THREADS];
    test_at_step("push", STEPPING_THREADS * STEPS_EACH, TEST_CALL, count_call_of_thread);
    test_at_step("push", 1 + STEPPING_THREADS * STEPS_EACH, TEST_KILL, NULL);
    test_at_step("push", STEPS_EACH, TEST_CALL, count_call_of_thread);
    for (int i = 0; i < STEPPING_THREADS; i++)
        threads[i] = test_thread(step_often, NULL);
    for (int i = 0; i < STEPPING_THREADS; i++)
        test_thread_join(threads[i]);
    CHECK_EQ(calls_of_threads, 2);
}
