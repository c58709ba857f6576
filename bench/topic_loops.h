// bench/topic_loops.h: the loops of one messenger; included once for each, in C or C++. Before it, the includer defines
//   LOOP(x)       a name of its own for x
//   LOOP(host)    a pointer to the bench_host
//   channel_type     the type of what the messenger calls a channel
//   LOOP_SLEEPS   if its subscribers never poll
//   LOOP_LOSES    if messages may get lost
//   LOOP_BLOCKS   if, besides, wait waits for ever, because all that was sent arrives
// and these functions:
//   void *LOOP(loan)(channel_type *channel)         where the next message is to be written, the same until it is sent;
//                                                   NULL: no room just now
//   bool LOOP(send)(channel_type *channel)          publishes what was loaned; false: no room just now
//   const void *LOOP(poll)(channel_type *channel)   the next message; NULL: none is there
//   const void *LOOP(wait)(channel_type *channel)   the same; sleeps until there is one, but for some 20 ms at most
//   void LOOP(done)(channel_type *channel)          ends the message that poll or wait has given
//   size_t LOOP(bytes)(const channel_type *channel) of a message
//
// A message's number is its first word, and the words after it count up from there. Of a slice the numbers begin with
// host->first; any other number is of an earlier slice, or a call.

#ifdef LOOP_SLEEPS
#define LOOP_NEXT(channel) LOOP(wait)(channel)
enum { LOOP(never_polls) = 1 };
#else
#define LOOP_NEXT(channel) LOOP(poll)(channel)
enum { LOOP(never_polls) = 0 };
#endif
#ifdef LOOP_LOSES
enum { LOOP(loses) = 1 };
#else
enum { LOOP(loses) = 0 };
#endif

#ifdef LOOP_BLOCKS
enum { LOOP(blocks) = 1 };
#else
enum { LOOP(blocks) = 0 };
#endif

static inline void LOOP(message)(channel_type *channel, uint64_t number, uint64_t stamp) {
    void *data;
    unsigned tries = 0;
    while (!(data = LOOP(loan)(channel)))
        await_turn(LOOP(host), &tries);
    fill(data, LOOP(bytes)(channel), number);
    if (stamp)
        ((uint64_t *)hide(data))[1] = stamp;
    while (!LOOP(send)(channel))
        await_turn(LOOP(host), &tries);
}

