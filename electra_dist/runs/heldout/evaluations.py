"""Full evaluations that were made during training: `RUN/evaluations/step-00001000.json`, with a
picture next to it.

Comes in: the content that `electra-dist evaluate --json` prints, and its headline numbers as rows
of metrics.jsonl have them. Goes out: the names of both. Needs no torch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files.reading import read_json
from electra_dist.objectives import Metric, replaced_tokens
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout import stepped

_JACKKNIFE = "Efron and Tibshirani 1993, chapter 11"
_CLASSES = "Sokolova and Lapalme 2009, doi 10.1016/j.ipm.2009.03.002"
_TWENTY_ROWS = "jackknife over 20 groups of neighbouring rows"

#: Headline numbers of an evaluation, by their place in its content: what `validation/...` of the
#: same row has not.
HEADLINES: dict[tuple[str, str], Metric] = {
    ("generator", "f1_macro"): Metric(
        "evaluation/generator/f1_macro",
        "fraction",
        "F1 of the generator's most likely token, mean over the vocabulary",
        best="max",
        formula="mean of 2 tp / (2 tp + fp + fn) over the tokens that are an original or the most"
        " likely one",
        healthy="rises; far below `generator/accuracy` while rare tokens are not learned",
        source=_CLASSES,
    ),
    ("generator", "f1_weighted"): Metric(
        "evaluation/generator/f1_weighted",
        "fraction",
        "the same, each token weighted by how often it is the original",
        best="max",
        formula="sum over tokens of 2 tp / (2 tp + fp + fn) * (tp + fn) / masked positions",
        healthy="rises with `generator/accuracy`",
        source=_CLASSES,
    ),
    ("discriminator", "auc"): replace(
        replaced_tokens.AUC,
        name="evaluation/discriminator/auc",
        held_out=False,
        formula="as `discriminator/auc`, from the sorted logits instead of a histogram",
    ),
    ("discriminator", "average_precision"): Metric(
        "evaluation/discriminator/average_precision",
        "",
        "area under the precision-recall curve of the discriminator",
        best="max",
        formula="sum over thresholds of (recall - recall before) * precision",
        healthy="above `discriminator/replaced_fraction`, which chance gives",
        source="Davis and Goadrich 2006, doi 10.1145/1143844.1143874",
    ),
    ("discriminator", "expected_calibration_error"): replace(
        replaced_tokens.CALIBRATION_ERROR,
        name="evaluation/discriminator/calibration_error",
        held_out=False,
        formula="as `discriminator/calibration_error`, with 20 bins",
    ),
    ("standard_errors", "generator_loss"): Metric(
        "evaluation/generator/loss_standard_error",
        "nats per masked token",
        "of `validation/loss/generator`, on other held-out rows of the same kind",
        formula=_TWENTY_ROWS,
        healthy="small next to the differences that you compare",
        source=_JACKKNIFE,
    ),
    ("standard_errors", "discriminator_auc"): Metric(
        "evaluation/discriminator/auc_standard_error",
        "probability",
        "of `evaluation/discriminator/auc`, likewise",
        formula=_TWENTY_ROWS,
        healthy="small next to the differences that you compare",
        source=_JACKKNIFE,
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
