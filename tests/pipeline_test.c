// tests/pipeline_test.c: the camera pipeline of tests/demo, a producer in C and consumers in C, C++ and Python, at full
// speed. Each of them is killed and started again at random; those that live check every message, and so does the test,
// which has subscribed from the beginning. In the end every chunk is free, and nobody is left in the tables.
//
// TEST_KILLS=N in the environment: how often each of them is killed. What happens when depends on the machine, but what
// must hold does not.
#include "harness/chunks.h"
#include "harness/programs.h"

#include "demo/camera.h"

#ifndef TEST_SOURCE_DIR
#error "TEST_SOURCE_DIR is not defined: the Makefile gives it"
#endif

#define CONSUMER_IN_PYTHON TEST_SOURCE_DIR "/tests/demo/consumer.py"

// ---------------------------------------------------------------------------------------------------------------------
// Those who take part

typedef struct role {
    const char *name;
    const char *path;                                              // in what make has built; without a slash: in PATH
    const char *arguments[16];
    bool producer, reliable;
    bool away;                                                     // killed, and not started yet
    uint32_t kills;
    program run;
} role;

enum { MOST_ROLES = 8 };

static role roles[MOST_ROLES];
static int role_count;

static void start_role(role *r) {
    char path[PATH_MAX];
    if (strchr(r->path, '/') != NULL && r->path[0] != '/')
        build_path(path, sizeof path, r->path);
    else
        snprintf(path, sizeof path, "%s", r->path);
    start_at(&r->run, path, r->arguments);
    r->away = false;
}

static void add_role(role added) {
    CHECK(role_count < MOST_ROLES);
    roles[role_count++] = added;
}

static bool is_built(const char *name) {
    char path[PATH_MAX];
    build_path(path, sizeof path, name);
    return access(path, X_OK) == 0;
}

// The interpreter of the consumer in Python; NULL: there is none.
static const char *find_python(void) {
    static program python;
    char library[PATH_MAX];
    build_path(library, sizeof library, "libzerocp.so");
    CHECK(setenv("ZEROCP_LIBRARY", library, 1) == 0);
    CHECK(setenv("PYTHONDONTWRITEBYTECODE", "1", 1) == 0);         // nothing beside the sources
    const char *found = python_with_numpy(&python);
    CHECK_MSG(found != NULL || getenv("TEST_INSTALLED") == NULL, "%s", python.text);
    return found;
}

static void choose_roles(void) {
    const char *name = test_instance();
    add_role((role){.name = "producer", .path = "demo/camera", .producer = true,
                    .arguments = {"camera", "produce", "--name", name, "--rate", "0", "--size", "16x4", "--pool", "60",
                                  "--patience", "4294967295"}});
    add_role((role){.name = "view", .path = "demo/camera",
                    .arguments = {"camera", "view", "--name", name, "--latest"}});
    add_role((role){.name = "record", .path = "demo/camera", .reliable = true,
                    .arguments = {"camera", "record", "/dev/null", "--name", name}});
    if (is_built("demo/consumer")) {                               // not without a C++ compiler
        add_role((role){.name = "C++", .path = "demo/consumer", .arguments = {"consumer", "--name", name}});
        add_role((role){.name = "C++, reliable", .path = "demo/consumer", .reliable = true,
                        .arguments = {"consumer", "--name", name, "--reliable"}});
    }
    const char *python = find_python();
    if (python != NULL)
        add_role((role){.name = "Python, reliable", .path = python, .reliable = true,
                        .arguments = {python, CONSUMER_IN_PYTHON, "--name", name, "--reliable"}});
}

// ---------------------------------------------------------------------------------------------------------------------
// The test's own subscriber: reliable, and there from the beginning

static zcp_manager *manager;
static zcp_subscriber *calibrations, *frames;
static camera_calibration calibration;
static camera_progress progress;

// What producers had published when they were killed, in their order: all that has to arrive.
enum { MOST_KILLS = 100000 };

static struct published {
    uint64_t source, messages;
} killed[MOST_KILLS];
static uint32_t killed_count, killed_read;

