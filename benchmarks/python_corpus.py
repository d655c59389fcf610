"""Write the source of Python's standard library as a corpus, with modules of it held out.

    python benchmarks/python_corpus.py --out python-source

Goes out: `train/source.jsonl`, which `electra-dist data build` reads, and `held-out.jsonl`. A
document is a module. What is held out are whole top-level modules or packages, chosen by a hash of
their names: no file of a held-out package is trained on. Test suites, `lib2to3`, `idlelib` and the
packages that are installed beside the library are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
_LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "lib2to3", "idlelib", "__pycache__"}
#: One top-level name in so many is held out.
_ONE_IN = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args()

    (options.out / "train").mkdir(parents=True)
    trained = write(options.out / "train" / "source.jsonl", held_out=False)
    kept = write(options.out / "held-out.jsonl", held_out=True)
    print(f"Python {sys.version.split()[0]}")
    print(f"trained on: {trained[0]} modules, {trained[1]:,} characters")
    print(f"held out:   {kept[0]} modules, {kept[1]:,} characters")


def write(path: Path, held_out: bool) -> tuple[int, int]:
    """Write one side of the split; returns its modules and its characters."""
    modules = 0
    characters = 0
    with path.open("w", encoding="utf-8") as file:
        for name, source in read_modules():
            if is_held_out(name) == held_out:
                file.write(json.dumps({"name": name, "text": source}) + "\n")
                modules += 1
                characters += len(source)
    return modules, characters


def read_modules() -> Iterator[tuple[str, str]]:
    """Path in the library and source of each module, in the order of the paths."""
    for path in sorted(LIBRARY.rglob("*.py")):
        inside = path.relative_to(LIBRARY)
        if _LEFT_OUT & set(inside.parts) or inside.parts[0].startswith("_sysconfigdata"):
            continue
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if source.strip():
            yield inside.as_posix(), source


def is_held_out(name: str) -> bool:
    """Whether a path lies in a top-level module that is held out."""
    top = name.partition("/")[0].removesuffix(".py")
    return hashlib.sha256(top.encode()).digest()[0] % _ONE_IN == 0


if __name__ == "__main__":
    main()
