// tests/fuzz/fuzz.c: a libFuzzer target: attach to a segment that somebody else writes to, and every operation on it.
//
//   make fuzz SECONDS=60
//
// An input is a program of small steps: change a word of the management segment, one of its leases, one of what its
// header says of pools that come and go, or one of the tables of topics (also while managers are attached to it), write
// what adds up (see scribble.h), replace its beginning by raw bytes, cut or extend the file, open, close, observe, add
// and retire pools, allocate, wait, acquire, release, publish, receive and so on.
// The seeds are made here, from a real segment with a pool that was added and one that retires, and written into the
// corpus directory that is given. A finding is what the sanitizers find, an access to the guard pages around each
// mapping (see hostile.h), a call without an end, a leaked descriptor or mapping, or a handle that lies outside of its
// segment.
#include "../harness/hostile.h"

#include "../harness/scribble.h"

enum { ADDED = 3, RETIRING = 4, LAST_POOL = 4, CLIENTS = 5, MANAGERS = 3, HANDLES = 12, TOKENS = 8, ENDS = 4,
       PAGE = 4096, IMAGE = 16 * PAGE };

// Of the header: up to the slots of the pools that are there.
enum { BEGINNING = offsetof(zcp_priv_header, pools) + (LAST_POOL + 1) * sizeof(zcp_priv_pool_slot) };

static char name[64], management_path[128], chunk_path[128], locks_path[128];
// of the pages that are not empty, one after the other
static unsigned char image[IMAGE];
static off_t page_at[IMAGE / PAGE];                                // where they lie in the file
static size_t image_bytes;
static off_t management_bytes, chunk_bytes;                        // of the files
static int management = -1;

static zcp_manager *managers[MANAGERS];
static zcp_chunk handles[HANDLES];
static uint64_t tokens[TOKENS];

// Publishers and subscribers, and what has read what.
static zcp_publisher *publishers[ENDS];
static zcp_subscriber *subscribers[ENDS];
static zcp_manager *published_by[ENDS], *received_by[ENDS];
static zcp_message messages[ENDS];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "fuzz.c:%d: %s does not hold: %s\n", __LINE__, #condition, zcp_last_message());            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

// ---------------------------------------------------------------------------------------------------------------------
// The segment

static zcp_config configuration(void) {
    zcp_config config = {.publishers = 2, .subscribers = 3, .ring_cells = 4};
    MUST(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 100, .chunk_count = 12, .cache_chunks = 4})
         == ZCP_OK);
    MUST(zcp_config_add(&config, &(zcp_pool_config){.chunk_size = 1000, .chunk_count = 5, .alignment = 256}) == ZCP_OK);
    MUST(zcp_config_add_pool(&config, 100, 3) == ZCP_OK);
    return config;
}

static void make_instance(void) {
    static const zcp_pool_config added = {50, 6, 0, 2}, retiring = {5000, 2, 0, 0};
    zcp_config config = configuration();
    zcp_manager *manager;
    zcp_chunk chunk;
    struct stat status, chunks;
    uint32_t number;
    if (management >= 0)
        close(management);
    unlink(management_path);
    unlink(chunk_path);
    unlink(locks_path);
    MUST(zcp_manager_open(&manager, &(zcp_manager_desc){.name = name, .config = &config, .max_clients = CLIENTS})
         == ZCP_OK);
    MUST(zcp_manager_add_pool(manager, &added, &number) == ZCP_OK && number == ADDED);
    MUST(zcp_manager_add_pool(manager, &retiring, &number) == ZCP_OK && number == RETIRING);
    MUST(zcp_chunk_allocate(manager, 5000, &chunk) == ZCP_OK && zcp_manager_retire_pool(manager, RETIRING) == ZCP_OK);
    management = open(management_path, O_RDWR | O_CLOEXEC);
    MUST(management >= 0 && fstat(management, &status) == 0 && stat(chunk_path, &chunks) == 0);
    management_bytes = status.st_size;
    chunk_bytes = chunks.st_size;
    image_bytes = 0;
    // as if its client had just died, with a chunk in its hands
    for (off_t at = 0; at < management_bytes; at += PAGE) {
        unsigned char *page = image + image_bytes;
        MUST(image_bytes + PAGE <= IMAGE && pread(management, page, PAGE, at) == PAGE);
        if (page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0)
            continue;
        page_at[image_bytes / PAGE] = at;
        image_bytes += PAGE;
    }
    zcp_manager_close(manager);
}

