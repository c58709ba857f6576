"""zerocp in Python: chunks of shared memory as arrays, with nothing copied.

    import zerocp

    manager = zerocp.open("video", pools=[(6220800, 16)])             # creates the instance, or attaches to it
    camera = manager.publisher("camera")
    frame = camera.loan(6220800)
    frame.array((1080, 1920, 3), "uint8")[:] = 0                      # numpy's, or a memoryview where there is no numpy
    camera.publish(frame)                                             # and write no more

    for frame in zerocp.open("video").subscribe("camera"):            # in another process; or: async for
        pixels = frame.array((1080, 1920, 3), "uint8")                # read-only, where they lie

A frame holds its chunk, and so does an array of it: look at them for as long as you like, while others are received.
Each one takes a chunk from the pool; a loop holds one, and for a moment two. To its publisher a message is read as soon
as it was received.

Chunks can be passed on without topics, too:

    with zerocp.open("camera", pools=[(6220800, 8)]) as manager:
        frame = manager.allocate(6220800)
        frame.array((1080, 1920, 3), "uint8")[:] = 0
        token = frame.token                                           # 64 bits for another process, which calls
        received = manager.acquire(token)                             # this, and holds the chunk from then on
        pixels = received.array((1080, 1920, 3), "uint8")             # read-only

An array holds its chunk: it may outlive the Chunk, its release() and the manager's close(), and is good as long as
anything of it is left. What is done at the end (the chunk's release, and a close that was asked for) is done when the
last one goes. In a child of fork such an array is zeros, and a private copy; everything else that is asked of the
parent's objects raises an Error there.

All may be called by several threads. A call that fails raises an Error with the status, its name and the message.
Whoever waits lets other threads and handlers of signals (so Ctrl-C) run, and is told ERR_CLOSED when another thread
closes what he waits for. Times are in seconds; None: for ever.

This file is all there is beside libzerocp.so, which is looked for in the environment variable ZEROCP_LIBRARY, where
`make install` has put it, where the dynamic linker looks, and in build/ of the source tree. Sizes, offsets and
constants are the library's own: zerocp.WAIT is ZCP_WAIT, zerocp.ERR_STALE is ZCP_ERR_STALE.
"""

import atexit
import collections
import contextlib
import ctypes
import math
import operator
import os
import re
import threading
import time

try:
    import numpy
except ImportError:
    numpy = None

INSTALLED = ""  # where make install has put the library

# ----------------------------------------------------------------------------------------------------------------------
# The library


def _load():
    here = os.path.dirname(os.path.abspath(__file__))
    given = os.environ.get("ZEROCP_LIBRARY")
    built = os.path.join(here, "..", "..", "build", "libzerocp.so.1")
    paths = [given] if given else [INSTALLED, "libzerocp.so.1", built]
    failures = []
    for path in filter(None, paths):
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            failures.append(str(error))
    raise ImportError("zerocp: there is no libzerocp.so.1: " + "; ".join(failures))


_library = _load()


def _rows():
    """The library's table: (name, offset, bytes, kind), see tests/demo/library.c."""
    row, offset, size, kind = 0, ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_char()
    _library.zcp_library_row.restype = ctypes.c_char_p
    _library.zcp_library_row.argtypes = [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    while True:
        name = _library.zcp_library_row(row, ctypes.byref(offset), ctypes.byref(size), ctypes.byref(kind))
        if name is None:
            return
        yield name.decode(), offset.value, size.value, kind.value.decode()
        row += 1


constants = {name[len("ZCP_"):]: value for name, value, _, kind in _rows() if kind == "="}
_statuses = {value: "ZCP_" + name for name, value in constants.items() if name == "OK" or name.startswith("ERR_")}


def __getattr__(name):
    if name in constants:
        return constants[name]
    raise AttributeError(f"module 'zerocp' has no attribute '{name}'")


_UNSIGNED = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}


