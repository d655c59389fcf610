"""What SentencePiece learns, as a model of the `tokenizers` library."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import tokenizers
from tokenizers import models

from data_tools.tokenizer.rules import (
    PIECES,
    SPACE,
    Kind,
    TextRules,
    add_special_tokens,
    decoder,
    normalizer,
    pre_tokenizer,
)
from data_tools.tokenizer.sample import Sample, cut
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.errors import DataError

_BYTES = 256
#: Share of the characters of a text that get a piece of their own; the rest is spelt in bytes.
_COVERAGE = 0.9999
#: White space that is a piece of its own where it is kept.
_LAYOUT = ("\n", "\t")
#: Pieces that a vocabulary should have on top of its alphabet, to be worth its name.
_USEFUL = 4000


def learn(sample: Sample, vocab_size: int, kind: Kind, rules: TextRules, seed: int) -> bytes:
    """The SentencePiece model of `kind` learnt from `sample`, of exactly `vocab_size` pieces.

    Raises `DataError` where the text does not give such a vocabulary, with what would.
    """
    import sentencepiece

    own = _own_pieces(rules)
    if vocab_size < own + 100:
        raise DataError(
            f"`vocab_size` {vocab_size}: too small; bytes and special tokens alone need {own + 100}"
        )
    sentencepiece.set_random_generator_seed(seed)
    sentencepiece.set_min_log_level(2)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(sample, rules),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            **_settings(rules),
        )
    except (RuntimeError, OSError) as error:
        raise _cannot(sample, vocab_size, rules, str(error)) from error
    return model.getvalue()


def _own_pieces(rules: TextRules) -> int:
    """Pieces that every vocabulary has, whatever the text."""
    count = len(PIECES) + _BYTES
    if rules.keep_whitespace:
        count += len(_LAYOUT)
    return count


def _settings(rules: TextRules) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "byte_fallback": True,
        "character_coverage": _COVERAGE,
        "normalization_rule_name": "identity",  # `_lines` has normalised already
        "split_digits": True,
        "num_threads": min(16, os.cpu_count() or 1),
        "pad_id": SPECIAL_TOKENS.pad,
        "unk_id": SPECIAL_TOKENS.unk,
        "bos_id": -1,
        "eos_id": -1,
        "pad_piece": PIECES["pad"],
        "unk_piece": PIECES["unk"],
        "control_symbols": [PIECES[name] for name in ("cls", "sep", "mask")],
        "minloglevel": 2,
    }
    if rules.keep_whitespace:
        settings |= {
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True,
            "user_defined_symbols": list(_LAYOUT),
        }
    return settings


def _lines(sample: Sample, rules: TextRules) -> Iterator[str]:
    """Normalised text in pieces that SentencePiece does not skip."""
    normal = normalizer(rules)
    for document in sample.documents():
        if rules.keep_whitespace:
            yield from cut(normal.normalize_str(document).replace(SPACE, " "))
        else:
            for line in document.split("\n"):
                yield from cut(normal.normalize_str(line))


def _cannot(sample: Sample, vocab_size: int, rules: TextRules, reason: str) -> DataError:
    """Why the text does not give the vocabulary, and which size it would give."""
    lines = reason.strip().splitlines() or ["unknown"]
    highest = re.search(r"<= ?(\d+)", reason)
    counts: Counter[str] = Counter()
    for line in _lines(sample, rules):
        counts.update(line)
    own = _own_pieces(rules)
    alphabet = _alphabet(counts)
    if not alphabet:
        return DataError("the input holds no text; a tokenizer needs some to learn from")
    lowest = own + alphabet
    if vocab_size < lowest:
        return DataError(
            f"`vocab_size` {vocab_size}: too small for this text; its alphabet has {alphabet:,}"
            f" characters, and bytes and special tokens take {own}: give at least {lowest + 100},"
            f" better {lowest + _USEFUL}"
        )
    if highest:
        return DataError(
            f"`vocab_size` {vocab_size}: a vocabulary of {vocab_size} cannot be learnt from"
            f" {sample.characters:,} characters of text; give at most {highest[1]}, or more text"
        )
    return DataError(
        f"a vocabulary of {vocab_size} cannot be learnt from {sample.characters:,} characters of"
        f" text: SentencePiece says: {lines[-1]}; give more text or a smaller `vocab_size`"
    )


def _alphabet(counts: Counter[str]) -> int:
    """How many characters get a piece: the most frequent ones that make up the coverage."""
    wanted = _COVERAGE * counts.total()
    seen = 0
    for number, (_, count) in enumerate(counts.most_common()):
        if seen >= wanted:
            return number
        seen += count
    return len(counts)


# --- conversion -----------------------------------------------------------------------------------


def convert(model: bytes, rules: TextRules) -> tokenizers.Tokenizer:
    """The SentencePiece model `model` for the `tokenizers` library, with the parts that `rules`
    ask for.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    unigram = proto.trainer_spec.model_type == proto.trainer_spec.UNIGRAM
    if unigram:
        tokenizer = tokenizers.Tokenizer(_unigram(proto))
    else:
        tokenizer = tokenizers.Tokenizer(_byte_pairs(proto))
    tokenizer.normalizer = normalizer(rules)
    tokenizer.pre_tokenizer = pre_tokenizer(rules, whole_words=unigram)
    tokenizer.decoder = decoder(rules)
    add_special_tokens(tokenizer)
    return tokenizer


def _unigram(proto: Any) -> models.Unigram:
    return models.Unigram(
        [(piece.piece, piece.score) for piece in proto.pieces],
        unk_id=SPECIAL_TOKENS.unk,
        byte_fallback=True,
    )


def _byte_pairs(proto: Any) -> models.BPE:
    """A merge makes each piece from each pair of pieces that spell it; SentencePiece joins the pair
    whose result has the best score first, so merges are ordered by the score of what they make.
    """
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    normal = {piece.piece: piece.score for piece in proto.pieces if piece.type == piece.NORMAL}
    merges = [
        (-score, at, (piece[:at], piece[at:]))
        for piece, score in normal.items()
        for at in range(1, len(piece))
        if piece[:at] in normal and piece[at:] in normal
    ]
    return models.BPE(
        vocab=vocabulary,
        merges=[pair for *_, pair in sorted(merges)],
        unk_token=PIECES["unk"],
        fuse_unk=True,
        byte_fallback=True,
    )
