"""Signals that come before training can save, while its libraries are imported, which takes
seconds.

There is nothing to lose yet. A process that trains alone ends at once, with 75 ("run me again") for
SIGTERM, SIGUSR1 and SIGHUP, and 130 for Ctrl-C. One of several ranks only takes note: its peers
would wait for it, so they hear of it when they meet, and all end alike
(`electra_dist.train.faults`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

from electra_dist.console import close_live_line, put
from electra_dist.errors import EXIT_CTRL_C, EXIT_UNFINISHED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_heard: list[signal.Signals] = []
_installed: list[signal.Signals] = []


def listen(words: list[str], environment: Mapping[str, str]) -> None:
    """Hear the signals from here on, when `words` (a command line without its program) train."""
    if words[:1] != ["train"] and words[:2] != ["launch", "local"]:
        return
    if ranks(environment) > 1:
        receive = _note
    else:
        receive = _end
    for number in SIGNALS:
        if not stays_ignored(number):
            signal.signal(number, receive)
            _installed.append(number)
    os.register_at_fork(after_in_child=_forget)


def stays_ignored(number: signal.Signals) -> bool:
    """Whether who started this process has it ignore what a terminal sends: nohup, or a shell's
    background job.

    The other signals are meant for training, also where what started it was deaf to them, as
    torchrun's agent is.
    """
    return number in (signal.SIGHUP, signal.SIGINT) and signal.getsignal(number) is signal.SIG_IGN


def heard() -> signal.Signals | None:
    """What came so far, Ctrl-C before anything else. From here on others hear the signals."""
    _installed.clear()
    if signal.SIGINT in _heard:
        return signal.SIGINT
    return next(iter(_heard), None)


def is_listener(handler: object) -> bool:
    """Whether a handler is one of those above,
    which are of no use once training hears the signals itself.
    """
    return handler in (_note, _end)


def ranks(environment: Mapping[str, str]) -> int:
    """How many processes train together, as far as the variables of torchrun and Slurm tell."""
    in_step = environment.get("SLURM_STEP_ID", "").isdigit()
    if in_step:
        tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS")
    else:
        tasks = None
    count = environment.get("WORLD_SIZE") or tasks or "1"
    if count.isdigit():
        return int(count)
    return 1


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and signal.SIGINT in _heard:
        _leave(EXIT_CTRL_C)
    _heard.append(signal.Signals(number))


def _end(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        _leave(EXIT_CTRL_C)
    put("interrupted before the first step; run the same command again to go on")
    _leave(EXIT_UNFINISHED)


def _leave(status: int) -> NoReturn:
    close_live_line()
    os._exit(status)


def _forget() -> None:
    """A forked child is no rank: signals end it."""
    for number in _installed:
        if is_listener(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
