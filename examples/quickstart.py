"""The quick start: raw text to exported weights, by the commands that a user would type, one after
the other.

Each command is printed before it runs. Training is interrupted once on the way, as by Ctrl-C, and
goes on with the same command. What exists already is kept, so a second start goes on where the
first one ended. Leaves

    runs/quickstart-data/{corpus,tokenizer,shards}     runs/quickstart
    runs/quickstart/export/{discriminator,generator}   runs/quickstart/{curves,evaluation}.png
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from electra_dist import config as configuration
from electra_dist.errors import EXIT_UNFINISHED, UserError
from electra_dist.runs.directory import RunDir

CONFIG = Path("configs/quickstart.yaml")
VOCAB_SIZE = 8192
VALIDATION = 0.03
_INTERRUPT_AT = 0.4  # of the steps


def main() -> int:
    """Run the quick start in the current folder; returns an exit status."""
    parser = argparse.ArgumentParser(
        description="Raw text to exported ELECTRA weights; see README.md."
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.sub=value", help="configuration keys to change"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        _quickstart(arguments.overrides)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("quick start interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    print(f"quick start done in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def _quickstart(overrides: list[str]) -> None:
    config = configuration.load(CONFIG, overrides)
    run = RunDir(config.run.path)
    shards = Path(config.data.shards)
    corpus = shards.parent / "corpus"
    tokenizer = shards.parent / "tokenizer"
    if not corpus.exists():
        _run("data", "corpus", "pydoc", "--out", str(corpus))
    if not tokenizer.exists():
        _run(
            "data",
            "tokenizer",
            "--input",
            str(corpus),
            "--vocab-size",
            str(VOCAB_SIZE),
            "--out",
            str(tokenizer),
        )
    if not shards.exists():
        source = ("--input", str(corpus), "--tokenizer", str(tokenizer), "--out", str(shards))
        _run(
            "data",
            "build",
            *source,
            "--workers",
            str(os.cpu_count() or 1),
            "--validation",
            str(VALIDATION),
        )
    _run("data", "inspect", str(shards))
    launch = ("launch", "local", str(CONFIG), "--processes", str(_processes()), *overrides)
    if not run.complete_checkpoints():
        _run_and_interrupt(launch, run, int(config.train.steps * _INTERRUPT_AT))
    _run(*launch)
    exports = {}
    for network in configuration.NETWORKS:
        exports[network] = run.path / "export" / network
        if not exports[network].exists():
            _run("export", str(run.path), "--network", network, "--out", str(exports[network]))
    _run("evaluate", str(run.path), "--plot", str(run.path / "evaluation.png"), "--passages", "2")
    _run("report", str(run.path), "--plot", str(run.path / "curves.png"))
    _check_learned(run)
    for network, path in exports.items():
        print(f"{network}: {path}")


def _processes() -> int:
    """Two ranks on CPU; on a machine with GPUs one each, at most two."""
    counted = subprocess.check_output(
        [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    )
    return min(2, int(counted)) or 2


def _command(arguments: tuple[str, ...]) -> list[str]:
    print(f"\n$ electra-dist {shlex.join(arguments)}", flush=True)
    return [sys.executable, "-m", "electra_dist.cli", *arguments]


def _run(*arguments: str) -> None:
    status = subprocess.call(_command(arguments))
    if status != 0:
        raise UserError(
            f"quick start: `electra-dist {shlex.join(arguments)}` ended with exit status {status}"
        )


def _run_and_interrupt(arguments: tuple[str, ...], run: RunDir, step: int) -> None:
    """Start training and send it what Ctrl-C sends once `step` is logged;
    it must save and say "not finished".
    """
    print(f"\n(the quick start will interrupt this one at step {step} and start it again)")
    with subprocess.Popen(_command(arguments)) as process:
        while process.poll() is None and _logged_step(run) < step:
            time.sleep(0.2)
        if process.poll() is None:
            print("\n(interrupting: SIGINT, as Ctrl-C)", flush=True)
            process.send_signal(signal.SIGINT)
        status = process.wait()
    if status != EXIT_UNFINISHED:
        raise UserError(
            f"quick start: the interrupted training ended with {status}, not {EXIT_UNFINISHED}"
        )


def _logged_step(run: RunDir) -> int:
    return max((int(row["step"]) for row in run.read_metrics()), default=0)


def _check_learned(run: RunDir) -> None:
    """The point of it all, on held-out documents:
    better than word frequencies, and better than chance.
    """
    report = json.loads(
        subprocess.check_output(
            [sys.executable, "-m", "electra_dist.cli", "report", str(run.path), "--json"]
        )
    )
    loss, auc = (report["held_out"][name][1] for name in ("generator loss", "discriminator AUC"))
    entropy = report["unigram_entropy"]
    print(
        f"generator loss {loss:.3f} nats, unigram entropy {entropy:.3f}; discriminator AUC"
        f" {auc:.3f}, chance 0.500"
    )
    if loss >= entropy or auc < 0.6:
        raise UserError(
            "quick start: the model did not learn what it should have; please report this"
        )


if __name__ == "__main__":
    sys.exit(main())
