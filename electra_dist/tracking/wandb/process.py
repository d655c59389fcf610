"""The mirror: a process that sends the rows of metrics.jsonl to W&B, while a run is trained or
once.

In: a run directory and a mode. Out: one JSON object a line on standard output (`warning`, `failed`,
`done`), and an exit status. Standard input is the word of the trainer: `finish 0` when it has
finished, `finish 75` when it was interrupted, `finish 1` when it failed, and its end when the
trainer is gone without a word. What W&B prints goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from electra_dist.console import put
from electra_dist.errors import EXIT_CRASH
from electra_dist.files.writing import reason
from electra_dist.runs.directory import RunDir
from electra_dist.runs.ending import status_of
from electra_dist.tracking.wandb.alerts import Alerts
from electra_dist.tracking.wandb.children import descendants, kill_all
from electra_dist.tracking.wandb.environment import Mode
from electra_dist.tracking.wandb.extras import Extras
from electra_dist.tracking.wandb.follower import Follower, Logged
from electra_dist.tracking.wandb.ledger import Ledger, returns
from electra_dist.tracking.wandb.samples import TABLE, sample_files
from electra_dist.tracking.wandb.session import Session, SessionError, UnreachableError
from electra_dist.tracking.wandb.wandb_files import ONLINE, Entry

DONE = 0
FAILED = 1
UNREACHABLE = 3
POLL_SECONDS = 2.0
#: From the start to an open session, everything that W&B waits for included.
OPEN_SECONDS = 120.0
#: For the service to take the rows of one reading.
SEND_SECONDS = 120.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Reporter:
    """Messages to whoever started the mirror; nobody may be there any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def warn(self, sentence: str) -> None:
        """Something was passed over."""
        self.say("warning", sentence=sentence)

    def say(self, kind: str, **facts: Any) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, (json.dumps({"kind": kind, **facts}) + "\n").encode())


class Deadline:
    """Bounds what may never return: at its end the service is killed, and this process ends."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    @contextlib.contextmanager
    def within(self, seconds: float, what: str, status: int = FAILED) -> Iterator[None]:
        timer = threading.Timer(seconds, self._expire, (seconds, what, status))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self, seconds: float, what: str, status: int) -> None:
        self._reporter.say("failed", reason=f"{what} took longer than {seconds:g} s")
        leave(status)


def leave(status: int) -> NoReturn:
    """End now: W&B's exit functions would wait for its service."""
    kill_all(descendants(os.getpid()))
    os._exit(status)


class Trainer:
    """What the process of training says: goes on, or is over (`status` of W&B's run then)."""

    def __init__(self, status: int | None = None) -> None:
        """It speaks on standard input; or it is over already, with `status`."""
        self.over = status is not None
        self.status = status or 0

    def wait(self, seconds: float) -> None:
        """Return when it is over, or after `seconds`."""
        if self.over or not select.select([0], [], [], seconds)[0]:
            return
        word = os.read(0, 64).split()
        self.over = True
        if len(word) == 2 and word[1].isdigit():
            self.status = int(word[1])
        else:
            self.status = 1


class Fed(Enum):
    """How the feeding of a session ended: W&B has all, or the run left the course of it."""

    ALL = "all"
    LEFT = "left"