def _field_type(kind, size):
    if kind == "u" and size in _UNSIGNED:
        return _UNSIGNED[size]
    if kind == "u":
        return ctypes.c_uint64 * (size // 8)
    if kind == "b":
        return ctypes.c_bool
    if kind == "s":
        return ctypes.c_char_p
    if kind == "p":
        return ctypes.c_void_p
    return ctypes.c_char * size if kind == "c" else ctypes.c_ubyte * size


def _struct(struct):
    """A ctypes.Structure with the fields, offsets and size that the library tells."""
    fields, end = [], 0
    rows = [row for row in _rows() if row[3] != "=" and row[0].split(".")[0] == struct]
    for name, offset, size, kind in sorted(rows[1:], key=lambda row: row[1]) + [(".", rows[0][2], 0, "")]:
        if offset > end:
            fields.append((f"_unused_{end}", ctypes.c_ubyte * (offset - end)))
        if size:
            fields.append((name.split(".")[1], _field_type(kind, size)))
        end = offset + size
    made = type(struct, (ctypes.Structure,), {"_layout_": "ms", "_pack_": 1, "_fields_": fields})
    if ctypes.sizeof(made) != rows[0][2]:
        raise ImportError(f"zerocp: {struct} has {ctypes.sizeof(made)} bytes here, and {rows[0][2]} in the library")
    return made


_PoolConfig, _Config, _ManagerDesc = _struct("zcp_pool_config"), _struct("zcp_config"), _struct("zcp_manager_desc")
_Recovery, _PoolStats, _ManagerInfo = _struct("zcp_recovery"), _struct("zcp_pool_stats"), _struct("zcp_manager_info")
_ClientStats, _CensusEntry, _Handle = _struct("zcp_client_stats"), _struct("zcp_census_entry"), _struct("zcp_chunk")
_PublisherDesc, _SubscriberDesc = _struct("zcp_publisher_desc"), _struct("zcp_subscriber_desc")
_Delivery, _Message, _TopicEntry = _struct("zcp_delivery"), _struct("zcp_message"), _struct("zcp_topic_entry")

_P, _U32, _U64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
_FUNCTIONS = {
    "zcp_status_message": (ctypes.c_char_p, ctypes.c_int),
    "zcp_last_message": (ctypes.c_char_p,),
    "zcp_config_add": (ctypes.c_int, _P, _P),
    "zcp_manager_open": (ctypes.c_int, _P, _P),
    "zcp_manager_close": (None, _P),
    "zcp_manager_destroy_with": (ctypes.c_int, ctypes.c_char_p, _U32),
    "zcp_manager_recover": (ctypes.c_int, _P, _P),
    "zcp_manager_check": (ctypes.c_int, _P),
    "zcp_manager_interrupt": (ctypes.c_int, _P, ctypes.c_bool),
    "zcp_manager_pool_end": (_U32, _P),
    "zcp_manager_pool_stats": (ctypes.c_int, _P, _U32, _P),
    "zcp_manager_get_info": (ctypes.c_int, _P, _P),
    "zcp_manager_client_stats": (ctypes.c_int, _P, _U32, _P),
    "zcp_chunk_allocate_tagged": (ctypes.c_int, _P, _U64, _U32, _P),
    "zcp_chunk_allocate_wait": (ctypes.c_int, _P, _U64, _U32, _P),
    "zcp_chunk_acquire": (ctypes.c_int, _P, _U64, _P),
    "zcp_chunk_release": (None, _P),
    "zcp_chunk_is_valid": (ctypes.c_bool, _P),
    "zcp_chunk_size": (_U64, _P),
    "zcp_chunk_capacity": (_U64, _P),
    "zcp_chunk_tag": (_U32, _P),
    "zcp_chunk_use_count": (_U64, _P),
    "zcp_chunk_token": (_U64, _P),
    "zcp_publisher_open": (ctypes.c_int, _P, _P, _P),
    "zcp_publisher_close": (None, _P),
    "zcp_publisher_loan": (ctypes.c_int, _P, _U64, _P),
    "zcp_publisher_notify": (ctypes.c_int, _P, _P),
    "zcp_subscriber_open": (ctypes.c_int, _P, _P, _P),
    "zcp_subscriber_close": (None, _P),
    "zcp_subscriber_descriptor": (ctypes.c_int, _P),
    "zcp_subscribers_wait": (ctypes.c_int, _P, _U32, _U32, _P),
    "zcp_library_zero_in_child": (ctypes.c_bool, _P, _U64),
    "zcp_library_forget": (None, _P, _U64),
    "zcp_library_receive": (ctypes.c_int, _P, _U32, _P, _P),
    "zcp_library_publish": (ctypes.c_int, _P, _P, _P),
    "zcp_library_topics": (ctypes.c_int, _P, _P, _U32, _P),
    "zcp_library_census": (ctypes.c_int, _P, _P, _U32, _P),
}
for _name, (_result, *_arguments) in _FUNCTIONS.items():
    getattr(_library, _name).restype, getattr(_library, _name).argtypes = _result, _arguments


class Error(Exception):
    """A call failed. status: its number, as ERR_STALE; name: "ZCP_ERR_STALE"; message: why, as far as only the
    moment could tell."""

    def __init__(self, status, message=None):
        self.status, self.name = status, _statuses.get(status, "?")
        self.message = message or _library.zcp_status_message(status).decode()
        super().__init__(status, self.message)

    def __str__(self):
        return f"{self.name}: {self.message}"


class Empty(Error):
    """ERR_EMPTY: nothing is there."""


class Timeout(Error):
    """ERR_TIMEOUT: not in time."""


class Interrupted(Error):
    """ERR_INTERRUPTED: Manager.interrupt() ended the wait."""


class Closed(Error):
    """ERR_CLOSED: the manager, publisher or subscriber was closed."""


_KINDS = {"ERR_EMPTY": Empty, "ERR_TIMEOUT": Timeout, "ERR_INTERRUPTED": Interrupted, "ERR_CLOSED": Closed}
_kinds = {constants[name]: kind for name, kind in _KINDS.items()}


def _error(status, message=None):
    """The exception for a status, or for the name of one."""
    status = constants.get(status, status)
    return _kinds.get(status, Error)(status, message)


def _last_message():
    return _library.zcp_last_message().decode(errors="replace")


def _call(name, *arguments):
    """Calls a function that returns a status, which has to be ZCP_OK."""
    status = getattr(_library, name)(*arguments)
    if status != 0:
        raise _error(status, _last_message())


def _encoded(name):
    encoded = None if name is None else os.fsencode(name)
    if encoded is not None and b"\0" in encoded:
        raise ValueError(f"a null character in {name!r}")
    return encoded


def _milliseconds(seconds):
    """As C has it; None: for ever. 0 stays 0, and is the default where there is one; less than 1 ms is 1."""
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"a time of {seconds} s")
    return 0xFFFFFFFF if seconds is None else min(math.ceil(seconds * 1000), 0xFFFFFFFE)


