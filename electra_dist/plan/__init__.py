"""What a configuration costs, before anything runs: parameters, operations, memory, time, network.
Pure arithmetic.

No torch: a login node can ask. `sizes` counts parameters and floating-point operations,
`activations` what a micro-batch keeps for its backward, `memory` what lies in a rank's memory and
when it is most, `traffic` what a rank sends in a step, `room` what its checkpoints take on the
disk, `estimate` puts them together for a number of nodes and a kind of GPU (`devices`), and `fit`
looks for what suits them.
"""

from electra_dist.architectures import Surroundings
from electra_dist.plan.costs import Costs, StagePlan
from electra_dist.plan.devices import DEVICES, Device, find_device, recognise
from electra_dist.plan.estimate import (
    NETWORK_GBIT,
    UTILISATION,
    Plan,
    costs_of,
    plan_of,
    plan_run,
)
from electra_dist.plan.fit import Fit, fits
from electra_dist.plan.memory import MemoryPlan, plan_memory
from electra_dist.plan.room import checkpoint_bytes, checkpoints_at_once, room_to_come
from electra_dist.plan.sizes import (
    FORWARD_AND_BACKWARD,
    ParameterCount,
    embedding_parameters,
    encoder_parameters,
    flat_parameters,
    parameters,
    step_flops,
)
from electra_dist.plan.traffic import SentBytes, sent_bytes

__all__ = [
    "DEVICES",
    "FORWARD_AND_BACKWARD",
    "NETWORK_GBIT",
    "UTILISATION",
    "Costs",
    "Device",
    "Fit",
    "MemoryPlan",
    "ParameterCount",
    "Plan",
    "SentBytes",
    "StagePlan",
    "Surroundings",
    "checkpoint_bytes",
    "checkpoints_at_once",
    "costs_of",
    "embedding_parameters",
    "encoder_parameters",
    "find_device",
    "fits",
    "flat_parameters",
    "parameters",
    "plan_memory",
    "plan_of",
    "plan_run",
    "recognise",
    "room_to_come",
    "sent_bytes",
    "step_flops",
]
