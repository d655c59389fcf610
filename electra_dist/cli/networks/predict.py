"""`electra-dist predict`: what a fine-tuned model, a discriminator or a generator says of texts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_result

if TYPE_CHECKING:
    import torch

    from electra_dist.finetune.labelled import Example
    from electra_dist.finetune.model_folder import ModelFolder
    from electra_dist.finetune.predict import Prediction


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
        """,
        prints=True,
    )
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="folder written by `finetune` or `export`"
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="texts: .txt (one a line), .tsv, .csv, .jsonl with the columns of the training;"
        " default: standard input,"
        " one text a line. Question answering: .json (SQuAD), .jsonl. Where labels are there, the"
        " scores are printed"
        " too",
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
        help="fillings of a [MASK] (default: %(default)s)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: the GPU where there is one"
    )
    add_json(parser)


def _predict(arguments: argparse.Namespace) -> int:
    from electra_dist.errors import UserError
    from electra_dist.files.staging import check_folder_can_be_made
    from electra_dist.files.writing import write_atomically
    from electra_dist.finetune.model_folder import ModelFolder
    from electra_dist.parallel.hardware import device_of_command

    if arguments.count < 1:
        raise UserError(f"--count {arguments.count}: expected 1 or more")
    if arguments.out:
        check_folder_can_be_made(arguments.out)
        if arguments.out.is_dir():
            raise UserError(f"--out {arguments.out}: is a folder; give the name of a file in it")
    folder = ModelFolder.open(arguments.model)
    device = device_of_command(arguments.device)
    predictions, scores = _predictions(folder, arguments.input, device, arguments.count)
    lines = _lines(folder.kind, predictions, arguments.json)
    if arguments.out:
        write_atomically(arguments.out, "".join(line + "\n" for line in lines))
    else:
        for line in lines:
            print_result(line)
    for name, value in scores.items():  # beside the predictions, which a program may read
        print(f"{name} {value:.4f}", file=sys.stderr)
    return 0


def _predictions(
    folder: ModelFolder, path: Path | None, device: torch.device, count: int
) -> tuple[Iterable[Prediction], dict[str, float]]:
    """What this kind of model says, and scores where labels are there."""
    from electra_dist.errors import UserError
    from electra_dist.finetune import predict

    if folder.kind == "question-answering":
        if path is None:
            raise UserError(
                "--input: missing; question answering needs questions with contexts, .json or"
                " .jsonl"
            )
        return predict.predict_answers(folder, path, device)
    examples, source = _read(folder, path)
    return predict.predict_examples(folder, examples, source, device, count)


def _read(folder: ModelFolder, path: Path | None) -> tuple[list[Example], Path]:
    """The examples of the file, or of standard input;
    only text where the model is a pre-trained one.
    """
    from electra_dist.errors import DataError
    from electra_dist.finetune.labelled import examples_of_lines, read_examples
    from electra_dist.finetune.predict import columns_of

    if path is None:
        examples = list(examples_of_lines(sys.stdin))
        if not any(example.text.strip() for example in examples):
            raise DataError("standard input: holds no text; give --input FILE or one text a line")
        return examples, Path("standard input")
    return read_examples(path, columns_of(folder)), path


def _lines(kind: str, predictions: Iterable[Prediction], as_json: bool) -> Iterator[str]:
    """One JSON object a text, or a table with tabs."""
    from electra_dist.finetune.predict import columns

    if not as_json:
        yield "\t".join(columns(kind))
    for prediction in predictions:
        if as_json:
            yield json.dumps(prediction.content, ensure_ascii=False)
        else:
            yield from ("\t".join(cells) for cells in prediction.cells)
