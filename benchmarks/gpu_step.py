"""Our step on this machine: against `transformers`, and with each optimisation switched off in
turn.

    python benchmarks/gpu_step.py --json gpu_step.json                 base and large at 512, small
                                                                       at 128 (a GPU)
    python benchmarks/gpu_step.py --cases tiny:32:4 --device cpu       the same code, in a minute on
                                                                       a CPU

Each case is PRESET:ROW_LENGTH:ROWS, all rows at once, bf16 on a GPU and fp32 on a CPU, no dropout,
ZeRO stage 1. Rows are random tokens in whole documents, the same shapes for both. The peer is the
loop of `train_speed.py`, its models as they are and compiled, under bf16 autocast, with the fastest
attention that `transformers` has without another package: SDPA, and no mask, because full rows have
no padding, so that SDPA takes its flash kernel (`peer_attention` of the figures says what was
chosen). The utilisation of all of them counts the same operations, those that the step needs
(`electra_dist.plan.step_flops`), over the matrix-product rate measured in the same run. Peers and
whole steps come first, then the variants of each case, until `--seconds` are over; what cannot run,
fails or was left out is listed.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import train_speed
from attempts import Figures, Stopped, attempt, stop_on_sigterm, write_json
from torch import nn

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import Config
from electra_dist.measure.bench import device_name, measure_steps
from electra_dist.measure.synthetic import synthetic_steps
from electra_dist.measure.tensor_memory import TensorMemory
from electra_dist.model import generator, head
from electra_dist.parallel.group import close_group, open_group
from electra_dist.parallel.hardware import matrix_product_rate
from electra_dist.parallel.world import World, detect

VOCABULARY = 30522
PEER = "transformers"
COMPILED_PEER = "transformers, compiled"
WHOLE = "electra-dist"
PEERS = (PEER, COMPILED_PEER)


class Case(NamedTuple):
    """Sizes of one measurement."""

    preset: str
    length: int
    rows: int

    @classmethod
    def parse(cls, text: str) -> Case:
        preset, length, rows = text.split(":")
        return cls(preset, int(length), int(rows))

    def __str__(self) -> str:
        return f"{self.preset}, {self.rows} x {self.length}"


class Variant(NamedTuple):
    """Our step with `overrides` of the configuration and something of
    the program changed for as long as it runs.
    """

    overrides: tuple[str, ...] = ()
    change: Callable[[], AbstractContextManager[Any]] = nullcontext


@contextmanager
def all_logits() -> Iterator[None]:
    """The generator's output layer by the plain reference, which no configuration offers."""

    def plain(*values: Any) -> head.HeadOutput:
        return head.masked_lm_head(*values[:-1], backend="torch")

    with mock.patch.object(generator, "masked_lm_head", plain):
        yield


@contextmanager
def unfused_optimizer() -> Iterator[None]:
    """AdamW by PyTorch's loops over tensors instead of its fused kernel."""
    plain = torch.optim.AdamW

    def unfused(*values: Any, **keywords: Any) -> torch.optim.AdamW:
        return plain(*values, **(keywords | {"fused": False}))

    with mock.patch.object(torch.optim, "AdamW", unfused):
        yield


#: What is different from the whole step -> how.
VARIANTS: dict[str, Variant] = {
    WHOLE: Variant(),
    "without compilation": Variant(("train.compile=false",)),
    "CUDA graphs": Variant(("train.cuda_graphs=true",)),
    "8 rows at a time": Variant(("train.micro_rows=8",)),
    "8 rows at a time, CUDA graphs": Variant(("train.micro_rows=8", "train.cuda_graphs=true")),
    "attention: sdpa": Variant(("model.attention=sdpa",)),
    "attention: triton": Variant(("model.attention=triton",)),
    "head: all logits in memory": Variant(change=all_logits),
    "head: chunked": Variant(("model.generator_head=chunked",)),
    "optimizer not fused": Variant(change=unfused_optimizer),
    "fp32": Variant(("precision.mode=fp32",)),
    "layers checkpointed": Variant(("train.activation_checkpointing=true",)),
    # last: DeepSpeed does not give all of its memory back
    "ZeRO stage 3": Variant(("zero.stage=3",)),
}


