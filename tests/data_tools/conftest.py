"""A tokenizer learnt from the topics of pydoc, for the tests of the data tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from data_tools.tokenizer import train_tokenizer

WriteLines = Callable[..., Path]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    """One document a line."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def topic_texts() -> list[str]:
    """Some 250 documents of real English, each different."""
    return sorted(
        {part.strip() for text in topics.values() for part in text.split("\n\n\n") if part.strip()}
    )


@pytest.fixture(scope="session")
def topics_file(topic_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("topics") / "topics.jsonl", topic_texts)


@pytest.fixture(scope="session")
def tokenizer_dir(topics_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer([topics_file], 1024, path)
    return path
