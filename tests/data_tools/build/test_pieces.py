"""Long documents: the same text and ids as in one go, in pieces apart, in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.build import BuildOptions, build_shards
from data_tools.build import pieces as pieces_module
from data_tools.build.encode import EncodeTask, encode
from data_tools.build.pieces import Chunks, NormalStream, TextStream
from data_tools.clean import digest, normal_form, normalise
from data_tools.sources import Part, find_inputs, split_parts
from data_tools.tokenizer import load_tokenizer
from electra_dist.data.shards.manifest import TRAIN, VALIDATION, Manifest, SplitName
from electra_dist.data.shards.reading import BlockReader
from tests.support.inline import play_inline


def part_of(path: Path) -> Part:
    """All of a file."""
    (part,) = split_parts(find_inputs([path]))
    return part


LETTERS = st.sampled_from(["a", "é", "e\u0301", "ﬁ", "字", " ", "  ", "\n", "\r\n", "\x00", "\t"])


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.lists(LETTERS, max_size=6).map("".join), min_size=1, max_size=6))
def test_pieces_are_normalised_like_the_whole(parts):
    # The reader cuts at white space, so no piece but the first starts with another character.
    pieces = [parts[0], *(" " + part for part in parts[1:])]
    whole = "".join(pieces)
    stream = NormalStream()
    assert "".join(stream.add(piece) for piece in pieces) == normal_form(whole).strip()
    text = TextStream()
    assert "".join([*(text.add(piece) for piece in pieces), text.rest()]) == normalise(whole)
    assert text.characters == len(normalise(whole).strip())


@settings(max_examples=300, deadline=None)
@given(text=st.lists(LETTERS, max_size=12).map("".join), cuts=st.lists(st.integers(0, 20)))
def test_the_text_does_not_depend_on_where_the_reader_cuts(text, cuts):
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    stream = TextStream()
    found = [stream.add(text[start:end]) for start, end in pairwise(ends)]
    assert "".join([*found, stream.rest()]) == normalise(text)
    assert stream.characters == len(normalise(text).strip())


def chunks_of(text: str, step: int) -> list[str]:
    chunks = Chunks()
    found = []
    for start in range(0, len(text), step):
        found += chunks.add(text[start : start + step])
    return [*found, chunks.rest()]


@pytest.mark.parametrize("kind", ["ours", "bytes"])
def test_ids_of_chunks_are_those_of_the_whole(kind, tokenizer_dir, topic_texts, monkeypatch):
    monkeypatch.setattr(pieces_module, "CHUNK_CHARACTERS", 400)
    text = normalise("\n\n".join(topic_texts[:30]) + " 字 e\u0301" * 99)
    if kind == "ours":
        encode_batch = load_tokenizer(tokenizer_dir).encode_batch
    else:
        encode_batch = byte_level(topic_texts)
    chunks = chunks_of(text, 37)
    assert len(chunks) > 100
    assert chunks == chunks_of(text, 5000), "where the reader cuts plays no part"
    joined = np.concatenate(encode_batch(chunks))
    np.testing.assert_array_equal(joined, encode_batch([text])[0])


def byte_level(texts: list[str]):
    """A tokenizer as GPT-2's: white space belongs to the word after it."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    found = tokenizers.Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
    return lambda parts: [np.array(e.ids, np.uint32) for e in found.encode_batch(parts)]


# --- in shards ------------------------------------------------------------------------------------


