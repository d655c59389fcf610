"""The run that is tortured: a small real one, started as users start it, and compared with one that
nobody disturbed.

Comes in: a folder with shards and a configuration. Goes out: starts of the run as processes, what
it has logged, and in what a disturbed run differs from the undisturbed one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from electra_dist.checkpoint.tensors import read_network
from electra_dist.config import NETWORKS
from electra_dist.runs.directory import RunDir
from electra_dist.tracking.wandb.children import descendants

RANK_PROGRAM = Path(__file__).with_name("torture_rank.py")
#: Longest time that any start may take;
#: a run that is still there is killed, and the fault counts as lost.
LONGEST_START = 240.0
#: How far losses may be apart after a change of the number of ranks, relatively.
TOLERANCE = 0.05
_POLL = 0.02

CONFIG = """
run: {{dir: '{runs}', name: run}}
data: {{shards: '{shards}', row_length: 64, streams: 4}}
model:
  embedding_size: 32
  max_positions: 64
  generator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  discriminator: {{layers: 2, hidden_size: 32, heads: 2, ffn_size: 64}}
train: {{steps: {steps}, global_rows: 8, micro_rows: 2, device: cpu}}
optim: {{lr: 1.0e-3, warmup_steps: 5}}
zero: {{stage: 3}}
precision: {{mode: fp32}}
checkpoint: {{every: 10, keep: 3}}
validation: {{every: 40, rows: 16}}
tracking: {{every: 1, wandb: offline}}
guard: {{window: 16}}
watchdog: {{step_seconds: 10, data_seconds: 10, checkpoint_seconds: 20, validation_seconds: 20}}
"""


def write_shards(folder: Path) -> Path:
    """Shards of real English, the topics of `pydoc`; made once."""
    from pydoc_data.topics import topics

    from data_tools.build import BuildOptions, build_shards
    from data_tools.tokenizer import train_tokenizer

    shards = folder / "shards"
    if shards.is_dir():
        return shards
    source = folder / "topics.jsonl"
    lines = (json.dumps({"id": name, "text": text}) for name, text in sorted(topics.items()))
    source.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    train_tokenizer([source], 512, folder / "tokenizer")
    build_shards(
        [source], folder / "tokenizer", shards, BuildOptions(validation=0.1, block_tokens=8192)
    )
    return shards


@dataclass
class Start:
    """One start of the run: its first process, and when it began."""

    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def ranks(self) -> list[int]:
        """Processes of the ranks that there are by now."""
        return sorted(pid for pid in descendants(self.process.pid) if _is_rank(pid))

    def tree(self) -> list[int]:
        """Every process that this start has made, its own first."""
        return [self.process.pid, *descendants(self.process.pid)]

    def wait(self, seconds: float = LONGEST_START) -> int | None:
        """Its exit status (negative: a signal); None when it had to be killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(self.tree())
            self.process.wait()
            return None


def _is_rank(pid: int) -> bool:
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    trains = "train" in words and ("electra_dist.cli" in words or str(RANK_PROGRAM) in words)
    return trains and "launch" not in words


def is_loader(pid: int) -> bool:
    """Whether it loads the data of a rank."""
    try:
        return any(
            "electra_dist.data.loading.feeder" in word for word in psutil.Process(pid).cmdline()
        )
    except psutil.Error:
        return False


def name_of(pid: int) -> str:
    """What a process runs, in a word or two; empty when it is gone."""
    try:
        words: list[str] = psutil.Process(pid).cmdline()
    except psutil.Error:
        return ""
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    if words:
        return Path(words[0]).name
    return ""


