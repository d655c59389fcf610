"""Frames at 80 columns, compared as text; and what a run that cannot be read looks like in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from electra_dist.health import Finding
from electra_dist.runs import metrics_log
from electra_dist.runs.directory import RunDir
from launcher.live.gathering import Gatherer
from launcher.live.show import frame, views_of
from launcher.live.views import Screen

pytestmark = pytest.mark.usefixtures("no_slurm")

PLAIN = Screen(80, None, unicode=False)


def lines(*targets: Path, screen: Screen = PLAIN) -> list[str]:
    shown = [line.plain for line in frame(views_of(Gatherer([str(t) for t in targets])), screen)]
    assert all(cell_len(line) <= screen.width for line in shown)
    return [line.rstrip() for line in shown]


def write(run: RunDir, *rows: dict[str, Any]) -> None:
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def logged(step: int, **others: Any) -> dict[str, Any]:
    return {
        "step": step,
        "loss/generator": 10.0 - step / 10,
        "loss/discriminator": 0.5,
        "discriminator/auc": 0.9,
        "speed/real_tokens_per_s": 1000.0,
        "speed/step_seconds": 2.0,
        **others,
    }


def test_a_frame_has_all_that_the_run_measures(run: RunDir) -> None:
    write(
        run,
        *(logged(step) for step in range(5, 50, 5)),
        {"step": 20, "validation/loss/discriminator": 0.45, "validation/loss/generator": 6.2},
        {"step": 40, "validation/loss/discriminator": 0.47, "validation/loss/generator": 6.1},
        logged(
            50,
            **{
                "speed/data_wait_seconds": 0.2,
                "speed/generator_forward_seconds": 0.3,
                "speed/discriminator_backward_seconds": 1.0,
                "speed/checkpoint_stall": 0.02,
                "memory/peak_bytes": 3.5e9,
                "data/padding": 0.031,
                "speed/slowest_rank": 3,
                "speed/rank_spread": 1.25,
            },
        ),
        Finding("stall", "warning", 45, "10% of a step waits for data", "add workers").to_row(),
    )
    run.logs.mkdir()
    (run.logs / "rank-0.log").write_text("an old line\nsaved\x1b[2J\nstep 50\n")
    shown = lines(run.path)
    name = shown[0].split("  ")[0]
    assert str(run.path).endswith(name.removeprefix("..."))
    assert shown[0].split("  ")[1].startswith("idle")
    assert shown[1:] == [
        "#####################--------------------- 50.0%  step 50 of 100, 2 minutes left",
        "",
        "loss/generator 5.000      loss/discriminator 0.5000 discriminator/auc 0.900",
        *shown[4:9],
        "   step 5              50    step 5              50    step 5              50",
        "held out G 6.100, D 0.4700 at step 40; best 0.45 at 20",
        "speed    1k tok/s, +0% of its median  @@@@@@@@@",
        "step     2 s: data 10%, G forward 15%, D backward 50%, saving 2%",
        "memory   peak 3.50 GB, padding 3.1%, slowest rank 3 at 1.25 x the median",
        "saved    checkpoint of step 10",
        "warning  10% of a step waits for data (since step 45)",
        "         add workers",
        "an old line",
        "saved [2J",
        "step 50",
    ]
    assert [line[:7] for line in (shown[4], shown[8])] == ["      9", "      5"]


def test_a_long_file_is_read_to_its_end_before_one_frame(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_log, "_TAIL_BLOCK", 500)
    write(run, *(logged(step) for step in range(80)))
    shown = lines(run.path)
    assert "step 79 of 100" in shown[1]
    assert " 79    step 0 " in shown[9]


def test_a_run_of_an_earlier_version_has_a_frame_of_what_it_has(run: RunDir) -> None:
    shown = lines(run.path)
    assert "50 seconds" not in shown[1]
    assert "step 25 of 100" in shown[1]
    assert "loss/generator 6.500" in shown[3]
    assert not [line for line in shown if line.startswith(("memory", "warning"))]


def test_a_frame_never_leaves_its_terminal(run: RunDir) -> None:
    run.logs.mkdir()
    (run.logs / "rank-0.log").write_text("x" * 5000 + "\n" + "日本語" * 100 + "\n")
    for width in (20, 40, 80, 200):
        for height in (1, 5, 24, 60):
            shown = lines(run.path, screen=Screen(width, height, unicode=True))
            assert len(shown) <= height


def sweep(run: RunDir, tmp_path: Path) -> Path:
    """Three members: the best, a worse one, and one that was never trained."""
    folder = tmp_path / "sweep"
    for name, loss in (("lr-1e-3", 0.31), ("lr-2e-3", 0.29), ("lr-4e-3", None)):
        member = folder / name
        member.mkdir(parents=True)
        shutil.copy(run.config, member)
        if loss is not None:
            write(RunDir(member), logged(50, **{"validation/loss/discriminator": loss}))
    return folder


def test_several_runs_are_a_line_each_and_the_best_is_marked(run: RunDir, tmp_path: Path) -> None:
    shown = lines(sweep(run, tmp_path))
    assert shown[0].startswith("3 runs: 3 idle")
    assert shown[1].endswith(" 33.3%  100 of 300 steps")
    assert shown[2:] == [
        "* best: lr-2e-3, held-out loss/discriminator 0.29 at step 50",
        "",
        "run              state      step     G loss D loss AUC   held out tok/s left",
        "lr-1e-3          idle       50.0%    5.000  0.5000 0.900 0.3100   1k",
        "* lr-2e-3        idle       50.0%    5.000  0.5000 0.900 0.2900   1k",
        "lr-4e-3          idle",
    ]


def test_runs_that_are_damaged_foreign_empty_or_gone_are_a_line(
    run: RunDir, tmp_path: Path
) -> None:
    folder = sweep(run, tmp_path)
    damaged = folder / "damaged"
    (damaged / "jobs").mkdir(parents=True)
    (damaged / "jobs" / "001.json").write_text("{")
    foreign = folder / "foreign"
    foreign.mkdir()
    shutil.copy(run.config, foreign)
    (foreign / "metrics.jsonl").write_bytes(b"\0" * 1000 + b"\xff" + b"\nepoch,loss\n1,2\n")
    (foreign / "run.json").write_text("[]")
    (folder / "notes").mkdir()
    gatherer = Gatherer([str(folder)])
    gatherer.look(0)
    shutil.rmtree(folder / "lr-1e-3")
    for watched in gatherer._watched.values():
        watched._status_at = 0.0
    shown = [line.plain.rstrip() for line in frame(gatherer.look(0), PLAIN)]
    by_name = {line.split()[0]: line for line in shown if line}
    assert by_name["damaged"].split() == ["damaged", "damaged"]
    reason = shown[shown.index(by_name["damaged"]) + 1]
    assert reason.startswith("    jobs/001.json: cannot be read as what `launch slurm` noted")
    assert by_name["foreign"].split() == ["foreign", "idle"]
    assert by_name["lr-1e-3"].split()[:2] == ["lr-1e-3", "gone"]
    assert "notes" not in by_name
    assert lines(foreign)[-1] == "damaged  4 lines of metrics.jsonl are no rows"


def test_more_runs_than_lines_show_those_that_train_and_say_how_many_are_left(
    run: RunDir, tmp_path: Path
) -> None:
    folder = sweep(run, tmp_path)
    finding = Finding("stall", "warning", 45, "data are late", "add workers")
    for name in ("lr-1e-3", "lr-2e-3"):
        with RunDir(folder / name).metrics.open("a") as file:
            file.write(json.dumps(finding.to_row()) + "\n")
        (folder / name / "config.yaml").write_text("of: another version\n")
        (folder / name / "jobs").mkdir()
    shown = lines(folder, screen=Screen(80, 8, unicode=False))
    assert len(shown) == 8
    assert shown[4].startswith("run ")
    assert shown[5].split()[0] in ("lr-1e-3", "lr-2e-3", "*")
    assert shown[6:] == ["    warning: data are late", "and 2 more"]


def test_a_run_that_is_new_in_a_folder_is_taken_in(run: RunDir, tmp_path: Path) -> None:
    folder = sweep(run, tmp_path)
    gatherer = Gatherer([str(folder)])
    assert len(gatherer.look(0)) == 3
    shutil.copytree(folder / "lr-1e-3", folder / "lr-8e-3")
    gatherer._search_at = 0.0
    assert len(gatherer.look(0)) == 4