// The offset in the file of a byte of the image.
static off_t file_offset(uint64_t at) {
    return page_at[at / PAGE] + (off_t)(at % PAGE);
}

// Nobody is attached: as it was when it was made, or made again if it was dismantled.
static void restore_instance(void) {
    struct stat named, ours;
    bool stands = stat(management_path, &named) == 0 && fstat(management, &ours) == 0 && named.st_ino == ours.st_ino
                  && access(chunk_path, F_OK) == 0;
    if (stands && ftruncate(management, 0) == 0 && ftruncate(management, management_bytes) == 0
        && truncate(chunk_path, chunk_bytes) == 0)
        for (size_t at = 0; at < image_bytes; at += PAGE)
            MUST(pwrite(management, image + at, PAGE, file_offset(at)) == PAGE);
    else
        make_instance();
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading the input

typedef struct input {
    const uint8_t *at;
    size_t left;
} input;

static uint64_t take(input *in, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && in->left > 0; i++, in->at++, in->left--)
        value |= (uint64_t)*in->at << 8 * i;
    return value;
}

// ---------------------------------------------------------------------------------------------------------------------
// Steps

static bool anybody_attached(void) {
    bool any = false;
    for (int i = 0; i < MANAGERS; i++)
        any = any || managers[i] != NULL;
    return any;
}

// The nth word of the leases of all pools: wanted, holders with leaves, loans, and what is unused.
static uint64_t word_of_leases(uint64_t n) {
    zcp_priv_geometry geometry;
    zcp_config config = configuration();
    uint64_t words[3], all = 0;
    MUST(zcp_priv_geometry_compute(&geometry, &config, CLIENTS) == ZCP_OK && geometry.pool_count == 3);
    for (uint32_t p = 0; p < 3; p++)
        all += words[p] = (geometry.pools[p].records_offset - geometry.pools[p].leases_offset) / 8;
    uint32_t pool = 0;
    for (n %= all; n >= words[pool]; pool++)
        n -= words[pool];
    return geometry.pools[pool].leases_offset / 8 + n;
}

// The nth word of the header about pools that come and go.
static uint64_t word_of_pools(uint64_t n) {
    enum { WORDS = (sizeof(zcp_priv_header) - offsetof(zcp_priv_header, signals)) / 8 };
    return offsetof(zcp_priv_header, signals) / 8 + n % WORDS;
}

// The nth word of the tables of topics.
static off_t offset_in_topics(uint64_t n) {
    zcp_priv_geometry geometry;
    zcp_config config = configuration();
    MUST(zcp_priv_geometry_compute(&geometry, &config, CLIENTS) == ZCP_OK);
    uint64_t bytes = geometry.publishers * (sizeof(zcp_priv_topic_publisher) + zcp_priv_ring_bytes(&geometry)
                                            + geometry.subscribers * sizeof(zcp_priv_cursor))
                     + geometry.subscribers * sizeof(zcp_priv_topic_subscriber);
    return (off_t)(geometry.topics_offset + n * 8 % bytes);
}

static void change_word(input *in) {
    uint64_t word = take(in, 2), how = take(in, 1), value = 0;
    uint64_t in_image = (how & 16 ? word_of_pools(word) : how & 8 ? word_of_leases(word) : word) * 8 % image_bytes;
    off_t at = how & 32 ? offset_in_topics(word) : file_offset(in_image);
    MUST(pread(management, &value, 8, at) >= 0);
    switch (how % 8) {
    case 0: value = take(in, 8); break;
    case 1: value = 0; break;
    case 2: value = UINT64_MAX; break;
    case 3: value += 1; break;
    case 4: value -= 1; break;
    case 5: value ^= UINT64_C(1) << take(in, 1) % 64; break;
    case 6: value = (value & ~UINT64_C(0xffffffff)) | take(in, 4); break;
    default: value = (value & 0xffffffff) | take(in, 4) << 32; break;
    }
    // a creator would truncate under those who are attached
    if (at == 16 && (uint32_t)value == 0 && anybody_attached())
        return;
    MUST(pwrite(management, &value, 8, at) == 8);
}

