// tests/meet_test.c: how a client comes to know and to map pools that were added: beside others who change them at any
// moment, when something fails for a moment, and when another pool cannot be met at all.
#include "harness/hostile.h"

#include "harness/test.h"

#include <signal.h>

#define CHECK_IS(actual, expected)                                                                                     \
    do {                                                                                                               \
        zcp_status actual_ = (actual), expected_ = (expected);                                                         \
        CHECK_MSG(actual_ == expected_, "is %s, expected %s: %s", zcp_status_name(actual_),                            \
                  zcp_status_name(expected_), zcp_last_message());                                                     \
    } while (0)
#define CHECK_FINE(call) CHECK_IS(call, ZCP_OK)

static const zcp_pool_config first = {1024, 8, 64, 0}, kept = {4096, 4, 64, 0}, next = {2048, 8, 64, 0};

static zcp_manager *opened(zcp_shm_mode mode) {
    zcp_config config = {0};
    zcp_manager *manager;
    CHECK_FINE(zcp_config_add_pool(&config, 64, 16));
    zcp_manager_desc desc = {.name = test_instance(), .mode = mode};
    if (mode != ZCP_SHM_OPEN_EXISTING)
        desc.config = &config;
    CHECK_FINE(zcp_manager_open(&manager, &desc));
    return manager;
}

// ---------------------------------------------------------------------------------------------------------------------
// A peer that changes the pools whenever it is told to, also in the middle of another process's call

typedef enum order { ORDER_ADD, ORDER_REPLACE, ORDER_END } order;

static struct peer {
    _Atomic uint32_t orders, done;
    order what;
    uint32_t number;                                               // of the pool that goes
    uint64_t token;                                                // of a chunk in the one that stays
} *peer;

static void peer_obeys(void *argument) {
    (void)argument;
    zcp_manager *manager = opened(ZCP_SHM_OPEN_EXISTING);
    zcp_chunk chunk = {0};
    for (uint32_t orders = 1;; orders++) {
        test_await(&peer->orders, orders);
        if (peer->what == ORDER_ADD) {
            CHECK_FINE(zcp_manager_add_pool(manager, &first, &peer->number));
            CHECK_FINE(zcp_manager_add_pool(manager, &kept, NULL));
            CHECK_FINE(zcp_chunk_allocate(manager, kept.chunk_size, &chunk));
            peer->token = zcp_chunk_token(&chunk);
        } else if (peer->what == ORDER_REPLACE) {
            uint32_t number;
            CHECK_FINE(zcp_manager_retire_pool(manager, peer->number));
            CHECK_FINE(zcp_manager_add_pool(manager, &next, &number));
            CHECK_EQ(number, peer->number);
        } else {
            break;
        }
        test_signal(&peer->done);
    }
    zcp_chunk_release(&chunk);
    zcp_manager_close(manager);
}

static pid_t peer_begin(void) {
    peer = test_shared(sizeof *peer);
    return test_spawn(peer_obeys, NULL);
}

static void tell_peer(order what) {
    peer->what = what;
    uint32_t orders = test_signal(&peer->orders);
    if (what != ORDER_END)
        test_await(&peer->done, orders);
}

static void let_peer_replace(void) {
    tell_peer(ORDER_REPLACE);
}

// What a client does that meets pools on the way.
enum { ACQUIRES, ALLOCATES, RECOVERS, ADDS, RETIRES, LOOKS, CALLS };

static zcp_status do_call(int call, zcp_manager *manager) {
    static const zcp_pool_config own = {300, 4, 64, 0};
    zcp_chunk chunk = {0};
    zcp_status status;
    switch (call) {
    case ACQUIRES: status = zcp_chunk_acquire(manager, peer->token, &chunk); break;
    case ALLOCATES: status = zcp_chunk_allocate(manager, kept.chunk_size, &chunk); break;
    case RECOVERS: return zcp_manager_recover(manager, NULL);
    case ADDS: return zcp_manager_add_pool(manager, &own, NULL);
    case RETIRES: return zcp_manager_retire_pool(manager, peer->number + 1);
    default: return zcp_manager_registry(manager) != NULL ? ZCP_OK : ZCP_ERR_CLOSED;
    }
    zcp_chunk_release(&chunk);
    return status;
}

// What the library logs about pools, if anything.
static char told[512];

static void keep_told(zcp_log_level level, const char *line, void *user) {
    (void)level, (void)user;
    if (told[0] == 0)
        snprintf(told, sizeof told, "%s", line);
}

