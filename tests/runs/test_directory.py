"""The facts of a run: changed field by field, never lost, never half written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import KeyChange, RunFacts, Saving, Start, Version, WentBack
from electra_dist.runs.rollbacks import Rollback

CONTENT: dict[str, Any] = {
    "name": "one",
    "wandb_id": "ab12",
    "dataset_fingerprint": "f",
    "starts": [{"time": "t", "world_size": 2, "host": "h", "torch": "2.0", "racks": [1, 2]}],
    "changes": [
        {"time": "t", "step": 30, "key": "optim.lr", "old": 1.0, "new": [{"a": 1}], "who": "me"}
    ],
    "went_back": [{"time": "t", "from": 40, "to": 20, "done": False, "why": "a guess"}],
    "rollbacks": [
        {
            "time": "t",
            "from_step": 9,
            "to_step": 4,
            "rows": [5, 7],
            "reason": "loss",
            "settings": "s",
            "seen_by": 3,
        }
    ],
    "branched_from": {
        "time": "t",
        "run": "/runs/zero",
        "name": "zero",
        "wandb_id": "cd34",
        "step": 2,
        "host": "h",
    },
    "saving": {"step": 4, "time": 1.0, "problem": None, "problem_step": None, "failures": 0},
    "of_a_later_release": {"a": [7]},
}


def entry(number: int, step: int) -> Rollback:
    return Rollback("t", step, number, (0, 1), "loss", "s")


def test_threads_that_change_facts_lose_nothing_of_each_other(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.facts.write_text(json.dumps(CONTENT))

    def add(number: int) -> None:
        for step in range(20):
            rollback = entry(number, step)
            run.update_facts(lambda facts, one=rollback: facts.with_rollback(one))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    facts = json.loads(run.facts.read_text())
    assert facts["of_a_later_release"] == {"a": [7]}
    first, *added = facts["rollbacks"]
    assert first == CONTENT["rollbacks"][0]
    assert sorted((one["to_step"], one["from_step"]) for one in added) == [
        (number, step) for number in range(4) for step in range(20)
    ]


def test_what_is_read_is_written_again_with_the_keys_that_nobody_here_knows(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path)
    run.facts.write_text(json.dumps(CONTENT))
    run.update_facts(lambda facts: facts)
    assert json.loads(run.facts.read_text()) == CONTENT


def test_each_change_makes_new_facts_and_leaves_the_old_ones(tmp_path: Path) -> None:
    facts = RunFacts.from_json(CONTENT)
    start = Start(world_size=4, time="u", host="i", software=(Version("torch", "2.1"),))
    change = KeyChange(step=31, key="train.steps", new=9, old=8, time="u")
    changed = facts.with_start(start, 25).with_return_done().with_changes([change])
    changed = changed.with_saving(Saving(step=8)).with_return(WentBack(30, 10, "u"))
    assert facts == RunFacts.from_json(CONTENT)
    content = changed.to_json()
    assert content["starts"][1] == {"time": "u", "world_size": 4, "host": "i", "torch": "2.1"}
    assert content["starts"][0] == CONTENT["starts"][0]
    assert [one["step"] for one in content["changes"]] == [25, 31]
    assert content["changes"][0]["who"] == "me"
    assert [(one["to"], one["done"]) for one in content["went_back"]] == [(20, True), (10, False)]
    assert content["went_back"][0]["why"] == "a guess"
    assert content["saving"]["step"] == 8
    assert RunFacts.from_json(content) == changed


def test_facts_of_the_first_start_hold_no_empty_parts() -> None:
    facts = RunFacts(wandb_id="ab12", dataset_fingerprint="f", name="one")
    assert facts.to_json() == {
        "starts": [],
        "wandb_id": "ab12",
        "dataset_fingerprint": "f",
        "name": "one",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wandb_id": None}, "wandb_id: "),
        ({"dataset_fingerprint": 7}, "dataset_fingerprint: "),
        ({"starts": [3]}, "starts.0: "),
        ({"starts": [{}]}, "starts.0.world_size: Field required"),
        ({"changes": {"step": 1}}, "changes: "),
        ({"changes": [{"step": 1, "key": "optim.lr"}]}, "changes.0.new: Field required"),
        ({"went_back": [{"from": 1}]}, "went_back.0.to: Field required"),
        ({"rollbacks": [{"rows": [1]}]}, "rollbacks.0."),
        ({"branched_from": {"step": 1}}, "branched_from.name: Field required"),
    ],
)
def test_a_part_that_is_none_is_named_with_the_file(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    run = RunDir(tmp_path)
    run.facts.write_text(json.dumps(CONTENT | changes))
    with pytest.raises(UserError) as raised:
        run.read_facts()
    assert str(raised.value).startswith(f"{run.facts}: cannot be read as the facts of a run: ")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_a_bystander_wrote_makes_nothing_unreadable(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.facts.write_text(json.dumps(CONTENT | {"saving": {"step": "soon"}}))
    assert run.read_facts().saving is None
    run.update_facts(RunFacts.with_return_done)
    assert json.loads(run.facts.read_text())["saving"] == {"step": "soon"}


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\0\0"])
def test_facts_that_are_none_are_one_sentence(tmp_path: Path, content: str) -> None:
    run = RunDir(tmp_path)
    run.facts.write_text(content)
    with pytest.raises(UserError, match="facts of a run"):
        run.read_facts()
    with pytest.raises(UserError, match="facts of a run"):
        run.update_facts(RunFacts.with_return_done)
    assert run.facts.read_text() == content
