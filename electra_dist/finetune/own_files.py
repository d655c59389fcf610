"""Which files of a folder an export or a fine-tuning wrote: what may be replaced when it is made
again, and what may be published.

The marker lists them, each with a checksum where it is small, so that what somebody changed counts
as theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from electra_dist.files.reading import MIB, read_bounded
from electra_dist.finetune.model_folder import MARKER, TOKENIZER_FILES, WEIGHTS

CARD = "README.md"
#: What earlier versions wrote, which kept no list.
_BEFORE = (WEIGHTS, "config.json", CARD, *TOKENIZER_FILES)
#: Larger files, which people do not edit, have no checksum.
_SMALL = MIB
_MOST = 1000


def file_digests(folder: Path) -> dict[str, str | None]:
    """The files in `folder` by their paths in it, with their checksums; None for a large one."""
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MARKER
    }


def foreign_files(folder: Path, listed: object) -> list[str]:
    """Paths in `folder` that the export did not write, or that were changed since; `listed` is what
    its marker says, None where it has no list.
    """
    known = _known(listed)
    unknown = [name for name in _entries(folder, known) if name not in known]
    changed = [f"{name}, which was changed" for name in changed_files(folder, listed)]
    return sorted([*unknown, *changed])


def changed_files(folder: Path, listed: object) -> list[str]:
    """Paths in `folder` that the export wrote, and that hold something else by now."""
    known = _known(listed)
    found = []
    for name in _entries(folder, known):
        path = folder / name
        if name in known and (
            path.is_symlink() or not path.is_file() or known[name] not in (None, _digest(path))
        ):
            found.append(name)
    return found


def own_files(folder: Path, listed: object) -> list[str]:
    """Paths in `folder` that the export wrote and that nobody has changed, its marker with them."""
    known = _known(listed)
    changed = set(changed_files(folder, listed))
    found = [name for name in _entries(folder, known) if name in known and name not in changed]
    return sorted([*found, MARKER])


def _known(listed: object) -> Mapping[str, object]:
    """The files of the list with their checksums."""
    if isinstance(listed, Mapping):
        return listed
    return dict.fromkeys(_BEFORE)


def _entries(folder: Path, known: Mapping[str, object]) -> list[str]:
    """What lies in `folder` but for its marker; a folder in it is entered where `known` names files
    of it.
    """
    entered = {name.partition("/")[0] for name in known if "/" in name}
    found: list[str] = []
    for path in sorted(folder.iterdir())[:_MOST]:
        if path.name in entered and path.is_dir() and not path.is_symlink():
            found += [f"{path.name}/{inner.name}" for inner in sorted(path.iterdir())[:_MOST]]
        elif path != folder / MARKER:
            found.append(path.name)
    return found


def _digest(path: Path) -> str | None:
    if path.stat().st_size > _SMALL:
        return None
    return hashlib.blake2b(read_bounded(path, _SMALL), digest_size=16).hexdigest()
