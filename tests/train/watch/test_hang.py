"""When it is a hang and who is to blame, on paper."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from electra_dist.config import WatchdogConfig
from electra_dist.parallel.signs import Doing
from electra_dist.train.watch.hang import (
    Beat,
    Heard,
    Stand,
    collective_timeout,
    find_suspects,
    is_hang,
    limits,
)

NOW = 1000.0
SETTINGS = WatchdogConfig()
BEAT = Beat("step", 7, 20, 40, 0.0, 300.0, 30.0, False, 500, "", 1)
WAITS, BUSY = (
    Stand("in wait, from distributed.py:1", True),
    Stand("in sleep, from trainer.py:2", False),
)
HOSTS = ["n0", "n0", "n1", "n1"]


def heard(age: float, **changes: Any) -> Heard:
    """A rank whose newest sign is `age` seconds old, half of it on the way."""
    return Heard(BEAT._replace(age=age / 2, **changes), NOW - age / 2)


def test_nobody_may_have_moved_for_longer_than_the_hindmost_may_take() -> None:
    assert not is_hang({}, NOW)
    assert not is_hang({0: heard(299), 1: heard(500)}, NOW)
    assert is_hang({0: heard(301), 1: heard(500)}, NOW)


def test_a_rank_that_gives_signs_is_waited_for_whatever_the_others_wait() -> None:
    waiting = {rank: heard(4000) for rank in range(1, 4)}
    assert not is_hang(waiting | {0: heard(5, detail="checking files: 3 of 1300 GB")}, NOW)


def test_the_limit_is_that_of_the_phase_of_the_hindmost() -> None:
    ahead = heard(400, phase="validation", entered=21, limit=3600.0)
    assert is_hang({0: ahead, 1: heard(400)}, NOW)
    behind = heard(400, phase="data", entered=19, limit=600.0)
    assert not is_hang({0: heard(400), 1: behind}, NOW)


def test_a_rank_that_stopped_between_two_beats_gets_no_more_time_than_those_who_wait_for_it() -> (
    None
):
    """Its last word is of the start, which may take half an hour; the others are 20 steps on."""
    start = Heard(BEAT._replace(phase="start", entered=2, limit=1800.0, urgent=1800.0), NOW - 301)
    waiting = Heard(BEAT._replace(age=300.5), NOW - 0.5)
    assert is_hang({0: waiting, 1: start}, NOW)
    # still heard: it is in the start
    assert not is_hang({0: waiting, 1: start._replace(at=NOW - 5)}, NOW)
    first = waiting.beat._replace(limit=1800.0)
    # they are at a first step themselves
    assert not is_hang({0: waiting._replace(beat=first), 1: start}, NOW)
    unheard = start._replace(beat=start.beat._replace(beat=0))
    # behind a firewall: nobody knows what it does
    assert not is_hang({0: waiting, 1: unheard}, NOW)


def test_who_is_asked_to_end_asks_all() -> None:
    assert not is_hang({0: heard(40), 1: heard(40)}, NOW)
    assert is_hang({0: heard(40), 1: heard(40, asked=True)}, NOW)


def blamed(ranks: dict[int, Heard], stands: dict[int, Stand]) -> list[int]:
    return [suspect.rank for suspect in find_suspects(ranks, stands, HOSTS, NOW).suspects]


def test_the_silent_one_is_to_blame_then_who_is_behind_then_who_does_not_wait() -> None:
    equal = {rank: heard(400) for rank in range(4)}
    all_wait = dict.fromkeys(range(4), WAITS)
    assert blamed(equal, dict.fromkeys((0, 1, 3), WAITS)) == [2]
    assert blamed(equal | {3: heard(400, entered=19)}, all_wait) == [3]
    assert blamed(equal | {1: heard(400, collectives=499)}, all_wait) == [1]
    assert blamed(equal, all_wait | {2: BUSY}) == [2]
    assert blamed(equal, all_wait) == []
    assert blamed(equal, dict.fromkeys(range(4), BUSY)) == []


def test_the_sentence_names_rank_host_time_and_place() -> None:
    equal = {rank: heard(400) for rank in range(4)}
    silent = find_suspects(equal, dict.fromkeys((0, 1, 3), WAITS), HOSTS, NOW)
    assert silent.reason == (
        "rank 2 on n1 has shown no sign for 400 s (last seen in phase step, step 7); the other 3"
        " ranks wait for it"
    )
    assert silent.to_json()["hosts"] == ["n1"]
    behind = find_suspects(
        equal | {3: heard(400, entered=19, detail="reading x.tar")},
        dict.fromkeys(range(4), BUSY),
        HOSTS,
        NOW,
    )
    assert behind.reason.startswith(
        "rank 3 on n1 stands still for 400 s in phase step, step 7 (reading x.tar, in sleep"
    )
    nobody = find_suspects(equal, dict.fromkeys(range(4), WAITS), HOSTS, NOW)
    assert "none is behind the others: the network between them, or a device" in nobody.reason
    assert (nobody.suspects, nobody.to_json()["ranks"]) == ((), [])
    alone = find_suspects({0: heard(400)}, {0: WAITS}, ["n0"], NOW)
    assert alone.reason.endswith(")")
    assert "wait" not in alone.reason.replace("in wait", "")


DOING = Doing("step", 5, "", 10, 20, 0.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("doing", "every", "settings", "expected"),
    [
        (DOING, 10, SETTINGS, (300.0, 30.0)),  # 30 times 2 s is less than the least
        (replace(DOING, step_seconds=20.0), 10, SETTINGS, (600.0, 200.0)),
        # a GPU's host waits once in 100 steps
        (
            replace(DOING, step_seconds=20.0),
            100,
            SETTINGS,
            (6000.0, 2000.0),
        ),
        (replace(DOING, step_seconds=None), 10, SETTINGS, (1800.0, 1800.0)),  # may compile
        (DOING, 10, WatchdogConfig(step_seconds=3), (3.0, 3.0)),
        (replace(DOING, step_seconds=None), 10, WatchdogConfig(step_seconds=3), (1800.0, 1800.0)),
        (replace(DOING, phase="data"), 10, SETTINGS, (600.0, 30.0)),
        # a save is let finish
        (
            replace(DOING, phase="checkpoint"),
            10,
            SETTINGS,
            (1800.0, 1800.0),
        ),
        (replace(DOING, phase="meeting", step_seconds=None), 10, SETTINGS, (180.0, 180.0)),
    ],
)
def test_how_long_each_phase_may_take(
    doing: Doing, every: int, settings: WatchdogConfig, expected: tuple[float, float]
) -> None:
    assert limits(doing, settings, every) == expected


def test_torch_gives_up_later_than_the_watchdog() -> None:
    assert collective_timeout(SETTINGS) == timedelta(seconds=7200)
    assert collective_timeout(WatchdogConfig(step_seconds=9000)) == timedelta(seconds=18000)
