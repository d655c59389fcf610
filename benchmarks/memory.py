"""Peak tensor memory: our training step against a plain `transformers` loop, and against what
`plan` predicts.

    electra-dist data corpus pydoc --out corpus        # or any other text
    python benchmarks/memory.py --text corpus --preset small --json memory.json

Live tensor memory above the baseline after imports, weights and optimizer included, over the first
two steps of 64 rows x 128; every allocation is counted, temporaries of the backward included
(electra_dist.measure.tensor_memory). Both loops are those of `train_speed.py`: same sizes, text,
vocabulary, rows, dropout and precision. On CUDA the allocator's own peak is taken.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from train_speed import Step, configure, ours, plain_transformers

from data_tools.build import BuildOptions, build_shards
from data_tools.tokenizer import train_tokenizer
from electra_dist import plan
from electra_dist.config import Config
from electra_dist.data.shards.manifest import Manifest
from electra_dist.measure.bench import device_name
from electra_dist.measure.tensor_memory import Held, TensorMemory
from electra_dist.parallel.group import close_group

STEPS = 2


def peak(make: Callable[[], Step], device: torch.device) -> tuple[int, list[Held]]:
    """Peak bytes of making a loop and training `STEPS` steps with it,
    and what holds most of them.
    """
    gc.collect()
    with TensorMemory(device) as memory:
        step = make()
        for _ in range(STEPS):
            step()
    return memory.peak_bytes, memory.largest()


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
    parser.add_argument("--row-length", type=int, default=128)
    parser.add_argument("--rows", type=int, default=64, help="rows of a step, all at once")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument(
        "--dropout", type=float, default=0.1, help="of both loops; attention dropout included"
    )
    parser.add_argument("--zero-stage", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="ours: compile each layer")
    parser.add_argument(
        "--checkpointing", action="store_true", help="ours: recompute each layer in backward"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--no-peer", action="store_true", help="ours only")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    arguments.micro_rows = None
    arguments.processes = 1
    return arguments


def with_checkpointing(config: Config) -> Config:
    train = config.train.model_copy(update={"activation_checkpointing": True})
    return config.model_copy(update={"train": train})


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    train_tokenizer(arguments.text, arguments.vocab_size, folder / "tokenizer")
    build_shards(arguments.text, folder / "tokenizer", folder / "shards", BuildOptions())
    config = configure(arguments, folder / "shards")
    manifest = Manifest.load(folder / "shards")
    cuda = arguments.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    if arguments.checkpointing:
        mine = with_checkpointing(config)
    else:
        mine = config
    loops = {"electra-dist": lambda: ours(mine, manifest, device)}
    if not arguments.no_peer:
        loops["transformers"] = lambda: plain_transformers(config, arguments.text, manifest, device)
    measured = {name: peak(make, device) for name, make in loops.items()}
    predicted = plan.plan_memory(mine, manifest.vocab_size, 1, "cuda" if cuda else "cpu")
    peaks = {name: bytes_ for name, (bytes_, _) in measured.items()}
    return {
        "machine": device_name(device),
        "torch": torch.__version__,
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("text", "json")},
        "peak_bytes": peaks,
        "ratio": peaks["electra-dist"] / peaks["transformers"] if "transformers" in peaks else None,
        "predicted_bytes": predicted.peak,
        "predicted": predicted.to_dict(),
        "held_at_peak": {name: [h._asdict() for h in held] for name, (_, held) in measured.items()},
    }


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    close_group()
    print(
        f"{figures['machine']}, {arguments.preset}, {arguments.rows} x {arguments.row_length},"
        f" {arguments.precision}"
    )
    for name, bytes_ in figures["peak_bytes"].items():
        print(f"{name:<16}{bytes_ / 1e6:>10,.1f} MB")
        for held in figures["held_at_peak"][name][:8]:
            print(
                f"    {held['bytes'] / 1e6:>10,.1f}  {held['tensors']:>5} x  {held['operations']}"
            )
    off = figures["predicted_bytes"] / figures["peak_bytes"]["electra-dist"] - 1
    print(f"{'predicted':<16}{figures['predicted_bytes'] / 1e6:>10,.1f} MB ({off:+.1%})")
    if figures["ratio"]:
        print(f"{'ratio':<16}{figures['ratio']:>10.2f}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps(figures, indent=2, default=str) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
