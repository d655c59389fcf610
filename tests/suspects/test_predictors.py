"""Suspects and prompts, asked like any other model."""

from __future__ import annotations

from pathlib import Path

import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.predictor import Predictor
from electra_dist.suspects.finding import Finder
from electra_dist.suspects.predictors import PromptPredictor, SuspectsPredictor
from electra_dist.suspects.prompts import Prompt, Prompter
from tests.support.pairs import CPU

TEXTS = ["The value of the object.", "", "Another text."]


@pytest.fixture(scope="module")
def suspects(pair: Path) -> SuspectsPredictor:
    return SuspectsPredictor(Finder.open(pair / "discriminator", None, CPU, threshold=0))


@pytest.fixture(scope="module")
def prompted(pair: Path) -> PromptPredictor:
    prompt = Prompt("{text} It was {label}.", {"a": "great", "b": "bad"})
    return PromptPredictor(Prompter.open(pair / "discriminator", prompt, CPU))


def test_suspects_are_predictions_that_keep_step(suspects: SuspectsPredictor, pair: Path) -> None:
    items = [suspects.item({"text": text}, "here") for text in TEXTS]
    found = list(suspects.predict(items))
    judged = Finder.open(pair / "discriminator", None, CPU, threshold=0).find(TEXTS)
    assert [one.content for one in found] == [one.content() for one in judged]
    for number, one in enumerate(found, 1):
        assert [cells[1] for cells in one.cells] == [w["word"] for w in one.content["words"]]
        assert all(cells[0] == str(number) for cells in one.cells)
        assert all(len(cells) == len(suspects.header) for cells in one.cells)


def test_texts_are_read_from_a_file(
    suspects: SuspectsPredictor, prompted: PromptPredictor, tmp_path: Path
) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    assert suspects.read(path) == TEXTS
    assert [example.text for example in prompted.read(path)] == TEXTS


def test_labels_that_nobody_gave_are_left_out(prompted: PromptPredictor, tmp_path: Path) -> None:
    path = tmp_path / "labelled.tsv"
    path.write_text("text\tlabel\nOne.\ta\nTwo.\t-1\nThree.\tb\nFour.\t\n", encoding="utf-8")
    items = prompted.read(path)
    found, scores = prompted.predict_with_scores(items, path)
    answers = [one.content["predicted"] for one in found]
    right = (answers[0] == "a") + (answers[2] == "b")
    assert scores["accuracy"] == right / 2
    assert [one.content for one in prompted.predict(items)] == [one.content for one in found]
    unlabelled = [prompted.item({"text": text}, "here") for text in TEXTS]
    assert prompted.predict_with_scores(unlabelled, path)[1] == {}


@pytest.mark.parametrize("kind", ["suspects", "prompted"])
def test_what_is_no_text_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    predictor: Predictor = request.getfixturevalue(kind)
    with pytest.raises(DataError, match="here: 'text' is 3; expected a text"):
        predictor.item({"text": 3}, "here")