static void end_round(zcp_manager *manager, pid_t pid) {
    tell_peer(ORDER_END);
    test_join(pid);
    zcp_manager_close(manager);
    CHECK_FINE(zcp_manager_destroy(test_instance()));
}

// A number is given to another pool before each access that a call makes until it knows the pools. That is no garbage.
TEST_WITH(meet_what_changes_meanwhile, .seconds = 120) {
    enum { ACCESSES = 60 };                                        // more than one look takes
    zcp_log_set_level(ZCP_LOG_WARNING);
    zcp_log_set_callback(keep_told, NULL);
    for (int call = 0; call < CALLS; call++)
        for (uint64_t access = 1; access < ACCESSES; access++) {
            if (call == ADDS && access == 1)
                break;                                             // it has the lock that the peer would need
            zcp_manager *manager = opened(ZCP_SHM_CREATE_EXCLUSIVE);
            pid_t pid = peer_begin();
            tell_peer(ORDER_ADD);
            hostile.then = let_peer_replace;
            hostile.until = access;
            zcp_status status = do_call(call, manager);
            CHECK_MSG(status == ZCP_OK, "call %d, stopped before access %llu: %s: %s", call, (unsigned long long)access,
                      zcp_status_name(status), zcp_last_message());
            CHECK_MSG(told[0] == 0, "call %d, stopped before access %llu: %s", call, (unsigned long long)access, told);
            CHECK_EQ(hostile.until, 0);
            end_round(manager, pid);
        }
}

// The header is copied while the pools change: a copy that mixes two pools is no other configuration, and no garbage.
static int torn;

static void tear(void *bytes, size_t count) {
    zcp_priv_header *header = bytes;
    if (count < sizeof *header || torn++ >= 4)                     // the first four copies, that is
        return;
    for (int p = 1; p < ZCP_MAX_LIVE_POOLS; p++)
        header->pools[p].data_offset += (uint64_t)torn;
}

