"""Lines between rank 0 and every other rank, beside the process group: for the watchdog, which must
never wait.

A star of TCP connections with rank 0, the hub, in the middle. A message is one line of JSON, a list
or an object. A connection begins with a word that only this launch knows. Nothing here blocks for
longer than it is told: a rank that does not read loses messages, and a rank that ends is noticed by
its closed connection.

torch's own store does not do for this: a call of its clients waits for ever when rank 0 is stopped,
and prints the stack of C++ when rank 0 has ended first.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import Any

Message = Any
Received = list[tuple[int, Message]]
#: The hub, as `send` and `Received` call it.
HUB = 0
_LINE_BYTES = 1 << 16
_WAITING_BYTES = 1 << 18
#: Ranks that may call at once; the kernel takes fewer where it is told to.
_BACKLOG = 4096
_CONNECT_SECONDS = 3.0
#: Time between two tries to reach the hub.
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Address:
    """Where the hub listens, and the word that its callers begin with."""

    host: str
    port: int
    secret: str


@dataclass
class _Line:
    """One connection; `rank` is None until the caller has said the word."""

    socket: socket.socket
    rank: int | None
    read: bytearray = field(default_factory=bytearray)
    waiting: bytearray = field(default_factory=bytearray)

    def pull(self) -> list[Message] | None:
        """What has come since the last call;
        None when the other end has closed, or talks nonsense.
        """
        try:
            chunk = self.socket.recv(_LINE_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not chunk:
            return None
        self.read += chunk
        *lines, rest = self.read.split(b"\n")
        self.read = bytearray(rest)
        if len(rest) > _LINE_BYTES:
            return None
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            return None

    def push(self, message: Message | None = None) -> None:
        """Send, or keep for later what does not go out now;
        what a sleeper does not read is lost beyond a bound.
        """
        if message is not None and len(self.waiting) < _WAITING_BYTES:
            self.waiting += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with contextlib.suppress(OSError):  # a closed connection is noticed by reading
            sent = self.socket.send(self.waiting)
            del self.waiting[:sent]


class Channel:
    """This rank's end of the star. One thread uses it; `wake` may be called from any."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ear, self._mouth = socket.socketpair()
        for end in (self._ear, self._mouth):
            end.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._lines: dict[int, _Line] = {}
        self.woken = b""
        #: Rank -> when its connection was lost, of the monotonic clock. It may come back.
        self.lost: dict[int, float] = {}

    @property
    def wake_descriptor(self) -> int:
        """Writing a byte here ends a `poll`; the bytes are collected in `woken`."""
        return self._mouth.fileno()

    def wake(self) -> None:
        """End the `poll` that is under way."""
        with contextlib.suppress(OSError):
            os.write(self.wake_descriptor, b"\0")

    def send(self, message: Message) -> None:
        """To every rank at the other ends: from the hub to all, from the others to the hub."""
        for line in self._lines.values():
            line.push(message)

    def poll(self, seconds: float) -> Received:
        """Wait up to `seconds` for something to come; what came, with its sender."""
        received: Received = []
        for key, _ in self._selector.select(max(seconds, 0.0)):
            if key.fileobj is self._ear:
                with contextlib.suppress(OSError):
                    self.woken += self._ear.recv(4096)
            else:
                received += self._readable(key)
        for line in self._lines.values():
            if line.waiting:
                line.push()
        return received

    def _readable(self, key: selectors.SelectorKey) -> Received:
        line: _Line = key.data
        messages = line.pull()
        if messages is None:
            self._drop(line)
            return []
        assert line.rank is not None
        return [(line.rank, message) for message in messages]

    def _add(self, line: _Line) -> None:
        line.socket.setblocking(False)
        with contextlib.suppress(OSError):
            line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(line.socket, selectors.EVENT_READ, line)
        if line.rank is not None:
            self._known(line, line.rank)

    def _known(self, line: _Line, rank: int) -> None:
        if rank in self._lines:
            self._drop(self._lines[rank])
        line.rank = rank
        self._lines[rank] = line
        self.lost.pop(rank, None)

    def _drop(self, line: _Line) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(line.socket)
        line.socket.close()
        if line.rank is not None and self._lines.get(line.rank) is line:
            del self._lines[line.rank]
            self.lost[line.rank] = time.monotonic()

    def close(self) -> None:
        """Send what still waits, as far as it goes at once, and let go of everything."""
        for line in list(self._lines.values()):
            line.push()
            self._drop(line)
        self._selector.close()
        self._ear.close()
        self._mouth.close()


class Hub(Channel):
    """Rank 0's end."""

    def __init__(self, host: str, secret: str, world_size: int) -> None:
        super().__init__()
        if socket.has_dualstack_ipv6():
            family = socket.AF_INET6
        else:
            family = socket.AF_INET
        self._listener = socket.create_server(
            ("", 0), family=family, backlog=_BACKLOG, dualstack_ipv6=family == socket.AF_INET6
        )
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._world_size = world_size
        self.address = Address(host, self._listener.getsockname()[1], secret)

    def _readable(self, key: selectors.SelectorKey) -> Received:
        if key.fileobj is self._listener:
            with contextlib.suppress(OSError):
                self._add(_Line(self._listener.accept()[0], None))
            return []
        line: _Line = key.data
        if line.rank is not None:
            return super()._readable(key)
        messages = line.pull()
        if messages is None or (messages and not self._greets(line, messages[0])):
            self._drop(line)
            return []
        return _received(line, messages[1:])

    def _greets(self, line: _Line, message: Message) -> bool:
        """Whether a caller begins as a rank of this launch does."""
        if not isinstance(message, list) or len(message) != 2 or not isinstance(message[1], int):
            return False
        if not hmac.compare_digest(str(message[0]).encode(), self.address.secret.encode()):
            return False
        if not 0 < message[1] < self._world_size:
            return False
        self._known(line, message[1])
        return True

    def close(self) -> None:
        """Also stop listening."""
        self._listener.close()
        super().close()


def _received(line: _Line, messages: list[Message]) -> Received:
    """Messages with the rank that sent them; none of a caller that has not said who it is."""
    if line.rank is None:
        return []
    return [(line.rank, message) for message in messages]


class Spoke(Channel):
    """The end of any other rank; comes back by itself when the connection is lost."""

    def __init__(self, rank: int, address: Address) -> None:
        super().__init__()
        self._rank = rank
        self._address = address
        self._next_try = 0.0
        self.lost[HUB] = time.monotonic()

    def poll(self, seconds: float) -> Received:
        """As above, and reach for the hub where the connection is lost."""
        if HUB in self.lost and time.monotonic() >= self._next_try:
            self._connect()
            self._next_try = time.monotonic() + _RETRY_SECONDS
        return super().poll(min(seconds, _RETRY_SECONDS) if HUB in self.lost else seconds)

    def _connect(self) -> None:
        try:
            connection = socket.create_connection(
                (self._address.host, self._address.port), _CONNECT_SECONDS
            )
        except OSError:
            return
        line = _Line(connection, HUB)
        self._add(line)
        line.push([self._address.secret, self._rank])
