"""How much room on the disk a cleaning needs: measured on a sample, before it starts.

Comes in: the parts of the input and what is done with them. Goes out: bytes, about. The documents
that the first filters leave are there twice at the end, in spools and in files; the keys of the
corpus-wide filters lie beside them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from data_tools.cleaning.lines import compressing, to_line
from data_tools.cleaning.report import Tally
from data_tools.cleaning.screening import RECORD, ScreenTask, through
from data_tools.filters.document import Document
from data_tools.filters.kinds import KeyFilter
from data_tools.sources import read_documents

#: Parts, and characters of each, that are looked at.
_PARTS = 4
_CHARACTERS = 2**18
#: Copies of what is left: in the spools, and in the files.
_COPIES = 2
#: Bytes of a document's number beside its keys, and of its mark.
_NUMBER = 4
_MARK = 1


def needed_bytes(tasks: Sequence[ScreenTask]) -> int:
    """What all files of the cleaning take at its end, about; raises `DataError` for bad input."""
    text = 0
    packed = 0
    beside = 0
    for index in range(min(_PARTS, len(tasks))):
        task = tasks[index * len(tasks) // min(_PARTS, len(tasks))]
        buffer = io.BytesIO()
        with compressing(buffer, task.compression) as file:
            for document in _sample(task):
                text += len(document.encode("utf-8", "surrogatepass"))
                left = through(task, tuple(Tally() for _ in task.text_filters), Document(document))
                if left is not None:
                    file.write(to_line(left.text))
                    beside += RECORD.itemsize + sum(map(_key_bytes, task.key_filters))
        packed += len(buffer.getvalue())
    whole = sum(task.part.text_bytes for task in tasks)
    return whole * (_COPIES * packed + beside) // max(1, text)


def _sample(task: ScreenTask) -> Iterator[str]:
    """The first documents of a part."""
    size = 0
    for document in read_documents(task.part):
        yield document
        size += len(document)
        if size >= _CHARACTERS:
            return


def _key_bytes(applied: KeyFilter) -> int:
    """What the keys of a document take."""
    return applied.columns * (8 * applied.key_words + _NUMBER) + _MARK
