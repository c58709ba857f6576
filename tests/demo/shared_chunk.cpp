// shared_chunk.cpp: a producer and a consumer in C++. The producer writes frames into chunks and sends their tokens
// through a socket; the consumer reads them in place and acknowledges. Neither releases anything by hand: a
// zerocp::shared_chunk does that when it goes out of scope, out of its container, or when an exception passes.
//
// Both check what they see. The exit status is 0 if all was as expected, 1 if not, 2 if the options are wrong. This
// file is linked to the implementation, which is C: see the Makefile.
#include "zerocp.h"

#include "streams.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>

#include <cerrno>
#include <cinttypes>
#include <getopt.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

const char usage[] =
    "Usage: shared_chunk [OPTION]...\n"
    "Passes frames from a producer to a consumer, without a copy.\n"
    "\n"
    "  --name NAME     name of the instance (default: zerocp_shared_chunk_PID)\n"
    "  --frames N      how many frames (default: 1000)\n"
    "  --help          print this, and end\n";

const std::size_t in_flight_at_most = 4;
const uint32_t chunks = in_flight_at_most + 2;                     // and two that the consumer alone still holds

struct frame {
    uint32_t number;
    uint32_t samples[1023];
};

// ---------------------------------------------------------------------------------------------------------------------
// A socket that carries tokens

class connection {
public:
    explicit connection(int socket_fd) : socket_(socket_fd) {}
    connection(const connection &) = delete;
    connection &operator=(const connection &) = delete;
    ~connection() { close(socket_); }

    void send(uint64_t token) {
        if (::send(socket_, &token, sizeof token, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof token))
            throw std::system_error(errno, std::generic_category(), "sending a token");
    }

    // False: the other side sends no more.
    bool receive(uint64_t &token) {
        ssize_t bytes = recv(socket_, &token, sizeof token, 0);
        if (bytes != 0 && bytes != static_cast<ssize_t>(sizeof token))
            throw std::system_error(errno, std::generic_category(), "receiving a token");
        return bytes > 0;
    }

    void send_no_more() { shutdown(socket_, SHUT_WR); }

private:
    int socket_;
};

// ---------------------------------------------------------------------------------------------------------------------
// The consumer: opens the instance itself, because a manager does not cross fork

void consume(const std::string &name, int socket_fd) {
    zerocp::manager manager = zerocp::manager::open_existing(name.c_str(), ZCP_WAIT).value_or_throw();
    connection producer(socket_fd);
    zerocp::shared_chunk last;
    uint64_t token;
    uint32_t received = 0;
    while (producer.receive(token)) {
        zerocp::shared_chunk chunk = manager.acquire(token).value_or_throw();
        producer.send(token);                                      // the producer may let go: we hold it now
        const frame *seen = chunk.data<const frame>();
        if (!seen || seen->number != received)
            throw std::runtime_error("frame " + std::to_string(received) + " is not the one that was expected");
        if (std::count(std::begin(seen->samples), std::end(seen->samples), received) != 1023)
            throw std::runtime_error("frame " + std::to_string(received) + " is not as it was written");
        if (last && last.data<const frame>()->number + 1 != received)
            throw std::runtime_error("the frame before " + std::to_string(received) + " was changed while it was held");
        last = chunk;                                              // a second handle, until the next frame comes
        received++;
    }
    std::printf("consumer | received %" PRIu32 " frames, each as it was written\n", received);
}

// ---------------------------------------------------------------------------------------------------------------------
// The producer

void acknowledged(connection &consumer, std::deque<zerocp::shared_chunk> &in_flight) {
    uint64_t token;
    if (!consumer.receive(token))
        throw std::runtime_error("the consumer has ended");
    if (token != in_flight.front().token())
        throw std::runtime_error("the consumer acknowledged what was not sent to it");
    in_flight.pop_front();                                         // which releases the chunk
}

void produce(const std::string &name, int socket_fd, uint32_t frames) {
    connection consumer(socket_fd);
    zerocp::manager manager = zerocp::manager::open(name.c_str(), {{sizeof(frame), chunks}}).value_or_throw();
    std::deque<zerocp::shared_chunk> in_flight;
    for (uint32_t number = 0; number < frames; number++) {
        if (in_flight.size() == in_flight_at_most)
            acknowledged(consumer, in_flight);
        zerocp::shared_chunk chunk = manager.allocate(sizeof(frame)).value_or_throw();
        frame *written = chunk.data<frame>();
        written->number = number;
        std::fill(std::begin(written->samples), std::end(written->samples), number);
        consumer.send(chunk.token());
        in_flight.push_back(std::move(chunk));                     // held until the consumer holds it
    }
    while (!in_flight.empty())
        acknowledged(consumer, in_flight);
    std::printf("producer | sent %" PRIu32 " frames, copied none\n", frames);
    std::fflush(stdout);
    consumer.send_no_more();
}

// ---------------------------------------------------------------------------------------------------------------------
// Both

void look_and_destroy(const std::string &name) {
    zerocp::manager manager = zerocp::manager::open_existing(name.c_str()).value_or_throw();
    zerocp::manager::destroy(name.c_str()).value_or_throw();
    zcp_pool_stats stats = manager.pool_stats(0).value_or_throw();
    std::printf("%s", manager.format().c_str());
    if (stats.free != chunks)
        throw std::runtime_error("a chunk was left behind");
}

template <class F> int guarded(const char *who, F function) {
    try {
        function();
        return std::fflush(stdout) == 0 ? 0 : 1;
    } catch (const std::exception &e) {                            // a zerocp::error among them
        std::fprintf(stderr, "%s: %s\n", who, e.what());
        return 1;
    }
}

int run(const std::string &name, uint32_t frames) {
    int ends[2], status = 1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        std::perror("shared_chunk: socketpair");
        return 1;
    }
    pid_t child = fork();
    if (child < 0) {
        std::perror("shared_chunk: fork");
        return 1;
    }
    close(ends[child == 0 ? 0 : 1]);
    if (child == 0)
        return guarded("consumer", [&] { consume(name, ends[1]); });
    int failed = guarded("producer", [&] { produce(name, ends[0], frames); });
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    failed |= guarded("shared_chunk", [&] { look_and_destroy(name); });
    return failed != 0 || status != 0;
}

} // namespace

int main(int argc, char **argv) {
    static const option options[] = {
        {"name", required_argument, nullptr, 'n'},
        {"frames", required_argument, nullptr, 'f'},
        {"help", no_argument, nullptr, 'h'},
        {nullptr, 0, nullptr, 0},
    };
    open_standard_streams();
    std::string name = "zerocp_shared_chunk_" + std::to_string(getpid());
    unsigned long frames = 1000;
    for (int option; (option = getopt_long(argc, argv, "", options, nullptr)) != -1;) {
        char *end = optarg;
        if (option == 'h')
            return std::fputs(usage, stdout) < 0 || std::fflush(stdout) != 0;
        if (option == 'n')
            name = optarg;
        if (option == 'f')
            frames = std::strtoul(optarg, &end, 10);
        if (option == '?' || (option == 'f' && (*optarg < '0' || *optarg > '9' || *end != 0 || frames > 1000000000)))
            return std::fputs("Try --help; up to 1000000000 frames.\n", stderr), 2;
    }
    if (optind < argc)
        return std::fprintf(stderr, "shared_chunk: unexpected argument \"%s\"; try --help\n", argv[optind]), 2;
    return run(name, static_cast<uint32_t>(frames));
}
