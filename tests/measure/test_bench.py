"""`bench step`: measured memory against allocations done by hand and against the plan;
what the command prints.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from electra_dist import config as configuration
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.cli.prepare import bench as command
from electra_dist.config import Config
from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.measure import bench
from electra_dist.measure.synthetic import synthetic_steps
from electra_dist.measure.tensor_memory import TensorMemory
from electra_dist.parallel import group
from electra_dist.parallel.group import close_group, open_group
from electra_dist.parallel.world import World

VOCABULARY = 16384
CPU = torch.device("cpu")


def make(preset: str, *overrides: str, rows: int = 64, length: int = 128) -> Config:
    tree: dict[str, Any] = {
        "data": {"shards": "nowhere", "row_length": length, "streams": 1},
        "model": {"preset": preset},
        "train": {"steps": 100, "global_rows": rows, "micro_rows": rows, "device": "cpu"},
        "optim": {"warmup_steps": 0},
        "precision": {"mode": "fp32"},
    }
    return configuration.build(configuration.apply_overrides(tree, overrides), "test")


@pytest.fixture(scope="module")
def alone() -> Iterator[World]:
    """A group of one process; DeepSpeed can open one only once in a process,
    so that the command joins it as well.
    """
    world = World()
    open_group(world)
    yield world
    close_group()


# --- measuring ------------------------------------------------------------------------------------


def test_the_peak_counts_what_is_alive_at_once_and_not_what_came_before() -> None:
    before = torch.zeros(2**20)
    with TensorMemory(CPU) as memory:
        kept = torch.ones(2**18)  # 1 MiB
        for _ in range(3):
            # 2 MiB, one at a time but for the moment of its replacement
            temporary = torch.ones(2**19)
        del before, temporary
        small = kept + 1
    assert memory.peak_bytes == pytest.approx(2**20 + 2 * 2**21, rel=1e-3)
    assert small.numel() == kept.numel()


def test_the_peak_knows_what_another_thread_let_go() -> None:
    with TensorMemory(CPU) as memory:
        # sizes differ: no address is used twice
        for elements in (
            2**18,
            2**18 + 2**12,
            2**18 + 2**13,
        ):
            last = [torch.ones(elements)]
            # as a thread of gloo may be the last to hold what it sent
            thread = threading.Thread(target=last.clear)
            thread.start()
            thread.join()
    assert memory.peak_bytes == 4 * (2**18 + 2**13)


def test_the_peak_sees_temporaries_of_the_backward() -> None:
    weight = torch.randn(64, 64, requires_grad=True)
    inputs = torch.randn(4096, 64)
    with TensorMemory(CPU) as memory:
        (inputs @ weight).exp().sum().backward()
    one = 4096 * 64 * 4
    # exp's output is kept; expanding the gradient is free, exp's backward makes one more, and the
    # product's output died in the forward, while both it and exp's output were alive.
    assert memory.peak_bytes == pytest.approx(2 * one, rel=0.05)
    assert any("exp" in held.operations or "mul" in held.operations for held in memory.largest())


# --- prediction -----------------------------------------------------------------------------------

#: ((preset, overrides), in the core set); the issue asks for 15%,
#: the formula is exact to some per cent.
_PREDICTED = [
    pytest.param("tiny", ("zero.stage=3",), id="tiny, stage 3"),
    *(
        pytest.param(
            preset, overrides, id=f"{preset}, {' '.join(overrides)}", marks=pytest.mark.full
        )
        for preset, overrides in (
            ("tiny", ("zero.stage=0",)),
            ("tiny", ("zero.stage=2", "precision.mode=bf16")),
            ("tiny", ("zero.stage=1", "precision.mode=bf16")),
            ("tiny", ("zero.stage=1", "model.dropout=0.1", "model.attention_dropout=0.1")),
            ("tiny", ("zero.stage=1", "model.embedding_sharing=disentangled")),
            ("tiny", ("zero.stage=1", "train.activation_checkpointing=true")),
            ("small", ("zero.stage=3",)),
            ("small", ("zero.stage=1", "model.dropout=0.1", "model.attention_dropout=0.1")),
        )
    ),
]


@pytest.mark.parametrize(("preset", "overrides"), _PREDICTED)
def test_the_planned_peak_is_the_measured_one(
    alone: World, preset: str, overrides: tuple[str, ...]
) -> None:
    config = make(preset, *overrides)
    figures = bench.measure_steps(
        config, VOCABULARY, synthetic_steps(config, VOCABULARY, 50), alone, 1
    )
    assert figures.predicted_bytes == pytest.approx(figures.peak_memory_bytes, rel=0.15)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_planned_peak_holds_where_weights_weigh_more_than_activations(
    alone: World, stage: int
) -> None:
    config = make("tiny", f"zero.stage={stage}", rows=2, length=16)
    figures = bench.measure_steps(config, VOCABULARY, synthetic_steps(config, VOCABULARY), alone, 1)
    assert figures.predicted_bytes == pytest.approx(figures.peak_memory_bytes, rel=0.3)


# --- the command ----------------------------------------------------------------------------------


def run_command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    arguments = parser.parse_args(["bench", "step", *words])
    return int(arguments.run(arguments))


@pytest.fixture
def joined(alone: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "open_group", lambda world: None)
    monkeypatch.setattr(group, "close_group", lambda: None)


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(configuration.resolved_yaml(make("tiny", rows=4, length=32)))
    return str(path)


@pytest.mark.usefixtures("joined")
def test_json_has_speed_utilisation_memory_and_backends(
    config_file: str, tmp_path: Path, capsys: Any
) -> None:
    profile = tmp_path / "profile"
    words = (
        "--synthetic",
        "--vocab-size",
        "500",
        "--steps",
        "2",
        "--profile",
        str(profile),
        "--json",
    )
    assert run_command(config_file, *words) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["real_tokens_per_s"] == pytest.approx(4 * 32 / content["step_seconds"])
    assert 0 < content["mfu"] < 1
    # two moments and more of the discriminator's parameters
    assert content["peak_memory_bytes"] > 10 * 611_457
    assert content["attention"] == {"generator": "sdpa", "discriminator": "sdpa"}
    assert content["head"] == "chunked"
    trace = json.loads((profile / bench.TRACE_FILE).read_text())
    assert any("aten::mm" in str(event.get("name")) for event in trace["traceEvents"])
    assert "aten::mm" in (profile / bench.OPERATIONS_FILE).read_text()


@pytest.mark.usefixtures("joined")
def test_real_shards_are_measured_as_they_are(
    config_file: str, tiny_shards: Path, capsys: Any
) -> None:
    assert run_command(config_file, f"data.shards={tiny_shards}", "--steps", "1") == 0
    out = capsys.readouterr().out
    assert "real tokens/s" in out
    assert "memory at the peak" in out


def test_missing_shards_say_how_to_do_without(config_file: str) -> None:
    with pytest.raises(DataError, match="--synthetic"):
        run_command(config_file)


def test_several_ranks_are_refused(config_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }
    for name, value in torchrun.items():
        monkeypatch.setitem(os.environ, name, value)
    with pytest.raises(UserError, match="one of 2 ranks"):
        run_command(config_file, "--synthetic")


@pytest.mark.usefixtures("joined")
def test_a_backend_that_cannot_run_is_refused_before_anything_is_measured(config_file: str) -> None:
    with pytest.raises(UserError, match="varlen: it needs a CUDA device"):
        run_command(config_file, "model.attention=varlen", "--synthetic")


# --- synthetic steps ------------------------------------------------------------------------------


def test_synthetic_rows_are_full_of_documents_of_the_length_asked_for() -> None:
    config = make("tiny", rows=3, length=32)
    batch = next(synthetic_steps(config, 500, 10)).micro_batches[0]
    assert np.unique(batch.documents).tolist() == [0, 1, 2, 3]
    assert np.bincount(batch.documents[0]).tolist() == [10, 10, 10, 2]
    assert (batch.tokens[:, [0, 10, 20, 30]] == SPECIAL_TOKENS.cls).all()
    assert (batch.tokens[:, [9, 19, 29, 31]] == SPECIAL_TOKENS.sep).all()
    assert batch.tokens.max() < 500


def test_a_configuration_for_several_ranks_only_is_refused(alone: World) -> None:
    config = make("tiny", rows=4)
    with pytest.raises(UserError, match="2 ranks"):
        bench.measure_steps(config, 500, synthetic_steps(config, 500), World(world_size=2), 1)
    with pytest.raises(UserError, match="`steps` 0"):
        bench.measure_steps(config, 500, synthetic_steps(config, 500), alone, 0)
    assert not issubclass(DataError, ConfigError)
