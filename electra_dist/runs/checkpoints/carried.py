"""What a checkpoint carries of the run directory: config.yaml and run.json, as they were when it
was saved.

A run that has lost one of them, or finds it damaged, takes it from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from electra_dist.errors import CheckpointError
from electra_dist.runs.checkpoints.folders import saved_steps
from electra_dist.runs.checkpoints.manifest import CARRIED, SMALL_FILE_LIMIT, read_manifest
from electra_dist.runs.checkpoints.members import read_member
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import RunFacts


@dataclass(frozen=True)
class Carried:
    """The run's own files as the checkpoint of `step` has them; None what it does not carry.

    config_yaml   text of config.yaml
    facts         what run.json says
    """

    step: int
    config_yaml: str | None
    facts: RunFacts | None


def carried(run: RunDir) -> Carried | None:
    """The files of the newest checkpoint that carries them undamaged; None where there is none."""
    return next(all_carried(run), None)


def all_carried(run: RunDir) -> Iterator[Carried]:
    """The files of every checkpoint that carries them undamaged, newest first.

    Needs no config.yaml and no run.json to be there. Each file is compared with the checksum in the
    manifest, and nothing else of the checkpoint is read.
    """
    for step in reversed(saved_steps(run)):
        try:
            found = _carried(run, step)
        except (CheckpointError, ValueError):
            continue
        if found.config_yaml is not None or found.facts is not None:
            yield found


def _carried(run: RunDir, step: int) -> Carried:
    folder = run.checkpoint(step)
    manifest = read_manifest(folder)
    texts = {
        name: read_member(folder, name, manifest.files[name], SMALL_FILE_LIMIT).decode()
        for name in CARRIED
        if name in manifest.files
    }
    config, facts = (texts.get(name) for name in CARRIED)
    return Carried(step, config, _facts(facts))


def _facts(text: str | None) -> RunFacts | None:
    """What a carried run.json says; None where it holds no facts of a run."""
    if text is None:
        return None
    content = json.loads(text)
    if not isinstance(content, dict):
        return None
    try:
        return RunFacts.from_json(content)
    except ValueError:
        return None
