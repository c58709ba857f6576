// tests/restart_test.c: how a service starts again. What nobody has open and does not suit is replaced, and nobody who
// has it open is cut off; a server destroys its own instance and not its successor's; who may remove whose, and who may
// only read.
#include "harness/inside.h"
#include "harness/pools.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const zcp_config old_pools = {.pools = {.size = 2, .items = {{64, 8, 0, 0}, {1024, 4, 0, 0}}}};
static const zcp_config new_pools = {.pools = {.size = 2, .items = {{64, 8, 0, 0}, {1024, 5, 0, 0}}}};

static zcp_status open_mode(zcp_manager **manager, zcp_shm_mode mode, const zcp_config *config, uint32_t flags) {
    zcp_manager_desc desc = {.name = test_instance(), .mode = mode, .config = config, .flags = flags};
    desc.client_name = "client";
    zcp_status status = zcp_manager_open(manager, &desc);
    CHECK_EQ(*manager != NULL, status == ZCP_OK);
    return status;
}

static zcp_status open_for(zcp_manager **manager, const zcp_config *config) {
    return open_mode(manager, ZCP_SHM_OPEN_OR_CREATE, config, 0);
}

static uint64_t id_of(zcp_manager *manager) {
    zcp_manager_info info;
    CHECK_OK(zcp_manager_get_info(manager, &info));
    return info.instance_id;
}

static void must_say(const char *text) {
    CHECK_MSG(strstr(zcp_last_message(), text) != NULL, "\"%s\" is not in: %s", text, zcp_last_message());
}

static bool has_names(void) {
    char path[320];
    struct stat status;
    segment_path(test_instance(), MANAGEMENT, path);
    bool management = stat(path, &status) == 0;
    for (segment_kind kind = CHUNKS; kind <= LOCKS; kind++) {
        segment_path(test_instance(), kind, path);
        CHECK_EQ(stat(path, &status) == 0, management);
    }
    return management;
}

// ---------------------------------------------------------------------------------------------------------------------
// Left over with other pools

static void die_holding(void *unused) {
    zcp_manager *manager;
    (void)unused;
    CHECK_OK(open_for(&manager, &old_pools));
    allocate(manager, 64);
    allocate(manager, 1024);
    raise(SIGKILL);
}

typedef enum remnant { KILLED, CLOSED, RECONFIGURED, REMNANTS } remnant;

// An instance that nobody has open any more; RECONFIGURED: which was created with new_pools, and has others now.
static uint64_t leave(remnant how) {
    zcp_manager *manager;
    if (how == KILLED)
        test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
    CHECK_OK(open_mode(&manager, ZCP_SHM_OPEN_OR_CREATE, how == RECONFIGURED ? &new_pools : &old_pools, 0));
    uint64_t id = id_of(manager);
    if (how == RECONFIGURED)
        CHECK_OK(zcp_manager_reconfigure(manager, &old_pools));
    zcp_manager_close(manager);
    if (how == KILLED)
        test_join_signal(test_spawn(die_holding, NULL), SIGKILL);
    return id;
}

static const zcp_shm_mode replacing[] = {ZCP_SHM_OPEN_OR_CREATE, ZCP_SHM_CREATE_EXCLUSIVE};

TEST(restart_replaces_what_nobody_has_open) {
    static const uint32_t only_opening[] = {ZCP_READ_ONLY_DATA, ZCP_OBSERVE};
    for (remnant how = KILLED; how < REMNANTS; how++)
        for (int i = 0; i < 2; i++) {
            zcp_manager *manager, *observer;
            zcp_config is;
            uint64_t id = leave(how);
            CHECK_STATUS(open_mode(&manager, ZCP_SHM_OPEN_EXISTING, &new_pools, 0), ZCP_ERR_CONFIG_MISMATCH);
            for (int k = 0; k < 2; k++) {
                zcp_status status = open_mode(&manager, ZCP_SHM_OPEN_OR_CREATE, &new_pools, only_opening[k]);
                CHECK_STATUS(status, ZCP_ERR_CONFIG_MISMATCH);
            }
            CHECK_OK(open_mode(&observer, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_OBSERVE));          // counts as nobody
            CHECK_EQ(id_of(observer), id);
            CHECK_OK(open_mode(&manager, replacing[i], &new_pools, 0));
            CHECK(id_of(manager) != id);
            CHECK_OK(zcp_manager_get_config(manager, &is));
            CHECK(is.pools.size == 2 && is.pools.items[1].chunk_count == 5);
            CHECK_STATUS(zcp_manager_check(observer), ZCP_ERR_REPLACED);
            zcp_manager_close(observer);
            zcp_manager_close(manager);
            books_check(test_instance(), 0);
            CHECK_OK(zcp_manager_destroy(test_instance()));
        }
}

