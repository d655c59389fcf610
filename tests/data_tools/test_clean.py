"""The name of a document: its normal form, by any way."""

from __future__ import annotations

import hashlib
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from data_tools.clean import DIGEST_BYTES, digest, normalise

ASCII = st.text(st.characters(max_codepoint=127), max_size=30)


def slow_digest(text: str) -> bytes:
    """Character by character: line ends plain, no control characters, NFC, no space around."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = []
    for character in plain:
        if character in "\x0b\x0c\x85\u2028\u2029":
            kept.append("\n")
        elif character in "\n\t":
            kept.append(character)
        elif "\ud800" <= character <= "\udfff":
            kept.append("\ufffd")
        elif unicodedata.category(character) != "Cc" and character != "\ufeff":
            kept.append(character)
    normal = unicodedata.normalize("NFC", "".join(kept)).strip()
    return hashlib.blake2b(normal.encode(), digest_size=DIGEST_BYTES).digest()


@given(st.one_of(ASCII, st.text(max_size=30)))
@example("\x0b\ra\r\nb\x7f\x1c ")
@example("e\u0301\ud800\x85")
def test_the_digest_is_that_of_the_normal_form(text: str) -> None:
    assert digest(text) == slow_digest(text)


@given(st.text(max_size=30))
def test_normalising_changes_line_ends_and_half_characters_alone(text: str) -> None:
    found = normalise(text)
    assert "\r" not in found
    assert len(found) == len(text.replace("\r\n", "\n"))
    found.encode("utf-8")
