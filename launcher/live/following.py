"""The metrics of a run as they grow: the newest numbers, the curves, the findings.

Comes in: metrics.jsonl, read on from where it was. Goes out: what a frame draws. However long the
file is, a `Followed` holds a few hundred points for each curve, and the rows of the newest
findings.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from electra_dist.health import EVENT, Finding, open_findings
from electra_dist.runs import metrics
from electra_dist.runs.metrics_log import Row, RowTail, numbers_of
from launcher.held_out import HeldOut
from launcher.live.curve import Curve, Point
from launcher.recorded import Logged

#: Beginning of the names of all losses.
_LOSS = "loss/"
_DRAWN = (metrics.AUC.name, metrics.TOKENS_PER_SECOND.name)
#: Losses that are followed: a foreign file may name as many as it likes.
_LOSSES = 8
#: Rows of findings that are kept.
_EVENTS = 1000


class Followed:
    """The metrics of one run.

    held_out  the newest held-out row
    behind    bytes of the file that are still to be read
    """

    def __init__(self, path: Path) -> None:
        self._tail = RowTail(path)
        self._forget()

    def _forget(self) -> None:
        self._curves: dict[str, Curve] = {}
        self._events: deque[Row] = deque(maxlen=_EVENTS)
        self._last = Row()
        self.held_out: HeldOut | None = None
        self._best: HeldOut | None = None
        self.behind = 0

    @property
    def logged(self) -> Logged:
        """What `status` says of the metrics."""
        return Logged(self._last, self._best, self._tail.broken)

    def read(self) -> None:
        """Take in what was added to the file, some MiB at most; `behind` says what is left."""
        added = self._tail.read()
        if added.afresh:
            self._forget()
        self.behind = added.behind
        for row in added.rows:
            self._take(row)

    def _take(self, row: Row) -> None:
        if "event" in row:
            if row["event"] == EVENT:
                self._events.append(row)
            return
        numbers = numbers_of(row)
        losses = [name for name in numbers if name.startswith(_LOSS)]
        if losses:
            self._last = numbers | {"step": row["step"]}
        for name in (*losses[:_LOSSES], *_DRAWN):
            if name in numbers:
                self._curves.setdefault(name, Curve()).add(row["step"], numbers[name])
        held_out = HeldOut.of_row(row)
        if held_out is not None:
            self.held_out = held_out
            if held_out.beats(self._best):
                self._best = held_out

    def points(self) -> dict[str, tuple[Point, ...]]:
        """The curves that have any point, by the name of the metric."""
        return {name: curve.points for name, curve in self._curves.items() if curve.points}

    def findings(self) -> tuple[Finding, ...]:
        """Those that have begun and not ended."""
        return open_findings(self._events)
