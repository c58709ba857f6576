// bench/bench.c: how fast zerocp is on this machine. See --help.
//
// All cases are run in turn, again and again (a round), so that what disturbs the machine disturbs all of them alike; of
// each the median and the quartiles over the rounds are told, in nanoseconds and as a multiple of what one uncontended
// read-modify-write costs in the same round, because that is what other machines can be compared by.
#include "library.h"

#include "cases.h"
#include "kit.h"
#include "locked.h"

#include <getopt.h>
#include <sys/utsname.h>

typedef struct result {
    figures ns, rmw, base;                                         // rmw, base: multiples of the same round
    uint64_t count;                                                // operations per round; 0: not run
} result;

static struct {
    int rounds, slow_rounds;
    uint64_t slice;                                                // ns, aimed at for one loop
    bool quick, list;
    const char *filter;
} options;

static result results[CASES];
static int to_peer = -1, from_peer = -1;

// ---------------------------------------------------------------------------------------------------------------------
// Two processes at once. The peer waits on a pipe, so that it costs nothing while it has nothing to do.

typedef struct order {
    int which;
    uint64_t count;
} order;

typedef struct outcome {
    uint64_t ns, count;
} outcome;

// Runs one process's part. Where both do the same, the first to finish stops the other: both are measured only while
// they are two.
static outcome part(const bench_case *c, uint64_t count) {
    enum { BLOCKS = 64 };
    uint64_t block = (count / BLOCKS / 64 + 1) * 64, done = 0;
    atomic_fetch_add(&shared->arrived.word, 1);
    while (atomic_load_explicit(&shared->arrived.word, memory_order_acquire) % 2 != 0)
        spin();
    uint64_t began = now_ns();
    if (c->peer) {
        (is_peer ? c->peer : c->loop)(done = count);
    } else {
        for (; done < count && !atomic_load_explicit(&shared->stop.word, memory_order_relaxed); done += block)
            c->loop(block);
        atomic_store_explicit(&shared->stop.word, 1, memory_order_relaxed);
    }
    return (outcome){now_ns() - began, done};
}

static void peer_serve(int orders, int outcomes) {
    order next;
    cpu_pin(cpus[1]);
    manager = open_instance(NAME_MAIN, ZCP_SHM_OPEN_EXISTING, NULL);
    MUST_OK(zcp_mpmc_list_attach(&list, shared->list, sizeof shared->list));
    list.cursor = list.leaves / 2;
    while (read(orders, &next, sizeof next) == (ssize_t)sizeof next) {
        outcome own = part(&cases[next.which], next.count);
        MUST(write(outcomes, &own, sizeof own) == (ssize_t)sizeof own);
    }
    zcp_manager_close(manager);
    _exit(0);
}

static pid_t peer_start(void) {
    int orders[2], outcomes[2];
    MUST(pipe(orders) == 0 && pipe(outcomes) == 0);
    pid_t pid = helper_fork();
    if (pid == 0) {
        is_peer = true;
        close(orders[1]);
        close(outcomes[0]);
        peer_serve(orders[0], outcomes[1]);
    }
    close(orders[0]);
    close(outcomes[1]);
    to_peer = orders[1];
    from_peer = outcomes[0];
    return pid;
}

// ns per operation. Symmetrical: the mean of both processes.
static double measure_two(const bench_case *c, uint64_t count) {
    outcome other;
    order next = {(int)(c - cases), count};
    atomic_store(&shared->stop.word, 0);
    MUST(write(to_peer, &next, sizeof next) == (ssize_t)sizeof next);
    outcome own = part(c, count);
    if (read(from_peer, &other, sizeof other) != (ssize_t)sizeof other)
        die("the second process has ended in case %s", c->name);
    if (c->peer)
        return (double)own.ns / (double)count;
    if (own.count == 0 || other.count == 0)                        // one of them was not on its CPU at all
        return (double)(own.count ? own.ns : other.ns) / (double)(own.count + other.count);
    return ((double)own.ns / (double)own.count + (double)other.ns / (double)other.count) / 2;
}

static double measure_one(const bench_case *c, uint64_t count) {
    uint64_t began = now_ns();
    c->loop(count);
    return (double)(now_ns() - began) / (double)count;
}

