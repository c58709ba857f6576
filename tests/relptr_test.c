// tests/relptr_test.c: relative pointers and the registry.
#include "harness/test.h"
#include "zerocp_shm.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

// Addresses that are registered need no memory behind them: nothing here is read through such a one. On 64-bit machines
// they have bits above the 32nd.
static void *fake_base(unsigned n) {
    return (void *)(UINTPTR_MAX / 16 + 1 + (uintptr_t)n * 0x100000);
}

// ---------------------------------------------------------------------------------------------------------------------
// The 64 bits

TEST(relptr_packs_segment_and_offset) {
    CHECK_EQ(sizeof(zcp_relptr), 8);
    zcp_relptr p = zcp_relptr_make(0xabcd, 0x123456789abcu);
    CHECK_EQ(zcp_relptr_segment(p), 0xabcd);
    CHECK_EQ(zcp_relptr_offset(p), 0x123456789abcu);
    CHECK(!zcp_relptr_is_null(p));
    CHECK_EQ(zcp_relptr_offset(zcp_relptr_make(1, ZCP_RELPTR_MAX_OFFSET)), ZCP_RELPTR_MAX_OFFSET);
    CHECK_EQ(zcp_relptr_segment(zcp_relptr_make(1, ZCP_RELPTR_MAX_OFFSET)), 1);
    CHECK_EQ(zcp_relptr_segment(zcp_relptr_make(UINT16_MAX, 0)), UINT16_MAX);
    CHECK(!zcp_relptr_is_null(zcp_relptr_make(1, 0)));
}

TEST(relptr_null_is_all_zero) {
    zcp_relptr zero = {0};
    CHECK(zcp_relptr_is_null(zero));
    CHECK(zcp_relptr_equal(zcp_relptr_make(0, 0), zero));
    CHECK(zcp_relptr_equal(zcp_relptr_make(0, 77), zero));         // there is no segment 0
    CHECK(zcp_relptr_equal(zcp_relptr_make(3, ZCP_RELPTR_MAX_OFFSET + 1), zero));
    CHECK(zcp_relptr_equal(zcp_relptr_make(3, UINT64_MAX), zero));
    CHECK_EQ(zcp_relptr_segment(zero), 0);
    CHECK_EQ(zcp_relptr_offset(zero), 0);
}

TEST(relptr_equality_compares_both_parts) {
    CHECK(zcp_relptr_equal(zcp_relptr_make(1, 2), zcp_relptr_make(1, 2)));
    CHECK(!zcp_relptr_equal(zcp_relptr_make(1, 2), zcp_relptr_make(2, 2)));
    CHECK(!zcp_relptr_equal(zcp_relptr_make(1, 2), zcp_relptr_make(1, 3)));
}

// ---------------------------------------------------------------------------------------------------------------------
// Resolving

TEST(relptr_resolves_first_and_last_byte_and_no_further) {
    static char memory[100];
    zcp_registry registry = {0};
    CHECK_OK(zcp_registry_add(&registry, 9, memory, sizeof memory));
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 0), 1) == memory);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 0), 100) == memory);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 99), 1) == memory + 99);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 99), 0) == memory + 99);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 60), 40) == memory + 60);

    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 0), 101) == NULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 99), 2) == NULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 100), 0) == NULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 100), 1) == NULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 60), 41) == NULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 60), UINT64_MAX) == NULL);       // 60 + that wraps around
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, 60), UINT64_MAX - 59) == NULL);  // wraps to 0
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9, ZCP_RELPTR_MAX_OFFSET), 1) == NULL);
}

TEST(relptr_of_nothing_known_is_null) {
    static char memory[16];
    zcp_registry registry = {0}, empty = {0};
    CHECK_OK(zcp_registry_add(&registry, 9, memory, sizeof memory));
    CHECK(zcp_relptr_get(&registry, (zcp_relptr){0}, 0) == NULL);
    CHECK(zcp_relptr_get(&registry, (zcp_relptr){5}, 1) == NULL);                       // segment 0, offset 5
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(8, 0), 1) == NULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(9 + 64, 0), 1) == NULL);            // same place of the table
    CHECK(zcp_relptr_get(&empty, zcp_relptr_make(9, 0), 1) == NULL);
    CHECK(zcp_relptr_get(NULL, zcp_relptr_make(9, 0), 1) == NULL);
}

