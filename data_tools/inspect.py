"""What shards hold, and whether they are whole: `data inspect` and `data verify`.

`inspect_shards` reads documents' lengths and a few documents; `verify_shards` reads everything and
reports every problem, where the loader stops at the first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_tools.checksums import superseded
from data_tools.tokenizer import load_tokenizer
from electra_dist.console import Progress, silent
from electra_dist.data.packing import WRAPPING, best_fit, cut_lengths
from electra_dist.data.shards.files import file_problem
from electra_dist.data.shards.manifest import (
    MANIFEST_FILE,
    SPLITS,
    TOKENIZER_FOLDER,
    TRAIN,
    VALIDATION,
    Manifest,
    SplitName,
)
from electra_dist.data.shards.reading import BlockReader
from electra_dist.errors import DataError
from electra_dist.files.tokenizers import TOKENIZER_FILE, read_tokenizer_file

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ROW_LENGTHS = (128, 256, 512, 1024)
#: Blocks that document lengths are read from, and that packing is tried on, at most; evenly spread.
_LENGTH_BLOCKS = 2048
_PACKED_BLOCKS = 32
_SAMPLE_TOKENS = 200


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
    """What `inspect_shards` found."""

    path: str
    fingerprint: str
    tokenizer_fingerprint: str
    vocab_size: int
    used_ids: int
    unigram_entropy: float
    token_bytes: int
    block_tokens: int
    seed: int
    splits: dict[SplitName, SplitReport]
    packing: tuple[PackingReport, ...]
    samples: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_shards` found; `problems` is empty when all is well."""

    path: str
    files: int
    blocks: int
    documents: int
    tokens: int
    checksums: bool
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def inspect_shards(
    path: Path,
    row_lengths: Sequence[int] = ROW_LENGTHS,
    samples: int = 3,
    progress: Progress = silent,
) -> InspectReport:
    """Statistics of the shards in `path`; raises `DataError` when they are not readable."""
    manifest = Manifest.load(path)
    manifest.check_files("sizes")
    lengths = {name: _lengths(manifest, name, progress) for name in SPLITS}
    facts = manifest.facts
    return InspectReport(
        path=str(path),
        fingerprint=manifest.fingerprint,
        tokenizer_fingerprint=facts.tokenizer_fingerprint,
        vocab_size=manifest.vocab_size,
        used_ids=int((manifest.token_counts > 0).sum()),
        unigram_entropy=manifest.unigram_entropy(),
        token_bytes=facts.token_bytes,
        block_tokens=facts.block_tokens,
        seed=facts.seed,
        splits={name: _split_report(manifest, name, lengths[name]) for name in SPLITS},
        packing=tuple(
            _packing_report(lengths[TRAIN], facts.train.blocks, length) for length in row_lengths
        ),
        samples=tuple(_samples(manifest, samples)),
    )


def _lengths(
    manifest: Manifest, split: SplitName, progress: Progress
) -> list[npt.NDArray[np.uint32]]:
    """Document lengths of each block, or of `_LENGTH_BLOCKS` blocks where there are more."""
    reader = BlockReader(manifest, split)
    count = min(len(reader), _LENGTH_BLOCKS)
    found = []
    for number in range(count):
        found.append(reader.read(number * len(reader) // count).lengths)
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
        bytes=sum(shard.tar.bytes + shard.index.bytes for shard in facts.shards),
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


def _samples(manifest: Manifest, count: int) -> Iterator[str]:
    """The starts of the first documents of `count` blocks spread over the split."""
    tokenizer = load_tokenizer(manifest.tokenizer_path)
    reader = BlockReader(manifest, TRAIN)
    for number in range(min(count, len(reader))):
        block = reader.read(number * len(reader) // min(count, len(reader)))
        yield tokenizer.decode(block.tokens[: min(int(block.lengths[0]), _SAMPLE_TOKENS)])


# --- verify ---------------------------------------------------------------------------------------


def verify_shards(path: Path, checksums: bool = True, progress: Progress = silent) -> VerifyReport:
    """Check every file and every block in `path`;
    raises `DataError` only when there is no readable manifest.
    """
    manifest = Manifest.load(path)
    level: Literal["sizes", "checksums"]
    if checksums:
        level = "checksums"
    else:
        level = "sizes"
    problems = []
    for done, facts in enumerate(manifest.files(), start=1):
        problem = file_problem(path, facts, level)
        if problem:
            problems.append(f"{path / facts.name}: {problem}")
        progress("files", done, len(manifest.files()))
    problems += [f"{path / name}: not in the manifest" for name in _extra_files(manifest)]
    problems += _content_problems(manifest, progress)
    problems += _tokenizer_problems(manifest)
    splits = [manifest.split(name) for name in SPLITS]
    return VerifyReport(
        path=str(path),
        files=len(manifest.files()) + 1,
        blocks=sum(split.blocks for split in splits),
        documents=sum(split.documents for split in splits),
        tokens=sum(split.tokens for split in splits),
        checksums=checksums,
        problems=tuple(dict.fromkeys(problems)),
    )


def _extra_files(manifest: Manifest) -> list[str]:
    known = {
        MANIFEST_FILE,
        TOKENIZER_FOLDER,
        *(facts.name for facts in manifest.files()),
        *superseded(manifest),
    }
    found = [*manifest.path.iterdir(), *(manifest.path / TOKENIZER_FOLDER).glob("*")]
    return sorted(
        name
        for name in (entry.relative_to(manifest.path).as_posix() for entry in found)
        if name not in known
    )


def _content_problems(manifest: Manifest, progress: Progress) -> Iterator[str]:
    """Reads every block; counts the ids of the split train against the manifest."""
    counts = np.zeros(manifest.vocab_size, np.int64)
    unread = 0
    for split in (TRAIN, VALIDATION):
        reader = BlockReader(manifest, split)
        for block in range(len(reader)):
            try:
                tokens = reader.read(block).tokens
            except DataError as error:
                unread += 1
                yield str(error)
                continue
            if split == TRAIN:
                counts += np.bincount(tokens, minlength=len(counts))
            progress(f"blocks of {split}", block + 1, len(reader))
    if not unread and not np.array_equal(counts, manifest.token_counts):
        yield f"{manifest.path / MANIFEST_FILE}: token_counts are not those of the shards"


def _tokenizer_problems(manifest: Manifest) -> Iterator[str]:
    try:
        tokenizer = load_tokenizer(manifest.tokenizer_path)
    except DataError as error:
        yield str(error)
        return
    content = read_tokenizer_file(manifest.tokenizer_path / TOKENIZER_FILE)
    if hashlib.sha256(content).hexdigest() != manifest.facts.tokenizer_fingerprint:
        yield (
            f"{manifest.tokenizer_path}: not the tokenizer that encoded the shards (its SHA-256"
            " differs)"
        )
    if tokenizer.specials != manifest.facts.special_tokens:
        yield (
            f"{manifest.tokenizer_path}: special tokens {asdict(tokenizer.specials)}, the manifest"
            f" says {asdict(manifest.facts.special_tokens)}"
        )
    if tokenizer.vocab_size != manifest.vocab_size:
        yield (
            f"{manifest.tokenizer_path}: {tokenizer.vocab_size} ids, the manifest says"
            f" {manifest.vocab_size}"
        )
