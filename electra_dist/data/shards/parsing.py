"""From the text of `manifest.json` to its typed facts, in both versions of the format.

Version 2 has the sums, and names the tables that have the shards and blocks. Version 1 lists all
shards, with an index file for each; in memory both are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from electra_dist.data.shards.facts import (
    FORMAT,
    SPLITS,
    VERSION,
    ManifestFile,
    ShardFacts,
    SplitFacts,
    SplitName,
    SplitTables,
    contradiction,
)
from electra_dist.data.shards.files import REPLACE, FileFacts
from electra_dist.data.shards.tables import block_table_bytes, is_table_name, read_shard_table
from electra_dist.errors import DataError
from electra_dist.files.reading import MIB, NotRegularError, TooLargeError, read_json

MANIFEST_FILE = "manifest.json"
#: Bytes of manifest.json at most: the counts of 16 million ids, or 100,000 shards of version 1.
MANIFEST_LIMIT = 128 * MIB
_FIRST_VERSION = 1


@dataclass(frozen=True)
class _ListedSplit:
    """A split in version 1: its shards one by one."""

    shards: tuple[ShardFacts, ...]
    blocks: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class _CountedSplit:
    """A split in version 2: how many shards it has; the table knows them."""

    shards: int
    blocks: int
    documents: int
    tokens: int


_MANIFEST = pydantic.TypeAdapter(ManifestFile)
_TABLES = pydantic.TypeAdapter(dict[SplitName, SplitTables])
_LISTED = pydantic.TypeAdapter(_ListedSplit)
_COUNTED = pydantic.TypeAdapter(_CountedSplit)


def read_content(path: Path) -> dict[str, Any]:
    """The parsed manifest.json of the folder `path`; raises `DataError` when it is missing, no
    JSON or of another format.
    """
    file = path / MANIFEST_FILE
    try:
        content = read_json(file, MANIFEST_LIMIT)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no {MANIFEST_FILE} there; make shards with `electra-dist data build`"
        ) from error
    except (NotRegularError, TooLargeError) as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read as JSON: {error}; build the shards again"
        ) from error
    return checked_content(content, str(file))


def checked_content(content: Any, file: str) -> dict[str, Any]:
    """`content`, where it is a manifest of a version that is known; raises `DataError`."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f'{file}: not a manifest of shards (no "format": "{FORMAT}")')
    if content.get("version") not in (_FIRST_VERSION, VERSION):
        raise DataError(
            f"{file}: format version {content.get('version')!r}, this software reads"
            f" {_FIRST_VERSION} and {VERSION}; build them again"
        )
    return content


def facts_of(
    path: Path, content: dict[str, Any], have: Callable[[FileFacts], None], file: str
) -> ManifestFile:
    """The facts in the `content` of a manifest whose tables lie in `path`; messages call it `file`.

    `have` hears of a table before it is opened. Raises `DataError` when they are damaged or
    cannot be true.
    """
    facts = _facts(path, content, have, file)
    problem = contradiction(facts)
    if problem:
        raise DataError(f"{file}: contradicts itself ({problem}); {REPLACE}")
    return facts


def _facts(
    path: Path, content: dict[str, Any], have: Callable[[FileFacts], None], file: str
) -> ManifestFile:
    """The typed content, with the shards of both splits from wherever this version has them."""
    rest = {key: value for key, value in content.items() if key not in (*SPLITS, "tables")}
    if content["version"] == _FIRST_VERSION:
        splits = {name: _listed(file, name, content.get(name)) for name in SPLITS}
        return _validated(file, _MANIFEST, {**rest, **splits})
    tables = _validated(file, _TABLES, content.get("tables"), "tables")
    splits = {}
    for name in SPLITS:
        found = _validated(file, _COUNTED, content.get(name), name)
        splits[name] = _counted(path, name, found, tables, have, file)
    return _validated(file, _MANIFEST, {**rest, **splits, "tables": tables})


def _listed(file: str, name: SplitName, content: Any) -> SplitFacts:
    found = _validated(file, _LISTED, content, name)
    return SplitFacts(found.shards, found.blocks, found.documents, found.tokens)


def _counted(
    path: Path,
    name: SplitName,
    found: _CountedSplit,
    tables: dict[SplitName, SplitTables],
    have: Callable[[FileFacts], None],
    file: str,
) -> SplitFacts:
    if name not in tables:
        raise DataError(f"{file}: damaged at tables.{name}: not there; {REPLACE}")
    for table in (tables[name].shards, tables[name].blocks):
        if not is_table_name(table.name):
            raise DataError(
                f"{file}: contradicts itself ({table.name[:100]!r} is no name of a file in the"
                f" folder); {REPLACE}"
            )
    have(tables[name].shards)
    shards = read_shard_table(path, name, tables[name].shards)
    if len(shards) != found.shards:
        raise DataError(
            f"{file}: contradicts itself (the split {name} has {found.shards} shards, its table"
            f" {len(shards)}); {REPLACE}"
        )
    if tables[name].blocks.bytes != block_table_bytes(found.blocks):
        raise DataError(
            f"{file}: contradicts itself (a table of {tables[name].blocks.bytes} bytes for the"
            f" {found.blocks} blocks of the split {name}); {REPLACE}"
        )
    return SplitFacts(shards, found.blocks, found.documents, found.tokens)


_T = TypeVar("_T")


def _validated(file: str, adapter: pydantic.TypeAdapter[_T], content: Any, at: str = "") -> _T:
    """`content` as what `adapter` makes; `at` is where in the manifest it stands."""
    try:
        return adapter.validate_python(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        places = [at] if at else []
        where = ".".join([*places, *map(str, first["loc"])])
        raise DataError(
            f"{file}: damaged at {where}: {first['msg']}; build the shards again"
        ) from error
