"""Passages with the probabilities of both networks, as a table of W&B.

Comes in: `RUN/samples/step-NNNNNNNN.json`, which training writes. Goes out: the columns and rows of
a table, one row per piece of the text. The files may be damaged or somebody else's: they are read
with a bound, and what is no such file raises `DataError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.samples import samples_in

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
    content = samples_in(path)
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
