// tests/model/protocol.c: the record protocol and the private words of the real zerocp.h, checked by GenMC in every
// interleaving and with every value that C11's memory model lets each load see: one chunk, a few clients, on a segment
// in plain memory. `make model` runs all scenarios.
// genmc --rc11 --disable-mm-detector --disable-estimation -- \
// -w -D_GNU_SOURCE -I. -DSCENARIO=3 -DWORDS=2 tests/model/protocol.c
// SCENARIO  what runs side by side; the list is in front of main()
// WORDS     borrow words of a record: with 1 all clients share it, with 2 neighbours do not, with 4 nobody does
// CRASH     thread 1 stops for ever in front of its atomic store (or read-modify-write) number CRASH, from 0
// (CRASH_2: thread 2). Whoever sweeps it joins it first: the join stands for the file lock that the kernel
// drops, which puts all that the dead one did before the sweep
// What a run can find: an assertion that fails (a chunk lost, or freed while held), or a data race on the payload.
#include <assert.h>
#include <genmc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef WORDS
#define WORDS 2
#endif
#ifndef CRASH
#define CRASH (-1)
#endif
#ifndef CRASH_2
#define CRASH_2 (-1)
#endif

static _Thread_local int steps_left = -1;                    // to the crash; -1: this thread lives on
static void step(void) { if (steps_left == 0) pthread_exit(0); if (steps_left > 0) steps_left--; }
#define ZEROCP_ACCESS() step()
// GenMC gives a failed CAS the order of success. So the failure is spelt out as a relaxed load, and the CAS itself
// assumed to win.
static bool won(bool yes) { __VERIFIER_assume(yes); return yes; }
#define ZEROCP_CAS(word, seen, next, order) __extension__({ \
    __auto_type w_ = (word); __auto_type s_ = (seen); \
    __auto_type now_ = atomic_load_explicit(w_, memory_order_relaxed); \
    bool yes_ = now_ == *s_; *s_ = now_; \
    yes_ && won(atomic_compare_exchange_strong_explicit(w_, s_, (next), order, memory_order_relaxed)); })
// figures for people: each would be one more word to order
#define ZEROCP_COUNT(counter, n) ((void)(counter))
#if SCENARIO < 190 || SCENARIO >= 210
#define ZEROCP_COUNT_FREED(counter, n) ((void)(counter))     // likewise, where nobody looks at them
#endif
#define ZEROCP_THREAD_LOCAL                                  // GenMC knows no thread-local arrays
// an execution that waits is cut off: another one has the value
#define ZEROCP_WAIT_FOR_SIBLING(round) __VERIFIER_assume(0)
// The barriers of the header. membarrier(2) makes each other thread pass a full barrier at some moment of the call, so
// of a light and a heavy barrier either all that comes before the light one is seen by all that comes behind the heavy
// one, or the other way round; two light ones order nothing (P1202R5, "Asymmetric fences"). The moments of one thread
// come one after the other: a word for each thread, on which a light barrier takes its place among the heavy ones.
#define THREADS 5                           // main is 0, the others have the numbers of their RUN
static _Thread_local int thread;
static _Atomic uint32_t moments[THREADS];
static void light_barrier(void) { atomic_fetch_add_explicit(&moments[thread], 1, memory_order_acq_rel); }
static bool heavy_barrier(void);
#define ZEROCP_LIGHT_BARRIER() light_barrier()
#define ZEROCP_HEAVY_BARRIER() heavy_barrier()
// What the header asks of the system: to wake sleepers, and to give the memory of a retired pool back.
static int wake_sleepers(uintptr_t), punch(void);
#define syscall(...) WAKE(__VA_ARGS__, 0, 0)
#define WAKE(number, word, ...) wake_sleepers((uintptr_t)(word))
#define madvise(address, bytes, advice) punch()
#define munlock(address, bytes) 0
#define sysconf(name) 64L
// for the compiler alone: GenMC would take it for a fence of the machine
#undef atomic_signal_fence
#define atomic_signal_fence(order) ((void)0)
#define clock_gettime(clock, time) (*(time) = (struct timespec){ 0, 0 }, 0)
// GenMC knows memset of constant sizes. The others are of words.
static void clear_words(uint64_t *words, size_t bytes) { for (size_t k = 0; k < bytes / 8; k++) words[k] = 0; }
#define memset(to, value, bytes) \
    __builtin_choose_expr(__builtin_constant_p(bytes), __builtin_memset(to, value, bytes), \
                          clear_words((void *)(to), bytes))
#define ZEROCP_LOG(level, ...) ((void)0)
#define pthread_key_delete(key) 0                            // called by a destructor; GenMC has none
// what no scenario calls is not compiled: a second less for each run
#define ZEROCP_STATIC
#include "zerocp.h"
#undef ZCP_MAX_LIVE_POOLS
// who looks at all pools makes the executions no longer than need be, and no layout depends on it here
#define ZCP_MAX_LIVE_POOLS 1
// nor of how many words the name of a topic has
#undef ZCP_MAX_TOPIC_BYTES
#define ZCP_MAX_TOPIC_BYTES 8
#define _Static_assert(yes, text) extern int layouts
#define ZEROCP_IMPLEMENTATION
#include "zerocp_relptr.h"
// Who dies in front of a load might as well die in front of the next store: nobody can tell.
#undef zcp_priv_load_relaxed
#undef zcp_priv_load_acquire
#undef zcp_priv_load_seq_cst
#define zcp_priv_load_relaxed(word) atomic_load_explicit(word, memory_order_relaxed)
#define zcp_priv_load_acquire(word) atomic_load_explicit(word, memory_order_acquire)
#define zcp_priv_load_seq_cst(word) atomic_load_explicit(word, memory_order_seq_cst)
#include "zerocp.h"

// ---- the segment, and each client's view of it ----
#define CLIENTS (TOPIC ? 3 : 4)
// the chunk that a scenario is about; from 110 on it is the last one, in a second leaf
#define I      (TENS == 11 ? 8 : 0)
#define TENS   (SCENARIO / 10)
// from 120, 140, 160, 190 and 300 on there are two
#define COUNT  (TENS == 12 || TENS == 14 || TENS == 16 || TENS == 19 || TOPIC ? 2 : I + 1)
#define LEAVES (I / 8 + 1)
#define CACHE  (TENS == 9 || TENS == 10 || TENS == 17 || TENS == 21 || TENS == 22) // from 90, 170, 210 a thread caches
#define TOPIC  (TENS >= 30)                 // from 300 on there are publishers and subscribers
#define WHOLE  ((TENS >= 13 && TENS < 21) || TOPIC) // clients are managers; from 130 to 209 for waiters and retirers
static struct record { _Atomic uint64_t state, size, note, borrow[6]; } chunks[COUNT];      // of up to 6 words
#define chunk chunks[I]
static _Alignas(64) unsigned char list_memory[128 + 64 * LEAVES], leases_memory[128 + 64 * LEAVES];
static zcp_priv_counts counts[CLIENTS][COUNT];
static zcp_priv_pool pools[CLIENTS];
static zcp_priv_local locals[THREADS][CLIENTS];              // what a thread keeps, as each client that it plays
#if WHOLE
// words, because to name all fields takes GenMC seconds
static _Alignas(64) uint64_t header_memory[sizeof(zcp_priv_header) / 8],
    manager_memory[CLIENTS][sizeof(zcp_manager) / 8];
static _Alignas(128) uint64_t lane_memory[CLIENTS][sizeof(zcp_priv_lane) / 8];
#define HEADER ((zcp_priv_header *)(void *)header_memory)
#if TOPIC
#define ENTRIES 1                           // of publishers; of subscribers
// All that other processes see of topics: slots, publishers, subscribers, cursors, rings of up to 2 cells.
static _Alignas(64) uint64_t tables_memory[(CLIENTS * 128 + ENTRIES * (192 + 128 + 64 * ENTRIES + 64)) / 8];
static zcp_priv_slot *const slots = (void *)tables_memory;
#define OBJECT_BYTES (512 + ENTRIES * (sizeof(zcp_publisher) + sizeof(zcp_subscriber) + 512))
static _Alignas(64) uint64_t objects_memory[CLIENTS][OBJECT_BYTES / 8];
#else
static zcp_priv_slot slots[CLIENTS];        // by the scenario's numbers of clients, so that a few will do
#endif
static zcp_manager *managers[CLIENTS];
#endif
static _Atomic uint64_t mailbox;            // a transport that orders nothing: 0, or generation + 1
// The payload, not atomic: the claimer writes its generation, every holder reads it. The memory that goes back to the
// system is written, too; as several may give it back, each thread has a copy to write to.
#define COPIES (TENS >= 15 && !TOPIC ? THREADS : 1)
static uint32_t texts[COUNT][COPIES];
static _Alignas(64) unsigned char data[64 * COUNT];          // where the header believes the payload to be
static bool punched[THREADS];

static uint32_t id_of(int client) {
    return (uint32_t)(TOPIC ? client : client % WORDS * 64 + client / WORDS);
}

static zcp_priv_lease *lease_at(uint32_t k) { return &((zcp_priv_leases *)(void *)leases_memory)->items[k]; }
#if WHOLE
// each client has one thread
static zcp_priv_local *local_at(int of_thread, int me) {
    (void)of_thread;
    return ((zcp_priv_lane *)(void *)lane_memory[me])->pools;
}
#else
static zcp_priv_local *local_at(int of_thread, int me) { return &locals[of_thread][me]; }
#endif
static zcp_priv_local *local_of(int me) { return local_at(thread, me); }
static _Atomic uint64_t *owned(int me) { return &counts[me][I].owned; }
static _Atomic uint32_t *borrowed(int me) { return &counts[me][I].borrowed; }
static void write_text(int i, uint32_t generation) {
    for (int copy = 0; copy < COPIES; copy++)
        texts[i][copy] = generation;
}

static bool is_text(int i, uint32_t generation) {
    bool is = true;
    for (int copy = 0; copy < COPIES; copy++)
        is &= texts[i][copy] == generation;
    return is;
}

