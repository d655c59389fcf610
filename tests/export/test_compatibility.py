"""What the model card says of versions of transformers is what the committed table says."""

from __future__ import annotations

import re
from pathlib import Path

import transformers

from electra_dist.export import compatibility

ROOT = Path(__file__).resolve().parents[2]


def table() -> list[dict[str, str]]:
    """The table in docs/export.md, from the oldest version to the newest."""
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    text = page.partition("<!-- compatibility: written")[2].partition("<!-- compatibility: end")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    (header, *rows) = lines
    return [dict(zip(header, row, strict=True)) for row in rows]


WRITTEN = "`[MASK]` written in a text"
VERSIONS = [row["transformers"] for row in table()]


def test_every_version_between_the_two_of_the_card_computes_the_same() -> None:
    assert sorted(VERSIONS, key=lambda text: [int(part) for part in text.split(".")]) == VERSIONS
    assert VERSIONS[-1] == compatibility.NEWEST
    columns = table()[0].keys() - {"transformers", WRITTEN}
    for kind, oldest, named in (
        ("bpe", compatibility.OLDEST, columns - {"unigram"}),
        ("unigram", compatibility.OLDEST_WITH_UNIGRAM, columns),
    ):
        assert f"{oldest} to {VERSIONS[-1]}" in compatibility.sentence(kind)
        for row in table()[VERSIONS.index(oldest) :]:
            assert {row[name] for name in named} == {"same"}, row
    earlier = table()[: VERSIONS.index(compatibility.OLDEST_WITH_UNIGRAM)]
    assert all(row["unigram"] != "same" for row in earlier)


def test_a_written_special_token_is_text_from_the_version_that_is_named() -> None:
    first = VERSIONS.index(compatibility.SPELT_AS_TEXT_FROM)
    found = [row[WRITTEN] for row in table()]
    assert set(found[:first]) == {"the token"}
    assert set(found[first:]) == {"text"}


def test_the_pinned_version_is_the_newest_that_was_tried() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pin = re.search(r"^transformers==(\S+)$", constraints, re.M)
    assert pin is not None
    assert pin[1] == compatibility.NEWEST == transformers.__version__
