"""A minute of real training on one device, as users train: data, loss, interruption, resume,
export, parity.

    python benchmarks/gpu_train.py --json train.json

Makes shards of real English (the topics of `pydoc`), trains one rank in bf16 (fp32 on a CPU),
interrupts it with SIGTERM, goes on, exports the discriminator and has its output compared with
transformers'. It fails when a step is missing or there twice, when the loss does not fall, or when
any command does not end as it should.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from attempts import write_json
from torture_subject import write_shards

from electra_dist.errors import EXIT_OK, EXIT_UNFINISHED
from electra_dist.runs.directory import RunDir

CONFIG = """
run: {{dir: '{folder}/runs', name: gpu}}
data: {{shards: '{folder}/shards', row_length: 128}}
model: {{preset: {preset}, generator_bias: zeros}}
train: {{steps: {steps}, global_rows: {rows}, micro_rows: {rows}}}
optim: {{lr: 5.0e-4, warmup_steps: 20}}
zero: {{stage: 1}}
precision: {{mode: {mode}}}
checkpoint: {{every: 1000000}}
validation: {{every: 0}}
tracking: {{every: 5, wandb: disabled}}
"""


#: From the first logged steps to the last ones, in nats;
#: it starts at the log of the vocabulary's size.
_LEAST_FALL = 0.3


class WrongError(Exception):
    """Something is not as it should be."""


def electra_dist(*words: str, wanted: int = EXIT_OK) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "electra_dist.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != wanted:
        raise WrongError(
            f"electra-dist {' '.join(words)}: {done.returncode} instead of {wanted}\n"
            f"{done.stderr[-3000:]}"
        )
    return done


def interrupt(config: Path, run: RunDir, step: int) -> int:
    """Train to about `step`, then ask for the end; the step that was saved."""
    with subprocess.Popen(
        [sys.executable, "-m", "electra_dist.cli", "train", str(config)]
    ) as process:
        while (
            process.poll() is None
            and max((row["step"] for row in run.read_metrics()), default=0) < step
        ):
            time.sleep(0.1)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        status = process.wait()
    if status != EXIT_UNFINISHED:
        raise WrongError(
            f"the interrupted training ended with {status} instead of {EXIT_UNFINISHED}"
        )
    return run.complete_checkpoints()[-1]


def train(folder: Path, steps: int, preset: str, rows: int) -> dict[str, Any]:
    began = time.monotonic()
    write_shards(folder)
    if torch.cuda.is_available():
        mode = "bf16"
    else:
        mode = "fp32"
    config = folder / "config.yaml"
    text = CONFIG.format(folder=folder, preset=preset, steps=steps, rows=rows, mode=mode)
    config.write_text(text, encoding="utf-8")
    run = RunDir(folder / "runs" / "gpu")
    saved = interrupt(config, run, steps // 2)
    electra_dist("train", str(config))
    logged = [row for row in run.read_metrics() if "loss/generator" in row]
    numbers = [row["step"] for row in logged]
    if numbers != sorted(set(numbers)) or numbers[-1] != steps:
        raise WrongError(f"steps missing, doubled or out of order: {numbers}")
    losses = [float(row["loss/generator"]) for row in logged]
    first = statistics.mean(losses[:4])
    last = statistics.mean(losses[-4:])
    if not last < first - _LEAST_FALL:
        raise WrongError(
            f"the generator's loss went from {first:.3f} to {last:.3f}: it does not learn"
        )
    report = json.loads(
        electra_dist("export", str(run.path), "--out", str(folder / "export"), "--json").stdout
    )
    speeds = [row["speed/real_tokens_per_s"] for row in logged if "speed/real_tokens_per_s" in row]
    return {
        "mode": mode,
        "preset": preset,
        "steps": steps,
        "interrupted_at": saved,
        "generator_loss": {"first": first, "last": last},
        "real_tokens_per_s": statistics.median(speeds),
        "mfu": statistics.median(row["speed/mfu"] for row in logged),
        "export": report,
        "seconds": time.monotonic() - began,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "disabled")
    with tempfile.TemporaryDirectory(prefix="gpu-train-") as folder:
        try:
            figures = train(Path(folder), arguments.steps, arguments.preset, arguments.rows)
        except WrongError as error:
            print(f"failed: {error}")
            return 1
    losses = figures["generator_loss"]
    print(
        f"{figures['preset']}, {figures['mode']}: {figures['steps']} steps, interrupted at"
        f" {figures['interrupted_at']} and resumed; the generator's loss went from"
        f" {losses['first']:.3f} to {losses['last']:.3f}; {figures['real_tokens_per_s']:,.0f} real"
        f" tokens/s; exported, as transformers computes it; {figures['seconds']:.0f} s in all"
    )
    write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
