"""Words: one id per white-space separated symbol, for sequences that are no text (proteins, events,
moves of a game). Nothing is normalised; a symbol outside the vocabulary is [UNK].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import models, pre_tokenizers

from data_tools.tokenizer.rules import PIECES, add_special_tokens, written_out
from electra_dist.errors import DataError


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each symbol occurs."""
    # cut as the tokenizer will cut: Python's own idea of white space is another one
    pre_tokenizer = _pre_tokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in pre_tokenizer.pre_tokenize_str(text))
    return counts


def word_level(counts: Counter[str], vocab_size: int) -> tuple[tokenizers.Tokenizer, float]:
    """A tokenizer of the most frequent symbols, at most `vocab_size` ids with the special tokens,
    and the share of the counted symbols that are [UNK].

    Of symbols that are equally frequent, those that sort first are taken. Raises `DataError` where
    there is no room for a symbol, or no symbol.
    """
    room = vocab_size - len(PIECES)
    if room < 1:
        raise DataError(
            f"`vocab_size` {vocab_size}: too small; {len(PIECES)} special tokens and one symbol"
            f" alone need {len(PIECES) + 1}"
        )
    if not counts:
        raise DataError("the input holds no symbol; give text with symbols apart by white space")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    words = [*PIECES.values(), *ordered[:room]]
    vocabulary = {word: number for number, word in enumerate(words)}
    model = models.WordLevel(vocab=vocabulary, unk_token=PIECES["unk"])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = _pre_tokenizer()
    add_special_tokens(tokenizer)
    unknown = sum(counts[word] for word in ordered[room:])
    return tokenizer, unknown / counts.total()


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([written_out(), pre_tokenizers.WhitespaceSplit()])
