// tests/list_test.c: the MPMC list of free indices, against a plain set.
#include "zerocp.h"
#include "harness/test.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

// From the byte map at the list in zerocp.h: a header, the summary in words of one bit per leaf, leaves of 64 bytes.
enum { HEADER_BYTES = 64, LEAF_BYTES = 64 };

static const uint32_t capacities[] = {1, 63, 64, 65, 4095, 4096, 4097, 262145};
enum { CAPACITIES = sizeof capacities / sizeof capacities[0] };

// Of these capacities, in the type that memory is counted in.
static size_t bytes_of(uint32_t capacity) {
    return (size_t)zcp_mpmc_list_bytes(capacity);
}

static void *memory_for(uint32_t capacity) {
    size_t bytes = (bytes_of(capacity) + 63) / 64 * 64;
    void *memory = aligned_alloc(64, bytes);
    CHECK(memory != NULL);
    memset(memory, 0xa5, bytes);
    return memory;
}

static zcp_mpmc_list new_list(uint32_t capacity, bool full) {
    zcp_mpmc_list list;
    CHECK_OK(zcp_mpmc_list_create(&list, memory_for(capacity), zcp_mpmc_list_bytes(capacity), capacity, full));
    CHECK_EQ(zcp_mpmc_list_capacity(&list), capacity);
    CHECK_EQ(zcp_mpmc_list_count(&list), full ? capacity : 0);
    return list;
}

static size_t summary_bytes(const zcp_mpmc_list *list) {
    return ((size_t)list->leaves + 511) / 512 * 64;
}

static void set_summary(zcp_mpmc_list *list, int value) {
    memset((char *)list->memory + HEADER_BYTES, value, summary_bytes(list));
}

// Takes everything out: each index once, and none that does not exist. Returns how many there were.
static uint32_t drain(zcp_mpmc_list *list) {
    uint32_t capacity = zcp_mpmc_list_capacity(list), count = 0, index;
    unsigned char *seen = calloc(capacity, 1);
    CHECK(seen != NULL);
    while (zcp_mpmc_list_pop(list, &index)) {
        if (index >= capacity || seen[index])
            test_fail(__FILE__, __LINE__, "index %u of %u: out of range, or again", index, capacity);
        seen[index] = 1;
        count++;
    }
    CHECK_EQ(zcp_mpmc_list_count(list), 0);
    free(seen);
    return count;
}

// ZCP_ATOMIC: these lie in C as they do in C++, of which tests/cpp/behaviour.cpp says the same.
_Static_assert(sizeof(zcp_registry) == 24 * ZCP_REGISTRY_CAPACITY && _Alignof(zcp_registry) == 8,
               "layout of a registry");
_Static_assert(offsetof(zcp_mpmc_list, cursor) == sizeof(void *) + 4 &&
                   offsetof(zcp_mpmc_list, leaves) == sizeof(void *) + 8,
               "layout of a list's view");

// ---------------------------------------------------------------------------------------------------------------------
// Against a plain set

// All sequences of pushes and pops up to a length, from a full and from an empty list. The set is a word of bits.
static void try_all(zcp_mpmc_list *list, uint32_t set, int depth, uint64_t *steps) {
    size_t bytes = bytes_of(list->capacity);
    unsigned char memory[1024];
    zcp_mpmc_list view = *list;
    CHECK_EQ(zcp_mpmc_list_count(list), __builtin_popcount(set));
    if (depth == 0)
        return;
    CHECK(bytes <= sizeof memory);
    memcpy(memory, list->memory, bytes);
    for (uint32_t i = 0; i <= list->capacity; i++) {               // the last one is out of range
        uint32_t bit = i < list->capacity ? 1u << i : 0;
        CHECK_EQ(zcp_mpmc_list_push(list, i), bit != 0 && !(set & bit));
        try_all(list, set | bit, depth - 1, steps);
        memcpy(list->memory, memory, bytes);
        *list = view;
    }
    uint32_t index = UINT32_MAX;
    bool popped = zcp_mpmc_list_pop(list, &index);
    CHECK_EQ(popped, set != 0);
    CHECK(!popped || (index < list->capacity && (set >> index & 1)));
    try_all(list, popped ? set & ~(1u << index) : 0, depth - 1, steps);
    memcpy(list->memory, memory, bytes);
    *list = view;
    ++*steps;
}

