"""What a run directory holds, and where: one place for every name in it.

    runs/NAME/
        config.yaml      resolved configuration       run.json   ids, versions, dataset fingerprint
        metrics.jsonl    one JSON object per logged step
        mirrored.jsonl   which of its rows W&B has
        process.json     who trains it now, or how the last one ended
        progress.json    what it is doing now        hang.json  which rank hung, when one did
        checkpoints/step-00001000/{generator,discriminator}/ trainer.json manifest.json COMPLETE
        lock/            who writes here (`electra_dist.runs.lock`)
        samples/         a few held-out passages as both networks see them (`heldout.samples`)
        evaluations/     full evaluations during training (`heldout.evaluations`)
        tokenizer/       copy of the tokenizer that the shards were encoded with
        jobs/            generated sbatch scripts      logs/      one per rank and job
        wandb/           files of W&B

Knows no torch: `launch`, `status` and `logs` read it on a login node.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import UserError
from electra_dist.files.reading import read_json
from electra_dist.files.writing import write_json, writing
from electra_dist.runs.facts import RunFacts
from electra_dist.runs.metrics_log import RowReader
from electra_dist.runs.rollbacks import Rollback

_CHECKPOINT = re.compile(r"^step-(\d{8})$")
_changing_facts = threading.Lock()


@dataclass(frozen=True)
class RunDir:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def facts(self) -> Path:
        return self.path / "run.json"

    @property
    def process(self) -> Path:
        return self.path / "process.json"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def hang(self) -> Path:
        return self.path / "hang.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def mirrored(self) -> Path:
        return self.path / "mirrored.jsonl"

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def complete_checkpoints(self) -> list[int]:
        """Steps of the checkpoints that carry COMPLETE, ascending;
        their content is verified when they are loaded.
        """
        if not self.checkpoints.is_dir():
            return []
        matches = ((_CHECKPOINT.match(entry.name), entry) for entry in self.checkpoints.iterdir())
        return sorted(
            int(match[1]) for match, entry in matches if match and (entry / "COMPLETE").is_file()
        )

    def read_facts(self) -> RunFacts:
        """The content of run.json; raises `UserError` when it cannot be read or holds no facts."""
        try:
            content = read_json(self.facts)
            if isinstance(content, dict):
                return RunFacts.from_json(content)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.facts}: cannot be read as the facts of a run: {error}"
            ) from error
        raise UserError(f"{self.facts}: holds no facts of a run, expected a JSON object")

    def write_facts(self, facts: RunFacts) -> None:
        """Write run.json, whole or not at all; raises `StorageError` when it cannot be written."""
        with writing(self.facts, "run.json"):
            write_json(self.facts, facts.to_json())

    def update_facts(self, change: Callable[[RunFacts], RunFacts]) -> RunFacts:
        """Change run.json: read, write what `change` makes of it; returns what was written.

        Only for the process that holds the lock of the run, from any of its threads: each changes
        its own fields and none loses those of another. Raises `UserError` when the file cannot be
        read, `StorageError` when it cannot be written.
        """
        with _changing_facts:
            facts = change(self.read_facts())
            self.write_facts(facts)
        return facts

    def rollbacks(self) -> tuple[Rollback, ...]:
        """Those of run.json, for people; none where it cannot be read."""
        try:
            return self.read_facts().rollbacks
        except UserError:
            return ()

    def read_metrics(self) -> RowReader:
        """The logged rows in order; what is no row is passed over and counted in `broken`."""
        return RowReader(self.metrics)

    @classmethod
    def existing(cls, path: Path | str) -> RunDir:
        """The run directory at `path`; raises `UserError` when there is none."""
        run = cls(Path(path))
        if not run.config.is_file():
            raise UserError(
                f"{path}: not a run directory (no config.yaml in it); give the folder that"
                " `electra-dist train` made, run.dir/run.name"
            )
        return run
