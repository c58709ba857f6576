// crash.c: a show of what a crash leaves and how it is cleared up. Three workers exchange chunks; two of them are
// killed with SIGKILL while they hold some. In between the tool (build/zerocp, see inspect.c) is run on the instance,
// so that one sees what it sees: whose chunks they are, what looks leaked, and what comes back.
//
// Every figure is checked. The exit status is 0 if all were as expected, 1 if not, 2 if the options are wrong.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "common.h"
#include "streams.h"

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static const char usage[] =
    "Usage: crash [OPTION]...\n"
    "Kills processes that hold chunks, and shows with the tool what becomes of the chunks.\n"
    "\n"
    "  --name NAME   name of the instance (default: zerocp_crash_PID)\n"
    "  --help        print this, and end\n";

// What the chunks are for: their tags.
enum { TAG_FRAME = 1, TAG_RESULT = 2, TAG_LOG = 3 };
enum { FRAMES = 5, FRAMES_TO_DETECTOR = 2, FRAMES_TO_LOGGER = 1, RESULTS = 3, LINES = 4, MOST = 8 };

typedef struct worker {
    const char *name;
    uint32_t tag, count;                                           // of the chunks that it allocates
    uint64_t size;
    uint32_t borrows;                                              // frames that it gets from the camera
    pid_t pid;                                                     // 0: it does not run
    // pipes: tokens to it; a byte from it for each step done
    int frames[2], ready[2];
} worker;

typedef struct show {
    char name[256], tool[PATH_MAX + 16];
    zcp_manager *manager;
    worker camera, detector, logger;
} show;

// ---------------------------------------------------------------------------------------------------------------------
// Workers. They end by a signal: SIGTERM lets them clean up, SIGKILL does not.

static bool send_frames(worker *to, const zcp_chunk *frames) {
    for (uint32_t i = 0; i < to->borrows; i++) {
        uint64_t token = zcp_chunk_token(&frames[i]);
        if (write(to->frames[1], &token, sizeof token) != (ssize_t)sizeof token)
            return fail("the frames' pipe: %s", strerror(errno));
    }
    return true;
}

static bool borrow_frames(worker *w, zcp_manager *manager, zcp_chunk *held) {
    for (uint32_t i = 0; i < w->borrows; i++) {
        uint64_t token;
        if (read(w->frames[0], &token, sizeof token) != (ssize_t)sizeof token)
            return fail("the frames' pipe: %s", strerror(errno));
        zcp_status status = zcp_chunk_acquire(manager, token, &held[i]);
        if (status != ZCP_OK)
            return fail_status("zcp_chunk_acquire", status);
    }
    return true;
}

// Holds what it has until it is told to end.
static bool work(show *s, worker *w) {
    zcp_manager *manager;
    zcp_chunk own[MOST] = {{0}}, borrowed[MOST] = {{0}};
    sigset_t end;
    int signal_number;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigprocmask(SIG_BLOCK, &end, NULL);
    zcp_status status = zcp_manager_open(
        &manager, &(zcp_manager_desc){.name = s->name, .mode = ZCP_SHM_OPEN_EXISTING, .client_name = w->name});
    for (uint32_t i = 0; i < w->count && status == ZCP_OK; i++)
        status = zcp_chunk_allocate_tagged(manager, w->size, w->tag, &own[i]);
    if (status != ZCP_OK)
        return fail_status(w->name, status);
    if (w == &s->camera && !(send_frames(&s->detector, own) && send_frames(&s->logger, own + FRAMES_TO_DETECTOR)))
        return false;
    if (!borrow_frames(w, manager, borrowed) || write(w->ready[1], "", 1) != 1)
        return false;
    sigwait(&end, &signal_number);
    for (uint32_t i = 0; i < MOST; i++) {
        zcp_chunk_release(&own[i]);
        zcp_chunk_release(&borrowed[i]);
    }
    zcp_manager_close(manager);
    return true;
}

static bool start_worker(show *s, worker *w) {
    pid_t parent = getpid();
    fflush(stdout);
    w->pid = fork();
    if (w->pid < 0) {
        w->pid = 0;
        return fail("fork: %s", strerror(errno));
    }
    if (w->pid > 0)
        return true;
    prctl(PR_SET_PDEATHSIG, SIGKILL);                              // nobody is left over if we are killed
    _exit(getppid() != parent || !work(s, w));
}

static bool start_workers(show *s) {
    worker *const workers[] = {&s->camera, &s->detector, &s->logger};
    for (int i = 0; i < 3; i++)
        if (pipe2(workers[i]->frames, O_CLOEXEC) != 0 || pipe2(workers[i]->ready, O_CLOEXEC) != 0)
            return fail("pipe: %s", strerror(errno));
    for (int i = 0; i < 3; i++)
        if (!start_worker(s, workers[i]))
            return false;
    for (int i = 0; i < 3; i++) {
        char byte;
        close(workers[i]->ready[1]);                               // so that its end is seen
        if (read(workers[i]->ready[0], &byte, 1) != 1)
            return fail("the %s ended too early", workers[i]->name);
    }
    return true;
}

static bool end_worker(worker *w, int signal_number) {
    int status = 0;
    if (w->pid == 0)
        return true;
    kill(w->pid, signal_number);
    while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR) {
    }
    w->pid = 0;
    if (signal_number == SIGKILL)
        printf("Killed the %s\n", w->name);
    return signal_number == SIGKILL || status == 0 || fail("the %s ended with status %x", w->name, (unsigned)status);
}

