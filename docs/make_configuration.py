"""Writes docs/configuration.md from the typed configuration: every key, its default, what it may
be, what it means.

    python docs/make_configuration.py            write the page
    python docs/make_configuration.py --check    exit 1 when the page is not what would be written

The meanings are the docstrings in electra_dist/config (`schema` and the modules of its sections);
nothing is written here twice. A
test runs the check.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin

from made import write_or_check
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from electra_dist import config as configuration
from electra_dist.config.presets import PRESETS
from electra_dist.config.schema import WrittenConfig
from electra_dist.runs.opening.changes import Kind, kind_of

PAGE = Path(__file__).with_name("configuration.md")

_HEAD = """\
<!-- Written by docs/make_configuration.py from the docstrings of electra_dist/config. -->

# Configuration: every key

A run is one YAML file. What it leaves out takes the defaults below; `key.sub=value` on the command
line wins over the file. An unknown key, a wrong type or an impossible combination is refused before
training starts, with the key, the value, what is allowed and the nearest valid name. `electra-dist
config show FILE [overrides]` prints the file with everything filled in; what it prints is a
configuration file too, and the run directory keeps it as `config.yaml`.

Four keys must be set: `data.shards` (or `data.sources`), `train.steps`, `train.global_rows` and
`train.micro_rows`. Ready recipes are in [configs/](../configs). `electra-dist config schema` prints
a JSON Schema for editors.

Keys marked *free* may change when a run is [resumed](resume.md); those marked *from here* too, for
the steps to come, when [`--from-here`](resume.md#change-what-comes) says so; the others belong to
the run. `run.dir` and `run.name` say which run is meant.
"""


class Key(NamedTuple):
    """One row of a table."""

    name: str
    default: str
    allowed: str
    meaning: str
    kind: Kind


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def keys(section: type[BaseModel], prefix: str) -> Iterator[Key]:
    """All keys below `prefix`, in the order of the source."""
    schema = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        full = f"{prefix}.{name}"
        if _is_section(field):
            assert isinstance(field.annotation, type)
            yield from keys(field.annotation, full)
            continue
        if field.is_required():
            default = _preset_or_required(full)
        else:
            default = _shown(field.default)
        meaning = " ".join((field.description or "").split())
        common = _common_key(full)
        if common:
            default = f"as `{common}`"
            meaning = meaning or f"`{common}` of the {full.split('.')[1]} alone."
        yield Key(full, default, _allowed(field.annotation, schema[name]), meaning, kind_of(full))


def _common_key(full: str) -> str | None:
    """The key that one network's own key follows when it is not set:
    `optim.lr` for `optim.generator.lr`.
    """
    first, *middle, last = full.split(".")
    if not middle or middle[0] not in configuration.NETWORKS:
        return None
    section = WrittenConfig.model_fields[first].annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    if last in section.model_fields:
        return f"{first}.{last}"
    return None


def _preset_or_required(full: str) -> str:
    section = full.split(".")[0]
    if section == "model":
        return "*preset*"
    return "**required**"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, str):
        return f"`{json.dumps(value)}`"
    return f"`{value}`"


def _allowed(annotation: Any, schema: dict[str, Any]) -> str:
    """`integer > 0`, or the words that are possible."""
    branches = [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]
    branch = branches[0]
    if "enum" in branch:
        return ", ".join(f"`{word}`" for word in branch["enum"])
    kind = _name(annotation)
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {branch[key]}" for key, sign in signs.items() if key in branch]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _name(annotation: Any) -> str:
    names = {int: "integer", float: "number", bool: "`true`, `false`", str: "text"}
    if annotation in names:
        return names[annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return " or ".join(_name(part) for part in parts)
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return "list of {" + ", ".join(inner.model_fields) + "}"
        return "list of texts"
    return _name(get_args(annotation)[0])  # Annotated[...]


def undocumented() -> list[str]:
    """Keys whose docstring is missing in electra_dist/config/schema.py."""
    return [
        key.name for name, section in _sections() for key in keys(section, name) if not key.meaning
    ]


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in WrittenConfig.model_fields.items():
        assert isinstance(field.annotation, type)
        yield name, field.annotation


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name, section in _sections():
        summary = " ".join((section.__doc__ or "").split())
        parts.append(f"## `{name}`\n\n{summary}\n\n" + _table(keys(section, name)))
        if name == "model":
            parts.append(
                "### Presets\n\nWhat `model.preset` fills in; a key set beside it wins.\n\n"
                + _presets()
            )
    return "\n".join(parts)


def _table(rows: Iterator[Key]) -> str:
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key in rows:
        mark = {"free": " *free*", "future": " *from here*", "past": ""}[key.kind]
        meaning = key.meaning.replace("|", "\\|")
        lines.append(f"| `{key.name}`{mark} | {key.default} | {key.allowed} | {meaning} |")
    return "\n".join(lines) + "\n"


def _presets() -> str:
    def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    columns = {name: dict(flat(tree)) for name, tree in PRESETS.items()}
    lines = [
        "| key | " + " | ".join(f"`{name}`" for name in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for key in dict.fromkeys(key for column in columns.values() for key in column):
        lines.append(
            f"| `{key}` | "
            + " | ".join(str(column.get(key, "")) for column in columns.values())
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or check it."""
    for name in undocumented():
        print(
            f"no description: {name} (add a docstring in electra_dist/config/schema.py)",
            file=sys.stderr,
        )
    return write_or_check(PAGE, page())


if __name__ == "__main__":
    sys.exit(main())