static void begin(uint32_t owner, uint32_t ticket, int borrowers, int hint) {    // owner: client + 1, or 0
    zcp_mpmc_list list;
    zcp_mpmc_list_create(&list, list_memory, sizeof list_memory, COUNT, false);
    if (hint) zcp_mpmc_list_push(&list, I);
    chunk.state = zcp_priv_state(5, owner ? id_of((int)owner - 1) + 1 : 0, ticket);
    for (int c = 0; c < CLIENTS; c++) {
        if (borrowers >> c & 1) chunk.borrow[id_of(c) / 64] |= UINT64_C(1) << id_of(c) % 64;
        pools[c].records = (unsigned char *)chunks;
        pools[c].counts = counts[c];
        pools[c].record_bytes = sizeof chunk;
        pools[c].words = WORDS;
        pools[c].count = COUNT;
        pools[c].cache_chunks = CACHE;
        pools[c].leases = (zcp_priv_leases *)(void *)leases_memory;
        pools[c].list = list;
    }
    for (int i = 0; i < COUNT; i++) write_text(i, 5);
#if WHOLE
    zcp_priv_thread = 1;
    HEADER->pools[0].state = zcp_priv_pool_state(1, ZCP_PRIV_POOL_LIVE);
    if (SCENARIO > 131) HEADER->signals.slept[0] = (UINT64_C(1) << CLIENTS) - 1;     // have slept: a word less
    for (int c = 0; c < CLIENTS; c++) {
        managers[c] = (zcp_manager *)(void *)manager_memory[c];
        managers[c]->state = ZCP_PRIV_OPEN;
        managers[c]->header = (zcp_priv_header *)(void *)header_memory;
        zcp_priv_view *view = &managers[c]->view;
        view->client = id_of(c);
        view->lanes = (zcp_priv_lane *)(void *)lane_memory[c] - 1;       // thread 1's is there
        view->pools[0] = view->first.pools[0] = &pools[c];
        view->first.last[1] = UINT64_MAX;                    // the pool serves 1 byte
        view->first.order[1] = ZCP_PRIV_NO_POOL;
        view->first.count = 1;
        view->table = &view->first;
        pools[c].data = data;
        pools[c].chunk_size = 1;
        pools[c].stride = 64;
        pools[c].slot = &HEADER->pools[0];
        pools[c].signals = &HEADER->signals;
        pools[c].slots = slots;
        pools[c].clients = CLIENTS;
        pools[c].serial = 1;
        pools[c].punches = true;
    }
#endif
}

// As a thread with a number: with a lease, if there is one, and a cache where the scenario has one.
static void get_ready_as(int of_thread, int me) {
    zcp_priv_local *local = local_at(of_thread, me);
    zcp_priv_local_begin(&pools[me], local, id_of(me), false);
    local->peak_check_at = INT32_MAX;                      // nobody looks at all counters for a peak
}

static void get_ready(int me) { get_ready_as(thread, me); }
static void put_on_loan(int me) { if (local_of(me)->lease) zcp_priv_loan_take(&pools[me], local_of(me), I / 8); }
static void get_loan_as(int of_thread, int me) {
    get_ready_as(of_thread, me);
    zcp_priv_loan_take(&pools[me], local_at(of_thread, me), I / 8);
}

static void give_up(int me) { zcp_priv_lease_end(&pools[me], local_of(me)); }
static void flush(int me) { zcp_priv_cache_flush(&pools[me], local_of(me)); }

// What a thread keeps as a client: the chunk, in the generation after G; somebody has used that, and is through.
static void cache_as(int of_thread, int me) {
    zcp_priv_local *local = local_at(of_thread, me);
    get_ready_as(of_thread, me);
    chunk.state = zcp_priv_cached(5, local->cached_bits);
    zcp_priv_cache_put(local, 0, zcp_priv_chunk_id(&pools[me], I, 6));
}

static uint32_t reclaim(int me) { return zcp_priv_pool_reclaim(&pools[me]); }
static void attend(int me) { zcp_priv_local_answer_recall(&pools[me], local_of(me)); }
static void resume(int me) {                                 // as after 65 releases
    local_of(me)->cache_pause = 0;
    zcp_priv_cache_resume(&pools[me], local_of(me));
}

// ---- what the scenarios are made of: the real functions, and a user of the payload ----
static _Thread_local bool garbled;
static void use_of(int i, uint32_t generation) {             // while it is held
    uint64_t s = atomic_load_explicit(&chunks[i].state, memory_order_relaxed);
    assert(ZCP_PRIV_GENERATION(s) == generation && zcp_priv_is_held(s));     // never freed while held
    // asserted at the end: an assert here would order the read by its branch
    garbled |= !is_text(i, generation);
}

static void use(uint32_t generation) { use_of(I, generation); }
static void owner_release(int me, uint32_t g) {
    assert(zcp_priv_owner_release(&pools[me], local_of(me), I, id_of(me), g) == ZCP_PRIV_HELD);
}

static void give_back(int me) { zcp_priv_give_back(&pools[me], I, id_of(me)); }
static bool acquire_and_return(int me, uint32_t g) {
    if (zcp_priv_borrow(&pools[me], I, id_of(me), g) != ZCP_PRIV_HELD) return false;
    use(g);
    give_back(me);
    return true;
}

static bool take_quickly(zcp_priv_local *local, uint32_t *i, uint32_t *g) {    // as zcp_chunk_allocate
    uint64_t held, at;
    zcp_priv_record *record;
    bool lent = local->cached == 0;
    if (!local->lease || !(lent ? !zcp_priv_recalled(local) : zcp_priv_cache_begin(local, local->lease, 1)))
        return false;
    if (!lent) {
        held = zcp_priv_cache_top(local, local->cached);
        record = zcp_priv_uncache(local, at = held & (ZCP_MAX_CHUNKS - 1), held);
    } else if (!zcp_priv_take_loan(local, &at, &held, &record)) return false;
    zcp_priv_describe_leased(local, local->lease, record, 1, lent);
    *i = (uint32_t)at;
    *g = ZCP_PRIV_GENERATION(held);
    return true;
}

// as zcp_chunk_allocate, without the look before EXHAUSTED
static bool allocate(int me, uint32_t *g) {
    uint32_t i;
    zcp_priv_local *local = local_of(me);
    if (!take_quickly(local, &i, g)) {
#if TENS >= 21
        if (local->lease && zcp_priv_recalled(local)) zcp_priv_local_answer_recall(&pools[me], local);
#endif
        if (!zcp_priv_take(&pools[me], local, id_of(me), &i, g)) return false;
#if TENS >= 21
        zcp_priv_describe_by(&pools[me], local, i, 1);
#endif
    }
    assert(i == I);
    write_text(I, *g);
    return true;
}

static bool take_any(int me) {                               // as zcp_chunk_allocate, with the look before EXHAUSTED
    static zcp_priv_view view[CLIENTS];
    uint32_t i, g;
    zcp_priv_place place;
    zcp_priv_local *local = local_of(me);
    if (take_quickly(local, &i, &g) || zcp_priv_take(&pools[me], local, id_of(me), &i, &g)) return true;
    view[me].client = id_of(me);
    view[me].first.pools[0] = &pools[me];
    view[me].first.count = 1;
    zcp_priv_scan_and_mend(&view[me], &view[me].first, 0);
    bool again;
    return zcp_priv_view_take_anywhere(&view[me], &view[me].first, 0, &place, &again);
}

static void allocate_and_release(int me) {                   // by the record alone
    uint32_t g;
    if (!allocate(me, &g)) return;
    use(g);
    atomic_store_explicit(owned(me), 0, memory_order_relaxed);
    owner_release(me, g);
}

static void sweep(int dead) {                                // as zcp_priv_sweep_pool, but only of the chunk's leaf
    bool garbage = false;
    zcp_priv_sweep_leaf(&pools[3], I / 8, id_of(dead), NULL, &garbage);  // step model-sweep-chunks
    assert(!garbage);
    zcp_priv_leases_sweep(&pools[3], id_of(dead));  // step model-sweep-leases
}

static void mail(uint32_t g) {
    // As T1.
    atomic_thread_fence(memory_order_release);  // M1
    atomic_store_explicit(&mailbox, (uint64_t)g + 1, memory_order_relaxed);
}

static bool receive(uint32_t *g) {
    uint64_t token = atomic_load_explicit(&mailbox, memory_order_relaxed);
    // As T2.
    atomic_thread_fence(memory_order_acquire);  // M2
    *g = (uint32_t)token - 1;
    return token;
}

static void send_token(int me, uint32_t g) {                 // as zcp_chunk_token
    assert(zcp_priv_record_token(&pools[me], I, id_of(me), g, false) == ZCP_PRIV_HELD);  // step model-mark
    mail(g);  // step model-send
}

static void release_slowly(int me, uint32_t i, uint32_t g) { // as zcp_priv_release_slow, but tells nobody
    switch (zcp_priv_release_one(&pools[me], i, g)) {
    case 0: assert(zcp_priv_release_borrowed(&pools[me], i, id_of(me), g) == ZCP_PRIV_RELEASED); break;
    case 1:
        assert(zcp_priv_release_owned(&pools[me], local_of(me), i, id_of(me), g, false) == ZCP_PRIV_RELEASED);
        break;
    }
}

static void release(int me, uint32_t g) {                    // as zcp_chunk_release
    zcp_priv_local *local = local_of(me);
    switch (I < local->fast_limit ? zcp_priv_release_fast(local, I, (uint64_t)g << 32 | I) : ZCP_PRIV_NOT_FAST) {
    case ZCP_PRIV_NOT_FAST: release_slowly(me, I, g); return;
    case ZCP_PRIV_OUTSIDE_LOAN: zcp_priv_free_outside_loan(local, I); break;
    default: break;
    }
    if (zcp_priv_recalled(local)) zcp_priv_local_answer_recall(&pools[me], local);
}

static bool acquire(int me, uint32_t g) { return zcp_priv_acquire(&pools[me], I, id_of(me), g) == ZCP_PRIV_HELD; }
static void clone_(int me, uint32_t g) { assert(zcp_priv_clone(&pools[me], I, g)); }
static bool allocated(int me) {
    uint32_t g;
    if (!allocate(me, &g)) return false;
    use(g);
    release(me, g);
    return true;
}

static void allocated_sent(int me) { uint32_t g; if (allocate(me, &g)) { send_token(me, g); use(g); release(me, g); } }
static bool acquired(int me, uint32_t g) { bool got = acquire(me, g); if (got) { use(g); release(me, g); } return got; }
// If nobody is to be attended to: else it is over.
static void paired(int me) {
    uint32_t i, g;
    if (!take_quickly(local_of(me), &i, &g)) return;
    write_text(I, g);
    use(g);
    release(me, g);
}

static void paired_slowly(int me) {                          // as in a pool that serves for another one
    uint32_t i, g;
    if (!zcp_priv_take(&pools[me], local_of(me), id_of(me), &i, &g)) return;
    zcp_priv_describe_by(&pools[me], local_of(me), i, 1);
    write_text(I, g);
    use(g);
    release(me, g);
}

static void received(int me)       { uint32_t g; if (receive(&g)) acquired(me, g); }
static void holds(int me, uint32_t handles) { *owned(me) = zcp_priv_owned(5, handles); }

// ---- scenarios: client 0 is the owner, 1 and 2 are borrowers, 3 sweeps. G is the chunk's generation at the
// start. Read by ./check: number, [crash first..last store]
#define G 5
static pthread_t thread_1, thread_2;                         // those that may die

