// client.c: the demo's client. It attaches to the server's instance, allocates three chunks, writes and reads them,
// shows how handles are counted, and passes one chunk to the server and back.
//
// Every figure that it prints is read back from the library and checked. The exit status is 0 if all were as expected,
// 1 if not, 2 if the options are wrong. There is no code here for being killed: whatever this process holds comes back
// by itself.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "common.h"
#include "streams.h"
#include "transport.h"

#include <getopt.h>
#include <poll.h>

static const char usage[] =
    "Usage: client [OPTION]...\n"
    "Attaches to the demo server's pools, works with chunks, and passes one to the server and back.\n"
    "\n"
    "  --name NAME        name of the instance (default: " DEMO_NAME ")\n"
    "  --wait SECONDS     how long to wait for the server, and for each of its answers (default: 10)\n"
    "  --hold SECONDS     hold the chunks for so long, so that the server's figures show them (default: 0)\n"
    "  --help             print this, and end\n";

enum { TEXT, NUMBERS, LIST };                                      // what the three chunks are for

static const uint64_t sizes[DEMO_CHUNKS] = {100, 512, 2048};
static const uint64_t used_by_both[DEMO_POOLS] = {2, 2, 2, 0};

typedef struct client {
    const char *name;
    unsigned wait_ms, hold_ms;
    uint64_t deadline;                                             // for the server's welcome
    zcp_manager *manager;
    int connection;
    zcp_chunk chunks[DEMO_CHUNKS];
} client;

// ---------------------------------------------------------------------------------------------------------------------
// Attaching

static unsigned time_left(const client *c) {                       // 1 ms or more
    uint64_t now = now_ms();
    return now < c->deadline ? (unsigned)(c->deadline - now) : 1;
}

// ZCP_WAIT: if the server is not up yet, wait for it to create the instance.
static bool open_instance(client *c) {
    zcp_status status = zcp_manager_open(&c->manager, &(zcp_manager_desc){.name = c->name,
                                                                           .mode = ZCP_SHM_OPEN_EXISTING,
                                                                           .flags = ZCP_WAIT,
                                                                           .timeout_ms = time_left(c),
                                                                           .client_name = "client"});
    return status == ZCP_OK || fail_status("zcp_manager_open", status);
}

// The instance may be there although no server runs (one was killed): then wait for a server.
static bool connect_to_server(client *c) {
    while ((c->connection = transport_connect(c->name)) < 0 && errno == ECONNREFUSED && now_ms() < c->deadline)
        sleep_ms(10);
    return (c->connection >= 0 && transport_set_timeout(c->connection, time_left(c))) ||
           fail("connecting to the server of \"%s\": %s", c->name, strerror(errno));
}

static bool receive(client *c, message_kind kind, message *got) {
    if (!transport_receive(c->connection, got)) {
        if (errno == EAGAIN)
            return fail("the server did not answer in time; does it serve another client, or is it stopped?");
        return fail("%s", errno == ECONNRESET ? "the server has ended" : strerror(errno));
    }
    return got->kind == kind || fail("the server sent something unexpected (kind %" PRIu64 ")", got->kind);
}

static void detach(client *c) {
    // first: the server looks at the pools when we hang up
    zcp_manager_close(c->manager);
    c->manager = NULL;
    c->connection = transport_close(c->connection);
}

// Opens the instance and waits until the server has time for us. If an older instance was opened, which a new server
// has replaced meanwhile, starts over.
static bool attach(client *c) {
    message got;
    c->deadline = now_ms() + c->wait_ms;
    for (;;) {
        if (!open_instance(c) || !connect_to_server(c) || !receive(c, MESSAGE_WELCOME, &got))
            return false;
        zcp_status status = zcp_manager_check(c->manager);
        if (status == ZCP_OK)
            break;
        if (status != ZCP_ERR_REPLACED || now_ms() >= c->deadline)
            return fail_status("zcp_manager_check", status);
        detach(c);
    }
    zcp_manager_info info;
    zcp_status status = zcp_manager_get_info(c->manager, &info);
    if (status != ZCP_OK)
        return fail_status("zcp_manager_get_info", status);
    printf("Attached to \"%s\"\n", info.name);
    return transport_set_timeout(c->connection, c->wait_ms) || fail("setsockopt: %s", strerror(errno));
}

// ---------------------------------------------------------------------------------------------------------------------
// Working with chunks

static bool allocate_all(client *c) {
    for (int i = 0; i < DEMO_CHUNKS; i++)
        if (!allocate(c->manager, sizes[i], &c->chunks[i]))
            return false;
    return show_state(c->manager, "State with the client's chunks", used_by_both);
}

static bool write_and_read_text(zcp_chunk *chunk) {
    static const char text[] = "Hello from client!";
    memcpy(zcp_chunk_data(chunk), text, sizeof text);
    const char *read = zcp_chunk_data(chunk);
    printf("Wrote and read back: %s\n", read);
    return strcmp(read, text) == 0 || fail("that is not \"%s\"", text);
}