// The next message of this slice; NULL: there will be none, because the last one was sent a while ago.
static inline const void *LOOP(next)(channel_type *channel, uint64_t count, bool sleeps) {
    idleness idle = {0, 0, false};
    for (unsigned tries = 0;;) {
        const void *data = sleeps ? LOOP(wait)(channel) : LOOP_NEXT(channel);
        if (data) {
            if (*(const uint64_t *)data - LOOP(host)->first < count)
                return data;
            LOOP(done)(channel);
        } else if ((sleeps || LOOP(never_polls) || await_turn(LOOP(host), &tries))
                   && is_over(LOOP(host), &idle, LOOP(loses))) {
            return NULL;
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// As fast as it goes: all of a message is written, and all of it is read and compared.

static void LOOP(publish)(void *pair, uint64_t count) {
    channel_type *channel = (channel_type *)((const channel_pair *)pair)->there;
    for (uint64_t i = 0; i < count; i++)
        LOOP(message)(channel, LOOP(host)->first + i, 0);
    set_release(&LOOP(host)->shared->head, 1);
}

static inline void LOOP(subscribe_all)(channel_type *channel, uint64_t count, line *seen) {
    bench_host *of = LOOP(host);
    const size_t bytes = LOOP(bytes)(channel);
    const void *data;
    for (uint64_t next = 0; next < count && (data = LOOP(next)(channel, count, false));) {
        uint64_t number = *(const uint64_t *)data;
        if (!is_filled((void *)(uintptr_t)data, bytes, number) || number - of->first < next)
            __atomic_store_n(&of->shared->bad.word, 1, __ATOMIC_RELAXED);
        LOOP(done)(channel);
        next = number - of->first + 1;
        of->received++;
        if (seen)
            set_release(seen, next);
    }
}

static void LOOP(subscribe)(void *pair, uint64_t count) {
    LOOP(subscribe_all)((channel_type *)((const channel_pair *)pair)->there, count, NULL);
}

// ---------------------------------------------------------------------------------------------------------------------
// What a publisher pays: it is timed for a few messages, which all subscribers then read before it goes on.

static void LOOP(publish_timed)(void *pair, uint64_t count) {
    const uint64_t most = 32;
    channel_type *channel = (channel_type *)((const channel_pair *)pair)->there;
    bench_host *of = LOOP(host);
    for (uint64_t i = 0; i < count;) {
        uint64_t few = count - i < most ? count - i : most, began = ticks();
        for (uint64_t end = i + few; i < end; i++)
            LOOP(message)(channel, of->first + i, 0);
        of->spent += ticks() - began;
        await_subscribers(of, i);
    }
    set_release(&of->shared->head, 1);
}

static void LOOP(follow)(void *pair, uint64_t count) {
    bench_host *of = LOOP(host);
    LOOP(subscribe_all)((channel_type *)((const channel_pair *)pair)->there, count,
                        &of->shared->seen[of->worker - 1]);
}

// ---------------------------------------------------------------------------------------------------------------------
// One message at a time, and its answer.

static void LOOP(ping)(void *pair, uint64_t count) {
    channel_type *there = (channel_type *)((const channel_pair *)pair)->there;
    channel_type *back = (channel_type *)((const channel_pair *)pair)->back;
    const size_t bytes = LOOP(bytes)(there);
    for (uint64_t i = 0; i < count; i++) {
        LOOP(message)(there, LOOP(host)->first + i, 0);
        const void *data = LOOP(next)(back, count, false);
        if (!data || !is_filled((void *)(uintptr_t)data, bytes, LOOP(host)->first + i))
            LOOP(host)->die("%s: an answer did not arrive as it was sent", LOOP(name));
        LOOP(done)(back);
    }
    set_release(&LOOP(host)->shared->head, 1);
}

static void LOOP(pong)(void *pair, uint64_t count) {
    channel_type *there = (channel_type *)((const channel_pair *)pair)->there;
    channel_type *back = (channel_type *)((const channel_pair *)pair)->back;
    const size_t bytes = LOOP(bytes)(there);
    for (const void *data; LOOP(host)->received < count && (data = LOOP(next)(there, count, false));) {
        uint64_t number = *(const uint64_t *)data;
        if (!is_filled((void *)(uintptr_t)data, bytes, number))
            __atomic_store_n(&LOOP(host)->shared->bad.word, 1, __ATOMIC_RELAXED);
        LOOP(done)(there);
        LOOP(host)->received++;
        LOOP(message)(back, number, 0);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A subscriber that sleeps, once a millisecond: from before the message is written until it has it.

static void LOOP(rouse)(void *pair, uint64_t count) {
    channel_type *channel = (channel_type *)((const channel_pair *)pair)->there;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    for (uint64_t i = 0; i < count; i++) {
        at.tv_nsec += 1000000;
        at.tv_sec += at.tv_nsec / 1000000000;
        at.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        LOOP(message)(channel, LOOP(host)->first + i, clock_ns());
    }
    set_release(&LOOP(host)->shared->head, 1);
}

static void LOOP(rise)(void *pair, uint64_t count) {
    channel_type *channel = (channel_type *)((const channel_pair *)pair)->there;
    const size_t bytes = LOOP(bytes)(channel);
    const uint64_t first = LOOP(host)->first;
    const void *data;
    for (uint64_t next = 0; next < count && (data = LOOP(next)(channel, count, true));) {
        const uint64_t *words = (const uint64_t *)data;
        uint64_t ns = clock_ns() - words[1], number = words[0];
        histogram_add(LOOP(host)->arrivals, (uint64_t)((double)ns / LOOP(host)->ns_per_tick));
        if (!is_filled((void *)(uintptr_t)(words + 2), bytes - 16, number + 2))
            __atomic_store_n(&LOOP(host)->shared->bad.word, 1, __ATOMIC_RELAXED);
        LOOP(done)(channel);
        next = number - first + 1;
        LOOP(host)->received++;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Before anything is measured: publishes calls until all have heard one, because some libraries take their time to find
// each other.

static void LOOP(call_on)(channel_type *channel, uint64_t listeners) {
    shared_state *shared = LOOP(host)->shared;
    for (int i = 0; i < 30000 && get_acquire(&shared->ball) < listeners; i++) {
        struct timespec pause = {0, i < 5 ? 200000 : 2000000};
        void *data = i > 0 && LOOP(blocks) ? NULL : LOOP(loan)(channel);
        if (data) {                                                // where nothing is lost, one call is enough
            fill(data, LOOP(bytes)(channel), CALL);
            for (unsigned tries = 0; tries < 64 && !LOOP(send)(channel); tries++)
                spin();
        }
        nanosleep(&pause, NULL);
    }
    if (get_acquire(&shared->ball) < listeners)
        LOOP(host)->die("%s: a subscriber hears nothing", LOOP(name));
}

// Who has heard one goes on until the others have heard one, too.
static void LOOP(listen)(channel_type *channel, uint64_t listeners) {
    shared_state *shared = LOOP(host)->shared;
    const void *data;
    for (unsigned tries = 0; !(data = LOOP_NEXT(channel));)
        await_turn(LOOP(host), &tries);
    LOOP(done)(channel);
    __atomic_fetch_add(&shared->ball.word, 1, __ATOMIC_ACQ_REL);
#ifndef LOOP_BLOCKS
    for (unsigned tries = 0; get_acquire(&shared->ball) < listeners;)
        if ((data = LOOP_NEXT(channel)))
            LOOP(done)(channel);
        else
            await_turn(LOOP(host), &tries);
#else
    (void)listeners;
#endif
}

// count: of subscribers
static void LOOP(call)(void *pair, uint64_t count) {
    const channel_pair *channels = (const channel_pair *)pair;
    LOOP(call_on)((channel_type *)channels->there, count);
    if (channels->back)
        LOOP(listen)((channel_type *)channels->back, count + 1);
}

static void LOOP(answer)(void *pair, uint64_t count) {
    const channel_pair *channels = (const channel_pair *)pair;
    LOOP(listen)((channel_type *)channels->there, count);
    if (channels->back)
        LOOP(call_on)((channel_type *)channels->back, count + 1);
}

#undef LOOP_TABLE
#define LOOP_TABLE                                                                                                     \
    LOOP(publish), LOOP(publish_timed), LOOP(subscribe), LOOP(follow), LOOP(ping), LOOP(pong), LOOP(rouse), LOOP(rise),\
        LOOP(call), LOOP(answer)
#undef LOOP_NEXT
#undef LOOP_SLEEPS
#undef LOOP_LOSES
#undef LOOP_BLOCKS
