"""Rows of tokens for a text with each of its candidates, made when they are asked for.

Comes in: lists of candidates, each with its text. Goes out: model inputs of
`[CLS] text [SEP] candidate [SEP]`, one row per candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np

from electra_dist.console import warn
from electra_dist.finetune.runners.runner import Output

Row = dict[str, list[int]]
#: Rows whose lengths are looked at before a training.
_SAMPLE = 1000


class Listed(Protocol):
    """A text and its candidates."""

    @property
    def text(self) -> str:
        """The question, the context, or what is looked for."""

    @property
    def candidates(self) -> Sequence[str]:
        """In their order in the file."""


def encode_pairs(
    tokenizer: Any, texts: Sequence[str], candidates: Sequence[str], max_length: int
) -> list[Row]:
    """Model inputs of each text with its candidate, of at most `max_length` tokens.

    What is too long loses the end of its text, and the candidate stays whole. Where the candidate
    alone takes more than three quarters of the row, the longer of the two is cut instead: a short
    text survives a long candidate.
    """
    encoded = tokenizer(list(texts), list(candidates), verbose=False)
    rows = [{name: encoded[name][index] for name in encoded} for index in range(len(texts))]
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    cut: dict[str, list[int]] = {"only_first": [], "longest_first": []}
    for index, encoding in enumerate(encoded.encodings):
        if len(encoding.ids) <= max_length:
            continue
        candidate = encoding.sequence_ids.count(1)
        if candidate <= room * 3 // 4:
            cut["only_first"].append(index)
        else:
            cut["longest_first"].append(index)
    for strategy, chosen in cut.items():
        if not chosen:
            continue
        shorter = tokenizer(
            [texts[index] for index in chosen],
            [candidates[index] for index in chosen],
            truncation=strategy,
            max_length=max_length,
        )
        for number, index in enumerate(chosen):
            rows[index] = {name: shorter[name][number] for name in shorter}
    return rows


def encode_list(tokenizer: Any, one: Listed, max_length: int) -> dict[str, list[list[int]]]:
    """The rows of all candidates of one list, by the name of the model's input."""
    texts = [one.text] * len(one.candidates)
    rows = encode_pairs(tokenizer, texts, one.candidates, max_length)
    return {name: [row[name] for row in rows] for name in rows[0]}


class CandidateRows(Sequence[Row]):
    """One row per candidate of every list; a slice of them is encoded together."""

    def __init__(
        self, lists: Sequence[Listed], counts: Iterable[int], tokenizer: Any, max_length: int
    ) -> None:
        """`counts`: how many candidates each list has."""
        self._lists = lists
        self._ends = np.array(list(accumulate(counts)), dtype=np.int64)
        self._tokenizer = tokenizer
        self._max_length = max_length

    def __len__(self) -> int:
        if not len(self._ends):
            return 0
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self[index : index + 1][0]
        pairs = list(self._pairs(*index.indices(len(self))[:2]))
        if not pairs:
            return []
        (texts, candidates) = zip(*pairs, strict=True)
        return encode_pairs(self._tokenizer, texts, candidates, self._max_length)

    def by_list(self, outputs: Sequence[Output]) -> list[Output]:
        """The outputs of all rows, one score each, as one array (C,) per list."""
        scores = np.array([output[0].reshape(-1)[0] for output in outputs], dtype=np.float32)
        return [(scores[start:end],) for start, end in pairwise([0, *self._ends.tolist()])]

    def _pairs(self, start: int, stop: int) -> Iterator[tuple[str, str]]:
        """The text and the candidate of the rows from `start` up to `stop`."""
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            one = self._lists[number]
            end = int(self._ends[number])
            first = start - end + len(one.candidates)
            wanted = one.candidates[first : first + stop - start]
            yield from ((one.text, candidate) for candidate in wanted)
            start = end
            number += 1


def warn_of_cuts(lists: Sequence[Listed], name: str, tokenizer: Any, max_length: int) -> None:
    """Say how many rows of the first lists are cut; `name` is that of the file."""
    looked_at = 0
    cut = 0
    for one in lists:
        encoded = tokenizer([one.text] * len(one.candidates), list(one.candidates), verbose=False)
        cut += sum(len(ids) > max_length for ids in encoded["input_ids"])
        looked_at += len(one.candidates)
        if looked_at >= _SAMPLE:
            break
    if cut:
        warn(
            f"{name}: {cut:,} of the first {looked_at:,} candidates and their texts are longer than"
            f" {max_length} tokens; the rest of them is not seen"
        )
