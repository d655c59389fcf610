"""The candidates of a query in the order that a fine-tuned model gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.console import warn
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Prediction, Scores, TaskPredictor, one_line
from electra_dist.finetune.runners.runner import Outputs, Runner
from electra_dist.finetune.tasks.candidates.columns import kept_columns
from electra_dist.finetune.tasks.candidates.encoding import CandidateRows
from electra_dist.finetune.tasks.ranking.learner import query_scores
from electra_dist.finetune.tasks.ranking.queries import Query, query_of, read_queries


class RankingPredictor(TaskPredictor):
    """A model for ranking."""

    kind = "ranking"
    header = ("query", "place", "score", "candidate")

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> None:
        self._tokenizer = tokenizer
        self._runner = runner
        self._max_length = int(folder.fact("max_length"))
        self._columns = kept_columns(folder)
        self.fields = (self._columns.text, str(self._columns.pair))

    def read(self, path: Path) -> list[Query]:
        """Queries of JSON lines or of MIND's format, labelled or not."""
        return list(read_queries(path, self._columns))

    def item(self, fields: Mapping[str, Any], place: str) -> Query:
        """A query and a list of candidates."""
        return query_of(place, fields, self._columns, place)

    def outputs(self, items: Sequence[Query]) -> Outputs:
        """The scores (C,) of the candidates of each query."""
        counts = [len(query.candidates) for query in items]
        rows = CandidateRows(items, counts, self._tokenizer, self._max_length)
        return rows.by_list(self._runner(rows))

    def predictions(self, items: Sequence[Query], outputs: Outputs) -> list[Prediction]:
        """The candidates of each query, the highest score first; equal ones as they came."""
        return [
            _prediction(query, scores) for query, (scores, *_) in zip(items, outputs, strict=True)
        ]

    def scores(self, items: Sequence[Query], outputs: Outputs, source: Path) -> Scores:
        """Of the queries with labels that can be ordered."""
        labelled = sum(query.grades is not None for query in items)
        counted = sum(query.can_be_ordered for query in items)
        if labelled and counted < len(items):
            warn(
                f"{source}: {len(items) - counted:,} of {len(items):,} queries have no labels, or"
                " equal ones; the scores are of the others"
            )
        return query_scores(items, outputs)


def _prediction(query: Query, scores: NDArray[np.float32]) -> Prediction:
    order = np.argsort(-scores, kind="stable").tolist()
    ranking = [
        {"index": index, "candidate": query.candidates[index], "score": float(scores[index])}
        for index in order
    ]
    content = {"id": query.name, "query": query.text, "ranking": ranking}
    return Prediction(list(_cells(query, order, scores)), content)


def _cells(
    query: Query, order: Sequence[int], scores: NDArray[np.float32]
) -> Iterator[tuple[str, ...]]:
    for place, index in enumerate(order, 1):
        candidate = one_line(query.candidates[index])
        yield query.name, str(place), f"{scores[index]:.4f}", candidate
