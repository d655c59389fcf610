"""RUN@STEP and `--step` mean the same checkpoint; whatever is unclear gets one sentence."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from electra_dist.cli.networks.chosen import Chosen, add_run_and_step, chosen
from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("base", "odd@7", "odd@best"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    return tmp_path


def parsed(*words: str) -> Chosen:
    parser = argparse.ArgumentParser()
    add_run_and_step(parser)
    return chosen(parser.parse_args(words))


def test_behind_the_run_or_as_an_option(runs: Path) -> None:
    base = RunDir(runs / "base")
    assert parsed(f"{runs}/base") == (base, None)
    assert parsed(f"{runs}/base@best") == parsed(f"{runs}/base", "--step", "best") == (base, "best")
    assert parsed(f"{runs}/base@20") == parsed(f"{runs}/base", "--step", "20") == (base, 20)


def test_a_folder_with_an_at_sign_is_that_folder(runs: Path) -> None:
    assert parsed(f"{runs}/odd@7") == (RunDir(runs / "odd@7"), None)
    assert parsed(f"{runs}/odd@best@best") == (RunDir(runs / "odd@best"), "best")
    assert parsed(f"{runs}/odd@7", "--step", "9") == (RunDir(runs / "odd@7"), 9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("base@worst",), "neither the number of a step nor `best`"),
        (("base@",), "neither the number of a step nor `best`"),
        (("base@-3",), "neither the number of a step nor `best`"),
        (("base@20", "--step", "best"), "give one of them"),
        (("other@20",), "not a run directory"),
    ],
)
def test_what_is_unclear_is_refused(runs: Path, words: tuple[str, ...], said: str) -> None:
    run, *options = words
    with pytest.raises(UserError, match=said):
        parsed(f"{runs}/{run}", *options)
