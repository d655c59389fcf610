"""Samples for people: a few held-out passages as the generator corrupted them, with what the
discriminator said of every token. `RUN/samples/step-00001000.json`, the newest 100 of them.

    {"step": 1000,
     "passages": [{"source": "wiki",
                   "pieces": [{"text": " rain", "original": " snow", "sampled": " rain",
                               "generator_probability": 0.31, "replaced": true,
                               "discriminator_probability": 0.83}, ...]}, ...]}

Comes in: passages, or the file of a step, whoever wrote it. Goes out: the file, whole or absent, or
`Samples`. Needs no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import pydantic

from electra_dist.errors import DataError, UserError
from electra_dist.files.reading import MIB, read_json
from electra_dist.files.writing import write_json
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout import stepped

#: Passages of a file, and tokens of a passage, at most.
MOST_PASSAGES = 8
MOST_TOKENS = 64
#: Files kept, the newest ones.
_MOST_FILES = 100
_FILE_LIMIT = MIB
Probability = Annotated[float, pydantic.Field(ge=0, le=1)]


@dataclass(frozen=True)
class SamplePiece:
    """One token as text, its space included.

    text                       that the discriminator reads
    original, sampled          of a masked token: that of the corpus, and what the generator put in
                               its place; None where nothing was masked
    generator_probability      of the sampled token, at temperature 1; None where nothing was masked
    replaced                   whether the sampled token is another one than the original
    discriminator_probability  of `replaced`
    """

    text: str
    original: str | None
    sampled: str | None
    generator_probability: Probability | None
    replaced: bool
    discriminator_probability: Probability


@dataclass(frozen=True)
class SamplePassage:
    """One passage; `source` is the name of its shards in the configuration."""

    source: str
    pieces: tuple[SamplePiece, ...]


@dataclass(frozen=True)
class Samples:
    """The passages of a run after `step`: the same ones at each step."""

    step: int
    passages: tuple[SamplePassage, ...]


_SAMPLES = pydantic.TypeAdapter(Samples)


def samples_folder(run: RunDir) -> Path:
    """Where the files lie."""
    return run.path / "samples"


def write_samples(run: RunDir, samples: Samples) -> None:
    """Write the file of a step, and remove those that are too old; raises `OSError`."""
    folder = samples_folder(run)
    folder.mkdir(exist_ok=True)
    write_json(stepped.file_of(folder, samples.step), asdict(samples))
    stepped.keep_newest(folder, _MOST_FILES)


def sampled_steps(run: RunDir) -> list[int]:
    """Steps that there are samples of, ascending."""
    return stepped.steps_in(samples_folder(run))


def read_samples(run: RunDir, step: int) -> Samples:
    """The samples of a step; raises `UserError` where they cannot be read or are none."""
    return samples_in(stepped.file_of(samples_folder(run), step))


def samples_in(path: Path) -> Samples:
    """The samples of a file; raises `DataError` where it cannot be read or holds something else."""
    try:
        return _SAMPLES.validate_python(read_json(path, _FILE_LIMIT))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: no passages of a step: {where}: {first['msg']}") from error
    except (OSError, UserError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as passages of a step: {error}") from error