TEST(restart_keeps_what_suits) {
    for (remnant how = KILLED; how < REMNANTS; how++) {
        zcp_manager *manager;
        uint64_t id = leave(how);
        CHECK_OK(open_for(&manager, &old_pools));
        CHECK_EQ(id_of(manager), id);
        zcp_manager_close(manager);
        books_check(test_instance(), 0);
        CHECK_OK(zcp_manager_destroy(test_instance()));
    }
}

TEST(restart_replaces_for_more_clients) {
    zcp_manager *manager;
    zcp_manager_desc desc = {.name = test_instance(), .config = &old_pools, .max_clients = 3};
    CHECK_OK(zcp_manager_open(&manager, &desc));
    uint64_t id = id_of(manager);
    zcp_manager_close(manager);
    desc.max_clients = 4;
    desc.config = NULL;                                            // it may not create
    CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_CONFIG_MISMATCH);
    desc.config = &old_pools;
    CHECK_OK(zcp_manager_open(&manager, &desc));
    CHECK(id_of(manager) != id);
    zcp_manager_close(manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// While somebody has it open

typedef struct holder { _Atomic uint32_t ready, end; } holder;

static void hold(void *argument) {
    holder *h = argument;
    zcp_manager *manager;
    CHECK_OK(open_for(&manager, &old_pools));
    test_signal(&h->ready);
    test_await(&h->end, 1);
    CHECK_OK(zcp_manager_check(manager));
    zcp_chunk chunk = allocate(manager, 1024);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

TEST(restart_names_who_has_it_open) {
    holder *h = test_shared(sizeof *h);
    zcp_manager *manager;
    char who[80];
    uint64_t id = leave(CLOSED);
    pid_t pid = test_spawn(hold, h);
    test_await(&h->ready, 1);
    snprintf(who, sizeof who, "client 0 (pid %d, \"client\") has it open", (int)pid);
    CHECK_STATUS(open_for(&manager, &new_pools), ZCP_ERR_CONFIG_MISMATCH);
    must_say(who);
    must_say("its pool 1 with 4 chunks");
    CHECK_STATUS(open_mode(&manager, ZCP_SHM_CREATE_EXCLUSIVE, &new_pools, 0), ZCP_ERR_EXISTS);
    must_say(who);
    CHECK_EQ(zcp_last_errno(), EEXIST);
    CHECK_STATUS(open_mode(&manager, ZCP_SHM_CREATE_EXCLUSIVE, &old_pools, 0), ZCP_ERR_EXISTS);
    must_say(who);
    CHECK_OK(open_for(&manager, &old_pools));
    CHECK_EQ(id_of(manager), id);
    zcp_manager_close(manager);
    test_signal(&h->end);
    test_join(pid);
    CHECK_OK(open_for(&manager, &new_pools));
    CHECK(id_of(manager) != id);
    finish(manager);
}

// A client that was stopped while it changes the instance has the creation lock: that is no reason to wait for it.
static void add_and_stop(void *argument) {
    holder *h = argument;
    zcp_manager *manager;
    CHECK_OK(open_for(&manager, &old_pools));
    test_signal(&h->ready);
    test_at_step("growth_locked", 1, TEST_STOP, NULL);
    CHECK_OK(zcp_manager_add_pool(manager, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 1}, NULL));
    zcp_manager_close(manager);
}

TEST(restart_does_not_wait_for_a_stopped_client) {
    holder *h = test_shared(sizeof *h);
    zcp_manager *manager;
    pid_t pid = test_spawn(add_and_stop, h);
    test_await(&h->ready, 1);
    test_await_stop(pid);
    zcp_manager_desc desc = {.name = test_instance(), .config = &new_pools, .timeout_ms = 1};
    CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_CONFIG_MISMATCH);
    desc.mode = ZCP_SHM_CREATE_EXCLUSIVE;
    CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_EXISTS);
    test_resume(pid);
    test_join(pid);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// What has just been made has a creator, who has no slot yet: nobody else takes it for left over.
