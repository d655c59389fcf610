"""What lies in one rank's memory, by kind, and when it is most: the peak of live tensor memory of a
training step.

Comes in: a configuration and its surroundings. Goes out: `MemoryPlan`. A step has eight moments
that can be the highest (`PHASES`); each is the sum of what both engines hold all the time, of
gradients so far, of DeepSpeed's buffers at that moment (`engine_memory.py`), and of what autograd
has saved (`activations.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

from electra_dist.architectures import Surroundings
from electra_dist.config import NETWORKS, Config, Network, Stage
from electra_dist.plan.activations import (
    BYTES,
    FP32,
    backward_temporaries,
    discriminator_saved,
    generator_saved,
    head_temporaries,
    micro_batch_sizes,
    total,
)
from electra_dist.plan.engine_memory import (
    OPTIMIZER_BYTES,
    EngineBytes,
    bucket_elements,
    engine_bytes,
)
from electra_dist.plan.sizes import parameters

Phase = Literal[
    "start",
    "discriminator",
    "discriminator joined",
    "discriminator reduced",
    "generator",
    "generator joined",
    "generator reduced",
    "update",
]
#: start                  both networks whole and in fp32, before the engines share them out
#: discriminator          its backward begins: the activations of both networks are there
#: discriminator joined   the gradients of its first group of layers become one
#: discriminator reduced  its backward ends: its gradients and the copies that are reduced, the
#: generator's activations
#: generator, ...         the same of the generator; the discriminator's gradients are there
#: update                 the optimizers run: all gradients are there
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True)
class MemoryPlan:
    """Peak of one rank's live tensor memory in bytes, by kind at that moment, and the height of
    every phase.

    activations   saved tensors and the temporaries of the backward
    buffers       DeepSpeed's, for gathering, reduction and update
    host          what GPU ranks keep in CPU memory (`zero.offload_...`), each; on a CPU it is part
                  of the others
    saving        CPU memory of the copy that is written in the background
                  (`checkpoint.asynchronous`), beside the peak
    """

    phase: Phase
    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float
    host: float
    saving: float
    phases: dict[Phase, float]

    @property
    def peak(self) -> float:
        """Bytes at the highest moment."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers

    def to_dict(self) -> dict[str, Any]:
        return {"peak": self.peak} | asdict(self)


class _Moment(NamedTuple):
    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float


def surroundings(config: Config, device: Literal["cpu", "cuda"]) -> Surroundings:
    """What `model.attention = auto` comes to on such a device."""
    wanted = config.model.attention
    half = all(config.precision_mode(network) != "fp32" for network in NETWORKS)
    if wanted == "auto":
        if config.train.deterministic or config.model.attention_dropout:
            wanted = "triton"
        else:
            wanted = "varlen"
        if device == "cpu" or not half:
            wanted = "sdpa"
    return Surroundings(device, wanted, config.compiles(device))


def plan_memory(
    config: Config,
    vocab_size: int,
    world_size: int = 1,
    device: Literal["cpu", "cuda"] = "cpu",
    stages: dict[Network, Stage] | None = None,
) -> MemoryPlan:
    """The memory of one of `world_size` ranks;
    `stages` take the place of the configured ZeRO stages.
    """
    config = config.model_copy(update={"train": config.train.model_copy(update={"device": device})})
    around = surroundings(config, device)
    stages = stages or {network: config.stage(network) for network in NETWORKS}
    g, d = (engine_bytes(config, name, vocab_size, stages[name], world_size) for name in NETWORKS)
    host = g.host + d.host
    if device == "cpu":  # the same memory
        g = g._replace(optimizer=g.optimizer + g.host)
        d = d._replace(optimizer=d.optimizer + d.host)
        host = 0.0
    moments = _moments(config, vocab_size, world_size, around, g, d)
    phase = max(PHASES, key=lambda name: sum(moments[name]))
    phases = {name: sum(moment) for name, moment in moments.items()}
    saving = saving_bytes(config, vocab_size, world_size)
    return MemoryPlan(phase, *moments[phase], host=host, saving=saving, phases=phases)


def saving_bytes(config: Config, vocab_size: int, world_size: int) -> float:
    """CPU memory of the copy of one rank's share of weights and moments,
    which is kept from one save to the next.
    """
    if config.checkpoint.asynchronous:
        return OPTIMIZER_BYTES * parameters(config, vocab_size).total / world_size
    return 0.0