typedef struct odd {
    char text[24];
    double number;
} odd;

TEST(relptr_get_checks_size_and_alignment) {
    _Alignas(64) static char memory[128];
    void *at_8 = memory + 8, *at_96 = memory + 96;
    zcp_registry registry = {0};
    CHECK_OK(zcp_registry_add(&registry, 1, memory, sizeof memory));
    CHECK(ZCP_RELPTR_GET(uint64_t, &registry, zcp_relptr_make(1, 8)) == at_8);
    for (unsigned offset = 9; offset < 8 + _Alignof(uint64_t); offset++)    // 4 on i386
        CHECK(ZCP_RELPTR_GET(uint64_t, &registry, zcp_relptr_make(1, offset)) == NULL);
    CHECK(ZCP_RELPTR_GET(uint32_t, &registry, zcp_relptr_make(1, 12)) != NULL);
    CHECK(ZCP_RELPTR_GET(char, &registry, zcp_relptr_make(1, 127)) == memory + 127);
    CHECK(ZCP_RELPTR_GET(odd, &registry, zcp_relptr_make(1, 96)) == at_96);
    CHECK(ZCP_RELPTR_GET(odd, &registry, zcp_relptr_make(1, 104)) == NULL);             // 8 bytes too far
    CHECK(ZCP_RELPTR_GET(odd, &registry, zcp_relptr_make(1, 66)) == NULL);              // misaligned
    CHECK(ZCP_RELPTR_GET(odd, &registry, zcp_relptr_make(0, 0)) == NULL);
    CHECK(ZCP_RELPTR_GET(odd, NULL, zcp_relptr_make(1, 0)) == NULL);
    CHECK(zcp_relptr_get_aligned(&registry, zcp_relptr_make(1, 64), 1, 64) == memory + 64);
    CHECK(zcp_relptr_get_aligned(&registry, zcp_relptr_make(1, 32), 1, 64) == NULL);
    CHECK(zcp_relptr_get_aligned(&registry, zcp_relptr_make(1, 32), 1, 0) == NULL);
}

TEST(relptr_alignment_is_the_address_not_the_offset) {
    _Alignas(16) static char memory[64];
    zcp_registry registry = {0};
    enum { HALF = _Alignof(uint64_t) / 2 };
    void *aligned = memory + 2 * HALF;
    CHECK_OK(zcp_registry_add(&registry, 1, memory + HALF, sizeof memory - HALF));
    CHECK(ZCP_RELPTR_GET(uint64_t, &registry, zcp_relptr_make(1, 8)) == NULL);
    CHECK(ZCP_RELPTR_GET(uint64_t, &registry, zcp_relptr_make(1, HALF)) == aligned);
}

TEST(relptr_offsets_count_bytes_whatever_the_type) {
    static odd items[100];
    char *memory = (char *)items;
    zcp_registry registry = {0};
    CHECK_OK(zcp_registry_add(&registry, 4, items, sizeof items));
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        zcp_relptr p = zcp_relptr_of(&registry, &items[i]);
        CHECK_EQ(zcp_relptr_offset(p), i * sizeof *items);
        CHECK(ZCP_RELPTR_GET(odd, &registry, p) == &items[i]);
    }
    zcp_relptr p = zcp_relptr_of(&registry, &items[1].number);
    CHECK_EQ(zcp_relptr_offset(p), sizeof *items + offsetof(odd, number));
    CHECK((char *)ZCP_RELPTR_GET(uint16_t, &registry, zcp_relptr_make(4, 10)) == memory + 10);
    CHECK((char *)ZCP_RELPTR_GET(uint64_t, &registry, zcp_relptr_make(4, 16)) == memory + 16);
}

