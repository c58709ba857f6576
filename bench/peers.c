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

// A function of that object; NULL, and *why: there is none.
static void peer_function(const char *name, const char *function, void *give, const char **why) {
    void *object = peer_load(name, why);
    *(void **)give = object ? dlsym(object, function) : NULL;
    if (object && !*(void **)give)
        *why = "no peer in it";
}

static void peer_tell(const char *name, bool loaded, const char *why) {
    record_fact("peer", "%s %s%s%s", name, loaded ? "loaded" : "skipped (", loaded ? "" : why, loaded ? "" : ")");
}

const contender *const *peers(const bench_host *host) {
    static const contender *all[MOST + 1];
    int count = 0;
    for (int i = 0; i < NAMES; i++) {
        const char *why;
        bench_peer_function *give;
        peer_function(names[i], "bench_peer", &give, &why);
        const contender *const *list = give ? give(host, BENCH_ABI) : NULL;
        peer_tell(names[i], list, give ? "it cannot run here" : why);
        for (; list && *list && count < MOST; list++)
            all[count++] = *list;
    }
    return all;
}

const messenger *const *peer_messengers(bench_host *host) {
    static const char *const carriers[] = {"iceoryx_topics", "zmq", "nng", "fastdds", "boost_queue"};
    static const messenger *all[MOST + 1];
    int count = 0;
    for (size_t i = 0; i < sizeof carriers / sizeof carriers[0]; i++) {
        const char *why;
        bench_messenger_function *give;
        peer_function(carriers[i], "bench_messengers", &give, &why);
        const messenger *const *list = give ? give(host, BENCH_ABI) : NULL;
        peer_tell(carriers[i], list, give ? "it cannot run here" : why);
        for (; list && *list && count < MOST; list++)
            all[count++] = *list;
    }
    return all;
}
