// bench/peers/zmq.c: ZeroMQ, publish and subscribe over ipc. Its publisher waits where it would else drop messages.
#include "../messenger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zmq.h>

static bench_host *host;
static void *context;                                              // this process's

typedef struct carry_channel {
    channel_spec spec;
    char address[64];                                              // of the abstract namespace: no file is left
    void *socket;
    zmq_msg_t message;
    bool loaned;
} carry_channel;

static void must(bool good, const char *what) {
    if (!good)
        host->die("zmq: %s: %s", what, zmq_strerror(zmq_errno()));
}

static void *carry_create(const channel_spec *spec) {
    carry_channel *channel = (carry_channel *)calloc(1, sizeof *channel);
    if (!channel)
        return NULL;
    channel->spec = *spec;
    snprintf(channel->address, sizeof channel->address, "ipc://@zcp-bench-%d-%u", (int)getpid(), spec->number);
    return channel;
}

static void carry_join(void *memory, int role) {
    carry_channel *channel = (carry_channel *)memory;
    const int window = (int)channel->spec.window, wait_ms = 20, yes = 1, none = 0;
    must(context || (context = zmq_ctx_new()), "context");
    must((channel->socket = zmq_socket(context, role == 0 ? ZMQ_XPUB : ZMQ_SUB)) != NULL, "socket");
    must(zmq_setsockopt(channel->socket, ZMQ_LINGER, &none, sizeof none) == 0, "linger");
    if (role == 0) {
        must(zmq_setsockopt(channel->socket, ZMQ_SNDHWM, &window, sizeof window) == 0, "high-water mark");
        must(zmq_setsockopt(channel->socket, ZMQ_XPUB_NODROP, &yes, sizeof yes) == 0, "no drop");
        must(zmq_setsockopt(channel->socket, ZMQ_SNDTIMEO, &wait_ms, sizeof wait_ms) == 0, "timeout");
        must(zmq_bind(channel->socket, channel->address) == 0, "bind");
    } else {
        must(zmq_setsockopt(channel->socket, ZMQ_RCVHWM, &window, sizeof window) == 0, "high-water mark");
        must(zmq_setsockopt(channel->socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms) == 0, "timeout");
        must(zmq_setsockopt(channel->socket, ZMQ_SUBSCRIBE, "", 0) == 0, "subscribe");
        must(zmq_connect(channel->socket, channel->address) == 0, "connect");
    }
}

static void carry_leave(void *memory, int role) {
    carry_channel *channel = (carry_channel *)memory;
    (void)role;
    if (channel->loaned)
        zmq_msg_close(&channel->message);
    zmq_close(channel->socket);
}

static inline size_t carry_bytes(const carry_channel *channel) { return channel->spec.bytes; }

static inline void *carry_loan(carry_channel *channel) {
    if (!channel->loaned)
        must(zmq_msg_init_size(&channel->message, channel->spec.bytes) == 0, "message");
    channel->loaned = true;
    return zmq_msg_data(&channel->message);
}

static inline bool carry_send(carry_channel *channel) {
    bool sent = zmq_msg_send(&channel->message, channel->socket, 0) >= 0;
    must(sent || errno == EAGAIN || errno == EINTR, "send");
    channel->loaned = !sent;
    return sent;
}

static inline const void *carry_wait(carry_channel *channel) {
    zmq_msg_init(&channel->message);
    if (zmq_msg_recv(&channel->message, channel->socket, 0) >= 0)
        return zmq_msg_data(&channel->message);
    must(errno == EAGAIN || errno == EINTR, "receive");
    zmq_msg_close(&channel->message);
    return NULL;
}

static inline void carry_done(carry_channel *channel) { zmq_msg_close(&channel->message); }

#define LOOP(x) carry_##x
#define LOOP_SLEEPS
#define channel_type carry_channel
#define carry_host host
#define carry_name "zmq"
#include "../topic_loops.h"

static const messenger carrier = {
    "zmq", "ZeroMQ, XPUB and SUB over ipc, no message dropped", carry_create, carry_join, carry_leave, free,
    LOOP_TABLE};

EXPORT_MESSENGER(carrier, host)
