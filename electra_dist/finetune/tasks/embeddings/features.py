"""Model inputs of texts, cut to a length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from electra_dist.console import warn


class TextFeatures(NamedTuple):
    """Model inputs of each text, and how many of the texts were cut."""

    features: list[dict[str, Any]]
    cut: int


def encode_texts(tokenizer: Any, texts: Sequence[str], max_length: int) -> TextFeatures:
    """Each text cut to `max_length` tokens, [CLS] and [SEP] among them."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
    cut = sum(bool(one.overflowing) for one in encoded.encodings)
    features = [{name: encoded[name][index] for name in encoded} for index in range(len(texts))]
    return TextFeatures(features, cut)


def text_features(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[dict[str, Any]]:
    """The same, with a warning where texts were cut."""
    features, cut = encode_texts(tokenizer, texts, max_length)
    warn_of_cut(cut, len(texts), max_length)
    return features


def warn_of_cut(cut: int, count: int, max_length: int) -> None:
    """Where any of the `count` texts was cut."""
    if cut:
        warn(
            f"{cut:,} of {count:,} texts are longer than {max_length} tokens; the rest of them is"
            " not seen"
        )