#if SCENARIO == 1
// two borrowers return what the owner left
#define START  begin(0, 3, 6, 0)
#define RUN_1  give_back(1)
#define RUN_2  give_back(2)
#elif SCENARIO == 2
// the owner releases, a borrower returns
#define START  begin(1, 2, 2, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  give_back(1)
#elif SCENARIO == 3
// the owner releases, two borrowers return
#define START  begin(1, 3, 6, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  use(G); give_back(1)
#define RUN_3  use(G); give_back(2)
#elif SCENARIO == 4
// acquire against release and re-allocation
#define START  begin(1, 1, 0, 0)
#define RUN_1  owner_release(0, G); allocate_and_release(0)
#define RUN_2  acquire_and_return(1, G)
#elif SCENARIO == 5
// the owner releases, a stale acquire retracts
#define START  begin(1, 2, 0, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  assert(!acquire_and_return(1, G - 1))
#elif SCENARIO == 6
// the last borrower returns, a stale acquire retracts
#define START  begin(0, 2, 2, 0)
#define RUN_1  use(G); give_back(1)
#define RUN_2  assert(!acquire_and_return(2, G - 1))
#elif SCENARIO == 7
// two stale acquires, and the owner releases
#define START  begin(1, 2, 0, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  acquire_and_return(1, G - 1)
#define RUN_3  acquire_and_return(2, G - 1)
#elif SCENARIO == 8
// a borrower returns, another one acquires with a good token
#define START  begin(0, 2, 2, 0)
#define RUN_1  use(G); give_back(1)
#define RUN_2  acquire_and_return(2, G)
#elif SCENARIO == 9
// two return, a third one allocates what they free, and writes
#define START  begin(0, 3, 6, 0)
#define RUN_1  use(G); give_back(1)
#define RUN_2  use(G); give_back(2)
#define RUN_3  allocate_and_release(3)
#elif SCENARIO == 10
// a chunk is allocated, its token sent over a transport that orders nothing, acquired, read, returned
#define START  begin(0, 0, 0, 1)
#define RUN_1  uint32_t g; if (allocate(0, &g)) { send_token(0, g); *owned(0) = 0; owner_release(0, g); }
#define RUN_2  uint32_t g; if (receive(&g)) acquire_and_return(1, g)
#elif SCENARIO == 11
// the free list: two clients allocate one chunk, while a sweep of one that held nothing pushes it again
#define START  begin(0, 0, 0, 1)
#define RUN_1  allocate_and_release(0)
#define RUN_2  allocate_and_release(1)
#define RUN_3  sweep(2)
#elif SCENARIO == 12
// a sweep of the dead owner, a borrower returns
#define START  begin(1, 2, 2, 0)
#define RUN_1  sweep(0)
#define RUN_2  use(G); give_back(1)
#elif SCENARIO == 13
// a sweep of the dead owner, its token is acquired
#define START  begin(1, 2, 0, 0)
#define RUN_1  sweep(0)
#define RUN_2  acquire_and_return(1, G)
#elif SCENARIO == 14
// two sweeps, of the dead owner and of a dead borrower
#define START  begin(1, 2, 2, 0)
#define RUN_1  sweep(0)
#define RUN_2  sweep(1)
#elif SCENARIO == 15
// two sweeps, of two dead borrowers
#define START  begin(0, 3, 6, 0)
#define RUN_1  sweep(1)
#define RUN_2  sweep(2)
#elif SCENARIO == 16
// a sweep of a dead borrower, the owner releases
#define START  begin(1, 2, 2, 0)
#define RUN_1  sweep(1)
#define RUN_2  owner_release(0, G)
#elif SCENARIO == 17
// a sweep of a dead borrower, a stale acquire retracts
#define START  begin(0, 2, 2, 0)
#define RUN_1  sweep(1)
#define RUN_2  acquire_and_return(2, G - 1)
#elif SCENARIO == 18
// a sweep of a dead owner, a borrower returns, another one acquires
#define START  begin(1, 2, 2, 0)
#define RUN_1  sweep(0)
#define RUN_2  use(G); give_back(1)
#define RUN_3  acquire_and_return(2, G)
#elif SCENARIO == 19
// the owner releases, a borrower returns, a stale acquire retracts, a sweep of a dead borrower
#define START  begin(1, 3, 10, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  give_back(1)
#define RUN_3  acquire_and_return(2, G - 1)
#define RUN_4  sweep(3)
#elif SCENARIO == 20
// as 10, and a third client allocates
#define START  begin(0, 0, 0, 1)
#define RUN_1  uint32_t g; if (allocate(0, &g)) { send_token(0, g); *owned(0) = 0; owner_release(0, g); }
#define RUN_2  uint32_t g; if (receive(&g)) acquire_and_return(1, g)
#define RUN_3  allocate_and_release(2)
#elif SCENARIO == 21
// the last borrower returns, while a stale hint leads another client to the chunk
#define START  begin(0, 2, 2, 1)
#define RUN_1  use(G); give_back(1)
#define RUN_2  allocate_and_release(0)
#elif SCENARIO == 22
// the owner frees directly, a borrower returns, a stale hint leads a third client to the chunk, who writes
#define START  begin(1, 2, 2, 1)
#define RUN_1  use(G); owner_release(0, G)
#define RUN_2  use(G); give_back(1)
#define RUN_3  allocate_and_release(2)
#elif SCENARIO == 23
// the owner frees directly what was returned before, a good token is acquired
#define START  begin(1, 2, 0, 0)
#define RUN_1  use(G); owner_release(0, G)
#define RUN_2  acquire_and_return(1, G)
#elif SCENARIO == 24
// the owner frees directly, a good token is acquired twice, a stale hint leads to the chunk
#define START  begin(1, 2, 0, 1)
#define RUN_1  use(G); owner_release(0, G)
#define RUN_2  acquire_and_return(1, G); acquire_and_return(1, G)
#define RUN_3  allocate_and_release(2)
#elif SCENARIO == 25
// the owner frees directly, one borrower returns, one acquires
#define START  begin(1, 2, 2, 0)
#define RUN_1  use(G); owner_release(0, G)
#define RUN_2  use(G); give_back(1)
#define RUN_3  acquire_and_return(2, G)
#elif SCENARIO == 26
// the owner frees directly, two acquire
#define START  begin(1, 1, 0, 0)
#define RUN_1  use(G); owner_release(0, G)
#define RUN_2  acquire_and_return(1, G)
#define RUN_3  acquire_and_return(2, G)
#elif SCENARIO == 27
// a sweep of the dead owner of a chunk that nobody has borrowed yet, a good token is acquired
#define START  begin(1, 1, 0, 0)
#define RUN_1  sweep(0)
#define RUN_2  acquire_and_return(1, G)
#elif SCENARIO == 28
// the same, while a stale hint leads a third client to the chunk, who writes
#define START  begin(1, 0, 0, 1)
#define RUN_1  use(G); sweep(0)
#define RUN_2  allocate_and_release(2)
#elif SCENARIO == 29
// the same owner had announced to borrow it; what is freed is allocated, sent and returned before its bit is cleared
#define START  begin(1, 1, 1, 1)
#define RUN_1  sweep(0)
#define RUN_2  uint32_t g; if (allocate(1, &g)) { send_token(1, g); *owned(1) = 0; owner_release(1, g); }
#define RUN_3  uint32_t g; if (receive(&g)) acquire_and_return(2, g)

#elif SCENARIO == 30
// the owner dies releasing, a borrower returns, a sweep follows [crash 0..3]
#define START  begin(1, 2, 2, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  use(G); give_back(1)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 31
// a borrower dies returning, the owner releases, a sweep follows [crash 0..3]
#define START  begin(1, 2, 2, 0)
#define RUN_1  give_back(1)
#define RUN_2  owner_release(0, G)
#define RUN_3  AFTER_1; sweep(1)
#elif SCENARIO == 32
// a borrower dies acquiring and returning, the owner releases, a sweep follows [crash 0..5]
#define START  begin(1, 1, 0, 0)
#define RUN_1  acquire_and_return(1, G)
#define RUN_2  owner_release(0, G)
#define RUN_3  AFTER_1; sweep(1)
#elif SCENARIO == 33
// a stale acquire dies, the owner releases, a sweep follows [crash 0..4]
#define START  begin(1, 2, 0, 0)
#define RUN_1  acquire_and_return(1, G - 1)
#define RUN_2  owner_release(0, G)
#define RUN_3  AFTER_1; sweep(1)
#elif SCENARIO == 34
// a borrower dies returning, another one returns, a sweep follows [crash 0..3]
#define START  begin(0, 3, 6, 0)
#define RUN_1  give_back(1)
#define RUN_2  use(G); give_back(2)
#define RUN_3  AFTER_1; sweep(1)
#elif SCENARIO == 35
// a sweep of the dead owner dies, a borrower returns, another client sweeps both [crash 0..5]
#define START  begin(1, 2, 2, 0)
#define RUN_1  sweep(0)
#define RUN_2  use(G); give_back(1)
#define RUN_3  AFTER_1; sweep(0); sweep(2)
#elif SCENARIO == 36
// a client dies allocating and releasing, another one allocates, a sweep follows [crash 0..8]
#define START  begin(0, 0, 0, 1)
#define RUN_1  allocate_and_release(0)
#define RUN_2  allocate_and_release(1)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 37
// the owner dies releasing, a good token is acquired, a sweep follows, the freed chunk is allocated [crash 0..4]
#define START  begin(1, 2, 0, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  acquire_and_return(1, G)
#define RUN_3  AFTER_1; sweep(0); allocate_and_release(3)
#elif SCENARIO == 38
// the owner dies releasing, a borrower dies returning, two sweeps follow [crash 0..3] [crash_2 0..3]
#define START  begin(1, 2, 2, 0)
#define RUN_1  owner_release(0, G)
#define RUN_2  give_back(1)
#define RUN_3  AFTER_1; sweep(0)
#define RUN_4  AFTER_2; sweep(1)
#elif SCENARIO == 39
// the owner dies releasing, while a stale hint leads another client to the chunk, a sweep follows [crash 0..2]
#define START  begin(1, 0, 0, 1)
#define RUN_1  owner_release(0, G)
#define RUN_2  allocate_and_release(1)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 40
// the owner dies in a never-shared release, a stale hint leads another client to the chunk, a sweep follows [crash
// 0..3]
#define START  begin(1, 0, 0, 1); holds(0, 1)
#define RUN_1  release(0, G)
#define RUN_2  allocate_and_release(1)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 41
// the same, while a stale acquire retracts [crash 0..3]
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  release(0, G)
#define RUN_2  acquire_and_return(1, G - 1)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 42
// a never-shared release, another process and a sibling acquire by a token that nobody made
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  use(G); release(0, G)
#define RUN_2  assert(!acquired(1, G))
#define RUN_3  assert(!acquired(0, G))
#elif SCENARIO == 43
// the same, while a stale hint leads a third client to the chunk, who writes
#define START  begin(1, 0, 0, 1); holds(0, 1)
#define RUN_1  use(G); release(0, G)
#define RUN_2  assert(!acquired(1, G))
#define RUN_3  allocated(2)
#elif SCENARIO == 44
// a guess acquires when the token has just been made
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  acquired(1, G)
#elif SCENARIO == 45
// two siblings each make a token of their clone and drop it, another process acquires
#define START  begin(1, 0, 0, 0); holds(0, 2)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  send_token(0, G); use(G); release(0, G)
#define RUN_3  acquired(1, G)
#elif SCENARIO == 46
// an owner dies making a token and releasing, a guess acquires, a sweep follows [crash 0..4]
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  send_token(0, G); release(0, G)
#define RUN_2  acquired(1, G)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 47
// a dead owner's chunk is swept, of which no token was made, a guess acquires
#define START  begin(1, 0, 0, 0)
#define RUN_1  sweep(0)
#define RUN_2  assert(!acquire_and_return(1, G))
#elif SCENARIO == 48
// a token is made again by a second handle; the token arrives, so it must lead to the chunk
#define START  begin(1, 0, 0, 0); holds(0, 2)
#define RUN_1  send_token(0, G); use(G)
#define RUN_2  uint32_t g; if (receive(&g)) assert(acquired(1, g))
#define FINISH release(0, G); release(0, G)

