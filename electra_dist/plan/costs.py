"""What one ZeRO stage of a run costs: memory, traffic, and the seconds of a step.

Comes in: `Costs`, the facts and assumptions of a run. Goes out: `StagePlan`. Speed is the device's
rate times an *assumed* utilisation, but no faster than the host can start the device's work, plus
the time on the network that nothing hides; memory is computed (`memory.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from electra_dist.config import NETWORKS, STAGES, Config, Network, Stage
from electra_dist.plan.activations import micro_batch_sizes
from electra_dist.plan.devices import Device
from electra_dist.plan.memory import MemoryPlan, plan_memory
from electra_dist.plan.sizes import flat_parameters, step_flops
from electra_dist.plan.traffic import SentBytes, sent_bytes

#: Beyond tensors: CUDA context, libraries and communicators; blocks that the allocator cannot use.
RESERVE_BYTES = 2e9
FRAGMENTATION = 0.05
_SECONDS_A_DAY = 86400.0
#: The host's part of a micro-batch on a GPU. For a layer, forward and backward: a compiled graph's
#: calls (estimated). For a flat parameter: DeepSpeed's, by stage (`benchmarks/host_time.py` on a
#: CPU, for the 9 of base and the 18 of large: 3 to 11 ms at stage 1, 4 to 10 at stage 2, 11 to 23
#: at stage 3, at any number of ranks).
_LAYER_SECONDS = 0.4e-3
_FLAT_SECONDS = 0.5e-3
_GATHERED_FLAT_SECONDS = 1.1e-3
#: The stages at which more ranks hold less each.
SHARING = tuple(stage for stage in STAGES.values() if stage.shares_moments)


@dataclass(frozen=True)
class StagePlan:
    """One ZeRO stage, for both networks alike.

    problem         why it cannot run, or None
    needed_bytes    peak of the tensors, and the reserve
    host_bytes      CPU memory of a node for what its ranks offload
    saving_bytes    CPU memory of a node for the copies that are saved in the background; on a CPU
                    part of needed_bytes
    fits            GPU and CPU; None where a memory that matters is not known
    network_bytes   what a rank sends in a step, to its own node and to others
    between_bytes   of it, to other nodes
    utilisation     of the rate that the whole step comes to
    host_seconds    of a step that the host needs to start the device's work, at least: a step takes
                    no less
    """

    stage: int
    configured: bool
    problem: str | None
    memory: MemoryPlan
    needed_bytes: float
    host_bytes: float
    saving_bytes: float
    fits: bool | None
    network_bytes: float
    between_bytes: float
    host_seconds: float
    utilisation: float
    step_seconds: float
    tokens_per_s: float
    days: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"memory": self.memory.to_dict()}


@dataclass(frozen=True)
class Costs:
    """What every stage has in common: the arguments of `costs_of`,
    checked and with the device's own in the gaps.
    """

    config: Config
    vocab_size: int
    nodes: int
    gpus_per_node: int
    device: Device
    memory_bytes: float | None
    host_memory_bytes: float | None
    document_length: int
    utilisation: float
    rate: float
    network_gbit: float

    @property
    def world(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def step_tokens(self) -> int:
        return self.config.train.global_rows * self.config.data.row_length

    @property
    def flops_per_token(self) -> float:
        size = micro_batch_sizes(self.config)
        squares = size.tokens * self.document_length
        return (
            step_flops(self.config, self.vocab_size, size.tokens, squares, size.masked)
            / size.tokens
        )

    @property
    def accumulation(self) -> int:
        return self.config.accumulation(self.world)

    @property
    def busy_seconds(self) -> float:
        """Of a step that a device needs for its arithmetic."""
        return self.step_tokens / self.world * self.flops_per_token / (self.rate * self.utilisation)

    def host_seconds(self, stages: dict[Network, Stage]) -> float:
        """What the host of a GPU needs for a step; a CPU does the work itself."""
        if self.kind == "cpu":
            return 0.0
        seconds = 0.0
        for network, flat in flat_parameters(self.config, self.vocab_size).items():
            seconds += self.config.network(network).layers * _LAYER_SECONDS
            if stages[network].shares_weights:
                seconds += len(flat) * _GATHERED_FLAT_SECONDS
            else:
                seconds += len(flat) * _FLAT_SECONDS
        return seconds * self.accumulation

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        if self.device.name == "cpu":
            return "cpu"
        return "cuda"

    def stage(self, stages: dict[Network, Stage]) -> StagePlan:
        """Memory, network and time with each network at its ZeRO stage of `stages`."""
        config = self.config
        memory = plan_memory(config, self.vocab_size, self.world, self.kind, stages)
        needed = memory.peak * (1 + FRAGMENTATION) + RESERVE_BYTES
        volumes = [
            sent_bytes(config, name, self.vocab_size, stages[name], self.world) for name in NETWORKS
        ]
        sent = sum(volume.total for volume in volumes)
        between = sum(self.between_nodes(volume) for volume in volumes)
        host = memory.host * self.gpus_per_node
        saving = memory.saving * self.gpus_per_node
        if self.kind == "cpu":
            needed += memory.saving
        busy = self.busy_seconds
        host_seconds = self.host_seconds(stages)
        seconds = max(busy, host_seconds) + self.exposed_seconds(stages, volumes, busy)
        wanted = {name: config.stage(name) for name in NETWORKS}
        return StagePlan(
            stage=stages["discriminator"].number,
            configured=stages == wanted,
            problem=self.problem(stages),
            memory=memory,
            needed_bytes=needed,
            host_bytes=host,
            saving_bytes=saving,
            fits=self.fits(needed, host, saving),
            network_bytes=sent,
            between_bytes=between,
            host_seconds=host_seconds,
            utilisation=busy * self.utilisation / seconds,
            step_seconds=seconds,
            tokens_per_s=self.step_tokens / seconds,
            days=config.train.steps * seconds / _SECONDS_A_DAY,
        )

    def exposed_seconds(
        self, stages: dict[Network, Stage], volumes: list[SentBytes], busy: float
    ) -> float:
        """Of a step, on the network and not beside the computation.

        Stage 3 gathers and reduces beside all of it, stage 1 in bf16 reduces beside the backward of
        the last micro-batch, two thirds of its time. Nothing else is hidden, and weights after an
        update never are.
        """
        hidden = exposed = 0.0
        for network, volume in zip(NETWORKS, volumes, strict=True):
            seconds = self.network_seconds(volume)
            updated = self.network_seconds(SentBytes(volume.updated, 0.0))
            beside = stages[network].shares_weights or stages[network].keeps_whole_fp32_gradients(
                self.config.precision_mode(network), self.config.sharding(network).offload_optimizer
            )
            hidden += (seconds - updated) * beside
            exposed += updated + (seconds - updated) * (not beside)
        backward = busy * 2 / 3 / self.accumulation
        if any(stage.shares_weights for stage in stages.values()):
            room = busy
        else:
            room = backward
        return exposed + max(0.0, hidden - room)

    def network_seconds(self, volume: SentBytes) -> float:
        """What sending so much takes."""
        between = self.between_nodes(volume)
        return (volume.total - between) / self.device.link_bytes + between / (
            self.network_gbit / 8 * 1e9
        )

    def fits(self, needed: float, host: float, saving: float) -> bool | None:
        """Whether a GPU holds `needed` bytes and a node's CPU memory what is offloaded and what is
        being saved.

        Where nothing is offloaded, nobody needs to say how much CPU memory there is.
        """
        pairs = [(needed, self.memory_bytes)]
        if host or self.host_memory_bytes is not None:
            pairs.append((host + (saving if self.kind == "cuda" else 0.0), self.host_memory_bytes))
        if any(room is not None and size > room for size, room in pairs):
            return False
        if any(room is None for _, room in pairs):
            return None
        return True

    def between_nodes(self, volume: SentBytes) -> float:
        """What of it a rank sends to other nodes on average: in a ring over several nodes one link
        of each node.

        NCCL runs several rings, so that every GPU's own link to the network takes its part.
        """
        group = self.config.zero.hpz_partition_size or 1
        if self.world > self.gpus_per_node:
            crossing = volume.all_ranks
        else:
            crossing = 0.0
        return (
            crossing + (volume.groups if group > self.gpus_per_node else 0.0)
        ) / self.gpus_per_node

    def problem(self, stages: dict[Network, Stage]) -> str | None:
        """What `config` and `zero.engines` refuse."""
        for name in NETWORKS:
            mode = self.config.precision_mode(name)
            zero = self.config.sharding(name)
            stage = stages[name]
            if mode != "fp32" and not stage.can_train_in_half_precision:
                return f"stage {stage.number} needs precision.mode=fp32, found {mode}"
            if zero.offload_optimizer and not stage.can_offload_optimizer:
                return f"stage {stage.number} needs zero.offload_optimizer=false"
            if zero.offload_parameters and not stage.can_offload_parameters:
                return f"stage {stage.number} needs zero.offload_parameters=false"
            if mode == "bf16" and not self.device.bf16:
                return f"{self.device.name} has no bf16: set precision.mode=fp16"
        return None
