// tests/creation_test.c: how an instance comes into being, is found, is replaced and goes. One initialiser, whoever
// else comes, is killed or stopped; names removed by hand; files of somebody else; every mode on whatever is there;
// permissions; and the validation of the header. Real processes throughout, and the books at the end.
#include "harness/inside.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define ROUNDS(full, sanitized) (sanitized)
#else
#define ROUNDS(full, sanitized) (full)
#endif

// ---------------------------------------------------------------------------------------------------------------------
// The three names of an instance, as files

enum { MANAGEMENT = 1, CHUNK = 2, LOCKS = 4, ALL = 7 };

typedef struct file_path {
    char text[512];
} file_path;

static file_path path_of(const char *instance, int which) {
    file_path path;
    const char *kind = which == MANAGEMENT ? "management" : which == CHUNK ? "chunk" : "locks";
    snprintf(path.text, sizeof path.text, "/dev/shm/%s_memory_%s", instance, kind);
    return path;
}

static bool is_there(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

static int names_there(const char *instance) {
    int names = 0;
    for (int which = MANAGEMENT; which <= LOCKS; which *= 2)
        names |= is_there(path_of(instance, which).text) ? which : 0;
    return names;
}

static void remove_names(const char *instance, int which) {
    for (int one = MANAGEMENT; one <= LOCKS; one *= 2)
        if (which & one)
            unlink(path_of(instance, one).text);
}

static void file_make(const char *path, const void *bytes, size_t count, mode_t permissions) {
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK_MSG(file >= 0, "%s: %s", path, strerror(errno));
    CHECK_EQ(fchmod(file, permissions), 0);
    CHECK_EQ(write(file, bytes, count), (ssize_t)count);
    close(file);
}

static void file_read(const char *path, off_t at, void *bytes, size_t count) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    memset(bytes, 0, count);
    CHECK_MSG(file >= 0 && pread(file, bytes, count, at) >= 0, "%s: %s", path, strerror(errno));
    close(file);
}

static void file_write(const char *path, off_t at, const void *bytes, size_t count) {
    int file = open(path, O_RDWR | O_CLOEXEC);
    CHECK_MSG(file >= 0 && pwrite(file, bytes, count, at) == (ssize_t)count, "%s: %s", path, strerror(errno));
    close(file);
}

static struct stat file_stat(const char *path) {
    struct stat status;
    CHECK_MSG(lstat(path, &status) == 0, "%s: %s", path, strerror(errno));
    return status;
}

// Where the header of the management segment has what: see its byte map in zerocp.h.
enum { MAGIC_AT = 0, BYTE_ORDER_AT = 8, STATE_AT = 16, VERSION_AT = 20, SIGNATURE_AT = 24, INSTANCE_AT = 32,
       CHUNK_FILE_AT = 40,
       GEOMETRY_AT = 64, GEOMETRY_BYTES = 64 + 64 * ZCP_MAX_POOLS, SIGNALS_BYTES = 192,
       LOCK_FILE_AT = 64 + GEOMETRY_BYTES + SIGNALS_BYTES + 64 * ZCP_MAX_LIVE_POOLS,
       MAX_CLIENTS_AT = 64 + 24, POOL_COUNT_AT = 64 + 28, POOLS_AT = 128,
       LAST_COUNT_AT = 128 + 64 + 48, CACHE_AT = 56,               // of two pools; in a pool
       LOWER = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 4 };           // half of 64 bits
enum { STATE_BUILDING = 0, STATE_READY = 1, STATE_RETIRED = 2 };

static uint32_t header_word(const char *instance, off_t at) {
    uint32_t word;
    file_read(path_of(instance, MANAGEMENT).text, at, &word, sizeof word);
    return word;
}

// ---------------------------------------------------------------------------------------------------------------------
// Opening, and work that shows whether an instance is one

static const zcp_config two_pools = {.pools = {.size = 2, .items = {{64, 8, 0, 0}, {1024, 4, 0, 0}}}};

typedef enum action { OPEN_OR_CREATE, OPEN_EXISTING, CREATE_EXCLUSIVE, PURGE, DESTROY, ACTIONS } action;

static const char *const action_names[ACTIONS] = {"open or create", "open existing", "create exclusive", "purge",
                                                  "destroy"};

static zcp_status act_with(const char *instance, action what, const zcp_manager_desc *more, zcp_manager **manager) {
    zcp_manager_desc desc = *more;
    *manager = NULL;
    if (what == DESTROY)
        return zcp_manager_destroy(instance);
    desc.name = instance;
    desc.mode = (zcp_shm_mode)what;
    zcp_status status = zcp_manager_open(manager, &desc);
    CHECK_EQ(*manager != NULL, status == ZCP_OK);
    return status;
}

static zcp_status act(const char *instance, action what, zcp_manager **manager) {
    zcp_manager_desc desc = {.config = what == OPEN_EXISTING ? NULL : &two_pools};
    return act_with(instance, what, &desc, manager);
}

static zcp_manager *must_open(const char *instance, action what) {
    zcp_manager *manager;
    CHECK_OK(act(instance, what, &manager));
    return manager;
}

static uint64_t id_of(const zcp_manager *manager) {
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    CHECK(info.instance_id != 0);
    return info.instance_id;
}

// A payload carries a salt and what follows from it and from the instance, so that any holder can verify it.
static uint64_t pattern_word(uint64_t salt, uint64_t instance, uint64_t i) {
    return (salt ^ instance) * 0x9e3779b97f4a7c15u + i;
}

static void pattern_write(const zcp_chunk *chunk) {
    uint64_t *words = zcp_chunk_data(chunk), salt = test_random(), instance = id_of(chunk->manager);
    CHECK(words != NULL);
    words[0] = salt;
    for (uint64_t i = 1; i < zcp_chunk_size(chunk) / 8; i++)
        words[i] = pattern_word(salt, instance, i);
}

static void pattern_verify(const zcp_chunk *chunk) {
    const uint64_t *words = zcp_chunk_data(chunk);
    CHECK(words != NULL);
    uint64_t salt = words[0], instance = id_of(chunk->manager);
    for (uint64_t i = 1; i < zcp_chunk_size(chunk) / 8; i++)
        CHECK_MSG(words[i] == pattern_word(salt, instance, i), "chunk %08x of %016llx: word %llu was overwritten",
                  chunk->index, (unsigned long long)instance, (unsigned long long)i);
}

// Allocates, writes, hands over, reads and releases: what a working instance does.
static void work_on(zcp_manager *manager) {
    zcp_chunk large, small, received;
    CHECK_OK(zcp_chunk_allocate(manager, 1024, &large));
    CHECK_OK(zcp_chunk_allocate(manager, 64, &small));
    pattern_write(&large);
    pattern_write(&small);
    CHECK_OK(zcp_chunk_acquire(manager, zcp_chunk_token(&large), &received));
    zcp_chunk_release(&large);
    pattern_verify(&received);
    pattern_verify(&small);
    zcp_chunk_release(&received);
    zcp_chunk_release(&small);
}

static void check_works(zcp_manager *manager) {
    CHECK_EQ(zcp_manager_pool_end(manager), two_pools.pools.size);
    work_on(manager);
}

// For an instance that nobody uses any more.
static void balance_and_destroy(const char *instance) {
    books_check(instance, 0);
    CHECK_OK(zcp_manager_destroy(instance));
    CHECK_EQ(names_there(instance), 0);
    CHECK_STATUS(zcp_manager_destroy(instance), ZCP_ERR_NOT_FOUND);
}

// A child that acts, and kills or stops itself at a step. A NULL step with a number: at the nth step, whatever its
// name.
typedef struct visit {
    const char *instance, *step;
    int nth;
    action what;
    test_action end;
    uint32_t timeout_ms;
    // shared: of the instance that it worked on at the end
    uint64_t *id;
    _Atomic uint32_t *begun;                                       // shared: it is about to open
} visit;

static void run_visit(void *argument) {
    const visit *v = argument;
    zcp_manager *manager;
    if (v->nth > 0)
        test_at_step(v->step, v->nth, v->end, NULL);
    zcp_manager_desc desc = {.config = v->what == OPEN_EXISTING ? NULL : &two_pools, .timeout_ms = v->timeout_ms};
    CHECK_OK(act_with(v->instance, v->what, &desc, &manager));
    test_steps_clear();
    if (manager == NULL)
        return;
    check_works(manager);
    if (v->id != NULL)
        *v->id = id_of(manager);
    zcp_manager_close(manager);
}

static void killed_at(const char *instance, action what, const char *step) {
    visit v = {.instance = instance, .step = step, .nth = 1, .what = what, .end = TEST_KILL};
    CHECK_MSG(test_join_killed(test_spawn(run_visit, &v)), "%s never came to \"%s\"", action_names[what], step);
}

// ---------------------------------------------------------------------------------------------------------------------
// What can be there, and what each action then has to say

typedef enum stage {
    ABSENT,
    // the creator was killed right after creating the file
    EMPTY,
    HALF_MADE,
    CHUNK_ALONE,                                                   // the management name was removed by hand
    LOCKS_ALONE,                                                   // the destroyer was killed before the last name
    WHOLE,
    CHUNK_GONE,                                                    // the chunk name was removed by hand
    CHUNK_FOREIGN,                                                 // and somebody has put another file there
    LOCKS_GONE,                                                    // the same of the lock object
    LOCKS_FOREIGN,
    RETIRED,                                                       // the destroyer was killed
    RETIRED_BARE,                                                  // after it had removed the chunk name
    STAGES
} stage;

static const char *const stage_names[STAGES] = {"absent", "empty", "half-made", "chunk segment alone",
                                                "lock object alone", "whole",
                                                "chunk name gone", "foreign chunk segment", "lock object gone",
                                                "foreign lock object", "retired", "retired, chunk name gone"};

// *witness: a client from before, where there can be one.
static void prepare(const char *instance, stage at, zcp_manager **witness) {
    CHECK_EQ(names_there(instance), 0);
    *witness = at >= CHUNK_ALONE ? must_open(instance, CREATE_EXCLUSIVE) : NULL;
    if (at == EMPTY)
        killed_at(instance, OPEN_OR_CREATE, "management_created");
    if (at == HALF_MADE)
        killed_at(instance, OPEN_OR_CREATE, "formatted");
    if (at == CHUNK_ALONE)
        remove_names(instance, MANAGEMENT);
    if (at == LOCKS_ALONE)
        killed_at(instance, DESTROY, "management_unlinked");
    if (at == LOCKS_GONE || at == LOCKS_FOREIGN)
        remove_names(instance, LOCKS);
    if (at == LOCKS_FOREIGN)
        file_make(path_of(instance, LOCKS).text, "foreign", 7, 0600);
    if (at == CHUNK_GONE || at == CHUNK_FOREIGN)
        remove_names(instance, CHUNK);
    if (at == CHUNK_FOREIGN)
        file_make(path_of(instance, CHUNK).text, "foreign", 7, 0600);
    if (at == RETIRED)
        killed_at(instance, DESTROY, "retired");
    if (at == RETIRED_BARE)
        killed_at(instance, DESTROY, "chunk_unlinked");
}