static double measure(const bench_case *c, uint64_t count) {
    return c->once ? c->once() : c->procs == 2 ? measure_two(c, count) : measure_one(c, count);
}

// As many operations as take about a slice, by the fastest of some tries, because others may be on the CPUs too.
static uint64_t calibrate(const bench_case *c) {
    if (c->once)
        return 1;
    for (uint64_t count = c->procs == 2 ? 64 : 1;; count *= 4) {
        double ns = measure(c, count);
        for (int i = 0; i < 4; i++) {
            double again = measure(c, count);
            ns = again < ns ? again : ns;
        }
        if (ns * (double)count > (double)options.slice / 8) {
            uint64_t fit = (uint64_t)((double)options.slice / ns);
            return fit == 0 ? 1 : fit < 256 ? fit : fit / 64 * 64;
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Conservation: all pools are free by their records, and allocating everything gives each chunk once.

static void check_conservation(zcp_manager *of, const char *name) {
    for (uint32_t p = 0; p < zcp_manager_pool_count(of); p++) {
        zcp_pool_stats before, after;
        MUST_OK(zcp_manager_pool_stats(of, p, &before));
        if (before.free != before.total || before.used != 0)
            die("%s, pool %u: %llu of %llu chunks are free", name, p, (unsigned long long)before.free, (unsigned long long)before.total);
        zcp_chunk *chunks = calloc(before.total, sizeof *chunks);
        bool *seen = calloc(before.total, sizeof *seen);
        zcp_chunk one_more;
        MUST(chunks != NULL && seen != NULL);
        for (uint64_t i = 0; i < before.total; i++) {
            MUST_OK(zcp_chunk_allocate(of, before.chunk_size, &chunks[i]));
            uint32_t index = chunks[i].index % ZCP_MAX_CHUNKS;
            if (index >= before.total || seen[index])
                die("%s, pool %u: chunk %u was given out twice", name, p, index);
            seen[index] = true;
        }
        if (zcp_chunk_allocate(of, before.chunk_size, &one_more) != ZCP_ERR_EXHAUSTED)
            die("%s, pool %u: more chunks than there are", name, p);
        for (uint64_t i = 0; i < before.total; i++)
            zcp_chunk_release(&chunks[i]);
        MUST_OK(zcp_manager_pool_stats(of, p, &after));
        if (after.free != after.total)
            die("%s, pool %u: %llu of %llu chunks came back", name, p, (unsigned long long)after.free, (unsigned long long)after.total);
        free(chunks);
        free(seen);
    }
}

static void check_all(const char *when) {
    check_conservation(manager, name_of(NAME_MAIN));
    check_conservation(full_manager, name_of(NAME_FULL));
    check_conservation(recover_manager, name_of(NAME_RECOVER));
    if (zcp_mpmc_list_count(&list) != CHUNKS)
        die("the list has %u of %d indices", zcp_mpmc_list_count(&list), CHUNKS);
    if (shared->locked.top != CHUNKS)
        die("the control has %u of %d chunks", shared->locked.top, CHUNKS);
    if (atomic_load(&shared->bad.word))
        die("a message arrived with other bytes than were sent");
    printf("conservation %s: %d + %d + %d chunks, all free, each given out once\n", when, CHUNKS, FULL_CHUNKS, RECOVER_CHUNKS);
}

// ---------------------------------------------------------------------------------------------------------------------
// What is measured on

static void print_file_value(const char *label, const char *path, const char *key) {
    char text[4096], *value = text;
    FILE *file = fopen(path, "r");
    while (file && fgets(text, sizeof text, file))
        if (!key || strncmp(text, key, strlen(key)) == 0) {
            if (key && (value = strchr(text, ':')) != NULL)
                value += 2;
            if (value)
                printf("%-14s%s%s", label, value, strchr(value, '\n') ? "" : "\n");
            break;
        }
    if (file)
        fclose(file);
}

static void print_command(void) {                                  // the Makefile leaves it beside the program
    char path[4096];
    ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - 16);
    if (bytes <= 0)
        return;
    path[bytes] = 0;
    snprintf(strrchr(path, '/') + 1, 16, "command");
    print_file_value("compiled", path, NULL);
}

static void print_setting(void) {
    struct utsname kernel;
    char path[128];
    print_file_value("cpu", "/proc/cpuinfo", "model name");
    printf("%-14s%ld on line", "cores", sysconf(_SC_NPROCESSORS_ONLN));
    if (cpus[1] >= 0)
        printf("; this process on %d, the second one on %d", cpus[0], cpus[1]);
    else
        printf("; only %d may be used: no case with two processes is run", cpus[0]);
    printf("\n");
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpus[0]);
    print_file_value("one core has", path, NULL);
    if (uname(&kernel) == 0)
        printf("%-14s%s %s %s\n", "kernel", kernel.sysname, kernel.release, kernel.machine);
    print_file_value("load", "/proc/loadavg", NULL);
#if defined(__clang__)
    printf("%-14sclang %s\n", "compiler", __clang_version__);
#else
    printf("%-14sgcc %s\n", "compiler", __VERSION__);
#endif
    print_command();
    printf("%-14s%d chunks of %d B, 64 clients; each chunk's first and last line is written\n", "pool", CHUNKS, CHUNK_BYTES);
    printf("%-14s%d of about %.1f ms each, %d of what takes long\n", "rounds", options.rounds, (double)options.slice / 1e6, options.slow_rounds);
}

// ---------------------------------------------------------------------------------------------------------------------
// The table

static const char *human(double ns, char *text) {
    if (ns < 9999.5)
        snprintf(text, 32, "%.*f ns", ns < 99.95 ? 2 : ns < 999.5 ? 1 : 0, ns);
    else if (ns < 9999.5e3)
        snprintf(text, 32, "%.1f us", ns / 1e3);
    else
        snprintf(text, 32, "%.1f ms", ns / 1e6);
    return text;
}

static void print_table(void) {
    printf("\n%-13s %5s %11s %11s %11s %8s  %s\n", "case", "procs", "median", "q1", "q3", "RMWs", "what");
    for (int i = 0; i < CASES; i++) {
        char text[3][32];
        summary ns = summarise(&results[i].ns), rmw = summarise(&results[i].rmw);
        if (results[i].ns.count)
            printf("%-13s %5d %11s %11s %11s %8.*f  %s\n", cases[i].name, cases[i].procs, human(ns.median, text[0]), human(ns.q1, text[1]),
                   human(ns.q3, text[2]), rmw.median < 1000 ? 2 : 0, rmw.median, cases[i].what);
    }
}

static const result *result_of(const char *name, int procs) {
    for (int i = 0; i < CASES; i++)
        if (strcmp(cases[i].name, name) == 0 && cases[i].procs == procs && results[i].ns.count)
            return &results[i];
    return NULL;
}

static void print_target(const char *what, double value, double most, const char *unit) {
    printf("  %-70s %8.2f %-5s at most %5.2f %s\n", what, value, unit, most, value <= most ? "" : " MISSED");
}

// The median over the rounds of one case's figure by another's of the same round.
static double ratio_of(const result *a, const result *b) {
    figures ratios = {.count = 0};
    for (int i = 0; i < a->ns.count && i < b->ns.count; i++)
        ratios.values[ratios.count++] = a->ns.values[i] / b->ns.values[i];
    return summarise(&ratios).median;
}

static double management_per_chunk(uint32_t count) {               // of one pool more beside eight others, without header and slots
    zcp_config config = {0};
    uint64_t bytes[2];
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 8; i++)
            MUST_OK(zcp_config_add_pool(&config, 64, count));
        bytes[half] = zcp_config_management_bytes(&config, 64);
    }
    return (double)(bytes[1] - bytes[0]) / 8 / count;
}

