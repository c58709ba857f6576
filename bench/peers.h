// bench/peers.h: what others offer. Each is an object of its own, built by `make bench-peers`, that is loaded if it is
// there: the bench itself needs none of them.
#ifndef ZEROCP_BENCH_PEERS_H
#define ZEROCP_BENCH_PEERS_H

#include "messenger.h"

const contender *const *peers(const bench_host *host);             // ends with NULL; says which were skipped, and why
const messenger *const *peer_messengers(bench_host *host);         // the same, of those that carry messages

#endif
