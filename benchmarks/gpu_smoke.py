"""The first half minute on a GPU: whether everything imports, and what the device gives before any
of our code.

    python benchmarks/gpu_smoke.py --json smoke.json

Prints the versions, the rate of a large matrix product cold and warm, and the bandwidth of a copy
within the device and from pinned memory: the two ceilings that every later figure is read against.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from attempts import write_json
from torch.utils.benchmark import Timer

from electra_dist.measure.bench import device_name
from electra_dist.parallel.hardware import device_of_command, product_rate

#: What the GPU script needs; what is missing is named, and ends it.
NEEDED = (
    "deepspeed",
    "transformers",
    "pydantic",
    "webdataset",
    "sentencepiece",
    "safetensors",
    "tokenizers",
    "numpy",
)
COPIES = 10
MEGABYTES = {"cuda": 1024, "cpu": 64}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in NEEDED:
        importlib.import_module(name)
        found[name] = importlib.metadata.version(name)
    return found


def seconds(copy: Callable[[], object]) -> float:
    """Mean of some copies; the timer warms up and waits for the device."""
    return float(Timer("copy()", globals={"copy": copy}).timeit(COPIES).mean)


def bandwidths(device: torch.device) -> dict[str, float]:
    """Bytes a second, read and written ones counted."""
    size = MEGABYTES[device.type] << 20
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found = {"within_device": 2 * size / seconds(lambda: target.copy_(source))}
    if device.type == "cuda":
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        found["from_pinned_memory"] = size / seconds(lambda: target.copy_(host, non_blocking=True))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = device_of_command(arguments.device)
    if device.type == "cuda":
        dtype = torch.bfloat16
    else:
        dtype = torch.float32
    rate = product_rate(device, dtype)
    found = versions()
    copies = bandwidths(device)
    figures = {
        "device": device_name(device),
        "versions": found,
        "matrix_product_rate": {"cold": rate.cold, "warm": rate.warm},
        "bytes_per_s": copies,
    }
    print(
        f"{figures['device']}: {', '.join(f'{name} {version}' for name, version in found.items())}"
    )
    print(
        f"{dtype} matrix products: {rate.cold / 1e12:.4g} TFLOP/s cold, {rate.warm / 1e12:.4g} warm"
    )
    for name, value in copies.items():
        print(f"copy {name.replace('_', ' ')}: {value / 1e9:,.1f} GB/s")
    write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
