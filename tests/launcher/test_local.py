"""Ranks on one machine start together, end together, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_dist.errors import EXIT_HANG, EXIT_UNFINISHED, StorageError, UserError
from launcher.local import Patience, launch_local

QUICK = Patience(after_crash=0.5, after_unfinished=0.5, after_terminate=0.5)


def python(body: str) -> list[str]:
    head = "import os, signal, sys, time, pathlib\nrank = int(os.environ['RANK'])\n"
    return [sys.executable, "-c", head + textwrap.dedent(body)]


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a launcher as a process of its own and returns once every rank has made `ready-N`."""

    def start(body: str, processes: int = 2) -> subprocess.Popen[str]:
        command = python(f"mark = pathlib.Path({str(tmp_path)!r})\n{textwrap.dedent(body)}")
        script = (
            "import sys; from pathlib import Path; from launcher.local import Patience,"
            " launch_local\n"
            f"patience = Patience({QUICK.after_crash}, 5.0, {QUICK.after_terminate})\n"
            f"sys.exit(launch_local({command!r}, {processes}, Path({str(tmp_path)!r}),"
            " patience=patience))"
        )
        launcher = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 30
        while len(list(tmp_path.glob("ready-*"))) < processes:
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return launcher

    return start


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


READY = "(mark / f'ready-{rank}').write_text(str(os.getpid()))"


def test_every_rank_gets_its_place_in_the_world(tmp_path: Path) -> None:
    body = """
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
        names += ("MASTER_PORT", "EXTRA")
        print(*(os.environ[name] for name in names))
    """
    assert launch_local(python(body), 3, tmp_path, environment={**os.environ, "EXTRA": "a b"}) == 0
    lines = [
        (tmp_path / f"rank-{r}.log").read_text().splitlines()[-1].split(" ", 6) for r in range(3)
    ]
    assert [line[:2] for line in lines] == [[str(r), str(r)] for r in range(3)]
    assert {tuple(line[2:5]) for line in lines} == {("3", "3", "127.0.0.1")}
    assert len({line[5] for line in lines}) == 1
    assert {line[6] for line in lines} == {"a b"}


@pytest.mark.parametrize("given", [None, "7"])
def test_threads_are_shared_out_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environment = {**os.environ, **({"OMP_NUM_THREADS": given} if given else {})}
    launch_local(
        python("print(os.environ['OMP_NUM_THREADS'])"), 2, tmp_path, environment=environment
    )
    expected = given or str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert (tmp_path / "rank-1.log").read_text().splitlines()[-1] == expected


def test_rank_0_is_on_the_terminal_and_every_start_is_appended_to_the_logs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = python("print('out', rank); print('problem', rank, file=sys.stderr)")
    for _ in range(2):
        assert launch_local(command, 2, tmp_path) == 0
    assert capfd.readouterr().out == "out 0\nproblem 0\n" * 2
    for rank in range(2):
        log = (tmp_path / f"rank-{rank}.log").read_text()
        assert log.count(f"rank {rank} of 2: ") == 2
        assert log.count(f"out {rank}\n") == log.count(f"problem {rank}\n") == 2


def test_a_crash_ends_the_others_after_the_grace_period_and_shows_its_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = python("""
        if rank == 1:
            print("what went wrong"); sys.exit(3)
        time.sleep(60)
    """)
    before = time.monotonic()
    assert launch_local(command, 2, tmp_path, patience=QUICK) == 3
    assert 0.5 <= time.monotonic() - before < 10
    error = capfd.readouterr().err
    assert "rank 1 of 2 failed with exit code 3" in error
    assert "rank 1 | what went wrong" in error


def test_others_may_end_with_their_own_message_in_the_grace_period(tmp_path: Path) -> None:
    command = python("time.sleep(0.3 * rank); print('same error', rank); sys.exit(2)")
    assert launch_local(command, 2, tmp_path, patience=Patience(after_crash=20)) == 2
    assert "same error 1" in (tmp_path / "rank-1.log").read_text()


@pytest.mark.parametrize(
    ("codes", "expected"), [((75, 75), 75), ((75, 0), 75), ((75, 1), 1), ((0, 0), 0), ((0, 4), 4)]
)
def test_75_is_kept_unless_a_rank_crashed(
    tmp_path: Path, codes: tuple[int, int], expected: int
) -> None:
    command = python(f"time.sleep(0.1 * rank); sys.exit({codes}[rank])")
    assert launch_local(command, 2, tmp_path) == expected