static void try_all_of(uint32_t capacity, bool full, int depth) {
    zcp_mpmc_list list = new_list(capacity, full);
    uint64_t steps = 0;
    try_all(&list, full ? (1u << capacity) - 1 : 0, depth, &steps);
    CHECK(steps > 100);
    free(list.memory);
}

TEST(list_small_capacities_exhaustively) {
    static const int depths[] = {0, 9, 7, 6, 5};
    for (uint32_t capacity = 1; capacity <= 4; capacity++)
        for (int full = 0; full < 2; full++)
            try_all_of(capacity, full, depths[capacity]);
    for (uint32_t capacity = 9; capacity <= 17; capacity += 4)     // two and three leaves
        try_all_of(capacity, true, 3);
}

static void try_at_random(uint32_t capacity, bool full, int operations) {
    zcp_mpmc_list list = new_list(capacity, full);
    unsigned char *set = malloc(capacity);
    uint32_t count = full ? capacity : 0;
    CHECK(set != NULL);
    memset(set, full, capacity);
    for (int i = 0; i < operations; i++) {
        uint32_t index = (uint32_t)test_random_below(capacity);
        if (i / 500 % 3 == 0 || (i / 500 % 3 == 1 && test_random_below(2) == 0)) {      // growing, mixed, shrinking
            CHECK_EQ(zcp_mpmc_list_push(&list, index), !set[index]);
            count += !set[index];
            set[index] = 1;
        } else {
            bool popped = zcp_mpmc_list_pop(&list, &index);
            CHECK_EQ(popped, count > 0);
            if (popped) {
                CHECK(index < capacity && set[index]);
                set[index] = 0;
                count--;
            }
        }
        if (i % 97 == 0)
            CHECK_EQ(zcp_mpmc_list_count(&list), count);
    }
    CHECK_EQ(drain(&list), count);
    free(set);
    free(list.memory);
}

TEST(list_other_capacities_at_random) {
    for (uint32_t capacity = 1; capacity <= 140; capacity += 1 + capacity / 16)
        try_at_random(capacity, capacity % 2 == 0, 1500);
    for (int i = 0; i < CAPACITIES; i++) {
        try_at_random(capacities[i], true, 3000);
        try_at_random(capacities[i], false, 3000);
    }
}

TEST(list_gives_each_index_once_and_takes_it_back_once) {
    for (int i = 0; i < CAPACITIES; i++) {
        zcp_mpmc_list list = new_list(capacities[i], true);
        uint32_t index = 4711, pushed = 0;
        for (uint32_t k = 0; k < capacities[i]; k++)
            pushed += zcp_mpmc_list_push(&list, k);
        CHECK_EQ(pushed, 0);                                       // a double push is detected
        CHECK_EQ(drain(&list), capacities[i]);
        CHECK(!zcp_mpmc_list_pop(&list, &index));
        CHECK_EQ(index, 4711);
        for (uint32_t k = capacities[i]; k-- > 0;)
            pushed += zcp_mpmc_list_push(&list, k);
        CHECK_EQ(pushed, capacities[i]);
        CHECK_EQ(zcp_mpmc_list_count(&list), capacities[i]);
        CHECK(!zcp_mpmc_list_push(&list, capacities[i]));          // out of range
        CHECK(!zcp_mpmc_list_push(&list, capacities[i] + 63));
        CHECK(!zcp_mpmc_list_push(&list, UINT32_MAX));
        CHECK(!zcp_mpmc_list_pop(&list, NULL));
        CHECK_EQ(zcp_mpmc_list_count(&list), capacities[i]);
        CHECK_EQ(drain(&list), capacities[i]);
        free(list.memory);
    }
}

TEST(list_reuses_warm_indices_first) {
    zcp_mpmc_list list = new_list(4096, true);
    uint32_t first, again;
    for (int i = 0; i < 1000; i++)
        CHECK(zcp_mpmc_list_pop(&list, &first));
    CHECK(zcp_mpmc_list_push(&list, 5));
    CHECK(zcp_mpmc_list_push(&list, first));
    CHECK(zcp_mpmc_list_pop(&list, &again));
    CHECK_EQ(again / 64, first / 64);                              // of the leaf used last
    free(list.memory);
}

