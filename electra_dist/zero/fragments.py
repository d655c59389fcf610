"""Where the fp32 weights and Adam moments of an engine lie: all that reaches into DeepSpeed for
checkpoints.

`local_fragments` gives, for every parameter by name, which slice of it this rank holds, as views
into the optimizer's own memory: saving reads them, loading copies into them, and `refresh_weights`
then carries the new weights to the low-precision copies. A slice is (start, length) of the
flattened parameter, so it means the same at any ZeRO stage and any world size (DESIGN D6).

Where they lie (deepspeed 0.19): stage 0, the parameters and the optimizer's own state, whole on
every rank; stages 1 and 2, `p._hp_mapping`, None where this rank holds nothing of p; stage 3, rank
r holds elements [r * k, r * k + k), k being the size of the parameter's partition, padded at the
end. With `zero.offload_optimizer` the same tensors lie in CPU memory; hierarchical partitioning
changes nothing of it. A parameter of a layer is a part of a flat one (`model/flat/slots.py`), so it
is held where that one is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from electra_dist.model.flat.slots import Slice, named_slices
from electra_dist.zero.engine import Engine, stage_of

#: What is kept of every parameter: the fp32 weight and Adam's two moments.
KINDS = ("weight", "exp_avg", "exp_avg_sq")
_MOMENTS = KINDS[1:]
_SCALER_KEYS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class Fragment(NamedTuple):
    """A slice of one parameter.

    name, shape   of the whole parameter
    start         first element of the slice in the flattened parameter
    tensors       by kind (`KINDS`), (length,) fp32 views into the optimizer's memory
    """

    name: str
    shape: tuple[int, ...]
    start: int
    tensors: dict[str, Tensor]

    @property
    def length(self) -> int:
        return self.tensors["weight"].numel()

    def narrow(self, start: int, stop: int) -> Fragment:
        """The part of it that lies in [start, stop) of the flattened parameter."""
        first = max(start, self.start)
        length = max(0, min(stop, self.start + self.length) - first)
        parts = {
            kind: t.narrow(0, first - self.start if length else 0, length)
            for kind, t in self.tensors.items()
        }
        return Fragment(self.name, self.shape, first, parts)


def parameter_shapes(engine: Engine) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by name, whole ones under ZeRO-3 too."""
    return {piece.name: piece.shape for piece in named_slices(engine.module)}


def local_fragments(engine: Engine, rank: int) -> list[Fragment]:
    """All that lies on this rank, in the order of the parameters;
    creates Adam's moments where no step has yet.
    """
    _ensure_state(engine)
    held = {p: _held(engine, p, rank) for p in engine.module.parameters()}
    found = (_part(piece, held[piece.held]) for piece in named_slices(engine.module))
    return [fragment for fragment in found if fragment is not None and fragment.length]


def _part(piece: Slice, held: _Held | None) -> Fragment | None:
    """What of `piece` lies in `held`, which this rank holds of the
    parameter that `piece` is a part of.
    """
    if held is None:
        return None
    whole = Fragment(piece.name, piece.shape, held.start - piece.start, held.tensors)
    return whole.narrow(0, math.prod(piece.shape))


