"""The workspace of W&B: a panel for every metric, saved once per project, or written to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from electra_dist.cli import main as cli
from electra_dist.runs import metrics
from electra_dist.runs.metrics import Metric, all_metrics
from electra_dist.tracking import dashboard
from electra_dist.tracking.dashboard import SECTIONS, section_of
from tests.support.wandb_server import WandbServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with WandbServer() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def sections(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The panels of each section, as W&B stores them."""
    found = spec["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in found}


def plotted(panels: list[dict[str, Any]]) -> list[str]:
    return [name for panel in panels for name in panel["config"].get("metrics", [])]


def definition(path: Path) -> dict[str, Any]:
    assert cli.main(["wandb", "dashboard", "--project", "p", "--out", str(path)]) == 0
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_file_has_a_panel_for_every_metric_and_its_held_out_twin(tmp_path: Path) -> None:
    content = definition(tmp_path / "dashboard.json")
    found = sections(content["spec"])
    assert tuple(found) == SECTIONS
    wanted = {metric.name for metric in all_metrics()} - {"step"}
    wanted |= {metric.name_held_out for metric in all_metrics() if metric.held_out}
    shown = [name for panels in found.values() for name in plotted(panels)]
    assert sorted(shown) == sorted(wanted)
    assert "loss/generator" in plotted(found["learning"])
    assert "optim/generator_grad_norm" in plotted(found["health"])
    assert "speed/mfu" in plotted(found["speed"])
    assert "data/epoch" in plotted(found["data"])
    for panel in (panel for panels in found.values() for panel in panels):
        if "metrics" in panel["config"]:
            assert panel["config"]["xAxis"] == "step"
    assert "samples" in json.dumps(found["learning"])
    filters = json.dumps(content["spec"]["section"]["runSets"][0]["filters"])
    assert "superseded" in filters


def test_a_new_metric_has_a_panel_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Metric("optim/new", "", "a number that nobody knows yet", healthy="below 1")
    monkeypatch.setattr(dashboard, "all_metrics", lambda: (*metrics.all_metrics(), new))
    found = sections(definition(tmp_path / "dashboard.json")["spec"])
    assert plotted(found["health"])[-1] == "optim/new"
    assert "a number that nobody knows yet | below 1" in json.dumps(found["health"])


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("memory/peak_bytes", "speed"),
        ("data/padding", "data"),
        ("anything/else", "health"),
        ("discriminator/auc", "learning"),
    ],
)
def test_the_section_follows_from_the_name(name: str, section: str) -> None:
    assert section_of(Metric(name, "", "")) == section


def test_a_workspace_is_saved_once_per_project(
    server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for project in ("p", "p", "q"):
        assert cli.main(["wandb", "dashboard", "--project", project]) == 0
        url = f"{server.url}/me/{project}?nw="
        assert f"the workspace: {url}" in capsys.readouterr().out
    views = list(server.views.values())
    assert [(view["entityName"], view["projectName"]) for view in views] == [
        ("me", "p"),
        ("me", "q"),
    ]
    assert server.operations.count("UpsertView2") == 3
    shown = plotted(sections(json.loads(views[0]["spec"]))["learning"])
    assert "validation/loss/generator" in shown


def test_what_keeps_it_from_the_server_is_one_line(
    server: WandbServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuses_all = 401
    assert cli.main(["wandb", "dashboard", "--project", "p", "--entity", "me"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: W&B: the workspace cannot be saved")
    assert "the key is not valid there" in error
    assert "--out" in error
    assert cli.main(["wandb", "dashboard"]) == 2
    assert "give RUN, or the --project" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert cli.main(["wandb", "dashboard", "--project", "p"]) == 2
    error = capsys.readouterr().err
    assert "WANDB_MODE" in error
    assert "give --out" in error
