"""The tokenizer of an export in the form of older versions gives the same ids."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from data_tools.tokenizer import train_tokenizer
from electra_dist.export.older import for_older_versions

TEXTS = [" ".join(topic.split()) for topic in list(pydoc_data.topics.topics.values())[:40]]


@pytest.mark.parametrize(
    ("kind", "keep_whitespace"), [("bpe", False), ("bpe", True), ("unigram", False)]
)
def test_every_kind_of_our_tokenizers_keeps_its_ids(
    kind: Any, keep_whitespace: bool, tmp_path: Path
) -> None:
    file = tmp_path / "topics.txt"
    file.write_text("\n\n".join(TEXTS), encoding="utf-8")
    out = tmp_path / "tokenizer"
    train_tokenizer([file], 600, out, kind=kind, keep_whitespace=keep_whitespace)
    content = (out / "tokenizer.json").read_bytes()
    older = for_older_versions(content)
    assert for_older_versions(older) == older
    ours = tokenizers.Tokenizer.from_buffer(content)
    theirs = tokenizers.Tokenizer.from_buffer(older)
    for text in (*TEXTS, "[MASK] def f(x):\n    return 東京  42", " two  spaces ", ""):
        assert theirs.encode(text).ids == ours.encode(text).ids
        ids = ours.encode(text).ids
        assert theirs.decode(ids) == ours.decode(ids)
    if kind == "bpe":
        merges = json.loads(older)["model"]["merges"]
        assert {type(merge) for merge in merges} == {str}


def test_both_names_of_the_space_before_a_text_agree() -> None:
    for scheme, space in (("first", True), ("always", True), ("never", False)):
        tokenizer = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
        metaspace = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace])
        older = json.loads(for_older_versions(tokenizer.to_str().encode()))
        (part,) = older["pre_tokenizer"]["pretokenizers"]
        assert (part["add_prefix_space"], part["prepend_scheme"]) == (space, scheme)


def test_merges_of_pieces_with_a_space_keep_the_newer_form() -> None:
    vocabulary = {"a": 0, " ": 1, "a ": 2}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [("a", " ")]))
    older = for_older_versions(tokenizer.to_str().encode())
    assert json.loads(older)["model"]["merges"] == [["a", " "]]
    assert tokenizers.Tokenizer.from_buffer(older).encode("a a").ids == [2, 0]
