"""Real tokens per second: our training step against a plain `transformers` loop, on the same text, in one run.

    python benchmarks/train_speed.py --text corpus --preset small --json speed.json

Ours is the whole path of `electra-dist train` on one process: shards, packing, masks, the two engines, AdamW. The peer
is what a user of `transformers` would write: ElectraForMaskedLM and ElectraForPreTraining with shared embeddings, texts
concatenated and cut into full rows as the library's own examples do, Gumbel sampling (at the masked positions; with
`--peer-samples all` at every one, as where noise is drawn before the positions are chosen), one AdamW, joint clipping.
Both have the same sizes, vocabulary, rows a step, row length, dropout, precision, and threads. Rounds of both
alternate, because machines are noisy; the figure is the median of the ratios of neighbouring rounds.

Printed beside it: the utilisation of both, which is the same count of operations a token (docs/performance.md) over the
rate of a large matrix product, measured in every round; and the ratio that a step of nothing but its matrix products
would reach at that rate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import Config
from electra_dist.data.loader import TrainLoader
from electra_dist.data.manifest import Manifest
from electra_dist.model.huggingface import hf_config
from electra_dist.model.networks import DTYPES, build_networks
from electra_dist.train.distributed import detect, initialise, shutdown
from electra_dist.train.engines import build_engines
from electra_dist.train.hardware import matrix_product_rate
from electra_dist.train.step import train_step
from electra_dist.train.window import squared_lengths

#: Trains one step and returns its real (non-padding) tokens.
Step = Callable[[], int]


def ours(config: Config, manifest: Manifest, device: torch.device) -> Step:
    """Our own step, loader included."""
    world = detect({}, config.train.device, torch.cuda.device_count())
    initialise(world)
    generator, discriminator = build_networks(config, manifest.vocab_size, device, config.train.seed)
    engines = build_engines(config, generator, discriminator, world)
    loader = TrainLoader(config, manifest, 0, 1)

    def step() -> int:
        batch = next(loader)
        train_step(engines, batch, config, 1.0)
        return batch.real_count

    return step


def full_rows(text: list[Path], manifest: Manifest, length: int) -> np.ndarray[Any, Any]:
    """The corpus as the language-modelling examples of `transformers` group it: concatenated, cut, no padding."""
    tokenizer = load_tokenizer(manifest.tokenizer_path)
    documents = [document for part in split_parts(find_inputs(text)) for document in read_documents(part)]
    ends = [SPECIAL_TOKENS.cls], [SPECIAL_TOKENS.sep]
    ids = np.concatenate([np.concatenate([ends[0], ids, ends[1]]) for ids in tokenizer.encode_batch(documents)])
    ids = ids.astype(np.int64)
    return ids[: len(ids) // length * length].reshape(-1, length)


def masked(rows: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """(inputs, labels) by the usual collator: Bernoulli selection, 85% [MASK], the rest kept; -100 where unmasked."""
    chosen = (torch.rand(rows.shape, device=rows.device) < fraction) & (rows > SPECIAL_TOKENS.mask)
    shown = chosen & (torch.rand(rows.shape, device=rows.device) < 0.85)
    return rows.masked_fill(shown, SPECIAL_TOKENS.mask), rows.masked_fill(~chosen, -100)


def plain_transformers(
    config: Config, text: list[Path], manifest: Manifest, device: torch.device, samples: str = "masked"
) -> Step:
    """The peer: a training loop as users of `transformers` write it."""
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    sizes = {name: hf_config(config.model, manifest.vocab_size, name) for name in configuration.NETWORKS}
    dropout = {
        "hidden_dropout_prob": config.model.dropout,
        "attention_probs_dropout_prob": config.model.attention_dropout,
    }
    generator = ElectraForMaskedLM(ElectraConfig(**(sizes["generator"] | dropout))).to(device)
    discriminator = ElectraForPreTraining(ElectraConfig(**(sizes["discriminator"] | dropout))).to(device)
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.tie_weights()
    both = nn.ModuleList([generator, discriminator]).train()
    optimizer = torch.optim.AdamW(both.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    rows, micro = batches(full_rows(text, manifest, config.data.row_length), config, device), config.train.micro_rows
    accumulation = config.train.global_rows // micro
    mode = config.precision_mode("discriminator")

    def step() -> int:
        optimizer.zero_grad()
        tokens = 0
        for _ in range(accumulation):
            original = next(rows)
            tokens += original.numel()
            with torch.autocast(device.type, DTYPES[mode], enabled=mode != "fp32"):
                loss = joint_loss(generator, discriminator, original, config, samples) / accumulation
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
    return config.train.generator_weight * predicted.loss + config.train.discriminator_weight * judged.loss


def gumbel_samples(logits: Tensor) -> Tensor:
    """A draw from the softmax over the last dimension, in fp32."""
    logits = logits.float()
    return (logits - torch.log(-torch.log(torch.rand_like(logits).clamp_min(1e-9)))).argmax(-1)


def timed(step: Step, steps: int, device: torch.device) -> float:
    """Real tokens per second over `steps` steps."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start, tokens = time.perf_counter(), 0
    for _ in range(steps):
        tokens += step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - start)


