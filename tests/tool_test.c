// tests/tool_test.c: runs the tool, build/zerocp, against real instances (alive, left over, corrupt, foreign, of
// another version, none), and checks what it prints, that its JSON is JSON, how it ends, and that looking disturbs
// nothing.
#include "harness/chunks.h"
#include "harness/inside.h"
#include "harness/programs.h"
#include "harness/test.h"
#include "zerocp.h"

#include <ctype.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

// ---------------------------------------------------------------------------------------------------------------------
// The tool

typedef struct stream {
    int fd;                                                        // -1: closed
    size_t length;
    char text[192 << 10];
} stream;

typedef struct run {
    pid_t pid;
    stream out, err;
    int code;                                                      // once it has ended; 128 + the signal that killed it
} run;

static run tool;                                                   // most tests have one at a time

// Starts it with its output going to these descriptors; -1: closed.
static pid_t start_to(const char *const *arguments, int in, int out, int err) {
    char path[PATH_MAX];
    build_path(path, sizeof path, "zerocp");
    CHECK_MSG(access(path, X_OK) == 0, "%s: %s", path, strerror(errno));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0)
        return pid;
    const int wanted[] = {in, out, err};
    for (int fd = 0; fd < 3; fd++)
        if (wanted[fd] < 0 || dup2(wanted[fd], fd) < 0)
            close(fd);
    execv(path, copied(arguments));
    _exit(127);
}

static void begin_with(run *r, int in, const char *const *arguments) {
    int out[2], err[2];
    memset(r, 0, sizeof *r);
    CHECK(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0 && in >= 0);
    r->pid = start_to(arguments, in, out[1], err[1]);
    close(in);
    close(out[1]);
    close(err[1]);
    r->out.fd = out[0];
    r->err.fd = err[0];
}

static void begin(run *r, const char *const *arguments) {
    begin_with(r, open("/dev/null", O_RDONLY | O_CLOEXEC), arguments);
}

// A file that is gone, with that in it, to be read from its beginning.
static int input_of(const void *bytes, size_t count) {
    FILE *file = tmpfile();
    CHECK(file != NULL && fwrite(bytes, 1, count, file) == count && fflush(file) == 0);
    int fd = dup(fileno(file));
    CHECK(fd >= 0 && lseek(fd, 0, SEEK_SET) == 0 && fclose(file) == 0);
    return fd;
}

#define BEGIN(r, ...) begin((r), (const char *[]){"zerocp", __VA_ARGS__, NULL})

static void take_stream(stream *s, short events) {
    if (s->fd < 0 || events == 0)
        return;
    ssize_t bytes = read(s->fd, s->text + s->length, sizeof s->text - 1 - s->length);
    if (bytes < 0)
        bytes = 0;                                                 // a terminal whose other side is gone
    CHECK(s->length + (size_t)bytes < sizeof s->text - 1);
    s->length += (size_t)bytes;
    s->text[s->length] = 0;
    if (bytes == 0) {
        close(s->fd);
        s->fd = -1;
    }
}

// Takes what comes; false once both streams have ended.
static bool take_some(run *r) {
    struct pollfd watched[2] = {{.fd = r->out.fd, .events = POLLIN}, {.fd = r->err.fd, .events = POLLIN}};
    if (r->out.fd < 0 && r->err.fd < 0)
        return false;
    if (poll(watched, 2, 100) > 0) {
        take_stream(&r->out, watched[0].revents);
        take_stream(&r->err, watched[1].revents);
    }
    return true;
}

static int code_of(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void await_end(run *r) {
    while (take_some(r)) {
    }
    r->code = code_of(test_wait(r->pid));
}

static void await_count(run *r, const char *part, int count) {
    while (test_count_of(r->out.text, part) < count)
        CHECK_MSG(take_some(r), "ended before it printed \"%s\" %d times:\n%s%s", part, count, r->out.text,
                  r->err.text);
}

static void must_exit(run *r, int code) {
    await_end(r);
    CHECK_MSG(r->code == code, "ended with %d, expected %d:\n%s%s", r->code, code, r->out.text, r->err.text);
}

static void await_complaint(run *r, const char *part) {
    while (strstr(r->err.text, part) == NULL)
        CHECK_MSG(take_some(r), "ended before it said \"%s\":\n%s%s", part, r->out.text, r->err.text);
}

// The same with that text as its standard input.
#define RUN_WITH(expected, input, ...)                                                                                 \
    do {                                                                                                               \
        begin_with(&tool, input_of((input), strlen(input)), (const char *[]){"zerocp", __VA_ARGS__, NULL});           \
        must_exit(&tool, (expected));                                                                                  \
    } while (0)

// Runs it to its end, which has to be with that exit code.
#define RUN(expected, ...)                                                                                             \
    do {                                                                                                               \
        BEGIN(&tool, __VA_ARGS__);                                                                                     \
        must_exit(&tool, (expected));                                                                                  \
    } while (0)

static void must_print(const char *part) {
    CHECK_MSG(strstr(tool.out.text, part) != NULL, "\"%s\" is not in:\n%s%s", part, tool.out.text, tool.err.text);
}

static void must_not_print(const char *part) {
    CHECK_MSG(strstr(tool.out.text, part) == NULL, "\"%s\" is in:\n%s", part, tool.out.text);
}

static void must_complain(const char *part) {
    CHECK_MSG(strstr(tool.err.text, part) != NULL && strncmp(tool.err.text, "zerocp: ", 8) == 0,
              "\"%s\" is not in the complaint:\n%s", part, tool.err.text);
}

// The line of stdout in which that text stands.
static const char *line_with(const char *part) {
    static char line[4096];
    const char *at = strstr(tool.out.text, part);
    CHECK_MSG(at != NULL, "no line with \"%s\" in:\n%s%s", part, tool.out.text, tool.err.text);
    while (at > tool.out.text && at[-1] != '\n')
        at--;
    size_t length = strcspn(at, "\n");
    CHECK(length < sizeof line);
    memcpy(line, at, length);
    line[length] = 0;
    return line;
}

static void line_must_say(const char *part, const char *expected) {
    const char *line = line_with(part);
    CHECK_MSG(strstr(line, expected) != NULL, "\"%s\" is not in the line:\n%s", expected, line);
}

// ---------------------------------------------------------------------------------------------------------------------
// JSON, as RFC 8259 has it, and nothing else

typedef struct json { const unsigned char *at; int depth; } json;

static bool json_value(json *j);

static bool json_is(json *j, char expected) {
    while (*j->at == ' ' || *j->at == '\t' || *j->at == '\r')
        j->at++;
    if (*j->at != (unsigned char)expected)
        return false;
    j->at++;
    return true;
}

static bool json_hex4(json *j) {
    for (int i = 0; i < 4; i++)
        if (!isxdigit(*j->at++))
            return false;
    return true;
}

// One character of more than one byte, well-formed (RFC 3629, table 3-7 of Unicode).
static bool json_utf8(json *j) {
    static const struct { unsigned char first, last, least, most; int more;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 1}, {0xe0, 0xe0, 0xa0, 0xbf, 2}, {0xe1, 0xec, 0x80, 0xbf, 2},
        {0xed, 0xed, 0x80, 0x9f, 2}, {0xee, 0xef, 0x80, 0xbf, 2}, {0xf0, 0xf0, 0x90, 0xbf, 3},
        {0xf1, 0xf3, 0x80, 0xbf, 3}, {0xf4, 0xf4, 0x80, 0x8f, 3},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (j->at[0] < forms[i].first || j->at[0] > forms[i].last)
            continue;
        bool good = j->at[1] >= forms[i].least && j->at[1] <= forms[i].most;
        for (int k = 2; good && k <= forms[i].more; k++)
            good = (j->at[k] & 0xc0) == 0x80;
        j->at += 1 + forms[i].more;
        return good;
    }
    return false;
}

static bool json_string(json *j) {
    if (!json_is(j, '"'))
        return false;
    while (*j->at != '"') {
        if (*j->at < 0x20)
            return false;
        if (*j->at >= 0x80) {
            if (!json_utf8(j))
                return false;
        } else if (*j->at++ == '\\') {
            unsigned char escape = *j->at++;
            if (escape == 0 || strchr("\"\\/bfnrtu", escape) == NULL || (escape == 'u' && !json_hex4(j)))
                return false;
        }
    }
    j->at++;
    return true;
}

static bool json_digits(json *j) {
    const unsigned char *from = j->at;
    while (isdigit(*j->at))
        j->at++;
    return j->at > from;
}

static bool json_number(json *j) {
    if (*j->at == '-')
        j->at++;
    if (*j->at == '0')
        j->at++;
    else if (!json_digits(j))
        return false;
    if (*j->at == '.' && (j->at++, !json_digits(j)))
        return false;
    if (*j->at != 'e' && *j->at != 'E')
        return true;
    j->at++;
    if (*j->at == '+' || *j->at == '-')
        j->at++;
    return json_digits(j);
}

static bool json_members(json *j, char end, bool keys) {
    if (json_is(j, end))
        return true;
    do
        if ((keys && !(json_string(j) && json_is(j, ':'))) || !json_value(j))
            return false;
    while (json_is(j, ','));
    return json_is(j, end);
}

static bool json_word(json *j, const char *word) {
    size_t length = strlen(word);
    if (strncmp((const char *)j->at, word, length) != 0)
        return false;
    j->at += length;
    return true;
}

static bool json_value(json *j) {
    if (++j->depth > 64)
        return false;
    while (*j->at == ' ')
        j->at++;
    bool good = json_is(j, '{')   ? json_members(j, '}', true)
                : json_is(j, '[') ? json_members(j, ']', false)
                : *j->at == '"'
                    ? json_string(j)
                    : json_word(j, "true") || json_word(j, "false") || json_word(j, "null") || json_number(j);
    j->depth--;
    return good;
}

// Is a line one JSON object, and nothing more?
static bool is_json_line(const char *line) {
    json j = {(const unsigned char *)line, 0};
    return *line == '{' && json_value(&j) && *j.at == '\n';
}

static void must_be_json(int lines) {
    const char *line = tool.out.text;
    int count = 0;
    for (; *line != 0; line = strchr(line, '\n') + 1, count++)
        CHECK_MSG(strchr(line, '\n') != NULL && is_json_line(line), "no JSON:\n%s", line);
    CHECK_MSG(count == lines, "%d lines, expected %d:\n%s", count, lines, tool.out.text);
}

// The number behind that key, in what was printed last.
static double json_number_of(const char *key) {
    const char *at = strstr(tool.out.text, key);
    double number;
    CHECK_MSG(at != NULL && sscanf(at + strlen(key), "%lf", &number) == 1, "no %s in:\n%s", key, tool.out.text);
    return number;
}

