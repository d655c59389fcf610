"""The `evaluate` command: from a run directory and held-out shards to the scores of both networks.

Comes in: a run directory, and what the command line chose. Goes out: an `Evaluation`. Rows, masks
and samples are those of the run's own validations, so that in fp32 `metrics` equals what the
trainer logged at that step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from electra_dist import config as configuration
from electra_dist.batch import MicroBatch
from electra_dist.checkpoint.networks import ChosenStep, choose_step, load_whole
from electra_dist.config import Config
from electra_dist.data.shards.files import sha256_of_file
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData, has_validation, open_data
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import deal, validation_rows
from electra_dist.errors import DataError, UserError
from electra_dist.evaluate import scores
from electra_dist.evaluate.heldout import Networks, Observed, judge
from electra_dist.evaluate.passages import ShownPassage, choose
from electra_dist.evaluate.scores import (
    Band,
    CalibrationBin,
    Convincing,
    DiscriminatorScores,
    GeneratorScores,
)
from electra_dist.evaluate.uncertainty import StandardErrors, standard_errors
from electra_dist.model.inputs import to_device
from electra_dist.parallel.hardware import device_of_command
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import HELD_OUT, Metrics
from electra_dist.train.heldout.passages import Passage, passages_of
from electra_dist.train.window import Window

Device = Literal["cpu", "cuda"]
#: Called with the name of the stage, the rows done and all rows.
Progress = Callable[[str, int, int], None]
#: Rows among which the passages to read are chosen, at most.
_PASSAGE_ROWS = 512
#: More rows than any split has.
_ALL = 2**62


@dataclass(frozen=True)
class Evaluation:
    """Scores of both networks of a run on held-out rows; undefined ones are None.

    `metrics` has the trainer's names and formulas (AUC from a histogram); all else is exact.
    `own_shards` says whether the shards are those that the run was trained on, by fingerprint.
    """

    run: str
    step: int
    shards: str
    own_shards: bool
    device: str
    rows: int
    row_length: int
    seconds: float
    generator: GeneratorScores
    discriminator: DiscriminatorScores
    standard_errors: StandardErrors
    bands: tuple[Band, ...]
    convincing: tuple[Convincing, ...]
    calibration: tuple[CalibrationBin, ...]
    roc: tuple[tuple[float, float], ...]
    metrics: dict[str, float | None]
    passages: tuple[ShownPassage, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def silent(stage: str, done: int, total: int) -> None:
    """The default `Progress`: says nothing."""


def evaluate_run(
    run: RunDir,
    *,
    step: ChosenStep | None = None,
    rows: int | Literal["all"] | None = None,
    shards: Path | None = None,
    device: Device | None = None,
    passages: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate `run` at `step` (default: the newest whole one; `best`: the best) on `rows` held-out
    rows (default: as the trainer).

    `shards` takes the place of the run's own; `device` is CUDA by default where there is one.
    Raises `UserError` for what cannot be: a step, shards, rows or a device that are not there,
    shards of another tokenizer.
    """
    if passages < 0:
        raise UserError(f"`passages` {passages}: give the number of passages to print, 0 or more")
    config = _with_rows(configuration.load(run.config), rows)
    choose_step(run, step)  # before the shards are read
    chosen_device = device_of_command(device)
    data = _open_shards(run, config, shards)
    held_out = validation_rows(data, RowFormat.of(config), config.validation.rows)
    assert held_out is not None
    chosen_step, generator, discriminator = load_whole(run, config, step)
    networks = Networks(generator.to(chosen_device), discriminator.to(chosen_device))
    start = time.perf_counter()
    seen, window, found = _judge_all(
        networks,
        deal(held_out, RowFormat.of(config), data.special_tokens, 0, 1),
        len(held_out.keys),
        chosen_device,
        passages > 0,
        progress,
    )
    seconds = time.perf_counter() - start
    if not len(seen.targets):
        raise DataError(
            f"{data.label}: no token of the held-out rows can be masked; nothing to evaluate"
        )
    where = Where(str(run.path), chosen_step, str(chosen_device), seconds)
    return scored(
        seen,
        where,
        data,
        rows=len(held_out.keys),
        row_length=config.data.row_length,
        own_shards=data.fingerprint == run.read_facts().dataset_fingerprint,
        metrics=window.reduced(World()).losses(HELD_OUT),
        passages=choose(found, passages, run) if passages else (),
    )


