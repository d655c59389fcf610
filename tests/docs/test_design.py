"""docs/design.md holds every decision that the repository cites, each of them once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "design.md"
#: Where citations are looked for, and in which files.
FOLDERS = (
    "electra_dist",
    "launcher",
    "data_tools",
    "benchmarks",
    "slurm",
    "tests",
    "docs",
    "containers",
)
SUFFIXES = {".py", ".md", ".sh", ".sbatch", ".yaml", ".yml"}
#: `DESIGN D4`, `DESIGN D4, D5`, and a citation that a line break cuts.
CITATION = re.compile(r"\bDESIGN\s+(D\d+[a-z]?(?:,\s*D\d+[a-z]?)*)")


def decisions(text: str) -> list[str]:
    """The numbers of the page's headings, in order."""
    return re.findall(r"^## (D\d+[a-z]?)\. ", text, re.M)


def cited(text: str) -> list[str]:
    """Every decision that `text` cites."""
    groups = CITATION.findall(text)
    return [number for group in groups for number in re.findall(r"D\d+[a-z]?", group)]


def citing_files() -> Iterator[Path]:
    """The files that may cite a decision, without this one."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and path != Path(__file__).resolve():
                yield path


def test_every_citation_leads_to_a_decision() -> None:
    known = set(decisions(PAGE.read_text(encoding="utf-8")))
    found = {path: cited(path.read_text(encoding="utf-8")) for path in citing_files()}
    total = sum(len(numbers) for numbers in found.values())
    assert total > 20, "the citations are looked for in the wrong place"
    unknown = {str(path.relative_to(ROOT)): set(numbers) - known for path, numbers in found.items()}
    assert {path: numbers for path, numbers in unknown.items() if numbers} == {}


def test_every_decision_has_one_heading_and_the_numbers_have_no_gap() -> None:
    found = decisions(PAGE.read_text(encoding="utf-8"))
    assert [number for number, times in Counter(found).items() if times > 1] == []
    whole = [int(number[1:]) for number in found if number[1:].isdigit()]
    assert whole == list(range(1, len(whole) + 1))
    for number in found:
        assert number[1:].isdigit() or number[:-1] in found, f"{number} belongs to no decision"


def test_the_references_of_the_page_to_itself_lead_to_a_decision() -> None:
    text = PAGE.read_text(encoding="utf-8")
    mentioned = set(re.findall(r"\bD\d+[a-z]?\b", text))
    assert mentioned - set(decisions(text)) == set()


def test_a_citation_is_found_in_every_form() -> None:
    assert cited("by rank (DESIGN D2); see DESIGN D4, D5 and (DESIGN\nD2b).") == [
        "D2",
        "D4",
        "D5",
        "D2b",
    ]