def own_share(
    fragments: list[Fragment], engine: Engine, rank: int, world_size: int
) -> list[Fragment]:
    """What this rank saves: at stage 0, where all ranks hold everything,
    an equal part of every parameter.
    """
    if stage_of(engine).shares_moments:
        return fragments
    cuts = ((f.length * rank // world_size, f.length * (rank + 1) // world_size) for f in fragments)
    shares = [f.narrow(*cut) for f, cut in zip(fragments, cuts, strict=True)]
    return [share for share in shares if share.length]


class _Held(NamedTuple):
    """What this rank holds of a parameter as DeepSpeed knows it:
    from element `start`, `tensors` by kind.
    """

    start: int
    tensors: dict[str, Tensor]


def _held(engine: Engine, p: Any, rank: int) -> _Held | None:
    """What this rank holds of `p`; None where that is nothing."""
    stage = stage_of(engine)
    if stage.shares_weights:
        return _partition(engine, p, rank)
    if stage.shares_moments:
        return _mapped(engine, p)
    return _whole(engine, p)


def _whole(engine: Engine, p: Any) -> _Held:
    state = _base_optimizer(engine).state[p]
    return _Held(0, {"weight": p.data.view(-1)} | {kind: state[kind].view(-1) for kind in _MOMENTS})


def _mapped(engine: Engine, p: Any) -> _Held | None:
    mapping = p._hp_mapping
    if mapping is None:
        return None
    # The mapping's own links to the moments are empty for all parameter
    # groups but the first (deepspeed 0.19.8).
    flat = list(stepped_tensors(engine))[mapping.param_group_index]
    address = mapping.hp_fragment_address
    state = _base_optimizer(engine).state[flat]
    held = {"weight": flat.data} | {kind: state[kind] for kind in _MOMENTS}
    tensors = {
        kind: tensor.narrow(0, address.start, address.numel) for kind, tensor in held.items()
    }
    return _Held(int(mapping.lp_fragment_address.start), tensors)


def _partition(engine: Engine, p: Any, rank: int) -> _Held | None:
    size = p.ds_tensor.numel()
    start = rank * size
    length = min(size, p.ds_numel - start)
    if length <= 0:
        return None
    # DeepSpeed's own accessors copy to the GPU what was offloaded;
    # these are views wherever the tensor lies.
    group, offset, _ = engine.optimizer.grad_position[engine.optimizer.get_param_id(p)]
    flat = engine.optimizer.fp32_partitioned_groups_flat[group]
    state = _base_optimizer(engine).state[flat]
    held = {"weight": flat.data} | {kind: state[kind] for kind in _MOMENTS}
    return _Held(start, {kind: tensor.narrow(0, offset, length) for kind, tensor in held.items()})


# --- the optimizer below --------------------------------------------------------------------------


def _base_optimizer(engine: Engine) -> torch.optim.Optimizer:
    """The AdamW that DeepSpeed steps."""
    base: torch.optim.Optimizer
    if stage_of(engine).shares_moments:
        base = engine.optimizer.optimizer
    else:
        base = engine.optimizer
    return base


def stepped_tensors(engine: Engine) -> Iterator[Tensor]:
    """The tensors that AdamW holds state for: flat ones but at stage 0."""
    optimizer = engine.optimizer
    for attribute in (
        "fp32_partitioned_groups_flat",
        "fp32_groups_flat_partition",
        "single_partition_of_fp32_groups",
    ):
        if hasattr(optimizer, attribute):
            yield from getattr(optimizer, attribute)
            return
    yield from engine.module.parameters()


def _ensure_state(engine: Engine) -> None:
    base = _base_optimizer(engine)
    for tensor in stepped_tensors(engine):
        if not base.state.get(tensor):
            fused = base.defaults.get("fused")
            base.state[tensor] = {
                "step": torch.zeros(
                    (), dtype=torch.float32, device=tensor.device if fused else "cpu"
                ),
                "exp_avg": torch.zeros_like(tensor, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(tensor, requires_grad=False),
            }


def are_finite(engine: Engine, rank: int) -> bool:
    """Whether all weights and moments that lie on this rank are finite;
    waits for the device, once.
    """
    tensors = [
        tensor for fragment in local_fragments(engine, rank) for tensor in fragment.tensors.values()
    ]
    if not tensors:
        return True
    # The largest magnitude is NaN or infinite when any element is;
    # it cannot overflow, as a sum of squares does.
    return bool(torch.stack(torch._foreach_norm(tensors, float("inf"))).isfinite().all())


@torch.no_grad()
def restart(
    engine: Engine, weights: Mapping[str, Tensor], loss_scale: dict[str, Any] | None, rank: int
) -> None:
    """Set the engine to whole fp32 `weights` by name, with moments and steps of zero, as before the
    first step.

    Every rank must call it; `loss_scale` is what `loss_scale_state` gave then.
    """
    for fragment in local_fragments(engine, rank):
        for moment in _MOMENTS:
            fragment.tensors[moment].zero_()
    write_scalars(engine, {"optimizer_steps": 0, "loss_scale": loss_scale})
    set_weights(engine, weights, rank)


@torch.no_grad()
def set_weights(engine: Engine, weights: Mapping[str, Tensor], rank: int) -> None:
    """Set the engine to whole fp32 `weights` by name, and nothing else of it;
    every rank must call it.
    """
    for fragment in local_fragments(engine, rank):
        stop = fragment.start + fragment.length
        fragment.tensors["weight"].copy_(weights[fragment.name].flatten()[fragment.start : stop])
    refresh_weights(engine)


@torch.no_grad()
def refresh_weights(engine: Engine) -> None:
    """Carry changed fp32 weights to the parameters that forward reads; every rank must call it."""
    optimizer = engine.optimizer
    stage = stage_of(engine)
    if stage.shares_weights:
        optimizer._partition_all_parameters()
        # the second copies of hierarchical partitioning are of the old weights
        optimizer.invalidate_secondary_tensor()
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
    elif stage.shares_moments:
        optimizer.update_lp_params()


# --- scalars --------------------------------------------------------------------------------------


def read_scalars(engine: Engine) -> dict[str, Any]:
    """Steps that the optimizer has made (skipped ones do not count) and,
    with fp16, the state of the loss scale.
    """
    return {"optimizer_steps": int(last_step(engine)), "loss_scale": loss_scale_state(engine)}


def last_step(engine: Engine) -> Tensor:
    """The number of the optimizer's last step, fp32 scalar where its state lies; 0 before it."""
    _ensure_state(engine)
    step: Tensor = _base_optimizer(engine).state[next(stepped_tensors(engine))]["step"]
    return step


def loss_scale_state(engine: Engine) -> dict[str, Any] | None:
    """The state of the loss scale; None where there is none (no fp16)."""
    if not engine.fp16_enabled():
        return None
    return {key: getattr(engine.optimizer.loss_scaler, key) for key in _SCALER_KEYS}


def write_scalars(engine: Engine, scalars: dict[str, Any]) -> None:
    """Set what `read_scalars` gave; a loss scale is taken over when this engine has one too."""
    base = _base_optimizer(engine)
    for tensor in stepped_tensors(engine):
        base.state[tensor]["step"].fill_(scalars["optimizer_steps"])
    if engine.fp16_enabled() and scalars["loss_scale"]:
        for key in _SCALER_KEYS:
            setattr(engine.optimizer.loss_scaler, key, scalars["loss_scale"][key])
