"""What the ONNX graphs of a fine-tuned model cost and change, next to PyTorch.

    python benchmarks/onnx_speed.py --model finetuned/sst2 --input dev.tsv --threads 2

The folder has both graphs (`electra-dist export MODEL --onnx --int8`). The same predictor answers
the same file in each of the three ways, in turn, `--rounds` times; what is reported is the median
of the ratios to PyTorch's time in the same round, and the scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from electra_dist.finetune.model_folder import WEIGHTS
from electra_dist.finetune.predict import open_predictor
from electra_dist.finetune.predictor import TaskPredictor
from electra_dist.finetune.runners.onnx_runner import GRAPH, INT8_GRAPH, Graph

FILES = {"PyTorch": WEIGHTS, "fp32 graph": GRAPH, "int8 graph": INT8_GRAPH}


def measure(model: Path, source: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """One row per way of running the model."""
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    graphs = (None, Graph(threads=threads), Graph(int8=True, threads=threads))
    predictors = [open_predictor(model, cpu, graph=graph) for graph in graphs]
    for predictor in predictors:
        if not isinstance(predictor, TaskPredictor):
            raise SystemExit(f"{model}: is no fine-tuned model")
    items = predictors[0].read(source)
    scores = [predictor.predict_with_scores(items, source)[1] for predictor in predictors]

    seconds: list[list[float]] = []
    for _ in range(rounds):
        took = []
        for predictor in predictors:
            started = time.perf_counter()
            predictor.predict(items)
            took.append(time.perf_counter() - started)
        seconds.append(took)
    return [
        {
            "run by": name,
            "MB": (model / file).stat().st_size / 1e6,
            "items per second": len(items) / statistics.median(took[way] for took in seconds),
            "times as fast": statistics.median(took[0] / took[way] for took in seconds),
            **scores[way],
        }
        for way, (name, file) in enumerate(FILES.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True, help="labelled examples")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    rows = measure(arguments.model, arguments.input, arguments.threads, arguments.rounds)
    print("| " + " | ".join(rows[0]) + " |")
    print("|---|" + "---:|" * (len(rows[0]) - 1))
    for row in rows:
        cells = [f"{value:.4g}" if isinstance(value, float) else value for value in row.values()]
        print("| " + " | ".join(cells) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
