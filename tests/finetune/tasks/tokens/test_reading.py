"""Files of words and labels: what is read of them, and what is refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra_dist.errors import DataError
from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.tokens.reading import DEFAULT, read_sentences, sentence_of
from electra_dist.finetune.tasks.tokens.sentences import sentence_of_text


def save(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

# NNP B-NP O
1 CD I-NP O
# # I-NP O
"""
UD = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tfuimos\tir\tVERB\t_\t_\t_\t_\t_\t_

1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""
WNUT = """# id 5a domain=en
Berlin _ _ B-LOC
is _ _ O
"""


def read(path: Path, columns: Columns = DEFAULT) -> list[tuple[list[str], list[str] | None]]:
    found = read_sentences(path, columns, "refuse")
    return [(one.words, None if one.labels is None else list(one.labels)) for one in found]


def test_columns_by_white_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.conll", CONLL_2003)
    assert read(path) == [(["EU", "rejects"], ["B-ORG", "O"]), (["#", "1", "#"], ["O"] * 3)]
    said = capsys.readouterr()
    assert "2 sentences, 5 words in column 1, labels in column 4 of 4" in said.out + said.err
    assert read(path, Columns(text="1", label="2"))[1] == (["#", "1", "#"], ["NNP", "CD", "#"])
    assert [one.lines for one in read_sentences(path, DEFAULT)] == [(3, 4), (6, 7, 8)]


def test_universal_dependencies(tmp_path: Path) -> None:
    path = save(tmp_path / "a.conllu", UD)
    assert read(path) == [(["vamos", "nos"], ["VERB", "PRON"]), (["#"], ["SYM"])]


def test_a_comment_has_another_form_than_a_line_of_words(tmp_path: Path) -> None:
    assert read(save(tmp_path / "a.conll", WNUT)) == [(["Berlin", "is"], ["B-LOC", "O"])]


def test_tabs_leave_blanks_in_a_word(tmp_path: Path) -> None:
    path = save(tmp_path / "a.bio", "1 000\tB-N\nof\tO\r\n\r\nit\tO\n")
    assert read(path) == [(["1 000", "of"], ["B-N", "O"]), (["it"], ["O"])]


def test_lists_of_json_lines(tmp_path: Path) -> None:
    row = {"tokens": ["New", "York"], "ner_tags": ["B-LOC", "I-LOC"]}
    path = save(tmp_path / "a.jsonl", json.dumps(row) + "\n\n")
    columns = Columns(text="tokens", label="ner_tags")
    assert read(path, columns) == [(["New", "York"], ["B-LOC", "I-LOC"])]
    # numbers of columns belong to the other kind of file
    row = {"words": ["a"], "labels": [3]}
    path = save(tmp_path / "b.jsonl", json.dumps(row))
    assert read(path, Columns(text="2", label="4")) == [(["a"], ["3"])]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.conll", "a O\nb\n", "line 2: 1 columns, but line 1 has 2"),
        ("a.conll", "\n-DOCSTART- O\n", "holds no words"),
        ("a.conll", "", "holds no words"),
        ("a.conll", "a\nb\n", "no labels in column 1"),
        ("a.conll", "a\tO\n\xa0\tO\n", "line 2: the word '\\\\xa0' is white space"),
        ("a.conll", "a O\n\nb nan\n", "1 of 2 sentences have words without a label .line 3"),
        ("a.txt", "a O\n", "rename one of columns to .conll"),
        ("a.tsv", "a O\n", "unknown format"),
        ("a.jsonl", '{"words": ["a", "b"], "labels": ["O"]}', "line 1: 2 words .* 1 labels"),
        ("a.jsonl", '\n{"words": ["a", " "], "labels": ["O", "O"]}', "line 2: the word ' '"),
        ("a.jsonl", '{"words": ["a", 1], "labels": ["O", "O"]}', "the word 1 is no text"),
        ("a.jsonl", '{"words": ["a"], "labels": [null]}', "words without a label"),
        ("a.jsonl", '{"words": ["a"], "labels": [true]}', "the label is True"),
        ("a.jsonl", '{"words": ["a"], "labels": "O"}', "expected a list of labels"),
        ("a.jsonl", '{"word": ["a"]}', "no list 'words' .*mean"),
        ("a.jsonl", "[1]", "line 1: is list"),
        ("a.jsonl", "{", "line 1: is not JSON"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = save(tmp_path / name, text)
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    path = save(tmp_path / "a.conll", "a O\n")
    with pytest.raises(DataError, match="`text` FORM: columns of such a file have no names"):
        read(path, Columns(text="FORM", label="labels"))
    with pytest.raises(DataError, match="`text` 3 is not among them"):
        read(path, Columns(text="3", label="labels"))
    with pytest.raises(DataError, match="`pair`"):
        read(path, Columns(text="words", pair="b", label="labels"))


def test_sentences_without_labels_are_left_out_where_the_user_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", '{"words": ["a"], "labels": ["O"]}\n{"words": ["b"]}\n')
    assert [one.words for one in read_sentences(path, DEFAULT, "drop")] == [["a"]]
    assert [one.words for one in read_sentences(path, DEFAULT, "keep")] == [["a"], ["b"]]


def test_words_of_a_text() -> None:
    text = "Don't fly AL-AIN, U.N.\u200b (3.5 km)!  né"
    found = sentence_of_text(text)
    expected = ["Don't", "fly", "AL-AIN", ",", "U.N", ".", "(", "3.5", "km", ")", "!", "né"]
    assert found.words == expected
    assert [text[start:end] for start, end in found.spans] == expected
    assert sentence_of_text(" \u200b").words == []


def test_an_item_is_a_text_or_a_list_of_words() -> None:
    assert sentence_of({"text": "a b."}, DEFAULT, "here").words == ["a", "b", "."]
    given = sentence_of({"words": ["a", "b."]}, DEFAULT, "here")
    assert given.words == ["a", "b."]
    assert given.text == "a b."
    with pytest.raises(DataError, match="here: has no list 'words' and no text"):
        sentence_of({"text": 3}, DEFAULT, "here")
