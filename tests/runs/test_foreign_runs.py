"""A run directory that somebody made to do harm:
whoever looks at it gets an answer or a sentence, and soon.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from electra_dist.cli import main as cli
from electra_dist.errors import EXIT_OK, EXIT_USER_ERROR
from electra_dist.files.writing import write_json
from electra_dist.runs.directory import RunDir
from launcher.records import JobRecord

pytestmark = pytest.mark.usefixtures("no_slurm")
SECONDS = 240


class Late(BaseException):
    """It takes too long; no code that is tested catches this."""


@pytest.fixture(autouse=True)
def short_and_small() -> Iterator[None]:
    """What hangs or takes tens of GB ends in an exception."""

    def too_long(number: int, frame: object) -> None:
        raise Late(f"no answer after {SECONDS} s")

    before, handler = (
        resource.getrlimit(resource.RLIMIT_AS),
        signal.signal(signal.SIGALRM, too_long),
    )
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * 2**30, before[1]))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def whole(run: RunDir) -> RunDir:
    """A run with every small file that one can have."""
    for folder in (run.jobs, run.logs, run.tokenizer):
        folder.mkdir()
    JobRecord("001", ("7",), "site", (2, 2), 8, "60", "2030-01-01").save(run)
    (run.jobs / "001.events").write_text("2030-01-01T00:00:00+0000\t7\t0\tstart\tx\n")
    shutil.copy(run.config, run.jobs / "001.yaml")
    (run.logs / "rank-0.log").write_text("a line\n")
    (run.logs / "job-7-rank-0.log").write_text("a line\n")
    write_json(
        run.facts, {"name": "r", "wandb_id": "ab12", "dataset_fingerprint": "f" * 64, "starts": []}
    )
    content = {
        "pid": 1,
        "host": "h",
        "place": "",
        "ticks": None,
        "ranks": 1,
        "job_id": None,
        "started": 1.0,
    }
    write_json(run.process, content)
    for name in ("progress.json", "hang.json", "mirrored.jsonl"):
        (run.path / name).write_text("{}\n")
    row = {
        "step": 25,
        "loss/generator": 6.5,
        "speed/real_tokens_per_s": 9.0,
        "data/real_tokens": 100,
        "data/epoch": 1,
    }
    run.metrics.write_text(json.dumps(row) + "\n")
    return run


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def hole(path: Path) -> None:
    """40 GB that take no space, after what was there;
    less where all of it is read, a little at a time.
    """
    with path.open("r+b") as file:
        file.truncate(3 * 10**8 if path.name == "metrics.jsonl" else 40 * 10**9)


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def laughs(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    path.write_text("\n".join(lines))


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 10)


FILES = (
    "config.yaml",
    "run.json",
    "process.json",
    "progress.json",
    "hang.json",
    "mirrored.jsonl",
    "metrics.jsonl",
    "jobs/001.json",
    "jobs/001.events",
    "jobs/001.yaml",
    "logs/rank-0.log",
    "checkpoints/step-00000010/COMPLETE",
)
COMMANDS = (("status",), ("status", "--json"), ("report", "--json"), ("logs", "--lines", "3"))


def answers(words: tuple[str, ...], run: RunDir, capsys: pytest.CaptureFixture[str]) -> int:
    status = cli.main([words[0], str(run.path), *words[1:]])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert len(said.err) < 20_000
    return status


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_run_of_these_tests_is_whole(whole: RunDir, command: tuple[str, ...], capsys) -> None:
    assert answers(command, whole, capsys) == EXIT_OK


@pytest.mark.parametrize(
    "harm", [fifo, device, hole, deep, laughs, binary], ids=lambda harm: harm.__name__
)
@pytest.mark.parametrize("name", FILES)
def test_every_command_that_looks_at_a_run_answers(
    name: str, harm: Callable[[Path], None], whole: RunDir, capsys
):
    harm(whole.path / name)
    for command in COMMANDS:
        assert answers(command, whole, capsys) in (EXIT_OK, EXIT_USER_ERROR), command


def test_a_record_of_a_job_with_wrong_fields_is_named(whole: RunDir, capsys) -> None:
    file = whole.jobs / "001.json"
    kept = json.loads(file.read_text())
    for changed in ([], {}, kept | {"nodes": [1]}, kept | {"nodes": "ab"}, kept | {"job_ids": 7}):
        file.write_text(json.dumps(changed))
        assert cli.main(["status", str(whole.path)]) == EXIT_USER_ERROR
        assert "001.json: cannot be read as what `launch slurm` noted" in capsys.readouterr().err
    file.write_text(json.dumps(kept | {"a_key_of_a_later_version": 1}))
    assert cli.main(["status", str(whole.path)]) == EXIT_OK
