"""All rules over the rows of one run, as they come or all at once.

Comes in: rows of metrics.jsonl in order, and what is known of the run. Goes out: findings that
begin and end; and one sentence about the run as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from electra_dist.config import Config
from electra_dist.health.catalog import RULES
from electra_dist.health.finding import Finding, Severity, State, still_open
from electra_dist.health.known import Known
from electra_dist.health.rule import Look, Rule, Watch
from electra_dist.runs.facts import RunFacts
from electra_dist.runs.metrics_log import Row, is_event

_WORST_FIRST: tuple[Severity, ...] = ("critical", "warning", "note")
_PLURAL: dict[Severity, str] = {"critical": "critical", "warning": "warnings", "note": "notes"}


@dataclass
class _Watched:
    """A rule at work, and whether its finding is open."""

    rule: Rule
    watch: Watch
    is_open: bool = False

    def look(self, row: Row) -> Finding | None:
        """A finding that begins or ends with this row."""
        seen = self.watch.look(row)
        if seen is None:
            return None
        if not self.is_open and seen.begins:
            self.is_open = True
            return self._finding(row, seen, self.rule.advice, "begins")
        if self.is_open and seen.ends:
            self.is_open = False
            return self._finding(row, seen, "", "ends")
        return None

    def _finding(self, row: Row, seen: Look, advice: str, state: State) -> Finding:
        rule = self.rule
        return Finding(rule.name, rule.severity, int(row["step"]), seen.sentence, advice, state)


class Monitor:
    """The rules at work on one run.

    It depends on the rows that it heard and on nothing else: one that hears the rows of a file
    stands where one stands that heard them as they were written.
    """

    def __init__(self, known: Known, ignored: Collection[str] = ()) -> None:
        """Rules named in `ignored` are left out."""
        self._watched = [
            _Watched(rule, rule.watch(known)) for rule in RULES if rule.name not in ignored
        ]
        #: Rules that failed, and by what: they are silent from then on.
        self.faults: dict[str, Exception] = {}

    def hear(self, row: Row) -> tuple[Finding, ...]:
        """Take in one more row; the findings that begin or end with it.

        Rows of events are passed over. A rule that fails goes to `faults`: never does one end
        whoever asks.
        """
        if is_event(row):
            return ()
        found = []
        for watched in list(self._watched):
            try:
                finding = watched.look(row)
            except Exception as error:  # a rule is a bystander, whatever a row holds
                self.faults[watched.rule.name] = error
                self._watched.remove(watched)
                continue
            if finding is not None:
                found.append(finding)
        return tuple(found)


def judge(rows: Iterable[Row], facts: RunFacts | None, config: Config) -> tuple[Finding, ...]:
    """What the rules say of a whole run: every finding that began or ended, oldest first.

    `still_open` has those that stand. Rules in `tracking.health_ignore` are left out.
    """
    monitor = Monitor(Known.of(config, facts), config.tracking.health_ignore)
    return tuple(finding for row in rows for finding in monitor.hear(row))


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence about a run: `healthy`, or what is open, the worst first."""
    standing = still_open(findings)
    if not standing:
        return "healthy"
    counts = []
    for severity in _WORST_FIRST:
        count = sum(finding.severity == severity for finding in standing)
        if count:
            counts.append(f"{count} {severity if count == 1 else _PLURAL[severity]}")
    ordered = sorted(standing, key=lambda finding: _WORST_FIRST.index(finding.severity))
    sentences = "; ".join(f"{finding.rule}: {finding.sentence}" for finding in ordered)
    return f"{', '.join(counts)}: {sentences}"
