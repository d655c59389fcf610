"""The documents of one part of the input, encoded and spilled to disk by split.

The first step of a build, which runs it in worker processes. Comes in: an `EncodeTask`. Goes out:
sorted spills of ids on disk, and their record with the counts, written last: a task whose record is
there is done. A document's split and its place in the shuffle are hashes of its text.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from data_tools.build.known import KnownDocuments, contents_of
from data_tools.build.pieces import CHUNK_CHARACTERS, Chunks, NormalStream, TextStream
from data_tools.build.records import Encoded, write_encoded
from data_tools.build.splits import bound_of, lowest, split_hash
from data_tools.clean import DIGEST_BYTES, digest, normalise
from data_tools.dealing import Deal, read_deal
from data_tools.disk import on_disk
from data_tools.sources import Part, Piece, read_pieces
from data_tools.spill import Spill, SpillWriter
from data_tools.tokenizer import ShardTokenizer, Shares, load_tokenizer
from electra_dist.data.shards.manifest import SPLITS, TRAIN, VALIDATION

#: What the tokenizer gets at once, at most: it takes some 100 bytes of memory for a character.
BATCH_CHUNKS = 256
BATCH_CHARACTERS = 2**19
#: Ids of a document that are held in memory; those before are in a file.
_HELD_TOKENS = 2**22
#: Split hashes that are kept before only the lowest are.
_HASHES = 4096

_Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class EncodeTask:
    """Everything a worker needs to encode one part of the input.

    number      of the task; it names the spills
    folder      where the spills and the record go
    known       runs that name the documents which are left out because they are there already
    deal_bytes  above 0 one process reads the part, and deals so many bytes of text at a time
    deal        the documents of the part that are encoded; all of them by default

    The other fields are those of `BuildOptions`.
    """

    part: Part
    number: int
    tokenizer_dir: Path
    folder: Path
    validation: float
    seed: int
    min_characters: int
    deduplicate: bool
    piece_tokens: int
    block_tokens: int
    known: tuple[Spill, ...] = ()
    deal_bytes: int = 0
    deal: Deal | None = None

    @property
    def deal_number(self) -> int | None:
        """The number of its deal, if it is of one."""
        if self.deal is None:
            return None
        return self.deal.number

    def deal_path(self, deal: int) -> Path:
        """The file of a deal; what is left of it after a killed build is swept by its name."""
        return self.folder / f".{self.number:07d}-{deal:06d}.deal.tmp"

    @property
    def name(self) -> str:
        """What the names of its files have in common."""
        if self.deal is None:
            return f"{self.number:07d}"
        return f"{self.number:07d}-{self.deal.number:06d}"


def encode(task: EncodeTask) -> Encoded:
    """Encode the documents of one task, spill them by split, and write the record.

    The file of a deal is removed then.
    """
    with on_disk(task.folder):
        task.folder.mkdir(parents=True, exist_ok=True)
        encoded = _Encoder(task).run()
        write_encoded(task.folder, task.number, encoded, task.deal_number)
        if task.deal is not None:
            task.deal.path.unlink()
    return encoded


def token_bytes(vocab_size: int) -> Literal[2, 4]:
    """Bytes of one id on disk."""
    if vocab_size <= 2**16:
        return 2
    return 4


@functools.cache
def _worker_tokenizer(path: Path) -> ShardTokenizer:
    return load_tokenizer(path)


@dataclass
class _Document:
    """One document on its way.

    place   of the document in the part
    name    its digest, known when all of it was read
    """

    place: int
    name: bytes = b""
    ids: list[_Ids] = field(default_factory=list)
    held: int = 0
    file: BinaryIO | None = None
    tokens: int = 0

    def take(self, ids: _Ids, folder: Path) -> None:
        """Add the ids of the next chunk."""
        self.ids.append(ids)
        self.held += len(ids)
        self.tokens += len(ids)
        if self.held > _HELD_TOKENS:
            self._spool(folder)

    def cut(self, piece_tokens: int) -> Iterator[_Ids]:
        """The ids in pieces of nearly equal size, at most `piece_tokens` each (0: in one)."""
        count = 1
        if piece_tokens:
            count = -(-self.tokens // piece_tokens)
        if count == 1 and len(self.ids) == 1 and self.file is None:
            yield self.ids[0]
            return
        rest = np.concatenate([np.zeros(0, np.uint32), *self.ids])
        if self.file is not None:
            self.file.seek(0)
        for number in range(count):
            size = (number + 1) * self.tokens // count - number * self.tokens // count
            found = self._read(size)
            missing = size - len(found)
            yield np.concatenate([found, rest[:missing]])
            rest = rest[missing:]

    def close(self) -> None:
        """Let the file go, if there is one."""
        if self.file is not None:
            self.file.close()

    def _spool(self, folder: Path) -> None:
        if self.file is None:
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed with the document)
        for ids in self.ids:
            self.file.write(ids.tobytes())
        self.ids = []
        self.held = 0

    def _read(self, count: int) -> _Ids:
        if self.file is None:
            return np.zeros(0, np.uint32)
        return np.frombuffer(self.file.read(4 * count), dtype=np.uint32)


class _Encoder:
    """Runs one task."""

    def __init__(self, task: EncodeTask) -> None:
        self._task = task
        self._tokenizer = _worker_tokenizer(task.tokenizer_dir)
        dtype: np.dtype[Any] = np.dtype(f"<u{token_bytes(self._tokenizer.vocab_size)}")
        self._writers = {
            name: SpillWriter(task.folder, f"{name}-{task.name}", dtype) for name in SPLITS
        }
        self._bound = bound_of(task.validation)
        self._known = KnownDocuments(task.known)
        self._seed = task.seed.to_bytes(16, "little", signed=True)
        # tokens of a document that is written as it is: not cut, not looked up
        self._short = task.piece_tokens or sys.maxsize
        if task.known:
            self._short = 0
        self._batch: list[tuple[_Document, str, bool]] = []
        self._characters = 0
        self._hashes: set[int] = set()
        self._shares = Shares()
        self._counts = dict.fromkeys(
            ("documents", "too_short", "without_tokens", "cut", "already_there"), 0
        )

    def run(self) -> Encoded:
        for document, pieces in self._documents():
            self._read(document, pieces)
        self._encode_batch()
        spills = {name: writer.close() for name, writer in self._writers.items()}
        return Encoded(
            spills=spills, lowest=lowest(self._hashes), shares=self._shares, **self._counts
        )

    def _documents(self) -> Iterator[tuple[_Document, list[Piece] | Iterator[Piece]]]:
        """Each document of the task, with its pieces: they are read one at a time."""
        stream = read_pieces(self._task.part)
        before = 0
        if self._task.deal is not None:
            stream = read_deal(self._task.deal)
            before = self._task.deal.first
        for first in stream:
            document = _Document(before + self._counts["documents"])
            self._counts["documents"] += 1
            if first.last:
                yield document, [first]
            else:
                yield document, _to_the_last(first, stream)

    def _read(self, document: _Document, pieces: list[Piece] | Iterator[Piece]) -> None:
        if isinstance(pieces, list):
            text = normalise(pieces[0].text)
            if len(text) <= CHUNK_CHARACTERS:
                self._read_short(document, text)
                return
        self._read_long(document, pieces)

    def _read_short(self, document: _Document, text: str) -> None:
        if len(text.strip()) < max(1, self._task.min_characters):
            self._counts["too_short"] += 1
            return
        document.name = digest(text)
        self._add_chunk(document, text, last=True)

    def _read_long(self, document: _Document, pieces: list[Piece] | Iterator[Piece]) -> None:
        stream = TextStream()
        normal = NormalStream()
        chunks = Chunks()
        name = hashlib.blake2b(digest_size=DIGEST_BYTES)  # `digest` of all of it
        for piece in pieces:
            name.update(normal.add(piece.text).encode("utf-8"))
            for chunk in chunks.add(stream.add(piece.text)):
                self._add_chunk(document, chunk, last=False)
        last = chunks.rest() + stream.rest()
        if stream.characters < max(1, self._task.min_characters):
            self._counts["too_short"] += 1
            return
        document.name = name.digest()
        self._add_chunk(document, last, last=True)

    def _add_chunk(self, document: _Document, text: str, last: bool) -> None:
        self._batch.append((document, text, last))
        self._characters += len(text)
        if len(self._batch) >= BATCH_CHUNKS or self._characters >= BATCH_CHARACTERS:
            self._encode_batch()

    def _encode_batch(self) -> None:
        batch = self._batch
        self._batch = []
        self._characters = 0
        ids_of = self._tokenizer.encode_batch([text for _, text, _ in batch])
        self._shares += self._tokenizer.shares_of(ids_of)
        for (document, _, last), ids in zip(batch, ids_of, strict=True):
            if last and not document.tokens and 0 < len(ids) <= self._short:
                self._spill_whole(document, ids)
                continue
            document.take(ids, self._task.folder)
            if last:
                self._finish(document)

    def _finish(self, document: _Document) -> None:
        if not document.tokens:
            self._counts["without_tokens"] += 1
        elif self._is_known(document):
            self._counts["already_there"] += 1
        else:
            self._spill(document)
        document.close()

    def _is_known(self, document: _Document) -> bool:
        if not self._task.known:
            return False
        return all(
            self._known.have(content)
            for ids in document.cut(self._task.piece_tokens)
            for content in contents_of(ids, self._task.block_tokens)
        )

    def _spill_whole(self, document: _Document, ids: _Ids) -> None:
        """A document of one piece, as nearly all are."""
        hashed = self._split_hash(document)
        key = self._order_key(document.name + self._place(document))
        self._writer(hashed).add(key, ids, hashed)

    def _spill(self, document: _Document) -> None:
        hashed = self._split_hash(document)
        writer = self._writer(hashed)
        name = document.name + self._place(document)
        number = 0
        for number, ids in enumerate(document.cut(self._task.piece_tokens)):
            if number:
                key = self._order_key(name + b"#%d" % number)
            else:
                key = self._order_key(name)
            writer.add(key, ids, hashed, number)
        self._counts["cut"] += int(number > 0)

    def _split_hash(self, document: _Document) -> int:
        hashed = split_hash(document.name)
        self._hashes.add(hashed)
        if len(self._hashes) > _HASHES:
            self._hashes = set(lowest(self._hashes))
        return hashed

    def _writer(self, hashed: int) -> SpillWriter:
        if hashed < self._bound:
            return self._writers[VALIDATION]
        return self._writers[TRAIN]

    def _place(self, document: _Document) -> bytes:
        """What makes documents that are alike differ; nothing where they are to meet."""
        if self._task.deduplicate:
            return b""
        return b"%d/%d" % (self._task.number, document.place)

    def _order_key(self, name: bytes) -> bytes:
        """The place of a document, or of a piece of one, in the shuffle: 16 bytes."""
        return hashlib.blake2b(name, digest_size=16, key=self._seed, person=b"order").digest()


def _to_the_last(first: Piece, stream: Iterator[Piece]) -> Iterator[Piece]:
    """`first` and the pieces after it, to the end of its document."""
    yield first
    for piece in stream:
        yield piece
        if piece.last:
            return
