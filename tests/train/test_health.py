"""Real trainings that go wrong: their findings are on the terminal, in metrics.jsonl, told to the
command of `tracking.on_event`, and in `status`.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from electra_dist import config as configuration
from electra_dist.health import judge, open_findings
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import is_event

ROOT = Path(__file__).resolve().parents[2]
FAULTY = str(ROOT / "tests" / "support" / "faulty_train.py")
CONFIG = """
run: {{dir: runs, name: r}}
data: {{shards: '{shards}', row_length: 64, streams: 4}}
model:
  embedding_size: 16
  generator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  discriminator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  max_positions: 64
train: {{steps: 8, global_rows: 4, micro_rows: 4}}
optim: {{warmup_steps: 0}}
zero: {{stage: 0}}
precision: {{mode: fp32}}
guard: {{enabled: false}}
validation: {{every: 0, rows: 8}}
tracking: {{every: 1, wandb: disabled, on_event: ['{script}']}}
"""


def python(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize(
    ("rule", "fault", "override"),
    [
        ("loss-not-finite", "none", "optim.lr=1e30"),
        ("data-stall", "slow", "optim.lr=1e-3"),
    ],
)
def test_a_training_that_goes_wrong_says_so_everywhere(
    tmp_path: Path, tiny_shards: Path, rule: str, fault: str, override: str
) -> None:
    script = tmp_path / "tell.sh"
    told = tmp_path / "told"
    script.write_text(
        f'#!/bin/sh\necho "$ELECTRA_DIST_EVENT $ELECTRA_DIST_RULE $ELECTRA_DIST_STEP" >> {told}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "config.yaml").write_text(CONFIG.format(shards=tiny_shards, script=script))
    done = python(tmp_path, FAULTY, fault, "0", "0", "config.yaml", override)
    assert done.returncode == 0, done.stderr

    run = RunDir(tmp_path / "runs/r")
    rows = list(run.read_metrics())
    (finding,) = open_findings(rows)
    assert finding.rule == rule
    assert rows[rows.index(finding.to_row()) - 1]["step"] == finding.step
    assert f"warning: {finding.line}" in done.stderr.splitlines()
    assert f"health {rule} {finding.step}" in told.read_text().splitlines()

    numbers = [row for row in rows if not is_event(row)]
    assert judge(numbers, run.read_facts(), configuration.load(run.config)) == (finding,)
    shown = python(tmp_path, "-m", "electra_dist.cli", "status", "runs/r", "--json")
    assert [found["rule"] for found in json.loads(shown.stdout)["findings"]] == [rule]
