"""Tests that need a GPU run each in a process of its own; all others see none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CASES = """
import os, pytest

@pytest.mark.gpu
@pytest.mark.parametrize("number", [1, 2])
def test_on_the_gpu(number):
    print("sees", os.environ.get("CUDA_VISIBLE_DEVICES"), "pid", os.getpid())
    assert number == 1

@pytest.fixture(scope="module")
def shared():
    yield 1

def test_before(shared):
    pass

@pytest.mark.gpu
def test_that_dies():
    os._exit(0)

def test_elsewhere():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
"""
#: In front of the plugin: as if there were a GPU.
PLUGIN = """
import torch, conftest
conftest.has_gpu = lambda: {there}
torch.cuda.is_available = lambda: {there}
"""


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_test_has_a_process_of_its_own(tmp_path: Path, repo_root: Path, there: bool) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "as_if.py").write_text(PLUGIN.format(there=there))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers = gpu\naddopts = -p conftest -p as_if\n"
    )
    environment = {
        key: value for key, value in os.environ.items() if key != "ELECTRA_DIST_GPU_TEST"
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(tmp_path), str(repo_root / "tests"), str(repo_root)]
    )
    environment["CUDA_VISIBLE_DEVICES"] = "GPU-3f"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if not there:
        assert "2 passed, 3 skipped" in done.stdout, done.stdout
        assert "needs a CUDA device" in done.stdout
        return
    assert "2 failed, 3 passed" in done.stdout, done.stdout
    assert "sees GPU-3f pid" in done.stdout  # of the one that fails
    assert "FAILED test_cases.py::test_that_dies" in done.stdout


def test_this_process_sees_no_gpu() -> None:
    assert not torch.cuda.is_available()
