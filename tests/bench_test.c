// tests/bench_test.c: the bench's comparison of two runs tells what got slower, and only that. The bench's messengers
// carry messages, and lose none.
#include "bench/check.c"
#include "bench/kit.c"
#include "bench/record.c"
#include "bench/targets.c"

// Each of these has a host of its own.
#define host bench_host_of_ours
#include "bench/ours.c"
#undef host
#undef LOOP
#undef LOOP_TABLE
#undef handle
#define host bench_host_of_messengers
#include "bench/messengers.c"
#undef host

#include "harness/test.h"

#include <unistd.h>

// A CSV with one row that has these quartiles, beside one that never changes.
static void write_run(char path[32], const char *metric, double q1, double median, double q3) {
    record_table table = {0};
    record steady = {.name = "pair", .system = "malloc", .workers = "1", .metric = "time", .unit = "ns", .q1 = 4,
                     .median = 4, .q3 = 4, .rounds = 7};
    record row = {.name = "pair", .system = "zerocp", .workers = "2p", .unit = "ns", .q1 = q1, .median = median,
                  .q3 = q3, .rmws = median / 2, .rounds = 7};
    strcpy(path, "/tmp/zcp-bench-test-XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    snprintf(row.metric, sizeof row.metric, "%s", metric);
    row_add(&table, &steady);
    row_add(&table, &row);
    fact_add(&table, "cpu=one of a test");
    CHECK(record_write(&table, path));
    record_free(&table);
}

static int compare_runs(const char *metric, const double older[3], const double newer[3]) {
    char paths[2][32];
    write_run(paths[0], metric, older[0], older[1], older[2]);
    write_run(paths[1], metric, newer[0], newer[1], newer[2]);
    int status = check_files(paths[0], paths[1], 0.05, false);
    unlink(paths[0]);
    unlink(paths[1]);
    return status;
}

TEST(bench_check_tells_slower_from_noise) {
    static const double run[] = {9.8, 10, 10.2}, slower[] = {11.8, 12, 12.2}, faster[] = {7.8, 8, 8.2},
                        little[] = {10.1, 10.3, 10.5};
    static const double wild[] = {9, 12, 15}, none[] = {0, 0, 0}, one[] = {1, 1, 1};
    CHECK_EQ(compare_runs("time", run, run), 0);
    CHECK_EQ(compare_runs("time", run, slower), 1);
    CHECK_EQ(compare_runs("time", slower, run), 0);
    CHECK_EQ(compare_runs("time", run, faster), 0);
    CHECK_EQ(compare_runs("time", run, little), 0);                // 3 %: less than the least
    CHECK_EQ(compare_runs("time", run, wild), 0);                  // 20 %, but it strays by as much
    CHECK_EQ(compare_runs("p99", run, slower), 1);
    CHECK_EQ(compare_runs("max", run, slower), 0);                 // one event
    CHECK_EQ(compare_runs("locked", none, one), 1);
    CHECK_EQ(compare_runs("locked", one, none), 0);
}

TEST(bench_check_refuses_what_cannot_be_compared) {
    static const double run[] = {1, 1, 1};
    char path[32], other[32];
    write_run(path, "time", run[0], run[1], run[2]);
    write_run(other, "time", run[0], run[1], run[2]);
    FILE *file = fopen(other, "a");
    CHECK(file != NULL);
    fputs("pair,zerocp,1,4096\n", file);
    fclose(file);
    CHECK_EQ(check_files(path, "/nonexistent.csv", 0.05, false), 2);
    CHECK_EQ(check_files("/dev/null", path, 0.05, false), 2);
    CHECK_EQ(check_files(path, other, 0.05, false), 2);
    unlink(path);
    unlink(other);
}

// ---------------------------------------------------------------------------------------------------------------------
// Messengers

static bench_host *bench_host_new(void) {
    static bench_host of;
    memset(&of, 0, sizeof of);
    names_begin();
    of.shared = shared_memory(sizeof *of.shared);
    of.arrivals = shared_memory(sizeof *of.arrivals);
    of.shared_memory = shared_memory;
    of.die = die;
    of.name = name_new;
    of.ns_per_tick = 1;
    of.subscribers = 1;
    of.crowded = true;
    ours_begin(&of);
    return &of;
}

// Until both processes are here; then a new slice begins.
static void slice_begin(bench_host *of, uint64_t first) {
    static uint64_t barriers;
    shared_state *shared = of->shared;
    for (int half = 0; half < 2; half++) {
        if (half == 1 && of->worker == 0) {
            set_release(&shared->head, 0);
            set_release(&shared->ball, 0);
            set_release(&shared->seen[0], 0);
        }
        barriers += 2;
        __atomic_fetch_add(&shared->arrived.word, 1, __ATOMIC_ACQ_REL);
        for (unsigned tries = 0; get_acquire(&shared->arrived) < barriers;)
            await_turn(of, &tries);
    }
    of->first = first;
    of->received = of->spent = 0;
}

// Both processes do the same: they find each other, and carry messages in each of the ways of the bench.
static void carry_all(bench_host *of, const messenger *by, channel_pair *pair, bool sleeps) {
    static const uint64_t counts[] = {100, 40, 10, 3};
    channel_loop *const loops[] = {by->publish, by->publish_timed, by->ping, by->rouse},
                 *const peers[] = {by->subscribe, by->follow, by->pong, by->rise};
    slice_begin(of, 0);
    (of->worker ? by->answer : by->call)(pair, 1);
    for (int k = 0; k < 4; k++) {
        if ((k == 3) != sleeps)
            continue;
        slice_begin(of, 1000 * (uint64_t)(k + 1));
        (of->worker ? peers : loops)[k](pair, counts[k]);
        CHECK_EQ(of->received, of->worker ? counts[k] : 0);
    }
    slice_begin(of, 0);
    CHECK_EQ(get_acquire(&of->shared->bad), 0);
}

static void both_join(const messenger *by, const channel_pair *pair, int worker, bool back) {
    if (by->join)
        by->join(pair->there, worker);
    if (by->join && back)
        by->join(pair->back, 1 - worker);
}

static void both_leave(bench_host *of, const messenger *by, const channel_pair *pair, bool back) {
    // who publishes leaves last
    for (int role = 1; role >= 0; role--) {
        if (by->leave && role == of->worker)
            by->leave(pair->there, role);
        if (by->leave && back && role == 1 - of->worker)
            by->leave(pair->back, role);
        slice_begin(of, 0);
    }
}

// false: the messenger does not carry that.
static bool carry_between_two(bench_host *of, const messenger *by, bool sleeps) {
    channel_spec spec = {.number = sleeps, .bytes = 256, .window = 16, .subscribers = 1, .sleeps = sleeps};
    channel_pair pair = {by->create(&spec), NULL};
    if (!pair.there)
        return false;
    spec.number += 2;
    spec.back = true;
    if (!sleeps)
        CHECK((pair.back = by->create(&spec)) != NULL);
    pid_t pid = helper_fork();
    of->worker = pid == 0;
    both_join(by, &pair, of->worker, !sleeps);
    carry_all(of, by, &pair, sleeps);
    both_leave(of, by, &pair, !sleeps);
    if (pid == 0)
        _exit(0);
    helper_wait(pid);
    CHECK_EQ(of->arrivals->count, sleeps ? 3 : 0);
    by->destroy(pair.there);
    if (pair.back)
        by->destroy(pair.back);
    return true;
}

TEST_WITH(bench_messengers_carry_all_messages, .seconds = 120) {
    bench_host *of = bench_host_new();
    int carried = 0;
    for (const messenger *const *list = messengers(of); *list; list++)
        for (int sleeps = 0; sleeps < 2; sleeps++) {
            of->worker = 0;
            memset(of->arrivals, 0, sizeof *of->arrivals);
            carried += carry_between_two(of, *list, sleeps);
        }
    CHECK_EQ(carried, 12);                                         // slots only poll, the futex only sleeps
}

static void add_time(record_table *table, const char *name, const char *system, const char *workers, double ns) {
    record row = {.bytes = 256, .q1 = ns, .median = ns, .q3 = ns, .rounds = 7, .unit = "ns"};
    snprintf(row.name, sizeof row.name, "%s", name);
    snprintf(row.system, sizeof row.system, "%s", system);
    snprintf(row.workers, sizeof row.workers, "%s", workers);
    snprintf(row.metric, sizeof row.metric, "%s", strcmp(name, "topic_wake") == 0 ? "p50" : "time");
    row_add(table, &row);
}

TEST(bench_targets_tell_who_is_ahead) {
    record_table table = {0};
    char *text = NULL;
    size_t length = 0;
    fact_add(&table, "cpus=8 on line, 4 for this process");
    add_time(&table, "topic", "zerocp", "2p", 60);
    add_time(&table, "topic", "slots", "2p", 40);
    add_time(&table, "topic", "pipe", "2p", 300);
    add_time(&table, "topic", "nng", "2p", 50);
    add_time(&table, "topic", "zerocp", "9p", 600);
    add_time(&table, "topic", "pipe", "9p", 300);
    add_time(&table, "topic_publish", "zerocp", "2p", 30);
    add_time(&table, "topic_publish", "zerocp", "9p", 65);
    add_time(&table, "topic_wake", "zerocp", "2p", 11000);
    add_time(&table, "topic_wake", "futex", "2p", 10000);
    add_time(&table, "topic_wake", "pipe", "2p", 20000);
    FILE *out = open_memstream(&text, &length);
    CHECK(out != NULL);
    targets_print(out, &table);
    fclose(out);
    CHECK_HAS(text, "| topic, 256 B by static slots | 1.50 | 1.45 | **no** |");
    CHECK_HAS(text, "| topic, 256 B, 2p, by the fastest peer: nng | 1.20 | 1 | **no** |");
    CHECK_HAS(text, "| topic, 256 B, 9p, by the fastest peer: pipe | 2.00 | | |");     // more processes than CPUs
    CHECK_HAS(text, "| zerocp, publish 256 B: each further subscriber, ns | 5.00 | 10 | yes |");
    CHECK_HAS(text, "| topic, a subscriber that sleeps by a bare futex, p50 | 1.10 | 1.2 | yes |");
    CHECK_HAS(text, "| topic_wake, 256 B, 2p, by the fastest peer: pipe | 0.55 | 1 | yes |");
    free(text);
    record_free(&table);
}
