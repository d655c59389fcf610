"""What ends a command: the exit statuses, in one table, and the errors that end it in one line
without a traceback.

Every `UserError` names the file or key, the value found, what was expected and what to do next. The
command line prints it and exits with its `exit_status`; `--debug` shows the traceback as well. The
job script and docs/train.md take their numbers from `EXIT_STATUSES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

EXIT_OK = 0
EXIT_CRASH = 1
EXIT_USER_ERROR = 2
EXIT_BAD_NODES = 3
#: A rank hung, and the watchdog ended the run (sysexits.h, EX_UNAVAILABLE).
EXIT_HANG = 69
#: Training diverged, and the guard gave it up (sysexits.h, EX_SOFTWARE).
EXIT_DIVERGED = 70
#: The run's own files cannot be written (sysexits.h, EX_IOERR).
EXIT_STORAGE = 74
#: "Not finished, run me again":
#: the run was interrupted and has saved its state (sysexits.h, EX_TEMPFAIL).
EXIT_UNFINISHED = 75
EXIT_CTRL_C = 130


class ExitStatus(NamedTuple):
    """One row of the table: a number, what it says, and what to do then."""

    number: int
    meaning: str
    advice: str


EXIT_STATUSES = (
    ExitStatus(EXIT_OK, "finished", "export the weights"),
    ExitStatus(
        EXIT_UNFINISHED,
        "interrupted; what was trained is saved, once there was anything",
        "run the same command again",
    ),
    ExitStatus(
        EXIT_USER_ERROR,
        "a mistake, or a run that somebody else trains: one line says what was found and expected",
        "correct it",
    ),
    ExitStatus(
        EXIT_BAD_NODES,
        "the preflight found bad nodes",
        "leave them out; the job script does so and requeues itself",
    ),
    ExitStatus(
        EXIT_HANG,
        "a rank hung, and the watchdog ended the run; the stacks of all ranks are in RUN/logs/",
        "run it again, without the host that the message names; the job script does so",
    ),
    ExitStatus(
        EXIT_DIVERGED,
        "training diverged, and the guard's rollbacks are used up; the last healthy checkpoint is"
        " kept",
        "lower the learning rate from there on; the message says how",
    ),
    ExitStatus(
        EXIT_STORAGE,
        "the run's files cannot be written: no space, quota, permission, read-only",
        "make room, run it again; the job script tries a few times",
    ),
    ExitStatus(
        EXIT_CTRL_C,
        "ended by Ctrl-C without saving: during start-up, or a second Ctrl-C",
        "start again: it goes on",
    ),
    ExitStatus(
        EXIT_CRASH,
        "a crash; 128 + N for a rank that signal N ended",
        "read the message and RUN/logs/",
    ),
)


class UserError(Exception):
    """A mistake in what the user gave: configuration, data, paths, sizes."""

    everywhere = False
    """Every rank raises this same error, so that rank 0 alone needs to print it."""
    exit_status = EXIT_USER_ERROR


class ConfigError(UserError):
    """A configuration key that does not exist, has a wrong value or contradicts another one."""

    everywhere = True  # all ranks read the same file


class DataError(UserError):
    """Input data, a shard or a manifest that is missing, damaged or not what it claims to be."""


class CheckpointError(UserError):
    """A checkpoint that is missing, incomplete or damaged."""


class LoaderDiedError(UserError):
    """The process that loads the data has ended without saying why:
    killed, perhaps because memory ran out.
    """

    exit_status = EXIT_CRASH


class StorageError(UserError):
    """A file of the run that cannot be written:
    no space, quota, permission, read-only file system.
    """

    exit_status = EXIT_STORAGE


class LockedError(UserError):
    """A run that somebody else writes just now."""


class LostLockError(UserError):
    """A run whose lock another process has taken over,
    because this one gave no sign of life for too long.
    """


class WaitInterruptedError(UserError):
    """A signal that came while this process waited for the lock of a run."""

    exit_status = EXIT_UNFINISHED


class DivergedError(UserError):
    """Training that diverged more often than `guard.max_rollbacks` allows."""

    exit_status = EXIT_DIVERGED


class PeerFailedError(UserError):
    """Another rank has failed, and this one ends because of it;
    what went wrong is in that one's log.
    """

    def __init__(self, message: str, exit_status: int = EXIT_CRASH) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def nearest(name: str, valid: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the valid name closest to `name`,
    or the empty string when none is close.
    """
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    if matches:
        return f" (did you mean {matches[0]!r}?)"
    return ""
