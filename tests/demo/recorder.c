// recorder.c: prints the management segment of a small instance as it lies in memory, for tests/recorded.h: that is how
// later versions of zerocp are tested against what this one leaves behind. `make record` does it for the present
// version. A version of the past takes its three headers, and this file as it is:
//
//     cc -I HEADERS -o recorder tests/demo/recorder.c -pthread -lrt && ./recorder "subject of the commit" >>
//     tests/recorded.h
//
// The instance is what a killed client leaves: it held three chunks, one of them as a borrower, too, and had released a
// fourth.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h" // the first include, so that it can ask libc for all that it needs

#include "common.h"
#include "streams.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// in the header, of every version: see its byte map in zerocp.h
enum { VERSION_AT = 20 };

static char instance[64];

static bool open_instance(zcp_manager **manager, const char *client_name) {
    zcp_config config = {0};
    zcp_status status = zcp_config_add_pool(&config, 64, 8);
    if (status == ZCP_OK)
        status = zcp_config_add_pool(&config, 1000, 20);
    if (status == ZCP_OK)
        status = zcp_manager_open(manager, &(zcp_manager_desc){.name = instance, .config = &config, .max_clients = 3,
                                                               .client_name = client_name});
    return status == ZCP_OK || fail_status("zcp_manager_open", status);
}

// The client that is killed. Returns only if something went wrong.
static int hold_and_die(void) {
    static const uint64_t sizes[] = {40, 900, 900, 1000};
    zcp_manager *manager;
    zcp_chunk chunks[4], borrowed;
    if (!open_instance(&manager, "recorded"))
        return 1;
    for (int i = 0; i < 4; i++)
        if (zcp_chunk_allocate(manager, sizes[i], &chunks[i]) != ZCP_OK)
            return fail("zcp_chunk_allocate: %s", zcp_last_message()), 1;
    if (zcp_chunk_acquire(manager, zcp_chunk_token(&chunks[1]), &borrowed) != ZCP_OK)
        return fail("zcp_chunk_acquire: %s", zcp_last_message()), 1;
    zcp_chunk_release(&chunks[2]);
    raise(SIGKILL);
    return 1;
}

static bool leave_instance(void) {
    zcp_manager *manager;
    int status;
    if (!open_instance(&manager, "creator"))
        return false;
    zcp_manager_close(manager);
    pid_t child = fork();
    if (child == 0)
        _exit(hold_and_die());
    return (child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
           fail("the client that holds chunks was not killed");
}

// Maps one of the instance's two objects, to look at it.
static const unsigned char *map_object(const char *suffix, size_t *bytes) {
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, "/%s_memory_%s", instance, suffix);
    int file = shm_open(path, O_RDONLY, 0);
    if (file < 0 || fstat(file, &status) != 0)
        return fail("%s: %s", path, strerror(errno)), NULL;
    *bytes = (size_t)status.st_size;
    void *base = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    return base == MAP_FAILED ? (fail("mmap: %s", strerror(errno)), NULL) : base;
}

static uint64_t word_at(const unsigned char *base, size_t at) {    // little-endian, whatever this machine is
    uint64_t word = 0;
    for (size_t i = 8; i-- > 0;)
        word = word << 8 | base[at + i];
    return word;
}

static void print_as_string(const char *text) {
    putchar('"');
    for (; *text != 0; text++)
        printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    putchar('"');
}

// The words that are not 0, each with its place.
static bool print_instance(const char *subject) {
    size_t bytes, chunk_bytes, column = 0;
    const unsigned char *base = map_object("management", &bytes), *chunks = map_object("chunk", &chunk_bytes);
    uint32_t version;
    if (base == NULL || chunks == NULL)
        return false;
    memcpy(&version, base + VERSION_AT, sizeof version);
    printf("RECORDED(%" PRIu32 ", ", version);
    print_as_string(subject);
    printf(", %zu, %zu", bytes, chunk_bytes);
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = word_at(base, at);
        if (word != 0)
            printf("%s{0x%04zx, 0x%" PRIx64 "}", column++ % 3 == 0 ? ",\n    " : ", ", at, word);
    }
    printf(")\n");
    return true;
}

int main(int argc, char **argv) {
    static const char usage[] =
        "Usage: recorder SUBJECT\n"
        "Prints the management segment of a small instance, for tests/recorded.h: see make record.\n"
        "SUBJECT is that of the version's commit, and is printed with it.\n\n"
        "  --help  print this, and end\n";
    open_standard_streams();
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return fputs(usage, stdout) < 0 || fflush(stdout) != 0;
    if (argc != 2 || argv[1][0] == '-')
        return fputs("recorder: one SUBJECT is expected. Try --help.\n", stderr), 2;
    snprintf(instance, sizeof instance, "zerocp_recorder_%ld", (long)getpid());
    bool good = leave_instance() && print_instance(argv[1]);
    zcp_status status = zcp_manager_destroy(instance);
    if (good && status != ZCP_OK)
        good = fail_status("zcp_manager_destroy", status);
    return fflush(stdout) != 0 || ferror(stdout) || !good;
}
