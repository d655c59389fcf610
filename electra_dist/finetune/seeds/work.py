"""The hidden folder next to `out` that a killed fine-tuning goes on from.

    .OUT.work/
        asked.json                what the command was asked; it goes on with nothing else
        seed-1/
            checkpoint-50/        of `transformers.Trainer`; valid once seed.json is in it
                seed.json         the scores up to here
            best.safetensors      weights of the best epoch, where these are kept
            metrics.jsonl         rows of the curves
            kept.safetensors      weights of a finished seed
            done.json             what came of it; the seed is not repeated

What is read back is JSON, safetensors, or read by `torch.load` with `weights_only`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files.checksums import sha256_of
from electra_dist.files.reading import open_regular, read_json
from electra_dist.files.writing import write_json
from electra_dist.finetune.predictor import Scores

_ASKED = "asked.json"
_STATE = "seed.json"
_DONE = "done.json"


@dataclass
class History:
    """What a seed has come to so far.

    scores   held-out scores, one entry per epoch
    epochs   after which part of the training they were taken
    best     which entry has the best score; None where there is none
    seconds  of training
    ended    it was enough before all epochs were over
    """

    scores: list[Scores] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    best: int | None = None
    seconds: float = 0.0
    ended: bool = False

    def kept(self, keep: str) -> int | None:
        """The entry of the weights that are kept, the `best` or the `last`; None without scores."""
        if not self.scores:
            return None
        if keep == "best" and self.best is not None:
            return self.best
        return len(self.scores) - 1

    def since_best(self) -> int:
        """Entries after the best one."""
        if self.best is None:
            return len(self.scores)
        return len(self.scores) - 1 - self.best


class SeedFolder:
    """Of one seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.kept = path / "kept.safetensors"
        self.metrics = path / "metrics.jsonl"

    def finished(self) -> History | None:
        """What came of the seed, where it has ended."""
        return _history(self.path / _DONE)

    def last(self) -> tuple[Path, History] | None:
        """The newest checkpoint that is whole, with what came before it."""
        found = []
        for path in self.path.glob("checkpoint-*"):
            history = _history(path / _STATE)
            number = path.name.rpartition("-")[2]
            if history is not None and number.isdecimal():
                found.append((int(number), path, history))
        if not found:
            return None
        _, path, history = max(found, key=lambda one: one[0])
        return path, history

    def mark(self, step: int, history: History) -> None:
        """Make the checkpoint of `step` valid, and take the older ones away."""
        newest = self.path / f"checkpoint-{step}"
        write_json(newest / _STATE, asdict(history))
        for path in self.path.glob("checkpoint-*"):
            if path != newest:
                shutil.rmtree(path, ignore_errors=True)

    def finish(self, history: History) -> None:
        """Note the end of the seed, whose weights are in `kept`; only they stay."""
        write_json(self.path / _DONE, asdict(history))
        for path in self.path.glob("checkpoint-*"):
            shutil.rmtree(path, ignore_errors=True)


class Work:
    """The hidden folder of one fine-tuning."""

    def __init__(self, out: Path) -> None:
        out = out.resolve()
        self.path = out.with_name(f".{out.name}.work")
        self.wandb = self.path / "wandb"  # of W&B, where the user wants it

    def begin(self, asked: dict[str, Any], restart: bool) -> bool:
        """Begin in the empty folder, or go on with what is in it; whether it goes on.

        Raises `UserError` where the one that is there was asked something else.
        """
        if restart:
            for entry in (*self.path.glob("seed-*"), self.wandb):
                shutil.rmtree(entry, ignore_errors=True)
            (self.path / _ASKED).unlink(missing_ok=True)
        if not (self.path / _ASKED).is_file():
            write_json(self.path / _ASKED, asked)
            return False
        before = read_json(self.path / _ASKED)
        if not isinstance(before, dict):
            raise UserError(f"{self.path / _ASKED}: is damaged; give `restart` to begin anew")
        differences = [
            f"`{name}` was {before.get(name)}, now {asked.get(name)}"
            for name in {**before, **asked}
            if before.get(name) != asked.get(name)
        ]
        if differences:
            raise UserError(
                f"{self.path}: holds an unfinished fine-tuning with other settings:"
                f" {'; '.join(differences)}. Repeat the command as it was, or give `restart` to"
                " begin anew"
            )
        return True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No other command of this machine works in the folder meanwhile; raises `UserError`."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(
                f"{self.path}: another command is fine-tuning into the same folder; wait for its"
                " end, or give another `out`"
            ) from error
        try:
            yield
        finally:
            os.close(descriptor)

    def seed(self, seed: int) -> SeedFolder:
        """The folder of one seed, made where it is not there."""
        path = self.path / f"seed-{seed}"
        path.mkdir(exist_ok=True)
        return SeedFolder(path)

    def leads_on(self) -> bool:
        """Whether there is anything that a later command can go on from."""
        folders = [SeedFolder(path) for path in self.path.glob("seed-*")]
        return any(one.finished() or one.last() for one in folders)

    def remove(self) -> None:
        """All that is in it, and it."""
        shutil.rmtree(self.path, ignore_errors=True)


def fingerprint(path: Path) -> str:
    """Of what is in a file, or in the files of a folder (not of folders in it); raises `UserError`
    where it cannot be read.
    """
    paths = [path]
    if path.is_dir():
        paths = sorted(one for one in path.iterdir() if one.is_file())
    whole = hashlib.sha256()
    for one in paths:
        try:
            with open_regular(one, follow=True) as file:
                whole.update(f"{sha256_of(file.fileno())} {one.name}\n".encode())
        except OSError as error:
            raise UserError(f"{one}: cannot be read: {error.strerror}") from error
    return f"sha256 {whole.hexdigest()[:16]}"


def _history(path: Path) -> History | None:
    """What stands in the file; None where there is none. Raises `UserError` where it is damaged."""
    if not path.is_file():
        return None
    try:
        return History(**read_json(path))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: is damaged; give `restart` to begin anew") from error
