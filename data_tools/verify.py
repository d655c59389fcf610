"""Whether shards are whole: `data verify`, which reads everything once and reports every problem,
where the loader stops at the first.

1. plan     the shards, the other files, and what is in the folder but not in the manifest
2. shards   each read from end to end by one of the workers: SHA-256 of the file and every check of
            every block from the same bytes; those at a URL are streamed and not kept
3. rest     tables and tokenizer; token counts of all shards against the manifest

The memory of a worker is a block and a table of counts, whatever the size of a shard; that of the
command does not grow with their number.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_tools.opening import opened
from data_tools.tokenizer import load_tokenizer
from electra_dist.console import Progress, silent
from electra_dist.data.shards.blocks import DamageError
from electra_dist.data.shards.facts import SPLITS, TOKENIZER_FOLDER, TRAIN, ShardFacts, SplitName
from electra_dist.data.shards.files import (
    CHANGED,
    REPLACE,
    UNREADABLE,
    FileFacts,
    file_problem,
)
from electra_dist.data.shards.indexes import CHECKSUMS_SUFFIX, INDEX_SUFFIX
from electra_dist.data.shards.manifest import MANIFEST_FILE, Manifest
from electra_dist.data.shards.reading import (
    Entry,
    Index,
    checked_block,
    damage,
    open_index,
)
from electra_dist.data.shards.scanning import ShardScan
from electra_dist.data.shards.tables import is_table_name
from electra_dist.errors import DataError, UserError
from electra_dist.files.tokenizers import TOKENIZER_FILE, read_tokenizer_file
from electra_dist.files.writing import reason

_MB = 10**6
#: Problems that are listed of one shard; the rest are counted.
_LISTED = 20
#: Shards that are given to the workers ahead of their need, for each of them.
_AHEAD = 2


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_shards` found; `problems` is empty when all is well.

    listed  whether files that the manifest does not name were looked for; not at a URL
    """

    path: str
    files: int
    bytes: int
    blocks: int
    documents: int
    tokens: int
    checksums: bool
    listed: bool
    seconds: float
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True)
class ShardWork:
    """One shard to check, by its number in its split."""

    split: SplitName
    number: int
    bytes: int