_SLICE = 0.1  # so long a call waits at once: as long as zerocp sleeps before it looks for dead clients


def _slice(timeout):
    """Milliseconds that a wait of that many seconds waits at once."""
    if timeout is None or timeout == 0:
        return _milliseconds(_SLICE if timeout is None else 0)
    _milliseconds(timeout)
    return _milliseconds(timeout / math.ceil(timeout / _SLICE))


def _wait(timeout, attempt):
    """Calls attempt(milliseconds) until it does something else than to raise Timeout, for that many seconds. Between
    two of its calls Python calls handlers of signals, and others may close what it waits for."""
    end, slice_ms = None if timeout is None else time.monotonic() + timeout, _slice(timeout)
    while True:
        try:
            return attempt(slice_ms)
        except Timeout as error:
            if end is not None and time.monotonic() >= end:
                within = f"within {_milliseconds(timeout)} ms"
                raise _error(error.status, re.sub(r"within \d+ ms", within, error.message)) from None


# ----------------------------------------------------------------------------------------------------------------------
# Who may use the manager, and when its memory may go. `users` are the calls that are just being made and the chunks
# that are held. Whoever is in it may use the manager; whoever leaves last closes it, if that was asked for. Each step
# is one operation on a dict or list, which no other thread sees half done, because the garbage collector may get here
# at any point of the others.


_attachments = {}  # those that are open, by their ids


class _Attachment:
    def __init__(self, pointer):
        self.pointer, self.users, self.closing, self.closed, self.endpoints = pointer, {}, False, False, {}
        self.process = os.getpid()
        _attachments[id(self)] = self

    def enter(self, user, call=False):
        self.users[user] = call
        if self.closing:
            self.leave(user)
            raise _error("ERR_CLOSED")

    def leave(self, user):
        self.users.pop(user, None)
        if self.closing and not self.users:
            self.end()

    def close(self):
        """Publishers and subscribers go now, whatever is held."""
        closer = object()
        self.users[id(closer)] = self.closing = True
        for endpoint in list(self.endpoints.values()):
            endpoint.close()
        self.leave(id(closer))

    def end(self, attachments=_attachments, library=_library):  # what it needs stays when the interpreter ends
        if attachments.pop(id(self), None) is not None:  # else another thread was faster
            library.zcp_manager_close(self.pointer)
            self.closed = True

    def goes(self):
        """It is closed soon: nothing is held, and a call, or a thread that closes it, is not through yet. In a forked
        child the threads are not there that could be."""
        users = list(self.users.values())
        soon = bool(self.endpoints) or any(users) or not (users or self.closed)
        return soon and os.getpid() == self.process


