"""`manifest.json`: what a folder of shards holds, typed, and whether the files are still what it
says.

    SHARDS/
        manifest.json             written last; names everything else
        train.shards-DIGEST.npy   size, SHA-256 and counts of each shard
        train.blocks-DIGEST.npy   where each block is, its counts and its checksum
        tokenizer/                the tokenizer that encoded the shards
        train-00000.tar           WebDataset shard: samples are blocks of about 64k tokens
        validation-00000.tar      held-out documents, same format; with tables of their own

Written by `data_tools.build`; read by the loader, `data inspect` and `data verify`. Counts are of
the split `train` unless they are under a split's name. Version 1 lists all shards in manifest.json,
with an index file for each; it is read as it is.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.config import Config
from electra_dist.data.shards.facts import (
    FORMAT,
    MAX_BLOCK_TOKENS,
    SPLITS,
    TOKENIZER_FOLDER,
    TRAIN,
    VALIDATION,
    VERSION,
    ManifestFile,
    ShardFacts,
    SplitFacts,
    SplitName,
    dataset_fingerprint,
)
from electra_dist.data.shards.files import CHANGED, GONE, CheckLevel, FileFacts, file_problem
from electra_dist.data.shards.parsing import (
    MANIFEST_FILE,
    MANIFEST_LIMIT,
    checked_content,
    facts_of,
    read_content,
)
from electra_dist.data.shards.publishing import write_manifest
from electra_dist.data.shards.stores.remote import CacheSettings, Remote, parsed
from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.files.tokenizers import read_tokenizer_file, write_tokenizer
from electra_dist.files.urls import is_url

__all__ = [
    "FORMAT",
    "MANIFEST_FILE",
    "MAX_BLOCK_TOKENS",
    "SPLITS",
    "TOKENIZER_FOLDER",
    "TRAIN",
    "VALIDATION",
    "VERSION",
    "CacheSettings",
    "Manifest",
    "ManifestFile",
    "ShardFacts",
    "SplitFacts",
    "SplitName",
    "cache_of",
    "dataset_fingerprint",
    "write_manifest",
]


@dataclass(frozen=True)
class Manifest:
    """A folder of shards and its checked `manifest.json`."""

    path: Path
    facts: ManifestFile
    #: What `of` needs to make it again.
    content: dict[str, Any] = field(repr=False, compare=False)

    remote: Remote | None = None
    #: Added to each read of a block, to measure what a slow storage costs.
    latency_seconds: float = field(default=0.0, compare=False)

    @classmethod
    def load(cls, shards_dir: Path | str, cache: CacheSettings | None = None) -> Manifest:
        """Read the manifest of a folder, or of a URL whose small files are kept in `cache`.

        Raises `DataError` when it is missing, damaged or of another version, `ConfigError` for a
        URL without a cache.
        """
        if not is_url(shards_dir):
            path = Path(shards_dir)
            return cls.of(path, read_content(path))
        if cache is None:
            raise ConfigError(
                f"data.shards = {shards_dir}: shards at a URL need data.cache, a folder on a disk"
                " of each node"
            )
        remote = Remote(str(shards_dir), cache)
        place = remote.place(MANIFEST_FILE)
        content = parsed(remote.read_small(MANIFEST_FILE, MANIFEST_LIMIT), place)
        return cls.of(remote.folder, checked_content(content, place), remote)

    @classmethod
    def of(cls, path: Path, content: dict[str, Any], remote: Remote | None = None) -> Manifest:
        """The manifest with the parsed `content` of manifest.json, whose tables lie in `path`.

        Raises what `load` raises.
        """
        have = _there
        place = str(path / MANIFEST_FILE)
        if remote is not None:
            have = remote.ensure
            place = remote.place(MANIFEST_FILE)
        facts = facts_of(path, content, have, place)
        for file in facts.tokenizer_files:
            have(file)
        return cls(path, facts, content, remote)

    def to_handle(self) -> dict[str, Any]:
        """What another process or rank needs to open the same manifest, as JSON takes it."""
        handle: dict[str, Any] = {"path": str(self.path), "content": self.content}
        handle["latency_seconds"] = self.latency_seconds
        if self.remote is not None:
            handle["url"] = self.remote.url
            handle["cache"] = str(self.remote.cache.folder)
            handle["cache_bytes"] = self.remote.cache.bytes
        return handle

    @classmethod
    def from_handle(cls, handle: dict[str, Any]) -> Manifest:
        """The inverse of `to_handle`; reads the tables and no manifest.json."""
        remote = None
        if "url" in handle:
            cache = CacheSettings(Path(handle["cache"]), handle["cache_bytes"])
            remote = Remote(handle["url"], cache)
        found = cls.of(Path(handle["path"]), handle["content"], remote)
        return replace(found, latency_seconds=handle["latency_seconds"])

    def have(self, facts: FileFacts) -> None:
        """Have a file on this node that the manifest names: a remote one is fetched."""
        if self.remote is not None:
            self.remote.ensure(facts)

    def place(self, name: str) -> str:
        """Where a file of the folder is, for people: a path or a URL."""
        if self.remote is not None:
            return self.remote.place(name)
        return str(self.path / name)

    @property
    def fingerprint(self) -> str:
        return self.facts.fingerprint

    @property
    def vocab_size(self) -> int:
        return self.facts.vocab_size

    @property
    def tokenizer_path(self) -> Path:
        """The folder with the tokenizer that encoded the shards."""
        return self.path / TOKENIZER_FOLDER

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """uint16, or uint32 for vocabularies above 65,536 ids; little-endian."""
        return np.dtype(f"<u{self.facts.token_bytes}")

    def split(self, name: SplitName) -> SplitFacts:
        return self.facts.split(name)

    @cached_property
    def token_counts(self) -> npt.NDArray[np.int64]:
        """(V,) how often each id occurs in the split `train`."""
        return np.array(self.facts.token_counts, dtype=np.int64)

    def unigram_entropy(self) -> float:
        """Entropy of the token frequencies, in nats:
        the loss of a generator that knows nothing but them.
        """
        counts = self.token_counts[self.token_counts > 0].astype(np.float64)
        probabilities = counts / counts.sum()
        return float(-(probabilities * np.log(probabilities)).sum())

    def files(self) -> Iterator[FileFacts]:
        """Every file that the manifest vouches for; of remote shards those on this node."""
        if self.remote is not None:
            yield from self._small_files()
            return
        for name in SPLITS:
            for shard in self.split(name).shards:
                yield shard.tar
                if shard.index is not None:
                    yield shard.index
        yield from self._small_files()

    def _small_files(self) -> Iterator[FileFacts]:
        for tables in (self.facts.tables or {}).values():
            yield tables.shards
            yield tables.blocks
        yield from self.facts.tokenizer_files

    def check_files(
        self,
        level: CheckLevel = "sizes",
        share: tuple[int, int] = (0, 1),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Raise `DataError` for the first file that is missing, has another size or (`checksums`)
        other content.

        `share` (i, n) checks every n-th file from the i-th, so that n ranks check all of them
        together. `progress` is called with the bytes checked so far and those of the whole share,
        at least once a MiB that is read. Of remote shards the tables and the tokenizer are
        checked, which are on this node; raises `ConfigError` for `checksums` of them.
        """
        if self.remote is not None:
            if level == "checksums":
                raise ConfigError(
                    f"data.verify = checksums: shards at a URL ({self.remote.url}) are not read"
                    " whole; each block is checked when it is read. Set data.verify=sizes"
                )
            for tables in (self.facts.tables or {}).values():
                self.have(tables.blocks)
        files = list(itertools.islice(self.files(), share[0], None, share[1]))
        total = sum(facts.bytes for facts in files)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress:
                progress(done, total)

        for facts in files:
            problem = file_problem(self.path, facts, level, advance)
            if problem:
                raise DataError(f"{self.path / facts.name}: {problem}")

    def copy_tokenizer(self, target: Path) -> None:
        """Make the folder `target` with the tokenizer's files as the manifest names them; it is
        whole or absent.

        Raises `UserError` for a file that is missing, is a link or a special file, or holds
        something else.
        """
        files = {}
        for facts in self.facts.tokenizer_files:
            path = self.path / facts.name
            try:
                content = read_tokenizer_file(path)
            except FileNotFoundError as error:
                raise DataError(f"{path}: {GONE}") from error
            if hashlib.sha256(content).hexdigest() != facts.sha256:
                raise DataError(f"{path}: {CHANGED}")
            files[path.name] = content
        write_tokenizer(files, target)

    def is_tokenizer(self, folder: Path) -> bool:
        """Whether `folder` holds the whole tokenizer of these shards,
        as `copy_tokenizer` makes it.
        """
        try:
            return all(
                hashlib.sha256(read_tokenizer_file(folder / Path(facts.name).name)).hexdigest()
                == facts.sha256
                for facts in self.facts.tokenizer_files
            )
        except (OSError, UserError):
            return False


def cache_of(config: Config) -> CacheSettings | None:
    """Where `config` keeps remote shards; None where it does not say."""
    if config.data.cache is None:
        return None
    return CacheSettings(Path(config.data.cache), config.data.cache_bytes)


def _there(facts: FileFacts) -> None:
    """A file of a local folder: whoever opens it says whether it is there."""
