"""What the measurements of the preflight mean: nodes against their median, versions against the
majority.

Comes in: one `Measurement` a rank. Goes out: a `Verdict` with a table, the bad nodes and why. Knows
no torch, so that what a slow node looks like can be tested without one.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Seconds between the clocks of two nodes that are too many:
#: tokens of time-outs and file times stop making sense.
MAX_CLOCK_SKEW = 5.0


@dataclass(frozen=True)
class Measurement:
    """What one rank saw; rates are None where they do not exist (no GPU, one rank a node, one
    node).

    matrix_tflops, cold_matrix_tflops   warm and cold (`train.hardware.ProductRate`)

    disk_free_gib, disk_needed_gib   under the run directory; what the run's checkpoints will take
                                     of it
    run_error, shards_error          why the run directory cannot be written, the shards cannot be
                                     read
    """

    rank: int
    node: str
    device: str
    matrix_tflops: float
    cold_matrix_tflops: float
    memory_gib: float
    host_to_device_gb_s: float | None
    within_gb_s: float | None
    between_gb_s: float | None
    write_mb_s: float | None
    read_mb_s: float | None
    shards_mb_s: float | None
    disk_free_gib: float
    disk_needed_gib: float
    clock: float
    ecc_errors: int | None
    clock_mhz: int | None
    versions: dict[str, str]
    run_error: str | None = None
    shards_error: str | None = None


@dataclass(frozen=True)
class _Column:
    """A rate of a node: its worst rank counts. `share` of the median is the least that is accepted.

    From `enough` on a rate is good whatever the others have: what one node has in its memory
    already, another one reads from the disk.
    """

    field: str
    title: str
    share_cuda: float
    share_cpu: float
    enough: float = math.inf


#: CPU nodes share machines and vary; GPU nodes of one partition do not.
#: File systems vary everywhere.
_COLUMNS = (
    _Column("matrix_tflops", "matmul TFLOP/s", 0.85, 0.2),
    _Column("cold_matrix_tflops", "cold", 0.0, 0.0),  # shown, not judged: an idle clock is no fault
    _Column("memory_gib", "free memory GiB", 0.8, 0.2),
    _Column("host_to_device_gb_s", "host->GPU GB/s", 0.6, 0.3),
    _Column("within_gb_s", "within GB/s", 0.6, 0.1),
    _Column("between_gb_s", "between GB/s", 0.5, 0.1),
    _Column("write_mb_s", "run write MB/s", 0.1, 0.05, enough=200.0),
    _Column("read_mb_s", "run read MB/s", 0.1, 0.05, enough=200.0),
    # a million tokens a second are 2 MB/s
    _Column("shards_mb_s", "shards MB/s", 0.1, 0.05, enough=50.0),
)


@dataclass(frozen=True)
class NodeVerdict:
    """One node: its worst rate of each kind, and what is wrong with it."""

    node: str
    ranks: int
    rates: dict[str, float | None]
    clock_mhz: int | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """All nodes, the bandwidth of one all-reduce over all ranks in GB/s, and what all nodes see
    alike.

    storage   why the file system of the run cannot take the run, or None
    shards    why no node can read the shards, or None
    room      free and needed disk under the run directory, in words
    """

    nodes: tuple[NodeVerdict, ...]
    all_reduce_gb_s: float | None = None
    storage: str | None = None
    shards: str | None = None
    room: str = ""

    @property
    def bad_nodes(self) -> list[str]:
        return [node.node for node in self.nodes if node.problems]

    @property
    def ok(self) -> bool:
        return not (self.bad_nodes or self.storage or self.shards)

    def table(self) -> str:
        """The nodes, one a line, then what is wrong."""
        shown = [
            column
            for column in _COLUMNS
            if any(node.rates[column.field] is not None for node in self.nodes)
        ]
        rows = [["node", "ranks", *(column.title for column in shown), "MHz", "verdict"]]
        for node in self.nodes:
            cells = [_cell(node.rates[column.field]) for column in shown]
            if node.clock_mhz is None:
                mhz = "-"
            else:
                mhz = str(node.clock_mhz)
            rows.append([node.node, str(node.ranks), *cells, mhz, "BAD" if node.problems else "ok"])
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        if self.all_reduce_gb_s is not None:
            lines.append(f"all-reduce over all ranks: {self.all_reduce_gb_s:.2f} GB/s")
        if self.room:
            lines += [self.room]
        else:
            lines += []
        lines += [f"{node.node}: {problem}" for node in self.nodes for problem in node.problems]
        return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 100:
        return f"{value:.2f}"
    return f"{value:.0f}"


def compare_nodes(measured: Sequence[Measurement], all_reduce_gb_s: float | None = None) -> Verdict:
    """Compare the nodes with each other and name what is wrong with each.

    A node is bad when a rate is below a share of the median of all nodes, when a GPU counts
    uncorrected ECC errors, its clock or its software differs from the others, or it alone cannot
    use the run's disk or the shards. What all nodes see alike is no node's fault.
    """
    by_node: dict[str, list[Measurement]] = {}
    for one in measured:
        by_node.setdefault(one.node, []).append(one)
    rates = {
        node: {column.field: _worst(ranks, column.field) for column in _COLUMNS}
        for node, ranks in by_node.items()
    }
    found: dict[str, list[str]] = {node: [] for node in by_node}
    on_gpu = any(one.device.startswith("cuda") for one in measured)
    for column in _COLUMNS:
        _compare(column, on_gpu, rates, found)
    _clocks(by_node, found)
    _software(by_node, found)
    for node, ranks in by_node.items():
        found[node] += _absolute(ranks)
    storage = _shared({node: _disk_problem(ranks) for node, ranks in by_node.items()}, found)
    shards = _shared(
        {node: _first(one.shards_error for one in ranks) for node, ranks in by_node.items()}, found
    )
    return Verdict(
        tuple(
            NodeVerdict(node, len(ranks), rates[node], _slowest_clock(ranks), tuple(found[node]))
            for node, ranks in by_node.items()
        ),
        all_reduce_gb_s,
        storage,
        shards,
        _room(measured),
    )


def _shared(problems: dict[str, str | None], found: dict[str, list[str]]) -> str | None:
    """A problem of all nodes, which is none of theirs;
    that of some is noted with each of them in `found`.
    """
    some = {node: problem for node, problem in problems.items() if problem}
    if len(some) == len(problems):
        return next(iter(some.values()))
    for node, problem in some.items():
        found[node].append(f"{problem}; the other nodes have no such problem")
    return None


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def _disk_problem(ranks: Sequence[Measurement]) -> str | None:
    """Why this node cannot use the file system of the run, or None."""
    if error := _first(one.run_error for one in ranks):
        return error
    free = min(one.disk_free_gib for one in ranks)
    needed = max(one.disk_needed_gib for one in ranks)
    if free < needed:
        return (
            f"no space left for the run: {_gib(free)} free under the run directory, its checkpoints"
            f" need {_gib(needed)} (checkpoint.keep + 1 of them, and the milestones)"
        )
    return None


def _room(measured: Sequence[Measurement]) -> str:
    free = min(one.disk_free_gib for one in measured)
    needed = max(one.disk_needed_gib for one in measured)
    return f"disk under the run directory: {_gib(free)} free, {_gib(needed)} needed for checkpoints"


def _gib(gib: float) -> str:
    if gib >= 0.1:
        return f"{gib:.2f} GiB"
    return f"{gib * 1024:.1f} MiB"


def _worst(ranks: Sequence[Measurement], kind: str) -> float | None:
    values = [value for one in ranks if (value := getattr(one, kind)) is not None]
    return min(values, default=None)


def _slowest_clock(ranks: Sequence[Measurement]) -> int | None:
    return min((one.clock_mhz for one in ranks if one.clock_mhz is not None), default=None)


def _compare(
    column: _Column,
    on_gpu: bool,
    rates: dict[str, dict[str, float | None]],
    found: dict[str, list[str]],
) -> None:
    known = {node: value for node, row in rates.items() if (value := row[column.field]) is not None}
    if len(known) < 2:
        return
    median = statistics.median(known.values())
    least = min((column.share_cuda if on_gpu else column.share_cpu) * median, column.enough)
    for node, value in known.items():
        if value < least:
            found[node].append(
                f"{column.title}: {_cell(value)}, the median of {len(known)} nodes is"
                f" {_cell(median)}"
            )


def _clocks(by_node: dict[str, list[Measurement]], found: dict[str, list[str]]) -> None:
    median = statistics.median(ranks[0].clock for ranks in by_node.values())
    for node, ranks in by_node.items():
        skew = ranks[0].clock - median
        if abs(skew) > MAX_CLOCK_SKEW:
            found[node].append(
                f"clock: {skew:+.1f} s from the others; its time service (chrony, ntpd) is off"
            )


def _software(by_node: dict[str, list[Measurement]], found: dict[str, list[str]]) -> None:
    everyone = [one for ranks in by_node.values() for one in ranks]
    for name in sorted({name for one in everyone for name in one.versions}):
        usual = Counter(one.versions.get(name, "none") for one in everyone).most_common(1)[0][0]
        for node, ranks in by_node.items():
            own = {one.versions.get(name, "none") for one in ranks} - {usual}
            if own:
                found[node].append(f"{name}: {', '.join(sorted(own))}, the others have {usual}")


def _absolute(ranks: Sequence[Measurement]) -> list[str]:
    errors = sum(one.ecc_errors or 0 for one in ranks)
    if errors:
        return [f"{errors} uncorrected ECC errors: the GPU needs a reset or a replacement"]
    return []