static stage stage_of(const char *instance) {
    uint64_t chunk_file[2], lock_file[2];
    int names = names_there(instance);
    if (!(names & MANAGEMENT))
        return names & CHUNK ? CHUNK_ALONE : names & LOCKS ? LOCKS_ALONE : ABSENT;
    if (file_stat(path_of(instance, MANAGEMENT).text).st_size == 0)
        return EMPTY;
    if (header_word(instance, STATE_AT) == STATE_BUILDING)
        return HALF_MADE;
    bool chunk = names & CHUNK;
    if (header_word(instance, STATE_AT) == STATE_RETIRED)
        return chunk ? RETIRED : RETIRED_BARE;
    file_read(path_of(instance, MANAGEMENT).text, CHUNK_FILE_AT, chunk_file, sizeof chunk_file);
    if (!chunk)
        return CHUNK_GONE;
    if (file_stat(path_of(instance, CHUNK).text).st_ino != chunk_file[1])
        return CHUNK_FOREIGN;
    file_read(path_of(instance, MANAGEMENT).text, LOCK_FILE_AT, lock_file, sizeof lock_file);
    if (!(names & LOCKS))
        return LOCKS_GONE;
    return file_stat(path_of(instance, LOCKS).text).st_ino == lock_file[1] ? WHOLE : LOCKS_FOREIGN;
}

static zcp_status expected_status(action what, bool config, stage at) {
    switch (what) {
    case OPEN_OR_CREATE:
        return at == WHOLE || config ? ZCP_OK : ZCP_ERR_NOT_FOUND;
    case OPEN_EXISTING:
        return at == WHOLE ? ZCP_OK : ZCP_ERR_NOT_FOUND;
    case CREATE_EXCLUSIVE:
        return !config ? ZCP_ERR_INVALID_ARGUMENT : at == WHOLE ? ZCP_ERR_EXISTS : ZCP_OK;
    case PURGE:
        return config ? ZCP_OK : ZCP_ERR_INVALID_ARGUMENT;
    case DESTROY:
    case ACTIONS:
        break;
    }
    return at == ABSENT ? ZCP_ERR_NOT_FOUND : ZCP_OK;
}

// A client of the instance that was there before: told whether it is replaced, and works on in any case.
static void check_witness(zcp_manager *witness, zcp_status expected) {
    CHECK_STATUS(zcp_manager_check(witness), expected);
    check_works(witness);
    books_check_by(witness, 0);
}

static void check_mode(const char *instance, action what, bool config, stage at) {
    zcp_manager *witness, *manager;
    test_note("%s, %s configuration: %s", action_names[what], config ? "with" : "without", stage_names[at]);
    prepare(instance, at, &witness);
    CHECK_EQ(stage_of(instance), at);
    uint64_t old = witness == NULL ? 0 : id_of(witness);
    zcp_status expected = expected_status(what, config, at);
    zcp_manager_desc desc = {.config = config ? &two_pools : NULL};
    CHECK_STATUS(act_with(instance, what, &desc, &manager), expected);
    bool replaced = expected == ZCP_OK && (at != WHOLE || what >= PURGE);
    if (manager != NULL) {
        check_works(manager);
        CHECK_OK(zcp_manager_check(manager));
        CHECK_EQ(id_of(manager) == old, !replaced);
        CHECK_EQ(stage_of(instance), WHOLE);
        zcp_manager_close(manager);
    } else if (what == DESTROY) {
        CHECK_EQ(names_there(instance), 0);
    } else if (expected == ZCP_ERR_NOT_FOUND && at >= CHUNK_GONE) {
        CHECK_EQ(stage_of(instance), ABSENT);                      // it has finished the destruction
        replaced = true;
    } else {
        CHECK_EQ(stage_of(instance), at);                          // nothing has changed
    }
    if (witness != NULL) {
        bool gone = replaced || at == CHUNK_ALONE || at == LOCKS_ALONE || at >= RETIRED;
        if (gone || at == WHOLE)
            check_witness(witness, gone ? ZCP_ERR_REPLACED : ZCP_OK);
        zcp_manager_close(witness);
    }
    zcp_status left = zcp_manager_destroy(instance);
    CHECK(left == ZCP_OK || left == ZCP_ERR_NOT_FOUND);
    CHECK_EQ(names_there(instance), 0);
}

TEST(creation_modes_on_whatever_is_there) {
    for (stage at = ABSENT; at < STAGES; at++)
        for (action what = OPEN_OR_CREATE; what < ACTIONS; what++)
            for (int config = what == DESTROY; config < 2; config++)
                check_mode(test_instance(), what, config, at);
}

// ---------------------------------------------------------------------------------------------------------------------
// One initialiser

enum { OPENERS = 16 };

typedef struct crowd {
    _Atomic uint32_t meeting, management, chunk;                   // segments created, by the log
    _Atomic uint32_t formatted;                                    // by the steps
    stage before;
    action what;
    struct {
        uint64_t id;
        zcp_status status;
        char pools[256];
    } seen[OPENERS];
} crowd;

static void count_creations(zcp_log_level level, const char *line, void *user) {
    crowd *all = user;
    CHECK_MSG(level >= ZCP_LOG_INFO, "%s", line);
    if (strstr(line, "segment created: ") != NULL)
        atomic_fetch_add(strstr(line, "_memory_management") != NULL ? &all->management : &all->chunk, 1);
}

static void nap(void) {
    test_sleep(test_random_below(4) == 0 ? 1 : 0);
    sched_yield();
}

static crowd *crowd_here;
static int crowd_number;                                           // of this process in the crowd

static void count_formatting(void) {
    crowd_here->formatted++;
}

static void check_crowd(crowd *all, const char *instance) {
    int opened = 0, first = -1;
    for (int i = 0; i < OPENERS; i++) {
        if (all->seen[i].status != ZCP_OK) {
            CHECK_EQ(all->what, CREATE_EXCLUSIVE);
            CHECK_EQ(all->seen[i].status, ZCP_ERR_EXISTS);
            continue;
        }
        first = first < 0 ? i : first;
        opened++;
        CHECK_EQ(all->seen[i].id, all->seen[first].id);
        CHECK_STR(all->seen[i].pools, all->seen[first].pools);
    }
    CHECK_EQ(opened, all->what == CREATE_EXCLUSIVE ? 1 : OPENERS);
    CHECK_EQ(all->formatted, 1);
    CHECK_EQ(all->management, 1);
    CHECK_EQ(all->chunk, 1);
    CHECK_STR(all->seen[first].pools, "Pool 0: chunk_size=64, total=8, used=0, free=8\n"
                                      "Pool 1: chunk_size=1024, total=4, used=0, free=4\n");
    books_check(instance, 0);
}

static void crowd_round(crowd *all, int round) {
    const char *instance = test_instance_n(round);
    zcp_manager *manager, *witness;
    if (crowd_number == 0) {
        prepare(instance, all->before, &witness);
        zcp_manager_close(witness);
        all->management = all->chunk = all->formatted = 0;
    }
    test_meet(&all->meeting, OPENERS);
    for (int i = 0; i < 3; i++)                                    // a change of process in the midst of it
        test_at_step(NULL, 1 + (int)test_random_below(14), TEST_CALL, nap);
    test_at_step("formatted", 1, TEST_CALL, count_formatting);
    zcp_status status = act(instance, all->what, &manager);
    test_steps_clear();
    all->seen[crowd_number].status = status;
    if (manager != NULL) {
        all->seen[crowd_number].id = id_of(manager);
        zcp_manager_format(manager, all->seen[crowd_number].pools, sizeof all->seen[0].pools);
    }
    test_meet(&all->meeting, OPENERS);
    if (crowd_number == 0)
        check_crowd(all, instance);
    test_meet(&all->meeting, OPENERS);
    zcp_manager_close(manager);
    test_meet(&all->meeting, OPENERS);
    if (crowd_number == 0)
        balance_and_destroy(instance);
}

typedef struct crowd_member {
    crowd *all;
    int number, rounds;
    bool only_fresh;
} crowd_member;

static void run_crowd(void *argument) {
    static const stage before[] = {EMPTY, HALF_MADE, RETIRED, CHUNK_GONE, CHUNK_ALONE};
    const crowd_member *member = argument;
    crowd_here = member->all;
    crowd_number = member->number;
    zcp_log_set_level(ZCP_LOG_INFO);
    zcp_log_set_callback(count_creations, member->all);
    for (int round = 0; round < member->rounds; round++) {
        if (crowd_number == 0 && !member->only_fresh) {
            member->all->before = before[round % 5];
            member->all->what = round / 5 % 2 == 0 ? OPEN_OR_CREATE : CREATE_EXCLUSIVE;
        }
        crowd_round(member->all, round);
    }
}

static void crowd_of(int rounds, bool only_fresh) {
    crowd *all = test_shared(sizeof *all);
    pid_t pids[OPENERS];
    for (int i = 0; i < OPENERS; i++)
        pids[i] = test_spawn(run_crowd, &(crowd_member){all, i, rounds, only_fresh});
    for (int i = 0; i < OPENERS; i++)
        test_join(pids[i]);
}

TEST_WITH(creation_has_one_initialiser, .seconds = 120, .weight = 2) {
    crowd_of(ROUNDS(100, 40), true);
}

TEST_WITH(creation_has_one_initialiser_on_what_others_left, .seconds = 120, .weight = 2) {
    crowd_of(ROUNDS(40, 20), false);
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed

// Whoever comes next gets what the stage promises, within a second: its timeout_ms.
static void check_next(const char *instance, action next) {
    zcp_manager *manager;
    stage at = stage_of(instance);
    zcp_manager_desc desc = {.config = next == OPEN_EXISTING ? NULL : &two_pools, .timeout_ms = ROUNDS(1000, 10000)};
    // Nobody has it open.
    zcp_status expected = next == CREATE_EXCLUSIVE ? ZCP_OK : expected_status(next, true, at);
    CHECK_STATUS(act_with(instance, next, &desc, &manager), expected);
    if (manager != NULL) {
        check_works(manager);
        CHECK_OK(zcp_manager_check(manager));
        CHECK_EQ(stage_of(instance), WHOLE);
        zcp_manager_close(manager);
    }
    if (stage_of(instance) == WHOLE)
        books_check(instance, 0);
    zcp_status left = zcp_manager_destroy(instance);
    CHECK(left == ZCP_OK || left == ZCP_ERR_NOT_FOUND);
    CHECK_EQ(names_there(instance), 0);
}

// One victim for each step that the action passes; true once it has passed them all.
static bool kill_and_check(const char *instance, stage before, action what, int nth, action next) {
    zcp_manager *witness;
    prepare(instance, before, &witness);
    zcp_manager_close(witness);
    visit v = {.instance = instance, .nth = nth, .what = what, .end = TEST_KILL};
    bool killed = test_join_killed(test_spawn(run_visit, &v));
    check_next(instance, next);
    return !killed;
}

TEST_WITH(creation_killed_at_each_step, .seconds = 120) {
    static const stage before[] = {ABSENT, HALF_MADE, WHOLE, CHUNK_GONE, RETIRED};
    static const action actions[] = {OPEN_OR_CREATE, PURGE, DESTROY};
    int victims = 0;
    for (size_t b = 0; b < sizeof before / sizeof before[0]; b++)
        for (size_t a = 0; a < sizeof actions / sizeof actions[0]; a++)
            for (int round = 0; round < 2; round++) {              // what comes next at a step changes from run to run
                bool passed = expected_status(actions[a], true, before[b]) != ZCP_OK;
                for (int nth = 1; !passed; nth++, victims++) {
                    action next = (action)test_random_below(ACTIONS);
                    passed = kill_and_check(test_instance(), before[b], actions[a], nth, next);
                }
            }
    test_note("%d victims", victims);
    CHECK(victims > 150);
}

static const zcp_config wide_pools = {.pools = {.size = 2, .items = {{256 << 10, 8, 0, 0}, {1024, 512, 0, 0}}}};

static void create_when_told(void *argument) {
    _Atomic uint32_t *words = argument;                            // ready, go
    zcp_manager *manager;
    test_signal(&words[0]);
    while (atomic_load_explicit(&words[1], memory_order_acquire) == 0)
        sched_yield();
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &wide_pools}));
    work_on(manager);
    zcp_manager_close(manager);
}

