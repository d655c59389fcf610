"""Our two kernels against what PyTorch has, on this machine (figure 4).

    python benchmarks/kernels.py --json kernels.json                       a GPU: about two minutes
    python benchmarks/kernels.py --quick                                   the smallest sizes, on a
                                                                           CPU too
    TRITON_INTERPRET=1 python benchmarks/kernels.py --quick                the same, our kernels
                                                                           interpreted

attention   packed documents, bidirectional, base's heads (12 x 64), a fixed number of tokens filled
            by documents of one
            length, and of mixed lengths: ours, PyTorch's `varlen_attn`, FlexAttention (compiled,
            document block mask), and SDPA with a block mask (`attention_cases.py`). `each step` is
            what changes with the documents and is done once for all layers: our kernel's intervals,
            FlexAttention's block mask, SDPA's mask.
head        the generator's output layer at base's sizes: ours fused, ours in chunks, and linear +
            cross-entropy +
            multinomial, plain and compiled (`head_cases.py`); peak memory above the inputs.

Operations are counted as in docs/measure.md: two products forward, a backward costs two
forwards, only pairs of tokens of one document; `of the machine` is against a large matrix product
measured in the same run. A case that cannot run or fails is listed with the reason; `--seconds`
bounds the whole, and what was left out is listed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from attempts import Figures, Stopped, attempt, stop_on_sigterm, write_json
from attention_cases import ATTENTION, AttentionCase, measure_attention
from head_cases import HEADS, HeadCase, measure_head

from electra_dist.measure.bench import device_name
from electra_dist.parallel.hardware import matrix_product_rate

#: Part -> case -> implementation -> its figures.
Results = dict[str, dict[str, dict[str, Figures]]]


class Sizes(NamedTuple):
    """How large everything is: tokens, heads and head size, rows;
    positions, embedding and vocabularies; seconds.
    """

    tokens: int
    heads: int
    head_size: int
    lengths: tuple[int, ...]
    positions: int
    embedding: int
    vocabularies: tuple[int, ...]
    run_seconds: float


#: In the order of their weight: what is left out when the time is over is what matters least.
FULL = Sizes(
    32768,
    12,
    64,
    (512, 128, 2048, 8192, 1024, 256, 4096),
    4928,
    768,
    (32768, 262144, 8192, 131072, 65536),
    0.2,
)
QUICK = Sizes(128, 2, 32, (32,), 24, 32, (3000,), 0.01)


class Job(NamedTuple):
    """One measurement: where its figures belong, and how to get them."""

    part: str
    case: str
    name: str
    measure: Callable[[], Figures]


def jobs(sizes: Sizes, device: torch.device, rate: float) -> list[Job]:
    """Every measurement, attention and head in turn."""
    mixed = AttentionCase(None, sizes.tokens, sizes.heads, sizes.head_size)
    cases = [mixed._replace(length=length) for length in sizes.lengths]
    cases.insert(2, mixed)
    heads = [
        HeadCase(sizes.positions, sizes.embedding, vocabulary) for vocabulary in sizes.vocabularies
    ]
    common = (device, rate, sizes.run_seconds)
    attention = [
        [
            Job("attention", str(c), name, partial(measure_attention, name, c, *common))
            for name in ATTENTION
        ]
        for c in cases
    ]
    head = [
        [Job("head", str(c), name, partial(measure_head, name, c, *common)) for name in HEADS]
        for c in heads
    ]
    both = []
    for number in range(max(len(attention), len(head))):
        both += [job for part in (attention, head) if number < len(part) for job in part[number]]
    return both


def measure_all(
    wanted: list[Job],
    results: Results,
    seconds: float,
    device: torch.device,
    save: Callable[[], None],
) -> None:
    """Fill `results`, and `save` after each;
    what does not begin within `seconds` is listed as left out.
    """
    end = time.monotonic() + seconds
    for job in wanted:
        results.setdefault(job.part, {}).setdefault(job.case, {})[job.name] = {
            "refused": "left out: time was over"
        }
    for job in wanted:
        if time.monotonic() > end:
            break
        found = attempt(job.measure, device)
        results[job.part][job.case][job.name] = found
        print(f"{job.part}: {job.case}: {job.name}: {line(found)}", file=sys.stderr, flush=True)
        save()


def line(figures: Figures) -> str:
    """One row of the table."""
    if "refused" in figures:
        return str(figures["refused"])
    text = f"{figures['forward_seconds'] * 1e3:>10.3f}"
    text += f"{figures['forward_backward_seconds'] * 1e3:>13.3f}"
    if "prepare_seconds" in figures:
        text += f"{figures['prepare_seconds'] * 1e3:>11.3f}"
    else:
        text += f"{figures['peak_bytes'] / 1e6:>11,.1f}"
    text += f"{figures['flops_per_s'] / 1e12:>10.4g}{figures['utilisation']:>9.1%}"
    return text + f"{figures['error']:>9.1e}"


HEADINGS = {
    part: (
        f"{part:<32}{'forward ms':>10}{'and backward':>13}{column:>11}"
        f"{'TFLOP/s':>10}{'machine':>9}{'error':>9}"
    )
    for part, column in (("attention", "each step"), ("head", "peak MB"))
}


def print_tables(results: Results) -> None:
    for part, cases in results.items():
        print(f"\n{HEADINGS[part]}")
        for case in sorted(cases, key=_number):
            print(case)
            for name, found in cases[case].items():
                print(f"    {name:<28}{line(found)}")


def _number(case: str) -> tuple[int, str]:
    """Cases by the number in their name; those without one last."""
    digits = "".join(c for c in case if c.isdigit())
    return int(digits) if digits else sys.maxsize, case


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the smallest sizes")
    parser.add_argument(
        "--seconds",
        type=float,
        default=120,
        help="start nothing after so long (default: %(default)s)",
    )
    parser.add_argument("--tokens", type=int, help="tokens of the attention (default: 32768)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    stop_on_sigterm()
    cuda = arguments.device == "cuda" or (arguments.device == "auto" and torch.cuda.is_available())
    if cuda:
        device = torch.device("cuda", 0)
    else:
        device = torch.device("cpu")
    if cuda:
        dtype = torch.bfloat16
    else:
        dtype = torch.float32
    if arguments.quick:
        sizes = QUICK
    else:
        sizes = FULL
    sizes = sizes._replace(tokens=arguments.tokens or sizes.tokens)
    rate = matrix_product_rate(device, dtype)
    results: Results = {}
    about = {"machine": device_name(device), "torch": torch.__version__, "dtype": str(dtype)}
    about |= {"matrix_product_rate": rate, "sizes": sizes._asdict()}
    try:
        save = partial(write_json, arguments.json, about | {"results": results})
        measure_all(jobs(sizes, device, rate), results, arguments.seconds, device, save)
        save()
    except Stopped:
        print("stopped before the end", file=sys.stderr)
    print(
        f"{about['machine']}, torch {torch.__version__}, {dtype}, matrix products"
        f" {rate / 1e12:,.4g} TFLOP/s"
    )
    print_tables(results)


if __name__ == "__main__":
    main()
