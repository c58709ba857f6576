// tests/badinput_test.c: every public function with what it must refuse. Each refusal names its cause, says in a
// message what to do, leaves the output empty, and changes nothing: neither in /dev/shm nor in an instance.
#include "zerocp.h"
#include "harness/filter.h"
#include "harness/inside.h"
#include "harness/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// ---------------------------------------------------------------------------------------------------------------------
// Checks

static unsigned files_of_this_test(void) {
    unsigned count = 0;
    DIR *directory = opendir("/dev/shm");
    CHECK(directory != NULL);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        count += strstr(entry->d_name, test_instance()) != NULL;
    closedir(directory);
    return count;
}

// The message of the moment is of this failure (not left over from another one), and the table's says what to do.
static void check_refused(const char *file, int line, const char *call, zcp_status status, zcp_status expected) {
    test_check_status(file, line, call, status, expected);
    if (zcp_last_message()[0] == 0 || strstr(zcp_last_message(), "(marker)") != NULL)
        test_fail(file, line, "%s: %s without a message of its own", call, zcp_status_name(status));
    if (strstr(zcp_status_message(status), ": ") == NULL)
        test_fail(file, line, "%s: \"%s\" does not say what to do", call, zcp_status_message(status));
}

// Leaves a failure with a known message and errno, so that an old one is not taken for a new one.
static void leave_a_marker(void) {
    CHECK_STATUS(zcp_shm_unlink("(marker)"), ZCP_ERR_NOT_FOUND);
    CHECK_EQ(zcp_last_errno(), ENOENT);
    CHECK(strstr(zcp_last_message(), "(marker)") != NULL);
}

#define CHECK_REFUSED(call, expected)                                                                                  \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        leave_a_marker();                                                                                              \
        check_refused(__FILE__, __LINE__, #call, (call), (expected));                                                  \
        CHECK_EQ(zcp_last_errno(), 0);                                                                                 \
    } while (0)

#define CHECK_REFUSED_BY_SYSTEM(call, expected, error)                                                                 \
    do {                                                                                                               \
        test_at(__FILE__, __LINE__);                                                                                   \
        leave_a_marker();                                                                                              \
        check_refused(__FILE__, __LINE__, #call, (call), (expected));                                                  \
        CHECK_EQ(zcp_last_errno(), error);                                                                             \
    } while (0)

#define CHECK_ZERO(object) CHECK(all_zero(&(object), sizeof(object)))

static bool all_zero(const void *object, size_t bytes) {
    const unsigned char *byte = object;
    while (bytes > 0 && byte[bytes - 1] == 0)
        bytes--;
    return bytes == 0;
}

// A refused call whose output is checked to be zero; before it holds garbage.
#define CHECK_REFUSED_ZERO(object, call, expected)                                                                     \
    do {                                                                                                               \
        memset(&(object), 0x5a, sizeof(object));                                                                       \
        CHECK_REFUSED(call, expected);                                                                                 \
        CHECK_ZERO(object);                                                                                            \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// Names

enum { LONGEST_INSTANCE = 236 };

static const char *name_of_length(size_t length) {
    static char name[600];
    snprintf(name, sizeof name, "%s", test_instance());
    for (size_t i = strlen(name); i < length; i++)
        name[i] = 'n';
    name[length] = 0;
    return name;
}

static const char *const bad_names[] = {"",    "/",   "//",  "//x",    ".",    "..",     "a/b",   "../x", "a/",
                                        "x\n", "\tx", "x\r", "x\x01y", "\x7f", "x\x1by", "\x1f"};
enum { BAD_NAMES = sizeof bad_names / sizeof bad_names[0] };

static void refuse_instance_name(const char *name, const zcp_config *config) {
    zcp_manager *manager;
    for (int mode = 0; mode < 4; mode++) {
        zcp_manager_desc desc = {.name = name, .mode = (zcp_shm_mode)mode, .config = config};
        CHECK_REFUSED_ZERO(manager, zcp_manager_open(&manager, &desc), ZCP_ERR_INVALID_NAME);
    }
    CHECK_REFUSED(zcp_manager_destroy(name), ZCP_ERR_INVALID_NAME);
    CHECK_REFUSED(zcp_manager_destroy_with(name, ZCP_SHM_ANY_OWNER), ZCP_ERR_INVALID_NAME);
    CHECK(zcp_manager_find(name) == NULL);
}

TEST(bad_instance_names) {
    zcp_config config = {0};
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    for (int i = 0; i < BAD_NAMES; i++)
        refuse_instance_name(bad_names[i], &config);
    refuse_instance_name(name_of_length(LONGEST_INSTANCE + 1), &config);
    refuse_instance_name(name_of_length(255), &config);
    refuse_instance_name(name_of_length(500), &config);
    CHECK_EQ(files_of_this_test(), 0);

    const char *longest = name_of_length(LONGEST_INSTANCE);
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = longest, .config = &config}));
    CHECK(zcp_manager_find(longest) == manager);
    CHECK_EQ(files_of_this_test(), 3);
    zcp_manager_close(manager);
    books_check(longest, 0);
    CHECK_OK(zcp_manager_destroy(longest));
    CHECK_EQ(files_of_this_test(), 0);
}

