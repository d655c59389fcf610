"""The loader's own process: makes steps ahead and puts them into shared memory, for the process
that trains.

    python -c "from electra_dist.data.loading.feeder import main; main()" MEMORY SOCKET PARENT

`loader.TrainLoader` starts it; the numbers are two descriptors that it inherits, and the process
that trains. Over the socket it hears its `Work`, and then one byte for each slot that may be filled
again. It says one letter for each slot that it has filled, in turn; one at the end of the steps; or
one for an error, with the error behind it. It knows no torch, so that it starts in a quarter of a
second and takes little memory.

It ends when the process that trains is gone or has closed the socket, whatever it is doing. The
signals that ask a run to end are blocked here from its first instruction on: steps are wanted until
training is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from electra_dist.data.lanes import LaneLayout
from electra_dist.data.loading.ring import Ring
from electra_dist.data.skips import Interval
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.data.streams import LoaderState

#: What it says: a slot is filled, the steps are over, an error follows as JSON.
FILLED = b"s"
END = b"e"
ERROR = b"x"
#: Between two looks whether the process that trains still lives,
#: where its end closes no socket (it has forked).
_LOOK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_TRACEBACK = 16_384


@dataclass(frozen=True)
class Work:
    """The arguments of a `StepSource`; `data` is the handle of the `RunData`."""

    plan: StepPlan
    layout: LaneLayout
    data: dict[str, Any]
    state: LoaderState
    skipped: tuple[Interval, ...]

    @classmethod
    def of(
        cls, plan: StepPlan, data: RunData, state: LoaderState, skipped: tuple[Interval, ...]
    ) -> Work:
        """Of open sources."""
        layout = LaneLayout.of(data, plan.streams, plan.open_blocks)
        return cls(plan, layout, data.to_handle(), state, skipped)

    def to_json(self) -> bytes:
        """In one line."""
        content = {
            "plan": self.plan.to_json(),
            "layout": asdict(self.layout),
            "data": self.data,
            "state": self.state.to_dict(),
            "skipped": self.skipped,
        }
        return json.dumps(content).encode()

    @classmethod
    def from_json(cls, line: bytes) -> Work:
        """The inverse of `to_json`."""
        content = json.loads(line)
        layout = content["layout"]
        return cls(
            plan=StepPlan.from_json(content["plan"]),
            layout=LaneLayout(
                streams=layout["streams"],
                shares=tuple(layout["shares"]),
                blocks=tuple(layout["blocks"]),
                counts=tuple(layout["counts"]),
            ),
            data=content["data"],
            state=LoaderState.from_dict(content["state"]),
            skipped=tuple((first, stop) for first, stop in content["skipped"]),
        )


class Feeder:
    """Makes the steps of `work`, as many ahead as there are slots."""

    def __init__(self, work: Work, memory: int, channel: socket.socket, parent: int) -> None:
        self._work = work
        self._channel = channel
        self._parent = parent
        self._ring = Ring(work.plan, work.layout, work.state.order)
        self._ring.open(memory, writable=True)
        self._free = threading.Semaphore(len(self._ring))
        threading.Thread(target=self._listen, name="electra-dist-feeder", daemon=True).start()

    def feed(self) -> None:
        """Make steps to the last one, or to an error; both are said."""
        try:
            self._make_all()
            self._channel.sendall(END)
        except BaseException as error:  # whatever it is, the process that trains raises it
            # it is gone, or wants no more
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._channel.sendall(ERROR + error_as_json(error))

    def _make_all(self) -> None:
        work = self._work
        tell = self._ring.write_note
        source = StepSource(
            work.plan, RunData.from_handle(work.data), work.state, work.skipped, tell
        )
        number = 0
        for step in source:
            self._free.acquire()
            self._ring.write(number, step, source.state)
            self._channel.sendall(FILLED)
            number = (number + 1) % len(self._ring)

    def _listen(self) -> None:
        """In a thread: slots come back until nobody is there any more."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            if not poll.poll(1000 * _LOOK_SECONDS):
                if os.getppid() != self._parent:
                    leave()
                continue
            try:
                words = self._channel.recv(256)
            except OSError:
                leave()
            if not words:
                leave()
            self._free.release(len(words))


def leave() -> NoReturn:
    """End at once, from any thread, whatever the others do."""
    os._exit(0)


def error_as_json(error: BaseException) -> bytes:
    """The error, for `loader`, which raises it again."""
    trace = "".join(traceback.format_exception(error))[-_TRACEBACK:]
    return json.dumps(
        {"kind": type(error).__name__, "message": str(error)[:_TRACEBACK], "trace": trace}
    ).encode()


def _end_with(parent: int) -> None:
    """Hear of the parent's end also while this process is stopped:
    it goes on then, and finds that it is alone.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)
    if os.getppid() != parent:
        leave()


def main() -> None:
    """The process, from its arguments to its end."""
    memory, descriptor, parent = map(int, sys.argv[1:])
    faulthandler.enable()
    _end_with(parent)
    channel = socket.socket(fileno=descriptor)
    with channel.makefile("rb") as said:
        line = said.readline()
    if line:
        Feeder(Work.from_json(line), memory, channel, parent).feed()
