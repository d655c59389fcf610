"""What a rule found, and how it stands in metrics.jsonl: a row of its own where it begins, and one
where it ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from electra_dist.runs.metrics_log import Row

Severity = Literal["note", "warning", "critical"]
State = Literal["begins", "ends"]

#: Value of the key `event` in the rows of findings; rows of metrics have no such key.
EVENT = "health"
_SEVERITIES = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """Something that a user should know of a run.

    rule      name of the rule, a word or two with hyphens
    step      where it began
    sentence  what is seen, with the numbers
    advice    what to do
    state     `ends` where the rule no longer holds at `step`
    """

    rule: str
    severity: Severity
    step: int
    sentence: str
    advice: str
    state: State = "begins"

    @property
    def line(self) -> str:
        """As a person reads it: what is seen since when and what to do, or that it is over."""
        if self.state == "ends":
            return f"step {self.step}: over: {self.rule}: {self.sentence}"
        return (
            f"step {self.step}: {self.severity}: {self.rule}: {self.sentence}. What to do:"
            f" {self.advice}"
        )

    def to_row(self) -> Row:
        """The row of metrics.jsonl."""
        return {"event": EVENT} | asdict(self)

    @classmethod
    def from_row(cls, row: Row) -> Finding | None:
        """The finding of a row; None for a row of anything else, or one that is damaged."""
        words = {name: row.get(name) for name in ("rule", "sentence", "advice")}
        severity = row.get("severity")
        state = row.get("state")
        if row.get("event") != EVENT or not all(isinstance(word, str) for word in words.values()):
            return None
        if severity not in _SEVERITIES or state not in get_args(State):
            return None
        return cls(step=row["step"], severity=severity, state=state, **words)  # type: ignore[arg-type]


def open_findings(rows: Iterable[Row]) -> tuple[Finding, ...]:
    """Those that began in these rows and have not ended, oldest first."""
    return still_open(finding for row in rows if (finding := Finding.from_row(row)))


def still_open(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those of `findings` that began and have not ended, oldest first."""
    found: dict[str, Finding] = {}
    for finding in findings:
        if finding.state == "begins":
            found[finding.rule] = finding
        else:
            found.pop(finding.rule, None)
    return tuple(found.values())
