// bench/plot.c: see plot.h. Two kinds: bars, a row for each system on a logarithmic scale, and curves with both scales
// logarithmic. Quartiles are drawn as thin lines over a bar's end, and around a curve's points.
#include "plot.h"

#include "kit.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

enum { WIDTH = 860, LEFT = 165, TOP = 84, LEGEND = 170, MAX_SERIES = 16, MAX_AT = 32, MAX_ROWS = 20, MAX_PARTS = 4 };

typedef struct at {
    double x, y, low, high;                                        // y 0: nothing there
} at;

typedef struct curve {
    char name[48];
    at points[MAX_AT];
    int count;
    bool dashed;
} curve;

typedef struct curves {
    const char *title, *x_label, *y_label;
    bool x_bytes;
    curve all[MAX_SERIES];
    int count;
} curves;

typedef struct bars {
    const char *title, *label, *parts[MAX_PARTS];                  // parts: a bar each in every row
    char rows[MAX_ROWS][40];
    at values[MAX_ROWS][MAX_PARTS];
    int row_count, part_count;
} bars;

// Dark enough on the panel, and told apart also by who sees no red or no green (after Okabe and Ito, and Tol).
static const struct {
    const char *system, *colour;
} colours[] = {
    {"zerocp", "#d1495b"},        {"zerocp-cached", "#8c1c3a"}, {"clock", "#444444"},        {"malloc", "#777777"},
    {"mutex", "#a6761d"},         {"stack", "#2b7a78"},         {"slots", "#999999"},        {"iceoryx", "#1b6ca8"},
    {"boost-managed", "#6a4c93"}, {"boost-node", "#9b72cf"},    {"boost-cached", "#c39bd3"}, {"dpdk", "#3c8d2f"},
    {"dpdk-cached", "#7fb800"},   {"memcpy", "#1b6ca8"},        {"pipe", "#3c8d2f"},         {"socket", "#a6761d"},
    {"tokens", "#e07a2f"},        {"futex", "#999999"},         {"seqpacket", "#a6761d"},    {"zmq", "#6a4c93"},
    {"nng", "#2b7a78"},           {"fastdds", "#5b8db8"},       {"boost-queue", "#c39bd3"},
};

static const char *colour_of(const char *system) {
    for (size_t i = 0; i < sizeof colours / sizeof colours[0]; i++)
        if (strncmp(system, colours[i].system, strlen(colours[i].system)) == 0
            && (system[strlen(colours[i].system)] == 0 || system[strlen(colours[i].system)] == ' '))
            return colours[i].colour;
    return colours[0].colour;                                      // a state of zerocp's own
}

// ---------------------------------------------------------------------------------------------------------------------
// Drawing

static FILE *out;

static void text(double x, double y, const char *anchor, const char *attributes, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static void text(double x, double y, const char *anchor, const char *attributes, const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>", x, y, anchor, attributes);
    for (const char *c = line; *c; c++)
        *c == '<' ? fputs("&lt;", out) : *c == '&' ? fputs("&amp;", out) : fputc(*c, out);
    fputs("</text>\n", out);
}

static void line(double x1, double y1, double x2, double y2, const char *colour, double width) {
    fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%.1f\"/>\n", x1,
            y1, x2, y2, colour, width);
}

static bool chart_open(const char *directory, const char *name, const char *title, const record_table *table,
                       int height) {
    char path[512];
    const char *cpu = record_fact_of(table, "cpu"), *cpus_text = record_fact_of(table, "cpus"),
               *compiler = record_fact_of(table, "compiler");
    const char *transfer = record_fact_of(table, "transfer_ns");
    snprintf(path, sizeof path, "%s/%s.svg", directory, name);
    out = fopen(path, "w");
    if (!out) {
        fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
        return false;
    }
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "font-family=\"Helvetica, Arial, sans-serif\" "
            "font-size=\"13\" fill=\"#222222\">\n<rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#fbfbf9\" "
            "stroke=\"#cccccc\"/>\n",
            WIDTH, height, WIDTH, height, WIDTH, height);
    text(20, 28, "start", "font-size=\"17\" font-weight=\"bold\"", "%s", title);
    text(20, 50, "start", "font-size=\"12\" fill=\"#555555\"",
         "%s, CPUs: %s; %s; a cache line to the other CPU: %s ns at the start", cpu ? cpu : "?",
         cpus_text ? cpus_text : "?", compiler ? compiler : "?", transfer ? transfer : "?");
    return true;
}

