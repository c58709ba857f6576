"""Tests of tests/demo/zerocp.py, each in a process of its own: zerocp_test.py NAME INSTANCE, started by
tests/python_test.c. Processes that a test starts are this file again, with the name of a function that begins with
`child_`. --list prints the tests."""

import ctypes
import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(SOURCE, "tests", "demo"))

if sys.argv[1].endswith("without_numpy"):
    sys.modules["numpy"] = None  # as where there is none

if sys.argv[1] != "--list":
    import zerocp

instance = sys.argv[2] if len(sys.argv) > 2 else None

# ----------------------------------------------------------------------------------------------------------------------
# What the tests share


def must_fail(kind, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as error:
        return error
    raise AssertionError(f"no {kind}: {call} {arguments}")


def must_be_refused(name, call, *arguments, **named):
    error = must_fail(zerocp.Error, call, *arguments, **named)
    assert error.name == "ZCP_" + name and error.status == zerocp.constants[name], error
    assert error.message and str(error) == f"{error.name}: {error.message}"
    return error


def start(function, *arguments, **named):
    return subprocess.Popen([sys.executable, __file__, function, instance, *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **named)


def must_end(process, said="", status=0):
    text, _ = process.communicate(timeout=50)
    assert process.returncode == status and text == said, (process.returncode, text)


def observed():
    return zerocp.open(instance, flags=zerocp.OBSERVE, mode=zerocp.SHM_OPEN_EXISTING)


def used():
    """The chunks in use, and the clients, as an outsider sees them."""
    with observed() as observer:
        return sum(pool.used for pool in observer.pools()), len(observer.clients())


def opened(size=4096, count=8, **more):
    return zerocp.open(instance, pools=[(size, count)], **more)


def end(manager):
    """Nothing may be left of the test."""
    manager.close()
    assert used() == (0, 0), used()
    zerocp.destroy(instance)


def fork(function):
    """Runs a function in a forked child, which must return."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def bytes_of(array):
    return bytes(memoryview(array).cast("B"))


# ----------------------------------------------------------------------------------------------------------------------
# The library's table, and what the headers declare


def declarations():
    """The public half of the headers without comments."""
    text = ""
    for header in ("zerocp_relptr.h", "zerocp_shm.h", "zerocp.h"):
        with open(os.path.join(SOURCE, header), encoding="utf-8") as file:
            whole = file.read()
        in_guard = whole.split("#ifndef ZEROCP_", 1)[1]
        text += re.split(r"#if defined\(ZEROCP_IMPLEMENTATION\) && !defined\(Z|namespace zerocp", in_guard)[0]
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def declared_fields(text):
    structs = {name: body for body, name in re.findall(r"typedef struct \w+ \{([^}]*)\} (\w+);", text)}
    structs["zcp_pool_vector"] = "uint32_t size; zcp_pool_config items[1];"  # a macro's
    for name, body in structs.items():
        for declaration in filter(str.strip, body.split(";")):
            for declarator in re.sub(r"ZCP_ATOMIC\(\w+\)", "T", declaration).split(","):
                yield name, re.search(r"(\w+)\s*(\[[^\]]*\])*\s*$", declarator).group(1)


def declared_constants(text):
    yield from re.findall(r"#define (ZCP_[A-Z_]+)[ \t]+[^\s(_]", text)
    yield from re.findall(r"#define (ZCP_[A-Z_]+)[ \t]+\(", text)
    for body in re.findall(r"typedef enum \w+ \{([^}]*)\}", text):
        yield from re.findall(r"\b(ZCP_[A-Z_]+)\b\s*(?:=[^,]*)?(?=,|\s*$)", body)
    yield from re.findall(r"X\((ZCP_\w+),", text)


def compiled(text):
    """The table as the C compiler sees the headers: name, offset or value, bytes."""
    lines = [
        "#include <zerocp.h>",
        "#define SHOW(name, offset, bytes) "
        'printf("%s %llu %llu\\n", name, (unsigned long long)(offset), (unsigned long long)(bytes));',
        "int main(void) {",
    ]
    for name in sorted({struct for struct, _ in declared_fields(text)}):
        lines.append(f'SHOW("{name}", _Alignof({name}), sizeof({name}))')
    for struct, field in declared_fields(text):
        lines.append(f'SHOW("{struct}.{field}", offsetof({struct}, {field}), sizeof((({struct} *)0)->{field}))')
    not_numbers = {"ZCP_STATUS_TABLE", "ZCP_SCOPED"}
    for constant in sorted(set(declared_constants(text)) - not_numbers):
        lines.append(f'SHOW("{constant}", {constant}, 0)')
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "table")
        command = [*os.environ.get("CC", "cc").split(), "-std=c11", "-I", SOURCE, "-x", "c", "-", "-o", program]
        subprocess.run(command, input="\n".join([*lines, "}"]), text=True, check=True)
        printed = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name: (int(offset), int(size)) for name, offset, size in map(str.split, printed.splitlines())}


def test_table():
    wanted = compiled(declarations())
    found = {name: (offset, size) for name, offset, size, _ in zerocp._rows()}
    some = {"zcp_chunk.data", "zcp_registry_entry.base", "ZCP_WAIT", "ZCP_ERR_STALE", "ZCP_POOL_RETIRING"}
    assert len(wanted) > 150 and some <= set(wanted)
    assert found == wanted, sorted(set(found.items()) ^ set(wanted.items()))
    assert len(found) == len(list(zerocp._rows()))


def test_functions():
    """As many arguments as are declared, each of the declared size."""
    text = declarations()
    with open(os.path.join(SOURCE, "tests", "demo", "library.c"), encoding="utf-8") as file:
        text += file.read()
    sizes = {"uint64_t": 8, "uint32_t": 4, "zcp_status": 4, "bool": 1, "void": 0}
    pointer = ctypes.sizeof(ctypes.c_void_p)
    for name, (result, *arguments) in zerocp._FUNCTIONS.items():
        kind, list_of = re.search(rf"([\w ]+[ *]){name}\(([^)]*)\);", text).groups()
        wanted = [] if list_of == "void" else list_of.split(",")
        declared = [pointer if "*" in one else sizes[one.split()[-2]] for one in wanted]
        assert declared == [ctypes.sizeof(argument) for argument in arguments], name
        assert (result is None) == (kind.split()[-1] == "void" and "*" not in kind), name
        if result is not None:
            assert ctypes.sizeof(result) == (pointer if "*" in kind else sizes[kind.split()[-1]]), name


# ----------------------------------------------------------------------------------------------------------------------
# Managers and chunks


def test_manager():
    must_be_refused("ERR_NOT_FOUND", zerocp.open, instance, mode=zerocp.SHM_OPEN_EXISTING)
    pools = [(256, 4), zerocp.Pool(4096, 2, alignment=128)]
    manager = zerocp.open(instance, pools=pools, max_clients=3, client_name="first")
    assert instance in zerocp.instances()
    assert "mismatch" not in str(must_be_refused("ERR_CONFIG_MISMATCH", zerocp.open, instance, pools=[(64, 1)]))
    must_be_refused("ERR_INVALID_SIZE", zerocp.open, instance, pools=[(64, 0)])
    must_be_refused("ERR_INVALID_NAME", zerocp.open, "a/b")
    must_be_refused("ERR_TIMEOUT", zerocp.open, instance + "-none", flags=zerocp.WAIT, timeout=0.01)
    info = manager.info()
    assert info.name == instance and info.chunk_name == f"/{instance}_memory_chunk"
    assert info.max_clients == 3 and info.slot == 0
    with manager.allocate(200, tag=7) as chunk:
        assert (chunk.size, chunk.capacity, chunk.tag, chunk.use_count) == (200, 256, 7, 1)
        small, large = manager.pools()
        assert (small.pool, small.chunk_size, small.total, small.used, small.free) == (0, 256, 4, 1, 3)
        assert (large.pool, large.chunk_size, large.total, large.used, large.alignment) == (1, 4096, 2, 0, 128)
        (client,) = manager.clients()
        assert (client.slot, client.pid, client.name, client.owned, client.borrowed) == (0, os.getpid(), "first", 1, 0)
    assert manager.pools()[0].used == 0
    assert manager.recover() == (0, 0)
    manager.check()
    zerocp.destroy(instance)
    must_be_refused("ERR_REPLACED", manager.check)
    must_be_refused("ERR_NOT_FOUND", zerocp.destroy, instance)
    manager.close()
    manager.close()
    assert manager.closed
    for call in (manager.pools, manager.clients, manager.info, manager.recover, manager.check):
        must_be_refused("ERR_CLOSED", call)
    must_be_refused("ERR_CLOSED", manager.allocate, 1)
    must_be_refused("ERR_CLOSED", manager.acquire, 1)


def test_arguments():
    manager = opened()
    must_be_refused("ERR_INVALID_SIZE", manager.allocate, 0)
    must_be_refused("ERR_TOO_LARGE", manager.allocate, 4097)
    must_be_refused("ERR_INVALID_TOKEN", manager.acquire, 0)
    must_fail(ValueError, manager.allocate, 1, tag=1, timeout=1)
    must_fail(AttributeError, lambda: zerocp.NO_SUCH_CONSTANT)
    chunk = manager.allocate(100)
    for shape, dtype, offset in ((101, "uint8", 0), (1, "uint8", 100), (13, "float64", 0), (12, "float64", 5),
                                 (1, "uint8", -1), ((10, 11), "uint8", 0), (-1, "uint8", 0), (1 << 62, "uint8", 0)):
        must_fail((TypeError, ValueError), chunk.array, shape, dtype, offset)
    must_fail(ValueError, chunk.array, 4, "O")
    must_fail(ValueError, chunk.array, 4, "V0")
    assert chunk.array(dtype="uint16", offset=50).shape == (25,)
    held = [manager.allocate(1) for _ in range(7)]
    must_be_refused("ERR_EXHAUSTED", manager.allocate, 1)
    since = time.monotonic()
    must_be_refused("ERR_TIMEOUT", manager.allocate, 1, timeout=0.05)
    assert time.monotonic() - since >= 0.05
    other = threading.Timer(0.05, held.pop)
    other.start()
    held.append(manager.allocate(1, timeout=None))
    other.join()
    token = chunk.token
    chunk.release()
    chunk.release()
    must_be_refused("ERR_STALE", manager.acquire, token)
    for ask in (lambda: chunk.size, lambda: chunk.token, chunk.view, chunk.array):
        assert "released" in must_be_refused("ERR_STALE", ask).message
    held.clear()
    end(manager)


def child_reader():
    manager = zerocp.open(instance)
    received = manager.acquire(int(sys.argv[3]))
    array = received.array((4, 8), "uint32", 64)
    assert array.sum() == sum(range(32)) and not received.writable
    must_fail(ValueError, array.__setitem__, (0, 0), 1)
    must_fail(ValueError, array.setflags, write=True)
    must_fail(TypeError, received.view().__setitem__, 0, 1)
    print("read", received.size, received.use_count, flush=True)
    sys.stdin.read()
    print(int(array[3, 7]))  # the sender has let go


def test_exchange():
    manager = opened()
    chunk = manager.allocate(1000)
    array = chunk.array((4, 8), "uint32", 64)
    array[:] = numpy_range(32).reshape(4, 8)
    reader = start("child_reader", chunk.token)
    line = reader.stdout.readline()
    assert line == "read 1000 2\n", line + reader.communicate()[0]
    chunk.release()
    del array
    assert used() == (1, 2)
    must_end(reader, "31\n")
    end(manager)


def numpy_range(n):
    return zerocp.numpy.arange(n, dtype="uint32")


# ----------------------------------------------------------------------------------------------------------------------
# How long an array is good


def test_array_outlives_all():
    manager = opened(1 << 20, 4)
    chunk = manager.allocate(1 << 20)
    array = chunk.array((1024, 1024))
    array[:] = 9
    part = array[5:7, ::2].T
    view = memoryview(chunk.view())[10:20]
    chunk.release()
    del array, chunk
    assert used() == (1, 1)
    manager.close()
    must_be_refused("ERR_CLOSED", manager.allocate, 1)
    del manager
    gc.collect()
    assert used() == (1, 1)
    part[:] = part + 1
    assert int(part.sum()) == 10 * 1024 and view[0] == 9
    del part
    assert used() == (1, 1)
    view.release()
    del view
    assert used() == (0, 0)
    zerocp.destroy(instance)


def test_chunk_outlives_close():
    manager = opened()
    first, second = manager.allocate(8), manager.allocate(8)
    array = first.array()
    manager.close()
    assert first.token and first.size == 8 and first.array(4).shape == (4,)
    del first, array
    assert used() == (1, 1)
    second.release()
    assert used() == (0, 0)
    zerocp.destroy(instance)


def test_array_in_a_cycle():
    """A finalizer of a cycle looks into the array, whatever the garbage collector has finalized before."""
    seen = []

    class Node:
        def __del__(self):
            seen.append((self.view[0], int(self.array[1]) if self.array is not None else 0, self.chunk.size))

    for with_array in (False, True):  # the collector does not see through one of numpy
        for manager in (opened(), opened()):
            # Before the nodes, so that they are finalized before them.
            chunks = [manager.allocate(8), manager.allocate(8)]
            for chunk in chunks:
                chunk.view()[:2] = b"\5\7"
            nodes = [Node(), Node()]
            for node, other, chunk in zip(nodes, nodes[::-1], chunks):
                node.chunk, node.view, node.array = chunk, chunk.view(), chunk.array() if with_array else None
                node.other, node.manager = other, manager
            manager.close()
            del nodes, node, other, chunk, chunks, manager
            gc.collect()
            assert seen == 2 * [(5, 7 if with_array else 0, 8)], seen
            seen.clear()
            gc.collect()
            assert used()[0] == 0
    zerocp.destroy(instance)


def child_exits():
    """With arrays that are still there: of a module, of a cycle, of a daemon thread that works on one, and of a handler
    that runs last."""
    import atexit
    global kept, manager
    manager = zerocp.open(instance)
    kept = [manager.allocate(1 << 20).array() for _ in range(3)]
    kept.append(kept)
    zerocp.kept = kept[0]
    atexit.register(lambda: kept[0].fill(3))
    inner = manager.allocate(1 << 20).array()

    def work():
        while True:
            inner[:] = inner[::-1]

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    builtins = sys.modules["builtins"]
    builtins.kept = manager.allocate(1 << 20).array()[5:]

    class Last:
        def __del__(self):
            self.array.fill(1)

    builtins.last = Last()
    builtins.last.array = manager.allocate(1 << 20).array()
    if len(sys.argv) > 3:
        manager.close()


def test_exit():
    manager = opened(1 << 20, 8)
    for again in range(4):
        must_end(start("child_exits", *["closed"][:again % 2]))
        manager.recover()  # of the arrays of daemon threads
        assert used() == (0, 1), used()
    end(manager)


def child_keeps_an_array():
    global array
    array = zerocp.open(instance).allocate(100).array()


def child_keeps_a_manager():
    """In a thread that never ends."""
    manager, never = zerocp.open(instance), threading.Event()
    manager.allocate(100).array()
    threading.Thread(target=lambda: never.wait() or manager, daemon=True).start()


def test_exit_leaves_nobody_to_sweep():
    manager = opened()
    for child in ("child_keeps_an_array", "child_keeps_a_manager"):
        must_end(start(child))
        assert used() == (0, 1), used()
        assert manager.recover() == (0, 0)
    end(manager)


def child_holds():
    manager = zerocp.open(instance)
    arrays = [manager.allocate(10).array() for _ in range(3)]
    print("holds", len(arrays), flush=True)
    sys.stdin.read()


def test_killed():
    manager = opened()
    child = start("child_holds")
    assert child.stdout.readline() == "holds 3\n"
    assert used() == (3, 2)
    child.send_signal(signal.SIGKILL)
    must_end(child, status=-signal.SIGKILL)
    deadline = time.monotonic() + 20
    reclaimed = 0
    while reclaimed < 3 and time.monotonic() < deadline:
        reclaimed += manager.recover().chunks_reclaimed
    assert reclaimed == 3 and used() == (0, 1)
    end(manager)


# ----------------------------------------------------------------------------------------------------------------------
# Fork


def test_fork():
    manager = opened(100, 50)  # several chunks in a page
    chunks = [manager.allocate(100) for _ in range(50)]
    arrays = [chunk.array() for chunk in chunks[::2]]
    same = manager.acquire(chunks[0].token).array()
    for array in arrays:
        array[:] = 5

    def grandchild():
        assert all(int(array.sum()) == 700 for array in arrays)
        arrays[0][:] = 8

    def child():
        assert all(int(array.sum()) == 0 for array in arrays) and int(same.sum()) == 0
        for ask in (manager.pools, manager.clients, manager.info, manager.recover, manager.check,
                    lambda: chunks[0].token, lambda: chunks[1].size, chunks[0].array, chunks[1].view):
            must_be_refused("ERR_FORKED", ask)
        must_be_refused("ERR_FORKED", manager.allocate, 1)
        must_be_refused("ERR_FORKED", manager.acquire, 1)
        for array in arrays:
            array[:] = 7
        fork(grandchild)
        assert int(arrays[0][0]) == 7
        own = zerocp.open(instance)
        mine = own.acquire(token)
        assert int(mine.array()[0]) == 5
        manager.close()
        arrays.clear()
        chunks.clear()
        own.close()
        assert int(mine.array()[0]) == 5

    token = chunks[0].token
    fork(child)
    manager.recover()
    assert all(int(array.sum()) == 500 for array in arrays) and used() == (50, 1)
    arrays[0][0] = 6
    assert same[0] == 6
    del array, arrays, same, chunks
    fork(lambda: must_be_refused("ERR_FORKED", manager.pools))
    end(manager)


def test_fork_before_other_hooks():
    """Whatever the child maps first, it is not where an array is: not even in a hook that was registered before."""
    taken = []

    def take():
        for _ in range(8):
            taken.append(zerocp.numpy.full(4 << 20, 9, "uint8"))

    os.register_at_fork(after_in_child=take)
    manager = opened(4 << 20, 4)
    arrays = [manager.allocate(4 << 20).array() for _ in range(4)]
    for array in arrays:
        array[:] = 5

    def child():
        assert len(taken) == 8 and not any(array.any() for array in arrays)
        assert all(one[0] == 9 for one in taken)

    fork(child)
    assert all(array.min() == 5 for array in arrays)
    del array, arrays
    end(manager)


def test_fork_after_release():
    """Where an array was, the child has nothing of it."""
    manager = opened(1 << 20, 2)
    for _ in range(3):
        array = manager.allocate(1 << 20).array()
        address = array.ctypes.data
        del array

        def child():
            with open("/proc/self/maps", encoding="utf-8") as maps:
                ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
            assert not any(begin <= address < end for begin, end in ranges)

        fork(child)
    end(manager)


# ----------------------------------------------------------------------------------------------------------------------
# Threads


def test_threads():
    """Six threads allocate, acquire, keep arrays and drop them, while managers are opened and closed under them."""
    holder = opened(4096, 64, max_clients=64)
    current, failures, until = [zerocp.open(instance)], [], time.monotonic() + 1.5

    def work(number):
        arrays = []
        try:
            while time.monotonic() < until:
                try:
                    manager = current[0]
                    chunk = manager.allocate(4096)
                    array = chunk.array(dtype="uint32")
                    array[:] = number
                    other = manager.acquire(chunk.token).array(dtype="uint32")
                    chunk.release()
                    arrays.append((array, other))
                except zerocp.Error as error:
                    assert error.name in ("ZCP_ERR_CLOSED", "ZCP_ERR_EXHAUSTED"), error
                assert all((array == number).all() and (other == number).all() for array, other in arrays)
                del arrays[:-5]
        except BaseException as error:
            failures.append(error)

    def reopen():
        while time.monotonic() < until:
            old, current[0] = current[0], zerocp.open(instance)
            old.close()
            time.sleep(0.01)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)] + [threading.Thread(target=reopen)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    current[0].close()
    end(holder)


# ----------------------------------------------------------------------------------------------------------------------
# Where there is no numpy


def test_without_numpy():
    assert zerocp.numpy is None
    manager = opened()
    chunk = manager.allocate(96)
    array = chunk.array((2, 3), "float64", 8)
    array[1, 2] = 1.5
    assert array.shape == (2, 3) and array.tolist() == [[0, 0, 0], [0, 0, 1.5]] or array[1, 2] == 1.5
    assert chunk.array(dtype="uint16").shape == (48,) and chunk.array(0).shape == (0,)
    assert chunk.array(2, "H").format == "H"
    for shape, dtype, offset in ((97, "uint8", 0), (1, "uint8", 96), (13, "float64", 0), ((2, 50), "uint8", 0),
                                 (1, "uint8", -1), (-1, "uint8", 0), (1, "complex", 0)):
        must_fail((ValueError, TypeError), chunk.array, shape, dtype, offset)
    received = manager.acquire(chunk.token).array((2, 3), "float64", 8)
    assert received[1, 2] == 1.5
    must_fail(TypeError, received.__setitem__, (1, 2), 2.5)
    chunk.release()
    manager.close()
    del array
    assert received[1, 2] == 1.5 and used() == (1, 1)

    def child():
        assert bytes_of(received) == bytes(48)

    fork(child)
    del received
    end(manager)


def main():
    tests = [name[len("test_"):] for name in globals() if name.startswith("test_")]
    if sys.argv[1] == "--list":
        print(" ".join(tests))
    elif sys.argv[1].startswith("child_"):
        globals()[sys.argv[1]]()
    else:
        globals()["test_" + sys.argv[1]]()


main()
