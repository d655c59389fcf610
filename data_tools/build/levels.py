"""Many sorted runs made few: merges in levels, so that a build's work grows with the size of the
corpus and no faster.

A shard takes a range of keys from every run that has some. With a run for each part of the input,
shards times runs grows with the square of the size. So where there are more than `FAN_IN` runs,
groups of that many are merged into one run each, level by level. Every level reads and writes all
ids once, in large pieces, and one level serves a terabyte of text.

A group that is too large for one task is cut into slices of the key, a task each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.build.records import read_merged, write_merged
from data_tools.disk import on_disk
from data_tools.spill import KeyRange, Spill, merge
from data_tools.workers import Workers
from electra_dist.console import Progress

#: Runs that are merged together, and that a shard is gathered from, at most.
FAN_IN = 256
#: Tokens of one merge, about.
TASK_TOKENS = 2**32


@dataclass(frozen=True)
class MergeTask:
    """Everything a worker needs to merge some runs into one."""

    spills: tuple[Spill, ...]
    keys: KeyRange
    stem: Path
    token_bytes: int


@dataclass(frozen=True)
class Slice:
    """A range of the key and all runs that have keys of it."""

    keys: KeyRange
    runs: tuple[Spill, ...]


def merge_runs(task: MergeTask) -> Spill:
    """Merge, and write the record."""
    with on_disk(task.stem.parent):
        dtype = np.dtype(f"<u{task.token_bytes}")
        spill = merge(task.spills, task.keys, task.stem, dtype)
        write_merged(spill)
    return spill


def plan_level(
    slices: Sequence[Slice], stem: Path, token_bytes: int, fan_in: int = FAN_IN
) -> Iterator[tuple[tuple[Spill, ...], list[MergeTask]]]:
    """The merges of one level: each group of runs with the tasks that take all of its keys."""
    number = 0
    for one in slices:
        groups = [one.runs[at : at + fan_in] for at in range(0, len(one.runs), fan_in)]
        largest = max(sum(run.tokens for run in group) for group in groups)
        pieces = max(1, -(-largest // TASK_TOKENS))
        for group in groups:
            tasks = []
            for piece in range(pieces):
                target = stem.with_name(f"{stem.name}-{number:07d}")
                tasks.append(MergeTask(group, one.keys.within(piece, pieces), target, token_bytes))
                number += 1
            yield group, tasks


def by_range(runs: Sequence[Spill]) -> list[Slice]:
    """`runs` grouped by the range of their keys; these do not overlap."""
    found: dict[KeyRange, list[Spill]] = {}
    for run in runs:
        found.setdefault(run.keys, []).append(run)
    return [Slice(keys, tuple(found[keys])) for keys in found]


def merge_levels(
    runs: Sequence[Spill],
    stem: Path,
    token_bytes: int,
    workers: Workers,
    progress: Progress,
    most: int = FAN_IN,
) -> list[Spill]:
    """Merge `runs` until no range of keys has more than `most`; new ones are named after `stem`.

    Runs in the folder of `stem`, or in one beside it, are deleted once they are merged.
    """
    slices = by_range(runs)
    level = 0
    while slices and max(len(one.runs) for one in slices) > most:
        level += 1
        target = stem.with_name(f"{stem.name}-{level}")
        merged = _merge_level(slices, target, token_bytes, workers, progress)
        slices = by_range(merged)
    return [run for one in slices for run in one.runs]


def _merge_level(
    slices: Sequence[Slice], stem: Path, token_bytes: int, workers: Workers, progress: Progress
) -> list[Spill]:
    groups = list(plan_level(slices, stem, token_bytes, FAN_IN))
    done: dict[Path, Spill] = {}
    waiting: list[MergeTask] = []
    for group, tasks in groups:
        for task in tasks:
            spill = read_merged(task.stem, task.keys)
            if spill is None:
                waiting.append(task)
            else:
                done[task.stem] = spill
        _drop_merged(group, tasks, done, stem)
    owners = {task.stem: (group, tasks) for group, tasks in groups for task in tasks}
    stage = f"merge {stem.name.rpartition('-')[2]}"
    progress(stage, len(done), len(owners))
    for spill in workers.each(merge_runs, waiting, stage):
        done[spill.stem] = spill
        _drop_merged(*owners[spill.stem], done, stem)
        progress(stage, len(done), len(owners))
    return [done[name] for name in owners]


def _drop_merged(
    group: Sequence[Spill], tasks: Sequence[MergeTask], done: dict[Path, Spill], stem: Path
) -> None:
    """Delete the runs of a group whose merges are all done, where they are this build's own."""
    if any(task.stem not in done for task in tasks):
        return
    work = stem.parent.parent
    for run in group:
        if work in run.stem.parents:
            run.remove()
