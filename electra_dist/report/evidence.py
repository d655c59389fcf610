"""What lies beside the metrics of a run to look at: passages with what both networks made of them,
evaluations, pictures.

Comes in: a run directory. Goes out: typed content of

    RUN/samples/step-*.json   passages that training writes down
    RUN/evaluation*.json      what `electra-dist evaluate --json` prints, saved under this name
    RUN/evaluation*.png       what `electra-dist evaluate --plot` draws

also one folder deeper, where its name begins with `evaluation`. Files are read with a bound, links
are not followed. What is no such file gives a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import pydantic
from pydantic.dataclasses import dataclass

from electra_dist.errors import DataError, UserError
from electra_dist.files.reading import MIB, read_bounded, read_json
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.samples import (
    Probability,
    SamplePassage,
    SamplePiece,
    Samples,
    read_samples,
    sampled_steps,
    samples_folder,
)

#: Bytes of an evaluation and of a picture, at most.
_MOST_EVALUATION = 16 * MIB
MOST_PICTURE = 2 * MIB
#: Steps whose passages are shown, and passages of each.
MOST_STEPS = 4
MOST_PASSAGES = 8
#: Evaluations, and pictures, of a run.
MOST_EVALUATIONS = 4
_PNG = b"\x89PNG\r\n\x1a\n"

Form = TypeVar("Form")


@dataclass(frozen=True)
class CalibrationBin:
    """Tokens whose probability of `replaced` lies in one bin."""

    tokens: int
    mean_probability: float | None = None
    replaced_fraction: float | None = None


@dataclass(frozen=True)
class EvaluatedPiece:
    """One token of a passage of an evaluation; see `electra_dist.evaluate.passages.Piece`."""

    text: str
    proposed: str | None
    replaced: bool
    probability: Probability


@dataclass(frozen=True)
class EvaluatedPassage:
    """One passage of an evaluation."""

    kind: Literal["worst", "typical"]
    pieces: tuple[EvaluatedPiece, ...]


@dataclass(frozen=True)
class Evaluation:
    """The part of an evaluation that a report shows."""

    step: int
    rows: int
    roc: tuple[tuple[float, float], ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    generator: dict[str, float | None] = pydantic.Field(default_factory=dict)
    discriminator: dict[str, float | None] = pydantic.Field(default_factory=dict)
    passages: tuple[EvaluatedPassage, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Evidence:
    """All of it, newest first; `problems` has a sentence for each file that was left out."""

    passages: tuple[Samples, ...]
    evaluations: tuple[Evaluation, ...]
    pictures: tuple[Picture, ...]
    problems: tuple[str, ...]


_EVALUATION = pydantic.TypeAdapter(Evaluation)


def evidence_of(run: RunDir) -> Evidence:
    """What there is to look at in the folder of `run`."""
    problems: list[str] = []
    evaluations = list(_evaluations(run, problems))
    passages = list(_samples(run, problems))
    told = {one.step for one in passages}
    passages += [
        _of_evaluation(one) for one in evaluations if one.passages and one.step not in told
    ]
    passages.sort(key=lambda one: -one.step)
    return Evidence(
        passages=tuple(passages[:MOST_STEPS]),
        evaluations=tuple(sorted(evaluations, key=lambda one: -one.step)),
        pictures=tuple(_pictures(run, problems)),
        problems=tuple(problems),
    )


# --- passages -------------------------------------------------------------------------------------


def _samples(run: RunDir, problems: list[str]) -> Iterator[Samples]:
    if samples_folder(run).is_symlink():
        return
    for step in sampled_steps(run)[: -MOST_STEPS - 1 : -1]:
        try:
            samples = read_samples(run, step)
        except DataError as error:
            # without the place of the run: a page is given to others
            named = str(error).removeprefix(f"{run.path}/")
            problems.append(f"Left out: {named}.")
            continue
        yield Samples(samples.step, samples.passages[:MOST_PASSAGES])


def _of_evaluation(evaluation: Evaluation) -> Samples:
    """Its passages in the form of those that training writes."""
    passages = tuple(
        SamplePassage(passage.kind, tuple(map(_piece_of, passage.pieces)))
        for passage in evaluation.passages[:MOST_PASSAGES]
    )
    return Samples(evaluation.step, passages)


def _piece_of(piece: EvaluatedPiece) -> SamplePiece:
    original = None
    if piece.proposed is not None:
        original = piece.text
    return SamplePiece(
        text=piece.text,
        original=original,
        sampled=piece.proposed,
        generator_probability=None,
        replaced=piece.replaced,
        discriminator_probability=piece.probability,
    )


# --- evaluations and pictures ---------------------------------------------------------------------


def _evaluations(run: RunDir, problems: list[str]) -> Iterator[Evaluation]:
    for path in _newest(run, ".json", problems):
        evaluation = _parsed(path, _EVALUATION, _MOST_EVALUATION, problems)
        if evaluation is not None:
            yield evaluation


def _pictures(run: RunDir, problems: list[str]) -> Iterator[Picture]:
    for path in _newest(run, ".png", problems):
        try:
            content = read_bounded(path, MOST_PICTURE)
        except (OSError, UserError) as error:
            problems.append(f"A picture is left out: {error}.")
            continue
        if content.startswith(_PNG):
            yield Picture(path.relative_to(run.path).as_posix(), content)
        else:
            problems.append(f"A picture is left out: {path.name} is no PNG.")


def _newest(run: RunDir, suffix: str, problems: list[str]) -> list[Path]:
    """Files whose name, or whose folder's, begins with `evaluation`; the last names are the newest
    steps.
    """
    found = []
    for entry in _entries(run.path):
        if not entry.name.startswith("evaluation") or entry.is_symlink():
            continue
        if entry.is_dir():
            found += [path for path in _entries(entry) if path.suffix == suffix]
        elif entry.suffix == suffix:
            found.append(entry)
    found.sort(reverse=True)
    if len(found) > MOST_EVALUATIONS:
        problems.append(
            f"Of {len(found)} files evaluation*{suffix} the {MOST_EVALUATIONS} with the last names"
            " are shown."
        )
    return found[:MOST_EVALUATIONS]


def _entries(folder: Path) -> Iterable[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return ()
    return sorted(folder.iterdir())


def _parsed(
    path: Path, form: pydantic.TypeAdapter[Form], most: int, problems: list[str]
) -> Form | None:
    """The content of a JSON file; None with a sentence where it is something else."""
    try:
        return form.validate_python(read_json(path, most))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problems.append(f"{path.name} is left out: {where}: {first['msg']}.")
    except (OSError, ValueError, UserError) as error:
        problems.append(f"{path.name} is left out: it cannot be read as JSON ({error}).")
    return None