static uint64_t random_of(void *source, unsigned bytes) {
    return take(source, bytes);
}

// What a peer can write that knows the layout: of one of scribble.h's kinds.
static void write_consistently(input *in) {
    zcp_config config = configuration();
    zcp_priv_geometry geometry;
    struct stat now, chunks;
    uint64_t kind = take(in, 1) % SCRIBBLE_KINDS;
    MUST(zcp_priv_geometry_compute(&geometry, &config, CLIENTS) == ZCP_OK);
    off_t bytes = scribble_end(geometry.management_bytes), chunk_end = scribble_end(geometry.chunk_bytes);
    if (fstat(management, &now) != 0 || (now.st_size < bytes && ftruncate(management, bytes) != 0))
        return;
    if (stat(chunk_path, &chunks) == 0 && chunks.st_size < chunk_end)
        MUST(truncate(chunk_path, chunk_end) == 0);
    void *header = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, management, 0);
    MUST(header != MAP_FAILED);
    scribble_kinds[kind].write(&(scribble_target){header, &geometry, random_of, in});
    munmap(header, (size_t)bytes);
}

static void replace_beginning(input *in) {
    size_t bytes = take(in, 2) % (BEGINNING + 64);
    if (anybody_attached())
        return;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)take(in, 1);
        MUST(pwrite(management, &byte, 1, (off_t)i) == 1);
    }
}

// under somebody who is attached it would be a SIGBUS
static void resize(input *in) {
    off_t bytes = (off_t)take(in, 2);
    if (!anybody_attached())
        MUST(ftruncate(management, bytes) == 0);
}

// asked: bytes, at least 1.
static void check_handle(const zcp_chunk *chunk, uint64_t asked) {
    bool may_write = !(chunk->manager->view.flags & ZCP_READ_ONLY_DATA);
    MUST(scribble_has_room(chunk, asked));
    MUST(zcp_chunk_size(chunk) <= zcp_chunk_capacity(chunk));
    for (uint64_t i = 0; i < asked; i += i + 1 < asked ? asked - 1 : 1) {
        volatile uint8_t *byte = (uint8_t *)chunk->data + i;
        *(may_write ? byte : &(uint8_t){0}) = *byte;
    }
}

static void open_one(input *in) {
    zcp_manager **manager = &managers[take(in, 1) % MANAGERS];
    uint64_t how = take(in, 1);
    zcp_config config = configuration();
    zcp_manager_desc desc = {.name = name, .mode = (zcp_shm_mode)(how % 4), .timeout_ms = 2, .client_name = "fuzz"};
    if (*manager != NULL)
        return;
    if (how & 4 || desc.mode > ZCP_SHM_OPEN_EXISTING) {
        desc.config = &config;
        desc.max_clients = how & 8 ? CLIENTS : 0;
    }
    if (how & 16)
        desc.flags = ZCP_FALLBACK;
    if (how & 32 && desc.mode < ZCP_SHM_CREATE_EXCLUSIVE)
        desc.flags |= ZCP_READ_ONLY_DATA;
    if (how & 64)
        desc.flags |= ZCP_CHECKED;
    if (how & 128 && desc.mode < ZCP_SHM_CREATE_EXCLUSIVE)
        desc.flags |= ZCP_OBSERVE;
    zcp_status status = zcp_manager_open(manager, &desc);
    MUST((status == ZCP_OK) == (*manager != NULL) && (unsigned)status < ZCP_STATUS_COUNT);
}

static void close_one(int which) {
    zcp_manager *manager = managers[which];
    for (int i = 0; i < HANDLES; i++)
        if (manager != NULL && handles[i].manager == manager)
            zcp_chunk_release(&handles[i]);
    zcp_manager_close(manager);
    for (int i = 0; i < ENDS; i++) {                               // close has closed them
        publishers[i] = published_by[i] == manager ? NULL : publishers[i];
        subscribers[i] = received_by[i] == manager ? NULL : subscribers[i];
    }
    if (manager != NULL)
        // garbage may have kept a count; no handle of it is left here
        manager->outstanding = 0;
    managers[which] = NULL;
}

