"""The files of a tokenizer's folder: which there are, how they are copied from a folder that
another user may own, and which ids its special tokens have.

Used for the shards' copy, the run's and an export's. Only regular files with known names are
copied, never what a link points at: a copy may be published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_dist.batch import SpecialTokens
from electra_dist.errors import DataError
from electra_dist.files.reading import MIB, read_bounded
from electra_dist.files.staging import whole_folder
from electra_dist.files.writing import write_new, writing

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
MODEL_FILE = "sentencepiece.model"
#: What the tokenizer does to a text, in words and as JSON.
CARD_FILE = "tokenizer_card.json"
#: Every file that a folder of a tokenizer may have.
TOKENIZER_FILES = (TOKENIZER_FILE, CONFIG_FILE, SPECIAL_FILE, MODEL_FILE, CARD_FILE)
#: The largest that such a file can be: a vocabulary of a million ids takes some 100 MB.
LIMIT = 256 * MIB
#: Special tokens that every tokenizer must have; the fifth, [UNK], may be missing.
REQUIRED_SPECIALS = ("pad", "cls", "sep", "mask")


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


def read_card(files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """What the card of the tokenizer in `folder` says; nothing for one of an earlier version."""
    if CARD_FILE not in files:
        return {}
    return parse_object(files[CARD_FILE], folder / CARD_FILE)


def special_tokens_of(folder: Path) -> SpecialTokens:
    """The ids of the special tokens of the tokenizer in `folder`, as `data build` wrote it there.

    Raises `FileNotFoundError` for a file that is missing, and `DataError` for files that are
    damaged or name a token that has no id.
    """
    file = folder / TOKENIZER_FILE
    content = parse_object(read_tokenizer_file(file), file)
    config = parse_object(read_tokenizer_file(folder / CONFIG_FILE), folder / CONFIG_FILE)
    ids = _ids_of_added_tokens(content)
    found: dict[str, int] = {}
    for name in (*REQUIRED_SPECIALS, "unk"):
        token = config.get(f"{name}_token")
        number = ids.get(str(token))
        if number is not None:
            found[name] = number
        elif name in REQUIRED_SPECIALS:
            raise DataError(
                f"{file}: `{name}_token` of {CONFIG_FILE} is {token!r}, expected one of its added"
                " tokens; copy the folder `tokenizer` of the shards again"
            )
    return SpecialTokens(
        pad=found["pad"],
        unk=found.get("unk"),
        cls=found["cls"],
        sep=found["sep"],
        mask=found["mask"],
    )


def _ids_of_added_tokens(content: Mapping[str, Any]) -> dict[str, int]:
    added = content.get("added_tokens")
    if not isinstance(added, list):
        return {}
    return {
        str(token.get("content")): token["id"]
        for token in added
        if isinstance(token, dict) and isinstance(token.get("id"), int)
    }


def parse_object(content: bytes, name: Path | str) -> dict[str, Any]:
    """A JSON object out of the file `name`; raises `DataError` for anything else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{name}: is not JSON: {error}; copy it from where the tokenizer was made"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{name}: is {type(found).__name__}, expected a JSON object")
    return found
