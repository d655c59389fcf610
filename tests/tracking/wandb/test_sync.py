"""`electra-dist wandb sync`, as a user types it."""

from __future__ import annotations

import json
import shutil

import pytest

from electra_dist.cli import main as cli
from electra_dist.runs.directory import RunDir
from tests.support.offline import points
from tests.support.wandb_server import KEY, WandbServer


@pytest.fixture
def trained(new_run: RunDir) -> RunDir:
    rows = [
        {"step": step, "loss/generator": 7.0 - step, "discriminator/auc": None}
        for step in (1, 2, 3)
    ]
    new_run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) + "nonsense\n")
    return new_run


def test_offline_files_hold_each_row_once(
    trained: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["wandb", "sync", str(trained.path), "--offline"]) == 0
    output = capsys.readouterr().out
    assert "3 rows, 3 of them handed to W&B now" in output
    assert f"wandb sync {trained.wandb}/offline-run-*-abcd1234*" in output
    with trained.metrics.open("a") as file:
        file.write(json.dumps({"step": 4, "loss/generator": 3.0}) + "\n")
    assert cli.main(["wandb", "sync", str(trained.path), "--offline", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "run": str(trained.path),
        "mode": "offline",
        "rows": 4,
        "sent": 1,
        "url": None,
        "warnings": [],
    }
    assert cli.main(["wandb", "sync", str(trained.path), "--offline"]) == 0
    assert "4 rows, 0 of them" in capsys.readouterr().out
    assert points(trained) == [(1, 6.0), (2, 5.0), (3, 4.0), (4, 3.0)]


def test_a_folder_of_runs_is_brought_and_what_cannot_be_is_named(
    trained: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = trained.path.parent / "broken"
    shutil.copytree(trained.path, broken)
    (broken / "run.json").write_text("[]")
    folder = str(trained.path.parent)
    assert cli.main(["wandb", "sync", folder, "--offline"]) == 2
    said = capsys.readouterr()
    assert f"{trained.path}: 3 rows, 3 of them" in said.out
    warning, error = said.err.splitlines()
    assert warning.startswith(f"warning: {broken}: ")
    assert error.startswith("error: 1 of 2 runs could not be brought to W&B")


def test_a_run_without_rows_and_a_foreign_file_are_no_mistake(
    new_run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["wandb", "sync", str(new_run.path), "--offline"]) == 0
    assert "0 rows, 0 of them" in capsys.readouterr().out
    new_run.metrics.write_bytes(b'\x00\xff{"step": "one"}\n[1]\n{"step": 1, "a": "b"}\n')
    assert cli.main(["wandb", "sync", str(new_run.path), "--offline"]) == 0
    assert "1 rows, 1 of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "the key is not valid there"), (402, "the quota of the account is used up")],
)
def test_what_the_server_refuses_is_one_line(
    trained: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    words: str,
) -> None:
    with WandbServer() as server:
        server.refuses_all = status
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert cli.main(["wandb", "sync", str(trained.path)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: W&B: cannot be used online")
    assert words in error
    assert KEY not in error


@pytest.mark.full
def test_a_quota_that_ends_meanwhile_is_no_success(
    trained: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.refuses_history.set()
        server.refusal = 402
        assert cli.main(["wandb", "sync", str(trained.path)]) == 2
        said = capsys.readouterr().err.splitlines()
        (error,) = [line for line in said if line.startswith("error: ")]
        assert "the server refuses rows (the quota of the account is used up" in error
        server.refuses_history.clear()
        assert cli.main(["wandb", "sync", str(trained.path)]) == 0
        assert [row["step"] for row in server.runs["abcd1234"].rows()] == [1, 2, 3]


@pytest.mark.full
def test_the_server_gets_each_row_once(
    trained: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for sent in (3, 0):
            assert cli.main(["wandb", "sync", str(trained.path), "--json"]) == 0
            told = json.loads(capsys.readouterr().out)
            assert told["sent"] == sent
            assert told["url"].startswith(server.url)
            assert KEY not in json.dumps(told)
        assert [row["step"] for row in server.runs["abcd1234"].rows()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["W&B", "API key", "wandb login"]),
        ({"WANDB_MODE": "offline"}, ["WANDB_MODE", "--offline"]),
        ({"WANDB_DISABLED": "true"}, ["WANDB_DISABLED", "unset"]),
    ],
)
def test_what_keeps_it_from_the_server_is_one_line(
    trained: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    words: list[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["wandb", "sync", str(trained.path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert all(word in error for word in words)


def test_no_run_and_no_time(trained: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["wandb", "sync", str(trained.path / "nothing")]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert cli.main(["wandb", "sync", str(trained.path), "--offline", "--seconds", "0.01"]) == 2
    assert "W&B: not finished after 0.01 s" in capsys.readouterr().err
