"""Which checkpoints a run has, how one gets its name, and which of them may go.

A finished folder is renamed to its name in one step, and one that goes is renamed before it is
removed: a kill at any moment leaves every name whole or absent. What is hidden (`.step-...`)
belongs to nobody but the one who trains the run.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from electra_dist.errors import CheckpointError
from electra_dist.runs.checkpoints.manifest import read_manifest
from electra_dist.runs.checkpoints.members import sync
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import Course

_STEP = re.compile(r"^step-(\d{8})$")
#: Hidden names: being written, being replaced by a newer one of the same step, being removed.
PARTIAL = ".partial"
REPLACED = ".replaced"
REMOVED = ".removed"


def saved_steps(run: RunDir) -> list[int]:
    """Steps that a checkpoint folder exists of, whole or not, ascending."""
    if not run.checkpoints.is_dir():
        return []
    matches = (_STEP.match(entry.name) for entry in run.checkpoints.iterdir())
    return sorted(int(match[1]) for match in matches if match)


# --- the name -------------------------------------------------------------------------------------


def new_partial(run: RunDir, step: int) -> Path:
    """A new hidden folder that the checkpoint of `step` is written in;
    what earlier writers left is removed first.
    """
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    recover(run)
    remove_leftovers(run)
    folder = run.checkpoints / f".{run.checkpoint(step).name}.{secrets.token_hex(4)}{PARTIAL}"
    folder.mkdir()
    return folder


def publish(folder: Path, final: Path) -> None:
    """Give a finished checkpoint its name;
    one of the same step makes room first (`recover` undoes a half-way kill).
    """
    aside = final.with_name(f".{final.name}{REPLACED}")
    if final.exists():
        final.rename(aside)
    folder.rename(final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover(run: RunDir) -> None:
    """Bring back a checkpoint whose replacement was killed between its two renames."""
    if run.checkpoints.is_dir():
        for aside in run.checkpoints.glob(f".step-*{REPLACED}"):
            final = aside.with_name(aside.name.removesuffix(REPLACED).removeprefix("."))
            if not final.exists():
                aside.rename(final)


def remove_leftovers(run: RunDir) -> None:
    """Remove what was never finished, and what was being removed."""
    for suffix in (PARTIAL, REPLACED, REMOVED):
        for leftover in run.checkpoints.glob(f".step-*{suffix}"):
            shutil.rmtree(leftover, ignore_errors=True)


def set_aside_later(run: RunDir, step: int) -> list[tuple[Path, Path]]:
    """Rename the checkpoints after `step`, which the run goes on from, to `step-N.set-aside-xxxx`:
    old and new name.

    No retention counts or removes them.
    """
    moved = []
    for later in saved_steps(run):
        if later > step:
            old = run.checkpoint(later)
            new = old.with_name(f"{old.name}.set-aside-{secrets.token_hex(2)}")
            old.rename(new)
            moved.append((old, new))
    return moved


# --- which may go ---------------------------------------------------------------------------------


def is_milestone(step: int, milestones_every: int | None) -> bool:
    """Whether the checkpoint of `step` is kept for good."""
    return bool(milestones_every) and step % milestones_every == 0  # type: ignore[operator]


def removable(
    run: RunDir,
    keep: int,
    milestones_every: int | None = None,
    *,
    clear: int | None = None,
    whole: Sequence[int] | None = None,
    best: Course | None = None,
) -> list[int]:
    """Steps that retention gives up: all but the `keep` newest, the milestones, the newest healthy
    one, and the best one.

    clear   the newest healthy one of at most this step stays as well: later ones may prove to be
            the beginning of a
            divergence
    whole   steps of those that count as kept; by default those that carry COMPLETE
    best    the best of these validations stays, and those that are the best again after a
            return to a step from `clear` on; None keeps none for that
    """
    counted = sorted(run.complete_checkpoints() if whole is None else whole)
    kept = set(counted[-keep:])
    old = [step for step in saved_steps(run) if kept and step < max(kept) and step not in kept]
    doomed = [step for step in old if not is_milestone(step, milestones_every)]
    if not doomed:
        return []
    spared = {newest_healthy(run, counted)}
    if clear is not None:
        spared.add(newest_healthy(run, [step for step in counted if step <= clear]))
    if best is not None:
        certain = counted[-1]
        if clear is not None:
            certain = clear
        spared |= {point.step for point in best.among(counted).records_after(certain)}
    return [step for step in doomed if step not in spared]


def newest_healthy(run: RunDir, steps: Sequence[int]) -> int | None:
    """The newest of `steps` whose manifest does not call it unhealthy; None when there is none."""
    for step in sorted(steps, reverse=True):
        try:
            if read_manifest(run.checkpoint(step)).healthy is not False:
                return step
        except CheckpointError:
            continue  # whatever it is, it is not healthy
    return None


def prune(
    run: RunDir,
    keep: int,
    milestones_every: int | None = None,
    clear: int | None = None,
    best: Course | None = None,
) -> list[int]:
    """Remove what `removable` names; returns those steps."""
    steps = removable(run, keep, milestones_every, clear=clear, best=best)
    for step in steps:
        remove(run.checkpoint(step))
    return steps


def remove(folder: Path) -> None:
    """Remove a checkpoint: first its name, then its files, so that a kill on the way leaves none
    half removed.

    One that is gone already is fine.
    """
    doomed = folder.with_name(f".{folder.name.removeprefix('.')}.{secrets.token_hex(2)}{REMOVED}")
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    if doomed.is_symlink():
        doomed.unlink()
    else:
        shutil.rmtree(doomed, ignore_errors=True)
