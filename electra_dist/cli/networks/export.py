"""`electra-dist export`: consolidated weights for `transformers`, ONNX graphs for onnxruntime."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.cli.networks.chosen import add_run_and_step, chosen
from electra_dist.cli.parsers import Subparsers, add_command, add_json, print_json
from electra_dist.errors import UserError

if TYPE_CHECKING:
    from electra_dist.export.folder import FolderReport
    from electra_dist.export.push import PushReport
    from electra_dist.export.report import ExportReport


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "export",
        _export,
        "Write the weights of a run as a Hugging Face model, and check that it computes the same;"
        " write ONNX graphs of a model folder",
        """
        electra-dist export runs/quickstart --out exported
        electra-dist export runs/quickstart --out exported-generator --network generator --step 400
        electra-dist export runs/quickstart@best --out exported-best
        electra-dist export finetuned/sst2 --onnx --int8
        electra-dist export finetuned/sst2 --push jane/electra-sst2 --private
        """,
    )
    add_run_and_step(parser, or_model=True)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="new folder for the model (a model folder can do without: the graphs go into it)",
    )
    parser.add_argument(
        "--network",
        choices=("discriminator", "generator"),
        help="of a run (default: discriminator)",
    )
    parser.add_argument(
        "--positions",
        type=int,
        metavar="N",
        help="tokens of the longest text that the model takes; those beyond a row of the training"
        " are not trained (default: the length of a row)",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="write onnx/model.onnx too, for onnxruntime, transformers.js and"
        " text-embeddings-inference",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="with --onnx: write onnx/model_quantized.onnx too, and measure how often it decides"
        " the same",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="then push what was written to this repository of the Hugging Face hub, with the token"
        " of HF_TOKEN or `hf auth login`",
    )
    parser.add_argument(
        "--private", action="store_true", help="with --push: a new repository is private"
    )
    add_json(parser)


def _export(arguments: argparse.Namespace) -> int:
    from electra_dist.export.push import check_push, push

    if arguments.int8 and not arguments.onnx:
        raise UserError("--int8: is a form of an ONNX graph; give --onnx too")
    if arguments.private and not arguments.push:
        raise UserError("--private: is about the repository of --push; give --push too")
    if arguments.push:
        check_push(arguments.push)  # before the work, not after it

    reports: list[ExportReport | FolderReport | PushReport] = []
    out = arguments.out
    if not _is_model(arguments):
        reports.append(_export_run(arguments))
    elif arguments.onnx or out is not None or not arguments.push:
        reports.append(_export_folder(arguments))
    if arguments.push:
        pushed = push(out or Path(arguments.run_path), arguments.push, arguments.private)
        reports.append(pushed)
    if arguments.json:
        described = [report.to_dict() for report in reports]
        print_json({key: value for one in described for key, value in one.items()})
    else:
        print("\n".join(report.summary() for report in reports))
    return 0


def _is_model(arguments: argparse.Namespace) -> bool:
    """Whether the folder of a model was given, and not a run."""
    return (Path(arguments.run_path) / "config.json").is_file()


def _export_run(arguments: argparse.Namespace) -> ExportReport:
    from electra_dist.export.run import export_run

    if arguments.out is None:
        raise UserError("--out: missing; give a new folder for the model")
    run, step = chosen(arguments)
    return export_run(
        run,
        arguments.out,
        arguments.network or "discriminator",
        step,
        arguments.positions,
        onnx=arguments.onnx,
        int8=arguments.int8,
    )


def _export_folder(arguments: argparse.Namespace) -> FolderReport:
    from electra_dist.export.folder import add_onnx

    for name in ("step", "network", "positions"):
        value = getattr(arguments, name)
        if value is not None:
            raise UserError(
                f"--{name} {value}: chooses from a run, but {arguments.run_path} is the folder of a"
                " model"
            )
    if not arguments.onnx:
        raise UserError(
            f"{arguments.run_path}: is the folder of a model already; give --onnx to write its"
            " graphs, or --push"
        )
    return add_onnx(Path(arguments.run_path), arguments.out, arguments.int8)
