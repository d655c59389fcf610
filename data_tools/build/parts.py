"""A build on several nodes: each encodes a part of the input, and one makes shards of all parts.

Part i of n takes each n-th encoding task from the i-th. Its folder has the sorted runs, their
records and the tokenizer; `part.json` is written last and has what the parts must agree in. Shards
are ranges of the key over all runs, so they are the same, byte by byte, as those of one node.

Encoding is nearly all of the work; the merge reads and writes ids only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydantic

from data_tools.build.encoding import Sums, encode_all, encode_tasks, task_folder
from data_tools.build.options import BuildOptions, BuildStats, PartStats
from data_tools.build.records import read_encoded
from data_tools.build.shards import (
    check_out,
    is_published,
    make_shards,
    publish,
)
from data_tools.build.work import WorkFolder, opened
from data_tools.disk import on_disk
from data_tools.sources import Inputs, find_inputs
from data_tools.tokenizer import ShardTokenizer, load_tokenizer
from data_tools.unfinished import Order
from data_tools.workers import Workers
from electra_dist.console import Progress, silent
from electra_dist.data.shards.manifest import TOKENIZER_FOLDER
from electra_dist.errors import DataError, UserError
from electra_dist.files.reading import MIB, read_json
from electra_dist.files.tokenizers import write_tokenizer
from electra_dist.files.writing import write_json

PART_FILE = "part.json"
FORMAT = "electra-dist-part"
VERSION = 1
#: Parts of one build at most.
MAX_PARTS = 10_000
_LIMIT = MIB


@dataclass(frozen=True)
class PartFile:
    """The content of `part.json`: all parts of a build agree in everything but `part`.

    part       number of this part, from 1
    tasks      encoding tasks of all parts together
    inputs     SHA-256 over size and path of every input file
    """

    format: str
    version: int
    part: int
    parts: int
    tasks: int
    options: dict[str, Any]
    tokenizer: str
    inputs: str


_PART_FILE = pydantic.TypeAdapter(PartFile)


def build_part(
    inputs: Sequence[str | Path] | Inputs,
    tokenizer_dir: Path,
    out: Path,
    part: int,
    parts: int,
    options: BuildOptions | None = None,
    progress: Progress = silent,
) -> PartStats:
    """Encode part `part` (from 1) of `parts` of `inputs` into the new folder `out`, for
    `merge_parts`.

    All parts are given the same inputs and options, in any place and at any time. Interrupted or
    killed, the same call goes on. Raises what `build_shards` raises.
    """
    options = options or BuildOptions()
    options.check()
    if not 1 <= part <= parts <= MAX_PARTS:
        raise DataError(
            f"`part` {part}/{parts}: expected I/N with 1 <= I <= N <= {MAX_PARTS}, such as 1/8"
        )
    tokenizer = load_tokenizer(tokenizer_dir)
    found = find_inputs(inputs)
    sources = {"tokenizer": tokenizer.fingerprint, "part": f"{part}/{parts}"}
    order = Order("build", options.decisive(), sources, found.identity())
    if not _is_published(out, order):
        check_out(out)
    with WorkFolder.beside(out).interruptible(out), opened(out, order, options.again) as work:
        if not work.stats.exists():
            with work.dropped_with_bad_input(), Workers(options.workers) as workers:
                tasks = encode_tasks(found, tokenizer_dir, work.encoded, options)
                own = tasks[part - 1 :: parts]
                sums = encode_all(own, tokenizer, work, workers, progress)
            facts = PartFile(
                format=FORMAT,
                version=VERSION,
                part=part,
                parts=parts,
                tasks=len(tasks),
                options=options.decisive(),
                tokenizer=tokenizer.fingerprint,
                inputs=_name_of(found),
            )
            _complete(work, facts, tokenizer, sums, out)
        return _publish(work, out)


def _is_published(out: Path, order: Order) -> bool:
    """Whether `out` is the part of `order`, and only its work folder was not removed yet."""
    work = WorkFolder.beside(out)
    moved = not work.encoded.exists() and (out / PART_FILE).exists()
    return moved and work.stats.exists() and work.is_of(order)


def _complete(
    work: WorkFolder, facts: PartFile, tokenizer: ShardTokenizer, sums: Sums, out: Path
) -> None:
    """Write what a part has beside its runs, and what is told at the end."""
    tokens = sum(run.tokens for runs in sums.runs.values() for run in runs)
    stats = PartStats(str(out), facts.part, facts.parts, sums.documents, tokens, sums.shares)
    with on_disk(work.path):
        write_tokenizer(tokenizer.files, work.encoded / TOKENIZER_FOLDER)
        write_json(work.encoded / PART_FILE, asdict(facts))
        write_json(work.stats, asdict(stats))


def _publish(work: WorkFolder, out: Path) -> PartStats:
    with on_disk(out.parent):
        stats = pydantic.TypeAdapter(PartStats).validate_python(read_json(work.stats))
        if work.encoded.exists():
            work.encoded.rename(out)
        work.remove()
    return stats


def merge_parts(
    parts: Sequence[Path],
    out: Path,
    workers: int = 1,
    again: bool = False,
    progress: Progress = silent,
) -> BuildStats:
    """Make shards in the new folder `out` of all the parts that `build_part` made.

    Gives the bytes that `build_shards` gives. The parts stay as they are. Interrupted or killed,
    the same call goes on. Raises `DataError` for parts that do not belong together.
    """
    found = _read_parts(parts)
    one = found[0][1]
    options = BuildOptions(**one.options, workers=workers, again=again)
    options.check()
    tokenizer = load_tokenizer(found[0][0] / TOKENIZER_FOLDER)
    _check_tokenizer(tokenizer, found[0][0], one)
    sources = {"tokenizer": one.tokenizer, "inputs": one.inputs}
    lines = tuple(_line(path / PART_FILE) for path, _ in found)
    order = Order("merge", options.decisive(), sources, lines)
    if not is_published(out, order):
        check_out(out)
    with WorkFolder.beside(out).interruptible(out), opened(out, order, again) as work:
        if not work.stats.exists():
            sums = _sums(found)
            with work.dropped_with_bad_input(), Workers(workers) as pool:
                make_shards(sums, work, tokenizer, options, pool, progress)
        return publish(work, out)


def _line(path: Path) -> str:
    """The size, time and path of a file."""
    facts = path.stat()
    return f"{facts.st_size}\t{facts.st_mtime_ns}\t{str(path)!r}"


def _name_of(inputs: Inputs) -> str:
    """A name for the input that is the same on every node: size and path, but no times."""
    lines = "\n".join(inputs.identity(versions=False))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _read_parts(paths: Sequence[Path]) -> list[tuple[Path, PartFile]]:
    """The parts in the order of their numbers; raises `DataError` where they are not all parts of
    one build.
    """
    if not paths:
        raise DataError("no parts given; name the folders that `data build --part` made")
    found = sorted(((path, _read_part(path)) for path in paths), key=lambda pair: pair[1].part)
    first_path, first = found[0]
    for path, part in found[1:]:
        for name in ("parts", "tasks", "options", "tokenizer", "inputs"):
            if getattr(part, name) != getattr(first, name):
                raise DataError(
                    f"{path}: is a part of another build than {first_path}: its {name} differ;"
                    " make all parts with the same input, tokenizer and options"
                )
    numbers = [part.part for _, part in found]
    missing = sorted(set(range(1, first.parts + 1)) - set(numbers))
    if missing:
        shown = ", ".join(f"{number}/{first.parts}" for number in missing[:10])
        raise DataError(f"parts are missing: {shown}; give all {first.parts} of them")
    if len(numbers) > first.parts:
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise DataError(f"part {twice}/{first.parts} is given twice; give each part once")
    return found


def _read_part(path: Path) -> PartFile:
    file = path / PART_FILE
    try:
        content: Any = read_json(file, _LIMIT)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(f"{file}: is no part of a build; make it with `data build --part`")
        if content.get("version") != VERSION:
            raise DataError(
                f"{file}: format version {content.get('version')!r}, this software reads"
                f" {VERSION}; make the part again"
            )
        part = _PART_FILE.validate_python(content)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no {PART_FILE} there; give folders that `data build --part` has finished"
        ) from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}; make the part again") from error
    if set(part.options) != set(BuildOptions().decisive()):
        raise DataError(f"{file}: has other options than this software knows; make the part again")
    if not 1 <= part.part <= part.parts <= MAX_PARTS:
        raise DataError(f"{file}: is damaged (part {part.part}/{part.parts}); make the part again")
    return part


def _check_tokenizer(tokenizer: ShardTokenizer, path: Path, part: PartFile) -> None:
    if tokenizer.fingerprint != part.tokenizer:
        raise DataError(
            f"{path / TOKENIZER_FOLDER}: is not the tokenizer that made the part; make it again"
        )


def _sums(found: Sequence[tuple[Path, PartFile]]) -> Sums:
    sums = Sums()
    for path, part in found:
        for number in range(part.part - 1, part.tasks, part.parts):
            record = read_encoded(task_folder(path, number), number)
            if record is None:
                raise DataError(
                    f"{path}: the record of task {number} is gone; make part"
                    f" {part.part}/{part.parts} again"
                )
            sums.add(record)
    sums.sort()
    return sums
