"""The fused generator head in Triton."""

from __future__ import annotations

from torch import Tensor


def fused_head(
    hidden_mh: Tensor, weight_vh: Tensor, bias_v: Tensor, targets_m: Tensor, keys_m: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss (M,) fp32, correct (M,) bool and samples (M,) int64, as `head.masked_lm_head`."""
    raise NotImplementedError
