"""A folder is whole or absent, and what it would replace is never lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from electra_dist.files.staging import whole_folder


def write_into(out: Path, name: str, fails: bool = False) -> None:
    with whole_folder(out) as folder:
        (folder / name).touch()
        if fails:
            raise ZeroDivisionError


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(ZeroDivisionError):
        write_into(out, "new", fails=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_a_folder_that_cannot_take_its_name_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name.endswith(".tmp"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OSError, match="no"):
        write_into(out, "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_a_block_that_ends_well_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for name in ("first", "second"):
        write_into(out, name)
    assert [path.name for path in out.parent.rglob("*")] == ["out", "second"]
