"""`manifest.json`: what a folder of shards holds, typed, and whether the files are still what it says.

    SHARDS/
        manifest.json          written last; names everything else
        tokenizer/             the tokenizer that encoded the shards
        train-00000.tar        WebDataset shard: samples are blocks of about 64k tokens
        train-00000.index.json offsets of its blocks
        validation-00000.tar   held-out documents, same format

Written by `data_tools.build`; read by the loader, `data inspect` and `data verify`. Counts are of the split `train`
unless they are under a split's name.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from electra_dist.config import Config
from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.files import MIB, open_regular, reason
from electra_dist.tokenizer_files import read_tokenizer_file, write_tokenizer

MANIFEST_FILE = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"
FORMAT = "electra-dist-shards"
VERSION = 1
SplitName = Literal["train", "validation"]
TRAIN: SplitName = "train"
VALIDATION: SplitName = "validation"
SPLITS: tuple[SplitName, ...] = (TRAIN, VALIDATION)
CheckLevel = Literal["sizes", "checksums"]

#: What is wrong with a file, and what to do about it. Gone and damaged are different things.
GONE = "missing; is its file system mounted? Bring it back, or point data.shards at another copy of the shards"
UNREADABLE = "is its file system in order? The content may be whole; start again when it can be read"
REPLACE = "copy it again from a whole copy, or build the shards again (the same input gives the same bytes)"
CHANGED = f"its content is not what was written (SHA-256 differs); {REPLACE}"
NOT_REGULAR = f"is a link or a special file, expected a regular file; {REPLACE}"


@dataclass(frozen=True)
class FileFacts:
    """A file in the shards folder, with what proves that it is whole."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardFacts:
    """One shard: its tar file, its index and what they hold."""

    tar: FileFacts
    index: FileFacts
    blocks: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class SplitFacts:
    """The shards of one split, in order, and their sums."""

    shards: tuple[ShardFacts, ...]
    blocks: int
    documents: int
    tokens: int

    @classmethod
    def of(cls, shards: tuple[ShardFacts, ...]) -> SplitFacts:
        """The split that consists of `shards`."""
        return cls(
            shards=shards,
            blocks=sum(shard.blocks for shard in shards),
            documents=sum(shard.documents for shard in shards),
            tokens=sum(shard.tokens for shard in shards),
        )


@dataclass(frozen=True)
class ManifestFile:
    """The content of `manifest.json`, key by key.

    `block_tokens` is the most tokens a block holds, `fingerprint` names the dataset (every shard's SHA-256 and the
    tokenizer's), `token_counts` has how often each id occurs in the split `train`.
    """

    format: str
    version: int
    fingerprint: str
    tokenizer_fingerprint: str
    vocab_size: int
    token_bytes: Literal[2, 4]
    block_tokens: int
    seed: int
    train: SplitFacts
    validation: SplitFacts
    tokenizer_files: tuple[FileFacts, ...]
    token_counts: tuple[int, ...]


_ADAPTER = pydantic.TypeAdapter(ManifestFile)


