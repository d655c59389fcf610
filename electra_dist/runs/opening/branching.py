"""Starting another run from a checkpoint of a run, which is not touched and may be training.

Comes in: the run directory to start from, the configuration of the new run, whose lock this process
holds. Goes out: a run directory that stands at that step as if it had trained up to there:
checkpoint, metrics up to it, config.yaml, run.json with `branched_from` and a W&B run of its own.
Large files are hard links where that is possible.

The order makes a kill harmless: before the checkpoint has its name, the same command makes the
branch again; after that, the checkpoint carries what is missing.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import time
from dataclasses import replace
from pathlib import Path

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.errors import CheckpointError, ConfigError
from electra_dist.files.writing import whole_file, write_atomically, writing
from electra_dist.runs.checkpoints import manifest as parts
from electra_dist.runs.checkpoints import members
from electra_dist.runs.checkpoints.folders import new_partial, newest_healthy, publish
from electra_dist.runs.checkpoints.manifest import CheckpointManifest, read_manifest
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import KeyChange, Origin, RunFacts
from electra_dist.runs.metrics_log import RowReader
from electra_dist.runs.opening.changes import changes, learning_rate, listed
from electra_dist.runs.opening.going_on import GoingOn, Tell
from electra_dist.runs.opening.own_files import OwnFiles, own_files
from electra_dist.runs.rollbacks import Rollback, rollbacks_in

_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


#: What to do where a run has other data.
SAME_DATA = "Point data.shards (or data.sources, with the same weights) at the same shards"


def asked_data(config: Config) -> str:
    """The key and the value that name the data."""
    if config.data.shards is not None:
        return f"data.shards = {config.data.shards}"
    named = ", ".join(f"{source.name} in {source.shards}" for source in config.data.sources)
    return f"data.sources = [{named}]"


# --- may it be ------------------------------------------------------------------------------------


def is_branch(own: OwnFiles, how: GoingOn) -> bool:
    """Whether this run is the branch that is asked for, made earlier;
    raises `ConfigError` when it is another run.
    """
    if own.facts is None:
        return False
    origin = own.facts.branched_from
    parent = how.branch_of
    assert parent is not None
    if origin is None or origin.name != parent.name:
        if origin:
            was = f"a branch of {origin.name}"
        else:
            was = "no branch"
        raise ConfigError(f"`branch`: the run exists already and is {was}; give another name")
    if how.from_step not in (None, origin.step):
        raise ConfigError(
            f"`branch` with `from_step` {how.from_step}: the run exists already and started from"
            f" step {origin.step}; give another name"
        )
    return True


def check_branch(config: Config, dataset: str | None, how: GoingOn) -> None:
    """Raise `UserError` where no such branch can be made; touches nothing."""
    parent = _parent(how)
    own = own_files(parent)
    if own.config is None or own.facts is None:
        raise ConfigError(
            f"`branch`: {parent.path} is no run to start from; the configuration must name one"
        )
    past = changes(own.config, config, "past")
    if past:
        raise ConfigError(
            f"`branch`: {parent.path} has another configuration ({listed(past)}), which its"
            " checkpoints cannot go on with; take that back, or set run.name to start a run from"
            " step 0"
        )
    known = own.facts.dataset_fingerprint
    if dataset is not None and known != dataset:
        raise ConfigError(
            f"`branch`: {asked_data(config)}: not the data that {parent.path} was"
            f" trained on (fingerprint {dataset[:12]}, the run has {known[:12]}). {SAME_DATA}"
        )
    step = _candidates(parent, how)[0]
    if config.train.steps < step:
        raise ConfigError(
            f"`branch`: train.steps = {config.train.steps}, but the checkpoint to start from is of"
            f" step {step}; give more steps, or an older one with `from_step`"
        )


def _parent(how: GoingOn) -> RunDir:
    assert how.branch_of is not None
    return RunDir(how.branch_of)


def _candidates(parent: RunDir, how: GoingOn) -> list[int]:
    """Steps to start from, the best first: the one that was asked for,
    or the healthy ones from the newest on.
    """
    there = parent.complete_checkpoints()
    if how.from_step is None:
        healthy = [step for step in reversed(there) if newest_healthy(parent, [step]) is not None]
        if not healthy:
            raise CheckpointError(
                f"`branch`: {parent.path} has no checkpoint to start from; train until one is saved"
            )
        return healthy
    if how.from_step not in there:
        listing = ", ".join(map(str, there)) or "none"
        raise CheckpointError(
            f"`from_step` {how.from_step}: {parent.path} has no whole checkpoint of this step"
            f" (whole are: {listing})"
        )
    return [how.from_step]


# --- making it ------------------------------------------------------------------------------------


def make_branch(run: RunDir, config: Config, how: GoingOn, tell: Tell) -> None:
    """Make `run` a branch of `how.branch_of`; what an earlier try left is made again.

    A checkpoint that the other run removes meanwhile, or that is damaged, is passed over for the
    one before it.
    """
    parent = _parent(how)
    own = own_files(parent)
    assert own.config is not None
    with writing(run.path, "the branch"):
        step, facts = _take_one(parent, own, run, config, how, tell)
        write_atomically(run.config, configuration.resolved_yaml(config))
        run.write_facts(facts)
    tell(f"{run.path}: starts from step {step} of {parent.path}")
    changed = changes(own.config, config, "future")
    if changed:
        tell(
            f"{run.path}: changed after step {step}: {listed(changed)}"
            f" ({learning_rate(own.config, config, step)})"
        )


def _take_one(
    parent: RunDir, own: OwnFiles, run: RunDir, config: Config, how: GoingOn, tell: Tell
) -> tuple[int, RunFacts]:
    """The checkpoint of the first step that can be had, and run.json of the branch."""
    for step in _candidates(parent, how):
        try:
            return step, _take_checkpoint(parent, own, run, step, config)
        except CheckpointError as error:
            tell(f"warning: {parent.checkpoint(step)}: {error}")
    raise CheckpointError(f"`branch`: no checkpoint of {parent.path} that was tried is whole")


def _facts(
    parent: RunDir, own: OwnFiles, config: Config, step: int, rollbacks: list[Rollback]
) -> RunFacts:
    assert own.config is not None
    assert own.facts is not None
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    changed = changes(own.config, config, "future")
    return RunFacts(
        name=config.run.name,
        wandb_id=secrets.token_hex(4),
        dataset_fingerprint=own.facts.dataset_fingerprint,
        branched_from=Origin(
            name=parent.path.name,
            step=step,
            run=str(parent.path.absolute()),
            wandb_id=own.facts.wandb_id,
            time=now,
        ),
        changes=(
            *(one for one in own.facts.changes if one.step <= step),
            *(KeyChange(step, one.key, one.new, one.old, now) for one in changed),
        ),
        rollbacks=tuple(rollbacks),
    )


def _take_checkpoint(
    parent: RunDir, own: OwnFiles, run: RunDir, step: int, config: Config
) -> RunFacts:
    """Give `run` the checkpoint of `step`, carrying the run's own files; returns run.json of the
    branch.

    Raises `CheckpointError` where the checkpoint is gone or damaged.
    """
    source = parent.checkpoint(step)
    try:
        manifest = read_manifest(source)
        folder = new_partial(run, step)
        names = [name for name in manifest.files if name not in parts.CARRIED]
        for name in names:
            _link(source, name, folder)
        problems = members.file_problems(folder, manifest, names)
    except (CheckpointError, FileNotFoundError) as error:
        raise CheckpointError(str(error)) from error
    if problems:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError("; ".join(problems[:3]))
    facts = _facts(parent, own, config, step, _rollbacks(folder, manifest))
    _finish(folder, manifest, names, config, facts)
    _copy_metrics(parent, run, step)
    publish(folder, run.checkpoint(step))
    return facts


def _link(source: Path, name: str, folder: Path) -> None:
    """The same file in `folder`: a hard link, or a copy; never what a link points at."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = members.open_member(source, name)
    try:
        try:
            os.link(source / name, target, follow_symlinks=False)
            here = os.fstat(descriptor)
            there = target.lstat()
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino) and stat.S_ISREG(
                there.st_mode
            ):
                return
            target.unlink()
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        with os.fdopen(os.dup(descriptor), "rb") as there_file, target.open("xb") as here_file:
            shutil.copyfileobj(there_file, here_file, 4 << 20)
            here_file.flush()
            os.fsync(here_file.fileno())
    finally:
        os.close(descriptor)


