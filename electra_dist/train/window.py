"""The sums between two logged steps: added up on the device, reduced over the ranks when they are
logged.

A window that an interruption cuts is saved with the checkpoint and goes on after the resume, so
that a logged mean is the same whether the run was interrupted or not. Sums are fp64: adding them in
another order (another world size) changes no digit that is logged.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra_dist import plan
from electra_dist.batch import MicroBatch
from electra_dist.config import Config
from electra_dist.objectives import Tally, objectives
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.parallel.world import World
from electra_dist.runs import metrics
from electra_dist.runs.metrics import Metrics
from electra_dist.train.step import StepTotals, sum_shapes

#: Numbers of steps that every rank counts alike.
_AGREED = ("skipped", "generator_clipped", "discriminator_clipped")
#: After the sums that the device adds up.
_OTHERS = ("squared_lengths", *_AGREED)
#: The first versions saved the numbers without their names, in this order.
_FIRST = (
    "generator_loss_sum",
    "correct",
    "masked_count",
    "discriminator_loss_sum",
    "real_count",
    "squared_lengths",
    "skipped",
)
#: They saved one table, without its name.
_FIRST_TABLE = "histogram"


def _scalars() -> tuple[str, ...]:
    """Sums that the device adds up and that are one number."""
    return tuple(name for name, shape in sum_shapes().items() if not shape)


def _tables() -> dict[str, tuple[int, ...]]:
    """The others, with their shapes."""
    return {name: shape for name, shape in sum_shapes().items() if shape}


def squared_lengths(batch: MicroBatch) -> int:
    """Sum over the documents of the micro-batch of their length squared:
    the attention scores they need.
    """
    rows = np.arange(batch.documents.shape[0])[:, None] * (int(batch.documents.max(initial=0)) + 1)
    lengths = np.bincount((batch.documents + rows)[batch.documents >= 0])
    return int((lengths.astype(np.int64) ** 2).sum())


class Window:
    """Sums of the steps since the last logged one, this rank's share.

    steps         those that were added
    last_skipped  bool scalar on the device, whether the last of them was skipped
    """

    def __init__(self, device: torch.device) -> None:
        self.steps = 0
        self.last_skipped = torch.zeros((), dtype=torch.bool, device=device)
        self._restored_steps = 0
        self._squared_lengths = 0
        self._names = _scalars()
        self._scalars = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        self._agreed = torch.zeros(len(_AGREED), dtype=torch.float64, device=device)
        self._tables = {
            name: torch.zeros(shape, dtype=torch.float64, device=device)
            for name, shape in _tables().items()
        }
        self._norms = torch.zeros(2, device=device)

    def add(self, totals: StepTotals, micro_batches: tuple[MicroBatch, ...]) -> None:
        """Add one step; nothing here waits for the device."""
        self.steps += 1
        self._squared_lengths += sum(squared_lengths(batch) for batch in micro_batches)
        self._scalars += torch.stack([totals.sums[name].double() for name in self._names])
        self._agreed += torch.cat([totals.skipped.view(1), totals.clipped]).double()
        self.last_skipped = totals.skipped
        for name, table in self._tables.items():
            table += totals.sums[name]
        self._norms = torch.stack([totals.generator_norm, totals.discriminator_norm])

    @property
    def timed_steps(self) -> int:
        """Steps of this window that this process itself trained."""
        return self.steps - self._restored_steps

    @property
    def norms(self) -> Metrics:
        """Gradient norms of the last step, before clipping."""
        generator, discriminator = self._norms.tolist()
        return {
            metrics.GENERATOR_NORM.name: generator,
            metrics.DISCRIMINATOR_NORM.name: discriminator,
        }

    def reduced(self, world: World) -> Sums:
        """The sums over all ranks; every rank must call it."""
        host = torch.tensor(
            [float(self._squared_lengths)], dtype=torch.float64, device=self._scalars.device
        )
        # Every rank counts the same steps, so only rank 0's are added.
        if world.rank == 0:
            agreed = self._agreed
        else:
            agreed = torch.zeros_like(self._agreed)
        tables = [table.flatten() for table in self._tables.values()]
        flat = torch.cat([self._scalars, host, agreed, *tables])
        all_reduce_sum(flat)
        return Sums(self.steps, flat.cpu())

    def clear(self) -> None:
        """Start the next window."""
        self.steps = 0
        self._restored_steps = 0
        self._squared_lengths = 0
        for sums in (self._scalars, self._agreed, *self._tables.values()):
            sums.zero_()

    def restore(self, saved: dict[str, Any], world: World) -> None:
        """Go on with a saved window; its sums are global, so rank 0 alone takes them."""
        self.steps = self._restored_steps = int(saved["steps"])
        if world.rank == 0:
            sums = Sums.from_json(saved)
            values = [sums.values[name] for name in self._names]
            self._scalars.copy_(torch.tensor(values, dtype=torch.float64))
            self._squared_lengths = int(sums.values["squared_lengths"])
            agreed = [sums.values[name] for name in _AGREED]
            self._agreed.copy_(torch.tensor(agreed, dtype=torch.float64))
            for name, table in self._tables.items():
                table.copy_(sums.tables[name])


class Sums:
    """The global sums of some steps, by name, and what follows from them."""

    def __init__(self, steps: int, flat: Tensor) -> None:
        """`flat` is fp64: numbers, `_OTHERS`, and then the tables."""
        self.steps = steps
        names = (*_scalars(), *_OTHERS)
        shapes = _tables()
        numbers, *tables = flat.split([len(names), *map(math.prod, shapes.values())])
        self.values: dict[str, float] = dict(zip(names, numbers.tolist(), strict=True))
        self.tables: dict[str, Tensor] = {
            name: table.view(shape)
            for (name, shape), table in zip(shapes.items(), tables, strict=True)
        }

    def to_json(self) -> dict[str, Any]:
        """Numbers, and the entries of tables that are not 0; `from_json` reads the same back."""
        return {
            "steps": self.steps,
            "values": self.values,
            "tables": {name: _sparse(table) for name, table in self.tables.items()},
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Sums:
        """The sums that `to_json` gave.

        A sum that this version has and the saving one had not is NaN, so that what is made of it
        is undefined until the next window; one that this version does not know is left out.
        """
        values = saved["values"]
        if isinstance(values, list):
            values = dict(zip(_FIRST, values, strict=True))
        tables = saved.get("tables", {_FIRST_TABLE: saved})
        parts = [float(values.get(name, math.nan)) for name in (*_scalars(), *_OTHERS)]
        flat = [torch.tensor(parts, dtype=torch.float64)]
        for name, shape in _tables().items():
            flat.append(_dense(tables.get(name), math.prod(shape)))
        return cls(int(saved["steps"]), torch.cat(flat))

    def losses(self, prefix: str = "") -> Metrics:
        """Losses and scores; `prefix` separates those of the held-out split."""
        tallies = {
            objective.name: Tally(
                self.values, self.tables, self.values[objective.count] or math.nan
            )
            for objective in objectives()
        }
        found = {
            objective.loss: self.values[objective.total] / tallies[objective.name].divisor
            for objective in objectives()
        }
        for objective in objectives():
            found |= objective.scores(tallies[objective.name])
        return {prefix + metric.name: value for metric, value in found.items()}

    def clip_rates(self) -> Metrics:
        """Share of the steps whose gradient was scaled down, by network."""
        return {
            metrics.GENERATOR_CLIP_RATE.name: self.values["generator_clipped"] / self.steps,
            metrics.DISCRIMINATOR_CLIP_RATE.name: self.values["discriminator_clipped"] / self.steps,
        }

    def padding(self, config: Config) -> float:
        """Share of the positions of these steps that hold no token."""
        positions = self.steps * config.train.global_rows * config.data.row_length
        return 1 - self.values["real_count"] / positions

    def flops(self, config: Config, vocab_size: int) -> float:
        """Floating-point operations that these steps needed (see `plan.step_flops`)."""
        values = self.values
        counts = (int(values[name]) for name in ("real_count", "squared_lengths", "masked_count"))
        return plan.step_flops(config, vocab_size, *counts)


def _sparse(table: Tensor) -> dict[str, list[float]]:
    flat = table.flatten()
    used = flat.nonzero().flatten()
    return {"bins": used.tolist(), "counts": flat[used].tolist()}


def _dense(saved: dict[str, Any] | None, entries: int) -> Tensor:
    """NaN where nothing is saved."""
    if saved is None:
        return torch.full((entries,), math.nan, dtype=torch.float64)
    flat = torch.zeros(entries, dtype=torch.float64)
    counts = torch.tensor(saved["counts"], dtype=torch.float64)
    flat[torch.tensor(saved["bins"], dtype=torch.long)] = counts
    return flat
