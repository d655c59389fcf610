"""The full evaluation during training, on the ranks that train: `validation.evaluate_every`.

Comes in: the micro-batches of a validation, as both engines have answered them on every rank. Goes
out: `RUN/evaluations/step-00001000.json`, the content of `electra-dist evaluate --json`, a picture
next to it, and the headline numbers for metrics.jsonl. The weights are those of the engines, in the
precision of training: nothing is copied or gathered for it.
"""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from electra_dist.config import Config
from electra_dist.console import warn
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import held_out
from electra_dist.errors import UserError
from electra_dist.evaluate.heldout import Observed, observe
from electra_dist.evaluate.plot import plot_evaluation
from electra_dist.evaluate.run import Evaluation, Where, scored
from electra_dist.files.writing import reason, write_json
from electra_dist.parallel.collectives import broadcast_object, gather_arrays, together
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.evaluations import (
    HEADLINES,
    evaluation_file,
    evaluation_picture,
    evaluations_folder,
)
from electra_dist.runs.metrics import Metrics
from electra_dist.train.step import Forwarded

#: What the scores and the picture need beyond training itself, and the extra that has it.
_PACKAGES = {"sklearn": "hf", "matplotlib": "train"}


class EvaluatorInTraining:
    """Makes the evaluations of a run; an `electra_dist.train.heldout.evaluator.Evaluator`."""

    def check(self) -> None:
        """Raise `UserError` where a package is missing."""
        for package, extra in _PACKAGES.items():
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"validation.evaluate_every: needs {package}, which is not installed here; pip"
                    f" install 'electra-dist[{extra}]', or set validation.evaluate_every=null"
                )

    def begin(self, config: Config, data: RunData, world: World) -> EvaluationInTraining:
        """An evaluation on the rows of the validations of `config`."""
        return EvaluationInTraining(config, data, world)


class EvaluationInTraining:
    """One evaluation, on one rank."""

    def __init__(self, config: Config, data: RunData, world: World) -> None:
        self._config = config
        self._data = data
        self._world = world
        self._run = RunDir(config.run.path)
        self._parts: list[Observed] = []
        self._start = time.perf_counter()

    def see(self, rows_b: npt.NDArray[np.int64], forwarded: Forwarded) -> None:
        """Take in a micro-batch, whose rows have the numbers `rows_b` (B,)."""
        self._parts.append(observe(forwarded, rows_b))

    def finish(self, step: int, losses: Metrics) -> Metrics:
        """Gather, score and write; returns the headline numbers. Every rank must call it."""
        seen = _gathered(Observed.joined(self._parts), self._world)
        headlines: Metrics = {}
        with together(self._world):
            if seen is not None and len(seen.targets):
                evaluation = self._scored(seen, step, losses)
                self._write(evaluation)
                headlines = headlines_of(evaluation)
            elif seen is not None:
                warn(f"step {step}: no held-out token can be masked; nothing to evaluate")
        found: Metrics = broadcast_object(headlines, self._world)
        return found

    def _scored(self, seen: Observed, step: int, losses: Metrics) -> Evaluation:
        seconds = time.perf_counter() - self._start
        return scored(
            seen,
            Where(str(self._run.path), step, str(self._world.device), seconds),
            self._data,
            held_out(self._data, RowFormat.of(self._config), self._config.validation.rows),
            row_length=self._config.data.row_length,
            own_shards=True,
            metrics=losses,
        )

    def _write(self, evaluation: Evaluation) -> None:
        """Training goes on where a file cannot be written."""
        step = evaluation.step
        path = evaluation_file(self._run, step)
        try:
            evaluations_folder(self._run).mkdir(exist_ok=True)
            write_json(path, evaluation.to_dict() | {"plot": None})
            plot_evaluation(evaluation, evaluation_picture(self._run, step))
        except OSError as error:
            warn(f"{path}: the evaluation cannot be written: {reason(error)}")
        except UserError as error:
            warn(f"{path}: the evaluation cannot be written: {error}")


def headlines_of(evaluation: Evaluation) -> Metrics:
    """The headline numbers as metrics.jsonl has them; NaN where one is undefined."""
    content = evaluation.to_dict()
    found: Metrics = {}
    for (network, name), metric in HEADLINES.items():
        value = content[network][name]
        if value is None:
            value = math.nan
        found[metric.name] = value
    return found


def _gathered(own: Observed, world: World) -> Observed | None:
    """What all ranks have seen, in the order of the rows, on rank 0: the same arrays whatever the
    world size. None on the other ranks.
    """
    arrays = [getattr(own, field.name) for field in fields(Observed)]
    ranks = gather_arrays(arrays, world)
    if ranks is None:
        return None
    whole = Observed.joined([Observed(*rank) for rank in ranks])
    return whole.by_row()
