"""Shards in the format of version 1, made from those of today with numpy and json alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "validation")


def as_version_1(path: Path, checksums: bool = True) -> None:
    """Turn the shards in `path` into what the first version wrote, with checksums of the blocks or
    without.
    """
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    tables = content.pop("tables")
    content["version"] = 1
    if not checksums:
        del content["block_checksums"]
    for split in SPLITS:
        shards = np.load(path / tables[split]["shards"]["name"])
        blocks = np.load(path / tables[split]["blocks"]["name"])
        listed = []
        first = 0
        for record in shards:
            own = blocks[first : first + int(record["blocks"])]
            first += len(own)
            listed.append(_listed(path, split, record, own, checksums))
        content[split]["shards"] = listed
        for table in tables[split].values():
            (path / table["name"]).unlink()
    file.write_text(json.dumps(content))


def _listed(path: Path, split: str, record: Any, own: Any, checksums: bool) -> dict[str, Any]:
    name = f"{split}-{int(record['number']):05d}"
    index = {
        "offsets": [512 * int(start) for start in own["start"]],
        "tokens": own["tokens"].tolist(),
        "documents": own["documents"].tolist(),
    }
    if checksums:
        index["crc32"] = own["crc32"].tolist()
    text = json.dumps(index, separators=(",", ":")) + "\n"
    (path / f"{name}.index.json").write_text(text)
    return {
        "tar": {
            "name": f"{name}.tar",
            "bytes": int(record["bytes"]),
            "sha256": bytes(record["sha256"]).hex(),
        },
        "index": {
            "name": f"{name}.index.json",
            "bytes": len(text),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
        "blocks": int(record["blocks"]),
        "documents": int(record["documents"]),
        "tokens": int(record["tokens"]),
    }


def table(path: Path, split: str, kind: str) -> Path:
    """The table of `shards` or `blocks` of a split."""
    name = json.loads((path / "manifest.json").read_text())["tables"][split][kind]["name"]
    return path / name


def vouch(path: Path, split: str, kind: str) -> None:
    """Let the manifest vouch for a table as it is now."""
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    facts = content["tables"][split][kind]
    changed = (path / facts["name"]).read_bytes()
    facts |= {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
    file.write_text(json.dumps(content))
