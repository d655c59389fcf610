"""Stands in for `electra-dist train`: steps, metrics, checkpoints, and 75 on USR1 and TERM, without
torch.

    python standin.py CONFIG

Rank 0 makes the steps, the other ranks wait for it. What happens to it is read from
`RUN/plan.json`:

    step_seconds  of each step
    crash_at      at this step the last rank exits with 1 and the others hang, as in a collective;
                  at the first start
                  only, or at every start with `always`
    leave_at      at this step all ranks save and exit with 75, at the first start only
    says          a line to print on standard error before that
    exit          exit with this code at once
    exit_later    the same at every start but the first
    hang_at       at this step of the first start the last rank hangs, and the others end as the
                  watchdog ends them
    checkpoint    bytes of a checkpoint
    deaf          never mind the signals, at the first start
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from electra_dist import config as configuration
from electra_dist.errors import EXIT_HANG, EXIT_STORAGE, EXIT_UNFINISHED, StorageError
from electra_dist.files.writing import write_atomically, writing
from electra_dist.runs.directory import RunDir

SHOWN = (
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_FR_DUMP_TEMP_FILE",
    "OMP_NUM_THREADS",
    "NCCL_SOCKET_IFNAME",
    "https_proxy",
    "PYTHONPATH",
    "WORLD_SIZE",
    "SLURM_CPU_BIND",
    "SLURM_EXPORT_ENV",
)


def main() -> int:
    asked: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda got, _frame: asked.append(got))
    config = configuration.load(sys.argv[1])
    run = RunDir(config.run.path)
    rank, world = (int(os.environ[name]) for name in ("SLURM_PROCID", "SLURM_NTASKS"))
    if "RANK" in os.environ:  # torchrun
        rank, world = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    plan = json.loads((run.path / "plan.json").read_text())
    done = max(run.complete_checkpoints(), default=0)
    seen = {name: os.environ.get(name) for name in SHOWN} | {
        "cores": sorted(os.sched_getaffinity(0))
    }
    print(json.dumps(seen), flush=True)
    print(f"rank {rank} of {world} on {os.environ['SLURMD_NODENAME']} from step {done}", flush=True)
    (run.path / f"pid-{rank}").write_text(str(os.getpid()))
    if "says" in plan:
        print(plan["says"], file=sys.stderr, flush=True)
    if "exit" in plan:
        return int(plan["exit"])
    if "exit_later" in plan and not first_time(run, f"started-{rank}"):
        return int(plan["exit_later"])
    deaf = "deaf" in plan and first_time(run, f"deaf-{rank}")
    while done < config.train.steps:
        time.sleep(plan.get("step_seconds", 0.05))
        if (asked and not deaf) or (
            done >= plan.get("leave_at", 10**9) and first_time(run, f"left-{rank}")
        ):
            if rank == 0:
                save(run, done, plan)
            print(f"signal {asked}, step {done}", flush=True)
            return EXIT_UNFINISHED
        if done >= plan.get("crash_at", 10**9) and (
            first_time(run, f"crashed-{rank}") or plan.get("always")
        ):
            crash(rank, world)
        if done >= plan.get("hang_at", 10**9) and first_time(run, f"hung-{rank}"):
            hang(rank, world)
        done = done + 1 if rank == 0 else last_step(run)
        if rank == 0:
            log(run, done, world)
            if done % config.checkpoint.every == 0 or done == config.train.steps:
                save(run, done, plan)
    return 0


def hang(rank: int, world: int) -> None:
    """The last rank waits for ever; the others say so and end."""
    if rank == world - 1:
        while True:
            time.sleep(1)
    last = subprocess.run(
        ["scontrol", "show", "hostnames"], capture_output=True, text=True, check=True
    )
    suspect = f"rank {world - 1} on {last.stdout.split()[-1]}"
    print(
        f"hang: {suspect} has shown no sign for 300 s (last seen in phase step, step 7); the others"
        " wait for it"
    )
    sys.exit(EXIT_HANG)


def crash(rank: int, world: int) -> None:
    """The last rank ends; the others hang and do not hear a signal, as in a collective."""
    if rank == world - 1:
        print("a planted crash", flush=True)
        sys.exit(1)
    while True:
        time.sleep(1)


def first_time(run: RunDir, what: str) -> bool:
    mark = run.path / what
    fresh = not mark.exists()
    mark.touch()
    return fresh


def log(run: RunDir, step: int, world: int) -> None:
    row = {
        "step": step,
        "loss/generator": 5 - step / 100,
        "loss/discriminator": 0.3,
        "world": world,
    }
    with run.metrics.open("a") as file:
        file.write(
            json.dumps(row | {"speed/step_seconds": 0.05, "speed/real_tokens_per_s": 100.0}) + "\n"
        )


def last_step(run: RunDir) -> int:
    return max((row["step"] for row in run.read_metrics()), default=0)


def save(run: RunDir, step: int, plan: dict[str, Any]) -> None:
    folder = run.checkpoint(step)
    with writing(folder, "a checkpoint"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_bytes(bytes(plan.get("checkpoint", 0)))
        write_atomically(folder / "COMPLETE", "")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_STORAGE)