#elif SCENARIO == 50
// a thread allocates and releases, its sibling acquires with a stale token
#define START  begin(0, 0, 0, 1)
#define RUN_1  allocated(0)
#define RUN_2  assert(!acquired(0, G - 1))
#elif SCENARIO == 51
// a never-shared release, a stale hint leads another process to the chunk
#define START  begin(1, 0, 0, 1); holds(0, 1)
#define RUN_1  use(G); release(0, G)
#define RUN_2  allocated(1)
#elif SCENARIO == 52
// a never-shared release, a stale hint leads a sibling to the chunk
#define START  begin(1, 0, 0, 1); holds(0, 1)
#define RUN_1  use(G); release(0, G)
#define RUN_2  allocated(0)
#elif SCENARIO == 53
// a never-shared release and an allocation, a sibling's and another process's stale acquire
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  use(G); release(0, G); allocated(0)
#define RUN_2  assert(!acquired(0, G - 1))
#define RUN_3  assert(!acquired(1, G - 1))
#elif SCENARIO == 54
// a thread makes a token and drops its clone, its sibling releases, another process acquires
#define START  begin(1, 0, 0, 0); holds(0, 2)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  received(1)
#elif SCENARIO == 55
// the same, and a sibling acquires: the process is owner and borrower at once
#define START  begin(1, 0, 0, 0); holds(0, 2)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  received(0)
#elif SCENARIO == 56
// a thread allocates, sends and releases, its sibling acquires, another process allocates through a stale hint
#define START  begin(0, 0, 0, 1)
#define RUN_1  allocated_sent(0)
#define RUN_2  received(0)
#define RUN_3  allocated(1)
#elif SCENARIO == 57
// an owner's handle, a sibling's borrowed one, and another process allocates and writes
#define START  begin(1, 2, 1, 1); holds(0, 1); *borrowed(0) = 1
#define RUN_1  use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  allocated(1)
#elif SCENARIO == 58
// the same, a thread acquires again before it releases both
#define START  begin(1, 1, 0, 1); holds(0, 1)
#define RUN_1  use(G); release(0, G)
#define RUN_2  if (acquire(0, G)) { clone_(0, G); use(G); release(0, G); use(G); release(0, G); }
#elif SCENARIO == 59
// owner and borrower in one process, a borrower in another one
#define START  begin(1, 3, 3, 0); holds(0, 1); *borrowed(0) = 1
#define RUN_1  use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  use(G); give_back(1)
#elif SCENARIO == 60
// two siblings acquire, the owner (another process) releases
#define START  begin(2, 1, 0, 0); holds(1, 1)
#define RUN_1  acquired(0, G)
#define RUN_2  acquired(0, G)
#define RUN_3  use(G); release(1, G)
#elif SCENARIO == 61
// two siblings return, another process allocates and writes
#define START  begin(0, 2, 1, 1); *borrowed(0) = 2
#define RUN_1  use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  allocated(1)
#elif SCENARIO == 62
// a thread returns, its sibling acquires again, the owner (another process) releases
#define START  begin(2, 2, 1, 0); *borrowed(0) = 1; holds(1, 1)
#define RUN_1  use(G); release(0, G)
#define RUN_2  acquired(0, G)
#define RUN_3  use(G); release(1, G)
#elif SCENARIO == 63
// a thread releases what it had shared, and allocates again; its sibling acquires with the first token
#define START  begin(1, 1, 0, 0); holds(0, 1)
#define RUN_1  use(G); release(0, G); allocated(0)
#define RUN_2  acquired(0, G)
#elif SCENARIO == 64
// two owner's clones, and another process allocates and writes
#define START  begin(1, 0, 0, 1); holds(0, 2)
#define RUN_1  use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  allocated(1)
#elif SCENARIO == 65
// a thread returns the last, a sibling's stale acquire, a third allocates what is freed
#define START  begin(0, 2, 1, 0); *borrowed(0) = 1
#define RUN_1  use(G); release(0, G)
#define RUN_2  acquired(0, G - 1)
#define RUN_3  allocated(0)
#elif SCENARIO == 66
// a thread returns, another process allocates and sends, the thread acquires that; its sibling has the first token
#define START  begin(0, 2, 1, 0); *borrowed(0) = 1
#define RUN_1  uint32_t g; use(G); release(0, G); if (allocate(1, &g)) { send_token(1, g); acquired(0, g); \
               release(1, g); }
#define RUN_2  acquired(0, G)
#elif SCENARIO == 67
// the same, and it is another thread that allocates and sends, so that no fence of the first one helps
#define START  begin(0, 2, 1, 0); *borrowed(0) = 1
#define RUN_1  use(G); release(0, G); received(0)
#define RUN_2  acquired(0, G)
#define RUN_3  allocated_sent(1)
#elif SCENARIO == 68
// a thread acquires, and gives the owner's handle back; its sibling's hold is then the borrowed one: looked at, cloned,
// released
#define START  begin(1, 1, 0, 0); holds(0, 1)
#define RUN_1  acquired(0, G)
#define RUN_2  assert(zcp_priv_holds(&pools[0], I, G)); clone_(0, G); use(G); release(0, G); release(0, G)
#elif SCENARIO == 69
// the same without the look and the clone
#define START  begin(1, 1, 0, 0); holds(0, 1)
#define RUN_1  acquired(0, G)
#define RUN_2  use(G); release(0, G)

// Hints on loan. Thread 1 of client 0 is the lessee, if nothing else is said; found(1) is a client without a lease,
// to whom no hint is left but that.
#elif SCENARIO == 70
// two clients lease, allocate, release and give up
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); allocated(0); give_up(0)
#define RUN_2  get_ready(1); allocated(1); give_up(1)
#elif SCENARIO == 71
// one does, beside a client without a lease
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); allocated(0); give_up(0)
#define RUN_2  allocated(1)
#elif SCENARIO == 72
// a lessee allocates and releases into its loan, a client without a lease takes the chunk from the loan, another has a
// stale hint
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0); zcp_mpmc_list_push(&pools[0].list, I)
#define RUN_1  allocated(0)
#define RUN_2  allocated(1)
#define RUN_3  allocated(2)
#elif SCENARIO == 73
// what is free all the time is found while its hint is put on loan,
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); put_on_loan(0)
#define RUN_2  assert(allocated(1))
#elif SCENARIO == 74
// while it comes back from a loan,
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0)
#define RUN_1  give_up(0)
#define RUN_2  assert(allocated(1))
#elif SCENARIO == 75
// and while it does both, in this order
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); put_on_loan(0); give_up(0)
#define RUN_2  assert(allocated(1))
#elif SCENARIO == 76
// the other way round it may be missed; nothing is lost
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0)
#define RUN_1  give_up(0); get_ready(0); put_on_loan(0)
#define RUN_2  allocated(1)
#elif SCENARIO == 77
// what is free all the time is found while its dead lessee is swept
#define START  begin(0, 0, 0, 1); get_loan_as(0, 2)
#define RUN_1  sweep(2)
#define RUN_2  assert(allocated(1))
#elif SCENARIO == 78
// a dead lessee is swept, a client looks for a chunk, another one takes the lease and allocates
#define START  begin(0, 0, 0, 1); get_loan_as(0, 2)
#define RUN_1  sweep(2)
#define RUN_2  allocated(1)
#define RUN_3  get_ready(0); allocated(0)
#elif SCENARIO == 79
// a lessee dies, a client looks for a chunk, a sweep follows, and its client leases [crash 0..40]
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); allocated(0); give_up(0)
#define RUN_2  allocated(1)
#define RUN_3  AFTER_1; sweep(0); get_ready(3); allocated(3)
#elif SCENARIO == 80
// a never-shared release into a loan that names the chunk already, and the give-up; that hint leads another process to
// the chunk
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0); holds(0, 1); chunk.state = zcp_priv_state(G, id_of(0) + 1, 0)
#define RUN_1  use(G); release(0, G); give_up(0)
#define RUN_2  allocated(1)
#elif SCENARIO == 81
// the last borrower returns, to the list, while a lessee follows a stale hint and gives up; a third client allocates
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0); chunk.state = zcp_priv_state(G, 0, 2); \
               *zcp_priv_borrow_word((zcp_priv_record *)&chunk, id_of(1)) |= zcp_priv_borrow_bit(id_of(1))
#define RUN_1  allocated(0); give_up(0)
#define RUN_2  use(G); give_back(1)
#define RUN_3  allocated(3)
#elif SCENARIO == 82
// a lease is given up, another client has it next, a third one allocates
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0)
#define RUN_1  give_up(0)
#define RUN_2  get_ready(1); allocated(1)
#define RUN_3  allocated(2)
#elif SCENARIO == 83
// two have one lease after the other, and put the hint on loan; what the second one shows is what stays
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0)
#define RUN_1  give_up(0)
#define RUN_2  get_ready(1); put_on_loan(1)
#elif SCENARIO == 84
// a marked chunk's last handle goes back to a loan, a borrower returns, a stale hint leads a third client to the chunk
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0); holds(0, 1); chunk.state = zcp_priv_state(G, id_of(0) + 1, 2); \
               *zcp_priv_borrow_word((zcp_priv_record *)&chunk, id_of(1)) |= zcp_priv_borrow_bit(id_of(1))
#define RUN_1  use(G); release(0, G)
#define RUN_2  use(G); give_back(1)
#define RUN_3  allocated(2)
#elif SCENARIO == 85
// a lessee makes a token and drops its clone, its sibling releases into its own loan, another process acquires
#define START  begin(0, 0, 0, 1); get_loan_as(2, 0); holds(0, 2); chunk.state = zcp_priv_state(G, id_of(0) + 1, 0)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  received(1)
#elif SCENARIO == 86
// a chunk is allocated from a loan, its token sent and acquired, the owner releases and allocates again
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0)
#define RUN_1  allocated_sent(0); allocated(0)
#define RUN_2  received(1)
#elif SCENARIO == 87
// as 85, and it is a sibling that acquires
#define START  begin(0, 0, 0, 1); get_loan_as(2, 0); holds(0, 2); chunk.state = zcp_priv_state(G, id_of(0) + 1, 0)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  use(G); release(0, G)
#define RUN_3  received(0)
#elif SCENARIO == 88
// the last borrower returns, while a lessee follows a stale hint in its loan, and writes
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0); chunk.state = zcp_priv_state(G, 0, 2); \
               *zcp_priv_borrow_word((zcp_priv_record *)&chunk, id_of(1)) |= zcp_priv_borrow_bit(id_of(1))
#define RUN_1  allocated(0); give_up(0)
#define RUN_2  use(G); give_back(1)

