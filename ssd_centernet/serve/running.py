"""The server: its socket, its connections with their deadlines, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssd_centernet.data.images import pillow_limit
from ssd_centernet.data_service.addresses import is_loopback
from ssd_centernet.runtime import signals
from ssd_centernet.serve.app import App
from ssd_centernet.serve.batching import Batcher
from ssd_centernet.serve.engine import Engine
from ssd_centernet.serve.settings import Settings

# Of a connection without a request; browsers keep one for the next.
_KEEP_ALIVE_SECONDS = 5
# To send an answer that is ready, beyond the seconds of the request.
_SENDING_SECONDS = 10.0
_LOOK_EVERY = 0.5
# h11 refuses a head that is larger.
_HEAD_BYTES = 32 * 2**10


def listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Args:
        host: an address, or localhost.
        port: its number; 0 takes a free one.

    Raises:
        OSError: the port is taken, or the address is none of this machine; the message says so.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
    except OSError as error:
        raise OSError(f"--host={host} is no address of this machine ({error.strerror}).") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "another program has it: give another one, or 0 for any that is free"
        raise OSError(
            f"--port={port} of {host} cannot be opened: {reason if taken else error.strerror}."
        ) from error
    return listener


def serve(
    app: App,
    engine: Engine,
    listener: socket.socket,
    settings: Settings,
    *,
    started: Callable[[], None] = lambda: None,
) -> int:
    """Answer requests until a signal comes, and then those that were accepted.

    Args:
        app: the application.
        engine: its detector, warm.
        listener: an open port, which is closed.
        settings: what is allowed.
        started: called once requests are answered.

    Returns:
        How many requests were left without an answer, because the time to stop was over.

    Raises:
        ImportError: uvicorn is not installed.
    """
    server = _server(app, settings)

    def stop(_number: int) -> None:
        app.stopping = True
        server.should_exit = True

    with signals.noted(stop, "answers what it has accepted"), pillow_limit(None):
        return asyncio.run(_serve(server, app, engine, listener, settings, started))


def _server(app: App, settings: Settings):
    import uvicorn

    # As of uvicorn's below: what it says of a damaged form is of whoever sent it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)

    class Server(uvicorn.Server):
        """A server that leaves signals to the command that runs it."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            # Warnings are of each client that sends nonsense: as many as clients like.
            log_level="error",
            log_config=None,
            access_log=False,
            server_header=False,
            # What a request says of other addresses is believed of nobody.
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
    )


async def _serve(server, app: App, engine: Engine, listener, settings, started) -> int:
    batcher = app.batcher = Batcher(
        engine,
        max_pixels=settings.max_pixels,
        max_wait=settings.max_wait,
        observer=app.metrics,
    )
    batcher.start()
    app.connections = lambda: len(server.server_state.connections)
    loop = asyncio.get_running_loop()
    watch = loop.create_task(_watch_connections(server, settings))
    tell = loop.create_task(_when_started(server, started))
    end = loop.create_task(_end_in_time(server, app, settings))
    try:
        await server.serve(sockets=[listener])
        return app.unanswered
    finally:
        for task in (watch, tell, end):
            task.cancel()
        await batcher.stop()


async def _when_started(server, started: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    started()


async def _end_in_time(server, app: App, settings: Settings) -> None:
    """Once a signal has come, give requests their time, and then give them up."""
    while not app.stopping:
        await asyncio.sleep(0.1)
    with signals.unhurried(settings.stop_seconds + 1):
        await asyncio.sleep(settings.stop_seconds)
        app.unanswered = app.waiting
        for task in list(server.server_state.tasks):
            task.cancel()
        await asyncio.sleep(0.2)  # For the answer that says so.
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.force_exit = True


@dataclasses.dataclass
class _Seen:
    """A connection as it was looked at last: its request, whether it runs, and since when."""

    request: Any
    runs: bool
    since: float


async def _watch_connections(server, settings: Settings) -> None:
    """End connections that send no request in time, and those that do not take their answer.

    The server has no deadline for the head of a request, and waits for ever where an answer is not
    read.
    """
    seen: dict[Any, _Seen] = {}
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        now = time.monotonic()
        connections = list(server.server_state.connections)
        seen = {one: seen[one] for one in connections if one in seen}
        for one in connections:
            request = one.cycle
            runs = request is not None and not request.response_complete
            last = seen.get(one)
            if last is None or last.request is not request or last.runs != runs:
                seen[one] = _Seen(request, runs, now)
                continue
            most = settings.seconds + _SENDING_SECONDS if runs else settings.head_seconds
            if now - last.since > most:
                one.transport.abort()
        idle = sorted(
            (one for one in connections if not seen[one].runs), key=lambda c: seen[c].since
        )
        for one in idle[: max(0, len(connections) - settings.max_connections)]:
            one.transport.abort()


def warning_of(host: str, port: int) -> str | None:
    """Return what to tell somebody whose server others can reach; None for this machine alone."""
    if is_loopback(host):
        return None
    return (
        f"whoever reaches port {port} of {host} can use this server and read its page: it asks "
        "nobody for a password and encrypts nothing. Put a proxy with TLS and credentials in front "
        "of it, or leave --host out."
    )
