// demo.c: what `make demo` runs. Starts the demo's server and client twice, once in either order, shows what they
// print, and checks that both end well and leave nothing behind. The exit status is 0 if so, 1 if not, 2 if the options
// are wrong. Whatever becomes of the two (killed, stopped, Ctrl-C), it ends in bounded time, and no process and no
// instance is left.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "common.h"
#include "streams.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
    "Usage: demo [OPTION]...\n"
    "Runs the programs server and client that lie beside this one, first one, then the other in front.\n"
    "\n"
    "  --name NAME        name of the instance (default: " DEMO_NAME "_PID)\n"
    "  --hold SECONDS     how long the client holds its chunks (default: 0.5)\n"
    "  --timeout SECONDS  bound on each of the two rounds (default: 30)\n"
    "  --help             print this, and end\n";

static volatile sig_atomic_t stop;

static void on_stop(int signal_number) {
    stop = signal_number;
}

// ---------------------------------------------------------------------------------------------------------------------
// Children and their output

typedef struct child {
    const char *program;
    pid_t pid;                                                     // 0: not started, or ended
    int status;                                                    // as of waitpid, once it has ended
    int output;                                                    // our end of the pipe; -1: none
    char line[1024];
    size_t length;
    const char *awaited;                                           // the beginning of a line
    bool seen;                                                     // the awaited line has come
} child;

typedef struct demo {
    char directory[PATH_MAX];
    char name[256];
    unsigned hold_ms, timeout_ms;
    uint64_t deadline;
    child server, client;
} demo;

static bool run_child(child *c, const demo *d, const char *option, const char *value) {
    char path[PATH_MAX + 16];
    int ends[2];
    pid_t driver = getpid();
    snprintf(path, sizeof path, "%s/%s", d->directory, c->program);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail("pipe: %s", strerror(errno));
    fflush(stdout);
    c->pid = fork();
    if (c->pid < 0) {
        c->pid = 0;
        close(ends[0]);
        close(ends[1]);
        return fail("fork: %s", strerror(errno));
    }
    if (c->pid == 0) {
        // if we are killed: the server cleans up, the client ends
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != driver)
            _exit(1);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execl(path, c->program, "--name", d->name, option, value, (char *)NULL);
        fail("%s: %s", path, strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    c->output = ends[0];
    c->length = 0;
    printf("%s | starts (pid %ld)\n", c->program, (long)c->pid);
    return true;
}

static void print_line(child *c) {
    c->line[c->length] = 0;
    printf("%s | %s\n", c->program, c->line);
    if (c->awaited != NULL && strncmp(c->line, c->awaited, strlen(c->awaited)) == 0)
        c->seen = true;
    c->length = 0;
}

static void take_output(child *c) {
    char text[4096];
    ssize_t bytes = read(c->output, text, sizeof text);
    for (ssize_t i = 0; i < bytes; i++) {
        if (text[i] != '\n')
            c->line[c->length++] = text[i];
        if (text[i] == '\n' || c->length == sizeof c->line - 1)
            print_line(c);
    }
    if (bytes > 0 || (bytes < 0 && (errno == EINTR || errno == EAGAIN)))
        return;
    if (c->length > 0)
        print_line(c);
    close(c->output);                                              // the end of the output, and so of the process
    c->output = -1;
}

// Notices the end of a process, also of one whose output somebody else keeps open.
static void take_end(child *c) {
    if (c->pid == 0 || waitpid(c->pid, &c->status, WNOHANG) != c->pid)
        return;
    c->pid = 0;
    while (c->output >= 0) {                                       // what it has printed last
        struct pollfd watched = {.fd = c->output, .events = POLLIN};
        if (poll(&watched, 1, 0) <= 0)
            break;
        take_output(c);
    }
}

// Shows what comes, for a short time at most.
static void pump(demo *d) {
    struct pollfd watched[2] = {{.fd = d->server.output, .events = POLLIN}, {.fd = d->client.output, .events = POLLIN}};
    bool any = poll(watched, 2, 20) > 0;                           // a descriptor of -1 is passed over
    if (any && watched[0].revents != 0)
        take_output(&d->server);
    if (any && watched[1].revents != 0)
        take_output(&d->client);
    take_end(&d->server);
    take_end(&d->client);
}

static bool may_go_on(const demo *d) {
    if (stop != 0)
        return fail("stopped: %s", strsignal(stop));
    return now_ms() < d->deadline || fail("the time is over");
}

// Waits for a line that begins so.
static bool await_line(demo *d, child *c, const char *beginning) {
    c->awaited = beginning;
    c->seen = false;
    while (!c->seen) {
        if (c->pid == 0)
            return fail("the %s ended before it printed \"%s\"", c->program, beginning);
        if (!may_go_on(d))
            return fail("the %s did not print \"%s\"", c->program, beginning);
        pump(d);
    }
    c->awaited = NULL;
    return true;
}

static bool await_end(demo *d, child *c) {
    while (c->pid != 0) {
        if (!may_go_on(d))
            return fail("the %s did not end", c->program);
        pump(d);
    }
    if (WIFSIGNALED(c->status))
        return fail("the %s was ended by a signal: %s", c->program, strsignal(WTERMSIG(c->status)));
    return c->status == 0 || fail("the %s ended with status %d", c->program, WEXITSTATUS(c->status));
}

// ---------------------------------------------------------------------------------------------------------------------
// Rounds

static bool start_server(demo *d) {
    return run_child(&d->server, d, "--period", "0.2");
}

static bool start_client(demo *d) {
    char hold[32];
    snprintf(hold, sizeof hold, "%u.%03u", d->hold_ms / 1000, d->hold_ms % 1000);
    return run_child(&d->client, d, "--hold", hold);
}

static bool start_both(demo *d, bool server_first) {
    if (server_first)
        return start_server(d) && await_line(d, &d->server, "Ready") && start_client(d);
    return start_client(d) && await_line(d, &d->client, "Waiting") && start_server(d)
           && await_line(d, &d->server, "Ready");
}

// Ends what still runs: politely, and after two seconds with SIGKILL, which also ends a process that is stopped.
static void end_children(demo *d) {
    child *children[] = {&d->client, &d->server};
    uint64_t patience = now_ms() + 2000;
    for (int i = 0; i < 2; i++)
        if (children[i]->pid != 0)
            kill(children[i]->pid, SIGTERM);
    while ((d->client.pid != 0 || d->server.pid != 0) && now_ms() < patience)
        pump(d);
    for (int i = 0; i < 2; i++) {
        child *c = children[i];
        if (c->pid != 0) {
            kill(c->pid, SIGKILL);
            while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR) {
            }
            c->pid = 0;
        }
        if (c->output >= 0)
            close(c->output);
        c->output = -1;
    }
}

