"""What W&B is told of a run that ended, when its process is not there."""

from __future__ import annotations

import os
import time

import pytest

from electra_dist.errors import EXIT_CRASH, EXIT_OK, EXIT_UNFINISHED
from electra_dist.runs.directory import RunDir
from electra_dist.runs.ending import status_of
from electra_dist.runs.heartbeat import Ending, Heartbeat
from tests.support.wandb_runs import write_rows


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("finished", EXIT_OK),
        ("interrupted", EXIT_UNFINISHED),
        ("failed", EXIT_CRASH),
        ("hung", EXIT_CRASH),
    ],
)
def test_as_its_process_noted(new_run: RunDir, ending: Ending, status: int) -> None:
    with Heartbeat(new_run, 1) as heartbeat:
        assert status_of(new_run) == EXIT_UNFINISHED  # it trains now
        heartbeat.end(ending)
    assert status_of(new_run) == status


def test_a_process_that_is_gone_without_a_word_has_failed(new_run: RunDir) -> None:
    child = os.fork()
    if child == 0:
        Heartbeat(new_run, 1).__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    old = time.time() - 3600
    os.utime(new_run.process, (old, old))
    assert status_of(new_run) == EXIT_CRASH


def test_without_a_note_the_rows_decide(new_run: RunDir) -> None:
    assert status_of(new_run) == EXIT_UNFINISHED
    write_rows(new_run, 50)
    assert status_of(new_run) == EXIT_UNFINISHED
    write_rows(new_run, 100)
    assert status_of(new_run) == EXIT_OK
