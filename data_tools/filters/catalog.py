"""All filters in the order in which they are applied, and what a user writes made into filters.

The order is fixed: a page becomes text before its text is judged, what is cheap comes before what
is not, and duplicates are looked for among the documents that are left.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from data_tools.filters.exact import Exact
from data_tools.filters.html import Html
from data_tools.filters.kinds import Filter, Parameter
from data_tools.filters.language import Language
from data_tools.filters.length import Length
from data_tools.filters.letters import Letters
from data_tools.filters.near import Near
from data_tools.filters.repetition import Repetition
from electra_dist.errors import DataError, UserError, nearest

#: Name -> filter, in the order of their work. Those that look at one document come first.
FILTERS: dict[str, type[Filter]] = {
    kind.name: kind for kind in (Html, Length, Letters, Repetition, Language, Exact, Near)
}
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def parse_filters(given: Sequence[str]) -> tuple[Filter, ...]:
    """The filters that `NAME` or `NAME:parameter=value,parameter=value` stand for, in the order of
    their work.

    Raises `DataError` for a name, parameter or value that cannot be, a filter that is named twice
    or none at all, and `UserError` where a package that a filter needs is not installed.
    """
    found: dict[str, Filter] = {}
    for text in given:
        name = text.partition(":")[0]
        if name in found:
            raise DataError(f"`filter` {text}: {name} is named twice; give all its parameters once")
        found[name] = _parse(text)
    if not found:
        raise DataError(f"no `filter` given; there are {', '.join(FILTERS)}")
    return tuple(found[name] for name in FILTERS if name in found)


def _parse(text: str) -> Filter:
    name, colon, rest = text.partition(":")
    if name not in FILTERS:
        raise DataError(
            f"`filter` {text}: there is no filter {name!r}{nearest(name, FILTERS)}; there are"
            f" {', '.join(FILTERS)}"
        )
    kind = FILTERS[name]
    known = {parameter.name: parameter for parameter in kind.parameters()}
    values: dict[str, int | float | bool | str] = {}
    for setting in rest.split(",") if colon else []:
        key, equals, value = setting.partition("=")
        if key not in known:
            raise DataError(
                f"`filter` {text}: {name} has no parameter {key!r}{nearest(key, known)}; it has"
                f" {', '.join(known)}"
            )
        if key in values:
            raise DataError(f"`filter` {text}: {key} is set twice; set it once")
        if not equals:
            raise DataError(f"`filter` {text}: {key} has no value; write {key}=VALUE")
        values[key] = _value(name, known[key], value)
    _check_packages(kind)
    made = kind(**values)
    made.check()
    return made


def _value(name: str, parameter: Parameter, text: str) -> int | float | bool | str:
    """`text` as a value of the type that the default has."""
    kind = type(parameter.default)
    try:
        if kind is bool:
            return _TRUTHS[text.lower()]
        return kind(text)
    except (ValueError, KeyError) as error:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise DataError(
            f"`filter` {name}:{parameter.name}={text}: expected {expected}, such as"
            f" {str(parameter.default).lower()}"
        ) from error


def _check_packages(kind: type[Filter]) -> None:
    for package in kind.needs:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"`filter` {kind.name} needs {package}: pip install 'electra-dist[clean]'"
            )
