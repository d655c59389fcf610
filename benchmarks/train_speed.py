"""Real tokens per second: our training step against a plain `transformers` loop, on the same text,
in one run.

    electra-dist data corpus pydoc --out corpus        # or any other text
    python benchmarks/train_speed.py --text corpus --preset small --json speed.json

Ours is the whole path of `electra-dist train`: shards, packing, masks, the two engines, AdamW. The
peer is what a user of `transformers` would write: ElectraForMaskedLM and ElectraForPreTraining with
shared embeddings, texts concatenated and cut into full rows as the library's own examples do,
Gumbel sampling (at the masked positions; with `--peer-samples all` at every one, as where noise is
drawn before the positions are chosen), one AdamW, joint clipping. Both have the same sizes,
vocabulary, rows a step, row length, dropout, precision, and threads. Each has a process of its own,
as a user would start it: ours tunes the memory allocator as `train` does, the peer leaves it as it
is; with `--processes N` ours is N ranks that share the threads, as `launch local` starts them. How
many rows go through at once is each one's own choice. Rounds of both alternate, because machines
are noisy, and one waits while the other runs; the figure is the median of the ratios of
neighbouring rounds.

Printed beside it: the utilisation of both, which is the same count of operations a token
(docs/measure.md) over the rate of a large matrix product, measured in every round; and the
ratio that a step of nothing but its matrix products would reach at that rate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_tools.build import BuildOptions, build_shards
from data_tools.sources import find_inputs, read_documents, split_parts
from data_tools.tokenizer import load_tokenizer, train_tokenizer
from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.architectures.electra.names import hf_config
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import Config
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.model.backends import DTYPES
from electra_dist.model.networks import build_networks
from electra_dist.parallel.group import close_group, open_group
from electra_dist.parallel.hardware import matrix_product_rate
from electra_dist.parallel.world import detect
from electra_dist.train.step import train_step
from electra_dist.train.window import squared_lengths
from electra_dist.zero.engines import build_engines
from launcher.local import free_port

OURS = "electra-dist"
PEER = "transformers"
#: Trains one step and returns its real (non-padding) tokens.
Step = Callable[[], int]


def ours(
    config: Config, manifest: Manifest, device: torch.device, place: Mapping[str, str] | None = None
) -> Step:
    """Our own step, loader included, on the rank that torchrun's variables in `place` name;
    alone without them.
    """
    world = detect(place or {}, config.train.device, torch.cuda.device_count())
    open_group(world)
    generator, discriminator = build_networks(
        config, manifest.vocab_size, device, config.train.seed
    )
    engines = build_engines(config, generator, discriminator, world)
    steps = StepPlan.of(config, world.rank, world.world_size)
    loader = TrainLoader(steps, RunData.alone(manifest))

    def step() -> int:
        batch = next(loader)
        train_step(engines, batch, config, 1.0)
        return batch.real_count

    return step


def full_rows(text: list[Path], manifest: Manifest, length: int) -> np.ndarray[Any, Any]:
    """The corpus as the language-modelling examples of `transformers` group it:
    concatenated, cut, no padding.
    """
    tokenizer = load_tokenizer(manifest.tokenizer_path)
    documents = [
        document for part in split_parts(find_inputs(text)) for document in read_documents(part)
    ]
    ends = [SPECIAL_TOKENS.cls], [SPECIAL_TOKENS.sep]
    ids = np.concatenate(
        [np.concatenate([ends[0], ids, ends[1]]) for ids in tokenizer.encode_batch(documents)]
    )
    ids = ids.astype(np.int64)
    return ids[: len(ids) // length * length].reshape(-1, length)


def masked(rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """(inputs, labels) by the usual collator: Bernoulli selection, 85% [MASK], the rest kept;
    -100 where unmasked.
    """
    chosen = (torch.rand(rows.shape, device=rows.device) < fraction) & (rows > SPECIAL_TOKENS.mask)
    shown = chosen & (torch.rand(rows.shape, device=rows.device) < 0.85)
    return rows.masked_fill(shown, SPECIAL_TOKENS.mask), rows.masked_fill(~chosen, -100)


def plain_transformers(
    config: Config,
    text: list[Path],
    manifest: Manifest,
    device: torch.device,
    samples: str = "masked",
) -> Step:
    """The peer: a training loop as users of `transformers` write it."""
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    sizes = {
        name: hf_config(config.model, manifest.vocab_size, name, manifest.facts.special_tokens)
        for name in configuration.NETWORKS
    }
    dropout = {
        "hidden_dropout_prob": config.model.dropout,
        "attention_probs_dropout_prob": config.model.attention_dropout,
    }
    generator = ElectraForMaskedLM(ElectraConfig(**(sizes["generator"] | dropout))).to(device)
    discriminator = ElectraForPreTraining(ElectraConfig(**(sizes["discriminator"] | dropout))).to(
        device
    )
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.tie_weights()
    both = nn.ModuleList([generator, discriminator]).train()
    optimizer = torch.optim.AdamW(
        both.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay
    )
    rows = batches(full_rows(text, manifest, config.data.row_length), config, device)
    micro = config.train.micro_rows
    accumulation = config.train.global_rows // micro
    mode = config.precision_mode("discriminator")

    def step() -> int:
        optimizer.zero_grad()
        tokens = 0
        for _ in range(accumulation):
            original = next(rows)
            tokens += original.numel()
            with torch.autocast(device.type, DTYPES[mode], enabled=mode != "fp32"):
                loss = (
                    joint_loss(generator, discriminator, original, config, samples) / accumulation
                )
            loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), config.optim.clip_norm)
        optimizer.step()
        return tokens

    return step


def batches(rows: np.ndarray[Any, Any], config: Config, device: torch.device) -> Iterator[Tensor]:
    """Micro-batches of shuffled full rows, for ever."""
    rng = np.random.default_rng(config.train.seed)
    while True:
        order = rng.permutation(len(rows))
        for start in range(0, len(order) - config.train.micro_rows + 1, config.train.micro_rows):
            yield torch.from_numpy(rows[order[start : start + config.train.micro_rows]]).to(device)


def joint_loss(
    generator: nn.Module, discriminator: nn.Module, original: Tensor, config: Config, samples: str
) -> Tensor:
    """ELECTRA's loss on one micro-batch of full rows."""
    inputs, labels = masked(original, config.data.mask_fraction)
    predicted = generator(input_ids=inputs, labels=labels)
    with torch.no_grad():
        at = labels != -100
        if samples == "all":
            corrupted = torch.where(at, gumbel_samples(predicted.logits), original)
        else:
            corrupted = original.masked_scatter(at, gumbel_samples(predicted.logits[at]))
    judged = discriminator(input_ids=corrupted, labels=(corrupted != original).long())
    return (
        config.train.generator_weight * predicted.loss
        + config.train.discriminator_weight * judged.loss
    )


