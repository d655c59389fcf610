"""The stream of a rank, measured: figures that must hold on any machine, however busy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra_dist.cli.main import main
from electra_dist.data.shards.manifest import Manifest
from electra_dist.errors import UserError
from electra_dist.measure.stream import measure_stream, stream_config


def test_a_latency_shows_in_the_first_step_and_the_figures_agree(tiny_shards: Path) -> None:
    """One round of the threads waits 0.6 s; without it there is nothing that waits."""
    manifest = Manifest.load(tiny_shards)
    figures = measure_stream(manifest, 2, 32, latency_ms=600.0, trained=1e9, seconds=0.1)
    assert figures.slow.first_seconds > figures.slow.latency_ms / 1000
    assert figures.slow.seek_seconds > figures.slow.latency_ms / 1000
    assert figures.tokens_per_cpu_second > 0
    assert set(figures.nanoseconds) == {"reading", "packing", "masking", "copying"}
    assert all(taken > 0 for taken in figures.nanoseconds.values())
    assert 0 <= figures.plain.stall <= 1
    assert figures.streams_of_rank == 128
    assert json.loads(json.dumps(figures.to_dict()))["slow"]["latency_ms"] == 600.0


@pytest.mark.parametrize("ranks", [1, 3, 64, 1000])
def test_the_configuration_fits_any_number_of_ranks(tiny_shards: Path, ranks: int) -> None:
    config = stream_config(Manifest.load(tiny_shards), ranks, 64)
    assert config.data.streams % ranks == 0
    assert config.train.global_rows % config.data.streams == 0
    assert config.accumulation(ranks) == 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ranks": 0}, "`ranks` 0: expected at least 1"),
        ({"latency_ms": -1.0}, "`latency_ms` -1.0: expected milliseconds"),
        ({"trained": 0.0}, "`trained` 0.0: expected tokens per second"),
        ({"seconds": 0.0}, "`seconds` 0.0: expected more than 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tiny_shards: Path, wrong, message) -> None:
    with pytest.raises(UserError, match=message):
        measure_stream(Manifest.load(tiny_shards), **wrong)


def test_the_command_prints_the_figures(tiny_shards: Path, capsys) -> None:
    words = ["bench", "data", str(tiny_shards), "--row-length", "32", "--seconds", "0.1"]
    assert main([*words, "--latency-ms", "1"]) == 0
    out = capsys.readouterr().out
    assert "bottleneck:" in out
    assert "1 ms more for a block" in out
