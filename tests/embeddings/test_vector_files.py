"""Files of vectors, read back by the libraries that others read them with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from electra_dist.embeddings.vector_files import check_vector_file, vector_file
from electra_dist.errors import UserError

PARTS = (3, 1, 250)


def read(path: Path) -> tuple[list[str] | None, np.ndarray[Any, Any]]:
    if path.suffix == ".npy":
        return None, np.load(path)
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        return table["text"].to_pylist(), np.array(table["vector"].to_pylist(), dtype=np.float32)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], np.array([row["vector"] for row in rows], np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_parts_become_one_file(tmp_path: Path, suffix: str) -> None:
    draw = np.random.default_rng(1)
    path = tmp_path / f"vectors{suffix}"
    texts: list[str] = []
    vectors = []
    with vector_file(path, 7) as file:
        for count in PARTS:
            part = [f"text {len(texts) + number} äß" for number in range(count)]
            vectors.append(draw.normal(size=(count, 7)).astype(np.float32))
            file.write(part, vectors[-1])
            texts += part
            assert not path.exists()
    found_texts, found = read(path)
    assert found_texts is None or found_texts == texts
    np.testing.assert_array_equal(found, np.concatenate(vectors))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def write_and_fail(path: Path) -> None:
    with vector_file(path, 2) as file:
        file.write(["a"], np.zeros((1, 2), np.float32))
        raise RuntimeError("the reader failed")


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_an_error_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vectors{suffix}"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError, match="the reader failed"):
        write_and_fail(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a file ending in \.npy, \.parquet, \.jsonl"):
        check_vector_file(tmp_path / "vectors.bin")
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_vector_file(tmp_path / "a.npy")
    with (
        pytest.raises(UserError, match="cannot be written"),
        vector_file(tmp_path / "none" / "a.npy", 2),
    ):
        pass
