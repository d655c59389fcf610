"""Where checkpoints and data lie, for W&B: artifacts that only refer (`tracking.artifacts`).

Comes in: the run directory. Goes out: `Reference`s to whole, healthy checkpoints and to the
dataset. Nothing of them is read or uploaded; W&B is told their paths, or URLs.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from electra_dist.config import Config
from electra_dist.errors import UserError
from electra_dist.files.urls import is_url, without_parameters
from electra_dist.runs.checkpoints import read_manifest
from electra_dist.runs.directory import RunDir


@dataclass(frozen=True)
class Reference:
    """Something that W&B is told the place of.

    key      what the ledger knows it by
    name     of the artifact; each new content is a version of it
    kind     `model` or `dataset`
    place    its URL; `file://` for a path
    entry    what it is called in the artifact; None for the names of the files of a folder
    facts    metadata of the artifact
    aliases  of this version
    """

    key: str
    name: str
    kind: str
    place: str
    entry: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


def references(
    run: RunDir, config: Config, run_id: str, known: Set[str] = frozenset()
) -> Iterator[Reference]:
    """The dataset, then the healthy checkpoints that lie there now, oldest first; those whose key
    is `known` are left out, unread.
    """
    for place in config.data.folders:
        if _dataset_key(place) not in known:
            yield _dataset(run, place)
    for step in run.complete_checkpoints():
        folder = run.checkpoint(step)
        if folder.name in known:
            continue
        try:
            healthy = read_manifest(folder).healthy
        except (UserError, OSError):  # another process removes or judges it now
            continue
        if healthy is not False:
            yield Reference(
                key=folder.name,
                name=f"checkpoint-{run_id}",
                kind="model",
                place=folder.absolute().as_uri(),
                facts={"step": step},
                aliases=(folder.name,),
            )


def _dataset_key(place: str) -> str:
    return f"dataset {place}"


def _dataset(run: RunDir, place: str) -> Reference:
    facts = {"fingerprint": run.read_facts().dataset_fingerprint}
    key = _dataset_key(place)
    if is_url(place):
        url = without_parameters(place)
        name = url.rstrip("/").rpartition("/")[2]
        return Reference(key, f"dataset-{name}", "dataset", url, entry=name, facts=facts)
    path = Path(place).absolute()
    return Reference(key, f"dataset-{path.name}", "dataset", path.as_uri(), facts=facts)
