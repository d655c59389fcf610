"""Which versions of `transformers` load an export, as `make compatibility` has found.

The table of every version is in docs/export.md; a test holds these constants against it.
"""

from __future__ import annotations

#: The oldest version tried; every one tried since computes the same.
OLDEST = "4.24.0"
#: The oldest that gives the ids of a unigram tokenizer: earlier ones do not spell what is unknown
#: in bytes.
OLDEST_WITH_UNIGRAM = "4.36.2"
#: From this version on, a discriminator's tokenizer takes a special token that a text spells for
#: text, as pre-training did; before, for the token.
SPELT_AS_TEXT_FROM = "4.46.3"
#: The newest version tried.
NEWEST = "5.23.0"
#: Kinds of tokenizers, as their cards name them, that the oldest version reads.
_READ_BY_OLDEST = ("bpe", "words", "wordlevel")


def sentence(kind: str) -> str:
    """For the model card of a model with this kind of tokenizer."""
    oldest = OLDEST_WITH_UNIGRAM
    if kind.lower() in _READ_BY_OLDEST:
        oldest = OLDEST
    return f"Loads with transformers {oldest} to {NEWEST} (both tested, and versions between them)."
