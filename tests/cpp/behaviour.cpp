// behaviour.cpp: what namespace zerocp of zerocp.h promises, seen by a program that is linked to the implementation in
// C. tests/cpp_test.c compiles and runs it, with exceptions and without. Argument: a name for the instance.
#include "zerocp.h" // the first include: it needs nothing before it

#include "check.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>
#if __cplusplus >= 202002L
#include <span>
#endif

// ---------------------------------------------------------------------------------------------------------------------
// What the types are

// ZCP_ATOMIC: these lie in C++ as they do in C, of which tests/list_test.c says the same.
static_assert(sizeof(zcp_registry) == 24 * ZCP_REGISTRY_CAPACITY && alignof(zcp_registry) == 8, "");
static_assert(offsetof(zcp_mpmc_list, cursor) == sizeof(void *) + 4, "");
static_assert(offsetof(zcp_mpmc_list, leaves) == sizeof(void *) + 8, "");
static_assert(std::is_nothrow_default_constructible<shared_chunk>::value, "");
static_assert(std::is_nothrow_copy_constructible<shared_chunk>::value, "");
static_assert(std::is_nothrow_move_constructible<shared_chunk>::value, "a std::vector of them moves when it grows");
static_assert(std::is_nothrow_copy_assignable<shared_chunk>::value
                  && std::is_nothrow_move_assignable<shared_chunk>::value,
              "");
static_assert(std::is_constructible<bool, shared_chunk>::value && !std::is_convertible<shared_chunk, bool>::value, "");
static_assert(std::is_constructible<shared_chunk, zcp_chunk>::value, "adopts what is moved to it");
static_assert(std::is_constructible<shared_chunk, zcp_chunk &>::value
                  && !std::is_constructible<shared_chunk, const zcp_chunk &>::value,
              "a handle that is adopted is emptied");
static_assert(!std::is_convertible<zcp_chunk, shared_chunk>::value
                  && !std::is_convertible<zcp_chunk &, shared_chunk>::value,
              "adopts only when told to");
static_assert(!std::is_convertible<zcp_chunk, shared_chunk>::value, "nor by accident");
static_assert(sizeof(shared_chunk) == sizeof(zcp_chunk), "");

static_assert(std::is_nothrow_move_constructible<manager>::value && std::is_nothrow_move_assignable<manager>::value,
              "");
static_assert(!std::is_copy_constructible<manager>::value && !std::is_copy_assignable<manager>::value, "");
static_assert(!std::is_convertible<manager, bool>::value && !std::is_convertible<zcp_manager *, manager>::value, "");
static_assert(sizeof(manager) == sizeof(zcp_manager *), "");

static_assert(std::is_convertible<zcp_status, zerocp::status>::value
                  && !std::is_constructible<bool, zerocp::status>::value,
              "");
static_assert(!std::is_convertible<result<void>, bool>::value
                  && !std::is_convertible<result<uint32_t>, uint32_t>::value,
              "");
static_assert(std::is_nothrow_move_constructible<result<shared_chunk>>::value, "");
static_assert(!std::is_copy_constructible<result<manager>>::value, "");

static_assert(noexcept(std::declval<manager &>().allocate(1)) && noexcept(std::declval<manager &>().acquire(1)), "");
static_assert(
    noexcept(std::declval<manager &>().allocate_wait(1, 1)) &&noexcept(std::declval<manager &>().allocate_tagged(1, 1)),
    "");
static_assert(noexcept(manager::open(nullptr, zerocp::config())) && noexcept(manager::destroy(nullptr)), "");
static_assert(noexcept(std::declval<const manager &>().pool_stats(0)) &&noexcept(std::declval<manager &>().recover()),
              "");

// ---------------------------------------------------------------------------------------------------------------------
// Clients

static manager open_pools(uint32_t flags = 0) {
    result<manager> opened = manager::open(instance, {{256, 8}, {4096, 4, 4096, 2}}, flags);
    CHECK(opened);
    return std::move(opened).value();
}