TEST(tool_test_knows_json) {
    static const char *const good[] = {"{}\n", "{\"a\":[1,-0.5e+7,\"\\u00e9\\n\\\"\",{},[],true,false,null]}\n",
                                       "{\"\xc3\xa9\":\"\xf0\x9f\x98\x80\"}\n"};
    static const char *const bad[] = {"{}", "{}{}\n", "{\"a\":}\n", "{\"a\":1,}\n", "{a:1}\n", "{\"a\":01}\n",
                                      "{\"a\":.5}\n", "{\"a\":nan}\n", "{\"a\":-}\n",
                                      "{\"a\":\"\x1b\"}\n", "{\"a\":\"\xff\"}\n", "{\"a\":\"\xc0\x80\"}\n",
                                      "{\"a\":\"\xed\xa0\x80\"}\n", "{\"a\":\"\\x41\"}\n", "{\"a\" 1}\n",
                                      "[1]\n", "{\"a\":[1 2]}\n", "{\"a\":\"\\u12\"}\n", "{\"a\":1\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_MSG(is_json_line(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_MSG(!is_json_line(bad[i]), "%s", bad[i]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Instances

static char *shm_path(const char *name, const char *suffix) {
    static char path[512];
    snprintf(path, sizeof path, "/dev/shm/%s%s", name, suffix);
    return path;
}

static int management_file(const char *name) {
    int fd = open(shm_path(name, "_memory_management"), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static void overwrite(const char *name, off_t offset, const void *bytes, size_t count) {
    int fd = management_file(name);
    CHECK(pwrite(fd, bytes, count, offset) == (ssize_t)count);
    close(fd);
}

// In every layout version the header begins with magic:8 byte_order:4 pid:4 state:4 version:4 signature:8 id:8.
enum { AT_MAGIC = 0, AT_STATE = 16, AT_VERSION = 20, AT_SIGNATURE = 24 };

static zcp_config two_pools(void) {
    zcp_config config = one_pool(256, 16);
    CHECK_OK(zcp_config_add_pool(&config, 4096, 8));
    return config;
}

// A client in a process of its own, that holds chunks until it is told to end or killed.
typedef struct holder {
    _Atomic uint32_t ready, end;
    uint32_t small, large;                                         // chunks that it allocates
    uint32_t tag;
    uint64_t size_of_large, token;                                 // token: of a chunk that it acquires; 0: none
    bool lets_go_of_first;                                         // once it has the end's first signal
    uint64_t first_token;                                          // of its first chunk
    char name[32];
    pid_t pid;
} holder;

static void hold(void *argument) {
    holder *h = argument;
    zcp_manager *manager;
    zcp_chunk chunk = {0}, first = {0}, borrowed = {0};
    CHECK_OK(zcp_manager_open(
        &manager, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING, .client_name = h->name}));
    for (uint32_t i = 0; i < h->small + h->large; i++) {
        CHECK_OK(zcp_chunk_allocate_tagged(manager, i < h->small ? 100 : h->size_of_large, h->tag, &chunk));
        if (i == 0) {
            first = chunk;
            h->first_token = zcp_chunk_token(&chunk);
        }
    }
    if (h->token != 0)
        CHECK_OK(zcp_chunk_acquire(manager, h->token, &borrowed));
    test_signal(&h->ready);
    if (h->lets_go_of_first) {
        test_await(&h->end, 1);
        zcp_chunk_release(&first);
        test_signal(&h->ready);
    }
    test_await(&h->end, 2);
    zcp_manager_close(manager);
}

static holder *start_holder(const char *name, uint32_t small, uint32_t large) {
    holder *h = test_shared(sizeof *h);
    h->small = small;
    h->large = large;
    h->size_of_large = 3000;
    h->tag = 7;
    snprintf(h->name, sizeof h->name, "%s", name);
    return h;
}

static holder *run_holder(holder *h) {
    h->pid = test_spawn(hold, h);
    test_await(&h->ready, 1);
    return h;
}

static void end_holder(holder *h) {
    test_signal(&h->end);
    test_signal(&h->end);
    test_join(h->pid);
}

static const char *const looking[][8] = {
    {"list"},   {"show", ""}, {"clients", ""}, {"census", ""},         {"leaks", ""}, {"check", ""}, {"suggest", ""},
    {"topics", "", "--interval=0.01"},
    {"watch", "", "--count=2", "--interval=0.01"},
    {"record", "", "--count=2", "--interval=0.01"},
};
enum { LOOKING = sizeof looking / sizeof looking[0] };

// Starts the nth command that only looks, on the test's instance.
static void start_looking(run *r, int n, const char *option) {
    const char *arguments[10] = {"zerocp"};
    int count = 1;
    for (int i = 0; looking[n][i] != NULL; i++)
        arguments[count++] = looking[n][i][0] ? looking[n][i] : test_instance();
    if (option != NULL)
        arguments[count++] = option;
    begin(r, arguments);
}

// ---------------------------------------------------------------------------------------------------------------------
// What it shows

TEST(tool_shows_a_live_instance) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    holder *h = run_holder(start_holder("holding", 2, 1));
    RUN(0, "show", test_instance());
    CHECK_STR(tool.err.text, "");
    must_print(test_instance());
    must_print("State         alive\nClients       2 of 64\n");
    line_must_say("holding", "alive");
    line_must_say("holding", " 3 ");                               // owned
    line_must_say("   0  live", "   16     2  ");                  // total, used
    line_must_say("   1  live", "    8     1  ");
    RUN(0, "show", test_instance(), "--json");
    must_be_json(1);
    must_print("\"state\":\"alive\",\"clients_alive\":2,\"clients_dead\":0,\"clients_draining\":0,\"max_clients\":64,");
    must_print("{\"pool\":0,\"state\":\"live\",\"chunk_size\":256,\"alignment\":64,\"cache_chunks\":0,\"total\":16,"
               "\"used\":2,\"cached\":0,\"free\":14,\"share_used\":0.1250,\"peak_used\":2,");
    must_print("{\"pool\":1,\"state\":\"live\",\"chunk_size\":4096,\"alignment\":64,\"cache_chunks\":0,\"total\":8,"
               "\"used\":1,");
    RUN(0, "clients", test_instance());
    line_must_say("holding", "alive");
    RUN(0, "list");
    line_must_say(test_instance(), "alive");
    end_holder(h);
    RUN(0, "clients", test_instance());
    must_not_print("holding");
    finish(manager);
}

// All commands, in all formats: well-formed, and nothing on stderr.
TEST(tool_speaks_json) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    holder *h = run_holder(start_holder("holding", 2, 1));
    for (int n = 0; n < LOOKING; n++) {
        start_looking(&tool, n, "--json");
        must_exit(&tool, 0);
        must_be_json(n < LOOKING - 2 ? 1 : 2);
        CHECK_STR(tool.err.text, "");
        start_looking(&tool, n, NULL);
        must_exit(&tool, 0);
        CHECK(tool.out.length > 0);
        must_not_print("\033");
    }
    RUN(0, "recover", test_instance(), "-j");
    must_be_json(1);
    RUN(1, "remove", test_instance(), "-j");
    must_be_json(1);
    must_print("{\"error\":\"failed\",\"message\":\"");
    end_holder(h);
    finish(manager);
}

TEST(tool_counts_chunks) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    holder *h = start_holder("holding", 2, 1);
    zcp_chunk mine;
    CHECK_OK(zcp_chunk_allocate_tagged(manager, 1000, 0xfeedface, &mine));
    h->token = token_of(&mine);
    run_holder(h);
    char slot[16], text[128];
    RUN(0, "census", test_instance());
    CHECK_EQ(test_count_of(tool.out.text, "\n"), 6);                    // a heading, four chunks, a sum
    must_print("4 chunks held");
    line_must_say("0xfeedface", " 1000  4096      0  1 ");         // asked, capacity, owner, borrowers
    RUN(0, "census", test_instance(), "--pool=0", "--json");
    must_print("\"count\":2,");
    RUN(0, "census", test_instance(), "--tag=0xfeedface", "--json");
    must_print("\"count\":1,");
    snprintf(text, sizeof text,
             "\"token\":\"%016llx\",\"size\":1000,\"capacity\":4096,\"owner\":0,\"borrowers\":[1],\"tag\":4277009102,",
             (unsigned long long)token_of(&mine));
    must_print(text);
    RUN(0, "census", test_instance(), "--tag=7", "--pool=1", "--json");
    must_print("\"count\":1,");
    snprintf(slot, sizeof slot, "--client=%u", slot_of(manager));
    RUN(0, "census", test_instance(), slot, "--json");
    must_print("\"count\":1,");
    RUN(0, "census", test_instance(), "--client=1", "--json");     // owns three, borrows one
    must_print("\"count\":4,");
    RUN(0, "census", test_instance(), "--client=2", "--json");
    must_print("\"chunks\":[],\"count\":0,");
    end_holder(h);
    zcp_chunk_release(&mine);
    RUN(0, "census", test_instance());
    CHECK_STR(tool.out.text, "0 chunks held, 0 bytes\n");
    finish(manager);
}

TEST(tool_shows_pools_that_come_and_go) {
    zcp_manager *manager = create(256, 16);
    zcp_chunk first = allocate(manager, 100), held = allocate(manager, 100);
    uint32_t added;
    // so that some chunks are retired before the held one
    zcp_chunk_release(&first);
    static run watch;
    BEGIN(&watch, "watch", test_instance(), "-j", "-i", "0.02");
    await_count(&watch, "\n", 2);
    CHECK_EQ(test_count_of(watch.out.text, "\"pool\":1,"), 0);
    CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 1000, .chunk_count = 5}, &added));
    await_count(&watch, "{\"pool\":1,\"state\":\"live\",\"chunk_size\":1000,", 2);
    CHECK_OK(zcp_manager_retire_pool(manager, 0));
    await_count(&watch, "{\"pool\":0,\"state\":\"retiring\",", 2);
    CHECK(kill(watch.pid, SIGINT) == 0);
    must_exit(&watch, 0);
    zcp_chunk large = allocate(manager, 900);
    RUN(0, "check", test_instance());
    must_print("healthy: 0 errors, 0 warnings, 0 notes");
    RUN(0, "show", test_instance());
    line_must_say("   0  retiring", "   16     1  ");
    line_must_say("   1  live", "    5     1  ");
    RUN(0, "census", test_instance(), "--pool=1", "-j");
    must_print("\"count\":1,\"bytes\":1000}");
    RUN(0, "suggest", test_instance());
    must_print("Config line   1000x2\n");                            // of the live ones only
    zcp_chunk_release(&held);
    RUN(0, "show", test_instance());
    must_not_print("retiring");
    must_not_print("256");                                           // its pool
    must_not_print("none");
    RUN(0, "record", test_instance(), "-n1");
    CHECK_EQ(test_count_of(tool.out.text, "\n"), 2);
    RUN(0, "check", test_instance());
    zcp_chunk_release(&large);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// A process that waits for a chunk, and gets it.
