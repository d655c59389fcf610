"""Packing against plain loops: every token once, no row overfull,
documents apart, little padding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.build import BuildOptions, build_shards
from data_tools.corpus import write_pydoc_corpus
from data_tools.tokenizer import train_tokenizer
from electra_dist.batch import PADDING_DOCUMENT, SPECIAL_TOKENS
from electra_dist.config import SEQUENCE_STEP, sequence_entries
from electra_dist.data.packing import (
    best_fit,
    cumulative_lengths,
    cut_lengths,
    documents_and_positions,
    pack_block,
)
from electra_dist.data.shards.manifest import TRAIN
from electra_dist.data.shards.reading import Block, BlockReader
from tests.support.english import join_packages

CASES = st.tuples(
    st.lists(st.one_of(st.integers(1, 20), st.integers(1, 400)), min_size=1, max_size=60),
    st.integers(8, 64),
    st.integers(1, 9),
)


def block_of(lengths: list[int]) -> Block:
    """Ids that are all different, so that a lost, doubled or moved token shows."""
    total = sum(lengths)
    return Block(np.arange(10, 10 + total, dtype=np.uint32), np.array(lengths, dtype=np.uint32))


def pieces_of_rows(packed) -> list[list[list[int]]]:
    """Rows as lists of pieces, wrapping checked and removed, padding checked."""
    rows = []
    for tokens, ends, count in zip(
        packed.tokens.tolist(), packed.ends.tolist(), packed.counts.tolist(), strict=True
    ):
        starts, pieces = [0, *ends[: count - 1]], []
        for start, end in zip(starts, ends[:count], strict=True):
            assert tokens[start] == SPECIAL_TOKENS.cls
            assert tokens[end - 1] == SPECIAL_TOKENS.sep
            pieces.append(tokens[start + 1 : end - 1])
        assert all(token == SPECIAL_TOKENS.pad for token in tokens[ends[-1] :])
        assert all(end == ends[count - 1] for end in ends[count:])
        rows.append(pieces)
    return rows


@settings(max_examples=150, deadline=None)
@given(CASES)
def test_every_token_of_every_document_is_in_exactly_one_row_in_its_order(case):
    lengths, row_length, most = case
    rows = pieces_of_rows(pack_block(block_of(lengths), row_length, most, SPECIAL_TOKENS))
    assert all(1 <= len(pieces) <= most for pieces in rows)
    pieces = sorted(piece for row in rows for piece in row)
    assert [token for piece in pieces for token in piece] == list(range(10, 10 + sum(lengths)))
    boundaries = {10 + int(end) for end in np.cumsum(lengths)}
    starts = {piece[0] for piece in pieces} | {10 + sum(lengths)}
    assert boundaries <= starts  # no piece crosses from one document into the next


@settings(max_examples=150, deadline=None)
@given(CASES)
def test_documents_are_cut_as_a_plain_loop_cuts_them(case):
    lengths, row_length, _ = case
    full = row_length - 2
    shortest = max(1, min(16, full // 8))
    expected: list[int] = []
    for length in lengths:
        pieces = []
        while length > full:
            pieces.append(full)
            length -= full
        pieces.append(length)
        if len(pieces) > 1 and pieces[-1] < shortest:
            pieces[-2] -= shortest - pieces[-1]
            pieces[-1] = shortest
        expected += pieces
    assert cut_lengths(np.array(lengths), row_length).tolist() == expected


@settings(max_examples=150, deadline=None)
@given(CASES)
def test_rows_are_as_few_as_a_plain_best_fit_makes(case):
    lengths, row_length, most = case
    sizes = cut_lengths(np.array(lengths), row_length) + 2
    rows: list[list[int]] = []
    for size in sorted(sizes.tolist(), reverse=True):
        fitting = [row for row in rows if len(row) < most and sum(row) + size <= row_length]
        if fitting:
            min(fitting, key=lambda row: row_length - sum(row)).append(size)
        else:
            rows.append([size])
    row_of, offset_of, count = best_fit(sizes, row_length, most)
    assert count == len(rows)
    for row in range(count):
        inside = sorted((int(offset_of[i]), int(sizes[i])) for i in np.flatnonzero(row_of == row))
        assert [start for start, _ in inside] == [
            sum(size for _, size in inside[:i]) for i in range(len(inside))
        ]
        assert sum(size for _, size in inside) <= row_length


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_documents_positions_and_cumulative_lengths_are_those_of_a_plain_loop(case):
    lengths, row_length, most = case
    packed = pack_block(block_of(lengths), row_length, most, SPECIAL_TOKENS)
    documents, positions = documents_and_positions(packed)
    cumulative = [0]
    for row, pieces in enumerate(pieces_of_rows(packed)):
        expected: list[tuple[int, int]] = []
        for number, piece in enumerate(pieces):
            expected += [(number, place) for place in range(len(piece) + 2)]
            cumulative.append(row * row_length + len(expected))
        if len(expected) < row_length:
            expected += [(PADDING_DOCUMENT, 0)] * (row_length - len(expected))
            cumulative.append((row + 1) * row_length)
        assert list(zip(documents[row].tolist(), positions[row].tolist(), strict=True)) == expected
    found = cumulative_lengths(packed)
    assert found[: len(cumulative)].tolist() == cumulative
    assert (found[len(cumulative) :] == len(packed) * row_length).all()
    assert len(found) == sequence_entries(len(cumulative) - 1, len(packed), most) + 1


def test_a_document_that_fills_its_row_leaves_no_padding_document():
    packed = pack_block(block_of([14]), 16, 4, SPECIAL_TOKENS)
    assert cumulative_lengths(packed).tolist() == [0, 16, 16, 16, 16, 16]


@pytest.mark.parametrize(
    ("documents", "entries"),
    [(0, 256), (1, 256), (256, 256), (257, 512), (4000, 4096), (4159, 4160)],
)
def test_entries_are_few_and_none_more_than_there_can_be(documents, entries):
    """64 rows of at most 64 documents: 4,160 entries were there whatever was in them,
    of which some 180 were used.
    """
    assert sequence_entries(documents, 64, 64) == entries


def test_real_text_has_hardly_more_entries_than_documents(some_real_blocks):
    packed = pack_block(next(iter(some_real_blocks.values()))[0], 512, 64, SPECIAL_TOKENS)
    documents = int(packed.counts.sum()) + len(packed)
    assert len(cumulative_lengths(packed)) <= documents + SEQUENCE_STEP + 1 < len(packed) * 65


@pytest.mark.parametrize("row_length", [128, 256, 512, 1024])
def test_padding_is_at_most_two_and_a_half_percent_on_real_text(row_length, some_real_blocks):
    check_padding(some_real_blocks, row_length)


@pytest.mark.full
@pytest.mark.parametrize("row_length", [128, 256, 512, 1024])
def test_padding_is_at_most_two_and_a_half_percent_on_whole_corpora(row_length, all_real_blocks):
    check_padding(all_real_blocks, row_length)


def check_padding(corpora: dict[str, list[Block]], row_length: int) -> None:
    for name, blocks in corpora.items():
        packed = [
            pack_block(block, row_length, row_length // 8, SPECIAL_TOKENS) for block in blocks
        ]
        used = sum(int(rows.ends[:, -1].sum()) for rows in packed)
        padding = 1 - used / sum(rows.tokens.size for rows in packed)
        assert padding <= 0.025, f"{name}: {padding:.4f}"


@pytest.fixture(scope="module")
def some_real_blocks(
    tmp_path_factory: pytest.TempPathFactory, pydoc_corpus: Path
) -> dict[str, list[Block]]:
    return real_blocks(tmp_path_factory.mktemp("some"), pydoc_corpus)


@pytest.fixture(scope="module")
def all_real_blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Block]]:
    folder = tmp_path_factory.mktemp("all")
    return real_blocks(folder, write_pydoc_corpus(folder / "pydoc", workers=2).path)


def real_blocks(folder: Path, corpus: Path) -> dict[str, list[Block]]:
    """Blocks of short documents, the corpus, and of long ones, its packages, with an 8k vocabulary.

    Documents of the corpus have 600 to 900 characters on average, a package ten or more times as
    many.
    """
    train_tokenizer([corpus], 8192, folder / "tokenizer")
    files = {"short": corpus, "long": join_packages(corpus, folder / "packages.jsonl")}
    found = {}
    for name, file in files.items():
        shards = folder / f"shards-{name}"
        stats = build_shards([file], folder / "tokenizer", shards, BuildOptions(workers=2))
        reader = BlockReader(stats.manifest, TRAIN)
        found[name] = [reader.read(block) for block in range(len(reader))]
    return found