// Chunks in the cache of a thread: with CACHE each release of a client that is ready goes there, if it frees.
#elif SCENARIO == 90
// a chunk goes to the cache and is allocated again, while a stale acquire retracts, and a stale hint leads a third
// client to it
#define START  begin(1, 0, 0, 1); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); allocated(0); flush(0)
#define RUN_2  assert(!acquire_and_return(1, G - 1))
#define RUN_3  allocated(2)
#elif SCENARIO == 91
// the same, with a token of what goes to the cache
#define START  begin(1, 1, 0, 0); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); allocated(0); flush(0)
#define RUN_2  acquired(1, G)
#elif SCENARIO == 92
// a cache is flushed, a stale hint leads another client to the chunk
#define START  begin(1, 0, 0, 1); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); flush(0)
#define RUN_2  allocated(1)
#elif SCENARIO == 93
// the same, and the hint comes to a loan, from which a client without a lease takes it
#define START  begin(0, 0, 0, 1); get_loan_as(1, 0); holds(0, 1); chunk.state = zcp_priv_state(G, id_of(0) + 1, 0)
#define RUN_1  use(G); release(0, G); allocated(0); zcp_priv_local_answer_recall(&pools[0], local_of(0)); give_up(0)
#define RUN_2  allocated(1)
#elif SCENARIO == 94
// a client dies with a chunk in its cache, or near it; a stale hint leads another one to it, a sweep follows [crash
// 0..11]
#define START  begin(1, 0, 0, 1); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); allocated(0); flush(0)
#define RUN_2  allocated(1)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 95
// the same, and a token of what goes to the cache is acquired [crash 0..7]
#define START  begin(1, 1, 0, 0); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); flush(0)
#define RUN_2  acquired(1, G)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 96
// a marked chunk's last handle goes to the cache if a borrower has returned; allocated and written again
#define START  begin(1, 2, 2, 0); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); allocated(0); flush(0)
#define RUN_2  use(G); give_back(1)
#elif SCENARIO == 97
// the same, while a stale hint leads a third client to the chunk
#define START  begin(1, 2, 2, 1); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); flush(0)
#define RUN_2  use(G); give_back(1)
#define RUN_3  allocated(2)
#elif SCENARIO == 98
// a forged token of the generation in the cache leads nowhere
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); flush(0)
#define RUN_2  assert(!acquired(1, G + 1))
#elif SCENARIO == 99
// nor for a sibling, whose borrow bit is the owner's
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); flush(0)
#define RUN_2  assert(!acquired(0, G + 1))
#elif SCENARIO == 100
// a sibling acquires a token of what goes to the cache and is allocated again
#define START  begin(1, 1, 0, 0); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); allocated(0); flush(0)
#define RUN_2  acquired(0, G)
#elif SCENARIO == 101
// a thread makes a token and drops its clone, its sibling releases into its cache, another process acquires
#define START  begin(1, 0, 0, 0); holds(0, 2)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  get_ready(0); use(G); release(0, G); flush(0)
#define RUN_3  received(1)
#elif SCENARIO == 102
// what comes from the cache is sent, acquired by another process, and goes to the cache or not
#define START  begin(1, 0, 0, 0); holds(0, 1)
#define RUN_1  get_ready(0); use(G); release(0, G); allocated_sent(0); flush(0)
#define RUN_2  received(1)
#elif SCENARIO == 103
// a dead client's cached chunk is swept by two at once, while a stale acquire retracts
#define START  begin(0, 0, 0, 0); chunk.state = zcp_priv_cached(G, zcp_priv_cached_bits(id_of(0), 0))
#define RUN_1  sweep(0)
#define RUN_2  sweep(0)
#define RUN_3  assert(!acquire_and_return(1, G))
#elif SCENARIO == 104
// as 101, and it is a sibling that acquires
#define START  begin(1, 0, 0, 0); holds(0, 2)
#define RUN_1  send_token(0, G); use(G); release(0, G)
#define RUN_2  get_ready(0); use(G); release(0, G); flush(0)
#define RUN_3  received(0)
#elif SCENARIO == 105
// what comes from the cache is of a new generation
#define START  begin(1, 0, 0, 0); holds(0, 1); get_ready_as(1, 0)
#define RUN_1  uint32_t g; use(G); release(0, G); assert(allocate(0, &g) && g != G); release(0, g); flush(0)
#define RUN_2  assert(!acquired(1, G))
#elif SCENARIO == 106
// the same of a chunk of which a token was made
#define START  begin(1, 1, 0, 0); holds(0, 1); get_ready_as(1, 0)
#define RUN_1  uint32_t g; use(G); release(0, G); if (allocate(0, &g)) { assert(g != G); release(0, g); } flush(0)
#define RUN_2  acquired(1, G)

// Two leaves: the chunk is in the second one, and everybody begins to look at the first.
#elif SCENARIO == 110
// what is free all the time is found while its leaf is put on loan, and a third client corrects the hint of the leaf
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); put_on_loan(0)
#define RUN_2  zcp_priv_leaf_is_hinted_well(&pools[2].list, 1)
#define RUN_3  assert(allocated(1))
#elif SCENARIO == 111
// two siblings allocate, one with a lease, one without
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); allocated(0)
#define RUN_2  allocated(0)
#elif SCENARIO == 112
// two lessees, and one hint
#define START  begin(0, 0, 0, 1)
#define RUN_1  get_ready(0); allocated(0); give_up(0)
#define RUN_2  get_ready(1); allocated(1); give_up(1)
#elif SCENARIO == 113
// the hint of a leaf is set and corrected at once
#define START  begin(0, 0, 0, 0)
#define RUN_1  zcp_mpmc_list_push(&pools[0].list, I)
#define RUN_2  zcp_priv_leaf_is_hinted_well(&pools[1].list, 1)

// Two chunks.
#elif SCENARIO == 120
// two chunks are free, but have no hints: one client looks at every record before it says EXHAUSTED, a lessee allocates
#define START  begin(0, 0, 0, 0); chunks[1].state = chunk.state
#define RUN_1  get_ready(0); take_any(0)
#define RUN_2  assert(take_any(1))

// Somebody waits for a chunk: when all are done, nobody who has found none sleeps beside a free one without having been
// woken since. Who dies between freeing and waking wakes nobody; then the next release in that pool does (141), or a
// recovery (137), which a waiter makes itself each ZCP_PRIV_WAIT_MS. One chunk:
#elif SCENARIO == 130
// a never-shared release into a loan, a waiter
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  use(G); let_go(0, G)
#define RUN_2  waited(1)
#elif SCENARIO == 131
// a never-shared release to the list, a waiter
#define START  begin(0, 0, 0, 0); own(I, 0)
#define RUN_1  use(G); let_go(0, G)
#define RUN_2  waited(1)
#elif SCENARIO == 132
// a marked chunk's owner and its borrower release, a waiter
#define START  begin(1, 2, 2, 0); holds(0, 1); *borrowed(1) = 1
#define RUN_1  use(G); let_go(0, G)
#define RUN_2  use(G); let_go(1, G)
#define RUN_3  waited(2)
#elif SCENARIO == 133
// the last borrower returns, a waiter
#define START  begin(0, 2, 2, 0); *borrowed(1) = 1
#define RUN_1  use(G); let_go(1, G)
#define RUN_2  waited(2)
#elif SCENARIO == 134
// the last borrower returns, a stale acquire retracts, a waiter
#define START  begin(0, 2, 2, 0); *borrowed(1) = 1
#define RUN_1  use(G); let_go(1, G)
#define RUN_2  acquired_let_go(0, G - 1)
#define RUN_3  waited(2)
#elif SCENARIO == 135
// a release into a loan, two waiters
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  let_go(0, G)
#define RUN_2  waited(1)
#define RUN_3  waited(2)
#elif SCENARIO == 136
// a lessee releases, allocates again and releases, a waiter
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  let_go(0, G); taken_let_go(0)
#define RUN_2  waited(1)
#elif SCENARIO == 137
// the owner dies releasing into a loan, a waiter, a recovery follows [crash 0..7]
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  let_go(0, G)
#define RUN_2  waited(1)
#define RUN_3  AFTER_1; recover(0, 3)
#elif SCENARIO == 138
// a waiter dies, another one waits, the owner releases [crash 0..4]
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  waited(1)
#define RUN_2  waited(2)
#define RUN_3  let_go(0, G)
#elif SCENARIO == 139
// a release into a loan, two waiters, of whom one releases the chunk if it gets it
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  let_go(0, G)
#define RUN_2  waited_let_go(1)
#define RUN_3  waited(2)

// Two chunks:
#elif SCENARIO == 140
// a release into a loan, one to the list, a waiter
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 1)
#define RUN_1  let_go_of(0, 0, G)
#define RUN_2  let_go_of(1, 1, G)
#define RUN_3  waited(2)
#elif SCENARIO == 141
// an owner dies releasing, a waiter; another owner's release, after that, wakes [crash 0..7]
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 1)
#define RUN_1  let_go_of(0, 0, G)
#define RUN_2  waited(2)
#define RUN_3  AFTER_1; let_go_of(1, 1, G)

// A pool retires: when all are done, every chunk is retired, and its memory was given back after all use of it. A dead
// retirer's or releaser's part is done by a recovery (156, 157). One chunk:
#elif SCENARIO == 150
// a never-shared release into a loan
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  use(G); let_go(0, G)
#define RUN_2  retire(3)
#elif SCENARIO == 151
// a never-shared release to the list
#define START  begin(0, 0, 0, 0); own(I, 0)
#define RUN_1  use(G); let_go(0, G)
#define RUN_2  retire(3)
#elif SCENARIO == 152
// a marked chunk's owner and its borrower release
#define START  begin(1, 2, 2, 0); holds(0, 1); *borrowed(1) = 1
#define RUN_1  use(G); let_go(0, G)
#define RUN_2  use(G); let_go(1, G)
#define RUN_3  retire(3)
#elif SCENARIO == 153
// a lessee allocates and releases
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0)
#define RUN_1  taken_let_go(0)
#define RUN_2  retire(3)
#elif SCENARIO == 154
// the retirer releases the last one, to the list; a thread that has just begun allocates, if it may, and releases
#define START  begin(0, 0, 0, 0); own(I, 3)
#define RUN_1  taken_let_go(0)
#define RUN_2  retire(3); let_go(3, G)
#elif SCENARIO == 155
// the last borrower returns, a stale acquire retracts
#define START  begin(0, 2, 2, 0); *borrowed(1) = 1
#define RUN_1  use(G); let_go(1, G)
#define RUN_2  acquired_let_go(0, G - 1)
#define RUN_3  retire(3)
#elif SCENARIO == 156
// the retirer dies, an owner releases, a recovery follows [crash 0..8]
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  retire(3)
#define RUN_2  use(G); let_go(0, G)
#define RUN_3  AFTER_1; recover(3, 2)
#elif SCENARIO == 157
// an owner dies releasing, a recovery follows [crash 0..13]
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  use(G); let_go(0, G)
#define RUN_2  retire(3)
#define RUN_3  AFTER_1; recover(0, 2)
#elif SCENARIO == 158
// a forged token of the generation that is retired leads nowhere
#define START  begin(0, 0, 0, 0)
#define RUN_1  assert(!acquire(1, G)); zcp_priv_after_free(&pools[1])
#define RUN_2  retire(3)
#elif SCENARIO == 159
// a lessee releases a marked chunk
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0); chunk.state += ZCP_PRIV_TOKEN_TICKET
#define RUN_1  let_go(0, G)
#define RUN_2  retire(3)

