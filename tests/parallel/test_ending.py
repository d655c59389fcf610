"""A process ends as what it did asks for, and an error is printed once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from electra_dist.cli import main as cli
from electra_dist.errors import EXIT_CRASH
from electra_dist.parallel import ending


class Left(BaseException):
    """The process would be gone."""


@pytest.fixture(autouse=True)
def nobody_has_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_leave", None)


def leave(status: int) -> NoReturn:
    raise Left(status)


def test_a_process_that_nobody_asked_anything_of_ends_as_any_other() -> None:
    with pytest.raises(SystemExit) as raised:
        ending.end(75)
    assert raised.value.code == 75


def test_a_process_ends_as_it_was_asked_to() -> None:
    ending.end_by(leave)
    with pytest.raises(Left, match="75"):
        ending.end(75)


def test_an_error_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("of one rank")
    ending.print_once(error)
    ending.print_once(error)
    assert capsys.readouterr().err.count("ValueError: of one rank") == 1


@pytest.mark.parametrize("printed", [False, True])
def test_a_crash_of_the_command_line_is_printed_once_and_left_the_same_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], printed: bool
) -> None:
    error = RuntimeError("a bug")

    def crash(*_: Any) -> int:
        if printed:
            ending.print_once(error)
        raise error

    monkeypatch.setattr(cli, "main", crash)
    monkeypatch.setattr(cli, "open_missing_streams", lambda: None)
    monkeypatch.setattr(sys, "argv", ["electra-dist", "status"])
    ending.end_by(leave)
    with pytest.raises(Left, match=str(EXIT_CRASH)):
        cli.entry()
    assert capsys.readouterr().err.count("RuntimeError: a bug") == 1


def test_a_crash_of_a_command_that_trains_nothing_shows_its_traceback(tmp_path: Path) -> None:
    program = """
import sys
from electra_dist.cli import main as cli
def crash(): raise RuntimeError("a bug")
cli.main = crash
sys.argv = ["electra-dist", "status"]
cli.entry()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == EXIT_CRASH
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("RuntimeError: a bug\n")
