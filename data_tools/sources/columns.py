"""Documents of .parquet and .arrow (IPC files and streams, Hugging Face datasets on disk): the rows
of one column, through pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from data_tools.sources.opening import open_seekable
from data_tools.sources.types import InputFile, ReadOptions, Slice
from data_tools.sources.urls import shown
from electra_dist.errors import DataError
from electra_dist.files.urls import is_url

#: Text that is turned into Python at a time.
_STEP_BYTES = 2**23
_MOST_ROWS = 4096
#: How an IPC file begins; a stream has no such mark.
_IPC_FILE = b"ARROW1"

#: A slice of a file: its first and last unit, and about how many bytes of text lie in it.
Cut = tuple[int, int, int]
#: A reader of record batches, and the names from its column down to the text.
_Reader = tuple[Any, list[str]]


def pyarrow_for(name: str) -> Any:
    """The package `pyarrow`; raises `DataError` where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{shown(name)}: this format needs pyarrow, which is not installed ({error}); install"
            " it with `pip install 'electra-dist[arrow]'`"
        ) from error
    return pyarrow


@contextmanager
def _arrow_errors(name: str, pyarrow: Any) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{shown(name)}: damaged, or not of the format of its name: {reason}"
        ) from error


# --- .parquet -------------------------------------------------------------------------------------


@contextmanager
def _parquet_file(name: str, packing: str, pyarrow: Any) -> Iterator[Any]:
    with (
        open_seekable(name, packing) as file,
        _arrow_errors(name, pyarrow),
        # both, or a row group is read into memory as a whole
        pyarrow.parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False) as parquet,
    ):
        yield parquet


def parquet_cuts(file: InputFile, part_bytes: int) -> list[Cut]:
    """Row groups that lie next to each other, put together up to about `part_bytes`."""
    pyarrow = pyarrow_for(file.name)
    with _parquet_file(file.name, file.format.packing, pyarrow) as parquet:
        metadata = parquet.metadata
        sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    cuts: list[Cut] = []
    start = 0
    size = 0
    for index, group_size in enumerate(sizes, start=1):
        size += group_size
        if size >= part_bytes or index == len(sizes):
            cuts.append((start, index, size))
            start = index
            size = 0
    return cuts


def read_parquet(part: Slice, options: ReadOptions) -> Iterator[str]:
    """The texts of some row groups."""
    pyarrow = pyarrow_for(part.name)
    with _parquet_file(part.name, part.format.packing, pyarrow) as parquet:
        metadata = parquet.metadata
        end = part.end
        if end is None:
            end = metadata.num_row_groups
        groups = list(range(part.start, end))
        path = _path(parquet.schema_arrow, options.text_key, part.name, pyarrow)
        size = sum(metadata.row_group(group).total_byte_size for group in groups)
        rows = sum(metadata.row_group(group).num_rows for group in groups)
        batches = parquet.iter_batches(
            batch_size=_rows_of(rows, size),
            row_groups=groups,
            columns=[".".join(path)],
            use_threads=False,
        )
        for batch in batches:
            yield from _texts(batch, path, pyarrow)


# --- .arrow ---------------------------------------------------------------------------------------


@contextmanager
def _arrow_reader(name: str, packing: str, pyarrow: Any, key: str = "") -> Iterator[_Reader]:
    """A reader of an IPC file or stream; with a key of the column that it names, else of all."""
    with open_seekable(name, packing) as file, _arrow_errors(name, pyarrow):
        is_file = file.read(len(_IPC_FILE)) == _IPC_FILE
        file.seek(0)
        source = _source(file, name, packing, pyarrow)
        options = pyarrow.ipc.IpcReadOptions()
        open_ipc = pyarrow.ipc.open_stream
        if is_file:
            open_ipc = pyarrow.ipc.open_file
        path: list[str] = []
        if key:
            with open_ipc(source) as reader:
                path = _path(reader.schema, key, name, pyarrow)
                options.included_fields = [reader.schema.get_field_index(path[0])]
            source.seek(0)
        with open_ipc(source, options=options) as reader:
            yield reader, path
            if not is_file and _is_finished(reader) and source.read(1):
                raise DataError(
                    f"{shown(name)}: something follows on the end of the stream; write one stream"
                    " per file"
                )


