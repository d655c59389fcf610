"""What came of a fine-tuning: numbers for programs, a table, and the model card."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from electra_dist.console import human_seconds
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.registry import TASKS


@dataclass(frozen=True)
class FinetuneReport:
    """What came of it.

    seeds     held-out scores of each seed, at the epoch whose weights are kept
    epochs    after how many epochs that is; empty without held-out examples
    kept      the seed whose model is in `out`
    simple    scores of what needs no model: the most frequent class, the mean
    together  scores of what several seeds are together: ensemble, soups; empty where not asked for
    soup      seeds in the greedy soup
    clean     what is done to each text first
    """

    out: Path
    task: str
    model: str
    examples: dict[str, int]
    recipe: Recipe
    main_score: str
    seeds: dict[int, Scores]
    kept: int
    seconds: float
    simple: Scores
    epochs: dict[int, float] = field(default_factory=dict)
    together: dict[str, Scores] = field(default_factory=dict)
    soup: tuple[int, ...] = ()
    clean: tuple[str, ...] = ()

    @property
    def median(self) -> Scores:
        """Median of each score over the seeds."""
        every = list(self.seeds.values())
        names = [name for name in every[0] if all(name in scores for scores in every)]
        return {name: statistics.median(scores[name] for scores in every) for name in names}

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out), "median": self.median}

    @property
    def title(self) -> str:
        """Which epoch the scores are of, in words."""
        if self.recipe.keep == "last":
            return "held out, after the last epoch"
        return "held out, after the best epoch (chosen on these examples: a little too high)"

    def columns(self) -> list[str]:
        """Names of the columns of `rows`, after that of the score."""
        names = []
        for seed in self.seeds:
            name = f"seed {seed}"
            if self.recipe.keep == "best" and seed in self.epochs:
                name += f", epoch {self.epochs[seed]:g}"
            names.append(name)
        return [*names, "median", *self.together, "no model"]

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of a table: score, one column per seed, the median, seeds together, no model."""
        every = list(self.seeds.values())
        others = [*self.together.values(), self.simple]
        return [
            (name, *_cells(name, every), f"{middle:.4f}", *_cells(name, others))
            for name, middle in self.median.items()
        ]

    def card(self, encoder: str) -> str:
        """A short model card; `encoder` is the name of what was fine-tuned."""
        task = TASKS[self.task]
        lines = [
            "---",
            f"library_name: {task.library}",
            *([f"pipeline_tag: {task.pipeline}"] if task.pipeline else []),
            "tags: [electra]",
            "---",
            "",
            f"# {self.task}, fine-tuned from {encoder}",
            "",
            f"Examples: {', '.join(f'{count:,} {name}' for name, count in self.examples.items())}."
            f" {self.recipe.epochs:g} epochs, batches of {self.recipe.batch}, learning rate"
            f" {self.recipe.lr:g}, layer decay {self.recipe.layer_decay:g},"
            f" {human_seconds(self.seconds)}.",
            "",
        ]
        if self.clean:
            lines += [
                f"Texts are cleaned first ({', '.join(self.clean)}): `electra-dist predict` does"
                " it, a pipeline of transformers does not.",
                "",
            ]
        if self.median:
            lines += [f"{self.title[0].upper()}{self.title[1:]}. This is seed {self.kept}.", ""]
            columns = self.columns()
            lines += [
                "| | " + " | ".join(columns) + " |",
                "|---|" + "---:|" * len(columns),
            ]
            lines += ["| " + " | ".join(row) + " |" for row in self.rows()]
        return "\n".join(lines) + "\n"


def _cells(name: str, every: Sequence[Scores]) -> list[str]:
    """The score of each, empty where it has none."""
    found = []
    for scores in every:
        if name in scores:
            found.append(f"{scores[name]:.4f}")
        else:
            found.append("")
    return found
