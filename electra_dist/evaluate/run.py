"""The `evaluate` command: from both networks and held-out shards to their scores.

Comes in: a `Subject`, the ranks, and what the command line chose. Goes out: an `Evaluation`, on
rank 0. Rows, masks and samples are those of the run's own validations, so that in fp32 `metrics`
equals what the trainer logged at that step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from electra_dist.checkpoint.networks import ChosenStep
from electra_dist.config import Config
from electra_dist.console import Progress, silent
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData, has_validation
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import HeldOut, held_out
from electra_dist.errors import DataError, UserError
from electra_dist.evaluate import scores
from electra_dist.evaluate.exported import ExportedPair
from electra_dist.evaluate.heldout import Networks
from electra_dist.evaluate.observer import Heard, Observer, count_rows
from electra_dist.evaluate.passages import ShownPassage, choose
from electra_dist.evaluate.ranks import Device, alone
from electra_dist.evaluate.scores import (
    Band,
    CalibrationBin,
    Convincing,
    DiscriminatorScores,
    GeneratorScores,
)
from electra_dist.evaluate.sources import SourceScores, source_scores
from electra_dist.evaluate.subject import Loaded, RunSubject, Subject
from electra_dist.evaluate.uncertainty import StandardErrors, standard_errors
from electra_dist.evaluate.vocabulary import Confusion
from electra_dist.files.tokenizers import TOKENIZER_FILE
from electra_dist.parallel.collectives import broadcast_object, together
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import Metrics

#: More rows than any split has.
_ALL = 2**62


@dataclass(frozen=True)
class Evaluation:
    """Scores of both networks on held-out rows; undefined ones are None.

    `run` is the folder of the run or of the exported pair, whose step may be unknown.

    `metrics` has the trainer's names and formulas (AUC from a histogram); all else is exact.
    `sources` has the scores by source of mixed data, and is empty for data that are not mixed.
    `own_shards` says whether the shards are those that the run was trained on, by fingerprint.
    """

    run: str
    step: int | None
    shards: str
    own_shards: bool
    device: str
    rows: int
    row_length: int
    seconds: float
    generator: GeneratorScores
    discriminator: DiscriminatorScores
    standard_errors: StandardErrors
    sources: tuple[SourceScores, ...]
    bands: tuple[Band, ...]
    convincing: tuple[Convincing, ...]
    calibration: tuple[CalibrationBin, ...]
    roc: tuple[tuple[float, float], ...]
    metrics: dict[str, float | None]
    passages: tuple[ShownPassage, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    rows (default: as the trainer), in this process.

    `shards` takes the place of the run's own; `device` is CUDA by default where there is one.
    Raises `UserError` for what cannot be: a step, shards, rows or a device that are not there,
    shards of another tokenizer.
    """
    return _alone(RunSubject(run, step), rows, shards, device, passages, progress)


