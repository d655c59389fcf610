"""What it costs to verify each block's checksum as it is read: of reading, of making rows, of a
training step.

    python benchmarks/block_checksums.py --shards shards
    python benchmarks/block_checksums.py --shards shards --tokens-per-second 1000000

Blocks are read from the page cache, the case in which a checksum weighs most, so that reading is
CPU time: that of the thread is measured, which a busy machine changes least. Rounds with and
without are taken in turn, and the figures are medians of rounds. WebDataset's own iterator over the
same blocks stands beside them. "Making rows" is all that the loader's process does with a block:
read, pack, mask. The share of a training step is that of a rank which trains `--tokens-per-second`;
the process runs beside the step, so that even this is time of another core and no wait. The
candidates for the checksum are measured on one block in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.packing import pack_block
from electra_dist.data.rows import KeyedRows, micro_batch
from electra_dist.data.shards.blocks import array_bytes
from electra_dist.data.shards.manifest import TRAIN, Manifest
from electra_dist.data.shards.reading import BlockReader, open_index, read_block
from electra_dist.data.step_plan import RowFormat

CANDIDATES: dict[str, Callable[[bytes], object]] = {
    "zlib.crc32": zlib.crc32,
    "hashlib.sha256": lambda content: hashlib.sha256(content).digest(),
    "hashlib.blake2b": lambda content: hashlib.blake2b(content, digest_size=8).digest(),
    "hashlib.md5": lambda content: hashlib.md5(content).digest(),  # noqa: S324 -- against bit damage
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="folder written by `data build`")
    parser.add_argument(
        "--tokens-per-second", type=float, default=300_000.0, help="that one rank trains"
    )
    parser.add_argument("--row-length", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=64, help="blocks of a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def read_all(manifest: Manifest, count: int, verify: bool) -> int:
    """Read about `count` blocks, from as many shards as it takes; returns their bytes of ids."""
    found = 0
    index = open_index(manifest, TRAIN)
    for number, shard in enumerate(manifest.facts.train.shards):
        for block, entry in enumerate(index.entries(number)):
            if count == 0:
                return found
            if not verify:
                entry = entry._replace(crc32=None)
            found += read_block(manifest, shard, block, entry).tokens.nbytes
            count -= 1
    return found


def read_with_webdataset(manifest: Manifest, count: int) -> None:
    """The same blocks in their order, from WebDataset's iterator, unchecked."""
    from webdataset import WebDataset

    urls = [str(manifest.path / shard.tar.name) for shard in manifest.facts.train.shards]
    for _ in zip(range(count), WebDataset(urls, shardshuffle=False).decode(), strict=False):
        pass


def make_rows(manifest: Manifest, config: Config, count: int) -> None:
    """All that the loader's process does with `count` blocks."""
    import numpy as np

    reader = BlockReader(manifest, TRAIN)
    row_format = RowFormat.of(config)
    specials = manifest.facts.special_tokens
    for number in range(min(count, len(reader))):
        block = reader.read(number)
        packed = pack_block(
            block, config.data.row_length, config.data.max_documents_per_row, specials
        )
        keys = np.arange(len(packed), dtype=np.uint64)
        for first in range(0, len(packed), config.train.micro_rows):
            part = slice(first, first + config.train.micro_rows)
            micro_batch(KeyedRows(packed, keys).take(part), row_format, specials)


def rounds(count: int, *works: Callable[[], object]) -> Iterator[float]:
    """Median seconds of each work, taken in turn."""
    # the first one fills the page cache
    taken = [[seconds(work) for work in works] for _ in range(count + 1)][1:]
    yield from (statistics.median(column) for column in zip(*taken, strict=True))


def main() -> None:
    arguments = parse()
    manifest = Manifest.load(arguments.shards)
    if manifest.facts.block_checksums is None:
        raise SystemExit(
            f"{arguments.shards}: has no checksums; add them with `electra-dist data upgrade`"
        )
    config = configuration.build(
        {
            "data": {"shards": str(arguments.shards), "row_length": arguments.row_length},
            "model": {"preset": "tiny", "max_positions": arguments.row_length},
            "train": {"steps": 1, "global_rows": 32, "micro_rows": 32},
            "optim": {"warmup_steps": 0},
        }
    )
    count = min(arguments.blocks, manifest.facts.train.blocks)
    content = array_bytes(BlockReader(manifest, TRAIN).read(0).tokens)
    rates = {
        name: len(content) / next(rounds(50, lambda check=check: check(content)))  # type: ignore[misc]
        for name, check in CANDIDATES.items()
    }
    size = read_all(manifest, count, verify=True)
    peer, without, checked, rows = rounds(
        arguments.rounds,
        lambda: read_with_webdataset(manifest, count),
        lambda: read_all(manifest, count, verify=False),
        lambda: read_all(manifest, count, verify=True),
        lambda: make_rows(manifest, config, count),
    )
    # The checksum alone, from the rate measured above:
    # differences of two readings drown in their noise.
    alone = size / rates["zlib.crc32"]
    bytes_per_second = arguments.tokens_per_second * manifest.token_dtype.itemsize
    figures = {
        "blocks": count,
        "block_bytes": size / count,
        "checksum_bytes_per_s": rates,
        "read_bytes_per_s": {
            "webdataset": size / peer,
            "without": size / without,
            "verified": size / checked,
        },
        "read_ratio": checked / without,
        "share_of_making_rows": alone / rows,
        "share_of_a_step": bytes_per_second / rates["zlib.crc32"],
    }
    for name, rate in rates.items():
        print(f"{name:<18}{rate / 1e9:6.2f} GB/s")
    print(f"reading {count} blocks of {size / count / 1000:.0f} kB from the page cache")
    print(f"  webdataset      {size / peer / 1e6:8,.0f} MB/s")
    print(f"  not verified    {size / without / 1e6:8,.0f} MB/s")
    print(
        f"  verified        {size / checked / 1e6:8,.0f} MB/s   {checked / without:.3f} x the time"
    )
    print(f"share of making rows of {arguments.row_length}: {alone / rows:.2%}")
    print(
        f"share of a training step at {arguments.tokens_per_second:,.0f} tokens/s a rank:"
        f" {figures['share_of_a_step']:.4%}, beside the step"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
