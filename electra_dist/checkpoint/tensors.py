"""The weights of a checkpoint as PyTorch tensors: writing a rank's file, reading any range of any
parameter.

What lies in a checkpoint is described in `electra_dist.runs.checkpoints`, which needs no torch.
Knows nothing of engines and processes: `saving.py` and `loading.py` decide who writes and reads
what.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from electra_dist.config import Network
from electra_dist.errors import CheckpointError
from electra_dist.files.reading import NotRegularError
from electra_dist.parallel import signs
from electra_dist.runs.checkpoints.manifest import (
    SMALL_FILE_LIMIT,
    TRAINER,
    CheckpointManifest,
    FileEntry,
    read_manifest,
)
from electra_dist.runs.checkpoints.members import (
    StoredTensor,
    content_problem,
    open_member,
    read_member,
    read_range,
    stored_tensors,
    tensor_header,
    write_member,
)

#: A rank's tensors, by network and by name in the file.
Tensors = Mapping[str, Mapping[str, Tensor]]
#: Files of one checkpoint that are open at a time:
#: a thousand ranks leave more than a process may open.
_MOST_OPEN = 256


def share_name(network: str, rank: int) -> str:
    """The file of one rank and network."""
    return f"{network}/rank-{rank:05d}.safetensors"


def write_share(folder: Path, tensors: Tensors, rank: int) -> dict[str, Any]:
    """Write one rank's files; their entries by name, as JSON. Raises `OSError`."""
    entries = {}
    for network, named in tensors.items():
        if named:
            (folder / network).mkdir(exist_ok=True)
            name = share_name(network, rank)
            entries[name] = write_tensors(folder / name, named).model_dump()
    return entries


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Write flat fp32 tensors to a new safetensors file, flushed to the disk.

    Tensors of another device are copied to the CPU one at a time; those of the CPU are not copied.
    Raises `OSError`.
    """
    header = tensor_header({name: tensor.numel() for name, tensor in tensors.items()})
    return write_member(path, _parts(header, tensors.values()))


def _parts(header: bytes, tensors: Iterable[Tensor]) -> Iterator[bytes | memoryview]:
    yield header
    for tensor in tensors:
        assert tensor.dtype == torch.float32
        yield as_bytes(tensor.detach().cpu().contiguous())


class _OpenFile(NamedTuple):
    descriptor: int
    tensors: dict[str, StoredTensor]


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    array: Any = tensor.view(-1).numpy()
    return memoryview(array).cast("B")


class SliceReader:
    """Reads any range of any parameter of one network; a context manager.

    checked   compare each file with the manifest when it is first opened
    """

    def __init__(
        self, folder: Path, manifest: CheckpointManifest, network: Network, *, checked: bool = False
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._parameters = manifest.networks[network].parameters
        if checked:
            self._unchecked = set(manifest.files)
        else:
            self._unchecked = set()
        self._open: dict[str, _OpenFile] = {}

    def __enter__(self) -> SliceReader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def read(self, name: str, kind: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of the flattened parameter, fp32; raises `CheckpointError`."""
        signs.sign()
        found = torch.empty(stop - start, dtype=torch.float32)
        for part in self._parameters[name].slices:
            first = max(start, part.start)
            last = min(stop, part.start + part.length)
            if first < last:
                target = found[first - start : last - start]
                self._fill(target, part.file, f"{kind}/{name}", first - part.start, part.length)
        return found

    def _fill(self, target: Tensor, file: str, key: str, start: int, length: int) -> None:
        """Elements of the stored tensor `key` from `start` on, which must have `length` of them."""
        path = self._folder / file
        try:
            opened = self._file(file)
            stored = opened.tensors.get(key)
            if stored is None or stored.length != length:
                raise CheckpointError(
                    f"{path}: does not hold {length:,} elements of {key}, as the manifest says"
                )
            read_range(
                opened.descriptor, as_bytes(target), stored.offset + target.element_size() * start
            )
        except (OSError, NotRegularError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from error

    def _file(self, name: str) -> _OpenFile:
        if name not in self._open:
            while len(self._open) >= _MOST_OPEN:
                self._close_oldest()
            descriptor = open_member(self._folder, name)
            self._open[name] = _OpenFile(descriptor, {})
            self._check(name, descriptor)
            self._open[name] = _OpenFile(
                descriptor, stored_tensors(self._folder / name, descriptor)
            )
        return self._open[name]

    def _check(self, name: str, descriptor: int) -> None:
        if name in self._unchecked:
            problem = content_problem(name, descriptor, self._manifest.files[name])
            if problem:
                raise CheckpointError(f"{self._folder}: not whole: {problem}")
            self._unchecked.remove(name)

    def _close_oldest(self) -> None:
        os.close(self._open.pop(next(iter(self._open))).descriptor)


def read_trainer_state(folder: Path, manifest: CheckpointManifest | None = None) -> dict[str, Any]:
    """trainer.json, compared with the manifest; raises `CheckpointError`."""
    manifest = manifest or read_manifest(folder)
    if TRAINER not in manifest.files:
        raise CheckpointError(f"{folder}: {TRAINER} is none of its files")
    try:
        content = json.loads(
            read_member(folder, TRAINER, manifest.files[TRAINER], SMALL_FILE_LIMIT)
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder}: {TRAINER} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder}: {TRAINER} holds no mapping")
    return content


def read_network(folder: Path, network: Network) -> dict[str, Tensor]:
    """The fp32 weights of a network by parameter name, whole; needs no engine and no process group.

    Raises `CheckpointError` when the checkpoint is not whole; every file that is read is checked
    first.
    """
    manifest = read_manifest(folder)
    if network not in manifest.networks:
        raise CheckpointError(f"{folder}: holds no {network}")
    with SliceReader(folder, manifest, network, checked=True) as reader:
        return {
            name: reader.read(name, "weight", 0, math.prod(entry.shape)).reshape(entry.shape)
            for name, entry in manifest.networks[network].parameters.items()
        }
