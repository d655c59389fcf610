"""The container recipes: linted, alike, of the versions of constraints.txt, and with all files that
a build needs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from electra_dist import __version__

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "containers"
DOCKERFILE = FOLDER / "Dockerfile"
DEFINITION = FOLDER / "electra-dist.def"
#: Sections of the definition, in order.
SECTIONS = ("labels", "files", "post", "environment", "runscript", "test", "help")
SOURCES = "/opt/electra-dist"


def instructions() -> list[tuple[str, str]]:
    """(name, arguments) of every instruction of the Dockerfile, continued lines joined."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return re.findall(r"^([A-Z]+) (.+)$", joined, re.M)


def section(name: str) -> list[str]:
    """The lines of one section of the definition, without indentation."""
    text = DEFINITION.read_text(encoding="utf-8")
    found = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", text, re.M | re.S)
    assert found is not None, f"{DEFINITION.name}: no %{name}"
    return [line.strip() for line in found[1].splitlines() if line.strip()]


def docker_labels() -> dict[str, str]:
    """The labels of the Dockerfile."""
    texts = [arguments for name, arguments in instructions() if name == "LABEL"]
    return dict(re.findall(r'([\w.]+)="([^"]*)"', " ".join(texts)))


def definition_labels() -> dict[str, str]:
    """The labels of the definition."""
    pairs = [tuple(line.split(maxsplit=1)) for line in section("labels")]
    return dict(pairs)


def docker_copies() -> list[tuple[str, str]]:
    """(source, target) of everything that the Dockerfile copies."""
    copies: list[tuple[str, str]] = []
    for name, arguments in instructions():
        if name == "COPY":
            *sources, target = arguments.split()
            into_folder = target.endswith("/")
            for source in sources:
                copies.append((source, target + Path(source).name if into_folder else target))
    return copies


def definition_copies() -> list[tuple[str, str]]:
    """The same of the definition."""
    pairs = [line.split() for line in section("files")]
    return [(source, target) for source, target in pairs]


BOTH = pytest.mark.parametrize("copies", [docker_copies, definition_copies])


def test_hadolint_finds_nothing() -> None:
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    command = [str(program), "--no-color", str(DOCKERFILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_script_is_valid_bash() -> None:
    script = str(FOLDER / "install.sh")
    subprocess.run(["bash", "-n", script], check=True, timeout=60)
    if linter := shutil.which("shellcheck"):
        done = subprocess.run([linter, script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_definition_has_its_sections_in_order() -> None:
    text = DEFINITION.read_text(encoding="utf-8")
    assert tuple(re.findall(r"^%(\w+)$", text, re.M)) == SECTIONS
    assert all(section(name) for name in SECTIONS)
    assert re.search(r"^Bootstrap: docker\nFrom: \S+:\S+$", text, re.M)


def test_both_recipes_start_from_the_same_image_and_run_the_same_script() -> None:
    base = dict(instructions())["FROM"]
    assert f"\nFrom: {base}\n" in DEFINITION.read_text(encoding="utf-8")
    runs = " ".join(arguments for name, arguments in instructions() if name == "RUN")
    stages = re.findall(r"install-electra-dist (\w+)", runs)
    assert stages == ["system", "dependencies", "project"]
    assert section("post") == [f"install-electra-dist {stage}" for stage in stages]


@pytest.mark.parametrize("labels", [docker_labels, definition_labels])
def test_the_labels_name_the_versions_of_constraints_txt(
    labels: Callable[[], dict[str, str]],
) -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.M))
    found = labels()
    assert found["org.opencontainers.image.version"] == __version__
    named = [name for name in found if name.startswith("version.")]
    assert len(named) == 3
    for name in named:
        assert found[name] == pins[name.removeprefix("version.")], name


def test_both_recipes_have_the_same_labels_and_environment() -> None:
    assert docker_labels() == definition_labels()
    values = dict(instructions())["ENV"]
    for line in section("environment"):
        assert line.removeprefix("export ") in values


def test_the_image_runs_as_a_user_that_is_not_root() -> None:
    users = [arguments for name, arguments in instructions() if name == "USER"]
    assert users
    assert users[-1] not in ("root", "0")


def test_no_recipe_holds_a_secret() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").lower()
        assert not re.search(r"(key|token|password|secret)\s*=\s*\S", text), path.name


@BOTH
def test_everything_that_is_copied_exists_and_is_sent_to_the_builder(
    copies: Callable[[], list[tuple[str, str]]],
) -> None:
    sent = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert sent[1] == "*"
    for source, _ in copies():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in sent, source


@BOTH
def test_what_is_copied_is_enough_to_build_the_package(
    copies: Callable[[], list[tuple[str, str]]], tmp_path: Path
) -> None:
    for source, target in copies():
        if not target.startswith(SOURCES):
            continue
        place = tmp_path / "sources" / target.removeprefix(SOURCES).strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, symlinks=True)
        else:
            shutil.copy(ROOT / source, place)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options]
    command += ["--wheel-dir", str(tmp_path / "wheels"), str(tmp_path / "sources")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").glob("electra_dist-*.whl")
    names = [Path(name).name for name in zipfile.ZipFile(wheel).namelist()]
    for name in ("errors.py", "job.sbatch", "apptainer.yaml"):
        assert name in names, f"{name} is not in the wheel"
