// tests/bench_test.c: the bench's comparison of two runs tells what got slower, and only that.
#include "bench/check.c"
#include "bench/record.c"

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
