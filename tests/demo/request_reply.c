// request_reply.c: questions and answers over two topics.
//
//     request_reply ask N (any number of them)              request_reply serve
//     publishes from, number, value on "request"  ------->  reads it in place, computes
//     takes the reply with its name and number    <-------  publishes from, number, result on "reply"
//
// from is a random number that names the asker, and number counts its questions: so each asker finds its own answers,
// and ignores what was answered twice. Nobody waits for anybody. A question or an answer that was lost because somebody
// was slow or was killed is asked again. A server that was killed is simply started again: each asker keeps its last
// question for those who come later (keep), and a server begins with it (history), so that it is answered at once.
//
// The exit status is 0 if all answers were right, 1 if not, 2 if the options are wrong. A server that ends on Ctrl-C or
// SIGTERM removes the instance, and so ends its askers. One that is killed leaves all to its successor.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "common.h"
#include "streams.h"

#include <getopt.h>
#include <signal.h>
#include <sys/random.h>

static const char usage[] =
    "Usage: request_reply [--name NAME] serve\n"
    "       request_reply [--name NAME] [--again MS] ask N\n"
    "Squares numbers: asks N times, and again when no answer has come for MS milliseconds (default: 1000).\n";

static const char request_topic[] = "request", reply_topic[] = "reply";

typedef struct request {
    uint64_t from, number, value;
} request;

typedef struct reply {
    uint64_t from, number, result;
} reply;

static zcp_manager *manager;
static zcp_publisher *publisher;
static zcp_subscriber *subscriber;

static void on_stop(int signal_number) {
    (void)signal_number;
    zcp_manager_interrupt(manager, true);                          // it is all that a signal handler may call
}

// Whoever comes first creates the instance. Each side publishes to one of the topics and subscribes to the other one.
static bool open_topics(const char *name, const char *publish_to, const char *subscribe_to) {
    struct sigaction action = {.sa_handler = on_stop};
    zcp_config config = {.publishers = 64, .subscribers = 64};
    zcp_status status = zcp_config_add_pool(&config, sizeof(request), 1024);
    if (status == ZCP_OK)
        status = zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .config = &config});
    if (status == ZCP_OK)
        status = zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = publish_to, .keep = 1}, &publisher);
    if (status == ZCP_OK)
        status = zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = subscribe_to, .history = 1}, &subscriber);
    if (status != ZCP_OK)
        return fail_status("opening the topics", status);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return true;
}

static zcp_status publish(const void *data, size_t bytes) {
    zcp_chunk chunk;
    zcp_status status = zcp_publisher_loan(publisher, bytes, &chunk);
    if (status != ZCP_OK)
        return status;
    memcpy(chunk.data, data, bytes);
    status = zcp_publisher_publish(publisher, &chunk, NULL);
    zcp_chunk_release(&chunk);                                     // nothing, if it was published
    return status;
}

// ---------------------------------------------------------------------------------------------------------------------
// The server

static bool serve(const char *name) {
    zcp_message message;
    zcp_status status;
    uint64_t answers = 0;
    if (!open_topics(name, reply_topic, request_topic))
        return false;
    while ((status = zcp_subscriber_receive(subscriber, UINT32_MAX, &message)) == ZCP_OK) {
        const request *asked = message.data;
        if (message.size != sizeof *asked)
            continue;                                              // from somebody else
        reply answer = {.from = asked->from, .number = asked->number, .result = asked->value * asked->value};
        status = publish(&answer, sizeof answer);
        if (status != ZCP_OK)
            fail_status("an answer is lost", status);              // it will be asked for again
        answers += status == ZCP_OK;
    }
    printf("Answered %" PRIu64 " questions\n", answers);
    if (status != ZCP_ERR_INTERRUPTED)
        return fail_status("zcp_subscriber_receive", status);
    status = zcp_manager_destroy_this(manager);
    return status == ZCP_OK || fail_status("zcp_manager_destroy_this", status);
}

// ---------------------------------------------------------------------------------------------------------------------
// The askers

// TIMEOUT: the answer has not come, or may have been lost.
static zcp_status await_reply(const request *asked, uint32_t again_ms, uint64_t *result) {
    zcp_message message;
    zcp_status status;
    while ((status = zcp_subscriber_receive(subscriber, again_ms, &message)) == ZCP_OK) {
        const reply *answer = message.data;
        if (message.size == sizeof *answer && answer->from == asked->from && answer->number == asked->number) {
            *result = answer->result;
            return ZCP_OK;
        }
        if (message.lost != 0)
            return ZCP_ERR_TIMEOUT;                                // ours may have been among them
    }
    return status;
}

static bool ask_once(const request *asked, uint32_t again_ms, uint64_t *result, uint64_t *repeated) {
    for (;; ++*repeated) {
        zcp_status status = publish(asked, sizeof *asked);
        if (status == ZCP_OK)
            status = await_reply(asked, again_ms, result);
        if (status == ZCP_OK)
            return true;
        if (status != ZCP_ERR_TIMEOUT)
            return fail_status("asking", status);
        status = zcp_manager_check(manager);
        if (status != ZCP_OK)
            return fail_status("the server has ended", status);
    }
}

static bool ask(const char *name, uint64_t times, uint32_t again_ms) {
    request asked = {.number = 0};
    uint64_t result = 0, repeated = 0;
    if (!open_topics(name, request_topic, reply_topic))
        return false;
    if (getrandom(&asked.from, sizeof asked.from, 0) != (ssize_t)sizeof asked.from)
        return fail("getrandom: %s", strerror(errno));
    while (asked.number < times) {
        asked.number++;
        asked.value = asked.from % 1000 + asked.number;
        if (!ask_once(&asked, again_ms, &result, &repeated))
            return false;
        if (result != asked.value * asked.value)
            return fail("%" PRIu64 " squared is not %" PRIu64, asked.value, result);
    }
    printf("Asked %" PRIu64 " times, %" PRIu64 " of them again\n", times + repeated, repeated);
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// Options

static bool parse_number(const char *text, uint64_t most, uint64_t *number) {
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return (*text >= '0' && *text <= '9' && *end == 0 && errno == 0 && *number <= most) ||
           fail("%s: a number up to %" PRIu64 " is expected", text, most);
}

int main(int argc, char **argv) {
    static const struct option known[] = {{"name", required_argument, NULL, 'n'},
                                          {"again", required_argument, NULL, 'a'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const char *name = "zerocp_request_reply";
    uint64_t again_ms = 1000, times = 0;
    open_standard_streams();
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (option == 'n')
            name = optarg;
        else if (option != 'a' || !parse_number(optarg, UINT32_MAX, &again_ms))
            return fputs("Try --help.\n", stderr), 2;              // getopt has said what is wrong with an unknown one
    }
    char **words = argv + optind;
    int count = argc - optind;
    bool asks = count == 2 && strcmp(words[0], "ask") == 0 && parse_number(words[1], UINT64_MAX, &times);
    if (!asks && (count != 1 || strcmp(words[0], "serve") != 0))
        return fputs("request_reply: serve, or ask N, is expected; try --help\n", stderr), 2;
    bool good = asks ? ask(name, times, (uint32_t)again_ms) : serve(name);
    zcp_manager_close(manager);                                    // and with it publisher and subscriber
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
