"""Files of vectors, written part by part, in the order of the texts.

    .npy       one array (N, H) in fp32, without the texts
    .parquet   columns `text` and `vector`, a list of H numbers
    .jsonl     one object per line: {"text": ..., "vector": [...]}

Letters: N texts, B texts of a part, H hidden.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electra_dist.errors import UserError
from electra_dist.files.writing import reason, whole_file


class VectorFile(ABC):
    """A file that is being written."""

    @abstractmethod
    def __init__(self, path: Path, hidden: int) -> None:
        """Start the file; vectors have `hidden` numbers."""

    @abstractmethod
    def write(self, texts: Sequence[str], vectors_bh: NDArray[np.float32]) -> None:
        """The next texts and their vectors."""

    @abstractmethod
    def close(self) -> None:
        """End the file."""


class _NpyFile(VectorFile):
    """The number of vectors is known at the end: the header is written again then. numpy leaves
    room in it for a longer number.
    """

    def __init__(self, path: Path, hidden: int) -> None:
        self._file = path.open("wb")
        self._hidden = hidden
        self._count = 0
        self._header()
        self._start = self._file.tell()

    def _header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": "<f4", "fortran_order": False, "shape": (self._count, self._hidden)},
        )

    def write(self, texts: Sequence[str], vectors_bh: NDArray[np.float32]) -> None:
        self._file.write(vectors_bh.astype("<f4").tobytes())
        self._count += len(vectors_bh)

    def close(self) -> None:
        self._file.seek(0)
        self._header()
        assert self._file.tell() == self._start
        self._file.close()


class _JsonFile(VectorFile):
    def __init__(self, path: Path, hidden: int) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, texts: Sequence[str], vectors_bh: NDArray[np.float32]) -> None:
        for text, vector in zip(texts, vectors_bh.tolist(), strict=True):
            line = json.dumps({"text": text, "vector": vector}, ensure_ascii=False)
            self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


class _ParquetFile(VectorFile):
    def __init__(self, path: Path, hidden: int) -> None:
        import pyarrow
        from pyarrow import parquet

        self._vectors = pyarrow.list_(pyarrow.float32(), hidden)
        self._schema = pyarrow.schema([("text", pyarrow.string()), ("vector", self._vectors)])
        self._writer = parquet.ParquetWriter(path, self._schema)

    def write(self, texts: Sequence[str], vectors_bh: NDArray[np.float32]) -> None:
        import pyarrow

        numbers = pyarrow.array(vectors_bh.reshape(-1))
        vectors = pyarrow.FixedSizeListArray.from_arrays(numbers, type=self._vectors)
        table = pyarrow.table([pyarrow.array(list(texts)), vectors], schema=self._schema)
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


_KINDS: dict[str, type[VectorFile]] = {
    ".npy": _NpyFile,
    ".parquet": _ParquetFile,
    ".jsonl": _JsonFile,
}


def check_vector_file(path: Path) -> None:
    """Raise `UserError` for the name of a file that cannot be written."""
    if path.suffix not in _KINDS:
        raise UserError(f"`out` {path}: expected a file ending in {', '.join(_KINDS)}")
    if path.is_dir():
        raise UserError(f"`out` {path}: is a folder; give the name of a file in it")


@contextmanager
def vector_file(path: Path, hidden: int) -> Iterator[VectorFile]:
    """A file that is at `path` when the block ends well, and nowhere when it does not."""
    kind: Any = _KINDS[path.suffix]
    try:
        with whole_file(path) as temporary:
            file = kind(temporary, hidden)
            try:
                yield file
            finally:
                file.close()
    except OSError as error:
        raise UserError(f"`out` {path}: cannot be written: {reason(error)}") from error
