"""Runs merged in levels: the same documents, and a cost that grows as the corpus does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.build import levels
from data_tools.build.levels import by_range, merge_levels, plan_level
from data_tools.spill import ALL_KEYS, KeyRange, Spill, SpillWriter, gather, merge
from tests.support.inline import InlineWorkers

TYPE = np.dtype("<u2")


def write_runs(folder: Path, count: int) -> tuple[list[Spill], list[list[int]]]:
    """Runs of random documents, and all documents in the order of their keys."""
    generator = np.random.default_rng(0)
    documents = {}
    runs = []
    folder.mkdir()
    for number in range(count):
        writer = SpillWriter(folder, f"run-{number}", TYPE)
        for _ in range(20):
            key = generator.bytes(16)
            documents[key] = generator.integers(0, 999, generator.integers(1, 9)).astype(np.uint32)
            writer.add(key, documents[key])
        runs += writer.close()
    return runs, [documents[key].tolist() for key in sorted(documents)]


@pytest.mark.parametrize("task_tokens", [10**9, 300])
def test_merged_runs_hold_the_same_documents(tmp_path, monkeypatch, task_tokens):
    monkeypatch.setattr(levels, "FAN_IN", 3)
    monkeypatch.setattr(levels, "TASK_TOKENS", task_tokens)
    monkeypatch.setattr("data_tools.spill.MERGE_TOKENS", 200)
    runs, expected = write_runs(tmp_path / "runs", 20)
    (tmp_path / "merged").mkdir()
    seen: list[tuple[str, int, int]] = []
    merged = merge_levels(
        runs,
        tmp_path / "merged" / "train",
        2,
        InlineWorkers(1),  # type: ignore[arg-type]
        lambda stage, done, total: seen.append((stage, done, total)),
        most=3,
    )
    assert max(len(one.runs) for one in by_range(merged)) <= 3
    for shards in (1, 4, 7):
        found = []
        for number in range(shards):
            documents, _ = gather(merged, KeyRange(number, shards), TYPE, drop_equal_keys=True)
            found += [document.tolist() for document in documents]
        assert found == expected
    assert {stage for stage, *_ in seen} >= {"merge 1", "merge 2"}
    assert not list((tmp_path / "runs").iterdir()), "merged runs give their room back"


@pytest.mark.parametrize("act", ["gather", "merge"])
def test_each_file_is_opened_once(tmp_path, monkeypatch, act):
    monkeypatch.setattr("data_tools.spill.MERGE_TOKENS", 100)
    runs, _ = write_runs(tmp_path / "runs", 6)
    opened: list[str] = []
    counting = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if counting and event == "open" and str(arguments[0]).startswith(str(tmp_path / "runs")):
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    if act == "gather":
        gather(runs, KeyRange(0, 2), TYPE, drop_equal_keys=True)
    else:
        merge(runs, ALL_KEYS, tmp_path / "merged", TYPE)
    counting = False
    assert len(opened) == len(set(opened)) == 2 * len(runs)


def openings(tokens: int) -> int:
    """Files that a build of so many tokens opens: merges, and shards, as they are planned."""
    part = 2**24
    runs = [Spill(Path(f"run-{number}"), 30_000, part) for number in range(tokens // part)]
    count = 2 * len(runs)  # written
    slices = by_range(runs)
    while max(len(one.runs) for one in slices) > levels.FAN_IN:
        merged = []
        for _, tasks in plan_level(slices, Path("merged/train"), 2):
            for task in tasks:
                share = sum(run.tokens * run.keys.count for run in task.spills) // task.keys.count
                count += 2 * len(task.spills) + 2
                merged.append(Spill(task.stem, 30_000, share, task.keys))
        slices = by_range(merged)
    shards = -(-tokens // (65536 * 512))
    ranges = [KeyRange(number, shards) for number in range(0, shards, max(1, shards // 64))]
    final = [run.keys for one in slices for run in one.runs]
    of_a_shard = np.mean([sum(keys.overlaps(one) for keys in final) for one in ranges])
    return int(count + 2 * of_a_shard * shards)


def test_the_files_that_are_opened_grow_no_faster_than_the_corpus():
    """In steps of eight, up to 2.2 T tokens: some 10 TB of text."""
    sizes = [2**power for power in (32, 35, 38, 41)]
    rates = [openings(size) / size for size in sizes]
    assert max(rates) <= 2 * rates[0], "files for a token"
    assert openings(2**38) < 5_000_000, "a terabyte of text; a run for each part took 115 M"
