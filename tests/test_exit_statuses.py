"""The exit statuses are one table: in the code, and the same in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from electra_dist import errors
from electra_dist.errors import EXIT_STATUSES


def test_the_table_of_the_documentation_is_that_of_the_code(repo_root: Path) -> None:
    text = (repo_root / "docs/train.md").read_text(encoding="utf-8")
    section = text.partition("\n## Exit status\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert rows[2:] == [
        (str(status.number), status.meaning, status.advice) for status in EXIT_STATUSES
    ]


def test_every_status_has_its_row_and_its_own_number() -> None:
    named = {
        value
        for name, value in vars(errors).items()
        if re.fullmatch(r"EXIT_[A-Z_]+", name) and isinstance(value, int)
    }
    numbers = [status.number for status in EXIT_STATUSES]
    assert sorted(named) == sorted(numbers)
