"""Losing standard output never ends a command that works, nor looks like success;
printing commands end quietly.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from electra_dist.console import human_bytes, human_number, human_seconds

WORK = """
import os, sys
from electra_dist.console import open_missing_streams, outlive_readers, put
open_missing_streams()
outlive_readers()
os.read(int(sys.argv[1]), 1)
for number in range(1000):
    print("a line", number)
    put("another", to_error=True)
print("x" * 100_000, flush=True)
sys.exit(75)
"""


def test_work_goes_on_without_its_readers_and_keeps_its_status() -> None:
    ready, go = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", WORK, str(ready)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[ready],
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stderr.close()
        os.write(go, b"x")
        assert process.wait(30) == 75


def test_a_full_disk_under_the_log_loses_the_text_only() -> None:
    with open("/dev/full", "w") as full:
        ready, go = os.pipe()
        os.write(go, b"x")
        command = [sys.executable, "-c", WORK, str(ready)]
        done = subprocess.run(command, stdout=full, stderr=full, pass_fds=[ready], timeout=30)
    assert done.returncode == 75


def test_closed_streams_leave_no_number_for_a_file_of_the_run(tmp_path: Path) -> None:
    code = (
        "import os; from electra_dist.console import open_missing_streams; open_missing_streams()\n"
        f"number = os.open({str(tmp_path / 'metrics.jsonl')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "os._exit(number)"
    )
    closed = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], timeout=30
    )
    assert closed.returncode == 3


def test_a_command_that_prints_ends_with_its_reader() -> None:
    command = (
        f"{sys.executable} -m electra_dist.cli config schema | head -1; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(20, "0m20s"), (90, "1m30s"), (5400, "1h30m"), (129600, "1d12h")]
)
def test_time_is_told_in_the_two_largest_units(seconds: float, shown: str) -> None:
    assert human_seconds(seconds) == shown


def test_bytes_and_undefined_figures_are_told_in_one_way() -> None:
    assert [human_bytes(n) for n in (2.5e6, 3.2e8, 1.234e9)] == ["2.5 MB", "320 MB", "1.23 GB"]
    assert [human_number(v) for v in (0.12345, None, float("nan"))] == [
        "0.123",
        "undefined",
        "undefined",
    ]
