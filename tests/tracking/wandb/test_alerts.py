"""A finding of health is an alert of W&B: once, and none that is over already.

Read back from the offline files.
"""

from __future__ import annotations

import json
import os

from electra_dist.health import Known, Monitor
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import cut_back
from electra_dist.tracking.sinks import Tracker
from electra_dist.tracking.wandb import mirror_once
from tests.support.offline import files, records, wait_for
from tests.support.rows import drawn_rows, make_config

STALLED = {"speed/data_wait_seconds": 0.1}


def alerts(run: RunDir) -> list[tuple[str, str, str]]:
    """(title, level, text) of every alert in every offline file."""
    found = [record for path in files(run) for record in records(path)]
    return [
        (record.alert.title, record.alert.level, record.alert.text)
        for record in found
        if record.HasField("alert")
    ]


def logged_steps(run: RunDir) -> list[int]:
    """The steps of every history row of every offline file."""
    found = [record for path in files(run) for record in records(path)]
    return [
        int(item.value_json)
        for record in found
        if record.HasField("history")
        for item in record.history.item
        if (item.key or "/".join(item.nested_key)) == "step"
    ]


def monitor() -> Monitor:
    return Monitor(Known.of(make_config(), None))


def test_a_finding_alarms_once_also_after_a_resume_and_its_row_is_no_point_of_a_curve(
    new_run: RunDir,
) -> None:
    said: list[str] = []
    rows = [row | STALLED for row in drawn_rows(0, 100)]
    tracker = Tracker(new_run, "offline", said.append, monitor=monitor)
    for row in rows:
        tracker.write(row)
    noted = new_run.wandb / "alerts.jsonl"
    wait_for(noted.is_file)
    tracker.close(finished=False)

    cut_back(new_run.metrics, 60)
    tracker = Tracker(new_run, "offline", said.append, monitor=monitor)
    for row in rows[7:]:
        tracker.write(row)
    tracker.close()

    ((title, level, text),) = alerts(new_run)
    assert title == "data-stall"
    assert level == "WARN"
    assert text.startswith("step 40: warning: data-stall: 50% of a step goes to waiting for data")
    assert "What to do: " in text
    assert sorted(logged_steps(new_run)) == [row["step"] for row in rows]
    assert said == []


def test_what_is_over_when_it_is_mirrored_alarms_nobody(new_run: RunDir) -> None:
    tracker = Tracker(new_run, "disabled", print, monitor=monitor)
    for row in drawn_rows(0, 300):
        tracker.write(row | (STALLED if row["step"] <= 100 else {}))
    for row in drawn_rows(310, 400):
        tracker.write(row | {"data/padding": 0.4})
    tracker.close()
    events = [json.loads(line) for line in new_run.metrics.open() if '"event"' in line]
    assert [event["rule"] for event in events] == ["data-stall", "data-stall", "padding"]
    mirror_once(new_run, "offline", 300, os.environ)
    assert [(title, level) for title, level, _ in alerts(new_run)] == [("padding", "INFO")]
    mirror_once(new_run, "offline", 300, os.environ)
    assert len(alerts(new_run)) == 1
