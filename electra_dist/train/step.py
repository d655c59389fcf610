"""One optimizer step of both networks (DESIGN D1), and one validation micro-batch.

The generator's embedding activations go to the discriminator as a leaf tensor; the gradient that
the discriminator leaves there goes back into the generator's own loss. So no engine ever touches a
parameter of the other, and the gradient is exactly that of the joint loss

    generator_weight * mean over masked positions + discriminator_weight * mean over real tokens,

both means over the *global* counts of the step: all ranks, all micro-batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from electra_dist.batch import PADDING_DOCUMENT, MicroBatch, Step
from electra_dist.config import NETWORKS, Config
from electra_dist.model.discriminator import DiscriminatorOutput
from electra_dist.model.generator import GeneratorOutput
from electra_dist.model.inputs import ModelBatch, copy_ahead, to_device
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.train.metrics import replacement_histogram
from electra_dist.zero.clipping import clip, loss_scale
from electra_dist.zero.engines import Engines


class StepTotals(NamedTuple):
    """This rank's sums over the micro-batches of a step, on its device, and what the ranks agreed
    on.

    generator_loss_sum, correct, masked_count   over the masked positions; nats, tokens, tokens
    discriminator_loss_sum, real_count          over the real tokens; nats, tokens
    histogram                                   (2, BINS) of the discriminator's logits, see
                                                `metrics`
    generator_norm, discriminator_norm          global gradient norms before clipping; 0 in
                                                validation
    skipped                                     bool, the same on all ranks: a gradient was not
                                                finite
    """

    generator_loss_sum: Tensor
    correct: Tensor
    masked_count: Tensor
    discriminator_loss_sum: Tensor
    real_count: Tensor
    histogram: Tensor
    generator_norm: Tensor
    discriminator_norm: Tensor
    skipped: Tensor
    losses: Tensor


def train_step(
    engines: Engines,
    step: Step,
    config: Config,
    lr_factor: float,
    forced_samples: list[Tensor] | None = None,
) -> StepTotals:
    """Forward, backward and update of both networks.

    `lr_factor` multiplies each network's own peak learning rate. `forced_samples`, one (B, P) int64
    tensor a micro-batch, take the place of the generator's samples (tests). Raises ValueError when
    the step has another number of micro-batches than the engines accumulate.
    """
    if len(step.micro_batches) != engines.accumulation:
        raise ValueError(
            f"{len(step.micro_batches)} micro-batches in a step of {engines.accumulation}"
        )
    engines.set_lr({network: config.optimizer(network).lr * lr_factor for network in NETWORKS})
    counts = _global_counts(engines, step)
    weights = _loss_weights(engines, counts, config)
    totals: StepTotals | None = None
    for index, micro_batch in enumerate(step.micro_batches):
        batch = to_device(micro_batch, engines.world.device)
        _begin_graphs(config)
        outputs = _forward_backward(
            engines, batch, weights, None if forced_samples is None else forced_samples[index]
        )
        added = _compiled(micro_batch_totals, engines)(batch, *outputs)
        if totals is None:
            totals = added
        else:
            totals = StepTotals(*(a + b for a, b in zip(totals, added, strict=True)))
        if index == engines.accumulation - 1:
            sums = torch.stack([totals.generator_loss_sum, totals.discriminator_loss_sum])
            shares = (sums / counts).float()
            engines.finish_reductions()
            agreed = clip(engines, config.optim.clip_norm, config.optim.clip_mode, shares)
            totals = totals._replace(**agreed._asdict())
        engines.generator.step()
        engines.discriminator.step()
    assert totals is not None
    return totals


@torch.no_grad()
def evaluate_step(engines: Engines, micro_batch: MicroBatch, config: Config) -> StepTotals:
    """The same sums for one validation micro-batch, without dropout and without training."""
    for _, engine in engines:
        engine.eval()
    batch = to_device(micro_batch, engines.world.device)
    _begin_graphs(config)
    generated: GeneratorOutput = engines.generator(batch)
    judged = engines.discriminator(generated.shared, batch, generated.corrupted, generated.replaced)
    for _, engine in engines:
        engine.train()
    totals: StepTotals = _compiled(micro_batch_totals, engines)(batch, generated, judged)
    return totals


def _begin_graphs(config: Config) -> None:
    """Let CUDA graphs write over what they gave in the micro-batch before."""
    if config.train.cuda_graphs:
        torch.compiler.cudagraph_mark_step_begin()


def _global_counts(engines: Engines, step: Step) -> Tensor:
    """Masked positions and real tokens of the step over all ranks, (2,) fp64, at least 1."""
    counts = torch.tensor([step.masked_count, step.real_count], dtype=torch.float64)
    return all_reduce_sum(copy_ahead(counts, engines.world.device)).clamp(min=1)


def _loss_weights(engines: Engines, counts: Tensor, config: Config) -> Tensor:
    """What a loss sum of each network is multiplied with, (2,) fp32.

    DeepSpeed averages gradients over ranks and micro-batches; multiplying by both numbers turns
    that into a sum.
    """
    world = engines.world
    train = config.train
    wanted = torch.tensor([train.generator_weight, train.discriminator_weight], dtype=torch.float64)
    return (
        copy_ahead(wanted, world.device) * world.world_size * engines.accumulation / counts
    ).float()


def _forward_backward(
    engines: Engines, batch: ModelBatch, weights: Tensor, forced_samples: Tensor | None
) -> tuple[GeneratorOutput, DiscriminatorOutput]:
    generated: GeneratorOutput = engines.generator(batch, forced_samples)
    shared = generated.shared
    leaf = None
    if shared is not None:
        leaf = shared.detach().requires_grad_(shared.requires_grad)
    judged: DiscriminatorOutput = engines.discriminator(
        leaf, batch, generated.corrupted, generated.replaced
    )
    engines.discriminator.backward(judged.loss_sum * weights[1])
    loss = generated.loss_sum * weights[0]
    if shared is not None and leaf is not None and leaf.grad is not None:
        # The backward below divides by the accumulation again;
        # leaf.grad carries the discriminator's loss scale.
        factor = engines.accumulation / loss_scale(engines.discriminator)
        loss = loss + _compiled(_product, engines)(shared, leaf.grad) * factor
    engines.generator.backward(loss)
    return generated, judged


def _product(shared_ble: Tensor, gradient_ble: Tensor) -> Tensor:
    """What has `gradient_ble` as its gradient by `shared_ble`; fp32 scalar."""
    return (shared_ble.float() * gradient_ble.float()).sum()


def _compiled(function: Callable[..., Any], engines: Engines) -> Callable[..., Any]:
    """`function`, compiled where the networks are."""
    if engines.compiled:
        return _compile(function)
    return function


@functools.cache
def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True)


def micro_batch_totals(
    batch: ModelBatch, generated: GeneratorOutput, judged: DiscriminatorOutput
) -> StepTotals:
    """The sums of one micro-batch, from what both networks gave."""
    real = batch.documents != PADDING_DOCUMENT
    zero = torch.zeros((), device=real.device)
    return StepTotals(
        generator_loss_sum=generated.loss_sum.detach(),
        correct=generated.correct,
        masked_count=batch.masked_weights.sum(),
        # a CUDA graph writes over its results
        discriminator_loss_sum=judged.loss_sum.detach().clone(),
        real_count=real.sum().float(),
        histogram=replacement_histogram(judged.logits, generated.replaced, real),
        generator_norm=zero,
        discriminator_norm=zero,
        skipped=torch.zeros((), dtype=torch.bool, device=real.device),
        losses=torch.zeros(2, device=real.device),
    )
