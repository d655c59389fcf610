"""The generator's output layer for `kernels.py`: loss and a sampled token of every masked position,
several ways.

Comes in: a case (masked positions, embedding size, vocabulary). Goes out: seconds forward, forward
and backward, peak memory above the inputs; and the error of the loss against fp32 on some
positions.

Letters: M masked positions, E embedding size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from attempts import Figures
from attention_cases import FORWARD_AND_BACKWARD, timed
from torch import Tensor
from torch.nn import functional as F

from electra_dist.errors import UserError
from electra_dist.measure.tensor_memory import TensorMemory
from electra_dist.model import kernels
from electra_dist.model.head import masked_lm_head

_CHECKED = 64


class HeadCase(NamedTuple):
    """M, E and V."""

    positions: int
    embedding: int
    vocabulary: int

    def __str__(self) -> str:
        return f"vocabulary {self.vocabulary}"


class Inputs(NamedTuple):
    """hidden (M, E), weight (V, E), bias (V,) with gradient; targets and keys (M,)."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    targets: Tensor
    keys: Tensor


#: Losses (M,) fp32 and sampled tokens (M,).
Head = Callable[[Inputs], tuple[Tensor, Tensor]]


def make_inputs(case: HeadCase, device: torch.device, dtype: torch.dtype) -> Inputs:
    generator = torch.Generator(device=device).manual_seed(0)
    m, e, v = case
    hidden = torch.randn(m, e, generator=generator, device=device).to(dtype)
    weight = (0.02 * torch.randn(v, e, generator=generator, device=device)).to(dtype)
    return Inputs(
        hidden.requires_grad_(),
        weight.requires_grad_(),
        torch.zeros(v, device=device, dtype=dtype).requires_grad_(),
        torch.randint(v, (m,), generator=generator, device=device),
        torch.randint(-(2**62), 2**62, (m,), generator=generator, device=device),
    )


def ours(backend: str, inputs: Inputs) -> Head:
    """A backend of `electra_dist.model.head`, refused where it cannot run."""
    if backend == "triton":
        reason = kernels.available(inputs.hidden.device, inputs.hidden.dtype)
    else:
        reason = None
    if reason is not None:
        raise UserError(f"cannot run here: {reason}")

    def head(given: Inputs) -> tuple[Tensor, Tensor]:
        out = masked_lm_head(*given, backend=backend)
        return out.nll_m, out.samples_m

    return head


def plain(given: Inputs) -> tuple[Tensor, Tensor]:
    """What one writes with PyTorch: all logits, cross-entropy, softmax, multinomial;
    loss and softmax in fp32.
    """
    logits = F.linear(given.hidden, given.weight, given.bias).float()
    nll = F.cross_entropy(logits, given.targets, reduction="none")
    with torch.no_grad():
        samples = torch.multinomial(logits.softmax(dim=-1), 1).squeeze(1)
    return nll, samples


#: Name in the table -> how to make it.
HEADS: dict[str, Callable[[Inputs], Head]] = {
    "ours (triton)": lambda inputs: ours("triton", inputs),
    "ours (chunked)": lambda inputs: ours("chunked", inputs),
    "linear, loss, multinomial": lambda inputs: plain,
    "the same, compiled": lambda inputs: torch.compile(plain, dynamic=False),
}


def measure_head(
    name: str, case: HeadCase, device: torch.device, rate: float, run_seconds: float
) -> Figures:
    """Figures of one implementation; raises `UserError` where it cannot run."""
    inputs = make_inputs(case, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    head = HEADS[name](inputs)
    grad = torch.ones(case.positions, device=device)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(head(inputs)[0], inputs[:3], grad)

    both()  # whatever compiles does it here, and not in the memory's measurement
    with TensorMemory(device) as memory:
        both()
    seconds = {
        "forward_seconds": timed(lambda: head(inputs), run_seconds),
        "forward_backward_seconds": timed(both, run_seconds),
    }
    achieved = FORWARD_AND_BACKWARD * 2.0 * case.positions * case.embedding * case.vocabulary
    achieved /= seconds["forward_backward_seconds"]
    figures = {
        "peak_bytes": memory.peak_bytes,
        "flops_per_s": achieved,
        "utilisation": achieved / rate,
    }
    return seconds | figures | {"error": relative_error(head(inputs)[0], inputs)}


@torch.no_grad()
def relative_error(nll: Tensor, inputs: Inputs) -> float:
    """Of the losses of the first positions, against fp32."""
    logits = F.linear(inputs.hidden[:_CHECKED].float(), inputs.weight.float(), inputs.bias.float())
    expected = F.cross_entropy(logits, inputs.targets[:_CHECKED], reduction="none")
    return float((nll[:_CHECKED] - expected).norm() / expected.norm())
