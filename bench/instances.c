// bench/instances.c: what is done once: create, attach, recover.
#include "measure.h"
#include "ours.h"
#include "record.h"
#include "suites.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t large_bytes = UINT64_C(1) << 30;
enum { ATTACH_CHUNKS = 4096, RECOVER_BYTES = 64, MILLION = 1000000 };

// ---------------------------------------------------------------------------------------------------------------------
// An instance that lives as long as the suite: made for so many clients, some of whose slots others have taken.

typedef struct instance {
    zcp_manager *manager;
    const char *name;
    uint32_t clients;
    pid_t crowd;                                                   // holds all slots but two; 0: nobody does
} instance;

static instance *instance_create(const char *word, uint32_t chunks, uint32_t bytes, uint32_t clients) {
    zcp_config config = config_of(bytes, chunks);
    instance *in = calloc(1, sizeof *in);
    MUST(in != NULL);
    in->name = name_new(word);
    in->clients = clients;
    in->manager = open_instance(in->name, ZCP_SHM_CREATE_EXCLUSIVE, &config, clients);
    return in;
}

// A process that has one client in each slot but two.
static void crowd_start(instance *in) {
    struct rlimit files;
    int ready[2];
    char done;
    MUST(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    MUST(pipe(ready) == 0);
    if ((in->crowd = helper_fork()) == 0) {
        for (uint32_t i = 0; i + 2 < in->clients; i++)
            open_instance(in->name, ZCP_SHM_OPEN_EXISTING, NULL, 0);
        MUST(write(ready[1], "", 1) == 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    if (read(ready[0], &done, 1) != 1)
        die("%u clients of one process could not attach", in->clients - 2);
    close(ready[0]);
}

static void instance_destroy(void *memory) {
    instance *in = memory;
    zcp_pool_stats stats;
    if (in->crowd)
        helper_kill(in->crowd);
    MUST_OK(zcp_manager_recover(in->manager, NULL));
    MUST_OK(zcp_manager_pool_stats(in->manager, 0, &stats));
    if (stats.used != 0)
        die("%s: %llu chunks did not come back", in->name, (unsigned long long)stats.used);
    zcp_manager_close(in->manager);
    MUST_OK(zcp_manager_destroy(in->name));
    free(in);
}

// ---------------------------------------------------------------------------------------------------------------------

static void attach_loop(void *memory, uint64_t count) {
    const instance *in = memory;
    for (uint64_t i = 0; i < count; i++)
        zcp_manager_close(open_instance(in->name, ZCP_SHM_OPEN_EXISTING, NULL, 0));
}

static void create_loop(void *pool, uint64_t count) {
    zcp_config config = config_of(256, 100);
    const char *name = name_new("small");
    (void)pool;
    for (uint64_t i = 0; i < count; i++) {
        zcp_manager_close(open_instance(name, ZCP_SHM_CREATE_EXCLUSIVE, &config, 0));
        MUST_OK(zcp_manager_destroy(name));
    }
}

static bool large_fits(void) {
    struct statvfs shm;
    unsigned long long available = 0;
    char text[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(text, sizeof text, file))
        if (sscanf(text, "MemAvailable: %llu", &available) == 1)
            break;
    if (file)
        fclose(file);
    return statvfs("/dev/shm", &shm) == 0 && (uint64_t)shm.f_bavail * shm.f_frsize >= 3 * large_bytes
        && available * 1024 >= 3 * large_bytes;
}

static zcp_config large_config(void) {
    return config_of(UINT64_C(1) << 20, (uint32_t)(large_bytes >> 20));
}

static double create_large_once(void *pool) {
    zcp_config config = large_config();
    const char *name = name_new("large");
    (void)pool;
    uint64_t began = now_ns();
    zcp_manager *opened = open_instance(name, ZCP_SHM_CREATE_EXCLUSIVE, &config, 0);
    double ns = (double)(now_ns() - began);
    zcp_manager_close(opened);
    MUST_OK(zcp_manager_destroy(name));
    return ns;
}

static double fallocate_large_once(void *pool) {
    zcp_config config = large_config();
    const char *path = name_path(name_new("raw"));
    (void)pool;
    uint64_t began = now_ns();
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    MUST(fd >= 0);
    MUST((errno = posix_fallocate(fd, 0, (off_t)zcp_config_total_bytes(&config, 0))) == 0);
    double ns = (double)(now_ns() - began);
    MUST(unlink(path) == 0);
    close(fd);
    return ns;
}

// A client that holds so many is killed; then the time of the recovery that takes them back, and has to find them all.
static double recover_held(void *memory, uint32_t held) {
    const instance *in = memory;
    zcp_recovery report;
    int status;
    pid_t victim = helper_fork();
    if (victim == 0) {
        zcp_chunk chunk;
        zcp_manager *mine = open_instance(in->name, ZCP_SHM_OPEN_EXISTING, NULL, 0);
        for (uint32_t i = 0; i < held; i++)
            MUST_OK(zcp_chunk_allocate(mine, RECOVER_BYTES, &chunk));
        raise(SIGSTOP);
        _exit(1);
    }
    MUST(waitpid(victim, &status, WUNTRACED) == victim && WIFSTOPPED(status));
    helper_kill(victim);
    uint64_t began = now_ns();
    MUST_OK(zcp_manager_recover(in->manager, &report));
    double ns = (double)(now_ns() - began);
    if (report.dead_clients != 1 || report.chunks_reclaimed != held)
        die("recovery took back %llu chunks of %u dead clients; %u of 1 were expected",
            (unsigned long long)report.chunks_reclaimed, report.dead_clients, held);
    return ns;
}

static double recover_thousand(void *memory) { return recover_held(memory, 1000); }
static double recover_million(void *memory) { return recover_held(memory, MILLION); }

// ---------------------------------------------------------------------------------------------------------------------

static instance *instances[16];
static int instance_count;

static void add(point at, instance *in, uint32_t chunks, uint64_t bytes) {
    at.system = at.system ? at.system : "zerocp";
    at.pool = in;
    at.chunks = chunks;
    at.bytes = bytes;
    point_add(&at);
}

static instance *keep(instance *in) {
    instances[instance_count++] = in;
    return in;
}

static void add_attach(void) {
    static const struct {
        const char *name, *word;
        uint32_t clients;
        bool crowded;
    } kinds[] = {
        {"attach_64", "attach-64", 64, false},
        {"attach_64_taken", "attach-64-taken", 64, true},
        {"attach_1024", "attach-1024", 1024, false},
        {"attach_1024_taken", "attach-1024-taken", 1024, true},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (selected_at_all(kinds[i].name, "zerocp")) {
            instance *in = keep(instance_create(kinds[i].word, ATTACH_CHUNKS, 256, kinds[i].clients));
            if (kinds[i].crowded)
                crowd_start(in);
            add((point){.name = kinds[i].name, .loop = attach_loop}, in, ATTACH_CHUNKS, 256);
        }
}

static void add_recover(void) {
    static const struct {
        const char *name, *word;
        uint32_t chunks, clients;
        double (*once)(void *);
    } kinds[] = {
        {"recover_1000", "recover-100000", 100000, 64, recover_thousand},
        {"recover_1000", "recover-million", MILLION, 64, recover_thousand},
        {"recover_1000_of_1024", "recover-million-1024", MILLION, 1024, recover_thousand},
        {"recover_all", "recover-million-all", MILLION, 64, recover_million},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (selected_at_all(kinds[i].name, "zerocp"))
            add((point){.name = kinds[i].name, .kind = POINT_ONCE, .once = kinds[i].once},
                keep(instance_create(kinds[i].word, kinds[i].chunks, RECOVER_BYTES, kinds[i].clients)), kinds[i].chunks,
                RECOVER_BYTES);
}

void suite_instances(const suite_options *options) {
    rmw_add();
    add_attach();
    add_recover();
    add((point){.name = "create", .loop = create_loop}, NULL, 100, 256);
    if (options->quick || !large_fits()) {
        printf("skipped=create_1g what=\"%s\"\n",
               options->quick ? "--quick" : "less than 3 GiB of /dev/shm or of memory are free");
    } else {
        add((point){.name = "fallocate_1g", .system = "kernel", .kind = POINT_ONCE, .once = fallocate_large_once}, NULL,
            1024, 1 << 20);
        add((point){.name = "create_1g", .kind = POINT_ONCE, .once = create_large_once}, NULL, 1024, 1 << 20);
    }
    rounds_run(options->rounds);
    while (instance_count > 0)
        instance_destroy(instances[--instance_count]);
    printf("conservation=after pools=all all_free=yes\n");
    suite_end();
}
