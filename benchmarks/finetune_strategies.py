"""What each strategy of fine-tuning changes: the median over seeds, next to the default.

    python benchmarks/finetune_strategies.py --model runs/quickstart/export/discriminator \
        --train train.tsv --dev dev.tsv --examples 6920 --held-out 872 --batch 32 --seeds 5

Every strategy trains the same seeds on the same first examples and differs from the default in what
its name says. The scores are held-out accuracies. Early stopping chooses its epoch, and the greedy
soup its members, on the same examples: both are a little too high. `--json` is written after each
strategy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from electra_dist.finetune.run import Settings, finetune

#: Name -> what it changes of the recipe.
STRATEGIES: dict[str, dict[str, Any]] = {
    "default": {},
    "dropout 0": {"dropout": 0.0},
    "layer decay 1 (none)": {"layer_decay": 1.0},
    "schedule cosine": {"schedule": "cosine"},
    "schedule constant": {"schedule": "constant"},
    "freeze embeddings": {"freeze": 0},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "class weights balanced": {"class_weights": "balanced"},
    "weight decay 0.1": {"weight_decay": 0.1},
    "patience 1, best epoch": {"patience": 1},
}
#: Trains the default with one head for all seeds; its rows are the ensemble and the soups too.
ENSEMBLE = "one head for all seeds"


def first_lines(path: Path, count: int, out: Path) -> Path:
    """The header and the first `count` examples."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text("".join(lines[: count + 1]), encoding="utf-8")
    return out


def row(what: str, scores: list[float]) -> dict[str, Any]:
    return {
        "what": what,
        "median": statistics.median(scores),
        "min": min(scores),
        "max": max(scores),
    }


def measured(what: str, settings: Settings) -> list[dict[str, Any]]:
    """The rows of one strategy."""
    report = finetune(settings)
    rows = [row(what, [scores["accuracy"] for scores in report.seeds.values()])]
    for name, scores in report.together.items():
        rows.append(row(name, [scores["accuracy"]]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder written by `electra-dist export`"
    )
    parser.add_argument("--train", type=Path, required=True, help="a .tsv of `text` and `label`")
    parser.add_argument("--dev", type=Path, required=True, help="the same, held out")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=(*STRATEGIES, ENSEMBLE))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train = first_lines(options.train, options.examples, folder / "train.tsv")
        dev = first_lines(options.dev, options.held_out, folder / "dev.tsv")
        common = {
            "lr": options.lr,
            "epochs": options.epochs,
            "batch": options.batch,
            "max_length": options.max_length,
        }
        for number, what in enumerate(options.only or (*STRATEGIES, ENSEMBLE)):
            settings = Settings(
                model=options.model,
                train=train,
                dev=dev,
                out=folder / str(number),
                recipe=common | STRATEGIES.get(what, {}),
                seeds=tuple(range(1, options.seeds + 1)),
                device="cpu",
                ensemble=what == ENSEMBLE,
            )
            rows += measured(what, settings)
            if options.json:
                options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    print(f"\n{'accuracy, held out':28}{'median':>8}{'min':>8}{'max':>8}")
    for one in rows:
        print(f"{one['what']:28}{one['median']:8.3f}{one['min']:8.3f}{one['max']:8.3f}")


if __name__ == "__main__":
    main()
