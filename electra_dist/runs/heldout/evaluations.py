"""Full evaluations that were made during training: `RUN/evaluations/step-00001000.json`, with a
picture next to it.

Comes in: the content that `electra-dist evaluate --json` prints, and its headline numbers as rows
of metrics.jsonl have them. Goes out: the names of both. Needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files.reading import read_json
from electra_dist.objectives import Metric
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout import stepped

_EXACT = "on the held-out rows, exact; of a full evaluation"

#: Headline numbers of an evaluation, by their place in its content.
HEADLINES: dict[tuple[str, str], Metric] = {
    ("generator", "perplexity"): Metric(
        "evaluation/generator/perplexity", "", f"of the generator, {_EXACT}", ".1f", best="min"
    ),
    ("generator", "top5_accuracy"): Metric(
        "evaluation/generator/top5_accuracy",
        "fraction",
        f"masked tokens that are among the generator's five most probable, {_EXACT}",
        best="max",
    ),
    ("discriminator", "auc"): Metric(
        "evaluation/discriminator/auc",
        "probability",
        f"AUC of the discriminator {_EXACT}",
        best="max",
    ),
    ("discriminator", "average_precision"): Metric(
        "evaluation/discriminator/average_precision",
        "",
        f"area under its precision-recall curve, {_EXACT}",
        best="max",
    ),
    ("discriminator", "f1"): Metric(
        "evaluation/discriminator/f1", "", f"at probability 0.5, {_EXACT}", best="max"
    ),
    ("discriminator", "brier"): Metric(
        "evaluation/discriminator/brier",
        "",
        f"mean squared error of its probability, {_EXACT}",
        ".4f",
        best="min",
    ),
    ("discriminator", "expected_calibration_error"): Metric(
        "evaluation/discriminator/expected_calibration_error",
        "",
        f"mean distance of its probability and the frequency, {_EXACT}",
        best="min",
    ),
}


def evaluations_folder(run: RunDir) -> Path:
    """Where the files lie."""
    return run.path / "evaluations"


def evaluation_file(run: RunDir, step: int) -> Path:
    """The content of the evaluation after `step`."""
    return stepped.file_of(evaluations_folder(run), step)


def evaluation_picture(run: RunDir, step: int) -> Path:
    """Its picture."""
    return stepped.file_of(evaluations_folder(run), step, "png")


def evaluated_steps(run: RunDir) -> list[int]:
    """Steps that there is an evaluation of, ascending."""
    return stepped.steps_in(evaluations_folder(run))


def read_evaluation(run: RunDir, step: int) -> dict[str, Any]:
    """The content of an evaluation; raises `UserError` where it cannot be read or is none."""
    path = evaluation_file(run, step)
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an evaluation: {error}") from error
    if not isinstance(content, dict) or content.get("step") != step:
        raise UserError(f"{path}: holds no evaluation of step {step}")
    return content
