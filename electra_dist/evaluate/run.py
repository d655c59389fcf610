"""The `evaluate` command: from a run directory and held-out shards to the scores of both networks.

Comes in: a run directory, and what the command line chose. Goes out: an `Evaluation`. Rows, masks
and samples are those of the run's own validations, so that in fp32 `metrics` equals what the
trainer logged at that step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from electra_dist import config as configuration
from electra_dist.batch import SpecialTokens
from electra_dist.checkpoint.networks import ChosenStep, choose_step, load_whole
from electra_dist.config import Config
from electra_dist.data.shards.files import sha256_of_file
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData, has_validation, open_data
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import HeldOut, deal, held_out
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
from electra_dist.evaluate.sources import SourceScores, source_scores
from electra_dist.evaluate.uncertainty import StandardErrors, standard_errors
from electra_dist.model.inputs import to_device
from electra_dist.objectives import objectives
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
    `sources` has the scores by source of mixed data, and is empty for data that are not mixed.
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
    sources: tuple[SourceScores, ...]
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
    row_format = RowFormat.of(config)
    parts = held_out(data, row_format, config.validation.rows)
    chosen_step, generator, discriminator = load_whole(run, config, step)
    networks = Networks(generator.to(chosen_device), discriminator.to(chosen_device))
    start = time.perf_counter()
    observer = _Observer(networks, row_format, data.special_tokens, chosen_device, passages > 0)
    observer.observe(parts, progress)
    seen = observer.observed()
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
        parts,
        row_length=config.data.row_length,
        own_shards=data.fingerprint == run.read_facts().dataset_fingerprint,
        metrics=observer.metrics(data.is_mixed),
        passages=choose(observer.passages, passages, run) if passages else (),
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
    parts: Sequence[HeldOut],
    *,
    row_length: int,
    own_shards: bool,
    metrics: Metrics,
    passages: tuple[ShownPassage, ...] = (),
) -> Evaluation:
    """The scores of what the networks said of the held-out rows `parts` of `data`; `metrics` are
    the trainer's own.
    """
    return Evaluation(
        run=where.run,
        step=where.step,
        shards=data.label,
        own_shards=own_shards,
        device=where.device,
        rows=_count(parts),
        row_length=row_length,
        seconds=where.seconds,
        generator=scores.generator_scores(seen, data.unigram_entropy()),
        discriminator=scores.discriminator_scores(seen),
        standard_errors=standard_errors(seen),
        sources=source_scores(data, parts, seen),
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


class _Observer:
    """Gives all rows to both networks, and keeps what they say: tokens, the trainer's sums, and
    where `readable` passages of the first rows.
    """

    def __init__(
        self,
        networks: Networks,
        row_format: RowFormat,
        specials: SpecialTokens,
        device: torch.device,
        readable: bool,
    ) -> None:
        self._networks = networks
        self._row_format = row_format
        self._specials = specials
        self._device = device
        self._readable = readable
        self._observed: list[Observed] = []
        self._whole = Window(device)
        self._of_sources: dict[str, Window] = {}
        self.passages: list[Passage] = []

    def observe(self, parts: Sequence[HeldOut], progress: Progress) -> None:
        """All rows of `parts`, source after source."""
        total = _count(parts)
        first = 0
        progress("held-out rows", 0, total)
        for part in parts:
            self._of_sources[part.source] = Window(self._device)
            end = first + len(part.rows.keys)
            for batch in deal(part.rows, self._row_format, self._specials, 0, 1):
                judged = judge(self._networks, to_device(batch, self._device), first)
                for window in (self._whole, self._of_sources[part.source]):
                    window.add(judged.totals, (batch,))
                self._observed.append(judged.observed)
                if self._readable and first < _PASSAGE_ROWS:
                    self.passages += passages_of(batch, judged.answers)
                first = min(first + len(batch.tokens), end)
                progress("held-out rows", first, total)

    def observed(self) -> Observed:
        """What was said of all rows."""
        return Observed.joined(self._observed)

    def metrics(self, by_source: bool) -> Metrics:
        """The metrics of a validation in training, `by_source` those of each source too."""
        found = self._whole.reduced(World()).losses(HELD_OUT)
        if by_source:
            for source, window in self._of_sources.items():
                losses = window.reduced(World()).losses()
                for objective in objectives():
                    loss = objective.loss
                    found[loss.name_held_out_of(source)] = losses[loss.name]
        return found


def _count(parts: Sequence[HeldOut]) -> int:
    return sum(len(part.rows.keys) for part in parts)


def _defined(metrics: Metrics) -> dict[str, float | None]:
    """NaN as None."""
    return {name: value if value == value else None for name, value in metrics.items()}
