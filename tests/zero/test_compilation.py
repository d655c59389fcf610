"""Compiled layers: as many graphs as there must be, none made anew,
and one message where they cannot be made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from electra_dist import config as configuration
from electra_dist.errors import UserError
from electra_dist.model.encoder import Layer
from electra_dist.model.networks import build_networks
from electra_dist.parallel.world import World
from electra_dist.train.step import evaluate_step, train_step
from electra_dist.zero import compilation, toolchain
from electra_dist.zero.compilation import check_compilation
from tests.support.processes import run_ranks
from tests.support.small import VOCABULARY, make_config, make_engines, make_micro_batch, make_step

WARM_UP, STEPS = 1, 4


def count_graphs(world: Any, backend: str) -> dict[str, int]:
    """Graphs, breaks and recompilations of training and validation,
    after the warm-up with recompilation forbidden.
    """
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
        # other documents in every step
        step, samples = make_step(config, index, world.rank, world.world_size)
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
        # In training and in validation: one for all layers of each network (what was tried first is
        # one of them) and one for what comes before them; embeddings, masked slots, corrupted rows,
        # judgement, totals; and the product that carries the gradient back, in training alone.
        assert found["graphs"] == 2 * (2 + 2 + 5) + 1


def refuse_on_one(world: Any) -> list[str]:
    """What each rank says when the compiler of rank 1 alone is broken."""

    def broken(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("no working compiler\nand a long story")

        return call

    compiler = torch.compile if world.rank == 0 else broken
    config = make_config("train.compile=true")
    networks = build_networks(config, VOCABULARY, "cpu", 1)
    with mock.patch.object(
        torch, "compile", lambda f, **o: f if world.rank == 0 else compiler(f, **o)
    ):
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
        "train.compile = true: the layers of the generator do not compile on this machine:"
        " RuntimeError: no working compiler. Mend that, or train without compilation, slower:"
        " train.compile=false"
    )
    assert everywhere == "True"


def test_a_kernel_that_does_not_run_names_the_key_that_does_without() -> None:
    """Here the kernels do not run at all, so that asking for them
    behind the choice of backends is a failure.
    """
    config = make_config()
    generator, discriminator = build_networks(config, VOCABULARY, "cpu", 1)
    generator.head_backend = "triton"
    with pytest.raises(
        UserError, match=r"fused kernel .* does not run .*model\.generator_head=chunked"
    ):
        check_compilation(config, generator, discriminator, World())
    discriminator.encoder.backend = "triton"
    with (
        mock.patch.object(Layer, "forward", side_effect=RuntimeError("out of shared memory")),
        pytest.raises(
            UserError,
            match=r"model\.attention = triton: .* the discriminator.*: out of shared memory\.",
        ),
    ):
        check_compilation(config, generator, discriminator, World())


def test_a_c_compiler_or_headers_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton's own words are a command that returned a non-zero exit status."""
    (tmp_path / "gcc").touch(mode=0o755)
    (tmp_path / "include").mkdir()
    monkeypatch.setattr(
        toolchain.sysconfig, "get_paths", lambda _: {"include": str(tmp_path / "include")}
    )
    bare, gcc = {"PATH": "/nonexistent"}, {"PATH": str(tmp_path)}
    both = toolchain.missing_for_triton(bare)
    assert both is not None
    for words in (
        "no gcc or clang in PATH (apt-get install gcc, or set CC",
        "no Python.h in",
        "-dev",
        "CPATH",
    ):
        assert words in both
    assert "gcc" not in (toolchain.missing_for_triton(gcc) or "")
    assert "CC = 'icx' is no program here" in (
        toolchain.missing_for_triton(gcc | {"CC": "icx"}) or ""
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "Python.h").touch()
    assert toolchain.missing_for_triton(gcc | {"CPATH": f"/nowhere:{elsewhere}"}) is None

    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    failed = subprocess.CalledProcessError(1, ["gcc", "main.c"])
    with (
        pytest.raises(UserError) as raised,
        compilation._explained(compilation._ABOUT_THE_HEAD, on_cuda=True),
    ):
        raise failed
    start = (
        "the fused kernel of the generator's output layer does not run on this machine: Triton"
        " needs a C compiler and"
    )
    assert str(raised.value).startswith(start)
    assert "apt-get install gcc" in str(raised.value)
    assert "CalledProcessError" in str(raised.value)


def test_a_kernel_without_a_fixed_order_is_said_to_be_that() -> None:
    refused = (
        "f_cuda does not have a deterministic implementation, but you set"
        " 'torch.use_deterministic_algorithms(True)'."
    )
    with (
        pytest.raises(UserError, match=r"^train.deterministic = true: f_cuda has no kernel"),
        compilation._explained(compilation._ABOUT_THE_HEAD, on_cuda=True),
    ):
        raise RuntimeError(refused)


def test_without_a_compiler_the_command_ends_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        configuration.resolved_yaml(make_config("data.streams=1", "train.compile=true"))
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "electra_dist.cli",
            "bench",
            "step",
            str(file),
            "--synthetic",
            "--vocab-size",
            "100",
        ],
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
