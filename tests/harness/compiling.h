// tests/harness/compiling.h: what the tests that compile programs share: a directory of their own, commands, the
// compilers that are there, and what the documentation's programs need. TEST_SOURCE_DIR is where the headers are; the
// Makefile defines it.
#ifndef ZEROCP_TEST_COMPILING_H
#define ZEROCP_TEST_COMPILING_H

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#define C_WARNINGS "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wcast-qual -Wcast-align -Werror"
#define CXX_WARNINGS "-Wall -Wextra -Wpedantic -Wcast-qual -Wcast-align -Werror"
#define SOURCE_DIR "'" TEST_SOURCE_DIR "'"
#define LIBS "-pthread -lrt"

enum { MAX_TEXT = 4 << 20 };

// ---------------------------------------------------------------------------------------------------------------------
// A directory for the programs of a test, beside the test program. It stays if the test fails: it says what failed.

static inline void enter_directory(void) {
    static char path[4096];
    ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - 64);
    CHECK(bytes > 0);
    path[bytes] = 0;
    char *name = strrchr(path, '/') + 1;
    snprintf(name, 64, "compile-XXXXXX");
    CHECK_MSG(mkdtemp(path) != NULL && chdir(path) == 0, "%s: %s", path, strerror(errno));
}

static inline int run_shell(const char *command) {
    int status = system(command);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static inline void leave_directory(void) {
    CHECK_EQ(run_shell("directory=$(pwd) && cd / && rm -rf \"$directory\""), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Files and commands

static inline char *read_file(const char *path) {
    char *text = malloc(MAX_TEXT);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_MSG(file >= 0 && text != NULL, "%s: %s", path, strerror(errno));
    size_t used = 0;
    for (ssize_t got = 1; got > 0; used += (size_t)got) {
        CHECK(used < MAX_TEXT - 1);
        got = read(file, text + used, MAX_TEXT - 1 - used);
        CHECK(got >= 0);
    }
    text[used] = 0;
    close(file);
    return text;
}

__attribute__((format(printf, 2, 3))) static inline void write_file(const char *path, const char *format, ...) {
    FILE *file = fopen(path, "w");
    va_list arguments;
    CHECK_MSG(file != NULL, "%s: %s", path, strerror(errno));
    va_start(arguments, format);
    CHECK(vfprintf(file, format, arguments) >= 0);
    va_end(arguments);
    CHECK(fclose(file) == 0);
}

__attribute__((format(printf, 1, 0))) static inline int run_command(const char *format, va_list arguments) {
    char command[4000], logged[4100];
    int bytes = vsnprintf(command, sizeof command, format, arguments);
    CHECK(bytes > 0 && bytes < (int)sizeof command);
    snprintf(logged, sizeof logged, "{ %s; } > log 2>&1", command);
    int code = run_shell(logged);
    char *log = read_file("log");
    test_note("$ %s", command);
    if (log[0] != 0)
        test_note("%.3500s", log);
    free(log);
    return code;
}

// The command must succeed, and print nothing unless it is the run of a program.
__attribute__((format(printf, 1, 2))) static inline void must(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int code = run_command(format, arguments);
    va_end(arguments);
    CHECK_MSG(code == 0, "the command above ended with %d", code);
}

// The compilation must fail with exactly one error, which says these words.
__attribute__((format(printf, 2, 3))) static inline void must_be_refused(const char *words, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int code = run_command(format, arguments);
    va_end(arguments);
    char *log = read_file("log");
    CHECK_MSG(code != 0, "the command above succeeded, expected: %s", words);
    CHECK_MSG(strstr(log, words) != NULL, "the command above did not say: %s", words);
    CHECK_EQ(test_count_of(log, "error: "), 1);
    free(log);
}

// ---------------------------------------------------------------------------------------------------------------------
// Compilers: the caller's, and a C++ compiler of its kind, if there is one. Who tests another calls with that one.

static inline const char *callers_compiler(void) {
    const char *compiler = getenv("CC");
    return compiler == NULL || compiler[0] == 0 ? "cc" : compiler;
}

static inline void skip(const char *why) {
    leave_directory();
    test_skip(why);
}

// The caller's compiler may make programs for another machine, which cannot be run here, or not be linked with others.
static inline void enter_directory_to_run(void) {
    enter_directory();
    write_file("runs.c", "int main(void) { return 0; }\n");
    must("%s -o runs runs.c", callers_compiler());
    if (run_shell("./runs > log 2>&1") != 0)
        skip("a program of this compiler does not run here by itself");
}

static inline bool links_what_the_caller_compiles(const char *compiler) {
    char command[512];
    write_file("links.c", "int main(void) { return 0; }\n");
    snprintf(command, sizeof command, "{ %s -c -o links.o links.c && %s -o links links.o && ./links; } > log 2>&1",
             callers_compiler(), compiler);
    return run_shell(command) == 0;
}

static inline bool is_there(const char *compiler) {
    char command[512];
    snprintf(command, sizeof command, "%s --version > log 2>&1", compiler);
    return run_shell(command) == 0;
}

// Skips the test if there is none: a C compiler is all that zerocp needs.
static inline const char *cxx_compiler(bool for_the_callers_machine) {
    static const char *const names[] = {"g++", "clang++", "g++"};
    int first = strstr(callers_compiler(), "clang") != NULL;
    for (int i = first; i < first + 2; i++)
        if (for_the_callers_machine ? links_what_the_caller_compiles(names[i]) : is_there(names[i]))
            return names[i];
    skip("there is no g++ or clang++ for this machine");
    return NULL;
}

// ---------------------------------------------------------------------------------------------------------------------
// The documentation

static inline char *read_source(const char *name) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", TEST_SOURCE_DIR, name);
    return read_file(path);
}

// Documented programs use names of their own for their instances, so one runs at a time, whatever runs beside this
// test.
static inline int lock_documented(void) {
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0 && flock(file, LOCK_EX) == 0);
    return file;
}

// Checks that a program has left no instance named by one of its string literals.
static inline void check_nothing_left(const char *text) {
    for (const char *at = strchr(text, '"'); at != NULL; at = strchr(at, '"')) {
        size_t length = strcspn(at + 1, "\"\n");
        char path[512];
        snprintf(path, sizeof path, "/dev/shm/%.*s_memory_management", (int)(length < 256 ? length : 256), at + 1);
        CHECK_MSG(access(path, F_OK) != 0, "the program left %s", path);
        at += length + 1 + (at[length + 1] == '"');
    }
    CHECK_MSG(access("/dev/shm/zerocp_memory_management", F_OK) != 0, "the program left its instance");
}

#endif
