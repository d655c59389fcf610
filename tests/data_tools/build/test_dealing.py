"""One large file that cannot be cut: one process reads it, several encode, and the shards are those
of a single worker.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from data_tools.build import BuildOptions, build_part, build_shards, encoding, merge_parts
from data_tools.build.encode import EncodeTask, encode
from data_tools.build.records import Encoded
from data_tools.dealing import deal_out, read_deal
from data_tools.sources import ReadOptions, find_inputs, read_pieces, split_parts
from electra_dist.errors import DataError
from tests.support.inline import play_inline

SMALL = BuildOptions(validation=0.15, part_bytes=20_000)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def as_jsonl(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def write(path: Path, texts: list[str]) -> Path:
    """The texts in the format that the name ends with."""
    if path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(as_jsonl(texts).encode()))
    elif path.name.endswith(".txt.gz"):
        path.write_bytes(gzip.compress("\n\n".join(texts).encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"text": text} for text in texts]))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in texts)])
    else:
        path.write_text(as_jsonl(texts))
    return path


@pytest.fixture
def texts(topic_texts: list[str]) -> list[str]:
    """One of them twice: whether that is one document or two depends on the options."""
    return [text for text in [*topic_texts[:60], topic_texts[3]] if text.strip()]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[EncodeTask]:
    """The tasks that workers had, which are played in this process."""
    play_inline(monkeypatch)
    found: list[EncodeTask] = []

    def watched(task: EncodeTask) -> Encoded:
        found.append(task)
        return encode(task)

    monkeypatch.setattr(encoding, "encode", watched)
    return found


# --- the deals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json", "a.csv", "a.txt.gz"])
@pytest.mark.parametrize("size", [1, 7_000, 10**9])
def test_deals_together_are_the_documents_of_the_part(texts, tmp_path, name, size):
    path = write(tmp_path / name, texts)
    (part,) = split_parts(find_inputs([path]), 2**40)
    expected = list(read_pieces(part))
    found = []
    for deal in deal_out(part, size, lambda number: tmp_path / f"{number}"):
        assert deal.first == len({piece.document for piece in found})
        pieces = list(read_deal(deal))
        found += [piece._replace(document=piece.document + deal.first) for piece in pieces]
        sizes = [len(piece.text.encode()) for piece in pieces]
        # a deal ends with the document that fills it
        assert sum(sizes) - sizes[-1] < size
    assert found == expected


def test_a_document_of_many_pieces_is_in_one_deal(tmp_path):
    long = "word " * 700_000
    path = write(tmp_path / "a.jsonl.gz", ["first", long, "last"])
    (part,) = split_parts(find_inputs([path]), 2**40)
    deals = list(deal_out(part, 5, lambda number: tmp_path / f"{number}"))
    pieces = [list(read_deal(deal)) for deal in deals]
    assert [len(of_deal) for of_deal in pieces] == [1, 4, 1]
    assert "".join(piece.text for piece in pieces[1]) == long
    assert [(piece.number, piece.last) for piece in pieces[1]] == [
        (0, False),
        (1, False),
        (2, False),
        (3, True),
    ]


def test_half_a_character_survives(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "half \\ud83d of one"}\n'))
    (part,) = split_parts(find_inputs([path]), 2**40)
    (deal,) = deal_out(part, 10, lambda number: tmp_path / f"{number}")
    assert list(read_deal(deal)) == list(read_pieces(part))


def test_unwanted_deals_are_not_written(texts, tmp_path):
    path = write(tmp_path / "a.json", texts)
    (part,) = split_parts(find_inputs([path]), 2**40)
    folder = tmp_path / "deals"
    folder.mkdir()
    deals = list(deal_out(part, 5_000, lambda number: folder / f"{number}", {0, 2}))
    assert len(deals) > 5
    assert {path.name for path in folder.iterdir()} == {
        str(deal.number) for deal in deals if deal.number not in {0, 2}
    }


# --- the build ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json", "a.csv"])
def test_the_shards_are_those_of_the_plain_file(texts, tokenizer_dir, tmp_path, name, encoded):
    build_shards([write(tmp_path / "a.jsonl", texts)], tokenizer_dir, tmp_path / "plain", SMALL)
    encoded.clear()
    build_shards([write(tmp_path / name, texts)], tokenizer_dir, tmp_path / "dealt", SMALL)
    assert len([task for task in encoded if task.deal]) == len(encoded) > 4
    assert files_of(tmp_path / "dealt") == files_of(tmp_path / "plain")


@pytest.mark.parametrize("deduplicate", [True, False])
def test_the_shards_are_those_of_one_worker_that_reads_the_file_itself(
    texts, tokenizer_dir, tmp_path, monkeypatch, encoded, deduplicate
):
    """Also where copies are kept, whose place in the shuffle is that in the file."""
    options = dataclasses.replace(SMALL, deduplicate=deduplicate)
    path = write(tmp_path / "a.csv", texts)
    dealt = build_shards([path], tokenizer_dir, tmp_path / "dealt", options)
    assert len(encoded) > 4
    monkeypatch.setattr(encoding, "_LARGE", 10**9)
    encoded.clear()
    alone = build_shards([path], tokenizer_dir, tmp_path / "alone", options)
    assert [task.deal for task in encoded] == [None]
    assert files_of(tmp_path / "dealt") == files_of(tmp_path / "alone")
    assert dealt.documents == alone.documents == len(texts)
    assert dealt.duplicates == alone.duplicates == int(deduplicate)
    assert dealt.shares == alone.shares


def test_real_workers_write_the_same_and_leave_nothing_behind(texts, tokenizer_dir, tmp_path):
    path = write(tmp_path / "a.jsonl.gz", texts)
    for workers in (1, 3):
        options = dataclasses.replace(SMALL, workers=workers)
        build_shards([path], tokenizer_dir, tmp_path / f"{workers}", options)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "a.jsonl.gz"]


def test_an_interrupted_build_encodes_only_the_deals_that_are_missing(
    texts, tokenizer_dir, tmp_path, monkeypatch, encoded
):
    path = write(tmp_path / "a.json", texts)
    out = tmp_path / "shards"
    build_shards([path], tokenizer_dir, tmp_path / "expected", SMALL)
    whole = len(encoded)
    encoded.clear()

    def killed(task: EncodeTask) -> Encoded:
        if len(encoded) == 3:
            raise MemoryError("killed")
        encoded.append(task)
        return encode(task)

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "encode", killed)
        with pytest.raises(MemoryError):
            build_shards([path], tokenizer_dir, out, SMALL)
    told: list[tuple[Any, ...]] = []
    build_shards([path], tokenizer_dir, out, SMALL, lambda *words: told.append(words))
    assert len(encoded) == whole
    assert len({task.deal_number for task in encoded}) == whole
    assert files_of(out) == files_of(tmp_path / "expected")
    counts = [(done, total) for stage, done, total in told if stage == "encode"]
    assert all(done <= total for done, total in counts)
    assert counts[-1] == (whole, whole)


def test_parts_of_several_nodes_take_dealt_files(texts, tokenizer_dir, tmp_path, encoded):
    half = len(texts) // 2
    paths = [
        write(tmp_path / "a.json", texts[:half]),
        write(tmp_path / "b.jsonl.gz", texts[half:]),
    ]
    build_shards(paths, tokenizer_dir, tmp_path / "expected", SMALL)
    encoded.clear()
    for part in (1, 2):
        build_part(paths, tokenizer_dir, tmp_path / f"part-{part}", part, 2, SMALL)
    assert len({task.number for task in encoded if task.deal}) == 2
    merge_parts([tmp_path / "part-1", tmp_path / "part-2"], tmp_path / "merged")
    assert files_of(tmp_path / "merged") == files_of(tmp_path / "expected")


def test_a_bad_line_is_named_and_nothing_is_kept(texts, tokenizer_dir, tmp_path, encoded):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((as_jsonl(texts) + "{\n").encode()))
    with pytest.raises(DataError, match=rf"a\.jsonl\.gz, line {len(texts) + 1}: not valid JSON"):
        build_shards([path], tokenizer_dir, tmp_path / "shards", SMALL)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl.gz"]


def test_many_packed_files_are_each_read_by_a_worker(texts, tokenizer_dir, tmp_path, encoded):
    """One reader would be the bound of all of them."""
    for number in range(40):
        mine = [f"{number} {text}" for text in texts[:6]]
        write(tmp_path / f"{number:02d}.jsonl.gz", mine)
    inputs = find_inputs(sorted(tmp_path.glob("*.gz")), ReadOptions())
    options = dataclasses.replace(SMALL, part_bytes=1_000)
    build_shards(inputs, tokenizer_dir, tmp_path / "shards", options)
    assert [task.deal for task in encoded] == [None] * 40
