"""BERT's and ELECTRA's `vocab.txt`: one piece per line, the id is the number of the line.

Comes in: the content of the file, and the settings next to it. Goes out: the same WordPiece
tokenizer that `transformers` makes of it, as `tokenizers` keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from electra_dist.errors import DataError

#: Words of more characters are [UNK], as in BERT.
_LONGEST_WORD = 100
_SPECIAL = ("[", "<")


def read_vocabulary(content: bytes, file: Path) -> dict[str, int]:
    """Id of each piece; of a piece that stands there twice, the later id."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: byte {error.start} is not UTF-8; expected a vocabulary with one piece per"
            " line, in UTF-8"
        ) from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return {piece: number for number, piece in enumerate(lines)}


def word_piece(
    vocabulary: Mapping[str, int], config: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, str]:
    """The tokenizer, and in words how it was decided whether it folds case."""
    lowercase = config.get("do_lower_case")
    if isinstance(lowercase, bool):
        reason = f"`do_lower_case` of tokenizer_config.json is {str(lowercase).lower()}"
    elif _has_capitals(vocabulary):
        lowercase = False
        reason = "case is kept, because the vocabulary has capital letters"
    else:
        lowercase = True
        reason = "case is folded, because the vocabulary has no capital letter"
    unknown = _content_of(config.get("unk_token")) or "[UNK]"
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(
            vocab=dict(vocabulary), unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer, reason


def _has_capitals(vocabulary: Mapping[str, int]) -> bool:
    return any(piece != piece.lower() for piece in vocabulary if not piece.startswith(_SPECIAL))


def _content_of(token: Any) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    if isinstance(token, str):
        return token
    return None
