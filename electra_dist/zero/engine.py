"""One DeepSpeed engine, as far as this package knows it."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from electra_dist.config import STAGES, Stage


class Engine(Protocol):
    """What this package uses of a `deepspeed.DeepSpeedEngine`."""

    module: nn.Module
    optimizer: Any
    enable_backward_allreduce: bool

    def __call__(self, *inputs: Any, **options: Any) -> Any: ...
    def backward(self, loss: Tensor) -> Tensor: ...
    def step(self) -> None: ...
    def train(self) -> None: ...
    def eval(self) -> None: ...
    def destroy(self) -> None: ...
    def zero_optimization_stage(self) -> int: ...
    def fp16_enabled(self) -> bool: ...
    def is_gradient_accumulation_boundary(self) -> bool: ...


def stage_of(engine: Engine) -> Stage:
    """The ZeRO stage that DeepSpeed has built this engine at."""
    return STAGES[engine.zero_optimization_stage()]
