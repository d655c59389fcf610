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

import numpy as np
import numpy.typing as npt

from electra_dist.config import Config
from electra_dist.console import warn
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import held_out
from electra_dist.errors import UserError
from electra_dist.evaluate.heldout import Observed, likeliest_of, observe
from electra_dist.evaluate.observer import Heard, gather_confusion, gather_observed
from electra_dist.evaluate.plot import plot_evaluation
from electra_dist.evaluate.run import Evaluation, Where, scored
from electra_dist.evaluate.vocabulary import Confusion
from electra_dist.files.writing import reason, write_json
from electra_dist.parallel.collectives import broadcast_object, together
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
        self._rows = held_out(data, RowFormat.of(config), config.validation.rows)
        self._seen = [Observed.empty()]
        self._confusions = [Confusion.empty(data.vocab_size) for _ in self._rows]
        self._start = time.perf_counter()

    def see(self, rows_b: npt.NDArray[np.int64], forwarded: Forwarded) -> None:
        """Take in a micro-batch, whose rows have the numbers `rows_b` (B,)."""
        observed = observe(forwarded, rows_b)
        self._seen.append(observed)
        if len(observed.targets):
            part = self._part_of(int(observed.masked_rows[0]))
            self._confusions[part].add(observed.targets, likeliest_of(forwarded))

    def _part_of(self, row: int) -> int:
        """The number of the source that a row is of."""
        ends = np.cumsum([len(part.rows.keys) for part in self._rows])
        return int(np.searchsorted(ends, row, side="right"))

    def finish(self, step: int, losses: Metrics) -> Metrics:
        """Gather, score and write; returns the headline numbers. Every rank must call it."""
        seen = gather_observed(Observed.joined(self._seen), self._world)
        counted = [gather_confusion(confusion, self._world) for confusion in self._confusions]
        headlines: Metrics = {}
        with together(self._world):
            if seen is not None and len(seen.targets):
                confusions = [confusion for confusion in counted if confusion is not None]
                evaluation = self._scored(Heard(seen, confusions, losses, []), step)
                self._write(step, evaluation)
                headlines = headlines_of(evaluation)
            elif seen is not None:
                warn(f"step {step}: no held-out token can be masked; nothing to evaluate")
        found: Metrics = broadcast_object(headlines, self._world)
        return found

    def _scored(self, heard: Heard, step: int) -> Evaluation:
        seconds = time.perf_counter() - self._start
        return scored(
            heard,
            Where(str(self._run.path), step, str(self._world.device), seconds),
            self._data,
            self._rows,
            row_length=self._config.data.row_length,
            own_shards=True,
        )

    def _write(self, step: int, evaluation: Evaluation) -> None:
        """Training goes on where a file cannot be written."""
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