static void wait_for_chunk(void *argument) {
    _Atomic uint32_t *ready = argument;
    zcp_chunk chunk;
    zcp_manager *manager = attach();
    test_signal(ready);
    CHECK_OK(zcp_chunk_allocate_wait(manager, 100, 20000, &chunk));
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

TEST(tool_counts_those_who_wait_and_those_who_fail) {
    _Atomic uint32_t *ready = test_shared(sizeof *ready);
    zcp_manager *manager = create(256, 1);
    zcp_chunk chunk = allocate(manager, 100);
    CHECK_ALLOCATE_FAILS(manager, 100, ZCP_ERR_EXHAUSTED);
    pid_t waiting = test_spawn(wait_for_chunk, ready);
    test_await(ready, 1);
    do
        RUN(0, "show", test_instance(), "-j");
    while (strstr(tool.out.text, "\"waits\":1,") == NULL);
    zcp_chunk_release(&chunk);
    test_join(waiting);
    RUN(0, "check", test_instance());
    line_must_say("note", "found all of its chunks in use");
    must_not_print(" 0 calls");
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// That it disturbs nothing

typedef struct image { size_t bytes[2]; unsigned char *copy[2]; } image;

static image take_image(void) {
    image i = {{0}, {NULL}};
    for (int k = 0; k < 2; k++) {
        struct stat status;
        int fd = open(shm_path(test_instance(), k ? "_memory_chunk" : "_memory_management"), O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0 && fstat(fd, &status) == 0);
        i.bytes[k] = (size_t)status.st_size;
        CHECK((i.copy[k] = malloc(i.bytes[k])) != NULL);
        CHECK(pread(fd, i.copy[k], i.bytes[k], 0) == (ssize_t)i.bytes[k]);
        close(fd);
    }
    return i;
}

// All slots are taken, and one client is dead: who took a slot would fail, or sweep. Every byte stays as it was.
TEST(tool_disturbs_nothing) {
    zcp_config config = two_pools();
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(
        &manager, &(zcp_manager_desc){
                      .name = test_instance(), .mode = ZCP_SHM_CREATE_EXCLUSIVE, .config = &config, .max_clients = 3}));
    holder *alive = run_holder(start_holder("alive", 1, 1)), *dead = run_holder(start_holder("dead", 2, 2));
    test_kill(dead->pid);
    image before = take_image();
    for (int n = 0; n < LOOKING; n++) {
        start_looking(&tool, n, NULL);
        await_end(&tool);
        CHECK(tool.code == 0 || tool.code == 1);
        start_looking(&tool, n, "--json");
        await_end(&tool);
        must_be_json(n < LOOKING - 2 ? 1 : 2);
    }
    image after = take_image();
    for (int k = 0; k < 2; k++) {
        CHECK_EQ(before.bytes[k], after.bytes[k]);
        CHECK_EQ(memcmp(before.copy[k], after.copy[k], before.bytes[k]), 0);
    }
    CHECK_RECOVERS(manager, 1, 4);
    end_holder(alive);
    finish(manager);
}

// While it watches, nobody but the clients holds a lock, and it lets go of the files when it ends.
TEST(tool_takes_no_slot_while_it_watches) {
    zcp_config config = two_pools();
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(
        &manager, &(zcp_manager_desc){
                      .name = test_instance(), .mode = ZCP_SHM_CREATE_EXCLUSIVE, .config = &config, .max_clients = 2}));
    BEGIN(&tool, "watch", test_instance(), "--interval=0.01");
    await_count(&tool, "Instance", 3);
    zcp_manager *second = attach();                                // the last slot: free
    await_count(&tool, "Instance", test_count_of(tool.out.text, "Instance") + 3);
    zcp_client_info info;
    for (uint32_t slot = 0; slot < 2; slot++) {
        CHECK_OK(zcp_manager_client_info(manager, slot, &info));
        CHECK_EQ(info.pid, getpid());
    }
    zcp_manager_close(second);
    CHECK(kill(tool.pid, SIGINT) == 0);
    must_exit(&tool, 0);
    CHECK_STR(tool.err.text, "");
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// The dead

TEST(tool_takes_back_what_the_dead_held) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    holder *dead = start_holder("victim", 3, 2), *alive = start_holder("survivor", 1, 0);
    dead->tag = 42;
    run_holder(dead);
    alive->token = dead->first_token;                              // so that one chunk outlives its owner
    run_holder(alive);
    RUN(0, "leaks", test_instance());
    RUN(0, "recover", test_instance());
    must_print("nothing to recover");
    test_kill(dead->pid);
    RUN(1, "leaks", test_instance());
    line_must_say("dead       42", "victim");
    line_must_say("ownerless  42", "victim");                      // what the survivor has acquired is in use
    must_print("4 of 6 held chunks look leaked");
    RUN(1, "leaks", test_instance(), "--json");
    must_be_json(1);
    must_print("\"suspects\":4,");
    RUN(1, "check", test_instance());
    line_must_say("warning", "\"victim\"");
    RUN(0, "list");
    line_must_say(test_instance(), "alive");
    RUN(0, "show", test_instance());
    must_print("Dead clients  1\n");
    RUN(0, "recover", test_instance());
    must_print("swept 1 of 1 dead client: 4 chunks came back");
    line_must_say("victim", "dead");
    must_not_print("survivor");
    CHECK_EQ(used(manager), 2);
    RUN(0, "recover", test_instance(), "--json");
    must_be_json(1);
    must_print("\"dead_clients\":0,\"not_swept\":0,\"chunks_reclaimed\":0,");
    RUN(0, "leaks", test_instance());
    line_must_say("ownerless", " 42 ");                            // its owner is gone, and the survivor has it
    RUN(0, "check", test_instance());
    end_holder(alive);
    finish(manager);
}

// A dead client that holds nothing is no reason to do anything.
TEST(tool_calls_a_dead_client_that_holds_nothing_healthy) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    holder *dead = start_holder("empty-handed", 1, 0);
    dead->lets_go_of_first = true;
    run_holder(dead);
    test_signal(&dead->end);
    test_await(&dead->ready, 2);
    test_kill(dead->pid);
    RUN(0, "check", test_instance(), "--json");
    must_print("\"level\":\"note\"");
    must_print("is dead, and holds no chunk");
    must_print("\"healthy\":true,");
    CHECK_RECOVERS(manager, 1, 0);
    RUN(0, "check", test_instance());
    must_not_print("dead");
    finish(manager);
}

TEST(tool_takes_a_slot_only_to_recover) {
    zcp_config config = two_pools();
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(
        &manager, &(zcp_manager_desc){
                      .name = test_instance(), .mode = ZCP_SHM_CREATE_EXCLUSIVE, .config = &config, .max_clients = 2}));
    holder *dead = run_holder(start_holder("dead", 1, 0));
    test_kill(dead->pid);
    RUN(0, "recover", test_instance());                            // the dead client's slot
    must_print("swept 1 of 1 dead client: 1 chunk came back");
    holder *alive = run_holder(start_holder("alive", 1, 0));
    RUN(0, "recover", test_instance());                            // no slot is free, and none is needed
    end_holder(alive);
    finish(manager);
}

TEST(tool_finds_old_chunks) {
    zcp_manager *manager = create(256, 16);
    zcp_chunk old, chunk;
    CHECK_OK(zcp_chunk_allocate_tagged(manager, 100, 0xabcdef, &old));
    for (int i = 0; i < 50; i++) {
        chunk = allocate(manager, 10);
        zcp_chunk_release(&chunk);
    }
    RUN(0, "leaks", test_instance());
    RUN(0, "leaks", test_instance(), "--older=51");
    RUN(1, "leaks", test_instance(), "--older=50");
    line_must_say("0x00abcdef", "     50  ");                       // its age: the oldest of that tag
    for (int i = 0; i < 14; i++) {
        chunk = allocate(manager, 10);
        zcp_chunk_release(&chunk);
    }
    RUN(1, "leaks", test_instance());                              // 64 = 4 times its pool's chunks
    holder *reader = start_holder("reader", 0, 0);
    reader->token = token_of(&old);
    run_holder(reader);
    RUN(0, "leaks", test_instance());                              // somebody reads it
    line_must_say("read  0x00abcdef", "     64  ");
    must_print("0 of 1 held chunk look leaked");
    end_holder(reader);
    RUN(1, "leaks", test_instance());
    zcp_chunk_release(&old);
    RUN(0, "leaks", test_instance(), "--older=0");
    must_print("0 of 0 held chunks look leaked");
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Removing

TEST(tool_removes_only_what_nobody_uses) {
    zcp_manager *manager = create(256, 4);
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    RUN(1, "remove", test_instance());
    must_complain(pid);
    must_complain("--force");
    CHECK_OK(zcp_manager_check(manager));
    RUN(0, "remove", test_instance(), "--force");
    CHECK_STATUS(zcp_manager_check(manager), ZCP_ERR_REPLACED);
    zcp_manager_close(manager);
    RUN(1, "remove", test_instance());
    must_complain("zerocp list");
    manager = create(256, 4);
    zcp_manager_close(manager);
    RUN(0, "list");
    line_must_say(test_instance(), "left over");
    RUN(0, "remove", test_instance(), "--json");
    must_be_json(1);
    must_print("\"removed\":true");
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_NOT_FOUND);
}

static void create_as_a_user(void *unused) {
    (void)unused;
    CHECK(setgid(4321) == 0 && setuid(4321) == 0);
    zcp_manager_close(create(256, 4));
}

static void remove_as_another_user(void *unused) {
    (void)unused;
    CHECK(setgid(4322) == 0 && setuid(4322) == 0);
    RUN(1, "remove", test_instance());
    must_complain("it belongs to user 4321");
    must_complain("root");
}

TEST(tool_removes_any_users_instance_for_root) {
    if (geteuid() != 0)
        test_skip("to be other users takes root");
    test_join(test_spawn(create_as_a_user, NULL));
    test_join(test_spawn(remove_as_another_user, NULL));
    RUN(0, "recover", test_instance());                            // as every command does, whoever owns it
    RUN(0, "show", test_instance());
    RUN(0, "remove", test_instance());
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_NOT_FOUND);
}

// Who is just replacing an instance has all slots locked, and is no client.
static void replace_and_stop(void *unused) {
    zcp_manager *manager;
    zcp_config config = one_pool(512, 4);
    (void)unused;
    test_at_step("clients_barred", 1, TEST_STOP, NULL);
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    zcp_manager_close(manager);
}

