"""`manifest.json`: what a folder of shards holds, typed, and whether the files are still what it
says.

    SHARDS/
        manifest.json          written last; names everything else
        tokenizer/             the tokenizer that encoded the shards
        train-00000.tar        WebDataset shard: samples are blocks of about 64k tokens
        train-00000.index.json offsets, sizes and checksums of its blocks
        validation-00000.tar   held-out documents, same format

Written by `data_tools.build`; read by the loader, `data inspect` and `data verify`. Counts are of
the split `train` unless they are under a split's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from electra_dist.batch import SPECIAL_TOKENS, SpecialTokens
from electra_dist.config import Config
from electra_dist.data.shards.files import (
    CHANGED,
    GONE,
    REPLACE,
    CheckLevel,
    FileFacts,
    file_problem,
)
from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.files.reading import MIB, NotRegularError, TooLargeError, read_json
from electra_dist.files.tokenizers import read_tokenizer_file, write_tokenizer
from electra_dist.files.writing import write_atomically

MANIFEST_FILE = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"
FORMAT = "electra-dist-shards"
VERSION = 1
SplitName = Literal["train", "validation"]
TRAIN: SplitName = "train"
VALIDATION: SplitName = "validation"
SPLITS: tuple[SplitName, ...] = (TRAIN, VALIDATION)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
#: Tokens of a block at most: what a reader makes room for at once.
MAX_BLOCK_TOKENS = 2**24
MAX_VOCABULARY = 2**24
#: Bytes of manifest.json and of a shard's index at most: 100,000 shards, a million blocks.
_MANIFEST_LIMIT = 128 * MIB
_INDEX_LIMIT = 64 * MIB


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

    `block_tokens` is the most tokens a block holds, `fingerprint` names the dataset (every shard's
    SHA-256 and the tokenizer's), `token_counts` has how often each id occurs in the split `train`,
    `block_checksums` says whether the indexes have a checksum for each block (not so in shards of
    an earlier version), `special_tokens` has the ids of the special tokens (absent: 0 to 4).
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
    block_checksums: Literal["crc32"] | None = None
    special_tokens: SpecialTokens = SPECIAL_TOKENS


_ADAPTER = pydantic.TypeAdapter(ManifestFile)


@dataclass(frozen=True)
class Manifest:
    """A folder of shards and its checked `manifest.json`."""

    path: Path
    facts: ManifestFile

    @classmethod
    def load(cls, shards_dir: Path | str) -> Manifest:
        """Read `shards_dir/manifest.json`; raises `DataError` when it is missing,
        damaged or of another version.
        """
        path = Path(shards_dir)
        file = path / MANIFEST_FILE
        try:
            content = read_json(file, _MANIFEST_LIMIT)
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: no {MANIFEST_FILE} there; make shards with `electra-dist data build`"
            ) from error
        except (NotRegularError, TooLargeError) as error:
            raise DataError(str(error)) from error
        except (OSError, ValueError) as error:
            raise DataError(
                f"{file}: cannot be read as JSON: {error}; build the shards again"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(f'{file}: not a manifest of shards (no "format": "{FORMAT}")')
        if content.get("version") != VERSION:
            raise DataError(
                f"{file}: format version {content.get('version')!r}, this software reads {VERSION};"
                " build them again"
            )
        try:
            facts = _ADAPTER.validate_python(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(
                f"{file}: damaged at {where}: {first['msg']}; build the shards again"
            ) from error
        problem = contradiction(facts)
        if problem:
            raise DataError(f"{file}: contradicts itself ({problem}); {REPLACE}")
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
        if name == TRAIN:
            return self.facts.train
        return self.facts.validation

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

    def files(self) -> list[FileFacts]:
        """Every file that the manifest vouches for."""
        shards = [shard for name in SPLITS for shard in self.split(name).shards]
        return [file for shard in shards for file in (shard.tar, shard.index)] + list(
            self.facts.tokenizer_files
        )

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
        at least once a MiB that is read.
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


def dataset_fingerprint(tokenizer_fingerprint: str, splits: list[SplitFacts]) -> str:
    """One name for a dataset:
    SHA-256 over the tokenizer's fingerprint and every shard's name and SHA-256.
    """
    names = [[(shard.tar.name, shard.tar.sha256) for shard in split.shards] for split in splits]
    return hashlib.sha256(
        json.dumps([FORMAT, VERSION, tokenizer_fingerprint, names]).encode()
    ).hexdigest()


def contradiction(facts: ManifestFile) -> str | None:
    """What cannot be true of any shards, or None:
    names that leave the folder, sums that do not add up.
    """
    problems = (
        _wrong_names(facts),
        *(
            _wrong_split(facts, name, split)
            for name, split in ((TRAIN, facts.train), (VALIDATION, facts.validation))
        ),
        _wrong_vocabulary(facts),
        _wrong_specials(facts),
    )
    for problem in problems:
        if problem:
            return problem
    if facts.fingerprint != dataset_fingerprint(
        facts.tokenizer_fingerprint, [facts.train, facts.validation]
    ):
        return "the fingerprint is not that of its shards"
    return None


def _wrong_names(facts: ManifestFile) -> str | None:
    shards = [*facts.train.shards, *facts.validation.shards]
    names = [file.name for shard in shards for file in (shard.tar, shard.index)]
    tokenizer = [file.name.removeprefix(f"{TOKENIZER_FOLDER}/") for file in facts.tokenizer_files]
    for name in names + tokenizer:
        if not _PLAIN_NAME.fullmatch(name):
            return f"{name[:100]!r} is no name of a file in the folder"
    for shard in shards:
        if not shard.tar.name.endswith(".tar"):
            return f"{shard.tar.name} is no name of a tar file"
    if len(set(names)) != len(names) or len(set(tokenizer)) != len(tokenizer):
        return "a file is named twice"
    return None


def _wrong_split(facts: ManifestFile, name: SplitName, split: SplitFacts) -> str | None:
    for shard in split.shards:
        content = facts.token_bytes * shard.tokens + 4 * shard.documents
        counts_fit = (
            1 <= shard.blocks <= shard.documents <= shard.tokens and content <= shard.tar.bytes
        )
        if not counts_fit or not 0 < shard.index.bytes <= _INDEX_LIMIT:
            return f"the counts of {shard.tar.name} do not fit its size"
    if split != SplitFacts.of(split.shards):
        return f"the counts of the split {name} are not the sums of its shards"
    return None


def _wrong_vocabulary(facts: ManifestFile) -> str | None:
    if not 1 <= facts.vocab_size <= min(256**facts.token_bytes, MAX_VOCABULARY):
        return f"a vocabulary of {facts.vocab_size} ids in {facts.token_bytes} bytes"
    if not 1 <= facts.block_tokens <= MAX_BLOCK_TOKENS:
        return f"blocks of {facts.block_tokens} tokens, expected at most {MAX_BLOCK_TOKENS}"
    if len(facts.token_counts) != facts.vocab_size or min(facts.token_counts) < 0:
        return "token_counts does not have one count an id"
    if sum(facts.token_counts) == facts.train.tokens:
        return None
    return "token_counts do not add up to the tokens"


def _wrong_specials(facts: ManifestFile) -> str | None:
    special = facts.special_tokens
    for name, number in asdict(special).items():
        if number is not None and not 0 <= number < facts.vocab_size:
            return f"special_tokens.{name} {number} is outside the vocabulary"
    if len(set(special.never_masked)) < len(special.never_masked):
        return "two special tokens have one id"
    return None


def write_manifest(folder: Path, facts: ManifestFile) -> None:
    """Write `manifest.json` into `folder`: the last file of a folder of shards."""
    write_atomically(folder / MANIFEST_FILE, _manifest_json(facts))


def _manifest_json(facts: ManifestFile) -> str:
    """The text of `manifest.json`: indented, the token counts on one line."""
    content = asdict(facts)
    counts = content.pop("token_counts")
    text = json.dumps(content, indent=1)
    return f'{text[:-2]},\n "token_counts": {json.dumps(counts, separators=(",", ":"))}\n}}\n'


def check_vocabulary(config: Config, manifest: Manifest) -> None:
    """Raise `ConfigError` when `model.vocab_size` is set and
    is not the vocabulary of the shards.
    """
    wanted = config.model.vocab_size
    if wanted is not None and wanted != manifest.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {wanted}, but the shards in {manifest.path} have"
            f" {manifest.vocab_size} ids; remove the key, or build shards with a tokenizer of"
            f" {wanted} ids"
        )
