// tests/machines/peer.c: one program, compiled for every machine, libc, compiler and language that tests/machines/check
// finds. Two builds of it run in one instance at the same time. C11 as well as C++11; as C++ it is linked with an
// implementation that was compiled as C.
//   peer lead NAME create|attach ROUNDS forks|no-forks OTHER...   runs the whole exchange with `OTHER... follow NAME`;
//                                                                 create: this one creates
//   peer refuse NAME OTHER...                                     creates NAME; `OTHER... refused NAME` must not come
//                                                                 in
//   peer signature NAME                                           prints the layout signature of an instance that it
//                                                                 creates
#ifndef __cplusplus
#define ZEROCP_IMPLEMENTATION
#endif
#include "zerocp.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GROWN = 5000, GROWN_COUNT = 3, SMALL = 64, SMALL_COUNT = 8, LARGE = 3000, LARGE_COUNT = 16,
       CHUNKS = SMALL_COUNT + LARGE_COUNT, OWNED = 5, BORROWED = 3, SECONDS = 100 };

static const char *self = "";                                      // for messages: who speaks
static pid_t follower, stayed;                                     // to be ended with the leader

#define CHECK(condition) do { if (!(condition)) fail(__LINE__, #condition); } while (0)
#define CHECK_STATUS(call, expected)                                                                                   \
    do {                                                                                                               \
        zcp_status got = (call);                                                                                       \
        if (got != (expected))                                                                                         \
            fprintf(stderr, "%s: %s, not %s: %s\n", self, zcp_status_name(got), #expected, zcp_last_message());        \
        if (got != (expected))                                                                                         \
            fail(__LINE__, #call);                                                                                     \
    } while (0)
#define CHECK_OK(call) CHECK_STATUS(call, ZCP_OK)

static void fail(int line, const char *what) {
    fprintf(stderr, "%s (%u-bit): peer.c:%d: %s\n", self, (unsigned)sizeof(void *) * 8, line, what);
    if (follower) kill(follower, SIGKILL);
    if (stayed) kill(stayed, SIGKILL);
    exit(1);
}

// ---------------------------------------------------------------------------------------------------------------------
// What two machines exchange: fixed-width words on a socket; the payload lies in the chunk only.

enum { READY = 1, PASS, GIVE, LET_GO, STORM, ADD, MEET, RETIRE, RELEASE, GONE, EXHAUST, WAIT, HOLD, KEEP, FORK_REFUSED,
       FORK_AND_STAY, QUIT };
typedef struct message { uint64_t what, token, seed; } message;

static void send_message(int fd, uint64_t what, uint64_t token, uint64_t seed) {
    message m = { what, token, seed };
    CHECK(write(fd, &m, sizeof m) == (ssize_t)sizeof m);
}

static message receive(int fd, uint64_t expected) {                // 0: whatever comes
    message m = { 0, 0, 0 };
    ssize_t n = recv(fd, &m, sizeof m, MSG_WAITALL);
    if (n == 0) fprintf(stderr, "%s: the other one has gone\n", self);
    CHECK(n == (ssize_t)sizeof m);
    CHECK(expected == 0 || m.what == expected);
    return m;
}

static unsigned char pattern(uint64_t seed, uint64_t i) { return (unsigned char)((seed * 0x9e3779b9u >> 7) + i * 7); }
static void write_pattern(const zcp_chunk *chunk, uint64_t seed) {
    unsigned char *bytes = (unsigned char *)zcp_chunk_data(chunk);
    CHECK(bytes != NULL);
    for (uint64_t i = 0; i < zcp_chunk_size(chunk); i++) bytes[i] = pattern(seed, i);
}

static void check_pattern(const zcp_chunk *chunk, uint64_t seed) {
    const unsigned char *bytes = (const unsigned char *)zcp_chunk_data(chunk);
    CHECK(bytes != NULL);
    for (uint64_t i = 0; i < zcp_chunk_size(chunk); i++) CHECK(bytes[i] == pattern(seed, i));
}

static uint64_t size_for(uint64_t seed) {
    return seed % 3 == 0 ? 1 + seed % SMALL : SMALL + 1 + seed * 31 % (LARGE - SMALL);
}

static zcp_chunk filled(zcp_manager *manager, uint64_t seed) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate(manager, size_for(seed), &chunk));
    write_pattern(&chunk, seed);
    return chunk;
}

