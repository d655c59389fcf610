"""What makes two rows the same one: all that is not of the clock."""

from __future__ import annotations

import pytest

from electra_dist.runs.metrics import all_metrics
from electra_dist.tracking.wandb.follower import key_of

ROW = {one.name: 3.0 for one in all_metrics()} | {"step": 7}


@pytest.mark.parametrize("name", [one.name for one in all_metrics() if one.of_clock])
def test_a_step_that_is_repeated_on_another_day_is_the_same_row(name: str) -> None:
    assert key_of(ROW | {name: 4.5}) == key_of(ROW)
    assert key_of(ROW | {name: None}) == key_of(ROW)


@pytest.mark.parametrize("name", [one.name for one in all_metrics() if not one.of_clock])
def test_a_step_that_is_trained_otherwise_is_another_row(name: str) -> None:
    assert key_of(ROW | {name: 4.5}) != key_of(ROW)


def test_what_this_version_does_not_know_of_the_clock_is_left_out_by_its_group() -> None:
    later = {"speed/of_a_later_version": 1.0, "memory/of_a_later_version": 2.0}
    assert key_of(ROW | later) == key_of(ROW)
