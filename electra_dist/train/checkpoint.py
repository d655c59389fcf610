"""Saving and resuming a run over its ranks: a checkpoint is whole or absent (DESIGN D6).

Saving: rank 0 names a temporary folder, every rank writes the slices that it holds, rank 0 lists all files in the
manifest, writes COMPLETE, and one rename makes it the checkpoint. Loading: every rank reads what it needs under its own
world size and ZeRO stage. Verification is shared out over the ranks, and what one rank finds all ranks raise.

Every function that takes a `World` is collective: all ranks call it.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from electra_dist.config import Network
from electra_dist.errors import CheckpointError
from electra_dist.rundir import RunDir
from electra_dist.train import checkpoint_format as files
from electra_dist.train.checkpoint_format import CheckpointManifest, FileEntry, NetworkEntry, Slice
from electra_dist.train.distributed import World, broadcast_object, gather_objects, on_every_rank, together
from electra_dist.train.engines import Engine, Engines
from electra_dist.train.fragments import (
    local_fragments,
    own_share,
    parameter_shapes,
    read_scalars,
    refresh_weights,
    write_scalars,
)
from electra_dist.train.progress import warn

_STEP = re.compile(r"^step-(\d{8})$")
#: Hidden names: being written, being replaced by a newer one of the same step, being removed.
_PARTIAL, _REPLACED, _REMOVED = ".partial", ".replaced", ".removed"


# --- saving ----------------------------------------------------------------------------------------------------------


def save_checkpoint(
    run: RunDir, step: int, engines: Engines, trainer_state: dict[str, Any], world: World, keep: int
) -> None:
    """Write a whole checkpoint of `step`, then remove all but the `keep` newest.

    `trainer_state` is rank 0's, as JSON. A kill at any moment leaves the last whole checkpoint usable. Raises
    `CheckpointError` on every rank when any of them cannot write.
    """
    name = None
    with together(world), _writing(run):
        if world.is_main:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            recover(run)
            _remove_leftovers(run)
            name = f".{run.checkpoint(step).name}.{secrets.token_hex(4)}{_PARTIAL}"
            (run.checkpoints / name).mkdir()
    folder = run.checkpoints / broadcast_object(name, world)
    written: dict[str, Any] = {}
    with together(world), _writing(run):
        written = {network: _write_network(folder, network, engine, world) for network, engine in engines}
    ranks = gather_objects(written, world)
    with together(world), _writing(run):
        if world.is_main:
            files.finish(folder, _manifest(folder, step, engines, trainer_state, ranks))
            _publish(folder, run.checkpoint(step))
            prune(run, keep)


@contextmanager
def _writing(run: RunDir) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{run.checkpoints}: the checkpoint cannot be written: {error}; the ones before it are untouched. Check the"
            " free space, the quota and the permissions; run.dir must lie where all nodes see it"
        ) from error


def _write_network(folder: Path, network: Network, engine: Engine, world: World) -> dict[str, Any]:
    """Write this rank's file of one network; gives back what the manifest needs of it."""
    fragments = own_share(local_fragments(engine, world.rank), engine, world.rank, world.world_size)
    if not fragments:
        return {}
    name = f"{network}/rank-{world.rank:05d}.safetensors"
    (folder / network).mkdir(exist_ok=True)
    tensors = {f"{kind}/{f.name}": tensor for f in fragments for kind, tensor in f.tensors.items()}
    entry = files.write_tensors(folder / name, tensors)
    return {"file": name, "entry": entry.model_dump(), "slices": [(f.name, f.start, f.length) for f in fragments]}


def _manifest(
    folder: Path, step: int, engines: Engines, trainer_state: dict[str, Any], ranks: list[dict[str, Any]]
) -> CheckpointManifest:
    """Rank 0: write trainer.json and list everything that the ranks wrote."""
    trainer = files.write_text(folder / files.TRAINER, json.dumps(trainer_state))
    entries: dict[str, FileEntry] = {files.TRAINER: trainer}
    networks: dict[Network, NetworkEntry] = {}
    for network, engine in engines:
        parts = [rank[network] for rank in ranks if rank[network]]
        entries |= {part["file"]: FileEntry(**part["entry"]) for part in parts}
        slices = (
            (name, Slice(part["file"], start, length)) for part in parts for name, start, length in part["slices"]
        )
        networks[network] = NetworkEntry(
            scalars=read_scalars(engine), parameters=files.parameter_entries(parameter_shapes(engine), slices)
        )
    return CheckpointManifest(version=files.VERSION, step=step, world_size=len(ranks), files=entries, networks=networks)


def _publish(folder: Path, final: Path) -> None:
    """Give a finished checkpoint its name; one of the same step makes room first (`recover` undoes a half-way kill)."""
    aside = final.with_name(f".{final.name}{_REPLACED}")
    if final.exists():
        final.rename(aside)
    folder.rename(final)
    files.sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def recover(run: RunDir) -> None:
    """Rank 0: bring back a checkpoint whose replacement was killed between its two renames."""
    if run.checkpoints.is_dir():
        for aside in run.checkpoints.glob(f".step-*{_REPLACED}"):
            final = aside.with_name(aside.name.removesuffix(_REPLACED).removeprefix("."))
            if not final.exists():
                aside.rename(final)


