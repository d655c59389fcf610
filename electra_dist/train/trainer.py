"""One training run, from an open run directory to its last checkpoint; the loop reads top to bottom.

Comes in: a checked configuration and the manifest of its shards. Goes out: metrics, checkpoints, and whether the run
is finished or was interrupted (and should be started again).

What a step computes depends on (configuration, data, seed) and never on the number of ranks or on restarts (DESIGN
D2): the state saved is that of the last consumed step.
"""

from __future__ import annotations

import gc
from enum import Enum
from typing import Any

from electra_dist import lock, signs
from electra_dist.batch import Step
from electra_dist.config import Config
from electra_dist.data.loader import TrainLoader
from electra_dist.data.manifest import Manifest
from electra_dist.data.streams import LoaderState
from electra_dist.data.validation import validation_micro_batches
from electra_dist.errors import UserError
from electra_dist.rundir import RunDir
from electra_dist.train import checkpoint
from electra_dist.train.distributed import World, any_rank, broadcast_object, gather_objects, raise_together, together
from electra_dist.train.engines import Engines
from electra_dist.train.faults import Interruption
from electra_dist.train.hardware import matrix_product_rate
from electra_dist.train.progress import Stopwatch, say, training_line, validation_line
from electra_dist.train.saving import Saver
from electra_dist.train.schedule import lr_factor
from electra_dist.train.step import evaluate_step, train_step
from electra_dist.train.tracking import Metrics, Tracker
from electra_dist.train.window import Window


