"""What the pre-trained networks say of texts.

discriminator    for each token, the probability that it was replaced
generator        for each [MASK] in the text, the best tokens and their probabilities
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns, read_examples
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Prediction, Predictor
from electra_dist.finetune.runners.runner import Runner

#: Texts that are answered before the next are looked at.
_PART = 512


class _TokenPredictor(Predictor):
    """Items are texts."""

    fields = ("text",)

    def __init__(self, folder: ModelFolder, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._longest = int(folder.config["max_position_embeddings"])

    def read(self, path: Path) -> list[str]:
        """Texts, blank ones too."""
        return [example.text for example in read_examples(path, Columns())]

    def item(self, fields: Mapping[str, Any], place: str) -> str:
        """The text."""
        text = fields.get("text")
        if not isinstance(text, str):
            raise DataError(f"{place}: 'text' is {text!r}; expected a text")
        return text

    def _shown(self, token: int) -> str:
        """A token as it is in the vocabulary: a leading "▁" is a space."""
        return str(self._tokenizer.convert_ids_to_tokens(token))

    def _check_length(self, number: int, ids: Sequence[int]) -> None:
        if len(ids) > self._longest:
            raise DataError(
                f"text {number}: {len(ids)} tokens; the model takes up to {self._longest}"
            )


class DiscriminatorPredictor(_TokenPredictor):
    """A discriminator. Special tokens in a text are plain characters, as in pre-training."""

    kind = "discriminator"
    header = ("text", "token", "replaced")

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> None:
        super().__init__(folder, tokenizer)
        self._runner = runner

    def predict(self, items: Sequence[str]) -> Iterator[Prediction]:
        """Every token but the special ones."""
        for start in range(0, len(items), _PART):
            yield from self._of_part(items[start : start + _PART], start + 1)

    def _of_part(self, texts: Sequence[str], first: int) -> Iterator[Prediction]:
        encoded = self._tokenizer(
            list(texts), return_offsets_mapping=True, split_special_tokens=True
        )
        for number, ids in enumerate(encoded["input_ids"], first):
            self._check_length(number, ids)
        offsets = encoded.pop("offset_mapping")
        features = [{name: encoded[name][i] for name in encoded} for i in range(len(texts))]
        for index, (logits, *_) in enumerate(self._runner(features)):
            replaced = 1 / (1 + np.exp(-logits.astype(np.float64)))
            yield self._judged(
                first + index, texts[index], features[index]["input_ids"], offsets[index], replaced
            )

    def _judged(
        self, number: int, text: str, ids: Sequence[int], offsets: Any, replaced: Any
    ) -> Prediction:
        tokenizer = self._tokenizer
        special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
        tokens = [
            {"token": self._shown(token), "start": start, "end": end, "replaced": probability}
            for token, (start, end), probability in zip(
                ids, offsets, replaced.tolist(), strict=True
            )
            if token not in special
        ]
        cells = [(str(number), str(token["token"]), f"{token['replaced']:.4f}") for token in tokens]
        return Prediction(cells, {"text": text, "tokens": tokens})


class GeneratorPredictor(_TokenPredictor):
    """A generator, with its `count` best fillings. A [MASK] is written in the text."""

    kind = "generator"
    header = ("text", "mask", "token", "probability")

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner, count: int) -> None:
        super().__init__(folder, tokenizer)
        self._runner = runner
        self._count = count

    def predict(self, items: Sequence[str]) -> Iterable[Prediction]:
        """Every text on its own: the outputs are as wide as the vocabulary."""
        for number, text in enumerate(items, 1):
            yield self._filled(number, text)

    def _filled(self, number: int, text: str) -> Prediction:
        if not text.strip():
            return Prediction([], {"text": text, "masks": []})
        encoded = self._tokenizer(text, split_special_tokens=False)
        ids = encoded["input_ids"]
        self._check_length(number, ids)
        masks = np.flatnonzero(np.array(ids) == self._tokenizer.mask_token_id)
        if not len(masks):
            raise DataError(
                f"text {number}: has no {self._tokenizer.mask_token} for the generator to fill"
            )
        ((logits, *_),) = self._runner([encoded])
        at_masks = torch.from_numpy(logits[masks])
        best = at_masks.softmax(dim=1).topk(min(self._count, logits.shape[1]))
        content = [
            [
                {"token": self._shown(token), "probability": probability}
                for probability, token in zip(values, tokens, strict=True)
            ]
            for values, tokens in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        cells = [
            (str(number), str(mask), str(one["token"]), f"{one['probability']:.4f}")
            for mask, found in enumerate(content, 1)
            for one in found
        ]
        return Prediction(cells, {"text": text, "masks": content})
