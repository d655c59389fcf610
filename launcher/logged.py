"""What stands in the metrics of a run: its newest numbers, its best held-out loss, its findings.

Comes in: rows of metrics.jsonl, all at once or as they come. Goes out: a `Logged`. Findings are
those of the rules of health, also for a run of a version that had none; where the configuration or
the facts of a run cannot be read, those that training noted itself.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from electra_dist import config as configuration
from electra_dist.errors import UserError
from electra_dist.health import Finding, Known, Monitor, still_open
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import Row, is_event, numbers_of
from launcher.held_out import HeldOut

#: Beginning of the names of all losses.
LOSS = "loss/"


class Logged(NamedTuple):
    """What the metrics tell.

    last      the numbers of the newest row of a logged step, empty where there is none
    held_out  the newest held-out row, and `best` the one with the lowest loss
    findings  those that stand, oldest first; None where nobody judges
    broken    lines that are no rows
    """

    last: Row
    held_out: HeldOut | None
    best: HeldOut | None
    findings: tuple[Finding, ...] | None
    broken: int


class Tally:
    """Takes in the rows of a run one by one."""

    def __init__(self, run: RunDir) -> None:
        self._last = Row()
        self._held_out: HeldOut | None = None
        self._best: HeldOut | None = None
        self._findings: tuple[Finding, ...] = ()
        self._judges = True
        self._monitor: Monitor | None = None
        with contextlib.suppress(UserError):
            config = configuration.load(run.config)
            self._judges = config.tracking.health
            known = Known.of(config, run.read_facts())
            self._monitor = Monitor(known, config.tracking.health_ignore)

    def take(self, row: Row) -> dict[str, float]:
        """The next row; its numbers, none of a row of an event."""
        if is_event(row):
            finding = Finding.from_row(row)
            if finding is not None and self._monitor is None:
                self._find(finding)
            return {}
        numbers = numbers_of(row)
        if any(name.startswith(LOSS) for name in numbers):
            self._last = {**numbers, "step": row["step"]}
        held_out = HeldOut.of_row(row)
        if held_out is not None:
            self._held_out = held_out
            if held_out.beats(self._best):
                self._best = held_out
        if self._monitor is not None:
            for finding in self._monitor.hear(row):
                self._find(finding)
        return numbers

    def _find(self, finding: Finding) -> None:
        if self._judges:
            self._findings = still_open((*self._findings, finding))

    def so_far(self, broken: int) -> Logged:
        """What the rows tell, beside `broken` lines that are none."""
        findings = None
        if self._judges:
            findings = self._findings
        return Logged(self._last, self._held_out, self._best, findings, broken)


def read_logged(run: RunDir) -> Logged:
    """Read all rows of a run."""
    tally = Tally(run)
    reader = run.read_metrics()
    for row in reader:
        tally.take(row)
    return tally.so_far(reader.broken)