def kill(pids: Sequence[int], number: int = signal.SIGKILL) -> None:
    """Signal all of them; those that are gone already are no error."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _hear_hangups() -> None:
    """In the child: below nohup it would ignore the signal of a closed terminal, as it should."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Subject:
    """One run under torture."""

    def __init__(self, folder: Path, shards: Path, ranks: int, steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.shards = shards
        self.ranks = ranks
        self.steps = steps
        self.config = folder / "config.yaml"
        self.config.write_text(
            CONFIG.format(runs=folder / "runs", shards=shards, steps=steps), encoding="utf-8"
        )
        self.run = RunDir(folder / "runs" / "run")
        self.damaged: set[tuple[int, bool]] = set()
        self.exact = True  # always on the number of ranks that it began with
        self.log = folder / "output.log"
        self._starts: list[Start] = []

    def go_on_with(self, ranks: int) -> None:
        """Use another number of ranks from the next start on:
        sums are rounded in another order then.
        """
        self.ranks = ranks
        self.exact = False

    # --- starting ---------------------------------------------------------------------------------

    def start(self, *overrides: str) -> Start:
        """Start, or go on with, the run, as `electra-dist launch local` does."""
        words = [sys.executable, "-m", "electra_dist.cli", "launch", "local", str(self.config)]
        return self._start([*words, "--processes", str(self.ranks), *overrides])

    def start_poisoned(self, poison: Sequence[int], *overrides: str) -> Start:
        """The same with a learning rate ten thousand times too large in these steps of data."""
        chosen = ",".join(map(str, poison))
        return self._start(
            [
                sys.executable,
                str(RANK_PROGRAM),
                str(self.ranks),
                chosen,
                str(self.config),
                *overrides,
            ]
        )

    def second(self) -> int:
        """The exit status of a second start while the first trains."""
        with self.log.open("ab") as log:
            words = [sys.executable, "-m", "electra_dist.cli", "train", str(self.config)]
            done = subprocess.run(words, stdout=log, stderr=log, timeout=LONGEST_START, check=False)
        return done.returncode

    def _start(self, words: Sequence[str]) -> Start:
        with self.log.open("ab") as log:
            log.write(f"==== {' '.join(words)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_hear_hangups,
            )
        self._starts.append(Start(process))
        return self._starts[-1]

    # --- watching ---------------------------------------------------------------------------------

    def logged(self) -> int:
        """The last step that is logged, 0 when none is."""
        return max((int(row["step"]) for row in self.run.read_metrics()), default=0)

    def wait_for(self, start: Start, reached: Callable[[], bool], seconds: float = 120.0) -> bool:
        """Whether `reached` became true before the start ended or the time was up."""
        until = time.monotonic() + seconds
        while not start.ended and time.monotonic() < until:
            if reached():
                return True
            time.sleep(_POLL)
        return False

    # --- comparing --------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """The logged rows, without what depends on the clock."""
        return [without_clock(row) for row in self.run.read_metrics()]

    def weights(self) -> dict[str, torch.Tensor]:
        """Both networks at the last step."""
        folder = self.run.checkpoint(self.steps)
        return {
            f"{network}/{name}": tensor
            for network in NETWORKS
            for name, tensor in read_network(folder, network).items()
        }

    def differences(self, other: Subject) -> list[str]:
        """In what this run differs from `other`, which nobody disturbed; empty when the two are
        equal.

        To the bit on the number of ranks that it began with. After a change of it only which steps
        are there, and the losses within `TOLERANCE`: a sampled token that flips by rounding makes a
        small difference.
        """
        mine = self._by_place()
        wanted = other._by_place()
        found = []
        for place in sorted(wanted.keys() | mine.keys()):
            step, validation = place
            if validation:
                what = f"the validation of step {step}"
            else:
                what = f"step {step}"
            rows = mine.get(place, [])
            if not rows and place not in self.damaged:
                found.append(f"{what} is missing")
            elif len(rows) > 1:
                found.append(f"{what} is there {len(rows)} times")
            elif place not in wanted:
                found.append(f"{what} should not be there")
            elif rows and not self._equal(rows[0], wanted[place][0]):
                found.append(f"{what} has other values: {_changed(rows[0], wanted[place][0])}")
        if not self.exact:
            return found
        mine_weights = self.weights()
        wanted_weights = other.weights()
        for name, tensor in wanted_weights.items():
            if not torch.equal(mine_weights[name], tensor):
                found.append(f"{name} differs at the last step")
        return found

    def _equal(self, row: dict[str, Any], wanted: dict[str, Any]) -> bool:
        if self.exact:
            return row == wanted
        losses = [key for key in wanted if "loss/" in key]
        return all(
            math.isclose(row.get(key, math.nan), wanted[key], rel_tol=TOLERANCE) for key in losses
        )

    def _by_place(self) -> dict[tuple[int, bool], list[dict[str, Any]]]:
        """The rows by step and kind."""
        places: dict[tuple[int, bool], list[dict[str, Any]]] = {}
        for row in self.rows():
            places.setdefault(place_of(row), []).append(row)
        return places

    # --- afterwards -------------------------------------------------------------------------------

    def keep(self) -> Path:
        """A copy of what is left, beside the run, for a person to look at;
        the run itself may lie on a small disk.
        """
        kept = self.folder.with_name(f"{self.folder.name}-lost")
        shutil.copytree(
            self.folder,
            kept,
            dirs_exist_ok=True,
            symlinks=True,
            ignore=shutil.ignore_patterns("filler"),
        )
        return kept

    def end(self) -> None:
        """No process of the run stays."""
        for start in self._starts:
            if not start.ended:
                kill(start.tree())


def place_of(row: dict[str, Any]) -> tuple[int, bool]:
    """The step of a row, and whether it is one of validation."""
    return int(row["step"]), "loss/generator" not in row


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith(("speed/", "memory/"))}


def _changed(row: dict[str, Any], wanted: dict[str, Any]) -> str:
    keys = [key for key in sorted(row.keys() | wanted.keys()) if row.get(key) != wanted.get(key)]
    return ", ".join(f"{key} {row.get(key)} instead of {wanted.get(key)}" for key in keys[:2])
