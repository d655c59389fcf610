"""Windows over words: the tokens of pre-training, every word once, none lost."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import transformers

from electra_dist.errors import DataError
from electra_dist.finetune.tasks.tokens.sentences import sentence_of_words
from electra_dist.finetune.tasks.tokens.windows import IGNORED, make_windows

WORDS = ("The", "value", "of", "naïve", "U.N.", "-", "object's", "[MASK]", "x", "日本", "é")


@pytest.fixture(scope="module", params=["unigram", "bpe", "words"])
def tokenizer(
    request: pytest.FixtureRequest, pydoc_topics: Path, tmp_path_factory: pytest.TempPathFactory
) -> transformers.PreTrainedTokenizerBase:
    """Each kind that `electra-dist tokenizer` trains."""
    from data_tools.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer") / request.param
    train_tokenizer([pydoc_topics], 512, folder, kind=request.param)
    return transformers.AutoTokenizer.from_pretrained(folder)


def some_words(draw: random.Random, count: int) -> list[str]:
    return [draw.choice(WORDS) for _ in range(count)]


def test_the_tokens_are_those_of_the_text(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """A network saw texts in pre-training, not lists of words."""
    draw = random.Random(1)
    sentences = [sentence_of_words(some_words(draw, draw.randrange(1, 30))) for _ in range(50)]
    windows = make_windows(sentences, tokenizer, 10_000, 0, "test").windows
    for sentence, window in zip(sentences, windows, strict=True):
        whole = tokenizer(sentence.text, return_offsets_mapping=True)
        assert window.input_ids == whole["input_ids"]
        # the first piece of a word is the first token that reaches into it
        for (start, end), place in zip(sentence.spans, window.places, strict=True):
            offsets = whole["offset_mapping"]
            reaching = [at for at, (a, b) in enumerate(offsets) if a < end and b > start]
            begun = [at for at, (a, b) in enumerate(offsets) if a == start - 1 and b == start]
            assert place == (begun + reaching)[0]


@pytest.mark.parametrize(("length", "stride"), [(16, 4), (12, 0), (12, 9), (8, 3)])
def test_each_word_belongs_to_one_window(
    tokenizer: transformers.PreTrainedTokenizerBase, length: int, stride: int
) -> None:
    draw = random.Random(length)
    known = [word for word in WORDS if word != "[MASK]"]  # alone, it has other tokens
    sentences = [sentence_of_words(draw.choices(known, k=count)) for count in (40, 1, 0, 25)]
    made = make_windows(sentences, tokenizer, length, stride, "test")
    assert made.words == [40, 1, 0, 25]
    for index, sentence in enumerate(sentences):
        own = [window for window in made.windows if window.sentence == index]
        first_pieces = [tokenizer(word)["input_ids"][1] for word in sentence.words]
        found = [window.input_ids[place] for window in own for place in window.places]
        assert found == first_pieces
        words = [n for one in own for n in range(one.first, one.first + len(one.places))]
        assert words == list(range(len(sentence.spans)))
    for window in made.windows:
        assert len(window.input_ids) <= length
        assert window.input_ids[0] == tokenizer.cls_token_id
        assert window.input_ids[-1] == tokenizer.sep_token_id


def test_a_word_is_taken_from_the_window_with_more_around_it(
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> None:
    """With words of one token each, and windows of 8 words that share 4."""
    sentence = sentence_of_words(["x"] * 20)
    pieces = len(tokenizer("x")["input_ids"]) - 2
    made = make_windows([sentence], tokenizer, 8 * pieces + 2, 4 * pieces, "test")
    assert [(one.first, len(one.places)) for one in made.windows] == [
        (0, 6),
        (6, 4),
        (10, 4),
        (14, 6),
    ]


def test_labels_and_logits_meet_at_the_first_pieces(
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> None:
    draw = random.Random(5)
    sentences = [sentence_of_words(some_words(draw, count)) for count in (30, 3)]
    targets = [[draw.randrange(4) for _ in sentence.spans] for sentence in sentences]
    made = make_windows(sentences, tokenizer, 14, 4, "test")
    features = made.features(targets)
    for feature in features:
        assert len(feature["labels"]) == len(feature["input_ids"])
    labelled = [label for one in features for label in one["labels"] if label != IGNORED]
    assert labelled == targets[0] + targets[1]
    # logits that say the label of each token, nonsense where there is none
    outputs = [(np.eye(4, dtype=np.float32)[np.clip(one["labels"], 0, None)],) for one in features]
    found = made.by_word(outputs, 4)
    assert [one.argmax(axis=1).tolist() for one in found] == targets


def test_a_word_without_a_token_is_refused() -> None:
    """WordPiece drops control characters."""
    from tokenizers import BertWordPieceTokenizer

    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5}
    own = BertWordPieceTokenizer(vocabulary)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=own._tokenizer)
    sentence = sentence_of_words(["a", "\u200b"], lines=(7, 8))
    with pytest.raises(DataError, match=r"file, line 8: the word .* is nothing to this tokenizer"):
        make_windows([sentence], tokenizer, 16, 4, "file")