// The shortest of five: where in the creation the victim dies is left to chance, but it is to be in there most times.
static uint64_t creation_time(void) {
    uint64_t shortest = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        zcp_manager *manager;
        uint64_t start = test_now();
        CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &wide_pools}));
        uint64_t took = test_now() - start;
        shortest = took < shortest ? took : shortest;
        zcp_manager_close(manager);
        balance_and_destroy(test_instance());
    }
    return shortest;
}

TEST_WITH(creation_killed_at_any_moment, .seconds = 120) {
    _Atomic uint32_t *words = test_shared(2 * sizeof *words);
    int found[STAGES] = {0};
    uint64_t window = creation_time();
    for (int round = 0; round < ROUNDS(150, 60); round++) {
        words[0] = words[1] = 0;
        pid_t pid = test_spawn(create_when_told, words);
        test_await(&words[0], 1);
        uint64_t end = test_now() + test_random_below(window);
        atomic_store_explicit(&words[1], 1, memory_order_release);
        while (test_now() < end)
            continue;
        kill(pid, SIGKILL);
        test_join_killed(pid);
        found[stage_of(test_instance())]++;
        zcp_manager *manager;
        CHECK_OK(zcp_manager_open(
            &manager,
            &(zcp_manager_desc){.name = test_instance(), .config = &wide_pools, .timeout_ms = ROUNDS(1000, 10000)}));
        work_on(manager);
        zcp_manager_close(manager);
        if (round % 10 == 0)
            books_check(test_instance(), 0);
        CHECK_OK(zcp_manager_destroy(test_instance()));
        CHECK_EQ(names_there(test_instance()), 0);
    }
    for (stage at = ABSENT; at < STAGES; at++)
        test_note("%s: %d", stage_names[at], found[at]);
    CHECK_EQ(found[ABSENT] + found[EMPTY] + found[HALF_MADE] + found[WHOLE], ROUNDS(150, 60));
}

