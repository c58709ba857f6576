// server.c: the demo's server. It creates the pools, allocates three chunks, and stays until it is told to stop (Ctrl-C
// or SIGTERM); then it removes the instance. Meanwhile it prints the state of the pools every few seconds, and serves
// clients, one at a time: it acquires the chunk that the client sends, works on it where it lies, and sends it back.
//
// Every figure that it prints is read back from the library and checked. The exit status is 0 if all were as expected,
// 1 if not, 2 if the options are wrong.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "common.h"
#include "streams.h"
#include "transport.h"

#include <getopt.h>
#include <poll.h>
#include <signal.h>

static const char usage[] =
    "Usage: server [OPTION]...\n"
    "Creates shared pools, allocates from them, and serves demo clients until Ctrl-C or SIGTERM.\n"
    "\n"
    "  --name NAME        name of the instance (default: " DEMO_NAME ")\n"
    "  --period SECONDS   how often the state is printed (default: 3)\n"
    "  --help             print this, and end\n";

typedef struct server {
    const char *name;
    unsigned period_ms;
    zcp_manager *manager;
    zcp_chunk own[DEMO_CHUNKS];
    bool settled;                                                  // the instance was found as it should be: it is ours
    int listener, connection;                                      // connection: with the present client; -1: none
    zcp_chunk received;                                            // the client's chunk, while we hold it
    uint64_t next_print;
    unsigned deviations;
} server;

// ---------------------------------------------------------------------------------------------------------------------
// Signals. They are blocked but for the moment in which ppoll waits, so nothing else is ever interrupted, and no signal
// is missed between looking at `stop` and waiting. Nothing of zerocp may be called in a signal handler.

static volatile sig_atomic_t stop;

static void on_stop(int signal_number) {
    stop = signal_number;
}

static bool catch_signals(sigset_t *unblocked) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_stop}, before;
    sigset_t blocked;
    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        if (sigaction(signals[i], NULL, &before) == 0 && signals[i] == SIGHUP && before.sa_handler == SIG_IGN)
            continue;                                              // started by nohup
        sigaddset(&blocked, signals[i]);
    }
    if (sigprocmask(SIG_BLOCK, &blocked, unblocked) != 0)
        return fail("sigprocmask: %s", strerror(errno));
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        sigdelset(unblocked, signals[i]);
        if (sigismember(&blocked, signals[i]) && sigaction(signals[i], &action, NULL) != 0)
            return fail("sigaction: %s", strerror(errno));
    }
    signal(SIGPIPE, SIG_IGN);                                      // `server | head`: clean up all the same
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// Start

// The socket comes first: it belongs to one server of that name at a time. Clients that connect wait for our welcome.
static bool start_listening(server *s) {
    s->listener = transport_listen(s->name);
    if (s->listener >= 0)
        return true;
    return fail("the socket for \"%s\": %s%s", s->name, strerror(errno),
                errno == EADDRINUSE ? ": another server of that name is running; stop it, or give another --name" : "");
}

// Creates the instance. If one is there (a server was killed), it is taken over: opening gives back what dead clients
// held.
static bool open_instance(server *s) {
    zcp_config config = {0};
    zcp_status status = ZCP_OK;
    for (uint32_t i = 0; i < DEMO_POOLS && status == ZCP_OK; i++)
        status = zcp_config_add_pool(&config, demo_pools[i].chunk_size, demo_pools[i].chunk_count);
    if (status != ZCP_OK)
        return fail_status("zcp_config_add_pool", status);
    status =
        zcp_manager_open(&s->manager, &(zcp_manager_desc){.name = s->name, .config = &config, .client_name = "server"});
    if (status != ZCP_OK)
        return fail_status("zcp_manager_open", status);

    zcp_manager_info info;
    status = zcp_manager_get_info(s->manager, &info);
    if (status != ZCP_OK)
        return fail_status("zcp_manager_get_info", status);
    printf("Instance \"%s\": %s has %" PRIu64 " bytes, %s has %" PRIu64 " bytes\n", info.name, info.management_name,
           info.management_bytes, info.chunk_name, info.chunk_bytes);
    return (info.management_bytes == zcp_config_management_bytes(&config, 0) &&
            info.chunk_bytes == zcp_config_chunk_bytes(&config, 0)) ||
           fail("the segments have other sizes than the configuration says");
}

