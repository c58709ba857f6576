// bench/machine.c: see machine.h.
#include "machine.h"

#include "contender.h"
#include "kit.h"
#include "measure.h"
#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// How far CPUs are from each other: what a cache line takes from one to the other.

static void bounces(line *ball, uint64_t odd, int count) {
    for (int i = 0; i < count; i++) {
        for (unsigned tries = 0; get_acquire(ball) % 2 != odd;)
            spin_long(&tries);
        __atomic_fetch_add(&ball->word, 1, __ATOMIC_RELEASE);
    }
}

static double transfer_ns(int cpu, int other) {
    enum { WARM = 2000, COUNT = 10000 };
    line *ball = shared_memory(sizeof *ball);
    pid_t pid = helper_fork();
    if (pid == 0) {
        cpu_pin(other);
        bounces(ball, 1, WARM + COUNT);
        _exit(0);
    }
    cpu_pin(cpu);
    bounces(ball, 0, WARM);
    uint64_t began = now_ns();
    bounces(ball, 0, COUNT);
    double ns = (double)(now_ns() - began) / (2 * COUNT);
    helper_wait(pid);
    shared_memory_free(ball, sizeof *ball);
    return ns;
}

static double transfer_best(int cpu, int other) {
    double best = transfer_ns(cpu, other);
    for (int i = 0; i < 4; i++) {
        double ns = transfer_ns(cpu, other);
        best = ns < best ? ns : best;
    }
    return best;
}

static bool text_of(const char *path, char *text, size_t bytes) {
    FILE *file = fopen(path, "r");
    bool good = file && fgets(text, (int)bytes, file);
    if (good)
        text[strcspn(text, "\n")] = 0;
    if (file)
        fclose(file);
    return good;
}

static void topology(int cpu, const char *what, char text[64]) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, what);
    if (!text_of(path, text, 64))
        snprintf(text, 64, "?");
}

// two threads of one core share its caches: not what is meant by two
static bool one_core(int a, int b) {
    char first[2][64];
    topology(a, "thread_siblings_list", first[0]);
    topology(b, "thread_siblings_list", first[1]);
    return strcmp(first[0], first[1]) == 0 && first[0][0] != '?';
}

// The first that this process may use, and of the others the nearest that is another core.
static void cpus_choose(void) {
    enum { MOST_LOOKED_AT = 16 };
    double best = 0;
    int nearest = -1;
    for (int i = 1; i < cpu_count && i < MOST_LOOKED_AT; i++) {
        if (one_core(all_cpus[0], all_cpus[i]))
            continue;
        double ns = transfer_best(all_cpus[0], all_cpus[i]);
        if (nearest < 0 || ns < best) {
            best = ns;
            nearest = all_cpus[i];
        }
    }
    cpus[0] = all_cpus[0];
    cpus[1] = nearest >= 0 ? nearest : cpu_count > 1 ? all_cpus[1] : -1;
}

static void placement_tell(void) {
    char core[2][64];
    if (cpus[0] < 0)
        cpus_choose();
    if (cpus[1] < 0) {
        record_fact("placement", "only CPU %d may be used: nothing with two processes is run", cpus[0]);
        return;
    }
    topology(cpus[0], "thread_siblings_list", core[0]);
    topology(cpus[1], "thread_siblings_list", core[1]);
    record_fact("placement", "first process on CPU %d (core has %s), second on CPU %d (core has %s)", cpus[0], core[0],
                cpus[1], core[1]);
    record_fact("transfer_ns", "%.1f", transfer_best(cpus[0], cpus[1]));
}

// ---------------------------------------------------------------------------------------------------------------------

static void cpu_tell(void) {
    char text[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(text, sizeof text, file)) {
        char *value = strchr(text, ':');
        if (strncmp(text, "model name", 10) == 0 && value) {
            record_fact("cpu", "%s", value + 2);
            break;
        }
    }
    if (file)
        fclose(file);
    file = fopen("/proc/cpuinfo", "r");
    bool guest = false;
    while (file && !guest && fgets(text, sizeof text, file))
        guest = strncmp(text, "flags", 5) == 0 && strstr(text, " hypervisor");
    if (file)
        fclose(file);
    record_fact("cpus", "%ld on line, %d for this process%s", sysconf(_SC_NPROCESSORS_ONLN), cpu_count,
                guest ? ", of a virtual machine" : "");
}

static void caches_tell(void) {
    static const int names[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
    long sizes[3];
    for (int i = 0; i < 3; i++)
        sizes[i] = sysconf(names[i]);
    if (sizes[0] > 0)
        record_fact("caches", "L1d %ld KiB, L2 %ld KiB, L3 %ld KiB", sizes[0] / 1024, sizes[1] / 1024, sizes[2] / 1024);
}

// The Makefile leaves the command beside the program; its directory is nobody's business.
static void compiler_tell(void) {
    char path[4096], command[4096];
    ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - 16);
#if defined(__clang__)
    record_fact("compiler", "clang %s", __clang_version__);
#else
    record_fact("compiler", "gcc %s", __VERSION__);
#endif
    if (bytes <= 0)
        return;
    path[bytes] = 0;
    snprintf(strrchr(path, '/') + 1, 16, "command");
    if (text_of(path, command, sizeof command)) {
        char *text = strstr(command, ": ");
        record_fact("compiled", "%s", text ? text + 2 : command);
    }
}

void machine_tell_load(const char *key) {
    double load[3];
    if (getloadavg(load, 3) == 3)
        record_fact(key, "%.2f %.2f %.2f", load[0], load[1], load[2]);
}

void machine_tell(void) {
    struct utsname kernel;
    cpu_tell();
    caches_tell();
    if (uname(&kernel) == 0)
        record_fact("kernel", "%s %s %s", kernel.sysname, kernel.release, kernel.machine);
    compiler_tell();
    machine_tell_load("load_before");
    placement_tell();
    record_fact("clock_step_ns", "%.1f", clock_step_ns());
    record_fact("pool", "64 clients; in suites merit and workers 4096 chunks of 256 B; the first and the last line of "
                        "each chunk is written");
    record_fact("counters", "%s",
                counters_there() ? "instructions and cycles of the hardware"
                                 : "none of the hardware; instructions are counted by stepping");
}