TEST(tool_counts_no_clients_while_it_is_replaced) {
    zcp_manager_close(create(256, 4));
    pid_t pid = test_spawn(replace_and_stop, NULL);
    test_await_stop(pid);
    RUN(0, "list");
    line_must_say(test_instance(), "left over");
    test_resume(pid);
    test_join(pid);
    RUN(0, "remove", test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// What cannot be attached to

// list, show and check of an instance that is not in order: each says it in its way.
static void must_refuse(const char *state, const char *complaint) {
    char cell[64];
    snprintf(cell, sizeof cell, "  %s  ", state);                  // a word of it may be in the name
    RUN(0, "list");
    line_must_say(test_instance(), cell);
    RUN(0, "list", "--json");
    must_be_json(1);
    RUN(1, "show", test_instance());
    must_complain(complaint);
    CHECK_STR(tool.out.text, "");
    RUN(1, "show", test_instance(), "--json");
    must_be_json(1);
    RUN(1, "check", test_instance());
    must_print("error");
    RUN(1, "check", test_instance(), "--json");
    must_be_json(1);
    must_print("\"healthy\":false,");
    for (int n = 2; n < LOOKING; n++) {
        start_looking(&tool, n, NULL);
        must_exit(&tool, 1);
    }
    RUN(1, "recover", test_instance());
}

TEST(tool_of_another_layout_version) {
    zcp_manager_close(create(256, 4));
    overwrite(test_instance(), AT_VERSION, &(uint32_t){77}, 4);
    must_refuse("other version", "layout version 77");
    // a client of that version: it holds the lock of a slot
    int fd = management_file(test_instance());
    struct flock slot = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (1 << 30) + 1 + 5, .l_len = 1};
    CHECK(fcntl(fd, F_OFD_SETLK, &slot) == 0);
    RUN(1, "remove", test_instance());
    must_complain("1 client has it open");
    RUN(0, "list", "--json");
    must_print("\"state\":\"other version\",\"clients_alive\":1,");
    close(fd);
    RUN(0, "remove", test_instance());
}

TEST(tool_of_another_signature) {
    zcp_manager_close(create(256, 4));
    overwrite(test_instance(), AT_SIGNATURE, &(uint64_t){1}, 8);
    must_refuse("other layout", "0000000000000001");
    RUN(0, "remove", test_instance());
}

TEST(tool_of_a_foreign_file) {
    FILE *file = fopen(shm_path(test_instance(), "_memory_management"), "w");
    CHECK(file != NULL && fputs("somebody else's file, which has nothing to do with this\n", file) >= 0
          && fclose(file) == 0);
    must_refuse("foreign", "not written by zerocp");
    RUN(1, "remove", test_instance());
    must_complain("left alone");
    CHECK(access(shm_path(test_instance(), "_memory_management"), F_OK) == 0);
    CHECK(unlink(shm_path(test_instance(), "_memory_management")) == 0);
    CHECK(mkdir(shm_path(test_instance(), "_memory_management"), 0700) == 0);
    RUN(0, "list");
    line_must_say(test_instance(), "  foreign  ");
    CHECK(rmdir(shm_path(test_instance(), "_memory_management")) == 0);
}

TEST(tool_of_a_half_made_instance) {
    int fd = open(shm_path(test_instance(), "_memory_management"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    must_refuse("half-made", "half-made");
    struct flock creation = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1 << 30, .l_len = 1};
    CHECK(fcntl(fd, F_OFD_SETLK, &creation) == 0);
    RUN(0, "list");
    line_must_say(test_instance(), "being created");
    RUN(1, "remove", test_instance());
    must_complain("is creating it");
    close(fd);
    RUN(0, "remove", test_instance());
}

TEST(tool_of_a_corrupt_header) {
    zcp_manager_close(create(256, 4));
    overwrite(test_instance(), AT_STATE, &(uint32_t){99}, 4);
    must_refuse("corrupt", "state word");
    overwrite(test_instance(), AT_STATE, &(uint32_t){1}, 4);
    overwrite(test_instance(), 200, "garbage in the geometry, of which there is some at that place", 32);
    must_refuse("corrupt", "geometry");
    RUN(0, "remove", test_instance());
}

// Who attached now would clear the rest away, so it does not even try, and leaves the clients that there are in peace.
TEST(tool_of_an_instance_that_lost_a_segment) {
    zcp_manager *manager = create(256, 4);
    test_kill(run_holder(start_holder("dead", 1, 0))->pid);
    CHECK(unlink(shm_path(test_instance(), "_memory_chunk")) == 0);
    RUN(0, "list");
    line_must_say(test_instance(), "  no chunks  ");
    RUN(0, "show", test_instance());
    RUN(1, "check", test_instance());
    line_must_say("error", "its chunk segment was removed");
    RUN(1, "recover", test_instance());
    must_complain("remove it with");
    CHECK_OK(zcp_manager_check(manager));
    CHECK_RECOVERS(manager, 1, 1);
    zcp_manager_close(manager);
    RUN(0, "remove", test_instance());
    zcp_manager_close(create(256, 4));
    CHECK(unlink(shm_path(test_instance(), "_memory_management")) == 0);
    RUN(0, "list");
    line_must_say(test_instance(), "  chunks only  ");
    RUN(0, "remove", test_instance());
}

TEST(tool_of_nothing) {
    for (int n = 1; n < LOOKING; n++) {
        start_looking(&tool, n, NULL);
        must_exit(&tool, 1);
        CHECK_STR(tool.out.text, "");
        must_complain(test_instance());
        must_complain("zerocp list");
        start_looking(&tool, n, "--json");
        must_exit(&tool, 1);
        must_be_json(1);
        must_print("{\"error\":\"ZCP_ERR_NOT_FOUND\",");
    }
    RUN(1, "show", "a/b");
    must_complain("name \"a/b\"");
    RUN(1, "show", "");
    must_complain("1 to 236 bytes");
}

// ---------------------------------------------------------------------------------------------------------------------
// check

static void must_find(const char *level, const char *what) {
    RUN(strcmp(level, "note") != 0, "check", test_instance());
    line_must_say(what, level);
    RUN(strcmp(level, "note") != 0, "check", test_instance(), "--json");
    must_be_json(1);
    must_print(what);
}

TEST(tool_checks_records) {
    zcp_manager *manager = create(256, 32);
    RUN(0, "check", test_instance());
    CHECK_STR(tool.out.text, "healthy: 0 errors, 0 warnings, 0 notes\n");
    uint64_t good = inside_state_word(manager, 0, 9);
    static const struct { uint64_t word; const char *what; } bad[] = {
        {0, "1 chunk (9): generation 0"},
        {UINT64_C(5) << 32 | 100u << 21, "1 chunk (9): its owner is a client number that there is not"},
        {UINT64_C(5) << 32 | 2u << 21, "1 chunk (9): held by nobody"},
        {UINT64_C(5) << 32 | 1, "1 chunk (9): held by nobody"},
        {UINT64_C(5) << 32 | 1u << 21 | 0x1fffff, "1 chunk (9): cached, in a pool without caches"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        inside_set_state_word(manager, 0, 9, bad[i].word);
        must_find("error", bad[i].what);
    }
    inside_set_state_word(manager, 0, 9, good);
    RUN(0, "check", test_instance());
    CHECK(inside_drop_hint(manager, 0, 20));
    must_find("note", "1 chunk (20): free, without a hint");
    finish(manager);                                               // the books find it again
}

// Where these bytes first stand in the management segment.
static off_t offset_of(const void *bytes, size_t count) {
    static char all[256 << 10];
    int fd = management_file(test_instance());
    ssize_t length = pread(fd, all, sizeof all, 0);
    char *at = memmem(all, (size_t)length, bytes, count);
    CHECK(at != NULL);
    close(fd);
    return at - all;
}

// Writes a word, looks what is found, and restores it.
static void must_find_with(off_t offset, uint64_t word, size_t bytes, const char *level, const char *what) {
    uint64_t was = 0;
    int fd = management_file(test_instance());
    CHECK(pread(fd, &was, bytes, offset) == (ssize_t)bytes);
    CHECK(pwrite(fd, &word, bytes, offset) == (ssize_t)bytes);
    must_find(level, what);
    CHECK(pwrite(fd, &was, bytes, offset) == (ssize_t)bytes);
    close(fd);
    RUN(0, "check", test_instance());
}

TEST(tool_checks_marks_and_sizes) {
    zcp_config config = one_pool(256, 32);
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                            .mode = ZCP_SHM_CREATE_EXCLUSIVE,
                                                            .config = &config,
                                                            .max_clients = 40}));
    zcp_chunk chunk = allocate(manager, 100);
    char chunk_text[64];
    uint32_t index = inside_index_in_pool(&chunk);
    uint64_t state = inside_state_word(manager, 0, index), free_state = inside_state_word(manager, 0, index + 1);
    // state, size, note, marks
    off_t record = offset_of(&state, sizeof state), free_record = offset_of(&free_state, sizeof free_state);
    snprintf(chunk_text, sizeof chunk_text, "1 chunk (%u): ", index);
    must_find_with(record + 8, 257, 8, "error", "more bytes were asked for than it has");
    must_find_with(record + 8, UINT64_MAX, 8, "error", chunk_text);
    must_find_with(record + 24, UINT64_C(1) << 50, 8, "error", "a borrower is a client number that there is not");
    must_find_with(record + 24, UINT64_C(1) << 5, 8, "error", "marked as borrowed by a client that is gone");
    must_find_with(free_record + 24, UINT64_C(1) << 5, 8, "error", "marked as borrowed by a client that is gone");
    zcp_chunk_release(&chunk);
    finish(manager);
}

TEST(tool_checks_lists_leases_and_slots) {
    zcp_config config = one_pool(256, 36);
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                            .mode = ZCP_SHM_CREATE_EXCLUSIVE,
                                                            .config = &config,
                                                            .client_name = "to be found"}));
    off_t list = offset_of("ZCPLIST1", 8), slot = offset_of("to be found", 11) - 16;       // state:4 pid:4 start:8 name
    off_t last_leaf = list + (off_t)zcp_mpmc_list_bytes(36) - 64,
          lease = list + ((off_t)zcp_mpmc_list_bytes(36) + 63) / 64 * 64 + 128;
    must_find_with(list, 0, 8, "error", "the head of its free list was overwritten");
    must_find_with(list + 8, 35, 4, "error", "the head of its free list was overwritten");
    must_find_with(last_leaf, 0xffff, 8, "warning", "its free list has 12 hints of chunks that do not exist");
    must_find_with(lease, 999, 4, "error", "1 lease was overwritten");
    must_find_with(lease + 4, 999, 4, "error", "1 lease was overwritten");
    must_find_with(lease, UINT64_C(1) << 32 | 9, 8, "warning", "1 lease of clients that are gone");
    must_find_with(slot, 7, 4, "error", "the state of its slot is none that zerocp writes");
    finish(manager);
}

TEST(tool_checks_files) {
    zcp_manager *manager = create(256, 4);
    CHECK(chmod(shm_path(test_instance(), "_memory_management"), 0666) == 0);
    must_find("warning", "every user may write");
    CHECK(chmod(shm_path(test_instance(), "_memory_management"), 0600) == 0);
    RUN(0, "check", test_instance());
    finish(manager);
}

// Suspicions that a live instance raises all the time are none.
static void *work(void *argument) {
    _Atomic uint32_t *stop = argument;
    zcp_manager *manager = attach();
    while (atomic_load(stop) == 0) {
        zcp_chunk chunk = allocate_in_the_end(manager, 100), borrowed = acquire(manager, token_of(&chunk));
        zcp_chunk_release(&chunk);
        zcp_chunk_release(&borrowed);
    }
    zcp_manager_close(manager);
    return NULL;
}

TEST(tool_checks_at_work) {
    _Atomic uint32_t stop = 0;
    zcp_manager *manager = create(256, 32);
    pthread_t workers[2];
    for (int i = 0; i < 2; i++)
        workers[i] = test_thread(work, &stop);
    for (int round = 0; round < 20; round++) {
        RUN(0, "check", test_instance());
        must_print("healthy: 0 errors, 0 warnings");
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++)
        test_thread_join(workers[i]);
    finish(manager);
}