static bool start(server *s) {
    if (!start_listening(s) || !open_instance(s) || !show_state(s->manager, "Initial state", demo_used_by_nobody))
        return false;
    s->settled = true;
    for (int i = 0; i < DEMO_CHUNKS; i++) {
        if (!allocate(s->manager, demo_server_sizes[i], &s->own[i]))
            return false;
        memset(s->own[i].data, 'A' + i, (size_t)demo_server_sizes[i]);
    }
    if (!show_state(s->manager, "State with the server's chunks", demo_used_by_server))
        return false;
    printf("Ready: the client may start. Ctrl-C stops the server.\n");
    return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// One client

// One that belongs to another user is refused; one that has gone meanwhile is found out by the next receive.
static void welcome_client(server *s) {
    s->connection = transport_accept(s->listener);
    if (s->connection < 0) {
        printf("A connection was refused: %s\n", strerror(errno));
        return;
    }
    printf("A client has come\n");
    if (!transport_set_timeout(s->connection, 1000) || !transport_send(s->connection, MESSAGE_WELCOME, 0))
        printf("It did not take our welcome: %s\n", strerror(errno));
}

// A client that was killed before it took this is no deviation: the next receive finds out that it has gone.
static bool send_to_client(const server *s, message_kind kind, uint64_t token) {
    if (transport_send(s->connection, kind, token))
        return true;
    if (errno != EPIPE && errno != ECONNRESET)
        return fail("sending to the client: %s", strerror(errno));
    printf("The client has gone before it took our answer\n");
    return true;
}

// What a killed client held may be taken back, by the next one that opens, before we read what it sent. The end of its
// connection follows soon.
static bool died_with_its_chunk(const server *s) {
    struct pollfd watched = {.fd = s->connection, .events = POLLRDHUP};
    if (poll(&watched, 1, 1000) <= 0)
        return false;
    printf("The client has died, and its chunk was taken back\n");
    return true;
}

// The client gave us a token. It holds on until it has our acknowledgement, so the chunk cannot go away while it lives.
static bool acquire_from_client(server *s, uint64_t token) {
    if (s->received.manager != NULL)
        return fail("the client sent a second chunk before it took the first one back");
    zcp_status status = zcp_chunk_acquire(s->manager, token, &s->received);
    if (status == ZCP_ERR_STALE && died_with_its_chunk(s))
        return true;
    if (status != ZCP_OK)
        return fail_status("zcp_chunk_acquire", status);
    if (zcp_chunk_use_count(&s->received) == 1 && died_with_its_chunk(s))
        return true;
    printf("Acquired the client's chunk: %" PRIu64 " bytes\n", zcp_chunk_size(&s->received));
    return use_count_is(&s->received, "while both sides hold it", 2) && send_to_client(s, MESSAGE_ACQUIRED, 0);
}

// The client has let go: the chunk is ours alone. Works on the list in place, and sends the chunk back.
static bool answer_client(server *s) {
    if (!use_count_is(&s->received, "after the client's release", 1) || !list_walk(s->manager, &s->received, 1, 10))
        return false;
    printf("Multiplied by 10 in place; sending the chunk back\n");
    uint64_t token = zcp_chunk_token(&s->received);
    return send_to_client(s, MESSAGE_TOKEN, token);
}

// The client has acquired it: now, and not before, we may let go.
static bool let_go(server *s) {
    zcp_chunk_release(&s->received);
    printf("The client has it; released\n");
    return send_to_client(s, MESSAGE_RELEASED, 0);
}

static bool take_message(server *s, const message *got) {
    bool held = s->received.manager != NULL;
    if (got->kind == MESSAGE_TOKEN)
        return acquire_from_client(s, got->token);
    if (got->kind == MESSAGE_RELEASED && held)
        return answer_client(s);
    if (got->kind == MESSAGE_ACQUIRED && held)
        return let_go(s);
    return fail("the client sent something unexpected (kind %" PRIu64 ")", got->kind);
}

// Waits until the pools are as they should be. A client that was killed is seen as dead once the kernel has torn down
// its memory, mostly a moment after its socket was closed; zcp_manager_recover then takes back what it held. (In
// general nobody has to call it: opening the instance and running out of chunks do so.)
static bool await_pools(server *s, const uint64_t used[DEMO_POOLS]) {
    for (int round = 0; round < 100; round++) {
        zcp_recovery report;
        zcp_status status = zcp_manager_recover(s->manager, &report);
        if (status != ZCP_OK)
            return fail_status("zcp_manager_recover", status);
        if (report.dead_clients > 0)
            printf("Took back %" PRIu64 " chunks from %" PRIu32 " client that died\n", report.chunks_reclaimed,
                   report.dead_clients);
        if (pools_have(s->manager, used))
            return true;
        sleep_ms(20);
    }
    return true;                                                   // whoever shows the state next tells what is wrong
}

// The client has closed its end, as it should at the end of its work, or has died: then it is without its chunks, too.
static bool client_has_left(server *s) {
    s->connection = transport_close(s->connection);
    if (s->received.manager != NULL) {
        printf("The client has left in the middle of a hand-over\n");
        zcp_chunk_release(&s->received);
    }
    return await_pools(s, demo_used_by_server)
           && show_state(s->manager, "State after the client has left", demo_used_by_server);
}

static bool serve_client(server *s) {
    message got;
    if (!transport_receive(s->connection, &got)) {
        if (errno != ECONNRESET)
            fail("receiving: %s", strerror(errno));
        return client_has_left(s);
    }
    if (take_message(s, &got))
        return true;
    client_has_left(s);
    return false;
}

// ---------------------------------------------------------------------------------------------------------------------
// The loop

static void print_if_due(server *s) {
    uint64_t now = now_ms();
    if (now < s->next_print)
        return;
    s->next_print = now + s->period_ms;
    if (!show_state(s->manager, "State", s->connection >= 0 ? NULL : demo_used_by_server))
        s->deviations++;
}

// Serves until it is told to stop. A client that goes wrong is a deviation, and no reason to stop.
static bool serve(server *s, const sigset_t *unblocked) {
    s->next_print = now_ms() + s->period_ms;
    while (stop == 0) {
        uint64_t now = now_ms(), left = s->next_print > now ? s->next_print - now : 0;
        struct timespec rest = {.tv_sec = (time_t)(left / 1000), .tv_nsec = (long)(left % 1000) * 1000000};
        struct pollfd watched = {.fd = s->connection >= 0 ? s->connection : s->listener, .events = POLLIN};
        int events = ppoll(&watched, 1, &rest, unblocked);
        if (events < 0 && errno != EINTR)
            return fail("ppoll: %s", strerror(errno));
        if (events > 0 && s->connection < 0)
            welcome_client(s);
        else if (events > 0 && !serve_client(s))
            s->deviations++;
        print_if_due(s);
        if (ferror(stdout))
            return fail("the output cannot be written");
    }
    printf("Stopping: %s\n", strsignal(stop));
    return true;
}

// Gives everything back and removes the instance, whatever has happened before.
static bool clean_up(server *s) {
    bool good = true;
    s->connection = transport_close(s->connection);                // a client that is at work sees it, and ends
    zcp_chunk_release(&s->received);
    for (int i = 0; i < DEMO_CHUNKS; i++)
        zcp_chunk_release(&s->own[i]);                             // releasing an empty handle does nothing
    if (s->settled)
        good = await_pools(s, demo_used_by_nobody) && show_state(s->manager, "Final state", demo_used_by_nobody);
    if (s->settled) {
        zcp_status status = zcp_manager_destroy_this(s->manager);  // never what a successor has made of that name
        if (status != ZCP_OK)
            good = fail_status("zcp_manager_destroy_this", status);
        else
            printf("Closed and destroyed \"%s\"\n", s->name);
    }
    zcp_manager_close(s->manager);
    s->listener = transport_close(s->listener);
    return good;
}

// ---------------------------------------------------------------------------------------------------------------------
// Options. Returns -1 to go on, else the exit status.

static int parse_options(server *s, int argc, char **argv) {
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'},
        {"period", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (option == 'n')
            s->name = optarg;
        else if (option != 'p' || !parse_seconds("period", optarg, 0.01, &s->period_ms))
            return fputs("Try --help.\n", stderr), 2;              // getopt has said what is wrong with an unknown one
    }
    if (optind < argc)
        return fail("unexpected argument \"%s\"; try --help", argv[optind]), 2;
    return -1;
}

int main(int argc, char **argv) {
    server s = {.name = DEMO_NAME, .period_ms = 3000, .listener = -1, .connection = -1};
    sigset_t unblocked;
    open_standard_streams();
    int status = parse_options(&s, argc, argv);
    if (status >= 0)
        return status;
    setvbuf(stdout, NULL, _IOLBF, 0);                              // line by line, also into a pipe
    bool good = catch_signals(&unblocked) && start(&s) && serve(&s, &unblocked);
    good = clean_up(&s) && good && s.deviations == 0;
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
