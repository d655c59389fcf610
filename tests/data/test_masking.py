"""Masks: exact counts, without replacement, never special tokens,
the published rates, keyed by the row alone.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.data.masking import absorb, hash_words, mask_rows, masked_slots

SPECIALS = [SPECIAL_TOKENS.pad, SPECIAL_TOKENS.cls, SPECIAL_TOKENS.sep, SPECIAL_TOKENS.mask]


def rows_of(count: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random rows with special tokens strewn in, and their keys."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, 40, (count, length)).astype(np.int32)
    return tokens, generator.integers(0, 2**63, count).astype(np.uint64)


def test_the_hash_is_splitmix64():
    # The first outputs of the reference implementation (Vigna) from state 1234567:
    # state += golden; mix(state).
    golden, state, found = 0x9E3779B97F4A7C15, 1234567, []
    for _ in range(3):
        found.append(int(absorb(np.array([state], np.uint64), np.uint64(0))[0]))
        state = (state + golden) % 2**64
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
def test_the_hash_of_arrays_is_the_hash_of_numbers(words):
    state = np.zeros(1, np.uint64)
    for word in words:
        state = absorb(state, np.array([word], np.uint64))
    assert int(state[0]) == hash_words(*words)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 150),
    st.sampled_from([0.15, 0.25, 0.3, 0.5, 0.01]),
    st.sampled_from([0.0, 0.85, 1.0]),
    st.integers(0, 99),
)
def test_masks_are_exact_in_number_and_change_nothing_else(length, fraction, shown_as_mask, seed):
    tokens, keys = rows_of(6, length, seed)
    tokens[0] = SPECIAL_TOKENS.pad  # a row of padding has no masks
    tokens[1, 1:] = SPECIAL_TOKENS.sep  # and one with a single token one
    tokens[1, 0] = 30
    masks = mask_rows(tokens, keys, fraction, shown_as_mask, SPECIAL_TOKENS)
    assert masks.positions.shape[1] == masked_slots(fraction, length)
    for row, ids in enumerate(tokens.tolist()):
        maskable = [place for place, token in enumerate(ids) if token not in SPECIALS]
        exact = int(Fraction(str(fraction)) * len(maskable) + Fraction(1, 2))
        count = max(exact, 1) if maskable else 0
        assert masks.weights[row].tolist() == [1.0] * count + [0.0] * (
            masks.weights.shape[1] - count
        )
        positions = masks.positions[row].tolist()
        assert positions[count:] == [0] * (len(positions) - count)
        assert positions[:count] == sorted(set(positions[:count]))
        assert set(positions[:count]) <= set(maskable)
        assert masks.targets[row, :count].tolist() == [ids[place] for place in positions[:count]]
        assert not masks.targets[row, count:].any()
        assert not masks.keys[row, count:].any()
        for place, (before, after) in enumerate(zip(ids, masks.inputs[row].tolist(), strict=True)):
            if place not in positions[:count] or shown_as_mask == 0:
                assert after == before
            elif shown_as_mask == 1:
                assert after == SPECIAL_TOKENS.mask
            else:
                assert after in (before, SPECIAL_TOKENS.mask)


def test_every_maskable_position_is_as_likely_and_85_percent_are_shown_as_mask():
    length, rows = 40, 20_000
    tokens = np.full((rows, length), 30, np.int32)
    keys = absorb(np.zeros(rows, np.uint64), np.arange(rows))
    masks = mask_rows(tokens, keys, 0.25, 0.85, SPECIAL_TOKENS)
    hits = np.bincount(masks.positions.ravel(), minlength=length)
    assert hits.sum() == rows * 10
    deviations = (hits - rows * 0.25) / np.sqrt(rows * 0.25 * 0.75)
    assert (deviations**2).sum() < 80  # chi-square, 39 degrees of freedom: p = 1e-4
    hidden = (masks.inputs == SPECIAL_TOKENS.mask).sum() / (rows * 10)
    assert abs(hidden - 0.85) < 4 * np.sqrt(0.85 * 0.15 / (rows * 10))
    pairs = np.zeros((length, length))
    np.add.at(pairs, (masks.positions[:, 0], masks.positions[:, 1]), 1)
    assert (
        pairs.sum(axis=1) > 0
    ).sum() > 20  # neighbours in the sorted order are not one fixed pair


def test_masks_and_keys_of_a_row_do_not_depend_on_the_rows_beside_it():
    tokens, keys = rows_of(12, 64)
    together = mask_rows(tokens, keys, 0.15, 0.85, SPECIAL_TOKENS)
    for part in (slice(3, 4), slice(5, 12)):
        alone = mask_rows(tokens[part], keys[part], 0.15, 0.85, SPECIAL_TOKENS)
        for name in ("inputs", "positions", "targets", "weights", "keys"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[part])


def test_sampling_keys_are_all_different_and_masks_differ_between_row_keys():
    tokens = np.full((2000, 128), 30, np.int32)
    keys = absorb(np.zeros(2000, np.uint64), np.arange(2000))
    masks = mask_rows(tokens, keys, 0.15, 0.85, SPECIAL_TOKENS)
    used = masks.keys[masks.weights > 0]
    assert len(np.unique(used)) == len(used)
    assert len(np.unique(masks.positions, axis=0)) == 2000


def test_unknown_tokens_may_be_masked():
    tokens = np.full((1, 20), SPECIAL_TOKENS.unk, np.int32)
    assert mask_rows(tokens, np.ones(1, np.uint64), 0.5, 1.0, SPECIAL_TOKENS).weights.sum() == 10


@pytest.mark.parametrize(
    ("fraction", "length", "slots"), [(0.15, 128, 20), (0.15, 20, 3), (0.25, 512, 128)]
)
def test_slots_are_the_fraction_of_the_row_rounded_up(fraction, length, slots):
    assert masked_slots(fraction, length) == slots