static void create_and_stop(void *unused) {
    zcp_manager *manager;
    (void)unused;
    test_at_step("built", 1, TEST_STOP, NULL);
    CHECK_OK(open_for(&manager, &old_pools));
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
}

TEST(restart_leaves_the_creator_what_it_has_made) {
    zcp_manager *manager;
    for (int killed = 0; killed < 2; killed++) {
        pid_t pid = test_spawn(create_and_stop, NULL);
        test_await_stop(pid);
        CHECK_STATUS(open_for(&manager, &new_pools), ZCP_ERR_CONFIG_MISMATCH);
        must_say("somebody is just opening");
        CHECK_STATUS(open_mode(&manager, ZCP_SHM_CREATE_EXCLUSIVE, &new_pools, 0), ZCP_ERR_EXISTS);
        must_say("somebody is just opening");
        CHECK_OK(open_for(&manager, &old_pools));
        uint64_t id = id_of(manager);
        zcp_manager_close(manager);
        if (killed)
            test_kill(pid);
        else
            test_resume(pid);
        if (!killed)
            test_join(pid);
        CHECK_OK(open_for(&manager, &new_pools));
        CHECK(id_of(manager) != id);
        finish(manager);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Against those who open it meanwhile

static void replace_and_end(void *argument) {
    const int *end = argument;
    zcp_manager *manager;
    test_at_step("clients_barred", 1, (test_action)*end, NULL);
    CHECK_OK(open_for(&manager, &new_pools));
    zcp_manager_close(manager);
}

static void join_later(void *argument) {
    uint64_t *id = argument;
    zcp_manager *manager;
    zcp_manager_desc desc = {.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING, .flags = ZCP_WAIT};
    desc.timeout_ms = 30000;
    CHECK_OK(zcp_manager_open(&manager, &desc));
    CHECK_OK(zcp_manager_check(manager));
    *id = id_of(manager);
    zcp_manager_close(manager);
}

// Who comes while all slots are locked is not told that they are taken: it waits, or says who is at it.
TEST(restart_keeps_out_who_joins_meanwhile) {
    static int ends[] = {TEST_STOP, TEST_KILL};
    for (int killed = 0; killed < 2; killed++) {
        uint64_t *id = test_shared(sizeof *id), old;
        zcp_manager *manager;
        char who[64];
        zcp_manager_desc desc = {.name = test_instance(), .config = &old_pools, .max_clients = 1, .timeout_ms = 20};
        CHECK_OK(zcp_manager_open(&manager, &desc));
        old = id_of(manager);
        zcp_manager_close(manager);
        test_join_signal(test_spawn(die_holding, NULL), SIGKILL);  // the only slot is in use, by its word
        pid_t pid = test_spawn(replace_and_end, &ends[killed]);
        if (killed) {
            test_join_signal(pid, SIGKILL);
            CHECK_OK(zcp_manager_open(&manager, &desc));
            CHECK_EQ(id_of(manager), old);
            finish(manager);
            continue;
        }
        test_await_stop(pid);
        CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_TIMEOUT);
        snprintf(who, sizeof who, "process %d ", (int)pid);
        must_say(who);
        desc.config = &new_pools;
        CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_TIMEOUT);      // who would replace it, too
        must_say(who);
        CHECK_OK(open_mode(&manager, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_OBSERVE));
        zcp_manager_close(manager);
        pid_t joiner = test_spawn(join_later, id);
        test_sleep(10);
        test_resume(pid);
        test_join(pid);
        test_join(joiner);
        CHECK(*id != old);
        CHECK_OK(zcp_manager_destroy(test_instance()));
    }
}

static void replace_at_each_step(void *argument) {
    zcp_manager *manager;
    test_step_any_kill(*(const int *)argument);
    CHECK_OK(open_for(&manager, &new_pools));
    test_steps_clear();
    zcp_manager_close(manager);
}

TEST_WITH(restart_killed_at_each_step, .seconds = 120) {
    int victims = 0;
    for (int i = 0; i < 2; i++) {
        bool killed = true;
        for (int nth = 1; killed; nth++) {
            zcp_manager *manager;
            leave(KILLED);
            killed = test_join_killed(test_spawn(replace_at_each_step, &nth));
            victims += killed;
            CHECK_OK(open_mode(&manager, replacing[i], &new_pools, 0));
            CHECK_OK(zcp_manager_check(manager));
            finish(manager);
            CHECK(!has_names());
        }
    }
    test_note("%d victims", victims);
    CHECK(victims > 20);
}

