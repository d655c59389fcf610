"""The quick start asks for commands that exist. All of it takes ten minutes, this a second."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from electra_dist.cli.main import build_parser


@pytest.fixture
def quickstart(repo_root: Path) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(
        "quickstart", repo_root / "examples/quickstart.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_of_the_quick_start_is_understood(
    quickstart: ModuleType, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(quickstart, "_run", lambda *words: asked.append(words))
    monkeypatch.setattr(
        quickstart, "_run_and_interrupt", lambda words, run, step: asked.append(words)
    )
    monkeypatch.setattr(quickstart, "_check_learned", lambda run: None)
    monkeypatch.setattr(quickstart, "_processes", lambda: 2)
    monkeypatch.setattr(quickstart, "CONFIG", repo_root / quickstart.CONFIG)
    monkeypatch.chdir(tmp_path)
    quickstart._quickstart([])
    parser = build_parser()
    for words in asked:
        parser.parse_args(words)
    commands = [" ".join(words[:2]) for words in asked]
    assert commands[:4] == ["data corpus", "data tokenizer", "data build", "data inspect"]
    assert [words[0] for words in asked[4:]] == [
        "launch",
        "launch",
        "export",
        "export",
        "evaluate",
        "report",
    ]
