"""Findings stand behind their rows in metrics.jsonl, as if the run had never stopped; a rule that
fails is a warning.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_dist.health import Finding, Known, Monitor, monitor, open_findings
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import cut_back, is_event
from electra_dist.tracking.sinks import Tracker
from tests.support.rows import drawn_rows, make_config

CONFIG = make_config()
STALLED = {"speed/data_wait_seconds": 1 / 15}


def course() -> list[dict[str, Any]]:
    """A run that waits for data from step 300 to 600, and again from 900 on."""
    rows = drawn_rows(0, 1200)
    for row in rows:
        if 300 <= row["step"] <= 600 or row["step"] >= 900:
            row.update(STALLED)
    return rows


def new_monitor() -> Monitor:
    return Monitor(Known.of(CONFIG, None))


def track(
    run: RunDir, said: list[str], make: Callable[[], Monitor] | None = new_monitor
) -> Tracker:
    run.path.mkdir(exist_ok=True)
    return Tracker(run, "disabled", said.append, (), {}, make)


def lines(run: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


@pytest.fixture
def straight(tmp_path: Path) -> RunDir:
    """The course, trained without a break."""
    run = RunDir(tmp_path / "straight")
    tracker = track(run, [])
    for row in course():
        tracker.write(row)
    tracker.close()
    return run


def test_a_finding_stands_behind_the_row_that_it_begins_or_ends_with(straight: RunDir) -> None:
    found = lines(straight)
    places = [place for place, row in enumerate(found) if is_event(row)]
    assert [found[place]["state"] for place in places] == ["begins", "ends", "begins"]
    for place in places:
        assert found[place - 1]["step"] == found[place]["step"]
    assert [row for row in found if not is_event(row)][-1]["step"] == 1200


@pytest.mark.parametrize("kept", [0, 290, 310, 320, 330, 610, 630, 650, 1190])
def test_after_a_resume_the_file_is_that_of_a_straight_run(
    straight: RunDir, tmp_path: Path, kept: int
) -> None:
    run = RunDir(tmp_path / "resumed")
    rows = course()
    said: list[str] = []
    tracker = track(run, said)
    for row in rows:
        if row["step"] <= kept + 150:
            tracker.write(row)
    tracker.close(finished=False)
    cut_back(run.metrics, kept)
    tracker = track(run, said)
    for row in rows:
        if row["step"] > kept:
            tracker.write(row)
    tracker.close()
    assert lines(run) == lines(straight)
    assert said == []


def test_after_a_rollback_too(straight: RunDir, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "rolled-back")
    tracker = track(run, [])
    rows = course()
    for row in rows[:70]:
        tracker.write(row | STALLED)
    tracker.cut_back(200)
    assert open_findings(lines(run)), "the stall of the first course stands"
    for row in rows:
        if row["step"] > 200:
            tracker.write(row)
    tracker.close()
    states = [row["state"] for row in lines(run) if is_event(row)]
    assert states == ["begins", "ends", "begins", "ends", "begins"]
    assert open_findings(lines(run)) == open_findings(lines(straight))


def test_a_finding_that_a_crash_left_out_is_written_at_the_next_start(
    straight: RunDir, tmp_path: Path
) -> None:
    whole = straight.metrics.read_text().splitlines(keepends=True)
    first = next(place for place, line in enumerate(whole) if '"event"' in line)
    run = RunDir(tmp_path / "crashed")
    run.path.mkdir()
    run.metrics.write_text("".join(whole[:first]))  # the row is there, its finding is not
    track(run, []).close()
    assert run.metrics.read_text() == "".join(whole[: first + 1])


def test_a_finding_that_this_version_does_not_see_ends(straight: RunDir) -> None:
    ghost = Finding("of-another-version", "note", 1200, "something", "something else")
    with straight.metrics.open("a") as file:
        file.write(json.dumps(ghost.to_row()) + "\n")
    track(straight, []).close()
    assert "of-another-version" not in {found.rule for found in open_findings(lines(straight))}
    before = straight.metrics.read_text()
    track(straight, []).close()
    assert straight.metrics.read_text() == before


def test_without_a_monitor_no_row_is_judged(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    tracker = track(run, [], None)
    for row in course():
        assert tracker.write(row) == ()
    tracker.close()
    assert not any(map(is_event, lines(run)))


def test_a_rule_that_fails_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(watched: object, row: object) -> None:
        raise KeyError("a fault of the rule")

    monkeypatch.setattr(monitor._Watched, "look", broken)
    said: list[str] = []
    tracker = track(RunDir(tmp_path / "r"), said)
    for row in course():
        tracker.write(row)
    tracker.cut_back(500)
    tracker.close()
    assert len(said) == len(monitor.RULES)
    assert all("training goes on" in sentence for sentence in said)


def test_a_monitor_that_cannot_be_made_costs_one_warning(tmp_path: Path) -> None:
    def no_monitor() -> Monitor:
        raise OSError("run.json is gone")

    said: list[str] = []
    run = RunDir(tmp_path / "r")
    tracker = track(run, said, no_monitor)
    for row in course():
        tracker.write(row)
    tracker.cut_back(500)
    tracker.close()
    assert said == ["health: no row is judged: run.json is gone; training goes on"]
    assert lines(run)[-1]["step"] == 500
