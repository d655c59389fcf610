"""Rank 0's part of a save: what is no weight, the manifest, and the folder's name.

Comes in: what rank 0 knows when `Saver.save` is called, and the files that all ranks have written.
Goes out: a whole checkpoint under its name, and old ones removed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from electra_dist.checkpoint.slices import Entries
from electra_dist.config import CheckpointConfig, Network
from electra_dist.console import warn
from electra_dist.errors import UserError
from electra_dist.files.reading import read_bounded
from electra_dist.files.writing import reason as reason_of
from electra_dist.runs import lock
from electra_dist.runs.checkpoints import folders, manifest, members, memory
from electra_dist.runs.checkpoints.manifest import CheckpointManifest, FileEntry, NetworkEntry
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.best import Course
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import read_scalars


@dataclass(frozen=True)
class Content:
    """Rank 0's part, as it is when `save` is called."""

    state: str = ""
    carried: dict[str, str] = field(default_factory=dict)
    scalars: dict[Network, dict[str, Any]] = field(default_factory=dict)
    healthy: bool | None = None
    reason: str = ""
    clear: int | None = None
    best: Course | None = None


class Publisher:
    """Makes checkpoints of written files; on rank 0 only."""

    def __init__(self, run: RunDir, world_size: int, settings: CheckpointConfig) -> None:
        self._run = run
        self._world_size = world_size
        self._settings = settings
        self._carried: dict[str, str] = {}

    def content(
        self,
        engines: Engines,
        state: dict[str, Any],
        healthy: bool | None,
        reason: str,
        clear: int | None,
        best: Course | None,
    ) -> Content:
        """What the manifest needs beside the files, as it is now; the arguments are those of
        `Saver.save`.
        """
        for name in manifest.CARRIED:
            try:
                self._carried[name] = read_bounded(
                    self._run.path / name, manifest.SMALL_FILE_LIMIT
                ).decode()
            except (OSError, UserError, UnicodeDecodeError):
                continue  # what was carried last time goes with this one too
        scalars = {network: read_scalars(engine) for network, engine in engines}
        return Content(
            json.dumps(state), dict(self._carried), scalars, healthy, reason, clear, best
        )

    def publish(
        self,
        step: int,
        folder: Path,
        content: Content,
        written: dict[str, FileEntry],
        parameters: Entries,
    ) -> None:
        """Write what belongs to all ranks, give the folder its name, remove what is too old."""
        texts = {manifest.TRAINER: content.state} | content.carried
        own = {name: members.write_text(folder / name, text) for name, text in texts.items()}
        networks = {
            network: NetworkEntry(scalars=content.scalars[network], parameters=entries)
            for network, entries in parameters.items()
        }
        members.finish(
            folder,
            CheckpointManifest(
                version=manifest.VERSION,
                step=step,
                world_size=self._world_size,
                healthy=content.healthy,
                reason=content.reason,
                files=own | written,
                networks=networks,
            ),
        )
        lock.check(self._run, fresh=True)
        folders.publish(folder, self._run.checkpoint(step))
        memory.note_saved(self._run, step)
        try:
            folders.prune(
                self._run,
                self._settings.keep,
                self._settings.milestones_every,
                content.clear,
                content.best,
            )
        except OSError as error:
            warn(f"{self._run.checkpoints}: old checkpoints cannot be removed: {reason_of(error)}")
