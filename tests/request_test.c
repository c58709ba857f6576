// tests/request_test.c: runs the questions and answers over topics of tests/demo (request_reply.c). The server is
// killed and started again while several ask; each question gets its own answer.
#include "harness/chunks.h"
#include "harness/programs.h"

#define FOREVER "4294967295"

enum { ASKERS = 3 };

static program server, askers[ASKERS];

static void start_server(void) {
    START(&server, "request_reply", "--name", test_instance(), "serve");
}

// Asks a question again only after that many milliseconds.
static void start_asker(int i, const char *again, const char *times) {
    START(&askers[i], "request_reply", "--name", test_instance(), "--again", again, "ask", times);
}

static bool count_endpoint(const zcp_topic_entry *entry, void *user) {
    uint64_t *counts = user;
    bool request = strcmp(entry->topic, "request") == 0;
    counts[0] += request && !entry->publisher;
    counts[1] += request && entry->publisher ? entry->messages : 0;
    return true;
}

// Waits until somebody serves, or until so many questions were asked.
static void await_counts(zcp_manager *manager, uint64_t servers, uint64_t questions) {
    uint64_t counts[2] = {0, 0};
    while (counts[0] < servers || counts[1] < questions) {
        counts[0] = counts[1] = 0;
        CHECK_OK(zcp_manager_topics(manager, count_endpoint, counts));
        usleep(1000);
    }
}

static zcp_manager *attach_in_the_end(void) {
    zcp_manager *manager;
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING,
                                                            .flags = ZCP_WAIT, .timeout_ms = 60000}));
    return manager;
}

// The server has removed the names.
static void finish_requests(zcp_manager *manager) {
    (void)recover(manager);
    CHECK_EQ(used(manager), 0);
    zcp_manager_close(manager);
    must_be_gone(test_instance());
}

static void end_server(zcp_manager *manager) {
    await_counts(manager, 1, 0);                                   // before that nobody hears a signal
    must_end_on(&server, SIGTERM, 0);
    must_say(&server, "Answered ");
    finish_requests(manager);
}

TEST(request_each_is_answered) {
    start_server();
    zcp_manager *manager = attach_in_the_end();
    for (int i = 0; i < ASKERS; i++)
        start_asker(i, FOREVER, "200");
    for (int i = 0; i < ASKERS; i++) {
        must_end(&askers[i], 0);
        must_say(&askers[i], "Asked ");
    }
    end_server(manager);
}

TEST(request_before_there_is_a_server) {
    start_asker(0, FOREVER, "3");
    zcp_manager *manager = attach_in_the_end();
    await_counts(manager, 0, 1);
    start_server();
    must_end(&askers[0], 0);
    must_be(&askers[0], "Asked 3 times, 0 of them again\n");
    end_server(manager);
}

// At whatever moment: nobody asks again because time has passed, since the next server finds each open question.
TEST_WITH(request_server_is_killed, .seconds = 120) {
    start_server();
    zcp_manager *manager = attach_in_the_end();
    for (int i = 0; i < ASKERS; i++)
        start_asker(i, FOREVER, "1000");
    for (int kills = 0; kills < 15; kills++) {
        if (kills % 3 == 0)
            await_counts(manager, 1, 0);
        usleep((useconds_t)test_random_below(3000));
        test_kill(server.pid);
        start_server();
    }
    for (int i = 0; i < ASKERS; i++) {
        must_end(&askers[i], 0);
        must_say(&askers[i], "Asked ");
    }
    (void)recover(manager);
    end_server(manager);
}

// It has taken the question in hand, and stands still; whoever comes instead of it answers.
TEST(request_server_is_stopped) {
    zcp_subscriber *subscriber;
    start_server();
    zcp_manager *manager = attach_in_the_end();
    await_counts(manager, 1, 0);
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = "elsewhere"}, &subscriber));
    zcp_subscriber_close(subscriber);                              // so the server holds no lock of those who open
    test_stop(server.pid);
    start_asker(0, "10", "5");
    await_counts(manager, 1, 2);                                   // asked again
    static program second;
    START(&second, "request_reply", "--name", test_instance(), "serve");
    must_end(&askers[0], 0);
    test_kill(server.pid);
    server = second;
    (void)recover(manager);
    end_server(manager);
}

TEST(request_server_ends) {
    start_server();
    zcp_manager *manager = attach_in_the_end();
    await_counts(manager, 1, 0);
    start_asker(0, "10", "18446744073709551615");
    await_counts(manager, 1, 10);
    must_end_on(&server, SIGINT, 0);
    must_end(&askers[0], 1);
    must_say(&askers[0], "request_reply: the server has ended: ZCP_ERR_REPLACED: ");
    finish_requests(manager);
}

TEST(request_asker_interrupted) {
    start_asker(0, FOREVER, "1");
    zcp_manager *manager = attach_in_the_end();
    await_counts(manager, 0, 1);
    must_end_on(&askers[0], SIGINT, 1);
    must_say(&askers[0], "request_reply: asking: ZCP_ERR_INTERRUPTED: ");
    (void)recover(manager);
    finish(manager);
}

TEST(request_wrong_answer) {
    zcp_publisher *publisher;
    zcp_subscriber *subscriber;
    zcp_message question;
    zcp_chunk chunk;
    start_asker(0, FOREVER, "1");
    zcp_manager *manager = attach_in_the_end();
    CHECK_OK(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = "reply"}, &publisher));
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = "request", .history = 1}, &subscriber));
    CHECK_OK(zcp_subscriber_receive(subscriber, UINT32_MAX, &question));
    const uint64_t *asked = question.data;
    for (uint64_t i = 0; i < 4; i++) {                             // another asker's, another one's of his, short, his
        CHECK_OK(zcp_publisher_loan(publisher, i == 2 ? 23 : 24, &chunk));
        uint64_t answer[] = {asked[0] + (i == 0), asked[1] + (i == 1), asked[2] * asked[2] + (i == 3)};
        memcpy(chunk.data, answer, i == 2 ? 23 : 24);
        CHECK_OK(zcp_publisher_publish(publisher, &chunk, NULL));
    }
    must_end(&askers[0], 1);
    must_say(&askers[0], text_of(" squared is not %llu\n", (unsigned long long)(asked[2] * asked[2] + 1)));
    zcp_subscriber_close(subscriber);
    zcp_publisher_close(publisher);
    finish(manager);
}

TEST(request_options) {
    static const char *const wrong[][2] = {{NULL}, {"serve", "1"}, {"ask", NULL}, {"ask", "many"}, {"--bogus", NULL}};
    START(&server, "request_reply", "--help");
    must_end(&server, 0);
    must_say(&server, "Usage: request_reply ");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        START(&server, "request_reply", wrong[i][0], wrong[i][1]);
        must_end(&server, 2);
        CHECK_HAS(server.text, "ry --help");
    }
}
