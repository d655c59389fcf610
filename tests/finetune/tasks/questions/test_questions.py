"""Questions, windows, answers and the scores of SQuAD,
on questions about real text and on small cases done by hand.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers

from data_tools.tokenizer import train_tokenizer
from electra_dist.errors import DataError, UserError
from electra_dist.finetune.tasks.questions.answers import Answer, best_answers
from electra_dist.finetune.tasks.questions.reading import Question, read_questions
from electra_dist.finetune.tasks.questions.squad_scores import (
    best_threshold,
    exact_match,
    f1,
    squad_scores,
)
from electra_dist.finetune.tasks.questions.windows import Windows, make_windows, unreachable
from tests.support.english import read_texts, squad_articles

#: Paragraphs of the topics of `pydoc` that are asked about, five questions for each.
PARAGRAPHS = 220


@pytest.fixture(scope="module")
def real_file(samples: Path, pydoc_topics: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQuAD file: the questions of `tests/samples`, then many on the topics of `pydoc`."""
    content = json.loads((samples / "questions.json").read_text(encoding="utf-8"))
    content["data"] += squad_articles(read_texts(pydoc_topics), PARAGRAPHS, seed=1)
    path = tmp_path_factory.mktemp("squad") / "questions.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def real(real_file: Path) -> list[Question]:
    return read_questions(real_file, labelled=True)


@pytest.fixture(scope="module")
def tokenizer(real: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As `data tokenizer` makes them, learnt from the contexts, loaded by `transformers`."""
    folder = tmp_path_factory.mktemp("questions")
    (folder / "text.txt").write_text(
        "\n\n".join(dict.fromkeys(question.context for question in real))
    )
    train_tokenizer([folder / "text.txt"], 2000, folder / "tokenizer")
    return transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")


@pytest.fixture(scope="module")
def words() -> Any:
    """One token a word, so that windows can be counted by hand."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "what", "?", *"abcdefghij"]
    model = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, unk_token="[UNK]", pad_token="[PAD]"
    )


def ask(context: str, answer: str = "", name: str = "q", question: str = "who ?") -> Question:
    """A question whose answer is the first place where `answer` stands."""
    found = ((answer,), (context.index(answer),)) if answer else ((), ())
    return Question(name, question, context, *found)


# --- reading


