"""The generator's head fused, in Triton: loss, accuracy and sampled token in one pass over the
vocabulary.

Forward. One program takes a block of masked positions and a split of the vocabulary, and walks over
its tiles of 128 entries: product, online log-sum-exp, the target's logit, how many
entries are above it, and the tile-Gumbel race (DESIGN D2b; the same integers as `sampling.py`).
Whenever a tile takes the lead for a position
(about ln(number of tiles) times), its 128 logits are kept; a second small kernel merges the splits
and draws inside the winner. Memory: splits x M x 128, never M x V.

Backward. A kernel recomputes the softmax of a chunk of the vocabulary from the log-sum-exp and
writes the gradient of its logits, in the type of the inputs, into a bounded buffer; the vendor's
matrix products take it from there. The alternative, accumulating both gradients inside one kernel
(arXiv 2411.09009), needs atomic additions to M x E and V x E; this way is deterministic, and the
two large products run at the library's speed.

Both are registered custom operators with shape functions: `torch.compile(fullgraph=True)` passes
over them.

Letters: M masked positions, E embedding size, V vocabulary, C entries of a chunk of it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from electra_dist.model import sampling
from electra_dist.model.kernels import LARGE_SHARED_MEMORY, LARGEST_GRID_Y, available, head_kernels


class Config(NamedTuple):
    """Positions and embedding entries of a block, warps, pipeline stages."""

    block_m: int
    block_e: int
    warps: int
    stages: int


#: For half precision; replace an entry to try another.
#: Small embeddings stay in registers over the whole pass.
SMALL_EMBEDDING = 128
CONFIGS: dict[tuple[str, str], Config] = {
    ("forward", "small"): Config(64, 128, 4, 2),
    ("forward", "large"): Config(128, 64, 8, 4),
    ("backward", "small"): Config(128, 128, 8, 2),
    ("backward", "large"): Config(128, 64, 8, 4),
}
#: fp32 multiplies without tensor cores (exactly): small blocks.
FP32_CONFIG = Config(32, 32, 8, 2)
#: Elements of the buffer for the gradient of a chunk of logits.
GRAD_LOGITS = 2**25
#: Programs a multiprocessor that the splits of the vocabulary aim at, and the most splits.
PROGRAMS_PER_PROCESSOR = 4
MOST_SPLITS = 32
_BACKWARD_ENTRIES = 128
_FINISH_POSITIONS = 16
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def fused_head(
    hidden_mh: Tensor,
    weight_vh: Tensor,
    bias_v: Tensor,
    targets_m: Tensor,
    keys_m: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of `head.HeadOutput`.

    Raises:
        ValueError: shapes or types do not fit, or the kernels cannot run here.
    """
    _check(hidden_mh, weight_vh, bias_v, targets_m, keys_m)
    sampling.check_temperature(temperature)
    nll_m, correct_m, in_top5_m, samples_m, _ = _forward_op(
        hidden_mh, weight_vh, bias_v, targets_m, keys_m, temperature
    )
    return nll_m, correct_m, in_top5_m, samples_m


def _check(
    hidden_mh: Tensor, weight_vh: Tensor, bias_v: Tensor, targets_m: Tensor, keys_m: Tensor
) -> None:
    rows = hidden_mh.shape[0]
    size = weight_vh.shape[1]
    entries = weight_vh.shape[0]
    shapes = [tuple(x.shape) for x in (hidden_mh, bias_v, targets_m, keys_m)]
    if shapes != [(rows, size), (entries,), (rows,), (rows,)]:
        raise ValueError(
            f"fused_head: hidden, bias, targets, keys have shapes {shapes}, weight"
            f" {(entries, size)}"
        )
    if hidden_mh.dtype not in _DTYPES or hidden_mh.dtype != weight_vh.dtype:
        raise ValueError(
            f"fused_head: hidden is {hidden_mh.dtype}, weight {weight_vh.dtype}; expected one of"
            " fp32, fp16, bf16"
        )
    if keys_m.dtype != torch.int64:
        raise ValueError(f"fused_head: keys are {keys_m.dtype}, expected int64")
    reason = available(hidden_mh.device, hidden_mh.dtype)
    if reason is not None:
        raise ValueError(f"fused_head: {reason}")


