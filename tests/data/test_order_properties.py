"""The order of the data, for any corpora, shares, row lengths and numbers of streams: each token
once an epoch, the same steps on any world size, the same continuation after any resume.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra_dist.batch import PADDING_DOCUMENT, SPECIAL_TOKENS, MicroBatch
from electra_dist.data.lanes import LaneLayout
from electra_dist.data.packing import Pieces, pack_with_pieces
from electra_dist.data.pool import RowPool
from electra_dist.data.rows import RowSource, spread
from electra_dist.data.shards.blocks import Block
from electra_dist.data.shards.manifest import TRAIN
from electra_dist.data.sources import WHOLE, RunData
from electra_dist.data.step_plan import RowFormat, StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.data.streams import LoaderState
from tests.support.corpora import FIRST_ID, MemoryReader, mixed, readable

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def in_memory() -> Iterator[None]:
    with readable():
        yield


class Case(NamedTuple):
    """Data, and how steps are made of them by one rank."""

    data: RunData
    plan: StepPlan

    def at(self, rank: int, world_size: int) -> StepPlan:
        """The plan of a rank among others."""
        most = self.plan.rows_per_stream * -(-self.plan.streams // world_size)
        batches = -(-most // self.plan.rows.micro_rows)
        return replace(self.plan, rank=rank, world_size=world_size, micro_batches=batches)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any of them; long documents fill blocks of their own, as after a build."""
    lengths = st.lists(st.one_of(st.integers(1, 20), st.integers(60, 300)), min_size=1, max_size=5)
    corpora = draw(
        st.lists(st.lists(lengths, min_size=1, max_size=9), min_size=1, max_size=3), "corpora"
    )
    weights = [draw(st.integers(1, 9)) for _ in corpora]
    shares = [round(WHOLE * weight / sum(weights)) for weight in weights]
    streams = draw(st.integers(1, 6), "streams")
    per_stream = draw(st.integers(1, 4), "rows per stream")
    rows = RowFormat(
        seed=draw(st.integers(0, 2**31), "seed"),
        micro_rows=draw(st.integers(1, 5), "micro rows"),
        row_length=draw(st.sampled_from([8, 16, 32]), "row length"),
        max_documents_per_row=draw(st.integers(1, 4), "documents"),
        mask_fraction=0.15,
        mask_token_fraction=0.85,
    )
    plan = StepPlan(
        rows=rows,
        streams=streams,
        open_blocks=draw(st.integers(1, 6), "open blocks"),
        global_rows=streams * per_stream,
        micro_batches=0,
        steps=10**6,
        skipped=(),
        prefetch_steps=1,
        rank=0,
        world_size=1,
    )
    case = Case(mixed(corpora, shares), plan)
    return Case(case.data, case.at(0, 1))


FIELDS = ("tokens", "inputs", "positions", "documents", "masked_positions", "masked_keys")


def used_rows(batches: tuple[MicroBatch, ...]) -> list[bytes]:
    """All that belongs to each row that is not empty."""
    return [
        b"".join(getattr(batch, field)[row].tobytes() for field in FIELDS)
        for batch in batches
        for row in range(len(batch.tokens))
        if batch.documents[row, 0] != PADDING_DOCUMENT
    ]


def run_ranks(
    case: Case, world_size: int, count: int, state: LoaderState | None = None
) -> tuple[list[list[bytes]], list[tuple[int, int, float]], LoaderState]:
    """Of each step: the rows of all ranks, and counts and epoch; then the state of all ranks."""
    ranks = [StepSource(case.at(rank, world_size), case.data, state) for rank in range(world_size)]
    rows = []
    counts = []
    for _ in range(count):
        steps = [next(rank) for rank in ranks]
        assert len({len(step.micro_batches) for step in steps}) == 1
        rows.append(sorted(row for step in steps for row in used_rows(step.micro_batches)))
        masked = sum(step.masked_count for step in steps)
        counts.append((masked, sum(step.real_count for step in steps), steps[0].epoch))
    merged = LoaderState.merge([rank.state for rank in ranks])
    return rows, counts, LoaderState.from_dict(json.loads(json.dumps(merged.to_dict())))


@QUICK
@given(cases(), st.data())
def test_a_step_is_the_same_on_any_world_size_and_after_any_resume_on_another(
    case: Case, draw: st.DataObject
) -> None:
    count = draw.draw(st.integers(1, 8), "steps")
    stop = draw.draw(st.integers(0, count), "resumed after")
    before, after = (draw.draw(st.integers(1, case.plan.streams), "ranks") for _ in range(2))
    rows, counts, state = run_ranks(case, 1, count)
    assert all(len(step) == case.plan.global_rows for step in rows)
    first_rows, first_counts, between = run_ranks(case, before, stop)
    last_rows, last_counts, end = run_ranks(case, after, count - stop, between)
    assert first_rows + last_rows == rows
    assert first_counts + last_counts == counts
    assert end == state


