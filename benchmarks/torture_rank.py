"""Ranks with a planted divergence: python torture_rank.py RANKS STEPS-OF-DATA CONFIG [OVERRIDES]

The learning rate is ten thousand times too large while the rows of the given steps of *data* are
trained on, so that the divergence is gone where the guard passes over them. Starts itself once for
every rank.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from electra_dist import config as configuration

_WILD = 1e4


def launch(ranks: int, poison: str, words: list[str]) -> int:
    """Start this file as every rank, with `train` for its first word."""
    from launcher.local import launch_local

    config = configuration.load(words[0], words[1:])
    command = [sys.executable, str(Path(__file__)), "train", poison, *words]
    return launch_local(command, ranks, config.run.path / "logs")


def train(poison: str, words: list[str]) -> None:
    """`electra-dist train` with the planted rate."""
    from electra_dist.cli import main as cli
    from electra_dist.train import trainer

    chosen = {int(number) for number in poison.split(",")}
    rate = trainer.lr_factor
    train_one = trainer.Trainer._take_step
    taken = [0]

    def train_marked(self: Any, step: Any, state: Any) -> None:
        taken[0] = state.drawn - 1
        train_one(self, step, state)

    def wild_rate(step: int, steps: int, optim: Any) -> float:
        return rate(step, steps, optim) * (_WILD if taken[0] in chosen else 1.0)

    trainer.Trainer._take_step = train_marked  # type: ignore[method-assign]
    trainer.lr_factor = wild_rate
    sys.argv = ["electra-dist", "train", *words]
    cli.entry()


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(launch(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
