// bench/loops.h: the loops of one contender; included once for each, in C or C++. Before it, the includer defines
//   LOOP(x)       a name of its own for x
//   LOOP(host)    a pointer to the bench_host
//   handle        the type of what the contender calls a chunk
//   LOOP_HANDS_OFF, LOOP_ONLY_HANDS_OFF   with hand-off; nothing but hand-off
// and these functions, of which those from give on are for the hand-off:
//   void *LOOP(allocate)(void *pool, handle *chunk)          the payload; dies when there is none
//   void LOOP(release)(void *pool, handle *chunk)
//   uint64_t LOOP(give)(void *pool, handle *chunk)           what is sent
//   void LOOP(given)(void *pool, handle *chunk)              the receiver is done: let go of it here
//   void *LOOP(take)(void *pool, uint64_t message, handle *chunk)   in the receiver
//   void LOOP(taken)(void *pool, handle *chunk)              ... when it has read the payload
//   uint32_t LOOP(bytes)(void *pool)                         of a chunk

#undef LOOP_TABLE
#ifdef LOOP_ONLY_HANDS_OFF
#define LOOP_HANDS_OFF
#else
static void LOOP(pair)(void *pool, uint64_t count) {
    size_t bytes = LOOP(bytes)(pool);
    for (uint64_t i = 0; i < count; i++) {
        handle chunk;
        write_lines(LOOP(allocate)(pool, &chunk), bytes);
        LOOP(release)(pool, &chunk);
    }
}

static void LOOP(pair_timed)(void *pool, uint64_t count) {
    size_t bytes = LOOP(bytes)(pool);
    for (uint64_t i = 0; i < count; i++) {
        handle chunk;
        uint64_t began = ticks();
        write_lines(LOOP(allocate)(pool, &chunk), bytes);
        LOOP(release)(pool, &chunk);
        histogram_add(LOOP(host)->latencies, ticks() - began);
    }
}

// A burst of 32 and then their release, so that nothing is tuned to a pair alone. Counted per pair.
static void LOOP(burst)(void *pool, uint64_t count) {
    size_t bytes = LOOP(bytes)(pool);
    handle chunks[32];
    for (uint64_t i = 0; i < count; i += 32) {
        for (int j = 0; j < 32; j++)
            write_lines(LOOP(allocate)(pool, &chunks[j]), bytes);
        for (int j = 0; j < 32; j++)
            LOOP(release)(pool, &chunks[j]);
    }
}

// A live set of up to 1,000, of which a random one is replaced each time.
static void LOOP(live)(void *pool, uint64_t count) {
    enum { LIVE = 1000 };
    size_t bytes = LOOP(bytes)(pool);
    static __thread handle chunks[LIVE];
    static __thread bool held[LIVE];
    uint64_t random = UINT64_C(0x9e3779b97f4a7c15);
    for (uint64_t i = 0; i < count; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        size_t at = (size_t)((random >> 32) * LIVE >> 32);
        if (held[at])
            LOOP(release)(pool, &chunks[at]);
        write_lines(LOOP(allocate)(pool, &chunks[at]), bytes);
        held[at] = true;
    }
    for (size_t at = 0; at < LIVE; at++)
        if (held[at]) {
            LOOP(release)(pool, &chunks[at]);
            held[at] = false;
        }
}
#endif

#ifdef LOOP_HANDS_OFF
// Messages go through a ring with one sender and one receiver; the receiver's index is the acknowledgement, and the
// sender keeps what it has to keep until that has passed it.
static inline void LOOP(let_go)(void *pool, handle *sent, uint64_t *released, uint64_t seen) {
    for (; *released < seen; ++*released)
        LOOP(given)(pool, &sent[*released % RING]);
}

static void LOOP(send)(void *pool, uint64_t count) {
    static __thread handle sent[RING];
    shared_state *shared = LOOP(host)->shared;
    const uint64_t window = LOOP(host)->window;
    const size_t bytes = LOOP(bytes)(pool);
    uint64_t first = get_relaxed(&shared->head), released = first, seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        handle *chunk = &sent[i % RING];
        if (i - released >= window)
            seen = await_index(&shared->tail, i - window + 1);
        LOOP(let_go)(pool, sent, &released, seen);
        fill(LOOP(allocate)(pool, chunk), bytes, i);
        shared->ring[i % RING] = LOOP(give)(pool, chunk);
        set_release(&shared->head, i + 1);
    }
    await_index(&shared->tail, first + count);
    LOOP(let_go)(pool, sent, &released, first + count);
}

// One message at a time: from before its allocation until the receiver has read it, given it back, and that was seen.
static void LOOP(send_timed)(void *pool, uint64_t count) {
    handle chunk;
    shared_state *shared = LOOP(host)->shared;
    const size_t bytes = LOOP(bytes)(pool);
    uint64_t first = get_relaxed(&shared->head);
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t began = ticks();
        fill(LOOP(allocate)(pool, &chunk), bytes, i);
        shared->ring[i % RING] = LOOP(give)(pool, &chunk);
        set_release(&shared->head, i + 1);
        await_index(&shared->tail, i + 1);
        LOOP(given)(pool, &chunk);
        histogram_add(LOOP(host)->latencies, ticks() - began);
    }
}

static void LOOP(receive)(void *pool, uint64_t count) {
    shared_state *shared = LOOP(host)->shared;
    const size_t bytes = LOOP(bytes)(pool);
    uint64_t first = get_relaxed(&shared->tail), seen = first;
    for (uint64_t i = first; i < first + count; i++) {
        handle chunk;
        if (i >= seen)
            seen = await_index(&shared->head, i + 1);
        if (!is_filled(LOOP(take)(pool, shared->ring[i % RING], &chunk), bytes, i))
            __atomic_store_n(&shared->bad.word, 1, __ATOMIC_RELAXED);
        LOOP(taken)(pool, &chunk);
        set_release(&shared->tail, i + 1);
    }
}
#endif

#if defined(LOOP_ONLY_HANDS_OFF)
#define LOOP_TABLE NULL, NULL, NULL, NULL, LOOP(send), LOOP(send_timed), LOOP(receive)
#elif defined(LOOP_HANDS_OFF)
#define LOOP_TABLE                                                                                                     \
    LOOP(pair), LOOP(pair_timed), LOOP(burst), LOOP(live), LOOP(send), LOOP(send_timed), LOOP(receive)
#else
#define LOOP_TABLE LOOP(pair), LOOP(pair_timed), LOOP(burst), LOOP(live), NULL, NULL, NULL
#endif
#undef LOOP_HANDS_OFF
#undef LOOP_ONLY_HANDS_OFF
