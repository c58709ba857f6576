"""Tests of tests/demo/zerocp.py: zerocp_test.py "NAME..." INSTANCE runs some, one after the other; started by
tests/python_test.c. Processes that a test starts are this file again, with the name of a function that begins with
`child_`. --list prints the tests."""

import asyncio
import ctypes
import gc
import os
import re
import select
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
        return error.with_traceback(None)  # which would keep what the call has used
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
    text, _ = process.communicate()
    assert process.returncode == status and text == said, (process.returncode, text)


def observed():
    return zerocp.open(instance, flags=zerocp.OBSERVE, mode=zerocp.SHM_OPEN_EXISTING)


def used():
    """The chunks in use, and the clients, as an outsider sees them."""
    with observed() as observer:
        return sum(pool.used for pool in observer.pools()), len(observer.clients())


def opened(size=4096, count=8, **more):
    return zerocp.open(instance, pools=[(size, count)], **more)


def later(call, seconds=0.03):
    threading.Timer(seconds, call).start()


def join_threads():
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()


def end(manager):
    """Nothing may be left of the test."""
    join_threads()
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
    sizes = {"uint64_t": 8, "uint32_t": 4, "int": 4, "zcp_status": 4, "bool": 1, "void": 0}
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
    error = must_be_refused("ERR_TIMEOUT", zerocp.open, instance + "-none", flags=zerocp.WAIT, timeout=0.12)
    assert "within 120 ms" in error.message
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
# Topics


def publish(publisher, value, size=100, **more):
    """A message whose bytes are all that value."""
    chunk = publisher.loan(size)
    chunk.view()[:] = bytes([value]) * size
    return publisher.publish(chunk)


def value_of(frame):
    """That value; what it is in the lowest and the highest byte."""
    view = frame.view()
    assert view[0] == view[-1]
    return view[0]


