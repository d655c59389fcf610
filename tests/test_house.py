"""The house keeps its plan: who may import whom and by which name, a core that neither needs nor
loads torch, and rooms, files and functions of a size that one reads at once.

The rules of imports are those of docs/extend.md, "Who may import whom". Imports inside functions
count as much as those at the top of a file.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import house

ROOT = house.ROOT
PACKAGES = house.PACKAGES

#: The rooms of the house, from the top floor down. A room is a package with all that lies in it, or
#: a module of the hall `electra_dist`. It imports from its own floor and from those below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("electra_dist.cli", "electra_dist.api"),
    (
        "electra_dist.embeddings",
        "electra_dist.export",
        "electra_dist.search",
        "electra_dist.serve",
        "electra_dist.suspects",
    ),
    ("electra_dist.evaluate", "electra_dist.finetune"),
    ("electra_dist.measure",),
    ("electra_dist.train",),
    ("electra_dist.checkpoint", "electra_dist.tracking"),
    ("electra_dist.zero", "launcher", "electra_dist.report"),
    ("electra_dist.health",),
    ("electra_dist.references",),
    ("electra_dist.model", "electra_dist.runs", "data_tools"),
    ("electra_dist.plan", "electra_dist.data", "electra_dist.objectives"),
    ("electra_dist.config", "electra_dist.parallel", "electra_dist.files"),
    ("electra_dist.architectures",),
    ("electra_dist.errors", "electra_dist.batch", "electra_dist.console"),
)
#: Never imported by the core, not even inside a function.
TORCH_FREE = (
    "data_tools",
    "launcher",
    "electra_dist.architectures.costs",
    "electra_dist.architectures.interface",
    "electra_dist.architectures.registry",
    "electra_dist.architectures.sizes",
    "electra_dist.architectures.electra.costs",
    "electra_dist.config",
    "electra_dist.errors",
    "electra_dist.batch",
    "electra_dist.console",
    "electra_dist.files.checksums",
    "electra_dist.files.reading",
    "electra_dist.files.writing",
    "electra_dist.files.staging",
    "electra_dist.files.shipped",
    "electra_dist.files.tokenizers",
    "electra_dist.health",
    "electra_dist.parallel.early",
    "electra_dist.parallel.ending",
    "electra_dist.parallel.processes",
    "electra_dist.parallel.signs",
    "electra_dist.data",
    "electra_dist.objectives.metric",
    "electra_dist.plan",
    "electra_dist.references",
    "electra_dist.runs",
)
#: What the extras `train` and `hf` install, and what only comes with it.
EXTRAS = (
    "torch",
    "deepspeed",
    "transformers",
    "accelerate",
    "sklearn",
    "scipy",
    "wandb",
    "matplotlib",
    "triton",
)
#: Slow to import; a command that only looks at a run or a queue has no use for them.
HEAVY = (*EXTRAS, "numpy", "webdataset", "tokenizers", "sentencepiece", "safetensors")


SOURCES = house.read_sources()
#: Module name -> file, of all three packages.
MODULES = {module: source.path for module, source in SOURCES.items()}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it;
    `from a import b` gives `a.b` where that is a module.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def within(module: str, unit: str) -> bool:
    return module == unit or module.startswith(unit + ".")


def unit_of(module: str) -> str:
    found = [unit for floor in FLOORS for unit in floor if within(module, unit)]
    assert found, (
        f"{module} has no place in the house: add its room to FLOORS here and to docs/extend.md"
    )
    return found[0]


def own_imports(module: str) -> set[str]:
    """The modules of this project that `module` imports,
    without the empty package `electra_dist` itself.
    """
    return {
        name
        for name in imports(MODULES[module])
        if name.split(".")[0] in PACKAGES and name != "electra_dist"
    }


RESIDENTS = [module for module in MODULES if module != "electra_dist"]
EDGES = sorted({(module, target) for module in RESIDENTS for target in own_imports(module)})


def test_every_module_imports_its_own_floor_and_those_below_only() -> None:
    level = {unit: number for number, floor in enumerate(FLOORS) for unit in floor}
    wrong = [edge for edge in EDGES if level[unit_of(edge[0])] > level[unit_of(edge[1])]]
    assert not wrong


def test_data_and_model_do_not_know_each_other() -> None:
    pair = ("electra_dist.data", "electra_dist.model")
    wrong = [
        (m, t)
        for m, t in EDGES
        for one, other in (pair, pair[::-1])
        if within(m, one) and within(t, other)
    ]
    assert not wrong


def test_nothing_but_the_top_floor_imports_the_launcher_or_the_data_tools() -> None:
    for tool, top in (("launcher", FLOORS[0][:1]), ("data_tools", FLOORS[0])):
        users = {m for m, t in EDGES if within(t, tool) and not within(m, tool)}
        assert all(any(within(user, allowed) for allowed in top) for user in users), users


def test_there_are_no_circles() -> None:
    graph = {module: {t for m, t in EDGES if m == module and t != module} for module in RESIDENTS}
    while leaves := {module for module, targets in graph.items() if not targets}:
        graph = {
            module: targets - leaves for module, targets in graph.items() if module not in leaves
        }
    assert not graph, f"in a circle, or above one: {sorted(graph)}"


def test_the_core_names_torch_nowhere() -> None:
    core = [module for module in RESIDENTS if any(within(module, unit) for unit in TORCH_FREE)]
    wrong = [(m, t) for m in core for t in imports(MODULES[m]) if t.split(".")[0] in EXTRAS]
    assert not wrong


def test_only_the_room_zero_knows_deepspeed() -> None:
    """By `import`, or by the name of one of its modules for `import_module` and `sys.modules`."""
    for module in RESIDENTS:
        if within(module, "electra_dist.zero"):
            continue
        assert "deepspeed" not in {name.split(".")[0] for name in imports(MODULES[module])}, module
        words = {
            node.value
            for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not [word for word in words if re.fullmatch(r"deepspeed(\.\w+)+", word)], module


def test_a_zero_stage_is_asked_what_it_does_instead_of_its_number() -> None:
    """`config.stages` alone knows what follows from a number."""
    numbered = re.compile(r"stage(\(\)|\.number)?\b.*(<|>|==|!=| in )|(<|>|==|!=) ?\S*stage\b")
    wrong = [
        f"{module}: {ast.unparse(node)}"
        for module in RESIDENTS
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        and numbered.search(ast.unparse(node))
        and any(
            isinstance(part, ast.Constant) and isinstance(part.value, int)
            for side in (node.left, *node.comparators)
            for part in ast.walk(side)
        )
    ]
    assert not wrong


# --- rooms, files, functions ----------------------------------------------------------------------


def test_no_room_file_or_function_is_too_big_to_be_read_at_once() -> None:
    assert not house.crowded_rooms(SOURCES, most=15)
    assert not house.long_files(SOURCES, most=400)
    assert not house.long_functions(SOURCES, most=60)


def test_the_code_has_room_to_breathe() -> None:
    found = house.density(SOURCES)
    assert found.pairs < 0.015
    assert found.wide < 0.005
    assert found.conditionals < 0.008


def test_public_functions_are_annotated() -> None:
    assert not house.unannotated(SOURCES)


def test_every_room_says_what_it_is_and_what_it_offers() -> None:
    for source in SOURCES.values():
        assert source.room in SOURCES, f"{source.module}: its folder has no __init__.py"
    rooms = [source for source in SOURCES.values() if source.is_room]
    assert not [room.module for room in rooms if not room.docstring]
    missing = [
        f"{room.module}: {name}"
        for room in rooms
        for name in house.face(room)
        if f"{room.module}.{name}" not in SOURCES and name not in room.names
    ]
    assert not missing, "in a face, but not in its room"


def test_a_room_is_entered_by_its_face_only() -> None:
    """What another room needs of it stands in `__all__` of its `__init__.py`."""
    assert not house.side_entries(SOURCES)


def test_the_measures_see_what_they_are_for(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").write_text('__all__ = ["open", "offered"]\noffered = 1\nkept = 2\n')
    (room / "open.py").write_text("_own = 1\n")
    (room / "shut.py").write_text("")
    (tmp_path / "__init__.py").write_text(
        "import top.room.shut as other\n"
        "from top import room\n"
        "from top.room import offered, kept, shut\n"
        "from top.room.open import _own\n"
        "room.kept\n"
        "def long(argument, *others: int) -> None:\n    a, b = 1, 2\n    c = a if b else b\n"
    )
    sources = house.read_sources({"top": tmp_path})
    assert house.side_entries(sources) == [
        "top: top.room kept",
        "top: top.room.open _own",
        "top: top.room.shut",
    ]
    assert house.crowded_rooms(sources, most=2) == ["top.room: 3 files"]
    assert house.long_files(sources, most=7) == ["top: 8 lines"]
    assert house.long_functions(sources, most=2) == ["top.long: 3 lines"]
    assert house.unannotated(sources) == ["top.long"]
    assert house.density(sources) == (1 / 6, 0.0, 1 / 12)


# --- what is read ---------------------------------------------------------------------------------


#: Where a file is read whole without `electra_dist.files.reading`:
#: it is this program's own, or the kernel's.
READ_WHOLE = {
    "electra_dist.parallel.processes": "/proc",
    "electra_dist.tracking.wandb.children": "/proc",
    "electra_dist.measure.device_rates": "/proc",
    "electra_dist.measure.preflight": "the files of this program",
    "electra_dist.report.page.render": "the files of this program",
    "electra_dist.suspects.page.render": "the files of this program",
    "electra_dist.serve.page.render": "the files of this program",
    "electra_dist.cli.networks.evaluate": "the file that the ranks of this command wrote",
    "launcher.slurm.job_script": "the template that comes with this program",
    "data_tools.corpus": "the sources of this Python installation",
    "data_tools.spill": "files that the same command wrote a minute before",
    "electra_dist.export.check": "the export that was just written",
}


def test_what_another_user_may_have_written_is_read_with_a_bound() -> None:
    """`read_text` waits at a FIFO and fills the memory from a device;
    so does numpy with pickle, and torch.load.
    """
    unbounded = {"read_text", "read_bytes", "fromfile", "load_file", "from_file"}
    for module in RESIDENTS:
        calls = [
            n
            for n in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
            if isinstance(n, ast.Call)
        ]
        names = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
        assert not names & unbounded or module in READ_WHOLE, f"{module}: {names & unbounded}"
        keywords = {
            (k.arg, getattr(k.value, "value", None)) for call in calls for k in call.keywords
        }
        assert ("allow_pickle", True) not in keywords, module
        assert ("trust_remote_code", True) not in keywords, module


def run_python(code: str) -> str:
    """Standard output of `code` in a fresh interpreter, in the repository root."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (no extras here)", name=name)
