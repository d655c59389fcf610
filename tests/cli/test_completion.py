"""`electra-dist completion`: bash completes commands, options and files with the printed script."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from electra_dist.cli import main as cli

#: Sources the script, completes the last of the words given, and prints one proposal per line.
COMPLETE = """
source "$1"
shift
function=$(complete -p electra-dist | sed -E 's/.* -F ([^ ]+) .*/\\1/')
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
COMP_TYPE=9
"$function" electra-dist "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script for bash."""
    assert cli.main(["completion", "bash"]) == 0
    path = tmp_path / "electra-dist.bash"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash proposes for the last of the words behind `electra-dist`."""
    command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), "electra-dist", *words]
    done = subprocess.run(
        command,
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if line]


def commands() -> list[str]:
    """The commands of the command line."""
    for action in cli.build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return list(action.choices)
    raise AssertionError("no commands")


def test_the_script_is_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)


def test_a_command_is_completed(script: Path) -> None:
    assert completed(script, "fine") == ["finetune"]
    assert sorted(completed(script, "")) == sorted(commands())


def test_a_subcommand_is_completed(script: Path) -> None:
    assert completed(script, "launch", "") == ["local", "slurm"]
    assert completed(script, "checkpoint", "v") == ["verify"]


def test_an_option_and_its_values_are_completed(script: Path) -> None:
    assert completed(script, "export", "--net") == ["--network"]
    assert completed(script, "export", "--network", "d") == ["discriminator"]


def test_a_configuration_and_a_run_are_completed_as_files(script: Path) -> None:
    (script.parent / "my-run.yaml").touch()
    assert completed(script, "train", "my-") == ["my-run.yaml"]
    (script.parent / "runs").mkdir()
    assert completed(script, "report", "ru") == ["runs"]


def test_zsh_gets_every_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["completion", "zsh"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#compdef electra-dist")
    for command in commands():
        assert re.search(rf"^\s+{command}:", text, re.M), command
    if zsh := shutil.which("zsh"):
        path = tmp_path / "_electra-dist"
        path.write_text(text, encoding="utf-8")
        subprocess.run([zsh, "-n", str(path)], check=True, timeout=60)


def test_another_shell_is_refused_with_the_possible_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["completion", "tcsh"])
    printed = capsys.readouterr().err
    assert "bash" in printed
    assert "zsh" in printed
