"""The discriminator as a detector: how likely it is that each word of a text does not belong there.

Comes in: texts of any length. Goes out: for each text its words, and the probability of each. A
word is as suspect as the most suspect of its tokens (why: docs/tasks/suspects.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from electra_dist.errors import UserError
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.runners.runner import Runner, TorchRunner
from electra_dist.suspects.windows import FRAME, Tokens, framed, tokens_of, windows_over
from electra_dist.suspects.words import TokenizedWord, words_of

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class JudgedTokens:
    """A text, its tokens, and for each the probability that it was replaced."""

    text: str
    tokens: Tokens
    replaced: Probabilities

    def words(self) -> list[tuple[TokenizedWord, float]]:
        """Each word with its probability."""
        found = words_of(self.text, self.tokens.offsets)
        return [(word, word_probability(self.replaced[word.tokens])) for word in found]


def word_probability(replaced: Probabilities) -> float:
    """Of a word, by the probabilities of its tokens."""
    return float(replaced.max())


class Detector:
    """A discriminator with its tokenizer."""

    def __init__(self, tokenizer: Any, runner: Runner, positions: int) -> None:
        """`runner` gives the logits of each token, for inputs of at most `positions` tokens."""
        self.tokenizer = tokenizer
        self._runner = runner
        self._positions = positions

    @classmethod
    def open(cls, path: Path, device: torch.device) -> Detector:
        """The discriminator in a folder; raises `UserError` where there is another model."""
        folder = ModelFolder.open(path)
        if folder.kind != "discriminator":
            raise UserError(
                f"{path}: is a model for {folder.kind}; suspects are found by a discriminator, as"
                " `electra-dist export` writes it"
            )
        tokenizer = folder.tokenizer()
        model = folder.load("AutoModelForPreTraining")
        runner = TorchRunner(model, tokenizer, device)
        return cls(tokenizer, runner, int(folder.config["max_position_embeddings"]))

    @property
    def room(self) -> int:
        """Tokens of a text that is judged in one piece."""
        return self._positions - FRAME

    def count_tokens(self, text: str) -> int:
        """How long a text is."""
        return len(tokens_of(self.tokenizer, text).ids)

    def cut(self, text: str, most: int) -> str:
        """The beginning of `text` that has at most so many tokens."""
        offsets = tokens_of(self.tokenizer, text).offsets
        if len(offsets) <= most:
            return text
        if most < 1:
            return ""
        return text[: offsets[most - 1][1]]

    def judge(self, texts: Sequence[str]) -> list[JudgedTokens]:
        """Each text with the probabilities of its tokens; a blank text has none."""
        tokens = [tokens_of(self.tokenizer, text) for text in texts]
        windows = [windows_over(len(one.ids), self._positions) for one in tokens]
        features = [
            framed(self.tokenizer, one.ids[window.start : window.end])
            for one, own in zip(tokens, windows, strict=True)
            for window in own
        ]
        outputs = iter(self._runner(features))

        judged = []
        for text, one, own in zip(texts, tokens, windows, strict=True):
            replaced = np.zeros(len(one.ids))
            for window in own:
                logits = next(outputs)[0].astype(np.float64)
                inside = logits[1:-1]  # without [CLS] and [SEP]
                kept = inside[window.first - window.start : window.last - window.start]
                replaced[window.first : window.last] = 1 / (1 + np.exp(-kept))
            judged.append(JudgedTokens(text, one, replaced))
        return judged
