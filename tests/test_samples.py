"""What the tests read comes with the repository or is made by them: nothing lies elsewhere.

The sources of the tests and of the benchmarks are searched for paths that leave the repository. The
rules find mistakes, not malice.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"
MOST_BYTES = 300_000
README = "README.md"
#: What every Linux has: tests ask the kernel, name a program, or try to get at `/etc/passwd`.
SYSTEM = frozenset({"bin", "dev", "etc", "proc", "sys", "tmp", "usr"})
#: Folders in settings of clusters and containers that are written and never read, and parts of
#: addresses.
INVENTED = frozenset(
    {"a", "b", "c", "code", "d", "data", "elsewhere", "here", "home", "images", "lmod", "more"}
    | {"no", "nonexistent", "not", "nowhere", "one", "other", "r", "runs", "s", "scratch", "site"}
    | {"v", "venv", "x", "graphql", "file_stream", "main", "all", "shards", "predict", "docs"}
    | {
        "health",
        "metrics",
        "predictions",
        "written",
        "api",
        "commit",
        "info",
        "preupload",
        "upload",
    }
)
#: The home folder is looked at where the test is about what is left there.
ABOUT_HOME = ("tests/tracking/wandb/test_online.py", "tests/tracking/wandb/test_private.py")
#: Folders inside of an image, which no test opens.
OF_AN_IMAGE = {"tests/containers/test_containers.py": ["/opt"]}

ABSOLUTE = re.compile(r"(?:^|[\s=:,'\"(])/([A-Za-z][\w-]*)")
CLIMBING = re.compile(r"__file__\)(?:\.resolve\(\))?((?:\.parent\b)+|\.parents\[\d+\])")
ABOVE_ROOT = re.compile(r"\b(?:REPO_ROOT|ROOT|repo_root)\.parents?\b")
AT_HOME = re.compile(r"Path\.home\(|expanduser")


def sources() -> list[Path]:
    """The Python files of the tests and of the benchmarks, but this one, which names it all."""
    found = [path for name in ("tests", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    return sorted(path for path in found if path != Path(__file__).resolve())


def literals(source: str) -> Iterator[str]:
    """Texts that stand in a source and may begin a path.

    What follows on a value inside an f-string goes on with a path and begins none.
    """
    tree = ast.parse(source)
    continued: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            continued |= set(node.values[1:])
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in continued:
            yield node.value


def ways_out(source: str, depth: int) -> list[str]:
    """What in a source leads out of the repository; its file lies `depth` levels below the root."""
    found = ABOVE_ROOT.findall(source) + AT_HOME.findall(source)
    for climb in CLIMBING.findall(source):
        index = re.search(r"\d+", climb)
        if index is None:
            levels = climb.count(".parent")
        else:
            levels = int(index[0]) + 1
        if levels > depth:
            found.append(climb)
    for text in literals(source):
        found += [f"/{top}" for top in ABSOLUTE.findall(text) if top not in SYSTEM | INVENTED]
    return found


def test_no_test_and_no_benchmark_names_a_path_outside_the_repository() -> None:
    found: dict[str, list[str]] = {}
    for path in sources():
        name = path.relative_to(ROOT)
        if ways := ways_out(path.read_text(encoding="utf-8"), len(name.parts)):
            found[name.as_posix()] = sorted(set(ways))
    assert found == OF_AN_IMAGE | {name: ["Path.home("] for name in ABOUT_HOME}


@pytest.mark.parametrize(
    "line",
    [
        'REPO_ROOT.parent / "shared"',
        "ROOT.parents[0]",
        "Path(__file__).resolve().parents[2]",
        "Path(__file__).parent.parent.parent",
        'Path.home() / "texts"',
        'Path("~/texts").expanduser()',
        'Path("/mnt/texts")',
        'os.environ.get("TEXTS", "/srv/texts")',
        'run("data", "build", "--input=/opt/texts")',
        'f"/var/{name}"',
    ],
)
def test_what_leads_out_is_found(line: str) -> None:
    """The check itself can fail."""
    assert len(ways_out(line, depth=2)) == 1


def test_what_stays_inside_is_not_taken_for_a_way_out() -> None:
    lines = (
        "Path(__file__).resolve().parents[1]",
        "Path(__file__).parent.parent",
        'f"{tmp_path}/opt/texts"',
        '"and/or"',
    )
    assert [ways_out(line, depth=2) for line in lines] == [[]] * len(lines)


def test_samples_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_every_sample_is_listed_with_what_it_is_and_where_it_is_from() -> None:
    text = (SAMPLES / README).read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.+)\]\((.+)\) \| (.+) \| (.+) \|$", text, re.M)
    assert [name for name, *_ in rows] == [target for _, target, *_ in rows]

    there = {path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file()}
    assert {name for name, *_ in rows} == there - {README}
    for name, _, what, origin in rows:
        assert len(what) > 10, name
        assert re.match(r"written for this project$|public domain: \S", origin), name
