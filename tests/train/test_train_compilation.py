"""Compiled layers: as many graphs as there must be, none made anew, and one message where they cannot be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from processes import run_ranks
from small import VOCABULARY, make_config, make_engines, make_micro_batch, make_step

from electra_dist import config as configuration
from electra_dist.errors import UserError
from electra_dist.model import head
from electra_dist.model.encoder import Layer
from electra_dist.model.networks import build_networks
from electra_dist.train.compilation import check_compilation
from electra_dist.train.distributed import World
from electra_dist.train.step import evaluate_step, train_step

WARM_UP, STEPS = 1, 4


def count_graphs(world: Any, backend: str) -> dict[str, int]:
    """Graphs, breaks and recompilations of training and validation, after the warm-up with recompilation forbidden."""
    from torch._dynamo.utils import counters

    counters.clear()
    compiler = torch.compile
    with mock.patch.object(
        torch, "compile", lambda function, **options: compiler(function, backend=backend, **options)
    ):
        config = make_config("train.compile=true")
        engines = make_engines(config, world)
    for index in range(STEPS):
        if index == WARM_UP:
            warm = counters["stats"]["unique_graphs"]
            torch._dynamo.config.error_on_recompile = True
        step, samples = make_step(config, index, world.rank, world.world_size)  # other documents in every step
        train_step(engines, step, config, 1.0, samples)
        evaluate_step(engines, make_micro_batch([index, index + 1])[0], config)
    return {
        "warm": warm,
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
    }


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.full)])
def test_two_zero_3_engines_compile_once_without_a_graph_break(backend: str) -> None:
    for found in run_ranks(count_graphs, 2, backend=backend, timeout=400):
        assert found["breaks"] == 0
        assert found["graphs"] == found["warm"]
        # Two networks, training and validation: one for all layers of each. What was tried first is one of them.
        assert found["graphs"] == 4


def refuse_on_one(world: Any) -> list[str]:
    """What each rank says when the compiler of rank 1 alone is broken."""

    def broken(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("no working compiler\nand a long story")

        return call

    compiler = torch.compile if world.rank == 0 else broken
    config = make_config("train.compile=true")
    networks = build_networks(config, VOCABULARY, "cpu", 1)
    with mock.patch.object(torch, "compile", lambda f, **o: f if world.rank == 0 else compiler(f, **o)):
        try:
            check_compilation(config, *networks, world)
        except UserError as error:
            return [str(error), str(error.everywhere)]
    return []


def test_a_rank_that_cannot_compile_stops_all_of_them_before_the_first_step() -> None:
    ranks = run_ranks(refuse_on_one, 2)
    assert ranks[0] == ranks[1]
    message, everywhere = ranks[0]
    assert message.startswith(
        "train.compile = true: the layers of the generator do not compile on this machine: RuntimeError: no working"
        " compiler. Mend that, or train without compilation, slower: train.compile=false"
    )
    assert everywhere == "True"


def test_a_kernel_that_does_not_run_names_the_key_that_does_without() -> None:
    """Here the kernels do not run at all, so that asking for them behind the choice of backends is a failure."""
    config = make_config()
    generator, discriminator = build_networks(config, VOCABULARY, "cpu", 1)
    with (
        mock.patch.object(head, "choose_backend", return_value="triton"),
        pytest.raises(UserError, match=r"fused kernel .* does not run .*model\.generator_head=chunked"),
    ):
        check_compilation(config, generator, discriminator, World())
    discriminator.encoder.backend = "triton"
    with (
        mock.patch.object(Layer, "forward", side_effect=RuntimeError("out of shared memory")),
        pytest.raises(UserError, match=r"model\.attention = triton: .* the discriminator.*: out of shared memory\."),
    ):
        check_compilation(config, generator, discriminator, World())


def test_without_a_compiler_the_command_ends_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(configuration.resolved_yaml(make_config("data.streams=1", "train.compile=true")))
    done = subprocess.run(
        [sys.executable, "-m", "electra_dist.cli", "bench", "step", str(file), "--synthetic", "--vocab-size", "100"],
        env=os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    for words in ("train.compile = true", "C++ compiler", "/nonexistent", "train.compile=false"):
        assert words in line


def test_the_check_leaves_the_random_state_and_the_networks_alone() -> None:
    config = make_config("train.compile=true", "model.dropout=0.1")
    networks = build_networks(config, VOCABULARY, "cpu", 1)
    before = [parameter.clone() for network in networks for parameter in network.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with mock.patch.object(torch, "compile", lambda function, **_: function):
        check_compilation(config, *networks, World())
    assert torch.equal(torch.rand(3), expected)
    after = [parameter for network in networks for parameter in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in after)
