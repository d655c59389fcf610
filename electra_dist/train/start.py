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
from collections.abc import Callable
from importlib import metadata
from typing import Any

from electra_dist import config as configuration
from electra_dist.checkpoints.folders import saved_steps
from electra_dist.config import Config
from electra_dist.data.manifest import Manifest
from electra_dist.errors import ConfigError, StorageError, UserError
from electra_dist.files import advice, reason, write_atomically, write_json, writing
from electra_dist.rundir import RunDir, RunFacts
from electra_dist.train.own_files import OwnFiles, own_files

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
#: What a folder may hold before run.json is there: made by `launch`, or by a start that was killed.
_EARLY = ("config.yaml", "tokenizer", "jobs", "logs", "code")
#: What it may hold where a start of ours, which begins with the lock, came further, and run.json was lost.
_LATER = re.compile(r"^(checkpoints|wandb|process\.json|run\.json|metrics.*\.jsonl)$")
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
    _check_same(run, own_files(run), config, dataset)


def _check_same(run: RunDir, own: OwnFiles, config: Config, dataset: str | None) -> None:
    changed = differences(own.config, config) if own.config else []
    if changed:
        raise ConfigError(
            f"{run.path}: holds a run of another configuration ({'; '.join(changed)}). Set run.name to start another"
            " run, or take these changes back to go on with this one"
        )
    known = own.facts.get("dataset_fingerprint") if own.facts else None
    if known is not None and dataset is not None and known != dataset:
        raise ConfigError(
            f"data.shards = {config.data.shards}: not the data that {run.path} was trained on (fingerprint"
            f" {dataset[:12]}, the run has {known[:12]}). Point data.shards at the same shards, or set run.name to"
            " start another run"
        )


def software() -> dict[str, str]:
    """Versions of what computes."""
    names = ("electra-dist", "torch", "deepspeed", "webdataset", "numpy", "tokenizers")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def check_run(run: RunDir, config: Config, dataset: str | None = None) -> OwnFiles:
    """What the folder of `run` says of its run, if `config` can be trained in it; touches nothing.

    Raises `ConfigError` where it holds a run of another configuration, or of other data than `dataset` (not asked when
    None), `UserError` where it holds something that is no run.
    """
    try:
        own = own_files(run)
        if own.facts is None:
            _refuse_foreign(run)
    except OSError as error:
        raise StorageError(f"{run.path}: cannot be read: {reason(error)}{advice(error)}") from error
    if own.facts is not None or saved_steps(run):  # a first start that was killed has trained nothing
        _check_same(run, own, config, dataset)
    return own


def open_run(config: Config, manifest: Manifest, tell: Callable[[str], None]) -> None:
    """Create or check `config.run.path`, whose lock this process holds.

    A kill or a full disk at any moment leaves a folder in which the next start succeeds: every file and folder is
    whole or absent, run.json comes last, and what is not whole is made again or restored from a checkpoint, which
    `tell` is told. Raises what `check_run` raises, and `StorageError` when something cannot be written.
    """
    run = RunDir(config.run.path)
    own = check_run(run, config, manifest.fingerprint)
    for sentence in own.said:
        tell(sentence)
    _remove_leftovers(run)
    if not manifest.is_tokenizer(run.tokenizer):
        manifest.copy_tokenizer(run.tokenizer)
    with writing(run.config, "the resolved configuration"):
        write_atomically(run.config, configuration.resolved_yaml(config))
    if not own.whole:
        with writing(run.facts, "run.json"):
            write_json(run.facts, own.facts or _new_facts(config, manifest))


def _new_facts(config: Config, manifest: Manifest) -> RunFacts:
    return RunFacts(
        name=config.run.name,
        wandb_id=secrets.token_hex(4),
        dataset_fingerprint=manifest.fingerprint,
        starts=[],
    )


def record_start(run: RunDir, world_size: int) -> None:
    """Add this start to run.json; one that finds the run finished is none."""
    start = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "world_size": world_size}
    start |= {"host": socket.gethostname()} | software()
    run.update_facts(lambda facts: facts.setdefault("starts", []).append(start))


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
    foreign = [name for name in names if name not in (*_EARLY, "lock") and not _LEFTOVER.match(name)]
    if "lock" in names:
        foreign = [name for name in foreign if not _LATER.match(name)]
    if run.config.exists() and not saved_steps(run):
        foreign += _foreign_config(run)
    if foreign:
        raise UserError(
            f"{run.path}: holds something that is not a run of electra-dist ({', '.join(foreign[:5])}). Nothing was"
            " changed; set run.name or run.dir to a new folder"
        )


def _foreign_config(run: RunDir) -> list[str]:
    """A config.yaml that no start of ours has written: they are whole."""
    try:
        configuration.load(run.config)
    except ConfigError:
        return [run.config.name]
    return []
