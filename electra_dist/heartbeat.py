"""Who trains a run now: `RUN/process.json`, written by rank 0 of a training process, its modification time its pulse.

In, on the training side: a run directory and how the run came out. Out, on the side of `status`: a `Life`. A process of
the same machine is asked for in the kernel's table (number and start time, so that a reused number fools nobody);
one of another machine, or of a container with processes of its own, lives as long as its pulse is fresh. Needs no
queue and no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from electra_dist.files import write_json
from electra_dist.rundir import RunDir

#: Set by the job scripts of `launch slurm`: the job that a process is a rank of. What trains in the shell of an
#: interactive job is none.
JOB_VARIABLE = "ELECTRA_DIST_JOB"
PULSE_SECONDS = 15.0
#: Age of the pulse after which a process elsewhere counts as dead: network file systems show times a minute late.
STALE_SECONDS = 120.0
Ending = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Process:
    """Rank 0 of a training process, and how it ended.

    place    the machine since its last boot, and the table of processes in it; empty where the system has none
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
        return self.running and bool(self.process.place) and self.process.place == _place()


class Heartbeat:
    """Context manager around training, on rank 0: makes the file, keeps its pulse, writes how it ended."""

    def __init__(self, run: RunDir, ranks: int, job_id: str | None = None) -> None:
        self._run = run
        self._process = Process(
            os.getpid(), socket.gethostname(), _place(), _ticks(os.getpid()), ranks, job_id, time.time()
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._write(None, "")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """An exception is a failure; without one and without `end`, the run is taken as interrupted."""
        self._over.set()
        self._thread.join()
        if error is not None:
            self._write("failed", f"{type(error).__name__}: {error}".split("\n")[0][:500])
        elif self._process.ending is None:
            self._write("interrupted", "")

    def end(self, ending: Ending) -> None:
        """Note how training ended; the file is written when the context is left."""
        self._over.set()
        self._thread.join()
        self._write(ending, "")

    def _write(self, ending: Ending | None, detail: str) -> None:
        content = asdict(self._process) | {"ending": ending, "detail": detail}
        self._process = Process(**content)
        write_json(self._run.process, content)

    def _beat(self) -> None:
        while not self._over.wait(PULSE_SECONDS):
            with contextlib.suppress(OSError):  # a full or slow file system is no reason to stop training
                os.utime(self._run.process)


def life(run: RunDir) -> Life | None:
    """The process that trained `run` last, or None when there was none or its file is not ours."""
    try:
        process = Process(**json.loads(run.process.read_text(encoding="utf-8")))
        last_sign = run.process.stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None
    return Life(process, process.ending is None and _runs(process, last_sign), last_sign)


def _runs(process: Process, last_sign: float) -> bool:
    if process.place and process.place == _place() and process.ticks is not None:
        return _ticks(process.pid) == process.ticks
    return time.time() - last_sign < STALE_SECONDS


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _ticks(pid: int) -> int | None:
    """When process `pid` started, in ticks since boot; None when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