// Two chunks:
#elif SCENARIO == 160
// the retirer is done before; a release into a loan, one to the list
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 1); retire(3)
#define RUN_1  use_of(0, G); let_go_of(0, 0, G)
#define RUN_2  use_of(1, G); let_go_of(1, 1, G)
#elif SCENARIO == 161
// the same beside the retirer
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 1)
#define RUN_1  use_of(0, G); let_go_of(0, 0, G)
#define RUN_2  use_of(1, G); let_go_of(1, 1, G)
#define RUN_3  retire(3)
#elif SCENARIO == 162
// as 160, by two siblings
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 1); counts[0][1].owned = zcp_priv_owned(G, 1); \
               managers[1]->view.pools[0] = &pools[0]; retire(3)
#define RUN_1  use_of(0, G); let_go_of(0, 0, G)
#define RUN_2  use_of(1, G); let_go_of(1, 1, G)
#elif SCENARIO == 163
// one thread releases both into its loan
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 0)
#define RUN_1  let_go_of(0, 0, G); let_go_of(1, 0, G)
#define RUN_2  retire(3)
#elif SCENARIO == 164
// the same, and the first chunk is another process's, which dies before it looks: one sibling looks, the other one
// releases; a recovery follows
#define START  begin(0, 0, 0, 0); own(0, 1); own(1, 0); retire(3)
#define RUN_1  use_of(0, G); release_slowly(1, 0, G)
#define RUN_2  use_of(1, G); let_go_of(1, 0, G)
#define RUN_3  zcp_priv_after_free(&pools[0])
#define FINISH zcp_priv_after_free(&pools[3])

// A chunk, and caches:
#elif SCENARIO == 170
// a thread caches and ends, a waiter
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  let_go(0, G); leave(0)
#define RUN_2  waited(1)
#elif SCENARIO == 171
// a thread caches, allocates from there and releases, a waiter
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  let_go(0, G); taken_let_go(0)
#define RUN_2  waited(1)
#elif SCENARIO == 172
// a thread caches and ends, the pool retires
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  use(G); let_go(0, G); leave(0)
#define RUN_2  retire(3)

// Without a cache again:
#elif SCENARIO == 180
// a lessee releases a marked chunk, a waiter
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0); chunk.state += ZCP_PRIV_TOKEN_TICKET
#define RUN_1  let_go(0, G)
#define RUN_2  waited(1)
#elif SCENARIO == 181
// a release into a loan, a waiter, while a sibling thread of it waits for something else
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(I, 0)
#define RUN_1  let_go(0, G)
#define RUN_2  waited(1)
#define RUN_3  zcp_priv_sleep_announce(&slots[1], &HEADER->signals, 1, 2)

// Two chunks, as many as two clients hold. Each of them frees one and asks for one, by a look at every record: by count
// there is one for each, so no look may say that there is none. It may have been disturbed.
#elif SCENARIO == 190
// a never-shared release into a loan, one to the list
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 1)
#define RUN_1  free_one(0, 0, G); asks(0)
#define RUN_2  free_one(1, 1, G); asks(1)
#elif SCENARIO == 191
// the last borrower returns, a never-shared release to the list
#define START  begin(0, 2, 1, 0); own(1, 1)
#define RUN_1  give_back(0); asks(0)
#define RUN_2  free_one(1, 1, G); asks(1)
#elif SCENARIO == 192
// a marked chunk's owner releases, a never-shared release to the list
#define START  begin(1, 2, 0, 0); own(1, 1)
#define RUN_1  owner_release(0, G); asks(0)
#define RUN_2  free_one(1, 1, G); asks(1)
#elif SCENARIO == 193
// a thread gives back what it caches, a never-shared release to the list
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 1); \
               chunks[1].state = zcp_priv_cached(G - 1, local_of(0)->cached_bits); \
               zcp_priv_cache_put(local_of(0), 0, zcp_priv_chunk_id(&pools[0], 1, G))
#define RUN_1  flush(0); asks(0)
#define RUN_2  free_one(1, 0, G); asks(1)
#elif SCENARIO == 194
// a dead owner is swept, a never-shared release to the list
#define START  begin(0, 0, 0, 0); own(0, 1); own(1, 2)
#define RUN_1  sweep(2); asks(3)
#define RUN_2  free_one(1, 0, G); asks(1)
#elif SCENARIO == 195
// as 190, and the first one does it again
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(0, 0); own(1, 1)
#define RUN_1  free_one(0, 0, G); asks_twice(0)
#define RUN_2  free_one(1, 1, G); asks(1)
#elif SCENARIO == 196
// as 190, and the first one finds the hint of what the second one frees in its loan
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(1, 0); own(0, 1)
#define RUN_1  uint32_t i, g; free_one(0, 1, G); take_quickly(local_of(0), &i, &g)
#define RUN_2  free_one(1, 0, G); asks(1)
#elif SCENARIO == 197
// as 190, but each has the other chunk
#define START  begin(0, 0, 0, 1); get_loan_as(0, 0); own(1, 0); own(0, 1)
#define RUN_1  free_one(0, 1, G); asks(0)
#define RUN_2  free_one(1, 0, G); asks(1)

// Somebody takes the chunk from the cache of another client's thread, which is idle or at work. It is thread 1 of
// client 0 that caches, if nothing else is said.
#elif SCENARIO == 210
// the thread is idle: the chunk is had
#define START  begin(0, 0, 0, 0); cache_as(3, 0)
#define RUN_1  assert(reclaim(1) == 1)
#define RUN_2  (void)0
#elif SCENARIO == 211
// it allocates the chunk and releases it, the other one allocates what it gets, and writes
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  paired(0); flush(0)
#define RUN_2  if (reclaim(1)) allocated(1)
#elif SCENARIO == 212
// it releases into its cache, the other one allocates what it gets, and writes
#define START  begin(1, 0, 0, 0); holds(0, 1); get_ready_as(1, 0)
#define RUN_1  use(G); release(0, G); flush(0)
#define RUN_2  if (reclaim(1)) allocated(1)
#elif SCENARIO == 213
// two others, who allocate nothing
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  paired(0); flush(0)
#define RUN_2  reclaim(1)
#define RUN_3  reclaim(2)
#elif SCENARIO == 214
// it gives back what it caches
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  attend(0)
#define RUN_2  if (reclaim(1)) allocated(1)
#elif SCENARIO == 215
// it dies allocating and releasing, and is swept, beside the other one [crash 0..7]
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  paired(0); flush(0)
#define RUN_2  reclaim(1)
#define RUN_3  AFTER_1; sweep(0)
#elif SCENARIO == 216
// it allocates twice
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  paired(0); paired(0); flush(0)
#define RUN_2  if (reclaim(1)) allocated(1)
#elif SCENARIO == 217
// the other one dies, and is swept [crash 0..7]
#define START  begin(0, 0, 0, 0); cache_as(2, 0)
#define RUN_1  reclaim(1)
#define RUN_2  paired(0); flush(0)
#define RUN_3  AFTER_1; sweep(1)
#elif SCENARIO == 218
// it gives its lease up, and another client's thread has it next, and caches
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  paired(0); zcp_priv_local_end(&pools[0], local_of(0)); get_ready(2); allocated(2); flush(2); give_up(2)
#define RUN_2  reclaim(1)
#elif SCENARIO == 219
// it takes the chunk in place of one of another pool
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  paired_slowly(0); flush(0)
#define RUN_2  if (reclaim(1)) allocated(1)
#elif SCENARIO == 220
// it sees that somebody wants chunks, caches again, and allocates
#define START  begin(0, 0, 0, 0); cache_as(1, 0)
#define RUN_1  if (zcp_priv_recalled(local_of(0))) { attend(0); resume(0); allocated(0); } paired(0); flush(0)
#define RUN_2  if (reclaim(1)) allocated(1)
#elif SCENARIO == 221
// a thread that is stopped while it takes keeps the chunk
#define START  begin(0, 0, 0, 0); cache_as(3, 0); zcp_priv_cache_begin(local_at(3, 0), local_at(3, 0)->lease, 1)
#define RUN_1  assert(reclaim(1) == 0)
#define RUN_2  (void)0
#define FINISH chunk.state = zcp_priv_state(6, 0, 0); zcp_mpmc_list_push(&pools[0].list, I)

// Topics. Thread 1 is the publisher, of client 0, with a ring of one cell; thread 2 the subscriber, of client 1, if
// nothing else is said. A payload tells of which publisher it is, and which message. There are two chunks. When all are
// done, each of them is free, or stands in the books of a publisher; and a subscriber that is there can read on to the
// last message.
#elif SCENARIO == 300
// the only cell is freed and written anew, while a subscriber reads the message that is in there, or the new one
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0)
#define RUN_1  assert(publish(0)); reuse(0)
#define RUN_2  read_next(1)
#elif SCENARIO == 301
// the same of two messages, and the subscriber reads twice
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0)
#define RUN_1  publish(0); publish(0); reuse(0)
#define RUN_2  read_next(1); read_next(1)
#elif SCENARIO == 302
// a reliable subscriber, which the publisher does not overtake
#define RELIABLE
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0)
#define RUN_1  publish(0); reuse(0)
#define RUN_2  read_next(1)
#elif SCENARIO == 303
// a subscriber comes and reads, while the publisher frees the cell
#define START  begin_topics(); open_publisher(0, 1); publish(0)
#define RUN_1  publish(0); reuse(0)
#define RUN_2  open_subscriber(1, 1); read_next(1)
#elif SCENARIO == 304
// a subscriber comes and reads, while the publisher looks who is there, and frees a cell only after that
#define START  begin_topics(); open_publisher(0, 1)
#define RUN_1  publish(0); publish(0); reuse(0)
#define RUN_2  open_subscriber(1, 1); read_next(1)
#elif SCENARIO == 305
// a publisher gets the entry of one that had two cells, while a subscriber learns who publishes
#define START  begin_topics(); open_publisher(0, 2); publish(0); zcp_publisher_close(publisher(0)); \
               open_subscriber(1, 0)
