// bench/locked.h: what one call costs in instructions, and how many of them are locked, counted and not sampled: a child
// makes each call once while its parent steps it through every instruction (ptrace, x86-64). Of an instruction the bytes
// before it is executed are looked at: a lock prefix, or an exchange with memory, which is locked without one.
#ifndef ZEROCP_BENCH_LOCKED_H
#define ZEROCP_BENCH_LOCKED_H

#include "cases.h"

#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

typedef struct locked_count {
    const char *name;
    uint64_t instructions, locked;
} locked_count;

static zcp_chunk stepped, stepped_other;
static uint64_t stepped_token;
static uint32_t stepped_index;

static void step_nothing(void) {}
static void step_allocate(void) { MUST_OK(zcp_chunk_allocate(manager, CHUNK_BYTES, &stepped)); }
static void step_release(void) { zcp_chunk_release(&stepped); }
static void step_clone(void) { stepped_other = zcp_chunk_clone(&stepped); }
static void step_release_other(void) { zcp_chunk_release(&stepped_other); }
static void step_token(void) { stepped_token = zcp_chunk_token(&stepped); }
static void step_acquire(void) { MUST_OK(zcp_chunk_acquire(manager, stepped_token, &stepped_other)); }
static void step_pop(void) { MUST(zcp_mpmc_list_pop(&list, &stepped_index)); }
static void step_push(void) { MUST(zcp_mpmc_list_push(&list, stepped_index)); }

static const struct {
    const char *name;
    void (*call)(void);
} steps[] = {
    {"nothing", step_nothing},                                     // what the counting itself adds; subtracted
    {"allocate", step_allocate},
    {"clone", step_clone},
    {"release_clone", step_release_other},
    {"release", step_release},                                     // cloned, but never marked: the plain store
    {NULL, step_allocate},
    {"token", step_token},
    {"acquire", step_acquire},
    {"release_borrowed", step_release_other},
    {"release_marked", step_release},
    {"list_pop", step_pop},
    {"list_push", step_push},
};
enum { STEPS = sizeof steps / sizeof steps[0] };

static void locked_child(void) {
    manager = open_instance(NAME_MAIN, ZCP_SHM_OPEN_EXISTING, NULL);
    for (int warm = 2; warm >= 0; warm--) {
        if (warm == 0) {
            if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
                _exit(2);
            raise(SIGSTOP);
        }
        for (uint64_t i = 0; i < STEPS; i++) {
            atomic_store_explicit(&shared->phase.word, i + 1, memory_order_relaxed);
            steps[i].call();
            atomic_store_explicit(&shared->phase.word, 0, memory_order_relaxed);
        }
    }
    atomic_store(&shared->phase.word, STEPS + 1);                  // all done; it is killed now
    for (;;)
        pause();
}

static bool is_locked(const unsigned char *code) {
    bool locked = false;
    for (;; code++) {
        if (*code == 0xf0)
            locked = true;
        else if (*code != 0x66 && *code != 0x67 && *code != 0xf2 && *code != 0xf3 && *code != 0x2e && *code != 0x3e && *code != 0x64
                 && *code != 0x65 && *code != 0x26 && *code != 0x36)
            break;
    }
    if ((*code & 0xf0) == 0x40)
        code++;                                                    // REX
    return locked || ((code[0] == 0x86 || code[0] == 0x87) && code[1] < 0xc0);
}

// Fills counts[STEPS]; false where it cannot be done.
static bool locked_count_all(locked_count *counts) {
    for (int i = 0; i < STEPS; i++)
        counts[i] = (locked_count){steps[i].name, 0, 0};
#if defined(__x86_64__)
    int status;
    pid_t child = helper_fork();
    if (child == 0)
        locked_child();
    MUST(waitpid(child, &status, 0) == child);
    while (WIFSTOPPED(status)) {
        long at = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user_regs_struct, rip), NULL);
        uint64_t phase = atomic_load_explicit(&shared->phase.word, memory_order_relaxed);
        if (phase > STEPS)
            break;
        if (phase != 0) {                                          // the child was forked from here: its code is ours, at the same address
            counts[phase - 1].instructions++;
            counts[phase - 1].locked += is_locked((const unsigned char *)at);
        }
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child)
            break;
    }
    bool done = atomic_load(&shared->phase.word) > STEPS;
    helper_kill(child);
    for (int i = STEPS - 1; i >= 0; i--) {
        counts[i].instructions -= counts[i].instructions < counts[0].instructions ? counts[i].instructions : counts[0].instructions;
        counts[i].locked -= counts[0].locked;
    }
    return done;
#else
    return false;
#endif
}

#endif
