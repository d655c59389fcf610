"""Filters between raw text and tokens: normalisation, a minimum length, exact duplicates.

`normalise` is what every document goes through before the tokenizer sees it; `digest` names a
document by its normalised text: it decides the split, the place in the shuffle, and which documents
are the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

#: Control characters that are no white space, surrogates that JSON escapes can smuggle in,
#: and the byte-order mark.
_JUNK = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_NEWLINES = re.compile("\r\n?|\u2028|\u2029")
#: Bytes of a document's digest.
DIGEST_BYTES = 16


def normalise(text: str) -> str:
    """`text` in NFC, with plain newlines, without control characters,
    lone surrogates and surrounding white space.
    """
    text = _NEWLINES.sub("\n", text)
    return unicodedata.normalize("NFC", _JUNK.sub("", text)).strip()


def digest(text: str) -> bytes:
    """16 bytes that name the document (BLAKE2b of its normalised text)."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=DIGEST_BYTES).digest()
