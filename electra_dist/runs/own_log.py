"""The output of a rank that no launcher keeps: copied into RUN/logs/rank-0.log, where `electra-dist
logs` looks.

In: a run directory whose lock is held. Out: everything that Python prints, on the terminal as
before and in the log, line by line, so that a kill loses nothing. A log that cannot be written
stops nobody. What libraries in C print stays on the terminal alone.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TextIO, cast

from electra_dist.errors import UserError
from electra_dist.files.writing import reason
from electra_dist.runs.directory import RunDir

#: Set by whatever starts ranks and keeps their output:
#: `launch local`, the job scripts of `launch slurm`.
LOGGED_VARIABLE = "ELECTRA_DIST_LOGGED"


@contextlib.contextmanager
def own_log(run: RunDir, environment: Mapping[str, str], ranks: int = 1) -> Iterator[None]:
    """Copy what is printed in this block into the log of rank 0,
    unless somebody keeps it already.
    """
    if environment.get(LOGGED_VARIABLE):
        log = None
    else:
        log = _open(run)
    if log is None:
        yield
        return
    before = sys.stdout, sys.stderr
    with log:
        print(
            f"==== {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z} rank 0 of {ranks}:"
            f" {_command()}",
            file=log,
        )
        sys.stdout = _copied(before[0], log)
        sys.stderr = _copied(before[1], log)
        try:
            yield
        except BaseException as error:  # whoever prints it does so outside of this block
            _note(error, log)
            raise
        finally:
            sys.stdout, sys.stderr = before


def _open(run: RunDir) -> TextIO | None:
    path = run.logs / "rank-0.log"
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", errors="replace", buffering=1)
    except OSError as error:
        print(f"warning: {path}: this run has no log: {reason(error)}", file=sys.stderr, flush=True)
        return None


def _command() -> str:
    return shlex.join(sys.orig_argv)


def _note(error: BaseException, log: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        if isinstance(error, UserError):
            print(f"error: {error}", file=log)
        else:
            traceback.print_exception(error, file=log)


def _copied(stream: TextIO, log: TextIO) -> TextIO:
    return cast(TextIO, _Copied(stream, log))


class _Copied:
    """A text stream whose text goes into a log as well;
    everything else of it is that of the stream.
    """

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # a full disk: the terminal still has it
            self._log.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