@atexit.register
def _close_all():
    """What no chunk and no array holds is closed at exit, so that nobody has to sweep after this process; the rest
    when that goes. Threads that wait in a publisher or subscriber leave it within 0.1 s, if they can."""
    attachments, until = list(_attachments.values()), time.monotonic() + 10
    for attachment in attachments:
        attachment.close()
    while any(attachment.goes() for attachment in attachments) and time.monotonic() < until:
        time.sleep(0.001)


class _Use:
    """with _Use(attachment) as pointer: a call, during which the manager stays."""

    def __init__(self, attachment):
        self.attachment = attachment

    def __enter__(self):
        self.attachment.enter(id(self), call=True)
        return self.attachment.pointer

    def __exit__(self, *_):
        self.attachment.leave(id(self))


class _Endpoint:
    """A publisher or a subscriber of the library, which one thread at a time may use. Whoever closes it while another
    one does leaves that to him."""

    def __init__(self, attachment, kind, desc):
        self.attachment, self.kind, self.process, self.closing = attachment, kind, os.getpid(), False
        self.lock, self.pointer, self.wakes = threading.RLock(), None, {}
        pointer = ctypes.c_void_p()
        with _Use(attachment) as manager:
            _call(f"zcp_{kind}_open", manager, ctypes.byref(desc), ctypes.byref(pointer))
            self.pointer = pointer.value
            attachment.endpoints[id(self)] = self
            if attachment.closing:
                self.close()

    @contextlib.contextmanager
    def use(self):
        """Its pointer, for this thread."""
        if os.getpid() != self.process:
            raise _error("ERR_FORKED", f"this {self.kind} belongs to the parent process")
        if self.closing:
            raise _error("ERR_CLOSED", f"this {self.kind} is closed")
        with _Use(self.attachment):
            try:
                with self.lock:
                    if self.pointer is None:
                        raise _error("ERR_CLOSED", f"this {self.kind} is closed")
                    yield self.pointer
            finally:
                if self.closing:
                    self.end()

    def call(self, name, *arguments):
        with self.use() as pointer:
            _call(name, pointer, *arguments)

    def close(self):
        self.closing = True
        self.end()
        for wake in list(self.wakes.values()):
            wake()

    def end(self, library=_library, getpid=os.getpid):
        """Closes it, if nobody uses it just now: whoever does will come here."""
        user = object()
        if getpid() != self.process:  # where the lock may be that of a thread which is not there
            self.attachment.endpoints.pop(id(self), None)
            return
        self.attachment.users[id(user)] = True  # before the lock: whoever does not get that sees this
        if self.lock.acquire(blocking=False):
            pointer, self.pointer = self.pointer, None
            if pointer is not None:
                getattr(library, f"zcp_{self.kind}_close")(pointer)
                self.attachment.endpoints.pop(id(self), None)
            self.lock.release()
        self.attachment.leave(id(user))


_untrack = ctypes.pythonapi.PyObject_GC_UnTrack
_untrack.argtypes, _untrack.restype = [ctypes.py_object], None


class _Hold:
    """A handle of a chunk: released when the last Chunk or array that refers to this has gone. `call` makes it. That
    of a message without a chunk is empty, and nobody keeps it.

    The garbage collector must not know it: it would call __del__ of all objects of a cycle before any of them goes,
    and a later one could still look into the array. So this is called when the reference count says so, and only
    then.
    """

    __slots__ = ("attachment", "handle", "size")

    def __init__(self, attachment, call, *arguments):
        self.attachment, self.handle, self.size = attachment, _Handle(), 0
        _untrack(self)
        attachment.enter(id(self))
        try:
            call(*arguments, ctypes.byref(self.handle))
        except Error:
            attachment.leave(id(self))  # now: the traceback may keep this for long
            raise
        if self.handle.data is None:
            return
        size = _library.zcp_chunk_size(ctypes.byref(self.handle))
        if not _library.zcp_library_zero_in_child(self.handle.data, size):
            raise MemoryError
        self.size = size

    def __del__(self, library=_library, byref=ctypes.byref):  # what it needs stays when the interpreter ends
        if self.size:
            library.zcp_library_forget(self.handle.data, self.size)
        library.zcp_chunk_release(byref(self.handle))
        self.attachment.leave(id(self))


# ----------------------------------------------------------------------------------------------------------------------
# What users see

