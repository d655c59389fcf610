"""The `train` command as a user runs it: interruption, kill, resume,
and everything that can be wrong beforehand.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.data.sources import open_data
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import is_event
from electra_dist.runs.opening.revision import revision
from electra_dist.tracking.wandb.children import descendants

SIZES = """
model:
  embedding_size: 32
  generator: {layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}
  discriminator: {layers: 2, hidden_size: 32, heads: 2, ffn_size: 64}
  max_positions: 64
"""


@pytest.fixture
def workplace(tmp_path: Path, tiny_shards: Path) -> Path:
    """A folder with config.yaml for a very small run."""
    (tmp_path / "config.yaml").write_text(
        f"run: {{dir: runs, name: r}}\ndata: {{shards: '{tiny_shards}', row_length: 64, streams:"
        f" 4}}\n{SIZES}"
        "train: {steps: 12, global_rows: 8, micro_rows: 2}\n"
        "optim: {lr: 1e-3, warmup_steps: 2}\nzero: {persistence_threshold: 0}\nprecision: {mode:"
        " fp32}\n"
        "checkpoint: {every: 6, keep: 2}\nvalidation: {every: 6, rows: 16}\n"
        # No rule of speed: another load on the machine would be told as an event.
        "tracking: {every: 1, wandb: disabled, health_ignore: [slowing-down, data-stall, straggler,"
        " checkpoint-stall]}\n"
    )
    return tmp_path


LONG = ("train.steps=200", "tracking.every=4", "checkpoint.every=200", "validation.every=0")
WITH_WANDB = ("tracking.wandb=offline", "checkpoint.every=20000")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "electra_dist.cli", *arguments]


def train(where: Path, *overrides: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    ranks = (
        ("launch", "local", "config.yaml", "--processes", str(processes))
        if processes > 1
        else ("train", "config.yaml")
    )
    return subprocess.run(
        command(*ranks, *overrides), cwd=where, capture_output=True, text=True, timeout=240
    )


def rows(run: Path) -> list[dict[str, Any]]:
    """The logged rows without what depends on the clock."""
    found = [row for row in RunDir(run).read_metrics() if not is_event(row)]
    return [
        {key: value for key, value in row.items() if not key.startswith(("speed/", "memory/"))}
        for row in found
    ]


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the training ended too early"
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.full  # the short torture kills and resumes too
def test_killed_and_resumed_equals_straight_bit_for_bit(workplace: Path) -> None:
    straight = train(workplace, processes=2)
    assert straight.returncode == 0, straight.stderr
    expected = rows(workplace / "runs/r")
    assert [row["step"] for row in expected] == list(range(13))

    run = RunDir(workplace / "runs/killed")
    with subprocess.Popen(
        command(
            "launch",
            "local",
            "config.yaml",
            "--processes",
            "2",
            "run.name=killed",
            "train.steps=12",
        ),
        cwd=workplace,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as launcher:
        wait_for(lambda: bool(run.complete_checkpoints()), launcher)
        os.killpg(launcher.pid, signal.SIGKILL)  # the ranks die with their launcher
    time.sleep(0.5)
    assert run.complete_checkpoints() == [6]
    resumed = train(workplace, "run.name=killed", processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(run.path) == expected
    assert run.complete_checkpoints() == [6, 12]
    again = train(workplace, "run.name=killed", processes=2)
    assert again.returncode == 0
    assert "already finished" in again.stdout


def test_ctrl_c_saves_and_another_world_size_goes_on(workplace: Path) -> None:
    run = RunDir(workplace / "runs/r")
    script = workplace / "tell.sh"
    script.write_text(
        f'#!/bin/sh\necho "$ELECTRA_DIST_EVENT $ELECTRA_DIST_STEP" >> {workplace}/told\n'
    )
    script.chmod(0o755)
    with subprocess.Popen(
        command(
            "launch",
            "local",
            "config.yaml",
            "--processes",
            "2",
            *LONG,
            f"tracking.on_event={script}",
        ),
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as launcher:
        wait_for(lambda: any(row["step"] >= 4 for row in run.read_metrics()), launcher)
        launcher.send_signal(signal.SIGINT)
        output = launcher.communicate(timeout=60)[0].decode()
    assert launcher.returncode == 75
    assert "run the same command again to go on" in output
    assert "Traceback" not in output
    logged_before = rows(run.path)
    resumed = train(workplace, *LONG, "zero.stage=1", f"tracking.on_event={script}")
    assert resumed.returncode == 0, resumed.stderr
    after = rows(run.path)
    assert after[: len(logged_before)] == logged_before
    assert after[-1]["step"] == 200
    saved = run.complete_checkpoints()[0]
    assert (workplace / "told").read_text().splitlines() == [
        "started 0",
        f"interrupted {saved}",
        f"resumed {saved}",
        "finished 200",
    ]
    facts = json.loads(run.facts.read_text())
    assert [start["world_size"] for start in facts["starts"]] == [2, 1]
    for start in facts["starts"]:
        assert start["nodes"] == 1
        assert start["device"]
        assert start.get("revision", "") == revision()
    resolved = configuration.load(run.config)
    data = open_data(resolved, workplace)
    count = plan.parameters(resolved, data.vocab_size)
    assert facts["about"] == {
        "parameters": count.total,
        "generator_parameters": count.generator,
        "discriminator_parameters": count.discriminator,
        "vocab_size": data.vocab_size,
        "tokenizer": data.tokenizer_fingerprint,
        "corpus_tokens": data.tokens,
        "unigram_entropy": pytest.approx(data.unigram_entropy()),
        "promised_tokens_per_s": None,
    }


def test_a_closed_terminal_saves_and_closed_pipes_do_not_stop(workplace: Path) -> None:
    run = RunDir(workplace / "runs/r")
    with subprocess.Popen(
        command("train", "config.yaml", *LONG),
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        process.stderr.close()
        wait_for(lambda: any(row["step"] >= 8 for row in run.read_metrics()), process)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 75
    assert len(run.complete_checkpoints()) == 1
    log = (run.logs / "rank-0.log").read_text()  # which nobody's terminal is needed for
    assert "interrupted and saved" in log


def test_sigterm_to_every_process_saves_with_wandb_on(workplace: Path) -> None:
    """What systemd and a machine that is taken back send:
    ranks, mirror and the service of W&B, all at once.
    """
    run = RunDir(workplace / "runs/r")
    with subprocess.Popen(
        command(
            "launch",
            "local",
            "config.yaml",
            "--processes",
            "2",
            *LONG,
            "train.steps=20000",
            *WITH_WANDB,
        ),
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as launcher:
        wait_for(
            lambda: run.mirrored.exists() and any(row["step"] >= 4 for row in run.read_metrics()),
            launcher,
            300,
        )
        for pid in (*descendants(launcher.pid), launcher.pid):
            os.kill(pid, signal.SIGTERM)
        output = launcher.communicate(timeout=120)[0].decode()
    assert launcher.returncode == 75, output
    assert "Traceback" not in output
    assert len(run.complete_checkpoints()) == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optim.lrr=1"], ["optim.lrr", "'lr'"]),
        (["data.shards=nowhere"], ["nowhere", "manifest.json"]),
        (["model.vocab_size=500"], ["500", "512"]),
        (["run.name=foreign"], ["foreign", "notes.txt", "run.name"]),
        (["train.device=cuda"], ["train.device", "cuda"]),
        (["zero.stage=0", "precision.mode=fp16"], ["zero.stage", "fp16"]),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    workplace: Path, overrides: list[str], words: list[str]
) -> None:
    (workplace / "runs/foreign").mkdir(parents=True)
    (workplace / "runs/foreign/notes.txt").write_text("mine")
    before = sorted(workplace.rglob("*"))
    result = train(workplace, *overrides)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert sorted(workplace.rglob("*")) == before


def test_world_sizes_that_do_not_fit_are_refused_before_a_rank_starts(workplace: Path) -> None:
    result = train(workplace, processes=5)
    assert result.returncode == 2
    assert "possible world sizes: 1 to 4; without idle rows: [1, 2, 4]" in result.stderr
    assert not (workplace / "runs").exists()


def test_damaged_shards_end_all_ranks_with_one_message(workplace: Path, tiny_shards: Path) -> None:
    damaged = workplace / "damaged"
    shutil.copytree(tiny_shards, damaged)
    shard = next(damaged.rglob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    result = train(workplace, f"data.shards={damaged}", processes=2)
    assert result.returncode == 2
    output = result.stdout + result.stderr
    assert output.count("error: ") == 1
    assert shard.name in output
    assert "Traceback" not in output


def test_a_run_of_another_configuration_is_not_touched(workplace: Path) -> None:
    assert train(workplace, "train.steps=2").returncode == 0
    metrics = (workplace / "runs/r/metrics.jsonl").read_text()
    result = train(workplace, "train.steps=2", "optim.lr=2e-3")
    assert result.returncode == 2
    assert "optim.lr: 0.001 -> 0.002" in result.stderr
    assert (workplace / "runs/r/metrics.jsonl").read_text() == metrics


FAR = """
import sys
from electra_dist.parallel import processes
from electra_dist.runs import lock
processes.place = lambda: "another machine"
lock.Timing.__init__.__defaults__ = (0.5, 6.0, *lock.Timing.__init__.__defaults__[2:])
from electra_dist.cli import main as cli
sys.argv[0] = "electra-dist"
cli.entry()
"""


@pytest.mark.full
def test_a_rank_that_slept_on_another_machine_ends_when_it_wakes_and_harms_nobody(
    workplace: Path,
) -> None:
    run = RunDir(workplace / "runs/r")
    (workplace / "far.py").write_text(FAR)
    overrides = ("train.steps=200", "tracking.every=1", "checkpoint.every=20", "validation.every=0")
    far = [sys.executable, "far.py", "train", "config.yaml", *overrides]
    with subprocess.Popen(
        far, cwd=workplace, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as sleeper:
        assert sleeper.stderr is not None
        wait_for(lambda: run.complete_checkpoints() != [], sleeper)
        sleeper.send_signal(signal.SIGSTOP)
        near = command("train", "config.yaml", *overrides)
        with subprocess.Popen(
            near, cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as second:
            assert second.stdout is not None
            while b"parameters" not in second.stdout.readline():
                assert second.poll() is None
            sleeper.send_signal(signal.SIGCONT)
            assert sleeper.wait(60) == 2
            assert (
                b"its lock was taken over by process %d on " % second.pid in sleeper.stderr.read()
            )
            second.stdout.read()
            assert second.wait(240) == 0
    steps = [row["step"] for row in run.read_metrics() if not is_event(row)]
    assert steps == list(range(201))
    assert json.loads(run.process.read_text())["pid"] == second.pid
