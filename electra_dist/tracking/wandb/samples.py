"""Passages with the probabilities of both networks, as a table of W&B.

Comes in: `RUN/samples/step-NNNNNNNN.json`, which training writes. Goes out: the columns and rows of
a table, one row per piece of the text. The files may be damaged or somebody else's: they are read
with a bound, and what is no such file raises `DataError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pydantic

from electra_dist.errors import DataError, UserError
from electra_dist.files.reading import MIB, read_json
from electra_dist.runs.directory import RunDir

#: The key of the table in W&B.
TABLE = "samples"
COLUMNS = (
    "passage",
    "source",
    "piece",
    "text",
    "original",
    "sampled",
    "generator_probability",
    "replaced",
    "discriminator_probability",
)
_FILE = re.compile(r"step-(\d{8})\.json")
_BYTES = 16 * MIB
Probability = Annotated[float, pydantic.Field(ge=0, le=1)]


class _Piece(pydantic.BaseModel):
    """A piece of a passage; masked ones have `original` and `sampled`."""

    text: str
    original: str | None = None
    sampled: str | None = None
    generator_probability: Probability | None = None
    replaced: bool
    discriminator_probability: Probability


class _Passage(pydantic.BaseModel):
    source: str
    pieces: list[_Piece]


class _Samples(pydantic.BaseModel):
    step: int
    passages: list[_Passage]


def sample_files(run: RunDir) -> Iterator[tuple[int, Path]]:
    """(step, file) of all that lie there, oldest first."""
    folder = run.path / TABLE
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match:
            yield int(match[1]), path


def read_table(path: Path) -> list[list[str | float | bool | int | None]]:
    """The rows of a file's table, under `COLUMNS`; raises `DataError`."""
    try:
        content = _Samples.model_validate(read_json(path, _BYTES))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: no passages of a step: {where}: {first['msg']}") from error
    except (OSError, UserError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as passages of a step: {error}") from error
    return [
        [
            number,
            passage.source,
            place,
            piece.text,
            piece.original,
            piece.sampled,
            piece.generator_probability,
            piece.replaced,
            piece.discriminator_probability,
        ]
        for number, passage in enumerate(content.passages)
        for place, piece in enumerate(passage.pieces)
    ]
