"""Labels as they are written, targets and scores, against counts by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns, Example
from electra_dist.finetune.tasks.multilabel.labels import (
    MultiLabelTask,
    label_classes,
    mean_logits,
    multi_label_scores,
)

FILE = Path("some.csv")
READER = MultiLabelTask(Columns(), ())


def written(path: Path, *labels: object) -> Path:
    lines = [json.dumps({"text": "a text", "label": label}) for label in labels]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_tables_and_json_lines_say_the_same(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(
        'text,label\none,b|a\ntwo,\nthree,"a| b |a"\nfour,nan\nfive,3\n', encoding="utf-8"
    )
    lines = written(tmp_path / "a.jsonl", ["b", "a"], [], ["a", "b", "a"], None, [3])
    expected = ["b|a", "", "a|b", None, "3"]
    for path in (table, lines):
        assert [example.label for example in READER.read(path)] == expected
    assert READER.read(written(tmp_path / "b.jsonl", "b|a"))[0].label == "b|a"


def test_no_labels_are_labels_and_missing_ones_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a.jsonl", ["x"], [], None, math.nan)
    with pytest.raises(DataError, match=r"2 of 4 examples have no label \(line 3, 4\)"):
        READER.read(path, "refuse")
    assert [example.label for example in READER.read(path, "drop")] == ["x", ""]
    assert "2 of 4 examples have no label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (["a", None], "one of the labels is None"),
        (["a", True], "one of the labels is True"),
        (["a", " "], "one of the labels is ' '"),
        (["a", "nan"], "one of the labels is 'nan'"),
        (["a|b"], r"the label 'a\|b' has a '\|'"),
        ("a||b", "one of the labels is ''"),
        ({"a": 1}, "the labels are {'a': 1}; expected a list"),
        (3, "the labels are 3; expected a list"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(tmp_path: Path, label: object, words: str) -> None:
    with pytest.raises(DataError, match=rf"a.jsonl, line 2: {words}"):
        READER.read(written(tmp_path / "a.jsonl", ["a"], label))


def test_the_classes_are_those_of_the_file() -> None:
    def classes(*labels: str | None) -> tuple[str, ...]:
        return label_classes([Example("t", label=label) for label in labels], FILE)

    assert classes("b|a", "", None, "c|a") == ("a", "b", "c")
    assert classes("10|2.0", "2", "-1") == ("-1", "2", "10")
    with pytest.raises(DataError, match=r"some.csv: different labels: 'a'; .* two or more"):
        classes("a", "", "a")
    with pytest.raises(DataError, match="different labels: none;"):
        classes("", None)
    with pytest.raises(DataError, match=r"1,001 different labels"):
        classes("|".join(map(str, range(1001))))


def test_targets_and_what_is_said_of_them() -> None:
    task = MultiLabelTask(Columns(), ("a", "b", "c"))
    examples = [Example("t", label=label) for label in ("b|a", "", None, "a")]
    targets = task.targets(examples, FILE)
    np.testing.assert_array_equal(
        targets, [[1, 1, 0], [0, 0, 0], [math.nan, math.nan, math.nan], [1, 0, 0]]
    )
    known = targets[[0, 1, 3]]
    assert task.counts(known) == "3 classes: a (2), b (1), c (0); 1.00 per example, none for 1"
    assert task.absent(known) == ("c",)
    assert task.labelled([{"input_ids": [1]}], known[:1]) == [
        {"input_ids": [1], "labels": [1.0, 1.0, 0.0]}
    ]
    with pytest.raises(DataError, match=r"some.csv, line 2: label 'd'; .*'a', 'b', 'c'"):
        task.targets([Example("t", label="a"), Example("t", label="a|d")], FILE)


def test_scores_by_hand() -> None:
    targets = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    probabilities = np.array(
        [[0.9, 0.4, 0.1, 0.0], [0.6, 0.8, 0.2, 0.0], [0.7, 0.3, 0.9, 0.5], [0.1, 0.2, 0.3, 0.0]]
    )
    scores = multi_label_scores(probabilities, targets)
    # a: 2 right, 1 too many; b: 1 right, 1 missed; c: 1 too many; d: 0.5 is not above 0.5
    assert scores["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)
    assert scores["exact_match"] == pytest.approx(1 / 4)
    # a: 0.9 and 0.7 are the first two; b: 0.8 and 0.4 too
    assert scores["macro_average_precision"] == pytest.approx(1)
    turned = multi_label_scores(1 - probabilities, targets)
    # a: ranks 4 and 3 of 4; b: 0.7 and 0.8 go before 0.6, and 0.2 is last
    assert turned["macro_average_precision"] == pytest.approx(
        ((1 / 3 + 2 / 4) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    )


def test_where_all_classes_occur_they_are_scikit_learns() -> None:
    random = np.random.default_rng(1)
    targets = (random.random((60, 5)) < 0.4).astype(int)
    probabilities = random.random((60, 5))
    predicted = (probabilities > 0.5).astype(int)
    scores = multi_label_scores(probabilities, targets)
    assert scores == pytest.approx(
        {
            "micro_f1": metrics.f1_score(targets, predicted, average="micro"),
            "macro_f1": metrics.f1_score(targets, predicted, average="macro"),
            "exact_match": metrics.accuracy_score(targets, predicted),
            "macro_average_precision": metrics.average_precision_score(
                targets, probabilities, average="macro"
            ),
        }
    )


def test_which_scores_there_are_depends_on_the_task_alone() -> None:
    nothing = np.zeros((3, 2), int)
    assert multi_label_scores(np.zeros((3, 2)), nothing) == {
        "micro_f1": 0,
        "macro_f1": 0,
        "exact_match": 1,
        "macro_average_precision": 0,
    }


def test_without_a_model_each_class_is_as_likely_as_in_the_training() -> None:
    task = MultiLabelTask(Columns(), ("a", "b"))
    training = np.array([[1.0, 0], [1, 0], [1, 1], [0, 0]])
    held_out = np.array([[1.0, 1], [0, 0], [1, 0]])
    scores = task.simple_scores(training, held_out)
    # a is always predicted: 2 right, 1 too many; b never: 1 missed
    assert scores["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["exact_match"] == pytest.approx(1 / 3)
    assert scores["macro_average_precision"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_the_mean_is_of_probabilities() -> None:
    def sigmoid(logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    mixed = mean_logits([np.array([0.3, 50.0], np.float32), np.array([-2.0, 60.0], np.float32)])
    assert sigmoid(mixed[0]) == pytest.approx((sigmoid(0.3) + sigmoid(-2)) / 2)
    assert np.isfinite(mixed).all()
    assert mixed[1] > 20