// The server has removed the instance, so there is nothing to destroy. Else it is destroyed now.
static bool nothing_is_left(const demo *d) {
    zcp_status status = zcp_manager_destroy(d->name);
    if (status == ZCP_ERR_NOT_FOUND)
        return true;
    if (status != ZCP_OK)
        return fail_status("zcp_manager_destroy", status);
    return fail("the instance \"%s\" was left behind; removed", d->name);
}

static bool run_round(demo *d, bool server_first, int stop_signal) {
    d->deadline = now_ms() + d->timeout_ms;
    bool good = start_both(d, server_first) && await_end(d, &d->client) &&
                await_line(d, &d->server, "State:");               // the next periodic one: the server goes on
    if (good)
        kill(d->server.pid, stop_signal);
    good = good && await_end(d, &d->server);
    end_children(d);
    return nothing_is_left(d) && good;
}

// ---------------------------------------------------------------------------------------------------------------------
// Options. Returns -1 to go on, else the exit status.

static int parse_options(demo *d, int argc, char **argv) {
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'},
        {"hold", required_argument, NULL, 'o'},
        {"timeout", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    snprintf(d->name, sizeof d->name, "%s_%ld", DEMO_NAME, (long)getpid());
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (option == 'n')
            snprintf(d->name, sizeof d->name, "%s", optarg);
        else if ((option != 'o' || !parse_seconds("hold", optarg, 0, &d->hold_ms)) &&
                 (option != 't' || !parse_seconds("timeout", optarg, 0.01, &d->timeout_ms)))
            return fputs("Try --help.\n", stderr), 2;              // getopt has said what is wrong with an unknown one
    }
    if (optind < argc)
        return fail("unexpected argument \"%s\"; try --help", argv[optind]), 2;
    return -1;
}

static bool prepare(demo *d) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_stop};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        if (sigaction(signals[i], &action, NULL) != 0)
            return fail("sigaction: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    ssize_t bytes = readlink("/proc/self/exe", d->directory, sizeof d->directory - 1);
    if (bytes < 0)
        return fail("/proc/self/exe: %s", strerror(errno));
    d->directory[bytes] = 0;
    *strrchr(d->directory, '/') = 0;
    return true;
}

int main(int argc, char **argv) {
    demo d = {.hold_ms = 500, .timeout_ms = 30000};
    d.server = (child){.program = "server", .output = -1};
    d.client = (child){.program = "client", .output = -1};
    open_standard_streams();
    int status = parse_options(&d, argc, argv);
    if (status >= 0)
        return status;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!prepare(&d))
        return 1;
    printf("Round 1: the server starts first, and is stopped by SIGINT (Ctrl-C)\n");
    bool good = run_round(&d, true, SIGINT);
    if (good) {
        printf("\nRound 2: the client starts first, and the server is stopped by SIGTERM\n");
        good = run_round(&d, false, SIGTERM);
    }
    if (good)
        printf(
            "\nThe demo went as it should: server and client exchanged chunks in both rounds, and nothing is left.\n");
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
