"""The metrics of a run are read on from where they were, and never twice."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.health import Finding, judge, open_findings, still_open
from electra_dist.runs import metrics_log
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import RowReader, RowTail, cut_back
from launcher.live.following import Followed


def row(step: int, **others: Any) -> dict[str, Any]:
    return {"step": step, "loss/generator": 6.0 - step / 100, "loss/discriminator": 0.5, **others}


def write(path: Path, *rows: dict[str, Any], mode: str = "a") -> None:
    with path.open(mode) as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_each_row_comes_once_whatever_the_file_is_cut_into(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_log, "_TAIL_BLOCK", 1000)
    write(path, *(row(step) for step in range(100)))
    tail = RowTail(path)
    seen = []
    while True:
        added = tail.read()
        seen += [one["step"] for one in added.rows]
        if not added.behind:
            break
    assert seen == [one["step"] for one in RowReader(path)]
    write(path, row(100))
    with path.open("a") as file:
        file.write('{"step": 101, "loss/gen')
    assert [one["step"] for one in tail.read().rows] == [100]
    assert tail.read() == ([], False, 0)
    with path.open("a") as file:
        file.write('erator": 1}\n')
    assert [one["step"] for one in tail.read().rows] == [101]


def test_a_file_that_was_cut_back_is_read_again(path: Path) -> None:
    write(path, *(row(step) for step in range(10)))
    followed = Followed(RunDir(path.parent))
    followed.read()
    assert followed.logged.last["step"] == 9
    cut_back(path, 4)
    write(path, row(5), row(6))
    followed.read()
    assert followed.logged.last["step"] == 6
    assert [point.step for point in followed.points()["loss/generator"]] == [0, 1, 2, 3, 4, 5, 6]


def test_another_file_of_the_same_number_and_length_is_noticed(path: Path) -> None:
    write(path, row(10), row(20))
    tail = RowTail(path)
    assert len(tail.read().rows) == 2
    other = path.read_bytes().replace(b'"step": 20', b'"step": 30')
    with path.open("r+b") as file:  # the same inode
        file.write(other)
    added = tail.read()
    assert added.afresh
    assert [one["step"] for one in added.rows] == [10, 30]


def test_a_file_that_goes_away_and_comes_back_begins_anew(path: Path) -> None:
    write(path, row(1), row(2))
    followed = Followed(RunDir(path.parent))
    followed.read()
    path.unlink()
    followed.read()
    assert followed.points() == {}
    write(path, row(7))
    followed.read()
    assert [point.step for point in followed.points()["loss/generator"]] == [7]


def test_what_is_no_row_is_counted_and_what_is_no_number_is_left_out(path: Path) -> None:
    write(path, row(1))
    with path.open("ab") as file:
        file.write(b"\0" * 5000 + b"\nnot json\n[1]\n")
        file.write(b'{"step": 2, "loss/generator": "high", "loss/discriminator": 1e999}\n')
        file.write(b'{"step": 3, "loss/generator": ' + b"9" * 400 + b"}\n")
        file.write(b'{"step": ' + b"9" * 400 + b"}\n")
    followed = Followed(RunDir(path.parent))
    followed.read()
    reader = RowReader(path)
    assert [one["step"] for one in reader] == [1, 2, 3]
    assert followed.logged.broken == reader.broken == 4
    assert followed.logged.last == {"step": 1, **{k: v for k, v in row(1).items() if k != "step"}}


def test_held_out_rows_give_the_newest_and_the_lowest_loss(path: Path) -> None:
    for step, loss in ((0, 0.9), (10, 0.3), (20, 0.4)):
        write(path, {"step": step, "validation/loss/discriminator": loss})
    write(path, {"step": 30, "validation/loss/discriminator": None})
    followed = Followed(RunDir(path.parent))
    followed.read()
    newest = followed.logged.held_out
    assert newest is not None
    assert (newest.step, newest.loss) == (20, 0.4)
    best = followed.logged.best
    assert best is not None
    assert (best.step, best.loss) == (10, 0.3)


def test_findings_are_those_that_have_begun_and_not_ended(path: Path) -> None:
    begun = Finding("stall", "warning", 10, "data are late", "use more workers")
    other = Finding("spike", "note", 20, "the loss jumps", "look at the data")
    ended = Finding("stall", "warning", 30, "data are late", "use more workers", "ends")
    rows = [row(10), begun.to_row(), other.to_row(), row(30), ended.to_row()]
    write(path, *rows)
    followed = Followed(RunDir(path.parent))
    followed.read()
    assert followed.logged.findings == open_findings(rows) == (other,)
    assert [point.step for point in followed.points()["loss/generator"]] == [10, 30]


def test_a_run_is_judged_as_a_whole_whatever_the_pieces(
    run: RunDir, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a version that noted no findings itself."""
    monkeypatch.setattr(metrics_log, "_TAIL_BLOCK", 2000)
    shutil.copy(samples / "collapsed-rows.jsonl", run.metrics)
    facts = {"wandb_id": "w", "dataset_fingerprint": "d", "starts": [{"world_size": 1}]}
    run.facts.write_text(json.dumps(facts))
    followed = Followed(run)
    followed.read()
    while followed.behind:
        followed.read()
    config = configuration.load(run.config)
    expected = still_open(judge(RowReader(run.metrics), run.read_facts(), config))
    assert "discriminator-collapse" in " ".join(finding.rule for finding in expected)
    assert followed.logged.findings == expected
    # one more start: the rows are read again, with what is known now
    points = followed.points()
    facts["starts"] = [{"world_size": 1}, {"world_size": 2, "step": 30}]
    run.facts.write_text(json.dumps(facts))
    followed.read()
    assert followed.behind
    while followed.behind:
        followed.read()
    assert followed.points() == points


def test_a_pipe_in_place_of_the_file_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    followed = Followed(RunDir(path.parent))
    followed.read()
    assert followed.points() == {}


def test_a_long_file_is_held_in_little_memory(path: Path) -> None:
    """20 MB of rows: what is kept does not grow with them."""
    import tracemalloc

    line = json.dumps(row(0, filler="x" * 900)).replace('"step": 0', '"step": {}', 1)
    with path.open("w") as file:
        for step in range(20_000):
            file.write(line.replace("{}", str(step), 1) + "\n")
    followed = Followed(RunDir(path.parent))
    tracemalloc.start()
    followed.read()
    while followed.behind:
        followed.read()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert followed.logged.last["step"] == 19_999
    assert kept < 2e6
    assert peak < 40e6