static zcp_chunk received(zcp_manager *manager, uint64_t token, uint64_t seed) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_acquire(manager, token, &chunk));
    CHECK(zcp_chunk_size(&chunk) == size_for(seed));
    return chunk;
}

// Odd seeds are answered within the chunk; of even ones the two let go at the same moment.
static bool answered(uint64_t seed) { return seed & 1; }

// Allocates, writes, reads again and releases, beside another one that does the same; each round gets a chunk in the
// end. Returns how many it had.
static uint64_t storm(zcp_manager *manager, uint64_t rounds, uint64_t seed) {
    uint64_t had = 0;
    for (uint64_t i = 0; i < rounds;) {
        zcp_chunk chunks[SMALL_COUNT];
        uint32_t n = 0;
        zcp_status status = ZCP_OK;
        while (n < 1 + i % SMALL_COUNT && (status = zcp_chunk_allocate(manager, SMALL, &chunks[n])) == ZCP_OK)
            write_pattern(&chunks[n++], seed + i);
        CHECK(status == ZCP_OK || status == ZCP_ERR_EXHAUSTED);
        had += n;
        if (n > 0) i++;
        // the other one was interrupted with all of them in its hands
        else usleep(200);
        while (n > 0) {
            check_pattern(&chunks[--n], seed + i - 1);
            CHECK(zcp_chunk_use_count(&chunks[n]) == 1);
            zcp_chunk_release(&chunks[n]);
        }
    }
    return had;
}

static zcp_status open_instance(zcp_manager **manager, const char *name, zcp_shm_mode mode) {
    zcp_config config;
    zcp_manager_desc desc;
    memset(&config, 0, sizeof config);
    memset(&desc, 0, sizeof desc);
    CHECK_OK(zcp_config_add_pool(&config, SMALL, SMALL_COUNT));
    CHECK_OK(zcp_config_add_pool(&config, LARGE, LARGE_COUNT));
    desc.name = name;
    desc.mode = mode;
    desc.config = &config;                                         // equal on every machine, or the attacher is refused
    desc.max_clients = 70;                                         // two borrow words
    desc.client_name = self;
    return zcp_manager_open(manager, &desc);
}

static uint64_t used(zcp_manager *manager) {
    uint64_t sum = 0;
    for (uint32_t p = 0; p < zcp_manager_pool_end(manager); p++) {
        zcp_pool_stats stats;
        CHECK_OK(zcp_manager_pool_stats(manager, p, &stats));
        CHECK(stats.used + stats.free == stats.total);
        sum += stats.used;
    }
    return sum;
}

// Each chunk can be had exactly once, and not one more.
static void check_books(zcp_manager *manager) {
    zcp_chunk chunks[CHUNKS + 1];
    CHECK(used(manager) == 0);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        CHECK_OK(zcp_chunk_allocate(manager, i < SMALL_COUNT ? SMALL : LARGE, &chunks[i]));
        for (uint32_t j = 0; j < i; j++) CHECK(chunks[j].index != chunks[i].index);
    }
    CHECK_STATUS(zcp_chunk_allocate(manager, SMALL, &chunks[CHUNKS]), ZCP_ERR_EXHAUSTED);
    CHECK_STATUS(zcp_chunk_allocate(manager, LARGE, &chunks[CHUNKS]), ZCP_ERR_EXHAUSTED);
    for (uint32_t i = 0; i < CHUNKS; i++) zcp_chunk_release(&chunks[i]);
    CHECK(used(manager) == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Pools that one of them adds and retires, and that the other one meets by a token.

static zcp_chunk grown(zcp_manager *manager, uint64_t seed) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_allocate_tagged(manager, GROWN, 77, &chunk));
    CHECK(zcp_chunk_capacity(&chunk) == GROWN);
    write_pattern(&chunk, seed);
    return chunk;
}

static zcp_chunk met(zcp_manager *manager, uint64_t token, uint64_t seed) {
    zcp_chunk chunk;
    CHECK_OK(zcp_chunk_acquire(manager, token, &chunk));
    CHECK(zcp_chunk_size(&chunk) == GROWN && zcp_chunk_tag(&chunk) == 77);
    check_pattern(&chunk, seed);
    return chunk;
}