class Where(NamedTuple):
    """Which networks were evaluated, on what, and how long they took."""

    run: str
    step: int
    device: str
    seconds: float


def scored(
    seen: Observed,
    where: Where,
    data: RunData,
    *,
    rows: int,
    row_length: int,
    own_shards: bool,
    metrics: Metrics,
    passages: tuple[ShownPassage, ...] = (),
) -> Evaluation:
    """The scores of what the networks said of `rows` held-out rows of `data`; `metrics` are the
    trainer's own.
    """
    return Evaluation(
        run=where.run,
        step=where.step,
        shards=data.label,
        own_shards=own_shards,
        device=where.device,
        rows=rows,
        row_length=row_length,
        seconds=where.seconds,
        generator=scores.generator_scores(seen, data.unigram_entropy()),
        discriminator=scores.discriminator_scores(seen),
        standard_errors=standard_errors(seen),
        bands=scores.bands(seen, data.token_counts, data.special_tokens),
        convincing=scores.convincing(seen),
        calibration=scores.calibration(seen),
        roc=scores.roc(seen),
        metrics=_defined(metrics),
        passages=passages,
    )


def _with_rows(config: Config, rows: int | Literal["all"] | None) -> Config:
    """The run's configuration with so many validation rows,
    and with the head that this machine can run.
    """
    if rows is not None and rows != "all" and rows < 1:
        raise UserError(f"`rows` {rows}: give a number of rows from 1 on, or `all`")
    if rows is None:
        wanted = config.validation.rows
    elif rows == "all":
        wanted = _ALL
    else:
        wanted = rows
    validation = config.validation.model_copy(update={"rows": wanted})
    return config.model_copy(update={"validation": validation})


def _open_shards(run: RunDir, config: Config, shards: Path | None) -> RunData:
    """The data to evaluate on;
    they must be of the run's tokenizer and hold something out.
    """
    try:
        if shards is not None:
            data = RunData.alone(Manifest.load(shards))
        else:
            data = open_data(config)
    except DataError as error:
        raise DataError(f"{error}, or give others as `shards`") from error
    file = run.tokenizer / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{file}: missing; copy the folder `tokenizer` of the run's shards to {run.tokenizer}"
        )
    own = sha256_of_file(file)
    theirs = data.tokenizer_fingerprint
    if own != theirs:
        raise DataError(
            f"{data.label}: encoded with another tokenizer (fingerprint {theirs[:12]}) than the"
            f" run's, {file} ({own[:12]}); build shards with `electra-dist data build --tokenizer"
            f" {run.tokenizer}`"
        )
    if not has_validation(data):
        raise DataError(
            f"{data.label}: no held-out split; build shards with a validation fraction above 0,"
            " and give them as `shards`"
        )
    return data


def _judge_all(
    networks: Networks,
    batches: Iterable[MicroBatch],
    total: int,
    device: torch.device,
    readable: bool,
    progress: Progress,
) -> tuple[Observed, Window, list[Passage]]:
    """All `total` rows through both networks: tokens, the trainer's sums,
    and where `readable` passages of the first rows.
    """
    window = Window(device)
    parts = []
    found = []
    done = 0
    progress("held-out rows", done, total)
    for batch in batches:
        judged = judge(networks, to_device(batch, device), done)
        window.add(judged.totals, (batch,))
        parts.append(judged.observed)
        if readable and done < _PASSAGE_ROWS:
            found += passages_of(batch, judged.answers)
        done = min(done + len(batch.tokens), total)
        progress("held-out rows", done, total)
    return Observed.joined(parts), window, found


def _defined(metrics: Metrics) -> dict[str, float | None]:
    """NaN as None."""
    return {name: value if value == value else None for name, value in metrics.items()}
