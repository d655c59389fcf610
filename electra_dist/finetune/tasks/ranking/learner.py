"""Ranking as a task: each relevant candidate of a query against others of it.

An example is a relevant candidate with up to `NEGATIVES` less relevant ones of the same query,
drawn anew in every epoch. The loss is the softmax over them (`candidates.listwise`), as the
baselines of MIND are trained (Wu et al., NRMS, EMNLP 2019, section 2.4). Against one number per
candidate (pointwise) this has two reasons. A reader clicks one of what is shown, so only the
order within a list is observed. And lists with hundreds of candidates cost no more than short ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from electra_dist.console import say, warn
from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Files
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.runners.runner import Outputs
from electra_dist.finetune.tasks.candidates.encoding import (
    CandidateRows,
    encode_list,
    warn_of_cuts,
)
from electra_dist.finetune.tasks.candidates.listwise import ListCollator, list_loss
from electra_dist.finetune.tasks.ranking.baselines import without_model
from electra_dist.finetune.tasks.ranking.queries import Queries, Query, read_queries
from electra_dist.finetune.tasks.ranking.ranking_scores import ranking_scores
from electra_dist.finetune.training import Learner, Loss

#: Less relevant candidates next to each relevant one, as in the papers on MIND.
NEGATIVES = 4


class RelevantCandidates(Sequence[dict[str, Any]]):
    """Each relevant candidate of queries, with others of its query drawn when it is asked for.

    They are drawn from the random state of torch, which a training sets from its seed.
    """

    def __init__(self, queries: Sequence[Query], tokenizer: Any, max_length: int) -> None:
        self._queries = queries
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._query = array("q")
        self._place = array("q")
        for number, query in enumerate(queries):
            grades = query.grades or ()
            lowest = min(grades, default=0)
            for place, grade in enumerate(grades):
                if grade > lowest:
                    self._query.append(number)
                    self._place.append(place)

    def __len__(self) -> int:
        return len(self._query)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        query = self._queries[self._query[index]]
        grades = query.grades or ()
        right = self._place[index]
        lower = [place for place, grade in enumerate(grades) if grade < grades[right]]
        drawn = torch.randperm(len(lower))[:NEGATIVES].tolist()
        chosen = [right, *(lower[number] for number in drawn)]
        texts = tuple(query.candidates[place] for place in chosen)
        one = Query(query.name, query.text, texts)
        return encode_list(self._tokenizer, one, self._max_length) | {"labels": 0}


class RankingLearner(Learner):
    """A model that gives each candidate of a query one number."""

    main_score = "ndcg@10"

    def __init__(self, files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> None:
        self._files = files
        self._encoder = encoder
        self._recipe = recipe
        length = recipe.max_length
        training = read_queries(files.train, files.columns, files.unlabelled)
        say(_counts(files.train, training))
        warn_of_cuts(training, str(files.train), tokenizer, length)
        self.training = RelevantCandidates(training, tokenizer, length)
        if not len(self.training):
            raise DataError(
                f"{files.train}: no query has a candidate that is more relevant than another"
            )
        self.examples = {
            "queries to train on": len(training),
            "relevant candidates": len(self.training),
        }
        self.held_out = []
        self.simple = {}
        self._held_out: Sequence[Query] = ()
        if files.dev is not None:
            held_out = read_queries(files.dev, files.columns, files.unlabelled)
            say(_counts(files.dev, held_out))
            self._held_out = held_out
            self.held_out = CandidateRows(held_out, held_out.counts, tokenizer, length)
            self.examples["held out"] = len(held_out)
            (baseline, self.simple) = without_model(training, held_out, self.main_score)
            say(f"{files.dev}: no model orders best by {baseline}")

    def new_model(self) -> Any:
        return self._encoder.load(
            "AutoModelForSequenceClassification",
            new_head=not self._recipe.keep_head,
            num_labels=1,
        )

    def loss(self) -> Loss:
        """The softmax over the candidates of a list."""
        return list_loss

    def collator(self, tokenizer: Any) -> Any:
        return ListCollator(tokenizer, of_choices=False)

    def scores(self, outputs: Outputs) -> Scores:
        assert isinstance(self.held_out, CandidateRows)
        return query_scores(self._held_out, self.held_out.by_list(outputs))

    def marker(self, scores: Scores) -> dict[str, Any]:
        return {
            "task": "ranking",
            "columns": asdict(self._files.columns),
            "max_length": self._recipe.max_length,
        }


def query_scores(queries: Sequence[Query], outputs: Outputs) -> Scores:
    """nDCG, MRR and AUC of the queries with labels; the outputs are one array (C,) per query."""
    return ranking_scores(
        (query.grades, scores)
        for query, (scores, *_) in zip(queries, outputs, strict=True)
        if query.grades is not None
    )


def _counts(path: Path, queries: Queries) -> str:
    """How many queries with how many candidates, and how many of them are relevant, in words."""
    relevant = 0
    same = 0
    for query in queries:
        relevant += sum(grade > 0 for grade in query.grades or ())
        same += not query.can_be_ordered
    if same:
        warn(
            f"{path}: the candidates of {same:,} of {len(queries):,} queries are equally relevant;"
            " nothing is learnt from these, and they count in no score"
        )
    total = sum(queries.counts)
    return (
        f"{path}: {len(queries):,} queries with {total:,} candidates ({min(queries.counts):,} to"
        f" {max(queries.counts):,} each), {relevant:,} of them relevant"
    )
