// events.c: a program with a loop of its own. epoll waits for the frames of a camera (camera.c), for clients of a
// socket, for a timer and for Ctrl-C, all in one place: a topic is one descriptor among others. The same goes for poll,
// libuv and asyncio.
//
// It counts frames, prints the count each second, and tells it to everybody who connects to its socket.
//
// The exit status is 0 if it was ended by the producer or by Ctrl-C, 1 after a failure, 2 if the options are wrong.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "camera.h"
#include "common.h"
#include "streams.h"
#include "transport.h"

#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static const char usage[] =
    "Usage: events [--name NAME] [--period SECONDS]\n"
    "Counts the frames of `camera produce`, and tells the count each second and to who connects to the socket NAME.\n";

typedef struct monitor {
    zcp_subscriber *frames;
    int epoll, topic, listener, timer, signals;                    // descriptors
    camera_progress progress;
    bool end;
} monitor;

// The descriptor was readable: takes all that is there. Only EMPTY arms it again.
static bool take_frames(monitor *m) {
    zcp_message frame;
    zcp_status status;
    while ((status = zcp_subscriber_receive(m->frames, 0, &frame)) == ZCP_OK) {
        if (!camera_follows(&m->progress, &frame, false))
            return fail("message %" PRIu64 " does not follow", frame.number);
        m->end = m->end || frame.data == NULL;                     // the producer has ended
    }
    return status == ZCP_ERR_EMPTY || fail_status("zcp_subscriber_receive", status);
}

static bool answer(const monitor *m) {
    int connection = transport_accept(m->listener);
    if (connection >= 0)
        transport_send(connection, MESSAGE_WELCOME, m->progress.frames);       // it may have gone: that is its affair
    transport_close(connection);
    return true;
}

static bool print_count(const monitor *m) {
    uint64_t ticks;
    if (read(m->timer, &ticks, sizeof ticks) == sizeof ticks)
        printf("%" PRIu64 " frames of %" PRIu64 " producers, %" PRIu64 " lost\n", m->progress.frames,
               m->progress.producers, m->progress.lost);
    return !ferror(stdout);
}

static bool watch(const monitor *m, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(m->epoll, EPOLL_CTL_ADD, fd, &event) == 0 || fail("epoll_ctl: %s", strerror(errno));
}

static bool run_loop(monitor *m) {
    struct epoll_event events[8];
    bool good = true;
    while (good && !m->end) {
        int ready = epoll_wait(m->epoll, events, 8, -1);
        for (int i = 0; i < ready && good; i++) {
            int fd = events[i].data.fd;
            m->end = m->end || fd == m->signals;
            good = fd == m->topic ? take_frames(m) : fd == m->listener ? answer(m) : fd != m->timer || print_count(m);
        }
    }
    printf("Counted %" PRIu64 " frames\n", m->progress.frames);
    return good;
}

static bool open_descriptors(monitor *m, const char *name, unsigned period_ms) {
    struct timespec period = {.tv_sec = (time_t)(period_ms / 1000), .tv_nsec = (long)(period_ms % 1000) * 1000000};
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);                           // they come as data
    m->topic = zcp_subscriber_descriptor(m->frames);
    if (m->topic < 0)
        return fail("zcp_subscriber_descriptor: %s", zcp_last_message());
    m->listener = transport_listen(name);
    m->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    m->signals = signalfd(-1, &stop, SFD_CLOEXEC);
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (m->listener < 0 || m->timer < 0 || m->signals < 0 || m->epoll < 0 ||
        timerfd_settime(m->timer, 0, &(struct itimerspec){period, period}, NULL) != 0)
        return fail("opening a descriptor: %s", strerror(errno));
    return watch(m, m->topic) && watch(m, m->listener) && watch(m, m->timer) && watch(m, m->signals);
}

static bool run(const char *name, unsigned period_ms) {
    monitor m = {.end = false};
    zcp_manager *manager;
    zcp_status status = zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .mode = ZCP_SHM_OPEN_EXISTING,
                                                                       .flags = ZCP_WAIT | ZCP_READ_ONLY_DATA});
    if (status == ZCP_OK)
        status = zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = CAMERA_FRAMES}, &m.frames);
    bool good = (status == ZCP_OK || fail_status("opening the topic", status)) && open_descriptors(&m, name, period_ms)
                && run_loop(&m);
    zcp_manager_close(manager);                                    // and with it the subscriber and its descriptor
    return good;
}

int main(int argc, char **argv) {
    static const struct option known[] = {{"name", required_argument, NULL, 'n'},
                                          {"period", required_argument, NULL, 'p'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const char *name = CAMERA_NAME;
    unsigned period_ms = 1000;
    open_standard_streams();
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (option == 'n')
            name = optarg;
        else if (option != 'p' || !parse_seconds("period", optarg, 0.01, &period_ms))
            return fputs("Try --help.\n", stderr), 2;              // getopt has said what is wrong with an unknown one
    }
    if (optind < argc)
        return fail("unexpected argument \"%s\"; try --help", argv[optind]), 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool good = run(name, period_ms);
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