Pool = collections.namedtuple("Pool", "chunk_size chunk_count alignment cache_chunks", defaults=(0, 0))
Recovery = collections.namedtuple("Recovery", "dead_clients chunks_reclaimed")
_Record = {}


def _named(struct, **more):
    """The fields of a struct of the library as a namedtuple, texts decoded."""
    values = {name: getattr(struct, name) for name, _ in struct._fields_ if not name.startswith("_")}
    for name, value in values.items():
        if isinstance(value, bytes):
            values[name] = os.fsdecode(value)
        elif isinstance(value, ctypes.Array):
            values[name] = tuple(value)
    name = type(struct).__name__[len("zcp_"):].title().replace("_", "")
    made = _Record.get(name) or _Record.setdefault(name, collections.namedtuple(name, [*more, *values]))
    return made(**more, **values)


def open(name=None, pools=None, *, mode=None, flags=0, timeout=0, client_name=None, max_clients=0, permissions=0,
         group=0, data_permissions=0, publishers=0, subscribers=0, ring_cells=0):
    """Opens an instance, and creates it if need be. pools: (chunk_size, chunk_count[, alignment[, cache_chunks]])
    each; None: take what is there. publishers, subscribers, ring_cells: together with pools, as in zcp_config.
    timeout: seconds, 0 for the default. The rest as in zcp_manager_desc, 0 or None for its default."""
    config, pointer = None, ctypes.c_void_p()
    if pools is None and (publishers or subscribers or ring_cells):
        raise ValueError("publishers, subscribers and ring_cells go together with pools")
    if pools is not None:
        config = _Config(publishers=publishers, subscribers=subscribers, ring_cells=ring_cells)
        for pool in pools:
            _call("zcp_config_add", ctypes.byref(config), ctypes.byref(_PoolConfig(**Pool(*pool)._asdict())))
    desc = _ManagerDesc(name=_encoded(name), mode=constants["SHM_OPEN_OR_CREATE"] if mode is None else mode,
                        config=None if config is None else ctypes.addressof(config), max_clients=max_clients,
                        permissions=permissions, flags=flags, client_name=_encoded(client_name),
                        group=group, data_permissions=data_permissions)

    def attempt(timeout_ms):
        desc.timeout_ms = timeout_ms
        _call("zcp_manager_open", ctypes.byref(pointer), ctypes.byref(desc))
        return Manager(pointer.value)

    if flags & constants["WAIT"]:
        return _wait(constants["SHM_DEFAULT_TIMEOUT_MS"] / 1000 if timeout == 0 else timeout, attempt)
    return attempt(_milliseconds(timeout))


def destroy(name=None, flags=0):
    """Removes an instance; whoever has it open goes on with it."""
    _call("zcp_manager_destroy_with", _encoded(name), flags)


def instances():
    """The names of all instances in /dev/shm; open(name, flags=zerocp.OBSERVE) looks at one and changes nothing."""
    end = "_memory_management"
    return sorted(name[:-len(end)] for name in os.listdir("/dev/shm") if name.endswith(end) and name != end)


