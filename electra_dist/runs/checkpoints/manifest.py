"""manifest.json of a checkpoint: its parts, what makes it valid, reading it.

Comes in: the folder of a checkpoint, whoever wrote it. Goes out: a `CheckpointManifest` whose names
stay inside the folder, whose slices make up each parameter and fit into their files; or
`CheckpointError`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from electra_dist.config import Network
from electra_dist.errors import CheckpointError, UserError
from electra_dist.files.reading import MIB, read_bounded

#: Version 2 added `healthy` and `reason`, and the run's own files among the files.
VERSION = 2
READABLE_VERSIONS = (1, 2)
MANIFEST = "manifest.json"
COMPLETE = "COMPLETE"
TRAINER = "trainer.json"
#: The run's own files that a checkpoint carries, under their names in the run directory.
CARRIED = ("config.yaml", "run.json")
#: Bytes of a manifest at most: some 70 a slice, for thousands of parameters on a thousand ranks.
MANIFEST_LIMIT = 256 * MIB
SMALL_FILE_LIMIT = 64 * MIB
_COMPLETE_LIMIT = 1024
_FP32 = 4
_LONGEST_NAME = 255
_DEEPEST_NAME = 4
_MOST_DIMENSIONS = 8

Count = Annotated[int, Field(ge=0, lt=2**62)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """Size and checksum of one file."""

    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Slice(NamedTuple):
    """`length` elements from `start` of a flattened parameter, in `file`."""

    file: str
    start: int
    length: int


class ParameterEntry(_Part):
    """One parameter: its shape and where its slices lie, ascending and without gap."""

    shape: tuple[Count, ...]
    slices: tuple[Slice, ...]


class NetworkEntry(_Part):
    """One network: scalars of its optimizer and its parameters by name."""

    scalars: dict[str, Any]
    parameters: dict[str, ParameterEntry]


class CheckpointManifest(_Part):
    """manifest.json.

    healthy   what the guard knew of weights and losses when it was saved; None where nobody looked
    reason    why it is not healthy
    """

    version: int
    step: Count
    world_size: Count
    healthy: bool | None = None
    reason: str = ""
    files: dict[str, FileEntry]
    networks: dict[Network, NetworkEntry]

    @property
    def bytes(self) -> int:
        """Of all files that it lists."""
        return sum(entry.bytes for entry in self.files.values())


class _Versioned(BaseModel):
    version: int


# --- making one -----------------------------------------------------------------------------------


def parameter_entries(
    shapes: Mapping[str, tuple[int, ...]], slices: Iterable[tuple[str, Slice]]
) -> dict[str, ParameterEntry]:
    """Entries of all parameters from the slices of all ranks;
    raises RuntimeError when they leave a gap or overlap.
    """
    by_name: dict[str, list[Slice]] = {name: [] for name in shapes}
    for name, part in slices:
        by_name[name].append(part)
    entries = {}
    for name, shape in shapes.items():
        parts = sorted(by_name[name], key=lambda part: part.start)
        if not _cover(parts, math.prod(shape)):
            raise RuntimeError(
                f"the ranks' slices do not make up parameter {name} {shape}: {parts}"
            )
        entries[name] = ParameterEntry(shape=shape, slices=tuple(parts))
    return entries


def _cover(parts: Iterable[Slice], total: int) -> bool:
    end = 0
    for part in parts:
        if part.start != end or part.length < 0:
            return False
        end += part.length
    return end == total


# --- reading one ----------------------------------------------------------------------------------


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of a finished checkpoint.

    Raises `CheckpointError` when it is missing, damaged, of another format, or claims what cannot
    be.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint")
    text = _read(folder, MANIFEST, MANIFEST_LIMIT)
    expected = _read(folder, COMPLETE, _COMPLETE_LIMIT).decode("ascii", errors="replace").strip()
    if hashlib.sha256(text).hexdigest() != expected:
        raise CheckpointError(
            f"{folder}: {MANIFEST} is damaged: its SHA-256 is not the one in {COMPLETE}"
        )
    try:
        version = _Versioned.model_validate_json(text).version
        if version not in READABLE_VERSIONS:
            known = " and ".join(map(str, READABLE_VERSIONS))
            raise CheckpointError(
                f"{folder}: format version {version}, this release reads version {known}"
            )
        manifest = CheckpointManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(
            f"{folder}: {MANIFEST} is not a checkpoint manifest: {where}: {first['msg']}"
        ) from error
    _check(folder, manifest)
    return manifest


def _read(folder: Path, name: str, limit: int) -> bytes:
    try:
        return read_bounded(folder / name, limit)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: {name} is missing") from error
    except UserError as error:  # a link, a FIFO, a device; too large
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(
            f"{folder}: {name} cannot be read: {error.strerror or error}"
        ) from error


def _check(folder: Path, manifest: CheckpointManifest) -> None:
    """What no honest checkpoint says: names outside of it, slices that their files cannot hold."""
    for name in manifest.files:
        if not is_plain(name):
            raise CheckpointError(
                f"{folder}: {MANIFEST} names {name!r}, which does not lie in the checkpoint"
            )
    held: dict[str, int] = {}
    for network, entry in manifest.networks.items():
        for name, parameter in entry.parameters.items():
            elements = math.prod(parameter.shape)
            if len(parameter.shape) > _MOST_DIMENSIONS or not _cover(parameter.slices, elements):
                raise CheckpointError(
                    f"{folder}: {MANIFEST}: the slices of parameter {name} of the {network} do not"
                    " make up its shape"
                )
            for part in parameter.slices:
                held[part.file] = held.get(part.file, 0) + _FP32 * part.length
    for name, size in held.items():
        if name not in manifest.files:
            raise CheckpointError(
                f"{folder}: {MANIFEST} has slices in {name!r}, which is none of its files"
            )
        if size > manifest.files[name].bytes:
            raise CheckpointError(
                f"{folder}: {MANIFEST} claims {size:,} bytes of weights in {name}, which has"
                f" {manifest.files[name].bytes:,}"
            )


def is_plain(name: str) -> bool:
    """Whether `name` is a relative path that stays in its folder:
    `generator/rank-00000.safetensors`.
    """
    parts = name.split("/")
    return (
        len(name) <= _LONGEST_NAME
        and len(parts) <= _DEEPEST_NAME
        and "\0" not in name
        and all(part not in ("", ".", "..") for part in parts)
    )
