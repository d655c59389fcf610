"""Short trainings of the tiny encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from electra_dist.finetune.run import Settings

#: A random encoder needs more than the published numbers.
FAST: dict[str, Any] = {"lr": 3e-3, "layer_decay": 1.0, "batch": 16, "max_length": 32, "epochs": 3}


def settings(encoder: Path, labelled: Path, out: Path, **given: Any) -> Settings:
    """On the CPU; what is no field of `Settings` is of the recipe."""
    fields = {name: given.pop(name) for name in ("seeds", "ensemble", "restart") if name in given}
    return Settings(
        encoder,
        labelled / "train.tsv",
        out,
        labelled / "dev.tsv",
        recipe=FAST | given,
        device="cpu",
        **fields,
    )
