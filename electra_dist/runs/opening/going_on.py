"""Going on otherwise than before: with a changed configuration from here on, or from an older
checkpoint.

Comes in: what the command line asks for (`GoingOn`), a run whose lock this process holds. Goes out:
later checkpoints set aside, metrics cut back, and an entry in run.json that says what was done.
Nothing is deleted. What was done is not done again by the same command, so that "run the same
command again" and a requeued job simply go on.

Needs no torch: `launch local` and `launch slurm` do this once, before a rank starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from electra_dist.config import Config
from electra_dist.errors import CheckpointError, ConfigError
from electra_dist.files.writing import writing
from electra_dist.runs.checkpoints.folders import recover, saved_steps, set_aside_later
from electra_dist.runs.checkpoints.listing import set_aside, verify_checkpoint
from electra_dist.runs.checkpoints.memory import start_over
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import KeyChange, RunFacts, WentBack
from electra_dist.runs.metrics_log import cut_back
from electra_dist.runs.opening.changes import (
    Change,
    about_the_decay,
    changes,
    learning_rate,
    listed,
)
from electra_dist.runs.opening.own_files import OwnFiles

Tell = Callable[[str], None]


@dataclass(frozen=True)
class GoingOn:
    """How a start differs from simply going on.

    from_here   changed keys that concern the steps to come are accepted
    from_step   go back to the checkpoint of this step first; changed keys are accepted from there
    again       go back even if that was done before
    branch_of   the run directory that this run starts from, at `from_step` or its newest checkpoint
    start_over  begin at step 0 where the run has saved before and no checkpoint is whole any more
    """

    from_here: bool = False
    from_step: int | None = None
    again: bool = False
    branch_of: Path | None = None
    start_over: bool = False


PLAIN = GoingOn()


# --- may it be ------------------------------------------------------------------------------------


def check_going_on(run: RunDir, own: OwnFiles, config: Config, how: GoingOn) -> None:
    """Raise `ConfigError` or `CheckpointError` where the run cannot go on as asked;
    touches nothing.
    """
    goes_back = how.from_step is not None and not _is_done(own, config, how)
    if goes_back:
        _check_step(run, how.from_step)
    if own.config is None:
        return
    past = changes(own.config, config, "past")
    future = changes(own.config, config, "future")
    if past:
        raise ConfigError(
            f"{run.path}: holds a run of another configuration ({listed([*past, *future])}). What"
            f" it has trained would mean something else with another {past[0].key}: take that back"
            " to go on with this run, or set run.name to start another one"
        )
    if goes_back and how.from_step is not None:
        step = how.from_step
    else:
        step = _newest(run)
    if future and not goes_back and not how.from_here:
        raise ConfigError(_how_to_accept(run, own.config, config, future, step))
    if config.train.steps < step:
        raise ConfigError(
            f"train.steps = {config.train.steps}: {run.path} is at step {step} already; give at"
            f" least {step}, or go back first: `from_step` N{_there(run)}"
        )


def _is_done(own: OwnFiles, config: Config, how: GoingOn) -> bool:
    """Whether run.json says that this request was carried out last;
    another configuration makes it another one.
    """
    last = _last(own.facts)
    if last is None or not last.done or how.again:
        return False
    is_same = last.to_step == how.from_step
    return is_same and not (own.config and changes(own.config, config, "future"))


def _check_step(run: RunDir, step: int | None) -> None:
    if step not in saved_steps(run):
        raise CheckpointError(
            f"`from_step` {step}: {run.path} has no checkpoint of this step{_there(run)}"
        )


def _there(run: RunDir) -> str:
    steps = ", ".join(map(str, run.complete_checkpoints())) or "none"
    aside = [Path(one.path).name for one in set_aside(run)]
    return f" (whole are: {steps}{'; set aside are: ' + ', '.join(aside[:8]) if aside else ''})"


def _how_to_accept(run: RunDir, old: Config, new: Config, future: list[Change], step: int) -> str:
    return (
        f"{run.path}: holds a run of another configuration ({listed(future)}). This changes what"
        f" comes after its checkpoint of step {step}, and nothing before"
        f" ({learning_rate(old, new, step)}). To accept it from there on, add `from_here`; from an"
        f" older checkpoint on, `from_step` N{_there(run)}; as another run, `branch`"
        f" NEWNAME.{about_the_decay(old, new, step, run.complete_checkpoints())} Otherwise take it"
        " back to go on as before"
    )


def _newest(run: RunDir) -> int:
    return max(run.complete_checkpoints(), default=0)


def _last(facts: RunFacts | None) -> WentBack | None:
    """The newest return to an older checkpoint."""
    if facts is None or not facts.went_back:
        return None
    return facts.went_back[-1]


# --- doing it -------------------------------------------------------------------------------------


def go_on(run: RunDir, own: OwnFiles, config: Config, how: GoingOn, tell: Tell) -> None:
    """Carry out what was asked, and record it in run.json, which is whole. config.yaml is written
    by the caller, last.

    A kill on the way is made good by the next start, with or without the same options: what is to
    be done is written down before it is begun.
    """
    with writing(run.path, "the run"):
        recover(run)
        if how.start_over and start_over(run):
            tell(f"{run.path}: no checkpoint is whole; starts over from step 0")
        step = how.from_step
        last = _last(own.facts)
        if step is not None and last is not None and _is_done(own, config, how):
            tell(
                f"{run.path}: went back to step {step} at {last.time} already, and"
                " goes on; add --again to do it once more"
            )
            step = None
        if step is not None:
            _check_whole(run, step, tell)
        _write_down(run, own, config, step, tell)
        _finish_going_back(run, tell)


def _check_whole(run: RunDir, step: int, tell: Tell) -> None:
    found = verify_checkpoint(run, step)
    if not found.whole:
        raise CheckpointError(
            f"`from_step` {step}: {found.path}: not whole: {'; '.join(found.problems[:3])}"
        )
    if found.healthy is False:
        tell(f"warning: {found.path}: is marked as unhealthy: {found.reason}")


def _write_down(
    run: RunDir, own: OwnFiles, config: Config, back_to: int | None, tell: Tell
) -> None:
    """In one change of run.json: the step to go back to, and the keys that change there."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if own.config:
        future = changes(own.config, config, "future")
    else:
        future = []
    begun = _last(own.facts)
    is_begun = begun is not None and not begun.done and begun.to_step == back_to
    if back_to is None:
        step = _newest(run)
    else:
        step = back_to
    if not future and (back_to is None or is_begun):
        return

    def note(facts: RunFacts) -> RunFacts:
        """What has changed, from which step on."""
        if back_to is not None and not is_begun:
            facts = facts.with_return(WentBack(saved_steps(run)[-1], back_to, now))
        return facts.with_changes(
            [KeyChange(step, one.key, one.new, one.old, now) for one in future]
        )

    run.update_facts(note)
    if own.config is not None and future:
        tell(
            f"{run.path}: changed after step {step}: {listed(future)}"
            f" ({learning_rate(own.config, config, step)}); recorded in {run.facts.name}"
        )


def _finish_going_back(run: RunDir, tell: Tell) -> None:
    """Do what the newest entry says, unless it is done."""
    begun = _last(run.read_facts())
    if begun is None or begun.done:
        return
    step = begun.to_step
    for old, new in set_aside_later(run, step):
        tell(f"{old}: set aside as {new.name}")
    cut = cut_back(run.metrics, step)
    if cut.later:
        tell(f"{run.metrics}: {cut.later} rows after step {step} moved to a file beside it")

    run.update_facts(RunFacts.with_return_done)
    tell(f"{run.path}: goes back from step {begun.from_step} to step {step}")
