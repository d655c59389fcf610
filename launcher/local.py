"""Several ranks on one machine: starts the processes, watches them, ends them together.

In: a command and a number of processes. Out: one exit code, `rank-N.log` for each rank. The ranks
find each other through the same variables that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, ...). Every rank writes straight into its own log, so that nothing is lost when the
launcher dies; rank 0's log is copied to the terminal as it grows. Unlike torchrun, signals reach
the ranks: training can save and exit with 75. Knows no torch.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from electra_dist.console import LiveLine, live_line
from electra_dist.errors import EXIT_HANG, EXIT_OK, EXIT_UNFINISHED, UserError
from electra_dist.files.writing import writing
from electra_dist.parallel.processes import LAUNCH_VARIABLE
from electra_dist.runs.own_log import LOGGED_VARIABLE
from electra_dist.runs.progress import Vitals
from launcher.rank import Rank, say, start_rank, tail

_POLL_SECONDS = 0.05
_TAIL_LINES = 30
#: Bytes of live lines that are read at once.
_PIPE_BYTES = 65_536
#: Between two looks at the progress of ranks that were asked to end.
_LOOK_SECONDS = 1.0
#: What the ranks' own watchdog gets beyond its limit before the launcher ends them.
_WATCHDOG_MARGIN = 60.0
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@dataclass(frozen=True)
class Patience:
    """Seconds that the launcher waits for ranks which should be ending by themselves."""

    after_crash: float = 10.0
    """From the first crashed rank to SIGTERM for the others,
    which may be failing for the same reason.
    """
    after_unfinished: float = 120.0
    """From the first rank that exited with 75 to SIGTERM for the others,
    which may be closing their W&B run.
    """
    after_signal: float = 120.0
    """From a signal that was passed on, or the newest sign of progress since, to SIGTERM for the
    ranks that are still there; longer where the watchdog of the ranks would wait longer by itself.
    """
    after_terminate: float = 5.0
    """From SIGTERM to SIGKILL."""


@dataclass
class _Launch:
    """The state of one launch: ranks, the signals that wait to be forwarded, who failed first."""

    patience: Patience
    vitals: Callable[[], Vitals | None]
    ranks: list[Rank] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    forwarded: set[int] = field(default_factory=set)
    first_failed: Rank | None = None
    terminate_at: float | None = None
    kill_at: float | None = None
    moved_at: float | None = None  # since a signal was passed on: the newest sign of progress
    signs: int = 0
    look_at: float = 0.0
    gave_up: bool = False

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.pending.append(number)

    def forward_pending(self) -> None:
        """Pass each kind of signal on once; a second Ctrl-C kills."""
        while self.pending:
            number = self.pending.pop(0)
            # the terminal is gone: for the ranks this is the end, not a reload
            if number == signal.SIGHUP:
                number = signal.SIGTERM
            if number not in self.forwarded:
                self.forwarded.add(number)
                self.moved_at = time.monotonic()
                say(f"{signal.Signals(number).name} passed on to {len(self.ranks)} ranks")
                for rank in self.ranks:
                    rank.send(number)
            elif number == signal.SIGINT:
                say("second Ctrl-C: killing all ranks")
                self.kill_at = time.monotonic()

    def watch(self) -> bool:
        """Note who has ended, end the rest when their time is up;
        false when all ranks have ended.
        """
        now = time.monotonic()
        for rank in self.ranks:
            known = rank.exit_code is not None
            if (
                rank.poll()
                and not known
                and rank.exit_code != EXIT_OK
                and not rank.ended_by_launcher
            ):
                self._note_failure(rank, now)
        running = [rank for rank in self.ranks if rank.exit_code is None]
        self._look_for_progress(now)
        if self.kill_at is not None and now >= self.kill_at:
            self._end(running, signal.SIGKILL)
        elif self.terminate_at is not None and now >= self.terminate_at and self.kill_at is None:
            if running:
                say(f"ending {_names(running)}, still running")
            self._end(running, signal.SIGTERM)
            self.kill_at = now + self.patience.after_terminate
        return bool(running)

    def _look_for_progress(self, now: float) -> None:
        """Whether ranks that were asked to end still move:
        a save may take its time, a hung rank may not.
        """
        if self.moved_at is None or self.terminate_at is not None or now < self.look_at:
            return
        self.look_at = now + _LOOK_SECONDS
        vitals = self.vitals()
        allowed = self.patience.after_signal
        if vitals is not None and vitals.pid == self.ranks[0].process.pid:
            allowed = max(allowed, vitals.limit + _WATCHDOG_MARGIN)
            if vitals.signs != self.signs:
                self.signs = vitals.signs
                self.moved_at = now
        if now - self.moved_at > allowed:
            say(f"no progress for {allowed:.0f} s since the ranks were asked to end")
            self.gave_up = True
            self.terminate_at = now

    def _note_failure(self, rank: Rank, now: float) -> None:
        crashed = rank.exit_code != EXIT_UNFINISHED
        if crashed:
            wait = self.patience.after_crash
        else:
            wait = self.patience.after_unfinished
        until = now + wait
        if self.terminate_at is None:
            self.terminate_at = until
        else:
            self.terminate_at = min(self.terminate_at, until)
        first = self.first_failed
        if first is None or (crashed and first.exit_code == EXIT_UNFINISHED):
            self.first_failed = rank

    @staticmethod
    def _end(running: Sequence[Rank], number: int) -> None:
        for rank in running:
            rank.ended_by_launcher = True
            rank.send(number)

    def exit_code(self) -> int:
        """0 when all ranks finished, the first crash otherwise, 75 when nobody crashed but somebody
        is not finished.

        69 when ranks had to be ended because they no longer moved.
        """
        if self.first_failed is not None and self.first_failed.exit_code is not None:
            return self.first_failed.exit_code
        if self.gave_up:
            return EXIT_HANG
        ended = (rank.exit_code for rank in self.ranks if rank.exit_code)
        return next(ended, EXIT_OK)


def launch_local(
    command: Sequence[str],
    processes: int,
    logs: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    patience: Patience | None = None,
    vitals: Callable[[], Vitals | None] = lambda: None,
) -> int:
    """Run `processes` copies of `command` as ranks of one world and return the exit code of the
    launch.

    Each rank appends to `logs`/rank-N.log; rank 0 is shown on standard output as well. SIGINT,
    SIGTERM and SIGUSR1 are passed on to every rank once, a second Ctrl-C kills. When a rank fails,
    the others get `patience` to end by themselves; so do all after a signal, as long as they move.
    No rank survives the launcher, even when it is killed. Call from the main thread.

    command      program and arguments, the same for every rank
    environment  what the ranks get; rank variables win over it
    vitals       what the ranks have noted of their progress
                 (`electra_dist.runs.progress.read_vitals`)
    returns      0; 75 when the ranks saved and are not finished; else the first failed rank's code
                 (128 + signal)
    raises       UserError when `processes` is not positive or the command does not exist
    """
    if processes < 1:
        raise UserError(f"`processes` {processes}: expected at least 1")
    with writing(logs, "the logs"):
        logs.mkdir(parents=True, exist_ok=True)
    launch = _Launch(patience or Patience(), vitals)
    common = {
        "PYTHONUNBUFFERED": "1",
        LOGGED_VARIABLE: "yes",
        **environment,
        **_world_variables(processes),
    }
    if not environment.get("OMP_NUM_THREADS"):
        common["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
    with _handlers(launch), _line_of_rank_0() as line:
        try:
            for number in range(processes):
                pipe = line.pipe if line and not number else None
                launch.ranks.append(start_rank(command, number, common, logs, pipe))
            with launch.ranks[0].log.open("rb") as shown:
                shown.seek(launch.ranks[0].log_start)
                _until_ended(launch, shown, line)
        finally:
            for rank in launch.ranks:
                rank.sweep()
    _explain(launch)
    return launch.exit_code()


class _Line:
    """Rank 0's live line, from its pipe to the terminal."""

    def __init__(self, terminal: LiveLine, pipe: int, source: int) -> None:
        self.pipe = pipe
        self._terminal = terminal
        self._source = source

    def above(self, ends_line: bool) -> AbstractContextManager[None]:
        return self._terminal.above(ends_line=ends_line)

    def follow(self) -> None:
        """Show the newest line that has come."""
        with contextlib.suppress(BlockingIOError):
            lines = os.read(self._source, _PIPE_BYTES).decode("ascii", "replace").splitlines()
            if lines:
                self._terminal.show(lines[-1])


