"""A Python that has imported TensorFlow already: every program that it runs is a fork of it.

A fresh interpreter takes four seconds of imports before a command begins. Here a server imports the
library once, starts nothing in TensorFlow, and forks for each program: a process of its own, with
the directory, environment and files of the one who asked.

    with warm_python() as python:
        run(python, "-m", "ssd_centernet", "train", ...)
        run(without_ours(python), "-m", "ssd_centernet", "train", ...)

The second is a fork of a server that has imported TensorFlow and nothing of this library: what a
command imports itself, and in which order, is that of a fresh interpreter.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

from tests.process import Running, environment

_LIBRARIES = ("tensorflow", "gin", "absl.app", "pycocotools.mask", "PIL.ImageDraw")
# Standard library alone: it starts in a few milliseconds.
_CLIENT = """#!{python} -IS
import array, json, os, socket, sys
program, *arguments = sys.argv
if not arguments or arguments[0] not in ("-c", "-m") and arguments[0][0] == "-":
    os.execv({python!r}, [{python!r}, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([[program, *arguments], os.getcwd(), dict(os.environ)]).encode()
files = array.array("i", [0, 1, 2])
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)]
server.sendmsg([len(request).to_bytes(4, "big")], rights)
server.sendall(request)
status = server.recv(4)
sys.exit(int(status) if status else "the warm python is gone")
"""


@contextlib.contextmanager
def warm_python() -> Iterator[Path]:
    """Yield a program that takes the arguments of `python`: -c CODE, -m MODULE or a file."""
    # A socket's path may have 100 characters.
    with tempfile.TemporaryDirectory(prefix="warm") as folder:
        program = Path(folder) / "python"
        programs = (program, without_ours(program))
        addresses = [f"{one.parent}/socket" for one in programs]
        for one, address in zip(programs, addresses, strict=True):
            one.parent.mkdir(exist_ok=True)
            one.write_text(_CLIENT.format(python=sys.executable, address=address))
            # The launcher of several processes is looked for beside its python.
            launcher = one.with_name("horovodrun")
            launcher.write_text(f'#!/bin/sh\nexec {one} -m horovod.runner.launch "$@"\n')
            for file in (one, launcher):
                file.chmod(0o755)
        env = environment(TF_USE_LEGACY_KERAS="1")  # As the command line has it.
        with Running(sys.executable, "-m", "tests.warm", *addresses, env=env) as server:
            server.wait_until(lambda: all(map(os.path.exists, addresses)))
            yield program


def without_ours(program: Path) -> Path:
    """Return the program beside that of `warm_python` which has imported nothing of ours."""
    return program.parent / "libraries" / "python"


def _import_libraries() -> None:
    # The first remembers which program can inherit any file: the real one.
    for module in ("multiprocessing.spawn", *_LIBRARIES):
        importlib.import_module(module)
    assert sys.modules["tensorflow"].keras.layers  # Imported when it is first used.
    ours = [name for name in sys.modules if name.partition(".")[0] == "ssd_centernet"]
    assert not ours, f"other packages have imported {ours}"


def _import_ours() -> None:
    from ssd_centernet.config import parsing

    for module in (*parsing.MODULES, "ssd_centernet.evaluation.coco"):
        importlib.import_module(module)


def _set_apart() -> None:
    """Make forks cheap: what all of them share is not looked at, and so not copied."""
    from tensorflow.python.eager import context

    assert not context.context()._initialized, "a runtime that has started cannot be forked"
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # As tests/conftest.py.


def _receive(client: socket.socket) -> tuple[list[str], str, dict[str, str], list[int]]:
    """Read a request: the arguments, the directory, the environment and the three files."""
    files = array.array("i")
    size, rights, _, _ = client.recvmsg(4, socket.CMSG_LEN(3 * files.itemsize))
    for _, _, data in rights:
        files.frombytes(data)
    content = b""
    while len(content) < int.from_bytes(size, "big"):
        content += client.recv(1 << 16)
    return *json.loads(content), list(files)


def _become(arguments: list[str], directory: str, variables: dict[str, str]) -> None:
    """Be the program, in a process that was forked for it."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(directory)
    # What it starts as `sys.executable` is warm too.
    sys.executable, *arguments = arguments
    kind, *rest = arguments
    first = "" if kind in ("-c", "-m") else os.path.dirname(os.path.realpath(kind))
    sys.path[:0] = [first, *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


def _serve(address: str) -> tuple[list[str], str, dict[str, str]]:
    """Fork for each request for ever. Return a request in the process that was made for it."""
    _set_apart()
    events = selectors.DefaultSelector()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.new")
        listener.listen()
        os.rename(f"{address}.new", address)  # Who sees it can connect.
        events.register(listener, selectors.EVENT_READ)
        parent = os.getppid()
        while True:
            found = events.select(timeout=10)
            if not found:
                if os.getppid() != parent:
                    sys.exit("the tests were killed: nobody asks any more")
                continue
            key = found[0][0]
            if key.fileobj is not listener:
                _end(events, *key.data, gone=key.fileobj is key.data[1])
                continue
            client, _ = listener.accept()
            *request, files = _receive(client)
            pid = os.fork()
            if not pid:
                events.close()
                client.close()
                break
            for file in files:
                os.close(file)
            ended = os.pidfd_open(pid)
            for one in (client, ended):
                events.register(one, selectors.EVENT_READ, (pid, client, ended))
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    return tuple(request)


def _end(events, pid: int, client: socket.socket, ended: int, *, gone: bool) -> None:
    """Tell who asked how a program ended; end it where nobody waits for it any more."""
    if gone:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    events.unregister(client)
    events.unregister(ended)
    os.close(ended)
    with contextlib.suppress(OSError):
        client.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    client.close()


def _main(address: str, address_without_ours: str) -> None:
    _import_libraries()
    if os.fork():
        address = address_without_ours
    else:
        _import_ours()
    request = _serve(address)
    status = 0
    try:
        _become(*request)
    except SystemExit as end:
        status = end.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    # To take down thousands of modules one by one would take a second.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
