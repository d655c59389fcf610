"""`make` explains itself: every target has its line, and the targets of the documentation exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = ROOT / "Makefile"


def make(*arguments: str) -> str:
    """What `make` prints."""
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def targets() -> set[str]:
    """The targets that are no files."""
    found = re.search(r"^\.PHONY: (.*)$", MAKEFILE.read_text(encoding="utf-8"), re.M)
    assert found is not None
    return set(found[1].split())


def test_make_alone_prints_one_line_for_each_target() -> None:
    printed = make()
    assert printed == make("help")
    lines = printed.splitlines()[1:]
    named = [line.split()[0] for line in lines]
    assert set(named) == targets()
    assert len(named) == len(set(named))
    for line in lines:
        assert len(line.split()) > 1, f"{line!r}: no explanation"
        assert len(line) <= 100, line


def test_install_and_docs_are_targets_of_their_own() -> None:
    assert {"help", "install", "quickstart", "test", "test-all", "lint", "docs"} <= targets()
