"""What each token of a vocabulary can stand for: the beginning of a word, or its continuation.

Tokenizers tell the two apart by a mark: "▁" (SentencePiece) and "Ġ" (byte-level BPE) open a word,
"##" (WordPiece) goes on with one. In code a word often opens without a mark, as after a bracket.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

_MARKS = ("▁", "Ġ", "##")
_WORD = regex.compile(r"[\w'’]+")
_SIGNS = regex.compile(r"[^\w\s]+")
Mask = NDArray[np.bool_]


class Vocabulary:
    """Of one tokenizer, without its special tokens."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        """`size` is the number of logits; ids above the tokenizer's stand for nothing."""
        self._tokenizer = tokenizer
        known = min(size, len(tokenizer))
        self.pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(known)))
        special = set(tokenizer.all_special_ids)
        self._marks = np.full(size, "?", dtype=object)
        self._is_word = np.zeros(size, dtype=bool)
        self._is_sign = np.zeros(size, dtype=bool)
        for token, piece in enumerate(self.pieces):
            if token in special:
                continue
            mark = mark_of(piece)
            body = piece.removeprefix(mark)
            self._marks[token] = mark
            self._is_word[token] = _WORD.fullmatch(body) is not None
            self._is_sign[token] = _SIGNS.fullmatch(body) is not None
        continued = "##" if "##" in set(self._marks) else ""
        self._continues = self._marks == continued

    def opening(self, like: int, word: str) -> Mask:
        """Tokens that can stand first where the token `like` does, in a word such as `word`."""
        fitting: Mask = (self._marks == mark_of(self.pieces[like])) & self._kind(word)
        return fitting

    def continuing(self, word: str) -> Mask:
        """Tokens that can follow in a word such as `word`."""
        fitting: Mask = self._continues & self._kind(word)
        return fitting

    def opens_alone(self, token: int) -> bool:
        """Whether a token is the mark of an opening and nothing else."""
        return self.pieces[token] in _MARKS

    def text(self, tokens: tuple[int, ...]) -> str:
        """The word that these tokens spell."""
        pieces = [self.pieces[token] for token in tokens]
        spelled: str = self._tokenizer.convert_tokens_to_string(pieces)
        return spelled.strip().removeprefix("##")

    def _kind(self, word: str) -> Mask:
        if _WORD.search(word):
            return self._is_word
        return self._is_sign


def mark_of(piece: str) -> str:
    """The mark that a piece begins with; empty where it has none."""
    for mark in _MARKS:
        if piece.startswith(mark):
            return mark
    return ""
