// bench/topics.c: messages from one process to others, by zerocp's topics and by what else there is. Each message is
// written by the publisher and read by each subscriber, all of its bytes. Rows:
//   topic          as fast as it goes, over sizes, and to several subscribers
//   topic_publish  what the publisher pays for a message, over subscribers
//   topic_ping     one way: half of a message and its answer
//   topic_wake     to a subscriber that sleeps, once a millisecond
#include "measure.h"
#include "messengers.h"
#include "peers.h"
#include "suites.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { MOST_CHANNELS = 512, WAKES = 100, WINDOW = 64, LARGE = 65536 };

// ---------------------------------------------------------------------------------------------------------------------
// Channels

typedef struct open_channel {
    const messenger *by;
    channel_spec spec;
    void *channel;
} open_channel;

static open_channel channels[MOST_CHANNELS];
static int channel_count;
static channel_pair *pairs[MOST_CHANNELS];
static int pair_count;

// NULL: the messenger cannot serve that.
static void *channel_add(const messenger *by, channel_spec spec) {
    MUST(channel_count < MOST_CHANNELS);
    spec.number = (uint32_t)channel_count;
    void *channel = by->create(&spec);
    if (channel)
        channels[channel_count++] = (open_channel){by, spec, channel};
    return channel;
}

static channel_pair *pair_add(void *there, void *back) {
    channel_pair *pair = malloc(sizeof *pair);
    MUST(pair != NULL && pair_count < MOST_CHANNELS);
    *pair = (channel_pair){there, back};
    return pairs[pair_count++] = pair;
}

// The publisher has its CPU, the subscribers share the others. What libraries start by themselves may run on all.
static void pin(int worker) {
    int others[MAX_CPUS], count = 0;
    for (int i = 0; i < cpu_count; i++)
        if (all_cpus[i] != cpus[0] && all_cpus[i] != cpus[1])
            others[count++] = all_cpus[i];
    cpu_pin(worker == 0                ? cpus[0]
            : worker == 1 || count == 0 ? cpus[1]
                                        : others[(worker - 2) % count]);
}

static void unpin(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < cpu_count; i++)
        CPU_SET((size_t)all_cpus[i], &set);
    MUST(sched_setaffinity(0, sizeof set, &set) == 0);
}

static void channels_join(int worker) {
    host.worker = worker;
    unpin();
    for (int i = 0; i < channel_count; i++) {
        int role = channel_role(&channels[i].spec, worker);
        if (role >= 0 && channels[i].by->join)
            channels[i].by->join(channels[i].channel, role);
    }
    pin(worker);
}

