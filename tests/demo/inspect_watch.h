// inspect_watch.h: the commands that look again and again: watch and record.
#ifndef INSPECT_WATCH_H
#define INSPECT_WATCH_H

#include "inspect_tool.h"

#include <poll.h>
#include <sys/ioctl.h>

// ---------------------------------------------------------------------------------------------------------------------
// watch, record

static volatile sig_atomic_t stop;

static void on_stop(int signal_number) {
    stop = signal_number;
}

// The signals are blocked but for the moments in which ppoll waits, so none is missed between looking at `stop` and
// waiting.
static void catch_signals(tool *t) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t blocked;
    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction action = {.sa_handler = on_stop}, before;
        sigaddset(&blocked, signals[i]);
        if (sigaction(signals[i], &action, &before) == 0 && signals[i] == SIGHUP && before.sa_handler == SIG_IGN)
            sigaction(signals[i], &before, NULL);                  // started by nohup
    }
    sigprocmask(SIG_BLOCK, &blocked, &t->unblocked);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigdelset(&t->unblocked, signals[i]);
}

// Waits until that moment; false: a signal has come.
static bool wait_until(tool *t, uint64_t deadline_ns) {
    for (uint64_t now = zcp_priv_now_ns(); !stop && now < deadline_ns; now = zcp_priv_now_ns()) {
        struct timespec rest = {.tv_sec = (time_t)((deadline_ns - now) / 1000000000),
                                .tv_nsec = (long)((deadline_ns - now) % 1000000000)};
        ppoll(NULL, 0, &rest, &t->unblocked);
    }
    return !stop;
}

// On a terminal each frame overwrites the last one, and as many lines are shown as there is room for. The cursor is
// hidden and lines are cut only while a frame is written: whenever the tool is stopped or killed, the terminal is as it
// was.
static bool deliver_to_terminal(tool *t, bool clear) {
    report *r = &t->report;
    struct winsize size = {.ws_row = 0};
    report_end(r);
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    unsigned room = size.ws_row > 2 ? size.ws_row - 1u : UINT32_MAX;
    fputs(clear ? "\033[?25l\033[?7l\033[2J\033[H" : "\033[?25l\033[?7l\033[H", stdout);
    char *line = r->text;
    for (char *end; (end = strchr(line, '\n')) != NULL && room > 0; line = end + 1, room--) {
        fwrite(line, 1, (size_t)(end - line), stdout);
        fputs("\033[K\n", stdout);
    }
    fputs("\033[0m\033[J\033[?7h\033[?25h", stdout);
    if (fflush(stdout) != 0 || ferror(stdout))
        t->write_error = errno;
    return t->write_error == 0;
}

static bool frame_of_watch(tool *t, bool rates) {
    report *r = &t->report;
    const snapshot *s = &t->now;
    bool terminal = r->format == REPORT_TEXT && isatty(STDOUT_FILENO);
    report_begin(r);
    report_field(r, "time", NULL, v_time(s->wall_ns));
    report_counts(r, s);
    report_field(r, "instance_id", NULL, v_hex(s->info.instance_id));
    report_field(r, "replaced", t->replaced ? "Replaced" : NULL, v_alarm(t->replaced, YELLOW));
    report_field(r, "used_bytes", "In use", v_bytes(s->used_bytes));
    report_gap(r);
    r->view = VIEW_WATCH;
    report_pools(r, s, rates ? &t->before : NULL);
    report_gap(r);
    report_clients(r, &s->clients);
    if (terminal)
        return deliver_to_terminal(t, !rates);
    report_gap(r);
    return deliver(t);
}