def test_topic():
    manager = opened(publishers=3, subscribers=4, ring_cells=16)
    publisher, view = manager.publisher("a", depth=4, keep=2), manager.subscribe("a")
    assert (publisher.topic, view.topic, publisher.closed, view.closed) == ("a", "a", False, False)
    assert publish(publisher, 1) == (1, 1, 0)
    chunk = manager.allocate(40, tag=9)
    array = chunk.array()
    array[:] = 2
    assert publisher.publish(chunk) == (2, 1, 0) and publisher.notify().number == 3
    must_be_refused("ERR_STALE", publisher.publish, chunk)
    del array
    first, second, event = view.receive(), view.receive(0), view.receive(5)
    assert (first.number, first.lost, first.skipped, first.size, first.tag, value_of(first)) == (1, 0, 0, 100, 0, 1)
    assert (second.number, second.size, second.tag, second.event, value_of(second)) == (2, 40, 9, False, 2)
    assert (second.source, second.publisher) == (first.source, manager.info().slot) and first.source > 0
    assert (event.number, event.event, event.size, event.tag, event.capacity) == (3, True, 0, 0, 0)
    assert len(event.view()) == len(event.array()) == 0
    for ask in (lambda: event.token, lambda: publisher.publish(event)):
        assert "event" in must_be_refused("ERR_EMPTY", ask).message
    must_fail(ValueError, event.array, 1)
    must_fail(TypeError, first.view().__setitem__, 0, 1)
    must_fail(ValueError, first.array().setflags, write=True)
    assert must_be_refused("ERR_EMPTY", view.receive, 0).__class__ is zerocp.Empty
    error = must_be_refused("ERR_TIMEOUT", view.receive, 0.25)
    assert error.__class__ is zerocp.Timeout and "within 250 ms" in error.message
    must_fail(ValueError, view.receive, -1)

    # Who is too slow, who wants the newest one only, who comes late.
    late, newest = manager.subscribe("a", history=2), manager.subscribe("a", latest=True)
    assert [late.receive(0).number, late.receive(0).number] == [2, 3]
    overtaken = [publish(publisher, 3 + i).overtaken for i in range(6)]
    assert overtaken == [0, 0, 0, 0, 3, 3], overtaken
    assert [(one.number, one.lost) for one in (view.receive(0), view.receive(0))] == [(6, 2), (7, 0)]
    newest = newest.receive(0)
    assert (newest.number, newest.lost + newest.skipped, newest.lost, value_of(newest)) == (9, 5, 2, 8)

    # A message is passed on: the same chunk.
    other, there = manager.publisher("b"), manager.subscribe("b")
    token = second.token
    other.publish(second)
    passed_on = there.receive(0)
    assert passed_on.token == token and passed_on.number == 1 and value_of(passed_on) == 2
    must_be_refused("ERR_INVALID_ARGUMENT", zerocp.open(instance).publisher("b").publish, passed_on)

    # What C refuses.
    must_be_refused("ERR_INVALID_NAME", manager.subscribe, "")
    must_fail(ValueError, manager.subscribe, "a\0b")
    must_be_refused("ERR_INVALID_SIZE", manager.publisher, "c", depth=17)
    must_be_refused("ERR_EXISTS", manager.publisher, "a", exclusive=True)
    must_be_refused("ERR_INVALID_ARGUMENT", manager.subscribe, "a", reliable=True, latest=True)
    third = manager.publisher("c", exclusive=True, never_waits=True)
    must_be_refused("ERR_INVALID_ARGUMENT", manager.subscribe, "c", reliable=True)
    assert "publishers" in must_be_refused("ERR_FULL", manager.publisher, "d").message
    third.close()
    third.close()
    assert third.closed
    must_be_refused("ERR_CLOSED", third.notify)
    must_be_refused("ERR_CLOSED", third.loan, 1)
    with manager.publisher("c") as third:
        assert third.notify() == (1, 0, 0)
    assert third.closed
    must_fail(ValueError, zerocp.open, instance, ring_cells=16)
    del first, second, event, newest, passed_on, late, third, other, there
    manager.close()
    for call in (view.receive, publisher.notify, lambda: manager.publisher("a"), lambda: manager.subscribe("a")):
        must_be_refused("ERR_CLOSED", call)
    assert publisher.closed and view.closed and not list(view)
    assert used() == (0, 0), used()
    zerocp.destroy(instance)


def test_reliable():
    """publish waits as long as it was told, and no longer than the message was not received."""
    manager = opened()
    publisher, view = manager.publisher("a", depth=2, timeout=0.25), manager.subscribe("a", reliable=True)
    never = manager.publisher("b", depth=1)
    slow = manager.subscribe("b", reliable=True)
    for i in range(2):
        publish(publisher, i)
    chunk, since = publisher.loan(100), time.monotonic()
    chunk.view()[:] = bytes([2]) * 100
    error = must_be_refused("ERR_TIMEOUT", publisher.publish, chunk)
    assert time.monotonic() - since >= 0.25
    assert "within 250 ms" in error.message and str(os.getpid()) in error.message
    frames = []
    other = threading.Timer(0.05, lambda: frames.append(view.receive()))
    other.start()
    assert publisher.publish(chunk).number == 3  # it was still ours
    other.join()
    frames += [view.receive(), view.receive()]
    assert [value_of(frame) for frame in frames] == [0, 1, 2] and not any(frame.lost for frame in frames)
    never.notify()
    must_be_refused("ERR_TIMEOUT", never.notify)
    assert slow.receive(0).number == 1 and never.notify().number == 2
    del frames
    end(manager)


