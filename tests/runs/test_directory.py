"""The facts of a run: changed field by field, never lost, never half written."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir, RunFacts


def test_threads_that_change_facts_lose_nothing_of_each_other(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.facts.write_text('{"name": "one", "of_a_later_release": 7}')

    def add_one(number: int, step: int) -> None:
        run.update_facts(
            lambda facts: facts.setdefault("rollbacks", []).append({"by": number, "step": step})
        )

    def add(number: int) -> None:
        for step in range(20):
            add_one(number, step)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    facts = json.loads(run.facts.read_text())
    assert facts["of_a_later_release"] == 7
    assert sorted((entry["by"], entry["step"]) for entry in facts["rollbacks"]) == [
        (number, step) for number in range(4) for step in range(20)
    ]


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "\0\0"])
def test_facts_that_are_none_are_one_sentence(tmp_path: Path, content: str) -> None:
    run = RunDir(tmp_path)
    run.facts.write_text(content)
    with pytest.raises(UserError, match="facts of a run"):
        run.read_facts()
    with pytest.raises(UserError, match="facts of a run"):
        run.update_facts(RunFacts.clear)
    assert run.facts.read_text() == content
