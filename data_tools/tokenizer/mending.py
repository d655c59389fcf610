"""What is changed in a tokenizer so that `transformers` gives the ids of the shards.

Comes in: a `Draft`, the content of a `tokenizer.json` with its special tokens found. Goes out: the
tokenizer with all changes made, and each change as a sentence in `Draft.changes`, for its card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from data_tools.tokenizer.rules import template
from electra_dist.batch import SpecialTokens
from electra_dist.errors import DataError

_PROBES = ("a", "Two words.")


@dataclass
class Draft:
    """A tokenizer on its way to be carried on; `changes` are sentences for its card."""

    file: Path
    content: dict[str, Any]
    names: dict[str, str]
    ids: dict[str, int]
    changes: list[str]


def mend(
    draft: Draft, tokenizer: tokenizers.Tokenizer, specials: SpecialTokens, around_masks: bool
) -> tokenizers.Tokenizer:
    """The tokenizer with all changes made. A folder that is ours already keeps what surrounds its
    masks: shards of an earlier version know their tokenizer by its SHA-256.
    """
    before = len(draft.changes)
    _mend_json(draft)
    if around_masks:
        _mend_metaspace(draft)
        _mend_mask(draft, tokenizer)
    if len(draft.changes) > before:
        tokenizer = parse_tokenizer(json.dumps(draft.content).encode("utf-8"), draft.file)
    _mend_template(draft, tokenizer, specials)
    return tokenizer


def _mend_json(draft: Draft) -> None:
    """Length, padding, and what marks the special tokens."""
    for key, change in (
        ("truncation", "texts are no longer cut to a length"),
        ("padding", "texts are no longer padded"),
    ):
        if draft.content.get(key) is not None:
            draft.content[key] = None
            draft.changes.append(change)
    added = {str(token.get("content")): token for token in added_tokens(draft.content)}
    for name, piece in draft.names.items():
        if piece not in added:
            token = {"id": draft.ids[name], "content": piece, "single_word": False}
            token |= {"lstrip": False, "rstrip": False, "normalized": False, "special": True}
            added[piece] = token
            draft.changes.append(f"{piece} is marked as a special token")
        elif not added[piece].get("special"):
            added[piece]["special"] = True
            draft.changes.append(f"{piece} is marked as a special token")
    draft.content["added_tokens"] = sorted(added.values(), key=lambda token: int(token["id"]))


def _mend_metaspace(draft: Draft) -> None:
    """Only the start of a text gets a space, not what follows a mask. Other added tokens cut a text
    in pre-training too: with such, what follows them stays as it is.
    """
    if not all(token.get("special") for token in added_tokens(draft.content)):
        return
    pre_tokenizer = draft.content.get("pre_tokenizer")
    parts = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict):
        parts += pre_tokenizer.get("pretokenizers", [])
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "Metaspace":
            continue
        if part.get("prepend_scheme", "always") == "always":
            part["prepend_scheme"] = "first"
            draft.changes.append("text after a special token gets no space before it")


def _mend_mask(draft: Draft, tokenizer: tokenizers.Tokenizer) -> None:
    """A space before a mask belongs to the masked word, and is no token of its own."""
    text = "two words"
    alone = tokenizer.encode(text, add_special_tokens=False).ids
    with_space = tokenizer.encode(f"{text} ", add_special_tokens=False).ids
    if with_space == alone:
        return
    for token in added_tokens(draft.content):
        if token.get("content") == draft.names["mask"] and not token.get("lstrip"):
            token["lstrip"] = True
            draft.changes.append("white space before a mask belongs to the masked word")


def parse_tokenizer(content: bytes, file: Path) -> tokenizers.Tokenizer:
    """`content` for the `tokenizers` library; raises `DataError` with the name of `file`."""
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{file}: not a tokenizer of the `tokenizers` library: {error}") from error


def _mend_template(draft: Draft, tokenizer: tokenizers.Tokenizer, specials: SpecialTokens) -> None:
    """[CLS] text [SEP], as in the rows of pre-training."""
    if all(_wraps(tokenizer, text, specials) for text in _PROBES):
        return
    wrapping = template(draft.names, specials)
    if type(tokenizer.decoder).__name__ == "ByteLevel":
        wrapping = processors.Sequence([processors.ByteLevel(trim_offsets=True), wrapping])
    tokenizer.post_processor = wrapping
    draft.changes.append(
        f"a text is wrapped in {draft.names['cls']} and {draft.names['sep']}, two texts are told"
        " apart by their token types"
    )


def _wraps(tokenizer: tokenizers.Tokenizer, text: str, specials: SpecialTokens) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pair = tokenizer.encode(text, text)
    first = [specials.cls, *ids, specials.sep]
    types = [0] * len(first) + [1] * (len(ids) + 1)
    return (
        tokenizer.encode(text).ids == first
        and pair.ids == [*first, *ids, specials.sep]
        and pair.type_ids == types
    )


def added_tokens(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tokens of a `tokenizer.json` that stand outside its model's vocabulary."""
    added = content.get("added_tokens")
    if not isinstance(added, list):
        return []
    return [token for token in added if isinstance(token, dict)]
