"""`electra-dist sync`, as a user types it."""

from __future__ import annotations

import json

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
    assert cli.main(["sync", str(trained.path), "--offline"]) == 0
    output = capsys.readouterr().out
    assert "3 rows, 3 of them handed to W&B now" in output
    assert f"wandb sync {trained.wandb}/offline-run-*-abcd1234" in output
    with trained.metrics.open("a") as file:
        file.write(json.dumps({"step": 4, "loss/generator": 3.0}) + "\n")
    assert cli.main(["sync", str(trained.path), "--offline", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"run": str(trained.path), "mode": "offline", "rows": 4, "sent": 1, "url": None}
    assert cli.main(["sync", str(trained.path), "--offline"]) == 0
    assert "4 rows, 0 of them" in capsys.readouterr().out
    assert points(trained) == [(1, 6.0), (2, 5.0), (3, 4.0), (4, 3.0)]


@pytest.mark.full
def test_the_server_gets_each_row_once(
    trained: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for sent in (3, 0):
            assert cli.main(["sync", str(trained.path), "--json"]) == 0
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
    assert cli.main(["sync", str(trained.path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert all(word in error for word in words)


def test_no_run_and_no_time(trained: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sync", str(trained.path / "nothing")]) == 2
    assert "not a run directory" in capsys.readouterr().err
    assert cli.main(["sync", str(trained.path), "--offline", "--seconds", "0.01"]) == 2
    assert "W&B: not finished after 0.01 s" in capsys.readouterr().err