@dataclass(frozen=True)
class VerifyPlan:
    """The work of a verification: shards, other files, and what should not be there."""

    shards: tuple[ShardWork, ...]
    files: tuple[FileFacts, ...]
    extra: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of everything that will be read."""
        return sum(work.bytes for work in self.shards) + sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class ShardCheck:
    """What was found in one shard; `counts` has how often each id occurs in its whole blocks."""

    problems: tuple[str, ...]
    unread: int
    counts: npt.NDArray[np.int64] | None


def verify_shards(
    shards: Path | str, checksums: bool = True, progress: Progress = silent, workers: int = 1
) -> VerifyReport:
    """Check every file and every block of a folder or a URL, `workers` shards at a time.

    `progress` hears of megabytes. Raises `DataError` only when there is no readable manifest, or
    when a table or the tokenizer of shards at a URL cannot be fetched; `ConfigError` for a URL with
    a credential in it.
    """
    if workers < 1:
        raise DataError(f"`workers` {workers}: expected at least 1")
    with opened(shards) as manifest:
        return _verify(manifest, str(shards), checksums, progress, workers)


def _verify(
    manifest: Manifest, shards: str, checksums: bool, progress: Progress, workers: int
) -> VerifyReport:
    began = time.monotonic()
    plan = verify_plan(manifest)
    problems = [f"{manifest.place(name)}: not in the manifest" for name in plan.extra]
    level: Literal["sizes", "checksums"] = "sizes"
    if checksums:
        level = "checksums"
    for facts in plan.files:
        manifest.have(facts)
        problem = file_problem(manifest.path, facts, level)
        if problem:
            problems.append(f"{manifest.place(facts.name)}: {problem}")
    problems += _shard_problems(manifest, plan, checksums, workers, progress)
    problems += _tokenizer_problems(manifest)
    splits = [manifest.split(name) for name in SPLITS]
    return VerifyReport(
        path=shards,
        files=len(plan.shards) + len(plan.files) + 1,
        bytes=plan.bytes,
        blocks=sum(split.blocks for split in splits),
        documents=sum(split.documents for split in splits),
        tokens=sum(split.tokens for split in splits),
        checksums=checksums,
        listed=manifest.remote is None,
        seconds=time.monotonic() - began,
        problems=tuple(dict.fromkeys(problems)),
    )


# --- the plan -------------------------------------------------------------------------------------


def verify_plan(manifest: Manifest) -> VerifyPlan:
    """What there is to check; looks at the names in a local folder and opens nothing."""
    shards = []
    names = set()
    for split in SPLITS:
        for number, shard in enumerate(manifest.split(split).shards):
            shards.append(ShardWork(split, number, shard.tar.bytes))
            names.add(shard.tar.name)
    files = tuple(facts for facts in manifest.files() if facts.name not in names)
    extra: list[str] = []
    if manifest.remote is None:
        known = names | {facts.name for facts in files}
        extra = _extra_files(manifest.path, names, known)
    return VerifyPlan(tuple(shards), files, tuple(extra))


def _extra_files(path: Path, tars: set[str], known: set[str]) -> list[str]:
    """Files that nobody vouches for; tables and indexes of an older manifest may stay."""
    known = known | {MANIFEST_FILE, TOKENIZER_FOLDER}
    found = [entry.name for entry in os.scandir(path)]
    tokenizer = path / TOKENIZER_FOLDER
    if tokenizer.is_dir():
        found += [f"{TOKENIZER_FOLDER}/{entry.name}" for entry in os.scandir(tokenizer)]
    return sorted(
        name
        for name in found
        if name not in known and not is_table_name(name) and _tar_of_index(name) not in tars
    )


def _tar_of_index(name: str) -> str:
    """The shard that an index of version 1 is of."""
    for suffix in (CHECKSUMS_SUFFIX, INDEX_SUFFIX):
        if name.endswith(suffix):
            return name.removesuffix(suffix) + ".tar"
    return ""


# --- the shards -----------------------------------------------------------------------------------


def _shard_problems(
    manifest: Manifest, plan: VerifyPlan, checksums: bool, workers: int, progress: Progress
) -> Iterator[str]:
    """Problems of all shards, in their order, then that of the counts of ids."""
    counts = np.zeros(manifest.vocab_size, np.int64)
    unread = 0
    done = 0
    total = sum(work.bytes for work in plan.shards)
    found: dict[int, tuple[str, ...]] = {}
    for place, check in _checks(manifest, plan.shards, checksums, workers):
        unread += check.unread
        if check.counts is not None:
            counts += check.counts
        if check.problems:
            found[place] = check.problems
        done += plan.shards[place].bytes
        progress("verify", done // _MB, max(1, total // _MB))
    for _, problems in sorted(found.items()):
        yield from problems
    if not unread and not np.array_equal(counts, manifest.token_counts):
        yield f"{manifest.place(MANIFEST_FILE)}: token_counts are not those of the shards"


def _checks(
    manifest: Manifest, shards: tuple[ShardWork, ...], checksums: bool, workers: int
) -> Iterator[tuple[int, ShardCheck]]:
    """The check of each shard with its place in `shards`, in the order in which they end."""
    if min(workers, len(shards)) <= 1:
        checker = ShardChecker(manifest, checksums)
        for place, work in enumerate(shards):
            yield place, checker.check(work)
        return
    waiting: dict[Future[ShardCheck], int] = {}
    workers = min(workers, len(shards))
    with ProcessPoolExecutor(
        workers, get_context("spawn"), _start_worker, (manifest.to_handle(), checksums)
    ) as pool:
        try:
            for place, work in enumerate(shards):
                waiting[pool.submit(_check_in_worker, work)] = place
                if len(waiting) >= workers * (1 + _AHEAD):
                    yield from _ended(waiting)
            while waiting:
                yield from _ended(waiting)
        except BrokenProcessPool as error:
            raise UserError(
                "verify: a worker process died; if memory ran out, use fewer `workers` than"
                f" {workers}"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ended(waiting: dict[Future[ShardCheck], int]) -> Iterator[tuple[int, ShardCheck]]:
    """Wait for one check at least, and take out those that have ended."""
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        yield waiting.pop(future), future.result()


_checker: ShardChecker | None = None


def _start_worker(handle: dict[str, Any], checksums: bool) -> None:
    global _checker
    _checker = ShardChecker(Manifest.from_handle(handle), checksums)


def _check_in_worker(work: ShardWork) -> ShardCheck:
    assert _checker is not None
    return _checker.check(work)


class ShardChecker:
    """Checks shards of one manifest, each read once from end to end."""

    def __init__(self, manifest: Manifest, checksums: bool) -> None:
        self._manifest = manifest
        self._checksums = checksums
        self._indexes: dict[SplitName, Index | None] = {}
        for split in SPLITS:
            try:
                self._indexes[split] = open_index(manifest, split)
            except DataError:  # said of the table, which is a file of the plan
                self._indexes[split] = None

    def check(self, work: ShardWork) -> ShardCheck:
        """Everything that can be said of one shard."""
        shard = self._manifest.split(work.split).shards[work.number]
        place = self._manifest.place(shard.tar.name)
        if self._manifest.remote is None:
            problem = file_problem(self._manifest.path, shard.tar, "sizes")
            if problem:
                return ShardCheck((f"{place}: {problem}",), shard.blocks, None)
        problems: list[str] = []
        try:
            entries = self._entries(work, problems)
            return self._read(work, shard, entries, problems)
        except OSError as error:
            problems.append(f"{place}: cannot be read: {reason(error)}; {UNREADABLE}")
        except DataError as error:
            problems.append(str(error))
        return ShardCheck(tuple(problems), shard.blocks, None)

    def _entries(self, work: ShardWork, problems: list[str]) -> list[Entry]:
        """Where the blocks are; nothing where that is not known."""
        index = self._indexes[work.split]
        if index is None:
            return []
        problem = index.problem(work.number)
        if problem:
            problems.append(problem)
            return []
        try:
            return index.entries(work.number)
        except DataError as error:
            problems.append(str(error))
            return []

    def _read(
        self, work: ShardWork, shard: ShardFacts, entries: list[Entry], problems: list[str]
    ) -> ShardCheck:
        place = self._manifest.place(shard.tar.name)
        counts = np.zeros(self._manifest.vocab_size, np.int64)
        whole = 0
        with ShardScan(self._manifest, shard, entries) as scan:
            for inside, content in scan:
                try:
                    block = checked_block(content, shard, inside, entries[inside], self._manifest)
                except DamageError as error:
                    problems.append(damage(place, inside, error))
                    continue
                whole += 1
                if work.split == TRAIN:
                    counts += np.bincount(block.tokens, minlength=len(counts))
            if self._checksums and scan.sha256() != shard.tar.sha256:
                problems.insert(0, f"{place}: {_change(scan, shard)}")
        if len(problems) > _LISTED:
            more = len(problems) - _LISTED
            problems = [*problems[:_LISTED], f"{place}: and {more} more damaged blocks"]
        return ShardCheck(tuple(problems), shard.blocks - whole, counts)


def _change(scan: ShardScan, shard: ShardFacts) -> str:
    """What is said of a file with another SHA-256; its size is only known now at a URL."""
    if scan.bytes_read < shard.tar.bytes:
        return f"has {scan.bytes_read} bytes, the manifest says {shard.tar.bytes}; {REPLACE}"
    if scan.bytes_read > shard.tar.bytes:
        return f"is larger than the {shard.tar.bytes} bytes of the manifest; {REPLACE}"
    return CHANGED


# --- the tokenizer --------------------------------------------------------------------------------


def _tokenizer_problems(manifest: Manifest) -> Iterator[str]:
    try:
        tokenizer = load_tokenizer(manifest.tokenizer_path)
    except DataError as error:
        yield str(error)
        return
    content = read_tokenizer_file(manifest.tokenizer_path / TOKENIZER_FILE)
    if hashlib.sha256(content).hexdigest() != manifest.facts.tokenizer_fingerprint:
        yield (
            f"{manifest.tokenizer_path}: not the tokenizer that encoded the shards (its SHA-256"
            " differs)"
        )
    if tokenizer.specials != manifest.facts.special_tokens:
        yield (
            f"{manifest.tokenizer_path}: special tokens {asdict(tokenizer.specials)}, the manifest"
            f" says {asdict(manifest.facts.special_tokens)}"
        )
    if tokenizer.vocab_size != manifest.vocab_size:
        yield (
            f"{manifest.tokenizer_path}: {tokenizer.vocab_size} ids, the manifest says"
            f" {manifest.vocab_size}"
        )
