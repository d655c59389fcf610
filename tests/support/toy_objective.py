"""A third objective, for tests: the discriminator's logits are to be small.

Its loss is the mean square of the logits over the *masked* count, which no other loss of the
discriminator is divided by.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from electra_dist.objectives import OBJECTIVES, Metric, Objective, Tally
from electra_dist.objectives.views import Judged, Seen

LOSS = Metric("loss/small_logits", "", "sum of squared logits for each masked token", best="min")
LARGEST = Metric("toy/sum_of_logits", "", "for each real token", held_out=True)


def loss_sum(judged: Judged) -> Tensor:
    """The squares over real tokens."""
    return (judged.logits_bl.square() * judged.real_bl).sum()


def _observe(seen: Seen) -> dict[str, Tensor]:
    return {
        "toy_logits": (seen.logits_bl * seen.real_bl).sum(),
        "toy_by_row": (seen.logits_bl * seen.real_bl).sum(dim=1)[:2],
    }


def _scores(tally: Tally) -> dict[Metric, float]:
    return {LARGEST: tally.values["toy_logits"] / tally.values["real_count"]}


SMALL_LOGITS = Objective(
    name="small logits",
    network="discriminator",
    count="masked_count",
    weight="optim.final_lr_fraction",  # any key that a test may set
    called="the toy's loss",
    choices=2,
    loss=LOSS,
    metrics=(LARGEST,),
    total="toy_loss_sum",
    sums={"toy_logits": (), "toy_by_row": (2,)},
    loss_sum=loss_sum,
    observe=_observe,
    scores=_scores,
)


@contextmanager
def registered() -> Iterator[None]:
    """Within it a step is trained with three objectives."""
    OBJECTIVES[SMALL_LOGITS.name] = SMALL_LOGITS
    try:
        yield
    finally:
        del OBJECTIVES[SMALL_LOGITS.name]
