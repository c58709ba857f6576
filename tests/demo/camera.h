// camera.h: what the processes of the camera pipeline agree on, in whatever language they are: camera.c, consumer.cpp.
// All numbers are unsigned, in the machine's byte order.
//
// Topic "camera/calibration": one message of each producer, 16 bytes, kept for consumers that come later.
//        0  producer  64 bits, random; another one each time that a producer starts
//        8  black     64 bits, random: what this producer's pixels are offset by
//
// Topic "camera/frames": a frame of width x height RGB pixels in 32 + width * height * 3 bytes.
//        0  producer  64 bits: the one whose calibration counts, which was published before
//        8  number    64 bits: as the number of the message
//       16  time      64 bits: CLOCK_MONOTONIC when it was drawn, nanoseconds
//       24  width     32 bits, a multiple of 8
//       28  height    32 bits
//       32  pixels    width * height * 3 / 8 words of 64 bits; word i, from 0, is
//                     black + number * 0x9e3779b97f4a7c15 + i * 0x0101010101010101, modulo 2^64
// A message without data (an event): the producer has ended as it should, and so do the consumers. Producers publish
// exclusively, so there is one at a time.
//
// A consumer subscribes to the calibration first: reliably, with a history of 1. For a frame of another producer than
// the last one it receives calibrations until it has that producer's. It demands of each message on "camera/frames"
//   number = the number before of the same source + 1 + lost + skipped
//   number = 1 + lost + skipped, if it is another source than before: one that came when we had subscribed already
//   lost = 0, if it is reliable
//   what stands above, in each field and each word
#ifndef DEMO_CAMERA_H
#define DEMO_CAMERA_H

#include "zerocp.h"

#define CAMERA_NAME "zerocp_camera"                                // the instance; the producers create it
#define CAMERA_CALIBRATION "camera/calibration"
#define CAMERA_FRAMES "camera/frames"

typedef struct camera_calibration {
    uint64_t producer, black;
} camera_calibration;

typedef struct camera_frame {
    uint64_t producer, number, time;
    uint32_t width, height;
} camera_frame;

static inline uint64_t camera_pixel_bytes(uint32_t width, uint32_t height) {
    return (uint64_t)width * height * 3;
}

static inline uint64_t camera_pixels(uint64_t black, uint64_t number, uint64_t i) {
    return black + number * UINT64_C(0x9e3779b97f4a7c15) + i * UINT64_C(0x0101010101010101);
}

// Is that the frame that it says to be? Whoever writes frames may be wrong, so nothing in it is trusted.
static inline bool camera_verify(const camera_frame *frame, uint64_t bytes, uint64_t number,
                                 const camera_calibration *calibration) {
    if (bytes < sizeof *frame || frame->number != number || frame->producer != calibration->producer ||
        bytes - sizeof *frame != camera_pixel_bytes(frame->width, frame->height))
        return false;
    const uint64_t *words = (const uint64_t *)(const void *)(frame + 1);
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < (bytes - sizeof *frame) / 8; i++)
        wrong |= words[i] ^ camera_pixels(calibration->black, number, i);
    return wrong == 0;
}

// How far a consumer has come.
typedef struct camera_progress {
    uint64_t source, number;                                       // of the last message; 0: none yet
    uint64_t frames, lost, skipped, producers;                     // in all
} camera_progress;

// Does the message follow the last one, with nothing left out but what it tells?
static inline bool camera_follows(camera_progress *progress, const zcp_message *message, bool reliable) {
    bool same = message->source == progress->source, first = progress->source == 0;
    bool good = first || message->number == (same ? progress->number : 0) + 1 + message->lost + message->skipped;
    progress->source = message->source;
    progress->number = message->number;
    progress->frames += message->data != NULL;
    progress->lost += message->lost;
    progress->skipped += message->skipped;
    progress->producers += !same;
    return good && !(reliable && message->lost != 0);
}

#endif
