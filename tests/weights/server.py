"""A server of files on the loopback that can fail in the ways of a real network."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator


class Site:
    """What a server has, what it is asked for, and what goes wrong.

    Attributes:
        files: path -> content.
        asked: (path, value of Range or None) of every request.
        cut: numbers of bytes after which the next answers end, one for each answer.
        status: errors that the next requests get, one for each.
        tag: ETag of all files.
        ranges: whether parts are served.
    """

    def __init__(self):
        """Have nothing yet."""
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: list[int] = []
        self.status: list[int] = []
        self.tag = '"1"'
        self.ranges = True
        self.address = ""


@contextlib.contextmanager
def serve() -> Iterator[Site]:
    """Serve a `Site` until the end."""
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Print nothing."""

        def do_GET(self):
            range_ = self.headers.get("Range")
            site.asked.append((self.path, range_))
            if site.status or self.path not in site.files:
                return self.send_error(site.status.pop(0) if site.status else 404)
            data, begin = site.files[self.path], 0
            same = self.headers.get("If-Range") in (None, site.tag)
            if range_ and site.ranges and same:
                begin = int(range_.removeprefix("bytes=").removesuffix("-"))
                if begin > len(data):
                    return self.send_error(416)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            if site.tag:
                self.send_header("ETag", site.tag)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            if site.cut:
                self.wfile.write(data[begin : begin + site.cut.pop(0)])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            else:
                self.wfile.write(data[begin:])
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        site.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