#define RUN_1  open_publisher(0, 1); publish(0); publish(0)
#define RUN_2  read_next(1)
#elif SCENARIO == 306
// a dead publisher is swept and its entry used again for the same message, while a subscriber reads it
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0); die(0)
#define RUN_1  if (!sweep_topics(2, 0, true)) { open_publisher(2, 1); publish(2); }
#define RUN_2  read_next(1)
#define FINISH sweep_topics(2, 0, true)
#elif SCENARIO == 307
// a dead publisher is swept by who does not wait for subscribers, while one reads
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0); die(0)
#define RUN_1  sweep_topics(2, 0, true); reuse(2)
#define RUN_2  read_next(1)
#define FINISH sweep_topics(2, 0, true)
#elif SCENARIO == 308
// a dead publisher is swept, while a subscriber reads its last message: it is not lost
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0); die(0)
#define RUN_1  sweep_topics(2, 0, false); reuse(2)
#define RUN_2  assert(read_next(1) == 1)
#define FINISH sweep_topics(2, 0, false)
#elif SCENARIO == 309
// a dead publisher is swept, while a subscriber comes and reads
#define START  begin_topics(); open_publisher(0, 1); publish(0); die(0)
#define RUN_1  sweep_topics(2, 0, false); reuse(2)
#define RUN_2  open_subscriber(1, 1); read_next(1)
#define FINISH sweep_topics(2, 0, true)
#elif SCENARIO == 310
// a dead subscriber is swept, and its entry used again by one that reads
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0); die(1)
#define RUN_1  sweep_topics(0, 1, false)
#define RUN_2  if (is_free_for(2)) { open_subscriber(2, 1); assert(begin_read(2) == 1); }
#define FINISH if (subscriber(2)->reading) { assert(claims(2)); zcp_subscriber_done(subscriber(2)); }
#elif SCENARIO == 311
// a subscriber reads and leaves, while the publisher frees the cell
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0)
#define RUN_1  publish(0); reuse(0)
#define RUN_2  read_next(1); zcp_subscriber_close(subscriber(1))
#elif SCENARIO == 312
// a subscriber that reads leaves, and another one gets its entry, while the publisher frees the cell
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0); learn_readers(0); begin_read(1)
#define RUN_1  zcp_priv_cells_free(publisher(0), 1); reuse(0)
#define RUN_2  read_on(1); zcp_subscriber_close(subscriber(1))
#define RUN_3  if (is_free_for(2)) open_subscriber(2, 0)
#elif SCENARIO == 313
// a reliable subscriber meets the publisher that has the entry of one whose message it has read
#define RELIABLE
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0); read_next(1); \
               zcp_publisher_close(publisher(0)); open_publisher(0, 1); publish(0)
#define RUN_1  publish(0); reuse(0)
#define RUN_2  read_next(1)
#elif SCENARIO == 314
// a sibling takes back what all have read, while the publisher's thread publishes
#define START  begin_topics(); open_publisher(0, 1)
#define RUN_1  zcp_publisher_notify(publisher(0), 0); zcp_publisher_notify(publisher(0), 0)
#define RUN_2  zcp_priv_rings_collect(managers[0], false)
#elif SCENARIO == 315
// a reliable subscriber comes, while the publisher publishes and frees a cell: no message that comes is overtaken
#define RELIABLE
#define START  begin_topics(); open_publisher(0, 1); publish(0)
#define RUN_1  publish(0); publish(0)
#define RUN_2  open_subscriber(1, 0); read_next(1)

// Whoever sleeps has been woken, if there is something for him. He looks again each ZCP_PRIV_WAIT_MS.
#elif SCENARIO == 320
// a subscriber waits for a message
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); learn_readers(0)
#define RUN_1  publish(0)
#define RUN_2  wait_message(1)
#elif SCENARIO == 321
// the publisher waits for a reliable subscriber
#define RELIABLE
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0)
#define RUN_1  wait_room(0)
#define RUN_2  read_next(1)
#elif SCENARIO == 322
// the publisher waits for a reliable subscriber, which leaves
#define RELIABLE
#define START  begin_topics(); open_publisher(0, 1); open_subscriber(1, 1); publish(0)
#define RUN_1  wait_room(0)
#define RUN_2  zcp_subscriber_close(subscriber(1))
#endif

// ---- waiters, and pools that retire ----
static bool is_absent(int t) {                               // no scenario has it
#ifndef RUN_4
    if (t == 4) return true;
#endif
#ifndef RUN_3
    if (t == 3) return true;
#endif
    return t == 0;
}

static bool heavy_barrier(void) {
    atomic_thread_fence(memory_order_seq_cst);
    for (int t = 1; t < THREADS; t++)
        if (!is_absent(t))
            atomic_fetch_add_explicit(&moments[t], 1, memory_order_acq_rel);
    atomic_thread_fence(memory_order_seq_cst);
    return true;
}

#if WHOLE
static bool sleeps[THREADS];
static int sleeper[THREADS];                                 // which client it is
// Values of wakes: what a sleeper waits to see changed; what it was when a waker woke the client's threads.
static uint32_t slept_on[THREADS], woke_at[THREADS][CLIENTS];
static int wake_sleepers(uintptr_t word) {
    step();
    for (int c = 0; c < CLIENTS; c++) {
        if (word != (uintptr_t)&slots[c].wakes) continue;
        woke_at[thread][c] = atomic_load_explicit(&slots[c].wakes, memory_order_relaxed);
    }
    return 0;
}

static int punch(void) {
    step();
    for (int i = 0; i < COUNT; i++) texts[i][thread % COPIES] = 0;
    punched[thread] = true;
    return 0;
}

// never shared
static void own(int i, int me) {
    chunks[i].state = zcp_priv_state(5, id_of(me) + 1, 0);
    counts[me][i].owned = zcp_priv_owned(5, 1);
}

static void let_go_of(int i, int me, uint32_t g) {
    zcp_chunk it = {managers[me], data, (uint32_t)i, g};
    zcp_chunk_release(&it);
}

static void let_go(int me, uint32_t g) { let_go_of(I, me, g); }
// As zcp_priv_wait_round.
static bool waits(int me, uint32_t *i, uint32_t *g) {
    zcp_priv_place place;
    bool again;
    // As W4.
    uint32_t wakes = zcp_priv_load_acquire(&slots[me].wakes);  // M3
    zcp_priv_sleep_announce(&slots[me], &HEADER->signals, (uint32_t)me, 1);  // step model-said
    zcp_priv_wait_announce(&pools[me]);
    // As A4.
    ZEROCP_HEAVY_BARRIER();  // M4
    if (!zcp_priv_view_take_anywhere(&managers[me]->view, &managers[me]->view.first, 0, &place, &again)) {
        slept_on[thread] = wakes;
        sleeper[thread] = me;
        sleeps[thread] = true;
        return false;
    }
    *i = place.i;
    *g = place.generation;
    write_text((int)*i, *g);
    return true;
}

static void waited(int me)          { uint32_t i, g; waits(me, &i, &g); }
static void waited_let_go(int me) {
    uint32_t i, g;
    if (!waits(me, &i, &g)) return;
    use_of((int)i, g);
    let_go_of((int)i, me, g);
}

static void taken_let_go(int me) {                           // as zcp_chunk_allocate by the hints
    zcp_priv_place place;
    if (!zcp_priv_take_hinted(managers[me], &managers[me]->view.first, 0, &place)) return;
    write_text((int)place.i, place.generation);
    use_of((int)place.i, place.generation);
    let_go_of((int)place.i, me, place.generation);
}

static void acquired_let_go(int me, uint32_t g) {            // as zcp_chunk_acquire
    if (acquire(me, g)) { use(g); let_go(me, g); }
    else zcp_priv_after_free(&pools[me]);  // step model-left
}

static void free_one(int me, uint32_t i, uint32_t g) {       // as zcp_chunk_release, but tells nobody
    zcp_priv_local *local = local_of(me);
    switch (i < local->fast_limit ? zcp_priv_release_fast(local, i, (uint64_t)g << 32 | i) : ZCP_PRIV_NOT_FAST) {
    case ZCP_PRIV_NOT_FAST: release_slowly(me, i, g); break;
    case ZCP_PRIV_OUTSIDE_LOAN: zcp_priv_free_outside_loan(local, i); break;
    default: break;
    }
}

static bool asks_for(int me, zcp_priv_place *place) {        // as the look before EXHAUSTED
    zcp_priv_view *view = &managers[me]->view;
    uint64_t freed = zcp_priv_view_freed_sum(view, &view->first, 0);
    zcp_priv_scanning outcome = zcp_priv_scan_once(view, &view->first, 0, place, &freed);
    assert(outcome != ZCP_PRIV_NONE_FREE);
    return outcome == ZCP_PRIV_CLAIMED;
}

static void asks(int me) { zcp_priv_place place; asks_for(me, &place); }
static void asks_twice(int me) {
    zcp_priv_place place;
    if (!asks_for(me, &place)) return;
    free_one(me, place.i, place.generation);
    asks(me);
}

// as zcp_priv_view_leave
static void leave(int me) { zcp_priv_local_end(&pools[me], local_of(me)); zcp_priv_after_free(&pools[me]); }
// As zcp_priv_catch_up_retiring, by who may give memory back.
static void tell(int me) {
    if (zcp_priv_view_find_retiring(&managers[me]->view)) zcp_priv_view_announce_retiring(&managers[me]->view);
    assert(!zcp_priv_view_empty_retiring(&managers[me]->view));
}

static void retire(int me) { assert(zcp_priv_pool_retire_begin(managers[me], 0) == ZCP_OK); tell(me); }
// as zcp_priv_recover, by a client that has seen the epoch change
static void recover(int dead, int me) {
    zcp_priv_failure untold = { ZCP_OK, 0, "" };
    zcp_priv_catch_up_number(managers[me], 0, &untold);
    tell(me);  // step tell-again
    bool garbage = false;
    zcp_priv_sweep_leaf(&pools[me], 0, id_of(dead), NULL, &garbage);
    zcp_priv_leases_sweep(&pools[me], id_of(dead));
    zcp_priv_after_free(&pools[me]);
}

static void check_end(void) {
    bool any_free = false, any_kept = false;
    for (int i = 0; i < COUNT; i++)
        any_free |= zcp_priv_is_free(chunks[i].state), any_kept |= !zcp_priv_is_retired(chunks[i].state);
    for (int t = 0; t < THREADS; t++) {
        uint32_t woke = 0;
        for (int w = 0; w < THREADS; w++) if (woke_at[w][sleeper[t]] > woke) woke = woke_at[w][sleeper[t]];
        assert(!sleeps[t] || !any_free || woke > slept_on[t]);         // nobody sleeps beside a free chunk
    }
    if (TENS < 15 || HEADER->pools[0].state == zcp_priv_pool_state(1, ZCP_PRIV_POOL_LIVE)) return;
    assert(!any_kept);                                       // all is retired,
    assert(HEADER->pools[0].state == zcp_priv_pool_state(1, ZCP_PRIV_POOL_GONE));
    bool is_punched = false;
    for (int t = 0; t < THREADS; t++) is_punched |= punched[t];
    assert(is_punched);                                      // and its memory given back
}
#else
static int wake_sleepers(uintptr_t word) { return 0; }
static int punch(void) { return 0; }
#endif

// ---- topics ----
#if TOPIC
#ifdef RELIABLE
#define IS_RELIABLE true
#else
#define IS_RELIABLE false
#endif

static zcp_publisher *publisher(int me) {
    return zcp_priv_publisher_at((zcp_priv_topics *)(void *)objects_memory[me], 0);
}

static zcp_subscriber *subscriber(int me) {
    return zcp_priv_subscriber_at((zcp_priv_topics *)(void *)objects_memory[me], 0);
}

