"""Runs are found and read, whatever lies in their folders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from electra_dist.errors import UserError
from electra_dist.report.comparison import compare
from electra_dist.report.loading import find_runs, labels_of, load_run
from electra_dist.runs.directory import RunDir
from tests.support.small_runs import held_out_row, rows_of, training_row, write_run


def test_a_folder_of_runs_stands_for_its_runs_each_once(sweep: Path) -> None:
    found = find_runs([sweep, sweep / "a"])
    assert [run.path.name for run in found] == ["<img src=x onerror=alert(1)>", "a", "b"]


def test_links_inside_a_folder_are_not_followed(tmp_path: Path, one_run: RunDir) -> None:
    (tmp_path / "latest").symlink_to(one_run.path)
    assert [run.path for run in find_runs([tmp_path])] == [one_run.path]


def test_a_path_that_is_no_run_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither a run directory .* nor a folder of runs"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(UserError, match="not a run directory"):
        find_runs([tmp_path / "missing"])


def test_labels_are_as_long_as_it_takes_to_tell_runs_apart() -> None:
    runs = [RunDir(Path(path)) for path in ("/x/one/r", "/x/two/r", "/x/s")]
    assert labels_of(runs) == ["one/r", "two/r", "s"]


def test_rows_become_columns_of_training_and_of_validation(tmp_path: Path) -> None:
    both = training_row(4) | held_out_row(4, 6.5)
    loaded = load_run(write_run(tmp_path / "r", [held_out_row(0, 9.0), training_row(2), both]))
    assert loaded.trained.steps.tolist() == [2, 4]
    assert loaded.held_out.steps.tolist() == [0, 4]
    assert loaded.held_out.column("validation/loss/generator").tolist() == [9.0, 6.5]
    assert math.isnan(loaded.trained.column("discriminator/recall")[0])
    assert loaded.last_step == 4


def test_what_is_no_number_or_no_row_is_left_out_and_told(tmp_path: Path) -> None:
    odd = [
        training_row(2, **{"loss/generator": "six"}),
        training_row(4, **{"loss/generator": True}),
        training_row(6, **{"loss/generator": [1]}),
        training_row(8, **{"loss/generator": 10**400}),
        training_row(10, unknown={"key": 1}),
        training_row(12, **{"loss/generator": None}),
        {"step": 10**30, "loss/generator": 1.0},
    ]
    run = write_run(tmp_path / "r", odd)
    run.metrics.write_bytes(run.metrics.read_bytes() + b"nonsense\n" + b"\0" * 100 + b"\n")
    loaded = load_run(run)
    losses = loaded.trained.column("loss/generator").tolist()
    assert [math.isnan(loss) for loss in losses] == [True, True, True, True, False, True]
    assert loaded.foreign == 4
    assert loaded.broken == 3
    assert sum("left out" in note for note in loaded.notes) == 2


def test_rows_out_of_order_are_sorted_and_the_last_of_a_step_counts(tmp_path: Path) -> None:
    rows = [training_row(4), training_row(2), training_row(4, **{"loss/generator": 5.0})]
    loaded = load_run(write_run(tmp_path / "r", rows))
    assert loaded.trained.steps.tolist() == [2, 4]
    assert loaded.trained.column("loss/generator")[1] == 5.0
    assert any("out of order" in note for note in loaded.notes)


def test_a_run_of_an_earlier_version_is_read_and_says_what_is_unknown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", rows_of(10, 2), facts={"about": None})
    loaded = load_run(run)
    assert loaded.known.parameters is None
    assert any("not known" in note for note in loaded.notes)
    run.facts.unlink()
    assert any("no run.json" in note for note in load_run(run).notes)


def test_a_configuration_that_cannot_be_read_does_not_hide_the_curves(one_run: RunDir) -> None:
    one_run.config.write_text("model: [")
    loaded = load_run(one_run)
    assert loaded.config is None
    assert len(loaded.trained) == 50
    assert any("cannot be read" in note for note in loaded.notes)


def test_a_run_that_cannot_be_shown_is_a_sentence_and_the_others_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "empty", [])
    write_run(tmp_path / "good", rows_of(10, 2))
    write_run(tmp_path / "torn", rows_of(10, 2)).facts.write_text("{")
    comparison = compare([tmp_path])
    assert [loaded.label for loaded in comparison.runs] == ["good"]
    empty, torn = comparison.problems
    assert empty.startswith("empty is left out: ")
    assert "nothing was logged yet" in empty
    assert "run.json: cannot be read" in torn
    with pytest.raises(UserError, match="nothing was logged yet"):
        compare([tmp_path / "empty"])


def test_findings_are_those_that_were_logged(sweep: Path) -> None:
    loaded = load_run(RunDir(sweep / "b"))
    assert [finding.rule for finding in loaded.logged] == ["data-stall"]
    damaged = json.dumps({"event": "health", "step": 1, "rule": 3})
    path = RunDir(sweep / "b").metrics
    before = path.read_text()
    try:
        path.write_text(before + damaged + "\n")
        assert len(load_run(RunDir(sweep / "b")).logged) == 1
    finally:
        path.write_text(before)
