// bench/peers/iceoryx_topics.cpp: iceoryx' publisher and subscriber, with its daemon, which is started here: a process
// with pools for these messages. The publisher waits for slow subscribers.
#include "../messenger.h"

#include "iceoryx_hoofs/log/logmanager.hpp"
#include "iceoryx_posh/iceoryx_posh_config.hpp"
#include "iceoryx_posh/internal/roudi/roudi.hpp"
#include "iceoryx_posh/popo/untyped_publisher.hpp"
#include "iceoryx_posh/popo/untyped_subscriber.hpp"
#include "iceoryx_posh/popo/wait_set.hpp"
#include "iceoryx_posh/roudi/iceoryx_roudi_components.hpp"
#include "iceoryx_posh/runtime/posh_runtime.hpp"
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <new>
#include <unistd.h>

static bench_host *host;

namespace {

struct carry_channel {
    channel_spec spec;
    std::unique_ptr<iox::popo::UntypedPublisher> publisher;
    std::unique_ptr<iox::popo::UntypedSubscriber> subscriber;
    std::unique_ptr<iox::popo::WaitSet<>> waiting;
    void *loaned;
    const void *taken;
};

pid_t daemon_pid;
int channels_open, runtimes;

void be_quiet() {
    iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kOff,
                                                             iox::log::LogLevelOutput::kHideLogLevel);
}

// Chunks for what is on its way in one channel, and the last one of each publisher.
void daemon_pools(iox::RouDiConfig_t &config) {
    iox::mepoo::MePooConfig pools;
    pools.addMemPool({128, 512});
    pools.addMemPool({512, 512});
    pools.addMemPool({4096 + 256, 256});
    pools.addMemPool({65536 + 256, 256});
    pools.addMemPool({(1 << 20) + 256, 48});
    pools.addMemPool({(8 << 20) + 256, 16});
    const iox::posix::PosixGroup group = iox::posix::PosixGroup::getGroupOfCurrentProcess();
    config.m_sharedMemorySegments.push_back({group.getName(), group.getName(), pools});
}

[[noreturn]] void daemon_run(int ready) {
    sigset_t ending;
    int number;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);   // it tells much, whatever its level
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    be_quiet();
    iox::RouDiConfig_t config;
    daemon_pools(config);
    {
        iox::roudi::IceOryxRouDiComponents components(config);
        iox::roudi::RouDi::RoudiStartupParameters parameters(iox::roudi::MonitoringMode::OFF, false);
        iox::roudi::RouDi roudi(components.rouDiMemoryManager, components.portManager, parameters);
        if (write(ready, "", 1) == 1)
            sigwait(&ending, &number);
    }
    _exit(0);
}

bool daemon_start() {
    int ready[2];
    char byte;
    if (pipe(ready) != 0)
        return false;
    daemon_pid = host->fork();
    if (daemon_pid == 0)
        daemon_run(ready[1]);
    close(ready[1]);
    const bool good = read(ready[0], &byte, 1) == 1;               // not where another one runs already
    close(ready[0]);
    return good;
}

void *carry_create(const channel_spec *spec) {
    static const bool started = daemon_start();
    if (!started)
        return NULL;
    carry_channel *channel = new carry_channel();
    channel->spec = *spec;
    channels_open++;
    return channel;
}

void carry_join(void *memory, int role) {
    carry_channel *channel = static_cast<carry_channel *>(memory);
    char name[32];
    if (runtimes++ == 0) {
        be_quiet();
        snprintf(name, sizeof name, "zcp-bench-%d", static_cast<int>(getpid()));
        iox::runtime::PoshRuntime::initRuntime(iox::RuntimeName_t(iox::cxx::TruncateToCapacity, name, strlen(name)));
    }
    snprintf(name, sizeof name, "%u", channel->spec.number);
    const iox::capro::IdString_t number(iox::cxx::TruncateToCapacity, name, strlen(name));
    const iox::capro::ServiceDescription service("zcp-bench", number, "topic");
    if (role == 0) {
        iox::popo::PublisherOptions options;
        options.subscriberTooSlowPolicy = iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
        channel->publisher.reset(new iox::popo::UntypedPublisher(service, options));
        return;
    }
    iox::popo::SubscriberOptions options;
    options.queueCapacity = channel->spec.window;
    options.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
    channel->subscriber.reset(new iox::popo::UntypedSubscriber(service, options));
    if (channel->spec.sleeps) {
        channel->waiting.reset(new iox::popo::WaitSet<>());
        channel->waiting->attachState(*channel->subscriber, iox::popo::SubscriberState::HAS_DATA)
            .or_else([](auto) { host->die("iceoryx: no wait set"); });
    }
}

void carry_leave(void *memory, int) {
    carry_channel *channel = static_cast<carry_channel *>(memory);
    if (channel->loaned)
        channel->publisher->release(channel->loaned);
    channel->waiting.reset();
    channel->subscriber.reset();
    channel->publisher.reset();
}

void carry_destroy(void *memory) {
    delete static_cast<carry_channel *>(memory);
    if (--channels_open == 0) {
        kill(daemon_pid, SIGTERM);
        host->wait(daemon_pid);
    }
}

inline size_t carry_bytes(const carry_channel *channel) { return channel->spec.bytes; }

inline void *carry_loan(carry_channel *channel) {
    if (!channel->loaned)
        channel->publisher->loan(static_cast<uint32_t>(channel->spec.bytes))
            .and_then([channel](void *&data) { channel->loaned = data; })
            .or_else([](auto &) { host->die("iceoryx: no chunk is free"); });
    return channel->loaned;
}

inline bool carry_send(carry_channel *channel) {
    channel->publisher->publish(channel->loaned);
    channel->loaned = NULL;
    return true;
}

inline const void *carry_poll(carry_channel *channel) {
    channel->taken = NULL;
    channel->subscriber->take().and_then([channel](const void *&data) { channel->taken = data; });
    return channel->taken;
}

inline const void *carry_wait(carry_channel *channel) {
    channel->waiting->timedWait(iox::units::Duration::fromMilliseconds(20));
    return carry_poll(channel);
}

inline void carry_done(carry_channel *channel) { channel->subscriber->release(channel->taken); }

#define LOOP(x) carry_##x
#define channel_type carry_channel
#define carry_host host
#define carry_name "iceoryx"
#include "../topic_loops.h"

const messenger carrier = {
    "iceoryx", "iceoryx' untyped publisher and subscriber, with its daemon", carry_create, carry_join,
    carry_leave, carry_destroy, LOOP_TABLE};

} // namespace

EXPORT_MESSENGER(carrier, host)
