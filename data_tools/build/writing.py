"""Steps 3 and 4 of a build: shards from sorted runs, each kept when it is whole, and the manifest.

Comes in: runs of both splits. Goes out: shards and their records in the work folder. The memory of
the parent holds one line of the manifest a shard; how often each id occurs is summed file by file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_tools.build.encode import token_bytes
from data_tools.build.encoding import Sums
from data_tools.build.options import BuildOptions
from data_tools.build.records import (
    WrittenRecord,
    read_counts,
    read_written,
    write_written,
)
from data_tools.build.splits import SPLIT_HASHES, bound_of, held_out_below
from data_tools.build.work import WorkFolder
from data_tools.disk import on_disk
from data_tools.spill import KeyRange, Spill, tokens_of_splits
from data_tools.unfinished import DamagedWorkError
from data_tools.workers import Workers
from data_tools.write import WriteTask, write_shard
from electra_dist.console import Progress
from electra_dist.data.shards.manifest import (
    SPLITS,
    TRAIN,
    VALIDATION,
    ShardFacts,
    SplitName,
)
from electra_dist.data.shards.reading import shard_name
from electra_dist.errors import DataError


@dataclass(frozen=True)
class SplitRuns:
    """The runs that the shards of a split are made of, and the tokens to take from them."""

    runs: tuple[Spill, ...]
    tokens: int


@dataclass(frozen=True)
class KeptTask:
    """A shard to write, and where its files and its record go when they are whole."""

    write: WriteTask
    shards: Path
    written: Path


@dataclass(frozen=True)
class Written:
    """All new shards, in order.

    token_counts  (V,) how often each id occurs in the split `train`
    """

    shards: dict[SplitName, tuple[ShardFacts, ...]]
    duplicates: int
    token_counts: npt.NDArray[np.int64]


def runs_of_splits(
    runs: Mapping[SplitName, Sequence[Spill]], sums: Sums, options: BuildOptions
) -> dict[SplitName, SplitRuns]:
    """What each split takes of which runs, by the rule of `splits`."""
    held_out = runs[VALIDATION]
    others = runs[TRAIN]
    bound = held_out_below(options.validation, sums.lowest)
    if bound > bound_of(options.validation):
        # Few documents have low hashes: some of the others are held out too.
        held_out = [*held_out, *(replace(run, splits=(0, bound)) for run in runs[TRAIN])]
        others = [replace(run, splits=(bound, SPLIT_HASHES)) for run in runs[TRAIN]]
    return {
        TRAIN: SplitRuns(tuple(others), _tokens(others)),
        VALIDATION: SplitRuns(tuple(held_out), _tokens(held_out)),
    }


def check_splits(splits: Mapping[SplitName, SplitRuns], sums: Sums, options: BuildOptions) -> None:
    """Raise `DataError` for a split without documents that should have some."""
    wanted = [TRAIN]
    if options.validation > 0:
        wanted.append(VALIDATION)
    for name in wanted:
        if not splits[name].tokens:
            raise DataError(
                f"`validation` {options.validation}: none of the {sums.documents} documents fall"
                f" into the split {name}; give more documents, another fraction, or 0 to hold"
                " nothing out"
            )


def _tokens(runs: Sequence[Spill]) -> int:
    found = 0
    for run in runs:
        if run.splits is None:
            found += run.tokens
        else:
            found += tokens_of_splits(run)
    return found


def shard_tasks(
    splits: Mapping[SplitName, SplitRuns],
    work: WorkFolder,
    vocab_size: int,
    options: BuildOptions,
    first: Mapping[SplitName, int],
) -> Iterator[WriteTask]:
    """One task a shard: equal ranges of the key, as many as the tokens of the split ask for.

    The first shard of a split has number `first`.
    """
    for name in SPLITS:
        split = splits[name]
        shards = -(-split.tokens // (options.block_tokens * options.shard_blocks))
        for number in range(shards):
            keys = KeyRange(number, shards)
            yield WriteTask(
                folder=work.shards,
                name=shard_name(name, first[name] + number),
                split=name,
                spills=tuple(run for run in split.runs if run.keys.overlaps(keys)),
                keys=keys,
                token_bytes=token_bytes(vocab_size),
                vocab_size=vocab_size,
                block_tokens=options.block_tokens,
                drop_equal_keys=options.deduplicate,
            )


def write_kept(task: KeptTask) -> str:
    """Write one shard; its files get their places when all are on the disk. Returns its name."""
    name = task.write.name
    with on_disk(task.shards):
        scratch = task.shards.parent / f"writing-{name}-{os.getpid()}"
        scratch.mkdir()
        try:
            shard = write_shard(replace(task.write, folder=scratch))
            for path in sorted(scratch.iterdir()):
                _to_disk(path)
                path.rename(task.shards / path.name)
            write_written(task.written, name, shard)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return name


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_all(
    splits: Mapping[SplitName, SplitRuns],
    work: WorkFolder,
    vocab_size: int,
    options: BuildOptions,
    workers: Workers,
    progress: Progress,
    first: Mapping[SplitName, int] | None = None,
) -> Written:
    """Write the shards that have no record yet, and sum up all records."""
    if first is None:
        first = {TRAIN: 0, VALIDATION: 0}

    def tasks() -> Iterator[WriteTask]:
        return shard_tasks(splits, work, vocab_size, options, first)

    total = sum(1 for _ in tasks())
    waiting = (
        KeptTask(task, work.shards, work.written)
        for task in tasks()
        if read_written(work.written, task.name) is None
    )
    progress("write shards", 0, total)
    for done, _ in enumerate(workers.each(write_kept, waiting, "write shards"), start=1):
        progress("write shards", done, total)
    progress("write shards", total, total)
    return _summed(tasks(), work, vocab_size)


def _summed(tasks: Iterator[WriteTask], work: WorkFolder, vocab_size: int) -> Written:
    found: dict[SplitName, list[ShardFacts]] = {name: [] for name in SPLITS}
    duplicates = 0
    counts = np.zeros(vocab_size, dtype=np.int64)
    for task in tasks:
        record = _record(work, task.name)
        duplicates += record.duplicates
        if record.facts is None:
            continue
        found[task.split].append(record.facts)
        if task.split == TRAIN:
            counts += read_counts(work.written, task.name, vocab_size)
    shards = {name: tuple(found[name]) for name in SPLITS}
    return Written(shards, duplicates, counts)


def _record(work: WorkFolder, name: str) -> WrittenRecord:
    record = read_written(work.written, name)
    if record is None:
        raise DamagedWorkError(f"{work.written}: the record of {name} is gone; `again` starts over")
    return record
