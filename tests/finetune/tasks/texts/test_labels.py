"""Classes, targets and scores of texts, against counts by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns, Example
from electra_dist.finetune.tasks.texts.labels import (
    TextTask,
    classes,
    classification_scores,
    regression_scores,
)

FILE = Path("some.tsv")


def examples(*labels: str | None) -> list[Example]:
    return [Example("t", label=label) for label in labels]


def test_numbers_are_in_their_order_and_names_by_name() -> None:
    assert classes(examples("10", "2", "-1", "2"), FILE) == ("-1", "2", "10")
    assert classes(examples("b", "a", "10"), FILE) == ("10", "a", "b")


def test_numbers_of_one_value_are_one_class() -> None:
    found = classes(examples("1", "0.0", "1.0", "0", "1e0"), FILE)
    assert found == ("0", "1")
    task = TextTask(Columns(), found)
    assert task.targets(examples("1.00", "0", "1"), FILE).tolist() == [1, 0, 1]
    assert classes(examples("01", "1", "a"), FILE) == ("01", "1", "a")


def test_minus_one_stands_for_no_label_where_it_is_no_class() -> None:
    task = TextTask(Columns(), ("0", "1"))
    assert np.isnan(task.targets(examples("-1"), FILE, unlabelled="-1")).all()
    with pytest.raises(DataError, match="label '-1'"):
        task.targets(examples("-1"), FILE)
    three = TextTask(Columns(), ("-1", "0", "1"))
    assert three.targets(examples("-1"), FILE, unlabelled="-1").tolist() == [0]


def test_the_classes_are_counted_in_words() -> None:
    task = TextTask(Columns(), ("bad", "good", "so"))
    targets = task.targets(examples("good", "bad", "good"), FILE)
    assert task.counts(targets) == "3 classes: bad (1), good (2), so (0)"
    assert task.absent(targets) == ("so",)
    numbers = TextTask(Columns(), None)
    assert numbers.counts(np.array([1.0, 2.5])) == "labels from 1 to 2.5, mean 1.75"
    assert not numbers.absent(np.array([1.0]))


def test_what_are_no_classes_is_refused() -> None:
    with pytest.raises(DataError, match="two or more"):
        classes(examples("1", "1"), FILE)
    with pytest.raises(DataError, match=r"1,001 different labels.*`task` regression"):
        classes(examples(*map(str, range(1001))), FILE)


def test_targets_of_both_tasks() -> None:
    task = TextTask(Columns(), ("no", "yes"))
    assert task.targets(examples("yes", "no"), FILE).tolist() == [1, 0]
    assert math.isnan(task.targets(examples(None), FILE)[0])
    with pytest.raises(DataError, match=r"some.tsv, line 2: label 'maybe'.*'no', 'yes'"):
        task.targets(examples("yes", "maybe"), FILE)
    numbers = TextTask(Columns(), None)
    assert numbers.targets(examples("1.5", "-2"), FILE).tolist() == [1.5, -2]
    with pytest.raises(DataError, match="line 1: label 'none'"):
        numbers.targets(examples("none"), FILE)


def test_what_is_cut_off_is_said(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    pairs = TextTask(Columns(pair="pair"), ("a", "b"))
    some = [Example("the film is long and dull", "so it is", "a"), Example("the", "film", "b")]
    features = pairs.features(tokenizer, some, 12)
    assert [len(feature["input_ids"]) <= 12 for feature in features] == [True, True]
    assert {0, 1} == set(features[1]["token_type_ids"])
    assert "1 of 2 examples are longer than 12 tokens" in capsys.readouterr().err
    pairs.features(tokenizer, some, 96)
    assert not capsys.readouterr().err


def test_classification_scores_by_hand() -> None:
    # true positives 2, false positives 1, false negatives 1, true negatives 4
    targets = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    predicted = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    scores = classification_scores(predicted, targets, 2)
    assert scores["accuracy"] == pytest.approx(6 / 8)
    assert scores["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["macro_f1"] == pytest.approx((4 / 6 + 8 / 10) / 2)
    assert scores["matthews"] == pytest.approx((2 * 4 - 1 * 1) / math.sqrt(3 * 3 * 5 * 5))


@pytest.mark.parametrize("targets", [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 2, 2], [2, 2, 2, 2]])
def test_which_scores_there_are_depends_on_the_task_alone(targets: list[int]) -> None:
    """Held-out files of one class, or of two of three."""
    found = np.array(targets)
    guesses = np.zeros(4, int)
    assert set(classification_scores(guesses, found, 3)) == {"accuracy", "macro_f1", "matthews"}
    if max(targets) < 2:
        two = classification_scores(guesses, found, 2)
        assert set(two) == {"accuracy", "macro_f1", "matthews", "f1"}
        assert two["f1"] == 0


def test_regression_scores_by_hand() -> None:
    predicted, targets = np.array([1.0, 2.0, 3.0, 10.0]), np.array([1.0, 3.0, 2.0, 4.0])
    scores = regression_scores(predicted, targets)
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15)
    assert scores["spearman"] == pytest.approx(0.8)
    centred = (predicted - 4, targets - 2.5)
    assert scores["pearson"] == pytest.approx(
        float(
            (centred[0] * centred[1]).sum()
            / math.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
        )
    )
    assert scores["mean_squared_error"] == pytest.approx((0 + 1 + 1 + 36) / 4)
    assert regression_scores(np.zeros(3), np.arange(3.0))["spearman"] == 0