static void print_targets(const locked_count *counts) {
    const result *pair = result_of("pair", 1), *two = result_of("pair", 2), *stopped = result_of("stopped", 1);
    const result *attach = result_of("attach", 1), *create = result_of("create_1g", 1), *reserve = result_of("fallocate_1g", 1);
    static const uint32_t sizes[] = {1024, 4096, 100000, 1000000};
    printf("\ntargets\n");
    if (counts)
        for (int i = 0; i < STEPS; i++)
            if (counts[i].name && strcmp(counts[i].name, "allocate") == 0)
                for (int j = i; j < STEPS; j++)
                    if (counts[j].name && strcmp(counts[j].name, "release") == 0)
                        print_target("allocate + release: locked instructions", (double)(counts[i].locked + counts[j].locked), 3, "");
    if (pair)
        print_target("allocate + release alone", summarise(&pair->rmw).median, 6, "RMWs");
    if (pair && two)
        print_target("allocate + release, two processes on one pool, by alone", ratio_of(two, pair), 1.3, "");
    if (pair && stopped)
        print_target("allocate + release beside a stopped client, by alone", ratio_of(stopped, pair), 1.1, "");
    if (attach)
        print_target("attach", summarise(&attach->ns).median / 1e6, 1, "ms");
    if (create && reserve)
        print_target("create 1 GiB by posix_fallocate of the same bytes", ratio_of(create, reserve), 1.2, "");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char what[96];
        snprintf(what, sizeof what, "management per chunk, pool of %u, 64 clients", sizes[i]);
        print_target(what, management_per_chunk(sizes[i]), 40, "B");
    }
}

