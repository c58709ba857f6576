"""zerocp in Python: chunks of shared memory as arrays, with nothing copied.

    import zerocp

    with zerocp.open("camera", pools=[(6220800, 8)]) as manager:      # creates the instance, or attaches to it
        frame = manager.allocate(6220800)
        frame.array((1080, 1920, 3), "uint8")[:] = 0                  # numpy's, or a memoryview where there is no numpy
        token = frame.token                                           # 64 bits for another process, which calls
        received = manager.acquire(token)                             # this, and holds the chunk from then on
        pixels = received.array((1080, 1920, 3), "uint8")             # read-only

An array holds its chunk: it may outlive the Chunk, its release() and the manager's close(), and is good as long as
anything of it is left. What is done at the end (the chunk's release, and a close that was asked for) is done when the
last one goes. In a child of fork such an array is zeros, and a private copy; everything else that is asked of the
parent's objects raises an Error there.

All may be called by several threads. A call that fails raises an Error with the status, its name and the message.

This file is all there is beside libzerocp.so, which is looked for in the environment variable ZEROCP_LIBRARY, where
`make install` has put it, where the dynamic linker looks, and in build/ of the source tree. Sizes, offsets and
constants are the library's own: zerocp.WAIT is ZCP_WAIT, zerocp.ERR_STALE is ZCP_ERR_STALE.
"""

import atexit
import collections
import ctypes
import math
import operator
import os

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
_ClientStats, _Handle = _struct("zcp_client_stats"), _struct("zcp_chunk")

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
    "zcp_library_zero_in_child": (ctypes.c_bool, _P, _U64),
    "zcp_library_forget": (None, _P, _U64),
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


def _call(name, *arguments):
    """Calls a function that returns a status, which has to be ZCP_OK."""
    status = getattr(_library, name)(*arguments)
    if status != 0:
        raise Error(status, _library.zcp_last_message().decode(errors="replace"))


def _encoded(name):
    return None if name is None else os.fsencode(name)


def _milliseconds(seconds):
    """As C has it; None: for ever. 0 stays 0, and is the default where there is one; less than 1 ms is 1."""
    return 0xFFFFFFFF if seconds is None else min(math.ceil(seconds * 1000), 0xFFFFFFFE)


# ----------------------------------------------------------------------------------------------------------------------
# Who may use the manager, and when its memory may go. `users` are the calls that are just being made and the chunks
# that are held. Whoever is in it may use the manager; whoever leaves last closes it, if that was asked for. Each step
# is one operation on a dict or list, which no other thread sees half done, because the garbage collector may get here
# at any point of the others.


_attachments = {}  # those that are open, by their ids


class _Attachment:
    def __init__(self, pointer):
        self.pointer, self.users, self.closing = pointer, {}, False
        _attachments[id(self)] = self

    def enter(self, user):
        self.users[user] = True
        if self.closing:
            self.leave(user)
            raise Error(constants["ERR_CLOSED"])

    def leave(self, user):
        self.users.pop(user, None)
        if self.closing and not self.users:
            self.end()

    def close(self):
        self.closing = True
        if not self.users:
            self.end()

    def end(self, attachments=_attachments, library=_library):  # what it needs stays when the interpreter ends
        if attachments.pop(id(self), None) is not None:  # else another thread was faster
            library.zcp_manager_close(self.pointer)


@atexit.register
def _close_all():
    """What no chunk and no array holds is closed at exit, so that nobody has to sweep after this process; the rest
    when that goes."""
    for attachment in list(_attachments.values()):
        attachment.close()


class _Use:
    """with _Use(attachment) as pointer: a call, during which the manager stays."""

    def __init__(self, attachment):
        self.attachment = attachment

    def __enter__(self):
        self.attachment.enter(id(self))
        return self.attachment.pointer

    def __exit__(self, *_):
        self.attachment.leave(id(self))


_untrack = ctypes.pythonapi.PyObject_GC_UnTrack
_untrack.argtypes, _untrack.restype = [ctypes.py_object], None


class _Hold:
    """A handle of a chunk: released when the last Chunk or array that refers to this has gone.

    The garbage collector must not know it: it would call __del__ of all objects of a cycle before any of them goes,
    and a later one could still look into the array. So this is called when the reference count says so, and only
    then.
    """

    __slots__ = ("attachment", "handle", "size")

    def __init__(self, attachment, name, *arguments):
        self.attachment, self.handle, self.size = attachment, _Handle(), 0
        _untrack(self)
        attachment.enter(id(self))
        try:
            _call(name, attachment.pointer, *arguments, ctypes.byref(self.handle))
        except Error:
            attachment.leave(id(self))  # now: the traceback may keep this for long
            raise
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
    values = {name: os.fsdecode(value) if isinstance(value, bytes) else value for name, value in values.items()}
    name = type(struct).__name__[len("zcp_"):].title().replace("_", "")
    made = _Record.get(name) or _Record.setdefault(name, collections.namedtuple(name, [*more, *values]))
    return made(**more, **values)


def open(name=None, pools=None, *, mode=None, flags=0, timeout=0, client_name=None, max_clients=0, permissions=0,
         group=0, data_permissions=0):
    """Opens an instance, and creates it if need be. pools: (chunk_size, chunk_count[, alignment[, cache_chunks]])
    each; None: take what is there. timeout: seconds, 0 for the default. The rest as in zcp_manager_desc, 0 or None
    for its default."""
    config, pointer = None, ctypes.c_void_p()
    if pools is not None:
        config = _Config()
        for pool in pools:
            _call("zcp_config_add", ctypes.byref(config), ctypes.byref(_PoolConfig(**Pool(*pool)._asdict())))
    desc = _ManagerDesc(name=_encoded(name), mode=constants["SHM_OPEN_OR_CREATE"] if mode is None else mode,
                        config=None if config is None else ctypes.addressof(config), max_clients=max_clients,
                        permissions=permissions, flags=flags, client_name=_encoded(client_name),
                        timeout_ms=_milliseconds(timeout), group=group, data_permissions=data_permissions)
    _call("zcp_manager_open", ctypes.byref(pointer), ctypes.byref(desc))
    return Manager(pointer.value)


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
            return Chunk(self, _Hold(self._attachment, "zcp_chunk_allocate_tagged", size, tag), True)
        if tag:
            raise ValueError("a tag and a timeout do not go together")
        return Chunk(self, _Hold(self._attachment, "zcp_chunk_allocate_wait", size, _milliseconds(timeout)), True)

    def acquire(self, token):
        """The chunk that a token names, to read."""
        return Chunk(self, _Hold(self._attachment, "zcp_chunk_acquire", token), False)

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
        """Detaches, once the last array and chunk of this manager is gone. Until then it refuses everything but
        those."""
        self._attachment.close()

    @property
    def closed(self):
        return self._attachment.closing

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
            raise Error(constants["ERR_STALE"], "the chunk was released")
        if not _library.zcp_chunk_is_valid(ctypes.byref(hold.handle)):
            _call("zcp_manager_check", hold.attachment.pointer)
            raise Error(constants["ERR_STALE"])
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
            raise Error(constants["ERR_STALE"], _library.zcp_last_message().decode(errors="replace"))
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
