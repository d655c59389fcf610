"""The metrics of a run as they grow: the newest numbers, the curves, the findings.

Comes in: metrics.jsonl, read on from where it was. Goes out: what a frame draws. However long the
file is, a `Followed` holds a few hundred points for each curve.
"""

from __future__ import annotations

from electra_dist.errors import UserError
from electra_dist.runs import metrics
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import RowTail
from launcher.live.curve import Curve, Point
from launcher.logged import LOSS, Logged, Tally

_DRAWN = (metrics.AUC.name, metrics.TOKENS_PER_SECOND.name)
#: Losses that are followed: a foreign file may name as many as it likes.
_LOSSES = 8


class Followed:
    """The metrics of one run; `behind` bytes of the file are still to be read."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._facts_at = 0
        self._begin()

    def _begin(self) -> None:
        self._tail = RowTail(self._run.metrics)
        self._forget()

    def _forget(self) -> None:
        self._tally = Tally(self._run)
        self._starts = self._count_starts()
        self._curves: dict[str, Curve] = {}
        self.behind = 0

    @property
    def logged(self) -> Logged:
        """What `status` says of the metrics."""
        return self._tally.so_far(self._tail.broken)

    def read(self) -> None:
        """Take in what was added to the file, some MiB at most; `behind` says what is left."""
        if self._has_started_again():
            self._begin()
        added = self._tail.read()
        if added.afresh:
            self._forget()
        self.behind = added.behind
        for row in added.rows:
            numbers = self._tally.take(row)
            losses = [name for name in numbers if name.startswith(LOSS)]
            for name in (*losses[:_LOSSES], *_DRAWN):
                if name in numbers:
                    self._curves.setdefault(name, Curve()).add(row["step"], numbers[name])

    def points(self) -> dict[str, tuple[Point, ...]]:
        """The curves that have any point, by the name of the metric."""
        return {name: curve.points for name, curve in self._curves.items() if curve.points}

    def _has_started_again(self) -> bool:
        """Whether the run has one more start: what is known of it decides about its findings."""
        try:
            changed = self._run.facts.stat().st_mtime_ns
        except OSError:
            return False
        if changed == self._facts_at:
            return False
        self._facts_at = changed
        return self._count_starts() != self._starts

    def _count_starts(self) -> int:
        try:
            return len(self._run.read_facts().starts)
        except UserError:
            return 0
