"""Findings of health as alerts of W&B, each once: `RUN/wandb/alerts.jsonl` notes those that were
handed over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.health import Finding, open_findings
from electra_dist.runs.metrics_log import Row, RowReader

if TYPE_CHECKING:
    from electra_dist.tracking.wandb.session import Session


class Alerts:
    """Which findings W&B was told of."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of W&B's files."""
        self._path = folder / "alerts.jsonl"
        self._told = {(str(row.get("rule")), row["step"]) for row in RowReader(self._path)}

    def send(self, session: Session, events: list[Row]) -> None:
        """Hand over the findings that began in these rows and stand; empties the list.

        One that is over when its row is read, as after a late sync, alarms nobody.
        """
        for finding in open_findings(events):
            if (finding.rule, finding.step) not in self._told:
                session.alert(finding)
                self._note(finding)
        events.clear()

    def _note(self, finding: Finding) -> None:
        self._told.add((finding.rule, finding.step))
        with self._path.open("a") as file:
            file.write(json.dumps({"step": finding.step, "rule": finding.rule}) + "\n")
