"""What a build is asked for, and what it tells at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from data_tools.tokenizer import Shares
from electra_dist.data.shards.manifest import MAX_BLOCK_TOKENS, SPLITS, Manifest
from electra_dist.errors import DataError


@dataclass(frozen=True)
class BuildOptions:
    """How shards are made.

    validation      fraction of the documents held out (by a hash of the text, the same under every
                    seed); above 0, at least `splits.HELD_OUT` documents are
    min_characters  shorter documents are left out
    deduplicate     drop exact duplicates (after normalisation)
    piece_tokens    longer documents are cut into pieces of at most so many tokens, which are
                    shuffled one by one; 0 keeps documents whole
    block_tokens    tokens of a block at most; longer documents are cut
    shard_blocks    blocks of a shard, about
    part_bytes      text that a worker takes at a time; by default what suits the input
    workers         processes; the bytes of the shards do not depend on it
    again           throw away what an unfinished build of the same folder has made
    """

    validation: float = 0.01
    seed: int = 1234
    workers: int = 1
    min_characters: int = 1
    deduplicate: bool = True
    piece_tokens: int = 8160
    block_tokens: int = 65536
    shard_blocks: int = 512
    part_bytes: int | None = None
    again: bool = False

    def check(self) -> None:
        """Raise `DataError` for a value that no build can have."""
        if not 0 <= self.validation < 1:
            raise DataError(
                f"`validation` {self.validation}: expected a fraction, 0 or more and below 1, such"
                " as 0.01"
            )
        if not 1 <= self.block_tokens <= MAX_BLOCK_TOKENS:
            raise DataError(f"block_tokens {self.block_tokens}: expected 1 to {MAX_BLOCK_TOKENS}")
        if not 0 <= self.piece_tokens <= MAX_BLOCK_TOKENS:
            raise DataError(
                f"`piece_tokens` {self.piece_tokens}: expected 1 to {MAX_BLOCK_TOKENS}, or 0 for"
                " whole documents"
            )
        if self.workers < 1:
            raise DataError(f"`workers` {self.workers}: expected at least 1")

    def decisive(self) -> dict[str, Any]:
        """The options that the bytes of the shards depend on."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("workers", "again")
        }


@dataclass(frozen=True)
class BuildCounts:
    """What a build left out, and what it was given: `documents` counts what was read.

    too_short       shorter than `min_characters`
    without_tokens  nothing that the tokenizer knows
    duplicates      exact duplicates that were dropped
    cut             documents that were cut into pieces
    shares          how much of the text was spelt in bytes or is unknown
    """

    documents: int
    too_short: int
    without_tokens: int
    duplicates: int
    cut: int
    shares: Shares


@dataclass(frozen=True)
class BuildStats(BuildCounts):
    """The counts with what was made; a piece of a long document counts as one in the manifest."""

    manifest: Manifest

    def to_dict(self) -> dict[str, Any]:
        """For programs: the counts, and the facts of each split with the number of its shards."""
        content: dict[str, Any] = {
            "path": str(self.manifest.path),
            "fingerprint": self.manifest.fingerprint,
        }
        for name in ("documents", "too_short", "without_tokens", "duplicates", "cut"):
            content[name] = getattr(self, name)
        content["byte_share"] = self.shares.byte_share
        content["unknown_share"] = self.shares.unknown_share
        for split in SPLITS:
            facts = self.manifest.split(split)
            content[split] = {
                "shards": len(facts.shards),
                "blocks": facts.blocks,
                "documents": facts.documents,
                "tokens": facts.tokens,
            }
        return content


@dataclass(frozen=True)
class PartStats:
    """What `data build --part` made; `merge_parts` makes shards of all parts together."""

    path: str
    part: int
    parts: int
    documents: int
    tokens: int
    shares: Shares

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        content = asdict(self)
        del content["shares"]
        content["byte_share"] = self.shares.byte_share
        content["unknown_share"] = self.shares.unknown_share
        return content
