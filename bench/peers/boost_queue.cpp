// bench/peers/boost_queue.cpp: Boost.Interprocess' message queue, one to each subscriber: a copy in, and a copy out.
#include "../messenger.h"

#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace bi = boost::interprocess;

static bench_host *host;

namespace {

struct carry_channel {
    channel_spec spec;
    std::vector<std::string> names;
    std::vector<std::unique_ptr<bi::message_queue>> queues;        // of this process: those that it uses
    std::vector<uint64_t> mine;                                    // where a message is made or read
    size_t sent;                                                   // to so many subscribers
};

void *carry_create(const channel_spec *spec) {
    carry_channel *channel = new carry_channel();
    channel->spec = *spec;
    channel->mine.resize(spec->bytes / 8);
    for (int k = 0; k < spec->subscribers; k++) {
        char word[24];
        snprintf(word, sizeof word, "queue%u-%d", spec->number, k);
        channel->names.push_back(host->name(word));
        bi::message_queue queue(bi::create_only, channel->names.back().c_str(), spec->window, spec->bytes);
    }
    return channel;
}

void carry_join(void *memory, int role) {
    carry_channel *channel = static_cast<carry_channel *>(memory);
    for (size_t k = 0; k < channel->names.size(); k++)
        if (role == 0 || k + 1 == static_cast<size_t>(role))
            channel->queues.emplace_back(new bi::message_queue(bi::open_only, channel->names[k].c_str()));
}

void carry_leave(void *memory, int) {
    static_cast<carry_channel *>(memory)->queues.clear();
}

void carry_destroy(void *memory) {
    carry_channel *channel = static_cast<carry_channel *>(memory);
    for (const std::string &name : channel->names)
        bi::message_queue::remove(name.c_str());
    delete channel;
}

inline size_t carry_bytes(const carry_channel *channel) { return channel->spec.bytes; }
inline void *carry_loan(carry_channel *channel) { return channel->mine.data(); }

inline bool carry_send(carry_channel *channel) {
    for (; channel->sent < channel->queues.size(); channel->sent++)
        if (!channel->queues[channel->sent]->try_send(channel->mine.data(), channel->spec.bytes, 0))
            return false;
    channel->sent = 0;
    return true;
}

inline const void *carry_wait(carry_channel *channel) {
    bi::message_queue &queue = *channel->queues[0];
    bi::message_queue::size_type size;
    unsigned priority;
    if (queue.try_receive(channel->mine.data(), channel->spec.bytes, size, priority))
        return channel->mine.data();
    const boost::posix_time::ptime limit =
        boost::posix_time::microsec_clock::universal_time() + boost::posix_time::milliseconds(20);
    return queue.timed_receive(channel->mine.data(), channel->spec.bytes, size, priority, limit)
               ? channel->mine.data() : NULL;
}

inline void carry_done(carry_channel *) {}

#define LOOP(x) carry_##x
#define LOOP_SLEEPS
#define channel_type carry_channel
#define carry_host host
#define carry_name "boost-queue"
#include "../topic_loops.h"

const messenger carrier = {
    "boost-queue", "Boost.Interprocess, a message queue to each subscriber", carry_create, carry_join,
    carry_leave, carry_destroy, LOOP_TABLE};

} // namespace

EXPORT_MESSENGER(carrier, host)
