"""The health of a run: what its rules found, as it was logged.

Comes in: a `LoadedRun`. Goes out: `Verdict`, with what still holds and what has passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from electra_dist.health import Finding, open_findings
from electra_dist.report.loading import LoadedRun


@dataclass(frozen=True)
class Past:
    """A finding that has ended, and the step where it did."""

    finding: Finding
    ended: int


@dataclass(frozen=True)
class Verdict:
    """Findings of one run, oldest first."""

    open: tuple[Finding, ...]
    past: tuple[Past, ...]


def verdict_of(loaded: LoadedRun) -> Verdict:
    """What the rows of a run tell of its health."""
    begun: dict[str, Finding] = {}
    past = []
    for finding in loaded.events:
        if finding.state == "begins":
            begun[finding.rule] = finding
        elif finding.rule in begun:
            past.append(Past(begun.pop(finding.rule), finding.step))
    return Verdict(open_findings(event.to_row() for event in loaded.events), tuple(past))
