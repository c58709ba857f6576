// tests/killstep_test.c: a few quick operations of the killstep harness, in every test run; `make killstep` has all of
// them.
#define KILLSTEP_IN_TESTS
// of 64-bit addresses: nothing is stepped on 32-bit machines
#pragma GCC diagnostic ignored "-Wint-to-pointer-cast"
#include "killstep/killstep.c"

static void run_quickly(const char *name) {
    const options all = {.modes = {[KILL] = true, [CALL] = true, [STOP] = true, [CHAIN] = true},
                         .variant = -1,
                         .point = -1,
                         .chains = 2};
#if defined(TEST_ASAN) || defined(TEST_TSAN)
    test_skip("single steps through a sanitizer take too long");
#endif
#ifdef KILLSTEP_NOT_HERE
    test_skip("programs of this architecture are not single-stepped");
#endif
    if (!may_trace()) test_skip("no process may be single-stepped here");
    CHECK(map_board());
    samples = 2;
    for (unsigned i = 0; i < OPERATIONS; i++)
        if (strcmp(operations[i].name, name) == 0) {
            result sum = run_operation(&operations[i], &all, test_instance());
            CHECK(sum.passed > 0);
            CHECK_EQ(sum.failed, 0);
            return;
        }
    CHECK_MSG(false, "there is no operation %s", name);
}

TEST(killstep_allocate) { run_quickly("allocate-full"); }
TEST(killstep_acquire) { run_quickly("acquire-first"); }
TEST(killstep_release_alone) { run_quickly("release-alone"); }
TEST(killstep_release_last_borrower) { run_quickly("release-last-borrower"); }
TEST(killstep_recover) { run_quickly("recover-none"); }
TEST(killstep_loan) { run_quickly("allocate-next-leaf"); }
TEST(killstep_cache) { run_quickly("yield-at-release"); }
TEST(killstep_retire) { run_quickly("retire-pool-held"); }
TEST_WITH(killstep_wait, .seconds = 240) { run_quickly("wait"); }
TEST(killstep_publish) { run_quickly("publish-displaces"); }
TEST(killstep_receive) { run_quickly("receive"); }
