// tests/harness/filter.h: system calls of this process that fail, or kill it, from now on: by a filter of the kernel
// (seccomp).
#ifndef ZEROCP_TEST_FILTER_H
#define ZEROCP_TEST_FILTER_H

#include "test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

// The calls that the C library makes for 64-bit offsets: 32-bit machines have others for that. A length is in the same
// argument, or the lower half of it is, and the upper one is 0 in what is tested.
#ifdef SYS_mmap2
enum { FILTER_MMAP = SYS_mmap2, FILTER_FCNTL = SYS_fcntl64, FILTER_FTRUNCATE = SYS_ftruncate64 };
#else
enum { FILTER_MMAP = SYS_mmap, FILTER_FCNTL = SYS_fcntl, FILTER_FTRUNCATE = SYS_ftruncate };
#endif

// From now on a system call of this process does something else. With an argument (from 0): only if that has this
// value.
static inline void filter_call(long call, int argument, uint32_t value, uint32_t action) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 (uint32_t)offsetof(struct seccomp_data, args) + 8 * (uint32_t)(argument < 0 ? 0 : argument)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (argument < 0)                                              // whatever the arguments
        filter[3] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0);
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static inline void filter_need(void) {
    if (prctl(PR_GET_SECCOMP) < 0)
        test_skip("no seccomp in this kernel");
}

#endif