// ---------------------------------------------------------------------------------------------------------------------
// Hints and garbage

TEST(list_finds_what_lost_hints_hide) {
    for (int i = 0; i < CAPACITIES; i++) {
        zcp_mpmc_list list = new_list(capacities[i], false), view;
        uint32_t index, last = capacities[i] - 1;
        CHECK_OK(zcp_mpmc_list_attach(&view, list.memory, zcp_mpmc_list_bytes(capacities[i])));
        CHECK(zcp_mpmc_list_push(&list, last));
        set_summary(&list, 0);                                     // as if the pusher had been killed before its hint
        CHECK_EQ(zcp_mpmc_list_count(&view), 1);
        CHECK(zcp_mpmc_list_pop(&view, &index));
        CHECK_EQ(index, last);
        CHECK(!zcp_mpmc_list_pop(&view, &index));
        for (uint32_t k = 0; k < capacities[i]; k += 1 + capacities[i] / 1000)
            CHECK(zcp_mpmc_list_push(&list, k));
        uint32_t count = zcp_mpmc_list_count(&list);
        set_summary(&list, 0);
        CHECK_EQ(drain(&list), count);
        free(list.memory);
    }
}

// Not needed to find anything, but without it each pop looks at every leaf.
static bool has_hint(const zcp_mpmc_list *list, uint32_t leaf) {
    uint64_t hints;
    memcpy(&hints, (char *)list->memory + HEADER_BYTES + leaf / 64 * 8, sizeof hints);
    return hints >> leaf % 64 & 1;
}

TEST(list_non_empty_leaves_have_hints) {
    for (int i = 0; i < CAPACITIES; i++) {
        zcp_mpmc_list list = new_list(capacities[i], true);
        for (uint32_t leaf = 0; leaf < list.leaves; leaf++)
            CHECK(has_hint(&list, leaf));
        CHECK_EQ(drain(&list), capacities[i]);
        for (uint32_t leaf = 0; leaf < list.leaves; leaf++)
            CHECK(!has_hint(&list, leaf));
        for (uint32_t index = 0; index < capacities[i]; index += 1 + capacities[i] / 200) {
            CHECK(zcp_mpmc_list_push(&list, index));
            CHECK(has_hint(&list, index >> list.leaf_shift));
        }
        free(list.memory);
    }
}

// Whoever stumbles over the index puts the hint back, for all.
TEST(list_pop_repairs_a_lost_hint) {
    zcp_mpmc_list list = new_list(4096, true);
    static const char zero[8];
    uint32_t index;
    set_summary(&list, 0);
    list.cursor = 17;
    for (int i = 0; i < 64; i++) {                                 // where it looks first it needs no hint
        CHECK(zcp_mpmc_list_pop(&list, &index));
        CHECK_EQ(index / 64, 17);
    }
    CHECK(memcmp((char *)list.memory + HEADER_BYTES, zero, sizeof zero) == 0);
    CHECK(zcp_mpmc_list_pop(&list, &index));                       // now it has to look at every leaf
    CHECK(memcmp((char *)list.memory + HEADER_BYTES, zero, sizeof zero) != 0);
    free(list.memory);
}

TEST(list_believes_no_false_hint) {
    for (int i = 0; i < CAPACITIES; i++) {
        zcp_mpmc_list list = new_list(capacities[i], false);
        uint32_t index;
        set_summary(&list, 0xff);                                  // bits of leaves that do not exist, too
        CHECK(!zcp_mpmc_list_pop(&list, &index));
        CHECK(zcp_mpmc_list_push(&list, capacities[i] / 2));
        set_summary(&list, 0xff);
        CHECK(zcp_mpmc_list_pop(&list, &index));
        CHECK_EQ(index, capacities[i] / 2);
        CHECK(!zcp_mpmc_list_pop(&list, &index));
        free(list.memory);
    }
}

TEST(list_any_cursor_will_do) {
    static const uint32_t cursors[] = {0, 1, 63, 64, 65, 1000, UINT32_MAX - 1, UINT32_MAX};
    for (int i = 0; i < CAPACITIES; i++)
        for (size_t c = 0; c < sizeof cursors / sizeof cursors[0]; c++) {
            zcp_mpmc_list list = new_list(capacities[i], false);
            uint32_t index;
            CHECK(zcp_mpmc_list_push(&list, capacities[i] / 3));
            list.cursor = cursors[c];
            CHECK(zcp_mpmc_list_pop(&list, &index));
            CHECK_EQ(index, capacities[i] / 3);
            list.cursor = cursors[c];
            CHECK(!zcp_mpmc_list_pop(&list, &index));
            free(list.memory);
        }
}

