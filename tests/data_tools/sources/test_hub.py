"""Datasets of Hugging Face: saved to disk, and streamed from the hub."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data_tools.sources import find_inputs
from electra_dist.errors import DataError
from tests.support.english import read_texts
from tests.support.reading import parts_of, read_all


@pytest.fixture(scope="module")
def texts(samples: Path) -> list[str]:
    return read_texts(samples / "documents.jsonl") * 4


def test_a_dataset_saved_to_disk_is_its_rows_and_nothing_else(
    tmp_path: Path, texts: list[str]
) -> None:
    import datasets

    dataset = datasets.Dataset.from_dict({"text": texts})
    dataset.save_to_disk(tmp_path / "one", num_shards=3)
    shutil.copy(tmp_path / "one" / "data-00000-of-00003.arrow", tmp_path / "one" / "cache-1.arrow")
    found = find_inputs([tmp_path / "one"])
    assert read_all(tmp_path / "one", part_bytes=2000) == texts
    assert {(row.suffix, row.left_out) for row in found.report.left_out} == {
        (".json", "description of a dataset"),
        (".arrow", "cache of a dataset"),
    }
    assert not found.report.lost

    both = datasets.DatasetDict({"test": dataset.select(range(5)), "train": dataset})
    both.save_to_disk(tmp_path / "both")
    assert read_all(tmp_path / "both") == texts[:5] + texts
    assert read_all(tmp_path / "both" / "train", strict=True) == texts


def test_a_dataset_of_the_hub_is_streamed_by_its_shards(
    tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands for the hub: `datasets` loads both alike."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for number in range(4):
        path = tmp_path / "set" / f"train-{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table({"text": texts[number::4]}), path)
    parts = parts_of(f"hub:{tmp_path}/set")
    assert len(parts) == 4
    expected = [text for number in range(4) for text in texts[number::4]]
    assert read_all(f"hub:{tmp_path}/set") == expected
    with pytest.raises(DataError, match=r"shard 0, row 1: .* found keys \['text'\]"):
        read_all(f"hub:{tmp_path}/set", text_key="content")
    with pytest.raises(DataError, match=r"hub:.*split=test: cannot be opened: "):
        parts_of(f"hub:{tmp_path}/set?split=test")
    with pytest.raises(DataError, match=r"no parameter 'spilt' \(did you mean 'split'\?\)"):
        parts_of("hub:name?spilt=train")


@pytest.mark.parametrize("torch", ["absent", "marked as absent"])
def test_the_hub_needs_no_torch_and_loads_none(tmp_path: Path, torch: str) -> None:
    """Workers mark torch as absent, which `datasets` would stumble over."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    code = f"""
import sys
if {torch == "marked as absent"}:
    sys.modules["torch"] = None
from data_tools.sources import find_inputs, read_documents, split_parts
(part,) = split_parts(find_inputs(["hub:{tmp_path}/set"]))
print(*read_documents(part), sys.modules.get("torch"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "home")},
    )
    assert done.stdout == "a b None\n", done.stderr
