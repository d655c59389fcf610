"""Status, logs and stop read a run directory alone, on a machine without Slurm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from electra_dist.cli.main import main
from electra_dist.errors import UserError
from electra_dist.health import Finding
from electra_dist.runs.directory import RunDir
from electra_dist.runs.opening.revision import revision
from launcher.find import find_run
from launcher.logs import log_file, read_log
from launcher.records import JobRecord, events, next_number, records, snapshot_code
from launcher.slurm import queue
from launcher.status import status
from launcher.stop import stop
from tests.support.rows import drawn_row, drawn_rows

pytestmark = pytest.mark.usefixtures("no_slurm")


def recorded(run: RunDir, *lines: str) -> None:
    run.jobs.mkdir(exist_ok=True)
    JobRecord("001", ("7",), "site", (2, 2), 8, "60", "2030-01-01").save(run)
    (run.jobs / "001.events").write_text(
        "".join(f"2030-01-01T00:00:00+0000\t7\t0\t{line}\n" for line in lines)
    )


def test_a_run_that_was_never_submitted_has_a_status(run: RunDir) -> None:
    found = status(run)
    assert (found.state, found.step, found.steps, found.last_checkpoint) == ("idle", 25, 100, 10)
    assert (found.generator_loss, found.discriminator_loss, found.seconds_left) == (6.5, 0.4, 150.0)


def test_a_finished_run_without_a_job_is_finished(run: RunDir) -> None:
    run.metrics.write_text('{"step": 100, "loss/generator": 6.0}\n')
    assert status(run).state == "finished"


@pytest.mark.parametrize(
    ("lines", "state", "why"),
    [
        (("start\tx", "finished\tstep 100"), "finished", "step 100"),
        (("start\tx", "failed\t3 crashes"), "failed", "3 crashes"),
        (("start\tx", "stopped\tsaved", "skipped\tover"), "stopped", "saved"),
        (("start\tx", "unfinished\tout of time"), "unfinished", "out of time"),
        (
            ("start\tx", "requeue\tcrash", "start\ty"),
            "idle",
            "no Slurm on this machine to ask; last noted: start, y",
        ),
    ],
)
def test_the_last_word_of_the_job_script_is_the_state(
    run: RunDir, lines: tuple[str, ...], state: str, why: str
) -> None:
    recorded(run, *lines)
    found = status(run)
    assert (found.state, found.why) == (state, why)
    assert found.restarts == sum(line.startswith("start") for line in lines) - 1


def test_a_silent_slurm_hides_nothing_of_the_run_directory(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> str:
        raise UserError("squeue: Unable to contact slurm controller")

    monkeypatch.setattr(queue, "has_slurm", lambda: True)
    monkeypatch.setattr(queue, "call", fail)
    recorded(run, "start\tx")
    found = status(run)
    assert (found.state, found.step, found.last_checkpoint) == ("idle", 25, 10)
    assert (
        found.why
        == "Slurm does not answer (squeue: Unable to contact slurm controller); last noted: start,"
        " x"
    )
    recorded(run, "finished\tstep 100")
    assert status(run).state == "finished"


def test_damaged_event_lines_are_left_out(run: RunDir) -> None:
    recorded(run, "start\tx")
    with (run.jobs / "001.events").open("a") as file:
        file.write("half a li")
    assert [event.kind for event in events(run, "001")] == ["start"]


def test_numbers_of_launches_never_repeat(run: RunDir, tmp_path: Path) -> None:
    assert next_number([run.path]) == "001"
    recorded(run)
    (run.jobs / "007.events").touch()
    assert next_number([run.path, tmp_path / "none"]) == "008"
    assert [record.job_ids for record in records(run)] == [("7",)]


def test_the_newest_log_of_a_rank_is_shown(run: RunDir) -> None:
    run.logs.mkdir()
    for age, name in enumerate(
        ("job-9-rank-1.log", "rank-1.log", "job-10-rank-1.log", "job-10-rank-11.log", "x.log")
    ):
        path = run.logs / name
        path.write_text("".join(f"{name} {line}\n" for line in range(5)))
        os.utime(path, (1000 - age, 1000 - age))
    assert log_file(run, 1).name == "job-9-rank-1.log"
    assert (
        "".join(read_log(log_file(run, 1), lines=2)) == "job-9-rank-1.log 3\njob-9-rank-1.log 4\n"
    )
    with pytest.raises(UserError, match="no log of rank 5; there are: job-10-rank-1"):
        log_file(run, 5)


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("size", [1, 50_000])
def test_the_last_lines_of_a_log_are_those_whatever_lies_before(
    tmp_path: Path, end: str, size: int
) -> None:
    log = tmp_path / "rank-0.log"
    lines = [f"{number} é {'x' * size}" for number in range(7)]
    log.write_text("\n".join(lines) + end, encoding="utf-8")
    for count in range(9):
        expected = "".join((log.read_text()).splitlines(keepends=True)[-count:]) if count else ""
        assert "".join(read_log(log, lines=count)) == expected
    assert "".join(read_log(log)) == log.read_text()
    log.write_text("")
    assert "".join(read_log(log, lines=3)) == ""


def test_what_is_no_run_is_said_to_be_none(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_run(str(run.path)) == run
    with pytest.raises(UserError, match="not a run directory"):
        find_run(str(tmp_path / "none"))
    with pytest.raises(UserError, match="job 4711: not known"):
        find_run("4711")
    with pytest.raises(UserError, match="no job of this run is in the queue"):
        stop(run)
    recorded(run, "start\tx")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no Slurm on this machine"):
        stop(run)


def test_the_code_of_a_job_is_a_copy_without_caches(tmp_path: Path) -> None:
    snapshot_code(tmp_path / "code")
    names = {path.name for path in (tmp_path / "code").iterdir()}
    assert names == {"electra_dist", "launcher", "data_tools", "REVISION"}
    assert revision(tmp_path / "code") == revision()
    assert (tmp_path / "code/launcher/slurm/job.sbatch").read_text().startswith("#!/bin/bash")
    assert not list((tmp_path / "code").glob("**/__pycache__"))


# --- health ---------------------------------------------------------------------------------------


def stalled(run: RunDir) -> None:
    """Rows of a run that waits for data, without any row of a finding: an earlier version's."""
    rows = [row | {"speed/data_wait_seconds": 0.1} for row in drawn_rows(0, 90)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_facts(run: RunDir) -> None:
    run.facts.write_text(json.dumps({"wandb_id": "w", "dataset_fingerprint": "f", "starts": []}))


def test_the_rules_of_health_judge_a_run_of_any_version(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    stalled(run)
    write_facts(run)
    (finding,) = status(run).findings
    assert finding.rule == "data-stall"
    assert main(["status", str(run.path)]) == 0
    assert f"health:         {finding.line}" in capsys.readouterr().out
    assert main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["rule"] == "data-stall"


def test_where_a_run_cannot_be_judged_what_training_noted_is_shown(run: RunDir) -> None:
    noted = Finding("data-stall", "warning", 40, "it waits", "do something")
    with run.metrics.open("w") as file:
        file.write(json.dumps(drawn_row(40)) + "\n" + json.dumps(noted.to_row()) + "\n")
    run.facts.write_text("no facts")
    assert status(run).findings == (noted,)


def test_a_run_whose_losses_are_no_numbers_shows_the_finding(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"loss/generator": None} for row in drawn_rows(10, 90)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_facts(run)
    assert main(["status", str(run.path)]) == 0
    assert "critical: loss-not-finite" in capsys.readouterr().out


def test_a_healthy_run_has_no_finding(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in drawn_rows(10, 90)))
    write_facts(run)
    assert main(["status", str(run.path)]) == 0
    assert "health:         no finding" in capsys.readouterr().out


def test_health_that_is_turned_off_says_nothing(run: RunDir) -> None:
    stalled(run)
    write_facts(run)
    for keys, expected in (
        ("{health: true}", ["data-stall"]),
        ("{health: false}", None),
        ("{health_ignore: [data-stall]}", []),
    ):
        text = run.config.read_text()
        run.config.write_text(f"{text}tracking: {keys}\n")
        found = status(run).findings
        assert (None if found is None else [one.rule for one in found]) == expected
        run.config.write_text(text)
