"""`electra-dist preflight`: measures the nodes before a run trains on them."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from electra_dist.commands.parsers import Subparsers, add_command, add_config, add_json, print_json
from electra_dist.errors import EXIT_BAD_NODES, EXIT_OK


def add(subparsers: Subparsers) -> None:
    """Register the subcommand."""
    parser = add_command(
        subparsers,
        "preflight",
        _preflight,
        "Measure every node (arithmetic, memory, network, disks, clocks, versions) and name the bad ones",
        """
        electra-dist preflight configs/base.yaml
        electra-dist preflight configs/base.yaml --bad-nodes bad.txt --json
        srun electra-dist preflight configs/base.yaml          every rank calls it, rank 0 prints

        exit status: 0 all nodes are good, 2 a mistake that the message names, 3 there are bad nodes
        """,
    )
    add_config(parser)
    parser.add_argument("--bad-nodes", type=Path, metavar="FILE", help="write the names of the bad nodes here")
    add_json(parser)


def _preflight(arguments: argparse.Namespace) -> int:
    from electra_dist import config
    from electra_dist.preflight import preflight

    world, verdict = preflight(config.load(arguments.config, arguments.overrides), dict(os.environ))
    if world.is_main:
        if arguments.json:
            print_json(asdict(verdict) | {"bad_nodes": verdict.bad_nodes, "ok": verdict.ok})
        else:
            print(verdict.table(), flush=True)
        if arguments.bad_nodes:
            arguments.bad_nodes.write_text("".join(f"{node}\n" for node in verdict.bad_nodes))
    return EXIT_OK if verdict.ok else EXIT_BAD_NODES
