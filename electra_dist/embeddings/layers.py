"""Which layer of an encoder gives the best vectors, found on pairs of texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.runners.runner import TorchRunner
from electra_dist.finetune.tasks.embeddings.encoder import LayerEncoder
from electra_dist.finetune.tasks.embeddings.features import text_features
from electra_dist.finetune.tasks.embeddings.pairs import PairSet
from electra_dist.finetune.tasks.embeddings.pooling import Pooling
from electra_dist.finetune.tasks.embeddings.scores import pair_scores, word_count_scores


@dataclass(frozen=True)
class LayerChoice:
    """`scores` are those of layer 0 (the embeddings), 1, ...; `simple` those of TF-IDF, without a
    model. `layer` has the highest `main_score`; of several, it is the lowest.
    """

    layer: int
    main_score: str
    scores: tuple[Scores, ...]
    simple: Scores

    def to_dict(self) -> dict[str, Any]:
        """As a marker keeps it."""
        return asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of a table: the layer, and its scores."""
        names = list(self.scores[0])
        rows = []
        for number, scores in enumerate(self.scores):
            mark = " *" if number == self.layer else ""
            rows.append((f"{number}{mark}", *(f"{scores[name]:.4f}" for name in names)))
        if self.simple:
            rows.append(("TF-IDF", *(f"{self.simple[name]:.4f}" for name in names)))
        return rows


def choose_layer(
    folder: ModelFolder,
    tokenizer: Any,
    pairs: PairSet,
    pooling: Pooling,
    max_length: int,
    device: torch.device,
) -> LayerChoice:
    """The scores of every layer on `pairs`. Holds the vectors of all its texts and layers."""
    encoder = LayerEncoder(folder.load("AutoModel"), pooling)
    features = text_features(tokenizer, pairs.texts, max_length)
    outputs = TorchRunner(encoder, tokenizer, device)(features)
    vectors_tkh = np.stack([vectors_kh for (vectors_kh,) in outputs])
    scores = tuple(
        pair_scores(pairs, vectors_tkh[:, layer]) for layer in range(vectors_tkh.shape[1])
    )
    best = max(range(len(scores)), key=lambda layer: scores[layer][pairs.main_score])
    return LayerChoice(best, pairs.main_score, scores, word_count_scores(pairs))