@QUICK
@given(cases())
def test_every_token_of_a_source_comes_exactly_once_in_an_epoch(case: Case) -> None:
    plan = case.plan
    layout = LaneLayout.of(case.data, plan.streams, plan.open_blocks)
    sources = [
        RowSource(plan.rows, MemoryReader(manifest, TRAIN), TRAIN, SPECIAL_TOKENS, number)
        for number, manifest in enumerate(case.data.manifests)
    ]
    zeros = np.zeros((plan.streams, layout.width), np.int64)
    pool = RowPool(layout, range(plan.streams), zeros, sources, plan.rows.seed)
    # a key names the source, epoch, block and row that it was drawn for
    places = {}
    for number, source in enumerate(sources):
        for epoch in range(2):
            for block in range(len(source)):
                rows = source.rows(epoch, block)
                for key in rows.keys.tolist():
                    places[key] = (number, epoch)
    seen = [[set() for _ in range(2)] for _ in sources]  # ids of each source and epoch
    for _ in range(10_000):
        rows = pool.take(plan.rows_per_stream)
        for tokens, key in zip(rows.packed.tokens, rows.keys.tolist(), strict=True):
            if key not in places:
                continue  # of a later epoch
            number, epoch = places[key]
            ids = tokens[tokens >= FIRST_ID].tolist()
            assert not seen[number][epoch].intersection(ids)
            seen[number][epoch].update(ids)
        wanted = [set(manifest.ids.tolist()) for manifest in case.data.manifests]
        if all(seen[number] == [ids, ids] for number, ids in enumerate(wanted)):
            return
    raise AssertionError("an epoch never ends")


@QUICK
@given(cases())
def test_each_stream_keeps_to_the_shares_within_a_few_rows(case: Case) -> None:
    plan = case.plan
    source = StepSource(plan, case.data)
    for _ in range(40):
        next(source)
    count = len(case.data.sources)
    given_tokens = np.array([list(p) for p in source.state.streams.values()])[:, count : 2 * count]
    shares = np.array([one.share for one in case.data.sources], np.float64)
    wanted = given_tokens.sum(axis=1, keepdims=True) * shares / shares.sum()
    assert np.abs(given_tokens - wanted).max() <= 2 * count * plan.rows.row_length


def test_shares_are_measured_within_a_tenth_of_a_percent() -> None:
    """Three sources whose rows hold different numbers of tokens, some of them full of padding."""
    corpora = [[[40] * 5] * 6, [[9, 8, 7] * 3] * 4, [[300, 2]] * 3]
    shares = [round(WHOLE * weight / 8) for weight in (5, 2, 1)]
    rows = RowFormat(1, 8, 16, 1, 0.15, 0.85)
    plan = StepPlan(rows, 8, 4, 16, 2, 10**6, (), 1, 0, 1)
    data = mixed(corpora, shares)
    source = StepSource(plan, data)
    limits = np.cumsum([FIRST_ID, *(manifest.facts.train.tokens for manifest in data.manifests)])
    found = np.zeros(3, np.int64)
    for step in range(600):
        for batch in next(source).micro_batches:
            for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
                number = np.searchsorted(limits, tokens[1], side="right") - 1
                found[number] += (documents != PADDING_DOCUMENT).sum()
        if step == 99:
            # an error of a row or so in each stream, measured against all
            assert np.abs(found / found.sum() - np.array([5, 2, 1]) / 8).max() < 0.003
    assert np.abs(found / found.sum() - np.array([5, 2, 1]) / 8).max() < 0.001


# --- rows of one document are far apart -----------------------------------------------------------


@given(
    st.lists(st.one_of(st.integers(1, 30), st.integers(100, 900)), min_size=1, max_size=12),
    st.sampled_from([16, 64]),
    st.integers(0, 2**32),
)
def test_the_rows_of_a_document_are_evenly_spaced(
    lengths: list[int], row_length: int, seed: int
) -> None:
    ids = np.arange(FIRST_ID, FIRST_ID + sum(lengths), dtype=np.uint32)
    block = Block(ids, np.array(lengths, np.uint32))
    packed, pieces = pack_with_pieces(block, row_length, 8, SPECIAL_TOKENS)
    draws = np.random.default_rng(seed).integers(0, 2**64, len(packed), dtype=np.uint64)
    times = spread(pieces, draws)
    assert ((times >= 0) & (times < 1)).all()
    starts = np.cumsum([FIRST_ID, *lengths])
    for document, first in enumerate(starts[:-1]):
        inside = (packed.tokens >= first) & (packed.tokens < starts[document + 1])
        own = np.flatnonzero(inside.any(axis=1))
        # a last piece in a row that a document of its own has nearly filled is out of step
        nearly_full = (inside.sum(axis=1) < row_length - 2) & (
            inside.sum(axis=1) >= row_length // 2
        )
        if nearly_full.any() or len(own) < 2:
            continue
        turns = np.sort(times[own])
        gaps = np.diff(np.append(turns, turns[0] + 1))
        np.testing.assert_allclose(gaps, 1 / len(own), atol=1e-9)


def test_documents_of_one_row_come_in_any_order() -> None:
    rows = Pieces(np.arange(200), np.arange(200))
    places = []
    for seed in range(50):
        draws = np.random.default_rng(seed).integers(0, 2**64, 200, dtype=np.uint64)
        places.append(np.argsort(np.argsort(spread(rows, draws))))
    # the mean place of each row, if all places are alike: 99.5, with a deviation of 57.7 / sqrt(50)
    assert np.abs(np.mean(places, axis=0) - 99.5).max() < 5 * 57.7 / np.sqrt(50)