TEST(relptr_of_address_finds_the_segment) {
    static char memory[300];
    zcp_registry registry = {0};
    CHECK_OK(zcp_registry_add(&registry, 1, memory, 100));
    CHECK_OK(zcp_registry_add(&registry, 2, memory + 100, 100));
    CHECK(zcp_relptr_equal(zcp_relptr_of(&registry, memory), zcp_relptr_make(1, 0)));
    CHECK(zcp_relptr_equal(zcp_relptr_of(&registry, memory + 99), zcp_relptr_make(1, 99)));
    CHECK(zcp_relptr_equal(zcp_relptr_of(&registry, memory + 100), zcp_relptr_make(2, 0)));
    CHECK(zcp_relptr_equal(zcp_relptr_of(&registry, memory + 199), zcp_relptr_make(2, 99)));
    CHECK(zcp_relptr_is_null(zcp_relptr_of(&registry, memory + 200)));
    CHECK(zcp_relptr_is_null(zcp_relptr_of(&registry, NULL)));
    CHECK(zcp_relptr_is_null(zcp_relptr_of(NULL, memory)));
    CHECK_OK(zcp_registry_remove(&registry, 2));
    CHECK(zcp_relptr_is_null(zcp_relptr_of(&registry, memory + 100)));
}

// Whatever 64 bits somebody writes: NULL, or inside one of the segments.
TEST(relptr_garbage_never_leads_outside) {
    zcp_registry registry = {0};
    for (uint16_t s = 1; s <= 3; s++)
        CHECK_OK(zcp_registry_add(&registry, s, fake_base(s), (uint64_t)s * 1000));
    unsigned resolved = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t bytes = test_random_below(4) == 0 ? test_random() : test_random_below(2000), bits = test_random();
        if (i % 2 == 0)                                            // near enough to be inside now and then
            bits = (uint64_t)test_random_below(5) << 48 | test_random_below(3100);
        zcp_relptr p = {bits};
        uintptr_t address = (uintptr_t)zcp_relptr_get(&registry, p, bytes), segment = zcp_relptr_segment(p);
        if (address == 0)
            continue;
        resolved++;
        CHECK(segment >= 1 && segment <= 3);
        uintptr_t base = (uintptr_t)fake_base((unsigned)segment);
        CHECK(address >= base && address < base + segment * 1000 && bytes <= base + segment * 1000 - address);
    }
    CHECK(resolved > 100);
}

// ---------------------------------------------------------------------------------------------------------------------
// The registry

TEST(registry_refuses_bad_segments_and_stays_as_it_was) {
    static char memory[16];
    zcp_registry registry = {0}, before;
    CHECK_OK(zcp_registry_add(&registry, 5, memory, sizeof memory));
    before = registry;
    CHECK_STATUS(zcp_registry_add(NULL, 6, memory, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_registry_add(&registry, 0, memory, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_registry_add(&registry, 6, NULL, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_registry_add(&registry, 6, memory, 0), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_registry_add(&registry, 6, memory, (UINT64_C(1) << 48) + 1), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_registry_add(&registry, 6, memory, UINT64_MAX), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_registry_add(&registry, 6, (void *)(UINTPTR_MAX - 9), 11), ZCP_ERR_INVALID_SIZE);
    CHECK_STATUS(zcp_registry_add(&registry, 5, memory, 1), ZCP_ERR_EXISTS);
    CHECK_STATUS(zcp_registry_remove(&registry, 6), ZCP_ERR_NOT_FOUND);
    CHECK_STATUS(zcp_registry_remove(&registry, 5 + 64), ZCP_ERR_NOT_FOUND);
    CHECK_STATUS(zcp_registry_remove(&registry, 0), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(zcp_registry_remove(NULL, 5), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(memcmp(&registry, &before, sizeof registry) == 0);
}

TEST(registry_takes_the_largest_segment_and_the_last_address) {
    zcp_registry registry = {0};
    char *last = (char *)(UINTPTR_MAX - 9);
    CHECK_OK(zcp_registry_add(&registry, UINT16_MAX, last, 10));   // up to and with the last byte there is
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(UINT16_MAX, 9), 1) == last + 9);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(UINT16_MAX, 10), 0) == NULL);
    uint64_t largest = UINT64_C(1) << 48;
    if (largest > UINTPTR_MAX) {                                   // all that a 32-bit address space has from there on
        CHECK_STATUS(zcp_registry_add(&registry, 1, (void *)(uintptr_t)4096, largest), ZCP_ERR_INVALID_SIZE);
        largest = (uint64_t)UINTPTR_MAX - 4095;
    }
    CHECK_OK(zcp_registry_add(&registry, 1, (void *)(uintptr_t)4096, largest));
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(1, largest - 1), 1) != NULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(1, largest - 1), 2) == NULL);
    CHECK_EQ(zcp_relptr_offset(zcp_relptr_of(&registry, (void *)(uintptr_t)5000)), 904);
}

