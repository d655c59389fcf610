"""How far the scores would move on other held-out rows: standard errors by the jackknife over groups of rows.

Tokens of a row, and rows next to each other, come from the same documents and are not independent, so that whole groups
of neighbouring rows are left out in turn (delete-a-group jackknife: Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 11). It says nothing of another seed of training.

Letters: M masked positions, N real tokens, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.evaluate import scores
from electra_dist.evaluate.heldout import Observed

#: Groups of rows, at most.
GROUPS = 20


@dataclass(frozen=True)
class StandardErrors:
    """Of the scores under the same names; None where they are undefined (a single row, one kind of token)."""

    generator_loss: float | None
    generator_accuracy: float | None
    discriminator_loss: float | None
    discriminator_auc: float | None


def standard_errors(seen: Observed) -> StandardErrors:
    """From the tokens and the rows that they stand in."""
    rows = 1 + int(seen.token_rows.max())
    groups = min(GROUPS, rows)
    masked_g, token_g = seen.masked_rows * groups // rows, seen.token_rows * groups // rows
    losses = scores.detection_losses(seen)
    areas = [scores.auc(seen.logits[token_g != g], seen.replaced[token_g != g]) for g in range(groups)]
    return StandardErrors(
        generator_loss=jackknife(means_without(seen.nll, masked_g, groups)),
        generator_accuracy=jackknife(means_without(seen.rank == 0, masked_g, groups)),
        discriminator_loss=jackknife(means_without(losses, token_g, groups)),
        discriminator_auc=jackknife(areas),
    )


def means_without(values: npt.NDArray[Any], group_of: npt.NDArray[np.integer[Any]], groups: int) -> list[float | None]:
    """Mean of `values` without those of each group in turn."""
    sums = np.bincount(group_of, values, groups)
    counts = np.bincount(group_of, minlength=groups)
    return [scores.ratio(sums.sum() - sums[g], int(counts.sum() - counts[g])) for g in range(groups)]


def jackknife(left_out: list[float | None]) -> float | None:
    """Standard error of a score from its values without each of G groups; None unless all are defined and G > 1."""
    known = [value for value in left_out if value is not None]
    if len(known) < max(2, len(left_out)):
        return None
    return float(np.sqrt((len(known) - 1) * np.var(known)))
