"""What is varied: names, and the values of each, as the user writes them.

lr=1e-5..1e-3:log     between two numbers, all magnitudes alike
epochs=2..5           whole numbers where both are
layer_decay=0.6..0.95
batch=16,32,64        one of these
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from electra_dist.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = int | float | str | bool


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both of them too; whole ones where both are."""

    name: str
    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Trial) -> Value:
        """The value of a trial."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    @property
    def examples(self) -> tuple[Value, ...]:
        """Both ends."""
        return (self.low, self.high)

    @property
    def text(self) -> str:
        """As it was written."""
        kind = ":log" if self.log else ""
        return f"{self.name}={self.low}..{self.high}{kind}"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    name: str
    values: tuple[Value, ...]

    def suggest(self, trial: Trial) -> Value:
        """The value of a trial."""
        value = trial.suggest_categorical(self.name, self.values)
        assert value is not None  # as none of the values is
        return value

    @property
    def examples(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    @property
    def text(self) -> str:
        """As it was written."""
        return f"{self.name}={','.join(map(str, self.values))}"


Dimension = Range | Choice


def parse_space(words: Iterable[str]) -> tuple[Dimension, ...]:
    """`name=values` each; raises `UserError` for one that cannot be, is there twice, or none."""
    found: dict[str, Dimension] = {}
    for word in words:
        dimension = _parse(word)
        if dimension.name in found:
            raise UserError(f"{word}: {dimension.name} is varied twice; give it once")
        found[dimension.name] = dimension
    if not found:
        raise UserError("nothing is varied; give one or more of name=LOW..HIGH or name=A,B")
    return tuple(found.values())


def _parse(word: str) -> Dimension:
    name, equals, text = word.partition("=")
    if not equals or not name or not text:
        raise UserError(f"{word}: expected name=LOW..HIGH, name=LOW..HIGH:log or name=A,B")
    if ".." not in text:
        values = tuple(_value(word, part) for part in text.split(","))
        if len(set(values)) < 2:
            raise UserError(f"{word}: expected two or more different values")
        return Choice(name, values)
    text, colon, kind = text.partition(":")
    if colon and kind != "log":
        raise UserError(f"{word}: {kind!r} behind the colon; expected log")
    low, high = (_number(word, part) for part in text.split("..", 1))
    if not low < high:
        raise UserError(f"{word}: expected a lower number before the higher one")
    if kind == "log" and low <= 0:
        raise UserError(f"{word}: a logarithmic range begins above 0")
    return Range(name, low, high, log=bool(colon))


def _value(word: str, text: str) -> Value:
    """A value as YAML reads it, but 1e-4 is a number."""
    with suppress(UserError):
        return _number(word, text)
    value = yaml.safe_load(text)
    if isinstance(value, str | bool):
        return value
    raise UserError(f"{word}: {text!r} is no value; expected a number or a word")


def _number(word: str, text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{word}: {text!r} is no number") from None
    if not math.isfinite(value):
        raise UserError(f"{word}: {text} is not finite")
    return value


def suggest(space: Iterable[Dimension], trial: Trial) -> dict[str, Any]:
    """The values of a trial, by name."""
    return {dimension.name: dimension.suggest(trial) for dimension in space}
