"""`ShardTokenizer`: what the shards are encoded with, opened from anything that `source` reads."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from data_tools.tokenizer.shares import Shares
from data_tools.tokenizer.source import open_source
from electra_dist.batch import SpecialTokens
from electra_dist.files.tokenizers import TOKENIZER_FILE

Ids = npt.NDArray[np.integer[Any]]


class ShardTokenizer:
    """A loaded tokenizer: text to ids without special tokens, and back.

    path         where it was read
    files        name and content of the files that shards, runs and exports carry
    fingerprint  SHA-256 of its `tokenizer.json`
    specials     ids of its special tokens
    vocab_size   the largest id plus 1
    """

    def __init__(
        self,
        path: Path,
        tokenizer: tokenizers.Tokenizer,
        files: Mapping[str, bytes],
        specials: SpecialTokens,
    ) -> None:
        self.path = path
        self.files = dict(files)
        self.fingerprint = hashlib.sha256(files[TOKENIZER_FILE]).hexdigest()
        self.specials = specials
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values()) + 1
        self._tokenizer = tokenizer
        self._is_byte = _byte_ids(tokenizer, vocabulary, self.vocab_size)

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
        """Ids of each text, without [CLS] and [SEP];
        runs on the threads that `tokenizers` is given.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        # an array takes a list twice as fast as numpy does
        return [np.frombuffer(array("I", encoding.ids), np.uint32) for encoding in encodings]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Readable text of `ids`; special tokens stay visible."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def shares_of(self, documents: Sequence[Ids]) -> Shares:
        """How many ids of `documents` are bytes, and how many unknown."""
        if not len(documents):
            return Shares()
        ids = np.concatenate(documents)
        unknown = 0
        if self.specials.unk is not None:
            unknown = int(np.count_nonzero(ids == self.specials.unk))
        return Shares(len(ids), int(np.count_nonzero(self._is_byte[ids])), unknown)

    def shares_of_counts(self, counts_v: npt.NDArray[np.int64]) -> Shares:
        """The same of text in which each id occurs as often as `counts_v` says."""
        unknown = 0
        if self.specials.unk is not None:
            unknown = int(counts_v[self.specials.unk])
        return Shares(int(counts_v.sum()), int(counts_v[self._is_byte].sum()), unknown)


def load_tokenizer(path: Path) -> ShardTokenizer:
    """The tokenizer at `path`: a folder of `data tokenizer` or of `transformers`, a
    `tokenizer.json`, or a `vocab.txt` of BERT or ELECTRA.

    Raises `DataError` when it is missing, damaged, or lacks a special token.
    """
    source = open_source(path)
    tokenizer = source.tokenizer
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ShardTokenizer(path, tokenizer, source.files, source.specials)


def _byte_ids(
    tokenizer: tokenizers.Tokenizer, vocabulary: Mapping[str, int], vocab_size: int
) -> npt.NDArray[np.bool_]:
    """(V,) whether an id is one byte: `<0x41>` with byte fallback; in a byte-level vocabulary a
    byte above ASCII that stands alone.
    """
    found = np.zeros(vocab_size, np.bool_)
    if _is_byte_level(tokenizer):
        pieces = [piece for piece in vocabulary if len(piece) == 1 and _is_high_byte(piece)]
    else:
        pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    for piece in pieces:
        if piece in vocabulary:
            found[vocabulary[piece]] = True
    return found


def _is_byte_level(tokenizer: tokenizers.Tokenizer) -> bool:
    return type(tokenizer.decoder).__name__ == "ByteLevel"


def _is_high_byte(piece: str) -> bool:
    """Whether a character of the byte-level alphabet stands for a byte from 0x80 on.

    The alphabet keeps 0xA1 to 0xFF (but 0xAD) as they are and moves the other bytes to U+0100 on,
    in order: 0x00 to 0x20 are U+0100 to U+0120, 0x7F is U+0121.
    """
    number = ord(piece)
    return 0xA1 <= number <= 0xFF or 0x122 <= number <= 0x143
