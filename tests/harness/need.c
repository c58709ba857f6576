// tests/harness/need.c: what a test asks about its machine before it begins.
#include "test.h"

#include "../machines/probe.h"

static bool open_probe_file(void) {
    snprintf(probe_path, sizeof probe_path, "/dev/shm/%s-probe-%d", test_instance(), (int)getpid());
    int file = open(probe_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good = file >= 0 && ftruncate(file, 4096) == 0;
    close(file);
    return good;
}

void test_need(const char *what) {
    char reason[128];
    bool known = false, works = false;
    CHECK(open_probe_file());
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++)
        if (strcmp(probes[i].name, what) == 0) {
            known = true;
            works = probes[i].works();
        }
    CHECK(unlink(probe_path) == 0);
    CHECK_MSG(known, "there is no probe for %s", what);
    snprintf(reason, sizeof reason, "this machine lacks %s", what);
    if (!works)
        test_skip(reason);
}

void test_need_root(void) {
    if (geteuid() != 0)
        test_skip("needs root, to act as other users");
}

// build/tests/run --program=machine: what all these skips will be about.
TEST_PROGRAM(machine, argument) {
    const char *before = "this machine lacks: ";
    (void)argument;
    CHECK(open_probe_file());
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++)
        if (!probes[i].works()) {
            printf("%s%s", before, probes[i].name);
            before = ", ";
        }
    CHECK(unlink(probe_path) == 0);
    puts(before[0] == ',' ? "" : "this machine has all that the tests need");
}