def configure(case: Case, device: str, overrides: tuple[str, ...] = ()) -> Config:
    tree: dict[str, Any] = {
        "data": {"shards": "none", "row_length": case.length, "streams": 1},
        "model": {"preset": case.preset, "max_positions": max(512, case.length)},
        "train": {
            "steps": 10**6,
            "global_rows": case.rows,
            "micro_rows": case.rows,
            "device": device,
        },
        "optim": {"lr": 1e-4, "warmup_steps": 0},
        "zero": {"stage": 1},
        "precision": {"mode": "bf16" if device == "cuda" else "fp32"},
    }
    return configuration.build(configuration.apply_overrides(tree, overrides), "benchmark")


def ours(case: Case, name: str, world: World, steps: int) -> Figures:
    """Our step in one variant."""
    variant = VARIANTS[name]
    config = configure(case, world.device.type, variant.overrides)
    with variant.change():
        figures = measure_steps(
            config, VOCABULARY, synthetic_steps(config, VOCABULARY), world, steps
        )
    found = figures.to_dict()
    kept = (
        "real_tokens_per_s",
        "mfu",
        "step_seconds",
        "peak_memory_bytes",
        "predicted_bytes",
        "attention",
        "compiled",
    )
    return {key: found[key] for key in kept}


class Compiled:
    """`train_speed.joint_loss` with the models compiled: each once, found again by identity."""

    def __init__(self) -> None:
        self.models: dict[int, Any] = {}
        self.loss = train_speed.joint_loss

    def __call__(self, *values: Any, **keywords: Any) -> Any:
        return self.loss(*(self._compiled(value) for value in values), **keywords)

    def _compiled(self, value: Any) -> Any:
        if not isinstance(value, nn.Module):
            return value
        return self.models.setdefault(id(value), torch.compile(value))


def peer(case: Case, name: str, world: World, steps: int) -> Figures:
    """The plain `transformers` loop of `train_speed.py` on random full rows."""
    config = configure(case, world.device.type)
    rng = np.random.default_rng(0)
    rows = rng.integers(SPECIAL_TOKENS.mask + 1, VOCABULARY, (4 * case.rows, case.length))
    manifest: Any = SimpleNamespace(
        vocab_size=VOCABULARY, facts=SimpleNamespace(special_tokens=SPECIAL_TOKENS)
    )
    if name == COMPILED_PEER:
        compiled = mock.patch.object(train_speed, "joint_loss", Compiled())
    else:
        compiled = nullcontext()
    with compiled, mock.patch.object(train_speed, "full_rows", return_value=rows):
        with TensorMemory(world.device) as memory:
            step = train_speed.plain_transformers(config, [], manifest, world.device)
            for _ in range(2):
                step()
        rate = train_speed.timed(step, steps, world.device)
    flops = plan.plan_run(config, VOCABULARY, 1, 1, "h100").flops_per_token
    machine = matrix_product_rate(
        world.device, torch.bfloat16 if world.device.type == "cuda" else torch.float32
    )
    return {
        "real_tokens_per_s": rate,
        "mfu": rate * flops / machine,
        "step_seconds": case.rows * case.length / rate,
        "peak_memory_bytes": memory.peak_bytes,
        "peer_attention": peer_attention(),
        "compiled": name == COMPILED_PEER,
    }


def peer_attention() -> str:
    """The attention that `transformers` chooses for these models."""
    from transformers import ElectraConfig, ElectraForPreTraining

    small = ElectraConfig(
        vocab_size=8, hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8
    )
    return str(ElectraForPreTraining(small).config._attn_implementation)