def _rollbacks(folder: Path, manifest: CheckpointManifest) -> list[Rollback]:
    """Those that the checkpoint knows of: their rows stay skipped."""
    entry = manifest.files.get(parts.TRAINER)
    if entry:
        state = json.loads(
            members.read_member(folder, parts.TRAINER, entry, parts.SMALL_FILE_LIMIT)
        )
    else:
        state = {}
    if isinstance(state, dict):
        return rollbacks_in(state)
    return []


def _finish(
    folder: Path, manifest: CheckpointManifest, names: list[str], config: Config, facts: RunFacts
) -> None:
    """The manifest again, with config.yaml and run.json of the branch:
    from them a lost one would be restored.
    """
    texts = {
        "config.yaml": configuration.resolved_yaml(config),
        "run.json": json.dumps(facts.to_json()),
    }
    own = {name: members.write_text(folder / name, text) for name, text in texts.items()}
    listing = {name: manifest.files[name] for name in names} | own
    members.finish(folder, manifest.model_copy(update={"files": listing, "version": parts.VERSION}))


def _copy_metrics(parent: RunDir, run: RunDir, step: int) -> None:
    """The rows up to `step`, so that the curve is whole; a file of any size."""
    with whole_file(run.metrics) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in RowReader(parent.metrics):
            if row["step"] <= step:
                file.write(json.dumps(row) + "\n")


def as_made(how: GoingOn) -> GoingOn:
    """What is left to ask of a branch that is made."""
    return replace(how, branch_of=None, from_step=None)
