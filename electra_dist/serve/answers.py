"""What answers: one model, several as the ensemble of `electra-dist predict`, or a detector of
suspects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.errors import UserError

if TYPE_CHECKING:
    import torch

    from electra_dist.finetune.predictor import Prediction, Predictor
    from electra_dist.finetune.runners.onnx_runner import Graph


@dataclass(frozen=True)
class ServedModel:
    """`name` is for people."""

    name: str
    predictor: Predictor

    @property
    def kind(self) -> str:
        """The task, or the network."""
        return self.predictor.kind

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what an input consists of."""
        return self.predictor.fields

    def item(self, fields: Mapping[str, Any], place: str) -> Any:
        """One input as the model takes it; raises `DataError` that names `place`."""
        return self.predictor.item(fields, place)

    def predict(self, items: Sequence[Any]) -> list[Prediction]:
        """One prediction per item, in order; raises `DataError` for one that the model refuses."""
        return list(self.predictor.predict(items))


def open_model(
    folders: Sequence[Path], device: torch.device, graph: Graph | None = None
) -> ServedModel:
    """Load the folders; with `graph`, onnxruntime runs that graph of each. Raises `UserError` for
    one that cannot be loaded, or that cannot answer together with the first.
    """
    from electra_dist.finetune.seeds.ensemble import open_models

    return ServedModel(_name(folders), open_models(folders, device, graph=graph))


def open_detector(
    folders: Sequence[Path], generator: Path | None, device: torch.device
) -> ServedModel:
    """A discriminator that marks the words that do not belong, and the generator that suggests
    others: by default the one beside it, where there is one. Raises `UserError`.
    """
    from electra_dist.suspects.finding import Finder, generator_beside
    from electra_dist.suspects.predictors import SuspectsPredictor

    if len(folders) > 1:
        raise UserError(f"`suspects`: takes one folder, found {len(folders)}")
    found = generator or generator_beside(folders[0])
    return ServedModel(_name(folders), SuspectsPredictor(Finder.open(folders[0], found, device)))


def _name(folders: Sequence[Path]) -> str:
    return ", ".join(folder.resolve().name for folder in folders)
