"""The processes that fine-tune together: one, or those that `torchrun` or `accelerate launch`
started.

`accelerate` opens the process group; only rank 0 prints and writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from electra_dist.finetune.runners.runner import Features, Output, Runner

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process and the others; all of them call the methods, in the same order."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Rank 0, which alone prints and writes."""
        return self.rank == 0

    def agreed(self, value: T) -> T:
        """The value that rank 0 has."""
        if self.world_size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        shared: T = broadcast_object_list([value])[0]
        return shared

    def wait(self) -> None:
        """Until all ranks are here."""
        self.agreed(None)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Nothing that another rank than 0 prints in this block is seen."""
        if self.is_main:
            yield
            return
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield


def meet(device: torch.device) -> Ranks:
    """The ranks that the environment names, with their process group open; one without any."""
    os.environ["DS_ACCELERATOR"] = device.type  # accelerate imports DeepSpeed, which would guess
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu")
    return Ranks(state.process_index, state.num_processes)


def part() -> Ranks:
    """Close the process group, where there is one; which rank this process was."""
    from accelerate import PartialState

    state = PartialState()
    ranks = Ranks(state.process_index, state.num_processes)
    state.destroy_process_group()
    return ranks


class DealtRunner:
    """Deals the examples to the ranks; each of them gets the outputs of all."""

    def __init__(self, runner: Runner, ranks: Ranks) -> None:
        self._runner = runner
        self._ranks = ranks

    def __call__(self, features: Features) -> list[Output]:
        """In the order of the examples."""
        step = self._ranks.world_size
        if step == 1:
            return self._runner(features)
        from accelerate.utils import gather_object

        own = self._runner(features[self._ranks.rank :: step])
        gathered = gather_object(own)
        found: list[Output] = [()] * len(features)
        start = 0
        for rank in range(step):
            count = len(range(rank, len(features), step))
            found[rank::step] = gathered[start : start + count]
            start += count
        return found
