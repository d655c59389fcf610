"""A reference, typed: a recipe, how it was trained, and the curves of its seeds.

Comes in: the content of a JSON file. Goes out: `Reference`, frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import pydantic
from pydantic import Field, FiniteFloat

from electra_dist.config import Config, build, parse_yaml
from electra_dist.errors import ConfigError
from electra_dist.references.band import Band, band_of

#: Of the JSON files; another number is refused.
FORMAT = 1

Fingerprint = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Curve:
    """One metric of all seeds: `values` has a tuple per seed, with one value per step."""

    steps: tuple[Annotated[int, Field(ge=0)], ...]
    values: tuple[tuple[FiniteFloat, ...], ...]


@dataclass(frozen=True)
class Reference:
    """A recipe that was trained with a few seeds on the same data.

    name         of the recipe `configs/reference-NAME.yaml`
    recipe       text of the configuration file
    command      that makes the reference again
    device       what computed, as its maker names it
    software     package -> version
    real_tokens  that each run trained on
    tokenizer    fingerprint of its file
    dataset      fingerprint of the shards
    seeds        `train.seed` of each run
    every        steps that a value of training is the mean of
    curves       metric -> curve; a metric of the held-out rows has its name with `validation/`
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    name: str
    recipe: str
    command: str
    device: str
    software: Mapping[str, str]
    real_tokens: int
    tokenizer: Fingerprint
    dataset: Fingerprint
    seeds: Annotated[tuple[int, ...], Field(min_length=2)]
    every: Annotated[int, Field(gt=0)]
    curves: Mapping[str, Curve]

    @property
    def config(self) -> Config:
        """The recipe with all defaults of this software."""
        source = f"recipe of the reference {self.name}"
        sections = parse_yaml(self.recipe, source)
        if not isinstance(sections, dict):
            raise ConfigError(f"{source}: holds no sections; expected a whole configuration file")
        return build(sections, source)

    def band(self, metric: str) -> Band | None:
        """Where `metric` of a run with another seed lies; None where the reference has none."""
        curve = self.curves.get(metric)
        if curve is None:
            return None
        return band_of(metric, curve.steps, curve.values)

    @classmethod
    def from_json(cls, content: object) -> Reference:
        """Raises `ValueError` that names the first key which is missing or holds something else."""
        if not isinstance(content, dict):
            raise ValueError("expected a JSON object")
        if content.get("format") != FORMAT:
            raise ValueError(f"format: {content.get('format')!r}, expected {FORMAT}")
        known = {name: value for name, value in content.items() if name != "format"}
        try:
            reference = _REFERENCE.validate_python(known)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}") from error
        for metric, curve in reference.curves.items():
            _check(metric, curve, len(reference.seeds))
        _check_recipe(reference)
        return reference

    def to_json(self) -> dict[str, Any]:
        """The inverse."""
        return {"format": FORMAT} | asdict(self)


_REFERENCE = pydantic.TypeAdapter(Reference)


def _check(metric: str, curve: Curve, seeds: int) -> None:
    """Raises `ValueError` where the lengths of a curve do not agree or its steps do not ascend."""
    if len(curve.values) != seeds:
        raise ValueError(
            f"curves.{metric}.values: {len(curve.values)} lists, expected one for each of the"
            f" {seeds} seeds"
        )
    if not curve.steps or list(curve.steps) != sorted(set(curve.steps)):
        raise ValueError(f"curves.{metric}.steps: expected steps in ascending order, each once")
    for values in curve.values:
        if len(values) != len(curve.steps):
            raise ValueError(
                f"curves.{metric}.values: a list of {len(values)} values, expected one for each of"
                f" the {len(curve.steps)} steps"
            )


def _check_recipe(reference: Reference) -> None:
    try:
        _ = reference.config
    except ConfigError as error:
        raise ValueError(f"recipe: {error}") from error
