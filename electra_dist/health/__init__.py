"""The verdict on a run in plain words: rules over its metrics, each with what to do.

Comes in: rows of metrics.jsonl, and facts of the run. Goes out: `Finding`s. Needs no torch: a login
node judges a run as training itself does.
"""

from electra_dist.health.finding import EVENT, Finding, Severity, open_findings

__all__ = ["EVENT", "Finding", "Severity", "open_findings"]