TEST(list_never_gives_what_does_not_exist) {
    for (int i = 0; i < CAPACITIES; i++) {
        zcp_mpmc_list list = new_list(capacities[i], false);
        char *leaves = (char *)list.memory + HEADER_BYTES + summary_bytes(&list);
        memset(leaves, 0xff, (size_t)list.leaves * LEAF_BYTES);    // all bits, also beyond the capacity and beside them
        CHECK_EQ(zcp_mpmc_list_count(&list), capacities[i]);
        CHECK_EQ(drain(&list), capacities[i]);                     // checks each index
        CHECK(zcp_mpmc_list_push(&list, 0));
        CHECK_EQ(drain(&list), 1);
        free(list.memory);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Create and attach

TEST(list_bytes_grow_with_the_capacity_up_to_the_limit) {
    CHECK_EQ(zcp_mpmc_list_bytes(0), 0);
    CHECK_EQ(zcp_mpmc_list_bytes(ZCP_MPMC_LIST_MAX_CAPACITY + 1), 0);
    CHECK_EQ(zcp_mpmc_list_bytes(UINT32_MAX), 0);
    CHECK(zcp_mpmc_list_bytes(ZCP_MPMC_LIST_MAX_CAPACITY) >= ZCP_MPMC_LIST_MAX_CAPACITY / 8);
    uint64_t before = 0;
    for (uint32_t capacity = 1; capacity < 70000; capacity += 1 + capacity / 100) {
        uint64_t bytes = zcp_mpmc_list_bytes(capacity);
        CHECK(bytes >= before && bytes >= HEADER_BYTES + capacity / 8);
        before = capacity < 1024 ? 0 : bytes;                      // below, leaves become wider on the way
    }
}

static void check_no_view(const zcp_mpmc_list *list) {
    static const zcp_mpmc_list none;
    CHECK(memcmp(list, &none, sizeof none) == 0);
    CHECK(zcp_last_message()[0] != 0);
    CHECK_EQ(zcp_last_errno(), 0);
    zcp_mpmc_list copy = *list;                                    // and a view of nothing is an empty list
    uint32_t index;
    CHECK(!zcp_mpmc_list_pop(&copy, &index) && !zcp_mpmc_list_push(&copy, 0));
    CHECK(zcp_mpmc_list_count(&copy) == 0 && zcp_mpmc_list_capacity(&copy) == 0);
}

// With a view that is not empty before.
#define CHECK_NO_LIST(call, status)                                                                                    \
    do {                                                                                                               \
        memset(&list, 0x5a, sizeof list);                                                                              \
        CHECK_STATUS(call, status);                                                                                    \
        check_no_view(&list);                                                                                          \
    } while (0)

TEST(list_create_stays_within_its_bytes) {
    for (uint32_t capacity = 1; capacity < 5000; capacity += 1 + capacity / 3) {
        size_t bytes = bytes_of(capacity), room = (bytes + 127) / 64 * 64;
        unsigned char *memory = aligned_alloc(64, room);
        CHECK(memory != NULL);
        for (int full = 0; full < 2; full++) {
            zcp_mpmc_list list;
            memset(memory, 0xa5, room);
            CHECK_OK(zcp_mpmc_list_create(&list, memory, bytes, capacity, full));
            CHECK_EQ(drain(&list), full ? capacity : 0);
            for (size_t i = bytes; i < room; i++)
                CHECK_EQ(memory[i], 0xa5);
        }
        free(memory);
    }
}

TEST(list_create_refuses) {
    _Alignas(64) static unsigned char memory[4096], before[4096];
    zcp_mpmc_list list;
    memset(memory, 0xa5, sizeof memory);
    memcpy(before, memory, sizeof memory);
    uint64_t bytes = zcp_mpmc_list_bytes(100);
    uint32_t too_many = ZCP_MPMC_LIST_MAX_CAPACITY + 1;
    CHECK_STATUS(zcp_mpmc_list_create(NULL, memory, sizeof memory, 100, true), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_NO_LIST(zcp_mpmc_list_create(&list, NULL, sizeof memory, 100, true), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_NO_LIST(zcp_mpmc_list_create(&list, memory, sizeof memory, 0, true), ZCP_ERR_INVALID_SIZE);
    CHECK_NO_LIST(zcp_mpmc_list_create(&list, memory, UINT64_MAX, too_many, true), ZCP_ERR_INVALID_SIZE);
    CHECK_NO_LIST(zcp_mpmc_list_create(&list, memory, UINT64_MAX, UINT32_MAX, true), ZCP_ERR_INVALID_SIZE);
    CHECK_NO_LIST(zcp_mpmc_list_create(&list, memory, bytes - 1, 100, true), ZCP_ERR_INVALID_SIZE);
    CHECK_NO_LIST(zcp_mpmc_list_create(&list, memory, 0, 100, true), ZCP_ERR_INVALID_SIZE);
    for (int off = 1; off < 8; off++)
        CHECK_NO_LIST(zcp_mpmc_list_create(&list, memory + off, 2048, 100, true), ZCP_ERR_INVALID_ALIGNMENT);
    CHECK(memcmp(memory, before, sizeof memory) == 0);             // nothing was written
    CHECK_OK(zcp_mpmc_list_create(&list, memory + 8, bytes, 100, true));                // 8 is enough
    CHECK_EQ(drain(&list), 100);
}

TEST(list_attach_gives_another_view) {
    for (int i = 0; i < CAPACITIES; i++) {
        zcp_mpmc_list list = new_list(capacities[i], false), view;
        uint32_t index;
        CHECK_OK(zcp_mpmc_list_attach(&view, list.memory, zcp_mpmc_list_bytes(capacities[i])));
        CHECK_EQ(zcp_mpmc_list_capacity(&view), capacities[i]);
        CHECK(zcp_mpmc_list_push(&list, capacities[i] - 1));
        CHECK(!zcp_mpmc_list_push(&view, capacities[i] - 1));
        CHECK(zcp_mpmc_list_pop(&view, &index) && index == capacities[i] - 1);
        CHECK(!zcp_mpmc_list_pop(&list, &index));
        CHECK_OK(zcp_mpmc_list_attach(&view, list.memory, UINT64_MAX));                 // more bytes do no harm
        free(list.memory);
    }
}

TEST(list_attach_refuses) {
    _Alignas(64) static unsigned char memory[4096];
    static const uint32_t most = ZCP_MPMC_LIST_MAX_CAPACITY, wrong[] = {0, 4096, 1u << 20, most, most + 1, UINT32_MAX};
    zcp_mpmc_list list, made;
    uint64_t bytes = zcp_mpmc_list_bytes(100);
    CHECK_STATUS(zcp_mpmc_list_attach(NULL, memory, bytes), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, NULL, bytes), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory + 4, bytes), ZCP_ERR_INVALID_ALIGNMENT);
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory, 0), ZCP_ERR_INVALID_SIZE);
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory, HEADER_BYTES - 1), ZCP_ERR_INVALID_SIZE);
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory, bytes), ZCP_ERR_NOT_ZEROCP);      // zeros
    memset(memory, 0xff, sizeof memory);
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory, bytes), ZCP_ERR_NOT_ZEROCP);
    CHECK_OK(zcp_mpmc_list_create(&made, memory, bytes, 100, true));
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory, bytes - 1), ZCP_ERR_CORRUPT);
    CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory, HEADER_BYTES), ZCP_ERR_CORRUPT);
    CHECK_OK(zcp_mpmc_list_attach(&list, memory, bytes));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(memory + 8, &wrong[i], 4);                          // the capacity
        CHECK_NO_LIST(zcp_mpmc_list_attach(&list, memory, bytes), ZCP_ERR_CORRUPT);
    }
}