def _remove_leftovers(run: RunDir) -> None:
    for suffix in (_PARTIAL, _REPLACED, _REMOVED):
        for leftover in run.checkpoints.glob(f".step-*{suffix}"):
            shutil.rmtree(leftover, ignore_errors=True)


def prune(run: RunDir, keep: int) -> None:
    """Rank 0: remove all but the `keep` newest checkpoints; a kill on the way leaves none half removed."""
    for step in saved_steps(run)[:-keep]:
        doomed = run.checkpoint(step).with_name(f".{run.checkpoint(step).name}{_REMOVED}")
        run.checkpoint(step).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


# --- finding and verifying -------------------------------------------------------------------------------------------


def saved_steps(run: RunDir) -> list[int]:
    """Steps that a checkpoint folder exists of, whole or not, ascending."""
    if not run.checkpoints.is_dir():
        return []
    matches = (_STEP.match(entry.name) for entry in run.checkpoints.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def verify(run: RunDir, step: int, world: World) -> list[str]:
    """What is wrong with a checkpoint, one sentence each, the same on every rank; sizes and checksums of all files."""
    folder = run.checkpoint(step)
    problems: list[str] = []
    try:
        manifest = files.read_manifest(folder)
        names = sorted(manifest.files, key=lambda name: (-manifest.files[name].bytes, name))
        problems = files.file_problems(folder, manifest, names[world.rank :: world.world_size])
    except CheckpointError as error:
        problems = [str(error)]
    return list(dict.fromkeys(problem for rank in gather_objects(problems, world) for problem in rank))


def find_latest(run: RunDir, world: World) -> int | None:
    """Step of the newest whole checkpoint, None when there is none at all.

    Warns loudly about damaged ones that it passes over; raises `CheckpointError` when all of them are damaged.
    """
    with together(world):
        if world.is_main:
            recover(run)
    damaged: list[str] = []
    for step in reversed(broadcast_object(saved_steps(run), world)):
        problems = verify(run, step, world)
        if not problems:
            if damaged and world.is_main:
                warn(f"{run.checkpoints}: going back to step {step}, because {'; '.join(damaged)}")
            return int(step)
        damaged.append(f"the checkpoint of step {step} is not whole ({_some(problems)})")
    if damaged:
        raise on_every_rank(
            CheckpointError(
                f"{run.checkpoints}: no whole checkpoint: {'; '.join(damaged)}. Restore the files, or move the folder"
                " away to train from the start"
            )
        )
    return None


def _some(problems: list[str]) -> str:
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


# --- loading ---------------------------------------------------------------------------------------------------------


def load_checkpoint(
    run: RunDir, step: int, engines: Engines, world: World, *, verified: bool = False
) -> dict[str, Any]:
    """Set both engines to the checkpoint of `step`; returns the trainer's state.

    World size, ZeRO stages and precision may differ from those it was saved under. Later checkpoints are set aside,
    because the run goes on from here. Raises `CheckpointError` on every rank when it is not whole (`verified` leaves
    that check out, after `find_latest`) or holds other parameters than the networks.
    """
    problems = [] if verified else verify(run, step, world)
    if problems:
        raise on_every_rank(CheckpointError(f"{run.checkpoint(step)}: not whole: {_some(problems)}"))
    state: dict[str, Any] = {}
    with together(world):
        manifest = files.read_manifest(run.checkpoint(step))
        for network, engine in engines:
            _check_parameters(run.checkpoint(step), network, engine, manifest)
            _read_network(run.checkpoint(step), network, engine, manifest, world)
        state = files.read_trainer_state(run.checkpoint(step))
    for _, engine in engines:
        refresh_weights(engine)
    with together(world):
        if world.is_main:
            _set_aside_later(run, step)
    return state


def _check_parameters(folder: Path, network: Network, engine: Engine, manifest: CheckpointManifest) -> None:
    saved = {name: entry.shape for name, entry in manifest.networks[network].parameters.items()}
    wanted = parameter_shapes(engine)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise CheckpointError(
                f"{folder}: parameter {name} of the {network} is {_describe(saved.get(name))} in the checkpoint and"
                f" {_describe(wanted.get(name))} in the model; resume with the configuration that the run"
                " was started with"
            )


def _describe(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape))


def _read_network(folder: Path, network: Network, engine: Engine, manifest: CheckpointManifest, world: World) -> None:
    with files.SliceReader(folder, manifest, network) as reader:
        for fragment in local_fragments(engine, world.rank):
            stop = fragment.start + fragment.length
            for kind, tensor in fragment.tensors.items():
                tensor.data.copy_(reader.read(fragment.name, kind, fragment.start, stop))
    write_scalars(engine, manifest.networks[network].scalars)


def _set_aside_later(run: RunDir, step: int) -> None:
    for later in saved_steps(run):
        if later > step:
            old = run.checkpoint(later)
            new = old.with_name(f"{old.name}.set-aside-{secrets.token_hex(2)}")
            old.rename(new)
            warn(f"{old}: later than step {step}, which the run goes on from; kept as {new.name}")
