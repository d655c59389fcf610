"""What a manifest states, typed, and whether it can be true.

Comes in: the counts, sizes and digests of somebody's shards. Goes out: the same, held against each
other. No file is opened here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from electra_dist.batch import SPECIAL_TOKENS, SpecialTokens
from electra_dist.data.shards.files import FileFacts
from electra_dist.files.reading import MIB

FORMAT = "electra-dist-shards"
#: Of a manifest with its tables beside it; version 1 lists all shards in manifest.json itself.
VERSION = 2
#: Goes into the fingerprint, which is the same in all versions of the format.
_FINGERPRINT_VERSION = 1
SplitName = Literal["train", "validation"]
TRAIN: SplitName = "train"
VALIDATION: SplitName = "validation"
SPLITS: tuple[SplitName, ...] = (TRAIN, VALIDATION)
TOKENIZER_FOLDER = "tokenizer"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
#: Tokens of a block at most: what a reader makes room for at once.
MAX_BLOCK_TOKENS = 2**24
MAX_VOCABULARY = 2**24
#: Bytes of the index of one shard at most.
INDEX_LIMIT = 64 * MIB


@dataclass(frozen=True)
class ShardFacts:
    """One shard: its tar file and what it holds.

    `index` is a file of its own that says where the blocks are: while shards are built, and in
    version 1. None where the table of blocks has it.
    """

    tar: FileFacts
    index: FileFacts | None
    blocks: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class SplitFacts:
    """The shards of one split, in order, and their sums."""

    shards: Sequence[ShardFacts]
    blocks: int
    documents: int
    tokens: int

    @classmethod
    def of(cls, shards: Sequence[ShardFacts]) -> SplitFacts:
        """The split that consists of `shards`."""
        return cls(
            shards=shards,
            blocks=sum(shard.blocks for shard in shards),
            documents=sum(shard.documents for shard in shards),
            tokens=sum(shard.tokens for shard in shards),
        )


@dataclass(frozen=True)
class SplitTables:
    """The two tables of a split: one entry for each shard, and one for each block (`tables`)."""

    shards: FileFacts
    blocks: FileFacts


@dataclass(frozen=True)
class ManifestFile:
    """The content of `manifest.json`, key by key.

    `block_tokens` is the most tokens a block holds, `fingerprint` names the dataset (every shard's
    SHA-256 and the tokenizer's), `token_counts` has how often each id occurs in the split `train`,
    `block_checksums` says whether there is a checksum for each block (not so in shards of an
    earlier version), `piece_tokens` is the most tokens of a piece of a document (None: documents
    are whole), `special_tokens` has the ids of the special tokens (absent: 0 to 4), `tables` names
    the tables of each split (None in version 1, and before they are written).
    """

    format: str
    version: int
    fingerprint: str
    tokenizer_fingerprint: str
    vocab_size: int
    token_bytes: Literal[2, 4]
    block_tokens: int
    seed: int
    train: SplitFacts
    validation: SplitFacts
    tokenizer_files: tuple[FileFacts, ...]
    token_counts: tuple[int, ...]
    block_checksums: Literal["crc32"] | None = None
    piece_tokens: int | None = None
    special_tokens: SpecialTokens = SPECIAL_TOKENS
    tables: dict[SplitName, SplitTables] | None = None

    def split(self, name: SplitName) -> SplitFacts:
        """The facts of one split."""
        if name == TRAIN:
            return self.train
        return self.validation


def shard_name(split: SplitName, shard: int) -> str:
    """Name of shard `shard` without its suffix."""
    return f"{split}-{shard:05d}"


def shard_number(split: SplitName, tar_name: str) -> int | None:
    """The number in the name of a tar file; None for a name that `shard_name` does not make."""
    digits = tar_name.removeprefix(f"{split}-").removesuffix(".tar")
    if digits.isdecimal() and digits.isascii() and len(digits) <= 9:
        number = int(digits)
        if f"{shard_name(split, number)}.tar" == tar_name:
            return number
    return None


def dataset_fingerprint(tokenizer_fingerprint: str, splits: list[SplitFacts]) -> str:
    """One name for a dataset:
    SHA-256 over the tokenizer's fingerprint and every shard's name and SHA-256.
    """
    names = [[(shard.tar.name, shard.tar.sha256) for shard in split.shards] for split in splits]
    return _fingerprint(tokenizer_fingerprint, names)


def _fingerprint(tokenizer_fingerprint: str, names: list[list[tuple[str, str]]]) -> str:
    return hashlib.sha256(
        json.dumps([FORMAT, _FINGERPRINT_VERSION, tokenizer_fingerprint, names]).encode()
    ).hexdigest()


def contradiction(facts: ManifestFile) -> str | None:
    """What cannot be true of any shards, or None:
    names that leave the folder, sums that do not add up.
    """
    walked = {name: _Walked(facts, name) for name in SPLITS}
    problem = _wrong_names(facts, walked)
    for split in walked.values():
        problem = problem or split.problem
    problem = problem or _wrong_vocabulary(facts) or _wrong_specials(facts)
    if problem:
        return problem
    digests = [split.digests for split in walked.values()]
    if facts.fingerprint != _fingerprint(facts.tokenizer_fingerprint, digests):
        return "the fingerprint is not that of its shards"
    return None


class _Walked:
    """One pass over the shards of a split, of which there may be very many.

    files    names of all their files
    digests  name and SHA-256 of each tar
    problem  the first one, or None
    """

    def __init__(self, facts: ManifestFile, name: SplitName) -> None:
        self.files: list[str] = []
        self.digests: list[tuple[str, str]] = []
        self.problem: str | None = None
        split = facts.split(name)
        blocks = 0
        documents = 0
        tokens = 0
        for shard in split.shards:
            self.digests.append((shard.tar.name, shard.tar.sha256))
            self.files.append(shard.tar.name)
            if shard.index is not None:
                self.files.append(shard.index.name)
            self.problem = self.problem or _wrong_shard(shard, facts.token_bytes)
            blocks += shard.blocks
            documents += shard.documents
            tokens += shard.tokens
        if self.problem is None and (split.blocks, split.documents, split.tokens) != (
            blocks,
            documents,
            tokens,
        ):
            self.problem = f"the counts of the split {name} are not the sums of its shards"


def _wrong_shard(shard: ShardFacts, token_bytes: int) -> str | None:
    content = token_bytes * shard.tokens + 4 * shard.documents
    counts_fit = 1 <= shard.blocks <= shard.documents <= shard.tokens and content <= shard.tar.bytes
    index_fits = shard.index is None or 0 < shard.index.bytes <= INDEX_LIMIT
    if counts_fit and index_fits:
        return None
    return f"the counts of {shard.tar.name} do not fit its size"


def _wrong_names(facts: ManifestFile, walked: dict[SplitName, _Walked]) -> str | None:
    names = [name for split in walked.values() for name in split.files]
    for tables in (facts.tables or {}).values():
        names += [tables.shards.name, tables.blocks.name]
    tokenizer = [file.name.removeprefix(f"{TOKENIZER_FOLDER}/") for file in facts.tokenizer_files]
    for name in names + tokenizer:
        if not _PLAIN_NAME.fullmatch(name):
            return f"{name[:100]!r} is no name of a file in the folder"
    for split in walked.values():
        for name, _ in split.digests:
            if not name.endswith(".tar"):
                return f"{name} is no name of a tar file"
    if len(set(names)) != len(names) or len(set(tokenizer)) != len(tokenizer):
        return "a file is named twice"
    return None


def _wrong_specials(facts: ManifestFile) -> str | None:
    specials = facts.special_tokens
    for name, number in asdict(specials).items():
        if number is not None and not 0 <= number < facts.vocab_size:
            return f"special_tokens.{name} {number} is outside the vocabulary"
    if len(set(specials.never_masked)) < len(specials.never_masked):
        return "two special tokens have one id"
    return None


def _wrong_vocabulary(facts: ManifestFile) -> str | None:
    if not 1 <= facts.vocab_size <= min(256**facts.token_bytes, MAX_VOCABULARY):
        return f"a vocabulary of {facts.vocab_size} ids in {facts.token_bytes} bytes"
    if not 1 <= facts.block_tokens <= MAX_BLOCK_TOKENS:
        return f"blocks of {facts.block_tokens} tokens, expected at most {MAX_BLOCK_TOKENS}"
    if len(facts.token_counts) != facts.vocab_size or min(facts.token_counts) < 0:
        return "token_counts does not have one count an id"
    if sum(facts.token_counts) == facts.train.tokens:
        return None
    return "token_counts do not add up to the tokens"
