"""What each finished task of a build leaves: a small JSON file, written last, and read when the
same command goes on.

A task whose record is there is done: its files were on the disk before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydantic

from data_tools.spill import KeyRange, Spill
from data_tools.tokenizer import Shares
from data_tools.unfinished import DamagedWorkError
from data_tools.write import WrittenShard
from electra_dist.data.shards.manifest import SPLITS, ShardFacts, SplitName
from electra_dist.files.reading import MIB, read_json
from electra_dist.files.writing import whole_file, write_atomically

_LIMIT = 16 * MIB


@dataclass(frozen=True)
class Encoded:
    """The spills of one encoding task, and how many documents were read and left out.

    lowest         the lowest split hashes of its documents (`splits.lowest`)
    already_there  documents that the shards have already (`data add`)
    cut            documents that were cut into pieces
    shares         how much of the text was spelt in bytes or is unknown
    """

    spills: dict[SplitName, list[Spill]]
    lowest: list[int]
    documents: int
    too_short: int
    without_tokens: int
    cut: int
    already_there: int
    shares: Shares = field(default_factory=Shares)


def encoded_record(folder: Path, number: int, deal: int | None = None) -> Path:
    """Where the record of encoding task `number`, or of one deal of it, is."""
    if deal is None:
        return folder / f"{number:07d}.json"
    return folder / f"{number:07d}-{deal:06d}.json"


def write_encoded(folder: Path, number: int, encoded: Encoded, deal: int | None = None) -> None:
    """Write the record of an encoding task, or of one deal of it; raises `OSError`."""
    content = asdict(encoded)
    content["spills"] = {
        name: [(spill.stem.name, spill.documents, spill.tokens) for spill in spills]
        for name, spills in encoded.spills.items()
    }
    write_atomically(encoded_record(folder, number, deal), json.dumps(content) + "\n")


def read_encoded(folder: Path, number: int, deal: int | None = None) -> Encoded | None:
    """The record of an encoding task, or of one deal of it; None where it is not done."""
    content = _read(encoded_record(folder, number, deal))
    if content is None:
        return None
    try:
        content["spills"] = {
            name: [
                Spill(_inside(folder, stem), int(documents), int(tokens))
                for stem, documents, tokens in content["spills"][name]
            ]
            for name in SPLITS
        }
        return pydantic.TypeAdapter(Encoded).validate_python(content)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(encoded_record(folder, number, deal)) from error


def write_merged(spill: Spill) -> None:
    """Write the record of a merge; raises `OSError`."""
    content = {"documents": spill.documents, "tokens": spill.tokens}
    write_atomically(_record_of(spill.stem), json.dumps(content) + "\n")


def read_merged(stem: Path, keys: KeyRange) -> Spill | None:
    """The spill that a merge has made at `stem`, or None where it is not done."""
    content = _read(_record_of(stem))
    if content is None:
        return None
    try:
        return Spill(stem, int(content["documents"]), int(content["tokens"]), keys)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(_record_of(stem)) from error


def write_written(folder: Path, name: str, shard: WrittenShard) -> None:
    """Write the record of a shard, and how often each id occurs in it; raises `OSError`."""
    with whole_file(folder / f"{name}.npy") as path, path.open("wb") as file:
        np.save(file, shard.token_counts, allow_pickle=False)
    facts = None
    if shard.facts is not None:
        facts = asdict(shard.facts)
    content = {"facts": facts, "duplicates": shard.duplicates}
    write_atomically(folder / f"{name}.json", json.dumps(content) + "\n")


@dataclass(frozen=True)
class WrittenRecord:
    """What the record of a shard has: `WrittenShard` without the counts of ids."""

    facts: ShardFacts | None
    duplicates: int


_WRITTEN = pydantic.TypeAdapter(WrittenRecord)


def read_written(folder: Path, name: str) -> WrittenRecord | None:
    """The record of a shard, or None where it is not written."""
    content = _read(folder / f"{name}.json")
    if content is None:
        return None
    try:
        return _WRITTEN.validate_python(content)
    except ValueError as error:
        raise _damaged(folder / f"{name}.json") from error


def read_counts(folder: Path, name: str, vocab_size: int) -> npt.NDArray[np.int64]:
    """How often each id occurs in a written shard."""
    path = folder / f"{name}.npy"
    try:
        counts: npt.NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if counts.shape != (vocab_size,) or counts.dtype != np.int64:
        raise _damaged(path)
    return counts


def _record_of(stem: Path) -> Path:
    return stem.with_name(stem.name + ".json")


def _inside(folder: Path, name: str) -> Path:
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no plain name")
    return folder / name


def _read(path: Path) -> Any:
    try:
        return read_json(path, _LIMIT)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> DamagedWorkError:
    return DamagedWorkError(
        f"{path}: a record of the unfinished build is damaged; give the same command with `again`"
        " to start over"
    )
