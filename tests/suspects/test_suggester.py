"""Suggestions against a plain loop over the logits of transformers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from electra_dist.errors import UserError
from electra_dist.suspects.suggester import Suggester
from electra_dist.suspects.vocabulary import Vocabulary, mark_of
from tests.support.pairs import CPU, transformers_model

TEXT = "The value of the object, and more."


@pytest.fixture(scope="module")
def suggester(pair: Path) -> Suggester:
    return Suggester.open(pair / "generator", CPU)


class Plain:
    """The same by hand: one word, one filling after the other, no batches."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer, self.model = transformers_model(folder, "AutoModelForMaskedLM")
        self.encoded = self.tokenizer(TEXT, return_offsets_mapping=True)
        self.ids = self.encoded["input_ids"]

    def tokens(self, start: int, end: int) -> list[int]:
        """Places of the tokens of a word; that of a lone mark of an opening before it, too."""
        offsets = self.encoded["offset_mapping"]
        own = [place for place, (s, e) in enumerate(offsets) if s < end and e > start]
        if self.piece(self.ids[own[0] - 1]) == "▁":
            own.insert(0, own[0] - 1)
        return own

    def piece(self, token: int) -> str:
        piece: str = self.tokenizer.convert_ids_to_tokens(token)
        return piece

    def log_probabilities(self, ids: list[int], place: int) -> Any:
        with torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0, place].double()
        return logits.log_softmax(dim=0)

    def best(self, scores: Any, opens: bool, count: int) -> list[int]:
        """Tokens of letters with or without the mark of an opening, the likeliest first."""
        shape = re.compile(r"▁[\w'’]+" if opens else r"[\w'’]+")
        ranked = scores.argsort(descending=True).tolist()
        fitting = [t for t in ranked if t < len(self.tokenizer) and shape.fullmatch(self.piece(t))]
        return [t for t in fitting if t not in self.tokenizer.all_special_ids][:count]

    def suggestions(self, start: int, end: int, count: int) -> list[tuple[str, float]]:
        own = self.tokens(start, end)
        before = self.ids[: own[0]]
        after = self.ids[own[-1] + 1 :]
        mask = self.tokenizer.mask_token_id
        opens = self.piece(self.ids[own[0]]).startswith("▁")
        found: dict[str, float] = {}
        for length in {1, len(own)}:
            scores = self.log_probabilities(before + [mask] * length + after, len(before))
            for first in self.best(scores, opens, count + 1):
                filled = [first]
                total = float(scores[first])
                while len(filled) < length:
                    ids = before + filled + [mask] * (length - len(filled)) + after
                    next_scores = self.log_probabilities(ids, len(before) + len(filled))
                    (token,) = self.best(next_scores, opens=False, count=1)
                    filled.append(token)
                    total += float(next_scores[token])
                text = "".join(map(self.piece, filled)).replace("▁", "")
                if text != TEXT[start:end]:
                    found[text] = max(found.get(text, 0.0), math.exp(total))
        return sorted(found.items(), key=lambda one: -one[1])[:count]


@pytest.mark.parametrize("word", ["The", "value", "object", "more"])
def test_suggestions_are_those_of_a_plain_loop(suggester: Suggester, pair: Path, word: str) -> None:
    span = (TEXT.index(word), TEXT.index(word) + len(word))
    plain = Plain(pair / "generator")
    (found,) = suggester.suggest(TEXT, [span], 4)
    expected = plain.suggestions(*span, 4)
    assert [one.text for one in found] == [text for text, _ in expected]
    assert [one.probability for one in found] == pytest.approx([p for _, p in expected], rel=1e-3)


def test_words_together_get_what_they_get_alone(suggester: Suggester) -> None:
    spans = [(match.start(), match.end()) for match in re.finditer(r"\w+|[,.]", TEXT)]
    together = suggester.suggest(TEXT, spans, 3)
    assert [len(found) for found in together] == [3] * len(spans)
    for span, found in zip(spans, together, strict=True):
        (alone,) = suggester.suggest(TEXT, [span], 3)
        assert [one.text for one in found] == [one.text for one in alone]
        is_word = TEXT[slice(*span)].isalnum()
        assert all(re.fullmatch(r"[\w'’]+", one.text) is not None for one in found) == is_word


def test_a_word_in_a_long_text_sees_both_sides(suggester: Suggester) -> None:
    text = "word " * 400
    spans = [(0, 4), (5 * 200, 5 * 200 + 4), (5 * 399, 5 * 399 + 4)]
    assert [len(found) for found in suggester.suggest(text, spans, 2)] == [2, 2, 2]


def test_what_is_no_word_gets_none(suggester: Suggester) -> None:
    assert suggester.suggest(TEXT, [(1, 2)], 3) == [()]
    assert suggester.suggest("", [], 3) == []


def test_the_likelihood_of_a_word_has_all_of_it_masked(suggester: Suggester, pair: Path) -> None:
    plain = Plain(pair / "generator")
    start = TEXT.index("object")
    found = suggester.log_likelihood(TEXT, [(start, start + 6), (1, 2)])
    offsets = plain.encoded["offset_mapping"]
    own = [place for place, (s, e) in enumerate(offsets) if s < start + 6 and e > start]
    ids = list(plain.ids)
    for place in own:
        ids[place] = plain.tokenizer.mask_token_id
    expected = sum(float(plain.log_probabilities(ids, p)[plain.ids[p]]) for p in own)
    assert found == [pytest.approx(expected, rel=1e-4), None]


def test_another_model_is_refused(pair: Path) -> None:
    with pytest.raises(UserError, match="are made by a generator"):
        Suggester.open(pair / "discriminator", CPU)


@pytest.mark.parametrize(
    ("piece", "mark"), [("▁the", "▁"), ("Ġthe", "Ġ"), ("##ing", "##"), ("the", ""), ("▁", "▁")]
)
def test_marks_of_pieces(piece: str, mark: str) -> None:
    assert mark_of(piece) == mark


class WordPieces:
    """As much of a BERT tokenizer as a vocabulary needs."""

    pieces = ("[MASK]", "un", "##known", "##!", "word", ",", "##5")
    all_special_ids = (0,)

    def __len__(self) -> int:
        return len(self.pieces)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[token] for token in ids]

    def convert_tokens_to_string(self, pieces: list[str]) -> str:
        return " ".join(pieces).replace(" ##", "")


def test_the_pieces_of_bert_open_without_a_mark_and_go_on_with_one() -> None:
    vocabulary = Vocabulary(WordPieces(), 8)
    assert vocabulary.opening(4, "word").nonzero()[0].tolist() == [1, 4]
    assert vocabulary.opening(5, ",").nonzero()[0].tolist() == [5]
    assert vocabulary.continuing("word").nonzero()[0].tolist() == [2, 6]
    assert vocabulary.text((1, 2)) == "unknown"
