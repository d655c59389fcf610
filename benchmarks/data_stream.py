"""The stream of training rows next to plain WebDataset with packing and masking in numpy.

    python benchmarks/data_stream.py --shards shards
    python benchmarks/data_stream.py --shards shards --row-lengths 128 512 --json data_stream.json

Both read the same shards from the page cache and make the same kind of rows: whole documents,
[CLS] and [SEP] around each, several documents in a row, 15% of the tokens masked. The peer reads
with WebDataset's own iterator, packs first-fit over a few open rows, and masks a batch with numpy's
generator: what a team writes in an afternoon, with its loops over documents and its vectors over
rows. It checks nothing, keeps no position, and makes no document boundaries for attention.

The figure is real tokens (no padding) for a second of processor time, which other work on the
machine changes least; rounds are taken in turn, and the ratio is the median of the rounds' ratios.
The goals are 12 million at rows of 128 and 15 million at 512; the exit status is 1 below one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.data.shards.manifest import TRAIN, Manifest
from electra_dist.data.sources import RunData
from electra_dist.data.steps import StepSource
from electra_dist.measure.stream import stream_plan

GOALS = {128: 12e6, 512: 15e6}
ROWS = 256
#: Rows that the peer keeps open for further documents.
OPEN_ROWS = 16
MASKED = 0.15
SHOWN_AS_MASK = 0.85


# --- the peer -------------------------------------------------------------------------------------


def peer_documents(manifest: Manifest) -> Iterator[npt.NDArray[Any]]:
    """Documents from WebDataset's iterator, over and over, shuffled in a buffer of blocks."""
    from webdataset import WebDataset

    urls = [manifest.place(shard.tar.name) for shard in manifest.split(TRAIN).shards]
    while True:
        for sample in WebDataset(urls, shardshuffle=False).shuffle(16).decode():
            tokens = sample["tokens.npy"]
            yield from np.split(tokens, np.cumsum(sample["lengths.npy"])[:-1])


def peer_rows(manifest: Manifest, length: int) -> Iterator[npt.NDArray[np.int32]]:
    """Rows of `length` ids, packed first-fit."""
    opened: list[npt.NDArray[np.int32]] = []
    used: list[int] = []
    for document in peer_documents(manifest):
        for start in range(0, len(document), length - 2):
            piece = document[start : start + length - 2]
            size = len(piece) + 2
            for place, filled in enumerate(used):  # noqa: B007 -- used below
                if filled + size <= length:
                    break
            else:
                place = len(opened)
                opened.append(np.full(length, SPECIAL_TOKENS.pad, np.int32))
                used.append(0)
            row = opened[place]
            first = used[place]
            row[first] = SPECIAL_TOKENS.cls
            row[first + 1 : first + 1 + len(piece)] = piece
            row[first + 1 + len(piece)] = SPECIAL_TOKENS.sep
            used[place] = first + size
            if len(opened) > OPEN_ROWS:
                fullest = max(range(len(used)), key=used.__getitem__)
                yield opened.pop(fullest)
                used.pop(fullest)


def peer_batches(manifest: Manifest, length: int) -> Iterator[int]:
    """Masked batches of `ROWS` rows; gives the real tokens of each."""
    generator = np.random.default_rng(0)
    rows = peer_rows(manifest, length)
    count = round(MASKED * length)
    while True:
        tokens = np.stack([next(rows) for _ in range(ROWS)])
        maskable = tokens > SPECIAL_TOKENS.mask
        draws = generator.random(tokens.shape, np.float32)
        draws[~maskable] = 2.0
        positions = np.sort(np.argpartition(draws, count, axis=1)[:, :count], axis=1)
        targets = np.take_along_axis(tokens, positions, axis=1)
        weights = np.take_along_axis(maskable, positions, axis=1).astype(np.float32)
        inputs = tokens.copy()
        hidden = (generator.random(positions.shape) < SHOWN_AS_MASK) & (weights > 0)
        np.put_along_axis(inputs, positions, np.where(hidden, SPECIAL_TOKENS.mask, targets), axis=1)
        yield int((tokens != SPECIAL_TOKENS.pad).sum())


# --- ours -----------------------------------------------------------------------------------------


def our_steps(manifest: Manifest, length: int) -> Iterator[int]:
    """Steps of 256 rows of the stream; gives the real tokens of each."""
    plan = stream_plan(manifest, 1, length)
    for step in StepSource(plan, RunData.alone(manifest)):
        yield step.real_count


# --- both -----------------------------------------------------------------------------------------


def rate(steps: Iterator[int], seconds: float) -> float:
    """Real tokens for a second of processor time, all threads of this process."""
    tokens = 0
    clock = time.perf_counter()
    begin = time.process_time()
    while time.perf_counter() < clock + seconds:
        tokens += next(steps)
    return tokens / (time.process_time() - begin)


def measure(manifest: Manifest, length: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Rates of both ways at one row length, in turn."""
    ways: dict[str, Callable[[Manifest, int], Iterator[int]]] = {
        "electra-dist": our_steps,
        "webdataset and numpy": peer_batches,
    }
    running = {name: way(manifest, length) for name, way in ways.items()}
    for steps in running.values():
        for _ in range(3):  # the first blocks of all streams
            next(steps)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, steps in running.items():
            found[name].append(rate(steps, seconds))
    ours, peer = found.values()
    return {
        "row_length": length,
        "tokens_per_cpu_second": {name: statistics.median(rates) for name, rates in found.items()},
        "quartiles": {name: statistics.quantiles(rates, n=4)[::2] for name, rates in found.items()},
        "ratio": statistics.median(a / b for a, b in zip(ours, peer, strict=True)),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="folder written by `data build`")
    parser.add_argument("--row-lengths", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way in each round")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    manifest = Manifest.load(arguments.shards)
    cases = []
    for length in arguments.row_lengths:
        found = measure(manifest, length, arguments.rounds, arguments.seconds)
        cases.append(found)
        shown = ", ".join(
            f"{name} {value / 1e6:.2f} ({found['quartiles'][name][0] / 1e6:.2f} to"
            f" {found['quartiles'][name][1] / 1e6:.2f})"
            for name, value in found["tokens_per_cpu_second"].items()
        )
        print(
            f"rows of {length}: {shown} million real tokens for a CPU second; ratio"
            f" {found['ratio']:.1f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"cases": cases}, indent=2) + "\n", encoding="utf-8")
    for found in cases:
        goal = GOALS.get(found["row_length"], 0.0)
        if found["tokens_per_cpu_second"]["electra-dist"] < goal:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
