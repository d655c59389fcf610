"""Kinds of GPU: memory, dense matrix-product rate and links, from the makers' data sheets.

Rates are without sparsity, memory is what the maker states (GB = 10^9 bytes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from electra_dist.config import PrecisionMode
from electra_dist.errors import UserError, nearest


@dataclass(frozen=True)
class Device:
    """One accelerator.

    memory_bytes     None: not known (a CPU: whatever the machine has)
    half_rate        FLOP/s of bf16 and fp16 matrix products; of fp16 only where `bf16` is False
    single_rate      FLOP/s of fp32 matrix products as PyTorch computes them by default (no TF32)
    link_bytes       bytes a second from one GPU to the others of its node, one direction
    """

    name: str
    memory_bytes: float | None
    half_rate: float
    single_rate: float
    link_bytes: float
    bf16: bool = True

    def rate(self, mode: PrecisionMode) -> float:
        """FLOP/s in `mode`."""
        if mode == "fp32":
            return self.single_rate
        return self.half_rate


_T = 1e12
_G = 1e9
#: By the names that `--gpu` takes.
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("b200", 180 * _G, 2250 * _T, 75 * _T, 900 * _G),
        Device("h200", 141 * _G, 989 * _T, 67 * _T, 450 * _G),
        Device("h100", 80 * _G, 989 * _T, 67 * _T, 450 * _G),
        Device("h100-pcie", 80 * _G, 756 * _T, 51 * _T, 64 * _G),
        Device("a100", 80 * _G, 312 * _T, 19.5 * _T, 300 * _G),
        Device("a100-40gb", 40 * _G, 312 * _T, 19.5 * _T, 300 * _G),
        Device("mi300x", 192 * _G, 1307 * _T, 163 * _T, 448 * _G),
        Device("l40s", 48 * _G, 362 * _T, 91.6 * _T, 32 * _G),
        Device("a40", 48 * _G, 150 * _T, 37.4 * _T, 56 * _G),
        Device("l4", 24 * _G, 121 * _T, 30 * _T, 32 * _G),
        Device("a10", 24 * _G, 125 * _T, 31.2 * _T, 32 * _G),
        Device("v100", 32 * _G, 125 * _T, 15.7 * _T, 150 * _G, bf16=False),
        # One process on one core; `--rate` takes what `bench step` measured instead.
        Device("cpu", None, 0.05 * _T, 0.05 * _T, 5 * _G),
    )
}


def find_device(name: str) -> Device:
    """The device of this name; raises `UserError` with those there are."""
    if name.lower() not in DEVICES:
        raise UserError(
            f"`gpu` {name}: not known{nearest(name.lower(), DEVICES)}; known: {', '.join(DEVICES)}."
            " For another one take the nearest and set `gpu_memory` and `rate`"
        )
    return DEVICES[name.lower()]


def recognise(called: str) -> Device | None:
    """The GPU that its driver calls so ("NVIDIA A100-SXM4-40GB"); None where it is not listed."""
    words = set(re.split(r"[^a-z0-9]+", called.lower()))
    by_detail = sorted(DEVICES.values(), key=lambda device: -device.name.count("-"))
    for device in by_detail:
        if device.name != "cpu" and words.issuperset(device.name.split("-")):
            return device
    return None
