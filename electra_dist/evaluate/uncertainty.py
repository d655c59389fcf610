"""How far the scores would move on other held-out rows: standard errors by the jackknife over
groups of rows.

Tokens of a row, and rows next to each other, come from the same documents and are not independent,
so that whole groups of neighbouring rows are left out in turn (delete-a-group jackknife: Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11). It says nothing of another seed of
training.

Letters: M masked positions, T real tokens, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.evaluate import scores
from electra_dist.evaluate.heldout import Observed

Int = npt.NDArray[np.integer[Any]]
#: Groups of rows, at most.
GROUPS = 20


@dataclass(frozen=True)
class StandardErrors:
    """Of the scores under the same names;
    None where they are undefined (a single row, one kind of token).
    """

    generator_loss: float | None
    generator_accuracy: float | None
    discriminator_loss: float | None
    discriminator_auc: float | None


def standard_errors(seen: Observed) -> StandardErrors:
    """From the tokens and the rows that they stand in."""
    rows = 1 + int(seen.token_rows.max())
    groups = min(GROUPS, rows)
    masked_g = seen.masked_rows * groups // rows
    token_g = seen.token_rows * groups // rows
    losses = scores.detection_losses(seen)
    return StandardErrors(
        generator_loss=jackknife(means_without(seen.nll, masked_g, groups)),
        generator_accuracy=jackknife(means_without(seen.rank == 0, masked_g, groups)),
        discriminator_loss=jackknife(means_without(losses, token_g, groups)),
        discriminator_auc=jackknife(auc_without(seen, token_g, groups)),
    )


def means_without(values: npt.NDArray[Any], group_of: Int, groups: int) -> list[float | None]:
    """Mean of `values` without those of each group in turn."""
    sums = np.bincount(group_of, values, groups)
    counts = np.bincount(group_of, minlength=groups)
    return [
        scores.ratio(sums.sum() - sums[g], int(counts.sum() - counts[g])) for g in range(groups)
    ]


def auc_without(seen: Observed, group_of: Int, groups: int) -> list[float | None]:
    """AUC of all tokens but those of each group in turn, from one count of the pairs that a
    replaced token wins.

    The pairs without group g are all pairs, less those with a replaced token of g, less those with
    an original token of g, and those with both were taken away twice.
    """
    replaced = seen.logits[seen.replaced]
    original = seen.logits[~seen.replaced]
    replaced_g = group_of[seen.replaced]
    original_g = group_of[~seen.replaced]
    won = np.bincount(replaced_g, _below(replaced, original), groups)
    lost = np.bincount(original_g, len(replaced) - _below(original, replaced), groups)
    found = []
    for g in range(groups):
        ours = replaced[replaced_g == g]
        theirs = original[original_g == g]
        wins = won.sum() - won[g] - lost[g] + _below(ours, theirs).sum()
        found.append(
            scores.ratio(wins, (len(replaced) - len(ours)) * (len(original) - len(theirs)))
        )
    return found


def _below(
    values: npt.NDArray[np.float32], others: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """How many of `others` lie below each of `values`, ties counting one half."""
    ordered = np.sort(others)
    lower, upper = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    out: npt.NDArray[np.float64] = (lower + upper) / 2
    return out


def jackknife(left_out: list[float | None]) -> float | None:
    """Standard error of a score from its values without each of G groups;
    None unless all are defined and G > 1.
    """
    known = [value for value in left_out if value is not None]
    if len(known) < max(2, len(left_out)):
        return None
    return float(np.sqrt((len(known) - 1) * np.var(known)))