def _is_finished(reader: Any) -> bool:
    """Whether a stream has no more batches; of one that has, the next is passed over."""
    try:
        reader.read_next_batch()
    except StopIteration:
        return True
    return False


def _source(file: BinaryIO, name: str, packing: str, pyarrow: Any) -> Any:
    """What pyarrow reads from: memory of the kernel for a plain local file, else the file."""
    if packing or is_url(name):
        return pyarrow.PythonFile(file, mode="r")
    return pyarrow.memory_map(f"/dev/fd/{file.fileno()}", "r")


def arrow_cuts(file: InputFile, part_bytes: int) -> list[Cut]:
    """Record batches in equal numbers, for parts of about `part_bytes`."""
    pyarrow = pyarrow_for(file.name)
    with _arrow_reader(file.name, file.format.packing, pyarrow) as (reader, _):
        if hasattr(reader, "num_record_batches"):
            count = reader.num_record_batches
        elif is_url(file.name):
            return []
        else:
            count = sum(1 for _ in reader)
    parts = max(1, min(count, -(-file.text_bytes // part_bytes)))
    places = [count * number // parts for number in range(parts + 1)]
    size = file.text_bytes // parts
    return [(places[number], places[number + 1], size) for number in range(parts)]


def read_arrow(part: Slice, options: ReadOptions) -> Iterator[str]:
    """The texts of some record batches."""
    pyarrow = pyarrow_for(part.name)
    packing = part.format.packing
    with _arrow_reader(part.name, packing, pyarrow, options.text_key) as (reader, path):
        for batch in _batches(reader, part):
            yield from _texts(batch, path, pyarrow)


def _batches(reader: Any, part: Slice) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        end = part.end
        if end is None:
            end = reader.num_record_batches
        for number in range(part.start, end):
            yield reader.get_batch(number)
        return
    for number, batch in enumerate(reader):
        if part.end is not None and number >= part.end:
            return
        if number >= part.start:
            yield batch


# --- a column -------------------------------------------------------------------------------------


def _path(schema: Any, key: str, name: str, pyarrow: Any) -> list[str]:
    """The names from the column down to the text; raises when there is none of that name."""
    if len(schema.get_all_field_indices(key)) == 1:
        path = [key]
        kind = schema.field(key).type
    else:
        path = key.split(".")
        kind = pyarrow.struct(list(schema))
        for step in path:
            if not pyarrow.types.is_struct(kind) or len(kind.get_all_field_indices(step)) != 1:
                raise DataError(
                    f"{shown(name)}: there is no column {key!r}, or two of them; the columns are"
                    f" {', '.join(map(repr, schema.names[:20]))}; name the right one as `text_key`"
                )
            kind = kind.field(step).type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if kind not in (
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.null(),
    ):
        raise DataError(
            f"{shown(name)}: the column {key!r} is of the type {kind}, expected strings; name a"
            " column of strings as `text_key`"
        )
    return path


def _texts(batch: Any, path: list[str], pyarrow: Any) -> Iterator[str]:
    """The texts of one column of a batch; null is an empty text."""
    column = batch.column(path[0])
    column.validate(full=True)  # offsets and UTF-8: another may have written the file
    if len(path) > 1:
        column = pyarrow.compute.struct_field(column, path[1:])
    rows = _rows_of(len(column), column.nbytes)
    for start in range(0, len(column), rows):
        some = column.slice(start, rows)
        if pyarrow.types.is_dictionary(some.type):
            some = some.dictionary_decode()
        for text in some.to_pylist():
            yield text or ""


def _rows_of(rows: int, size: int) -> int:
    """How many rows to take at a time, of some that have `size` bytes together."""
    if not size:
        return _MOST_ROWS
    return max(1, min(_MOST_ROWS, rows * _STEP_BYTES // size))
