"""The health of a run: what its rules found, and what of it is over.

Comes in: a `LoadedRun`. Goes out: `Verdict`. Where training has logged findings, they are told;
where it has not, as a run of an earlier version, the rules judge its rows now.
"""

from __future__ import annotations

from dataclasses import dataclass

from electra_dist.health import Finding, still_open
from electra_dist.report.loading import LoadedRun


@dataclass(frozen=True)
class Past:
    """A finding that has ended, and the step where it did."""

    finding: Finding
    ended: int


@dataclass(frozen=True)
class Verdict:
    """Findings of one run, oldest first; `is_of_now` where the rules were asked by this report."""

    open: tuple[Finding, ...]
    past: tuple[Past, ...]
    is_of_now: bool


def verdict_of(loaded: LoadedRun) -> Verdict:
    """What the rows of a run tell of its health."""
    findings = loaded.logged or loaded.judged
    begun: dict[str, Finding] = {}
    past = []
    for finding in findings:
        if finding.state == "begins":
            begun[finding.rule] = finding
        elif finding.rule in begun:
            past.append(Past(begun.pop(finding.rule), finding.step))
    return Verdict(still_open(findings), tuple(past), bool(loaded.judged and not loaded.logged))
