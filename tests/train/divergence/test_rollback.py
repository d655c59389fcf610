"""A run that diverges goes back, passes over the offending rows, and ends as one that was told to
leave them out.

The poison is a learning rate ten thousand times too large in chosen steps of *data*, so that it is
gone where their rows are skipped.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.errors import EXIT_DIVERGED, UserError
from electra_dist.runs.checkpoints import list_checkpoints
from electra_dist.runs.directory import RunDir
from electra_dist.runs.rollbacks import Rollback
from tests.support.processes import end_ranks, run_ranks

POISON = 13
#: The poisoned update shows in the loss of the step after it,
#: and five such losses are a divergence.
ROWS = [POISON, POISON + 6]

CONFIG = """
run: {{dir: '{runs}', name: r}}
data: {{shards: '{shards}', row_length: 64, streams: 4}}
model:
  embedding_size: 32
  generator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  discriminator: {{layers: 2, hidden_size: 32, heads: 2, ffn_size: 64}}
  max_positions: 64
train: {{steps: 24, global_rows: 8, micro_rows: 2, device: cpu}}
optim: {{lr: 1e-3, warmup_steps: 2}}
zero: {{persistence_threshold: 0}}
precision: {{mode: fp32, initial_scale_power: 8}}
checkpoint: {{every: 4, keep: 2}}
validation: {{every: 12, rows: 16}}
tracking: {{every: 1, wandb: disabled}}
guard: {{window: 16}}
"""


def trained(
    world: None,
    config: str,
    overrides: list[str],
    poison: list[int] = [],  # noqa: B006
    wild_from: int | None = None,
    kill_in: str = "",
    interrupt_at: int | None = None,
) -> dict[str, Any]:
    """One start of `electra-dist train`, as this rank: how it ended."""
    from deepspeed.accelerator import get_accelerator

    from electra_dist.tracking import sinks
    from electra_dist.train import run, trainer
    from electra_dist.train.divergence import rollback

    get_accelerator().is_fp16_supported = lambda: True  # PyTorch computes in it on any CPU
    rate, train = trainer.lr_factor, trainer.Trainer._take_step
    taken = [0]

    def train_marked(self: Any, step: Any, state: Any) -> None:
        taken[0] = state.drawn - 1
        if step.index == interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
        train(self, step, state)

    def wild_rate(step: int, steps: int, optim: Any) -> float:
        wild = taken[0] in poison or (wild_from is not None and step >= wild_from)
        return rate(step, steps, optim) * (1e4 if wild else 1)

    trainer.Trainer._take_step = train_marked  # type: ignore[method-assign]
    trainer.lr_factor = wild_rate
    dies = {"discard": (rollback, "discard"), "cut_back": (sinks.Tracker, "cut_back")}
    if kill_in:
        owner, name = dies[kill_in]
        original = getattr(owner, name)

        def die(*arguments: Any) -> Any:
            if name == "discard" and not arguments[1]:
                return original(*arguments)
            return os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, die)
    try:
        outcome = run.train(configuration.load(Path(config), overrides), dict(os.environ))
    except UserError as error:
        return {"status": error.exit_status, "text": str(error)}
    return {"status": outcome.value}


@pytest.fixture
def place(tmp_path: Path, tiny_shards: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG.format(runs=tmp_path / "runs", shards=tiny_shards))
    return tmp_path


def start(
    place: Path, name: str, *overrides: str, ranks: int = 1, **arguments: Any
) -> dict[str, Any]:
    where = {"config": str(place / "config.yaml"), "overrides": [f"run.name={name}", *overrides]}
    return run_ranks(trained, ranks, meet=False, timeout=400, **where, **arguments)[0]


def run_of(place: Path, name: str) -> RunDir:
    return RunDir(place / "runs" / name)


def rows(place: Path, name: str) -> list[dict[str, Any]]:
    """The logged rows without what depends on the clock."""
    found = run_of(place, name).read_metrics()
    return [
        {key: value for key, value in row.items() if not key.startswith(("speed/", "memory/"))}
        for row in found
    ]


def rollbacks(place: Path, name: str) -> list[Rollback]:
    return list(run_of(place, name).read_facts().rollbacks)


SHARDED = ["zero.stage=3"]
ROLLED_BACK = {
    "stage 3": (2, SHARDED),
    "stage 0": (1, ["zero.stage=0"]),
    "stage 1 in bf16": (2, ["zero.stage=1", "precision.mode=bf16"]),
    "stage 2 in fp16": (
        1,
        ["zero.stage=2", "precision.mode=fp16", "checkpoint.asynchronous=false"],
    ),
}
ROLLED_BACK_FULL = ("stage 0", "stage 1 in bf16")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.full) if case in ROLLED_BACK_FULL else case
        for case in ROLLED_BACK
    ],
)
def test_a_poisoned_run_equals_one_that_was_told_to_skip_the_rows(place: Path, case: str) -> None:
    ranks, overrides = ROLLED_BACK[case]
    assert start(place, "r", *overrides, ranks=ranks, poison=[POISON])["status"] == "finished"
    (back,) = rollbacks(place, "r")
    assert list(back.rows) == ROWS
    assert back.to_step == 12
    told = f"data.skip_steps=[[{back.rows[0]},{back.rows[1]}]]"
    assert (
        start(place, "told", *overrides, told, ranks=ranks, poison=[POISON])["status"] == "finished"
    )
    assert rows(place, "r") == rows(place, "told")
    assert [row["step"] for row in rows(place, "r")] == list(range(25))
    assert rollbacks(place, "told") == []
    checkpoints = list_checkpoints(run_of(place, "r"))
    assert [(one.step, one.healthy, one.whole) for one in checkpoints] == [
        (20, True, True),
        (24, True, True),
    ]
    left = sorted(path.name for path in (place / "runs/r/checkpoints").iterdir())
    assert left == ["step-00000020", "step-00000024"]  # nothing of the course that was left


@pytest.mark.full
@pytest.mark.parametrize("kill_in", ["cut_back", "discard"])
def test_a_kill_right_after_the_record_replays_the_same_on_another_world_size(
    place: Path, kill_in: str
) -> None:
    where = {
        "config": str(place / "config.yaml"),
        "overrides": ["run.name=r", "checkpoint.every=2"],
    }
    (ended,) = end_ranks(
        trained, 1, meet=False, timeout=400, **where, poison=[POISON], kill_in=kill_in
    )
    assert ended.code == -signal.SIGKILL
    assert len(rollbacks(place, "r")) == 1
    assert (
        start(place, "r", "checkpoint.every=2", poison=[POISON], interrupt_at=15)["status"]
        == "interrupted"
    )
    assert len(rollbacks(place, "r")) == 1
    told = "data.skip_steps=[[13,19]]"
    start(place, "told", told, poison=[POISON], interrupt_at=15)
    assert rows(place, "r") == rows(place, "told")
    assert start(place, "r", "checkpoint.every=2", ranks=2, poison=[POISON])["status"] == "finished"
    assert start(place, "told", told, ranks=2, poison=[POISON])["status"] == "finished"
    assert rows(place, "r") == rows(place, "told")


def test_without_a_healthy_checkpoint_it_goes_back_to_the_initial_weights(place: Path) -> None:
    assert start(place, "r", ranks=2, poison=[2])["status"] == "finished"
    (back,) = rollbacks(place, "r")
    assert (back.to_step, back.rows) == (0, (2, 8))
    start(place, "told", "data.skip_steps=[[2,8]]", ranks=2, poison=[2])
    assert rows(place, "r") == rows(place, "told")


def test_a_wild_rate_ends_the_run_and_the_last_healthy_checkpoint_stays(place: Path) -> None:
    """With one checkpoint kept, and many saved:
    the diverged ones push none of the healthy ones out.
    """
    keys = ["train.steps=40", "checkpoint.keep=1", "checkpoint.every=2"]
    ended = start(place, "r", *keys, wild_from=20)
    assert ended["status"] == EXIT_DIVERGED
    for words in (
        "diverged at step 22 after 3 rollbacks",
        "checkpoint of step 20 is kept",
        "--from-step 20",
        "optim.lr",
    ):
        assert words in ended["text"]
    assert len(rollbacks(place, "r")) == 3
    healthy = [
        one.step for one in list_checkpoints(run_of(place, "r")) if one.healthy and one.whole
    ]
    assert healthy[-1] == 20
    # as often as one likes: it ends again, and keeps it again
    again = start(place, "r", *keys, wild_from=20)
    assert again["status"] == EXIT_DIVERGED
    assert len(rollbacks(place, "r")) == 3
    assert start(place, "r", *keys)["status"] == "finished"


def test_weights_that_cannot_be_trained_end_the_run(place: Path) -> None:
    ended = start(place, "r", "model.initializer_range=1e30", "guard.max_rollbacks=1")
    assert ended["status"] == EXIT_DIVERGED
    assert "not finite" in ended["text"]
    assert "run.name" in ended["text"]
    assert list_checkpoints(run_of(place, "r")) == []


def test_a_divergence_just_before_the_end_is_one(place: Path) -> None:
    """The run of 24 steps would be over before five spikes in a row are seen."""
    assert start(place, "r", poison=[20])["status"] == "finished"
    (back,) = rollbacks(place, "r")
    assert back.rows == (20, 24)
    start(place, "told", "data.skip_steps=[[20,24]]", poison=[20])
    assert rows(place, "r") == rows(place, "told")


def test_without_the_guard_nothing_is_rolled_back_and_checkpoints_say_what_they_hold(
    place: Path,
) -> None:
    ended = start(
        place, "r", "guard.enabled=false", "model.initializer_range=1e30", "train.steps=4"
    )
    assert ended["status"] == "finished"
    (one,) = list_checkpoints(run_of(place, "r"))
    assert one.healthy is False
    assert "not finite" in one.reason
