// streams.h: what a program with files of its own does first: a standard stream that is closed would be reopened as the
// first file that is opened, and what is then printed would go there.
#ifndef DEMO_STREAMS_H
#define DEMO_STREAMS_H

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

// Opens those of descriptors 0, 1 and 2 that are closed, so that each use of one still fails. The open(2) of the first
// of them can get no other number.
static inline void open_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            _exit(EXIT_FAILURE);
}

#endif
