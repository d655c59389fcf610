"""Someone is told: the command of `tracking.on_event`, started when a run starts, goes on, rolls back, hangs or ends.

In: an event of a run, with its reason. Out: one process of the user's command, never through a shell; what it is told
stands in its environment:

    ELECTRA_DIST_RUN      the run directory, absolute
    ELECTRA_DIST_NAME     run.name
    ELECTRA_DIST_EVENT    started, resumed, rolled back, interrupted, hung, failed, diverged, finished
    ELECTRA_DIST_REASON   one sentence, or empty
    ELECTRA_DIST_STEP     optimizer steps done, or empty where they are not known

A hook is a bystander: whatever it does, training goes on, and never waits for it longer than `tracking.event_seconds`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Literal

from electra_dist.config import Config

Event = Literal["started", "resumed", "rolled back", "interrupted", "hung", "failed", "diverged", "finished"]


class Hook:
    """The command of one run, on rank 0; does nothing where none is configured."""

    def __init__(self, config: Config) -> None:
        self._command = list(config.tracking.on_event)
        self._seconds = config.tracking.event_seconds
        self._about = {
            "ELECTRA_DIST_RUN": str(config.run.path.absolute()),
            "ELECTRA_DIST_NAME": config.run.name,
        }
        self._running: list[threading.Thread] = []

    def tell(self, event: Event, reason: str = "", step: int | None = None) -> None:
        """Start the command for `event` and return at once."""
        if not self._command:
            return
        told = {
            "ELECTRA_DIST_EVENT": event,
            "ELECTRA_DIST_REASON": " ".join(reason.replace("\0", " ").split())[:2000],
            "ELECTRA_DIST_STEP": "" if step is None else str(step),
        }
        thread = threading.Thread(target=self._call, args=(event, told), name="electra-dist-hook", daemon=True)
        thread.start()
        self._running.append(thread)

    def wait(self) -> None:
        """Let the commands that run now end; bounded, because each is killed after `tracking.event_seconds`."""
        for thread in self._running:
            thread.join()
        self._running.clear()

    def _call(self, event: str, told: dict[str, str]) -> None:
        problem = self._problem(told)
        if problem:
            print(f"warning: tracking.on_event, {event}: {self._command[0]}: {problem}", file=sys.stderr, flush=True)

    def _problem(self, told: dict[str, str]) -> str | None:
        """Run the command to its end; what went wrong, or None."""
        try:
            process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._about, **told},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # signals meant for the ranks are not meant for it
            )
        except OSError as error:
            return f"cannot be started: {error.strerror or error}"
        try:
            status = process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"ended after {self._seconds:g} s (tracking.event_seconds)"
        return f"exit status {status}" if status else None
