"""What answers: one model, or several as the ensemble that `electra-dist predict` makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.errors import UserError

if TYPE_CHECKING:
    import torch

    from electra_dist.finetune.model_folder import ModelFolder
    from electra_dist.finetune.predictor import Prediction, Predictor


@dataclass(frozen=True)
class ServedModel:
    """`name` is for people; `predictors` are of the same task."""

    name: str
    predictors: tuple[Predictor, ...]

    @property
    def kind(self) -> str:
        """The task, or the network."""
        return self.predictors[0].kind

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what an input consists of."""
        return self.predictors[0].fields

    def item(self, fields: Mapping[str, Any], place: str) -> Any:
        """One input as the model takes it; raises `DataError` that names `place`."""
        return self.predictors[0].item(fields, place)

    def predict(self, items: Sequence[Any]) -> list[Prediction]:
        """One prediction per item, in order; raises `DataError` for one that the model refuses."""
        from electra_dist.finetune.predictor import TaskPredictor

        first = self.predictors[0]
        members = [one for one in self.predictors if isinstance(one, TaskPredictor)]
        if len(members) < 2 or not isinstance(first, TaskPredictor):
            return list(first.predict(items))
        return first.predictions(items, first.mixed([one.outputs(items) for one in members]))


def open_model(folders: Sequence[Path], device: torch.device) -> ServedModel:
    """Load the folders; raises `UserError` for one that cannot be loaded, or that cannot answer
    together with the first.
    """
    from electra_dist.finetune.model_folder import ModelFolder
    from electra_dist.finetune.predict import open_predictor

    opened = [ModelFolder.open(folder) for folder in folders]
    for other in opened[1:]:
        _check_alike(opened[0], other)
    return ServedModel(
        name=", ".join(folder.path.resolve().name for folder in opened),
        predictors=tuple(open_predictor(folder.path, device) for folder in opened),
    )


def _check_alike(first: ModelFolder, other: ModelFolder) -> None:
    """Several folders answer as an ensemble: their outputs must mean the same."""
    if "task" not in first.marker:
        raise UserError(
            f"{first.path}: is a {first.kind}; only fine-tuned models answer together, so give one"
            " folder"
        )
    for fact in ("task", "labels", "columns"):
        expected = first.marker.get(fact)
        found = other.marker.get(fact)
        if found != expected:
            raise UserError(
                f"{other.path}: its {fact} is {found!r}, but that of {first.path} {expected!r};"
                " models answer together only where these are equal"
            )
