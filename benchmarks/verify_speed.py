"""How fast `data verify` is beside the bare SHA-256 of the same bytes, and what many small shards
cost.

    python benchmarks/verify_speed.py --tokenizer tokenizer
    python benchmarks/verify_speed.py --tokenizer tokenizer --small 40000 --json verify_speed.json

Two folders of shards are really written, in the format and with all checksums: a few large shards
of whole blocks, and many shards of one small block. Token ids are drawn, with the frequencies of
text (Zipf). The files lie in the page cache, so that reading costs no wait. Each way is a process
of its own, in turn, in rounds; the figures are medians of processor time:

bare    each file read from first to last in steps of 4 MiB, and its SHA-256: what no verification
        can do without, as the manifest has a SHA-256 of each file.
verify  `verify_shards` with one worker, without the start of Python.

The parts of verify are measured on one block in memory. The extrapolation to 10 TB is that of the
large shards: processor time only. A disk or network that gives fewer bytes is the bound instead.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.tokenizer import load_tokenizer
from data_tools.write import file_facts
from electra_dist.data.shards.blocks import LENGTHS, TOKENS, array_bytes, checksum
from electra_dist.data.shards.facts import (
    FORMAT,
    TOKENIZER_FOLDER,
    ManifestFile,
    ShardFacts,
    SplitFacts,
    dataset_fingerprint,
    shard_name,
)
from electra_dist.data.shards.indexes import ShardIndex
from electra_dist.data.shards.manifest import write_manifest
from electra_dist.data.shards.reading import block_name
from electra_dist.files.tokenizers import write_tokenizer

WHOLE_TERABYTES = 10
#: Cores, and GB/s of a disk, that the extrapolation is made for.
CORES = (16, 64)
GIGABYTES_PER_SECOND = (1, 5)
DOCUMENTS = 128
STEP = 4 << 20


class Writer:
    """Writes shards of one folder, with drawn ids."""

    def __init__(self, folder: Path, tokenizer: Path, block_tokens: int) -> None:
        self.folder = folder
        self.tokenizer = load_tokenizer(tokenizer)
        self.block_tokens = block_tokens
        self.counts = np.zeros(self.tokenizer.vocab_size, np.int64)
        self.shards: list[ShardFacts] = []
        frequencies = 1 / np.arange(1, self.tokenizer.vocab_size + 1)
        drawn = np.random.default_rng(0).choice(
            self.tokenizer.vocab_size, 64 * block_tokens, p=frequencies / frequencies.sum()
        )
        self.drawn = drawn.astype("<u2")

    def add(self, blocks: int) -> None:
        """One shard more."""
        number = len(self.shards)
        name = shard_name("train", number)
        offsets = []
        checksums = []
        documents = min(DOCUMENTS, self.block_tokens)
        with tarfile.open(self.folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for block in range(blocks):
                ids = self.ids(number * blocks + block)
                lengths = np.full(documents, self.block_tokens // documents, "<u4")
                lengths[-1] += self.block_tokens - lengths.sum()
                members = {LENGTHS: array_bytes(lengths), TOKENS: array_bytes(ids)}
                offsets.append(tar.offset)
                checksums.append(checksum(members[LENGTHS], members[TOKENS]))
                for member, content in members.items():
                    info = tarfile.TarInfo(f"{block_name(name, block)}.{member}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                self.counts += np.bincount(ids, minlength=len(self.counts))
        index = ShardIndex(
            tuple(offsets), (self.block_tokens,) * blocks, (documents,) * blocks, tuple(checksums)
        )
        path = self.folder / f"{name}.index.json"
        path.write_text(index.to_json())
        tar_facts = file_facts(self.folder, f"{name}.tar")
        index_facts = file_facts(self.folder, path.name)
        tokens = blocks * self.block_tokens
        self.shards.append(ShardFacts(tar_facts, index_facts, blocks, blocks * documents, tokens))

    def ids(self, block: int) -> npt.NDArray[np.uint16]:
        """The ids of a block: another stretch of those that were drawn."""
        start = block * 7919 % (len(self.drawn) - self.block_tokens)
        return self.drawn[start : start + self.block_tokens]

    def finish(self) -> int:
        """Write tokenizer and manifest; returns the bytes of all shards."""
        write_tokenizer(self.tokenizer.files, self.folder / TOKENIZER_FOLDER)
        train = SplitFacts.of(tuple(self.shards))
        empty = SplitFacts.of(())
        facts = ManifestFile(
            format=FORMAT,
            version=2,
            fingerprint=dataset_fingerprint(self.tokenizer.fingerprint, [train, empty]),
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            vocab_size=self.tokenizer.vocab_size,
            token_bytes=2,
            block_tokens=self.block_tokens,
            seed=1234,
            train=train,
            validation=empty,
            tokenizer_files=tuple(
                file_facts(self.folder, f"{TOKENIZER_FOLDER}/{name}")
                for name in sorted(self.tokenizer.files)
            ),
            token_counts=tuple(self.counts.tolist()),
            block_checksums="crc32",
            special_tokens=self.tokenizer.specials,
        )
        write_manifest(self.folder, facts)
        return sum(shard.tar.bytes for shard in self.shards)


def bare(folder: Path) -> None:
    for path in sorted(folder.glob("*.tar")):
        digest = sha256()
        with path.open("rb") as file:
            while content := file.read(STEP):
                digest.update(content)


def verify(folder: Path) -> None:
    from data_tools.verify import verify_shards

    report = verify_shards(folder)
    if not report.ok:
        raise SystemExit(f"not whole: {report.problems[0]}")


WAYS: dict[str, Callable[[Path], None]] = {"bare": bare, "verify": verify}


def measure(way: str, folder: Path) -> dict[str, float]:
    """Seconds of one way in a process of its own: of the processor, and by the clock."""
    command = [sys.executable, __file__, "--only", way, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def only(way: str, folder: Path) -> None:
    __import__("data_tools.verify")
    clock = time.perf_counter()
    processor = time.process_time()
    WAYS[way](folder)
    seconds = {
        "processor": time.process_time() - processor,
        "clock": time.perf_counter() - clock,
    }
    print(json.dumps(seconds))


def figures_of(folder: Path, size: int, shards: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, whose first is thrown away: it fills the page cache."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way in WAYS:
            found[way].append(measure(way, folder))
    ratios = [
        one["processor"] / other["processor"]
        for one, other in zip(found["bare"][1:], found["verify"][1:], strict=True)
    ]
    processor = statistics.median(one["processor"] for one in found["verify"][1:])
    return {
        "shards": shards,
        "megabytes": size / 1e6,
        "megabytes_per_processor_second": size / 1e6 / processor,
        "of_bare_sha256": statistics.median(ratios),
        "processor_seconds": processor,
        "clock_seconds": statistics.median(one["clock"] for one in found["verify"][1:]),
        "microseconds_per_shard": 1e6 * processor / shards,
    }


def parts_of_a_block(writer: Writer) -> dict[str, float]:
    """Microseconds of each part of verifying a block of whole size."""
    ids = writer.ids(0)
    content = ids.tobytes()
    work: dict[str, Callable[[], object]] = {
        "sha256": lambda: sha256(content).digest(),
        "crc32": lambda: zlib.crc32(content),
        "count ids": lambda: np.bincount(ids, minlength=len(writer.counts)),
        "largest id": lambda: ids.max(),
    }
    return {name: microseconds(function) for name, function in work.items()}


def microseconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(7):
        start = time.process_time()
        for _ in range(100):
            function()
        times.append((time.process_time() - start) / 100)
    return 1e6 * statistics.median(times)


def report(figures: dict[str, Any]) -> None:
    for name in ("large", "small"):
        one = figures[name]
        print(
            f"{name}: {one['shards']:,} shards, {one['megabytes']:,.0f} MB:"
            f" {one['megabytes_per_processor_second']:,.0f} MB per second of one core,"
            f" {one['of_bare_sha256']:.2f} of bare SHA-256,"
            f" {one['microseconds_per_shard']:,.0f} us per shard,"
            f" {one['clock_seconds']:.1f} s by the clock"
        )
    parts = ", ".join(f"{name} {value:.0f}" for name, value in figures["parts"].items())
    print(f"a block of 65,536 tokens, us: {parts}")
    rate = figures["large"]["megabytes_per_processor_second"]
    for cores in CORES:
        minutes = WHOLE_TERABYTES * 1e6 / (rate * cores) / 60
        print(f"{WHOLE_TERABYTES} TB on {cores} cores: {minutes:.0f} minutes of processors")
    for speed in GIGABYTES_PER_SECOND:
        minutes = WHOLE_TERABYTES * 1000 / speed / 60
        print(f"{WHOLE_TERABYTES} TB at {speed} GB/s: {minutes:.0f} minutes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, help="from `data tokenizer`")
    parser.add_argument("--large", type=int, default=4, help="shards of 512 blocks")
    parser.add_argument("--small", type=int, default=40_000, help="shards of some 20 KB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the shards are written for a while")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--only", choices=tuple(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        only(arguments.only, arguments.folder)
        return
    if arguments.tokenizer is None:
        parser.error("--tokenizer is needed")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        figures: dict[str, Any] = {}
        for kind, shards, blocks, tokens in (
            ("large", arguments.large, 512, 65_536),
            ("small", arguments.small, 1, 8_192),
        ):
            folder = Path(name, kind)
            folder.mkdir()
            writer = Writer(folder, arguments.tokenizer, tokens)
            for _ in range(shards):
                writer.add(blocks)
            size = writer.finish()
            figures[kind] = figures_of(folder, size, shards, arguments.rounds)
            if kind == "large":
                figures["parts"] = parts_of_a_block(writer)
    report(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
