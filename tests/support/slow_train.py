"""`electra-dist train CONFIG` with a pause after every step of the first start: tiny, and longer
than a time limit.

python slow_train.py CONFIG
"""

from __future__ import annotations

import sys
import time
from typing import Any

from electra_dist.cli import main as cli
from electra_dist.train.trainer import Trainer

SECONDS = 1.0
after_step = Trainer._after_step


def pause(trainer: Trainer, *others: Any) -> Any:
    call = after_step(trainer, *others)
    if not trainer.run.complete_checkpoints():
        time.sleep(SECONDS)
    return call


if __name__ == "__main__":
    Trainer._after_step = pause  # type: ignore[method-assign]
    sys.exit(cli.main(["train", sys.argv[1]]))