static void channels_leave(int worker) {
    host.worker = worker;
    for (int i = channel_count; i-- > 0;) {
        int role = channel_role(&channels[i].spec, worker);
        if (role >= 0 && channels[i].by->leave)
            channels[i].by->leave(channels[i].channel, role);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Points

static point *points[MOST_CHANNELS];
static int point_count;

static void add(const messenger *by, point at, void *there, void *back) {
    at.system = by->name;
    at.kind = POINT_TOPIC;
    at.call = by->call, at.answer = by->answer;
    at.pool = pair_add(there, back);
    MUST(point_count < MOST_CHANNELS);
    points[point_count] = point_add(&at);
    point_count += points[point_count] != NULL;
}

// Few enough messages on their way that 16 MiB hold them all, but two at least.
static uint64_t window_of(uint64_t bytes) {
    uint64_t fit = (UINT64_C(16) << 20) / bytes;
    return fit > WINDOW ? WINDOW : fit < 2 ? 2 : fit;
}

static point shape(const char *name, uint64_t bytes, int subscribers) {
    return (point){.name = name, .bytes = bytes, .workers = subscribers + 1, .window = window_of(bytes),
                   .block = bytes < LARGE ? 64 : bytes < 1 << 20 ? 8 : 2,
                   .slice = bytes < LARGE ? 2000000 : bytes < 1 << 20 ? 5000000 : 20000000};
}

static channel_spec spec_of(uint64_t bytes, int subscribers) {
    return (channel_spec){.bytes = (size_t)bytes, .window = window_of(bytes), .subscribers = subscribers};
}

static bool is_selected(const char *name, const messenger *by) {
    return selected_at_all(name, by->name);
}

static void tell_skipped(const char *name, const messenger *by, uint64_t bytes) {
    printf("skipped=%s system=%s bytes=%llu what=\"it does not carry that\"\n", name, by->name,
           (unsigned long long)bytes);
}

static void add_flow(const messenger *by, uint64_t bytes, int subscribers, bool priced) {
    bool flows = is_selected("topic", by), pays = priced && is_selected("topic_publish", by);
    void *channel = flows || pays ? channel_add(by, spec_of(bytes, subscribers)) : NULL;
    if (!channel) {
        if (flows || pays)
            tell_skipped("topic", by, bytes);
        return;
    }
    point at = shape("topic", bytes, subscribers);
    at.loop = by->publish, at.peer = by->subscribe;
    add(by, at, channel, NULL);
    at.name = "topic_publish";
    at.loop = by->publish_timed, at.peer = by->follow;
    at.every = 2;
    if (priced)
        add(by, at, channel, NULL);
}

static void add_ping(const messenger *by, uint64_t bytes) {
    channel_spec spec = spec_of(bytes, 1);
    if (!is_selected("topic_ping", by))
        return;
    void *there = channel_add(by, spec);
    spec.back = true;
    void *back = there ? channel_add(by, spec) : NULL;
    if (!back) {
        tell_skipped("topic_ping", by, bytes);
        return;
    }
    point at = shape("topic_ping", bytes, 1);
    at.loop = by->ping, at.peer = by->pong;
    at.there_and_back = true;
    add(by, at, there, back);
}

static void add_wake(const messenger *by) {
    enum { BYTES = 256 };
    channel_spec spec = spec_of(BYTES, 1);
    spec.sleeps = true;
    void *channel = is_selected("topic_wake", by) ? channel_add(by, spec) : NULL;
    if (!channel)
        return;
    point at = shape("topic_wake", BYTES, 1);
    at.loop = by->rouse, at.peer = by->rise;
    at.fixed = WAKES;
    at.latency = true;
    add(by, at, channel, NULL);
}

static void add_messenger(const messenger *by, bool quick) {
    static const uint64_t sizes[] = {8, 64, 256, 4096, 65536, 1 << 20, 8 << 20};
    static const int fans[] = {2, 4, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (quick && sizes[i] != 8 && sizes[i] != 256 && sizes[i] != 1 << 20)
            continue;
        add_flow(by, sizes[i], 1, sizes[i] == 256);
        add_ping(by, sizes[i]);
    }
    for (size_t i = 0; i < sizeof fans / sizeof fans[0]; i++) {
        add_flow(by, 256, fans[i], true);
        if (!quick)
            add_flow(by, 65536, fans[i], false);
    }
    add_wake(by);
}

// ---------------------------------------------------------------------------------------------------------------------

// All channels of all messengers are open at the same time.
static void files_allow(void) {
    struct rlimit files;
    MUST(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static int most_workers(void) {
    int most = 0;
    for (int i = 0; i < point_count; i++)
        most = points[i]->workers > most ? points[i]->workers : most;
    return most;
}

static void channels_end(void) {
    while (channel_count > 0) {
        channel_count--;
        if (channels[channel_count].by->destroy)
            channels[channel_count].by->destroy(channels[channel_count].channel);
    }
    while (pair_count > 0)
        free(pairs[--pair_count]);
    point_count = 0;
}

void suite_topics(const suite_options *options) {
    if (cpus[1] < 0) {
        printf("skipped=topics what=\"one CPU\"\n");
        return;
    }
    const messenger *const *lists[] = {messengers(&host), peer_messengers(&host)};
    files_allow();
    unpin();                                                       // a daemon that a peer starts may run anywhere
    rmw_add();
    for (size_t k = 0; k < 2; k++)
        for (int i = 0; lists[k][i]; i++)
            add_messenger(lists[k][i], options->quick);
    if (point_count == 0) {
        pin(0);
        channels_end();
        suite_end();
        return;
    }
    crew_hooks(channels_join, channels_leave);
    crew_start(most_workers() - 1);
    crew_hooks(NULL, NULL);
    channels_join(0);
    for (int i = 0; i < point_count; i++)
        point_call(points[i]);
    rounds_run(options->rounds);
    crew_end();
    channels_leave(0);
    channels_end();
    pools_check("after");
    suite_end();
}