// Whatever the records, lists and slots hold, each command ends, and what it says is well-formed.
TEST(tool_survives_garbage) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    int fd = management_file(test_instance());
    for (int round = 0; round < 16; round++) {
        for (int words = 0; words < 1 << round % 8; words++) {
            static const uint64_t odd[] = {0, 1, UINT64_MAX, UINT64_C(1) << 63, UINT32_MAX};
            uint64_t word = round % 2 ? test_random() : odd[test_random_below(5)];
            off_t at = (off_t)(4096 + test_random_below((info.management_bytes - 4096) / 8) * 8);
            CHECK(pwrite(fd, &word, sizeof word, at) == sizeof word);
        }
        for (int n = 1; n < LOOKING; n++) {
            start_looking(&tool, n, "--json");
            await_end(&tool);
            CHECK_MSG(tool.code == 0 || tool.code == 1, "%s ended with %d", looking[n][0], tool.code);
            must_be_json(n < LOOKING - 2 ? 1 : 2);
        }
    }
    close(fd);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    zcp_manager_close(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// watch and record

TEST(tool_watches) {
    zcp_manager *manager = create(256, 10);
    zcp_chunk chunks[9];
    BEGIN(&tool, "watch", test_instance(), "-i", "0.02");
    await_count(&tool, "Instance", 2);
    must_print("[....................]   0%");
    for (int i = 0; i < 9; i++)
        chunks[i] = allocate(manager, 100);
    await_count(&tool, "[||||||||||||||||||..]  90%", 2);
    must_not_print("\033");
    for (int i = 0; i < 9; i++)
        zcp_chunk_release(&chunks[i]);
    CHECK(kill(tool.pid, SIGTERM) == 0);
    must_exit(&tool, 0);
    CHECK_STR(tool.err.text, "");
    RUN(0, "watch", test_instance(), "-j", "-n", "3", "-i", "0.05");
    must_be_json(3);
    CHECK_EQ(test_count_of(tool.out.text, "\"allocations_per_second\":null"), 1);
    CHECK_EQ(test_count_of(tool.out.text, "\"allocations_per_second\":0.000"), 2);
    finish(manager);
}

TEST(tool_watches_an_instance_that_is_destroyed) {
    zcp_manager *manager = create(256, 4);
    BEGIN(&tool, "watch", test_instance(), "-i", "0.02");
    await_count(&tool, "Instance", 1);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    must_exit(&tool, 1);
    must_complain("was destroyed");
}

TEST(tool_watches_an_instance_that_is_replaced) {
    zcp_config config = one_pool(512, 4);
    zcp_manager *manager = create(256, 4), *next;
    BEGIN(&tool, "watch", test_instance(), "-i", "0.02", "--follow");
    await_count(&tool, "Instance", 1);
    CHECK_OK(zcp_manager_open(
        &next, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_PURGE_AND_CREATE, .config = &config}));
    await_count(&tool, "Replaced      1\n", 2);
    must_print("\n   0   512  ");
    CHECK(kill(tool.pid, SIGINT) == 0);
    must_exit(&tool, 0);
    must_complain("was replaced");
    zcp_manager_close(manager);
    zcp_manager_close(next);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(tool_follows) {
    zcp_manager *manager = create(256, 4);
    BEGIN(&tool, "record", test_instance(), "-i", "0.02", "--follow");
    await_count(&tool, ",0,256,4,0,0,4,", 1);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    while (strstr(tool.err.text, "waiting") == NULL)
        CHECK(take_some(&tool));
    manager = create(512, 4);
    await_count(&tool, ",0,512,4,0,0,4,", 1);
    CHECK(kill(tool.pid, SIGINT) == 0);
    must_exit(&tool, 0);
    CHECK_EQ(test_count_of(tool.out.text, "elapsed_seconds"), 1);       // one heading
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    BEGIN(&tool, "watch", test_instance(), "--follow");            // but the first one has to be there
    must_exit(&tool, 1);
}

TEST(tool_watches_an_instance_that_is_truncated) {
    zcp_manager_close(create(256, 4096));
    BEGIN(&tool, "watch", test_instance(), "-i", "0.02");
    await_count(&tool, "Instance", 1);
    CHECK(truncate(shm_path(test_instance(), "_memory_management"), 0) == 0);
    must_exit(&tool, 1);
    must_complain("truncated");
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(tool_records_csv) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_chunk chunk = allocate(manager, 100);
    RUN(0, "record", test_instance(), "--csv", "--count=3", "--interval=0.01");
    CHECK_EQ(test_count_of(tool.out.text, "\n"), 7);
    CHECK_EQ(strncmp(tool.out.text, "time,elapsed_seconds,instance_id,pool,chunk_size,total,used,", 60), 0);
    int commas = test_count_of(line_with("elapsed_seconds"), ",");
    for (char *line = strtok(tool.out.text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        CHECK_EQ(test_count_of(line, ","), commas);
    RUN(0, "record", test_instance(), "-n1");
    must_print(",0,256,16,1,0,15,1,1,0,0,0,0,,,1,0\n");                // no rates yet
    must_print(",1,4096,8,0,0,8,0,0,0,0,0,0,,,1,0\n");
    zcp_chunk_release(&chunk);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// suggest

TEST(tool_suggests) {
    zcp_config config = one_pool(4096, 40);
    CHECK_OK(zcp_config_add(
        &config, &(zcp_pool_config){.chunk_size = 65536, .chunk_count = 4, .alignment = 4096, .cache_chunks = 2}));
    CHECK_OK(zcp_config_add_pool(&config, 128, 6));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    zcp_chunk chunks[28];
    for (int i = 0; i < 20; i++)                                   // half of a pool, and most of them small
        chunks[i] = allocate(manager, i == 0 ? 200 : i < 18 ? 500 : 4000);
    for (int i = 20; i < 26; i++)
        chunks[i] = allocate(manager, 128);
    CHECK_ALLOCATE_FAILS(manager, 100, ZCP_ERR_EXHAUSTED);
    RUN(0, "suggest", test_instance());
    must_print("Sizes seen    26\n");
    must_print("Config line   512x24,4096x2,65536x1:align=4096:cache=2,128x10\n");
    must_print(
        "zcp_config config = {0};\nzcp_config_add_pool(&config, 512, 24);\nzcp_config_add_pool(&config, 4096, 2);\n"
        "zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 65536, .chunk_count = 1, .alignment = 4096, "
        ".cache_chunks = 2});\n"
        "zcp_config_add_pool(&config, 128, 10);\n");
    line_must_say("  512  ", "18 of the 20 seen asked for no more");
    line_must_say("65536  ", "never used");
    line_must_say("  128  ", "1 calls failed");
    RUN(0, "suggest", test_instance(), "--json", "--count=3", "--interval=0.01");
    must_be_json(1);
    must_print("\"sizes_seen\":78,");
    must_print("\"config\":\"512x24,4096x2,65536x1:align=4096:cache=2,128x10\"");
    for (int i = 0; i < 26; i++)
        zcp_chunk_release(&chunks[i]);
    finish(manager);
}

// A loop that asks again and again for one chunk fails often, and that tells nothing of how many are missing.
TEST(tool_suggests_nothing_for_who_polls) {
    zcp_manager *manager = create(256, 4);
    zcp_chunk chunks[4], refused;
    for (int i = 0; i < 4; i++)
        chunks[i] = allocate(manager, 256);
    for (int i = 0; i < 80; i++)                                   // 16 for each chunk given out, and one more
        CHECK_STATUS(zcp_chunk_allocate(manager, 256, &refused), ZCP_ERR_EXHAUSTED);
    RUN(0, "suggest", test_instance());
    must_print("Watched       one look only");
    must_print("Config line   256x7\n");                           // so far it may as well be a shortage
    CHECK_STATUS(zcp_chunk_allocate(manager, 256, &refused), ZCP_ERR_EXHAUSTED);
    RUN(0, "suggest", test_instance());
    must_print("Config line   256x4\n");
    line_must_say(" 256  ", "polled at the limit: 81 calls failed while 4 got a chunk");
    RUN(0, "suggest", test_instance(), "--count=3", "--interval=0.01");
    must_print(" s, 3 looks\n");
    RUN(0, "suggest", test_instance(), "--json", "--count=2", "--interval=0.01");
    must_be_json(1);
    must_print("\"looks\":2,");
    CHECK(json_number_of("\"watched_seconds\":") >= 0.01);         // however slow the machine is
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Making and changing instances

// What suggest prints is what create reads; the instance outlives the command that made it.
TEST(tool_creates_what_it_suggests) {
    zcp_config config = one_pool(4096, 40), made;
    CHECK_OK(zcp_config_add(
        &config, &(zcp_pool_config){.chunk_size = 65536, .chunk_count = 4, .alignment = 4096, .cache_chunks = 2}));
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    RUN(0, "suggest", test_instance());
    char line[200], *at = strstr(tool.out.text, "Config line   ");
    CHECK(at != NULL && sscanf(at, "Config line   %199[^\n]", line) == 1);
    CHECK_STR(line, "4096x1,65536x1:align=4096:cache=2");
    const char *name = test_instance_n(1);
    RUN(0, "create", name, "--pool", line, "--pool", "100x7", "--max-clients=5", "--publishers=3", "--subscribers=4",
        "--ring-cells=9");
    line_must_say("65536", "4096      2      1     0 ");           // alignment, cache, total, used
    must_print("it stays, also while nobody has it open, until: zerocp remove");
    RUN(0, "list");
    line_must_say(name, "left over");
    zcp_config expected = {.publishers = 3, .subscribers = 4, .ring_cells = 9};
    CHECK_OK(zcp_config_add_pool(&expected, 4096, 1));
    CHECK_OK(zcp_config_add(
        &expected, &(zcp_pool_config){.chunk_size = 65536, .chunk_count = 1, .alignment = 4096, .cache_chunks = 2}));
    CHECK_OK(zcp_config_add_pool(&expected, 100, 7));
    zcp_manager *user, *same = attach_named(name, 0);              // so that another configuration is refused
    CHECK_OK(zcp_manager_open(&user, &(zcp_manager_desc){.name = name, .config = &expected, .max_clients = 5}));
    CHECK_OK(zcp_manager_get_config(user, &made));
    CHECK_EQ(made.pools.size, 3);
    RUN(1, "create", name, "--pool=64x1");
    must_complain("there is such an instance, and 2 clients have it open");
    must_complain("zerocp grow");
    zcp_manager_close(user);
    zcp_manager_close(same);
    RUN(1, "create", name, "--pool=64x1", "--json");               // nor when nobody has it open
    must_be_json(1);
    must_print("{\"error\":\"ZCP_ERR_EXISTS\",");
    RUN(0, "remove", name);
    RUN(1, "create", name, "--pool=1000000000x100000");
    must_complain("free in shared memory");
    CHECK_STATUS(zcp_manager_destroy(name), ZCP_ERR_NOT_FOUND);
    RUN(1, "create", "a/b", "--pool=64x1");
    must_complain("name \"a/b\"");
    finish(manager);
}

TEST(tool_grows_and_retires) {
    zcp_config config = one_pool(256, 4);
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    holder *h = run_holder(start_holder("holding", 3, 0));
    RUN(0, "grow", test_instance(), "--pool=4096x2:cache=1", "--pool=1000x5");
    line_must_say("   1  live", "  4096     64      1      2     0 ");
    line_must_say("   2  live", "  1000 ");
    zcp_chunk large = allocate(manager, 4096);
    RUN(1, "grow", test_instance(), "--pool=64x1,1000000000x100000");       // all or none
    must_complain("free in shared memory");
    must_complain("df -h /dev/shm");
    RUN(0, "show", test_instance(), "-j");
    CHECK_EQ(test_count_of(tool.out.text, "\"state\":\"live\""), 3);
    RUN(0, "retire", test_instance(), "0");
    must_print("pool 0 gives out nothing more; it goes with the last of its 3 chunks");
    line_must_say("holding", "   0   256      4     3   1  ");     // pool, size, total, held, by whom
    RUN(1, "retire", test_instance(), "0");
    must_complain("zerocp show");
    RUN(1, "retire", test_instance(), "31", "-j");
    must_print("{\"error\":\"ZCP_ERR_NOT_FOUND\",");
    end_holder(h);
    RUN(0, "retire", test_instance(), "2", "--json");
    must_be_json(1);
    must_print("\"pool\":2,\"retiring\":false,\"most_held\":[]}");
    zcp_chunk_release(&large);
    RUN(0, "retire", test_instance(), "1");
    must_print("pool 1 is gone");
    must_print("add one with: zerocp grow");
    RUN(0, "clients", test_instance(), "-j");
    CHECK_EQ(test_count_of(tool.out.text, "\"slot\":"), 1);         // the tool has left
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// Who holds most

TEST(tool_names_who_holds_most) {
    zcp_config config = two_pools();
    zcp_manager *manager = create_named(test_instance(), &config, 0);
    holder *worst = run_holder(start_holder("the worst", 0, 5)), *other = start_holder("another", 1, 2);
    other->token = worst->first_token;
    run_holder(other);
    char pid[32];
    snprintf(pid, sizeof pid, "%d", (int)worst->pid);
    RUN(0, "show", test_instance(), "--json");
    must_print("\"most_held\":[],");                               // one is free
    zcp_chunk chunk = allocate(manager, 4000);
    RUN(0, "show", test_instance());
    must_print("POOL  SIZE  TOTAL  HELD  BY");
    line_must_say("   1  4096      8     5   1  ", "  the worst");
    line_must_say("   1  4096      8     5   1  ", pid);
    RUN(0, "show", test_instance(), "--json");
    must_print("\"most_held\":[{\"pool\":1,\"chunk_size\":4096,\"total\":8,\"chunks\":5,\"client\":1,\"pid\":");
    RUN(0, "check", test_instance());
    line_must_say("note", "all of its 8 chunks are in use; client 1 (\"the worst\", pid ");
    line_must_say("note", " holds most, 5; ");
    RUN(0, "suggest", test_instance());
    line_must_say("   1  4096      8     5   1  ", "  the worst");
    CHECK_ALLOCATE_FAILS(manager, 4000, ZCP_ERR_EXHAUSTED);
    zcp_chunk_release(&chunk);
    RUN(0, "show", test_instance());
    must_not_print("HELD");
    RUN(0, "suggest", test_instance());                            // it was exhausted
    line_must_say("   1  4096      8     5   1  ", "  the worst");
    end_holder(other);
    end_holder(worst);
    RUN(0, "suggest", test_instance(), "--json");
    must_print("\"most_held\":[],");
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Topics

// A client in a process of its own that publishes `count` messages, and then waits until it is told to end or killed.
typedef struct talker {
    _Atomic uint32_t ready, end, said;
    uint32_t count, depth, pause_ms;                               // pause_ms: publishes each so often until `end`
    bool exclusive;
    char text[64];
    pid_t pid;
} talker;

static void say(zcp_publisher *publisher, const char *text) {
    zcp_chunk chunk;
    CHECK_OK(zcp_publisher_loan(publisher, strlen(text), &chunk));
    memcpy(chunk.data, text, strlen(text));
    CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
}

static void talk(void *argument) {
    talker *k = argument;
    zcp_manager *manager;
    zcp_publisher *publisher;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                            .mode = ZCP_SHM_OPEN_EXISTING,
                                                            .client_name = "talker"}));
    CHECK_OK(zcp_publisher_open(
        manager, &(zcp_publisher_desc){.topic = "camera/left", .depth = k->depth, .exclusive = k->exclusive},
        &publisher));
    for (uint32_t i = 0; i < k->count; i++)
        say(publisher, k->text);
    test_signal(&k->ready);
    while (k->pause_ms > 0 && atomic_load(&k->end) == 0) {
        test_sleep(k->pause_ms);
        say(publisher, k->text);
        atomic_fetch_add(&k->said, 1);
    }
    test_await(&k->end, 1);
    zcp_manager_close(manager);
}

static talker *start_talker(uint32_t count, uint32_t depth) {
    talker *k = test_shared(sizeof *k);
    k->count = count;
    k->depth = depth;
    snprintf(k->text, sizeof k->text, "a message");
    return k;
}

static talker *run_talker(talker *k) {
    k->pid = test_spawn(talk, k);
    test_await(&k->ready, 1);
    return k;
}

static void end_talker(talker *k) {
    test_signal(&k->end);
    test_join(k->pid);
}

static zcp_subscriber *listen_to(zcp_manager *manager, const char *topic, bool reliable) {
    zcp_subscriber *subscriber;
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = topic, .reliable = reliable}, &subscriber));
    return subscriber;
}

static void must_hear(zcp_subscriber *subscriber, uint64_t number, const char *text) {
    zcp_message message;
    CHECK_OK(zcp_subscriber_receive(subscriber, UINT32_MAX, &message));
    CHECK_EQ(message.number, number);
    CHECK_EQ(message.size, strlen(text));
    if (text[0] != 0)
        CHECK_EQ(memcmp(message.data, text, strlen(text)), 0);
    zcp_subscriber_done(subscriber);
}

TEST(tool_shows_topics) {
    zcp_manager *manager = create(256, 16);
    RUN(0, "topics", test_instance());
    CHECK_STR(tool.out.text, "nobody publishes or subscribes to any topic\n");
    zcp_subscriber *reliable = listen_to(manager, "camera/left", true), *late;
    talker *k = start_talker(4, 4);
    k->exclusive = true;
    run_talker(k);
    CHECK_OK(zcp_subscriber_open(
        manager, &(zcp_subscriber_desc){.topic = "camera/left", .latest = true, .history = 3}, &late));
    RUN(0, "topics", test_instance(), "--interval=0.01");
    CHECK_EQ(test_count_of(tool.out.text, "\n"), 4);
    line_must_say("publisher", "held up by client 0");
    line_must_say("publisher", "talker  exclusive ");
    line_must_say("publisher", "  4      0       4     0      4     0       4  ");  // messages ... chunks
    line_must_say("reliable", "  0      0       4     0      -     -       -  holds up client 1");
    line_must_say("latest", "  1      0       3     0 ");          // history has passed the first one over
    RUN(0, "topics", test_instance(), "--interval=0.01", "--json");
    must_be_json(1);
    must_print("{\"topic\":\"camera/left\",\"role\":\"publisher\",\"client\":1,\"pid\":");
    must_print("\"name\":\"talker\",\"reliable\":false,\"latest\":false,\"exclusive\":true,\"never_waits\":false,"
               "\"ended\":false,\"messages\":4,\"per_second\":0.000,\"unread\":4,\"lost\":0,\"depth\":4,\"keep\":0,"
               "\"chunks_held\":4,");
    must_print("\"waits_for\":0,\"holds_up\":[]}");
    must_print("\"waits_for\":null,\"holds_up\":[1]}");
    RUN(0, "check", test_instance());
    line_must_say("note", "\"talker\"");
    line_must_say("note", "can publish nothing more on \"camera/left\" before client 0");
    must_hear(reliable, 1, "a message");
    RUN(0, "topics", test_instance(), "--interval=0.01");
    must_not_print("hold");
    must_not_print("held");
    RUN(0, "check", test_instance());
    must_print("0 notes");
    zcp_subscriber_close(late);
    zcp_subscriber_close(reliable);
    end_talker(k);
    finish(manager);
}

TEST(tool_measures_how_often) {
    zcp_manager *manager = create(256, 16);
    RUN(1, "hz", test_instance(), "camera/left");
    must_complain("nobody publishes to \"camera/left\"");
    must_complain("zerocp topics");
    talker *k = start_talker(5, 4);
    k->pause_ms = 5;
    run_talker(k);
    uint32_t said = 0;
    for (bool found = false; !found;) {                            // a slow machine may need another look
        said = atomic_load(&k->said);
        RUN(0, "hz", test_instance(), "camera/left", "--count=1", "--interval=0.1", "--json");
        must_be_json(1);
        must_print("\"topic\":\"camera/left\",\"publishers\":1,\"subscribers\":0,");
        found = json_number_of("\"intervals\":") >= 2;
    }
    double messages = json_number_of("\"messages\":"), seconds = json_number_of("\"seconds\":");
    double least = json_number_of("\"interval_min_ms\":"), most = json_number_of("\"interval_max_ms\":");
    double mean = json_number_of("\"interval_mean_ms\":"), deviation = json_number_of("\"interval_deviation_ms\":");
    CHECK(seconds >= 0.1 && messages >= 3);
    CHECK(messages <= atomic_load(&k->said) - said + 1);           // but not those from before
    double off = json_number_of("\"per_second\":") * seconds - messages;
    CHECK(off > -1 && off < 1);
    CHECK(least > 0 && least <= mean && mean <= most && deviation <= most - least + 0.002);     // they are rounded
    CHECK(mean * json_number_of("\"intervals\":") <= seconds * 1000 + 2);
    RUN(0, "hz", test_instance(), "camera/left", "-n2", "-i", "0.05");
    CHECK_EQ(test_count_of(tool.out.text, "Interval      "), 2);
    BEGIN(&tool, "hz", test_instance(), "camera/left", "-i", "0.02");
    await_count(&tool, "Per second", 2);
    CHECK(kill(tool.pid, SIGINT) == 0);
    must_exit(&tool, 0);
    end_talker(k);
    finish(manager);
}

// Are payloads mapped there, and so that they cannot be overwritten?
static void check_reads_only(pid_t pid) {
    char line[512];
    int found = 0;
    snprintf(line, sizeof line, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(line, "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, "_memory_chunk") != NULL) {
            CHECK_MSG(strstr(line, " r--s ") != NULL, "%s", line);
            found++;
        }
    CHECK(found > 0 && fclose(maps) == 0);
}

TEST(tool_publishes_and_echoes) {
    zcp_manager *manager = create(64, 16);
    static run echo;
    BEGIN(&echo, "echo", test_instance(), "camera/left", "--count=4");
    await_complaint(&echo, "nobody publishes to it yet");
    CHECK(strstr(echo.err.text, "a client that only reads; it is not waited for") != NULL);
    check_reads_only(echo.pid);
    RUN(0, "topics", test_instance(), "-i", "0.01", "--json");
    must_print("\"role\":\"subscriber\",\"client\":1,");
    must_print("\"name\":\"zerocp echo\",\"reliable\":false,");
    RUN_WITH(0, "hello\na line of more than sixteen bytes\n\n\001\377\303\251\"end", "publish", test_instance(),
             "camera/left", "--json");
    must_be_json(1);
    must_print("\"messages\":4,\"events\":1,\"bytes\":46,\"subscribers\":1,\"overtaken\":0,");
    must_exit(&echo, 0);
    tool = echo;
    CHECK_EQ(test_count_of(tool.out.text, "\n"), 9);
    must_print("message 1 of client 2: 5 bytes\n00000000  68 65 6c 6c 6f    ");
    must_print("   |hello|\nmessage 2 of client 2: 33 bytes\n");
    must_print(" 65 20 74  |a line of more t|\n00000010  68 61 6e 20 73 69 78 74  65 65 6e 20 62 79 74 65  |");
    must_print("message 3 of client 2: an event, without bytes\nmessage 4 of client 2: 8 bytes\n");
    must_print("|....\"end|\n");
    finish(manager);
}

TEST(tool_echoes_as_json_and_raw) {
    zcp_manager *manager = create(256, 16);
    zcp_subscriber *reliable = listen_to(manager, "camera/left", true);
    talker *k = start_talker(3, 4);
    snprintf(k->text, sizeof k->text, "a\"\\b\001\377\303\251\342\200\256z");
    run_talker(k);
    RUN(0, "echo", test_instance(), "camera/left", "--history=2", "--count=2", "--json");
    must_be_json(2);
    CHECK(strstr(tool.out.text, "{\"number\":2,\"client\":1,\"source\":\"") == tool.out.text);
    must_print("\"size\":12,\"tag\":0,\"lost\":0,\"event\":false,\"shown\":12,\"hex\":\"61225c6201ffc3a9e280ae7a\","
               "\"text\":\"a\\\"\\\\b\\u0001\\ufffd\303\251\\u202ez\"}\n{\"number\":3,");
    RUN(0, "echo", test_instance(), "camera/left", "--history=2", "--count=2", "--raw");
    CHECK_STR(tool.out.text, "a\"\\b\001\377\303\251\342\200\256za\"\\b\001\377\303\251\342\200\256z");
    RUN(0, "echo", test_instance(), "camera/left", "--history=1", "--count=1", "--bytes=2");
    must_print("  |a\"|\n10 more bytes: --bytes=N shows more, --raw all\n");
    RUN(1, "echo", test_instance(), "a\nb");
    must_complain("topic \"a_b\"");
    BEGIN(&tool, "echo", test_instance(), "elsewhere");
    await_complaint(&tool, "nobody publishes");
    CHECK(kill(tool.pid, SIGINT) == 0);
    must_exit(&tool, 0);
    CHECK_STR(tool.out.text, "");
    BEGIN(&tool, "echo", test_instance(), "elsewhere");
    await_complaint(&tool, "nobody publishes");
    CHECK_OK(zcp_manager_destroy(test_instance()));
    must_exit(&tool, 1);
    zcp_subscriber_close(reliable);
    end_talker(k);
    zcp_manager_close(manager);
}

// Nobody waits for echo, which says what it has lost.
TEST(tool_echo_is_not_waited_for) {
    zcp_manager *manager = create(64, 16);
    static run echo;
    BEGIN(&echo, "echo", test_instance(), "camera/left", "--count=4");
    await_complaint(&echo, "subscribes");
    test_stop(echo.pid);
    RUN_WITH(0, "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "publish", test_instance(), "camera/left", "--depth=4");
    must_print("Messages      9\nBytes         9\nSubscribers   1\nOvertaken     5\nUnread        4\n");
    test_resume(echo.pid);
    must_exit(&echo, 0);
    tool = echo;
    must_print("message 6 of client 2: 1 bytes\n5 messages were lost before it\n00000000  36 ");
    must_print("message 9 of client 2: 1 bytes\n00000000  39 ");
    finish(manager);
}

TEST(tool_publishes) {
    zcp_manager *manager = create(64, 4);
    zcp_subscriber *subscriber = listen_to(manager, "camera/left", false);
    char text[200];
    RUN_WITH(0, "abcd\nfghij", "publish", test_instance(), "camera/left", "--bytes=4");
    must_hear(subscriber, 1, "abcd");
    must_hear(subscriber, 2, "\nfgh");
    must_hear(subscriber, 3, "ij");
    snprintf(text, sizeof text, "short\n%064d\n%065d\n", 1, 2);
    RUN_WITH(1, text, "publish", test_instance(), "camera/left");
    must_complain("message 3 has more than 64 bytes");
    must_complain("zerocp grow");
    must_hear(subscriber, 1, "short");
    snprintf(text, sizeof text, "%064d", 1);
    must_hear(subscriber, 2, text);
    RUN_WITH(1, "", "publish", test_instance(), "camera/left", "--bytes=65", "--json");
    must_print("{\"error\":\"ZCP_ERR_TOO_LARGE\",");
    RUN_WITH(0, "", "publish", test_instance(), "camera/left");
    must_print("Messages      0\n");
    RUN_WITH(1, "", "publish", test_instance(), "");
    must_complain("1 to 63 bytes");
    RUN_WITH(1, "", "publish", test_instance(), "camera/left", "--depth=65");
    must_complain("65");
    const char *const arguments[] = {"zerocp", "publish", test_instance(), "camera/left", NULL};
    begin_with(&tool, open("/dev/null", O_WRONLY | O_CLOEXEC), arguments);
    must_exit(&tool, 1);
    must_complain("stdin: Bad file descriptor");
    zcp_subscriber_close(subscriber);
    finish(manager);
}

// It waits for reliable subscribers and for chunks, and says for whom.
TEST(tool_publishes_as_fast_as_others_let_it) {
    zcp_manager *manager = create(64, 4);
    zcp_subscriber *reliable = listen_to(manager, "camera/left", true);
    const char *const arguments[] = {"zerocp", "publish", test_instance(), "camera/left", "--depth=2", NULL};
    char text[100];
    begin_with(&tool, input_of("1\n2\n\n4\n", 7), arguments);
    await_complaint(&tool, "who holds up whom");
    snprintf(text, sizeof text, "pid %d", (int)getpid());
    must_complain(text);
    must_hear(reliable, 1, "1");
    must_hear(reliable, 2, "2");
    must_hear(reliable, 3, "");
    must_hear(reliable, 4, "4");
    must_exit(&tool, 0);
    must_print("Messages      4\n");
    zcp_chunk chunks[4];
    for (int i = 0; i < 4; i++)
        chunks[i] = allocate(manager, 64);
    begin_with(&tool, input_of("5\n", 2), arguments);
    await_complaint(&tool, "it goes on when one is free");
    must_complain("waits for a chunk: ");
    must_complain(" holds most of pool 0, 4 of 4");
    for (int i = 0; i < 4; i++)
        zcp_chunk_release(&chunks[i]);
    must_exit(&tool, 0);
    must_hear(reliable, 1, "5");
    begin_with(&tool, input_of("1\n2\n3\n", 6), arguments);
    await_complaint(&tool, "who holds up whom");
    CHECK(kill(tool.pid, SIGTERM) == 0);
    must_exit(&tool, 0);
    must_print("Messages      2\n");
    must_hear(reliable, 1, "1");
    must_hear(reliable, 2, "2");
    zcp_subscriber_close(reliable);
    finish(manager);
}

// Whose messages are unread has not to be cared for: it is told who has to read them.
TEST(tool_knows_who_drains) {
    zcp_manager *manager = create(256, 16);
    zcp_subscriber *subscriber = listen_to(manager, "camera/left", false);
    talker *k = run_talker(start_talker(3, 4));
    test_kill(k->pid);
    RUN(1, "check", test_instance());
    line_must_say("warning", "\"talker\"");
    RUN(0, "recover", test_instance());
    must_print("swept 1 of 1 dead client: 0 chunks came back");
    RUN(0, "check", test_instance());
    must_print("healthy: 0 errors, 0 warnings, 1 note\n");
    line_must_say("note", "has ended; 3 of its messages on \"camera/left\" are unread: client 0 (\"");
    RUN(0, "show", test_instance());
    must_print("Clients       1 of 64\nDraining      1\n");
    line_must_say("   1  draining", "talker");
    must_print("DRAINS ");
    line_must_say("  camera/left  ", "talker  camera/left       3  0");
    RUN(0, "show", test_instance(), "--json");
    must_be_json(1);
    must_print("\"clients_dead\":0,\"clients_draining\":1,");
    must_print("\"name\":\"talker\",\"topic\":\"camera/left\",\"unread\":3,\"readers\":[0]}]");
    RUN(0, "leaks", test_instance());
    line_must_say("unread", "talker");
    must_print("0 of 3 held chunks look leaked");
    RUN(0, "topics", test_instance(), "-i", "0.01");
    line_must_say("talker  ended ", "  3      0       3 ");
    RUN(0, "recover", test_instance());
    must_print("nothing to recover");
    RUN(0, "clients", test_instance());
    line_must_say("talker", "draining");
    RUN(0, "list", "--json");
    must_print("\"clients_alive\":1,\"clients_dead\":0,");
    for (uint64_t n = 1; n <= 3; n++)
        must_hear(subscriber, n, "a message");
    zcp_message message;
    CHECK_STATUS(zcp_subscriber_receive(subscriber, 0, &message), ZCP_ERR_EMPTY);
    RUN(0, "check", test_instance());
    must_print("0 notes");
    RUN(0, "show", test_instance());
    must_not_print("talker");
    must_not_print("Draining");
    zcp_subscriber_close(subscriber);
    finish(manager);
}

TEST(tool_checks_topics) {
    zcp_manager *manager = create(256, 16);
    zcp_subscriber *subscriber = listen_to(manager, "topic to be found", false);
    off_t entry = offset_of("topic to be found", 17) - 64;         // of a subscriber: state first, the topic at 64
    uint64_t state;
    int fd = management_file(test_instance());
    CHECK(pread(fd, &state, sizeof state, entry) == sizeof state);
    close(fd);
    must_find_with(entry, state + 500, 8, "error", "a subscriber of ");
    zcp_subscriber_close(subscriber);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// dump

// It takes no slot, and the chunk is not held.
TEST(tool_dumps) {
    zcp_config config = one_pool(256, 4);
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(
        &manager, &(zcp_manager_desc){
                      .name = test_instance(), .mode = ZCP_SHM_CREATE_EXCLUSIVE, .config = &config, .max_clients = 1}));
    CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 4096, .chunk_count = 2}, NULL));
    zcp_chunk first = allocate(manager, 200), small, large;
    CHECK_OK(zcp_chunk_allocate_tagged(manager, 20, 9, &small));
    CHECK_OK(zcp_chunk_allocate(manager, 300, &large));
    memcpy(small.data, "twenty bytes of text and more", 29);
    memset(large.data, 'L', 300);
    char token[32], place[32];
    snprintf(token, sizeof token, "%016llx", (unsigned long long)token_of(&small));
    RUN(0, "dump", test_instance(), token);
    must_print("Owner         0\nSize          20\nOf            256\nTag           9\n00000000  74 77 65 6e 74 79 ");
    must_print("|twenty bytes of |\n00000010  74 65 78 74 ");
    must_print("|text|\n");
    snprintf(place, sizeof place, "0:%u", inside_index_in_pool(&small));
    RUN(0, "dump", test_instance(), place, "--json", "--bytes=3");
    must_be_json(1);
    must_print("\"owner\":0,\"size\":20,\"capacity\":256,\"tag\":9,\"changed\":false,\"shown\":3,\"hex\":\"747765\","
               "\"text\":\"twe\"}");
    RUN(0, "dump", test_instance(), token, "--raw");
    CHECK_STR(tool.out.text, "twenty bytes of text");
    snprintf(place, sizeof place, "0x%llx", (unsigned long long)token_of(&large));      // in a pool that was added
    RUN(0, "dump", test_instance(), place);
    CHECK_EQ(test_count_of(tool.out.text, "|LLLLLLLLLLLLLLLL|\n"), 16);
    must_print("44 more bytes: --bytes=N shows more, --raw all\n");
    RUN(0, "dump", test_instance(), place, "--raw");
    CHECK_EQ(tool.out.length, 300);
    zcp_chunk_release(&small);
    RUN(1, "dump", test_instance(), token);
    must_complain("nobody holds the chunk");
    must_complain("zerocp census");
    small = allocate(manager, 20);
    zcp_chunk_release(&large);
    RUN(1, "dump", test_instance(), token, "--json");              // another use of it is none of that token
    must_print("{\"error\":\"ZCP_ERR_STALE\",");
    RUN(1, "dump", test_instance(), "0:4");
    must_complain("0:4 names no chunk of");
    RUN(1, "dump", test_instance(), "7:0");
    must_complain("7:0 names no chunk of");
    zcp_chunk_release(&small);
    zcp_chunk_release(&first);
    finish(manager);
}

