"""The generator's suggestions for a word: what it would write there, having seen the rest.

All tokens of the word are masked. The first mask takes the likeliest tokens that can open a word
there, each following one the likeliest that continues it, from left to right. A single mask is
tried as well, because a misspelling often has more tokens than the word that was meant.
Suggestions of both lengths are ranked by the product of their probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from electra_dist.errors import UserError
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.runners.runner import Runner, TorchRunner
from electra_dist.suspects.findings import Suggestion
from electra_dist.suspects.vocabulary import Mask, Vocabulary
from electra_dist.suspects.windows import FRAME, Tokens, framed, tokens_of
from electra_dist.suspects.words import TokenizedWord, words_of

#: Words of more tokens get suggestions of one token only.
MOST_PIECES = 8
#: Logits that are held at a time.
_MOST_LOGITS = 1 << 26

Span = tuple[int, int]
LogProbabilities = NDArray[np.float64]


@dataclass(frozen=True)
class _Blank:
    """A word that is being filled: tokens before it, masks left, tokens after it, and those that
    were found so far, with the logarithm of their probability.
    """

    word: int
    before: tuple[int, ...]
    masks: int
    after: tuple[int, ...]
    found: tuple[int, ...] = ()
    log_probability: float = 0.0


@dataclass(frozen=True)
class _Allowed:
    """Tokens that can stand for a word: at its beginning, and further on."""

    opening: Mask
    continuing: Mask


class Suggester:
    """A generator with its tokenizer."""

    def __init__(self, tokenizer: Any, runner: Runner, positions: int, size: int) -> None:
        """`runner` gives `size` logits of each token, for inputs of at most `positions` tokens."""
        self._tokenizer = tokenizer
        self._runner = runner
        self._positions = positions
        self._vocabulary = Vocabulary(tokenizer, size)
        self._at_once = max(1, _MOST_LOGITS // (positions * size))

    @classmethod
    def open(cls, path: Path, device: torch.device) -> Suggester:
        """The generator in a folder; raises `UserError` where there is another model."""
        folder = ModelFolder.open(path)
        if folder.kind != "generator":
            raise UserError(
                f"{path}: is a model for {folder.kind}; suggestions are made by a generator, as"
                " `electra-dist export --network generator` writes it"
            )
        tokenizer = folder.tokenizer()
        if tokenizer.mask_token_id is None:
            raise UserError(f"{path}: its tokenizer has no mask token; suggestions need one")
        model = folder.load("AutoModelForMaskedLM")
        runner = TorchRunner(model, tokenizer, device)
        positions = int(folder.config["max_position_embeddings"])
        return cls(tokenizer, runner, positions, int(folder.config["vocab_size"]))

    def suggest(self, text: str, spans: Sequence[Span], count: int) -> list[tuple[Suggestion, ...]]:
        """For the word at each span of `text`, up to `count` suggestions, the most likely first.

        The word itself is none. A span that is no whole word to this tokenizer gets none.
        """
        tokens = tokens_of(self._tokenizer, text)
        words = _by_span(words_of(text, tokens.offsets))
        allowed: dict[int, _Allowed] = {}
        blanks: list[_Blank] = []
        for number, span in enumerate(spans):
            if span not in words:
                continue
            masked = self._masked(tokens, words[span])
            allowed[number] = self._allowed(tokens.ids[masked.start], text[slice(*span)])
            blanks += self._blanks(number, tokens, masked)

        width = count + 1  # the word itself may be among them
        filled: list[_Blank] = []
        while blanks:
            blanks = [
                longer
                for blank, rows in self._log_probabilities(blanks)
                for longer in _expanded(blank, rows[0], allowed[blank.word], width)
            ]
            filled += [blank for blank in blanks if not blank.masks]
            blanks = [blank for blank in blanks if blank.masks]

        suggestions = []
        for number, (start, end) in enumerate(spans):
            own = [blank for blank in filled if blank.word == number]
            suggestions.append(self._ranked(own, text[start:end])[:count])
        return suggestions

    def log_likelihood(self, text: str, spans: Sequence[Span]) -> list[float | None]:
        """The log-probability of the word at each span, with all of its tokens masked: the sum over
        its tokens. None where a span is no whole word to this tokenizer, or the network has too
        few positions for it.
        """
        tokens = tokens_of(self._tokenizer, text)
        words = _by_span(words_of(text, tokens.offsets))
        blanks = []
        for number, span in enumerate(spans):
            if span in words and len(words[span].tokens) <= self._positions - FRAME:
                masked = words[span].tokens
                blanks.append(self._blank(number, tokens, masked, len(masked)))
        found: list[float | None] = [None] * len(spans)
        for blank, rows in self._log_probabilities(blanks):
            own = [tokens.ids[token] for token in words[spans[blank.word]].tokens]
            found[blank.word] = float(rows[np.arange(len(own)), own].sum())
        return found

    def _allowed(self, first: int, word: str) -> _Allowed:
        """For a word whose first token is `first`."""
        vocabulary = self._vocabulary
        return _Allowed(vocabulary.opening(first, word), vocabulary.continuing(word))

    def _masked(self, tokens: Tokens, word: TokenizedWord) -> range:
        """The tokens of a word, with the mark of its opening where that is a token of its own."""
        before = word.tokens.start - 1
        if before >= 0 and self._vocabulary.opens_alone(tokens.ids[before]):
            return range(before, word.tokens.stop)
        return word.tokens

    def _blanks(self, number: int, tokens: Tokens, masked: range) -> list[_Blank]:
        """A word with as many masks as it has tokens, and with one."""
        lengths = {1}
        if len(masked) <= min(MOST_PIECES, self._positions - FRAME):
            lengths.add(len(masked))
        return [self._blank(number, tokens, masked, length) for length in sorted(lengths)]

    def _blank(self, number: int, tokens: Tokens, masked: range, masks: int) -> _Blank:
        """As much of the text on both sides as the network has positions for."""
        room = self._positions - FRAME - masks
        left = masked.start
        right = len(tokens.ids) - masked.stop
        before = min(left, max(room // 2, room - right))
        after = min(right, room - before)
        return _Blank(
            number,
            tokens.ids[masked.start - before : masked.start],
            masks,
            tokens.ids[masked.stop : masked.stop + after],
        )

    def _log_probabilities(
        self, blanks: Sequence[_Blank]
    ) -> Iterator[tuple[_Blank, LogProbabilities]]:
        """Each blank with the log-probabilities (masks, V) at its masks."""
        mask = self._tokenizer.mask_token_id
        for start in range(0, len(blanks), self._at_once):
            part = blanks[start : start + self._at_once]
            inputs = [(*b.before, *b.found, *[mask] * b.masks, *b.after) for b in part]
            outputs = self._runner([framed(self._tokenizer, ids) for ids in inputs])
            for blank, (logits, *_) in zip(part, outputs, strict=True):
                first = 1 + len(blank.before) + len(blank.found)  # after [CLS]
                rows = logits[first : first + blank.masks].astype(np.float64)
                shifted = rows - rows.max(axis=1, keepdims=True)
                yield blank, shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def _ranked(self, filled: Sequence[_Blank], word: str) -> tuple[Suggestion, ...]:
        """The texts of one word, each once, without the word itself."""
        found: dict[str, float] = {}
        for blank in filled:
            text = self._vocabulary.text(blank.found)
            if text and text != word:
                found[text] = max(found.get(text, 0.0), float(np.exp(blank.log_probability)))
        ranked = sorted(found.items(), key=lambda one: -one[1])
        return tuple(Suggestion(text, probability) for text, probability in ranked)


def _by_span(words: Sequence[TokenizedWord]) -> dict[Span, TokenizedWord]:
    return {(word.start, word.end): word for word in words}


def _expanded(
    blank: _Blank, scores: LogProbabilities, allowed: _Allowed, width: int
) -> list[_Blank]:
    """A blank with its next mask filled: the first one in up to `width` ways, others in one."""
    fitting = allowed.opening
    if blank.found:
        fitting = allowed.continuing
        width = 1
    ranked = np.argsort(-np.where(fitting, scores, -np.inf), kind="stable")[:width].tolist()
    return [
        replace(
            blank,
            found=(*blank.found, token),
            masks=blank.masks - 1,
            log_probability=blank.log_probability + float(scores[token]),
        )
        for token in ranked
        if fitting[token]
    ]
