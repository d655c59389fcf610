"""What the seeds of one fine-tuning are together, on the held-out examples: the ensemble, and soups
of their weights.

Comes in: the kept weights of every seed. Goes out: scores for the report, and folders for `out`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.registry import TASKS
from electra_dist.finetune.report import FinetuneReport
from electra_dist.finetune.runners.runner import Outputs, TorchRunner
from electra_dist.finetune.seeds.callbacks import merit, scores_of
from electra_dist.finetune.seeds.one import Training
from electra_dist.finetune.seeds.ranks import DealtRunner
from electra_dist.finetune.seeds.soup import greedy, mean_of
from electra_dist.finetune.seeds.weights import write_marker, write_model
from electra_dist.finetune.seeds.work import Work

#: Folder of the greedy soup in `out`.
SOUP = "soup"


class Together:
    """The seeds of one fine-tuning; all ranks make it."""

    def __init__(
        self, training: Training, work: Work, source: ModelFolder, report: FinetuneReport
    ) -> None:
        self._training = training
        self._learner = training.learner
        self._work = work
        self._source = source
        self._report = report
        self._model = self._learner.new_model()
        runner = TorchRunner(self._model, training.tokenizer, training.device)
        self._runner = DealtRunner(runner, training.ranks)

    def scored(self) -> FinetuneReport:
        """The report with the scores of ensemble and soups."""
        every = list(self._report.seeds)
        best_first = sorted(every, key=lambda seed: -self._merit(self._report.seeds[seed]))
        soup = greedy(best_first, lambda seeds: self._merit(self._of_soup(seeds)))
        together = {
            "ensemble": self._of_ensemble(every),
            "greedy soup": self._of_soup(soup),
            "uniform soup": self._of_soup(every),
        }
        return replace(self._report, together=together, soup=tuple(soup))

    def write(self, folder: Path, marker: dict[str, Any], report: FinetuneReport) -> None:
        """A model folder for every seed, and one for the greedy soup; rank 0 alone."""
        for seed, scores in report.seeds.items():
            self._write_one(folder / f"seed-{seed}", [seed], scores, marker)
        scores = report.together["greedy soup"]
        extra = {"soup": list(report.soup)}
        self._write_one(folder / SOUP, report.soup, scores, marker | extra)

    def _write_one(
        self, folder: Path, seeds: Sequence[int], scores: Scores, marker: dict[str, Any]
    ) -> None:
        folder.mkdir()
        self._load(seeds)
        write_model(folder, self._model, self._source)
        self._learner.write_more(folder)
        write_marker(folder, self._learner.marker(scores) | marker)

    def _of_ensemble(self, seeds: Sequence[int]) -> Scores:
        several = [self._outputs([seed]) for seed in seeds]
        return scores_of(self._learner, self._mixed(several))

    def _of_soup(self, seeds: Sequence[int]) -> Scores:
        return scores_of(self._learner, self._outputs(seeds))

    def _outputs(self, seeds: Sequence[int]) -> Outputs:
        self._load(seeds)
        return self._runner(self._learner.held_out)

    def _load(self, seeds: Sequence[int]) -> None:
        """Give the model the mean of the weights of the seeds."""
        self._model.load_state_dict(mean_of([self._work.seed(seed).kept for seed in seeds]))

    def _mixed(self, several: Sequence[Outputs]) -> Outputs:
        """As a predictor of the task mixes them."""
        marker = self._learner.marker(self._report.seeds[self._report.kept])
        folder = ModelFolder(self._source.path, self._source.config, marker)
        predictor = TASKS[self._report.task].new_predictor(
            folder, self._training.tokenizer, self._runner
        )
        return predictor.mixed(several)

    def _merit(self, scores: Scores) -> float:
        return merit(self._learner, self._training.recipe, scores)
