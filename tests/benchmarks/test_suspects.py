"""The benchmark of suspects in the smallest size, and the cases that it plants."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.pairs import write_pair

SENTENCES = """ = Title =
 The committee received a separate letter from the <unk> ministry of the interior in that year .
 The committee received a separate letter from the second ministry , and it answered @-@ at once .
"""
DICTIONARY = "recieved->received\nseperate->separate\nteh->the, then,\ncommitee->committee\n"
MODULE = """def first(items, limit):
    kept = []
    for item in items:
        if len(kept) < limit:
            kept.append(item)
    return kept


class Holder:
    def second(self, name, value):
        old = self.values.get(name)
        self.values[name] = value
        return old, value, name


def alone(x):
    return 1
"""


@pytest.fixture(scope="module")
def planting(repo_root: Path) -> ModuleType:
    path = repo_root / "benchmarks/suspect_cases.py"
    spec = importlib.util.spec_from_file_location("suspect_cases", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["suspect_cases"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(SENTENCES, encoding="utf-8")
    (tmp_path / "dictionary.txt").write_text(DICTIONARY, encoding="utf-8")
    line = json.dumps({"name": "module.py", "text": MODULE})
    (tmp_path / "held-out.jsonl").write_text(line + "\n", encoding="utf-8")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "one.jsonl").write_text(line + "\n", encoding="utf-8")
    return tmp_path


def test_a_misspelling_stands_where_its_word_stood(planting: ModuleType, folder: Path) -> None:
    for seed in range(5):
        cases = planting.misspellings(folder / "text.txt", folder / "dictionary.txt", 10, seed)
        assert len(cases) == 1  # one sentence has a word that is left out, one is a title
        (case,) = cases
        start, end = case.candidates[case.planted]
        wrong = case.text[start:end]
        assert f"{wrong}->{case.original}" in DICTIONARY.splitlines()
        mended = case.text[:start] + case.original + case.text[end:]
        assert mended == (
            "The committee received a separate letter from the second ministry,"
            " and it answered-at once."
        )
        spelled = [case.text[low:high] for low, high in case.candidates]
        assert spelled == [w.strip(",.") for w in case.text.replace("-", " ").split()]


def test_a_misused_variable_is_another_of_its_function(planting: ModuleType, folder: Path) -> None:
    seen = set()
    for seed in range(20):
        cases = planting.misuse(folder / "held-out.jsonl", 10, seed)
        assert len(cases) == 2  # `alone` has one variable
        for case in cases:
            start, end = case.candidates[case.planted]
            mended = case.text[:start] + case.original + case.text[end:]
            assert mended in MODULE
            assert case.text[start:end] != case.original
            names = {"items", "limit", "kept", "item", "self", "name", "value", "old"}
            assert {case.text[low:high] for low, high in case.candidates} <= names
            ast.parse("if True:\n" + case.text if case.text.startswith(" ") else case.text)
            seen.add((case.original, case.text[start:end]))
    assert len(seen) > 10


@pytest.mark.parametrize("kind", ["misspellings", "misuse"])
def test_every_method_is_measured(
    kind: str, repo_root: Path, folder: Path, tiny_shards: Path
) -> None:
    write_pair(folder / "export", tiny_shards.parent / "tokenizer")
    common = ("--export", "export", "--corpus", "corpus", "--json", "figures.json")
    words = ["--modules", "held-out.jsonl"]
    if kind == "misspellings":
        words = ["--text", "text.txt", "--dictionary", "dictionary.txt"]
    done = subprocess.run(
        (sys.executable, str(repo_root / "benchmarks/suspects.py"), kind, *words, *common),
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["cases"] + int(done.stdout.split(" words; ")[1].split()[0]) == len(
        ["one"] if kind == "misspellings" else ["first", "second"]
    )
    assert len(figures["rows"]) == 5
    for row in figures["rows"].values():
        assert all(0 <= value <= 1 for value in row.values())
