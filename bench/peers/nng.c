// bench/peers/nng.c: nng, publish and subscribe over ipc. Its publisher never waits: what does not fit is dropped, and
// counted as lost here.
#include "../messenger.h"

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/pubsub0/sub.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bench_host *host;

typedef struct carry_channel {
    channel_spec spec;
    char address[64];                                              // of the abstract namespace: no file is left
    nng_socket socket;
    nng_msg *message;
} carry_channel;

static void must(int error, const char *what) {
    if (error)
        host->die("nng: %s: %s", what, nng_strerror(error));
}

static void *carry_create(const channel_spec *spec) {
    carry_channel *channel = (carry_channel *)calloc(1, sizeof *channel);
    if (!channel)
        return NULL;
    channel->spec = *spec;
    snprintf(channel->address, sizeof channel->address, "abstract://zcp-bench-%d-%u", (int)getpid(), spec->number);
    return channel;
}

static void carry_join(void *memory, int role) {
    carry_channel *channel = (carry_channel *)memory;
    const int window = (int)channel->spec.window;
    if (role == 0) {
        must(nng_pub0_open(&channel->socket), "open");
        must(nng_socket_set_int(channel->socket, NNG_OPT_SENDBUF, window), "buffer");
        must(nng_listen(channel->socket, channel->address, NULL, 0), "listen");
    } else {
        must(nng_sub0_open(&channel->socket), "open");
        must(nng_socket_set_int(channel->socket, NNG_OPT_RECVBUF, window), "buffer");
        must(nng_socket_set_size(channel->socket, NNG_OPT_RECVMAXSZ, 0), "size");
        must(nng_socket_set_ms(channel->socket, NNG_OPT_RECVTIMEO, 20), "timeout");
        must(nng_socket_set_ms(channel->socket, NNG_OPT_RECONNMINT, 10), "reconnect");
        must(nng_socket_set_ms(channel->socket, NNG_OPT_RECONNMAXT, 10), "reconnect");
        must(nng_socket_set(channel->socket, NNG_OPT_SUB_SUBSCRIBE, "", 0), "subscribe");
        must(nng_dial(channel->socket, channel->address, NULL, NNG_FLAG_NONBLOCK), "dial");
    }
}

static void carry_leave(void *memory, int role) {
    carry_channel *channel = (carry_channel *)memory;
    (void)role;
    if (channel->message)
        nng_msg_free(channel->message);
    nng_close(channel->socket);
}

static inline size_t carry_bytes(const carry_channel *channel) { return channel->spec.bytes; }

static inline void *carry_loan(carry_channel *channel) {
    if (!channel->message)
        must(nng_msg_alloc(&channel->message, channel->spec.bytes), "message");
    return nng_msg_body(channel->message);
}

static inline bool carry_send(carry_channel *channel) {
    must(nng_sendmsg(channel->socket, channel->message, 0), "send");
    channel->message = NULL;
    return true;
}

static inline const void *carry_wait(carry_channel *channel) {
    int error = nng_recvmsg(channel->socket, &channel->message, 0);
    must(error == NNG_ETIMEDOUT ? 0 : error, "receive");
    return error ? NULL : nng_msg_body(channel->message);
}

static inline void carry_done(carry_channel *channel) {
    nng_msg_free(channel->message);
    channel->message = NULL;
}

#define LOOP(x) carry_##x
#define LOOP_SLEEPS
#define LOOP_LOSES
#define channel_type carry_channel
#define carry_host host
#define carry_name "nng"
#include "../topic_loops.h"

static const messenger carrier = {
    "nng", "nng, pub and sub over ipc; what does not fit is dropped", carry_create, carry_join, carry_leave,
    free, LOOP_TABLE};

EXPORT_MESSENGER(carrier, host)
