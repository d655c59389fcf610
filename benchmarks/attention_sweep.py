"""Tile sizes, warps and pipeline stages of our attention kernels: which are fastest here, next to
PyTorch's attention.

    python benchmarks/attention_sweep.py --json sweep.json          a GPU: 50 seconds
    python benchmarks/attention_sweep.py --compile-only             anywhere: compiles each for
                                                                    compute capability 9.0

Every configuration of each of the three kernels (forward, gradient of the queries, of keys and
values) is compiled by worker processes, today's first and then by how little it differs from it. On
a GPU each is timed in turn over documents of 128, 512 and 2,048 tokens, and its result compared
with today's; `varlen_attn` is timed first, with FlashAttention-2 and with a later one where it is
installed. The best for each kernel is the least sum of times relative to today's; it belongs into
`CONFIGS` of `electra_dist/model/kernels/flash_attention.py`. Figures are written as they come, and
nothing begins after `--seconds`. What does not compile or does not fit is listed with the reason.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from attempts import Figures, Stopped, attempt, stop_on_sigterm, write_json
from attention_cases import AttentionCase, make_inputs, measure_attention
from torch import Tensor

from electra_dist.measure.bench import device_name
from electra_dist.model.attention import flash_implementation

LENGTHS = (128, 512, 2048)
HOPPER = (9, 0)
DTYPE = torch.bfloat16
#: Kernel -> queries and keys of a block, warps, stages that are tried.
SPACE: dict[str, tuple[tuple[int, ...], ...]] = {
    "forward": ((64, 128), (64, 128), (4, 8), (2, 3, 4)),
    "query_grad": ((64, 128), (32, 64), (4, 8), (2, 3)),
    "key_grad": ((32, 64), (64, 128), (4, 8), (2, 3)),
}
_SMALL_TOKENS = 1024
_RUN_MS = 15
_PEER_SECONDS = 0.05


class Trial(NamedTuple):
    """One configuration of one kernel: block_m, block_n, warps, stages."""

    kernel: str
    config: tuple[int, int, int, int]

    def __str__(self) -> str:
        block_m, block_n, warps, stages = self.config
        return f"{block_m} x {block_n}, {warps} warps, {stages} stages"


class Setting(NamedTuple):
    """What is the same in all trials; `capability` is set where they are only compiled."""

    heads: int
    head_size: int
    dropout: float
    capability: tuple[int, int] | None


def trials(head_size: int) -> list[Trial]:
    """Today's configurations and then what differs least from them, the kernels in turn."""
    from electra_dist.model.kernels import flash_attention as fa

    ordered = []
    for kernel, choices in SPACE.items():
        today = tuple(fa.config_for(kernel, head_size, DTYPE, HOPPER))
        found = {today, *itertools.product(*choices)}
        ordered.append(
            [Trial(kernel, config) for config in sorted(found, key=partial(_difference, today))]
        )
    turns = itertools.zip_longest(*ordered)
    return [trial for turn in turns for trial in turn if trial is not None]


