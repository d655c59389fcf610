"""Which commit of this software computes, for run.json.

Comes in: the folder that the packages lie in. Goes out: the commit, from git where the folder is a
checkout, or from the file that was written when it was copied from one for a job.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from electra_dist.errors import UserError
from electra_dist.files.reading import read_bounded
from electra_dist.files.writing import write_atomically

#: The folder that holds the package `electra_dist`.
ROOT = Path(__file__).resolve().parents[3]
#: In a copy of the packages: the commit that they were copied from.
REVISION_FILE = "REVISION"
_BYTES = 1024
_GIT_SECONDS = 10.0
_REVISION = re.compile(r"[0-9a-f]{7,64}(-dirty)?")


def revision(root: Path = ROOT) -> str:
    """The commit of the software in `root`, `-dirty` behind it where files were changed.

    Empty where neither git nor a file of a copy tells it: an installed package.
    """
    noted = root / REVISION_FILE
    if noted.is_file():
        try:
            said = read_bounded(noted, _BYTES).decode()
        except (OSError, UserError, ValueError):
            return ""
    else:
        said = _of_checkout(root)
    said = said.strip()
    if _REVISION.fullmatch(said):
        return said
    return ""


def note_revision(copy: Path) -> None:
    """Write the commit of this software beside a copy of its packages; raises `OSError`."""
    write_atomically(copy / REVISION_FILE, revision() + "\n")


def _of_checkout(root: Path) -> str:
    """What git says of `root`; empty where it is no checkout, or lies inside a foreign one."""
    own = root / "electra_dist" / "__init__.py"
    if not _git(root, "ls-files", str(own)):
        return ""
    return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(root: Path, *words: str) -> str:
    """What git prints; empty where it fails, is not there, or takes too long."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