def test_a_squad_file_is_read_as_json_gives_it(real_file: Path, real: list[Question]) -> None:
    content = json.loads(real_file.read_text(encoding="utf-8"))
    plain = [
        Question(
            qa["id"],
            qa["question"],
            paragraph["context"],
            tuple(answer["text"] for answer in qa["answers"]),
            tuple(answer["answer_start"] for answer in qa["answers"]),
        )
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    assert real == plain
    assert len(real) == 88 + 5 * PARAGRAPHS
    assert {len(question.answers) for question in real} == {1, 2}


def squad(tmp_path: Path, *qas: Any, context: Any = "a b c") -> Path:
    path = tmp_path / "questions.json"
    path.write_text(
        json.dumps(
            {"version": "v2.0", "data": [{"paragraphs": [{"context": context, "qas": list(qas)}]}]}
        )
    )
    return path


def lines(tmp_path: Path, *entries: Any) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


B = {"text": "b", "answer_start": 2}
GOOD = {"id": "x", "question": "what ?", "answers": [B]}


def test_squad_2_says_which_questions_cannot_be_answered(tmp_path):
    plausible = {
        "id": "y",
        "question": "who ?",
        "is_impossible": True,
        "answers": [],
        "plausible_answers": [B],
    }
    bare = {"id": "z", "question": "who ?", "is_impossible": True}
    assert read_questions(
        squad(tmp_path, GOOD | {"is_impossible": False}, plausible, bare), labelled=True
    ) == [
        Question("x", "what ?", "a b c", ("b",), (2,)),
        Question("y", "who ?", "a b c", (), ()),
        Question("z", "who ?", "a b c", (), ()),
    ]


def test_json_lines_may_leave_out_ids_and_answers(tmp_path):
    entry = {"question": "what ?", "context": "a b c"}
    path = lines(
        tmp_path, entry, entry | {"id": "x", "answers": [B, {"text": "b c", "answer_start": 2}]}
    )
    assert read_questions(path, labelled=False) == [
        Question("1", "what ?", "a b c", (), ()),
        Question("x", "what ?", "a b c", ("b", "b c"), (2, 2)),
    ]
    path = lines(tmp_path, entry | {"answers": []}, entry | {"answers": [B]})
    assert [q.answers for q in read_questions(path, labelled=True)] == [(), ("b",)]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [{**GOOD, "answers": [{"text": "b", "answer_start": 1}]}],
            "'x': answer 'b' is not at character 1, where ' '",
        ),
        (
            [{**GOOD, "answers": [{"text": "c", "answer_start": -1}]}],
            "answer 'c' is not at character -1",
        ),
        (
            [{**GOOD, "answers": [{"text": "b", "answer_start": "2"}]}],
            "`answer_start` is '2'; expected a whole number",
        ),
        (
            [{**GOOD, "answers": [{"text": "b", "answer_start": True}]}],
            "`answer_start` is True; expected a whole",
        ),
        (
            [{**GOOD, "answers": [{"answer_start": 2}]}],
            "`text` of an answer is None; expected a string",
        ),
        (
            [{**GOOD, "answers": [{"text": " ", "answer_start": 1}]}],
            "an answer is ' '; expected some text",
        ),
        ([{**GOOD, "answers": ["b"]}], "an answer is 'b'; expected an object"),
        ([{**GOOD, "answers": {"text": ["b"]}}], "`answers` is .*; expected a list"),
        (
            [{**GOOD, "is_impossible": True}],
            "'x': `is_impossible` with the answer 'b'; expected no answers",
        ),
        ([{**GOOD, "is_impossible": 0}], "`is_impossible` is 0; expected true or false"),
        (
            [{**GOOD, "is_impossible": False, "answers": []}],
            "'x': no `answers`; expected them, or `is_impossible`",
        ),
        ([{"id": "x", "question": "?"}], "'x': no `answers`; expected them"),
        (
            [{**GOOD, "answers": []}],
            "no question has an answer or is marked `is_impossible`; expected labelled",
        ),
        ([{**GOOD, "question": None}], "'x': `question` is None; expected a string"),
        ([GOOD, GOOD], r"qas\[1\]: question 'x' is there twice"),
        (
            [{"question": "who ?"}],
            r"data\[0\].paragraphs\[0\].qas\[0\]: `id` is None; expected a string",
        ),
        (["who ?"], "the question is 'who .'; expected an object"),
        ([], "no question in this file"),
    ],
)
def test_a_wrong_question_is_named_with_what_was_expected(tmp_path, entries, message):
    with pytest.raises(DataError, match=message) as raised:
        read_questions(squad(tmp_path, *entries), labelled=True)
    assert str(tmp_path / "questions.json") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"data": [', "not JSON"),
        ("a.json", b"[]", r"the value is \[\]; expected an object"),
        ("a.json", b'{"questions": []}', "`data` is None; expected a list"),
        (
            "a.json",
            b'{"data": [{"paragraphs": 3}]}',
            r"data\[0\]: `paragraphs` is 3; expected a list",
        ),
        (
            "a.json",
            b'{"data": [{"paragraphs": [[]]}]}',
            r"data\[0\].paragraphs\[0\]: the value is \[\]",
        ),
        (
            "a.json",
            b'{"data": [{"paragraphs": [{"qas": [{"id": "x", "question": "?"}]}]}]}',
            "`context` is None",
        ),
        ("a.json", b"\xff", "cannot be read"),
        ("a.jsonl", b'{"question": "?", "context": "a"}\n\n{"ques', "line 3: not JSON"),
        ("a.jsonl", b"3\n", "line 1: the line is 3; expected an object"),
        (
            "a.jsonl",
            b'{"question": "?", "context": "  "}\n',
            "line 1, question '1': `context` is '  '",
        ),
        ("a.jsonl", b"\n", "no question in this file"),
        (
            "a.csv",
            b"",
            r"unknown format of questions; expected a SQuAD file \(.json\) or JSON lines",
        ),
    ],
)
def test_a_wrong_file_is_named_with_what_was_expected(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_questions(tmp_path / name, labelled=False)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.json: cannot be read"):
        read_questions(tmp_path / "none.json", labelled=False)


# --- windows


def test_windows_of_words_counted_by_hand(words):
    """[CLS] who ? [SEP] + 4 words + [SEP] = 9 tokens;
    windows of 4 words that share 2: abcd, cdef, efgh.
    """
    windows = make_windows(
        [ask("a b c d e f g h", "e f"), ask("a b", "b")], words, max_length=9, stride=2
    )
    text = [" ".join(words.convert_ids_to_tokens(ids.tolist())) for ids in windows.input_ids]
    assert text == [
        "[CLS] who ? [SEP] a b c d [SEP]",
        "[CLS] who ? [SEP] c d e f [SEP]",
        "[CLS] who ? [SEP] e f g h [SEP]",
        "[CLS] who ? [SEP] a b [SEP]",
    ]
    assert [kinds.tolist() for kinds in windows.token_type_ids] == [[0] * 4 + [1] * 5] * 3 + [
        [0] * 4 + [1] * 3
    ]
    assert windows.question.tolist() == [0, 0, 0, 1]
    assert windows.offsets[1].tolist() == [[-1, -1]] * 4 + [
        [4, 5],
        [6, 7],
        [8, 9],
        [10, 11],
        [-1, -1],
    ]
    assert windows.start.tolist() == [0, 6, 4, 5]  # the first window ends before the answer
    assert windows.end.tolist() == [0, 7, 5, 5]
    assert len(windows) == 4


def test_an_answer_that_is_cut_is_labelled_as_none(words):
    questions = [
        ask("a b c d e f", "c d e", "cut"),
        ask("a b c d e f", "d", "whole"),
        ask("a b c d e f", name="none"),
    ]
    windows = make_windows(questions, words, max_length=9, stride=0)  # abcd, ef
    assert windows.start.tolist() == [0, 0, 7, 0, 0, 0]
    assert windows.end.tolist() == [0, 0, 7, 0, 0, 0]
    assert unreachable(questions, windows) == ["cut"]


def test_only_the_first_answer_is_the_label(words):
    question = replace(ask("a b c", "c"), answers=("c", "a"), starts=(4, 0))
    assert make_windows([question], words, 9, 2).start.tolist() == [6]


def test_a_question_without_room_for_the_context_is_cut_and_said(words, capsys):
    # 9 - 3 - 6 = 0 tokens are left
    long = ask("a b c d", "c", "long", question="who who who who who ?")
    windows = make_windows([ask("a b"), long], words, max_length=9, stride=0)
    printed = capsys.readouterr().err
    assert (
        "1 of 2 questions are longer than 5 tokens; the rest of them is not seen (long)" in printed
    )
    own = [
        ids.tolist()
        for ids, owner in zip(windows.input_ids, windows.question, strict=True)
        if owner
    ]
    assert len(own) == 4  # one token of the context in each
    assert all(len(ids) == 9 for ids in own)
    assert [int(start) for start in windows.start[windows.question == 1]] == [0, 0, 7, 0]


def test_an_overlap_without_room_for_a_question_and_contexts_without_tokens_are_named(
    words, tokenizer
):
    with pytest.raises(DataError, match=r"`stride` 4: twice the overlap leaves no room .* of 9"):
        make_windows([ask("a b c d e f")], words, max_length=9, stride=4)
    with pytest.raises(DataError, match="'q': no tokens in its context"):
        # white space alone: the normaliser leaves nothing of it
        make_windows([ask("\u2003\n")], tokenizer, max_length=32, stride=4)


def token_edges(tokenizer: Any, context: str) -> tuple[set[int], set[int]]:
    """Where tokens start and end when the whole context is
    encoded by the tokenizers library alone.
    """
    offsets = tokenizer.backend_tokenizer.encode(context, add_special_tokens=False).offsets
    starts = {
        start + len(context[start:end]) - len(context[start:end].lstrip()) for start, end in offsets
    }
    return starts, {end for _, end in offsets}


@pytest.fixture(scope="module")
def on_edges(real, tokenizer) -> set[str]:
    """Questions whose answer starts and ends where tokens do."""
    tokenizer.backend_tokenizer.no_truncation()
    edges = {
        context: token_edges(tokenizer, context)
        for context in {question.context for question in real}
    }
    return {
        q.id
        for q in real
        if q.starts[0] in edges[q.context][0]
        and q.starts[0] + len(q.answers[0]) in edges[q.context][1]
    }


@pytest.fixture(scope="module")
def windows(real, tokenizer) -> Windows:
    return make_windows(real, tokenizer, max_length=128, stride=48)


def test_labelled_tokens_of_real_text_are_the_characters_of_the_answer(real, windows, on_edges):
    assert 0.98 * len(real) <= len(on_edges) < len(real)  # some answers end inside of a token
    for number in np.flatnonzero(windows.end):
        question, offsets = real[windows.question[number]], windows.offsets[number]
        (start, first_end), (last_start, end) = (
            offsets[windows.start[number]],
            offsets[windows.end[number]],
        )
        gold = (question.starts[0], question.starts[0] + len(question.answers[0]))
        if question.id in on_edges:
            assert question.context[start:end] == question.answers[0]
        else:  # as few tokens as hold all of it
            assert start <= gold[0] < first_end
            assert last_start < gold[1] <= end


def test_windows_of_real_text_without_a_label_do_not_hold_the_answer(real, windows):
    assert 0 < (windows.end == 0).sum() < len(windows)
    for number in np.flatnonzero(windows.end == 0):
        question = real[windows.question[number]]
        inside = windows.offsets[number][windows.offsets[number][:, 1] > 0]
        start, end = question.starts[0], question.starts[0] + len(question.answers[0])
        assert not (inside[0, 0] <= start and end <= inside[-1, 1])


def test_every_answer_no_longer_than_the_overlap_is_in_a_window(real, windows, tokenizer):
    lost = [question for question in real if question.id in unreachable(real, windows)]
    assert all(
        len(tokenizer(question.answers[0], add_special_tokens=False)["input_ids"]) > 48
        for question in lost
    )
    assert len(lost) < 0.01 * len(real)


def test_windows_of_real_text_are_what_the_tokenizer_says_and_cover_the_context(
    real, windows, tokenizer
):
    assert max(map(len, windows.input_ids)) == 128
    assert (np.diff(windows.question) >= 0).all()
    for index in range(0, len(real), 7):
        question = tokenizer(real[index].question)["input_ids"]  # [CLS] question [SEP]
        context = tokenizer(real[index].context, add_special_tokens=False)["input_ids"]
        parts = []
        for number in np.flatnonzero(windows.question == index):
            ids = windows.input_ids[number].tolist()
            assert ids[: len(question)] == question
            assert ids[-1] == tokenizer.sep_token_id
            assert windows.token_type_ids[number].tolist() == [0] * len(question) + [1] * (
                len(ids) - len(question)
            )
            parts.append(ids[len(question) : -1])
        assert parts[0] + [token for part in parts[1:] for token in part[48:]] == context


def test_white_space_and_bytes_do_not_blur_an_answer(tokenizer):
    """A token for white space alone, and three tokens for one character."""
    context = " ab  東京 , 42 %\u00a0of\n \ufb01ne x"
    for answer in ("東京", "東", "京", "42", "42 %", "of", "\ufb01ne", "ab", "x"):
        windows = make_windows([ask(context, answer)], tokenizer, 128, 16)
        offsets = windows.offsets[0]
        assert context[offsets[windows.start[0], 0] : offsets[windows.end[0], 1]] == answer


# --- answers


def label_logits(windows: Windows) -> tuple[list[Any], list[Any]]:
    """What a perfect model gives: 10 at the label, 0 elsewhere; padded, as a batch is."""
    starts, ends = (np.zeros((len(windows), 150), dtype=np.float32) for _ in range(2))
    starts[np.arange(len(windows)), windows.start] = 10
    ends[np.arange(len(windows)), windows.end] = 10
    return starts, ends


@pytest.mark.parametrize("allow_none", [False, True])
def test_perfect_logits_give_perfect_scores_on_real_text(real, windows, on_edges, allow_none):
    lost = set(unreachable(real, windows))
    answers = best_answers(
        real, windows, *label_logits(windows), longest=128, allow_none=allow_none, threshold=1.0
    )
    found = {question.id: answer.text for question, answer in zip(real, answers, strict=True)}
    exact = [question for question in real if question.id in on_edges - lost]
    assert len(exact) >= 0.96 * len(real)
    assert all(found[question.id] == question.answers[0] for question in exact)
    assert squad_scores(found, exact) == {"exact_match": 1.0, "f1": 1.0}
    assert squad_scores(found, real)["f1"] > 0.97


ODD = " ab  東京, the naïve 42 %  of\n \ufb01ne 1,024. And (x) so on it goes ; for a while."


def brute_force(
    question: Question, parts: list[Any], longest: int, n_best: int
) -> list[tuple[float, int, int]]:
    """The best spans of one question, best first, by looking at all pairs of tokens."""
    best: dict[tuple[int, int], float] = {}
    for offsets, types, start, end in parts:
        spans = []
        for i in range(len(offsets)):
            for j in range(i, min(i + longest, len(offsets))):
                texts = [question.context[slice(*offsets[k])].strip() for k in (i, j)]
                if types[i] == types[j] == 1 and all(texts) and offsets[i][0] >= 0 <= offsets[j][0]:
                    spans.append((float(start[i]) + float(end[j]), offsets[i][0], offsets[j][1]))
        for score, *span in sorted(spans, reverse=True)[:n_best]:
            best[tuple(span)] = max(score, best.get(tuple(span), -math.inf))
    return sorted(((score, *span) for span, score in best.items()), reverse=True)[:n_best]


@pytest.mark.parametrize("seed", range(12))
def test_best_answers_are_those_of_a_loop_over_all_spans(tokenizer, seed):
    rng = np.random.default_rng(seed)
    longest, n_best = int(rng.integers(1, 12)), int(rng.integers(1, 30))
    questions = [ask(ODD[int(rng.integers(0, 40)) :], name=str(i)) for i in range(5)]
    windows = make_windows(questions, tokenizer, int(rng.integers(20, 40)), 6)
    start, end = ([rng.normal(0, 2, len(ids)) for ids in windows.input_ids] for _ in range(2))
    threshold = float(rng.normal())
    sure = best_answers(questions, windows, start, end, longest, n_best)
    unsure = best_answers(
        questions, windows, start, end, longest, n_best, allow_none=True, threshold=threshold
    )
    for index, question in enumerate(questions):
        numbers = np.flatnonzero(windows.question == index)
        parts = [
            (windows.offsets[n].tolist(), windows.token_type_ids[n], start[n], end[n])
            for n in numbers
        ]
        spans = brute_force(question, parts, longest, n_best)
        null = min(float(start[n][0] + end[n][0]) for n in numbers)
        score, first, last = spans[0]
        total = sum(math.exp(span[0]) for span in spans)
        expected = Answer(
            question.context[first:last], first, last, score, null, math.exp(score) / total
        )
        assert sure[index] == replace(expected, probability=pytest.approx(expected.probability))
        total += math.exp(null)
        if null - score > threshold:
            expected = Answer("", 0, 0, score, null, math.exp(null) / total)
        else:
            expected = replace(expected, probability=math.exp(score) / total)
        assert unsure[index] == replace(expected, probability=pytest.approx(expected.probability))


@pytest.mark.parametrize("seed", range(8))
def test_spans_lie_in_the_context_are_in_order_and_no_longer_than_allowed(words, seed):
    """Even where the question, [SEP], the padding and spans from
    late to early tokens look far better.
    """
    rng = np.random.default_rng(seed)
    questions = [ask("a b c d e f g h i j"[: 2 * n - 1], name=str(n)) for n in (3, 8, 10)]
    windows = make_windows(questions, words, max_length=11, stride=2)
    start, end = (rng.normal(0, 1, (len(windows), 15)) for _ in range(2))
    for logits in (start, end):
        logits[:, :4] += 100
        logits[np.arange(len(windows)), [len(ids) - 1 for ids in windows.input_ids]] += 100
        logits[:, 11:] += 100
    start[:, 7] += 50
    end[:, 4] += 50
    for question, answer in zip(
        questions, best_answers(questions, windows, start, end, longest=3), strict=True
    ):
        assert answer.text == question.context[answer.start : answer.end]
        assert 1 <= len(answer.text.split()) <= 3


def test_the_null_score_is_the_lowest_of_the_windows_and_the_threshold_is_strict(words):
    """Windows abcd, cdef; [CLS] gives 4 + 3 and 2 + 1; the best span, f alone, 1 + 1.5:
    a margin of 3 - 2.5 = 0.5.
    """
    windows = make_windows([ask("a b c d e f")], words, max_length=9, stride=2)
    start, end = np.zeros((2, 9)), np.zeros((2, 9))
    start[:, 0], end[:, 0], start[1, 7], end[1, 7] = [4, 2], [3, 1], 1, 1.5
    for threshold, text in ((0.5, "f"), (0.49, "")):
        [answer] = best_answers(
            [ask("a b c d e f")], windows, start, end, allow_none=True, threshold=threshold
        )
        assert (answer.text, answer.score, answer.null_score) == (text, 2.5, 3.0)


def test_a_window_of_white_space_alone_gives_no_answer(words):
    windows = make_windows([ask("a b c d e f")], words, max_length=9, stride=2)  # abcd, cdef
    windows.offsets[1][:, 1] = windows.offsets[1][:, 0]
    end = np.arange(18.0).reshape(2, 9)
    [answer] = best_answers([ask("a b c d e f")], windows, np.zeros((2, 9)), end)
    # all starts are equal: the first one is taken
    assert (answer.text, answer.score) == (
        "a b c d",
        7.0,
    )


def test_logits_that_are_wrong_are_refused(words):
    question = ask("a b")
    windows = make_windows([question], words, 9, 2)
    good = np.zeros((1, 7))
    with pytest.raises(UserError, match="question 'q': logits that are not finite"):
        best_answers([question], windows, good, good * np.nan)
    for bad in (np.zeros((2, 7)), np.zeros((1, 6))):
        with pytest.raises(ValueError, match="logits"):
            best_answers([question], windows, good, bad)
    for wrong in ({"longest": 0}, {"n_best": 0}):
        with pytest.raises(ValueError, match="expected at least 1"):
            best_answers([question], windows, good, good, **wrong)


# --- scores


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "overlap"),
    [
        ("The Denver  Broncos!", ["Denver Broncos"], 1, 1),
        ("U.S.", ["us"], 1, 1),  # punctuation is taken out
        ("an answer", ["Answer", "nothing"], 1, 1),
        ("theatre", ["a theatre", "atre"], 1, 1),  # articles are words
        # predicted {in, denver, broncos}, gold {denver, broncos}:
        # precision 2/3, recall 2/2, 2 * 2/3 / (5/3) = 4/5
        ("in Denver Broncos", ["Denver Broncos"], 0, 4 / 5),
        # {x, x, y} and {x, z}: one in common; precision 1/3, recall 1/2, 2 * 1/6 / (5/6) = 2/5
        ("x x y", ["x z"], 0, 2 / 5),
        # the best of: 0, 2/5 and {y} in {x, x, y}: precision 1/3, recall 1, 2 * 1/3 / (4/3) = 1/2
        ("x x y", ["z", "x z", "y"], 0, 1 / 2),
        ("cat", ["dog"], 0, 0),
        ("", ["dog"], 0, 0),
        ("", [], 1, 1),
        ("dog", [], 0, 0),
        ("the", [], 1, 1),  # nothing is left of it
    ],
)
def test_exact_match_and_f1_by_hand(prediction, golds, exact, overlap):
    assert exact_match(prediction, golds) == exact
    assert f1(prediction, golds) == pytest.approx(overlap)


