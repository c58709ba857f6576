#!/usr/bin/env python3
"""client.py: the demo's client in Python, with nothing but ctypes over the three headers.

    make library demo                          builds build/libzerocp.so, and the demo's programs
    build/demo/server                          in one terminal
    python3 tests/demo/client.py               in another

It attaches to the server's instance, allocates a chunk, writes a linked list into it, and sends the chunk's token to
the server, a C program. That multiplies the numbers where they lie and sends the chunk back. A chunk is seen through a
memoryview: Python reads and writes the shared memory itself, and nothing is copied. transport.h shows the messages,
client.c the same in C.

The exit status is 0 if all was as expected, 1 if not, 2 if the options are wrong. Whatever this process holds comes
back by itself when it is killed.
"""

import argparse
import ctypes
import os
import socket
import struct
import sys
import time

# ----------------------------------------------------------------------------------------------------------------------
# The binding: as much of zerocp.h as this needs

OPEN_EXISTING = 1  # of zcp_shm_mode
WAIT = 1 << 18


class ManagerDesc(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("mode", ctypes.c_int), ("config", ctypes.c_void_p),
                ("max_clients", ctypes.c_uint32), ("permissions", ctypes.c_uint32), ("flags", ctypes.c_uint32),
                ("client_name", ctypes.c_char_p), ("timeout_ms", ctypes.c_uint32), ("group", ctypes.c_uint32),
                ("data_permissions", ctypes.c_uint32)]


class ChunkHandle(ctypes.Structure):
    _fields_ = [("manager", ctypes.c_void_p), ("data", ctypes.c_void_p), ("index", ctypes.c_uint32),
                ("generation", ctypes.c_uint32)]


class RelativePointer(ctypes.Structure):
    _fields_ = [("bits", ctypes.c_uint64)]


class Error(Exception):
    """A zerocp call failed: its status, and what only the moment knew."""


def load(path):
    """Loads the library and tells ctypes about the functions."""
    library = ctypes.CDLL(path)
    handle = ctypes.POINTER(ChunkHandle)
    for name, result, *arguments in (
            ("zcp_status_name", ctypes.c_char_p, ctypes.c_int),
            ("zcp_last_message", ctypes.c_char_p),
            ("zcp_manager_open", ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ManagerDesc)),
            ("zcp_manager_close", None, ctypes.c_void_p),
            ("zcp_manager_format", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
            ("zcp_manager_registry", ctypes.c_void_p, ctypes.c_void_p),
            ("zcp_chunk_allocate", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, handle),
            ("zcp_chunk_acquire", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, handle),
            ("zcp_chunk_release", None, handle),
            ("zcp_chunk_token", ctypes.c_uint64, handle),
            ("zcp_chunk_size", ctypes.c_uint64, handle),
            ("zcp_chunk_use_count", ctypes.c_uint64, handle),
            ("zcp_relptr_of", RelativePointer, ctypes.c_void_p, ctypes.c_void_p),
            ("zcp_relptr_get", ctypes.c_void_p, ctypes.c_void_p, RelativePointer, ctypes.c_uint64)):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Manager:
    """One attachment to an instance."""

    def __init__(self, library, name, timeout):
        self.library, self.pointer = library, ctypes.c_void_p()
        desc = ManagerDesc(name=os.fsencode(name), mode=OPEN_EXISTING, flags=WAIT,
                           timeout_ms=max(1, int(timeout * 1000)), client_name=b"client.py")
        self.call("zcp_manager_open", ctypes.byref(self.pointer), ctypes.byref(desc))

    def call(self, name, *arguments):
        """Calls a function that returns a status, which has to be ZCP_OK."""
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            status_name = self.library.zcp_status_name(status).decode()
            raise Error(f"{name}: {status_name}: {os.fsdecode(self.library.zcp_last_message())}")

    def allocate(self, size):
        handle = ChunkHandle()
        self.call("zcp_chunk_allocate", self.pointer, size, ctypes.byref(handle))
        return Chunk(self, handle)

    def acquire(self, token):
        handle = ChunkHandle()
        self.call("zcp_chunk_acquire", self.pointer, token, ctypes.byref(handle))
        return Chunk(self, handle)

    def relative(self, address):
        """The 64 bits that stand for an address in every process."""
        return self.library.zcp_relptr_of(self.library.zcp_manager_registry(self.pointer), address).bits

    def address(self, bits, size):
        """The address in this process; None if it leads out of the shared memory."""
        return self.library.zcp_relptr_get(self.library.zcp_manager_registry(self.pointer), RelativePointer(bits), size)

    def state(self):
        text = ctypes.create_string_buffer(4096)
        self.library.zcp_manager_format(self.pointer, text, len(text))
        return text.value.decode()

    def close(self):
        self.library.zcp_manager_close(self.pointer)