sys.meta_path.insert(0, Absent())
"""


def test_the_core_and_its_commands_work_where_the_extras_are_not_installed() -> None:
    core = [module for module in RESIDENTS if any(within(module, unit) for unit in TORCH_FREE)]
    code = f"""{BLOCK}
import importlib
for name in {core!r}:
    importlib.import_module(name)
from electra_dist.cli.main import main
assert main(["config", "show", "configs/quickstart.yaml"]) == 0
"""
    assert "quickstart" in run_python(code)


@pytest.mark.parametrize(
    "imported", ["launcher", "electra_dist", "electra_dist.cli", "electra_dist.api"]
)
def test_what_a_login_node_starts_loads_nothing_heavy(imported: str) -> None:
    """The reason why `electra-dist launch` starts at once;
    wall time would be a test of how busy the machine is.
    """
    names = [m for m in RESIDENTS if within(m, imported)] if imported == "launcher" else [imported]
    code = (
        f"import importlib, sys\nfor name in {names!r}:"
        " importlib.import_module(name)\nprint(*sys.modules)"
    )
    loaded = {name.split(".")[0] for name in run_python(code).split()}
    assert not loaded & set(HEAVY)


def test_a_configuration_is_loaded_through_the_library_where_the_extras_are_not_installed() -> None:
    code = f"""{BLOCK}
import electra_dist
print(electra_dist.load_config("quickstart").run.name)
"""
    assert run_python(code) == "quickstart\n"


def test_help_of_every_command_loads_nothing_heavy() -> None:
    code = """
import contextlib, io, sys
from electra_dist.cli.main import build_parser
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    build_parser().parse_args(["launch", "local", "--help"])
print(*sys.modules)
"""
    loaded = {name.split(".")[0] for name in run_python(code).split()}
    assert not loaded & {*HEAVY, "pydantic", "yaml", "rich"}


#: Files of other projects that comments and docstrings cite as sources.
OF_OTHERS = {
    "configure_pretraining.py",
    "pretrain_helpers.py",
    "model/modeling.py",
    "run_pretraining.py",
}
FILE_NAME = re.compile(r"`([\w/]+\.py)`")


def test_a_file_that_a_module_names_is_there() -> None:
    folders = (*PACKAGES, "tests", "benchmarks", "docs", "examples")
    there = [path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    wrong = []
    for module, path in MODULES.items():
        for name in FILE_NAME.findall(path.read_text(encoding="utf-8")):
            if name not in OF_OTHERS and not any(file.endswith("/" + name) for file in there):
                wrong.append(f"{module}: {name}")
    assert not wrong