def test_frames_hold():
    """Frames and arrays outlive the next receive, the subscriber and the managers, and nobody writes there."""
    manager, reader = opened(4096, 12), zerocp.open(instance)
    publisher, view = manager.publisher("a", depth=2), reader.subscribe("a")
    frames, arrays, parts = [], [], []
    for i in range(3):
        publish(publisher, i, 1000)
        frames.append(view.receive(0))
        publish(publisher, 10 + i, 1000)
        arrays.append(view.receive(0).array(250, "uint32"))
        publish(publisher, 20 + i, 1000)
        parts.append(view.receive(0).array()[5:900:3])
    for i in range(30):
        publish(publisher, 99, 1000)
        view.receive(0)

    def must_be_unchanged():
        assert [value_of(frame) for frame in frames] == [0, 1, 2] and [frame.number for frame in frames] == [1, 4, 7]
        assert all((array == 0x01010101 * (10 + i)).all() for i, array in enumerate(arrays))
        assert all((part == 20 + i).all() for i, part in enumerate(parts))

    must_be_unchanged()
    assert 9 <= used()[0] <= 11  # these, and up to 2 in the ring
    view.close()
    reader.close()
    must_be_unchanged()
    must_be_refused("ERR_CLOSED", view.receive)
    for i in range(20):
        publish(publisher, 98, 1000)
    publisher.close()
    manager.close()
    must_be_unchanged()
    del frames[1:], arrays[1:]
    assert used() == (5, 1)
    del parts[1:], frames[0]
    gc.collect()
    assert int(arrays[0][0]) == 0x0a0a0a0a and int(parts[0][0]) == 20 and used() == (2, 1)
    arrays.clear()
    parts.clear()
    assert used() == (0, 0)
    zerocp.destroy(instance)


def test_array_of_a_published_chunk():
    """It stays where its chunk is, even when all have read that and it is not in the ring any more."""
    manager = opened(4096, 4)
    publisher, view = manager.publisher("a", depth=1), manager.subscribe("a", latest=True)
    chunk = publisher.loan(100)
    array = chunk.array()
    array[:] = 5
    publisher.publish(chunk)
    must_be_refused("ERR_STALE", lambda: chunk.size)
    for i in range(20):
        publish(publisher, 9)
    assert value_of(view.receive(0)) == 9 and (array == 5).all() and used() == (2, 1)
    array[:] = 6
    assert value_of(view.receive(5) if publish(publisher, 7) else None) == 7
    del array
    assert used() == (1, 1)
    end(manager)


def child_publishes():
    """A message of 4096 bytes for each line that comes."""
    manager = zerocp.open(instance)
    publisher = manager.publisher("a")
    for line in sys.stdin:
        publish(publisher, int(line), 4096)
        print("published", line, end="", flush=True)