@torch.library.custom_op("electra_dist::fused_head", mutates_args=())
def _forward_op(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, keys: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss, correct, in the top five, samples and log-sum-exp, each (M,)."""
    rows = hidden.shape[0]
    vocabulary = weight.shape[0]
    nll, lse = (torch.empty(rows, dtype=torch.float32, device=hidden.device) for _ in range(2))
    correct, in_top5 = (torch.empty(rows, dtype=torch.int8, device=hidden.device) for _ in range(2))
    samples = torch.empty(rows, dtype=torch.int64, device=hidden.device)
    if rows == 0:
        return nll, correct.bool(), in_top5.bool(), samples, lse
    hidden = _unit_stride(hidden)
    weight = _unit_stride(weight)
    config, launch = _launch("forward", hidden)
    blocks = triton.cdiv(rows, config.block_m)
    tiles = triton.cdiv(vocabulary, sampling.TILE)
    tiles_per_split = triton.cdiv(tiles, _splits(blocks, tiles, hidden.device))
    splits = triton.cdiv(tiles, tiles_per_split)
    best = torch.empty((4, splits, rows), dtype=torch.float32, device=hidden.device)
    best_tile, larger = torch.empty((2, splits, rows), dtype=torch.int32, device=hidden.device)
    tile_logits = torch.empty(
        (splits, rows, sampling.TILE), dtype=torch.float32, device=hidden.device
    )
    head_kernels.forward_kernel[(blocks, splits)](
        hidden, weight, bias, targets, keys, *best, best_tile, larger, tile_logits, rows,
        vocabulary, tiles_per_split,
        1.0 / temperature, hidden.stride(0), weight.stride(0), tempered=temperature != 1.0,
        **launch,
    )  # fmt: skip
    head_kernels.finish_kernel[(triton.cdiv(rows, _FINISH_POSITIONS),)](
        *best, best_tile, larger, tile_logits, keys, nll, lse, correct, in_top5, samples, rows,
        vocabulary, splits, 1.0 / temperature,
        block_m=_FINISH_POSITIONS, block_s=triton.next_power_of_2(splits), enable_fp_fusion=True,
    )  # fmt: skip
    return nll, correct.bool(), in_top5.bool(), samples, lse


@_forward_op.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, keys: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = hidden.shape[0]
    kinds = (torch.float32, torch.bool, torch.bool, torch.int64, torch.float32)
    nll, correct, in_top5, samples, lse = (hidden.new_empty((rows,), dtype=kind) for kind in kinds)
    return nll, correct, in_top5, samples, lse


@torch.library.custom_op("electra_dist::fused_head_backward", mutates_args=())
def _backward_op(
    grad_nll: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden (M, E), weight (V, E) and bias (V,)."""
    (rows, size) = hidden.shape
    vocabulary = weight.shape[0]
    if rows == 0:
        return torch.zeros_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
    hidden = _unit_stride(hidden)
    weight = _unit_stride(weight)
    grad_nll = grad_nll.float().contiguous()
    config, launch = _launch("backward", hidden)
    blocks = triton.cdiv(rows, config.block_m)
    entries = _chunk_entries(rows, vocabulary)
    buffer = torch.empty((rows, entries), dtype=hidden.dtype, device=hidden.device)
    bias_parts = torch.empty((blocks, vocabulary), dtype=torch.float32, device=hidden.device)
    grad_hidden = torch.zeros((rows, size), dtype=torch.float32, device=hidden.device)
    grad_weight = torch.empty((vocabulary, size), dtype=weight.dtype, device=weight.device)
    for start in range(0, vocabulary, entries):
        stop = min(start + entries, vocabulary)
        head_kernels.grad_logits_kernel[(blocks, triton.cdiv(stop - start, _BACKWARD_ENTRIES))](
            hidden, weight, bias, targets, lse, grad_nll, buffer, bias_parts[:, start:], rows,
            stop, start,
            hidden.stride(0), weight.stride(0), entries, vocabulary, block_v=_BACKWARD_ENTRIES,
            **launch,
        )  # fmt: skip
        grad_logits = buffer[:, : stop - start]
        grad_hidden += _product_fp32(grad_logits, weight[start:stop])
        torch.mm(grad_logits.t(), hidden, out=grad_weight[start:stop])
    return grad_hidden.to(hidden.dtype), grad_weight, bias_parts.sum(dim=0).to(bias.dtype)


@_backward_op.register_fake
def _(
    grad_nll: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty(hidden.shape),
        weight.new_empty(weight.shape),
        bias.new_empty(bias.shape),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, bias, targets, *_ = inputs
    ctx.save_for_backward(hidden, weight, bias, targets, output[-1])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_nll: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_nll is None:
        return (None,) * 6
    return *_backward_op(grad_nll, *ctx.saved_tensors), None, None, None


torch.library.register_autograd(_forward_op, _backward, setup_context=_save_for_backward)


def config_for(
    kernel: str, size: int, dtype: torch.dtype, capability: tuple[int, int] | None
) -> Config:
    """The configuration of "forward" or "backward" on a CUDA device of `capability` (None:
    no CUDA).
    """
    if dtype == torch.float32:
        config = FP32_CONFIG
    else:
        config = CONFIGS[kernel, "small" if size <= SMALL_EMBEDDING else "large"]
        if capability not in (None, *LARGE_SHARED_MEMORY):
            config = config._replace(stages=min(config.stages, 2), block_e=min(config.block_e, 64))
    return config._replace(block_e=min(config.block_e, max(int(triton.next_power_of_2(size)), 16)))


def _launch(kernel: str, hidden: Tensor) -> tuple[Config, dict[str, Any]]:
    """The configuration of a kernel for `hidden`, and the keyword arguments of its launch."""
    if hidden.is_cuda:
        capability = torch.cuda.get_device_capability(hidden.device)
    else:
        capability = None
    config = config_for(kernel, hidden.shape[1], hidden.dtype, capability)
    return config, {
        "size": hidden.shape[1],
        "block_m": config.block_m,
        "block_e": config.block_e,
        "precision": "ieee",  # fp32 inputs are multiplied exactly, not in TF32
        "num_warps": config.warps,
        "num_stages": config.stages,
        "enable_fp_fusion": True,
    }


def _splits(blocks: int, tiles: int, device: torch.device) -> int:
    """Splits of the vocabulary, so that there are enough programs for the device."""
    wanted = -(-PROGRAMS_PER_PROCESSOR * _processors(device) // blocks)
    return max(1, min(wanted, MOST_SPLITS, tiles))


@lru_cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 1 for the interpreter."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 1


def _chunk_entries(rows: int, vocabulary: int) -> int:
    """Entries a chunk in backward:
    even chunks of whole tiles within the buffer's size and one launch.
    """
    most = min(max(GRAD_LOGITS // rows // sampling.TILE, 1), LARGEST_GRID_Y) * sampling.TILE
    chunks = -(-vocabulary // most)
    return -(-vocabulary // (chunks * sampling.TILE)) * sampling.TILE


def _product_fp32(first: Tensor, second: Tensor) -> Tensor:
    """The matrix product, returned as it was accumulated, in fp32."""
    if first.is_cuda and first.dtype != torch.float32:
        return torch.mm(first, second, out_dtype=torch.float32)
    return torch.mm(first, second)


def _unit_stride(x: Tensor) -> Tensor:
    """`x` with neighbouring elements of a row next to each other in memory."""
    if x.stride(-1) == 1:
        return x
    return x.contiguous()
