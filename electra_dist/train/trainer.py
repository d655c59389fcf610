"""One training run, from an open run directory to its last checkpoint; the loop reads top to
bottom.

Comes in: a checked configuration and its open data. Goes out: metrics, checkpoints,
and whether the run is finished or was interrupted (and should be started again).

What a step computes depends on (configuration, data, seed) and never on the number of ranks or on
restarts (DESIGN D2): the state saved is that of the last consumed step. When training diverges, it
goes back to the newest healthy checkpoint and on past the offending rows (DESIGN D11).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

from electra_dist.batch import Step
from electra_dist.checkpoint import loading
from electra_dist.checkpoint.saving import Saver
from electra_dist.config import Config, lr_factor
from electra_dist.console import warn
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.streams import LoaderState
from electra_dist.errors import UserError
from electra_dist.parallel import signs
from electra_dist.parallel.collectives import any_rank, raise_together, together
from electra_dist.parallel.world import World
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import EarlyStop
from electra_dist.runs.hooks import Hook
from electra_dist.runs.metrics import Metrics
from electra_dist.runs.rollbacks import Rollback
from electra_dist.tracking.sinks import Tracker
from electra_dist.train.agreement import Agreement, Ahead, Call, Said
from electra_dist.train.checkpoints import Checkpoints
from electra_dist.train.divergence import rollback
from electra_dist.train.divergence.health import Health
from electra_dist.train.faults import Interruption
from electra_dist.train.garbage import collecting_by_hand
from electra_dist.train.heldout.evaluator import Evaluator
from electra_dist.train.heldout.samples import Sampler
from electra_dist.train.heldout.selection import Selection
from electra_dist.train.heldout.validation import Validation
from electra_dist.train.initial import initial_weights
from electra_dist.train.logbook import Logbook
from electra_dist.train.state import RunState
from electra_dist.train.step import train_step
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import loss_scale_state, restart


class Outcome(Enum):
    """How a call of `Trainer.train_to_end` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"


