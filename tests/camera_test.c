// tests/camera_test.c: runs the camera pipeline on topics of tests/demo (camera.c, consumer.cpp) and the program that
// watches it (events.c); kills, stops, interrupts and misuses them. The runner checks that nothing is left in /dev/shm,
// and no process. tests/pipeline_test.c kills them at random.
#include "harness/chunks.h"
#include "harness/programs.h"

#include "demo/camera.h"
#include "demo/transport.h"

enum { WIDTH = 16, HEIGHT = 4, FRAME_BYTES = 32 + WIDTH * HEIGHT * 3, POOL = 20, FRAMES = 50 };

#define SIZE "--size", "16x4", "--pool", "20"
#define FOREVER "4294967295"

static program producer, consumers[4];
static zcp_manager *manager;                                       // the test's own

// ---------------------------------------------------------------------------------------------------------------------
// Who takes part

// As the producer does it, so that consumers can come before it.
static void create_camera(void) {
    zcp_config config = {0};
    CHECK_OK(zcp_config_add_pool(&config, sizeof(camera_calibration), 64));
    CHECK_OK(zcp_config_add_pool(&config, FRAME_BYTES, POOL));
    manager = create_named(test_instance(), &config, 0);
}

#define START_PRODUCER(...) START(&producer, "camera", "produce", "--name", test_instance(), SIZE, __VA_ARGS__)
#define START_CAMERA(i, ...) START(&consumers[i], "camera", "--name", test_instance(), __VA_ARGS__)
#define START_CXX(i, ...) START(&consumers[i], "consumer", "--name", test_instance(), __VA_ARGS__)

static bool has_cxx(void) {
    char path[PATH_MAX];
    build_path(path, sizeof path, "demo/consumer");
    return access(path, X_OK) == 0;
}

static bool count_subscriber(const zcp_topic_entry *entry, void *user) {
    *(uint32_t *)user += !entry->publisher && strcmp(entry->topic, CAMERA_FRAMES) == 0;
    return true;
}

// Until so many have subscribed. Whoever opens after them takes the lock that all take who open: so none of them has it
// any more, and they may be stopped.
static void await_subscribers(uint32_t expected) {
    zcp_subscriber *subscriber;
    for (uint32_t count = 0; count != expected; usleep(1000)) {
        count = 0;
        CHECK_OK(zcp_manager_topics(manager, count_subscriber, &count));
    }
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = "elsewhere"}, &subscriber));
    zcp_subscriber_close(subscriber);
}

// Frames that the test gets, from now on.
static void await_frames(int count) {
    zcp_subscriber *subscriber;
    zcp_message frame;
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = CAMERA_FRAMES}, &subscriber));
    for (int i = 0; i < count; i++)
        CHECK_OK(zcp_subscriber_receive(subscriber, UINT32_MAX, &frame));
    zcp_subscriber_close(subscriber);
}

static void attach_to_camera(void) {
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING,
                                                            .flags = ZCP_WAIT, .timeout_ms = 60000}));
}

static uint64_t number_before(const program *run, const char *word) {
    const char *at = strstr(run->text, word);
    CHECK_MSG(at != NULL, "\"%s\" is not in: %s", word, run->text);
    while (at > run->text && at[-1] != ' ')
        at--;
    return strtoull(at, NULL, 10);
}