// Several open it again and again, for one configuration or the other, and are killed now and then. Nobody destroys it,
// so whoever has it open has the instance of that name, as long as it has it open.
enum { RIVALS = 4 };

typedef struct rivalry { _Atomic uint32_t left, opened, replaced, refused, killed; _Atomic uint64_t last; } rivalry;

static void compete(void *argument) {
    rivalry *all = argument;
    if (test_random_below(2) == 0)
        test_step_any_kill(1 + (int)test_random_below(400));
    while ((int32_t)atomic_fetch_sub(&all->left, 1) > 0) {
        zcp_manager *manager;
        const zcp_config *config = test_random_below(2) == 0 ? &old_pools : &new_pools;
        zcp_shm_mode mode = test_random_below(4) == 0 ? ZCP_SHM_CREATE_EXCLUSIVE : ZCP_SHM_OPEN_OR_CREATE;
        zcp_status status = open_mode(&manager, mode, config, 0);
        if (status != ZCP_OK) {
            bool told = mode == ZCP_SHM_CREATE_EXCLUSIVE ? status == ZCP_ERR_EXISTS : status == ZCP_ERR_CONFIG_MISMATCH;
            CHECK_MSG(told || status == ZCP_ERR_TIMEOUT, "%s: %s", zcp_status_name(status), zcp_last_message());
            all->refused++;
            continue;
        }
        uint64_t id = id_of(manager);
        all->opened++;
        all->replaced += atomic_exchange(&all->last, id) != id;
        for (uint64_t i = test_random_below(3); i > 0; i--) {
            zcp_chunk chunk;
            CHECK_OK(zcp_chunk_allocate(manager, 64, &chunk));
            sched_yield();
            CHECK_OK(zcp_manager_check(manager));
            zcp_chunk_release(&chunk);
        }
        CHECK_OK(zcp_manager_check(manager));
        zcp_manager_close(manager);
        test_sleep((unsigned)test_random_below(3));                // so that now and then nobody has it open
    }
}

static void send_rivals(void *argument) {
    rivalry *all = argument;
    while ((int32_t)all->left > 0)
        all->killed += test_join_killed(test_spawn(compete, all));
}