@dataclass(frozen=True)
class Manifest:
    """A folder of shards and its checked `manifest.json`."""

    path: Path
    facts: ManifestFile

    @classmethod
    def load(cls, shards_dir: Path | str) -> Manifest:
        """Read `shards_dir/manifest.json`; raises `DataError` when it is missing, damaged or of another version."""
        path = Path(shards_dir)
        file = path / MANIFEST_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"{path}: no {MANIFEST_FILE} there; make shards with `electra-dist data build`") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read as JSON: {error}; build the shards again") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(f'{file}: not a manifest of shards (no "format": "{FORMAT}")')
        if content.get("version") != VERSION:
            raise DataError(
                f"{file}: format version {content.get('version')!r}, this software reads {VERSION}; build them again"
            )
        try:
            facts = _ADAPTER.validate_python(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{file}: damaged at {where}: {first['msg']}; build the shards again") from error
        return cls(path, facts)

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
        return self.facts.train if name == TRAIN else self.facts.validation

    @cached_property
    def token_counts(self) -> npt.NDArray[np.int64]:
        """(V,) how often each id occurs in the split `train`."""
        return np.array(self.facts.token_counts, dtype=np.int64)

    def unigram_entropy(self) -> float:
        """Entropy of the token frequencies, in nats: the loss of a generator that knows nothing but them."""
        counts = self.token_counts[self.token_counts > 0].astype(np.float64)
        probabilities = counts / counts.sum()
        return float(-(probabilities * np.log(probabilities)).sum())

    def files(self) -> list[FileFacts]:
        """Every file that the manifest vouches for."""
        shards = [shard for name in SPLITS for shard in self.split(name).shards]
        return [file for shard in shards for file in (shard.tar, shard.index)] + list(self.facts.tokenizer_files)

    def check_files(
        self,
        level: CheckLevel = "sizes",
        share: tuple[int, int] = (0, 1),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Raise `DataError` for the first file that is missing, has another size or (`checksums`) other content.

        `share` (i, n) checks every n-th file from the i-th, so that n ranks check all of them together. `progress` is
        called with the bytes checked so far and those of the whole share, at least once a MiB that is read.
        """
        files = self.files()[share[0] :: share[1]]
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
        """Make the folder `target` with the tokenizer's files as the manifest names them; it is whole or absent.

        Raises `UserError` for a file that is missing, is a link or a special file, or holds something else.
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
        """Whether `folder` holds the whole tokenizer of these shards, as `copy_tokenizer` makes it."""
        try:
            return all(
                hashlib.sha256(read_tokenizer_file(folder / Path(facts.name).name)).hexdigest() == facts.sha256
                for facts in self.facts.tokenizer_files
            )
        except (OSError, UserError):
            return False


def file_problem(
    folder: Path, facts: FileFacts, level: CheckLevel, advance: Callable[[int], None] = lambda count: None
) -> str | None:
    """What is wrong with one file and what to do about it, or None; tells `advance` the bytes that were checked."""
    path = folder / facts.name
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return NOT_REGULAR
        if found.st_size != facts.bytes:
            return f"has {found.st_size} bytes, the manifest says {facts.bytes}; {REPLACE}"
        if level == "sizes":
            advance(facts.bytes)
            return None
        with open_regular(path) as file:
            return CHANGED if _sha256(file, advance) != facts.sha256 else None
    except FileNotFoundError:
        return GONE
    except OSError as error:
        return f"cannot be read: {reason(error)}; {UNREADABLE}"


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return _sha256(file, lambda count: None)


def _sha256(file: BinaryIO, advance: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(MIB):
        digest.update(chunk)
        advance(len(chunk))
    return digest.hexdigest()


def dataset_fingerprint(tokenizer_fingerprint: str, splits: list[SplitFacts]) -> str:
    """One name for a dataset: SHA-256 over the tokenizer's fingerprint and every shard's name and SHA-256."""
    names = [[(shard.tar.name, shard.tar.sha256) for shard in split.shards] for split in splits]
    return hashlib.sha256(json.dumps([FORMAT, VERSION, tokenizer_fingerprint, names]).encode()).hexdigest()


def manifest_json(facts: ManifestFile) -> str:
    """The text of `manifest.json`: indented, the token counts on one line."""
    content = asdict(facts)
    counts = content.pop("token_counts")
    text = json.dumps(content, indent=1)
    return f'{text[:-2]},\n "token_counts": {json.dumps(counts, separators=(",", ":"))}\n}}\n'


def check_vocabulary(config: Config, manifest: Manifest) -> None:
    """Raise `ConfigError` when `model.vocab_size` is set and is not the vocabulary of the shards."""
    wanted = config.model.vocab_size
    if wanted is not None and wanted != manifest.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {wanted}, but the shards in {manifest.path} have {manifest.vocab_size} ids;"
            f" remove the key, or build shards with a tokenizer of {wanted} ids"
        )
