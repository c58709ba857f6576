// camera_tokens.c: a camera pipeline without topics: tokens go through sockets, and the producer keeps each frame until
// all have acknowledged it. A producer and two consumers, each a process of its own, share a pool of 1080p frames. The
// producer writes each frame where it will be read; the consumers get 64 bits each, its token, and read it where it
// lies. So the frames' 6 MB are written once, read twice, and copied never.
//
//     producer                                   each consumer (maps the frames read-only)
//     zcp_chunk_allocate, write the frame
//             -------- MESSAGE_TOKEN -------->
//                                                zcp_chunk_acquire
//             <------ MESSAGE_ACQUIRED -------
//     zcp_chunk_release, once all have it
//                                                reads and verifies, zcp_chunk_release
//             <------ MESSAGE_RELEASED -------   with the number of bytes that it had to copy
//
// The producer runs ahead as far as the pool goes, and when no frame is free waits for the slower consumer. A consumer
// that is killed costs nothing but its own share: what it held comes back, and the other one goes on.
//
// The exit status is 0 if each consumer has verified each frame that was made, 1 if not, 2 if the options are wrong.
// The instance is removed at the end, also on Ctrl-C and SIGTERM; if the producer is killed, the consumers remove it.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "common.h"
#include "streams.h"
#include "transport.h"

#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WIDTH = 1920, HEIGHT = 1080, FRAME_BYTES = WIDTH * HEIGHT * 3, FRAME_WORDS = FRAME_BYTES / 8, CONSUMERS = 2,
       MAX_POOL = 64 };
_Static_assert(FRAME_BYTES % 8 == 0, "a frame is written and read in words");

static const char usage[] =
    "Usage: camera_tokens [OPTION]...\n"
    "Passes 1080p frames (1920x1080 RGB) from a producer to two consumers in shared memory, without a copy.\n"
    "\n"
    "  --frames N         how many frames (default: 300; 0: until Ctrl-C)\n"
    "  --pool N           how many of them the shared memory has room for, 2 to 64 (default: 8, that is 50 MB)\n"
    "  --name NAME        name of the instance (default: zerocp_camera_tokens_PID)\n"
    "  --period SECONDS   how often the rate is printed (default: 1)\n"
    "  --timeout SECONDS  how long the consumers may do nothing (default: 10)\n"
    "  --spoil FRAME      write one wrong byte into that frame, to see that the consumers notice\n"
    "  --help             print this, and end\n";

typedef struct options {
    const char *name;
    uint64_t frames, pool, spoil;
    unsigned period_ms, timeout_ms;
    // how the producer starts its consumers: their number, from 1, and their socket
    uint64_t consumer, link;
} options;

// ---------------------------------------------------------------------------------------------------------------------
// Pixels: another value in each word of each frame, so that nothing old, shifted or torn passes for right.

static inline uint64_t pixels(uint64_t frame, uint64_t word) {
    return (frame + 1) * UINT64_C(0x9e3779b97f4a7c15) + word * UINT64_C(0x0101010101010101);
}

static void draw(uint64_t *words, uint64_t frame) {
    for (uint64_t i = 0; i < FRAME_WORDS; i++)
        words[i] = pixels(frame, i);
}

static bool verify(const uint64_t *words, uint64_t frame) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < FRAME_WORDS; i++)
        wrong |= words[i] ^ pixels(frame, i);
    for (uint64_t i = 0; i < FRAME_WORDS && wrong != 0; i++)
        if (words[i] != pixels(frame, i))
            return fail("frame %" PRIu64 " is wrong at byte %" PRIu64 ": %016" PRIx64 ", expected: %016" PRIx64, frame,
                        8 * i, words[i], pixels(frame, i));
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// A consumer

