"""The rows of the metrics, and the lines that a person watches.

Comes in: the state of a run after a step. Goes out: the means since the last logged step, written
by rank 0.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from electra_dist.config import Config
from electra_dist.console import say, warn
from electra_dist.data.sources import RunData
from electra_dist.health import Finding
from electra_dist.parallel.hardware import matrix_product_rate
from electra_dist.parallel.world import World
from electra_dist.runs import lock, metrics
from electra_dist.runs.directory import RunDir
from electra_dist.runs.hooks import Hook
from electra_dist.runs.metrics import Metrics
from electra_dist.tracking.sinks import Tracker
from electra_dist.train.lines import Passes, Stopwatch, training_line, validation_line
from electra_dist.train.state import RunState
from electra_dist.zero.engines import Engines


class Logbook:
    """What one run logs; `stopwatch` measures training alone, `passes` counts epochs of sources."""

    def __init__(
        self,
        config: Config,
        data: RunData,
        engines: Engines,
        world: World,
        tracker: Tracker | None,
        hook: Hook | None,
    ) -> None:
        """`tracker` and `hook` are rank 0's; the other ranks have none."""
        self.stopwatch = Stopwatch()
        self._config = config
        self._data = data
        self.passes = Passes(data)
        self._world = world
        self._tracker = tracker
        self._hook = hook
        self._run = RunDir(config.run.path)
        self._peak_flops = (
            matrix_product_rate(world.device, engines.compute_dtype) * world.world_size
        )

    def row(self, state: RunState, lr: float, stall: Callable[[], float]) -> Metrics:
        """Means over the steps since the last logged one; closes the window.

        `lr` is that of the last step, `stall` gives the fraction of the time that saving took.
        Every rank must call it.
        """
        window = state.window
        sums = window.reduced(self._world)
        timed = window.timed_steps
        norms = window.norms
        window.clear()
        seconds = max(self.stopwatch.lap(), 1e-9)
        state.real_tokens += int(sums.values["real_count"])
        speed = timed / sums.steps / seconds
        flops = sums.flops(self._config, self._data.vocab_size)
        return {
            metrics.STEP.name: state.done,
            **sums.losses(),
            metrics.LEARNING_RATE.name: lr,
            **norms,
            metrics.SKIPPED_STEPS.name: int(sums.values["skipped"]),
            metrics.TOKENS_PER_SECOND.name: sums.values["real_count"] * speed,
            metrics.MFU.name: flops * speed / self._peak_flops,
            metrics.STEP_SECONDS.name: seconds / timed,
            metrics.CHECKPOINT_STALL.name: stall(),
            metrics.WALL_CLOCK.name: round(time.time()),
            metrics.EPOCH.name: state.epoch,
            metrics.REAL_TOKENS.name: state.real_tokens,
            **self.passes.of_sources(state.source_epochs, aloud=self._tracker is not None),
        }

    def write(self, row: Metrics) -> None:
        """Write a row, and collect garbage: at the same steps on all ranks. Nothing for no row."""
        if not row:
            return
        if self._tracker:
            lock.check(self._run)  # not a row into the file of another process
            findings = self._tracker.write(row)
            if metrics.GENERATOR_LOSS.name in row:
                say(training_line(row, self._config.train.steps))
            if metrics.GENERATOR_LOSS.name_held_out in row:
                say(validation_line(row, self._config.train.steps))
            for finding in findings:
                self._tell(finding)
        gc.collect()

    def _tell(self, finding: Finding) -> None:
        """Say what a rule of health found, or that it is over."""
        if finding.state == "begins" and finding.severity != "note":
            warn(finding.line)
        else:
            say(finding.line)
        if self._hook:
            reason = finding.sentence
            if finding.state == "ends":
                reason = f"over: {reason}"
            self._hook.tell("health", reason, finding.step, finding.rule)