// Of 160 KiB it can have read no more than two blocks when the pipe is full.
TEST(tool_dump_says_that_the_chunk_has_changed) {
    zcp_manager *manager = create(160 << 10, 1);
    zcp_chunk chunk = allocate(manager, 160 << 10);
    char token[32];
    int waiting = 0;
    snprintf(token, sizeof token, "%016llx", (unsigned long long)token_of(&chunk));
    memset(chunk.data, 'o', 160 << 10);
    RUN(0, "dump", test_instance(), token, "--raw");
    CHECK_EQ(tool.out.length, 160 << 10);
    BEGIN(&tool, "dump", test_instance(), token, "--raw");
    while (waiting == 0) {
        CHECK(ioctl(tool.out.fd, FIONREAD, &waiting) == 0);
        test_sleep(1);
    }
    zcp_chunk_release(&chunk);
    chunk = allocate(manager, 160 << 10);
    must_exit(&tool, 1);
    must_complain("was released while it was read");
    CHECK_EQ(tool.out.length, 160 << 10);
    zcp_chunk_release(&chunk);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// The command line

TEST(tool_refuses_bad_command_lines) {
    static const struct { const char *arguments[6], *complaint; } bad[] = {
        {{NULL}, "a command is missing"},
        {{"frobnicate"}, "frobnicate: there is no such command"},
        {{"list", "one"}, "one: one argument too many"},
        {{"show"}, "the name of an instance is missing"},
        {{"show", "one", "two"}, "two: one argument too many"},
        {{"show", "one", "--older=3"}, "show does not take --older"},
        {{"list", "--force"}, "list does not take --force"},
        {{"show", "one", "--frob"}, "--frob: there is no such option"},
        {{"show", "one", "-x"}, "-x: there is no such option"},
        {{"show", "one", "--json=yes"}, "--json=yes"},
        {{"watch", "one", "--interval"}, "--interval: its argument is missing"},
        {{"watch", "one", "--interval=0"}, "seconds from 0.001"},
        {{"watch", "one", "--interval=nan"}, "seconds from 0.001"},
        {{"watch", "one", "-i", "1s"}, "seconds from 0.001"},
        {{"watch", "one", "-n", "0"}, "a number from 1 on"},
        {{"watch", "one", "-n", "-1"}, "a number from 1 on"},
        {{"watch", "one", "-n", ""}, "a number from 1 on"},
        {{"census", "one", "--pool=32"}, "a pool number"},
        {{"census", "one", "--client=1024"}, "slot number"},
        {{"census", "one", "--tag=4294967296"}, "32 bits"},
        {{"census", "one", "--tag=0xg"}, "32 bits"},
        {{"leaks", "one", "--older=99999999999999999999"}, "32 bits"},
        {{"list", "--color=pink"}, "auto, always or never"},
        {{"record", "one", "--csv", "--json"}, "do not go together"},
        {{"hz", "one"}, "hz: a topic is missing behind the instance; zerocp topics shows them"},
        {{"echo", "one", "two", "three"}, "three: one argument too many"},
        {{"echo", "one", "two", "--raw", "--json"}, "do not go together"},
        {{"echo", "one", "two", "--depth=3"}, "echo does not take --depth"},
        {{"echo", "one", "two", "--history=-1"}, "32 bits"},
        {{"publish", "one", "two", "--bytes=0"}, "a number from 1 on"},
        {{"publish", "one", "two", "--depth=65537"}, "from 1 to 65536"},
        {{"dump", "one"}, "zerocp census shows them"},
        {{"dump", "one", "deadbeef"}, "expected is a chunk's token"},
        {{"dump", "one", "12345678000000010000"}, "expected is a chunk's token"},
        {{"dump", "one", "0:x"}, "expected is a chunk's token"},
        {{"dump", "one", "32:0"}, "expected is a chunk's token"},
        {{"retire", "one"}, "a pool's number is missing"},
        {{"retire", "one", "32"}, "expected is a pool's number; zerocp show shows them"},
        {{"create", "one"}, "no pool is given; say which with --pool=SIZExCOUNT"},
        {{"create", "one", "--pool=256"}, "--pool=256: expected is SIZExCOUNT"},
        {{"create", "one", "--pool=256x4,"}, "expected is SIZExCOUNT"},
        {{"create", "one", "--pool=256x4 "}, "expected is SIZExCOUNT"},
        {{"create", "one", "--pool=-1x4"}, "expected is SIZExCOUNT"},
        {{"create", "one", "--pool=18446744073709551616x4"}, "expected is SIZExCOUNT"},
        {{"create", "one", "--pool=256x4294967296"}, "expected is SIZExCOUNT"},
        {{"create", "one", "--pool=256x4:frob=1"}, "expected is SIZExCOUNT"},
        {{"create", "one", "--pool=256x4:align="}, "expected is SIZExCOUNT"},
        {{"create", "one", "--pool=256x0"}, "--pool=256x0: "},
        {{"create", "one", "--pool=256x4:align=3"}, "alignment 3"},
        {{"create", "one", "--pool=256x4:cache=65"}, "--pool=256x4:cache=65: "},
        {{"create", "one", "--pool=1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1,1x1"},
         "there are 16 pools already"},
        {{"create", "one", "--pool=1x1", "--max-clients=0"}, "from 1 to 1024"},
        {{"grow", "one", "--pool=1x1", "--publishers=3"}, "grow does not take --publishers"},
        {{"show", "\033[31m", "x"}, "one argument too many"},
        {{"\033[31mred"}, "\\x1b[31mred: there is no such command"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *arguments[8] = {"zerocp"};
        memcpy(arguments + 1, bad[i].arguments, sizeof bad[i].arguments);
        begin(&tool, arguments);
        must_exit(&tool, 2);
        CHECK_STR(tool.out.text, "");
        must_complain(bad[i].complaint);
        must_complain("--help");
        CHECK(strchr(tool.err.text, '\033') == NULL);
    }
}

TEST(tool_helps) {
    static const char *const commands[] = {"list",    "show",   "watch", "clients", "census", "leaks",
                                           "check",   "recover", "remove", "suggest", "record", "topics",
                                           "hz",      "echo",   "publish", "dump",  "create", "grow", "retire"};
    RUN(0, "--help");
    must_print("Exit status: 0 all is well; 1 something was found, or it failed; 2 the command line is wrong.");
    static run whole;
    whole = tool;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char usage[64];
        CHECK_MSG(strstr(whole.out.text, commands[i]) != NULL, "%s", commands[i]);
        RUN(0, commands[i], "--help");
        snprintf(usage, sizeof usage, "Usage: zerocp %s", commands[i]);
        must_print(usage);
        must_print("Exit status");
        RUN(0, "help", commands[i]);
        must_print(usage);
    }
    RUN(0, "--version");
    CHECK_MSG(strncmp(tool.out.text, "zerocp 1.", 9) == 0 && strstr(tool.out.text, "layout version ") != NULL, "%s",
              tool.out.text);
    CHECK_STR(tool.err.text, "");
}

// Options may stand anywhere, and -- ends them.
TEST(tool_takes_options_anywhere) {
    zcp_manager *manager = create(256, 4);
    RUN(0, "--json", "show", test_instance());
    must_be_json(1);
    RUN(0, "show", "-j", "--", test_instance());
    must_be_json(1);
    RUN(1, "show", "--", "--json");
    must_complain("--json");
    char slashed[300];
    snprintf(slashed, sizeof slashed, "/%s", test_instance());     // which is ignored, as by zcp_manager_open
    RUN(0, "show", slashed);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Names that are not what they should be

TEST(tool_prints_odd_names_safely) {
    static const char scribbled[32] = "\033[2J\x9b\"\\\n\xff\xe2\x80\xae\xc2\x9b" "1m,x";
    zcp_manager *manager;
    zcp_config config = one_pool(256, 4);
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(),
                                                            .mode = ZCP_SHM_CREATE_EXCLUSIVE,
                                                            .config = &config,
                                                            .client_name = "a name to be found"}));
    // what no client may be called, as a scribbler would write it
    int fd = management_file(test_instance());
    static char bytes[64 << 10];
    ssize_t count = pread(fd, bytes, sizeof bytes, 0);
    char *at = memmem(bytes, (size_t)count, "a name to be found", 18);
    CHECK(at != NULL);
    CHECK(pwrite(fd, scribbled, sizeof scribbled, at - bytes) == sizeof scribbled);
    close(fd);
    zcp_chunk chunk = allocate(manager, 100);
    for (int n = 0; n < LOOKING; n++) {
        start_looking(&tool, n, "--json");
        must_exit(&tool, 0);
        must_be_json(n < LOOKING - 2 ? 1 : 2);
        start_looking(&tool, n, "--color=never");
        must_exit(&tool, 0);
        for (size_t i = 0; i < tool.out.length; i++)
            CHECK_MSG(((unsigned char)tool.out.text[i] >= 0x20 && (unsigned char)tool.out.text[i] < 0x7f)
                          || tool.out.text[i] == '\n',
                      "byte %02x in:\n%s", (unsigned char)tool.out.text[i], tool.out.text);
    }
    RUN(0, "clients", test_instance());
    // The library has cleaned it; the tool leaves no change of direction either.
    must_print("_[2J?\"\\_?\\u202e__1m,x");
    RUN(0, "clients", test_instance(), "--json");
    must_print("\"name\":\"_[2J?\\\"\\\\_?\\u202e__1m,x\"");
    zcp_chunk_release(&chunk);
    finish(manager);
}

