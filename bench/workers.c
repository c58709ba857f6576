// bench/workers.c: the curve over processes, and over threads, up to many more than there are CPUs: each allocates,
// writes and releases without end until time is up. Told is wall time by the operations of all together.
#include "measure.h"
#include "suites.h"

#include <stdio.h>

enum { CHUNKS = 4096, BYTES = 256, CREW = 16 };

static void add_curve(const contender *by, bool quick) {
    static const int counts[] = {1, 2, 4, 8, 16};
    void *pool = pool_add(by, CHUNKS, BYTES);
    for (size_t i = 0; pool && i < sizeof counts / sizeof counts[0]; i++) {
        point at = {.name = "crowd", .system = by->name, .kind = POINT_PROCESSES, .workers = counts[i], .pool = pool,
                    .by = by,
                    .loop = by->pair, .chunks = CHUNKS, .bytes = BYTES, .slice = 40000000};
        if (quick && counts[i] != 2 && counts[i] != 16)
            continue;
        if (!by->crowds && counts[i] > cpu_count) {
            printf("skipped=crowd system=%s workers=%d what=\"must not be preempted\"\n", by->name, counts[i]);
            continue;
        }
        point_add(&at);
        at.kind = POINT_THREADS;
        if (by->threads)
            point_add(&at);
    }
}

void suite_workers(const suite_options *options) {
    rmw_add();
    for (int i = 0; options->contenders[i]; i++)
        if (options->contenders[i]->pair)
            add_curve(options->contenders[i], options->quick);
    pools_check("before");
    crew_start(CREW);
    rounds_run(options->rounds);
    crew_end();
    pools_check("after");
    suite_end();
}
