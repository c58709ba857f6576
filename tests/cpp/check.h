// check.h: what the programs of this folder begin with.
#ifndef ZEROCP_TEST_CPP_CHECK_H
#define ZEROCP_TEST_CPP_CHECK_H

#include "zerocp.h"

#include <cstdio>
#include <cstdlib>

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define EXCEPTIONS
#endif

using zerocp::manager;
using zerocp::result;
using zerocp::shared_chunk;

static const char *instance;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: CHECK(%s): %s\n", __FILE__, __LINE__, #condition, zcp_last_message());       \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

#endif
