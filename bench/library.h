// bench/library.h: the library, implemented in the bench's own translation unit (one program, one file), but called as a
// user calls it from another file: each call of the functions below goes to an alias that only the assembler resolves,
// so that the compiler can neither inline it nor look through it.
#ifndef ZEROCP_BENCH_LIBRARY_H
#define ZEROCP_BENCH_LIBRARY_H

#define ZEROCP_IMPLEMENTATION
#include "zerocp.h"

#define BENCH_OPAQUE(type, name, ...)                                                                                  \
    __asm__(".globl opaque_" #name "\n\t.set opaque_" #name ", " #name);                                               \
    type opaque_##name(__VA_ARGS__)

BENCH_OPAQUE(zcp_status, zcp_chunk_allocate, zcp_manager *manager, uint64_t size, zcp_chunk *chunk);
BENCH_OPAQUE(zcp_status, zcp_chunk_acquire, zcp_manager *manager, uint64_t token, zcp_chunk *chunk);
BENCH_OPAQUE(zcp_chunk, zcp_chunk_clone, const zcp_chunk *chunk);
BENCH_OPAQUE(void, zcp_chunk_release, zcp_chunk *chunk);
BENCH_OPAQUE(uint64_t, zcp_chunk_token, const zcp_chunk *chunk);
BENCH_OPAQUE(bool, zcp_mpmc_list_pop, zcp_mpmc_list *list, uint32_t *index);
BENCH_OPAQUE(bool, zcp_mpmc_list_push, zcp_mpmc_list *list, uint32_t index);

#define zcp_chunk_allocate opaque_zcp_chunk_allocate
#define zcp_chunk_acquire opaque_zcp_chunk_acquire
#define zcp_chunk_clone opaque_zcp_chunk_clone
#define zcp_chunk_release opaque_zcp_chunk_release
#define zcp_chunk_token opaque_zcp_chunk_token
#define zcp_mpmc_list_pop opaque_zcp_mpmc_list_pop
#define zcp_mpmc_list_push opaque_zcp_mpmc_list_push

#endif