// Both floors ignore one slash in front, wherever a name is given.
TEST(names_may_begin_with_a_slash) {
    char slashed[300];
    zcp_config config = {0};
    zcp_manager *manager, *same;
    zcp_manager_info info;
    zcp_shm shm;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    snprintf(slashed, sizeof slashed, "/%s", test_instance());
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = slashed, .config = &config}));
    CHECK_OK(zcp_manager_get_info(manager, &info));
    CHECK_STR(info.name, test_instance());
    CHECK_OK(zcp_manager_open(&same, &(zcp_manager_desc){.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING}));
    CHECK(zcp_manager_find(slashed) == manager && zcp_manager_find(test_instance()) == manager);
    CHECK_EQ(files_of_this_test(), 3);
    zcp_manager_close(same);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(slashed));
    CHECK_OK(zcp_shm_open(&shm, &(zcp_shm_desc){.name = slashed, .bytes = 1}));
    zcp_shm_close(&shm);
    CHECK_OK(zcp_shm_unlink(slashed));
    CHECK_EQ(files_of_this_test(), 0);
}

TEST(bad_client_names) {
    zcp_config config = {0};
    zcp_manager *manager;
    zcp_client_info info;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    static const char *const bad[] = {"a/b", "/", "x\n", "\x7f", "01234567890123456789012345678901"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        zcp_manager_desc desc = {.name = test_instance(), .config = &config, .client_name = bad[i]};
        CHECK_REFUSED_ZERO(manager, zcp_manager_open(&manager, &desc), ZCP_ERR_INVALID_NAME);
    }
    CHECK_EQ(files_of_this_test(), 0);
    static const char *const good[] = {"", "a b", "0123456789012345678901234567890"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        zcp_manager_desc desc = {.name = test_instance(), .config = &config, .client_name = good[i]};
        CHECK_OK(zcp_manager_open(&manager, &desc));
        CHECK_OK(zcp_manager_client_info(manager, 0, &info));
        CHECK_STR(info.name, good[i]);
        zcp_manager_close(manager);
    }
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// zcp_manager_open and destroy

TEST(bad_open_descriptors) {
    zcp_config config = {0}, empty = {0}, broken = {0};
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    CHECK_REFUSED(zcp_manager_open(NULL, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_manager_open(NULL, &(zcp_manager_desc){.name = test_instance(), .config = &config}),
                  ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(manager, zcp_manager_open(&manager, NULL), ZCP_ERR_INVALID_ARGUMENT);
#define CHECK_NOT_OPENED(status, ...)                                                                                  \
    do {                                                                                                               \
        zcp_manager_desc desc = {.name = test_instance(), __VA_ARGS__};                                                \
        CHECK_REFUSED_ZERO(manager, zcp_manager_open(&manager, &desc), status);                                        \
        CHECK_EQ(files_of_this_test(), 0);                                                                             \
    } while (0)
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .mode = (zcp_shm_mode)4);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .mode = (zcp_shm_mode)-1);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .mode = (zcp_shm_mode)INT_MAX);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .max_clients = ZCP_MAX_CLIENTS + 1);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .max_clients = UINT32_MAX);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .max_clients = UINT32_MAX);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .permissions = 01000);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .permissions = UINT32_MAX);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .permissions = 0400);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &config, .permissions = 0066);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .mode = ZCP_SHM_CREATE_EXCLUSIVE);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .mode = ZCP_SHM_PURGE_AND_CREATE);
    for (int mode = 0; mode < 4; mode++)
        CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &empty, .mode = (zcp_shm_mode)mode);
    broken.pools.size = 1;
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_SIZE, .config = &broken);
    broken.pools.items[0] = (zcp_pool_config){.chunk_size = 64, .chunk_count = ZCP_MAX_CHUNKS + 1, .alignment = 0};
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_SIZE, .config = &broken);
    broken.pools.items[0] = (zcp_pool_config){.chunk_size = 64, .chunk_count = 1, .alignment = 48};
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ALIGNMENT, .config = &broken);
    broken.pools.items[0] = (zcp_pool_config){.chunk_size = UINT64_MAX, .chunk_count = 1, .alignment = 0};
    CHECK_NOT_OPENED(ZCP_ERR_OVERFLOW, .config = &broken);
    broken.pools.size = ZCP_MAX_POOLS + 1;
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_ARGUMENT, .config = &broken);
}

