// bench/cost.c: what an operation costs in instructions, and how many of them are locked, counted and not sampled: a
// child does each operation while its parent steps it through every instruction (ptrace, x86-64). Of an instruction the
// bytes are looked at before it is executed: a lock prefix, or an exchange with memory, which is locked without one. A
// full fence (mfence) counts as a locked instruction: it costs as much.
#include "cost.h"

#include "kit.h"
#include "measure.h"
#include "ours.h"
#include "record.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNKS = 4096, BYTES = 256, MOST_STEPS = 64 };
// rounds through all steps; each counted one is told to the parent
enum { WARM = 200, COUNTED = 1 };

typedef struct step {
    const char *name, *system;
    const contender *by;
    void *pool;
    void (*call)(void *pool, uint64_t count);
    uint64_t calls;                                                // operations in one call
    bool joins;                                                    // the first of its pool: the child joins it once
    uint64_t instructions, locked;
} step;

static step steps[MOST_STEPS];
static int step_count;

// ---------------------------------------------------------------------------------------------------------------------
// zerocp's calls one by one, in an order in which each finds what it needs.

static zcp_chunk own, other;
static uint64_t token;

static void step_nothing(void *pool, uint64_t count) { (void)pool, (void)count; }
static void step_allocate(void *pool, uint64_t count) {
    (void)count;
    MUST_OK(zcp_chunk_allocate(ours_manager(pool), BYTES, &own));
}

static void step_release(void *pool, uint64_t count) { (void)pool, (void)count; zcp_chunk_release(&own); }
static void step_clone(void *pool, uint64_t count) { (void)pool, (void)count; other = zcp_chunk_clone(&own); }
static void step_release_other(void *pool, uint64_t count) { (void)pool, (void)count; zcp_chunk_release(&other); }
static void step_token(void *pool, uint64_t count) { (void)pool, (void)count; token = zcp_chunk_token(&own); }
static void step_acquire(void *pool, uint64_t count) {
    (void)count;
    MUST_OK(zcp_chunk_acquire(ours_manager(pool), token, &other));
}

// A topic with a subscriber in the same process: it reads what was published before more is published, so nobody is
// overtaken. The publisher frees what was read many messages at a time, with one fence for all of them.
enum { TOPIC_DEPTH = 64, TOPIC_MESSAGES = 128 };
enum { MOST_TOPICS = 8 };
static struct {
    void *pool;
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
} topics[MOST_TOPICS];
static zcp_publisher *publisher;
static zcp_subscriber *subscriber;

// Of this pool; opens them in the first round.
static void step_topic(void *pool, uint64_t count) {
    int at = 0;
    (void)count;
    while (topics[at].pool && topics[at].pool != pool)
        MUST(++at < MOST_TOPICS);
    if (!topics[at].pool) {
        zcp_manager *manager = ours_manager(pool);
        zcp_publisher_desc publishes = {.topic = "cost", .depth = TOPIC_DEPTH};
        MUST_OK(zcp_publisher_open(manager, &publishes, &topics[at].publisher));
        MUST_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = "cost"}, &topics[at].subscriber));
        topics[at].pool = pool;
    }
    publisher = topics[at].publisher;
    subscriber = topics[at].subscriber;
}

static void publish_one(void) {
    MUST_OK(zcp_publisher_loan(publisher, BYTES, &own));
    MUST_OK(zcp_publisher_publish(publisher, &own, NULL));
}

static void receive_one(void) {
    zcp_message message;
    MUST_OK(zcp_subscriber_receive(subscriber, 0, &message));
    zcp_subscriber_done(subscriber);
}

static void step_messages(void *pool, uint64_t count) {
    (void)pool;
    for (uint64_t i = 0; i < count; i++) {
        publish_one();
        receive_one();
    }
}

static void step_publish(void *pool, uint64_t count) {
    (void)pool;
    for (uint64_t i = 0; i < count; i++)
        publish_one();
}

static void step_receive(void *pool, uint64_t count) {
    (void)pool;
    for (uint64_t i = 0; i < count; i++)
        receive_one();
}

static void add_step(const char *name, const contender *by, void *pool, void (*call)(void *, uint64_t),
                     uint64_t calls) {
    MUST(step_count < MOST_STEPS);
    bool joins = step_count == 0 || steps[step_count - 1].pool != pool;
    steps[step_count++] = (step){name, by ? by->name : "nothing", by, pool, call, calls, joins, 0, 0};
}

static void add_calls(const contender *by, void *pool) {
    add_step("allocate", by, pool, step_allocate, 1);
    add_step("clone", by, pool, step_clone, 1);
    add_step("release_clone", by, pool, step_release_other, 1);
    add_step("release", by, pool, step_release, 1);                // cloned, but no token was made
    add_step(NULL, by, pool, step_allocate, 1);
    add_step("token", by, pool, step_token, 1);
    add_step("acquire", by, pool, step_acquire, 1);
    add_step("release_borrowed", by, pool, step_release_other, 1);
    add_step("release_marked", by, pool, step_release, 1);         // a token was made
    add_step(NULL, by, pool, step_topic, 1);
    add_step("message", by, pool, step_messages, TOPIC_MESSAGES);  // with what it costs to free them
    add_step("publish", by, pool, step_publish, TOPIC_DEPTH / 2);
    add_step("receive", by, pool, step_receive, TOPIC_DEPTH / 2);
}