def told(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    must_say(process, f"published {line}\n")


def must_say(process, line):
    """The next line that it prints."""
    said = process.stdout.readline()
    if said != line:
        process.stdin.close()
        raise AssertionError(f"not {line!r}, but\n{said}{process.stdout.read()}")


def test_publisher_killed():
    """What it has published arrives, what was received stays, and its successor comes after it."""
    manager = opened(4096, 40)
    view, sources = manager.subscribe("a", reliable=True), []
    for again in range(2):
        publisher = start("child_publishes")
        for i in range(4):
            told(publisher, 10 * again + i)
        frames = [view.receive(), view.receive()]
        publisher.kill()
        publisher.wait()
        publisher.communicate()
        array = frames[1].array()
        frames += [view.receive(), view.receive()]
        assert [(frame.number, frame.lost, value_of(frame)) for frame in frames] == [
            (i + 1, 0, 10 * again + i) for i in range(4)]
        sources.append(frames[0].source)
        del frames
        must_be_refused("ERR_EMPTY", view.receive, 0)
        manager.recover()
        assert (array == 10 * again + 1).all() and used() == (1, 1), used()
        del array
    assert sources[0] < sources[1]
    end(manager)


def child_subscribes():
    """Shows what comes, and holds all of it."""
    frames = []
    for frame in zerocp.open(instance).subscribe("a", reliable=True):
        frames.append(frame)
        print(frame.number, value_of(frame), frame.lost, flush=True)


def test_subscriber_killed():
    """Nobody waits for it, and all that it held comes back."""
    manager = opened(4096, 12)
    publisher = manager.publisher("a", depth=3, timeout=None)
    reader = start("child_subscribes")
    while not any(not one.publisher for one in manager.topics()):
        time.sleep(0.01)
    for i in range(5):
        publish(publisher, i, 4096)
        must_say(reader, f"{i + 1} {i} 0\n")
    assert used()[0] == 5
    os.kill(reader.pid, signal.SIGSTOP)
    for i in range(3):
        publish(publisher, 9, 4096)  # these still fit
    reader.kill()
    for i in range(9):
        publish(publisher, 9, 4096)
    reader.communicate()
    manager.recover()
    publisher.close()
    assert used() == (0, 1), used()
    end(manager)


def test_wait():
    manager = opened()
    publishers = [manager.publisher(name) for name in "abc"]
    views = [manager.subscribe(name) for name in "abc"]
    must_be_refused("ERR_EMPTY", zerocp.wait, views, 0)
    assert "within 150 ms" in must_be_refused("ERR_TIMEOUT", zerocp.wait, views, 0.15).message
    for publisher, view in zip(publishers, views):
        later(publisher.notify)
        assert zerocp.wait(iter(views)) is view and zerocp.wait(views, 0) is view  # nothing is received
        assert view.receive(0).event
        must_be_refused("ERR_EMPTY", view.receive, 0)
    must_be_refused("ERR_INVALID_ARGUMENT", zerocp.wait, [])

    def wait_and_wait(*these):
        for _ in range(200):
            must_be_refused("ERR_TIMEOUT", zerocp.wait, these, 0.001)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # in any order, and often one of them stands between
    for these in (views, views[::-1], [*views, views[0]]):
        started(wait_and_wait, *these)
    join_threads()
    sys.setswitchinterval(interval)
    other = zerocp.open(instance)
    must_be_refused("ERR_INVALID_ARGUMENT", zerocp.wait, [views[0], other.subscribe("a")], 0)
    later(views[2].close)
    must_be_refused("ERR_CLOSED", zerocp.wait, views)
    other.close()
    end(manager)


def test_descriptor():
    manager = opened()
    publisher, view = manager.publisher("a"), manager.subscribe("a")
    poll = select.poll()
    poll.register(view, select.POLLIN)
    for i in range(3):
        while True:
            poll.poll()
            try:
                frame = view.receive(0)
                break
            except zerocp.Empty:
                later(publisher.notify)
        assert frame.number == i + 1
    descriptor = view.fileno()
    assert view.fileno() == descriptor > 2
    view.close()
    must_fail(OSError, os.fstat, descriptor)
    must_be_refused("ERR_CLOSED", view.fileno)
    end(manager)


# ----------------------------------------------------------------------------------------------------------------------
# Who waits can be reached


def child_waits():
    manager = zerocp.open(instance)
    view = manager.subscribe("nobody")
    publisher, _reliable = manager.publisher("full", depth=1, timeout=None), manager.subscribe("full", reliable=True)
    publisher.notify()
    chunks = []
    with zerocp.contextlib.suppress(zerocp.Error):
        while True:
            chunks.append(manager.allocate(1))
    waits = {"receive": view.receive, "iteration": lambda: next(view), "wait": lambda: zerocp.wait([view]),
             "open": lambda: zerocp.open(instance + "-none", flags=zerocp.WAIT, timeout=None),
             "publish": publisher.notify, "allocate": lambda: manager.allocate(1, timeout=None),
             "async": lambda: asyncio.run(view.__anext__())}
    signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
    for name, call in waits.items():
        print("waits", flush=True)
        try:
            call()
        except KeyboardInterrupt:
            print(name, "interrupted", flush=True)


def test_signals():
    """Ctrl-C ends every wait, and another signal's handler is called while it goes on."""
    manager = opened()
    child = start("child_waits")
    for name in ("receive", "iteration", "wait", "open", "publish", "allocate", "async"):
        must_say(child, "waits\n")
        time.sleep(0.05)
        child.send_signal(signal.SIGUSR1)
        must_say(child, "handled\n")
        child.send_signal(signal.SIGINT)
        must_say(child, f"{name} interrupted\n")
    must_end(child)
    assert used() == (0, 1), used()
    end(manager)


def started(call, *arguments):
    """Calls it in a thread, which appends what it returned or raised to the list."""
    results = []

    def run():
        try:
            results.append(call(*arguments))
        except zerocp.Error as error:
            results.append(error.name)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.03)
    return thread, results


