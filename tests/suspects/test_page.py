"""The page in a browser: escaped, without a request, readable, at three widths."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from electra_dist.suspects.findings import JudgedText, Suggestion, Word
from electra_dist.suspects.page import Source, render_page
from tests.report.test_browser import contrast

HOSTILE = "<img src=x onerror=alert(1)>"
TEXT = f"One {HOSTILE} teh\n    end of a line that goes on and on until it is broken teh"
SUGGESTIONS = (Suggestion("the", 0.5), Suggestion("</mark><script>alert(2)</script>", 0.25))


def word(text: str, start: int, probability: float, *suggestions: Suggestion) -> Word:
    return Word(text, start, start + len(text), probability, probability >= 0.4, suggestions)


JUDGED = [
    JudgedText(
        TEXT,
        (
            word("One", 0, 0.1),
            word(HOSTILE, 4, 0.45, *SUGGESTIONS),
            word("teh", TEXT.index("teh"), 0.7, *SUGGESTIONS),
            word("teh", TEXT.rindex("teh"), 0.99),
        ),
    ),
    JudgedText("", ()),
    JudgedText("كلمة", (word("كلمة", 0, 0.5),)),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "suspects.html"
    source = Source(f"d {HOSTILE}", "g", 0.4, datetime(2030, 1, 1, tzinfo=UTC))
    path.write_text(render_page(JUDGED, source), encoding="utf-8")
    return path


@pytest.fixture(params=(360, 768, 1440))
def page(request: pytest.FixtureRequest, browser: Browser, file: Path) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda asked: said.append(asked.url) if asked.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    context.close()
    assert said == []


def test_suspects_are_marked_and_texts_are_text(page: Page) -> None:
    marks = page.locator("mark")
    assert marks.evaluate_all("all => all.map(one => one.firstChild.textContent)") == [
        HOSTILE,
        "teh",
        "teh",
        "كلمة",
    ]
    levels = marks.evaluate_all("all => all.map(one => one.className)")
    assert levels == ["mark level-1", "mark level-2", "mark level-3", "mark level-1"]
    assert page.locator("img, script").count() == 0
    shown = page.locator(".text").first.evaluate(
        "one => [...one.childNodes].slice(1).map(n => n.nodeType == 3 ? n.data"
        " : n.firstChild.data).join('')"
    )
    assert shown == TEXT


def test_a_mark_has_its_suggestions_and_the_page_fits(page: Page) -> None:
    width = page.viewport_size["width"]  # type: ignore[index]
    marks = page.locator("mark")
    for number in range(marks.count()):
        about = marks.nth(number).locator(".about")
        assert not about.is_visible()
        marks.nth(number).focus()
        assert about.is_visible()
        box = about.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert marks.nth(1).locator(".one").all_inner_texts()[0].split() == ["the", "0.500"]
    assert marks.nth(2).locator(".list").text_content() == "no suggestion"
    page.evaluate("document.activeElement.blur()")


def test_the_table_has_every_suspect(page: Page) -> None:
    page.locator("summary").click()
    rows = page.locator("tbody tr").all_inner_texts()
    assert len(rows) == 4
    assert "0.7000" in rows[1]
    assert "the (0.500)" in rows[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_marks(scheme: str, browser: Browser, file: Path) -> None:
    """Contrast as WCAG 2.2 defines it."""
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(file.as_uri())
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    colours = {
        name: page.evaluate(read, f"--{name}")
        for name in ("back", "raised", "text", "quiet", "edge", "mark-1", "mark-2", "mark-3")
    }
    for back in ("back", "raised", "mark-1", "mark-2", "mark-3"):
        assert contrast(colours["text"], colours[back]) >= 4.5, back
    for back in ("back", "raised"):
        assert contrast(colours["quiet"], colours[back]) >= 4.5, back
    assert contrast(colours["edge"], colours["back"]) >= 3
    page.close()


def test_a_page_without_suspects_has_no_table() -> None:
    source = Source("d", None, 0.5, datetime(2030, 1, 1, tzinfo=UTC))
    page = render_page([JudgedText("Fine.", (word("Fine", 0, 0.1),))], source)
    assert "<table" not in page
    assert "0 of 1 words in 1 text are marked" in page
    assert "Without a generator" in page
