// bench/record.h: the figures as they are told: a row for each, as key=value and as CSV, written and read.
#ifndef ZEROCP_BENCH_RECORD_H
#define ZEROCP_BENCH_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct record {
    char name[24], system[24], workers[8], state[24], metric[20], unit[8];
    uint64_t chunks, bytes, ops;
    double median, q1, q3, rmws;
    int rounds;
} record;

typedef struct record_table {
    record *rows;
    int count, room;
    char *facts[64];                                               // key=value: the machine, the compiler ...
    int fact_count;
} record_table;

extern record_table records;                                       // of this run

void record_fact(const char *key, const char *format, ...) __attribute__((format(printf, 2, 3)));   // printed at once
void record_add(const record *row);                                // printed at once
const char *record_fact_of(const record_table *table, const char *key);   // NULL: not there
// The row with that key; NULL if there is none. NULL or 0 in an argument fits all.
const record *record_find(const record_table *table, const char *name, const char *system, const char *workers,
                          const char *metric, uint64_t chunks, uint64_t bytes);
bool record_same_key(const record *a, const record *b);
bool record_write(const record_table *table, const char *path);
bool record_read(record_table *table, const char *path);           // tells on stderr what is wrong
void record_free(record_table *table);

#endif