def _difference(today: tuple[int, ...], config: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return sum(one != other for one, other in zip(today, config, strict=True)), config


@contextmanager
def configured(trial: Trial, head_size: int) -> Iterator[None]:
    """The kernel launched with the configuration of `trial`."""
    from electra_dist.model.kernels import flash_attention as fa

    key = (trial.kernel, fa._padded(head_size))
    before = fa.CONFIGS[key]
    fa.CONFIGS[key] = fa.Config(*trial.config)
    try:
        yield
    finally:
        fa.CONFIGS[key] = before


class Problem:
    """Packed documents of one length with everything that the three kernels read and write."""

    def __init__(self, length: int, tokens: int, setting: Setting, device: torch.device) -> None:
        from electra_dist.model.kernels import flash_attention as fa

        case = AttentionCase(length, tokens, setting.heads, setting.head_size)
        inputs = make_inputs(case, device, DTYPE)
        qkv = inputs.qkv.detach().flatten(0, 1)
        grad = inputs.grad.flatten(0, 1)
        low, high = fa.document_bounds(inputs.cu_seqlens, qkv.shape[0])
        if setting.dropout:
            seed = torch.tensor(7, device=device)
        else:
            seed = None
        out, lse = fa._forward_op(qkv, low, high, seed, setting.dropout)
        self.passed = fa.BackwardTensors(
            grad, qkv, out, lse, lse.clone(), torch.zeros_like(qkv), low, high, seed
        )
        # delta, which the other backward kernel reads
        fa.launch_query_grad(self.passed, setting.dropout)
        self.dropout = setting.dropout

    def launch(self, kernel: str) -> Tensor:
        """Run one kernel; what it wrote."""
        from electra_dist.model.kernels import flash_attention as fa

        _, qkv, out, lse, _, grad_qkv, low, high, seed = self.passed
        if kernel == "forward":
            fa.launch_forward(qkv, out, lse, low, high, seed, self.dropout)
            return out
        if kernel == "query_grad":
            fa.launch_query_grad(self.passed, self.dropout)
            return grad_qkv[:, 0]
        fa.launch_key_grad(self.passed, self.dropout)
        return grad_qkv[:, 1:]


def compiled(setting: Setting, trial: Trial) -> Figures:
    """In a worker: compile one trial, for the GPU that is here into Triton's cache,
    or for one that is not.
    """
    device = torch.device("cpu" if setting.capability else "cuda")
    return attempt(partial(_compiled, setting, trial), device)


def _compiled(setting: Setting, trial: Trial) -> Figures:
    from electra_dist.model.kernels import ahead
    from electra_dist.model.kernels import flash_attention as fa

    if setting.capability is None:
        with configured(trial, setting.head_size):
            Problem(128, _SMALL_TOKENS, setting, torch.device("cuda")).launch(trial.kernel)
        torch.cuda.synchronize()
        return {}
    config = fa.Config(*trial.config)
    dropout = setting.dropout > 0
    found = ahead.compile_attention(
        trial.kernel, config, setting.head_size, DTYPE, dropout, setting.capability
    )
    if found.shared_bytes > ahead.SHARED_MEMORY[setting.capability]:
        return {"refused": f"needs {found.shared_bytes / 1024:.0f} KiB of shared memory"}
    return dict(found._asdict())


def timed(
    problems: dict[int, Problem], references: dict[str, Tensor], setting: Setting, trial: Trial
) -> Figures:
    """Milliseconds at each document length,
    and the error against what today's configuration wrote.
    """
    from triton.testing import do_bench

    found: Figures = {}
    with configured(trial, setting.head_size):
        for length, problem in problems.items():
            call = partial(problem.launch, trial.kernel)
            found[str(length)] = do_bench(
                call, warmup=_RUN_MS // 3, rep=_RUN_MS, return_mode="median"
            )
        written = problem.launch(trial.kernel).float()
    if trial.kernel not in references:  # the first of a kernel is today's
        references[trial.kernel] = written.clone()
    reference = references[trial.kernel]
    return {"milliseconds": found, "error": float((written - reference).norm() / reference.norm())}


def peers(tokens: int, setting: Setting, device: torch.device) -> dict[str, dict[str, Figures]]:
    """Forward and backward of PyTorch's variable-length attention,
    by implementation and document length.
    """
    found: dict[str, dict[str, Figures]] = {}
    for activated in (False, True):
        if (
            activated
            and flash_implementation.activate(device, [(setting.head_size, DTYPE)]) == "FA2"
        ):
            continue
        figures = found.setdefault(f"varlen_attn, {flash_implementation.in_use()}", {})
        for length in LENGTHS:
            case = AttentionCase(length, tokens, setting.heads, setting.head_size)
            figures[str(length)] = attempt(partial(_peer, case, device), device)
    return found


def _peer(case: AttentionCase, device: torch.device) -> Figures:
    figures = measure_attention("varlen_attn", case, device, 1.0, _PEER_SECONDS)
    both = figures["forward_backward_seconds"]
    forward = figures["forward_seconds"]
    return {"forward": forward * 1e3, "backward": (both - forward) * 1e3}


def best(results: dict[str, dict[str, Figures]]) -> dict[str, str]:
    """The configuration of each kernel with the least sum of times relative to today's,
    which is its first.
    """
    found = {}
    for kernel, figures in results.items():
        times = {name: f["milliseconds"] for name, f in figures.items() if "milliseconds" in f}
        if times:
            today = next(iter(times.values()))
            found[kernel] = min(
                times, key=lambda name: sum(times[name][key] / today[key] for key in today)
            )
    return found


def line(trial: Trial, found: Figures) -> str:
    """One row of the table."""
    text = f"{trial.kernel:<11}{trial!s:<32}"
    if "refused" in found:
        return text + str(found["refused"])
    if "milliseconds" in found:
        return (
            text
            + "".join(f"{ms:>10.4f}" for ms in found["milliseconds"].values())
            + f"{found['error']:>10.1e}"
        )
    if "registers" in found:
        shared = found["shared_bytes"] / 1024
        text += f"{found['registers']:>10}{found['spilled_bytes']:>10}{shared:>10.0f}"
    return text + f"{found.get('four_byte_copies', 0):>10}"


def print_best(
    chosen: dict[str, str], results: dict[str, dict[str, Figures]], others: dict[str, Any]
) -> None:
    """The best configurations, and what they come to next to PyTorch's attention."""
    for kernel, name in chosen.items():
        print(f"best {kernel}: {name}")
    print(f"\n{'milliseconds':<28}{'':>8}" + "".join(f"{length:>10}" for length in LENGTHS))
    for label, kernels in (("forward", ("forward",)), ("backward", ("query_grad", "key_grad"))):
        for words, names in (("ours, today", dict.fromkeys(kernels)), ("ours, best", chosen)):
            if all(kernel in chosen for kernel in kernels):
                rows = [
                    results[k][names[k] or next(iter(results[k]))]["milliseconds"] for k in kernels
                ]
                print(
                    f"{words:<28}{label:>8}"
                    + "".join(f"{sum(r[str(n)] for r in rows):>10.4f}" for n in LENGTHS)
                )
        for words, figures in others.items():
            cells = [figures[str(n)].get(label) for n in LENGTHS]
            print(
                f"{words:<28}{label:>8}"
                + "".join(f"{cell:>10.4f}" if cell else f"{'-':>10}" for cell in cells)
            )


def sweep(
    arguments: argparse.Namespace,
    setting: Setting,
    results: dict[str, dict[str, Figures]],
    save: Callable[[], None],
    end: float,
) -> None:
    """Fill `results` in the order of the trials, until `time.monotonic()` is at `end`."""
    wanted = trials(setting.head_size)[: arguments.most]
    problems = {}
    references = dict[str, Tensor]()
    context = multiprocessing.get_context("spawn")  # a process that has used a GPU cannot be forked
    with context.Pool(arguments.processes) as pool:
        compiling = pool.imap(partial(compiled, setting), wanted)
        if setting.capability is None:
            device = torch.device("cuda")
            problems = {
                length: Problem(length, arguments.tokens, setting, device) for length in LENGTHS
            }
        for trial in wanted:
            try:
                found = compiling.next(timeout=max(end - time.monotonic(), 0.0))
            except multiprocessing.TimeoutError:
                print(
                    f"time is over; {len(wanted) - sum(map(len, results.values()))} configurations"
                    " are left out"
                )
                break
            if problems and "refused" not in found:
                found = attempt(
                    partial(timed, problems, references, setting, trial), torch.device("cuda")
                )
            results.setdefault(trial.kernel, {})[str(trial)] = found
            print(line(trial, found), flush=True)
            save()
        pool.terminate()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--compile-only",
        action="store_true",
        help="no GPU: registers, spilled bytes, shared memory",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=45,
        help="start nothing after so long (default: %(default)s)",
    )
    parser.add_argument(
        "--tokens", type=int, default=32768, help="of a launch (default: %(default)s)"
    )
    parser.add_argument("--heads", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--head-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument(
        "--dropout", type=float, default=0.0, help="of the attention weights (default: %(default)s)"
    )
    parser.add_argument(
        "--most", type=int, help="only so many configurations, those nearest to today's"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=max(min((os.cpu_count() or 2) - 1, 12), 1),
        help="that compile",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if not arguments.compile_only and not torch.cuda.is_available():
        parser.error(
            "timing needs a CUDA device, and PyTorch sees none; --compile-only compiles here"
        )
    return arguments


def main() -> None:
    arguments = parse()
    end = time.monotonic() + arguments.seconds
    stop_on_sigterm()
    if arguments.compile_only:
        capability = HOPPER
    else:
        capability = None
    setting = Setting(arguments.heads, arguments.head_size, arguments.dropout, capability)
    device = torch.device("cpu" if capability else "cuda")
    if capability:
        others = {}
    else:
        others = peers(arguments.tokens, setting, device)
    results: dict[str, dict[str, Figures]] = {}
    content = {
        "machine": device_name(device),
        "torch": torch.__version__,
        "setting": setting._asdict(),
    }
    content |= {"tokens": arguments.tokens, "peers": others, "configurations": results, "best": {}}
    if capability:
        columns = ("registers", "spilled", "KiB", "4 B copies")
    else:
        columns = (*map(str, LENGTHS), "error")
    print(f"{'kernel':<11}{'configuration':<32}" + "".join(f"{column:>10}" for column in columns))

    def save() -> None:
        write_json(arguments.json, content | {"best": best(results)})

    try:
        sweep(arguments, setting, results, save, end)
    except Stopped:
        print("stopped before the end", file=sys.stderr)
    save()
    if not capability:
        print_best(best(results), results, others)


if __name__ == "__main__":
    main()
