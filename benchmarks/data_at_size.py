"""What it costs to open shards of 10 TB, to list the work of verifying them, and to remember what
was built of them.

    python benchmarks/data_at_size.py
    python benchmarks/data_at_size.py --shards 40000 --blocks 1900 --json data_at_size.json

The dataset is simulated: manifest and tables are real and whole, the tars are empty files of the
right names, and no block is read. Each measurement is one fresh process, so that its peak memory is
its own; what Python and the imports take is printed too. The same shards as a manifest of version
1, which lists all of them as JSON, stand next to it as the peer. The goals of the default size:
opening under 1 s and 100 MB, the plan under 2 s; the exit status is 1 where one is missed.

The parent of a build remembers one run for each 16.8 million tokens, and one record for each
shard; as many of them are made in a fresh process.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.spill import SPILL_TOKENS
from electra_dist.data.shards.facts import (
    FORMAT,
    ManifestFile,
    ShardFacts,
    SplitFacts,
    SplitName,
    SplitTables,
    dataset_fingerprint,
    shard_name,
)
from electra_dist.data.shards.files import FileFacts
from electra_dist.data.shards.publishing import write_manifest_file
from electra_dist.data.shards.tables import (
    BLOCK,
    SHARD,
    Records,
    shard_record,
    write_table,
)

BLOCK_TOKENS = 65_536
VOCABULARY = 30_522
OPEN_SECONDS = 1.0
OPEN_BYTES = 100e6
PLAN_SECONDS = 2.0

#: What a fresh process does; it prints seconds and its peak memory, which needs /proc.
MEASURED = """
import json, sys, time
from pathlib import Path
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.shards.reading import BlockReader, open_index

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