// What a killed creator has left may be longer than what the next one makes, and hold anything behind its first words.
TEST(creation_takes_over_half_made_files_of_any_content) {
    static unsigned char bytes[1 << 18];
    const size_t sizes[] = {16, 20, 4096, 12288, sizeof bytes};
    killed_at(test_instance(), OPEN_OR_CREATE, "formatted");
    file_read(path_of(test_instance(), MANAGEMENT).text, 0, bytes, 16);
    remove_names(test_instance(), ALL);
    memset(bytes + 20, 0xff, sizeof bytes - 20);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (action what = OPEN_OR_CREATE; what <= PURGE; what++) {
            zcp_manager *manager;
            file_make(path_of(test_instance(), MANAGEMENT).text, bytes, sizes[i], 0600);
            CHECK_EQ(stage_of(test_instance()), HALF_MADE);
            // so that no sweep of others mends it
            zcp_manager_desc desc = {.config = &two_pools, .max_clients = 1};
            CHECK_STATUS(act_with(test_instance(), what, &desc, &manager), expected_status(what, true, HALF_MADE));
            if (manager == NULL) {
                remove_names(test_instance(), MANAGEMENT);
                continue;
            }
            check_works(manager);
            zcp_manager_close(manager);
            CHECK_EQ(file_stat(path_of(test_instance(), MANAGEMENT).text).st_size,
                     (off_t)zcp_config_management_bytes(&two_pools, 1));
            balance_and_destroy(test_instance());
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes that trade chunks, each verified by all its holders; nobody else may touch them meanwhile

enum { TRADERS = 8 };

static const zcp_config market_pools = {.pools = {.size = 2, .items = {{64, 64, 0, 0}, {1024, 64, 0, 0}}}};

typedef struct market {
    _Atomic uint32_t stop, left;
    _Atomic uint64_t offered[TRADERS];                             // tokens, of whatever instance; hints
    _Atomic uint32_t outcomes[ACTIONS][64];
    _Atomic uint32_t acquired, trades;
} market;

static void look_at_offer(zcp_manager *manager, market *all) {
    zcp_chunk chunk;
    uint64_t token = all->offered[test_random_below(TRADERS)];
    if (token == 0)
        return;
    zcp_status status = zcp_chunk_acquire(manager, token, &chunk);
    CHECK_MSG(status == ZCP_OK || status == ZCP_ERR_STALE, "%s: %s", zcp_status_name(status), zcp_last_message());
    if (status != ZCP_OK)
        return;
    all->acquired++;
    pattern_verify(&chunk);
    nap();
    pattern_verify(&chunk);
    zcp_chunk_release(&chunk);
}

static void trade(zcp_manager *manager, market *all, int self) {
    zcp_chunk mine[3];
    size_t count = 1 + (size_t)test_random_below(3);
    for (size_t i = 0; i < count; i++) {
        CHECK_OK(zcp_chunk_allocate(manager, test_random_below(2) == 0 ? 64 : 1024, &mine[i]));
        pattern_write(&mine[i]);
    }
    all->offered[self] = zcp_chunk_token(&mine[0]);
    for (uint64_t i = test_random_below(4); i > 0; i--) {
        look_at_offer(manager, all);
        for (size_t k = 0; k < count; k++)
            pattern_verify(&mine[k]);
    }
    for (size_t i = 0; i < count; i++)
        zcp_chunk_release(&mine[i]);
    all->trades++;
}

// ---------------------------------------------------------------------------------------------------------------------
// Everybody against everybody

// What an open or destroy may say beside OK while others do what they like: that somebody else was first, or that it
// was given no chance within its time.
static bool is_clear(action what, zcp_status status) {
    switch (status) {
    case ZCP_OK:
    case ZCP_ERR_TIMEOUT:
        return true;
    case ZCP_ERR_NOT_FOUND:
        return what == OPEN_EXISTING || what == DESTROY;
    case ZCP_ERR_EXISTS:
        return what == CREATE_EXCLUSIVE;
    default:
        return false;
    }
}

typedef struct trader {
    market *all;
    int self;
} trader;

static void run_trader(void *argument) {
    static const action wishes[] = {OPEN_OR_CREATE,   OPEN_OR_CREATE, OPEN_EXISTING, OPEN_EXISTING,
                                    CREATE_EXCLUSIVE, PURGE,          DESTROY};
    market *all = ((const trader *)argument)->all;
    if (test_random_below(2) == 0)
        test_step_any_kill(1 + (int)test_random_below(300));
    while ((int32_t)atomic_fetch_sub(&all->left, 1) > 0) {
        zcp_manager *manager;
        action what = wishes[test_random_below(sizeof wishes / sizeof wishes[0])];
        zcp_manager_desc desc = {.config = what == OPEN_EXISTING ? NULL : &market_pools};
        zcp_status status = act_with(test_instance(), what, &desc, &manager);
        all->outcomes[what][status]++;
        CHECK_MSG(is_clear(what, status), "%s: %s: %s", action_names[what], zcp_status_name(status),
                  zcp_last_message());
        for (uint64_t i = manager == NULL ? 0 : 1 + test_random_below(3); i > 0; i--)
            trade(manager, all, ((const trader *)argument)->self);
        zcp_manager_close(manager);
    }
}

// Kills one now and then, and sends another in its place; true as long as there is work left.
static bool stir(market *all, pid_t pids[TRADERS], int *killed) {
    if ((int32_t)all->left <= 0)
        return false;
    for (int i = 0; i < TRADERS; i++) {
        int status = 0;
        if (test_random_below(40) == 0)
            kill(pids[i], SIGKILL);
        if (waitpid(pids[i], &status, WNOHANG) != pids[i])
            continue;
        CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        *killed += status != 0;
        pids[i] = test_spawn(run_trader, &(trader){all, i});
    }
    test_sleep(2);
    return true;
}

static void note_outcomes(market *all) {
    for (action what = OPEN_OR_CREATE; what < ACTIONS; what++)
        for (int status = 0; status < 64; status++)
            if (all->outcomes[what][status] > 0)
                test_note("%s: %s %u times", action_names[what], zcp_status_name((zcp_status)status),
                          all->outcomes[what][status]);
}

TEST_WITH(creation_everybody_against_everybody, .seconds = 120, .weight = 2) {
    market *all = test_shared(sizeof *all);
    pid_t pids[TRADERS];
    zcp_manager *manager;
    int killed = 0;
    all->left = ROUNDS(5000, 1500);
    for (int i = 0; i < TRADERS; i++)
        pids[i] = test_spawn(run_trader, &(trader){all, i});
    while (stir(all, pids, &killed))
        continue;
    for (int i = 0; i < TRADERS; i++)
        killed += test_join_killed(pids[i]);
    note_outcomes(all);
    test_note("%d killed, %u trades, %u acquired", killed, all->trades, all->acquired);
    CHECK(killed > 5 && all->acquired > 0);
    for (action what = OPEN_OR_CREATE; what < ACTIONS; what++)
        CHECK_MSG(all->outcomes[what][ZCP_OK] > 0, "%s never succeeded", action_names[what]);
    zcp_status last = act_with(test_instance(), OPEN_EXISTING, &(zcp_manager_desc){.config = NULL}, &manager);
    CHECK(last == ZCP_OK || last == ZCP_ERR_NOT_FOUND);
    zcp_manager_close(manager);
    if (last == ZCP_OK)
        books_check(test_instance(), 0);
    last = zcp_manager_destroy(test_instance());
    CHECK(last == ZCP_OK || last == ZCP_ERR_NOT_FOUND);
    CHECK_EQ(names_there(test_instance()), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Names removed by hand

static struct {
    const char *instance;
    int which;
    bool done;
} by_hand;

static void remove_by_hand(void) {
    remove_names(by_hand.instance, by_hand.which);
    by_hand.done = true;
}

// Somebody who comes later gets the same instance if its names are there, else another one; both work.
static void check_beside_later(const char *instance, zcp_manager *manager) {
    check_works(manager);
    zcp_status now = zcp_manager_check(manager);
    CHECK(now == ZCP_OK || now == ZCP_ERR_REPLACED);
    bool current = now == ZCP_OK && stage_of(instance) == WHOLE;
    zcp_manager *later = must_open(instance, OPEN_OR_CREATE);
    CHECK_EQ(id_of(later) == id_of(manager), current);
    CHECK_STATUS(zcp_manager_check(manager), current ? ZCP_OK : ZCP_ERR_REPLACED);
    CHECK_OK(zcp_manager_check(later));
    check_works(later);
    check_works(manager);
    books_check_by(manager, 0);
    zcp_manager_close(later);
    books_check(instance, 0);
}

// true: the action has fewer steps than that; the names were removed after it.
static bool removed_at(const char *instance, stage before, action what, int which, int nth) {
    zcp_manager *witness, *manager;
    prepare(instance, before, &witness);
    by_hand.instance = instance;
    by_hand.which = which;
    by_hand.done = false;
    test_at_step(NULL, nth, TEST_CALL, remove_by_hand);
    zcp_status status = act(instance, what, &manager);
    test_steps_clear();
    CHECK_MSG(status != ZCP_ERR_TIMEOUT && is_clear(what, status), "%s: step %d: %s: %s", action_names[what], nth,
              zcp_status_name(status), zcp_last_message());
    bool after = !by_hand.done;
    if (after)
        remove_by_hand();
    if (manager != NULL)
        check_beside_later(instance, manager);
    if (witness != NULL) {
        zcp_status old = zcp_manager_check(witness);
        check_witness(witness, old == ZCP_OK ? ZCP_OK : ZCP_ERR_REPLACED);
    }
    zcp_manager_close(manager);
    zcp_manager_close(witness);
    status = zcp_manager_destroy(instance);
    CHECK(status == ZCP_OK || status == ZCP_ERR_NOT_FOUND);
    CHECK_EQ(names_there(instance), 0);
    return after;
}

TEST(creation_names_removed_at_each_step) {
    static const stage before[] = {ABSENT, HALF_MADE, WHOLE, CHUNK_GONE, RETIRED};
    int removals = 0;
    for (size_t b = 0; b < sizeof before / sizeof before[0]; b++)
        for (action what = OPEN_OR_CREATE; what < ACTIONS; what++)
            for (int which = MANAGEMENT; which <= ALL; which++)
                // Each run takes other steps.
                for (int nth = 1; removals++, !removed_at(test_instance(), before[b], what, which, nth);)
                    nth += 1 + (int)test_random_below(3);
    test_note("%d removals", removals);
    CHECK(removals > 150);
}

// Between the look at an instance and the join: who had it in hand comes out at what the name leads to then.
TEST(creation_names_removed_between_look_and_join) {
    static const char *const steps[] = {"slot_locked", "joined"};
    for (size_t i = 0; i < 2; i++)
        for (int which = MANAGEMENT; which <= ALL; which++) {
            zcp_manager *first = must_open(test_instance(), CREATE_EXCLUSIVE), *second;
            by_hand.instance = test_instance();
            by_hand.which = which;
            test_at_step(steps[i], 1, TEST_CALL, remove_by_hand);
            CHECK_OK(act(test_instance(), OPEN_OR_CREATE, &second));
            test_steps_clear();
            CHECK_EQ(id_of(first) == id_of(second), which == CHUNK);      // its other names still led there
            if (which != CHUNK)
                CHECK_OK(zcp_manager_check(second));
            check_beside_later(test_instance(), second);
            check_witness(first, ZCP_ERR_REPLACED);
            zcp_manager_close(first);
            zcp_manager_close(second);
            balance_and_destroy(test_instance());
        }
    zcp_manager *first = must_open(test_instance(), CREATE_EXCLUSIVE), *second;
    by_hand.which = ALL;
    test_at_step("joined", 1, TEST_CALL, remove_by_hand);
    CHECK_STATUS(act(test_instance(), OPEN_EXISTING, &second), ZCP_ERR_NOT_FOUND);
    test_steps_clear();
    check_witness(first, ZCP_ERR_REPLACED);
    zcp_manager_close(first);
    CHECK_EQ(names_there(test_instance()), 0);
}

static void move_chunk_name(const char *from, const char *to) {
    CHECK_EQ(rename(path_of(from, CHUNK).text, path_of(to, CHUNK).text), 0);
}

static void move_chunk_name_back(void) {
    move_chunk_name(test_instance_n(1), test_instance());
}

// What looked broken is looked at again under the creation lock, before anything is retired.
TEST(creation_broken_instance_mended_in_time) {
    for (action what = OPEN_OR_CREATE; what <= CREATE_EXCLUSIVE; what++) {
        zcp_manager *first = must_open(test_instance(), CREATE_EXCLUSIVE), *second;
        move_chunk_name(test_instance(), test_instance_n(1));
        test_at_step("creation_locked", 1, TEST_CALL, move_chunk_name_back);
        CHECK_STATUS(act(test_instance(), what, &second), what == CREATE_EXCLUSIVE ? ZCP_ERR_EXISTS : ZCP_OK);
        test_steps_clear();
        check_witness(first, ZCP_OK);
        if (second != NULL)
            CHECK_EQ(id_of(first), id_of(second));
        zcp_manager_close(first);
        zcp_manager_close(second);
        balance_and_destroy(test_instance());
    }
}

static void work_until_replaced(void *argument) {
    const trader *me = argument;
    zcp_manager *manager;
    CHECK_OK(act_with(test_instance(), OPEN_EXISTING, &(zcp_manager_desc){.config = NULL}, &manager));
    test_signal(&me->all->left);
    while (zcp_manager_check(manager) == ZCP_OK)
        trade(manager, me->all, me->self);
    CHECK_STATUS(zcp_manager_check(manager), ZCP_ERR_REPLACED);
    for (int i = 0; i < 50; i++)                                   // the old instance is as good as ever
        trade(manager, me->all, me->self);
    zcp_manager_close(manager);
}

// How an instance can lose its name while its clients work: by hand, and by the calls that are there for it.
static void replaced_under(int which, action replace) {
    market *all = test_shared(sizeof *all);
    zcp_manager *old, *fresh;
    pid_t pids[TRADERS / 2];
    zcp_manager_desc desc = {.config = &market_pools};
    CHECK_OK(act_with(test_instance(), CREATE_EXCLUSIVE, &desc, &old));
    for (int i = 0; i < TRADERS / 2; i++)
        pids[i] = test_spawn(work_until_replaced, &(trader){all, i});
    test_await(&all->left, TRADERS / 2);
    test_sleep(5);
    remove_names(test_instance(), which);
    CHECK_OK(act_with(test_instance(), replace, &desc, &fresh));
    if (fresh == NULL)
        CHECK_OK(act_with(test_instance(), OPEN_OR_CREATE, &desc, &fresh));
    CHECK(id_of(fresh) != id_of(old));
    for (int i = 0; i < 20; i++)
        trade(fresh, all, TRADERS - 1);
    for (int i = 0; i < TRADERS / 2; i++)
        test_join(pids[i]);
    CHECK_OK(zcp_manager_check(fresh));
    CHECK_STATUS(zcp_manager_check(old), ZCP_ERR_REPLACED);
    books_check_by(old, 0);
    zcp_manager_close(old);
    zcp_manager_close(fresh);
    balance_and_destroy(test_instance());
}

TEST(creation_clients_work_on_when_replaced) {
    replaced_under(MANAGEMENT, OPEN_OR_CREATE);
    replaced_under(CHUNK, OPEN_OR_CREATE);
    replaced_under(ALL, OPEN_OR_CREATE);
    replaced_under(ALL, CREATE_EXCLUSIVE);
    replaced_under(0, PURGE);
    replaced_under(0, DESTROY);
}

// ---------------------------------------------------------------------------------------------------------------------
// Stopped

static pid_t stopped_at(visit *v, const char *step) {
    v->step = step;
    v->nth = 1;
    v->end = TEST_STOP;
    pid_t pid = test_spawn(run_visit, v);
    test_await_stop(pid);
    return pid;
}

TEST(creation_stopped_attacher_blocks_nobody) {
    static const char *const steps[] = {"slot_locked", "joined"};
    for (int i = 0; i < 2; i++) {
        uint64_t *id = test_shared(sizeof *id);
        visit v = {.instance = test_instance(), .what = OPEN_OR_CREATE, .id = id};
        zcp_manager *first = must_open(test_instance(), CREATE_EXCLUSIVE), *second, *third;
        pid_t pid = stopped_at(&v, steps[i]);
        books_check(test_instance(), 0);                           // another one attaches, obtains every chunk, leaves
        second = must_open(test_instance(), OPEN_OR_CREATE);
        CHECK_EQ(id_of(second), id_of(first));
        third = must_open(test_instance(), PURGE);
        CHECK(id_of(third) != id_of(first));
        check_witness(second, ZCP_ERR_REPLACED);
        CHECK_OK(zcp_manager_destroy(test_instance()));
        zcp_manager_close(third);
        third = must_open(test_instance(), CREATE_EXCLUSIVE);
        test_resume(pid);
        test_join(pid);
        CHECK_EQ(*id, id_of(third));                               // and the stopped one finds where the name leads now
        zcp_manager_close(first);
        zcp_manager_close(second);
        zcp_manager_close(third);
        balance_and_destroy(test_instance());
    }
}

// A process holds the creation lock: the others wait for their time and no longer, and learn whom to blame.
static void check_times_out(const char *instance, action what, pid_t culprit) {
    zcp_manager *manager;
    char words[64];
    uint32_t timeout_ms = 60;
    uint64_t start = test_now();
    zcp_manager_desc desc = {.config = what == OPEN_EXISTING ? NULL : &two_pools, .timeout_ms = timeout_ms};
    CHECK_STATUS(act_with(instance, what, &desc, &manager), ZCP_ERR_TIMEOUT);
    uint64_t waited = (test_now() - start) / 1000000;
    CHECK_MSG(waited >= timeout_ms && waited < 4000, "%llu ms", (unsigned long long)waited);      // 5000 is the default
    snprintf(words, sizeof words, "process %d ", (int)culprit);
    CHECK_MSG(strstr(zcp_last_message(), words) != NULL, "expected %s in: %s", words, zcp_last_message());
}

// The stopped creator is continued, and finishes; everybody finds the same instance then.
static void check_finishes(const char *instance, pid_t pid, const uint64_t *id) {
    test_resume(pid);
    zcp_manager *manager = must_open(instance, OPEN_OR_CREATE);
    test_join(pid);
    check_works(manager);
    CHECK_EQ(*id, id_of(manager));
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
    balance_and_destroy(instance);
}

TEST(creation_stopped_creator_is_waited_for) {
    static const char *const steps[] = {"creation_locked", "started",     "management_sized",
                                        "chunk_created",   "chunk_sized", "formatted"};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        uint64_t *id = test_shared(sizeof *id);
        zcp_manager *manager;
        visit v = {.instance = test_instance(), .what = i % 2 == 0 ? OPEN_OR_CREATE : CREATE_EXCLUSIVE, .id = id};
        pid_t pid = stopped_at(&v, steps[i]);
        check_times_out(test_instance(), OPEN_OR_CREATE, pid);
        check_times_out(test_instance(), CREATE_EXCLUSIVE, pid);
        check_times_out(test_instance(), PURGE, pid);
        CHECK_STATUS(act(test_instance(), OPEN_EXISTING, &manager), ZCP_ERR_NOT_FOUND);
        check_finishes(test_instance(), pid, id);
    }
}

// Also when the file that it has created is gone meanwhile: it must not build in a file that no name leads to.
TEST(creation_stopped_creator_without_lock_blocks_nobody) {
    for (int removed = 0; removed < 2; removed++) {
        uint64_t *id = test_shared(sizeof *id);
        visit v = {.instance = test_instance(), .what = OPEN_OR_CREATE, .id = id};
        pid_t pid = stopped_at(&v, "management_created");
        if (removed)
            CHECK_OK(zcp_manager_destroy(test_instance()));
        zcp_manager *manager = must_open(test_instance(), CREATE_EXCLUSIVE);
        check_works(manager);
        test_resume(pid);
        test_join(pid);
        CHECK_EQ(*id, id_of(manager));
        CHECK_EQ(stage_of(test_instance()), WHOLE);
        check_witness(manager, ZCP_OK);
        zcp_manager_close(manager);
        balance_and_destroy(test_instance());
    }
}

// Before it has retired the instance, a destroyer keeps nobody from attaching; after that they wait for it.
static void destroyer_stopped_at(action what, const char *step) {
    visit v = {.instance = test_instance(), .what = what};
    zcp_manager *witness = must_open(test_instance(), CREATE_EXCLUSIVE), *manager;
    pid_t pid = stopped_at(&v, step);
    test_note("%s stopped at \"%s\"", action_names[what], step);
    if (strcmp(step, "creation_locked") == 0) {
        manager = must_open(test_instance(), OPEN_EXISTING);
        CHECK_EQ(id_of(manager), id_of(witness));
        CHECK_OK(zcp_manager_check(manager));
        zcp_manager_close(manager);
        books_check(test_instance(), 0);
        check_times_out(test_instance(), PURGE, pid);
    } else if (strcmp(step, "locks_unlinked") == 0) {
        manager = must_open(test_instance(), CREATE_EXCLUSIVE);    // the lock went with the last name
        check_works(manager);
        zcp_manager_close(manager);
    } else if (strcmp(step, "management_unlinked") == 0) {
        zcp_manager_desc desc = {.config = &two_pools, .timeout_ms = 50};
        CHECK_STATUS(act_with(test_instance(), OPEN_OR_CREATE, &desc, &manager), ZCP_ERR_TIMEOUT);
        CHECK(strstr(zcp_last_message(), "within 50 ms") != NULL);
    } else {
        for (action other = OPEN_OR_CREATE; other < DESTROY; other++)
            check_times_out(test_instance(), other, pid);
    }
    check_works(witness);
    test_resume(pid);
    test_join(pid);
    check_witness(witness, ZCP_ERR_REPLACED);
    zcp_manager_close(witness);
    manager = must_open(test_instance(), OPEN_OR_CREATE);
    check_works(manager);
    zcp_manager_close(manager);
    balance_and_destroy(test_instance());
}

TEST(creation_stopped_destroyer_is_waited_for) {
    static const char *const steps[] = {"creation_locked", "retired", "chunk_unlinked", "management_unlinked",
                                        "locks_unlinked"};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        destroyer_stopped_at(DESTROY, steps[i]);
        destroyer_stopped_at(PURGE, steps[i]);
    }
}

// A half-made file carries the pid of a creator who was killed: it is not the one to blame for whoever has the lock
// now.
TEST(creation_stopped_on_what_the_dead_left) {
    static const struct {
        action what;
        const char *step;
    } culprits[] = {{OPEN_OR_CREATE, "creation_locked"}, {DESTROY, "creation_locked"}, {DESTROY, "chunk_unlinked"}};
    for (size_t i = 0; i < sizeof culprits / sizeof culprits[0]; i++) {
        zcp_manager *witness;
        visit v = {.instance = test_instance(), .what = culprits[i].what};
        prepare(test_instance(), HALF_MADE, &witness);
        pid_t pid = stopped_at(&v, culprits[i].step);
        check_times_out(test_instance(), OPEN_OR_CREATE, pid);
        test_resume(pid);
        test_join(pid);
        zcp_manager_close(must_open(test_instance(), OPEN_OR_CREATE));
        balance_and_destroy(test_instance());
    }
}

// destroy has no timeout of the caller's: five seconds.
TEST(creation_destroy_times_out_beside_a_stopped_creator) {
    uint64_t *id = test_shared(sizeof *id);
    visit v = {.instance = test_instance(), .what = OPEN_OR_CREATE, .id = id};
    pid_t pid = stopped_at(&v, "chunk_sized");
    char words[64];
    uint64_t start = test_now();
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_TIMEOUT);
    CHECK(test_now() - start >= UINT64_C(5000000000));
    snprintf(words, sizeof words, "process %d ", (int)pid);
    CHECK_MSG(strstr(zcp_last_message(), words) != NULL, "%s", zcp_last_message());
    check_finishes(test_instance(), pid, id);
}

// ---------------------------------------------------------------------------------------------------------------------
// Waiting for somebody to create it

static void open_waiting(void *argument) {
    const visit *v = argument;
    zcp_manager *manager;
    zcp_manager_desc desc = {.flags = ZCP_WAIT, .timeout_ms = 30000};
    test_signal(v->begun);
    CHECK_OK(act_with(v->instance, v->what, &desc, &manager));
    check_works(manager);
    *v->id = id_of(manager);
    zcp_manager_close(manager);
}

TEST(creation_wait_finds_who_comes_later) {
    for (stage at = ABSENT; at < STAGES; at++) {
        uint64_t *id = test_shared(sizeof *id);
        _Atomic uint32_t *begun = test_shared(sizeof *begun);
        zcp_manager *witness, *manager;
        visit v = {.instance = test_instance(), .what = at % 2 == 0 ? OPEN_EXISTING : OPEN_OR_CREATE, .id = id,
                   .begun = begun};
        prepare(test_instance(), at, &witness);
        pid_t pid = test_spawn(open_waiting, &v);
        test_await(begun, 1);
        test_sleep(10);
        manager = must_open(test_instance(), OPEN_OR_CREATE);
        test_join(pid);
        CHECK_EQ(*id, id_of(manager));
        zcp_manager_close(witness);
        zcp_manager_close(manager);
        balance_and_destroy(test_instance());
    }
}

TEST(creation_wait_ends_when_nobody_comes) {
    static const stage nothing[] = {ABSENT, EMPTY, HALF_MADE, CHUNK_ALONE};
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++)
        for (action what = OPEN_OR_CREATE; what <= OPEN_EXISTING; what++)
            for (int read_only = 0; read_only < 2; read_only++) {
                zcp_manager *witness, *manager;
                prepare(test_instance(), nothing[i], &witness);
                uint64_t start = test_now();
                zcp_manager_desc desc = {.flags = ZCP_WAIT | (read_only ? ZCP_READ_ONLY_DATA : 0), .timeout_ms = 30,
                                         .config = read_only ? &two_pools : NULL};
                CHECK_STATUS(act_with(test_instance(), what, &desc, &manager), ZCP_ERR_TIMEOUT);
                CHECK(test_now() - start >= UINT64_C(30000000) && test_now() - start < UINT64_C(4000000000));
                CHECK(strstr(zcp_last_message(), "30 ms") != NULL);
                CHECK_EQ(stage_of(test_instance()), nothing[i]);
                zcp_manager_close(witness);
                remove_names(test_instance(), ALL);
            }
}

