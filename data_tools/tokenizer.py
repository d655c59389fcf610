"""Train, write and load the tokenizer: SentencePiece learns it, `tokenizer.json` is what encodes.

`train_tokenizer` learns byte-pair merges with SentencePiece and writes the same vocabulary and
merges for the `tokenizers` library, with the files that let
`transformers.AutoTokenizer.from_pretrained` load it. Shards are encoded with that `tokenizer.json`,
never with SentencePiece itself: the two may break ties differently in runs of one character, and
training must see the ids that users of the exported model see (DESIGN D3).

Special tokens stand at fixed ids (`electra_dist.batch.SPECIAL_TOKENS`) and come from the template
only: a literal "[MASK]" in a text is text. Characters outside the vocabulary are spelt in bytes, so
nothing becomes [UNK].
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from data_tools.clean import normalise
from data_tools.sources import Inputs, Part, find_inputs, read_documents, split_parts
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.console import Progress, silent
from electra_dist.errors import DataError
from electra_dist.files.tokenizers import (
    CONFIG_FILE,
    MODEL_FILE,
    SPECIAL_FILE,
    TOKENIZER_FILE,
    TOKENIZER_FILES,
    read_tokenizer_file,
)

PIECES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
#: Text that training reads at most; more changes the vocabulary little and takes hours.
SAMPLE_BYTES = 200_000_000
_MAX_LINE = 4000
_SPACE = "\u2581"


@dataclass(frozen=True)
class TokenizerStats:
    """What `train_tokenizer` made."""

    path: Path
    vocab_size: int
    fingerprint: str
    sampled_characters: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


class ShardTokenizer:
    """A loaded `tokenizer.json`: text to ids without special tokens, and back."""

    def __init__(self, path: Path, tokenizer: tokenizers.Tokenizer, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self._tokenizer = tokenizer

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
        """Ids of each text, without [CLS] and [SEP];
        runs on the threads that `tokenizers` is given.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> str:
        """Readable text of `ids`; special tokens stay visible."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)


def load_tokenizer(path: Path) -> ShardTokenizer:
    """The tokenizer in folder `path`; raises `DataError` when it is missing,
    damaged or has other special ids.
    """
    file = path / TOKENIZER_FILE
    try:
        content = read_tokenizer_file(file)
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: cannot be read (no such file); give a folder that `data tokenizer` made"
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{file}: not a tokenizer of the `tokenizers` library: {error}") from error
    for name, expected in asdict(SPECIAL_TOKENS).items():
        found = tokenizer.token_to_id(PIECES[name])
        if found != expected:
            raise DataError(
                f"{file}: {PIECES[name]} has id {found}, expected {expected}; train it with `data"
                " tokenizer`"
            )
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return ShardTokenizer(path, tokenizer, hashlib.sha256(content).hexdigest())


def train_tokenizer(
    inputs: Sequence[str | Path] | Inputs,
    vocab_size: int,
    out: Path,
    *,
    seed: int = 1234,
    lowercase: bool = False,
    sample_bytes: int = SAMPLE_BYTES,
    again: bool = False,
    progress: Progress = silent,
) -> TokenizerStats:
    """Learn a vocabulary of exactly `vocab_size` ids from `inputs` and write it to the folder
    `out`.

    Reads at most about `sample_bytes` of text, spread evenly over the inputs. Raises `DataError`
    when there is too little text for the vocabulary, or when `out` holds something already (with
    `again`, a tokenizer there is replaced).
    """
    _check_out(out, again)
    parts = split_parts(find_inputs(inputs), part_bytes=8 * 2**20)
    sample = _Sample(parts, sample_bytes, progress)
    with tempfile.TemporaryDirectory(prefix="electra-dist-") as folder:
        model_file = Path(folder, "model")
        _train_sentencepiece(sample, vocab_size, model_file, seed, lowercase)
        content = model_file.with_suffix(".model").read_bytes()
    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL_FILE).write_bytes(content)
    text = convert(content).to_str(pretty=True)
    _write_json(out / CONFIG_FILE, _transformers_config())
    _write_json(out / SPECIAL_FILE, {f"{name}_token": piece for name, piece in PIECES.items()})
    # last: it is what makes the folder a tokenizer
    (out / TOKENIZER_FILE).write_text(text, encoding="utf-8")
    loaded = load_tokenizer(out)
    return TokenizerStats(out, loaded.vocab_size, loaded.fingerprint, sample.characters)


def _check_out(out: Path, again: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; give a folder for the tokenizer")
    if out.is_dir():
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in TOKENIZER_FILES)
    else:
        others = []
    if others:
        raise DataError(
            f"{out}: holds something else already ({', '.join(others[:5])}); give a new folder"
        )
    if not again and out.is_dir() and any(out.iterdir()):
        raise DataError(
            f"{out}: holds a tokenizer already; give a new folder, or `again` to replace it"
        )


class _Sample:
    """Lines of text for SentencePiece, at most `budget` characters, evenly from all parts."""

    def __init__(self, parts: list[Part], budget: int, progress: Progress) -> None:
        total = sum(part.text_bytes for part in parts)
        keep = max(1, min(len(parts), len(parts) * budget // max(1, total)))
        self._parts = [parts[index * len(parts) // keep] for index in range(keep)]
        self._share = budget // keep
        self._progress = progress
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for done, part in enumerate(self._parts, start=1):
            left = self._share
            for document in read_documents(part):
                text = normalise(document)
                self.characters += len(text)
                left -= len(text)
                for line in text.split("\n"):
                    yield from _cut(line)
                if left <= 0:
                    break
            self._progress("tokenizer sample", done, len(self._parts))


def _cut(line: str) -> Iterator[str]:
    """Pieces of `line` that SentencePiece does not skip as too long (it counts bytes),
    cut at spaces if possible.
    """
    if line.isascii():
        limit = _MAX_LINE
    else:
        limit = _MAX_LINE // 4
    while len(line) > limit:
        at = line.rfind(" ", 1, limit)
        if at < 0:
            at = limit
        yield line[:at]
        line = line[at:]
    if line.strip():
        yield line


def _train_sentencepiece(
    sample: _Sample, vocab_size: int, prefix: Path, seed: int, lowercase: bool
) -> None:
    smallest = len(PIECES) + 256 + 100
    if vocab_size < smallest:
        raise DataError(
            f"`vocab_size` {vocab_size}: too small; bytes and special tokens alone need {smallest}"
        )
    sentencepiece.set_random_generator_seed(seed)
    sentencepiece.set_min_log_level(2)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_prefix=str(prefix),
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=0.9999,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            split_digits=True,
            num_threads=min(16, os.cpu_count() or 1),
            pad_id=SPECIAL_TOKENS.pad,
            unk_id=SPECIAL_TOKENS.unk,
            bos_id=-1,
            eos_id=-1,
            pad_piece=PIECES["pad"],
            unk_piece=PIECES["unk"],
            control_symbols=[PIECES[name] for name in ("cls", "sep", "mask")],
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if str(error).strip():
            reason = str(error).strip().splitlines()[-1]
        else:
            reason = "unknown"
        raise DataError(
            f"a vocabulary of {vocab_size} cannot be learnt from {sample.characters} characters of"
            f" text: SentencePiece says: {reason}; give more text or a smaller `vocab_size`"
        ) from error


def convert(model: bytes) -> tokenizers.Tokenizer:
    """The byte-pair SentencePiece model `model` for the `tokenizers` library.

    A merge makes each piece from each pair of pieces that spell it; SentencePiece joins the pair
    whose result has the best score first, so merges are ordered by the score of what they make.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    normal = {piece.piece: piece.score for piece in proto.pieces if piece.type == piece.NORMAL}
    merges = [
        (-score, cut, (piece[:cut], piece[cut:]))
        for piece, score in normal.items()
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    bpe = models.BPE(
        vocab=vocabulary,
        merges=[pair for *_, pair in sorted(merges)],
        unk_token=PIECES["unk"],
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
            normalizers.Strip(left=True, right=True),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=_SPACE, prepend_scheme="always", split=True
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    specials = asdict(SPECIAL_TOKENS)
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(PIECES[name], special=True) for name in specials]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", specials["cls"]), ("[SEP]", specials["sep"])],
    )
    return tokenizer


def _transformers_config() -> dict[str, Any]:
    """`tokenizer_config.json`: what `transformers.AutoTokenizer` needs beside `tokenizer.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": piece for name, piece in PIECES.items()},
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "padding_side": "right",
        "split_special_tokens": True,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
