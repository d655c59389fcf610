"""A rank that no launcher keeps a log of keeps one itself:
every line, at once, whatever becomes of either stream.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from electra_dist.errors import DivergedError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.own_log import LOGGED_VARIABLE, own_log
from launcher.logs import log_file


def test_what_is_printed_stands_on_the_terminal_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = RunDir(tmp_path), sys.stdout
    with own_log(run, {}, 4):
        print("step 1")
        print("careful", file=sys.stderr)
        # before the end: a kill loses nothing
        assert log_file(run, 0).read_text().endswith("\nstep 1\ncareful\n")
    print("later")
    assert sys.stdout is before
    seen, text = capsys.readouterr(), log_file(run, 0).read_text()
    assert (seen.out, seen.err) == ("step 1\nlater\n", "careful\n")
    assert " rank 0 of 4: " in text.splitlines()[0]
    assert "later" not in text


def test_the_log_has_the_reason_that_is_printed_outside_of_it(tmp_path: Path) -> None:
    with pytest.raises(DivergedError), own_log(RunDir(tmp_path), {}):
        raise DivergedError("diverged at step 7")
    with pytest.raises(ZeroDivisionError), own_log(RunDir(tmp_path), {}):
        print(1 / 0)
    text = log_file(RunDir(tmp_path), 0).read_text()
    assert "\nerror: diverged at step 7\n" in text
    assert text.endswith("\nZeroDivisionError: division by zero\n")


def test_a_rank_whose_output_is_kept_keeps_no_second_log(tmp_path: Path) -> None:
    with own_log(RunDir(tmp_path), {LOGGED_VARIABLE: "yes"}):
        print("step 1")
    assert not (tmp_path / "logs").exists()


def test_a_log_that_cannot_be_written_stops_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("in the way")
    with own_log(RunDir(tmp_path), {}):
        print("step 1")
    seen = capsys.readouterr()
    assert seen.out == "step 1\n"
    assert seen.err.startswith(f"warning: {tmp_path}/logs/rank-0.log: this run has no log: ")


def test_a_reader_that_leaves_takes_nothing_from_the_log(tmp_path: Path) -> None:
    """As in `electra-dist train ... | head -1`."""
    program = (
        "import sys; from pathlib import Path; from electra_dist.console import"
        " outlive_readers;from electra_dist.runs.own_log import own_log; from"
        " electra_dist.runs.directory import RunDir; outlive_readers()\n"
        "with own_log(RunDir(Path(sys.argv[1])), {}):\n"
        "    for step in range(20000): print('step', step)"
    )
    command = f'"{sys.executable}" -c "$0" "$1" | head -1'
    subprocess.run(
        ["bash", "-c", command, program, str(tmp_path)],
        env=os.environ,
        check=True,
        capture_output=True,
    )
    assert log_file(RunDir(tmp_path), 0).read_text().endswith("\nstep 19999\n")
