"""Reading blocks: any block of any shard, in one seek, checked.

A shard is a WebDataset tar; its samples are blocks, `NAME.tokens.npy` (token ids of whole documents, end to end) and
`NAME.lengths.npy` (tokens of each document). The index beside it has the offset of each block's first tar header:
WebDataset's own tar iterator is given the file from there on. That iterator is silent about truncated and damaged
archives, so every block is checked against the index: name, counts, range of the ids.

Letters: N tokens of a block, D documents of a block.
"""

from __future__ import annotations

import bisect
import functools
import io
import itertools
import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydantic

from electra_dist.data.manifest import Manifest, ShardFacts, SplitName
from electra_dist.errors import DataError

TOKENS = "tokens.npy"
LENGTHS = "lengths.npy"
#: Indexes that a reader keeps; each is some 50 KB in memory.
_INDEXES = 256


@dataclass(frozen=True)
class ShardIndex:
    """Where each block of a shard starts and what it holds; entry i is block i of the shard."""

    offsets: tuple[int, ...]
    tokens: tuple[int, ...]
    documents: tuple[int, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


_ADAPTER = pydantic.TypeAdapter(ShardIndex)


@dataclass(frozen=True)
class Block:
    """Documents end to end: `tokens` (N,) uint16 or uint32, `lengths` (D,) uint32, sum(lengths) = N."""

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    lengths: npt.NDArray[np.uint32]


def block_name(shard: str, block: int) -> str:
    """Name of the sample that holds block `block` of the shard called `shard`."""
    return f"{shard}-{block:06d}"


def shard_name(split: SplitName, shard: int) -> str:
    """Name of shard `shard` without its suffix."""
    return f"{split}-{shard:05d}"


class BlockReader:
    """The blocks of one split as one sequence, 0 to `len(reader)` - 1, in the order of the manifest's shards."""

    def __init__(self, manifest: Manifest, split: SplitName) -> None:
        self._manifest = manifest
        self._shards = manifest.split(split).shards
        self._ends = list(itertools.accumulate(shard.blocks for shard in self._shards))
        self._index = functools.lru_cache(maxsize=_INDEXES)(self._load_index)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, block: int) -> Block:
        """Block number `block` of the split; raises `DataError` when its shard is missing or damaged."""
        if not 0 <= block < len(self):
            raise IndexError(f"block {block} of {len(self)}")
        shard = bisect.bisect_right(self._ends, block)
        inside = block - (self._ends[shard - 1] if shard else 0)
        facts, index = self._shards[shard], self._index(shard)
        path = self._manifest.path / facts.tar.name
        key = block_name(path.name.removesuffix(".tar"), inside)
        try:
            sample = _read_sample(path, index.offsets[inside])
            found = _parse(sample, key)
        except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
            raise _damaged(path, inside, f"{type(error).__name__}: {error}") from error
        problem = self._problem(found, index, inside)
        if problem:
            raise _damaged(path, inside, problem)
        return found

    def _load_index(self, shard: int) -> ShardIndex:
        return read_index(self._manifest.path, self._shards[shard])

    def _problem(self, block: Block, index: ShardIndex, inside: int) -> str | None:
        """What contradicts the index or the vocabulary, or None."""
        tokens, lengths = block.tokens, block.lengths
        if tokens.dtype != self._manifest.token_dtype or tokens.ndim != 1 or lengths.dtype != np.dtype("<u4"):
            return (
                f"arrays of type {tokens.dtype} and {lengths.dtype}, expected {self._manifest.token_dtype} and uint32"
            )
        if len(tokens) != index.tokens[inside] or len(lengths) != index.documents[inside]:
            expected = f"{index.tokens[inside]} tokens in {index.documents[inside]} documents"
            return f"holds {len(tokens)} tokens in {len(lengths)} documents, the index says {expected}"
        if int(lengths.sum(dtype=np.int64)) != len(tokens) or not lengths.all():
            return "its document lengths do not add up to its tokens"
        if int(tokens.max()) >= self._manifest.vocab_size:
            return f"token id {int(tokens.max())} is outside the vocabulary of {self._manifest.vocab_size}"
        return None


def _damaged(path: Path, block: int, problem: str) -> DataError:
    return DataError(
        f"{path}: block {block} is damaged ({problem}); run `electra-dist data verify {path.parent}`, then copy the"
        " shard again or build the shards again"
    )


def read_index(folder: Path, shard: ShardFacts) -> ShardIndex:
    """The index of one shard; raises `DataError` when it is missing, damaged or contradicts the manifest."""
    path = folder / shard.index.name
    try:
        index = _ADAPTER.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a shard's index: {error}; build the shards again") from error
    lengths = {len(index.offsets), len(index.tokens), len(index.documents)}
    if lengths != {shard.blocks} or sum(index.tokens) != shard.tokens or sum(index.documents) != shard.documents:
        raise DataError(f"{path}: does not agree with the manifest; copy it again, or build the shards again")
    return index


def _read_sample(path: Path, offset: int) -> dict[str, Any]:
    """The WebDataset sample whose first tar header is at `offset`."""
    # Imported here because webdataset imports torch wherever it is installed, and this package must load without.
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with path.open("rb") as file:
        file.seek(offset)
        samples = group_by_keys(tar_file_expander(iter([{"url": str(path), "stream": file}])))
        for sample in samples:
            return dict(sample)
    raise EOFError("the archive ends before the block")


def _parse(sample: dict[str, Any], key: str) -> Block:
    if sample["__key__"] != key:
        raise ValueError(f"found sample {sample['__key__']!r} where {key!r} should be")
    return Block(*(np.load(io.BytesIO(sample[name]), allow_pickle=False) for name in (TOKENS, LENGTHS)))


def array_bytes(array: npt.NDArray[Any]) -> bytes:
    """`array` as the content of a .npy file, without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
