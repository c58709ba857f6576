// camera.c: a camera pipeline on topics. Each role is a process of its own. Start them in any order, as many consumers
// as you like, and kill whichever you like:
//
//     camera produce            draws frames in shared memory and publishes them; nothing is ever copied
//     camera view               shows each frame where it lies; one that is too slow loses some, and is told how many
//     camera record FILE        gets every frame, because it is reliable: the producer waits for it
//     consumer                  (consumer.cpp) the same two in C++
//
// The producer knows none of them. Nobody waits for a consumer that was killed, and what it held comes back. When a
// producer was killed, what it had published arrives, and the next one goes on in the same instance. A consumer that
// comes late still gets the calibration, which the producer keeps for it.
//
// The exit status is 0 if all was as it should be, 1 if not, 2 if the options are wrong. A producer that ends by itself
// or on Ctrl-C ends its consumers, and removes the instance. One that is killed leaves it to its successor.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "camera.h"
#include "common.h"
#include "streams.h"

#include <getopt.h>
#include <signal.h>
#include <sys/random.h>

static const char usage[] =
    "Usage: camera produce|view|record [OPTION]... [FILE]\n"
    "Passes frames from a producer to any number of consumers in shared memory, without a copy.\n"
    "\n"
    "  --name NAME       name of the instance (default: " CAMERA_NAME ")\n"
    "  --frames N        end after so many frames (default: 0, never)\n"
    "producer:\n"
    "  --rate N          frames per second (default: 30; 0: as many as possible)\n"
    "  --size WxH        pixels of a frame, W a multiple of 8 (default: 1920x1080)\n"
    "  --depth N         how many frames a view may be behind (default: 4)\n"
    "  --pool N          how many frames the shared memory has room for (default: 16)\n"
    "  --patience MS     how long a recording may take before frames are dropped for all (default: 1000)\n"
    "consumers:\n"
    "  --latest          skip to the newest frame\n"
    "  --work MS         how long it takes to look at a frame (default: 0)\n"
    "  --help            print this, and end\n";

typedef struct options {
    const char *role, *file, *name;
    uint64_t frames, rate, depth, pool, patience, work;
    uint32_t width, height;
    bool latest;
} options;

// ---------------------------------------------------------------------------------------------------------------------
// Ctrl-C: whoever waits in zerocp comes back with ZCP_ERR_INTERRUPTED. It is all that a signal handler may call.

static zcp_manager *manager;
static volatile sig_atomic_t stop;

