"""Saving in the background: the state of the step, whole or absent,
and no reason to lose a run when it fails.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from electra_dist.checkpoint import loading
from electra_dist.checkpoint import saving as saving_module
from electra_dist.checkpoint.saving import Saver
from electra_dist.config import CheckpointConfig
from electra_dist.errors import CheckpointError, StorageError
from electra_dist.parallel.collectives import any_rank, barrier
from electra_dist.parallel.world import World
from electra_dist.runs.checkpoints import list_checkpoints, read_manifest, verify_checkpoint
from electra_dist.runs.checkpoints.memory import saving, start_over
from electra_dist.runs.directory import RunDir
from electra_dist.train.step import train_step
from tests.support.disks import mount, tiny_disk
from tests.support.processes import run_ranks
from tests.support.small import make_config, make_engines, make_step


def train_on(engines: Any, config: Any, world: Any, first: int, last: int) -> None:
    for index in range(first, last):
        step, samples = make_step(config, index, world.rank, world.world_size)
        train_step(engines, step, config, 1.0, samples)


def new_run(folder: Path | str) -> RunDir:
    """A run directory with what a checkpoint carries."""
    run = RunDir(Path(folder))
    run.path.mkdir(parents=True, exist_ok=True)
    run.config.write_text("a: 1\n")
    run.facts.write_text('{"name": "r", "wandb_id": "1", "dataset_fingerprint": "f"}')
    return run


class Gate:
    """Holds back the background threads of this process until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.arrived = threading.Event()
        real = saving_module.write_share

        def write_share(*arguments: Any) -> Any:
            self.arrived.set()
            assert self.open.wait(60)
            return real(*arguments)

        saving_module.write_share = write_share
        self._undo = lambda: setattr(saving_module, "write_share", real)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._undo()


# --- the state of the step ------------------------------------------------------------------------

KINDS = {
    "stage 3": [],
    "stage 0": ["zero.stage=0"],
    "fp16, stage 2 offloaded": [
        "precision.mode=fp16",
        "zero.stage=2",
        "zero.offload_optimizer=true",
    ],
}
KINDS_FULL = {
    "stage 2": ["zero.stage=2", "precision.mode=bf16"],
    "stage 1": ["zero.stage=1", "precision.mode=bf16"],
    "stage 1 in fp32": ["zero.stage=1"],
    "all offloaded": [
        "zero.offload_optimizer=true",
        "zero.offload_parameters=true",
        "precision.mode=bf16",
    ],
    "fp16": ["precision.mode=fp16", "precision.initial_scale_power=10", "precision.scale_window=2"],
}


def save_both_ways(world: Any, folder: str, kinds: dict[str, list[str]]) -> dict[str, Any]:
    """Of each kind: the manifests of one state,
    saved at once and in the background while training goes on.
    """
    found: dict[str, Any] = {}
    for number, (name, overrides) in enumerate(kinds.items()):
        config = make_config(*overrides)
        engines = make_engines(config, world)
        now, later = (new_run(Path(folder) / f"{kind}-{number}") for kind in ("now", "later"))
        train_on(engines, config, world, 0, 3)
        Saver(now, engines, world, CheckpointConfig()).save(3, {"step": 3}, final=True)
        saver = Saver(later, engines, world, CheckpointConfig())
        for first in (3, 5):  # the second time into memory that is there already
            with Gate() as gate:
                saver.save(first, {"step": first})
                train_on(engines, config, world, first, first + 2)
                saver.poll(any_rank(saver.is_writing, world))
                assert gate.arrived.wait(60)
                barrier(world)
                assert first not in later.complete_checkpoints()
            saver.finish()
            barrier(world)
        manifests = [
            read_manifest(run.checkpoint(3)).model_dump(mode="json") for run in (now, later)
        ]
        found[name] = [*manifests, later.complete_checkpoints(), saver.host_bytes]
    return found


@pytest.mark.parametrize(
    "kinds", [KINDS, pytest.param(KINDS_FULL, marks=pytest.mark.full)], ids=["core", "more"]
)
def test_what_is_saved_in_the_background_is_the_state_of_its_step(
    tmp_path: Path, kinds: dict[str, list[str]]
) -> None:
    rank_0, rank_1 = run_ranks(save_both_ways, 2, folder=str(tmp_path), kinds=kinds, timeout=240)
    for name in kinds:
        now, later, steps, bytes_ = rank_0[name]
        assert later == now, name  # SHA-256 of all files, scalars, slices
        assert steps == [3, 5]
        elements = sum(
            part[2]
            for network in now["networks"].values()
            for p in network["parameters"].values()
            for part in p["slices"]
        )
        assert bytes_ + rank_1[name][3] == 12 * elements, "one copy, no more"


# --- the order of things --------------------------------------------------------------------------


