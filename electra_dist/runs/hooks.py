"""Someone is told: the command of `tracking.on_event`, started when a run starts, goes on, rolls
back, hangs or ends, and when a rule of health finds something.

In: an event of a run, with its reason. Out: one process of the user's command, never through a
shell; what it is told stands in its environment, beside that of training:

    ELECTRA_DIST_RUN      the run directory, absolute
    ELECTRA_DIST_NAME     run.name
    ELECTRA_DIST_EVENT    started, resumed, rolled back, health, interrupted, hung, failed,
                          diverged, finished
    ELECTRA_DIST_REASON   one sentence, or empty
    ELECTRA_DIST_STEP     optimizer steps done, or empty where they are not known
    ELECTRA_DIST_RULE     of health only: the rule whose finding begins or is over

A hook is a bystander: whatever it does, training goes on and never waits for it. Only the end of
the process waits, so that the last event is told: at most `tracking.event_seconds`, and
`LEAVE_SECONDS` where somebody waits for the process itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import ClassVar, Literal

from electra_dist.config import TrackingConfig
from electra_dist.console import put
from electra_dist.errors import DivergedError
from electra_dist.runs.directory import RunDir

Event = Literal[
    "started",
    "resumed",
    "rolled back",
    "health",
    "interrupted",
    "hung",
    "failed",
    "diverged",
    "finished",
]

#: For the hook of an interrupted run: a scheduler that is about to kill the process waits.
LEAVE_SECONDS = 10.0
_ENDS = ("interrupted", "hung", "failed", "diverged", "finished")


class Hook:
    """The command of one run, on rank 0; does nothing where none is configured.

    As a context manager around all that is done under the lock of the run, it tells the end: what
    `ends` was given, or the exception that leaves the block. The watchdog may know of an end too,
    with a `Hook` of its own: the first of them tells it, and each waits for what any of them has
    started.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _running: ClassVar[list[threading.Thread]] = []
    _ended: ClassVar[set[str]] = set()

    def __init__(
        self,
        settings: TrackingConfig,
        run: RunDir,
        name: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """The command gets `environment`, and what it is told on top of it.

        `name` is that of the run; by default that of its folder.
        """
        self._environment = environment
        self._command = list(settings.on_event)
        self._seconds = settings.event_seconds
        self._about = {
            "ELECTRA_DIST_RUN": str(run.path.absolute()),
            "ELECTRA_DIST_NAME": name or run.path.name,
        }
        self._end: tuple[Event, str, int | None] | None = None
        self._kill_at = float("inf")

    def problem(self) -> str | None:
        """What is wrong with the command before it was ever needed; None where nothing is."""
        if not self._command or shutil.which(self._command[0]) is not None:
            return None
        return (
            f"tracking.on_event: {self._command[0]}: no such program here, or it may not be"
            " executed"
        )

    # --- the course of a run ----------------------------------------------------------------------

    def __enter__(self) -> Hook:
        with self._lock:
            self._ended.discard(self._about["ELECTRA_DIST_RUN"])
        return self

    def begins(self, step: int | None) -> None:
        """Training begins: from its first step, or from the checkpoint of `step`."""
        problem = self.problem()
        if problem:
            put(f"warning: {problem}; nobody will be told", to_error=True)
            self._command = []
        self.tell("started" if step is None else "resumed", step=step or 0)

    def ends(self, event: Event, step: int, reason: str = "") -> None:
        """How it ended; told when the block is left, and everything of the run is in its place."""
        self._end = (event, reason, step)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end = self._end
        if error is not None:
            end = _failure(error)
        if end is not None:
            self.tell(*end)
        self.wait(LEAVE_SECONDS if end is not None and end[0] == "interrupted" else None)

    # --- telling ----------------------------------------------------------------------------------

    def tell(self, event: Event, reason: str = "", step: int | None = None, rule: str = "") -> None:
        """Start the command for `event` and return at once;
        of the ends of a run, the first one only. `rule` is that of a finding.
        """
        if not self._command or (event in _ENDS and not self._is_first_end()):
            return
        told = {
            "ELECTRA_DIST_EVENT": event,
            "ELECTRA_DIST_REASON": " ".join(reason.replace("\0", " ").split())[:2000],
            "ELECTRA_DIST_STEP": "" if step is None else str(step),
        }
        if rule:
            told["ELECTRA_DIST_RULE"] = rule
        thread = threading.Thread(
            target=self._call, args=(event, told), name="electra-dist-hook", daemon=True
        )
        thread.start()
        with self._lock:
            self._running.append(thread)

    def _is_first_end(self) -> bool:
        run = self._about["ELECTRA_DIST_RUN"]
        with self._lock:
            if run in self._ended:
                return False
            self._ended.add(run)
            return True

    def wait(self, seconds: float | None = None) -> None:
        """Let the commands that run now end;
        each is killed after `tracking.event_seconds`, or `seconds` if less.
        """
        if seconds is not None:
            self._kill_at = time.monotonic() + seconds
        with self._lock:
            running = list(self._running)
        for thread in running:
            thread.join()
        with self._lock:
            self._running[:] = [thread for thread in self._running if thread not in running]

    def _call(self, event: str, told: dict[str, str]) -> None:
        problem = self._problem(told)
        if problem:
            put(
                f"warning: tracking.on_event, {event}: {self._command[0]}: {problem}", to_error=True
            )

    def _problem(self, told: dict[str, str]) -> str | None:
        """Run the command to its end; what went wrong, or None."""
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                self._command,
                env={**self._environment, **self._about, **told},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # signals meant for the ranks are not meant for it
            )
        except (OSError, ValueError) as error:
            return f"cannot be started: {getattr(error, 'strerror', None) or error}"
        while True:
            until = min(began + self._seconds, self._kill_at)
            try:
                status = process.wait(min(max(until - time.monotonic(), 0.0), 0.2))
                if status:
                    return f"exit status {status}"
                return None
            except subprocess.TimeoutExpired:
                if time.monotonic() >= until:
                    break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return (
            f"ended after {time.monotonic() - began:.0f} s (tracking.event_seconds ="
            f" {self._seconds:g})"
        )


def _failure(error: BaseException) -> tuple[Event, str, None]:
    """The event of an exception that ends a run, and its reason."""
    if isinstance(error, DivergedError):
        return "diverged", str(error), None
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "a second Ctrl-C ended it without saving", None
    return "failed", str(error) or type(error).__name__, None
