"""Blocks that are read ahead: the same ones, at the same time, with the same errors."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from electra_dist.data.shards.ahead import ReadAhead
from electra_dist.data.shards.blocks import Block
from electra_dist.data.shards.manifest import TRAIN
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.errors import DataError


def block(number: int) -> Block:
    return Block(np.array([number], np.uint16), np.array([1], np.uint32))


def test_blocks_are_read_once_at_the_same_time_and_taken_as_often_as_they_are_expected():
    """The barrier opens when four reads wait at it."""
    read: list[int] = []
    together = threading.Barrier(4, timeout=10)

    def slow(number: int) -> Block:
        read.append(number)
        together.wait()
        return block(number)

    ahead = ReadAhead(slow)
    ahead.expect([3, 1, 4, 1, 5])
    assert [int(ahead.take(number).tokens[0]) for number in (3, 1, 4, 1, 5)] == [3, 1, 4, 1, 5]
    assert sorted(read) == [1, 3, 4, 5]


def test_a_block_that_nobody_expected_is_read_when_it_is_taken():
    read: list[int] = []

    def note(number: int) -> Block:
        read.append(number)
        return block(number)

    ahead = ReadAhead(note)
    ahead.take(7)
    ahead.expect([7])
    ahead.take(7)
    ahead.take(7)
    assert read == [7, 7, 7]


def test_an_error_is_raised_where_the_block_is_taken():
    def failing(number: int) -> Block:
        raise DataError(f"block {number}: gone")

    ahead = ReadAhead(failing)
    ahead.expect([1, 2])
    time.sleep(0.05)
    with pytest.raises(DataError, match="block 2: gone"):
        ahead.take(2)
    with pytest.raises(DataError, match="block 1: gone"):
        ahead.take(1)


def test_the_threads_end_with_the_reader(manifest):
    def threads() -> int:
        return sum(thread.name.startswith("electra-dist-read") for thread in threading.enumerate())

    gc.collect()
    before = threads()
    reader = BlockReader(manifest, TRAIN)
    reader.expect(range(8))
    reader.read(0)
    assert threads() > before
    del reader
    gc.collect()
    deadline = time.monotonic() + 10
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() <= before


def test_every_block_of_training_is_expected_before_it_is_read(manifest, make_config, monkeypatch):
    """And read once for each time that it is taken, over two epochs with more streams than
    blocks.
    """
    config = make_config(data={"streams": 8}, train={"steps": 400})
    direct: list[int] = []
    taken: list[int] = []
    plain = ReadAhead.take

    def take(self: ReadAhead, number: int) -> Block:
        taken.append(number)
        if number not in self._expected:
            direct.append(number)
        return plain(self, number)

    monkeypatch.setattr(ReadAhead, "take", take)
    source = StepSource(StepPlan.of(config, 0, 1), RunData.alone(manifest))
    for _ in source:
        pass
    assert len(taken) > manifest.facts.train.blocks
    assert not direct


def test_a_latency_changes_no_step(manifest, make_config):
    config = make_config()
    plan = StepPlan.of(config, 0, 1)
    fast = StepSource(plan, RunData.alone(manifest))
    slow = StepSource(plan, RunData.alone(replace(manifest, latency_seconds=0.002)))
    for one, other in zip(fast, slow, strict=True):
        for here, there in zip(one.micro_batches, other.micro_batches, strict=True):
            np.testing.assert_array_equal(here.inputs, there.inputs)
