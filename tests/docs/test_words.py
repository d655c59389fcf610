"""The pages are in plain English: short sentences, and none of the turns that stop a non-native
reader.

What is measured is prose only. Code (fenced, indented or in backticks), tables, comments and the
targets of links are left out. A list item is a text of its own, and so is a heading. A piece of
code in backticks counts as one word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Most words that a sentence may have.
MOST_WORDS = 30

#: Pages that are not measured here, and why.
EXCEPT = {
    "docs/configuration.md": "written from the docstrings of the configuration",
}

PAGES = sorted(
    {"README.md", "benchmarks/RESULTS.md"}
    | {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")} - EXCEPT.keys()
)

#: What is counted or timed per unit in these pages: "one per step" is plain, "one a step" is not.
UNITS = (
    "block|byte|class|document|element|epoch|file|GPU|group|head|host|job|key|launch|layer|line|"
    "machine|micro-batch|minute|network|node|object|page|parameter|position|process|rank|row|run|"
    "second|shard|start|step|subcommand|sweep|task|token|value"
)

#: The word before "a step" and the like, when a quantity is meant: a number, a unit, a thing.
QUANTITIES = (
    r"\d(?:[\d,.]*\d)?|one|two|three|bits?|bytes?|elements?|tokens|rows?|micro-batches|operations|"
    r"numbers?|seconds?|ms|s|[GMK]B|copy|file|line|word|object|page|gradient|folder|port|process|"
    r"tasks?|agent|probability|slots|times|once|twice|directory|module|ranks?|nodes?|warning"
)

#: Programs and their messages report, show, print or name; only people say.
SPEAKERS = "program|command|message|line|warning|script|launcher|watchdog|rank|job|run|`[^`]+`"

#: Turns that are not plain, and what to write instead.
BANNED = {
    rf"\b(?:{QUANTITIES}) an? (?:{UNITS})\b(?!['-])": 'write "per"',
    r"\bbeside\b": 'write "next to", "as well as" or "while"',
    r"\bcom(?:es?|ing) to (?!an end\b)": 'write "is", "resolves to" or "adds up to"',
    rf"(?:\b|(?=`))(?:{SPEAKERS}) (?:says?|said)\b": 'write "reports", "shows" or "names"',
    r"(?:, say(?=[,.;:)])|\bsay\.$)": 'write "for example"',
    r"\bfor want of\b": 'write "without" or "because there is no"',
    r"\b(?:all|nothing|anything) but\b": 'write "except" or "only"',
    r"\bhindmost\b": 'write "slowest"',
    r"\bhouse\b": 'write "project" or "repository"',
}

_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf)\.$")
#: Between two sentences: after the mark that ends one, before what may begin another.
_BETWEEN = re.compile(r"(?<=[.!?])[)\"'*]*\s+(?=[\"'(*\[]*[A-Z0-9`$±])")


@dataclass(frozen=True)
class Sentence:
    """One sentence of a page, as a reader sees it, and the line on which its paragraph begins."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> int:
        """Code in backticks is one word; signs and dashes are none."""
        plain = re.sub(r"`[^`]*`", "code", self.text)
        return sum(1 for word in plain.split() if re.search(r"\w", word))

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def without_code(text: str) -> str:
    """The page with fenced code and comments blanked; every other line stays at its number."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    return _COMMENT.sub(blank, _FENCE.sub(blank, text))


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """The texts of a page, with the line on which each begins: paragraphs, items, headings."""
    begin = 0
    held: list[str] = []
    may_be_code = True  # an indented line, after a blank one or another line of code

    for number, line in enumerate([*without_code(text).splitlines(), ""], start=1):
        is_blank = not line.strip()
        is_item = bool(_ITEM.match(line))
        is_code = may_be_code and line.startswith("    ") and not is_item
        is_special = line.startswith(("|", "#", "!["))

        if held and (is_blank or is_item or is_code or is_special):
            yield begin, " ".join(held)
            held = []

        if line.startswith("#"):
            yield number, line.lstrip("# ")
        elif not (is_blank or is_code or is_special):
            if not held:
                begin = number
            held.append(_ITEM.sub("", line).strip())

        may_be_code = is_blank or is_code or is_special


def sentences(page: str, text: str) -> Iterator[Sentence]:
    """Every sentence of the prose of a page."""
    for line, paragraph in paragraphs(text):
        shown = _LINK.sub(r"\1", paragraph).replace("**", "")
        start = 0
        for between in _BETWEEN.finditer(shown):
            sentence = shown[start : between.start()]
            if _ABBREVIATION.search(sentence):
                continue
            yield Sentence(page, line, sentence)
            start = between.end()
        yield Sentence(page, line, shown[start:])


def too_long(page: str, text: str) -> list[str]:
    """The sentences with too many words, each with its page, line and number of words."""
    found = [sentence for sentence in sentences(page, text) if sentence.words > MOST_WORDS]
    return [f"{sentence} ({sentence.words} words)" for sentence in found]


def not_plain(page: str, text: str) -> list[str]:
    """The sentences with a banned turn, each with its page, line, the turn and the advice."""
    found = []
    for sentence in sentences(page, text):
        for pattern, advice in BANNED.items():
            match = re.search(pattern, sentence.text)
            if match:
                found.append(f'{sentence} ("{match[0]}": {advice})')
    return found


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_too_long(page: str) -> None:
    found = too_long(page, (ROOT / page).read_text(encoding="utf-8"))
    assert not found, f"more than {MOST_WORDS} words in a sentence:\n" + "\n".join(found)


@pytest.mark.parametrize("page", PAGES)
def test_the_words_are_plain(page: str) -> None:
    found = not_plain(page, (ROOT / page).read_text(encoding="utf-8"))
    assert not found, "not plain:\n" + "\n".join(found)


def test_every_page_that_is_left_out_exists() -> None:
    assert [page for page in EXCEPT if not (ROOT / page).is_file()] == []


# --- the measure itself -------------------------------------------------------------------------


def words(count: int) -> str:
    return "A" + " word" * (count - 1) + "."


def test_a_sentence_may_have_thirty_words_and_no_more() -> None:
    assert too_long("a.md", f"{words(30)} {words(30)}\n") == []
    assert too_long("a.md", f"One.\n\n{words(31)}\n") == [f"a.md:3: {words(31)} (31 words)"]


def test_a_sentence_goes_on_over_lines_and_ends_with_its_list_item() -> None:
    half = "word " * 20
    assert len(too_long("a.md", f"{half}\n{half}\n")) == 1
    assert too_long("a.md", f"- {half}\n- {half}\n") == []
    assert len(too_long("a.md", f"- {half}\n  {half}\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"```text\n{words(40)}\n```\n",
        f"| a |\n|---|\n| {words(40)} |\n",
        f"Text.\n\n    {words(40)}\n",
        f"<!-- {words(40)} -->\n",
        f"`{words(40)}`\n",
    ],
)
def test_code_tables_and_comments_are_left_out(text: str) -> None:
    assert too_long("a.md", text) == []


@pytest.mark.parametrize(
    "text",
    [
        "It takes 12 bytes a parameter.",
        "The ranks agree twice a step.",
        "There is one file a rank.",
        "It lies beside the data.",
        "That comes to one warning.",
        "`status` says so.",
        "The message says why.",
        "Take another domain, say.",
        "Take one, say, of text.",
        "It removes all but the newest.",
    ],
)
def test_a_turn_that_is_not_plain_is_found(text: str) -> None:
    assert len(not_plain("a.md", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "A run that is one step longer takes one more step.",
        "Under stage 3 a layer's parameters are gathered.",
        "Text that is not UTF-8, a line without a key.",
        "After the step, a step of another run begins.",
        "People say so, and besides it is true.",
        "It takes 12 bytes per parameter, next to the data.",
    ],
)
def test_plain_words_pass(text: str) -> None:
    assert not_plain("a.md", text) == []
