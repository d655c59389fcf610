"""What checkpoints a run has, for people: step, age, size, health,
and whether each is whole or why not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra_dist.errors import CheckpointError
from electra_dist.runs.checkpoints.folders import is_milestone, newest_healthy, saved_steps
from electra_dist.runs.checkpoints.manifest import COMPLETE, CheckpointManifest, read_manifest
from electra_dist.runs.checkpoints.members import file_problems
from electra_dist.runs.directory import RunDir

#: Called with bytes read and all bytes.
BytesTold = Callable[[int, int], None]
_SET_ASIDE = re.compile(r"^step-\d{8}\.set-aside-\w+$")


@dataclass(frozen=True)
class CheckpointFacts:
    """One checkpoint.

    saved       Unix time; None where COMPLETE is missing
    bytes       of its files
    healthy     None where nobody judged it, or where the manifest cannot be read
    best        of the best validation (`electra_dist.runs.heldout.best`)
    problems    why it is not whole; empty where it is
    verified    checksums were compared, not only sizes
    """

    step: int
    path: str
    saved: float | None
    bytes: int
    world_size: int | None
    healthy: bool | None
    reason: str
    milestone: bool
    best: bool
    problems: tuple[str, ...]
    verified: bool

    @property
    def whole(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"whole": self.whole}


@dataclass(frozen=True)
class SetAside:
    """A checkpoint that a run went back behind: no retention counts or removes it."""

    path: str
    bytes: int


def list_checkpoints(
    run: RunDir, milestones_every: int | None = None, best: int | None = None
) -> list[CheckpointFacts]:
    """All checkpoints of a run, ascending, that of step `best` marked;
    names and sizes of their files compared with the manifests.
    """
    return [_facts(run, step, milestones_every, best, None) for step in saved_steps(run)]


def verify_checkpoint(
    run: RunDir,
    step: int,
    milestones_every: int | None = None,
    told: BytesTold | None = None,
    best: int | None = None,
) -> CheckpointFacts:
    """One checkpoint, the checksums of all its files compared;
    raises `CheckpointError` where there is none of it.
    """
    steps = saved_steps(run)
    if step not in steps:
        if steps:
            there = f"has checkpoints of steps {', '.join(map(str, steps))}"
        else:
            there = "has no checkpoint"
        raise CheckpointError(f"`step` {step}: {run.path} {there}")
    return _facts(run, step, milestones_every, best, told or (lambda done, total: None))


@dataclass(frozen=True)
class Health:
    """Of the checkpoints of a run: why the newest is not healthy, None where it is;
    the newest one that is.
    """

    unhealthy: str | None
    last_healthy: int | None


def health(run: RunDir) -> Health:
    """Which checkpoint to trust, from the manifests alone."""
    steps = run.complete_checkpoints()
    healthy = newest_healthy(run, steps)
    if not steps or healthy == steps[-1]:
        return Health(None, healthy)
    try:
        reason = read_manifest(run.checkpoint(steps[-1])).reason
    except CheckpointError:
        return Health(None, healthy)  # it is damaged, which is another matter
    return Health(reason, healthy)


def set_aside(run: RunDir) -> list[SetAside]:
    """The checkpoints that were set aside, by name."""
    if not run.checkpoints.is_dir():
        return []
    found = sorted(entry for entry in run.checkpoints.iterdir() if _SET_ASIDE.match(entry.name))
    return [SetAside(str(entry), _bytes_on_disk(entry)) for entry in found]


def _facts(
    run: RunDir,
    step: int,
    milestones_every: int | None,
    best: int | None,
    told: BytesTold | None,
) -> CheckpointFacts:
    folder = run.checkpoint(step)
    manifest: CheckpointManifest | None = None
    try:
        manifest = read_manifest(folder)
        problems = _problems(folder, manifest, told)
    except CheckpointError as error:
        problems = [str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")]
    try:
        saved = (folder / COMPLETE).lstat().st_mtime
    except OSError:
        saved = None
    return CheckpointFacts(
        step=step,
        path=str(folder),
        saved=saved,
        bytes=manifest.bytes if manifest else _bytes_on_disk(folder),
        world_size=manifest.world_size if manifest else None,
        healthy=manifest.healthy if manifest else None,
        reason=manifest.reason if manifest else "",
        milestone=is_milestone(step, milestones_every),
        best=step == best,
        problems=tuple(problems),
        verified=told is not None,
    )


def _problems(folder: Path, manifest: CheckpointManifest, told: BytesTold | None) -> list[str]:
    names = sorted(manifest.files)
    if told is None:
        return file_problems(folder, manifest, names, None)
    done = 0
    total = manifest.bytes

    def count(read: int) -> None:
        nonlocal done
        done += read
        told(done, total)

    return file_problems(folder, manifest, names, count)


def _bytes_on_disk(folder: Path) -> int:
    """Of the regular files in a folder, links not followed."""
    found = 0
    for path in folder.rglob("*"):
        try:
            if path.is_symlink() or not path.is_file():
                found += 0
            else:
                found += path.stat().st_size
        except OSError:
            continue
    return found
