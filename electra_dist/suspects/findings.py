"""What is found in a text: its words with their probabilities, and suggestions for suspects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Suggestion:
    """What the generator would write in the place of a word, and how likely it is there."""

    text: str
    probability: float


@dataclass(frozen=True)
class Word:
    """Characters `start` to `end` of a text.

    probability  that the word does not belong there, by the discriminator
    suspect      whether that reaches the threshold
    suggestions  of the generator, the most likely first; empty without one, and where it has none
    """

    text: str
    start: int
    end: int
    probability: float
    suspect: bool
    suggestions: tuple[Suggestion, ...] = ()


@dataclass(frozen=True)
class JudgedText:
    """A text and all its words, in their order."""

    text: str
    words: tuple[Word, ...]

    @property
    def suspects(self) -> tuple[Word, ...]:
        """The words that are marked."""
        return tuple(word for word in self.words if word.suspect)

    def content(self) -> dict[str, Any]:
        """The object for programs."""
        words = [
            {
                "word": word.text,
                "start": word.start,
                "end": word.end,
                "probability": word.probability,
                "suspect": word.suspect,
                "suggestions": [
                    {"text": one.text, "probability": one.probability} for one in word.suggestions
                ],
            }
            for word in self.words
        ]
        return {"text": self.text, "words": words}