@contextlib.contextmanager
def _line_of_rank_0() -> Iterator[_Line | None]:
    """None where this launch has no terminal."""
    with live_line() as terminal:
        if terminal is None:
            yield None
            return
        source, pipe = os.pipe()
        os.set_blocking(source, False)
        try:
            yield _Line(terminal, pipe, source)
        finally:
            os.close(pipe)
            os.close(source)


def _until_ended(launch: _Launch, shown: BinaryIO, line: _Line | None) -> None:
    running = True
    while running:
        launch.forward_pending()
        running = launch.watch()
        _copy(shown, line)
        if line:
            line.follow()
        if running:
            time.sleep(_POLL_SECONDS)


def free_port() -> int:
    """A TCP port of this host that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _world_variables(processes: int) -> dict[str, str]:
    size = str(processes)
    return {
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        LAUNCH_VARIABLE: secrets.token_hex(8),
    }


@contextlib.contextmanager
def _handlers(launch: _Launch) -> Iterator[None]:
    """Collect the forwarded signals while the ranks run; SIGHUP stays ignored under nohup."""
    chosen = [
        n for n in _FORWARDED if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, launch.on_signal) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _copy(shown: BinaryIO, line: _Line | None) -> None:
    """What rank 0 has written since the last call, to the terminal above its live line;
    the log has it all should the terminal be gone.
    """
    while chunk := shown.read(65_536):
        if line:
            place = line.above(chunk.endswith(b"\n"))
        else:
            place = contextlib.nullcontext()
        with contextlib.suppress(OSError, ValueError), place:
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()


def _explain(launch: _Launch) -> None:
    """One line about the rank that failed first,
    and the end of its log where the terminal has not shown it.
    """
    rank = launch.first_failed
    if rank is None or rank.exit_code is None or rank.exit_code == EXIT_UNFINISHED:
        return
    code = rank.exit_code
    killed = code > 128 and code - 128 in {int(number) for number in signal.Signals}
    if killed:
        how = f"was killed by {signal.Signals(code - 128).name}"
    else:
        how = f"failed with exit code {code}"
    say(f"rank {rank.number} of {len(launch.ranks)} {how}; its log: {rank.log}")
    if rank.number:
        for line in tail(rank.log, _TAIL_LINES, rank.log_start):
            say(line, prefix=f"rank {rank.number} | ")


def _names(ranks: Sequence[Rank]) -> str:
    numbers = ", ".join(str(rank.number) for rank in ranks)
    if len(ranks) == 1:
        return f"rank {numbers}"
    return f"ranks {numbers}"
