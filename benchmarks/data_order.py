"""How soon a document returns, and what the longest step costs, with one open block and with more.

    python benchmarks/data_order.py
    python benchmarks/data_order.py --rows 2048 --streams 256 --json

The corpus is computed, not stored: documents of 5,000 to 30,000 tokens, some 3.5 thousand million
tokens in all, in blocks as `electra-dist data build` makes them. Every token is the number of its
document, so that a row says which documents it holds. Everything behind the reading of a block is
the code of training: order, packing, rows. Three ways:

    whole, 1 block     documents as they are, and a stream reads one block to its end
    whole, K blocks    the default of `data.open_blocks`
    pieces, K blocks   documents cut into pieces of `--piece` tokens, shuffled over the corpus

Printed for each: the share of a step's documents that return in one of the ten steps after it (mean
over the steps), and the memory of the open blocks. Then, of the last way, how many blocks a step
opens, and the processor time of the median and of the longest step, with blocks opened ahead of
their turn and without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from electra_dist import config as configuration
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.data import pool
from electra_dist.data.lanes import LaneLayout
from electra_dist.data.pool import RowPool
from electra_dist.data.rows import RowSource
from electra_dist.data.shards.blocks import Block
from electra_dist.data.shards.manifest import TRAIN
from electra_dist.data.sources import WHOLE
from electra_dist.data.step_plan import RowFormat

SHORTEST = 5_000
LONGEST = 30_000
BLOCK = 65_536
#: The ids below are those of special tokens.
FIRST_ID = 5
AHEAD = 10
FIRST_STEPS = 8


class Corpus:
    """Blocks of shuffled documents, or of shuffled pieces of them; no token is stored."""

    def __init__(self, documents: int, piece: int | None, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(SHORTEST, LONGEST + 1, documents)
        of = np.arange(documents)
        if piece is not None:
            counts = -(-lengths // piece)
            of = np.repeat(of, counts)
            last = np.cumsum(counts) - 1
            cut = np.full(len(of), piece)
            cut[last] = lengths - (counts - 1) * piece
            lengths = cut
        order = rng.permutation(len(of))
        self._documents = of[order]
        self._lengths = lengths[order]
        firsts = [0]
        size = 0
        for number, length in enumerate(self._lengths.tolist()):
            if size + length > BLOCK:
                firsts.append(number)
                size = 0
            size += length
        self.opened = 0  # blocks so far
        self._ends = [*firsts[1:], len(of)]
        self._firsts = firsts

    def __len__(self) -> int:
        return len(self._firsts)

    def read(self, block: int) -> Block:
        """Block number `block`."""
        self.opened += 1
        part = slice(self._firsts[block], self._ends[block])
        lengths = self._lengths[part]
        tokens = np.repeat(self._documents[part] + FIRST_ID, lengths).astype(np.uint32)
        return Block(tokens, lengths.astype(np.uint32))

    def expect(self, blocks: Iterable[int]) -> None:
        """All blocks are in memory."""


def open_pool(corpus: Corpus, row_format: RowFormat, streams: int, blocks: int) -> RowPool:
    """The rows of all streams, from the start."""
    lanes_of_stream = max(1, min(blocks, len(corpus) // streams))
    layout = LaneLayout(streams, (WHOLE,), (len(corpus),), (lanes_of_stream,))
    source = RowSource(row_format, corpus, TRAIN, SPECIAL_TOKENS)
    start = np.zeros((streams, layout.width), np.int64)
    return RowPool(layout, range(streams), start, [source], row_format.seed)


def documents_of(tokens: Any) -> set[int]:
    """The documents in some rows."""
    return set((np.unique(tokens)[np.unique(tokens) >= FIRST_ID] - FIRST_ID).tolist())


def returning(rows: RowPool, per_stream: int, steps: int) -> float:
    """The mean share of a step's documents that are in one of the next `AHEAD` steps."""
    seen = [documents_of(rows.take(per_stream).packed.tokens) for _ in range(steps + AHEAD)]
    shares = []
    for number in range(steps):
        later = set().union(*seen[number + 1 : number + 1 + AHEAD])
        shares.append(len(seen[number] & later) / len(seen[number]))
    return statistics.mean(shares)


def work_of_steps(
    corpus: Corpus, rows: RowPool, per_stream: int, steps: int
) -> tuple[list[int], list[float]]:
    """Blocks opened and processor time of each step, after those that open the first blocks."""
    opened = []
    seconds = []
    for _ in range(steps + FIRST_STEPS):
        blocks = corpus.opened
        before = time.process_time()
        rows.take(per_stream)
        seconds.append(time.process_time() - before)
        opened.append(corpus.opened - blocks)
    return opened[FIRST_STEPS:], seconds[FIRST_STEPS:]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    config = configuration.build(
        {
            "data": {
                "shards": "none",
                "row_length": arguments.row_length,
                "streams": arguments.streams,
            },
            "model": {"max_positions": max(512, arguments.row_length)},
            "train": {
                "steps": 10**6,
                "global_rows": arguments.rows,
                "micro_rows": 1,
            },
        }
    )
    per_stream = config.train.global_rows // config.data.streams
    blocks = config.data.open_blocks
    row_format = RowFormat.of(config)
    corpora = {
        "whole": Corpus(arguments.documents, None),
        "pieces": Corpus(arguments.documents, arguments.piece),
    }
    ways = {"whole, 1 block": ("whole", 1), f"whole, {blocks} blocks": ("whole", blocks)}
    ways[f"pieces, {blocks} blocks"] = ("pieces", blocks)
    found: dict[str, Any] = {
        "rows": config.train.global_rows,
        "streams": config.data.streams,
        "open_blocks": blocks,
        "return": {},
        "open_mb": {},
    }
    for name, (kind, count) in ways.items():
        rows = open_pool(corpora[kind], row_format, config.data.streams, count)
        found["return"][name] = returning(rows, per_stream, arguments.steps)
        found["open_mb"][name] = rows.bytes / 1e6
    haste = pool.HASTE
    for name, value in (("when wanted", 0.0), ("ahead", haste)):
        pool.HASTE = value
        rows = open_pool(corpora["pieces"], row_format, config.data.streams, blocks)
        # past the end of the first blocks, twice
        steps = 2 * blocks * BLOCK // (arguments.row_length * per_stream) + 100
        opened, taken = work_of_steps(corpora["pieces"], rows, per_stream, steps)
        found[f"opened {name}"] = {
            "blocks": statistics.mean(opened),
            "most_blocks": max(opened),
            "median_ms": 1e3 * statistics.median(taken),
            "longest_ms": 1e3 * max(taken),
        }
    pool.HASTE = haste
    return found


def show(found: dict[str, Any]) -> None:
    """For people."""
    print(f"{found['rows']} rows a step, {found['streams']} streams")
    print(f"{'':<22}{'return in 10 steps':>20}{'open blocks, MB':>18}")
    for name, share in found["return"].items():
        print(f"{name:<22}{share:>20.1%}{found['open_mb'][name]:>18.0f}")
    for name in ("opened when wanted", "opened ahead"):
        times = found[name]
        print(
            f"blocks {name}: {times['blocks']:.1f} in a step, at most {times['most_blocks']};"
            f" median step {times['median_ms']:.1f} ms, longest {times['longest_ms']:.1f} ms"
        )
    ratio = found["opened when wanted"]["longest_ms"] / found["opened ahead"]["longest_ms"]
    print(f"longest step, when wanted by ahead: {ratio:.1f}")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=256, help="of a step (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--row-length", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--piece", type=int, default=8192, help="default: %(default)s")
    parser.add_argument("--documents", type=int, default=200_000, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