static void on_stop(int signal_number) {
    stop = signal_number;
    zcp_manager_interrupt(manager, true);
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

// ---------------------------------------------------------------------------------------------------------------------
// The producer

static bool create_instance(const options *o) {
    uint64_t bytes = sizeof(camera_frame) + camera_pixel_bytes(o->width, o->height);
    zcp_config config = {0};
    zcp_status status = zcp_config_add_pool(&config, sizeof(camera_calibration), 64);
    if (status == ZCP_OK)
        status = zcp_config_add_pool(&config, bytes, (uint32_t)o->pool);
    if (status == ZCP_OK)
        status = zcp_manager_open(&manager, &(zcp_manager_desc){.name = o->name, .config = &config,
                                                                .client_name = "producer"});
    return status == ZCP_OK || fail_status("zcp_manager_open", status);
}

// One message, which stays for those who subscribe later.
static bool publish_calibration(zcp_publisher **publisher, camera_calibration *calibration) {
    zcp_chunk chunk = {0};
    zcp_status status = zcp_publisher_open(
        manager, &(zcp_publisher_desc){.topic = CAMERA_CALIBRATION, .depth = 1, .keep = 1, .exclusive = true},
        publisher);
    if (status == ZCP_OK)
        status = zcp_publisher_loan(*publisher, sizeof *calibration, &chunk);
    if (status != ZCP_OK)
        return fail_status("publishing the calibration", status);
    if (getrandom(calibration, sizeof *calibration, 0) != (ssize_t)sizeof *calibration)
        return fail("getrandom: %s", strerror(errno));
    memcpy(chunk.data, calibration, sizeof *calibration);
    status = zcp_publisher_publish(*publisher, &chunk, NULL);
    return status == ZCP_OK || fail_status("zcp_publisher_publish", status);
}

static void draw(camera_frame *frame, const options *o, const camera_calibration *calibration, uint64_t number) {
    uint64_t *words = (uint64_t *)(void *)(frame + 1), count = camera_pixel_bytes(o->width, o->height) / 8;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *frame = (camera_frame){.producer = calibration->producer, .number = number, .width = o->width, .height = o->height,
                            .time = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec};
    for (uint64_t i = 0; i < count; i++)
        words[i] = camera_pixels(calibration->black, number, i);
}

static zcp_status publish_frame(zcp_publisher *frames, const options *o, const camera_calibration *calibration,
                                uint64_t number) {
    zcp_chunk chunk;
    uint64_t bytes = sizeof(camera_frame) + camera_pixel_bytes(o->width, o->height);
    zcp_status status = zcp_publisher_loan(frames, bytes, &chunk);
    if (status != ZCP_OK)
        return status;
    draw(chunk.data, o, calibration, number);
    status = zcp_publisher_publish(frames, &chunk, NULL);
    zcp_chunk_release(&chunk);                                     // nothing, if it was published
    return status;
}

static bool produce_frames(const options *o, zcp_publisher *frames, const camera_calibration *calibration) {
    uint64_t number = 0, dropped = 0;
    while (stop == 0 && (o->frames == 0 || number < o->frames)) {
        zcp_status status = publish_frame(frames, o, calibration, number + 1);
        if (status == ZCP_OK) {
            number++;
        } else if (status == ZCP_ERR_EXHAUSTED || status == ZCP_ERR_TIMEOUT) {
            if (dropped++ == 0)
                fail_status("a frame is dropped", status);         // the message names who is late
        } else if (status != ZCP_ERR_INTERRUPTED) {
            return fail_status("publishing a frame", status);
        }
        if (o->rate != 0 || status == ZCP_ERR_EXHAUSTED)
            usleep(o->rate != 0 ? (useconds_t)(1000000 / o->rate) : 1000);
    }
    printf("Published %" PRIu64 " frames, dropped %" PRIu64 "\n", number, dropped);
    zcp_manager_interrupt(manager, false);
    zcp_status status = ZCP_ERR_TIMEOUT;
    for (int i = 0; i < 10 && status == ZCP_ERR_TIMEOUT; i++)      // a recording may be late
        status = zcp_publisher_notify(frames, NULL);               // the end
    return status == ZCP_OK || fail_status("zcp_publisher_notify", status);
}

static bool produce(const options *o) {
    zcp_publisher *calibrations, *frames;
    camera_calibration calibration;
    catch_signals();
    if (!create_instance(o) || !publish_calibration(&calibrations, &calibration))
        return false;
    zcp_status status = zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = CAMERA_FRAMES,
                                                                          .depth = (uint32_t)o->depth,
                                                                          .timeout_ms = (uint32_t)o->patience,
                                                                          .exclusive = true}, &frames);
    if (status != ZCP_OK)
        return fail_status("zcp_publisher_open", status);
    bool good = produce_frames(o, frames, &calibration);
    status = zcp_manager_destroy_this(manager);                    // those who have it open read to the end
    return (status == ZCP_OK || fail_status("zcp_manager_destroy_this", status)) && good;
}

// ---------------------------------------------------------------------------------------------------------------------
// The consumers

static bool receive_calibration(zcp_subscriber *calibrations, uint64_t producer, camera_calibration *calibration) {
    zcp_message message;
    while (calibration->producer != producer) {
        zcp_status status = zcp_subscriber_receive(calibrations, 0, &message);
        if (status != ZCP_OK)
            return fail_status("no calibration of a frame's producer", status);
        if (message.size != sizeof *calibration)
            return fail("a calibration of %" PRIu64 " bytes", message.size);
        memcpy(calibration, message.data, sizeof *calibration);
    }
    return true;
}

static bool consume_frame(const options *o, const zcp_message *message, zcp_subscriber *calibrations,
                          camera_calibration *calibration, FILE *file) {
    const camera_frame *frame = message->data;                     // in place
    if (message->size < sizeof *frame)
        return fail("a frame of %" PRIu64 " bytes", message->size);
    if (!receive_calibration(calibrations, frame->producer, calibration))
        return false;
    sleep_ms((unsigned)o->work);
    if (!camera_verify(frame, message->size, message->number, calibration))
        return fail("frame %" PRIu64 " is wrong", message->number);
    return file == NULL || fwrite(frame, (size_t)message->size, 1, file) == 1 ||
           fail("%s: %s", o->file, strerror(errno));
}

static bool consume_frames(const options *o, zcp_subscriber *calibrations, zcp_subscriber *frames, FILE *file) {
    camera_calibration calibration = {0};
    camera_progress progress = {0};
    zcp_message message;
    zcp_status status = ZCP_OK;
    bool good = true, reliable = file != NULL;
    while (good && stop == 0 && (o->frames == 0 || progress.frames < o->frames) &&
           (status = zcp_subscriber_receive(frames, UINT32_MAX, &message)) == ZCP_OK) {
        good = camera_follows(&progress, &message, reliable) ||
               fail("message %" PRIu64 " does not follow", message.number);
        if (message.data == NULL)
            break;                                                 // the producer has ended
        good = good && consume_frame(o, &message, calibrations, &calibration, file);
    }
    if (status != ZCP_OK && status != ZCP_ERR_INTERRUPTED)
        good = fail_status("zcp_subscriber_receive", status);
    printf("Read %" PRIu64 " frames of %" PRIu64 " producers, %" PRIu64 " lost, %" PRIu64 " skipped\n", progress.frames,
           progress.producers, progress.lost, progress.skipped);
    return good;
}

