"""Runs `kernels/checks_flash_attention.py` in a process of its own: in Triton's interpreter, and on
a GPU.

Whether Triton interprets is fixed when it is imported, and other tests of this process
(torch.compile, DeepSpeed) import it their way: hence the separate process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parent / "checks_flash_attention.py"
COMPILATION = CHECKS.with_name("checks_compile.py")


def run_checks(checks: Path = CHECKS, **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", str(checks), "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_attention_kernels_are_right_in_the_interpreter() -> None:
    run_checks(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.gpu
def test_attention_kernels_are_right_on_the_gpu() -> None:
    run_checks(TRITON_INTERPRET="0")


@pytest.mark.full
def test_all_kernels_compile_for_the_gpus_they_are_meant_for() -> None:
    run_checks(COMPILATION, TRITON_INTERPRET="0")
