"""A workspace of W&B that is ready: a panel for every metric of the table, in four sections.

Comes in: the table of metrics, and the project that the workspace is for. Goes out: its definition
in a file, or the workspace on the server, which takes the place of the one that was made before.
Needs wandb-workspaces; a new metric has its panel without a change here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files.writing import write_atomically, writing
from electra_dist.objectives import objectives
from electra_dist.runs.metrics import STEP, Metric, all_metrics
from electra_dist.tracking.wandb import SUPERSEDED, TABLE, in_words

#: The sections, in the order of the workspace.
SECTIONS = ("learning", "health", "speed", "data")
#: First part of the name of a metric of the run -> its section; others are in `health`.
_SECTION_OF = {"evaluation": "learning", "speed": "speed", "memory": "speed", "data": "data"}
_NAME = "electra-dist"


@dataclass(frozen=True)
class Place:
    """The W&B project of a workspace; without `entity` that of the login."""

    project: str
    entity: str | None = None


def section_of(metric: Metric) -> str:
    """The section of a metric: what an objective measures is learning."""
    learned = [
        measured.name
        for objective in objectives()
        for measured in (objective.loss, *objective.metrics)
    ]
    if metric.name in learned:
        return "learning"
    return _SECTION_OF.get(metric.name.partition("/")[0], "health")


def write(path: Path, place: Place) -> None:
    """Write the definition as W&B stores it, without any network; raises `UserError`."""
    workspace = _workspace(place.project, place.entity or "")
    text = workspace._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    content = {
        "name": workspace.name,
        "project": place.project,
        "entity": place.entity,
        "spec": json.loads(text),
    }
    with writing(path, "the definition of the workspace"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def save(place: Place) -> str:
    """Make or replace the workspace on the server; its URL. Raises `UserError`."""
    import wandb

    _package()
    wandb.setup(wandb.Settings(silent=True))
    try:
        entity = place.entity or wandb.Api().default_entity
        if not entity:
            raise UserError("W&B knows no default entity of this login; give the `entity`")
        workspace = _workspace(place.project, entity)
        _take_over(workspace)
        workspace.save()
        return str(workspace.url)
    except UserError:
        raise
    except Exception as error:  # of many classes: no key, a wrong one, no network, no project
        raise UserError(
            f"W&B: the workspace cannot be saved ({in_words(error)}). Check `wandb login` and the"
            " network, or write its definition to a file with `out`"
        ) from error


# --- what is in it --------------------------------------------------------------------------------


def _package() -> Any:
    """The package `wandb_workspaces`; raises `UserError` where it is not there."""
    try:
        import wandb_workspaces.workspaces
    except ImportError as error:
        raise UserError(
            "this command needs wandb-workspaces: pip install 'electra-dist[dashboard]'"
        ) from error
    return wandb_workspaces


def _workspace(project: str, entity: str) -> Any:
    """The whole workspace; runs of a course that was left are not shown."""
    workspaces = _package().workspaces
    return workspaces.Workspace(
        name=_NAME,
        entity=entity,
        project=project,
        auto_generate_panels=False,
        sections=[_section(name) for name in SECTIONS],
        settings=workspaces.WorkspaceSettings(x_axis=STEP.name),
        runset_settings=workspaces.RunsetSettings(filters=f"Tags not in ['{SUPERSEDED}']"),
    )


def _section(name: str) -> Any:
    """The panels of the metrics, then what they mean; the passages are part of learning."""
    import wandb_workspaces.reports.v2 as panels
    from wandb_workspaces import workspaces

    metrics = [metric for metric in all_metrics() if metric != STEP and section_of(metric) == name]
    found = [_curves(metric) for metric in metrics]
    if name == "learning":
        found.append(panels.WeavePanelSummaryTable(table_name=TABLE))
    found.append(panels.MarkdownPanel(markdown=_legend(metrics)))
    return workspaces.Section(name=name, is_open=True, panels=found)


def _curves(metric: Metric) -> Any:
    """One panel: a metric, and the same on the held-out rows."""
    import wandb_workspaces.reports.v2 as panels

    names = [metric.name]
    if metric.held_out:
        names.append(metric.name_held_out)
    return panels.LinePlot(
        title=metric.name, title_x=STEP.unit, title_y=metric.unit, x=STEP.name, y=names
    )


def _legend(metrics: Sequence[Metric]) -> str:
    """Meanings and healthy ranges, as Markdown."""
    lines = ["| metric | meaning | healthy |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.meaning} | {one.healthy} |" for one in metrics]
    return "\n".join(lines)


# --- on the server --------------------------------------------------------------------------------


def _view_name(entity: str, project: str) -> str:
    """The same name for the same project each time, in the form that W&B gives its views."""
    digest = hashlib.sha256(f"{_NAME}/{entity}/{project}".encode()).hexdigest()
    return digest[:11]


def _take_over(workspace: Any) -> None:
    """Give the workspace the identity of the one that was made before, or the one it will have."""
    from wandb_workspaces.workspaces import internal

    url_name = _view_name(workspace.entity, workspace.project)
    workspace._internal_name = f"nw-{url_name}-v"
    try:
        known = internal.get_view_dict(workspace.entity, workspace.project, url_name)
    except ValueError:  # no such workspace, or a project without any run
        return
    workspace._internal_id = known["id"]
