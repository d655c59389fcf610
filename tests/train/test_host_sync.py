"""No step makes the host wait for the device by our own code; DeepSpeed's own waits are the
documented ones.

On a machine with a GPU the same tests watch CUDA itself (`observer.waits`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from electra_dist.data.streams import LoaderState
from electra_dist.model import head
from electra_dist.model.networks import build_networks
from electra_dist.parallel.group import close_group, open_group
from electra_dist.parallel.world import World
from electra_dist.train.agreement import Ahead, Call
from electra_dist.train.faults import Interruption
from electra_dist.train.step import train_step
from electra_dist.train.trainer import Trainer
from electra_dist.train.window import Window
from electra_dist.zero.engines import build_engines
from tests.support.observer import Place, waits
from tests.support.processes import run_ranks
from tests.support.small import VOCABULARY, make_config, make_engines, make_step

WARM_UP = 2


def documented(repo_root: Path) -> set[tuple[str, str]]:
    """(file, function) of DeepSpeed's own waits in docs/step.md."""
    text = (repo_root / "docs" / "step.md").read_text()
    return set(re.findall(r"^\| `(\w+\.py)` \| `(\w+)` \|", text, re.MULTILINE))


def waits_of_steps(world: World, overrides: list[str]) -> set[Place]:
    """What three steps after the warm-up wait for, adding to the window included."""
    config = make_config(*overrides, f"train.device={world.device.type}")
    if world.device.type == "cpu":
        engines = make_engines(config, world)
    else:
        engines = build_engines(config, *build_networks(config, VOCABULARY, world.device, 7), world)
    window = Window(world.device)
    steps = [
        make_step(config, index, world.rank, world.world_size)[0] for index in range(WARM_UP + 3)
    ]
    for step in steps[:WARM_UP]:
        train_step(engines, step, config, 1.0)
    with waits() as places:
        for step in steps[WARM_UP:]:
            window.add(train_step(engines, step, config, 1.0), step.micro_batches)
    return places


CASES = [
    ["zero.stage=3"],
    ["zero.stage=2", "precision.mode=bf16"],
    ["zero.stage=1", "precision.mode=bf16"],
    ["zero.stage=3", "precision.mode=fp16", "precision.initial_scale_power=8"],
    ["zero.stage=1", "model.embedding_sharing=disentangled", "train.activation_checkpointing=true"],
    ["zero.stage=0"],
]
#: A plain optimizer skips a step only when the host knows that it must;
#: at stage 0 DeepSpeed does not look.
AT_STAGE_0 = Place("electra_dist", "clipping.py", "_skip_unless")


class _Steps:
    """A loader of ready steps, in place of one that reads shards."""

    def __init__(self, steps: list[Any]) -> None:
        self.steps = iter(steps)
        self.state = LoaderState(0, "none", {}, 0)

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_ready(self) -> bool:
        return True

    def next_unless(self, asked_to_end: Callable[[], bool]) -> Any:
        step = next(self.steps)
        self.state = LoaderState(step.index + 1, "none", {}, step.index + 1)
        return step


def waits_of_the_loop(world: Any) -> list[Place]:
    """Of the trainer's own loop, the guard's ears included, nothing logged;
    the ranks agree as if on a device that is not there.
    """
    config = make_config(
        "train.steps=100", "tracking.every=100", "validation.every=0", "checkpoint.every=100"
    )
    engines = make_engines(config, world)
    data: Any = SimpleNamespace(vocab_size=VOCABULARY, sources=())
    trainer = Trainer(config, data, engines, world, None)
    assert trainer.health.guard is not None
    trainer.world = replace(world, device=torch.device("cuda", 0))
    for part in (trainer.health, trainer._logbook, trainer._checkpoints, trainer._validation):
        part._world = trainer.world
    steps = [
        make_step(config, index, world.rank, world.world_size)[0] for index in range(WARM_UP + 4)
    ]
    loader: Any = _Steps(steps)

    def take(count: int) -> None:
        for _ in range(count):
            assert trainer._before_step(Call.GO_ON, ahead, interruption) is Call.GO_ON
            trainer._take_step(*trainer._ask(ahead, interruption))
            assert trainer._after_step(ahead, interruption) is Call.GO_ON

    interruption = Interruption()
    ahead = Ahead(loader, 100)
    ahead.look()
    take(WARM_UP)
    with waits() as places:
        take(3)
    # all but the last step, which is read a step late
    assert len(trainer.health.guard.to_json()["losses"]) == WARM_UP + 3 - 1
    return sorted(places)


def watched(world: Any, cases: list[list[str]]) -> list[list[Place]]:
    """The waits of every case, and of the loop, where the head does as on a GPU."""
    head.may_wait = lambda device: False
    return [
        *(sorted(waits_of_steps(world, overrides)) for overrides in cases),
        waits_of_the_loop(world),
    ]


@pytest.fixture(scope="module")
def places() -> list[set[Place]]:
    """The waits of two ranks on CPU: of every case, and of the loop."""
    ranks = run_ranks(watched, 2, cases=CASES, timeout=240)
    return [
        {Place(*place) for rank in ranks for place in rank[number]}
        for number in range(len(CASES) + 1)
    ]


def test_our_own_code_waits_for_nothing_in_a_step(places: list[set[Place]]) -> None:
    for overrides, found in zip(CASES, places[:-1], strict=True):
        ours = {place for place in found if place.package == "electra_dist"}
        assert ours == ({AT_STAGE_0} if overrides == ["zero.stage=0"] else set()), overrides


def test_deepspeeds_own_waits_are_the_documented_ones(
    places: list[set[Place]], repo_root: Path
) -> None:
    theirs = {
        (place.file, place.function)
        for found in places
        for place in found
        if place.package == "deepspeed"
    }
    assert theirs  # there are some: the observer sees them
    assert theirs <= documented(repo_root)


def test_the_loop_waits_for_nothing_between_logged_steps_but_what_was_asked_a_step_before(
    places: list[set[Place]],
) -> None:
    """What is read there lies on the host: the loop ran with a device that does not exist."""
    ours = {place for place in places[-1] if place.package == "electra_dist"}
    assert ours == {Place("electra_dist", "agreement.py", "wait")}


def test_the_observer_sees_what_waits() -> None:
    """Else the tests above would prove nothing."""
    window = Window(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with waits() as places:
        _ = window.norms
    assert places == {Place("electra_dist", "window.py", "norms")}


@pytest.fixture
def one_gpu() -> Iterator[World]:
    """A group of one process on the first GPU."""
    world = World(device=torch.device("cuda", 0))
    open_group(world)
    yield world
    close_group()


@pytest.mark.gpu
def test_our_own_code_waits_for_nothing_in_a_step_on_a_gpu(one_gpu: World, repo_root: Path) -> None:
    for stage in (1, 2, 3):
        for compiled in ("false", "true"):
            found = waits_of_steps(
                one_gpu, [f"zero.stage={stage}", "precision.mode=bf16", f"train.compile={compiled}"]
            )
            assert not {place for place in found if place.package == "electra_dist"}
            theirs = {
                (place.file, place.function) for place in found if place.package == "deepspeed"
            }
            assert theirs <= documented(repo_root)
