"""Schemes of labels, against seqeval, which reads valid labels in its own way."""

from __future__ import annotations

import random

import pytest
from seqeval import scheme as seqeval_schemes
from seqeval.metrics.sequence_labeling import get_entities

from electra_dist.errors import DataError
from electra_dist.finetune.tasks.tokens.schemes import (
    PLAIN,
    Entity,
    entities_of,
    labels_of,
    labels_of_kinds,
    recognise,
)

SAME = [Entity(0, 2, "PER"), Entity(2, 3, "PER"), Entity(4, 7, "LOC"), Entity(7, 8, "PER")]
WRITTEN = {
    "IOB1": "I-PER I-PER B-PER O I-LOC I-LOC I-LOC I-PER",
    "IOB2": "B-PER I-PER B-PER O B-LOC I-LOC I-LOC B-PER",
    "BILOU": "B-PER L-PER U-PER O B-LOC I-LOC L-LOC U-PER",
    "IOBES": "B-PER E-PER S-PER O B-LOC I-LOC E-LOC S-PER",
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_one_reading_of_every_scheme(scheme: str) -> None:
    labels = WRITTEN[scheme].split()
    assert entities_of(labels) == SAME
    assert recognise([labels], "file") == scheme
    written_as = "IOB2" if scheme == "IOB1" else scheme
    assert labels_of(SAME, len(labels), scheme) == WRITTEN[written_as].split()


def random_entities(draw: random.Random, words: int) -> list[Entity]:
    found, start = [], 0
    while start < words:
        end = min(words, start + draw.choice((1, 1, 2, 3)))
        if draw.random() < 0.6:
            found.append(Entity(start, end, draw.choice(("PER", "LOC", "A-B"))))
        start = end
    return found


@pytest.mark.parametrize("scheme", ["IOB2", "BILOU", "IOBES"])
def test_what_is_written_is_what_seqeval_reads_strictly(scheme: str) -> None:
    draw = random.Random(7)
    kind = getattr(seqeval_schemes, scheme)
    for _ in range(200):
        words = draw.randrange(0, 12)
        entities = random_entities(draw, words)
        labels = labels_of(entities, words, scheme)
        assert entities_of(labels) == entities
        read = seqeval_schemes.Tokens(labels, kind).entities
        assert [(one.start, one.end, one.tag) for one in read] == entities


def test_broken_labels_are_read_as_conlleval_reads_them() -> None:
    """seqeval's default mode is conlleval's reading of B and I."""
    draw = random.Random(3)
    choices = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    for _ in range(500):
        labels = [draw.choice(choices) for _ in range(draw.randrange(1, 9))]
        expected = [(start, end + 1, kind) for kind, start, end in get_entities(labels)]
        assert [(one.start, one.end, one.kind) for one in entities_of(labels)] == expected


def test_what_is_recognised() -> None:
    assert recognise([["I-A", "O"], ["I-A", "B-A"]], "f") == "IOB1"
    assert recognise([["I-A", "O"], ["B-A", "O"]], "f") == "IOB2"
    assert recognise([["B-A", "O"]], "f") == "IOB2"
    assert recognise([["U-A", "O"]], "f") == "BILOU"
    assert recognise([["B-A", "E-A"]], "f") == "IOBES"
    assert recognise([["NOUN", "VERB"], ["B-A"]], "f") == PLAIN
    assert recognise([["O", "O"]], "f") == PLAIN
    with pytest.raises(DataError, match="f: the labels begin with B, L, S"):
        recognise([["B-A", "L-A", "S-A"]], "f")


def test_every_label_of_a_scheme_is_known() -> None:
    assert labels_of_kinds({"X", "A"}, "IOB1") == ["O", "B-A", "I-A", "B-X", "I-X"]
    assert labels_of_kinds({"X"}, "BILOU") == ["O", "B-X", "I-X", "L-X", "U-X"]
