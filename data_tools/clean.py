"""What the build itself does to a text, and the name of a document.

`normalise` is what every document goes through before the tokenizer sees it. It changes nothing
that the tokenizer would keep: the normaliser in `tokenizer.json` decides ids (DESIGN D13). `digest`
names a document: it decides the split, the place in the shuffle, and which documents are the same.
It has a normal form of its own, so two documents that differ in control characters alone are one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

_LINE_ENDS = re.compile("\r\n?")
#: JSON escapes can smuggle in half a character, which no encoding of Unicode has.
_SURROGATES = re.compile("[\ud800-\udfff]")
#: Control characters that are no white space, and the byte-order mark.
_JUNK = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_SEPARATORS = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
#: The same for text that is ASCII.
_ASCII_JUNK = bytes(byte for byte in range(128) if _JUNK.match(chr(byte)))
_ASCII_LINE_ENDS = bytes.maketrans(b"\x0b\x0c", b"\n\n")
#: Bytes of a document's digest.
DIGEST_BYTES = 16


def normalise(text: str) -> str:
    """`text` with plain line ends; a lone surrogate becomes U+FFFD."""
    if "\r" in text:
        text = _LINE_ENDS.sub("\n", text)
    if text.isascii():
        return text
    return _SURROGATES.sub("\ufffd", text)


def normal_form(text: str) -> str:
    """`text` as `digest` sees it: in NFC, without control characters."""
    plain = normalise(text)
    if _ODD.search(plain):
        plain = _JUNK.sub("", _SEPARATORS.sub("\n", plain))
    return unicodedata.normalize("NFC", plain)


def digest(text: str) -> bytes:
    """16 bytes that name the document: BLAKE2b of its normal form without surrounding white
    space.
    """
    if text.isascii():
        content = _ascii_form(text)
    else:
        content = normal_form(text).strip().encode("utf-8")
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _ascii_form(text: str) -> bytes:
    """The same bytes for ASCII, which most text is: three times faster."""
    content = text.encode("ascii")
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content.translate(_ASCII_LINE_ENDS, _ASCII_JUNK).strip()