class _Heights(NamedTuple):
    """What the moments of a step are added up from.

    again      micro-batches come before: their gradients are there, and whole second copies
    saved_...  what autograd keeps of a network's forward
    rise_...   temporaries of its backward; `exchanged` are those of what passes between the
               networks
    early_...  copies for a reduction during the backward, of a network larger than its bucket
    """

    g: EngineBytes
    d: EngineBytes
    again: bool
    saved_g: float
    saved_d: float
    rise_g: float
    rise_d: float
    exchanged: float
    early_g: float
    early_d: float

    @property
    def weights(self) -> float:
        """Of both networks, all the time."""
        return self.g.weights + self.d.weights

    @property
    def optimizer(self) -> float:
        """Of both networks, all the time."""
        return self.g.optimizer + self.d.optimizer

    @property
    def second(self) -> float:
        """Both second copies of hierarchical partitioning."""
        return self.g.second + self.d.second

    @property
    def kept(self) -> float:
        """Gradients of both networks, all the time."""
        return self.g.kept_gradients + self.d.kept_gradients

    @property
    def buffers(self) -> float:
        """Of both engines, all the time."""
        return self.g.buffers + self.d.buffers


def _heights(
    config: Config,
    vocab_size: int,
    world_size: int,
    around: Surroundings,
    g: EngineBytes,
    d: EngineBytes,
) -> _Heights:
    size = micro_batch_sizes(config)
    exchanged = (
        size.tokens
        * config.model.embedding_size
        * (2 * FP32 + BYTES[config.precision_mode("generator")])
    )
    backward_g = backward_temporaries(config, "generator", around) + exchanged

    def early(network: Network, engine: EngineBytes) -> float:
        larger = parameters(config, vocab_size).of(network) > bucket_elements(
            config, network, vocab_size
        )
        if larger:
            return engine.reduction
        return 0.0

    return _Heights(
        g=g,
        d=d,
        again=config.accumulation(world_size) > 1,
        saved_g=total(generator_saved(config, around)),
        saved_d=total(discriminator_saved(config, around)),
        rise_g=max(backward_g, head_temporaries(config, vocab_size, around)),
        rise_d=backward_temporaries(config, "discriminator", around),
        exchanged=exchanged,
        early_g=early("generator", g),
        early_d=early("discriminator", d),
    )


def _moments(
    config: Config,
    vocab_size: int,
    world_size: int,
    around: Surroundings,
    g: EngineBytes,
    d: EngineBytes,
) -> dict[Phase, _Moment]:
    at = _heights(config, vocab_size, world_size, around, g, d)
    whole = FP32 * parameters(config, vocab_size).total
    start = _Moment(whole + at.weights, at.kept, at.optimizer / 3, 0.0, at.buffers)
    update = _Moment(
        at.weights + at.second,
        at.kept + g.gradients + d.gradients,
        at.optimizer,
        0.0,
        at.buffers + max(g.update, d.update),
    )
    return {"start": start, **_of_the_discriminator(at), **_of_the_generator(at), "update": update}


def _of_the_discriminator(at: _Heights) -> dict[Phase, _Moment]:
    """Its backward comes first, while the activations of the generator wait."""
    g = at.g
    d = at.d
    again = at.again
    gradients = at.kept + again * g.gradients
    buffers = at.buffers + again * g.keeps_bucket * g.bucket
    all_gathered = at.weights + g.gathered + d.gathered + again * at.second
    return {
        "discriminator": _Moment(
            all_gathered,
            gradients + again * d.gradients,
            at.optimizer,
            at.saved_g + at.saved_d + at.rise_d,
            buffers + d.bucket + at.early_d,
        ),
        "discriminator joined": _Moment(
            all_gathered,
            gradients + again * d.gradients,
            at.optimizer,
            at.saved_g + at.exchanged,
            buffers + d.keeps_bucket * d.bucket + d.joined,
        ),
        "discriminator reduced": _Moment(
            at.weights + g.gathered + again * g.second + d.second,
            gradients + d.reduced_gradients,
            at.optimizer,
            at.saved_g + at.exchanged,
            buffers + d.bucket + d.reduction,
        ),
    }


def _of_the_generator(at: _Heights) -> dict[Phase, _Moment]:
    """The discriminator's gradients are there."""
    g = at.g
    d = at.d
    again = at.again
    gradients = at.kept + d.gradients
    return {
        "generator": _Moment(
            at.weights + g.gathered + again * g.second + d.second,
            gradients + again * g.gradients,
            at.optimizer,
            at.saved_g + at.rise_g,
            at.buffers + g.bucket + at.early_g,
        ),
        "generator joined": _Moment(
            at.weights + g.gathered + at.second,
            gradients + again * g.gradients,
            at.optimizer,
            0.0,
            at.buffers + g.keeps_bucket * g.bucket + g.joined,
        ),
        "generator reduced": _Moment(
            at.weights + at.second,
            gradients + g.reduced_gradients,
            at.optimizer,
            0.0,
            at.buffers + g.bucket + g.reduction,
        ),
    }