// Reads one frame in its place, and tells how many bytes it had to copy for that: those that do not lie in the shared
// memory. Whether the producer got our messages does not matter: the next receive tells that it has ended.
static bool consume_frame(const zcp_manager_info *info, zcp_manager *manager, int link, uint64_t token,
                          uint64_t frame) {
    zcp_chunk chunk;
    zcp_status status = zcp_chunk_acquire(manager, token, &chunk);
    if (status != ZCP_OK)
        return fail_status("zcp_chunk_acquire", status);
    transport_send(link, MESSAGE_ACQUIRED, 0);                     // held: the producer may let go
    uintptr_t at = (uintptr_t)zcp_chunk_data(&chunk) - (uintptr_t)info->chunk_base;
    uint64_t copied = at <= info->chunk_bytes - FRAME_BYTES ? 0 : FRAME_BYTES;
    bool good = (zcp_chunk_size(&chunk) == FRAME_BYTES || fail("a frame of %" PRIu64 " bytes", zcp_chunk_size(&chunk)))
                && verify(chunk.data, frame);
    zcp_chunk_release(&chunk);
    if (good)
        transport_send(link, MESSAGE_RELEASED, copied);
    return good;
}

// If the producer was killed, nobody else removes what it has left. If the name leads to a newer instance, that is left
// alone.
static void remove_orphan(const options *o, zcp_manager *manager) {
    struct pollfd watched = {.fd = (int)o->link, .events = POLLRDHUP};
    if (poll(&watched, 1, 0) <= 0)
        return;
    fail("consumer %" PRIu64 ": the producer has ended", o->consumer);
    zcp_manager_destroy_this(manager);
}

static bool consume_all(const options *o, zcp_manager *manager) {
    zcp_manager_info info;
    message got = {0};
    uint64_t frame = 0;
    bool good = zcp_manager_get_info(manager, &info) == ZCP_OK;
    while (good && (good = transport_receive((int)o->link, &got)) && got.token != 0) {
        good = consume_frame(&info, manager, (int)o->link, got.token, frame);
        frame += good;
    }
    printf("Consumer %" PRIu64 " has verified %" PRIu64 " frames where they lay, %" PRIu64 " bytes\n", o->consumer,
           frame, frame * FRAME_BYTES);
    return good;
}

static bool consume(const options *o) {
    char client_name[32];
    zcp_manager *manager;
    snprintf(client_name, sizeof client_name, "consumer %" PRIu64, o->consumer);
    zcp_status status = zcp_manager_open(&manager, &(zcp_manager_desc){.name = o->name,
                                                                       .mode = ZCP_SHM_OPEN_EXISTING,
                                                                       .flags = ZCP_READ_ONLY_DATA,
                                                                       .client_name = client_name});
    if (status != ZCP_OK)
        return fail_status("zcp_manager_open", status);
    bool good = consume_all(o, manager);
    if (!good)
        remove_orphan(o, manager);
    zcp_manager_close(manager);
    return good;
}

// ---------------------------------------------------------------------------------------------------------------------
// The producer and its consumers

typedef struct consumer {
    pid_t pid;                                                     // 0: it has ended
    int link;                                                      // -1: it has ended
    uint64_t acquired, released, copied;                           // frames, frames, bytes
} consumer;

typedef struct camera {
    options options;
    zcp_manager *manager;
    bool created;
    consumer consumers[CONSUMERS];
    unsigned lost;                                                 // consumers that ended too early
    // those that not everybody has acquired yet: oldest to made - 1
    zcp_chunk frames[MAX_POOL];
    uint64_t oldest, made;
    uint64_t begun, told;                                          // ms
    uint64_t told_frames;
} camera;

static volatile sig_atomic_t stop;

static void on_stop(int signal_number) {
    stop = signal_number;
}

// Nothing waits for long without looking at `stop`. Nothing of zerocp may be called in a signal handler.
static void catch_signals(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_stop}, before;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)         // ignored: by nohup
            sigaction(signals[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);                                      // `camera_tokens | head`: clean up all the same
}

