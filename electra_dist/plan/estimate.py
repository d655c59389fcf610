"""A run on so many GPUs of a kind: memory, speed, time and network at every ZeRO stage.

Comes in: a configuration, a vocabulary size, nodes and GPUs. Goes out: `Plan`. Speed is the device's rate times an
*assumed* utilisation, but no faster than the host can start the device's work, plus the time on the network in full, as
if nothing overlapped; memory is computed (`memory.py`). `electra-dist bench step` measures both on the machine itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from electra_dist.config import NETWORKS, Config, Network, check_world, divisors
from electra_dist.errors import UserError
from electra_dist.plan.activations import micro_batch_sizes
from electra_dist.plan.devices import Device, find_device
from electra_dist.plan.memory import MemoryPlan, plan_memory
from electra_dist.plan.room import checkpoint_bytes
from electra_dist.plan.sizes import ParameterCount, flat_parameters, parameters, step_flops
from electra_dist.plan.traffic import SentBytes, sent_bytes

#: Fraction of the data sheet's rate that a step reaches, unless told otherwise.
UTILISATION = 0.3
#: Gbit/s of each GPU to other nodes, unless told otherwise.
NETWORK_GBIT = 200.0
STAGES = (0, 1, 2, 3)
#: Beyond tensors: CUDA context, libraries and communicators; blocks that the allocator cannot use.
RESERVE_BYTES, FRAGMENTATION = 2e9, 0.05
_SECONDS_A_DAY = 86400.0
#: The host's part of a micro-batch on a GPU. For a layer, forward and backward: a compiled graph's calls (estimated).
#: For a flat parameter: DeepSpeed's, by stage (`benchmarks/host_time.py` on a CPU: 1 to 9 ms at stage 1 for the 9 of
#: base and the 18 of large, 3 to 16 at stage 2, 10 to 21 at stage 3, at 8 and at 1,024 ranks).
_LAYER_SECONDS = 0.4e-3
_FLAT_SECONDS = {0: 0.5e-3, 1: 0.5e-3, 2: 0.5e-3, 3: 1.1e-3}
#: Below this size sharding the weights buys nothing that stage 1 does not.
_WORTH_SHARDING = 1e9


@dataclass(frozen=True)
class StagePlan:
    """One ZeRO stage, for both networks alike.

    problem         why it cannot run, or None
    needed_bytes    peak of the tensors, and the reserve
    host_bytes      CPU memory of a node for what its ranks offload
    saving_bytes    CPU memory of a node for the copies that are saved in the background; on a CPU part of needed_bytes
    fits            GPU and CPU; None where a memory that matters is not known
    network_bytes   what a rank sends in a step, to its own node and to others
    between_bytes   of it, to other nodes
    host_seconds    of a step that the host needs to start the device's work, at least: a step takes no less
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
    step_seconds: float
    tokens_per_s: float
    days: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"memory": self.memory.to_dict()}


@dataclass(frozen=True)
class Plan:
    """What a run costs.

    flops_per_token     forward and backward, both networks; the generator's head at the masked positions only
    document_length     that attention was counted for
    step_tokens         positions of a step, all rows taken as full
    configured          the run as its `zero` section has it; the networks' stages may differ
    warnings            in the order of their weight
    advice              what would be faster, and needs no change elsewhere
    """

    nodes: int
    gpus_per_node: int
    device: Device
    memory_bytes: float | None
    parameters: ParameterCount
    flops_per_token: float
    document_length: int
    step_tokens: int
    accumulation: int
    utilisation: float
    rate: float
    network_gbit: float
    checkpoint_bytes: int
    checkpoints_bytes: int
    configured: StagePlan
    stages: tuple[StagePlan, ...]
    warnings: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus_per_node

    def to_dict(self) -> dict[str, Any]:
        content = asdict(self) | {"world_size": self.world_size, "configured": self.configured.to_dict()}
        content["parameters"]["total"] = self.parameters.total
        return content | {"stages": [stage.to_dict() for stage in self.stages]}


def plan_run(config: Config, vocab_size: int, nodes: int, gpus_per_node: int, gpu: str, **assumed: Any) -> Plan:
    """The plan of `config` on `nodes` x `gpus_per_node` devices of the kind `gpu`; `assumed` as in `costs_of`."""
    return costs_of(config, vocab_size, nodes, gpus_per_node, gpu, **assumed).plan()


