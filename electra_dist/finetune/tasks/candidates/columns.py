"""The columns that a model was trained on, as the marker of its folder keeps them."""

from __future__ import annotations

from electra_dist.errors import UserError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.model_folder import MARKER, ModelFolder


def kept_columns(folder: ModelFolder) -> Columns:
    """Raises `UserError` where the marker describes none."""
    try:
        return Columns(**folder.fact("columns"))
    except TypeError as error:
        raise UserError(f"{folder.path / MARKER}: does not describe the task ({error})") from error