// Those before that source are read to their end.
static void check_read(uint64_t source) {
    for (; killed_read < killed_count && killed[killed_read].source < source; killed_read++) {
        struct published *k = &killed[killed_read];
        uint64_t came = k->source == progress.source ? progress.number : 0;
        CHECK_MSG(came >= k->messages, "source %llu had published %llu messages, and %llu came",
                  (unsigned long long)k->source, (unsigned long long)k->messages, (unsigned long long)came);
    }
}

static void subscribe(void) {
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING,
                                                            .flags = ZCP_WAIT, .timeout_ms = 60000}));
    CHECK_OK(zcp_subscriber_open(
        manager, &(zcp_subscriber_desc){.topic = CAMERA_CALIBRATION, .reliable = true, .history = 1}, &calibrations));
    CHECK_OK(zcp_subscriber_open(manager, &(zcp_subscriber_desc){.topic = CAMERA_FRAMES, .reliable = true}, &frames));
}

static void check_frame(const zcp_message *message) {
    const camera_frame *frame = message->data;
    CHECK(message->size >= sizeof *frame);
    while (calibration.producer != frame->producer) {
        zcp_message received;
        CHECK_OK(zcp_subscriber_receive(calibrations, 0, &received));
        CHECK_EQ(received.size, sizeof calibration);
        memcpy(&calibration, received.data, sizeof calibration);
    }
    CHECK_MSG(camera_verify(frame, message->size, message->number, &calibration), "source %llu, message %llu",
              (unsigned long long)message->source, (unsigned long long)message->number);
}

