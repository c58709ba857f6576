// tests/harness/programs.h: runs the programs of tests/demo, as built by make in demo/ beside the directory of this
// program, and looks at what they print.
#ifndef ZEROCP_TEST_PROGRAMS_H
#define ZEROCP_TEST_PROGRAMS_H

#include "test.h"
#include "zerocp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct program {
    pid_t pid;
    int output;                                                    // standard output and error; -1: closed
    size_t length;
    char text[64 << 10];
} program;

// What make has built: a path relative to the directory of its output.
static inline void build_path(char *path, size_t bytes, const char *name) {
    ssize_t length = readlink("/proc/self/exe", path, bytes - 1);
    CHECK(length > 0);
    path[length] = 0;
    for (int i = 0; i < 2; i++)                                    // BUILD/tests/run -> BUILD
        *strrchr(path, '/') = 0;
    size_t used = strlen(path);
    CHECK((size_t)snprintf(path + used, bytes - used, "/%s", name) < bytes - used);
}

// Starts a program by its path, or from PATH.
// What exec takes: pointers to char, though it writes nothing. For a child that is about to call it.
static inline char **copied(const char *const *arguments) {
    static char *kept[64];
    size_t n = 0;
    for (; arguments[n] != NULL; n++) {
        CHECK(n + 1 < sizeof kept / sizeof kept[0]);
        CHECK((kept[n] = strdup(arguments[n])) != NULL);
    }
    kept[n] = NULL;
    return kept;
}

static inline void start_at(program *run, const char *path, const char *const *arguments) {
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    memset(run, 0, sizeof *run);
    run->output = ends[0];
    run->pid = fork();
    CHECK(run->pid >= 0);
    if (run->pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execvp(path, copied(arguments));
        _exit(127);
    }
    close(ends[1]);
}

// START(&run, "server", "--name", name): one of the demo's programs.
#define START(run, ...) start((run), (const char *[]){__VA_ARGS__, NULL})

static inline void start(program *run, const char *const *arguments) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "demo/%s", arguments[0]);
    build_path(path, sizeof path, name);
    CHECK_MSG(access(path, X_OK) == 0, "%s: %s", path, strerror(errno));
    start_at(run, path, arguments);
}

// Takes what has come within that time; false once the output has ended.
static inline bool take(program *run, int milliseconds) {
    struct pollfd watched = {.fd = run->output, .events = POLLIN};
    if (run->output < 0)
        return false;
    if (poll(&watched, 1, milliseconds) <= 0)
        return true;
    ssize_t bytes = read(run->output, run->text + run->length, sizeof run->text - 1 - run->length);
    CHECK(bytes >= 0 && run->length + (size_t)bytes < sizeof run->text - 1);
    run->length += (size_t)bytes;
    run->text[run->length] = 0;
    if (bytes == 0) {
        close(run->output);
        run->output = -1;
    }
    return bytes > 0;
}

static inline void await_text(program *run, const char *text) {
    while (strstr(run->text, text) == NULL)
        CHECK_MSG(take(run, 100), "ended before it printed \"%s\":\n%s", text, run->text);
}

// Waits for the end; returns the status as of waitpid.
static inline int end_of(program *run) {
    while (take(run, 100)) {
    }
    return test_wait(run->pid);
}

static inline void must_end(program *run, int code) {
    int status = end_of(run);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == code, "status %x, expected to exit with %d:\n%s",
              (unsigned)status, code, run->text);
}

static inline void must_end_on(program *run, int signal_number, int code) {
    CHECK(kill(run->pid, signal_number) == 0);
    must_end(run, code);
}

static inline void must_say(const program *run, const char *text) {
    CHECK_MSG(strstr(run->text, text) != NULL, "\"%s\" is not in:\n%s", text, run->text);
}

static inline void must_be(const program *run, const char *expected) {
    if (strcmp(run->text, expected) == 0)
        return;
    size_t same = 0;
    while (expected[same] != 0 && run->text[same] == expected[same])
        same++;
    CHECK_MSG(false, "expected, from byte %zu on:\n%.300s\n--- printed:\n%s", same, expected + same, run->text);
}

__attribute__((format(printf, 1, 2))) static inline const char *text_of(const char *format, ...) {
    static char text[16 << 10];
    va_list arguments;
    va_start(arguments, format);
    CHECK(vsnprintf(text, sizeof text, format, arguments) < (int)sizeof text);
    va_end(arguments);
    return text;
}

static inline void must_be_gone(const char *name) {
    CHECK_STATUS(zcp_manager_destroy(name), ZCP_ERR_NOT_FOUND);
}

// The first interpreter that has numpy and can load the library, which may be of another word size or another libc's,
// from where ZEROCP_LIBRARY says. NULL: there is none; what the last one said is in `python`.
static inline const char *python_with_numpy(program *python) {
    static const char *const candidates[] = {"python3", "/usr/bin/python3", "/usr/local/bin/python3"};
    static const char probe[] = "import ctypes, importlib.util, os; ctypes.CDLL(os.environ['ZEROCP_LIBRARY'])\n"
                                "if not importlib.util.find_spec('numpy'): raise SystemExit('there is no numpy')";
    for (size_t i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
        start_at(python, candidates[i], (const char *[]){candidates[i], "-c", probe, NULL});
        if (end_of(python) == 0)
            return candidates[i];
    }
    return NULL;
}

#endif