TEST(bad_open_flags) {
    const uint32_t known = ZCP_FALLBACK | ZCP_READ_ONLY_DATA | ZCP_WAIT | ZCP_CHECKED | ZCP_OBSERVE | ZCP_SHM_PREFAULT |
                           ZCP_SHM_LOCK | ZCP_SHM_ANY_OWNER | ZCP_SHM_NO_RESERVE | ZCP_SHM_NO_DUMP | ZCP_SHM_GROUP;
    zcp_config config = {0};
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    for (int bit = 0; bit < 32; bit++)
        if ((known >> bit & 1) == 0)
            for (int mode = 0; mode < 4; mode++)
                CHECK_NOT_OPENED(ZCP_ERR_INVALID_FLAGS, .config = &config, .mode = (zcp_shm_mode)mode,
                                 .flags = UINT32_C(1) << bit);
    CHECK_NOT_OPENED(ZCP_ERR_INVALID_FLAGS, .config = &config, .flags = UINT32_MAX);
    for (int mode = ZCP_SHM_CREATE_EXCLUSIVE; mode <= ZCP_SHM_PURGE_AND_CREATE; mode++) {
        CHECK_NOT_OPENED(ZCP_ERR_INVALID_FLAGS, .config = &config, .mode = (zcp_shm_mode)mode, .flags = ZCP_WAIT);
        CHECK_NOT_OPENED(ZCP_ERR_INVALID_FLAGS, .config = &config, .mode = (zcp_shm_mode)mode,
                         .flags = ZCP_READ_ONLY_DATA);
    }
}

TEST(bad_open_of_what_is_not_there) {
    zcp_config config = {0};
    zcp_manager *manager = NULL;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    zcp_manager_desc descs[] = {
        {.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING},
        {.name = test_instance(), .mode = ZCP_SHM_OPEN_EXISTING, .config = &config},
        {.name = test_instance()},
        {.name = test_instance(), .config = &config, .flags = ZCP_READ_ONLY_DATA},
    };
    for (size_t i = 0; i < sizeof descs / sizeof descs[0]; i++) {
        manager = (zcp_manager *)&config;
        CHECK_REFUSED_BY_SYSTEM(zcp_manager_open(&manager, &descs[i]), ZCP_ERR_NOT_FOUND, ENOENT);
        CHECK(manager == NULL);
        CHECK(strstr(zcp_last_message(), test_instance()) != NULL);
    }
    zcp_manager_desc waits = descs[0];
    waits.flags = ZCP_WAIT;
    waits.timeout_ms = 5;
    CHECK_REFUSED_ZERO(manager, zcp_manager_open(&manager, &waits), ZCP_ERR_TIMEOUT);
    CHECK(strstr(zcp_last_message(), test_instance()) != NULL);
    CHECK_REFUSED_BY_SYSTEM(zcp_manager_destroy(test_instance()), ZCP_ERR_NOT_FOUND, ENOENT);
    CHECK_EQ(files_of_this_test(), 0);
}