static void print_locked(const locked_count *counts) {
    printf("\n%-18s %12s %7s  (counted by stepping through one call)\n", "call", "instructions", "locked");
    for (int i = 1; i < STEPS; i++)
        if (counts[i].name)
            printf("%-18s %12llu %7llu\n", counts[i].name, (unsigned long long)counts[i].instructions, (unsigned long long)counts[i].locked);
}

static void print_lines(const locked_count *counts) {
    printf("\n");
    for (int i = 0; i < CASES; i++) {
        summary ns = summarise(&results[i].ns);
        if (results[i].ns.count)
            printf("case=%s procs=%d ns=%.2f q1=%.2f q3=%.2f rmw=%.3f rounds=%d ops=%llu\n", cases[i].name, cases[i].procs, ns.median, ns.q1, ns.q3,
                   summarise(&results[i].rmw).median, results[i].ns.count, (unsigned long long)results[i].count);
    }
    for (int i = 1; counts && i < STEPS; i++)
        if (counts[i].name)
            printf("call=%s instructions=%llu locked=%llu\n", counts[i].name, (unsigned long long)counts[i].instructions,
                   (unsigned long long)counts[i].locked);
    printf("memory=management_per_chunk chunks=1024 clients=64 bytes=%.2f\n", management_per_chunk(1024));
}

// ---------------------------------------------------------------------------------------------------------------------
// Running

static bool selected(const bench_case *c) {                        // words between commas, each a part of a name
    const char *at = options.filter;
    if (!at || c == cases)                                         // rmw is the unit: always
        return true;
    while (*at) {
        size_t length = strcspn(at, ",");
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)length, at);
        if (length && strstr(c->name, word))
            return true;
        at += length + (at[length] == ',');
    }
    return false;
}

static void run_rounds(void) {
    bool large = !options.quick && large_fits();
    int every = options.rounds / options.slow_rounds;
    if (!large && !options.quick)
        printf("skipped: fallocate_1g and create_1g, because less than 3 GiB of /dev/shm or of memory are free\n");
    for (int i = 0; i < CASES; i++)
        if (selected(&cases[i]) && (cases[i].procs == 1 || cpus[1] >= 0) && (large || !strstr(cases[i].name, "_1g"))
            && (cases[i].once != stopped_once || stopped_pid))
            results[i].count = calibrate(&cases[i]);
    for (int round = 0; round < options.rounds; round++) {
        double rmw = 0;
        for (int i = 0; i < CASES; i++) {
            result *r = &results[i];
            bool slow = cases[i].once && cases[i].once != stopped_once;
            if (r->count == 0 || (slow && (round % every != 0 || r->ns.count >= options.slow_rounds)))
                continue;
            double ns = measure(&cases[i], r->count);
            if (i == 0)
                rmw = ns;
            r->ns.values[r->ns.count++] = ns;
            r->rmw.values[r->rmw.count++] = ns / rmw;
        }
    }
}

static void set_up(void) {
    zcp_config config = config_of(CHUNK_BYTES, CHUNKS), full = config_of(64, FULL_CHUNKS), recover = config_of(64, RECOVER_CHUNKS);
    shared = shared_memory(sizeof *shared);
    locked_setup();
    list_setup();
    manager = open_instance(NAME_MAIN, ZCP_SHM_CREATE_EXCLUSIVE, &config);
    full_manager = open_instance(NAME_FULL, ZCP_SHM_CREATE_EXCLUSIVE, &full);
    recover_manager = open_instance(NAME_RECOVER, ZCP_SHM_CREATE_EXCLUSIVE, &recover);
    check_all("before");
}

