"""What stands in the offline files of W&B, read by a reader of its own,
and the processes behind a mirror.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from electra_dist.runs.directory import RunDir


def records(path: Path) -> list[Any]:
    """The records of a .wandb file: a LevelDB-style log of 32 KiB blocks after a 7-byte header."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, found, part, at = path.read_bytes(), [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if zlib.crc32(data[at + 6 : at + 7 + length]) != int.from_bytes(
            data[at : at + 4], "little"
        ):
            break  # a disk was full
        part += data[at + 7 : at + 7 + length]
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
        at += 7 + length
    return found


def files(run: RunDir, wandb_id: str = "*") -> list[Path]:
    """The files of all W&B runs of a run, or of one."""
    return sorted(run.path.glob(f"wandb/offline-run-*_*-{wandb_id}/*.wandb"))


def rows(run: RunDir, wandb_id: str = "*") -> list[dict[str, str]]:
    """Every row of every offline file, in order: name -> JSON of the value."""
    return [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for path in files(run, wandb_id)
        for record in records(path)
        if record.HasField("history")
    ]


def points(run: RunDir, wandb_id: str = "*") -> list[tuple[int, float]]:
    """(step, generator loss) of every row of every offline file, in order."""
    found = rows(run, wandb_id)
    assert not any("discriminator/auc" in row for row in found)
    return [(int(row["step"]), float(row["loss/generator"])) for row in found]


def opened(run: RunDir, wandb_id: str = "*") -> list[Any]:
    """The messages that open or change a W&B run, in order."""
    return [
        record.run
        for path in files(run, wandb_id)
        for record in records(path)
        if record.HasField("run")
    ]


def exits(run: RunDir, wandb_id: str = "*") -> list[int]:
    """The exit statuses with which the sessions of a W&B run ended, in order."""
    return [
        record.exit.exit_code
        for path in files(run, wandb_id)
        for record in records(path)
        if record.HasField("exit")
    ]


def services(run: RunDir) -> list[int]:
    """The W&B services of mirrors of this run that live now."""
    found = _processes()
    mirrors = [
        pid
        for pid, words in found
        if "electra_dist.tracking.wandb" in words and str(run.path) in words
    ]
    return [
        pid for pid, words in found if words[0].endswith("wandb-core") and parent(pid) in mirrors
    ]


def _processes() -> list[tuple[int, list[str]]]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes().decode().split("\0")
            except (OSError, UnicodeDecodeError):
                continue
            found.append((int(entry), words))
    return found


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return None


def wait_for(condition: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.05)
