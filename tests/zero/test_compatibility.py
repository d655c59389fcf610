"""DeepSpeed is started once per process group, uses that one, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch.distributed as dist

from electra_dist.parallel.group import abort, close_group, open_group
from electra_dist.parallel.world import World
from electra_dist.zero.compatibility import prepare_deepspeed, release_deepspeed

AGAIN = """
from electra_dist.parallel.group import {close}, open_group, close_group
from electra_dist.parallel.world import World
from electra_dist.zero.compatibility import prepare_deepspeed, release_deepspeed

for end in ({close}, close_group):
    open_group(World())
    prepare_deepspeed(World())
    from deepspeed import comm
    from deepspeed.utils import groups

    group = groups._get_data_parallel_group()
    assert comm.get_global_rank(group, 0) == 0
    prepare_deepspeed(World())
    assert groups._get_data_parallel_group() is group, "the second call started it again"
    end()
    {release}
"""


@pytest.mark.parametrize("close", ["close_group", "abort"])
@pytest.mark.parametrize("release", ["release_deepspeed()", "pass"])
def test_deepspeed_uses_the_groups_of_the_second_one(close: str, release: str) -> None:
    """Where the first one was not let go of too."""
    done = subprocess.run(
        [sys.executable, "-c", AGAIN.format(close=close, release=release)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("close", [close_group, abort])
@pytest.mark.parametrize("before", [None, "3"])
def test_the_environment_is_as_it_was(
    close: Any, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate` takes a LOCAL_RANK for a sign of other ranks."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if before is not None:
        monkeypatch.setenv("LOCAL_RANK", before)
    open_group(World())
    prepare_deepspeed(World())
    assert os.environ["LOCAL_RANK"] == "0"
    close()
    release_deepspeed()
    assert os.environ.get("LOCAL_RANK") == before
    assert not dist.is_initialized()


def test_without_a_process_group_deepspeed_is_not_started() -> None:
    assert not dist.is_initialized()
    with pytest.raises(RuntimeError, match="none is open"):
        prepare_deepspeed(World())
    release_deepspeed()


def test_a_start_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    open_group(World())
    try:
        with monkeypatch.context() as broken:
            broken.setitem(sys.modules, "deepspeed.comm.torch", None)
            with pytest.raises(ModuleNotFoundError):
                prepare_deepspeed(World())
            assert "LOCAL_RANK" not in os.environ
        prepare_deepspeed(World())
        assert os.environ["LOCAL_RANK"] == "0"
    finally:
        close_group()
        release_deepspeed()
