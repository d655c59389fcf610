"""The form in a browser, without a network: what each kind of model shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from electra_dist.serve.settings import Settings
from tests.serve.conftest import predict

HOSTILE = "<img src=x onerror=alert(1)> 🦊 snow"


class Watched:
    """A page, with whatever it complained of or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def ask(self, *texts: str) -> None:
        for place, text in enumerate(texts):
            self.page.fill(f"#field-{place}", text)
        self.page.click("#ask")
        self.page.wait_for_selector("#ask:not([disabled])")
        self.page.wait_for_selector("#result:not([hidden])")

    def is_clean(self, url: str) -> bool:
        own = [one.startswith((url, "data:")) for one in self.asked]
        return all(own) and not self.said


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 360, "height": 800})
    yield Watched(context.new_page())
    context.close()


def test_classes_are_bars(watched: Watched, here: Callable[..., str]) -> None:
    url = here("classification")
    watched.page.goto(url)
    watched.ask(HOSTILE)
    expected = predict(url, [HOSTILE]).content["predictions"][0]
    labels = watched.page.locator(".bar .label").all_inner_texts()
    ranked = sorted(expected["probabilities"], key=lambda one: -expected["probabilities"][one])
    assert labels == ranked
    assert watched.page.inner_text(".bar.best .label") == expected["predicted"]
    best = expected["probabilities"][expected["predicted"]]
    assert watched.page.inner_text(".bar.best .value") == f"{100 * best:.1f}%"
    watched.page.click("summary")
    assert HOSTILE in watched.page.inner_text("#json")
    assert watched.page.evaluate("document.querySelectorAll('img').length") == 0
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert watched.is_clean(url)


def test_an_answer_is_marked_in_its_context(watched: Watched, here: Callable[..., str]) -> None:
    url = here("question-answering")
    watched.page.goto(url)
    context = f"{HOSTILE} falls 🦊 in Oslo, and rain in Lisbon."
    watched.ask("Where does snow fall?", context)
    question = {"question": "Where does snow fall?", "context": context}
    expected = predict(url, [question]).content["predictions"][0]
    assert watched.page.inner_text("mark") == expected["answer"]
    assert watched.page.inner_text(".passage") == context
    before = watched.page.evaluate("document.querySelector('mark').previousSibling.textContent")
    assert len(before) == expected["start"]
    assert watched.is_clean(url)


def test_tokens_are_marked_by_their_probability(watched: Watched, here: Callable[..., str]) -> None:
    url = here("discriminator")
    watched.page.goto(url)
    watched.ask(HOSTILE)
    tokens = predict(url, [HOSTILE]).content["predictions"][0]["tokens"]
    shown = [token for token in tokens if token["end"] > token["start"]]
    marks = watched.page.locator("mark")
    assert watched.page.inner_text(".passage") == HOSTILE
    assert 1 < marks.count() <= len(shown)
    assert "replaced with probability" in str(marks.first.get_attribute("title"))
    assert watched.is_clean(url)


def test_suspects_are_marked_with_other_words(watched: Watched, here: Callable[..., str]) -> None:
    url = here("suspects")
    watched.page.goto(url)
    watched.ask(HOSTILE)
    words = predict(url, [HOSTILE]).content["predictions"][0]["words"]
    suspects = [word for word in words if word["suspect"]]
    assert suspects
    assert watched.page.inner_text(".passage") == HOSTILE
    assert watched.page.locator("mark").all_inner_texts() == [word["word"] for word in suspects]
    told = watched.page.locator("mark").evaluate_all("all => all.map(one => one.title)")
    for word, title in zip(suspects, told, strict=True):
        assert "does not belong" in title
        assert all(one["text"] in title for one in word["suggestions"])
    assert watched.is_clean(url)


def test_entities_are_marked_with_their_kind(watched: Watched, here: Callable[..., str]) -> None:
    url = here("token-classification")
    watched.page.goto(url)
    watched.ask("Anna went to Oslo and Bergen")
    found = predict(url, ["Anna went to Oslo and Bergen"]).content["predictions"][0]["entities"]
    assert watched.page.locator("mark").count() == len(found) > 0
    kinds = watched.page.locator("mark small").all_inner_texts()
    assert [kind.strip() for kind in kinds] == [one["label"] for one in found]
    assert watched.is_clean(url)


def test_a_list_has_a_text_per_line(watched: Watched, here: Callable[..., str]) -> None:
    url = here("ranking")
    watched.page.goto(url)
    watched.ask("bread", "flour and an hour\n\nthe train")
    body = {"query": "bread", "candidates": ["flour and an hour", "the train"]}
    expected = predict(url, [body]).content["predictions"][0]["ranking"]
    shown = watched.page.locator(".ranking li").all_inner_texts()
    assert [text.rpartition(" (")[0] for text in shown] == [one["candidate"] for one in expected]
    assert watched.is_clean(url)


def test_fillings_of_a_mask_are_bars(watched: Watched, here: Callable[..., str]) -> None:
    url = here("generator")
    watched.page.goto(url)
    watched.ask("The [MASK] is [MASK].")
    expected = predict(url, ["The [MASK] is [MASK]."]).content["predictions"][0]["masks"]
    assert watched.page.locator("h3").all_inner_texts() == ["[MASK] 1", "[MASK] 2"]
    labels = watched.page.locator(".bar .label").all_inner_texts()
    assert labels == [one["token"] for mask in expected for one in mask]


def test_an_error_is_told(watched: Watched, here: Callable[..., str]) -> None:
    watched.page.goto(here("generator"))
    watched.ask("nothing is missing")
    assert watched.page.inner_text("#error") == (
        "inputs[0]: has no [MASK] for the generator to fill"
    )
    assert watched.page.locator(".bar").count() == 0


def test_the_page_sends_a_token(watched: Watched, here: Callable[..., str]) -> None:
    watched.page.goto(here("classification", Settings(folders=(), token="open sesame")))
    watched.ask("a text")
    assert "bearer token is missing or wrong" in watched.page.inner_text("#error")
    watched.page.fill("#token", "open sesame")
    watched.ask("a text")
    assert watched.page.locator(".bar").count() == 2


def test_the_page_of_openapi_needs_no_other_server(
    watched: Watched, here: Callable[..., str], tmp_path: Path
) -> None:
    url = here("classification")
    watched.page.goto(f"{url}/docs")
    watched.page.wait_for_selector(".opblock")
    watched.page.click("#operations-default-predict_predict_post summary, .opblock-post")
    watched.page.wait_for_selector("text=Try it out")
    assert watched.is_clean(url)
