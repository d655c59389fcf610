"""Datasets of the Hugging Face hub by their names, through the library `datasets`, streamed.

`hub:NAME?config=CONFIG&split=SPLIT&revision=REVISION`; what follows the name may be left out. Rows
are read while they come; nothing is stored here. A folder in place of the name works too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from data_tools.sources.records import column_text
from data_tools.sources.types import Format, InputFile, ReadOptions, Slice
from data_tools.sources.urls import HUB_PREFIX
from electra_dist.errors import DataError, nearest

HUB = Format("hub")
_KEYS = ("config", "split", "revision")
#: Parts of one dataset at most.
_MOST_PARTS = 256


def hub_file(name: str) -> InputFile:
    """The input that stands for a dataset of the hub; its parameters are checked."""
    parameters(name)
    return InputFile(name, HUB, None)


def parameters(name: str) -> tuple[str, dict[str, str]]:
    """The name of the dataset, and what was asked of it."""
    dataset, _, query = name.removeprefix(HUB_PREFIX).partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if not dataset:
        raise DataError(f"{name}: expected the name of a dataset, such as {HUB_PREFIX}allenai/c4")
    for key in asked:
        if key not in _KEYS:
            raise DataError(
                f"{name}: there is no parameter {key!r}{nearest(key, _KEYS)}; expected"
                f" {', '.join(_KEYS)}"
            )
    return dataset, asked


def hub_cuts(name: str) -> list[tuple[int, int]]:
    """Ranges of the shards of a dataset."""
    count = _load(name).num_shards
    parts = max(1, min(count, _MOST_PARTS))
    places = [count * number // parts for number in range(parts + 1)]
    return [(places[number], places[number + 1]) for number in range(parts)]


def read_hub(part: Slice, options: ReadOptions) -> Iterator[str]:
    """The texts of some shards of a dataset."""
    dataset = _load(part.name)
    count = dataset.num_shards
    end = part.end
    if end is None:
        end = count
    for index in range(part.start, end):
        with _apart_from_torch():
            rows = iter(dataset.shard(num_shards=count, index=index))
            first = list(itertools.islice(rows, 1))  # what looks for torch runs before it
        for number, row in enumerate(itertools.chain(first, rows), start=1):
            yield column_text(row, options.text_key, f"{part.name}, shard {index}, row {number}")


def _load(name: str) -> Any:
    """The dataset, streamed; raises `DataError` for whatever the library could not do."""
    with _apart_from_torch():
        return _load_with(name)


@contextlib.contextmanager
def _apart_from_torch() -> Iterator[None]:
    """Let `datasets` neither import torch nor stumble over the mark of a worker that has none.

    A worker marks torch as absent by None in `sys.modules`; the library takes any mark for torch.
    """
    before = os.environ.get("USE_TORCH")
    os.environ["USE_TORCH"] = "0"
    marked = "torch" in sys.modules and sys.modules["torch"] is None
    if marked:
        del sys.modules["torch"]
    try:
        yield
    finally:
        if marked:
            sys.modules["torch"] = None  # type: ignore[assignment]
        if before is None:
            del os.environ["USE_TORCH"]
        else:
            os.environ["USE_TORCH"] = before


def _load_with(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name}: datasets of the hub need the library datasets, which is not installed"
            f" ({error}); install it with `pip install 'electra-dist[hub]'`"
        ) from error
    dataset, asked = parameters(name)
    try:
        return datasets.load_dataset(
            dataset,
            asked.get("config"),
            split=asked.get("split", "train"),
            revision=asked.get("revision"),
            streaming=True,
        )
    except Exception as error:  # the library raises many kinds, of its own and of others
        reason = " ".join(str(error).split())[:400]
        raise DataError(f"{name}: cannot be opened: {reason}") from error