static bool chart_close(void) {
    fputs("</svg>\n", out);
    bool good = !ferror(out);
    return fclose(out) == 0 && good;
}

// A figure with its unit, for nanoseconds.
static const char *human(double ns, char buffer[32]) {
    const char *unit = "ns";
    if (ns >= 999.5e6)
        ns /= 1e9, unit = "s";
    else if (ns >= 999.5e3)
        ns /= 1e6, unit = "ms";
    else if (ns >= 999.5)
        ns /= 1e3, unit = "us";
    snprintf(buffer, 32, ns < 9.95 ? "%.1f %s" : "%.0f %s", ns, unit);
    return buffer;
}

typedef struct axis {
    double least, most, from, to;                                  // values, and where they are drawn
} axis;

static double place(const axis *a, double value) {
    return a->from + (a->to - a->from) * (log(value) - log(a->least)) / (log(a->most) - log(a->least));
}

// From the power of ten, or half of it, below the least to the one above the most.
static axis axis_of(double least, double most, double from, double to) {
    axis a = {pow(10, floor(log10(least))), pow(10, ceil(log10(most))), from, to};
    if (a.least * 3 < least)
        a.least *= 3;
    if (a.most / 3 > most)
        a.most /= 3;
    if (a.most <= a.least * 1.01)
        a.most = a.least * 10;
    return a;
}

// ---------------------------------------------------------------------------------------------------------------------
// Bars: a row for each system, in it a bar for each part, paler and paler.

static const double opacities[MAX_PARTS] = {1, 0.62, 0.38, 0.2};

static void bars_axis(const axis *x, double bottom, const char *label) {
    char number[32];
    for (double tick = pow(10, floor(log10(x->least))); tick <= x->most * 1.001; tick *= 10)
        for (int part = 1; part <= 3; part += 2)
            if (tick * part >= x->least * 0.999 && tick * part <= x->most * 1.001) {
                double at_x = place(x, tick * part);
                line(at_x, TOP, at_x, bottom, part == 1 ? "#d5d5d5" : "#eaeaea", 1);
                if (part == 1 || x->most < 1000 * x->least)
                    text(at_x, bottom + 18, "middle", "fill=\"#555555\"", "%s", human(tick * part, number));
            }
    text((x->from + x->to) / 2, bottom + 38, "middle", "", "%s", label);
}

static void bar(const axis *x, double y, const at *p, const char *colour, double opacity) {
    char number[32];
    double end = place(x, p->y), most = end;
    fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"12\" fill=\"%s\" fill-opacity=\"%.2f\"/>\n",
            x->from, y, end - x->from < 1 ? 1 : end - x->from, colour, opacity);
    if (p->low > 0 && p->high > p->low) {
        double low = place(x, p->low < x->least ? x->least : p->low),
               high = place(x, p->high > x->most ? x->most : p->high);
        line(low, y + 6, high, y + 6, "#222222", 1.5);
        most = high > most ? high : most;
    }
    text(most + 6, y + 11, "start", "font-size=\"12\"", "%s", human(p->y, number));
}

static void bars_legend(const bars *b) {
    double x = LEFT;
    for (int i = 0; b->part_count > 1 && i < b->part_count; i++) {
        fprintf(out, "<rect x=\"%.1f\" y=\"61\" width=\"12\" height=\"12\" fill=\"#444444\" fill-opacity=\"%.2f\"/>\n",
                x, opacities[i]);
        text(x + 17, 72, "start", "font-size=\"12\"", "%s", b->parts[i]);
        x += 40 + 7.2 * (double)strlen(b->parts[i]);
    }
}

static bool bars_write(const char *directory, const char *name, const bars *b, const record_table *table) {
    const int each = b->part_count * 14 + 9, bottom = TOP + b->row_count * each;
    double least = 1e300, most = 0;
    for (int row = 0; row < b->row_count; row++)
        for (int part = 0; part < b->part_count; part++)
            if (b->values[row][part].y > 0) {
                least = fmin(least, b->values[row][part].y);
                most = fmax(most, fmax(b->values[row][part].y, b->values[row][part].high));
            }
    if (most == 0)
        return true;
    axis x = axis_of(least / 1.6, most, LEFT, WIDTH - 95);
    if (!chart_open(directory, name, b->title, table, bottom + 52))
        return false;
    bars_axis(&x, bottom, b->label);
    bars_legend(b);
    for (int row = 0; row < b->row_count; row++) {
        for (int part = 0; part < b->part_count; part++)
            if (b->values[row][part].y > 0)
                bar(&x, TOP + row * each + 5 + part * 14, &b->values[row][part], colour_of(b->rows[row]),
                    opacities[part]);
        text(LEFT - 8, TOP + row * each + each / 2.0 + 5, "end", "", "%s", b->rows[row]);
    }
    return chart_close();
}

