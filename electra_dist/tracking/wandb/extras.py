"""What W&B gets beside rows: tables of passages, and where checkpoints and data lie.

Comes in: files that training writes, as they appear. Goes out: the same to a session, each once.
One that is damaged or that W&B cannot take is passed over with one warning.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from electra_dist import config as configuration
from electra_dist.errors import DataError
from electra_dist.runs.directory import RunDir
from electra_dist.tracking.wandb.artifacts import Reference, references
from electra_dist.tracking.wandb.ledger import Ledger
from electra_dist.tracking.wandb.samples import TABLE, read_table, sample_files
from electra_dist.tracking.wandb.session import PlaceError, Session
from electra_dist.tracking.wandb.wandb_files import Entry


class Extras:
    """Of one run; `ledger` says what W&B has already."""

    def __init__(self, run: RunDir, ledger: Ledger, warn: Callable[[str], None]) -> None:
        self._run = run
        self._config = configuration.load(run.config)
        self._ledger = ledger
        self._warn = warn
        self._passed_over: set[Path] = set()
        self._referred: set[str] = set()

    def are_due(self, last_step: int) -> bool:
        """Whether anything of the steps up to `last_step` is to be sent."""
        return bool(self._tables(last_step) or self._references())

    def send(self, session: Session, place: str, last_step: int) -> None:
        """Hand over what is due; rows go to `place`."""
        for step, path in self._tables(last_step):
            try:
                rows = read_table(path)
            except DataError as error:
                self._passed_over.add(path)
                self._warn(str(error))
                continue
            self._ledger.add([Entry(step, TABLE, place)])
            session.send_table(step, rows)
        for reference in self._references():
            self._referred.add(reference.key)
            try:
                session.refer(reference)
            except PlaceError as error:
                self._warn(str(error))

    def close(self) -> None:
        """The session ended well: W&B knows the places that it was told."""
        self._ledger.add_artifacts(sorted(self._referred))

    def _tables(self, last_step: int) -> list[tuple[int, Path]]:
        """Those of later steps may be of a course that was left: their rows are not there yet."""
        known = self._ledger.tables
        return [
            (step, path)
            for step, path in sample_files(self._run)
            if step <= last_step and step not in known and path not in self._passed_over
        ]

    def _references(self) -> list[Reference]:
        if self._config.tracking.artifacts == "none":
            return []
        known = self._ledger.artifacts | self._referred
        return list(references(self._run, self._config, self._ledger.run_id, known))