found = {"bytes_of_imports": peak()}
begin = time.perf_counter()
manifest = Manifest.load(Path(sys.argv[1]))
if manifest.facts.tables:
    reader = BlockReader(manifest, "train")
    open_index(manifest, "train").entry(len(manifest.facts.train.shards) // 2, 7)
found["open_seconds"] = time.perf_counter() - begin
found["open_bytes"] = peak()
from data_tools.verify import verify_plan
begin = time.perf_counter()
plan = verify_plan(manifest)
found["plan_seconds"] = time.perf_counter() - begin
found["plan_bytes"] = peak()
found["shards"] = len(plan.shards)
found["blocks"] = manifest.facts.train.blocks
print(json.dumps(found))
"""


#: What a fresh process does, with the number of runs and of shards.
REMEMBERED = """
import json, sys
from pathlib import Path
from data_tools.build.encoding import Sums
from data_tools.build.records import Encoded
from data_tools.spill import SPILL_TOKENS, Spill
from electra_dist.data.shards.facts import ShardFacts, shard_name
from electra_dist.data.shards.files import FileFacts

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

runs, shards = map(int, sys.argv[1:])
before = peak()
sums = Sums()
for number in range(runs):
    folder = Path(f"/data/.shards.building/encoded/{number // 1000:04d}")
    spills = {
        "train": [Spill(folder / f"train-{number:07d}-0000", 50_000, SPILL_TOKENS)],
        "validation": [Spill(folder / f"validation-{number:07d}-0000", 500, SPILL_TOKENS // 100)],
    }
    sums.add(Encoded(spills, list(range(number, number + 20)), 1, 0, 0, 0, 0))
facts = []
for number in range(shards):
    name = shard_name("train", number)
    tar = FileFacts(f"{name}.tar", 2**28, f"{number:064x}")
    index = FileFacts(f"{name}.index.json", 2**16, f"{number:064x}")
    facts.append(ShardFacts(tar, index, 1900, 100_000, 2**27))
found = {"runs": len(sums.runs["train"]), "shards": len(facts), "bytes": peak() - before}
print(json.dumps(found))
"""


def simulated_shards(count: int, blocks: int) -> list[ShardFacts]:
    """The facts of `count` shards; each has a digest of its own."""
    tokens = blocks * BLOCK_TOKENS
    documents = blocks * 128
    size = 2 * tokens + 4 * documents + blocks * 2048
    return [
        ShardFacts(
            tar=FileFacts(
                f"{shard_name('train', number)}.tar",
                size,
                hashlib.sha256(number.to_bytes(8, "little")).hexdigest(),
            ),
            index=None,
            blocks=blocks,
            documents=documents,
            tokens=tokens,
        )
        for number in range(count)
    ]


def entries(blocks: int) -> Records:
    """The entries of one shard."""
    records = np.zeros(blocks, BLOCK)
    records["start"] = np.arange(blocks) * 260
    records["tokens"] = BLOCK_TOKENS
    records["documents"] = 128
    records["crc32"] = np.arange(blocks) * 2_654_435_761 % 2**32
    return records


def simulate(folder: Path, count: int, blocks: int) -> ManifestFile:
    """Write manifest, tables and the names of all tars of a dataset."""
    shards = simulated_shards(count, blocks)
    own = entries(blocks)
    counts = np.full(VOCABULARY, count * blocks * BLOCK_TOKENS // VOCABULARY)
    counts[0] += count * blocks * BLOCK_TOKENS - counts.sum()
    train = SplitFacts.of(tuple(shards))
    empty = SplitFacts.of(())
    facts = ManifestFile(
        format=FORMAT,
        version=2,
        fingerprint=dataset_fingerprint("0" * 64, [train, empty]),
        tokenizer_fingerprint="0" * 64,
        vocab_size=VOCABULARY,
        token_bytes=2,
        block_tokens=BLOCK_TOKENS,
        seed=1234,
        train=train,
        validation=empty,
        tokenizer_files=(),
        token_counts=tuple(counts.tolist()),
        block_checksums="crc32",
    )

    def every_shard() -> Iterator[Records]:
        for _ in shards:
            yield own

    records = (shard_record("train", shard, own) for shard in shards)
    tables: dict[SplitName, SplitTables] = {
        "train": SplitTables(
            shards=write_table(folder, "train.shards", SHARD, count, records),
            blocks=write_table(folder, "train.blocks", BLOCK, train.blocks, every_shard()),
        ),
        "validation": SplitTables(
            shards=write_table(folder, "validation.shards", SHARD, 0, iter(())),
            blocks=write_table(folder, "validation.blocks", BLOCK, 0, iter(())),
        ),
    }
    write_manifest_file(folder, facts, tables)
    for shard in shards:
        (folder / shard.tar.name).touch()
    return facts


def simulate_version_1(folder: Path, facts: ManifestFile) -> None:
    """The same shards as the first version of the format lists them."""
    shards = []
    for shard in facts.train.shards:
        index = FileFacts(shard.tar.name.replace(".tar", ".index.json"), 70_000, "0" * 64)
        shards.append(dataclasses.asdict(dataclasses.replace(shard, index=index)))
    content = dataclasses.asdict(dataclasses.replace(facts, train=facts.validation, version=1))
    train = {"blocks": facts.train.blocks, "documents": facts.train.documents}
    content["train"] = {"shards": shards, "tokens": facts.train.tokens, **train}
    del content["tables"]
    (folder / "manifest.json").write_text(json.dumps(content, indent=1))


def measure(folder: Path) -> dict[str, Any]:
    """Open the shards in `folder` and plan their verification, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def remembered(tokens: int, shards: int) -> dict[str, Any]:
    """What the parent of a build of so many tokens remembers, and the memory that it takes."""
    runs = -(-tokens // SPILL_TOKENS)
    done = subprocess.run(
        [sys.executable, "-c", REMEMBERED, str(runs), str(shards)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=40_000)
    parser.add_argument("--blocks", type=int, default=1_900, help="of each shard")
    parser.add_argument("--rounds", type=int, default=5, help="the median is the figure")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def median(folder: Path, rounds: int) -> dict[str, Any]:
    """Of each figure, over fresh processes."""
    found = [measure(folder) for _ in range(rounds)]
    return {name: sorted(one[name] for one in found)[rounds // 2] for name in found[0]}


def shown(name: str, figures: dict[str, Any]) -> str:
    return (
        f"{name:<10} open {figures['open_seconds']:.2f} s, peak"
        f" {figures['open_bytes'] / 1e6:.0f} MB ({figures['bytes_of_imports'] / 1e6:.0f} MB of"
        f" them Python and imports); plan of verifying {figures['plan_seconds']:.2f} s,"
        f" peak {figures['plan_bytes'] / 1e6:.0f} MB"
    )


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory() as name:
        now = Path(name) / "now"
        first = Path(name) / "first"
        now.mkdir()
        first.mkdir()
        facts = simulate(now, arguments.shards, arguments.blocks)
        simulate_version_1(first, facts)
        manifests = {
            "version 2": (now / "manifest.json").stat().st_size,
            "version 1": (first / "manifest.json").stat().st_size,
        }
        figures = {
            "version 2": median(now, arguments.rounds),
            "version 1": median(first, arguments.rounds),
        }
    size = sum(shard.tar.bytes for shard in facts.train.shards)
    print(
        f"simulated: {arguments.shards:,} shards, {facts.train.blocks:,} blocks,"
        f" {size / 1e12:.2f} TB"
    )
    for version, found in figures.items():
        print(shown(version, found) + f"; manifest.json {manifests[version] / 1e6:.1f} MB")
    ours = figures["version 2"]
    peer = figures["version 1"]
    print(
        f"version 2 to version 1: opening {ours['open_seconds'] / peer['open_seconds']:.2f} of the"
        f" time, {ours['open_bytes'] / peer['open_bytes']:.2f} of the memory"
    )
    parent = remembered(facts.train.tokens, arguments.shards)
    figures["parent of a build"] = parent
    print(
        f"the parent of a build: {parent['runs']:,} runs and {parent['shards']:,} shards in"
        f" {parent['bytes'] / 1e6:.0f} MB"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    met = (
        ours["open_seconds"] < OPEN_SECONDS
        and ours["open_bytes"] < OPEN_BYTES
        and ours["plan_seconds"] < PLAN_SECONDS
    )
    if met:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
