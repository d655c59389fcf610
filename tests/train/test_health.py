"""A real training that goes wrong: its finding is on the terminal, in metrics.jsonl, told to the
command of `tracking.on_event`, and in `status`.
"""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

from electra_dist import config as configuration
from electra_dist.health import judge, open_findings
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics_log import is_event

CONFIG = """
run: {{dir: runs, name: r}}
data: {{shards: '{shards}', row_length: 64, streams: 4}}
model:
  embedding_size: 16
  generator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  discriminator: {{layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}}
  max_positions: 64
train: {{steps: 6, global_rows: 4, micro_rows: 4}}
optim: {{lr: 1e30, warmup_steps: 0}}
zero: {{stage: 0}}
precision: {{mode: fp32}}
guard: {{enabled: false}}
validation: {{every: 0, rows: 8}}
tracking: {{every: 1, wandb: disabled, on_event: ['{script}']}}
"""


def command(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "electra_dist.cli", *words]
    return subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=240)


def test_a_loss_that_is_no_number_is_found_while_it_trains(
    tmp_path: Path, tiny_shards: Path
) -> None:
    script = tmp_path / "tell.sh"
    told = tmp_path / "told"
    script.write_text(
        f'#!/bin/sh\necho "$ELECTRA_DIST_EVENT $ELECTRA_DIST_RULE $ELECTRA_DIST_STEP" >> {told}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "config.yaml").write_text(CONFIG.format(shards=tiny_shards, script=script))
    done = command(tmp_path, "train", "config.yaml")
    assert done.returncode == 0, done.stderr

    run = RunDir(tmp_path / "runs/r")
    rows = list(run.read_metrics())
    (finding,) = open_findings(rows)
    assert finding.rule == "loss-not-finite"
    place = rows.index(finding.to_row())
    assert rows[place - 1]["step"] == finding.step
    assert rows[place - 1]["loss/generator"] is None

    assert f"warning: {finding.line}" in done.stderr.splitlines()
    assert f"health loss-not-finite {finding.step}" in told.read_text().splitlines()

    shown = json.loads(command(tmp_path, "status", "runs/r", "--json").stdout)
    assert [found["rule"] for found in shown["findings"]] == ["loss-not-finite"]
    assert finding.line in command(tmp_path, "status", "runs/r").stdout

    numbers = [row for row in rows if not is_event(row)]
    assert judge(numbers, run.read_facts(), configuration.load(run.config)) == (finding,)
