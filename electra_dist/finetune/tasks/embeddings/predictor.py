"""Vectors of texts, as a model for embeddings gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.console import warn
from electra_dist.errors import DataError, UserError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.model_folder import MARKER, ModelFolder
from electra_dist.finetune.predictor import Prediction, Scores, TaskPredictor, one_line
from electra_dist.finetune.runners.runner import Output, Outputs, Runner
from electra_dist.finetune.tasks.embeddings.features import text_features
from electra_dist.finetune.tasks.embeddings.pairs import PairRow, PairSet, read_pair_rows
from electra_dist.finetune.tasks.embeddings.pooling import pooling_of, unit
from electra_dist.finetune.tasks.embeddings.scores import pair_scores
from electra_dist.finetune.tasks.embeddings.sentence_folder import TASK

#: Texts whose hidden states are in memory at once.
_PART = 256


class EmbeddingPredictor(TaskPredictor):
    """A model for embeddings; an item is a text, or a pair of texts."""

    kind = TASK
    header = ("vector", "text")

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> None:
        self._tokenizer = tokenizer
        self._runner = runner
        self._pooling = pooling_of(folder)
        self._max_length = int(folder.fact("max_length"))
        try:
            self._columns = Columns(**folder.fact("columns"))
        except TypeError as error:
            raise UserError(
                f"{folder.path / MARKER}: does not describe the task ({error})"
            ) from error
        self.fields = (self._columns.text,)

    def read(self, path: Path) -> list[PairRow]:
        """Texts, blank ones too, and their pairs where the file has them."""
        rows = list(read_pair_rows(path, self._columns))
        if not any(text.strip() for row in rows for text in row.texts):
            raise DataError(f"{path}: holds no text")
        return rows

    def item(self, fields: Mapping[str, Any], place: str) -> PairRow:
        """The text, and its pair where there is one."""
        text = fields.get(self._columns.text)
        pair = fields.get(self._columns.pair or "")
        if not isinstance(text, str):
            raise DataError(f"{place}: {self._columns.text!r} is {text!r}; expected a text")
        if not isinstance(pair, str | None):
            raise DataError(f"{place}: {self._columns.pair!r} is {pair!r}; expected a text")
        return PairRow(text, pair)

    def outputs(self, items: Sequence[PairRow]) -> Outputs:
        """The vectors (H,) of all texts of each."""
        texts = list(dict.fromkeys(text for row in items for text in row.texts))
        features = text_features(self._tokenizer, texts, self._max_length)
        vectors: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(texts), _PART):
            states = self._runner(features[start : start + _PART])
            for text, (states_lh, *_) in zip(texts[start : start + _PART], states, strict=True):
                vectors[text] = self._pooling.of_states(states_lh)
        return [tuple(vectors[text] for text in row.texts) for row in items]

    def predictions(self, items: Sequence[PairRow], outputs: Outputs) -> list[Prediction]:
        """The numbers of each vector, and the cosine of a pair."""
        return [_prediction(row, vectors) for row, vectors in zip(items, outputs, strict=True)]

    def scores(self, items: Sequence[PairRow], outputs: Outputs, source: Path) -> Scores:
        """Where every text has its pair. Of scored pairs, those that have their label."""
        if any(row.pair is None for row in items):
            return {}
        labelled = [row.label is not None for row in items]
        if any(labelled) and not all(labelled):
            warn(
                f"{source}: {labelled.count(False):,} of {len(items):,} pairs have no label; the"
                " scores are of the others"
            )
            items = [row for row in items if row.label is not None]
            outputs = [output for output, has in zip(outputs, labelled, strict=True) if has]
        pairs = PairSet.of_rows(items)
        vectors = {
            text: vector
            for row, found in zip(items, outputs, strict=True)
            for text, vector in zip(row.texts, found, strict=True)
        }
        return pair_scores(pairs, np.stack([vectors[text] for text in pairs.texts]))

    def mixed(self, several: Sequence[Outputs]) -> Outputs:
        """The directions of all models one behind the other, together of length 1: the cosine of
        two such vectors is the mean of the models' cosines. (A mean of vectors would be without
        meaning, for each model has its own axes.)
        """
        scale = 1 / np.sqrt(np.float32(len(several)))
        return [
            tuple(
                np.concatenate([unit(vector) * scale for vector in vectors])
                for vectors in zip(*each, strict=True)
            )
            for each in zip(*several, strict=True)
        ]


def _prediction(row: PairRow, vectors: Output) -> Prediction:
    cells = [
        (" ".join(f"{number:.6g}" for number in vector.tolist()), one_line(text))
        for text, vector in zip(row.texts, vectors, strict=True)
    ]
    content: dict[str, Any] = {"text": row.text, "vector": vectors[0].tolist()}
    if row.pair is not None:
        content["pair"] = row.pair
        content["pair_vector"] = vectors[1].tolist()
        content["similarity"] = float(unit(vectors[0]) @ unit(vectors[1]))
    return Prediction(cells, content)