TEST_WITH(restart_never_cuts_off_who_has_it_open, .seconds = 120, .weight = 2) {
    rivalry *all = test_shared(sizeof *all);
    pid_t pids[RIVALS];
    all->left = 3000;
    for (int i = 0; i < RIVALS; i++)
        pids[i] = test_spawn(send_rivals, all);
    for (int i = 0; i < RIVALS; i++)
        test_join(pids[i]);
    test_note("%u opened, %u replaced, %u refused, %u killed", all->opened, all->replaced, all->refused, all->killed);
    CHECK(all->replaced > 10 && all->refused > 10);
    zcp_manager *manager;
    CHECK_OK(open_mode(&manager, ZCP_SHM_CREATE_EXCLUSIVE, &old_pools, 0));
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// A server destroys its own

TEST(destroy_this_destroys_its_own) {
    zcp_manager *manager, *other, *observer;
    CHECK_OK(open_for(&manager, &old_pools));
    CHECK_OK(open_for(&other, &old_pools));
    CHECK_OK(open_mode(&observer, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_OBSERVE));
    CHECK_STATUS(zcp_manager_destroy_this(observer), ZCP_ERR_READ_ONLY);
    CHECK_STATUS(zcp_manager_destroy_this(NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_OK(zcp_manager_check(manager));
    CHECK_OK(zcp_manager_destroy_this(manager));
    CHECK(!has_names());
    CHECK_STATUS(zcp_manager_check(other), ZCP_ERR_REPLACED);
    CHECK_STATUS(zcp_manager_destroy_this(manager), ZCP_ERR_REPLACED);
    CHECK_STATUS(zcp_manager_destroy_this(other), ZCP_ERR_REPLACED);
    zcp_chunk chunk = allocate(manager, 64);                       // it stays open
    zcp_chunk_release(&chunk);
    books_check_by(manager, 0);
    zcp_manager_close(observer);
    zcp_manager_close(other);
    zcp_manager_close(manager);
    CHECK_STATUS(zcp_manager_destroy_this(manager), ZCP_ERR_CLOSED);
}

TEST(destroy_this_leaves_the_successor_alone) {
    zcp_manager *manager, *successor;
    for (int how = 0; how < 3; how++) {
        char path[320], hidden[330];
        CHECK_OK(open_for(&manager, &old_pools));
        segment_path(test_instance(), MANAGEMENT, path);
        snprintf(hidden, sizeof hidden, "%s-hidden", path);
        if (how == 0)
            CHECK_OK(zcp_manager_destroy(test_instance()));
        if (how == 1)
            CHECK_EQ(rename(path, hidden), 0);                     // by hand: it is not retired
        CHECK_OK(open_mode(&successor, how == 2 ? ZCP_SHM_PURGE_AND_CREATE : ZCP_SHM_OPEN_OR_CREATE, &new_pools, 0));
        CHECK_STATUS(zcp_manager_destroy_this(manager), ZCP_ERR_REPLACED);
        CHECK(has_names());
        CHECK_OK(zcp_manager_check(successor));
        if (how == 1)
            CHECK_EQ(unlink(hidden), 0);
        zcp_manager_close(manager);
        finish(successor);
    }
}

// Replaced between the look and the lock.
static zcp_manager *successor_here;

static void replace_now(void) {
    test_steps_clear();
    CHECK_OK(open_mode(&successor_here, ZCP_SHM_PURGE_AND_CREATE, &new_pools, 0));
}

static void destroy_own(void *argument) {
    zcp_manager *manager;
    const char *step = argument;
    CHECK_OK(open_for(&manager, &old_pools));
    if (step != NULL)
        test_at_step(step, 1, TEST_KILL, NULL);
    CHECK_OK(zcp_manager_destroy_this(manager));
    zcp_manager_close(manager);
}

TEST(destroy_this_sees_the_successor_in_time) {
    zcp_manager *manager;
    CHECK_OK(open_for(&manager, &old_pools));
    test_at_step("destroying", 1, TEST_CALL, replace_now);
    CHECK_STATUS(zcp_manager_destroy_this(manager), ZCP_ERR_REPLACED);
    CHECK(successor_here != NULL);
    CHECK_OK(zcp_manager_check(successor_here));
    zcp_manager_close(manager);
    finish(successor_here);
}

TEST(destroy_this_is_finished_by_the_next) {
    static char steps[][20] = {"creation_locked", "retired", "chunk_unlinked", "management_unlinked"};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        zcp_manager *manager;
        CHECK_OK(open_for(&manager, &old_pools));
        test_join_signal(test_spawn(destroy_own, steps[i]), SIGKILL);
        CHECK_OK(zcp_manager_destroy_this(manager));
        CHECK(!has_names());
        CHECK_STATUS(zcp_manager_destroy_this(manager), ZCP_ERR_REPLACED);
        zcp_manager_close(manager);
    }
}

static void destroy_inherited(void *argument) {
    CHECK_STATUS(zcp_manager_destroy_this(argument), ZCP_ERR_FORKED);
}

TEST(destroy_this_does_not_cross_fork) {
    zcp_manager *manager;
    CHECK_OK(open_for(&manager, &old_pools));
    test_join(test_spawn(destroy_inherited, manager));
    CHECK_OK(zcp_manager_check(manager));
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Users

enum { ANNA = 4321, BERT = 4322, COMMON = 4400 };                  // they have a group in common
enum { POWER_DAC_OVERRIDE = 1, POWER_FOWNER = 3 };                 // capabilities

// Another user, who may remove what is not theirs.
static void become_janitor(void) {
    struct { uint32_t version; int pid; } head = {0x20080522, 0};
    struct { uint32_t effective, permitted, inheritable; } sets[2] = {{0}};
    CHECK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
    test_become(BERT, COMMON);
    sets[0].effective = sets[0].permitted = 1u << POWER_DAC_OVERRIDE | 1u << POWER_FOWNER;
    CHECK_EQ(syscall(SYS_capset, &head, sets), 0);
}

static void create_for_group(void *argument) {
    zcp_manager *manager;
    const zcp_manager_desc *more = argument;
    test_become(ANNA, COMMON);
    zcp_manager_desc desc = *more;
    desc.name = test_instance();
    desc.config = &old_pools;
    CHECK_OK(zcp_manager_open(&manager, &desc));
    zcp_manager_close(manager);
}

static void of_anna(uint32_t permissions, uint32_t data_permissions) {
    zcp_manager_desc desc = {.permissions = permissions, .data_permissions = data_permissions, .group = COMMON};
    desc.flags = ZCP_SHM_GROUP;
    test_join(test_spawn(create_for_group, &desc));
}

TEST(owner_root_removes_any_users) {
    test_need_root();
    zcp_manager *manager;
    for (uint32_t permissions = 0600; permissions <= 0660; permissions += 060) {
        of_anna(permissions, 0);
        CHECK_STATUS(open_for(&manager, &old_pools), ZCP_ERR_WRONG_OWNER);         // which would trust it
        must_say("ZCP_SHM_ANY_OWNER");
        CHECK_OK(open_mode(&manager, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_SHM_ANY_OWNER));
        zcp_manager_close(manager);
        CHECK_OK(zcp_manager_destroy(test_instance()));
        CHECK(!has_names());
        of_anna(permissions, 0);
        CHECK_OK(open_mode(&manager, ZCP_SHM_PURGE_AND_CREATE, &old_pools, 0));
        CHECK_EQ(segment_stat(test_instance(), MANAGEMENT).st_uid, 0);
        CHECK_EQ(segment_stat(test_instance(), CHUNKS).st_uid, 0);
        finish(manager);
    }
}

// What is refused for want of a flag says which, or who can do it; with the flag the system decides, before anything
// changes.
static void bert_destroys(void *unused) {
    zcp_manager *manager;
    (void)unused;
    test_become(BERT, COMMON);
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_WRONG_OWNER);
    must_say("belongs to user 4321: they or root can remove it");
    CHECK_STATUS(open_mode(&manager, ZCP_SHM_PURGE_AND_CREATE, &old_pools, 0), ZCP_ERR_WRONG_OWNER);
    must_say("they or root can remove it");
    CHECK_STATUS(zcp_manager_destroy_with(test_instance(), ZCP_SHM_ANY_OWNER), ZCP_ERR_PERMISSION);
    must_say("they or root can remove it");
    CHECK_STATUS(open_mode(&manager, ZCP_SHM_PURGE_AND_CREATE, &old_pools, ZCP_SHM_ANY_OWNER), ZCP_ERR_PERMISSION);
    CHECK_STATUS(open_mode(&manager, ZCP_SHM_OPEN_OR_CREATE, &new_pools, ZCP_SHM_ANY_OWNER), ZCP_ERR_CONFIG_MISMATCH);
    must_say("nobody has it open, but only user 4321 or root can replace it");
    CHECK_STATUS(open_for(&manager, &old_pools), ZCP_ERR_WRONG_OWNER);
    must_say("ZCP_SHM_ANY_OWNER");
    CHECK_OK(open_mode(&manager, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_SHM_ANY_OWNER));
    CHECK_OK(zcp_manager_check(manager));
    CHECK_STATUS(zcp_manager_destroy_this(manager), ZCP_ERR_PERMISSION);
    must_say("they or root can remove it");
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
}

static void janitor_destroys(void *unused) {
    (void)unused;
    become_janitor();
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_WRONG_OWNER);
    must_say("zcp_manager_destroy_with");
    CHECK(has_names());
    CHECK_OK(zcp_manager_destroy_with(test_instance(), ZCP_SHM_ANY_OWNER));
    CHECK(!has_names());
}

static void bert_sees_whose_it_is(void *unused) {
    (void)unused;
    test_become(BERT, COMMON);
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_PERMISSION);
    must_say("it belongs to user 4321");
    must_say("permissions 0600");
}

