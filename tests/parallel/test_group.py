"""A process group is opened, closed and opened again in one process, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
import torch.distributed as dist
from electra_dist.parallel.group import {close}, open_group, close_group
from electra_dist.parallel.world import World

for end in ({close}, close_group):
    open_group(World())
    assert dist.get_world_size() == 1
    end()
    assert not dist.is_initialized()
assert "deepspeed" not in sys.modules
"""


@pytest.mark.parametrize("close", ["close_group", "abort"])
def test_a_group_is_opened_again_after_it_was_closed(close: str) -> None:
    """Without DeepSpeed: `electra_dist.zero` starts it."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(close=close)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
