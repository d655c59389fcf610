"""Contrastive tuning as a task: batches of pairs to train on, and scores of the vectors of held-out
texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra_dist.console import say
from electra_dist.errors import UserError
from electra_dist.finetune.labelled import Files
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.runners.runner import Outputs
from electra_dist.finetune.tasks.embeddings.encoder import SentenceEncoder
from electra_dist.finetune.tasks.embeddings.features import text_features
from electra_dist.finetune.tasks.embeddings.pairs import PairSet, read_pairs
from electra_dist.finetune.tasks.embeddings.pooling import Pooling, pooling_of
from electra_dist.finetune.tasks.embeddings.scores import pair_scores, word_count_scores
from electra_dist.finetune.tasks.embeddings.sentence_folder import (
    TASK,
    embeddings_marker,
    write_sentence_folder,
)
from electra_dist.finetune.training import Learner


class PairLearner(Learner):
    """Texts that belong together are drawn together, others apart.

    A model that was made for embeddings before keeps its pooling; any other gets the mean. The
    vectors have length 1, for the loss knows only their directions.
    """

    def __init__(self, files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> None:
        if recipe.keep_head:
            raise UserError("`keep_head`: a model for embeddings has no head; leave it out")
        self._encoder = encoder
        self._columns = files.columns
        self._recipe = recipe
        self._pooling = Pooling(normalize=True)
        if encoder.kind == TASK:
            self._pooling = Pooling(pooling_of(encoder).pool, normalize=True)
        self._pairs = read_pairs(files.train, files.columns, files.unlabelled)
        say(f"{files.train}: {self._pairs.summary()}")
        self._inputs = text_features(tokenizer, self._pairs.texts, recipe.max_length)
        self.training = numbered(self._pairs)
        self.examples = {"pairs to train on": len(self._pairs)}
        self.main_score = self._pairs.main_score
        self.held_out = []
        self.simple = {}
        if files.dev is not None:
            self._held_out = read_pairs(files.dev, files.columns, files.unlabelled)
            say(f"{files.dev}: {self._held_out.summary()}")
            self.held_out = text_features(tokenizer, self._held_out.texts, recipe.max_length)
            self.examples["held out"] = len(self._held_out)
            self.main_score = self._held_out.main_score
            self.simple = word_count_scores(self._held_out)

    def new_model(self) -> SentenceEncoder:
        """The encoder with the loss of the pairs; nothing of it starts at random."""
        electra = self._encoder.load("AutoModel")
        return SentenceEncoder(electra, self._pooling, self._recipe.temperature)

    def collator(self, tokenizer: Any) -> PairCollator:
        return PairCollator(self._pairs, self._inputs, tokenizer)

    def scores(self, outputs: Outputs) -> Scores:
        return pair_scores(self._held_out, np.stack([vector for (vector,) in outputs]))

    def marker(self, scores: Scores) -> dict[str, Any]:
        return embeddings_marker(self._pooling, self._recipe.max_length, self._columns)

    def write_more(self, folder: Path) -> None:
        """What `sentence-transformers` reads."""
        hidden = int(self._encoder.config["hidden_size"])
        write_sentence_folder(folder, self._pooling, hidden, self._recipe.max_length)


class PairCollator:
    """Makes a batch of pairs: each text of it once, and which texts are no negatives of a query."""

    def __init__(self, pairs: PairSet, inputs: Sequence[Mapping[str, Any]], tokenizer: Any) -> None:
        """`inputs` are the model inputs of `pairs.texts`."""
        self._pairs = pairs
        self._inputs = inputs
        self._tokenizer = tokenizer

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        queries = [feature["queries"] for feature in features]
        if self._pairs.labels is not None:
            return {
                "queries": self._padded(queries),
                "candidates": self._padded([feature["candidates"][0] for feature in features]),
                "targets": torch.tensor([feature["targets"] for feature in features]),
            }
        candidates = list(
            dict.fromkeys(text for feature in features for text in feature["candidates"])
        )
        column = {text: number for number, text in enumerate(candidates)}
        targets = [column[feature["candidates"][0]] for feature in features]
        return {
            "queries": self._padded(queries),
            "candidates": self._padded(candidates),
            "targets": torch.tensor(targets),
            "excluded": self._excluded(queries, candidates, targets),
        }

    def _padded(self, texts: Sequence[int]) -> dict[str, Tensor]:
        padded = self._tokenizer.pad([self._inputs[text] for text in texts], return_tensors="pt")
        return dict(padded)

    def _excluded(
        self, queries: Sequence[int], candidates: Sequence[int], targets: Sequence[int]
    ) -> Tensor:
        """(B, C): the query itself, and texts that belong to it by another pair of the file."""
        rows = []
        for query, target in zip(queries, targets, strict=True):
            known = self._pairs.known_positives[query] | {query}
            rows.append(
                [text in known and number != target for number, text in enumerate(candidates)]
            )
        return torch.tensor(rows)


def numbered(pairs: PairSet) -> list[dict[str, Any]]:
    """Of each pair: its texts by number, the right candidate first, and its score."""
    numbered = []
    for row in range(len(pairs)):
        example: dict[str, Any] = {
            "queries": int(pairs.queries[row]),
            "candidates": [int(pairs.positives[row]), *pairs.negatives[row]],
        }
        if pairs.labels is not None:
            example["targets"] = float(pairs.labels[row])
        numbered.append(example)
    return numbered
