"""`electra-dist serve`: a model as a server that other programs and a browser ask."""

from __future__ import annotations

import argparse
from pathlib import Path

from electra_dist.cli.networks.predict import add_graph
from electra_dist.cli.parsers import Subparsers, add_command


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "serve",
        _serve,
        "Answer over HTTP with any model that `predict` reads; requests share batches",
        """
        electra-dist serve finetuned/sst2
        electra-dist serve finetuned/sst2 --port 8080 --batch 64 --wait-ms 5
        electra-dist serve finetuned/seed-1 finetuned/seed-2 finetuned/seed-3
        electra-dist serve finetuned/sst2 --onnx --int8
        electra-dist serve exported/discriminator --suspects
        TOKEN=secret electra-dist serve exported/discriminator --host 0.0.0.0 --token-env TOKEN
        """,
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        type=Path,
        nargs="+",
        help="folder written by `finetune` or `export`; several answer together, as an ensemble",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; any but the default lets other machines in (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="0: a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--token-env",
        metavar="NAME",
        help="environment variable with the bearer token that clients must send",
    )
    _add_model(parser)
    _add_batches(parser)
    _add_limits(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """What answers, and on what."""
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: the GPU where there is one"
    )
    add_graph(parser)
    parser.add_argument(
        "--suspects",
        action="store_true",
        help="a discriminator marks the words of a text that do not belong",
    )
    parser.add_argument(
        "--generator",
        type=Path,
        metavar="DIR",
        help="with --suspects: it suggests other words (default: the one of the same export)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="copies of the model that answer side by side (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of the CPU for each worker (default: the cores but one, shared)",
    )


def _add_batches(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("batches")
    group.add_argument(
        "--batch",
        type=int,
        default=32,
        metavar="N",
        help="most inputs that the model answers at a time (default: %(default)s)",
    )
    group.add_argument(
        "--wait-ms",
        type=float,
        default=2.0,
        metavar="MS",
        help="how long an input waits for others to share its batch (default: %(default)s)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    numbers = (
        ("--queue", 1024, "inputs that may wait for the model; more get status 503"),
        ("--max-bytes", 1 << 20, "of a request's body; more get status 413"),
        ("--max-inputs", 128, "inputs of a request; more get status 422"),
        ("--max-characters", 20_000, "of all texts of an input; more get status 422"),
    )
    for name, default, meaning in numbers:
        group.add_argument(
            name, type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)"
        )
    group.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="for a request; then it gets status 504 (default: %(default)s)",
    )


def _serve(arguments: argparse.Namespace) -> int:
    from electra_dist.serve.server import serve, token_of
    from electra_dist.serve.settings import Limits, Settings

    limits = Limits(
        bytes=arguments.max_bytes,
        inputs=arguments.max_inputs,
        characters=arguments.max_characters,
        waiting=arguments.queue,
        timeout_seconds=arguments.timeout,
    )
    settings = Settings(
        folders=tuple(arguments.folders),
        host=arguments.host,
        port=arguments.port,
        device=arguments.device,
        batch=arguments.batch,
        wait_seconds=arguments.wait_ms / 1000,
        workers=arguments.workers,
        threads=arguments.threads,
        onnx=arguments.onnx,
        int8=arguments.int8,
        suspects=arguments.suspects,
        generator=arguments.generator,
        token=token_of(arguments.token_env),
        limits=limits,
    )
    return serve(settings)