// All ids fall on one place of the table, so that each is found only by probing on.
TEST(registry_holds_64_segments) {
    zcp_registry registry = {0};
    for (unsigned i = 0; i < ZCP_REGISTRY_CAPACITY; i++)
        CHECK_OK(zcp_registry_add(&registry, (uint16_t)(7 + 64 * i), fake_base(i), 100 + i));
    for (unsigned i = 0; i < ZCP_REGISTRY_CAPACITY; i++) {
        zcp_relptr last = zcp_relptr_make((uint16_t)(7 + 64 * i), 99 + i);
        CHECK((char *)zcp_relptr_get(&registry, last, 1) == (char *)fake_base(i) + 99 + i);
        CHECK(zcp_relptr_get(&registry, last, 2) == NULL);
        CHECK(zcp_relptr_equal(zcp_relptr_of(&registry, (char *)fake_base(i) + 99 + i), last));
    }
    CHECK_STATUS(zcp_registry_add(&registry, 1, fake_base(99), 1), ZCP_ERR_FULL);
    CHECK_STATUS(zcp_registry_add(&registry, 7, fake_base(99), 1), ZCP_ERR_EXISTS);     // that is the better reason
    CHECK_OK(zcp_registry_remove(&registry, 7 + 64 * 33));
    CHECK_STATUS(zcp_registry_remove(&registry, 7 + 64 * 33), ZCP_ERR_NOT_FOUND);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(7 + 64 * 33, 0), 1) == NULL);
    CHECK_OK(zcp_registry_add(&registry, 1, fake_base(99), 1));
    CHECK_STATUS(zcp_registry_add(&registry, 7 + 64 * 33, fake_base(33), 1), ZCP_ERR_FULL);
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(1, 0), 1) == fake_base(99));
    CHECK(zcp_relptr_get(&registry, zcp_relptr_make(7 + 64 * 34, 0), 1) == fake_base(34));
}

TEST(registry_takes_a_removed_segment_again) {
    zcp_registry registry = {0};
    for (unsigned round = 0; round < 300; round++) {
        CHECK_OK(zcp_registry_add(&registry, 3, fake_base(round), 10 + round));
        CHECK(zcp_relptr_get(&registry, zcp_relptr_make(3, 9 + round), 1) == (char *)fake_base(round) + 9 + round);
        CHECK(zcp_relptr_get(&registry, zcp_relptr_make(3, 10 + round), 1) == NULL);
        CHECK_OK(zcp_registry_remove(&registry, 3));
        CHECK(zcp_relptr_get(&registry, zcp_relptr_make(3, 0), 1) == NULL);
    }
}

