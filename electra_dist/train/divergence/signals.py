"""What the guard is told, read one step late: a step's losses travel to the host while the next
step runs.

Comes in: the totals of a step, on the device. Goes out: the `Signal` of the step before. On CUDA
the numbers are copied into pinned memory behind the step's own work, and the host looks at them
when the device is a step further: nothing waits for them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from electra_dist.objectives import objectives
from electra_dist.train.divergence.guard import Place, Signal
from electra_dist.train.step import StepTotals
from electra_dist.zero.clipping import loss_scale
from electra_dist.zero.engines import Engines


class _Slot:
    """Numbers of one step on their way to the host."""

    def __init__(self, numbers: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._tensor = torch.zeros(numbers, pin_memory=on_gpu)
        self._numbers: npt.NDArray[np.float32] = self._tensor.numpy()  # the same memory
        self._arrived: torch.cuda.Event | None = None
        if on_gpu:
            self._arrived = torch.cuda.Event()

    def send(self, numbers: Tensor) -> None:
        self._tensor.copy_(numbers, non_blocking=True)
        if self._arrived:
            self._arrived.record()

    def read(self) -> list[float]:
        if self._arrived:
            self._arrived.synchronize()
        return [float(number) for number in self._numbers]


class _Sent(NamedTuple):
    place: Place
    searching: bool
    slot: _Slot


class Signals:
    """The steps that the guard has not seen yet: one at most, between two calls of `send`."""

    def __init__(self, device: torch.device) -> None:
        numbers = len(objectives()) + 1  # losses, and whether the step was skipped
        self._slots = [_Slot(numbers, device), _Slot(numbers, device)]
        self._sent: _Sent | None = None

    def send(self, place: Place, totals: StepTotals, searching: bool) -> Signal | None:
        """Send off what the step at `place` tells;
        what the step before it told, if that is still to be seen.
        """
        before = self.rest()
        slot = self._slots[place.step % 2]
        slot.send(torch.cat([totals.losses, totals.skipped.float().reshape(1)]))
        self._sent = _Sent(place, searching, slot)
        return before

    def rest(self) -> Signal | None:
        """What is still to be seen; after the last step of some,
        the host waits for that step here.
        """
        if self._sent is None:
            return None
        place, searching, slot = self._sent
        self._sent = None
        *losses, skipped = slot.read()
        return Signal(place.step, place.data_step, tuple(losses), bool(skipped), searching)

    def forget(self) -> None:
        """Drop what is still to be seen: training goes back to before it."""
        self._sent = None


def scale_can_fall(engines: Engines) -> bool:
    """Whether a gradient that overflows may ask for a smaller
    loss scale and nothing else (fp16).
    """
    return any(engine.fp16_enabled() and loss_scale(engine) > 1 for _, engine in engines)
