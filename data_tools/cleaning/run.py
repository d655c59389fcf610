"""Clean a corpus: apply filters to every document, write what is left, report what is not.

1. screen   Workers read parts of the input and apply the filters that look at one document.
            Documents that are left are spooled to disk, with keys for the corpus-wide filters.
2. match    Workers take ranges of these keys, over the whole corpus, and mark every document that
            has a key of an earlier one: an exact or a near duplicate.
3. write    Workers copy what is not marked into files of equal size, in the order of the input.
4. publish  clean-report.json and clean-report.png, then one rename: the output is whole or absent.

The first of several duplicates is kept, in the order of the input: files as `find_inputs` gives
them, documents as they stand there. Memory is bounded by one part of the input, or one range of
keys, a worker. The bytes depend neither on the number of workers nor on interruptions: what is
finished is kept in the work folder (`work`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from data_tools.cleaning.lines import Compression, check_compression
from data_tools.cleaning.matching import (
    RANGE_BYTES,
    MatchTask,
    Survivors,
    first_like,
    match,
    matched_already,
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
from data_tools.cleaning.room import needed_bytes
from data_tools.cleaning.screening import (
    Screened,
    ScreenTask,
    Spool,
    screen,
    screened_already,
)
from data_tools.cleaning.work import CleanFolder, read_record, write_record
from data_tools.cleaning.writing import (
    Kept,
    WriteTask,
    plan_files,
    text_of,
    write_file,
    written_already,
)
from data_tools.disk import Room, on_disk, size_of
from data_tools.filters.kinds import Filter, KeyFilter, TextFilter
from data_tools.sources import CLEAN_REPORT, Inputs, Part, find_inputs, split_parts
from data_tools.unfinished import Order
from data_tools.workers import run_tasks
from electra_dist.console import Progress, silent
from electra_dist.errors import DataError, UserError
from electra_dist.files.pictures import pyplot
from electra_dist.files.staging import check_folder_can_be_made
from electra_dist.files.writing import write_json

PICTURE_FILE = "clean-report.png"
#: Tasks whose results are in memory at a time.
_BATCH = 1024
_CLEAN_REPORT = pydantic.TypeAdapter(CleanReport)

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
    again        throw away what an unfinished cleaning of the same folder has made
    """

    workers: int = 1
    seed: int = 1234
    examples: int = 3
    compress: Compression = "zst"
    picture: bool = True
    part_bytes: int | None = None
    file_bytes: int | None = None
    range_bytes: int = RANGE_BYTES
    again: bool = False

    def check(self) -> None:
        """Raise `DataError` for a value that cannot be, `UserError` for a missing package."""
        if self.workers < 1:
            raise DataError(f"`workers` {self.workers}: expected at least 1")
        if self.examples < 0:
            raise DataError(f"`examples` {self.examples}: expected 0 or more")
        if not 0 <= self.seed < 2**63:
            raise DataError(f"`seed` {self.seed}: expected a whole number from 0 to 2^63 - 1")
        check_compression(self.compress)
        if self.picture:
            _check_pictures()

    def decisive(self, filters: Sequence[Filter]) -> dict[str, Any]:
        """What the bytes of the output depend on, with the `filters`."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("workers", "again")
        }
        return {**values, "filter": {one.name: one.values for one in filters}}


def clean_corpus(
    inputs: Sequence[str | Path] | Inputs,
    out: Path,
    filters: Sequence[Filter],
    options: CleanOptions | None = None,
    progress: Progress = silent,
) -> CleanReport:
    """Apply `filters`, as `parse_filters` gives them, to the documents of `inputs`, and write what
    is left to the new folder `out`.

    Interrupted or killed, the same call goes on where it was, and writes the same bytes. Raises
    `DataError` for unreadable input, an output folder that holds something, another unfinished
    cleaning of it, or filters that drop every document; `UserError` where a package is missing;
    `StorageError` where the disk is too small or the file system refuses; `LockedError` where
    another process cleans into the same folder.
    """
    options = options or CleanOptions()
    options.check()
    found = find_inputs(inputs)
    order = Order("clean", options.decisive(filters), {}, found.identity())
    work = CleanFolder.beside(out)
    check_folder_can_be_made(out)
    if not work.is_published(out, order):
        _check_out(out)
    with work.interruptible(out), work.opened(order, options.again):
        if not work.report.exists():
            with work.dropped_with_bad_input():
                _clean(found, work, tuple(filters), options, progress)
        return _publish(work, out)


def _clean(
    inputs: Inputs,
    work: CleanFolder,
    filters: tuple[Filter, ...],
    options: CleanOptions,
    progress: Progress,
) -> None:
    """All passes, up to the rename."""
    parts = split_parts(inputs, options.part_bytes)
    with on_disk(work.path):
        work.make_places()
        report = _Cleaner(work, filters, options, progress).clean(parts, inputs.given)
        write_json(work.files / CLEAN_REPORT, report.to_dict())
        if options.picture:
            draw_report(report, work.files / PICTURE_FILE)
        write_record(work.report, _CLEAN_REPORT, report)


def _publish(work: CleanFolder, out: Path) -> CleanReport:
    """Rename the files to `out`, unless that was done before, and remove the work folder."""
    report = read_record(work.report, _CLEAN_REPORT)
    assert report is not None
    with on_disk(out.parent):
        if work.files.exists():
            work.files.rename(out)
        work.remove()
    return report


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"`out` {out}: is a file; give a folder for the cleaned corpus")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(
            f"`out` {out}: holds something already; give a new folder, or remove this one first"
        )


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
    """One cleaning: the three passes, over the same folder and filters."""

    work: CleanFolder
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
        spools = tuple(Spool(self.work.spools, number) for number in range(len(parts)))
        read, survivors, tallies = self._screen(parts, spools)
        if not read.documents:
            raise DataError(
                f"{', '.join(inputs[:5])}: no documents in it; there is nothing to clean"
            )
        if not survivors.documents:
            raise DataError(all_dropped(self._reports(tallies)))
        matches = self._match(survivors)
        kept = plan_files(survivors, self.key_filters, self.work.matches, self.options.file_bytes)
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
            bytes=sum(path.stat().st_size for path in self.work.files.glob("*.jsonl.*")),
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
        needed = needed_bytes(tasks)
        Room(self.work.path).ask(max(0, needed - size_of(self.work.path)), "the cleaning")
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
        self._run(screen, screened_already, tasks, sizes, "filter", take)
        read = Screened(documents, characters, starts[-1], ())
        return read, Survivors(spools, tuple(starts)), tallies

    def _match(self, survivors: Survivors) -> list[MatchTask]:
        tasks = plan_matching(
            self.key_filters, survivors, self.work.matches, self.options.range_bytes
        )
        if tasks:
            sizes = [task.key_bytes for task in tasks]
            self._run(match, matched_already, tasks, sizes, "find duplicates", lambda _: None)
        return tasks

    def _write(self, survivors: Survivors, kept: Kept) -> None:
        tasks = [
            WriteTask(
                path=self.work.files / f"clean-{number:05d}.jsonl.{self.options.compress}",
                record=self.work.written / f"{number:05d}.json",
                survivors=survivors,
                first=first,
                end=end,
                marks_folder=self.work.matches,
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

        sizes = [kept.bytes // len(tasks)] * len(tasks)
        self._run(write_file, written_already, tasks, sizes, "write", take)

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
        already: Callable[[_Task], _Result | None],
        tasks: Sequence[_Task],
        sizes: Sequence[int],
        stage: str,
        take: Callable[[_Result], None],
    ) -> None:
        """Give `take` the result of each task, in order, a bounded number in memory at a time.

        `already` has the result of a task that an interrupted command has done. `sizes` are bytes,
        progress is told in megabytes.
        """
        before = [0, *itertools.accumulate(sizes)]
        for start in range(0, len(tasks), _BATCH):
            batch = tasks[start : start + _BATCH]
            known = [already(task) for task in batch]
            waiting = [task for task, result in zip(batch, known, strict=True) if result is None]
            told = _in_megabytes(self.progress, before, start + len(batch) - len(waiting))
            results = iter(run_tasks(function, waiting, self.options.workers, stage, told))
            for result in known:
                if result is None:
                    result = next(results)
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