static bool count_entry(const zcp_census_entry *entry, void *user) {
    MUST(entry->pool < ZCP_MAX_LIVE_POOLS && entry->size <= entry->capacity);
    return ++*(unsigned *)user < 1000;
}

static bool check_endpoint(const zcp_topic_entry *entry, void *user) {
    MUST(scribble_is_endpoint(entry, &((const zcp_manager *)user)->geometry));
    return true;
}

static void look(zcp_manager *manager) {
    char text[120 * ZCP_MAX_LIVE_POOLS];
    unsigned entries = 0;
    zcp_config config;
    zcp_client_stats held;
    zcp_client_info client;
    zcp_pool_stats stats;
    for (uint32_t slot = 0; slot <= CLIENTS; slot++) {
        (void)zcp_manager_client_info(manager, slot, &client);
        (void)zcp_manager_client_stats(manager, slot, &held);
    }
    (void)zcp_manager_census(manager, count_entry, &entries);
    (void)zcp_manager_get_config(manager, &config);
    for (uint32_t pool = 0; pool <= LAST_POOL + 2; pool++)
        if (zcp_manager_pool_stats(manager, pool, &stats) == ZCP_OK)
            MUST(scribble_are_figures(&stats));
    MUST(zcp_manager_format(manager, text, sizeof text) < sizeof text && scribble_is_print(text));
    MUST(scribble_leaves_mappings());
    (void)zcp_manager_topics(manager, check_endpoint, manager);
    (void)zcp_manager_check(manager);
}

static void change_pools(input *in, zcp_manager *manager) {
    static const zcp_pool_config choice[] = {
        {100, 12, 0, 4}, {1000, 5, 256, 0}, {100, 3, 0, 0},    {50, 6, 0, 2},
        {5000, 2, 0, 0}, {8, 1, 4096, 0},   {300, 200, 0, 64}, {UINT64_C(1) << 40, 1 << 20, 0, 0}};
    uint64_t how = take(in, 1), which = take(in, 1);
    uint32_t number;
    if (how % 4 < 2) {
        (void)zcp_manager_add_pool(manager, &choice[which % 8], &number);
    } else if (how % 4 == 2) {
        (void)zcp_manager_retire_pool(manager, (uint32_t)which % (LAST_POOL + 4));
    } else {
        zcp_config config = {0};
        for (int i = 0; i < 7; i++)
            if (which >> i & 1)
                MUST(zcp_config_add(&config, &choice[i]) == ZCP_OK);
        (void)zcp_manager_reconfigure(manager, &config);
    }
}

static const char *const topics[] = {"one", "other", "third"};

static void open_publisher(input *in, zcp_manager *manager, int which) {
    uint64_t how = take(in, 1), depth = take(in, 1);
    zcp_publisher_desc desc = {.topic = topics[how & 1], .depth = depth & 7, .keep = depth >> 3 & 3,
                               .timeout_ms = how >> 1 & 1, .exclusive = (how & 12) == 12,
                               .never_waits = (how & 48) == 48};
    if (publishers[which] != NULL)
        return;
    zcp_status status = zcp_publisher_open(manager, &desc, &publishers[which]);
    MUST((status == ZCP_OK) == (publishers[which] != NULL));
    published_by[which] = manager;
}

static void open_subscriber(input *in, zcp_manager *manager, int which) {
    uint64_t how = take(in, 1);
    zcp_subscriber_desc desc = {.topic = topics[how & 1], .reliable = how & 2, .latest = how & 4,
                                .history = how >> 3 & 7};
    if (subscribers[which] != NULL)
        return;
    zcp_status status = zcp_subscriber_open(manager, &desc, &subscribers[which]);
    MUST((status == ZCP_OK) == (subscribers[which] != NULL));
    received_by[which] = manager;
    messages[which] = (zcp_message){0};
    if (how & 64)
        (void)zcp_subscriber_descriptor(subscribers[which]);
}

