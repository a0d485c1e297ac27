"""The application: its paths, and what becomes of a request with a picture."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from PIL import Image

from ssd_centernet.drawing import visualize
from ssd_centernet.labels import LabelMap
from ssd_centernet.predict.listing import chosen, listed
from ssd_centernet.serve import forms, page
from ssd_centernet.serve.batching import Answer, Batcher
from ssd_centernet.serve.guard import HEADERS, Rates, check_host
from ssd_centernet.serve.metrics import Metrics
from ssd_centernet.serve.settings import Refused, Settings

_log = logging.getLogger(__name__)
# A drawing is to be looked at; compressing a very large one would take seconds.
_DRAWN_SIZE = 2048
_PARAMETERS = ("min_score", "classes")
# What other servers count where the client closed the connection.
_GONE = 499


class App:
    """Answer requests; an ASGI application.

    Attributes:
        waiting: requests with a picture that are being answered.
        stopping: whether new ones are refused.
        unanswered: how many were given up, because the time to stop was over.
        connections: tells how many are open.
    """

    def __init__(self, *, settings: Settings, labels: LabelMap, facts: dict[str, Any]):
        """Make the application without a detector; `batcher` is set before it is served.

        Args:
            settings: what is allowed.
            labels: names and data set ids of the classes.
            facts: of the model, as `/model` answers them.

        Raises:
            ImportError: starlette or prometheus-client is not installed.
        """
        self.waiting = 0
        self.stopping = False
        self.unanswered = 0
        self.batcher: Batcher | None = None
        self.connections: Callable[[], int] = lambda: 0
        self.metrics = Metrics(waiting=lambda: self.waiting, version=facts["version"])
        self._settings = settings
        self._labels = labels
        self._facts = facts
        self._rates = Rates(settings.max_rate)
        self._page, self._policy = page.page()
        self._app = self._routed()

    def _routed(self) -> Callable:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

        async def unknown(_request, error: HTTPException):
            return _json({"error": error.detail}, error.status_code, error.headers)

        async def refused(_request, error: Refused):
            return _refusal(error)

        async def gone(_request, _error: _GoneError):
            return _json({}, _GONE)  # Nobody reads it; the status is counted.

        self._paths = {
            "/": (self._show_page, "GET"),
            "/detect": (self._detect, "POST"),
            "/draw": (self._draw, "POST"),
            "/model": (self._tell_facts, "GET"),
            "/healthz": (self._tell_health, "GET"),
            "/readyz": (self._tell_ready, "GET"),
            "/metrics": (self._tell_metrics, "GET"),
        }
        routes = [Route(path, to, methods=[how]) for path, (to, how) in self._paths.items()]
        answers = {HTTPException: unknown, Refused: refused, _GoneError: gone}
        app = Starlette(routes=routes, exception_handlers=answers)
        app.router.redirect_slashes = False
        return app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer a request, after a look at where it comes from; count it."""
        if scope["type"] != "http":  # No web sockets are offered, and nothing is done at the start.
            return
        began = time.monotonic()
        status = None

        async def send_safely(message: dict) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                more = [(n.encode(), v.encode()) for n, v in HEADERS.items()]
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in more if pair[0] not in given),
                ]
            await send(message)

        path = scope["path"] if scope["path"] in self._paths else "other"
        try:
            check_host(_headers(scope), self._settings.hosts)
            if self.connections() > self._settings.max_connections:
                raise Refused(503, "Too many connections are open.", retry=1)
            await self._app(scope, receive, send_safely)
        except Refused as refused:
            await _refusal(refused)(scope, receive, send_safely)
        except asyncio.CancelledError:
            if status is not None or not self.stopping:
                raise
            late = Refused(503, "The server has stopped before the answer was ready.", retry=5)
            await _refusal(late)(scope, receive, send_safely)
        finally:
            self.metrics.answered(path, status or 500, time.monotonic() - began)

    # --- what has no picture ----------------------------------------------------------------

    async def _show_page(self, _request):
        from starlette.responses import HTMLResponse

        return HTMLResponse(self._page, headers={"content-security-policy": self._policy})

    async def _tell_facts(self, _request):
        return _json(self._facts)

    async def _tell_health(self, _request):
        busy = self.batcher.busy_seconds
        if busy > 2 * self._settings.seconds:
            return _json({"status": "stuck", "seconds": round(busy, 1)}, 503)
        return _json({"status": "ok"})

    async def _tell_ready(self, _request):
        return _json({"status": "stopping"}, 503) if self.stopping else _json({"status": "ready"})

    async def _tell_metrics(self, _request):
        from starlette.responses import Response

        text, kind = self.metrics.text()
        return Response(text, headers={"content-type": kind})

    # --- what has one -----------------------------------------------------------------------

    async def _detect(self, request):
        min_score, kept = self._parameters(request)

        async def work(data: bytes) -> dict:
            found = await self.batcher.detect(data)
            detections = chosen(found.detections, min_score, kept)
            told = {"model": self._facts["name"], **listed(detections, found.size, self._labels)}
            return {**told, **({"notes": found.notes} if found.notes else {})}

        return _json(await self._answered(request, work))

    async def _draw(self, request):
        from starlette.responses import Response

        min_score, kept = self._parameters(request)

        async def work(data: bytes) -> bytes:
            found = await self.batcher.detect(data)
            return await self.batcher.with_pixels(
                data, lambda picture: self._drawing(picture.pixels, found, min_score, kept)
            )

        return Response(await self._answered(request, work), media_type="image/png")

    def _drawing(self, pixels, found: Answer, min_score: float, kept: list[int] | None) -> bytes:
        if max(pixels.shape[:2]) > _DRAWN_SIZE:
            pixels = visualize.fit(pixels, _DRAWN_SIZE)
        shown = chosen(found.detections, min_score, kept)
        drawn = visualize.draw_boxes(
            pixels,
            shown["boxes"],
            labels=[self._labels.names[index] for index in shown["classes"]],
            scores=shown["scores"],
            classes=shown["classes"],
        )
        content = io.BytesIO()
        Image.fromarray(drawn).save(content, format="PNG", compress_level=1)
        return content.getvalue()

    def _parameters(self, request) -> tuple[float, list[int] | None]:
        """Read the lowest score and the classes of a request; a slip is an error."""
        given = request.query_params
        for name in given:
            if name not in _PARAMETERS:
                raise Refused(
                    400, f"There is no parameter {name!r}: expected {' and '.join(_PARAMETERS)}."
                )
            if len(given.getlist(name)) > 1:
                raise Refused(400, f"{name} is given more than once.")
        try:
            min_score = float(given.get("min_score", self._settings.min_score))
            if not 0.0 <= min_score <= 1.0:
                raise ValueError
        except ValueError:
            raise Refused(400, "min_score must be a number from 0 to 1.") from None
        if not (classes := given.get("classes")):
            return min_score, None
        try:
            return min_score, [self._labels.class_of(name) for name in classes.split(",")]
        except KeyError as error:
            raise Refused(400, error.args[0]) from None

    async def _answered(self, request, work: Callable[[bytes], Awaitable[Any]]) -> Any:
        """Give the picture of a request to a function, within all limits."""
        self._rates.take(request.client.host if request.client else "")
        if self.stopping:
            raise Refused(503, "The server is stopping.", retry=5)
        if self.waiting >= self._settings.max_waiting:
            raise Refused(503, f"{self.waiting} requests are waiting already.", retry=1)
        self.waiting += 1
        until = asyncio.get_running_loop().time() + self._settings.seconds
        try:
            data = await _body(request, self._settings.max_bytes, until)
            kind = request.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() == forms.FORM:
                data = forms.picture_of_form(data, kind)
            return await _unless_gone(request, work(data), until)
        except (Refused, _GoneError):
            raise
        except Exception as error:
            # What went wrong inside is told to who runs the server, not to who asks.
            _log.error("%s: %s: %s", request.url.path, type(error).__name__, error)
            raise Refused(500, "The detection failed; the server's log has the reason.") from error
        finally:
            self.waiting -= 1


