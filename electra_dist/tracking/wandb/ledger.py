"""Which rows W&B has, and where: `RUN/mirrored.jsonl`, one line a row, written before the row is
handed over.

Two witnesses say what became of rows that were handed over. An offline session leaves a file: what
is not in it was lost with a service that died. The server says how many rows it has of the run.
What neither has is sent again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from electra_dist.files.writing import write_atomically
from electra_dist.runs.metrics_log import RowReader
from electra_dist.tracking.wandb.wandb_files import history_keys

#: In place of a folder: the rows of an online session.
ONLINE = "online"


class Entry(NamedTuple):
    """A row that W&B has: its key, and the folder of its offline session, or `ONLINE`."""

    key: str
    place: str


class Ledger:
    """The rows that W&B has of one run, in the order in which they were handed over."""

    def __init__(self, path: Path, folders: Path, run_id: str) -> None:
        """Read the file, and correct it by what the offline sessions
        of W&B's run `run_id` left in `folders`.
        """
        self._path = path
        self._folders = folders
        self._run_id = run_id
        self.entries: list[Entry] = []
        self._closed: set[str] = set()
        for row in RowReader(path):
            if "closed" in row:
                self._closed.add(str(row["closed"]))
            elif "key" in row:
                self.entries.append(Entry(str(row["key"]), str(row.get("place", ONLINE))))
        if self._correct():
            self._write()

    @property
    def keys(self) -> set[str]:
        """Of every row that W&B has, wherever."""
        return {entry.key for entry in self.entries}

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
                written = [Entry(key, place) for key in history_keys(file)]
                self.entries = [entry for entry in self.entries if entry.place != place] + written
                self._closed.add(place)
                changed = True
        return changed

    def _files(self) -> list[Path]:
        """The files of all offline sessions of this W&B run, oldest first."""
        return sorted(self._folders.glob(f"offline-run-*-{self._run_id}/*.wandb"))

    def _file(self, place: str) -> Path | None:
        return next(iter((self._folders / place).glob("*.wandb")), None)

    def _was_uploaded(self, place: str) -> bool:
        """`wandb sync` leaves a mark beside what it uploaded;
        what was cleared away since was uploaded before.
        """
        file = self._file(place)
        return file is None or Path(f"{file}.synced").exists()

    def add(self, keys: Iterable[str], place: str) -> None:
        """These rows are about to be handed over; raises `OSError` where that cannot be noted."""
        new = [Entry(key, place) for key in keys]
        self._append([{"key": entry.key, "place": entry.place} for entry in new])
        self.entries += new

    def close(self, place: str) -> None:
        """The offline session ended well: all that it was handed is in its file."""
        self._append([{"closed": place}])
        self._closed.add(place)

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

    def adopt(self, keys: Iterable[str]) -> None:
        """The server has these rows too, whoever sent them."""
        known = self.keys
        self.add([key for key in keys if key not in known], ONLINE)

    # --- the file ---------------------------------------------------------------------------------

    def _append(self, lines: list[dict[str, str]]) -> None:
        text = "".join(_line(len(self.entries) + number, line) for number, line in enumerate(lines))
        with self._path.open("ab") as file:
            start = file.tell()
            try:
                file.write(text.encode())
                file.flush()
            except OSError:
                os.ftruncate(file.fileno(), start)
                raise

    def _write(self) -> None:
        lines = [{"key": entry.key, "place": entry.place} for entry in self.entries]
        lines += [{"closed": place} for place in sorted(self._closed)]
        write_atomically(
            self._path, "".join(_line(number, line) for number, line in enumerate(lines))
        )


def _line(number: int, content: dict[str, str]) -> str:
    return json.dumps({"step": number} | content) + "\n"
