#!/usr/bin/env python3
"""consumer.py: a consumer of the camera pipeline in Python. It reads each frame where it lies, with numpy, and releases
nothing by hand.

    make all                                   builds build/libzerocp.so, and the demo's programs
    build/demo/camera produce                  in one terminal
    python3 tests/demo/consumer.py             in others, as many as you like, whenever you like

A frame is the message that a producer has published: where it is from, and an array of the producer's own memory. The
messages are:

    "camera/calibration"    producer, black: of 64 bits each. One of each producer, kept for consumers that come later
    "camera/frames"         producer, number, time (ns): 64 bits each; width, height: 32 bits each; then the pixels:
                            word i of 64 bits, from 0, is black + number * 0x9e3779b97f4a7c15 + i * 0x0101010101010101,
                            modulo 2^64. A message without data: the producer has ended, and so do the consumers

The exit status is 0 if all was as it should be, 1 if not, 2 if the options are wrong.
"""

import argparse
import signal
import struct
import sys
import time

import numpy
import zerocp  # beside this file, or as installed

CALIBRATION, FRAME = struct.Struct("=QQ"), struct.Struct("=QQQII")


class Wrong(Exception):
    """The pipeline has not done what it should."""


class Consumer:
    def __init__(self, manager, options):
        self.options = options
        # First: so there is one for each frame.
        self.calibrations = manager.subscribe("camera/calibration", reliable=True, history=1)
        self.frames = manager.subscribe("camera/frames", reliable=options.reliable)
        self.producer = self.black = None
        self.steps = numpy.empty(0, "uint64")
        self.source = self.number = None  # of the last message
        self.read = self.lost = self.skipped = self.producers = 0

    def run(self):
        for frame in self.frames:  # until somebody closes it
            self.must_follow(frame)
            if frame.event:
                break
            self.look_at(frame)
            self.read += 1
            if self.read == self.options.frames:
                break
        print(f"Read {self.read} frames of {self.producers} producers, {self.lost} lost, {self.skipped} skipped",
              flush=True)

    def must_follow(self, frame):
        """The message follows the last one, with nothing left out but what it tells."""
        first, before = self.source is None, self.number if self.source == frame.source else 0
        if not first and frame.number != before + 1 + frame.lost + frame.skipped:
            raise Wrong(f"message {frame.number} does not follow")
        if self.options.reliable and frame.lost:
            raise Wrong(f"{frame.lost} messages are lost")
        self.producers += frame.source != self.source
        self.source, self.number = frame.source, frame.number
        self.lost += frame.lost
        self.skipped += frame.skipped

    def look_at(self, frame):
        if frame.size < FRAME.size:
            raise Wrong(f"frame {frame.number} is too short")
        producer, number, _, width, height = FRAME.unpack_from(frame.view())
        while producer != self.producer:
            self.producer, self.black = CALIBRATION.unpack_from(self.calibrations.receive(0).view())
        time.sleep(self.options.work / 1000)
        if number != frame.number or frame.size != FRAME.size + width * height * 3:
            raise Wrong(f"frame {frame.number} is wrong")
        words = frame.array(width * height * 3 // 8, "uint64", FRAME.size)  # in place
        if len(self.steps) != len(words):
            self.steps = numpy.arange(len(words), dtype="uint64") * numpy.uint64(0x0101010101010101)
        first = numpy.uint64((self.black + number * 0x9e3779b97f4a7c15) % (1 << 64))
        if not numpy.array_equal(words, self.steps + first):
            raise Wrong(f"frame {frame.number} is wrong")


def main():
    parser = argparse.ArgumentParser(description="Reads the frames of `camera produce`.")
    parser.add_argument("--name", default="zerocp_camera", help="name of the instance (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=0, help="end after so many frames (default: 0, never)")
    parser.add_argument("--reliable", action="store_true", help="get each frame: the producer waits for this consumer")
    parser.add_argument("--work", type=int, default=0, help="how long it takes to look at a frame (ms, default: 0)")
    options = parser.parse_args()
    try:
        manager = zerocp.open(options.name, mode=zerocp.SHM_OPEN_EXISTING, client_name="consumer.py",
                              flags=zerocp.WAIT | zerocp.READ_ONLY_DATA, timeout=None)
        consumer = Consumer(manager, options)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: consumer.frames.close())
        consumer.run()
    except (zerocp.Error, Wrong, struct.error) as error:
        sys.exit(f"consumer.py: {error}")


main()
