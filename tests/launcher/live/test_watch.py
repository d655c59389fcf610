"""`electra-dist watch` as a person uses it: a real process on a terminal, keys, other sizes,
no colours, no Unicode, no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from electra_dist.runs.directory import RunDir
from tests.support.terminal import Terminal

WATCH = [sys.executable, "-m", "electra_dist.cli", "watch"]
ROOT = Path(__file__).resolve().parents[3]
#: No Slurm is found, and the packages of this checkout are.
BARE = {**os.environ, "PATH": "/nowhere", "PYTHONPATH": str(ROOT)}


def once(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*WATCH, *arguments], env=BARE | variables, capture_output=True, timeout=60, check=False
    )


def append(run: RunDir, step: int) -> None:
    row = {"step": step, "loss/generator": 6.0 - step / 50, "loss/discriminator": 0.4}
    with run.metrics.open("a") as file:
        file.write("\n" + json.dumps(row) + "\n")


def test_the_view_follows_a_run_and_q_leaves_the_terminal_as_it_was(run: RunDir) -> None:
    with Terminal([*WATCH, str(run.path), "--every", "0.2"], environment=BARE, rows=24) as terminal:
        terminal.until(lambda lines: any("step 25 of 100" in line for line in lines))
        append(run, 60)
        shown = terminal.until(lambda lines: any("step 60 of 100" in line for line in lines))
        assert any(line.startswith("loss/generator 4.800") for line in shown)
        terminal.resize(100, 30)
        terminal.until(lambda lines: len(lines[0]) == 100)
        assert terminal.settings() != terminal.before
        terminal.send("q")
        assert terminal.wait() == 0
        assert terminal.settings() == terminal.before
        # the alternate screen was left, and the last frame stays
        assert terminal.written.rindex(b"\x1b[?1049l") > terminal.written.index(b"\x1b[?1049h")
        assert b"\x1b[?25h" in terminal.written
        assert b"step 60 of 100" in terminal.written[terminal.written.rindex(b"\x1b[?1049l") :]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_as_it_was(run: RunDir, number: signal.Signals) -> None:
    with Terminal([*WATCH, str(run.path)], environment=BARE) as terminal:
        terminal.until(lambda lines: any("step 25 of 100" in line for line in lines))
        if number == signal.SIGINT:
            terminal.send("\x03")
        else:
            terminal.process.send_signal(number)
        assert terminal.wait() == 0
        assert terminal.settings() == terminal.before
        assert b"\x1b[?1049l" in terminal.written


def test_a_run_that_vanishes_is_a_line_and_the_view_goes_on(run: RunDir, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        shutil.copy(run.config, folder / name)
        shutil.copy(run.metrics, folder / name)
    with Terminal([*WATCH, str(folder), "--every", "0.2"], environment=BARE) as terminal:
        terminal.until(lambda lines: any(line.startswith("b ") for line in lines))
        shutil.rmtree(folder / "b")
        terminal.until(lambda lines: any(line.split()[:2] == ["b", "gone"] for line in lines))
        terminal.send("q")
        assert terminal.wait() == 0


def test_a_terminal_without_colours_or_unicode_gets_plain_ascii(run: RunDir) -> None:
    variables = BARE | {"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}
    with Terminal([*WATCH, str(run.path), "--once"], environment=variables) as terminal:
        assert terminal.wait() == 0
        terminal.written.decode("ascii")
        assert b"\x1b[3" not in terminal.written  # no colour
        assert "####" in terminal.lines()[1]


def test_one_frame_goes_into_a_pipe(run: RunDir) -> None:
    done = once(str(run.path), "--once")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    done = once(str(run.path), "--once", "--json")
    content = json.loads(done.stdout)
    assert content["best"] is None
    (one,) = content["runs"]
    assert (one["step"], one["steps"], one["last"]["loss/generator"]) == (25, 100, 6.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN"], "standard output is no terminal"),
        (["RUN", "--json"], "--json prints one frame: give --once with it"),
        (["RUN", "--once", "--every", "0"], "--every 0: expected at least 0.2 seconds"),
        (["RUN", "nowhere", "--once"], "nowhere: not a run directory"),
    ],
)
def test_a_mistake_is_one_sentence(run: RunDir, arguments: list[str], words: str) -> None:
    done = once(*(str(run.path) if word == "RUN" else word for word in arguments))
    assert done.returncode == 2
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert words in line


def test_the_view_needs_no_torch(run: RunDir) -> None:
    code = (
        "import sys\n"
        "from electra_dist.cli.main import main\n"
        f"assert main(['watch', {str(run.path)!r}, '--once']) == 0\n"
        "heavy = {'torch', 'deepspeed', 'transformers', 'wandb', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=BARE, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
