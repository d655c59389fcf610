"""Several fine-tuned models that answer as one.

Comes in: folders of models for one task. Goes out: a predictor whose outputs are the mean of theirs
(for classes, of the probabilities).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from electra_dist.errors import UserError
from electra_dist.files.reading import read_bounded
from electra_dist.files.tokenizers import LIMIT, TOKENIZER_FILE
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predict import open_predictor
from electra_dist.finetune.predictor import Prediction, Predictor, Scores, TaskPredictor
from electra_dist.finetune.runners.onnx_runner import Graph
from electra_dist.finetune.runners.runner import Outputs

#: What the markers of the folders say alike: what is asked, and what an output means.
_ALIKE = ("task", "labels", "columns", "max_length", "stride", "allow_none")


class EnsemblePredictor(TaskPredictor):
    """Models for one task; what concerns no output is that of the first one."""

    def __init__(self, members: Sequence[TaskPredictor]) -> None:
        self._members = members
        self._first = members[0]
        self.kind = self._first.kind
        self.header = self._first.header
        self.fields = self._first.fields

    def read(self, path: Path) -> list[Any]:
        """As one model reads them."""
        return self._first.read(path)

    def item(self, fields: Mapping[str, Any], place: str) -> Any:
        """As one model takes it."""
        return self._first.item(fields, place)

    def outputs(self, items: Sequence[Any]) -> Outputs:
        """The mean of those of the models."""
        return self._first.mixed([member.outputs(items) for member in self._members])

    def predictions(self, items: Sequence[Any], outputs: Outputs) -> list[Prediction]:
        """What the mean says."""
        return self._first.predictions(items, outputs)

    def scores(self, items: Sequence[Any], outputs: Outputs, source: Path) -> Scores:
        """Of the mean."""
        return self._first.scores(items, outputs, source)

    def mixed(self, several: Sequence[Outputs]) -> Outputs:
        """As one model mixes them."""
        return self._first.mixed(several)


def open_models(
    paths: Sequence[Path], device: torch.device, count: int = 5, graph: Graph | None = None
) -> Predictor:
    """`open_predictor` of one folder, `open_ensemble` of several."""
    if len(paths) == 1:
        return open_predictor(paths[0], device, count, graph)
    return open_ensemble(paths, device, graph)


def open_ensemble(
    paths: Sequence[Path], device: torch.device, graph: Graph | None = None
) -> EnsemblePredictor:
    """Load the models of several folders; `graph` as in `open_predictor`.

    Raises `UserError` where they are no fine-tuned models for the same task, classes and tokens.
    """
    folders = [ModelFolder.open(path) for path in paths]
    for folder in folders[1:]:
        _check_alike(folders[0], folder)
    members = []
    for path in paths:
        predictor = open_predictor(path, device, graph=graph)
        if not isinstance(predictor, TaskPredictor):
            raise UserError(
                f"{path}: is a {predictor.kind}; only fine-tuned models answer together, give one"
                " folder"
            )
        members.append(predictor)
    return EnsemblePredictor(members)


def _check_alike(first: ModelFolder, other: ModelFolder) -> None:
    for name in _ALIKE:
        expected = first.marker.get(name)
        found = other.marker.get(name)
        if found != expected:
            raise UserError(
                f"{other.path}: its {name} is {found!r}, but that of {first.path} is {expected!r};"
                " models that answer together must be fine-tuned for the same"
            )
    tokens = [
        read_bounded(folder.path / TOKENIZER_FILE, LIMIT, follow=True) for folder in (first, other)
    ]
    if tokens[0] != tokens[1]:
        raise UserError(
            f"{other.path}: has another tokenizer than {first.path}; models that answer together"
            " must see the same tokens"
        )
