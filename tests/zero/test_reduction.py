"""Gradients are reduced as DeepSpeed reduces them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from electra_dist.errors import UserError
from electra_dist.zero import compatibility, reduction
from tests.support.processes import run_ranks

#: Sizes of gradients that are reduced together: divisible or not, fewer than ranks, alone.
SIZES = [[12], [13], [1], [2, 12, 7, 1], [5, 5]]


def largest_differences(world: Any, sizes: list[list[int]]) -> list[float]:
    """From what DeepSpeed gives this rank of the same gradients."""
    from deepspeed.runtime.comm.coalesced_collectives import reduce_scatter_coalesced

    found = []
    for together in sizes:
        rng = torch.Generator().manual_seed(world.rank)
        gradients = [torch.randn(size, 1, generator=rng) for size in together]
        wanted = reduce_scatter_coalesced([gradient.clone() for gradient in gradients])
        got = reduction.reduce_scatter_coalesced(gradients)
        assert [part.shape for part in got] == [part.shape for part in wanted]
        found.append(
            max(
                (float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True) if len(a)),
                default=0.0,
            )
        )
    return found


def test_a_rank_gets_what_deepspeed_gives_it() -> None:
    for found in run_ranks(largest_differences, 3, sizes=SIZES):
        assert max(found) < 1e-6


def test_a_deepspeed_that_would_not_find_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.runtime.zero import stage3

    compatibility.reduce_by_rows.cache_clear()
    monkeypatch.delattr(stage3, "reduce_scatter_coalesced")
    with pytest.raises(UserError, match=r"has no stage3\.reduce_scatter_coalesced"):
        compatibility.reduce_by_rows()
