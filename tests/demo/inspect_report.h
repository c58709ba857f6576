// inspect_report.h: how the tool shows what it has found. A report is a sequence of fields and tables, rendered as text
// for people, as one JSON object per line, or as CSV (its tables only). It is collected in memory and written when it
// is complete, so nobody ever reads half a JSON object.
//
// Texts come from shared memory and from directories, so from anybody: whatever could move the cursor, change colours
// or turn the direction of writing is shown as an escape, and what is not UTF-8 stays out of JSON.
#ifndef INSPECT_REPORT_H
#define INSPECT_REPORT_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum report_format { REPORT_TEXT, REPORT_JSON, REPORT_CSV } report_format;
typedef enum report_color { PLAIN, BOLD, DIM, RED, GREEN, YELLOW } report_color;

static const char *const report_colors[] = {"", "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[33m"};

// ---------------------------------------------------------------------------------------------------------------------
// Text

// The code point at *text, which is passed; -1: that byte is not UTF-8, and it alone is passed.
static inline int32_t utf8_next(const unsigned char **text) {
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000};
    unsigned char first = *(*text)++;
    int more = first < 0x80 ? 0 : first >= 0xf0 && first < 0xf8 ? 3 : first >= 0xe0 ? 2 : 1;
    if (more == 0)
        return first;
    if (first < 0xc0 || first >= 0xf8)
        return -1;
    int32_t point = first & (0x3f >> more);
    for (int i = 0; i < more; i++) {
        if (((*text)[i] & 0xc0) != 0x80)                           // the final 0 too: nothing behind it is read
            return -1;
        point = point << 6 | ((*text)[i] & 0x3f);
    }
    if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return -1;
    *text += more;
    return point;
}

// Controls, and what changes the direction or is not seen.
static inline bool is_unsafe(int32_t point) {
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || (point >= 0x200b && point <= 0x200f) ||
           (point >= 0x2028 && point <= 0x202e) || (point >= 0x2060 && point <= 0x206f) || point == 0xfeff;
}

// For people, and with `doubled` quotes for CSV.
static inline void write_safe(FILE *out, const char *text, bool doubled) {
    for (const unsigned char *at = (const unsigned char *)text; *at != 0;) {
        const unsigned char *from = at;
        int32_t point = utf8_next(&at);
        if (point < 0)
            fprintf(out, "\\x%02x", *from);
        else if (is_unsafe(point))
            fprintf(out, point < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)point);
        else
            fwrite(from, 1, (size_t)(at - from), out);
        if (point == '"' && doubled)
            fputc('"', out);
    }
}

// Bytes that end with a 0, which is none of them, as a string of JSON.
static inline void write_json_bytes(FILE *out, const unsigned char *at, size_t count) {
    const unsigned char *end = at + count;
    fputc('"', out);
    while (at < end) {
        const unsigned char *from = at;
        int32_t point = utf8_next(&at);                            // the 0 behind the last one stops it
        if (point == '"' || point == '\\')
            fprintf(out, "\\%c", (int)point);
        else if (point < 0 || is_unsafe(point))
            fprintf(out, "\\u%04x", point < 0 ? 0xfffdu : (unsigned)point);
        else
            fwrite(from, 1, (size_t)(at - from), out);
    }
    fputc('"', out);
}

static inline void write_json_text(FILE *out, const char *text) {
    write_json_bytes(out, (const unsigned char *)text, strlen(text));
}

static inline void write_csv_text(FILE *out, const char *text) {
    const char *quote = strpbrk(text, ",\"\\ ") != NULL ? "\"" : "";
    fputs(quote, out);
    write_safe(out, text, true);
    fputs(quote, out);
}

