"""Finding, verifying and loading the checkpoint that a run goes on from, over its ranks (DESIGN
D6).

Every rank reads what it needs under its own world size and ZeRO stage. Verification is shared out
over the ranks, and what one rank finds all ranks raise. `saving.py` writes checkpoints.

Every function that takes a `World` is collective: all ranks call it.
"""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import Any

from electra_dist.checkpoint.tensors import SliceReader, read_trainer_state
from electra_dist.config import Network
from electra_dist.console import warn
from electra_dist.errors import CheckpointError
from electra_dist.files.writing import writing
from electra_dist.parallel import signs
from electra_dist.parallel.collectives import (
    broadcast_object,
    gather_objects,
    on_every_rank,
    together,
)
from electra_dist.parallel.world import World
from electra_dist.runs.checkpoints import memory
from electra_dist.runs.checkpoints.folders import recover, remove
from electra_dist.runs.checkpoints.listing import CheckpointFacts, list_checkpoints
from electra_dist.runs.checkpoints.manifest import CheckpointManifest, read_manifest
from electra_dist.runs.checkpoints.members import file_problems
from electra_dist.runs.directory import RunDir
from electra_dist.zero.engine import Engine
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import (
    local_fragments,
    parameter_shapes,
    refresh_weights,
    write_scalars,
)

# --- finding and verifying ------------------------------------------------------------------------


def verify(run: RunDir, step: int, world: World) -> list[str]:
    """What is wrong with a checkpoint, one sentence each, the same on every rank;
    sizes and checksums of all files.
    """
    folder = run.checkpoint(step)
    problems: list[str] = []
    try:
        manifest = read_manifest(folder)
        names = sorted(manifest.files, key=lambda name: (-manifest.files[name].bytes, name))
        told = partial(_verified, folder)
        problems = file_problems(folder, manifest, names[world.rank :: world.world_size], told)
    except CheckpointError as error:
        problems = [str(error)]
    return list(
        dict.fromkeys(problem for rank in gather_objects(problems, world) for problem in rank)
    )


def _verified(folder: Path, count: int) -> None:
    """`count` bytes more have been read."""
    signs.sign(f"verifying {folder.name}")


def find_start(run: RunDir, world: World, every: int) -> int | None:
    """Step of the checkpoint that a run goes on from; None when it starts at step 0. `every` is
    `checkpoint.every`.

    Raises `CheckpointError` on every rank when the run has saved before and nothing whole is there,
    unless it was told to start over (`checkpoints.memory.start_over`).
    """
    step, damaged = _newest_whole(run, world)
    with together(world), writing(run.checkpoints, "the folder of the checkpoints"):
        if world.is_main:
            if step is None:
                _check_start_from_nothing(run, damaged, every)
            memory.note_start(run, step)
    return step


def _check_start_from_nothing(run: RunDir, damaged: list[str], every: int) -> None:
    memory.check_link(run)
    if damaged:
        raise CheckpointError(_none_is_whole(run, damaged))
    memory.check_nothing_is_lost(run, every)


def _newest_whole(run: RunDir, world: World) -> tuple[int | None, list[str]]:
    """Its step, and what is wrong with the damaged ones; a healthy one comes before all that are
    not.

    Warns about those that it passes over.
    """
    found: list[CheckpointFacts] = []
    with together(world), writing(run.checkpoints, "the folder of the checkpoints"):
        if world.is_main:
            recover(run)
            found = list_checkpoints(run)
    seen = broadcast_object([(one.step, one.healthy is False, one.reason) for one in found], world)
    unhealthy = {
        int(step): f"the checkpoint of step {step} is not healthy ({why})"
        for step, bad, why in seen
        if bad
    }
    damaged: dict[int, str] = {}
    for step in sorted(
        (int(step) for step, _, _ in seen), key=lambda step: (step in unhealthy, -step)
    ):
        problems = verify(run, step, world)
        if not problems:
            passed = [why for other, why in sorted((unhealthy | damaged).items()) if other > step]
            if world.is_main:
                _warn_of_choice(run, step, passed, unhealthy.get(step))
            return step, list(damaged.values())
        damaged[step] = f"the checkpoint of step {step} is not whole ({_some(problems)})"
    return None, list(damaged.values())


