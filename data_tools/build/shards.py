"""Text to shards: encode in parallel, shuffle all documents, write WebDataset shards and their
manifest.

1. encode   Workers read tasks of the input, normalise and encode every document, and spill the ids
            to disk, sorted by a 128-bit key: the hash of the text under the seed. (Split: by
            another hash of the text.) Each piece of a long document has a key of its own.
2. merge    Many runs are made few, in levels; a small corpus needs none.
3. write    Shards are equal ranges of the key. Sorting by a hash *is* the shuffle, over the whole
            corpus; exact duplicates have equal keys and meet in one shard. Workers gather one range
            from all runs, sort it, drop duplicates, cut it into blocks, write the shard.
4. publish  The manifest comes last, then one rename: the output is whole or absent.

Memory is bounded by a few million tokens a worker. The bytes depend neither on the number of
workers or nodes nor on interruptions: what is finished is kept in the work folder (`work`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pydantic

from data_tools.build.encode import token_bytes
from data_tools.build.encoding import Sums, check_documents, encode_all, encode_tasks
from data_tools.build.levels import merge_levels
from data_tools.build.options import BuildCounts, BuildOptions, BuildStats
from data_tools.build.work import WorkFolder, opened
from data_tools.build.writing import Written, check_splits, runs_of_splits, write_all
from data_tools.disk import Room, on_disk
from data_tools.sources import Inputs, find_inputs
from data_tools.spill import Spill
from data_tools.tokenizer import ShardTokenizer, load_tokenizer
from data_tools.unfinished import Order
from data_tools.workers import Workers
from data_tools.write import file_facts
from electra_dist.console import Progress, silent
from electra_dist.data.shards.manifest import (
    FORMAT,
    MANIFEST_FILE,
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
from electra_dist.errors import DataError
from electra_dist.files.reading import read_json
from electra_dist.files.tokenizers import write_tokenizer
from electra_dist.files.writing import write_json

#: What shards take more than their runs: a small part of it, for tar.
_TAR_SHARE = 1.03


def counts_of(sums: Sums, written: Written) -> BuildCounts:
    """The counts of all steps together."""
    return BuildCounts(
        documents=sums.documents,
        too_short=sums.too_short,
        without_tokens=sums.without_tokens,
        duplicates=sums.already_there + written.duplicates,
        cut=sums.cut,
        shares=sums.shares,
    )


def stats_of(counts: BuildCounts, out: Path) -> BuildStats:
    """The counts with the manifest that was published."""
    return BuildStats(**vars(counts), manifest=Manifest.load(out))


def build_shards(
    inputs: Sequence[str | Path] | Inputs,
    tokenizer_dir: Path,
    out: Path,
    options: BuildOptions | None = None,
    progress: Progress = silent,
) -> BuildStats:
    """Encode `inputs` with the tokenizer in `tokenizer_dir` and write shards to the new folder
    `out`.

    Interrupted or killed, the same call goes on where it was. Raises `DataError` for unreadable
    input, input without documents, an output folder that holds something, or another unfinished
    build of it; `StorageError` where the disk is too small; `LockedError` where another process
    builds the same folder.
    """
    options = options or BuildOptions()
    options.check()
    tokenizer = load_tokenizer(tokenizer_dir)
    found = find_inputs(inputs)
    sources = {"tokenizer": tokenizer.fingerprint}
    order = Order("build", options.decisive(), sources, found.identity())
    if not is_published(out, order):
        check_out(out)
    with WorkFolder.beside(out).interruptible(out), opened(out, order, options.again) as work:
        if not work.stats.exists():
            with work.dropped_with_bad_input(), Workers(options.workers) as workers:
                tasks = encode_tasks(found, tokenizer_dir, work.encoded, options)
                sums = encode_all(tasks, tokenizer, work, workers, progress)
                make_shards(sums, work, tokenizer, options, workers, progress)
        return publish(work, out)


def is_published(out: Path, order: Order) -> bool:
    """Whether `out` is what `order` made, and only its work folder was not removed yet."""
    work = WorkFolder.beside(out)
    moved = not work.shards.exists() and (out / MANIFEST_FILE).exists()
    return moved and work.stats.exists() and work.is_of(order)


def check_out(out: Path) -> None:
    """Raise `DataError` where `out` is a file, or holds something."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the shards")
    if out.is_dir() and any(out.iterdir()):
        if (out / MANIFEST_FILE).exists():
            kind = "shards"
        else:
            kind = "something else"
        raise DataError(f"{out}: holds {kind} already; give a new folder, or remove this one first")


def make_shards(
    sums: Sums,
    work: WorkFolder,
    tokenizer: ShardTokenizer,
    options: BuildOptions,
    workers: Workers,
    progress: Progress,
) -> None:
    """Steps 2 to 4 up to the rename: shards, tokenizer and manifest in the work folder."""
    check_documents(sums, options)
    bytes_of_token = token_bytes(tokenizer.vocab_size)
    with on_disk(work.path):
        runs = merged_runs(sums, work, bytes_of_token, workers, progress)
        splits = runs_of_splits(runs, sums, options)
        check_splits(splits, sums, options)
        if not any(work.written.iterdir()):
            needed = int(_TAR_SHARE * sum(splits[name].tokens for name in SPLITS) * bytes_of_token)
            Room(work.path).ask(needed, "the shards")
        written = write_all(splits, work, tokenizer.vocab_size, options, workers, progress)
        _write_manifest(work.shards, tokenizer, written, options)
        write_json(work.stats, asdict(counts_of(sums, written)))


def merged_runs(
    sums: Sums, work: WorkFolder, bytes_of_token: int, workers: Workers, progress: Progress
) -> dict[SplitName, list[Spill]]:
    """The runs of each split, few enough to gather shards from."""
    return {
        name: merge_levels(sums.runs[name], work.merged / name, bytes_of_token, workers, progress)
        for name in SPLITS
    }


def publish(work: WorkFolder, out: Path) -> BuildStats:
    """Rename the shards to `out`, unless that was done before, and remove the work folder."""
    with on_disk(out.parent):
        content = read_json(work.stats)
        counts = pydantic.TypeAdapter(BuildCounts).validate_python(content)
        if work.shards.exists():
            work.shards.rename(out)
        work.remove()
    return stats_of(counts, out)


def _write_manifest(
    folder: Path, tokenizer: ShardTokenizer, written: Written, options: BuildOptions
) -> None:
    """Copy the tokenizer, then write `manifest.json`, last."""
    copied = tokenizer.files
    write_tokenizer(copied, folder / TOKENIZER_FOLDER)
    of = {name: SplitFacts.of(written.shards[name]) for name in SPLITS}
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
        token_counts=tuple(written.token_counts.tolist()),
        block_checksums="crc32",
        piece_tokens=options.piece_tokens or None,
        special_tokens=tokenizer.specials,
    )
    write_manifest(folder, facts)
