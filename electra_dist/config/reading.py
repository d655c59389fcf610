"""From a YAML file and `key.sub=value` overrides to a checked `Config`, and back to YAML.

The only place that reads YAML. The file may be somebody else's (a run's config.yaml, a cluster
profile): its size is bounded, before and after its aliases are followed, and it holds plain values
only. A file is resolved in four steps: parse, apply the overrides, fill in the model preset,
validate. Whatever is wrong raises `ConfigError` naming the key, the value, what is allowed and the
nearest valid name (DESIGN D10). What `resolved_yaml` prints is complete: loading it again gives the
same configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pydantic
import yaml
from pydantic import BaseModel

from electra_dist.config.checks import contradictions, resolve
from electra_dist.config.networks import ModelConfig
from electra_dist.config.presets import PRESETS
from electra_dist.config.schema import Config, WrittenConfig
from electra_dist.errors import ConfigError, nearest
from electra_dist.files.reading import NotRegularError, TooLargeError, read_bounded

#: Bytes of a file, and its values and their characters where
#: each alias counts as what it stands for.
_MOST_BYTES = 128 * 1024
_MOST_VALUES = 20_000
_MOST_CHARACTERS = 2 * _MOST_BYTES
_MOST_PROBLEMS = 20


class _Yaml(yaml.SafeLoader):
    """YAML as people write it: `5e-4` is a number, only true and false are booleans, a key twice is
    an error.

    Dates, sets, binary data and objects are no values of a configuration.
    """


_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_Yaml.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _PLAIN
}

_Yaml.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":bool", ":float", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF")
)
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    ),
    list("-+0123456789."),
)


def _mapping_without_repeats(loader: _Yaml, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a word", key_node.start_mark
            )
        if key in mapping:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} appears twice", key_node.start_mark
            )
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_Yaml.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


class _Size:
    """How many values and characters a document has when each
    alias is replaced by what it stands for.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int] | None] = {}

    def check(self, node: yaml.Node) -> None:
        """Raise `YAMLError` above the bounds,
        and for an alias of something that it is itself part of.
        """
        values, characters = self._of(node)
        if values > _MOST_VALUES or characters > _MOST_CHARACTERS:
            raise yaml.YAMLError(
                f"too large: {values:,} values of {characters:,} characters with all aliases"
                " followed"
            )

    def _of(self, node: yaml.Node) -> tuple[int, int]:
        if id(node) in self._known:
            known = self._known[id(node)]
            if known is None:
                raise yaml.YAMLError("an alias stands for something that it is part of")
            return known
        self._known[id(node)] = None
        values = 1
        if isinstance(node, yaml.ScalarNode):
            characters = len(node.value)
        else:
            characters = 0
        for child in _children(node):
            more_values, more_characters = self._of(child)
            values = values + more_values
            characters = characters + more_characters
        self._known[id(node)] = values, characters
        return values, characters


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    return []


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text; `source` names it in the error."""
    try:
        loader = _Yaml(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Size().check(node)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"{source}: not valid YAML: {' '.join(str(error).split())[:500]}"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` when it is missing,
    too large, not UTF-8, or no mapping.
    """
    try:
        text = read_bounded(path, _MOST_BYTES, follow=True).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except (NotRegularError, TooLargeError) as error:
        raise ConfigError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected a mapping of sections (run, data, model, ...), found"
            f" {_short(content)}"
        )
    return content


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= 200:
        return text
    return f"{text[:200]}..."


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for depth, part in enumerate(parents):
        branch = tree.setdefault(part, {})
        if not isinstance(branch, dict):
            raise ConfigError(
                f"override {dotted}: {'.'.join(parents[: depth + 1])} is not a section"
            )
        tree = branch
    tree[last] = value


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `tree` with each `key.sub=value` set; values are read as YAML."""
    # what an alias shared is apart from here on
    copied: dict[str, Any] = json.loads(json.dumps(dict(tree)))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", key):
            raise ConfigError(
                f"override {override!r}: expected key.sub=value, for example optim.lr=5e-4"
            )
        _set(copied, key, parse_yaml(text, f"override {key}"))
    return copied


def _with_preset(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the values of its model preset below the ones that it sets itself."""
    model = tree.get("model") or {}
    if isinstance(model, dict):
        name = model.get("preset", ModelConfig.model_fields["preset"].default)
    else:
        name = None
    if name not in PRESETS:
        return tree  # the validation that follows names the key and the allowed values
    return _merge(PRESETS[name], tree)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and (isinstance(value, Mapping) or value is None):
            merged[key] = _merge(below, value or {})
        else:
            merged[key] = value
    return merged


def _valid_keys(location: Sequence[str | int]) -> list[str]:
    section: type[BaseModel] = WrittenConfig
    for part in location:
        if isinstance(part, int):
            continue  # of a list: the section is that of its entries
        field = section.model_fields.get(part)
        inner = field and _section_of(field.annotation)
        if inner is None:
            return []
        section = inner
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds, or a list of them; None for a plain value."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _explain(error: pydantic.ValidationError, source: str) -> str:
    lines = []
    found = error.errors()
    for detail in found[:_MOST_PROBLEMS]:
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            valid = _valid_keys(detail["loc"][:-1])
            where = ".".join(str(part) for part in detail["loc"][:-1]) or "the top level"
            lines.append(
                f"unknown key {key}{nearest(str(detail['loc'][-1]), valid)}; {where} has:"
                f" {', '.join(valid)}"
            )
        elif detail["type"] == "missing":
            lines.append(f"key {key} is missing")
        else:
            message = detail["msg"].removeprefix("Value error, ")  # ours
            message = message[0].lower() + message[1:]
            close = ""
            if detail["type"] == "literal_error" and isinstance(detail["input"], str):
                allowed = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
                close = nearest(detail["input"], allowed)
            lines.append(f"key {key} = {_short(detail['input'])}: {message}{close}")
    if len(found) > _MOST_PROBLEMS:
        lines.append(f"and {len(found) - _MOST_PROBLEMS} more")
    return f"{source}: " + "; ".join(lines)


def build(tree: Mapping[str, Any], source: str = "configuration") -> Config:
    """Fill in the preset and the derived defaults, validate, check the combinations;
    raises `ConfigError`.
    """
    try:
        written = WrittenConfig.model_validate(_with_preset(dict(tree)))
    except pydantic.ValidationError as error:
        raise ConfigError(_explain(error, source)) from error
    config = resolve(written)
    for problem in contradictions(config):
        raise ConfigError(f"{source}: {problem}")
    return config


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read, override, fill in and check a configuration file; raises `ConfigError`."""
    tree = apply_overrides(read_yaml(Path(path)), overrides)
    return build(tree, str(path) if not overrides else f"{path} with overrides")


def resolved_yaml(config: Config) -> str:
    """The complete configuration as YAML; `load` of it gives the same object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a configuration file, for editors: what a preset supplies is not required."""
    schema = WrittenConfig.model_json_schema()
    schema["title"] = "electra-dist run configuration"
    schema["required"] = [name for name in schema.get("required", []) if name != "model"]
    schema["$defs"]["ModelConfig"].pop("required", None)
    schema["$defs"]["NetworkConfig"].pop("required", None)
    return schema