def gumbel_samples(logits: Tensor) -> Tensor:
    """A draw from the softmax over the last dimension, in fp32."""
    logits = logits.float()
    return (logits - torch.log(-torch.log(torch.rand_like(logits).clamp_min(1e-9)))).argmax(-1)


def timed(step: Step, steps: int, device: torch.device) -> float:
    """Real tokens per second over `steps` steps."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    tokens = 0
    for _ in range(steps):
        tokens += step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - start)


def operations_a_token(config: Config, manifest: Manifest) -> float:
    """Floating-point operations that a real token needs, by our formula,
    in the first step of the data.
    """
    with TrainLoader(StepPlan.of(config, 0, 1), RunData.alone(manifest)) as loader:
        step = next(loader)
    squares = sum(squared_lengths(batch) for batch in step.micro_batches)
    return (
        plan.step_flops(config, manifest.vocab_size, step.real_count, squares, step.masked_count)
        / step.real_count
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        required=True,
        help="input files, as for `data build`; `data corpus pydoc` writes some",
    )
    parser.add_argument("--preset", default="small")
    parser.add_argument("--vocab-size", type=int, default=30522, help="default: ELECTRA's own")
    parser.add_argument("--peer-samples", default="masked", choices=("masked", "all"))
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=16, help="rows of a step")
    parser.add_argument(
        "--micro-rows",
        type=int,
        help="of one forward of ours on one rank; default: all that it has",
    )
    parser.add_argument(
        "--peer-micro-rows",
        type=int,
        help="of one forward of the peer; default: all rows of a step",
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="ranks of ours, which share the threads"
    )
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument(
        "--dropout", type=float, default=0.1, help="of both loops; attention dropout included"
    )
    parser.add_argument("--zero-stage", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile our layers")
    parser.add_argument("--steps", type=int, default=4, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def configure(arguments: argparse.Namespace, shards: Path, name: str = OURS) -> Config:
    """The run of one of both loops."""
    if name == OURS:
        processes = arguments.processes
    else:
        processes = 1
    if name == OURS:
        micro_rows = arguments.micro_rows
    else:
        micro_rows = arguments.peer_micro_rows
    tree = {
        "data": {"shards": str(shards), "row_length": arguments.row_length, "streams": processes},
        "model": {
            "preset": arguments.preset,
            "max_positions": max(512, arguments.row_length),
            "dropout": arguments.dropout,
            "attention_dropout": arguments.dropout,
        },
        "train": {
            "steps": 10**6,
            "global_rows": arguments.rows,
            "micro_rows": micro_rows or arguments.rows // processes,
            "device": arguments.device,
            "compile": arguments.compile or None,
        },
        "optim": {"lr": 1e-4, "warmup_steps": 0},
        "zero": {"stage": arguments.zero_stage},
        "precision": {"mode": arguments.precision},
    }
    return configuration.build(tree, "benchmark")


class Loop:
    """One loop in processes of its own, which wait to be told how many steps to train.
    Ends with its `with` block.
    """

    def __init__(self, name: str, arguments: argparse.Namespace, shards: Path) -> None:
        self.name = name
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        if name == OURS:
            count = arguments.processes
        else:
            count = 1
        port = free_port()
        for rank in range(count):
            place = {
                "RANK": rank,
                "WORLD_SIZE": count,
                "LOCAL_RANK": rank,
                "MASTER_ADDR": "localhost",
            }
            variables = {key: str(value) for key, value in (place | {"MASTER_PORT": port}).items()}
            here, there = multiprocessing.Pipe()
            work = (there, name, arguments, shards, variables if count > 1 else {})
            process = multiprocessing.get_context("spawn").Process(target=serve, args=work)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def ask(self, steps: int) -> float:
        """Real tokens per second over `steps` steps;
        of matrix products, operations per second, where it is 0.
        """
        try:
            for pipe in self._pipes:
                pipe.send(steps)
            return sum(float(pipe.recv()) for pipe in self._pipes)
        except (EOFError, BrokenPipeError):
            raise SystemExit(f"a process of {self.name} has ended; its error is above") from None


def serve(
    pipe: Connection,
    name: str,
    arguments: argparse.Namespace,
    shards: Path,
    place: Mapping[str, str],
) -> None:
    """A process of a `Loop`: its rates, of its own tokens."""
    torch.set_num_threads(max(1, arguments.threads // int(place.get("WORLD_SIZE", 1))))
    torch.manual_seed(0)
    config = configure(arguments, shards, name)
    manifest = Manifest.load(shards)
    device = find_device(arguments)
    if name == OURS:
        step = ours(config, manifest, device, place)
    else:
        step = plain_transformers(config, arguments.text, manifest, device, arguments.peer_samples)
    dtype = DTYPES[config.precision_mode("discriminator")]
    with suppress(EOFError):
        while True:
            steps = pipe.recv()
            pipe.send(timed(step, steps, device) if steps else matrix_product_rate(device, dtype))
    close_group()


def find_device(arguments: argparse.Namespace) -> torch.device:
    return torch.device(
        "cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu"
    )


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare both loops on the same text, then time them in turn."""
    train_tokenizer(arguments.text, arguments.vocab_size, folder / "tokenizer")
    build_shards(arguments.text, folder / "tokenizer", folder / "shards", BuildOptions())
    shards = folder / "shards"
    rate_of_products = list[float]()
    rates: dict[str, list[float]] = {OURS: [], PEER: []}
    with Loop(OURS, arguments, shards) as our_loop, Loop(PEER, arguments, shards) as peer_loop:
        loops = (our_loop, peer_loop)
        for loop in loops:
            loop.ask(2)  # warms up
        for number in range(1, arguments.rounds + 1):
            for loop in loops:
                rate = loop.ask(arguments.steps)
                rates[loop.name].append(rate)
                print(
                    f"round {number}/{arguments.rounds}  {loop.name:<14}{rate:>12,.0f} tokens/s",
                    file=sys.stderr,
                )
            rate_of_products.append(our_loop.ask(0))
    return figures(arguments, shards, rates, statistics.median(rate_of_products))


