"""The tokenizer: the same ids in SentencePiece,
in the shards and in transformers, on every document.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece

from data_tools.clean import normalise
from data_tools.corpus import write_pydoc_corpus
from data_tools.tokenizer import PIECES, load_tokenizer, train_tokenizer
from electra_dist.batch import SPECIAL_TOKENS, SpecialTokens
from electra_dist.errors import DataError
from electra_dist.files.tokenizers import MODEL_FILE, TOKENIZER_FILE
from tests.support.english import join_packages, read_texts

HARD_TEXTS = [
    *("-" * count for count in range(1, 80)),
    *("=" * count + "-" * count for count in range(1, 30)),
    "the literal [MASK], [CLS] and [SEP]; [PAD][UNK] glued",
    "héllo naïve ﬁne — “quotes” … № Ⅷ ½ ﷺ",
    "日本語 العربية हिन्दी 👩‍👩‍👧‍👦 \u200b\u00ad zero width",
    "line one\n\n   indented\ttab   spaces   ",
    "x\u2581y \u2581 z",
    "",
    " ",
    "def f(x): return {'a': [1, 2.5e-3, 0xFF]}  # 2024-01-31",
    "<0x41> <s> </s> <unk>",
]


@pytest.fixture(scope="module")
def texts(topic_texts: list[str]) -> list[str]:
    return [*HARD_TEXTS, *topic_texts]


def test_special_tokens_stand_at_their_ids(tokenizer_dir):
    content = json.loads((tokenizer_dir / TOKENIZER_FILE).read_text(encoding="utf-8"))
    assert {token["content"]: token["id"] for token in content["added_tokens"]} == {
        PIECES[name]: getattr(SPECIAL_TOKENS, name) for name in PIECES
    }
    tokenizer = load_tokenizer(tokenizer_dir)
    assert tokenizer.vocab_size == 1024
    assert len(tokenizer.fingerprint) == 64


def test_special_tokens_in_a_text_are_text_and_nothing_is_unknown(tokenizer_dir, texts):
    tokenizer = load_tokenizer(tokenizer_dir)
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert len(ids) == 0 or min(ids) > SPECIAL_TOKENS.mask, text


def test_text_without_odd_spaces_comes_back(tokenizer_dir):
    tokenizer = load_tokenizer(tokenizer_dir)
    for text in ("A sentence, as it was.", "naïve 日本 👍 [MASK]", "x = {1: 'a'}"):
        assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == text


def test_transformers_gives_identical_ids(tokenizer_dir, texts, tmp_path):
    check_transformers(tokenizer_dir, texts, tmp_path)


def check_transformers(tokenizer_dir: Path, texts: list[str], tmp_path: Path) -> None:
    """Alone, saved again by transformers, and beside the configuration of an ELECTRA model."""
    import transformers

    ours = [ids.tolist() for ids in load_tokenizer(tokenizer_dir).encode_batch(texts)]
    loaded = transformers.AutoTokenizer.from_pretrained(tokenizer_dir)
    loaded.save_pretrained(tmp_path / "saved")
    transformers.ElectraConfig(vocab_size=len(loaded)).save_pretrained(tmp_path / "model")
    for file in tokenizer_dir.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    for path in (tokenizer_dir, tmp_path / "saved", tmp_path / "model"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        assert tokenizer(texts, add_special_tokens=False)["input_ids"] == ours
        wrapped = tokenizer(texts[:50])["input_ids"]
        assert wrapped == [[SPECIAL_TOKENS.cls, *ids, SPECIAL_TOKENS.sep] for ids in ours[:50]]
        pair = tokenizer("one", "two")
        assert (
            pair["token_type_ids"].count(1)
            == len(tokenizer("two", add_special_tokens=False)["input_ids"]) + 1
        )
        for name in PIECES:
            assert getattr(tokenizer, f"{name}_token_id") == getattr(SPECIAL_TOKENS, name)


def test_sentencepiece_itself_agrees_on_plain_text(tokenizer_dir, topic_texts):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_dir / MODEL_FILE))
    topic_texts = [" ".join(text.split()) for text in topic_texts]  # it normalises nothing
    ours = load_tokenizer(tokenizer_dir).encode_batch(topic_texts)
    same = sum(
        ids.tolist() == other
        for ids, other in zip(ours, processor.encode(topic_texts), strict=True)
    )
    assert same >= 0.99 * len(topic_texts)  # ties in runs of one character may differ


def test_long_documents_have_identical_ids_in_transformers(
    tokenizer_dir: Path, pydoc_corpus: Path, tmp_path: Path
) -> None:
    """A tokenizer that was learnt from other text than it meets."""
    texts = read_texts(join_packages(pydoc_corpus, tmp_path / "packages.jsonl"))
    assert max(map(len, texts)) > 50_000
    check_every_document(tokenizer_dir, texts)


def test_text_of_many_scripts_has_identical_ids_in_transformers(
    tokenizer_dir: Path, samples: Path
) -> None:
    texts = read_texts(samples / "documents.jsonl")
    assert len(texts) == 28
    check_every_document(tokenizer_dir, texts)
    check_every_document(tokenizer_dir, [normalise(text) for text in texts])


def check_every_document(tokenizer_dir: Path, texts: list[str]) -> None:
    import transformers

    ours, loaded = (
        load_tokenizer(tokenizer_dir),
        transformers.AutoTokenizer.from_pretrained(tokenizer_dir),
    )
    for start in range(0, len(texts), 1000):
        batch = texts[start : start + 1000]
        expected = [ids.tolist() for ids in ours.encode_batch(batch)]
        assert (
            loaded(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]
            == expected
        )


@pytest.mark.full
def test_every_document_of_the_whole_corpus_has_identical_ids_in_transformers(
    tmp_path: Path,
) -> None:
    """Its docstrings, each alone and all of a package as one document."""
    stats = write_pydoc_corpus(tmp_path / "pydoc")
    train_tokenizer([tmp_path / "pydoc"], 16384, tmp_path / "tokenizer")
    packages = join_packages(stats.path, tmp_path / "packages.jsonl")
    check_every_document(tmp_path / "tokenizer", read_texts(stats.path) + read_texts(packages))


def test_training_again_gives_the_same_tokenizer(topics_file, tokenizer_dir, tmp_path):
    stats = train_tokenizer([topics_file], 1024, tmp_path / "again")
    assert stats.vocab_size == 1024
    assert stats.fingerprint == load_tokenizer(tokenizer_dir).fingerprint


def test_lowercase_folds_case(topics_file, tmp_path):
    train_tokenizer([topics_file], 1024, tmp_path / "lower", lowercase=True)
    first, second = load_tokenizer(tmp_path / "lower").encode_batch(
        ["The STATEMENT Is", "the statement is"]
    )
    assert first.tolist() == second.tolist()


def test_only_a_bounded_sample_is_read(topics_file, tmp_path):
    stats = train_tokenizer([topics_file], 600, tmp_path / "small", sample_bytes=100_000)
    assert 100_000 <= stats.sampled_characters < 300_000


def test_wrong_sizes_folders_and_files_are_refused(topics_file, tokenizer_dir, tmp_path):
    with pytest.raises(DataError, match="too small"):
        train_tokenizer([topics_file], 100, tmp_path / "x")
    with pytest.raises(DataError, match="a vocabulary of 900000 cannot be learnt"):
        train_tokenizer([topics_file], 900_000, tmp_path / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"holds something else already \(thesis\.tex\)"):
        train_tokenizer([topics_file], 1024, tmp_path / "full")
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / TOKENIZER_FILE).write_text("{}")
    with pytest.raises(DataError, match="not a tokenizer"):
        load_tokenizer(tmp_path / "bad")
    content = json.loads((tokenizer_dir / TOKENIZER_FILE).read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["[MASK]"], vocabulary["[SEP]"] = vocabulary["[SEP]"], vocabulary["[MASK]"]
    for token in content["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    (tmp_path / "bad" / TOKENIZER_FILE).write_text(json.dumps(content))
    assert load_tokenizer(tmp_path / "bad").specials == SpecialTokens(sep=4, mask=3)


def test_a_tokenizer_is_replaced_when_asked_for_only(topics_file, tmp_path):
    out = tmp_path / "tokenizer"
    first = train_tokenizer([topics_file], 600, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match=r"holds a tokenizer already; .* or `again` to replace it"):
        train_tokenizer([topics_file], 700, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    second = train_tokenizer([topics_file], 700, out, again=True)
    assert second.vocab_size == 700
    assert second.fingerprint != first.fingerprint
