// tests/harness/runner.c: main() of the test program: options, schedule and report. See test.h.
#include "runner.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(TEST_TSAN)
enum { SLOWER = 5 };
#elif defined(TEST_ASAN)
enum { SLOWER = 3 };
#else
enum { SLOWER = 1 };
#endif

enum { SLOWEST = 5, SHOWN_OUTPUT = 48 << 10 };

// ---------------------------------------------------------------------------------------------------------------------
// Options

typedef struct options {
    const char *filter;
    const char *program;
    int jobs, repeat;
    double timeout_scale;
    uint64_t seed;
    bool list, verbose, no_gdb;
} options;

static const char usage[] =
    "usage: run [options]\n"
    "  --list             print the names of the tests and end\n"
    "  --filter=LIST      only tests whose names match one of a comma list: a part of the name, or a pattern with *;\n"
    "                     with - before it: not these\n"
    "                     (default: the environment variable FILTER)\n"
    "  --jobs=N           tests side by side (default: one more than CPUs, as some only wait)\n"
    "  --repeat=N         run everything N times, with another seed each time\n"
    "  --seed=N           of the random numbers\n"
    "  --timeout-scale=F  watchdogs take F times as long\n"
    "  --no-gdb           do not ask gdb where a test hangs\n"
    "  --verbose          print the output of tests that pass, too\n";

static int available_cpus(void) {
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
}

static uint64_t fresh_seed(void) {
    uint32_t seed = 1;
    (void)!getrandom(&seed, sizeof seed, 0);
    return seed;
}

_Noreturn static void refuse(const char *what, const char *value) {
    fprintf(stderr, "%s: %s\n%s", what, value, usage);
    exit(2);
}

static int positive(const char *option, const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    if (*end != 0 || value < 1 || value > 1000000)
        refuse(option, text);
    return (int)value;
}

static double positive_real(const char *option, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (*end != 0 || !(value > 0 && value < 1e6))
        refuse(option, text);
    return value;
}

static uint64_t any_number(const char *option, const char *text) {
    char *end;
    uint64_t value = strtoull(text, &end, 0);
    if (*end != 0 || end == text)
        refuse(option, text);
    return value;
}

