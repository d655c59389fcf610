"""Artifacts that only refer: told when asked, each once, of healthy checkpoints alone."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from electra_dist import config as configuration
from electra_dist.runs.checkpoints import CheckpointManifest, members
from electra_dist.runs.checkpoints import manifest as parts
from electra_dist.runs.directory import RunDir
from electra_dist.tracking.wandb import mirror_once
from electra_dist.tracking.wandb.artifacts import references
from tests.support.offline import files, records
from tests.support.wandb_runs import write_rows


def save(run: RunDir, step: int, healthy: bool | None) -> None:
    """A whole checkpoint of no networks."""
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    content = {parts.TRAINER: members.write_text(folder / parts.TRAINER, "{}")}
    members.finish(
        folder,
        CheckpointManifest(
            version=2, step=step, world_size=1, files=content, networks={}, healthy=healthy
        ),
    )


def configure(run: RunDir, **keys: object) -> configuration.Config:
    content = yaml.safe_load(run.config.read_text())
    content["tracking"] |= keys
    run.config.write_text(yaml.safe_dump(content))
    return configuration.load(run.config)


def artifacts(run: RunDir) -> list[tuple[str, str, list[str]]]:
    """(type, name, references) of each artifact in the offline files."""
    found = [
        record.artifact
        for path in files(run)
        for record in records(path)
        if record.HasField("artifact")
    ]
    return [(one.type, one.name, [part.ref for part in one.manifest.contents]) for one in found]


def test_healthy_checkpoints_and_the_data_are_referred_to(new_run: RunDir) -> None:
    save(new_run, 10, True)
    save(new_run, 20, False)
    save(new_run, 30, None)
    (new_run.checkpoint(30) / "COMPLETE").unlink()
    save(new_run, 40, None)
    config = configure(new_run, artifacts="reference")
    dataset, *checkpoints = references(new_run, config, "abcd1234")
    assert (dataset.kind, dataset.name, dataset.place) == (
        "dataset",
        "dataset-s",
        Path("s").absolute().as_uri(),
    )
    assert [one.aliases for one in checkpoints] == [("step-00000010",), ("step-00000040",)]
    assert {one.name for one in checkpoints} == {"checkpoint-abcd1234"}
    remote = configuration.load(new_run.config, ["data.shards=https://host.org/wiki"])
    assert next(references(new_run, remote, "abcd1234")).place == "https://host.org/wiki"


def test_each_is_told_once(new_run: RunDir, tmp_path: Path) -> None:
    shards = tmp_path / "wiki"
    shards.mkdir()
    (shards / "manifest.json").write_text("{}")
    config = yaml.safe_load(new_run.config.read_text())
    config["data"]["shards"] = str(shards)
    new_run.config.write_text(yaml.safe_dump(config))
    configure(new_run, artifacts="reference")
    write_rows(new_run, 1)
    save(new_run, 10, True)
    assert mirror_once(new_run, "offline", 300, os.environ).warnings == ()
    told = artifacts(new_run)
    assert [(kind, name) for kind, name, _ in told] == [
        ("dataset", "dataset-wiki"),
        ("model", "checkpoint-abcd1234"),
    ]
    assert told[0][2] == [f"file://{shards}/manifest.json"]
    checkpoint = new_run.checkpoint(10)
    assert set(told[1][2]) == {entry.as_uri() for entry in checkpoint.iterdir()}
    save(new_run, 20, True)
    assert mirror_once(new_run, "offline", 300, os.environ).warnings == ()
    assert len(artifacts(new_run)) == 3
    assert len(files(new_run)) == 2
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 0
    assert len(files(new_run)) == 2


def test_nothing_is_told_unless_asked(new_run: RunDir) -> None:
    write_rows(new_run, 1)
    save(new_run, 10, True)
    mirror_once(new_run, "offline", 300, os.environ)
    assert artifacts(new_run) == []