def measured(case: Case, name: str, world: World, steps: int) -> Figures:
    """One measurement, printed as it comes; one that cannot run,
    fails or runs out of memory says why.
    """
    if name in PEERS:
        kind = peer
    else:
        kind = ours
    found = attempt(functools.partial(kind, case, name, world, steps), world.device)
    print(f"{case}: {name}: {line(found)}", file=sys.stderr, flush=True)
    return found


def line(figures: Figures, *against: float | None) -> str:
    """One row of the table: tokens/s, utilisation, peak,
    and the rate over each of the rates `against`.
    """
    if "refused" in figures:
        return str(figures["refused"])
    rate = figures["real_tokens_per_s"]
    text = f"{rate:>12,.0f}{figures['mfu']:>13.1%}{figures['peak_memory_bytes'] / 1e9:>10.2f} GB"
    return text + "".join(f"{rate / base:>17.2f} x" if base else f"{'':>19}" for base in against)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ["base:512:64", "large:512:32", "small:128:512"]
    parser.add_argument(
        "--cases",
        nargs="+",
        default=default,
        metavar="PRESET:LENGTH:ROWS",
        help="default: %(default)s",
    )
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS, help="default: both")
    parser.add_argument(
        "--variants", nargs="*", default=list(VARIANTS)[1:], help="default: all of them"
    )
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--seconds", type=float, default=300, help="start nothing after so long")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    unknown = set(arguments.variants) - set(VARIANTS)
    if unknown:
        parser.error(
            f"unknown variants: {', '.join(unknown)}; known: {', '.join(list(VARIANTS)[1:])}"
        )
    return arguments


def measure_all(
    arguments: argparse.Namespace,
    cases: list[Case],
    world: World,
    results: dict[str, dict[str, Figures]],
    save: Callable[[], None],
) -> None:
    """Fill `results`, in the order of its weight, until the time is over; `save` after each."""
    end = time.monotonic() + arguments.seconds
    first = [name for name in (PEER, WHOLE, COMPILED_PEER) if name in (*arguments.peers, WHOLE)]
    wanted = [(case, name) for name in first for case in cases]
    wanted += [(case, name) for name in arguments.variants for case in cases]
    for case, name in wanted:
        results.setdefault(str(case), {})[name] = {"refused": "left out: time was over"}
    for case, name in wanted:
        if time.monotonic() > end:
            break
        results[str(case)][name] = measured(case, name, world, arguments.steps)
        save()


def print_table(results: dict[str, dict[str, Figures]]) -> None:
    for case, figures in results.items():
        bases = [figures.get(name, {}).get("real_tokens_per_s") for name in (PEER, WHOLE)]
        peers = f"{'of ' + PEER:>19}{'of ' + WHOLE:>19}"
        print(f"{case:<32}{'tokens/s':>12}{'utilisation':>13}{'peak':>13}{peers}")
        for name, found in figures.items():
            print(f"    {name:<28}{line(found, *bases)}")


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    stop_on_sigterm()
    world = detect({}, arguments.device, torch.cuda.device_count())
    open_group(world)
    if world.device.type == "cuda":
        dtype = torch.bfloat16
    else:
        dtype = torch.float32
    rate = matrix_product_rate(world.device, dtype)
    machine = device_name(world.device)
    settings = {k: v for k, v in vars(arguments).items() if k != "json"}
    about = {
        "machine": machine,
        "torch": torch.__version__,
        "matrix_product_rate": rate,
        "settings": settings,
    }
    results: dict[str, dict[str, Figures]] = {}
    save = functools.partial(write_json, arguments.json, about | {"cases": results})
    try:
        measure_all(arguments, [Case.parse(text) for text in arguments.cases], world, results, save)
    except Stopped:
        print("stopped before the end", file=sys.stderr)
    save()
    close_group()
    print(
        f"{machine}, torch {torch.__version__}, matrix products {rate / 1e12:,.4g} TFLOP/s"
        f" ({dtype})"
    )
    print_table(results)


if __name__ == "__main__":
    main()