def _warn_of_choice(run: RunDir, step: int, passed: list[str], unhealthy: str | None) -> None:
    if passed:
        warn(f"{run.checkpoints}: going back to step {step}, because {'; '.join(passed)}")
    if unhealthy:
        warn(
            f"{run.checkpoints}: no healthy checkpoint is left; going on from step {step} although"
            f" {unhealthy}"
        )


def _none_is_whole(run: RunDir, damaged: list[str]) -> str:
    return (
        f"{run.checkpoints}: no whole checkpoint: {'; '.join(damaged)}. Restore the files and start"
        " again, or add `start_over` to set them aside and train from step 0"
    )


def _some(problems: list[str]) -> str:
    if len(problems) > 3:
        more = f" and {len(problems) - 3} more"
    else:
        more = ""
    return "; ".join(problems[:3]) + more


# --- loading --------------------------------------------------------------------------------------


def load_checkpoint(
    run: RunDir, step: int, engines: Engines, world: World, *, verified: bool = False
) -> dict[str, Any]:
    """Set both engines to the checkpoint of `step`; returns the trainer's state.

    World size, ZeRO stages and precision may differ from those it was saved under. Later
    checkpoints are set aside, because the run goes on from here. Raises `CheckpointError` on every
    rank when it is not whole (`verified` leaves that check out, after `find_start`) or holds other
    parameters than the networks.
    """
    if verified:
        problems = []
    else:
        problems = verify(run, step, world)
    if problems:
        raise on_every_rank(
            CheckpointError(f"{run.checkpoint(step)}: not whole: {_some(problems)}")
        )
    state: dict[str, Any] = {}
    with together(world):
        manifest = read_manifest(run.checkpoint(step))
        for network, engine in engines:
            _check_parameters(run.checkpoint(step), network, engine, manifest)
            _read_network(run.checkpoint(step), network, engine, manifest, world)
        state = read_trainer_state(run.checkpoint(step), manifest)
    for _, engine in engines:
        refresh_weights(engine)
    with together(world), writing(run.checkpoints, "the folder of the checkpoints"):
        if world.is_main:
            _set_aside_later(run, step)
    return state


def _check_parameters(
    folder: Path, network: Network, engine: Engine, manifest: CheckpointManifest
) -> None:
    if network not in manifest.networks:
        raise CheckpointError(f"{folder}: holds no {network}")
    saved = {name: entry.shape for name, entry in manifest.networks[network].parameters.items()}
    wanted = parameter_shapes(engine)
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise CheckpointError(
                f"{folder}: parameter {name} of the {network} is {_describe(saved.get(name))} in"
                f" the checkpoint and {_describe(wanted.get(name))} in the model; resume with the"
                " configuration that the run was started with"
            )


def _describe(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "absent"
    return "x".join(map(str, shape))


def _read_network(
    folder: Path, network: Network, engine: Engine, manifest: CheckpointManifest, world: World
) -> None:
    with SliceReader(folder, manifest, network) as reader:
        for fragment in local_fragments(engine, world.rank):
            stop = fragment.start + fragment.length
            for kind, tensor in fragment.tensors.items():
                tensor.data.copy_(reader.read(fragment.name, kind, fragment.start, stop))
    write_scalars(engine, manifest.networks[network].scalars)


def _set_aside_later(run: RunDir, step: int) -> None:
    for later in list_checkpoints(run):
        if later.step <= step:
            continue
        old = run.checkpoint(later.step)
        what = f"{old}: later than step {step}, which the run goes on from"
        if later.healthy is False:  # its rest of the run is trained again, and nobody wants it
            remove(old)
            warn(f"{what}, and not healthy; removed")
        else:
            new = old.with_name(f"{old.name}.set-aside-{secrets.token_hex(2)}")
            old.rename(new)
            warn(f"{what}; kept as {new.name}")