static uint32_t add_grown(zcp_manager *manager) {
    uint32_t number = 0;
    zcp_pool_config pool;
    memset(&pool, 0, sizeof pool);
    pool.chunk_size = GROWN;
    pool.chunk_count = GROWN_COUNT;
    CHECK_OK(zcp_manager_add_pool(manager, &pool, &number));
    return number;
}

static zcp_pool_stats stats_of(zcp_manager *manager, uint32_t number) {
    zcp_pool_stats stats;
    CHECK(number < zcp_manager_pool_end(manager));
    CHECK_OK(zcp_manager_pool_stats(manager, number, &stats));
    return stats;
}

// It has been retired, and its last chunk was released.
static void check_gone(zcp_manager *manager, uint32_t number) {
    zcp_chunk none;
    CHECK_STATUS(zcp_chunk_allocate(manager, GROWN, &none), ZCP_ERR_TOO_LARGE);
    CHECK(stats_of(manager, number).state == ZCP_POOL_NONE);
}

// Everything of SMALL; the rest sleeps.
static uint32_t exhaust(zcp_manager *manager, zcp_chunk *chunks) {
    uint32_t n = 0;
    while (n < SMALL_COUNT && zcp_chunk_allocate(manager, SMALL, &chunks[n]) == ZCP_OK) n++;
    CHECK(n == SMALL_COUNT);
    return n;
}

// Waits for what the other one releases a little later. Returns how long, in milliseconds.
static uint64_t wait_for_one(zcp_manager *manager) {
    zcp_chunk chunk;
    struct timespec t, now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    CHECK_OK(zcp_chunk_allocate_wait(manager, SMALL, 20000, &chunk));
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    write_pattern(&chunk, 5);
    zcp_chunk_release(&chunk);
    return (uint64_t)((int64_t)(now.tv_sec - t.tv_sec) * 1000 + (now.tv_nsec - t.tv_nsec) / 1000000);
}

// ---------------------------------------------------------------------------------------------------------------------
// The follower does what it is told.

