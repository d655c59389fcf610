"""The benchmarks: every path that a CPU can run, in the smallest sizes,
where the figures mean nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_tools.filters.catalog import FILTERS


def run(repo_root: Path, *words: str, timeout: float = 300, **variables: str) -> str:
    done = subprocess.run(
        words,
        cwd=repo_root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable} | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_our_step_is_measured_against_transformers_and_its_variants(
    repo_root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "step.json"
    variants = ("head: all logits in memory", "optimizer not fused", "attention: triton")
    words = ("--cases", "tiny:16:2", "--device", "cpu", "--steps", "1", "--json", str(file))
    words += ("--peers", "transformers", "--variants", *variants)
    out = run(repo_root, sys.executable, "benchmarks/gpu_step.py", *words)
    (figures,) = read(file)["cases"].values()
    assert list(figures) == ["transformers", "electra-dist", *variants]
    assert "CUDA" in figures.pop("attention: triton")["refused"]
    # No upper bound:
    # the rate that utilisation is measured against is itself noisy on a busy machine.
    assert all(found["real_tokens_per_s"] > 0 and found["mfu"] > 0 for found in figures.values())
    assert "of transformers" in out
    assert out.count("1.00 x") >= 2  # the peer and the whole step, each of itself


@pytest.mark.full
def test_zero_stages_are_measured_and_send_what_the_plan_says(
    repo_root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "zero.json"
    words = (
        "--preset",
        "tiny",
        "--vocab-size",
        "1000",
        "--row-length",
        "32",
        "--micro-rows",
        "2",
        "--steps",
        "1",
    )
    words += ("--accumulation", "2", "--processes", "2", "--device", "cpu")
    run(repo_root, sys.executable, "benchmarks/zero_stages.py", *words, "--json", str(file))
    cases = read(file)["cases"]
    offloaded = [f"{stage}, optimizer offloaded" for stage in (1, 2, 3)]
    assert list(cases) == ["0", "1", "2", "3", *offloaded, "3, parameters offloaded too"]
    for figures in cases.values():
        assert figures["sent_bytes"] == pytest.approx(figures["predicted_sent_bytes"], rel=0.02)
        # gloo may or may not have let go of what it sent last
        assert figures["peak_bytes"] == pytest.approx(figures["predicted_peak_bytes"], rel=0.2)


@pytest.mark.full
def test_hierarchical_partitioning_sends_what_the_plan_says(
    repo_root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "hpz.json"
    words = (
        "--preset",
        "small",
        "--vocab-size",
        "1000",
        "--row-length",
        "16",
        "--micro-rows",
        "1",
        "--steps",
        "1",
    )
    words += (
        "--accumulation",
        "2",
        "--processes",
        "4",
        "--nodes",
        "2",
        "--device",
        "cpu",
        "--cases",
        "3",
        "3, hpZ",
    )
    run(repo_root, sys.executable, "benchmarks/zero_stages.py", *words, "--json", str(file))
    plain, hpz = read(file)["cases"].values()
    assert plain["group_bytes"] == 0
    # up to the padding of parameters that four ranks do not share evenly
    for name in (
        "group_bytes",
        "sent_bytes",
    ):
        assert hpz[name] == pytest.approx(hpz[f"predicted_{name}"], rel=1e-4)
    assert hpz["sent_bytes"] - hpz["group_bytes"] < plain["sent_bytes"]


@pytest.mark.full
def test_both_loops_are_timed_in_turn(repo_root: Path, tmp_path: Path, pydoc_topics: Path) -> None:
    file = tmp_path / "speed.json"
    words = (
        "--text",
        str(pydoc_topics),
        "--preset",
        "tiny",
        "--vocab-size",
        "1000",
    )
    words += (
        "--row-length",
        "32",
        "--rows",
        "8",
        "--processes",
        "2",
        "--micro-rows",
        "2",
        "--peer-micro-rows",
        "4",
    )
    words += ("--device", "cpu", "--threads", "2", "--steps", "1", "--rounds", "3")
    run(repo_root, sys.executable, "benchmarks/train_speed.py", *words, "--json", str(file))
    figures = read(file)
    ours, peer = figures["rates"]["electra-dist"], figures["rates"]["transformers"]
    assert len(ours) == len(peer) == 3
    assert figures["ratios"] == pytest.approx([a / b for a, b in zip(ours, peer, strict=True)])
    assert min(*ours, *peer) > 0
    assert figures["mfu"]["electra-dist"] > 0


@pytest.mark.full
def test_memory_is_measured_against_transformers(
    repo_root: Path, tmp_path: Path, pydoc_topics: Path
) -> None:
    file = tmp_path / "memory.json"
    words = (
        "--text",
        str(pydoc_topics),
        "--preset",
        "tiny",
        "--vocab-size",
        "2000",
        "--rows",
        "8",
        "--json",
        str(file),
    )
    run(repo_root, sys.executable, "benchmarks/memory.py", *words)
    figures = read(file)
    assert figures["ratio"] < 1
    assert figures["predicted_bytes"] == pytest.approx(
        figures["peak_bytes"]["electra-dist"], rel=0.15
    )


@pytest.mark.full
def test_the_gpu_script_runs_all_its_parts_in_the_smallest_sizes(
    repo_root: Path, tmp_path: Path
) -> None:
    out = run(
        repo_root, "bash", "benchmarks/gpu.sh", str(tmp_path / "figures"), timeout=550, QUICK="1"
    )
    assert "failed" not in out
    for name in ("smoke", "train", "step", "zero", "kernels", "sweep"):
        assert read(tmp_path / "figures" / f"{name}.json")


#: What machines with GPUs have where there is no network.
THERE = (
    "numpy",
    "transformers",
    "sentencepiece",
    "safetensors",
    "tokenizers",
    "rich",
    "psutil",
    "pyyaml",
    "protobuf",
)
THERE += ("msgpack", "einops", "ninja", "tqdm", "packaging", "pytest")


@pytest.fixture
def clean_python(tmp_path: Path, repo_root: Path) -> str:
    """A Python of this one's version with PyTorch and the usual packages, and nothing of ours."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "there")], check=True)
    python = str(tmp_path / "there/bin/python")
    install = (python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt")
    run(repo_root, *install, *THERE, f"torch=={torch_version()}", timeout=500)
    return python


def torch_version() -> str:
    import torch

    return torch.__version__.partition("+")[0]


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_a_gpu_machine_without_network_needs_the_wheels_and_no_more(
    repo_root: Path, tmp_path: Path, clean_python: str
) -> None:
    there = f"{sys.version_info.major}.{sys.version_info.minor}"
    run(repo_root, "bash", "benchmarks/gpu_wheels.sh", str(tmp_path / "wheels"), TARGET=there)
    wheels = sorted(map(str, (tmp_path / "wheels").glob("*.whl")))
    assert sum(Path(wheel).stat().st_size for wheel in wheels) < 20e6
    site = str(tmp_path / "site")
    run(
        repo_root,
        clean_python,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--no-deps",
        "--target",
        site,
        *wheels,
    )
    variables = {"PYTHON": clean_python, "PYTHONPATH": site, "QUICK": "1"}
    out = run(
        repo_root, "bash", "benchmarks/gpu.sh", str(tmp_path / "figures"), timeout=550, **variables
    )
    assert "failed" not in out


def test_kernels_are_measured_and_what_cannot_run_says_why(repo_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    out = run(
        repo_root,
        sys.executable,
        "benchmarks/kernels.py",
        "--quick",
        "--device",
        "cpu",
        "--json",
        str(file),
    )
    results = read(file)["results"]
    for cases in results.values():
        for figures in cases.values():
            assert "CUDA" in figures["ours (triton)"]["refused"]
            assert "cannot run here: Triton kernels need a CUDA device" in out
    for figures in results["attention"].values():
        assert "refused" in figures["varlen_attn"]
        assert "no backward on a CPU" in figures["FlexAttention, compiled"]["refused"]
        assert figures["SDPA, block mask"]["error"] < 1e-6
    for figures in results["head"].values():
        chunked, plain = figures["ours (chunked)"], figures["linear, loss, multinomial"]
        assert max(chunked["error"], plain["error"]) < 1e-6
    assert chunked["peak_bytes"] < plain["peak_bytes"]  # of the largest vocabulary


@pytest.mark.full
def test_the_sweep_of_attention_compiles_without_a_gpu(repo_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    words = (
        "--compile-only",
        "--head-size",
        "32",
        "--most",
        "4",
        "--dropout",
        "0.1",
        "--json",
        str(file),
    )
    out = run(
        repo_root, sys.executable, "benchmarks/attention_sweep.py", *words, TRITON_INTERPRET="0"
    )
    found = read(file)["configurations"]
    assert list(found) == ["forward", "query_grad", "key_grad"]
    assert len(found["forward"]) == 2
    for figures in found.values():
        assert all(f["registers"] > 16 and f["shared_bytes"] > 0 for f in figures.values())
    assert "forward    128 x 64, 4 warps, 3 stages" in out


def test_the_sweep_of_attention_tries_near_configurations_first_and_finds_the_best(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    import attention_sweep

    from electra_dist.model.kernels import flash_attention as fa

    wanted = attention_sweep.trials(64)
    assert len(wanted) == len(set(wanted)) >= 56
    assert [(t.kernel, t.config) for t in wanted[:3]] == [
        (k, tuple(fa.CONFIGS[k, 64])) for k in attention_sweep.SPACE
    ]
    changed = [
        sum(a != b for a, b in zip(t.config, fa.CONFIGS[t.kernel, 64], strict=True)) for t in wanted
    ]
    assert changed[3:9] == [1] * 6

    def times(*values: float) -> dict[str, Any]:
        lengths = map(str, attention_sweep.LENGTHS)
        return {"milliseconds": dict(zip(lengths, values, strict=True)), "error": 0.0}

    results = {
        "forward": {
            "a": times(1, 2, 4),
            "b": times(0.5, 2, 4.4),
            "c": {"refused": "no"},
            "d": times(1, 1.9, 9),
        }
    }
    results |= {
        "query_grad": {"a": times(1, 1, 1)},
        "key_grad": {"a": times(2, 2, 2), "b": times(3, 1, 1.5)},
    }
    chosen = attention_sweep.best(results)
    assert chosen == {"forward": "b", "query_grad": "a", "key_grad": "b"}
    peer = {str(n): {"forward": 0.25, "backward": 0.5} for n in attention_sweep.LENGTHS}
    attention_sweep.print_best(chosen, results, {"varlen_attn, FA2": peer})
    said = capsys.readouterr().out
    assert "best forward: b" in said
    assert " ".join(said.split()).count("0.2500 0.2500 0.2500") == 1
    assert "3.0000    3.0000    3.0000" in said
    monkeypatch.setattr(sys, "argv", ["attention_sweep.py"])
    monkeypatch.setattr(attention_sweep.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        attention_sweep.parse()
    assert "timing needs a CUDA device" in capsys.readouterr().err


def test_a_failed_measurement_is_listed_and_ends_no_other(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    import kernels

    def broken() -> dict[str, Any]:
        raise ValueError("first line\nsecond line")

    def full() -> dict[str, Any]:
        raise torch.OutOfMemoryError

    names = (
        "forward_seconds",
        "forward_backward_seconds",
        "peak_bytes",
        "flops_per_s",
        "utilisation",
        "error",
    )
    measures = {"broken": broken, "full": full, "good": lambda: dict.fromkeys(names, 1.0)}
    jobs = [
        kernels.Job("head", "vocabulary 7", name, measure) for name, measure in measures.items()
    ]
    results: dict[str, Any] = {}
    kernels.measure_all(jobs, results, 60, torch.device("cpu"), lambda: None)
    found = results["head"]["vocabulary 7"]
    assert found["broken"] == {"refused": "failed: ValueError: first line"}
    assert found["full"] == {"refused": "out of memory"}
    assert found["good"]["error"] == 1.0
    kernels.print_tables(results)
    assert "failed: ValueError: first line\n" in capsys.readouterr().out
    kernels.measure_all(jobs, results, -1, torch.device("cpu"), lambda: None)
    assert results["head"]["vocabulary 7"]["good"] == {"refused": "left out: time was over"}


def test_the_gpu_script_refuses_a_machine_without_a_gpu(repo_root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "benchmarks/gpu.sh", str(tmp_path)],
        cwd=repo_root,
        env=os.environ | {"PYTHON": sys.executable, "QUICK": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "sees no GPU" in done.stderr


def test_what_saving_costs_is_measured(repo_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "stall.json"
    words = (
        "--folder",
        str(tmp_path),
        "--preset",
        "tiny",
        "--vocab-size",
        "1000",
        "--row-length",
        "32",
        "--rows",
        "8",
    )
    words += (
        "--micro-rows",
        "4",
        "--processes",
        "2",
        "--device",
        "cpu",
        "--steps",
        "2",
        "--rounds",
        "1",
    )
    out = run(
        repo_root, sys.executable, "benchmarks/checkpoint_stall.py", *words, "--json", str(file)
    )
    figures = read(file)
    assert figures["processes"] == 2
    assert figures["in the background"]["waited_seconds"] > 0
    assert figures["waited for"]["waited_seconds"] > 0
    assert figures["checkpoint_bytes"] > 12 * figures["parameters"]  # fp32 weights and both moments
    assert "waited in the background / waited for" in out
    assert list(tmp_path.iterdir()) == [file]  # its checkpoints are gone


@pytest.mark.full
def test_the_cost_of_agreeing_is_measured(repo_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "agreement.json"
    words = (
        "--processes",
        "2",
        "--milliseconds",
        "1",
        "--steps",
        "5",
        "--rounds",
        "1",
        "--json",
        str(file),
    )
    run(repo_root, sys.executable, "benchmarks/agreement.py", *words)
    figures = read(file)
    assert figures["processes"] == 2
    assert all(figures[kind]["agreeing_milliseconds"] > 0 for kind in ("waited for", "posted"))


def test_the_cost_of_checksums_is_measured(
    repo_root: Path, tmp_path: Path, tiny_shards: Path
) -> None:
    file = tmp_path / "checksums.json"
    words = ("--shards", str(tiny_shards), "--rounds", "1", "--blocks", "2", "--json", str(file))
    run(repo_root, sys.executable, "benchmarks/block_checksums.py", *words)
    figures = read(file)
    assert figures["blocks"] == 2
    assert set(figures["read_bytes_per_s"]) == {"webdataset", "without", "verified"}
    assert figures["share_of_a_step"] < 1


def test_what_the_loader_takes_from_the_main_thread_is_measured(
    repo_root: Path, tmp_path: Path, tiny_shards: Path
) -> None:
    file = tmp_path / "share.json"
    words = (
        "--shards",
        str(tiny_shards),
        "--rows",
        "8",
        "--micro-rows",
        "4",
        "--row-lengths",
        "64",
        "--goal",
        "0",
    )
    rounds = (
        "--rounds",
        "2",
        "--seconds",
        "0.1",
        "--tokens-per-second",
        "50000",
        "--json",
        str(file),
    )
    run(repo_root, sys.executable, "benchmarks/loader_share.py", *words, *rounds)
    (case,) = read(file)["cases"]
    assert set(case["ratio"]) == {"process", "thread"}
    assert 0 < case["seconds_of_the_loop_a_step"] < case["seconds_to_first_step"]


def test_every_filter_is_measured_next_to_a_peer(repo_root: Path) -> None:
    words = ("--input", "tests/samples/documents.jsonl", "--megabytes", "0.01", "--repeats", "1")
    out = run(repo_root, sys.executable, "benchmarks/clean_speed.py", *words, "--json")
    *filters, whole = json.loads(out)
    assert [row["filter"] for row in filters] == list(FILTERS)
    assert all(row["mb_per_s"] > 0 and row["peer_mb_per_s"] > 0 for row in filters)
    assert all(row["peer"] for row in filters)
    assert whole["filter"] == "whole command"


def test_what_the_metrics_cost_is_measured(repo_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    keys = ("model.preset=tiny", "data.row_length=32", "tracking.every=2")
    keys += ("train.global_rows=2", "train.micro_rows=2", "data.streams=2")
    words = ("configs/quickstart.yaml", *keys, "--rounds", "2", "--json", str(file))
    out = run(repo_root, sys.executable, "benchmarks/metrics_cost.py", *words)
    assert read(file)["ratio"]["median"] > 0
    assert "ratio" in out