class Mirror:
    """Sends what W&B has not, until the trainer is over."""

    def __init__(
        self,
        run: RunDir,
        mode: Mode,
        trainer: Trainer,
        pid: int | None,
        reporter: Reporter,
        environment: Mapping[str, str],
    ) -> None:
        self.run = run
        self.mode = mode
        self.trainer = trainer
        self.pid = pid
        self.reporter = reporter
        self.environment = environment
        self.deadline = Deadline(reporter)
        self.rows = Follower(run.metrics)
        self.ledger = Ledger(run)
        self.extras = Extras(run, self.ledger, reporter.warn)
        self.alerts = Alerts(run.wandb)
        self.there = self.ledger.rows
        self.place = ONLINE
        self.sent = 0

    def mirror(self, finish_seconds: float) -> None:
        """Open, feed and finish a session; another one for each course that begins meanwhile."""
        if self.trainer.over and self.mode == "offline" and not self._lacks_anything():
            self._done(None)
            return
        self.rows = Follower(self.run.metrics)
        session = self._open()
        while self._feed(session) is Fed.LEFT:
            with self.deadline.within(finish_seconds, "finishing the W&B run of the course left"):
                session.supersede(self._shared_step())
                self._finish(session, EXIT_CRASH)
            self.ledger.begin_course(returns(self.run.read_facts()))
            self.rows = Follower(self.run.metrics)
            self.extras = Extras(self.run, self.ledger, self.reporter.warn)
            session = self._open()
        with self.deadline.within(finish_seconds, "finishing the W&B run"):
            self._finish(session, self.trainer.status)
        self._done(session.url)

    def _open(self) -> Session:
        """The session of the newest course, reconciled with what W&B has of it."""
        if self.mode == "online":
            status = UNREACHABLE
        else:
            status = FAILED
        with self.deadline.within(OPEN_SECONDS, "opening the W&B run", status):
            run_id = self.ledger.run_id
            session = Session(self.run, self.mode, run_id, self.pid, self.environment)
            self._reconcile(session)
        return session

    def _finish(self, session: Session, status: int) -> None:
        session.finish(status)
        if self.mode == "offline":
            self.ledger.close(self.place)
        self.extras.close()

    def _done(self, url: str | None) -> None:
        self.reporter.say("done", rows=len(self.rows.steps), sent=self.sent, url=url)

    def _lacks_anything(self) -> bool:
        lacks = False
        while new := self.rows.read():
            lacks = lacks or any(one.step not in self.there for one in new) or self._has_left(new)
        return lacks or self.extras.are_due(self.rows.last_step)

    def _reconcile(self, session: Session) -> None:
        """Where this session's rows go; online, the server says first how many rows it has."""
        if self.mode == "offline":
            self.place = session.folder.name
        elif not self.ledger.on_server(session.there):
            self.ledger.adopt(self._up_to(session.last_step))
        self.there = self.ledger.rows

    def _up_to(self, step: int) -> Iterator[Entry]:
        """The rows and tables of the run up to a step."""
        for logged in _all_rows(self.run):
            if logged.step <= step:
                yield Entry(logged.step, logged.key, ONLINE)
        for of_step, _ in sample_files(self.run):
            if of_step <= step:
                yield Entry(of_step, TABLE, ONLINE)

    # --- one session ------------------------------------------------------------------------------

    def _feed(self, session: Session) -> Fed:
        """Send rows until the trainer is over and none is left, or until the course was left."""
        while True:
            over = self.trainer.over  # asked first: what was written before is read below
            new = self.rows.read()
            with self.deadline.within(SEND_SECONDS, "handing rows to the W&B service"):
                if self._has_left(new):
                    return Fed.LEFT
                self._send(session, [logged for logged in new if logged.step not in self.there])
                self.alerts.send(session, self.rows.events)
                if not new:
                    self.extras.send(session, self.place, self.rows.last_step)
                session.check()
            if new:
                continue
            if over:
                return Fed.ALL
            self.trainer.wait(POLL_SECONDS)

    def _has_left(self, rows: Sequence[Logged]) -> bool:
        """Whether the run went back, and trained a step otherwise than W&B has it.

        Without a return it is a step that a restart repeats, where rounding differs: W&B keeps the
        first.
        """
        differ = any(self.there.get(one.step, one.key) != one.key for one in rows)
        return differ and returns(self.run.read_facts()) > self.ledger.course

    def _shared_step(self) -> int:
        """The last step that the course left and the new one have in common."""
        shared = [one.step for one in _all_rows(self.run) if self.there.get(one.step) == one.key]
        return max(shared, default=0)

    def _send(self, session: Session, rows: list[Logged]) -> None:
        if rows:
            self.ledger.add(Entry(logged.step, logged.key, self.place) for logged in rows)
        for logged in rows:
            session.send(logged.row)
            self.there[logged.step] = logged.key
            self.sent += 1


def _all_rows(run: RunDir) -> Iterator[Logged]:
    follower = Follower(run.metrics)
    while new := follower.read():
        yield from new


@contextlib.contextmanager
def only_one(run: RunDir, seconds: float) -> Iterator[None]:
    """One mirror a run: wait for another to end (it does,
    in bounded time), then keep others out.
    """
    run.wandb.mkdir(exist_ok=True)
    with (run.wandb / "mirror.lock").open("a") as file:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > end:
                    raise SessionError("another process mirrors this run to W&B now") from None
                time.sleep(0.2)
            except OSError:
                break  # a file system without locks
        yield


def main() -> NoReturn:
    """The process: `python -m electra_dist.tracking.wandb RUN --mode MODE`."""
    parser = argparse.ArgumentParser(
        prog="python -m electra_dist.tracking.wandb", description=__doc__
    )
    parser.add_argument("run_path", type=Path)
    parser.add_argument("--mode", choices=("online", "offline"), required=True)
    parser.add_argument(
        "--trainer", type=int, help="process of training, whose word comes on standard input"
    )
    parser.add_argument("--finish-seconds", type=float, default=60.0)
    parser.add_argument("--lock-seconds", type=float, default=0.0)
    arguments = parser.parse_args()
    for number in _SIGNALS:  # they are meant for the ranks, which save now
        signal.signal(number, signal.SIG_IGN)
    reporter = Reporter(os.dup(1))
    os.dup2(2, 1)
    run = RunDir(arguments.run_path)
    try:
        with only_one(run, arguments.lock_seconds):
            if arguments.trainer is None:
                trainer = Trainer(status_of(run))
            else:
                trainer = Trainer()
            mirror = Mirror(run, arguments.mode, trainer, arguments.trainer, reporter, os.environ)
            mirror.mirror(arguments.finish_seconds)
        status = DONE
    except UnreachableError as error:
        reporter.say("failed", reason=str(error))
        status = UNREACHABLE
    except Exception as error:
        reporter.say(
            "failed", reason=str(error) if isinstance(error, SessionError) else _sentence(error)
        )
        put(f"{type(error).__name__}: {error}", to_error=True)
        status = FAILED
    leave(status)


def _sentence(error: Exception) -> str:
    first = str(error).partition("\n")[0]
    if isinstance(error, OSError) and error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
    ):
        return f"{error.filename or 'its files'} cannot be written: {reason(error)}"
    if isinstance(error, ConnectionError) or type(error).__name__ == "HandleAbandonedError":
        return f"its service is gone ({first or type(error).__name__})"
    return f"{type(error).__name__}: {first}"