static bool consume(const options *o, FILE *file) {
    zcp_subscriber *calibrations, *frames;
    zcp_status status = zcp_manager_open(&manager, &(zcp_manager_desc){.name = o->name, .mode = ZCP_SHM_OPEN_EXISTING,
                                                                       .flags = ZCP_WAIT | ZCP_READ_ONLY_DATA,
                                                                       .client_name = o->role});
    if (status != ZCP_OK)
        return fail_status("zcp_manager_open", status);
    catch_signals();                                               // until now there is nothing to clean up
    // The calibration first: so there is one for each frame that comes.
    status = zcp_subscriber_open(
        manager, &(zcp_subscriber_desc){.topic = CAMERA_CALIBRATION, .reliable = true, .history = 1}, &calibrations);
    if (status == ZCP_OK)
        status = zcp_subscriber_open(
            manager, &(zcp_subscriber_desc){.topic = CAMERA_FRAMES, .reliable = file != NULL, .latest = o->latest},
            &frames);
    if (status != ZCP_OK)
        return fail_status("zcp_subscriber_open", status);
    return consume_frames(o, calibrations, frames, file);
}

static bool record(const options *o) {
    FILE *file = fopen(o->file, "ab");
    if (file == NULL)
        return fail("%s: %s", o->file, strerror(errno));
    bool good = consume(o, file);
    return (fclose(file) == 0 || fail("%s: %s", o->file, strerror(errno))) && good;
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

static bool parse_size(const char *text, options *o) {
    char more;
    return (sscanf(text, "%5" SCNu32 "x%5" SCNu32 "%c", &o->width, &o->height, &more) == 2 && o->width % 8 == 0 &&
            o->width != 0 && o->height != 0) ||
           fail("--size %s: WIDTHxHEIGHT is expected, up to 5 digits each, the width a multiple of 8", text);
}

static bool parse_option(options *o, int option) {
    switch (option) {
    case 'n': o->name = optarg; return true;
    case 'f': return parse_number("frames", optarg, 0, UINT32_MAX, &o->frames);
    case 'r': return parse_number("rate", optarg, 0, 1000000, &o->rate);
    case 's': return parse_size(optarg, o);
    case 'd': return parse_number("depth", optarg, 1, ZCP_DEFAULT_RING_CELLS, &o->depth);
    case 'p': return parse_number("pool", optarg, 1, ZCP_MAX_CHUNKS, &o->pool);
    case 't': return parse_number("patience", optarg, 0, UINT32_MAX, &o->patience);
    case 'l': return o->latest = true;
    case 'w': return parse_number("work", optarg, 0, 3600000, &o->work);
    default: return false;                                         // getopt has said what is wrong
    }
}

static int parse_options(options *o, int argc, char **argv) {
    static const struct option known[] = {
        {"name", required_argument, NULL, 'n'}, {"frames", required_argument, NULL, 'f'},
        {"rate", required_argument, NULL, 'r'}, {"size", required_argument, NULL, 's'},
        {"depth", required_argument, NULL, 'd'}, {"pool", required_argument, NULL, 'p'},
        {"patience", required_argument, NULL, 't'}, {"latest", no_argument, NULL, 'l'},
        {"work", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (!parse_option(o, option))
            return fputs("Try --help.\n", stderr), 2;
    }
    int words = argc - optind;
    o->role = words > 0 ? argv[optind] : "";
    o->file = words > 1 ? argv[optind + 1] : NULL;
    bool recording = strcmp(o->role, "record") == 0;
    if ((!recording && strcmp(o->role, "produce") != 0 && strcmp(o->role, "view") != 0) || words != 1 + recording ||
        (recording && o->latest))
        return fputs("camera: produce, view, or record FILE (not with --latest) is expected; try --help\n", stderr), 2;
    return -1;
}

int main(int argc, char **argv) {
    options o = {.name = CAMERA_NAME, .rate = 30, .width = 1920, .height = 1080, .depth = 4, .pool = 16,
                 .patience = 1000};
    open_standard_streams();
    int status = parse_options(&o, argc, argv);
    if (status >= 0)
        return status;
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool good = *o.role == 'p' ? produce(&o) : *o.role == 'v' ? consume(&o, NULL) : record(&o);
    zcp_manager_close(manager);                                    // and with it publishers and subscribers
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
