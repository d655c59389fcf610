"""Train a tokenizer of our own and write its folder.

SentencePiece learns byte-pair merges or unigrams, or the most frequent words are counted; the same
vocabulary is written for the `tokenizers` library, with the files that let
`transformers.AutoTokenizer.from_pretrained` load it. Text is normalised before SentencePiece sees
it, by the very normaliser that the folder carries. Shards are encoded with the `tokenizer.json`,
never with SentencePiece itself: the two may break ties differently in runs of one character
(DESIGN D3).

Special tokens stand at fixed ids (`electra_dist.batch.SPECIAL_TOKENS`) and come from the template
only: a literal "[MASK]" in a text is text. Characters outside the vocabulary are spelt in bytes, so
nothing becomes [UNK]; only words have no bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers

from data_tools.sources import Inputs
from data_tools.tokenizer.loading import load_tokenizer
from data_tools.tokenizer.rules import (
    KINDS,
    PIECES,
    Kind,
    Normalize,
    TextRules,
    transformers_config,
)
from data_tools.tokenizer.sample import Sample
from data_tools.tokenizer.sentence_piece import convert, learn
from data_tools.tokenizer.source import WRITTEN_OUT_IS_TEXT, as_json
from data_tools.tokenizer.words import count_words, word_level
from electra_dist.console import Progress, silent
from electra_dist.errors import DataError
from electra_dist.files.tokenizers import (
    CARD_FILE,
    CONFIG_FILE,
    MODEL_FILE,
    SPECIAL_FILE,
    TOKENIZER_FILE,
    TOKENIZER_FILES,
    write_tokenizer,
)

#: Text that training reads at most; more changes the vocabulary little and takes hours.
SAMPLE_BYTES = 200_000_000


@dataclass(frozen=True)
class TokenizerStats:
    """What `train_tokenizer` made.

    vocab_size          ids, special tokens included; fewer than asked for where a corpus of words
                        has fewer
    sampled_characters  text that it learnt from
    unknown_share       fraction of the symbols of that text that are [UNK]; 0 but for words
    """

    path: Path
    kind: Kind
    vocab_size: int
    fingerprint: str
    sampled_characters: int
    unknown_share: float

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class _Learnt:
    """A tokenizer, what its card says, the model of SentencePiece, and the unknown share."""

    tokenizer: tokenizers.Tokenizer
    card: dict[str, Any]
    model: bytes | None = None
    unknown_share: float = 0.0


def train_tokenizer(
    inputs: Sequence[str | Path] | Inputs,
    vocab_size: int,
    out: Path,
    *,
    kind: Kind = "bpe",
    normalize: Normalize | None = None,
    lowercase: bool = False,
    keep_whitespace: bool = False,
    seed: int = 1234,
    sample_bytes: int = SAMPLE_BYTES,
    again: bool = False,
    progress: Progress = silent,
) -> TokenizerStats:
    """Learn a vocabulary of exactly `vocab_size` ids from `inputs` and write it to the new folder
    `out`. With `kind` `words`, it has at most so many.

    `normalize` (default: `nfc`), `lowercase` and `keep_whitespace` are those of `TextRules`; words
    are taken as they are. Reads at most about `sample_bytes` of text, spread evenly over the
    inputs. Raises `DataError` when the vocabulary does not fit the text, or when `out` holds
    something already (with `again`, a tokenizer there is replaced).
    """
    if kind not in KINDS:
        raise DataError(f"`kind` {kind!r}: expected {', '.join(KINDS)}")
    _check_out(out, again)
    sample = Sample(inputs, sample_bytes, progress)
    if kind == "words":
        if normalize not in (None, "none") or lowercase or keep_whitespace:
            raise DataError(
                "`kind` words: symbols are taken as they are; leave out `normalize`, `lowercase`"
                " and `keep_whitespace`, or take the kind bpe"
            )
        learnt = _learn_words(sample, vocab_size)
    else:
        rules = TextRules(normalize or "nfc", lowercase, keep_whitespace)
        learnt = _learn_pieces(sample, vocab_size, kind, rules, seed)
    write_tokenizer(_files(learnt), out)
    loaded = load_tokenizer(out)
    return TokenizerStats(
        path=out,
        kind=kind,
        vocab_size=loaded.vocab_size,
        fingerprint=loaded.fingerprint,
        sampled_characters=sample.characters,
        unknown_share=learnt.unknown_share,
    )


def _check_out(out: Path, again: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the tokenizer")
    entries = sorted(entry.name for entry in out.iterdir())
    others = [name for name in entries if name not in TOKENIZER_FILES]
    if others:
        raise DataError(
            f"{out}: holds something else already ({', '.join(others[:5])}); give a new folder"
        )
    if entries and not again:
        raise DataError(
            f"{out}: holds a tokenizer already; give a new folder, or `again` to replace it"
        )


def _learn_words(sample: Sample, vocab_size: int) -> _Learnt:
    counts = count_words(sample.documents())
    tokenizer, unknown_share = word_level(counts, vocab_size)
    card = {
        "kind": "words",
        "normalize": "none",
        "lowercase": False,
        "keep_whitespace": False,
        "unknown_share": unknown_share,
    }
    return _Learnt(tokenizer, card, unknown_share=unknown_share)


def _learn_pieces(
    sample: Sample, vocab_size: int, kind: Kind, rules: TextRules, seed: int
) -> _Learnt:
    model = learn(sample, vocab_size, kind, rules, seed)
    return _Learnt(convert(model, rules), {"kind": kind, **rules.to_dict()}, model)


def _files(learnt: _Learnt) -> dict[str, bytes]:
    files = {
        TOKENIZER_FILE: learnt.tokenizer.to_str(pretty=True).encode("utf-8"),
        CONFIG_FILE: as_json(transformers_config(PIECES)),
        SPECIAL_FILE: as_json({f"{name}_token": piece for name, piece in PIECES.items()}),
        CARD_FILE: as_json(
            {**learnt.card, "made_of": "text", "written_out": WRITTEN_OUT_IS_TEXT, "changes": []}
        ),
    }
    if learnt.model is not None:
        files[MODEL_FILE] = learnt.model
    return files
