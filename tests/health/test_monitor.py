"""The monitor depends on its rows alone, survives a rule that fails, and sums up a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_dist.health import Finding, Known, Monitor, judge, monitor, still_open, verdict
from electra_dist.health.rule import Look, Rule
from electra_dist.runs.facts import About, RunFacts, Start
from electra_dist.runs.metrics_log import Row
from tests.health.test_rules import FAULTS
from tests.support.rows import drawn_rows, make_config, sample_rows

CONFIG = make_config()
FACTS = RunFacts(
    wandb_id="w",
    dataset_fingerprint="d",
    starts=(Start(1),),
    about=About(unigram_entropy=6.838, promised_tokens_per_s=10_000.0),
)
STALL = Finding("data-stall", "warning", 30, "9% of a step goes to waiting for data", "add workers")
COLLAPSE = Finding("discriminator-collapse", "critical", 40, "AUC 0.500", "lower optim.lr")


@st.composite
def courses(draw: st.DrawFn) -> list[Row]:
    """A run of 2,500 steps with stretches of faults."""
    rows = drawn_rows(0, 2500)
    for _ in range(draw(st.integers(1, 4))):
        fault = FAULTS[draw(st.sampled_from(sorted(FAULTS)))]
        first = draw(st.integers(20, 240))
        for row in rows[first : first + draw(st.integers(1, 60))]:
            row.update(fault)
    return rows


@settings(max_examples=12, deadline=None)
@given(courses(), st.integers(0, 250))
def test_a_new_monitor_that_hears_what_is_kept_goes_on_as_if_there_had_been_no_break(
    rows: list[Row], kept: int
) -> None:
    whole = judge(rows, FACTS, CONFIG)
    began_by_then = [found for found in whole if found.step <= rows[kept]["step"]]
    first = Monitor(Known.of(CONFIG, FACTS))
    assert [found for row in rows[: kept + 1] for found in first.hear(row)] == began_by_then

    again = Monitor(Known.of(CONFIG, FACTS))
    lines = [*rows[: kept + 1], *(found.to_row() for found in began_by_then)]
    assert [found for row in lines for found in again.hear(row)] == began_by_then
    rest = [found for row in rows[kept + 1 :] for found in again.hear(row)]
    assert [*began_by_then, *rest] == list(whole)


def test_findings_of_a_rule_begin_and_end_in_turn() -> None:
    stall = FAULTS["data-stall"]
    rows = drawn_rows(0, 2500)
    for row in rows:
        if row["step"] % 500 < 250:
            row.update(stall)
    states = [found.state for found in judge(rows, FACTS, CONFIG)]
    assert states == ["begins", "ends"] * (len(states) // 2) + ["begins"] * (len(states) % 2)
    assert len(states) >= 9


def test_a_rule_that_fails_is_left_out_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def look(self, row: Row) -> Look | None:
            raise ZeroDivisionError(row["step"])

    broken = Rule("broken", "note", (), "", "", "", "", lambda known: Broken())
    monkeypatch.setattr(monitor, "RULES", (broken, *monitor.RULES))
    watching = Monitor(Known.of(make_config(train__steps=600), None))
    found = [finding for row in sample_rows("collapsed") for finding in watching.hear(row)]
    assert "discriminator-collapse" in {finding.rule for finding in found}
    assert [str(error) for error in watching.faults.values()] == ["0"]


@pytest.mark.parametrize(
    ("findings", "sentence"),
    [
        ((), "healthy"),
        ((STALL, replace(STALL, step=50, state="ends")), "healthy"),
        ((STALL,), "1 warning: data-stall: 9% of a step goes to waiting for data"),
        (
            (STALL, COLLAPSE, replace(STALL, rule="padding")),
            "1 critical, 2 warnings: discriminator-collapse: AUC 0.500; data-stall: 9% of a step"
            " goes to waiting for data; padding: 9% of a step goes to waiting for data",
        ),
    ],
)
def test_one_sentence_says_what_stands_the_worst_first(
    findings: tuple[Finding, ...], sentence: str
) -> None:
    assert verdict(findings) == sentence


def test_a_line_says_what_is_seen_and_what_to_do_or_that_it_is_over() -> None:
    assert STALL.line == (
        "step 30: warning: data-stall: 9% of a step goes to waiting for data. What to do: add"
        " workers"
    )
    over = replace(STALL, step=50, sentence="1% of a step goes to waiting for data", state="ends")
    assert over.line == "step 50: over: data-stall: 1% of a step goes to waiting for data"


def test_what_stands_is_what_began_last() -> None:
    again = replace(STALL, step=70)
    assert still_open([STALL, replace(STALL, step=50, state="ends"), again]) == (again,)
