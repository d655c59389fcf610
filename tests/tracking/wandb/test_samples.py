"""Tables of passages: read with a bound, each in W&B once, whatever happens between."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from electra_dist.errors import DataError
from electra_dist.runs.directory import RunDir
from electra_dist.tracking.wandb import mirror_once
from electra_dist.tracking.wandb.samples import COLUMNS, read_table, sample_files
from tests.support.offline import files, records
from tests.support.wandb_runs import PIECES, write_rows, write_samples


def tables(run: RunDir) -> list[dict[str, Any]]:
    """What was logged as tables, read back: step, and the content of the table's file."""
    found = []
    for path in files(run):
        for record in records(path):
            if not record.HasField("history"):
                continue
            items = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            if "samples/path" in items:
                table = path.parent / "files" / items["samples/path"]
                found.append({"step": items["step"], **json.loads(table.read_text())})
    return found


def test_a_file_is_a_row_for_each_piece(new_run: RunDir) -> None:
    path = write_samples(new_run, 2)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in read_table(path)]
    assert [row["text"] for row in rows] == ["the", "dog"]
    assert rows[1] == {"passage": 0, "source": "wiki", "piece": 1, **PIECES[1]}
    assert [step for step, _ in sample_files(new_run)] == [2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "no passages of a step"),
        ({"step": 1, "passages": [{"source": "a"}]}, "passages.0.pieces"),
        (
            {"step": 1, "passages": [{"source": "a", "pieces": [PIECES[0] | {"text": 1}]}]},
            "passages.0.pieces.0.text",
        ),
        (
            {
                "step": 1,
                "passages": [
                    {"source": "a", "pieces": [PIECES[0] | {"discriminator_probability": 1.5}]}
                ],
            },
            "discriminator_probability",
        ),
    ],
)
def test_what_is_no_such_file_is_said(new_run: RunDir, content: object, words: str) -> None:
    path = write_samples(new_run, 2, content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_link_and_half_a_file_are_not_read(new_run: RunDir) -> None:
    path = write_samples(new_run, 2)
    link = path.with_name("step-00000003.json")
    link.symlink_to(path)
    with pytest.raises(DataError, match="is a link"):
        read_table(link)
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match="cannot be read as passages"):
        read_table(path)


def test_each_table_is_logged_once_and_a_damaged_one_is_named(new_run: RunDir) -> None:
    write_rows(new_run, 1, 2, 3)
    write_samples(new_run, 2)
    damaged = write_samples(new_run, 3, {"step": 3})
    write_samples(new_run, 9)  # of a course that was left: no row is there
    report = mirror_once(new_run, "offline", 300, os.environ)
    assert (report.rows, report.sent) == (3, 3)
    (warning,) = report.warnings
    assert str(damaged) in warning
    damaged.unlink()
    write_rows(new_run, 4)
    write_samples(new_run, 4)
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 1
    found = tables(new_run)
    assert [table["step"] for table in found] == [2, 4]
    assert found[0]["columns"] == list(COLUMNS)
    assert found[0]["data"][1] == [0, "wiki", 1, "dog", "cat", "dog", 0.5, True, 0.75]
    before = len(files(new_run))
    new_run.mirrored.unlink()  # the offline files alone say what is there
    assert mirror_once(new_run, "offline", 300, os.environ).sent == 0
    assert len(files(new_run)) == before