class _GoneError(Exception):
    """The client has closed the connection."""


async def _body(request, most: int, until: float) -> bytes:
    """Read the body of a request, as far as it is allowed to go."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_long(most)
    loop, parts, size = asyncio.get_running_loop(), [], 0
    more = True
    while more:
        try:
            message = await asyncio.wait_for(request.receive(), max(0.0, until - loop.time()))
        except asyncio.TimeoutError:
            raise Refused(408, "The body did not come in time.") from None
        if message["type"] == "http.disconnect":
            raise _GoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_long(most)
        more = message.get("more_body", False)
    return b"".join(parts)


def _too_long(most: int) -> Refused:
    return Refused(413, f"The body has more than {most:,} bytes, which is the most that is taken.")


async def _unless_gone(request, work: Awaitable[Any], until: float) -> Any:
    """Wait for the work, and give it up where the client has gone or the time is over."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    loop = asyncio.get_running_loop()
    job, watch = asyncio.ensure_future(work), loop.create_task(gone())
    try:
        await asyncio.wait(
            {job, watch},
            timeout=max(0.0, until - loop.time()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if job.done():
            return job.result()
        if watch.done():
            raise _GoneError
        raise Refused(503, "The answer was not ready in time.", retry=5)
    finally:
        await _cancelled(job, watch)


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None):
    from starlette.responses import Response

    text = json.dumps(content, ensure_ascii=False) + "\n"
    return Response(text, status, headers, media_type="application/json")


def _refusal(refused: Refused):
    headers = {}
    if refused.retry is not None:
        headers["retry-after"] = str(math.ceil(refused.retry))
    return _json({"error": str(refused)}, refused.status, headers)


async def _cancelled(*tasks: asyncio.Future) -> None:
    """Cancel what still runs, and wait until it has ended."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