def figures(
    arguments: argparse.Namespace,
    shards: Path,
    rates: dict[str, list[float]],
    rate_of_products: float,
) -> dict[str, Any]:
    """What is printed and written of the rates of all rounds."""
    device = find_device(arguments)
    threads = arguments.threads
    needed = operations_a_token(configure(arguments, shards), Manifest.load(shards))
    possible = rate_of_products / needed
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(rates[OURS], rates[PEER], strict=True)]
    cuda = device.type == "cuda"
    return {
        "machine": torch.cuda.get_device_name()
        if cuda
        else f"{platform.machine()} CPU, {threads} threads",
        "torch": torch.__version__,
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("text", "json")},
        "real_tokens_per_s": medians,
        "mfu": {name: rate / possible for name, rate in medians.items()},
        "matrix_product_rate": rate_of_products,
        "operations_a_token": needed,
        "ratio_of_products_alone": possible / medians[PEER],
        "rates": rates,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    print(
        f"{found['machine']}, {arguments.preset}, {arguments.rows} x {arguments.row_length},"
        f" {arguments.precision}"
    )
    for name, rate in found["real_tokens_per_s"].items():
        print(f"{name:<16}{rate:>12,.0f} real tokens/s    utilisation {found['mfu'][name]:.0%}")
    low = min(found["ratios"])
    high = max(found["ratios"])
    print(
        f"{'ratio':<16}{found['ratio']:>12.2f} (rounds: {low:.2f} to {high:.2f}); of matrix"
        f" products alone: {found['ratio_of_products_alone']:.2f}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