class Manager:
    """One attachment of this process to an instance: see open."""

    def __init__(self, pointer):
        self._attachment = _Attachment(pointer)

    def allocate(self, size, *, tag=0, timeout=0):
        """A chunk that is writable. tag: 32 bits for whoever looks at what is held. timeout: seconds to wait for a
        free chunk, None: for ever; not together with a tag."""
        if timeout == 0:
            return Chunk(self, self._hold("zcp_chunk_allocate_tagged", size, tag), True)
        if tag:
            raise ValueError("a tag and a timeout do not go together")
        return Chunk(self, _wait(timeout, lambda slice_ms: self._hold("zcp_chunk_allocate_wait", size, slice_ms)), True)

    def acquire(self, token):
        """The chunk that a token names, to read."""
        return Chunk(self, self._hold("zcp_chunk_acquire", token), False)

    def publisher(self, topic, *, depth=0, keep=0, timeout=0, exclusive=False, never_waits=False):
        """A Publisher. timeout: seconds that publish waits for reliable subscribers, None: for ever. The rest as in
        zcp_publisher_desc."""
        desc = _PublisherDesc(topic=_encoded(topic), depth=depth, keep=keep, timeout_ms=_slice(timeout),
                              exclusive=exclusive, never_waits=never_waits)
        return Publisher(self, topic, _Endpoint(self._attachment, "publisher", desc), timeout)

    def subscribe(self, topic, *, reliable=False, latest=False, history=0, spin=0):
        """A Subscriber. spin: seconds that it polls before it sleeps, each 0.1 s. The rest as in
        zcp_subscriber_desc."""
        desc = _SubscriberDesc(topic=_encoded(topic), reliable=reliable, latest=latest, history=history,
                               spin_us=min(math.ceil(spin * 1e6), 0xFFFFFFFF))
        return Subscriber(self, topic, _Endpoint(self._attachment, "subscriber", desc))

    def interrupt(self, on=True):
        """All who wait in this manager, and who will, raise Interrupted, until interrupt(False)."""
        with _Use(self._attachment) as pointer:
            _call("zcp_manager_interrupt", pointer, on)

    def pools(self):
        """The statistics of each pool: a list of namedtuples with `pool`, its number, and the fields of
        zcp_pool_stats."""
        found, stats = [], _PoolStats()
        with _Use(self._attachment) as pointer:
            self._look(pointer)
            for pool in range(_library.zcp_manager_pool_end(pointer)):
                _call("zcp_manager_pool_stats", pointer, pool, ctypes.byref(stats))
                if stats.state != constants["POOL_NONE"]:
                    found.append(_named(stats, pool=pool))
        return found

    def clients(self):
        """Who has the instance open, or died with it open, and what they hold: namedtuples with `slot` and the
        fields of zcp_client_stats."""
        found, stats = [], _ClientStats()
        with _Use(self._attachment) as pointer:
            for slot in range(self._look(pointer).max_clients):
                _call("zcp_manager_client_stats", pointer, slot, ctypes.byref(stats))
                if stats.state != constants["CLIENT_FREE"]:
                    found.append(_named(stats, slot=slot))
        return found

    def topics(self):
        """Who publishes and who subscribes: namedtuples with the fields of zcp_topic_entry."""
        return self._list("zcp_library_topics", _TopicEntry)

    def chunks(self):
        """The chunks that somebody holds: namedtuples with the fields of zcp_census_entry."""
        return self._list("zcp_library_census", _CensusEntry)

    def info(self):
        """The fields of zcp_manager_info."""
        with _Use(self._attachment) as pointer:
            return _named(self._look(pointer))

    def recover(self):
        """Takes back what dead clients hold."""
        report = _Recovery()
        with _Use(self._attachment) as pointer:
            _call("zcp_manager_recover", pointer, ctypes.byref(report))
        return Recovery(report.dead_clients, report.chunks_reclaimed)

    def check(self):
        """Raises an Error with ERR_REPLACED if the name no longer leads to this instance."""
        with _Use(self._attachment) as pointer:
            _call("zcp_manager_check", pointer)

    def close(self):
        """Closes its publishers and subscribers, and detaches, once the last array and chunk of this manager is gone.
        Until then it refuses everything but those."""
        self._attachment.close()

    @property
    def closed(self):
        return self._attachment.closing

    def _hold(self, name, *arguments):
        return _Hold(self._attachment, _call, name, self._attachment.pointer, *arguments)

    def _list(self, name, entry_type):
        """What a function of the library lists, however much it is."""
        count = ctypes.c_uint32(32)
        with _Use(self._attachment) as pointer:
            while True:
                entries = (entry_type * count.value)()
                _call(name, pointer, entries, len(entries), ctypes.byref(count))
                if count.value <= len(entries):
                    return [_named(entry) for entry in entries[:count.value]]

    @staticmethod
    def _look(pointer):
        info = _ManagerInfo()
        _call("zcp_manager_get_info", pointer, ctypes.byref(info))
        return info

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if hasattr(self, "_attachment"):
            self.close()


