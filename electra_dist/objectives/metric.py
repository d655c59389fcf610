"""A logged number: its name, its unit, its meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: One row of `metrics.jsonl` by name; NaN where a number is undefined.
Metrics = dict[str, float | int]

#: Before the name of a metric of the held-out rows.
HELD_OUT = "validation/"


@dataclass(frozen=True)
class Metric:
    """One logged number.

    name      key in metrics.jsonl, W&B and TensorBoard
    unit      of the value; empty for a number without one
    meaning   one line of Markdown
    spec      format specification where people read it
    best      which value of a run its summary keeps
    held_out  measured on the held-out rows as well, as `HELD_OUT` + name
    formula   how it is computed, where the meaning does not say it already
    healthy   the range of a healthy run, in words
    source    where the definition or the range comes from
    of_clock  depends on the machine and its load: another value when the same step is repeated
    """

    name: str
    unit: str
    meaning: str
    spec: str = ".3f"
    best: Literal["min", "max", "last"] = "last"
    held_out: bool = False
    formula: str = ""
    healthy: str = ""
    source: str = ""
    of_clock: bool = False

    @property
    def name_held_out(self) -> str:
        """The name of the same number on the held-out rows."""
        return HELD_OUT + self.name

    def name_of(self, source: str) -> str:
        """The name of the same number of one source of mixed data."""
        return f"{self.name}/{source}"

    def name_held_out_of(self, source: str) -> str:
        """The name of the same number on the held-out rows of one source."""
        return f"{HELD_OUT}{source}/{self.name}"

    def text(self, value: float | None) -> str:
        """`value` as people read it; dashes of the same width where it is undefined."""
        if value is None or math.isnan(value):
            return "-" * len(format(0.0, self.spec))
        return format(value, self.spec)
