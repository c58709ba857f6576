// bench/measure.c: see measure.h.
#include "measure.h"

#include "record.h"

#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_POINTS = 512, MAX_POOLS_OPEN = 128, MAX_WORKERS = 16 };

bench_host host;
static measure_options options;
static point *points[MAX_POINTS];
static int point_count;
static struct {
    const contender *by;
    void *pool;
} pools[MAX_POOLS_OPEN];
static int pool_count;
static int worker_number;                                          // of this process; 0: the first

// ---------------------------------------------------------------------------------------------------------------------
// The clock for single operations

static double tick_ns = 1;

double ns_per_tick(void) {
    return tick_ns;
}

static void ticks_calibrate(void) {
    uint64_t ns = now_ns(), began = ticks();
    while (now_ns() - ns < 20000000)
        spin();
    uint64_t ended = ticks();
    tick_ns = (double)(now_ns() - ns) / (double)(ended - began);
}

// What the clock can tell apart: on some machines it goes in steps of many ticks.
double clock_step_ns(void) {
    uint64_t first = ticks(), common = 0;
    for (int i = 0; i < 1000; i++) {                               // the greatest common divisor of all that it tells
        uint64_t a = ticks() - first, b = common;
        while (b != 0) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        common = a;
    }
    return (double)common * tick_ns;
}

static double histogram_quantile(const histogram *h, double part) {
    uint64_t rank = (uint64_t)(part * (double)h->count), seen = 0;
    for (unsigned cell = 0; cell < HISTOGRAM_CELLS; cell++) {
        seen += h->cells[cell];
        if (seen > rank) {
            if (cell < HISTOGRAM_STEPS)
                return cell * tick_ns;
            unsigned octave = cell / 32 + 4;
            uint64_t from = (UINT64_C(32) + cell % 32) << (octave - 5);
            double middle = (double)from + (double)(UINT64_C(1) << (octave - 5)) / 2;
            return (middle < (double)h->most ? middle : (double)h->most) * tick_ns;
        }
    }
    return (double)h->most * tick_ns;
}

// ---------------------------------------------------------------------------------------------------------------------
// Hardware counters of this process, where the machine has them (many virtual ones do not): instructions, cycles.

static int counters[2] = {-1, -1};

static int counter_open(uint64_t what, int group) {
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_HARDWARE, .size = sizeof attributes, .config = what, .exclude_kernel = 1, .exclude_hv = 1,
    };
    return (int)syscall(SYS_perf_event_open, &attributes, 0, -1, group, PERF_FLAG_FD_CLOEXEC);
}

static void counters_open(void) {
    counters[0] = counter_open(PERF_COUNT_HW_INSTRUCTIONS, -1);
    if (counters[0] >= 0)
        counters[1] = counter_open(PERF_COUNT_HW_CPU_CYCLES, counters[0]);
}

bool counters_there(void) {
    return counters[0] >= 0 && counters[1] >= 0;
}

