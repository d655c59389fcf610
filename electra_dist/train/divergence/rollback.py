"""Going back from a divergence: to which checkpoint, past which rows, how often, and what of it is
kept.

Comes in: the guard's `Incident`. Goes out: a `Rollback`, recorded in run.json before anything else
changes, so that a kill at any moment after it replays the same. Loading the checkpoint is the
trainer's part.

Every function that takes a `World` is collective.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from itertools import takewhile

from electra_dist.checkpoint import loading
from electra_dist.checkpoint.tensors import read_trainer_state
from electra_dist.config import Config
from electra_dist.console import warn
from electra_dist.errors import DivergedError, UserError
from electra_dist.parallel.collectives import (
    broadcast_object,
    gather_objects,
    on_every_rank,
    together,
)
from electra_dist.parallel.world import World
from electra_dist.runs.checkpoints import list_checkpoints, memory, saved_steps
from electra_dist.runs.checkpoints.folders import remove
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import Saving
from electra_dist.runs.rollbacks import Rollback, rollbacks_in
from electra_dist.train.divergence.guard import Incident

#: Sections that decide what a run computes.
_COMPUTING = ("data", "model", "train", "optim", "precision")


def agreed(incident: Incident | None, world: World) -> Incident:
    """The incident, the same on every rank: that of the first rank which has one."""
    found = [
        content for content in gather_objects(incident and incident.to_json(), world) if content
    ]
    return Incident.from_json(found[0])


def decide(
    config: Config, incident: Incident, done: int, earlier: Sequence[Rollback], world: World
) -> tuple[Rollback, int]:
    """What to do about an incident that was seen after `done` steps, and the how-manieth try in a
    row it is.

    Raises `DivergedError` on every rank when `guard.max_rollbacks` tries have come no further.
    """
    run = RunDir(config.run.path)
    target = _target(run, incident, config.checkpoint.every, world)
    settings = _settings(config)
    tries = sum(
        1
        for _ in takewhile(
            lambda r: r.settings == settings and r.from_step > target, reversed(earlier)
        )
    )
    if tries >= config.guard.max_rollbacks:
        with together(world):
            if world.is_main:
                _leave_healthy(run, target)
        raise on_every_rank(DivergedError(_given_up(config, incident, target, tries)))
    now = broadcast_object(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), world)
    return Rollback(now, done, target, incident.rows, incident.reason, settings), tries + 1


def _target(run: RunDir, incident: Incident, every: int, world: World) -> int:
    """Step of the newest checkpoint that is whole, healthy and of before the offending rows; 0 when
    there is none.

    Where the one that should be there is gone, the oldest healthy one after it is better than the
    start of the run.
    """
    healthy: list[int] = []
    if world.is_main:
        healthy = [
            found.step
            for found in list_checkpoints(run)
            if found.whole and found.healthy is not False
        ]
    healthy = broadcast_object(healthy, world)
    before = [step for step in reversed(healthy) if step <= incident.back_to]
    after = [step for step in healthy if step > incident.back_to and incident.back_to >= every]
    for step in (*before, *after):
        if not loading.verify(run, step, world):
            return int(step)
    return 0


def _leave_healthy(run: RunDir, target: int) -> None:
    """Rank 0: the run ends here; remove what it must not be taken up from again."""
    for found in list_checkpoints(run):
        if found.step > target and (target or found.healthy is False):
            remove(run.checkpoint(found.step))
            warn(f"{found.path}: of the course that diverged; removed")
    left = saved_steps(run)
    memory.note_start(run, left[-1] if left else None)


def _settings(config: Config) -> str:
    content = config.model_dump(mode="json", include=set(_COMPUTING))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _given_up(config: Config, incident: Incident, target: int, tries: int) -> str:
    """The sentences that end a run."""
    if tries:
        after = f" after {tries} rollback{'s' if tries > 1 else ''}"
    else:
        after = ""
    seen = (
        f"{config.run.path}: training diverged at step {incident.first + 1}{after}:"
        f" {incident.reason}."
    )
    if target == 0:
        return (
            f"{seen} No healthy checkpoint is from before it; start another run with a lower"
            " optim.lr, a longer optim.warmup_steps or another initializer_range (set run.name),"
            " or allow more with guard.max_rollbacks"
        )
    return (
        f"{seen} The healthy checkpoint of step {target} is kept; go on from there with a lower"
        f" rate: electra-dist train CONFIG --from-step {target} optim.lr=..., or allow more with"
        " guard.max_rollbacks"
    )


def record(run: RunDir, rollback: Rollback) -> None:
    """Rank 0: add it to run.json, durably, together with the checkpoint that the run now has."""

    saving = Saving(rollback.to_step or None, time.time())
    run.update_facts(lambda facts: facts.with_rollback(rollback).with_saving(saving))


def recorded(run: RunDir, world: World) -> list[Rollback]:
    """The rollbacks of run.json, at a start;
    what a kill left undone of the last one is done now.
    """
    found: list[Rollback] = []
    with together(world):
        if world.is_main:
            found = list(run.read_facts().rollbacks)
            discard(run, found)
    return [
        Rollback.from_json(entry)
        for entry in broadcast_object([one.to_json() for one in found], world)
    ]


def discard(run: RunDir, rollbacks: Sequence[Rollback]) -> None:
    """Rank 0: remove the checkpoints of a course that was left by these rollbacks.

    Those are the ones later than where a rollback went back to that do not know of it.
    """
    for rollback in rollbacks:
        for step in saved_steps(run):
            if step > rollback.to_step and not _knows(run, step, rollback):
                remove(run.checkpoint(step))
                warn(
                    f"{run.checkpoint(step)}: of the course that diverged, left at {rollback.time};"
                    " removed"
                )


def _knows(run: RunDir, step: int, rollback: Rollback) -> bool:
    """Whether a checkpoint comes after a rollback;
    one that cannot be read is left for `loading.verify` to judge.
    """
    try:
        return rollback in rollbacks_in(read_trainer_state(run.checkpoint(step)))
    except (OSError, UserError, ValueError):
        return True
