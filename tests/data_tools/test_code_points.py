"""Every character of Unicode has the same ids in the shards and in `transformers`, in each kind of
tokenizer; and white space stays white space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.clean import normalise
from data_tools.tokenizer import ShardTokenizer, load_tokenizer, train_tokenizer

KINDS: dict[str, dict[str, Any]] = {
    "bpe": {},
    "unigram": {"kind": "unigram"},
    "whitespace": {"keep_whitespace": True},
    "lowercase nfkc": {"lowercase": True, "normalize": "nfkc"},
    "words": {"kind": "words"},
}
#: What Unicode 15 calls White_Space (PropList.txt), apart from the plain space.
WHITE_SPACE = "\t\n\v\f\r\x85\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


@pytest.fixture(scope="module")
def folders(topics_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind."""
    base = tmp_path_factory.mktemp("kinds")
    for name, settings in KINDS.items():
        train_tokenizer([topics_file], 700, base / name, **settings)
    return {name: base / name for name in KINDS}


def code_points() -> Iterator[str]:
    yield from map(chr, range(0xD800))
    yield from map(chr, range(0xE000, 0x110000))


def assigned() -> list[str]:
    """Every character of the planes where Unicode has assigned some, every 16th of the others."""
    planes = {0, 1, 2, 3, 14}
    return [c for c in code_points() if ord(c) >> 16 in planes or ord(c) % 16 == 5]


def in_context(characters: list[str]) -> list[str]:
    """`a{c}b` for each character, 256 of them per text, apart by a space."""
    words = [f"a{character}b" for character in characters]
    return [" ".join(words[start : start + 256]) for start in range(0, len(words), 256)]


def assert_equal_ids(ours: ShardTokenizer, theirs: Any, texts: list[str]) -> None:
    """`theirs` reads the text as it is, `ours` as the build hands it over."""
    expected = theirs(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    found = ours.encode_batch([normalise(text) for text in texts])
    different = [text for text, a, b in zip(texts, found, expected, strict=True) if a.tolist() != b]
    assert not different, ascii(different[:3])


def check(folder: Path, characters: list[str], alone: list[str]) -> None:
    import transformers

    ours = load_tokenizer(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert_equal_ids(ours, theirs, in_context(characters))
    assert_equal_ids(ours, theirs, alone)


def test_every_assigned_code_point_has_the_same_ids_in_shards_and_in_transformers(
    folders: dict[str, Path],
) -> None:
    alone = [chr(number) for number in range(0x3100)] + list(code_points())[::97]
    check(folders["bpe"], assigned(), alone)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "bpe"])
def test_the_same_in_every_other_kind_of_tokenizer(name: str, folders: dict[str, Path]) -> None:
    check(
        folders[name], assigned()[::7], [chr(number) for number in range(0x500)] + list(WHITE_SPACE)
    )


@pytest.mark.full
@pytest.mark.parametrize("name", list(KINDS))
def test_every_code_point_in_context_and_alone(name: str, folders: dict[str, Path]) -> None:
    check(folders[name], list(code_points()), list(code_points()))


@pytest.mark.parametrize("name", ["bpe", "unigram", "lowercase nfkc"])
def test_white_space_of_every_kind_parts_words(name: str, folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(folders[name])
    (plain,) = tokenizer.encode_batch(["noon the"])
    texts = [f"noon{space}the" for space in WHITE_SPACE]
    texts += [f" {space}noon {space} the {space}" for space in WHITE_SPACE]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert np.array_equal(ids, plain), ascii(text)


def test_control_characters_neither_glue_nor_vanish(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(folders["bpe"])
    for number in (0x00, 0x07, 0x7F, 0x80, 0x9F, 0xFEFF):
        text = f"noon{chr(number)}the"
        (ids,) = tokenizer.encode_batch([text])
        assert tokenizer.decode(ids) == text
