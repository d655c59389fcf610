"""One training run, from an open run directory to its last checkpoint; the loop reads top to
bottom.

Comes in: a checked configuration and the manifest of its shards. Goes out: metrics, checkpoints,
and whether the run is finished or was interrupted (and should be started again).

What a step computes depends on (configuration, data, seed) and never on the number of ranks or on
restarts (DESIGN D2): the state saved is that of the last consumed step. When training diverges, it
goes back to the newest healthy checkpoint and on past the offending rows (DESIGN D11).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

from electra_dist.batch import Step
from electra_dist.checkpoint import loading
from electra_dist.checkpoint.saving import Saver
from electra_dist.checkpoint.tensors import read_trainer_state
from electra_dist.config import NETWORKS, Config, lr_factor
from electra_dist.console import say, warn
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.streams import LoaderState
from electra_dist.data.validation import has_validation, validation_micro_batches
from electra_dist.errors import UserError
from electra_dist.parallel import signs
from electra_dist.parallel.collectives import (
    any_rank,
    broadcast_object,
    gather_objects,
    raise_together,
    together,
)
from electra_dist.parallel.hardware import matrix_product_rate
from electra_dist.parallel.world import World
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.hooks import Hook
from electra_dist.runs.rollbacks import Rollback, rollbacks_in
from electra_dist.tracking.sinks import Metrics, Tracker
from electra_dist.train import rollback
from electra_dist.train.agreement import Agreement, Ahead, Call, Said
from electra_dist.train.faults import Interruption
from electra_dist.train.guard import Guard, Place, Signal
from electra_dist.train.initial import initial_weights
from electra_dist.train.lines import Stopwatch, training_line, validation_line
from electra_dist.train.signals import Signals, scale_can_fall
from electra_dist.train.step import evaluate_step, train_step
from electra_dist.train.window import Window
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import are_finite, loss_scale_state, restart


class Outcome(Enum):
    """How a call of `Trainer.fit` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class Trainer:
    """Owns the engines, the place in the data and the books of one run."""

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        engines: Engines,
        world: World,
        tracker: Tracker | None,
        rollbacks: Sequence[Rollback] = (),
        hook: Hook | None = None,
    ):
        """`tracker` and `hook` are rank 0's; the other ranks have none.
        `rollbacks` are those of run.json.
        """
        self.config = config
        self.manifest = manifest
        self.engines = engines
        self.world = world
        self.tracker = tracker
        self.run = RunDir(config.run.path)
        self.rollbacks = list(rollbacks)
        self._hook = hook
        self.window = Window(world.device)
        self._signals = Signals(world.device)
        self._first_scales = {network: loss_scale_state(engine) for network, engine in engines}
        self._peak_flops = (
            matrix_product_rate(world.device, engines.compute_dtype) * world.world_size
        )
        self._watch = Stopwatch()
        self._saver = Saver(self.run, engines, world, config.checkpoint)
        self._agreement = Agreement(world)
        self._lost: UserError | None = None  # why the run is no longer this process's
        self._epoch = 0.0
        self._logged_finite = True  # what is known of the losses where no guard hears them
        self.done: int  # optimizer steps behind us
        self.real_tokens: int
        self.guard: Guard | None
        self._loader_state: LoaderState | None
        self._unwritten: (
            Metrics | None
        )  # what the last step logged, while its validation is still to come
        self._set_state(None)

    # --- the loop ---------------------------------------------------------------------------------

    def fit(self, interruption: Interruption) -> Outcome:
        """Train to `train.steps` or until `interruption` is requested; the state is saved either
        way.

        Raises `DivergedError` when training diverges more often than `guard.max_rollbacks` allows.
        """
        with _collecting_by_hand(), self._landing():
            call = self._catch_up(interruption)
            while True:
                if call is Call.STOP and self.save(final=True):
                    return Outcome.INTERRUPTED
                if call is not Call.GO_ON:
                    with signs.phase("start", self.done):  # it takes as long as a start does
                        call = self._roll_back(interruption)
                elif self.done < self.config.train.steps:
                    call = self._train_on(interruption)
                else:
                    return Outcome.FINISHED

    @contextmanager
    def _landing(self) -> Iterator[None]:
        """A checkpoint in flight lands,
        also where training ends in an error that all ranks have.
        """
        try:
            yield
        except UserError as error:
            if error.everywhere:
                self._saver.finish()
            raise

    def _train_on(self, interruption: Interruption) -> Call:
        """Train from here to the last step, or until something else is to be done.

        Whether all go on after step k is asked before it and read after it (`agreement`).
        """
        with self._open_loader() as loader:
            ahead = Ahead(loader, self.config.train.steps)
            call = Call.WAIT
            self._watch.lap()
            while self.done < self.config.train.steps:
                call = self._before_step(call, ahead, interruption)
                if call is Call.GO_ON:
                    self._train(*self._ask(ahead, interruption))
                    call = self._after_step(ahead, interruption)
                if call is Call.FAIL:
                    raise_together(ahead.error, self.world)
                if call not in (Call.GO_ON, Call.WAIT):
                    return call
        return Call.GO_ON

    def _open_loader(self) -> TrainLoader:
        world = self.world
        skipped = [rollback.rows for rollback in self.rollbacks]
        return TrainLoader(
            self.config, self.manifest, world.rank, world.world_size, self._loader_state, skipped
        )

    def _before_step(self, call: Call, ahead: Ahead, interruption: Interruption) -> Call:
        """`call`; or, where a rank waits for its data,
        what all want once they are there or no longer wanted.
        """
        signs.enter("data", self.done)
        if call is Call.WAIT:
            ahead.wait(lambda: interruption.requested is not None)
        signs.enter("step", self.done)
        if call is Call.WAIT:
            said = self._said(ahead, interruption)
            self._agreement.post(said)
            call = self._heard(said).call
        return call

    def _ask(self, ahead: Ahead, interruption: Interruption) -> tuple[Step, LoaderState]:
        """The next step, whose data all ranks have;
        on the way is the question whether all go on after it.
        """
        taken = ahead.take()
        ahead.look()
        self._agreement.post(self._said(ahead, interruption))
        return taken

    def _said(self, ahead: Ahead, interruption: Interruption) -> Said:
        """What this rank wants after the step in hand."""
        if self.world.is_main and self._lost is None:
            try:
                lock.check(
                    self.run
                )  # another process may have taken the run over while this one was stopped
            except UserError as error:
                self._lost = error
        call = Call.GO_ON
        if self._lost is not None:
            call = Call.LEAVE
        elif ahead.error is not None:
            call = Call.FAIL
        elif self.guard and self.guard.incident:
            call = Call.ROLL_BACK
        elif interruption.requested is not None:
            call = Call.STOP
        elif ahead.lacks:
            call = Call.WAIT
        return Said(call, self._saver.is_writing)

    def _heard(self, now: Said) -> Said:
        """What the ranks want; `now` is what this one would say now.
        That the run is lost is raised by all, at once.
        """
        said = self._agreement.read(now)
        if said.call is Call.LEAVE:
            raise_together(self._lost, self.world)
        return said

    def _train(self, step: Step, state: LoaderState) -> None:
        factor = lr_factor(step.index, self.config.train.steps, self.config.optim)
        searching = scale_can_fall(self.engines)
        totals = train_step(self.engines, step, self.config, factor)
        self.window.add(totals, step.micro_batches)
        if self.guard:
            self._hear(self._signals.send(Place(step.index, state.drawn - 1), totals, searching))
        self.done = step.index + 1
        self._epoch = step.epoch
        self._loader_state = state

    def _after_step(self, ahead: Ahead, interruption: Interruption) -> Call:
        """Log, save and validate what is due after step `self.done`; what the ranks want then."""
        config = self.config
        last = self.done == self.config.train.steps
        call, writes = self._heard(self._said(ahead, interruption))
        saves = last or self.done % config.checkpoint.every == 0
        validates = last or bool(
            config.validation.every and self.done % config.validation.every == 0
        )
        metrics: Metrics = {}
        if last or self.done % config.tracking.every == 0:
            metrics = self._logged()
        paused = self._watch.pause()
        self._saver.poll(writes)
        if not saves and not validates:
            self._write(metrics)
            self._watch.resume(paused)
            return call
        if self._diverged(last):
            return Call.ROLL_BACK
        validates = validates and has_validation(self.manifest)
        if validates:
            self._unwritten = metrics
        else:
            self._write(metrics)
        if saves and not self.save(final=last):
            return Call.ROLL_BACK
        if validates and call not in (Call.STOP, Call.FAIL):
            call = max(call, self._validate(interruption))
        elif last and not validates:
            call = Call.GO_ON  # whoever asks to stop now gets a finished run
        self._watch.resume(paused)
        return call

    # --- the guard --------------------------------------------------------------------------------

    def _hear(self, signal: Signal | None) -> None:
        if self.guard and signal:
            self.guard.observe(signal)

    def _diverged(self, last: bool = False) -> bool:
        """Whether training has diverged, seen from every step so far;
        the ranks agree. Waits for the device.
        """
        if self.guard is None:
            return False
        self._hear(self._signals.rest())
        if last:
            self.guard.finish()
        return any_rank(self.guard.incident is not None, self.world)

    def _roll_back(self, interruption: Interruption) -> Call:
        """Go back to before the incident, and from now on past its rows;
        `STOP` when the run is to end here anyway.
        """
        self._saver.finish()
        incident = rollback.agreed(self.guard.incident if self.guard else None, self.world)
        back, tries = rollback.decide(self.config, incident, self.done, self.rollbacks, self.world)
        with together(self.world):
            if self.world.is_main:
                lock.check(self.run, fresh=True)
                rollback.record(self.run, back)
                warn(back.sentence(tries, self.config.guard.max_rollbacks))
                rollback.discard(self.run, [back])
                if self.tracker:
                    self.tracker.cut_back(back.to_step)
                if self._hook:
                    self._hook.tell("rolled back", back.reason, back.to_step)
        self.rollbacks.append(back)
        if any_rank(interruption.requested is not None, self.world):
            self._set_state(
                None
            )  # what these engines hold is not to be saved; the next start loads what is
            self.done = back.to_step
            return Call.STOP
        if back.to_step:
            self.resume(back.to_step)
        else:
            self._restart()
        return self._catch_up(interruption)

    def _restart(self) -> None:
        """Back to before the first step."""
        weights = initial_weights(self.config, self.manifest)
        for network, engine in self.engines:
            restart(engine, weights[network], self._first_scales[network], self.world.rank)
        self._set_state(None)

    # --- the books --------------------------------------------------------------------------------

    def _logged(self) -> Metrics:
        """Means over the steps since the last logged one; closes the window."""
        sums = self.window.reduced(self.world)
        timed = self.window.timed_steps
        norms = self.window.norms
        self.window.clear()
        seconds = max(self._watch.lap(), 1e-9)
        self._logged_finite = all(
            math.isfinite(sums.losses()[f"loss/{network}"]) for network in NETWORKS
        )
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
            "speed/mfu": sums.flops(self.config, self.manifest.vocab_size)
            * speed
            / self._peak_flops,
            "speed/step_seconds": seconds / timed,
            "speed/checkpoint_stall": self._saver.stall(),
            "data/epoch": self._epoch,
            "data/real_tokens": self.real_tokens,
        }

    def _catch_up(self, interruption: Interruption) -> Call:
        """The validation that was due where training goes on from, if it is still to come."""
        owes = False
        if self.done == 0 or self._unwritten is not None:
            there = self.world.is_main and is_validated(self.run, self.done)
            owes = has_validation(self.manifest) and not broadcast_object(there, self.world)
        if owes:
            self._unwritten = self._unwritten or {}
        else:
            self._unwritten = None
        if owes:
            return self._validate(interruption)
        return Call.GO_ON

    def _validate(self, interruption: Interruption) -> Call:
        """Losses on the held-out rows, the same ones every time, in one row with what the step
        itself logged.

        An interruption is heard between two micro-batches; what is interrupted is repeated after
        the resume.
        """
        window = Window(self.world.device)
        batches = validation_micro_batches(
            self.config, self.manifest, self.world.rank, self.world.world_size
        )
        if any_rank(interruption.requested is not None, self.world):
            return Call.STOP
        with signs.phase("validation", self.done):
            for batch in batches:
                self._agreement.post(_stop_if_asked(interruption))
                window.add(evaluate_step(self.engines, batch, self.config), (batch,))
                if self._agreement.read(_stop_if_asked(interruption)).call is Call.STOP:
                    return Call.STOP
                signs.sign()
        losses = window.reduced(self.world).losses("validation/")
        if self.guard and self.done:
            self.guard.judge(
                (losses["validation/loss/generator"], losses["validation/loss/discriminator"])
            )
            if self.guard.incident:
                return Call.ROLL_BACK
        self._write({"step": self.done, **(self._unwritten or {}), **losses})
        self._unwritten = None
        return Call.GO_ON

    def _write(self, metrics: Metrics) -> None:
        if not metrics:
            return
        if self.tracker:
            lock.check(self.run)  # not a row into the file of another process
            self.tracker.write(metrics)
            if "loss/generator" in metrics:
                say(training_line(metrics, self.config.train.steps))
            if "validation/loss/generator" in metrics:
                say(validation_line(metrics, self.config.train.steps))
        gc.collect()

    # --- the state --------------------------------------------------------------------------------

    def save(self, final: bool = False) -> bool:
        """A whole checkpoint of step `self.done`, unless there is one; false where training has
        diverged instead.

        A `final` one is on the disk afterwards, or `StorageError` is raised; any other is written
        in the background.
        """
        if self._loader_state is None:
            return True
        with signs.phase("checkpoint", self.done):
            return self._save(final)

    def _save(self, final: bool) -> bool:
        if final:
            self._saver.finish()
        if self._is_saved():
            return True
        if self._diverged():
            return False
        reason = self._unhealthy()
        if self.guard and self.guard.incident:
            return False
        if reason and self.world.is_main:
            warn(f"step {self.done}: the checkpoint is not healthy: {reason}")
        state = {
            "step": self.done,
            "real_tokens": self.real_tokens,
            "window": self.window.reduced(self.world).to_json(),
            "loader": self._gathered_loader_state(),
            "unwritten": self._unwritten,
            "guard": self.guard.to_json() if self.guard else None,
            "rollbacks": [back.to_json() for back in self.rollbacks],
        }
        if self.tracker:
            self.tracker.sync()  # rows up to here are not logged again after a resume
        if self.guard:
            clear = self.guard.clear
        else:
            clear = None
        self._saver.save(
            self.done, state, final=final, healthy=not reason, reason=reason, clear=clear
        )
        return True

    def _is_saved(self) -> bool:
        """Whether there is a checkpoint of this step;
        first, whether this is still our run to write in.
        """
        with together(self.world):
            if self.world.is_main:
                lock.check(self.run, fresh=True)
        # Rank 0's listing decides for all:
        # on a network file system the ranks may see different ones.
        return bool(
            broadcast_object(
                self.world.is_main and self.done in self.run.complete_checkpoints(), self.world
            )
        )

    def _unhealthy(self) -> str:
        """Why what is saved now is not healthy, or nothing;
        weights that are not finite are an incident, too.
        """
        for network, engine in self.engines:
            if any_rank(not are_finite(engine, self.world.rank), self.world):
                reason = f"weights or moments of the {network} are not finite"
                if self.guard:
                    self.guard.condemn(reason)
                return reason
        if self.guard:
            return self.guard.suspicion
        if self._logged_finite:
            return ""
        return "the last logged losses are not finite"

    def _gathered_loader_state(self) -> dict[str, Any]:
        """The place of every canonical stream: each rank knows its own."""
        assert self._loader_state is not None
        parts = gather_objects(self._loader_state.to_dict(), self.world)
        return LoaderState.merge([LoaderState.from_dict(part) for part in parts]).to_dict()

    def resume(self, step: int) -> None:
        """Take up the run at the checkpoint of `step`, which `find_start` has verified."""
        self._saver.finish()
        self._set_state(
            loading.load_checkpoint(self.run, step, self.engines, self.world, verified=True)
        )

    def _set_state(self, state: dict[str, Any] | None) -> None:
        """All that is no weight, as a checkpoint has it; None is the start of the run."""
        self.done = self.real_tokens = 0
        self._loader_state = self._unwritten = None
        self.window.clear()
        self._signals.forget()
        guard = None
        if state is not None:
            self.done = int(state["step"])
            self.real_tokens = int(state["real_tokens"])
            self._loader_state = LoaderState.from_dict(state["loader"])
            self._unwritten = state.get("unwritten")
            self.window.restore(state["window"], self.world)
            self.rollbacks += [old for old in rollbacks_in(state) if old not in self.rollbacks]
            guard = state.get("guard")
        if self.config.guard.enabled:
            self.guard = Guard(self.config.guard, self.manifest.vocab_size, guard)
        else:
            self.guard = None


def _stop_if_asked(interruption: Interruption) -> Said:
    return Said(Call.GO_ON if interruption.requested is None else Call.STOP)


def is_validated(run: RunDir, step: int) -> bool:
    """Whether the validation of `step` stands in the metrics."""
    return any(
        row["step"] == step and "validation/loss/generator" in row for row in run.read_metrics()
    )


def owes_validation(run: RunDir, step: int, world: World) -> bool:
    """Whether training was interrupted in the validation after `step`,
    which its checkpoint is of; the ranks agree.
    """
    owes = False
    with together(world):
        if world.is_main:
            state = read_trainer_state(run.checkpoint(step))
            owes = state.get("unwritten") is not None and not is_validated(run, step)
    return bool(broadcast_object(owes, world))


@contextmanager
def _collecting_by_hand() -> Iterator[None]:
    """Garbage is collected at the same steps on all ranks,
    instead of whenever one of them likes.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()