TEST(registry_default_is_one_and_empty_at_first) {
    static char memory[8];
    CHECK(zcp_registry_default() != NULL);
    CHECK(zcp_registry_default() == zcp_registry_default());
    CHECK(zcp_relptr_is_null(zcp_relptr_of(zcp_registry_default(), memory)));
    CHECK_OK(zcp_registry_add(zcp_registry_default(), 1, memory, sizeof memory));
    zcp_registry other = {0};
    CHECK(zcp_relptr_get(zcp_registry_default(), zcp_relptr_make(1, 0), 8) == memory);
    CHECK(zcp_relptr_get(&other, zcp_relptr_make(1, 0), 8) == NULL);
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads

enum { ADDERS = 4, ADD_ROUNDS = 3000 };

// Spins, so that all go on within a fraction of a microsecond; a meeting by futex would let them go one by one.
static void line_up(_Atomic uint32_t *word, uint32_t parties) {
    uint32_t until = test_meeting(atomic_fetch_add(word, 1) + 1, parties);
    for (unsigned i = 1; (int32_t)(atomic_load(word) - until) < 0; i++)
        if (i % 1000 == 0)
            sched_yield();
}

static struct {
    zcp_registry registry;
    _Atomic uint32_t begin, end;
    _Atomic uint32_t winners[ADD_ROUNDS];
    _Atomic uint32_t winner[ADD_ROUNDS];
} adding;

static void *add_same_ids(void *argument) {
    unsigned me = (unsigned)(uintptr_t)argument;
    for (unsigned round = 0; round < ADD_ROUNDS; round++) {
        line_up(&adding.begin, 2);
        zcp_status status = zcp_registry_add(&adding.registry, 11, fake_base(me), 100 + me);
        if (status == ZCP_OK) {
            atomic_fetch_add(&adding.winners[round], 1);
            atomic_store(&adding.winner[round], me);
        } else {
            CHECK_STATUS(status, ZCP_ERR_EXISTS);
        }
        line_up(&adding.end, 2);
        if (me != 0)
            continue;
        unsigned winner = atomic_load(&adding.winner[round]);
        CHECK_EQ(adding.winners[round], 1);
        CHECK(zcp_relptr_get(&adding.registry, zcp_relptr_make(11, 0), 100 + winner) == fake_base(winner));
        CHECK(zcp_relptr_get(&adding.registry, zcp_relptr_make(11, 0), 101 + winner) == NULL);
        CHECK_OK(zcp_registry_remove(&adding.registry, 11));
        CHECK_STATUS(zcp_registry_remove(&adding.registry, 11), ZCP_ERR_NOT_FOUND);     // it was in it once
    }
    return NULL;
}

TEST(registry_lets_one_of_several_adders_win) {
    pthread_t threads[2];
    for (uintptr_t i = 0; i < 2; i++)
        threads[i] = test_thread(add_same_ids, (void *)i);
    for (int i = 0; i < 2; i++)
        test_thread_join(threads[i]);
}

// All threads together fill the table to the last place: nobody's place is taken, and nobody is told that it is full.
static void *add_own_ids(void *argument) {
    unsigned me = (unsigned)(uintptr_t)argument;
    for (unsigned round = 0; round < 300; round++) {
        test_meet(&adding.begin, ADDERS);
        for (unsigned i = 0; i < 16; i++)
            CHECK_OK(zcp_registry_add(&adding.registry, (uint16_t)(1 + me + 4 * i), fake_base(me * 16 + i), 50));
        test_meet(&adding.end, ADDERS);
        for (unsigned i = 0; i < 16; i++) {
            zcp_relptr p = zcp_relptr_make((uint16_t)(1 + me + 4 * i), 49);
            CHECK((char *)zcp_relptr_get(&adding.registry, p, 1) == (char *)fake_base(me * 16 + i) + 49);
            CHECK_OK(zcp_registry_remove(&adding.registry, (uint16_t)(1 + me + 4 * i)));
        }
    }
    return NULL;
}

TEST(registry_serves_threads_that_fill_it_together) {
    pthread_t threads[ADDERS];
    for (uintptr_t i = 0; i < ADDERS; i++)
        threads[i] = test_thread(add_own_ids, (void *)i);
    for (int i = 0; i < ADDERS; i++)
        test_thread_join(threads[i]);
    for (unsigned i = 0; i < 64; i++)                              // all places are free again
        CHECK_OK(zcp_registry_add(&adding.registry, (uint16_t)(1000 + i), fake_base(i), 1));
}

// Segment 21 is now {large, 4096}, now {small, 64}, now absent. The base of one with the size of the other would show.
static struct {
    zcp_registry registry;
    char large[4096], small[64], steady[64];
    _Atomic uint32_t ready;
    _Atomic bool stop;
} changing;

static void *resolve_all_the_time(void *argument) {
    (void)argument;
    test_signal(&changing.ready);
    while (!atomic_load(&changing.stop)) {
        char *p = zcp_relptr_get(&changing.registry, zcp_relptr_make(21, 100), 8);
        CHECK(p == NULL || p == changing.large + 100);
        p = zcp_relptr_get(&changing.registry, zcp_relptr_make(21, 0), 64);
        CHECK(p == NULL || p == changing.large || p == changing.small);
        zcp_relptr of = zcp_relptr_of(&changing.registry, changing.large + 3000);
        CHECK(zcp_relptr_is_null(of) || zcp_relptr_equal(of, zcp_relptr_make(21, 3000)));
        CHECK(zcp_relptr_get(&changing.registry, zcp_relptr_make(85, 10), 54) == changing.steady + 10);
        CHECK(zcp_relptr_equal(zcp_relptr_of(&changing.registry, changing.steady + 63), zcp_relptr_make(85, 63)));
    }
    return NULL;
}

static void change_segment(zcp_registry *registry, bool large) {
    char *base = large ? changing.large : changing.small;
    CHECK_OK(zcp_registry_add(registry, 21, base, large ? 4096 : 64));
    CHECK(zcp_relptr_get(registry, zcp_relptr_make(21, 0), 64) == base);
}

TEST(registry_changes_while_others_resolve) {
    CHECK_OK(zcp_registry_add(&changing.registry, 85, changing.steady, 64));            // 21 + 64: it has 21's place
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        threads[i] = test_thread(resolve_all_the_time, NULL);
    test_await(&changing.ready, 2);
    for (int i = 0; i < 50000; i++) {
        change_segment(&changing.registry, i % 2 == 0);
        CHECK_OK(zcp_registry_remove(&changing.registry, 21));
    }
    atomic_store(&changing.stop, true);
    for (int i = 0; i < 2; i++)
        test_thread_join(threads[i]);
}

// The same, and nothing left to chance: a traced process resolves, and the segment changes before its 1st, 2nd, 3rd ...
// instruction.
typedef struct traced {
    zcp_registry registry;                                         // plain words; shared only so that it can be changed
    _Atomic bool done;
} traced;

static void resolve_traced(void *argument) {
    traced *shared = argument;
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    for (;;) {
        atomic_store(&shared->done, false);
        raise(SIGSTOP);
        char *p = zcp_relptr_get(&shared->registry, zcp_relptr_make(21, 100), 8);
        atomic_store(&shared->done, true);
        CHECK_MSG(p == NULL || p == changing.large + 100, "%s", "the base of one life with the size of the other");
    }
}

static int next_stop(pid_t pid) {
    int status = test_wait(pid);
    CHECK(WIFSTOPPED(status));
    return WSTOPSIG(status);
}

// Lets it do that many instructions, then goes from small over nothing to large. False: the call was over before.
static bool change_after(traced *shared, pid_t pid, int instructions) {
    for (int i = 0; i < instructions; i++) {
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        CHECK_EQ(next_stop(pid), SIGTRAP);
    }
    bool in_time = !atomic_load(&shared->done);
    CHECK_OK(zcp_registry_remove(&shared->registry, 21));
    change_segment(&shared->registry, true);
    CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
    CHECK_EQ(next_stop(pid), SIGSTOP);
    CHECK_OK(zcp_registry_remove(&shared->registry, 21));
    change_segment(&shared->registry, false);
    return in_time;
}

TEST(registry_changes_between_any_two_instructions) {
#if defined(TEST_TSAN) || defined(TEST_ASAN)
    test_skip("a call has too many instructions under a sanitizer");
#endif
    test_need("ptrace");
    traced *shared = test_shared(sizeof *shared);
    change_segment(&shared->registry, false);
    pid_t pid = test_spawn(resolve_traced, shared);
    CHECK_EQ(next_stop(pid), SIGSTOP);
    int instructions = 0;
    while (change_after(shared, pid, instructions))
        instructions++;
    CHECK(instructions > 30);
    test_note("%d instructions", instructions);
    test_kill(pid);
}

// ---------------------------------------------------------------------------------------------------------------------
// Two addresses, two processes

TEST(relptr_means_the_same_bytes_at_two_addresses) {
    zcp_shm_desc desc = {.name = test_instance(), .bytes = 8192};
    zcp_shm first, second;
    CHECK_OK(zcp_shm_open(&first, &desc));
    CHECK_OK(zcp_shm_open(&second, &desc));
    CHECK(first.base != second.base);
    zcp_registry here = {0}, there = {0};
    CHECK_OK(zcp_registry_add(&here, 1, first.base, first.bytes));
    CHECK_OK(zcp_registry_add(&there, 1, second.base, second.bytes));
    uint64_t *written = (uint64_t *)first.base + 700;
    *written = 4711;
    zcp_relptr p = zcp_relptr_of(&here, written);
    uint64_t *read = ZCP_RELPTR_GET(uint64_t, &there, p);
    CHECK(read != NULL && read != written);
    CHECK_EQ(*read, 4711);
    CHECK(zcp_relptr_equal(zcp_relptr_of(&there, read), p));
    zcp_shm_close(&first);
    zcp_shm_close(&second);
    CHECK_OK(zcp_shm_unlink(desc.name));
}

// A binary search tree in a segment, with relative pointers only.
typedef struct node {
    uint64_t key;
    zcp_relptr left, right;
} node;

typedef struct forest {
    uint64_t builder_base;
    zcp_relptr root;
    uint32_t used, unused;
    node nodes[256];
} forest;

enum { FOREST_SEGMENT = 77 };

static void insert(zcp_registry *registry, forest *all, uint64_t key) {
    zcp_relptr *at = &all->root;
    while (!zcp_relptr_is_null(*at)) {
        node *n = ZCP_RELPTR_GET(node, registry, *at);
        CHECK(n != NULL);
        at = key < n->key ? &n->left : &n->right;
    }
    CHECK(all->used < 256);
    node *fresh = &all->nodes[all->used++];
    fresh->key = key;
    *at = zcp_relptr_of(registry, fresh);
}

static uint64_t walk(zcp_registry *registry, zcp_relptr at, uint64_t *previous) {
    if (zcp_relptr_is_null(at))
        return 0;
    node *n = ZCP_RELPTR_GET(node, registry, at);
    CHECK(n != NULL);
    uint64_t left = walk(registry, n->left, previous);
    CHECK(n->key >= *previous);
    *previous = n->key;
    return left + 1 + walk(registry, n->right, previous);
}

TEST_PROGRAM(relptr_walker, name) {
    zcp_shm shm, again;
    zcp_shm_desc desc = {.name = name, .mode = ZCP_SHM_OPEN_EXISTING};
    CHECK_OK(zcp_shm_open(&shm, &desc));
    if ((uintptr_t)shm.base == ((forest *)shm.base)->builder_base) {                    // by chance: elsewhere, then
        CHECK_OK(zcp_shm_open(&again, &desc));
        shm = again;
    }
    forest *all = shm.base;
    CHECK((uintptr_t)all != all->builder_base);
    zcp_registry registry = {0};
    CHECK_OK(zcp_registry_add(&registry, FOREST_SEGMENT, shm.base, shm.bytes));
    uint64_t previous = 0;
    CHECK_EQ(walk(&registry, all->root, &previous), 200);
    for (uint64_t i = 0; i < 50; i++)
        insert(&registry, all, 5000 + i * 7919 % 1000);
}

TEST(relptr_structure_is_built_here_and_walked_there) {
    zcp_shm shm;
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = test_instance(), .bytes = sizeof(forest)}));
    zcp_registry registry = {0};
    CHECK_OK(zcp_registry_add(&registry, FOREST_SEGMENT, shm.base, shm.bytes));
    forest *all = shm.base;
    all->builder_base = (uintptr_t)shm.base;
    for (uint64_t i = 0; i < 200; i++)
        insert(&registry, all, test_random_below(10000));
    test_join(test_exec("relptr_walker", test_instance()));
    uint64_t previous = 0;
    CHECK_EQ(walk(&registry, all->root, &previous), 250);          // what the other one has added, too
    for (unsigned i = 0; i < all->used; i++)                       // and no native pointer is in it
        CHECK(zcp_relptr_segment(all->nodes[i].left) % FOREST_SEGMENT == 0);
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(test_instance()));
}
