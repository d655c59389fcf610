"""Windows of tokens over the words of sentences.

Comes in: sentences and a fast `transformers` tokenizer. Goes out: `Windows`: model inputs, and
where the first piece of each word stands in them.

A sentence that is too long is cut between words into windows that overlap. Each word belongs to one
window, that in which it stands further from the cut.

Shape letters: B windows, L tokens of a window, N words of a sentence, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.console import say
from electra_dist.errors import DataError
from electra_dist.finetune.runners.runner import Outputs
from electra_dist.finetune.tasks.tokens.sentences import Sentence

#: The label of a token that stands for no word: the loss of `transformers` leaves it out.
IGNORED = -100
#: Sentences that are tokenized together; more only takes memory.
_BATCH = 1000


@dataclass(frozen=True)
class Window:
    """Tokens of a sentence: `first` is the first word that belongs to the window, and `places` are
    the positions of the first pieces of this word and those that follow it.
    """

    sentence: int
    input_ids: list[int]
    first: int
    places: list[int]

    def labels(self, targets: Sequence[int]) -> list[int]:
        """(L,): the target of each word at its first piece; `targets` are those of the sentence."""
        labels = [IGNORED] * len(self.input_ids)
        for word, place in enumerate(self.places, self.first):
            labels[place] = targets[word]
        return labels


@dataclass(frozen=True)
class Windows:
    """The windows of sentences, in order; `words` (S,) counts the words of each sentence."""

    windows: list[Window]
    words: list[int]

    def features(self, targets: Sequence[Sequence[int]] | None = None) -> list[dict[str, Any]]:
        """Model inputs of each window; with the targets of each sentence, also `labels`."""
        found = []
        for window in self.windows:
            feature: dict[str, Any] = {"input_ids": window.input_ids}
            if targets is not None:
                feature["labels"] = window.labels(targets[window.sentence])
            found.append(feature)
        return found

    def by_word(self, outputs: Outputs, labels: int) -> list[NDArray[np.float32]]:
        """The logits (N, C) of the words of each sentence, from those (L, C) of the windows."""
        found = [np.zeros((count, labels), dtype=np.float32) for count in self.words]
        for window, (logits, *_) in zip(self.windows, outputs, strict=True):
            end = window.first + len(window.places)
            found[window.sentence][window.first : end] = logits[window.places]
        return found


def make_windows(
    sentences: Sequence[Sentence], tokenizer: Any, max_length: int, stride: int, source: object
) -> Windows:
    """Cut sentences into windows of at most `max_length` tokens that overlap by up to `stride`.

    Raises `DataError`, which begins with `source`, for a word that the tokenizer makes no token of.
    """
    windows: list[Window] = []
    long = 0
    for start in range(0, len(sentences), _BATCH):
        batch = sentences[start : start + _BATCH]
        given = [index for index, one in enumerate(batch) if one.spans]
        if not given:
            continue
        # As in pre-training: texts, in which a token may hold the space before a word.
        encoded = tokenizer(
            [" ".join(batch[index].words) for index in given],
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        for row, index in enumerate(given):
            owners = _owners(
                batch[index].words,
                encoded["offset_mapping"][row],
                encoded["special_tokens_mask"][row],
            )
            pieces = _Pieces(encoded["input_ids"][row], owners)
            pieces.check(batch[index], source)
            own = list(pieces.windows(start + index, max_length, stride))
            long += len(own) > 1
            windows.extend(own)
    if long:
        say(
            f"{source}: {long:,} of {len(sentences):,} sentences are longer than {max_length}"
            f" tokens; they are read in windows that share up to {stride}"
        )
    return Windows(windows, [len(one.spans) for one in sentences])


def _owners(
    words: Sequence[str], offsets: Sequence[tuple[int, int]], special: Sequence[int]
) -> list[int | None]:
    """(L,): the word that each token belongs to, None for a special one; the space before a word
    belongs to it.
    """
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    found = np.searchsorted(ends, [start for start, _ in offsets], side="right").tolist()
    return [None if hidden else word for word, hidden in zip(found, special, strict=True)]


class _Pieces:
    """The tokens of a sentence, and where its words begin in them."""

    def __init__(self, ids: list[int], owners: Sequence[int | None]) -> None:
        inside = [place for place, owner in enumerate(owners) if owner is not None]
        begin = inside[0] if inside else len(ids)
        end = inside[-1] + 1 if inside else len(ids)
        self._before = ids[:begin]
        self._ids = ids[begin:end]
        self._after = ids[end:]
        # Where each word begins in `_ids`; at the end, how many there are.
        starts = {owner: place for place, owner in reversed(list(enumerate(owners[begin:end])))}
        self._seen = {owner for owner in starts if owner is not None}
        self._starts = [*sorted(starts.values()), len(self._ids)]

    def check(self, sentence: Sentence, source: object) -> None:
        """Raise `DataError` for a word without a token."""
        for index, word in enumerate(sentence.words):
            if index not in self._seen:
                raise DataError(
                    f"{sentence.place(source, index)}: the word {word!r} is nothing to this"
                    " tokenizer; leave it out, with its label"
                )

    def windows(self, sentence: int, max_length: int, stride: int) -> Iterator[Window]:
        """Those of the sentence, in its order."""
        room = max_length - len(self._before) - len(self._after)
        ranges = list(self._ranges(room, stride))
        first = 0
        for number, (begin, end) in enumerate(ranges):
            last = end
            if number + 1 < len(ranges):
                last = (ranges[number + 1][0] + end) // 2
            offset = self._starts[begin]
            ids = self._ids[offset : min(self._starts[end], offset + room)]
            shift = len(self._before) - offset
            places = [self._starts[word] + shift for word in range(first, last)]
            yield Window(sentence, [*self._before, *ids, *self._after], first, places)
            first = last

    def _ranges(self, room: int, stride: int) -> Iterator[tuple[int, int]]:
        """From which word and up to which each window goes; a word larger than a window has one of
        its own.
        """
        starts = np.array(self._starts)
        words = len(starts) - 1
        begin = 0
        while True:
            fitting = int(np.searchsorted(starts, starts[begin] + room, side="right")) - 1
            end = max(fitting, begin + 1)
            yield begin, end
            if end >= words:
                return
            shared = int(np.searchsorted(starts, starts[end] - stride, side="left"))
            begin = max(shared, begin + 1)
