"""What answers: one model, or several as the ensemble that `electra-dist predict` makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.errors import UserError

if TYPE_CHECKING:
    import torch

    from electra_dist.finetune.predictor import Prediction, Predictor


@dataclass(frozen=True)
class ServedModel:
    """`name` is for people, `kind` the task or the network, `columns` how the training called the
    texts.
    """

    name: str
    kind: str
    columns: Mapping[str, str | None]
    predictors: tuple[Predictor, ...]

    def item(self, fields: Mapping[str, Any], place: str) -> Any:
        """One input as the model takes it; raises `DataError` that names `place`."""
        return self.predictors[0].item(fields, place)

    def predict(self, items: Sequence[Any]) -> list[Prediction]:
        """One prediction per item, in order; raises `DataError` for one that the model refuses."""
        first = self.predictors[0]
        outputs = [predictor.outputs(items) for predictor in self.predictors]
        if len(outputs) == 1:
            return first.predictions(items, outputs[0])
        return first.predictions(items, first.mixed(outputs))


def open_model(folders: Sequence[Path], device: torch.device) -> ServedModel:
    """Load the folders; raises `UserError` for one that cannot be loaded, or that has another task
    than the first.
    """
    from electra_dist.finetune.model_folder import ModelFolder
    from electra_dist.finetune.predictor import open_predictor

    opened = [ModelFolder.open(folder) for folder in folders]
    first = opened[0]
    for other in opened[1:]:
        if other.kind != first.kind:
            raise UserError(
                f"{other.path}: is a model for {other.kind}, but {first.path} for {first.kind};"
                " several folders answer together, so they need one task"
            )
    return ServedModel(
        name=", ".join(folder.path.resolve().name for folder in opened),
        kind=first.kind,
        columns=first.marker.get("columns") or {},
        predictors=tuple(open_predictor(folder.path, device) for folder in opened),
    )
