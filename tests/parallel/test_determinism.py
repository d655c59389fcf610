"""`train.deterministic`: asked of PyTorch while training, and of nobody else."""

from __future__ import annotations

import os

import pytest
import torch

from electra_dist.errors import UserError
from electra_dist.parallel.determinism import determinism, refusals_explained
from electra_dist.train.step import train_step
from tests.support.processes import run_ranks
from tests.support.small import full_parameters, make_config, make_engines, make_step


@pytest.mark.parametrize(
    ("before", "during"), [(None, ":4096:8"), (":16:8", ":16:8"), ("other", ":4096:8")]
)
def test_it_is_asked_for_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, before: str | None, during: str
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if before:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    with determinism(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == during
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with determinism(False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_an_operation_without_a_fixed_order_is_named_and_what_to_do() -> None:
    """`put_` has none on any device; the compiler's errors have it as their cause."""

    def put() -> None:
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1), accumulate=False)

    def compiled() -> None:
        try:
            put()
        except RuntimeError as error:
            raise ValueError("the backend failed") from error

    for attempt in (put, compiled):
        with (
            pytest.raises(UserError, match=r"deterministic = true: put_ has no .*=false") as raised,
            determinism(True),
            refusals_explained(),
        ):
            attempt()
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="something else"), refusals_explained():
        raise ValueError("something else")


def train_both_ways(world: object) -> list[bool]:
    """Whether two steps give the same parameters with determinism as without it, by stage."""
    equal = []
    for stage in (1, 3):
        parameters = []
        for wanted in (True, False):
            config = make_config(
                f"zero.stage={stage}", f"train.deterministic={str(wanted).lower()}"
            )
            with determinism(config.train.deterministic):
                engines = make_engines(config, world)
                for index in range(2):
                    step, samples = make_step(config, index, 0, 1)
                    train_step(engines, step, config, 1.0, samples)
            parameters.append(full_parameters(engines))
            engines.destroy()
        equal.append(
            all(torch.equal(parameters[0][name], parameters[1][name]) for name in parameters[0])
        )
    return equal


def test_a_step_has_no_operation_without_a_fixed_order() -> None:
    assert run_ranks(train_both_ways, 1) == [[True, True]]
