// bench/peers.c: see peers.h.
#include "peers.h"

#include "kit.h"
#include "record.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

static const char *const names[] = {"iceoryx", "boost", "dpdk"};
enum { NAMES = sizeof names / sizeof names[0], MOST = 16 };

// Beside the program: peers/NAME.so.
static void *peer_load(const char *name, const char **why) {
    char path[4096];
    ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - 64);
    *why = "not built; see make bench-peers";
    if (bytes <= 0)
        return NULL;
    path[bytes] = 0;
    snprintf(strrchr(path, '/') + 1, 64, "peers/%s.so", name);
    if (access(path, R_OK) != 0)
        return NULL;
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object)
        *why = dlerror();
    return object;
}

const contender *const *peers(const bench_host *host) {
    static const contender *all[MOST + 1];
    int count = 0;
    for (int i = 0; i < NAMES; i++) {
        const char *why;
        void *object = peer_load(names[i], &why);
        bench_peer_function *give = NULL;
        if (object) {
            *(void **)&give = dlsym(object, "bench_peer");
            why = give ? "it cannot run here" : "no peer in it";
        }
        const contender *const *list = give ? give(host, BENCH_ABI) : NULL;
        record_fact("peer", "%s %s%s%s", names[i], list ? "loaded" : "skipped (", list ? "" : why, list ? "" : ")");
        for (; list && *list && count < MOST; list++)
            all[count++] = *list;
    }
    return all;
}
