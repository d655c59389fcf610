"""The rows of a fine-tuning in W&B: one run per seed, in a group named like `out`.

Comes in: rows of metrics. Goes out: runs of W&B, online or as files for `wandb sync`. What fails
here is a warning, and training goes on. Neither paths nor the name of the machine are told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from electra_dist.console import warn
from electra_dist.runs.metrics_log import Row, RowReader
from electra_dist.tracking.wandb import Mode, in_words, private_settings

PROJECT = "electra-dist-finetune"


class Mirror:
    """Hands rows over; a seed that goes on after a kill is another run with all its rows."""

    def __init__(self, mode: Mode, group: str, told: dict[str, Any], folder: Path) -> None:
        """`told`: the configuration of the runs; `folder` gets the files of W&B."""
        self._mode = mode
        self._group = group
        self._told = told
        self._folder = folder
        self._run: Any = None

    def begin(self, seed: int, metrics: Path) -> None:
        """A run of W&B for the seed, with the rows that the file has already."""
        if self._mode == "disabled":
            return
        try:
            import wandb

            self._run = wandb.init(
                mode=self._mode,
                project=PROJECT,
                group=self._group,
                name=f"seed {seed}",
                config=self._told | {"seed": seed},
                dir=str(self._folder),
                settings=private_settings(),
                reinit="finish_previous",
            )
            self._run.define_metric("step", summary="max")
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # of many classes: no key, no network, no space
            self._give_up(error)
            return
        for row in RowReader(metrics):
            self.send(row)

    def send(self, row: Row) -> None:
        """One more row."""
        if self._run is None:
            return
        try:
            self._run.log(row)
        except Exception as error:  # its service may be gone
            self._give_up(error)

    def end(self) -> None:
        """The seed is over, or interrupted."""
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:  # its service may be gone
            self._give_up(error)
        self._run = None

    def _give_up(self, error: Exception) -> None:
        warn(f"W&B: {in_words(error)}; training goes on without it")
        self._run = None
        self._mode = "disabled"
