"""RUN/progress.json, written by rank 0 beside training.

Comes in: what this process is doing, and what the watchdog has heard. Goes out: the file, from a
thread of its own that nobody waits for.
"""

from __future__ import annotations

import threading

from electra_dist.parallel.signs import Doing
from electra_dist.runs.directory import RunDir
from electra_dist.runs.progress import write_vitals
from electra_dist.train.watch.bounded import quietly


class Scribe:
    """Writes the file now and then."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._thread: threading.Thread | None = None

    @property
    def is_writing(self) -> bool:
        """Whether the last one still hangs in the file system."""
        return self._thread is not None and self._thread.is_alive()

    def note(self, doing: Doing, all_signs: int, newest: float, limit: float) -> None:
        """Write what `write_vitals` takes; call it only while nothing is being written."""

        def write() -> None:
            if self._run.facts.exists():  # before that it is not ours to write into
                write_vitals(self._run, doing, all_signs, newest, limit)

        self._thread = threading.Thread(
            target=quietly, args=(write,), name="electra-dist-vitals", daemon=True
        )
        self._thread.start()
