"""A copy of this rank's share of the state in CPU memory, so that training goes on while it is
written.

The memory is made at the first copy and used again for every later one. On CUDA it is pinned and
the copies are only queued: the device makes them after the step that is saved and before the next
one changes anything, because all of them go through the stream that the optimizer works in. `ready`
waits for them. On a CPU the copy is made at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor

from electra_dist.console import warn

#: cudaHostRegisterPortable: pinned for every CUDA context of the process.
_PORTABLE = 1


class HostCopy:
    """One buffer for each network."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    @property
    def bytes(self) -> int:
        """Of the memory that it holds."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers.values())

    def take(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Copies of flat fp32 tensors, by network and name; those of the call before are
        overwritten.

        Does not wait for the device: call `ready` before the copies are read.
        """
        copies: dict[str, dict[str, Tensor]] = {}
        self._copied = None
        for network, named in tensors.items():
            sizes = [tensor.numel() for tensor in named.values()]
            on_device = any(tensor.is_cuda for tensor in named.values())
            parts = self._buffer(network, sum(sizes), on_device).split(sizes)
            copies[network] = dict(zip(named, parts, strict=True))
            for name, tensor in named.items():
                copies[network][name].copy_(tensor.detach(), non_blocking=True)
            if on_device and self._copied is None:
                self._copied = torch.cuda.Event()
        if self._copied is not None:
            self._copied.record()
        return copies

    def ready(self) -> None:
        """Wait until the copies are made; from any thread."""
        if self._copied is not None:
            self._copied.synchronize()

    def _buffer(self, network: str, elements: int, pinned: bool) -> Tensor:
        if network not in self._buffers:
            self._buffers[network] = torch.empty(elements, dtype=torch.float32)
            if pinned and elements:
                self._pin(self._buffers[network])
        buffer = self._buffers[network]
        assert buffer.numel() == elements, "a rank's share never changes"
        return buffer

    def _pin(self, buffer: Tensor) -> None:
        """Lock the memory of `buffer`.
        PyTorch's own pinned tensors are rounded up to a power of two.
        """
        runtime = torch.cuda.cudart()
        address = buffer.data_ptr()
        size = buffer.numel() * buffer.element_size()
        status = int(runtime.cudaHostRegister(address, size, _PORTABLE))
        if status != 0:
            warn(
                f"the memory for saving ({size / 1e9:.1f} GB) cannot be pinned (CUDA error"
                f" {status}; see `ulimit -l`): training waits while it is copied"
            )
            return
        weakref.finalize(self, runtime.cudaHostUnregister, address).atexit = False
