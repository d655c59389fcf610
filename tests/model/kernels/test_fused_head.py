"""Runs `kernels/checks_fused_head.py` in a process of its own: in Triton's interpreter, and on a
GPU.

Whether Triton interprets is fixed when it is imported, and other tests of this process
(torch.compile, DeepSpeed) import it their way: hence the separate process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parent / "checks_fused_head.py"


def run_checks(**environment: str) -> None:
    command = [sys.executable, "-m", "pytest", str(CHECKS), "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_fused_head_is_right_in_the_interpreter() -> None:
    run_checks(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.gpu
def test_fused_head_is_right_on_the_gpu() -> None:
    run_checks(TRITON_INTERPRET="0")
