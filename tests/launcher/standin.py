"""Stands in for `electra-dist train`: steps, metrics, checkpoints, and 75 on USR1 and TERM, without torch.

    python standin.py CONFIG

Rank 0 makes the steps, the other ranks wait for it. What goes wrong is read from `RUN/plan.json`: `step_seconds`,
`crash_at` (a step at which rank 1, or 0 when alone, exits with 1, once or, with `always`, at every start).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from electra_dist import config as configuration
from electra_dist.errors import EXIT_UNFINISHED
from electra_dist.rundir import RunDir, write_atomically


def main() -> int:
    asked: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda got, _frame: asked.append(got))
    config = configuration.load(sys.argv[1])
    run = RunDir(config.run.path)
    rank, world = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    plan_file = run.path / "plan.json"
    plan = json.loads(plan_file.read_text()) if plan_file.is_file() else {}
    done = max(run.complete_checkpoints(), default=0)
    print(f"rank {rank} of {world} on {os.environ['SLURMD_NODENAME']} from step {done}", flush=True)
    (run.path / f"pid-{rank}").write_text(str(os.getpid()))
    crasher = 1 if world > 1 else 0
    while done < config.train.steps:
        time.sleep(plan.get("step_seconds", 0.05))
        if asked:
            if rank == 0:
                save(run, done)
            print(f"signal {asked}, step {done}", flush=True)
            return EXIT_UNFINISHED
        done = done + 1 if rank == 0 else last_step(run)
        if rank == 0:
            with run.metrics.open("a") as file:
                row = {"step": done, "loss/generator": 5 - done / 100, "loss/discriminator": 0.3, "world": world}
                file.write(json.dumps(row | {"speed/step_seconds": 0.05}) + "\n")
            if done % config.checkpoint.every == 0 or done == config.train.steps:
                save(run, done)
        if rank == crasher and done >= plan.get("crash_at", 10**9) and crash(run, plan):
            print("a planted crash", flush=True)
            return 1
    return 0


def crash(run: RunDir, plan: dict[str, object]) -> bool:
    mark = run.path / "crashed"
    if mark.exists() and not plan.get("always"):
        return False
    mark.touch()
    return True


def last_step(run: RunDir) -> int:
    return max((row["step"] for row in run.read_metrics()), default=0)


def save(run: RunDir, step: int) -> None:
    folder = run.checkpoint(step)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "COMPLETE", "")


if __name__ == "__main__":
    sys.exit(main())
