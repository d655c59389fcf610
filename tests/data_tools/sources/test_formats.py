"""Every format, plain and packed, gives the same documents, however it is cut; damage is found."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from data_tools.sources import find_inputs, split_parts
from electra_dist.errors import DataError
from tests.support.english import read_texts
from tests.support.reading import parts_of, read_all
from tests.support.without_packages import hide

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.fixture(scope="module")
def texts(samples: Path) -> list[str]:
    return read_texts(samples / "documents.jsonl") * 4


def table(texts: list[str]) -> pyarrow.Table:
    """The texts in columns of several types and depths."""
    return pyarrow.table(
        {
            "number": range(len(texts)),
            "text": texts,
            "large": pyarrow.array(texts, pyarrow.large_string()),
            "view": pyarrow.array(texts, pyarrow.string_view()),
            "coded": pyarrow.array(texts).dictionary_encode(),
            "page": [{"body": {"text": text}} for text in texts],
        }
    )


def as_ipc(texts: list[str], new: Callable[..., pyarrow.ipc.RecordBatchStreamWriter]) -> bytes:
    file = io.BytesIO()
    with new(file, table(texts).schema) as writer:
        writer.write_table(table(texts), max_chunksize=17)
    return file.getvalue()


def as_parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    columns = table(texts).drop_columns(["view"])
    pyarrow.parquet.write_table(columns, file, row_group_size=13)
    return file.getvalue()


def as_csv(texts: list[str]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["number", "text"])
    writer.writerows(enumerate(texts))
    return file.getvalue().encode()


def as_tsv(texts: list[str]) -> bytes:
    return "".join(
        f"{number}\t{text}\n" for number, text in [("number", "text"), *enumerate(texts)]
    ).encode()


FORMATS: dict[str, Callable[[list[str]], bytes]] = {
    "lines.jsonl": lambda texts: "".join(json.dumps({"text": t}) + "\n" for t in texts).encode(),
    "strings.jsonl": lambda texts: "".join(json.dumps(t) + "\n" for t in texts).encode(),
    "array.json": lambda texts: json.dumps([{"text": t} for t in texts], indent=1).encode(),
    "strings.json": lambda texts: json.dumps(texts).encode(),
    "lines.json": lambda texts: "\n".join(json.dumps({"text": t}) for t in texts).encode(),
    "table.csv": as_csv,
    "table.tsv": as_tsv,
    "table.parquet": as_parquet,
    "file.arrow": lambda texts: as_ipc(texts, pyarrow.ipc.new_file),
    "stream.arrow": lambda texts: as_ipc(texts, pyarrow.ipc.new_stream),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_same_documents_plain_and_packed(
    tmp_path: Path, texts: list[str], name: str, packing: str
) -> None:
    if name == "table.tsv":  # a tab or a line end cannot stand in a .tsv
        texts = [text for text in texts if "\n" not in text and "\t" not in text]
    if name == "table.csv":
        assert any("\n" in text for text in texts)
        assert any('"' in text for text in texts)
    path = tmp_path / (name + packing).upper()
    path.write_bytes(PACKINGS[packing](FORMATS[name](texts)))
    for part_bytes in (500, 5000, None):
        assert read_all(path, part_bytes=part_bytes) == texts
    if packing:
        assert len(parts_of(path, part_bytes=500)) == 1, "each part would unpack all of it"


@pytest.mark.parametrize("packing", list(PACKINGS)[1:])
@pytest.mark.parametrize("streams", [1, 3])
def test_a_text_is_packed_in_one_stream_or_several(
    tmp_path: Path, samples: Path, packing: str, streams: int
) -> None:
    content = (samples / "documents.txt").read_bytes()
    size = len(content) // streams + 1
    path = tmp_path / ("a.txt" + packing)
    path.write_bytes(
        b"".join(
            PACKINGS[packing](content[start : start + size])
            for start in range(0, len(content), size)
        )
    )
    assert read_all(path) == read_all(samples / "documents.txt")


@pytest.mark.parametrize("name", ["lines.jsonl", "table.parquet", "file.arrow", "stream.arrow"])
def test_large_plain_files_are_cut(tmp_path: Path, texts: list[str], name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FORMATS[name](texts))
    assert len(parts_of(path, part_bytes=5000)) > 3


@pytest.mark.parametrize("packing", list(PACKINGS)[1:])
def test_a_packed_file_that_is_cut_off_or_followed_by_something_is_refused(
    tmp_path: Path, texts: list[str], packing: str
) -> None:
    path = tmp_path / f"a.jsonl{packing}"
    packed = PACKINGS[packing](FORMATS["lines.jsonl"](texts))
    for content in (packed[:-7], packed[: len(packed) // 2], packed + b"garbage", b"no such file"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.jsonl{packing}: damaged .*; unpack it by hand"):
            read_all(path)


def test_what_follows_on_a_packed_file_is_refused(samples: Path) -> None:
    with pytest.raises(DataError, match=r"trailing\.jsonl\.gz: damaged gzip file"):
        read_all(samples / "trailing.jsonl.gz")


@pytest.mark.parametrize("name", ["table.parquet", "file.arrow", "stream.arrow"])
def test_columns_that_are_damaged_are_refused(tmp_path: Path, texts: list[str], name: str) -> None:
    content = FORMATS[name](texts)
    path = tmp_path / name
    for damaged in (content[:-30], content + content, content[:100], b"x" * 500):
        path.write_bytes(damaged)
        if name != "stream.arrow" and damaged == content + content:
            continue  # the places in these files are told at their end, and count from the start
        with pytest.raises(DataError, match=rf"{name}: "):
            read_all(path)


# --- keys and columns -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["large", "view", "coded", "page.body.text"])
@pytest.mark.parametrize("name", ["table.parquet", "file.arrow", "stream.arrow"])
def test_columns_of_every_kind_of_text_and_depth(
    tmp_path: Path, texts: list[str], name: str, key: str
) -> None:
    if (name, key) == ("table.parquet", "view"):
        return  # written as a plain string
    path = tmp_path / name
    path.write_bytes(FORMATS[name](texts))
    assert read_all(path, text_key=key, part_bytes=3000) == texts


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "file.arrow", "lines.jsonl"])
def test_a_key_that_is_missing_names_those_that_are_there(
    tmp_path: Path, texts: list[str], name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(FORMATS[name](texts))
    with pytest.raises(DataError, match=rf"{name}.*'?content.*'text'.*`text_key`"):
        read_all(path, text_key="content")


def test_a_column_that_holds_no_text_is_refused(tmp_path: Path, texts: list[str]) -> None:
    for name in ("table.parquet", "stream.arrow"):
        path = tmp_path / name
        path.write_bytes(FORMATS[name](texts))
        with pytest.raises(DataError, match="'number' is of the type int64, expected strings"):
            read_all(path, text_key="number")


def test_keys_may_be_nested_and_a_key_with_a_dot_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": {"b": "in"}}\n{"a": {"b": "in"}, "a.b": "out"}\n{"a": {"b": null}}\n')
    assert read_all(path, text_key="a.b") == ["in", "out", ""]
    with pytest.raises(DataError, match=r"line 1: .*under \"a\.c\", found keys \['a'\]"):
        read_all(path, text_key="a.c")


def test_null_is_an_empty_text_everywhere(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None]}), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": null}]')
    for name in ("a.parquet", "a.json"):
        assert read_all(tmp_path / name) == ["a", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"text": "a"}, {"txt": "b"}]', r"a\.json, element 2: .* found keys \['txt'\]"),
        ("a.json", '[{"text": "a"},', r"a\.json, after element 1: not valid JSON"),
        ("a.json", '[{"text": "a"}] []', r"a\.json, after element 1: not valid JSON"),
        ("a.json", "[[1]]", r"a\.json, element 1: expected a JSON object or a string, found list"),
        ("a.csv", "id,text\n1,a,b\n", r"a\.csv, line 2: found 3 columns, expected 2"),
        ("a.csv", 'id,text\n1,"a\n', r"a\.csv, line 2: unexpected end of data"),
        ("a.csv", "text,text\n1,a\n", r"a\.csv, line 1: found 2 columns of the name 'text'"),
        ("a.tsv", "id\ttext\n1\n", r"a\.tsv, line 2: found 1 columns, expected 2"),
    ],
)
def test_what_is_wrong_in_a_record_is_named_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_all(tmp_path / name)


def test_an_element_of_json_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_tools.sources import records

    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 200_000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["x" * 50_000] * 20))
    assert len(read_all(path)) == 20
    path.write_text(json.dumps(["x" * 50_000, "x" * 300_000]))
    with pytest.raises(DataError, match=r"a\.json: an element of more than 200,000 bytes"):
        read_all(path)


def test_what_is_not_installed_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), path)
    hide(monkeypatch, "pyarrow", "datasets")
    with pytest.raises(DataError, match=r"a\.parquet: .* `pip install 'electra-dist\[arrow\]'`"):
        read_all(path)
    with pytest.raises(DataError, match=r"hub:name: .* `pip install 'electra-dist\[hub\]'`"):
        split_parts(find_inputs(["hub:name"]))
