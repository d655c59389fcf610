"""The generator's output layer on the masked positions: loss, accuracy and sampled token, in one of
three ways.

All three compute the same thing, and draw the same tokens for the same keys (`sampling.py`, DESIGN
D2b):

    torch    plain PyTorch, holds the whole (M, V) matrix; the reference
    chunked  passes over the vocabulary in chunks and recomputes them in backward; never holds (M,
             V). CPU and CUDA
    triton   the same in one fused kernel (`kernels/generator_head.py`); CUDA, meant for half
             precision

The product runs in the precision of its inputs; loss, softmax and sampling in fp32. All shapes are
static and nothing synchronises with the host. The backward by recomputation from the log-sum-exp
follows FlashAttention-2's idea (arXiv 2307.08691, section 3.1), applied to the cross-entropy.

Letters: M masked positions, E embedding size, V vocabulary, C entries of a chunk of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from electra_dist.errors import ConfigError, nearest
from electra_dist.model import kernels, sampling
from electra_dist.model.attention.backends import HALF_DTYPES

logger = logging.getLogger(__name__)

Backend = Literal["torch", "chunked", "triton"]
BACKENDS: tuple[Backend, ...] = ("torch", "chunked", "triton")

#: Logits that the chunked backend holds at a time: 4 MiB of fp32 on CPU (smaller ones cost time in
#: forward, larger ones gain little), larger products on a GPU.
_CHUNK_LOGITS_CPU = 2**20
_CHUNK_LOGITS_CUDA = 2**24
_SMALLEST_CHUNK = 256


class HeadOutput(NamedTuple):
    """What the head says of each masked position.

    nll_m      (M,) fp32   cross-entropy with the target; the only output with a gradient
    correct_m  (M,) bool   no entry has a larger logit than the target
    in_top5_m  (M,) bool   fewer than five entries have a larger logit than the target
    samples_m  (M,) int64  a token drawn from softmax(logits / temperature)
    """

    nll_m: Tensor
    correct_m: Tensor
    in_top5_m: Tensor
    samples_m: Tensor


def masked_lm_head(
    hidden_mh: Tensor,
    weight_vh: Tensor,
    bias_v: Tensor,
    targets_m: Tensor,
    keys_m: Tensor,
    temperature: float = 1.0,
    backend: Backend = "chunked",
) -> HeadOutput:
    """Loss, accuracy and sampled token of every masked position.

    Args:
        hidden_mh: (M, E) output of the prediction head's transform.
        weight_vh: (V, E) the word embeddings, same type as `hidden_mh`.
        bias_v: (V,) output bias.
        targets_m: (M,) original ids, int64 or int32.
        keys_m: (M,) int64 sampling keys.
        temperature: of the sampling only, above 0; the loss is at temperature 1.
        backend: what `choose_backend` gave for this device and type.

    Raises:
        ValueError: the temperature is not above 0.
    """
    sampling.check_temperature(temperature)
    targets_m = targets_m.long()
    if backend == "torch":
        return _plain_head(hidden_mh, weight_vh, bias_v, targets_m, keys_m, temperature)
    if backend == "triton":
        from electra_dist.model.kernels.generator_head import fused_head

        return HeadOutput(*fused_head(hidden_mh, weight_vh, bias_v, targets_m, keys_m, temperature))
    return HeadOutput(
        *_ChunkedHead.apply(hidden_mh, weight_vh, bias_v, targets_m, keys_m, temperature)
    )


def choose_backend(requested: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend that will run for hidden states of `dtype`.

    "auto" is triton on CUDA in half precision where it is installed, else chunked (in half
    precision on CUDA with a warning). In fp32 our kernel would not use the tensor cores, and cuBLAS
    is many times faster.

    Raises:
        ConfigError: `requested` is unknown, or cannot run on `device`.
    """
    if requested in ("torch", "chunked"):
        return cast(Backend, requested)
    if requested not in ("auto", "triton"):
        allowed = ("auto", *BACKENDS)
        raise ConfigError(
            f"model.generator_head = {requested!r}: expected one of {', '.join(allowed)}"
            + nearest(requested, allowed)
        )
    if requested == "auto" and (device.type != "cuda" or dtype not in HALF_DTYPES):
        return "chunked"
    reason = kernels.available(device, dtype)
    if reason is None:
        return "triton"
    if requested == "triton":
        raise ConfigError(f"model.generator_head = triton: {reason}; available here: auto, chunked")
    _warn_once(reason)
    return "chunked"