static void publish(input *in, int which) {
    zcp_delivery delivery;
    zcp_chunk chunk = {0};
    uint64_t how = take(in, 1), size = how % 8 < 6 ? 60 : how % 8 == 6 ? 900 : 0;
    if (how & 8)
        (void)zcp_publisher_notify(publishers[which], &delivery);
    else if (how & 16)
        (void)zcp_publisher_publish(publishers[which], &handles[how >> 5], &delivery);
    else if (zcp_publisher_loan(publishers[which], size, &chunk) == ZCP_OK) {
        check_handle(&chunk, size);
        zcp_status status = zcp_publisher_publish(publishers[which], &chunk, &delivery);
        MUST((status == ZCP_OK) == (chunk.manager == NULL));
        zcp_chunk_release(&chunk);
    }
}

static void look_at_message(int which) {
    const zcp_message *message = &messages[which];
    const volatile uint8_t *bytes = message->data;
    for (uint64_t i = 0; i < message->size; i += 16)
        (void)bytes[i];
}

static void receive(input *in, int which) {
    zcp_subscriber *subscriber = subscribers[which];
    uint64_t how = take(in, 1);
    if (subscriber != NULL)
        look_at_message(which);
    if (how & 2) {
        zcp_subscriber_done(subscriber);
        messages[which] = (zcp_message){0};
        return;
    }
    zcp_status status = zcp_subscriber_receive(subscriber, how & 1, &messages[which]);
    MUST(status != ZCP_OK || scribble_is_message(subscriber->manager, &messages[which]));
    look_at_message(which);
}

static void act_on_topics(input *in, uint64_t what) {
    zcp_manager *manager = managers[take(in, 1) % MANAGERS];
    int which = (int)(take(in, 1) % ENDS);
    uint64_t how = take(in, 1);
    uint32_t ready;
    switch (what) {
    case 20: open_publisher(in, manager, which); break;
    case 21: open_subscriber(in, manager, which); break;
    case 22: case 23: publish(in, which); break;
    case 24: case 25: receive(in, which); break;
    case 26: {
        zcp_chunk *chunk = &handles[how % HANDLES];
        zcp_chunk_release(chunk);
        if (zcp_subscriber_keep(subscribers[which], chunk) == ZCP_OK)
            check_handle(chunk, 1);
        break;
    }
    default:
        if (how % 4 == 0) {
            zcp_publisher_close(publishers[which]);
            publishers[which] = NULL;
        } else if (how % 4 == 1) {
            zcp_subscriber_close(subscribers[which]);
            subscribers[which] = NULL;
        } else if (zcp_subscribers_wait(&subscribers[which], 1, how >> 2 & 1, &ready) == ZCP_OK) {
            MUST(ready == 0);
        }
    }
}

