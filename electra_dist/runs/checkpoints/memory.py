"""What a run remembers of its saving, in run.json: the newest checkpoint that was written, and what
went wrong.

It proves that a run which finds no checkpoint has had one (`check_nothing_is_lost`), and lets
`status` say that saving fails. It is a bystander: where run.json cannot be read or written,
training goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace

from electra_dist.errors import CheckpointError, UserError
from electra_dist.runs.checkpoints.folders import saved_steps, set_aside_later
from electra_dist.runs.checkpoints.listing import verify_checkpoint
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import Saving


def saving(run: RunDir) -> Saving | None:
    """What the run remembers; None where it says nothing, or nothing that can be understood."""
    try:
        return run.read_facts().saving
    except UserError:
        return None


def note_start(run: RunDir, newest: int | None) -> None:
    """Remember the checkpoint that the run starts from;
    with None, that it has saved nothing so far.
    """
    old = saving(run)
    if old is None or old.step != newest:
        _write(run, Saving(step=newest, time=None if newest is None else time.time()))


def note_saved(run: RunDir, step: int) -> None:
    """Remember a checkpoint that was written."""
    _write(run, Saving(step=step, time=time.time()))


def note_failed(run: RunDir, step: int, problem: str) -> None:
    """Remember a checkpoint that could not be written."""
    old = saving(run) or Saving()
    _write(run, replace(old, problem=problem, problem_step=step, failures=old.failures + 1))


def start_over(run: RunDir) -> bool:
    """Let a run that has lost its checkpoints begin at step 0: their rests are set aside, what was
    saved is forgotten.

    Does nothing, and returns false, where one of them is whole: the run goes on from that. For who
    holds the lock of the run.
    """
    check_link(run)
    if any(verify_checkpoint(run, step).whole for step in reversed(saved_steps(run))):
        return False
    set_aside_later(run, -1)
    _write(run, Saving())
    return True


def _write(run: RunDir, saving: Saving) -> None:
    with contextlib.suppress(OSError, UserError):
        run.update_facts(lambda facts: facts.with_saving(saving))


# --- nothing is there -----------------------------------------------------------------------------


def check_link(run: RunDir) -> None:
    """Raise `CheckpointError` where the folder of the checkpoints is a link that leads nowhere."""
    if run.checkpoints.is_symlink() and not run.checkpoints.exists():
        raise CheckpointError(
            f"{run.checkpoints}: is a link to {os.readlink(run.checkpoints)}, which is not there;"
            " is its file system mounted? Bring it back, or put another folder or link in its"
            " place, and start again"
        )


def check_nothing_is_lost(run: RunDir, every: int) -> None:
    """Called where no checkpoint is found: raises `CheckpointError` when this run has had one.

    `every` is `checkpoint.every`: a run of older software that has logged so many steps must have
    saved.
    """
    evidence = _evidence(run, every)
    if evidence is None:
        return
    if run.checkpoints.is_dir():
        what = "holds no checkpoint"
    else:
        what = "is not there"
    raise CheckpointError(
        f"{run.checkpoints}: {what}, but {evidence}; is its file system mounted? Bring the"
        " checkpoints back and start again, or add `start_over` to train from step 0"
    )


def _evidence(run: RunDir, every: int) -> str | None:
    """Why this run must have saved, or None."""
    remembered = saving(run)
    if remembered is not None:
        if remembered.step is None:
            return None
        return f"this run has saved step {remembered.step} ({run.facts.name})"
    try:
        last = max((int(row["step"]) for row in run.read_metrics()), default=0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if last >= every:
        return f"this run has logged step {last} and saves every {every} ({run.metrics.name})"
    return None
