"""Tokenizers: training our own, opening anybody's, text to ids and back.

1. rules        what the normaliser inside `tokenizer.json` does to a text
2. training     text in, a folder with a tokenizer out: byte-pair merges, unigrams or words
3. source       any tokenizer that a user has, as the files that shards and exports carry
4. loading      `ShardTokenizer`: what the shards are encoded with
5. shares       how much of a corpus was spelt in bytes or is unknown

`tokenizer.json` alone decides ids: the shards hold what `transformers.AutoTokenizer` gives for the
same text (DESIGN D13).
"""

from data_tools.tokenizer.loading import ShardTokenizer, load_tokenizer
from data_tools.tokenizer.rules import PIECES, TextRules
from data_tools.tokenizer.shares import Shares
from data_tools.tokenizer.training import TokenizerStats, train_tokenizer

__all__ = [
    "PIECES",
    "ShardTokenizer",
    "Shares",
    "TextRules",
    "TokenizerStats",
    "load_tokenizer",
    "train_tokenizer",
]
