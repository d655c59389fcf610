"""The rules of health while a run is trained: they hear each row as it is written.

Comes in: rows of metrics.jsonl. Goes out: the findings that begin or end. A bystander: what fails
here is a warning, and training goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from electra_dist.health import Finding, Monitor, open_findings
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import Row, is_event


class Judging:
    """Stands, at a start and after a rollback, where the rows that are kept leave it."""

    def __init__(
        self, run: RunDir, monitor: Callable[[], Monitor] | None, warn: Callable[[str], None]
    ) -> None:
        """`monitor` makes one that has heard nothing yet; without it nothing is judged."""
        self._run = run
        self._make = monitor
        self._warn = warn
        self._monitor: Monitor | None = None
        self._warned: set[str] = set()

    def begin(self) -> tuple[Finding, ...]:
        """Hear what the file holds; the findings that should stand in it and do not.

        A crash between a row and its finding leaves one out. One that the rules do not see any
        more, because another version judges, ends.
        """
        self._monitor = None
        if self._make is None:
            return ()
        try:
            monitor = self._make()
            missing = _replay(monitor, self._run)
        except Exception as error:  # a bystander, whatever the files of the run hold
            self._say_once("all", f"no row is judged: {error}")
            return ()
        self._monitor = monitor
        self._say_faults()
        return missing

    def hear(self, row: Row) -> tuple[Finding, ...]:
        """Take in a row that was written; the findings that begin or end with it."""
        if self._monitor is None:
            return ()
        findings = self._monitor.hear(row)
        self._say_faults()
        return findings

    def _say_faults(self) -> None:
        if self._monitor is None:
            return
        for rule, error in self._monitor.faults.items():
            self._say_once(rule, f"rule {rule} fails and is left out: {error}")

    def _say_once(self, what: str, sentence: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._warn(f"health: {sentence}; training goes on")


def _replay(monitor: Monitor, run: RunDir) -> tuple[Finding, ...]:
    """Let `monitor` hear the rows of the file; findings by which it and the file differ."""
    events = []
    seen: dict[str, Finding] = {}
    last_step = 0
    for row in run.read_metrics():
        last_step = row["step"]
        if is_event(row):
            events.append(row)
        for finding in monitor.hear(row):
            if finding.state == "begins":
                seen[finding.rule] = finding
            else:
                del seen[finding.rule]
    noted = {finding.rule: finding for finding in open_findings(events)}
    begun = [finding for rule, finding in seen.items() if rule not in noted]
    over = [
        Finding(rule, old.severity, last_step, "the rules of this start do not see it", "", "ends")
        for rule, old in noted.items()
        if rule not in seen
    ]
    return (*begun, *over)
