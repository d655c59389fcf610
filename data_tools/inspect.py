"""What shards hold: `data inspect`, which reads documents' lengths and a few documents.

Whether they are whole is for `verify`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.opening import opened
from data_tools.tokenizer import ShardTokenizer, load_tokenizer
from data_tools.verify import VerifyReport, verify_shards
from electra_dist.console import Progress, silent
from electra_dist.data.packing import WRAPPING, best_fit, cut_lengths
from electra_dist.data.shards.manifest import (
    SPLITS,
    TOKENIZER_FOLDER,
    TRAIN,
    Manifest,
    SplitName,
)
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError

__all__ = ["InspectReport", "VerifyReport", "inspect_shards", "verify_shards"]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ROW_LENGTHS = (128, 256, 512, 1024)
#: Blocks that document lengths are read from, and that packing is tried on, at most; evenly spread.
_LENGTH_BLOCKS = 2048
_PACKED_BLOCKS = 32
_SAMPLE_TOKENS = 200
#: Blocks that are asked for before they are needed: a store answers many at once.
_AHEAD = 16


@dataclass(frozen=True)
class SplitReport:
    """Sizes of one split; the lengths of documents come from `sampled_blocks` of its blocks.

    length_quantiles  quantile -> tokens
    length_histogram  power of two -> documents of at least so many tokens and fewer than twice as
                      many
    """

    shards: int
    blocks: int
    documents: int
    tokens: int
    bytes: int
    tokens_per_document: float
    sampled_blocks: int
    length_quantiles: dict[str, int]
    length_histogram: dict[int, int]


@dataclass(frozen=True)
class PackingReport:
    """Rows of one length, extrapolated from a sample of blocks;
    `padding` is the share of padding in them.
    """

    row_length: int
    rows: int
    padding: float
    documents_per_row: float


@dataclass(frozen=True)
class InspectReport:
    """What `inspect_shards` found.

    byte_share, unknown_share  fractions of the tokens of the split `train` that the tokenizer spelt
                               in bytes, and that it does not know
    piece_tokens               longer documents were cut; None where they were not
    block_checksums            whether each block has one
    """

    path: str
    fingerprint: str
    tokenizer_fingerprint: str
    vocab_size: int
    used_ids: int
    unigram_entropy: float
    byte_share: float
    unknown_share: float
    token_bytes: int
    block_tokens: int
    piece_tokens: int | None
    block_checksums: bool
    seed: int
    splits: dict[SplitName, SplitReport]
    packing: tuple[PackingReport, ...]
    samples: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def inspect_shards(
    shards: Path | str,
    row_lengths: Sequence[int] = ROW_LENGTHS,
    samples: int = 3,
    progress: Progress = silent,
) -> InspectReport:
    """Statistics of the shards in a folder or at a URL; raises `DataError` when they are not
    readable.
    """
    with opened(shards) as manifest:
        return _inspect(manifest, str(shards), row_lengths, samples, progress)


def _inspect(
    manifest: Manifest,
    shards: str,
    row_lengths: Sequence[int],
    samples: int,
    progress: Progress,
) -> InspectReport:
    manifest.check_files("sizes")
    tokenizer = _tokenizer(manifest)
    shares = tokenizer.shares_of_counts(manifest.token_counts)
    lengths = {name: _lengths(manifest, name, progress) for name in SPLITS}
    facts = manifest.facts
    return InspectReport(
        path=shards,
        fingerprint=manifest.fingerprint,
        tokenizer_fingerprint=facts.tokenizer_fingerprint,
        vocab_size=manifest.vocab_size,
        used_ids=int((manifest.token_counts > 0).sum()),
        unigram_entropy=manifest.unigram_entropy(),
        byte_share=shares.byte_share,
        unknown_share=shares.unknown_share,
        token_bytes=facts.token_bytes,
        block_tokens=facts.block_tokens,
        piece_tokens=facts.piece_tokens,
        block_checksums=facts.block_checksums is not None,
        seed=facts.seed,
        splits={name: _split_report(manifest, name, lengths[name]) for name in SPLITS},
        packing=tuple(
            _packing_report(lengths[TRAIN], facts.train.blocks, length) for length in row_lengths
        ),
        samples=tuple(_samples(manifest, tokenizer, samples)),
    )


def _tokenizer(manifest: Manifest) -> ShardTokenizer:
    """The tokenizer of the shards; raises `DataError` where it is another one."""
    tokenizer = load_tokenizer(manifest.tokenizer_path)
    if tokenizer.fingerprint != manifest.facts.tokenizer_fingerprint:
        raise DataError(
            f"{manifest.place(TOKENIZER_FOLDER)}: not the tokenizer that encoded the shards (its"
            " SHA-256 differs); copy the folder again from a whole copy of the shards"
        )
    return tokenizer


def _lengths(
    manifest: Manifest, split: SplitName, progress: Progress
) -> list[npt.NDArray[np.uint32]]:
    """Document lengths of each block, or of `_LENGTH_BLOCKS` blocks where there are more."""
    reader = BlockReader(manifest, split)
    count = min(len(reader), _LENGTH_BLOCKS)
    found = []
    chosen = [number * len(reader) // count for number in range(count)]
    reader.expect(chosen[:_AHEAD])
    for number, block in enumerate(chosen):
        reader.expect(chosen[number + _AHEAD : number + _AHEAD + 1])
        found.append(reader.read(block).lengths)
        progress(f"read {split}", number + 1, count)
    return found


def _split_report(
    manifest: Manifest, name: SplitName, blocks: list[npt.NDArray[np.uint32]]
) -> SplitReport:
    facts = manifest.split(name)
    if blocks:
        lengths = np.concatenate(blocks)
    else:
        lengths = np.zeros(0, np.uint32)
    if len(lengths):
        quantiles = np.quantile(lengths, QUANTILES).round().astype(int).tolist()
    else:
        quantiles = []
    powers, counts = np.unique(
        np.floor(np.log2(np.maximum(lengths, 1))).astype(int), return_counts=True
    )
    return SplitReport(
        shards=len(facts.shards),
        blocks=facts.blocks,
        documents=facts.documents,
        tokens=facts.tokens,
        bytes=sum(shard.tar.bytes for shard in facts.shards),
        tokens_per_document=facts.tokens / max(1, facts.documents),
        sampled_blocks=len(blocks),
        length_quantiles={f"{q:g}": value for q, value in zip(QUANTILES, quantiles, strict=False)},
        length_histogram={
            2**power: count for power, count in zip(powers.tolist(), counts.tolist(), strict=True)
        },
    )


def _packing_report(
    blocks: list[npt.NDArray[np.uint32]], total_blocks: int, row_length: int
) -> PackingReport:
    """Packs at most `_PACKED_BLOCKS` blocks, with the default for documents a row."""
    chosen = blocks[:: math.ceil(len(blocks) / _PACKED_BLOCKS)]
    rows = used = pieces = 0
    for lengths in chosen:
        sizes = cut_lengths(lengths, row_length) + WRAPPING
        rows += best_fit(sizes, row_length, max(4, row_length // 8))[2]
        used += int(sizes.sum())
        pieces += len(sizes)
    return PackingReport(
        row_length=row_length,
        rows=round(rows * total_blocks / len(chosen)),
        padding=1 - used / (rows * row_length),
        documents_per_row=pieces / rows,
    )


def _samples(manifest: Manifest, tokenizer: ShardTokenizer, count: int) -> Iterator[str]:
    """The starts of the first documents of `count` blocks spread over the split."""
    reader = BlockReader(manifest, TRAIN)
    for number in range(min(count, len(reader))):
        block = reader.read(number * len(reader) // min(count, len(reader)))
        yield tokenizer.decode(block.tokens[: min(int(block.lengths[0]), _SAMPLE_TOKENS)])
