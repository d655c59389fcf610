"""Runs: train, read what was logged, evaluate, export."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from electra_dist.api.common import DeviceName, as_path, output
from electra_dist.api.configuration import load_config
from electra_dist.console import Progress, silent
from electra_dist.errors import ConfigError, UserError

if TYPE_CHECKING:
    from electra_dist.config import Config, Network
    from electra_dist.evaluate import Evaluation
    from electra_dist.export.report import ExportReport
    from electra_dist.runs.opening.going_on import GoingOn


@dataclass(frozen=True)
class TrainedRun:
    """What `train_run` left.

    path      the run directory
    finished  False where it was interrupted (Ctrl-C, a signal): train it again to go on
    step      of the newest checkpoint; 0 where there is none
    """

    path: Path
    finished: bool
    step: int


def train_run(
    config: Config,
    *,
    from_here: bool = False,
    from_step: int | None = None,
    again: bool = False,
    branch: str | None = None,
    start_over: bool = False,
    verbose: bool = False,
) -> TrainedRun:
    """Train the run at `config.run.path`, or go on with it; it may be called again and again.

    This is one process. Under `torchrun` or `srun` every rank calls it, as with the command. Call
    it in the main thread: Ctrl-C then saves and returns. A process trains on one kind of device,
    CPU or CUDA, which DeepSpeed chooses once. A watchdog ends the whole process when the run hangs
    (`watchdog.enabled` turns that off).

    Args:
        config: the run; `run.dir` and `run.name` say where it is written.
        from_here: accept changed keys that concern the steps to come.
        from_step: go back to the checkpoint of this step first.
        again: go back even if that was done before.
        branch: start a new run of this name from a checkpoint of the run, which is not touched.
        start_over: begin at step 0 where no checkpoint of the run is whole any more.
        verbose: print the lines of the command `electra-dist train`. They are in RUN/logs anyway.

    Returns:
        Where the run is, whether it is finished, and the step that is saved.

    Raises:
        ConfigError: a key that cannot be, or a run of another configuration at the same place.
        DataError: shards that are gone or damaged.
        CheckpointError: no checkpoint that the run could go on from.
        UserError: whatever else `electra-dist train` refuses, in the same words.

    Examples:
        >>> trained = electra_dist.train_run(config, verbose=True)
        >>> if not trained.finished:
        ...     trained = electra_dist.train_run(config)
    """
    from electra_dist.evaluate.in_training import EvaluatorInTraining
    from electra_dist.runs.directory import RunDir
    from electra_dist.train.run import train
    from electra_dist.train.trainer import Outcome

    if threading.current_thread() is not threading.main_thread():
        raise UserError("train_run: call it in the main thread, which alone hears signals")
    config, how = _how(config, from_here, from_step, again, branch, start_over)
    with output(verbose):
        outcome = train(config, dict(os.environ), how=how, evaluator=EvaluatorInTraining())
    run = RunDir(config.run.path)
    steps = run.complete_checkpoints()
    return TrainedRun(
        path=run.path,
        finished=outcome is Outcome.FINISHED,
        step=steps[-1] if steps else 0,
    )


def _how(
    config: Config,
    from_here: bool,
    from_step: int | None,
    again: bool,
    branch: str | None,
    start_over: bool,
) -> tuple[Config, GoingOn]:
    """The run to train, and how it goes on; raises `ConfigError`."""
    from electra_dist.runs.opening.going_on import GoingOn

    if again and from_step is None:
        raise ConfigError("`again`: goes with `from_step`")
    branch_of = None
    if branch is not None:
        branch_of = config.run.path
        config = _renamed(config, branch)
    return config, GoingOn(from_here, from_step, again, branch_of, start_over)


def _renamed(config: Config, name: str) -> Config:
    """`config` as a run of another name; raises `ConfigError`."""
    renamed = load_config(config.model_dump(mode="json"), {"run.name": name})
    if renamed.run.path == config.run.path:
        raise ConfigError(f"`branch` {name}: is the run itself; give another name")
    return renamed


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The rows that a run has logged, oldest first; it may still be training.

    Args:
        run: the run directory.

    Returns:
        One dictionary per row of metrics.jsonl, each with its `step`; rows of events are left out.
        Losses are in nats:
        `loss/generator`, `loss/discriminator`; of the held-out rows `validation/loss/generator`
        and so on. docs/train.md lists all keys.

    Raises:
        UserError: no run there.

    Examples:
        >>> rows = electra_dist.read_metrics("runs/quickstart")
        >>> steps = [row["step"] for row in rows if "loss/generator" in row]
    """
    from electra_dist.runs.directory import RunDir
    from electra_dist.runs.metrics_log import is_event

    rows = RunDir.existing(run).read_metrics()
    return [row for row in rows if not is_event(row)]


