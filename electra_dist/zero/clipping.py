"""Clipping the gradients of both engines together, before either steps: all that reaches into
DeepSpeed for it.

Comes in: two engines after the last backward of a step. The gradients are changed in place. One
norm over both networks, as in the original ELECTRA (`clip_mode: joint`), or one for each
(`separate`). A gradient that is not finite in either network makes both skip the step, by
DeepSpeed's own overflow check, so that both loss scales fall and the networks stay in step.

Where the reduced gradients lie (deepspeed 0.19): stage 0, `p.grad`, whole on every rank; stage 1 in
bf16 (`BF16_Optimizer`), `fp32_groups_gradients_flat`, whole on every rank; stages 1 and 2 otherwise
and stage 3, `averaged_gradients`, this rank's share; with `zero.offload_optimizer`, `.grad` of the
tensors that AdamW steps, this rank's share in CPU memory.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from electra_dist.model.inputs import copy_ahead
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.parallel.world import World
from electra_dist.zero.engine import Engine, stage_of
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import stepped_tensors


class Gradients(NamedTuple):
    """The gradients of one engine that this rank may change.

    tensors   fp32, times the engine's loss scale
    whole     every rank holds all of them, instead of its share
    offloaded they lie in CPU memory
    """

    tensors: list[Tensor]
    whole: bool
    offloaded: bool = False


class ClipResult(NamedTuple):
    """What the ranks agreed on before the step, global and on the device.

    generator_norm, discriminator_norm   before clipping, without loss scale; fp32 scalars
    skipped                              whether the step will be skipped; bool scalar
    clipped                              (2,) bool, whether the gradient of each network was scaled
                                         down
    losses                               (N,) the sum over the ranks of what each of them gave
    """

    generator_norm: Tensor
    discriminator_norm: Tensor
    skipped: Tensor
    clipped: Tensor
    losses: Tensor


def local_gradients(engine: Engine) -> Gradients:
    """The reduced gradients that lie on this rank;
    valid between the last backward of a step and `engine.step`.
    """
    optimizer = engine.optimizer
    if not stage_of(engine).shares_moments:
        return Gradients(
            [p.grad for p in engine.module.parameters() if p.grad is not None], whole=True
        )
    if offloads_optimizer(engine):
        return Gradients(
            [t.grad for t in stepped_tensors(engine) if t.grad is not None],
            whole=False,
            offloaded=True,
        )
    if hasattr(optimizer, "fp32_groups_gradients_flat"):
        return Gradients(list(optimizer.fp32_groups_gradients_flat), whole=True)
    groups = [optimizer.averaged_gradients[i] for i in sorted(optimizer.averaged_gradients)]
    return Gradients([g for group in groups for g in group], whole=False)


def offloads_optimizer(engine: Engine) -> bool:
    """Whether DeepSpeed keeps the optimizer of this engine in CPU memory."""
    return any(
        getattr(engine.optimizer, name, False) for name in ("offload_optimizer", "cpu_offload")
    )


def loss_scale(engine: Engine) -> float:
    """What `engine.backward` multiplied the loss with."""
    if engine.fp16_enabled():
        return float(engine.optimizer.loss_scale)
    return 1.0


def clip(
    engines: Engines, clip_norm: float, mode: Literal["joint", "separate"], losses: Tensor
) -> ClipResult:
    """Scale the gradients of both engines down to `clip_norm` (0: leave them), or mark the step as
    one to skip.

    `losses`, (N,) fp32, is this rank's share of the step's losses; the ranks add them up on the
    way. Without a host synchronisation, except at stage 0 and where gradients were offloaded: the
    CPU works on these.
    """
    gradients = [local_gradients(engine) for _, engine in engines]
    if engines.world.device.type == "cuda" and any(gradient.offloaded for gradient in gradients):
        # DeepSpeed copies them to the CPU on streams of its own
        torch.cuda.synchronize(engines.world.device)
    squares = torch.stack([_square(gradient, engines.world) for gradient in gradients])
    with engines.clock.communicating():
        sums = all_reduce_sum(torch.cat([squares, losses]))
    squares, losses = sums.split([2, len(losses)])
    scales = copy_ahead(torch.tensor([loss_scale(engine) for _, engine in engines]), squares.device)
    norms = squares.sqrt() / scales
    finite = torch.isfinite(squares).all()
    clipped = torch.zeros_like(norms, dtype=torch.bool)
    if clip_norm > 0:
        if mode == "joint":
            limited = norms.square().sum().sqrt().expand(2)
        else:
            limited = norms
        factors = torch.where(finite, (clip_norm / (limited + 1e-6)).clamp(max=1.0), 1.0)
        clipped = factors < 1
        for gradient, factor in zip(gradients, factors, strict=True):
            if gradient.tensors:
                torch._foreach_mul_(gradient.tensors, factor.to(gradient.tensors[0].device))
    for (_, engine), gradient in zip(engines, gradients, strict=True):
        _skip_unless(finite, engine, gradient, engines.world)
    return ClipResult(norms[0], norms[1], ~finite, clipped, losses)


def _square(gradients: Gradients, world: World) -> Tensor:
    """This rank's part of the squared norm, fp32:
    rank 0 speaks for gradients that every rank holds.
    """
    if not gradients.tensors or (gradients.whole and not world.is_main):
        return torch.zeros((), device=world.device)
    return torch.nn.utils.get_total_norm(gradients.tensors).float().square().to(world.device)


def _skip_unless(finite: Tensor, engine: Engine, gradients: Gradients, world: World) -> None:
    """Let DeepSpeed find a NaN unless `finite`; a plain optimizer (stage 0) skips what has no
    gradient.

    The NaN goes where a next backward writes anew: into the first element, which on rank 0 is never
    padding.
    """
    if not stage_of(engine).shares_moments:
        if not bool(finite):
            for parameter in engine.module.parameters():
                parameter.grad = None
    elif gradients.offloaded:
        # DeepSpeed has its norms already, taken on the way to the CPU,
        # and looks for a NaN only in these.
        norms = engine.optimizer.norm_for_param_grads
        for key in list(norms)[:1] if world.is_main else ():
            norms[key] = torch.where(finite, norms[key], torch.nan)
        if not stage_of(engine).shares_weights:
            # Copied to the CPU by now. After a skipped step DeepSpeed 0.19.8
            # would add the next gradients to these.
            engine.optimizer.averaged_gradients.clear()
    elif gradients.tensors and (gradients.whole or world.is_main):
        first = gradients.tensors[0].view(-1)[:1]
        first.copy_(torch.where(finite, first, torch.nan))
