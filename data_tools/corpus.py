"""The built-in corpus: the documentation of the Python installation itself, as one .jsonl (DESIGN
D9).

Documents are the topics of `pydoc` and the docstrings of the standard library and of the installed
packages. Source files are parsed, never imported. Docstrings that are mostly code, tables or
symbols are left out, as are exact duplicates. The order is fixed (topics, standard library,
packages by name), and a size cap keeps the result similar on machines with more packages.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data_tools.clean import digest, normalise
from electra_dist.console import Progress, silent
from electra_dist.errors import DataError
from electra_dist.files.writing import whole_file

FILE_NAME = "pydoc.jsonl"
MAX_BYTES = 25_000_000
#: Shorter docstrings ("Return the value.") teach little and are mostly alike.
MIN_CHARACTERS = 160
_WORD = re.compile(r"[A-Za-z]{2,}")
#: Function words: the surest sign of English sentences.
_FUNCTION_WORDS_TEXT = (
    "a all an and any are as at be been but by can for from has have if in into is it its may more"
    " no not of on one or other should such than that the their then there these this to use used"
    " was when which will with you"
)
_FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "idle_test", "site-packages", "__pycache__", "lib2to3"}
)


@dataclass(frozen=True)
class CorpusStats:
    """What `write_pydoc_corpus` wrote and left out."""

    path: Path
    documents: int
    characters: int
    bytes: int
    files_parsed: int
    duplicates: int
    not_prose: int
    capped: bool

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def is_prose(text: str) -> bool:
    """Whether `text` is mostly English sentences: letters and spaces,
    and enough function words among the words.
    """
    if len(text) < MIN_CHARACTERS:
        return False
    letters = sum(character.isalpha() or character == " " for character in text)
    words = _WORD.findall(text)
    if letters < 0.72 * len(text.replace("\n", " ")) or len(words) < 20:
        return False
    return sum(word.lower() in _FUNCTION_WORDS for word in words) >= 0.18 * len(words)


def write_pydoc_corpus(
    out: Path, max_bytes: int = MAX_BYTES, workers: int | None = None, progress: Progress = silent
) -> CorpusStats:
    """Write `out/pydoc.jsonl`, one `{"id", "text"}` a line, at most `max_bytes` bytes.

    Raises `DataError` when `out` exists and holds anything but an earlier corpus.
    """
    _check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    files = _source_files()
    path = out / FILE_NAME
    seen: set[bytes] = set()
    counts = {"documents": 0, "characters": 0, "bytes": 0, "duplicates": 0, "not_prose": 0}
    capped = False
    with whole_file(path) as temporary, temporary.open("wb") as file:
        for name, raw in _documents(files, workers or min(8, os.cpu_count() or 1), progress):
            text = normalise(raw)
            if len(text) < MIN_CHARACTERS:
                continue
            key = digest(text)
            if key in seen or not is_prose(text):
                counts["duplicates" if key in seen else "not_prose"] += 1
                continue
            line = json.dumps({"id": name, "text": text}, ensure_ascii=False).encode() + b"\n"
            if counts["bytes"] + len(line) > max_bytes:
                capped = True
                break
            seen.add(key)
            file.write(line)
            counts["documents"] += 1
            counts["characters"] += len(text)
            counts["bytes"] += len(line)
    return CorpusStats(path=path, files_parsed=len(files), capped=capped, **counts)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the corpus")
    if out.is_dir():
        others = [entry.name for entry in out.iterdir() if FILE_NAME not in entry.name]
    else:
        others = []
    if others:
        raise DataError(
            f"{out}: holds something else already ({', '.join(sorted(others)[:5])}); give a new"
            " folder"
        )


def _documents(
    files: list[tuple[str, Path]], workers: int, progress: Progress
) -> Iterator[tuple[str, str]]:
    """(id, text) of every topic and docstring, in the fixed order,
    parsed by `workers` processes.
    """
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic:{name}", topics[name]
    chunk = 64
    chunks = [files[start : start + chunk] for start in range(0, len(files), chunk)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for done, found in enumerate(pool.map(_docstrings_of_files, chunks), start=1):
                progress("docstrings", done, len(chunks))
                yield from found
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _source_files() -> list[tuple[str, Path]]:
    """(module path, file) of the standard library, then of the installed packages, each sorted."""
    paths = sysconfig.get_paths()
    found: list[tuple[str, Path]] = []
    for root in dict.fromkeys((paths["stdlib"], paths["purelib"], paths["platlib"])):
        if not Path(root).is_dir():
            continue
        inside: list[tuple[str, Path]] = []
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
            for name in names:
                if name.endswith(".py"):
                    path = Path(folder, name)
                    inside.append((path.relative_to(root).with_suffix("").as_posix(), path))
        found += sorted(inside)
    return found


def _docstrings_of_files(files: list[tuple[str, Path]]) -> list[tuple[str, str]]:
    """(id, docstring) of every module, class and function of the files, in source order."""
    found: list[tuple[str, str]] = []
    for module, path in files:
        try:
            source = path.read_text(encoding="utf-8")
            if '"""' not in source and "'''" not in source:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source)
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
            # not every installed file is valid source of this Python; the corpus can do without it
            continue
        found.extend(_docstrings(module, tree))
    return found


def _docstrings(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Docstrings of `tree`; descends into statements only, never into expressions."""
    stack: list[tuple[str, ast.AST]] = [(module, tree)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= MIN_CHARACTERS:
                yield name, text
        inner = [
            child
            for field in ("body", "orelse", "handlers", "finalbody")
            for child in getattr(node, field, [])
        ]
        stack.extend(
            (f"{name}.{getattr(child, 'name', '')}".rstrip("."), child) for child in reversed(inner)
        )
