// bench/bench.c: how fast zerocp is on this machine, and others on the same. See --help.
#include "check.h"
#include "contender.h"
#include "controls.h"
#include "cost.h"
#include "kit.h"
#include "machine.h"
#include "measure.h"
#include "ours.h"
#include "peers.h"
#include "plot.h"
#include "record.h"
#include "suites.h"
#include "summary.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
    int rounds;
    bool quick;
    const char *filter, *suites, *csv, *plots, *draw, *check;
    double least;
    bool in_rmws;
} options = {.least = 5};

static const struct {
    const char *name;
    void (*run)(const suite_options *);
    int part;                                                      // of the rounds
    const char *what;
} suites[] = {
    {"merit", suite_merit, 1, "each contender alone and with a second process; zerocp's other operations"},
    {"cost", suite_cost, 1, "instructions of each operation, and how many of them are locked"},
    {"workers", suite_workers, 12, "the curve over processes and over threads"},
    {"chunks", suite_chunks, 1, "the curve over chunk counts; zerocp in states of its list"},
    {"payload", suite_payload, 12, "hand-off over payloads, beside pipe, socket and memcpy"},
    {"instances", suite_instances, 12, "create, attach, recover"},
    // the last one: what its peers start stays in this process
    {"topics", suite_topics, 2, "messages from one process to others, beside other ways to carry them"},
};
enum { SUITES = sizeof suites / sizeof suites[0] };

// ---------------------------------------------------------------------------------------------------------------------
// Selection: words between commas, each a part of the name; NULL fits all.

static bool fits(const char *filter, const char *name) {
    if (!filter)
        return true;
    for (const char *at = filter; *at; at += at[0] == ',') {
        size_t length = strcspn(at, ",");
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)length, at);
        if (length && strstr(name, word))
            return true;
        at += length;
    }
    return false;
}

static bool selected(const char *name, const char *system) {
    char both[64];
    snprintf(both, sizeof both, "%s/%s", name, system);
    return strcmp(name, "rmw") == 0 || fits(options.filter, both);
}

// ---------------------------------------------------------------------------------------------------------------------

static const contender *contenders[32];

static void contenders_add(const contender *const *list) {
    static int count;
    for (; *list; list++) {
        MUST(count + 1 < (int)(sizeof contenders / sizeof contenders[0]));
        contenders[count++] = *list;
    }
}

static void contenders_find(void) {
    static const contender *const own[] = {&ours, &ours_cached, NULL};
    ours_begin(&host);
    contenders_add(own);
    contenders_add(controls(&host));
    contenders_add(peers(&host));
}

static void bench(void) {
    // a slice is shorter than what a scheduler gives to somebody else
    measure_begin(&(measure_options){options.rounds, 500000, selected});
    machine_tell();
    cpu_pin(cpus[0]);
    contenders_find();
    for (int i = 0; i < SUITES; i++)
        if (fits(options.suites, suites[i].name)) {
            int rounds = options.rounds / suites[i].part, least = options.rounds < 7 ? options.rounds : 7;
            rounds = rounds < least ? least : rounds;
            printf("\nsuite=%s rounds=%d what=\"%s\"\n", suites[i].name, rounds, suites[i].what);
            suites[i].run(&(suite_options){rounds, options.quick, contenders});
        }
    clean_up();
    machine_tell_load("load_after");
    summary_print(stdout, &records);
}