static zcp_priv_tables tables(void) { return zcp_priv_tables_of(managers[0]); }

// Two chunks are free; client 0's thread has them on loan.
static void begin_topics(void) {
    begin(0, 0, 0, 1);
    chunks[1].state = chunk.state;
    zcp_mpmc_list_push(&pools[0].list, 1);
    get_loan_as(0, 0);
    zcp_priv_last_failures.within = true;                    // as if in a call: nobody saves messages
    for (int c = 0; c < CLIENTS; c++) {
        zcp_manager *manager = managers[c];
        zcp_priv_topics *topics = (zcp_priv_topics *)(void *)objects_memory[c];
        manager->itself = manager;
        manager->management.base = tables_memory;
        manager->view.signals = &HEADER->signals;
        manager->geometry.max_clients = CLIENTS;
        manager->geometry.topics_offset = CLIENTS * sizeof(zcp_priv_slot);
        manager->geometry.publishers = topics->publishers = ENTRIES;
        manager->geometry.subscribers = topics->subscribers = ENTRIES;
        manager->geometry.ring_cells = topics->ring_cells = 2;
        topics->publisher_bytes = (sizeof(zcp_publisher) + 512) / 64 * 64;
        topics->subscriber_bytes = (sizeof(zcp_subscriber) + 512) / 64 * 64;
        manager->topics = topics;
    }
}

// As zcp_priv_publisher_open, in the first entry.
static void open_publisher(int me, uint32_t depth) {
    zcp_priv_tables t = tables();
    zcp_publisher_desc desc = { 0 };
    zcp_publisher *p = zcp_priv_publisher_make(managers[me], &t, 0, &desc, depth, 0);
    zcp_priv_publisher_begin(p, &t);
    p->state = ZCP_PRIV_OBJECT_OPEN;
}

// As zcp_priv_subscriber_open, in the first entry.
static void open_subscriber(int me, uint32_t history) {
    zcp_priv_tables t = tables();
    zcp_subscriber_desc desc = { .reliable = IS_RELIABLE };
    zcp_subscriber *s = zcp_priv_subscriber_make(managers[me], &t, 0, &desc);
    zcp_priv_subscriber_begin(s, &t, history);
    s->state = ZCP_PRIV_OBJECT_OPEN;
}

// Is the first entry free for a subscriber of that client?
static bool is_free_for(int me) {
    zcp_priv_tables t = tables();
    return zcp_priv_entry_find(managers[me], &t, false) == 0;
}

// The memory of a process is gone with it.
static void die(int me) { publisher(me)->state = subscriber(me)->state = ZCP_PRIV_OBJECT_CLOSED; }
static void learn_readers(int me) { zcp_priv_readers_learn(publisher(me)); }
static bool claims(int me) {
    zcp_subscriber *s = subscriber(me);
    return s->reading_cursor->serial == s->reading_serial && s->reading_cursor->claim == s->reading_token;
}

// A chunk of its own, whose payload that is.
static bool write_chunk(int me, uint32_t text, zcp_chunk *it) {
    uint32_t i, g;
    if (!take_quickly(local_of(me), &i, &g)) {
        if (me == 0 || !zcp_priv_take(&pools[me], local_of(me), id_of(me), &i, &g)) return false;
        zcp_priv_describe_by(&pools[me], local_of(me), i, 1);
    }
    write_text((int)i, text);
    zcp_priv_handle_set(it, managers[me], data, zcp_priv_chunk_id(&pools[me], i, g));
    return true;
}

// Uses a chunk that is free, if there is one.
static void reuse(int me) { zcp_chunk it; if (write_chunk(me, 0, &it)) zcp_chunk_release(&it); }
static uint32_t text_of(uint64_t source, uint64_t number) { return (uint32_t)(source * 16 + number); }
// As zcp_publisher_publish. false: there is no chunk, or a reliable subscriber is late.
static bool publish(int me) {
    zcp_publisher *p = publisher(me);
    uint32_t overtaken = 0;
    zcp_chunk it;
    bool room = true;
    if (!write_chunk(me, text_of(p->serial, p->next + 1), &it)) return false;
    zcp_priv_books_enter(p);
    if (p->next - p->tail == p->depth) room = zcp_priv_room_make(p, &overtaken);
    if (room) zcp_priv_message_show(p, (uint64_t)it.generation << 32 | it.index, 1);
    zcp_priv_books_leave(p);
    if (!room) zcp_chunk_release(&it);
    return room;
}

// Reads the message that it holds.
static void read_on(int me) {
    zcp_subscriber *s = subscriber(me);
    uint32_t i = (uint32_t)s->reading_token;
    uint64_t state = atomic_load_explicit(&chunks[i].state, memory_order_relaxed);
    assert(ZCP_PRIV_GENERATION(state) == s->reading_token >> 32 && zcp_priv_is_held(state));     // never freed
    garbled |= !is_text((int)i, text_of(s->reading_serial, s->reading_head));
}

// Begins to read the next message, if there is one; its number.
static uint32_t begin_read(int me) {
    zcp_message message;
    if (zcp_priv_receive_once(subscriber(me), &message) != ZCP_OK) return 0;
    assert(message.lost == 0 || !IS_RELIABLE);
    read_on(me);
    return (uint32_t)message.number;
}

// Reads the next message, if there is one; its number.
static uint32_t read_next(int me) {
    uint32_t number = begin_read(me);
    if (number != 0) zcp_subscriber_done(subscriber(me));
    return number;
}

// As zcp_priv_slot_sweep. true: it is draining.
static bool sweep_topics(int me, int dead, bool reliable_only) {
    bool garbage = false, drains;
    zcp_priv_view_sweep_topics(managers[me], id_of(dead), reliable_only, false, true, &garbage, &drains);
    assert(!garbage);
    return drains;
}

static void sleep_on(int me, uint32_t wakes) {
    slept_on[thread] = wakes;
    sleeper[thread] = me;
    sleeps[thread] = true;
}

// As zcp_priv_receive_wait.
static void wait_message(int me) {
    zcp_subscriber *s = subscriber(me);
    zcp_priv_sleep sleep = { .manager = managers[me], .slot = &slots[me] };
    // As W4.
    uint32_t wakes = zcp_priv_load_acquire(&slots[me].wakes);
    zcp_priv_receive_announce(&sleep, &s, 1);
    if (read_next(me) == 0) sleep_on(me, wakes);
}

// As zcp_priv_room_need.
static void wait_room(int me) {
    zcp_publisher *p = publisher(me);
    uint32_t overtaken = 0;
    zcp_priv_sleep sleep = { .manager = managers[me], .slot = &slots[me] };
    // As W4.
    uint32_t wakes = zcp_priv_load_acquire(&slots[me].wakes);
    zcp_priv_sleep_announce(&slots[me], &HEADER->signals, id_of(me), ZCP_PRIV_TOPIC_SLEEP);
    zcp_priv_store_relaxed(&p->entry->waits, 1u);
    zcp_priv_sleep_look(&sleep);
    if (!zcp_priv_room_make(p, &overtaken)) sleep_on(me, wakes);
}

static void check_sleeper(int t, bool is_ready) {
    uint32_t woke = 0;
    for (int w = 0; w < THREADS; w++) if (woke_at[w][sleeper[t]] > woke) woke = woke_at[w][sleeper[t]];
    assert(!sleeps[t] || !is_ready || woke > slept_on[t]);
}

static void check_topics(void) {
    uint64_t held = 0, handles = 0;
    zcp_subscriber *s = subscriber(1);
    zcp_priv_topic_publisher *entry = tables().publishers;
    if (sleeps[1]) check_sleeper(1, !zcp_priv_reader_late(publisher(0)));
    if (sleeps[2]) check_sleeper(2, zcp_priv_receive_would(s));
    for (int i = 0; i < COUNT; i++) held += zcp_priv_is_held(chunks[i].state);
    for (int c = 0; c < CLIENTS; c++) handles += zcp_priv_rings_handles(managers[c]);
    assert(held == handles);
    if (s->state != ZCP_PRIV_OBJECT_OPEN || zcp_priv_topic_phase(entry->state) != ZCP_PRIV_TOPIC_OPEN) return;
    zcp_priv_source *q = s->source;
    if (s->sources == 0 || !zcp_priv_topic_is_same(q->state, entry->state)) {
        assert(s->epoch != HEADER->signals.topics_epoch);    // it has still to learn
        return;
    }
    assert(q->depth == entry->depth && q->head <= entry->count && (!IS_RELIABLE || q->lost == 0));
    assert(q->cell == q->head % q->depth && q->lap == zcp_priv_lap_of(q->head, q->depth));
}
#endif

#define AFTER_1   pthread_join(thread_1, 0)
#define AFTER_2   pthread_join(thread_2, 0)

#define RUN(number, steps) static void *run_##number(void *unused) { thread = number; steps_left = steps; \
                           RUN_##number; assert(!garbled); return unused; }
RUN(1, CRASH)
RUN(2, CRASH_2)
#ifdef RUN_3
RUN(3, -1)
#endif
#ifdef RUN_4
RUN(4, -1)
#endif

#if TOPIC
// A thread of its own: GenMC loses its way in the stack of main.
#ifndef FINISH
#define FINISH (void)0
#endif
static void *run_finish(void *unused) { FINISH; check_topics(); return unused; }
#endif

int main(void) {
    START;
    pthread_create(&thread_1, 0, run_1, 0);
    pthread_create(&thread_2, 0, run_2, 0);
#ifdef RUN_3
    pthread_t thread_3;
    pthread_create(&thread_3, 0, run_3, 0);
#endif
#ifdef RUN_4
    pthread_t thread_4;
    pthread_create(&thread_4, 0, run_4, 0);
    pthread_join(thread_4, 0);
#endif
#ifdef RUN_3
    pthread_join(thread_3, 0);
#endif
    pthread_join(thread_2, 0);
    pthread_join(thread_1, 0);

#if TOPIC
    pthread_create(&thread_1, 0, run_finish, 0);
    pthread_join(thread_1, 0);
    return 0;
#endif
#ifdef FINISH
    FINISH;
#endif
#if WHOLE
    check_end();
    return 0;
#endif
    if (TENS == 12) return 0;                                // not so with two chunks
    assert(zcp_priv_is_free(chunk.state));                   // not lost: nobody holds it, it is free,
    for (int w = 0; w < WORDS; w++) assert(chunk.borrow[w] == 0);
    for (int c = 0; c < CLIENTS; c++) assert(CRASH >= 0 || ((uint32_t)*owned(c) == 0 && *borrowed(c) == 0));
    bool lent = false, listed = *zcp_priv_list_leaf(&pools[0].list, I / 8) & 1;
    for (uint32_t k = 0; k < LEAVES; k++)
        lent |= lease_at(k)->holder != 0 && lease_at(k)->leaf == I / 8 && (lease_at(k)->loan & 1);
    assert(listed || lent);                                  // and it can be found,
    // by its hint, also if somebody died between P0 and P1
    assert(!listed || *zcp_priv_list_summary(&pools[0].list, 0) >> I / 8 & 1);
}
