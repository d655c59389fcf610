"""The rows of the metrics, and the lines that a person watches.

Comes in: the state of a run after a step. Goes out: the means since the last logged step, written
by rank 0.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from electra_dist.config import Config
from electra_dist.console import say
from electra_dist.data.sources import RunData
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.parallel.hardware import matrix_product_rate, peak_memory_bytes
from electra_dist.parallel.world import World
from electra_dist.runs import lock, metrics
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import Metric, Metrics
from electra_dist.tracking.sinks import Tracker
from electra_dist.train.lines import Passes, Stopwatch, training_line, validation_line
from electra_dist.train.state import RunState
from electra_dist.zero.clipping import loss_scale
from electra_dist.zero.clock import Part
from electra_dist.zero.engines import Engines
from electra_dist.zero.updates import update_ratios

_PARTS: dict[Part, Metric] = {
    "data_wait": metrics.DATA_WAIT_SECONDS,
    "generator_forward": metrics.GENERATOR_FORWARD_SECONDS,
    "generator_backward": metrics.GENERATOR_BACKWARD_SECONDS,
    "discriminator_forward": metrics.DISCRIMINATOR_FORWARD_SECONDS,
    "discriminator_backward": metrics.DISCRIMINATOR_BACKWARD_SECONDS,
    "communication": metrics.COMMUNICATION_SECONDS,
    "optimizer": metrics.OPTIMIZER_SECONDS,
}


class Logbook:
    """What one run logs; `stopwatch` measures training alone, `passes` counts epochs of sources."""

    def __init__(
        self,
        config: Config,
        data: RunData,
        engines: Engines,
        world: World,
        tracker: Tracker | None,
    ) -> None:
        """`tracker` is rank 0's; the other ranks have none."""
        self.stopwatch = Stopwatch()
        self._config = config
        self._data = data
        self._engines = engines
        self.passes = Passes(data)
        self._world = world
        self._tracker = tracker
        self._run = RunDir(config.run.path)
        self._peak_flops = (
            matrix_product_rate(world.device, engines.compute_dtype) * world.world_size
        )

    def row(self, state: RunState, lr_factor: float, stall: Callable[[], float]) -> Metrics:
        """Means over the steps since the last logged one; closes the window.

        `lr_factor` is that of the schedule in the last step, `stall` gives the fraction of the time
        that saving took. Every rank must call it.
        """
        window = state.window
        sums = window.reduced(self._world)
        timed = window.timed_steps
        norms = window.norms
        skipped = window.last_skipped
        window.clear()
        seconds = max(self.stopwatch.lap(), 1e-9)
        state.real_tokens += int(sums.values["real_count"])
        speed = timed / sums.steps / seconds
        flops = sums.flops(self._config, self._data.vocab_size)
        return {
            metrics.STEP.name: state.done,
            **sums.losses(),
            **self._learning_rates(lr_factor),
            **norms,
            **self._update_ratios(skipped),
            **sums.clip_rates(),
            **self._loss_scales(),
            metrics.SKIPPED_STEPS.name: int(sums.values["skipped"]),
            metrics.TOKENS_PER_SECOND.name: sums.values["real_count"] * speed,
            metrics.MFU.name: flops * speed / self._peak_flops,
            metrics.STEP_SECONDS.name: seconds / timed,
            **self._parts_of_a_step(),
            metrics.CHECKPOINT_STALL.name: stall(),
            metrics.PADDING.name: sums.padding(self._config),
            metrics.EPOCH.name: state.epoch,
            metrics.REAL_TOKENS.name: state.real_tokens,
            **self.passes.of_sources(state.source_epochs, aloud=self._tracker is not None),
        }

    def _learning_rates(self, factor: float) -> Metrics:
        config = self._config
        return {
            metrics.LEARNING_RATE.name: factor * config.optim.lr,
            metrics.GENERATOR_LR.name: factor * config.optimizer("generator").lr,
            metrics.DISCRIMINATOR_LR.name: factor * config.optimizer("discriminator").lr,
        }

    def _update_ratios(self, skipped: Tensor) -> Metrics:
        ratios = update_ratios(self._engines, self._config, skipped)
        generator, discriminator = ratios.tolist()
        return {
            metrics.GENERATOR_UPDATE_RATIO.name: generator,
            metrics.DISCRIMINATOR_UPDATE_RATIO.name: discriminator,
        }

    def _loss_scales(self) -> Metrics:
        """NaN where a network is not trained in fp16."""
        scales = {
            network: loss_scale(engine) if engine.fp16_enabled() else math.nan
            for network, engine in self._engines
        }
        return {
            metrics.GENERATOR_LOSS_SCALE.name: scales["generator"],
            metrics.DISCRIMINATOR_LOSS_SCALE.name: scales["discriminator"],
        }

    def _parts_of_a_step(self) -> Metrics:
        """Where the time of rank 0 goes, which rank is the slowest, and the memory of all.

        The device has done all steps by now: their sums were read.
        """
        parts = self._engines.clock.per_step()
        own = sum(seconds for part, seconds in parts.items() if part != "communication")
        own_seconds, peaks = self._of_all_ranks(own, peak_memory_bytes(self._world.device))
        slowest = max(own_seconds)
        return {
            **{_PARTS[part].name: seconds for part, seconds in parts.items()},
            metrics.SLOWEST_RANK.name: own_seconds.index(slowest),
            metrics.RANK_SPREAD.name: slowest / statistics.median(own_seconds),
            metrics.PEAK_BYTES.name: int(max(peaks)),
        }

    def _of_all_ranks(self, *own: float) -> list[list[float]]:
        """Each of these numbers of every rank, in rank order: one sum over the devices."""
        world = self._world
        numbers = torch.zeros(len(own), world.world_size, dtype=torch.float64)
        numbers[:, world.rank] = torch.tensor(own, dtype=torch.float64)
        found: list[list[float]] = all_reduce_sum(numbers.to(world.device)).tolist()
        return found

    def write(self, row: Metrics) -> None:
        """Write a row, and collect garbage: at the same steps on all ranks. Nothing for no row."""
        if not row:
            return
        if self._tracker:
            lock.check(self._run)  # not a row into the file of another process
            self._tracker.write(row)
            if metrics.GENERATOR_LOSS.name in row:
                say(training_line(row, self._config.train.steps))
            if metrics.GENERATOR_LOSS.name_held_out in row:
                say(validation_line(row, self._config.train.steps))
        gc.collect()
