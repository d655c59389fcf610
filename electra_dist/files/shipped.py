"""Files that come with the program beside its code: recipes of runs, examples of cluster profiles.

In a checkout they lie where people look for them (`configs/`, `slurm/clusters/`); a wheel carries
them inside the package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder(name: str) -> Path:
    """The folder `name` of the repository (`configs`, `slurm/clusters`),
    wherever this installation has it.
    """
    installed = _PACKAGE / "shipped" / name
    if installed.is_dir():
        return installed
    return _PACKAGE.parent / name
