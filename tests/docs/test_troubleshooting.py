"""Every message of docs/troubleshooting.md is one that the software prints.

A message of the page is text in backticks in the first column; `...` stands for what differs from
case to case. Its parts must occur, in this order, in one literal of the source (the constant parts
of an f-string), or in one line of the job script.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
#: The section whose first column holds no messages.
OTHERS = "\n## Situations without a message of ours\n"
#: A shorter message would be found anywhere.
SHORTEST = 12


def messages() -> list[str]:
    """The messages of the page, in order."""
    text = PAGE.read_text(encoding="utf-8").partition(OTHERS)[0]
    rows = re.findall(r"^\| (.*?) \|", text, re.M)
    cells = [row for row in rows if row != "message" and not row.startswith("-")]
    assert all(re.fullmatch(r"`[^`]+`", cell) for cell in cells), "the first column is one message"
    return [cell.strip("`") for cell in cells]


def literal_text(node: ast.expr) -> str | None:
    """The text of a literal; a value in an f-string counts as a line feed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal_text(part) or "\n" for part in node.values)
    return None


@cache
def literals() -> tuple[str, ...]:
    """Every text of the packages, and every line of the job scripts."""
    found: list[str] = []
    for package in sorted(path.parent for path in ROOT.glob("*/__init__.py")):
        for path in sorted(package.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            texts = (literal_text(node) for node in ast.walk(tree) if isinstance(node, ast.expr))
            found.extend(text for text in texts if text)
        for script in sorted(package.rglob("*.sbatch")):
            found.extend(script.read_text(encoding="utf-8").splitlines())
    return tuple(found)


def occurs(message: str) -> bool:
    """Whether the parts of `message` occur in this order in one literal."""
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("...")), re.S)
    return any(pattern.search(text) for text in literals())


@pytest.mark.parametrize("message", messages())
def test_the_message_is_printed_by_the_software(message: str) -> None:
    assert len(message.replace("...", "")) >= SHORTEST, f"{message!r} is too short to be found"
    assert occurs(message), f"{message!r}: no message of the software has these words in this order"


def test_no_message_is_there_twice() -> None:
    assert len(set(messages())) == len(messages())


def test_a_message_that_nothing_prints_is_found() -> None:
    assert not occurs("the flux capacitor of rank ... is empty")
    assert not occurs("possible world sizes ... world size")