static int follow(const char *name, zcp_shm_mode mode) {
    const int link = 0;
    zcp_manager *manager;
    zcp_chunk chunk;
    message m;
    uint64_t number = 0;
    pid_t child;
    int status = 0;
    uint32_t pool = 0, n = 0;
    zcp_chunk kept, others[SMALL_COUNT];
    CHECK_OK(open_instance(&manager, name, mode));
    send_message(link, READY, 0, sizeof(void *));
    for (;;) {
        m = receive(link, 0);
        switch (m.what) {
        case PASS:
            chunk = received(manager, m.token, m.seed);
            if (answered(m.seed)) {
                check_pattern(&chunk, m.seed);
                CHECK(zcp_chunk_use_count(&chunk) == 2);
                write_pattern(&chunk, m.seed + 1);
                send_message(link, PASS, 0, 0);
            } else {
                send_message(link, PASS, 0, 0);
                check_pattern(&chunk, m.seed);
            }
            zcp_chunk_release(&chunk);
            CHECK(!zcp_chunk_is_valid(&chunk));
            break;
        case GIVE:
            chunk = filled(manager, m.seed);
            send_message(link, GIVE, zcp_chunk_token(&chunk), m.seed);
            receive(link, LET_GO);
            if (answered(m.seed)) check_pattern(&chunk, m.seed + 1);
            zcp_chunk_release(&chunk);
            break;
        case STORM:
            send_message(link, STORM, 0, storm(manager, m.seed, 1000000));
            break;
        case ADD:                                                  // and send one of its chunks
            pool = add_grown(manager);
            kept = grown(manager, m.seed);
            send_message(link, ADD, zcp_chunk_token(&kept), pool);
            break;
        case MEET:                                                 // a pool that the other one has added
            chunk = met(manager, m.token, m.seed);
            kept = grown(manager, m.seed + 1);
            zcp_chunk_release(&chunk);
            send_message(link, MEET, zcp_chunk_token(&kept), 0);
            break;
        case RETIRE:                                               // what it has added, while both hold chunks of it
            CHECK_OK(zcp_manager_retire_pool(manager, pool));
            CHECK(stats_of(manager, pool).state == ZCP_POOL_RETIRING);
            send_message(link, RETIRE, 0, 0);
            break;
        case RELEASE:
            CHECK(zcp_chunk_is_valid(&kept));
            zcp_chunk_release(&kept);
            send_message(link, RELEASE, 0, 0);
            break;
        case GONE:
            check_gone(manager, (uint32_t)m.seed);
            send_message(link, GONE, 0, 0);
            break;
        // and, so that the other one has begun to sleep, release one a little later
        case EXHAUST:
            n = exhaust(manager, others);
            send_message(link, EXHAUST, 0, 0);
            receive(link, WAIT);
            usleep(30000);
            zcp_chunk_release(&others[--n]);
            receive(link, LET_GO);
            while (n > 0) zcp_chunk_release(&others[--n]);
            send_message(link, LET_GO, 0, 0);
            break;
        case WAIT:
            send_message(link, WAIT, 0, 0);
            send_message(link, LET_GO, 0, wait_for_one(manager));
            break;
        case HOLD:                                                 // and never let go
            for (number = 0; number < m.seed; number++) filled(manager, number);
            send_message(link, HOLD, 0, number);
            break;
        case KEEP:
            received(manager, m.token, m.seed);
            send_message(link, KEEP, 0, 0);
            break;
        case FORK_REFUSED:
            chunk = filled(manager, 7);
            child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                zcp_chunk none;
                CHECK_STATUS(zcp_chunk_allocate(manager, 1, &none), ZCP_ERR_FORKED);
                CHECK(!zcp_chunk_is_valid(&chunk));
                zcp_manager_close(manager);
                _exit(0);
            }
            CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
            check_pattern(&chunk, 7);
            zcp_chunk_release(&chunk);
            send_message(link, FORK_REFUSED, 0, 0);
            break;
        // a child that outlives this process must not keep it alive
        case FORK_AND_STAY:
            child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                for (int fd = 0; fd < 3; fd++) close(fd);
                alarm(SECONDS);
                pause();
                _exit(0);
            }
            send_message(link, FORK_AND_STAY, 0, (uint64_t)child);
            break;
        case QUIT:
            zcp_manager_close(manager);
            return 0;
        default:
            CHECK(!"a message that is known");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The leader

static pid_t start(int *link, char **command, const char *verb, const char *name, const char *mode) {
    char *arguments[32], words[3][64];
    const char *const given[] = {verb, name, mode};
    int ends[2], n = 0;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    for (; command[n]; n++) {
        CHECK(n < 28);
        arguments[n] = command[n];
    }
    for (int i = 0; i < 3; i++) {
        CHECK(snprintf(words[i], sizeof words[i], "%s", given[i]) < (int)sizeof words[i]);
        arguments[n++] = words[i];
    }
    arguments[n] = NULL;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], 0);
        close(ends[0]);
        close(ends[1]);
        execv(arguments[0], arguments);
        fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    *link = ends[0];
    return pid;
}