def in_flight(world: Any, folder: str) -> dict[str, Any]:
    """One rank writes slowly; another save comes; milestones; what is carried."""
    config, run, seen = make_config(), new_run(folder), {}
    engines = make_engines(config, world)
    saver = Saver(run, engines, world, CheckpointConfig(keep=1, milestones_every=2))
    with Gate() as gate:
        if world.rank == 0:
            gate.open.set()
        saver.save(1, {"step": 1})
        for _ in range(20):
            saver.poll(any_rank(saver.is_writing, world))
        seen["while rank 1 writes"] = run.complete_checkpoints()
        barrier(world)
        gate.open.set()
        while saver._flight is not None:
            saver.poll(any_rank(saver.is_writing, world))
    saver.save(2, {"step": 2}, healthy=True)
    saver.save(3, {"step": 3}, healthy=False, reason="loss 1e9")
    saver.save(4, {"step": 4}, healthy=False, reason="loss 1e9")
    saver.save(5, {"step": 5}, healthy=False, reason="loss 1e9")
    saver.finish()
    barrier(world)
    seen["kept"] = run.complete_checkpoints()
    seen["healthy"] = [facts.healthy for facts in list_checkpoints(run, 2)]
    seen["names"] = sorted(entry.name for entry in run.checkpoints.iterdir())
    seen["carried"] = sorted(set(read_manifest(run.checkpoint(5)).files) - {"trainer.json"})
    seen["stall"] = saver.stall()
    return seen


def test_a_checkpoint_is_published_when_all_ranks_have_written(tmp_path: Path) -> None:
    for seen in run_ranks(in_flight, 2, folder=str(tmp_path)):
        assert seen["while rank 1 writes"] == []
        assert seen["kept"] == [2, 4, 5], (
            "the newest one, the milestones; the newest healthy one is one of them"
        )
        assert seen["healthy"] == [True, False, False]
        assert seen["names"] == [f"step-0000000{step}" for step in (2, 4, 5)]
        assert seen["carried"][0] == "config.yaml"
        assert seen["carried"][-1] == "run.json"
        assert 0 < seen["stall"] < 1


# --- failures -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    with tiny_disk(tmp_path / "disk", "3m") as folder:
        yield folder


def fail_and_go_on(world: Any, folder: str, disk: str) -> dict[str, Any]:
    """A disk that is full beforehand and one that fills while it is written;
    a file that grows too large on rank 1.
    """
    config, run, seen = make_config(), new_run(Path(disk) / "run"), {}
    engines = make_engines(config, world)
    saver = Saver(run, engines, world, CheckpointConfig(every=2))
    saver.save(2, {"step": 2})
    saver.finish()
    if world.is_main:
        free = shutil.disk_usage(disk).free
        (Path(disk) / "others").write_bytes(bytes(free - 100_000))
    barrier(world)
    saver.save(4, {"step": 4})
    saver.finish()
    seen["full"] = _state(run)
    saving_module.check_room = lambda folder, checkpoint_bytes: None
    saver.save(6, {"step": 6})
    saver.finish()
    seen["fills"] = _state(run)
    try:
        saver.save(7, {"step": 7}, final=True)
    except StorageError as error:
        seen["final"] = [str(error), error.everywhere, error.exit_status]
    seen["after the final one"] = _state(run)
    barrier(world)
    if world.is_main:
        (Path(disk) / "others").unlink()
    barrier(world)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if world.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    saver.save(8, {"step": 8})
    saver.finish()
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    barrier(world)
    seen["too large"] = _state(run)
    saver.save(10, {"step": 10})
    saver.finish()
    barrier(world)
    seen["room again"] = _state(run)
    return seen


def _state(run: RunDir) -> list[Any]:
    """What lies there, and what the run remembers."""
    remembered = saving(run)
    assert remembered
    names = sorted(entry.name for entry in run.checkpoints.iterdir())
    return [names, remembered.step, remembered.problem, remembered.failures]


def test_a_disk_that_is_full_costs_a_checkpoint_and_no_more(
    small_disk: Path, tmp_path: Path
) -> None:
    seen = run_ranks(fail_and_go_on, 2, folder=str(tmp_path), disk=str(small_disk))[0]
    only = ["step-00000002"]
    names, step, problem, failures = seen["full"]
    assert (names, step, failures) == (only, 2, 1)
    assert problem.startswith("no space left: ")
    assert "MB needed, 0.1 MB free" in problem
    assert seen["fills"] == [only, 2, "no space left", 2]
    message, everywhere, status = seen["final"]
    assert (
        "the checkpoint of step 7 cannot be written: no space left. The checkpoints before it are"
        " untouched" in message
    )
    assert everywhere
    assert status == 74
    assert seen["after the final one"] == [only, 2, "no space left", 3]
    assert seen["too large"] == [only, 2, "File too large", 4]
    assert seen["room again"] == [[*only, "step-00000010"], 10, None, 0]
    assert verify_checkpoint(RunDir(small_disk / "run"), 2).whole
    assert verify_checkpoint(RunDir(small_disk / "run"), 10).whole


