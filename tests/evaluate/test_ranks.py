"""Several ranks give the evaluation of one, bit by bit, and one of them speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from electra_dist.cli import main as cli
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import WHOLE, RunData, Source
from electra_dist.evaluate import evaluate
from electra_dist.evaluate.subject import RunSubject
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from tests.support.processes import end_ranks, run_ranks


@dataclass(frozen=True)
class MixedSubject(RunSubject):
    """A run whose shards are taken for those of two sources."""

    def own_data(self) -> RunData:
        """Three quarters and a quarter."""
        manifest = Manifest.load(Path(str(self.config.data.shards)))
        shares = {"large": WHOLE * 3 // 4, "small": WHOLE // 4}
        return RunData(tuple(Source(name, manifest, share) for name, share in shares.items()))


def of_a_rank(world: World, run: str, rows: int) -> Any:
    """What this rank has of the evaluation; None on all ranks but 0."""
    found = evaluate(MixedSubject(RunDir(Path(run)), 8), world, rows=rows, passages=3)
    if found is None:
        return None
    return comparable(found.to_dict())


def comparable(content: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it, without the time."""
    kept: dict[str, Any] = json.loads(json.dumps(content))
    del kept["seconds"]
    return kept


@pytest.fixture(scope="module")
def alone(trained: RunDir) -> Any:
    """The evaluation of one process, by its number of rows."""

    @cache
    def of_rows(rows: int) -> Any:
        return of_a_rank(World(), str(trained.path), rows)

    return of_rows


@pytest.mark.parametrize(("ranks", "rows"), [(3, 50), (2, 5)])
def test_ranks_give_the_numbers_of_one_process(
    trained: RunDir, alone: Any, ranks: int, rows: int
) -> None:
    """Of all rows and of each source; 5 rows are a micro-batch of one source and one row of the
    other, so that a rank has none.
    """
    found = run_ranks(of_a_rank, ranks, run=str(trained.path), rows=rows)
    assert found[1:] == [None] * (ranks - 1)
    assert found[0] == alone(rows)
    assert [source["name"] for source in found[0]["sources"]] == ["large", "small"]
    assert len(found[0]["passages"]) == 3


def failing(world: World, run: str) -> None:
    """Rank 1 cannot read the networks."""
    if world.rank == 1:
        RunSubject.load_step = None  # type: ignore[assignment, method-assign]
    evaluate(RunSubject(RunDir(Path(run)), 8), world, rows=8)


def test_a_rank_that_fails_ends_all(trained: RunDir) -> None:
    ended = end_ranks(failing, 2, run=str(trained.path), timeout=60)
    assert [end.code for end in ended] == [1, 1]
    assert "PeerFailedError: rank 1: TypeError" in ended[0].error


# --- the command ----------------------------------------------------------------------------------


def evaluated(run: RunDir, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "electra_dist.cli", "evaluate", str(run.path), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def test_two_processes_print_the_json_of_one(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--rows", "all", "--passages", "2", "--json")
    two = evaluated(trained, tmp_path, *words, "--processes", "2")
    assert two.returncode == 0, two.stderr
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["evaluate", str(trained.path), *words]) == 0
    one = json.loads(capsys.readouterr().out)
    assert comparable(json.loads(two.stdout)) == comparable(one)


def test_two_processes_print_one_table(trained: RunDir, tmp_path: Path) -> None:
    shown = evaluated(trained, tmp_path, "--rows", "9", "--processes", "2")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("unigram entropy of the corpus") == 1
    assert shown.stdout.count("generator F1, macro over the vocabulary") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_gets_the_json_and_the_terminal_nothing(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evaluation.json"
    assert cli.main(["evaluate", str(trained.path), "--rows", "9", "--out", str(out)]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(out.read_text())["rows"] == 9
    assert list(tmp_path.iterdir()) == [out]


def test_a_mistake_in_a_rank_is_told_once_and_its_log_is_kept(
    trained: RunDir, tmp_path: Path
) -> None:
    """Shards that are not there are looked for by the ranks."""
    found = evaluated(
        trained, tmp_path, "--processes", "2", "--shards", str(tmp_path / "nowhere"), "--json"
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.count("error: ") == 1
    assert "nowhere: no manifest.json there" in found.stderr
    (folder,) = tmp_path.iterdir()
    assert str(folder / "rank-0.log") in found.stderr


def test_a_rank_starts_no_ranks(
    trained: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["evaluate", str(trained.path), "--processes", "2"]) == 2
    assert "--processes 2: this process is a rank already" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-2"])
def test_no_processes_are_refused(
    trained: RunDir, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(trained.path), "--processes", count]) == 2
    assert f"--processes {count}: expected at least 1" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path, tmp_path / "no/file.json"):
        assert cli.main(["evaluate", str(trained.path), "--out", str(out)]) == 2
        assert f"--out {out}: is a folder, or lies in none" in capsys.readouterr().err
