"""One optimizer step of both networks (DESIGN D1), and one validation micro-batch.

The generator's embedding activations go to the discriminator as a leaf tensor; the gradient that
the discriminator leaves there goes back into the generator's own loss. So no engine ever touches a
parameter of the other, and the gradient is exactly that of the joint loss

    sum over the registered objectives of   weight * (sum of its losses) / count,

where counts are *global*, over all ranks and micro-batches of the step: masked positions for the
generator's loss, real tokens for the discriminator's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from electra_dist.batch import PADDING_DOCUMENT, MicroBatch, Step
from electra_dist.config import NETWORKS, Config, Network
from electra_dist.model.discriminator import DiscriminatorOutput
from electra_dist.model.generator import GeneratorOutput
from electra_dist.model.inputs import ModelBatch, copy_ahead, to_device
from electra_dist.objectives import Objective, objectives, objectives_of
from electra_dist.objectives.views import Seen
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.zero import communication
from electra_dist.zero.clipping import clip, loss_scale
from electra_dist.zero.engines import Engines

#: Tensors by name.
Sums = dict[str, Tensor]


class StepTotals(NamedTuple):
    """This rank's sums over the micro-batches of a step, on its device, and what the ranks agreed
    on.

    sums                                by name: the loss sum and the further sums of every
                                        objective, and the counts that losses are divided by
                                        (`sum_shapes`)
    generator_norm, discriminator_norm  global gradient norms before clipping; 0 in validation
    skipped                             bool, the same on all ranks: a gradient was not finite
    clipped                             (2,) bool, the same on all ranks: the gradient of each
                                        network was scaled down
    losses                              (N,) mean loss of each objective over all ranks; 0 in
                                        validation
    """

    sums: Sums
    generator_norm: Tensor
    discriminator_norm: Tensor
    skipped: Tensor
    clipped: Tensor
    losses: Tensor


def train_step(
    engines: Engines,
    step: Step,
    config: Config,
    lr_factor: float,
    forced_samples: list[Tensor] | None = None,
) -> StepTotals:
    """Forward, backward and update of both networks, timed by the engines' clock.

    `lr_factor` multiplies each network's own peak learning rate. `forced_samples`, one (B, P) int64
    tensor a micro-batch, take the place of the generator's samples (tests). Raises ValueError when
    the step has another number of micro-batches than the engines accumulate.
    """
    if len(step.micro_batches) != engines.accumulation:
        raise ValueError(
            f"{len(step.micro_batches)} micro-batches in a step of {engines.accumulation}"
        )
    engines.set_lr({network: config.optimizer(network).lr * lr_factor for network in NETWORKS})
    with communication.timing(engines.clock):
        return _train(engines, step, config, forced_samples)


def _train(
    engines: Engines, step: Step, config: Config, forced_samples: list[Tensor] | None
) -> StepTotals:
    clock = engines.clock
    clock.enter("generator_forward")
    trained = objectives()
    counts = _global_counts(engines, step, trained)
    weights = _loss_weights(engines, counts, config, trained)
    sums: Sums = {}
    for index, micro_batch in enumerate(step.micro_batches):
        clock.enter("generator_forward")
        batch = to_device(micro_batch, engines.world.device)
        _begin_graphs(config)
        outputs = _forward_backward(
            engines, batch, weights, None if forced_samples is None else forced_samples[index]
        )
        clock.enter("optimizer")
        added = _compiled(micro_batch_sums, engines)(batch, *outputs, trained)
        if sums:
            sums = {name: total + added[name] for name, total in sums.items()}
        else:
            sums = added
        if index == engines.accumulation - 1:
            shares = torch.stack([sums[objective.total] for objective in trained]) / counts
            engines.finish_reductions()
            agreed = clip(engines, config.optim.clip_norm, config.optim.clip_mode, shares.float())
        engines.generator.step()
        engines.discriminator.step()
    return StepTotals(sums, **agreed._asdict())


class Forwarded(NamedTuple):
    """One micro-batch through both networks, without dropout and without training."""

    batch: ModelBatch
    generated: GeneratorOutput
    judged: DiscriminatorOutput


@torch.no_grad()
def forward_step(
    engines: Engines, micro_batch: MicroBatch, config: Config, looks: bool = False
) -> Forwarded:
    """One held-out micro-batch; `looks` asks for a `Look`. Every rank must call it."""
    for _, engine in engines:
        engine.eval()
    batch = to_device(micro_batch, engines.world.device)
    _begin_graphs(config)
    generated: GeneratorOutput = engines.generator(batch, looks=looks)
    judged: DiscriminatorOutput = engines.discriminator(
        generated.shared, batch, generated.corrupted, generated.replaced
    )
    for _, engine in engines:
        engine.train()
    return Forwarded(batch, generated, judged)


@torch.no_grad()
def forward_totals(engines: Engines, forwarded: Forwarded) -> StepTotals:
    """The sums of one held-out micro-batch."""
    return _without_gradients(_compiled(micro_batch_sums, engines)(*forwarded, objectives()))


def evaluate_step(engines: Engines, micro_batch: MicroBatch, config: Config) -> StepTotals:
    """The sums of one held-out micro-batch, from both networks without dropout."""
    return forward_totals(engines, forward_step(engines, micro_batch, config))


def _begin_graphs(config: Config) -> None:
    """Let CUDA graphs write over what they gave in the micro-batch before."""
    if config.train.cuda_graphs:
        torch.compiler.cudagraph_mark_step_begin()


def _global_counts(engines: Engines, step: Step, trained: tuple[Objective, ...]) -> Tensor:
    """What each loss is divided by: its count over all ranks, (N,) fp64, at least 1."""
    own = [getattr(step, objective.count) for objective in trained]
    counts = torch.tensor(own, dtype=torch.float64)
    counts = copy_ahead(counts, engines.world.device)
    with engines.clock.communicating():
        all_reduce_sum(counts)
    return counts.clamp(min=1)


def _loss_weights(
    engines: Engines, counts: Tensor, config: Config, trained: tuple[Objective, ...]
) -> dict[Network, Tensor]:
    """What the loss sums of each network are multiplied with, fp32.

    DeepSpeed averages gradients over ranks and micro-batches; multiplying by both numbers turns
    that into a sum.
    """
    world = engines.world
    keys = [objective.weight_in(config) for objective in trained]
    wanted = copy_ahead(torch.tensor(keys, dtype=torch.float64), world.device)
    weights_n = (wanted * world.world_size * engines.accumulation / counts).float()
    generators = len(objectives_of("generator"))
    return {"generator": weights_n[:generators], "discriminator": weights_n[generators:]}


def _forward_backward(
    engines: Engines,
    batch: ModelBatch,
    weights: dict[Network, Tensor],
    forced_samples: Tensor | None,
) -> tuple[GeneratorOutput, DiscriminatorOutput]:
    generated: GeneratorOutput = engines.generator(batch, forced_samples)
    shared = generated.shared
    leaf = None
    if shared is not None:
        leaf = shared.detach().requires_grad_(shared.requires_grad)
    engines.clock.enter("discriminator_forward")
    judged: DiscriminatorOutput = engines.discriminator(
        leaf, batch, generated.corrupted, generated.replaced
    )
    engines.clock.enter("discriminator_backward")
    engines.discriminator.backward((judged.loss_sums * weights["discriminator"]).sum())
    engines.clock.enter("generator_backward")
    loss = (generated.loss_sums * weights["generator"]).sum()
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


def micro_batch_sums(
    batch: ModelBatch,
    generated: GeneratorOutput,
    judged: DiscriminatorOutput,
    trained: tuple[Objective, ...],
) -> Sums:
    """The sums of one micro-batch, from what both networks gave."""
    real_bl = batch.documents != PADDING_DOCUMENT
    seen = Seen(generated.correct, generated.in_top5, judged.logits, generated.replaced, real_bl)
    losses = (*generated.loss_sums.detach().unbind(), *judged.loss_sums.detach().unbind())
    sums = {"masked_count": batch.masked_weights.sum(), "real_count": real_bl.sum().float()}
    for objective, loss in zip(trained, losses, strict=True):
        sums[objective.total] = loss.clone()  # a CUDA graph writes over its results
        sums |= objective.observe(seen)
    return sums


def micro_batch_totals(
    batch: ModelBatch, generated: GeneratorOutput, judged: DiscriminatorOutput
) -> StepTotals:
    """The totals of one micro-batch that is not trained on."""
    return _without_gradients(micro_batch_sums(batch, generated, judged, objectives()))


def _without_gradients(sums: Sums) -> StepTotals:
    zero = torch.zeros((), device=sums["real_count"].device)
    losses = zero.expand(len(objectives()))
    clipped = zero.bool().expand(2)
    return StepTotals(sums, zero, zero, skipped=zero.bool(), clipped=clipped, losses=losses)


def sum_shapes() -> dict[str, tuple[int, ...]]:
    """The names of `StepTotals.sums`, in a fixed order, and their shapes; `()` is one number."""
    shapes: dict[str, tuple[int, ...]] = {}
    for objective in objectives():
        shapes |= {objective.total: (), **objective.sums, objective.count: ()}
    return shapes | {"masked_count": (), "real_count": ()}