def plain_words(text: str) -> list[str]:
    """Lower case, no punctuation, no articles, character by character and word by word."""
    kept = "".join(c for c in text.lower() if c.isalnum() or c.isspace() or not c.isascii())
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def test_f1_of_real_text_is_that_of_taking_words_off_a_list(real):
    """Predictions are pieces of the context around the answer,
    or beside it, as models give them.
    """
    rng = np.random.default_rng(0)
    values = []
    for question in (q for q in real if q.context.isascii()):
        start = question.starts[0] + int(rng.integers(-15, 10))
        prediction = question.context[
            max(0, start) : start + len(question.answers[0]) + int(rng.integers(0, 20))
        ]
        guess, gold = plain_words(prediction), plain_words(question.answers[0])
        left = list(gold)
        for word in guess:
            if word in left:
                left.remove(word)
        common = len(gold) - len(left)
        precision, recall = common / max(1, len(guess)), common / len(gold)
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
        values.append(f1(prediction, question.answers))
        assert values[-1] == pytest.approx(expected)
        assert exact_match(prediction, question.answers) == (guess == gold)
    assert len(values) > 500
    assert 0.2 < np.mean(values) < 0.8


def test_squad_scores_by_hand():
    questions = [
        ask("a cat sat", "cat", "1"),
        ask("big dog ran", "big dog", "2"),
        ask("a", name="3"),
        ask("b", name="4"),
    ]
    answers = {"1": "The cat", "2": "dog", "3": "", "4": "b"}
    # F1 of "dog" for "big dog": precision 1, recall 1/2: 2 * 1/2 / (3/2) = 2/3
    assert squad_scores(answers, questions) == pytest.approx(
        {
            "exact_match": (1 + 0 + 1 + 0) / 4,
            "f1": (1 + 2 / 3 + 1 + 0) / 4,
            "has_answer_exact_match": 1 / 2,
            "has_answer_f1": (1 + 2 / 3) / 2,
            "no_answer_accuracy": 1 / 2,
        }
    )
    assert squad_scores(answers, questions[:2]) == pytest.approx(
        {"exact_match": 1 / 2, "f1": 5 / 6}
    )
    assert squad_scores(answers, questions[2:]) == {
        "exact_match": 0.5,
        "f1": 0.5,
        "no_answer_accuracy": 0.5,
    }