// The producer removes the names when it ends; the test has it open until then, and looks what is left.
static void finish_camera(void) {
    (void)recover(manager);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(manager);
    must_be_gone(test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// As it should go

static void check_recording(const char *path) {
    static unsigned char bytes[FRAME_BYTES * (FRAMES + 1)];
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK_EQ(fread(bytes, 1, sizeof bytes, file), FRAME_BYTES * FRAMES);
    fclose(file);
    camera_frame first;
    memcpy(&first, bytes, sizeof first);
    for (uint64_t n = 1; n <= FRAMES; n++) {
        uint64_t words[FRAME_BYTES / 8];
        memcpy(words, bytes + (n - 1) * FRAME_BYTES, FRAME_BYTES);
        camera_calibration is = {first.producer, words[4] - camera_pixels(0, n, 0)};
        CHECK(camera_verify((const camera_frame *)(const void *)words, FRAME_BYTES, n, &is));
    }
}

// Whoever is reliable reads every frame; the others are told exactly what they did not read.
TEST(camera_each_frame) {
    char path[] = "/tmp/zcp-camera-XXXXXX";
    int file = mkstemp(path), count = has_cxx() ? 4 : 2;
    CHECK(file >= 0);
    close(file);
    create_camera();
    START_CAMERA(0, "record", path);
    START_CAMERA(1, "view");
    if (count == 4) {
        START_CXX(2, "--reliable");
        START_CXX(3, "--work", "1");
    }
    await_subscribers((uint32_t)count);
    START_PRODUCER("--rate", "0", "--frames", "50", "--patience", FOREVER);
    must_end(&producer, 0);
    must_be(&producer, "Published 50 frames, dropped 0\n");
    for (int i = 0; i < count; i++) {
        must_end(&consumers[i], 0);
        CHECK_EQ(number_before(&consumers[i], " frames") + number_before(&consumers[i], " lost"), FRAMES);
        if (i % 2 == 0)
            must_be(&consumers[i], "Read 50 frames of 1 producers, 0 lost, 0 skipped\n");
    }
    check_recording(path);
    unlink(path);
    finish_camera();
}

// The calibration was published long ago, and is kept.
TEST(camera_late_consumer) {
    START_PRODUCER("--rate", "1000");
    attach_to_camera();
    await_frames(20);
    START_CAMERA(0, "view", "--frames", "5");
    must_end(&consumers[0], 0);
    must_say(&consumers[0], "Read 5 frames of 1 producers, ");
    if (has_cxx()) {
        START_CXX(1, "--frames", "5");
        must_end(&consumers[1], 0);
        must_say(&consumers[1], "Read 5 frames of 1 producers, ");
    }
    must_end_on(&producer, SIGTERM, 0);
    finish_camera();
}

TEST(camera_interrupted) {
    for (int i = 0; i < 2; i++) {
        START_PRODUCER("--rate", "100", "--patience", FOREVER);
        START_CAMERA(0, "view");
        START_CAMERA(1, "record", "/dev/null");
        attach_to_camera();
        await_subscribers(2);
        await_frames(1);
        must_end_on(&consumers[0], i == 0 ? SIGINT : SIGTERM, 0);
        must_say(&consumers[0], "Read ");
        must_end_on(&producer, i == 0 ? SIGINT : SIGTERM, 0);
        must_say(&producer, ", dropped 0\n");
        must_end(&consumers[1], 0);                                // the producer has told it
        must_say(&consumers[1], " 0 lost, ");
        finish_camera();
    }
}

// It waits for frames, and none come.
TEST(camera_consumer_interrupted_without_producer) {
    create_camera();
    START_CAMERA(0, "view");
    if (has_cxx())
        START_CXX(1, "--reliable");
    await_subscribers(has_cxx() ? 2 : 1);
    for (int i = 0; i < (has_cxx() ? 2 : 1); i++) {
        while (kill(consumers[i].pid, SIGINT) == 0 && take(&consumers[i], 100)) {      // it may not have begun to wait
        }
        must_end(&consumers[i], 0);
        must_be(&consumers[i], "Read 0 frames of 0 producers, 0 lost, 0 skipped\n");
    }
    finish(manager);
}

// ---------------------------------------------------------------------------------------------------------------------
// Slow, stopped, killed

TEST(camera_view_is_stopped) {
    create_camera();
    START_CAMERA(0, "view");
    await_subscribers(1);
    test_stop(consumers[0].pid);
    START_PRODUCER("--rate", "0", "--frames", "50", "--depth", "4");
    must_end(&producer, 0);                                        // it waits for nobody
    must_be(&producer, "Published 50 frames, dropped 0\n");
    test_resume(consumers[0].pid);
    must_end(&consumers[0], 0);
    must_be(&consumers[0], "Read 3 frames of 1 producers, 47 lost, 0 skipped\n");      // the fourth says the end
    finish_camera();
}

TEST(camera_latest) {
    create_camera();
    START_CAMERA(0, "view", "--latest");
    await_subscribers(1);
    test_stop(consumers[0].pid);
    START_PRODUCER("--rate", "100", "--depth", "8", "--frames", "20");
    must_end(&producer, 0);
    test_resume(consumers[0].pid);
    must_end(&consumers[0], 0);
    must_be(&consumers[0], "Read 0 frames of 1 producers, 13 lost, 7 skipped\n");
    finish_camera();
}

// A recorder that stands still holds up the camera for as long as it is told, and then costs frames.
TEST(camera_recorder_is_stopped) {
    create_camera();
    START_CAMERA(0, "record", "/dev/null");
    await_subscribers(1);
    test_stop(consumers[0].pid);
    START_PRODUCER("--rate", "0", "--frames", "10", "--depth", "4", "--patience", "1000");
    await_text(&producer, "camera: a frame is dropped: ZCP_ERR_TIMEOUT: ");
    must_say(&producer, text_of("%ld", (long)consumers[0].pid));
    test_resume(consumers[0].pid);
    must_end(&producer, 0);
    must_say(&producer, "Published 10 frames, dropped ");
    must_end(&consumers[0], 0);
    must_be(&consumers[0], "Read 10 frames of 1 producers, 0 lost, 0 skipped\n");
    finish_camera();
}

TEST(camera_recorder_is_killed) {
    create_camera();
    START_CAMERA(0, "record", "/dev/null");
    await_subscribers(1);
    test_stop(consumers[0].pid);
    START_PRODUCER("--rate", "0", "--frames", "50", "--patience", FOREVER);
    test_kill(consumers[0].pid);
    must_end(&producer, 0);
    must_be(&producer, "Published 50 frames, dropped 0\n");
    finish_camera();
}

// What it had published arrives, and its successor goes on in the same instance.
TEST(camera_producer_is_killed) {
    create_camera();
    START_CAMERA(0, "record", "/dev/null");
    START_CAMERA(1, "view");
    await_subscribers(2);
    for (int i = 0; i < 3; i++) {
        START_PRODUCER("--rate", "0", "--patience", FOREVER);
        await_frames(10);
        test_kill(producer.pid);
    }
    START_PRODUCER("--rate", "0", "--frames", "10", "--patience", FOREVER);
    must_end(&producer, 0);
    must_end(&consumers[0], 0);
    must_say(&consumers[0], " of 4 producers, 0 lost, 0 skipped\n");
    must_end(&consumers[1], 0);
    must_say(&consumers[1], " of 4 producers, ");
    finish_camera();
}

// ---------------------------------------------------------------------------------------------------------------------
// Misused

TEST(camera_second_producer) {
    START_PRODUCER("--rate", "100");
    attach_to_camera();
    await_frames(1);
    START(&consumers[0], "camera", "produce", "--name", test_instance(), SIZE);
    must_end(&consumers[0], 1);
    must_say(&consumers[0], "camera: publishing the calibration: ZCP_ERR_EXISTS: ");
    must_end_on(&producer, SIGTERM, 0);
    finish_camera();
}

// A frame that is not what it says.
static void publish_wrong_frame(zcp_publisher *publisher, unsigned wrong_bit) {
    zcp_chunk chunk;
    CHECK_OK(zcp_publisher_loan(publisher, FRAME_BYTES, &chunk));
    uint64_t *words = chunk.data;
    *(camera_frame *)chunk.data = (camera_frame){.producer = 7, .number = 1, .width = WIDTH, .height = HEIGHT};
    for (uint64_t i = 0; i < WIDTH * HEIGHT * 3 / 8; i++)
        words[4 + i] = camera_pixels(8, 1, i);
    words[wrong_bit / 64] ^= UINT64_C(1) << wrong_bit % 64;
    CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
}

TEST(camera_wrong_frame) {
    // number, width, the first and the last byte of the pixels
    static const unsigned bits[] = {64, 195, 256, FRAME_BYTES * 8 - 1};
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        zcp_publisher *calibrations, *frames;
        zcp_chunk chunk;
        int count = has_cxx() ? 2 : 1;
        create_camera();
        START_CAMERA(0, "view");
        if (count == 2)
            START_CXX(1, "--reliable");
        await_subscribers((uint32_t)count);
        CHECK_OK(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = CAMERA_CALIBRATION}, &calibrations));
        CHECK_OK(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = CAMERA_FRAMES}, &frames));
        CHECK_OK(zcp_publisher_loan(calibrations, sizeof(camera_calibration), &chunk));
        *(camera_calibration *)chunk.data = (camera_calibration){7, 8};
        CHECK_OK(zcp_publisher_publish(calibrations, &chunk, NULL));
        publish_wrong_frame(frames, bits[i]);
        for (int c = 0; c < count; c++) {
            must_end(&consumers[c], 1);
            must_say(&consumers[c], ": frame 1 is wrong\n");
        }
        zcp_publisher_close(frames);
        zcp_publisher_close(calibrations);
        finish(manager);
    }
}

