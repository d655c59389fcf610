"""The command that makes a reference: real training of the smallest recipe, and its parts."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import DataError
from electra_dist.references import load_reference
from electra_dist.runs.directory import RunDir


@pytest.fixture
def curves(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the command."""
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    import reference_curves

    return reference_curves


def test_a_recipe_is_trained_with_two_seeds_and_read_back(repo_root: Path, tmp_path: Path) -> None:
    words = ("benchmarks/reference-tiny.yaml", "--seeds", "5", "6", "--out", str(tmp_path))
    folders = ("--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data"))
    done = subprocess.run(
        (sys.executable, "benchmarks/reference_curves.py", *words, *folders),
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = load_reference(str(tmp_path / "tiny.json"))
    assert reference.seeds == (5, 6)
    assert reference.every == 2
    assert reference.command.endswith("benchmarks/reference-tiny.yaml --seeds 5 6")
    assert reference.recipe == (repo_root / "benchmarks/reference-tiny.yaml").read_text()
    assert reference.curves["loss/generator"].steps == (2, 4, 6, 8)
    assert reference.curves["validation/loss/generator"].steps == (4, 8)
    for number, seed in enumerate(reference.seeds):
        run = RunDir(tmp_path / "runs" / f"reference-tiny-seed{seed}")
        assert run.read_facts().dataset_fingerprint == reference.dataset
        for name, curve in reference.curves.items():
            logged = {row["step"]: row[name] for row in run.read_metrics() if name in row}
            wanted = [logged[step] for step in curve.steps]
            assert curve.values[number] == pytest.approx(wanted, rel=1e-4)
        last = list(run.read_metrics())[-1]
        assert last["step"] == 8
    assert len(set(reference.curves["loss/generator"].values)) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quick", "--seeds", "1", "1"), "--seeds: one seed has no spread"),
        (("quik",), "reference-quik: no such recipe (did you mean 'reference-quick'?)"),
        (("none.yaml",), "none.yaml"),
    ],
)
def test_a_mistake_is_one_line(
    curves: Any,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["reference_curves.py", *words])
    assert curves.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_curves_are_thinned_with_their_last_step(curves: Any) -> None:
    for count in (1, 59, 60, 61, 119, 120, 121, 1000):
        steps = list(range(10, 10 * count + 1, 10))
        kept = curves.thinned(steps)
        assert kept[-1] == steps[-1]
        assert min(count, 30) <= len(kept) <= 60
        assert set(kept) <= set(steps)
        assert len({after - before for before, after in itertools.pairwise(kept)}) <= 1


def write_run(path: Path, values: dict[int, float]) -> RunDir:
    """A run that logged one number, with a row of something else between."""
    path.mkdir()
    rows: list[dict[str, Any]] = [{"step": step, "a": value} for step, value in values.items()]
    rows.insert(1, {"step": 1, "event": "health", "rule": "none"})
    path.joinpath("metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunDir(path)


def test_a_curve_has_the_values_of_all_seeds(curves: Any, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "one", {0: 9.0, 1: 1.23456789, 2: 2.0}),
        write_run(tmp_path / "two", {1: 0.000123456789, 2: 4.0}),
    ]
    curve = curves.curve_of(runs, "a")
    assert curve.steps == (1, 2)
    assert curve.values == ((1.2346, 2.0), (0.00012346, 4.0))


def test_seeds_with_other_steps_are_refused(curves: Any, tmp_path: Path) -> None:
    whole = write_run(tmp_path / "one", {1: 1.0, 2: 2.0})
    half = write_run(tmp_path / "two", {1: 1.0})
    with pytest.raises(DataError, match=r"two.metrics\.jsonl: 1 values of a"):
        curves.curve_of([whole, half], "a")
    with pytest.raises(DataError, match="0 values of b"):
        curves.curve_of([whole, whole], "b")


def test_the_pages_of_an_archive_are_documents_in_order(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    import reference_text

    files = {"docs/b.txt": "Zwei ä", "docs/a/c.txt": "One", "docs/x.py": "no", "setup.txt": "no"}
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"Django-5.2/{name}")
            content = text.encode()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    corpus = tmp_path / "corpus" / "pages.jsonl"
    reference_text.write_corpus(reference_text.pages(tmp_path / "archive.tar.gz"), corpus)
    assert [json.loads(line) for line in corpus.read_text().splitlines()] == [
        {"id": "a/c.txt", "text": "One"},
        {"id": "b.txt", "text": "Zwei ä"},
    ]


def test_every_recipe_that_comes_with_the_program_names_a_text(
    curves: Any, repo_root: Path
) -> None:
    paths = sorted(repo_root.glob("configs/reference-*.yaml"))
    assert len(paths) >= 4
    for path in paths:
        assert curves.text_of(curves.load(path)) in ("django", "wikipedia")
    assert curves.text_of(curves.load(repo_root / "configs/quickstart.yaml")) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"QUICK": "1"}, None),
        ({"QUICK": "1", "REFERENCE": "1"}, "benchmarks/reference-tiny.yaml --seeds 1 2 --data"),
        ({"REFERENCE": "1"}, "small-gpu --data runs/reference-data"),
        ({"REFERENCE": "1", "REFERENCE_DATA": "texts"}, "small-gpu --data texts"),
    ],
)
def test_the_gpu_script_makes_a_reference_last_and_only_when_asked(
    repo_root: Path, tmp_path: Path, variables: dict[str, str], expected: str | None
) -> None:
    """A stand-in for Python notes what it is asked to run."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    python.chmod(0o755)
    subprocess.run(
        ("bash", "benchmarks/gpu.sh", str(tmp_path / "out")),
        cwd=repo_root,
        env=os.environ | {"PYTHON": str(python), "QUICK": "", "REFERENCE": ""} | variables,
        capture_output=True,
        timeout=60,
        check=True,
    )
    asked = (tmp_path / "asked").read_text().splitlines()
    wanted = [line for line in asked if "reference_curves.py" in line]
    if expected is None:
        assert wanted == []
    else:
        assert wanted == asked[-1:]
        assert f"benchmarks/reference_curves.py {expected}" in asked[-1]
