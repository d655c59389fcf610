"""The end of all ranks: why it comes, and what is printed and written about it.

Comes in: an `End`, on every rank. Goes out: lines in the logs, RUN/hang.json, the ending in the
run's pulse, the user's hook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from electra_dist.parallel import signs
from electra_dist.runs import heartbeat, lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.hooks import Hook
from electra_dist.runs.progress import write_hang
from electra_dist.train.watch.bounded import print_line
from electra_dist.train.watch.stacks import stacks_file

_ENDINGS: dict[str, Literal["hung", "failed", "interrupted"]] = {
    "hang": "hung",
    "failed": "failed",
    "gone": "failed",
    "interrupted": "interrupted",
}


@dataclass(frozen=True)
class End:
    """Why all ranks are to end now, in one sentence, and with which exit status;
    `rank` is whom it is about.
    """

    kind: Literal["hang", "failed", "gone", "interrupted"]
    status: int
    message: str
    rank: int
    hang: dict[str, Any] | None = None
    stamp: str = ""


class LastWords:
    """What one rank tells of an end."""

    def __init__(self, run: RunDir, hook: Hook, rank: int, launch: str) -> None:
        self._run = run
        self._hook = hook
        self._rank = rank
        self._launch = launch

    def tell(self, end: End, finder: bool) -> None:
        """Lines and files; `finder` is the rank that has found a hang."""
        if end.kind == "hang":
            stacks = stacks_file(self._run, end.stamp, "*")
            print_line(f"hang: {end.message}. Stacks of all ranks: {stacks}")
        elif end.rank != self._rank or end.kind != "failed":
            print_line(f"rank {self._rank}: {end.message}; this rank ends because of it")
        if finder and end.hang is not None:
            write_hang(
                self._run, end.hang, self._launch, str(stacks_file(self._run, end.stamp, "*"))
            )
        if finder or self._rank == 0:
            ending = _ENDINGS[end.kind]
            if self._rank != 0 or not lock.is_lost(self._run):
                heartbeat.note_ending(self._run, ending, end.message)
            self._hook.tell(ending, end.message, signs.doing().step)
            self._hook.wait()
