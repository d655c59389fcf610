"""The curves of a fine-tuning: one file of rows for all seeds, and a picture of them.

Comes in: the rows of each seed. Goes out: metrics.jsonl and curves.png.

    {"step": 50, "seed": 1, "epoch": 0.5, "loss": 0.61, "lr": 0.001, "examples_per_second": 950.0}
    {"step": 100, "seed": 1, "epoch": 1.0, "held_out/accuracy": 0.71, ...}
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_dist.files.pictures import pyplot, save_picture
from electra_dist.runs.metrics_log import Row, RowReader, numbers_of


def join_rows(files: Mapping[int, Path], out: Path) -> None:
    """Write the rows of all seeds, one seed after the other, to `out`."""
    with out.open("wb") as joined:
        for path in files.values():
            with path.open("rb") as rows:
                shutil.copyfileobj(rows, joined)


def draw(metrics: Path, score: str, out: Path) -> None:
    """Draw loss and held-out `score` of every seed over the steps into the PNG `out`."""
    seeds: dict[int, list[Row]] = {}
    for row in RowReader(metrics):
        seeds.setdefault(int(row["seed"]), []).append(row)
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for seed, rows in seeds.items():
        _draw_one(axes[0], rows, "loss", f"seed {seed}")
        _draw_one(axes[1], rows, f"held_out/{score}", f"seed {seed}", marker="o")
    for axis, title in zip(axes, ("training loss", f"held-out {score}"), strict=True):
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    save_picture(figure, out)


def _draw_one(axis: Any, rows: list[Row], name: str, label: str, **style: Any) -> None:
    points = [(row["step"], numbers_of(row)[name]) for row in rows if name in numbers_of(row)]
    if points:
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, label=label, **style)
