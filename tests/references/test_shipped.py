"""The references of the package: whole, of the recipes of the package, and right about real runs.

`tests/samples/reference-runs.jsonl` has three more runs of the recipe `quick`, of which one is
right.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from electra_dist.references import Band, Reference, all_references, load_reference
from electra_dist.runs import metrics

METRICS = (
    metrics.GENERATOR_LOSS,
    metrics.DISCRIMINATOR_LOSS,
    metrics.GENERATOR_ACCURACY,
    metrics.ACCURACY,
    metrics.AUC,
    metrics.REPLACED_FRACTION,
)
NAMES = [name for metric in METRICS for name in (metric.name, metric.name_held_out)]
REFERENCES = {reference.name: reference for reference in all_references()}


def test_there_are_three() -> None:
    assert sorted(REFERENCES) == ["deep", "quick", "separate"]


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_of_the_recipe_of_its_name(name: str, repo_root: Path) -> None:
    reference = REFERENCES[name]
    recipe = repo_root / f"configs/reference-{name}.yaml"
    assert reference.recipe == recipe.read_text(encoding="utf-8")
    assert f"reference_curves.py {name} --seeds" in reference.command
    assert len(set(reference.seeds)) >= 3
    assert reference.every == reference.config.tracking.every
    file = repo_root / f"electra_dist/references/curves/{name}.json"
    assert file.stat().st_size < 40_000


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_has_all_curves_to_the_last_step(name: str) -> None:
    reference = REFERENCES[name]
    assert sorted(reference.curves) == sorted(NAMES)
    for curve in reference.curves.values():
        assert len(curve.steps) >= 7
        assert curve.steps[-1] == reference.config.train.steps
        assert len(set(curve.values)) == len(reference.seeds)  # no run is there twice


@pytest.mark.parametrize("name", REFERENCES)
def test_the_tokens_are_those_of_the_steps(name: str) -> None:
    reference = REFERENCES[name]
    config = reference.config
    most = config.train.steps * config.train.global_rows * config.data.row_length
    assert 0.9 * most < reference.real_tokens <= most


def test_all_are_of_one_text() -> None:
    assert len({reference.dataset for reference in REFERENCES.values()}) == 1
    assert len({reference.tokenizer for reference in REFERENCES.values()}) == 1


@pytest.mark.parametrize("name", REFERENCES)
def test_both_networks_learn(name: str) -> None:
    loss = band_of(REFERENCES[name], metrics.GENERATOR_LOSS.name_held_out)
    assert loss.high[-1] < loss.low[0]
    auc = band_of(REFERENCES[name], metrics.AUC.name_held_out)
    assert auc.low[-1] > 0.5
    assert auc.middle[-1] > auc.middle[0]


# --- other runs of one recipe ---------------------------------------------------------------------


def read_runs(samples: Path) -> dict[str, dict[str, dict[int, float]]]:
    """Run -> metric -> step -> value."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    lines = (samples / "reference-runs.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        for name in NAMES:
            if name in row:
                found[row["run"]][name][row["step"]] = row[name]
    return found


def band_of(reference: Reference, metric: str) -> Band:
    band = reference.band(metric)
    assert band is not None
    return band


def part_outside(curve: dict[int, float], metric: str) -> float:
    """Fraction of the values that lie outside the band of `quick`, of those that have limits."""
    band = band_of(load_reference("quick"), metric)
    limited = [step for step in curve if band.at(step) is not None]
    return len(band.outside(curve)) / len(limited)


def test_a_fourth_seed_lies_inside(samples: Path) -> None:
    run = read_runs(samples)["fourth-seed"]
    outside = {name: part_outside(run[name], name) for name in NAMES}
    assert sum(outside.values()) / len(outside) < 0.01
    assert max(outside.values()) < 0.05


def test_a_wrong_learning_rate_lies_outside(samples: Path) -> None:
    """A fifth of the right one: both networks learn too slowly."""
    run = read_runs(samples)["wrong-lr"]
    loss = metrics.GENERATOR_LOSS
    assert part_outside(after(run[loss.name], 200), loss.name) > 0.9
    assert part_outside(after(run[loss.name_held_out], 100), loss.name_held_out) == 1


def test_a_broken_sampler_lies_outside(samples: Path) -> None:
    """At temperature 0.05 it takes nearly always the likeliest token. The generator learns as
    always: what it replaces shows the mistake, and how easily that is found.
    """
    run = read_runs(samples)["broken-sampler"]
    for metric in (metrics.DISCRIMINATOR_LOSS, metrics.AUC, metrics.REPLACED_FRACTION):
        assert part_outside(after(run[metric.name], 20), metric.name) == 1
        assert part_outside(run[metric.name_held_out], metric.name_held_out) == 1
    assert part_outside(run[metrics.GENERATOR_LOSS.name], metrics.GENERATOR_LOSS.name) == 0


def after(curve: dict[int, float], step: int) -> dict[int, float]:
    """The part of a curve behind `step`."""
    return {place: value for place, value in curve.items() if place > step}
