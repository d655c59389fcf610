"""docs/how-it-works.md is true: its Python blocks run, and print what the page has below them.

All blocks run in one namespace, from top to bottom. A block that prints is followed directly by a
`text` block, and both are compared line by line. Runs of spaces count as one. Words and integers
must be equal. A number with a decimal point may differ by one in its last digit, because rounding
differs between CPUs.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-it-works.md"

_CODE = r"^```python\n(?P<code>.*?)^```\n"
_TEXT = r"\n?```text\n(?P<text>.*?)^```\n"
_BLOCK = re.compile(f"{_CODE}(?:{_TEXT})?", re.M | re.S)
_DECIMAL = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Block:
    """A Python block: the line of its first statement in the page, its code, the text below it."""

    line: int
    code: str
    expected: str | None


def blocks_of(page: str) -> list[Block]:
    """All Python blocks, in order."""
    found = []
    for match in _BLOCK.finditer(page):
        line = page[: match.start("code")].count("\n") + 1
        found.append(Block(line, match["code"], match["text"]))
    return found


def run(blocks: list[Block]) -> list[str]:
    """What each block prints, all in one namespace; a traceback has the lines of the page."""
    namespace: dict[str, object] = {"__name__": "how_it_works"}
    printed = []
    for block in blocks:
        output = io.StringIO()
        # Empty lines before the code, so that line numbers are those of the page.
        code = compile("\n" * (block.line - 1) + block.code, str(PAGE), "exec")
        with contextlib.redirect_stdout(output):
            exec(code, namespace)
        printed.append(output.getvalue())
    return printed


def problem(block: Block, printed: str) -> str | None:
    """What is wrong with the text below a block, and where; None when it holds."""
    where = f"{PAGE.name}:{block.line}"
    if block.expected is None:
        return f"{where}: no text block below it, but it prints\n{printed}" if printed else None
    if agree(block.expected, printed):
        return None
    return f"{where}: the page has\n{block.expected}\nand the block prints\n{printed}"


def agree(expected: str, printed: str) -> bool:
    """Whether two texts are the same, up to spaces and the last digit of decimal numbers."""
    expected_lines = expected.strip().splitlines()
    printed_lines = printed.strip().splitlines()
    if len(expected_lines) != len(printed_lines):
        return False
    return all(map(_agree_in_line, expected_lines, printed_lines))


def _agree_in_line(expected: str, printed: str) -> bool:
    if _words(expected) != _words(printed):
        return False
    pairs = zip(_DECIMAL.findall(expected), _DECIMAL.findall(printed), strict=True)
    return all(_close(first, second) for first, second in pairs)


def _words(line: str) -> list[str]:
    """The words of a line, with the same sign for every decimal number."""
    return _DECIMAL.sub("#", line).split()


def _close(first: str, second: str) -> bool:
    """The same number of digits behind the point, and at most one apart in the last of them."""
    digits = len(first.partition(".")[2])
    if digits != len(second.partition(".")[2]):
        return False
    return abs(float(first) - float(second)) < 1.5 * 10**-digits


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    """The blocks of the page."""
    return blocks_of(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def outputs(blocks: list[Block]) -> list[str]:
    """What the blocks print; they run once for all tests."""
    return run(blocks)


def test_every_block_prints_what_the_page_has(blocks: list[Block], outputs: list[str]) -> None:
    found = [problem(block, printed) for block, printed in zip(blocks, outputs, strict=True)]
    wrong = [message for message in found if message is not None]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_no_fence_of_the_page_is_overlooked(blocks: list[Block]) -> None:
    fences = re.findall(r"^[ \t]*```.*$", PAGE.read_text(encoding="utf-8"), re.M)
    texts = sum(block.expected is not None for block in blocks)
    assert fences.count("```python") == len(blocks)
    assert fences.count("```text") == texts
    assert fences.count("```") == len(blocks) + texts
    assert len(fences) == 2 * (len(blocks) + texts)


def test_a_change_of_any_number_is_found(blocks: list[Block], outputs: list[str]) -> None:
    """The comparison can fail: each number in each text, changed in its first digit, is found."""
    changes = 0
    for block, printed in zip(blocks, outputs, strict=True):
        for match in re.finditer(r"\d[\d.,]*", block.expected or ""):
            changed = replace(block, expected=_with_another_number(match))
            message = problem(changed, printed)
            assert message is not None, f"{PAGE.name}:{block.line}: {match[0]} may be anything"
            assert f"{PAGE.name}:{block.line}:" in message
            changes += 1
    assert changes > 100


def _with_another_number(match: re.Match[str]) -> str:
    """The text that was searched, with another first digit in the number that was found."""
    digit = (int(match[0][0]) + 5) % 10
    return f"{match.string[: match.start()]}{digit}{match.string[match.start() + 1 :]}"


def test_a_block_that_prints_needs_a_text() -> None:
    (block,) = blocks_of("```python\nprint(1)\n```\n\nwords\n\n```text\n1\n```\n")
    message = problem(block, *run([block]))
    assert message is not None
    assert "no text block" in message


def test_a_text_below_a_silent_block_is_found() -> None:
    (block,) = blocks_of("```python\nx = 1\n```\n\n```text\n1\n```\n")
    assert problem(block, *run([block])) is not None


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("loss 0.384", "loss  0.385", True),
        ("loss 0.384", "loss 0.386", False),
        ("loss 0.000", "loss -0.000", True),
        ("loss 0.384", "loss 0.3840", False),
        ("loss 0.384", "gain 0.384", False),
        ("rows: 12", "rows: 13", False),
        ("same: True", "same: False", False),
        ("a 1.0 b 2.0", "a 1.0", False),
        ("one line", "one line\nand another", False),
    ],
)
def test_texts_agree_up_to_one_in_the_last_digit(expected: str, printed: str, same: bool) -> None:
    assert agree(expected, printed) is same


def test_an_error_in_a_block_has_the_line_of_the_page() -> None:
    (block,) = blocks_of("words\n\n```python\nx = 1\nraise ValueError('here')\n```\n")
    with pytest.raises(ValueError, match="here") as caught:
        run([block])
    assert caught.traceback[-1].lineno == 4