static void ended_well(pid_t pid) {
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void pass(zcp_manager *manager, int link, uint64_t seed) {
    zcp_chunk chunk = filled(manager, seed);
    send_message(link, PASS, zcp_chunk_token(&chunk), seed);
    receive(link, PASS);
    if (answered(seed)) check_pattern(&chunk, seed + 1);
    zcp_chunk_release(&chunk);
}

static uint64_t take(zcp_manager *manager, int link, uint64_t seed) {      // returns the token
    send_message(link, GIVE, 0, seed);
    uint64_t token = receive(link, GIVE).token;
    zcp_chunk chunk = received(manager, token, seed);
    check_pattern(&chunk, seed);
    if (answered(seed)) write_pattern(&chunk, seed + 1);
    send_message(link, LET_GO, 0, 0);
    zcp_chunk_release(&chunk);
    return token;
}

static void ask(int link, uint64_t what, uint64_t seed) {
    send_message(link, what, 0, seed);
    receive(link, what);
}

// Each of them adds a pool, which the other one meets by a token; and retires it, while the other one has a chunk of
// it.
static void grow(zcp_manager *manager, int link) {
    zcp_chunk chunk, mine;
    uint32_t number = add_grown(manager);
    mine = grown(manager, 11);
    send_message(link, MEET, zcp_chunk_token(&mine), 11);
    chunk = met(manager, receive(link, MEET).token, 12);
    CHECK(stats_of(manager, number).used == 2);
    CHECK_OK(zcp_manager_retire_pool(manager, number));
    zcp_chunk_release(&mine);
    ask(link, RELEASE, 0);
    CHECK(stats_of(manager, number).state == ZCP_POOL_RETIRING);
    check_pattern(&chunk, 12);
    // the last one, of a chunk that the other one has allocated
    zcp_chunk_release(&chunk);
    check_gone(manager, number);
    ask(link, GONE, number);

    send_message(link, ADD, 0, 13);
    message m = receive(link, ADD);
    CHECK(m.seed == number);                                       // a number is used again
    chunk = met(manager, m.token, 13);
    mine = grown(manager, 14);
    ask(link, RETIRE, 0);
    zcp_chunk_release(&mine);
    zcp_chunk_release(&chunk);
    CHECK(stats_of(manager, number).used == 1);
    ask(link, RELEASE, 0);                                         // the last one, by the other one
    check_gone(manager, number);
    ask(link, GONE, number);
}

// Each of them waits for a chunk that the other one releases. Returns the longer time, in milliseconds.
static uint64_t wake(zcp_manager *manager, int link) {
    zcp_chunk chunks[SMALL_COUNT];
    ask(link, EXHAUST, 0);
    send_message(link, WAIT, 0, 0);
    uint64_t took = wait_for_one(manager), its;
    send_message(link, LET_GO, 0, 0);
    receive(link, LET_GO);
    uint32_t n = exhaust(manager, chunks);
    ask(link, WAIT, 0);
    usleep(30000);
    zcp_chunk_release(&chunks[--n]);
    its = receive(link, LET_GO).seed;
    while (n > 0) zcp_chunk_release(&chunks[--n]);
    CHECK(took < 5000 && its < 5000);
    return took > its ? took : its;
}

static int lead(const char *name, bool creates, uint64_t rounds, bool forks, char **other) {
    int link, second_link;
    zcp_manager *manager = NULL;
    zcp_chunk kept[BORROWED], none;
    zcp_recovery report;
    uint64_t token = 0, mine, others, width, slept;
    if (creates) CHECK_OK(open_instance(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE));
    follower = start(&link, other, "follow", name, creates ? "attach" : "create");
    width = receive(link, READY).seed;
    if (!creates) CHECK_OK(open_instance(&manager, name, ZCP_SHM_OPEN_EXISTING));

    // Tokens both ways, with acknowledgement.
    for (uint64_t seed = 0; seed < rounds; seed++) {
        pass(manager, link, seed);
        token = take(manager, link, seed);
    }
    // Both work on the same pool.
    send_message(link, STORM, 0, rounds);
    mine = storm(manager, rounds, 0);
    others = receive(link, STORM).seed;
    CHECK(mine >= rounds && others >= rounds);
    check_books(manager);
    CHECK_STATUS(zcp_chunk_acquire(manager, token, &none), ZCP_ERR_STALE);

    // Pools come and go, and each wakes the other one.
    for (int i = 0; i < 3; i++) grow(manager, link);
    check_books(manager);
    slept = wake(manager, link);
    check_books(manager);

    // The other one forks, and is then killed while it holds chunks of its own and of this process.
    send_message(link, FORK_REFUSED, 0, 0);                        // also where pthread_atfork alone has to see to it
    receive(link, FORK_REFUSED);
    if (forks) {
        send_message(link, FORK_AND_STAY, 0, 0);
        stayed = (pid_t)receive(link, FORK_AND_STAY).seed;
    }
    for (uint64_t i = 0; i < BORROWED; i++) {
        kept[i] = filled(manager, 100 + i);
        send_message(link, KEEP, zcp_chunk_token(&kept[i]), 100 + i);
        receive(link, KEEP);
        CHECK(zcp_chunk_use_count(&kept[i]) == 2);
    }
    send_message(link, HOLD, 0, OWNED);
    receive(link, HOLD);
    CHECK(used(manager) == OWNED + BORROWED);
    CHECK_OK(zcp_manager_recover(manager, &report));
    CHECK(report.dead_clients == 0 && report.chunks_reclaimed == 0);
    CHECK(kill(follower, SIGKILL) == 0 && waitpid(follower, NULL, 0) == follower);
    follower = 0;
    CHECK_OK(zcp_manager_recover(manager, &report));
    CHECK(report.dead_clients == 1);
    CHECK(report.chunks_reclaimed == OWNED);
    if (stayed) CHECK(kill(stayed, SIGKILL) == 0);
    stayed = 0;
    for (uint64_t i = 0; i < BORROWED; i++) {
        CHECK(zcp_chunk_use_count(&kept[i]) == 1);
        check_pattern(&kept[i], 100 + i);
        zcp_chunk_release(&kept[i]);
    }
    check_books(manager);

    // A second one of its kind comes in, and leaves in order.
    follower = start(&second_link, other, "follow", name, "attach");
    receive(second_link, READY);
    pass(manager, second_link, 1);
    take(manager, second_link, 2);
    send_message(second_link, QUIT, 0, 0);
    ended_well(follower);
    follower = 0;
    CHECK_OK(zcp_manager_recover(manager, &report));
    CHECK(report.dead_clients == 0);
    check_books(manager);
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(name));
    printf("%u- with %u-bit, %" PRIu64 " tokens, %" PRIu64 " + %" PRIu64
           " chunks at once, 6 pools added and retired, woken after %" PRIu64 " ms, %d reclaimed, %s\n",
           (unsigned)sizeof(void *) * 8, (unsigned)width * 8, 2 * rounds + 2, mine, others, slept, OWNED,
           forks ? "with a child" : "without a child");
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Those that must not come in

static int refused(const char *name) {
    const zcp_shm_mode modes[] = { ZCP_SHM_OPEN_EXISTING, ZCP_SHM_OPEN_OR_CREATE };
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        zcp_manager *manager;
        CHECK_STATUS(open_instance(&manager, name, modes[i]), ZCP_ERR_LAYOUT);
        CHECK(manager == NULL);
        CHECK(strstr(zcp_last_message(), "byte order") != NULL && strstr(zcp_last_message(), name) != NULL);
    }
    printf("refused: %s\n", zcp_last_message());
    return 0;
}