class Chunk:
    """A handle of a chunk. Its views end with it, so that none is left over when somebody else gets the memory."""

    def __init__(self, manager, handle):
        self.library, self.handle, self.views = manager.library, handle, []

    def view(self, kind="B"):
        """The payload as a memoryview of that kind of elements, as the module struct calls them ("B": bytes, "Q":
        unsigned 64-bit words)."""
        view = memoryview((ctypes.c_ubyte * self.size).from_address(self.handle.data)).cast("B").cast(kind)
        self.views.append(view)
        return view

    def release(self):
        for view in self.views:
            view.release()
        self.library.zcp_chunk_release(ctypes.byref(self.handle))

    address = property(lambda self: self.handle.data)
    size = property(lambda self: self.library.zcp_chunk_size(ctypes.byref(self.handle)))
    token = property(lambda self: self.library.zcp_chunk_token(ctypes.byref(self.handle)))
    use_count = property(lambda self: self.library.zcp_chunk_use_count(ctypes.byref(self.handle)))


# ----------------------------------------------------------------------------------------------------------------------
# The connection to the server; transport.h describes it

WELCOME, TOKEN, ACQUIRED, RELEASED = 1, 2, 3, 4
MESSAGE = struct.Struct("=QQ")  # kind, token


class Connection:
    def __init__(self, name, timeout):
        deadline = time.monotonic() + timeout
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.socket.settimeout(timeout)
            try:
                self.socket.connect(b"\0zerocp-demo/" + os.fsencode(name))
                break
            except ConnectionRefusedError:  # the instance may be there although no server runs
                self.socket.close()
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)
        user = struct.unpack("=3i", self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if user not in (0, os.geteuid()):  # an abstract name belongs to whoever was first
            raise Error("the server is another user's")

    def send(self, kind, token=0):
        self.socket.send(MESSAGE.pack(kind, token))

    def receive(self, expected):
        data = self.socket.recv(MESSAGE.size)
        if not data:
            raise Error("the server has ended")
        kind, token = MESSAGE.unpack(data)
        if kind != expected:
            raise Error(f"the server sent something unexpected (kind {kind})")
        return token


# ----------------------------------------------------------------------------------------------------------------------
# The list in the chunk, in 64-bit words: first, count, then a pair of next and value for each node; as in common.h

NODES = 5


def build_list(manager, chunk):
    """1, 2, 3, ... with the nodes linked against their order in memory."""
    words = chunk.view("Q")
    words[0], words[1] = 0, NODES
    for node in range(NODES):
        words[2 + 2 * node], words[3 + 2 * node] = words[0], NODES - node
        words[0] = manager.relative(chunk.address + 16 + 16 * node)


def read_list(manager, chunk):
    """What another process wrote is not trusted: a link must lead to a node of this chunk, and there are no more of
    them than there should be."""
    words, values = chunk.view("Q"), []
    link = words[0]
    while link != 0 and len(values) <= NODES:
        address = manager.address(link, 16)
        if address is None or not chunk.address <= address <= chunk.address + chunk.size - 16 or address % 8 != 0:
            raise Error("a link leads out of the chunk")
        word = (address - chunk.address) // 8
        link, value = words[word], words[word + 1]
        values.append(value)
    return values


# ----------------------------------------------------------------------------------------------------------------------


def must_be(what, actual, expected):
    print(f"{what}: {actual}")
    if actual != expected:
        raise Error(f"{what} is {actual}, expected: {expected}")


def work(options, library):
    manager = Manager(library, options.name, options.wait)
    server = Connection(options.name, options.wait)
    server.receive(WELCOME)
    print(f'Attached to "{options.name}"; its state:\n{manager.state()}', end="")

    chunk = manager.allocate(2048)
    build_list(manager, chunk)
    was_at = chunk.address
    if options.hold:
        print("Holding the chunk for a while")
        time.sleep(options.hold)
    server.send(TOKEN, chunk.token)
    server.receive(ACQUIRED)  # hold on until the server has acquired
    must_be("Use count while both sides hold it", chunk.use_count, 2)
    chunk.release()
    server.send(RELEASED)

    chunk = manager.acquire(server.receive(TOKEN))
    server.send(ACQUIRED)
    server.receive(RELEASED)
    must_be("Bytes that came back", chunk.size, 2048)
    must_be("Use count after the server's release", chunk.use_count, 1)
    must_be("The list", read_list(manager, chunk), [10, 20, 30, 40, 50])
    must_be("It lies where it lay, so nothing was copied", chunk.address == was_at, True)
    chunk.release()
    manager.close()  # first: the server looks at the pools when we hang up
    server.socket.close()
    print("Detached")


def main():
    build = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build")
    parser = argparse.ArgumentParser(description="Works with the demo's server, in Python.")
    parser.add_argument("--name", default="zerocp_demo", help="name of the instance (default: zerocp_demo)")
    parser.add_argument("--library", default=os.path.normpath(os.path.join(build, "libzerocp.so")),
                        help="what `make library` has built (default: %(default)s)")
    parser.add_argument("--wait", type=float, default=10, metavar="SECONDS",
                        help="how long to wait for the server, and for each of its answers (default: 10)")
    parser.add_argument("--hold", type=float, default=0, metavar="SECONDS",
                        help="hold the chunk for so long (default: 0)")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # also into a pipe
    try:
        work(options, load(options.library))
    except (Error, OSError) as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