def evaluate_run(
    run: str | Path,
    *,
    step: int | Literal["best"] | None = None,
    rows: int | Literal["all"] | None = None,
    shards: str | Path | None = None,
    device: DeviceName | None = None,
    passages: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Measure both networks of a run on held-out text, in fp32.

    Args:
        run: the run directory.
        step: the checkpoint, or `best`; by default the newest that is whole.
        rows: held-out rows, or `all`; by default `validation.rows` of the run.
        shards: other shards of the same tokenizer; by default those of the run.
        device: by default CUDA where there is one.
        passages: how many passages to return, with the generator's proposals and the
            discriminator's probabilities.
        progress: called with the stage, the rows done and all rows.

    Returns:
        Losses in nats, accuracies, F1, AUC, calibration, standard errors, and the passages.

    Raises:
        CheckpointError: no such checkpoint, or files that are damaged.
        DataError: shards that are gone, of another tokenizer, or without a held-out split.
        UserError: no run there, or an argument that cannot be.

    Examples:
        >>> evaluation = electra_dist.evaluate_run("runs/quickstart", passages=2)
        >>> evaluation.generator.loss, evaluation.discriminator.auc
    """
    from electra_dist.evaluate import evaluate_run as evaluate
    from electra_dist.runs.directory import RunDir

    return evaluate(
        RunDir.existing(run),
        step=step,
        rows=rows,
        shards=as_path(shards),
        device=device,
        passages=passages,
        progress=progress,
    )


def evaluate_pair(
    pair: str | Path,
    shards: str | Path,
    *,
    rows: int | Literal["all"] | None = None,
    device: DeviceName | None = None,
    passages: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Measure both networks of an export on held-out text, without their run.

    Args:
        pair: the folder that holds the exports as `generator` and `discriminator`.
        shards: shards of their tokenizer.
        rows: held-out rows, or `all`; by default as many as the validations of the run had.
        device: by default CUDA where there is one.
        passages: how many passages to return.
        progress: called with the stage, the rows done and all rows.

    Returns:
        What `evaluate_run` returns. On the same rows the numbers are those of the run; `step` is
        None where the export does not say it.

    Raises:
        DataError: shards that are gone, of another tokenizer, or without a held-out split.
        UserError: no whole pair there, or an argument that cannot be.

    Examples:
        >>> evaluation = electra_dist.evaluate_pair("pair", "shards")
        >>> evaluation.generator.f1_macro, evaluation.discriminator.auc
    """
    from electra_dist.evaluate import evaluate_pair as evaluate

    return evaluate(
        Path(pair),
        Path(shards),
        rows=rows,
        device=device,
        passages=passages,
        progress=progress,
    )


def export_run(
    run: str | Path,
    out: str | Path,
    network: Network = "discriminator",
    step: int | Literal["best"] | None = None,
    positions: int | None = None,
) -> ExportReport:
    """Write one network of a run as a model for `transformers`, checked against our own.

    Args:
        run: the run directory.
        out: the folder of the model: new, empty, or an earlier export of the same network.
        network: `discriminator` or `generator`.
        step: the checkpoint, or `best`; by default the newest that is whole.
        positions: tokens of the longest text that the model takes; by default the length of a row
            of the training, as later positions are not trained.

    Returns:
        What was exported, and what the check compared. `out` is whole or absent.

    Raises:
        CheckpointError: no such checkpoint, or files that are damaged.
        StorageError: `out` cannot be written.
        UserError: no run there, `out` holds something else, transformers is not installed, or the
            exported model computes something else.

    Examples:
        >>> electra_dist.export_run("runs/quickstart", "exported").parameters
    """
    from electra_dist.config import NETWORKS
    from electra_dist.export.run import export_run as export
    from electra_dist.runs.directory import RunDir

    if network not in NETWORKS:
        raise UserError(f"`network` {network!r}: expected one of {', '.join(NETWORKS)}")
    return export(RunDir.existing(run), Path(out), network, step, positions)