class Chunk:
    """A chunk that this process holds until release(), or until nothing refers to it, and its arrays hold beyond
    that."""

    def __init__(self, manager, hold, writable):
        self._manager, self._hold, self.writable = manager, hold, writable

    def _held(self):
        """The hold; raises an Error if it was released, or is the parent's."""
        hold = self._hold
        if hold is None:
            raise _error("ERR_STALE", "the chunk was released")
        if not _library.zcp_chunk_is_valid(ctypes.byref(hold.handle)):
            _call("zcp_manager_check", hold.attachment.pointer)
            raise _error("ERR_STALE")
        return hold

    def _ask(self, name):
        return getattr(_library, name)(ctypes.byref(self._held().handle))

    size = property(lambda self: self._ask("zcp_chunk_size"), doc="bytes asked for at allocation")
    capacity = property(lambda self: self._ask("zcp_chunk_capacity"), doc="bytes that the pool's chunks have")
    tag = property(lambda self: self._ask("zcp_chunk_tag"), doc="as given at allocation")
    use_count = property(lambda self: self._ask("zcp_chunk_use_count"), doc="handles here, and other clients")

    @property
    def token(self):
        """64 bits that name this chunk in every process. They hold nothing: keep the chunk until the receiver has
        acquired."""
        token = self._ask("zcp_chunk_token")
        if token == 0:
            raise _error("ERR_STALE", _last_message())
        return token

    def view(self):
        """The payload as a memoryview of bytes, read-only if the chunk was acquired."""
        hold = self._held()
        payload = (ctypes.c_ubyte * hold.size).from_address(hold.handle.data)
        payload.hold = hold  # whoever has a view of the payload has this, and so the chunk
        view = memoryview(payload).cast("B")
        return view if self.writable else view.toreadonly()

    def array(self, shape=None, dtype="uint8", offset=0):
        """The payload from that byte on as a numpy array, or, without numpy, as a memoryview; shape None: all that
        is there. Read-only if the chunk was acquired. dtype: as numpy has it; without numpy "uint8" to "float64" in
        this machine's byte order."""
        if numpy is not None:
            return _numpy_array(self.view(), shape, dtype, offset)
        return _memoryview_array(self.view(), shape, dtype, offset)

    def release(self):
        """Gives the chunk back once the last array is gone. Nothing can be asked of it any more."""
        self._hold = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()


class Frame(Chunk):
    """A message that was received: a Chunk to read, and

        number      of its publisher's messages, from 1
        lost        so many were overwritten since the one before
        skipped     so many were passed over since then, with `latest`
        source      which publisher: a number that is never used again
        publisher   its client's slot
        event       without a chunk: of size 0; its view and array are empty
    """

    def __init__(self, manager, hold, message):
        super().__init__(manager, hold, False)
        self.number, self.lost, self.skipped = message.number, message.lost, message.skipped
        self.source, self.publisher, self.event = message.source, message.publisher, message.data is None

    def _held(self):
        if self.event:
            raise _error("ERR_EMPTY", "an event has no chunk")
        return super()._held()

    def _ask(self, name):
        return 0 if self.event and name != "zcp_chunk_token" else super()._ask(name)

    def view(self):
        return memoryview(b"") if self.event else super().view()

    def __repr__(self):
        return f"<zerocp.Frame {self.number} of {self.source}>"


class _OfTopic:
    """What publishers and subscribers have in common."""

    def __init__(self, manager, topic, endpoint):
        self._manager, self.topic, self._endpoint = manager, topic, endpoint

    def close(self):
        self._endpoint.close()

    @property
    def closed(self):
        return self._endpoint.closing or self._endpoint.attachment.closing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if hasattr(self, "_endpoint"):
            self.close()


Delivery = collections.namedtuple("Delivery", "number subscribers overtaken")


class Publisher(_OfTopic):
    """See Manager.publisher. What was published and not read when it is closed still arrives."""

    def __init__(self, manager, topic, endpoint, timeout):
        super().__init__(manager, topic, endpoint)
        self._timeout = timeout

    def loan(self, size):
        """A chunk that is writable, after taking back what everybody has read."""
        hold = _Hold(self._endpoint.attachment, self._endpoint.call, "zcp_publisher_loan", size)
        return Chunk(self._manager, hold, True)

    def publish(self, chunk):
        """Gives the chunk (of loan or allocate, or a Frame) to all subscribers. It is released then; arrays of it stay
        good, and nobody may write through them any more. Returns a Delivery: the message's number, how many subscribers
        there are, and how many had not read what this message displaced. After an Error the chunk is as before."""
        hold = chunk._held()
        try:
            delivery = self._publish("zcp_library_publish", ctypes.byref(hold.handle))
        finally:
            del hold  # the traceback may be kept for long
        chunk.release()
        return delivery

    def notify(self):
        """Publishes an event: a message without a chunk."""
        return self._publish("zcp_publisher_notify")

    def _publish(self, *arguments):
        delivery = _Delivery()
        _wait(self._timeout, lambda _: self._endpoint.call(*arguments, ctypes.byref(delivery)))
        return Delivery(delivery.number, delivery.subscribers, delivery.overtaken)


