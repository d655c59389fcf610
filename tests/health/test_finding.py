"""Findings as rows of metrics.jsonl."""

from __future__ import annotations

from dataclasses import replace

import pytest

from electra_dist.health import Finding, open_findings

STALL = Finding(
    "data-stall", "warning", 30, "9% of the time goes to waiting for data", "add workers"
)


def test_a_finding_comes_back_from_its_row() -> None:
    assert Finding.from_row(STALL.to_row()) == STALL


@pytest.mark.parametrize(
    "row",
    [
        {"step": 30, "loss/generator": 6.0},
        STALL.to_row() | {"event": "other"},
        STALL.to_row() | {"severity": "loud"},
        STALL.to_row() | {"sentence": None},
        STALL.to_row() | {"state": 7},
    ],
)
def test_any_other_row_is_none(row: dict[str, object]) -> None:
    assert Finding.from_row(row) is None


def test_what_ended_is_no_longer_open() -> None:
    overflow = replace(STALL, rule="overflow", step=40)
    rows = [STALL.to_row(), overflow.to_row(), replace(STALL, step=50, state="ends").to_row()]
    assert open_findings(rows) == (overflow,)
