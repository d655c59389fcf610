"""Runs that belong together: their states, their progress, and the best of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from electra_dist.cli import main as cli
from electra_dist.runs.directory import RunDir
from launcher.groups import groups
from launcher.held_out import Best, best_run

pytestmark = pytest.mark.usefixtures("no_slurm")


def member(run: RunDir, path: Path, step: int, loss: float | None, tokenizer: str = "") -> None:
    path.mkdir(parents=True)
    shutil.copy(run.config, path)
    row = {"step": step, "loss/generator": 6.0, "validation/loss/discriminator": loss}
    (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    facts = {"wandb_id": "w", "dataset_fingerprint": "d", "starts": []}
    (path / "run.json").write_text(json.dumps(facts | {"about": {"tokenizer": tokenizer}}))


@pytest.fixture
def folder(run: RunDir, tmp_path: Path) -> Path:
    """A run, and a sweep of three."""
    folder = tmp_path / "runs"
    member(run, folder / "alone", 10, 0.1)
    member(run, folder / "sweep" / "a", 100, 0.4, "t")
    member(run, folder / "sweep" / "b", 30, 0.3, "t")
    member(run, folder / "sweep" / "c", 20, None, "t")
    return folder


def test_a_sweep_is_a_group_of_its_own(folder: Path) -> None:
    alone, sweep = groups(folder)
    assert [Path(one.run).name for one in alone.runs] == ["alone"]
    assert alone.best is None, "one run is not the best of anything"
    assert [Path(one.run).name for one in sweep.runs] == ["a", "b", "c"]
    assert sweep.states == {"finished": 1, "idle": 2}
    assert sweep.progress == pytest.approx((100 + 30 + 20) / 300)
    assert sweep.best == str(folder / "sweep" / "b")


def test_runs_of_different_tokenizers_have_no_best(run: RunDir, folder: Path) -> None:
    member(run, folder / "sweep" / "d", 30, 0.2, "another")
    assert groups(folder)[1].best is None


def test_the_discriminator_decides_where_there_is_one() -> None:
    runs = [
        ("a", Best(1, "loss/generator", 0.01)),
        ("b", Best(1, "loss/discriminator", 0.4)),
        ("c", Best(1, "loss/discriminator", 0.3)),
        ("d", None),
    ]
    assert best_run(runs) == "c"
    assert best_run(runs[:1] * 2) == "a"
    assert best_run([]) is None


def test_status_of_a_folder_shows_the_group(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert cli.main(["status", "runs/sweep"]) == 0
    shown = capsys.readouterr().out
    assert "runs/sweep/b *" in shown
    assert shown.rstrip().splitlines()[-1] == (
        "runs/sweep: 3 runs: 1 finished, 2 idle; 50.0% of all steps; * best: runs/sweep/b,"
        " held-out loss/discriminator 0.3000 at step 30"
    )
    assert cli.main(["status", "runs/sweep", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)
    assert group["best"] == "runs/sweep/b"
    assert [(one["best_held_out"] or {}).get("loss") for one in group["runs"]] == [0.4, 0.3, None]
    assert cli.main(["status", "--json"]) == 0
    assert [one["run"] for one in json.loads(capsys.readouterr().out)] == [
        "runs/alone",
        "runs/sweep/a",
        "runs/sweep/b",
        "runs/sweep/c",
    ]


def test_one_damaged_run_hides_no_other(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "sweep" / "b" / "jobs").mkdir()
    (folder / "sweep" / "b" / "jobs" / "001.json").write_text("{")
    assert groups(folder)[1].states == {"finished": 1, "damaged": 1, "idle": 1}
    assert cli.main(["status", "runs"]) == 0
    assert "001.json" in capsys.readouterr().out