class Subscriber(_OfTopic):
    """See Manager.subscribe. `for frame in subscriber` and `async for frame in subscriber` go on until it is closed."""

    _BUSY = 0.005  # so long an `async for` goes on without letting others of its event loop run
    _suspended = 0

    def receive(self, timeout=None):
        """The next Frame. Nothing came in so many seconds: raises Timeout; with 0, Empty. Threads that receive from one
        Subscriber share its messages."""
        return _wait(timeout, self._receive)

    def fileno(self):
        """A descriptor for select, poll and event loops: readable when there may be a message. Then receive(0) until
        Empty: that arms it again. It is the subscriber's, which closes it."""
        with self._endpoint.use() as pointer:
            descriptor = _library.zcp_subscriber_descriptor(pointer)
            if descriptor < 0:
                raise _error("ERR_SYSTEM", _last_message())
            return descriptor

    def _receive(self, timeout_ms):
        message = _Message()
        hold = _Hold(self._endpoint.attachment, self._endpoint.call, "zcp_library_receive", timeout_ms,
                     ctypes.byref(message))
        return Frame(self._manager, None if message.data is None else hold, message)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.receive()
        except Closed:
            raise StopIteration from None

    def __aiter__(self):
        return self

    async def __anext__(self):
        import asyncio
        loop = asyncio.get_running_loop()
        if loop.time() - self._suspended > self._BUSY:
            await asyncio.sleep(0)  # first: who is cancelled here has lost nothing
            self._suspended = loop.time()
        try:
            while True:
                with contextlib.suppress(Empty):
                    return self._receive(0)
                await self._readable(loop)
                self._suspended = loop.time()
        except Closed:
            raise StopAsyncIteration from None

    async def _readable(self, loop):
        """Until the descriptor is readable, or it is closed."""
        import fcntl
        endpoint, readable = self._endpoint, loop.create_future()

        def wake():
            if not readable.done():
                readable.set_result(None)

        def wake_from_elsewhere():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake)

        # One of its own: the subscriber's may be closed, and another file's then, before the loop forgets it; and a
        # loop knows one reader for each.
        descriptor = fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            endpoint.wakes[id(readable)] = wake_from_elsewhere
            loop.add_reader(descriptor, wake)
            if not endpoint.closing:
                await readable
        finally:
            del endpoint.wakes[id(readable)]
            loop.remove_reader(descriptor)
            os.close(descriptor)


def wait(subscribers, timeout=None):
    """Waits until one of several subscribers of a Manager has a message, and returns it: the first of those that have.
    Nothing came: as receive."""
    subscribers = list(subscribers)
    endpoints = [subscriber._endpoint for subscriber in subscribers]

    def attempt(slice_ms):
        ready = ctypes.c_uint32()
        with contextlib.ExitStack() as stack:
            pointers = {one: stack.enter_context(one.use()) for one in sorted(endpoints, key=id)}  # the same for all
            array = (ctypes.c_void_p * len(endpoints))(*map(pointers.get, endpoints))
            _call("zcp_subscribers_wait", array, len(endpoints), slice_ms, ctypes.byref(ready))
        return subscribers[ready.value]

    return _wait(timeout, attempt)


def _shape(view, shape, itemsize, offset):
    """The shape as a tuple, if that many items lie in the view. numpy itself would take a negative offset."""
    if itemsize == 0:
        raise ValueError("a dtype without a size")
    if shape is None:
        shape = max(0, len(view) - offset) // itemsize
    shape = (shape,) if hasattr(shape, "__index__") else tuple(shape)
    size = itemsize * math.prod(map(operator.index, shape))
    if offset < 0 or min(shape, default=0) < 0 or offset + size > len(view):
        raise ValueError(f"{shape} items of {itemsize} bytes from byte {offset} on do not lie in {len(view)} bytes")
    return shape


def _numpy_array(view, shape, dtype, offset):
    dtype = numpy.dtype(dtype)
    if dtype.hasobject:
        raise ValueError("objects of Python cannot lie in shared memory")
    # By frombuffer, whose base is the view: setflags cannot make writable what lies in a read-only one.
    return numpy.ndarray(_shape(view, shape, dtype.itemsize, offset), dtype, numpy.frombuffer(view, "uint8"), offset)


_FORMATS = {"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q",
            "uint64": "Q", "float32": "f", "float64": "d", "bool": "?"}


def _memoryview_array(view, shape, dtype, offset):
    kind = _FORMATS.get(dtype, dtype)
    itemsize = memoryview(bytes(8)).cast(kind).itemsize
    shape = _shape(view, shape, itemsize, offset)
    size = itemsize * math.prod(shape)
    return view[offset:offset + size].cast(kind, shape) if size else view[:0].cast(kind)