// Whatever stands in the header: refused, or a list that lies within the bytes (which the sanitizer watches).
TEST(list_attach_trusts_no_header) {
    enum { ROOM = 2048 };
    unsigned char *memory = aligned_alloc(64, ROOM);
    zcp_mpmc_list list;
    unsigned accepted = 0;
    CHECK(memory != NULL);
    for (int round = 0; round < 3000; round++) {
        CHECK_OK(zcp_mpmc_list_create(&list, memory, ROOM, 100, true));
        for (int i = 0; i < 4; i++) {                              // not the magic: that is what makes it a list
            uint32_t garbage = (uint32_t)(test_random() >> test_random_below(64));
            memcpy(memory + 8 + 4 * test_random_below(14), &garbage, 4);
        }
        zcp_status status = zcp_mpmc_list_attach(&list, memory, ROOM);
        if (status != ZCP_OK) {
            CHECK_STATUS(status, ZCP_ERR_CORRUPT);
            continue;
        }
        accepted++;
        CHECK(zcp_mpmc_list_bytes(list.capacity) <= ROOM);
        drain(&list);
        CHECK(zcp_mpmc_list_push(&list, list.capacity - 1));
        CHECK_EQ(drain(&list), 1);
    }
    CHECK(accepted > 10 && accepted < 3000);
    free(memory);
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads and processes: an index that is out belongs to exactly one.

typedef struct crowd {
    _Atomic uint32_t begin;
    uint32_t capacity, members, operations;
    bool one_view;
    zcp_mpmc_list list;
    _Atomic uint32_t *holders;                                     // by index: who has it, 0: nobody
    void *memory;
} crowd;

enum { MEMBERS = 4, HANDS = 40 };

static void take_one(crowd *all, uint32_t me, uint32_t index) {
    uint32_t nobody = 0;
    CHECK(index < all->capacity);
    CHECK_MSG(atomic_compare_exchange_strong(&all->holders[index], &nobody, me), "index %u: %u has it", index, nobody);
}

// Pops up to a few, pushes them in another order; what it holds in the end goes back.
static void take_part(crowd *all, uint32_t me) {
    zcp_mpmc_list own, *list = all->one_view ? &all->list : &own;
    uint32_t hand[HANDS], held = 0;
    CHECK_OK(zcp_mpmc_list_attach(&own, all->memory, zcp_mpmc_list_bytes(all->capacity)));
    own.cursor = (uint32_t)test_random();
    test_meet(&all->begin, all->members);
    for (uint32_t i = 0; i < all->operations || held > 0; i++) {
        uint32_t index, self = me;
        if (i < all->operations && held < HANDS && test_random_below(2) == 0) {
            if (!zcp_mpmc_list_pop(list, &index))
                continue;
            take_one(all, me, index);
            hand[held++] = index;
        } else if (held > 0) {
            uint32_t which = (uint32_t)test_random_below(held);
            index = hand[which];
            hand[which] = hand[--held];
            CHECK(atomic_compare_exchange_strong(&all->holders[index], &self, 0));
            CHECK(zcp_mpmc_list_push(list, index));
        }
    }
}

static void *take_part_as_thread(void *argument) {
    static _Atomic uint32_t number;
    take_part(argument, atomic_fetch_add(&number, 1) + 1);
    return NULL;
}

static void take_part_as_process(void *argument) {
    take_part(argument, (uint32_t)getpid());
}

static crowd *gather(uint32_t capacity, uint32_t members, uint32_t operations) {
    crowd *all = test_shared(sizeof *all);
    all->capacity = capacity;
    all->members = members;
    all->operations = operations;
    all->memory = test_shared(bytes_of(capacity));
    all->holders = test_shared(capacity * sizeof *all->holders);
    CHECK_OK(zcp_mpmc_list_create(&all->list, all->memory, zcp_mpmc_list_bytes(capacity), capacity, true));
    return all;
}

static void check_conserved(crowd *all) {
    CHECK_EQ(zcp_mpmc_list_count(&all->list), all->capacity);
    CHECK_EQ(drain(&all->list), all->capacity);
}

TEST(list_threads_share_each_index) {
    for (int i = 0; i < CAPACITIES; i++)
        for (int one_view = 0; one_view < 2; one_view++) {
            crowd *all = gather(capacities[i], MEMBERS, 5000);
            pthread_t threads[MEMBERS];
            all->one_view = one_view;
            for (int t = 0; t < MEMBERS; t++)
                threads[t] = test_thread(take_part_as_thread, all);
            for (int t = 0; t < MEMBERS; t++)
                test_thread_join(threads[t]);
            check_conserved(all);
        }
}

TEST(list_processes_share_each_index) {
    for (int i = 0; i < CAPACITIES; i++) {
        crowd *all = gather(capacities[i], 3, 8000);
        pid_t pids[3];
        for (int p = 0; p < 3; p++)
            pids[p] = test_spawn(take_part_as_process, all);
        for (int p = 0; p < 3; p++)
            test_join(pids[p]);
        check_conserved(all);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A killed process takes at most the one index with it that it had popped; the list is not torn for the others.

typedef struct victims {
    void *memory;
    uint32_t capacity;
    _Atomic uint32_t rounds;
} victims;

static zcp_mpmc_list fill(victims *all) {
    zcp_mpmc_list list;
    CHECK_OK(zcp_mpmc_list_create(&list, all->memory, zcp_mpmc_list_bytes(all->capacity), all->capacity, true));
    atomic_store(&all->rounds, 0);
    return list;
}

static void check_after_kills(zcp_mpmc_list *list, uint32_t kills) {
    uint32_t count = zcp_mpmc_list_count(list);
    CHECK_MSG(count + kills >= list->capacity, "%u of %u are left", count, list->capacity);
    CHECK_EQ(drain(list), count);
    for (uint32_t i = 0; i < list->capacity; i++)                  // and goes on working
        CHECK(zcp_mpmc_list_push(list, i));
    CHECK_EQ(drain(list), list->capacity);
}

static void pop_and_push_for_ever(void *argument) {
    victims *all = argument;
    zcp_mpmc_list list;
    uint32_t index;
    CHECK_OK(zcp_mpmc_list_attach(&list, all->memory, zcp_mpmc_list_bytes(all->capacity)));
    for (;;) {
        if (zcp_mpmc_list_pop(&list, &index))
            zcp_mpmc_list_push(&list, index);
        list.cursor = (uint32_t)test_random();                     // somewhere else each time
        atomic_fetch_add(&all->rounds, 1);
    }
}

TEST(list_survives_kills) {
    static const uint32_t sizes[] = {1, 2, 65, 4097};
    victims *all = test_shared(sizeof *all);
    all->memory = test_shared(bytes_of(4097));
    for (int round = 0; round < 40; round++) {
        all->capacity = sizes[round % 4];
        zcp_mpmc_list list = fill(all);
        pid_t first = test_spawn(pop_and_push_for_ever, all), second = test_spawn(pop_and_push_for_ever, all);
        uint32_t until = 500 + (uint32_t)test_random_below(3000);
        while (atomic_load(&all->rounds) < until)
            sched_yield();
        test_kill(first);
        test_kill(second);
        check_after_kills(&list, 2);
    }
}

// The same, and nothing left to chance: a traced process is killed before its 1st, 2nd, 3rd ... instruction.
static void pop_and_push_traced(void *argument) {
    victims *all = argument;
    zcp_mpmc_list list;
    uint32_t index;
    CHECK_OK(zcp_mpmc_list_attach(&list, all->memory, zcp_mpmc_list_bytes(all->capacity)));
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    raise(SIGSTOP);
    if (zcp_mpmc_list_pop(&list, &index))
        zcp_mpmc_list_push(&list, index);
    atomic_fetch_add(&all->rounds, 1);
}

static bool kill_after(victims *all, int instructions) {
    zcp_mpmc_list list = fill(all);
    pid_t pid = test_spawn(pop_and_push_traced, all);
    CHECK(WIFSTOPPED(test_wait(pid)));
    for (int i = 0; i < instructions; i++) {
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        CHECK(WIFSTOPPED(test_wait(pid)));
    }
    bool in_time = atomic_load(&all->rounds) == 0;
    test_kill(pid);
    check_after_kills(&list, 1);
    return in_time;
}

TEST(list_survives_a_kill_at_each_instruction) {
#if defined(TEST_TSAN) || defined(TEST_ASAN)
    test_skip("a call has too many instructions under a sanitizer");
#endif
    test_need("ptrace");
    victims *all = test_shared(sizeof *all);
    all->capacity = 1;                                             // so that push and pop change the hint, too
    all->memory = test_shared(bytes_of(all->capacity));
    int instructions = 0;
    while (kill_after(all, instructions))
        instructions++;
    CHECK(instructions > 50);
    test_note("%d instructions", instructions);
}
