// tests/camera_tokens_test.c: runs the camera pipeline of tests/demo that passes tokens; kills, stops, interrupts and
// misuses it. The runner checks that nothing is left in /dev/shm, and no process.
#include "harness/programs.h"

#define ALL_FREE "All 3 frames of the pool are free again\n"

static program camera;

// A pool of 3 frames has 19 MB, and is used up all the time.
static void start_camera(const char *frames, const char *timeout) {
    START(&camera, "camera_tokens", "--name", test_instance(), "--pool", "3", "--period", "0.02", "--frames", frames,
          "--timeout", timeout);
}

// Waits until frames flow, from now on.
static void await_flow(void) {
    int before = test_count_of(camera.text, "frames per second\n");
    while (test_count_of(camera.text, "frames per second\n") < before + 2)
        CHECK_MSG(take(&camera, 100), "ended:\n%s", camera.text);
}

static void start_endless(const char *timeout) {
    start_camera("0", timeout);
    await_flow();
}

static pid_t consumer_in(int number) {
    char line[32];
    snprintf(line, sizeof line, "Consumer %d starts (pid ", number);
    await_text(&camera, line);
    while (strchr(strstr(camera.text, line), ')') == NULL)
        CHECK(take(&camera, 100));
    return (pid_t)atol(strstr(camera.text, line) + strlen(line));
}

// ---------------------------------------------------------------------------------------------------------------------
// As it should go

TEST(camera_tokens_each_frame) {
    start_camera("60", "10");
    must_end(&camera, 0);
    must_say(&camera,
             text_of("Instance \"%s\": room for 3 frames of 1920x1080 RGB, 6220800 bytes each\n", test_instance()));
    must_say(&camera, "60 frames in ");
    must_say(&camera, "Bytes copied: 0\n");
    must_say(&camera, "Consumer 1 has verified 60 frames where they lay, 373248000 bytes\n");
    must_say(&camera, "Consumer 2 has verified 60 frames where they lay, 373248000 bytes\n");
    must_say(&camera, ALL_FREE);
    must_be_gone(test_instance());
}

TEST(camera_tokens_by_default) {
    char name[64];
    START(&camera, "camera_tokens", "--frames", "20");
    snprintf(name, sizeof name, "zerocp_camera_tokens_%ld", (long)camera.pid);
    must_end(&camera, 0);
    must_say(&camera, name);
    must_say(&camera, "All 8 frames of the pool are free again\n");
    must_be_gone(name);
}

TEST(camera_tokens_interrupted) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (int i = 0; i < 3; i++) {
        start_endless("10");
        must_end_on(&camera, signals[i], 0);
        must_say(&camera, text_of("Stopping: %s\n", strsignal(signals[i])));
        must_say(&camera, "Bytes copied: 0\n");
        CHECK_EQ(test_count_of(camera.text, " has verified "), 2);
        must_say(&camera, ALL_FREE);
        must_be_gone(test_instance());
    }
}

