"""What a user did wrong, in one line: the errors that end a command without a traceback.

Every `UserError` names the file or key, the value found, what was expected and what to do next. The command
line prints it and exits with `EXIT_USER_ERROR`; `--debug` shows the traceback as well.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_USER_ERROR = 2
#: "Not finished, run me again": the run was interrupted and has saved its state (sysexits.h, EX_TEMPFAIL).
EXIT_UNFINISHED = 75


class UserError(Exception):
    """A mistake in what the user gave: configuration, data, paths, sizes."""

    everywhere = False
    """Every rank raises this same error, so that rank 0 alone needs to print it."""


class ConfigError(UserError):
    """A configuration key that does not exist, has a wrong value or contradicts another one."""

    everywhere = True  # all ranks read the same file


class DataError(UserError):
    """Input data, a shard or a manifest that is missing, damaged or not what it claims to be."""


class CheckpointError(UserError):
    """A checkpoint that is missing, incomplete or damaged."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the valid name closest to `name`, or the empty string when none is close."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
