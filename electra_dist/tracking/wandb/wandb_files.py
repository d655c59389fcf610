"""What stands in a `.wandb` file: a log of 32 KiB blocks (LevelDB's)
whose records are W&B's protocol messages.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_dist.tracking.wandb.follower import key_of

_BLOCK = 32_768
_FILE_HEADER = 7
_RECORD_HEADER = 7
_FULL = 1
_FIRST = 2
_LAST = 4


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


def history(path: Path) -> Iterator[dict[str, float]]:
    """The rows of a file: name and value of each number that was logged,
    W&B's own (`_step`, ...) included.
    """
    for record in records(path):
        if record.HasField("history"):
            yield {
                item.key or "/".join(item.nested_key): float(item.value_json)
                for item in record.history.item
                if _is_number(item.value_json)
            }


def history_keys(path: Path) -> list[str]:
    """The key of each row of a file."""
    return [key_of(dict(row)) for row in history(path)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