static shared_chunk allocate(manager &from, uint64_t size = 100) {
    result<shared_chunk> allocated = from.allocate(size);
    CHECK(allocated);
    return std::move(*allocated);
}

static uint64_t used(const manager &of, uint32_t pool = 0) {
    result<zcp_pool_stats> stats = of.pool_stats(pool);
    CHECK(stats && stats->used + stats->free + stats->cached == stats->total);
    return stats->used;
}

static bool is_empty(const shared_chunk &chunk) {
    return !chunk && !chunk.get() && !chunk.data() && chunk.count() == 0 && chunk.size() == 0 && chunk.capacity() == 0
           && chunk.use_count() == 0 && chunk.token() == 0 && chunk.begin() == chunk.end();
}

// ---------------------------------------------------------------------------------------------------------------------
// Counting

static void adopts_and_counts() {
    manager own = open_pools();
    zcp_chunk handle;
    CHECK(zcp_chunk_allocate(own.get(), 100, &handle) == ZCP_OK);
    {
        shared_chunk first(std::move(handle));
        CHECK(first.use_count() == 1 && used(own) == 1);           // adopting does not count
        CHECK(handle.manager == nullptr && handle.data == nullptr);
        {
            shared_chunk second = first;
            CHECK(first.use_count() == 2 && second.use_count() == 2);
            shared_chunk third;
            third = second;
            CHECK(first.use_count() == 3 && third.get() == first.get());
            shared_chunk moved = std::move(third);                 // moving none
            CHECK(first.use_count() == 3 && is_empty(third) && moved == first);
            second = std::move(moved);                             // what second held is released
            CHECK(first.use_count() == 2 && is_empty(moved) && second == first);
        }
        CHECK(first.use_count() == 1 && first && used(own) == 1);
        zcp_chunk detached = first.detach();
        shared_chunk again(detached);                              // also one that is not moved is emptied
        CHECK(again.use_count() == 1 && used(own) == 1 && detached.manager == nullptr);
    }
    CHECK(used(own) == 0);
}

static shared_chunk passed_by_value(shared_chunk chunk, uint64_t expected) {
    CHECK(chunk.use_count() == expected);
    return chunk;
}

static void passes_by_value() {
    manager own = open_pools();
    shared_chunk chunk = allocate(own);
    shared_chunk copy = passed_by_value(chunk, 2);
    CHECK(copy == chunk && chunk.use_count() == 2);
    copy.reset();
    chunk = passed_by_value(std::move(chunk), 1);
    CHECK(chunk && chunk.use_count() == 1);
}

static void assigns_to_itself() {
    manager own = open_pools();
    shared_chunk chunk = allocate(own), &same = chunk;
    void *payload = chunk.get();
    chunk = same;
    CHECK(chunk.get() == payload && chunk.use_count() == 1);
    chunk = std::move(same);
    CHECK(chunk.get() == payload && chunk.use_count() == 1);
    swap(chunk, same);
    chunk.swap(same);
    CHECK(chunk.get() == payload && chunk.use_count() == 1 && used(own) == 1);
    shared_chunk empty, &nothing = empty;
    empty = nothing;
    empty = std::move(nothing);
    CHECK(is_empty(empty));
}

static void is_used_after_a_move() {
    manager own = open_pools();
    shared_chunk from = allocate(own), to = std::move(from), copy = from;
    CHECK(is_empty(from) && is_empty(copy) && from == copy && from != to && to.use_count() == 1);
    from.reset();
    from = allocate(own);
    CHECK(from && from != to && used(own) == 2);
    from = shared_chunk();
    CHECK(is_empty(from) && used(own) == 1);
    shared_chunk empty;
    std::swap(empty, to);
    CHECK(is_empty(to) && empty.use_count() == 1);
    to = {};
    CHECK(is_empty(to));
}