def costs_of(
    config: Config,
    vocab_size: int,
    nodes: int,
    gpus_per_node: int,
    gpu: str,
    *,
    document_length: int | None = None,
    utilisation: float = UTILISATION,
    rate: float | None = None,
    memory_bytes: float | None = None,
    network_gbit: float = NETWORK_GBIT,
    host_memory_bytes: float | None = None,
) -> Costs:
    """What a plan of `config` on `nodes` x `gpus_per_node` devices of the kind `gpu` is made from.

    document_length   tokens of a document as attention sees it; default: a document fills its row
    utilisation       fraction of the rate that a step reaches
    rate              FLOP/s of one device, in place of the data sheet's
    memory_bytes      memory of one device, in place of the data sheet's
    network_gbit      Gbit/s of each GPU to other nodes
    host_memory_bytes CPU memory of one node; what is offloaded must fit

    Raises `UserError` for a number that cannot be, a kind of GPU that is not known, and a world size that cannot
    train this configuration.
    """
    device = find_device(gpu)
    _check_numbers(nodes=nodes, gpus_per_node=gpus_per_node, network_gbit=network_gbit, vocabulary=vocab_size)
    if not 0 < utilisation <= 1:
        raise UserError(f"utilisation = {utilisation}: expected a fraction above 0, up to 1")
    check_world(config, nodes * gpus_per_node, gpus_per_node)
    return Costs(
        config=config,
        vocab_size=vocab_size,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        device=device,
        memory_bytes=memory_bytes or device.memory_bytes,
        host_memory_bytes=host_memory_bytes,
        document_length=min(document_length or config.data.row_length, config.data.row_length),
        utilisation=utilisation,
        rate=rate or device.rate(config.precision_mode("discriminator")),
        network_gbit=network_gbit,
    )


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if value <= 0:
            raise UserError(f"{name.replace('_', ' ')} = {value}: expected a number above 0")


@dataclass(frozen=True)
class Costs:
    """What every stage has in common: the arguments of `costs_of`, checked and with the device's own in the gaps."""

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
        return step_flops(self.config, self.vocab_size, size.tokens, squares, size.masked) / size.tokens

    @property
    def accumulation(self) -> int:
        return self.config.train.global_rows // self.world // self.config.train.micro_rows

    @property
    def busy_seconds(self) -> float:
        """Of a step that a device needs for its arithmetic."""
        return self.step_tokens / self.world * self.flops_per_token / (self.rate * self.utilisation)

    def host_seconds(self, stages: dict[Network, int]) -> float:
        """What the host of a GPU needs for a step; a CPU does the work itself."""
        if self.kind == "cpu":
            return 0.0
        seconds = 0.0
        for network, flat in flat_parameters(self.config, self.vocab_size).items():
            seconds += self.config.network(network).layers * _LAYER_SECONDS
            seconds += len(flat) * _FLAT_SECONDS[stages[network]]
        return seconds * self.accumulation

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        return "cpu" if self.device.name == "cpu" else "cuda"

    def plan(self) -> Plan:
        """The run as configured, and at each stage for both networks alike."""
        config = self.config
        configured = self.stage({name: config.zero_stage(name) for name in NETWORKS})
        stages = tuple(self.stage(dict.fromkeys(NETWORKS, stage)) for stage in STAGES)
        count = parameters(config, self.vocab_size)
        checkpoint = checkpoint_bytes(config, self.vocab_size)
        return Plan(
            nodes=self.nodes,
            gpus_per_node=self.gpus_per_node,
            device=self.device,
            memory_bytes=self.memory_bytes,
            parameters=count,
            flops_per_token=self.flops_per_token,
            document_length=self.document_length,
            step_tokens=self.step_tokens,
            accumulation=self.accumulation,
            utilisation=self.utilisation,
            rate=self.rate,
            network_gbit=self.network_gbit,
            checkpoint_bytes=checkpoint,
            checkpoints_bytes=checkpoint * config.checkpoint.keep,
            configured=configured,
            stages=stages,
            warnings=tuple(_warnings(self, configured, stages)),
            advice=tuple(_advice(self, configured, stages)),
        )

    def stage(self, stages: dict[Network, int]) -> StagePlan:
        """Memory, network and time with each network at its ZeRO stage of `stages`."""
        config = self.config
        memory = plan_memory(config, self.vocab_size, self.world, self.kind, stages)
        needed = memory.peak * (1 + FRAGMENTATION) + RESERVE_BYTES
        volumes = [sent_bytes(config, name, self.vocab_size, stages[name], self.world) for name in NETWORKS]
        sent = sum(volume.total for volume in volumes)
        between = sum(self.between_nodes(volume) for volume in volumes)
        host, saving = memory.host * self.gpus_per_node, memory.saving * self.gpus_per_node
        if self.kind == "cpu":
            needed += memory.saving
        busy = self.busy_seconds
        host_seconds = self.host_seconds(stages)
        seconds = max(busy, host_seconds)
        seconds += (sent - between) / self.device.link_bytes + between / (self.network_gbit / 8 * 1e9)
        wanted = {name: config.zero_stage(name) for name in NETWORKS}
        return StagePlan(
            stage=stages["discriminator"],
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
            step_seconds=seconds,
            tokens_per_s=self.step_tokens / seconds,
            days=config.train.steps * seconds / _SECONDS_A_DAY,
        )

    def fits(self, needed: float, host: float, saving: float) -> bool | None:
        """Whether a GPU holds `needed` bytes and a node's CPU memory what is offloaded and what is being saved.

        Where nothing is offloaded, nobody needs to say how much CPU memory there is.
        """
        pairs = [(needed, self.memory_bytes)]
        if host or self.host_memory_bytes is not None:
            pairs.append((host + (saving if self.kind == "cuda" else 0.0), self.host_memory_bytes))
        if any(room is not None and size > room for size, room in pairs):
            return False
        return None if any(room is None for _, room in pairs) else True

    def between_nodes(self, volume: SentBytes) -> float:
        """What of it a rank sends to other nodes on average: in a ring over several nodes one link of each node.

        NCCL runs several rings, so that every GPU's own link to the network takes its part.
        """
        group = self.config.zero.hpz_partition_size or 1
        crossing = volume.all_ranks if self.world > self.gpus_per_node else 0.0
        return (crossing + (volume.groups if group > self.gpus_per_node else 0.0)) / self.gpus_per_node

    def problem(self, stages: dict[Network, int]) -> str | None:
        """What `config` and `train.engines` refuse."""
        for name in NETWORKS:
            mode, zero = self.config.precision_mode(name), self.config.sharding(name)
            if stages[name] == 0 and mode != "fp32":
                return f"stage 0 needs precision.mode=fp32, found {mode}"
            if stages[name] == 0 and zero.offload_optimizer:
                return "stage 0 needs zero.offload_optimizer=false"
            if stages[name] < 3 and zero.offload_parameters:
                return f"stage {stages[name]} needs zero.offload_parameters=false"
            if mode == "bf16" and not self.device.bf16:
                return f"{self.device.name} has no bf16: set precision.mode=fp16"
        return None