// ---------------------------------------------------------------------------------------------------------------------
// The tool

// Runs it on our instance; it has to end with that status.
static bool run_tool(show *s, const char *command, int expected) {
    int status = 0;
    printf("\n$ zerocp %s %s\n", command, s->name);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl(s->tool, "zerocp", command, s->name, (char *)NULL);
        fail("%s: %s", s->tool, strerror(errno));
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == expected) ||
           fail("zerocp %s ended with status %x, expected to exit with %d", command, (unsigned)status, expected);
}

// By the library: so many chunks in use in the two pools.
static bool in_use(show *s, uint64_t small, uint64_t large) {
    zcp_pool_stats stats[2];
    if (zcp_manager_pool_stats(s->manager, 0, &stats[0]) != ZCP_OK
        || zcp_manager_pool_stats(s->manager, 1, &stats[1]) != ZCP_OK)
        return fail("zcp_manager_pool_stats: %s", zcp_last_message());
    return (stats[0].used == small && stats[1].used == large)
           || fail("%" PRIu64 " and %" PRIu64 " chunks are in use, expected: %" PRIu64 " and %" PRIu64, stats[0].used,
                   stats[1].used, small, large);
}

// ---------------------------------------------------------------------------------------------------------------------
// The show

static bool create(show *s) {
    zcp_config config = {0};
    zcp_config_add_pool(&config, 256, 32);
    zcp_config_add_pool(&config, 4096, 16);
    zcp_status status = zcp_manager_open(
        &s->manager, &(zcp_manager_desc){
                         .name = s->name, .mode = ZCP_SHM_CREATE_EXCLUSIVE, .config = &config, .client_name = "crash"});
    return status == ZCP_OK || fail_status("zcp_manager_open", status);
}

static bool perform(show *s) {
    printf("A camera, a detector and a logger: the camera hands %d frames to the detector and %d to the logger\n",
           FRAMES_TO_DETECTOR, FRAMES_TO_LOGGER);
    if (!start_workers(s) || !in_use(s, RESULTS + LINES, FRAMES) || !run_tool(s, "show", 0) || !run_tool(s, "leaks", 0))
        return false;
    printf("\n");
    if (!end_worker(&s->camera, SIGKILL) || !end_worker(&s->detector, SIGKILL))
        return false;
    if (!in_use(s, RESULTS + LINES, FRAMES) || !run_tool(s, "clients", 0) || !run_tool(s, "leaks", 1)
        || !run_tool(s, "check", 1))
        return false;
    if (!run_tool(s, "recover", 0) || !in_use(s, LINES, FRAMES_TO_LOGGER))
        return false;
    printf("\nAll is back but what the logger holds, which is undisturbed:\n");
    if (!run_tool(s, "clients", 0) || !run_tool(s, "leaks", 0) || !run_tool(s, "check", 0))
        return false;
    return end_worker(&s->logger, SIGTERM) && in_use(s, 0, 0);
}

// Ends what still runs, and removes the instance.
static bool clean_up(show *s) {
    worker *const workers[] = {&s->camera, &s->detector, &s->logger};
    for (int i = 0; i < 3; i++)
        end_worker(workers[i], SIGKILL);
    zcp_manager_close(s->manager);
    zcp_status status = s->manager != NULL ? zcp_manager_destroy(s->name) : ZCP_OK;
    return status == ZCP_OK || fail_status("zcp_manager_destroy", status);
}

static bool find_tool(show *s) {
    ssize_t bytes = readlink("/proc/self/exe", s->tool, PATH_MAX - 1);
    if (bytes < 0)
        return fail("/proc/self/exe: %s", strerror(errno));
    s->tool[bytes] = 0;
    for (int i = 0; i < 2; i++)                                    // BUILD/demo/crash -> BUILD
        *strrchr(s->tool, '/') = 0;
    strcat(s->tool, "/zerocp");
    return access(s->tool, X_OK) == 0 || fail("%s: %s; make tools builds it", s->tool, strerror(errno));
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    show s = {
        .camera = {.name = "camera", .tag = TAG_FRAME, .count = FRAMES, .size = 3000},
        .detector =
            {.name = "detector", .tag = TAG_RESULT, .count = RESULTS, .size = 200, .borrows = FRAMES_TO_DETECTOR},
        .logger = {.name = "logger", .tag = TAG_LOG, .count = LINES, .size = 100, .borrows = FRAMES_TO_LOGGER},
    };
    open_standard_streams();
    snprintf(s.name, sizeof s.name, "zerocp_crash_%ld", (long)getpid());
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h')
            return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
        if (option != 'n')
            return fputs("Try --help.\n", stderr), 2;              // getopt has said what is wrong with it
        snprintf(s.name, sizeof s.name, "%s", optarg);
    }
    if (optind < argc)
        return fail("unexpected argument \"%s\"; try --help", argv[optind]), 2;
    signal(SIGPIPE, SIG_IGN);                                      // `crash | head`: clean up all the same
    bool good = find_tool(&s) && create(&s) && perform(&s);
    good = clean_up(&s) && good;
    if (good)
        printf("\nThe show went as it should: two processes were killed, all that they held came back, and nothing is "
               "left.\n");
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
