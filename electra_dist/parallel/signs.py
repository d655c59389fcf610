"""Signs of life: what this process is doing, and since when. The watchdog judges by it, `status`
shows it.

In: the training thread enters a phase (`phase`, `enter`); whatever works long inside of one gives a
sign now and then (`sign`), from any thread. Out: `doing()`. One record for the process, as with
logging: a file that is being read deep inside of a library of this project has nobody to ask which
run it belongs to.

All ranks of a run enter the same phases in the same order, so `Doing.entered` says who is behind.
Needs no torch.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["meeting", "start", "data", "step", "validation", "checkpoint", "end"]
#: Steps that the usual time of a step is taken from.
_REMEMBERED = 64


@dataclass(frozen=True)
class Doing:
    """What a process is doing.

    phase          where it is; `step` optimizer steps are done
    detail         what it said of itself last, or empty
    entered        phases entered so far, the same sequence on every rank
    signs          signs given so far, phases included: while it grows, something happens
    last_sign      of the monotonic clock
    last_step      when the newest step ended, of the monotonic clock; None before the first one
    step_seconds   how long a step takes here, None before one has been measured
    """

    phase: Phase
    step: int
    detail: str
    entered: int
    signs: int
    last_sign: float
    last_step: float | None
    step_seconds: float | None


@dataclass
class _Record:
    """The state behind `doing()`; every access is under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    phase: Phase = "start"
    step: int = 0
    detail: str = ""
    entered: int = 0
    signs: int = 0
    last_sign: float = field(default_factory=time.monotonic)
    ahead: dict[Phase, str] = field(default_factory=dict)
    last_step: float | None = None
    step_began: float | None = None
    laps: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


_record = _Record()


def forget() -> None:
    """Begin anew: a second run in the same process."""
    global _record
    _record = _Record()


def enter(name: Phase, step: int | None = None) -> None:
    """The training thread is in another phase from here on;
    `step` is the number of optimizer steps done.
    """
    record = _record
    now = time.monotonic()
    with record.lock:
        if record.phase == "step" and name != "step":
            _end_step(record, now)
        if name == "data":
            record.step_began = now
        record.phase = name
        record.detail = record.ahead.pop(name, "")
        if step is not None:
            record.step = step
        record.entered += 1
        record.signs += 1
        record.last_sign = now


def _end_step(record: _Record, now: float) -> None:
    """A step is its rows and its computation;
    the first one compiles and says nothing about the next ones.
    """
    if record.last_step is not None and record.step_began is not None:
        record.laps.append(now - record.step_began)
    record.last_step = now
    record.step_began = None


@contextmanager
def phase(name: Phase, step: int | None = None) -> Iterator[None]:
    """A block that is a phase of its own; the phase around it goes on afterwards."""
    around = _record.phase
    enter(name, step)
    try:
        yield
    finally:
        enter(around)


def sign(detail: str = "", within: Phase | None = None) -> None:
    """Something has moved, as `detail` says. With `within` it counts in that phase only: a thread
    that works ahead for it says there what it is doing when the phase begins.
    """
    record = _record
    now = time.monotonic()
    with record.lock:
        if within is not None and record.phase != within:
            record.ahead[within] = detail
            return
        record.detail = detail or record.detail
        record.signs += 1
        record.last_sign = now


def doing() -> Doing:
    """What this process is doing now."""
    record = _record
    with record.lock:
        return Doing(
            record.phase,
            record.step,
            record.detail,
            record.entered,
            record.signs,
            record.last_sign,
            record.last_step,
            _usual(record.laps),
        )


def _usual(laps: deque[float]) -> float | None:
    """Seconds of a step: the median, or the mean where that is more.

    The host of a GPU runs ahead and waits once every few steps: most of its steps look short then,
    their mean is right.
    """
    if laps:
        return max(statistics.median(laps), statistics.fmean(laps))
    return None
