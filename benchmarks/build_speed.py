"""How fast `data build` is beside the bare encoder, beside plain WebDataset writing, and on two
cores.

    python benchmarks/build_speed.py --text corpus/pydoc.jsonl --tokenizer tokenizer \\
        --json build_speed.json

The text is .jsonl with the document under "text". All ways encode the same documents with the same
tokenizer, one thread each, in processes of their own, in turn, in rounds:

bare    `encode_batch_fast` of the tokenizers library on texts in memory, and the ids as lists:
        what no build can do without.
peer    WebDataset's `ShardWriter`: read, encode in batches, one sample with a .npy a document. It
        neither shuffles nor drops duplicates, has no index and no checksums.
build   `build_shards` with one worker: all of it, from the text to the manifest.
build2  the same with two workers.
packed2 the same of the text in one .jsonl.gz, whose documents one process reads and deals.
reader  that reading and dealing alone: so many workers can one reader feed.

The figures are ratios of processor time, all processes of a way together: other work on the machine
changes it less than the clock. `build` beside `bare` is 1.0 for a build that costs nothing but
encoding. For two workers the ratio of the clock is printed too, half of the time is 1.0; it means
something on a machine that is quiet only. Starting Python and importing libraries is measured on an
empty task and taken off, as it does not grow with the text; `--with-start` leaves it in.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 256
WAYS = ("bare", "peer", "build", "build2", "packed2", "reader")


class Cost(NamedTuple):
    """Seconds of one way in one round: of processors, and by the clock."""

    processor: float
    clock: float


def texts_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def load(folder: Path) -> Any:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def batches(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH):
        yield texts[start : start + BATCH]


def bare(text: Path, tokenizer_dir: Path, out: Path) -> Cost:
    tokenizer = load(tokenizer_dir)
    texts = texts_of(text)
    start = now()
    for batch in batches(texts):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            _ = encoding.ids
    return since(start)


def peer(text: Path, tokenizer_dir: Path, out: Path) -> Cost:
    import numpy as np
    import webdataset

    tokenizer = load(tokenizer_dir)
    start = now()
    number = 0
    with webdataset.ShardWriter(f"{out}-%05d.tar", maxsize=2**27, verbose=0) as writer:
        for batch in batches(texts_of(text)):
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                ids = np.array(encoding.ids, dtype=np.uint16)
                writer.write({"__key__": f"{number:09d}", "npy": ids})
                number += 1
    return since(start)


def build(text: Path, tokenizer_dir: Path, out: Path, workers: int = 1) -> Cost:
    from data_tools.build import BuildOptions, build_shards

    options = BuildOptions(workers=workers, part_bytes=part_bytes(text))
    start = now()
    build_shards([text], tokenizer_dir, out, options)
    return since(start)


def build2(text: Path, tokenizer_dir: Path, out: Path) -> Cost:
    return build(text, tokenizer_dir, out, workers=2)


def packed2(text: Path, tokenizer_dir: Path, out: Path) -> Cost:
    from data_tools.build import BuildOptions, build_shards

    options = BuildOptions(workers=2, part_bytes=part_bytes(text))
    file = packed(text, out)
    start = now()
    build_shards([file], tokenizer_dir, out, options)
    return since(start)


def reader(text: Path, tokenizer_dir: Path, out: Path) -> Cost:
    from data_tools.dealing import deal_out
    from data_tools.sources import find_inputs, split_parts

    (part,) = split_parts(find_inputs([packed(text, out)]))
    start = now()
    for deal in deal_out(part, part_bytes(text), lambda number: out.parent / f"{number}.deal"):
        deal.path.unlink()
    return since(start)


def packed(text: Path, out: Path) -> Path:
    """The text as one .jsonl.gz beside `out`."""
    path = out.with_name(f"{out.name}.jsonl.gz")
    with gzip.open(path, "wb") as file:
        file.write(text.read_bytes())
    return path


def part_bytes(text: Path) -> int:
    """Text of a task: enough tasks for two workers."""
    return max(2**20, text.stat().st_size // 16)


def now() -> Cost:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return Cost(used, time.perf_counter())


def since(start: Cost) -> Cost:
    end = now()
    return Cost(end.processor - start.processor, end.clock - start.clock)


ONE: dict[str, Callable[[Path, Path, Path], Cost]] = {
    "bare": bare,
    "peer": peer,
    "build": build,
    "build2": build2,
    "packed2": packed2,
    "reader": reader,
}


def measure(way: str, text: Path, tokenizer_dir: Path, folder: Path) -> Cost:
    """One way in a process of its own."""
    command = [sys.executable, __file__, "--only", way, "--text", str(text)]
    command += ["--tokenizer", str(tokenizer_dir), "--out", str(folder / way)]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    processor, clock = json.loads(done.stdout.splitlines()[-1])
    return Cost(processor, clock)


def round_of(arguments: argparse.Namespace, small: Path) -> dict[str, Cost]:
    """The cost of each way, without that of starting it."""
    found = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            cost = measure(way, arguments.text, arguments.tokenizer, Path(folder))
            if not arguments.with_start and way in ("build", "build2", "packed2"):
                start = measure(way, small, arguments.tokenizer, Path(folder, "small"))
                cost = Cost(cost.processor - start.processor, cost.clock - start.clock)
        found[way] = cost
    return found


def report(rounds: list[dict[str, Cost]], text: Path) -> dict[str, Any]:
    """The medians over the rounds."""

    def median(of: Callable[[dict[str, Cost]], float]) -> float:
        return round(statistics.median(map(of, rounds)), 3)

    megabytes = text.stat().st_size / 1e6
    return {
        "megabytes": round(megabytes, 1),
        "rounds": len(rounds),
        "megabytes_per_processor_second": {
            way: median(lambda one, way=way: megabytes / one[way].processor) for way in WAYS
        },
        "build_of_bare": median(lambda one: one["bare"].processor / one["build"].processor),
        "build_of_peer": median(lambda one: one["peer"].processor / one["build"].processor),
        "two_of_one_processor": median(
            lambda one: one["build"].processor / one["build2"].processor
        ),
        "packed_of_plain_processor": median(
            lambda one: one["build2"].processor / one["packed2"].processor
        ),
        "workers_of_a_reader": median(lambda one: one["build"].processor / one["reader"].processor),
        "two_of_linear_clock": median(lambda one: one["build"].clock / (2 * one["build2"].clock)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--text", required=True, type=Path, help=".jsonl")
    parser.add_argument("--tokenizer", required=True, type=Path, help="from `data tokenizer`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--with-start", action="store_true", help="count the start of processes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        cost = ONE[arguments.only](arguments.text, arguments.tokenizer, arguments.out)
        print(json.dumps(cost))
        return
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small.jsonl")
        small.write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
        rounds = [round_of(arguments, small) for _ in range(arguments.rounds)]
    facts = report(rounds, arguments.text)
    print(json.dumps(facts, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
