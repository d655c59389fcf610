"""Which rows W&B has, and where: `RUN/mirrored.jsonl`, one line a row, written before the row is
handed over.

Two witnesses say what became of rows that were handed over. An offline session leaves a file: what
is not in it was lost with a service that died. The server says how many rows it has of the run.
What neither has is sent again.

A run that went back and trained steps otherwise has left a course. W&B cannot take rows back, so
each course is a W&B run of its own, and the ledger knows the rows of the newest one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from electra_dist.files.writing import write_atomically
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import RunFacts
from electra_dist.runs.metrics_log import RowReader
from electra_dist.tracking.wandb.samples import TABLE
from electra_dist.tracking.wandb.wandb_files import ONLINE, Entry, history_entries


def returns(facts: RunFacts) -> int:
    """How often the run went back, by itself or because somebody asked."""
    return len(facts.rollbacks) + len(facts.went_back)


def wandb_run_id(facts: RunFacts, course: int) -> str:
    """The W&B run of the course that began after so many returns."""
    if course == 0:
        return facts.wandb_id
    return f"{facts.wandb_id}-{course}"


class Ledger:
    """What W&B has of the newest course of a run, in the order in which it was handed over.

    course   how often the run had gone back when the course began
    """

    def __init__(self, run: RunDir) -> None:
        """Read the file, and correct it by what the offline sessions left;
        raises `UserError` where run.json cannot be read.
        """
        self._path = run.mirrored
        self._folders = run.wandb
        self._facts = run.read_facts()
        self.course = returns(self._facts)
        self.entries: list[Entry] = []
        self._closed: set[str] = set()
        self._artifacts: set[str] = set()
        is_known = self._read()
        if self._correct() or not is_known:
            self._write()

    @property
    def run_id(self) -> str:
        """The W&B run of the course."""
        return wandb_run_id(self._facts, self.course)

    @property
    def rows(self) -> dict[int, str]:
        """Step and key of every row of metrics.jsonl that W&B has, wherever."""
        return {entry.step: entry.key for entry in self.entries if entry.key != TABLE}

    @property
    def tables(self) -> set[int]:
        """Steps of the tables of passages that W&B has."""
        return {entry.step for entry in self.entries if entry.key == TABLE}

    @property
    def artifacts(self) -> frozenset[str]:
        """Those that W&B has."""
        return frozenset(self._artifacts)

    def _read(self) -> bool:
        """Whether there is a file; one without the line of its course says nothing."""
        lines = iter(RowReader(self._path))
        first = next(lines, {})
        if not isinstance(first.get("course"), int):
            return False
        self.course = first["course"]
        for line in lines:
            if "closed" in line:
                self._closed.add(str(line["closed"]))
            elif "artifact" in line:
                self._artifacts.add(str(line["artifact"]))
            elif "key" in line:
                place = str(line.get("place", ONLINE))
                self.entries.append(Entry(line["step"], str(line["key"]), place))
        return True

    def _correct(self) -> bool:
        """Of a session that was not closed, its file alone tells;
        one that was closed may be cleared away after use.
        """
        changed = False
        for place in {entry.place for entry in self.entries} - {ONLINE, *self._closed}:
            if self._file(place) is None:
                self.entries = [entry for entry in self.entries if entry.place != place]
                changed = True
        for file in self._files():
            place = file.parent.name
            if place not in self._closed:
                others = [entry for entry in self.entries if entry.place != place]
                self.entries = others + history_entries(file)
                self._closed.add(place)
                changed = True
        return changed

    def _files(self) -> list[Path]:
        """The files of all offline sessions of this W&B run, oldest first."""
        return sorted(self._folders.glob(f"offline-run-*-{self.run_id}/*.wandb"))

    def _file(self, place: str) -> Path | None:
        return next(iter((self._folders / place).glob("*.wandb")), None)

    def _was_uploaded(self, place: str) -> bool:
        """`wandb sync` leaves a mark beside what it uploaded;
        what was cleared away since was uploaded before.
        """
        file = self._file(place)
        return file is None or Path(f"{file}.synced").exists()

    def add(self, entries: Iterable[Entry]) -> None:
        """These are about to be handed over; raises `OSError` where that cannot be noted."""
        new = list(entries)
        self._append([_of_entry(entry) for entry in new])
        self.entries += new

    def add_artifacts(self, names: Iterable[str]) -> None:
        """The session that told W&B of these ended well."""
        new = [name for name in names if name not in self._artifacts]
        self._append([{"step": 0, "artifact": name} for name in new])
        self._artifacts.update(new)

    def close(self, place: str) -> None:
        """The offline session ended well: all that it was handed is in its file."""
        self._append([{"step": 0, "closed": place}])
        self._closed.add(place)

    def begin_course(self, course: int) -> None:
        """Another course, of which W&B has nothing yet."""
        self.course = course
        self.entries = []
        self._closed = set()
        self._artifacts = set()
        self._write()

    def on_server(self, count: int) -> bool:
        """Keep what the server has of the run: `count` rows. False when it has more than is known
        of here.

        Uploaded offline sessions are there, then the first rows of the online ones, then, where
        that is not enough, whole offline sessions that were uploaded from another place. What else
        was handed over offline is sent now.
        """
        offline = [
            place
            for place in dict.fromkeys(entry.place for entry in self.entries)
            if place != ONLINE
        ]
        uploaded = [place for place in offline if self._was_uploaded(place)]
        sure = [entry for entry in self.entries if entry.place in uploaded]
        kept = (sure + [entry for entry in self.entries if entry.place == ONLINE])[:count]
        for place in offline:
            rows = [entry for entry in self.entries if entry.place == place]
            if place not in uploaded and len(kept) + len(rows) <= count:
                kept += rows
        self.entries = kept
        self._write()
        # what the server lacks of it is sent by the session that asked: never twice
        for file in self._files():
            Path(f"{file}.synced").touch()
        return len(kept) == count

    def adopt(self, entries: Iterable[Entry]) -> None:
        """The server has these too, whoever sent them."""
        rows = self.rows
        tables = self.tables
        self.add(
            entry for entry in entries if entry.step not in (tables if entry.key == TABLE else rows)
        )

    # --- the file ---------------------------------------------------------------------------------

    def _append(self, lines: list[dict[str, Any]]) -> None:
        text = "".join(map(_line, lines))
        with self._path.open("ab") as file:
            start = file.tell()
            try:
                file.write(text.encode())
                file.flush()
            except OSError:
                os.ftruncate(file.fileno(), start)
                raise

    def _write(self) -> None:
        lines: list[dict[str, Any]] = [{"step": 0, "course": self.course}]
        lines += [_of_entry(entry) for entry in self.entries]
        lines += [{"step": 0, "artifact": name} for name in sorted(self._artifacts)]
        lines += [{"step": 0, "closed": place} for place in sorted(self._closed)]
        write_atomically(self._path, "".join(map(_line, lines)))


def _of_entry(entry: Entry) -> dict[str, Any]:
    return {"step": entry.step, "key": entry.key, "place": entry.place}


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"
