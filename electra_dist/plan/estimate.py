"""A run on so many GPUs of a kind: memory, speed, time and network at every ZeRO stage.

Comes in: a configuration, a vocabulary size, nodes and GPUs. Goes out: `Plan`, what `costs.py` says
of each stage, and what `remedies.py` says of them together. `electra-dist bench step` measures
memory and speed on the machine itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from electra_dist.config import NETWORKS, STAGES, Config, check_world
from electra_dist.errors import UserError
from electra_dist.plan import remedies
from electra_dist.plan.costs import Costs, StagePlan
from electra_dist.plan.devices import Device, find_device
from electra_dist.plan.room import checkpoint_bytes
from electra_dist.plan.sizes import ParameterCount, parameters

#: Fraction of the data sheet's rate that a step reaches, unless told otherwise.
UTILISATION = 0.3
#: Gbit/s of each GPU to other nodes, unless told otherwise.
NETWORK_GBIT = 200.0


@dataclass(frozen=True)
class Plan:
    """What a run costs.

    flops_per_token     forward and backward, both networks; the generator's head at the masked
                        positions only
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
        content = asdict(self) | {
            "world_size": self.world_size,
            "configured": self.configured.to_dict(),
        }
        content["parameters"]["total"] = self.parameters.total
        return content | {"stages": [stage.to_dict() for stage in self.stages]}


def plan_run(
    config: Config, vocab_size: int, nodes: int, gpus_per_node: int, gpu: str, **assumed: Any
) -> Plan:
    """The plan of `config` on `nodes` x `gpus_per_node` devices of the kind `gpu`;
    `assumed` as in `costs_of`.
    """
    return plan_of(costs_of(config, vocab_size, nodes, gpus_per_node, gpu, **assumed))


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

    Raises `UserError` for a number that cannot be, a kind of GPU that is not known, and a world
    size that cannot train this configuration.
    """
    device = find_device(gpu)
    _check_numbers(
        nodes=nodes, gpus_per_node=gpus_per_node, network_gbit=network_gbit, vocabulary=vocab_size
    )
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


def plan_of(costs: Costs) -> Plan:
    """The run as configured, and at each stage for both networks alike."""
    config = costs.config
    configured = costs.stage({name: config.stage(name) for name in NETWORKS})
    stages = tuple(costs.stage(dict.fromkeys(NETWORKS, stage)) for stage in STAGES.values())
    count = parameters(config, costs.vocab_size)
    checkpoint = checkpoint_bytes(config, costs.vocab_size)
    return Plan(
        nodes=costs.nodes,
        gpus_per_node=costs.gpus_per_node,
        device=costs.device,
        memory_bytes=costs.memory_bytes,
        parameters=count,
        flops_per_token=costs.flops_per_token,
        document_length=costs.document_length,
        step_tokens=costs.step_tokens,
        accumulation=costs.accumulation,
        utilisation=costs.utilisation,
        rate=costs.rate,
        network_gbit=costs.network_gbit,
        checkpoint_bytes=checkpoint,
        checkpoints_bytes=checkpoint * config.checkpoint.keep,
        configured=configured,
        stages=stages,
        warnings=tuple(remedies.warnings(costs, configured, stages)),
        advice=tuple(remedies.advice(costs, configured, stages)),
    )