TEST(owner_refusals_say_how_to_go_on) {
    test_need_root();
    CHECK_STATUS(zcp_manager_destroy_with(test_instance(), ZCP_SHM_ANY_OWNER | ZCP_WAIT), ZCP_ERR_INVALID_FLAGS);
    CHECK_STATUS(zcp_manager_destroy_with("a/b", 0), ZCP_ERR_INVALID_NAME);
    CHECK_STATUS(zcp_manager_destroy_with(test_instance(), 0), ZCP_ERR_NOT_FOUND);
    of_anna(0660, 0);
    test_join(test_spawn(bert_destroys, NULL));
    test_join(test_spawn(janitor_destroys, NULL));
    of_anna(0600, 0);
    test_join(test_spawn(bert_sees_whose_it_is, NULL));
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// Root of a user namespace is no root where it has no power: it is refused before anything is retired.
static void destroy_as_root_of_little(void *argument) {
    _Atomic uint32_t *words = argument;                            // go, ready
    test_become(BERT, COMMON);
    CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
    bool there = syscall(SYS_unshare, 0x10000000) == 0;            // CLONE_NEWUSER
    int map = there ? open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC) : -1;
    char line[40];
    snprintf(line, sizeof line, "0 %d 1\n", BERT);
    there = map >= 0 && write(map, line, strlen(line)) == (ssize_t)strlen(line);
    words[0] = there;
    if (!there)
        return;
    CHECK_EQ(geteuid(), 0);
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_PERMISSION);
    must_say("they or root can remove it");
}

