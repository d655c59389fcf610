"""Opening a run directory: make a new one, or check that an existing one is this run and go on with it.

Rank 0 only; the other ranks wait for its verdict. Comes in: the configuration, the manifest of the shards. Goes out:
config.yaml, run.json, a copy of the tokenizer, and the W&B run id that every restart shares.
"""

from __future__ import annotations

import json
import platform
import secrets
import socket
import time
from importlib import metadata
from typing import Any

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.manifest import Manifest
from electra_dist.errors import ConfigError, UserError
from electra_dist.files import write_atomically, write_json
from electra_dist.rundir import RunDir

#: Keys that a resumed run may change: how and where it runs, not what it computes.
FREE_SECTIONS = ("run", "zero", "checkpoint", "validation", "tracking", "guard", "watchdog")
FREE_KEYS = (
    "data.shards",  # its content is compared by fingerprint instead
    "data.prefetch_steps",
    "data.verify",
    "model.attention",
    "model.generator_head",
    "train.micro_rows",
    "train.device",
    "train.compile",
    "train.activation_checkpointing",
)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differences(old: Config, new: Config) -> list[str]:
    """`key: old -> new` for every key that a resumed run may not change."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    bound = [k for k in before | after if k.split(".")[0] not in FREE_SECTIONS and k not in FREE_KEYS]
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in bound if before.get(key) != after.get(key)]


def check_same_run(run: RunDir, config: Config, dataset: str) -> None:
    """Raise `ConfigError` when `run` exists and is another one: other bound keys, or data of another fingerprint.

    Needs no torch, so that `launch` asks before it submits.
    """
    changed = differences(configuration.load(run.config), config) if run.config.is_file() else []
    if changed:
        raise ConfigError(
            f"{run.path}: holds a run of another configuration ({'; '.join(changed)}). Set run.name to start another"
            " run, or take these changes back to go on with this one"
        )
    facts = json.loads(run.facts.read_text(encoding="utf-8")) if run.facts.is_file() else None
    if facts is not None and facts.get("dataset_fingerprint") != dataset:
        raise ConfigError(
            f"data.shards = {config.data.shards}: not the data that {run.path} was trained on (fingerprint"
            f" {dataset[:12]}, the run has {str(facts.get('dataset_fingerprint'))[:12]}). Point data.shards at the"
            " same shards, or set run.name to start another run"
        )


def software() -> dict[str, str]:
    """Versions of what computes."""
    names = ("electra-dist", "torch", "deepspeed", "webdataset", "numpy", "tokenizers")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def open_run(config: Config, manifest: Manifest, world_size: int) -> dict[str, Any]:
    """Create or check `config.run.path`; returns the facts of run.json, this start appended to its `starts`.

    Raises `ConfigError` when the directory holds a run of another configuration or data, `UserError` when it holds
    something that is no run.
    """
    run = RunDir(config.run.path)
    if run.config.is_file() and run.facts.is_file():
        check_same_run(run, config, manifest.fingerprint)
        facts: dict[str, Any] = json.loads(run.facts.read_text(encoding="utf-8"))
    else:
        _refuse_foreign(run)
        run.path.mkdir(parents=True, exist_ok=True)
        if not manifest.is_tokenizer(run.tokenizer):
            manifest.copy_tokenizer(run.tokenizer)
        facts = {
            "name": config.run.name,
            "wandb_id": secrets.token_hex(4),
            "dataset_fingerprint": manifest.fingerprint,
            "starts": [],
        }
    start = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "world_size": world_size}
    facts["starts"].append(start | {"host": socket.gethostname()} | software())
    write_atomically(run.config, configuration.resolved_yaml(config))
    write_json(run.facts, facts)
    return facts


def _refuse_foreign(run: RunDir) -> None:
    """A new run needs a new or empty directory; what `launch` puts there beforehand is allowed."""
    if not run.path.exists():
        return
    if not run.path.is_dir():
        raise UserError(f"{run.path}: is a file; run.dir/run.name must be a folder, set another run.name")
    ours = {"config.yaml", "tokenizer", "jobs", "logs", "code"}
    foreign = sorted(entry.name for entry in run.path.iterdir() if entry.name not in ours)
    if foreign:
        raise UserError(
            f"{run.path}: holds something that is not a run of electra-dist ({', '.join(foreign[:5])}). Nothing was"
            " changed; set run.name or run.dir to a new folder"
        )
