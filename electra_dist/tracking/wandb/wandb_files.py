"""What stands in the files of a W&B session: its `.wandb` file, a log of 32 KiB blocks (LevelDB's)
whose records are W&B's protocol messages, and the log of its service.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from electra_dist.errors import UserError
from electra_dist.files.reading import open_regular
from electra_dist.tracking.wandb.follower import key_of
from electra_dist.tracking.wandb.samples import TABLE

#: In place of a folder: the rows of an online session.
ONLINE = "online"
_BLOCK = 32_768
#: Read of the log of the service, from its end.
_LOG_BYTES = 256 * 1024
_FATAL = "filestream: fatal error:"
_FILE_HEADER = 7
_RECORD_HEADER = 7
_FULL = 1
_FIRST = 2
_LAST = 4


class Entry(NamedTuple):
    """Something that W&B has, of a step.

    key     of a row of metrics.jsonl (`follower.key_of`), or `TABLE` for a table of passages
    place   the folder of its offline session, or `ONLINE`
    """

    step: int
    key: str
    place: str


def records(path: Path) -> Iterator[Any]:
    """The whole records of a file, up to its end or to the first damage."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    for content in _contents(path):
        record = Record()
        try:
            record.ParseFromString(content)
        except DecodeError:
            return
        yield record


def _contents(path: Path) -> Iterator[bytes]:
    """The bytes of each record, put together from its parts."""
    parts = b""
    with path.open("rb") as file:
        at = len(file.read(_FILE_HEADER))
        while True:
            left = _BLOCK - at % _BLOCK
            if left < _RECORD_HEADER:
                at += len(file.read(left))
            header = file.read(_RECORD_HEADER)
            length = int.from_bytes(header[4:6], "little")
            kind = header[6:7]
            content = file.read(length)
            checksum = int.from_bytes(header[:4], "little")
            if (
                len(header) < _RECORD_HEADER
                or len(content) < length
                or zlib.crc32(kind + content) != checksum
            ):
                return  # W&B's own reader stops here too
            at += len(header) + len(content)
            if kind[0] in (_FULL, _FIRST):
                parts = content
            else:
                parts = parts + content
            if kind[0] in (_FULL, _LAST):
                yield parts
                parts = b""


def history(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a file: the JSON text of each value by its name, W&B's own (`_step`, ...)
    included.
    """
    for record in records(path):
        if record.HasField("history"):
            yield {
                item.key or "/".join(item.nested_key): item.value_json
                for item in record.history.item
            }


def history_entries(path: Path) -> list[Entry]:
    """What the rows of a file are of: of rows of metrics.jsonl, or of tables of passages."""
    place = path.parent.name
    return [_entry(row, place) for row in history(path)]


def _entry(row: dict[str, str], place: str) -> Entry:
    numbers = {name: float(text) for name, text in row.items() if _is_number(text)}
    step = int(numbers.get("step", -1))
    if any(name.partition("/")[0] == TABLE for name in row):
        return Entry(step, TABLE, place)
    return Entry(step, key_of(numbers), place)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def refused(folder: Path) -> str | None:
    """Why the service of a session has given up sending rows; None where it has not.

    W&B itself goes on as if they arrived; its service says it in a log of JSON lines alone.
    """
    try:
        with open_regular(folder / "logs" / "debug-internal.log") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except (OSError, UserError):
        return None
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            said = str(json.loads(line)["msg"])
            if said.startswith(_FATAL):
                return said.removeprefix(_FATAL).strip()
    return None