def test_interrupt():
    manager, other = opened(), zerocp.open(instance)
    view, same = manager.subscribe("a"), other.subscribe("a")
    threads = [started(view.receive), started(next, view), started(zerocp.wait, [view])]
    waits_on = started(same.receive)
    manager.interrupt()
    for thread, results in threads:
        thread.join()
        assert results == ["ZCP_ERR_INTERRUPTED"], results
    must_be_refused("ERR_INTERRUPTED", view.receive)
    manager.interrupt(False)
    assert not waits_on[1]
    thread, results = started(view.receive)
    other.publisher("a").notify()
    for thread, results in ((thread, results), waits_on):
        thread.join()
        assert results[0].event
    other.close()
    end(manager)


def test_close_ends_waiting():
    for closed in ("view", "manager"):
        manager, other = opened(), zerocp.open(instance)
        view, publisher = manager.subscribe("a"), manager.publisher("b", depth=1, timeout=None)
        full = other.subscribe("b", reliable=True)
        publisher.notify()
        chunks = [manager.allocate(1) for _ in range(8)]
        threads = [(started(list, view), []), (started(view.receive), "ZCP_ERR_CLOSED")]
        if closed == "view":
            view.close()
        else:
            threads.append((started(publisher.notify), "ZCP_ERR_CLOSED"))
            threads.append((started(lambda: manager.allocate(1, timeout=None)), "ZCP_ERR_CLOSED"))
            manager.close()
        for (thread, results), result in threads:
            thread.join()
            assert results == [result], (results, result)
        chunks.clear()
        other.close()
        manager.close()
        assert used() == (0, 0), used()
    zerocp.destroy(instance)


# ----------------------------------------------------------------------------------------------------------------------
# async for


def run(coroutine):
    asyncio.run(coroutine, debug=False)  # which would tell how slow this machine is


def test_async():
    manager = opened(4096, 40)
    publishers = [manager.publisher(name) for name in "ab"]
    views = [manager.subscribe(name, reliable=True) for name in "ab"]
    received, ticks = {view: [] for view in views}, []

    async def read(view):
        async for frame in view:
            received[view].append((frame.number, value_of(frame)))
            if frame.number % 7 == 0:
                await asyncio.sleep(0.001)

    async def main():
        readers = [asyncio.ensure_future(read(view)) for view in views]
        for i in range(20):
            for publisher in publishers:
                publish(publisher, i)
            if i % 4 == 3:
                await asyncio.sleep(0.003)
        while any(len(numbers) < 20 for numbers in received.values()):
            await asyncio.sleep(0.001)
        views[0].close()
        await readers[0]
        views[1].close()
        await readers[1]

        # Two of the same: each message to one of them.
        view, numbers = manager.subscribe("a", reliable=True), []

        async def share():
            async for frame in view:
                numbers.append(frame.number)

        readers = [asyncio.ensure_future(share()), asyncio.ensure_future(share())]
        for i in range(6):
            await asyncio.sleep(0.002)
            publish(publishers[0], i)
        while len(numbers) < 6:
            await asyncio.sleep(0.001)
        later(manager.close)  # from another thread
        await asyncio.gather(*readers)
        assert numbers == list(range(21, 27)), numbers

    before = os.listdir("/proc/self/fd")
    run(main())
    assert all(numbers == [(i + 1, i) for i in range(20)] for numbers in received.values()), received
    join_threads()
    assert len(os.listdir("/proc/self/fd")) < len(before)
    assert used() == (0, 0), used()
    zerocp.destroy(instance)