static int refuse(const char *name, char **other) {
    int link;
    zcp_manager *manager;
    CHECK_OK(open_instance(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE));
    zcp_chunk chunk = filled(manager, 1);
    ended_well(start(&link, other, "refused", name, NULL));
    check_pattern(&chunk, 1);
    zcp_chunk_release(&chunk);
    CHECK_OK(zcp_manager_check(manager));
    check_books(manager);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(name));
    return 0;
}

static int signature(const char *name) {
    zcp_manager *manager;
    char path[300];
    uint64_t word = 0;
    CHECK_OK(open_instance(&manager, name, ZCP_SHM_CREATE_EXCLUSIVE));
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", name);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && pread(fd, &word, sizeof word, 24) == (ssize_t)sizeof word);
    close(fd);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(name));
    printf("%016" PRIx64 "\n", word);
    return 0;
}

int main(int count, char **arguments) {
    const char *verb = count > 2 ? arguments[1] : "", *name = count > 2 ? arguments[2] : "";
    self = verb;
    alarm(SECONDS);
    if (strcmp(verb, "lead") == 0 && count > 6)
        return lead(name, strcmp(arguments[3], "create") == 0, strtoul(arguments[4], NULL, 10),
                    strcmp(arguments[5], "forks") == 0, arguments + 6);
    if (strcmp(verb, "follow") == 0 && count > 3)
        return follow(name, strcmp(arguments[3], "create") == 0 ? ZCP_SHM_CREATE_EXCLUSIVE : ZCP_SHM_OPEN_EXISTING);
    if (strcmp(verb, "refuse") == 0 && count > 3) return refuse(name, arguments + 3);
    if (strcmp(verb, "refused") == 0) return refused(name);
    if (strcmp(verb, "signature") == 0) return signature(name);
    fprintf(
        stderr,
        "usage: peer lead NAME create|attach ROUNDS forks|no-forks OTHER... | refuse NAME OTHER... | signature NAME\n");
    return 2;
}
