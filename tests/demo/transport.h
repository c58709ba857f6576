// transport.h: how the demo's processes send each other tokens. zerocp does not care what carries the 64 bits of a
// token: a pipe, a socket, a message queue, a field in another chunk. This is a Unix socket of the kind that keeps
// message boundaries (SOCK_SEQPACKET): a message comes whole, and the end of a process is seen by its peer. Its name is
// abstract (Linux): it is no file, so nothing is left behind when its owner is killed.
//
// A hand-over takes three messages, and the chunk is held by somebody at every moment:
//
//     sender                                receiver
//     zcp_chunk_token
//             ------- MESSAGE_TOKEN ------>
//                                           zcp_chunk_acquire
//             <----- MESSAGE_ACQUIRED -----
//     zcp_chunk_release
//             ----- MESSAGE_RELEASED ----->
//                                           is the only holder now, and may write
//
// Without MESSAGE_ACQUIRED the sender could let go too early, and the receiver would get ZCP_ERR_STALE. Who only reads
// can do without MESSAGE_RELEASED.
#ifndef DEMO_TRANSPORT_H
#define DEMO_TRANSPORT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

typedef enum message_kind {
    MESSAGE_WELCOME = 1,                                           // from the server: it is your turn
    MESSAGE_TOKEN,                                                 // here is a chunk
    MESSAGE_ACQUIRED,                                              // I have it, you may let go
    MESSAGE_RELEASED                                               // I have let go
} message_kind;

typedef struct message {
    uint64_t kind;
    uint64_t token;                                                // of MESSAGE_TOKEN, else 0
} message;

// All functions return false or -1 on failure and set errno.

static inline bool transport_address(const char *name, struct sockaddr_un *address, socklen_t *bytes) {
    static const char prefix[] = "zerocp-demo/";
    size_t length = strlen(name);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;                                 // sun_path[0] stays 0: an abstract name
    if (sizeof prefix + length > sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(address->sun_path + 1, prefix, sizeof prefix - 1);
    memcpy(address->sun_path + sizeof prefix, name, length);
    *bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof prefix + length);
    return true;
}

static inline int transport_close(int socket_fd) {                 // keeps errno; returns -1
    int error = errno;
    if (socket_fd >= 0)
        close(socket_fd);
    errno = error;
    return -1;
}

// Abstract names have no permissions: everybody on the machine may use them. So both sides look who the other one is.
static inline bool transport_peer_is_me(int connection) {
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0)
        return false;
    if (peer.uid == geteuid() || peer.uid == 0)
        return true;
    errno = EPERM;
    return false;
}

// The server's end. EADDRINUSE: there is a server of that name already.
static inline int transport_listen(const char *name) {
    struct sockaddr_un address;
    socklen_t bytes;
    if (!transport_address(name, &address, &bytes))
        return -1;
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (listener < 0)
        return -1;
    if (bind(listener, (struct sockaddr *)&address, bytes) != 0 || listen(listener, 16) != 0)
        return transport_close(listener);
    return listener;
}

static inline int transport_accept(int listener) {
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0 && !transport_peer_is_me(connection))
        return transport_close(connection);
    return connection;
}

// The client's end. ECONNREFUSED: there is no server of that name.
static inline int transport_connect(const char *name) {
    struct sockaddr_un address;
    socklen_t bytes;
    if (!transport_address(name, &address, &bytes))
        return -1;
    int connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (connection < 0)
        return -1;
    if (connect(connection, (struct sockaddr *)&address, bytes) != 0 || !transport_peer_is_me(connection))
        return transport_close(connection);
    return connection;
}

// Bounds how long one send or receive waits for the peer; after that errno is EAGAIN. milliseconds: 1 or more.
static inline bool transport_set_timeout(int connection, unsigned milliseconds) {
    struct timeval limit = {.tv_sec = (time_t)(milliseconds / 1000),
                            .tv_usec = (suseconds_t)(milliseconds % 1000) * 1000};
    return setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
           setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0;
}

static inline bool transport_send(int connection, message_kind kind, uint64_t token) {
    message sent = {.kind = kind, .token = token};
    ssize_t bytes;
    do
        bytes = send(connection, &sent, sizeof sent, MSG_NOSIGNAL);        // EPIPE rather than SIGPIPE
    while (bytes < 0 && errno == EINTR);
    return bytes == (ssize_t)sizeof sent;
}

// ECONNRESET: the peer has ended. EPROTO: what came is not a message of ours.
static inline bool transport_receive(int connection, message *received) {
    ssize_t bytes;
    do
        bytes = recv(connection, received, sizeof *received, MSG_TRUNC);   // MSG_TRUNC: the real length
    while (bytes < 0 && errno == EINTR);
    if (bytes < 0 || bytes == (ssize_t)sizeof *received)
        return bytes > 0;
    errno = bytes == 0 ? ECONNRESET : EPROTO;
    return false;
}

#endif
