"""What lies behind the names that were given: files, folders, globs, URLs, standard input.

Links are followed, also inside of folders, and never in a circle: each real file is read once. What
is not read is kept for the report, with the reason.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_tools.sources import report as reasons
from data_tools.sources.hub import hub_file
from data_tools.sources.opening import STANDARD_INPUT, keep_standard_input, reading
from data_tools.sources.report import InputReport, InputRow, describe, suffix_of
from data_tools.sources.types import (
    DOCUMENTS,
    KINDS,
    PACKINGS,
    Format,
    InputFile,
    Inputs,
    ReadOptions,
    format_of,
)
from data_tools.sources.urls import HUB_PREFIX, check_url, file_system, shown
from electra_dist.errors import DataError, nearest
from electra_dist.files.urls import is_url

_EXPECTED = f"{', '.join(KINDS)}, also packed ({', '.join(PACKINGS)})"
#: What Hugging Face writes next to the data of a dataset, and the sign that it did.
_DESCRIPTIONS = ("dataset_info.json", "state.json", "dataset_dict.json")
#: The report of `data clean`, next to the documents.
CLEAN_REPORT = "clean-report.json"
_DATASET_SIGNS = ("state.json", "dataset_dict.json")
_CACHE = re.compile(r"cache-.*\.arrow")
_MAGIC = frozenset("*?[")
#: Folders by device and number: one that grows, or one for each way down.
_Folders = set[tuple[int, int]] | tuple[tuple[int, int], ...]


def find_inputs(
    inputs: Sequence[str | Path] | Inputs, options: ReadOptions | None = None
) -> Inputs:
    """The input files behind `inputs`, in order, each once; a folder's are sorted by path.

    What was found already is given back. Raises `DataError` when something is missing, has an
    unknown format, holds no input, or is empty; and, with `options.strict`, when something is left
    out.
    """
    if isinstance(inputs, Inputs):
        return inputs
    finder = _Finder(options or ReadOptions())
    for given in inputs:
        finder.add(str(given))
    return finder.finish()


class _Pattern:
    """A glob: where its search begins, and what matches."""

    def __init__(self, given: str) -> None:
        from fsspec.utils import glob_translate

        path = Path(given)
        fixed = next(i for i, step in enumerate(path.parts) if not _MAGIC.isdisjoint(step))
        self.root = Path(*path.parts[:fixed])
        self.hidden = any(step.startswith(".") for step in path.parts[fixed:])
        self._regex = re.compile(glob_translate(str(path)))
        self._depth = len(path.parts)
        self._any_depth = "**" in path.parts

    def matches(self, path: Path) -> bool:
        """Whether a file or folder is meant."""
        return self._regex.match(str(path)) is not None

    def goes_below(self, folder: Path) -> bool:
        """Whether something inside of a folder can be meant."""
        return self._any_depth or len(folder.parts) < self._depth


class _Finder:
    """Collects what is read and what is left out."""

    def __init__(self, options: ReadOptions) -> None:
        if options.documents not in DOCUMENTS:
            close = nearest(options.documents, DOCUMENTS)
            raise DataError(
                f"`documents` {options.documents!r}: unknown{close}; expected"
                f" {', '.join(DOCUMENTS)}"
            )
        self._options = options
        self._format = _named_format(options.format)
        self._files: list[InputFile] = []
        self._given: list[str] = []
        #: (reason or nothing, suffix) -> count, bytes, example
        self._rows: dict[tuple[str, str], InputRow] = {}
        self._seen: set[Any] = set()

    def add(self, given: str) -> None:
        """Find what is behind one name."""
        self._given.append(given)
        if given == STANDARD_INPUT:
            self._add_standard_input()
        elif given.startswith(HUB_PREFIX):
            self._read(hub_file(given), given)
        elif given.lower().startswith("file://"):
            check_url(given)
            self._add_path(file_system(given)[1])
        elif is_url(given):
            check_url(given)
            with reading(given):
                self._add_url(given)
        else:
            self._add_path(given)

    def finish(self) -> Inputs:
        """Everything that was found, checked as a whole."""
        rows = sorted(self._rows.values(), key=lambda row: (row.left_out, row.suffix))
        report = InputReport(tuple(rows))
        if self._options.strict and report.lost:
            raise DataError(
                f"`strict`: these inputs would be left out: {describe(report.lost)}; remove them,"
                " or name only what is to be read"
            )
        if not rows:
            raise DataError("no input given; name at least one file or folder")
        if not self._files:
            names = ", ".join(row.example for row in rows[:5])
            raise DataError(f"{names}: empty input, there is no text in it")
        return Inputs(tuple(self._files), report, self._options, tuple(self._given))

    # --- one file ---------------------------------------------------------------------------------

    def _read(self, file: InputFile, key: Any) -> None:
        suffix = file.format.suffix
        if key in self._seen:
            self._count(reasons.REPEATED, suffix, file.name, file.bytes)
        elif file.bytes == 0:
            self._count(reasons.EMPTY, suffix, file.name, 0)
        else:
            self._seen.add(key)
            self._files.append(file)
            self._count("", suffix, file.name, file.bytes)

    def _read_local(self, name: str, form: Format, status: os.stat_result) -> None:
        file = InputFile(name, form, status.st_size, str(status.st_mtime_ns))
        self._read(file, (status.st_dev, status.st_ino))

    def _count(self, reason: str, suffix: str, name: str, size: int | None) -> None:
        row = self._rows.get((reason, suffix))
        if row is None:
            row = InputRow(suffix, reason, 0, 0, shown(name))
        self._rows[reason, suffix] = InputRow(
            suffix, reason, row.files + 1, row.bytes + (size or 0), row.example
        )

    def _add_standard_input(self) -> None:
        if self._format is None:
            raise DataError(
                "-: standard input has no name to tell its format; give `format`, such as jsonl or"
                " txt.gz"
            )
        path, checksum = keep_standard_input(self._format.suffix)
        file = InputFile(str(path), self._format, path.stat().st_size, checksum)
        self._read(file, STANDARD_INPUT)

    # --- paths ------------------------------------------------------------------------------------

    def _add_path(self, given: str) -> None:
        path = Path(given)
        try:
            status = path.stat()
        except FileNotFoundError as error:
            if not _MAGIC.isdisjoint(given):
                self._add_glob(given)
                return
            raise DataError(f"{given}: no such file or folder") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{given}: cannot be read: {error}") from error
        if stat.S_ISDIR(status.st_mode):
            self._add_folder(path, given)
        elif not stat.S_ISREG(status.st_mode):
            raise DataError(
                f"{given}: is a special file; expected a regular file or a folder; what another"
                " program writes is read from standard input, as -"
            )
        else:
            form = format_of(given) or self._format
            if form is None:
                raise DataError(
                    f"{given}: unknown input format; expected a file ending in {_EXPECTED};"
                    " `format` names the format of a file with another name"
                )
            self._read_local(given, form, status)

    def _add_glob(self, given: str) -> None:
        """All files and folders of that pattern, as a shell would name them; `**` is any depth."""
        before = self._found()
        pattern = _Pattern(given)
        if pattern.root.is_dir():
            self._walk(pattern.root, pattern, ())
        if self._found() == before:
            raise DataError(
                f"{given}: no input files match this pattern; expected files ending in {_EXPECTED}"
            )

    def _add_folder(self, folder: Path, given: str) -> None:
        before = self._found()
        self._walk(folder, None, set())
        if self._found() == before:
            raise DataError(
                f"{given}: no input files in this folder; expected files ending in {_EXPECTED}"
                + self._left_out()
            )

    def _left_out(self) -> str:
        rows = [row for row in self._rows.values() if row.left_out]
        if not rows:
            return ""
        return f"; found {describe(rows)}"

    def _found(self) -> int:
        """Files that are read, and those that add nothing because they are empty or known."""
        known = ("", reasons.EMPTY, reasons.REPEATED)
        return sum(row.files for row in self._rows.values() if row.left_out in known)

    def _walk(self, folder: Path, pattern: _Pattern | None, above: _Folders) -> None:
        """Add the files below a folder, sorted by path; with a pattern those that match.

        `above` are the folders that are not entered again: with a pattern those that this one lies
        in, since the name counts, and else all folders so far.
        """
        status = folder.stat()
        key = (status.st_dev, status.st_ino)
        if key in above:
            return
        if isinstance(above, set):
            above.add(key)
        else:
            above = (*above, key)
        entries = _entries(folder)
        is_dataset = any(entry.name in _DATASET_SIGNS for entry in entries)
        for entry in entries:
            path = folder / entry.name
            matches = pattern is None or pattern.matches(path)
            if entry.name.startswith(".") and not (pattern and pattern.hidden):
                if pattern is None:  # a pattern without a dot does not mean them
                    self._leave(reasons.HIDDEN, path)
            elif _is_folder(entry):
                if pattern is None or not matches:
                    if pattern is None or pattern.goes_below(path):
                        self._walk(path, pattern, above)
                else:
                    self._walk(path, None, set())
            elif not matches:
                continue
            elif (is_dataset and entry.name in _DESCRIPTIONS) or entry.name == CLEAN_REPORT:
                self._leave(reasons.DESCRIPTION, path)
            elif is_dataset and _CACHE.fullmatch(entry.name):
                self._leave(reasons.CACHE, path)
            else:
                self._add_entry(entry, path)

    def _add_entry(self, entry: os.DirEntry[str], path: Path) -> None:
        """One file of a folder."""
        try:
            status = entry.stat()
        except OSError as error:
            if entry.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
                self._leave(reasons.BROKEN, path)
                return
            raise DataError(f"{path}: cannot be read: {error}") from error
        form = format_of(entry.name)
        if not stat.S_ISREG(status.st_mode):
            self._leave(reasons.SPECIAL, path)
        elif form is None:
            self._leave(reasons.UNKNOWN, path, status.st_size)
        else:
            self._read_local(str(path), form, status)

    def _leave(self, reason: str, path: Path, size: int = 0) -> None:
        self._count(reason, suffix_of(path.name), str(path), size)

    # --- URLs -------------------------------------------------------------------------------------

    def _add_url(self, url: str) -> None:
        system, path = file_system(url)
        plain = path.partition("?")[0]
        can_list = url.partition("://")[0].lower() not in ("http", "https")
        if can_list and not _MAGIC.isdisjoint(path):
            found = system.glob(path, detail=True)
            if not found:
                raise DataError(f"{shown(url)}: no file matches this pattern")
        elif can_list and format_of(plain) is None and system.isdir(path):
            found = {path: {"type": "directory"}}
        else:
            form = format_of(plain) or self._format
            if form is None:
                raise DataError(
                    f"{shown(url)}: unknown input format; expected a URL ending in {_EXPECTED};"
                    " `format` names the format of a file with another name"
                )
            facts = system.info(path)
            self._read(InputFile(url, form, facts.get("size"), _version(facts)), url)
            return
        for name, facts in _below(system, found):
            self._add_remote(system.unstrip_protocol(name), name, facts)

    def _add_remote(self, url: str, name: str, facts: dict[str, Any]) -> None:
        """One file that a service listed."""
        last = name.rstrip("/").rpartition("/")[2]
        size = facts.get("size")
        form = format_of(last)
        if last.startswith("."):
            self._count(reasons.HIDDEN, suffix_of(last), url, size)
        elif form is None:
            self._count(reasons.UNKNOWN, suffix_of(last), url, size)
        else:
            self._read(InputFile(url, form, size, _version(facts)), url)


def _version(facts: dict[str, Any]) -> str:
    """What a service tells that changes with the content of a file."""
    names = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "mtime")
    return next((str(facts[name]) for name in names if facts.get(name)), "")


def _named_format(name: str | None) -> Format | None:
    """The format that `format` names, with or without its dot."""
    if name is None:
        return None
    found = format_of("." + name.lower().lstrip("."))
    if found is None or found.suffix.lstrip(".") != name.lower().lstrip("."):
        raise DataError(
            f"`format` {name!r}: unknown{nearest(name, [kind[1:] for kind in KINDS])}; expected"
            f" {_EXPECTED}"
        )
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: this folder cannot be read: {error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: it is told as a broken one


def _below(system: Any, found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The files among what was found, and those in its folders, sorted by path."""
    for name in sorted(found):
        if found[name].get("type") == "directory":
            inside = system.find(name, detail=True)
            yield from sorted(inside.items())
        else:
            yield name, found[name]
