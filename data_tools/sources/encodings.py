"""What a text that is not UTF-8 may be written in, and the command that converts it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple

#: A valid character of UTF-8 of two bytes or more.
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
#: Marks at the start of a file; the longer ones come first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _Encoding(NamedTuple):
    """A name for iconv, the name in Python, and the letters that such texts are made of."""

    name: str
    codec: str
    letters: str


#: Encodings of several bytes a letter. First those that say most by decoding at all.
_WIDE = (
    _Encoding("euc-jp", "euc_jp", "\u3040-\u30ff\u4e00-\u9fff\u3000-\u3020"),
    _Encoding("cp932", "cp932", "\u3040-\u30ff\u4e00-\u9fff\u3000-\u3020"),
    _Encoding("cp949", "cp949", "\uac00-\ud7a3"),
    _Encoding("gb18030", "gb18030", "\u4e00-\u9fff\u3000-\u3020\uff00-\uff5e\u2014-\u2026"),
    _Encoding("big5", "big5", "\u4e00-\u9fff\u3000-\u3020\uff00-\uff5e\u2014-\u2026"),
)
#: Encodings of Cyrillic: the same bytes are letters in each, but small ones in one of them only.
_CYRILLIC = (
    _Encoding("cp1251", "cp1251", "\u0430-\u044f\u0451"),
    _Encoding("koi8-r", "koi8_r", "\u0430-\u044f\u0451"),
)


def advice(sample: bytes) -> str:
    """What to do with a text that begins with, or contains, `sample`."""
    name = guess(sample)
    if name == "utf-8":
        return (
            "the rest of it is UTF-8: it is damaged, or two files in one; look at this place, or"
            " drop such bytes with `iconv -c -f utf-8 -t utf-8`"
        )
    if name is None:
        return "find out how the file is written, and convert it with `iconv -f NAME -t utf-8`"
    return f"convert the file: `iconv -f {name} -t utf-8` fits these bytes"


def guess(sample: bytes) -> str | None:
    """The name for iconv of the encoding that fits `sample`; None when none does.

    A guess: letters of one byte fit many encodings, of which cp1252 is the most frequent. It is
    preferred to latin1, which has control characters in place of dashes and quotes.
    """
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    if wide := _by_zeros(sample):
        return wide
    high = len(_HIGH.findall(sample))
    valid = sum(map(len, _UTF8.findall(sample)))
    if high > 0 and valid > 0.8 * high:
        return "utf-8"
    if high > 0.25 * len(sample):
        scores = dict(_scores(sample))
        best = max(scores, key=lambda name: scores[name], default="")  # of equal ones the first
        if best and scores[best] > 0.8:
            return best
    for name in ("cp1252", "cp1250", "cp1251"):
        if _decode(sample, name) is not None:
            return name
    return None


def _by_zeros(sample: bytes) -> str | None:
    """UTF-16 without a mark: every second byte of ordinary text is zero."""
    pairs = len(sample) // 2
    if pairs and sample[1::2].count(0) > 0.7 * pairs:
        return "utf-16le"
    if pairs and sample[0::2].count(0) > 0.7 * pairs:
        return "utf-16be"
    return None


def _scores(sample: bytes) -> Iterator[tuple[str, float]]:
    """How much of what is no ASCII are the letters of each encoding that can decode it."""
    for encoding in (*_WIDE, *_CYRILLIC):
        text = _decode(sample, encoding.codec)
        if text is None:
            continue
        foreign = re.sub(r"[\x00-\x7f]", "", text)
        letters = re.findall(f"[{encoding.letters}]", foreign)
        share = len(letters) / max(1, len(foreign))
        if encoding.name in ("euc-jp", "cp932") and not re.search("[\u3040-\u30ff]", foreign):
            share = 0.0  # Japanese without its own letters is Chinese
        yield encoding.name, share


def _decode(sample: bytes, codec: str) -> str | None:
    """The text, without what the end of the sample cuts off; None where it does not decode."""
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        return decoder.decode(sample)
    except UnicodeDecodeError:
        return None
