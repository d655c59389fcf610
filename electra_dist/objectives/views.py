"""What an objective computes from: views of one micro-batch.

Letters: B rows, L row length, P masked slots a row, M = B x P.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Filled(NamedTuple):
    """What the generator hands to the loss of its objectives, inside its forward.

    nll_m      (M,) fp32, negative log-likelihood of the original token, with gradient
    weights_m  (M,) fp32, 0 for unused slots
    """

    nll_m: Tensor
    weights_m: Tensor


class Judged(NamedTuple):
    """What the discriminator hands to the loss of its objectives, inside its forward.

    logits_bl    (B, L) fp32, with gradient; above 0 means "replaced"
    replaced_bl  (B, L) fp32, 1 where the token is not the original one
    real_bl      (B, L) bool, false on padding
    """

    logits_bl: Tensor
    replaced_bl: Tensor
    real_bl: Tensor


class Seen(NamedTuple):
    """What both networks gave, without gradient, for sums that metrics are made of.

    correct      () fp32, used slots whose most likely token is the original one
    in_top5      () fp32, used slots whose original token is among the five most likely ones
    logits_bl, replaced_bl, real_bl  as in `Judged`
    """

    correct: Tensor
    in_top5: Tensor
    logits_bl: Tensor
    replaced_bl: Tensor
    real_bl: Tensor
