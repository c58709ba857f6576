// tests/speed_test.c: what speed rests on, as far as it can be tested without a clock: no system call on the paths that
// are taken per message, and nobody who waits for a process that stands still.
#include "harness/filter.h"
#include "harness/inside.h"
#include "harness/test.h"
#include "zerocp.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COUNT = 10000 };

static zcp_manager *open_pools(const char *name) {
    zcp_config config = { 0 };
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 8));
    CHECK_OK(zcp_config_add_pool(&config, 256, 4096));
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){ .name = name, .config = &config, .flags = ZCP_FALLBACK }));
    return manager;
}

// ---------------------------------------------------------------------------------------------------------------------
// No system calls. A filter lets nothing but exit pass; whatever else is called traps.

static _Atomic uint32_t *trapped;                                  // number of the call + 1

static void on_trap(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    atomic_store(trapped, (uint32_t)info->si_syscall + 1);
    _exit(3);
}

static void forbid_system_calls(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = { .len = sizeof filter / sizeof filter[0], .filter = filter };
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK_MSG(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0, "%s", strerror(errno));
}

static void require_filters(void) {
#if defined(TEST_TSAN) || defined(TEST_ASAN)
    test_skip("the sanitizer's own runtime makes system calls");
#endif
    filter_need();
    if (prctl(PR_GET_SECCOMP) != 0) test_skip("this process is filtered already");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) == 0 || errno != EFAULT)
        test_skip("the kernel has no seccomp filters");
    trapped = test_shared(sizeof *trapped);
}

static void run_filtered(void (*function)(const char *), const char *name) {
    int status = test_wait(test_spawn_named(function, name));
    CHECK_MSG(atomic_load(trapped) == 0, "system call %u was made", atomic_load(trapped) - 1);
    CHECK_EQ(status, 0);
}

// Ends the filtered process: through exit_group alone, which leaves the chunks to recovery.
#define QUIET(condition) do { if (!(condition)) _exit(4); } while (0)

static void quiet_in_one_process(const char *name) {
    zcp_manager *manager = open_pools(name);
    zcp_chunk few[16];
    forbid_system_calls();
    for (int i = 0; i < COUNT; i++) {
        zcp_chunk chunk, borrowed, clone;
        QUIET(zcp_chunk_allocate(manager, 200, &chunk) == ZCP_OK);
        memset(zcp_chunk_data(&chunk), i, (size_t)zcp_chunk_size(&chunk));
        clone = zcp_chunk_clone(&chunk);
        QUIET(zcp_chunk_is_valid(&clone) && zcp_chunk_use_count(&clone) == 2);
        zcp_chunk_release(&clone);
        if (i % 2) {
            uint64_t token = zcp_chunk_token(&chunk);
            QUIET(zcp_chunk_acquire(manager, token, &borrowed) == ZCP_OK);
            clone = zcp_chunk_clone(&borrowed);
            zcp_chunk_release(&chunk);
            zcp_chunk_release(&clone);
            zcp_chunk_release(&borrowed);
            QUIET(zcp_chunk_acquire(manager, token, &borrowed) == ZCP_ERR_STALE);
        }
        zcp_chunk_release(&chunk);
        zcp_chunk_release(&chunk);                                 // empty by now
    }
    // half of them by fallback
    for (int i = 0; i < 16; i++) QUIET(zcp_chunk_allocate(manager, 64, &few[i]) == ZCP_OK);
    for (int i = 0; i < 16; i++) zcp_chunk_release(&few[i]);
    _exit(0);
}