# --- starting -------------------------------------------------------------------------------------


def test_starting_over_keeps_what_is_left_and_never_passes_over_a_whole_one(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    assert loading.find_start(run, World(), 10) is None
    assert saving(run) is not None
    run.checkpoint(10).mkdir(parents=True)
    (run.checkpoint(10) / "COMPLETE").touch()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint: .*`start_over`") as caught:
        loading.find_start(run, World(), 10)
    assert caught.value.everywhere
    assert start_over(run)
    assert loading.find_start(run, World(), 10) is None
    assert [entry.name[:23] for entry in run.checkpoints.iterdir()] == ["step-00000010.set-aside"]


# --- as a user runs it ----------------------------------------------------------------------------

SMALL = """
run: {{name: r}}
data: {{shards: '{shards}', row_length: 64, streams: 4}}
model:
  embedding_size: 32
  generator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  discriminator: {{layers: 2, hidden_size: 32, heads: 2, ffn_size: 64}}
  max_positions: 64
train: {{steps: 8, global_rows: 8, micro_rows: 4}}
optim: {{warmup_steps: 2}}
precision: {{mode: fp32}}
checkpoint: {{every: 2, keep: 9}}
validation: {{rows: 16}}
tracking: {{every: 1, wandb: disabled}}
"""


def train(
    where: Path, shards: Path, *words: str, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    (where / "config.yaml").write_text(SMALL.format(shards=shards))
    ranks = ["train", "config.yaml"]
    if processes > 1:
        ranks = ["launch", "local", "config.yaml", "--processes", str(processes)]
    command = [sys.executable, "-m", "electra_dist.cli", *ranks, *words]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=480)


def test_a_run_on_a_disk_that_fills_ends_with_74_and_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, tiny_shards: Path
) -> None:
    (small_disk / "others").write_bytes(bytes(600_000))
    dir_ = f"run.dir={small_disk}"
    done = train(tmp_path, tiny_shards, dir_, processes=2)
    run = RunDir(small_disk / "r")
    saved = run.complete_checkpoints()
    assert done.returncode == 74, done.stdout + done.stderr
    assert saved
    assert saved[-1] < 6
    output = done.stdout + done.stderr
    assert "warning: " in output
    assert "training goes on and tries again at step" in output
    assert "the checkpoint of step 8 cannot be written: no space left" in output
    assert "Traceback" not in output
    assert [row["step"] for row in run.read_metrics()][
        -1
    ] == 7  # the row of the last step follows its checkpoint
    assert not [name for name in os.listdir(run.checkpoints) if name.startswith(".")]
    (small_disk / "others").unlink()
    mount(small_disk, "remount,size=8m")
    done = train(tmp_path, tiny_shards, dir_, "checkpoint.keep=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.complete_checkpoints()[-1] == 8  # beside it, what the guard may still go back to
    assert all(
        0 <= row["speed/checkpoint_stall"] < 1
        for row in run.read_metrics()
        if "loss/generator" in row
    )


def test_a_run_whose_checkpoints_are_gone_does_not_start_from_the_start(
    tmp_path: Path, tiny_shards: Path
) -> None:
    run, elsewhere = RunDir(tmp_path / "runs/r"), tmp_path / "scratch"
    done = train(tmp_path, tiny_shards, "train.steps=2")
    assert done.returncode == 0, done.stderr
    metrics = run.metrics.read_bytes()
    run.checkpoints.rename(elsewhere)
    done = train(tmp_path, tiny_shards, "train.steps=2", processes=2)
    assert done.returncode == 2
    assert "is not there, but this run has saved step 2" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert run.metrics.read_bytes() == metrics
    done = train(tmp_path, tiny_shards, "train.steps=2", "--start-over")
    assert done.returncode == 0, done.stderr
    assert "rows after step 0 moved to a file beside it" in done.stdout
    assert run.complete_checkpoints() == [2]


def test_an_interruption_lands_what_is_in_flight_first(tmp_path: Path, tiny_shards: Path) -> None:
    """The slow writing of step 2 ends before that of the interruption begins; both are whole."""
    code = """
import os, signal, sys, threading, time
from electra_dist.cli import main as cli
from electra_dist.checkpoint import saving
from electra_dist.train import trainer
real = saving.write_share
def slow(folder, tensors, rank):
    if threading.current_thread() is not threading.main_thread():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    return real(folder, tensors, rank)
saving.write_share = slow
sys.exit(cli.main(["train", "config.yaml", "train.steps=500"]))
"""
    (tmp_path / "config.yaml").write_text(SMALL.format(shards=tiny_shards))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=480
    )
    assert done.returncode == 75, done.stdout + done.stderr
    run = RunDir(tmp_path / "runs/r")
    steps = run.complete_checkpoints()
    assert steps[0] == 2
    assert len(steps) <= 2
    assert json.loads((run.checkpoint(steps[-1]) / "trainer.json").read_text())["step"] == steps[-1]