static void must_refuse(const char *name, const char *option, const char *argument, const char *complaint) {
    START(&consumers[0], name, option, argument);
    must_end(&consumers[0], 2);
    must_say(&consumers[0], complaint);
}

TEST(camera_options) {
    START(&consumers[0], "camera", "--help");
    must_end(&consumers[0], 0);
    must_say(&consumers[0], "Usage: camera produce|view|record [OPTION]... [FILE]\n");
    must_refuse("camera", "--bogus", NULL, "\nTry --help.\n");
    must_refuse("camera", NULL, NULL, "camera: produce, view, or record FILE (not with --latest) is expected; ");
    must_refuse("camera", "watch", NULL, "camera: produce, view, or record FILE ");
    must_refuse("camera", "record", NULL, "camera: produce, view, or record FILE ");
    must_refuse("camera", "view", "file", "camera: produce, view, or record FILE ");
    must_refuse("camera", "--frames", "-1", "camera: --frames -1: a number from 0 to 4294967295 is expected\n");
    must_refuse("camera", "--depth", "65", "camera: --depth 65: a number from 1 to 64 is expected\n");
    must_refuse("camera", "--size", "9x4", "camera: --size 9x4: WIDTHxHEIGHT is expected");
    must_refuse("camera", "--size", "8x4x", "camera: --size 8x4x: WIDTHxHEIGHT is expected");
    must_refuse("camera", "--size", "0x4", "camera: --size 0x4: WIDTHxHEIGHT is expected");
    must_refuse("events", "word", NULL, "events: unexpected argument \"word\"; try --help\n");
    must_refuse("events", "--period", "0", "events: --period 0: a number of seconds");
    if (!has_cxx())
        return;
    must_refuse("consumer", "--work", "1x", "\n");
    must_refuse("consumer", "word", NULL, "consumer: unexpected argument \"word\"; try --help\n");
}