def test_a_rank_killed_by_a_signal_is_named_with_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = python("os.kill(os.getpid(), signal.SIGKILL) if rank else time.sleep(60)")
    assert launch_local(command, 2, tmp_path, patience=QUICK) == 137
    assert "rank 1 of 2 was killed by SIGKILL" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_rank_exactly_once(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]], number: int
) -> None:
    launcher = started(f"""
        seen = []
        signal.signal({int(number)}, lambda *_: seen.append(1))
        {READY}
        while not seen: time.sleep(0.01)
        time.sleep(0.5)
        (mark / f"seen-{{rank}}").write_text(str(len(seen)))
        sys.exit(75)
    """)
    launcher.send_signal(number)
    launcher.send_signal(number) if number != signal.SIGINT else None
    assert launcher.wait(20) == 75
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in range(2)] == ["1", "1"]


def test_a_second_interrupt_kills(started: Callable[..., subprocess.Popen[str]]) -> None:
    launcher = started(f"signal.signal(signal.SIGINT, signal.SIG_IGN)\n{READY}\ntime.sleep(60)")
    launcher.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(10) == 137


def asked_to_end(tmp_path: Path, body: str, patience: str) -> tuple[int, str]:
    """A launch of two ranks that are sent SIGTERM once they are ready:
    its exit code and what it printed.
    """
    command = python(f"mark = pathlib.Path({str(tmp_path)!r})\n{textwrap.dedent(body)}")
    script = (
        "import sys; from pathlib import Path; from launcher import local; from"
        " electra_dist.runs.directory import RunDir\n"
        "from electra_dist.runs.progress import read_vitals; local._LOOK_SECONDS,"
        " local._WATCHDOG_MARGIN = 0.1, 0.0\n"
        f"where = Path({str(tmp_path)!r})\n"
        f"sys.exit(local.launch_local({command!r}, 2, where, patience=local.Patience({patience}),"
        " vitals=lambda: read_vitals(RunDir(where))))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True
    ) as launcher:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("ready-*"))) < 2:
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        launcher.send_signal(signal.SIGTERM)
        said = launcher.communicate(timeout=60)[1]
    return launcher.returncode, said


def test_ranks_that_do_not_move_after_a_signal_are_ended(tmp_path: Path) -> None:
    body = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}\ntime.sleep(100)"
    code, said = asked_to_end(tmp_path, body, "after_signal=1.0, after_terminate=0.5")
    assert code == EXIT_HANG
    assert "no progress for 1 s since the ranks were asked to end" in said
    assert "ending ranks 0, 1, still running" in said


def test_ranks_that_move_after_a_signal_are_let_finish(tmp_path: Path) -> None:
    body = f"""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        from electra_dist.runs.directory import RunDir
        from electra_dist.parallel.signs import doing
        from electra_dist.runs.progress import write_vitals
        {READY}
        for count in range(40):
            if rank == 0:
                write_vitals(RunDir(mark), doing(), count, 0.0, 2.0)
            time.sleep(0.1)
        sys.exit(75)
    """
    assert asked_to_end(tmp_path, body, "after_signal=2.0")[0] == EXIT_UNFINISHED


def test_ranks_die_with_a_killed_launcher(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    launcher = started(f"{READY}\ntime.sleep(60)")
    launcher.kill()
    launcher.wait()
    assert all(gone(int((tmp_path / f"ready-{rank}").read_text())) for rank in range(2))


def test_helpers_of_a_rank_do_not_outlive_the_launch(tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    command = python(f"""
        import subprocess
        process = subprocess.Popen(["sleep", "60"])
        pathlib.Path({str(helper)!r}).write_text(str(process.pid))
    """)
    assert launch_local(command, 1, tmp_path) == 0
    assert gone(int(helper.read_text()))


@pytest.mark.parametrize(("command", "processes"), [(["true"], 0), (["no-such-program-here"], 2)])
def test_impossible_launches_are_refused(
    tmp_path: Path, command: list[str], processes: int
) -> None:
    with pytest.raises(UserError):
        launch_local(command, processes, tmp_path)


def test_a_log_that_cannot_be_written_ends_the_launch_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "rank-1.log").symlink_to("/dev/full")
    with pytest.raises(
        StorageError, match=r"rank-1\.log: the log cannot be written: no space left"
    ):
        launch_local(python("time.sleep(60)"), 2, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="the logs cannot be written"):
        launch_local(python("pass"), 1, tmp_path / "file" / "logs")
