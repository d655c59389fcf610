"""Who makes the host wait for the device: watches a block of code, and blames the line nearest to
the operation.

On CPU nothing waits, so what *would* wait on CUDA is looked for: operations whose result the host
reads (`_local_scalar_dense`, which is behind `item`, `bool`, `float`, `tolist`; data-dependent
shapes), and tensors made from host numbers straight on a device. On CUDA PyTorch's own
synchronisation debug mode reports the real ones.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations after which the host knows something that the device computed.
READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::is_nonzero",
    "aten::equal",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
}
#: Functions that copy host numbers to the device they are given, and wait.
MAKERS = {torch.tensor, torch.as_tensor, torch.scalar_tensor}
#: Methods that read a tensor without an operation that could be seen.
READERS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}
PACKAGES = ("electra_dist", "deepspeed")


class Place(NamedTuple):
    """Package, file and function of the innermost frame of either package."""

    package: str
    file: str
    function: str


def culprit() -> Place | None:
    """The frame nearest to here that belongs to one of the packages."""
    frame = sys._getframe(1)
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        for package in PACKAGES:
            if package in parts[:-1]:
                return Place(package, parts[-1], frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return None


class _Reads(TorchDispatchMode):
    def __init__(self, found: Callable[[], None]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        by_mask = name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in READS or by_mask:
            self.found()
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, found: Callable[[], None]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READERS or (func in MAKERS and (kwargs or {}).get("device") is not None):
            self.found()
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[set[Place]]:
    """The places in either package at which the block makes the host wait for the device,
    or would on CUDA.
    """
    places: set[Place] = set()

    def found(*_: Any, **__: Any) -> None:
        place = culprit()
        if place is not None:
            places.add(place)

    if torch.cuda.is_available():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: (
                found() if "synchroniz" in str(message) else None
            )  # type: ignore[assignment]
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield places
            finally:
                torch.cuda.set_sync_debug_mode("default")
    else:
        with _Reads(found), _Calls(found):
            yield places