static void take_option(options *chosen, int option, const char *value) {
    switch (option) {
    case 'l':
        chosen->list = true;
        break;
    case 'f':
        chosen->filter = value;
        break;
    case 'j':
        chosen->jobs = positive("--jobs", value);
        break;
    case 'r':
        chosen->repeat = positive("--repeat", value);
        break;
    case 's':
        chosen->seed = any_number("--seed", value);
        break;
    case 't':
        chosen->timeout_scale = positive_real("--timeout-scale", value);
        break;
    case 'g':
        chosen->no_gdb = true;
        break;
    case 'v':
        chosen->verbose = true;
        break;
    case 'p':
        chosen->program = value;
        break;
    case 'h':
        fputs(usage, stdout);
        exit(0);
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

static options read_options(int argc, char **argv) {
    static const struct option known[] = {
        {"list", no_argument, NULL, 'l'},           {"filter", required_argument, NULL, 'f'},
        {"jobs", required_argument, NULL, 'j'},     {"repeat", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},     {"timeout-scale", required_argument, NULL, 't'},
        {"no-gdb", no_argument, NULL, 'g'},         {"verbose", no_argument, NULL, 'v'},
        {"program", required_argument, NULL, 'p'},  {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    options chosen = {.filter = getenv("FILTER"), .jobs = available_cpus() + 1, .repeat = 1, .timeout_scale = 1};
    chosen.seed = fresh_seed();
    for (int option = getopt_long(argc, argv, "", known, NULL); option != -1;
         option = getopt_long(argc, argv, "", known, NULL))
        take_option(&chosen, option, optarg);
    if (optind < argc && chosen.program == NULL)
        refuse("unexpected argument", argv[optind]);
    return chosen;
}

// ---------------------------------------------------------------------------------------------------------------------
// Choosing tests

static bool matches_one(const char *name, const char *pattern) {
    if (name[0] == '_' || pattern[0] == '_')                       // hidden: in full, and nothing else with it
        return strcmp(name, pattern) == 0;
    if (strpbrk(pattern, "*?[") != NULL)
        return fnmatch(pattern, name, 0) == 0;
    return strstr(name, pattern) != NULL;
}

// What begins with `_` has to be asked for; so a list that only leaves out begins with all others.
static bool matches(const char *name, const char *filter) {
    bool found = false, left_out = false, asked = false;
    char *patterns = strdup(filter == NULL ? "" : filter), *rest = patterns;
    for (char *pattern = strsep(&rest, ","); pattern != NULL; pattern = strsep(&rest, ","))
        if (pattern[0] == '-')
            left_out |= matches_one(name, pattern + 1);
        else if (pattern[0] != 0) {
            asked = true;
            found |= matches_one(name, pattern);
        }
    free(patterns);
    return !left_out && (asked ? found : name[0] != '_');
}

static bool is_chosen(const test_case *test, const options *chosen) {
    return !test->program && matches(test->name, chosen->filter);
}

static int list_tests(const options *chosen) {
    for (const test_case *test = test_first(); test != NULL; test = test->next)
        if (is_chosen(test, chosen))
            puts(test->name);
    return 0;
}

static void refuse_equal_names(void) {
    for (const test_case *a = test_first(); a != NULL; a = a->next)
        for (const test_case *b = a->next; b != NULL; b = b->next)
            if (strcmp(a->name, b->name) == 0) {
                fprintf(stderr, "two tests are named %s: %s:%d, %s:%d\n", a->name, a->file, a->line, b->file, b->line);
                exit(2);
            }
}

// ---------------------------------------------------------------------------------------------------------------------
// The schedule

typedef struct entry {
    const test_case *test;
    int number;                                                    // in order of source and repetition
    uint64_t seed;
    int places;                                                    // of --jobs that it takes
    pid_t warden;                                                  // 0: not started
    int output;
    bool done;
} entry;

static struct {
    options chosen;
    entry *entries;
    int count, first_waiting, free_places, running;
    test_report *reports;                                          // shared with the wardens, by entry
    char base[64];                                                 // of all prefixes
    int passed, failed, skipped;
    int stopped_by;                                                // the signal, 0: none
} run;

// The long ones first, so that none begins when all others have ended; else as in the source.
static int compare_entries(const void *first, const void *second) {
    const entry *a = first, *b = second;
    if (a->places != b->places)
        return b->places - a->places;
    if (a->test->seconds != b->test->seconds)
        return b->test->seconds - a->test->seconds;
    return a->number - b->number;
}

// There is a place more than CPUs: who needs several for itself takes that, too.
static int places_of(const test_case *test) {
    int places = test->weight <= 1 ? 1 : test->weight + 1;
    return places > run.chosen.jobs ? run.chosen.jobs : places;
}

static void add_entries(int repetition) {
    for (const test_case *test = test_first(); test != NULL; test = test->next)
        if (is_chosen(test, &run.chosen)) {
            run.entries[run.count] = (entry){.test = test, .number = run.count, .places = places_of(test), .output = -1,
                                             .seed = run.chosen.seed + (uint64_t)repetition};
            run.count++;
        }
}

static int count_chosen(void) {
    int count = 0;
    for (const test_case *test = test_first(); test != NULL; test = test->next)
        count += is_chosen(test, &run.chosen);
    return count;
}

static void *checked(void *memory) {
    if (memory == NULL || memory == MAP_FAILED) {
        perror("no memory for the schedule");
        exit(2);
    }
    return memory;
}

static void make_schedule(void) {
    size_t count = (size_t)count_chosen() * (size_t)run.chosen.repeat + 1;
    run.entries = checked(calloc(count, sizeof *run.entries));
    run.reports = checked(mmap(NULL, count * sizeof *run.reports, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                               -1, 0));
    for (int repetition = 0; repetition < run.chosen.repeat; repetition++)
        add_entries(repetition);
    qsort(run.entries, (size_t)run.count, sizeof *run.entries, compare_entries);
    run.free_places = run.chosen.jobs;
}

// ---------------------------------------------------------------------------------------------------------------------
// Reporting

static void print_bytes(int file, off_t from, off_t to) {
    char text[4096];
    while (from < to) {
        size_t want = to - from < (off_t)sizeof text ? (size_t)(to - from) : sizeof text;
        ssize_t got = pread(file, text, want, from);
        if (got <= 0)
            return;
        fwrite(text, 1, (size_t)got, stdout);
        from += got;
    }
}

// What a test printed, without the middle if that is long.
static void print_output(int file) {
    off_t bytes = lseek(file, 0, SEEK_END);
    if (bytes <= 2 * SHOWN_OUTPUT) {
        print_bytes(file, 0, bytes);
        return;
    }
    print_bytes(file, 0, SHOWN_OUTPUT);
    printf("\n  ... %lld bytes left out ...\n", (long long)bytes - 2 * SHOWN_OUTPUT);
    print_bytes(file, bytes - SHOWN_OUTPUT, bytes);
}

static double seconds_of(const test_report *report) {
    return (double)report->nanoseconds / 1e9;
}

static void print_entry(const entry *item, const test_report *report) {
    static const char *const words[] = {"FAIL", "ok", "FAIL", "skip"};
    bool failed = report->outcome == TEST_FAILED || report->outcome == TEST_PENDING;
    printf("%-4s %8.3f s  %s", words[report->outcome], seconds_of(report), item->test->name);
    printf(report->why[0] == 0 ? "\n" : ": %s\n", report->why);
    if (!failed && !run.chosen.verbose)
        return;
    print_output(item->output);
    if (failed)
        printf("  again with --filter=%s --seed=%" PRIu64 " (%s:%d)\n", item->test->name, item->seed, item->test->file,
               item->test->line);
}

static int compare_times(const void *first, const void *second) {
    const entry *a = first, *b = second;
    uint64_t time_a = run.reports[a->number].nanoseconds, time_b = run.reports[b->number].nanoseconds;
    return (time_a < time_b) - (time_a > time_b);
}

static void print_slowest(void) {
    qsort(run.entries, (size_t)run.count, sizeof *run.entries, compare_times);
    printf("slowest:");
    for (int i = 0; i < run.count && i < SLOWEST; i++)
        printf("%s %s %.2f s", i == 0 ? "" : ",", run.entries[i].test->name,
               seconds_of(&run.reports[run.entries[i].number]));
    printf("\n");
}

// Tests that have no result although nobody stopped the run: should the schedule ever lose one, it must show.
static int count_lost(void) {
    int lost = run.stopped_by != 0 ? 0 : run.count - run.passed - run.failed - run.skipped;
    if (lost > 0)
        printf("%d tests were not run\n", lost);
    return lost;
}

static void print_end(void) {
    if (run.count == 0)
        printf("no test matches %s\n", run.chosen.filter == NULL ? "" : run.chosen.filter);
    else
        print_slowest();
    run.failed += count_lost();
    printf("%d passed, %d failed", run.passed, run.failed);
    if (run.skipped > 0)
        printf(", %d skipped", run.skipped);
    printf("\n");
    fflush(stdout);
}

// ---------------------------------------------------------------------------------------------------------------------
// Running

static void start(entry *item) {
    pid_t runner = getpid();
    item->output = memfd_create("test output", MFD_CLOEXEC);
    fflush(stdout);
    item->warden = fork();
    if (item->warden < 0 || item->output < 0) {
        perror("cannot start a test");
        exit(2);
    }
    run.free_places -= item->places;
    run.running++;
    if (item->warden > 0)
        return;
    test_job job = {.test = item->test, .runner = runner, .seed = item->seed, .debugger = !run.chosen.no_gdb,
                    .timeout_scale = run.chosen.timeout_scale * SLOWER, .output = item->output,
                    .report = &run.reports[item->number]};
    snprintf(job.prefix, sizeof job.prefix, "%s%d-%d-", run.base, (int)runner, item->number);
    test_warden(&job);
}

static void start_what_fits(void) {
    for (int i = 0; i < run.count && run.free_places > 0 && run.stopped_by == 0; i++)
        if (run.entries[i].warden == 0 && run.entries[i].places <= run.free_places)
            start(&run.entries[i]);
}

static void finish(entry *item) {
    test_report *report = &run.reports[item->number];
    if (report->outcome == TEST_PENDING)
        snprintf(report->why, sizeof report->why, "its warden was killed");
    run.passed += report->outcome == TEST_PASSED;
    run.skipped += report->outcome == TEST_SKIPPED;
    run.failed += report->outcome == TEST_FAILED || report->outcome == TEST_PENDING;
    run.free_places += item->places;
    run.running--;
    item->done = true;
    print_entry(item, report);
    close(item->output);
}

static void reap_wardens(void) {
    for (pid_t pid = waitpid(-1, NULL, WNOHANG); pid > 0; pid = waitpid(-1, NULL, WNOHANG))
        for (int i = 0; i < run.count; i++)
            if (run.entries[i].warden == pid && !run.entries[i].done)
                finish(&run.entries[i]);
}

static void stop_wardens(int signal_number) {
    run.stopped_by = signal_number;
    for (int i = 0; i < run.count; i++)
        if (run.entries[i].warden > 0 && !run.entries[i].done)
            kill(run.entries[i].warden, SIGTERM);
}

static void run_all(const sigset_t *signals) {
    start_what_fits();
    while (run.running > 0) {
        int signal_number = sigwaitinfo(signals, NULL);
        if (signal_number > 0 && signal_number != SIGCHLD)
            stop_wardens(signal_number);
        reap_wardens();
        start_what_fits();
    }
    test_kill_descendants();                                       // only if a warden was killed are there any
}

// Signals are blocked and fetched, so there is no handler and no race. SIGPIPE: the report's reader may go away.
static sigset_t block_signals(void) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    return signals;
}

static int run_tests(void) {
    // a runner inside a test stays below that test's names
    const char *outer = getenv("TEST_PREFIX");
    snprintf(run.base, sizeof run.base, "%s", outer == NULL ? "zcpt-" : outer);
    sigset_t signals = block_signals();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    make_schedule();
    printf("%d tests, %d at a time, seed %" PRIu64 "\n", run.count, run.chosen.jobs, run.chosen.seed);
    run_all(&signals);
    print_end();
    free(run.entries);
    if (run.stopped_by != 0)
        return 128 + run.stopped_by;
    return run.failed == 0 && run.passed > 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    run.chosen = read_options(argc, argv);
    if (run.chosen.program != NULL)
        return test_enter_program(run.chosen.program, optind < argc ? argv[optind] : "");
    refuse_equal_names();
    return run.chosen.list ? list_tests(&run.chosen) : run_tests();
}

// ---------------------------------------------------------------------------------------------------------------------
// What the sanitizers ask the program for, so that no environment variable is needed

const char *__asan_default_options(void);
const char *__tsan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void) {
    return "detect_stack_use_after_return=1:strict_string_checks=1";
}

// Tests fork while threads run, and the children then start threads: the sanitizer would refuse that.
const char *__tsan_default_options(void) {
    return "die_after_fork=0:halt_on_error=1:second_deadlock_stack=1";
}

const char *__ubsan_default_options(void) {
    return "print_stacktrace=1";
}
