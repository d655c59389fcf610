"""The two kinds of filters, and what their parameters are.

`TextFilter` looks at one document: it may rewrite it, and it gives a reason to drop it.
`KeyFilter` gives each document keys; a document is dropped when an earlier one has one of them.

A filter is a frozen dataclass: its fields are the parameters, made by `parameter`. The reason for
which a document is dropped is the name of the parameter that decided, so that a reader of the
report knows what to change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from data_tools.filters.document import Document
from electra_dist.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def parameter(default: Any, meaning: str) -> Any:
    """A field of a filter with its default and what it means."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Parameter:
    """One parameter of a filter, for help and documentation."""

    name: str
    default: int | float | bool | str
    meaning: str


@dataclass(frozen=True)
class Filter:
    """What both kinds share.

    name    as the command line has it
    drops   what it drops, in a few words
    source  the paper and section that its defaults come from
    needs   packages that it imports
    """

    name: ClassVar[str]
    drops: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parameters(cls) -> Iterator[Parameter]:
        """Its parameters, in order."""
        for field in dataclasses.fields(cls):
            yield Parameter(field.name, field.default, field.metadata["meaning"])  # type: ignore[arg-type]

    @property
    def values(self) -> dict[str, int | float | bool | str]:
        """The value of each parameter."""
        return dataclasses.asdict(self)

    def check(self) -> None:
        """Raise `DataError` for a value that cannot be."""
        for name, value in self.values.items():
            if isinstance(value, int | float) and not value >= 0:  # nor NaN
                raise self.refusal(name, "0 or more")

    def refusal(self, name: str, expected: str) -> DataError:
        """The error for the value of the parameter `name`."""
        found = getattr(self, name)
        return DataError(f"`filter` {self.name}:{name}={found}: expected {expected}")

    def check_shares(self, *names: str) -> None:
        """Raise `DataError` unless each of these parameters is from 0 to 1."""
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise self.refusal(name, "a share from 0 to 1")


@dataclass(frozen=True)
class TextFilter(Filter):
    """A filter that looks at one document at a time."""

    def rewrite(self, document: Document) -> Document:
        """The document as it goes on; by default as it came."""
        return document

    def why_not(self, document: Document) -> str | None:
        """The parameter for which the document is dropped, or None."""
        raise NotImplementedError


@dataclass(frozen=True)
class KeyFilter(Filter):
    """A filter that drops a document when an earlier one has the same key in the same column.

    key_words  64-bit words of a key
    reason     for which documents are dropped, as the report has it
    """

    key_words: ClassVar[int] = 1
    reason: ClassVar[str]

    @property
    def columns(self) -> int:
        """How many keys a document has."""
        return 1

    def keys(self, document: Document) -> npt.NDArray[np.uint64] | None:
        """(columns, key_words) of the document; None for one that is never a duplicate."""
        raise NotImplementedError
