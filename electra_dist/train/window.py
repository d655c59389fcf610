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
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.parallel.world import World
from electra_dist.runs import metrics
from electra_dist.runs.metrics import Metrics
from electra_dist.train.metrics import BINS, detection_scores
from electra_dist.train.step import StepTotals

#: Sums that the device adds up: fields of `StepTotals`.
_SCALARS = ("generator_loss_sum", "correct", "masked_count", "discriminator_loss_sum", "real_count")
#: Sums that the host counts itself.
_HOST = ("squared_lengths", "skipped")
_SUMS = (*_SCALARS, *_HOST)


def squared_lengths(batch: MicroBatch) -> int:
    """Sum over the documents of the micro-batch of their length squared:
    the attention scores they need.
    """
    rows = np.arange(batch.documents.shape[0])[:, None] * (int(batch.documents.max(initial=0)) + 1)
    lengths = np.bincount((batch.documents + rows)[batch.documents >= 0])
    return int((lengths.astype(np.int64) ** 2).sum())


class Window:
    """Sums of the steps since the last logged one, this rank's share."""

    def __init__(self, device: torch.device) -> None:
        self.steps = 0
        self._restored_steps = 0
        self._squared_lengths = 0
        self._scalars = torch.zeros(len(_SCALARS), dtype=torch.float64, device=device)
        self._skipped = torch.zeros(1, dtype=torch.float64, device=device)
        self._histogram = torch.zeros(2, BINS, dtype=torch.float64, device=device)
        self._norms = torch.zeros(2, device=device)

    def add(self, totals: StepTotals, micro_batches: tuple[MicroBatch, ...]) -> None:
        """Add one step; nothing here waits for the device."""
        self.steps += 1
        self._squared_lengths += sum(squared_lengths(batch) for batch in micro_batches)
        self._scalars += torch.stack([getattr(totals, name).double() for name in _SCALARS])
        self._skipped += totals.skipped.double()
        self._histogram += totals.histogram
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
        # Every rank counts the same skipped steps, so only rank 0's are added.
        if world.rank == 0:
            skipped = self._skipped
        else:
            skipped = torch.zeros_like(self._skipped)
        flat = torch.cat([self._scalars, host, skipped, self._histogram.flatten()])
        all_reduce_sum(flat)
        return Sums(self.steps, flat.cpu())

    def clear(self) -> None:
        """Start the next window."""
        self.steps = 0
        self._restored_steps = 0
        self._squared_lengths = 0
        for sums in (self._scalars, self._skipped, self._histogram):
            sums.zero_()

    def restore(self, saved: dict[str, Any], world: World) -> None:
        """Go on with a saved window; its sums are global, so rank 0 alone takes them."""
        self.steps = self._restored_steps = int(saved["steps"])
        if world.rank == 0:
            flat = Sums.from_json(saved).flat.to(self._scalars.device)
            scalars, host, skipped, histogram = flat.split([len(_SCALARS), 1, 1, 2 * BINS])
            self._scalars.copy_(scalars)
            self._squared_lengths = int(host.item())
            self._skipped.copy_(skipped)
            self._histogram.copy_(histogram.view(2, BINS))


class Sums:
    """The global sums of some steps, by name, and what follows from them."""

    def __init__(self, steps: int, flat: Tensor) -> None:
        self.steps = steps
        self.flat = flat
        self.values: dict[str, float] = dict(zip(_SUMS, flat[: len(_SUMS)].tolist(), strict=True))
        self.histogram = flat[len(_SUMS) :].view(2, BINS)

    def to_json(self) -> dict[str, Any]:
        """Sums and the non-zero bins of the histogram; `from_json` reads the same numbers back."""
        bins = self.histogram.flatten()
        used = bins.nonzero().flatten()
        return {
            "steps": self.steps,
            "values": self.values,
            "bins": used.tolist(),
            "counts": bins[used].tolist(),
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Sums:
        """The sums that `to_json` gave.

        A sum that this version has and the saving one had not is NaN, so that what is made of it
        is undefined until the next window; one that this version does not know is left out.
        """
        values = saved["values"]
        if isinstance(values, list):  # as the first versions saved it
            values = dict(zip(_SUMS, values, strict=True))
        flat = [float(values.get(name, math.nan)) for name in _SUMS]
        bins = torch.zeros(2 * BINS, dtype=torch.float64)
        bins[torch.tensor(saved["bins"], dtype=torch.long)] = torch.tensor(
            saved["counts"], dtype=torch.float64
        )
        return cls(
            int(saved["steps"]),
            torch.cat([torch.tensor(flat, dtype=torch.float64), bins]),
        )

    def losses(self, prefix: str = "") -> Metrics:
        """Losses and scores; `prefix` separates those of the held-out split."""
        values = self.values
        scores = detection_scores(self.histogram)
        masked = values["masked_count"] or float("nan")
        real = values["real_count"] or float("nan")
        found = {
            metrics.GENERATOR_LOSS: values["generator_loss_sum"] / masked,
            metrics.DISCRIMINATOR_LOSS: values["discriminator_loss_sum"] / real,
            metrics.GENERATOR_ACCURACY: values["correct"] / masked,
            metrics.PRECISION: scores.precision,
            metrics.RECALL: scores.recall,
            metrics.ACCURACY: scores.accuracy,
            metrics.AUC: scores.auc,
            metrics.REPLACED_FRACTION: scores.replaced_fraction,
        }
        return {prefix + metric.name: value for metric, value in found.items()}

    def flops(self, config: Config, vocab_size: int) -> float:
        """Floating-point operations that these steps needed (see `plan.step_flops`)."""
        values = self.values
        counts = (int(values[name]) for name in ("real_count", "squared_lengths", "masked_count"))
        return plan.step_flops(config, vocab_size, *counts)
