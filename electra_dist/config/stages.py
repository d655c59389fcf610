"""The ZeRO stages: where weights, gradients and moments lie on the ranks, and what follows from it.

Goes out: `STAGES`, one `Stage` per number that `zero.stage` can have. A plan computes from it, a
check refuses by it, and `electra_dist.zero` tells DeepSpeed by it. The stages are those of arXiv
1910.02054, section 5, as DeepSpeed 0.19 has them; tests/zero/test_stages.py compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from electra_dist.config.fields import PrecisionMode

#: whole: every rank holds all of it. shared: each rank holds its own part of it.
Placement = Literal["whole", "shared"]


@dataclass(frozen=True)
class Stage:
    """One ZeRO stage: how each kind of state lies on the ranks.

    number      as `zero.stage` has it
    weights     those that the forward reads, between two micro-batches
    gradients   as they accumulate from one micro-batch to the next
    moments     both moments of Adam, and in half precision the fp32 master weights
    """

    number: int
    weights: Placement
    gradients: Placement
    moments: Placement

    @property
    def shares_weights(self) -> bool:
        """Weights are gathered where a micro-batch needs them, and let go."""
        return self.weights == "shared"

    @property
    def shares_gradients(self) -> bool:
        """Each rank keeps its part of the gradients only."""
        return self.gradients == "shared"

    @property
    def shares_moments(self) -> bool:
        """DeepSpeed wraps AdamW, which then steps flat parts instead of the parameters."""
        return self.moments == "shared"

    # --- what the ranks send ----------------------------------------------------------------------

    @property
    def reduction(self) -> Literal["all-reduce", "reduce-scatter"]:
        """The collective that adds up the gradients.

        DeepSpeed sends whole gradients at stages 1 and 2 too, and a rank keeps its part of the sum.
        """
        if self.shares_weights:
            return "reduce-scatter"
        return "all-reduce"

    @property
    def reduces_every_micro_batch(self) -> bool:
        """Otherwise once per step: gradients that are shared out cannot wait for the last one."""
        return self.shares_gradients

    @property
    def gathers_weights(self) -> Literal["never", "per step", "per micro-batch"]:
        """When the ranks send each other weights.

        Where moments are shared out, each rank updates its part of the weights alone.
        """
        if self.shares_weights:
            return "per micro-batch"
        if self.shares_moments:
            return "per step"
        return "never"

    # --- what it can be combined with -------------------------------------------------------------

    @property
    def can_train_in_half_precision(self) -> bool:
        """DeepSpeed adds up fp32 gradients of bf16 or fp16 ones in its own optimizers alone."""
        return self.shares_moments

    @property
    def can_offload_optimizer(self) -> bool:
        """DeepSpeed offloads only the optimizer state that it shares out."""
        return self.shares_moments

    @property
    def can_offload_parameters(self) -> bool:
        """Whole weights are on every GPU."""
        return self.shares_weights

    @property
    def can_partition_twice(self) -> bool:
        """Whether `zero.hpz_partition_size` has an effect: a second copy within groups of ranks."""
        return self.shares_weights

    @property
    def can_replay_graphs(self) -> bool:
        """A CUDA graph reads weights where they lay when it was recorded; gathered ones move."""
        return not self.shares_weights

    def keeps_whole_fp32_gradients(self, mode: PrecisionMode, offload_optimizer: bool) -> bool:
        """Whether DeepSpeed takes its `BF16_Optimizer`, that of stage 1 in bf16 on the device.

        It keeps whole gradients in fp32 all the time, and those of the backward are added as they
        come. Its moments are shared out.
        """
        if not self.shares_moments or self.shares_gradients:
            return False
        return mode == "bf16" and not offload_optimizer


STAGES: dict[int, Stage] = {
    stage.number: stage
    for stage in (
        Stage(0, weights="whole", gradients="whole", moments="whole"),
        Stage(1, weights="whole", gradients="whole", moments="shared"),
        Stage(2, weights="whole", gradients="shared", moments="shared"),
        Stage(3, weights="shared", gradients="shared", moments="shared"),
    )
}