// ---------------------------------------------------------------------------------------------------------------------
// events.c

static uint64_t ask_events(void) {
    int connection;
    message received;
    while ((connection = transport_connect(test_instance())) < 0)
        usleep(1000);
    CHECK(transport_receive(connection, &received));
    CHECK_EQ(received.kind, MESSAGE_WELCOME);
    close(connection);
    return received.token;
}

// Frames, clients and the timer, all of them while the others go on.
TEST(camera_events) {
    create_camera();
    START(&consumers[0], "events", "--name", test_instance(), "--period", "0.02");
    await_subscribers(1);
    CHECK_EQ(ask_events(), 0);
    await_text(&consumers[0], "0 frames of 0 producers, 0 lost\n");
    START_PRODUCER("--rate", "200");
    while (ask_events() < 10)
        await_frames(1);
    await_text(&consumers[0], " of 1 producers, 0 lost\n");
    test_kill(producer.pid);
    START_PRODUCER("--rate", "200", "--frames", "20");
    must_end(&producer, 0);
    must_end(&consumers[0], 0);
    must_say(&consumers[0], "\nCounted ");
    finish_camera();
}

TEST(camera_events_interrupted) {
    create_camera();
    START(&consumers[0], "events", "--name", test_instance());
    (void)ask_events();
    must_end_on(&consumers[0], SIGINT, 0);
    must_be(&consumers[0], "Counted 0 frames\n");
    START(&consumers[0], "events", "--name", test_instance());
    (void)ask_events();
    START(&consumers[1], "events", "--name", test_instance());
    must_end(&consumers[1], 1);
    must_say(&consumers[1], "events: opening a descriptor: ");
    must_end_on(&consumers[0], SIGTERM, 0);
    finish(manager);
}
