// bench/kit.h: what a bench needs: time, CPUs, figures, names in /dev/shm that never stay, and processes that never
// stay.
#ifndef ZEROCP_BENCH_KIT_H
#define ZEROCP_BENCH_KIT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

uint64_t now_ns(void);

__attribute__((format(printf, 1, 2))) _Noreturn void die(const char *format, ...);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            die("%s:%d: %s (errno: %s)", __FILE__, __LINE__, #condition, strerror(errno));                             \
    } while (0)

#define MUST_OK(call)                                                                                                  \
    do {                                                                                                               \
        zcp_status must_status = (call);                                                                               \
        if (must_status != ZCP_OK)                                                                                     \
            die("%s:%d: %s: %s: %s", __FILE__, __LINE__, #call, zcp_status_name(must_status), zcp_last_message());     \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// Names. All that the bench ever creates in /dev/shm is listed here, and removed however it ends (but for SIGKILL).

void names_begin(void);                                            // this process is the one that cleans up
const char *name_new(const char *word);                            // an instance's name; the same for the same word
const char *name_path(const char *name);                           // where an object of just that name lies
void clean_up(void);                                               // async-signal-safe
void clean_up_on_signals(void);

// ---------------------------------------------------------------------------------------------------------------------
// Processes. A helper ends with its parent and dies quietly of Ctrl-C.

pid_t helper_fork(void);                                           // 0 in the child
void helper_note(pid_t pid);                                       // a child that was started otherwise
void helper_kill(pid_t pid);                                       // when this returns its memory has been taken down
void helper_wait(pid_t pid);                                       // for one that ends by itself; it must end well
void *shared_memory(size_t bytes);                                 // anonymous, zero, touched by nobody yet
void shared_memory_free(void *memory, size_t bytes);

// ---------------------------------------------------------------------------------------------------------------------
// CPUs

enum { MAX_CPUS = 256 };
// of this process and of the second; -1: there is none
extern int cpus[2];
extern int all_cpus[MAX_CPUS], cpu_count;                          // all that this process may use

void cpus_find(void);
bool cpu_allowed(int cpu);
void cpu_pin(int cpu);

// ---------------------------------------------------------------------------------------------------------------------
// Figures: one value per round.

enum { MAX_ROUNDS = 1000 };

typedef struct figures {
    double *values;
    int count;
} figures;

typedef struct summary {
    double q1, median, q3;
} summary;

void figures_add(figures *f, double value);
summary summarise(const figures *f);

#endif
