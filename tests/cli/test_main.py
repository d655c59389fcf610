"""The command line itself: complete help, one-line errors, exit statuses,
overrides on either side of options.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from electra_dist import config as configuration
from electra_dist.cli import main as cli
from electra_dist.errors import EXIT_USER_ERROR


def leaves(
    parser: argparse.ArgumentParser, name: str = "electra-dist"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that runs something, with its full name."""
    groups = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    if not groups:
        yield name, parser
    for group in groups:
        for word, inner in group.choices.items():
            yield from leaves(inner, f"{name} {word}")


COMMANDS = dict(leaves(cli.build_parser()))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_argument_and_has_examples_that_parse(name: str) -> None:
    parser = COMMANDS[name]
    text = parser.format_help()
    assert "examples:" in text
    for action in parser._actions:
        assert action.help, f"{name}: {action.dest} has no help"
    examples = [
        line.strip() for line in (parser.epilog or "").splitlines() if line.strip().startswith(name)
    ]
    assert examples, f"{name}: no example of the command itself"
    for example in examples:
        words = example.partition("   ")[0].partition(" > ")[0].split()
        cli._parse(words[1:])


def test_show_prints_the_resolved_file(repo_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(repo_root / "configs/quickstart.yaml")
    assert cli.main(["config", "show", path, "optim.lr=2e-3", "--json", "zero.stage=1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["optim"]["lr"], shown["zero"]["stage"]) == (2e-3, 1)


def test_whatever_else_is_printed_json_stays_json(
    repo_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries print to standard output when they are imported, or warn there."""
    load = configuration.load

    def loud(*arguments: object, **options: object) -> object:
        print("[INFO] a library says something")
        return load(*arguments, **options)

    monkeypatch.setattr(configuration, "load", loud)
    words = ["config", "show", str(repo_root / "configs/quickstart.yaml")]
    assert cli.main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["run"]["name"] == "quickstart"
    assert "a library says" in printed.err
    assert cli.main(words) == 0
    assert "a library says" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["config", "show", "nowhere.yaml"]) == EXIT_USER_ERROR
    printed = capsys.readouterr()
    assert printed.err == "error: nowhere.yaml: no such configuration file\n"
    assert printed.out == ""
    with pytest.raises(Exception, match="no such configuration file"):
        cli.main(["config", "show", "nowhere.yaml", "--debug"])


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "config.yaml", "--proceses", "2"])
    assert caught.value.code == 2
    assert "--proceses" in capsys.readouterr().err


def test_only_rank_0_prints_what_all_ranks_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "3")
    assert cli.main(["config", "show", "nowhere.yaml"]) == EXIT_USER_ERROR
    assert capsys.readouterr().err == ""
    assert cli.main(["data", "verify", "nowhere"]) == EXIT_USER_ERROR
    assert capsys.readouterr().err.strip().startswith("rank 3: error: ")


def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], repo_root: Path
) -> None:
    def without_torch(arguments: argparse.Namespace) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.distributed")

    monkeypatch.setattr("electra_dist.cli.prepare.config._show", without_torch)
    assert (
        cli.main(["config", "show", str(repo_root / "configs/quickstart.yaml")]) == EXIT_USER_ERROR
    )
    assert "pip install 'electra-dist[train]'" in capsys.readouterr().err


def test_the_command_runs_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU machine that has the repository and wheels of what it needs."""
    from importlib import metadata

    from electra_dist.runs.opening.start import software

    honest = metadata.version

    def version(name: str) -> str:
        if name == "electra-dist":
            raise metadata.PackageNotFoundError(name)
        return honest(name)

    monkeypatch.setattr(metadata, "version", version)
    assert cli.build_parser().prog == "electra-dist"
    assert software()["electra-dist"] == honest("electra-dist")