static void tear_down(void) {
    zcp_manager *managers[] = {manager, full_manager, recover_manager};
    static const bench_name names[] = {NAME_MAIN, NAME_FULL, NAME_RECOVER};
    for (int i = 0; i < 3; i++) {
        zcp_manager_close(managers[i]);
        MUST_OK(zcp_manager_destroy(name_of(names[i])));
    }
    clean_up();
}

static void bench(void) {
    locked_count counts[STEPS];
    pid_t peer = 0;
    set_up();
    bool counted = locked_count_all(counts);
    MUST_OK(zcp_manager_recover(manager, NULL));
    if (cpus[1] >= 0) {
        peer = peer_start();
        stopped_setup();
    }
    MUST_OK(zcp_chunk_allocate(manager, CHUNK_BYTES, &held));
    for (int i = 0; i < FULL_CHUNKS; i++)
        MUST_OK(zcp_chunk_allocate(full_manager, 64, &full_held[i]));
    run_rounds();
    zcp_chunk_release(&held);
    for (int i = 0; i < FULL_CHUNKS; i++)
        zcp_chunk_release(&full_held[i]);
    if (peer) {
        zcp_recovery report;
        helper_kill(peer);
        helper_kill(stopped_pid);
        MUST_OK(zcp_manager_recover(manager, &report));
        MUST(report.dead_clients == 2);
    }
    check_all("after");
    tear_down();
    print_table();
    if (counted)
        print_locked(counts);
    print_targets(counted ? counts : NULL);
    print_lines(counted ? counts : NULL);
}

static void print_help(void) {
    printf("Measures zerocp on this machine: a table, the targets, and a key=value line for each case.\n\n"
           "  --quick          fewer rounds, without the 1 GiB ones: for a look, not for a figure\n"
           "  --rounds=N       1 to %d; default 199, with --quick 25\n"
           "  --filter=WORDS   only the cases whose names have one of these words, separated by commas, in them\n"
           "  --cpus=A,B       the two CPUs to use; default: the first two that are allowed\n"
           "  --list           say what the cases are\n"
           "  --help\n",
           MAX_ROUNDS);
}

static void print_list(void) {
    for (int i = 0; i < CASES; i++)
        printf("%-13s %d  %s\n", cases[i].name, cases[i].procs, cases[i].what);
}

static int usage(const char *what, const char *value) {
    fprintf(stderr, "bench: %s %s; see --help\n", what, value);
    return 2;
}

int main(int argc, char **argv) {
    static const struct option known[] = {{"quick", no_argument, NULL, 'q'},        {"rounds", required_argument, NULL, 'r'},
                                          {"filter", required_argument, NULL, 'f'}, {"cpus", required_argument, NULL, 'c'},
                                          {"list", no_argument, NULL, 'l'},         {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    char rest;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'q': options.quick = true; break;
        case 'f': options.filter = optarg; break;
        case 'l': print_list(); return 0;
        case 'h': print_help(); return 0;
        case 'r':
            if (sscanf(optarg, "%d%c", &options.rounds, &rest) != 1 || options.rounds < 1 || options.rounds > MAX_ROUNDS)
                return usage("not a number of rounds:", optarg);
            break;
        case 'c':
            if (sscanf(optarg, "%d,%d%c", &cpus[0], &cpus[1], &rest) != 2 || cpus[0] == cpus[1] || !cpu_allowed(cpus[0]) || !cpu_allowed(cpus[1]))
                return usage("not two CPUs that may be used:", optarg);
            break;
        default: return 2;
        }
    }
    if (optind < argc)
        return usage("an argument too many:", argv[optind]);
    if (!options.rounds)
        options.rounds = options.quick ? 25 : 199;
    options.slow_rounds = options.rounds < 7 ? options.rounds : 7;
    options.slice = 500000;                                        // shorter than what a scheduler gives to somebody else
    if (cpus[0] < 0)
        cpus_choose();
    name_all();
    clean_up_on_signals();
    print_setting();
    cpu_pin(cpus[0]);
    bench();
    return 0;
}