// ---------------------------------------------------------------------------------------------------------------------
// Curves

static const char *human_bytes(double bytes, char buffer[32]) {
    const char *unit = "B";
    if (bytes >= 1 << 20)
        bytes /= 1 << 20, unit = "MiB";
    else if (bytes >= 1024)
        bytes /= 1024, unit = "KiB";
    snprintf(buffer, 32, "%.0f %s", bytes, unit);
    return buffer;
}

static const char *human_count(double count, char buffer[32]) {
    snprintf(buffer, 32, count >= 1e6 ? "%.0f M" : count >= 1e3 ? "%.0f k" : "%.0f",
             count >= 1e6 ? count / 1e6 : count >= 1e3 ? count / 1e3 : count);
    return buffer;
}

static void curves_axes(const curves *c, const axis *x, const axis *y) {
    char number[32];
    bool times = strstr(c->y_label, "time") != NULL;
    for (double tick = pow(10, floor(log10(y->least))); tick <= y->most * 1.001; tick *= 10)
        for (int part = 1; part <= 3; part += 2)
            if (tick * part >= y->least * 0.999 && tick * part <= y->most * 1.001) {
                double at_y = place(y, tick * part);
                line(x->from, at_y, x->to, at_y, part == 1 ? "#d5d5d5" : "#eaeaea", 1);
                if (times)
                    human(tick * part, number);
                else
                    snprintf(number, sizeof number, "%g", tick * part);
                text(x->from - 8, at_y + 4, "end", "fill=\"#555555\"", "%s", number);
            }
    const curve *longest = &c->all[0];
    for (int i = 1; i < c->count; i++)
        longest = c->all[i].count > longest->count ? &c->all[i] : longest;
    for (int i = 0; i < longest->count; i++) {
        double at_x = place(x, longest->points[i].x);
        line(at_x, y->from, at_x, y->to, "#eaeaea", 1);
        text(at_x, y->from + 18, "middle", "fill=\"#555555\"", "%s",
             c->x_bytes ? human_bytes(longest->points[i].x, number) : human_count(longest->points[i].x, number));
    }
    text((x->from + x->to) / 2, y->from + 40, "middle", "", "%s", c->x_label);
    fprintf(out, "<text transform=\"translate(22 %.1f) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
            (y->from + y->to) / 2, c->y_label);
}

static void curve_draw(const curve *c, const axis *x, const axis *y) {
    const char *colour = colour_of(c->name);
    fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"", colour,
            c->dashed ? " stroke-dasharray=\"6 4\"" : "");
    for (int i = 0; i < c->count; i++)
        fprintf(out, "%.1f,%.1f ", place(x, c->points[i].x), place(y, c->points[i].y));
    fputs("\"/>\n", out);
    for (int i = 0; i < c->count; i++) {
        const at *p = &c->points[i];
        line(place(x, p->x), place(y, p->low), place(x, p->x), place(y, p->high), colour, 1);
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", place(x, p->x), place(y, p->y), colour);
    }
}

static bool curves_write(const char *directory, const char *name, const curves *c, const record_table *table) {
    enum { HEIGHT = 500 };
    double least[2] = {1e300, 1e300}, most[2] = {0, 0};
    int drawn = 0;
    for (int i = 0; i < c->count; i++)
        for (int j = 0; j < c->all[i].count; j++) {
            const at *p = &c->all[i].points[j];
            least[0] = fmin(least[0], p->x), most[0] = fmax(most[0], p->x);
            least[1] = fmin(least[1], p->low), most[1] = fmax(most[1], p->high);
            drawn++;
        }
    if (drawn == 0 || most[0] <= least[0])
        return true;
    axis x = {least[0], most[0], 90, WIDTH - LEGEND - 20}, y = axis_of(least[1], most[1], HEIGHT - 56, TOP);
    if (!chart_open(directory, name, c->title, table, HEIGHT))
        return false;
    curves_axes(c, &x, &y);
    for (int i = 0; i < c->count; i++) {
        double legend_y = TOP + 8 + 20 * i;
        curve_draw(&c->all[i], &x, &y);
        fprintf(out, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"3\"%s/>\n",
                WIDTH - LEGEND, legend_y, WIDTH - LEGEND + 24, legend_y, colour_of(c->all[i].name),
                c->all[i].dashed ? " stroke-dasharray=\"6 4\"" : "");
        text(WIDTH - LEGEND + 30, legend_y + 4, "start", "font-size=\"12\"", "%s", c->all[i].name);
    }
    return chart_close();
}