static void print_help(void) {
    printf("Measures zerocp on this machine, beside controls and what `make bench-peers` has built.\n\n"
           "  --quick          fewer rounds and points: for a look, not for a figure\n"
           "  --rounds=N       1 to %d; default 101, with --quick 15; suites of long runs take a part of it, but 7\n"
           "  --filter=WORDS   only points in whose case/system one of these words, separated by commas, is\n"
           "  --suites=WORDS   only the suites in whose names one of these words is\n"
           "  --cpus=A,B       the two CPUs to use; default: the nearest two\n"
           "  --csv=FILE       write the figures there\n"
           "  --plots=DIR      write the plots there, and summary.md with tables\n"
           "  --draw=FILE      measure nothing: only write the plots and tables of that CSV\n"
           "  --check=OLD,NEW  measure nothing: compare two CSVs; status 1 if something got slower\n"
           "  --least=PERCENT  with --check: less than that is no difference; default 5\n"
           "  --in-rmws        with --check: compare multiples of an atomic operation's cost, for two machines\n"
           "  --list           say what the suites are\n"
           "  --help\n",
           MAX_ROUNDS);
}

static void print_list(void) {
    for (int i = 0; i < SUITES; i++)
        printf("%-10s %s\n", suites[i].name, suites[i].what);
}

static int usage(const char *what, const char *value) {
    fprintf(stderr, "bench: %s %s; see --help\n", what, value);
    return 2;
}

static int compare(const char *files) {                            // two, with a comma between them
    char older[4096];
    const char *comma = strchr(files, ',');
    if (!comma)
        return usage("not two files:", files);
    snprintf(older, sizeof older, "%.*s", (int)(comma - files), files);
    return check_files(older, comma + 1, options.least / 100, options.in_rmws);
}

static bool told(const record_table *table) {
    return !options.plots || (plots_write(table, options.plots) && summary_write(table, options.plots));
}

static int draw(const char *file) {
    static record_table table;
    if (!options.plots)
        return usage("--draw without", "--plots");
    return record_read(&table, file) && told(&table) ? 0 : 1;
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"quick", no_argument, NULL, 'q'},        {"rounds", required_argument, NULL, 'r'},
        {"filter", required_argument, NULL, 'f'}, {"suites", required_argument, NULL, 's'},
        {"cpus", required_argument, NULL, 'c'},   {"csv", required_argument, NULL, 'o'},
        {"plots", required_argument, NULL, 'p'},  {"draw", required_argument, NULL, 'd'},
        {"check", required_argument, NULL, 'k'},  {"least", required_argument, NULL, 'e'},
        {"in-rmws", no_argument, NULL, 'm'},      {"list", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    char rest;
    cpus_find();
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'q': options.quick = true; break;
        case 'f': options.filter = optarg; break;
        case 's': options.suites = optarg; break;
        case 'o': options.csv = optarg; break;
        case 'p': options.plots = optarg; break;
        case 'd': options.draw = optarg; break;
        case 'k': options.check = optarg; break;
        case 'm': options.in_rmws = true; break;
        case 'e':
            if (sscanf(optarg, "%lf%c", &options.least, &rest) != 1 || options.least < 0)
                return usage("not a percentage:", optarg);
            break;
        case 'l': print_list(); return 0;
        case 'h': print_help(); return 0;
        case 'r':
            if (sscanf(optarg, "%d%c", &options.rounds, &rest) != 1 || options.rounds < 1
                || options.rounds > MAX_ROUNDS)
                return usage("not a number of rounds:", optarg);
            break;
        case 'c':
            if (sscanf(optarg, "%d,%d%c", &cpus[0], &cpus[1], &rest) != 2 || cpus[0] == cpus[1] || !cpu_allowed(cpus[0])
                || !cpu_allowed(cpus[1]))
                return usage("not two CPUs that may be used:", optarg);
            break;
        default: return 2;
        }
    }
    if (optind < argc)
        return usage("an argument too many:", argv[optind]);
    if (options.check)
        return compare(options.check);
    if (options.draw)
        return draw(options.draw);
    if (!options.rounds)
        options.rounds = options.quick ? 15 : 101;
    names_begin();
    clean_up_on_signals();
    bench();
    bool good = !options.csv || record_write(&records, options.csv);
    good = told(&records) && good;
    fflush(NULL);
    _exit(good ? 0 : 1);                                           // not by what peers would do at an exit
}
