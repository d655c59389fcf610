"""Opening a run directory: make a new one, or check that an existing one is this run and go on with it.

Rank 0 only; the other ranks wait for its verdict. Comes in: the configuration, the manifest of the shards. Goes out:
config.yaml, run.json, a copy of the tokenizer, and the W&B run id that every restart shares.
"""

from __future__ import annotations

import contextlib
import platform
import re
import secrets
import shutil
import socket
import time
from importlib import metadata
from typing import Any

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.manifest import Manifest
from electra_dist.errors import ConfigError, StorageError, UserError
from electra_dist.files import advice, reason, write_atomically, write_json, writing
from electra_dist.rundir import RunDir, RunFacts

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
#: What is there before run.json is: made by `launch`, or by a start that was killed.
_EARLY = ("config.yaml", "tokenizer", "jobs", "logs", "code", "lock")
_LEFTOVER = re.compile(r"^\.(config\.yaml|run\.json|process\.json|tokenizer|metrics.*\.jsonl)\.\d+\.(tmp|old|mode)$")


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


def check_same_run(run: RunDir, config: Config, dataset: str | None) -> None:
    """Raise `ConfigError` when `run` exists and is another one: other bound keys, or data of another fingerprint.

    Needs no torch, so that `launch` asks before it submits.
    """
    changed = differences(configuration.load(run.config), config) if run.config.is_file() else []
    if changed:
        raise ConfigError(
            f"{run.path}: holds a run of another configuration ({'; '.join(changed)}). Set run.name to start another"
            " run, or take these changes back to go on with this one"
        )
    facts = run.read_facts() if run.facts.is_file() else None
    if facts is not None and dataset is not None and facts.get("dataset_fingerprint") != dataset:
        raise ConfigError(
            f"data.shards = {config.data.shards}: not the data that {run.path} was trained on (fingerprint"
            f" {dataset[:12]}, the run has {str(facts.get('dataset_fingerprint'))[:12]}). Point data.shards at the"
            " same shards, or set run.name to start another run"
        )


def software() -> dict[str, str]:
    """Versions of what computes."""
    names = ("electra-dist", "torch", "deepspeed", "webdataset", "numpy", "tokenizers")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def check_run(run: RunDir, config: Config, dataset: str | None = None) -> None:
    """Raise `UserError` when `config` cannot be trained in the folder of `run`; touches nothing.

    `ConfigError` where it holds a run of another configuration, or of other data than `dataset` (not asked when None).
    """
    if _is_made(run):
        check_same_run(run, config, dataset)
    else:
        _refuse_foreign(run)


def open_run(config: Config, manifest: Manifest) -> RunFacts:
    """Create or check `config.run.path`, whose lock this process holds; returns the facts of run.json.

    A kill or a full disk at any moment leaves a folder in which the next start succeeds: every file and folder is
    whole or absent, run.json comes last, and what is not whole is made again. Raises what `check_run` raises, and
    `StorageError` when something cannot be written.
    """
    run = RunDir(config.run.path)
    check_run(run, config, manifest.fingerprint)
    _remove_leftovers(run)
    if not manifest.is_tokenizer(run.tokenizer):
        manifest.copy_tokenizer(run.tokenizer)
    with writing(run.config, "the resolved configuration"):
        write_atomically(run.config, configuration.resolved_yaml(config))
    if _is_made(run):
        return run.read_facts()
    facts = RunFacts(
        name=config.run.name,
        wandb_id=secrets.token_hex(4),
        dataset_fingerprint=manifest.fingerprint,
        starts=[],
    )
    with writing(run.facts, "run.json"):
        write_json(run.facts, facts)
    return facts


def record_start(run: RunDir, world_size: int) -> None:
    """Add this start to run.json; one that finds the run finished is none."""
    start = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "world_size": world_size}
    start |= {"host": socket.gethostname()} | software()
    run.update_facts(lambda facts: facts.setdefault("starts", []).append(start))


def _is_made(run: RunDir) -> bool:
    """Whether a start came far enough to make a run of this folder; what came before is made again."""
    return run.config.is_file() and run.facts.is_file()


def _remove_leftovers(run: RunDir) -> None:
    """What a start left that was killed while it wrote; nobody else writes, because we hold the lock."""
    for entry in run.path.iterdir():
        if _LEFTOVER.match(entry.name):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    entry.unlink()


def _refuse_foreign(run: RunDir) -> None:
    """A new run needs a new or empty folder; what `launch` or a start that was killed left there is allowed."""
    try:
        names = sorted(entry.name for entry in run.path.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UserError(f"{run.path}: is a file; run.dir/run.name must be a folder, set another run.name") from error
    except OSError as error:
        raise StorageError(f"{run.path}: cannot be read: {reason(error)}{advice(error)}") from error
    foreign = [name for name in names if name not in _EARLY and not _LEFTOVER.match(name)]
    if foreign:
        raise UserError(
            f"{run.path}: holds something that is not a run of electra-dist ({', '.join(foreign[:5])}). Nothing was"
            " changed; set run.name or run.dir to a new folder"
        )
