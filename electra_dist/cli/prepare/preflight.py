"""`electra-dist preflight`: measures the nodes before a run trains on them."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from electra_dist.cli.parsers import Subparsers, add_command, add_config, add_json, print_json
from electra_dist.errors import EXIT_OK


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "preflight",
        _preflight,
        "Measure every node (arithmetic, memory, network, disks, clocks, versions) and name the bad"
        " ones",
        """
        electra-dist preflight configs/base.yaml
        electra-dist preflight configs/base.yaml --bad-nodes bad.txt --json
        srun electra-dist preflight configs/base.yaml          every rank calls it, rank 0 prints

        exit status: 0 all nodes are good, 2 a mistake that the message names, 3 there are bad
        nodes, 74 the file system of the run cannot take it
        """,
    )
    add_config(parser)
    parser.add_argument(
        "--bad-nodes", type=Path, metavar="FILE", help="write the names of the bad nodes here"
    )
    parser.add_argument(
        "--ignore-room",
        action="store_true",
        help="pass when the checkpoints will not fit on the disk",
    )
    add_json(parser)


def _preflight(arguments: argparse.Namespace) -> int:
    from electra_dist import config
    from electra_dist.measure.preflight import preflight, report

    resolved = config.load(arguments.config, arguments.overrides)
    world, verdict = preflight(resolved, dict(os.environ), check_room=not arguments.ignore_room)
    if not world.is_main:
        return EXIT_OK
    if arguments.json:
        print_json(asdict(verdict) | {"bad_nodes": verdict.bad_nodes, "ok": verdict.ok})
    else:
        print(verdict.table(), flush=True)
    return report(verdict, arguments.bad_nodes)
