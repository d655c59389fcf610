"""Steps depend on the data alone, on any world size, resumed at any step."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from electra_dist.batch import PADDING_DOCUMENT, SPECIAL_TOKENS, MicroBatch, Step
from electra_dist.data.masking import masked_slots
from electra_dist.data.rows import RowSource, micro_batch
from electra_dist.data.shards.manifest import TRAIN, VALIDATION, Manifest
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.sources import RunData, check_vocabulary, has_validation
from electra_dist.data.step_plan import RowFormat, StepPlan
from electra_dist.data.steps import StepSource, order_fingerprint
from electra_dist.data.streams import BlockOrder, LoaderState
from electra_dist.data.validation import deal, validation_rows
from electra_dist.errors import ConfigError, DataError

FIELDS = [
    "tokens",
    "inputs",
    "positions",
    "documents",
    "masked_positions",
    "masked_targets",
    "masked_weights",
    "masked_keys",
]


def rows_of(batches: list[MicroBatch] | tuple[MicroBatch, ...]) -> list[bytes]:
    """Every row of the micro-batches as bytes, with all that belongs to it, in order."""
    return [
        b"".join(getattr(batch, field)[row].tobytes() for field in FIELDS)
        for batch in batches
        for row in range(len(batch.tokens))
    ]


def used_rows_of(batches: tuple[MicroBatch, ...]) -> list[bytes]:
    """The same without the empty rows of a rank that has fewer streams than another."""
    used = [
        batch.documents[row, 0] != PADDING_DOCUMENT
        for batch in batches
        for row in range(len(batch.tokens))
    ]
    return [row for row, is_used in zip(rows_of(batches), used, strict=True) if is_used]


def source_of(config, manifest, rank=0, world_size=1, state=None, skipped=()) -> StepSource:
    plan = StepPlan.of(config, rank, world_size)
    return StepSource(plan, RunData.alone(manifest), state, skipped)


def steps_of(
    config, manifest, rank=0, world_size=1, state=None, count=None
) -> tuple[list[Step], list[LoaderState]]:
    steps, states = [], []
    source = source_of(config, manifest, rank, world_size, state)
    for step in source:
        steps.append(step)
        states.append(source.state)
        if count is not None and len(steps) == count:
            break
    return steps, states


def test_rows_are_dealt_as_the_formula_says(make_config, manifest):
    config = make_config(data={"streams": 4}, train={"global_rows": 8, "steps": 30})
    """A stream takes its rows from its open blocks in turn, each of which is read to its end."""
    row_format = RowFormat.of(config)
    source = RowSource(row_format, BlockReader(manifest, TRAIN), TRAIN, SPECIAL_TOKENS)
    order = BlockOrder(manifest.facts.train.blocks, 4 * 6, config.train.seed)
    streams: list[list[bytes]] = []
    for stream in range(4):
        lanes: list[list[bytes]] = []
        for lane in range(6):
            rows: list[bytes] = []
            for j in range(4):
                keyed = source.rows(*order.place(4 * lane + stream, j))
                rows += rows_of([micro_batch(keyed, row_format, SPECIAL_TOKENS)])
            lanes.append(rows)
        streams.append([row for rows in zip(*lanes, strict=False) for row in rows])
    steps, _ = steps_of(config, manifest)
    assert [step.index for step in steps] == list(range(30))
    for number, step in enumerate(steps):
        expected = [row for stream in streams for row in stream[2 * number : 2 * number + 2]]
        assert rows_of(step.micro_batches) == expected


def test_an_epoch_has_every_token_of_the_split_exactly_once(make_config, manifest):
    config = make_config()
    source = RowSource(RowFormat.of(config), BlockReader(manifest, TRAIN), TRAIN, SPECIAL_TOKENS)
    total = sum(len(source.rows(0, block).keys) for block in range(len(source)))
    config = make_config(
        data={"streams": 1, "open_blocks": 1},
        train={"global_rows": 1, "micro_rows": 1, "steps": total},
    )
    counts = np.zeros(manifest.vocab_size, np.int64)
    steps, states = steps_of(config, manifest)
    for step in steps:
        counts += np.bincount(step.micro_batches[0].tokens.ravel(), minlength=len(counts))
    counts[[SPECIAL_TOKENS.pad, SPECIAL_TOKENS.cls, SPECIAL_TOKENS.sep]] = 0
    np.testing.assert_array_equal(counts, manifest.token_counts)
    assert steps[-1].epoch == pytest.approx(1.0)
    assert states[-1].streams[0][2:] == (manifest.facts.train.blocks, 0)
    assert all(a.epoch < b.epoch for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_a_step_has_the_same_rows_whatever_the_world_size(make_config, manifest, world_size):
    config = make_config(train={"steps": 12})
    alone, alone_states = steps_of(config, manifest)
    ranks = [steps_of(config, manifest, rank, world_size) for rank in range(world_size)]
    for number, step in enumerate(alone):
        parts = [steps[number] for steps, _ in ranks]
        assert sorted(rows_of(step.micro_batches)) == sorted(
            row for part in parts for row in used_rows_of(part.micro_batches)
        )
        assert len({len(part.micro_batches) for part in parts}) == 1
        assert step.masked_count == sum(part.masked_count for part in parts)
        assert step.real_count == sum(part.real_count for part in parts)
        assert step.epoch == parts[0].epoch
        assert LoaderState.merge([states[number] for _, states in ranks]) == alone_states[number]


def test_a_resumed_run_goes_on_as_if_nothing_had_happened_at_every_step_and_world_size(
    make_config, manifest
):
    config = make_config(train={"steps": 24})
    straight, _ = steps_of(config, manifest)
    for stop in range(1, 24, 5):
        parts = [steps_of(config, manifest, rank, 2, count=stop)[1][-1] for rank in range(2)]
        state = LoaderState.from_dict(json.loads(json.dumps(LoaderState.merge(parts).to_dict())))
        assert state.step == stop
        for world_size in (1, 3, 4):
            ranks = [
                steps_of(config, manifest, rank, world_size, state)[0] for rank in range(world_size)
            ]
            for number, step in enumerate(straight[stop:]):
                assert all(steps[number].index == step.index for steps in ranks)
                found = [
                    row for steps in ranks for row in used_rows_of(steps[number].micro_batches)
                ]
                assert sorted(found) == sorted(rows_of(step.micro_batches))
                assert ranks[0][number].epoch == step.epoch


def test_seeking_far_reads_no_more_than_the_open_blocks(make_config, manifest, monkeypatch):
    config = make_config(train={"steps": 10**6 + 1, "global_rows": 4})
    order = order_fingerprint(StepPlan.of(config, 0, 1), RunData.alone(manifest))
    # rows, tokens, then of three open blocks their numbers, then the rows taken from each
    position = (10**6, 10**8, 54321, 54321, 54321, 3, 3, 3)
    far = LoaderState(10**6, order, dict.fromkeys(range(4), position), 10**6)
    read: list[int] = []
    original = RowSource.rows
    monkeypatch.setattr(
        RowSource, "rows", lambda self, *place: read.append(1) or original(self, *place)
    )
    steps, _ = steps_of(config, manifest, state=LoaderState.from_dict(far.to_dict()))
    assert [step.index for step in steps] == [10**6]
    assert len(read) <= 4 * 3


def test_shapes_types_and_counts_are_those_of_the_contract(make_config, manifest):
    config = make_config(train={"steps": 20})
    documents = config.data.max_documents_per_row
    slots = masked_slots(config.data.mask_fraction, 64)
    for step in steps_of(config, manifest)[0]:
        assert len(step.micro_batches) == 4
        assert step.masked_count == sum(
            int((batch.masked_weights > 0).sum()) for batch in step.micro_batches
        )
        assert step.real_count == sum(
            int((batch.documents != PADDING_DOCUMENT).sum()) for batch in step.micro_batches
        )
        for batch in step.micro_batches:
            for name in ("tokens", "inputs", "positions", "documents"):
                assert getattr(batch, name).shape == (2, 64)
                assert getattr(batch, name).dtype == np.int32
            # fewer than one step of `sequence_entries`
            assert batch.cu_seqlens.shape == (2 * (documents + 1) + 1,)
            assert batch.cu_seqlens.dtype == np.int32
            assert batch.masked_positions.shape == batch.masked_keys.shape == (2, slots)
            assert batch.masked_keys.dtype == np.uint64
            assert batch.masked_weights.dtype == np.float32
            assert (
                (batch.tokens == SPECIAL_TOKENS.pad) == (batch.documents == PADDING_DOCUMENT)
            ).all()


def test_masks_and_orders_differ_between_epochs_and_seeds(make_config, manifest):
    source = RowSource(
        RowFormat.of(make_config()), BlockReader(manifest, TRAIN), TRAIN, SPECIAL_TOKENS
    )
    other = RowSource(
        RowFormat.of(make_config(train={"seed": 99})),
        BlockReader(manifest, TRAIN),
        TRAIN,
        SPECIAL_TOKENS,
    )
    first, second, third = source.rows(0, 3), source.rows(1, 3), other.rows(0, 3)
    assert not np.array_equal(first.packed.tokens, second.packed.tokens)
    assert not np.array_equal(first.packed.tokens, third.packed.tokens)
    assert len({*first.keys.tolist(), *second.keys.tolist(), *third.keys.tolist()}) == 3 * len(
        first.keys
    )
    assert sorted(map(bytes, first.packed.tokens)) == sorted(map(bytes, second.packed.tokens))


def test_sampling_keys_are_unique_over_several_epochs(make_config, manifest):
    config = make_config(train={"steps": 400})
    keys = [
        batch.masked_keys[batch.masked_weights > 0]
        for step in steps_of(config, manifest)[0]
        for batch in step.micro_batches
    ]
    joined = np.concatenate(keys)
    assert len(np.unique(joined)) == len(joined) > 10_000


# --- wrong use and errors -------------------------------------------------------------------------


def test_a_world_size_a_vocabulary_or_a_state_that_does_not_fit_is_refused(make_config, manifest):
    with pytest.raises(ConfigError, match="world size 5: there are 4 streams"):
        source_of(make_config(), manifest, 0, 5)
    with pytest.raises(ConfigError, match="vocab_size = 999"):
        check_vocabulary(make_config(model={"vocab_size": 999}), RunData.alone(manifest))
    _, states = steps_of(make_config(train={"steps": 1}), manifest)
    with pytest.raises(DataError, match=r"data\.row_length"):
        source_of(make_config(data={"row_length": 128}), manifest, 0, 1, states[0])
    _, half = steps_of(make_config(train={"steps": 1}), manifest, 0, 2)
    with pytest.raises(DataError, match="merge"):
        source_of(make_config(), manifest, 0, 1, half[0])


def test_the_data_pipeline_imports_no_torch(repo_root):
    files = [*repo_root.glob("electra_dist/data/**/*.py"), *repo_root.glob("data_tools/*.py")]
    modules = [
        ".".join(file.relative_to(repo_root).with_suffix("").parts).removesuffix(".__init__")
        for file in files
    ]
    assert "electra_dist.data.loading.loader" in modules
    code = (
        f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'transformers'"
        " in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- validation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [5, 13, 10_000])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_validation_rows_are_always_the_same_and_dealt_in_turn(
    make_config, manifest, data, wanted, world_size
):
    config = make_config(validation={"rows": wanted})
    row_format = RowFormat.of(config)
    source = RowSource(row_format, BlockReader(manifest, VALIDATION), VALIDATION, SPECIAL_TOKENS)
    everything = [
        row
        for block in range(len(source))
        for row in rows_of([micro_batch(source.rows(0, block), row_format, SPECIAL_TOKENS)])
    ]
    expected = everything[:wanted]
    ranks = [
        list(
            deal(
                validation_rows(data, row_format, wanted),
                row_format,
                SPECIAL_TOKENS,
                rank,
                world_size,
            )
        )
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    for rank, batches in enumerate(ranks):
        own = expected[rank::world_size]
        rows = rows_of(batches)
        assert rows[: len(own)] == own
        for batch in batches:
            assert batch.tokens.shape == (config.train.micro_rows, 64)
        rest = [(batch, row) for batch in batches for row in range(len(batch.tokens))][len(own) :]
        for batch, row in rest:
            assert not batch.masked_weights[row].any()
            assert (batch.tokens[row] == SPECIAL_TOKENS.pad).all()
            assert (batch.documents[row] == PADDING_DOCUMENT).all()
    assert sum(len(batches) for batches in ranks) * 2 - len(expected) < 2 * world_size


def test_shards_without_validation_say_so(
    make_config, manifest, topics_file, tokenizer_dir, tmp_path
):
    from data_tools.build import BuildOptions, build_shards

    bare: Manifest = build_shards(
        [topics_file], tokenizer_dir, tmp_path / "bare", BuildOptions(validation=0)
    ).manifest
    assert has_validation(RunData.alone(manifest))
    assert not has_validation(RunData.alone(bare))
    assert validation_rows(RunData.alone(bare), RowFormat.of(make_config()), 10) is None


# --- rows that are passed over --------------------------------------------------------------------


def taken(config, manifest, rank=0, world_size=1, state=None, skipped=(), count=None):
    """Rows, data step and state of each step."""
    found = []
    source = source_of(config, manifest, rank, world_size, state, skipped)
    for step in source:
        found.append((step, rows_of(step.micro_batches), source.state))
        if len(found) == count:
            break
    return found


def test_steps_take_the_rows_that_are_not_skipped_in_order(make_config, manifest):
    straight = taken(make_config(train={"steps": 30}), manifest)
    config = make_config(train={"steps": 15}, data={"skip_steps": [[0, 2], [7, 8], [9, 14]]})
    some = taken(config, manifest, skipped=[(12, 16), (20, 21)])
    kept = [d for d in range(30) if d not in {0, 1, 7, 9, 10, 11, 12, 13, 14, 15, 20}]
    assert [step.index for step, _, _ in some] == list(range(15))
    assert [rows for _, rows, _ in some] == [straight[d][1] for d in kept[:15]]
    assert [state.drawn for _, _, state in some] == [d + 1 for d in kept[:15]]
    assert [state.step for _, _, state in some] == list(range(1, 16))
    assert [step.epoch for step, _, _ in some] == [straight[d][0].epoch for d in kept[:15]]


def test_a_resumed_run_skips_the_same_rows_at_every_step_and_world_size(make_config, manifest):
    config = make_config(train={"steps": 12}, data={"skip_steps": [[2, 4]]})
    skipped = [(6, 9), (11, 12)]
    straight = taken(config, manifest, skipped=skipped)
    for stop in (1, 2, 3, 5, 8):
        parts = [
            taken(config, manifest, rank, 2, skipped=skipped, count=stop)[-1][2]
            for rank in range(2)
        ]
        state = LoaderState.from_dict(json.loads(json.dumps(LoaderState.merge(parts).to_dict())))
        for world_size in (1, 4):
            ranks = [
                taken(config, manifest, rank, world_size, state, skipped)
                for rank in range(world_size)
            ]
            for number, (step, rows, _) in enumerate(straight[stop:]):
                assert all(rank[number][0].index == step.index for rank in ranks)
                assert sorted(row for rank in ranks for row in rank[number][1]) == sorted(rows)


def test_rows_are_skipped_from_a_state_on_and_never_behind_it(make_config, manifest):
    """The guard adds rows to skip after the state that it goes back to;
    those before it have been trained on.
    """
    config = make_config(train={"steps": 10})
    straight = taken(config, manifest)
    state = straight[3][2]
    on = taken(config, manifest, state=state, skipped=[(1, 3), (5, 7)])
    assert [rows for _, rows, _ in on][:3] == [straight[4][1], straight[7][1], straight[8][1]]


def test_a_state_of_before_rows_could_be_skipped_has_skipped_none(make_config, manifest):
    config = make_config(train={"steps": 6})
    straight = taken(config, manifest)
    old = straight[2][2].to_dict()
    del old["drawn"]
    assert LoaderState.from_dict(old) == straight[2][2]
