"""References are read whole and checked; a damaged file is named with what is wrong in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import DataError
from electra_dist.references import Curve, Reference, all_references, load_reference

RECIPE = """
data: {shards: shards, row_length: 64}
model: {preset: tiny}
train: {steps: 20, global_rows: 8, micro_rows: 8}
optim: {warmup_steps: 2}
"""


def content() -> dict[str, Any]:
    """A good file."""
    return {
        "format": 1,
        "name": "mine",
        "recipe": RECIPE,
        "command": "python benchmarks/reference_curves.py mine.yaml --seeds 1 2",
        "device": "a CPU",
        "software": {"torch": "2.13.0"},
        "real_tokens": 10000,
        "tokenizer": "ab" * 32,
        "dataset": "cd" * 32,
        "seeds": [1, 2],
        "every": 10,
        "curves": {
            "loss/generator": {"steps": [10, 20], "values": [[7.0, 6.0], [7.2, 6.2]]},
        },
    }


def write(path: Path, something: object) -> str:
    path.write_text(json.dumps(something), encoding="utf-8")
    return str(path)


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    reference = load_reference(write(tmp_path / "mine.json", content()))
    assert reference.name == "mine"
    assert reference.seeds == (1, 2)
    assert reference.config.train.global_rows == 8
    assert reference.curves == {
        "loss/generator": Curve((10, 20), ((7.0, 6.0), (7.2, 6.2))),
    }
    band = reference.band("loss/generator")
    assert band is not None
    assert band.middle == pytest.approx((7.1, 6.1))
    assert reference.band("loss/discriminator") is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    reference = Reference.from_json(content())
    assert load_reference(write(tmp_path / "again.json", reference.to_json())) == reference


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    names = [reference.name for reference in all_references()]
    assert "quick" in names
    with pytest.raises(
        DataError, match=r"quikc: no such reference \(did you mean 'quick'\?\)"
    ) as e:
        load_reference("quikc")
    for name in names:
        assert name in str(e.value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": 2}, "format: 2, expected 1"),
    "seed": ({"seeds": [1]}, "seeds: "),
    "fingerprint": ({"tokenizer": "xyz"}, "tokenizer: "),
    "text": ({"real_tokens": "many"}, "real_tokens: "),
    "recipe": ({"recipe": "train: {steps: 0}"}, "recipe: "),
    "unwritten recipe": ({"recipe": "3"}, "recipe: "),
    "key": ({"colour": "red"}, "colour: "),
    "seeds": (
        {"curves": {"a": {"steps": [1], "values": [[1.0]]}}},
        "curves.a.values: 1 lists, expected one for each of the 2 seeds",
    ),
    "steps": (
        {"curves": {"a": {"steps": [2, 1], "values": [[1, 2], [1, 2]]}}},
        "curves.a.steps: expected steps in ascending order",
    ),
    "no step": (
        {"curves": {"a": {"steps": [], "values": [[], []]}}},
        "curves.a.steps: expected steps",
    ),
    "values": (
        {"curves": {"a": {"steps": [1, 2], "values": [[1, 2], [1]]}}},
        "curves.a.values: a list of 1 values, expected one for each of the 2 steps",
    ),
    "number": (
        {"curves": {"a": {"steps": [1], "values": [[1.0], [float("nan")]]}}},
        "curves.a.values.1.0: ",
    ),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(DataError) as error:
        load_reference(write(path, content() | change))
    assert str(path) in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("missing", content())
def test_a_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    rest = {key: value for key, value in content().items() if key != missing}
    with pytest.raises(DataError, match=missing):
        load_reference(write(tmp_path / "mine.json", rest))


def test_what_is_no_reference_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(DataError, match="cannot be read as a reference"):
        load_reference(str(path))
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        load_reference(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as a reference"):
        load_reference(str(path))
    path.write_bytes(b" " * (5 << 20))
    with pytest.raises(DataError, match="larger than"):
        load_reference(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):
        load_reference(str(path))
    with pytest.raises(DataError, match="expected a JSON object"):
        load_reference(write(tmp_path / "list.json", [1, 2]))
