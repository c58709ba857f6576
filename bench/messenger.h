// bench/messenger.h: who carries messages from one process to others, as C sees it and C++ too. Each is a table of
// loops over channels, and all loops are compiled from topic_loops.h, so that each does the same work.
#ifndef ZEROCP_BENCH_MESSENGER_H
#define ZEROCP_BENCH_MESSENGER_H

#include "contender.h"

#ifdef __cplusplus
extern "C" {
#endif

// A channel leads from one process to others. Worker 0 publishes to the workers 1 to `subscribers`; or worker 1 to
// worker 0, as the way back.
typedef struct channel_spec {
    uint32_t number;                                               // of all channels; no two have the same
    size_t bytes;                                                  // of each message: a multiple of 8
    uint64_t window;                                               // messages that may be on their way
    int subscribers;
    bool back;
    bool sleeps;                                                   // subscribers sleep until there is a message
} channel_spec;

// What a worker does on a channel: 0: it publishes; from 1: which subscriber it is; -1: nothing.
static inline int channel_role(const channel_spec *spec, int worker) {
    if (worker == (spec->back ? 1 : 0))
        return 0;
    if (spec->back)
        return worker == 0 ? 1 : -1;
    return worker <= spec->subscribers ? worker : -1;
}

// What the loops work on. back: only for messages that are answered.
typedef struct channel_pair {
    void *there, *back;
} channel_pair;

// ---------------------------------------------------------------------------------------------------------------------
// What the loops wait for

static inline uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// Nothing is to be done just now. If there are more processes than CPUs, another one gets the CPU soon. true: time to
// look whether it is worth while to go on.
static inline bool await_turn(const bench_host *of, unsigned *tries) {
    if (++*tries % (of->crowded ? 32 : 4096) == 0)
        sched_yield();
    else
        spin();
    return *tries % 64 == 0;
}

// How long nothing has come, of the time in which this process has looked.
typedef struct idleness {
    uint64_t looked_at, ns;
    bool sent;                                                     // since all was sent
} idleness;

// Nothing has come for a while since the last message was sent, or for very long. Who loses messages is not waited for
// as long as who only is slow.
static inline bool is_over(const bench_host *of, idleness *idle, bool loses) {
    bool sent = get_acquire(&of->shared->head) != 0;
    uint64_t now = clock_ns(), since = now - idle->looked_at;
    if (idle->looked_at == 0 || sent != idle->sent)
        idle->ns = 0;
    else                                                           // a wait takes 20 ms; more: it was not on its CPU
        idle->ns += since < 25000000 ? since : 1000000;
    idle->looked_at = now;
    idle->sent = sent;
    return idle->ns > UINT64_C(1000000) * (sent && loses ? 50 : sent ? 2000 : 30000);
}

// Until all subscribers have read so many messages of this slice; what is lost is not waited for long.
static inline void await_subscribers(const bench_host *of, uint64_t count) {
    uint64_t since = 0;
    for (int k = 0; k < of->subscribers; k++)
        for (unsigned tries = 0; get_acquire(&of->shared->seen[k]) < count;)
            if (await_turn(of, &tries)) {
                since = since ? since : clock_ns();
                if (clock_ns() - since > 50000000)
                    return;
            }
}

// ---------------------------------------------------------------------------------------------------------------------
// Messengers

typedef void channel_loop(void *pair, uint64_t count);

// Before anything is measured, publishers call until all have heard one call.
static const uint64_t CALL = UINT64_C(1) << 63;

// A channel is made in the first process, before the others are forked, and before any of them uses the library: so
// create must leave no thread behind. Each process then joins it in turn, the subscribers first.
typedef struct messenger {
    const char *name, *what;
    void *(*create)(const channel_spec *spec);                        // NULL: cannot serve that
    void (*join)(void *channel, int role);                            // role: from 0; each of these may be NULL
    void (*leave)(void *channel, int role);
    void (*destroy)(void *channel);
    channel_loop *publish, *publish_timed, *subscribe, *follow, *ping, *pong, *rouse, *rise, *call, *answer;
} messenger;

// What such a peer's object gives; ends with NULL.
typedef const messenger *const *bench_messenger_function(bench_host *host, int abi);

#ifdef __cplusplus
}
#endif

// A peer's object exports its messenger, and takes what it is given, by this line at its end.
#ifdef __cplusplus
#define MESSENGER_LINKAGE extern "C"
#else
#define MESSENGER_LINKAGE
#endif

#define EXPORT_MESSENGER(carrier, host)                                                                                \
    MESSENGER_LINKAGE const messenger *const *bench_messengers(bench_host *given, int abi);                            \
    MESSENGER_LINKAGE const messenger *const *bench_messengers(bench_host *given, int abi) {                           \
        static const messenger *const all[] = {&carrier, NULL};                                                        \
        host = given;                                                                                                  \
        return abi == BENCH_ABI ? all : NULL;                                                                          \
    }

#endif