// ---------------------------------------------------------------------------------------------------------------------
// What does not go together

static void check_open(action what, zcp_manager_desc desc, zcp_status expected) {
    zcp_manager *manager;
    CHECK_STATUS(act_with(test_instance(), what, &desc, &manager), expected);
    zcp_manager_close(manager);
}

TEST(creation_read_only_data_never_creates) {
    zcp_manager *witness;
    for (stage at = ABSENT; at < STAGES; at++)
        for (int config = 0; config < 2; config++) {
            zcp_manager_desc desc = {.config = config ? &two_pools : NULL, .flags = ZCP_READ_ONLY_DATA};
            for (action what = OPEN_OR_CREATE; what <= OPEN_EXISTING; what++) {
                prepare(test_instance(), at, &witness);
                check_open(what, desc, at == WHOLE ? ZCP_OK : ZCP_ERR_NOT_FOUND);
                CHECK_EQ(stage_of(test_instance()), at < CHUNK_GONE ? at : ABSENT);
                check_open(CREATE_EXCLUSIVE, desc, ZCP_ERR_INVALID_FLAGS);
                check_open(PURGE, desc, ZCP_ERR_INVALID_FLAGS);
                CHECK_EQ(stage_of(test_instance()), at < CHUNK_GONE ? at : ABSENT);
                zcp_manager_close(witness);
                remove_names(test_instance(), ALL);
            }
        }
    check_open(CREATE_EXCLUSIVE, (zcp_manager_desc){.config = &two_pools, .flags = ZCP_WAIT}, ZCP_ERR_INVALID_FLAGS);
    check_open(PURGE, (zcp_manager_desc){.config = &two_pools, .flags = ZCP_WAIT}, ZCP_ERR_INVALID_FLAGS);
    CHECK_EQ(names_there(test_instance()), 0);
}

static void check_mismatch(const zcp_config *config, uint32_t max_clients, const char *is, const char *wanted) {
    zcp_manager_desc desc = {.config = config, .max_clients = max_clients};
    for (action what = OPEN_OR_CREATE; what <= OPEN_EXISTING; what++) {
        check_open(what, desc, ZCP_ERR_CONFIG_MISMATCH);
        CHECK_MSG(strstr(zcp_last_message(), is) != NULL && strstr(zcp_last_message(), wanted) != NULL, "%s",
                  zcp_last_message());
    }
}