def operations_a_token(config: Config, manifest: Manifest) -> float:
    """Floating-point operations that a real token needs, by our formula, in the first step of the data."""
    with TrainLoader(config, manifest, 0, 1) as loader:
        step = next(loader)
    squares = sum(squared_lengths(batch) for batch in step.micro_batches)
    return plan.step_flops(config, manifest.vocab_size, step.real_count, squares, step.masked_count) / step.real_count


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", type=Path, required=True, help="input files, as for `data build`")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--vocab-size", type=int, default=30522, help="default: ELECTRA's own")
    parser.add_argument("--peer-samples", default="masked", choices=("masked", "all"))
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=16, help="rows of a step")
    parser.add_argument("--micro-rows", type=int, help="default: all rows at once")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--dropout", type=float, default=0.1, help="of both loops; attention dropout included")
    parser.add_argument("--zero-stage", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile our layers")
    parser.add_argument("--steps", type=int, default=4, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def configure(arguments: argparse.Namespace, shards: Path) -> Config:
    tree = {
        "data": {"shards": str(shards), "row_length": arguments.row_length, "streams": 1},
        "model": {
            "preset": arguments.preset,
            "max_positions": max(512, arguments.row_length),
            "dropout": arguments.dropout,
            "attention_dropout": arguments.dropout,
        },
        "train": {
            "steps": 10**6,
            "global_rows": arguments.rows,
            "micro_rows": arguments.micro_rows or arguments.rows,
            "device": arguments.device,
            "compile": arguments.compile or None,
        },
        "optim": {"lr": 1e-4, "warmup_steps": 0},
        "zero": {"stage": arguments.zero_stage},
        "precision": {"mode": arguments.precision},
    }
    return configuration.build(tree, "benchmark")


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare both loops on the same text, then time them in turn."""
    train_tokenizer(arguments.text, arguments.vocab_size, folder / "tokenizer")
    build_shards(arguments.text, folder / "tokenizer", folder / "shards", BuildOptions())
    config, manifest = configure(arguments, folder / "shards"), Manifest.load(folder / "shards")
    cuda = arguments.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    loops = {
        "electra-dist": ours(config, manifest, device),
        "transformers": plain_transformers(config, arguments.text, manifest, device, arguments.peer_samples),
    }
    rate_of_products: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(arguments.rounds + 1):
        for name, step in loops.items():
            rate = timed(step, 2 if number == 0 else arguments.steps, device)
            if number:  # the first round warms up
                rates[name].append(rate)
                print(f"round {number}/{arguments.rounds}  {name:<14}{rate:>12,.0f} tokens/s", file=sys.stderr)
        rate_of_products.append(matrix_product_rate(device, DTYPES[config.precision_mode("discriminator")]))
    needed = operations_a_token(config, manifest)
    possible = statistics.median(rate_of_products) / needed
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(rates["electra-dist"], rates["transformers"], strict=True)]
    return {
        "machine": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, {arguments.threads} threads",
        "torch": torch.__version__,
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("text", "json")},
        "real_tokens_per_s": medians,
        "mfu": {name: rate / possible for name, rate in medians.items()},
        "matrix_product_rate": statistics.median(rate_of_products),
        "operations_a_token": needed,
        "ratio_of_products_alone": possible / medians["transformers"],
        "rates": rates,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    shutdown()
    print(f"{figures['machine']}, {arguments.preset}, {arguments.rows} x {arguments.row_length}, {arguments.precision}")
    for name, rate in figures["real_tokens_per_s"].items():
        print(f"{name:<16}{rate:>12,.0f} real tokens/s    utilisation {figures['mfu'][name]:.0%}")
    low, high = min(figures["ratios"]), max(figures["ratios"])
    print(
        f"{'ratio':<16}{figures['ratio']:>12.2f} (rounds: {low:.2f} to {high:.2f}); of matrix products alone:"
        f" {figures['ratio_of_products_alone']:.2f}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
