// bench/record.c: see record.h.
#include "record.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

record_table records;

static const char head[] = "case,system,workers,chunks,bytes,state,metric,unit,median,q1,q3,rmws,rounds,ops";

static void *must(void *memory) {
    if (!memory) {
        fputs("bench: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static void fact_add(record_table *table, const char *text) {
    if (table->fact_count < (int)(sizeof table->facts / sizeof table->facts[0]))
        table->facts[table->fact_count++] = must(strdup(text));
}

static void row_add(record_table *table, const record *row) {
    if (table->count == table->room) {
        table->room = table->room ? 2 * table->room : 256;
        table->rows = must(realloc(table->rows, (size_t)table->room * sizeof *table->rows));
    }
    table->rows[table->count++] = *row;
}

void record_fact(const char *key, const char *format, ...) {
    char text[1024];
    va_list arguments;
    int length = snprintf(text, sizeof text, "%s=", key);
    va_start(arguments, format);
    vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
    va_end(arguments);
    text[strcspn(text, "\n")] = 0;
    fact_add(&records, text);
    puts(text);
}

const char *record_fact_of(const record_table *table, const char *key) {
    size_t length = strlen(key);
    for (int i = 0; i < table->fact_count; i++)
        if (strncmp(table->facts[i], key, length) == 0 && table->facts[i][length] == '=')
            return table->facts[i] + length + 1;
    return NULL;
}

// Four figures, and no more than needed.
static const char *number(double value, char text[32]) {
    snprintf(text, 32, value >= 1000 ? "%.0f" : "%.4g", value);
    return text;
}

void record_add(const record *row) {
    char text[4][32];
    row_add(&records, row);
    printf("case=%s system=%s workers=%s chunks=%llu bytes=%llu%s%s metric=%s median=%s%s q1=%s q3=%s", row->name,
           row->system, row->workers, (unsigned long long)row->chunks, (unsigned long long)row->bytes,
           row->state[0] ? " state=" : "", row->state, row->metric, number(row->median, text[0]), row->unit,
           number(row->q1, text[1]), number(row->q3, text[2]));
    if (row->rmws > 0)
        printf(" rmws=%s", number(row->rmws, text[3]));
    printf(" rounds=%d ops=%llu\n", row->rounds, (unsigned long long)row->ops);
}

bool record_same_key(const record *a, const record *b) {
    return strcmp(a->name, b->name) == 0 && strcmp(a->system, b->system) == 0 && strcmp(a->workers, b->workers) == 0
           && a->chunks == b->chunks && a->bytes == b->bytes && strcmp(a->state, b->state) == 0
           && strcmp(a->metric, b->metric) == 0;
}

const record *record_find(const record_table *table, const char *name, const char *system, const char *workers,
                          const char *metric, uint64_t chunks, uint64_t bytes) {
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        if ((!name || strcmp(r->name, name) == 0) && (!system || strcmp(r->system, system) == 0)
            && (!workers || strcmp(r->workers, workers) == 0) && (!metric || strcmp(r->metric, metric) == 0)
            && (!chunks || r->chunks == chunks) && (!bytes || r->bytes == bytes))
            return r;
    }
    return NULL;
}

// ---------------------------------------------------------------------------------------------------------------------
// Files. Lines that begin with # are facts.

bool record_write(const record_table *table, const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) {
        fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
        return false;
    }
    for (int i = 0; i < table->fact_count; i++)
        fprintf(file, "# %s\n", table->facts[i]);
    fprintf(file, "%s\n", head);
    for (int i = 0; i < table->count; i++) {
        const record *r = &table->rows[i];
        char text[4][32];
        fprintf(file, "%s,%s,%s,%llu,%llu,%s,%s,%s,%s,%s,%s,%s,%d,%llu\n", r->name, r->system, r->workers,
                (unsigned long long)r->chunks, (unsigned long long)r->bytes, r->state, r->metric, r->unit,
                number(r->median, text[0]), number(r->q1, text[1]), number(r->q3, text[2]), number(r->rmws, text[3]),
                r->rounds, (unsigned long long)r->ops);
    }
    bool good = !ferror(file);
    return fclose(file) == 0 && good;
}

static bool word_from(char **line, char *word, size_t bytes) {
    char *end = strchr(*line, ',');
    size_t length = end ? (size_t)(end - *line) : 0;
    if (!end || length >= bytes)
        return false;
    memcpy(word, *line, length);
    word[length] = 0;
    *line = end + 1;
    return true;
}

static bool row_read(char *line, record *r) {
    char chunks[24], bytes[24];
    memset(r, 0, sizeof *r);
    if (!word_from(&line, r->name, sizeof r->name) || !word_from(&line, r->system, sizeof r->system)
        || !word_from(&line, r->workers, sizeof r->workers) || !word_from(&line, chunks, sizeof chunks)
        || !word_from(&line, bytes, sizeof bytes) || !word_from(&line, r->state, sizeof r->state)
        || !word_from(&line, r->metric, sizeof r->metric) || !word_from(&line, r->unit, sizeof r->unit))
        return false;
    unsigned long long ops;
    char rest;
    if (sscanf(line, "%lf,%lf,%lf,%lf,%d,%llu%c", &r->median, &r->q1, &r->q3, &r->rmws, &r->rounds, &ops, &rest) != 6)
        return false;
    r->chunks = strtoull(chunks, NULL, 10);
    r->bytes = strtoull(bytes, NULL, 10);
    r->ops = ops;
    return true;
}

bool record_read(record_table *table, const char *path) {
    char line[2048];
    int number_of_line = 0;
    bool good = true, headed = false;
    FILE *file = fopen(path, "r");
    memset(table, 0, sizeof *table);
    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    while (good && fgets(line, sizeof line, file)) {
        record row;
        number_of_line++;
        line[strcspn(line, "\r\n")] = 0;
        if (line[0] == '#')
            fact_add(table, line + (line[1] == ' ' ? 2 : 1));
        else if (!headed)
            good = headed = strcmp(line, head) == 0;
        else if ((good = row_read(line, &row)))
            row_add(table, &row);
    }
    if (!good || !headed)
        fprintf(stderr, "%s:%d: not a line of a bench's CSV\n", path, number_of_line);
    fclose(file);
    return good && headed;
}

void record_free(record_table *table) {
    for (int i = 0; i < table->fact_count; i++)
        free(table->facts[i]);
    free(table->rows);
    memset(table, 0, sizeof *table);
}
