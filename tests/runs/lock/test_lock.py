"""One writer a run: who gets the lock, who is refused, what counts as dead, and who has to stop."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import (
    LockedError,
    LostLockError,
    StorageError,
    UserError,
    WaitInterruptedError,
)
from electra_dist.parallel import processes
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.lock import HANDED_DOWN, Timing, check, hold, holding, taking
from electra_dist.runs.lock.leases import Entry
from launcher.status import status
from tests.support.disks import tiny_disk

#: Seconds that a test can wait for; what a test waits for to *stay away* is generous.
QUICK = Timing(pulse=0.1, silent=2.0, dying=0.2, brief=20.0, requeue=20.0)
ELSEWHERE = "processes.place = lambda: 'another machine'"
NOWHERE: dict[str, str] = {}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "one")


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(run: RunDir) -> Iterator[Start]:
    """Starts a process that holds the lock and then does what it is told;
    returns once it holds it.
    """
    started: list[subprocess.Popen[str]] = []

    def start_one(
        then: str = "time.sleep(60)", before: str = "", wait: bool = True, **options: Any
    ) -> subprocess.Popen[str]:
        code = (
            "import os, sys, time; from pathlib import Path\n"
            "from electra_dist.runs import lock; from electra_dist.parallel import processes; from"
            " electra_dist.errors import UserError\n"
            "from electra_dist.runs.directory import RunDir\nrun ="
            f" RunDir(Path({str(run.path)!r}))\n{before}\n"
            "try:\n"
            f"    with lock.hold(run, timing=lock.Timing{tuple(vars(QUICK).values())},"
            f" **{options!r}) as lease:\n"
            "        print('ready', flush=True)\n"
            f"        {then}\n"
            "except UserError as error: print(type(error).__name__, error, flush=True)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        if wait:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def take(run: RunDir, **options: Any) -> list[str]:
    """Take the lock and give it back; what was told meanwhile."""
    told: list[str] = []
    with hold(run, tell=told.append, **({"environment": NOWHERE, "timing": QUICK} | options)):
        check(run, fresh=True)
    return told


def leases(run: RunDir) -> list[str]:
    return sorted(os.listdir(run.path / "lock"))


def forge(run: RunDir, number: int = 1, **changes: Any) -> Path:
    """A lease that a process of another machine left, which shows no sign of life."""
    folder = run.path / "lock"
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "token": "t",
        "pid": 1,
        "host": "far",
        "place": "another machine",
        "ticks": 5,
        "purpose": lock.TRAINING,
        "brief": False,
        "job_id": None,
        "cluster": None,
        "restart": 0,
        "in_job": False,
        "since": 0.0,
        "silent_seconds": 1.0,
    }
    path = folder / f"{number:08d}.json"
    path.write_text(json.dumps(content | changes))
    return path


# --- exactly one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left_behind", ["nothing", "a lease given back", "a lease of a dead process"]
)
def test_of_many_that_want_it_at_once_one_gets_it(
    run: RunDir, tmp_path: Path, start: Start, left_behind: str
) -> None:
    if left_behind == "a lease given back":
        take(run)
    elif left_behind == "a lease of a dead process":
        forge(run, place=processes.place(), ticks=1)
    go = tmp_path / "go"
    wait = f"print('here', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.001)"
    outputs = [
        process.stdout
        for process in [start(before=wait, wait=False) for _ in range(6)]
        if process.stdout
    ]
    assert [output.readline() for output in outputs] == ["here\n"] * 6
    go.touch()
    first_words = sorted(output.readline().split()[0] for output in outputs)
    assert first_words == ["LockedError"] * 5 + ["ready"]


def test_a_folder_that_vanishes_is_made_again(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    true = taking.newest_of
    removed: list[Path] = []

    def remove_once(folder: Path) -> Entry | None:
        if not removed:
            removed.append(folder)
            folder.rmdir()
        return true(folder)

    monkeypatch.setattr(taking, "newest_of", remove_once)
    take(run)


def test_it_is_given_back_and_numbers_only_rise(run: RunDir) -> None:
    for _ in range(12):
        take(run)
    assert leases(run)[-1] == "00000012.released"
    assert len(leases(run)) <= 10


def test_a_decision_on_an_old_listing_is_noticed(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of a network file system may show a folder as it was:
    the next number exists, or is not the highest.
    """
    with hold(run, timing=QUICK):
        for old in (None, Entry(0, True, run.path / "lock/00000000.released")):
            true, answers = taking.newest_of, [old]
            monkeypatch.setattr(
                taking, "newest_of", lambda f, a=answers, true=true: a.pop() if a else true(f)
            )
            with pytest.raises(LockedError):
                take(run)
        check(run, fresh=True)
    forge(run, 5, place=processes.place(), ticks=processes.ticks(os.getpid()), pid=os.getpid())
    old = Entry(1, True, run.path / "lock/00000001.released")
    true, answers = taking.newest_of, [old]
    monkeypatch.setattr(taking, "newest_of", lambda f: answers.pop() if answers else true(f))
    with pytest.raises(LockedError):
        take(run)
    assert "00000002.json" not in leases(run)


