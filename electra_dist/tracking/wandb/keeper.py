"""On the side of training: starts the mirror, starts it again when it fails, and ends it in bounded
time.

In: a run directory and a mode. Out: nothing that training waits for. A thread of its own reads what
the mirror says and prints at most one warning for a failure; the mirror lives in its own session,
so that no signal meant for the ranks reaches it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from electra_dist.tracking.wandb.children import descendants, kill_all
from electra_dist.tracking.wandb.environment import Mode, mirror_environment

#: Seconds before each new start of a mirror that failed;
#: after the last one it stays away until training starts again.
PAUSES = (0.0, 1.0, 10.0, 60.0, 300.0)
#: A mirror that lived that long has not failed at its task: the pauses begin anew.
SOUND_SECONDS = 3600.0
#: A mirror that an earlier process of training left behind ends within this time.
LOCK_SECONDS = 90.0
_DONE = 0
_FAILED = 1
_UNREACHABLE = 3
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


class MirrorError(UserError):
    """W&B could not be fed; metrics.jsonl has every row."""


@dataclass(frozen=True)
class Report:
    """What one mirroring came to.

    rows      of metrics.jsonl, each counted once
    sent      of them now; the others were there already
    url       of the run on the server; None offline
    warnings  what was passed over, a sentence each
    """

    rows: int
    sent: int
    url: str | None
    warnings: tuple[str, ...] = ()


class _Process:
    """A mirror that was started, and what it said last."""

    def __init__(
        self,
        run: RunDir,
        mode: Mode,
        environment: Mapping[str, str],
        *options: str,
        trainer: int | None = None,
    ) -> None:
        words = [
            sys.executable,
            "-m",
            "electra_dist.tracking.wandb",
            str(run.path.absolute()),
            "--mode",
            mode,
            *options,
        ]
        if trainer is not None:
            words += ["--trainer", str(trainer)]
        self.failed: str | None = None
        self.done: dict[str, Any] | None = None
        with _log(run.wandb / "mirror.log") as log:
            self.process = subprocess.Popen(
                words,
                env=mirror_environment(environment),
                stdin=subprocess.DEVNULL if trainer is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def tell(self, status: int) -> None:
        """Training is over."""
        with contextlib.suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(f"finish {status}\n".encode())
            self.process.stdin.close()

    def listen(self, warn: Callable[[str], None]) -> int:
        """Take what it says until it ends, warnings at once; its exit status."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if message["kind"] == "failed":
                    self.failed = str(message["reason"])
                elif message["kind"] == "warning":
                    warn(str(message["sentence"]))
                elif message["kind"] == "done":
                    self.done = message
        status = self.process.wait()
        if status != _DONE and self.failed is None:
            if status < 0:
                self.failed = f"its process was ended by signal {-status}"
            else:
                self.failed = f"exit status {status}"
        return status

    def kill(self) -> None:
        """End it and W&B's own processes, stopped ones too."""
        below = descendants(self.process.pid)
        kill_all([self.process.pid, *below])


def _log(path: Path) -> IO[bytes]:
    """Where W&B may print; nowhere when the file system refuses."""
    try:
        path.parent.mkdir(exist_ok=True)
        return path.open("wb")
    except OSError:
        return open(os.devnull, "wb")


class Keeper:
    """Keeps a mirror running beside training."""

    def __init__(
        self,
        run: RunDir,
        mode: Mode,
        warn: Callable[[str], None],
        environment: Mapping[str, str],
    ) -> None:
        """Start it and return at once; `warn` is called from another thread.

        The mirror gets of `environment` what is W&B's, or of no concern to the run.
        """
        self._run = run
        self._environment = environment
        self._mode = mode
        self._warn = warn
        self._warned = False
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._ending: int | None = None  # the status to finish with, once training is over
        self._given_up = False
        self._over = threading.Event()
        self.behind = True
        """Whether W&B may lack rows; known once it is closed."""
        self._thread = threading.Thread(target=self._keep, name="electra-dist-mirror", daemon=True)
        self._thread.start()

    def close(self, status: int, seconds: float) -> None:
        """Training is over: let the mirror finish, and kill it after `seconds`."""
        with self._lock:
            self._ending = status
            if self._process is not None:
                self._process.tell(status)
        self._over.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            with self._lock:
                self._given_up = True
                if self._process is not None:
                    self._process.kill()
            self._say(f"it did not finish within {seconds:g} s and was ended")
            self._thread.join(1)

    def _keep(self) -> None:
        # the mirror inherits it until it ignores them itself
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        failures = 0
        while failures < len(PAUSES):
            self._over.wait(PAUSES[failures])
            is_last = self._over.is_set()  # what fails until then is tried once more
            began = time.monotonic()
            status = self._once()
            if status == _UNREACHABLE:
                status = self._once()  # offline now
            if status == _DONE or is_last or self._given_up:
                break
            if time.monotonic() - began < SOUND_SECONDS:
                failures = failures + 1
            else:
                failures = 0

    @property
    def is_offline(self) -> bool:
        """Whether W&B's files lie here, to be uploaded."""
        return self._mode == "offline"

    def _once(self) -> int:
        """One process, from its start to its end."""
        try:
            with self._lock:
                if self._given_up:
                    return _FAILED
                process = self._process = self._start()
                if self._ending is not None:
                    process.tell(self._ending)
        except OSError as error:
            self._say(f"it cannot be started ({error.strerror})")
            return _FAILED
        status = process.listen(lambda sentence: self._warn(f"W&B: {sentence}"))
        with self._lock:
            self._process = None
        if status == _DONE:
            self.behind = False
        elif status == _UNREACHABLE and self._mode == "online":
            self._say(
                f"{process.failed}. W&B is offline from here on; the next start tries again", True
            )
            self._mode = "offline"
        else:
            self._say(f"{process.failed}")
        return status

    def _start(self) -> _Process:
        return _Process(
            self._run,
            self._mode,
            self._environment,
            "--lock-seconds",
            str(LOCK_SECONDS),
            trainer=os.getpid(),
        )

    def _say(self, problem: str, known: bool = False) -> None:
        """One warning, whatever else goes wrong with W&B."""
        if not self._warned:
            self._warned = True
            if known:
                end = ""
            else:
                end = ". Training goes on, with every row in metrics.jsonl"
            self._warn(f"W&B: {problem}{end}")


def mirror_once(run: RunDir, mode: Mode, seconds: float, environment: Mapping[str, str]) -> Report:
    """Mirror the rows of a run now;
    raises `MirrorError` after `seconds`, or when W&B cannot be used.
    """
    process = _Process(run, mode, environment, "--finish-seconds", str(seconds))
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    began = time.monotonic()
    warnings: list[str] = []
    timer.start()
    try:
        status = process.listen(warnings.append)
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()
    if status != _DONE or process.done is None:
        if time.monotonic() - began >= seconds:
            raise MirrorError(
                f"W&B: not finished after {seconds:g} s: no network, or a server that is busy or"
                " down; metrics.jsonl has every row, run the same command again"
            )
        raise MirrorError(f"W&B: {process.failed}")
    done = process.done
    return Report(int(done["rows"]), int(done["sent"]), done["url"], tuple(warnings))
