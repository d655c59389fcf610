"""The guard, against a plain loop that looks at all the past anew in every step;
never an alarm on a sane run.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import Any

import numpy as np
import pytest

from electra_dist.config import GuardConfig
from electra_dist.train.divergence.guard import Guard, Incident, Signal

VOCABULARY = 200
NAN, INF = math.nan, math.inf


def make_guard(**keys: Any) -> Guard:
    return Guard(GuardConfig(**keys), VOCABULARY)


def steps_of(
    losses: list[tuple[float, float]], skipped: set[int] = frozenset(), **more: Any
) -> list[Signal]:  # type: ignore[assignment]
    """One signal a step; every data step is 3 after the step,
    so that the two are never mistaken for each other.
    """
    return [
        Signal(step, step + 3, pair, step in skipped, **more) for step, pair in enumerate(losses)
    ]


def watch(guard: Guard, signals: list[Signal]) -> Incident | None:
    for signal in signals:
        guard.observe(signal)
    return guard.incident


def sane(
    count: int, seed: int = 0, level: float = 2.0, noise: float = 0.05
) -> list[tuple[float, float]]:
    draw = random.Random(seed)
    return [(level + draw.gauss(0, noise), 0.2 + draw.gauss(0, noise / 10)) for _ in range(count)]


# --- what counts ----------------------------------------------------------------------------------


def test_steps_skipped_in_a_row_are_a_divergence_and_single_ones_are_not() -> None:
    signals = steps_of(sane(60), skipped={3, 5, 6, 7, 9, *range(40, 60)})
    incident = watch(make_guard(max_skips=5, margin_steps=2), signals)
    assert incident is not None
    assert (incident.first, incident.last, incident.back_to) == (40, 44, 38)
    assert incident.rows == (41, 48)  # data steps: 3 more each, the last one included
    assert "not finite in 5 steps in a row" in incident.reason


def test_the_search_for_the_loss_scale_counts_for_nothing() -> None:
    guard = make_guard(max_skips=3)
    searching = [s._replace(searching=True) for s in steps_of(sane(16), skipped=set(range(16)))]
    assert watch(guard, searching) is None
    assert not guard.suspicion
    at_the_smallest = [s._replace(step=s.step + 16) for s in steps_of(sane(3), skipped={0, 1, 2})]
    assert watch(guard, at_the_smallest[:2]) is None
    incident = watch(guard, at_the_smallest[2:])
    assert incident is not None
    assert incident.first == 16


@pytest.mark.parametrize(
    "bad", [(NAN, 0.2), (2.0, NAN), (INF, 0.2), (60.0, 0.2), (2.0, 7.0), (3.5, 0.2), (2.0, 0.35)]
)
def test_spikes_in_a_row_are_a_divergence_and_fewer_are_not(bad: tuple[float, float]) -> None:
    losses = sane(100)
    for step in (60, 61, 65, 70, 71, 72, 73):
        losses[step] = bad
    signals = [s._replace(skipped=not all(map(math.isfinite, s.losses))) for s in steps_of(losses)]
    assert watch(make_guard(spike_steps=5), signals) is None
    incident = watch(make_guard(spike_steps=4), signals)
    assert incident is not None
    assert (incident.first, incident.last, incident.back_to) == (70, 73, 69)


def test_a_loss_that_is_not_finite_though_the_step_was_taken_is_a_divergence_at_once() -> None:
    incident = watch(make_guard(), steps_of([*sane(3), (2.0, NAN)]))
    assert incident is not None
    assert incident.rows == (5, 7)
    assert "discriminator's loss was not finite" in incident.reason


def test_the_ceiling_counts_from_the_first_step_on_and_the_median_later() -> None:
    early = [(5.0, 0.6)] * 3 + [(9.0, 0.6)] * 20
    # far above the median, but that is of three steps
    assert watch(make_guard(window=128), steps_of(early)) is None
    wild = [(5.0, 0.6)] * 3 + [(54.0, 0.6)] * 20
    incident = watch(make_guard(window=128), steps_of(wild))
    assert incident is not None
    assert (incident.first, incident.last) == (3, 7)


def test_bad_steps_when_training_ends_are_a_divergence_and_one_alone_is_not() -> None:
    for bad, diverged in ((1, False), (2, True)):
        guard = make_guard()
        watch(guard, steps_of([*sane(60), *[(9.0, 0.2)] * bad]))
        assert guard.incident is None
        assert bool(guard.suspicion) == diverged
        guard.finish()
        assert (guard.incident is not None) == diverged


def test_a_validation_is_judged_by_what_no_loss_can_be() -> None:
    guard = make_guard()
    watch(guard, steps_of(sane(40)))
    guard.hear_validation((4.0, 0.5))  # held-out rows may well be harder
    assert guard.incident is None
    guard.hear_validation((NAN, 0.5))
    assert guard.incident is not None
    assert (guard.incident.first, guard.incident.back_to) == (39, 38)
    assert "held-out rows" in guard.incident.reason


def test_margins_end_at_the_first_step() -> None:
    incident = watch(
        make_guard(margin_steps=8, spike_steps=2),
        steps_of([(2.0, 0.2), (NAN, 0.2), (NAN, 0.2)], {1, 2}),
    )
    assert incident is not None
    assert (incident.back_to, incident.rows) == (0, (3, 6))
    incident = watch(
        make_guard(margin_steps=0, spike_steps=2),
        steps_of([(2.0, 0.2), (NAN, 0.2), (NAN, 0.2)], {1, 2}),
    )
    assert incident is not None
    assert (incident.back_to, incident.rows) == (1, (4, 6))


# --- the same, by brute force ---------------------------------------------------------------------


def first_divergence(signals: list[Signal], keys: GuardConfig) -> tuple[int, int] | None:
    """(first, last) offending step, from the definition,
    everything computed anew from the whole past.
    """

    def is_spike(number: int) -> bool:
        losses = signals[number].losses
        ceilings = [keys.max_loss_factor * math.log(VOCABULARY), keys.max_loss_factor * math.log(2)]
        if any(
            not math.isfinite(loss) or loss > ceiling
            for loss, ceiling in zip(losses, ceilings, strict=True)
        ):
            return True
        past = [signals[k].losses for k in range(number) if not spikes[k]][-keys.window :]
        if len(past) < keys.window // 4:
            return False
        for network in range(2):
            seen = np.array([pair[network] for pair in past])
            middle = float(np.median(seen))
            mad = float(np.median(np.abs(seen - middle)))
            if losses[network] > middle + keys.spike_deviations * max(1.4826 * mad, 0.02 * middle):
                return True
        return False

    spikes: list[bool] = []
    for number, signal in enumerate(signals):
        spikes.append(is_spike(number))
        counted = [s for s in signals[: number + 1] if not (s.skipped and s.searching)]
        skips = 0
        while skips < len(counted) and counted[-1 - skips].skipped:
            skips += 1
        run = next((k for k in range(len(spikes)) if not spikes[-1 - k]), len(spikes))
        lost = not signal.skipped and not all(map(math.isfinite, signal.losses))
        searching = signal.skipped and signal.searching
        if lost or run >= keys.spike_steps or (skips >= keys.max_skips and not searching):
            first = [number]
            first += [number - run + 1] if run else []
            first += [counted[-skips].step] if skips else []
            return min(first), number
    return None


@pytest.mark.parametrize("seed", range(60))
def test_the_guard_says_what_the_definition_says_interrupted_or_not(seed: int) -> None:
    draw = random.Random(seed)
    keys = GuardConfig(
        max_skips=draw.randint(1, 6),
        spike_steps=draw.randint(1, 6),
        window=draw.choice([16, 40]),
        spike_deviations=draw.choice([3.0, 10.0]),
        margin_steps=draw.randint(0, 3),
    )
    losses = sane(160, seed)
    bad = [(NAN, 0.2), (2.0, INF), (70.0, 0.2), (2.4, 0.2), (2.1, 0.25), (2.0, 0.2)]
    signals = []
    for signal in steps_of(losses):
        if draw.random() < 0.15:
            streak = draw.randint(1, 7)
            losses[signal.step : signal.step + streak] = [draw.choice(bad)] * len(
                losses[signal.step :][:streak]
            )
        pair = losses[signal.step]
        skipped = (
            not all(map(math.isfinite, pair)) and draw.random() < 0.98
        ) or draw.random() < 0.2
        signals.append(signal._replace(losses=pair, skipped=skipped, searching=draw.random() < 0.3))
    wanted = first_divergence(signals, keys)
    guard = Guard(keys, VOCABULARY)
    for signal in signals:
        if draw.random() < 0.2:  # a restart
            guard = (
                guard
                if guard.incident
                else Guard(keys, VOCABULARY, json.loads(json.dumps(guard.to_json())))
            )
        clear = guard.clear
        guard.observe(signal)
        if guard.incident:
            assert guard.incident.back_to >= clear  # what retention was promised before
            break
    found = guard.incident and (guard.incident.first, guard.incident.last)
    assert found == wanted
    if guard.incident:
        first, last = guard.incident.first, guard.incident.last
        assert guard.incident.back_to == max(0, first - keys.margin_steps)
        assert guard.incident.rows == (guard.incident.back_to + 3, last + 4)
        assert (
            Incident.from_json(json.loads(json.dumps(guard.incident.to_json()))) == guard.incident
        )


def test_the_deviation_is_that_of_a_normal_distribution() -> None:
    seen = np.random.default_rng(0).normal(5, 0.5, 100_000)
    mad = statistics.median(abs(seen - statistics.median(seen)))
    assert 1.4826 * mad == pytest.approx(0.5, rel=0.02)


# --- never on a sane run --------------------------------------------------------------------------


def warm_up_and_decay(steps: int, noise: float, seed: int) -> list[tuple[float, float]]:
    """From a guess down to what is learnt;
    the discriminator's rises again as its generator learns.
    """
    draw = np.random.default_rng(seed)
    at = np.arange(steps) / steps
    generator = 2.5 + (math.log(VOCABULARY) - 2.5) * np.exp(-12 * at)
    discriminator = 0.18 + 0.51 * np.exp(-40 * at) + 0.06 * at
    factor = np.exp(draw.normal(0, noise, (steps, 2)))
    return list(zip(generator * factor[:, 0], discriminator * factor[:, 1], strict=True))


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1, 0.4])
def test_no_alarm_from_the_first_step_to_the_last(noise: float) -> None:
    for seed in range(3):
        guard = make_guard()
        assert watch(guard, steps_of(warm_up_and_decay(3000, noise, seed))) is None
        guard.finish()
        assert guard.incident is None


def test_no_alarm_when_the_rate_changes_and_the_loss_takes_another_course() -> None:
    losses = [
        *sane(400, level=3.0),
        *[(3.0 + 0.4 * (1 - math.exp(-k / 40)), 0.2) for k in range(300)],
        *sane(300, level=2.2),
    ]
    assert watch(make_guard(), steps_of(losses)) is None


def test_no_alarm_on_heavy_tails() -> None:
    """One row in fifty has a loss of three times the others."""
    draw = np.random.default_rng(1)
    losses = [
        (2.0 * (1 + 2 * (draw.random() < 0.02)) + draw.normal(0, 0.1), 0.2) for _ in range(5000)
    ]
    assert watch(make_guard(), steps_of(losses)) is None
