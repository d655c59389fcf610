"""Each rule on rows with the fault that it is for, on odd rows alone, and on healthy ones."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, get_args

import pytest

from electra_dist.config import HealthRule
from electra_dist.health import RULES, Finding, Known, Monitor, judge
from electra_dist.references import Band, load_reference
from electra_dist.runs.facts import About, RunFacts, Start
from electra_dist.runs.metrics import HELD_OUT, all_metrics
from tests.support.rows import EVERY, SAMPLES, drawn_row, drawn_rows, make_config, sample_rows

FACTS = RunFacts(
    wandb_id="w",
    dataset_fingerprint="d",
    starts=(Start(1),),
    about=About(unigram_entropy=6.838, promised_tokens_per_s=10_000.0),
)
BAND = Band("loss/generator", (0, 3000), (5.0, 5.0), (6.0, 6.0), (7.0, 7.0))
#: Rule -> what a row with its fault has in place of healthy values.
FAULTS: dict[str, dict[str, Any]] = {
    "discriminator-collapse": {"discriminator/auc": 0.505, "discriminator/recall": 0.0},
    "generator-too-strong": {
        "discriminator/replaced_fraction": 0.05,
        "loss/discriminator": 0.196,
        "generator/accuracy": 0.8,
        "discriminator/auc": 0.56,
    },
    "generator-not-learning": {"loss/generator": 6.84},
    "loss-not-finite": {"loss/generator": None},
    "overflow": {"optim/skipped_steps": 2},
    "update-ratio": {"optim/generator_update_ratio": 0.2},
    "off-reference": {"loss/generator": 4.5},
    "data-stall": {"speed/data_wait_seconds": 0.05},
    "straggler": {"speed/rank_spread": 1.4, "speed/slowest_rank": 3},
    "slowing-down": {"speed/real_tokens_per_s": 6900.0, "speed/step_seconds": 0.4},
    "below-plan": {"speed/real_tokens_per_s": 6900.0, "speed/step_seconds": 0.4},
    "checkpoint-stall": {"speed/checkpoint_stall": 0.2},
    "padding": {"data/padding": 0.3},
}
#: Rules whose fault of one kind is one of another kind too.
ALSO = {"slowing-down": {"below-plan"}, "below-plan": {"slowing-down"}}
#: Begin at the second odd row: nothing is learned from such a row.
AT_ONCE = {"loss-not-finite"}


def known(rule: str) -> Known:
    """With a reference for the rule that needs one."""
    found = Known.of(make_config(), FACTS)
    if rule == "off-reference":
        return replace(found, reference="a-recipe", bands={"loss/generator": BAND})
    return found


def hear(monitor: Monitor, rows: list[dict[str, Any]]) -> list[Finding]:
    found = [finding for row in rows for finding in monitor.hear(row)]
    assert monitor.faults == {}
    return found


def faulty(rule: str, first: int, last: int) -> list[dict[str, Any]]:
    return [row | FAULTS[rule] for row in drawn_rows(first, last)]


def test_healthy_rows_give_no_finding() -> None:
    for rule in FAULTS:
        assert hear(Monitor(known(rule)), drawn_rows(0, 2500)) == []


@pytest.mark.parametrize("rule", FAULTS)
def test_a_fault_begins_one_finding_that_ends_with_it(rule: str) -> None:
    monitor = Monitor(known(rule))
    assert hear(monitor, drawn_rows(0, 800)) == []
    begun = hear(monitor, faulty(rule, 810, 1210))
    assert {finding.rule for finding in begun} - ALSO.get(rule, set()) == {rule}
    assert all(finding.state == "begins" and finding.advice for finding in begun)
    over = hear(monitor, drawn_rows(1220, 1800))
    assert {finding.rule for finding in over} == {finding.rule for finding in begun}
    assert all(finding.state == "ends" for finding in over)


@pytest.mark.parametrize("rule", sorted(set(FAULTS) - AT_ONCE))
def test_two_odd_rows_begin_nothing(rule: str) -> None:
    monitor = Monitor(known(rule))
    rows = drawn_rows(0, 800) + faulty(rule, 810, 820) + drawn_rows(830, 1200)
    assert hear(monitor, rows) == []


@pytest.mark.parametrize("rule", FAULTS)
def test_two_healthy_rows_end_nothing(rule: str) -> None:
    monitor = Monitor(known(rule))
    begun = hear(monitor, drawn_rows(0, 800) + faulty(rule, 810, 1210))
    assert hear(monitor, drawn_rows(1220, 1230) + faulty(rule, 1240, 1400)) == []
    assert begun


@pytest.mark.parametrize(
    ("key", "between"),
    [
        ("discriminator/auc", 0.522),
        ("data/padding", 0.085),
        ("speed/rank_spread", 1.07),
        ("speed/data_wait_seconds", 0.008),
        ("speed/real_tokens_per_s", 7500.0),
    ],
)
def test_a_number_between_both_thresholds_neither_begins_nor_ends(key: str, between: float) -> None:
    rule = next(name for name, fault in FAULTS.items() if key in fault)
    before = drawn_rows(0, 800)
    middle = [row | {key: between} for row in drawn_rows(1220, 1500)]
    assert hear(Monitor(known(rule)), before + middle) == []
    monitor = Monitor(known(rule))
    assert hear(monitor, before + faulty(rule, 810, 1210))
    assert hear(monitor, middle) == []


def test_rows_of_an_earlier_version_and_no_facts_leave_rules_silent() -> None:
    old = [
        {name: value for name, value in row.items() if name in ("step", "loss/generator")}
        for row in drawn_rows(0, 2500)
    ]
    assert judge(old, None, make_config()) == ()
    stalled = [row | {"speed/real_tokens_per_s": 10.0} for row in drawn_rows(0, 2500)]
    assert judge(stalled, None, make_config()) == ()  # nobody promised more, and it never fell


# --- real runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [None, FACTS])
def test_the_quick_start_is_healthy(facts: RunFacts | None) -> None:
    if facts is not None:
        facts = replace(facts, about=About(unigram_entropy=6.838))
    assert judge(sample_rows("healthy"), facts, make_config()) == ()


def test_a_learning_rate_that_is_far_too_high_collapses_the_discriminator() -> None:
    config = make_config(train__steps=600, optim__lr=0.05)
    findings = judge(sample_rows("collapsed"), None, config)
    collapse = findings[0]
    assert collapse.rule == "discriminator-collapse"
    assert collapse.severity == "critical"
    assert 200 <= collapse.step <= 300
    assert "it calls every token original" in collapse.sentence


def test_no_verdict_on_learning_before_the_warm_up_is_long_over() -> None:
    config = make_config(train__steps=20_000, optim__warmup_steps=1000)
    findings = judge(sample_rows("collapsed"), None, config)
    assert {finding.rule for finding in findings} <= {"slowing-down"}


def reference_run(name: str) -> list[dict[str, Any]]:
    """The rows of a real training of the recipe `quick`, or of it with one key changed."""
    lines = (SAMPLES / "reference-runs.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row.pop("run") == name]


def test_another_seed_stays_in_the_band_of_its_reference_and_another_learning_rate_does_not() -> (
    None
):
    reference = load_reference("quick")
    facts = RunFacts(wandb_id="w", dataset_fingerprint=reference.dataset)
    assert judge(reference_run("fourth-seed"), facts, reference.config) == ()
    (finding,) = judge(reference_run("wrong-lr"), facts, reference.config)
    assert finding.rule == "off-reference"
    assert "loss/generator" in finding.sentence
    assert "above" in finding.sentence

    early = replace(Known.of(reference.config, facts), settled=0)
    found = hear(Monitor(early), reference_run("broken-sampler"))
    assert "off-reference" in {finding.rule for finding in found}
    elsewhere = replace(facts, dataset_fingerprint="of another text")
    assert judge(reference_run("wrong-lr"), elsewhere, reference.config) == ()


# --- single rules ---------------------------------------------------------------------------------


def test_a_collapse_to_replaced_and_one_to_chance_are_named() -> None:
    for recall, words in ((1.0, "every token replaced"), (0.4, "its answers are chance")):
        rows = [
            row | {"discriminator/auc": 0.5, "discriminator/recall": recall}
            for row in drawn_rows(0, 400)
        ]
        (finding,) = judge(rows, None, make_config())
        assert words in finding.sentence


def test_a_network_without_a_loss_weight_is_not_judged() -> None:
    rows = [row | FAULTS["discriminator-collapse"] for row in drawn_rows(0, 800)]
    assert judge(rows, None, make_config(train__discriminator_weight=0)) == ()


def test_a_generator_that_outruns_the_discriminator_is_seen_by_the_fall_of_auc() -> None:
    rows = drawn_rows(0, 600)
    for step in range(610, 1500, EVERY):
        away = min(1.0, (step - 610) / 500)
        rows.append(
            drawn_row(step)
            | {
                "discriminator/auc": 0.64 - 0.1 * away,
                "generator/accuracy": 0.18 + 0.1 * away,
                "loss/discriminator": 0.36 + 0.024 * away,
            }
        )
    (finding,) = judge(rows, None, make_config())
    assert finding.rule == "generator-too-strong"


def test_a_generator_that_is_always_right_is_too_strong() -> None:
    nothing = {
        "discriminator/replaced_fraction": 0.0,
        "discriminator/auc": None,
        "discriminator/recall": None,
        "loss/discriminator": 0.001,
    }
    rows = drawn_rows(0, 600) + [row | nothing for row in drawn_rows(610, 900)]
    (finding,) = judge(rows, None, make_config())
    assert finding.rule == "generator-too-strong"
    assert "0% of the masked tokens" in finding.sentence


def test_a_generator_that_stays_where_it_began_is_seen_without_the_entropy_too() -> None:
    rows = [row | {"loss/generator": 7.25} for row in drawn_rows(0, 500)]
    (finding,) = judge(rows, None, make_config())
    assert finding.rule == "generator-not-learning"
    assert "where it began" in finding.sentence


def test_held_out_loss_that_rises_alone_is_overfitting_and_with_training_it_is_not() -> None:
    rows = []
    for row in drawn_rows(0, 2000):
        beyond = max(0, row["step"] - 1000)
        key = "validation/loss/generator"
        if key in row:
            row[key] = row[key] * (1 + beyond / 5000)
        rows.append(row)
    (finding,) = judge(rows, None, make_config())
    assert finding.rule == "overfitting"
    assert finding.step <= 1600

    both = [
        row | {"loss/generator": row["loss/generator"] * (1 + max(0, row["step"] - 1000) / 5000)}
        for row in rows
    ]
    assert "overfitting" not in {found.rule for found in judge(both, None, make_config())}


def test_overflows_of_the_first_steps_are_the_search_for_a_loss_scale() -> None:
    rows = [
        row | {"optim/skipped_steps": 10 if row["step"] <= 100 else 0}
        for row in drawn_rows(0, 1000)
    ]
    assert judge(rows, None, make_config()) == ()


def test_one_overflow_per_scale_window_is_normal() -> None:
    rows = [
        row | {"optim/skipped_steps": int(row["step"] % 1000 == 500)} for row in drawn_rows(0, 2500)
    ]
    assert judge(rows, None, make_config()) == ()


def test_rows_that_are_logged_more_often_than_the_reference_are_averaged_as_it_is() -> None:
    """Each row lies outside by its noise, and the mean of five of them inside."""
    rows = drawn_rows(0, 2000)
    for row in rows:
        row["loss/generator"] = 6.0 + 1.5 * (-1 if row["step"] % 20 else 1)
    often = replace(known("off-reference"), band_every=50, trained=())
    assert hear(Monitor(often), rows) == []
    for row in rows:
        row["loss/generator"] += 1.4
    (finding,) = hear(Monitor(often), rows)
    assert finding.rule == "off-reference"
    assert "above its middle (6.0000); the reference is a-recipe" in finding.sentence


def test_updates_that_die_with_the_learning_rate_are_no_finding_and_dead_ones_are() -> None:
    def rows(scale: float) -> list[dict[str, Any]]:
        return [
            row | {"optim/discriminator_update_ratio": scale * (1 - row["step"] / 2501)}
            for row in drawn_rows(0, 2500)
        ]

    assert judge(rows(2e-3), None, make_config()) == ()
    (finding,) = judge(rows(2e-6), None, make_config())
    assert finding.rule == "update-ratio"
    assert "the discriminator" in finding.sentence


def test_a_rare_checkpoint_that_takes_long_counts_by_its_share_of_the_time() -> None:
    def rows(stall: float) -> list[dict[str, Any]]:
        return [
            row | {"speed/checkpoint_stall": stall if row["step"] % 100 == 0 else 0.0}
            for row in drawn_rows(EVERY, 1000)
        ]

    # 10 rows of 2 s per checkpoint; a stall of half a row's time is 2 s of 22, 9%
    (finding,) = judge(rows(0.5), None, make_config())
    assert finding.rule == "checkpoint-stall"
    assert finding.sentence.startswith("9% of the time")
    assert judge(rows(0.2), None, make_config()) == ()


def test_another_speed_after_a_start_on_other_ranks_is_no_fall() -> None:
    facts = replace(FACTS, starts=(Start(8), Start(2, step=1000)), about=None)
    rows = drawn_rows(0, 1000) + [
        row | {"speed/real_tokens_per_s": row["speed/real_tokens_per_s"] / 4}
        for row in drawn_rows(1010, 2000)
    ]
    assert judge(rows, facts, make_config()) == ()
    alone = replace(facts, starts=(Start(8),))
    assert [found.rule for found in judge(rows, alone, make_config())] == ["slowing-down"]


def test_a_fall_that_lasts_stays_one() -> None:
    rows = drawn_rows(0, 400) + faulty("slowing-down", 410, 2500)
    (finding,) = judge(rows, replace(FACTS, about=None), make_config())
    assert finding.rule == "slowing-down"


# --- the catalog ----------------------------------------------------------------------------------


def test_the_configuration_can_leave_out_each_rule_by_its_name() -> None:
    assert [rule.name for rule in RULES] == list(get_args(HealthRule))
    for rule in RULES:
        config = make_config(tracking__health_ignore=f"[{rule.name}]")
        fault = FAULTS.get(rule.name, {})
        rows = [row | fault for row in drawn_rows(0, 1000)]
        assert rule.name not in {found.rule for found in judge(rows, FACTS, config)}


def test_a_rule_looks_at_metrics_that_there_are_and_says_where_it_comes_from() -> None:
    names = {metric.name for metric in all_metrics()}
    names |= {HELD_OUT + metric.name for metric in all_metrics() if metric.held_out}
    for rule in RULES:
        assert set(rule.needs) <= names
        assert rule.begins
        assert rule.ends
        assert rule.advice
        assert rule.source


def test_every_rule_has_a_fault_here() -> None:
    assert {rule.name for rule in RULES} == {*FAULTS, "overfitting"}


@pytest.mark.parametrize(
    "value", [None, math.nan, math.inf, -1.0, 0, 10**400, "7", True, [1], {"a": 1}]
)
def test_whatever_stands_in_a_row_no_rule_fails(value: object) -> None:
    names = {name for rule in RULES for name in rule.needs}
    rows = [dict.fromkeys(names, value) | {"step": step} for step in range(0, 3000, EVERY)]
    hear(Monitor(known("off-reference")), rows)
    hear(Monitor(known("off-reference")), rows[::-1])
