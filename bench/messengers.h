// bench/messengers.h: the messengers that need no library: zerocp's topics, and what there is without them.
#ifndef ZEROCP_BENCH_MESSENGERS_H
#define ZEROCP_BENCH_MESSENGERS_H

#include "messenger.h"

const messenger *const *messengers(bench_host *host);              // ends with NULL

#endif
