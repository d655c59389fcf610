"""The loader: whole steps (`steps`), made ahead by a process of its own (`feeder`), taken from
shared memory (`ring`).

A thread would share the interpreter's lock with the training loop, which has to start the work of a
GPU: small rows at 2 million tokens/s took half of the loop's speed. One process for each rank; it
has no torch, and ends with the rank.

The state is that of the last step *consumed*.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from electra_dist import errors
from electra_dist.batch import Step
from electra_dist.config import Config
from electra_dist.data.loading.feeder import END, FILLED, Work
from electra_dist.data.loading.ring import Ring, anonymous_memory
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.shards.reading import sign_of_data
from electra_dist.data.skips import Interval
from electra_dist.data.steps import first_state
from electra_dist.data.streams import LoaderState
from electra_dist.errors import LoaderDiedError, UserError
from electra_dist.parallel import early

#: The module whose `main` is the process.
FEEDER = "electra_dist.data.loading.feeder"
#: Between two looks whether a step that does not come is still wanted; for the process to end.
_WAIT_SECONDS = 0.2
_CLOSE_SECONDS = 2.0


class TrainLoader:
    """The steps of a `StepSource`, whose arguments it takes; made ahead by a process.

    Raises what `first_state` raises, at once; what goes wrong in the process is raised by the next
    `next`: the errors that it raises there, and `LoaderDiedError` when it ends without a word. Use
    it as a context manager, or call `close`. A step is the caller's own, for as long as it likes.
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        rank: int,
        world_size: int,
        state: LoaderState | None = None,
        skipped: Iterable[Interval] = (),
        steps: int | None = None,
    ) -> None:
        self.state = first_state(config, manifest, rank, world_size, state)
        self._ring = Ring(config, rank, world_size, self.state.order)
        # the slot that is read next; those that are to be given back
        self._slot = 0
        self._owed = 0
        self._closed = False
        handle = manifest.to_handle()
        work = Work(config, handle, rank, world_size, self.state, tuple(skipped), steps)
        self._start(work)

    def _start(self, work: Work) -> None:
        memory = anonymous_memory(self._ring.bytes)
        here, there = socket.socketpair()
        try:
            self._ring.open(memory, writable=False)
            code = f"from {FEEDER} import main; main()"
            numbers = (memory, there.fileno(), os.getpid())
            with _deaf():
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", code, *map(str, numbers)],
                    env=_environment(),
                    pass_fds=(memory, there.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
        finally:
            os.close(memory)
            there.close()
        # it has ended: `next` says so
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            here.sendall(work.to_json() + b"\n")
        here.settimeout(_WAIT_SECONDS)
        self._socket = here

    @property
    def pid(self) -> int:
        """Of the process that makes the steps."""
        return self._process.pid

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        step = self.next_unless(lambda: False)
        assert step is not None
        return step

    def next_unless(self, asked_to_end: Callable[[], bool]) -> Step | None:
        """The next step; None as soon as `asked_to_end` says so and no step is ready, however long
        the data take.

        Raises what `next` raises.
        """
        if self._closed:
            raise StopIteration
        word = self._hear(asked_to_end)
        if word is None:
            return None
        if word == FILLED:
            return self._take()
        try:
            if word == END:
                raise StopIteration
            raise self._error() if word else self._death()
        finally:
            self.close()

    def is_ready(self) -> bool:
        """Whether `next` would not wait: a step is there, or an error, or the end."""
        poll = select.poll()  # `select.select` knows only the first 1,024 files of a process
        if not self._closed:
            poll.register(self._socket, select.POLLIN)
        return self._closed or bool(poll.poll(0))

    def _hear(self, asked_to_end: Callable[[], bool]) -> bytes | None:
        """The letter that comes next; nothing when the process is gone,
        None when nobody wants to wait any more.
        """
        seen = None
        while True:
            try:
                return self._socket.recv(1)
            except TimeoutError:
                count, note = self._ring.read_note()
                if note and count != seen:
                    seen = count
                    sign_of_data(note)
                if asked_to_end():
                    return None
            except ConnectionResetError:
                return b""

    def _take(self) -> Step:
        """The step in the next slot, which is then free again."""
        step, self.state = self._ring.read(self._slot)
        self._slot = (self._slot + 1) % len(self._ring)
        self._owed += 1
        # the process has ended, or is stopped and takes no more just now
        with contextlib.suppress(OSError):
            self._owed -= self._socket.send(b"f" * self._owed)
        return step

    def _error(self) -> Exception:
        """What the process has said of its error."""
        content = b""
        with contextlib.suppress(OSError):
            while part := self._socket.recv(65_536):
                content += part
        try:
            said = json.loads(content)
        except ValueError:
            return self._death()
        return _rebuilt(**said)

    def _death(self) -> LoaderDiedError:
        """The process has ended without a word."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)
        status = self._process.returncode
        how = f"exit status {status}; what it has printed is in the log of this rank"
        if status is None:
            how = "it closed its socket"
        elif status < 0:
            how = f"{signal.Signals(-status).name}; has the machine run out of memory?"
        return LoaderDiedError(
            f"the process that loads the data ({self.pid}) has ended by itself: {how}. Start again:"
            " training goes on from the last checkpoint"
        )

    def close(self) -> None:
        """End the process and wait for it, not for ever: it may be reading from a file system that
        is gone.

        More calls do nothing.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for end in (self._process.kill, lambda: None):
            try:
                self._process.wait(_CLOSE_SECONDS)
                return
            except subprocess.TimeoutExpired:
                end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started in here never hears the signals that ask a run to end;
    this one hears them later.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, early.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment() -> dict[str, str]:
    """Modules are found where this process finds them; one thread: there are no matrices."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return dict(os.environ) | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _rebuilt(kind: str, message: str, trace: str) -> Exception:
    """The error of the process: one of ours as it was,
    any other as a `RuntimeError` that shows where it came from.
    """
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, UserError):
        return found(message)
    return RuntimeError(f"in the process that loads the data:\n{trace}")