// It cleans up, or had not begun.
TEST_WITH(camera_tokens_interrupted_at_random, .seconds = 120) {
    for (int round = 0; round < 40; round++) {
        start_camera("0", "10");
        usleep((useconds_t)test_random_below(6000));
        CHECK(kill(camera.pid, round % 2 == 0 ? SIGINT : SIGTERM) == 0);
        int status = end_of(&camera);
        CHECK_MSG(WIFSIGNALED(status) ? camera.length == 0 : WEXITSTATUS(status) == 0, "status %x:\n%s",
                  (unsigned)status, camera.text);
        must_be_gone(test_instance());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Killed and stopped

TEST(camera_tokens_goes_on_without_a_killed_consumer) {
    start_endless("10");
    CHECK(kill(consumer_in(1), SIGKILL) == 0);
    await_text(&camera, "Consumer 1 has ended too early; ");
    await_flow();
    must_end_on(&camera, SIGINT, 1);
    must_say(&camera, "Consumer 2 has verified ");
    must_say(&camera, "Bytes copied: 0\n");
    must_say(&camera, ALL_FREE);
    must_be_gone(test_instance());
}

TEST(camera_tokens_ends_without_consumers) {
    start_endless("10");
    CHECK(kill(consumer_in(1), SIGKILL) == 0);
    CHECK(kill(consumer_in(2), SIGKILL) == 0);
    must_end(&camera, 1);
    must_say(&camera, "camera_tokens: no consumer is left\n");
    must_say(&camera, ALL_FREE);
    must_be_gone(test_instance());
}

// At any moment, from the start of the consumer on: all that is made after that goes to the other one.
TEST_WITH(camera_tokens_consumer_killed_at_random, .seconds = 120) {
    for (int round = 0; round < 25; round++) {
        start_camera("30", "10");
        pid_t consumer = consumer_in(1 + round % 2);
        usleep((useconds_t)test_random_below(30000));
        if (kill(consumer, SIGKILL) != 0)                          // it had ended
            CHECK(errno == ESRCH);
        int status = end_of(&camera);
        CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "status %x:\n%s", (unsigned)status, camera.text);
        must_say(&camera, text_of("Consumer %d has verified 30 frames ", 2 - round % 2));
        must_say(&camera, ALL_FREE);
        must_be_gone(test_instance());
    }
}

TEST(camera_tokens_consumer_stopped) {
    start_endless("0.3");
    test_stop(consumer_in(2));
    must_end(&camera, 1);
    must_say(&camera, "camera_tokens: no consumer has done anything for too long; is one stopped?\n");
    must_say(&camera, ALL_FREE);
    must_be_gone(test_instance());
}

// Then the consumers remove the instance.
TEST_WITH(camera_tokens_producer_killed, .seconds = 120) {
    for (int round = 0; round < 5; round++) {
        start_endless("10");
        usleep((useconds_t)test_random_below(10000));
        test_kill(camera.pid);
        while (take(&camera, 100)) {
        }
        // by one at least: the other one may come only when all is removed
        must_say(&camera, ": the producer has ended\n");
        must_be_gone(test_instance());
    }
}

TEST(camera_tokens_output_closed) {
    start_endless("10");
    close(camera.output);
    camera.output = -1;
    CHECK_EQ(WEXITSTATUS(test_wait(camera.pid)), 1);
    must_be_gone(test_instance());
}

// ---------------------------------------------------------------------------------------------------------------------
// What the consumers are there for, and misuse

TEST(camera_tokens_wrong_byte_is_noticed) {
    START(&camera, "camera_tokens", "--name", test_instance(), "--pool", "3", "--frames", "30", "--spoil", "5");
    must_end(&camera, 1);
    // the second one may be ended before it gets there
    CHECK(test_count_of(camera.text, "camera_tokens: frame 5 is wrong at byte 3110400: ") >= 1);
    must_say(&camera, ALL_FREE);
    must_be_gone(test_instance());
}

static void must_refuse(const char *option, const char *argument, const char *complaint) {
    START(&camera, "camera_tokens", option, argument);
    must_end(&camera, 2);
    must_say(&camera, complaint);
}

TEST(camera_tokens_options) {
    START(&camera, "camera_tokens", "--help");
    must_end(&camera, 0);
    must_say(&camera, "Usage: camera_tokens [OPTION]...\n");
    must_refuse("--bogus", NULL, "\nTry --help.\n");
    must_refuse("word", NULL, "camera_tokens: unexpected argument \"word\"; try --help\n");
    must_refuse("--frames", "-1", "camera_tokens: --frames -1: a number from 0 to 4294967295 is expected\n");
    must_refuse("--frames", "many", "camera_tokens: --frames many: a number");
    must_refuse("--pool", "1", "camera_tokens: --pool 1: a number from 2 to 64 is expected\n");
    must_refuse("--pool", "8x", "camera_tokens: --pool 8x: a number");
    must_refuse("--period", "0", "camera_tokens: --period 0: a number of seconds");
    must_refuse("--timeout", "0", "camera_tokens: --timeout 0: a number of seconds");
}

// An instance of that name is not touched.
TEST(camera_tokens_other_instance) {
    zcp_config config = {0};
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    start_camera("5", "10");
    must_end(&camera, 1);
    must_say(&camera, "camera_tokens: zcp_manager_open: ZCP_ERR_EXISTS: ");
    CHECK_OK(zcp_manager_check(manager));
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}
