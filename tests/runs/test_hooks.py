"""Someone is told: a real script notes what it is told;
what hangs, fails or is missing never holds training up.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.config import TrackingConfig
from electra_dist.errors import DivergedError, UserError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.hooks import Hook


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Appends its environment and its arguments to told.jsonl beside it."""
    path = tmp_path / "tell me.py"
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        "told = {k: v for k, v in os.environ.items() if k.startswith('ELECTRA_DIST_') or k =="
        " 'MY_SECRET'}\n"
        "told.pop('ELECTRA_DIST_NO_SKIPS', None)  # of continuous integration\n"
        "with pathlib.Path(__file__).with_name('told.jsonl').open('a') as file:\n"
        "    file.write(json.dumps(told | {'words': sys.argv[1:], 'session': os.getsid(0)}) +"
        " '\\n')\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def settings(tmp_path: Path, *words: str, seconds: float = 30) -> tuple[TrackingConfig, RunDir]:
    """What a hook takes of the configuration of a run."""
    config = configuration.build(
        {
            "run": {"dir": str(tmp_path / "runs"), "name": "a-run"},
            "data": {"shards": "s"},
            "model": {"preset": "tiny"},
            "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
            "optim": {"warmup_steps": 0},
            "tracking": {"on_event": list(words), "event_seconds": seconds},
        }
    )
    return config.tracking, RunDir(config.run.path)


def told(script: Path) -> list[dict[str, Any]]:
    path = script.with_name("told.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_script_is_told_run_event_reason_and_step(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "as it is")
    hook = Hook(*settings(tmp_path, str(script), "a; touch injected", "$HOME"))
    hook.tell("rolled back", "a\nreason\0of  two lines; `touch injected`", 40)
    hook.wait()
    (once,) = told(script)
    assert once.pop("session") != os.getsid(0)
    assert once == {
        "ELECTRA_DIST_RUN": str(tmp_path / "runs/a-run"),
        "ELECTRA_DIST_NAME": "a-run",
        "ELECTRA_DIST_EVENT": "rolled back",
        "ELECTRA_DIST_REASON": "a reason of two lines; `touch injected`",
        "ELECTRA_DIST_STEP": "40",
        "MY_SECRET": "as it is",
        "words": ["a; touch injected", "$HOME"],
    }


def test_a_finding_is_told_with_its_rule(script: Path, tmp_path: Path) -> None:
    hook = Hook(*settings(tmp_path, str(script)))
    hook.tell("health", "9% of a step goes to waiting for data", 300, "data-stall")
    hook.wait()
    (once,) = told(script)
    assert once["ELECTRA_DIST_EVENT"] == "health"
    assert once["ELECTRA_DIST_RULE"] == "data-stall"
    assert once["ELECTRA_DIST_REASON"] == "9% of a step goes to waiting for data"


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [
        (DivergedError("the loss is 1e9"), "diverged", "the loss is 1e9"),
        (UserError("no space left"), "failed", "no space left"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
        (KeyboardInterrupt(), "interrupted", "a second Ctrl-C ended it without saving"),
    ],
)
def test_an_exception_is_told_once_as_the_end(
    script: Path, tmp_path: Path, error: BaseException, event: str, reason: str
) -> None:
    hook = Hook(*settings(tmp_path, str(script)))
    hook.begins(20)
    hook.wait()
    with pytest.raises(type(error)), hook:
        raise error
    assert [(once["ELECTRA_DIST_EVENT"], once["ELECTRA_DIST_STEP"]) for once in told(script)] == [
        ("resumed", "20"),
        (event, ""),
    ]
    assert told(script)[1]["ELECTRA_DIST_REASON"] == reason


def test_an_end_is_told_when_the_block_is_left_and_nothing_where_nothing_was_done(
    script: Path, tmp_path: Path
) -> None:
    about = settings(tmp_path, str(script))
    with Hook(*about):
        pass  # the run was finished before
    assert told(script) == []
    with Hook(*about) as hook:
        hook.begins(None)
        hook.wait()
        hook.ends("finished", 100)
        assert len(told(script)) == 1
    assert [once["ELECTRA_DIST_EVENT"] for once in told(script)] == ["started", "finished"]


def test_a_hook_that_hangs_is_killed_with_its_children(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = Hook(*settings(tmp_path, "sh", "-c", "sleep 600 & sleep 600", seconds=1))
    before = time.monotonic()
    hook.tell("started")
    assert time.monotonic() - before < 1
    hook.wait()
    assert time.monotonic() - before < 20
    assert "tracking.on_event, started: sh: ended after" in capfd.readouterr().err


def test_one_end_is_told_whoever_knows_of_it(script: Path, tmp_path: Path) -> None:
    about = settings(tmp_path, str(script))
    for _ in range(2):  # two starts in one process
        with Hook(*about) as hook:
            hook.begins(None)
            watchdog = Hook(*about)
            watchdog.tell("hung", "rank 1 is silent", 5)
            hook.ends("finished", 100)
        watchdog.wait()
    assert [once["ELECTRA_DIST_EVENT"] for once in told(script)].count("hung") == 2
    assert len(told(script)) == 4


def test_an_interrupted_run_waits_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra_dist.runs.hooks.LEAVE_SECONDS", 1.0)
    before = time.monotonic()
    with Hook(*settings(tmp_path, "sleep", "600", seconds=500)) as hook:
        hook.begins(None)
        hook.ends("interrupted", 3)
    assert time.monotonic() - before < 20


def test_what_cannot_be_started_or_fails_is_one_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Hook(*settings(tmp_path, "no-such-program")) as hook:
        hook.begins(None)
        hook.ends("finished", 100)
    error = capfd.readouterr().err
    assert error.count("warning") == 1
    assert "no-such-program" in error
    hook = Hook(*settings(tmp_path, "false"))
    hook.tell("failed")
    hook.wait()
    assert "tracking.on_event, failed: false: exit status 1" in capfd.readouterr().err
