"""The parts of a step add up to it, communication is what holds it up, and nothing waits for the
device.
"""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from electra_dist.parallel.collectives import all_reduce_max
from electra_dist.parallel.world import World
from electra_dist.runs import metrics
from electra_dist.train import logbook as logbook_module
from electra_dist.train import step as step_module
from electra_dist.train.logbook import Logbook
from electra_dist.train.state import RunState
from electra_dist.zero.clock import PARTS, StepClock
from tests.support.processes import run_ranks
from tests.support.small import VOCABULARY, make_config, make_engines, make_step

TWO_RANKS = World(world_size=2)


class HandClock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_parts_add_up_to_the_steps_and_communication_is_taken_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand = HandClock(monkeypatch)
    clock = StepClock(TWO_RANKS)
    for _ in range(2):
        with clock.waiting_for_data():
            hand.now += 0.5
        clock.enter("generator_forward")
        hand.now += 1
        clock.enter("discriminator_backward")
        hand.now += 2
        with clock.communicating():
            hand.now += 3
            with clock.communicating():  # a collective inside of a gather
                hand.now += 4
        hand.now += 1
        clock.enter("optimizer")
        hand.now += 8
        clock.leave()
        hand.now += 1000  # validation
    found = clock.per_step()
    assert {part: seconds for part, seconds in found.items() if seconds} == {
        "data_wait": 0.5,
        "generator_forward": 1,
        "discriminator_backward": 3,
        "communication": 7,
        "optimizer": 8,
    }
    assert all(math.isnan(seconds) for seconds in clock.per_step().values())


def test_outside_of_a_step_and_alone_nothing_is_communication(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand = HandClock(monkeypatch)
    for world in (TWO_RANKS, World()):
        clock = StepClock(world)
        if world is TWO_RANKS:
            with clock.communicating():  # of a validation
                hand.now += 5
        clock.enter("optimizer")
        if world is not TWO_RANKS:
            with clock.communicating():
                hand.now += 1
        clock.leave()
        assert clock.per_step()["communication"] == 0


def test_what_was_forgotten_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that training went back behind."""
    hand = HandClock(monkeypatch)
    clock = StepClock(TWO_RANKS)
    for seconds in (100, 1):
        clock.clear()
        clock.enter("optimizer")
        hand.now += seconds
        clock.leave()
    assert clock.per_step()["optimizer"] == 1


class Device:
    """Stands for a GPU: does what was queued when the test lets it, and cannot be waited for."""

    def __init__(self) -> None:
        self.queued = 0.0
        self.done = 0.0

    def event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._at = math.inf

    def record(self, stream: Any) -> None:
        self._at = self._device.queued

    def query(self) -> bool:
        return self._at <= self._device.done

    def elapsed_time(self, end: Event) -> float:
        assert self.query(), "the device is not at the beginning yet"
        assert end.query(), "the device is not at the end yet"
        return 1e3 * (end._at - self._at)


def test_events_are_read_when_the_device_is_past_them(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    streams = {"current": "computes"}
    monkeypatch.setattr(torch.cuda, "Event", device.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: streams["current"])
    clock = StepClock(World(device=torch.device("cuda", 0), world_size=2))
    clock.enter("generator_forward")
    device.queued += 3
    with clock.communicating():
        device.queued += 2
    streams["current"] = "gathers"
    with clock.communicating():  # beside the work
        device.queued += 0
    streams["current"] = "computes"
    clock.enter("optimizer")
    device.queued += 7
    clock.leave()

    device.done = 5
    first = clock.per_step()
    assert (first["generator_forward"], first["communication"]) == (3, 2)
    assert first["optimizer"] == 0
    device.done = 12
    clock.enter("generator_forward")
    clock.leave()
    assert clock.per_step()["optimizer"] == 7


# --- in a training --------------------------------------------------------------------------------


def train_with_a_late_rank(world: Any, stages: list[int]) -> list[dict[str, float]]:
    """Rows of two steps per stage. Rank 1 begins each of their forwards late by `late` seconds: by
    as long as a first step takes on this machine at this time.
    """
    real = step_module.to_device
    seconds = 0.0

    def late(*arguments: Any) -> Any:
        if world.rank == 1:
            time.sleep(seconds)
        return real(*arguments)

    step_module.to_device = late
    logbook_module.matrix_product_rate = lambda *_: 1e9
    found = []
    for stage in stages:
        config = make_config(f"zero.stage={stage}", "train.micro_rows=4")
        engines = make_engines(config, world)
        state = RunState(world.device, ())
        data: Any = SimpleNamespace(vocab_size=VOCABULARY, sources=())
        logbook = Logbook(config, data, engines, world, None, None)
        seconds = 0.0
        start = time.perf_counter()
        for index in range(3):
            if index == 1:  # without what is made in the first step
                took = all_reduce_max(int(1e3 * (time.perf_counter() - start)), world)
                seconds = max(took / 1e3, 0.3)
                state.window.clear()
                engines.clock.clear()
                logbook.stopwatch.lap()
            step, samples = make_step(config, index, world.rank, world.world_size)
            totals = step_module.train_step(engines, step, config, 1.0, samples)
            state.window.add(totals, step.micro_batches)
        row = logbook.row(state, 1.0, lambda: 0.0)
        found.append({name: float(value) for name, value in row.items()} | {"late": seconds})
        engines.destroy()
    return found


STAGES = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def rows() -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Of both ranks, by stage."""
    first, second = run_ranks(train_with_a_late_rank, 2, stages=STAGES, timeout=240)
    return first, second


def test_who_waits_for_a_late_rank_communicates_and_the_late_one_is_named(rows: Any) -> None:
    for punctual, late in zip(*rows, strict=True):
        communication = metrics.COMMUNICATION_SECONDS.name
        assert punctual[communication] > 0.5 * late["late"]
        assert late[metrics.GENERATOR_FORWARD_SECONDS.name] > late["late"]
        assert late[communication] < punctual[communication]
        for row in (punctual, late):
            assert row[metrics.SLOWEST_RANK.name] == 1
            assert row[metrics.RANK_SPREAD.name] > 1.05


def test_the_parts_are_the_step(rows: Any) -> None:
    for row in (row for rank in rows for row in rank):
        parts = {part: row[f"speed/{part}_seconds"] for part in PARTS if part != "data_wait"}
        assert min(parts.values()) > 0, parts
        step = row[metrics.STEP_SECONDS.name]
        assert 0.6 * step < sum(parts.values()) <= step, parts


def test_a_row_has_every_number_of_the_table(rows: Any) -> None:
    # full evaluations log numbers of their own, beside a row
    names = {one.name for one in metrics.all_metrics() if not one.name.startswith("evaluation/")}
    of_other_machines = {name for name in names if name.startswith(("speed/", "memory/"))}
    for first, second in zip(*rows, strict=True):
        assert first.keys() == second.keys() == names | {"late"}
        agreed = names - of_other_machines
        for name in agreed:
            assert first[name] == second[name] or math.isnan(first[name]), name
        assert first[metrics.PEAK_BYTES.name] > 1e7
        assert 0 < first[metrics.PADDING.name] < 0.5
        assert math.isnan(first[metrics.GENERATOR_LOSS_SCALE.name])
    assert of_other_machines == {one.name for one in metrics.all_metrics() if one.of_clock}
