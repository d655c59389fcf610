"""Numbers out of rows, and their last few together.

Comes in: rows of metrics.jsonl, of any version and perhaps damaged. Goes out: finite numbers, or
None where there is none.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

from electra_dist.runs.metrics_log import Row

#: Logged rows that a rule looks at together: their median counts, so that up to two odd rows
#: neither begin nor end a finding.
ROWS = 5


def number(row: Row, name: str) -> float | None:
    """The finite number `name` of a row; None where it is missing, undefined or no number."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    if math.isfinite(found):
        return found
    return None


def entropy(share: float) -> float:
    """Of a coin that falls on one side with this probability, nats: the loss of a constant guess.

    0 where the share is 0 or 1.
    """
    if not 0 < share < 1:
        return 0.0
    return -share * math.log(share) - (1 - share) * math.log(1 - share)


class Recent:
    """The last few values of something."""

    def __init__(self, rows: int = ROWS) -> None:
        """`rows` of them are looked at together."""
        self._values: deque[float] = deque(maxlen=rows)

    def add(self, value: float) -> float | None:
        """Take one more in; the median of the last `rows`, the upper of two in the middle.

        None while there are fewer.
        """
        self._values.append(value)
        if len(self._values) < (self._values.maxlen or 0):
            return None
        return sorted(self._values)[len(self._values) // 2]

    def clear(self) -> None:
        """Begin anew."""
        self._values.clear()

    @property
    def most_common(self) -> float:
        """The value that is there most often."""
        return statistics.mode(self._values)