@lru_cache
def _warn_once(reason: str) -> None:
    logger.warning("generator head: chunked, slower than the fused kernel: %s", reason)


def _plain_head(
    hidden_mh: Tensor,
    weight_vh: Tensor,
    bias_v: Tensor,
    targets_m: Tensor,
    keys_m: Tensor,
    temperature: float,
) -> HeadOutput:
    logits_mv = F.linear(hidden_mh, weight_vh).float() + bias_v.float()
    nll_m = F.cross_entropy(logits_mv, targets_m, reduction="none")
    with torch.no_grad():
        target_m1 = logits_mv.gather(1, targets_m[:, None])
        larger_m = (logits_mv > target_m1).sum(dim=1)
        samples_m = sampling.sample_tokens(logits_mv, keys_m, temperature)
        return HeadOutput(nll_m, larger_m == 0, larger_m < kernels.TOP, samples_m)


class _ChunkedHead(torch.autograd.Function):
    """The head over chunks of the vocabulary;
    backward recomputes each chunk's softmax from the log-sum-exp.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_mh: Tensor,
        weight_vh: Tensor,
        bias_v: Tensor,
        targets_m: Tensor,
        keys_m: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The fields of `HeadOutput`."""
        rows = hidden_mh.shape[0]
        known_m = target_logits(hidden_mh, weight_vh, bias_v, targets_m)
        running = _Running.start(rows, hidden_mh.device)
        for start, stop in _chunks(rows, weight_vh.shape[0], hidden_mh.device):
            logits_mc = _logits(hidden_mh, weight_vh[start:stop], bias_v[start:stop])
            running = running.with_chunk(logits_mc, targets_m, known_m, keys_m, temperature, start)
        ctx.save_for_backward(hidden_mh, weight_vh, bias_v, targets_m, running.lse_m)
        correct_m = running.larger_m == 0
        in_top5_m = running.larger_m < kernels.TOP
        samples_m = running.candidate.token_m
        ctx.mark_non_differentiable(correct_m, in_top5_m, samples_m)
        return running.lse_m - running.target_m, correct_m, in_top5_m, samples_m

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Gradients of hidden states, table and bias, each in the type of its tensor."""
        hidden_mh, weight_vh, bias_v, targets_m, lse_m = ctx.saved_tensors
        grad_nll_m = grads[0].float()
        grad_hidden_mh = torch.zeros_like(hidden_mh, dtype=torch.float32)
        grad_weight_vh = torch.empty_like(weight_vh)
        grad_bias_v = torch.empty_like(bias_v)
        for start, stop in _chunks(hidden_mh.shape[0], weight_vh.shape[0], hidden_mh.device):
            weight_ch = weight_vh[start:stop]
            softmax_mc = (
                _logits(hidden_mh, weight_ch, bias_v[start:stop]).sub_(lse_m[:, None]).exp_()
            )
            inside_m, index_m = _locate(targets_m, start, stop)
            softmax_mc.scatter_add_(1, index_m[:, None], -inside_m.float()[:, None])
            grad_logits_mc = softmax_mc.mul_(grad_nll_m[:, None])
            grad_bias_v[start:stop] = grad_logits_mc.sum(dim=0)
            narrow_mc = grad_logits_mc.to(hidden_mh.dtype)
            grad_hidden_mh += narrow_mc @ weight_ch
            torch.mm(narrow_mc.t(), hidden_mh, out=grad_weight_vh[start:stop])
        return grad_hidden_mh.to(hidden_mh.dtype), grad_weight_vh, grad_bias_v, None, None, None


class _Running(NamedTuple):
    """What is known after the chunks seen so far, for each masked position.

    larger_m  fp32, entries with a larger logit than the target; exact up to `kernels.TOP`
    """

    larger_m: Tensor
    lse_m: Tensor
    target_m: Tensor
    candidate: sampling.Candidate

    @staticmethod
    def start(rows: int, device: torch.device) -> _Running:
        lowest = torch.full((rows,), float("-inf"), device=device)
        zero = torch.zeros(rows, device=device)
        return _Running(zero, lowest, zero, sampling.Candidate(lowest, zero.long()))

    def with_chunk(
        self,
        logits_mc: Tensor,
        targets_m: Tensor,
        known_m: Tensor,
        keys_m: Tensor,
        temperature: float,
        start: int,
    ) -> _Running:
        """The state after the chunk `logits_mc` (M, C) fp32,
        which begins at entry `start` and is overwritten; `known_m` is the target's logit.
        """
        entries = logits_mc.shape[1]
        inside_m, index_m = _locate(targets_m, start, start + entries)
        chosen_m = logits_mc.gather(1, index_m[:, None]).squeeze(1)
        logits_mjk = sampling.in_tiles(logits_mc)
        max_mj = sampling.tile_maxima(logits_mjk)
        larger_m = count_larger(logits_mjk, max_mj, known_m, self.larger_m)
        # The same product, rounded otherwise, is not larger than itself.
        larger_m -= (inside_m & (chosen_m > known_m)).float()
        candidate = None
        if temperature != 1.0:
            candidate = sampling.sample_chunk(logits_mc, keys_m, temperature, start)
        tiles = sampling.tile_softmax(logits_mjk, max_mj)
        if candidate is None:
            candidate = sampling.draw(tiles, keys_m, start, entries)
        return _Running(
            self.larger_m + larger_m,
            torch.logaddexp(self.lse_m, tiles.lse_mj.logsumexp(dim=1)),
            torch.where(inside_m, chosen_m, self.target_m),
            sampling.better(self.candidate, candidate),
        )


def _logits(hidden_mh: Tensor, weight_ch: Tensor, bias_c: Tensor) -> Tensor:
    """(M, C) fp32 logits: the product in the type of its inputs,
    accumulated and (on CUDA) returned in fp32.
    """
    if hidden_mh.is_cuda and hidden_mh.dtype != torch.float32:
        logits_mc = torch.mm(hidden_mh, weight_ch.t(), out_dtype=torch.float32)
    else:
        logits_mc = (hidden_mh @ weight_ch.t()).float()
    return logits_mc.add_(bias_c)


def target_logits(
    hidden_mh: Tensor, weight_vh: Tensor, bias_v: Tensor, targets_m: Tensor
) -> Tensor:
    """(M,) fp32 logits of the targets alone, rounded to the type that `_logits` rounds to: they may
    differ in the last digit.
    """
    product_m = (hidden_mh.float() * weight_vh[targets_m].float()).sum(dim=1)
    if not hidden_mh.is_cuda:
        product_m = product_m.to(hidden_mh.dtype).float()
    return product_m + bias_v[targets_m]


def count_larger(logits_mjk: Tensor, max_mj: Tensor, known_m: Tensor, before_m: Tensor) -> Tensor:
    """(M,) fp32, how many entries of a chunk are larger than the row's number `known_m`.

    A row that has more than `kernels.TOP` of them, `before_m` in other chunks or here, may count
    some of them only. On a CPU few tiles are looked into: those whose maximum is larger.
    """
    if not may_wait(logits_mjk.device):
        # The number of tiles to look into is not known without a wait for the device.
        return (logits_mjk > known_m[:, None, None]).sum(dim=(1, 2)).float()
    larger_mj = (max_mj > known_m[:, None]) & (before_m <= kernels.TOP)[:, None]
    enough_mj = larger_mj.cumsum(dim=1, dtype=torch.int32) <= kernels.TOP + 1
    tile_n = (larger_mj & enough_mj).flatten().nonzero().squeeze(1)
    row_n = tile_n // max_mj.shape[1]
    logits_nk = logits_mjk.reshape(-1, sampling.TILE).index_select(0, tile_n)
    larger_n = (logits_nk > known_m[row_n, None]).sum(dim=1)
    return torch.zeros_like(known_m).index_add_(0, row_n, larger_n.float())


def may_wait(device: torch.device) -> bool:
    """Whether a value can be read at once, so that shapes may follow from values."""
    return device.type == "cpu"


def _locate(targets_m: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Which targets lie in `[start, stop)`,
    and a valid index inside the chunk for every one of them.
    """
    inside_m = (targets_m >= start) & (targets_m < stop)
    return inside_m, (targets_m - start).clamp(0, stop - start - 1)


def _chunks(rows: int, vocabulary: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Spans of the vocabulary, whole tiles each (but the last),
    of about a fixed number of logits.
    """
    if device.type == "cuda":
        budget = _CHUNK_LOGITS_CUDA
    else:
        budget = _CHUNK_LOGITS_CPU
    entries = max(budget // max(rows, 1), _SMALLEST_CHUNK) // sampling.TILE * sampling.TILE
    for start in range(0, vocabulary, entries):
        yield start, min(start + entries, vocabulary)