def documents(manifest: Manifest, split: SplitName) -> list[list[int]]:
    found = []
    reader = BlockReader(manifest, split)
    for number in range(len(reader)):
        block = reader.read(number)
        ends = np.cumsum(block.lengths).tolist()
        found += [
            block.tokens[end - length : end].tolist()
            for end, length in zip(ends, block.lengths.tolist(), strict=True)
        ]
    return found


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Five books of 3,000 different words, and 60 letters."""
    path = tmp_path / "books.jsonl"
    books = [" ".join(f"b{book}w{word}" for word in range(3000)) for book in range(5)]
    letters = [f"letter {number} says hello" for number in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in books + letters))
    return path


def test_a_book_is_cut_and_spread_and_stays_in_one_split(
    books, tokenizer_dir, tmp_path, monkeypatch
):
    play_inline(monkeypatch)
    options = BuildOptions(validation=0.4, piece_tokens=100, block_tokens=1000)
    stats = build_shards([books], tokenizer_dir, tmp_path / "shards", options)
    assert stats.manifest.facts.piece_tokens == 100
    assert stats.cut == 5
    tokenizer = load_tokenizer(tokenizer_dir)
    texts = [json.loads(line)["text"] for line in books.open()]
    splits = {name: documents(stats.manifest, name) for name in (TRAIN, VALIDATION)}
    for ids in tokenizer.encode_batch(texts[:5]):
        count = -(-len(ids) // 100)
        cuts = [len(ids) * number // count for number in range(count + 1)]
        expected = {tuple(ids[a:b].tolist()) for a, b in pairwise(cuts)}
        homes = [name for name, found in splits.items() if expected & set(map(tuple, found))]
        assert len(homes) == 1, "all pieces of a document are in one split"
        places = [at for at, piece in enumerate(splits[homes[0]]) if tuple(piece) in expected]
        assert len(places) == count
        near = np.mean(np.diff(places) == 1)
        assert near < 0.6, "a chapter's neighbour in the book is not its neighbour in the corpus"
    whole = build_shards([books], tokenizer_dir, tmp_path / "w", replace(options, piece_tokens=0))
    assert whole.manifest.facts.piece_tokens is None
    assert whole.cut == 0
    tokens = [
        m.facts.train.tokens + m.facts.validation.tokens for m in (stats.manifest, whole.manifest)
    ]
    assert tokens[0] == tokens[1] == sum(map(len, tokenizer.encode_batch(texts)))


def test_a_document_given_twice_is_dropped_with_all_its_pieces(
    books, tokenizer_dir, tmp_path, monkeypatch
):
    play_inline(monkeypatch)
    options = BuildOptions(validation=0.4, piece_tokens=100, block_tokens=1000)
    once = build_shards([books], tokenizer_dir, tmp_path / "once", options)
    copy = tmp_path / "copy.jsonl"
    copy.write_text(books.read_text())
    twice = build_shards([books, copy], tokenizer_dir, tmp_path / "twice", options)
    assert twice.duplicates == 65
    for name in (TRAIN, VALIDATION):
        # more tokens come in, so there may be more shards; the documents are the same
        assert documents(once.manifest, name) == documents(twice.manifest, name)


def test_a_long_document_has_the_name_and_ids_of_a_short_one(
    tokenizer_dir, topic_texts, tmp_path, monkeypatch
):
    """Read in small pieces, with its ids in a file between, it makes the same run."""
    path = tmp_path / "a.jsonl"
    text = " " + "\r\n".join(topic_texts[:40]) + "\x00 \n"
    path.write_text(json.dumps({"text": text}) + "\n")
    runs = []
    for name in ("whole", "pieces"):
        if name == "pieces":
            monkeypatch.setattr("data_tools.sources.reading.PIECE_CHARACTERS", 1000)
            monkeypatch.setattr("data_tools.sources.text.PIECE_CHARACTERS", 1000)
            monkeypatch.setattr(pieces_module, "CHUNK_CHARACTERS", 300)
            monkeypatch.setattr("data_tools.build.encode.CHUNK_CHARACTERS", 300)
            monkeypatch.setattr("data_tools.build.encode._HELD_TOKENS", 500)
        task = EncodeTask(
            part=part_of(path),
            number=0,
            tokenizer_dir=tokenizer_dir,
            folder=tmp_path / name,
            validation=0,
            seed=1,
            min_characters=1,
            deduplicate=True,
            piece_tokens=700,
            block_tokens=65536,
        )
        (spill,) = encode(task).spills[TRAIN]
        runs.append((spill.ids_path.read_bytes(), spill.index_path.read_bytes()))
    assert runs[0] == runs[1]
    assert digest(normalise(text))


MEASURED = """
import sys
from pathlib import Path
from data_tools.build.encode import EncodeTask, encode
from data_tools.sources import find_inputs, split_parts

path, tokenizer, folder, pieces = sys.argv[1:]
task = EncodeTask(
    part=split_parts(find_inputs([path]), 2**40)[0], number=0,
    tokenizer_dir=Path(tokenizer), folder=Path(folder),
    validation=0.0, seed=1, min_characters=1, deduplicate=True, piece_tokens=int(pieces),
    block_tokens=65536,
)
encoded = encode(task)
print(sum(spill.tokens for spill in encoded.spills["train"]))
for line in open("/proc/self/status"):  # getrusage has the peak of the parent too
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) // 1024)
"""


@pytest.mark.parametrize(
    ("megabytes", "most"),
    [(5, 200), pytest.param(66, 500, marks=pytest.mark.full)],
)
def test_the_memory_of_a_worker_does_not_hold_a_long_document(
    megabytes, most, tokenizer_dir, topic_texts, tmp_path
):
    """Encoded at once, a character takes some 85 bytes: 400 MB for the smaller one."""
    text = "\n".join(topic_texts)
    path = tmp_path / "a.jsonl"
    times = megabytes * 1_000_000 // len(text)
    path.write_text(json.dumps({"text": text * times}) + "\n")
    arguments = [str(path), str(tokenizer_dir), str(tmp_path / "runs"), "8192"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    tokens, peak = map(int, done.stdout.split())
    assert tokens > 200_000 * megabytes
    assert peak < most
