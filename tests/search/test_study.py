"""A study on a function whose best place is known: alone, by several processes, after a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import UserError
from electra_dist.search import report, study
from electra_dist.search.space import parse_space
from electra_dist.search.study import About, DivergedTrialError, OneTrial, Worker, open_study

SPACE = ("x=-2.0..2.0", "kind=near,far")
ABOUT = About(SPACE, "height", "maximize", {"seed": 1})


def height(trial: OneTrial) -> float:
    """Highest, 1, at x = 0.5 and `near`."""
    return float(1 - (trial.values["x"] - 0.5) ** 2 - (trial.values["kind"] == "far"))


def work(folder: Path, trials: int, objective: Any = height) -> Any:
    found = open_study(folder, ABOUT)
    Worker(found, folder, parse_space(SPACE), objective).work(trials)
    return found


def test_it_finds_the_best_place_and_says_what_mattered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = work(tmp_path, 40)
    told = report.report_of(found, tmp_path)
    assert told.best is not None
    assert told.best.values["kind"] == "near"
    assert told.best.value == pytest.approx(1, abs=0.05)
    assert [one.number for one in told.trials] == list(range(40))
    assert sum(told.importances.values()) == pytest.approx(1)
    assert told.rows()[0][0] == str(told.best.number)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 40
    assert f"best {told.best.value:.4f} (trial {told.best.number})" in lines[-1]
    pictures = report.draw(told)
    assert [path.name for path in pictures] == ["history.png", "importances.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_it_goes_on_and_does_no_trial_twice(tmp_path: Path) -> None:
    work(tmp_path, 3)
    first = [one.params for one in study.finished(open_study(tmp_path, ABOUT))]
    found = work(tmp_path, 6)
    assert [one.params for one in study.finished(found)][:3] == first
    assert len(study.finished(found)) == 6
    work(tmp_path, 5)
    assert len(study.finished(found)) == 6


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    work(tmp_path / "one", 1)
    other = About(SPACE, "height", "maximize", {"seed": 2})
    with pytest.raises(UserError, match=r"something else \(seed: 1, not 2\)"):
        open_study(tmp_path / "one", other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no study"):
        open_study(tmp_path / "full", ABOUT)
    with pytest.raises(UserError, match=r"holds no study\.db"):
        study.existing_study(tmp_path / "full")
    (tmp_path / "full/study.db").write_text("not a database")
    with pytest.raises(UserError, match="cannot be opened as a study"):
        study.existing_study(tmp_path / "full")


def test_what_diverges_counts_without_a_value(tmp_path: Path) -> None:
    def diverging(trial: OneTrial) -> float:
        if trial.number == 1:
            raise DivergedTrialError("the loss is nan")
        return height(trial)

    told = report.report_of(work(tmp_path, 3, diverging), tmp_path)
    assert [one.outcome for one in told.trials][1] == "diverged"
    assert told.trials[1].value is None
    assert told.rows()[-1][0] == "1"


def test_worse_trials_are_stopped(tmp_path: Path) -> None:
    asked: list[int] = []

    def in_steps(trial: OneTrial) -> float:
        worth = 1.0 if trial.number < 5 else 0.0
        for step in (1, 2):
            if trial.should_stop(worth + step, step):
                asked.append(trial.number)
                trial.prune()
        return worth

    told = report.report_of(work(tmp_path, 7, in_steps), tmp_path)
    assert asked == [5, 6]
    assert [one.outcome for one in told.trials[5:]] == ["pruned", "pruned"]


def test_an_interrupted_trial_is_repeated_with_its_values(tmp_path: Path) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []

    def interrupted(trial: OneTrial) -> float:
        seen.append((trial.number, trial.values))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return height(trial)

    with pytest.raises(KeyboardInterrupt):
        work(tmp_path, 3, interrupted)
    found = work(tmp_path, 3, interrupted)
    assert seen[1] == seen[2]
    assert len(study.finished(found)) == 3


def _slow(folder: Path, trials: int) -> None:
    def slow(trial: OneTrial) -> float:
        (folder / f"at-{trial.number}-{os.getpid()}").touch()
        time.sleep(0.3)
        return height(trial)

    work(folder, trials, slow)


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_slow, args=(tmp_path, 8)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    trials = study.finished(open_study(tmp_path, ABOUT))
    assert len({tuple(one.params.values()) for one in trials}) == len(trials) == 8
    assert len(list(tmp_path.glob("at-*"))) == 8


def test_the_trial_of_a_killed_process_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("spawn")
    killed = context.Process(target=_stuck, args=(tmp_path,))
    killed.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("stuck-*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    monkeypatch.setattr(study, "_DEAD_AFTER_SECONDS", 1)
    monkeypatch.setattr(study, "_LOOK_AGAIN_SECONDS", 0.2)
    time.sleep(1.5)
    seen: list[int] = []

    def noted(trial: OneTrial) -> float:
        seen.append(trial.number)
        return height(trial)

    found = work(tmp_path, 1, noted)
    assert seen == [0]
    assert len(study.finished(found)) == 1


def _stuck(folder: Path) -> None:
    def stuck(trial: OneTrial) -> float:
        (folder / f"stuck-{trial.number}").touch()
        time.sleep(600)
        return 0.0

    work(folder, 1, stuck)
