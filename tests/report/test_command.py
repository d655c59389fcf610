"""`electra-dist report`: for one run as ever, for several a row each, and a page that is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra_dist.cli import main as cli
from electra_dist.errors import EXIT_OK, EXIT_USER_ERROR
from electra_dist.runs.directory import RunDir
from tests.report.conftest import HOSTILE
from tests.support.small_runs import rows_of, write_run

Said = pytest.CaptureFixture[str]


def test_one_run_is_one_object(one_run: RunDir, capsys: Said) -> None:
    assert cli.main(["report", str(one_run.path), "--json"]) == EXIT_OK
    content = json.loads(capsys.readouterr().out)
    assert content["held_out"]["generator loss"] == [90.0, 6.1]
    assert content["parameters"] == 1_234_567
    assert content["unigram_entropy"] == 6.5
    assert (content["step"], content["steps"], content["findings"]) == (100, 100, [])


def test_several_runs_are_a_list_next_to_what_was_left_out(sweep: Path, capsys: Said) -> None:
    assert cli.main(["report", str(sweep), "--json"]) == EXIT_OK
    content = json.loads(capsys.readouterr().out)
    assert [Path(run["path"]).name for run in content["runs"]] == [HOSTILE, "a", "b"]
    assert content["problems"] == []
    assert content["runs"][2]["findings"] == ["A fifth of a step is spent waiting for data."]


def test_several_runs_are_a_row_each_and_names_are_no_markup(tmp_path: Path, capsys: Said) -> None:
    write_run(tmp_path / "[red]one", rows_of(10, 2))
    write_run(tmp_path / "two", rows_of(20, 2))
    write_run(tmp_path / "empty", [])
    assert cli.main(["report", str(tmp_path)]) == EXIT_OK
    said = capsys.readouterr().out
    assert "[red]one" in said
    assert "two" in said
    assert "empty is left out" in said


def test_a_damaged_configuration_of_one_run_is_an_error(one_run: RunDir, capsys: Said) -> None:
    one_run.config.write_text("model: [")
    assert cli.main(["report", str(one_run.path)]) == EXIT_USER_ERROR
    assert "config.yaml" in capsys.readouterr().err


def test_a_picture_is_of_one_run(sweep: Path, tmp_path: Path, capsys: Said) -> None:
    out = tmp_path / "curves.png"
    assert cli.main(["report", str(sweep), "--plot", str(out)]) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert "--plot draws one run, and these are 3" in said
    assert not out.exists()
    assert cli.main(["report", str(sweep / "a"), "--plot", str(out)]) == EXIT_OK
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_page_is_written_whole_or_not_at_all(sweep: Path, tmp_path: Path, capsys: Said) -> None:
    out = tmp_path / "report.html"
    assert cli.main(["report", str(sweep), "--html", str(out)]) == EXIT_OK
    assert out.read_text(encoding="utf-8").endswith("</html>\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    capsys.readouterr()
    nowhere = tmp_path / "missing" / "report.html"
    assert cli.main(["report", str(sweep), "--html", str(nowhere)]) != EXIT_OK
    assert "the page cannot be written" in capsys.readouterr().err
