"""The files of a checkpoint (DESIGN D6): logical, without pickle, readable without DeepSpeed.

    step-00001000/
        generator/rank-00000.safetensors       `weight/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME`: flat fp32 slices
        discriminator/rank-00000.safetensors   ... one file a rank and network
        trainer.json                           the trainer's own state
        manifest.json                          size and SHA-256 of every file; for every parameter its shape and
                                               which file holds which slice of it; scalars of the optimizers
        COMPLETE                               SHA-256 of manifest.json; written last

Knows nothing of engines and processes: `checkpoint.py` decides who writes and reads what.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from electra_dist.config import Network
from electra_dist.errors import CheckpointError
from electra_dist.files import open_to_readers

VERSION = 1
MANIFEST, COMPLETE, TRAINER = "manifest.json", "COMPLETE", "trainer.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """Size and checksum of one file."""

    bytes: int
    sha256: str


class Slice(NamedTuple):
    """`length` elements from `start` of a flattened parameter, in `file`."""

    file: str
    start: int
    length: int


class ParameterEntry(_Part):
    """One parameter: its shape and where its slices lie, ascending and without gap."""

    shape: tuple[int, ...]
    slices: tuple[Slice, ...]


class NetworkEntry(_Part):
    """One network: scalars of its optimizer and its parameters by name."""

    scalars: dict[str, Any]
    parameters: dict[str, ParameterEntry]


class CheckpointManifest(_Part):
    """manifest.json."""

    version: int
    step: int
    world_size: int
    files: dict[str, FileEntry]
    networks: dict[Network, NetworkEntry]


# --- writing ---------------------------------------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return FileEntry(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Write flat fp32 tensors to a safetensors file, flushed to the disk."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    open_to_readers(path)
    sync(path)
    return file_entry(path)


def write_text(path: Path, text: str) -> FileEntry:
    """Write a small file, flushed to the disk."""
    path.write_text(text, encoding="utf-8")
    sync(path)
    return file_entry(path)


def parameter_entries(
    shapes: Mapping[str, tuple[int, ...]], slices: Iterable[tuple[str, Slice]]
) -> dict[str, ParameterEntry]:
    """Entries of all parameters from the slices of all ranks; raises RuntimeError when they leave a gap or overlap."""
    by_name: dict[str, list[Slice]] = {name: [] for name in shapes}
    for name, part in slices:
        by_name[name].append(part)
    entries = {}
    for name, shape in shapes.items():
        parts = sorted(by_name[name], key=lambda part: part.start)
        if not _cover(parts, math.prod(shape)):
            raise RuntimeError(f"the ranks' slices do not make up parameter {name} {shape}: {parts}")
        entries[name] = ParameterEntry(shape=shape, slices=tuple(parts))
    return entries


def _cover(parts: Iterable[Slice], total: int) -> bool:
    end = 0
    for part in parts:
        if part.start != end:
            return False
        end += part.length
    return end == total


def finish(folder: Path, manifest: CheckpointManifest) -> None:
    """Write manifest.json and, when all else is on the disk, COMPLETE."""
    entry = write_text(folder / MANIFEST, manifest.model_dump_json())
    for directory in {(folder / name).parent for name in manifest.files}:
        sync(directory)
    write_text(folder / COMPLETE, entry.sha256 + "\n")
    sync(folder)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of a finished checkpoint; `CheckpointError` when it is missing, damaged or of another format."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint")
    try:
        text = (folder / MANIFEST).read_bytes()
        expected = (folder / COMPLETE).read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: {Path(error.filename).name} is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error
    if hashlib.sha256(text).hexdigest() != expected:
        raise CheckpointError(f"{folder}: {MANIFEST} is damaged: its SHA-256 is not the one in {COMPLETE}")
    version = json.loads(text).get("version")
    if version != VERSION:
        raise CheckpointError(f"{folder}: format version {version}, this release reads version {VERSION}")
    try:
        return CheckpointManifest.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(f"{folder}: {MANIFEST} is not a checkpoint manifest: {error}") from error


def file_problems(folder: Path, manifest: CheckpointManifest, names: Iterable[str]) -> list[str]:
    """One sentence for each of these files that is missing or differs from the manifest in size or checksum."""
    problems = []
    for name in names:
        path, expected = folder / name, manifest.files[name]
        try:
            size = path.stat().st_size
            if size != expected.bytes:
                problems.append(f"{name} has {size} bytes instead of {expected.bytes}")
            elif file_entry(path).sha256 != expected.sha256:
                problems.append(f"{name} is damaged: its SHA-256 differs from the manifest")
        except FileNotFoundError:
            problems.append(f"{name} is missing")
        except OSError as error:
            problems.append(f"{name} cannot be read: {error}")
    return problems


def read_trainer_state(folder: Path) -> dict[str, Any]:
    """trainer.json."""
    content = json.loads((folder / TRAINER).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder}: {TRAINER} holds no mapping")
    return content


class SliceReader:
    """Reads any range of any parameter of one network, opening each file once; a context manager."""

    def __init__(self, folder: Path, manifest: CheckpointManifest, network: Network) -> None:
        self._folder = folder
        self._parameters = manifest.networks[network].parameters
        self._open: dict[str, Any] = {}

    def __enter__(self) -> SliceReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.__exit__(None, None, None)
        self._open.clear()

    def read(self, name: str, kind: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of the flattened parameter, fp32; raises `CheckpointError`."""
        parts = []
        for part in self._parameters[name].slices:
            first, last = max(start, part.start), min(stop, part.start + part.length)
            if first < last:
                stored = self._file(part.file).get_slice(f"{kind}/{name}")
                parts.append(stored[first - part.start : last - part.start])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _file(self, name: str) -> Any:
        if name not in self._open:
            try:
                self._open[name] = safe_open(self._folder / name, framework="pt").__enter__()
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self._folder / name}: cannot be read: {error}") from error
        return self._open[name]


def read_network(folder: Path, network: Network) -> dict[str, Tensor]:
    """The fp32 weights of a network by parameter name, whole; needs no engine and no process group.

    Raises `CheckpointError` when the checkpoint is not whole; every file that is read is checked first.
    """
    manifest = read_manifest(folder)
    parameters = manifest.networks[network].parameters
    names = {part.file for entry in parameters.values() for part in entry.slices}
    if problems := file_problems(folder, manifest, sorted(names)):
        raise CheckpointError(f"{folder}: not whole: {'; '.join(problems)}")
    with SliceReader(folder, manifest, network) as reader:
        return {
            name: reader.read(name, "weight", 0, math.prod(entry.shape)).reshape(entry.shape)
            for name, entry in parameters.items()
        }
