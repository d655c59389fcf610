"""Opening a run directory: make a new one, or check that an existing one is this run and go on with
it.

Rank 0 only; the other ranks wait for its verdict. Comes in: the configuration and its open
data. Goes out: config.yaml, run.json, a copy of the tokenizer, and the W&B run id that every
restart shares.
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

from electra_dist import __version__
from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.sources import RunData
from electra_dist.errors import CheckpointError, ConfigError, StorageError, UserError
from electra_dist.files.writing import advice, reason, write_atomically, writing
from electra_dist.runs.checkpoints.folders import saved_steps
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import About, RunFacts, Start, Version
from electra_dist.runs.heldout.best import check_metrics
from electra_dist.runs.opening.about import Machines
from electra_dist.runs.opening.branching import (
    SAME_DATA,
    as_made,
    asked_data,
    check_branch,
    is_branch,
    make_branch,
)
from electra_dist.runs.opening.going_on import (
    PLAIN,
    GoingOn,
    Tell,
    check_going_on,
    go_on,
)
from electra_dist.runs.opening.own_files import OwnFiles, own_files
from electra_dist.runs.opening.revision import revision

#: What a folder may hold before run.json is there: made by `launch`, or by a start that was killed.
_EARLY = ("config.yaml", "tokenizer", "jobs", "logs", "code")
#: What it may hold where a start of ours, which begins with the lock,
#: came further, and run.json was lost.
_LATER = re.compile(
    r"^(checkpoints|wandb|samples|evaluations|process\.json|run\.json|metrics.*\.jsonl)$"
)
_LEFTOVER = re.compile(
    r"^\.(config\.yaml|run\.json|process\.json|tokenizer|metrics.*\.jsonl)\.\d+\.(tmp|old|mode)$"
)


def software() -> dict[str, str]:
    """Versions of what computes."""
    names = ("torch", "deepspeed", "webdataset", "numpy", "tokenizers")
    ours = {"python": platform.python_version(), "electra-dist": __version__}
    return ours | {name: metadata.version(name) for name in names}


def check_run(
    run: RunDir, config: Config, dataset: str | None = None, how: GoingOn = PLAIN
) -> OwnFiles:
    """What the folder of `run` says of its run, if `config` can be trained in it as `how` says;
    touches nothing.

    Raises `ConfigError` where it holds a run of another configuration, or of other data than
    `dataset` (not asked when None), `CheckpointError` where `how` names one that is not there,
    `UserError` where it holds something that is no run. Needs no torch, so that `launch` asks
    before it submits.
    """
    check_metrics(config)
    try:
        own = own_files(run)
        if own.facts is None:
            _refuse_foreign(run)
        if how.branch_of is not None:
            if not is_branch(own, how):
                check_branch(config, dataset, how)
                return own
            how = as_made(how)
        # a first start that was killed has trained nothing
        if own.facts is not None or saved_steps(run):
            _check_data(run, own, config, dataset)
            check_going_on(run, own, config, how)
        elif how.from_step is not None:
            raise CheckpointError(f"`from_step` {how.from_step}: {run.path} has saved nothing yet")
    except OSError as error:
        raise StorageError(f"{run.path}: cannot be read: {reason(error)}{advice(error)}") from error
    return own


def _check_data(run: RunDir, own: OwnFiles, config: Config, dataset: str | None) -> None:
    if own.facts is None or dataset is None:
        return
    known = own.facts.dataset_fingerprint
    if known != dataset:
        raise ConfigError(
            f"{asked_data(config)}: not the data that {run.path} was trained on"
            f" (fingerprint {dataset[:12]}, the run has {known[:12]}). {SAME_DATA}, or set run.name"
            " to start another run"
        )


def open_run(
    config: Config, data: RunData, warn: Tell, say: Tell | None = None, how: GoingOn = PLAIN
) -> None:
    """Create or check `config.run.path`, whose lock this process holds, and do what `how` asks for.

    A kill or a full disk at any moment leaves a folder in which the next start succeeds: every file
    and folder is whole or absent, run.json is the last that a first start makes, and what is not
    whole is made again or restored from a checkpoint, which `warn` is told. Raises what `check_run`
    raises, and `StorageError` when something cannot be written.
    """
    run = RunDir(config.run.path)
    own = check_run(run, config, data.fingerprint, how)
    _remove_leftovers(run)
    if not data.is_tokenizer(run.tokenizer):
        data.copy_tokenizer(run.tokenizer)
    if how.branch_of is not None and own.facts is None:
        make_branch(run, config, how, say or warn)
        return
    for sentence in own.said:
        warn(sentence)
    if own.facts is None:
        _write_config(run, config)
    if not own.whole:
        run.write_facts(own.facts or _new_facts(config, data))
    go_on(run, own, config, as_made(how) if how.branch_of else how, say or warn)
    _write_config(run, config)


def _write_config(run: RunDir, config: Config) -> None:
    with writing(run.config, "the resolved configuration"):
        write_atomically(run.config, configuration.resolved_yaml(config))


def _new_facts(config: Config, data: RunData) -> RunFacts:
    return RunFacts(
        name=config.run.name,
        wandb_id=secrets.token_hex(4),
        dataset_fingerprint=data.fingerprint,
    )


def record_start(
    run: RunDir,
    world_size: int,
    step: int,
    machines: Machines = Machines(),  # noqa: B008  (frozen)
    about: About | None = None,
) -> None:
    """Add this start, which goes on from `step`, to run.json, and what is known of the run now;
    one that finds the run finished is none.
    """
    start = Start(
        world_size=world_size,
        step=step,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        host=socket.gethostname(),
        nodes=machines.nodes,
        device=machines.device,
        job_id=machines.job_id,
        revision=revision(),
        software=tuple(Version(package, number) for package, number in software().items()),
    )

    def note(facts: RunFacts) -> RunFacts:
        """The start, and `about` where it is given."""
        if about is not None:
            facts = facts.with_about(about)
        return facts.with_start(start, step)

    run.update_facts(note)


def _remove_leftovers(run: RunDir) -> None:
    """What a start left that was killed while it wrote;
    nobody else writes, because we hold the lock.
    """
    for entry in run.path.iterdir():
        if _LEFTOVER.match(entry.name):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    entry.unlink()


def _refuse_foreign(run: RunDir) -> None:
    """A new run needs a new or empty folder;
    what `launch` or a start that was killed left there is allowed.
    """
    try:
        names = sorted(entry.name for entry in run.path.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UserError(
            f"{run.path}: is a file; run.dir/run.name must be a folder, set another run.name"
        ) from error
    foreign = [
        name for name in names if name not in (*_EARLY, "lock") and not _LEFTOVER.match(name)
    ]
    if "lock" in names:
        foreign = [name for name in foreign if not _LATER.match(name)]
    if run.config.exists() and not saved_steps(run):
        foreign += _foreign_config(run)
    if foreign:
        raise UserError(
            f"{run.path}: holds something that is not a run of electra-dist"
            f" ({', '.join(foreign[:5])}). Nothing was changed; set run.name or run.dir to a new"
            " folder"
        )


def _foreign_config(run: RunDir) -> list[str]:
    """A config.yaml that no start of ours has written: they are whole."""
    try:
        configuration.load(run.config)
    except ConfigError:
        return [run.config.name]
    return []