// Receives and checks one message, if one comes in that time.
static bool audit(uint32_t timeout_ms) {
    zcp_message message;
    zcp_status status = zcp_subscriber_receive(frames, timeout_ms, &message);
    if (status == ZCP_ERR_EMPTY || status == ZCP_ERR_TIMEOUT)
        return false;
    CHECK_OK(status);
    check_read(message.source);
    CHECK_MSG(camera_follows(&progress, &message, true), "source %llu, message %llu, lost %llu",
              (unsigned long long)message.source, (unsigned long long)message.number, (unsigned long long)message.lost);
    if (message.data != NULL)
        check_frame(&message);
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// What the tables say

typedef struct looked {
    pid_t pid;                                                     // whose subscriber is looked for; 0: nobody's
    uint64_t subscriber, read;                                     // the number of it, if that is known, like `source`
    struct published newest;
    uint32_t endpoints;
} looked;

static bool look(const zcp_topic_entry *entry, void *user) {
    looked *l = user;
    zcp_client_info client;
    l->endpoints++;
    if (strcmp(entry->topic, CAMERA_FRAMES) != 0)
        return true;
    if (entry->publisher && entry->source > l->newest.source)
        l->newest = (struct published){entry->source, entry->messages};
    if (!entry->publisher && l->pid != 0 && l->subscriber == 0 &&
        zcp_manager_client_info(manager, entry->client, &client) == ZCP_OK && client.pid == (uint32_t)l->pid)
        l->subscriber = entry->source;
    if (!entry->publisher && l->subscriber == entry->source)
        l->read = entry->messages;
    return true;
}

static void look_again(looked *l) {
    l->newest = (struct published){0, 0};
    l->endpoints = 0;
    CHECK_OK(zcp_manager_topics(manager, look, l));
}

static looked look_for(pid_t pid) {
    looked l = {.pid = pid};
    look_again(&l);
    return l;
}

// ---------------------------------------------------------------------------------------------------------------------
// Killing

static void check_alive(role *r) {
    siginfo_t info = {0};
    CHECK(waitid(P_PID, (id_t)r->run.pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
    if (info.si_pid != 0) {
        (void)end_of(&r->run);
        CHECK_MSG(false, "%s ended by itself: %s", r->name, r->run.text);
    }
}

// Goes on for up to so many messages.
static void audit_some(role *r, uint64_t messages) {
    for (uint64_t i = 0; i < messages; i++)
        if (!audit(10))
            check_alive(r);
}

// Goes on until the role has published or read so many messages, from now on. While it opens it has read none.
static void await_messages(role *r, uint64_t messages) {
    if (r->producer) {
        uint64_t before = killed_count == 0 ? 0 : killed[killed_count - 1].source;
        uint64_t goal = progress.source > before ? progress.number + messages : messages;
        while (progress.source <= before || progress.number < goal)
            audit_some(r, 1);
        return;
    }
    looked l = look_for(r->run.pid);
    for (uint64_t last = l.read, goal = last + messages; l.read < goal; look_again(&l)) {
        if (l.read < last)                                         // those of a producer that has gone do not count
            goal = l.read + messages;
        last = l.read;
        audit_some(r, 4);
    }
}

static void kill_role(role *r) {
    CHECK(kill(r->run.pid, SIGKILL) == 0);
    int status = end_of(&r->run);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s ended by itself with %x: %s", r->name,
              (unsigned)status, r->run.text);
    r->kills++;
    r->away = true;
    if (!r->producer)
        return;
    struct published newest = look_for(0).newest;
    if (newest.source > (killed_count == 0 ? 0 : killed[killed_count - 1].source))
        killed[killed_count++] = newest;
}

// In whatever phase it is: at its start, while it opens, or after it has done something.
static void await_phase(role *r) {
    switch (test_random_below(4)) {
    case 0: break;
    case 1: usleep((useconds_t)test_random_below(4000)); break;
    default: await_messages(r, 1 + test_random_below(10));
    }
}

static void start_all(void) {
    for (int i = 0; i < role_count; i++)
        if (roles[i].away)
            start_role(&roles[i]);
}

// Each of them once, in random order; a quarter of them stay away until the next one's turn.
static void kill_each(void) {
    int order[MOST_ROLES];
    for (int i = 0; i < role_count; i++) {
        int at = (int)test_random_below((uint64_t)i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (int i = 0; i < role_count; i++) {
        role *r = &roles[order[i]];
        start_all();
        await_phase(r);
        kill_role(r);
        for (uint64_t n = test_random_below(10); n > 0 && audit(0); n--) {
        }
        if (test_random_below(4) != 0)
            start_role(r);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The end

// Those who are left read to the end that the test publishes, as a producer does that ends by itself.
static void end_all(void) {
    zcp_publisher *publisher;
    start_all();
    for (int i = 0; i < role_count; i++)
        await_messages(&roles[i], 1);
    kill_role(&roles[0]);
    CHECK_OK(zcp_publisher_open(manager, &(zcp_publisher_desc){.topic = CAMERA_FRAMES, .timeout_ms = UINT32_MAX},
                                &publisher));
    CHECK_OK(zcp_publisher_notify(publisher, NULL));
    while (audit(0)) {
    }
    check_read(UINT64_MAX);
    for (int i = 1; i < role_count; i++) {
        must_end(&roles[i].run, 0);
        must_say(&roles[i].run, "Read ");
        if (roles[i].reliable)
            must_say(&roles[i].run, " 0 lost");
    }
    zcp_publisher_close(publisher);
    zcp_subscriber_close(frames);
    zcp_subscriber_close(calibrations);
    (void)recover(manager);
    CHECK_EQ(look_for(0).endpoints, 0);
    CHECK_EQ(used(manager), 0);
    finish(manager);
}

static uint32_t kills_wanted(uint32_t otherwise) {
    const char *given = getenv("TEST_KILLS");
    if (given == NULL || *given == 0)
        return otherwise;
    char *end;
    unsigned long kills = strtoul(given, &end, 10);
    CHECK_MSG(*given >= '0' && *given <= '9' && *end == 0 && kills < MOST_KILLS, "TEST_KILLS=%s", given);
    return (uint32_t)kills;
}

TEST_WITH(pipeline_killed_at_random, .seconds = 900, .weight = 2) {
    uint32_t kills = kills_wanted(10);
    uint64_t begun = test_now();
    choose_roles();
    start_role(&roles[0]);
    subscribe();
    for (int i = 1; i < role_count; i++)
        start_role(&roles[i]);
    for (uint32_t i = 0; i < kills; i++)
        kill_each();
    end_all();
    test_note("each of %d killed %u times, %llu frames of %llu producers, %llu ms", role_count, kills,
              (unsigned long long)progress.frames, (unsigned long long)progress.producers,
              (unsigned long long)((test_now() - begun) / 1000000));
}
