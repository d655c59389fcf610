"""Both networks together, and where the generator is looked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from electra_dist.errors import UserError
from electra_dist.suspects.detector import Detector
from electra_dist.suspects.finding import Finder, generator_beside
from electra_dist.suspects.suggester import Suggester
from tests.support.pairs import CPU

TEXTS = ["The value of the object.", "  ", "Another text, with more words."]


def test_words_from_the_threshold_on_are_suspects_with_suggestions(pair: Path) -> None:
    (text, *_) = TEXTS
    (judged,) = Detector.open(pair / "discriminator", CPU).judge([text])
    ranked = sorted(probability for _, probability in judged.words())
    threshold = ranked[-2]
    finder = Finder.open(pair / "discriminator", pair / "generator", CPU, threshold, 3)
    (found,) = finder.find([text])
    assert sorted(word.probability for word in found.suspects) == ranked[-2:]
    spans = [(word.start, word.end) for word in found.suspects]
    suggested = Suggester.open(pair / "generator", CPU).suggest(text, spans, 3)
    assert [word.suggestions for word in found.suspects] == suggested
    assert not any(word.suggestions for word in found.words if not word.suspect)


def test_texts_keep_step_and_words_their_places(pair: Path) -> None:
    finder = Finder.open(pair / "discriminator", None, CPU, threshold=0)
    texts = TEXTS * 30  # more than are judged at a time
    found = list(finder.find(texts))
    assert [one.text for one in found] == texts
    assert found[1].words == ()
    for one in found:
        assert [one.text[word.start : word.end] for word in one.words] == [
            word.text for word in one.words
        ]
        assert one.suspects == one.words
        assert not any(word.suggestions for word in one.words)


def test_the_generator_of_the_same_run_is_found(pair: Path, tmp_path: Path) -> None:
    assert generator_beside(pair / "discriminator") == (pair / "generator").resolve()
    shutil.copytree(pair, tmp_path / "pair")
    other = tmp_path / "pair"
    marker = {"network": "generator", "run_id": "other"}
    (other / "generator/electra_dist.json").write_text(json.dumps(marker))
    assert generator_beside(other / "discriminator") is None
    shutil.rmtree(other / "generator")
    assert generator_beside(other / "discriminator") is None


@pytest.mark.parametrize(
    ("threshold", "count", "said"),
    [(1.5, 5, "`threshold` 1.5"), (float("nan"), 5, "`threshold` nan"), (0.5, 0, "`count` 0")],
)
def test_numbers_that_cannot_be_are_refused(
    pair: Path, threshold: float, count: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Finder.open(pair / "discriminator", None, CPU, threshold, count)
