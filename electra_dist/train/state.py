"""All of a run that is no weight: how far it is, where its data stand, what is still to be logged.

Comes in: the state that a checkpoint holds. Goes out: the same, as it is now. It does not depend on
the world size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from electra_dist.data.streams import LoaderState
from electra_dist.parallel.collectives import gather_objects
from electra_dist.parallel.world import World
from electra_dist.runs.metrics import Metrics
from electra_dist.runs.rollbacks import Rollback, rollbacks_in
from electra_dist.train.window import Window


class RunState:
    """Where one run stands.

    done         optimizer steps behind it
    real_tokens  that it has logged
    epoch        of the last step
    source_epochs  of each source, of the last step
    loader       where the data stand after the last step; None before the first one
    unwritten    what the last step logged, while its validation is still to come
    window       sums since the last logged step
    rollbacks    oldest first
    """

    def __init__(self, device: torch.device, rollbacks: Sequence[Rollback]) -> None:
        self.done = 0
        self.real_tokens = 0
        self.epoch = 0.0
        self.source_epochs: tuple[float, ...] = ()
        self.loader: LoaderState | None = None
        self.unwritten: Metrics | None = None
        self.window = Window(device)
        self.rollbacks = list(rollbacks)

    def begin(self, saved: dict[str, Any] | None, world: World) -> None:
        """Stand where a checkpoint says; None is the start of the run."""
        self.done = 0
        self.real_tokens = 0
        self.source_epochs = ()
        self.loader = None
        self.unwritten = None
        self.window.clear()
        if saved is None:
            return
        self.done = int(saved["step"])
        self.real_tokens = int(saved["real_tokens"])
        self.source_epochs = tuple(map(float, saved.get("source_epochs", ())))
        self.loader = LoaderState.from_dict(saved["loader"])
        self.unwritten = saved.get("unwritten")
        self.window.restore(saved["window"], world)
        self.rollbacks += [old for old in rollbacks_in(saved) if old not in self.rollbacks]

    def to_json(self, world: World, guard: dict[str, Any] | None) -> dict[str, Any]:
        """What `begin` takes up, with what the guard remembers; every rank must call it."""
        return {
            "step": self.done,
            "real_tokens": self.real_tokens,
            "source_epochs": self.source_epochs,
            "window": self.window.reduced(world).to_json(),
            "loader": self._gathered_loader_state(world),
            "unwritten": self.unwritten,
            "guard": guard,
            "rollbacks": [back.to_json() for back in self.rollbacks],
        }

    def _gathered_loader_state(self, world: World) -> dict[str, Any]:
        """The place of every canonical stream: each rank knows its own."""
        assert self.loader is not None
        parts = gather_objects(self.loader.to_dict(), world)
        return LoaderState.merge([LoaderState.from_dict(part) for part in parts]).to_dict()
