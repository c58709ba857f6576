// consumer.cpp: a consumer of the camera pipeline (camera.c) in C++. It reads each frame where it lies, and releases
// nothing by hand. The messages are described in camera.h.
//
// The exit status is 0 if all was as it should be, 1 if not, 2 if the options are wrong. This file is linked to the
// implementation, which is C: see the Makefile.
#include "zerocp.h"

#include "camera.h"
#include "streams.h"

#include <chrono>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include <getopt.h>

namespace {

const char usage[] =
    "Usage: consumer [OPTION]...\n"
    "Reads the frames of `camera produce`.\n"
    "\n"
    "  --name NAME     name of the instance (default: " CAMERA_NAME ")\n"
    "  --frames N      end after so many frames (default: 0, never)\n"
    "  --reliable      get each frame: the producer waits for this consumer\n"
    "  --work MS       how long it takes to look at a frame (default: 0)\n"
    "  --help          print this, and end\n";

struct options {
    std::string name = CAMERA_NAME;
    unsigned long frames = 0, work = 0;
    bool reliable = false;
};

// Ctrl-C: receive comes back with ZCP_ERR_INTERRUPTED. It is all that a signal handler may call.
zcp_manager *interrupted;

extern "C" void on_stop(int) {
    zcp_manager_interrupt(interrupted, true);
}

class consumer {
public:
    consumer(zerocp::manager &manager, const options &o)
        : calibrations_(subscribe(manager, CAMERA_CALIBRATION, true, 1)),  // first: so there is one for each frame
          frames_(subscribe(manager, CAMERA_FRAMES, o.reliable, 0)), options_(o) {}

    void run() {
        for (const zerocp::message &message : frames_) {
            if (!camera_follows(&progress_, &message, options_.reliable))
                throw std::runtime_error("message " + std::to_string(message.number) + " does not follow");
            if (message.is_event())
                break;                                             // the producer has ended
            look_at(message);
            if (progress_.frames == options_.frames)
                break;
        }
        zerocp::status why = frames_.error();
        if (!why.ok() && why != ZCP_ERR_INTERRUPTED)
            throw std::runtime_error(why.message());
        std::printf("Read %" PRIu64 " frames of %" PRIu64 " producers, %" PRIu64 " lost, %" PRIu64 " skipped\n",
                    progress_.frames, progress_.producers, progress_.lost, progress_.skipped);
    }

private:
    static zerocp::subscriber subscribe(zerocp::manager &manager, const char *topic, bool reliable, uint32_t history) {
        zcp_subscriber_desc desc = zcp_subscriber_desc();
        desc.topic = topic;
        desc.reliable = reliable;
        desc.history = history;
        return manager.subscribe_to(desc).value_or_throw();
    }

    void look_at(const zerocp::message &message) {
        const camera_frame *frame = message.data<camera_frame>();  // in place; NULL if the message is too short
        while (frame && frame->producer != calibration_.producer) {
            zerocp::message calibration = calibrations_.receive(0).value_or_throw();
            if (!calibration.data<camera_calibration>())
                throw std::runtime_error("a calibration is too short");
            calibration_ = *calibration.data<camera_calibration>();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(options_.work));
        if (!frame || !camera_verify(frame, message.size, message.number, &calibration_))
            throw std::runtime_error("frame " + std::to_string(message.number) + " is wrong");
    }

    zerocp::subscriber calibrations_, frames_;
    const options &options_;
    camera_calibration calibration_ = camera_calibration();
    camera_progress progress_ = camera_progress();
};

int run(const options &o) {
    try {
        zerocp::manager manager =
            zerocp::manager::open_existing(o.name.c_str(), ZCP_WAIT | ZCP_READ_ONLY_DATA).value_or_throw();
        interrupted = manager.get();
        consumer all(manager, o);
        std::signal(SIGINT, on_stop);
        std::signal(SIGTERM, on_stop);
        all.run();
        return std::fflush(stdout) != 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "consumer: %s\n", error.what());
        return 1;
    }
}

bool parse_number(const char *text, unsigned long &number) {
    char *end;
    number = std::strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == 0 && number <= 3600000;
}

bool parse_option(options &o, int option) {
    switch (option) {
    case 'n': o.name = optarg; return true;
    case 'f': return parse_number(optarg, o.frames);
    case 'r': return o.reliable = true;
    case 'w': return parse_number(optarg, o.work);
    default: return false;
    }
}

} // namespace

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"name", required_argument, nullptr, 'n'}, {"frames", required_argument, nullptr, 'f'},
        {"reliable", no_argument, nullptr, 'r'}, {"work", required_argument, nullptr, 'w'},
        {"help", no_argument, nullptr, 'h'}, {nullptr, 0, nullptr, 0},
    };
    options o;
    open_standard_streams();
    for (int option; (option = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
        if (option == 'h')
            return std::fputs(usage, stdout) < 0 || std::fflush(stdout) != 0;
        if (!parse_option(o, option))
            return std::fputs("Try --help; numbers up to 3600000.\n", stderr), 2;
    }
    if (optind < argc)
        return std::fprintf(stderr, "consumer: unexpected argument \"%s\"; try --help\n", argv[optind]), 2;
    return run(o);
}