def test_async_is_fair_and_loses_nothing():
    """Others of the loop run beside whoever finds messages all the time; and who is cancelled there loses none."""
    manager = opened(ring_cells=256)
    publisher, view = manager.publisher("a", depth=256), manager.subscribe("a", reliable=True)
    seen, ticks = [], []
    for i in range(200):
        publisher.notify()

    async def tick():
        while len(ticks) < 1000:
            ticks.append(len(seen))
            await asyncio.sleep(0)

    async def read():
        async for frame in view:
            seen.append(frame.number)
            time.sleep(0.001)

    async def main():
        ticker = asyncio.ensure_future(tick())
        while len(seen) < 200:
            reader = asyncio.ensure_future(read())
            before = len(ticks)
            while len(ticks) < before + 5 and len(seen) < 200:
                await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait([reader])
        ticker.cancel()

    run(main())
    assert seen == list(range(1, 201)), seen
    assert len(set(ticks)) > 5, ticks
    end(manager)


# ----------------------------------------------------------------------------------------------------------------------
# Topics where processes fork, end and are listed


def test_fork_topics():
    manager = opened(4096, 20)
    publisher, view = manager.publisher("a"), manager.subscribe("a")
    busy, never = manager.subscribe("b"), manager.subscribe("c")
    waiting = started(busy.receive)  # its lock is held now
    for i in range(3):
        publish(publisher, 5)
    frame, array, descriptor = view.receive(0), view.receive(0).array(), never.fileno()

    def child():
        assert bytes_of(array) == bytes(100)
        for ask in (publisher.notify, view.receive, lambda: next(view), view.fileno, busy.receive, frame.view,
                    lambda: frame.size, lambda: frame.token, lambda: zerocp.wait([view]), lambda: publisher.loan(1),
                    lambda: publisher.publish(frame), manager.topics, manager.chunks, manager.interrupt,
                    lambda: manager.publisher("a"), lambda: manager.subscribe("a"),
                    lambda: asyncio.run(view.__anext__())):
            must_be_refused("ERR_FORKED", ask)
        for one in (view, busy, never, publisher):
            one.close()
        manager.close()
        os.fstat(descriptor)  # the parent's
        own = zerocp.open(instance)
        assert own.subscribe("a", history=1).receive(0).number == 3
        own.close()
        zerocp._close_all()

    fork(child)
    assert frame.number == 1 and value_of(frame) == 5 and (array == 5).all()
    assert view.receive(0).number == 3 and publish(publisher, 4).subscribers == 1
    manager.publisher("b").notify()
    waiting[0].join()
    assert waiting[1][0].event
    del frame, array, waiting
    end(manager)


def child_ends_with_topics():
    """While threads wait, with frames that are still there."""
    global kept
    manager = zerocp.open(instance)
    views = [manager.subscribe("a", history=3) for _ in range(3)]
    kept = [views[0].receive(0), views[0].receive(0).array()]
    for view in views:
        threading.Thread(target=list, args=(view,), daemon=True).start()
    time.sleep(0.05)
    if sys.argv[3] == "waiting":
        kept.clear()
        return
    publisher = manager.publisher("c", depth=4, keep=4)
    publish(publisher, 3)
    publish(publisher, 4)


def test_exit_with_topics():
    """Nobody has to sweep after it, but for what its arrays held; and what it has published arrives."""
    manager = opened(4096, 20)
    publisher, view = manager.publisher("a", keep=3), manager.subscribe("c", reliable=True)
    for i in range(3):
        publish(publisher, i)
    for again in range(2):
        must_end(start("child_ends_with_topics", "waiting"))
        assert used() == (3, 1), used()
        assert manager.recover() == (0, 0)
        must_end(start("child_ends_with_topics", "with arrays and messages"))
        manager.recover()
        assert [value_of(view.receive(0)) for _ in range(2)] == [3, 4]
        must_be_refused("ERR_EMPTY", view.receive, 0)
        manager.recover()
        assert used() == (3, 1), used()
    end(manager)


