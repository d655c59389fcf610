"""One rank of a launch: its process, its log, its end.

Comes in: a command and the variables of its world. Goes out: a `Rank`, whose process group dies
with the launcher. It writes straight into its own log, so that nothing is lost when the launcher
dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from electra_dist.errors import UserError
from electra_dist.files.writing import writing
from electra_dist.runs.progress import LINE_VARIABLE

_TAIL_BYTES = 32_768
_PR_SET_PDEATHSIG = 1
#: For a killed process to go.
_REAP_SECONDS = 10.0


@dataclass
class Rank:
    """One process. It is not reaped before its process group is swept,
    so that its number stays its own.
    """

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int
    exit_code: int | None = None
    ended_by_launcher: bool = False

    def poll(self) -> bool:
        """Whether it has ended; keeps the zombie."""
        if self.exit_code is None:
            state = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if state is not None:
                killed = state.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
                if killed:
                    self.exit_code = 128 + state.si_status
                else:
                    self.exit_code = state.si_status
        return self.exit_code is not None

    def send(self, number: int) -> None:
        """Signal the rank itself, not its helpers (loader workers, the W&B service)."""
        if not self.poll():
            os.kill(self.process.pid, number)

    def sweep(self) -> None:
        """Kill what is left of the rank's process group and reap the rank."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_REAP_SECONDS)
            return
        say(
            f"rank {self.number}, process {self.process.pid}, does not end: it waits for a device"
            " or a file system"
        )


def start_rank(
    command: Sequence[str],
    number: int,
    common: Mapping[str, str],
    logs: Path,
    line: int | None = None,
) -> Rank:
    """Start `command` as rank `number`, with the variables `common` to all ranks and its own.

    `line` is the pipe that the rank writes its live line to.

    Raises `UserError` when the command cannot be started, `StorageError` when the log cannot be
    written.
    """
    log = logs / f"rank-{number}.log"
    world = common["WORLD_SIZE"]
    header = (
        f"==== {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z} rank {number} of {world}:"
        f" {shlex.join(command)}\n"
    )
    variables = {**common, "RANK": str(number), "LOCAL_RANK": str(number)}
    kept = []
    if line is not None:
        variables[LINE_VARIABLE] = str(line)
        kept.append(line)
    with _open_log(log, header) as output:
        start = output.tell()
        try:
            process = subprocess.Popen(
                list(command),
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # the terminal's Ctrl-C reaches the launcher only, which passes it on once
                start_new_session=True,
                pass_fds=kept,
                preexec_fn=_die_with(os.getpid()),
            )
        except OSError as error:
            raise UserError(f"cannot start {command[0]!r}: {error.strerror}") from error
    return Rank(number, process, log, start)


def _open_log(log: Path, header: str) -> BinaryIO:
    """The log of a rank, open for appending, with a line that says what starts;
    raises `StorageError`.
    """
    with writing(log, "the log"):
        output = log.open("ab", buffering=0)
        try:
            output.write(header.encode())
        except OSError:
            output.close()
            raise
    return output


class _die_with:  # noqa: N801 -- reads as a function at its only use
    """Called in the child before the command:
    asks Linux to kill it when the launcher ends, however it ends.
    """

    def __init__(self, parent: int) -> None:
        self.parent = parent
        if sys.platform == "linux":
            self.prctl = ctypes.CDLL(None, use_errno=True).prctl
        else:
            self.prctl = None

    def __call__(self) -> None:
        if self.prctl is not None:
            self.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != self.parent:  # it died before the request
            os._exit(1)


def tail(path: Path, lines: int, start: int = 0) -> list[str]:
    """The last `lines` lines of a log, of its last 32 KiB and not before byte `start`."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace").splitlines()[-lines:]


def say(text: str, prefix: str = "launcher: ") -> None:
    """One line on standard error; nothing where that is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{prefix}{text}", file=sys.stderr, flush=True)
