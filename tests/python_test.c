// tests/python_test.c: runs the tests of tests/demo/zerocp.py, which are functions of tests/python/zerocp_test.py, some
// in one process, with the interpreter that has numpy. Skipped where there is none; but not where
// TEST_INSTALLED says that python3 and numpy are.
#include "harness/programs.h"

#ifndef TEST_SOURCE_DIR
#error "TEST_SOURCE_DIR is not defined: the Makefile gives it"
#endif

#define SCRIPT TEST_SOURCE_DIR "/tests/python/zerocp_test.py"

static program python;

_Noreturn static void skip(const char *why) {
    CHECK_MSG(getenv("TEST_INSTALLED") == NULL, "%s", why);
    test_skip(why);
}

static void set_library(void) {
    char library[PATH_MAX];
    build_path(library, sizeof library, "libzerocp.so");
    if (access(library, R_OK) != 0)
        skip("libzerocp.so was not built (make library)");
    CHECK(setenv("ZEROCP_LIBRARY", library, 1) == 0);
    CHECK(setenv("PYTHONDONTWRITEBYTECODE", "1", 1) == 0);         // nothing beside the sources
}

static const char *interpreter(void) {
    set_library();
    const char *found = python_with_numpy(&python);
    if (found == NULL) {
        test_note("%s", python.text);
        skip("there is no python3 with numpy that can load the library");
    }
    return found;
}

static void run_python_tests(const char *names) {
    const char *found = interpreter();
    start_at(&python, found, (const char *[]){found, "-X", "dev", SCRIPT, names, test_instance(), NULL});
    must_end(&python, 0);
    must_be(&python, "");
}

// Those of one line run in one process.
#define PYTHON_TESTS(X)                                                                                                \
    X(table, "table functions")                                                                                        \
    X(chunks, "manager arguments exchange")                                                                            \
    X(arrays, "array_outlives_all chunk_outlives_close array_in_a_cycle")                                              \
    X(exit, "exit exit_leaves_nobody_to_sweep killed")                                                                 \
    X(fork, "fork fork_after_release fork_before_other_hooks")                                                         \
    X(threads, "threads")                                                                                              \
    X(topics, "topic reliable frames_hold array_of_a_published_chunk")                                                 \
    X(topics_killed, "publisher_killed subscriber_killed")                                                             \
    X(waiting, "wait descriptor signals interrupt close_ends_waiting")                                                 \
    X(async, "async async_is_fair_and_loses_nothing")                                                                  \
    X(topics_ending, "fork_topics exit_with_topics")                                                                   \
    X(topics_shared, "listing threads_share_topics")                                                                   \
    X(pipeline, "pipeline")                                                                                            \
    X(without_numpy, "without_numpy")

#define PYTHON_TEST(name, tests)                                                                                       \
    TEST(python_##name) {                                                                                              \
        run_python_tests(tests);                                                                                       \
    }
PYTHON_TESTS(PYTHON_TEST)

// None is left out here.
TEST(python_tests_all_run) {
#define NAMES(name, tests) " " tests
    const char *expected = text_of("%s\n", &PYTHON_TESTS(NAMES)[1]), *found = interpreter();
    start_at(&python, found, (const char *[]){found, SCRIPT, "--list", NULL});
    must_end(&python, 0);
    must_be(&python, expected);
}
