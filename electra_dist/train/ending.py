"""How training ends, in words: on the terminal, for the event hook and for `status`.

Comes in: how a run stands before or after training. Goes out: sentences.
"""

from __future__ import annotations

from electra_dist.config import Config
from electra_dist.console import say
from electra_dist.parallel.world import World
from electra_dist.runs.directory import RunDir
from electra_dist.train.faults import Interruption
from electra_dist.train.heldout.selection import stopped_before
from electra_dist.train.heldout.validation import owes_validation
from electra_dist.train.trainer import Outcome, Trainer

#: How a run that has stopped early is trained on.
TRAIN_ON = "to train on, start it again with a larger validation.patience (null: no early stop)"


def is_finished(config: Config, run: RunDir, step: int, world: World) -> bool:
    """Whether nothing is left to train after `step`, which is then said; the ranks agree."""
    early = stopped_before(config, run, step, world)
    if early:
        told = f"{early}; {TRAIN_ON}, or set run.name for another run"
    elif step >= config.train.steps and not owes_validation(run, step, world):
        told = f"already finished at step {step}; set run.name for another run"
    else:
        return False
    if world.is_main:
        say(f"{run.path}: {told}")
    return True


def why(trainer: Trainer, outcome: Outcome, interruption: Interruption) -> str:
    """Why training ended before its last step; empty where it did not."""
    if outcome is Outcome.INTERRUPTED and interruption.requested:
        return f"{interruption.requested.name} came"
    if outcome is Outcome.FINISHED and trainer.early_stop:
        return trainer.early_stop.sentence
    return ""


def say_how_it_ended(config: Config, trainer: Trainer, outcome: Outcome, sync: str | None) -> None:
    """Where the run stands, and what to do next; `sync` is the command that brings it to W&B."""
    done = trainer.done
    if outcome is Outcome.INTERRUPTED:
        if done:
            where = f"and saved at step {done}/{config.train.steps}"
        else:
            where = "before the first step"
        say(f"interrupted {where}; run the same command again to go on")
    else:
        if trainer.early_stop:
            say(f"{trainer.early_stop.sentence}; {TRAIN_ON}")
        say(
            f"finished at step {done}; export the weights with: electra-dist export"
            f" {trainer.run.path} --out DIR"
        )
    if sync:
        say(f"bring it to W&B with: {sync}")
