"""The commit of the software: from git, or from the file of a copy; never that of somebody else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from electra_dist.runs.opening.revision import REVISION_FILE, revision


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    package = tmp_path / "electra_dist"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "v1")
    return tmp_path


def test_of_a_checkout_it_is_the_commit_and_whether_files_were_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert revision(checkout) == commit
    (checkout / "electra_dist" / "__init__.py").write_text("a = 2\n")
    assert revision(checkout) == f"{commit}-dirty"


def test_a_copy_inside_a_checkout_of_something_else_has_none(checkout: Path) -> None:
    copy = checkout / "runs" / "code"
    (copy / "electra_dist").mkdir(parents=True)
    (copy / "electra_dist" / "__init__.py").write_text("a = 1\n")
    assert revision(copy) == ""
    (copy / REVISION_FILE).write_text("0123abc-dirty\n")
    assert revision(copy) == "0123abc-dirty"
    (copy / REVISION_FILE).write_text("what is this?\n")
    assert revision(copy) == ""


def test_without_git_there_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert revision(checkout) == ""
