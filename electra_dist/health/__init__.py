"""The verdict on a run in plain words: rules over its metrics, each with what to do.

Comes in: rows of metrics.jsonl, and facts of the run. Goes out: `Finding`s. Needs no torch: a login
node judges a run as training itself does.
"""

from electra_dist.health.catalog import RULES
from electra_dist.health.finding import EVENT, Finding, Severity, open_findings, still_open
from electra_dist.health.known import Known
from electra_dist.health.monitor import Monitor, judge, verdict
from electra_dist.health.rule import Rule

__all__ = [
    "EVENT",
    "RULES",
    "Finding",
    "Known",
    "Monitor",
    "Rule",
    "Severity",
    "judge",
    "open_findings",
    "still_open",
    "verdict",
]