def evaluate_pair(
    pair: Path,
    shards: Path,
    *,
    rows: int | Literal["all"] | None = None,
    device: Device | None = None,
    passages: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate the exported networks in `pair` on `rows` held-out rows of `shards` (default: as the
    trainer of their run), in this process.

    Raises `UserError` as `evaluate_run`, and where the folder holds no whole pair.
    """
    return _alone(ExportedPair.open(pair), rows, shards, device, passages, progress)


def _alone(
    subject: Subject,
    rows: int | Literal["all"] | None,
    shards: Path | None,
    device: Device | None,
    passages: int,
    progress: Progress,
) -> Evaluation:
    found = evaluate(
        subject,
        alone(device),
        rows=rows,
        shards=shards,
        passages=passages,
        progress=progress,
    )
    assert found is not None, "one process is rank 0"
    return found


def evaluate(
    subject: Subject,
    world: World,
    *,
    rows: int | Literal["all"] | None = None,
    shards: Path | None = None,
    passages: int = 0,
    progress: Progress = silent,
) -> Evaluation | None:
    """Evaluate `subject` with all ranks of `world`, on rank 0; None on the others. Every rank must
    call it, with the same arguments.

    The numbers are those of one process. Raises `UserError` on every rank for a mistake on any.
    """
    with together(world):
        if passages < 0:
            raise UserError(
                f"`passages` {passages}: give the number of passages to print, 0 or more"
            )
        config = _with_rows(subject.config, rows)
        subject.check()
    data = _open_on_all(subject, shards, world)
    row_format = RowFormat.of(config)
    step, networks = _load_on_all(subject, world)
    start = time.perf_counter()
    observer = Observer(networks, row_format, data, world, passages > 0)
    with together(world):
        parts = held_out(data, row_format, config.validation.rows)
        observer.observe(parts, progress)
    heard = observer.gathered()
    seconds = time.perf_counter() - start
    evaluation = None
    with together(world):
        if heard is not None:
            shown: tuple[ShownPassage, ...] = ()
            if passages:
                shown = choose(heard.passages, passages, subject.tokenizer)
            evaluation = scored(
                heard,
                Where(str(subject.path), step, world.device.type, seconds),
                data,
                parts,
                row_length=config.data.row_length,
                own_shards=data.fingerprint == subject.data_fingerprint,
                passages=shown,
            )
    return evaluation


class Where(NamedTuple):
    """Which networks were evaluated, on what, and how long they took; `run` is their folder."""

    run: str
    step: int | None
    device: str
    seconds: float


def scored(
    heard: Heard,
    where: Where,
    data: RunData,
    parts: Sequence[HeldOut],
    *,
    row_length: int,
    own_shards: bool,
    passages: tuple[ShownPassage, ...] = (),
) -> Evaluation:
    """The scores of what the networks said of the held-out rows `parts` of `data`; raises
    `DataError` where none of their tokens can be masked.
    """
    seen = heard.seen
    if not len(seen.targets):
        raise DataError(
            f"{data.label}: no token of the held-out rows can be masked; nothing to evaluate"
        )
    confusion = sum(heard.confusions, Confusion.empty(data.vocab_size))
    return Evaluation(
        run=where.run,
        step=where.step,
        shards=data.label,
        own_shards=own_shards,
        device=where.device,
        rows=count_rows(parts),
        row_length=row_length,
        seconds=where.seconds,
        generator=scores.generator_scores(seen, confusion, data.unigram_entropy()),
        discriminator=scores.discriminator_scores(seen),
        standard_errors=standard_errors(seen),
        sources=source_scores(data, parts, seen, heard.confusions),
        bands=scores.bands(seen, data.token_counts, data.special_tokens),
        convincing=scores.convincing(seen),
        calibration=scores.calibration(seen),
        roc=scores.roc(seen),
        metrics=_defined(heard.metrics),
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


def _open_on_all(subject: Subject, shards: Path | None, world: World) -> RunData:
    """The data, whose manifests rank 0 alone reads."""
    handle = None
    with together(world):
        if world.is_main:
            handle = _open_shards(subject, shards).to_handle()
    return RunData.from_handle(broadcast_object(handle, world))


def _open_shards(subject: Subject, shards: Path | None) -> RunData:
    """The data to evaluate on; they must be of the same tokenizer and hold something out."""
    try:
        if shards is not None:
            data = RunData.alone(Manifest.load(shards))
        else:
            data = subject.own_data()
    except DataError as error:
        raise DataError(f"{error}, or give others as `shards`") from error
    file = subject.tokenizer / TOKENIZER_FILE
    if not file.is_file():
        raise UserError(
            f"{file}: missing; copy the folder `tokenizer` of the run's shards to"
            f" {subject.tokenizer}"
        )
    own = subject.tokenizer_fingerprint
    theirs = data.tokenizer_fingerprint
    if own != theirs:
        raise DataError(
            f"{data.label}: encoded with another tokenizer (fingerprint {theirs[:12]}) than"
            f" {file} ({own[:12]}); build shards with `electra-dist data build --tokenizer"
            f" {subject.tokenizer}`"
        )
    if not has_validation(data):
        raise DataError(
            f"{data.label}: no held-out split; build shards with a validation fraction above 0,"
            " and give them as `shards`"
        )
    return data


def _load_on_all(subject: Subject, world: World) -> Loaded:
    """The networks on the device of each rank; rank 0 chooses the step."""
    loaded: Loaded | None = None
    with together(world):
        if world.is_main:
            loaded = subject.load()
    step = broadcast_object(loaded and loaded.step, world)
    with together(world):
        if loaded is None:
            loaded = Loaded(step, subject.load_step(step))
    assert loaded is not None, "every rank has loaded"
    generator, discriminator = loaded.networks
    networks = Networks(generator.to(world.device), discriminator.to(world.device))
    return Loaded(loaded.step, networks)


def _defined(metrics: Metrics) -> dict[str, float | None]:
    """NaN as None."""
    return {name: value if value == value else None for name, value in metrics.items()}