TEST(tool_lists_odd_names_safely) {
    char name[256];
    snprintf(name, sizeof name, "%s\033[31m\"\xfe", test_instance());
    int fd = open(shm_path(name, "_memory_management"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    snprintf(name, sizeof name, "%s\\x1b[31m\"\\xfe", test_instance());
    RUN(0, "list");
    line_must_say(name, "foreign");
    must_not_print("\033");
    RUN(0, "list", "--json");
    must_be_json(1);
    snprintf(name, sizeof name, "%s\033[31m\"\xfe", test_instance());
    CHECK(unlink(shm_path(name, "_memory_management")) == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Where its output goes

static void must_end_silently_once_nobody_reads(const char *command) {
    BEGIN(&tool, command, test_instance(), "-i", "0.01");
    await_count(&tool, test_instance()[0] ? "0" : "", 1);
    close(tool.out.fd);
    tool.out.fd = -1;
    must_exit(&tool, 0);
    CHECK_STR(tool.err.text, "");
}

TEST(tool_ends_when_nobody_reads_it) {
    zcp_manager *manager = create(256, 4);
    must_end_silently_once_nobody_reads("watch");
    must_end_silently_once_nobody_reads("record");
    for (int n = 0; n < LOOKING; n++) {
        const char *arguments[] = {"zerocp", looking[n][0], looking[n][1] != NULL ? test_instance() : NULL, NULL};
        int out[2];
        CHECK(pipe2(out, O_CLOEXEC) == 0);
        close(out[0]);
        pid_t pid = start_to(arguments, -1, out[1], -1);
        close(out[1]);
        CHECK_EQ(code_of(test_wait(pid)), 0);
    }
    finish(manager);
}

// A closed stdout must not become the number of a segment's file, and what cannot be written is a failure.
TEST(tool_says_when_it_cannot_write) {
    zcp_manager *manager = create(256, 4);
    for (int n = 0; n < LOOKING + 1; n++) {
        const char *command = n < LOOKING ? looking[n][0] : "recover";
        const char *arguments[] = {"zerocp", command, n == 0 ? NULL : test_instance(), NULL};
        for (int full = 0; full < 2; full++) {
            if (n == LOOKING)
                test_kill(run_holder(start_holder("dead", 1, 1 - 1))->pid);
            int err[2], fd = full ? open("/dev/full", O_WRONLY | O_CLOEXEC) : -1;
            CHECK(pipe2(err, O_CLOEXEC) == 0 && (!full || fd >= 0));
            memset(&tool, 0, sizeof tool);
            tool.pid = start_to(arguments, -1, fd, err[1]);
            tool.out.fd = -1;
            tool.err.fd = err[0];
            close(err[1]);
            must_exit(&tool, 1);
            must_complain(full ? "stdout: No space left on device" : "stdout: Bad file descriptor");
            if (full)
                close(fd);
        }
    }
    RUN(0, "check", test_instance());
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

TEST(tool_opens_no_segment_as_a_standard_stream) {
    zcp_manager *manager = create(256, 4);
    const char *const arguments[] = {"zerocp", "watch", test_instance(), NULL};
    int out[2];
    char link[64], target[256];
    CHECK(pipe2(out, O_CLOEXEC) == 0);
    memset(&tool, 0, sizeof tool);
    tool.pid = start_to(arguments, -1, out[1], -1);
    tool.out.fd = out[0];
    tool.err.fd = -1;
    close(out[1]);
    await_count(&tool, "Instance", 1);
    for (int fd = 0; fd <= 2; fd += 2) {
        snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)tool.pid, fd);
        ssize_t length = readlink(link, target, sizeof target - 1);
        CHECK(length > 0);
        target[length] = 0;
        CHECK_STR(target, "/dev/null");
    }
    CHECK(kill(tool.pid, SIGINT) == 0);
    must_exit(&tool, 0);
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Terminals

// Starts it on a terminal of its own, of that many lines.
static void start_on_terminal(const char *const *arguments, unsigned short lines) {
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int side = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(side >= 0 && ioctl(side, TIOCSWINSZ, &(struct winsize){.ws_row = lines, .ws_col = 120}) == 0);
    memset(&tool, 0, sizeof tool);
    tool.pid = start_to(arguments, side, side, side);
    close(side);
    tool.out.fd = terminal;
    tool.err.fd = -1;
}

TEST(tool_paints_only_for_people) {
    zcp_manager *manager = create(256, 4);
    const char *const plain[] = {"zerocp", "show", test_instance(), NULL};
    const char *const never[] = {"zerocp", "show", test_instance(), "--color=never", NULL};
    const char *const as_json[] = {"zerocp", "show", test_instance(), "--json", NULL};
    CHECK(setenv("TERM", "xterm", 1) == 0 && unsetenv("NO_COLOR") == 0);
    RUN(0, "show", test_instance());
    must_not_print("\033");
    RUN(0, "show", test_instance(), "--color=always");
    must_print("\033[32malive\033[0m");
    RUN(0, "show", test_instance(), "--color=always", "--json");
    must_not_print("\033");
    start_on_terminal(plain, 50);
    must_exit(&tool, 0);
    must_print("\033[32malive\033[0m");
    start_on_terminal(never, 50);
    must_exit(&tool, 0);
    must_not_print("\033");
    start_on_terminal(as_json, 50);
    must_exit(&tool, 0);
    must_not_print("\033");
    CHECK(setenv("NO_COLOR", "1", 1) == 0);
    start_on_terminal(plain, 50);
    must_exit(&tool, 0);
    must_not_print("\033");
    CHECK(unsetenv("NO_COLOR") == 0 && setenv("TERM", "dumb", 1) == 0);
    start_on_terminal(plain, 50);
    must_exit(&tool, 0);
    must_not_print("\033");
    finish(manager);
}

TEST(tool_watches_on_a_terminal) {
    zcp_manager *manager = create(256, 4);
    const char *const arguments[] = {"zerocp", "watch", test_instance(), "-i", "0.02", NULL};
    start_on_terminal(arguments, 5);
    await_count(&tool, "\033[?25h", 4);
    CHECK(kill(tool.pid, SIGINT) == 0);
    must_exit(&tool, 0);
    CHECK_EQ(test_count_of(tool.out.text, "\033[2J"), 1);               // cleared once, then overwritten
    // each frame leaves the cursor as it was
    CHECK_EQ(test_count_of(tool.out.text, "\033[?25l"), test_count_of(tool.out.text, "\033[?25h"));
    CHECK_EQ(test_count_of(tool.out.text, "\033[?7l"), test_count_of(tool.out.text, "\033[?7h"));
    // no more lines than fit
    CHECK_EQ(test_count_of(tool.out.text, "\n"), 4 * test_count_of(tool.out.text, "\033[?25h"));
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// The show

TEST(tool_crash_show) {
    static program show;
    START(&show, "crash", "--name", test_instance());
    must_end(&show, 0);
    must_say(&show, "\nswept 2 of 2 dead clients: 7 chunks came back\n");
    must_say(&show, "\nThe show went as it should");
    must_be_gone(test_instance());
}
