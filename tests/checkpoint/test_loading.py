"""A run resumes bit for bit, on any world size and ZeRO stage,
and a checkpoint is whole or absent (DESIGN D6).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from electra_dist.checkpoint import loading, tensors
from electra_dist.config import NETWORKS
from electra_dist.errors import CheckpointError, StorageError
from electra_dist.parallel.collectives import all_reduce_sum
from electra_dist.parallel.world import World
from electra_dist.runs.checkpoints import folders, manifest, members
from electra_dist.runs.directory import RunDir
from electra_dist.train.step import train_step
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import read_scalars
from tests.support.processes import end_ranks, run_ranks
from tests.support.small import (
    full_parameters,
    make_config,
    make_engines,
    make_step,
    save_checkpoint,
)

Losses = list[list[float]]
#: `checkpoint.every` of these runs.
EVERY = 1


def train_on(engines: Engines, config: Any, world: Any, first: int, last: int) -> Losses:
    """Steps first to last - 1; the mean losses of each, as they would be logged."""
    losses = []
    for index in range(first, last):
        step, samples = make_step(config, index, world.rank, world.world_size)
        totals = train_step(engines, step, config, 1 - index / 20, samples)
        sums = [
            totals.sums["generator_loss_sum"],
            totals.sums["masked_count"],
            totals.sums["discriminator_loss_sum"],
            totals.sums["real_count"],
        ]
        generator, masked, discriminator, real = all_reduce_sum(torch.stack(sums).double()).tolist()
        losses.append([generator / masked, discriminator / real])
    return losses


def straight(
    world: Any, folder: str, overrides: list[str], save_at: list[int], last: int
) -> dict[str, Any]:
    """Train from the start to step `last`, saving on the way;
    the losses, and the parameters at the last save.
    """
    config, run, losses = make_config(*overrides), RunDir(Path(folder)), []
    engines = make_engines(config, world)
    for first, stop in zip([0, *save_at], [*save_at, last], strict=True):
        losses += train_on(engines, config, world, first, stop)
        if stop in save_at:
            save_checkpoint(run, stop, engines, {"step": stop, "place": [1, 2]}, world, keep=3)
            parameters = full_parameters(engines)
            if world.is_main:
                torch.save(parameters, run.path / f"full-{stop}.pt")
    return {"losses": losses, "scalars": {name: read_scalars(engine) for name, engine in engines}}


def resumed(world: Any, folder: str, layouts: list[list[str]], last: int) -> list[dict[str, Any]]:
    """For each layout: find the newest checkpoint, load it,
    check that it carries the saved parameters, train on.
    """
    return [resume_once(world, RunDir(Path(folder)), overrides, last) for overrides in layouts]


def resume_once(world: Any, run: RunDir, overrides: list[str], last: int) -> dict[str, Any]:
    config = make_config(*overrides)
    engines = make_engines(config, world)
    first = loading.find_start(run, world, EVERY)
    assert first is not None
    state = loading.load_checkpoint(run, first, engines, world, verified=True)
    assert state == {"step": first, "place": [1, 2]}
    scalars = {name: read_scalars(engine) for name, engine in engines}
    wanted, got = torch.load(run.path / f"full-{first}.pt"), full_parameters(engines)
    exact = all(torch.equal(wanted[key], got[key]) for key in wanted)
    return {
        "losses": train_on(engines, config, world, first, last),
        "exact": exact,
        "scalars": scalars,
    }


def killed(world: Any, folder: str, overrides: list[str], save_at: int, last: int) -> None:
    """Train, save, train on, and die without a word."""
    straight(world, folder, overrides, [save_at], last)
    os.kill(os.getpid(), signal.SIGKILL)


STAGE_3: list[str] = []
#: How a run that was saved by 2 ranks at stage 3 goes on: world size -> overrides.
LAYOUTS: dict[int, list[list[str]]] = {
    1: [["zero.stage=3"], ["zero.stage=0"]],
    2: [["zero.stage=1"], ["zero.generator.stage=2", "zero.persistence_threshold=100000"]],
    4: [["zero.stage=2", "train.micro_rows=1"]],
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Losses]:
    """A run of 2 ranks at stage 3, killed in step 8 after a checkpoint of step 6;
    losses of 12 steps straight.
    """
    folder, other = tmp_path_factory.mktemp("interrupted"), tmp_path_factory.mktemp("straight")
    whole = run_ranks(straight, 2, folder=str(other), overrides=STAGE_3, save_at=[], last=12)[0][
        "losses"
    ]
    ended = end_ranks(killed, 2, folder=str(folder), overrides=STAGE_3, save_at=6, last=8)
    assert [end.code for end in ended] == [-signal.SIGKILL] * 2, ended
    return folder, whole


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    return target


def largest_difference(got: Losses, wanted: Losses) -> float:
    assert len(got) == len(wanted)
    return max(
        abs(a - b) for pair in zip(got, wanted, strict=True) for a, b in zip(*pair, strict=True)
    )


def test_resume_after_a_kill_repeats_every_loss_bit_for_bit(
    interrupted: tuple[Path, Losses],
) -> None:
    folder, whole = interrupted
    for (result,) in run_ranks(resumed, 2, folder=str(folder), layouts=[STAGE_3], last=12):
        assert result["losses"] == whole[6:]
        assert result["exact"]


@pytest.mark.parametrize("world_size", LAYOUTS)
def test_resume_on_another_world_size_and_stage_gives_the_same_losses(
    interrupted: tuple[Path, Losses], world_size: int
) -> None:
    folder, whole = interrupted
    results = run_ranks(
        resumed, world_size, folder=str(folder), layouts=LAYOUTS[world_size], last=12
    )[0]
    for result, overrides in zip(results, LAYOUTS[world_size], strict=True):
        assert result["exact"], overrides
        assert result["scalars"]["generator"]["optimizer_steps"] == 6
        assert largest_difference(result["losses"], whole[6:]) < 1e-5, overrides


#: Saved under the first overrides, resumed under the second,
#: and the largest difference of the next losses.
CHANGES = {
    "stage 1 to 3": (["zero.stage=1"], ["zero.stage=3"], 1e-5),
    "bf16 stage 1 to 3": (["zero.stage=1", "precision.mode=bf16"], ["precision.mode=bf16"], 2e-2),
    "fp16 stage 3 to 2": (["precision.mode=fp16"], ["zero.stage=2", "precision.mode=fp16"], 5e-3),
    "stage 3 to all offloaded": (
        [],
        ["zero.offload_optimizer=true", "zero.offload_parameters=true"],
        1e-5,
    ),
    "fp16 stage 2 offloaded to stage 3": (
        ["zero.stage=2", "precision.mode=fp16", "zero.offload_optimizer=true"],
        ["precision.mode=fp16"],
        5e-3,
    ),
}
CHANGES_FULL = {
    "stage 0 to 2": (["zero.stage=0"], ["zero.stage=2"], 1e-5),
    "stage 2 to 0": (["zero.stage=2"], ["zero.stage=0"], 1e-5),
    "bf16 stage 3 to 1": (["precision.mode=bf16"], ["zero.stage=1", "precision.mode=bf16"], 2e-2),
    "bf16 to fp32": (["precision.mode=bf16"], [], 5e-2),
    "all offloaded to stage 0": (
        ["zero.offload_optimizer=true", "zero.offload_parameters=true"],
        ["zero.stage=0"],
        1e-5,
    ),
    "bf16 stage 1 to offloaded": (
        ["zero.stage=1", "precision.mode=bf16"],
        ["zero.stage=1", "precision.mode=bf16", "zero.offload_optimizer=true"],
        2e-2,
    ),
    "disentangled": (
        ["model.embedding_sharing=disentangled"],
        ["model.embedding_sharing=disentangled"],
        0.0,
    ),
    "step 0": ([], [], 0.0),
}
#: The loss scale doubles in the third step.
SCALE = ["precision.initial_scale_power=10", "precision.scale_window=2"]


def change(world: Any, folder: str, cases: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """For each case: the losses straight on, and what `resume_once` found."""
    found = {}
    for name, (before, after, _) in cases.items():
        run, at = RunDir(Path(folder) / name), 0 if name == "step 0" else 3
        run.path.mkdir(exist_ok=True)
        losses = straight(world, str(run.path), before + SCALE, [at], 6)["losses"]
        found[name] = [losses[at:], resume_once(world, run, after + SCALE, 6)]
    return found


@pytest.mark.parametrize(
    "cases", [CHANGES, pytest.param(CHANGES_FULL, marks=pytest.mark.full)], ids=["core", "more"]
)
def test_any_stage_and_precision_reads_what_any_other_saved(
    tmp_path: Path, cases: dict[str, Any]
) -> None:
    for name, (losses, result) in run_ranks(
        change, 2, folder=str(tmp_path), cases=cases, timeout=240
    )[0].items():
        assert result["exact"], name
        assert largest_difference(result["losses"], losses) <= cases[name][2], name
        if name.startswith("fp16"):
            for network in NETWORKS:
                assert result["scalars"][network]["loss_scale"]["cur_scale"] == 2.0**11
                assert result["scalars"][network]["loss_scale"]["cur_iter"] == 3


def test_export_reads_the_whole_fp32_parameters_without_deepspeed(
    interrupted: tuple[Path, Losses],
) -> None:
    run = RunDir(interrupted[0])
    wanted = torch.load(run.path / "full-6.pt")
    for network in NETWORKS:
        for name, tensor in tensors.read_network(run.checkpoint(6), network).items():
            assert torch.equal(tensor, wanted.pop(f"{network}/{name}")), name
    assert not wanted


def test_files_hold_no_pickle_and_are_named_as_documented(interrupted: tuple[Path, Losses]) -> None:
    folder = RunDir(interrupted[0]).checkpoint(6)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    parts = {f"{network}/rank-{rank:05d}.safetensors" for network in NETWORKS for rank in range(2)}
    assert found == parts | {"trainer.json", "manifest.json", "COMPLETE"}
    assert RunDir(interrupted[0]).complete_checkpoints() == [6]


# --- killed while saving --------------------------------------------------------------------------


def _dies(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at(module: Any, name: str, when: str) -> Callable[[], None]:
    """Patch `module.name` so that the process dies before or after it."""

    def patch() -> None:
        real = getattr(module, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            if when == "after":
                real(*args, **kwargs)
            _dies()

        setattr(module, name, patched)

    return patch


#: Where a save is killed:
#: patch, and the newest whole checkpoint afterwards when steps 2 and 4 were whole before.
KILL_POINTS: dict[str, tuple[Callable[[], None], int, int]] = {
    "before the first file": (_at(tensors, "write_tensors", "before"), 6, 4),
    "after the first network": (_at(tensors, "write_tensors", "after"), 6, 4),
    "before the manifest": (_at(members, "finish", "before"), 6, 4),
    "before the rename": (_at(folders, "publish", "before"), 6, 4),
    "after the rename": (_at(folders, "publish", "after"), 6, 6),
    "between the renames over one of the same step": (_at(members, "sync", "never"), 4, 4),
    "while pruning": (_at(shutil, "rmtree", "before"), 6, 6),
}


def _die_between_renames() -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        moved = real(self, target)
        if str(target).endswith(".replaced"):
            _dies()
        return moved

    Path.rename = rename  # type: ignore[method-assign]


def kill_at_each_point(world: Any, folder: str) -> dict[str, list[Any]]:
    """For each point: how the saving process ended,
    the newest whole step afterwards, and what it holds.
    """
    config, found = make_config("train.micro_rows=4"), {}
    engines = make_engines(config, world)
    fresh = RunDir(Path(folder) / "fresh")
    train_on(engines, config, world, 0, 1)
    for step in (2, 4):
        save_checkpoint(fresh, step, engines, {"step": step}, world, keep=2)
    for name, (patch, step, _) in KILL_POINTS.items():
        run = RunDir(copied(fresh.path, Path(folder) / name))
        child = os.fork()
        if child == 0:
            _die_between_renames() if name.startswith("between") else patch()
            save_checkpoint(run, step, engines, {"step": step}, world, keep=2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        latest = loading.find_start(run, world, EVERY)
        state = loading.load_checkpoint(run, latest or 0, engines, world)
        save_checkpoint(run, 8, engines, {"step": 8}, world, keep=2)
        left = sorted(entry.name for entry in run.checkpoints.iterdir())
        found[name] = [os.WTERMSIG(status), latest, state["step"], left]
    return found


def test_a_kill_at_any_moment_of_saving_leaves_the_last_whole_checkpoint(tmp_path: Path) -> None:
    found = run_ranks(kill_at_each_point, 1, folder=str(tmp_path))[0]
    assert found.keys() == KILL_POINTS.keys()
    for name, (ended, latest, state_step, left) in found.items():
        expected = KILL_POINTS[name][2]
        assert (ended, latest, state_step) == (signal.SIGKILL, expected, expected), name
        assert left == [f"step-{expected:08d}", "step-00000008"], name  # nothing temporary stays


def one_rank_dies_while_saving(world: Any, folder: str) -> None:
    """Rank 1 is killed when its turn to write comes."""
    config, run = make_config(), RunDir(Path(folder))
    engines = make_engines(config, world)
    save_checkpoint(run, 1, engines, {"step": 1}, world, keep=3)
    if world.rank == 1:
        tensors.write_tensors = _dies  # type: ignore[assignment]
    save_checkpoint(run, 2, engines, {"step": 2}, world, keep=3)


def test_when_one_rank_dies_the_others_end_and_publish_nothing(tmp_path: Path) -> None:
    ended = end_ranks(one_rank_dies_while_saving, 2, folder=str(tmp_path), timeout=60)
    assert ended[1].code == -signal.SIGKILL
    assert ended[0].code == 1, "rank 0 neither hangs nor succeeds"
    assert loading.find_start(RunDir(tmp_path), World(), EVERY) == 1


# --- damaged --------------------------------------------------------------------------------------


def _flip_byte(folder: Path) -> None:
    path = folder / "generator" / "rank-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _truncate(folder: Path) -> None:
    path = folder / "discriminator" / "rank-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _edit_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"step": 7}))


#: Kind of damage -> what does it, what the message says.
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped byte": (_flip_byte, "generator/rank-00001.safetensors is damaged"),
    "truncated": (_truncate, "discriminator/rank-00000.safetensors has"),
    "missing file": (
        lambda f: (f / "generator" / "rank-00000.safetensors").unlink(),
        "safetensors is missing",
    ),
    "missing trainer state": (lambda f: (f / "trainer.json").unlink(), "trainer.json is missing"),
    "missing COMPLETE": (lambda f: (f / "COMPLETE").unlink(), "COMPLETE is missing"),
    "missing manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "edited manifest": (_edit_manifest, "manifest.json is damaged"),
    "empty": (lambda f: (shutil.rmtree(f), f.mkdir()), "is missing"),  # type: ignore[func-returns-value]
}


def look_at_damage(world: Any, folder: str) -> dict[str, list[Any]]:
    """For each damaged run:
    the step found, and the error of asking for the damaged one by its number.
    """
    found = {}
    for name in DAMAGES:
        run = RunDir(Path(folder) / name)
        latest = loading.find_start(run, world, EVERY)
        errors = []
        for call in (
            lambda run=run: loading.load_checkpoint(run, 6, None, world),
            lambda run=run: loading.find_start(RunDir(run.path / "only damaged"), world, EVERY),
        ):
            try:
                call()
            except CheckpointError as error:
                errors.append([str(error), error.everywhere])
        found[name] = [latest, *errors]
    return found


@pytest.fixture(scope="module")
def damaged(
    interrupted: tuple[Path, Losses], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, list[Any]]]:
    """What two ranks say of each kind of damage to the newest of two checkpoints,
    and to the only one.
    """
    folder = tmp_path_factory.mktemp("damaged")
    whole = RunDir(interrupted[0]).checkpoint(6)
    for name, (damage, _) in DAMAGES.items():
        run = RunDir(folder / name)
        copied(whole, run.checkpoint(5))
        copied(whole, run.checkpoint(6))
        damage(run.checkpoint(6))
        copied(run.checkpoint(6), RunDir(run.path / "only damaged").checkpoint(6))
    return run_ranks(look_at_damage, 2, folder=str(folder))


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_by_all_ranks_and_passed_over(
    damaged: list[dict[str, list[Any]]], name: str
) -> None:
    for result in damaged:
        latest, by_number, only_one = result[name]
        assert latest == 5
        assert DAMAGES[name][1] in by_number[0]
        assert DAMAGES[name][1] in only_one[0]
        assert "no whole checkpoint" in only_one[0]
        assert by_number[1]
        assert only_one[1]


def test_falling_back_is_said_loudly(
    interrupted: tuple[Path, Losses], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path)
    for step in (5, 6):
        copied(RunDir(interrupted[0]).checkpoint(6), run.checkpoint(step))
    _flip_byte(run.checkpoint(6))
    assert loading.find_start(run, World(), EVERY) == 5
    assert (
        "going back to step 5, because the checkpoint of step 6 is not whole"
        in capsys.readouterr().err
    )
    with pytest.raises(
        CheckpointError, match=r"not whole: generator/rank-00001\.safetensors is damaged"
    ):
        tensors.read_network(run.checkpoint(6), "generator")


def test_a_run_without_checkpoints_starts_from_the_start(tmp_path: Path) -> None:
    assert loading.find_start(RunDir(tmp_path), World(), EVERY) is None


# --- housekeeping ---------------------------------------------------------------------------------


def keep_house(world: Any, folder: str) -> dict[str, Any]:
    """Pruning, saving a step again, going back, and a model of another shape."""
    config, run, seen = make_config("train.micro_rows=4"), RunDir(Path(folder)), {}
    engines = make_engines(config, world)
    for step in (1, 2, 3, 4):
        save_checkpoint(run, step, engines, {"step": step}, world, keep=2)
    seen["kept"] = run.complete_checkpoints()
    save_checkpoint(run, 4, engines, {"step": 4, "again": True}, world, keep=2)
    seen["again"] = loading.load_checkpoint(run, 4, engines, world)
    loading.load_checkpoint(run, 3, engines, world)
    save_checkpoint(run, 4, engines, {"step": 4, "after going back": True}, world, keep=2)
    seen["after going back"] = loading.load_checkpoint(run, 4, engines, world)
    seen["set aside"] = [p.name[:13] for p in run.checkpoints.iterdir() if "set-aside" in p.name]
    other = make_engines(
        make_config("train.micro_rows=4", "model.discriminator.ffn_size=48"), world
    )
    try:
        loading.load_checkpoint(run, 4, other, world)
    except CheckpointError as error:
        seen["other model"] = str(error)
    blocked = RunDir(Path(folder) / "blocked")
    blocked.path.mkdir()
    blocked.checkpoints.write_text("a file where the folder should be")
    try:
        save_checkpoint(blocked, 1, engines, {}, world, keep=2)
    except StorageError as error:
        seen["cannot write"] = str(error)
    return seen


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `keep_house` saw, on one rank."""
    seen: dict[str, Any] = run_ranks(keep_house, 1, folder=str(tmp_path_factory.mktemp("house")))[0]
    return seen