// ---------------------------------------------------------------------------------------------------------------------
// Which figures go where

static int bars_row(bars *b, const char *name) {
    for (int i = 0; i < b->row_count; i++)
        if (strcmp(b->rows[i], name) == 0)
            return i;
    if (b->row_count == MAX_ROWS)
        return -1;
    snprintf(b->rows[b->row_count], sizeof b->rows[0], "%s", name);
    return b->row_count++;
}

static void bars_take(bars *b, const record_table *table, int part, const char *name, const char *workers,
                      const char *metric) {
    b->part_count = part + 1 > b->part_count ? part + 1 : b->part_count;
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        if (strcmp(r->name, name) != 0 || strcmp(r->workers, workers) != 0 || strcmp(r->metric, metric) != 0)
            continue;
        int row = bars_row(b, r->system);
        if (row >= 0)
            b->values[row][part] = (at){0, r->median, r->q1, r->q3};
    }
}

static bool pairs_write(const record_table *table, const char *directory) {
    bars *pair = calloc(1, sizeof *pair), *more = calloc(1, sizeof *more), *sent = calloc(1, sizeof *sent);
    MUST(pair != NULL && more != NULL && sent != NULL);
    pair->title = "Allocate 256 B, write its first and last line, release";
    pair->label = "time per operation; less is better";
    pair->parts[0] = "alone", pair->parts[1] = "two processes on one pool";
    bars_take(pair, table, 0, "pair", "1", "time");
    bars_take(pair, table, 1, "pair", "2p", "time");
    more->title = "The same in bursts of 32, and with a random live set of 1,000";
    more->label = pair->label;
    more->parts[0] = "bursts, alone", more->parts[1] = "bursts, two processes", more->parts[2] = "live set, alone";
    bars_take(more, table, 0, "burst", "1", "time");
    bars_take(more, table, 1, "burst", "2p", "time");
    bars_take(more, table, 2, "live", "1", "time");
    sent->title = "Hand-off: 256 B written by one process and read by another";
    sent->label = "time per message; less is better";
    bars_take(sent, table, 0, "handoff", "2p", "time");
    bool good = bars_write(directory, "pair", pair, table) && bars_write(directory, "burst", more, table)
                && bars_write(directory, "handoff", sent, table);
    free(pair);
    free(more);
    free(sent);
    return good;
}

static bool latencies_write(const record_table *table, const char *directory, const char *name, const char *workers,
                            const char *title) {
    static const char *const metrics[MAX_PARTS] = {"p50", "p99", "p99.9", "max"};
    bars *b = calloc(1, sizeof *b);
    MUST(b != NULL);
    b->title = title;
    b->label = "time of one operation, the clock's own included; less is better";
    for (int i = 0; i < MAX_PARTS; i++) {
        b->parts[i] = metrics[i];
        bars_take(b, table, i, name, workers, metrics[i]);
    }
    bool good = bars_write(directory, name, b, table);
    free(b);
    return good;
}

static bool states_write(const record_table *table, const char *directory) {
    bars *b = calloc(1, sizeof *b);
    MUST(b != NULL);
    b->title = "zerocp, pools of 1,000 and of 1,000,000 chunks, by which of them are free";
    b->label = "time per allocate + release of 64 B; less is better";
    b->parts[0] = "1,000 chunks", b->parts[1] = "1,000,000 chunks";
    b->part_count = 2;
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        char row[40];
        if (strncmp(r->name, "state_", 6) != 0)
            continue;
        snprintf(row, sizeof row, "%s%s", r->state,
                 strcmp(r->name, "state_pair") == 0    ? ""
                 : strcmp(r->name, "state_burst") == 0 ? ", bursts"
                                                       : ", 256s");
        int at_row = bars_row(b, row);
        if (at_row >= 0)
            b->values[at_row][r->chunks > 1000] = (at){0, r->median, r->q1, r->q3};
    }
    bool good = bars_write(directory, "states", b, table);
    free(b);
    return good;
}

