"""What the ranks agree on at a step boundary, without waiting: asked before a step, read after it.

Comes in: what this rank knows before step k (`Said`). Goes out: the largest of what all ranks said,
after step k. The message travels between the hosts in the background while the step trains; a ring
over W hosts takes 2 (W - 1) hops, which nothing waits for any more. So a wish is acted on one step
later than it was heard, by all ranks after the same step.

What is asked before step k concerns step k + 1: no rank begins a step whose data another one lacks.
`Ahead` has the data of that step in hand, where they are there; the state it gives is that of the
step taken, not of those ahead.

A collective belongs to the order of the group's collectives from `post` on: all ranks post at the
same place. Others may come before it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
import torch.distributed as dist

from electra_dist.batch import Step
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.streams import LoaderState
from electra_dist.errors import UserError
from electra_dist.parallel.world import World


class Call(IntEnum):
    """What is to be done after the step; the largest wins."""

    GO_ON = 0
    #: The data of the next step were not there yet: wait for them, and agree again before it.
    WAIT = 1
    STOP = 2
    ROLL_BACK = 3
    #: The data of the next step cannot be read. What is due after this one is done first.
    FAIL = 4
    #: The run is another process's now: nothing more is written.
    LEAVE = 5


class Said(NamedTuple):
    """One rank's message, or the largest of all ranks'.

    call     what it wants
    writes   it still writes the checkpoint in flight
    """

    call: Call
    writes: bool = False


class _Posted:
    """A message on its way."""

    def __init__(self, said: Said) -> None:
        # on the host, whatever the rank's device
        self._numbers = torch.tensor([int(said.call), int(said.writes)])
        self._work = dist.all_reduce(self._numbers, op=dist.ReduceOp.MAX, async_op=True)

    def wait(self) -> Said:
        """The largest of all ranks.
        The watchdog knows a rank that waits for others by this name (`stacks`).
        """
        self._work.wait()
        call, writes = self._numbers.tolist()
        return Said(Call(call), bool(writes))


class Agreement:
    """One message at most is on its way. Every rank calls `post` and `read` in turn."""

    def __init__(self, world: World) -> None:
        self._alone = world.world_size == 1
        self._posted: _Posted | None = None

    def post(self, said: Said) -> None:
        """Send what this rank says; waits for nobody."""
        if not self._alone:
            assert self._posted is None, "the message before was not read"
            self._posted = _Posted(said)

    def read(self, now: Said) -> Said:
        """The largest of what the ranks posted. A rank that is alone has nobody to agree with:
        `now` counts there.
        """
        if self._posted is None:
            return now
        posted = self._posted
        self._posted = None
        return posted.wait()


class Ahead:
    """The step that trains next, taken from the loader while the one before it trains."""

    def __init__(self, loader: TrainLoader, steps: int) -> None:
        """`steps` is `train.steps`."""
        self.error: UserError | None = None
        self._loader = loader
        self._held: tuple[Step, LoaderState] | None = None
        self._to_come = steps - loader.state.step

    @property
    def lacks(self) -> bool:
        """Whether there is a next step, and it is not here."""
        return self._held is None and self._to_come > 0

    def look(self) -> None:
        """Take the next step if it is there."""
        if self.lacks and self.error is None and self._loader.is_ready():
            self.wait(lambda: True)

    def wait(self, asked_to_end: Callable[[], bool]) -> None:
        """Take the next step, as soon as it is there;
        after an error, or when `asked_to_end` says so, there is none.
        """
        if not self.lacks or self.error is not None:
            return
        try:
            step = self._loader.next_unless(asked_to_end)
        except UserError as error:
            self.error = error
            return
        if step is not None:
            self._held = step, self._loader.state
            self._to_come -= 1

    def take(self) -> tuple[Step, LoaderState]:
        """The step that trains now, and where the data stand after it."""
        assert self._held is not None, "agreed to go on without data"
        held = self._held
        self._held = None
        return held
