"""A pair of networks with random weights, as an export of one run leaves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.support.toy_task import random_model

CPU = torch.device("cpu")


def write_pair(folder: Path, tokenizer: Path) -> Path:
    """discriminator/ and generator/ of 96 positions, in `folder`."""
    for network, kind in (
        ("discriminator", "ElectraForPreTraining"),
        ("generator", "ElectraForMaskedLM"),
    ):
        random_model(folder / network, kind, tokenizer)
        marker = {"network": network, "run_id": "abcd"}
        (folder / network / "electra_dist.json").write_text(json.dumps(marker))
    return folder


def transformers_model(folder: Path, auto_class: str) -> tuple[Any, Any]:
    """The tokenizer and the model, as anybody loads them."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer, getattr(transformers, auto_class).from_pretrained(folder).eval()
