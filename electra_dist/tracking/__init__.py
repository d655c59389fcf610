"""Where the numbers of a run go: `metrics.jsonl`, which is the record, and the sinks that mirror
it.

Comes in: metrics by name, one row per logged step. Goes out: lines of `metrics.jsonl`, and W&B's
rows.
"""

__all__ = ["dashboard", "sinks"]
