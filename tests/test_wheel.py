"""The wheel outside of a checkout: its commands, its files, its types for a user's own code.

One wheel is built and installed into a fresh environment, which finds the dependencies, and nothing
of the checkout, in the one that runs these tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = ("electra_dist", "data_tools", "launcher")
#: What a wheel is built from.
SOURCES = (
    *PACKAGES,
    "configs",
    "slurm",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
Say = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building writes into the folder that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*SOURCES, "tests", "benchmarks", "examples"):
        path = repo_root / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, source / name, ignore=ignored)
        else:
            shutil.copy(path, source / name)
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--quiet",
            "--disable-pip-version-check",
            "--wheel-dir",
            str(folder),
            str(source),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    shutil.rmtree(source)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment in which the wheel is installed.

    The dependencies come through a .pth file, behind the wheel. An editable installation of this
    project there hooks itself in by a .pth of its own, which is not followed from here.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(folder / "bin/python"),
            "install",
            "--no-deps",
            "--no-index",
            "--quiet",
            "--disable-pip-version-check",
            "--ignore-installed",
            str(wheel),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin"


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Say:
    """Run a program of the environment, in an empty folder; its output, its status checked."""

    def say(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "VIRTUAL_ENV", "MYPYPATH")
        }
        done = subprocess.run(
            [str(installed / words[0]), *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    return say


# --- what is in it --------------------------------------------------------------------------------


def test_it_has_every_module_of_the_packages_and_what_they_need(
    wheel: Path, repo_root: Path
) -> None:
    expected = {
        str(path.relative_to(repo_root))
        for package in PACKAGES
        for path in (repo_root / package).rglob("*")
        if path.suffix in (".py", ".typed", ".sbatch", ".json", ".html", ".css", ".js")
    }
    recipes = {f"electra_dist/shipped/{p.relative_to(repo_root)}" for p in _yaml(repo_root)}
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert names == expected | recipes
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "launcher/slurm/job.sbatch" in names


def _yaml(root: Path) -> list[Path]:
    """The recipes and the examples of cluster profiles."""
    return [*root.glob("configs/*.yaml"), *root.glob("slurm/clusters/*.yaml")]


def test_it_has_no_test_and_no_benchmark(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        tops = {name.partition("/")[0] for name in file.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


# --- what it does ---------------------------------------------------------------------------------


def test_the_command_knows_its_version(run: Say) -> None:
    from electra_dist import __version__

    assert run("electra-dist", "--version").stdout == f"electra-dist {__version__}\n"


def test_it_is_the_wheel_that_runs(run: Say, installed: Path) -> None:
    code = "import data_tools, electra_dist, launcher\n"
    code += "print(*(m.__file__ for m in (data_tools, electra_dist, launcher)))"
    for path in run("python", "-c", code).stdout.split():
        assert path.startswith(str(installed.parent))


def test_the_recipes_are_there(run: Say, repo_root: Path) -> None:
    text = (repo_root / "configs/quickstart.yaml").read_text()
    assert run("electra-dist", "config", "new", "quickstart").stdout == text
    listed = run("electra-dist", "config", "new").stdout.splitlines()
    assert len(listed) == len(list(repo_root.glob("configs/*.yaml")))
    code = "import electra_dist; print(electra_dist.load_config('quickstart').run.path)"
    assert run("python", "-c", code).stdout == "runs/quickstart\n"


def test_the_references_are_there(run: Say, repo_root: Path) -> None:
    code = (
        "from electra_dist.references import all_references\n"
        "print(*(reference.name for reference in all_references()))"
    )
    files = repo_root.glob("electra_dist/references/curves/*.json")
    names = sorted(path.stem for path in files)
    assert names
    assert run("python", "-c", code).stdout.split() == names


def test_the_launcher_finds_its_template_and_the_cluster_profiles(
    run: Say, repo_root: Path
) -> None:
    assert "--cluster" in run("electra-dist", "launch", "slurm", "--help").stdout
    code = (
        "from electra_dist.files.shipped import shipped_folder\n"
        "from launcher.slurm.job_script import TEMPLATE\n"
        "print(TEMPLATE.stat().st_size)\n"
        "print(*sorted(path.name for path in shipped_folder('slurm/clusters').iterdir()))"
    )
    size, names = run("python", "-c", code).stdout.splitlines()
    assert int(size) == (repo_root / "launcher/slurm/job.sbatch").stat().st_size
    profiles = sorted(path.name for path in (repo_root / "slurm/clusters").glob("*.yaml"))
    assert names.split() == profiles


# --- its types ------------------------------------------------------------------------------------

RIGHT = """
from collections.abc import Iterator
from pathlib import Path

import electra_dist


def loss_of(name: str) -> float:
    config = electra_dist.load_config("quickstart", {"run.name": name})
    trained = electra_dist.train_run(config, verbose=True)
    path: Path = trained.path
    evaluation = electra_dist.evaluate_run(path, rows="all", passages=2)
    return evaluation.generator.loss


def texts(shards: electra_dist.Shards) -> Iterator[str]:
    for document in shards.documents("validation"):
        yield document.text


def shape(config_file: str) -> tuple[int, ...]:
    step = next(electra_dist.stream_steps(electra_dist.load_config(config_file)))
    return step.micro_batches[0].inputs.shape


def best(folder: str) -> str:
    try:
        report = electra_dist.finetune_model(folder, "train.tsv", "out", lr=1e-4)
    except electra_dist.DataError as error:
        return str(error)
    return str(electra_dist.predict(report.out, ["a text"]).items[0]["predicted"])
"""

#: A wrong line, and what mypy says of it.
WRONG = {
    "electra_dist.train_run('quickstart')": "arg-type",
    "electra_dist.load_config(17)": "arg-type",
    "electra_dist.open_shards('s').documents('test')": "arg-type",
    "electra_dist.export_run('r', 'o', network='both')": "arg-type",
    "electra_dist.evaluate_run('r', row=3)": "call-arg",
    "electra_dist.open_shards('s').tokens": "attr-defined",
    "electra_dist.train_model": "attr-defined",
}


#: Large packages whose types these lines do not use: reading them takes a minute.
SETTINGS = """
[mypy]
[mypy-torch.*,transformers.*,tokenizers.*,rich.*,wandb.*]
follow_imports = skip
ignore_missing_imports = True
"""


def test_mypy_sees_the_types_in_the_code_of_a_user(run: Say, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    calls = "".join(f"{line}\n" for line in WRONG)
    script.write_text(f"{RIGHT}\n\n{calls}")
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    printed = run("python", "-m", "mypy", "--strict", script.name, status=1).stdout
    first = script.read_text().splitlines().index(next(iter(WRONG))) + 1
    for number, (line, kind) in enumerate(WRONG.items(), start=first):
        assert any(
            said.startswith(f"script.py:{number}:") and said.endswith(f"[{kind}]")
            for said in printed.splitlines()
        ), f"{line}\n{printed}"
    errors = [said for said in printed.splitlines() if ": error: " in said]
    assert len(errors) == len(WRONG), printed