TEST(owner_root_without_power_changes_nothing) {
    test_need_root();
    _Atomic uint32_t *words = test_shared(2 * sizeof *words);
    zcp_manager *manager;
    of_anna(0666, 0);
    CHECK_OK(open_mode(&manager, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_SHM_ANY_OWNER));
    test_join(test_spawn(destroy_as_root_of_little, words));
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
    if (words[0] == 0)
        test_skip("no user namespaces here");
}

// ---------------------------------------------------------------------------------------------------------------------
// Who may only read payloads

static _Atomic uint64_t *token_there;

static void read_as_bert(void *unused) {
    zcp_manager *manager;
    zcp_chunk chunk;
    (void)unused;
    test_become(BERT, COMMON);
    CHECK_STATUS(open_mode(&manager, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_SHM_ANY_OWNER), ZCP_ERR_PERMISSION);
    must_say("ZCP_READ_ONLY_DATA");
    CHECK_OK(open_mode(&manager, ZCP_SHM_OPEN_EXISTING, NULL, ZCP_SHM_ANY_OWNER | ZCP_READ_ONLY_DATA));
    CHECK_OK(zcp_chunk_acquire(manager, *token_there, &chunk));    // of an added pool
    CHECK_STR((const char *)zcp_chunk_data(&chunk), "to be read");
    zcp_chunk_release(&chunk);
    CHECK_STATUS(zcp_chunk_allocate(manager, 1, &chunk), ZCP_ERR_READ_ONLY);
    CHECK_OK(zcp_manager_recover(manager, NULL));
    zcp_manager_close(manager);
}

static void write_as_anna(void *unused) {
    zcp_manager *manager;
    (void)unused;
    test_become(ANNA, COMMON);
    CHECK_OK(open_for(&manager, &old_pools));
    add_pool(manager, 4000, 2);
    zcp_chunk chunk = allocate(manager, 3000);
    strcpy((char *)zcp_chunk_data(&chunk), "to be read");
    *token_there = zcp_chunk_token(&chunk);
    test_signal((_Atomic uint32_t *)(token_there + 1));
    test_await((_Atomic uint32_t *)(token_there + 1), 2);
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

TEST(data_permissions_let_a_group_only_read) {
    test_need_root();
    token_there = test_shared(2 * sizeof *token_there);            // the second: who is where
    of_anna(0660, 0640);
    CHECK_EQ(segment_stat(test_instance(), MANAGEMENT).st_mode & 07777, 0660);
    CHECK_EQ(segment_stat(test_instance(), CHUNKS).st_mode & 07777, 0640);
    pid_t pid = test_spawn(write_as_anna, NULL);
    test_await((_Atomic uint32_t *)(token_there + 1), 1);
    test_join(test_spawn(read_as_bert, NULL));
    test_signal((_Atomic uint32_t *)(token_there + 1));
    test_join(pid);
    CHECK_EQ(segment_stat(test_instance(), CHUNKS).st_mode & 07777, 0640);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(data_permissions_are_exact) {
    static const uint32_t asked[] = {0, 0600, 0640, 0644, 0777}, refused[] = {01600, 0400, 0060, 0177, UINT32_MAX};
    zcp_manager *manager;
    zcp_manager_desc desc = {.name = test_instance(), .config = &old_pools, .permissions = 0620};
    mode_t before = umask(077);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        desc.data_permissions = asked[i];
        CHECK_OK(zcp_manager_open(&manager, &desc));
        CHECK_EQ(segment_stat(test_instance(), MANAGEMENT).st_mode & 07777, 0620);
        CHECK_EQ(segment_stat(test_instance(), CHUNKS).st_mode & 07777, asked[i] ? asked[i] : 0620);
        finish(manager);
    }
    umask(before);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        desc.data_permissions = refused[i];
        CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_INVALID_ARGUMENT);
        must_say("data_permissions");
    }
    CHECK(!has_names());
}
