"""A folder beside the output where unfinished work is kept, so that the same command goes on.

    lock                who works there just now
    record.json         the command: options, what else it uses, inputs in short
    inputs.txt          size, time and path of every input file

What else lies there is the business of the command. Every file gets its name when it is whole and
on the disk. So after SIGKILL or a power cut the same command takes what is there and does the rest.
Another command, or changed input, is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from data_tools.disk import on_disk
from electra_dist.errors import EXIT_UNFINISHED, DataError, LockedError, UserError
from electra_dist.files.reading import MIB, open_regular, read_json
from electra_dist.files.writing import write_atomically, write_json

_RECORD = "record.json"
_INPUTS = "inputs.txt"
_LOCK = "lock"
_LIMIT = 16 * MIB


class WorkInterruptedError(UserError):
    """Work that a signal ended; the same command goes on."""

    exit_status = EXIT_UNFINISHED


class DamagedWorkError(DataError):
    """A file of unfinished work that is not as it was written."""


@dataclass(frozen=True)
class Order:
    """What a command is asked for: the same order goes on, another one is refused.

    command  what was called
    options  those that the bytes depend on
    sources  fingerprints of what is used beside the input
    inputs   a line for each input file
    """

    command: str
    options: dict[str, Any]
    sources: dict[str, str]
    inputs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `record.json`."""
        content = asdict(self)
        text = "\n".join(self.inputs)
        content["inputs"] = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return content


@dataclass(frozen=True)
class Unfinished:
    """A folder of unfinished work.

    what   the work, as messages call it
    spared names in it that are removed after all others
    """

    path: Path
    what: str
    spared: tuple[str, ...] = ()

    def remove(self) -> None:
        """Delete all of it; the record last, so that a rest of it is known."""
        _delete(self.path, spared=(_RECORD, _INPUTS, _LOCK, *self.spared))
        shutil.rmtree(self.path)

    def is_of(self, order: Order) -> bool:
        """Whether it was made for `order`."""
        try:
            found: Any = read_json(self.path / _RECORD, _LIMIT)
        except (OSError, ValueError):
            return False
        return bool(found == order.to_json())

    @contextlib.contextmanager
    def opened(self, order: Order, again: bool) -> Iterator[None]:
        """A block that works there for `order`, alone; the folder is new, or has what is done.

        Raises `LockedError` where another process is at work, `DataError` where another order is
        unfinished. With `again` whatever is there is thrown away.
        """
        with on_disk(self.path.parent):
            self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            if again:
                _delete(self.path, spared=(_RECORD, _LOCK))
                _delete(self.path, spared=(_LOCK,))
            _check(self, order)
            with on_disk(self.path):
                lines = "".join(f"{line}\n" for line in order.inputs)
                write_atomically(self.path / _INPUTS, lines)
                write_json(self.path / _RECORD, order.to_json())
                _sweep(self.path)
            yield

    @contextlib.contextmanager
    def dropped_with_bad_input(self) -> Iterator[None]:
        """A block after whose `DataError` the folder is removed: bad input must change before
        anything comes of it, so what was made of it is of no use.

        Errors of another kind leave the folder as it is.
        """
        try:
            yield
        except DataError as error:
            if type(error) is DataError:
                self.remove()
            raise

    @contextlib.contextmanager
    def interruptible(self, out: Path) -> Iterator[None]:
        """A block that SIGTERM, SIGHUP and Ctrl-C end with one sentence that says how to go on."""
        previous: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    previous[number] = signal.signal(number, _interrupt)
        try:
            yield
        except KeyboardInterrupt as error:
            raise WorkInterruptedError(
                f"{out}: interrupted; what is done is kept in {self.path}: give the same command"
                " again to go on"
            ) from error
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _delete(folder: Path, spared: Sequence[str]) -> None:
    """Delete what is in `folder`, but for the names in `spared`."""
    for entry in sorted(folder.iterdir()):
        if entry.name in spared:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / _LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        except BlockingIOError:
            mine = False
        if not mine:
            file.seek(0)
            who = file.read(200).strip() or "unknown"
            raise LockedError(
                f"{folder}: another process works there ({who}); wait for it, or end it"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _check(work: Unfinished, order: Order) -> None:
    path = work.path / _RECORD
    try:
        found: Any = read_json(path, _LIMIT)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise DataError(f"{path}: cannot be read; `again` starts over") from error
    wanted = order.to_json()
    if found == wanted:
        return
    difference = _difference(found, wanted)
    if difference == _INPUTS:
        difference = _changed_input(work.path / _INPUTS, order.inputs)
    raise DataError(
        f"{work.path}: an unfinished {work.what} is there, and {difference}; give the same command"
        " to go on, or `again` to start over"
    )


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    """The first thing in which two records differ, in words."""
    if not isinstance(found, dict) or found.get("command") != wanted["command"]:
        return "it is of another command"
    for group in ("options", "sources"):
        for name, value in wanted[group].items():
            old = found.get(group, {}).get(name)
            if old != value:
                return f"`{name}` was {old}, now it is {value}"
    return _INPUTS


def _changed_input(path: Path, lines: Sequence[str]) -> str:
    """The first input file that is not as it was, in words."""
    now = {line.rpartition("\t")[2]: line for line in lines}
    with open_regular(path) as file:
        for raw in file:
            line = raw.decode("utf-8", "surrogateescape").rstrip("\n")
            name = line.rpartition("\t")[2]
            if line.startswith("documents ") and line not in lines:
                return f"its input was read in another way ({', '.join(line.split(chr(9)))})"
            if name not in now:
                return f"the input {name} is gone"
            if now.pop(name) != line:
                return f"the input {name} has changed"
    if now:
        return f"the input {next(iter(now))} is new"
    return "the input files come in another order"


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
