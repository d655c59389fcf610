"""The queue: every answer reaches its request, whatever the others do."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from electra_dist.errors import DataError
from electra_dist.serve.batching import Batcher, FullError, InputError


class Squares:
    """A model that squares numbers, refuses negative ones, breaks at 13, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.release()
        assert self.go_on.wait(30)
        for number, item in enumerate(items, 1):
            if item < 0:
                raise DataError(f"text {number}: {item} is negative")
            if item == 13:
                raise RuntimeError("thirteen")
        return [item * item for item in items]


@pytest.fixture
def model() -> Squares:
    return Squares()


@pytest.fixture
def start() -> Iterator[Callable[..., Batcher]]:
    batchers = []

    def made(*models: Squares, batch: int = 8, wait: float = 0.0, most: int = 1000) -> Batcher:
        batchers.append(Batcher(models, batch, wait, most))
        return batchers[-1]

    yield made
    for batcher in batchers:
        batcher.close()


def result(future: Future[list[Any]]) -> list[Any]:
    return future.result(timeout=30)


@pytest.mark.parametrize("workers", [1, 3])
def test_each_request_gets_its_own_answers_in_order(
    workers: int, start: Callable[..., Batcher]
) -> None:
    models = [Squares() for _ in range(workers)]
    batcher = start(*models, batch=8, wait=0.001)
    draw = random.Random(1)
    requests = [[draw.randrange(20, 999) for _ in range(draw.randint(1, 30))] for _ in range(200)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda items: result(batcher.submit(items)), requests))
    assert found == [[item * item for item in items] for items in requests]
    sizes = [len(batch) for one in models for batch in one.batches]
    assert max(sizes) == 8
    assert sum(sizes) == sum(len(items) for items in requests)
    assert batcher.waiting == 0


def test_requests_that_wait_share_a_batch(model: Squares, start: Callable[..., Batcher]) -> None:
    batcher = start(model, batch=8, wait=10)
    futures = [batcher.submit([number] * 2) for number in range(4)]
    assert [result(future) for future in futures] == [[n * n] * 2 for n in range(4)]
    assert model.batches == [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_an_error_reaches_its_own_request_only(
    model: Squares, start: Callable[..., Batcher]
) -> None:
    batcher = start(model, batch=6, wait=10)
    good = batcher.submit([1, 2])
    wrong = batcher.submit([3, -4])
    broken = batcher.submit([13])
    last = batcher.submit([5])
    assert result(good) == [1, 4]
    assert result(last) == [25]
    with pytest.raises(InputError, match=r"^-4 is negative$") as refused:
        result(wrong)
    assert refused.value.index == 1
    with pytest.raises(RuntimeError, match="thirteen"):
        result(broken)
    assert batcher.is_alive


def test_the_index_of_a_wrong_input_counts_from_the_start_of_the_request(
    model: Squares, start: Callable[..., Batcher]
) -> None:
    batcher = start(model, batch=4)
    with pytest.raises(InputError) as refused:
        result(batcher.submit([*range(10), -1, *range(20, 30)]))
    assert refused.value.index == 10
    assert batcher.waiting == 0
    assert result(batcher.submit([7])) == [49]


def test_a_full_queue_takes_no_more(model: Squares, start: Callable[..., Batcher]) -> None:
    batcher = start(model, batch=2, most=3)
    model.go_on.clear()
    first = batcher.submit([1, 2])
    assert model.started.acquire(timeout=30)
    second = batcher.submit([3, 4, 5])
    with pytest.raises(FullError) as full:
        batcher.submit([6])
    assert full.value.seconds >= 1
    model.go_on.set()
    assert result(first) + result(second) == [1, 4, 9, 16, 25]
    assert result(batcher.submit([6])) == [36]


def test_nobody_works_for_a_request_that_was_given_up(
    model: Squares, start: Callable[..., Batcher]
) -> None:
    batcher = start(model, batch=2)
    model.go_on.clear()
    first = batcher.submit([1])
    assert model.started.acquire(timeout=30)
    given_up = batcher.submit([2, 3, 4])
    last = batcher.submit([5])
    assert given_up.cancel()
    model.go_on.set()
    assert result(first) + result(last) == [1, 25]
    assert [item for batch in model.batches for item in batch] == [1, 5]
    assert batcher.waiting == 0


def test_a_large_request_does_not_stop_a_small_one(
    model: Squares, start: Callable[..., Batcher]
) -> None:
    batcher = start(model, batch=4)
    model.go_on.clear()
    large = batcher.submit(list(range(20, 60)))
    assert model.started.acquire(timeout=30)
    small = batcher.submit([1])
    model.go_on.set()
    assert result(small) == [1]
    assert result(large) == [item * item for item in range(20, 60)]
    position = next(n for n, batch in enumerate(model.batches) if 1 in batch)
    assert position <= 2


def test_free_threads_share_what_waits(start: Callable[..., Batcher]) -> None:
    models = [Squares(), Squares()]
    batcher = start(*models, batch=100, wait=0.2)
    for one in models:
        one.go_on.clear()
    futures = [batcher.submit([number]) for number in range(10)]
    for one in models:
        assert one.started.acquire(timeout=30)
    for one in models:
        one.go_on.set()
    assert [result(future)[0] for future in futures] == [n * n for n in range(10)]
    assert sorted(len(batch) for one in models for batch in one.batches) == [5, 5]


def test_close_answers_what_waits(model: Squares, start: Callable[..., Batcher]) -> None:
    batcher = start(model, batch=4, wait=60)
    futures = [batcher.submit([number]) for number in range(3)]
    batcher.close()
    assert [future.result(timeout=0) for future in futures] == [[0], [1], [4]]
    assert not batcher.is_alive
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([1])
