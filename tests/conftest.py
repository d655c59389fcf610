"""For every test: fixtures, a process of its own where it needs a GPU, and what may skip.

Real text comes from this Python installation and from `tests/samples`, never from elsewhere on the
machine. Which skips there are and why is listed in `tests/test_skips.py`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from electra_dist.runs.directory import RunDir

REPO_ROOT = Path(__file__).resolve().parents[1]

#: In the environment of the process that runs one test that needs a GPU:
#: what CUDA_VISIBLE_DEVICES was, or nothing.
GPU_TEST = "ELECTRA_DIST_GPU_TEST"
#: In the environment of continuous integration: what skips there fails instead.
NO_SKIPS = "ELECTRA_DIST_NO_SKIPS"
#: The one reason to skip that continuous integration accepts.
NEEDS_GPU = "needs a CUDA device"

os.environ.setdefault("OMP_NUM_THREADS", "1")
if GPU_TEST not in os.environ:  # every other test is the same test on a machine with a GPU
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("WANDB_SILENT", "true")
# in the background of a script; the tests send it themselves
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def has_gpu() -> bool:
    """Whether a driver is there; asks no library that would then hold the GPU."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """`pytest -n` hands out whole files."""
    from tests.support.sharing import ByFile

    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A test marked `gpu` runs in a process of its own, which alone sees the GPUs."""
    if item.get_closest_marker("gpu") is None or GPU_TEST in os.environ:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    start = time.time()
    outcome, about = run_gpu_test(item) if has_gpu() else ("skipped", NEEDS_GPU)
    skipped = (str(item.path), 0, f"Skipped: {about}")
    report = pytest.TestReport(
        item.nodeid,
        item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome=outcome,
        longrepr={"passed": None, "skipped": skipped, "failed": about}[outcome],
        when="call",
        duration=time.time() - start,
        start=start,
        stop=time.time(),
    )
    item.ihook.pytest_runtest_logreport(report=report)
    # what the test before this one has left for it
    item.session._setupstate.teardown_exact(nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def run_gpu_test(item: pytest.Item) -> tuple[Literal["passed", "failed", "skipped"], str]:
    """The outcome, and what the process printed."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    environment |= {GPU_TEST: "1"} | ({} if VISIBLE is None else {"CUDA_VISIBLE_DEVICES": VISIBLE})
    name = f"{item.path}::{item.nodeid.partition('::')[2]}"
    command = [sys.executable, "-m", "pytest", name, "-m", "gpu", "-rs", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=580, check=False
        )
    except subprocess.TimeoutExpired as error:
        return "failed", f"not through after {error.timeout:.0f} s:\n{error.stdout}"
    if done.returncode or not re.search(r"\b1 (passed|skipped)\b", done.stdout):
        return "failed", done.stdout[-6000:] + done.stderr[-2000:]
    return ("skipped", NEEDS_GPU) if " skipped" in done.stdout else ("passed", "")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip(NEEDS_GPU)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips, in a fixture or in itself, may have to fail."""
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole module that skips, too."""
    report = yield
    refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With `NO_SKIPS`, a skip becomes a failure, unless it is for want of a GPU."""
    expected_to_fail = hasattr(report, "wasxfail")
    if not report.skipped or expected_to_fail or not os.environ.get(NO_SKIPS):
        return
    assert isinstance(report.longrepr, tuple)
    path, line, reason = report.longrepr
    if reason == f"Skipped: {NEEDS_GPU}":
        return
    report.outcome = "failed"
    report.longrepr = f"{path}:{line}: {reason}\nNothing may skip where {NO_SKIPS} is set."


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder with texts and labelled data of the project's own, some for each format."""
    return REPO_ROOT / "tests" / "samples"


@pytest.fixture(scope="session")
def pydoc_topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of real English: the topics of `pydoc`, some 0.46 million characters."""
    from pydoc_data.topics import topics

    path = tmp_path_factory.mktemp("data") / "topics.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": name, "text": text}) + "\n" for name, text in sorted(topics.items())
        )
    )
    return path


@pytest.fixture(scope="session")
def pydoc_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of real English: 3 MB of what `electra-dist data corpus pydoc` writes."""
    from data_tools.corpus import write_pydoc_corpus

    folder = tmp_path_factory.mktemp("pydoc") / "corpus"
    return write_pydoc_corpus(folder, max_bytes=3_000_000, workers=2).path


@pytest.fixture(scope="session")
def tiny_shards(pydoc_topics: Path) -> Path:
    """Shards of the topics of `pydoc`, vocabulary 512, 20% held out."""
    from data_tools.build import BuildOptions, build_shards
    from data_tools.tokenizer import train_tokenizer

    folder = pydoc_topics.parent
    train_tokenizer([pydoc_topics], 512, folder / "tokenizer")
    options = BuildOptions(validation=0.2, block_tokens=8192)
    build_shards([pydoc_topics], folder / "tokenizer", folder / "shards", options)
    return folder / "shards"


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Slurm, whatever is installed here."""
    from launcher.slurm import queue

    monkeypatch.setattr(queue, "has_slurm", lambda: False)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run directory of 100 steps at step 25, with a whole checkpoint
    of step 10 and the rest of one of step 20.
    """
    content = {
        "data": {"shards": "s"},
        "model": {"preset": "tiny"},
        "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
        "optim": {"warmup_steps": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    for step in (10, 20):
        (tmp_path / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    (tmp_path / "checkpoints/step-00000010/COMPLETE").touch()
    row = {"step": 25, "loss/generator": 6.5, "loss/discriminator": 0.4, "speed/step_seconds": 2.0}
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps(row) + '\n{"step": 25, "validation/loss/generator": 6}\n{"st'
    )
    return RunDir(tmp_path)


@pytest.fixture(scope="session")
def browser() -> Generator[Any, None, None]:
    """One for all files of a process: Playwright takes no second one."""
    from tests.support.browser import chromium

    with chromium() as opened:
        yield opened
