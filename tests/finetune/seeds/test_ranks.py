"""Two processes come to what one comes to with the same batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from electra_dist.finetune.run import finetune
from tests.support.processes import run_ranks
from tests.support.small_finetune import settings


def of_rank(world: Any, encoder: str, labelled: str, out: str) -> dict[str, Any]:
    """What one of the processes gets."""
    from electra_dist.finetune.seeds.ranks import part

    report = finetune(settings(Path(encoder), Path(labelled), Path(out), epochs=1, dropout=0.0))
    part()
    return report.seeds[1]


def test_two_processes_train_as_one(encoder: Path, labelled: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    finetune(settings(encoder, labelled, tmp_path / "one", epochs=1, dropout=0.0))
    first, second = run_ranks(
        of_rank,
        2,
        timeout=300,
        meet=False,
        encoder=str(encoder),
        labelled=str(labelled),
        out=str(tmp_path / "two"),
    )
    assert first == second
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(tensor, weights[1][name], atol=2e-3, err_msg=name)
    losses = [losses_of(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    assert len(losses[0]) > 10
    # Adam hides a gradient that is too large by a factor; the loss does not
    np.testing.assert_allclose(losses[0], losses[1], atol=2e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def losses_of(path: Path) -> list[float]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]