static void resets_and_detaches() {
    manager own = open_pools();
    shared_chunk chunk = allocate(own), copy = chunk;
    copy.reset();
    copy.reset();
    CHECK(is_empty(copy) && chunk.use_count() == 1);
    CHECK(zcp_chunk_size(&chunk.handle()) == 100);
    zcp_chunk handle = chunk.detach();
    CHECK(is_empty(chunk) && zcp_chunk_use_count(&handle) == 1 && used(own) == 1);
    zcp_chunk_release(&handle);
    CHECK(used(own) == 0);
    handle = chunk.detach();
    CHECK(handle.manager == nullptr);
}

// Each part of a handle counts: also with equal generations two chunks differ, and a chunk from itself when it is used
// again.
static void compares() {
    manager own = open_pools();
    shared_chunk chunk = allocate(own), copy = chunk;
    CHECK(chunk == copy && !(chunk != copy) && chunk != shared_chunk() && shared_chunk() == shared_chunk());
    for (int part = 0; part < 2; part++) {
        zcp_chunk changed = chunk.handle();
        (part == 0 ? changed.index : changed.generation) ^= 1;
        shared_chunk other(std::move(changed));
        CHECK(chunk != other && !(chunk == other));
        changed = other.detach();                                  // held by nobody
    }
}

// A handle is released behind the back of the object: nothing is counted that is not held.
static void copies_what_is_not_held() {
    manager own = open_pools();
    shared_chunk chunk = allocate(own);
    zcp_chunk behind = chunk.handle();
    zcp_log_set_level(ZCP_LOG_OFF);
    zcp_chunk_release(&behind);
    shared_chunk copy = chunk;
    CHECK(is_empty(chunk) && is_empty(copy) && used(own) == 0);
    chunk.reset();
    zcp_log_set_level(ZCP_LOG_ERROR);
    CHECK(used(own) == 0);
}

static void lies_in_containers() {
    manager own = open_pools();
    std::vector<shared_chunk> chunks;
    std::deque<shared_chunk> copies;
    std::map<uint64_t, shared_chunk> by_token;
    for (int i = 0; i < 8; i++) {
        chunks.push_back(allocate(own));                           // it grows: by moving
        *chunks.back().data<int>() = 7 - i;
        copies.push_front(chunks.back());
        by_token[chunks.back().token()] = chunks.back();
    }
    for (const shared_chunk &chunk : chunks)
        CHECK(chunk.use_count() == 3 && by_token.at(chunk.token()) == chunk);
    std::sort(chunks.begin(), chunks.end(),
              [](const shared_chunk &a, const shared_chunk &b) { return *a.data<int>() < *b.data<int>(); });
    CHECK(std::equal(chunks.begin(), chunks.end(), copies.begin()));
    chunks.erase(std::remove_if(chunks.begin(), chunks.end(),
                                [](const shared_chunk &chunk) { return *chunk.data<int>() % 2 == 0; }),
                 chunks.end());
    CHECK(chunks.size() == 4 && used(own) == 8 && copies[0].use_count() == 2 && copies[1].use_count() == 3);
    std::vector<shared_chunk>(chunks).swap(chunks);
    CHECK(copies[0].use_count() == 2 && copies[1].use_count() == 3);
    by_token.clear();
    copies.clear();
    CHECK(used(own) == 4 && chunks[0].use_count() == 1);
    chunks.clear();
    CHECK(used(own) == 0);
}

