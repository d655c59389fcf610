"""`config new`: the recipes that come with the program, printed or written as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from electra_dist import config as configuration
from electra_dist.cli import main as cli
from electra_dist.config.recipes import recipe_names, recipes
from electra_dist.errors import EXIT_STORAGE, EXIT_USER_ERROR, ConfigError
from electra_dist.files.writing import write_whole_new


@pytest.fixture(scope="module")
def files(repo_root: Path) -> dict[str, str]:
    """Name and text of every recipe of the repository."""
    return {path.stem: path.read_text() for path in (repo_root / "configs").glob("*.yaml")}


def test_a_recipe_is_printed_as_it_is_comments_included(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        assert cli.main(["config", "new", name]) == 0
        assert capsys.readouterr().out == text
    assert "# " in files["quickstart"]


def test_what_is_printed_is_a_configuration(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in files:
        cli.main(["config", "new", name])
        path = tmp_path / f"{name}.yaml"
        path.write_text(capsys.readouterr().out)
        assert configuration.load(path).run.name == name


def test_without_a_name_each_recipe_has_one_line(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", "new"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(files)
    assert all(len(line.split()) > 4 for line in lines)


def test_every_recipe_says_in_one_sentence_what_it_is() -> None:
    for recipe in recipes():
        assert recipe.about.endswith(".")
        assert len(recipe.about) < 200


def test_an_unknown_name_lists_what_there_is_but_not_into_the_output(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", "new", "quikstart"]) == EXIT_USER_ERROR
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "did you mean 'quickstart'" in printed.err
    assert [line.split()[0] for line in printed.err.splitlines()[:-1]] == sorted(files)


@pytest.mark.parametrize("name", ["../setup", "", "/etc/passwd", "quickstart.yaml"])
def test_only_names_are_taken(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "new", name]) == EXIT_USER_ERROR
    assert capsys.readouterr().out == ""


def test_a_file_is_written_once_and_never_overwritten(
    files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "my.yaml"
    assert cli.main(["config", "new", "base", "--out", str(out)]) == 0
    assert out.read_text() == files["base"]
    assert cli.main(["config", "new", "large", "--out", str(out)]) == EXIT_USER_ERROR
    assert f"--out {out}: exists already" in capsys.readouterr().err
    assert out.read_text() == files["base"]
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_a_link_that_points_nowhere_is_not_written_through(tmp_path: Path) -> None:
    link = tmp_path / "my.yaml"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_whole_new(link, "text")
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_cannot_be_written_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "nowhere" / "my.yaml"
    assert cli.main(["config", "new", "base", "--out", str(out)]) == EXIT_STORAGE
    assert f"--out {out}: cannot be written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, text: str, encoding: str) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_whole_new(tmp_path / "my.yaml", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_needs_the_name_of_a_recipe(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["config", "new", "--out", str(tmp_path / "my.yaml")]) == EXIT_USER_ERROR
    assert "NAME" in capsys.readouterr().err


def test_the_library_names_the_recipes_that_there_are() -> None:
    from electra_dist.config.recipes import read_recipe

    with pytest.raises(ConfigError, match=", ".join(recipe_names())):
        read_recipe("nothing")