static void step(input *in) {
    uint64_t what = take(in, 1) % 28;
    if (what >= 20) {
        act_on_topics(in, what);
        return;
    }
    if (what < 3) {
        change_word(in);
        return;
    }
    if (what == 3) {
        open_one(in);
        return;
    }
    if (what == 16) {
        write_consistently(in);
        return;
    }
    if (what == 17) {
        change_pools(in, managers[take(in, 1) % MANAGERS]);
        return;
    }
    if (what == 4) {
        uint64_t how = take(in, 1) % 4;
        how == 0   ? replace_beginning(in)
        : how == 1 ? resize(in)
        : how == 2 ? close_one((int)(take(in, 1) % MANAGERS))
                   : (void)zcp_manager_destroy(name);
        return;
    }
    zcp_manager *manager = managers[take(in, 1) % MANAGERS];
    uint64_t size;
    zcp_chunk *chunk = &handles[take(in, 1) % HANDLES];
    uint64_t *token = &tokens[take(in, 1) % TOKENS];
    switch (what) {
    case 5: case 6: case 7:
        zcp_chunk_release(chunk);
        size = take(in, 2) % 1100;
        if (zcp_chunk_allocate(manager, size, chunk) == ZCP_OK)
            check_handle(chunk, size);
        break;
    case 8: case 9:
        zcp_chunk_release(chunk);
        if (zcp_chunk_acquire(manager, *token, chunk) == ZCP_OK)
            check_handle(chunk, 1);
        break;
    case 10: *token = zcp_chunk_token(chunk); break;
    case 11: *token = take(in, 8); break;
    case 12: zcp_chunk_release(chunk); break;
    case 13: {
        zcp_chunk *to = &handles[take(in, 1) % HANDLES];
        if (to != chunk) {
            zcp_chunk_release(to);
            *to = zcp_chunk_clone(chunk);
            (void)zcp_chunk_use_count(chunk);
        }
        break;
    }
    case 14: (void)zcp_manager_recover(manager, NULL); break;
    case 18:
        zcp_chunk_release(chunk);
        size = take(in, 2) % 6000;
        if (zcp_chunk_allocate_wait(manager, size, (uint32_t)take(in, 1) % 2, chunk) == ZCP_OK)
            check_handle(chunk, size);
        break;
    case 19:
        zcp_chunk_release(chunk);
        size = take(in, 2) % 6000;
        if (zcp_chunk_allocate_tagged(manager, size, (uint32_t)take(in, 1), chunk) == ZCP_OK)
            check_handle(chunk, size);
        (void)zcp_chunk_tag(chunk);
        break;
    default: look(manager); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static unsigned runs;
    input in = {data, size};
    restore_instance();
    bool counted = runs++ > 0 && runs % 64 == 0;
    hostile_holdings before = {0};
    if (counted)
        before = hostile_holds();
    for (int steps = 0; in.left > 0 && steps < 300; steps++) {
        hostile_accesses = 0;
        hostile_limit = UINT64_C(1) << 25;
        step(&in);
    }
    hostile_limit = 0;
    for (int i = 0; i < MANAGERS; i++)
        close_one(i);
    memset(handles, 0, sizeof handles);
    memset(publishers, 0, sizeof publishers);
    memset(subscribers, 0, sizeof subscribers);
    MUST(hostile.files == 0 && hostile.anonymous == 0);
    if (counted) {
        hostile_holdings now = hostile_holds();
        MUST(hostile_same(&before, &now));
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Seeds

typedef struct seed {
    uint8_t bytes[2048];
    size_t count;
} seed;

static void put(seed *s, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes && s->count < sizeof s->bytes; i++)
        s->bytes[s->count++] = (uint8_t)(value >> 8 * i);
}

static void put_open(seed *s, int manager, int how) {
    put(s, 3, 1), put(s, (uint64_t)manager, 1), put(s, (uint64_t)how, 1);
}

static void put_pools(seed *s, int manager, int how, int which) {
    put(s, 17, 1), put(s, (uint64_t)manager, 1), put(s, (uint64_t)how, 1), put(s, (uint64_t)which, 1);
}

static void put_act(seed *s, int what, int manager, int handle, int token) {
    put(s, (uint64_t)what, 1), put(s, (uint64_t)manager, 1), put(s, (uint64_t)handle, 1), put(s, (uint64_t)token, 1);
}

static void put_change(seed *s, uint64_t word, int how) { put(s, 0, 1), put(s, word, 2), put(s, (uint64_t)how, 1); }

// Two clients that do everything once; in between, unless it is 0, every stride-th word of the segment changes.
static void put_life(seed *s, uint64_t stride, int how) {
    uint64_t word = stride;
    put_open(s, 0, 1);
    put_open(s, 1, 1 + 4);
    for (int i = 0; i < 6; i++) {
        put_act(s, 5, i % 2, i, 0), put(s, i % 3 == 0 ? 900 : 90, 2);
        put_act(s, 10, 0, i, i);
        put_act(s, 8, 1 - i % 2, 6 + i, i);
        put_act(s, 13, 0, i, 0), put(s, (uint64_t)(i + 1) % 6, 1);
        for (int n = 0; stride != 0 && n < 4; n++, word += stride)
            put_change(s, word, how);
        put_act(s, 12, 0, i, 0);
        put_act(s, i % 2 ? 14 : 15, 1, 0, 0);
        if (i % 2 == 0)
            put_pools(s, 0, i, i == 4 ? 0x2b : i + 3);             // add, retire, add
        put_act(s, 18 + i % 2, 1, i, 0), put(s, i % 2 ? 90 : 5000, 2), put(s, 1, 1);
    }
    put_pools(s, 1, 3, 0x1e);
    put_open(s, 2, 129);
    put_act(s, 15, 2, 0, 0);
    put(s, 4, 1), put(s, 2, 1), put(s, 0, 1);
}

static void put_topic_act(seed *s, int what, int manager, int which, int how, int more) {
    put(s, (uint64_t)what, 1), put(s, (uint64_t)manager, 1), put(s, (uint64_t)which, 1), put(s, (uint64_t)how, 1);
    if (more >= 0)
        put(s, (uint64_t)more, 1);
}

static void put_open_topics(seed *s, int kinds) {
    put_open(s, 0, 1);
    put_open(s, 1, 1);
    put_topic_act(s, 21, 1, 0, 0, kinds & 7);                      // subscribers, then publishers
    put_topic_act(s, 21, 0, 1, 0, kinds >> 3 & 15);
    put_topic_act(s, 20, 0, 0, 0, kinds & 3), put(s, 2, 1);
    put_topic_act(s, 20, 1, 1, 0, 0), put(s, 12, 1);
}

// Something of a kind that adds up.
static void put_scribble(seed *s, uint64_t kind, int n) {
    put(s, 16, 1), put(s, kind, 1);
    for (int i = 0; i < 12; i++)
        put(s, (uint64_t)(i * 37 + n * 11), 1);
}

// kind: of what is scribbled between publishing and receiving; SCRIBBLE_KINDS: each message says it has 1000 bytes;
// below 0: nothing is.
static void put_round_of_topics(seed *s, int n, int kind) {
    enum { RINGS = (2 * sizeof(zcp_priv_topic_publisher) + 3 * sizeof(zcp_priv_topic_subscriber)
                    + 2 * 3 * sizeof(zcp_priv_cursor)) / 8 };
    put_topic_act(s, 22, 0, 0, 0, n % 3 == 2 ? 8 : 0);
    put_topic_act(s, 22, 1, 1, 0, 0);
    for (uint64_t cell = 0; kind == SCRIBBLE_KINDS && cell < 2 * 4; cell++)
        put_change(s, RINGS + 2 * cell + 1, 32 + 6), put(s, 1000, 4);
    if (kind >= 0 && kind < SCRIBBLE_KINDS)
        put_scribble(s, (uint64_t)kind, n);
    put_topic_act(s, 24, 0, 0, 0, n & 1);
    put_topic_act(s, 26, 0, 0, 3, -1);
    put_topic_act(s, 24, 0, 1, 0, 0);
    if (n % 4 == 3)
        put_act(s, n % 8 == 3 ? 14 : 15, n & 1, 0, 0);             // recover, or look
}

static void put_close_topics(seed *s) {
    put_topic_act(s, 27, 0, 0, 0, -1);
    put_topic_act(s, 27, 0, 1, 1, -1);
    put_topic_act(s, 27, 0, 0, 6, -1);
    put(s, 4, 1), put(s, 2, 1), put(s, 1, 1);
    put_topic_act(s, 24, 0, 0, 0, 0);
    put_act(s, 15, 0, 0, 0);
}

// Publishes and receives; in between, unless it is 0, every stride-th word of the tables changes.
static void put_topics(seed *s, int kinds, uint64_t stride, int how) {
    uint64_t word = stride;
    put_open_topics(s, kinds);
    for (int n = 0; n < 12; n++) {
        put_round_of_topics(s, n, -1);
        for (int k = 0; stride != 0 && k < 3; k++, word += stride) {
            put_change(s, word, how + 32);
            if (how % 8 == 0 || how % 8 > 4)
                put(s, word, how % 8 == 0 ? 8 : how % 8 == 5 ? 1 : 4);
        }
    }
    put_close_topics(s);
}

static void write_seed(const char *directory, int number, const seed *s) {
    char path[512];
    snprintf(path, sizeof path, "%s/seed-%d", directory, number);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, s->bytes, s->count) == (ssize_t)s->count);
    close(fd);
}

