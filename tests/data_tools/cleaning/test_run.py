"""Cleaning: sums that add up, the same bytes whatever the workers and the cuts, whole or absent."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.cleaning import run as run_module
from data_tools.cleaning.report import CleanReport
from data_tools.cleaning.run import CleanOptions, clean_corpus
from data_tools.filters.catalog import parse_filters
from data_tools.filters.near import Near
from data_tools.sources import find_inputs, read_documents, split_parts
from electra_dist.errors import DataError, StorageError, UserError

PLAIN = CleanOptions(compress="gz", picture=False, part_bytes=4096)
#: Filters that each drop something of `CORPUS`.
ALL = ("html", "length:min_words=8", "letters", "repetition", "language", "exact", "near")


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def read_clean(out: Path) -> list[str]:
    """The documents of all files, in order, read without the code under test."""
    texts = []
    for path in sorted(out.glob("clean-*.jsonl.*")):
        content = path.read_bytes()
        if path.suffix == ".gz":
            lines = gzip.decompress(content)
        else:
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as stream:
                lines = stream.read()
        texts += [json.loads(line)["text"] for line in lines.decode("utf-8").split("\n") if line]
    return texts


def run_here(
    function: Callable[[Any], Any], tasks: Sequence[Any], workers: int, stage: str, told: Any
) -> list[Any]:
    """The tasks in this process, one after the other."""
    results = []
    for number, task in enumerate(tasks, start=1):
        results.append(function(task))
        told(stage, number, len(tasks))
    return results


@pytest.fixture
def serial(monkeypatch) -> None:
    """No worker processes: quick, for many small corpora."""
    monkeypatch.setattr(run_module, "run_tasks", run_here)


def sentence(choice: random.Random, words: int = 40) -> str:
    nouns = ("harbour", "boat", "net", "captain", "letter", "storm", "island", "lamp", "winter")
    verbs = ("found", "left", "watched", "carried", "sold", "mended", "painted", "reached")
    made = []
    for _ in range(words // 8):
        made.append(
            f"The {choice.choice(nouns)} near the {choice.choice(nouns)} {choice.choice(verbs)}"
            f" their {choice.choice(nouns)} {choice.randrange(1000)}"
        )
    return ". ".join(made) + "."


def corpus() -> list[str]:
    """Some 300 documents, of which each filter drops a few."""
    choice = random.Random(7)
    texts = [sentence(choice) for _ in range(200)]
    texts += [choice.choice(texts[:200]) for _ in range(20)]
    texts += [
        choice.choice(texts[:200]).replace("winter", "summer", 1) + " The end." for _ in range(20)
    ]
    texts += ["too short", "", "one two three"] * 5
    texts += [
        f"17.500 3,200 44.25 12.175 990,000 1.0001 88.12 7,777 {number}" for number in range(9)
    ]
    texts += ["buy these shoes now " * 10, "menu home contact\n" * 12]
    texts += [
        f"Das Boot Nummer {n} lag am Morgen still im Hafen, und der Fischer flickte sein Netz."
        for n in range(5)
    ]
    texts += [
        f"<html><body><main><p>{sentence(choice)}</p></main></body></html>" for _ in range(10)
    ]
    texts += ["<html><body><script>x()</script></body></html>"]
    choice.shuffle(texts)
    return texts


CORPUS = corpus()


def check_sums(report: CleanReport, texts: Sequence[str], kept: Sequence[str]) -> None:
    """Nothing is dropped silently: each filter gets what the one before it left."""
    documents = len(texts)
    characters = sum(map(len, texts))
    assert (report.documents, report.characters) == (documents, characters)
    for one in report.filters:
        assert (one.documents, one.characters) == (documents, characters), one.name
        assert sum(one.reasons.values()) == one.dropped_documents
        assert 0 <= one.dropped_documents <= one.documents
        documents -= one.dropped_documents
        characters -= one.dropped_characters + one.removed_characters
    assert (report.kept_documents, report.kept_characters) == (documents, characters)
    assert (len(kept), sum(map(len, kept))) == (documents, characters)


def test_every_filter_drops_something_and_the_sums_add_up(tmp_path, serial) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", CORPUS)
    out = tmp_path / "out"
    report = clean_corpus([source], out, parse_filters(ALL), PLAIN)
    kept = read_clean(out)
    check_sums(report, CORPUS, kept)
    assert [one.name for one in report.filters] == [name.partition(":")[0] for name in ALL]
    assert not [one.name for one in report.filters if not one.dropped_documents]
    assert report.filters[0].changed_documents == 11
    assert not [text for text in kept if "<" in text or "Hafen" in text]
    assert json.loads((out / "clean-report.json").read_text()) == report.to_dict()
    assert sorted(path.name for path in out.iterdir()) == [
        "clean-00000.jsonl.gz",
        "clean-report.json",
    ]


def test_the_bytes_do_not_depend_on_workers_parts_or_ranges(tmp_path, monkeypatch) -> None:
    sources = [
        write_jsonl(tmp_path / "a.jsonl", CORPUS[:170]),
        write_jsonl(tmp_path / "b.jsonl", CORPUS[170:]),
    ]
    base = replace(PLAIN, picture=True, file_bytes=8192)

    def files(name: str, options: CleanOptions) -> dict[str, bytes]:
        clean_corpus(sources, tmp_path / name, parse_filters(ALL), options)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    of_two = files("two", replace(base, workers=2, part_bytes=15_000, range_bytes=3000))
    assert len([name for name in of_two if name.startswith("clean-")]) >= 3
    assert of_two["clean-report.png"].startswith(b"\x89PNG")
    monkeypatch.setattr(run_module, "run_tasks", run_here)
    assert files("one", replace(base, part_bytes=1500, range_bytes=500)) == of_two
    whole = files("whole", replace(base, part_bytes=10**6, picture=False))
    assert whole == {name: of_two[name] for name in of_two if name != "clean-report.png"}


def test_what_is_kept_is_the_input_in_its_order_without_the_later_duplicates(
    tmp_path, serial
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", CORPUS)
    out = tmp_path / "out"
    clean_corpus([source], out, parse_filters(["exact"]), PLAIN)
    assert read_clean(out) == list(dict.fromkeys(CORPUS))


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["one two three", "one  two three", "", "four", "five six seven eight"]),
        st.text(max_size=30),
    ),
    min_size=1,
    max_size=40,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    texts=TEXTS,
    part_bytes=st.integers(40, 2000),
    range_bytes=st.integers(40, 500),
    file_bytes=st.integers(20, 500),
    seed=st.integers(0, 5),
)
def test_any_documents_and_any_cuts_give_the_reference(
    texts, part_bytes, range_bytes, file_bytes, seed, tmp_path_factory, serial
) -> None:
    """Exact duplicates by a dictionary; files in order hold every kept document once."""
    folder = tmp_path_factory.mktemp("any")
    source = write_jsonl(folder / "in.jsonl", texts)
    options = replace(
        PLAIN, part_bytes=part_bytes, range_bytes=range_bytes, file_bytes=file_bytes, seed=seed
    )
    report = clean_corpus([source], folder / "out", parse_filters(["exact"]), options)
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(" ".join(text.split()), text)
    kept = read_clean(folder / "out")
    assert kept == list(first.values())
    check_sums(report, texts, kept)
    files = sorted((folder / "out").glob("clean-*.jsonl.*"))
    assert len(files) == report.files
    assert sum(path.stat().st_size for path in files) == report.bytes
    assert all(gzip.decompress(path.read_bytes()) for path in files)
    dropped = len(texts) - len(kept)
    assert len(report.filters[0].examples) <= min(dropped, options.examples)
    assert bool(report.filters[0].examples) == bool(dropped)


def test_near_duplicates_are_those_of_a_brute_force_comparison(tmp_path, serial) -> None:
    """Every pair whose Jaccard similarity is 0.95 or more loses its later document, as no pair
    below 0.3 does; between them, chance decides.
    """
    choice = random.Random(3)
    words = [f"word{number}" for number in range(500)]
    texts = []
    for _ in range(60):
        text = choice.choices(words, k=150)
        texts.append(" ".join(text))
        for edits in choice.sample([0, 1, 3, 30, 60], k=2):
            other = list(text)
            for place in choice.sample(range(150), edits):
                other[place] = choice.choice(words)
            texts.append(" ".join(other))
    sets = [
        {tuple(split[start : start + 5]) for start in range(len(split) - 4)}
        for split in (text.split() for text in texts)
    ]

    def nearest_before(place: int) -> float:
        mine = sets[place]
        return max((len(mine & s) / len(mine | s) for s in sets[:place]), default=0.0)

    similarity = [nearest_before(place) for place in range(len(texts))]
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    out = tmp_path / "out"
    clean_corpus([source], out, parse_filters(["near"]), replace(PLAIN, range_bytes=500))
    kept = set(read_clean(out))
    alike = [text for text, s in zip(texts, similarity, strict=True) if s >= 0.95]
    different = [text for text, s in zip(texts, similarity, strict=True) if s < 0.3]
    assert len(alike) >= 20
    assert len(different) >= 60
    repeated = {text for place, text in enumerate(texts) if text in texts[:place]}
    assert not [text for text in alike if text in kept and text not in repeated]
    assert all(text in kept for text in different)
    assert Near().bands == 14


def test_examples_are_chosen_by_the_seed_and_show_the_earlier_document(tmp_path, serial) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", CORPUS)
    filters = parse_filters(["length:min_words=8", "near"])
    chosen = {}
    for seed in (1, 2):
        options = replace(PLAIN, seed=seed, examples=2)
        report = clean_corpus([source], tmp_path / f"out{seed}", filters, options)
        again = clean_corpus([source], tmp_path / f"again{seed}", filters, options)
        assert report == again
        chosen[seed] = report.filters[1].examples
        assert len(chosen[seed]) == 2
    assert chosen[1] != chosen[2]
    for example in (*chosen[1], *chosen[2]):
        if example.like:
            own = set(example.text.split())
            assert len(own & set(example.like.split())) > 0.7 * len(own)
    assert any(example.like for example in (*chosen[1], *chosen[2]))


def test_the_default_is_zstandard(tmp_path, serial) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", CORPUS)
    out = tmp_path / "out"
    options = replace(PLAIN, compress=CleanOptions().compress)
    clean_corpus([source], out, parse_filters(["exact"]), options)
    assert [path.name for path in out.glob("clean-*.jsonl.*")] == ["clean-00000.jsonl.zst"]
    assert read_clean(out) == list(dict.fromkeys(CORPUS))


def test_a_build_reads_what_was_written(tmp_path, serial) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [*CORPUS, "a lone \ud800 surrogate, " * 4])
    out = tmp_path / "out"
    clean_corpus([source], out, parse_filters(["exact"]), replace(PLAIN, file_bytes=5000))
    parts = split_parts(find_inputs(sorted(out.glob("clean-*.jsonl.*"))))
    assert [text for part in parts for text in read_documents(part)] == read_clean(out)


# --- what cannot be -------------------------------------------------------------------------------


def test_dropping_everything_is_an_error_that_names_the_filters(tmp_path, serial) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ["one two", "three", "four four four four"])
    filters = parse_filters(["length:min_words=3,min_word_length=5", "exact"])
    with pytest.raises(
        DataError,
        match=r"every one of the 3 documents was dropped: length 3 \(most by min_words=3\)",
    ):
        clean_corpus([source], tmp_path / "out", filters, PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (replace(PLAIN, workers=0), "`workers` 0: expected at least 1"),
        (replace(PLAIN, examples=-1), "`examples` -1: expected 0 or more"),
        (replace(PLAIN, seed=-1), "`seed` -1: expected a whole number"),
        (replace(PLAIN, compress="rar"), "`compress` rar: expected one of zst, gz"),  # type: ignore[arg-type]
    ],
)
def test_an_option_that_cannot_be_is_named(options: CleanOptions, words: str, tmp_path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", CORPUS)
    with pytest.raises(DataError) as caught:
        clean_corpus([source], tmp_path / "out", parse_filters(["exact"]), options)
    assert words in str(caught.value)


def test_an_output_that_holds_something_is_left_alone(tmp_path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", CORPUS)
    with pytest.raises(DataError, match=r"in.jsonl: is a file; give a folder"):
        clean_corpus([source], source, parse_filters(["exact"]), PLAIN)
    with pytest.raises(DataError, match="holds something already; give a new folder"):
        clean_corpus([source], tmp_path, parse_filters(["exact"]), PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_nothing_is_left_where_the_input_is_damaged_and_what_is_done_where_the_disk_is_full(
    tmp_path, serial, monkeypatch
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "fine"}\n{"text": 7}\n')
    with pytest.raises(DataError, match=r"in.jsonl, line 2"):
        clean_corpus([source], tmp_path / "out", parse_filters(["exact"]), PLAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    write_jsonl(source, CORPUS)
    monkeypatch.setattr(run_module, "write_json", full)
    with pytest.raises(StorageError, match=r"no space left; make room .* it goes on"):
        clean_corpus([source], tmp_path / "out", parse_filters(["exact"]), PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.cleaning", "in.jsonl"]


@pytest.mark.parametrize("package", ["zstandard", "matplotlib"])
def test_a_missing_package_is_named_before_the_work(package: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    source = write_jsonl(tmp_path / "in.jsonl", CORPUS)
    with pytest.raises(UserError, match=rf"needs {package}: pip install"):
        clean_corpus([source], tmp_path / "out", parse_filters(["exact"]), CleanOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