static bool create_instance(camera *c) {
    zcp_config config = {0};
    zcp_status status = zcp_config_add(
        &config,
        &(zcp_pool_config){.chunk_size = FRAME_BYTES, .chunk_count = (uint32_t)c->options.pool, .alignment = 4096});
    if (status != ZCP_OK)
        return fail_status("zcp_config_add", status);
    status = zcp_manager_open(&c->manager, &(zcp_manager_desc){.name = c->options.name,
                                                               .mode = ZCP_SHM_CREATE_EXCLUSIVE,
                                                               .config = &config,
                                                               .client_name = "producer"});
    if (status != ZCP_OK)
        return fail_status("zcp_manager_open", status);
    c->created = true;
    printf("Instance \"%s\": room for %" PRIu64 " frames of %dx%d RGB, %d bytes each\n", c->options.name,
           c->options.pool, WIDTH, HEIGHT, FRAME_BYTES);
    return true;
}

static bool start_consumer(camera *c, const char *self, int index) {
    char number[24], link[24];
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return fail("socketpair: %s", strerror(errno));
    snprintf(number, sizeof number, "%d", index + 1);
    snprintf(link, sizeof link, "%d", ends[1]);
    fflush(stdout);
    consumer *started = &c->consumers[index];
    pid_t pid = fork();
    if (pid == 0) {
        // Ctrl-C goes to all three: the producer tells us when it is over
        signal(SIGINT, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        fcntl(ends[1], F_SETFD, 0);
        execl(self, "camera_tokens", "--name", c->options.name, "--consumer", number, "--link", link, (char *)NULL);
        fail("%s: %s", self, strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    started->link = ends[0];
    if (pid < 0)
        return fail("fork: %s", strerror(errno));
    started->pid = pid;
    printf("Consumer %d starts (pid %ld)\n", index + 1, (long)pid);
    return true;
}

// Waits for a consumer that has, or soon will have, nothing left to do; one that does not end is killed.
static bool reap(consumer *one, unsigned timeout_ms) {
    int status;
    uint64_t deadline = now_ms() + timeout_ms;
    if (one->pid == 0)
        return false;
    while (waitpid(one->pid, &status, WNOHANG) == 0) {
        if (now_ms() >= deadline)
            kill(one->pid, SIGKILL);
        sleep_ms(1);
    }
    one->pid = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// A consumer has ended, however: what it held comes back, and whatever it did not acquire does not wait for it.
static void lose(camera *c, int index) {
    zcp_recovery report = {0};
    consumer *lost = &c->consumers[index];
    lost->link = transport_close(lost->link);
    reap(lost, 1000);
    c->lost++;
    // in general nobody has to call it: running out of frames does
    zcp_status status = zcp_manager_recover(c->manager, &report);
    if (status != ZCP_OK)
        fail_status("zcp_manager_recover", status);
    printf("Consumer %d has ended too early; %" PRIu64 " frames that only it held are free again\n", index + 1,
           report.chunks_reclaimed);
}

static int consumers_left(const camera *c) {
    int left = 0;
    for (int i = 0; i < CONSUMERS; i++)
        left += c->consumers[i].link >= 0;
    return left;
}

// Lets go of the frames that all have acquired. Each consumer acquires them in their order.
static void let_go(camera *c) {
    uint64_t all = c->made;
    for (int i = 0; i < CONSUMERS; i++)
        if (c->consumers[i].link >= 0 && c->consumers[i].acquired < all)
            all = c->consumers[i].acquired;
    for (; c->oldest < all; c->oldest++)
        zcp_chunk_release(&c->frames[c->oldest % MAX_POOL]);
}

// Takes what the consumers have sent, and waits for that up to so long. false: nothing has come.
static bool take_messages(camera *c, int milliseconds) {
    struct pollfd watched[CONSUMERS];
    message got;
    for (int i = 0; i < CONSUMERS; i++)
        watched[i] = (struct pollfd){.fd = c->consumers[i].link, .events = POLLIN};
    if (poll(watched, CONSUMERS, milliseconds) <= 0)
        return false;
    for (int i = 0; i < CONSUMERS; i++) {
        consumer *from = &c->consumers[i];
        if (watched[i].revents == 0)
            continue;
        if (!transport_receive(from->link, &got)) {
            lose(c, i);
        } else if (got.kind == MESSAGE_ACQUIRED) {
            from->acquired++;
        } else {
            from->released++;
            from->copied += got.token;
        }
    }
    let_go(c);
    return true;
}

static bool may_go_on(const camera *c) {
    return stop == 0 && consumers_left(c) > 0 && !ferror(stdout);
}

// Waits for messages. false: nothing has come for too long.
static bool await_messages(camera *c, uint64_t *deadline) {
    if (take_messages(c, 20))
        *deadline = now_ms() + c->options.timeout_ms;
    return now_ms() < *deadline || fail("no consumer has done anything for too long; is one stopped?");
}

// A free frame; if there is none, waits for one. Empty: it is time to stop.
static bool allocate_frame(camera *c, zcp_chunk *chunk) {
    uint64_t deadline = now_ms() + c->options.timeout_ms;
    zcp_status status;
    while ((status = zcp_chunk_allocate(c->manager, FRAME_BYTES, chunk)) == ZCP_ERR_EXHAUSTED && may_go_on(c))
        if (!await_messages(c, &deadline))
            return false;
    return status == ZCP_OK || status == ZCP_ERR_EXHAUSTED || fail_status("zcp_chunk_allocate", status);
}

static void tell_rate(camera *c) {
    uint64_t now = now_ms();
    if (now < c->told + c->options.period_ms)
        return;
    printf("Frame %" PRIu64 ": %.1f frames per second\n", c->made,
           (double)(c->made - c->told_frames) * 1000 / (double)(now - c->told));
    c->told = now;
    c->told_frames = c->made;
}

static bool make_frame(camera *c) {
    zcp_chunk chunk;
    if (!allocate_frame(c, &chunk))
        return false;
    if (chunk.manager == NULL)
        return true;
    draw(chunk.data, c->made);
    if (c->made == c->options.spoil)
        ((unsigned char *)chunk.data)[FRAME_BYTES / 2] ^= 1;
    uint64_t token = zcp_chunk_token(&chunk);
    c->frames[c->made++ % MAX_POOL] = zcp_chunk_move(&chunk);      // held until all have acquired it
    for (int i = 0; i < CONSUMERS; i++)
        if (c->consumers[i].link >= 0 && !transport_send(c->consumers[i].link, MESSAGE_TOKEN, token))
            lose(c, i);
    let_go(c);
    while (take_messages(c, 0)) {
    }
    tell_rate(c);
    return true;
}

// Until each consumer has given back each frame.
static bool await_all(camera *c) {
    uint64_t deadline = now_ms() + c->options.timeout_ms;
    for (int i = 0; i < CONSUMERS; i++)
        while (c->consumers[i].link >= 0 && c->consumers[i].released < c->made)
            if (!await_messages(c, &deadline))
                return false;
    return true;
}

static bool produce(camera *c) {
    c->begun = c->told = now_ms();
    while (may_go_on(c) && (c->options.frames == 0 || c->made < c->options.frames))
        if (!make_frame(c))
            return false;
    if (!await_all(c))
        return false;
    double seconds = (double)(now_ms() - c->begun + 1) / 1000;
    uint64_t copied = 0;
    if (stop != 0)
        printf("Stopping: %s\n", strsignal(stop));
    for (int i = 0; i < CONSUMERS; i++)
        copied += c->consumers[i].copied;
    printf("%" PRIu64 " frames in %.2f s: %.1f frames per second\nBytes copied: %" PRIu64 "\n", c->made, seconds,
           (double)c->made / seconds, copied);
    return (consumers_left(c) > 0 || fail("no consumer is left")) && copied == 0 && c->lost == 0;
}

// Ends the consumers and removes the instance, whatever has happened before.
static bool clean_up(camera *c) {
    zcp_pool_stats stats;
    bool good = true;
    for (int i = 0; i < CONSUMERS; i++) {
        if (c->consumers[i].link < 0)
            continue;
        transport_send(c->consumers[i].link, MESSAGE_TOKEN, 0);    // the end
        good = reap(&c->consumers[i], 1000) && good;
        c->consumers[i].link = transport_close(c->consumers[i].link);
    }
    for (; c->oldest < c->made; c->oldest++)
        zcp_chunk_release(&c->frames[c->oldest % MAX_POOL]);
    if (!c->created)
        return false;
    zcp_manager_recover(c->manager, NULL);                         // what a killed one held
    if (zcp_manager_pool_stats(c->manager, 0, &stats) != ZCP_OK || stats.used != 0)
        good = fail("%" PRIu64 " frames are still in use", stats.used);
    else
        printf("All %" PRIu64 " frames of the pool are free again\n", stats.free);
    zcp_status status = zcp_manager_destroy_this(c->manager);
    good = (status == ZCP_OK || fail_status("zcp_manager_destroy_this", status)) && good;
    zcp_manager_close(c->manager);
    return good;
}

static bool run(const options *o, const char *self) {
    camera c = {.options = *o, .consumers = {{.link = -1}, {.link = -1}}};
    catch_signals();
    bool good = create_instance(&c);
    for (int i = 0; i < CONSUMERS && good; i++)
        good = start_consumer(&c, self, i);
    good = good && produce(&c);
    return clean_up(&c) && good;
}

// ---------------------------------------------------------------------------------------------------------------------
// Options. Returns -1 to go on, else the exit status.

static bool parse_number(const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return (end != text && *end == 0 && errno == 0 && *text != '-' && *number >= least && *number <= most) ||
           fail("--%s %s: a number from %" PRIu64 " to %" PRIu64 " is expected", option, text, least, most);
}

static int parse_options(options *o, int argc, char **argv) {
    static const struct option known[] = {
        {"frames", required_argument, NULL, 'f'},
        {"pool", required_argument, NULL, 'p'},
        {"name", required_argument, NULL, 'n'},
        {"period", required_argument, NULL, 'e'},
        {"timeout", required_argument, NULL, 't'},
        {"spoil", required_argument, NULL, 's'},
        {"consumer", required_argument, NULL, 'c'},
        {"link", required_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (option == 'n')
            o->name = optarg;
        else if ((option != 'f' || !parse_number("frames", optarg, 0, UINT32_MAX, &o->frames)) &&
                 (option != 'p' || !parse_number("pool", optarg, 2, MAX_POOL, &o->pool)) &&
                 (option != 'e' || !parse_seconds("period", optarg, 0.01, &o->period_ms)) &&
                 (option != 't' || !parse_seconds("timeout", optarg, 0.1, &o->timeout_ms)) &&
                 (option != 's' || !parse_number("spoil", optarg, 0, UINT32_MAX, &o->spoil)) &&
                 (option != 'c' || !parse_number("consumer", optarg, 1, CONSUMERS, &o->consumer)) &&
                 (option != 'l' || !parse_number("link", optarg, 3, INT32_MAX, &o->link)))
            return fputs("Try --help.\n", stderr), 2;              // getopt has said what is wrong with an unknown one
    }
    if (optind < argc)
        return fail("unexpected argument \"%s\"; try --help", argv[optind]), 2;
    return -1;
}

int main(int argc, char **argv) {
    char own_name[48];
    options o = {
        .name = own_name, .frames = 300, .pool = 8, .spoil = UINT64_MAX, .period_ms = 1000, .timeout_ms = 10000};
    open_standard_streams();
    snprintf(own_name, sizeof own_name, "zerocp_camera_tokens_%ld", (long)getpid());
    int status = parse_options(&o, argc, argv);
    if (status >= 0)
        return status;
    // line by line, also into a pipe: three processes write
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stderr, NULL, _IOLBF, 0);
    bool good = o.consumer != 0 ? consume(&o) : run(&o, strchr(argv[0], '/') != NULL ? argv[0] : "/proc/self/exe");
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
