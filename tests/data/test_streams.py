"""Streams: permutations that are permutations, blocks dealt as the formula says,
states that split and merge.
"""

from __future__ import annotations

import json

import pytest

from electra_dist.data.streams import (
    BlockOrder,
    LoaderState,
    Permutation,
    streams_of_rank,
)
from electra_dist.errors import DataError


@pytest.mark.parametrize("n", [*range(1, 40), 63, 64, 65, 255, 256, 257, 1000, 4097])
def test_a_permutation_has_every_number_once(n):
    assert sorted(map(Permutation(n, 7, 0), range(n))) == list(range(n))


def test_permutations_differ_by_seed_and_epoch_and_mix_well():
    n = 1000
    orders = [
        [*map(Permutation(n, seed, epoch), range(n))] for seed in range(3) for epoch in range(3)
    ]
    assert len({tuple(order) for order in orders}) == 9
    for order in orders:
        fixed = sum(place == number for place, number in enumerate(order))
        assert fixed < 10  # one is expected
        inversions = sum(order[i] > order[i + 1] for i in range(n - 1))
        assert 430 < inversions < 570
        displaced = sum(abs(place - number) for place, number in enumerate(order)) / n
        assert 300 < displaced < 367  # a third of n is expected


@pytest.mark.parametrize(("blocks", "streams"), [(7, 4), (12, 4), (3, 8), (1, 4)])
def test_blocks_are_dealt_in_turn_and_epochs_follow_without_a_seam(blocks, streams):
    order = BlockOrder(blocks, streams, seed=5)
    sequence = [
        (epoch, Permutation(blocks, 5, epoch)(i)) for epoch in range(8) for i in range(blocks)
    ]
    for stream in range(streams):
        found = [tuple(order.place(stream, j)) for j in range(8 * blocks // streams)]
        assert found == sequence[stream::streams][: len(found)]


def test_every_stream_is_served_by_exactly_one_rank():
    for world_size in (1, 2, 3, 4, 6, 12):
        served = [list(streams_of_rank(12, rank, world_size)) for rank in range(world_size)]
        assert sorted(stream for streams in served for stream in streams) == list(range(12))
        assert {len(streams) for streams in served} == {12 // world_size}
        assert all(
            stream % world_size == rank for rank, streams in enumerate(served) for stream in streams
        )


def test_a_state_survives_json_and_merges():
    parts = [
        LoaderState(3, "x", {s: (s, 2 * s) for s in range(rank, 4, 2)}, 5) for rank in range(2)
    ]
    parts = [LoaderState.from_dict(json.loads(json.dumps(part.to_dict()))) for part in parts]
    whole = LoaderState.merge(parts)
    assert whole == LoaderState(3, "x", {s: (s, 2 * s) for s in range(4)}, 5)


def test_states_that_do_not_belong_together_are_refused():
    state = LoaderState(3, "x", {0: (0, 0)}, 3)
    with pytest.raises(DataError, match="same stream"):
        LoaderState.merge([state, state])
    with pytest.raises(DataError, match="not of one step"):
        LoaderState.merge([state, LoaderState(4, "x", {1: (0, 0)}, 4)])
    with pytest.raises(DataError, match="damaged"):
        LoaderState.from_dict({"step": 3, "layout": "x", "streams": {"0": ["x"]}})
