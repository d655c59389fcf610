"""Micro-batches side by side: in order, few ahead, and the same numbers for any number of cores."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import build
from electra_dist.evaluate.heldout import Judged, Networks, judge
from electra_dist.evaluate.lanes import in_order
from electra_dist.model.inputs import rows_of_documents, to_device
from electra_dist.model.networks import build_networks

CPU = torch.device("cpu")
WIDTH = 768


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """What PyTorch may use."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_of_one_core(threads: int) -> None:
    """The first of each three takes longest."""
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(12):
            taken.append(number)
            yield number

    def work(number: int) -> tuple[int, int]:
        time.sleep(0.03 * (number % 3 == 0))
        return number, torch.get_num_threads()

    for place, (number, own_threads) in enumerate(in_order(work, numbers(), CPU)):
        assert (number, own_threads) == (place, 1)
        assert len(taken) <= place + 1 + threads
    assert number == 11
    assert torch.get_num_threads() == threads


def test_an_error_in_a_lane_is_raised(threads: int) -> None:
    def work(number: int) -> float:
        return 1 / (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(9), CPU))
    assert torch.get_num_threads() == threads


def test_numbers_do_not_depend_on_the_threads() -> None:
    """At a width at which a matrix product over three threads differs in the last bit."""
    config = build(
        {
            "data": {"shards": "unused", "row_length": 128, "streams": 1},
            "model": {
                "embedding_size": 128,
                "max_positions": 128,
                "initializer_range": 0.05,
                "generator": {"layers": 1, "hidden_size": 192, "heads": 3, "ffn_size": WIDTH},
                "discriminator": {
                    "layers": 2,
                    "hidden_size": WIDTH,
                    "heads": 12,
                    "ffn_size": 4 * WIDTH,
                },
            },
            "train": {"micro_rows": 8, "global_rows": 8, "steps": 1},
            "optim": {"warmup_steps": 0},
        }
    )
    networks = Networks(*(one.eval() for one in build_networks(config, 1000, "cpu", seed=1)))
    draw = np.random.default_rng(5)
    rows = [[draw.integers(5, 1000, 128).tolist()] for _ in range(8)]
    batch = to_device(rows_of_documents(rows, 128, SPECIAL_TOKENS.pad), "cpu")

    def with_threads(count: int) -> Judged:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            return next(in_order(lambda one: judge(networks, one), [batch], CPU))
        finally:
            torch.set_num_threads(before)

    one = with_threads(1)
    three = with_threads(3)
    np.testing.assert_array_equal(one.observed.logits, three.observed.logits)
    for name, total in one.totals.sums.items():
        assert torch.equal(total, three.totals.sums[name]), name