// A mismatch leaves the instance, and the one who uses it, as they were.
TEST(bad_open_of_an_existing_instance) {
    zcp_config config = {0}, larger, reordered = {0}, aligned = {0};
    zcp_manager *manager, *other;
    zcp_chunk chunk;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    CHECK_OK(zcp_config_add_pool(&config, 128, 4));
    larger = config;
    CHECK_OK(zcp_config_add_pool(&larger, 256, 1));
    CHECK_OK(zcp_config_add_pool(&reordered, 128, 4));
    CHECK_OK(zcp_config_add_pool(&reordered, 64, 4));
    // as 0 says
    CHECK_OK(zcp_config_add(&aligned, &(zcp_pool_config){.chunk_size = 64, .chunk_count = 4, .alignment = 64}));
    CHECK_OK(zcp_config_add(&aligned, &(zcp_pool_config){.chunk_size = 128, .chunk_count = 4, .alignment = 128}));
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    CHECK_OK(zcp_chunk_allocate(manager, 64, &chunk));
    memset(chunk.data, 'p', 64);
#define CHECK_NOT_ATTACHED(status, ...)                                                                                \
    do {                                                                                                               \
        zcp_manager_desc desc = {.name = test_instance(), __VA_ARGS__};                                                \
        CHECK_REFUSED_ZERO(other, zcp_manager_open(&other, &desc), status);                                            \
    } while (0)
    CHECK_NOT_ATTACHED(ZCP_ERR_CONFIG_MISMATCH, .config = &larger);
    CHECK_OK(zcp_manager_open(&other, &(zcp_manager_desc){.name = test_instance(), .config = &reordered}));
    zcp_manager_close(other);
    CHECK_NOT_ATTACHED(ZCP_ERR_CONFIG_MISMATCH, .config = &aligned);
    CHECK_NOT_ATTACHED(ZCP_ERR_CONFIG_MISMATCH, .config = &config, .max_clients = 65);
    CHECK_NOT_ATTACHED(ZCP_ERR_CONFIG_MISMATCH, .mode = ZCP_SHM_OPEN_EXISTING, .max_clients = 63);
    leave_a_marker();
    zcp_manager_desc exclusive = {.name = test_instance(), .config = &config, .mode = ZCP_SHM_CREATE_EXCLUSIVE};
    CHECK_REFUSED_BY_SYSTEM(zcp_manager_open(&other, &exclusive), ZCP_ERR_EXISTS, EEXIST);
    CHECK(other == NULL);
    CHECK_OK(zcp_manager_check(manager));
    for (int i = 0; i < 64; i++)
        CHECK(((char *)chunk.data)[i] == 'p');
    books_check(test_instance(), 1);
    zcp_chunk_release(&chunk);
    books_check(test_instance(), 0);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls on a manager that is none: NULL, closed, forked

static void refuse_everything(zcp_manager *manager, const zcp_chunk *held, uint64_t token, zcp_status status) {
    zcp_recovery recovery;
    zcp_pool_stats stats;
    zcp_manager_info info;
    zcp_client_info client;
    zcp_chunk chunk;
    char text[256], piece[8];
    memset(&recovery, 0x5a, sizeof recovery);
    CHECK_REFUSED(zcp_manager_recover(manager, &recovery), status);
    CHECK(recovery.dead_clients == 0 && recovery.chunks_reclaimed == 0);                // it has padding
    CHECK_REFUSED(zcp_manager_recover(manager, NULL), status);
    CHECK_REFUSED_ZERO(stats, zcp_manager_pool_stats(manager, 0, &stats), status);
    CHECK_REFUSED_ZERO(stats, zcp_manager_pool_stats(manager, UINT32_MAX, &stats), status);
    CHECK_REFUSED_ZERO(info, zcp_manager_get_info(manager, &info), status);
    CHECK_REFUSED_ZERO(client, zcp_manager_client_info(manager, 0, &client), status);
    CHECK_REFUSED(zcp_manager_check(manager), status);
    CHECK_REFUSED(zcp_manager_destroy_this(manager), status);
    CHECK_EQ(zcp_manager_pool_end(manager), 0);
    CHECK(zcp_manager_registry(manager) == NULL);

    size_t length = zcp_manager_format(manager, text, sizeof text);                     // one line that says so
    CHECK(length > 5 && length < sizeof text && strlen(text) == length && strchr(text, '\n') == text + length - 1);
    CHECK_EQ(zcp_manager_format(manager, piece, sizeof piece), length);
    CHECK(strlen(piece) == sizeof piece - 1 && strncmp(piece, text, sizeof piece - 1) == 0);
    CHECK_EQ(zcp_manager_format(manager, NULL, 0), length);
    char *printed = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&printed, &bytes);
    CHECK(out != NULL);
    zcp_manager_print(manager, out);
    fclose(out);
    CHECK_STR(printed, text);
    free(printed);
    zcp_manager_print(manager, NULL);

    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(manager, 64, &chunk), status);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(manager, 0, &chunk), status);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_acquire(manager, token, &chunk), status);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_acquire(manager, 0, &chunk), status);
    if (held == NULL)
        return;
    zcp_chunk copy = *held;
    CHECK(!zcp_chunk_is_valid(&copy));
    CHECK(zcp_chunk_data(&copy) == NULL);
    CHECK(zcp_chunk_size(&copy) == 0 && zcp_chunk_capacity(&copy) == 0);
    CHECK(zcp_chunk_use_count(&copy) == 0 && zcp_chunk_token(&copy) == 0);
    leave_a_marker();
    chunk = zcp_chunk_clone(&copy);
    CHECK_ZERO(chunk);
    CHECK(zcp_last_message()[0] != 0 && strstr(zcp_last_message(), "(marker)") == NULL);
    chunk = zcp_chunk_move(&copy);
    CHECK_ZERO(copy);
    CHECK(memcmp(&chunk, held, sizeof chunk) == 0);
    zcp_chunk_release(&chunk);
    CHECK_ZERO(chunk);
    zcp_manager_close(manager);
}

TEST(bad_manager_null) {
    refuse_everything(NULL, NULL, 1, ZCP_ERR_INVALID_ARGUMENT);
    zcp_manager_close(NULL);
    CHECK_EQ(files_of_this_test(), 0);
}

static zcp_manager *open_small(void) {
    zcp_config config = {0};
    zcp_manager *manager;
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    CHECK_OK(zcp_config_add_pool(&config, 256, 3));
    CHECK_OK(zcp_manager_open(&manager, &(zcp_manager_desc){.name = test_instance(), .config = &config}));
    return manager;
}

TEST(bad_manager_closed) {
    zcp_chunk chunk;
    zcp_manager *manager = open_small();
    CHECK_OK(zcp_chunk_allocate(manager, 64, &chunk));
    uint64_t token = zcp_chunk_token(&chunk);
    zcp_manager_close(manager);
    CHECK(zcp_manager_find(test_instance()) == NULL);
    for (int i = 0; i < 3; i++)
        refuse_everything(manager, &chunk, token, ZCP_ERR_CLOSED);
    books_check(test_instance(), 0);                               // what was held is given back, and once
    zcp_manager *next = open_small();
    CHECK(next != manager);                                        // a handle is left: that object is not used again
    refuse_everything(manager, &chunk, token, ZCP_ERR_CLOSED);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_check(next));
    zcp_manager_close(next);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

