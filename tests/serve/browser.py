"""A browser without a window, told what to do through a pipe, as its developer tools do it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.evaluation.pages import chromium

_SECONDS = 60.0


class Page:
    """A page that is open.

    Attributes:
        said: what the page wrote to its console, and what its policy refused.
    """

    def __init__(self, told: int, tells: int):
        self._told, self._tells = told, tells
        self._number = 0
        self._session: str | None = None
        self._rest = b""
        self.said: list[str] = []

    def open(self, url: str) -> None:
        """Open an address, and wait until it is there."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for part in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{part}.enable")
        self.call("Page.navigate", url=url)
        self.wait_until("document.readyState === 'complete'")

    def call(self, method: str, **parameters) -> dict:
        """Give one order and return the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._told, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def value(self, expression: str):
        """Return the value of a JavaScript expression on the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_until(self, expression: str, limit: float = _SECONDS) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + limit
        while not self.value(expression):
            assert time.monotonic() < deadline, f"{expression}; said: {self.said}"
            time.sleep(0.05)

    def drop(self, file: Path, element: str) -> None:
        """Drop a file on an element, as somebody with a mouse does."""
        box = self.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector('{element}').getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=box[0], y=box[1], data=data)

    def picture(self) -> bytes:
        """Return a PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            assert select.select([self._tells], [], [], _SECONDS)[0], "the browser says nothing"
            part = os.read(self._tells, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        if event.get("method") == "Log.entryAdded":
            self.said.append(event["params"]["entry"]["text"])
        if event.get("method") == "Runtime.exceptionThrown":
            self.said.append(json.dumps(event["params"]["exceptionDetails"])[:500])


@contextlib.contextmanager
def browser(profile: Path, *, width: int = 1100, height: int = 800) -> Iterator[Page]:
    """Start a browser, or skip the test where there is none.

    Args:
        profile: an empty folder for its files.
        width, height: of its window.
    """
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--remote-debugging-pipe", "--disable-background-networking", "--no-first-run"]
    command += [f"--user-data-dir={profile}", f"--window-size={width},{height}"]
    from_us, told = os.pipe()
    tells, to_us = os.pipe()
    # The browser reads from 3 and writes to 4.
    shell = f'exec "$@" 3<&{from_us} 4>&{to_us} 2>/dev/null'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *command],
        pass_fds=(from_us, to_us),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(from_us)
    os.close(to_us)
    page = Page(told, tells)
    try:
        yield page
    finally:
        with contextlib.suppress(OSError, AssertionError):
            page._session = None
            page.call("Browser.close")
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(told)
        os.close(tells)