def test_listing():
    manager = opened()
    publisher, view = manager.publisher("a/b", depth=4, keep=1), manager.subscribe("a/b", reliable=True)
    for i in range(3):
        publish(publisher, i)
    view.receive(0)
    publishes, subscribes = manager.topics()
    assert (publishes.topic, publishes.publisher, publishes.reliable, publishes.ended) == ("a/b", True, False, False)
    assert (publishes.client, publishes.depth, publishes.keep) == (0, 4, 1)
    assert (publishes.messages, publishes.unread, publishes.held) == (3, 2, 3) and publishes.source > 0
    assert (subscribes.topic, subscribes.publisher) == ("a/b", False)
    assert (subscribes.reliable, subscribes.ended) == (True, False)
    assert (subscribes.client, subscribes.messages, subscribes.unread) == (0, 1, 2)
    with observed() as observer:
        assert observer.topics() == [publishes, subscribes]
        assert sorted(one.size for one in observer.chunks()) == [100, 100, 100]
    many = [manager.allocate(7, tag=100 + i) for i in range(5)]
    chunks = {one.tag: one for one in manager.chunks()}
    assert len(chunks) == 6 and all(chunks[100 + i].token in (0, many[i].token) for i in range(5))
    assert chunks[100].size == 7 and chunks[100].owner == 0 and chunks[100].borrower_mask == (0,) * 16
    many.clear()
    views = [manager.subscribe(f"topic {i}") for i in range(31)]
    listed = manager.topics()
    assert {one.topic for one in listed} == {"a/b"} | {view.topic for view in views} and len(listed) == 33
    del views
    assert len(manager.topics()) == 2
    end(manager)


def test_threads_share_topics():
    """Each message to one of the threads that share a subscriber, while others come and go."""
    manager = opened(4096, 64)
    publisher, view = manager.publisher("a", timeout=None), manager.subscribe("a", reliable=True)
    numbers, failures, done, calls, call = [], [], threading.Event(), {}, zerocp._call

    def watched(name, pointer, *arguments):
        """One thread at a time is in a publisher or subscriber."""
        if not name.startswith("zcp_library_"):
            return call(name, pointer, *arguments)
        assert calls.setdefault(pointer, threading.get_ident()) == threading.get_ident(), name
        try:
            return call(name, pointer, *arguments)
        finally:
            del calls[pointer]

    def attempt(work):
        def run():
            try:
                work()
            except BaseException as error:
                failures.append(error)
        return threading.Thread(target=run)

    def read():
        for frame in view:
            array = frame.array()
            assert (array == frame.number % 7).all()
            numbers.append(frame.number)

    def write():
        for _ in range(150):
            with lock:
                chunk = publisher.loan(100)
                number[0] += 1
                chunk.array()[:] = number[0] % 7
                assert publisher.publish(chunk).number == number[0]

    def come_and_go():
        while not done.is_set():
            try:
                with zerocp.open(instance) as own:
                    one = own.subscribe("a", history=3)
                    later(own.close, 0.002)
                    for frame in one:
                        assert value_of(frame) == frame.number % 7
            except zerocp.Closed:
                pass

    zerocp._call = watched
    lock, number = threading.Lock(), [0]
    readers, writers = [attempt(read) for _ in range(3)], [attempt(write) for _ in range(2)]
    others = [attempt(come_and_go) for _ in range(2)]
    for thread in readers + writers + others:
        thread.start()
    for thread in writers:
        thread.join()
    while len(numbers) < 300 and not failures:
        time.sleep(0.001)
    done.set()
    view.close()
    for thread in readers + others:
        thread.join()
    assert not failures, failures
    zerocp._call = call
    assert sorted(numbers) == list(range(1, 301))
    end(manager)