static bool write_and_read_numbers(zcp_chunk *chunk) {
    int32_t *numbers = zcp_chunk_data(chunk);
    bool good = true;
    for (int32_t i = 0; i < 10; i++)
        numbers[i] = 100 * i;
    const int32_t *read = zcp_chunk_data(chunk);
    printf("Wrote and read back:");
    for (int32_t i = 0; i < 10; i++) {
        printf(" %" PRId32, read[i]);
        good = good && read[i] == 100 * i;
    }
    printf("\n");
    return good || fail("those are not 0, 100, ... 900");
}

// A clone is one more handle of the same chunk. (A plain copy of the struct is not.)
static bool count_handles(zcp_chunk *chunk) {
    if (!use_count_is(chunk, "after allocation", 1))
        return false;
    zcp_chunk second = zcp_chunk_clone(chunk);
    bool same = zcp_chunk_is_valid(&second) && zcp_chunk_data(&second) == zcp_chunk_data(chunk);
    bool good = use_count_is(chunk, "with a clone", 2);
    zcp_chunk_release(&second);
    return (same || fail("the clone is not a handle of the same chunk: %s", zcp_last_message())) && good &&
           use_count_is(chunk, "after the clone's release", 1);
}

// Gives the server's periodic figures time to show our chunks; ends early if the server does.
static bool hold(client *c) {
    struct pollfd watched = {.fd = c->connection, .events = POLLIN};
    if (c->hold_ms == 0)
        return true;
    printf("Holding the chunks for a while\n");
    return poll(&watched, 1, (int)c->hold_ms) == 0 || fail("the server has ended");
}

// ---------------------------------------------------------------------------------------------------------------------
// The hand-over, there and back; transport.h shows the messages

static bool send_list(client *c, zcp_chunk *chunk) {
    message got;
    if (!list_build(c->manager, chunk))
        return false;
    uint64_t token = zcp_chunk_token(chunk);
    if (token == 0)
        return fail("zcp_chunk_token: the chunk is not held");
    if (!transport_send(c->connection, MESSAGE_TOKEN, token))
        return fail("sending the token: %s", strerror(errno));
    if (!receive(c, MESSAGE_ACQUIRED, &got))                       // hold on until the server has acquired
        return false;
    printf("Sent a list; the server has acquired it\n");
    if (!use_count_is(chunk, "while both sides hold it", 2))
        return false;
    zcp_chunk_release(chunk);
    return transport_send(c->connection, MESSAGE_RELEASED, 0) || fail("sending: %s", strerror(errno));
}

static bool receive_list(client *c, zcp_chunk *chunk) {
    message got;
    if (!receive(c, MESSAGE_TOKEN, &got))
        return false;
    zcp_status status = zcp_chunk_acquire(c->manager, got.token, chunk);
    if (status != ZCP_OK)
        return fail_status("zcp_chunk_acquire", status);
    printf("Got it back: %" PRIu64 " bytes\n", zcp_chunk_size(chunk));
    if (!transport_send(c->connection, MESSAGE_ACQUIRED, 0))
        return fail("acknowledging: %s", strerror(errno));
    if (!receive(c, MESSAGE_RELEASED, &got))
        return false;
    return (zcp_chunk_size(chunk) == sizes[LIST] || fail("expected: %" PRIu64 " bytes", sizes[LIST])) &&
           use_count_is(chunk, "after the server's release", 1) && list_walk(c->manager, chunk, 10, 1);
}

static bool work(client *c) {
    if (!show_state(c->manager, "State that the client sees", demo_used_by_server) || !allocate_all(c)
        || !write_and_read_text(&c->chunks[TEXT]) || !write_and_read_numbers(&c->chunks[NUMBERS])
        || !count_handles(&c->chunks[TEXT]) || !hold(c) || !send_list(c, &c->chunks[LIST])
        || !receive_list(c, &c->chunks[LIST]))
        return false;
    for (int i = 0; i < DEMO_CHUNKS; i++)
        zcp_chunk_release(&c->chunks[i]);
    printf("Released all chunks\n");
    return show_state(c->manager, "State at the end, as the server left it", demo_used_by_server);
}

// ---------------------------------------------------------------------------------------------------------------------
// Options. Returns -1 to go on, else the exit status.

static int parse_options(client *c, int argc, char **argv) {
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'},
        {"wait", required_argument, NULL, 'w'},
        {"hold", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (option == 'n')
            c->name = optarg;
        else if ((option != 'w' || !parse_seconds("wait", optarg, 0.01, &c->wait_ms)) &&
                 (option != 'o' || !parse_seconds("hold", optarg, 0, &c->hold_ms)))
            return fputs("Try --help.\n", stderr), 2;              // getopt has said what is wrong with an unknown one
    }
    if (optind < argc)
        return fail("unexpected argument \"%s\"; try --help", argv[optind]), 2;
    return -1;
}

int main(int argc, char **argv) {
    client c = {.name = DEMO_NAME, .wait_ms = 10000, .connection = -1};
    open_standard_streams();
    int status = parse_options(&c, argc, argv);
    if (status >= 0)
        return status;
    setvbuf(stdout, NULL, _IOLBF, 0);                              // line by line, also into a pipe
    printf("Waiting for the server\n");
    bool good = attach(&c) && work(&c);
    detach(&c);                                                    // gives back what a failed step has left
    if (good)
        printf("Detached\n");
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
