"""Another corpus for shards that are there: new shards beside the old ones, which stay as they are.

The manifest is replaced last, by one rename, and has a new fingerprint. A run that trains on the
old shards goes on with the files that it knows; when it is started again, it is told that the data
are others.

Documents that the shards have already are left out. Shards hold ids, so these are compared by ids:
each document, or piece of a long one, has a hash, the hashes of the old shards are sorted on disk,
and each worker looks its documents up there. The memory does not grow with the shards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from data_tools.build.encode import token_bytes
from data_tools.build.encoding import (
    Sums,
    check_documents,
    encode_all,
    encode_tasks,
    task_folder,
)
from data_tools.build.known import NameTask, name_documents
from data_tools.build.levels import merge_levels
from data_tools.build.options import BuildCounts, BuildOptions, BuildStats
from data_tools.build.records import read_encoded
from data_tools.build.shards import counts_of, merged_runs, stats_of
from data_tools.build.work import WorkFolder, opened
from data_tools.build.writing import Written, check_splits, runs_of_splits, write_all
from data_tools.disk import on_disk
from data_tools.sources import Inputs, find_inputs
from data_tools.spill import Spill
from data_tools.tokenizer import load_tokenizer
from data_tools.unfinished import Order
from data_tools.workers import Workers
from electra_dist.console import Progress, silent
from electra_dist.data.shards.manifest import (
    SPLITS,
    TRAIN,
    VALIDATION,
    Manifest,
    ManifestFile,
    SplitFacts,
    SplitName,
    dataset_fingerprint,
    write_manifest,
)
from electra_dist.errors import DataError
from electra_dist.files.reading import read_json
from electra_dist.files.writing import write_json


def add_to_shards(
    shards: Path,
    inputs: Sequence[str | Path] | Inputs,
    options: BuildOptions | None = None,
    progress: Progress = silent,
) -> BuildStats:
    """Encode `inputs` with the tokenizer of `shards` and add them as new shards.

    Seed, sizes of blocks and pieces are those of the shards, whatever `options` has. Interrupted or
    killed, the same call goes on; until its end the shards are what they were. Raises what
    `build_shards` raises, and `DataError` where nothing new is in the input.
    """
    manifest = Manifest.load(shards)
    options = replace(
        options or BuildOptions(),
        seed=manifest.facts.seed,
        block_tokens=manifest.facts.block_tokens,
        piece_tokens=manifest.facts.piece_tokens or 0,
    )
    options.check()
    _check_blocks(manifest)
    found = find_inputs(inputs)
    before = _before(WorkFolder.beside(shards), manifest)
    sources = {"shards": before.fingerprint, "tokenizer": manifest.facts.tokenizer_fingerprint}
    order = Order("add", options.decisive(), sources, found.identity())
    again = options.again or before.of_another(order)
    with WorkFolder.beside(shards).interruptible(shards), opened(shards, order, again) as work:
        if before.counts is None or again:
            counts = _add(manifest, found, work, options, progress)
        else:
            counts = before.counts
        with on_disk(shards):
            work.remove()
    return stats_of(counts, shards)


@dataclass(frozen=True)
class _Before:
    """The shards before this command: `counts` where it has published already, and only its work
    folder was not removed yet.
    """

    work: WorkFolder
    fingerprint: str
    counts: BuildCounts | None = None

    def of_another(self, order: Order) -> bool:
        """Whether the rest that is there is of another command, which has published."""
        return self.counts is not None and not self.work.is_of(order)


@dataclass(frozen=True)
class _Published:
    """The content of `stats.json`, written just before the manifest."""

    before: str
    after: str
    counts: BuildCounts


def _before(work: WorkFolder, manifest: Manifest) -> _Before:
    try:
        content: Any = read_json(work.stats)
        found = pydantic.TypeAdapter(_Published).validate_python(content)
    except (OSError, ValueError):
        return _Before(work, manifest.fingerprint)
    if found.after != manifest.fingerprint:
        return _Before(work, manifest.fingerprint)
    return _Before(work, found.before, found.counts)


def _check_blocks(manifest: Manifest) -> None:
    if not manifest.facts.block_checksums:
        raise DataError(
            f"{manifest.path}: an earlier version made these shards, without checksums of blocks;"
            f" add them first: `electra-dist data upgrade {manifest.path}`"
        )


def _add(
    manifest: Manifest,
    inputs: Inputs,
    work: WorkFolder,
    options: BuildOptions,
    progress: Progress,
) -> BuildCounts:
    tokenizer = load_tokenizer(manifest.tokenizer_path)
    with work.dropped_with_bad_input(), Workers(options.workers) as workers:
        known: list[Spill] = []
        if options.deduplicate:
            known = _known(manifest, work, workers, progress)
        tasks = encode_tasks(inputs, manifest.tokenizer_path, work.encoded, options, known)
        sums = encode_all(tasks, tokenizer, work, workers, progress)
        written = _write(sums, manifest, work, options, workers, progress)
    facts = _with(manifest.facts, written)
    counts = counts_of(sums, written)
    with on_disk(manifest.path):
        _move(work.shards, manifest.path)
        published = _Published(manifest.fingerprint, facts.fingerprint, counts)
        write_json(work.stats, asdict(published))
        write_manifest(manifest.path, facts)
    return counts


def _known(
    manifest: Manifest, work: WorkFolder, workers: Workers, progress: Progress
) -> list[Spill]:
    """The names of all documents in the shards, sorted: runs that do not overlap."""
    folder = work.path / "known"
    of_shards = [
        (name, shard) for name in SPLITS for shard in range(len(manifest.split(name).shards))
    ]
    tasks = [
        NameTask(manifest.path, split, shard, number, task_folder(folder, number))
        for number, (split, shard) in enumerate(of_shards)
    ]
    waiting = [task for task in tasks if read_encoded(task.folder, task.number) is None]
    done = len(tasks) - len(waiting)
    for _ in workers.each(name_documents, waiting, "read shards"):
        done += 1
        progress("read shards", done, len(tasks))
    runs: list[Spill] = []
    for task in tasks:
        named = read_encoded(task.folder, task.number)
        if named is not None:
            runs += named.spills[TRAIN]
    return merge_levels(runs, work.merged / "known", 4, workers, progress, most=1)


def _write(
    sums: Sums,
    manifest: Manifest,
    work: WorkFolder,
    options: BuildOptions,
    workers: Workers,
    progress: Progress,
) -> Written:
    check_documents(sums, options)
    if manifest.facts.validation.documents:
        sums.lowest = []  # enough is held out: the fraction alone decides
    with on_disk(work.path):
        bytes_of_token = token_bytes(manifest.vocab_size)
        runs = merged_runs(sums, work, bytes_of_token, workers, progress)
        splits = runs_of_splits(runs, sums, options)
        check_splits(splits, sums, replace(options, validation=0.0))
        first = {name: _next_number(manifest, name) for name in SPLITS}
        return write_all(splits, work, manifest.vocab_size, options, workers, progress, first)


def _next_number(manifest: Manifest, split: SplitName) -> int:
    """The number after the largest in the names of the split's shards."""
    numbers = [-1]
    for shard in manifest.split(split).shards:
        found = re.search(r"(\d+)\.tar$", shard.tar.name)
        if found:
            numbers.append(int(found[1]))
    return max(numbers) + 1


def _with(facts: ManifestFile, written: Written) -> ManifestFile:
    """The manifest of the old and the new shards together."""
    of = {
        TRAIN: SplitFacts.of((*facts.train.shards, *written.shards[TRAIN])),
        VALIDATION: SplitFacts.of((*facts.validation.shards, *written.shards[VALIDATION])),
    }
    counts = np.array(facts.token_counts, dtype=np.int64) + written.token_counts
    return replace(
        facts,
        fingerprint=dataset_fingerprint(facts.tokenizer_fingerprint, list(of.values())),
        train=of[TRAIN],
        validation=of[VALIDATION],
        token_counts=tuple(counts.tolist()),
    )


def _move(source: Path, target: Path) -> None:
    """Give the new shards their places; those that have them already are no longer in `source`."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if place.exists():
            raise DataError(f"{place}: is in the way of a new shard; the manifest does not name it")
        path.rename(place)
