"""Runs a function on several gloo processes, with a time limit, so that no test can hang.

`run_ranks(function, world_size, ...)` calls `function(world, **arguments)` on every rank with the
process group open, and gives back what each returned (JSON). The processes are forked from a server
that has torch and DeepSpeed imported already, which saves several seconds a start. `function` is a
plain function at the top of any file.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from launcher.local import free_port

_PRELOADED = ["torch", "deepspeed", "safetensors.torch", "electra_dist.config"]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOADED)


class Ended(NamedTuple):
    """How one rank ended: exit code (negative:
    signal), what the function returned, its traceback.
    """

    code: int | None
    result: Any
    error: str


def end_ranks(
    function: Callable[..., Any],
    world_size: int,
    *,
    timeout: float = 120,
    meet: bool = True,
    **arguments: Any,
) -> list[Ended]:
    """Run to the end, whatever the end is; what still runs after `timeout` seconds is killed (code
    None).

    Without `meet` the process group is left for the function to open, and its `world` is None.
    """
    target = (function.__code__.co_filename, function.__qualname__, json.dumps(arguments), meet)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        processes = [
            _context.Process(target=_rank, args=(rank, world_size, port, folder, *target))
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + timeout
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [process.is_alive() for process in processes]
        for process in processes:
            process.kill()
            process.join()
        return [
            Ended(
                None if late[rank] else process.exitcode,
                json.loads(_read(Path(folder) / f"{rank}.json") or "null"),
                _read(Path(folder) / f"{rank}.txt"),
            )
            for rank, process in enumerate(processes)
        ]


def run_ranks(
    function: Callable[..., Any],
    world_size: int,
    *,
    timeout: float = 120,
    meet: bool = True,
    **arguments: Any,
) -> list[Any]:
    """What each rank returned; fails when any of them did not end well."""
    ended = end_ranks(function, world_size, timeout=timeout, meet=meet, **arguments)
    bad = [
        f"rank {rank}: exit code {end.code}\n{end.error}"
        for rank, end in enumerate(ended)
        if end.code != 0
    ]
    assert not bad, "\n".join(bad)
    return [end.result for end in ended]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _load(file: str, name: str) -> Callable[..., Any]:
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"ranks_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def _rank(
    rank: int,
    world_size: int,
    port: int,
    folder: str,
    file: str,
    name: str,
    arguments: str,
    meet: bool,
) -> None:
    from electra_dist.parallel.group import open_group
    from electra_dist.parallel.world import detect
    from electra_dist.zero.compatibility import prepare_deepspeed

    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DS_ACCELERATOR="cpu",
    )
    import torch

    torch.set_num_threads(1)
    try:
        world = None
        if meet:
            world = detect(os.environ, "cpu")
            open_group(world, timedelta(seconds=60))
            prepare_deepspeed(world)
        result = _load(file, name)(world, **json.loads(arguments))
        Path(folder, f"{rank}.json").write_text(json.dumps(result))
    except BaseException:
        Path(folder, f"{rank}.txt").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)