static void add_steps(const contender *const *all) {
    // the first finds the caches as the other steps have left them
    enum { PAIRS = 64 };
    add_step(NULL, NULL, NULL, step_nothing, 1);                   // what the counting itself adds; subtracted
    for (int i = 0; all[i]; i++) {
        void *pool = all[i]->pair && selected_at_all("cost", all[i]->name) ? pool_add(all[i], CHUNKS, BYTES) : NULL;
        if (!pool)
            continue;
        add_step("pair", all[i], pool, all[i]->pair, PAIRS);
        if (all[i]->join == ours.join)
            add_calls(all[i], pool);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The child works; the phase says in which step it is, from 1, or that it is done with them. The parent looks at it in
// shared memory.

_Noreturn static void cost_child(void) {
    for (int i = 0; i < step_count; i++)
        if (steps[i].joins && steps[i].by && steps[i].by->join)
            steps[i].by->join(steps[i].pool, 1);
    for (int round = 0; round < WARM + COUNTED; round++) {
        if (round == WARM) {
            if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
                _exit(2);
            raise(SIGSTOP);
        }
        for (int i = 0; i < step_count; i++) {
            __atomic_store_n(&host.shared->phase.word, (uint64_t)i + 1, __ATOMIC_RELAXED);
            steps[i].call(steps[i].pool, steps[i].calls);
            __atomic_store_n(&host.shared->phase.word, 0, __ATOMIC_RELAXED);
        }
    }
    __atomic_store_n(&host.shared->phase.word, UINT64_MAX, __ATOMIC_RELAXED);
    for (int i = 0; i < step_count; i++)
        if (steps[i].joins && steps[i].by && steps[i].by->leave)
            steps[i].by->leave(steps[i].pool, 1);
    _exit(0);
}

#if defined(__x86_64__)
static bool is_locked(const unsigned char *code) {
    static const unsigned char prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x3e, 0x64, 0x65, 0x26, 0x36};
    bool locked = false;
    for (; *code == 0xf0 || memchr(prefixes, *code, sizeof prefixes); code++)
        locked = locked || *code == 0xf0;
    if ((*code & 0xf0) == 0x40)
        code++;                                                    // REX
    bool fence = code[0] == 0x0f && code[1] == 0xae && (code[2] & 0xf8) == 0xf0;
    return locked || fence || ((code[0] == 0x86 || code[0] == 0x87) && code[1] < 0xc0);
}

static bool step_through(pid_t child) {
    int status;
    uint64_t phase;
    MUST(waitpid(child, &status, 0) == child);
    while (WIFSTOPPED(status) && (phase = get_relaxed(&host.shared->phase)) != UINT64_MAX) {
        // the child was forked from here: its code is ours, at the same address
        if (phase != 0) {
            long at = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user_regs_struct, rip), NULL);
            steps[phase - 1].instructions++;
            steps[phase - 1].locked += is_locked((const unsigned char *)at);
        }
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child)
            return false;
    }
    return WIFSTOPPED(status) && ptrace(PTRACE_DETACH, child, NULL, NULL) == 0;
}
#else
static bool step_through(pid_t child) {
    (void)child;
    return false;
}
#endif

static void tell_cost(const step *s, const char *metric, uint64_t count, uint64_t base) {
    double each = (double)(count < base ? 0 : count - base) / (double)COUNTED / (double)s->calls;
    record row = {
        .chunks = CHUNKS, .bytes = BYTES, .median = each, .q1 = each, .q3 = each, .rounds = COUNTED, .ops = s->calls};
    snprintf(row.name, sizeof row.name, "cost_%s", s->name);
    snprintf(row.system, sizeof row.system, "%s", s->system);
    snprintf(row.workers, sizeof row.workers, "1");
    snprintf(row.metric, sizeof row.metric, "%s", metric);
    record_add(&row);
}

// of one pool more beside eight others, without header and slots
static double management_per_chunk(uint32_t count) {
    zcp_config config = {0};
    uint64_t bytes[2];
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 8; i++)
            MUST_OK(zcp_config_add_pool(&config, 64, count));
        bytes[half] = zcp_config_management_bytes(&config, 64);
    }
    return (double)(bytes[1] - bytes[0]) / 8 / count;
}

static void tell_memory(void) {
    static const uint32_t counts[] = {100, 1024, 4096, 100000, 1000000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        double bytes = management_per_chunk(counts[i]);
        record row = {.name = "management_per_chunk", .system = "zerocp", .workers = "1", .metric = "memory",
                      .unit = "B", .chunks = counts[i],
                      .median = bytes, .q1 = bytes, .q3 = bytes, .rounds = 1, .ops = 1};
        record_add(&row);
    }
}

void suite_cost(const suite_options *options) {
    add_steps(options->contenders);
    pools_check("before");
    pid_t child = helper_fork();
    if (child == 0)
        cost_child();
    bool done = step_through(child);
    if (done)
        helper_wait(child);
    else
        helper_kill(child);
    pools_check("after");
    for (int i = 1; done && i < step_count; i++)
        if (steps[i].name) {
            tell_cost(&steps[i], "instructions", steps[i].instructions, steps[0].instructions);
            tell_cost(&steps[i], "locked", steps[i].locked, steps[0].locked);
        }
    if (!done)
        printf("skipped=cost what=\"a process cannot be stepped through here\"\n");
    if (selected_at_all("management_per_chunk", "zerocp"))
        tell_memory();
    suite_end();
    step_count = 0;
}
