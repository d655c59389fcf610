"""A store of files behind HTTP, on this machine: it knows ranges, counts what is asked for, and
fails or lies when it is told to.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Store(ThreadingHTTPServer):
    """Serves the files of `folder`.

    requests  how often each name was asked for
    failures  answers with status 503 that are still to come, by name ("" for any name)
    denied    whether everything is answered with status 403
    flipped   names whose contents come with a flipped bit in the middle
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.denied = False
        self.flipped: set[str] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/shards"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_GET(self) -> None:
        name = self.path.removeprefix("/shards/")
        with self.server.lock:
            self.server.requests[name] += 1
            fails = False
            for key in (name, ""):
                if self.server.failures[key] > 0:
                    self.server.failures[key] -= 1
                    fails = True
                    break
        if self.server.denied:
            return self._answer(403, b"")
        if fails:
            return self._answer(503, b"")
        path = self.server.folder / name
        if not path.is_file():
            return self._answer(404, b"")
        return self._content(path)

    def _content(self, path: Path) -> None:
        content = path.read_bytes()
        status = 200
        wanted = self.headers.get("Range", "")
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            if int(first) >= len(content):
                self._answer(416, b"")
                return
            content = content[int(first) : int(last) + 1]
            status = 206
        if path.name in self.server.flipped:
            changed = bytearray(content)
            changed[len(changed) // 2] ^= 1
            content = bytes(changed)
        self._answer(status, content)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    """A store of `folder` while the block runs."""
    store = Store(folder)
    thread = threading.Thread(target=store.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        store.server_close()
