// growth.cpp: growing, waiting and watching through namespace zerocp. tests/cpp_test.c compiles and runs it, with
// exceptions and without. Argument: a name for the instance.
#include "check.h"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <vector>

static manager open_pools() {
    result<manager> opened = manager::open(instance, {{256, 4}, {4096, 4}});
    CHECK(opened);
    return std::move(*opened);
}

static void adds_and_retires_pools() {
    manager own = open_pools();
    result<uint32_t> added = own.add_pool({512, 3, 512});
    CHECK(added && *added == 2 && own.pool_end() == 3);
    shared_chunk chunk = own.allocate(500).value();
    CHECK(chunk.capacity() == 512 && own.pool_stats(2)->used == 1 && own.get_config()->pools.size == 3);
    CHECK(own.retire_pool(*added) && own.retire_pool(*added).error() == ZCP_ERR_NOT_FOUND);
    CHECK(own.retire_pool(ZCP_MAX_LIVE_POOLS).error() == ZCP_ERR_INVALID_ARGUMENT);
    CHECK(chunk.use_count() == 1 && own.get_config()->pools.size == 2 && own.allocate(500).value().capacity() == 4096);
    CHECK(own.add_pool({0, 1}).error() == ZCP_ERR_INVALID_SIZE);

    CHECK(own.reconfigure({{256, 4}, {0, 1}}).error() == ZCP_ERR_INVALID_SIZE && own.get_config()->pools.size == 2);
    CHECK(own.reconfigure({{64, 5}}));
    result<zcp_config> live = own.get_config();
    CHECK(live && live->pools.size == 1 && live->pools.items[0].chunk_size == 64
          && live->pools.items[0].chunk_count == 5);
    CHECK(chunk && own.allocate(100).error() == ZCP_ERR_TOO_LARGE);
    CHECK(manager().add_pool({64, 1}).error() == ZCP_ERR_INVALID_ARGUMENT && !manager().get_config());
}

static void waits() {
    manager own = open_pools();
    std::vector<shared_chunk> all;
    for (int i = 0; i < 4; i++)
        all.push_back(own.allocate_wait(200, 1000).value());
    CHECK(all.back().size() == 200 && own.pool_stats(0)->free == 0);
    CHECK(own.allocate_wait(200, 0).error() == ZCP_ERR_EXHAUSTED);
    CHECK(own.allocate_wait(200, 20).error() == ZCP_ERR_TIMEOUT);
    CHECK(own.allocate_with({200, 1, 0}).error() == ZCP_ERR_EXHAUSTED);
    CHECK(own.allocate_with({200, 1, 20}).error() == ZCP_ERR_TIMEOUT);
    all.pop_back();
    CHECK(own.allocate_wait(200, 10000));
    CHECK(own.allocate_with({200, 5, 10000})->tag() == 5);
}

static void tags_and_watches() {
    manager own = open_pools();
    shared_chunk tagged = own.allocate_tagged(100, 0xcafe).value(), copy = tagged, plain = own.allocate(100).value();
    CHECK(tagged.size() == 100 && tagged.tag() == 0xcafe && copy.tag() == 0xcafe && plain.tag() == 0
          && shared_chunk().tag() == 0);
    CHECK(tagged.set_tag(0xbeef) && copy.tag() == 0xbeef && plain.set_tag(0)
          && shared_chunk().set_tag(1).error() == ZCP_ERR_STALE);
    shared_chunk again = own.chunk_of(tagged.data() + 99).value();
    CHECK(again == tagged && again.use_count() == 3 && own.chunk_of(&again).error() == ZCP_ERR_NOT_FOUND
          && !own.chunk_of(nullptr) && manager().chunk_of(tagged.data()).error() == ZCP_ERR_INVALID_ARGUMENT);
    again.reset();
    shared_chunk several[40], none[70];
    CHECK(own.allocate_bulk(100, several, 1) && several[0] && own.allocate_bulk(100, several, 1));
    CHECK(own.allocate_bulk(100, none, 70).error() == ZCP_ERR_EXHAUSTED && !none[0] && !none[69]);
    shared_chunk::release_bulk(several, 40);
    CHECK(!several[0]);
    result<zcp_client_stats> mine = own.client_stats(own.get_info()->slot);
    CHECK(mine && mine->state == ZCP_CLIENT_ALIVE && mine->owned == 2 && mine->borrowed == 0 && mine->bytes == 512);
    CHECK(own.client_stats(9999).error() == ZCP_ERR_INVALID_ARGUMENT && own.client_stats(9999)->owned == 0);
}

static int calls;

static bool count(const zcp_census_entry &) {
    calls++;
    return true;
}

static void takes_a_census() {
    manager own = open_pools();
    shared_chunk tagged = own.allocate_tagged(100, 7).value(), other = own.allocate(3000).value();
    std::vector<zcp_census_entry> entries;
    uint64_t token = tagged.token();
    CHECK(own.census([&entries](const zcp_census_entry &entry) {
        entries.push_back(entry);
        return true;
    }) && entries.size() == 2);
    CHECK(entries[0].token == token && entries[1].token == 0);
    CHECK(entries[0].tag == 7 && entries[0].size == 100 && entries[1].size == 3000);

    int seen = 0;
    CHECK(own.census([seen](const zcp_census_entry &) mutable { return ++seen < 1; }) && seen == 0);
    std::function<bool(const zcp_census_entry &)> stops = [&seen](const zcp_census_entry &) { seen++; return false; };
    const std::function<bool(const zcp_census_entry &)> constant = stops;
    CHECK(own.census(stops) && seen == 1 && own.census(constant) && seen == 2);
    CHECK(own.census(count) && own.census(&count) && calls == 4);

    struct counter {
        int calls;
        bool operator()(const zcp_census_entry &) { return ++calls > 0; }
    } kept = {0};
    CHECK(own.census(kept) && kept.calls == 2);                    // the object itself, not a copy
    CHECK(manager().census(kept).error() == ZCP_ERR_INVALID_ARGUMENT && kept.calls == 2);
#ifdef EXCEPTIONS
    seen = 0;
    bool caught = false;
    try {
        (void)own.census([&](const zcp_census_entry &) -> bool { seen++; throw std::out_of_range("enough"); });
    } catch (const std::out_of_range &) {
        caught = true;
    }
    CHECK(caught && seen == 1 && own.census(count) && calls == 6);
#endif
}

int main(int argc, char **argv) {
    typedef void scenario();
    static scenario *const scenarios[] = {adds_and_retires_pools, waits, tags_and_watches, takes_a_census};
    if (argc != 2)
        return 2;
    instance = argv[1];
    for (scenario *run : scenarios) {
        run();
        CHECK(manager::destroy(instance));
    }
    return 0;
}
