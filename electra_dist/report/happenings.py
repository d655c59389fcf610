"""What happened to a run on its way: restarts, rollbacks, returns, changed keys.

Comes in: a `LoadedRun`. Goes out: `Happening`s, which charts mark and a table lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from electra_dist.report.loading import LoadedRun


@dataclass(frozen=True)
class Happening:
    """Something that happened at `step`; None where the run does not tell the step."""

    step: int | None
    text: str


def happenings_of(loaded: LoadedRun) -> list[Happening]:
    """All of them in the order of steps, those without one at the end."""
    found = list(_starts(loaded)) + list(_returns(loaded)) + list(_changes(loaded))
    return sorted(found, key=lambda one: (one.step is None, one.step or 0))


def _starts(loaded: LoadedRun) -> Iterator[Happening]:
    """Restarts; the entry of a start in older files has no step, which reads as 0."""
    for start in loaded.facts.starts[1:]:
        step = start.step or None
        where = "1 rank"
        if start.world_size != 1:
            where = f"{start.world_size} ranks"
        if start.device:
            where += f" on {start.device}"
        yield Happening(step, f"restarted {start.time}, {where}")


def _returns(loaded: LoadedRun) -> Iterator[Happening]:
    for rollback in loaded.facts.rollbacks:
        yield Happening(
            rollback.to_step,
            f"rolled back from step {rollback.from_step:,} to {rollback.to_step:,}:"
            f" {rollback.reason}",
        )
    for back in loaded.facts.went_back:
        yield Happening(
            back.to_step, f"went back from step {back.from_step:,} to {back.to_step:,} as asked"
        )
    origin = loaded.facts.branched_from
    if origin is not None:
        yield Happening(origin.step, f"branched from {origin.name} at step {origin.step:,}")


def _changes(loaded: LoadedRun) -> Iterator[Happening]:
    for change in loaded.facts.changes:
        yield Happening(change.step, f"{change.key} changed from {change.old} to {change.new}")
