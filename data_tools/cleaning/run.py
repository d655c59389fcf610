"""Clean a corpus: apply filters to every document, write what is left, report what is not.

1. screen   Workers read parts of the input and apply the filters that look at one document.
            Documents that are left are spooled to disk, with keys for the corpus-wide filters.
2. match    Workers take ranges of these keys, over the whole corpus, and mark every document that
            has a key of an earlier one: an exact or a near duplicate.
3. write    Workers copy what is not marked into files of equal size, in the order of the input.
4. publish  clean-report.json and clean-report.png, then one rename: the output is whole or absent.

The first of several duplicates is kept, in the order of the input: files as `find_inputs` gives
them, documents as they stand there. Memory is bounded by one part of the input, or one range of
keys, a worker. The bytes do not depend on the number of workers.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from data_tools.cleaning.lines import Compression, check_compression
from data_tools.cleaning.matching import (
    RANGE_BYTES,
    MatchTask,
    Survivors,
    first_like,
    match,
    plan_matching,
)
from data_tools.cleaning.picture import draw_report
from data_tools.cleaning.report import (
    CleanReport,
    Example,
    FilterReport,
    Tally,
    all_dropped,
    shortened,
)
from data_tools.cleaning.screening import Screened, ScreenTask, Spool, screen
from data_tools.cleaning.writing import Kept, WriteTask, plan_files, text_of, write_file
from data_tools.filters.kinds import Filter, KeyFilter, TextFilter
from data_tools.sources import CLEAN_REPORT, Inputs, Part, find_inputs, split_parts
from data_tools.workers import run_tasks
from electra_dist.console import Progress, silent
from electra_dist.errors import DataError, UserError
from electra_dist.files.pictures import pyplot
from electra_dist.files.staging import staged
from electra_dist.files.writing import write_json, writing

PICTURE_FILE = "clean-report.png"
#: Tasks whose results are in memory at a time.
_BATCH = 1024

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CleanOptions:
    """How a corpus is cleaned.

    seed         of the choice of examples
    examples     of what each filter dropped, at most
    compress     of the files
    picture      draw clean-report.png too
    part_bytes   text that a worker takes at a time; by default what suits the input
    file_bytes   text of one file; by default what suits what is left
    range_bytes  keys that a worker sorts at a time
    """

    workers: int = 1
    seed: int = 1234
    examples: int = 3
    compress: Compression = "zst"
    picture: bool = True
    part_bytes: int | None = None
    file_bytes: int | None = None
    range_bytes: int = RANGE_BYTES


def clean_corpus(
    inputs: Sequence[str | Path] | Inputs,
    out: Path,
    filters: Sequence[Filter],
    options: CleanOptions | None = None,
    progress: Progress = silent,
) -> CleanReport:
    """Apply `filters`, as `parse_filters` gives them, to the documents of `inputs`, and write what
    is left to the new folder `out`.

    Raises `DataError` for unreadable input, an output folder that holds something, or filters that
    drop every document; `UserError` where a package is missing; `StorageError` where the file
    system refuses.
    """
    options = options or CleanOptions()
    _check(out, options)
    found = find_inputs(inputs)
    parts = split_parts(found, options.part_bytes)
    with writing(out, "the cleaned corpus"), staged(out) as folder:
        work = folder / "work"
        work.mkdir()
        cleaner = _Cleaner(folder, work, tuple(filters), options, progress)
        report = cleaner.clean(parts, found.given)
        shutil.rmtree(work)
        write_json(folder / CLEAN_REPORT, report.to_dict())
        if options.picture:
            draw_report(report, folder / PICTURE_FILE)
    return report


def _check(out: Path, options: CleanOptions) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"`out` {out}: is a file; give a folder for the cleaned corpus")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(
            f"`out` {out}: holds something already; give a new folder, or remove this one first"
        )
    if options.workers < 1:
        raise DataError(f"`workers` {options.workers}: expected at least 1")
    if options.examples < 0:
        raise DataError(f"`examples` {options.examples}: expected 0 or more")
    if not 0 <= options.seed < 2**63:
        raise DataError(f"`seed` {options.seed}: expected a whole number from 0 to 2^63 - 1")
    check_compression(options.compress)
    if options.picture:
        _check_pictures()


def _check_pictures() -> None:
    try:
        pyplot()
    except UserError as error:
        raise UserError(
            f"{PICTURE_FILE} needs matplotlib: pip install 'electra-dist[clean]', or leave it out"
            " with `no_picture`"
        ) from error


@dataclass(frozen=True)
class _Cleaner:
    """One cleaning: the three passes, over the same folders and filters."""

    folder: Path
    work: Path
    filters: tuple[Filter, ...]
    options: CleanOptions
    progress: Progress

    @property
    def text_filters(self) -> tuple[TextFilter, ...]:
        return tuple(one for one in self.filters if isinstance(one, TextFilter))

    @property
    def key_filters(self) -> tuple[KeyFilter, ...]:
        return tuple(one for one in self.filters if isinstance(one, KeyFilter))

    def clean(self, parts: Sequence[Part], inputs: tuple[str, ...]) -> CleanReport:
        """The passes in order."""
        spools = tuple(Spool(self.work, number) for number in range(len(parts)))
        read, survivors, tallies = self._screen(parts, spools)
        if not read.documents:
            raise DataError(
                f"{', '.join(inputs[:5])}: no documents in it; there is nothing to clean"
            )
        if not survivors.documents:
            raise DataError(all_dropped(self._reports(tallies)))
        matches = self._match(survivors)
        kept = plan_files(survivors, self.key_filters, self.work, self.options.file_bytes)
        self._write(survivors, kept)
        self._find_likes(survivors, kept, matches)
        return CleanReport(
            inputs=inputs,
            seed=self.options.seed,
            documents=read.documents,
            characters=read.characters,
            kept_documents=kept.documents,
            kept_characters=kept.characters,
            filters=tuple(self._reports([*tallies, *kept.tallies])),
            files=len(kept.ends),
            bytes=sum(path.stat().st_size for path in self.folder.glob("*.jsonl.*")),
        )

    def _reports(self, tallies: Sequence[Tally]) -> list[FilterReport]:
        """Of the first filters, as many as have seen the documents."""
        return [
            FilterReport.of(one, tally) for one, tally in zip(self.filters, tallies, strict=False)
        ]

    # --- the passes ---------------------------------------------------------------------------

    def _screen(
        self, parts: Sequence[Part], spools: tuple[Spool, ...]
    ) -> tuple[Screened, Survivors, list[Tally]]:
        tasks = [
            ScreenTask(
                part=part,
                spool=spool,
                text_filters=self.text_filters,
                key_filters=self.key_filters,
                compression=self.options.compress,
                seed=self.options.seed,
                examples=self.options.examples,
            )
            for part, spool in zip(parts, spools, strict=True)
        ]
        tallies = [Tally() for _ in self.text_filters]
        starts = [0]
        documents = 0
        characters = 0

        def take(screened: Screened) -> None:
            nonlocal documents, characters
            documents += screened.documents
            characters += screened.characters
            starts.append(starts[-1] + screened.kept)
            for tally, more in zip(tallies, screened.tallies, strict=True):
                tally.add(more, self.options.examples)

        sizes = [part.text_bytes for part in parts]
        self._run(screen, tasks, sizes, "filter", take)
        read = Screened(documents, characters, starts[-1], ())
        return read, Survivors(spools, tuple(starts)), tallies

    def _match(self, survivors: Survivors) -> list[MatchTask]:
        tasks = plan_matching(self.key_filters, survivors, self.work, self.options.range_bytes)
        if tasks:
            sizes = [task.key_bytes for task in tasks]
            self._run(match, tasks, sizes, "find duplicates", lambda _: None)
        return tasks

    def _write(self, survivors: Survivors, kept: Kept) -> None:
        tasks = [
            WriteTask(
                path=self.folder / f"clean-{number:05d}.jsonl.{self.options.compress}",
                survivors=survivors,
                first=first,
                end=end,
                marks_folder=self.work,
                key_filters=self.key_filters,
                compression=self.options.compress,
                seed=self.options.seed,
                examples=self.options.examples,
            )
            for number, (first, end) in enumerate(itertools.pairwise((0, *kept.ends)))
        ]

        def take(tallies: tuple[Tally, ...]) -> None:
            for tally, more in zip(kept.tallies, tallies, strict=True):
                tally.add(more, self.options.examples)

        self._run(write_file, tasks, [kept.bytes // len(tasks)] * len(tasks), "write", take)

    def _find_likes(self, survivors: Survivors, kept: Kept, matches: Sequence[MatchTask]) -> None:
        """Show, next to each example of a duplicate, the beginning of the earlier document."""
        for one, tally in zip(self.key_filters, kept.tallies, strict=True):
            numbers = [example.document for example in tally.examples]
            firsts = first_like(matches, one.name, numbers)
            tally.examples = [
                self._with_like(example, survivors, firsts[example.document])
                for example in tally.examples
            ]

    def _with_like(self, example: Example, survivors: Survivors, first: int) -> Example:
        like = shortened(text_of(survivors, first, self.options.compress))
        if like == example.text:
            return example  # its beginning, or all of it, is the same: nothing to compare
        return replace(example, like=like)

    def _run(
        self,
        function: Callable[[_Task], _Result],
        tasks: Sequence[_Task],
        sizes: Sequence[int],
        stage: str,
        take: Callable[[_Result], None],
    ) -> None:
        """Give `take` the result of each task, in order, a bounded number in memory at a time;
        `sizes` are bytes, progress is told in megabytes.
        """
        before = [0, *itertools.accumulate(sizes)]
        for start in range(0, len(tasks), _BATCH):
            batch = tasks[start : start + _BATCH]
            told = _in_megabytes(self.progress, before, start)
            for result in run_tasks(function, batch, self.options.workers, stage, told):
                take(result)


def _in_megabytes(progress: Progress, before: Sequence[int], start: int) -> Progress:
    """A `Progress` of tasks that tells `progress` of megabytes; the first task is number `start`,
    and `before` has the bytes before each task.
    """

    def tell(stage: str, done: int, total: int) -> None:
        progress(stage, _megabytes(before[start + done]), _megabytes(before[-1]))

    return tell


def _megabytes(count: int) -> int:
    return -(-count // 10**6)
