"""An `Evaluation` as a picture of four panels: ROC, calibration, probabilities, generator loss by
frequency.

Comes in: the evaluation. Goes out: a PNG, whole or not at all. Needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from electra_dist.evaluate.run import Evaluation
from electra_dist.evaluate.scores import CALIBRATION_BINS
from electra_dist.files.pictures import pyplot, save_picture

_ORIGINAL = "tab:blue"
_REPLACED = "tab:orange"


def plot_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Draw the four panels into the PNG `out`;
    what was there is replaced only by a whole picture.
    """
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 8.5), constrained_layout=True)
    for axis, draw in zip(axes.flat, (_roc, _calibration, _probabilities, _bands), strict=True):
        draw(axis, evaluation)
        axis.grid(alpha=0.3)
    figure.suptitle(
        f"{evaluation.run}, step {evaluation.step:,}: {evaluation.rows:,} held-out rows"
    )
    save_picture(figure, out)


def _roc(axis: Any, evaluation: Evaluation) -> None:
    scores = evaluation.discriminator
    if evaluation.roc:
        axis.plot(*zip(*evaluation.roc, strict=True), label=f"discriminator, AUC {scores.auc:.3f}")
    axis.plot([0, 1], [0, 1], linestyle="--", color="grey", label="chance")
    axis.set(title="ROC", xlabel="original tokens called replaced", ylabel="replaced tokens found")
    axis.legend(loc="lower right")


def _calibration(axis: Any, evaluation: Evaluation) -> None:
    used = [b for b in evaluation.calibration if b.tokens]
    most = max(b.tokens for b in used)
    axis.plot([0, 1], [0, 1], linestyle="--", color="grey", label="calibrated")
    across = [b.mean_probability for b in used]
    up = [b.replaced_fraction for b in used]
    axis.plot(across, up, color=_REPLACED, alpha=0.6)
    sizes = [12 + 150 * (b.tokens / most) ** 0.5 for b in used]
    axis.scatter(across, up, sizes, color=_REPLACED, label="bins, larger with more tokens")
    error = evaluation.discriminator.expected_calibration_error
    axis.set(
        title=f"calibration, expected error {error:.3f}",
        xlabel="the discriminator's probability of `replaced`",
        ylabel="tokens that are replaced",
    )
    axis.legend(loc="upper left")


def _probabilities(axis: Any, evaluation: Evaluation) -> None:
    bins = evaluation.calibration
    originals = [b.tokens - b.replaced for b in bins]
    counts = {
        "original": (originals, _ORIGINAL),
        "replaced": ([b.replaced for b in bins], _REPLACED),
    }
    for label, (values, color) in counts.items():
        shares = [value / max(1, sum(values)) for value in values]
        axis.bar(
            [b.low for b in bins],
            shares,
            1 / CALIBRATION_BINS,
            align="edge",
            alpha=0.5,
            color=color,
            label=label,
        )
    axis.set(
        title="what the discriminator says of tokens of each kind",
        xlabel="the discriminator's probability of `replaced`",
        ylabel="share of the tokens of that kind (log)",
        yscale="log",
    )
    axis.legend()


def _bands(axis: Any, evaluation: Evaluation) -> None:
    used = [band for band in evaluation.bands if band.loss is not None and band.first is not None]
    names = [band.name for band in used]
    bars = axis.bar(
        names, [band.loss for band in used], color=_ORIGINAL, alpha=0.6, label="generator"
    )
    axis.bar_label(
        bars, [f"{band.masked_tokens:,}\ntokens" for band in used], label_type="center", fontsize=8
    )
    axis.plot(names, [band.unigram_loss for band in used], "kx", label="frequencies alone")
    axis.axhline(evaluation.generator.loss, color=_ORIGINAL, label="generator, all masked tokens")
    axis.axhline(
        evaluation.generator.unigram_entropy, linestyle="--", color="grey", label="unigram entropy"
    )
    axis.set(
        title="generator loss by frequency",
        xlabel="frequency rank of the masked token in the training split",
        ylabel="nats per masked token",
    )
    axis.legend(loc="upper left", fontsize=8)
