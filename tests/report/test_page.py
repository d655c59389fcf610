"""The page without a browser: it asks nobody for anything, and texts of users are only texts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from electra_dist.errors import UserError
from electra_dist.references import Reference
from electra_dist.report import render_page
from electra_dist.report.comparison import Comparison, compare
from electra_dist.report.differences import warnings_of
from electra_dist.runs.directory import RunDir
from tests.report.conftest import HOSTILE
from tests.support.small_runs import DATASET, TOKENIZER, rows_of, training_row, write_run
from tests.support.without_packages import hide

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


class Page(HTMLParser):
    """What a browser makes of a page: elements, attributes, text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._open = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(sweep: Path) -> Page:
    return Page(render_page(compare([sweep]), NOW))


def drawn(page: Page) -> dict[str, list[dict[str, object]]]:
    """The numbers that the script draws."""
    content: dict[str, list[dict[str, object]]] = json.loads(page.scripts[0])
    return content


def test_nothing_in_the_page_asks_another_place_for_anything(page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:image/png;base64,")), value
        assert not [name for name in attributes if name.startswith("on")]
    assert not page.all("link")


def test_the_policy_lets_the_two_scripts_run_and_nothing_else(page: Page) -> None:
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") is not None]
    assert policy is not None
    hashes = re.findall(r"'sha256-([^']+)'", policy)
    scripts = page.scripts[1:]
    expected = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert hashes == expected
    assert len(scripts) == 2
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert rules["img-src"] == "data: blob:"


def test_texts_of_users_are_texts(page: Page) -> None:
    assert not [one for one in page.all("img") if "onerror" in one]
    assert not [tag for tag, _ in page.elements if tag == "b"]
    assert HOSTILE in page.text
    assert "<b>snow</b>" in page.text
    assert "the loss </script> jumped" in page.text
    assert HOSTILE in [run["label"] for run in drawn(page)["runs"]]


def test_every_chart_is_named_and_has_its_numbers_in_a_table(page: Page) -> None:
    plots = [one for one in page.all("div") if (one.get("class") or "").startswith("plot")]
    assert len(plots) >= 6
    for plot in plots:
        assert plot["role"] == "img"
        assert plot["aria-label"]
    names = [str(one.get("aria-label")) for one in plots]
    (loss,) = [name for name in names if name.startswith("Generator loss over training")]
    assert "a: 7.922 at step 2, 6.271 at step 100" in loss
    assert page.text.count("Table: ") == len(drawn(page)["charts"]) + 1


def test_identifiers_are_unique_and_links_lead_to_them(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for link in page.all("a"):
        assert str(link["href"]).removeprefix("#") in names


def test_headings_go_down_one_level_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_it_tells_differences_what_happened_and_health(page: Page) -> None:
    assert "optim.lr" in page.text
    assert "0.002" in page.text
    assert "Step 20: rolled back from step 30 to 20" in page.text
    assert "Step 60: restarted 2030-01-01T00:00:00Z, 2 ranks" in page.text
    assert "warning, since step 40: A fifth of a step is spent waiting for data." in page.text
    assert "Raise data.workers." in page.text
    assert "Rows of a, b do not tell their time" in page.text


def test_the_best_of_a_sweep_is_marked(tmp_path: Path) -> None:
    for number, loss in enumerate((6.3, 6.1, 6.2)):
        rows = [*rows_of(10, 2)[:-1], {"step": 10, "validation/loss/generator": loss}]
        write_run(
            tmp_path / f"r{number}", rows, {"optim": {"warmup_steps": 0, "lr": number + 1e-3}}
        )
    page = Page(render_page(compare([tmp_path]), NOW))
    assert "6.100 ★" in page.text
    assert "6.300 ★" not in page.text


def test_many_rows_make_no_large_page(tmp_path: Path, one_run: RunDir) -> None:
    small = len(render_page(compare([one_run.path]), NOW))
    write_run(tmp_path / "long", (training_row(step) for step in range(1, 5_001)))
    large = render_page(compare([tmp_path / "long"]), NOW)
    assert len(large) - small < 1_500_000
    for chart in drawn(Page(large))["charts"]:
        for curve in chart["curves"]:  # type: ignore[attr-defined]
            assert len(curve["rows"]) <= 1000


def test_a_copy_without_its_data_has_parameters_corpus_and_flops(
    tmp_path: Path, one_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_run.path.rename(tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    page = Page(render_page(compare([Path("copy")]), NOW))
    assert "1,234,567" in page.text
    (run,) = drawn(page)["runs"]
    assert None not in run["places"]["flops"]  # type: ignore[index]


# --- what cannot be compared ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "facts", "words"),
    [
        ({}, {"about": {"tokenizer": "b" * 64}}, "Losses cannot be compared: the tokens of"),
        ({"data": {"shards": "s", "mask_fraction": 0.3}}, {}, "Losses cannot be compared: more"),
        ({}, {"dataset_fingerprint": "e" * 64}, "Held-out values are measured on different text"),
        (
            {},
            {"starts": [{"world_size": 1, "time": "", "host": "", "electra-dist": "9.9"}]},
            "Metrics were written by different versions",
        ),
        ({}, {"about": None}, "not known where a run does not tell its tokenizer"),
    ],
)
def test_runs_that_do_not_compare_are_shown_with_the_reason(
    tmp_path: Path, config: dict[str, object], facts: dict[str, object], words: str
) -> None:
    write_run(tmp_path / "a", rows_of(10, 2))
    write_run(tmp_path / "b", rows_of(10, 2), config, facts)
    comparison = compare([tmp_path])
    (warning,) = warnings_of(comparison.runs)
    assert words in warning
    page = Page(render_page(comparison, NOW))
    assert warning in page.text
    is_marked = "6.100 ★" in page.text
    assert is_marked == (not warning.startswith("Losses cannot be compared"))


def test_alike_runs_have_no_warning(sweep: Path) -> None:
    runs = [loaded for loaded in compare([sweep]).runs if loaded.label != HOSTILE]
    assert warnings_of(runs) == [
        warning for warning in warnings_of(runs) if warning.startswith("Metrics were written")
    ]


# --- what lies beside the metrics -----------------------------------------------------------------


def test_pictures_are_part_of_the_page_and_what_is_none_is_told(one_run: RunDir) -> None:
    (one_run.path / "evaluation.png").write_bytes(PNG)
    (one_run.path / "evaluations").mkdir()
    (one_run.path / "evaluations/step-00000050.png").write_bytes(b"GIF89a")
    (one_run.path / "evaluation-link.png").symlink_to(one_run.config)
    page = Page(render_page(compare([one_run.path]), NOW))
    (picture,) = page.all("img")
    assert picture["src"] == "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert picture["alt"]
    assert "step-00000050.png is no PNG" in page.text


def test_damaged_passages_and_evaluations_are_a_sentence_each(one_run: RunDir) -> None:
    samples = one_run.path / "samples"
    samples.mkdir()
    (samples / "step-00000010.json").write_text(
        '{"step": 10, "passages": [{"source": "s", "pieces": 3}]}'
    )
    (one_run.path / "evaluation.json").write_text("{")
    (one_run.path / "evaluation-2.json").write_text('{"step": 1, "rows": 2, "roc": [[1]]}')
    page = Page(render_page(compare([one_run.path]), NOW))
    assert (
        "Left out: samples/step-00000010.json: no passages of a step: passages.0.pieces"
        in page.text
    )
    assert "evaluation.json is left out: it cannot be read as JSON" in page.text
    assert "evaluation-2.json is left out: roc.0" in page.text


# --- references -----------------------------------------------------------------------------------


def reference() -> Reference:
    """Two seeds that were trained for 100 steps."""
    return Reference.from_json(
        {
            "format": 1,
            "name": "toy",
            "recipe": "data: {shards: s}\nmodel: {preset: tiny}\n"
            "train: {steps: 100, global_rows: 4, micro_rows: 1}\noptim: {warmup_steps: 0}\n",
            "command": "c",
            "device": "CPU",
            "software": {},
            "real_tokens": 1,
            "tokenizer": TOKENIZER,
            "dataset": DATASET,
            "seeds": [1, 2],
            "every": 10,
            "curves": {
                "loss/generator": {
                    "steps": [10, 90, 110, 200],
                    "values": [[8.0, 6.0, 5.0, 4.0], [8.2, 6.2, 5.1, 4.3]],
                }
            },
        }
    )


def test_the_band_of_a_reference_lies_behind_the_curve(sweep: Path) -> None:
    compared = compare([sweep])
    measure = reference()
    page = Page(render_page(Comparison(compared.runs, (), measure), NOW))
    bands = {chart["title"]: chart["band"] for chart in drawn(page)["charts"]}
    expected = measure.band("loss/generator")
    assert expected is not None
    found = bands.pop("Generator loss")
    assert isinstance(found, dict)
    assert found["steps"] == [10, 90, 110], "as far as the runs have come"
    assert found["low"] == pytest.approx(expected.low[:3], rel=1e-4)
    assert found["high"] == pytest.approx(expected.high[:3], rel=1e-4)
    assert set(bands.values()) == {None}
    assert f"are no measure for {HOSTILE}, b:" in page.text


def test_a_reference_that_is_not_there_is_said(one_run: RunDir) -> None:
    with pytest.raises(UserError, match="no-such: no such reference"):
        compare([one_run.path], "no-such")


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_a_missing_package_is_one_sentence(
    package: str, one_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, package)
    with pytest.raises(UserError, match=r"pip install 'electra-dist\[report\]'"):
        render_page(compare([one_run.path]), NOW)
