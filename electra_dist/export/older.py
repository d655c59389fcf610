"""A `tokenizer.json` as older versions of the library `tokenizers` read it too.

The library has changed how it writes two things, and reads both forms, while its older versions
read the first form alone:

    merges of byte pairs     "a b" before 0.20, ["a", "b"] since
    the space before a text  `add_prefix_space` before 0.19, `prepend_scheme` since

No id changes by it.
"""

from __future__ import annotations

import json
from typing import Any


def for_older_versions(content: bytes) -> bytes:
    """`content` in the older form where that can say the same: a merge of pieces that hold a space
    can be written in the newer form alone.
    """
    tokenizer = json.loads(content)
    for part in ("pre_tokenizer", "decoder"):
        _spell_out_prefix(tokenizer.get(part))
    model = tokenizer["model"]
    merges = model.get("merges")
    if merges and not any(" " in piece for merge in merges for piece in _pieces(merge)):
        model["merges"] = [" ".join(_pieces(merge)) for merge in merges]
    return json.dumps(tokenizer, ensure_ascii=False, indent=2).encode()


def _pieces(merge: Any) -> list[str]:
    """The two pieces of a merge in either form."""
    if isinstance(merge, str):
        return merge.split(" ")
    return list(merge)


def _spell_out_prefix(part: Any) -> None:
    """Say in every Metaspace of `part` whether a text gets a space before it, in both forms."""
    if isinstance(part, list):
        for one in part:
            _spell_out_prefix(one)
    elif isinstance(part, dict):
        if part.get("type") == "Metaspace" and "prepend_scheme" in part:
            part["add_prefix_space"] = part["prepend_scheme"] != "never"
        for inner in ("pretokenizers", "decoders"):
            _spell_out_prefix(part.get(inner))