TEST(creation_configuration_must_be_equal) {
    zcp_config other = two_pools;
    zcp_manager *manager;
    zcp_manager_desc desc = {.config = &two_pools, .max_clients = 3};
    CHECK_OK(act_with(test_instance(), CREATE_EXCLUSIVE, &desc, &manager));
    // rounds up to the same stride, and is another size still
    other.pools.items[0].chunk_size = 65;
    check_mismatch(&other, 0, "of 64 bytes", "of 65");
    other = two_pools;
    other.pools.items[1].chunk_count = 5;
    check_mismatch(&other, 0, "4 chunks", "5 of 1024");
    other = two_pools;
    other.pools.items[1].alignment = 32;
    check_mismatch(&other, 0, "alignment 64", "(32)");
    other = two_pools;
    other.pools.items[1].cache_chunks = 7;
    check_mismatch(&other, 0, "cache 0 chunks", "asked for: 7");
    other = two_pools;
    other.pools.size = 1;
    check_mismatch(&other, 0, "2 pools", "1 were");
    CHECK_OK(zcp_config_add_pool(&other, 1024, 4));
    CHECK_OK(zcp_config_add_pool(&other, 1024, 4));
    check_mismatch(&other, 0, "2 pools", "3 were");
    other = two_pools;
    other.pools.items[0] = two_pools.pools.items[1];
    other.pools.items[1] = two_pools.pools.items[0];
    check_open(OPEN_OR_CREATE, (zcp_manager_desc){.config = &other}, ZCP_OK);          // the order does not matter
    check_mismatch(&two_pools, 2, "for 3 clients", "2 were");
    check_mismatch(NULL, 64, "for 3 clients", "64 were");
    other = two_pools;
    other.pools.items[0].alignment = ZCP_DEFAULT_ALIGNMENT;        // the default, said aloud
    check_open(OPEN_OR_CREATE, (zcp_manager_desc){.config = &other, .max_clients = 3}, ZCP_OK);
    check_open(OPEN_EXISTING, (zcp_manager_desc){.config = &two_pools}, ZCP_OK);
    check_open(OPEN_EXISTING, (zcp_manager_desc){.max_clients = 3}, ZCP_OK);
    check_open(CREATE_EXCLUSIVE, (zcp_manager_desc){.config = &other, .max_clients = 7}, ZCP_ERR_EXISTS);
    CHECK_OK(zcp_manager_check(manager));
    check_open(PURGE, (zcp_manager_desc){.config = &two_pools, .max_clients = 7}, ZCP_OK);
    check_witness(manager, ZCP_ERR_REPLACED);
    zcp_manager_close(manager);
    balance_and_destroy(test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// Files of somebody else

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mode == b->st_mode && a->st_uid == b->st_uid
        && a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void check_untouched(const char *path, const struct stat *before, const void *bytes, size_t count) {
    static char now[16384];
    struct stat after = file_stat(path);
    CHECK(count <= sizeof now);
    CHECK(same_file(before, &after));
    file_read(path, 0, now, count);
    CHECK(memcmp(now, bytes, count) == 0);
}

static void check_foreign(const void *bytes, size_t count, zcp_status expected) {
    const file_path file = path_of(test_instance(), MANAGEMENT);
    const char *path = file.text;
    char name[256];
    file_make(path, bytes, count, 0600);
    struct stat before = file_stat(path);
    for (action what = OPEN_OR_CREATE; what < ACTIONS; what++)
        for (int config = what >= CREATE_EXCLUSIVE; config < 2; config++)
            for (int flags = 0; flags < 2; flags++) {
                check_open(
                    what,
                    (zcp_manager_desc){.config = config ? &two_pools : NULL, .flags = flags ? ZCP_SHM_ANY_OWNER : 0},
                    expected);
                check_untouched(path, &before, bytes, count);
            }
    CHECK_EQ(names_there(test_instance()), MANAGEMENT);
    snprintf(name, sizeof name, "%s_memory_management", test_instance());
    CHECK_OK(zcp_shm_unlink(name));
    CHECK_EQ(names_there(test_instance()), 0);
}

TEST(creation_foreign_files_are_left_alone) {
    static unsigned char bytes[8192];
    zcp_manager *manager = must_open(test_instance(), CREATE_EXCLUSIVE);
    uint64_t magic;
    file_read(path_of(test_instance(), MANAGEMENT).text, MAGIC_AT, &magic, sizeof magic);
    zcp_manager_close(manager);
    balance_and_destroy(test_instance());
    check_foreign("x", 1, ZCP_ERR_NOT_ZEROCP);
    check_foreign(bytes, sizeof bytes, ZCP_ERR_NOT_ZEROCP);        // zeros
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)test_random();
    check_foreign(bytes, sizeof bytes, ZCP_ERR_NOT_ZEROCP);
    check_foreign(bytes, 15, ZCP_ERR_NOT_ZEROCP);
    memcpy(bytes, &magic, sizeof magic);
    check_foreign(bytes, sizeof magic, ZCP_ERR_NOT_ZEROCP);        // what zerocp writes first is longer, and one write
    check_foreign(bytes, 15, ZCP_ERR_NOT_ZEROCP);
    for (size_t i = 0; i < 8; i++) {
        memcpy(bytes, &magic, sizeof magic);
        bytes[i] ^= 0x10;
        check_foreign(bytes, sizeof bytes, ZCP_ERR_NOT_ZEROCP);
    }
    for (size_t i = 0; i < 8; i++)
        bytes[i] = ((const unsigned char *)&magic)[7 - i];         // as the other byte order would write it
    check_foreign(bytes, sizeof bytes, ZCP_ERR_LAYOUT);
}

typedef enum wrong_type { DIRECTORY, FIFO, SYMLINK, DANGLING, WRONG_TYPES } wrong_type;

static void make_wrong(const char *path, wrong_type type) {
    const file_path target = path_of(test_instance_n(1), MANAGEMENT);
    switch (type) {
    case DIRECTORY:
        CHECK_EQ(mkdir(path, 0700), 0);
        break;
    case FIFO:
        CHECK_EQ(mkfifo(path, 0600), 0);
        break;
    case SYMLINK:
        file_make(target.text, "target", 6, 0600);
        CHECK_EQ(symlink(target.text, path), 0);
        break;
    case DANGLING:
    case WRONG_TYPES:
        CHECK_EQ(symlink(target.text, path), 0);
        break;
    }
}

static void remove_wrong(const char *path, wrong_type type) {
    const file_path target = path_of(test_instance_n(1), MANAGEMENT);
    char bytes[6];
    CHECK_EQ(type == DIRECTORY ? rmdir(path) : unlink(path), 0);
    if (type == SYMLINK) {
        CHECK_EQ(file_stat(target.text).st_size, 6);
        file_read(target.text, 0, bytes, sizeof bytes);
        CHECK(memcmp(bytes, "target", 6) == 0);
        unlink(target.text);
    }
    CHECK(!is_there(target.text));
}

TEST(creation_wrong_type_at_the_management_name) {
    const file_path file = path_of(test_instance(), MANAGEMENT);
    const char *path = file.text;
    for (wrong_type type = DIRECTORY; type < WRONG_TYPES; type++) {
        make_wrong(path, type);
        struct stat before = file_stat(path);
        for (action what = OPEN_OR_CREATE; what < ACTIONS; what++) {
            check_open(what, (zcp_manager_desc){.config = &two_pools}, ZCP_ERR_WRONG_TYPE);
            struct stat after = file_stat(path);
            CHECK(same_file(&before, &after));
        }
        CHECK_EQ(names_there(test_instance()), MANAGEMENT);
        remove_wrong(path, type);
    }
}

// Nothing is made beside it, and an instance that has lost its chunk name to it says so.
TEST(creation_wrong_type_at_the_chunk_name) {
    const file_path file = path_of(test_instance(), CHUNK);
    const char *path = file.text;
    for (wrong_type type = DIRECTORY; type < WRONG_TYPES; type++) {
        make_wrong(path, type);
        struct stat before = file_stat(path);
        for (action what = OPEN_OR_CREATE; what < ACTIONS; what++) {
            check_open(what, (zcp_manager_desc){.config = &two_pools},
                       what == OPEN_EXISTING ? ZCP_ERR_NOT_FOUND : ZCP_ERR_WRONG_TYPE);
            struct stat after = file_stat(path);
            CHECK(same_file(&before, &after));
            CHECK_EQ(names_there(test_instance()), CHUNK);
        }
        remove_wrong(path, type);
        zcp_manager *manager = must_open(test_instance(), CREATE_EXCLUSIVE);
        remove_names(test_instance(), CHUNK);
        make_wrong(path, type);
        check_open(OPEN_OR_CREATE, (zcp_manager_desc){.config = &two_pools}, ZCP_ERR_WRONG_TYPE);
        check_open(OPEN_EXISTING, (zcp_manager_desc){.config = NULL}, ZCP_ERR_WRONG_TYPE);
        CHECK_EQ(names_there(test_instance()), ALL);
        remove_wrong(path, type);
        check_open(OPEN_OR_CREATE, (zcp_manager_desc){.config = &two_pools}, ZCP_OK);
        check_witness(manager, ZCP_ERR_REPLACED);
        zcp_manager_close(manager);
        balance_and_destroy(test_instance());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Users

enum { ANNA = 4321, BERT = 4322, CARL = 4323, COMMON = 4400 };     // ANNA and BERT have a group in common

typedef struct attempt {
    uid_t user;                                                    // 0: stay root
    action what;
    zcp_manager_desc desc;
    zcp_status expected;
} attempt;

static void run_attempt(void *argument) {
    const attempt *a = argument;
    zcp_manager *manager;
    if (a->user != 0)
        test_become(a->user, a->user == CARL ? 0 : COMMON);
    CHECK_STATUS(act_with(test_instance(), a->what, &a->desc, &manager), a->expected);
    if (manager != NULL) {
        CHECK_OK(zcp_manager_check(manager));
        CHECK_OK(zcp_manager_recover(manager, NULL));
        if (!(a->desc.flags & ZCP_READ_ONLY_DATA))
            check_works(manager);
    }
    zcp_manager_close(manager);
}

static void attempt_as(uid_t user, action what, uint32_t flags, zcp_status expected) {
    attempt a = {.user = user, .what = what, .expected = expected,
                 .desc = {.config = what == OPEN_EXISTING ? NULL : &two_pools, .flags = flags}};
    test_join(test_spawn(run_attempt, &a));
}

static void create_as(uid_t user, uint32_t permissions, uint32_t group, uint32_t flags, zcp_status expected) {
    attempt a = {.user = user, .what = CREATE_EXCLUSIVE, .expected = expected,
                 .desc = {.config = &two_pools, .permissions = permissions, .group = group, .flags = flags}};
    test_join(test_spawn(run_attempt, &a));
}

static void file_of(uid_t user, const char *path, const char *text, mode_t permissions) {
    file_make(path, text, strlen(text), permissions);
    CHECK_EQ(chown(path, user, user), 0);
}

TEST(creation_refuses_a_management_file_of_somebody_else) {
    test_need_root();
    const file_path file = path_of(test_instance(), MANAGEMENT);
    const char *path = file.text;
    static const uid_t callers[] = {0, BERT};
    for (int empty = 0; empty < 2; empty++) {
        const char *text = empty ? "" : "somebody else's";
        file_of(ANNA, path, text, 0666);
        struct stat before = file_stat(path);
        for (size_t i = 0; i < 2; i++)
            for (action what = OPEN_OR_CREATE; what < ACTIONS; what++) {
                // Root removes a user's instance, and no file that is none.
                bool removes = callers[i] == 0 && what >= PURGE;
                if (removes && empty)
                    continue;
                attempt_as(callers[i], what, 0, removes ? ZCP_ERR_NOT_ZEROCP : ZCP_ERR_WRONG_OWNER);
                check_untouched(path, &before, text, strlen(text));
                CHECK_EQ(names_there(test_instance()), MANAGEMENT);
            }
        if (!empty) {
            attempt_as(BERT, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_ERR_NOT_ZEROCP);
            check_untouched(path, &before, text, strlen(text));
        }
        unlink(path);
    }
    // half-made by somebody else; root may finish it, if told to
    file_of(ANNA, path, "", 0666);
    attempt_as(BERT, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_ERR_PERMISSION);
    CHECK_EQ(names_there(test_instance()), MANAGEMENT);
    attempt_as(0, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_OK);
    CHECK_EQ(file_stat(path).st_mode & 0777, 0600);
    remove_names(test_instance(), ALL);
    file_of(ANNA, path, "", 0666);
    attempt_as(0, PURGE, 0, ZCP_OK);
    CHECK_EQ(file_stat(path).st_uid, 0);                           // not finished: removed, and made anew
    CHECK_OK(zcp_manager_destroy(test_instance()));
    file_of(ANNA, path, "", 0666);
    attempt_as(0, DESTROY, 0, ZCP_OK);
    CHECK_EQ(names_there(test_instance()), 0);
    file_of(ANNA, path, "", 0600);                                 // not even to be opened
    attempt_as(BERT, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_ERR_PERMISSION);
    attempt_as(BERT, DESTROY, 0, ZCP_ERR_PERMISSION);
    unlink(path);
}

TEST(creation_refuses_a_chunk_file_of_somebody_else) {
    test_need_root();
    const file_path file = path_of(test_instance(), CHUNK);
    const char *path = file.text;
    static const uid_t callers[] = {0, BERT};
    file_of(ANNA, path, "somebody else's", 0666);
    struct stat before = file_stat(path);
    for (size_t i = 0; i < 2; i++)
        for (action what = OPEN_OR_CREATE; what < ACTIONS; what++) {
            if (callers[i] == 0 && what >= PURGE)
                continue;                                          // root removes it: see below
            attempt_as(callers[i], what, 0, what == OPEN_EXISTING ? ZCP_ERR_NOT_FOUND : ZCP_ERR_WRONG_OWNER);
            check_untouched(path, &before, "somebody else's", 15);
            CHECK_EQ(names_there(test_instance()), CHUNK);         // and nothing is left of what it began
        }
    attempt_as(BERT, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_ERR_PERMISSION);
    CHECK_EQ(names_there(test_instance()), CHUNK);
    attempt_as(0, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_OK);
    attempt_as(0, OPEN_EXISTING, 0, ZCP_OK);
    remove_names(test_instance(), CHUNK);                          // beside an instance
    file_of(ANNA, path, "somebody else's", 0666);
    before = file_stat(path);
    attempt_as(0, OPEN_OR_CREATE, 0, ZCP_ERR_WRONG_OWNER);
    attempt_as(0, OPEN_EXISTING, 0, ZCP_ERR_WRONG_OWNER);
    check_untouched(path, &before, "somebody else's", 15);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    CHECK_EQ(names_there(test_instance()), 0);
    file_of(ANNA, path, "somebody else's", 0666);
    attempt_as(0, PURGE, 0, ZCP_OK);
    CHECK_EQ(file_stat(path).st_uid, 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    file_of(ANNA, path, "somebody else's", 0666);
    attempt_as(0, DESTROY, 0, ZCP_OK);
    CHECK_EQ(names_there(test_instance()), 0);
}

static void check_permissions(uint32_t expected, uid_t user, gid_t group) {
    for (int which = MANAGEMENT; which <= CHUNK; which++) {
        struct stat is = file_stat(path_of(test_instance(), which).text);
        CHECK_EQ(is.st_mode & 07777, expected);
        CHECK_EQ(is.st_uid, user);
        CHECK_EQ(is.st_gid, group);
    }
}

TEST(creation_permissions_are_exact) {
    static const uint32_t asked[] = {0, 0600, 0640, 0660, 0666, 0777, 0622};
    static const mode_t masks[] = {0, 022, 077, 0777};
    mode_t before = umask(0);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        for (size_t k = 0; k < sizeof masks / sizeof masks[0]; k++) {
            umask(masks[k]);
            check_open(CREATE_EXCLUSIVE, (zcp_manager_desc){.config = &two_pools, .permissions = asked[i]}, ZCP_OK);
            check_permissions(asked[i] == 0 ? 0600 : asked[i], geteuid(), getegid());
            check_open(OPEN_OR_CREATE, (zcp_manager_desc){.config = &two_pools, .permissions = 0700}, ZCP_OK);
            check_permissions(asked[i] == 0 ? 0600 : asked[i], geteuid(), getegid());        // as they were created
            balance_and_destroy(test_instance());
        }
    umask(before);
    killed_at(test_instance(), OPEN_OR_CREATE, "chunk_sized");     // 0600; who finishes it has its own wishes
    check_open(OPEN_OR_CREATE, (zcp_manager_desc){.config = &two_pools, .permissions = 0640}, ZCP_OK);
    check_permissions(0640, geteuid(), getegid());
    balance_and_destroy(test_instance());
    static const uint32_t refused[] = {01000, 01600, 0400, 0060, 0077, UINT32_MAX};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        check_open(CREATE_EXCLUSIVE, (zcp_manager_desc){.config = &two_pools, .permissions = refused[i]},
                   ZCP_ERR_INVALID_ARGUMENT);
    CHECK_EQ(names_there(test_instance()), 0);
}

TEST(creation_group_shares) {
    test_need_root();
    create_as(ANNA, 0660, COMMON, ZCP_SHM_GROUP, ZCP_OK);
    check_permissions(0660, ANNA, COMMON);
    attempt_as(ANNA, OPEN_OR_CREATE, 0, ZCP_OK);
    attempt_as(BERT, OPEN_OR_CREATE, 0, ZCP_ERR_WRONG_OWNER);
    attempt_as(BERT, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_OK);
    attempt_as(BERT, OPEN_EXISTING, ZCP_SHM_ANY_OWNER | ZCP_READ_ONLY_DATA, ZCP_OK);
    attempt_as(CARL, OPEN_OR_CREATE, ZCP_SHM_ANY_OWNER, ZCP_ERR_PERMISSION);
    attempt_as(BERT, DESTROY, 0, ZCP_ERR_WRONG_OWNER);
    attempt_as(CARL, DESTROY, 0, ZCP_ERR_PERMISSION);
    attempt_as(ANNA, OPEN_EXISTING, 0, ZCP_OK);                    // nothing has come of that
    attempt_as(ANNA, DESTROY, 0, ZCP_OK);
    CHECK_EQ(names_there(test_instance()), 0);
    create_as(ANNA, 0660, 0, 0, ZCP_OK);                           // without the flag: the creator's own group
    check_permissions(0660, ANNA, ANNA);
    attempt_as(ANNA, DESTROY, 0, ZCP_OK);
    create_as(CARL, 0660, COMMON, ZCP_SHM_GROUP, ZCP_ERR_PERMISSION);       // not a member
    create_as(ANNA, 0660, 0, ZCP_SHM_GROUP, ZCP_ERR_PERMISSION);            // 0 is a group, too
    CHECK_EQ(names_there(test_instance()), 0);
    create_as(0, 0600, 0, ZCP_SHM_GROUP, ZCP_OK);
    check_permissions(0600, 0, 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// /dev/shm is sticky: who may write an object but not remove it is refused before anything is retired.
TEST(creation_refused_removal_changes_nothing) {
    test_need_root();
    create_as(ANNA, 0660, COMMON, ZCP_SHM_GROUP, ZCP_OK);
    attempt_as(BERT, PURGE, ZCP_SHM_ANY_OWNER, ZCP_ERR_PERMISSION);
    CHECK_EQ(stage_of(test_instance()), WHOLE);
    attempt_as(BERT, OPEN_EXISTING, ZCP_SHM_ANY_OWNER, ZCP_OK);
    attempt_as(ANNA, DESTROY, 0, ZCP_OK);
    create_as(0, 0666, 0, 0, ZCP_OK);
    attempt_as(BERT, DESTROY, 0, ZCP_ERR_PERMISSION);
    attempt_as(BERT, PURGE, 0, ZCP_ERR_PERMISSION);
    CHECK_EQ(stage_of(test_instance()), WHOLE);
    attempt_as(BERT, OPEN_EXISTING, 0, ZCP_OK);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(creation_owner_only_refuses_others) {
    test_need_root();
    static const uid_t owners[] = {0, ANNA};
    for (size_t i = 0; i < 2; i++) {
        create_as(owners[i], 0, 0, 0, ZCP_OK);
        check_permissions(0600, owners[i], owners[i]);
        for (action what = OPEN_OR_CREATE; what < ACTIONS; what++) {
            attempt_as(BERT, what, 0, ZCP_ERR_PERMISSION);
            attempt_as(BERT, what, ZCP_SHM_ANY_OWNER, ZCP_ERR_PERMISSION);
        }
        attempt_as(owners[i], OPEN_EXISTING, 0, ZCP_OK);
        attempt_as(owners[i], DESTROY, 0, ZCP_OK);
    }
    create_as(0, 0666, 0, 0, ZCP_OK);                              // root's are trusted
    attempt_as(ANNA, OPEN_EXISTING, 0, ZCP_OK);
    attempt_as(ANNA, OPEN_OR_CREATE, 0, ZCP_OK);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    CHECK_EQ(names_there(test_instance()), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// The header

typedef struct saved_file {
    file_path path;
    struct stat status;
    unsigned char bytes[98304];
} saved_file;

static void save(saved_file *file, int which) {
    file->path = path_of(test_instance(), which);
    file->status = file_stat(file->path.text);
    CHECK(file->status.st_size <= (off_t)sizeof file->bytes);
    file_read(file->path.text, 0, file->bytes, (size_t)file->status.st_size);
}

static void restore(const saved_file *file) {
    CHECK_EQ(truncate(file->path.text, file->status.st_size), 0);
    file_write(file->path.text, 0, file->bytes, (size_t)file->status.st_size);
}

// Every opener refuses it with that status and leaves it alone.
static void check_refused(zcp_status expected, const char *is, const char *wanted) {
    for (int config = 0; config < 2; config++)
        for (action what = OPEN_OR_CREATE; what <= OPEN_EXISTING; what++) {
            check_open(what, (zcp_manager_desc){.config = config ? &two_pools : NULL}, expected);
            CHECK_MSG(strstr(zcp_last_message(), is) != NULL && strstr(zcp_last_message(), wanted) != NULL, "%s",
                      zcp_last_message());
            CHECK_EQ(names_there(test_instance()), ALL);
        }
}

// Something in the header is spoilt: it is refused, and whoever wants it gone gets rid of it.
static void check_spoilt(off_t at, const void *bytes, size_t count, zcp_status expected, const char *is,
                         const char *wanted) {
    zcp_manager *manager = must_open(test_instance(), CREATE_EXCLUSIVE);
    zcp_manager_close(manager);
    file_write(path_of(test_instance(), MANAGEMENT).text, at, bytes, count);
    check_refused(expected, is, wanted);
    check_open(CREATE_EXCLUSIVE, (zcp_manager_desc){.config = &two_pools}, ZCP_ERR_EXISTS);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    CHECK_EQ(names_there(test_instance()), 0);
    manager = must_open(test_instance(), CREATE_EXCLUSIVE);
    zcp_manager_close(manager);
    file_write(path_of(test_instance(), MANAGEMENT).text, at, bytes, count);
    manager = must_open(test_instance(), PURGE);
    check_works(manager);
    zcp_manager_close(manager);
    balance_and_destroy(test_instance());
}

static void check_spoilt_word(off_t at, uint32_t word, zcp_status expected, const char *is, const char *wanted) {
    check_spoilt(at, &word, sizeof word, expected, is, wanted);
}

TEST(creation_header_of_another_make_is_refused) {
    uint32_t version, order;
    uint64_t signature, none = 0;
    char is[64], wanted[64];
    zcp_manager *manager = must_open(test_instance(), CREATE_EXCLUSIVE);
    version = header_word(test_instance(), VERSION_AT);
    order = header_word(test_instance(), BYTE_ORDER_AT);
    file_read(path_of(test_instance(), MANAGEMENT).text, SIGNATURE_AT, &signature, sizeof signature);
    zcp_manager_close(manager);
    balance_and_destroy(test_instance());
    snprintf(wanted, sizeof wanted, "uses version %u", version);
    snprintf(is, sizeof is, "has layout version %u", version + 1);
    check_spoilt_word(VERSION_AT, version + 1, ZCP_ERR_VERSION, is, wanted);
    check_spoilt_word(VERSION_AT, 0, ZCP_ERR_VERSION, "has layout version 0", wanted);
    check_spoilt_word(VERSION_AT, UINT32_MAX, ZCP_ERR_VERSION, "has layout version 4294967295", wanted);
    snprintf(wanted, sizeof wanted, "has %08x", order);
    check_spoilt_word(BYTE_ORDER_AT, __builtin_bswap32(order), ZCP_ERR_LAYOUT, "04030201", wanted);
    check_spoilt_word(BYTE_ORDER_AT, 0, ZCP_ERR_LAYOUT, "00000000", wanted);
    snprintf(wanted, sizeof wanted, "%016llx", (unsigned long long)signature);
    signature ^= UINT64_C(1) << 63;
    snprintf(is, sizeof is, "%016llx", (unsigned long long)signature);
    check_spoilt(SIGNATURE_AT, &signature, sizeof signature, ZCP_ERR_LAYOUT, is, wanted);
    check_spoilt(INSTANCE_AT, &none, sizeof none, ZCP_ERR_CORRUPT, "instance id is 0", "");
}

// A state word that zerocp never writes: exclusive creation does not say EXISTS, because there is no telling.
TEST(creation_header_with_garbage_for_a_state_is_refused) {
    static const uint32_t states[] = {3, UINT32_MAX, 0x80000001};
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        for (int purge = 0; purge < 2; purge++) {
            zcp_manager *manager = must_open(test_instance(), CREATE_EXCLUSIVE);
            zcp_manager_close(manager);
            file_write(path_of(test_instance(), MANAGEMENT).text, STATE_AT, &states[i], sizeof states[i]);
            for (action what = OPEN_OR_CREATE; what <= CREATE_EXCLUSIVE; what++)
                check_open(what, (zcp_manager_desc){.config = &two_pools}, ZCP_ERR_CORRUPT);
            CHECK_EQ(names_there(test_instance()), ALL);
            if (purge)
                check_open(PURGE, (zcp_manager_desc){.config = &two_pools}, ZCP_OK);
            CHECK_OK(zcp_manager_destroy(test_instance()));
            CHECK_EQ(names_there(test_instance()), 0);
        }
}

// A chunk size of the same stride, another number of cached chunks, one chunk more or less in the last pool within the
// same page, or some cells or a subscriber more or less within the last page of the tables of topics, add up as well.
static bool may_add_up(off_t at, uint32_t wrong, uint32_t right) {
    if (at == GEOMETRY_AT + 52)                                    // subscribers
        return wrong == right - 1;
    if (at == GEOMETRY_AT + 56)                                    // ring_cells
        return wrong >= right - 11 && wrong <= right + 4;
    if (at == POOLS_AT + LOWER || at == POOLS_AT + 64 + LOWER)
        return wrong == right - 1;
    if (at == POOLS_AT + CACHE_AT || at == POOLS_AT + 64 + CACHE_AT)
        return wrong <= ZCP_MAX_CACHE_CHUNKS;
    return at == LAST_COUNT_AT && (wrong == right - 1 || wrong == right + 1);
}

// Each word of the geometry, used or not, with several wrong values: only what a configuration could give passes.
TEST(creation_header_with_wrong_geometry_is_refused) {
    zcp_manager *manager = must_open(test_instance(), CREATE_EXCLUSIVE), *other;
    saved_file *file = test_shared(sizeof *file);
    save(file, MANAGEMENT);
    for (off_t at = GEOMETRY_AT; at < GEOMETRY_AT + GEOMETRY_BYTES; at += 4) {
        uint32_t right = header_word(test_instance(), at);
        const uint32_t wrong[] = {right + 1, right - 1, ~right, right ^ 0x80000000,
                                  right ^ (1 + (uint32_t)test_random_below(UINT32_MAX))};
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            file_write(file->path.text, at, &wrong[i], sizeof wrong[i]);
            zcp_status status = act(test_instance(), OPEN_EXISTING, &other);
            if (status != ZCP_OK || !may_add_up(at, wrong[i], right))
                CHECK_STATUS(status, ZCP_ERR_CORRUPT);
            zcp_manager_close(other);
        }
        file_write(file->path.text, at, &right, sizeof right);
    }
    check_open(OPEN_EXISTING, (zcp_manager_desc){.config = NULL}, ZCP_OK);
    check_works(manager);
    zcp_manager_close(manager);
    balance_and_destroy(test_instance());
    check_spoilt_word(MAX_CLIENTS_AT, 1025, ZCP_ERR_CORRUPT, "_memory_management", "");
    check_spoilt_word(POOL_COUNT_AT, UINT32_MAX, ZCP_ERR_CORRUPT, "_memory_management", "");
    check_spoilt_word(POOLS_AT + LOWER, 0, ZCP_ERR_CORRUPT, "_memory_management", "");
}

TEST(creation_header_from_dice_never_crashes) {
    saved_file *file = test_shared(sizeof *file);
    int opened = 0;
    for (int round = 0; round < ROUNDS(1000, 300); round++) {
        if (names_there(test_instance()) != ALL) {                 // one was spoilt: somebody has finished it off
            remove_names(test_instance(), ALL);
            zcp_manager_close(must_open(test_instance(), CREATE_EXCLUSIVE));
            save(file, MANAGEMENT);
        }
        for (uint64_t i = 1 + test_random_below(3); i > 0; i--) {
            uint64_t word =
                test_random_below(3) == 0 ? test_random_below(2048) : test_random() >> test_random_below(64);
            file_write(file->path.text, (off_t)test_random_below(GEOMETRY_AT + 128 * 8), &word,
                       1 + (size_t)test_random_below(sizeof word));
        }
        if (test_random_below(4) == 0)
            CHECK_EQ(truncate(file->path.text, (off_t)test_random_below(2 * (uint64_t)file->status.st_size)), 0);
        zcp_manager *manager;
        zcp_status status = act(test_instance(), OPEN_EXISTING, &manager);
        CHECK_MSG(status == ZCP_OK || status == ZCP_ERR_NOT_ZEROCP || status == ZCP_ERR_LAYOUT
                      || status == ZCP_ERR_VERSION || status == ZCP_ERR_CORRUPT || status == ZCP_ERR_NOT_FOUND,
                  "%s: %s", zcp_status_name(status), zcp_last_message());
        opened += status == ZCP_OK;
        zcp_manager_close(manager);
        if (names_there(test_instance()) == ALL)
            restore(file);
    }
    test_note("%d opened in spite of it", opened);
    zcp_status status = zcp_manager_destroy(test_instance());
    CHECK(status == ZCP_OK || status == ZCP_ERR_NOT_FOUND);
    CHECK_EQ(names_there(test_instance()), 0);
}

// Cut. Nobody is attached: touching what was cut off raises SIGBUS, which is beyond a library.
TEST(creation_files_that_were_cut_are_refused) {
    saved_file *management = test_shared(sizeof *management), *chunk = test_shared(sizeof *chunk);
    char is[64], wanted[64];
    zcp_manager_close(must_open(test_instance(), CREATE_EXCLUSIVE));
    save(management, MANAGEMENT);
    save(chunk, CHUNK);
    const off_t size = management->status.st_size, sizes[] = {64, 1100, 4095, 4096, size - 4096, size - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        CHECK_EQ(truncate(management->path.text, sizes[i]), 0);
        snprintf(is, sizeof is, "%lld bytes", (long long)sizes[i]);
        snprintf(wanted, sizeof wanted, "says %lld", (long long)size);
        check_refused(ZCP_ERR_CORRUPT, sizes[i] < GEOMETRY_AT + GEOMETRY_BYTES ? "" : is,
                      sizes[i] < GEOMETRY_AT + GEOMETRY_BYTES ? "" : wanted);
        check_open(CREATE_EXCLUSIVE, (zcp_manager_desc){.config = &two_pools}, ZCP_ERR_EXISTS);
        restore(management);
    }
    static const off_t shorter[] = {0, 1, 4095};
    for (size_t i = 0; i < sizeof shorter / sizeof shorter[0]; i++) {
        CHECK_EQ(truncate(chunk->path.text, shorter[i]), 0);
        snprintf(is, sizeof is, "%lld bytes", (long long)shorter[i]);
        snprintf(wanted, sizeof wanted, "says %lld", (long long)chunk->status.st_size);
        check_refused(ZCP_ERR_CORRUPT, is, wanted);
        restore(chunk);
    }
    CHECK_EQ(truncate(chunk->path.text, 0), 0);                    // its header tells that nobody has it open
    check_open(CREATE_EXCLUSIVE, (zcp_manager_desc){.config = &two_pools}, ZCP_OK);
    // more than promised does no harm: an adder of pools may have been killed
    CHECK_EQ(truncate(chunk->path.text, chunk->status.st_size + 8192), 0);
    CHECK_EQ(truncate(management->path.text, management->status.st_size + 8192), 0);
    check_open(OPEN_EXISTING, (zcp_manager_desc){.config = NULL}, ZCP_OK);
    books_check(test_instance(), 0);
    for (off_t cut = 0; cut <= 64; cut += 4) {                     // too short to say what it is, or that it was whole
        CHECK_EQ(truncate(management->path.text, cut), 0);
        zcp_status expected = cut == 0 || cut >= 16 ? ZCP_OK : ZCP_ERR_NOT_ZEROCP;
        check_open(DESTROY, (zcp_manager_desc){.config = NULL}, expected);
        CHECK_EQ(names_there(test_instance()), expected == ZCP_OK ? 0 : ALL);
        remove_names(test_instance(), ALL);
        zcp_manager_close(must_open(test_instance(), CREATE_EXCLUSIVE));
    }
    balance_and_destroy(test_instance());
}
