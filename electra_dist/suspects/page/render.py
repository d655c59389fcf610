"""Puts judged texts into the template `suspects.html`.

Comes in: judged texts, the names of the models, the threshold. Goes out: HTML. The policy of the
page allows no script and no request, whatever a text holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jinja2

from electra_dist import __version__
from electra_dist.suspects.findings import JudgedText, Word

_HERE = Path(__file__).parent
#: A mark is the stronger the more of these shares of the way from the threshold to 1 a word has
#: come.
_LEVELS = (0.0, 1 / 3, 2 / 3)


@dataclass(frozen=True)
class Source:
    """What the page says of how it was made; `generator` is None without suggestions."""

    discriminator: str
    generator: str | None
    threshold: float
    made: datetime


@dataclass(frozen=True)
class Part:
    """A piece of a text; `word` is the suspect that it is, `level` how strongly it is marked."""

    text: str
    word: Word | None = None
    level: int = 0


@dataclass(frozen=True)
class MarkedText:
    """One text of the page, by its number from 1."""

    number: int
    parts: tuple[Part, ...]
    suspects: tuple[Word, ...]


def render_page(judged: Sequence[JudgedText], source: Source) -> str:
    """The page of these texts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = [
        MarkedText(number, tuple(_parts(one, source.threshold)), one.suspects)
        for number, one in enumerate(judged, 1)
    ]
    return environment.get_template("suspects.html").render(
        texts=texts,
        source=source,
        words=sum(len(one.words) for one in judged),
        suspects=sum(len(one.suspects) for one in judged),
        bounds=[_at(source.threshold, share) for share in _LEVELS],
        style=(_HERE / "suspects.css").read_text(encoding="utf-8"),
        version=__version__,
    )


def _parts(judged: JudgedText, threshold: float) -> Iterator[Part]:
    place = 0
    for word in judged.suspects:
        if word.start > place:
            yield Part(judged.text[place : word.start])
        yield Part(word.text, word, _level(word.probability, threshold))
        place = word.end
    if place < len(judged.text):
        yield Part(judged.text[place:])


def _level(probability: float, threshold: float) -> int:
    return sum(probability >= _at(threshold, share) for share in _LEVELS)


def _at(threshold: float, share: float) -> float:
    """So far on the way from the threshold to 1."""
    return threshold + share * (1 - threshold)
