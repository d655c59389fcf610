"""Labels without training, by prompts of replaced tokens.

Each label is written into a sentence about the text, and the discriminator says how well its words
fit there: the label whose words look original is the answer (arXiv 2207.08141). Comes in: texts, a
template such as "{text} It was {label}." and the words of each label. Goes out: a probability per
label.

Where a label has several tokens, its score is their geometric mean, so that long labels are not
punished. With calibration, each score is divided by that of the same prompt without a text: what a
label gets whatever the text says (after arXiv 2102.09690).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from electra_dist.console import warn
from electra_dist.errors import UserError
from electra_dist.suspects.detector import Detector

TEXT = "{text}"
LABEL = "{label}"
Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class Prompt:
    """A template, and the words that stand in it for each label."""

    template: str
    labels: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raise `UserError` for what is no prompt."""
        for field in (TEXT, LABEL):
            if self.template.count(field) != 1:
                raise UserError(
                    f"`template` {self.template!r}: expected {field} in it once, as in"
                    f" '{TEXT} It was {LABEL}.'"
                )
        if len(self.labels) < 2:
            raise UserError(f"`labels` {dict(self.labels)}: expected two labels or more")
        for label, words in self.labels.items():
            if not label.strip() or not words.strip():
                raise UserError(f"`labels` {dict(self.labels)}: a label or its words are empty")

    def filled(self, text: str, words: str) -> tuple[str, int]:
        """The prompt about a text, and the character at which the words of the label begin."""
        first, _, second = self.template.partition(LABEL)
        before = first.replace(TEXT, text)
        return before + words + second.replace(TEXT, text), len(before)


def parse_labels(given: str) -> dict[str, str]:
    """`positive=great,negative=terrible` as a mapping; a label alone stands for itself.

    Raises `UserError` where a label is there twice.
    """
    labels: dict[str, str] = {}
    for part in given.split(","):
        label, equals, words = part.partition("=")
        name = label.strip()
        if name in labels:
            raise UserError(f"`labels` {given!r}: {name!r} is there twice")
        labels[name] = words.strip() if equals else name
    return labels


class Prompter:
    """A discriminator that is asked with one prompt."""

    def __init__(self, detector: Detector, prompt: Prompt, calibrate: bool = False) -> None:
        self._detector = detector
        self._prompt = prompt
        longest = max(prompt.labels.values(), key=detector.count_tokens)
        bare, _ = prompt.filled("", longest)
        self._room = detector.room - detector.count_tokens(bare)
        self._calibrated: Probabilities | None = None
        if calibrate:
            self._calibrated = self._scores([""])[0]

    @classmethod
    def open(
        cls, path: Path, prompt: Prompt, device: torch.device, calibrate: bool = False
    ) -> Prompter:
        """Ask the discriminator in a folder; raises `UserError` where there is another model."""
        return cls(Detector.open(path, device), prompt, calibrate)

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the probabilities."""
        return tuple(self._prompt.labels)

    def probabilities(self, texts: Sequence[str]) -> Probabilities:
        """Of each label for each text, (texts, labels); a row sums to 1.

        A text that leaves no room for the rest of the prompt is cut at its end, with a warning.
        """
        logs = self._scores(texts)
        if self._calibrated is not None:
            logs = logs - self._calibrated
        normalised: Probabilities = softmax(logs, axis=1)
        return normalised

    def _scores(self, texts: Sequence[str]) -> Probabilities:
        """Mean log-probability that the tokens of each label are original, (texts, labels)."""
        fitting = [self._detector.cut(text, self._room) for text in texts]
        cut = sum(one != text for one, text in zip(fitting, texts, strict=True))
        if cut:
            warn(
                f"{cut:,} of {len(texts):,} texts are too long for the prompt; the rest of them is"
                " not seen"
            )
        prompts = [
            self._prompt.filled(text, words)
            for text in fitting
            for words in self._prompt.labels.values()
        ]
        judged = self._detector.judge([text for text, _ in prompts])
        lengths = [len(words) for words in self._prompt.labels.values()] * len(texts)
        scores = [
            _mean_log(1 - one.replaced[_overlapping(one.tokens.offsets, start, start + length)])
            for one, (_, start), length in zip(judged, prompts, lengths, strict=True)
        ]
        return np.array(scores).reshape(len(texts), len(self._prompt.labels))


def _overlapping(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    return [token for token, (low, high) in enumerate(offsets) if low < end and high > start]


def _mean_log(original: Probabilities) -> float:
    smallest = np.finfo(np.float64).tiny
    return float(np.log(np.maximum(original, smallest)).mean())
