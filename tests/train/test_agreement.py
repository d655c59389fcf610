"""What the ranks agree on: nobody waits when it is asked,
and all act after the same step, whoever asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from electra_dist.data.streams import LoaderState
from electra_dist.errors import DataError
from electra_dist.parallel.collectives import barrier, gather_objects
from electra_dist.parallel.world import World
from electra_dist.train.agreement import Agreement, Call, Said
from electra_dist.train.heldout import validation
from electra_dist.train.trainer import Trainer
from tests.support.processes import run_ranks
from tests.support.small import VOCABULARY, make_config, make_engines, make_step

LATE_SECONDS = 0.6


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    """What each of two ranks has seen."""
    return run_ranks(both_ways, 2, scripts=SCRIPTS)


def both_ways(world: Any, scripts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"talk": talk(world), **follow(world, scripts)}


# --- the message ----------------------------------------------------------------------------------


def talk(world: Any) -> dict[str, Any]:
    """Five messages, with other collectives before each is read;
    then one that rank 1 posts late.
    """
    agreement, heard = Agreement(world), []
    for step in range(5):
        own = Call.STOP if (world.rank, step) == (1, 3) else Call.GO_ON
        agreement.post(Said(own, writes=(world.rank, step) == (0, 2)))
        barrier(world)
        assert gather_objects(world.rank, world) == list(range(world.world_size))
        heard.append(list(agreement.read(Said(Call.FAIL))))
    barrier(world)
    if world.rank == 1:
        time.sleep(LATE_SECONDS)
    start = time.monotonic()
    agreement.post(Said(Call.GO_ON))
    posted = time.monotonic()
    agreement.read(Said(Call.GO_ON))
    return {"heard": heard, "posting": posted - start, "reading": time.monotonic() - posted}


def test_all_hear_the_largest_and_nobody_waits_to_ask(ranks: list[dict[str, Any]]) -> None:
    first, other = (rank["talk"] for rank in ranks)
    assert first["heard"] == [[0, False], [0, False], [0, True], [Call.STOP, False], [0, False]]
    assert other["heard"] == first["heard"]
    assert first["posting"] < LATE_SECONDS / 2 < first["reading"]


def test_a_rank_that_is_alone_acts_on_what_it_knows_now() -> None:
    agreement = Agreement(World())
    agreement.post(Said(Call.GO_ON))
    assert agreement.read(Said(Call.STOP)) == Said(Call.STOP)


# --- the loop -------------------------------------------------------------------------------------

STEPS = 8


class ScriptedLoader:
    """Ready steps, but that of `late` comes `seconds` after it is waited for,
    that of `fails` is an error.
    """

    def __init__(
        self, steps: list[Any], late: int | None, seconds: float, fails: int | None
    ) -> None:
        self.state = LoaderState(0, "none", {}, 0)
        self._steps, self._late, self._fails = steps, late, fails
        self._comes, self._seconds = float("inf"), seconds

    def __enter__(self) -> ScriptedLoader:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def is_ready(self) -> bool:
        return self.state.step != self._late or time.monotonic() > self._comes

    def next_unless(self, asked_to_end: Callable[[], bool]) -> Any:
        self._comes = min(self._comes, time.monotonic() + self._seconds)
        while not self.is_ready():
            time.sleep(0.01)
            if asked_to_end():
                return None
        index = self.state.step
        if index == self._fails:
            raise DataError(f"block {index} is damaged")
        self.state = LoaderState(index + 1, "none", {}, index + 1)
        return self._steps[index]


#: Name -> what happens, on rank 1 alone:
#: in which step it is asked to stop, whose data are late or damaged.
SCRIPTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "asked in step 2": {"asked": 2},
    "asked in the last step": {"asked": STEPS - 1},
    "late": {"late": 3, "seconds": 0.3},
    "late, and asked to stop": {"late": 4, "seconds": 1000.0, "asked": 3},
    "damaged": {"fails": 5},
    "damaged after a checkpoint is due": {"fails": 4},
    "the first is damaged": {"fails": 0},
}


def follow(world: Any, scripts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How `Trainer.train_to_end` ends on this rank for each script:
    outcome, steps trained, step saved, state of the data.
    """
    never = (
        "tracking.every=100",
        "tracking.samples_every=0",
        "validation.every=0",
        "checkpoint.every=4",
    )
    config = make_config(f"train.steps={STEPS}", "train.global_rows=4", "zero.stage=0", *never)
    engines = make_engines(config, world)
    data: Any = SimpleNamespace(vocab_size=VOCABULARY, sources=())
    steps = [make_step(config, index, world.rank, world.world_size)[0] for index in range(STEPS)]
    validation.has_validation = lambda data: False
    return {
        name: play(config, engines, data, world, steps, script) for name, script in scripts.items()
    }


def play(
    config: Any, engines: Any, data: Any, world: Any, steps: list[Any], script: dict[str, Any]
) -> list[Any]:
    script = script if world.rank == 1 else {}
    trainer: Any = Trainer(config, data, engines, world, None)
    interruption: Any = SimpleNamespace(requested=None)
    trained: list[int] = []
    saved: list[int] = []
    train = trainer._take_step

    def note(step: Any, state: LoaderState) -> None:
        trained.append(step.index)
        if step.index == script.get("asked"):
            interruption.requested = "SIGTERM"
        train(step, state)

    def save(final: bool = False) -> bool:
        saved.append(trainer.done)
        return True

    loader = ScriptedLoader(
        steps, script.get("late"), script.get("seconds", 0.0), script.get("fails")
    )
    trainer._take_step, trainer.save, trainer._open_loader = note, save, lambda: loader
    try:
        outcome = trainer.train_to_end(interruption).value
    except DataError as error:
        outcome = [str(error), error.everywhere]
    state = trainer.state.loader.step if trainer.state.loader else 0
    return [outcome, trained, saved, state]


@pytest.mark.parametrize(
    ("name", "outcome", "done"),
    [
        ("nothing", "finished", STEPS),
        ("asked in step 2", "interrupted", 4),  # asked before step 3, read after it
        ("asked in the last step", "finished", STEPS),
        ("late", "finished", STEPS),
        ("late, and asked to stop", "interrupted", 4),  # waited for step 4, in vain
    ],
)
def test_all_ranks_stop_after_the_same_step_and_keep_its_state(
    ranks: list[dict[str, Any]], name: str, outcome: str, done: int
) -> None:
    for rank in ranks:
        ended, trained, saved, state = rank[name]
        assert [ended, trained, saved[-1], state] == [outcome, list(range(done)), done, done]


@pytest.mark.parametrize(
    ("name", "failed", "saved"),
    [
        ("damaged", 5, [4]),
        # known before that checkpoint, which is made all the same
        (
            "damaged after a checkpoint is due",
            4,
            [4],
        ),
        ("the first is damaged", 0, []),
    ],
)
def test_the_data_error_of_one_rank_ends_all_before_its_step(
    ranks: list[dict[str, Any]], name: str, failed: int, saved: list[int]
) -> None:
    for rank in ranks:
        assert rank[name] == [
            [f"block {failed} is damaged", True],
            list(range(failed)),
            saved,
            failed,
        ]