static curve *curve_named(curves *c, const char *name) {
    for (int i = 0; i < c->count; i++)
        if (strcmp(c->all[i].name, name) == 0)
            return &c->all[i];
    if (c->count == MAX_SERIES)
        return NULL;
    snprintf(c->all[c->count].name, sizeof c->all[0].name, "%s", name);
    return &c->all[c->count++];
}

static void curve_add(curve *c, double x, const record *r, double scale) {
    if (c && c->count < MAX_AT && r->median > 0)                   // scale 0: as it is; else operations per time
        c->points[c->count++] =
            scale > 0 ? (at){x, scale / r->median, scale / r->q3, scale / r->q1} : (at){x, r->median, r->q1, r->q3};
}

static bool crowds_write(const record_table *table, const char *directory, char kind, const char *name,
                         const char *title) {
    curves *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    c->title = title;
    c->x_label = kind == 'p' ? "processes" : "threads of one process";
    c->y_label = "million operations per second, all together; more is better";
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        size_t length = strlen(r->workers);
        bool threads = length != 0 && r->workers[length - 1] == 't';
        if (strcmp(r->name, "crowd") == 0 && threads == (kind == 't'))
            curve_add(curve_named(c, r->system), strtod(r->workers, NULL), r, 1000);
    }
    bool good = curves_write(directory, name, c, table);
    free(c);
    return good;
}

static bool counts_write(const record_table *table, const char *directory, const char *workers, const char *name,
                         const char *title) {
    curves *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    c->title = title;
    c->x_label = "chunks in the pool";
    c->y_label = "time per allocate + release; less is better";
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        if (strcmp(r->name, "count") == 0 && strcmp(r->workers, workers) == 0)
            curve_add(curve_named(c, r->system), (double)r->chunks, r, 0);
    }
    bool good = curves_write(directory, name, c, table);
    free(c);
    return good;
}

static bool payload_write(const record_table *table, const char *directory) {
    curves *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    c->title = "Hand-off by size: all of a message written and read, or only its ends";
    c->x_label = "bytes of a message";
    c->y_label = "time per message; less is better";
    c->x_bytes = true;
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        char series[48];
        if (strcmp(r->name, "payload") != 0)
            continue;
        snprintf(series, sizeof series, "%s %s", r->system, r->state);
        curve *of = curve_named(c, series);
        if (of)
            of->dashed = strcmp(r->state, "ends") == 0;
        curve_add(of, (double)r->bytes, r, 0);
    }
    bool good = curves_write(directory, "payload", c, table);
    free(c);
    return good;
}

// By size, from one process to another.
static bool topics_write(const record_table *table, const char *directory, const char *name, const char *title,
                         const char *y_label) {
    curves *c = calloc(1, sizeof *c);
    MUST(c != NULL);
    c->title = title;
    c->x_label = "bytes of a message";
    c->y_label = y_label;
    c->x_bytes = true;
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        if (strcmp(r->name, name) == 0 && strcmp(r->workers, "2p") == 0 && strcmp(r->metric, "time") == 0)
            curve_add(curve_named(c, r->system), (double)r->bytes, r, 0);
    }
    bool good = curves_write(directory, name, c, table);
    free(c);
    return good;
}

bool plots_write(const record_table *table, const char *directory) {
    return pairs_write(table, directory)
        && latencies_write(table, directory, "pair_latency", "1",
                           "Latencies of allocate, write, release of 256 B, alone")
        && latencies_write(table, directory, "handoff_latency", "2p",
                           "Latencies of a hand-off of 256 B: from allocation until the receiver has given it back")
        && states_write(table, directory)
        && crowds_write(table, directory, 'p', "processes", "Allocate + release of 256 B by many processes on one pool")
        && crowds_write(table, directory, 't', "threads", "Allocate + release of 256 B by many threads on one pool")
        && counts_write(table, directory, "1", "chunks", "Allocate + release of 256 B by the size of the pool, alone")
        && counts_write(table, directory, "2p", "chunks-two",
                        "Allocate + release of 256 B by the size of the pool, two processes")
        && payload_write(table, directory)
        && topics_write(table, directory, "topic",
                        "From a publisher to a subscriber, all of each message written and read",
                        "time per message; less is better")
        && topics_write(table, directory, "topic_ping", "One way of a message: half of a message and its answer",
                        "time one way; less is better")
        && latencies_write(table, directory, "topic_wake", "2p",
                           "From before 256 B are written until a subscriber that slept has them");
}
