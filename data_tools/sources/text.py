"""Plain text: where it may be cut, which lines are a document, and pieces of bounded size.

What is blank is what Unicode calls white space. A line ends with `\\n`, `\\r\\n` or `\\r`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import BinaryIO

from data_tools.sources.decoding import BLOCK_BYTES, MAX_RECORD_BYTES, decoded
from data_tools.sources.opening import open_unpacked
from data_tools.sources.types import Documents, ReadOptions, Slice
from data_tools.sources.urls import shown
from electra_dist.errors import DataError

#: Longer documents are given in pieces of at most this many characters.
PIECE_CHARACTERS = 1_000_000
#: How far back from there white space is looked for.
_LOOK_BACK = 2**16

_SPACE = (
    rb"(?:[\t\x0b\x0c\x1c-\x1f ]|\xc2[\x85\xa0]|\xe1\x9a\x80"
    rb"|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)"
)
#: One end of a line. It begins with a set of bytes, which the search goes to at once.
_END = rb"[\r\n](?<!\r\n)(?:(?<=\r)\n)?+"
#: After which bytes a file may be cut. A blank line longer than this is no place for a cut.
_CUTS: dict[str, re.Pattern[bytes]] = {
    "blank-line": re.compile(_END + rb"(?:" + _SPACE + rb"){0,65536}+" + rb"(?>\r\n|\r|\n)"),
    "line": re.compile(_END),
}
_LONGEST_CUT = 3 * 65536 + 4
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_BLANK_LINES_BEFORE = re.compile(r"\A(?:[^\S\n]*\n)+")
#: A mark that belongs to the letter before it: joiners and variation selectors.
_JOINING = frozenset("\u200c\u200d\ufe0e\ufe0f")


def text_fragments(part: Slice, options: ReadOptions) -> Iterator[tuple[str, bool]]:
    """(piece, whether it ends its document) of all documents of a slice of a .txt."""
    with open_unpacked(part.name, part.format.packing) as file:
        start: int | None = 0
        end = None
        if part.start:
            start = find_cut(file, options.documents, part.start, part.end)
        if start is None:
            return
        if part.end is not None:
            end = find_cut(file, options.documents, part.end)
        if start or end is not None:
            file.seek(start)
        yield from split_documents(decoded(file, part, start, end), options.documents, part.name)


# --- where a file is cut --------------------------------------------------------------------------


def find_cut(
    file: BinaryIO, documents: Documents, place: int, limit: int | None = None
) -> int | None:
    """Where the first document begins that follows on a boundary which begins at or after `place`.

    A boundary is the end of a line, with a blank line after it where blank lines count. Without
    one it is the end of the file; with a `limit`, None when no boundary begins before it.
    """
    pattern = _CUTS[documents]
    file.seek(place - 1)  # one byte more: the second half of "\r\n" is no end of its own
    base = place - 1
    kept = b""
    while True:
        block = file.read(BLOCK_BYTES)
        content = kept + block
        found = pattern.search(content, max(0, place - base))
        if found is not None:
            if limit is not None and base + found.start() >= limit:
                return None
            end = base + found.end()
            # "\r" may be the first half of "\r\n"
            if found.end() == len(content) and content.endswith(b"\r") and file.read(1) == b"\n":
                end += 1
            return end
        if not block:
            return base + len(content)
        if limit is not None and base + len(content) - _LONGEST_CUT > limit:
            return None
        keep = _may_go_on(content)
        base += len(content) - keep
        kept = content[len(content) - keep :]


def _may_go_on(content: bytes) -> int:
    """How many bytes at the end may begin a boundary; at least one."""
    last = max(content.rfind(b"\n"), content.rfind(b"\r"))
    if last > 0 and content[last - 1 : last + 1] == b"\r\n":
        last -= 1
    tail = len(content) - last + 1
    if last < 0 or tail > _LONGEST_CUT:
        return 1
    return min(len(content), tail)


# --- documents and pieces -------------------------------------------------------------------------


def split_documents(
    blocks: Iterator[str], documents: Documents, name: str
) -> Iterator[tuple[str, bool]]:
    """(piece, whether it ends its document) out of blocks of text with plain line ends.

    Documents without any letter are left out. The pieces depend on the document alone, not on the
    blocks.
    """
    rest = ""
    started = False
    for block in blocks:
        *complete, rest = _separate(rest + block, documents)
        for document in complete:
            if started or not _is_plain(document):
                yield from _finish(document, documents, started)
                started = False
            else:
                yield document, True
        if not started:
            rest = _without_blank_lines_before(rest, documents)
        body = _without_blank_line_after(rest, documents)
        taken = 0
        while len(body) - taken > PIECE_CHARACTERS and not _is_blank(body, taken, started):
            place = cut_place(body, taken)
            yield body[taken:place], False
            started = True
            taken = place
        rest = rest[taken:]
        if len(rest) > MAX_RECORD_BYTES:
            raise DataError(
                f"{shown(name)}: more than {MAX_RECORD_BYTES:,} characters of white space in one"
                " place; remove them"
            )
    yield from _finish(rest, documents, started)


def _is_plain(document: str) -> bool:
    """Whether it is a document as it stands: the usual case, and quickly told."""
    return (
        0 < len(document) <= PIECE_CHARACTERS
        and not document[0].isspace()
        and not document[-1].isspace()
    )


def _is_blank(body: str, taken: int, started: bool) -> bool:
    return not started and not taken and body.isspace()


def _separate(text: str, documents: Documents) -> list[str]:
    if documents == "line":
        return text.split("\n")
    if documents == "blank-line":
        return _BLANK_LINE.split(text)
    return [text]


def _without_blank_lines_before(text: str, documents: Documents) -> str:
    if documents == "blank-line":
        return _BLANK_LINES_BEFORE.sub("", text)
    return text


def _without_blank_line_after(text: str, documents: Documents) -> str:
    """Without a last line that is blank, as far as it is known."""
    if documents == "blank-line":
        end = text.rfind("\n")
        if end >= 0 and text[end:].isspace():
            return text[:end]
    return text


def _finish(document: str, documents: Documents, started: bool) -> Iterator[tuple[str, bool]]:
    """The last pieces of a document."""
    if not started:
        document = _without_blank_lines_before(document, documents)
    document = _without_blank_line_after(document, documents)
    if started or (document and not document.isspace()):
        yield from cut_document(document)


def cut_document(document: str) -> Iterator[tuple[str, bool]]:
    """(piece, whether it is the last) of a document that is there as a whole."""
    start = 0
    while len(document) - start > PIECE_CHARACTERS:
        place = cut_place(document, start)
        yield document[start:place], False
        start = place
    if start:
        document = document[start:]
    yield document, True


def cut_place(text: str, start: int) -> int:
    """Where the piece ends that begins at `start`: after white space if possible.

    Else after something that is no letter and no digit, and else between two letters. The place
    depends on the next `PIECE_CHARACTERS` + 1 characters only.
    """
    limit = start + PIECE_CHARACTERS
    lowest = max(start + 1, limit - _LOOK_BACK)
    places = range(limit, lowest, -1)
    for place in places:
        if text[place - 1].isspace():
            return place
    for place in places:
        if not text[place - 1].isalnum() and not _belongs_to_the_left(text[place]):
            return place
    for place in places:
        if not _belongs_to_the_left(text[place]):
            return place
    return limit


def _belongs_to_the_left(character: str) -> bool:
    return unicodedata.combining(character) > 0 or character in _JOINING
