"""What each filter saw, dropped and changed: counts that add up, and examples.

A `Tally` counts the documents that meet one filter; tallies of parts of the input are added. The
examples are those with the smallest hash of their text under the seed: a fair choice, and the same
one for any number of workers. `CleanReport` is the whole, as the clean-report.json has it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from data_tools.filters.kinds import Filter

#: Characters of an example that are shown.
SHOWN_CHARACTERS = 300
FORMAT = "electra-dist-clean-report"


@dataclass(frozen=True, order=True)
class Example:
    """One dropped document.

    order       decides which examples are shown
    reason      why it was dropped
    text        its beginning, with white space as single spaces
    characters  of all of it
    document    its place among the documents that the corpus-wide filters saw, else -1
    like        the beginning of the earlier document that it is nearly like, else empty
    """

    order: str
    reason: str
    text: str
    characters: int
    document: int = -1
    like: str = ""

    @classmethod
    def of(cls, text: str, reason: str, seed: int, document: int = -1) -> Example:
        """The example that the dropped `text` is."""
        key = seed.to_bytes(16, "little", signed=True)
        named = text.encode("utf-8", "surrogatepass")
        order = hashlib.blake2b(named, digest_size=16, key=key, person=b"example").hexdigest()
        return cls(order, reason, shortened(text), len(text), document)


def shortened(text: str) -> str:
    """The beginning of `text` on one line."""
    words = " ".join(text[: 4 * SHOWN_CHARACTERS].split())
    words = words.encode("utf-8", "replace").decode("utf-8")
    if len(words) > SHOWN_CHARACTERS or len(text) > 4 * SHOWN_CHARACTERS:
        return words[:SHOWN_CHARACTERS].rstrip() + "…"
    return words


@dataclass
class Tally:
    """Counts of one filter, growing.

    documents, characters                  that came in
    dropped_documents, dropped_characters  of them
    changed_documents                      that the filter rewrote, those it then dropped included
    removed_characters                     by rewriting, markup for example; negative where text
                                           grew
    """

    documents: int = 0
    characters: int = 0
    dropped_documents: int = 0
    dropped_characters: int = 0
    changed_documents: int = 0
    removed_characters: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    def add_example(self, example: Example, most: int) -> None:
        """Take the example in, where it is among the `most` first; equal texts count once."""
        if len(self.examples) == most and (not most or example >= self.examples[-1]):
            return
        if all(example.order != other.order for other in self.examples):
            self.examples = sorted([*self.examples, example])[:most]

    def add(self, other: Tally, most: int) -> None:
        """Add the counts of another part of the input."""
        self.documents += other.documents
        self.characters += other.characters
        self.dropped_documents += other.dropped_documents
        self.dropped_characters += other.dropped_characters
        self.changed_documents += other.changed_documents
        self.removed_characters += other.removed_characters
        self.reasons.update(other.reasons)
        for example in other.examples:
            self.add_example(example, most)


@dataclass(frozen=True)
class FilterReport:
    """What one filter did; the counts are those of `Tally`."""

    name: str
    parameters: dict[str, Any]
    documents: int
    characters: int
    dropped_documents: int
    dropped_characters: int
    changed_documents: int
    removed_characters: int
    reasons: dict[str, int]
    examples: tuple[Example, ...]

    @classmethod
    def of(cls, applied: Filter, tally: Tally) -> FilterReport:
        """The report of a filter that has seen everything."""
        counts = {
            name: value
            for name, value in vars(tally).items()
            if name not in ("reasons", "examples")
        }
        return cls(
            name=applied.name,
            parameters=applied.values,
            reasons=dict(sorted(tally.reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
            examples=tuple(tally.examples),
            **counts,
        )

    @property
    def documents_left(self) -> int:
        """Documents that go on to the next filter."""
        return self.documents - self.dropped_documents

    @property
    def characters_left(self) -> int:
        """Characters that go on to the next filter."""
        return self.characters - self.dropped_characters - self.removed_characters

    def to_dict(self) -> dict[str, Any]:
        """For programs; shares are of what came in."""
        content = asdict(self)
        content["dropped_share"] = share(self.dropped_documents, self.documents)
        content["dropped_character_share"] = share(self.dropped_characters, self.characters)
        content["examples"] = [_example(example) for example in self.examples]
        return content


def _example(example: Example) -> dict[str, Any]:
    content: dict[str, Any] = {
        "reason": example.reason,
        "characters": example.characters,
        "text": example.text,
    }
    if example.like:
        content["like"] = example.like
    return content


def share(part: int, whole: int) -> float:
    """`part` of `whole`, 0 of nothing."""
    if not whole:
        return 0.0
    return part / whole


@dataclass(frozen=True)
class CleanReport:
    """What cleaning did.

    inputs   as they were given
    filters  in the order of their work
    files    that hold what is left, and their size on the disk
    """

    inputs: tuple[str, ...]
    seed: int
    documents: int
    characters: int
    kept_documents: int
    kept_characters: int
    filters: tuple[FilterReport, ...]
    files: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The content of clean-report.json: nothing in it depends on the machine or the workers."""
        content = asdict(self)
        content["inputs"] = list(self.inputs)
        content["filters"] = [one.to_dict() for one in self.filters]
        kept = share(self.kept_documents, self.documents)
        return {"format": FORMAT, "version": 1, **content, "kept_share": kept}


def all_dropped(filters: Sequence[FilterReport]) -> str:
    """In one sentence, that nothing is left, and which filters dropped how much."""
    dropped = _most_first(one for one in filters if one.dropped_documents)
    listed = ", ".join(f"{one.name} {one.dropped_documents:,}{_reason(one)}" for one in dropped)
    return (
        f"every one of the {filters[0].documents:,} documents was dropped: {listed}; loosen the"
        " `filter` that drops too much, or leave it out"
    )


def _most_first(filters: Iterable[FilterReport]) -> list[FilterReport]:
    return sorted(filters, key=lambda one: -one.dropped_documents)


def _reason(one: FilterReport) -> str:
    """The most frequent reason, where it has a parameter's name."""
    first = next(iter(one.reasons), None)
    if first is None or first not in one.parameters:
        return ""
    return f" (most by {first}={one.parameters[first]})"
