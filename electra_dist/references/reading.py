"""The references that come with the program, and a user's own.

Comes in: a name, or the path of a JSON file. Goes out: `Reference`s, checked.
"""

from __future__ import annotations

from pathlib import Path

from electra_dist.errors import DataError, UserError, nearest
from electra_dist.files.reading import MIB, read_json
from electra_dist.references.reference import Reference

#: Where the files of this program lie.
FOLDER = Path(__file__).resolve().parent / "curves"
_LARGEST = 4 * MIB
SUFFIX = ".json"


def all_references() -> tuple[Reference, ...]:
    """Those that come with the program, sorted by name."""
    return tuple(load_reference(name) for name in _names())


def load_reference(name: str) -> Reference:
    """The reference `name` that comes with the program, or that of the file `name` where it ends in
    `.json`.

    Raises `DataError` with the names that there are, or with what is wrong with the file.
    """
    if name.endswith(SUFFIX):
        return _read(Path(name))
    names = _names()
    if name not in names:
        raise DataError(
            f"{name}: no such reference{nearest(name, names)}; there are: {', '.join(names)}; a"
            f" file of your own ends in {SUFFIX}"
        )
    return _read(FOLDER / f"{name}{SUFFIX}")


def _names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}")))


def _read(path: Path) -> Reference:
    try:
        return Reference.from_json(read_json(path, _LARGEST, follow=True))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read as a reference: {error.strerror}; give a file that"
            " benchmarks/reference_curves.py has written"
        ) from error
    except (ValueError, UserError) as error:
        raise DataError(
            f"{path}: cannot be read as a reference: {error}; make it again with"
            " benchmarks/reference_curves.py"
        ) from error