static bool frame_of_record(tool *t, bool rates) {
    static const column columns[] = {
        {"time", NULL, 0}, {"elapsed_seconds", NULL, 0}, {"instance_id", NULL, 0}, {"pool", NULL, 0},
        {"chunk_size", NULL, 0}, {"total", NULL, 0},
        {"used", NULL, 0}, {"cached", NULL, 0}, {"free", NULL, 0}, {"peak_used", NULL, 0}, {"allocations", NULL, 0},
        {"releases", NULL, 0},
        {"failures", NULL, 0}, {"waits", NULL, 0}, {"disturbed", NULL, 0}, {"allocations_per_second", NULL, 0},
        {"releases_per_second", NULL, 0}, {"clients_alive", NULL, 0},
        {"clients_dead", NULL, 0},
    };
    static uint64_t began;
    report *r = &t->report;
    const snapshot *s = &t->now;
    uint64_t ns = rates ? s->ns - t->before.ns : 0;
    began = began ? began : s->ns;
    report_begin(r);
    TABLE_BEGIN(r, "samples", columns);
    for (uint32_t p = 0; p < s->pool_count; p++) {
        static const zcp_pool_stats nothing;
        const zcp_pool_stats *is = &s->pools[p],
                             *was = rates && p < t->before.pool_count ? &t->before.pools[p] : &nothing;
        if (is->state != ZCP_POOL_NONE)
            TABLE_ROW(r, v_time(s->wall_ns), v_real((double)(s->ns - began) / 1e9), v_hex(s->info.instance_id),
                      v_number(p), v_number(is->chunk_size), v_number(is->total), v_number(is->used),
                      v_number(is->cached), v_number(is->free), v_number(is->peak_used), v_number(is->allocations),
                      v_number(is->releases), v_number(is->failures), v_number(is->waits), v_number(is->disturbed),
                      rate_of(is->allocations, was->allocations, ns), rate_of(is->releases, was->releases, ns),
                      v_number(s->clients.alive), v_number(s->clients.dead));
    }
    table_end(r);
    return deliver(t);
}

// The instance was destroyed or replaced. Says so, and goes over to the one that has its name now; for which it waits
// for a moment, because between destruction and creation there is one, and with --follow without an end. false: that is
// all, and *status is to be the exit status.
static bool follow(tool *t, int *status) {
    uint64_t patience = zcp_priv_now_ns() + 500000000;
    zcp_status opened;
    zcp_manager_close(t->manager);
    t->manager = NULL;
    if (given(t, OPTION_FOLLOW))
        fprintf(stderr, "zerocp: the instance was destroyed: waiting for the next one of its name\n");
    while ((opened = observe(t)) == ZCP_ERR_NOT_FOUND && (given(t, OPTION_FOLLOW) || zcp_priv_now_ns() < patience))
        if (!wait_until(t, zcp_priv_now_ns() + 20000000))
            return false;
    if (opened == ZCP_OK) {
        fprintf(stderr, "zerocp: the instance was replaced: showing the new one of that name from here on\n");
        t->replaced++;
        return true;
    }
    *status = fail(t, opened, "--follow waits for the next one of its name", "the instance was destroyed: %s",
                   zcp_last_message());
    return false;
}

// A frame per interval, until --count of them are shown, a signal comes, nobody reads any more, or the instance is
// gone.
static int repeat(tool *t, bool (*frame)(tool *t, bool rates)) {
    bool rates = false;
    int status = look(t);
    catch_signals(t);
    if (status != 0)
        return status;
    uint64_t next = t->now.ns;
    for (uint64_t shown = 0;;) {
        if (!frame(t, rates) || ++shown == t->count)
            return 0;
        t->before = t->now;
        next += (uint64_t)t->interval_ms * 1000000;
        if (next < zcp_priv_now_ns())
            // it was stopped meanwhile: no frames are made up for
            next = zcp_priv_now_ns();
        if (!wait_until(t, next))
            return 0;
        rates = zcp_manager_check(t->manager) == ZCP_OK;
        if (!rates && !follow(t, &status))
            return status;
        zcp_status taken = take_snapshot(t->manager, &t->now);
        if (taken != ZCP_OK)
            return fail_status(t, taken);
    }
}

static int run_watch(tool *t) {
    return repeat(t, frame_of_watch);
}

static int run_record(tool *t) {
    if (t->report.format == REPORT_TEXT)
        t->report.format = REPORT_CSV;
    return repeat(t, frame_of_record);
}

#endif
