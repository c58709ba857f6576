// bench/library.c: the library, compiled for itself as a user does it, so that no call of the bench is inlined or
// looked through.
#define ZEROCP_IMPLEMENTATION
#include "zerocp.h"
