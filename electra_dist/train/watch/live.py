"""Where training is right now, in one line that lives: step, rate, time left, phase.

Comes in: what this process is doing (`electra_dist.parallel.signs`). Goes out: the last line of the
terminal, drawn anew each second; the same for the terminal of `launch local`, through a pipe;
elsewhere a plain line once a minute in which nothing else was printed. A thread looks at the signs:
training itself does nothing for it, and no device is waited for. Needs no torch: the line is there
before torch is imported.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from electra_dist.console import (
    LiveLine,
    human_duration,
    human_seconds,
    live_line,
    quiet_seconds,
    say,
    warn,
)
from electra_dist.parallel import early, signs
from electra_dist.parallel.signs import Doing
from electra_dist.runs.progress import LINE_VARIABLE

_DRAW_SECONDS = 1.0
#: For the thread to end, which a terminal may hold up (Ctrl-S).
_END_SECONDS = 2.0
#: Longest silence where there is no terminal.
_SILENT_SECONDS = 60.0
#: Age from which a phase is worth a word in the middle of training.
_LONG_SECONDS = 3.0
#: A run that takes longer is worth a warning.
_WEEK = 7 * 86400.0
#: Steps of this process after which its rate is known well enough for that. The host of a GPU runs
#: ahead at first, so its first steps look short: it is looked at for a while.
_TIMED_STEPS = range(4, 64)

_PHASES = {
    "meeting": "waiting for the other ranks",
    "start": "starting",
    "data": "waiting for data",
    "step": "training",
    "validation": "held-out rows",
    "checkpoint": "saving",
    "end": "ending",
}


@contextlib.contextmanager
def progress_line(steps: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Show where training is while this block runs, on rank 0; `steps` is `train.steps`."""
    if _rank(environment) != 0:
        yield
        return
    with _terminal(environment) as terminal:
        progress = _Progress(steps, terminal, environment.get(LINE_VARIABLE))
        progress.start()
        try:
            yield
        finally:
            progress.end()


def _terminal(environment: Mapping[str, str]) -> AbstractContextManager[LiveLine | None]:
    """Other ranks on the same terminal (torchrun, srun) would print into a line that lives."""
    if early.ranks(environment) > 1:
        return contextlib.nullcontext()
    return live_line()


def _rank(environment: Mapping[str, str]) -> int:
    """As `electra_dist.parallel.world.detect` finds it, which needs torch."""
    if environment.get("SLURM_STEP_ID", "").isdigit():
        of_slurm = environment.get("SLURM_PROCID", "")
    else:
        of_slurm = ""
    number = environment.get("RANK") or of_slurm
    if number.isdigit():
        return int(number)
    return 0


class LinePipe:
    """The way of a live line to the terminal of `launch local`: `number` is the value of
    `LINE_VARIABLE`. Without one, lines go nowhere.
    """

    def __init__(self, number: str | None) -> None:
        self._descriptor = _opened(number)

    def tell(self, line: str) -> None:
        """Send a line; a reader that is slow or gone has the next one, or none."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, f"{line}\n".encode())

    def close(self) -> None:
        """No more lines."""
        if self._descriptor is not None:
            os.close(self._descriptor)


class _Progress(threading.Thread):
    """The thread that looks."""

    def __init__(self, steps: int, terminal: LiveLine | None, pipe: str | None) -> None:
        super().__init__(name="electra-dist-line", daemon=True)
        self._steps = steps
        self._terminal = terminal
        self._pipe = LinePipe(pipe)
        self._over = threading.Event()
        self._entered = -1
        self._since = time.monotonic()
        self._first_step: int | None = None
        self._warned = False

    def run(self) -> None:
        self._turn()
        while not self._over.wait(_DRAW_SECONDS):
            self._turn()

    def end(self) -> None:
        """No more lines."""
        self._over.set()
        self.join(_END_SECONDS)
        self._pipe.close()

    def _turn(self) -> None:
        doing = signs.doing()
        now = time.monotonic()
        if doing.entered != self._entered:
            self._entered = doing.entered
            self._since = now
        line = line_of(doing, self._steps, now - self._since)
        if self._terminal is not None:
            self._terminal.show(line)
        elif quiet_seconds() >= _SILENT_SECONDS:
            say(line)
        self._pipe.tell(line)
        self._warn_if_slow(doing)

    def _warn_if_slow(self, doing: Doing) -> None:
        """Once, when the first steps have been timed."""
        if self._warned or doing.phase not in ("data", "step") or doing.step_seconds is None:
            return
        if self._first_step is None:
            self._first_step = doing.step
        if doing.step - self._first_step in _TIMED_STEPS:
            sentence = slowness(doing.step_seconds, self._steps - doing.step)
            if sentence:
                self._warned = True
                warn(sentence)


def _opened(pipe: str | None) -> int | None:
    """The descriptor of the pipe, which is never waited for; None where there is none."""
    if pipe is None or not pipe.isdigit():
        return None
    number = int(pipe)
    try:
        # a process that only inherited the variable may have something else under this number
        if not stat.S_ISFIFO(os.fstat(number).st_mode):
            return None
        os.set_blocking(number, False)
    except OSError:
        return None
    return number


def line_of(doing: Doing, steps: int, seconds: float) -> str:
    """The line; `seconds` is the age of the phase.

    `step 412 of 4,000, 0.52 s per step, 31m12s left, training`
    """
    doings = _PHASES[doing.phase]
    detail = ""
    if doing.detail:
        detail = f" ({doing.detail})"
    age = human_seconds(seconds)
    is_in_a_step = doing.phase in ("data", "step")
    if doing.step_seconds is None and not is_in_a_step:
        return f"{doings}, {age}{detail}"
    step = doing.step
    if is_in_a_step:
        step = min(step + 1, steps)
    place = f"step {step:,} of {steps:,}"
    if doing.step_seconds is None:
        return f"{place}, {doings}, {age}; the first steps take longest{detail}"
    left = max(steps - doing.step, 0) * doing.step_seconds
    line = f"{place}, {_rate(doing.step_seconds)} per step, {human_seconds(left)} left, {doings}"
    if seconds > max(_LONG_SECONDS, 2 * doing.step_seconds):
        line += f" for {age}"
    return line + detail


def _rate(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2g} s"
    return f"{seconds:,.0f} s"


def slowness(step_seconds: float, steps: int) -> str | None:
    """A warning where `steps` more steps take weeks on this machine, and what to do; None where
    they do not.
    """
    seconds = step_seconds * steps
    if seconds <= _WEEK:
        return None
    return (
        f"at {_rate(step_seconds)} per step this run takes {human_duration(seconds)} here, for"
        f" {steps:,} steps. To try things out, take configs/quickstart.yaml, or a smaller"
        " model.preset and fewer train.steps. `electra-dist plan` says what other devices and more"
        " ranks would take. Ctrl-C saves and ends; the run goes on elsewhere from there"
    )
