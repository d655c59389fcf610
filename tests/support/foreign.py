"""Tokenizers that others made, small: BERT's vocabulary with its special ids at their places, and
the folders that `transformers` saves.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

#: Where BERT and ELECTRA have their special tokens.
BERT_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}


def write_vocabulary(file: Path, texts: list[str], words: int = 400, lowercase: bool = True) -> int:
    """A `vocab.txt` in BERT's order: [PAD], 99 unused, the other special tokens, characters,
    continuations, frequent words. Returns the number of its lines.
    """
    text = "\n".join(texts)
    if lowercase:
        text = text.lower()
    characters = sorted(set(re.findall(r"[!-~]", text)))
    counts = Counter(re.findall(r"[A-Za-z]{2,}", text))
    lines = ["[PAD]", *(f"[unused{number}]" for number in range(99))]
    lines += ["[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    lines += [f"##{character}" for character in characters]
    lines += [word for word, _ in counts.most_common(words)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def save_electra(folder: Path, vocabulary: Path, **settings: Any) -> Any:
    """The folder that `transformers` saves of an ELECTRA tokenizer, and the tokenizer."""
    import transformers

    made = transformers.ElectraTokenizer(vocab=str(vocabulary), **settings)
    made.save_pretrained(folder)
    return made


def save_roberta(folder: Path, texts: list[str], size: int = 400) -> Any:
    """A byte-level tokenizer with RoBERTa's names of special tokens."""
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.enable_truncation(128)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=128,
    )
    wrapped.save_pretrained(folder)
    return wrapped


def edit_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | changes), encoding="utf-8")