def test_what_cannot_be_scored_is_named():
    with pytest.raises(DataError, match="question 'q': no prediction for it"):
        squad_scores({}, [ask("a", "a")])
    with pytest.raises(DataError, match="no question to score"):
        squad_scores({}, [])


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_is_that_of_trying_all(seed):
    rng = np.random.default_rng(seed)
    questions = [
        ask("red big dog", ["", "dog", "big dog"][rng.integers(0, 3)], str(i)) for i in range(25)
    ]
    words = [["dog", "big dog", "red"][rng.integers(0, 3)] for _ in questions]
    answers = [
        Answer(w, 0, 1, float(rng.integers(0, 5)), float(rng.integers(0, 5)), 0.5) for w in words
    ]

    def chosen(threshold: float) -> dict[str, str]:
        margins = [answer.null_score - answer.score for answer in answers]
        return {
            str(i): "" if m > threshold else a.text
            for i, (a, m) in enumerate(zip(answers, margins, strict=True))
        }

    tried = {
        threshold: squad_scores(chosen(threshold), questions)["f1"]
        for threshold in np.arange(-6, 6, 0.5)
    }
    lowest = min(
        threshold
        for threshold, value in tried.items()
        if value == pytest.approx(max(tried.values()))
    )
    assert chosen(best_threshold(questions, answers)) == chosen(lowest)


def test_a_threshold_needs_answers_without_gaps():
    with pytest.raises(ValueError, match="without `allow_none`"):
        best_threshold([ask("a", "a")], [Answer("", 0, 0, 1.0, 2.0, 0.5)])
    with pytest.raises(ValueError, match="expected labelled questions"):
        best_threshold([], [])