static void counters_read(uint64_t values[2]) {
    for (int i = 0; i < 2; i++)
        MUST(read(counters[i], &values[i], sizeof values[i]) == (ssize_t)sizeof values[i]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Points and pools

void measure_begin(const measure_options *given) {
    options = *given;
    host.shared = shared_memory(sizeof *host.shared);
    memset(host.shared, 0, sizeof *host.shared);
    host.shared_memory = shared_memory;
    host.die = die;
    host.name = name_new;
    host.fork = helper_fork;
    host.wait = helper_wait;
    host.arrivals = shared_memory(sizeof *host.arrivals);
    MUST((host.latencies = calloc(1, sizeof *host.latencies)) != NULL);
    ticks_calibrate();
    host.ns_per_tick = tick_ns;
    counters_open();
}

bool selected_at_all(const char *name, const char *system) {
    return options.selected(name, system);
}

void *pool_add(const contender *by, uint32_t chunks, uint32_t bytes) {
    void *pool = by->create(chunks, bytes);
    if (!pool)
        return NULL;
    MUST(pool_count < MAX_POOLS_OPEN);
    pools[pool_count].by = by;
    pools[pool_count++].pool = pool;
    if (by->join)
        by->join(pool, 0);
    return pool;
}

point *point_add(const point *given) {
    bool several = given->kind == POINT_TWO || given->kind == POINT_PROCESSES || given->kind == POINT_THREADS
                   || given->kind == POINT_TOPIC;
    if (!options.selected(given->name, given->system) || (given->kind == POINT_TWO && cpus[1] < 0))
        return NULL;
    MUST(point_count < MAX_POINTS);
    point *p = malloc(sizeof *p);
    MUST(p != NULL);
    *p = *given;
    p->state = p->state ? p->state : "";
    p->workers = p->kind == POINT_TWO ? 2 : several ? p->workers : 1;
    p->block = p->block ? p->block : 64;
    p->window = p->window ? p->window : 64;
    p->every = p->every ? p->every : 1;
    p->slice = p->slice ? p->slice : options.slice;
    if (p->kind == POINT_TOPIC && p->latency)
        MUST((p->all = calloc(1, sizeof *p->all)) != NULL);
    points[point_count++] = p;
    return p;
}

void pools_check(const char *when) {
    int checked = 0;
    for (int i = 0; i < pool_count; i++)
        if (pools[i].by->check) {
            pools[i].by->check(pools[i].pool);
            checked++;
        }
    if (get_relaxed(&host.shared->bad))
        die("a message arrived with other bytes than were sent");
    printf("conservation=%s pools=%d all_free=yes\n", when, checked);
    fflush(stdout);
}

// ---------------------------------------------------------------------------------------------------------------------
// The crew: processes that wait on a pipe, so that they cost nothing while they have nothing to do.

typedef struct order {
    int which;
    uint64_t count, first;
} order;

typedef struct outcome {
    uint64_t ns, count, ended;
} outcome;

static struct {
    void (*join)(int worker), (*leave)(int worker);
} hooks;

void crew_hooks(void (*join)(int worker), void (*leave)(int worker)) {
    hooks.join = join;
    hooks.leave = leave;
}

static struct {
    pid_t pid;
    int orders, outcomes;
} crew[MAX_WORKERS + 1];
static int crew_count;

static void await_go(void) {
    for (unsigned tries = 0; !get_acquire(&host.shared->go); tries++)
        tries % 64 == 63 ? (void)sched_yield() : spin();               // there may be more of us than CPUs
}

static void arrive(void) {
    __atomic_fetch_add(&host.shared->arrived.word, 1, __ATOMIC_ACQ_REL);
}

// One worker's part of two. Where both do the same, the first to finish stops the other: both are measured only while
// they are two.
static outcome part_of_two(const point *p, uint64_t count) {
    enum { BLOCKS = 64 };
    uint64_t block = (count / BLOCKS / p->block + 1) * p->block, done = 0;
    host.window = p->window;
    arrive();
    for (unsigned tries = 0; get_acquire(&host.shared->arrived) < 2;)
        spin_long(&tries);
    uint64_t began = now_ns();
    if (p->peer) {
        (worker_number ? p->peer : p->loop)(p->pool, done = count);
    } else {
        for (; done < count && !get_relaxed(&host.shared->stop); done += block)
            p->loop(p->pool, block);
        __atomic_store_n(&host.shared->stop.word, 1, __ATOMIC_RELAXED);
    }
    uint64_t ended = now_ns();
    return (outcome){ended - began, done, ended};
}

// One worker's part of many: until time is up.
static outcome part_of_many(const point *p) {
    uint64_t done = 0;
    arrive();
    await_go();
    uint64_t began = now_ns();
    for (; !get_relaxed(&host.shared->stop); done += p->block)
        p->loop(p->pool, p->block);
    uint64_t ended = now_ns();
    return (outcome){ended - began, done, ended};
}

enum { CALL_FIRST = 0 };                                           // instead of a message's number: a call

// One worker's part of a topic. count: of the messages that it has received.
static outcome part_of_topic(const point *p, uint64_t count, uint64_t first) {
    host.window = p->window;
    host.worker = worker_number;
    host.subscribers = p->workers - 1;
    host.crowded = p->workers > cpu_count;
    host.first = first;
    host.received = host.spent = 0;
    arrive();
    for (unsigned tries = 0; get_acquire(&host.shared->arrived) < (uint64_t)p->workers; tries++)
        tries % 64 == 63 ? (void)sched_yield() : spin();
    uint64_t began = now_ns();
    if (first == CALL_FIRST)
        (worker_number ? p->answer : p->call)(p->pool, count);
    else
        (worker_number ? p->peer : p->loop)(p->pool, count);
    uint64_t ended = now_ns();
    return (outcome){ended - began, host.received, ended};
}

static void pools_join(int worker) {
    for (int i = 0; i < pool_count; i++)
        if (pools[i].by->join)
            pools[i].by->join(pools[i].pool, worker);
}

static void pools_leave(int worker) {
    for (int i = 0; i < pool_count; i++)
        if (pools[i].by->leave)
            pools[i].by->leave(pools[i].pool, worker);
}

_Noreturn static void crew_serve(int worker, int orders, int outcomes) {
    order next;
    worker_number = worker;
    cpu_pin(worker == 1 && cpus[1] >= 0 ? cpus[1] : all_cpus[worker % cpu_count]);
    pools_join(worker);
    if (hooks.join)
        hooks.join(worker);
    MUST(write(outcomes, "", 1) == 1);
    while (read(orders, &next, sizeof next) == (ssize_t)sizeof next) {
        const point *p = points[next.which];
        outcome own = p->kind == POINT_TWO     ? part_of_two(p, next.count)
                      : p->kind == POINT_TOPIC ? part_of_topic(p, next.count, next.first)
                                               : part_of_many(p);
        MUST(write(outcomes, &own, sizeof own) == (ssize_t)sizeof own);
    }
    if (hooks.leave)
        hooks.leave(worker);
    pools_leave(worker);
    _exit(0);
}

static void crew_hire(int worker) {
    int orders[2], outcomes[2];
    char ready;
    MUST(pipe(orders) == 0 && pipe(outcomes) == 0);
    pid_t pid = helper_fork();
    if (pid == 0) {
        for (int i = 1; i < worker; i++)
            close(crew[i].orders);
        close(orders[1]);
        close(outcomes[0]);
        crew_serve(worker, orders[0], outcomes[1]);
    }
    close(orders[0]);
    close(outcomes[1]);
    crew[worker].pid = pid;
    crew[worker].orders = orders[1];
    crew[worker].outcomes = outcomes[0];
    if (read(outcomes[0], &ready, 1) != 1)
        die("worker %d could not join", worker);
}

void crew_start(int workers) {
    MUST(workers <= MAX_WORKERS);
    for (crew_count = 1; crew_count <= workers; crew_count++)
        crew_hire(crew_count);
    crew_count = workers;
}

void crew_end(void) {
    for (int i = 1; i <= crew_count; i++) {
        close(crew[i].orders);
        helper_wait(crew[i].pid);
        close(crew[i].outcomes);
    }
    crew_count = 0;
}

static uint64_t topic_first = 1;                                   // number of the next message of all topics

static void crew_order(int worker, const point *p, uint64_t count) {
    order next = {0, count, topic_first};
    while (points[next.which] != p)
        next.which++;
    MUST(write(crew[worker].orders, &next, sizeof next) == (ssize_t)sizeof next);
}

static outcome crew_outcome(int worker, const point *p) {
    outcome other;
    if (read(crew[worker].outcomes, &other, sizeof other) != (ssize_t)sizeof other)
        die("worker %d has ended in case %s of %s", worker, p->name, p->system);
    return other;
}

// ---------------------------------------------------------------------------------------------------------------------
// Measuring a point: ns per operation.

static double measure_alone(point *p, uint64_t count, bool keep) {
    uint64_t before[2], after[2];
    bool counting = keep && counters_there();
    host.window = p->window;
    if (counting)
        counters_read(before);
    uint64_t began = now_ns();
    p->loop(p->pool, count);
    uint64_t ns = now_ns() - began;
    if (counting) {
        counters_read(after);
        figures_add(&p->instructions, (double)(after[0] - before[0]) / (double)count);
        figures_add(&p->cycles, (double)(after[1] - before[1]) / (double)count);
    }
    return (double)ns / (double)count;
}

static double measure_two(const point *p, uint64_t count) {
    __atomic_store_n(&host.shared->stop.word, 0, __ATOMIC_RELAXED);
    set_release(&host.shared->arrived, 0);
    crew_order(1, p, count);
    outcome own = part_of_two(p, count), other = crew_outcome(1, p);
    if (p->peer)
        return (double)own.ns / (double)count;
    if (own.count == 0 || other.count == 0)                        // one of them was not on its CPU at all
        return (double)(own.count ? own.ns : other.ns) / (double)(own.count + other.count);
    return ((double)own.ns / (double)own.count + (double)other.ns / (double)other.count) / 2;
}

typedef struct thread_part {
    const point *p;
    int worker;
    outcome own;
} thread_part;

static void *thread_run(void *argument) {
    thread_part *t = argument;
    cpu_pin(all_cpus[t->worker % cpu_count]);
    if (t->p->by->join)
        t->p->by->join(t->p->pool, -t->worker);
    t->own = part_of_many(t->p);
    if (t->p->by->leave)
        t->p->by->leave(t->p->pool, -t->worker);
    return NULL;
}

// Starts all workers, lets them work for a slice, and tells wall time per operation of all together.
static double measure_many(const point *p) {
    pthread_t threads[MAX_WORKERS];
    thread_part parts[MAX_WORKERS];
    struct timespec slice = {(time_t)(p->slice / 1000000000), (long)(p->slice % 1000000000)};
    uint64_t count = 0, ended = 0;
    set_release(&host.shared->go, 0);
    __atomic_store_n(&host.shared->stop.word, 0, __ATOMIC_RELAXED);
    set_release(&host.shared->arrived, 0);
    for (int i = 0; i < p->workers; i++)
        if (p->kind == POINT_THREADS) {
            parts[i] = (thread_part){p, i + 1, {0, 0, 0}};
            MUST(pthread_create(&threads[i], NULL, thread_run, &parts[i]) == 0);
        } else {
            crew_order(i + 1, p, 0);
        }
    while (get_acquire(&host.shared->arrived) < (uint64_t)p->workers)
        usleep(50);
    uint64_t began = now_ns();
    set_release(&host.shared->go, 1);
    nanosleep(&slice, NULL);
    __atomic_store_n(&host.shared->stop.word, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < p->workers; i++) {
        if (p->kind == POINT_THREADS)
            MUST(pthread_join(threads[i], NULL) == 0);
        outcome own = p->kind == POINT_THREADS ? parts[i].own : crew_outcome(i + 1, p);
        count += own.count;
        ended = own.ended > ended ? own.ended : ended;
    }
    MUST(count != 0);
    return (double)(ended - began) / (double)count;
}

// One process publishes, the others subscribe. A message takes from the first one's start to the last one's end by as
// many as each subscriber has received.
static double measure_topic(point *p, uint64_t count, bool keep) {
    const uint64_t subscribers = (uint64_t)p->workers - 1;
    shared_state *shared = host.shared;
    uint64_t received = 0;
    set_release(&shared->head, 0);
    set_release(&shared->ball, 0);
    for (int k = 0; k < MOST_SUBSCRIBERS; k++)
        set_release(&shared->seen[k], 0);
    set_release(&shared->arrived, 0);
    for (int i = 1; i < p->workers; i++)
        crew_order(i, p, count);
    outcome own = part_of_topic(p, count, topic_first);
    uint64_t began = own.ended - own.ns, ended = own.ended, spent = host.spent;
    topic_first += count;
    for (int i = 1; i < p->workers; i++) {
        outcome other = crew_outcome(i, p);
        received += other.count;
        ended = other.ended > ended ? other.ended : ended;
    }
    if (keep) {
        p->sent += count * subscribers;
        p->received += received;
    }
    if (spent)
        return (double)spent * tick_ns / (double)count;
    if (p->there_and_back)
        return (double)own.ns / (double)count / 2;
    return (double)(ended - began) / ((double)(received ? received : 1) / (double)subscribers);
}

void point_call(point *p) {
    uint64_t first = topic_first;
    topic_first = CALL_FIRST;
    (void)measure_topic(p, (uint64_t)p->workers - 1, false);
    topic_first = first;
}

static double measure(point *p, uint64_t count, bool keep) {
    switch (p->kind) {
    case POINT_ALONE: return measure_alone(p, count, keep);
    case POINT_TWO: return measure_two(p, count);
    case POINT_TOPIC: return measure_topic(p, count, keep);
    case POINT_ONCE: return p->once(p->pool);
    default: return measure_many(p);
    }
}

// As many operations as take about a slice, by the fastest of some tries, because others may be on the CPUs too.
static uint64_t calibrate(point *p) {
    // fewer have no p99.9, and begin more often than they flow
    enum { MESSAGES = 1024 };
    if (p->fixed)
        return p->fixed;
    if (p->kind != POINT_ALONE && p->kind != POINT_TWO && p->kind != POINT_TOPIC)
        return 1;
    const uint64_t least = p->kind == POINT_TOPIC ? p->block : MESSAGES;
    for (uint64_t count = p->kind == POINT_ALONE ? 1 : p->block;; count *= 4) {
        uint64_t began = now_ns();
        double ns = measure(p, count, false);
        for (int i = 0; i < 8 && now_ns() - began < 50000000; i++) {
            double again = measure(p, count, false);
            ns = again < ns ? again : ns;
        }
        if (ns * (double)count > (double)p->slice / 8) {
            uint64_t fit = (uint64_t)((double)p->slice / ns);
            if ((p->latency || p->peer) && p->block > 1 && fit < least)
                fit = least;                                       // the partner was not on its CPU, most likely
            return fit == 0 ? 1 : fit < 256 ? fit : fit / 64 * 64;
        }
    }
}

static void keep_latencies(point *p) {
    static const double parts[] = {0.5, 0.99, 0.999};
    for (int i = 0; i < MOST; i++)
        figures_add(&p->quantiles[i], histogram_quantile(host.latencies, parts[i]));
    figures_add(&p->quantiles[MOST], (double)host.latencies->most * tick_ns);
}

static void histogram_merge(histogram *into, const histogram *from) {
    for (unsigned cell = 0; cell < HISTOGRAM_CELLS; cell++)
        into->cells[cell] += from->cells[cell];
    into->count += from->count;
    into->most = from->most > into->most ? from->most : into->most;
}

static void run_point(point *p, double *rmw) {
    if (p->latency)
        memset(p->all ? host.arrivals : host.latencies, 0, sizeof *host.latencies);
    double ns = measure(p, p->count, true);
    if (p->all) {
        *host.latencies = *host.arrivals;
        histogram_merge(p->all, host.latencies);
    }
    if (strcmp(p->name, "rmw") == 0)
        *rmw = ns;
    if (p->latency) {
        keep_latencies(p);
    } else {
        figures_add(&p->ns, ns);
        figures_add(&p->rmws, *rmw > 0 ? ns / *rmw : 0);
    }
}

void rounds_run(int rounds) {
    enum { LEAST_ROUNDS = 7 };
    double rmw = 0;
    for (int i = 0; i < point_count; i++) {
        points[i]->count = calibrate(points[i]);
        while (points[i]->every > 1 && rounds / points[i]->every < LEAST_ROUNDS)
            points[i]->every--;
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < point_count; i++)
            if (round % points[i]->every == 0)
                run_point(points[i], &rmw);
}

// ---------------------------------------------------------------------------------------------------------------------
// What came of it

static void tell(const point *p, const char *metric, const char *unit, const figures *f, const figures *rmws) {
    summary s = summarise(f), r = rmws ? summarise(rmws) : (summary){0, 0, 0};
    record row = {.chunks = p->chunks, .bytes = p->bytes, .q1 = s.q1, .median = s.median, .q3 = s.q3, .rmws = r.median,
                  .rounds = f->count, .ops = p->count};
    if (f->count == 0)
        return;
    snprintf(row.name, sizeof row.name, "%s", p->name);
    snprintf(row.system, sizeof row.system, "%s", p->system);
    snprintf(row.workers, sizeof row.workers, "%d%s", p->workers,
             p->workers == 1 && p->kind != POINT_THREADS ? ""
             : p->kind == POINT_THREADS                  ? "t"
                                                         : "p");
    snprintf(row.state, sizeof row.state, "%s", p->state);
    snprintf(row.metric, sizeof row.metric, "%s", metric);
    snprintf(row.unit, sizeof row.unit, "%s", unit);
    record_add(&row);
}

static void tell_most(const point *p) {                            // the largest of all rounds: it has no quartiles
    figures all = {NULL, 0};
    double most = 0;
    for (int i = 0; i < p->quantiles[MOST].count; i++)
        most = p->quantiles[MOST].values[i] > most ? p->quantiles[MOST].values[i] : most;
    if (p->quantiles[MOST].count) {
        figures_add(&all, most);
        tell(p, "max", "ns", &all, NULL);
        free(all.values);
    }
}

static void tell_one(const point *p, const char *metric, const char *unit, double value) {
    figures one = {NULL, 0};
    figures_add(&one, value);
    tell(p, metric, unit, &one, NULL);
    free(one.values);
}

// So few messages a round have no p99.9: that is of the messages of all rounds.
static void tell_topic(point *p) {
    if (p->all && p->all->count) {
        p->quantiles[P99].count = p->quantiles[P999].count = 0;
        figures_add(&p->quantiles[P99], histogram_quantile(p->all, 0.99));
        figures_add(&p->quantiles[P999], histogram_quantile(p->all, 0.999));
    }
    tell_one(p, "sent", "", (double)p->sent);
    tell_one(p, "received", "", (double)p->received);
}

static void tell_point(point *p) {
    static const char *const quantiles[] = {"p50", "p99", "p99.9"};
    if (p->kind == POINT_TOPIC && p->sent)
        tell_topic(p);
    tell(p, "time", "ns", &p->ns, &p->rmws);
    for (int i = 0; i < MOST; i++)
        tell(p, quantiles[i], "ns", &p->quantiles[i], NULL);
    tell_most(p);
    tell(p, "instructions", "", &p->instructions, NULL);
    tell(p, "cycles", "", &p->cycles, NULL);
}

static void point_free(point *p) {
    free(p->ns.values);
    free(p->rmws.values);
    free(p->instructions.values);
    free(p->cycles.values);
    free(p->all);
    for (int i = 0; i < QUANTILES; i++)
        free(p->quantiles[i].values);
    free(p);
}

void suite_end(void) {
    for (int i = 0; i < point_count; i++) {
        tell_point(points[i]);
        point_free(points[i]);
    }
    point_count = 0;
    for (int i = pool_count; i-- > 0;) {
        if (pools[i].by->leave)
            pools[i].by->leave(pools[i].pool, 0);
        if (pools[i].by->destroy)
            pools[i].by->destroy(pools[i].pool);
    }
    pool_count = 0;
}
