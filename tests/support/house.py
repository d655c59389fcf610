"""Measures the house: how big its rooms, files and functions are, how dense the code is, and who
enters a room by what.

Comes in: the source of the packages, read as text; nothing is imported. Goes out: what is over a
limit, as lines for a failed test, and fractions of the whole.

A room is a folder of Python files. Its face is the `__all__` of its `__init__.py`: the names and
modules that other rooms may use.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("electra_dist", "data_tools", "launcher")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file: `module` is its full name, that of the folder for an `__init__.py`."""

    path: Path
    module: str

    @property
    def room(self) -> str:
        """The full name of the folder that it lies in."""
        if self.is_room:
            return self.module
        return self.module.rpartition(".")[0]

    @property
    def is_room(self) -> bool:
        """Whether it stands for its folder."""
        return self.path.name == "__init__.py"

    @cached_property
    def lines(self) -> list[str]:
        """The text, line by line."""
        return self.path.read_text(encoding="utf-8").splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse("\n".join(self.lines))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @property
    def docstring(self) -> str | None:
        """Its opening words."""
        return ast.get_docstring(self.tree)

    @property
    def names(self) -> set[str]:
        """What it defines or imports at its top level."""
        found: set[str] = set()
        body = list(self.tree.body)
        for node in self.tree.body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                body += node.body  # what a lazy face offers
        for node in body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                parts = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
                found |= {part.id for part in parts if isinstance(part.ctx, ast.Store)}
        return found

    @property
    def functions(self) -> list[Function]:
        """All functions and methods, the nested ones too."""
        return [node for node in self.nodes if isinstance(node, Function)]


def read_sources(folders: Mapping[str, Path] | None = None) -> dict[str, Source]:
    """Every file of the packages, by its module; `folders` are other packages, by name."""
    if folders is None:
        folders = {package: ROOT / package for package in PACKAGES}
    found = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts = parts[:-1]
            module = ".".join(parts)
            found[module] = Source(path, module)
    return found


# --- sizes ----------------------------------------------------------------------------------------


def crowded_rooms(sources: dict[str, Source], most: int) -> list[str]:
    """Rooms of more than `most` files; sub-rooms count for themselves."""
    files: dict[str, int] = {}
    for source in sources.values():
        files[source.room] = files.get(source.room, 0) + 1
    return [f"{room}: {count} files" for room, count in files.items() if count > most]


def long_files(sources: dict[str, Source], most: int) -> list[str]:
    """Files of more than `most` lines."""
    return [
        f"{source.module}: {len(source.lines)} lines"
        for source in sources.values()
        if len(source.lines) > most
    ]


def long_functions(sources: dict[str, Source], most: int) -> list[str]:
    """Functions of more than `most` lines, from `def` to their end."""
    found = []
    for source in sources.values():
        for function in source.functions:
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > most:
                found.append(f"{source.module}.{function.name}: {lines} lines")
    return found


# --- density --------------------------------------------------------------------------------------


class Density(NamedTuple):
    """What makes code short and hard to read, as fractions.

    pairs          of the assignments, those like `a, b = x, y`
    wide           of the lines, those of more than 100 characters
    conditionals   conditional expressions per line
    """

    pairs: float
    wide: float
    conditionals: float


def density(sources: dict[str, Source]) -> Density:
    """Of all files together."""
    lines = 0
    wide = 0
    assignments = 0
    pairs = 0
    conditionals = 0
    for source in sources.values():
        lines += len(source.lines)
        wide += len([line for line in source.lines if len(line) > 100])
        for node in source.nodes:
            if isinstance(node, ast.IfExp):
                conditionals += 1
            if isinstance(node, ast.Assign):
                assignments += 1
                if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs += 1
    return Density(pairs / assignments, wide / lines, conditionals / lines)


# --- annotations ----------------------------------------------------------------------------------


def unannotated(sources: dict[str, Source]) -> list[str]:
    """Public functions and methods without a type for each argument and for what they return."""
    return [
        f"{source.module}.{function.name}"
        for source in sources.values()
        for function in source.functions
        if not function.name.startswith("_") and not _is_annotated(function)
    ]


def _is_annotated(function: Function) -> bool:
    arguments = function.args
    own = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    others = [arguments.vararg, arguments.kwarg]
    named = [a for a in (*own, *others) if a is not None and a.arg not in ("self", "cls")]
    return function.returns is not None and all(a.annotation is not None for a in named)


# --- faces ----------------------------------------------------------------------------------------


class Use(NamedTuple):
    """That a file uses something of this project.

    module   the module or room that it is of
    name     what is used of it; empty for the module itself
    """

    module: str
    name: str


def face(source: Source) -> set[str]:
    """The `__all__` of a room; empty where it has none."""
    for node in source.nodes:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def uses(source: Source, sources: dict[str, Source]) -> Iterator[Use]:
    """Everything of this project that a file imports, and what it takes of imported modules."""
    bound: dict[str, str] = {}  # name in the file -> the module that it is
    for node in source.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in sources:
                    yield Use(alias.name, "")
                    if alias.asname:
                        bound[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module in sources:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in sources:
                    yield Use(full, "")
                    bound[alias.asname or alias.name] = full
                else:
                    yield Use(node.module, alias.name)
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = bound.get(node.value.id)
            if module is not None and f"{module}.{node.attr}" not in sources:
                yield Use(module, node.attr)


def side_entries(sources: dict[str, Source]) -> list[str]:
    """Uses of another room that its face does not offer, or of a name with an underscore.

    A room itself can be imported anywhere: what is used of it counts.
    """
    found = []
    for source in sources.values():
        for use in uses(source, sources):
            used = sources[use.module]
            if used.room == source.room:
                continue
            if used.is_room:
                offered = not use.name or use.name in face(used)
            elif used.room in PACKAGES:
                offered = True  # the hall of a package: errors, console, batch
            else:
                offered = use.module.rpartition(".")[2] in face(sources[used.room])
            if not offered or _is_private(use.name):
                found.append(f"{source.module}: {use.module} {use.name}".rstrip())
    return sorted(set(found))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
