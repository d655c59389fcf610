"""The page in a browser, without a network: drawn, switched, sorted, printed, at three widths."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from electra_dist.report import render_page
from electra_dist.report.comparison import compare

WIDTHS = (360, 768, 1440)


@pytest.fixture(scope="module")
def file(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    page = render_page(compare([sweep / "a", sweep]), datetime(2030, 1, 1, tzinfo=UTC))
    path.write_text(page, encoding="utf-8")
    return path


class Watched:
    """A page, with whatever it complained of or asked for."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")

    def plot(self, key: str) -> list[dict[str, Any]]:
        """The traces of a chart, as the library holds them."""
        found: list[dict[str, Any]] = self.page.evaluate(
            "key => document.getElementById(`plot-${key}`).data.map(one => ({...one}))", key
        )
        return found

    def range_of(self, key: str) -> tuple[float, float]:
        low, high = self.page.evaluate(
            "key => document.getElementById(`plot-${key}`)._fullLayout.yaxis.range", key
        )
        return low, high


@pytest.fixture(scope="module")
def loaded(browser: Browser, file: Path) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": WIDTHS[-1], "height": 900})
    yield Watched(context.new_page(), file)
    context.close()


@pytest.fixture(scope="module", params=WIDTHS)
def watched(
    request: pytest.FixtureRequest, browser: Browser, file: Path, loaded: Watched
) -> Iterator[Watched]:
    if request.param == WIDTHS[-1]:
        yield loaded
        return
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    yield Watched(context.new_page(), file)
    context.close()


@pytest.fixture
def wide(loaded: Watched) -> Watched:
    """The page as it was when it was opened."""
    loaded.page.evaluate(
        "document.querySelectorAll('.show-run').forEach(box => { box.checked = true; });"
        " document.getElementById('controls').reset();"
        " document.getElementById('controls').dispatchEvent(new Event('change'));"
    )
    return loaded


def test_all_charts_are_drawn_and_the_page_fits(watched: Watched) -> None:
    page = watched.page
    count = page.evaluate("document.querySelectorAll('.plot').length")
    assert count >= 6
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].filter(p => p.querySelector('.main-svg')).length"
    )
    assert drawn == count
    assert page.evaluate("document.querySelectorAll('.scatterlayer path.js-line').length") > 20
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]  # type: ignore[index]
    for plot in page.query_selector_all(".plot"):
        box = plot.bounding_box()
        if box is not None:
            assert box["x"] + box["width"] <= width
    table = "document.querySelector('#runs .scroll')"
    assert page.evaluate(f"{table}.tabIndex") == 0
    if width == WIDTHS[0]:
        assert page.evaluate(f"{table}.scrollWidth > {table}.clientWidth")
    assert watched.said == []
    assert [url for url in watched.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_axis_is_switched_by_keyboard(wide: Watched) -> None:
    page = wide.page
    before = wide.plot("loss-generator")
    page.focus("input[name=axis]:checked")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("html[data-drawn=tokens]", state="attached")
    after = wide.plot("loss-generator")
    assert after[0]["x"] == [500 * step for step in before[0]["x"]]
    assert after[0]["y"] == before[0]["y"]
    assert "real tokens" in page.inner_text("#said")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("html[data-drawn=flops]", state="attached")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("html[data-drawn=hours]", state="attached")
    assert wide.said == []


def test_the_close_view_leaves_the_first_value_out_and_the_whole_one_shows_it(
    wide: Watched,
) -> None:
    assert wide.range_of("loss-generator")[1] < 9
    wide.page.check("input[name=height][value=whole]")
    assert wide.range_of("loss-generator")[1] > 90
    wide.page.check("input[name=height][value=log]")
    assert wide.range_of("loss-generator")[1] == pytest.approx(1.95, abs=0.2)  # log10 of 90


def test_a_run_is_taken_out_of_every_chart(wide: Watched) -> None:
    names = {trace.get("name") for trace in wide.plot("loss-generator")}
    wide.page.uncheck(".show-run >> nth=1")
    left = {trace.get("name") for trace in wide.plot("loss-generator")}
    assert len(left) == len(names) - 1
    wide.page.uncheck("input[name=raw]")
    wide.page.uncheck("input[name=held-out]")
    wide.page.uncheck("input[name=marks]")
    assert len(wide.plot("loss-generator")) == len(
        wide.page.query_selector_all(".show-run:checked")
    )


def test_restarts_and_rollbacks_are_marked(wide: Watched) -> None:
    marks = [trace for trace in wide.plot("loss-generator") if trace.get("yaxis") == "y2"]
    texts = [text for mark in marks for text in mark["text"]]
    assert any("step 20: rolled back from step 30" in text for text in texts)
    assert any("step 60: restarted" in text for text in texts)


def test_the_table_of_a_sweep_is_sorted_by_keyboard(wide: Watched) -> None:
    page = wide.page
    heading = "#sweep th:has-text('optim.lr')"
    column = "#sweep tbody tr td:nth-child(2)"
    page.focus(f"{heading} button")
    page.keyboard.press("Enter")
    assert page.get_attribute(heading, "aria-sort") == "ascending"
    ascending = [float(text) for text in page.locator(column).all_inner_texts()]
    assert ascending == sorted(ascending)
    page.keyboard.press("Enter")
    assert page.get_attribute(heading, "aria-sort") == "descending"
    assert [float(t) for t in page.locator(column).all_inner_texts()] == ascending[::-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_lines_stand_out_from_their_background(scheme: str, loaded: Watched) -> None:
    """Contrast as WCAG 2.2 defines it: 4.5 for text, 3 for what is drawn."""
    page = loaded.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    colours = {
        name: page.evaluate(read, f"--{name}")
        for name in ("back", "raised", "text", "quiet", "link", "bad", "warn", "good")
    }
    for name in ("text", "quiet", "link", "bad", "warn", "good"):
        assert contrast(colours[name], colours["back"]) >= 4.5, name
    assert contrast(colours["text"], colours["raised"]) >= 4.5
    for run in range(7):
        assert contrast(page.evaluate(read, f"--run-{run}"), colours["back"]) >= 3, run


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_prints_with_its_charts(wide: Watched) -> None:
    printed = wide.page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 2
    wide.page.emulate_media(media="print")
    assert not wide.page.is_visible("#controls")
    assert wide.page.is_visible("#plot-loss-generator .main-svg >> nth=0")
    assert wide.said == []