TEST(meet_header_that_is_copied_while_it_changes) {
    zcp_manager *manager = opened(ZCP_SHM_CREATE_EXCLUSIVE), *other;
    zcp_config config;
    CHECK_FINE(zcp_manager_add_pool(manager, &first, NULL));
    CHECK_FINE(zcp_manager_get_config(manager, &config));
    torn = 0;
    hostile.after_pread = tear;
    zcp_manager_desc desc = {.name = test_instance(), .mode = ZCP_SHM_OPEN_OR_CREATE, .config = &config};
    CHECK_FINE(zcp_manager_open(&other, &desc));
    hostile.after_pread = NULL;
    CHECK(torn > 4);
    zcp_manager_close(other);
    zcp_manager_close(manager);
    CHECK_FINE(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// What fails for a moment

// Each system call that meeting takes fails once, or from then on while it tries. It works as soon as nothing fails.
TEST_WITH(meet_again_what_failed_once, .seconds = 120) {
    static const int errors[] = {ENOMEM, EMFILE, EACCES};
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++)
        for (int call = ACQUIRES; call <= ALLOCATES; call++) {
            bool failed = true;
            for (int nth = 1; failed; nth++) {
                zcp_manager *manager = opened(ZCP_SHM_CREATE_EXCLUSIVE);
                pid_t pid = peer_begin();
                tell_peer(ORDER_ADD);
                hostile.calls = 0;
                hostile.error = errors[e];
                hostile.nth = nth;
                hostile.failed = NULL;
                zcp_status status = do_call(call, manager);
                failed = hostile.failed != NULL;
                hostile.nth = 0;
                CHECK_MSG(failed || status == ZCP_OK, "nothing fails: %s", zcp_last_message());
                bool told_why = strstr(zcp_last_message(), "cannot be used here: ") != NULL;
                CHECK_MSG(status == ZCP_OK || told_why, "%s, as %s failed: %s", zcp_status_name(status), hostile.failed,
                          zcp_last_message());
                for (int tries = 0; tries < 10000 && status != ZCP_OK; tries++) {
                    test_sleep(1);                                 // what failed is not tried all the time
                    status = do_call(call, manager);
                }
                CHECK_MSG(status == ZCP_OK, "call %d, for ever, as %s had failed: %s", call, hostile.failed,
                          zcp_last_message());
                for (int c = 0; c < CALLS; c++)
                    CHECK_MSG((status = do_call(c, manager)) == ZCP_OK, "call %d: %s", c, zcp_last_message());
                end_round(manager, pid);
            }
        }
}

// ---------------------------------------------------------------------------------------------------------------------
// One pool cannot be met

static void forge_pool(zcp_manager *manager, uint32_t number, uint32_t serial) {
    atomic_store(&manager->header->pools[number].state, zcp_priv_pool_state(serial, ZCP_PRIV_POOL_LIVE));
    atomic_fetch_add(&manager->header->signals.epoch, 1);
}

// Nothing that a header says of one pool makes a call fail that works on other ones.
TEST(meet_fails_for_no_other_pool) {
    for (int call = 0; call < CALLS; call++)
        for (int again = 0; again < 2; again++) {                  // the garbage was met before, or was not
            enum { BAD = 7 };
            zcp_manager *manager = opened(ZCP_SHM_CREATE_EXCLUSIVE);
            zcp_config config;
            zcp_chunk chunk;
            pid_t pid = peer_begin();
            tell_peer(ORDER_ADD);
            forge_pool(manager, BAD, 1000);
            if (again)
                CHECK_EQ(zcp_manager_pool_end(manager), BAD + 1);
            zcp_status status = do_call(call, manager);
            CHECK_MSG(status == ZCP_OK, "call %d fails as pool %d is garbage: %s: %s", call, BAD,
                      zcp_status_name(status), zcp_last_message());
            CHECK_IS(zcp_manager_retire_pool(manager, BAD), ZCP_ERR_CORRUPT);
            uint64_t token = UINT64_C(1) << 32 | (uint64_t)BAD << ZCP_PRIV_POOL_SHIFT;
            CHECK_IS(zcp_chunk_acquire(manager, token, &chunk), ZCP_ERR_CORRUPT);
            CHECK(strstr(zcp_last_message(), "does not add up") != NULL);
            CHECK_FINE(zcp_manager_get_config(manager, &config));
            CHECK_IS(zcp_manager_reconfigure(manager, &config), ZCP_ERR_CORRUPT);      // it may be one of those
            CHECK_IS(zcp_chunk_allocate(manager, 1 << 20, &chunk), ZCP_ERR_MAPPING);   // it may have such chunks
            end_round(manager, pid);
        }
}

// What comes and goes takes mappings until the manager is closed, and the application needs some of its own.
TEST(meet_leaves_mappings_to_the_application) {
    for (int bytes = 0; bytes < 2; bytes++) {
        zcp_manager *adder = opened(ZCP_SHM_CREATE_EXCLUSIVE), *manager = opened(ZCP_SHM_OPEN_EXISTING);
        zcp_chunk chunk, received;
        uint32_t number;
        for (uint32_t round = 1; round <= 5; round++) {            // what was mapped stays, and is counted
            CHECK_FINE(zcp_manager_add_pool(adder, &first, &number));
            CHECK_EQ(zcp_manager_pool_end(manager), 2);
            CHECK(manager->grown_count == round && manager->grown_bytes > round * first.chunk_size * first.chunk_count);
            CHECK_FINE(zcp_manager_retire_pool(adder, number));
            CHECK_EQ(zcp_manager_pool_end(manager), 2);
        }
        CHECK_FINE(zcp_manager_add_pool(adder, &next, &number));
        CHECK_FINE(zcp_chunk_allocate(adder, next.chunk_size, &chunk));
        uint64_t token = zcp_chunk_token(&chunk);
        if (bytes)
            manager->grown_bytes = ZCP_PRIV_MAX_GROWN_BYTES - adder->grown_bytes;
        else
            manager->grown_count = ZCP_PRIV_MAX_GROWN - adder->grown_count;
        CHECK_IS(zcp_chunk_acquire(manager, token, &received), ZCP_ERR_MAPPING);
        CHECK(strstr(zcp_last_message(), "close the manager and open it again") != NULL);
        CHECK_IS(zcp_chunk_allocate(manager, next.chunk_size, &received), ZCP_ERR_MAPPING);
        CHECK(strstr(zcp_last_message(), "close the manager and open it again") != NULL);
        CHECK_FINE(zcp_chunk_allocate(manager, 64, &received));    // the others serve
        zcp_chunk_release(&received);
        CHECK_IS(zcp_manager_add_pool(adder, &kept, NULL), ZCP_ERR_MAPPING);           // of one process
        zcp_manager_close(manager);
        manager = opened(ZCP_SHM_OPEN_EXISTING);
        CHECK_FINE(zcp_chunk_acquire(manager, token, &received));
        CHECK_FINE(zcp_manager_add_pool(adder, &kept, NULL));
        zcp_chunk_release(&received);
        zcp_chunk_release(&chunk);
        zcp_manager_close(manager);
        zcp_manager_close(adder);
        CHECK_FINE(zcp_manager_destroy(test_instance()));
    }
}
