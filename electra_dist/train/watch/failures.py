"""The error that ends training on one rank: its exit status, and whether another rank is its cause.

Comes in: an exception of the training thread. `electra_dist.parallel.ending` prints it.
"""

from __future__ import annotations

import re

from electra_dist.errors import EXIT_CRASH, EXIT_CTRL_C, UserError

_COMMUNICATION = re.compile(
    r"connection (closed|reset)|broken pipe|gloo|nccl|socket|timed out|\bpeer\b", re.IGNORECASE
)


def exit_status(error: BaseException) -> int:
    """The exit status that the whole run gets by `error` of one rank."""
    if isinstance(error, UserError):
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return EXIT_CTRL_C
    return EXIT_CRASH


def is_about_others(error: BaseException) -> bool:
    """Whether the loss of another rank looks like this here."""
    return isinstance(error, RuntimeError) and bool(_COMMUNICATION.search(str(error)))
