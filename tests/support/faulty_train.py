"""`electra-dist train` with one planted fault: python faulty_train.py FAULT RANK STEP CONFIG
[OVERRIDES]

FAULT happens on RANK alone, inside of step STEP (counted from 0):

    sleep   the training thread sleeps
    lock    it holds the interpreter's lock for ever, as a call in C may
    stop    the process stops itself (SIGSTOP)
    kill    the process kills itself
    raise   an exception
    read    the loader's process waits for ever for a block of STEP or a later one, as on a file
            system that is gone
    slow    the loader's process waits for a second for the data of STEP and of each later one
    start   the training thread sleeps before the first step, whatever STEP is
    none    nothing
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

from electra_dist.cli import main as cli
from electra_dist.data.loading import loader
from electra_dist.train import run, trainer

FAULT, RANK, STEP = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
HERE = int(os.environ.get("RANK", "0")) == RANK
train_step, build_engines = trainer.train_step, run.build_engines


def faulty_step(engines: Any, step: Any, *others: Any) -> Any:
    if HERE and step.index == STEP:
        happen()
    return train_step(engines, step, *others)


def happen() -> None:
    if FAULT == "sleep":
        time.sleep(1000)
    elif FAULT == "lock":
        ctypes.PyDLL(None).sleep(1000)
    elif FAULT in ("stop", "kill"):
        os.kill(os.getpid(), signal.SIGSTOP if FAULT == "stop" else signal.SIGKILL)
    elif FAULT == "raise":
        raise ZeroDivisionError("a planted fault")


def faulty_engines(*arguments: Any) -> Any:
    if FAULT == "start" and HERE:
        time.sleep(1000)
    return build_engines(*arguments)


if __name__ == "__main__":
    trainer.train_step = faulty_step  # type: ignore[assignment]
    if FAULT in ("read", "slow") and HERE:
        loader.FEEDER = "tests.support.faulty_feeder"
        os.environ["FAULTY_STEP"] = str(STEP)
    if FAULT == "slow":
        os.environ["FAULTY_SECONDS"] = "1"
    run.build_engines = faulty_engines  # type: ignore[assignment]
    sys.argv = ["electra-dist", "train", *sys.argv[4:]]
    cli.entry()
