"""Text to shards: encode in parallel, shuffle all documents, write WebDataset shards and their
manifest.

1. encode   Workers read parts of the input, normalise and encode every document, and spill the ids
   to disk, sorted
            by a 128-bit key: the hash of the text under the seed. (Split: by another hash of the
            text.)
2. plan     Shards are equal ranges of the key. Sorting by a hash *is* the shuffle, over the whole
   corpus; exact
            duplicates have equal keys and meet in one shard.
3. write    Workers gather one range from all spills, sort it, drop duplicates, cut it into blocks,
   write the shard.
4. publish  The manifest comes last, then one rename: the output is whole or absent.

Memory is bounded by one part of the input and one shard a worker. The bytes do not depend on the
number of workers.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.encode import Encoded, EncodeTask, encode, token_bytes
from data_tools.sources import find_inputs, split_parts
from data_tools.spill import KeyRange, Spill
from data_tools.tokenizer import ShardTokenizer, Shares, load_tokenizer
from data_tools.workers import run_tasks
from data_tools.write import WriteTask, WrittenShard, file_facts, write_shard
from electra_dist.console import Progress, silent
from electra_dist.data.shards.manifest import (
    FORMAT,
    MANIFEST_FILE,
    MAX_BLOCK_TOKENS,
    SPLITS,
    TOKENIZER_FOLDER,
    TRAIN,
    VALIDATION,
    VERSION,
    Manifest,
    ManifestFile,
    SplitFacts,
    SplitName,
    dataset_fingerprint,
    write_manifest,
)
from electra_dist.data.shards.reading import shard_name
from electra_dist.errors import DataError
from electra_dist.files.staging import whole_folder
from electra_dist.files.tokenizers import write_tokenizer


@dataclass(frozen=True)
class BuildOptions:
    """How shards are made.

    validation      fraction of the documents held out (by a hash of the text, the same under every
                    seed)
    min_characters  shorter documents are left out
    deduplicate     drop exact duplicates (after normalisation)
    block_tokens    tokens of a block at most; longer documents are cut
    shard_blocks    blocks of a shard, about
    part_bytes      text that a worker takes at a time; by default what suits the input
    """

    validation: float = 0.0
    seed: int = 1234
    workers: int = 1
    min_characters: int = 1
    deduplicate: bool = True
    block_tokens: int = 65536
    shard_blocks: int = 512
    part_bytes: int | None = None


@dataclass(frozen=True)
class BuildStats:
    """What `build_shards` made and left out;
    `documents` counts what was read, the manifest what was kept.
    """

    manifest: Manifest
    documents: int
    too_short: int
    without_tokens: int
    duplicates: int
    shares: Shares

    def to_dict(self) -> dict[str, Any]:
        """For programs: the counts, and the facts of each split with the number of its shards."""
        content: dict[str, Any] = {
            "path": str(self.manifest.path),
            "fingerprint": self.manifest.fingerprint,
        }
        for name in ("documents", "too_short", "without_tokens", "duplicates"):
            content[name] = getattr(self, name)
        content["byte_share"] = self.shares.byte_share
        content["unknown_share"] = self.shares.unknown_share
        for split in SPLITS:
            facts = asdict(self.manifest.split(split))
            content[split] = {**facts, "shards": len(facts["shards"])}
        return content


def build_shards(
    inputs: Sequence[Path],
    tokenizer_dir: Path,
    out: Path,
    options: BuildOptions | None = None,
    progress: Progress = silent,
) -> BuildStats:
    """Encode `inputs` with the tokenizer in `tokenizer_dir` and write shards to the new folder
    `out`.

    Raises `DataError` for unreadable input, input without documents, or an output folder that holds
    something.
    """
    options = options or BuildOptions()
    _check_options(options)
    _check_out(out)
    parts = split_parts(find_inputs(inputs), options.part_bytes)
    tokenizer = load_tokenizer(tokenizer_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out) as work:
        spilled = work / "spilled"
        spilled.mkdir()
        parts_to_encode = [
            EncodeTask(
                part=part,
                number=number,
                tokenizer_dir=tokenizer_dir,
                folder=spilled,
                validation=options.validation,
                seed=options.seed,
                min_characters=options.min_characters,
                deduplicate=options.deduplicate,
            )
            for number, part in enumerate(parts)
        ]
        encoded = run_tasks(encode, parts_to_encode, options.workers, "encode", progress)
        splits = {
            name: [spill for result in encoded for spill in result.spills[name]] for name in SPLITS
        }
        _check_documents(splits, encoded, options)
        tasks = _plan(splits, work, tokenizer.vocab_size, options)
        written = run_tasks(write_shard, tasks, options.workers, "write shards", progress)
        shutil.rmtree(spilled)
        _write_manifest(work, tokenizer, written, options)
    return BuildStats(
        manifest=Manifest.load(out),
        documents=sum(result.documents for result in encoded),
        too_short=sum(result.too_short for result in encoded),
        without_tokens=sum(result.without_tokens for result in encoded),
        duplicates=sum(shard.duplicates for shard in written),
        shares=sum((result.shares for result in encoded), Shares()),
    )


def _check_options(options: BuildOptions) -> None:
    if not 0 <= options.validation < 1:
        raise DataError(
            f"`validation` {options.validation}: expected a fraction, 0 or more and below 1, such"
            " as 0.01"
        )
    if not 1 <= options.block_tokens <= MAX_BLOCK_TOKENS:
        raise DataError(f"block_tokens {options.block_tokens}: expected 1 to {MAX_BLOCK_TOKENS}")
    if options.workers < 1:
        raise DataError(f"`workers` {options.workers}: expected at least 1")


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the shards")
    if out.is_dir() and any(out.iterdir()):
        if (out / MANIFEST_FILE).exists():
            kind = "shards"
        else:
            kind = "something else"
        raise DataError(f"{out}: holds {kind} already; give a new folder, or remove this one first")


def _check_documents(
    splits: dict[SplitName, list[Spill]], encoded: list[Encoded], options: BuildOptions
) -> None:
    counts = {name: sum(spill.documents for spill in spills) for name, spills in splits.items()}
    read = sum(result.documents for result in encoded)
    if not sum(counts.values()):
        raise DataError(
            f"no documents: {read} were read, all empty or shorter than {options.min_characters}"
            " characters;"
            ' .txt needs text, .jsonl needs text under "text"'
        )
    if options.validation > 0:
        wanted = [TRAIN, VALIDATION]
    else:
        wanted = [TRAIN]
    for name in wanted:
        if not counts[name]:
            raise DataError(
                f"`validation` {options.validation}: none of the {read} documents fall into the"
                f" split {name}; give more documents or another fraction"
            )


# --- plan, publish --------------------------------------------------------------------------------


def _plan(
    splits: dict[SplitName, list[Spill]], folder: Path, vocab_size: int, options: BuildOptions
) -> list[WriteTask]:
    """One task a shard: equal ranges of the key, as many as the tokens of the split ask for."""
    tasks = []
    for name, spills in splits.items():
        tokens = sum(spill.tokens for spill in spills)
        shards = -(-tokens // (options.block_tokens * options.shard_blocks))
        tasks += [
            WriteTask(
                folder=folder,
                name=shard_name(name, number),
                split=name,
                spills=tuple(spills),
                keys=KeyRange(number, shards),
                token_bytes=token_bytes(vocab_size),
                vocab_size=vocab_size,
                block_tokens=options.block_tokens,
                drop_equal_keys=options.deduplicate,
            )
            for number in range(shards)
        ]
    return tasks


def _write_manifest(
    folder: Path, tokenizer: ShardTokenizer, written: Sequence[WrittenShard], options: BuildOptions
) -> None:
    """Copy the tokenizer, then write `manifest.json`, last."""
    copied = tokenizer.files
    write_tokenizer(copied, folder / TOKENIZER_FOLDER)
    of = {
        name: SplitFacts.of(tuple(w.facts for w in written if w.split == name and w.facts))
        for name in SPLITS
    }
    counts = sum(
        (w.token_counts for w in written if w.split == TRAIN),
        np.zeros(tokenizer.vocab_size, np.int64),
    )
    facts = ManifestFile(
        format=FORMAT,
        version=VERSION,
        fingerprint=dataset_fingerprint(tokenizer.fingerprint, list(of.values())),
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        token_bytes=token_bytes(tokenizer.vocab_size),
        block_tokens=options.block_tokens,
        seed=options.seed,
        train=of[TRAIN],
        validation=of[VALIDATION],
        tokenizer_files=tuple(
            file_facts(folder, f"{TOKENIZER_FOLDER}/{name}") for name in sorted(copied)
        ),
        token_counts=tuple(counts.tolist()),
        block_checksums="crc32",
        special_tokens=tokenizer.specials,
    )
    write_manifest(folder, facts)
