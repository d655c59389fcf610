"""`electra-dist predict`: what a fine-tuned model, a discriminator or a generator says of texts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.cli.networks import prompts, suspects
from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_result

if TYPE_CHECKING:
    from electra_dist.finetune.predictor import Prediction, Predictor
    from electra_dist.finetune.runners.onnx_runner import Graph


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "predict",
        _predict,
        "Say what a model makes of texts: the fine-tuned task, replaced tokens, or fillings of"
        " [MASK]",
        """
        electra-dist predict finetuned/sst2 --input reviews.txt
        electra-dist predict finetuned/sst2 --input test.tsv --out predicted.tsv
        echo "The cat [MASK] on the mat." | electra-dist predict exported/generator
        electra-dist predict exported/discriminator --input suspicious.txt --json
        electra-dist predict finetuned/squad --input questions.jsonl
        electra-dist predict finetuned/sst2 --input reviews.txt --onnx --int8 --threads 2
        electra-dist predict three/seed-1 three/seed-2 three/seed-3 --input test.tsv
        """,
        prints=True,
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        type=Path,
        help="folder written by `finetune` or `export`; several fine-tuned for the same task answer"
        " together",
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="texts: .txt (one a line), .tsv, .csv, .jsonl with the columns of the training;"
        " default: standard input,"
        " one text a line. Question answering: .json (SQuAD), .jsonl. Words: .conll, .jsonl."
        " Ranking: .jsonl, a folder in MIND's format. Where labels are there, the scores are"
        " printed too",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the predictions here instead of printing them",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=5,
        metavar="N",
        help="fillings of a [MASK], or suggestions per suspect (default: %(default)s)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: the GPU where there is one"
    )
    add_graph(parser)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="with --onnx (default: one per core)"
    )
    add_json(parser)
    suspects.add_options(parser)
    prompts.add_options(parser)


def add_graph(parser: argparse.ArgumentParser) -> None:
    """`--onnx` and what goes with it."""
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="run the graph that `export --onnx` wrote, by onnxruntime on the CPU",
    )
    parser.add_argument("--int8", action="store_true", help="with --onnx: the quantised graph")


def _predict(arguments: argparse.Namespace) -> int:
    from electra_dist.errors import UserError
    from electra_dist.files.staging import check_folder_can_be_made
    from electra_dist.files.writing import write_atomically
    from electra_dist.finetune.seeds.ensemble import open_models
    from electra_dist.parallel.hardware import device_of_command

    if arguments.count < 1:
        raise UserError(f"--count {arguments.count}: expected 1 or more")
    if arguments.out:
        check_folder_can_be_made(arguments.out)
        if arguments.out.is_dir():
            raise UserError(f"--out {arguments.out}: is a folder; give the name of a file in it")
    if suspects.wanted(arguments):
        return suspects.run(arguments)
    graph = _graph(arguments)
    device = device_of_command(arguments.device)
    if prompts.wanted(arguments):
        predictor = prompts.open_prompted(arguments, device)
    else:
        predictor = open_models(arguments.models, device, arguments.count, graph)
    source, items = _read(predictor, arguments.input)
    predictions, scores = predictor.predict_with_scores(items, source)
    lines = _lines(predictor.header, predictions, arguments.json)
    if arguments.out:
        write_atomically(arguments.out, "".join(line + "\n" for line in lines))
    else:
        for line in lines:
            print_result(line)
    for name, value in scores.items():  # beside the predictions, which a program may read
        print(f"{name} {value:.4f}", file=sys.stderr)
    return 0


def _graph(arguments: argparse.Namespace) -> Graph | None:
    """The graph to run; None for PyTorch."""
    from electra_dist.errors import UserError
    from electra_dist.finetune.runners.onnx_runner import Graph

    if arguments.onnx:
        if arguments.device == "cuda":
            raise UserError("--device cuda: with --onnx, the model runs on the CPU; leave it out")
        return Graph(arguments.int8, arguments.threads)
    if arguments.int8 or arguments.threads is not None:
        raise UserError("--int8, --threads: are about a graph; give --onnx too")
    return None


def _read(predictor: Predictor, path: Path | None) -> tuple[Path, list[Any]]:
    """Where the items come from, and the items; lines of standard input are one text each."""
    from electra_dist.errors import DataError, UserError

    if path is not None:
        return path, predictor.read(path)
    source = Path("standard input")
    if len(predictor.fields) > 1:
        raise UserError(
            f"--input: missing; {predictor.kind} needs a file with {', '.join(predictor.fields)}"
        )
    (field,) = predictor.fields
    # Blank lines too, so that answers and lines keep step.
    lines = [line.rstrip("\r\n") for line in sys.stdin]
    if not any(line.strip() for line in lines):
        raise DataError(f"{source}: holds no text; give --input FILE or one text a line")
    return source, [
        predictor.item({field: line}, f"{source}, line {number}")
        for number, line in enumerate(lines, 1)
    ]


def _lines(
    header: tuple[str, ...], predictions: Iterable[Prediction], as_json: bool
) -> Iterator[str]:
    """One JSON object a text, or a table with tabs."""
    if not as_json:
        yield "\t".join(header)
    for prediction in predictions:
        if as_json:
            yield json.dumps(prediction.content, ensure_ascii=False)
        else:
            yield from ("\t".join(cells) for cells in prediction.cells)
