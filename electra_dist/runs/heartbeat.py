"""Who trains a run now: `RUN/process.json`, written by rank 0 of a training process, its
modification time its pulse.

In, on the training side: a run directory and how the run came out. Out, on the side of `status`: a
`Life`. A process of the same machine is asked for in the kernel's table (number and start time, so
that a reused number fools nobody); one of another machine, or of a container with processes of its
own, lives as long as its pulse is fresh. Needs no queue and no torch.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Literal

from electra_dist.errors import UserError
from electra_dist.files.reading import MIB, read_json
from electra_dist.files.writing import reason, write_json, writing
from electra_dist.parallel import processes
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir

#: Set by the job scripts of `launch slurm`: the job that a process is a rank of. What trains in the
#: shell of an interactive job is none.
JOB_VARIABLE = "ELECTRA_DIST_JOB"
PULSE_SECONDS = 15.0
#: Age of the pulse after which a process elsewhere counts as dead:
#: network file systems show times a minute late.
STALE_SECONDS = 120.0
Ending = Literal["finished", "interrupted", "failed", "hung"]


@dataclass(frozen=True)
class Process:
    """Rank 0 of a training process, and how it ended.

    place    the machine since its last boot, and the table of processes in it; empty where the
             system has none
    ticks    start of the process in the kernel's clock; None where it cannot be read
    job_id   of Slurm, when a job script of ours started it, or None
    ending   None while it runs, and for ever when it was killed
    """

    pid: int
    host: str
    place: str
    ticks: int | None
    ranks: int
    job_id: str | None
    started: float
    ending: Ending | None = None
    detail: str = ""


@dataclass(frozen=True)
class Life:
    """What is known of the process that trained a run last; `last_sign` is a Unix time."""

    process: Process
    running: bool
    last_sign: float

    @property
    def is_here(self) -> bool:
        """Whether it lives on this machine, where it can be signalled."""
        return self.running and bool(self.process.place) and self.process.place == processes.place()


class Heartbeat:
    """Context manager around training, on rank 0:
    makes the file, keeps its pulse, writes how it ended.
    """

    def __init__(self, run: RunDir, ranks: int, job_id: str | None = None) -> None:
        self._run = run
        self._process = Process(
            os.getpid(),
            socket.gethostname(),
            processes.place(),
            processes.ticks(os.getpid()),
            ranks,
            job_id,
            time.time(),
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        """Raises `StorageError` when the file cannot be written."""
        with writing(self._run.process, "who trains the run"):
            self._write(None, "")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """An exception is a failure; without one and without `end`,
        the run is taken as interrupted.
        """
        if error is not None:
            self.end("failed", f"{type(error).__name__}: {error}".split("\n")[0][:500])
        elif self._process.ending is None:
            self.end("interrupted")

    def end(self, ending: Ending, detail: str = "") -> None:
        """Note how training ended, and more about it in words; a file system that refuses changes
        nothing about it.

        A process that has lost the lock of the run notes nothing: the file is the other one's.
        """
        self._over.set()
        self._thread.join()
        try:
            if not lock.is_lost(self._run):
                self._write(ending, detail)
        except OSError as error:
            print(
                f"warning: {self._run.process}: how the run ended cannot be noted:"
                f" {reason(error)}; `electra-dist status` will say that it is gone without a word",
                file=sys.stderr,
                flush=True,
            )

    def _write(self, ending: Ending | None, detail: str) -> None:
        content = asdict(self._process) | {"ending": ending, "detail": detail}
        self._process = Process(**content)
        write_json(self._run.process, content)

    def _beat(self) -> None:
        while not self._over.wait(PULSE_SECONDS):
            # a full or slow file system is no reason to stop training
            with contextlib.suppress(OSError):
                os.utime(self._run.process)


def life(run: RunDir) -> Life | None:
    """The process that trained `run` last, or None when there was none or its file is not ours."""
    try:
        process = Process(**read_json(run.process, MIB))
        last_sign = run.process.stat().st_mtime
    except (OSError, ValueError, TypeError, UserError):
        return None
    return Life(process, process.ending is None and _runs(process, last_sign), last_sign)


def note_ending(run: RunDir, ending: Ending, detail: str) -> None:
    """The same as `Heartbeat.end`, for whoever ends the process from outside of its training
    thread, on any rank.

    A process that has ended otherwise is left alone. Raises `OSError` when the file cannot be
    written.
    """
    seen = life(run)
    if seen is not None and seen.process.ending is None:
        write_json(run.process, asdict(seen.process) | {"ending": ending, "detail": detail[:500]})


def _runs(process: Process, last_sign: float) -> bool:
    alive = processes.is_alive(process.place, process.pid, process.ticks)
    if alive is None:
        return time.time() - last_sign < STALE_SECONDS
    return alive