def test_it_works_where_there_are_no_links_and_where_an_answer_gets_lost(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    with hold(run, timing=QUICK), pytest.raises(LockedError):
        take(run)

    def unheard(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "sent twice")

    monkeypatch.setattr(os, "link", unheard)
    with hold(run, timing=QUICK), pytest.raises(LockedError):
        take(run)


# --- who is refused, who is dead ------------------------------------------------------------------


def test_the_second_is_told_who_holds_it(run: RunDir, start: Start) -> None:
    holder = start(environment={"SLURM_JOB_ID": "17"})
    with pytest.raises(LockedError) as refused:
        take(run)
    said = str(refused.value)
    for words in (
        f"process {holder.pid} on ",
        "Slurm job 17",
        "trains this run already",
        "since 20",
        "sign of life",
    ):
        assert words in said
    assert refused.value.exit_status == 2
    found = holding(run)
    assert found is not None
    assert (found.holder.pid, found.alive) == (holder.pid, True)
    assert f"process {holder.pid} on " in (status(run).held_by or "")


def test_a_killed_holder_of_this_machine_is_dead_at_once_and_a_stopped_one_is_not(
    run: RunDir, start: Start
) -> None:
    holder = start()
    holder.send_signal(signal.SIGSTOP)
    time.sleep(QUICK.silent + 0.5)
    with pytest.raises(LockedError):
        take(run)
    holder.kill()
    before = time.monotonic()
    take(run)
    assert time.monotonic() - before < QUICK.silent
    assert status(run).held_by is None


def test_a_reused_number_fools_nobody(run: RunDir) -> None:
    forge(run, place=processes.place(), pid=os.getpid(), ticks=1, silent_seconds=3600.0)
    take(run)


@pytest.mark.parametrize("stamp", [0.0, 4_000_000_000.0, None])
def test_a_silent_holder_elsewhere_is_dead_whatever_its_clock_says(
    run: RunDir, stamp: float | None
) -> None:
    path = forge(run, silent_seconds=1.6)
    if stamp is not None:
        os.utime(path, (stamp, stamp))
    waiting, gone = take(run)
    assert "waiting for the lock of process 1 on far, which trains this run: silent for " in waiting
    assert "process 1 on far is gone: no sign of life for " in gone


@pytest.mark.parametrize("skew", [-1e6, 0.0, 1e9])
def test_a_holder_elsewhere_lives_as_long_as_it_gives_signs(
    run: RunDir, start: Start, skew: float
) -> None:
    utime = "os.utime = lambda path, true=os.utime: true(path, (time.time() + SKEW,) * 2)".replace(
        "SKEW", str(skew)
    )
    start(before=f"{ELSEWHERE}\n{utime}")
    for _ in range(2):
        with pytest.raises(LockedError, match="trains this run already"):
            take(run)


def test_what_a_lease_says_cannot_make_others_wait_for_ever(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = replace(QUICK, silent=0.3)
    monkeypatch.setattr(taking, "_SETTLE_SECONDS", 0.0)
    for content in ("", "[]", "{", "null", '{"token": 1}', "\0" * 100):
        path = forge(run, len(content) + 1)
        path.write_text(content)
        take(run, timing=soon)
    forge(run, 200, silent_seconds=1e12)  # taken as unreadable
    take(run, timing=soon)
    path = run.path / "lock" / "00000300.json"
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="00000300"):
        take(run)
    path.unlink()
    os.mkfifo(path)
    take(run, timing=soon)


@pytest.mark.parametrize(
    ("state", "dead"), [("CANCELLED", True), ("RUNNING", False), ("NODE_FAIL", False)]
)
def test_slurm_is_believed_where_it_has_ended_the_job(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, dead: bool
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, says in (("squeue", state), ("scontrol", "ClusterName = here")):
        (tools / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)

    def give_up() -> bool:
        return True

    for cluster, in_job in (("here", True), ("there", True), ("here", False)):
        path = forge(run, job_id="17", cluster=cluster, in_job=in_job, silent_seconds=3000.0)
        if dead and cluster == "here" and in_job:
            take(run, stop=give_up)
        else:
            with pytest.raises(WaitInterruptedError):
                take(run, stop=give_up)
        path.unlink(missing_ok=True)
        (run.path / "lock/00000002.released").unlink(missing_ok=True)


def test_an_interrupted_wait_ends_as_unfinished(run: RunDir) -> None:
    forge(run, silent_seconds=3000.0)
    with pytest.raises(WaitInterruptedError) as interrupted:
        take(run, stop=lambda: True)
    assert interrupted.value.exit_status == 75


# --- who is no second writer ----------------------------------------------------------------------


def test_a_requeue_of_the_same_job_waits_for_its_earlier_start(run: RunDir, start: Start) -> None:
    job = {"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "here"}
    start("time.sleep(2)", environment=job | {"SLURM_RESTART_COUNT": "1"})
    with pytest.raises(LockedError):  # another step of the same start
        take(run, environment=job | {"SLURM_RESTART_COUNT": "1"})
    told = take(run, environment=job | {"SLURM_RESTART_COUNT": "2"})
    assert any("should end by itself" in line for line in told)


def test_one_that_holds_it_for_a_moment_is_waited_for(run: RunDir, start: Start) -> None:
    start("time.sleep(1.5)", brief=True)
    take(run)


def test_the_rank_takes_over_what_its_launcher_holds_and_nobody_else_does(run: RunDir) -> None:
    with hold(run, timing=QUICK) as launcher:
        with pytest.raises(LockedError):
            take(run, environment={HANDED_DOWN: "another"})
        environment = {HANDED_DOWN: launcher.token}
        rank = hold(run, timing=QUICK, environment=environment)
        with rank, pytest.raises(LockedError):  # what the rank starts has its environment
            take(run, environment=environment)
    take(run)


def test_a_fork_of_the_holder_neither_checks_nor_gives_back(run: RunDir) -> None:
    with hold(run, timing=QUICK):
        child = os.fork()
        if child == 0:
            try:
                check(run, fresh=True)
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(LockedError):
            take(run)


# --- who has to stop ------------------------------------------------------------------------------


def test_a_holder_that_slept_too_long_writes_nothing_more(run: RunDir, start: Start) -> None:
    loop = "while True: time.sleep(0.2); lock.check(run); print('wrote', flush=True)"
    sleeper = start(loop, before=ELSEWHERE)
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "wrote\n"
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
    with hold(run, timing=QUICK, environment=NOWHERE):
        sleeper.send_signal(signal.SIGCONT)
        words = [line for line in sleeper.stdout if line != "wrote\n"]
        assert words[0].startswith("LostLockError")
        assert f"taken over by process {os.getpid()} on " in words[0]
        assert len(words) == 1
        check(run, fresh=True)


def test_a_lock_that_was_removed_by_hand_is_lost(run: RunDir) -> None:
    with hold(run, timing=QUICK):
        for entry in (run.path / "lock").iterdir():
            entry.unlink()
        with pytest.raises(LostLockError, match="removed"):
            check(run, fresh=True)
        assert lock.is_lost(run)
    check(run, fresh=True)  # what this process does not hold is not its business


# --- file systems ---------------------------------------------------------------------------------


def test_what_cannot_be_written_is_one_sentence(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left") as refused:
        take(run)
    assert refused.value.exit_status == 74
    assert leases(run) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is quickly full."""
    with tiny_disk(tmp_path / "disk", "256k") as place:
        yield place


def fill(place: Path) -> None:
    with contextlib.suppress(OSError), (place / "rest").open("wb", buffering=0) as rest:
        while rest.write(b"x" * 4096):
            pass


def test_the_pulse_goes_on_where_the_disk_is_full(small_disk: Path) -> None:
    run = RunDir(small_disk / "one")
    with hold(run, timing=QUICK):
        fill(small_disk)
        before = (run.path / "lock/00000001.json").stat().st_mtime_ns
        deadline = time.monotonic() + 20
        while (run.path / "lock/00000001.json").stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        check(run, fresh=True)
    assert leases(run) == ["00000001.released"]  # given back without a byte of room