class Outcome(Enum):
    """How a call of `Trainer.fit` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class Trainer:
    """Owns the engines, the place in the data and the books of one run."""

    def __init__(self, config: Config, manifest: Manifest, engines: Engines, world: World, tracker: Tracker | None):
        """`tracker` is rank 0's; the other ranks have none."""
        self.config = config
        self.manifest = manifest
        self.engines = engines
        self.world = world
        self.tracker = tracker
        self.run = RunDir(config.run.path)
        self.done = 0  # optimizer steps behind us
        self.real_tokens = 0
        self.window = Window(world.device)
        self._loader_state: LoaderState | None = None
        self._epoch = 0.0
        self._peak_flops = matrix_product_rate(world.device, engines.compute_dtype) * world.world_size
        self._watch = Stopwatch()
        self._saver = Saver(self.run, engines, world, config.checkpoint)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def fit(self, interruption: Interruption) -> Outcome:
        """Train to `train.steps` or until `interruption` is requested; the state is saved either way."""
        steps = self.config.train.steps
        if self.done == 0:
            self._write(self._validated())
        gc.collect()
        gc.freeze()
        gc.disable()  # collected below, at the same step on all ranks, instead of whenever one of them likes
        try:
            with self._open_loader() as loader:
                self._watch.lap()
                while self.done < steps:
                    step = self._next_step(loader, interruption)
                    if step is None:
                        self.save(final=True)
                        return Outcome.INTERRUPTED
                    self._train(step)
                    self._loader_state = loader.state
                    self._after_step()
        except UserError as error:
            if error.everywhere:  # all ranks are here, so that what is in flight can land
                self._saver.finish()
            raise
        finally:
            gc.unfreeze()
            gc.enable()
        return Outcome.FINISHED

    def _open_loader(self) -> TrainLoader:
        world = self.world
        return TrainLoader(self.config, self.manifest, world.rank, world.world_size, self._loader_state)

    def _next_step(self, loader: TrainLoader, interruption: Interruption) -> Step | None:
        """The next step; None when any rank was asked to stop. A rank that cannot read its data fails all of them."""
        step, error = None, None
        signs.enter("data", self.done)
        try:
            step = loader.next_unless(lambda: interruption.requested is not None)
            if self.world.is_main:
                lock.check(self.run)  # another process may have taken the run over while this one was stopped
        except UserError as problem:
            error = problem
        signs.enter("step", self.done)
        stop = error is not None or interruption.requested is not None
        if not any_rank(stop, self.world):
            return step
        raise_together(error, self.world)
        return None

    def _train(self, step: Step) -> None:
        factor = lr_factor(step.index, self.config.train.steps, self.config.optim)
        totals = train_step(self.engines, step, self.config, factor)
        self.window.add(totals, step.micro_batches)
        self.done = step.index + 1
        self._epoch = step.epoch

    def _after_step(self) -> None:
        """Log, validate and save what is due after step `self.done`."""
        config, last = self.config, self.done == self.config.train.steps
        metrics: Metrics = {}
        if last or self.done % config.tracking.every == 0:
            metrics |= self._logged()
        paused = self._watch.pause()
        if last or (config.validation.every and self.done % config.validation.every == 0):
            metrics |= self._validated()
        if metrics:
            self._write(metrics)
            gc.collect()
        if last or self.done % config.checkpoint.every == 0:
            self.save(final=last)
        self._saver.poll()
        self._watch.resume(paused)

    # --- the books ---------------------------------------------------------------------------------------------------

    def _logged(self) -> Metrics:
        """Means over the steps since the last logged one; closes the window."""
        sums, timed, norms = self.window.reduced(self.world), self.window.timed_steps, self.window.norms
        self.window.clear()
        seconds = max(self._watch.lap(), 1e-9)
        self.real_tokens += int(sums.values["real_count"])
        speed = timed / sums.steps / seconds
        factor = lr_factor(self.done - 1, self.config.train.steps, self.config.optim)
        return {
            "step": self.done,
            **sums.losses(),
            "optim/lr": factor * self.config.optim.lr,
            **norms,
            "optim/skipped_steps": int(sums.values["skipped"]),
            "speed/real_tokens_per_s": sums.values["real_count"] * speed,
            "speed/mfu": sums.flops(self.config, self.manifest.vocab_size) * speed / self._peak_flops,
            "speed/step_seconds": seconds / timed,
            "speed/checkpoint_stall": self._saver.stall(),
            "data/epoch": self._epoch,
            "data/real_tokens": self.real_tokens,
        }

    def _validated(self) -> Metrics:
        """Losses on the held-out rows, the same ones every time; empty when there is no held-out split."""
        window = Window(self.world.device)
        batches = validation_micro_batches(self.config, self.manifest, self.world.rank, self.world.world_size)
        with signs.phase("validation", self.done):
            for batch in batches:
                window.add(evaluate_step(self.engines, batch, self.config), (batch,))
                signs.sign()
        if window.steps == 0:
            return {}
        return {"step": self.done, **window.reduced(self.world).losses("validation/")}

    def _write(self, metrics: Metrics) -> None:
        if self.tracker is None or not metrics:
            return
        self.tracker.write(metrics)
        if "loss/generator" in metrics:
            say(training_line(metrics, self.config.train.steps))
        if "validation/loss/generator" in metrics:
            say(validation_line(metrics, self.config.train.steps))

    # --- the state ---------------------------------------------------------------------------------------------------

    def save(self, final: bool = False) -> None:
        """A whole checkpoint of step `self.done`; does nothing when there is one already.

        A `final` one is on the disk afterwards, or `StorageError` is raised; any other is written in the background.
        """
        if self._loader_state is None:
            return
        with signs.phase("checkpoint", self.done):
            self._save(final)

    def _save(self, final: bool) -> None:
        if final:
            self._saver.finish()
        # Rank 0's listing decides for all: on a network file system the ranks may see different ones.
        with together(self.world):
            if self.world.is_main:
                lock.check(self.run, fresh=True)
        there = self.world.is_main and self.done in self.run.complete_checkpoints()
        if broadcast_object(there, self.world):
            return
        if self.tracker:
            self.tracker.sync()  # rows up to here are not logged again after a resume
        state = {
            "step": self.done,
            "real_tokens": self.real_tokens,
            "window": self.window.reduced(self.world).to_json(),
            "loader": self._gathered_loader_state(),
        }
        self._saver.save(self.done, state, final=final)

    def _gathered_loader_state(self) -> dict[str, Any]:
        """The place of every canonical stream: each rank knows its own."""
        assert self._loader_state is not None
        parts = gather_objects(self._loader_state.to_dict(), self.world)
        return LoaderState.merge([LoaderState.from_dict(part) for part in parts]).to_dict()

    def resume(self, step: int) -> None:
        """Take up the run at the checkpoint of `step`, which `find_latest` has verified."""
        self._saver.finish()
        state = checkpoint.load_checkpoint(self.run, step, self.engines, self.world, verified=True)
        self.done = int(state["step"])
        self.real_tokens = int(state["real_tokens"])
        self.window.restore(state["window"], self.world)
        self._loader_state = LoaderState.from_dict(state["loader"])