// Columns that it takes, as long as each character takes one.
static inline size_t width_of(const char *text) {
    size_t width = 0;
    for (; *text != 0; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

// ---------------------------------------------------------------------------------------------------------------------
// Values

typedef enum value_kind {
    VALUE_NONE,                                                    // - null
    VALUE_TEXT,
    VALUE_FLAG,                                                    // yes, no
    VALUE_NUMBER,
    VALUE_BYTES,                                                   // for people with a unit
    VALUE_REAL,
    // 16 digits; a string in JSON, whose numbers have 53 bits
    VALUE_HEX,
    VALUE_TIME,                                                    // ns since 1970; for people how long ago
    VALUE_SHARE,                                                   // number of whole; for people a bar
    VALUE_SLOTS                                                    // the set bits of 16 words
} value_kind;

typedef struct value {
    value_kind kind;
    report_color color;
    uint64_t number, whole;
    double real;
    const char *text;
    const uint64_t *words;
} value;

static inline value v_none(void) { return (value){.kind = VALUE_NONE}; }
static inline value v_text(const char *text) { return (value){.kind = VALUE_TEXT, .text = text}; }
static inline value v_colored(const char *text, report_color color) {
    return (value){.kind = VALUE_TEXT, .text = text, .color = color};
}

static inline value v_flag(bool flag) { return (value){.kind = VALUE_FLAG, .number = flag}; }
static inline value v_number(uint64_t number) { return (value){.kind = VALUE_NUMBER, .number = number}; }
static inline value v_alarm(uint64_t number, report_color color) {
    return (value){.kind = VALUE_NUMBER, .number = number, .color = number ? color : PLAIN};
}

static inline value v_bytes(uint64_t number) { return (value){.kind = VALUE_BYTES, .number = number}; }
static inline value v_real(double real) { return (value){.kind = VALUE_REAL, .real = real}; }
static inline value v_hex(uint64_t number) { return (value){.kind = VALUE_HEX, .number = number}; }
static inline value v_time(uint64_t ns) { return (value){.kind = VALUE_TIME, .number = ns}; }
static inline value v_slots(const uint64_t words[16]) { return (value){.kind = VALUE_SLOTS, .words = words}; }

static inline value v_share(uint64_t part, uint64_t whole) {
    report_color color = part * 10 >= whole * 9 && whole ? RED : part * 4 >= whole * 3 && whole ? YELLOW : GREEN;
    return (value){.kind = VALUE_SHARE, .color = color, .number = part, .whole = whole};
}

static inline uint64_t wall_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline void write_bytes(FILE *out, uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double figure = (double)bytes;
    int unit = 0;
    for (; figure >= 1024 && unit < 6; unit++)
        figure /= 1024;
    fprintf(out, unit == 0 || figure >= 100 ? "%.0f %s" : "%.1f %s", figure, units[unit]);
}

static inline void write_ago(FILE *out, uint64_t ns) {
    uint64_t now = wall_clock_ns(), seconds = now > ns ? (now - ns) / 1000000000 : 0;
    if (seconds >= 86400)
        fprintf(out, "%" PRIu64 "d%02" PRIu64 "h", seconds / 86400, seconds / 3600 % 24);
    else if (seconds >= 3600)
        fprintf(out, "%" PRIu64 "h%02" PRIu64 "m", seconds / 3600, seconds / 60 % 60);
    else if (seconds >= 60)
        fprintf(out, "%" PRIu64 "m%02" PRIu64 "s", seconds / 60, seconds % 60);
    else
        fprintf(out, "%" PRIu64 "s", seconds);
}

// UTC, to the millisecond. A time out of garbage may be in no year that has four digits.
static inline void write_time(FILE *out, uint64_t ns) {
    struct tm parts;
    time_t seconds = (time_t)(ns / 1000000000);
    char text[40] = "";
    if (gmtime_r(&seconds, &parts) != NULL)
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    fprintf(out, "%s.%03uZ", text, (unsigned)(ns / 1000000 % 1000));
}

static inline void write_slots(FILE *out, const uint64_t words[16], const char *between) {
    const char *separator = "";
    for (unsigned slot = 0; slot < 1024; slot++)
        if (words[slot / 64] >> slot % 64 & 1) {
            fprintf(out, "%s%u", separator, slot);
            separator = between;
        }
}

static inline double share_of(const value *v) { return v->whole ? (double)v->number / (double)v->whole : 0; }

static inline void write_bar(FILE *out, double share) {
    char bar[] = "....................";
    size_t length = sizeof bar - 1, full = (size_t)(share * (double)length + 0.5);
    if (full == 0 && share > 0)
        full = 1;                                                  // a little is not nothing
    memset(bar, '|', full < length ? full : length);
    fprintf(out, "[%s] %3.0f%%", bar, share * 100);
}

static inline void value_write(FILE *out, const value *v) {        // for people
    switch (v->kind) {
    case VALUE_NONE: fputc('-', out); break;
    case VALUE_TEXT: write_safe(out, v->text, false); break;
    case VALUE_FLAG: fputs(v->number ? "yes" : "no", out); break;
    case VALUE_NUMBER: fprintf(out, "%" PRIu64, v->number); break;
    case VALUE_BYTES: write_bytes(out, v->number); break;
    case VALUE_REAL: fprintf(out, v->real >= 100 || v->real == 0 ? "%.0f" : "%.1f", v->real); break;
    case VALUE_HEX: fprintf(out, "%016" PRIx64, v->number); break;
    case VALUE_TIME: write_ago(out, v->number); break;
    case VALUE_SHARE: write_bar(out, share_of(v)); break;
    case VALUE_SLOTS: write_slots(out, v->words, ","); break;
    }
}

static inline void value_write_plainly(FILE *out, const value *v, bool json) {       // for programs
    const char *quote = json ? "\"" : "";
    switch (v->kind) {
    case VALUE_NONE: fputs(json ? "null" : "", out); break;
    case VALUE_TEXT: (json ? write_json_text : write_csv_text)(out, v->text); break;
    case VALUE_FLAG: fputs(v->number ? "true" : "false", out); break;
    case VALUE_NUMBER: case VALUE_BYTES: fprintf(out, "%" PRIu64, v->number); break;
    case VALUE_REAL: fprintf(out, "%.3f", v->real); break;
    case VALUE_HEX: fprintf(out, "%s%016" PRIx64 "%s", quote, v->number, quote); break;
    case VALUE_TIME: fputs(quote, out); write_time(out, v->number); fputs(quote, out); break;
    case VALUE_SHARE: fprintf(out, "%.4f", share_of(v)); break;
    case VALUE_SLOTS:
        fputs(json ? "[" : "", out);
        write_slots(out, v->words, json ? "," : " ");
        fputs(json ? "]" : "", out);
        break;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Reports

typedef struct column {
    const char *key;                                               // in JSON and CSV; NULL: not there
    const char *title;                                             // for people
    unsigned views;                                                // in which they see it, as bits; programs see all
} column;

typedef struct cell {
    const char *text;
    report_color color;
    bool right;
    char *to_free;                                                 // text, if it was allocated for this cell
} cell;

enum { MAX_COLUMNS = 24 };

typedef struct report {
    report_format format;
    bool colored;
    unsigned view;                                                 // a bit
    FILE *out;                                                     // what follows is collected here
    char *text;                                                    // the whole, once it is complete
    size_t bytes;
    // JSON: something stands before; CSV: the heading is written
    bool comma, headed;
    const column *columns;
    size_t column_count, cell_count, cell_room;
    cell *cells;                                                   // of the table that is begun
} report;

_Noreturn static inline void report_out_of_memory(void) {
    fputs("zerocp: out of memory\n", stderr);
    exit(1);
}

// Forgets what was collected, if anything was.
static inline void report_drop(report *r) {
    if (r->out != NULL)
        fclose(r->out);
    r->out = NULL;
    r->cell_count = 0;
}

static inline void report_begin(report *r) {
    report_drop(r);
    free(r->text);
    r->text = NULL;
    r->comma = false;
    r->out = open_memstream(&r->text, &r->bytes);
    if (r->out == NULL)
        report_out_of_memory();
    if (r->format == REPORT_JSON)
        fputc('{', r->out);
}

// Completes the text.
static inline void report_end(report *r) {
    if (r->format == REPORT_JSON)
        fputs("}\n", r->out);
    if (fclose(r->out) != 0)
        report_out_of_memory();
    r->out = NULL;
}

static inline void report_paint(const report *r, FILE *out, report_color color, const char *text) {
    bool painted = r->colored && color != PLAIN;
    fprintf(out, "%s%s%s", painted ? report_colors[color] : "", text, painted ? "\033[0m" : "");
}

// A line for people only. The arguments are safe to print: figures, and texts of the program's own.
__attribute__((format(printf, 3, 4))) static inline void report_line(report *r, report_color color, const char *format,
                                                                     ...) {
    char text[512];
    va_list arguments;
    if (r->format != REPORT_TEXT)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    report_paint(r, r->out, color, text);
    fputc('\n', r->out);
}

static inline const char *plural(uint64_t count) {
    return count == 1 ? "" : "s";
}

static inline void json_key(report *r, const char *key) {
    fprintf(r->out, "%s\"%s\":", r->comma ? "," : "", key);
    r->comma = true;
}

static inline char *value_text(const value *v) {
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL)
        report_out_of_memory();
    value_write(out, v);
    if (fclose(out) != 0)
        report_out_of_memory();
    return text;
}

// title NULL: for programs only. key NULL: for people only.
static inline void report_field(report *r, const char *key, const char *title, value v) {
    if (r->format == REPORT_JSON && key != NULL) {
        json_key(r, key);
        value_write_plainly(r->out, &v, true);
    }
    if (r->format == REPORT_TEXT && title != NULL) {
        char *text = value_text(&v);
        fprintf(r->out, "%-14s", title);
        report_paint(r, r->out, v.color, text);
        fputc('\n', r->out);
        free(text);
    }
}

static inline void table_begin(report *r, const char *key, const column *columns, size_t count) {
    r->columns = columns;
    r->column_count = count;
    r->cell_count = 0;
    if (r->format == REPORT_JSON) {
        json_key(r, key);
        fputc('[', r->out);
    }
    for (size_t i = 0; i < count && r->format == REPORT_CSV && !r->headed; i++)
        fprintf(r->out, "%s%c", columns[i].key, i + 1 < count ? ',' : '\n');
    r->headed = true;
    r->comma = false;
}

#define TABLE_BEGIN(r, key, columns) table_begin((r), (key), (columns), sizeof(columns) / sizeof((columns)[0]))
#define TABLE_ROW(r, ...)                                                                                              \
    table_row((r), (const value[]){__VA_ARGS__}, sizeof((const value[]){__VA_ARGS__}) / sizeof(value))

static inline void table_cell(report *r, const value *v) {
    if (r->cell_count == r->cell_room) {
        r->cell_room = r->cell_room ? 2 * r->cell_room : 256;
        cell *more = realloc(r->cells, r->cell_room * sizeof *more);
        if (more == NULL)
            report_out_of_memory();
        r->cells = more;
    }
    bool right = v->kind != VALUE_TEXT && v->kind != VALUE_SHARE && v->kind != VALUE_SLOTS && v->kind != VALUE_HEX;
    char *text = value_text(v);
    r->cells[r->cell_count++] = (cell){text, v->color, right, text};
}

static inline void table_row(report *r, const value *values, size_t count) {
    bool json = r->format == REPORT_JSON;
    const char *between = "";
    if (count != r->column_count)
        abort();
    if (json)
        fputs(r->comma ? ",{" : "{", r->out);
    for (size_t i = 0; i < count; i++) {
        const column *c = &r->columns[i];
        if (r->format == REPORT_TEXT && (c->views & r->view))
            table_cell(r, &values[i]);
        if (r->format == REPORT_TEXT || c->key == NULL)
            continue;
        fputs(between, r->out);
        if (json)
            fprintf(r->out, "\"%s\":", c->key);
        value_write_plainly(r->out, &values[i], json);
        between = ",";
    }
    if (r->format != REPORT_TEXT)
        fputc(json ? '}' : '\n', r->out);
    r->comma = true;
}

static inline void table_line(report *r, const cell *cells, size_t count, const size_t *widths) {
    for (size_t i = 0; i < count; i++) {
        size_t width = width_of(cells[i].text);
        int pad = (int)(widths[i] > width ? widths[i] - width : 0);
        if (i + 1 == count && cells[i].text[0] == 0)
            break;                                                 // no blanks at the end
        fprintf(r->out, "%s%*s", i ? "  " : "", cells[i].right ? pad : 0, "");
        report_paint(r, r->out, cells[i].color, cells[i].text);
        if (!cells[i].right && i + 1 < count)
            fprintf(r->out, "%*s", pad, "");
    }
    fputc('\n', r->out);
}

// A heading stands as its first value does: numbers to the right.
static inline void table_end_as_text(report *r) {
    cell heading[MAX_COLUMNS];
    size_t widths[MAX_COLUMNS], count = 0;
    for (size_t i = 0; i < r->column_count; i++) {
        if (!(r->columns[i].views & r->view))
            continue;
        const char *title = r->columns[i].title;
        heading[count] = (cell){title, BOLD, r->cell_count > count && r->cells[count].right, NULL};
        widths[count++] = width_of(title);
    }
    for (size_t i = 0; i < r->cell_count; i++) {
        size_t width = width_of(r->cells[i].text);
        if (widths[i % count] < width)
            widths[i % count] = width;
    }
    table_line(r, heading, count, widths);
    for (size_t i = 0; i < r->cell_count; i += count)
        table_line(r, r->cells + i, count, widths);
    for (size_t i = 0; i < r->cell_count; i++)
        free(r->cells[i].to_free);
}

static inline void table_end(report *r) {
    if (r->format == REPORT_JSON)
        fputc(']', r->out);
    if (r->format == REPORT_TEXT && r->cell_count > 0)             // an empty table says nothing to people
        table_end_as_text(r);
    r->cell_count = 0;
    r->comma = true;
}

#endif
