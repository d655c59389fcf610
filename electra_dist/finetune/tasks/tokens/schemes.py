"""Schemes in which the label of a word says where an entity begins and ends.

    IOB1    I-PER inside; B-PER only where an entity follows one of its kind at once
    IOB2    B-PER first, I-PER after it (also called BIO)
    BILOU   as IOB2, with L-PER for the last word and U-PER for an only one
    IOBES   the same with E-PER and S-PER (also called BIOES)

Whatever the scheme, labels are read the same way (`entities_of`), and written in one way only
(`labels_of`): IOB1 is written as IOB2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from electra_dist.errors import DataError

OUTSIDE = "O"
#: What labels are called that mark no entities, such as parts of speech.
PLAIN = "plain"
#: How each scheme writes the first, an inner, the last and the only word of an entity.
_WRITTEN = {
    "IOB1": ("B", "I", "I", "B"),
    "IOB2": ("B", "I", "I", "B"),
    "BILOU": ("B", "I", "L", "U"),
    "IOBES": ("B", "I", "E", "S"),
}
SCHEMES = (*_WRITTEN, PLAIN)
_LABEL = re.compile(r"([BIOLUES])-(.+)", re.DOTALL)
_CONTINUING = "ILE"
_ENDING = "LEUS"


class Entity(NamedTuple):
    """The words from `start` up to `end`."""

    start: int
    end: int
    kind: str


def parts(label: str) -> tuple[str, str] | None:
    """The prefix and the kind of a label, `("O", "")` of one outside, None where it has neither."""
    if label == OUTSIDE:
        return OUTSIDE, ""
    found = _LABEL.fullmatch(label)
    if found is None or found[1] == OUTSIDE:
        return None
    return found[1], found[2]


def entities_of(labels: Sequence[str]) -> list[Entity]:
    """The entities that the labels of a sentence mark, whatever the scheme.

    A label that would continue an entity of its kind where there is none begins one, and what is
    not ended ends before the next: as conlleval and `transformers` read them.
    """
    found: list[Entity] = []
    start, kind = 0, ""
    for index, label in enumerate(labels):
        prefix, name = parts(label) or (OUTSIDE, "")
        goes_on = bool(kind) and name == kind and prefix in _CONTINUING
        if kind and not goes_on:
            found.append(Entity(start, index, kind))
        if not goes_on:
            start = index
        kind = name
        if prefix in _ENDING:
            found.append(Entity(start, index + 1, kind))
            kind = ""
    if kind:
        found.append(Entity(start, len(labels), kind))
    return found


def labels_of(entities: Iterable[Entity], words: int, scheme: str) -> list[str]:
    """The labels of a sentence of so many `words`, as `scheme` writes them."""
    first, inner, last, only = _WRITTEN[scheme]
    labels = [OUTSIDE] * words
    for start, end, kind in entities:
        prefixes = [first, *[inner] * (end - start - 2), last]
        if end - start == 1:
            prefixes = [only]
        labels[start:end] = [f"{prefix}-{kind}" for prefix in prefixes]
    return labels


def labels_of_kinds(kinds: Iterable[str], scheme: str) -> list[str]:
    """Every label that the scheme has for entities of these kinds, the one outside first."""
    prefixes = dict.fromkeys(_WRITTEN[scheme])
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(kinds) for prefix in prefixes)]


def recognise(sentences: Iterable[Sequence[str]], place: str) -> str:
    """The scheme in which the labels of a file are written; `PLAIN` where they mark no entities.

    Raises `DataError`, which begins with `place`, for prefixes that belong to no scheme.
    """
    sentences = list(sentences)
    labels = {label for sentence in sentences for label in sentence}
    found = {label: parts(label) for label in labels if label != OUTSIDE}
    if not found or None in found.values():
        return PLAIN
    prefixes = {pair[0] for pair in found.values() if pair is not None}
    if prefixes <= set("BI"):
        return _iob(sentences)
    for scheme in ("BILOU", "IOBES"):
        if prefixes <= set(_WRITTEN[scheme]):
            return scheme
    raise DataError(
        f"{place}: the labels begin with {', '.join(sorted(prefixes))}; expected those of one"
        " scheme: B, I (IOB), B, I, L, U (BILOU) or B, I, E, S (IOBES)"
    )


def _iob(sentences: Sequence[Sequence[str]]) -> str:
    """IOB1 where an inside label begins entities, and B only tells neighbours apart."""
    begun_inside = False
    for labels in sentences:
        ends = {(one.end, one.kind) for one in entities_of(labels)}
        for start, _, kind in entities_of(labels):
            if labels[start].startswith("I"):
                begun_inside = True
            elif (start, kind) not in ends:
                return "IOB2"
    if begun_inside:
        return "IOB1"
    return "IOB2"
