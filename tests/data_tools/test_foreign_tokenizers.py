"""Tokenizers that others made: the shards hold the ids that `transformers` gives, before and after
they are carried on, wherever their special tokens stand.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.build import BuildOptions, build_shards
from data_tools.inspect import verify_shards
from data_tools.tokenizer import ShardTokenizer, load_tokenizer
from electra_dist import config as configuration
from electra_dist.batch import PADDING_DOCUMENT, SpecialTokens
from electra_dist.data.shards.manifest import TRAIN, Manifest
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import RowFormat, StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.data.validation import deal, held_out
from electra_dist.errors import DataError, UserError
from electra_dist.files.tokenizers import (
    CARD_FILE,
    CONFIG_FILE,
    SPECIAL_FILE,
    TOKENIZER_FILE,
    special_tokens_of,
    write_tokenizer,
)
from tests.support.foreign import (
    BERT_IDS,
    edit_json,
    save_electra,
    save_roberta,
    write_vocabulary,
)

HARD_TEXTS = [
    "Straße, naïve CAFÉ — ½ x² 東京 ﬁne",
    "two  spaces\n\ttab\x0cpage\u0085next",
    "a\u0000b\ufffdc \u00ad soft",
    "",
]
#: What `transformers` drops, keeps and cuts out of a text that spells special tokens.
SPELT = "the literal [MASK], [CLS] and [SEP]; [PAD][UNK] glued"


@pytest.fixture(scope="module")
def vocabulary(topic_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    write_vocabulary(path, topic_texts)
    return path


def carried(tokenizer: ShardTokenizer, folder: Path) -> Any:
    """What users of an export load."""
    import transformers

    write_tokenizer(tokenizer.files, folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def check_same_ids(path: Path, original: Any, texts: list[str], folder: Path) -> ShardTokenizer:
    """Ours, the one carried on, and the original as its owner has it."""
    ours = load_tokenizer(path)
    theirs = carried(ours, folder)
    plain = [*texts, *HARD_TEXTS]
    found = [ids.tolist() for ids in ours.encode_batch([*plain, SPELT])]
    assert theirs([*plain, SPELT], add_special_tokens=False)["input_ids"] == found
    assert original(plain, add_special_tokens=False)["input_ids"] == found[:-1]
    saved = folder.parent / "saved again"
    theirs.save_pretrained(saved)  # which adds keys of its own
    assert load_tokenizer(saved).encode_batch(plain)[0].tolist() == found[0]
    special = ours.specials
    for text, ids in zip(plain[:20], found, strict=False):
        assert theirs(text)["input_ids"] == [special.cls, *ids, special.sep]
    pair = theirs("one", "two")
    two = theirs("two", add_special_tokens=False)["input_ids"]
    assert pair["input_ids"][-len(two) - 1 :] == [*two, special.sep]
    assert sum(pair["token_type_ids"]) == len(two) + 1
    for name in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(theirs, f"{name}_token_id") == getattr(special, name)
    assert special_tokens_of(folder) == special
    again = load_tokenizer(folder)
    assert again.files == ours.files
    assert again.fingerprint == ours.fingerprint
    return ours


# --- BERT and ELECTRA -----------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_vocabulary_of_bert(
    given: str, vocabulary: Path, topic_texts: list[str], tmp_path: Path
) -> None:
    import transformers

    original = transformers.BertTokenizer(vocab=str(vocabulary), do_lower_case=True)
    path = {"file": vocabulary, "folder": vocabulary.parent}[given]
    ours = check_same_ids(path, original, topic_texts, tmp_path / "carried")
    assert ours.specials == SpecialTokens(**BERT_IDS)
    assert ours.vocab_size == len(vocabulary.read_text().splitlines())
    card = json.loads(ours.files[CARD_FILE])
    assert card["changes"][0] == (
        "made of vocab.txt: case is folded, because the vocabulary has no capital letter"
    )


def test_a_vocabulary_with_capitals_keeps_case(topic_texts: list[str], tmp_path: Path) -> None:
    import transformers

    file = tmp_path / "vocab.txt"
    write_vocabulary(file, topic_texts, lowercase=False)
    original = transformers.BertTokenizer(vocab=str(file), do_lower_case=False)
    check_same_ids(file, original, topic_texts, tmp_path / "carried")


def test_the_configuration_next_to_a_vocabulary_decides(
    vocabulary: Path, topic_texts: list[str], tmp_path: Path
) -> None:
    import transformers

    shutil.copy(vocabulary, tmp_path / "vocab.txt")
    settings = {"do_lower_case": False, "tokenize_chinese_chars": False}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(settings))
    original = transformers.BertTokenizer(vocab=str(vocabulary), **settings)
    check_same_ids(tmp_path, original, topic_texts, tmp_path / "carried")


def test_a_saved_electra_tokenizer(
    vocabulary: Path, topic_texts: list[str], tmp_path: Path
) -> None:
    original = save_electra(tmp_path / "saved", vocabulary)
    ours = check_same_ids(tmp_path / "saved", original, topic_texts, tmp_path / "carried")
    assert ours.specials == SpecialTokens(**BERT_IDS)
    alone = load_tokenizer(tmp_path / "saved" / TOKENIZER_FILE)
    assert alone.files[TOKENIZER_FILE] == ours.files[TOKENIZER_FILE]


def test_unknown_words_are_counted(vocabulary: Path) -> None:
    tokenizer = load_tokenizer(vocabulary)
    documents = tokenizer.encode_batch(["the 東京 the", "the"])
    shares = tokenizer.shares_of(documents)
    assert (shares.tokens, shares.unknown, shares.bytes) == (5, 2, 0)
    assert shares.unknown_share == pytest.approx(0.4)
    assert "unknown" in str(shares.warning())


# --- others ---------------------------------------------------------------------------------------


def test_a_byte_level_tokenizer_with_other_names(topic_texts: list[str], tmp_path: Path) -> None:
    original = save_roberta(tmp_path / "saved", topic_texts)
    long_text = [" ".join(topic_texts[:3])]
    texts = [text[:200] for text in topic_texts]
    ours = check_same_ids(tmp_path / "saved", original, texts, tmp_path / "carried")
    assert ours.specials == SpecialTokens(cls=0, pad=1, sep=2, unk=3, mask=4)
    assert len(ours.encode_batch(long_text)[0]) > 128  # nothing is cut
    changes = json.loads(ours.files[CARD_FILE])["changes"]
    assert changes[0] == "texts are no longer cut to a length"
    assert any("token types" in change for change in changes)
    check_neighbours(tmp_path / "carried", "The cat sat, then.", "cat")
    chinese = ours.shares_of(ours.encode_batch(["東京"]))
    assert chinese.bytes == chinese.tokens == len("東京".encode())
    assert ours.shares_of(ours.encode_batch(["the cat"])).bytes == 0


def check_neighbours(folder: Path, text: str, word: str) -> None:
    """A mask in place of `word` leaves the other ids as they are."""
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(folder, split_special_tokens=False)
    before, after = text.split(f" {word}")
    whole = theirs(text, add_special_tokens=False)["input_ids"]
    first = theirs(before, add_special_tokens=False)["input_ids"]
    masked = theirs(text.replace(word, theirs.mask_token), add_special_tokens=False)["input_ids"]
    assert masked[: len(first) + 1] == [*first, theirs.mask_token_id]
    assert whole[: len(first)] == first
    rest = masked[len(first) + 1 :]
    assert whole[-len(rest) :] == rest
    assert theirs.decode(rest) == after


def test_a_unigram_tokenizer_says_what_a_written_out_mask_becomes(
    topic_texts: list[str], tmp_path: Path
) -> None:
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers

    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<mask>", 0.0)]
    pieces += [(chr(number), -9.0) for number in range(33, 127)] + [("▁", -3.0), ("▁the", -4.0)]
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.save(str(tmp_path / TOKENIZER_FILE))
    ours = load_tokenizer(tmp_path)
    assert ours.specials == SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)
    card = json.loads(ours.files[CARD_FILE])
    assert "<mask> written out in a text become the special token" in card["written_out"]
    theirs = carried(ours, tmp_path / "carried")
    texts = [*topic_texts[:50], SPELT, "a <mask> b"]
    expected = [ids.tolist() for ids in ours.encode_batch(texts)]
    assert theirs(texts, add_special_tokens=False)["input_ids"] == expected
    masked = transformers.AutoTokenizer.from_pretrained(
        tmp_path / "carried", split_special_tokens=False
    )
    found = masked("the <mask>!", add_special_tokens=False)["input_ids"]
    assert masked.convert_ids_to_tokens(found) == ["▁the", "<mask>", "!"]


# --- what cannot be -------------------------------------------------------------------------------


def test_what_is_missing_or_contradicts_itself_is_one_sentence(
    vocabulary: Path, tmp_path: Path
) -> None:
    lines = vocabulary.read_text().splitlines()
    lines[103] = "[unused103]"
    (tmp_path / "vocab.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"has no \[MASK\] token .* tokenizer\.add_special_tokens"):
        load_tokenizer(tmp_path / "vocab.txt")
    save_electra(tmp_path / "saved", vocabulary)
    edit_json(tmp_path / "saved" / CONFIG_FILE, mask_token="[SEP]")
    with pytest.raises(DataError, match=r"two special tokens have one id .*mask \[SEP\] = 102"):
        load_tokenizer(tmp_path / "saved")
    edit_json(tmp_path / "saved" / CONFIG_FILE, mask_token="<blank>")
    with pytest.raises(DataError, match=r"has no <blank> token"):
        load_tokenizer(tmp_path / "saved")
    edit_json(tmp_path / "saved" / CONFIG_FILE, mask_token="[MASK]", do_lower_case=False)
    with pytest.raises(DataError, match=r"lowercase = True, but `do_lower_case`.* is False"):
        load_tokenizer(tmp_path / "saved")


def test_folders_and_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").touch()
    with pytest.raises(DataError, match=r"neither tokenizer\.json nor vocab\.txt, but spiece"):
        load_tokenizer(tmp_path)
    with pytest.raises(DataError, match=r"spiece\.model: expected a folder"):
        load_tokenizer(tmp_path / "spiece.model")
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    with pytest.raises(DataError, match=r"vocab\.txt: byte 6 is not UTF-8"):
        load_tokenizer(tmp_path)


# --- through the build ----------------------------------------------------------------------------


def test_shards_rows_and_masks_have_the_ids_of_the_tokenizer(
    vocabulary: Path, topics_file: Path, topic_texts: list[str], tmp_path: Path
) -> None:
    import transformers

    options = BuildOptions(validation=0.2, block_tokens=4096)
    stats = build_shards([topics_file], vocabulary, tmp_path / "shards", options)
    manifest = Manifest.load(tmp_path / "shards")
    assert manifest.facts.special_tokens == SpecialTokens(**BERT_IDS)
    assert verify_shards(tmp_path / "shards").problems == ()
    assert stats.to_dict()["unknown_share"] == stats.shares.unknown / stats.shares.tokens
    theirs = transformers.AutoTokenizer.from_pretrained(manifest.tokenizer_path)
    expected = {tuple(theirs(text, add_special_tokens=False)["input_ids"]) for text in topic_texts}
    reader = BlockReader(manifest, TRAIN)
    blocks = [reader.read(number) for number in range(len(reader))]
    documents = [
        tuple(document.tolist())
        for block in blocks
        for document in np.split(block.tokens, np.cumsum(block.lengths)[:-1])
    ]
    assert len(set(documents) & expected) > 0.8 * len(documents)  # a long one is cut at a block
    config = configuration.build(
        {
            "data": {"shards": str(tmp_path / "shards"), "row_length": 64, "streams": 1},
            "model": {"preset": "tiny"},
            "train": {"steps": 2, "global_rows": 8, "micro_rows": 4},
            "optim": {"warmup_steps": 0},
        }
    )
    data = RunData.alone(manifest)
    batches = list(next(StepSource(StepPlan.of(config, 0, 1), data)).micro_batches)
    row_format = RowFormat.of(config)
    for part in held_out(data, row_format, config.validation.rows):
        batches += list(deal(part.rows, row_format, data.special_tokens, 0, 1))
    for batch in batches:
        check_batch(batch)


def check_batch(batch: Any) -> None:
    """[CLS] starts each document, [SEP] ends it, [PAD] is the rest, nothing of it is masked."""
    padding = batch.documents == PADDING_DOCUMENT
    assert np.array_equal(batch.tokens == BERT_IDS["pad"], padding)
    starts = (batch.positions == 0) & ~padding
    assert np.array_equal(batch.tokens == BERT_IDS["cls"], starts)
    used = batch.masked_weights > 0
    specials = [BERT_IDS[name] for name in ("pad", "cls", "sep", "mask")]
    assert not np.isin(batch.masked_targets[used], specials).any()
    changed = batch.inputs != batch.tokens
    assert set(batch.inputs[changed].tolist()) <= {BERT_IDS["mask"]}
    assert changed.sum() > 0 or not used.any()
    ends = np.diff(batch.documents, axis=1, append=-2) != 0
    assert np.array_equal(batch.tokens == BERT_IDS["sep"], ends & ~padding)


def test_a_manifest_without_special_tokens_has_those_of_our_own(
    tokenizer_dir: Path, topics_file: Path, tmp_path: Path
) -> None:
    build_shards([topics_file], tokenizer_dir, tmp_path / "shards")
    file = tmp_path / "shards" / "manifest.json"
    content = json.loads(file.read_text())
    assert content.pop("special_tokens") == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    file.write_text(json.dumps(content))
    assert Manifest.load(tmp_path / "shards").facts.special_tokens == SpecialTokens()
    file.write_text(json.dumps(content | {"special_tokens": {"pad": 0, "mask": 5000}}))
    with pytest.raises(DataError, match=r"special_tokens\.mask 5000 is outside the vocabulary"):
        Manifest.load(tmp_path / "shards")
    file.write_text(json.dumps(content | {"special_tokens": {"pad": 4}}))
    with pytest.raises(DataError, match="two special tokens have one id"):
        Manifest.load(tmp_path / "shards")


def test_a_link_next_to_a_tokenizer_is_not_followed(vocabulary: Path, tmp_path: Path) -> None:
    save_electra(tmp_path / "saved", vocabulary)
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "saved" / SPECIAL_FILE).unlink(missing_ok=True)
    (tmp_path / "saved" / SPECIAL_FILE).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is a link"):
        load_tokenizer(tmp_path / "saved")