// The object is read by several threads at once; each works on copies of its own.
static void is_shared_by_threads() {
    manager own = open_pools();
    const shared_chunk chunk = allocate(own);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&chunk] {
            for (int i = 0; i < 2000; i++) {
                shared_chunk copy = chunk, moved = std::move(copy);
                CHECK(moved == chunk && moved.use_count() >= 2);
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    CHECK(chunk.use_count() == 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// The payload

struct wide {
    alignas(1024) char bytes[1024];
};

static void shows_its_payload() {
    manager own = open_pools();
    const shared_chunk chunk = allocate(own, 103);                 // the object is const, not what it leads to
    CHECK(chunk.size() == 103 && chunk.capacity() == 256);
    CHECK(chunk.count() == 103 && chunk.count<uint32_t>() == 25 && chunk.count<const uint64_t>() == 12);
    std::fill(chunk.begin(), chunk.end(), static_cast<unsigned char>(1));
    CHECK(std::count(chunk.begin(), chunk.end(), 1) == 103);
    int sum = 0;
    for (unsigned char &byte : chunk)
        sum += byte++;
    CHECK(sum == 103 && chunk.data()[102] == 2 && *chunk.data<const uint16_t>() == 0x0202);
    struct fits { char bytes[103]; };
    struct too_large { char bytes[104]; };
    CHECK(chunk.data<fits>() && chunk.count<fits>() == 1);
    CHECK(!chunk.data<too_large>() && chunk.count<too_large>() == 0);
#if __cplusplus >= 202002L
    std::span<const unsigned char> bytes(chunk);
    CHECK(bytes.data() == chunk.get() && bytes.size() == 103);
#endif
}

// Chunks of 1088 bytes, 64 apart from a multiple of 1024 but for a few.
static void checks_the_alignment() {
    result<manager> opened = manager::open(instance, {{1088, 4}});
    CHECK(opened);
    std::vector<shared_chunk> chunks;
    int aligned = 0;
    for (int i = 0; i < 4; i++) {
        chunks.push_back(allocate(*opened, 1088));
        bool fits = reinterpret_cast<std::uintptr_t>(chunks.back().get()) % 1024 == 0;
        CHECK((chunks.back().data<wide>() != nullptr) == fits && chunks.back().count<wide>() == (fits ? 1 : 0));
        aligned += fits;
    }
    CHECK(aligned < 4);
}

// ---------------------------------------------------------------------------------------------------------------------
// Tokens

static void passes_a_token() {
    manager sender = open_pools();
    result<manager> opened = manager::open_existing(instance);
    CHECK(opened);
    manager &receiver = *opened;
    shared_chunk sent = allocate(sender);
    std::strcpy(sent.data<char>(), "hello");
    uint64_t token = sent.token();
    result<shared_chunk> received = receiver.acquire(token);
    CHECK(received && std::strcmp(received->data<char>(), "hello") == 0 && received->size() == 100);
    CHECK(sent.use_count() == 2 && received->use_count() == 2 && received->token() == token && sent != *received);
    shared_chunk again = shared_chunk::acquire(receiver, token).value_or(shared_chunk());
    CHECK(again == *received && again.use_count() == 3 && sent.use_count() == 2);      // each other client counts once
    sent.reset();
    CHECK(again.use_count() == 2 && used(sender) == 1);
    // a failed result takes the place: the chunk is released
    received = receiver.acquire(1);
    CHECK(!received && received.error() == ZCP_ERR_INVALID_TOKEN && again.use_count() == 1);
    again.reset();
    CHECK(receiver.acquire(token).error() == ZCP_ERR_STALE && used(sender) == 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Results

static result<uint32_t> fails_with(zcp_status code) {
    return code;
}

static void answers_with_results() {
    manager own = open_pools();
    result<shared_chunk> refused = own.allocate(5000);
    CHECK(!refused && refused.error() == ZCP_ERR_TOO_LARGE && refused.error() != ZCP_OK && !refused.error().ok());
    CHECK(std::strcmp(refused.error().name(), "ZCP_ERR_TOO_LARGE") == 0);
    CHECK(std::strcmp(refused.error().message(), zcp_status_message(ZCP_ERR_TOO_LARGE)) == 0);
    CHECK(is_empty(refused.value()) && is_empty(*refused) && is_empty(std::move(refused).value()));
    CHECK(own.allocate(0).error().code() == ZCP_ERR_INVALID_SIZE);
    CHECK(own.pool_stats(2).error() == ZCP_ERR_INVALID_ARGUMENT && own.pool_stats(2)->total == 0);
    CHECK(manager::open_existing("no/name").error() == ZCP_ERR_INVALID_NAME
          && !manager::open_existing("no/name").value());

    result<shared_chunk> good = own.allocate(100), copy = good;
    CHECK(good && good.error().ok() && good.error() == ZCP_OK && good->use_count() == 2);
    shared_chunk other = own.allocate(5000).value_or(*good);
    CHECK(other == *good && other.use_count() == 3);
    CHECK(std::move(copy).value_or(shared_chunk()) == *good);      // moved out, and released after that line
    CHECK(is_empty(*copy) && other.use_count() == 2);

    // not the number of the status
    CHECK(fails_with(ZCP_ERR_FULL).error() == ZCP_ERR_FULL && !fails_with(ZCP_ERR_FULL));
    CHECK(fails_with(ZCP_ERR_FULL).value_or(7) == 7 && result<uint32_t>(3u).value_or(7) == 3);
    result<void> nothing = fails_with(ZCP_ERR_FULL);
    CHECK(!nothing && nothing.error() == ZCP_ERR_FULL && result<void>());
}

// ---------------------------------------------------------------------------------------------------------------------
// Managers

static void remembers_the_first_bad_pool() {
    zerocp::config pools = {{0, 1}, {64, 1, 3}};
    CHECK(pools.error() == ZCP_ERR_INVALID_SIZE);
    CHECK(pools.add({64, 1}).error() == ZCP_ERR_INVALID_SIZE && pools.get()->pools.size == 0);
    CHECK(manager::open(instance, pools).error() == ZCP_ERR_INVALID_SIZE);
    CHECK(zerocp::config().add({64, 1, 3}).error() == ZCP_ERR_INVALID_ALIGNMENT);
    zerocp::config good;
    CHECK(good.add({64, 1}).add(zerocp::pool_config(128, 2, 128, 4)).error().ok() && good.get()->pools.size == 2);
    zcp_pool_config second = good.get()->pools.items[1];
    CHECK(second.chunk_size == 128 && second.chunk_count == 2 && second.alignment == 128 && second.cache_chunks == 4);
}

static void opens_and_closes() {
    zcp_manager_desc desc = zcp_manager_desc();
    zerocp::config pools = {{64, 2}};
    desc.name = instance;
    desc.config = pools.get();
    desc.max_clients = 3;
    manager first = manager::open(desc).value();
    CHECK(first && first.pool_end() == 1 && first.get_info()->max_clients == 3 && first.check());
    CHECK(manager::open(instance, {{64, 3}}).error() == ZCP_ERR_CONFIG_MISMATCH);
    CHECK(first.format() == "Pool 0: chunk_size=64, total=2, used=0, free=2\n");
    zcp_recovery report = first.recover().value();
    CHECK(report.dead_clients == 0 && report.chunks_reclaimed == 0);

    manager second = manager::open_existing(instance, ZCP_READ_ONLY_DATA).value(),
            third = manager::open_existing(instance).value();
    CHECK(second.allocate(1).error() == ZCP_ERR_READ_ONLY);
    CHECK(manager::open_existing(instance).error() == ZCP_ERR_CLIENTS_FULL);
    third = std::move(second);                                     // closes what was the third
    CHECK(!second && third && third.get_info()->slot == 1 && manager::open_existing(instance));
    swap(second, third);
    CHECK(second && !third && second.get_info()->slot == 1);
    manager &same = second;
    second = std::move(same);
    CHECK(second && second.check());
    second.close();
    second.close();
    CHECK(!second && second.get() == nullptr);

    zcp_manager *raw = first.detach();
    CHECK(!first && zcp_manager_pool_end(raw) == 1);
    manager adopted(raw);
    CHECK(adopted.get() == raw && adopted.check());
    CHECK(adopted.destroy_this() && adopted.destroy_this().error() == ZCP_ERR_REPLACED && adopted.allocate(1));
    CHECK(manager::destroy_with(instance, ZCP_SHM_ANY_OWNER).error() == ZCP_ERR_NOT_FOUND);
    CHECK(manager::destroy_with(instance, ZCP_WAIT).error() == ZCP_ERR_INVALID_FLAGS);
}

static void answers_without_a_manager() {
    manager none;
    CHECK(none.allocate(1).error() == ZCP_ERR_INVALID_ARGUMENT && none.acquire(1).error() == ZCP_ERR_INVALID_ARGUMENT);
    CHECK(none.recover().error() == ZCP_ERR_INVALID_ARGUMENT && none.check().error() == ZCP_ERR_INVALID_ARGUMENT);
    CHECK(none.destroy_this().error() == ZCP_ERR_INVALID_ARGUMENT);
    CHECK(!none.get_info() && !none.pool_stats(0) && none.pool_end() == 0 && !none.format().empty());
    manager none_either = std::move(none);
    CHECK(!none_either && !none);
}

static void outlives_the_manager() {
    manager witness = open_pools(), own = open_pools();
    zcp_log_set_level(ZCP_LOG_OFF);
    {
        shared_chunk chunk = allocate(own), copy = chunk;
        CHECK(used(witness) == 1);
        own.close();
        CHECK(used(witness) == 0 && is_empty(chunk));
        shared_chunk late = chunk;
        CHECK(is_empty(late));
        own = open_pools();
        shared_chunk other = allocate(own);                        // likely the very same chunk
        copy.reset();
        copy = chunk;
        CHECK(is_empty(copy) && other.use_count() == 1);
    }
    CHECK(used(witness) == 0);
    zcp_log_set_level(ZCP_LOG_ERROR);
}

// The objects of the parent are destroyed in the child, too.
static void crosses_a_fork_harmlessly() {
    manager own = open_pools();
    shared_chunk chunk = allocate(own);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        {
            manager inherited = std::move(own);
            shared_chunk moved = std::move(chunk), copy = moved;
            CHECK(is_empty(moved) && is_empty(copy) && inherited.allocate(1).error() == ZCP_ERR_FORKED);
        }
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(chunk.use_count() == 1 && used(own) == 1 && own.check());
}

// ---------------------------------------------------------------------------------------------------------------------
// Exceptions: thrown where they are asked for, and passed by others without harm

// Topics: owners that clean up, the loop over messages, payloads as types.
struct point { uint32_t x, y; };

static void publishes_and_receives() {
    manager own = open_pools();
    result<zerocp::publisher> opened = own.publish_to("points", 4);
    CHECK(opened);
    zerocp::publisher publisher = std::move(*opened);
    zerocp::subscriber subscriber = std::move(*own.subscribe_to("points", true));
    CHECK(publisher && subscriber && !*opened);
    CHECK(subscriber.receive(0).error() == ZCP_ERR_EMPTY);
    shared_chunk kept;
    for (uint32_t n = 1; n <= 10; n++) {
        shared_chunk chunk = std::move(*publisher.loan(2 * sizeof(point)));
        CHECK(chunk);
        chunk.data<point>()[1] = point{n, 2 * n};
        result<zcp_delivery> delivery = publisher.publish(chunk);
        CHECK(delivery && delivery->number == n && delivery->subscribers == 1 && !chunk);
        result<zerocp::message> message = subscriber.receive();
        CHECK(message && message->number == n && message->size == sizeof(point) * 2 && !message->is_event());
        CHECK(message->data<point>(sizeof(point))->y == 2 * n && message->count<point>() == 2);
        CHECK(message->data<point>(sizeof(point) + 1) == nullptr && message->data<point>(2 * sizeof(point)) == nullptr);
        CHECK(message->data<point>(UINT64_MAX) == nullptr && message->end() - message->begin() == 16);
        if (n == 3)
            kept = std::move(*subscriber.keep());
    }
    CHECK(kept && kept.data<point>()[1].x == 3);
    subscriber.done();
    CHECK(subscriber.keep().error() == ZCP_ERR_EMPTY);
    shared_chunk stays = std::move(*publisher.loan(8));
    manager other = open_pools();
    zerocp::publisher elsewhere = std::move(*other.publish_to("elsewhere"));
    CHECK(elsewhere.publish(stays).error() == ZCP_ERR_INVALID_ARGUMENT && stays);       // it is still its own
    CHECK(stays.set_size(3) && stays.size() == 3);
    CHECK(publisher.notify());
    CHECK(publisher.publish(std::move(stays)));
    uint64_t count = 0;
    for (const zerocp::message &message : subscriber) {
        CHECK(message.is_event() == (++count == 1));
        if (count == 2)
            CHECK(own.interrupt(true));                            // the next one would be waited for
    }
    CHECK(count == 2 && subscriber.error() == ZCP_ERR_INTERRUPTED && own.interrupt(false));
    int publishers = 0;
    CHECK(own.topics([&publishers](const zcp_topic_entry &entry) {
        publishers += entry.publisher;
        return true;
    }) && publishers == 2);
    kept.reset();
    zerocp::publisher moved;
    moved = std::move(publisher);
    moved.close();
    CHECK(!moved && !publisher.notify());
    own.close();                                                   // before its subscriber
    CHECK(subscriber.receive(0).error() == ZCP_ERR_CLOSED);
    CHECK(zerocp::subscriber().receive(0).error() == ZCP_ERR_INVALID_ARGUMENT);
}

#ifdef EXCEPTIONS
static void throws_if_asked() {
    manager own = open_pools();
    shared_chunk chunk = own.allocate(100).value_or_throw();
    CHECK(chunk.use_count() == 1);
    result<shared_chunk> good = own.allocate(100);
    good.value_or_throw().data()[0] = 1;
    const result<shared_chunk> &constant = good;
    CHECK(constant.value_or_throw().use_count() == 1);
    own.check().value_or_throw();
    int caught = 0;
    try {
        own.allocate(5000).value_or_throw();
    } catch (const zerocp::error &e) {
        CHECK(e.code() == ZCP_ERR_TOO_LARGE
              && std::string(e.what()) == std::string("ZCP_ERR_TOO_LARGE: ") + zcp_last_message());
        CHECK(std::strstr(e.what(), "5000"));
        caught++;
    }
    try {
        manager::destroy("no/name").value_or_throw();
    } catch (const std::exception &e) {
        CHECK(std::strstr(e.what(), "ZCP_ERR_INVALID_NAME: ") == e.what());
        caught++;
    }
    std::thread([&caught] {                                        // a thread that knows no last message
        try {
            fails_with(ZCP_ERR_FULL).value_or_throw();
        } catch (const zerocp::error &e) {
            CHECK(std::string(e.what()) == std::string("ZCP_ERR_FULL: ") + zcp_status_message(ZCP_ERR_FULL));
            caught++;
        }
    }).join();
    CHECK(caught == 3);
}

static void unwinds() {
    manager own = open_pools();
    bool caught = false;
    try {
        shared_chunk chunk = allocate(own);
        std::vector<shared_chunk> copies(3, chunk);
        CHECK(chunk.use_count() == 4 && used(own) == 1);
        own.allocate(5000).value_or_throw();
    } catch (const zerocp::error &) {
        caught = true;
    }
    CHECK(caught && used(own) == 0);
}
#endif

// ---------------------------------------------------------------------------------------------------------------------

int main(int argc, char **argv) {
    typedef void scenario();
    static scenario *const scenarios[] = {
        adopts_and_counts, passes_by_value, assigns_to_itself, is_used_after_a_move, resets_and_detaches,
        compares, copies_what_is_not_held, lies_in_containers, is_shared_by_threads, shows_its_payload,
        checks_the_alignment,
        passes_a_token, answers_with_results, remembers_the_first_bad_pool, opens_and_closes, answers_without_a_manager,
        outlives_the_manager, crosses_a_fork_harmlessly, publishes_and_receives,
#ifdef EXCEPTIONS
        throws_if_asked, unwinds,
#endif
    };
    if (argc != 2)
        return 2;
    instance = argv[1];
    for (scenario *run : scenarios) {
        run();
        result<void> destroyed = manager::destroy(instance);
        CHECK(destroyed || destroyed.error() == ZCP_ERR_NOT_FOUND);        // some create none
    }
    return 0;
}
