"""The two DeepSpeed engines, one for each network (DESIGN D1), and everything that DeepSpeed is
told.

Comes in: the configuration and both networks, whole, with the same parameters on every rank. Goes
out: `Engines`. Every DeepSpeed default that matters is set here explicitly. Neither engine clips:
`clipping.py` does that for both together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from electra_dist.config import NETWORKS, Config, Network, check_world
from electra_dist.errors import ConfigError
from electra_dist.model.backends import DTYPES
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.encoder import LayerGroup
from electra_dist.model.generator import Generator
from electra_dist.model.parameters import no_decay
from electra_dist.parallel.collectives import gather_objects, on_every_rank
from electra_dist.parallel.world import World
from electra_dist.zero import compatibility, reduction
from electra_dist.zero.clock import StepClock
from electra_dist.zero.compilation import check_compilation, compile_network
from electra_dist.zero.engine import Engine
from electra_dist.zero.fragments import set_weights

#: Elements of DeepSpeed's buffers for reduction:
#: fp32, allocated whole at the start, for each engine.
_BUCKET_ELEMENTS = 50_000_000


@dataclass(frozen=True)
class Engines:
    """Both engines of a run.

    accumulation    micro-batches of one step on each rank
    reductions      of engines that reduce beside the backward, one for each
    compiled        the networks are, and so is what lies between them
    compute_dtype   of the discriminator, which does most of the arithmetic
    clock           times the parts of their steps
    """

    generator: Engine
    discriminator: Engine
    world: World
    accumulation: int
    compute_dtype: torch.dtype
    clock: StepClock
    compiled: bool = False
    reductions: list[reduction.OverlappedReduction] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Network, Engine]]:
        """(name, engine) of both, the generator first."""
        for network in NETWORKS:
            yield network, getattr(self, network)

    def destroy(self) -> None:
        """Remove DeepSpeed's hooks, which keep engines and their memory alive for ever;
        they train no more.
        """
        for _, engine in self:
            engine.destroy()
            compatibility.forget_modules(engine.module)

    def finish_reductions(self) -> None:
        """Wait for what is reduced beside the backward;
        after the last backward of a step. Collective.
        """
        with self.clock.communicating():
            for reducing in self.reductions:
                reducing.finish()

    def set_lr(self, lrs: dict[Network, float]) -> None:
        """Learning rate of the next step, by network."""
        for network, engine in self:
            for group in engine.optimizer.param_groups:
                group["lr"] = lrs[network]


def _check_precision(config: Config) -> None:
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    supported = {
        "fp32": True,
        "bf16": accelerator.is_bf16_supported(),
        "fp16": accelerator.is_fp16_supported(),
    }
    for network in NETWORKS:
        mode = config.precision_mode(network)
        if not supported[mode]:
            possible = ", ".join(name for name, works in supported.items() if works)
            raise ConfigError(
                f"precision.mode = {mode} for the {network}: this {accelerator.device_name()}"
                f" device does not support it; possible here: {possible}"
            )


def build_engines(
    config: Config, generator: Generator, discriminator: Discriminator, world: World
) -> Engines:
    """Wrap both networks; the process group must be open (`group.open_group`).

    The networks are whole and equal on every rank, and belong to the engines afterwards. Raises
    `ConfigError` for what cannot run here (`config.check_world`, a precision that the device does
    not have), `UserError` where the layers do not compile.
    """
    if config.train.cuda_graphs and world.device.type != "cuda":
        raise ConfigError(
            f"train.cuda_graphs = true needs a GPU, and this run is on {world.device.type}"
        )
    compatibility.prepare_deepspeed(world)
    _check_precision(config)
    check_world(config, world.world_size)
    check_compilation(config, generator, discriminator, world)
    accumulation = config.accumulation(world.world_size)
    _check_nodes(config, world)
    compatibility.forget_hpz_groups()
    engines = Engines(
        generator=_build(config, "generator", generator, world, accumulation),
        discriminator=_build(config, "discriminator", discriminator, world, accumulation),
        world=world,
        accumulation=accumulation,
        compute_dtype=DTYPES[config.precision_mode("discriminator")],
        clock=StepClock(world),
        compiled=config.compiles(world.device.type),
    )
    for network, engine in engines:
        if world.world_size > 1 and _reduces_at_the_end(config, network):
            compatibility.reduce_nothing(engine)
            dtype = DTYPES[config.zero.communication_data_type]
            engines.reductions.append(
                reduction.OverlappedReduction(engine, world.world_size, dtype)
            )
    return engines


def _reduces_at_the_end(config: Config, network: Network) -> bool:
    """Whether DeepSpeed would reduce all gradients after the last backward (stage 1 in bf16)."""
    return config.stage(network).keeps_whole_fp32_gradients(
        config.precision_mode(network), config.sharding(network).offload_optimizer
    )


def _check_nodes(config: Config, world: World) -> None:
    """Collective where the weights are partitioned twice:
    no group of ranks may lie partly on another node.
    """
    if not any(config.hpz_partition_size(network, world.world_size) for network in NETWORKS):
        return
    local_ranks = gather_objects(world.local_rank, world)
    per_node = max(local_ranks) + 1
    try:
        if any(local != rank % per_node for rank, local in enumerate(local_ranks)):
            raise ConfigError(
                f"zero.hpz_partition_size = {config.zero.hpz_partition_size}: its groups are of"
                " consecutive ranks, which must lie on one node, but the local rank of each rank"
                f" is {local_ranks}; start as many ranks on every node, one node after the other,"
                " or set zero.hpz_partition_size=null"
            )
        check_world(config, world.world_size, per_node)
    except ConfigError as error:
        raise on_every_rank(error) from None


def _build(
    config: Config,
    network: Network,
    module: Generator | Discriminator,
    world: World,
    accumulation: int,
) -> Engine:
    import deepspeed
    from deepspeed.utils import set_z3_leaf_modules

    halved = config.precision_mode(network) != "fp32"
    if halved:
        exact = {name: p.detach().to("cpu", copy=True) for name, p in module.named_parameters()}
    else:
        exact = {}
    module.to(world.device)
    if config.compiles(world.device.type):
        compile_network(module, config.train.cuda_graphs)
    stage = config.stage(network)
    module.flatten(partitioned=stage.shares_weights)
    if stage.shares_weights:
        compatibility.reduce_by_rows()
        # Their parameters are gathered around the call of a group,
        # so that a layer's forward compiles as one graph.
        set_z3_leaf_modules(module, [LayerGroup])
    engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=_optimizer(config, network, module, world),
        config=deepspeed_config(config, network, module, accumulation, world),
        dist_init_required=False,
    )
    built: Engine = engine
    if world.world_size == 1 and (not stage.shares_moments or _reduces_at_the_end(config, network)):
        compatibility.reduce_nothing(built)
    if halved:
        # DeepSpeed makes its fp32 weights of parameters that it has rounded before.
        set_weights(built, exact, world.rank)
    compatibility.go_on_at_the_smallest_scale(built)
    return built


def _optimizer(
    config: Config, network: Network, module: nn.Module, world: World
) -> torch.optim.AdamW:
    """AdamW of PyTorch, fused (one pass over memory, nothing to compile),
    biases and LayerNorm without decay.
    """
    optim = config.optimizer(network)
    decayed = [p for name, p in module.named_parameters() if not no_decay(name)]
    exempt = [p for name, p in module.named_parameters() if no_decay(name)]
    groups = [
        {"params": decayed, "weight_decay": optim.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.epsilon,
        fused=True,
    )


def deepspeed_config(
    config: Config, network: Network, module: nn.Module, accumulation: int, world: World
) -> dict[str, Any]:
    """DeepSpeed's configuration for one network."""
    elements = sum(p.numel() for p in module.parameters())
    largest = max(p.numel() for p in module.parameters())
    bucket = min(elements, max(_BUCKET_ELEMENTS, largest))
    bucket += bucket % 2  # DeepSpeed aligns gathers to 4 bytes
    mode = config.precision_mode(network)
    precision = config.precision
    stage = config.stage(network)
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.train.micro_rows,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.0,  # the default of 1.0 would clip this network by itself
        "steps_per_print": None,
        "zero_optimization": {
            "stage": stage.number,
            "stage3_param_persistence_threshold": config.zero.persistence_threshold,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            # Parameters are few (`model/flat/slots.py`):
            # each is gathered into its own memory, with no copy for each rank.
            "stage3_allgather_sequential": True,
            # PyTorch's own keeps no more, and is not written in Python
            "memory_efficient_linear": False,
            "contiguous_gradients": True,
            # Stage 2 would send whole gradients all the same,
            # after it has cut them into one slice for each rank.
            "reduce_scatter": stage.reduction == "reduce-scatter",
        }
        | _placement(config, network, bucket, world),
        # PyTorch's AdamW steps offloaded tensors too, fused, nothing to compile
        "zero_force_ds_cpu_optimizer": False,
        # A gradient is added to the fp32 one when it is complete, and let go.
        "bf16": {
            "enabled": mode == "bf16",
            "check_grad_overflow": True,
            "immediate_grad_update": True,
        },
        "fp16": {
            "enabled": mode == "fp16",
            "loss_scale": 0,  # dynamic
            "initial_scale_power": precision.initial_scale_power,
            "loss_scale_window": precision.scale_window,
            "hysteresis": 1,  # every overflow halves the scale, in both engines
            "min_loss_scale": 1,
        },
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": config.zero.communication_data_type,
    }
    return copy.deepcopy(settings)


def _placement(config: Config, network: Network, bucket: int, world: World) -> dict[str, Any]:
    """What DeepSpeed keeps in CPU memory,
    and the groups that partition the weights a second time.
    """
    zero = config.sharding(network)
    settings = dict[str, Any]()
    to_cpu = {"device": "cpu", "pin_memory": world.device.type == "cuda"}
    if zero.offload_optimizer:
        settings["offload_optimizer"] = to_cpu
    if zero.offload_parameters:
        settings["offload_param"] = to_cpu
        # The defaults keep a billion gathered parameters on the GPU until the step ends:
        # nothing would be saved.
        settings |= {"stage3_max_live_parameters": bucket, "stage3_max_reuse_distance": bucket}
    hpz = config.hpz_partition_size(network, world.world_size)
    if hpz:
        settings["zero_hpz_partition_size"] = hpz
    return settings
