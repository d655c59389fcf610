"""The files of a tokenizer's folder: which there are, and how they are copied from a folder that
another user may own.

Used for the shards' copy, the run's and an export's. Only regular files with known names are
copied, never what a link points at: a copy may be published.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from electra_dist.errors import DataError
from electra_dist.files.reading import MIB, read_bounded
from electra_dist.files.staging import whole_folder
from electra_dist.files.writing import write_new, writing

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
MODEL_FILE = "sentencepiece.model"
#: Every file that a folder of a tokenizer may have.
TOKENIZER_FILES = (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_FILE, MODEL_FILE)
#: The largest that such a file can be: a vocabulary of a million ids takes some 100 MB.
LIMIT = 256 * MIB


def read_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Name and content of each known file in `folder`; those that are not there are left out.

    Raises `UserError` for a link, a special file, a file above `LIMIT` or one that cannot be read.
    """
    found = {}
    for name in TOKENIZER_FILES:
        try:
            found[name] = read_tokenizer_file(folder / name)
        except FileNotFoundError:
            continue
    return found


def read_tokenizer_file(path: Path) -> bytes:
    """The content of one file; raises `FileNotFoundError`,
    or `UserError` for whatever else cannot be read.
    """
    try:
        return read_bounded(path, LIMIT)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def write_tokenizer(files: Mapping[str, bytes], target: Path) -> None:
    """Make the folder `target` with `files`: it is whole or absent. One that is there already is
    replaced.

    Raises `StorageError` where the file system refuses.
    """
    with writing(target, "the tokenizer"), whole_folder(target) as folder:
        for name, content in files.items():
            write_new(folder / name, content)