static void write_seeds(const char *directory) {
    static seed s;
    int number = 0;
    for (uint64_t stride = 0; stride < 60; stride += 7) {
        s.count = 0;
        put_life(&s, stride, (int)(1 + stride % 5));
        write_seed(directory, number++, &s);
    }
    for (uint64_t word = 0; word < sizeof(zcp_priv_header) / 8; word += 5) {       // a changed header
        s.count = 0;
        put_change(&s, word, 3);
        put_open(&s, 0, (int)(word % 4 + 4));
        put_life(&s, 0, 0);
        write_seed(directory, number++, &s);
    }
    // wanted, and the first word of each lease, with its loan
    for (uint64_t word = 0; word < 64; word += 8)
        for (int how = 0; how < 6; how += 5) {
            s.count = 0;
            put_open(&s, 0, 1);
            for (int i = 0; i < 12; i++)
                put_act(&s, i % 4 == 3 ? 12 : 5, 0, i / 2, 0), put(&s, 90, i % 4 == 3 ? 0 : 2);
            for (uint64_t n = word; n < word + 2; n++) {
                put_change(&s, n, how + 8);
                put(&s, 33 * n, how == 0 ? 8 : 1);
            }
            put_life(&s, 0, 0);
            write_seed(directory, number++, &s);
        }
    // signals, and the slots of the pools that are there and the next, also beside clients
    for (uint64_t word = 0; word < 8 + 6 * 8; word += 3) {
        s.count = 0;
        if (word % 2)
            put_open(&s, 0, 1);
        put_change(&s, word, 16 + (int)(word % 6));
        put(&s, 0x0101010101010101 * word, word % 6 == 0 ? 8 : word % 6 == 5 ? 1 : 0);
        put_life(&s, 0, 0);
        write_seed(directory, number++, &s);
    }
    for (uint64_t kind = 0; kind < SCRIBBLE_KINDS; kind++) {       // what adds up; the random numbers are 1, 2, ...
        s.count = 0;
        put_open(&s, 0, 1);
        put(&s, 16, 1), put(&s, kind, 1);
        for (uint64_t i = 1; i < (kind == 2 ? 32 * 8 : 8); i++)
            put(&s, i, 1);
        put_life(&s, 0, 0);
        write_seed(directory, number++, &s);
    }
    for (uint64_t stride = 0; stride < 40; stride += 3) {          // topics of each kind
        s.count = 0;
        put_topics(&s, (int)(stride * 5 % 64), stride, (int)(stride % 8));
        write_seed(directory, number++, &s);
    }
    for (int kind = 0; kind <= SCRIBBLE_KINDS; kind++) {           // what adds up, in the middle of them
        s.count = 0;
        put_open_topics(&s, kind);
        for (int n = 0; n < 10; n++)
            put_round_of_topics(&s, n, kind);
        put_close_topics(&s);
        write_seed(directory, number++, &s);
    }
    s.count = 0;                                                   // the real header, as raw bytes
    put(&s, 4, 1), put(&s, 0, 1), put(&s, BEGINNING, 2);
    for (size_t i = 0; i < BEGINNING; i++)
        put(&s, image[i], 1);
    put_life(&s, 0, 0);
    write_seed(directory, number++, &s);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *given = getenv("ZEROCP_FUZZ_NAME");
    snprintf(name, sizeof name, "%.40s", given != NULL ? given : "zcp-fuzz");
    snprintf(management_path, sizeof management_path, "/dev/shm/%s_memory_management", name);
    snprintf(chunk_path, sizeof chunk_path, "/dev/shm/%s_memory_chunk", name);
    snprintf(locks_path, sizeof locks_path, "/dev/shm/%s_memory_locks", name);
    zcp_log_set_level(ZCP_LOG_OFF);
    make_instance();
    for (int i = 1; i < *argc; i++) {
        struct stat status;
        if ((*argv)[i][0] != '-' && stat((*argv)[i], &status) == 0 && S_ISDIR(status.st_mode))
            write_seeds((*argv)[i]);
    }
    return 0;
}