TEST(speed_no_system_call_in_one_process) {
    require_filters();
    zcp_manager *manager = open_pools(test_instance());
    run_filtered(quiet_in_one_process, test_instance());
    books_check(test_instance(), 0);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// Two at once: one sends tokens through a word, the other acquires and acknowledges. Both spin, which is no call.
static struct { _Atomic uint64_t token, acknowledged; } *word;

static void quiet_sender(const char *name) {
    zcp_manager *manager = open_pools(name);
    forbid_system_calls();
    for (uint64_t i = 1; i <= COUNT / 10; i++) {
        zcp_chunk chunk;
        QUIET(zcp_chunk_allocate(manager, 256, &chunk) == ZCP_OK);
        *(uint64_t *)chunk.data = i;
        atomic_store(&word->token, zcp_chunk_token(&chunk));
        while (atomic_load(&word->acknowledged) != i) {}
        zcp_chunk_release(&chunk);
    }
    _exit(0);
}

static void quiet_receiver(const char *name) {
    zcp_manager *manager = open_pools(name);
    forbid_system_calls();
    for (uint64_t i = 1; i <= COUNT / 10; i++) {
        zcp_chunk chunk;
        uint64_t token;
        while ((token = atomic_exchange(&word->token, 0)) == 0) {}
        QUIET(zcp_chunk_acquire(manager, token, &chunk) == ZCP_OK && *(uint64_t *)chunk.data == i);
        if (i % 2) atomic_store(&word->acknowledged, i);           // so that either one may be the last to let go
        zcp_chunk_release(&chunk);
        if (i % 2 == 0) atomic_store(&word->acknowledged, i);
    }
    _exit(0);
}

TEST(speed_no_system_call_between_processes) {
    require_filters();
    word = test_shared(sizeof *word);
    zcp_manager *manager = open_pools(test_instance());
    pid_t receiver = test_spawn_named(quiet_receiver, test_instance());
    run_filtered(quiet_sender, test_instance());
    int status = test_wait(receiver);
    CHECK_MSG(atomic_load(trapped) == 0, "system call %u was made", atomic_load(trapped) - 1);
    CHECK_EQ(status, 0);
    books_check(test_instance(), 0);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// The filter itself can fail: else the two tests above would prove nothing.
static void noisy(void *unused) {
    (void)unused;
    forbid_system_calls();
    syscall(SYS_getppid);
    _exit(0);
}

TEST(speed_a_system_call_would_be_seen) {
    require_filters();
    int status = test_wait(test_spawn(noisy, NULL));
    CHECK_EQ(atomic_load(trapped), SYS_getppid + 1);
    CHECK_EQ(status, 3 << 8);
}

// ---------------------------------------------------------------------------------------------------------------------
// A process that is stopped at any step of any path makes nobody wait: the same calls are made beside it, and this
// process passes exactly as many steps of the protocols as without it. (How long that takes is the bench's case
// "stopped".)

typedef struct stopping { const char *name, *step; _Atomic uint64_t *token; } stopping;

static void all_paths(zcp_manager *manager, uint64_t foreign) {
    zcp_chunk chunk, borrowed;
    CHECK_OK(zcp_chunk_allocate(manager, 256, &chunk));
    zcp_chunk_release(&chunk);
    CHECK_OK(zcp_chunk_allocate(manager, 256, &chunk));
    CHECK_OK(zcp_chunk_acquire(manager, zcp_chunk_token(&chunk), &borrowed));
    zcp_chunk clone = zcp_chunk_clone(&borrowed);
    zcp_chunk_release(&chunk);
    zcp_chunk_release(&clone);
    zcp_chunk_release(&borrowed);
    if (zcp_chunk_acquire(manager, foreign, &borrowed) == ZCP_OK) zcp_chunk_release(&borrowed);
}

static void run_and_stop(void *argument) {
    const stopping *how = argument;
    zcp_manager *manager = open_pools(how->name);
    test_at_step(how->step, 1, TEST_STOP, NULL);
    all_paths(manager, atomic_load(how->token));
    CHECK_MSG(false, "never came to the step %s", how->step);
}

TEST_WITH(speed_a_stopped_client_delays_nobody, .weight = 2) {
    static const char *const steps[] = {"popped",    "claimed",  "unowned", "freed",  "changing",
                                        "announced", "disowned", "cleared", "reaping"};
    stopping how = { test_instance(), NULL, test_shared(sizeof *how.token) };
    zcp_manager *manager = open_pools(test_instance());
    zcp_chunk own;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        CHECK_OK(zcp_chunk_allocate(manager, 256, &own));
        atomic_store(how.token, zcp_chunk_token(&own));
        uint64_t began = test_steps_passed();
        all_paths(manager, atomic_load(how.token));
        uint64_t alone = test_steps_passed() - began;

        how.step = steps[i];
        pid_t stopped = test_spawn(run_and_stop, &how);
        test_await_stop(stopped);
        for (int round = 0; round < 1000; round++) {
            began = test_steps_passed();
            all_paths(manager, atomic_load(how.token));
            CHECK_MSG(test_steps_passed() - began <= alone + 8, "stopped at %s: %llu steps instead of %llu", steps[i],
                      (unsigned long long)(test_steps_passed() - began), (unsigned long long)alone);
        }
        test_kill(stopped);
        zcp_chunk_release(&own);
        books_check(test_instance(), 0);
    }
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}
