// bench/peers/iceoryx.cpp: iceoryx's memory manager and shared chunk, as its daemon sets them up, without the daemon: a
// chunk is got, counted, and given back by the last who holds it. A message is its relative pointer.
#include "../contender.h"

#include "iceoryx_hoofs/internal/posix_wrapper/shared_memory_object/allocator.hpp"
#include "iceoryx_hoofs/internal/relocatable_pointer/relative_pointer.hpp"
#include "iceoryx_posh/internal/mepoo/memory_manager.hpp"
#include "iceoryx_posh/internal/mepoo/shared_chunk.hpp"
#include "iceoryx_posh/internal/mepoo/shm_safe_unmanaged_chunk.hpp"
#include "iceoryx_posh/mepoo/chunk_settings.hpp"
#include "iceoryx_posh/mepoo/mepoo_config.hpp"
#include <new>

static const bench_host *host;

namespace {

using iox::mepoo::MemoryManager;
using iox::mepoo::SharedChunk;
using iox::mepoo::ShmSafeUnmanagedChunk;

static_assert(sizeof(ShmSafeUnmanagedChunk) == sizeof(uint64_t), "a message is 64 bits");

struct pool_type {
    MemoryManager *manager;                                        // in shared memory
    iox::mepoo::ChunkSettings *settings;
    uint32_t bytes;
};

void *iceoryx_create(uint32_t chunks, uint32_t bytes) {
    if (chunks > 1000000 || bytes % 8 != 0)
        return NULL;
    iox::mepoo::MePooConfig config;
    config.addMemPool({bytes, chunks});
    const uint64_t management = MemoryManager::requiredManagementMemorySize(config),
                   payload = MemoryManager::requiredChunkMemorySize(config);
    const uint64_t head = (sizeof(MemoryManager) + 4095) / 4096 * 4096, size = head + management + payload + 4096;
    unsigned char *memory = static_cast<unsigned char *>(host->shared_memory(size));
    iox::rp::BaseRelativePointer::registerPtr(memory, size);
    iox::posix::Allocator management_allocator(memory + head, management);
    iox::posix::Allocator payload_allocator(memory + head + management, payload + 4096);
    pool_type *pool = new pool_type();
    pool->manager = new (memory) MemoryManager();
    pool->manager->configureMemoryManager(config, management_allocator, payload_allocator);
    pool->bytes = bytes;
    auto settings = iox::mepoo::ChunkSettings::create(bytes, iox::CHUNK_DEFAULT_USER_PAYLOAD_ALIGNMENT);
    if (settings.has_error())
        host->die("iceoryx: no chunk settings");
    pool->settings = new iox::mepoo::ChunkSettings(settings.value());
    return pool;
}

void iceoryx_check(void *memory) {
    const pool_type *pool = static_cast<const pool_type *>(memory);
    for (uint32_t i = 0; i < pool->manager->getNumberOfMemPools(); i++) {
        const auto info = pool->manager->getMemPoolInfo(i);
        if (info.m_usedChunks != 0)
            host->die("iceoryx: %u of %u chunks are used", info.m_usedChunks, info.m_numChunks);
    }
}

uint32_t iceoryx_bytes(void *pool) {
    return static_cast<const pool_type *>(pool)->bytes;
}

// A SharedChunk lies in the handle's words as it is: made there, and ended there.
struct chunk_words {
    alignas(SharedChunk) unsigned char words[sizeof(SharedChunk)];
};

inline SharedChunk &chunk_in(chunk_words *chunk) {
    return *reinterpret_cast<SharedChunk *>(chunk->words);
}

inline void *iceoryx_allocate(void *memory, chunk_words *chunk) {
    pool_type *pool = static_cast<pool_type *>(hide(memory));
    auto result = pool->manager->getChunk(*pool->settings);
    if (result.has_error())
        host->die("iceoryx: no chunk is free");
    return (new (chunk->words) SharedChunk(std::move(result.value())))->getUserPayload();
}

inline void iceoryx_release(void *, chunk_words *chunk) {
    chunk_in(chunk).~SharedChunk();
}

inline uint64_t iceoryx_give(void *, chunk_words *chunk) {         // the count goes with the message
    ShmSafeUnmanagedChunk unmanaged(std::move(chunk_in(chunk)));
    uint64_t message;
    memcpy(&message, static_cast<void *>(&unmanaged), sizeof message);
    chunk_in(chunk).~SharedChunk();
    return message;
}

inline void iceoryx_given(void *, chunk_words *) {}
inline void *iceoryx_take(void *, uint64_t message, chunk_words *chunk) {
    ShmSafeUnmanagedChunk unmanaged;
    memcpy(static_cast<void *>(&unmanaged), &message, sizeof message);
    return (new (chunk->words) SharedChunk(unmanaged.releaseToSharedChunk()))->getUserPayload();
}

inline void iceoryx_taken(void *memory, chunk_words *chunk) {
    iceoryx_release(memory, chunk);
}

#define LOOP(x) iceoryx_##x
#define LOOP_HANDS_OFF
#define handle chunk_words
#define iceoryx_host host
#include "../loops.h"

const contender iceoryx_contender = {
    "iceoryx", "iceoryx's memory manager and shared chunk, without its daemon", iceoryx_create, NULL, NULL, NULL,
    iceoryx_check, LOOP_TABLE, true, true,
};

} // namespace

extern "C" const contender *const *bench_peer(const bench_host *given, int abi);
extern "C" const contender *const *bench_peer(const bench_host *given, int abi) {
    static const contender *const all[] = {&iceoryx_contender, NULL};
    host = given;
    return abi == BENCH_ABI ? all : NULL;
}