class Trainer:
    """Owns the engines of one run, and all that happens between two steps of theirs."""

    def __init__(
        self,
        config: Config,
        data: RunData,
        engines: Engines,
        world: World,
        tracker: Tracker | None,
        rollbacks: Sequence[Rollback] = (),
        hook: Hook | None = None,
        evaluator: Evaluator | None = None,
    ):
        """`tracker` and `hook` are rank 0's; the other ranks have none.
        `rollbacks` are those of run.json, `evaluator` that of `validation.evaluate_every`.
        """
        self.config = config
        self.data = data
        self.engines = engines
        self.world = world
        self.tracker = tracker
        self.run = RunDir(config.run.path)
        self.state = RunState(world.device, rollbacks)
        self.health = Health(config.guard, data.vocab_size, engines, world)
        self._hook = hook
        self._first_scales = {network: loss_scale_state(engine) for network, engine in engines}
        self._logbook = Logbook(config, data, engines, world, tracker, hook)
        self._saver = Saver(self.run, engines, world, config.checkpoint)
        self._checkpoints = Checkpoints(self.run, self._saver, world, tracker)
        self._agreement = Agreement(world)
        self._validation = Validation(config, data, engines, world, self._agreement, evaluator)
        self._selection = Selection(config, self.run, world)
        self._sampler = Sampler(config, data, engines, self.run, world)
        self._lost: UserError | None = None  # why the run is no longer this process's
        self.health.begin(None)

    @property
    def done(self) -> int:
        """Optimizer steps behind us."""
        return self.state.done

    @property
    def early_stop(self) -> EarlyStop | None:
        """Why the run ends here, before its last step; None where it goes on."""
        return self._selection.early_stop_at(self.done)

    @property
    def _is_over(self) -> bool:
        return self.done >= self.config.train.steps or self.early_stop is not None

    # --- the loop ---------------------------------------------------------------------------------

    def train_to_end(self, interruption: Interruption) -> Outcome:
        """Train to `train.steps`, to the end of patience, or until `interruption` is requested; the
        state is saved in any case.

        Raises `DivergedError` when training diverges more often than `guard.max_rollbacks` allows.
        """
        with collecting_by_hand(), self._landing():
            call = self._catch_up(interruption)
            while True:
                if call is Call.STOP and self.save(final=True):
                    return Outcome.INTERRUPTED
                if call is not Call.GO_ON:
                    with signs.phase("start", self.done):  # it takes as long as a start does
                        call = self._roll_back(interruption)
                elif not self._is_over:
                    call = self._loop(interruption)
                elif self.early_stop is None or self.save(final=True):
                    return Outcome.FINISHED
                else:
                    call = Call.ROLL_BACK

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

    def _loop(self, interruption: Interruption) -> Call:
        """Train from here to the last step, or until something else is to be done.

        Whether all go on after step k is asked before it and read after it (`agreement`).
        """
        with self._open_loader() as loader:
            ahead = Ahead(loader, self.config.train.steps)
            call = Call.WAIT
            self._logbook.stopwatch.lap()
            self.engines.clock.clear()
            while not self._is_over:
                call = self._before_step(call, ahead, interruption)
                if call is Call.GO_ON:
                    self._take_step(*self._ask(ahead, interruption))
                    call = self._after_step(ahead, interruption)
                if call is Call.FAIL:
                    raise_together(ahead.error, self.world)
                if call not in (Call.GO_ON, Call.WAIT):
                    return call
        return Call.GO_ON

    def _open_loader(self) -> TrainLoader:
        plan = StepPlan.of(self.config, self.world.rank, self.world.world_size)
        skipped = [back.rows for back in self.state.rollbacks]
        return TrainLoader(plan, self.data, self.state.loader, skipped)

    def _before_step(self, call: Call, ahead: Ahead, interruption: Interruption) -> Call:
        """`call`; or, where a rank waits for its data,
        what all want once they are there or no longer wanted.
        """
        signs.enter("data", self.done)
        if call is Call.WAIT:
            with self.engines.clock.waiting_for_data():
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
                # another process may have taken the run over while this one was stopped
                lock.check(self.run)
            except UserError as error:
                self._lost = error
        call = Call.GO_ON
        if self._lost is not None:
            call = Call.LEAVE
        elif ahead.error is not None:
            call = Call.FAIL
        elif self.health.incident:
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

    def _take_step(self, step: Step, state: LoaderState) -> None:
        """One step; `state` is that of the data after it."""
        factor = lr_factor(step.index, self.config.train.steps, self.config.optim)
        searching = self.health.is_searching()
        totals = train_step(self.engines, step, self.config, factor)
        self.state.window.add(totals, step.micro_batches)
        self.health.hear(step.index, state.drawn - 1, totals, searching)
        self.state.done = step.index + 1
        self.state.epoch = step.epoch
        self.state.source_epochs = step.source_epochs
        self.state.loader = state

    def _after_step(self, ahead: Ahead, interruption: Interruption) -> Call:
        """Log, save and validate what is due after step `self.done`; what the ranks want then."""
        config = self.config
        last = self.done == self.config.train.steps
        call, writes = self._heard(self._said(ahead, interruption))
        saves = last or self.done % config.checkpoint.every == 0
        validates = self._validation.is_due(self.done)
        metrics: Metrics = {}
        if last or self.done % config.tracking.every == 0:
            metrics = self._logged()
        paused = self._logbook.stopwatch.pause()
        self._saver.poll(writes)
        if saves or validates:
            call = self._save_and_validate(call, saves, validates, metrics, interruption)
        else:
            self._logbook.write(metrics)
        if call is not Call.ROLL_BACK and self._sampler.is_due(self.done, validated=False):
            self._sampler.write(self.done)
        self._logbook.stopwatch.resume(paused)
        return call

    def _save_and_validate(
        self,
        call: Call,
        saves: bool,
        validates: bool,
        metrics: Metrics,
        interruption: Interruption,
    ) -> Call:
        """`call`, or what the ranks want after this; `metrics` is the row of the step."""
        last = self.done == self.config.train.steps
        if self.health.has_diverged(last):
            return Call.ROLL_BACK
        validates = validates and self._validation.has_rows
        if validates:
            self.state.unwritten = metrics
        else:
            self._logbook.write(metrics)
        if saves and not self.save(final=last):
            return Call.ROLL_BACK
        if validates and call not in (Call.STOP, Call.FAIL):
            return max(call, self._validate(interruption))
        if last and not validates:
            return Call.GO_ON  # whoever asks to stop now gets a finished run
        return call

    def _logged(self) -> Metrics:
        """The row of the steps since the last logged one."""
        factor = lr_factor(self.done - 1, self.config.train.steps, self.config.optim)
        row = self._logbook.row(self.state, factor, self._saver.stall)
        self.health.note_logged(row)
        return row

    # --- going back -------------------------------------------------------------------------------

    def _roll_back(self, interruption: Interruption) -> Call:
        """Go back to before the incident, and from now on past its rows;
        `STOP` when the run is to end here anyway.
        """
        self._saver.finish()
        incident = rollback.agreed(self.health.incident, self.world)
        back, tries = rollback.decide(
            self.config, incident, self.done, self.state.rollbacks, self.world
        )
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
        self.state.rollbacks.append(back)
        if any_rank(interruption.requested is not None, self.world):
            # what these engines hold is not to be saved; the next start loads what is
            self._begin(None)
            self.state.done = back.to_step
            return Call.STOP
        if back.to_step:
            self.resume(back.to_step)
        else:
            self._restart()
        return self._catch_up(interruption)

    def _restart(self) -> None:
        """Back to before the first step."""
        weights = initial_weights(self.config, self.data)
        for network, engine in self.engines:
            restart(engine, weights[network], self._first_scales[network], self.world.rank)
        self._begin(None)

    # --- validation -------------------------------------------------------------------------------

    def _catch_up(self, interruption: Interruption) -> Call:
        """The validation that was due where training goes on from, if it is still to come."""
        state = self.state
        self._selection.begin(state.done)
        if not self._validation.is_owed(self.run, state):
            state.unwritten = None
            return Call.GO_ON
        return self._validate(interruption)

    def _validate(self, interruption: Interruption) -> Call:
        """Losses on the held-out rows, in one row with what the step itself logged."""
        state = self.state
        losses = self._validation.losses(state.done, interruption)
        if losses is None:
            return Call.STOP
        if state.done and not self.health.accepts(losses):
            return Call.ROLL_BACK
        row = {"step": state.done, **(state.unwritten or {}), **losses}
        self._logbook.write(row)
        state.unwritten = None
        self._selection.add(row)
        if self._sampler.is_due(state.done, validated=True):
            self._sampler.write(state.done)
        if self._selection.is_best(state.done) and not self.save():
            return Call.ROLL_BACK
        return Call.GO_ON

    # --- the state --------------------------------------------------------------------------------

    def save(self, final: bool = False) -> bool:
        """A whole checkpoint of step `self.done`, unless there is one; false where training has
        diverged instead.

        A `final` one is on the disk afterwards, or `StorageError` is raised; any other is written
        in the background.
        """
        if self.state.loader is None:
            return True
        with signs.phase("checkpoint", self.done):
            return self._checkpoints.save(self.state, self.health, final, self._selection.to_keep)

    def resume(self, step: int) -> None:
        """Take up the run at the checkpoint of `step`, which `find_start` has verified."""
        self._saver.finish()
        self._begin(
            loading.load_checkpoint(self.run, step, self.engines, self.world, verified=True)
        )

    def _begin(self, saved: dict[str, Any] | None) -> None:
        """Stand where a checkpoint says, in all that is no weight; None is the start of the run."""
        self.state.begin(saved, self.world)
        self._logbook.passes.begin(self.state.source_epochs)
        self.health.begin((saved or {}).get("guard"))