def test_only_the_newest_are_kept(house: dict[str, Any]) -> None:
    assert house["kept"] == [3, 4]


def test_saving_a_step_again_replaces_it(house: dict[str, Any]) -> None:
    assert house["again"] == {"step": 4, "again": True}


def test_going_back_sets_later_checkpoints_aside(house: dict[str, Any]) -> None:
    assert house["set aside"] == ["step-00000004"]
    assert house["after going back"] == {"step": 4, "after going back": True}


def test_a_model_of_another_shape_is_refused_by_name(house: dict[str, Any]) -> None:
    assert (
        "parameter encoder.layers.0.ffn_in.bias of the discriminator is 64 in the checkpoint and 48"
        in (house["other model"])
    )


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(house: dict[str, Any]) -> None:
    assert "the checkpoint of step 1 cannot be written" in house["cannot write"]


def test_slices_that_leave_a_gap_are_never_saved() -> None:
    part = manifest.Slice
    shapes = {"w": (2, 4)}
    whole = [("w", part("b", 5, 3)), ("w", part("a", 0, 5))]
    assert manifest.parameter_entries(shapes, whole)["w"].slices[0].file == "a"
    for slices in (
        [("w", part("a", 0, 5)), ("w", part("b", 6, 2))],
        [("w", part("a", 0, 5)), ("w", part("b", 4, 4))],
    ):
        with pytest.raises(RuntimeError, match="parameter w"):
            manifest.parameter_entries(shapes, slices)
