"""Kinds of tokenizer and what they do to a text: nothing is lost that should be kept, masks leave
their neighbours alone, and sizes that cannot be are answered with one that can.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from data_tools.tokenizer import ShardTokenizer, load_tokenizer, train_tokenizer
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.errors import DataError
from electra_dist.files.tokenizers import CARD_FILE, MODEL_FILE, TOKENIZER_FILE

LANGUAGES = ("documents", "german", "chinese", "code")
SPACES = {"collapsed": {}, "kept": {"keep_whitespace": True}}


@pytest.fixture(scope="module")
def languages(samples: Path) -> dict[str, str]:
    return {name: (samples / f"{name}.txt").read_text(encoding="utf-8") for name in LANGUAGES}


@pytest.fixture(scope="module")
def corpus(languages: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All languages as one file."""
    path = tmp_path_factory.mktemp("corpus") / "all.jsonl"
    lines = [json.dumps({"text": text}) for text in languages.values()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tokenizer for each kind and each treatment of white space."""
    base = tmp_path_factory.mktemp("made")
    found = {}
    for kind in ("bpe", "unigram"):
        for spaces, settings in SPACES.items():
            folder = base / f"{kind} {spaces}"
            train_tokenizer([corpus], 760, folder, kind=kind, **settings)
            found[folder.name] = folder
    return found


# --- nothing is lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("name", LANGUAGES)
def test_a_text_comes_back_with_its_white_space(
    kind: str, name: str, made: dict[str, Path], languages: dict[str, str]
) -> None:
    tokenizer = load_tokenizer(made[f"{kind} kept"])
    text = unicodedata.normalize("NFC", languages[name])
    assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("name", LANGUAGES)
def test_a_text_comes_back_with_single_spaces(
    kind: str, name: str, made: dict[str, Path], languages: dict[str, str]
) -> None:
    tokenizer = load_tokenizer(made[f"{kind} collapsed"])
    text = " ".join(unicodedata.normalize("NFC", languages[name]).split())
    assert tokenizer.decode(tokenizer.encode_batch([languages[name]])[0]) == text


@pytest.mark.parametrize("name", LANGUAGES)
def test_nothing_is_unknown_and_little_is_spelt_in_bytes(
    name: str, made: dict[str, Path], languages: dict[str, str]
) -> None:
    for folder in made.values():
        tokenizer = load_tokenizer(folder)
        shares = tokenizer.shares_of(tokenizer.encode_batch([languages[name]]))
        assert shares.unknown == 0
        assert shares.byte_share < 0.05
        assert shares.warning() is None


def test_shares_are_those_of_a_plain_count(tokenizer_dir: Path, languages: dict[str, str]) -> None:
    """A tokenizer of English spells Chinese in bytes, and says so."""
    tokenizer = load_tokenizer(tokenizer_dir)
    documents = tokenizer.encode_batch([languages["chinese"], languages["documents"], ""])
    content = json.loads((tokenizer_dir / TOKENIZER_FILE).read_text(encoding="utf-8"))
    pieces = {number: piece for piece, number in content["model"]["vocab"].items()}
    spelt = [pieces[int(number)] for ids in documents for number in ids]
    shares = tokenizer.shares_of(documents)
    assert shares.tokens == len(spelt)
    assert shares.bytes == sum(piece.startswith("<0x") and len(piece) == 6 for piece in spelt)
    chinese = tokenizer.shares_of(documents[:1])
    assert chinese.byte_share > 0.9
    assert "single bytes" in str(chinese.warning())
    assert chinese + tokenizer.shares_of(documents[1:]) == shares


def test_normalisation_is_a_choice(corpus: Path, tmp_path: Path) -> None:
    expected = {
        "nfc": "x² ½ ﬁne é",
        "nfkc": "x2 1\u20442 fine é",
        "none": "x² ½ ﬁne e\u0301",
    }
    for form, text in expected.items():
        train_tokenizer([corpus], 700, tmp_path / form, normalize=form)
        tokenizer = load_tokenizer(tmp_path / form)
        (ids,) = tokenizer.encode_batch(["x²\n ½\tﬁne e\u0301"])
        assert tokenizer.decode(ids) == text
        card = json.loads((tmp_path / form / CARD_FILE).read_text(encoding="utf-8"))
        assert (card["normalize"], card["lowercase"], card["keep_whitespace"]) == (
            form,
            False,
            False,
        )


@pytest.mark.parametrize("spaces", list(SPACES))
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_agrees_on_normalised_text(
    kind: str, spaces: str, made: dict[str, Path], languages: dict[str, str]
) -> None:
    """But for indentation: unigrams of SentencePiece may end inside it, and ours do not."""
    folder = made[f"{kind} {spaces}"]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL_FILE))
    tokenizer = load_tokenizer(folder)
    texts = [part for text in languages.values() for part in text.split("\n\n")]
    texts = [unicodedata.normalize("NFC", text) for text in texts if "  " not in text]
    if spaces == "collapsed":
        texts = [" ".join(text.split()) for text in texts]
    ours = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    same = [a == b for a, b in zip(ours, processor.encode(texts), strict=True)]
    assert sum(same) >= 0.95 * len(texts)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_special_tokens_and_bytes_that_a_text_spells_stay_text(
    kind: str, made: dict[str, Path]
) -> None:
    text = "a [MASK] [SEP]b [[CLS]] [PAD] [UNK] <0x41> x<0xE4>"
    for spaces in SPACES:
        tokenizer = load_tokenizer(made[f"{kind} {spaces}"])
        (ids,) = tokenizer.encode_batch([text])
        assert min(ids) > SPECIAL_TOKENS.mask
        assert tokenizer.decode(ids) == text
        content = json.loads(tokenizer.files[TOKENIZER_FILE])
        vocabulary = content["model"]["vocab"]
        if kind == "unigram":
            vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        assert not {vocabulary["<0x41>"], vocabulary["<0xE4>"]} & set(ids.tolist())


# --- masks ----------------------------------------------------------------------------------------

MASKED = (
    "Paris is big.",
    "(old) words, new words",
    "Straße und Fluss",
    "one",
    "a - b",
)


def unmasked_neighbours(theirs: Any, text: str) -> None:
    """Each word of `text` masked in turn: the other ids are those of the whole text."""
    whole = theirs(text, add_special_tokens=False)
    ids = whole["input_ids"]
    offsets = theirs(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    start = 0
    for word in text.split():
        start = text.index(word, start)
        end = start + len(word)
        masked = text[:start] + theirs.mask_token + text[end:]
        found = theirs(masked, add_special_tokens=False)["input_ids"]
        # the space before a word belongs to it, also where it is a piece of its own
        before = [i for i, (_, stop) in zip(ids, offsets, strict=True) if stop < start]
        after = [i for i, (first, _) in zip(ids, offsets, strict=True) if first >= end]
        assert found == [*before, theirs.mask_token_id, *after], masked
        start = end


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("spaces", list(SPACES))
def test_the_pieces_around_a_mask_are_those_of_the_whole_text(
    kind: str, spaces: str, made: dict[str, Path]
) -> None:
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(
        made[f"{kind} {spaces}"], split_special_tokens=False
    )
    for text in MASKED:
        unmasked_neighbours(theirs, text)
    mask = theirs.mask_token
    two = theirs(f"Paris {mask} {mask}.", add_special_tokens=False)["input_ids"]
    paris = theirs("Paris", add_special_tokens=False)["input_ids"]
    assert two[: len(paris) + 2] == [*paris, theirs.mask_token_id, theirs.mask_token_id]
    ending = theirs("Paris [MASK]ing", add_special_tokens=False)["input_ids"]
    assert theirs.decode(ending) == "Paris[MASK]ing"


def test_indentation_before_a_mask_stays(made: dict[str, Path]) -> None:
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(
        made["bpe kept"], split_special_tokens=False
    )
    text = "def f(x):\n    return x\n"
    whole = theirs.tokenize(text)
    masked = theirs.tokenize(text.replace("return", "[MASK]"))
    at = masked.index("[MASK]")
    assert whole[:at] == masked[:at]
    assert whole[:at][-1] == "▁▁▁▁"
    assert whole[-2:] == masked[-2:]


# --- words ----------------------------------------------------------------------------------------


def test_words_are_counted_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "moves.txt"
    source.write_text("e4 e5 Nf3\nNf3 x² X² e4 e4\n\n[MASK] e4 é e\u0301\n", encoding="utf-8")
    stats = train_tokenizer([source], 8, tmp_path / "words", kind="words")
    tokenizer = load_tokenizer(tmp_path / "words")
    words = ["e4", "e5", "Nf3", "Nf3", "x²", "X²", "e4", "e4", "[", "MASK]", "e4", "é", "e\u0301"]
    counts = Counter(words)
    kept = sorted(counts, key=lambda word: (-counts[word], word))[:3]
    assert stats.vocab_size == tokenizer.vocab_size == 8
    assert stats.unknown_share == pytest.approx(1 - sum(counts[w] for w in kept) / len(words))
    (ids,) = tokenizer.encode_batch(["e4 Nf3\te5\nE4 [MASK]"])
    assert kept == ["e4", "Nf3", "MASK]"]
    assert ids.tolist() == [5, 6, 1, 1, 1, 7]
    assert tokenizer.shares_of([ids]).unknown == (ids == 1).sum()
    assert "unknown" in str(tokenizer.shares_of([ids]).warning())


def test_words_give_fewer_ids_where_there_are_fewer_symbols(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A C G T A\n")
    stats = train_tokenizer([tmp_path / "a.txt"], 100, tmp_path / "words", kind="words")
    assert stats.vocab_size == 9
    assert stats.unknown_share == 0


def test_words_take_symbols_as_they_are(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="symbols are taken as they are"):
        train_tokenizer([corpus], 100, tmp_path / "x", kind="words", lowercase=True)
    with pytest.raises(DataError, match="one symbol alone need 6"):
        train_tokenizer([corpus], 5, tmp_path / "x", kind="words")


# --- sizes and folders ----------------------------------------------------------------------------


def advised(error: pytest.ExceptionInfo[DataError], word: str) -> int:
    """The number after `word` in an error."""
    return int(str(error.value).split(word)[1].split()[0].strip(",;.").replace(",", ""))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_advice_on_a_size_can_be_followed(kind: Any, samples: Path, tmp_path: Path) -> None:
    text = [samples / "documents.jsonl"]
    with pytest.raises(DataError, match="too small for this text; its alphabet has") as small:
        train_tokenizer(text, 380, tmp_path / "x", kind=kind)
    with pytest.raises(DataError, match=r"cannot be learnt .* give at most") as large:
        train_tokenizer(text, 9000, tmp_path / "x", kind=kind)
    assert not (tmp_path / "x").exists()
    most = advised(large, "at most")
    assert train_tokenizer(text, most, tmp_path / "most", kind=kind).vocab_size == most
    least = min(advised(small, "at least"), most)
    assert train_tokenizer(text, least, tmp_path / "least", kind=kind).vocab_size == least


def test_a_tokenizer_is_never_overwritten(corpus: Path, made: dict[str, Path]) -> None:
    folder = made["bpe kept"]
    before = (folder / TOKENIZER_FILE).read_bytes()
    with pytest.raises(DataError, match="holds a tokenizer already"):
        train_tokenizer([corpus], 760, folder)
    assert (folder / TOKENIZER_FILE).read_bytes() == before


def test_ours_are_carried_on_as_they_are(made: dict[str, Path]) -> None:
    for folder in made.values():
        loaded: ShardTokenizer = load_tokenizer(folder)
        assert loaded.files == {file.name: file.read_bytes() for file in folder.iterdir()}
        assert loaded.specials == SPECIAL_TOKENS
