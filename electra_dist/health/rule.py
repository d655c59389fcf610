"""A rule: what it looks at, when its finding begins and ends, what to do then.

Comes in: rows of metrics, one by one. Goes out: a `Look` at each of them. A finding begins at one
threshold and ends at another one, which lies further on the good side: a number that stays near
the threshold does not switch it on and off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from electra_dist.health.finding import Severity
from electra_dist.health.known import Known
from electra_dist.health.numbers import Recent
from electra_dist.runs.metrics_log import Row


class Look(NamedTuple):
    """What a rule sees in a row and those before it.

    begins    its finding would begin here
    ends      its finding would end here
    sentence  what is seen, with the numbers
    """

    begins: bool
    ends: bool
    sentence: str


class Watch(Protocol):
    """A rule at work on one run: it remembers what it needs of earlier rows."""

    def look(self, row: Row) -> Look | None:
        """None where the row says nothing about the rule: its finding stays as it is."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    name      a word or two with hyphens
    severity  of its findings
    needs     metrics that it looks at; where they are missing, the rule is silent
    begins    when its finding begins, in words with the threshold
    ends      when it ends
    advice    what to do
    source    where the threshold comes from
    watch     starts it on one run
    """

    name: str
    severity: Severity
    needs: tuple[str, ...]
    begins: str
    ends: str
    advice: str
    source: str
    watch: Callable[[Known], Watch]


class Above:
    """A number that should be small: its median over the last rows counts."""

    def __init__(
        self,
        value: Callable[[Row], float | None],
        begins: float,
        ends: float,
        sentence: Callable[[float], str],
    ) -> None:
        """`value` of a row; `sentence` of the median."""
        self._value = value
        self._begins = begins
        self._ends = ends
        self._sentence = sentence
        self._recent = Recent()

    def look(self, row: Row) -> Look | None:
        """None while the median is not known."""
        value = self._value(row)
        if value is None:
            return None
        median = self._recent.add(value)
        if median is None:
            return None
        return Look(median > self._begins, median < self._ends, self._sentence(median))
