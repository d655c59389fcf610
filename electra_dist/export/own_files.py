"""Which files of a folder an export wrote: what it may replace when it is made again.

The marker lists them, each with a checksum where it is small, so that what somebody changed counts
as theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from electra_dist.files.reading import MIB, read_bounded
from electra_dist.files.tokenizers import TOKENIZER_FILES
from electra_dist.finetune.model_folder import MARKER, WEIGHTS

CARD = "README.md"
#: What an export of an earlier version wrote, which kept no list.
_BEFORE = (WEIGHTS, "config.json", CARD, *TOKENIZER_FILES)
#: Larger files, which people do not edit, have no checksum.
_SMALL = MIB
_MOST = 1000


def file_digests(folder: Path) -> dict[str, str | None]:
    """The files of `folder` by name, with their checksums; None for a large one."""
    return {path.name: _digest(path) for path in sorted(folder.iterdir())}


def foreign_files(folder: Path, listed: object) -> list[str]:
    """Paths in `folder` that the export did not write, or that were changed since; `listed` is what
    its marker says, None where it has no list.
    """
    known: Mapping[object, object] = dict.fromkeys(_BEFORE)
    if isinstance(listed, Mapping):
        known = listed
    found = []
    for path in sorted(folder.iterdir())[:_MOST]:
        if path.name == MARKER:
            continue
        if path.name not in known or path.is_symlink() or not path.is_file():
            found.append(path.name)
        elif known[path.name] not in (None, _digest(path)):
            found.append(f"{path.name}, which was changed")
    return found


def _digest(path: Path) -> str | None:
    if path.stat().st_size > _SMALL:
        return None
    return hashlib.blake2b(read_bounded(path, _SMALL), digest_size=16).hexdigest()
