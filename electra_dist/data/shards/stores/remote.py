"""Shards at a URL: `s3://`, `gs://`, `https://` and whatever else `fsspec` knows.

    CACHE/datasets/DIGEST/   manifest.json, tables and tokenizer, as in a folder of shards
    CACHE/blocks/            blocks that were read (`cache`)

Manifest and tables are fetched once for a node, and held against their SHA-256 before they get
their names. Shards are not fetched whole: a run reads its blocks in a drawn order, each from
another shard, so the bytes of one block are asked for at a time. They are checked like those of a
local block before anybody sees them, and before they are kept.

Credentials come from the environment, as each store's own tools read them; a URL that holds one is
refused. What fails is tried again with growing pauses; a file that is not there, or that may not be
read, is an error at once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from electra_dist.data.shards.files import FileFacts, file_problem
from electra_dist.data.shards.stores.cache import alone
from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.files.urls import credential_in
from electra_dist.files.writing import whole_file, writing
from electra_dist.parallel import signs

_OWN_DISK = ("file", "local")
_TRIES = 6
#: Before the second try; twice as long before each one after it.
_PAUSE_SECONDS = 0.5
_CHUNK = 8 << 20
#: A status of HTTP.
_RANGE_NOT_SATISFIABLE = 416
_T = TypeVar("_T")


@dataclass(frozen=True)
class CacheSettings:
    """Where remote shards are kept on this node, and how many bytes of blocks at most."""

    folder: Path
    bytes: int
    """0: blocks are not kept; for whoever reads each of them once."""


@dataclass(frozen=True)
class Remote:
    """A folder of shards at `url`, with what of it is on this node."""

    url: str
    cache: CacheSettings

    def __post_init__(self) -> None:
        problem = credential_in(self.url)
        if problem:
            raise ConfigError(problem)
        scheme = urlsplit(self.url).scheme
        if scheme in _OWN_DISK or "::" in self.url:
            raise ConfigError(f"{self.url}: give the folder itself, without {scheme}://")

    @property
    def folder(self) -> Path:
        """Where manifest, tables and tokenizer are on this node."""
        digest = hashlib.sha256(self.url.rstrip("/").encode()).hexdigest()
        return self.cache.folder / "datasets" / digest[:16]

    def place(self, name: str) -> str:
        """The URL of a file of the folder."""
        return f"{self.url.rstrip('/')}/{name}"

    def read_small(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes; raises `DataError`."""
        content = self.read(name, 0, limit + 1)
        if len(content) > limit:
            raise DataError(f"{self.place(name)}: is larger than {limit:,} bytes")
        return content

    def read(self, name: str, offset: int, count: int) -> bytes:
        """At most `count` bytes of a file from `offset` on, fewer at its end.

        Raises `DataError`.
        """

        def fetch() -> bytes:
            """One try."""
            fs, root = self._system
            try:
                content = bytes(fs.cat_file(f"{root}/{name}", start=offset, end=offset + count))
            except Exception as error:  # every store has exceptions of its own
                if _is_past_the_end(error):
                    return b""
                raise
            if len(content) > count:
                raise DataError(
                    f"{self.place(name)}: {count} bytes were asked for and {len(content)} came; the"
                    " server must know the header Range"
                )
            return content

        return self._patiently(name, fetch)

    def stream(self, facts: FileFacts) -> Iterator[bytes]:
        """The bytes of a file from first to last, and one more where it is longer than `facts`.

        A piece of `_CHUNK` bytes is in memory at a time. Raises `DataError`.
        """
        end = facts.bytes + 1
        for start in range(0, end, _CHUNK):
            count = min(_CHUNK, end - start)
            content = self.read(facts.name, start, count)
            yield content
            if len(content) < count:
                return

    def ensure(self, facts: FileFacts) -> None:
        """Have a file of the folder on this node, whole; the first process fetches it.

        Raises `DataError` where it cannot be fetched or is not what the manifest names,
        `StorageError` where it cannot be written.
        """
        path = self.folder / facts.name
        with writing(path.parent, "the cache of remote shards"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with alone(path.parent / ".lock"):
                if file_problem(self.folder, facts, "sizes") is None:
                    return
                self._patiently(facts.name, lambda: self._download(facts, path))

    def _download(self, facts: FileFacts, path: Path) -> None:
        """Raises `_ChangedError` for other content; the next try may get the right one."""
        fs, root = self._system
        digest = hashlib.sha256()
        with whole_file(path) as temporary:
            with temporary.open("wb") as file:
                for start in range(0, facts.bytes, _CHUNK):
                    end = min(facts.bytes, start + _CHUNK)
                    content = fs.cat_file(f"{root}/{facts.name}", start=start, end=end)
                    file.write(content)
                    digest.update(content)
            if digest.hexdigest() != facts.sha256:
                raise _ChangedError("its content is not what the manifest names (SHA-256 differs)")

    @cached_property
    def _system(self) -> tuple[Any, str]:
        """The file system of the URL, and the folder in it."""
        try:
            from fsspec.core import url_to_fs

            fs, root = url_to_fs(self.url.rstrip("/"))
        except ImportError as error:
            raise UserError(
                f"{self.url}: shards at a URL need more packages ({error}); install"
                " electra-dist[remote], and s3fs for s3:// or gcsfs for gs://"
            ) from error
        except ValueError as error:
            raise ConfigError(f"{self.url}: no store of this kind is known: {error}") from error
        return fs, root.rstrip("/")

    def _patiently(self, name: str, fetch: Callable[[], _T]) -> _T:
        """What `fetch` returns, in one of several tries."""
        place = self.place(name)
        pause = _PAUSE_SECONDS
        for number in range(1, _TRIES + 1):
            try:
                return fetch()
            except UserError:
                raise
            except FileNotFoundError as error:
                raise DataError(
                    f"{place}: missing; is this the URL of a folder of shards, and were all of its"
                    " files copied there?"
                ) from error
            except PermissionError as error:
                raise DataError(
                    f"{place}: may not be read ({_short(error)}); are the credentials of the store"
                    " in the environment of every process that reads it?"
                ) from error
            except Exception as error:  # every store has exceptions of its own
                if _status(error) in (401, 403):
                    raise DataError(f"{place}: may not be read ({_short(error)})") from error
                if number == _TRIES:
                    raise DataError(
                        f"{place}: cannot be fetched, tried {_TRIES} times:"
                        f" {type(error).__name__}: {_short(error)}. Is the store reachable from"
                        " this node? Start again when it is"
                    ) from error
                signs.sign(f"try {number + 1} of {_TRIES} of {place}", within="data")
            time.sleep(pause)
            pause = 2 * pause
        raise AssertionError("the last try returns or raises")


class _ChangedError(Exception):
    """A file that is not what its SHA-256 says."""


def _status(error: Exception) -> int | None:
    """The status of HTTP in an answer, under the name that its library uses."""
    for name in ("status", "code"):
        status = getattr(error, name, None)
        if isinstance(status, int):
            return status
    return None


def _is_past_the_end(error: Exception) -> bool:
    """Whether a range was asked for that begins behind the last byte."""
    return _status(error) == _RANGE_NOT_SATISFIABLE


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def parsed(content: bytes, place: str) -> Any:
    """JSON from a store; raises `DataError`."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: cannot be read as JSON: {error}") from error