def _warnings(costs: Costs, configured: StagePlan, stages: tuple[StagePlan, ...]) -> list[str]:
    found = []
    if configured.problem:
        found.append(f"cannot run as configured: {configured.problem}")
    if costs.memory_bytes is not None and configured.needed_bytes > costs.memory_bytes:
        found.append(
            f"will not fit: {configured.needed_bytes / 1e9:.1f} GB needed (peak of tensors"
            f" {configured.memory.peak / 1e9:.1f} GB, the rest reserve), {costs.device.name} has"
            f" {costs.memory_bytes / 1e9:.0f} GB; " + _remedy(costs, stages)
        )
    host = configured.host_bytes + (configured.saving_bytes if costs.kind == "cuda" else 0.0)
    if costs.host_memory_bytes is not None and host > costs.host_memory_bytes:
        found.append(
            f"will not fit: {host / 1e9:.1f} GB of CPU memory a node needed for what is offloaded"
            f" ({configured.host_bytes / 1e9:.1f} GB) and for saving in the background"
            f" ({configured.saving_bytes / 1e9:.1f} GB), there are {costs.host_memory_bytes / 1e9:.0f} GB; offload"
            " less, set checkpoint.asynchronous=false, or take more nodes"
        )
    return found


def _advice(costs: Costs, configured: StagePlan, stages: tuple[StagePlan, ...]) -> list[str]:
    """Stage 3 where it costs time and saves memory that nobody needs."""
    first = stages[1]
    count = parameters(costs.config, costs.vocab_size).total
    if configured.stage != 3 or count >= _WORTH_SHARDING or first.problem or not first.fits:
        return []
    if configured.step_seconds < 1.05 * first.step_seconds:
        return []
    return [
        f"zero.stage=1 fits too, and is estimated {configured.step_seconds / first.step_seconds:.1f} times as fast: at"
        f" stage 3 a rank sends {configured.network_bytes / 1e9:.1f} GB a step, at stage 1"
        f" {first.network_bytes / 1e9:.1f} GB"
    ]


def _remedy(costs: Costs, stages: tuple[StagePlan, ...]) -> str:
    """What to change so that it fits: a higher stage, checkpointing, fewer rows at once, offload: in order of price."""
    for stage in stages:
        if stage.fits and not stage.problem:
            return f"zero.stage={stage.stage} fits"
    config = costs.config
    thrifty = config.model_copy(update={"train": config.train.model_copy(update={"activation_checkpointing": True})})
    rows = config.train.global_rows // costs.world
    tries = [("train.activation_checkpointing=true", thrifty)]
    for micro in sorted((m for m in divisors(rows) if m < config.train.micro_rows), reverse=True):
        smaller = config.train.model_copy(update={"micro_rows": micro})
        tries.append((f"train.micro_rows={micro}", config.model_copy(update={"train": smaller})))
    tries += _offload_tries([("", config), tries[0], tries[-1]])
    for change, changed in tries:
        for number in (1, 2, 3):
            found = replace(costs, config=changed).stage(dict.fromkeys(NETWORKS, number))
            if found.needed_bytes <= (costs.memory_bytes or 0.0) and found.fits is not False:
                host = f", with {found.host_bytes / 1e9:.0f} GB of CPU memory a node" if found.host_bytes else ""
                return f"{change} with zero.stage={number} fits{host}"
    return "not even one row a micro-batch at stage 3 with the optimizer offloaded fits; take more or larger GPUs"


def _offload_tries(tries: list[tuple[str, Config]]) -> list[tuple[str, Config]]:
    """The same changes with the optimizer in CPU memory."""
    offloaded = []
    for change, config in tries:
        zero = config.zero.model_copy(update={"offload_optimizer": True})
        offloaded.append((f"{change} zero.offload_optimizer=true".strip(), config.model_copy(update={"zero": zero})))
    return offloaded
