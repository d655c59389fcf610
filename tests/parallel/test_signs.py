"""What a process says of itself: phases, steps, signs, and how long a step usually takes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from electra_dist.parallel import signs


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(signs, "time", SimpleNamespace(monotonic=made))
    signs.forget()
    yield made
    monkeypatch.undo()
    signs.forget()


def step(clock: Clock, index: int, data: float, compute: float) -> None:
    signs.enter("data", index)
    clock.now += data
    signs.enter("step", index)
    clock.now += compute


def test_a_step_is_its_rows_and_its_computation_and_the_first_one_does_not_count(
    clock: Clock,
) -> None:
    step(clock, 0, 1.0, 500.0)
    signs.enter("data", 1)
    assert (signs.doing().last_step, signs.doing().step_seconds) == (clock.now, None)
    step(clock, 1, 1.0, 2.0)
    with signs.phase("checkpoint", 2):
        clock.now += 60.0
    step(clock, 2, 1.0, 2.0)
    signs.enter("data", 3)
    assert signs.doing().step_seconds == 3.0


def test_the_usual_step_is_the_mean_where_the_host_runs_ahead_of_its_gpu(clock: Clock) -> None:
    for index in range(41):
        step(clock, index, 0.0, 10.0 if index % 10 == 0 else 0.1)
    signs.enter("data", 41)
    assert signs.doing().step_seconds == pytest.approx((4 * 10.0 + 36 * 0.1) / 40)


def test_a_phase_inside_of_another_gives_way_to_it_again(clock: Clock) -> None:
    signs.enter("step", 7)
    before = signs.doing()
    with signs.phase("validation", 8):
        clock.now += 5
        signs.sign("batch 3")
        inside = signs.doing()
        assert (inside.phase, inside.step, inside.detail, inside.last_sign) == (
            "validation",
            8,
            "batch 3",
            clock.now,
        )
    after = signs.doing()
    assert (after.phase, after.step, after.detail) == ("step", 8, "")
    assert after.entered == before.entered + 2
    assert after.signs == before.signs + 3


def test_who_works_ahead_is_heard_in_its_phase_only(clock: Clock) -> None:
    signs.enter("step", 1)
    signed = signs.doing().signs
    signs.sign("block 4 of a.tar", within="data")
    assert (signs.doing().signs, signs.doing().detail) == (signed, "")
    signs.enter("data", 2)
    assert signs.doing().detail == "block 4 of a.tar"
    clock.now += 1
    signs.sign("block 5 of a.tar", within="data")
    assert (signs.doing().detail, signs.doing().last_sign) == ("block 5 of a.tar", clock.now)
