"""Texts in, suspects out: the detector marks words, the suggester says what else could stand there.

finder = Finder.open(Path("export/discriminator"), Path("export/generator"), device)
judged = finder.find(texts)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from electra_dist.errors import UserError
from electra_dist.finetune.model_folder import MARKER, ModelFolder
from electra_dist.suspects.detector import Detector, JudgedTokens
from electra_dist.suspects.findings import JudgedText, Word
from electra_dist.suspects.suggester import Suggester

#: A word from this probability on is a suspect.
THRESHOLD = 0.5
#: Suggestions of a suspect.
COUNT = 5
#: Texts at a time.
_BATCH = 64


@dataclass(frozen=True)
class Finder:
    """A detector, and a suggester where there is one."""

    detector: Detector
    suggester: Suggester | None = None
    threshold: float = THRESHOLD
    count: int = COUNT

    @classmethod
    def open(
        cls,
        discriminator: Path,
        generator: Path | None,
        device: torch.device,
        threshold: float = THRESHOLD,
        count: int = COUNT,
    ) -> Finder:
        """The networks of two folders; raises `UserError` for other models, a `threshold` that is
        no probability and a `count` below 1.
        """
        if not 0 <= threshold <= 1:
            raise UserError(f"`threshold` {threshold:g}: expected a probability from 0 to 1")
        if count < 1:
            raise UserError(f"`count` {count}: expected 1 or more")
        detector = Detector.open(discriminator, device)
        suggester = None
        if generator is not None:
            suggester = Suggester.open(generator, device)
        return cls(detector, suggester, threshold, count)

    def find(self, texts: Sequence[str]) -> Iterator[JudgedText]:
        """Every text, in order, with all its words."""
        for start in range(0, len(texts), _BATCH):
            for judged in self.detector.judge(texts[start : start + _BATCH]):
                yield self._finding(judged)

    def _finding(self, judged: JudgedTokens) -> JudgedText:
        text = judged.text
        words = [
            Word(
                text[word.start : word.end],
                word.start,
                word.end,
                probability,
                suspect=probability >= self.threshold,
            )
            for word, probability in judged.words()
        ]
        if self.suggester is None:
            return JudgedText(text, tuple(words))
        return JudgedText(text, tuple(self._with_suggestions(self.suggester, text, words)))

    def _with_suggestions(
        self, suggester: Suggester, text: str, words: Sequence[Word]
    ) -> Iterator[Word]:
        spans = [(word.start, word.end) for word in words if word.suspect]
        suggestions = iter(suggester.suggest(text, spans, self.count))
        for word in words:
            if word.suspect:
                yield replace(word, suggestions=next(suggestions))
            else:
                yield word


def generator_beside(discriminator: Path) -> Path | None:
    """The folder `generator` next to that of a discriminator, where an export of the same run
    is.
    """
    path = discriminator.resolve().parent / "generator"
    if not (path / MARKER).is_file():
        return None
    own = ModelFolder.open(discriminator).marker
    other = ModelFolder.open(path)
    same = own.get("run_id") is not None and own.get("run_id") == other.marker.get("run_id")
    if same and other.kind == "generator":
        return path
    return None
