"""The notebook runs from its first cell to its last, as it stands, and shows what it says."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

#: What a reader has to download at most, and what one output may take of it.
MOST_BYTES = 100_000
MOST_OUTPUT = 60_000


@pytest.fixture(scope="module")
def notebook(repo_root: Path) -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(repo_root / "examples/train_tiny.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed(
    notebook: Any, repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    """The notebook with its outputs, and the folder in which it ran."""
    folder = tmp_path_factory.mktemp("notebook")
    copy = nbformat.from_dict(notebook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(repo_root))
        client = nbclient.NotebookClient(
            copy,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute()
    return copy, folder


def outputs(executed: Any) -> list[Any]:
    return [output for cell in executed.cells for output in cell.get("outputs", [])]


def printed(executed: Any) -> str:
    return "".join(o["text"] for o in outputs(executed) if o.get("name") == "stdout")


def test_it_is_a_valid_notebook_and_small(notebook: Any, repo_root: Path) -> None:
    nbformat.validate(notebook)
    text = (repo_root / "examples/train_tiny.ipynb").read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    for output in outputs(notebook):
        assert len(str(output)) < MOST_OUTPUT
        assert output.get("name") != "stderr"
    assert not re.search(r"/home/|/root/|/tmp/|/usr/|site-packages", text)


def test_it_trains_and_both_networks_learn(executed: tuple[Any, Path]) -> None:
    said, folder = executed
    scores = {
        name: float(value)
        for name, value in re.findall(r"(loss|unigram|AUC) +(\d\.\d+)", printed(said))
    }
    found = re.search(r"generator +loss (\d\.\d+)  unigram (\d\.\d+)", printed(said))
    assert found is not None
    assert float(found[1]) < float(found[2]) < math.log(1024)
    assert scores["AUC"] > 0.5
    assert (folder / "runs/train-tiny/run/metrics.jsonl").is_file()


def test_it_draws_the_curves_and_marks_the_passages_up(executed: tuple[Any, Path]) -> None:
    data = [output["data"] for output in outputs(executed[0]) if "data" in output]
    assert sum("image/png" in one for one in data) == 1
    (page,) = [one["text/html"] for one in data if "text/html" in one]
    assert page.count("<p>") == 2
    assert "<del>" in page
    assert "rgba(255, 60, 0, 1.0)" in page


def test_its_own_sentences_are_filled_and_judged(executed: tuple[Any, Path]) -> None:
    text = printed(executed[0])
    assert "The value of the [MASK] is a number." in text
    fillings = re.findall(r"^    (\S+) +(0\.\d{3})$", text, re.MULTILINE)
    assert len(fillings) == 8
