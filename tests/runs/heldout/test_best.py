"""The best validation and the end of patience, against brute force over random courses; retention
keeps the checkpoint that is the best again after any rollback.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from electra_dist.config import Config
from electra_dist.errors import CheckpointError, ConfigError
from electra_dist.runs.checkpoints import list_checkpoints, removable
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout import best
from electra_dist.runs.heldout.best import Course
from tests.support.small import make_config

LOSS = best.choosable_metrics()["loss/generator"]
AUC = best.choosable_metrics()["discriminator/auc"]


def rows_of(
    values: list[float | None], every: int = 10, metric: Any = LOSS
) -> list[dict[str, Any]]:
    """A validation at every tenth step, rows of training between them."""
    found: list[dict[str, Any]] = []
    for number, value in enumerate(values):
        found.append({"step": number * 10, metric.name_held_out: value})
        found.append({"step": number * 10 + 5, metric.name: 1.0})
    return found


def config_of(*overrides: str) -> Config:
    return make_config("train.steps=1000", *overrides)


def _drawn(rng: random.Random) -> list[float | None]:
    """A random course that falls, with equal values and undefined ones in it."""
    return [
        None if rng.random() < 0.1 else round(5.0 - 0.05 * number + rng.choice((0, 0.1, 0.2)), 2)
        for number in range(rng.randint(1, 25))
    ]


@pytest.mark.parametrize("seed", range(60))
def test_best_and_waited_are_those_of_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    values = _drawn(rng)
    metric, sign = rng.choice(((LOSS, 1), (AUC, -1)))
    improvement = rng.choice((0.0, 0.07, 0.3))
    course = Course.of(metric, rows_of([v and sign * v for v in values], metric=metric))
    known = [
        (np.float64(np.float32(value)), number * 10)
        for number, value in enumerate(values)
        if value is not None
    ]
    found = course.best()
    if not known:
        assert found is None
        return
    assert found is not None
    assert (sign * found.value, found.step) == min(known)
    counted = [known[0][0]]  # values that counted as an improvement
    since = 0
    for value, _ in known[1:]:
        since += 1
        if counted[-1] - value > improvement:
            counted.append(value)
            since = 0
    assert course.waited(improvement) == since


def test_a_resume_compares_the_numbers_that_the_file_has() -> None:
    """The trainer adds a row in full precision; a resume reads it rounded to fp32."""
    value = 2.0000000123456
    read = json.loads(json.dumps(float(str(np.float32(value)))))
    for other in (2.0, value, 1.9999999):
        rows = [{"step": 0, LOSS.name_held_out: other}]
        lived = Course.of(LOSS, rows).with_row({"step": 10, LOSS.name_held_out: value})
        resumed = Course.of(LOSS, [*rows, {"step": 10, LOSS.name_held_out: read}])
        assert lived == resumed


def test_a_row_that_was_written_twice_counts_once_and_later_ones_do_not() -> None:
    rows = rows_of([5.0, 4.0, 3.0, 2.0])
    assert Course.of(LOSS, [*rows[:4], *rows[2:]], last_step=20).points == (
        (0, 5.0),
        (10, 4.0),
        (20, 3.0),
    )


def test_patience_ends_the_run_where_it_was_validated() -> None:
    config = config_of("validation.patience=2", "validation.min_improvement=0.1")
    falling = [5.0, 4.0, 3.95, 3.92]
    stop = best.early_stop(config, Course.of(LOSS, rows_of(falling)))
    assert stop is not None
    assert (stop.step, stop.best_step, stop.validations) == (30, 30, 2)
    assert stop.best_value == np.float32(3.92)
    assert best.early_stop(config, Course.of(LOSS, rows_of(falling[:3]))) is None
    assert best.early_stop(config, Course.of(LOSS, rows_of([*falling, 3.5]))) is None
    assert best.early_stop(config_of(), Course.of(LOSS, rows_of(falling))) is None
    last = config_of("train.steps=30", "validation.patience=2")
    assert best.early_stop(last, Course.of(LOSS, rows_of([3.0, 4.0, 4.0, 4.0]))) is None


@pytest.mark.parametrize("key", ["validation.stop_metric", "checkpoint.keep_best"])
@pytest.mark.parametrize("name", ["loss/gen", "optim/lr", "discriminator/replaced_fraction"])
def test_an_unknown_metric_is_named_with_those_that_can_be(key: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        best.check_metrics(config_of(f"{key}={name}"))
    assert str(caught.value).startswith(f"{key} = {name}: ")
    assert "loss/generator, " in str(caught.value)
    assert "discriminator/auc" in str(caught.value)


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "r")


def save(run: RunDir, *steps: int) -> None:
    """Checkpoints that are complete by name."""
    for step in steps:
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "COMPLETE").touch()


@pytest.mark.parametrize("seed", range(40))
def test_after_a_rollback_the_next_best_is_still_there(run: RunDir, seed: int) -> None:
    """Every step is validated, then saved; retention runs after each. Whatever step from `clear` on
    the run goes back to, the best of all that was validated up to there is saved.
    """
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    clear = 0
    for step in range(10, 160, 10):
        save(run, step)
        clear = rng.randint(clear, step)
        course = Course.of(LOSS, rows)  # the validation comes after the save
        for gone in removable(run, 1, clear=clear, best=course):
            (run.checkpoint(gone) / "COMPLETE").unlink()
            run.checkpoint(gone).rmdir()
        rows.append({"step": step, LOSS.name_held_out: round(rng.uniform(1, 3), 1)})
        saved = run.complete_checkpoints()
        for target in range(-(-clear // 10) * 10, step + 1, 10):
            expected = Course.of(LOSS, rows, target).best()
            assert expected is None or expected.step in saved
    assert len(saved) < 15


def test_without_a_guard_only_the_best_stays(run: RunDir) -> None:
    save(run, 10, 20, 30, 40, 50)
    course = Course.of(LOSS, rows_of([9.0, 3.0, 2.0, 4.0, 5.0]))
    assert removable(run, 1, best=course) == [10, 30, 40]
    assert removable(run, 1) == [10, 20, 30, 40]


def write_run(run: RunDir, *overrides: str, values: list[float | None]) -> None:
    from electra_dist.config import resolved_yaml

    run.path.mkdir(parents=True, exist_ok=True)
    run.config.write_text(resolved_yaml(config_of(*overrides)))
    rows = rows_of(values)
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_best_of_those_that_are_saved_is_the_best(run: RunDir) -> None:
    write_run(run, values=[9.0, 3.0, 2.0, 4.0, 5.0])
    with pytest.raises(CheckpointError, match=r"checkpoint\.keep_best=true"):
        best.best_step(run)
    save(run, 15, 30, 40)
    assert best.best_step(run) == 30
    save(run, 20)
    assert best.best_step(run) == 20
    marked = [
        facts.step for facts in list_checkpoints(run, best=best.best_of_list(run)) if facts.best
    ]
    assert marked == [20]


def test_a_run_has_stopped_early_only_where_its_newest_checkpoint_is(run: RunDir) -> None:
    overrides = ("validation.patience=2",)
    write_run(run, *overrides, values=[2.0, 3.0, 3.0])
    config = config_of(*overrides)
    assert best.recorded_early_stop(run, config, None) is None
    assert best.recorded_early_stop(run, config, 10) is None
    found = best.recorded_early_stop(run, config, 20)
    assert found is not None
    assert found.sentence == (
        "stopped early at step 20: validation/loss/generator has not improved in 2 validations;"
        " best 2 at step 0"
    )
    # saved at step 23: trained on since
    assert best.recorded_early_stop(run, config, 23) is None
    assert best.recorded_early_stop(run, config_of("validation.patience=3"), 20) is None