# ----------------------------------------------------------------------------------------------------------------------
# The pipeline's consumer in Python, tests/demo/consumer.py: its producer here is one that says what it has published,
# and is told what to do.

WIDTH, HEIGHT = 64, 16


def child_produces():
    """Draws a frame for each line, or one that is wrong, or says that it has ended."""
    manager = zerocp.open(instance)
    producer, black = (int.from_bytes(os.urandom(8), sys.byteorder) for _ in range(2))
    calibration = manager.publisher("camera/calibration", depth=1, keep=1, exclusive=True)
    frames = manager.publisher("camera/frames", depth=4, exclusive=True, timeout=None)
    chunk = calibration.loan(16)
    chunk.array(2, "uint64")[:] = producer, black
    calibration.publish(chunk)
    pixels = WIDTH * HEIGHT * 3
    for number, line in enumerate(sys.stdin, 1):
        if line == "end\n":
            frames.notify()
        else:
            chunk = frames.loan(32 + pixels)
            chunk.array(3, "uint64")[:] = producer, number, time.monotonic_ns()
            chunk.array(2, "uint32", 24)[:] = WIDTH, HEIGHT
            words = chunk.array(pixels // 8, "uint64", 32)
            words[:] = [(black + number * 0x9e3779b97f4a7c15 + i * 0x0101010101010101) % (1 << 64)
                        for i in range(pixels // 8)]
            words[pixels // 8 - 1] ^= zerocp.numpy.uint64(line == "wrong\n")
            del words
            assert frames.publish(chunk).number == number
        print("published", line, end="", flush=True)


def start_consumer(*options):
    script = os.path.join(SOURCE, "tests", "demo", "consumer.py")
    return subprocess.Popen([sys.executable, script, "--name", instance, *options], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def await_topics(manager, consumers):
    """Until so many read frames, and none that has died."""
    while sum(one.topic == "camera/frames" and not one.publisher for one in manager.topics()) != consumers:
        time.sleep(0.01)
        manager.recover()


def test_pipeline():
    """A producer and a consumer are killed, others take over, and each frame that was published arrives."""
    manager = zerocp.open(instance, pools=[(16, 8), (32 + WIDTH * HEIGHT * 3, 16)])
    reliable, other, third = (start_consumer("--reliable") for _ in range(3))
    await_topics(manager, 3)
    first = start("child_produces")
    for _ in range(10):
        told(first, "frame")
    other.kill()
    third.send_signal(signal.SIGTERM)
    first.kill()
    first.communicate()
    other.communicate()
    text, _ = third.communicate()
    count = int(re.fullmatch(r"Read (\d+) frames of [01] producers, 0 lost, 0 skipped\n", text).group(1))
    assert third.returncode == 0 and count <= 10
    second = start("child_produces")
    late = start_consumer("--work", "1")
    await_topics(manager, 2)
    for _ in range(10):
        told(second, "frame")
    told(second, "end")
    must_end(reliable, "Read 20 frames of 2 producers, 0 lost, 0 skipped\n")
    text, _ = late.communicate()
    read, lost = map(int, re.fullmatch(r"Read (\d+) frames of 1 producers, (\d+) lost, 0 skipped\n", text).groups())
    assert late.returncode == 0 and read + lost == 10
    wrong = start_consumer("--frames", "5", "--reliable")
    await_topics(manager, 1)
    told(second, "frame")
    told(second, "wrong")
    must_end(wrong, "consumer.py: frame 13 is wrong\n", 1)
    second.communicate()
    manager.recover()
    assert used() == (0, 1), used()
    end(manager)


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
    view = manager.subscribe("a")
    publisher = manager.publisher("a")
    publisher.publish(chunk)
    received = view.receive().array((2, 3), "float64", 8)
    del view, publisher
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
        for name in sys.argv[1].split():
            globals()["test_" + name]()


main()
