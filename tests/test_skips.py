"""Nothing skips silently: which tests may skip and why, and that continuous integration allows it
for want of a GPU only.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Every place in the tests that may skip, a reason for each. Never for want of data, which come
#: with the tests, or of a package that `make install` brings.
ALLOWED = {
    "tests/conftest.py": ["no GPU: each test marked `gpu`"],
    "tests/model/kernels/checks_fused_head.py": [
        "no GPU: the memory that a kernel takes",
        "no GPU: the waits of a kernel",
    ],
    "tests/launcher/conftest.py": ["no Slurm, or no root to start one"],
    "tests/launcher/slurm/test_cores.py": ["one core: two ranks want one each"],
    "tests/launcher/slurm/test_job_script.py": ["no shellcheck"],
    "tests/support/browser.py": ["no Chromium"],
    "tests/support/disks.py": ["no mounts: without root, and in some containers"],
}
SKIPPING = frozenset({"skip", "skipif", "skipTest", "SkipTest", "importorskip"})


def skips(path: Path) -> list[str]:
    """The names in a file by which pytest or unittest skips, one for each place."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    imported = [node.name for node in ast.walk(tree) if isinstance(node, ast.alias)]
    return [name for name in attributes + imported if name in SKIPPING]


def test_only_these_places_skip() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): skips(path)
        for path in sorted((ROOT / "tests").rglob("*.py"))
    }
    counts = {name: len(names) for name, names in found.items() if names}
    assert counts == {name: len(reasons) for name, reasons in ALLOWED.items()}
    assert not [name for name, names in found.items() if "importorskip" in names]


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    patterns = pytestconfig.getini("norecursedirs")
    folders = {
        part
        for path in (ROOT / "tests").rglob("test_*.py")
        for part in path.relative_to(ROOT).parts[:-1]
    }
    assert "build" in folders
    assert not [name for name in folders if any(fnmatch(name, one) for one in patterns)]


def test_continuous_integration_accepts_no_skip() -> None:
    assert "export ELECTRA_DIST_NO_SKIPS=1\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


CASES = """
import pytest

@pytest.fixture(scope="session")
def absent():
    pytest.skip("nothing here")

def test_in_a_fixture(absent):
    pass

def test_in_itself():
    pytest.skip("nothing here")

@pytest.mark.skipif(True, reason="nothing here")
def test_by_a_mark():
    pass

@pytest.mark.xfail(reason="known")
def test_that_is_known_to_fail():
    assert False

@pytest.mark.skipif(True, reason="needs a CUDA device")
def test_on_a_gpu():
    pass

def test_as_ever():
    pass
"""
MODULE = 'import pytest\npytest.importorskip("no_such_package")\n'


@pytest.mark.parametrize("refused", [False, True])
def test_what_skips_fails_where_nothing_may_skip(
    tmp_path: Path, repo_root: Path, refused: bool
) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\naddopts = -p conftest\n")
    environment = {key: value for key, value in os.environ.items() if "NO_SKIPS" not in key}
    environment["PYTHONPATH"] = os.pathsep.join([str(repo_root / "tests"), str(repo_root)])
    if refused:
        environment["ELECTRA_DIST_NO_SKIPS"] = "1"
    command = [sys.executable, "-m", "pytest", "-rA", "--continue-on-collection-errors"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if not refused:
        assert "1 passed, 5 skipped, 1 xfailed" in done.stdout, done.stdout
        return
    # an error is a failure of the fixture, of the mark, or of the module when it is collected
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 3 errors" in done.stdout, done.stdout
    assert done.stdout.count("Skipped: nothing here") >= 3
    assert "Skipped: could not import 'no_such_package'" in done.stdout
    assert "Nothing may skip where ELECTRA_DIST_NO_SKIPS is set." in done.stdout
