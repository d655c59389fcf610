"""A process group is opened, closed and opened again in one process, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from electra_dist.parallel.group import abort, initialise, shutdown
from electra_dist.parallel.world import World

AGAIN = """
import torch
from electra_dist.parallel.group import {close}, initialise, shutdown
from electra_dist.parallel.world import World

for end in ({close}, shutdown):
    initialise(World())
    from deepspeed import comm
    from deepspeed.utils import groups

    group = groups._get_data_parallel_group()
    assert comm.get_global_rank(group, 0) == 0
    end()
    assert not torch.distributed.is_initialized()
"""


@pytest.mark.parametrize("close", ["shutdown", "abort"])
def test_deepspeed_uses_the_groups_of_the_second_one(close: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN.format(close=close)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("close", [shutdown, abort])
@pytest.mark.parametrize("before", [None, "3"])
def test_the_environment_is_as_it_was(
    close: object, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate` takes a LOCAL_RANK for a sign of other ranks."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if before is not None:
        monkeypatch.setenv("LOCAL_RANK", before)
    initialise(World())
    assert os.environ["LOCAL_RANK"] == "0"
    assert callable(close)
    close()
    assert os.environ.get("LOCAL_RANK") == before
    assert not dist.is_initialized()
