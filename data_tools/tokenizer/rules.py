"""What our tokenizers do to a text, as parts of `tokenizer.json`: normaliser, pre-tokenizer,
decoder and the template of special tokens.

By default, text is brought into NFC and runs of white space become one space. NFC joins letters and
their accents and changes nothing that a reader sees; NFKC would turn x² into x2. Line ends of prose
are layout: kept, they would make two pieces of every word, one after a space and one after a line
end. Code and poems need them: `keep_whitespace`.

Sections: `tokenizers` cuts a text at special tokens, so that "Paris is [MASK]." has the sections
"Paris is " and ".". Only the first section gets the leading space that a text has, and a single
space before the mask belongs to the masked word. So the pieces around a mask are those of the text
without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors

from electra_dist.batch import SPECIAL_TOKENS, SpecialTokens
from electra_dist.errors import DataError

Kind = Literal["bpe", "unigram", "words"]
Normalize = Literal["nfc", "nfkc", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NORMALIZE: tuple[Normalize, ...] = get_args(Normalize)

PIECES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
#: A space in the vocabulary of SentencePiece.
SPACE = "\u2581"
#: Characters that Unicode calls white space, for a regular expression.
_WHITE = "\\t-\\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
#: One run of white space that is not already a single plain space.
_RUNS = f"[{_WHITE}]{{2,}}|(?! )[{_WHITE}]"
#: Pieces of a text whose white space is kept: line ends and tabs alone, indentation, words.
_KEPT = f"[\\n\\t]|{SPACE}{{2,}}|{SPACE}?[^{SPACE}\\n\\t]+|{SPACE}"
#: The first character of a special token or a byte piece that is written out in a text.
_WRITTEN_OUT = "\\[(?=(?:PAD|UNK|CLS|SEP|MASK)\\])|<(?=0x[0-9A-F]{2}>)"


@dataclass(frozen=True)
class TextRules:
    """What a tokenizer of ours does to a text before it looks for pieces.

    normalize        Unicode normal form: `nfc`, `nfkc` (loses superscripts, fractions and the like)
                     or `none`
    lowercase        case is folded
    keep_whitespace  line ends, tabs and runs of spaces are kept; otherwise a run becomes one space
    """

    normalize: Normalize = "nfc"
    lowercase: bool = False
    keep_whitespace: bool = False

    def __post_init__(self) -> None:
        if self.normalize not in NORMALIZE:
            raise DataError(f"`normalize` {self.normalize!r}: expected {', '.join(NORMALIZE)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def normalizer(rules: TextRules) -> normalizers.Normalizer:
    """The normaliser that stands in `tokenizer.json`."""
    steps: list[normalizers.Normalizer] = []
    if rules.normalize == "nfc":
        steps.append(normalizers.NFC())
    elif rules.normalize == "nfkc":
        steps.append(normalizers.NFKC())
    if rules.lowercase:
        steps.append(normalizers.Lowercase())
    if rules.keep_whitespace:
        steps.append(normalizers.Replace(tokenizers.Regex("\\r\\n?"), "\n"))
        steps.append(normalizers.Replace(tokenizers.Regex("(?<! ) \\z"), ""))
        steps.append(normalizers.Replace(" ", SPACE))
    else:
        steps.append(normalizers.Replace(tokenizers.Regex(_RUNS), " "))
        steps.append(normalizers.Strip(left=False, right=True))
    return normalizers.Sequence(steps)


def pre_tokenizer(rules: TextRules, whole_words: bool) -> pre_tokenizers.PreTokenizer:
    """Cuts a normalised text into words. With `whole_words`, the model looks for its pieces as they
    are, and would find "[MASK]" in a text: such words are cut in two.
    """
    steps: list[pre_tokenizers.PreTokenizer] = []
    if whole_words:
        steps.append(written_out())
    if rules.keep_whitespace:
        steps.append(pre_tokenizers.Split(tokenizers.Regex(_KEPT), "isolated"))
    else:
        steps.append(
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=True)
        )
    if len(steps) == 1:
        return steps[0]
    return pre_tokenizers.Sequence(steps)


def written_out() -> pre_tokenizers.PreTokenizer:
    """Cuts special tokens and byte pieces that a text spells, so that they stay text."""
    return pre_tokenizers.Split(tokenizers.Regex(_WRITTEN_OUT), "isolated")


def decoder(rules: TextRules) -> decoders.Decoder:
    """Pieces to text; the space before a text's first word is not part of it."""
    steps: list[decoders.Decoder] = [
        decoders.Replace(SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if not rules.keep_whitespace:
        steps.append(decoders.Strip(content=" ", left=1))
    return decoders.Sequence(steps)


def template(pieces: dict[str, str], ids: SpecialTokens) -> processors.PostProcessor:
    """[CLS] text [SEP], and [CLS] text [SEP] second text [SEP] with token types 0 and 1."""
    start = pieces["cls"]
    end = pieces["sep"]
    return processors.TemplateProcessing(
        single=[f"{start}:0", "$A:0", f"{end}:0"],
        pair=[f"{start}:0", "$A:0", f"{end}:0", "$B:1", f"{end}:1"],
        special_tokens=[(start, ids.cls), (end, ids.sep)],
    )


def add_special_tokens(tokenizer: tokenizers.Tokenizer) -> None:
    """Ours, at the ids that the vocabulary has them at."""
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(piece, special=True, normalized=False) for piece in PIECES.values()]
    )
    tokenizer.post_processor = template(PIECES, SPECIAL_TOKENS)


def transformers_config(pieces: dict[str, str]) -> dict[str, Any]:
    """`tokenizer_config.json`: what `transformers.AutoTokenizer` needs next to `tokenizer.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": piece for name, piece in pieces.items()},
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "padding_side": "right",
        "split_special_tokens": True,
    }