typedef struct inherited {
    zcp_manager *manager;
    zcp_chunk chunk;
    uint64_t token;
} inherited;

static void refuse_in_child(void *argument) {
    inherited *all = argument;
    CHECK(zcp_manager_find(test_instance()) == NULL);
    refuse_everything(all->manager, &all->chunk, all->token, ZCP_ERR_FORKED);
    zcp_manager_close(all->manager);
    refuse_everything(all->manager, &all->chunk, all->token, ZCP_ERR_FORKED);
    zcp_manager *own = open_small();                               // and one of its own works
    CHECK(own != all->manager);
    CHECK(zcp_manager_find(test_instance()) == own);
    zcp_manager_close(own);
}

TEST(bad_manager_forked) {
    inherited all = {.manager = open_small()};
    CHECK_OK(zcp_chunk_allocate(all.manager, 64, &all.chunk));
    all.token = zcp_chunk_token(&all.chunk);
    memset(all.chunk.data, 'f', 64);
    test_join(test_spawn(refuse_in_child, &all));
    CHECK_OK(zcp_manager_check(all.manager));
    CHECK(zcp_chunk_is_valid(&all.chunk));                         // the child's release and close changed nothing
    CHECK_EQ(zcp_chunk_use_count(&all.chunk), 1);
    for (int i = 0; i < 64; i++)
        CHECK(((char *)all.chunk.data)[i] == 'f');
    books_check(test_instance(), 1);
    zcp_chunk_release(&all.chunk);
    zcp_manager_close(all.manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// Bad arguments on a good manager

TEST(bad_arguments_of_looking) {
    zcp_manager *manager = open_small();
    zcp_pool_stats stats;
    zcp_client_info client;
    CHECK_REFUSED(zcp_manager_pool_stats(manager, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_manager_pool_stats(NULL, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(stats, zcp_manager_pool_stats(manager, 2, &stats), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(stats, zcp_manager_pool_stats(manager, ZCP_MAX_POOLS, &stats), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(stats, zcp_manager_pool_stats(manager, UINT32_MAX, &stats), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_manager_get_info(manager, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_manager_client_info(manager, 0, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(client, zcp_manager_client_info(manager, 64, &client), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(client, zcp_manager_client_info(manager, UINT32_MAX, &client), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_OK(zcp_manager_client_info(manager, 63, &client));
    CHECK_ZERO(client);                                            // nobody there
    CHECK_OK(zcp_manager_recover(manager, NULL));
    zcp_manager_print(manager, NULL);
    CHECK(zcp_manager_format(manager, NULL, 100) > 20);            // asked for the length only
    char untouched = 'u';
    CHECK(zcp_manager_format(manager, &untouched, 0) > 20 && untouched == 'u');
    CHECK(zcp_manager_format(manager, &untouched, 1) > 20 && untouched == 0);
    zcp_manager_close(manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(bad_allocations) {
    zcp_manager *manager = open_small();
    zcp_chunk chunk, all[3];
    CHECK_REFUSED(zcp_chunk_allocate(manager, 64, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_chunk_allocate(NULL, 64, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(manager, 0, &chunk), ZCP_ERR_INVALID_SIZE);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(manager, 257, &chunk), ZCP_ERR_TOO_LARGE);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(manager, UINT64_C(1) << 32 | 64, &chunk), ZCP_ERR_TOO_LARGE);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(manager, UINT64_MAX, &chunk), ZCP_ERR_TOO_LARGE);
    for (int i = 0; i < 3; i++)
        CHECK_OK(zcp_chunk_allocate(manager, 256, &all[i]));
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(manager, 65, &chunk), ZCP_ERR_EXHAUSTED);
    books_check(test_instance(), 3);
    zcp_manager *reader;
    zcp_manager_desc read_only = {.name = test_instance(), .flags = ZCP_READ_ONLY_DATA};
    CHECK_OK(zcp_manager_open(&reader, &read_only));
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(reader, 64, &chunk), ZCP_ERR_READ_ONLY);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_allocate(reader, 0, &chunk), ZCP_ERR_READ_ONLY);
    zcp_manager_close(reader);
    for (int i = 0; i < 3; i++)
        zcp_chunk_release(&all[i]);
    zcp_manager_close(manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

TEST(bad_tokens) {
    zcp_manager *manager = open_small();
    zcp_chunk held, chunk;
    CHECK_OK(zcp_chunk_allocate(manager, 64, &held));
    uint64_t token = zcp_chunk_token(&held), index = (uint32_t)token, generation = token >> 32;
    CHECK(token != 0);
    CHECK_REFUSED(zcp_chunk_acquire(manager, token, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_chunk_acquire(NULL, token, NULL), ZCP_ERR_INVALID_ARGUMENT);
    const uint64_t invalid[] = {0,
                                index,                             // generation 0
                                generation << 32 | 4,              // one past the first pool's chunks
                                generation << 32 | (1u << 27) | 3, // and the second's
                                generation << 32 | 2u << 27,       // no such pool
                                generation << 32 | UINT32_MAX,
                                UINT64_MAX};
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++)
        CHECK_REFUSED_ZERO(chunk, zcp_chunk_acquire(manager, invalid[i], &chunk), ZCP_ERR_INVALID_TOKEN);
    const uint64_t stale[] = {(generation + 1 == UINT64_C(1) << 32 ? 1 : generation + 1) << 32 | index,
                              (generation == 1 ? UINT32_MAX : generation - 1) << 32 | index,
                              generation << 32 | (index ^ 1), generation << 32 | 1u << 27};
    for (size_t i = 0; i < sizeof stale / sizeof stale[0]; i++)
        CHECK_REFUSED_ZERO(chunk, zcp_chunk_acquire(manager, stale[i], &chunk), ZCP_ERR_STALE);
    for (int i = 0; i < 3000; i++) {                               // anything at all
        uint64_t garbage = i % 3 == 0 ? test_random() : (test_random() << 32 | (uint32_t)test_random_below(6));
        memset(&chunk, 0x5a, sizeof chunk);
        zcp_status status = zcp_chunk_acquire(manager, garbage, &chunk);
        if (garbage == token)
            continue;
        CHECK(status == ZCP_ERR_INVALID_TOKEN || status == ZCP_ERR_STALE);
        CHECK_ZERO(chunk);
    }
    CHECK_EQ(zcp_chunk_use_count(&held), 1);
    books_check(test_instance(), 1);
    zcp_chunk_release(&held);
    CHECK_REFUSED_ZERO(chunk, zcp_chunk_acquire(manager, token, &chunk), ZCP_ERR_STALE);
    books_check(test_instance(), 0);
    zcp_manager_close(manager);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// Handles that nobody gave out: empty, released, with numbers of another life or out of range.
static void check_void(const zcp_chunk *bad) {
    zcp_chunk handle = *bad, cloned;
    CHECK(!zcp_chunk_is_valid(&handle));
    CHECK(zcp_chunk_data(&handle) == NULL);
    CHECK(zcp_chunk_size(&handle) == 0 && zcp_chunk_capacity(&handle) == 0);
    CHECK(zcp_chunk_use_count(&handle) == 0 && zcp_chunk_token(&handle) == 0);
    cloned = zcp_chunk_clone(&handle);
    CHECK_ZERO(cloned);
    zcp_chunk_release(&handle);
    CHECK_ZERO(handle);
}

TEST(bad_handles) {
    zcp_manager *manager = open_small();
    zcp_chunk held, released, empty = {0}, result;
    zcp_log_set_level(ZCP_LOG_OFF);
    CHECK_OK(zcp_chunk_allocate(manager, 64, &held));
    CHECK_OK(zcp_chunk_allocate(manager, 64, &released));
    zcp_chunk copy = released;
    zcp_chunk_release(&released);
    CHECK_ZERO(released);
    const zcp_chunk bad[] = {
        empty,
        copy,                                                      // released through the other one
        {.manager = manager},
        {.manager = manager, .data = held.data, .index = held.index, .generation = 0},
        {.manager = manager, .data = held.data, .index = held.index, .generation = held.generation + 1},
        {.manager = manager, .data = held.data, .index = held.index, .generation = held.generation - 1},
        {.manager = manager, .data = held.data, .index = held.index ^ 1, .generation = held.generation},
        {.manager = manager, .data = held.data, .index = 4, .generation = held.generation},
        {.manager = manager, .data = held.data, .index = 5u << 27, .generation = held.generation},
        {.manager = manager, .data = held.data, .index = UINT32_MAX, .generation = UINT32_MAX},
        {.manager = NULL, .data = held.data, .index = held.index, .generation = held.generation},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        test_note("handle %zu", i);
        check_void(&bad[i]);
        CHECK_EQ(zcp_chunk_use_count(&held), 1);
    }
    CHECK(!zcp_chunk_is_valid(NULL) && zcp_chunk_data(NULL) == NULL);
    CHECK(zcp_chunk_size(NULL) == 0 && zcp_chunk_capacity(NULL) == 0);
    CHECK(zcp_chunk_use_count(NULL) == 0 && zcp_chunk_token(NULL) == 0);
    result = zcp_chunk_clone(NULL);
    CHECK_ZERO(result);
    result = zcp_chunk_move(NULL);
    CHECK_ZERO(result);
    result = zcp_chunk_move(&empty);
    CHECK_ZERO(result);
    zcp_chunk_release(NULL);
    zcp_chunk_release(&empty);
    leave_a_marker();
    result = zcp_chunk_clone(&copy);
    CHECK_ZERO(result);
    CHECK(strstr(zcp_last_message(), "not held") != NULL);
    CHECK(zcp_chunk_is_valid(&held));
    books_check(test_instance(), 1);
    zcp_chunk_release(&held);
    zcp_manager_close(manager);
    books_check(test_instance(), 0);
    CHECK_OK(zcp_manager_destroy(test_instance()));
}

// ---------------------------------------------------------------------------------------------------------------------
// The lower floors and the configuration: that each refusal has a message. What they refuse is tested in their files.

TEST(bad_arguments_of_the_lower_floors) {
    static char memory[256];
    zcp_registry registry = {0};
    zcp_shm shm;
    zcp_mpmc_list list;
    zcp_config config = {0};
    zcp_shm_desc zero = {0}, desc = {.name = test_instance(), .bytes = 1};
    CHECK_REFUSED(zcp_registry_add(NULL, 1, memory, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_registry_add(&registry, 0, memory, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_registry_add(&registry, 1, NULL, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_registry_add(&registry, 1, memory, 0), ZCP_ERR_INVALID_SIZE);
    CHECK_REFUSED(zcp_registry_remove(&registry, 1), ZCP_ERR_NOT_FOUND);
    CHECK_REFUSED(zcp_registry_remove(NULL, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_OK(zcp_registry_add(&registry, 1, memory, 1));
    CHECK_REFUSED(zcp_registry_add(&registry, 1, memory, 1), ZCP_ERR_EXISTS);
    for (uint16_t i = 2; i <= 64; i++)
        CHECK_OK(zcp_registry_add(&registry, i, memory, 1));
    CHECK_REFUSED(zcp_registry_add(&registry, 65, memory, 1), ZCP_ERR_FULL);

    CHECK_REFUSED(zcp_shm_open(NULL, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_shm_open(NULL, &desc), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(shm, zcp_shm_open(&shm, &zero), ZCP_ERR_INVALID_NAME);
    desc.mode = (zcp_shm_mode)4;
    CHECK_REFUSED_ZERO(shm, zcp_shm_open(&shm, &desc), ZCP_ERR_INVALID_ARGUMENT);
    desc.mode = (zcp_shm_mode)-1;
    CHECK_REFUSED_ZERO(shm, zcp_shm_open(&shm, &desc), ZCP_ERR_INVALID_ARGUMENT);
    desc = (zcp_shm_desc){.name = test_instance(), .bytes = 1, .flags = ZCP_FALLBACK};  // a manager's
    CHECK_REFUSED_ZERO(shm, zcp_shm_open(&shm, &desc), ZCP_ERR_INVALID_FLAGS);
    desc = (zcp_shm_desc){.name = test_instance(), .bytes = 1, .permissions = 010000};
    CHECK_REFUSED_ZERO(shm, zcp_shm_open(&shm, &desc), ZCP_ERR_INVALID_ARGUMENT);
    desc = (zcp_shm_desc){.name = test_instance()};
    CHECK_REFUSED_ZERO(shm, zcp_shm_open(&shm, &desc), ZCP_ERR_INVALID_SIZE);
    CHECK_REFUSED(zcp_shm_unlink(NULL), ZCP_ERR_INVALID_NAME);
    CHECK_REFUSED_BY_SYSTEM(zcp_shm_unlink(test_instance()), ZCP_ERR_NOT_FOUND, ENOENT);
    zcp_shm_close(NULL);

    CHECK_REFUSED(zcp_config_add_pool(NULL, 1, 1), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_config_add(&config, NULL), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED(zcp_config_add_pool(&config, 0, 1), ZCP_ERR_INVALID_SIZE);
    CHECK_REFUSED(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 1, .chunk_count = 1, .alignment = 3}),
                  ZCP_ERR_INVALID_ALIGNMENT);
    CHECK_REFUSED(zcp_config_add_pool(&config, UINT64_MAX, 2), ZCP_ERR_OVERFLOW);
    CHECK_ZERO(config);
    CHECK_REFUSED_ZERO(list, zcp_mpmc_list_create(&list, NULL, 1000, 10, true), ZCP_ERR_INVALID_ARGUMENT);
    CHECK_REFUSED_ZERO(list, zcp_mpmc_list_attach(&list, NULL, 1000), ZCP_ERR_INVALID_ARGUMENT);
    CHECK(!zcp_mpmc_list_push(NULL, 0));
    uint32_t index = 77;
    CHECK(!zcp_mpmc_list_pop(NULL, &index) && index == 77);
    CHECK(zcp_mpmc_list_count(NULL) == 0 && zcp_mpmc_list_capacity(NULL) == 0);
    CHECK_EQ(files_of_this_test(), 0);
}

// Files at the names that no zerocp wrote: told apart, and left alone.
static void put_file(const char *suffix, const char *content, size_t bytes) {
    char path[512];
    snprintf(path, sizeof path, "/dev/shm/%s%s", test_instance(), suffix);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    CHECK(fwrite(content, 1, bytes, file) == bytes);
    CHECK(fclose(file) == 0);
}

TEST(bad_files_at_the_names_are_left_alone) {
    static char text[8192];
    zcp_config config = {0};
    zcp_manager *manager;
    struct stat before, after;
    char path[512];
    snprintf(path, sizeof path, "/dev/shm/%s_memory_management", test_instance());
    CHECK_OK(zcp_config_add_pool(&config, 64, 4));
    memset(text, 't', sizeof text);
    static const size_t sizes[] = {1, 15, 16, 100, 8192};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put_file("_memory_management", text, sizes[i]);
        CHECK(stat(path, &before) == 0);
        for (int mode = 0; mode < 4; mode++) {
            zcp_manager_desc desc = {.name = test_instance(), .config = &config, .mode = (zcp_shm_mode)mode};
            CHECK_REFUSED_ZERO(manager, zcp_manager_open(&manager, &desc), ZCP_ERR_NOT_ZEROCP);
        }
        CHECK_REFUSED(zcp_manager_destroy(test_instance()), ZCP_ERR_NOT_ZEROCP);
        CHECK(stat(path, &after) == 0);
        CHECK(after.st_ino == before.st_ino && after.st_size == before.st_size);
        CHECK_EQ(files_of_this_test(), 1);
        CHECK(unlink(path) == 0);
    }
    CHECK(mkdir(path, 0700) == 0);
    for (int mode = 0; mode < 4; mode++) {
        zcp_manager_desc desc = {.name = test_instance(), .config = &config, .mode = (zcp_shm_mode)mode};
        leave_a_marker();
        CHECK_STATUS(zcp_manager_open(&manager, &desc), ZCP_ERR_WRONG_TYPE);
        CHECK(manager == NULL && zcp_last_errno() != 0);
    }
    CHECK_STATUS(zcp_manager_destroy(test_instance()), ZCP_ERR_WRONG_TYPE);
    CHECK(rmdir(path) == 0);
    CHECK_EQ(files_of_this_test(), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// What the system refuses while an instance is created: its errno is kept, and nothing stays that this call began.

typedef struct fault {
    const char *what;
    long call;
    int argument;                                                  // -1: whatever the arguments
    uint32_t value;
    int error;
    zcp_status status;
} fault;

enum { MANAGEMENT_BYTES = 73728, CHUNK_BYTES = 20480 };            // of the instance below

static const fault faults[] = {
    {"fchmod", SYS_fchmod, -1, 0, EPERM, ZCP_ERR_PERMISSION},
    {"locking", FILTER_FCNTL, 1, F_OFD_SETLK, ENOLCK, ZCP_ERR_SYSTEM},
    {"mapping of the lock's page", FILTER_MMAP, 1, 1, ENOMEM, ZCP_ERR_MAPPING},
    {"pwrite", SYS_pwrite64, -1, 0, EIO, ZCP_ERR_SYSTEM},
    {"fallocate", SYS_fallocate, -1, 0, ENOSPC, ZCP_ERR_NO_SPACE},
    {"sizing of the management segment", FILTER_FTRUNCATE, 1, MANAGEMENT_BYTES, EIO, ZCP_ERR_SYSTEM},
    {"sizing of the chunk segment", FILTER_FTRUNCATE, 1, CHUNK_BYTES, EIO, ZCP_ERR_SYSTEM},
    {"mapping of the management segment", FILTER_MMAP, 1, MANAGEMENT_BYTES, ENOMEM, ZCP_ERR_MAPPING},
};

static void create_with_a_fault(void *argument) {
    const fault *one = argument;
    zcp_config config = {0};
    zcp_manager *manager = (zcp_manager *)&config;
    CHECK_OK(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = CHUNK_BYTES, .chunk_count = 1, .alignment = 0}));
    CHECK_EQ(zcp_config_management_bytes(&config, 0), MANAGEMENT_BYTES);
    CHECK_EQ(zcp_config_chunk_bytes(&config, 0), CHUNK_BYTES);
    leave_a_marker();
    filter_call(one->call, one->argument, one->value, SECCOMP_RET_ERRNO | (uint32_t)one->error);
    test_note("%s: %s", one->what, strerror(one->error));
    zcp_manager_desc desc = {.name = test_instance(), .config = &config, .timeout_ms = 100};
    CHECK_REFUSED_BY_SYSTEM(zcp_manager_open(&manager, &desc), one->status, one->error);
    CHECK(manager == NULL);
    CHECK_EQ(files_of_this_test(), 0);
}

TEST(bad_system_while_an_instance_is_created) {
    filter_need();
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        fault copy = faults[i];
        test_join(test_spawn(create_with_a_fault, &copy));
    }
}
